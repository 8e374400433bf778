"""Builds: what is stored, what is left out, resuming, being killed, a full disk."""

from __future__ import annotations

import pathlib
import re
import sys

import cv2
import numpy as np
import pytest

from jaxtrack.data import frames as frame_io
from jaxtrack.data import prepare
from jaxtrack.data.builders import parts
from jaxtrack.data.source import FrameSource, find_built
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.patch import context_side
from tests import data_fixtures as fx


def run(capsys, *argv) -> tuple[int, str, str]:
    status = prepare.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def same_build(one: pathlib.Path, two: pathlib.Path) -> None:
    """The same index to the byte, and equal records (protobuf orders their fields as it likes)."""
    for path in (one / "index").iterdir():
        assert path.read_bytes() == (two / "index" / path.name).read_bytes(), path.name
    first, second = FrameSource(one), FrameSource(two)
    for number in range(first.num_records):
        a, b = first.record(number), second.record(number)
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_frames_and_index_of_a_build():
    source = FrameSource(fx.built() / "got10k")
    assert (source.name, source.split, source.crop) == ("got10k", "train", 0)
    assert (source.num_videos, source.num_targets, source.num_records) == (7, 7, 56)
    assert source.names["targets"][2] == "GOT-10k_Train_000003"
    frames, boxes = fx.clip(3, 8)
    rows = source.rows_of(2)
    np.testing.assert_array_equal(source.rows_box[rows][:-1], boxes[:-1].astype(np.float32))
    assert source.rows_absent[rows].tolist() == [False] * 7 + [True]
    assert source.rows_visibility[rows][1] == 0.5
    record = source.record(int(source.rows_record[rows][5]))
    assert record["frame"] == 5
    assert source.describe(record) == (
        "got10k: video GOT-10k_Train_000003, frame 5 (train/GOT-10k_Train_000003/00000006.jpg)"
    )
    # The stored bytes are the delivered ones, not encoded again.
    assert record["image"] == fx.jpeg(frames[5])
    assert tuple(source.sizes[0]) == (fx.HEIGHT, fx.WIDTH)
    summary = source.summary
    assert (summary["frames"], summary["boxes"], summary["absent"]) == (56, 49, 7)
    assert summary["skipped"] == {}


def test_tfds_itself_reads_the_build():
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(find_built(fx.built() / "got10k")))
    examples = builder.as_data_source(split="train")
    assert len(examples) == 56
    # More than one shard, in the order of the layout.
    assert len(builder.info.splits["train"].shard_lengths) == 3
    example = examples[30]
    assert example["image"].shape == (fx.HEIGHT, fx.WIDTH, 3)
    assert (example["video"], example["frame"]) == (b"GOT-10k_Train_000004", 6)
    np.testing.assert_array_equal(example["boxes"][0], fx.clip(4, 8)[1][6])
    assert len(builder.as_data_source(split="train[:50%]")) == 28
    assert "tensorflow" not in sys.modules


def test_an_image_with_two_targets_is_stored_once(tmp_path):
    fx.write_vid(tmp_path / "vid")
    source = FrameSource(fx.build("vid", tmp_path / "vid", tmp_path / "out"))
    assert (source.num_videos, source.num_targets, source.num_records) == (1, 2, 4)
    assert source.rows_record[source.rows_of(0)].tolist() == [0, 1, 2, 3]
    assert source.rows_record[source.rows_of(1)].tolist() == [2, 3]
    record = source.record(3)
    assert len(record["boxes"]) == len(record["targets"]) == 2


def test_crops_hold_the_target_at_their_centre():
    source = FrameSource(fx.built() / "otb")
    assert source.crop == 128
    frames, boxes = fx.clip(1, 6)
    rows = source.rows_of(1)
    box = source.rows_box[rows][2]
    np.testing.assert_allclose(box[:2] + box[2:] / 2, 64, atol=1e-4)
    window = context_side(*boxes[2, 2:]) * 128 / 127
    np.testing.assert_allclose(box[2:], boxes[2, 2:] * 128 / window, rtol=1e-5)
    image = frame_io.decode(source.record(int(source.rows_record[rows][2]))["image"], "crop")
    # Straight from the frame: the crop's middle shows the target's middle, magnified.
    x, y, w, h = boxes[2].astype(int)
    inside = image[64 - 8 : 64 + 8, 64 - 8 : 64 + 8].mean(axis=(0, 1))
    around = 8 * window / 128
    cx, cy = x + w / 2, y + h / 2
    patch = frames[2][
        round(cy - around) : round(cy + around), round(cx - around) : round(cx + around)
    ]
    assert np.abs(inside - patch.mean(axis=(0, 1))).max() < 12


