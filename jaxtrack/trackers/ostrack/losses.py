"""Losses and labels of OSTrack: weighted focal loss on a Gaussian map, generalised IoU, L1."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrack.ops.boxes import iou_xyxy


def gaussian_radius(size: Float[Array, "*n 2"], min_overlap: float = 0.7) -> Int[Array, "*n"]:
    """Return the radius, in cells, within which a shifted box still overlaps the target enough.

    Args:
        size: ``(..., 2)`` width and height in cells.
        min_overlap: smallest IoU.

    Returns:
        int32, truncated, not negative.

    Reference:
        CornerNet, section 3.2, in the form of its first code, which every descendant kept: the roots
        are ``(b + sqrt(b^2 - 4ac)) / 2``, without the division by ``a``.
    """
    total, area = size[..., 1] + size[..., 0], size[..., 0] * size[..., 1]
    roots = []
    for a, b, c in (
        (1.0, total, area * (1 - min_overlap) / (1 + min_overlap)),
        (4.0, 2 * total, (1 - min_overlap) * area),
        (4 * min_overlap, -2 * min_overlap * total, (min_overlap - 1) * area),
    ):
        roots.append((b + jnp.sqrt(b * b - 4 * a * c)) / 2)
    smallest = jnp.minimum(roots[0], jnp.minimum(roots[1], roots[2]))
    return jnp.maximum(smallest, 0).astype(jnp.int32)


def gaussian_heatmap(
    boxes: Float[Array, "b 4"], side: int, min_overlap: float = 0.7
) -> Float[Array, "b s s"]:
    """Return the target score maps: a Gaussian around the cell of each box's centre.

    Args:
        boxes: ``(b, 4)`` ``x, y, w, h`` as fractions of the crop.
        side: cells per side.
        min_overlap: rules the radius, see `gaussian_radius`.

    Returns:
        ``(b, side, side)`` in [0, 1]; 1 at the centre's cell (rounded half to even), 0 beyond the
        radius. A centre outside the map may leave no cell equal to 1.

    Reference:
        OSTrack, section 3.4; CornerNet, section 3.2.
    """
    cells = boxes * side
    radius = gaussian_radius(cells[:, 2:], min_overlap)
    centre = jnp.rint(cells[:, :2] + cells[:, 2:] / 2).astype(jnp.int32)
    sigma = (2 * radius + 1).astype(boxes.dtype) / 6
    distance = jnp.arange(side)[None, :, None] - centre[:, None, :]  # (b, cell, x and y)
    near = jnp.abs(distance) <= radius[:, None, None]
    squares = jnp.square(distance).astype(boxes.dtype)
    square = squares[:, :, None, 1] + squares[:, None, :, 0]
    inside = near[:, :, None, 1] & near[:, None, :, 0]
    value = jnp.exp(-square / (2 * jnp.square(sigma))[:, None, None])
    return jnp.where(inside, value, 0)


def heatmap_focal(
    score: Float[Array, "*n"], target: Float[Array, "*n"], alpha: float = 2.0, beta: float = 4.0
) -> Float[Array, ""]:
    """Return the focal loss of a score map against a Gaussian one: sum over all maps over the number of ones.

    Args:
        score: probabilities, strictly inside (0, 1).
        target: `gaussian_heatmap` of the same shape; cells equal to 1 are the positives.
        alpha: the larger, the less cells count that are nearly right already.
        beta: the larger, the less cells beside a positive count that score high.

    Returns:
        ``()``; undivided where there is no positive.

    Reference:
        Law and Deng, CornerNet, equation 1; OSTrack, section 3.4.
    """
    positive = target == 1
    hit = jnp.log(score) * (1 - score) ** alpha
    miss = jnp.log(1 - score) * score**alpha * (1 - target) ** beta
    total = -jnp.sum(jnp.where(positive, hit, miss))
    return total / jnp.maximum(jnp.sum(positive), 1).astype(total.dtype)


def generalized_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Return the generalised IoU of two-corner boxes, element by element, in [-1, 1].

    Args:
        a: ``(..., 4)`` boxes of positive area.
        b: ``(..., 4)`` boxes in the same unit.

    Reference:
        Rezatofighi et al., Generalized Intersection over Union, CVPR 2019.
    """
    low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    hull = jnp.prod(high - low, axis=-1)
    inner = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    intersection = jnp.prod(jnp.maximum(inner, 0), axis=-1)
    area = jnp.prod(a[..., 2:] - a[..., :2], axis=-1) + jnp.prod(b[..., 2:] - b[..., :2], axis=-1)
    union = area - intersection
    return iou_xyxy(a, b) - (hull - union) / hull


def giou_loss(predicted: Float[Array, "n 4"], target: Float[Array, "n 4"]) -> Float[Array, ""]:
    """Return the mean of ``1 - GIoU`` over two-corner boxes; 0 for the whole batch where a box is inside out.

    Args:
        predicted: ``x1, y1, x2, y2``.
        target: likewise.

    Reference:
        botaoye/OSTrack, whose loss silently falls out when ``x2 < x1``.
    """
    sound = jnp.all(predicted[:, 2:] >= predicted[:, :2]) & jnp.all(target[:, 2:] >= target[:, :2])
    return jnp.where(sound, jnp.mean(1 - generalized_iou(predicted, target)), 0)


def l1_loss(predicted: Float[Array, "n 4"], target: Float[Array, "n 4"]) -> Float[Array, ""]:
    """Return the mean absolute difference of all corner coordinates."""
    return jnp.mean(jnp.abs(predicted - target))
