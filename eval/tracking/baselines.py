"""Trackers to compare with: a box that never moves, and OpenCV's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from eval.tracking.sequences import Sequence
from eval.tracking.slots import Track
from jaxtrack.errors import JaxtrackError


def _opencv() -> dict[str, Callable[[], Any]]:
    """OpenCV's trackers that this build has (contrib builds have more)."""
    wanted = {"mil": "TrackerMIL", "kcf": "TrackerKCF", "csrt": "TrackerCSRT"}
    found = {}
    for name, kind in wanted.items():
        for module in (cv2, getattr(cv2, "legacy", None)):
            create = getattr(getattr(module, kind, None), "create", None)
            if create is not None:
                found[name] = create
                break
    return found


def names() -> list[str]:
    """Names of the peers that can run here."""
    return ["static", *_opencv()]


def run(name: str, sequence: Sequence) -> Track:
    """Track one sequence with a peer.

    Args:
        name: "static", or one of OpenCV's trackers in lower case.
        sequence: what is tracked.

    Returns:
        The track; scores are 1 where the peer answered and 0 where it reported a loss (its box stays).

    Raises:
        JaxtrackError: this build has no such tracker.
    """
    started = time.perf_counter()
    if name == "static":
        boxes = np.repeat(sequence.boxes[:1], sequence.length, axis=0)
        scores = np.ones(sequence.length)
    elif name in _opencv():
        boxes, scores = _run_opencv(_opencv()[name](), sequence)
    else:
        raise JaxtrackError(f"no peer {name!r} here; known: {', '.join(names())}")
    scores[0] = np.nan
    seconds = time.perf_counter() - started
    return Track(boxes.astype(np.float32), scores.astype(np.float32), seconds)


def _run_opencv(tracker: Any, sequence: Sequence) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.empty((sequence.length, 4))
    scores = np.ones(sequence.length)
    for i, frame in zip(range(sequence.length), sequence.frames()):
        picture = np.ascontiguousarray(frame[..., ::-1])
        if i == 0:
            boxes[0] = sequence.boxes[0]
            # OpenCV wants whole pixels and a box of some size.
            x, y, w, h = np.round(sequence.boxes[0]).astype(int)
            tracker.init(picture, (int(x), int(y), max(int(w), 2), max(int(h), 2)))
            continue
        found, box = tracker.update(picture)
        boxes[i] = box if found else boxes[i - 1]
        scores[i] = float(found)
    return boxes, scores
