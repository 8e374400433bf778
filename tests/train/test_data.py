"""Training on built datasets: two steps of SiamFC, an exact resume of the data's position, errors by name."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxtrack.models.alexnet import AlexNetConfig
from tests import data_fixtures, toy_training
from train import data, presets, run
from train.augment import AugmentConfig
from train.presets import DataConfig, PatchSpec, Preset
from train.step import Aux, Task
from train.tasks import siamfc

PATCHES = DataConfig("siamfc_got10k", PatchSpec(24, 20, 1.0), PatchSpec(48, 40, 2.0))


def toy_pairs(**changes: Any) -> Preset:
    """The toy task, fed with a few pixels of each patch."""

    def loss(config: Any, params: Any, stats: Any, batch: Any, keys: jax.Array) -> Any:
        seen = batch["search"][:, 20, 20:25, 0] / 255.0
        rows = {"x": seen, "y": batch["template"][:, 10, 10] / 255.0}
        rows |= {name: batch[name] for name in ("step", "epoch")}
        value, aux = toy_training.loss(config, params, stats, rows, keys)
        return value, Aux(aux.batch_stats, {**aux.metrics, "first": jnp.sum(seen)})

    task = Task(toy_training.Config(), toy_training.init_variables, toy_training.sample, loss)
    return toy_training.preset(toy_training.Config(), task=task, data=PATCHES, **changes)


def call(monkeypatch: pytest.MonkeyPatch, preset: Preset, *arguments: object) -> int:
    monkeypatch.setattr(presets, "all_presets", lambda: {"here": preset})
    return run.main(["here", *[str(a) for a in arguments]])


def test_resume_goes_on_with_the_next_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    preset = toy_pairs(steps=6, save_every=2, log_every=1)
    options = ("--data", data_fixtures.built(), "--batch-size", 4)
    assert call(monkeypatch, preset, *options, "--output", tmp_path / "whole") == 0
    real = data.Built.next
    seen: list[Any] = []

    def stopping(self: data.Built) -> Any:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(real(self))
        return seen[-1]

    monkeypatch.setattr(data.Built, "next", stopping)
    assert call(monkeypatch, preset, *options, "--output", tmp_path / "cut") == 130
    monkeypatch.setattr(data.Built, "next", real)
    assert "GOT-10k_Train" in seen[0][1]
    assert call(monkeypatch, preset, "--resume", "--output", tmp_path / "cut") == 0
    whole, cut = (
        safetensors.numpy.load_file(tmp_path / n / "weights.safetensors") for n in ("whole", "cut")
    )
    for name, array in whole.items():
        np.testing.assert_array_equal(array, cut[name], err_msg=name)


def test_siamfc_trains_on_a_built_dataset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    published = presets.get("siamfc-got10k")
    config = published.task.config
    assert isinstance(config, siamfc.Config)
    network = AlexNetConfig(channels=(4, 4, 4, 4, 4), groups=(1,) * 5)
    small = dataclasses.replace(
        config,
        tracker=dataclasses.replace(config.tracker, network=network),
        template=AugmentConfig(size=87, shift=2, whole_pixels=True),
        search=AugmentConfig(size=103, shift=2, whole_pixels=True),
    )
    specs = PatchSpec(95, 87, 1.0), PatchSpec(111, 103, 103 / 87)
    preset = dataclasses.replace(
        published, task=siamfc.task(small), data=DataConfig("siamfc_got10k", *specs), log_every=1
    )
    options = ("--data", data_fixtures.built(), "--steps", 2, "--batch-size", 2, "--devices", 1)
    assert call(monkeypatch, preset, *options, "--output", tmp_path / "run") == 0
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]


def test_missing_datasets_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert call(monkeypatch, toy_pairs(), "--data", empty, "--output", tmp_path / "x") == 1
    assert "the recipe needs got10k (train)" in capsys.readouterr().err
    none = dataclasses.replace(toy_pairs(), data=None)
    assert call(monkeypatch, none, "--data", empty, "--output", tmp_path / "x") == 1
    assert "trains on the synthetic world only" in capsys.readouterr().err
