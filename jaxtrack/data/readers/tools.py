"""What all layout readers share: finding folders, listing frames, parsing annotations, and errors."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
_SEPARATORS = str.maketrans({",": " ", "\t": " ", ";": " "})
_NUMBERS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple:
    """Sort key that puts `2.jpg` before `10.jpg`.

    Args:
        name: any file name.

    Returns:
        A tuple of (is_text, value) pairs.
    """
    return tuple((0, int(p)) if p.isdigit() else (1, p) for p in _NUMBERS.split(name) if p)


def require_root(dataset: str, root: str | os.PathLike) -> Path:
    """Checks that a dataset's folder exists and is not empty.

    Args:
        dataset: dataset name, for the message.
        root: the folder.

    Returns:
        The folder as a Path.

    Raises:
        JaxtrackError: it is missing, a file, or empty.
    """
    path = Path(root).expanduser()
    if not path.exists():
        raise JaxtrackError(
            f"{dataset}: no folder {path}: give the folder that the dataset unpacks to"
        )
    if not path.is_dir():
        raise JaxtrackError(
            f"{dataset}: {path} is a file: give the folder that the dataset unpacks to"
        )
    if not any(path.iterdir()):
        raise JaxtrackError(f"{dataset}: the folder {path} is empty: unpack the dataset there")
    return path


def wrong_layout(dataset: str, root: Path, looked_for: str) -> JaxtrackError:
    """Builds the error for a folder that holds something else.

    Args:
        dataset: dataset name.
        root: the folder.
        looked_for: patterns under `root` that the dataset's own layout has.

    Returns:
        The error (to be raised), which also says what the folder holds instead.
    """
    found = sorted(os.listdir(root))
    shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    return JaxtrackError(
        f"{dataset}: {root} has another layout: looked for {looked_for}; it holds {shown}"
    )


def subfolders(path: Path) -> list[Path]:
    """Lists the visible sub-folders in natural order.

    Args:
        path: a folder.

    Returns:
        Their paths; empty when `path` does not exist.
    """
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    return [path / name for name in sorted(names, key=natural_key)]


def list_images(folder: Path) -> list[str]:
    """Lists the image files of a folder in natural order.

    Args:
        folder: a folder; a missing one has no images.

    Returns:
        Paths as strings.
    """
    if not folder.is_dir():
        return []
    names = [
        n
        for n in os.listdir(folder)
        if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith(".")
    ]
    return [f"{folder}{os.sep}{n}" for n in sorted(names, key=natural_key)]


def list_zip_images(archive: Path) -> list[str]:
    """Lists the images inside a zip file in natural order of their base names.

    Args:
        archive: the zip file.

    Returns:
        References `ARCHIVE::MEMBER`.

    Raises:
        JaxtrackError: the archive cannot be read.
    """
    try:
        with zipfile.ZipFile(archive) as z:
            members = [m for m in z.namelist() if m.lower().endswith(IMAGE_SUFFIXES)]
    except (zipfile.BadZipFile, OSError) as error:
        raise JaxtrackError(
            f"{archive} is not a readable zip file ({error}): fetch it again"
        ) from error
    return [
        f"{archive}::{m}" for m in sorted(members, key=lambda m: natural_key(os.path.basename(m)))
    ]


def read_text(path: Path) -> str:
    """Reads a small text file.

    Args:
        path: the file.

    Returns:
        Its text.

    Raises:
        JaxtrackError: it is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JaxtrackError(f"no annotation file {path}: the dataset is incomplete there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JaxtrackError(f"cannot read {path}: {error}") from error


def read_numbers(
    path: Path, columns: int | Sequence[int] | None, empty_ok: bool = False
) -> np.ndarray:
    """Reads a table of numbers whatever separates them: comma, semicolon, tab or blanks.

    Args:
        path: the text file; blank lines at its end are ignored.
        columns: allowed number(s) of columns, or None for any constant number.
        empty_ok: give an empty array for an empty file instead of raising.

    Returns:
        `(rows, columns)` float64; `NaN` entries are kept.

    Raises:
        JaxtrackError: empty file, ragged rows, a wrong number of columns, or text; names the line.
    """
    text = read_text(path).translate(_SEPARATORS)
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if not rows:
        if empty_ok:
            return np.zeros((0, 4))
        raise JaxtrackError(f"{path} is empty: one box per line was expected")
    allowed = (
        (len(rows[0]),) if columns is None else (columns,) if isinstance(columns, int) else columns
    )
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) not in allowed or len(row) != width:
            want = " or ".join(map(str, allowed))
            raise JaxtrackError(
                f"{path} line {number}: {len(row)} numbers where {want} were expected"
            )
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError:
        for number, row in enumerate(rows, 1):
            for word in row:
                try:
                    float(word)
                except ValueError:
                    raise JaxtrackError(f"{path} line {number}: '{word}' is not a number") from None
        raise


