"""What a folder holds: natural order, and nothing that is no data."""

from __future__ import annotations

import os
import pathlib

import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.io import clips


def names(paths: list[pathlib.Path]) -> list[str]:
    return [path.name for path in paths]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in (
        "10.jpg",
        "9.JPG",
        "2.tif",
        "②.png",
        "a.txt",
        "._9.jpg",
        ".hidden.png",
        "b.mp4",
        "._b.mp4",
    ):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "11.jpg").symlink_to("10.jpg")
    (tmp_path / "12.jpg").symlink_to("gone.jpg")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "seq" / "img").mkdir(parents=True)
    (tmp_path / "seq" / "img" / "1.png").write_bytes(b"x")
    return tmp_path


def test_images_in_natural_order(folder: pathlib.Path) -> None:
    # A link to nothing stays: its frame is missing, which reading tells.
    assert names(clips.list_images(folder)) == [
        "2.tif",
        "9.JPG",
        "10.jpg",
        "11.jpg",
        "12.jpg",
        "②.png",
    ]
    assert names(clips.frames_of(folder / "seq")) == ["1.png"]
    with pytest.raises(JaxtrackError, match="none: no such folder"):
        clips.list_images(folder / "none")
    with pytest.raises(JaxtrackError, match=r"a\.txt: cannot be listed \(Not a directory"):
        clips.list_images(folder / "a.txt")


def test_patterns(folder: pathlib.Path) -> None:
    assert names(clips.expand(f"{folder}/*.jpg")) == ["10.jpg", "11.jpg", "12.jpg"]
    assert names(clips.expand(f"{folder}/[0-9].*")) == ["2.tif", "9.JPG"]
    # The loop is not followed.
    assert sorted(names(clips.expand(f"{folder}/**/*.png"))) == ["1.png", "②.png"]
    assert names(clips.expand(f"{folder}/se?/img/1.png")) == ["1.png"]
    assert clips.expand(f"{folder}/none*") == []
    assert names(clips.expand(f"{folder}/a.txt")) == ["a.txt"]
    assert clips.expand(f"{folder}/[") == []
    with pytest.raises(JaxtrackError, match="cannot be used as a pattern"):
        clips.expand(f"{folder}/a**b/**")


def test_any_name_has_a_place_in_the_order() -> None:
    mixed = ["a", "1", "١", "²", "a1", "a01", "a1b", "", "10", "1a", "一", "9" * 300, "\udcff"]
    ordered = sorted(mixed, key=clips.natural_key)
    assert ordered.index("1") < ordered.index("10")
