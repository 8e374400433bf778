"""Trackers to compare with: a box that never moves, and OpenCV's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jaxtrack.errors import JaxtrackError, UsageError, brief, unknown
from jaxtrack.io.paths import resolve
from jaxtrack.io.records import checksum

from . import code, slots
from .sequences import Sequence, first_box_fault
from .slots import BrokenSequencesError, Track

# Pixels. OpenCV's trackers look for features in the box: in one of 4 by 4 they search without end.
_SMALLEST = 8
# OpenCV's trackers: name -> class, and the fields of its parameters that are files of the user's.
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mil": ("TrackerMIL", ()),
    "kcf": ("TrackerKCF", ()),
    "csrt": ("TrackerCSRT", ()),
    "nano": ("TrackerNano", ("backbone", "neckhead")),
    "vit": ("TrackerVit", ("net",)),
    "dasiamrpn": ("TrackerDaSiamRPN", ("model", "kernel_cls1", "kernel_r1")),
}


@dataclasses.dataclass(frozen=True)
class Peer:
    """A tracker to compare with.

    Attributes:
        name: "static", or one of OpenCV's in lower case.
        files: the files of its networks, for those that have them.
    """

    name: str
    files: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return what its results depend on, in words."""
        sums = "".join(f", {checksum(Path(file))}" for file in self.files)
        return f"{self.name}, OpenCV {cv2.__version__}, code {code.of_functions()}{sums}"


def parse(text: str) -> Peer:
    """Return the peer of a text: ``mil``, or ``nano=BACKBONE,HEAD`` where networks come from files.

    Raises:
        UsageError: this build has no such tracker, or other files are wanted.
        JaxtrackError: a file is not there.
    """
    name, equals, given = text.partition("=")
    if name in _KINDS and _class_of(name) is None:
        raise UsageError(
            f"--peer {brief(text)}: this build of OpenCV ({cv2.__version__}) lacks {_KINDS[name][0]}; "
            "pip install opencv-contrib-python"
        )
    if name not in names(files=True):
        raise UsageError(str(unknown("peer", name, names(files=True))))
    wanted = _KINDS[name][1] if name in _KINDS else ()
    files = tuple(given.split(",")) if equals else ()
    if len(files) != len(wanted):
        call = "=".join([name, ",".join(word.upper() for word in wanted)]) if wanted else name
        raise UsageError(f"--peer {brief(text)}: give {call}")
    for file in files:
        if not resolve(file).is_file():
            raise JaxtrackError(f"--peer {brief(text)}: {brief(file)}: no such file")
    return Peer(name, tuple(str(resolve(file)) for file in files))


def names(files: bool = False) -> list[str]:
    """Return the names of the peers that can run here.

    Args:
        files: those as well whose networks are files of the user's.
    """
    there = [n for n, (_, wanted) in _KINDS.items() if _class_of(n) and (files or not wanted)]
    return ["static", *there]


def _class_of(name: str) -> Any:
    """Return one of OpenCV's classes; None where this build lacks it (contrib builds have more)."""
    kind = _KINDS[name][0]
    for module in (cv2, getattr(cv2, "legacy", None)):
        found = getattr(module, kind, None)
        if hasattr(found, "create"):
            return found
    return None


def _opencv(peer: Peer) -> Any:
    """Return a new tracker of OpenCV's.

    Raises:
        JaxtrackError: it does not take the files.
    """
    kind, wanted = _KINDS[peer.name]
    try:
        if not wanted:
            return _class_of(peer.name).create()
        settings = getattr(cv2, f"{kind}_Params")()
        for field, file in zip(wanted, peer.files, strict=True):
            setattr(settings, field, file)
        return _class_of(peer.name).create(settings)
    except cv2.error as error:
        text = " ".join(str(error).split())
        raise JaxtrackError(
            f"--peer {peer.name}: OpenCV cannot use {', '.join(peer.files) or 'it'} ({brief(text)})"
        ) from error


def track(
    peer: Peer, sequences: Items[Sequence], progress: Callable[[int], object] | None = None
) -> Iterator[tuple[str, Track]]:
    """Track sequences with a peer, one after the other.

    Args:
        peer: from `parse`.
        sequences: what is tracked.
        progress: called with the number of frames done since the last call.

    Yields:
        Name and track of each sequence.

    Raises:
        JaxtrackError: OpenCV does not take the peer's files.
        BrokenSequencesError: after all others: sequences that it cannot track.
    """
    if peer.files:
        _opencv(peer)  # a fault of the files is not one of the first sequence
    faults: dict[str, str] = {}
    for sequence in sequences:
        try:
            yield sequence.name, run(peer, sequence)
        except BrokenSequencesError as error:
            faults |= error.faults
        if progress is not None:
            progress(sequence.length)
    if faults:
        raise BrokenSequencesError(faults)


def run(peer: Peer, sequence: Sequence) -> Track:
    """Track one sequence with a peer.

    Args:
        peer: from `parse`.
        sequence: what is tracked.

    Returns:
        The track; scores are 1 where the peer answered and 0 where it reported a loss (its box stays).

    Raises:
        BrokenSequencesError: the first box starts no tracker, a frame cannot be read, or OpenCV fails.
    """
    fault = sequence.fault or first_box_fault(sequence)
    if fault is not None:
        raise BrokenSequencesError({sequence.name: fault})
    started = time.perf_counter()
    scores = np.ones(sequence.length)
    if peer.name == "static":
        boxes = np.repeat(sequence.boxes[:1], sequence.length, axis=0)
    else:
        try:
            boxes, scores = _run_opencv(_opencv(peer), sequence)
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
