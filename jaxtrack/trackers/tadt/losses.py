"""Losses of TADT: ridge regression to a Gaussian label, and smooth pairwise ranking over scales."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def ridge_loss(
    prediction: Float[Array, "h w"],
    label: Float[Array, "h w"],
    inside: Float[Array, "h w"],
) -> Float[Array, ""]:
    """Return the mean squared difference over the cells of a map.

    The weight penalty of the paper's equation 3 is the optimiser's weight decay.

    Args:
        prediction: regressed response.
        label: its Gaussian target.
        inside: 1 on the map's cells, 0 on the rest of the canvas.

    Reference:
        TADT, equation 3.
    """
    return jnp.sum(jnp.square(prediction - label) * inside) / jnp.sum(inside)


def ranking_pairs(count: Int[Array, ""] | int, canvas: int) -> Bool[Array, "canvas canvas"]:
    """Mark the ordered pairs (u, v) of scaled samples that the ranking loss compares.

    Samples are numbered by growing size; the middle one has the target's own scale. u lies between the
    middle and v (or is the middle), and the two are at most ``(count - 3) / 2`` apart: the two extreme
    samples are never compared with the middle one, as in the published code.

    Args:
        count: number of samples, odd; fewer than 5 give no pair.
        canvas: side of the result.

    Returns:
        ``[u, v]`` True where the score of u should exceed the score of v.

    Reference:
        TADT, section 3.2; the order and the limit: ZikunZhou/TADT-python.
    """
    middle = (jnp.asarray(count) - 1) // 2
    u, v = jnp.arange(canvas)[:, None], jnp.arange(canvas)[None, :]
    distance = jnp.abs(u - v)
    outwards = ((u <= middle) & (v < u)) | ((u >= middle) & (v > u))
    return outwards & (distance <= middle - 1) & (jnp.maximum(u, v) < count)


def ranking_loss(scores: Float[Array, "n"], pairs: Bool[Array, "n n"]) -> Float[Array, ""]:
    """Return ``log(1 + sum over pairs of exp(f_v - f_u))``: a smooth count of wrongly ordered pairs.

    Args:
        scores: one score per sample.
        pairs: ``[u, v]`` True where ``f_u > f_v`` is wanted (`ranking_pairs`).

    Reference:
        TADT, equation 5 (smooth approximated ranking loss, after Li et al., 2017).
    """
    gaps = jnp.where(pairs, scores[None, :] - scores[:, None], -jnp.inf)
    flat = jnp.concatenate([jnp.zeros(1, scores.dtype), gaps.reshape(-1)])
    return jax.nn.logsumexp(flat)


def ranking_derivative_published(
    scores: Float[Array, "n"], pairs: Bool[Array, "n n"]
) -> tuple[Float[Array, "n"], Float[Array, ""]]:
    """Return what the published code takes for the derivative of `ranking_loss`; it is not the true one.

    For each pair of neighbours, ``exp(-f_u)`` at u and ``-exp(f_v)`` at v, all times -1 / loss.

    Args:
        scores: one score per sample.
        pairs: as in `ranking_loss`; only those at distance 1 enter.

    Returns:
        The derivative ``(n,)`` and its sum. The sum is what the channel importance hangs on; it is
        computed from ``exp(x) - 1``, because it is a small residue of the entries.

    Reference:
        ZikunZhou/TADT-python; the Matlab original has the same.
    """
    n = scores.shape[0]
    neighbours = pairs & (jnp.abs(jnp.arange(n)[:, None] - jnp.arange(n)[None, :]) == 1)
    as_first = jnp.sum(neighbours, axis=1).astype(scores.dtype)
    as_second = jnp.sum(neighbours, axis=0).astype(scores.dtype)
    loss = ranking_loss(scores, pairs)
    safe = jnp.where(loss > 0, loss, 1)
    derivative = -(as_first * jnp.exp(-scores) - as_second * jnp.exp(scores)) / safe
    total = -jnp.sum(as_first * jnp.expm1(-scores) - as_second * jnp.expm1(scores)) / safe
    return jnp.where(loss > 0, derivative, 0), jnp.where(loss > 0, total, 0)