def test_clips_are_stored_as_frames(tmp_path):
    _made(tmp_path / "c")
    fx.write_custom(tmp_path / "c")
    source = FrameSource(fx.build("custom", tmp_path / "c", tmp_path / "out"))
    assert source.names["targets"] == ["cat", "cat.2", "dog"]
    record = source.record(int(source.rows_record[source.rows_of(2)][3]))
    image = frame_io.decode(record["image"], "frame")
    assert np.abs(image.astype(int) - fx.clip(10, 4)[0][3]).mean() < 15


def test_command_line_builds_and_checks(tmp_path, capsys):
    fx.write_otb(tmp_path / "otb")
    build = ("otb", "--source", tmp_path / "otb", "--output", tmp_path / "out", "--workers", 0)
    status, out, err = run(capsys, *build)
    assert status == 0, err
    assert "2 videos, 2 targets, 10 frames" in out
    assert "10 boxes, 0 absent" in out
    assert "10/10" in err  # the bar
    assert not list((tmp_path / "out").rglob("*.parts"))
    status, out, _ = run(capsys, *build)
    assert status == 0
    assert "already built" in out
    status, _, err = run(capsys, *build, "--only", "Boy")
    assert status == 1
    assert "another choice of videos" in last_line(err)
    status, out, _ = run(capsys, "otb", "--output", tmp_path / "out", "--check")
    assert status == 0
    assert "10 frames decoded" in out
    status, out, _ = run(capsys, "otb", "--source", tmp_path / "otb", "--check", "--workers", 1)
    assert status == 0
    assert "10 frames decoded" in out


def test_usage_errors(tmp_path, capsys):
    for argv, expected in (
        (("otb", "--sauce", "x"), "--sauce"),
        (("otb",), "--source and --output are both needed"),
        (("otb", "--check"), "--check needs --source"),
        (("ootb",), "nearest: otb"),
        (("otb", "--split", "tset"), "nearest: test"),
        (("otb", "--crop", "3"), "--crop 3: a side from 64"),
        (("otb", "--max-bad", "2"), "give from 0 to 1"),
        (("otb", "--workers", "-1"), "give from 0 to 1024"),
    ):
        status, _, err = run(capsys, *argv)
        assert status == 2
        assert expected in last_line(err)
        assert last_line(err).startswith("error: ")
    for argv, expected in (
        (("otb", "--source", tmp_path / "no", "--output", tmp_path), "no folder"),
        (("otb", "--check", "--output", tmp_path / "no"), "no folder"),
        (("otb", "--check", "--output", tmp_path), "no folder"),
    ):
        status, _, err = run(capsys, *argv)
        assert status == 1
        assert expected in last_line(err)


def test_lists_of_videos(tmp_path, capsys):
    fx.write_got10k(tmp_path / "g")
    build = ("got10k", "--source", tmp_path / "g", "--output", tmp_path / "out", "--workers", 0)
    (tmp_path / "list.txt").write_text("0\n3\n")  # numbers from 0
    status, _, err = run(capsys, *build, "--list", tmp_path / "list.txt")
    assert status == 0, err
    source = FrameSource(tmp_path / "out")
    assert [n[-6:] for n in source.names["targets"]] == ["000001", "000004"]
    (tmp_path / "list.txt").write_text("GOT-10k_Train_000002\nGOT-10k_Train_000009\n")
    status, _, err = run(capsys, *build, "--list", tmp_path / "list.txt", "--check")
    assert status == 1
    assert "1 of 2 videos are missing: GOT-10k_Train_000009" in last_line(err)
    (tmp_path / "list.txt").write_text("\n")
    status, _, err = run(capsys, *build, "--list", tmp_path / "list.txt")
    assert "list.txt is empty" in last_line(err)
    (tmp_path / "list.txt").write_text("1\n")
    status, _, err = run(capsys, "otb", *build[1:], "--list", tmp_path / "list.txt")
    assert "otb needs the names" in last_line(err)


