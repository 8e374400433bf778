"""JSON and checksums, files that appear whole, folders with one owner."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.io import atomic, records
from jaxtrack.io.atomic import LOCK, lock, sweep, write_whole


@dataclasses.dataclass(frozen=True)
class Value:
    place: pathlib.Path
    numbers: tuple[int, ...]


def test_there_and_back(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "a.json"
    records.write_json(
        path, {"a": Value(pathlib.Path("x"), (1, 2)), "b": np.arange(2), "c": np.float32(0.5)}
    )
    assert records.read_json(path) == {
        "a": {"place": "x", "numbers": [1, 2]}, "b": [0, 1], "c": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not a card \(line 1: Expecting value\)"),
        (b"{", r"not a card \(line 1: Expecting property name"),
        (b'{"a": 1,\n"b": }', r"not a card \(line 2: Expecting value"),
        (b"\xff{}", r"not a card \(no UTF-8 text\)"),
        (b"[" * 100_000, r"not a card \(nested too deeply\)"),
        (b'{"a":' * 100_000, r"not a card \(nested too deeply\)"),
        (b'{"a": 1, "a": 2}', "'a' stands twice in one object"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not a card"),
        (b"[1]", r"not a card \(an object is wanted, it holds a list\)"),
        (b"3", r"an object is wanted, it holds a int"),
        (b"{}" + b" " * 3000, "more than the 2,000 that such a file may have"),
    ],
)
def test_damaged_json_is_one_line(tmp_path: pathlib.Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    limit = 2000 if len(data) == 3002 else 1 << 30
    with pytest.raises(JaxtrackError, match=rf"a\.json: .*{message}|a\.json: {message}") as caught:
        records.read_json(path, "a card", dict, limit)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_checksums(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f" / "g").mkdir(parents=True)
    (tmp_path / "f" / "a").write_bytes(b"abc")
    (tmp_path / "f" / "g" / "b").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert records.checksum(tmp_path / "f" / "a") == known
    whole = records.checksum(tmp_path / "f")
    (tmp_path / "f" / ".hidden").write_bytes(b"x")
    assert records.checksum(tmp_path / "f") == whole
    (tmp_path / "f" / "g" / "b").rename(tmp_path / "f" / "g" / "c")
    assert records.checksum(tmp_path / "f") != whole
    with pytest.raises(JaxtrackError, match="none: cannot be read"):
        records.checksum(tmp_path / "none")


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "link").symlink_to("a")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    write_whole(os.devnull, b"x")
    assert not pathlib.Path(os.devnull).is_file()
    with pytest.raises(JaxtrackError, match="is a folder"):
        write_whole(tmp_path, b"x")


def test_temporaries_of_dead_writers_are_swept(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "w.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead = int(done.stdout)
    host = atomic._host()
    left = tmp_path / f".w.safetensors.{host}-{dead}-abcdefgh"
    alive = tmp_path / f".w.safetensors.{host}-{os.getpid()}-abcdefgh"
    other = tmp_path / f".x.safetensors.{host}-{dead}-abcdefgh"
    elsewhere = tmp_path / ".w.safetensors.00000000-1-abcdefgh"
    for file in (left, alive, other, elsewhere):
        file.write_bytes(b"x")
    (tmp_path / f"{left.name[:-1]}i").mkdir()  # of a folder
    (tmp_path / f"{left.name[:-1]}i" / "part").write_bytes(b"x")
    write_whole(path, b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {
        path.name,
        alive.name,
        other.name,
        elsewhere.name,
    }
    os.utime(elsewhere, (0, 0))
    sweep(path)
    assert not elsewhere.exists()


def test_a_very_long_name(tmp_path: pathlib.Path) -> None:
    write_whole(tmp_path / ("x" * 250), b"a")
    assert (tmp_path / ("x" * 250)).read_bytes() == b"a"


def test_a_folder_has_one_owner(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run"
    script = (
        "import sys\nfrom jaxtrack.io.atomic import lock\n"
        "with lock(sys.argv[1]):\n    print('mine', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(atomic.__file__).parents[2])}
    words = [sys.executable, "-c", script, str(folder)]
    other = subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    with (
        pytest.raises(JaxtrackError, match=rf"run: in use by process {other.pid} on .* since"),
        lock(folder),
    ):
        pass
    other.kill()  # whoever dies, however, owns nothing
    other.communicate()
    with lock(folder):
        assert (folder / LOCK).exists()
        with pytest.raises(JaxtrackError, match=f"process {os.getpid()} "), lock(folder):
            pass
    assert list(folder.iterdir()) == []
