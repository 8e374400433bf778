"""The update: one device and four agree; a forgotten mean over the devices is found; epochs are exact."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from tests import toy_training
from train import data, optim, parallel, presets
from train import step as update_step
from train.step import TrainState, epoch_of, init_state, make_draw, make_update, pair_keys, streams

TOY = toy_training.Config(noise=0.0, moving=False)  # no randomness, statistics frozen


def run_update(
    devices: int,
    config: toy_training.Config = TOY,
    steps: int = 3,
    accumulate: int = 1,
    decay: float = 0.0,
    fixed: bool = True,
) -> TrainState:
    """Some steps on one fixed batch of 8 (or on pairs of the toy's world), shared by so many devices."""
    preset = toy_training.preset(config)
    variables = preset.task.init_variables(config, jax.random.key(0))
    optimizer = optim.make(preset.optim, variables["params"], steps, preset.epochs)
    places = parallel.local_devices(devices)
    update = make_update(preset.task, optimizer, steps, preset.epochs, accumulate, decay)
    step = parallel.compile_update(update, places, None if fixed else make_draw(preset.task))
    state = parallel.place(init_state(variables, optimizer, decay > 0), places)
    batch = {"index": np.arange(8, dtype=np.int32)}
    if fixed:
        keys = jax.random.split(jax.random.key(1), 8)
        batch |= jax.device_get(preset.task.sample(config, keys))
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


def test_pairs_are_the_same_however_many_are_drawn_at_once() -> None:
    task = toy_training.preset(TOY).task
    draws = [
        make_draw(task, abreast)(jnp.int32(3), jnp.arange(4, 10), jax.random.key(2), {})
        for abreast in (1, 2, 4, 64)
    ]
    for other in draws[1:]:
        assert jax.tree.map(jnp.shape, other) == jax.tree.map(jnp.shape, draws[0])
        assert largest_difference(draws[0], other) < 1e-6


class Counted(NamedTuple):
    """All that drawing asks of a state."""

    step: jax.Array


@pytest.mark.parametrize("devices", [2, 4])
def test_drawn_pairs_take_the_place_of_given_ones(devices: int) -> None:
    """As many as asked for, the same on any number of devices, and those that a drawn run would have."""
    task = toy_training.preset(TOY).task
    index, key = np.arange(400, dtype=np.int32), jax.random.key(2)
    pure = jax.device_get(make_draw(task)(jnp.int32(3), jnp.asarray(index), key, {}))
    given = jax.tree.map(lambda x: np.full_like(x, 7), pure)
    seen = []

    def update(state: Any, batch: Any, key: Any) -> Any:
        return state, jax.lax.all_gather(batch["x"], parallel.AXIS).reshape(400, -1)

    for count in (1, devices):
        step = parallel.compile_update(
            update, parallel.local_devices(count), make_draw(task, synthetic=0.25)
        )
        _, rows = step(Counted(jnp.int32(3)), {"index": index, **given}, key)
        seen.append(np.asarray(rows))
    np.testing.assert_array_equal(seen[0], seen[1])
    drawn = (seen[0] != 7).any(axis=1)
    assert 0.18 < drawn.mean() < 0.32
    np.testing.assert_allclose(seen[0][drawn], pure["x"][drawn], atol=1e-6)


def test_a_forgotten_mean_over_the_devices_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is worth something only if it fails without the collective."""
    one = run_update(1)
    monkeypatch.setattr(update_step, "_mean_over_devices", lambda leaf: leaf)
    assert largest_difference(one, run_update(4)) > 1e-3


def test_moving_statistics_are_averaged() -> None:
    moving = toy_training.Config(noise=0.0)
    one, four = run_update(1, moving), run_update(4, moving)
    # A mean of means of equal shares is the mean of all.
    assert largest_difference(one.batch_stats, four.batch_stats) < 1e-6
    assert np.abs(one.batch_stats["mean"]).max() > 1e-3


@pytest.mark.parametrize("devices", [2, 4])
def test_a_run_sees_the_same_pairs_on_any_number_of_devices(devices: int) -> None:
    """With noise in samples and losses: every pair's randomness is its own."""
    noisy = toy_training.Config(moving=False)
    one, many = (run_update(n, noisy, fixed=False) for n in (1, devices))
    assert largest_difference(one, many) < 1e-5
    assert largest_difference(one.params, run_update(1, noisy).params) > 1e-3


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_the_places_of_a_batch(count: int) -> None:
    shares = [data.Share(8 // count, i, count).places() for i in range(count)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(8))


def test_devices_are_the_first_of_every_process() -> None:
    """In the order of the processes, however the platform lists them: each feeds its own share."""
    listed = [(1, 4), (0, 0), (1, 5), (0, 1), (2, 7), (2, 6), (0, 2)]
    devices = [types.SimpleNamespace(process_index=p, id=i) for p, i in listed]
    for count, wanted in ((1, [0, 4, 7]), (2, [0, 1, 4, 5, 7, 6])):
        assert [d.id for d in parallel.first_of_each(devices, count)] == wanted
    here = jax.devices()
    assert parallel.first_of_each(here, 3) == here[:3]


def test_pairs_differ_by_place_and_step() -> None:
    seen = set()
    for step in range(3):
        keys = pair_keys(jax.random.fold_in(jax.random.key(0), step), jnp.arange(4))
        for part in streams(keys, 2):
            seen |= {float(x) for x in jax.vmap(jax.random.uniform)(part)}
    assert len(seen) == 3 * 4 * 2


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 4), (2, 2)])
def test_accumulated_gradients_are_those_of_the_large_batch(devices: int, accumulate: int) -> None:
    whole, parts = run_update(1), run_update(devices, accumulate=accumulate)
    assert largest_difference(whole, parts) < 1e-6
    drawn = run_update(1, fixed=False)
    assert largest_difference(drawn, run_update(1, accumulate=4, fixed=False)) < 1e-6


