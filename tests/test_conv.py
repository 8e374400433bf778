"""Every formulation of the convolution equals XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.ops import conv

CASES = [
    # n, h, w, c, kernel, features, stride, padding, dilation
    (5, 12, 11, 3, 5, 4, 2, 1, 1),
    (2, 9, 10, 6, 3, 5, 1, 1, 2),
    (2, 10, 10, 2, 4, 3, 3, 0, 1),
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
