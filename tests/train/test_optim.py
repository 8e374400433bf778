"""Schedules, groups, freezing and decay of the optimisers, against plain numpy."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.settings import replaced
from train.optim import Group, OptimConfig, Schedule, learning_rate, make, scaled_rate


def rates(config: OptimConfig, epochs: int) -> np.ndarray:
    return np.array([float(learning_rate(config, e, epochs)) for e in range(epochs)])


def test_siamfc_schedule() -> None:
    """siamfc-pytorch: 0.01 * (1e-5 / 1e-2) ** (epoch / 50)."""
    config = OptimConfig("sgd", 1e-2, Schedule("geometric", final=1e-5, per_epoch=True))
    np.testing.assert_allclose(rates(config, 50), 1e-2 * 1e-3 ** (np.arange(50) / 50), rtol=1e-5)
    assert float(learning_rate(config, 3.9, 50)) == float(learning_rate(config, 3.0, 50))


def test_pysot_schedule() -> None:
    """PySOT's 8-GPU ResNet-50: warm-up that never reaches the peak, then a log space with both ends."""
    schedule = Schedule(
        "geometric",
        final=5e-4,
        per_epoch=True,
        endpoint=True,
        warmup_epochs=5,
        warmup_start=1e-3,
        warmup_kind="geometric",
    )
    warm = 1e-3 * 5 ** (np.arange(5) / 5)
    expected = np.concatenate([warm, np.logspace(np.log10(5e-3), np.log10(5e-4), 15)])
    np.testing.assert_allclose(rates(OptimConfig("sgd", 5e-3, schedule), 20), expected, rtol=1e-5)


def test_ostrack_schedule() -> None:
    """One drop after 240 of 300 epochs."""
    config = OptimConfig("adamw", 4e-4, Schedule("step", milestones=(240,), per_epoch=True))
    expected = np.where(np.arange(300) < 240, 4e-4, 4e-5)
    np.testing.assert_allclose(rates(config, 300), expected, rtol=1e-6)


def test_smooth_schedules() -> None:
    cycle = OptimConfig("adamw", 2e-3, Schedule("onecycle", rise=0.3))
    at = [float(learning_rate(cycle, part, 1)) for part in (0, 0.15, 0.3, 0.65, 1)]
    np.testing.assert_allclose(at, [8e-5, 1.04e-3, 2e-3, 1e-3, 0], rtol=1e-5, atol=1e-9)
    cosine = OptimConfig("adam", 1.0, Schedule("cosine", final=0.2, warmup_epochs=2))
    at = [float(learning_rate(cosine, epoch, 10)) for epoch in (0, 1, 2, 6, 10)]
    np.testing.assert_allclose(at, [0, 0.5, 1, 0.6, 0.2], rtol=1e-6)


RATIOS = Schedule("geometric", final=1e-4)
RISING = Schedule("cosine", warmup_epochs=2, warmup_start=1e-4, warmup_kind="geometric")


@pytest.mark.parametrize(
    ("schedule", "change", "words"),
    [
        (RATIOS, "rate=0", "rate is 0; above 0 with schedule.kind=geometric"),
        (RISING, "rate=0", "rate is 0; above 0 with schedule.warmup_kind=geometric"),
        (RATIOS, "schedule.final=0", "final is 0; above 0 with kind=geometric"),
        (RISING, "schedule.warmup_start=0", "warmup_start is 0; above 0 with warmup_kind="),
        (Schedule(), "schedule.kind=geometric", "final is 0"),
    ],
)
def test_equal_ratios_begin_and_end_above_nothing(
    schedule: Schedule, change: str, words: str
) -> None:
    config = OptimConfig("sgd", 0.1, schedule)
    with pytest.raises(UsageError, match=f"{change}: {words}"):
        replaced(config, [change])