def test_the_moving_average_follows_the_variables() -> None:
    moving = toy_training.Config(noise=0.0)
    first, last = run_update(1, moving, steps=1, decay=0.5), run_update(1, moving, steps=2)
    start = toy_training.init_variables(moving, jax.random.key(0))["params"]
    want = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, start, first.params)
    assert largest_difference(first.average["params"], want) < 1e-6
    both = run_update(1, moving, steps=2, decay=0.15)
    assert largest_difference(both.params, last.params) == 0.0
    assert largest_difference(both.average["params"], both.params) > 1e-5
    assert both.variables is both.average
    assert run_update(1).variables.keys() == {"params", "batch_stats"}


@pytest.mark.parametrize(("steps", "epochs"), [(100, 50), (101, 50), (7, 3), (3, 1), (2, 5)])
def test_epochs_are_exact(steps: int, epochs: int) -> None:
    count = jax.jit(functools.partial(epoch_of, steps=steps, epochs=epochs))
    for step in range(steps + 1):
        epoch = float(count(jnp.int32(step)))
        assert int(epoch) == step * epochs // steps
        assert epoch == pytest.approx(step * epochs / steps, rel=1e-6)
    with pytest.raises(ValueError, match="fewer steps or epochs"):
        epoch_of(jnp.int32(0), 2**28, 8)


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
    step = parallel.compile_update(make_update(task, optimizer, 30, 3), devices, make_draw(task))
    state = parallel.place(init_state(variables, optimizer), devices)
    for _ in range(30):
        state, _ = step(state, {"index": np.arange(4, dtype=np.int32)}, jax.random.key(0))
    assert traces == 1


def test_one_program_serves_runs_of_all_lengths() -> None:
    """A length that is told gives what one that is built in gives, and compiles nothing anew."""
    preset = toy_training.preset(TOY)
    variables = preset.task.init_variables(TOY, jax.random.key(0))
    devices = parallel.local_devices(1)

    def compiled(steps: int) -> Any:
        optimizer = optim.make(preset.optim, variables["params"], steps, 3)
        update = make_update(preset.task, optimizer, steps, 3)
        step = parallel.compile_update(update, devices, make_draw(preset.task))

        def run(*told: int) -> Any:
            fresh = jax.tree.map(jnp.copy, init_state(variables, optimizer))
            state = parallel.place(fresh, devices)
            for _ in range(3):
                batch = {"index": np.arange(4, dtype=np.int32)}
                batch = parallel.told(batch, *told) if told else batch
                state, _ = step(state, batch, jax.random.key(0))
            return state.params

        return run

    program = compiled(30)
    assert largest_difference(program(7), compiled(7)()) < 1e-6
    assert largest_difference(program(7), program(30)) > 1e-5


def test_the_gradient_of_another_loss_is_refused() -> None:
    """SiamRPN++ has a gradient of its own: with another loss beside it, that loss would never be trained."""
    task = presets.get("siamrpnpp-tiny").task

    def own(config: Any, params: Any, batch_stats: Any, batch: Any, keys: Any) -> Any:
        value, aux = task.loss(config, params, batch_stats, batch, keys)
        return 2 * value, aux

    with pytest.raises(
        JaxtrackError, match=r"gradient is that of .*siamrpn.loss.loss, not of .*own:"
    ):
        dataclasses.replace(task, loss=own)
    assert dataclasses.replace(task, loss=own, gradient=None).loss is own


@pytest.mark.parametrize(("platform", "asked"), [("gpu", True), ("cpu", False)])
def test_gpus_draw_by_kernels(platform: str, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[Any] = []
    monkeypatch.setattr(jax.config, "update", lambda *change: changes.append(change))
    parallel._draw_by_kernels([types.SimpleNamespace(platform=platform)])
    assert changes == ([("jax_threefry_gpu_kernel_lowering", True)] if asked else [])
