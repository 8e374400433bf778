"""ImageNet VID and DET, COCO, and crops in PySOT's layout (YouTube-BB and others), as delivered."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data.readers import tools
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError

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


def _ilsvrc_root(root: Path) -> Path:
    """Accepts the folder that holds ILSVRC2015 / ILSVRC as well as that folder itself."""
    for inner in (root, root / "ILSVRC2015", root / "ILSVRC"):
        if (inner / "Annotations").is_dir():
            return inner
    return root


def _objects(path: Path) -> list[tuple[str, list[float]]]:
    """Reads (track id, corners) of every object in an ILSVRC annotation."""
    try:
        tree = ElementTree.parse(path)
    except (ElementTree.ParseError, OSError) as error:
        raise JaxtrackError(f"{path} is not a readable annotation ({error})") from error
    found = []
    for number, item in enumerate(tree.getroot().iter("object")):
        corners = []
        for key in ("xmin", "ymin", "xmax", "ymax"):
            text = item.findtext(f"bndbox/{key}")
            try:
                corners.append(float(text or ""))
            except ValueError:
                raise JaxtrackError(f"{path}: object {number} has no number {key}") from None
        found.append((item.findtext("trackid") or str(number), corners))
    return found


def read_vid(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads ImageNet VID: several tracks per video, each present in a part of the frames.

    Args:
        root: folder that holds `Annotations` and `Data` (or ILSVRC2015 with both).
        split: `train` or `val`.

    Yields:
        One record per track, named `VIDEO/TRACK`, over the frames it is annotated in.
    """
    base = _ilsvrc_root(root)
    annotations = base / "Annotations" / "VID" / split
    folders = tools.subfolders(annotations)
    if not folders:
        raise tools.wrong_layout("vid", root, VID_LAYOUT.replace("/train/", f"/{split}/"))
    videos = []
    for folder in folders:  # train has four parts, val has the videos at once
        videos += tools.subfolders(folder) or [folder]
    for video in videos:
        frames_at = base / "Data" / "VID" / split / video.relative_to(annotations)
        tracks: dict[str, tuple[list[str], list[list[float]]]] = {}
        files = sorted(video.glob("*.xml"), key=lambda p: tools.natural_key(p.name))
        for path in files:
            frame = str(frames_at / f"{path.stem}.JPEG")
            for track, corners in _objects(path):
                frames, boxes = tracks.setdefault(track, ([], []))
                if not frames or frames[-1] != frame:
                    frames.append(frame)
                    boxes.append(corners)
        for track in sorted(tracks, key=tools.natural_key):
            yield _still(f"{video.name}/{track}", video.name, *tracks[track])


