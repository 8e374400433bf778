"""GOT-10k, LaSOT and its extension, and TrackingNet, as delivered."""

from __future__ import annotations

import configparser
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data import splits
from jaxtrack.data.readers import files, geometry, pairing
from jaxtrack.data.readers.entries import Entry, Found
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import text

GOT10K_LAYOUT = "train/GOT-10k_Train_000001/groundtruth.txt and 00000001.jpg (val and test alike)"
LASOT_LAYOUT = "CLASS/CLASS-1/groundtruth.txt and CLASS/CLASS-1/img/00000001.jpg"
TRACKINGNET_LAYOUT = (
    "TRAIN_0/anno/VIDEO.txt and TRAIN_0/frames/VIDEO/0.jpg or TRAIN_0/zips/VIDEO.zip"
)

# Some copies of LaSOT have one image more than boxes (airplane-14); its own toolkit leaves it out.
_LASOT_SURPLUS = 1


def find_got10k(root: Path, split: str, frames: bool = True) -> Found:
    """Find the videos of GOT-10k: 1-based boxes, -1 or zero boxes for absent targets, cover in eighths.

    Args:
        root: folder that holds ``train``, ``val``, ``test`` (or that split's own folder).
        split: ``train``, ``val``, ``test``, or ``train_vot`` (train without the 1,000 videos that VOT
            forbids).
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per video. The test split has the first box only; later rows are NaN.
    """
    subset = split.removesuffix("_vot")
    folder = root / subset if (root / subset).is_dir() else root
    prefix = f"GOT-10k_{subset.capitalize()}_"
    there = [v.name for v in files.subfolders(folder)]
    listed = folder / "list.txt"
    names = files.names_listed(listed, text.read_text(listed)) if listed.exists() else there
    strange = [n for n in names if not n.startswith(prefix)] if listed.exists() else []
    forbidden = splits.got10k_vot_forbidden() if split.endswith("_vot") else frozenset()
    names = [n for n in names if n.startswith(prefix) and n not in forbidden]
    problems = [
        f"{listed} names {n}; videos of {subset} are called {prefix}000001" for n in strange
    ]
    if not names and problems:
        raise JaxtrackError(f"got10k: {problems[0]}")
    if not names:
        own = GOT10K_LAYOUT.replace("train/", f"{subset}/").replace("Train_", prefix[8:])
        raise files.wrong_layout("got10k", root, own)
    lost = tuple(n for n in names if n not in set(there))
    entries = [
        Entry(n, functools.partial(read_got10k, folder / n, subset, frames))
        for n in names
        if n not in set(lost)
    ]
    return Found(entries, lost, str(listed), tuple(problems))


def read_got10k(video: Path, subset: str, frames: bool) -> Iterator[VideoRecord]:
    """Read one video of GOT-10k; of the subset ``test`` the first box may be all there is."""
    what = f"got10k {video.name}"
    images = files.list_images(video) if frames else []
    path = video / "groundtruth.txt"
    boxes = text.read_numbers(path, (4,))
    withheld = subset == "test" and len(boxes) == 1 and len(images) != 1
    if withheld and images:
        boxes = geometry.first_box_only(boxes, len(images))
    count = len(boxes)
    absent = np.zeros(count, dtype=bool)
    visibility = None
    if (video / "absence.label").exists():
        absent = pairing.read_flags(video / "absence.label", count, what) > 0
    if (video / "cover.label").exists():
        eighths = pairing.read_flags(video / "cover.label", count, what)
        visibility = (eighths / 8).astype(np.float32)
    yield VideoRecord(
        name=video.name,
        frames=pairing.pair(what, images, count, (video, path), 1) if frames else (),
        boxes=geometry.zero_based(boxes, 1),
        absent=absent,
        video=video.name,
        visibility=visibility,
        object_class=_got10k_class(video / "meta_info.ini"),
        origin=1,
        withheld=withheld,
    )


def _got10k_class(path: Path) -> str:
    if not path.exists():
        return ""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text.read_text(path))
    except configparser.Error as error:
        line = str(error).splitlines()[0]
        raise JaxtrackError(f"{path} is not an .ini file: {line}") from error
    return parser.get("METAINFO", "object_class", fallback="")


def find_lasot(root: Path, split: str, frames: bool = True) -> Found:
    """Find the videos of LaSOT or its extension: 1-based boxes, flags for full occlusion and out of view.

    Args:
        root: folder with one folder per class (or one per video).
        split: ``train`` (1,120 videos), ``test`` (280), or ``full`` (both; the extension has no
            splits).
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per video; ``absent`` is either flag. Flagged frames may still carry a box.
    """
    videos: list[Path] = []
    deep: list[str] = []
    for folder in files.subfolders(root):
        inner = [folder] if _is_video(folder) else files.subfolders(folder)
        videos += filter(_is_video, inner)
        deep += files.too_deep((v for v in inner if not _is_video(v)), _is_video)
    if not any((v / "groundtruth.txt").exists() for v in videos):
        raise files.wrong_layout("lasot", root, LASOT_LAYOUT)
    test = splits.lasot_test()
    kept = [v for v in videos if split == "full" or (v.name in test) == (split == "test")]
    if not kept:
        raise JaxtrackError(f"lasot: {root} has {len(videos)} videos but none of the {split} split")
    kept.sort(key=lambda v: files.natural_key(v.name))
    entries = [Entry(v.name, functools.partial(read_lasot, v, frames)) for v in kept]
    return Found(entries, problems=tuple(deep))