def read_flags(path: Path, count: int, what: str) -> np.ndarray:
    """Reads one flag per frame, on one line or on many.

    Args:
        path: the text file.
        count: number of frames.
        what: dataset and video, for the message.

    Returns:
        `(count,)` float64.

    Raises:
        JaxtrackError: another number of flags.
    """
    words = read_text(path).translate(_SEPARATORS).split()
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError:
        raise JaxtrackError(f"{what}: {path} holds something else than numbers") from None
    if len(values) != count:
        raise JaxtrackError(f"{what}: {count} frames but {len(values)} flags in {path}")
    return values


def check_counts(what: str, frames: Sequence[str], boxes: np.ndarray, frames_at, boxes_at) -> None:
    """Checks that a video has one box per frame.

    Args:
        what: dataset and video, for the message.
        frames: frame references.
        boxes: `(n, 4)` boxes.
        frames_at: where the frames lie.
        boxes_at: the annotation file.

    Raises:
        JaxtrackError: the numbers differ, or there are no frames.
    """
    if not len(frames):
        raise JaxtrackError(f"{what}: no image files in {frames_at}")
    if len(frames) != len(boxes):
        raise JaxtrackError(
            f"{what}: {len(frames)} frames in {frames_at} but {len(boxes)} boxes in {boxes_at}: "
            "fetch the video again or correct the annotation"
        )


def zero_based(boxes: np.ndarray, origin: int) -> np.ndarray:
    """Moves annotated boxes to 0-based corners.

    Args:
        boxes: `(n, 4)` (x, y, w, h) as annotated.
        origin: coordinate of the first pixel in the annotation, 0 or 1.

    Returns:
        `(n, 4)` float64.
    """
    moved = np.array(boxes, dtype=np.float64)
    moved[:, :2] -= origin
    return moved


def first_box_only(boxes: np.ndarray, count: int) -> np.ndarray:
    """Extends a withheld annotation (first box only) with NaN rows.

    Args:
        boxes: `(1, 4)`.
        count: number of frames.

    Returns:
        `(count, 4)`, NaN after row 0.
    """
    full = np.full((count, 4), np.nan)
    full[0] = boxes[0]
    return full


def corners_to_boxes(corners: np.ndarray) -> np.ndarray:
    """Turns (x1, y1, x2, y2) into (x, y, w, h) with w = x2 - x1.

    Args:
        corners: `(n, 4)`.

    Returns:
        `(n, 4)`.
    """
    corners = np.asarray(corners, dtype=np.float64)
    return np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], axis=-1)


def polygons_to_boxes(polygons: np.ndarray) -> np.ndarray:
    """Turns VOT's four-point regions into upright boxes of the same area and centre.

    The box has the aspect of the polygon's bounding rectangle, shrunk to the area of the (rotated)
    rectangle that the first three points span, plus the one pixel that VOT's inclusive corners add.

    Args:
        polygons: `(n, 8)` x1, y1 .. x4, y4.

    Returns:
        `(n, 4)` (x, y, w, h); NaN rows stay NaN.

    Reference:
        the axis-aligned approximation that VOT participants use (pysot's `get_axis_aligned_bbox`).
    """
    points = np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2)
    centre = points.mean(axis=1)
    low, high = points.min(axis=1), points.max(axis=1)
    side_a = np.linalg.norm(points[:, 0] - points[:, 1], axis=1)
    side_b = np.linalg.norm(points[:, 1] - points[:, 2], axis=1)
    bounding = np.prod(high - low, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shrink = np.where(bounding > 0, np.sqrt(side_a * side_b / bounding), 0.0)
    size = (high - low) * shrink[:, None] + 1
    return np.concatenate([centre - size / 2, size], axis=1)


def select(
    dataset: str, videos: Iterable[VideoRecord], names: Sequence[str] | None
) -> Iterator[VideoRecord]:
    """Keeps the named videos and insists that all of them are there.

    Args:
        dataset: dataset name, for the message.
        videos: records; a name matches the target's or the video's name.
        names: names to keep, or None for all.

    Yields:
        The kept records, in their own order.

    Raises:
        JaxtrackError: names that no record has.
    """
    if names is None:
        yield from videos
        return
    wanted, seen = set(names), set()
    for record in videos:
        hit = {record.name, record.video} & wanted
        if hit:
            seen |= hit
            yield record
    missing = sorted(wanted - seen)
    if missing:
        shown = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        raise JaxtrackError(
            f"{dataset}: {len(missing)} of {len(wanted)} videos are missing: {shown}"
        )
