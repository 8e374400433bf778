"""ImageNet VID and DET, COCO, and crops in PySOT's layout (YouTube-BB and others), as delivered."""

from __future__ import annotations

import functools
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack.data.readers import files, geometry
from jaxtrack.data.readers.entries import Entry, Found
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io.atomic import read_whole
from jaxtrack.io.records import read_json
from jaxtrack.ops.patch import context_side

VID_LAYOUT = (
    "Annotations/VID/train/ILSVRC2015_VID_train_0000/VIDEO/000000.xml and Data/VID/... .JPEG"
)
DET_LAYOUT = "Annotations/DET/train/ILSVRC2014_train_0000/IMAGE.xml and Data/DET/... .JPEG"
COCO_LAYOUT = "annotations/instances_train2017.json and train2017/000000000009.jpg"
CROPS_LAYOUT = "train.json and crop511/VIDEO/000000.00.x.jpg (PySOT's training_dataset layout)"

# Boxes below this side are annotation dust (COCO has boxes of less than a pixel); a context window
# around one would magnify single pixels.
COCO_MIN_SIDE = 2.0

# Centre of a 511 x 511 crop where pixel k spans [k, k + 1).
CROP_CENTRE = 255.5

# The largest annotation of an image in ILSVRC is below 100 kB.
_XML_BYTES = 1 << 24

# COCO's annotation has 470 MB, that of LVIS 1.1 GB.
_JSON_BYTES = 1 << 31


def _ilsvrc_root(root: Path) -> Path:
    """Accept the folder that holds ILSVRC2015 / ILSVRC as well as that folder itself."""
    for inner in (root, root / "ILSVRC2015", root / "ILSVRC"):
        if (inner / "Annotations").is_dir():
            return inner
    return root


def _objects(path: Path) -> tuple[tuple[int, int] | None, list[tuple[str, list[float]]]]:
    """Read the image's size and (track id, corners) of every object in an ILSVRC annotation."""
    data = read_whole(path, _XML_BYTES)
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise JaxtrackError(f"{path} is not a readable annotation ({brief(error)})") from error
    found = []
    for number, item in enumerate(root.iter("object")):
        corners = []
        for key in ("xmin", "ymin", "xmax", "ymax"):
            value = _number(item.findtext(f"bndbox/{key}"))
            if value is None:
                raise JaxtrackError(f"{path}: object {number} has no number {key}")
            corners.append(value)
        found.append((item.findtext("trackid") or str(number), corners))
    size = {"width": root.findtext("size/width"), "height": root.findtext("size/height")}
    return _size(size), found


