"""UAV123 and UAV20L, NfS, and the VOT short-term challenges, as delivered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data import splits
from jaxtrack.data.readers import tools
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError

UAV_LAYOUT = "anno/UAV123/TARGET.txt and data_seq/UAV123/VIDEO/000001.jpg"
NFS_LAYOUT = "VIDEO/30/VIDEO/00001.jpg and VIDEO/30/VIDEO.txt (or 240)"
VOT_LAYOUT = "list.txt, VIDEO/groundtruth.txt and VIDEO/color/00000001.jpg"

# Columns of NfS's files (VATIC's text format), after the track id.
_NFS_CORNERS, _NFS_LOST = slice(1, 5), 6


def read_uav(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads UAV123 or UAV20L: several targets are stretches of one video, absent ones are NaN.

    Args:
        root: the folder that holds `anno` and `data_seq`.
        split: `uav123` or `uav20l`.

    Yields:
        One record per target. (The rows of `anno/*/att` do not name their columns: not read.)
    """
    folder = {"uav123": "UAV123", "uav20l": "UAV20L"}[split]
    annotations = root / "anno" / folder
    frames_root = root / "data_seq" / "UAV123"
    files = sorted(annotations.glob("*.txt"), key=lambda p: tools.natural_key(p.name))
    if not files or not frames_root.is_dir():
        raise tools.wrong_layout(split, root, UAV_LAYOUT.replace("anno/UAV123", f"anno/{folder}"))
    for path in files:
        name = path.stem
        boxes = tools.read_numbers(path, 4)
        first = splits.UAV123_STARTS.get(name, 1) if split == "uav123" else 1
        video = splits.uav123_folder(name) if split == "uav123" else name
        on_disk = tools.list_images(frames_root / video)
        frames = on_disk[first - 1 : first - 1 + len(boxes)]
        tools.check_counts(f"{split} {name}", frames, boxes, frames_root / video, path)
        if int(os.path.splitext(os.path.basename(frames[0]))[0]) != first:
            raise JaxtrackError(
                f"{split} {name}: frame {first:06d}.jpg was expected in {frames_root / video}, "
                f"found {os.path.basename(frames[0])}: frames are missing"
            )
        yield VideoRecord(
            name=name,
            frames=tuple(frames),
            boxes=tools.zero_based(boxes, 1),
            absent=np.isnan(boxes).any(axis=1),
            video=video,
            origin=1,
        )


def read_nfs(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads NfS: corners per 240 fps frame; the 30 fps frames are every eighth row.

    Args:
        root: folder with one folder per video.
        split: `fps30` or `fps240`.

    Yields:
        One record per video; `absent` is the annotation tool's own "lost" flag.
    """
    rate = split.removeprefix("fps")
    files = sorted(root.glob(f"*/{rate}/*.txt"), key=lambda p: tools.natural_key(p.name))
    if not files:
        raise tools.wrong_layout("nfs", root, NFS_LAYOUT.replace("/30", f"/{rate}"))
    for path in files:
        name = path.stem
        rows = _nfs_rows(path)
        frames = tools.list_images(path.parent / name)
        if len(rows) > len(frames) + 1:
            rows = rows[::8]
        if abs(len(frames) - len(rows)) == 1:  # a published rounding of the frame count
            count = min(len(frames), len(rows))
            frames, rows = frames[:count], rows[:count]
        tools.check_counts(f"nfs {name}", frames, rows, path.parent / name, path)
        lost = rows[:, _NFS_LOST] if rows.shape[1] > _NFS_LOST else np.zeros(len(rows))
        yield VideoRecord(
            name=name,
            frames=tuple(frames),
            boxes=tools.corners_to_boxes(rows[:, _NFS_CORNERS]),
            absent=lost > 0,
            video=name,
        )


def _nfs_rows(path: Path) -> np.ndarray:
    """Reads VATIC rows; the last column is a quoted label and is left out."""
    rows = [line.split()[:9] for line in tools.read_text(path).splitlines() if line.strip()]
    if not rows:
        raise JaxtrackError(f"{path} is empty: one row per frame was expected")
    for number, row in enumerate(rows, 1):
        if len(row) < 5:
            raise JaxtrackError(
                f"{path} line {number}: {len(row)} columns where 5 or more were expected"
            )
    try:
        return np.array([row[: min(map(len, rows))] for row in rows], dtype=np.float64)
    except ValueError:
        raise JaxtrackError(f"{path}: a coordinate is not a number") from None


def read_vot(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads a VOT short-term set (2016 to 2019): rotated boxes as polygons, tags per frame.

    Args:
        root: folder with `list.txt` and one folder per video.
        split: only `test`.

    Yields:
        One record per video: `polygons` as annotated, `boxes` of the same area and centre
        (`tools.polygons_to_boxes`), `tags` from the `*.tag` / `*.label` files.
    """
    listed = root / "list.txt"
    if listed.exists():
        names = tools.read_text(listed).split()
    else:
        names = [v.name for v in tools.subfolders(root) if (v / "groundtruth.txt").exists()]
    if not names:
        raise tools.wrong_layout("vot", root, VOT_LAYOUT)
    for name in names:
        video = root / name
        if not video.is_dir():
            raise JaxtrackError(f"vot {name}: {listed} names it but there is no folder {video}")
        yield _vot_video(video)


def _vot_video(video: Path) -> VideoRecord:
    path = video / "groundtruth.txt"
    regions = tools.read_numbers(path, (4, 8))
    folder = video / "color" if (video / "color").is_dir() else video
    frames = tools.list_images(folder)
    tools.check_counts(f"vot {video.name}", frames, regions, folder, path)
    is_polygon = regions.shape[1] == 8
    tags = {}
    for note in sorted([*video.glob("*.tag"), *video.glob("*.label")]):
        values = tools.read_text(note).split()
        flags = np.zeros(len(frames), dtype=bool)  # tag files may stop at the last tagged frame
        marks = np.array([v not in ("0", "0.0") for v in values[: len(frames)]], dtype=bool)
        flags[: len(marks)] = marks
        tags[note.stem] = flags
    return VideoRecord(
        name=video.name,
        frames=tuple(frames),
        boxes=tools.polygons_to_boxes(regions) if is_polygon else regions,
        absent=np.zeros(len(frames), dtype=bool),
        video=video.name,
        polygons=regions if is_polygon else None,
        attributes=tuple(name for name, flags in tags.items() if flags.any()),
        tags=tags,
    )
