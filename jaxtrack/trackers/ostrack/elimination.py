"""Early candidate elimination of OSTrack: which search tokens go, and their way back to the grid.

Two forms of the same step. *Gathered*: the kept tokens are collected (static counts), later blocks are
smaller; this is how a tracker saves time. *Masked*: all tokens stay in place and the removed ones are
barred as keys; the counts may be traced, so that a training schedule compiles once. Kept tokens do not
know their order (positions were added before), so that both give the same features.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Which template tokens score the search tokens; see `template_rows`.
TemplateRange = Literal["CTR_POINT", "CTR_REC", "ALL", "GT_BOX"]


def keep_counts(ratios: tuple[float, ...], count: int) -> tuple[int, ...]:
    """Search tokens left after each elimination: ``ceil(ratio * count)``, chained, in double precision.

    Args:
        ratios: keep ratio of each stage, in (0, 1].
        count: search tokens before the first stage.

    Reference:
        OSTrack, section 3.3.
    """
    counts = []
    for ratio in ratios:
        count = math.ceil(ratio * count)
        counts.append(count)
    return tuple(counts)


def template_rows(grid: int, template_range: TemplateRange) -> tuple[int, ...] | None:
    """Return template tokens whose attention scores the search tokens; flat row-major indices.

    Args:
        grid: side of the template's token grid.
        template_range: ``CTR_POINT`` is one cell, ``CTR_REC`` the one, two by two at the centre, ``ALL``
            every token; ``GT_BOX`` depends on the target's box, see `box_rows`.

    Returns:
        Static indices; None for ``GT_BOX``.
    """
    first, last = (grid - 1) // 2, grid // 2
    if template_range == "GT_BOX":
        return None
    if template_range == "ALL":
        return tuple(range(grid * grid))
    if template_range == "CTR_POINT":
        # Of an even grid the upper left of the four central cells, as published.
        return (first * grid + first,)
    middle = sorted({first, last})
    return tuple(row * grid + column for row in middle for column in middle)


def box_rows(boxes: Float[Array, "b 4"], size: int, patch: int) -> Bool[Array, "b n"]:
    """Return template tokens under the target's box (range ``GT_BOX``).

    Args:
        boxes: ``(b, 4)`` ``x, y, w, h`` as fractions of the template crop.
        size: side of the template crop in pixels.
        patch: side of a token in pixels.

    Returns:
        ``(b, (size // patch) ** 2)``: a cell counts when one of the four pixels around its centre lies
        in ``int(x) .. int(x + w - 1)``, end excluded, likewise for rows.
    """
    boxes = boxes * size
    # Truncation towards zero, as Python's int.
    first = jnp.trunc(boxes[:, :2])[:, :, None]
    end = jnp.trunc(boxes[:, :2] + boxes[:, 2:] - 1)[:, :, None]
    start = jnp.arange(size // patch)[:, None] * patch + (patch - 1) // 2
    taps = start + jnp.arange(1 if patch % 2 else 2)[None, :]  # the two central pixels of each cell
    pixels = taps.reshape(1, 1, -1)
    inside = ((pixels >= first) & (pixels < end)).reshape(len(boxes), 2, *taps.shape)
    cells = jnp.any(inside, axis=-1)  # (b, x and y, grid)
    return (cells[:, 1, :, None] & cells[:, 0, None, :]).reshape(len(boxes), -1)


def elimination_score(
    attention: Float[Array, "b h r l"],
    template_length: int,
    row_weights: Float[Array, "b r"] | None = None,
) -> Float[Array, "b n"]:
    """Score of each search token: attention from template rows, mean over rows, then over heads.

    Args:
        attention: softmax over all ``l`` tokens present, from ``r`` template rows; template first.
        template_length: template tokens among the ``l``.
        row_weights: weight of each row (0 or 1); None: all count alike.

    Returns:
        ``(b, l - template_length)`` float32, not renormalised.

    Reference:
        OSTrack, section 3.3, equation 6.
    """
    searched = attention[..., template_length:].astype(jnp.float32)
    if row_weights is None:
        rows_mean = jnp.mean(searched, axis=2)
    else:
        weights = row_weights.astype(jnp.float32)
        total = jnp.sum(weights, axis=1)
        rows_mean = jnp.einsum("bhrn,br->bhn", searched, weights, precision="highest")
        rows_mean = rows_mean / jnp.maximum(total, 1)[:, None, None]
    return jnp.mean(rows_mean, axis=1)


def order_by_score(score: Float[Array, "b n"]) -> Int[Array, "b n"]:
    """Return token indices in descending score; equal scores keep their order."""
    return jax.lax.top_k(jax.lax.stop_gradient(score), score.shape[-1])[1]


def take_tokens(tokens: Float[Array, "b n *c"], index: Int[Array, "b k"]) -> Float[Array, "b k *c"]:
    """Collect tokens by index, sample by sample."""
    return jax.vmap(lambda t, i: t.at[i].get(mode="promise_in_bounds"))(tokens, index)


def still_kept(
    score: Float[Array, "b n"], kept: Bool[Array, "b n"], count: Int[Array, ""]
) -> Bool[Array, "b n"]:
    """Keep, of the tokens still kept, those with the ``count`` highest scores: the masked form.

    Args:
        score: elimination scores; those of removed tokens do not matter.
        kept: tokens kept so far.
        count: how many stay; may be traced.
    """
    order = order_by_score(jnp.where(kept, score, -jnp.inf))
    rank = jax.vmap(lambda o: jnp.zeros_like(o).at[o].set(jnp.arange(o.shape[0], dtype=o.dtype)))(
        order
    )
    return kept & (rank < count)


def recover(
    tokens: Float[Array, "b k c"], index: Int[Array, "b k"], length: int
) -> Float[Array, "b n c"]:
    """Scatter kept tokens back to their places on the grid; exact zeros where tokens were removed.

    Args:
        tokens: ``(b, k, c)``.
        index: ``(b, k)`` original place of each.
        length: places on the grid.
    """
    shape = (length, *tokens.shape[2:])
    return jax.vmap(
        lambda t, i: (
            jnp.zeros(shape, t.dtype).at[i].set(t, mode="promise_in_bounds", unique_indices=True)
        )
    )(tokens, index)
