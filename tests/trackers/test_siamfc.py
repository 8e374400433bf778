"""SiamFC's own losses against what their sources say, computed apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.ops.losses import binary_cross_entropy, distance_labels
from jaxtrack.trackers.siamfc import losses


def focal_by_hand(x, t, gamma):
    """The published focal loss in float64: both terms apart, over the mean of weights of the same form."""
    p = 1 / (1 + np.exp(-x))
    hit, miss = t * (1 - p) ** gamma, (1 - t) * p**gamma
    return np.mean(-hit * np.log(p) - miss * np.log(1 - p)) / np.mean(hit + miss)


@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_focal_loss_of_soft_labels(gamma):
    labels = distance_labels((9, 9), 2, 4)
    assert set(np.unique(labels)) == {0, 0.5, 1}
    x = np.random.RandomState(0).randn(3, 9, 9) * 3
    labels = np.broadcast_to(labels, x.shape).astype(np.float64)
    value, gradient = jax.value_and_grad(losses.focal)(
        jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.float32), gamma
    )
    np.testing.assert_allclose(value, focal_by_hand(x, labels, gamma), rtol=1e-5)
    for place in ((0, 4, 4), (1, 2, 3), (2, 0, 0)):
        step = np.zeros_like(x)
        step[place] = 1e-5
        up, down = focal_by_hand(x + step, labels, gamma), focal_by_hand(x - step, labels, gamma)
        np.testing.assert_allclose(gradient[place], (up - down) / 2e-5, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "logits", "labels"),
    [
        (losses.focal, [-200.0, -150.0, 200.0], [0.0, 0.0, 1.0]),
        (losses.hard_negative_mining, [-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]),
    ],
)
def test_losses_of_nothing_are_zero(loss, logits, labels):
    value, slope = jax.value_and_grad(loss)(jnp.asarray(logits), jnp.asarray(labels))
    assert float(value) == 0
    np.testing.assert_array_equal(slope, np.zeros(3))


def test_focal_loss_of_hard_labels_weighs_one_term():
    x = jnp.asarray(np.random.RandomState(1).randn(5, 5), jnp.float32)
    labels = jnp.asarray(np.random.RandomState(2).rand(5, 5) > 0.5, jnp.float32)
    probability = jax.nn.sigmoid(x)
    weights = jnp.where(labels == 1, 1 - probability, probability) ** 2
    want = jnp.mean(weights * binary_cross_entropy(x, labels)) / jnp.mean(weights)
    np.testing.assert_allclose(losses.focal(x, labels), want, rtol=1e-6)
