"""Box arithmetic. Boxes are ``(..., 4)``; the convention is in each function's name.

``xywh``: top-left corner and size; ``xyxy``: two corners; ``cxcywh``: centre and size. All are continuous
(no "+1"): area is ``w * h``. Numpy arrays give numpy arrays; jax arrays, or both kinds together, give jax
arrays.
"""

from __future__ import annotations

from types import ModuleType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

A = TypeVar("A", jax.Array, np.ndarray)


def _library(*arrays: jax.Array | np.ndarray) -> ModuleType:
    """Return numpy for arrays of the host, else `jax.numpy`."""
    return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp


def xywh_to_xyxy(boxes: Float[A, "*n 4"]) -> Float[A, "*n 4"]:
    """Return corner-and-size boxes as two corners."""
    xp = _library(boxes)
    return xp.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def cxcywh_to_xywh(boxes: Float[A, "*n 4"]) -> Float[A, "*n 4"]:
    """Return centre-and-size boxes as corner and size."""
    xp = _library(boxes)
    return xp.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)


def cxcywh_to_xyxy(boxes: Float[A, "*n 4"]) -> Float[A, "*n 4"]:
    """Return centre-and-size boxes as two corners."""
    return xywh_to_xyxy(cxcywh_to_xywh(boxes))


def middle_of(box: Float[A, "4"]) -> tuple[Float[A, "2"], Float[A, "2"]]:
    """Return a box's middle pixel (row, column) and size (height, width): corner + (size - 1) / 2.

    Reference:
        The convention of SiamFC and its codes: coordinates are those of pixels, not of their borders.
    """
    size = box[3:1:-1]
    return box[1::-1] + (size - 1) / 2, size


def box_about(middle: Float[A, "2"], size: Float[A, "2"]) -> Float[A, "4"]:
    """Return the box ``x, y, w, h`` of a middle pixel and a size; undoes `middle_of`."""
    xp = _library(middle, size)
    corner = middle - (size - 1) / 2
    return xp.concatenate([corner[::-1], size[::-1]])


# A size that is further off in the first frame is an accident, not a habit.
LARGEST_CORRECTION = 4.0


def size_correction(
    given: Float[Array, "2"], predicted: Float[Array, "2"], share: float | Array
) -> Float[Array, "2"]:
    """Return the factors by which predicted sizes are brought to what is meant by a target's size.

    What counts as the target, a face or the whole head, legs or the body alone, is told by the first frame's
    box and by nothing that a network has learned. What it makes of that frame itself shows the difference.

    Args:
        given: width and height of the first frame's box.
        predicted: by the network, on the first frame.
        share: of the correction, from 0 (factors of one) to 1 (in the first frame the sizes become equal).
    """
    ratio = jnp.clip(given / predicted, 1 / LARGEST_CORRECTION, LARGEST_CORRECTION)
    return ratio**share


def iou_xyxy(a: Float[A, "*n 4"], b: Float[A, "*n 4"]) -> Float[A, "*n"]:
    """Return the intersection over union of two-corner boxes, element by element (broadcasting).

    Args:
        a: ``(..., 4)`` boxes, pixels or any common unit.
        b: ``(..., 4)`` boxes in the same unit.

    Returns:
        Values in [0, 1]; 0 where the union is empty.
    """
    xp = _library(a, b)
    size = xp.minimum(a[..., 2:], b[..., 2:]) - xp.maximum(a[..., :2], b[..., :2])
    inter = xp.prod(xp.maximum(size, 0), axis=-1)
    area_a = xp.prod(a[..., 2:] - a[..., :2], axis=-1)
    area_b = xp.prod(b[..., 2:] - b[..., :2], axis=-1)
    union = area_a + area_b - inter
    return xp.where(union > 0, inter / xp.where(union > 0, union, 1), 0)
