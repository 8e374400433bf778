"""Builds that are damaged, foreign or killed: told in one line, and never taken for whole."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxtrack.data import frames as frame_io
from jaxtrack.data import seal
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError
from tests import data_fixtures as fx
from tests.data.test_prepare import last_line, run, same_build

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path):
    """A copy of a build, and its ``--check`` arguments."""
    shutil.copytree(fx.built() / "otb", tmp_path / "out" / "otb")
    folder = next((tmp_path / "out" / "otb").rglob("dataset_info.json")).parent
    return folder, ("otb", "--check", "--crop", "128", "--output", tmp_path / "out")


def test_every_damage_of_a_build_is_found(copy, capsys):
    folder, check = copy
    assert run(capsys, *check)[0] == 0
    rng = np.random.default_rng(0)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(flipped), whole[: len(whole) // 2], b"", b"[" * 3000, None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            status, _, err = run(capsys, *check)
            assert status == 1, (path.name, damaged and damaged[:20])
            assert "Traceback" not in err
            assert last_line(err).startswith("error: ")
            path.write_bytes(whole)
    assert run(capsys, *check)[0] == 0


def test_a_damaged_index_is_no_training_data(copy):
    folder, _ = copy
    path = folder / "index" / "rows_box.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    with pytest.raises(JaxtrackError, match=r"rows_box.npy is not what was written"):
        FrameSource(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("text_feature.Text", "evil.Text", 1),
        lambda text: text.replace("tensorflow_datasets.core.features.text_feature", "evil", 1),
        lambda text: '{"type": "evil.Module", "proto_cls": "evil.Proto", "content": {}}',
        lambda text: text.replace("{", '{"pythonClassName": "evil.Text",', 1),
    ],
)
def test_features_of_a_foreign_build_run_no_code(copy, tmp_path, monkeypatch, capsys, change):
    folder, check = copy
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = folder / "features.json"
    path.write_text(change(path.read_text()))
    sealed = seal.read(folder)  # the attacker writes checksums that fit
    seal.write(folder, sealed["shards"])
    status, _, err = run(capsys, *check)
    assert status == 1
    assert "was not written by jaxtrack" in last_line(err)
    with pytest.raises(JaxtrackError, match="foreign code"):
        FrameSource(folder)
    assert not (tmp_path / "canary").exists()


def test_a_build_of_another_version(copy):
    folder, _ = copy
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "index_version": 1}))
    with pytest.raises(JaxtrackError, match="built by another version"):
        FrameSource(folder)


def test_nothing_is_unpickled():
    """No room reads a pickle: not by the module, nor by numpy, nor by a library that hides it."""
    readers = re.compile(
        r"\b(pickle|joblib|cloudpickle|dill|marshal)\.(load|Unpickler)"
        r"|\bimport shelve|allow_pickle\s*=\s*True"
    )
    for room in ("jaxtrack", "train", "eval"):
        for path in (ROOT / room).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                assert not readers.search(line), f"{path}:{number}: {line.strip()}"


def test_killed_builds_with_workers_start_again_at_once(tmp_path):
    names = [f"v{i:02d}" for i in range(24)]
    fx.write_otb(tmp_path / "otb", names, 4)
    child = (
        "import sys\nfrom tests import data_fixtures as fx\n"
        "if __name__ == '__main__':\n"
        "    fx.build('otb', sys.argv[1], sys.argv[2], frames_per_part=4, workers=2)\n"
    )
    (tmp_path / "child.py").write_text(child)
    command = [sys.executable, tmp_path / "child.py", tmp_path / "otb", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    building = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    stage = tmp_path / "out/otb/test_frames/.1.0.0.parts"
    until = time.monotonic() + 120
    while not list(stage.glob("*.done")) and time.monotonic() < until:
        time.sleep(0.02)
    workers = _children(building.pid)
    assert len(workers) >= 2
    building.send_signal(signal.SIGKILL)
    building.wait()
    assert len(list(stage.glob("*.done"))) < 24  # in the middle
    with pytest.raises(JaxtrackError, match="not finished: run the same prepare command again"):
        FrameSource(tmp_path / "out")
    steps = []
    built = fx.build(
        "otb",
        tmp_path / "otb",
        tmp_path / "out",
        frames_per_part=4,
        workers=2,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps[0][0] >= 4  # what was done is not done again
    assert steps[0][1] == 96
    assert [p.name for p in built.parent.iterdir()] == ["1.0.0"]
    source = FrameSource(built)
    assert source.num_records == 96
    for number in range(96):
        frame_io.decode(source.record(number)["image"], "record")
    whole = fx.build("otb", tmp_path / "otb", tmp_path / "whole", frames_per_part=4)
    same_build(built, whole)
    while any(map(_alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_alive, workers))


def _children(pid: int) -> list[int]:
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(folder.name))
    return found


def _alive(pid: int) -> bool:
    try:
        return (pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) != "Z"
    except OSError:
        return False
