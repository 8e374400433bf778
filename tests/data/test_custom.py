"""A user's own videos: names, separators, absence, sparse boxes, and what is told when it is wrong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from jaxtrack.data import layouts
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError
from tests import data_fixtures as fx
from tests.data.test_prepare import last_line, run


def folder(root, name, count=3, pattern="{}.jpg"):
    fx.write_frames(root / name, fx.clip(1, count)[0], pattern)


def message(root) -> str:
    with pytest.raises(JaxtrackError) as caught:
        layouts.read_layout("custom", root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "boxes", "sparse"),
    [
        ("absent\n1,2,3,4\nabsent,\n", [None, [1, 2, 3, 4], None], False),
        ("10,20,30,40,absent\n1 2 3 4\n5;6;7;8;\n", [None, [1, 2, 3, 4], [5, 6, 7, 8]], False),
        ("1,absent\n2,1,2,3,4,absent\n3,5,6,7,8\n", [None, None, [5, 6, 7, 8]], True),
    ],
)
def test_absence_may_stand_alone_or_behind_a_box(tmp_path, text, boxes, sparse):
    folder(tmp_path, "cam")
    (tmp_path / "cam.txt").write_text(text)
    [record] = layouts.read_layout("custom", tmp_path)
    assert record.sparse == sparse
    assert record.absent.tolist() == [box is None for box in boxes]
    for box, found in zip(boxes, record.boxes):
        if box is not None:
            np.testing.assert_array_equal(found, box)


def test_videos_in_a_folder_below_are_told(tmp_path):
    fx.write_custom(tmp_path / "inner")
    fx.write_custom(tmp_path, with_clip=False)
    assert f"{tmp_path}/inner holds videos of its own, which are not read" in message(tmp_path)
    problems: list[JaxtrackError] = []
    found = layouts.read_layout("custom", tmp_path, on_problem=problems.append)
    assert len(found) == 2
    assert len(problems) == 1
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/cat.txt").write_text("no video")  # nothing that looks like a target
    layouts.read_layout("custom", tmp_path, on_problem=problems.append)
    assert len(problems) == 2


def test_a_name_with_a_dot_is_a_video_of_its_own(tmp_path):
    for name in ("cam", "cam.2", "cam.2.1"):
        folder(tmp_path, name)
        (tmp_path / f"{name}.txt").write_text("10,20,20,20\n" * 3)
    (tmp_path / "cam.2.2.txt").write_text("30,20,20,20\n" * 3)
    records = layouts.read_layout("custom", tmp_path)
    assert [(r.name, r.video) for r in records] == [
        ("cam", "cam"),
        ("cam.2", "cam.2"),
        ("cam.2.2", "cam.2"),
        ("cam.2.1", "cam.2.1"),
    ]


@pytest.mark.parametrize("suffix", ["bmp", "webp", "tif", "ppm", "JPG"])
def test_images_of_any_kind_that_track_reads(tmp_path, suffix):
    (tmp_path / "car" / "img").mkdir(parents=True)
    for i, frame in enumerate(fx.clip(1, 2)[0]):
        assert cv2.imwrite(str(tmp_path / f"car/img/{i}.{suffix}"), frame)
    (tmp_path / "car.txt").write_text("10 20 20 20\n" * 2)
    assert len(layouts.read_layout("custom", tmp_path)[0].frames) == 2


def test_signs_that_are_no_digits(tmp_path):
    for name in ("\u2460", "\u00b2", "\u0663"):
        folder(tmp_path, name)
        (tmp_path / f"{name}.txt").write_text("10,20,20,20\n" * 3)
    assert len(layouts.read_layout("custom", tmp_path)) == 3


def test_sparse_boxes(tmp_path):
    folder(tmp_path, "cat", 12, "{:04d}.jpg")  # 0001 to 0012
    (tmp_path / "cat.txt").write_text("1,10,20,20,20\n6,12,20,20,20\n9,absent\n11,14,20,20,20\n")
    record = layouts.read_layout("custom", tmp_path)[0]
    assert record.sparse
    assert len(record) == len(record.frames) == 12
    assert np.flatnonzero(record.usable).tolist() == [0, 5, 10]
    assert np.flatnonzero(record.absent).tolist() == [8]
    assert np.flatnonzero(record.annotated).tolist() == [0, 5, 8, 10]
    assert record.boxes[5].tolist() == [12, 20, 20, 20]
    source = FrameSource(fx.build("custom", tmp_path, tmp_path.parent / "out"))
    stored = source.rows_record[source.rows_of(0)]
    assert np.flatnonzero(stored >= 0).tolist() == [0, 5, 8, 10]  # the others are not stored
    (tmp_path / "cat.txt").write_text("0,10,20,20,20\n6,12,20,20,20\n")
    assert "has a box of frame 0, but the frames" in message(tmp_path)
    (tmp_path / "cat.txt").write_text("6,10,20,20,20\n1,12,20,20,20\n")
    assert "line 2: lines of five numbers are frame,x,y,w,h" in message(tmp_path)


def test_sparse_boxes_of_a_clip_count_from_0(tmp_path):
    fx.write_custom(tmp_path)
    (tmp_path / "dog.txt").write_text("0;10;20;20;20\n3;12;20;20;20\n")
    records = {r.name: r for r in layouts.read_layout("custom", tmp_path)}
    assert np.flatnonzero(records["dog"].usable).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,y,w,h\n1,1,9,9\n", "is a header"),
        ("1,1,9,9\n\n1,1,9,9\n", "line 2"),
        ("1,1,9,9\n1,1,-5,9\n", "line 2: the size -5 x 9 is negative"),
        ("1,1,9,9\n1,1,inf,9\n", "line 2"),
        ("10,0;10,0;20,0;20,0\n" * 3, "line 1"),
        ("1,1,9,9,0.8\n1,1,9,9,0.8\n", "frame,x,y,w,h"),
        ("\n\n", "is empty"),
        ("absent\nabsent\nabsent\n", "no usable box"),
        ("1,1,9,9\n1,1,9,9\n", "3 frames in"),
    ],
)
def test_texts_that_are_no_boxes(tmp_path, text, expected):
    folder(tmp_path, "cat")
    (tmp_path / "cat.txt").write_text(text)
    assert expected in message(tmp_path)


def test_texts_as_other_programs_write_them(tmp_path):
    folder(tmp_path, "cat")
    for data in (
        ("\ufeff" + "1,1,10,10\r\n" * 3).encode("utf-16-le"),
        b"\xef\xbb\xbf" + b"1\t1\t10\t10\r\n" * 3,
        b"1, 1, 10, 10\nABSENT\n-1,-1,-1,-1\n\n\n",
    ):
        (tmp_path / "cat.txt").write_bytes(data)
        record = layouts.read_layout("custom", tmp_path)[0]
        assert record.boxes[0].tolist() == [1, 1, 10, 10]
    assert record.absent.tolist() == [False, True, True]


def test_a_check_lists_all_problems(tmp_path, capsys):
    root = tmp_path / "mine"
    root.mkdir()
    for name in ("good", "short", "far"):
        folder(root, name)
        (root / f"{name}.txt").write_text("10,20,20,20\n" * 3)
    folder(root, "bare")
    (root / "short.txt").write_text("10,20,20,20\n")
    (root / "far.txt").write_text("10,20,20,20\n5000,20,20,20\n10,20,20,2000\n")
    (root / "lost.txt").write_text("10,20,20,20\n")
    (root / "README.txt").write_text("my videos")
    (root / "clip.mp4").mkdir()
    (root / "good" / "2.jpg").write_bytes(b"no image")
    status, out, err = run(capsys, "custom", "--source", root, "--check", "--workers", 1)
    assert status == 1
    assert "7 problems" in last_line(err)
    for words in (
        "lost.txt belongs to no video",
        "clip.mp4 is a folder without images",
        "custom bare: no ",
        "custom short: 3 frames",
        "far: the box of frame 1, 5000, 20, 20, 20, is far outside of its 96x72 pixels",
        "far: the box of frame 2",
        "good/2.jpg",
    ):
        assert out.count(words) == 1, words
    build = ("custom", "--source", root, "--output", tmp_path / "out", "--workers", 0)
    status, _, err = run(capsys, *build)
    assert status == 1
    assert "(and 3 more problems: --check lists them)" in last_line(err)
    # What was asked for is built, whatever the others are; a box far outside is left out and told.
    status, out, err = run(capsys, *build, "--only", "far", "--max-bad", "0.9")
    assert status == 0, err
    assert "2 frames left out: a box far outside" in out


def test_a_build_knows_what_it_was_made_from(tmp_path, capsys):
    root = tmp_path / "mine"
    root.mkdir()
    folder(root, "cat")
    (root / "cat.txt").write_text("10,20,20,20\n" * 3)
    build = ("custom", "--source", root, "--output", tmp_path / "out", "--workers", 0)
    assert run(capsys, *build)[0] == 0
    moved = tmp_path / "elsewhere"
    root.rename(moved)
    status, out, _ = run(capsys, *build[:2], moved, *build[3:])
    assert status == 0
    assert "already built" in out
    (moved / "cat.txt").write_text("11,20,20,20\n" * 3)
    status, _, err = run(capsys, *build[:2], moved, *build[3:])
    assert status == 1
    assert "was built from other annotations or frames" in last_line(err)
