"""Images, videos and boxes: what is written is read, and what is wrong is named."""

from __future__ import annotations

import os
import pathlib
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.io import boxes as sequences
from jaxtrack.io import images, video, writer
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.prefetch import on_demand, prefetch, waited


def picture(index: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture with an orange square (so that RGB and BGR differ) that moves with the index."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 2, columns * 2, 128 + 0 * rows], -1).astype(np.uint8)
    image[8:20, 4 + index : 16 + index] = (250, 120, 10)
    return image


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Twelve frames, 0.png to 11.png."""
    for i in range(12):
        images.write_image(tmp_path / f"{i}.png", picture(i))
    (tmp_path / "groundtruth_rect.txt").write_text("1,2,3,4\n")
    return tmp_path


def make_video(path: pathlib.Path, count: int = 20) -> pathlib.Path:
    with writer.VideoWriter(path, (48, 64), 30.0) as out:
        for i in range(count):
            out.write(picture(i))
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_images_there_and_back(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    images.write_image(path, picture())
    read = images.read_image(path)
    assert read.dtype == np.uint8
    difference = np.abs(read.astype(int) - picture())
    assert difference.mean() <= (3 if suffix == ".jpg" else 0)


def test_grey_and_transparent_images_become_rgb(tmp_path: pathlib.Path) -> None:
    grey = picture()[..., 1]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(
        images.read_image(tmp_path / "grey.png"), grey[..., None].repeat(3, -1)
    )
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([picture()[..., ::-1], grey]))
    np.testing.assert_array_equal(images.read_image(tmp_path / "alpha.png"), picture())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_damaged_images_are_named(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    images.write_image(path, picture())
    data = path.read_bytes()
    for part in (data[: len(data) // 2], data[:20], b"", b"no image at all"):
        path.write_bytes(part)
        with pytest.raises(JaxtrackError, match=f"a{suffix}: ") as caught:
            images.read_image(path)
        assert "\n" not in str(caught.value)


def test_jpeg_with_a_thumbnail_is_told_from_a_truncated_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.jpg"
    images.write_image(path, picture())
    data = path.read_bytes()
    # An application segment with a whole JPEG inside, as cameras write it.
    segment = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    whole = data[:2] + segment + data[2:]
    path.write_bytes(whole)
    assert images.read_image(path).shape == (48, 64, 3)
    path.write_bytes(whole[:-40])
    with pytest.raises(JaxtrackError, match=r"a\.jpg: truncated image"):
        images.read_image(path)


def test_pointers_of_git_are_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "a.mp4", tmp_path / "a" / "0.jpg"):
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\n")
    for source in (tmp_path / "a.mp4", tmp_path / "a"):
        with pytest.raises(JaxtrackError, match="a Git LFS pointer, not the file itself: run"):
            video.open_source(source)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_images_of_other_pixels_are_told(tmp_path: pathlib.Path, dtype: Any) -> None:
    path = tmp_path / "a.tiff"
    assert cv2.imwrite(str(path), picture().astype(dtype))
    with pytest.raises(JaxtrackError, match=rf"a\.tiff: its pixels are {np.dtype(dtype)}; save it"):
        images.read_image(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(JaxtrackError, match=r"a\.tiff: damaged, truncated or no image"):
        images.read_image(path)


def test_missing_and_unknown_images(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JaxtrackError, match=r"none\.png: no such file"):
        images.read_image(tmp_path / "none.png")
    with pytest.raises(JaxtrackError, match="unknown image format; known suffixes"):
        images.write_image(tmp_path / "a.xyz", picture())
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(JaxtrackError, match="cannot be written"):
        images.write_image(tmp_path / "file" / "a.png", picture())


def test_folder_in_natural_order(folder: pathlib.Path) -> None:
    source = video.open_source(folder)
    assert (source.size, source.length, source.fps, source.live) == ((48, 64), 12, None, False)
    for _ in range(2):  # a source can be iterated over again
        frames = list(source)
        assert len(frames) == 12
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame, picture(i))


def test_sequence_folder_and_glob(
    folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sequence = tmp_path_factory.mktemp("sequence")
    (sequence / "img").symlink_to(folder)
    assert video.open_source(sequence).length == 12
    assert video.open_source(f"{folder}/1*.png").length == 3
    assert video.open_source(f"{folder}/*").length == 12
    with pytest.raises(JaxtrackError, match="no file matches"):
        video.open_source(f"{folder}/*.jpg")
    for name in ("a.text", "b.text"):
        (folder / name).write_text("x")
    with pytest.raises(JaxtrackError, match="matches 2 files, none of them an image"):
        video.open_source(f"{folder}/*.text")


@pytest.mark.parametrize("name", ["0003.jpg", "3.PNG", "003.png"])
def test_an_image_is_there_once(tmp_path: pathlib.Path, name: str) -> None:
    """The same frames in two formats are no clip of twice the length; other names of one number are."""
    for i in range(6):
        images.write_image(tmp_path / f"{i:04d}.png", picture(i))
    cv2.imwrite(str(tmp_path / name), picture(3))
    for source in (tmp_path, f"{tmp_path}/*.*"):
        with pytest.raises(JaxtrackError, match=f"two images in .* have the number .*{name}"):
            video.open_source(source)
    (tmp_path / name).rename(tmp_path / f"b{name}")
    assert video.open_source(tmp_path).length == 7
    (tmp_path / "more").mkdir()
    (tmp_path / f"b{name}").rename(tmp_path / "more" / name)
    assert video.open_source(f"{tmp_path}/**/*.*").length == 7  # of another folder


def test_a_cover_beside_the_frames_is_no_clip(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "img").mkdir()
    for i in range(12):
        (folder / f"{i}.png").rename(folder / "img" / f"{i}.png")
    assert video.open_source(folder).length == 12
    assert capsys.readouterr().err == ""
    images.write_image(folder / "cover1.jpg", picture(0))
    assert video.open_source(folder).length == 12
    said = capsys.readouterr().err
    assert said == f"note: {folder}: the 12 images of img/ are the clip, not the 1 beside it\n"
    for i in range(12, 24):
        images.write_image(folder / f"{i}.png", picture(0))
    assert video.open_source(folder).length == 13  # its own are more
    assert capsys.readouterr().err == ""


def test_video_there_and_back(tmp_path: pathlib.Path) -> None:
    for name in ("a.mp4", "b.avi", "c.mkv"):
        source = video.open_source(make_video(tmp_path / name))
        assert (source.size, source.length, source.fps) == ((48, 64), 20, 30.0)
        frames = list(source)
        assert len(frames) == 20
        for i in (0, 7, 19):
            assert np.abs(frames[i].astype(int) - picture(i)).mean() < 8, (name, i)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(("name", "kept"), [("a.avi", 0.5), ("a.mkv", 0.5)])
def test_truncated_video_gives_its_frames_and_then_says_where_it_ends(
    tmp_path: pathlib.Path, name: str, kept: float
) -> None:
    path = make_video(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    count = 0
    message = rf"{name}: ends after frame \d+, but 20 frames are declared"
    with pytest.raises(JaxtrackError, match=message) as e:  # noqa: PT012
        for _ in video.open_source(path):
            count += 1
    assert 2 < count < 18
    assert f"after frame {count - 1}," in str(e.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file, no video"),
        (b"hello world " * 50, "cannot be opened as a video"),
        (None, "cannot be opened as a video"),
    ],
)
def test_files_that_are_no_video(
    tmp_path: pathlib.Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "a.mp4"
    if content is None:  # an mp4 without its index, which stands at the end
        data = make_video(path).read_bytes()
        content = data[: len(data) // 2]
    path.write_bytes(content)
    with pytest.raises(JaxtrackError, match=rf"a\.mp4: {message}") as caught:
        video.open_source(path)
    assert "\n" not in str(caught.value)


def test_sources_that_are_not_there(tmp_path: pathlib.Path, folder: pathlib.Path) -> None:
    with pytest.raises(JaxtrackError, match="no such file or folder"):
        video.open_source(tmp_path / "none.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(JaxtrackError, match=r"no images in this folder \(looked for \.jpg"):
        video.open_source(tmp_path / "empty")
    with pytest.raises(JaxtrackError, match="a single image; give its folder"):
        video.open_source(folder / "0.png")
    with pytest.raises(JaxtrackError, match="camera 97: cannot be opened"):
        video.open_source("97")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (-1, "camera -1: give a number from 0 to 9999"),
        (np.int64(-1), "camera -1: give a number"),
        (10_000, "camera 10000: give a number"),
        (1 << 31, "camera 2147483648: give a number"),
        pytest.param(10**5000, "camera <int>: give a number", id="beyond text"),
        (9999, "camera 9999: cannot be opened"),
        (np.int64(97), "camera 97: cannot be opened"),
        (True, "a source of type bool cannot be opened; give a path"),
        (np.True_, "a source of type bool"),
        (1.5, "a source of type float"),
        (None, "a source of type NoneType"),
        (b"a.mp4", "a source of type bytes"),
        (["a.mp4"], "a source of type list"),
    ],
)
def test_numbers_that_are_no_camera(source: Any, message: str) -> None:
    with pytest.raises(JaxtrackError, match=message) as caught:
        video.open_source(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_bad_frame_in_the_middle_is_named(folder: pathlib.Path) -> None:
    images.write_image(folder / "5.png", picture(0, 50, 64))
    seen = 0
    with pytest.raises(JaxtrackError, match=r"5\.png: 64x50, but the first frame 0\.png is 64x48"):  # noqa: PT012
        for _ in video.open_source(folder):
            seen += 1
    assert seen == 5
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:100])
    with pytest.raises(JaxtrackError, match=r"3\.png: truncated image"):
        list(video.open_source(folder))


def test_size_change_of_any_source_is_named() -> None:
    frames = [picture(0), picture(1), picture(2, 40, 64)]
    source = video.FrameSource("camera 0", frames[0], None, None, True, lambda: iter(frames))
    with pytest.raises(JaxtrackError, match="camera 0: frame 2 is 64x40, the first is 64x48"):
        list(source)


def test_boxes_are_drawn_where_they_are() -> None:
    frame = np.zeros((100, 120, 3), np.uint8)
    boxes = np.asarray([[20, 30, 40, 25], [np.nan] * 4, [-1e9, 5, 1e12, 1e12]])
    drawn = writer.draw_boxes(frame, boxes, ["a", "b", "c"])
    assert frame.max() == 0
    red = np.argwhere((drawn == writer.COLOURS[0]).all(-1))
    sides = red[(red[:, 0] >= 30)]
    np.testing.assert_array_equal(sides.min(0), [30, 20])
    np.testing.assert_array_equal(sides.max(0), [54, 59])


def test_writer_refuses_what_it_cannot_do(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JaxtrackError, match=r"unknown video format; known suffixes: \.mp4"):
        writer.VideoWriter(tmp_path / "a.gif", (48, 64))
    (tmp_path / "file").write_text("x")
    with pytest.raises(JaxtrackError, match=r"a\.mp4: cannot be written"):
        writer.VideoWriter(tmp_path / "file" / "a.mp4", (48, 64))
    with (
        pytest.raises(JaxtrackError, match="frame 0 has another size"),
        writer.VideoWriter(tmp_path / "b.mp4", (48, 64)) as out,
    ):
        out.write(picture(0, 40, 64))
    assert not (tmp_path / "b.mp4").exists()


def test_codec_falls_back_and_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer.VideoWriter(tmp_path / "a.avi", (48, 64)) as out:
        assert out.codec == "MJPG"
    monkeypatch.setitem(writer.CODECS, ".avi", ("zzzz", "XVID"))
    with writer.VideoWriter(tmp_path / "a.avi", (48, 64)) as out:
        assert out.codec == "XVID"
        out.write(picture())
    assert video.open_source(tmp_path / "a.avi").length == 1
    monkeypatch.setitem(writer.CODECS, ".avi", ("zzzz",))
    with pytest.raises(JaxtrackError, match=r"no encoder for it \(tried zzzz\)"):
        writer.VideoWriter(tmp_path / "b.avi", (48, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["a.avi"]


def test_odd_sides_and_errors_keep_what_was_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(ZeroDivisionError), writer.VideoWriter(path, (47, 63)) as out:  # noqa: PT012
        for i in range(5):
            out.write(picture(i, 47, 63), np.asarray([[4.0, 8, 12, 12]]), ["x"])
        raise ZeroDivisionError
    source = video.open_source(path)
    assert (source.size, source.length) == ((46, 62), 5)


def test_frames_that_did_not_reach_the_disk_are_missed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = writer.VideoWriter(tmp_path / "a.mp4", (48, 64))
    out.write(picture())
    out.count = 9
    with pytest.raises(JaxtrackError, match=r"a\.mp4: holds 1 of 9 frames"):
        out.close()


@pytest.mark.parametrize(
    "text", ["12,34,56,78", "12 34 56 78", " 12;34; 56 ;78 ", "1.2e1\t34\t56\t78"]
)
def test_parse_box(text: str) -> None:
    box = sequences.parse_box(text)
    np.testing.assert_array_equal(box, np.asarray([12, 34, 56, 78], np.float32), strict=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "has 3 numbers; four are wanted: X,Y,W,H"),
        ("1,2,3,4,5", "has 5 numbers"),
        ("", "has 0 numbers"),
        ("1,2,three,4", "'three' is not a number; four numbers are wanted: X,Y,W,H"),
        ("1,2,nan,4", "not finite"),
        ("inf,2,3,4", "not finite"),
        ("1,2,３,4", "is not a number"),
        ("1,2;3,4", "mixes commas and semicolons"),
        ("1,2,1e39,4", "not finite"),
        ("1,2,0,4", "no size: width 0 and height 4"),
        ("1,2,3,-4", "no size: width 3 and height -4"),
    ],
)
def test_parse_box_refuses(text: str, message: str) -> None:
    with pytest.raises(JaxtrackError, match=message):
        sequences.parse_box(text)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3), "has shape"),
        ((0, 0, np.nan, 4), "not finite"),
        ((0, 0, 0, 4), "no size"),
        ((700, 10, 20, 20), "centre outside the 640x480 frame"),
        ((-30, 10, 20, 20), "centre outside"),
        ((10, 500, 20, 20), "centre outside"),
        ((300, 200, 400, 260), "fits as two corners: x,y,w,h is wanted, that is 300,200,100,60"),
    ],
)
def test_check_box_refuses(box: tuple[float, ...], message: str) -> None:
    with pytest.raises(JaxtrackError, match=message):
        sequences.check_box(np.asarray(box), (480, 640))


@pytest.mark.parametrize(
    "box", [(0, 0, 640, 480), (-5, -5, 20, 20), (630, 470, 15, 15), (0.5, 1, 2, 3)]
)
def test_check_box_accepts(box: tuple[float, ...]) -> None:
    sequences.check_box(np.asarray(box), (480, 640))


def test_box_as_text() -> None:
    assert (
        sequences.format_box(np.asarray([1, 0.25, np.nan, 1e4])) == "1.0000,0.2500,nan,10000.0000"
    )


@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_files_are_readable_by_whom_the_system_lets(tmp_path: pathlib.Path, umask: int) -> None:
    older = os.umask(umask)
    try:
        write_whole(tmp_path / "a", b"1")
    finally:
        os.umask(older)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_write_whole_leaves_the_old_file_when_it_fails(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JaxtrackError, match=r"a\.txt: cannot be written \(No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_video_that_is_not_whole_replaces_no_older_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV says nothing when a disk is full: the file then holds fewer frames than were written."""
    path = make_video(tmp_path / "a.mp4")
    old = path.read_bytes()
    monkeypatch.setattr(writer, "_frames_in", lambda path: 3)
    with pytest.raises(
        JaxtrackError, match=r"holds 3 of 20 frames \(is the disk full\?\).*left as it is"
    ):
        make_video(path)
    assert path.read_bytes() == old
    with pytest.raises(JaxtrackError, match=r"b\.mp4: holds 3 of 20 frames"):
        make_video(tmp_path / "b.mp4")  # nothing to lose: what is there is kept
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_lying_frame_count_is_no_truncation(tmp_path: pathlib.Path, name: str) -> None:
    """Sound that goes on after the pictures makes a container's duration longer than they are."""
    path = make_video(tmp_path / name)
    data = bytearray(path.read_bytes())
    if name == "a.mkv":
        at = data.find(b"\x44\x89") + 3
        data[at : at + 8] = struct.pack(">d", 3 * struct.unpack(">d", data[at : at + 8])[0])
    else:
        at = data.find(b"elst") - 4  # leave out what is shown before the ninth frame
        data[at + 16 : at + 20] = struct.pack(
            ">i", struct.unpack(">i", data[at + 16 : at + 20])[0] + 4096
        )
    path.write_bytes(data)
    frames = list(video.open_source(path))
    assert len(frames) == 20 if name == "a.mkv" else 10 < len(frames) <= 20
    path.write_bytes(data[: len(data) * 2 // 3])
    if name == "a.mkv":
        with pytest.raises(JaxtrackError, match="ends after frame"):
            list(video.open_source(path))


def test_webm_plays_in_browsers(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(list(video.open_source(make_video(tmp_path / "a.webm")))) == 20
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "rate", [29.97, 23.976023976, 1000 / 33, 59.94005994, 0.1, 1e9, float("nan")]
)
def test_any_rate_is_written(tmp_path: pathlib.Path, rate: float) -> None:
    for name in ("a.mp4", "a.mkv", "a.avi"):
        with writer.VideoWriter(tmp_path / name, (48, 64), rate) as out:
            for i in range(6):
                out.write(picture(i))
        assert len(list(video.open_source(tmp_path / name))) == 6


def test_pipes_and_devices_are_no_videos(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(JaxtrackError, match=r"pipe\.mp4: is a device, pipe or socket"):
        video.open_source(tmp_path / "pipe.mp4")
    with pytest.raises(JaxtrackError, match=r"²: no such file or folder"):
        video.open_source("²")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(JaxtrackError, match="loop: cannot be read"):
        video.open_source(tmp_path / "loop")
    (tmp_path / "7").write_bytes(b"x")  # a file is no camera
    with pytest.raises(JaxtrackError, match="7: cannot be opened as a video"):
        video.open_source(tmp_path / "7")


def test_threads_that_wait_do_not_hold_who_stops() -> None:
    released = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        released.wait(30)
        yield 2

    for run in (prefetch, on_demand):
        items = run(slow())
        assert next(items) == 1
        started = time.monotonic()
        items.close()  # type: ignore[attr-defined]
        assert time.monotonic() - started < 10
    released.set()

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    for run in (prefetch, on_demand):
        items = run(broken())
        assert next(items) == 1
        with pytest.raises(ValueError, match="two"):
            next(items)
        assert list(run(iter(range(5)))) == list(range(5))
    assert waited(lambda: 7) == 7
