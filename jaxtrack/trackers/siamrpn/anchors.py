"""Anchors of a region proposal network: grids, encoding and decoding, assignment to a target.

Order everywhere: anchor, then row, then column. Boxes here are continuous (no "+1").

Reference:
    SiamRPN (anchors on a Siamese correlation map); STVIR/pysot for every rounding rule.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtrack.ops.boxes import iou_xyxy


def base_anchors(stride: int, ratios: tuple[float, ...], scales: tuple[float, ...]) -> np.ndarray:
    """Return anchors about the origin.

    Args:
        stride: pixels between map cells; the unscaled anchors have an area of about ``stride ** 2``.
        ratios: height over width.
        scales: multiples of the unscaled anchor.

    Returns:
        ``(len(ratios) * len(scales), 4)`` float32 ``x1, y1, x2, y2``; ratio by ratio. Sides are truncated
        to whole pixels before they are scaled, as published.
    """
    anchors = []
    for ratio in ratios:
        width = int(math.sqrt(stride * stride / ratio))
        height = int(width * ratio)
        for scale in scales:
            w, h = width * scale, height * scale
            anchors.append((-w * 0.5, -h * 0.5, w * 0.5, h * 0.5))
    return np.asarray(anchors, np.float32)


def anchor_grid(base: np.ndarray, stride: int, size: int, centre: float = 0.0) -> np.ndarray:
    """Return anchors of a whole map.

    Args:
        base: ``(a, 4)`` corners about the origin, see `base_anchors`.
        stride: pixels between cells.
        size: cells along each side.
        centre: coordinate of cell ``size // 2``: 0 for positions relative to the crop's centre,
            ``search side // 2`` for training.

    Returns:
        ``(a, size, size, 4)`` float32 ``cx, cy, w, h``.
    """
    steps = (centre - (size // 2) * stride + stride * np.arange(size)).astype(np.float32)
    cx, cy = (base[:, 0] + base[:, 2]) * 0.5, (base[:, 1] + base[:, 3]) * 0.5
    w, h = base[:, 2] - base[:, 0], base[:, 3] - base[:, 1]
    shape = (len(base), size, size)
    grid = [
        cx[:, None, None] + steps[None, None, :],
        cy[:, None, None] + steps[None, :, None],
        w[:, None, None],
        h[:, None, None],
    ]
    return np.stack([np.broadcast_to(part, shape) for part in grid], axis=-1).astype(np.float32)


def decode(deltas: Float[Array, "*n 4"], anchors: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Decode boxes from regression outputs.

    Args:
        deltas: ``dx, dy, dw, dh`` (no clamp on the logarithms).
        anchors: ``cx, cy, w, h``.

    Returns:
        ``cx, cy, w, h`` in the anchors' unit.

    Reference:
        SiamRPN, equation 8 (its normalised offsets, inverted).
    """
    centre = deltas[..., :2] * anchors[..., 2:] + anchors[..., :2]
    return jnp.concatenate([centre, jnp.exp(deltas[..., 2:]) * anchors[..., 2:]], axis=-1)


