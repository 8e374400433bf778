"""One sequence's own annotation, found beside its frames, whatever benchmark it is of."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from jaxtrack.data import splits
from jaxtrack.data.readers import custom, files, geometry, otb, training
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import clips
from jaxtrack.io.paths import resolve
from jaxtrack.io.text import read_numbers, read_text

# What stands beside the annotations of one data set alone.
_LASOT = ("img", "full_occlusion.txt", "out_of_view.txt")
_GOT10K = ("absence.label", "cover.label", "meta_info.ini")
_NAMES = ("groundtruth_rect.txt", "groundtruth_rect.1.txt", "groundtruth.txt")


def first_box(path: str | os.PathLike[str], frame: int = 0) -> tuple[np.ndarray, str]:
    """Return the annotated box of a frame.

    Args:
        path: a sequence's folder of OTB, LaSOT, GOT-10k, VOT or the custom layout, or its annotation's
            text file.
        frame: which of the sequence's frames, from 0.

    Returns:
        ``(4,)`` float64 x, y, w, h in pixels, 0-based corner; and how it was read, for a message.

    Raises:
        JaxtrackError: no annotation there, none of this frame, or no target in it.
    """
    file = annotation_of(path)
    record, start = _read(file, frame)
    row = frame - start
    if not 0 <= row < len(record):
        rows = f"{len(record)} rows" + (f", from frame {start} on" if start else "")
        raise JaxtrackError(f"{file}: {rows}, none for frame {frame}")
    if not record.annotated[row]:
        raise JaxtrackError(f"{file}: only some frames are annotated, and frame {frame} is not")
    if not record.usable[row]:
        where = file if record.sparse else f"{file} line {row + 1}"
        raise JaxtrackError(f"{where}: the target is not there in frame {frame}")
    return record.boxes[row].copy(), f"{file}, pixels counted from {record.origin}"


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


def _read(file: Path, frame: int) -> tuple[VideoRecord, int]:
    """Read an annotation by the reader of its layout; and which frame its first row is of, from 0."""
    folder, start = file.parent, 0
    if file.name.startswith("groundtruth_rect"):
        [record] = otb.read_target(folder.name, folder, file, frames=False)
        start = _start(folder, len(record))
    elif _columns(file) == 8:
        regions = read_numbers(file, (8,))
        absent = np.zeros(len(regions), dtype=bool)
        record = VideoRecord(file.stem, (), geometry.polygons_to_boxes(regions), absent)
    elif file.name == "groundtruth.txt" and any((folder / name).exists() for name in _GOT10K):
        [record] = training.read_got10k(folder, "train", frames=False)
    elif file.name == "groundtruth.txt" and any((folder / name).exists() for name in _LASOT):
        [record] = training.read_lasot(folder, frames=False)
    else:
        record = _custom(file, frame)
    return record, start


def _columns(file: Path) -> int:
    first, *_ = read_text(file).splitlines() or [""]
    return len(re.split(r"[,;\s]+", first.strip()))


def _start(video: Path, rows: int) -> int:
    """Return which frame of an OTB sequence its annotation begins with."""
    images = files.list_images(video / "img")
    if video.name not in splits.OTB_RANGES or otb.is_excerpt(video.name, images, rows):
        return 0
    first, _ = splits.OTB_RANGES[video.name]
    before = [f for f in images if (files.frame_number(f) or 0) < first]
    return len(before) if images else first - 1


def _custom(file: Path, frame: int) -> VideoRecord:
    """Read a text file of the custom layout; without its video, of a sparse one what it says of a frame."""
    inner = file.name == "groundtruth.txt"
    stems = [file.stem, file.stem.rpartition(".")[0]]
    ends = ["", *clips.VIDEO_SUFFIXES]
    sources = [file.parent] if inner else [file.with_name(s + e) for s in stems if s for e in ends]
    source = next((s for s in sources if s.exists()), None)
    numbers, boxes, absent = custom.read_boxes(file)
    if numbers is None:
        return VideoRecord(file.stem, (), boxes, absent)
    if source is not None:
        [record] = custom.read_target(file.stem, source.stem, source, file, frames=False)
        return record
    found, lost = np.full((frame + 1, 4), np.nan), np.zeros(frame + 1, dtype=bool)
    row = np.flatnonzero(numbers == frame)
    found[frame:][: len(row)], lost[frame:][: len(row)] = boxes[row], absent[row]
    return VideoRecord(file.stem, (), found, lost, sparse=True)
