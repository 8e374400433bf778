"""Batch normalisation: its statistics, and the gradient that is written by hand."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.models import layers
from jaxtrack.models.layers import BatchNorm, Conv, normalise_batch
from jaxtrack.models.mobilenet import relu6


def draw(*shape: int, seed: int = 0) -> jnp.ndarray:
    return jnp.asarray(np.random.RandomState(seed).randn(*shape), jnp.float32)


def plain(x, scale, bias, epsilon):
    axes = {"axis": (0, 1, 2), "keepdims": True}
    mean, var = jnp.mean(x, **axes), jnp.var(x, **axes)
    return (x - mean) / jnp.sqrt(var + epsilon) * scale[None, None, None] + bias[None, None, None]


def squares_of_gradient(function):
    """A function of the gradient, whose own gradient is one of second order."""
    return lambda *given: jnp.sum(jnp.square(jax.grad(function)(*given)))


def test_the_gradient_is_that_of_the_definition():
    x, scale, bias = 3 + 2 * draw(2, 5, 4, 3), draw(3, seed=1), draw(3, seed=2)
    weight = draw(2, 5, 4, 3, seed=3)

    def value(function, *given):
        return jnp.sum(function(*given, 1e-5) * weight)

    def ours(*given):
        return normalise_batch(*given)[0]

    np.testing.assert_allclose(
        ours(x, scale, bias, 1e-5), plain(x, scale, bias, 1e-5), rtol=1e-5, atol=1e-5
    )
    for order in (lambda function: function, squares_of_gradient):
        got, want = (
            jax.grad(order(lambda *given, f=f: value(f, *given)), argnums=(0, 1, 2))(x, scale, bias)
            for f in (ours, plain)
        )
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_statistics_move_as_in_pytorch():
    """The running variance takes the unbiased one; the result is normalised by the biased one."""
    x, layer = draw(2, 3, 3, 4), BatchNorm(momentum=0.25)
    variables = layer.init(jax.random.key(0), x, False)
    _, moved = layer.apply(variables, x, True, mutable=["batch_stats"])
    flat = np.asarray(x).reshape(-1, 4)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.25 * flat.mean(0), atol=1e-6)
    want = 0.75 + 0.25 * flat.var(0, ddof=1)
    np.testing.assert_allclose(moved["batch_stats"]["var"], want, rtol=1e-5)


def test_a_parameter_of_another_shape_is_named():
    given = {"params": {"kernel": jnp.zeros((1, 1, 3, 5)), "bias": jnp.zeros(4)}}
    with pytest.raises(flax.errors.ScopeParamShapeError, match="kernel"):
        Conv(4, 1).apply(given, jnp.zeros((1, 2, 2, 3)))


def test_relu6_has_no_gradient_at_its_ends():
    x = jnp.asarray([-1.0, 0.0, 3.0, 6.0, 7.0])
    np.testing.assert_array_equal(relu6(x), jnp.clip(x, 0, 6))
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(relu6(x)))(x), [0, 0, 1, 0, 0])


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_in_two_passes_is_the_same_with_ties(stride):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (1, 8, 9, 1)), jnp.float32)
    along = functools.partial(layers._max_along, size=3, stride=stride)

    def in_one(x):
        return layers._max_of_all(x, 3, stride)

    def in_two(x):
        return along(along(x, axis=2), axis=1)

    np.testing.assert_array_equal(in_two(x), in_one(x))
    slopes = [jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2))(x) for f in (in_one, in_two)]
    np.testing.assert_array_equal(*slopes)
