"""The choice of digits: one context, seen by every product and network, never shared between programs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxtrack.models.layers import Conv
from jaxtrack.ops import precision

HIGHEST, HIGH = lax.Precision.HIGHEST, lax.Precision.HIGH


def test_auto_is_float32_on_a_cpu_and_less_elsewhere() -> None:
    found = {}
    for platform in ("cpu", "gpu", "tpu"):
        with precision.using("auto", platform):
            found[platform] = precision.current()
    assert found == {"cpu": "highest", "gpu": "high", "tpu": "high"}
    assert precision.current() == "highest"


@pytest.mark.parametrize(
    ("choice", "products", "dtype"),
    [
        ("highest", HIGHEST, jnp.float32),
        ("high", HIGH, jnp.float32),
        ("bfloat16", HIGH, jnp.bfloat16),
    ],
)
def test_what_a_choice_means(
    choice: precision.Choice, products: lax.Precision, dtype: type
) -> None:
    with precision.using(choice):
        assert precision.of(jnp.float32) == products
        assert precision.of(jnp.bfloat16) is None
        assert precision.compute_dtype() == dtype


def test_a_compiled_function_serves_one_precision() -> None:
    layer = Conv(8, 3)
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    variables = layer.init(jax.random.key(1), x)
    run = jax.jit(layer.apply)
    full = run(variables, x)
    with precision.using("bfloat16"):
        short = run(variables, x)
    assert full.dtype == jnp.float32
    assert short.dtype == jnp.bfloat16
    assert run(variables, x).dtype == jnp.float32
    np.testing.assert_allclose(short.astype(jnp.float32), full, atol=0.05)
    assert variables["params"]["kernel"].dtype == jnp.float32
