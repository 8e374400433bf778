"""Geometry around proposals: PySOT's crop window, penalty of change, clipping to the frame."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack.base import Frame
from jaxtrack.ops.crop import Window, resize_window, round_half_even
from jaxtrack.ops.patch import context_side


def window_pysot(centre: Float[Array, "2"], side: Int[Array, ""]) -> Window:
    """Return PySOT's square window: exactly ``side`` pixels from ``floor(c - (side + 1) / 2 + 0.5)`` on.

    Args:
        centre: ``(2,)`` cx, cy, 0-based pixel centres.
        side: ``()`` int32 side in pixels, at least 1.

    Reference:
        STVIR/pysot, ``get_subwindow``.
    """
    half = (side.astype(centre.dtype) + 1) / 2
    first = jnp.floor(centre - half + 0.5).astype(jnp.int32)
    return Window(top=first[1], left=first[0], height=side, width=side)


def whole_window(centre: Float[Array, "2"], side: Float[Array, ""]) -> Window:
    """Return the window of a crop in whole pixels: its side rounded half to even, at least 1."""
    return window_pysot(centre, jnp.maximum(round_half_even(side), 1))


def cut_pysot(
    frame: Frame,
    window: Window,
    size: int,
    fill: Float[Array, "3"],
    frame_size: Int[Array, "2"],
) -> UInt8[Array, "s s 3"] | Float[Array, "s s 3"]:
    """Cut a window out of a frame as PySOT does: the truncated mean colour lies beyond the border.

    Args:
        frame: RGB.
        window: from `whole_window`.
        size: side of the crop, pixels.
        fill: mean colour of the first frame.
        frame_size: ``(2,)`` true height and width.
    """
    return resize_window(frame, window, (size, size), frame_size, jnp.floor(fill))


def change_penalty(
    boxes: Float[Array, "k 4"], size: Float[Array, "2"], scale: Float[Array, ""], strength: float
) -> Float[Array, "k"]:
    """Return the penalty of each box's change of scale and shape against the target.

    Args:
        boxes: ``cx, cy, w, h`` in crop pixels.
        size: ``(2,)`` target width and height in frame pixels.
        scale: crop pixels per frame pixel.
        strength: the k of the paper.

    Returns:
        ``exp(-(shape change * scale change - 1) * strength)``.

    Reference:
        SiamRPN, equation 13.
    """

    def change(ratio: Array) -> Array:
        return jnp.maximum(ratio, 1 / ratio)

    w, h = boxes[:, 2].astype(size.dtype), boxes[:, 3].astype(size.dtype)
    scale_change = change(context_side(w, h) / context_side(size[0] * scale, size[1] * scale))
    shape_change = change((size[0] / size[1]) / (w / h))
    return jnp.exp(-(shape_change * scale_change - 1) * strength)


def clip_to_frame(box: Float[Array, "4"], frame_size: Int[Array, "2"]) -> Float[Array, "4"]:
    """Put the centre inside the frame and the size between 10 pixels and the frame's (``cx, cy, w, h``)."""
    limit = frame_size[::-1].astype(box.dtype)
    centre = jnp.clip(box[:2], 0, limit)
    # As published: the frame's size first, then at least 10.
    return jnp.concatenate([centre, jnp.maximum(10, jnp.minimum(box[2:], limit))])
