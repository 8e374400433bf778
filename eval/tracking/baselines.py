"""Trackers to compare with: a box that never moves, and OpenCV's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from typing import Any

import cv2
import numpy as np

from jaxtrack.errors import JaxtrackError, unknown

from . import slots
from .sequences import Sequence, first_box_fault
from .slots import BrokenSequencesError, Track

# Pixels. OpenCV's trackers look for features in the box: in one of 4 by 4 they search without end.
_SMALLEST = 8


def _opencv() -> dict[str, Callable[[], Any]]:
    """Return OpenCV's trackers that this build has (contrib builds have more)."""
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
    """Return the names of the peers that can run here."""
    return ["static", *_opencv()]


def track(
    name: str, sequences: Items[Sequence], progress: Callable[[int], object] | None = None
) -> Iterator[tuple[str, Track]]:
    """Track sequences with a peer, one after the other.

    Args:
        name: one of `names`.
        sequences: what is tracked.
        progress: called with the number of frames done since the last call.

    Yields:
        Name and track of each sequence.

    Raises:
        JaxtrackError: this build has no such tracker.
        BrokenSequencesError: after all others: sequences that it cannot track.
    """
    faults: dict[str, str] = {}
    for sequence in sequences:
        try:
            yield sequence.name, run(name, sequence)
        except BrokenSequencesError as error:
            faults |= error.faults
        if progress is not None:
            progress(sequence.length)
    if faults:
        raise BrokenSequencesError(faults)


def run(name: str, sequence: Sequence) -> Track:
    """Track one sequence with a peer.

    Args:
        name: "static", or one of OpenCV's trackers in lower case.
        sequence: what is tracked.

    Returns:
        The track; scores are 1 where the peer answered and 0 where it reported a loss (its box stays).

    Raises:
        JaxtrackError: this build has no such tracker.
        BrokenSequencesError: the first box starts no tracker, a frame cannot be read, or OpenCV fails.
    """
    if name not in names():
        raise unknown("peer", name, names())
    fault = sequence.fault or first_box_fault(sequence)
    if fault is not None:
        raise BrokenSequencesError({sequence.name: fault})
    started = time.perf_counter()
    scores = np.ones(sequence.length)
    if name == "static":
        boxes = np.repeat(sequence.boxes[:1], sequence.length, axis=0)
    else:
        try:
            boxes, scores = _run_opencv(_opencv()[name](), sequence)
        except slots.BROKEN as error:
            fault = slots.fault_of(sequence.name, error)
            raise BrokenSequencesError({sequence.name: fault}) from error
    scores[0] = np.nan
    seconds = time.perf_counter() - started
    return Track(boxes.astype(np.float32), scores.astype(np.float32), seconds)


def _run_opencv(tracker: Any, sequence: Sequence) -> tuple[np.ndarray, np.ndarray]:
    if min(sequence.size) < 2 * _SMALLEST:
        raise JaxtrackError(
            f"{sequence.name}: frames of {sequence.size[1]}x{sequence.size[0]} are too small for a peer"
        )
    boxes = np.empty((sequence.length, 4))
    scores = np.ones(sequence.length)
    for i, frame in enumerate(slots.frames_of(sequence)):
        picture = np.ascontiguousarray(frame[..., ::-1])
        if i == 0:
            boxes[0] = sequence.boxes[0]
            tracker.init(picture, _whole_pixels(sequence.boxes[0], sequence.size))
            continue
        found, box = tracker.update(picture)
        boxes[i] = box if found and np.isfinite(box).all() else boxes[i - 1]
        scores[i] = float(found)
    return boxes, scores


def _whole_pixels(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box as OpenCV takes it: whole pixels, inside the ``(height, width)`` frame, of some size."""
    limits = np.asarray(size[::-1])
    low = np.clip(np.round(box[:2]).astype(int), 0, np.maximum(limits - _SMALLEST, 0))
    high = np.clip(np.round(box[:2] + box[2:]).astype(int), low + _SMALLEST, limits)
    x, y, w, h = (int(v) for v in (*low, *(high - low)))
    return x, y, w, h
