"""Overlap of convex regions by their exact areas, beside the toolkits' pixel grids."""

from __future__ import annotations

import numpy as np

from .regions import as_regions, corners


def exact_overlap(regions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the overlap of two regions by their exact areas, without a pixel grid.

    Args:
        regions: (n, 4) rectangles or (n, 8) corner points of convex polygons.
        others: the same.

    Returns:
        (n,) area of the intersection / area of the union, 0 where both are empty; NaN where a
        polygon is not convex.
    """
    sides = [corners(as_regions(r)) for r in (regions, others)]
    out = np.full(len(sides[0]), np.nan)
    for i, (a, b) in enumerate(zip(*sides)):
        a, b = _counter_clockwise(a), _counter_clockwise(b)
        if a is None or b is None:
            continue
        inter = _area(_clip(a, b))
        union = _area(a) + _area(b) - inter
        out[i] = inter / union if union > 0 else 0.0
    return out


def _area(points: np.ndarray) -> float:
    """Return the signed area of a polygon (k, 2)."""
    if len(points) < 3:
        return 0.0
    x, y = (points - points[0]).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _counter_clockwise(points: np.ndarray) -> np.ndarray | None:
    """Return the corners in positive order, or None when the polygon is not convex."""
    steps = np.roll(points, -1, axis=0) - points
    following = np.roll(steps, -1, axis=0)
    turns = steps[:, 0] * following[:, 1] - steps[:, 1] * following[:, 0]
    limit = 1e-9 * max(float(np.abs(steps).max()), 1.0) ** 2
    if (turns < -limit).any() and (turns > limit).any():
        return None
    return points if _area(points) >= 0 else points[::-1]


def _clip(subject: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the part of a convex polygon inside another (Sutherland and Hodgman, 1974)."""
    for start, stop in zip(window, np.roll(window, -1, axis=0)):
        if not len(subject) or (start == stop).all():
            continue
        edge = stop - start
        side = edge[0] * (subject[:, 1] - start[1]) - edge[1] * (subject[:, 0] - start[0])
        kept = []
        for here, there, d, e in zip(
            subject, np.roll(subject, -1, axis=0), side, np.roll(side, -1)
        ):
            if d >= 0:
                kept.append(here)
            if (d > 0 > e) or (d < 0 < e):
                kept.append(here + (there - here) * (d / (d - e)))
        subject = np.array(kept).reshape(-1, 2)
    return subject