def _is_video(folder: Path) -> bool:
    """Return whether a folder is a video of LaSOT, be its annotation lost."""
    return (folder / "groundtruth.txt").exists() or (folder / "img").is_dir()


def read_lasot(video: Path, frames: bool) -> Iterator[VideoRecord]:
    """Read one video of LaSOT, with its flags for full occlusion and out of view."""
    what = f"lasot {video.name}"
    truth = video / "groundtruth.txt"
    boxes = text.read_numbers(truth, (4,))
    images: tuple[str, ...] = ()
    if frames:
        images = pairing.pair(
            what,
            files.list_images(video / "img"),
            len(boxes),
            (video / "img", truth),
            1,
            _LASOT_SURPLUS,
        )
    absent = np.zeros(len(boxes), dtype=bool)
    for flag in ("full_occlusion.txt", "out_of_view.txt"):
        absent |= pairing.read_flags(video / flag, len(boxes), what) > 0
    yield VideoRecord(
        name=video.name,
        frames=images,
        boxes=geometry.zero_based(boxes, 1),
        absent=absent,
        video=video.name,
        object_class=video.name.rsplit("-", 1)[0],
        origin=1,
    )


def trackingnet_parts(split: str) -> tuple[str, ...]:
    """Name the part folders of a TrackingNet split.

    Args:
        split: ``test``, ``train`` (all 12 parts), or ``train_0_3`` (parts 0 to 3, as OSTrack uses).

    Returns:
        Folder names such as ``TRAIN_0``.

    Raises:
        JaxtrackError: the range of parts is malformed.
    """
    if split == "test":
        return ("TEST",)
    if split == "train":
        return tuple(f"TRAIN_{i}" for i in range(12))
    found = re.fullmatch(r"train_([0-9]{1,2})(?:_([0-9]{1,2}))?", split)
    if not found or not int(found[1]) <= int(found[2] or found[1]) <= 11:
        raise JaxtrackError(
            f"trackingnet: split '{split}' is not train, test, train_3 or train_0_3 (parts 0 to 11)"
        )
    return tuple(f"TRAIN_{i}" for i in range(int(found[1]), int(found[2] or found[1]) + 1))


def find_trackingnet(root: Path, split: str, frames: bool = True) -> Found:
    """Find the videos of TrackingNet: parts, frame folders or the zip files as downloaded, 0-based boxes.

    Args:
        root: folder that holds ``TRAIN_0`` .. ``TRAIN_11``, ``TEST``.
        split: see ``trackingnet_parts``.
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per video. The test split has the first box only; later rows are NaN.
    """
    entries = []
    parts = trackingnet_parts(split)
    for part in parts:
        annotations = files.named(root / part / "anno", ".txt")
        if not annotations:
            error = files.wrong_layout(
                "trackingnet", root, TRACKINGNET_LAYOUT.replace("TRAIN_0", part)
            )
            raise type(error)(f"{error}{_other_parts(root, parts)}")
        annotations.sort()
        entries += [
            Entry(p.stem, functools.partial(_trackingnet_video, root / part, p, frames))
            for p in annotations
        ]
    return Found(entries)


def _other_parts(root: Path, parts: tuple[str, ...]) -> str:
    """Return how the parts that are there are asked for, where some are not; else nothing."""
    there = [int(p.removeprefix("TRAIN_")) for p in parts if p != "TEST" and (root / p).is_dir()]
    if not there or there != list(range(there[0], there[-1] + 1)):
        return ""
    split = "_".join(map(str, dict.fromkeys((there[0], there[-1]))))
    return f"; --split train_{split} is what is there"


def _trackingnet_video(part: Path, path: Path, frames: bool) -> Iterator[VideoRecord]:
    name = path.stem
    folder, archive = part / "frames" / name, part / "zips" / f"{name}.zip"
    boxes = text.read_numbers(path, (4,))
    images: list[str] = []
    if frames:
        images = files.list_images(folder)
        if not images and archive.exists():
            folder, images = archive, files.list_zip_images(archive)
    withheld = part.name == "TEST" and len(boxes) == 1 and len(images) != 1
    if withheld and images:
        boxes = geometry.first_box_only(boxes, len(images))
    what = f"trackingnet {name}"
    yield VideoRecord(
        name=name,
        frames=pairing.pair(what, images, len(boxes), (folder, path), 0) if frames else (),
        boxes=boxes,
        absent=np.zeros(len(boxes), dtype=bool),
        video=name,
        withheld=withheld,
    )
