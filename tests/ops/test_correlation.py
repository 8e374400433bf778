"""Correlations: every form against a plain loop, against each other, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.ops import correlation
from jaxtrack.ops.correlation import (
    depthwise_correlation,
    depthwise_correlation_grouped,
    up_channel_correlation,
)


def draw(*shape: int, seed: int = 0) -> jnp.ndarray:
    return jnp.asarray(np.random.RandomState(seed).randn(*shape), jnp.float32)


def depthwise_loop(z: np.ndarray, x: np.ndarray) -> np.ndarray:
    n, h, w, c = z.shape
    out = np.zeros((n, x.shape[1] - h + 1, x.shape[2] - w + 1, c))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[:, i, j] = (z * x[:, i : i + h, j : j + w]).sum((1, 2))
    return out


@pytest.mark.parametrize(
    ("z_shape", "x_shape"), [((1, 4, 4, 3), (1, 9, 9, 3)), ((3, 3, 5, 2), (3, 7, 6, 2))]
)
def test_depthwise_equals_a_loop_and_a_grouped_convolution(z_shape, x_shape):
    z, x = draw(*z_shape), draw(*x_shape, seed=1)
    want = depthwise_loop(np.asarray(z, np.float64), np.asarray(x, np.float64))
    np.testing.assert_allclose(depthwise_correlation(z, x), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(depthwise_correlation_grouped(z, x), want, rtol=1e-4, atol=1e-5)


def test_depthwise_agrees_by_taps_and_by_rows():
    z, x = draw(3, 3, 5, 2), draw(3, 7, 6, 2, seed=1)
    rows = correlation._depthwise_by_rows(z, x)
    np.testing.assert_allclose(rows, correlation._depthwise_by_taps(z, x), rtol=1e-5, atol=1e-5)


def test_depthwise_gradient_equals_that_of_the_grouped_convolution():
    z, x, g = draw(2, 3, 4, 5), draw(2, 8, 7, 5, seed=1), draw(2, 6, 4, 5, seed=2)

    def value(function, z, x):
        return jnp.sum(function(z, x) * g)

    ours = jax.grad(value, argnums=(1, 2))(depthwise_correlation, z, x)
    want = jax.grad(value, argnums=(1, 2))(depthwise_correlation_grouped, z, x)
    for a, b in zip(ours, want):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_up_channel_reads_the_template_as_output_times_input(count):
    outputs, channels = 4, 3
    z, x = draw(count, 2, 3, outputs * channels), draw(count, 5, 6, channels, seed=1)
    got = np.asarray(up_channel_correlation(z, x))
    assert got.shape == (count, 4, 4, outputs)
    for o in range(outputs):
        part = depthwise_loop(
            np.asarray(z)[..., o * channels : (o + 1) * channels], np.asarray(x)
        ).sum(-1)
        np.testing.assert_allclose(got[..., o], part, rtol=1e-4, atol=1e-5)


def test_up_channel_gradient_is_that_of_its_definition():
    z, x = draw(2, 2, 2, 6), draw(2, 4, 4, 3, seed=1)

    def plain(z, x):
        kernels = z.reshape(2, 2, 2, 2, 3)
        rows = [
            jnp.einsum("nhwoc,nhwc->no", kernels, x[:, i : i + 2, j : j + 2], precision="highest")
            for i in range(3)
            for j in range(3)
        ]
        return jnp.stack(rows, axis=1).reshape(2, 3, 3, 2)

    def value(function, z, x):
        return jnp.sum(jnp.square(function(z, x)))

    ours = jax.grad(value, argnums=(1, 2))(up_channel_correlation, z, x)
    want = jax.grad(value, argnums=(1, 2))(plain, z, x)
    for a, b in zip(ours, want):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_depthwise_is_no_grouped_convolution_on_a_cpu():
    """Which is more than fifteen times slower there."""
    z, x = draw(1, 5, 5, 256), draw(1, 29, 29, 256, seed=1)
    grouped = "feature_group_count = 256"

    def program(function) -> str:
        return jax.jit(function).trace(z, x).lower(lowering_platforms=("cpu",)).as_text()

    assert grouped in program(depthwise_correlation_grouped)
    assert grouped not in program(depthwise_correlation)


def test_pairs_agree_in_every_formulation():
    z, x, g = draw(3, 3, 4, 5), draw(3, 8, 7, 5, seed=1), draw(3, 6, 4, seed=2)

    def both(function):
        value = function(z, x)
        return value, jax.grad(lambda z, x: jnp.sum(function(z, x) * g), argnums=(0, 1))(z, x)

    ours, want = both(correlation._pairs_by_taps), both(correlation._pairs_by_patches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, want)
    np.testing.assert_allclose(correlation.cross_correlation(z[0], x[:1])[0], want[0][0], atol=1e-4)
    taps = draw(3, 2, 4, 7, 6)
    shifted = correlation._shifted_along_diagonals(taps)
    np.testing.assert_allclose(shifted, correlation._shifted_one_by_one(taps), atol=1e-5)