@pytest.mark.parametrize(
    "schedule",
    [
        *(Schedule(kind) for kind in ("constant", "step", "cosine", "onecycle")),
        Schedule("cosine", warmup_epochs=2),
        Schedule("constant", warmup_kind="geometric"),  # of no epochs
    ],
)
def test_other_schedules_take_a_rate_of_nothing(schedule: Schedule) -> None:
    """What is measured then is the network as it was, with its batch statistics moved."""
    assert rates(OptimConfig("sgd", 0.0, schedule), 5).tolist() == [0.0] * 5


@pytest.mark.parametrize("rise", [0.0, 1.0])
def test_one_cycle_may_only_rise_or_only_fall(rise: float) -> None:
    schedule = Schedule("onecycle", rise=rise, per_epoch=True, endpoint=True)
    assert np.isfinite(rates(OptimConfig("sgd", 0.1, schedule), 5)).all()


def steps_of(config: OptimConfig, count: int, epochs: int, gradient: float = 1.0) -> list[Any]:
    params = {
        "backbone": {"a": jnp.full(2, 2.0)},
        "stem": {"a": jnp.ones(2)},
        "head": {"b": jnp.ones(3)},
    }
    optimizer = make(config, params, count, epochs)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    path = [params]
    for _ in range(count):
        grads = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
        moves, state = update(grads, state, params)
        params = optax.apply_updates(params, moves)
        path.append(params)
    return path


def test_sgd_is_torchs() -> None:
    """Momentum buffer starts as the gradient; decay is added to the gradient."""
    config = OptimConfig("sgd", 0.1, momentum=0.9, weight_decay=0.5)
    value, buffer = 1.0, 0.0
    for params in steps_of(config, 4, 1)[1:]:
        buffer = 0.9 * buffer + (1 + 0.5 * value)
        value -= 0.1 * buffer
        np.testing.assert_allclose(params["head"]["b"], value, rtol=1e-6)


def test_adamw_is_torchs() -> None:
    config = OptimConfig("adamw", 0.1, weight_decay=0.5, no_decay=r"^stem")
    value, bare, m, v = 1.0, 1.0, 0.0, 0.0
    for t, params in enumerate(steps_of(config, 4, 1)[1:], 1):
        m, v = 0.9 * m + 0.1, 0.999 * v + 0.001
        move = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        value, bare = value - 0.1 * (move + 0.5 * value), bare - 0.1 * move
        np.testing.assert_allclose(params["head"]["b"], value, rtol=1e-5)
        np.testing.assert_allclose(params["stem"]["a"], bare, rtol=1e-5)


def test_frozen_and_waking_groups() -> None:
    config = OptimConfig(
        "sgd",
        0.1,
        momentum=0.9,
        weight_decay=0.5,
        groups=(Group(r"^stem", rate=0.0), Group(r"^backbone", rate=0.1, from_epoch=2)),
    )
    path = steps_of(config, 8, 4)
    for params in path:
        np.testing.assert_array_equal(params["stem"]["a"], 1.0)
    for params in path[:5]:  # two epochs of two steps: neither gradient nor decay nor momentum
        np.testing.assert_array_equal(params["backbone"]["a"], 2.0)
    np.testing.assert_allclose(path[5]["backbone"]["a"], 2 - 0.1 * 0.1 * (1 + 0.5 * 2), rtol=1e-6)


def test_restart_forgets_momentum() -> None:
    groups = (Group(r"^backbone", from_epoch=1),)
    kept = steps_of(OptimConfig("sgd", 0.1, groups=groups), 4, 2)
    fresh = steps_of(OptimConfig("sgd", 0.1, groups=groups, restart=True), 4, 2)
    np.testing.assert_array_equal(kept[2]["head"]["b"], fresh[2]["head"]["b"])
    step = fresh[2]["head"]["b"] - fresh[3]["head"]["b"]
    np.testing.assert_allclose(step, 0.1, rtol=1e-6)
    assert (kept[2]["head"]["b"] - kept[3]["head"]["b"] > 0.2).all()


def test_clipping_counts_only_what_trains() -> None:
    groups = (Group(r"^(backbone|stem)", rate=0.0),)
    config = OptimConfig("sgd", 1.0, momentum=0.0, clip_norm=0.5, groups=groups)
    moved = steps_of(config, 1, 1, gradient=7.0)[1]["head"]["b"] - 1
    np.testing.assert_allclose(np.linalg.norm(moved), 0.5, rtol=1e-5)


