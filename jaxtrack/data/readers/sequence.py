"""One sequence's own annotation, found beside its frames, whatever benchmark it is of."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from jaxtrack.data.readers.geometry import polygons_to_boxes
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.paths import resolve
from jaxtrack.io.text import read_numbers

# Files that only stand beside annotations which count pixels from 1: LaSOT's and GOT-10k's.
_FROM_ONE = (
    "full_occlusion.txt",
    "out_of_view.txt",
    "absence.label",
    "cover.label",
    "meta_info.ini",
)
_NAMES = ("groundtruth_rect.txt", "groundtruth_rect.1.txt", "groundtruth.txt")


def first_box(path: str | os.PathLike[str], frame: int = 0) -> tuple[np.ndarray, str]:
    """Return the annotated box of a frame.

    Args:
        path: a sequence's folder of OTB, LaSOT, GOT-10k, VOT or the custom layout, or its annotation's
            text file.
        frame: which frame, from 0.

    Returns:
        ``(4,)`` float64 x, y, w, h in pixels, 0-based corner; and how it was read, for a message.

    Raises:
        JaxtrackError: no annotation there, no such row, or no target in that frame.
    """
    file = annotation_of(path)
    rows = read_numbers(file, (4, 8))
    if frame >= len(rows):
        raise JaxtrackError(f"{file}: {len(rows)} rows, none for frame {frame}")
    polygon = rows.shape[1] == 8
    box = polygons_to_boxes(rows[frame : frame + 1])[0] if polygon else rows[frame].copy()
    if not (np.isfinite(box).all() and (box[2:] > 0).all()):
        raise JaxtrackError(f"{file} line {frame + 1}: the target is not there in frame {frame}")
    if _counts_from_one(file) and not polygon:
        box[:2] -= 1
        return box, f"{file}, pixels counted from 1"
    return box, f"{file}, pixels counted from 0"


def annotation_of(path: str | os.PathLike[str]) -> Path:
    """Return the file with a sequence's boxes.

    Args:
        path: the sequence's folder, or the file itself.

    Raises:
        JaxtrackError: there is none.
    """
    place = resolve(path)
    if not place.is_dir():
        return place
    beside = place.with_name(f"{place.name}.txt")
    found = [p for p in (*(place / name for name in _NAMES), beside) if p.is_file()]
    if not found:
        raise JaxtrackError(
            f"{place}: no annotation (looked for {', '.join(_NAMES)} in it and {beside.name} beside it)"
        )
    return found[0]


def _counts_from_one(file: Path) -> bool:
    return file.name.startswith("groundtruth_rect") or any(
        (file.parent / name).exists() for name in _FROM_ONE
    )