def _truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", ["truncated", "text", "missing"])
def test_a_bad_frame_stops_the_build_or_is_left_out(tmp_path, capsys, damage):
    fx.write_otb(tmp_path / "otb", ("Boy",))
    bad = tmp_path / "otb" / "Boy" / "img" / "0003.jpg"
    if damage == "truncated":
        _truncate(bad)
        reason = "truncated"
    elif damage == "text":
        bad.write_bytes(b"<html>404</html>")
        reason = "no image"
    else:  # a link that leads nowhere: the file is listed but cannot be had
        bad.unlink()
        bad.symlink_to("nowhere.jpg")
        reason = "no such file"
    build = ("otb", "--source", tmp_path / "otb", "--output", tmp_path / "out", "--workers", 0)
    status, _, err = run(capsys, *build)
    assert status == 1
    line = last_line(err)
    assert "otb: 1 of 5 frames cannot be stored" in line
    assert "otb: video Boy, frame 2 (Boy/img/0003.jpg)" in line
    assert reason in line
    with pytest.raises(JaxtrackError, match="not finished"):
        find_built(tmp_path / "out")
    status, out, _ = run(capsys, "otb", "--check", "--source", tmp_path / "otb", "--workers", 1)
    assert status == 1
    assert reason in out

    status, out, err = run(capsys, *build, "--max-bad", 0.5)
    assert status == 0, err
    assert f"1 frames left out: {reason}" in out
    source = FrameSource(tmp_path / "out")
    assert source.rows_record[:].tolist() == [0, 1, -1, 2, 3]

    # Repaired, and built anew: the frame is there.
    bad.unlink()
    bad.write_bytes(fx.jpeg(fx.clip(0, 5)[0][2]))
    assert FrameSource(fx.build("otb", tmp_path / "otb", tmp_path / "new")).num_records == 5


def test_check_finds_columns_that_are_corners(tmp_path, capsys):
    frames, boxes = fx.clip(1, 5)
    fx.write_frames(tmp_path / "c" / "cat", frames, "{}.jpg")
    corners = boxes.copy()
    corners[:, 2:] = [fx.WIDTH - 3, fx.HEIGHT - 3]
    (tmp_path / "c" / "cat.txt").write_text(fx.table(corners))
    status, out, _ = run(capsys, "custom", "--source", tmp_path / "c", "--check", "--workers", 1)
    assert status == 0
    assert "note: 5 of 5 boxes reach out of their frames" in out
    for _ in range(2):  # built, already built
        status, out, _ = run(
            capsys, "custom", "--source", tmp_path / "c", "--output", tmp_path / "o"
        )
        assert status == 0
        assert "note: 5 of 5 boxes reach out of their frames" in out


def test_shares_of_the_frame_are_no_pixels(tmp_path, capsys):
    frames, boxes = fx.clip(1, 5)
    fx.write_frames(tmp_path / "cat", frames, "{}.jpg")
    (tmp_path / "cat.txt").write_text(fx.table(boxes / ([fx.WIDTH, fx.HEIGHT] * 2)))
    status, _, err = run(capsys, "custom", "--source", tmp_path, "--check", "--workers", 1)
    assert status == 1
    assert "cat.txt lie between 0 and 1: pixels are wanted" in err
    with pytest.raises(JaxtrackError, match="lie between 0 and 1"):
        fx.build("custom", tmp_path, tmp_path / "out")


def test_a_damaged_build_is_noticed(tmp_path, capsys):
    fx.write_otb(tmp_path / "otb", ("Boy",))
    folder = fx.build("otb", tmp_path / "otb", tmp_path / "out")
    (folder / "index" / "sizes.npy").write_bytes(b"")
    with pytest.raises(JaxtrackError, match="is damaged"):
        FrameSource(folder)
    (folder / "summary.json").unlink()
    status, _, err = run(capsys, "otb", "--output", tmp_path / "out", "--check")
    assert status == 1
    assert "is damaged" in last_line(err)


