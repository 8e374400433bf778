"""OSTrack's window rule, its padding mask, and the way from boxes in the image to boxes in a crop and back.

Half a pixel lies between training and tracking, as published: a training box is placed around
``(size - 1) / 2`` of its crop, a prediction is read around ``size / 2``.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxtrack.base import Frame
from jaxtrack.ops.crop import Window, linear_taps, resize_window, round_half_even


def window_ostrack(box: Float[Array, "4"], factor: float | Float[Array, ""]) -> Window:
    """Return the square area window of OSTrack: side ``ceil(sqrt(w h) factor)``, corner rounded half to even.

    Args:
        box: ``(4,)`` ``x, y, w, h`` in pixels, 0-based corner.
        factor: side of the window over the square root of the box's area.

    Returns:
        The window; its side is at least 1.

    Reference:
        botaoye/OSTrack, ``sample_target``.
    """
    extent = jnp.ceil(jnp.sqrt(box[2] * box[3]) * factor)
    side = jnp.maximum(extent, 1)
    first = round_half_even(box[:2] + 0.5 * box[2:] - 0.5 * side)
    size = side.astype(jnp.int32)
    return Window(top=first[1], left=first[0], height=size, width=size)


def picture_size(frame_size: Int[Array, "2"]) -> Int[Array, "2"]:
    """Return the part of the frame that a crop may show: without the last row and column.

    The published code pads one pixel too many where a window reaches the right or lower border, so that
    the last row and column are never seen.
    """
    return frame_size - 1


def crop_ostrack(
    frame: Frame, window: Window, size: int, frame_size: Int[Array, "2"]
) -> UInt8[Array, "s s 3"] | Float[Array, "s s 3"]:
    """Cut a window and resize it to ``(size, size)``; black beyond the picture.

    Args:
        frame: RGB.
        window: from `window_ostrack`.
        size: side of the crop in pixels.
        frame_size: ``(2,)`` true height and width of the frame.
    """
    black = jnp.zeros(3, jnp.int32)
    return resize_window(frame, window, (size, size), picture_size(frame_size), black)


def padding_mask(window: Window, size: int, frame_size: Int[Array, "2"]) -> Bool[Array, "s s"]:
    """Return the pixels of the crop that hold any padding.

    Args:
        window: from `window_ostrack`.
        size: side of the crop in pixels, at most 1024 (a weight below 1/2048 would be lost).
        frame_size: ``(2,)`` true height and width of the frame.

    Returns:
        ``(size, size)``, True where a resized padding mask is not zero.
    """
    index = jnp.arange(size)
    picture = picture_size(frame_size)

    def touched(first: Array, extent: Array, limit: Array, axis: str) -> Array:
        taps = linear_taps(index, extent, size, axis)  # type: ignore[arg-type]
        lower, upper = first + taps.lower, first + taps.upper
        outside_lower = ((lower < 0) | (lower >= limit)) & (taps.weight_lower > 0)
        outside_upper = ((upper < 0) | (upper >= limit)) & (taps.weight_upper > 0)
        return outside_lower | outside_upper

    rows = touched(window.top, window.height, picture[0], "row")
    columns = touched(window.left, window.width, picture[1], "column")
    return rows[:, None] | columns[None, :]


def box_to_crop(
    box: Float[Array, "4"], around: Float[Array, "4"], scale: Float[Array, ""], size: int
) -> Float[Array, "4"]:
    """Return a box of the image in the pixels of a training crop.

    Args:
        box: ``x, y, w, h`` in the image.
        around: the box that the crop was made around.
        scale: crop pixels per image pixel.
        size: side of the crop in pixels.

    Returns:
        ``x, y, w, h`` in crop pixels; divide by ``size`` for fractions.

    Reference:
        botaoye/OSTrack, ``transform_image_to_crop``.
    """
    shift = (box[:2] + 0.5 * box[2:]) - (around[:2] + 0.5 * around[2:])
    centre = (size - 1) / 2 + shift * scale
    extent = box[2:] * scale
    return jnp.concatenate([centre - 0.5 * extent, extent])


def box_to_image(
    box: Float[Array, "4"], around: Float[Array, "4"], scale: Float[Array, ""], size: int
) -> Float[Array, "4"]:
    """Return a predicted box in the image.

    Args:
        box: ``cx, cy, w, h`` in image-scaled pixels, relative to the corner of the search crop.
        around: the box that the crop was made around, ``x, y, w, h``.
        scale: crop pixels per image pixel.
        size: side of the search crop in pixels.

    Returns:
        ``x, y, w, h`` in the image.

    Reference:
        botaoye/OSTrack, ``map_box_back``.
    """
    half = 0.5 * size / scale
    centre = box[:2].astype(around.dtype) + (around[:2] + 0.5 * around[2:] - half)
    extent = box[2:].astype(around.dtype)
    return jnp.concatenate([centre - 0.5 * extent, extent])


def clip_box(
    box: Float[Array, "4"], frame_size: Int[Array, "2"], margin: float
) -> Float[Array, "4"]:
    """Keep a box inside the frame, at least ``margin`` pixels wide and high.

    Args:
        box: ``x, y, w, h`` in pixels.
        frame_size: ``(2,)`` height and width.
        margin: left and upper edges end ``margin`` before the far border, right and lower edges begin
            ``margin`` after the near one.

    Returns:
        ``x, y, w, h``.

    Reference:
        botaoye/OSTrack, ``clip_box``.
    """
    limit = frame_size[::-1].astype(box.dtype)
    low = jnp.minimum(jnp.maximum(box[:2], 0), limit - margin)
    high = jnp.minimum(jnp.maximum(box[:2] + box[2:], margin), limit)
    return jnp.concatenate([low, jnp.maximum(high - low, margin)])
