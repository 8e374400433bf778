"""TADT's geometry: image rescaling, windows, crops, templates.

Everything follows the dtype of the box it is given. Rounding is that of the published Python code; boxes in
here are 0-based in the *scaled* image, as there.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack.base import Frame
from jaxtrack.ops import crop


class FirstFrame(NamedTuple):
    """What the first box settles.

    Attributes:
        rescale: ``()`` factor from the frame to the scaled image, kept for the whole sequence.
        scaled_size: ``(2,)`` int32 height and width of the scaled image.
        target: ``(4,)`` x, y, w, h in the scaled image.
        input_side: ``()`` int32 side of the network's input and of the first window.
        window: ``(4,)`` x, y, w, h of the first search window.
        map_size: ``()`` int32 side of the feature map, odd.
        template_size: ``(2,)`` int32 rows and columns of the template, odd.
    """

    rescale: Float[Array, ""]
    scaled_size: Int[Array, "2"]
    target: Float[Array, "4"]
    input_side: Int[Array, ""]
    window: Float[Array, "4"]
    map_size: Int[Array, ""]
    template_size: Int[Array, "2"]


def round_half_up(value: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the nearest whole number, halves upwards (-2.5 gives -2); keeps the dtype."""
    return jnp.floor(value + 0.5)


def one_based(box: Float[Array, "4"]) -> Float[Array, "4"]:
    """Return a 0-based box with a 1-based corner."""
    return box + jnp.asarray([1, 1, 0, 0], box.dtype)


def zero_based(box: Float[Array, "4"]) -> Float[Array, "4"]:
    """Return a box of 1-based corner with a 0-based one."""
    return box - jnp.asarray([1, 1, 0, 0], box.dtype)


def grown_side(side: Int[Array, ""] | int, stride: int) -> Int[Array, ""] | int:
    """Return the next greater odd multiple of the stride; a side that fits already grows by two strides."""
    return side + 2 * stride - (side - stride) % (2 * stride)


def scaled_image_size(frame_size: Int[Array, "2"], rescale: Float[Array, ""]) -> Int[Array, "2"]:
    """Return the height and width of the scaled image: rounded up."""
    return jnp.ceil(frame_size.astype(rescale.dtype) * rescale).astype(jnp.int32)


def template_cells(
    target_wh: Float[Array, "2"], map_size: Int[Array, ""] | int, window_wh: Float[Array, "2"]
) -> Int[Array, "2"]:
    """Return rows and columns of the template on the feature map, odd."""
    cells = target_wh * jnp.asarray(map_size).astype(target_wh.dtype) / window_wh
    return 2 * jnp.floor(cells[::-1] / 2).astype(jnp.int32) + 1


def template_corner(
    template_size: Int[Array, "2"], map_size: Int[Array, ""] | int
) -> Int[Array, "2"]:
    """Return the first row and column of the template, 0-based; it lies about the map's middle cell."""
    return (jnp.asarray(map_size) - 1) // 2 - template_size // 2


def kernel_cells(template_size: Int[Array, "2"]) -> Int[Array, "2"]:
    """Return rows and columns of the ridge and ranking kernels: one cell more on every side."""
    return 2 * ((template_size + 1) // 2) + 1


def first_frame(
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
    *,
    max_size: float,
    min_size: float,
    search_factor: float,
    stride: int,
) -> FirstFrame:
    """Settle rescaling, target, window and template of the first frame.

    Args:
        box: ``(4,)`` x, y, w, h, 0-based, pixels of the frame.
        frame_size: ``(2,)`` true height and width of the frame.
        max_size: greater targets (root of the area) are scaled down to it.
        min_size: smaller ones are scaled up to it.
        search_factor: search window in units of ``max_size``.
        stride: input pixels per feature cell.

    Reference:
        ZikunZhou/TADT-python.
    """
    one = one_based(box)
    side = jnp.sqrt(one[2] * one[3])
    rescale = jnp.where(
        side > max_size, max_size / side, jnp.where(side < min_size, min_size / side, 1)
    ).astype(box.dtype)
    scaled = scaled_image_size(frame_size, rescale)
    target = zero_based(round_half_up(one * rescale))
    least = jnp.minimum(jnp.int32(search_factor * max_size), jnp.min(scaled))
    input_side = jnp.asarray(grown_side(least, stride), jnp.int32)
    length = input_side.astype(box.dtype)
    corner = jnp.floor(target[:2] + target[2:] / 2 - length / 2)
    window = jnp.concatenate([corner, jnp.stack([length, length])])
    map_size = input_side // stride
    return FirstFrame(
        rescale,
        scaled,
        target,
        input_side,
        window,
        map_size,
        template_cells(target[2:], map_size, window[2:]),
    )


def window_pixels(
    corner: Float[Array, ""], length: Int[Array, ""], index: Int[Array, "n"]
) -> Int[Array, "n"]:
    """Return pixels of the scaled image that a window samples along one axis; they may lie outside.

    Args:
        corner: fractional start of the window.
        length: its whole number of pixels.
        index: which of them, 0-based.

    Returns:
        ``floor(corner + length / 2 + i - ceil(length / 2))`` with i counted from 1: the Matlab formula,
        kept on 0-based pixels by the published Python code.
    """
    half = length.astype(corner.dtype) / 2
    return jnp.floor(corner + half + (index + 1 - (length + 1) // 2)).astype(jnp.int32)


def crop_window(
    frame: Frame,
    frame_size: Int[Array, "2"],
    rescale: Float[Array, ""],
    window: Float[Array, "4"],
    input_size: Int[Array, "2"],
    canvas: tuple[int, int],
) -> UInt8[Array, "ch cw 3"] | Float[Array, "ch cw 3"]:
    """Scale the frame, cut a window with repeated borders, resize it to the network's input.

    Both resizes are OpenCV's bilinear one (of uint8 frames rounded in between), but only the pixels that the
    result needs are ever computed: two source lines per output line in the scaled image, four in the frame.

    Args:
        frame: RGB, maybe padded.
        frame_size: ``(2,)`` true height and width.
        rescale: from the frame to the scaled image.
        window: ``(4,)`` x, y, w, h in the scaled image; the sides are whole numbers of at least 1.
        input_size: ``(2,)`` int height and width of the result.
        canvas: static size of the result; what lies beyond ``input_size`` repeats the last line.

    Reference:
        ZikunZhou/TADT-python.
    """
    scaled = scaled_image_size(frame_size, rescale)
    sides = window[2:].astype(jnp.int32)

    def taps(axis: int) -> tuple[crop.Taps, crop.Taps]:
        name: Literal["row", "column"] = "column" if axis else "row"
        index = jnp.minimum(jnp.arange(canvas[axis]), input_size[axis] - 1)
        second = crop.linear_taps(index, sides[1 - axis], input_size[axis], name)
        lines = jnp.concatenate([second.lower, second.upper])
        pixels = window_pixels(window[1 - axis], sides[1 - axis], lines)
        pixels = jnp.clip(pixels, 0, scaled[axis] - 1)
        return crop.linear_taps(pixels, frame_size[axis], scaled[axis], name), second

    (rows, second_rows), (columns, second_columns) = taps(0), taps(1)
    block = crop.take_pixels(
        frame,
        jnp.concatenate([rows.lower, rows.upper]),
        jnp.concatenate([columns.lower, columns.upper]),
        frame_size,
        None,
    )
    image = crop.combine_taps(block, rows, columns)
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.int32)
    return crop.combine_taps(image, second_rows, second_columns)
