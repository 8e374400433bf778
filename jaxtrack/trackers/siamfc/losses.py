"""Losses of siamfc-pytorch that no other tracker uses (responses are logits).

The balanced logistic loss, with which SiamFC trains by default, is in `jaxtrack.ops.losses`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtrack.ops.losses import binary_cross_entropy


def focal(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"], gamma: float = 2.0
) -> Float[Array, ""]:
    """Return the focal loss, divided by the mean of its own modulating weights (which carry gradient).

    Args:
        logits: responses.
        labels: 0 to 1, same shape; a soft label counts as both classes, each with its own weight:
            ``t (1 - p)^gamma log p + (1 - t) p^gamma log(1 - p)``.
        gamma: how much easy elements are held back.

    Reference:
        huanglianghua/siamfc-pytorch, ``FocalLoss``; Lin et al., Focal Loss, equation 4.
    """
    probability = jax.nn.sigmoid(logits)
    positive = labels * (1 - probability) ** gamma
    negative = (1 - labels) * probability**gamma
    losses = positive * binary_cross_entropy(logits, jnp.ones_like(logits))
    losses = losses + negative * binary_cross_entropy(logits, jnp.zeros_like(logits))
    # Where float32 says of every element that it is right, all weights are 0, and so is the loss.
    weight = jnp.mean(positive + negative)
    return jnp.mean(losses) / jnp.where(weight > 0, weight, 1)


class GHMState(NamedTuple):
    """Running bin counts of `ghm_c`, ``(bins,)`` float32."""

    counts: Float[Array, "bins"]


def ghm_c_init(bins: int = 30) -> GHMState:
    """Return empty bin counts (so that the first call's momentum halves them, as published)."""
    return GHMState(jnp.zeros((bins,), jnp.float32))


def ghm_c(
    logits: Float[Array, "*n"],
    labels: Float[Array, "*n"],
    state: GHMState,
    momentum: float = 0.5,
) -> tuple[Float[Array, ""], GHMState]:
    """Return the gradient-harmonised loss: elements weigh inversely to the density of their gradient.

    Args:
        logits: responses.
        labels: 1 or 0, same shape.
        state: running bin counts; a value in, a value out.
        momentum: share of the old counts; 0 uses this batch alone.

    Returns:
        The loss, and the new counts. Weights are not differentiated.

    Reference:
        Li et al., Gradient Harmonized Single-stage Detector, equation 6; huanglianghua/siamfc-pytorch,
        ``GHMCLoss``.
    """
    bins = state.counts.shape[0]
    edges = np.arange(bins + 1, dtype=np.float32) / bins
    edges[-1] += 1e-6
    gradient = jax.lax.stop_gradient(jnp.abs(jax.nn.sigmoid(logits) - labels))
    index = jnp.searchsorted(jnp.asarray(edges), gradient.reshape(-1), side="right") - 1
    index = jnp.clip(index, 0, bins - 1)
    now = jnp.zeros((bins,), jnp.float32).at[index].add(1.0)
    # A bin that is empty now keeps its old count: only bins that occur are updated.
    counts = jnp.where(now > 0, momentum * state.counts + (1 - momentum) * now, state.counts)
    per_element = logits.size / counts[index].reshape(logits.shape)
    weights = per_element / jnp.mean(per_element)
    loss = jnp.sum(weights * binary_cross_entropy(logits, labels)) / logits.size
    return loss, GHMState(counts)


def hard_negative_mining(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"], negative_ratio: float = 3.0
) -> Float[Array, ""]:
    """Return the cross-entropy over all positives and the highest-scoring negatives, plain mean.

    Args:
        logits: responses of the whole batch.
        labels: positive above 0, negative at 0.
        negative_ratio: negatives kept per positive.

    Returns:
        ``()``; 0 where there is no positive, and so no negative is kept.

    Reference:
        huanglianghua/siamfc-pytorch, ``OHNMLoss``.
    """
    flat, target = logits.reshape(-1), labels.reshape(-1)
    positive, negative = target > 0, target == 0
    keep = jnp.floor(negative_ratio * jnp.sum(positive)).astype(jnp.int32)
    # Rank of each negative by falling score; positives and others rank behind all of them.
    order = jnp.argsort(jnp.where(negative, -flat, jnp.inf))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype))
    chosen = positive | (negative & (rank < keep))
    losses = binary_cross_entropy(flat, target)
    return jnp.sum(jnp.where(chosen, losses, 0)) / jnp.maximum(jnp.sum(chosen), 1)
