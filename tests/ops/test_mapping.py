"""Formulations by platform; what is rarely needed, one target and many, against a plain selection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.ops.mapping import by_platform, rarely

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


def sum_of_products(pair, number):
    return {"out": jnp.sum(pair[0] * pair[1], axis=0) * number}


def product(pair, number):
    return {"out": jnp.einsum("ij,ij->j", *pair) * number}


def chosen(a, b, number):
    return by_platform(sum_of_products, product, (a, b), number)["out"]


def plain(a, b, number):
    return sum_of_products((a, b), number)["out"]


A, B = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for _ in range(2))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_choice_is_a_function_like_any(compiled):
    def slope(way):
        return lambda a, b, n: jax.grad(lambda a: jnp.sum(way(a, b, n) ** 3))(a)

    def slope_of_slope(way):
        return lambda a, b, n: jax.grad(lambda b: jnp.sum(jnp.sin(slope(way)(a, b, n))))(b)

    def many(way):
        several = jnp.stack([A, 2 * A])
        return lambda a, b, n: jax.vmap(lambda a: slope(way)(a, b, n))(several)

    def many_together(way):
        several = jnp.stack([A, 2 * A])
        together = jax.vmap(way, (0, None, None))
        return lambda a, b, n: jax.grad(lambda b: jnp.sum(together(several, b, n) ** 2))(b)

    def step_by_step(way):
        def two(a, b, n):
            return jax.lax.scan(lambda a, _: (a + way(a, b, n)[None], None), a, length=2)[0]

        return slope(two)

    for made in (lambda way: way, slope, slope_of_slope, many, many_together, step_by_step):
        got, want = (jax.jit(made(way)) if compiled else made(way) for way in (chosen, plain))
        same(got(A, B, 2), want(A, B, 2))


def test_only_the_chosen_formulation_is_traced_and_lowered():
    def cpu(x):
        raise AssertionError("traced for another platform")

    def run(x):
        return by_platform(cpu, jnp.sin, x)

    lowered = jax.jit(jax.grad(run)).trace(1.0).lower(lowering_platforms=("cuda",)).as_text()
    assert "cosine" in lowered
    assert "case" not in lowered
    with pytest.raises(AssertionError, match="another platform"):
        jax.jit(run).lower(1.0)


def test_a_formulation_of_its_own_for_training():
    def value(x):
        return by_platform(jnp.sin, jnp.cos, x, training=jnp.tanh)

    x = jnp.float32(0.3)
    found, slope = jax.value_and_grad(value)(x)
    same((value(x), found, slope), (jnp.sin(x), jnp.tanh(x), jax.grad(jnp.tanh)(x)))
