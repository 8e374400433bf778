"""Timing of training steps: what is printed, and with which digits it is computed."""

import json

import pytest

from jaxtrack.ops import precision
from tests import toy_training
from train import speed


@pytest.mark.parametrize("digits", ["highest", "bfloat16"])
def test_a_recipe_is_timed_with_the_digits_asked_for(digits, monkeypatch, capsys):
    seen = []

    def get(name):
        seen.append(precision.current())
        return toy_training.preset(toy_training.Config())

    monkeypatch.setattr(speed.presets, "get", get)
    words = ["toy", "--seconds", "0.1", "--batch-size", "4", "--precision", digits]
    assert speed.main(words) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["recipe"] == "toy"
    assert row["batch"] == 4
    assert row["quiet"]
    assert row["pairs_per_second"] == pytest.approx(4e3 / row["ms_per_step"])
    assert seen[-1] == digits  # the first look at the name is before anything is measured
