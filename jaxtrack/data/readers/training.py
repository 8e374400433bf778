"""GOT-10k, LaSOT and its extension, and TrackingNet, as delivered."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data import splits
from jaxtrack.data.readers import tools
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError

GOT10K_LAYOUT = "train/GOT-10k_Train_000001/groundtruth.txt and 00000001.jpg (val and test alike)"
LASOT_LAYOUT = "CLASS/CLASS-1/groundtruth.txt and CLASS/CLASS-1/img/00000001.jpg"
TRACKINGNET_LAYOUT = (
    "TRAIN_0/anno/VIDEO.txt and TRAIN_0/frames/VIDEO/0.jpg or TRAIN_0/zips/VIDEO.zip"
)


def read_got10k(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads GOT-10k: 1-based boxes, -1 or zero boxes for absent targets, visible share in eighths.

    Args:
        root: folder that holds `train`, `val`, `test` (or that split's own folder).
        split: `train`, `val`, `test`, or `train_vot` (train without the 1,000 videos that VOT
            forbids).

    Yields:
        One record per video. The test split has the first box only; later rows are NaN.
    """
    subset = split.removesuffix("_vot")
    folder = root / subset if (root / subset).is_dir() else root
    prefix = f"GOT-10k_{subset.capitalize()}_"
    listed = folder / "list.txt"
    if listed.exists():
        names = tools.read_text(listed).split()
    else:
        names = [v.name for v in tools.subfolders(folder)]
    names = [n for n in names if n.startswith(prefix)]
    if not names:
        raise tools.wrong_layout("got10k", root, GOT10K_LAYOUT.replace("train/", f"{subset}/"))
    forbidden = splits.got10k_vot_forbidden() if split.endswith("_vot") else frozenset()
    for name in names:
        if name in forbidden:
            continue
        if not (folder / name).is_dir():
            raise JaxtrackError(f"got10k {name}: {listed} names it but there is no {folder / name}")
        yield _got10k_video(folder / name, subset)


def _got10k_video(video: Path, subset: str) -> VideoRecord:
    what = f"got10k {video.name}"
    frames = tools.list_images(video)
    path = video / "groundtruth.txt"
    boxes = tools.read_numbers(path, 4)
    if subset == "test" and len(boxes) == 1 and frames:
        boxes = tools.first_box_only(boxes, len(frames))
    tools.check_counts(what, frames, boxes, video, path)
    absent = np.zeros(len(frames), dtype=bool)
    visibility = None
    if (video / "absence.label").exists():
        absent = tools.read_flags(video / "absence.label", len(frames), what) > 0
    if (video / "cover.label").exists():
        eighths = tools.read_flags(video / "cover.label", len(frames), what)
        visibility = (eighths / 8).astype(np.float32)
    return VideoRecord(
        name=video.name,
        frames=tuple(frames),
        boxes=tools.zero_based(boxes, 1),
        absent=absent,
        video=video.name,
        visibility=visibility,
        object_class=_got10k_class(video / "meta_info.ini"),
        origin=1,
    )


def _got10k_class(path: Path) -> str:
    if not path.exists():
        return ""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(tools.read_text(path))
    except configparser.Error as error:
        line = str(error).splitlines()[0]
        raise JaxtrackError(f"{path} is not an .ini file: {line}") from error
    return parser.get("METAINFO", "object_class", fallback="")


def read_lasot(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads LaSOT or its extension: 1-based boxes, flags for full occlusion and out of view.

    Args:
        root: folder with one folder per class (or one per video).
        split: `train` (1,120 videos), `test` (280), or `full` (both; the extension has no
            splits).

    Yields:
        One record per video; `absent` is either flag. Flagged frames may still carry a box.
    """
    files = sorted([*root.glob("*/*/groundtruth.txt"), *root.glob("*/groundtruth.txt")])
    if not files:
        raise tools.wrong_layout("lasot", root, LASOT_LAYOUT)
    test = splits.lasot_test()
    videos = [
        f.parent for f in files if split == "full" or (f.parent.name in test) == (split == "test")
    ]
    if not videos:
        raise JaxtrackError(f"lasot: {root} has {len(files)} videos but none of the {split} split")
    for video in sorted(videos, key=lambda v: tools.natural_key(v.name)):
        what = f"lasot {video.name}"
        boxes = tools.read_numbers(video / "groundtruth.txt", 4)
        frames = tools.list_images(video / "img")
        tools.check_counts(what, frames, boxes, video / "img", video / "groundtruth.txt")
        absent = np.zeros(len(frames), dtype=bool)
        for flag in ("full_occlusion.txt", "out_of_view.txt"):
            absent |= tools.read_flags(video / flag, len(frames), what) > 0
        yield VideoRecord(
            name=video.name,
            frames=tuple(frames),
            boxes=tools.zero_based(boxes, 1),
            absent=absent,
            video=video.name,
            object_class=video.name.rsplit("-", 1)[0],
            origin=1,
        )


def trackingnet_parts(split: str) -> tuple[str, ...]:
    """Names the part folders of a TrackingNet split.

    Args:
        split: `test`, `train` (all 12 parts), or `train_0_3` (parts 0 to 3, as OSTrack uses).

    Returns:
        Folder names such as `TRAIN_0`.

    Raises:
        JaxtrackError: the range of parts is malformed.
    """
    if split == "test":
        return ("TEST",)
    if split == "train":
        return tuple(f"TRAIN_{i}" for i in range(12))
    first, _, last = split.removeprefix("train_").partition("_")
    if not (first.isdigit() and (last or first).isdigit()):
        raise JaxtrackError(
            f"trackingnet: split '{split}' is not train, test, train_3 or train_0_3"
        )
    return tuple(f"TRAIN_{i}" for i in range(int(first), int(last or first) + 1))


def read_trackingnet(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads TrackingNet: parts, frame folders or the zip files as downloaded, 0-based float boxes.

    Args:
        root: folder that holds `TRAIN_0` .. `TRAIN_11`, `TEST`.
        split: see `trackingnet_parts`.

    Yields:
        One record per video. The test split has the first box only; later rows are NaN.
    """
    for part in trackingnet_parts(split):
        files = sorted((root / part / "anno").glob("*.txt"))
        if not files:
            raise tools.wrong_layout(
                "trackingnet", root, TRACKINGNET_LAYOUT.replace("TRAIN_0", part)
            )
        for path in files:
            name = path.stem
            folder, archive = root / part / "frames" / name, root / part / "zips" / f"{name}.zip"
            frames = tools.list_images(folder)
            if not frames and archive.exists():
                frames = tools.list_zip_images(archive)
            boxes = tools.read_numbers(path, 4)
            if part == "TEST" and len(boxes) == 1 and frames:
                boxes = tools.first_box_only(boxes, len(frames))
            tools.check_counts(f"trackingnet {name}", frames, boxes, folder, path)
            yield VideoRecord(
                name=name,
                frames=tuple(frames),
                boxes=boxes,
                absent=np.zeros(len(frames), dtype=bool),
                video=name,
            )
