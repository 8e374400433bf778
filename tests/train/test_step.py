"""The update: one device and four agree; a forgotten mean over the devices is found; epochs are exact."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toy_training
from train import optim, parallel, presets
from train.step import TrainState, epoch_of, init_state, make_update

TOY = toy_training.Config(noise=0.0, moving=False)  # no randomness, statistics frozen


def run_update(devices: int, config: toy_training.Config = TOY, steps: int = 3) -> TrainState:
    """Some steps on one fixed global batch of 8, shared by so many devices."""
    preset = toy_training.preset(config)
    variables = preset.task.init_variables(config, jax.random.key(0))
    optimizer = optim.make(preset.optim, variables["params"], steps, preset.epochs)
    places = parallel.local_devices(devices)
    update = make_update(preset.task, optimizer, steps, preset.epochs)
    step = parallel.compile_update(update, places)
    state = parallel.place(init_state(variables, optimizer), places)
    batch = jax.device_get(preset.task.sample(config, jax.random.key(1), 8))
    for _ in range(steps):
        state, _ = step(state, batch, jax.random.key(2))
    return jax.device_get(state)


def largest_difference(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)


def test_one_and_four_devices_agree() -> None:
    one, four = run_update(1), run_update(4)
    assert largest_difference(one, four) < 1e-6
    assert int(four.step) == 3


def test_a_forgotten_mean_over_the_devices_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is worth something only if it fails without the collective."""
    one = run_update(1)
    monkeypatch.setattr(jax.lax, "pmean", lambda tree, axis: tree)
    assert largest_difference(one, run_update(4)) > 1e-3


def test_moving_statistics_are_averaged() -> None:
    moving = toy_training.Config(noise=0.0)
    one, four = run_update(1, moving), run_update(4, moving)
    # A mean of means of equal shares is the mean of all.
    assert largest_difference(one.batch_stats, four.batch_stats) < 1e-6
    assert np.abs(one.batch_stats["mean"]).max() > 1e-3


def test_synthetic_pairs_differ_per_device_and_step() -> None:
    """Keys are folded with the step and the device."""
    seen = []

    def sample(config: Any, key: jax.Array, count: int) -> dict[str, jax.Array]:
        return {"x": jax.random.uniform(key, (count,))}

    def loss(config: Any, params: Any, stats: Any, batch: Any, key: jax.Array) -> Any:
        from train.step import Aux

        first = jnp.where(jax.lax.axis_index("device") == 0, batch["x"][0], 0)
        last = jnp.where(jax.lax.axis_index("device") == 3, batch["x"][0], 0)
        noise = jax.random.uniform(key)
        return params["w"] * 0, Aux(stats, {"first": first, "last": last, "noise": noise})

    task = presets.Task(None, lambda c, k: {"params": {"w": jnp.ones(())}}, sample, loss)
    devices = parallel.local_devices(4)
    optimizer = optax.sgd(0.1)
    step = parallel.compile_update(make_update(task, optimizer, 2, 1), devices)
    state = parallel.place(
        init_state(task.init_variables(None, jax.random.key(0)), optimizer), devices
    )
    for _ in range(2):
        state, metrics = step(state, {"index": np.arange(8)}, jax.random.key(0))
        seen += [float(metrics["first"]), float(metrics["last"]), float(metrics["noise"])]
    assert len(set(seen)) == 6


@pytest.mark.parametrize(("steps", "epochs"), [(100, 50), (101, 50), (7, 3), (3, 1), (2, 5)])
def test_epochs_are_exact(steps: int, epochs: int) -> None:
    count = jax.jit(functools.partial(epoch_of, steps=steps, epochs=epochs))
    for step in range(steps + 1):
        epoch = float(count(jnp.int32(step)))
        assert int(epoch) == step * epochs // steps
        assert epoch == pytest.approx(step * epochs / steps, rel=1e-6)


def test_state_compiles_once() -> None:
    preset = toy_training.preset(TOY)
    traces = 0

    def counted(*arguments: Any) -> Any:
        nonlocal traces
        traces += 1
        return toy_training.loss(*arguments)

    task = presets.Task(TOY, toy_training.init_variables, toy_training.sample, counted)
    variables = task.init_variables(TOY, jax.random.key(0))
    optimizer = optim.make(preset.optim, variables["params"], 30, 3)
    devices = parallel.local_devices(2)
    step = parallel.compile_update(make_update(task, optimizer, 30, 3), devices)
    state = parallel.place(init_state(variables, optimizer), devices)
    for _ in range(30):
        state, _ = step(state, {"index": np.arange(4)}, jax.random.key(0))
    assert traces == 1
