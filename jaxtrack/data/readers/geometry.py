"""Boxes and polygons as datasets write them, turned into 0-based (x, y, w, h)."""

from __future__ import annotations

import numpy as np


def zero_based(boxes: np.ndarray, origin: int) -> np.ndarray:
    """Move annotated boxes to 0-based corners.

    Args:
        boxes: ``(n, 4)`` (x, y, w, h) as annotated, pixels.
        origin: coordinate of the first pixel in the annotation, 0 or 1.

    Returns:
        ``(n, 4)`` float64.
    """
    moved = np.array(boxes, dtype=np.float64)
    moved[:, :2] -= origin
    return moved


def first_box_only(boxes: np.ndarray, count: int) -> np.ndarray:
    """Extend a withheld annotation, which has the first box only, with NaN rows.

    Args:
        boxes: ``(1, 4)`` (x, y, w, h), pixels.
        count: number of frames.

    Returns:
        ``(count, 4)``, NaN after row 0.
    """
    full = np.full((count, 4), np.nan)
    full[0] = boxes[0]
    return full


def corners_to_boxes(corners: np.ndarray) -> np.ndarray:
    """Turn (x1, y1, x2, y2) into (x, y, w, h) with w = x2 - x1.

    Args:
        corners: ``(n, 4)`` pixels.

    Returns:
        ``(n, 4)`` pixels.
    """
    corners = np.asarray(corners, dtype=np.float64)
    return np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], axis=-1)


def polygons_to_boxes(polygons: np.ndarray) -> np.ndarray:
    """Turn VOT's four-point regions into upright boxes of the same area and centre.

    The box has the aspect of the polygon's bounding rectangle, shrunk to the area of the (rotated)
    rectangle that the first three points span, plus the one pixel that VOT's inclusive corners add.

    Args:
        polygons: ``(n, 8)`` x1, y1 .. x4, y4, pixels.

    Returns:
        ``(n, 4)`` (x, y, w, h), pixels; NaN rows stay NaN.

    Reference:
        the axis-aligned approximation that VOT participants use (pysot's ``get_axis_aligned_bbox``).
    """
    points = np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2)
    centre = points.mean(axis=1)
    low, high = points.min(axis=1), points.max(axis=1)
    side_a = np.linalg.norm(points[:, 0] - points[:, 1], axis=1)
    side_b = np.linalg.norm(points[:, 1] - points[:, 2], axis=1)
    bounding = np.prod(high - low, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shrink = np.where(bounding > 0, np.sqrt(side_a * side_b / bounding), 0.0)
    size = (high - low) * shrink[:, None] + 1
    return np.concatenate([centre - size / 2, size], axis=1)
