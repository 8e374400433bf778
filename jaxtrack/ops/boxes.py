"""Box arithmetic. Boxes are ``(..., 4)``; the convention is in each function's name.

``xywh``: top-left corner and size; ``xyxy``: two corners; ``cxcywh``: centre and size. All are continuous
(no "+1"): area is ``w * h``. Works for jax and numpy arrays of any float dtype.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def xywh_to_xyxy(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Corner-and-size boxes as two corners."""
    return jnp.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Two-corner boxes as corner and size."""
    return jnp.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def xywh_to_cxcywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Corner-and-size boxes as centre and size (centre = corner + size / 2)."""
    return jnp.concatenate([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)


def cxcywh_to_xywh(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Centre-and-size boxes as corner and size."""
    return jnp.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)


def cxcywh_to_xyxy(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Centre-and-size boxes as two corners."""
    return xywh_to_xyxy(cxcywh_to_xywh(boxes))


def middle_of(box: Float[Array, "4"]) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Return a box's middle pixel (row, column) and size (height, width): corner + (size - 1) / 2.

    Reference:
        The convention of SiamFC and its codes: coordinates are those of pixels, not of their borders.
    """
    size = box[3:1:-1]
    return box[1::-1] + (size - 1) / 2, size


def box_about(middle: Float[Array, "2"], size: Float[Array, "2"]) -> Float[Array, "4"]:
    """Return the box ``x, y, w, h`` of a middle pixel and a size; undoes `middle_of`."""
    corner = middle - (size - 1) / 2
    return jnp.concatenate([corner[::-1], size[::-1]])


def iou_xyxy(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Intersection over union of two-corner boxes, element by element (broadcasting).

    Args:
        a: ``(..., 4)`` boxes, pixels or any common unit.
        b: ``(..., 4)`` boxes in the same unit.

    Returns:
        Values in [0, 1]; 0 where the union is empty.
    """
    size = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    inter = jnp.prod(jnp.maximum(size, 0), axis=-1)
    area_a = jnp.prod(a[..., 2:] - a[..., :2], axis=-1)
    area_b = jnp.prod(b[..., 2:] - b[..., :2], axis=-1)
    union = area_a + area_b - inter
    return jnp.where(union > 0, inter / jnp.where(union > 0, union, 1), 0)
