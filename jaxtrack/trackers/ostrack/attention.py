"""Multi-head attention over kept tokens, and stochastic depth."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxtrack.trackers.ostrack.vit_embed import highest


def attention_logits(
    q: Float[Array, "b q h d"], k: Float[Array, "b l h d"], kept: Bool[Array, "b l"] | None
) -> Float[Array, "b h q l"]:
    """Scaled products of queries and keys; minus infinity at keys that are not kept. float32."""
    logits = jnp.einsum("bqhd,blhd->bhql", q, k, precision=highest(q.dtype))
    logits = logits.astype(jnp.float32) * (q.shape[-1] ** -0.5)
    if kept is None:
        return logits
    return jnp.where(kept[:, None, None, :], logits, -jnp.inf)


def attend(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b l h d"],
    v: Float[Array, "b l h d"],
    kept: Bool[Array, "b l"] | None = None,
) -> Float[Array, "b q c"]:
    """Multi-head attention; heads joined in the last axis.

    Args:
        q: queries.
        k: keys.
        v: values.
        kept: keys that take part; None: all.
    """

    def whole(q: Array, k: Array, v: Array, kept: Array | None = None) -> Array:
        weights = jax.nn.softmax(attention_logits(q, k, kept), axis=-1).astype(v.dtype)
        joined = jnp.einsum("bhql,blhd->bqhd", weights, v, precision=highest(v.dtype))
        return joined.reshape(*joined.shape[:2], -1)

    def one_by_one(*parts: Array) -> Array:
        # The attention matrix of one sample stays in a CPU's cache: half the time of the whole batch's.
        return jax.lax.map(lambda sample: whole(*(part[None] for part in sample))[0], parts)

    parts = (q, k, v) if kept is None else (q, k, v, kept)
    if q.shape[0] == 1:
        return whole(*parts)
    return jax.lax.platform_dependent(*parts, cpu=one_by_one, default=whole)


def drop_path(branch: Float[Array, "b n c"], rate: float, key: Array) -> Float[Array, "b n c"]:
    """Stochastic depth: whole samples of a residual branch are dropped, survivors are scaled up."""
    survive = jax.random.bernoulli(key, 1 - rate, (branch.shape[0], 1, 1))
    return jnp.where(survive, branch / (1 - rate), 0)
