"""The SiamFC task: labels, negatives, and that a few steps teach it something."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import trackers
from jaxtrack.models.alexnet import AlexNetConfig
from jaxtrack.ops.correlation import cross_correlation
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.synthetic.patches import PatchConfig
from train import presets
from train.augment import AugmentConfig
from train.tasks import siamfc


def small(name: str, **changes: Any) -> siamfc.Config:
    config = presets.get(name).task.config
    assert isinstance(config, siamfc.Config)
    network = AlexNetConfig(channels=(4, 4, 4, 4, 4), groups=(1,) * 5, kernels=(7, 5, 3, 3, 3))
    return dataclasses.replace(
        config,
        tracker=dataclasses.replace(config.tracker, network=network, exemplar_size=87),
        template=AugmentConfig(size=87),
        search=AugmentConfig(size=119),
        patch=PatchConfig(PatchSpec(87, 87, 1.0), PatchSpec(119, 119, 119 / 87)),
        **changes,
    )


def batch_of(count: int, negative: bool = False) -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    return {
        "template": jnp.asarray(rng.integers(0, 256, (count, 87, 87, 3), dtype=np.uint8)),
        "search": jnp.asarray(rng.integers(0, 256, (count, 119, 119, 3), dtype=np.uint8)),
        "template_box": jnp.tile(jnp.asarray([30.0, 30, 27, 27]), (count, 1)),
        "search_box": jnp.tile(jnp.asarray([46.0, 46, 27, 27]), (count, 1)),
        "negative": jnp.full(count, negative),
    }


def test_every_preset_is_sound() -> None:
    for name, preset in presets.all_presets().items():
        assert preset.source, name
        assert preset.steps % preset.epochs == 0, name
        assert presets.describe(preset)["tracker"] == preset.tracker
        assert preset.tracker in trackers.names(), name


def test_correlations_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(3, 4, 4, 5)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(2, 9, 9, 5)), jnp.float32)
    found = siamfc.all_correlations(z, x)
    for i in range(3):
        np.testing.assert_allclose(found[i], cross_correlation(z[i], x), rtol=1e-4, atol=1e-4)


def test_published_labels() -> None:
    config = small("siamfc-got10k")
    labels = siamfc.label_maps(config, (15, 15), jnp.asarray([False, True]))
    assert labels[0].sum() == 13  # city-block distance of at most 2 cells
    assert labels[0, 7, 7] == 1
    assert labels[1].sum() == 0


@functools.cache
def loss_of(name: str, dtype: str = "float32") -> tuple[siamfc.Config, Any, float, Any]:
    """Config, variables before, loss and Aux of one batch."""
    config = small(name, dtype=dtype)
    variables = siamfc.init_variables(config, jax.random.key(0))
    run = jax.jit(siamfc.loss, static_argnums=0)
    keys = jax.random.split(jax.random.key(0), 2)
    arguments = variables["params"], variables["batch_stats"], batch_of(2), keys
    value, aux = run(config, *arguments)
    grads = jax.eval_shape(
        jax.grad(lambda p: siamfc.loss(config, p, *arguments[1:])[0]), arguments[0]
    )
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    return config, variables, float(value), aux


def test_published_loss() -> None:
    _, variables, value, aux = loss_of("siamfc-got10k")
    assert set(aux.metrics) == {"own_loss", "peak"}
    assert value == float(aux.metrics["own_loss"])
    for old, new in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(aux.batch_stats), strict=True
    ):
        assert (old != new).all()


def test_other_pairs_are_negatives() -> None:
    config, _, value, aux = loss_of("siamfc-tiny")
    total = aux.metrics["own_loss"] + config.other_pairs * aux.metrics["other_loss"]
    assert value == pytest.approx(float(total), rel=1e-6)
    assert float(aux.metrics["other_loss"]) > 0


def test_bfloat16_computes_in_it() -> None:
    """The parameters' gradients stay float32 (`loss_of` looks)."""
    one, other = loss_of("siamfc-tiny")[2], loss_of("siamfc-tiny", "bfloat16")[2]
    assert one != other
    assert one == pytest.approx(other, rel=0.05)


def test_synthetic_batches_have_the_agreed_form() -> None:
    config = small("siamfc-tiny")
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = jax.eval_shape(lambda k: siamfc.sample(config, k), keys)
    side = config.patch.search.size
    assert shapes["search"].shape == (4, side, side, 3)
    assert shapes["template"].dtype == jnp.uint8
    assert shapes["search_box"].shape == shapes["template_box"].shape == (4, 4)
    assert shapes["negative"].dtype == jnp.dtype(bool)
