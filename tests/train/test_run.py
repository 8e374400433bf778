"""The training loop from the command line: resume, kill, bad input, non-finite losses."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests import toy_training
from train import presets

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line with the toy presets, in this process."""
    monkeypatch.setattr(presets, "all_presets", lambda: toy_training.PRESETS)

    def call(*arguments: object) -> int:
        return toy_training.run.main([str(a) for a in arguments])

    return call


def command(*arguments: object) -> list[str]:
    start = "import sys; from tests.toy_training import main; sys.exit(main())"
    return [sys.executable, "-c", start, *map(str, arguments)]


def environment(devices: int = 1) -> dict[str, str]:
    """This process's flags but for the devices: the same bits need the same compilation."""
    count = "--xla_force_host_platform_device_count="
    flags = re.sub(rf"{count}\d+", f"{count}{devices}", os.environ["XLA_FLAGS"])
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "default"}


def weights(output: pathlib.Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(output / "weights.safetensors")


def log_lines(output: pathlib.Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error line (the bar may stand before it)."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_run_learns_and_leaves_everything(toy: Callable[..., int], tmp_path: pathlib.Path) -> None:
    output = tmp_path / "run"
    assert toy("toy", "--output", output) == 0
    lines = log_lines(output)
    assert [line["step"] for line in lines] == list(range(5, 61, 5))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert list((output / "tensorboard").glob("events*"))
    card = json.loads((output / "weights.json").read_text())
    assert card["steps"] == 60
    assert card["command"] == "python -m train.run toy"
    steps = sorted(int(p.name) for p in (output / "checkpoints").iterdir())
    losses = {
        n: np.mean([x["loss"] for x in lines if n - 10 < x["step"] <= n]) for n in range(10, 61, 10)
    }
    best = min(losses, key=lambda n: losses[n])
    assert steps == sorted({best, 50, 60})


def test_head_waits_for_its_epoch(toy: Callable[..., int], tmp_path: pathlib.Path) -> None:
    output = tmp_path / "run"
    assert toy("toy", "--output", output, "--steps", 3, "--log-every", 1) == 0
    assert [line["epoch"] for line in log_lines(output)] == [0.0, 1.0, 2.0]


def test_kill_and_resume_gives_the_same_bits(
    toy: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    long = ("toy-long", "--devices", 1, "--steps", 1200)
    child = subprocess.Popen(
        command(*long, "--output", cut), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (cut / "checkpoints" / "40").exists():
        assert child.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (cut / "weights.safetensors").exists()
    assert toy(*long, "--output", cut, "--resume") == 0
    assert toy(*long, "--output", whole) == 0
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(array, weights(cut)[name], err_msg=name)
    # The log is that of one run: no step twice, none missing.
    assert [x["step"] for x in log_lines(cut)] == [x["step"] for x in log_lines(whole)]
    assert [x["loss"] for x in log_lines(cut)] == [x["loss"] for x in log_lines(whole)]


def test_nan_stops_with_step_batch_and_checkpoint(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert toy("toy-nan", "--output", output) == 1
    line = only_line(capsys)
    assert "step 25: loss is nan" in line
    assert "synthetic pairs 192..199" in line
    assert f"last good checkpoint: {output}/checkpoints/20" in line
    assert {int(p.name) for p in (output / "checkpoints").iterdir()} == {10, 20}


def test_bad_input_is_one_line(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert toy("toy", "--output", output, "--steps", 4) == 0
    capsys.readouterr()
    for arguments, words in [
        (("toyy", "--output", tmp_path / "x"), "unknown training preset 'toyy'; nearest: toy"),
        (("toy", "--output", output), "is not empty: --resume goes on"),
        (("toy-other", "--output", output, "--resume"), "holds a run of 'toy', not 'toy-other'"),
        (("toy", "--output", output, "--resume", "--seed", 3), "started with --seed 0, not 3"),
        (("toy", "--output", tmp_path / "none", "--resume"), "no run to resume"),
        (("toy", "--output", tmp_path / "x", "--steps", 0), "--steps 0: at least 1"),
        (("toy", "--output", tmp_path / "x", "--batch-size", 7), "cannot be shared by 4 devices"),
        (("toy", "--output", tmp_path / "x", "--devices", 9), "this process has 4 cpu device(s)"),
        (
            ("toy", "--output", tmp_path / "x", "--data", "/nowhere"),
            "--data /nowhere: no such folder",
        ),
        (("toy", "--output", tmp_path / "x", "--processes", 2), "need --coordinator"),
    ]:
        assert toy(*arguments) == 1
        assert words in only_line(capsys)
    assert not (tmp_path / "x" / "checkpoints").exists()


def test_usage_error_has_status_two(toy: Callable[..., int]) -> None:
    assert toy("toy", "--stepz", "3") == 2


def test_debug_shows_the_traceback(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy("toyy", "--output", tmp_path / "x", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_damaged_settings_and_checkpoints(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert toy("toy", "--output", output, "--steps", 4) == 0
    for path in (output / "checkpoints" / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    capsys.readouterr()
    assert toy("toy", "--output", output, "--resume") == 1
    assert "checkpoint could not be read" in only_line(capsys)
    (output / "settings.json").write_text("{")
    assert toy("toy", "--output", output, "--resume") == 1
    assert "not the settings of a run" in only_line(capsys)


def test_init_from_takes_the_weights_alone(toy: Callable[..., int], tmp_path: pathlib.Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert toy("toy", "--output", first, "--steps", 40) == 0
    start = ("toy", "--steps", 4, "--log-every", 1, "--output")
    assert toy(*start, second, "--init-from", first / "weights.safetensors") == 0
    assert toy(*start, tmp_path / "third") == 0
    assert log_lines(second)[0]["loss"] < 0.7 * log_lines(tmp_path / "third")[0]["loss"]
    assert toy(*start, tmp_path / "fourth", "--init-from", first) == 0  # the Orbax folder


def test_init_from_of_another_network_is_refused(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    assert toy("toy", "--output", first, "--steps", 2) == 0
    assert (
        toy("toy-other", "--output", tmp_path / "x", "--init-from", first / "weights.safetensors")
        == 1
    )
    assert "kernel" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("bash"), reason="needs ulimit")
def test_full_disk_is_one_line(tmp_path: pathlib.Path) -> None:
    # No file may grow beyond one block: the save fails where the disk is full.
    line = f"ulimit -f 0; exec {shlex.join(command('toy', '--output', tmp_path / 'x'))}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=ROOT,
        env=environment(4),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr or "could not be written" in done.stderr


def test_too_little_room_is_said_before_the_save(
    toy: Callable[..., int],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "run"
    saved: list[object] = []

    def usage(folder: object) -> object:
        saved.append(folder)
        return types.SimpleNamespace(free=10**9 if len(saved) < 3 else 100_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert toy("toy", "--output", output) == 1
    line = only_line(capsys)
    assert "the disk is full: 0.1 MB free, a checkpoint takes 0.2 MB" in line
    assert "the last whole checkpoint is step 20" in line
    monkeypatch.undo()
    monkeypatch.setattr(presets, "all_presets", lambda: toy_training.PRESETS)
    assert toy("toy", "--output", output, "--resume") == 0
    assert [line["step"] for line in log_lines(output)] == list(range(5, 61, 5))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_equal_one(toy: Callable[..., int], tmp_path: pathlib.Path) -> None:
    """Two processes of two devices over Gloo: one process of four, but for the order of a sum."""
    output = tmp_path / "two"
    many = ("toy", "--output", output, "--processes", 2)
    for more in (
        (),
        ("--resume",),
    ):  # the second time: read the checkpoint, write the weights again
        (output / "weights.safetensors").unlink(missing_ok=True)
        where = f"127.0.0.1:{free_port()}"
        children = [
            subprocess.Popen(
                command(*many, "--coordinator", where, "--process-id", i, *more),
                cwd=ROOT,
                env=environment(2),
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        for child in children:
            _, errors = child.communicate(timeout=300)
            assert child.returncode == 0, errors
    one = tmp_path / "one"
    assert toy("toy", "--output", one) == 0
    assert len(jax.devices()) == 4
    for name, array in weights(one).items():
        np.testing.assert_allclose(weights(output)[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(log_lines(output)) == len(log_lines(one))
