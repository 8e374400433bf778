"""Every formulation of the convolution equals XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.ops import conv, winograd

CASES = [
    # n, h, w, c, kernel, features, stride, padding, dilation
    (5, 12, 11, 3, 5, 4, 2, 1, 1),
    (2, 9, 10, 6, 3, 5, 1, 1, 2),
    pytest.param((2, 10, 10, 2, 4, 3, 3, 0, 1), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("case", CASES)
def test_formulations_agree_with_their_gradients(case):
    n, h, w, c, k, features, stride, pad, dilation = case
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (n, h, w, c))
    kernel = jax.random.normal(keys[1], (k, k, c, features))
    padding = ((pad, pad), (pad, pad))
    both = (stride, stride), padding, (dilation, dilation)
    functions = {
        "chosen": lambda x, kernel: conv.conv2d(
            x, kernel, strides=both[0], padding=padding, dilation=both[2]
        ),
        "patches": lambda x, kernel: conv.conv2d_patches(x, kernel, *both),
        "rows": lambda x, kernel: conv.conv2d_rows(x, kernel, *both),
    }
    if dilation == 1:
        functions["space_to_depth"] = lambda x, kernel: conv.conv2d_space_to_depth(
            x, kernel, stride, padding
        )

    def value(function):
        return jax.value_and_grad(
            lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))), argnums=(0, 1)
        )(x, kernel)

    want = conv.conv2d_xla(x, kernel, *both)
    want_gradients = value(lambda x, kernel: conv.conv2d_xla(x, kernel, *both))[1]
    for name, function in functions.items():
        np.testing.assert_allclose(function(x, kernel), want, atol=2e-4, err_msg=name)
        for ours, theirs in zip(value(function)[1], want_gradients):
            np.testing.assert_allclose(ours, theirs, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(("groups", "stride"), [(2, 1), (6, 1), (6, 2)])
def test_groups(groups, stride):
    keys = jax.random.split(jax.random.key(1), 2)
    x = jax.random.normal(keys[0], (2, 9, 9, 6))
    kernel = jax.random.normal(keys[1], (3, 3, 6 // groups, 6))
    arguments = {"strides": (stride, stride), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    ours = conv.conv2d(x, kernel, groups=groups, **arguments)
    theirs = conv.conv2d_xla(x, kernel, groups=groups, **arguments)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_kernels_of_targets_agree_on_accelerators(groups):
    """Patches times kernel, side by side under vmap, with gradients, equal XLA's convolution."""
    keys = jax.random.split(jax.random.key(3), 2)
    x = jax.random.normal(keys[0], (3, 2, 7, 6, 4))
    kernel = jax.random.normal(keys[1], (3, 3, 3, 4 // groups, 6))
    geometry = conv.Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), groups)

    def both(own):
        one = jax.vmap(lambda x, kernel: conv._on_accelerator(x, kernel, geometry, own))
        value = one(x, kernel)
        gradient = jax.grad(lambda x, k: jnp.sum(jnp.sin(one(x, k))), argnums=(0, 1))(x, kernel)
        return value, gradient

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), both(True), both(False))


@pytest.mark.parametrize("taps", range(2, winograd.MOST_TAPS + 1))
def test_winograd_transforms_are_exact(taps):
    """In float64 minimal filtering is the direct sum, so its constants have no rounding of their own."""
    outputs = winograd.tile_outputs(taps)
    out_side, kernel_side, tile_side = winograd.transforms(outputs, taps)
    rng = np.random.default_rng(taps)
    tile, kernel = rng.normal(size=outputs + taps - 1), rng.normal(size=taps)
    found = out_side @ ((kernel_side @ kernel) * (tile_side @ tile))
    np.testing.assert_allclose(found, np.correlate(tile, kernel, "valid"), atol=1e-12)


@pytest.mark.parametrize(
    ("n", "channels", "side", "features", "stride", "pad", "groups"),
    [(3, 12, 3, 16, 1, 1, 1), (1, 24, 5, 32, 1, 0, 2), (2, 3, 7, 16, 2, 1, 1)],
)
def test_minimal_filtering_agrees_with_its_gradients(
    n, channels, side, features, stride, pad, groups
):
    keys = jax.random.split(jax.random.key(2), 2)
    x = jax.random.normal(keys[0], (n, 21, 26, channels))
    kernel = jax.random.normal(keys[1], (side, side, channels // groups, features))
    strides, padding = (stride, stride), ((pad, pad), (pad, pad))
    one = x[..., : channels // groups], kernel[..., : features // groups]
    assert conv._filters_fast(*one, strides, padding, (1, 1))

    def chosen(x, kernel):
        return conv.conv2d(x, kernel, strides=strides, padding=padding, groups=groups)

    def xla(x, kernel):
        return conv.conv2d_xla(x, kernel, strides, padding, groups=groups)

    def gradients(function):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(function(x, k) / 8)), argnums=(0, 1))

    np.testing.assert_allclose(jax.jit(chosen)(x, kernel), xla(x, kernel), atol=2e-4)
    ours, theirs = jax.jit(gradients(chosen))(x, kernel), jax.jit(gradients(xla))(x, kernel)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize(("stride", "pad", "dilation"), [(1, 1, 1), (1, 2, 2), (2, 0, 1)])
def test_depthwise_gradients_are_those_of_xlas_convolution(platform, stride, pad, dilation):
    """First and second order; the accelerators' formulation, computed here."""
    keys = jax.random.split(jax.random.key(2), 2)
    x = jax.random.normal(keys[0], (2, 8, 9, 5))
    kernel = jax.random.normal(keys[1], (3, 3, 1, 5))
    geometry = conv.Geometry((stride,) * 2, ((pad, pad),) * 2, (dilation,) * 2, 5)
    ours = conv._on_cpu if platform == "cpu" else functools.partial(conv._on_accelerator, own=False)

    def gradients(function):
        def value(x, kernel):
            return jnp.sum(jnp.sin(function(x, kernel)))

        first = jax.grad(value, (0, 1))
        second = jax.grad(lambda x, kernel: jnp.sum(first(x, kernel)[1] ** 2), (0, 1))
        return first(x, kernel), second(x, kernel)

    found = gradients(lambda x, kernel: ours(x, kernel, geometry))
    wanted = gradients(lambda x, kernel: conv.conv2d_xla(x, kernel, *geometry))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), found, wanted)


@pytest.mark.parametrize("together", [False, True])
def test_depthwise_gradients_by_platform_agree(monkeypatch, together):
    keys = jax.random.split(jax.random.key(3), 2)
    x, size = jax.random.normal(keys[0], (2, 9, 8, 5)), (3, 2)
    cotangent = jax.random.normal(keys[1], (2, 4, 3, 5))

    def sums(x, cotangent):
        return conv.depthwise_gradient(x, cotangent, size, (2, 3), together=together)

    want = np.zeros((2, 3, 2, 5), np.float32)
    for i in range(size[0]):
        for j in range(size[1]):
            want[:, i, j] = jnp.sum(x[:, i : i + 7 : 2, j : j + 7 : 3] * cotangent, axis=(1, 2))
    if together:
        want = want.sum(0)[:, :, None]
    np.testing.assert_allclose(sums(x, cotangent), want, rtol=1e-4, atol=1e-5)
    lowered = jax.jit(sums).trace(x, cotangent).lower(lowering_platforms=("cuda",))
    assert "convolution" not in lowered.as_text()
    monkeypatch.setattr(conv, "by_platform", lambda cpu, other, *given: other(*given))
    np.testing.assert_allclose(sums(x, cotangent), want, rtol=1e-4, atol=1e-5)
