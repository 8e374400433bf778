"""Paths as users give them: one resolver, and outputs that harm no input."""

from __future__ import annotations

import os
import pathlib

import pytest

from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.io.paths import is_stream, output_file, output_folder, resolve, same


def test_paths_stay_as_they_are_typed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/a") == tmp_path / "a"
    assert resolve("a/../b") == pathlib.Path("a/../b")
    assert resolve("a b") == pathlib.Path("a b")
    (tmp_path / "link").symlink_to("there")
    assert resolve(tmp_path / "link") == tmp_path / "link"
    assert resolve("C:/x") == pathlib.Path("C:/x")  # a drive, no scheme
    assert resolve("\udcff") == pathlib.Path("\udcff")  # a byte that is no UTF-8


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "an empty path"),
        ("a\0b", "cannot hold a NUL"),
        ("\ud800", "cannot hold a lone surrogate"),
        ("s3://bucket/a", r"not an address \(s3://\)"),
        ("https://host/a", "fetch it first"),
        ("file:///a", r"file://"),
        ("file:///a%20b/c", r"not an address \(file://\); give /a b/c"),
        ("FILE://localhost/a", r"give /a"),
        ("file://host/a", "fetch it first"),
        ("~nobody-of-this-name/a", "no home folder is known"),
    ],
)
def test_what_is_no_local_path(path: str, message: str) -> None:
    with pytest.raises(JaxtrackError, match=message) as caught:
        resolve(path)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_stream() -> None:
    """What names a file of this machine must not be opened as something that no output can harm."""
    for text in (
        "rtsp://host/a",
        "http://host:80/a.mp4",
        "udp://@1.2.3.4:5",
        "https://h/xfile://a",
    ):
        assert is_stream(text)
    for text in ("file:///a.mp4", "FILE://a.mp4", "cache:file:///a.mp4", "a.mp4", "a:/b"):
        assert not is_stream(text)


def test_an_output_is_no_input(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "a"
    source.write_text("kept")
    (tmp_path / "soft").symlink_to("a")
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "up").symlink_to(".")
    for name in ("a", "./a", "up/a", "soft", "hard", str(source), "x/../a"):
        with pytest.raises(UsageError, match="is also an input"):
            output_file(name, [source])
    for name in ("b", "up/b", "new/deep/b"):
        assert output_file(name, [source]) == pathlib.Path(name)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "in").write_text("x")
    with pytest.raises(UsageError, match="is a file of the input"):
        output_file("data/in", [folder])
    assert output_file("data/new", [folder]) == pathlib.Path("data/new")
    for name in ("data", "up/data", "./data/"):
        with pytest.raises(UsageError, match="is also an input"):
            output_folder(name, [folder])
    assert same("up/a", "hard")
    assert same("none", "up/none")
    assert not same("a", "data")


def test_outputs_of_the_wrong_kind(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name, make, message in (
        (".", output_file, "is a folder, the name of a file is wanted"),
        ("pipe", output_file, "is a device, pipe or socket"),
        ("loop", output_file, "cannot be written"),
        ("file/x", output_file, "Not a directory"),
        ("file", output_folder, "is a file, the name of a folder is wanted"),
        ("file/x", output_folder, "Not a directory"),
        ("x" * 300, output_file, "File name too long"),
    ):
        with pytest.raises(JaxtrackError, match=message):
            make(tmp_path / name)  # type: ignore[operator]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop", "pipe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is denied to the system's owner")
def test_permission_denied(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(JaxtrackError, match="permission denied"):
        output_file(tmp_path / "a")
