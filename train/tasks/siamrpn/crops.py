"""PySOT's training augmentation as pure functions: draws apart from what they do.

`draw` takes random numbers from a JAX key, `apply` turns a stored crop and its draws into a training crop.
Boxes here are two-corner, in pixel indices (corner-aligned: pixel 0's centre is 0), as published.

Reference:
    STVIR/pysot, ``datasets/augmentation.py``; SiamRPN++, section 3.1 for the shift (spatial-aware
    sampling).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxtrack.ranges import Count, NotNegative, Share, check_ranges

from ...augment import bilinear_weights, cross_blur, to_grey

# Colour axes of natural images, rows R, G, B; times three standard normals.
COLOUR_AXES = (
    (-0.55919361, 0.98062831, -0.41940627),
    (1.72091413, 0.19879334, -1.82968581),
    (4.64467907, 4.73710203, 4.88324118),
)
BLUR_HALF = (2, 22)  # half sides of the blur kernels: odd sizes 5 to 45


@dataclasses.dataclass(frozen=True)
class CropConfig:
    """What happens to one crop of a pair.

    Attributes:
        size: side of the crop, pixels.
        shift: largest shift of the window along each axis, pixels of the stored crop.
        scale: largest relative change of the window's width and height (drawn apart).
        colour: probability of the colour offset.
        blur: probability of the cross-shaped blur.
        flip: probability of mirroring left and right.
    """

    size: Count
    shift: NotNegative = 0.0
    scale: NotNegative = 0.0
    colour: Share = 1.0
    blur: Share = 0.0
    flip: Share = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)


class Draw(NamedTuple):
    """Random choices for one crop.

    Attributes:
        scale: ``(2,)`` factors on the window's width and height, before they are limited.
        shift: ``(2,)`` shift of the window in x, y, before it is limited.
        colour: ``()`` apply the offset.
        normals: ``(3,)`` standard normals of the offset.
        blur: ``()`` apply the blur.
        blur_half: ``()`` int32 half side of its kernel.
        blur_mix: ``()`` weight of its column; the row has the rest.
        flip: ``()`` mirror.
    """

    scale: Float[Array, "2"]
    shift: Float[Array, "2"]
    colour: Bool[Array, ""]
    normals: Float[Array, "3"]
    blur: Bool[Array, ""]
    blur_half: Int[Array, ""]
    blur_mix: Float[Array, ""]
    flip: Bool[Array, ""]


def draw(config: CropConfig, key: Array) -> Draw:
    """Draw everything for one crop."""
    keys = jax.random.split(key, 8)
    uniform = jax.random.uniform
    return Draw(
        scale=1 + config.scale * uniform(keys[0], (2,), minval=-1, maxval=1),
        shift=config.shift * uniform(keys[1], (2,), minval=-1, maxval=1),
        colour=uniform(keys[2]) < config.colour,
        normals=jax.random.normal(keys[3], (3,)),
        blur=uniform(keys[4]) < config.blur,
        blur_half=jax.random.randint(keys[5], (), BLUR_HALF[0], BLUR_HALF[1] + 1),
        blur_mix=uniform(keys[6]),
        flip=uniform(keys[7]) < config.flip,
    )


def window(
    image_size: int, size: int, scale: Float[Array, "2"], shift: Float[Array, "2"]
) -> tuple[Float[Array, "4"], Float[Array, "2"]]:
    """Return the window that becomes the crop, kept inside the stored crop.

    Args:
        image_size: side of the stored crop.
        size: side of the crop; the nominal window is ``size - 1`` wide about pixel ``image_size // 2``.
        scale: factors on its width and height.
        shift: shift of its centre.

    Returns:
        ``x1, y1, x2, y2`` (pixel indices that fall on the crop's first and last pixel), and the factors
        as they were limited.
    """
    # Where nothing is drawn (factor 1, shift 0), nothing is limited.
    scale = jnp.where(scale == 1, 1, jnp.minimum(scale, image_size / (size - 1)))
    half = (size - 1) * scale / 2
    first, last = image_size // 2 - half, image_size // 2 + half
    # One after the other, as published: where both bind, the left and upper border wins.
    limited = jnp.maximum(-first, jnp.minimum(image_size - 1 - last, shift))
    shift = jnp.where(shift == 0, 0, limited)
    return jnp.concatenate([first + shift, last + shift]), scale


def warp(
    image: Float[Array, "p p 3"], corners: Float[Array, "4"], size: int
) -> Float[Array, "s s 3"]:
    """Corner-aligned bilinear sampling of a window; black beyond the image.

    Args:
        image: 0..255.
        corners: ``x1, y1, x2, y2`` in pixel indices.
        size: side of the result.

    Reference:
        The published code's ``cv2.warpAffine``, as two constant-per-axis matrix products.
    """

    def taps(first: Array, last: Array, count: int) -> Array:
        step = (last - first) / (size - 1)
        position = first + jnp.arange(size, dtype=corners.dtype) * step
        return bilinear_weights(position, count).astype(image.dtype)

    rows = taps(corners[1], corners[3], image.shape[0])
    columns = taps(corners[0], corners[2], image.shape[1])
    tall = jnp.einsum("xu,vuc->vxc", columns, image, precision="highest")
    return jnp.einsum("yv,vxc->yxc", rows, tall, precision="highest")


def colour_offset(normals: Float[Array, "3"]) -> Float[Array, "3"]:
    """Return the R, G, B offset that is subtracted from every pixel."""
    axes = jnp.asarray(COLOUR_AXES, normals.dtype)
    return jnp.sum(axes * normals[None, :], axis=1)


def apply(
    size: int,
    drawn: Draw,
    grey: Array | bool,
    image: UInt8[Array, "p p 3"],
    box: Float[Array, "4"],
) -> tuple[Float[Array, "s s 3"], Float[Array, "4"]]:
    """Return a training crop, in the published order: grey, warp, colour, blur, flip.

    Args:
        size: side of the crop.
        drawn: the random choices.
        grey: one draw for both crops of a pair.
        image: stored crop, RGB, the target about its middle.
        box: ``x1, y1, x2, y2`` of the target in it, pixel indices.

    Returns:
        The crop, float32, not clipped to 0..255, and the box in it.
    """
    pixels = image.astype(jnp.float32)
    pixels = jnp.where(jnp.asarray(grey), to_grey(pixels, whole=True), pixels)
    corners, scale = window(image.shape[0], size, drawn.scale, drawn.shift)
    # Published pixels are whole numbers up to here.
    crop = jnp.round(warp(pixels, corners, size))
    offset = jnp.where(drawn.colour, colour_offset(drawn.normals), 0).astype(crop.dtype)
    crop = crop - offset[None, None]
    blurred = cross_blur(crop, drawn.blur_half, drawn.blur_mix, precision="highest")
    crop = jnp.where(drawn.blur, blurred, crop)
    crop = jnp.where(drawn.flip, crop[:, ::-1], crop)
    box = (box - jnp.tile(corners[:2], 2)) / jnp.tile(scale, 2)
    mirrored = jnp.stack([size - 1 - box[2], box[1], size - 1 - box[0], box[3]])
    return crop, jnp.where(drawn.flip, mirrored, box)
