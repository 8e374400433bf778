"""Losses and labels that several trackers share (responses are logits)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def binary_cross_entropy(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """Return the element-wise cross-entropy of a sigmoid: ``log(1 + exp(-y x))`` for labels y of 1 and 0.

    Reference:
        SiamFC, equation 3 (the logistic loss; its labels +1 and -1 are 1 and 0 here).
    """
    return jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def distance_labels(
    size: tuple[int, int], positive_radius: float, negative_radius: float = 0.0
) -> np.ndarray:
    """Return the label map of siamfc-pytorch: 1 near the centre, 0 far from it, 0.5 in the ring between.

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


def balanced_logistic(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"], negative_weight: float = 1.0
) -> Float[Array, ""]:
    """Return the cross-entropy with positives and negatives of equal total weight; labels of 0.5 are neutral.

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
