"""Builds that are killed, run out of disk, or meet another build."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess

import numpy as np
import pytest

from jaxtrack.data import layouts
from jaxtrack.data.builders import frames as frame_builder
from jaxtrack.data.builders import parts, stage
from jaxtrack.data.source import find_built
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import lock
from tests import data_fixtures as fx
from tests.data.test_prepare import last_line, run


def test_parts_are_made_again_when_the_annotation_or_the_shard_changes(tmp_path):
    fx.write_otb(tmp_path, ("Boy",))
    root = str(tmp_path)
    part = list(layouts.iter_layout("otb", tmp_path))
    spec = tmp_path / "part-00000.spec"
    digest = stage.save_spec(spec, "otb", 0, part, root)
    dataset, crop, again = stage.load_spec(spec, root)
    assert (dataset, crop, again[0].frames) == ("otb", 0, part[0].frames)
    np.testing.assert_array_equal(again[0].boxes, part[0].boxes)
    shard = stage.shard_path(spec, digest)
    shard.write_bytes(b"records")
    result = stage.finish(spec, digest, part, parts.PartRows(), shard)
    assert stage.finished(spec, digest) == result
    shard.write_bytes(b"recorfs")  # as long, and not what was written
    assert stage.finished(spec, digest) is None
    shard.write_bytes(b"records")
    part[0].boxes[0, 0] += 1
    assert stage.finished(spec, stage.save_spec(spec, "otb", 0, part, root)) is None
    done = spec.with_suffix(".done").read_bytes()
    rng = np.random.default_rng(0)
    for number in range(300):
        damaged = bytearray(done if number else pickle.dumps(1))
        if number % 10 == 1:
            del damaged[rng.integers(len(damaged)) :]
        elif number:
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        spec.with_suffix(".done").write_bytes(damaged)
        assert stage.finished(spec, digest) in (None, result)


def test_two_builds_in_one_folder(tmp_path):
    fx.write_otb(tmp_path / "otb", ("Boy",))
    with (
        lock(tmp_path / "out" / "otb" / "test_frames" / ".1.0.0.parts"),
        pytest.raises(JaxtrackError, match=f"in use by process {os.getpid()}"),
    ):
        fx.build("otb", tmp_path / "otb", tmp_path / "out")
    fx.build("otb", tmp_path / "otb", tmp_path / "out")


@pytest.mark.parametrize("words", ["Disk quota exceeded", "File too large"])
def test_no_room_of_other_kinds(words, tmp_path, capsys, monkeypatch):
    fx.write_otb(tmp_path / "otb", ("Boy",))

    def write(*args):
        raise RuntimeError(f"write() failed: {words}; writing /x.records; at byte 409600")

    monkeypatch.setattr(frame_builder, "_write_records", write)
    call = ["otb", "--source", tmp_path / "otb", "--output", tmp_path / "o", "--workers", 0]
    status, _, err = run(capsys, *call)
    assert status == 1
    assert "or your share of it, is full" in last_line(err)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a tmpfs")
def test_full_disk(tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 255, (12, 300, 400, 3), dtype=np.uint8)
    for name in ("Boy", "Car1", "Deer"):
        fx.write_frames(tmp_path / "otb" / name / "img", frames, "{:04d}.jpg")
        boxes = np.tile([10, 10, 40, 30], (12, 1))
        (tmp_path / "otb" / name / "groundtruth_rect.txt").write_text(fx.table(boxes))
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this system does not allow a mount")
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "-l", str(small)], check=False)
        status, _, err = run(
            capsys, "otb", "--source", tmp_path / "otb", "--output", small, "--workers", 0
        )
        assert status == 1
        assert "is full" in last_line(err)
        assert "goes on where it was" in last_line(err)
        with pytest.raises(JaxtrackError):
            find_built(small)
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        status, _, err = run(
            capsys, "otb", "--source", tmp_path / "otb", "--output", small, "--workers", 0
        )
        assert status == 0, err