def encode(boxes: Float[Array, "*n 4"], anchors: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Return regression targets that `decode` turns into ``boxes`` (both ``cx, cy, w, h``)."""
    centre = (boxes[..., :2] - anchors[..., :2]) / anchors[..., 2:]
    return jnp.concatenate([centre, jnp.log(boxes[..., 2:] / anchors[..., 2:])], axis=-1)


class AnchorTargets(NamedTuple):
    """Training targets of one search image, map by map.

    Attributes:
        labels: ``(a, s, s)`` int8: 1 positive, 0 negative, -1 ignored.
        deltas: ``(a, s, s, 4)`` regression targets (zero for a negative pair).
        weights: ``(a, s, s)``: ``1 / (positives + 1e-6)`` on the chosen positives, else 0.
        overlaps: ``(a, s, s)`` intersection over union with the target (zero for a negative pair).
    """

    labels: Int[Array, "a s s"]
    deltas: Float[Array, "a s s 4"]
    weights: Float[Array, "a s s"]
    overlaps: Float[Array, "a s s"]


class Candidates(NamedTuple):
    """Where labels may be chosen from, each ``(a, s, s)`` bool."""

    positive: Array
    negative: Array


def choose(
    candidates: Array, priority: Float[Array, "*n"], limit: int, count: Array | int | None = None
) -> Array:
    """Return the candidates of smallest priority (all of them when there are fewer).

    Args:
        candidates: bool mask of any shape.
        priority: same shape; random numbers for a random choice. Equal priorities: the first wins.
        limit: at most so many.
        count: at most so many of these, where that is known while running only.

    Returns:
        Bool mask of the chosen ones.
    """
    flat = jnp.where(candidates, -priority, -jnp.inf).reshape(-1)
    limit = min(limit, flat.size)
    _, index = jax.lax.top_k(flat, limit)
    taken = jnp.arange(limit) < (limit if count is None else count)
    mask = jnp.zeros(flat.shape, bool).at[index].set(taken)
    return candidates & mask.reshape(candidates.shape)


def negative_pair_cells(
    centre: Float[Array, "2"], stride: int, size: int, search_size: int, radius: int = 3
) -> Array:
    """Return cells about the target of a negative pair, where its negatives are taken from.

    Args:
        centre: ``(2,)`` cx, cy of the target in search pixels.
        stride: pixels between cells.
        size: cells along each side.
        search_size: side of the search image, pixels.
        radius: cells on each side of the target's cell.

    Returns:
        ``(s, s)`` bool. The published cell lies one right and below where the target is dead centre.

    Reference:
        STVIR/pysot, ``AnchorTarget``.
    """
    cell = size // 2 + jnp.ceil((centre - search_size // 2) / stride + 0.5).astype(jnp.int32)
    # Python slices [max(0, c - r), min(size, c + r + 1)): the mask needs no clipping of its own.
    steps = jnp.arange(size)
    near = jnp.abs(steps[None, :] - cell[:, None]) <= radius
    return near[1][:, None] & near[0][None, :]


def match(
    anchors: Float[Array, "a s s 4"],
    box: Float[Array, "4"],
    negative_pair: Array | bool,
    *,
    stride: int,
    search_size: int,
    high: float = 0.6,
    low: float = 0.3,
) -> tuple[Candidates, Float[Array, "a s s 4"], Float[Array, "a s s"]]:
    """Return candidates, regression targets and overlaps of every anchor with one target.

    Args:
        anchors: ``cx, cy, w, h`` in search pixels.
        box: ``x1, y1, x2, y2`` of the target in search pixels.
        negative_pair: the search image holds another object than the template.
        stride: pixels between cells.
        search_size: side of the search image, pixels.
        high: overlap above which an anchor is positive.
        low: overlap below which it is negative.

    Returns:
        The `Candidates`, ``(a, s, s, 4)`` deltas, ``(a, s, s)`` overlaps.
    """
    negative_pair = jnp.asarray(negative_pair)
    # Centre and size in the box's own precision; the anchors' (float32) from there on.
    centre, size = (box[:2] + box[2:]) * 0.5, box[2:] - box[:2]
    dtype = anchors.dtype
    corners = jnp.concatenate(
        [anchors[..., :2] - anchors[..., 2:] * 0.5, anchors[..., :2] + anchors[..., 2:] * 0.5], -1
    )
    one = (1,) * (anchors.ndim - 1)
    overlaps = iou_xyxy(corners, box.astype(dtype).reshape(*one, 4))
    target = jnp.concatenate([centre, size]).astype(dtype).reshape(*one, 4)
    deltas = encode(jnp.broadcast_to(target, anchors.shape), anchors)
    cells = negative_pair_cells(centre, stride, anchors.shape[1], search_size)
    cells = jnp.broadcast_to(cells[None], overlaps.shape)
    candidates = Candidates(
        positive=(overlaps > high) & ~negative_pair,
        negative=jnp.where(negative_pair, cells, overlaps < low),
    )
    return (
        candidates,
        jnp.where(negative_pair, 0, deltas),
        jnp.where(negative_pair, 0, overlaps),
    )


def assign(
    anchors: Float[Array, "a s s 4"],
    box: Float[Array, "4"],
    negative_pair: Array | bool,
    priority: Float[Array, "2 a s s"],
    *,
    stride: int,
    search_size: int,
    high: float = 0.6,
    low: float = 0.3,
    positives: int = 16,
    total: int = 64,
    negatives_of_pair: int = 16,
) -> AnchorTargets:
    """Make the training targets of one search image; `jax.vmap` it over a batch.

    Args:
        anchors: ``cx, cy, w, h`` in search pixels.
        box: ``x1, y1, x2, y2`` of the target in search pixels.
        negative_pair: the search image holds another object than the template.
        priority: random numbers that choose the positives (0) and the negatives (1), see `choose`.
        stride: pixels between cells.
        search_size: side of the search image, pixels.
        high: overlap above which an anchor is positive.
        low: overlap below which it is negative.
        positives: at most so many positives.
        total: at most ``total - positives`` negatives (not topped up when positives are fewer).
        negatives_of_pair: negatives of a negative pair, near its target.

    Reference:
        SiamRPN++, section 4.1 (at most 16 positives, 64 samples in all); STVIR/pysot, ``AnchorTarget``.
    """
    candidates, deltas, overlaps = match(
        anchors, box, negative_pair, stride=stride, search_size=search_size, high=high, low=low
    )
    chosen = choose(candidates.positive, priority[0], positives)
    negative_count = jnp.where(jnp.asarray(negative_pair), negatives_of_pair, total - positives)
    most = max(negatives_of_pair, total - positives)
    rejected = choose(candidates.negative, priority[1], most, negative_count)
    labels = jnp.where(rejected, 0, jnp.where(chosen, 1, -1)).astype(jnp.int8)
    count = jnp.sum(chosen, dtype=jnp.int32).astype(anchors.dtype)
    weights = jnp.where(chosen, 1 / (count + 1e-6), 0)
    return AnchorTargets(labels, deltas, weights, overlaps)


def random_priority(key: Array, shape: tuple[int, int, int]) -> Float[Array, "2 a s s"]:
    """Draw random numbers for `assign`: an unbiased choice of positives and negatives."""
    return jax.random.uniform(key, (2, *shape), jnp.float32)
