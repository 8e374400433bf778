"""Boxes as text, and boxes that fit a frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io.text import parse_numbers


def parse_box(text: str) -> Float[np.ndarray, "4"]:
    """Return a box from text such as ``"12,34,56,78"``.

    Args:
        text: ``x, y, w, h`` in pixels, 0-based corner, separated by commas, semicolons or spaces.

    Returns:
        ``(4,)`` float32.

    Raises:
        JaxtrackError: not four finite numbers, or no positive size.
    """
    shown = f"box '{brief(text, 80)}'"
    if not text.strip():
        raise JaxtrackError(f"{shown} has 0 numbers; four are wanted: X,Y,W,H")
    try:
        rows = parse_numbers(text.encode("utf-8", "surrogateescape"), shown)
    except JaxtrackError as error:
        why = str(error).removeprefix(shown).removeprefix(" line 1").removeprefix(": ")
        raise JaxtrackError(f"{shown}: {why}; four numbers are wanted: X,Y,W,H") from error
    if rows.size != 4 or len(rows) != 1:
        raise JaxtrackError(f"{shown} has {rows.size} numbers; four are wanted: X,Y,W,H")
    with np.errstate(over="ignore"):
        box = rows[0].astype(np.float32)
    _check_values(box, shown)
    return box


def _check_values(box: np.ndarray, name: str) -> None:
    if not np.isfinite(box).all():
        raise JaxtrackError(f"{name} has a number that is not finite")
    if box[2] <= 0 or box[3] <= 0:
        raise JaxtrackError(
            f"{name} has no size: width {box[2]:g} and height {box[3]:g} must be above 0"
        )


def check_box(box: Real[np.ndarray, "..."], frame_size: tuple[int, int], name: str = "box") -> None:
    """Check that a box can start a tracker in a frame.

    Args:
        box: ``(4,)`` ``x, y, w, h`` in pixels, 0-based corner.
        frame_size: ``(height, width)``.
        name: what the box is called in errors.

    Raises:
        JaxtrackError: not four numbers, not finite, no positive size, its centre outside the frame, or
            written as two corners.
    """
    box = np.asarray(box, np.float64)
    if box.shape != (4,):
        raise JaxtrackError(f"{name} has shape {box.shape}; four numbers are wanted: x, y, w, h")
    _check_values(box, name)
    height, width = frame_size
    x, y, w, h = box
    shown = f"{name} ({x:g}, {y:g}, {w:g}, {h:g})"
    # Corners x1, y1, x2, y2 taken for x, y, w, h reach out of the frame, but are corners inside it.
    corners = x < w <= width and y < h <= height and x >= 0 and y >= 0
    if corners and (x + w > width or y + h > height):
        raise JaxtrackError(
            f"{shown} reaches out of the {width}x{height} frame but fits as two corners: "
            f"x,y,w,h is wanted, that is {x:g},{y:g},{w - x:g},{h - y:g} (cut it to the frame if not)"
        )
    if not (0 <= x + w / 2 <= width and 0 <= y + h / 2 <= height):
        raise JaxtrackError(
            f"{shown} has its centre outside the {width}x{height} frame (width x height)"
        )


def format_box(box: Real[np.ndarray, "4"]) -> str:
    """Return a box as a line of text, without the line's end."""
    return ",".join(f"{value:.4f}" for value in np.asarray(box))