def _number(value: Any) -> float | None:
    """Turn text or a number of JSON into a finite number; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def find_vid(root: Path, split: str, frames: bool = True) -> Found:
    """Find the videos of ImageNet VID: several tracks each, present in a part of the frames.

    Args:
        root: folder that holds ``Annotations`` and ``Data`` (or ILSVRC2015 with both).
        split: ``train`` or ``val``.
        frames: whether frame references are given; False: the annotation alone.

    Returns:
        One entry per video; its records are named ``VIDEO/TRACK``, over the frames a track is annotated in.
    """
    base = _ilsvrc_root(root)
    annotations = base / "Annotations" / "VID" / split
    folders = files.subfolders(annotations)
    if not folders:
        raise files.wrong_layout("vid", root, VID_LAYOUT.replace("/train/", f"/{split}/"))
    entries = []
    for folder in folders:  # train has four parts, val has the videos at once
        for video in files.subfolders(folder) or [folder]:
            frames_at = base / "Data" / "VID" / split / video.relative_to(annotations)
            entries.append(
                Entry(video.name, functools.partial(_vid_video, video, frames_at, frames))
            )
    return Found(entries)


def _vid_video(video: Path, frames_at: Path, frames: bool) -> Iterator[VideoRecord]:
    tracks: dict[str, tuple[list[str], list[list[float]]]] = {}
    size = None
    for path in files.named(video, ".xml"):
        frame = str(frames_at / f"{path.stem}.JPEG")
        size, objects = _objects(path)
        for track, corners in objects:
            images, boxes = tracks.setdefault(track, ([], []))
            if not images or images[-1] != frame:
                images.append(frame)
                boxes.append(corners)
    for track in sorted(tracks, key=files.natural_key):
        images, boxes = tracks[track]
        yield _record(f"{video.name}/{track}", video.name, images if frames else [], boxes, size)


def find_det(root: Path, split: str, frames: bool = True) -> Found:
    """Find the images of ImageNet DET: every object of one is a video of one frame.

    Args:
        root: folder that holds ``Annotations`` and ``Data`` (or ILSVRC with both).
        split: ``train`` or ``val``.
        frames: whether frame references are given; False: the annotation alone.

    Returns:
        One entry per image; its records are named ``IMAGE/INDEX``.
    """
    base = _ilsvrc_root(root)
    annotations = base / "Annotations" / "DET" / split
    found = sorted(files.walk(annotations, ".xml"))
    if not found:
        raise files.wrong_layout("det", root, DET_LAYOUT.replace("/train/", f"/{split}/"))
    images = base / "Data" / "DET" / split

    def entries() -> Iterator[Entry]:
        for path in found:
            name = path.relative_to(annotations).with_suffix("").as_posix()
            yield Entry(name, functools.partial(_det_image, name, path, images, frames))

    return Found(entries())


def _det_image(name: str, path: Path, images: Path, frames: bool) -> Iterator[VideoRecord]:
    frame = f"{images}{os.sep}{name}.JPEG"
    size, objects = _objects(path)
    for number, (_, corners) in enumerate(objects):
        yield _record(f"{name}/{number}", name, [frame] if frames else [], [corners], size)


def _record(
    name: str,
    video: str,
    images: list[str],
    corners: list[list[float]],
    size: tuple[int, int] | None,
) -> VideoRecord:
    return VideoRecord(
        name=name,
        frames=tuple(images),
        boxes=geometry.corners_to_boxes(np.array(corners)),
        absent=np.zeros(len(corners), dtype=bool),
        video=video,
        size=size,
    )


def _read_table(path: Path, dataset: str, root: Path, looked_for: str) -> dict[str, Any]:
    """Read the one JSON file of a dataset, which must hold an object."""
    if not path.exists():
        raise files.wrong_layout(dataset, root, looked_for)
    return read_json(path, f"the annotation of {dataset}", dict, _JSON_BYTES)


def find_coco(root: Path, split: str, frames: bool = True) -> Found:
    """Find the images of COCO 2017: every object of one is a video of one frame.

    Crowds (``iscrowd``), annotations without a box and boxes with a side below ``COCO_MIN_SIDE`` pixels are
    left out. Files of other tools are understood: ids may be text, and LVIS names an image by its
    ``coco_url``.

    Args:
        root: folder that holds ``annotations`` and the image folders.
        split: ``train`` or ``val`` (of 2017).
        frames: whether frame references are given; False: the annotation alone.

    Returns:
        One entry per image; its records are named ``IMAGE/ANNOTATION``. Boxes are 0-based floats as
        annotated.
    """
    layout = COCO_LAYOUT.replace("train2017", f"{split}2017")
    path = root / "annotations" / f"instances_{split}2017.json"
    table = _read_table(path, "coco", root, layout)
    images = {_key(i.get("id")): i for i in _objects_of(table, "images", path)}
    classes = {
        _key(c.get("id")): str(c.get("name", ""))
        for c in _objects_of({"categories": [], **table}, "categories", path)
    }
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for item in _objects_of(table, "annotations", path):
        by_image.setdefault(_key(item.get("image_id")), []).append(item)
    folder = root / f"{split}2017"

    def entries() -> Iterator[Entry]:
        for key in sorted(by_image, key=lambda k: files.natural_key(str(k))):
            image, notes = images.get(key), by_image[key]
            if image is None:
                name = str(key)
                read = functools.partial(_coco_unknown, notes[0], key)
            else:
                file = _coco_file(image)
                name = str(key) if file is None else file.rsplit(".", 1)[0]
                read = functools.partial(_coco_image, path, folder, image, notes, classes, frames)
            yield Entry(name, read)

    return Found(entries())


def _objects_of(table: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    found = table.get(key)
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise JaxtrackError(f"coco: {path} lacks {key!r}, or it is not a list of objects")
    return found


def _key(value: Any) -> Any:
    """Return an id as it may be looked up: numbers and text that say the same are the same."""
    return str(value)


def _coco_file(image: Mapping[str, Any]) -> str | None:
    name = image.get("file_name")
    if name is None and isinstance(image.get("coco_url"), str):
        name = image["coco_url"].rsplit("/", 1)[-1]
    return name if isinstance(name, str) and name else None


def _coco_unknown(item: Mapping[str, Any], key: str) -> Iterator[VideoRecord]:
    raise JaxtrackError(
        f"coco: annotation {_shown(item.get('id'))} is of an unknown image {_shown(key)}"
    )


def _coco_image(
    path: Path,
    folder: Path,
    image: Mapping[str, Any],
    notes: list[Mapping[str, Any]],
    classes: Mapping[str, str],
    frames: bool,
) -> Iterator[VideoRecord]:
    file = _coco_file(image)
    if file is None:
        raise JaxtrackError(f"coco: {path}: image {_shown(image.get('id'))} has no file_name")
    where = f"coco: {path}: image {_shown(image.get('id'))}"
    frame = str(files.inside(folder, file, where))
    video = file.rsplit(".", 1)[0]
    for item in sorted(notes, key=lambda a: files.natural_key(str(a.get("id")))):
        number = _shown(item.get("id"))
        values = item.get("bbox")
        if item.get("iscrowd", 0) or values is None or values == []:
            continue
        box = [_number(v) for v in values] if isinstance(values, list) else []
        if len(box) != 4 or None in box:
            raise JaxtrackError(
                f"coco: {path}: the bbox of annotation {number} is {_shown(values)}, not [x, y, w, h]"
            )
        boxes = np.array([box], dtype=np.float64)
        if not (boxes[0, 2:] >= COCO_MIN_SIDE).all():
            continue
        yield VideoRecord(
            name=f"{video}/{number}",
            frames=(frame,) if frames else (),
            boxes=boxes,
            absent=np.zeros(1, dtype=bool),
            video=video,
            object_class=classes.get(_key(item.get("category_id")), ""),
            size=_size(image),
        )


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of an image where the file says it and makes sense of it."""
    width, height = _number(image.get("width")), _number(image.get("height"))
    if not (width and height and 0 < width < 1e6 and 0 < height < 1e6):
        return None
    return int(height), int(width)


