"""Frames and annotation rows joined by the numbers in the frames' names, and the checks of both.

One lost frame would move every later box by one if rows were paired by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtrack.data.readers import files
from jaxtrack.data.record import VideoRecord, numbers
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import text

# Coordinates beyond this many pixels, and sides between zero and this few, are no annotation of an image.
_MOST_PIXELS, _LEAST_SIDE = 1e6, 1e-3


def pair(
    what: str,
    frames: Sequence[str],
    rows: int,
    places: tuple[Path, Path],
    first: int | None = None,
    surplus: int = 0,
) -> tuple[str, ...]:
    """Find the frame of every row of an annotation.

    Args:
        what: dataset and video, for the message.
        frames: references of the video's frames, in natural order.
        rows: number of annotated frames.
        places: where the frames lie and the annotation file, for the message.
        first: number of the frame that the first row belongs to; None: the lowest number there is.
        surplus: how many images may follow the last row.

    Returns:
        One reference for each row. Where some names carry no number, in the given order.

    Raises:
        JaxtrackError: a frame is missing (its number is named), two have one number, or the counts differ.
    """
    where, truth = places
    if not frames:
        raise JaxtrackError(f"{what}: no image files in {where}")
    found = [n for n in map(files.frame_number, frames) if n is not None]
    if len(found) < len(frames):
        if len(frames) != rows:
            raise _other_count(what, len(frames), rows, places)
        return tuple(frames)
    by_number = dict(zip(found, frames))
    if len(by_number) < len(frames):
        twice = next(n for n in found if found.count(n) > 1)
        raise JaxtrackError(f"{what}: two images in {where} have the number {twice}")
    low, last = min(found), max(found)
    if len(frames) == rows == last - low + 1 and (
        first is None or (first <= 1 and (low <= first or not surplus))
    ):
        return tuple(
            by_number[n] for n in range(low, last + 1)
        )  # whole, wherever its numbers begin
    start = low if first is None else first
    if low > start:
        lowest = by_number[low].rpartition("/")[2]
        raise JaxtrackError(
            f"{what}: frame {first} is missing in {where} (the first is {lowest}): fetch the video again"
        )
    gaps = [n for n in range(start, min(last, start + rows)) if n not in by_number]
    if gaps:
        more = f" and {len(gaps) - 1} more are" if len(gaps) > 1 else " is"
        raise JaxtrackError(
            f"{what}: {len(frames)} frames in {where} but {rows} boxes in {truth}: frame {gaps[0]}{more} "
            "missing: fetch the video again"
        )
    behind = last - (start + rows - 1)
    if behind < 0 or behind > surplus or (first is None and len(frames) - rows > surplus):
        raise _other_count(what, len(frames), rows, places)
    return tuple(by_number[n] for n in range(start, start + rows))


def _other_count(what: str, frames: int, rows: int, places: tuple[Path, Path]) -> JaxtrackError:
    return JaxtrackError(
        f"{what}: {frames} frames in {places[0]} but {rows} boxes in {places[1]}: "
        "fetch the video again or correct the annotation"
    )


def read_flags(path: Path, count: int, what: str) -> np.ndarray:
    """Read one flag per frame, on one line or on many.

    Args:
        path: the text file.
        count: number of frames.
        what: dataset and video, for the message.

    Returns:
        ``(count,)`` float64.

    Raises:
        JaxtrackError: another number of flags, or something else than numbers.
    """
    words = text.read_text(path).replace(",", " ").split()
    try:
        values = np.array(words, dtype=np.float64)
        sound = bool(np.isfinite(values).all())
    except ValueError:
        sound = False
    if not sound:
        raise JaxtrackError(f"{what}: {path} holds something else than numbers")
    if len(values) != count:
        raise JaxtrackError(f"{what}: {count} frames but {len(values)} flags in {path}")
    return values


def check_boxes(dataset: str, record: VideoRecord) -> None:
    """Refuse boxes that cannot be pixels of an image.

    Args:
        dataset: dataset name, for the message.
        record: one target.

    Raises:
        JaxtrackError: a coordinate that is infinite or beyond a million pixels, or a side that is positive
            and below a thousandth of a pixel; names the frame.
    """
    boxes = record.boxes
    with np.errstate(invalid="ignore"):
        far = np.abs(boxes) > _MOST_PIXELS
        thin = (boxes[:, 2:] > 0) & (boxes[:, 2:] < _LEAST_SIDE)
    bad = np.flatnonzero(far.any(axis=1) | thin.any(axis=1))
    if len(bad):
        row = numbers(boxes[bad[0]])
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise JaxtrackError(
            f"{dataset} {record.name}: the box of frame {bad[0]}, {row}, is none in pixels{more}: "
            "correct the annotation"
        )