def test_frozen_parameters_cost_no_memory() -> None:
    config = OptimConfig("adam", 0.1, groups=(Group(r"^backbone", rate=0.0),))
    params = {"backbone": jnp.zeros(1000), "head": jnp.zeros(3)}
    state = make(config, params, 1, 1).init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 10


def test_group_that_matches_nothing_is_refused() -> None:
    config = OptimConfig("adam", 0.1, groups=(Group(r"^bakbone"),))
    with pytest.raises(ValueError, match="bakbone"):
        make(config, {"backbone": jnp.zeros(1)}, 1, 1)


def test_rate_follows_the_batch() -> None:
    sgd = OptimConfig("sgd", 0.1, Schedule("geometric", final=0.01))
    assert scaled_rate(sgd, 32, 8).rate == pytest.approx(0.4)
    assert scaled_rate(sgd, 32, 8).schedule.final == pytest.approx(0.04)
    assert scaled_rate(OptimConfig("adamw", 0.1), 32, 8).rate == pytest.approx(0.2)


OWN = """
import jax.numpy as jnp
import optax

ADAM = optax.chain(optax.identity(), optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8))
LION = optax.scale_by_lion()
NUMBER = 3


def half(part):
    return 0.5 + 0 * part


def falling(part):
    return 1 - part


def pair(part):
    return jnp.stack([part, part])
"""


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of somebody else's in the working folder."""
    (tmp_path / "own_optim.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_optim", None)


def test_an_optimiser_and_a_schedule_of_ones_own(own: None) -> None:
    """Clipping, decay, groups, waking and rate are the library's: Adam from outside does as ours does."""
    groups = (Group(r"^stem", rate=0.0), Group(r"^backbone", rate=0.1, from_epoch=2))
    ours = OptimConfig(
        "adamw",
        0.05,
        weight_decay=0.5,
        no_decay="^head",
        clip_norm=1.0,
        groups=groups,
        restart=True,
    )
    theirs = replaced(ours, ["name=own_optim:ADAM", "schedule.kind=own_optim:half", "rate=.1"])
    for one, other in zip(steps_of(ours, 8, 4), steps_of(theirs, 8, 4), strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), one, other)
    falling = OptimConfig("sgd", 0.2, Schedule("own_optim:falling", per_epoch=True))
    np.testing.assert_allclose(rates(falling, 4), [0.2, 0.15, 0.1, 0.05], rtol=1e-6)
    lion = steps_of(OptimConfig("own_optim:LION", 0.1), 2, 1)
    np.testing.assert_allclose(lion[2]["head"]["b"], 0.8, rtol=1e-6)
    assert scaled_rate(OptimConfig("own_optim:LION", 0.1), 32, 8).rate == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("name=adm", "name is 'adm'; one of sgd, adam, adamw, or package.module:NAME"),
        (
            "schedule.kind=cosin",
            "kind is 'cosin'; one of constant, geometric, step, cosine, onecycle, or",
        ),
        ("name=own_optim:NUMBER", r"optim.name=own_optim:NUMBER is int; an optax.GradientTransf"),
        ("name=own_optim:half", r"optim.name=own_optim:half is function; an optax"),
        ("name=own_optim:LIO", r"optim.name=own_optim:LIO: own_optim has no LIO; nearest: LION"),
        ("name=own_nowhere:LION", "there is no module own_nowhere"),
        ("schedule.kind=own_optim:pair", r"kind=own_optim:pair returns shape \(2,\); one number"),
        ("schedule.kind=own_optim:NUMBER", "schedule.kind=own_optim:NUMBER is int; a function of"),
    ],
)
def test_parts_that_are_none_are_one_line(own: None, change: str, message: str) -> None:
    with pytest.raises(JaxtrackError, match=message):
        steps_of(replaced(OptimConfig("sgd", 0.1), [change]), 1, 1)
