"""OTB-2013, OTB-50, OTB-100 as the benchmark's site delivers them, and Temple-Color-128."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data import splits
from jaxtrack.data.readers import tools
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError

OTB_LAYOUT = "VIDEO/img/0001.jpg and VIDEO/groundtruth_rect.txt"
TC128_LAYOUT = "VIDEO/img/0001.jpg, VIDEO/VIDEO_gt.txt and VIDEO/VIDEO_frames.txt"

# Their annotation was shorter than the images by one frame in some releases; the toolkits pad it
# with a zero box, which no metric counts as a hit.
_ONE_ROW_SHORT = ("Board", "Twinnings")


def _frame_number(path: str) -> int:
    stem = os.path.splitext(os.path.basename(path))[0]
    return int(stem) if stem.isdigit() else -1


def _otb_frames(video: Path, boxes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Picks the annotated frames of a video (David has 770 images and 471 boxes)."""
    frames = tools.list_images(video / "img")
    found = splits.OTB_RANGES.get(video.name)
    if found is None:
        if video.name in _ONE_ROW_SHORT and len(boxes) == len(frames) - 1:
            boxes = np.concatenate([boxes, np.zeros((1, 4))])
        return frames, boxes
    first, last = found
    inside = [first <= _frame_number(f) <= last for f in frames]
    if len(boxes) == len(frames):  # Tiger1: every image has a row, the first five are left out
        boxes = boxes[np.array(inside, dtype=bool)]
    return [f for f, keep in zip(frames, inside) if keep], boxes


def _annotations(video: Path) -> list[tuple[str, Path]]:
    """Lists (target name, file): `groundtruth_rect.txt`, or `.1.txt` and `.2.txt` for two targets."""
    files = sorted(video.glob("groundtruth_rect*.txt"), key=lambda p: tools.natural_key(p.name))
    if len(files) > 1:  # Human4 ships an empty groundtruth_rect.1.txt beside the real .2.txt
        files = [f for f in files if f.stat().st_size and tools.read_text(f).strip()]
    named = []
    for path in files:
        target = path.name.removeprefix("groundtruth_rect").removesuffix(".txt").lstrip(".")
        named.append((f"{video.name}-{target}" if target else video.name, path))
    return named


def read_otb(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads OTB videos: 1-based boxes, mixed separators, partial ranges, one or two targets.

    Args:
        root: folder with one folder per video.
        split: `test` (whatever is there), or `otb2013`, `otb50`, `otb100` (all of its videos).

    Yields:
        One record per target; names as `Jogging-1`, `Human4-2`.
    """
    wanted = {"otb2013": splits.OTB2013, "otb50": splits.OTB50, "otb100": splits.OTB100}.get(split)
    videos = [v for v in tools.subfolders(root) if any(v.glob("groundtruth_rect*.txt"))]
    if not videos:
        raise tools.wrong_layout("otb", root, OTB_LAYOUT)
    if wanted is not None:
        missing = sorted(set(wanted) - {v.name for v in videos})
        if missing:
            shown = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
            raise JaxtrackError(
                f"otb: {root} lacks {len(missing)} of the {len(wanted)} videos of {split}: {shown}"
            )
        videos = [v for v in videos if v.name in wanted]
    for video in videos:
        targets = _annotations(video)
        if not targets:
            raise JaxtrackError(f"otb {video.name}: every annotation file in {video} is empty")
        for name, path in targets:
            if split == "otb2013" and name == "Skating2-2":
                continue
            frames, boxes = _otb_frames(video, tools.read_numbers(path, 4))
            tools.check_counts(f"otb {name}", frames, boxes, video / "img", path)
            yield VideoRecord(
                name=name,
                frames=tuple(frames),
                boxes=tools.zero_based(boxes, 1),
                absent=np.zeros(len(frames), dtype=bool),
                video=video.name,
                origin=1,
            )


def read_tc128(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads Temple-Color-128: OTB's conventions, the annotated range in `VIDEO_frames.txt`.

    Args:
        root: folder with one folder per video.
        split: only `test`.

    Yields:
        One record per video; `VIDEO_att.txt`, where there is one, gives the attributes.
    """
    videos = [v for v in tools.subfolders(root) if any(v.glob("*_gt.txt"))]
    if not videos:
        raise tools.wrong_layout("tc128", root, TC128_LAYOUT)
    for video in videos:
        path = next(iter(sorted(video.glob("*_gt.txt"))))
        boxes = tools.read_numbers(path, 4)
        frames = tools.list_images(video / "img")
        ranges = sorted(video.glob("*_frames.txt"))
        if ranges:
            first, last = (int(v) for v in tools.read_numbers(ranges[0], 2)[0])
            frames = [f for f in frames if first <= _frame_number(f) <= last]
        tools.check_counts(f"tc128 {video.name}", frames, boxes, video / "img", path)
        notes = sorted(video.glob("*_att.txt"))
        attributes = tools.read_text(notes[0]).replace(",", " ").split() if notes else []
        yield VideoRecord(
            name=video.name,
            frames=tuple(frames),
            boxes=tools.zero_based(boxes, 1),
            absent=np.zeros(len(frames), dtype=bool),
            video=video.name,
            attributes=tuple(attributes),
            origin=1,
        )
