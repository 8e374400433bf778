"""OTB-2013, OTB-50, OTB-100 as the benchmark's site delivers them, and Temple-Color-128."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data import otb_attributes, splits
from jaxtrack.data.readers import files, geometry, pairing
from jaxtrack.data.readers.entries import Entry, Found
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import text

OTB_LAYOUT = "VIDEO/img/0001.jpg and VIDEO/groundtruth_rect.txt"
TC128_LAYOUT = "VIDEO/img/0001.jpg, VIDEO/VIDEO_gt.txt and VIDEO/VIDEO_frames.txt"

# Their annotation was shorter than the images by one frame in some releases; the toolkits pad it
# with a zero box, which no metric counts as a hit.
_ONE_ROW_SHORT = ("Board", "Twinnings")

# The benchmark's own names: one target, or a number for each. Copies and corrections have other names.
_ANNOTATION = re.compile(r"groundtruth_rect(?:\.([0-9]+))?\.txt")


def _annotations(video: Path) -> list[tuple[str, Path]]:
    """List (target name, file): ``groundtruth_rect.txt``, or ``.1.txt`` and ``.2.txt`` for two targets."""
    named = []
    for path in files.named(video, ".txt"):
        match = _ANNOTATION.fullmatch(path.name)
        if match:
            named.append((f"{video.name}-{match[1]}" if match[1] else video.name, path))
    if len(named) > 1:  # Human4 ships an empty groundtruth_rect.1.txt beside the real .2.txt
        named = [(n, p) for n, p in named if text.read_text(p).strip()]
    return named


def find_otb(root: Path, split: str, frames: bool = True) -> Found:
    """Find the targets of OTB: 1-based boxes, mixed separators, partial ranges, one or two targets.

    Args:
        root: folder with one folder per video.
        split: ``test`` (whatever is there), or ``otb2013``, ``otb50``, ``otb100`` (all of its videos).
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per target; names as ``Jogging-1``, ``Human4-2``.
    """
    wanted = {"otb2013": splits.OTB2013, "otb50": splits.OTB50, "otb100": splits.OTB100}.get(split)
    folders = files.subfolders(root)
    annotated = {v for v in folders if _is_annotated(v)}
    deep = files.too_deep((v for v in folders if v not in annotated), _is_annotated)
    if not annotated and not deep:
        raise files.wrong_layout("otb", root, OTB_LAYOUT)
    videos = [v for v in folders if v in annotated or files.list_images(v / "img")]
    missing: tuple[str, ...] = ()
    if wanted is not None:
        missing = tuple(sorted(set(wanted) - {v.name for v in videos}))
        videos = [v for v in videos if v.name in wanted]
    entries = []
    for video in videos:
        targets = _annotations(video)
        entries += [
            Entry(name, functools.partial(read_target, name, video, path, frames), video.name)
            for name, path in targets
            if not (split == "otb2013" and name == "Skating2-2")
        ]
        if not targets:
            entries.append(Entry(video.name, functools.partial(_empty, video)))
    return Found(entries, missing, split, tuple(deep))


def _is_annotated(video: Path) -> bool:
    return any(p.name.startswith("groundtruth_rect") for p in files.named(video, ".txt"))


def _empty(video: Path) -> Iterator[VideoRecord]:
    raise JaxtrackError(
        f"otb {video.name}: no annotation: every groundtruth_rect.txt (or .1.txt, .2.txt) in {video} is "
        "empty or missing"
    )


def is_excerpt(video: str, images: list[str], boxes: int) -> bool:
    """Say whether a folder holds an excerpt, numbered anew: a row per image, none in the published range."""
    first, last = splits.OTB_RANGES[video]
    numbers = [files.frame_number(image) or 0 for image in images]
    return len(images) == boxes and not any(first <= number <= last for number in numbers)


def read_target(name: str, video: Path, path: Path, frames: bool) -> Iterator[VideoRecord]:
    """Read one target (David has 770 images and 471 boxes).

    Which rows count depends on the images, so that those which are there are always looked at.
    """
    what = f"otb {name}"
    boxes = text.read_numbers(path, (4,))
    images = files.list_images(video / "img")
    if video.name in splits.OTB_RANGES and not is_excerpt(video.name, images, len(boxes)):
        first, last = splits.OTB_RANGES[video.name]
        inside = [first <= (files.frame_number(f) or 0) <= last for f in images]
        if images and len(boxes) == len(images):  # Tiger1: every image has a row, five are left out
            boxes = boxes[np.array(inside)]
        elif len(boxes) == last:
            boxes = boxes[first - 1 :]
        images = [f for f, keep in zip(images, inside) if keep]
    if video.name in _ONE_ROW_SHORT and len(boxes) == len(images) - 1:
        boxes = np.concatenate([boxes, np.zeros((1, 4))])
    yield VideoRecord(
        name=name,
        frames=pairing.pair(what, images, len(boxes), (video / "img", path)) if frames else (),
        boxes=geometry.zero_based(boxes, 1),
        absent=np.zeros(len(boxes), dtype=bool),
        video=video.name,
        attributes=otb_attributes.attributes().get(name, ()),
        origin=1,
    )


def find_tc128(root: Path, split: str, frames: bool = True) -> Found:
    """Find the videos of Temple-Color-128: OTB's conventions, the annotated range in ``VIDEO_frames.txt``.

    Args:
        root: folder with one folder per video.
        split: only ``test``.
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per video; ``VIDEO_att.txt``, where there is one, gives the attributes.
    """
    videos = [(v, files.named(v, "_gt.txt")) for v in files.subfolders(root)]
    if not any(found for _, found in videos):
        raise files.wrong_layout("tc128", root, TC128_LAYOUT)
    return Found(
        [
            Entry(
                v.name,
                functools.partial(
                    _tc128_video, v, found[0] if found else v / f"{v.name}_gt.txt", frames
                ),
            )
            for v, found in videos
            if found or files.list_images(v / "img")
        ]
    )


def _tc128_video(video: Path, path: Path, frames: bool) -> Iterator[VideoRecord]:
    boxes = text.read_numbers(path, (4,))
    images = files.list_images(video / "img") if frames else []
    ranges = files.named(video, "_frames.txt")
    first = None
    if ranges and frames:
        bounds = text.read_numbers(ranges[0], (2,))[0]
        if not np.isfinite(bounds).all():
            raise JaxtrackError(f"{ranges[0]}: two frame numbers were expected")
        first, last = (int(v) for v in bounds)
        numbers = [files.frame_number(f) for f in images]
        images = [f for f, n in zip(images, numbers) if n is None or first <= n <= last]
    notes = files.named(video, "_att.txt")
    attributes = text.read_text(notes[0]).replace(",", " ").split() if notes else []
    what = f"tc128 {video.name}"
    yield VideoRecord(
        name=video.name,
        frames=pairing.pair(what, images, len(boxes), (video / "img", path), first)
        if frames
        else (),
        boxes=geometry.zero_based(boxes, 1),
        absent=np.zeros(len(boxes), dtype=bool),
        video=video.name,
        attributes=tuple(attributes),
        origin=1,
    )
