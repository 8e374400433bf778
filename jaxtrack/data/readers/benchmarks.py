"""UAV123 and UAV20L, NfS, and the VOT short-term challenges, as delivered."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data import splits
from jaxtrack.data.readers import files, geometry, pairing
from jaxtrack.data.readers.entries import Entry, Found
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import text

UAV_LAYOUT = "anno/UAV123/TARGET.txt and data_seq/UAV123/VIDEO/000001.jpg"
NFS_LAYOUT = "VIDEO/30/VIDEO/00001.jpg and VIDEO/30/VIDEO.txt (or 240)"
VOT_LAYOUT = "list.txt, VIDEO/groundtruth.txt and VIDEO/color/00000001.jpg"

# Columns of NfS's files (VATIC's text format), after the track id.
_NFS_CORNERS, _NFS_LOST = slice(1, 5), 6
_NFS_COLUMNS = 9
# Every eighth row belongs to a frame of the 30 fps videos.
_NFS_STEP = 8


def find_uav(root: Path, split: str, frames: bool = True) -> Found:
    """Find the targets of UAV123 or UAV20L: several are stretches of one video, absent ones are NaN.

    Args:
        root: the folder that holds ``anno`` and ``data_seq``.
        split: ``uav123`` or ``uav20l``.
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per target. (The rows of ``anno/*/att`` do not name their columns: not read.)
    """
    folder = {"uav123": "UAV123", "uav20l": "UAV20L"}[split]
    annotations = files.named(root / "anno" / folder, ".txt")
    frames_root = root / "data_seq" / "UAV123"
    if not annotations or (frames and not frames_root.is_dir()):
        raise files.wrong_layout(split, root, UAV_LAYOUT.replace("anno/UAV123", f"anno/{folder}"))
    entries = []
    for path in annotations:
        video = splits.uav123_folder(path.stem) if split == "uav123" else path.stem
        images = frames_root / video if frames else None
        read = functools.partial(_uav_target, split, path, video, images)
        entries.append(Entry(path.stem, read, video))
    return Found(entries)


def _uav_target(split: str, path: Path, video: str, folder: Path | None) -> Iterator[VideoRecord]:
    name = path.stem
    boxes = text.read_numbers(path, (4,))
    images: tuple[str, ...] = ()
    if folder is not None:
        first = splits.UAV123_STARTS.get(name, 1) if split == "uav123" else 1
        listed = files.list_images(folder)
        stretch = [f for f in listed if first <= (files.frame_number(f) or 0) < first + len(boxes)]
        images = pairing.pair(
            f"{split} {name}", stretch or listed, len(boxes), (folder, path), first
        )
    yield VideoRecord(
        name=name,
        frames=images,
        boxes=geometry.zero_based(boxes, 1),
        absent=np.isnan(boxes).any(axis=1),
        video=video,
        origin=1,
    )


def find_nfs(root: Path, split: str, frames: bool = True) -> Found:
    """Find the videos of NfS: corners per 240 fps frame; the 30 fps frames are every eighth row.

    Args:
        root: folder with one folder per video.
        split: ``fps30`` or ``fps240``.
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per video; ``absent`` is the annotation tool's own "lost" flag.
    """
    rate = split.removeprefix("fps")
    annotations = []
    for folder in files.subfolders(root):
        found = files.named(folder / rate, ".txt")
        lost = not found and (folder / rate / folder.name).is_dir()
        annotations += [folder / rate / f"{folder.name}.txt"] if lost else found
    if not any(p.exists() for p in annotations):
        raise files.wrong_layout("nfs", root, NFS_LAYOUT.replace("/30", f"/{rate}"))
    annotations.sort(key=lambda p: files.natural_key(p.name))
    return Found(
        [
            Entry(p.stem, functools.partial(_nfs_video, p, split == "fps30", frames))
            for p in annotations
        ]
    )


def _nfs_video(path: Path, every_eighth: bool, frames: bool) -> Iterator[VideoRecord]:
    name = path.stem
    folder = path.parent / name
    rows = _nfs_rows(path)
    images: tuple[str, ...] = ()
    listed = files.list_images(folder)
    if every_eighth and (not listed or len(rows) > len(listed) + 1):
        rows = rows[::_NFS_STEP]
    # One frame more or less than rows is a published rounding of the frame count.
    if listed and len(rows) == len(listed) + 1:
        rows = rows[: len(listed)]
    if frames:
        images = pairing.pair(f"nfs {name}", listed, len(rows), (folder, path), 1, 1)
    lost = rows[:, _NFS_LOST] if rows.shape[1] > _NFS_LOST else np.zeros(len(rows))
    yield VideoRecord(
        name=name,
        frames=images,
        boxes=geometry.corners_to_boxes(rows[:, _NFS_CORNERS]),
        absent=lost > 0,
        video=name,
    )


def _nfs_rows(path: Path) -> np.ndarray:
    """Read VATIC rows; the last column is a quoted label and is left out."""
    lines = text.read_text(path).rstrip().splitlines()
    if not any(line.strip() for line in lines):
        raise JaxtrackError(f"{path} is empty: one row per frame was expected")
    rows = [line.split()[:_NFS_COLUMNS] for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) < 5:
            raise JaxtrackError(
                f"{path} line {number}: {len(row)} columns where 5 or more were expected"
            )
    try:
        return np.array([row[: min(map(len, rows))] for row in rows], dtype=np.float64)
    except ValueError:
        raise JaxtrackError(f"{path}: a coordinate is not a number") from None


def find_vot(root: Path, split: str, frames: bool = True) -> Found:
    """Find the videos of a VOT short-term set (2016 to 2019): rotated boxes as polygons, tags per frame.

    Args:
        root: folder with ``list.txt`` and one folder per video.
        split: only ``test``.
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per video: ``polygons`` as annotated, ``boxes`` of the same area and centre
        (``geometry.polygons_to_boxes``), ``tags`` from the ``*.tag`` / ``*.label`` files.
    """
    there = [v.name for v in files.subfolders(root)]
    listed = root / "list.txt"
    deep: list[str] = []
    if listed.exists():
        names = files.names_listed(listed, text.read_text(listed))
    else:
        names = [n for n in there if _is_vot(root / n)]
        deep = files.too_deep((root / n for n in there if n not in names), _is_vot)
        names = [n for n in there if n in names or (names and (root / n / "color").is_dir())]
    if not names:
        raise files.wrong_layout("vot", root, VOT_LAYOUT)
    lost = tuple(n for n in names if n not in set(there))
    entries = [
        Entry(n, functools.partial(_vot_video, root / n, frames))
        for n in names
        if n not in set(lost)
    ]
    return Found(entries, lost, str(listed), tuple(deep))


def _is_vot(video: Path) -> bool:
    return (video / "groundtruth.txt").exists()


def _vot_video(video: Path, frames: bool) -> Iterator[VideoRecord]:
    path = video / "groundtruth.txt"
    if text.read_text(path).lstrip().startswith("m"):
        raise JaxtrackError(
            f"vot {video.name}: {path} holds masks; boxes and polygons of four points are read"
        )
    regions = text.read_numbers(path, (4, 8))
    count = len(regions)
    images: tuple[str, ...] = ()
    if frames:
        folder = video / "color" if (video / "color").is_dir() else video
        listed = files.list_images(folder)
        images = pairing.pair(f"vot {video.name}", listed, count, (folder, path), 1)
    is_polygon = regions.shape[1] == 8
    tags = {}
    for note in files.named(video, ".tag", ".label"):
        values = text.read_text(note).split()
        flags = np.zeros(count, dtype=bool)  # tag files may stop at the last tagged frame
        marks = np.array([v not in ("0", "0.0") for v in values[:count]], dtype=bool)
        flags[: len(marks)] = marks
        tags[note.stem] = flags
    yield VideoRecord(
        name=video.name,
        frames=images,
        boxes=geometry.polygons_to_boxes(regions) if is_polygon else regions,
        absent=np.zeros(count, dtype=bool),
        video=video.name,
        polygons=regions if is_polygon else None,
        attributes=tuple(name for name, flags in tags.items() if flags.any()),
        tags=tags,
    )
