"""The training loop from the command line: resume, kill, bad input, non-finite losses."""

from __future__ import annotations

import dataclasses
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
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxtrack.errors import JaxtrackError
from jaxtrack.io import atomic
from jaxtrack.weights import load_into
from tests import toy_training
from train import checkpoints, data, logging, presets

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


def test_a_run_that_ended_and_lost_its_checkpoints_does_not_begin_again(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert toy("toy", "--output", output, "--steps", 4) == 0
    before = (output / "weights.safetensors").read_bytes()
    shutil.rmtree(output / "checkpoints")
    assert toy("toy", "--output", output, "--resume") == 1
    assert "this run had ended, and its checkpoints are gone" in only_line(capsys)
    assert (output / "weights.safetensors").read_bytes() == before


def test_head_waits_for_its_epoch(toy: Callable[..., int], tmp_path: pathlib.Path) -> None:
    output = tmp_path / "run"
    assert toy("toy", "--output", output, "--steps", 3, "--log-every", 1) == 0
    assert [line["epoch"] for line in log_lines(output)] == [0.0, 1.0, 2.0]


def test_kill_and_resume_gives_the_same_bits(
    toy: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    long = ("toy-long", "--devices", 1, "--steps", 300)
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
    x = ("toy", "--output", tmp_path / "x")
    again = ("toy", "--output", output, "--resume")
    for status, arguments, words in [
        (2, ("toyy", "--output", tmp_path / "x"), "unknown training preset 'toyy'; nearest: toy"),
        (1, ("toy", "--output", output), "is not empty: --resume goes on"),
        (1, ("toy-other", *again[1:]), "holds a run of 'toy', not 'toy-other'"),
        (1, (*again, "--seed", 3), "started with --seed 0, not 3"),
        (1, (*again, "--set", "ema=.9"), "started with --set nothing, not ema=0.9"),
        (1, (*again, "--from-step", 3), "no checkpoint of step 3; there is: 4"),
        (1, (*again, "--recipe"), "was started without --recipe: leave the flag out"),
        (1, ("toy", "--output", tmp_path / "none", "--resume"), "no run to resume"),
        (2, (*x, "--from-step", 3), "--from-step goes with --resume"),
        (2, (*x, "--steps", 0), "--steps 0: give"),
        (2, (*x, "--steps", 10**30), "--steps 1000000"),
        (2, (*x, "--seed", 2**80), "too large a number"),
        (2, (*x, "--batch-size", 1_000_000_000), "--batch-size 1000000000: give from 1 to 65536"),
        (2, (*x, "--save-every", 0), "--save-every 0: give"),
        (2, (*x, "--steps", 4, "--minutes", 1), "--steps and --minutes: give one of them"),
        (2, (*x, "--set", "optim.ratee=1"), "no field 'ratee'; nearest: rate"),
        (2, (*x, "--set", "ema=2"), "ema is 2; 0 or more, below 1"),
        (2, (*x, "--set", "name=x"), "name: a preset keeps the name under which it is found"),
        (2, (*x, "--set", "task.noise=loud"), "error: task.noise=loud: a number is wanted"),
        (1, (*x, "--batch-size", 7), "cannot be shared by 4 devices"),
        (1, (*x, "--accumulate", 3), "cannot be shared by 4 devices in 3 parts each"),
        (1, (*x, "--devices", 9), "this process has 4 cpu device(s)"),
        (1, (*x, "--data", "/nowhere"), "--data /nowhere: no such folder"),
        (2, (*x, "--recipe"), "--recipe insists on published datasets: it goes with --data DIR"),
        (1, (*x, "--init-from", "mistyped"), "--init-from mistyped: no such file or folder"),
        (2, (*x, "--processes", 2), "need --coordinator"),
        (2, (*x, "--coordinator", "nonsense"), "--coordinator nonsense: give HOST:PORT"),
        (2, (*x, "--coordinator", "h:70000"), "--coordinator h:70000: give HOST:PORT"),
        (2, (*x, "--coordinator", "h:1"), "needs --processes N and --process-id I"),
        (1, ("toy", "--output", "/proc/x"), "/proc/x: cannot be written"),
        (1, ("toy", "--output", "/dev/full"), "/dev/full: is a file, the name of a folder"),
        (1, ("toy", "--output", output / "settings.json"), "is a file, the name of a folder"),
        (2, ("toy", "--output", ""), "an empty path"),
        (1, ("toy", "--output", tmp_path / "\udcff"), "a folder whose name is UTF-8"),
        (2, ("toy", "--output", "ftp://host/run"), "a local path is wanted"),
    ]:
        assert toy(*arguments) == status, arguments
        assert words in only_line(capsys)
    # A start that failed has left nothing behind: the corrected command runs.
    assert not (tmp_path / "x").exists()


def test_an_unreachable_coordinator_is_one_line(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--process-id", 1)
    assert toy("toy", "--output", tmp_path / "x", *where, "--join-timeout", 1) == 1
    assert "nobody answers at 127.0.0.1" in only_line(capsys)


def test_usage_error_has_status_two(toy: Callable[..., int]) -> None:
    assert toy("toy", "--stepz", "3") == 2


def test_debug_shows_the_traceback(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy("toyy", "--output", tmp_path / "x", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_damaged_settings_are_one_line(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert toy("toy", "--output", output, "--steps", 4) == 0
    path = output / "settings.json"
    whole = json.loads(path.read_text())
    for damaged, words in [
        ("{", "not the settings of a run"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps([whole]), "an object is wanted"),
        (json.dumps({k: v for k, v in whole.items() if k != "steps"}), "steps is missing"),
        (json.dumps({**whole, "recipe": "toy"}), "recipe is 'toy'"),
        (json.dumps({**whole, "seed": 1}), "their sum differs"),
    ]:
        path.write_text(damaged)
        capsys.readouterr()
        assert toy("toy", "--output", output, "--resume") == 1
        assert words in only_line(capsys)


def test_a_damaged_checkpoint_names_the_whole_one_before_it(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two flipped bits of a saved state are found, and the run can go on from the save before."""
    output = tmp_path / "run"
    again = ("toy", "--output", output, "--resume")
    assert toy("toy", "--output", output, "--steps", 30) == 0
    before = weights(output)
    (output / "weights.safetensors").unlink()
    newest = output / "checkpoints" / "30" / "state"
    data = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    spoiled = bytearray(data.read_bytes())
    for place in (len(spoiled) // 2, len(spoiled) // 2 + 9):
        spoiled[place] ^= 4
    data.write_bytes(spoiled)
    capsys.readouterr()
    assert toy(*again) == 1
    line = only_line(capsys)
    assert "checkpoints/30: checkpoint" in line
    assert "step 20 before it is whole: --resume --from-step 20 goes on" in line
    assert not (output / "weights.safetensors").exists()
    assert toy(*again, "--from-step", 20) == 0
    for name, array in before.items():
        np.testing.assert_array_equal(array, weights(output)[name], err_msg=name)
    assert [line["step"] for line in log_lines(output)] == list(range(5, 31, 5))
    kept = output / "checkpoints" / "30" / "record" / "metadata"
    record = json.loads(kept.read_text())
    kept.write_text(json.dumps({k: v for k, v in record.items() if k != "sums"}))
    capsys.readouterr()
    assert toy(*again) == 1
    assert "checkpoint has no checksums (an older version wrote it)" in only_line(capsys)
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert toy(*again) == 1
    assert "step 20 before it is whole" in only_line(capsys)
    (output / "checkpoints" / "30" / "metrics" / "metrics").write_bytes(b"")
    assert toy(*again) == 1
    assert f"move {output}/checkpoints/30 away: --resume then goes on" in only_line(capsys)


def test_a_step_that_is_gone_is_not_the_first(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for a checkpoint where none is left, a run does not begin anew in silence."""
    output = tmp_path / "run"
    again = ("toy", "--output", output, "--resume")
    assert toy("toy", "--output", output, "--steps", 20) == 0
    shutil.rmtree(output / "checkpoints")
    before = (output / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert toy(*again, "--from-step", 10) == 1
    assert f"{output}: no checkpoint is left, that of step 10 neither" in only_line(capsys)
    assert (output / "metrics.jsonl").read_text() == before
    (output / "weights.safetensors").unlink()  # as of a run that was stopped before its first save
    assert toy(*again) == 0


def test_the_card_says_all_that_changed_the_result(
    toy: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option of a run that rules what its weights are stands in the command, and is read back."""
    toy_training.validate_quickly(monkeypatch.setattr)
    output, again = tmp_path / "run", tmp_path / "again"
    asked = ("--steps", 4, "--batch-size", 4, "--seed", 3, "--precision", "bfloat16")
    assert toy("toy", *asked, "--validate-every", 2, "--set", "ema=.5", "--output", output) == 0
    said = json.loads((output / "weights.json").read_text())["command"]
    start, words = said.split()[:3], shlex.split(said)[3:]
    assert start == ["python", "-m", "train.run"]
    assert toy(*words, "--output", again) == 0
    settings = [json.loads((x / "settings.json").read_text()) for x in (output, again)]
    assert settings[0] == settings[1]
    recipe = {**settings[0], "published_data": True}
    assert " --recipe" in toy_training.run.command_of(recipe, toy_training.PRESETS["toy"])
    assert " --recipe" not in said


def test_a_folder_has_one_owner(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    with checkpoints.held(output):
        assert toy("toy", "--output", output) == 1
        assert f"in use by process {os.getpid()}" in only_line(capsys)
    assert not output.exists()
    output.mkdir()
    (output / atomic.LOCK).write_text('{"pid": 1}')  # left by a process that is no more
    assert toy("toy", "--output", output, "--steps", 2) == 0
    assert not (output / atomic.LOCK).exists()


def test_a_start_without_a_save_does_not_block(
    toy: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    monkeypatch.setattr(data.Synthetic, "next", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        toy("toy", "--output", output)
    assert (output / "settings.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(presets, "all_presets", lambda: toy_training.PRESETS)
    assert toy("toy", "--output", output, "--steps", 2, "--batch-size", 4) == 0
    assert json.loads((output / "settings.json").read_text())["batch_size"] == 4
    assert toy("toy", "--output", tmp_path / "deep" / "run", "--data", tmp_path / "none") == 1
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"]
)
def test_a_signal_saves_and_says_how_to_go_on(
    toy: Callable[..., int],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    status: int,
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    real, drawn = data.Synthetic.next, []

    def stopping(self: data.Synthetic) -> Any:
        drawn.append(1)
        if len(drawn) == 14:
            os.kill(os.getpid(), number)
            time.sleep(0.2)
        return real(self)

    monkeypatch.setattr(data.Synthetic, "next", stopping)
    assert toy("toy", "--output", cut, "--steps", 40) == status
    said = capsys.readouterr().err
    assert "stopped after step 14, which is saved" in said
    assert f"python -m train.run toy --output {cut} --resume" in said
    monkeypatch.setattr(data.Synthetic, "next", real)
    assert toy("toy", "--output", cut, "--resume") == 0
    assert toy("toy", "--output", whole, "--steps", 40) == 0
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(array, weights(cut)[name], err_msg=name)


_BARE = """
import importlib.abc, os, signal, sys, threading, time

MISSING = {"tyro", "tensorboardX", "grain", "tensorflow_datasets", "matplotlib"}

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Finder())
from tests.toy_training import main
from train import parallel
assert main(["toy", "--output", sys.argv[1], "--steps", "2"]) == 0
assert main(["toy", "--output", sys.argv[1] + "2", "--data", "."]) == 1
print("bare runs", file=sys.stderr)

def compiling(*_):
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    time.sleep(60)

parallel.compile_update = lambda *_: compiling
sys.exit(main(["toy", "--output", sys.argv[1] + "3"]))
"""


def test_a_bare_machine_and_an_interrupted_first_step(tmp_path: pathlib.Path) -> None:
    """What is optional may be missing; Ctrl-C while a step compiles ends at once and in order."""
    done = subprocess.run(
        [sys.executable, "-c", _BARE, str(tmp_path / "x")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "bare runs" in done.stderr, done.stderr
    assert "tensorboardX is not installed" in done.stderr
    assert "trains on the synthetic world only" in done.stderr
    assert done.returncode == 130, done.stderr
    assert "stopped in its first step" in done.stderr


def test_settings_from_outside_are_kept(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    changes = ("--set", "optim.rate=.01", "--set", "task.noise=0", "--set", "ema=.9")
    assert toy("toy", "--output", output, "--steps", 10, "--log-every", 1, *changes) == 0
    settings = json.loads((output / "settings.json").read_text())
    assert settings["set"] == ["task.noise=0.0", "optim.rate=0.01", "ema=0.9"]
    assert settings["recipe"]["optim"]["rate"] == 0.01
    assert log_lines(output)[0]["learning_rate"] == pytest.approx(0.01)
    command_line = json.loads((output / "weights.json").read_text())["command"]
    assert command_line.endswith("--set task.noise=0.0 --set optim.rate=0.01 --set ema=0.9")
    # From Python the same, and what is written is the moving average.
    preset = presets.changed(presets.get("toy"), ["optim.rate=.01", "task.noise=0", "ema=.9"])
    state = toy_training.run.train(preset, output=tmp_path / "python", steps=10)
    written = weights(output)
    for name, array in weights(tmp_path / "python").items():
        np.testing.assert_array_equal(array, written[name], err_msg=name)
    kernel = written["params/body/kernel"]
    np.testing.assert_array_equal(kernel, state.average["params"]["body"]["kernel"])
    assert np.abs(kernel - np.asarray(state.params["body"]["kernel"])).max() > 1e-4
    # The folder of the run gives the same weights as the file in it.
    read = load_into(presets.shapes(preset.task), output)
    np.testing.assert_array_equal(read["params"]["body"]["kernel"], kernel)
    assert "unchecked" not in capsys.readouterr().err
    assert toy("toy", "--output", output, "--resume") == 0
    assert toy("toy", "--output", output, "--resume", *changes) == 0


def test_what_was_changed_in_python_is_said_by_the_card(
    toy: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    """No option says a loss of one's own: the command alone would do another run."""
    preset = presets.changed(presets.get("toy"), ["ema=.9"])

    def own(*given: Any) -> Any:
        value, aux = toy_training.loss(*given)
        return 2 * value, aux

    changed = dataclasses.replace(preset, task=dataclasses.replace(preset.task, loss=own))
    nameless = toy_training.preset(toy_training.Config())
    for name, trained, said in (
        ("own", changed, " toy --steps 2 --set ema=0.9  # with task.loss of a program of its own"),
        ("nameless", nameless, " custom --steps 2  # with preset of a program of its own"),
        ("usual", preset, " toy --steps 2 --set ema=0.9"),
    ):
        toy_training.run.train(trained, output=tmp_path / name, steps=2)
        card = json.loads((tmp_path / name / "weights.json").read_text())
        assert card["command"] == f"python -m train.run{said}"
    toy_training.run.train(changed, output=tmp_path / "own", resume=True)
    with pytest.raises(JaxtrackError, match="has changed since this run began"):
        toy_training.run.train(preset, output=tmp_path / "own", resume=True)


def test_the_weights_are_for_a_tracker_that_takes_them(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is trained, not at the first validation or by the first user of the weights."""
    assert toy("toy", "--output", tmp_path / "x", "--set", "tracker=siamfc-tyni") == 2
    assert "siamfc-tiny" in only_line(capsys)
    assert toy("toy", "--output", tmp_path / "x", "--validate-every", 30) == 1
    told = only_line(capsys)
    assert "--validate-every tracks with siamfc-tiny, which toy does not train: these var" in told
    assert not (tmp_path / "x").exists()


def test_a_validation_does_not_hide_the_time_of_its_step(
    toy: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device works on while the loop goes on: what is left of a step is none of the validation's time."""
    toy_training.validate_quickly(monkeypatch.setattr)
    told: list[str] = []

    def noting(kind: Any, name: str) -> None:
        method = getattr(kind, name)

        def noted(self: Any) -> Any:
            told.append(name)
            return method(self)

        monkeypatch.setattr(kind, name, noted)

    noting(logging.Meter, "settle")
    noting(logging.RunLog, "pause")
    output = tmp_path / "run"
    assert toy("toy", "--output", output, "--steps", 2, "--validate-every", 2) == 0
    # Each step looks at the one before; the last has nobody behind it but the validation.
    assert told[:4] == ["settle", "settle", "settle", "pause"]


def test_another_number_of_devices_is_said(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, whole = tmp_path / "run", tmp_path / "whole"
    still = ("--set", "task.moving=false")
    assert toy("toy", "--output", output, "--devices", 4, *still) == 0
    shutil.rmtree(output / "checkpoints" / "60")
    capsys.readouterr()
    assert toy("toy", "--output", output, "--devices", 2, "--resume") == 0
    assert "this run was on 4 devices and goes on on 2" in capsys.readouterr().err
    assert json.loads((output / "settings.json").read_text())["devices"] == 2
    assert toy("toy", "--output", whole, "--devices", 1, *still) == 0
    for name, array in weights(whole).items():
        np.testing.assert_allclose(weights(output)[name], array, rtol=2e-4, atol=2e-6)


def test_minutes_set_the_length(
    toy: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def update(state: Any, batch: Any) -> Any:
        time.sleep(0.01)
        return state, {"loss": 1.0}

    batches = data.Synthetic(data.Share(8))
    batches.seek(3)
    found = toy_training.run.fitting_steps(0.05, time.monotonic(), update, None, batches)
    assert 1 <= found <= 0.97 * 60 * 0.05 / 0.01
    assert batches.position() == 3
    with pytest.raises(JaxtrackError, match="leave no room for a step"):
        toy_training.run.fitting_steps(0.0005, time.monotonic(), update, None, batches)

    output = tmp_path / "run"
    monkeypatch.setattr(toy_training.run, "fitting_steps", lambda *_: 12)
    assert toy("toy", "--output", output, "--minutes", 3) == 0
    settings = json.loads((output / "settings.json").read_text())
    assert (settings["steps"], settings["minutes"]) == (12, 3)
    monkeypatch.setattr(toy_training.run, "fitting_steps", lambda *_: 1 / 0)
    shutil.rmtree(output / "checkpoints" / "12")
    first = weights(output)
    assert toy("toy", "--output", output, "--resume") == 0
    for name, array in weights(output).items():
        np.testing.assert_array_equal(array, first[name], err_msg=name)


def test_shipped_weights_are_found_by_name() -> None:
    assert toy_training.run.start_file("siamfc-tiny").name == "siamfc-tiny.safetensors"
    with pytest.raises(JaxtrackError, match=r"no preset whose weights come.*siamfc-tiny"):
        toy_training.run.start_file("siamfc-huge")


def test_damaged_lines_of_the_log_are_left_out(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff\xfe{]\n{"step": 2}\n{"step": 3}\n{"step"')
    logging.truncate_after(path, 2)
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert "damaged lines are left out: 2" in capsys.readouterr().err


def test_init_from_takes_the_weights_alone(toy: Callable[..., int], tmp_path: pathlib.Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert toy("toy", "--output", first, "--steps", 40) == 0
    start = ("toy", "--steps", 4, "--log-every", 1, "--output")
    assert toy(*start, second, "--init-from", first / "weights.safetensors") == 0
    assert toy(*start, tmp_path / "third") == 0
    assert log_lines(second)[0]["loss"] < 0.7 * log_lines(tmp_path / "third")[0]["loss"]
    # The Orbax folder: the run's, or one in it.
    for place in (first, first / "checkpoints", first / "checkpoints" / "40" / "state"):
        fourth = tmp_path / "fourth" / place.name
        assert toy(*start, fourth, "--init-from", place) == 0
        card = json.loads((fourth / "weights.json").read_text())
        assert card["data"] == f"synthetic; started from {place.name} (synthetic)"
    # What an older version has left says it in its card alone.
    settings = checkpoints.read_settings(first)
    assert settings is not None
    checkpoints.write_settings(first, {k: v for k, v in settings.items() if k != "seen"})
    assert toy_training.run._seen_by(first) == "synthetic"
    (first / "weights.json").unlink()
    with pytest.raises(JaxtrackError, match="no model card"):
        toy_training.run._seen_by(first)


def test_a_run_goes_on_without_the_weights_that_it_began_with(
    toy: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert toy("toy", "--output", first, "--steps", 2) == 0
    start = ("--init-from", first / "weights.safetensors")
    assert toy("toy", "--output", second, "--steps", 20, *start) == 0
    before = json.loads((second / "weights.json").read_text())
    shutil.rmtree(first)
    shutil.rmtree(second / "checkpoints" / "20")
    assert toy("toy", "--output", second, "--resume") == 0
    after = json.loads((second / "weights.json").read_text())
    assert after.pop("replaces", None) is None
    assert after == before
    assert after["data"] == "synthetic; started from weights.safetensors (synthetic)"


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


def two(
    output: pathlib.Path, *arguments: object, own: tuple[tuple[object, ...], ...] = ((), ())
) -> list[subprocess.Popen[str]]:
    """Two processes of two devices each, that train together; ``own`` is what each alone is told."""
    where = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            command(
                *(*arguments, *own[i], "--output", output, "--processes", 2),
                *("--coordinator", where, "--process-id", i),
            ),
            cwd=ROOT,
            env=environment(2),
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_is_named_by_the_other(tmp_path: pathlib.Path, lost: int) -> None:
    children = two(tmp_path / "run", "toy-long")
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoints" / "20").exists():
        assert [child.poll() for child in children] == [None, None]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children[lost].kill()
    _, said = children[1 - lost].communicate(timeout=60)
    children[lost].communicate()
    assert children[1 - lost].returncode == 1, said
    assert f"error: process {lost} of this run was lost; when all have ended, --resume" in said


def test_a_process_that_does_not_come_is_one_line(
    toy: Callable[..., int], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", 3, "--process-id", 0)
    assert toy("toy", "--output", tmp_path / "x", *where, "--join-timeout", 1) == 1
    assert "process 1, 2 of 3 did not join the run" in only_line(capsys)


def test_every_process_takes_part_in_what_is_done_together(
    toy: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is not the first saves and reads when the first does, or each waits for the other."""
    toy_training.validate_quickly(monkeypatch.setattr)
    shared: list[tuple[str, int, list[str]]] = []
    save, read = checkpoints.Checkpoints.save, checkpoints.Checkpoints.read

    def saved(self: Any, state: Any, record: Any, metrics: dict[str, float]) -> None:
        shared.append(("save", int(state.step), sorted(metrics)))
        save(self, state, record, metrics)

    def was_read(self: Any, template: Any, step: int) -> Any:
        # Which is the best depends on the scores.
        shared.append(("read", step if step == 60 else 0, []))
        return read(self, template, step)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", saved)
    monkeypatch.setattr(checkpoints.Checkpoints, "read", was_read)
    options = ("toy", "--validate-every", 25)
    assert toy(*options, "--output", tmp_path / "first") == 0
    of_first = shared[:]
    shared.clear()
    monkeypatch.setattr(toy_training.run.parallel, "is_main", lambda: False)
    other = tmp_path / "other"
    other.mkdir()
    assert toy(*options, "--output", other) == 0
    assert shared == of_first
    assert ("save", 25, ["loss", "score"]) in shared
    assert [kind for kind, *_ in shared].count("read") == 2
    assert [path.name for path in other.iterdir()] == ["checkpoints"]


@pytest.mark.slow
def test_two_processes_equal_one(toy: Callable[..., int], tmp_path: pathlib.Path) -> None:
    """Two processes of two devices over Gloo: one process of four, but for the order of a sum."""
    output = tmp_path / "two"
    first = ("--validate-every", 25)
    for more in (first, ("--resume",)):
        # The second time: read the checkpoint, write the weights again.
        (output / "weights.safetensors").unlink(missing_ok=True)
        for child in two(output, "toy", *more):
            _, errors = child.communicate(timeout=300)
            assert child.returncode == 0, errors
    one = tmp_path / "one"
    assert toy("toy", "--output", one) == 0
    assert len(jax.devices()) == 4
    for name, array in weights(one).items():
        np.testing.assert_allclose(weights(output)[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    validated = [x["step"] for x in log_lines(output) if "validation_ao" in x]
    assert validated == [25, 50, 60]
    assert (output / "weights-best.safetensors").exists()
    assert len(log_lines(output)) == len(log_lines(one))


@pytest.mark.slow
def test_processes_train_on_the_first_of_their_devices(
    toy: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    """One device of each of two processes: one process of two, through a save and a resume."""
    output, one = tmp_path / "two", tmp_path / "one"
    for more in (("--devices", 1), ("--devices", 1, "--resume")):
        (output / "weights.safetensors").unlink(missing_ok=True)
        shutil.rmtree(output / "checkpoints" / "60", ignore_errors=True)
        for child in two(output, "toy", *more):
            _, errors = child.communicate(timeout=300)
            assert child.returncode == 0, errors
    assert json.loads((output / "settings.json").read_text())["devices"] == 2
    assert toy("toy", "--output", one, "--devices", 2) == 0
    for name, array in weights(one).items():
        np.testing.assert_allclose(weights(output)[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(log_lines(output)) == len(log_lines(one))


@pytest.mark.slow
def test_processes_with_different_devices_are_refused(tmp_path: pathlib.Path) -> None:
    children = two(tmp_path / "x", "toy", own=(("--devices", 1), ("--devices", 2)))
    for child in children:
        _, errors = child.communicate(timeout=300)
        assert child.returncode == 1, errors
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, errors
        assert "the processes would train on 1, 2 devices: give each the same --devices" in lines[0]
    assert not (tmp_path / "x").exists()
