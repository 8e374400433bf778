"""Batch normalisation: its statistics, and the gradient that is written by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.models.layers import BatchNorm, normalise_batch


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
