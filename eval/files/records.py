"""Records of `jaxtrack.data` as they are evaluated; one way for tracking and for scoring.

A user's own target may enter late, or be annotated from some frame on. Nothing can be started before, so that
its video is evaluated from the first frame that shows it, as OTB's David is from frame 300 on. Published data
sets stay as they are: results of others have a row for each of their frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from jaxtrack.data.layouts import is_own
from jaxtrack.data.record import VideoRecord, doubts, reaching_out, usable_boxes

from ..metrics.annotation import Annotation, from_record
from ..metrics.names import listing


def evaluated(layout: str, record: VideoRecord) -> tuple[VideoRecord, int]:
    """Return the part of a video that is evaluated.

    Args:
        layout: name of its layout.
        record: as it was read.

    Returns:
        The record; of a user's own video without the frames before the first one that shows the target, and
        without a box where the target is absent, however its line says so. And how many frames were left out.
    """
    if not is_own(layout) or not record.usable.any():
        return record, 0
    start = int(np.argmax(record.usable))
    boxes = np.where(usable_boxes(record.boxes)[:, None], record.boxes, np.nan)
    part = dataclasses.replace(
        record, frames=record.frames[start:], boxes=boxes[start:], absent=record.absent[start:]
    )
    return part, start


def annotation_of(
    record: VideoRecord, size: tuple[int, int] | None, skipped: int = 0
) -> Annotation:
    """Return the annotation of what `evaluated` returned.

    Args:
        record: the record.
        size: (width, height) of its frames in pixels, where known.
        skipped: how many frames were left out.
    """
    return dataclasses.replace(from_record(record, size), skipped=skipped)


def doubtful(layout: str, targets: Iterable[tuple[np.ndarray, tuple[int, int]]]) -> tuple[str, ...]:
    """Say that boxes of a user's own look like something else than x, y, w, h.

    Args:
        layout: name of the layout.
        targets: boxes ``(n, 4)`` x, y, w, h in pixels, 0-based corner, and (height, width) of the frames.

    Returns:
        One line, or nothing.
    """
    if not is_own(layout):
        return ()
    usable = [(boxes[usable_boxes(boxes)], size) for boxes, size in targets]
    beyond = sum(int(reaching_out(boxes, size).sum()) for boxes, size in usable)
    return tuple(doubts(beyond, sum(len(boxes) for boxes, _ in usable)))


def late(annotations: Mapping[str, Annotation]) -> tuple[str, ...]:
    """Say which videos are evaluated from a later frame on.

    Args:
        annotations: sequence -> annotation.

    Returns:
        One line, or nothing.
    """
    found = [f"{name} from frame {a.skipped} on" for name, a in annotations.items() if a.skipped]
    if not found:
        return ()
    return (
        f"evaluated from the first frame that shows the target (counted from 0): {listing(found)}",
    )
