"""Trainings of others: a preset in a module of somebody else's is found by import, and trained."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import safetensors.numpy

from jaxtrack.errors import JaxtrackError
from train import look, presets, run, speed

OWN = '''
"""A task of one's own, with its tracker."""
import dataclasses

from tests import toy_training

TRACKER = toy_training.STILL
TRAINING = toy_training.preset(
    toy_training.Config(noise=0.2), tracker="own_of_others:TRACKER", steps=20, save_every=10
)
NUMBER = 3
'''


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The working folder, with modules of somebody else's; gone after the test."""
    (tmp_path / "own_of_others.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import own_missing_thing\n")
    (tmp_path / "own_raising.py").write_text("raise ValueError('first line\\nsecond')\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def call(*words: object) -> int:
    return run.main([str(word) for word in ("own_of_others:TRAINING", *words)])


def test_a_preset_from_outside_trains(
    own: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fields, settings, a stop, the card and a start from its weights: as one of the library's."""
    assert call("--fields") == 0
    assert "task.noise=0.2" in capsys.readouterr().out
    assert call("--set", "optim.rate=.01") == 0
    output = own / "runs" / "own_of_others.TRAINING"
    written = (output / "weights.safetensors").read_bytes()
    card = json.loads((output / "weights.json").read_text())
    assert card["command"] == "python -m train.run own_of_others:TRAINING --set optim.rate=0.01"
    assert card["preset"] == "own_of_others:TRACKER"
    settings = json.loads((output / "settings.json").read_text())
    assert (settings["preset"], settings["set"]) == ("own_of_others:TRAINING", ["optim.rate=0.01"])
    shutil.rmtree(output / "checkpoints" / "20")
    assert call("--resume") == 0
    assert (output / "weights.safetensors").read_bytes() == written
    start = ("--init-from", output / "weights.safetensors", "--steps", 1, "--output", "next")
    assert call(*start, "--set", "optim.rate=0") == 0
    first, second = (
        safetensors.numpy.load_file(place / "weights.safetensors")
        for place in (output, own / "next")
    )
    np.testing.assert_array_equal(first["params/body/kernel"], second["params/body/kernel"])


def test_a_preset_that_was_changed_does_not_go_on(
    own: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--output", "x", "--steps", 2) == 0
    (own / "own_of_others.py").write_text(OWN.replace("noise=0.2", "noise=0.3"))
    del sys.modules["own_of_others"]
    assert call("--output", "x", "--resume") == 1
    assert "preset 'own_of_others:TRAINING' has changed since this run" in capsys.readouterr().err


def test_the_other_commands_find_it(own: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["own_of_others:TRAINING", "--seconds", "0.1", "--batch-size", "4"]
    assert speed.main(words) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "own_of_others:TRAINING"
    assert look.main(["own_of_others:TRAINING"]) == 1  # a toy has nothing to show
    assert "own_of_others:TRAINING: this task has nothing to show" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own_nowhere:TRAINING", "there is no module own_nowhere"),
        ("own_of_others:TRAINIG", "own_of_others has no TRAINIG; nearest: TRAINING"),
        ("own_of_others:NUMBER", r"is int; a train\.presets\.Preset is wanted"),
        ("own_of_others:TRACKER", r"is Tracker; a train\.presets\.Preset is wanted"),
        ("own_of_others:", "give package.module:PRESET"),
        ("own_of_others:TRAINING.x", "give package.module:PRESET"),
        ("../own_of_others:TRAINING", "give package.module:PRESET"),
        ("own_broken:TRAINING", "own_broken needs the module own_missing_thing"),
        ("own_raising:TRAINING", r"importing own_raising failed .ValueError: first line"),
    ],
)
def test_mistakes_are_one_line(own: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(JaxtrackError, match=message) as caught:
        presets.get(text)
    assert str(caught.value).startswith(f"training preset '{text}': ")
    assert "\n" not in str(caught.value)