def read_det(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads ImageNet DET: every object of an image is a video of one frame.

    Args:
        root: folder that holds `Annotations` and `Data` (or ILSVRC with both).
        split: `train` or `val`.

    Yields:
        One record per object, named `IMAGE/INDEX`.
    """
    base = _ilsvrc_root(root)
    annotations = base / "Annotations" / "DET" / split
    files = annotations.rglob("*.xml") if annotations.is_dir() else iter(())
    any_file = False
    for path in sorted(files):
        any_file = True
        relative = path.relative_to(annotations).with_suffix("")
        frame = str(base / "Data" / "DET" / split / relative) + ".JPEG"
        for number, (_, corners) in enumerate(_objects(path)):
            yield _still(f"{relative.as_posix()}/{number}", relative.as_posix(), [frame], [corners])
    if not any_file:
        raise tools.wrong_layout("det", root, DET_LAYOUT.replace("/train/", f"/{split}/"))


def _still(name: str, video: str, frames: list[str], corners: list[list[float]]) -> VideoRecord:
    return VideoRecord(
        name=name,
        frames=tuple(frames),
        boxes=tools.corners_to_boxes(np.array(corners)),
        absent=np.zeros(len(frames), dtype=bool),
        video=video,
    )


def _read_json(path: Path, dataset: str, root: Path, looked_for: str) -> dict:
    if not path.exists():
        raise tools.wrong_layout(dataset, root, looked_for)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise JaxtrackError(
            f"{dataset}: {path} is not readable JSON ({error}): fetch it again"
        ) from error
    if not isinstance(found, dict):
        raise JaxtrackError(
            f"{dataset}: {path} holds a {type(found).__name__}, an object was expected"
        )
    return found


def read_coco(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads COCO 2017: every object is a video of one frame; crowds and dust are left out.

    Args:
        root: folder that holds `annotations` and the image folders.
        split: `train` or `val` (of 2017).

    Yields:
        One record per object, named `IMAGE/ANNOTATION`. Boxes are 0-based floats as annotated;
        `iscrowd` regions and boxes with a side below `COCO_MIN_SIDE` pixels are dropped.
    """
    layout = COCO_LAYOUT.replace("train2017", f"{split}2017")
    table = _read_json(root / "annotations" / f"instances_{split}2017.json", "coco", root, layout)
    if not {"images", "annotations"} <= set(table):
        raise JaxtrackError(f"coco: instances_{split}2017.json lacks 'images' or 'annotations'")
    names = {image["id"]: image["file_name"] for image in table["images"]}
    classes = {c["id"]: c["name"] for c in table.get("categories", ())}
    for item in sorted(table["annotations"], key=lambda a: (a["image_id"], a["id"])):
        box = np.array([item["bbox"]], dtype=np.float64)
        if item.get("iscrowd", 0) or not (box[0, 2:] >= COCO_MIN_SIDE).all():
            continue
        image = names.get(item["image_id"])
        if image is None:
            raise JaxtrackError(
                f"coco: annotation {item['id']} is of an unknown image {item['image_id']}"
            )
        video = image.rsplit(".", 1)[0]
        yield VideoRecord(
            name=f"{video}/{item['id']}",
            frames=(str(root / f"{split}2017" / image),),
            boxes=box,
            absent=np.zeros(1, dtype=bool),
            video=video,
            object_class=classes.get(item.get("category_id"), ""),
        )


def read_crops(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads 511 x 511 crops in PySOT's layout, as YouTube-BB is passed on.

    The target is at the centre (pixel 255, 255) of each crop; its size is the annotated one scaled so that
    the context window becomes 127 pixels. (YouTube-BB's own table gives boxes as shares of the frame;
    for such a file the aspect is that of the shares, as in PySOT.)

    Args:
        root: folder that holds `train.json` and `crop511`.
        split: name of the json file: `train` or `val` (COCO's crops: `train2017`).

    Yields:
        One record per track, named `VIDEO/TRACK`.

    Reference:
        PySOT's training_dataset/*/gen_json.py describes the file, `TrkDataset` the box rule.
    """
    table = _read_json(root / f"{split}.json", "youtubebb", root, CROPS_LAYOUT)
    for video in sorted(table):
        for track in sorted(table[video], key=tools.natural_key):
            frames, boxes = [], []
            for frame, region in sorted(table[video][track].items()):
                size = np.asarray(region, dtype=np.float64)
                if size.shape not in ((2,), (4,)):
                    raise JaxtrackError(
                        f"youtubebb {video}/{track} frame {frame}: {region} is no box"
                    )
                size = size[2:] - size[:2] if size.shape == (4,) else size
                if not (np.isfinite(size).all() and (size > 0).all()):
                    continue
                window = np.sqrt(np.prod(size + size.sum() / 2))
                size = size * 127 / window
                frames.append(str(root / "crop511" / video / f"{frame}.{track}.x.jpg"))
                boxes.append([*(CROP_CENTRE - size / 2), *size])
            if frames:
                yield VideoRecord(
                    name=f"{video}/{track}",
                    frames=tuple(frames),
                    boxes=np.array(boxes),
                    absent=np.zeros(len(frames), dtype=bool),
                    video=f"{video}/{track}",
                )
