"""Losses and labels of SiamFC and its two PyTorch codes (responses are logits)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def binary_cross_entropy(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """Element-wise cross-entropy of a sigmoid: ``log(1 + exp(-y x))`` for labels y of 1 and 0.

    Reference:
        SiamFC, equation 3 (the logistic loss; its labels +1 and -1 are 1 and 0 here).
    """
    return jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def distance_labels(
    size: tuple[int, int], positive_radius: float, negative_radius: float = 0.0
) -> np.ndarray:
    """Label map of siamfc-pytorch: 1 near the centre, 0 far from it, 0.5 in the ring between.

    Args:
        size: height and width of the response map.
        positive_radius: city-block distance in map cells up to which (inclusive) cells are positive.
        negative_radius: distance from which (inclusive) cells are negative; not above the positive
            radius: there is no ring.

    Returns:
        ``size`` float32.

    Reference:
        huanglianghua/siamfc-pytorch, ``_create_labels``.
    """
    y = np.abs(np.arange(size[0]) - (size[0] - 1) / 2)
    x = np.abs(np.arange(size[1]) - (size[1] - 1) / 2)
    distance = y[:, None] + x[None, :]
    ring = np.where(distance < negative_radius, 0.5, 0.0)
    return np.where(distance <= positive_radius, 1.0, ring).astype(np.float32)


def threshold_labels(
    size: int, positive_threshold: float, negative_threshold: float, upscale_factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights of Pytorch-SiamFC: Euclidean radii in search pixels, a neutral ring.

    Args:
        size: side of the response map.
        positive_threshold: radius of positives, pixels of the search image.
        negative_threshold: radius beyond which cells are negatives.
        upscale_factor: search pixels per map cell.

    Returns:
        ``(size, size)`` float32 labels and weights (1 = counts, 0 = neutral).

    Reference:
        rafellerc/Pytorch-SiamFC, ``create_BCELogit_loss_label``.
    """
    centred = np.arange(size) - (size - 1) / 2
    squared = centred[:, None] ** 2 + centred[None, :] ** 2
    positive = squared <= (positive_threshold / upscale_factor) ** 2
    negative = squared > (negative_threshold / upscale_factor) ** 2
    return positive.astype(np.float32), (positive | negative).astype(np.float32)


def balanced_logistic(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"], negative_weight: float = 1.0
) -> Float[Array, ""]:
    """Cross-entropy with positives and negatives of equal total weight; labels of 0.5 are neutral.

    Args:
        logits: responses of the whole batch.
        labels: 1, 0 or 0.5, same shape.
        negative_weight: total weight of the negatives against the positives.

    Returns:
        Weighted mean over all elements (weights sum to one over the batch).

    Reference:
        huanglianghua/siamfc-pytorch, ``BalancedLoss``; SiamFC, section 2.2 for the weighting.
    """
    positive = (labels == 1).astype(logits.dtype)
    negative = (labels == 0).astype(logits.dtype)
    weights = positive / jnp.maximum(jnp.sum(positive), 1)
    weights = weights + negative_weight * negative / jnp.maximum(jnp.sum(negative), 1)
    weights = weights / jnp.sum(weights)
    return jnp.sum(weights * binary_cross_entropy(logits, labels))


def focal(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"], gamma: float = 2.0
) -> Float[Array, ""]:
    """Focal loss, divided by the mean of its own modulating weights (which carry gradient).

    Reference:
        huanglianghua/siamfc-pytorch, ``FocalLoss``; Lin et al., Focal Loss, equation 4.
    """
    probability = jax.nn.sigmoid(logits)
    miss = labels * (1 - probability) + (1 - labels) * probability
    weights = miss**gamma
    return jnp.mean(weights * binary_cross_entropy(logits, labels)) / jnp.mean(weights)


class GHMState(NamedTuple):
    """Running bin counts of `ghm_c`, ``(bins,)`` float32."""

    counts: Float[Array, "bins"]


def ghm_c_init(bins: int = 30) -> GHMState:
    """Empty bin counts (so that the first call's momentum halves them, as published)."""
    return GHMState(jnp.zeros((bins,), jnp.float32))


def ghm_c(
    logits: Float[Array, "*n"],
    labels: Float[Array, "*n"],
    state: GHMState,
    momentum: float = 0.5,
) -> tuple[Float[Array, ""], GHMState]:
    """Gradient-harmonised classification loss: elements weigh inversely to their gradient's density.

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
    """Cross-entropy over all positives and the highest-scoring negatives, plain mean.

    Args:
        logits: responses of the whole batch.
        labels: positive above 0, negative at 0.
        negative_ratio: negatives kept per positive.

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
    return jnp.sum(jnp.where(chosen, losses, 0)) / jnp.sum(chosen)


def masked_logistic(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"], weights: Float[Array, "*n"]
) -> Float[Array, ""]:
    """Cross-entropy times a mask, mean over ALL elements, neutral ones counted.

    Reference:
        rafellerc/Pytorch-SiamFC, ``BCELogit_Loss``.
    """
    return jnp.mean(weights * binary_cross_entropy(logits, labels))
