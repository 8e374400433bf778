"""Crops: window rules, and the one gather that every tracker samples frames with.

A crop is an integer window of the frame, resized to a fixed side. `resize_window` reproduces OpenCV's
uint8 ``INTER_LINEAR`` bit for bit (half-pixel centres, no antialiasing, 11-bit fixed-point weights, the
vertical pass on values shifted by 4), because the published trackers were trained and tuned on exactly
these pixels. It reads only the pixels that it needs, so its cost depends on the output side alone.

Frames of floats are for gradients: the same window is sampled at the same points by the same gather, but
bilinearly in the frame's own dtype and without rounding, so that the crop is a smooth (a linear) function of
the pixels. It lies within one grey level of the exact crop. Windows stay whole pixels in both.

A *window rule*, named after its source, turns a box or a state into a window; the published codes round
and centre differently, and these differences stay named.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack.ops import patch

_WEIGHT_ONE = 2048  # OpenCV's INTER_RESIZE_COEF_SCALE
_ROUND = 256  # output pixels whose taps one function of a program gives


class Window(NamedTuple):
    """An integer window of a frame; it may reach over the borders.

    Attributes:
        top, left: ``()`` int32 first row and column, 0-based.
        height, width: ``()`` int32 rows and columns.
    """

    top: Int[Array, ""]
    left: Int[Array, ""]
    height: Int[Array, ""]
    width: Int[Array, ""]


class Taps(NamedTuple):
    """Two source positions per output position, and what each counts.

    Attributes:
        lower, upper: source positions.
        weight_lower, weight_upper: fixed-point weights; they sum to about 2048.
        fraction: weight of the upper one in [0, 1], before it was rounded to a fixed point; None where it is
            of no use.
    """

    lower: Int[Array, "n"]
    upper: Int[Array, "n"]
    weight_lower: Int[Array, "n"]
    weight_upper: Int[Array, "n"]
    fraction: Float[Array, "n"] | None


def round_half_even(value: Float[Array, "*n"]) -> Int[Array, "*n"]:
    """Round to the nearest integer, halves to even, as Python's and NumPy's ``round``; int32."""
    # Not jnp.rint: a function of one operation, called by another.
    return jax.lax.round(value, jax.lax.RoundingMethod.TO_NEAREST_EVEN).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("axis", "smooth"))
def linear_taps(
    index: Int[Array, "n"],
    size_in: Int[Array, ""] | int,
    size_out: Int[Array, ""] | int,
    axis: Literal["row", "column"],
    smooth: bool = True,
) -> Taps:
    """Return the source taps of OpenCV's uint8 bilinear resize from ``size_in`` to ``size_out`` pixels.

    Args:
        index: ``(n,)`` int output positions along the axis, each in ``[0, size_out)``.
        size_in: pixels along this axis before the resize; may be traced.
        size_out: pixels after it; may be traced.
        axis: columns zero the fraction at both ends; rows keep it and clip both indices. OpenCV does
            so, and it shows when the fixed-point weights do not sum to 2048.
        smooth: return the fraction too.

    Returns:
        `Taps`, positions inside ``[0, size_in)``.

    Reference:
        OpenCV ``resize`` (uint8, INTER_LINEAR); checked bit for bit against OpenCV 4.10 and 5.0.
    """
    size_in = jnp.asarray(size_in, jnp.int32)
    size_out = jnp.asarray(size_out, jnp.int32)
    # (index + 0.5) * size_in / size_out - 0.5 = numerator / denominator, in whole numbers.
    numerator = (2 * index.astype(jnp.int32) + 1) * size_in - size_out
    denominator = 2 * size_out
    # Rounded down; above -1, and so without the dozen operations that // takes for negative numbers.
    lower = jax.lax.div(numerator + denominator, jnp.broadcast_to(denominator, index.shape)) - 1
    fraction = _rounded_fraction(lower, numerator - lower * denominator, denominator)
    if axis == "column":
        outside = (lower < 0) | (lower >= size_in - 1)
        fraction = jnp.where(outside, jnp.float32(0), fraction)
    last = size_in - 1
    return Taps(
        lower=jnp.clip(lower, 0, last),
        upper=jnp.clip(lower + 1, 0, last),
        weight_lower=round_half_even(_WEIGHT_ONE * (1 - fraction)),
        weight_upper=round_half_even(_WEIGHT_ONE * fraction),
        fraction=fraction if smooth else None,
    )


@jax.jit
def _rounded_fraction(
    whole: Int[Array, "n"], rest: Int[Array, "n"], denominator: Int[Array, ""]
) -> Float[Array, "n"]:
    """Return ``p - floor(p)`` of ``p = whole + rest / denominator`` after rounding p to float32.

    OpenCV rounds the position, and the lost digits decide ties of the fixed-point weights. Compilers may
    divide by a rounded reciprocal, so the quotient is corrected by its exact remainder.
    """
    quotient = rest.astype(jnp.float32) / denominator.astype(jnp.float32)
    position = whole.astype(jnp.float32) + quotient
    fraction = position - whole.astype(jnp.float32)
    # The last place of the position: its power of two times 2**-23 (finer below 1: no tie there).
    exponent = jax.lax.bitcast_convert_type(position, jnp.int32) & 0x7F800000
    power = jnp.maximum(jax.lax.bitcast_convert_type(exponent, jnp.float32), 1)
    last_place = power * jnp.float32(2.0**-23)
    # rest - fraction * denominator without rounding: the fraction in two halves of 12 bits.
    high = jnp.floor(fraction * 4096) / 4096
    divisor = denominator.astype(jnp.float32)
    remainder = (rest.astype(jnp.float32) - high * divisor) - (fraction - high) * divisor
    half = last_place * divisor / 2
    step = (remainder > half).astype(jnp.float32) - (remainder < -half).astype(jnp.float32)
    return jnp.where(whole >= 0, fraction + step * last_place, quotient)


def combine_taps(
    block: Int[Array, "rr cc k"] | Float[Array, "rr cc k"], rows: Taps, columns: Taps
) -> UInt8[Array, "r c k"] | Float[Array, "r c k"]:
    """Combine the four taps of every output pixel.

    Args:
        block: pixels at the lower, then the upper rows; at the lower, then the upper columns.
        rows: taps of the r output rows.
        columns: taps of the c output columns.

    Returns:
        From int32: OpenCV's two fixed-point passes, uint8. From floats: bilinear, in their dtype.
    """
    r, c = block.shape[0] // 2, block.shape[1] // 2
    lower_left, lower_right = block[:r, :c], block[:r, c:]
    upper_left, upper_right = block[r:, :c], block[r:, c:]
    if jnp.issubdtype(block.dtype, jnp.floating):
        assert columns.fraction is not None
        assert rows.fraction is not None
        across = columns.fraction.astype(block.dtype)[None, :, None]
        down = rows.fraction.astype(block.dtype)[:, None, None]
        first = lower_left + (lower_right - lower_left) * across
        second = upper_left + (upper_right - upper_left) * across
        return first + (second - first) * down
    left, right = columns.weight_lower[None, :, None], columns.weight_upper[None, :, None]
    above = lower_left * left + lower_right * right
    below = upper_left * left + upper_right * right
    top, bottom = rows.weight_lower[:, None, None], rows.weight_upper[:, None, None]
    total = ((top * (above >> 4)) >> 16) + ((bottom * (below >> 4)) >> 16)
    return ((total + 2) >> 2).astype(jnp.uint8)


def take_pixels(
    frame: UInt8[Array, "h w k"] | Float[Array, "h w k"],
    rows: Int[Array, "r"],
    columns: Int[Array, "c"],
    frame_size: Int[Array, "2"],
    fill: Float[Array, "k"] | Int[Array, "k"] | None,
) -> Int[Array, "r c k"] | Float[Array, "r c k"]:
    """Gather the pixels at rows x columns.

    Args:
        frame: uint8 or float image, possibly padded to a larger canvas.
        rows: ``(r,)`` int row indices, anywhere.
        columns: ``(c,)`` int column indices, anywhere.
        frame_size: ``(2,)`` true height and width.
        fill: colour beyond the border; None repeats the border pixel instead.

    Returns:
        ``(r, c, k)`` int32, or in the frame's float dtype.
    """
    # A frame that is smaller than the true size says (another clip's) must not be read beyond its end.
    height = jnp.minimum(frame_size[0], frame.shape[0])
    width = jnp.minimum(frame_size[1], frame.shape[1])
    inner_rows = jnp.clip(rows, 0, height - 1)
    inner_columns = jnp.clip(columns, 0, width - 1)
    # Indices are in range by the clip above; "promise_in_bounds" spares XLA's own clamp and masks.
    picked = frame.at[inner_rows].get(mode="promise_in_bounds")
    picked = picked.at[:, inner_columns].get(mode="promise_in_bounds")
    if not jnp.issubdtype(frame.dtype, jnp.floating):
        picked = picked.astype(jnp.int32)
    if fill is None:
        return picked
    inside = (rows == inner_rows)[:, None] & (columns == inner_columns)[None, :]
    return jnp.where(inside[:, :, None], picked, fill.astype(picked.dtype))


def _taps_of(
    side: Int[Array, ""], count: int, axis: Literal["row", "column"], smooth: bool
) -> Taps:
    """Return `linear_taps` of all output pixels: the first of a round number of them.

    So windows of most sizes share one function in a program.
    """
    index = jnp.arange(-(-count // _ROUND) * _ROUND)
    taps = linear_taps(index, side, count, axis, smooth)
    return jax.tree.map(lambda x: x[:count], taps)


@functools.partial(jax.jit, static_argnames=("out_size",))
def resize_window(
    frame: UInt8[Array, "h w k"] | Float[Array, "h w k"],
    window: Window,
    out_size: tuple[int, int],
    frame_size: Int[Array, "2"],
    fill: Float[Array, "k"] | Int[Array, "k"] | None,
) -> UInt8[Array, "oh ow k"] | Float[Array, "oh ow k"]:
    """Cut a window out of a frame and resize it, bit-equal to OpenCV's uint8 ``INTER_LINEAR``.

    Args:
        frame: uint8 image ``(h, w, k)``; a float one is resized without rounding.
        window: integer window; its sides are at least 1 pixel.
        out_size: ``(height, width)`` of the result, static.
        frame_size: ``(2,)`` int32 true size of the picture inside the canvas.
        fill: ``(k,)`` colour (whole numbers) beyond the border, or None to repeat the border.

    Returns:
        ``(*out_size, k)`` in the frame's dtype.
    """
    smooth = jnp.issubdtype(frame.dtype, jnp.floating)
    rows = _taps_of(window.height, out_size[0], "row", smooth)
    columns = _taps_of(window.width, out_size[1], "column", smooth)
    # One gather for both taps of both axes: the four corners are slices of one block.
    row_index = window.top + jnp.concatenate([rows.lower, rows.upper])
    column_index = window.left + jnp.concatenate([columns.lower, columns.upper])
    block = take_pixels(frame, row_index, column_index, frame_size, fill)
    return combine_taps(block, rows, columns)


def mean_colour(
    frame: UInt8[Array, "h w k"] | Float[Array, "h w k"], frame_size: Int[Array, "2"]
) -> Float[Array, "k"]:
    """Return the mean colour of the picture inside the canvas, per channel, 0..255.

    Sums of uint8 frames run in integers, row by row, so that they are exact for frames of up to 2**31 / 255
    pixels a row (and the division is the only rounding).
    """
    height, width = frame_size[0], frame_size[1]
    inside = (jnp.arange(frame.shape[0]) < height)[:, None] & (jnp.arange(frame.shape[1]) < width)[
        None, :
    ]
    masked = jnp.where(inside[:, :, None], frame, jnp.zeros((), frame.dtype))
    if jnp.issubdtype(frame.dtype, jnp.floating):
        return jnp.sum(jnp.sum(masked, axis=1) / width, axis=0) / height
    row_sums = jnp.sum(masked, axis=1, dtype=jnp.int32)
    # Whole and fractional part of the mean, from integers: one float32 sum would lose the last digits.
    wide = jnp.result_type(float)
    per_row = row_sums // width
    rest = row_sums % width
    total = jnp.sum(per_row, axis=0), jnp.sum(rest, axis=0)
    whole, left_over = total[0] // height, total[0] % height
    fraction = (left_over.astype(wide) + total[1].astype(wide) / width) / height
    return whole.astype(wide) + fraction


@jax.jit
def context_side(size: Float[Array, "2"], amount: float = 0.5) -> Float[Array, ""]:
    """Return `jaxtrack.ops.patch.context_side` as one function of a program.

    Args:
        size: ``(2,)`` target width and height (in either order), pixels.
        amount: context amount.

    Returns:
        ``()`` side in pixels.
    """
    return patch.context_side(size[0], size[1], amount)


def window_siamfc(centre_yx: Float[Array, "2"], side: Float[Array, ""]) -> Window:
    """Return the square window of siamfc-pytorch: side and corner rounded half to even, sub-pixels lost.

    Args:
        centre_yx: ``(2,)`` centre row and column, 0-based pixel centres.
        side: ``()`` side in pixels.

    Reference:
        huanglianghua/siamfc-pytorch, ``crop_and_resize``.
    """
    size = round_half_even(side)
    first = round_half_even(centre_yx - (size - 1).astype(centre_yx.dtype) / 2)
    return Window(top=first[0], left=first[1], height=size, width=size)


@jax.jit
def windows_siamfc(
    centre_yx: Float[Array, "2"] | Float[Array, "n 2"], sides: Float[Array, "n"]
) -> Window:
    """Return `window_siamfc` of several sides around one centre, or around one each; leading axis n."""
    if centre_yx.ndim == 2:
        return jax.vmap(window_siamfc)(centre_yx, sides)
    return jax.vmap(lambda side: window_siamfc(centre_yx, side))(sides)


def cut_siamfc(
    frame: UInt8[Array, "h w 3"] | Float[Array, "h w 3"],
    windows: Window,
    size: int,
    fill: Float[Array, "3"],
    frame_size: Int[Array, "2"],
) -> UInt8[Array, "n s s 3"] | Float[Array, "n s s 3"]:
    """Cut windows out of a frame as siamfc-pytorch does: the rounded mean colour lies beyond the border.

    Args:
        frame: RGB.
        windows: squares, with a leading axis n.
        size: side of the crops, pixels.
        fill: mean colour of the first frame.
        frame_size: ``(2,)`` true height and width.
    """
    colour = round_half_even(fill)
    # A few, one by one: every crop of this size in a program is then the same function.
    squares = zip(windows.top, windows.left, windows.height)
    each = [Window(top, left, side, side) for top, left, side in squares]
    return jnp.stack(
        [resize_window(frame, window, (size, size), frame_size, colour) for window in each]
    )