def _shown(value: Any) -> str:
    """Return a value of a foreign file for a message, bounded."""
    return brief(value if isinstance(value, str) else repr(value), 60)


def find_crops(root: Path, split: str, frames: bool = True) -> Found:
    """Find the tracks of 511 x 511 crops in PySOT's layout, as YouTube-BB is passed on.

    The target is at the centre (pixel 255, 255) of each crop; its size is the annotated one scaled so that
    the context window becomes 127 pixels. (YouTube-BB's own table gives boxes as shares of the frame;
    for such a file the aspect is that of the shares, as in PySOT.)

    Args:
        root: folder that holds ``train.json`` and ``crop511``.
        split: name of the json file: ``train`` or ``val`` (COCO's crops: ``train2017``).
        frames: whether frame references are given; False: the annotation alone.

    Returns:
        One entry per track, named ``VIDEO/TRACK``.

    Reference:
        PySOT's training_dataset/*/gen_json.py describes the file, ``TrkDataset`` the box rule.
    """
    path = root / f"{split}.json"
    table = _read_table(path, "youtubebb", root, CROPS_LAYOUT)
    entries = []
    for video in sorted(table):
        if not isinstance(table[video], dict):
            raise JaxtrackError(f"youtubebb: {path}: {_shown(video)} is not an object of tracks")
        for track in sorted(table[video], key=files.natural_key):
            name = f"{video}/{track}"
            read = functools.partial(_crop_track, root, video, track, table[video][track], frames)
            entries.append(Entry(name, read))
    return Found(entries)


def _crop_track(
    root: Path, video: str, track: str, regions: Any, frames: bool
) -> Iterator[VideoRecord]:
    what = f"youtubebb {_shown(video)}/{_shown(track)}"
    if not isinstance(regions, dict):
        raise JaxtrackError(f"{what}: {_shown(regions)} is not an object of frames")
    images, boxes = [], []
    for frame, region in sorted(regions.items()):
        values = [_number(v) for v in region] if isinstance(region, list) else []
        if len(values) not in (2, 4) or None in values:
            raise JaxtrackError(f"{what} frame {_shown(frame)}: {_shown(region)} is no box")
        size = np.array(values, dtype=np.float64)
        size = size[2:] - size[:2] if size.shape == (4,) else size
        if not (size > 0).all():
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            size = size * 127 / context_side(*size)
        if not np.isfinite(size).all():
            raise JaxtrackError(f"{what} frame {_shown(frame)}: {_shown(region)} is no box")
        images.append(str(files.inside(root / "crop511", f"{video}/{frame}.{track}.x.jpg", what)))
        boxes.append([*(CROP_CENTRE - size / 2), *size])
    if boxes:
        yield VideoRecord(
            name=f"{video}/{track}",
            frames=tuple(images) if frames else (),
            boxes=np.array(boxes),
            absent=np.zeros(len(boxes), dtype=bool),
            video=f"{video}/{track}",
        )
