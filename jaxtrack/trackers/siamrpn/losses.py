"""Losses of region proposal trackers: cross-entropy over chosen anchors, weighted L1 on box deltas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def anchor_logits(cls: Float[Array, "n s s o"]) -> Float[Array, "n a s s 2"]:
    """Return the class outputs, anchor by anchor.

    Args:
        cls: ``(n, s, s, 2 a)``: a background logits, then a foreground logits.

    Returns:
        ``(n, a, s, s, 2)``: background, foreground.
    """
    n, rows, columns, channels = cls.shape
    split = cls.reshape(n, rows, columns, 2, channels // 2)
    return jnp.transpose(split, (0, 4, 1, 2, 3))


def anchor_deltas(loc: Float[Array, "n s s o"]) -> Float[Array, "n a s s 4"]:
    """Return the box outputs ``(n, s, s, 4 a)`` (a of dx, then dy, dw, dh) as ``(n, a, s, s, 4)``."""
    n, rows, columns, channels = loc.shape
    split = loc.reshape(n, rows, columns, 4, channels // 4)
    return jnp.transpose(split, (0, 4, 1, 2, 3))


def chosen_cross_entropy(
    logits: Float[Array, "n a s s 2"],
    labels: Int[Array, "n a s s"],
    drop_single: bool = True,
) -> Float[Array, ""]:
    """Return half the mean cross-entropy of the positives plus half that of the negatives.

    Args:
        logits: background and foreground.
        labels: 1, 0, or -1 for anchors that do not count.
        drop_single: a half with exactly one label counts as empty, as in the published code.

    Returns:
        The loss; a half without labels is 0.

    Reference:
        STVIR/pysot, ``select_cross_entropy_loss``.
    """
    log_probability = jax.nn.log_softmax(logits, axis=-1)

    def half(index: int) -> Array:
        chosen = labels == index
        count = jnp.sum(chosen, dtype=jnp.int32)
        total = -jnp.sum(jnp.where(chosen, log_probability[..., index], 0))
        enough = count > (1 if drop_single else 0)
        return jnp.where(enough, total / jnp.maximum(count, 1).astype(logits.dtype), 0)

    return 0.5 * half(1) + 0.5 * half(0)


def weighted_l1(
    deltas: Float[Array, "n a s s 4"],
    targets: Float[Array, "n a s s 4"],
    weights: Float[Array, "n a s s"],
) -> Float[Array, ""]:
    """Return absolute differences summed over coordinates, weighted per anchor, summed, over the batch size.

    Args:
        deltas: predicted.
        targets: of the same shape.
        weights: per anchor; 0 where no box is regressed.

    Reference:
        STVIR/pysot, ``weight_l1_loss``.
    """
    difference = jnp.sum(jnp.abs(deltas - targets), axis=-1)
    return jnp.sum(difference * weights) / deltas.shape[0]
