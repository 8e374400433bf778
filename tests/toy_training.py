"""A task that trains in milliseconds, and the training command line with only that task: for the tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtrack.base import Prediction, Tracker
from jaxtrack.synthetic.world import WorldConfig
from train import held, presets, run, validation
from train.optim import Group, OptimConfig, Schedule
from train.presets import Preset
from train.step import Aux, Batch, Task, streams


@dataclasses.dataclass(frozen=True)
class Config:
    features: int = 5
    nan_step: int = -1
    noise: float = 0.1
    moving: bool = True


def init_variables(config: Config, key: Array) -> dict[str, Any]:
    weights = jax.random.normal(key, (config.features, 3))
    return {
        "params": {
            "body": {"kernel": weights, "bias": jnp.zeros(3)},
            "head": {"scale": jnp.ones(3)},
        },
        "batch_stats": {"mean": jnp.zeros(config.features)},
    }


def sample(config: Config, keys: Array) -> Batch:
    key_x, key_y = streams(keys, 2)
    x = jax.vmap(lambda k: jax.random.normal(k, (config.features,)))(key_x)
    y = x[:, :3] + config.noise * jax.vmap(lambda k: jax.random.normal(k, (3,)))(key_y)
    return {"x": x, "y": y}


def loss(
    config: Config, params: Any, batch_stats: Any, batch: Batch, keys: Array
) -> tuple[Array, Aux]:
    x, body = batch["x"], params["body"]
    if config.noise:
        x = x * jax.vmap(lambda k: jax.random.bernoulli(k, 0.9, x.shape[1:]))(keys)
    y = (x @ body["kernel"] + body["bias"][None]) * params["head"]["scale"][None]
    value = jnp.mean(jnp.square(y - batch["y"]))
    value = jnp.where(batch["step"] == config.nan_step, jnp.nan, value)
    stats = batch_stats
    if config.moving:
        stats = {"mean": 0.9 * batch_stats["mean"] + 0.1 * jnp.mean(x, axis=0)}
    return value, Aux(stats, {"mean": jnp.mean(y), "epoch": batch["epoch"]})


def preset(config: Config, **changes: Any) -> Preset:
    recipe = OptimConfig(
        "adamw",
        5e-2,
        Schedule("cosine"),
        weight_decay=1e-3,
        clip_norm=1.0,
        groups=(Group("^head", 0.5, from_epoch=1),),
    )
    fields: dict[str, Any] = {
        "task": Task(config, init_variables, sample, loss),
        "tracker": "siamfc-tiny",
        "optim": recipe,
        "batch_size": 8,
        "steps": 60,
        "epochs": 3,
        "log_every": 5,
        "save_every": 10,
        "source": "a toy",
    }
    return Preset(**{**fields, **changes})


PRESETS = {
    "toy": preset(Config()),
    "toy-long": preset(Config(), steps=100_000, save_every=20),
    "toy-nan": preset(Config(nan_step=24)),
    "toy-other": preset(Config(features=6)),
}


@dataclasses.dataclass(frozen=True)
class Still:
    """Settings of a tracker that says one box, whatever it sees."""


STILL = Tracker(
    Still(),
    lambda config, key: {},
    lambda config, variables, frame, box, frame_size: box,
    lambda config, variables, state, frame: (state, Prediction(state, jnp.ones(()))),
)


def validate_quickly(change: Callable[[Any, str, Any], None]) -> None:
    """Validate on one small clip, by the tracker that stands still: ``change(object, name, value)``."""
    small = WorldConfig(height=48, width=64, length=3, target_size=(10.0, 20.0))
    change(validation, "tracker_of", lambda preset: STILL)
    change(validation, "Drawn", lambda: held.Drawn(1, small))


def main(arguments: list[str] | None = None) -> int:
    presets.all_presets = lambda: PRESETS
    validate_quickly(setattr)
    return run.main(arguments)
