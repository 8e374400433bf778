"""Tiny datasets in each published layout, written with numpy and OpenCV, and builds of some."""

from __future__ import annotations

import atexit
import functools
import json
import pathlib
import shutil
import tempfile
import zipfile

import cv2
import numpy as np

HEIGHT, WIDTH = 72, 96


def clip(seed: int, count: int, height: int = HEIGHT, width: int = WIDTH):
    """A textured rectangle that moves over noise.

    Returns:
        frames (count, h, w, 3) uint8 RGB, boxes (count, 4) x, y, w, h, 0-based integers.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    ground = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    w, h = int(rng.integers(16, 28)), int(rng.integers(14, 24))
    patch = cv2.resize(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8), (w, h))
    frames, boxes = [], []
    for t in range(count):
        x = 3 + (5 * seed + 4 * t) % (width - w - 6)
        y = 3 + (3 * seed + 2 * t) % (height - h - 6)
        frame = ground.copy()
        frame[y : y + h, x : x + w] = patch
        frames.append(frame)
        boxes.append((x, y, w, h))
    return np.stack(frames), np.array(boxes, dtype=np.float64)


def jpeg(frame: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert ok
    return data.tobytes()


def write_frames(folder: pathlib.Path, frames: np.ndarray, pattern: str, first: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        (folder / pattern.format(i + first)).write_bytes(jpeg(frame))


def table(boxes: np.ndarray, separator: str = ",", origin: int = 0) -> str:
    shift = np.array([origin, origin, 0, 0])
    return "".join(separator.join(f"{v:g}" for v in row + shift) + "\n" for row in boxes)


def write_otb(root: pathlib.Path, names=("Skiing", "Boy"), count: int = 5, separator=",") -> None:
    for seed, name in enumerate(names):
        frames, boxes = clip(seed, count)
        write_frames(root / name / "img", frames, "{:04d}.jpg")
        (root / name / "groundtruth_rect.txt").write_text(table(boxes, separator, 1))


def write_got10k(root: pathlib.Path, split: str = "train", numbers=(1, 2, 4), count=5) -> None:
    names = []
    for number in numbers:
        name = f"GOT-10k_{split.capitalize()}_{number:06d}"
        names.append(name)
        frames, boxes = clip(number, count)
        video = root / split / name
        write_frames(video, frames, "{:08d}.jpg")
        if split == "test":
            (video / "groundtruth.txt").write_text(table(boxes[:1], ",", 1))
            continue
        boxes[-1] = (-2, -2, -1, -1)  # absent: -1 in every column once 1 is added
        (video / "groundtruth.txt").write_text(
            table(boxes[:-1], ",", 1) + "-1.0000,-1.0000,-1.0000,-1.0000\n"
        )
        (video / "absence.label").write_text("0\n" * (count - 1) + "1\n")
        (video / "cover.label").write_text("8\n4\n" + "8\n" * (count - 3) + "0\n")
        (video / "meta_info.ini").write_text("[METAINFO]\nurl: x\nobject_class: dog 100%\n")
    (root / split / "list.txt").write_text("\n".join(names) + "\n")


def write_lasot(root: pathlib.Path, names=("airplane-1", "airplane-2"), flat=False) -> None:
    for seed, name in enumerate(names):
        video = root / name if flat else root / name.rsplit("-", 1)[0] / name
        frames, boxes = clip(seed, 4)
        write_frames(video / "img", frames, "{:08d}.jpg")
        (video / "groundtruth.txt").write_text(table(boxes, ",", 1))
        (video / "full_occlusion.txt").write_text("0,0,1,0")
        (video / "out_of_view.txt").write_text("0,0,0,1")


def write_trackingnet(root: pathlib.Path, part: str = "TRAIN_0", zipped: bool = False) -> None:
    frames, boxes = clip(3, 12)
    (root / part / "anno").mkdir(parents=True, exist_ok=True)
    (root / part / "anno" / "abc_0.txt").write_text(table(boxes + 0.25))
    if zipped:
        (root / part / "zips").mkdir(exist_ok=True)
        with zipfile.ZipFile(root / part / "zips" / "abc_0.zip", "w") as z:
            for i, frame in enumerate(frames):
                z.writestr(f"{i}.jpg", jpeg(frame))
    else:
        write_frames(root / part / "frames" / "abc_0", frames, "{}.jpg", 0)


def _xml(objects) -> str:
    items = "".join(
        f"<object><trackid>{t}</trackid><bndbox><xmax>{x + w}</xmax><xmin>{x}</xmin>"
        f"<ymax>{y + h}</ymax><ymin>{y}</ymin></bndbox></object>"
        for t, (x, y, w, h) in objects
    )
    return f"<annotation><filename>f</filename>{items}</annotation>"


def write_vid(root: pathlib.Path) -> None:
    part = "VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
    frames, boxes = clip(1, 4)
    write_frames(root / "Data" / part, frames, "{:06d}.JPEG", 0)
    notes = root / "Annotations" / part
    notes.mkdir(parents=True)
    for i in range(4):  # track 1 is there from frame 2 on only
        objects = [(0, boxes[i])] + ([(1, boxes[0])] if i >= 2 else [])
        (notes / f"{i:06d}.xml").write_text(_xml(objects))


def write_det(root: pathlib.Path) -> None:
    part = "DET/train/ILSVRC2014_train_0000"
    frames, boxes = clip(2, 2)
    write_frames(root / "Data" / part, frames, "n{:08d}.JPEG", 0)
    notes = root / "Annotations" / part
    notes.mkdir(parents=True)
    for i in range(2):
        objects = "".join(
            f"<object><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax>"
            f"<ymax>{y + h}</ymax></bndbox></object>"
            for x, y, w, h in (boxes[i], boxes[1 - i])[: i + 1]
        )
        (notes / f"n{i:08d}.xml").write_text(f"<annotation>{objects}</annotation>")


def write_coco(root: pathlib.Path) -> None:
    frames, boxes = clip(4, 2)
    write_frames(root / "train2017", frames, "{:012d}.jpg", 9)
    (root / "annotations").mkdir()
    annotations = [
        {"id": 7, "image_id": 10, "category_id": 1, "bbox": list(boxes[1]), "iscrowd": 0},
        {"id": 5, "image_id": 9, "category_id": 1, "bbox": list(boxes[0]), "iscrowd": 0},
        {"id": 6, "image_id": 9, "category_id": 1, "bbox": [1, 1, 30, 30], "iscrowd": 1},
        {"id": 8, "image_id": 9, "category_id": 1, "bbox": [1, 1, 1.5, 30], "iscrowd": 0},
    ]
    images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in (9, 10)]
    (root / "annotations" / "instances_train2017.json").write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "cat"}],
            }
        )
    )


def write_youtubebb(root: pathlib.Path) -> None:
    frames, _ = clip(5, 3, 511, 511)
    folder = root / "crop511" / "yt_bb_detection_train/0/abc"
    write_frames(folder, frames, "{:06d}.00.x.jpg")
    regions = {f"{i + 1:06d}": [10, 10, 50, 30] for i in range(3)}
    regions["000004"] = [10, 10, 10, 30]  # no area: dropped
    (root / "train.json").write_text(json.dumps({"yt_bb_detection_train/0/abc": {"00": regions}}))


def write_uav(root: pathlib.Path) -> None:
    frames, boxes = clip(6, 780)
    folder = root / "data_seq" / "UAV123" / "bird1"
    write_frames(folder, frames[:1], "{:06d}.jpg")
    for i in range(2, 781):  # the pixels of most do not matter
        shutil.copyfile(folder / "000001.jpg", folder / f"{i:06d}.jpg")
    notes = root / "anno" / "UAV123"
    notes.mkdir(parents=True)
    (notes / "bird1_1.txt").write_text(table(boxes[:3], ",", 1))
    (notes / "bird1_2.txt").write_text("NaN,NaN,NaN,NaN\n" + table(boxes[775:778], ",", 1))


def write_nfs(root: pathlib.Path) -> None:
    frames, boxes = clip(7, 3)
    for rate, step in (("30", 8), ("240", 1)):
        count = 3 if rate == "30" else 17
        base = root / "airboard_1" / rate
        write_frames(base / "airboard_1", np.repeat(frames, 8, axis=0)[:17:step], "{:05d}.jpg")
        rows = []
        for i in range(17):
            x, y, w, h = boxes[i // 8]
            rows.append(f'0 {x:g} {y:g} {x + w:g} {y + h:g} {i} {int(i == 16)} 0 0 "ball"\n')
        (base / "airboard_1.txt").write_text("".join(rows))
        assert len(list((base / "airboard_1").iterdir())) == count


def write_vot(root: pathlib.Path) -> None:
    frames, boxes = clip(8, 4)
    write_frames(root / "ants1" / "color", frames, "{:08d}.jpg")
    x, y, w, h = boxes.T
    polygon = np.stack([x, y, x + w - 1, y, x + w - 1, y + h - 1, x, y + h - 1], axis=1)
    (root / "ants1" / "groundtruth.txt").write_text(
        "".join(",".join(f"{v:.3f}" for v in row) + "\n" for row in polygon)
    )
    (root / "ants1" / "occlusion.tag").write_text("0\n1\n")
    write_frames(root / "conduction1", frames, "{:08d}.jpg")
    (root / "conduction1" / "groundtruth.txt").write_text(table(boxes))
    (root / "list.txt").write_text("ants1\nconduction1\n")


def write_tc128(root: pathlib.Path) -> None:
    frames, boxes = clip(9, 5)
    write_frames(root / "Ball_ce2" / "img", frames, "{:04d}.jpg")
    (root / "Ball_ce2" / "Ball_ce2_gt.txt").write_text(table(boxes[1:4], ",", 1))
    (root / "Ball_ce2" / "Ball_ce2_frames.txt").write_text("2,4\n")
    (root / "Ball_ce2" / "Ball_ce2_att.txt").write_text("OCC, FM\n")


def write_custom(root: pathlib.Path, with_clip: bool = True) -> None:
    frames, boxes = clip(10, 4)
    write_frames(root / "cat", frames, "{}.png", 9)
    (root / "cat.txt").write_text(table(boxes[:2]) + "absent\n" + table(boxes[3:], " "))
    (root / "cat.2.txt").write_text(table(boxes + 1))
    if with_clip:
        writer = cv2.VideoWriter(
            str(root / "dog.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT)
        )
        for frame in frames:
            writer.write(frame[..., ::-1])
        writer.release()
        (root / "dog.txt").write_text(table(boxes) + "\n\n")


def temporary(name: str) -> pathlib.Path:
    """A folder that lasts as long as the process."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"jaxtrack-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def build(dataset: str, source: pathlib.Path, output: pathlib.Path, **options) -> pathlib.Path:
    """Builds in this process and gives the dataset's folder."""
    from jaxtrack.data import builders

    builder = builders.builder(dataset)(source=source, data_dir=str(output), **options)
    builder.download_and_prepare(download_dir=str(builder.stage))
    return pathlib.Path(builder.data_dir)


@functools.cache
def built() -> pathlib.Path:
    """One folder with three builds: got10k and coco as frames, otb as crops."""
    source, output = temporary("source"), temporary("built")
    write_got10k(source / "got10k", numbers=range(1, 8), count=8)
    write_coco_like(source / "coco")
    write_otb(source / "otb", ("Boy", "Car1", "Deer"), 6)
    build("got10k", source / "got10k", output, frames_per_part=20)
    build("coco", source / "coco", output)
    build("otb", source / "otb", output, crop=128)
    return output


def write_coco_like(root: pathlib.Path) -> None:
    root.mkdir(parents=True)
    write_coco(root)