@pytest.mark.parametrize("place", ["middle", "footer"])
def test_a_shard_that_rotted_is_named_wherever_it_did(place, tmp_path, capsys):
    fx.write_otb(tmp_path / "otb", ("Boy", "Deer"), count=20)
    folder = fx.build("otb", tmp_path / "otb", tmp_path / "out")
    [shard] = folder.glob("*.array_record*")
    content = bytearray(shard.read_bytes())
    last = (len(content) - 1) // 65536 * 65536  # the block that says where the records are
    content[20_000 if place == "middle" else last + 8] ^= 255
    shard.write_bytes(content)
    status, out, _ = run(capsys, "otb", "--output", tmp_path / "out", "--check")
    assert status == 1
    assert shard.name in out
    source = FrameSource(folder)
    with pytest.raises(JaxtrackError, match=re.escape(str(folder))):
        list(map(source.image, range(source.num_records)))


def test_part_sizes_grow():
    few = [_record(f"v{i}", 400) for i in range(10)]
    assert [sum(len(r) for r in part) for part in parts.plan(few)] == [1200, 1200, 1200, 400]
    many = [_record(f"v{i}", 1) for i in range(3 * 256 + 10)]
    sizes = [len(part) for part in parts.plan(many, 1)]
    assert sizes == [1] * 256 + [2] * 256 + [4, 4, 2]


def _record(name, count):
    from jaxtrack.data.record import VideoRecord

    return VideoRecord(
        name,
        tuple(f"{name}/{i}" for i in range(count)),
        np.zeros((count, 4)),
        np.zeros(count, bool),
    )


def _made(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    return path


def test_opencv_is_what_decodes():
    frame = fx.clip(0, 1)[0][0]
    assert np.abs(frame_io.decode(fx.jpeg(frame), "x").astype(int) - frame).mean() < 6
    ok, png = cv2.imencode(".png", frame[..., ::-1])
    assert ok
    np.testing.assert_array_equal(frame_io.decode(png.tobytes(), "x"), frame)
    half = frame_io.decode(fx.jpeg(frame), "x", 2)
    assert half.shape == (fx.HEIGHT // 2, fx.WIDTH // 2, 3)


def _marked(frame: np.ndarray, orientation: int) -> bytes:
    """A photograph whose notes say how to turn it."""
    data = fx.jpeg(frame)
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2, "big") + b"\x00\x00"
    note = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    return data[:2] + b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note + data[2:]


@pytest.mark.parametrize("orientation", [3, 6])
def test_boxes_refer_to_stored_pixels_whatever_a_photograph_says(tmp_path, orientation):
    frame = fx.clip(4, 1)[0][0]
    marked = _marked(frame, orientation)
    stored = frame_io.decode(fx.jpeg(frame), "stored")
    size = stored.shape[:2]
    for known in (None, size):
        data, pixels = frame_io.as_annotated(marked, "x", known)
        np.testing.assert_array_equal(pixels, stored)
        seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # turns by the mark
        np.testing.assert_array_equal(seen[..., ::-1], stored)
    with pytest.raises(frame_io.FrameError, match="another size: x has 96x72 pixels"):
        frame_io.as_annotated(marked, "x", (10, 20))
    if orientation == 6:  # annotated on the image as it is shown
        data, pixels = frame_io.as_annotated(marked, "x", size[::-1])
        assert pixels.shape[:2] == size[::-1]
        assert np.abs(pixels.astype(int) - np.rot90(stored, -1)).mean() < 3
        assert frame_io.decode(data, "x").shape == pixels.shape


def test_frames_that_would_fill_the_memory_or_never_end(tmp_path, capsys):
    fx.write_otb(tmp_path / "otb", ("Boy",))
    images = tmp_path / "otb/Boy/img"
    bomb = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    (images / "0002.jpg").write_bytes(bomb[:16] + b"\x00\x00\x4e\x20" * 2 + bomb[24:])
    with open(images / "0003.jpg", "wb") as f:
        f.truncate(1 << 32)  # sparse: no room on the disk
    (images / "0004.jpg").unlink()
    (images / "0004.jpg").symlink_to("0004.jpg")
    status, out, err = run(capsys, "otb", "--source", tmp_path / "otb", "--check", "--workers", 1)
    assert status == 1
    assert "3 problems" in last_line(err)
    assert "20000x20000 pixels are declared" in out
    assert "4,294,967,296 bytes" in out
    assert "0004.jpg" in out
