"""What is rarely needed: one target and many, values and gradients, against a plain selection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.ops.mapping import rarely

COUNT, CONFIG = 11, 1.0
RNG = np.random.default_rng(0)
STATE = {"a": jnp.asarray(RNG.normal(size=(COUNT, 3)), jnp.float32), "n": jnp.arange(COUNT)}
FRAMES = jnp.asarray(RNG.integers(0, 9, (COUNT, 2)), jnp.uint8)
FACTOR = jnp.float32(2)


def rare(config, state, factor, frame):
    return {"a": jnp.sin(state["a"] * config) * factor + jnp.sum(frame), "n": state["n"] + 1}


def usual(config, state, factor, frame):
    return state


def choose(condition, state, factor, frame):
    return rarely(rare, usual, CONFIG, condition, state, factor, frame)


def select(condition, state, factor, frame):
    made = rare(CONFIG, state, factor, frame)
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), made, state)


def same(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_many_are_as_one_by_one(share):
    condition = jnp.asarray(RNG.random(COUNT) < share)
    axes = (0, 0, None, 0)
    got = jax.jit(jax.vmap(choose, axes))(condition, STATE, FACTOR, FRAMES)
    same(got, jax.vmap(select, axes)(condition, STATE, FACTOR, FRAMES))


def test_one_condition_for_all():
    for condition in (True, False):
        run = jax.vmap(lambda state, frame, c=condition: choose(jnp.bool_(c), state, FACTOR, frame))
        want = select(condition, STATE, FACTOR, FRAMES[0])
        same(run(STATE, jnp.tile(FRAMES[:1], (COUNT, 1))), want)


def test_gradients_are_those_of_the_selection():
    condition = jnp.asarray(RNG.random(COUNT) < 0.5)

    def value(way, a, factor):
        def one(condition, a, n, frame):
            return jnp.sum(way(condition, {"a": a, "n": n}, factor, frame)["a"] ** 2)

        return jnp.sum(jax.vmap(one)(condition, a, STATE["n"], FRAMES))

    got, want = (
        jax.grad(value, argnums=(1, 2))(way, STATE["a"], FACTOR) for way in (choose, select)
    )
    same(got, want)


def test_settings_may_be_arrays():
    """A search tracks with many settings side by side."""
    settings = jnp.linspace(0.5, 2, COUNT)
    state, frame = jax.tree.map(lambda x: x[0], STATE), FRAMES[0]

    def follow(setting):
        return rarely(rare, usual, setting, jnp.bool_(True), state, FACTOR, frame)

    want = jax.vmap(lambda setting: rare(setting, state, FACTOR, frame))(settings)
    same(jax.jit(jax.vmap(follow))(settings), want)
