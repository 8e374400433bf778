"""Overlap of regions on the pixel grid, as the VOT toolkits compute it, without a compiled extension.

A region is a rectangle (x, y, w, h) or a polygon of four corner points. Both toolkits paint the two
regions into a small window and count pixels; they differ in what a rectangle covers, in rounding,
and in degenerate cases (`RULES`). Instead of painting, the filled spans of each pixel row are
computed for all frames at once.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtrack.errors import JaxtrackError

RULES = ("pysot", "vot_toolkit")
_NO_NODE = np.int32(2**30)  # sorts behind every real node
_ROWS = 1 << 16  # pixel rows at a time


@dataclasses.dataclass(eq=False)
class _Shapes:
    """Regions in window coordinates: corner points, and for rectangles the pixels they cover.

    `box` is (first column, first row, last column, last row), inclusive and clipped to the window,
    empty when the last lies before the first.
    """

    points: np.ndarray
    is_box: np.ndarray
    box: np.ndarray


def as_regions(boxes: np.ndarray) -> np.ndarray:
    """Return regions as (n, 8), rectangles in the first four columns and NaN behind.

    Args:
        boxes: (n, 4) rectangles (x, y, w, h) or (n, 8) corner points, pixels.

    Returns:
        float64 (n, 8).

    Raises:
        JaxtrackError: another number of columns.
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 8):
        raise JaxtrackError(f"regions of shape {boxes.shape}: 4 or 8 numbers per frame are needed")
    if boxes.shape[1] == 8:
        return boxes
    return np.concatenate([boxes, np.full_like(boxes, np.nan)], axis=1)


def region_overlap(
    regions: np.ndarray,
    others: np.ndarray,
    bounds: np.ndarray | tuple[float, float] | None = None,
    rule: str = "pysot",
) -> np.ndarray:
    """Return the overlap of two regions per frame, on the pixel grid.

    Args:
        regions: (n, 4) rectangles or (n, 8) corner points; rows of 8 whose last four are NaN are rectangles.
        others: the same.
        bounds: (width, height), one for all frames or (n, 2), to which the regions are clipped;
            None: no clipping.
        rule: "pysot" or "vot_toolkit".

    Returns:
        (n,) pixels in both / pixels in either; float32 precision for "pysot" (in a float64 array), NaN where
        "pysot" divides 0 by 0; NaN where a region is NaN.

    Raises:
        JaxtrackError: unknown rule or a wrong shape.

    Reference:
        The rasterisation of STVIR/pysot `toolkit/utils` and of vot-toolkit 0.9.0, observed from the outside.
    """
    a, b = as_regions(regions), as_regions(others)
    if rule not in RULES:
        raise JaxtrackError(f"unknown region rule {rule!r}: known: {', '.join(RULES)}")
    if len(a) != len(b):
        raise JaxtrackError(f"{len(a)} regions against {len(b)}: one per frame on both sides")
    out = np.full(len(a), np.nan)
    known = np.flatnonzero(~(np.isnan(a[:, :4]).any(axis=1) | np.isnan(b[:, :4]).any(axis=1)))
    if len(known):
        limits = None
        if bounds is not None:
            limits = np.broadcast_to(np.asarray(bounds, np.float64), (len(a), 2))[known]
        compute = _pysot if rule == "pysot" else _vot_toolkit
        out[known] = compute(a[known], b[known], limits)
    return out


def region_overlaps_two_bounds(
    regions: np.ndarray, others: np.ndarray, bounds: np.ndarray, narrower: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the overlap by pysot's rule under two bounds, painting twice only where the bounds matter.

    Args:
        regions: (n, 4) or (n, 8).
        others: (n, 4) or (n, 8).
        bounds: (n, 2) width and height.
        narrower: (n, 2) the other bounds.

    Returns:
        The overlaps (n,) under each.
    """
    a, b = as_regions(regions), as_regions(others)
    first = region_overlap(a, b, bounds)
    second = first.copy()
    known = ~(np.isnan(a[:, :4]).any(axis=1) | np.isnan(b[:, :4]).any(axis=1))
    touched = np.zeros(len(a), bool)
    for region in (a[known], b[known]):
        box = _outer_box(_corners_float32(region))
        touched[known] |= (box[:, 2:] > np.minimum(bounds, narrower)[known]).any(axis=1)
    which = np.flatnonzero(touched)
    second[which] = region_overlap(a[which], b[which], narrower[which])
    return first, second


def corners(regions: np.ndarray) -> np.ndarray:
    """Return the corner points of regions.

    Args:
        regions: (n, 8), rectangles with NaN behind the fourth number.

    Returns:
        float64 (n, 4, 2).
    """
    x, y, w, h = regions[:, :4].T
    box = np.stack([x, y, x + w, y, x + w, y + h, x, y + h], axis=1)
    return np.where(np.isnan(regions[:, 4])[:, None], box, regions).reshape(-1, 4, 2)


def _corners_float32(regions: np.ndarray) -> np.ndarray:
    """Return corner points (n, 4, 2), sums in float64 and then rounded to float32."""
    return corners(regions).astype(np.float32)


def _outer_box(points: np.ndarray) -> np.ndarray:
    """Return the integer box (n, 4) around corner points: x0, y0, x1, y1 in float64."""
    low, high = np.floor(points.min(axis=1)), np.ceil(points.max(axis=1))
    return np.concatenate([low, high], axis=1).astype(np.float64)


def _pysot(a: np.ndarray, b: np.ndarray, limits: np.ndarray | None) -> np.ndarray:
    points = [_corners_float32(r) for r in (a, b)]
    boxes = [_outer_box(p) for p in points]
    if limits is not None:
        for box in boxes:
            box[:, :2] = np.maximum(box[:, :2], 0.0)
            box[:, 2:] = np.minimum(box[:, 2:], limits)
    sides = [box[:, 2:] - box[:, :2] for box in boxes]
    areas = [s[:, 0] * s[:, 1] for s in sides]
    low = np.minimum(boxes[0][:, :2], boxes[1][:, :2])
    high = np.maximum(boxes[0][:, 2:], boxes[1][:, 2:])
    meet = np.minimum(boxes[0][:, 2:], boxes[1][:, 2:]) > np.maximum(
        boxes[0][:, :2], boxes[1][:, :2]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        comparable = (areas[0] / areas[1] >= 1e-10) & (areas[1] / areas[0] >= 1e-10)
    painted = comparable & ((high - low) >= 1).all(axis=1) & meet.all(axis=1)
    out = np.zeros(len(a))
    which = np.flatnonzero(painted)
    size = (high - low + 1)[which].astype(np.int32)
    shapes = []
    for region, corner in zip((a, b), points):
        moved = corner[which] - low[which, None].astype(np.float32)
        rounded = (np.sign(moved) * np.floor(np.abs(moved) + np.float32(0.5))).astype(np.int32)
        shapes.append(_box_shapes(rounded, np.isnan(region[which, 4]), size))
    both, either = _count_pixels(shapes[0], shapes[1], size, skip_last_pair=True)
    with np.errstate(invalid="ignore"):
        out[which] = both.astype(np.float32) / either.astype(np.float32)
    return out


def _box_shapes(points: np.ndarray, is_box: np.ndarray, size: np.ndarray) -> _Shapes:
    """Return rectangles given by rounded corners: both edges are filled, a line fills nothing."""
    low, high = points.min(axis=1), points.max(axis=1)
    flat = (low == high).any(axis=1)
    box = np.concatenate([np.maximum(low, 0), np.minimum(high, size - 1)], axis=1)
    box[flat, 2:] = box[flat, :2] - 1
    return _Shapes(points, is_box, box)


def _vot_toolkit(a: np.ndarray, b: np.ndarray, limits: np.ndarray | None) -> np.ndarray:
    # The toolkit keeps regions in float32: 361.49999185 is 361.5 before it is rounded to a pixel.
    rounded = [np.round(np.nan_to_num(r).astype(np.float32)).astype(np.int64) for r in (a, b)]
    is_box = [np.isnan(r[:, 4]) for r in (a, b)]
    points, boxes = [], []
    for values, flags in zip(rounded, is_box):
        corner = values.reshape(-1, 4, 2)
        outer = np.concatenate([corner.min(axis=1), corner.max(axis=1)], axis=1)
        covered = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:4] - 1], axis=1)
        points.append(corner)
        boxes.append(np.where(flags[:, None], covered, outer))
    low = np.minimum(boxes[0][:, :2], boxes[1][:, :2])
    high = np.maximum(boxes[0][:, 2:], boxes[1][:, 2:])
    out = np.zeros(len(a))
    line = (low >= high).any(axis=1)
    out[line] = 1.0
    if limits is not None:
        low = np.maximum(low, 0)
        high = np.minimum(high, limits.astype(np.int64) - 1)
    which = np.flatnonzero(~line & (low < high).all(axis=1))
    low, high = low[which], high[which]
    size = (high - low + 1).astype(np.int32)
    shapes = []
    for corner, box, flags in zip(points, boxes, is_box):
        first = np.maximum(box[which, :2] - low, 0)
        # Without bounds a rectangle is also cut at the window's far corner in image coordinates.
        last = np.minimum(np.minimum(box[which, 2:] - low, size - 1), high)
        moved = (corner[which] - low[:, None]).astype(np.int32)
        shapes.append(_Shapes(moved, flags[which], np.concatenate([first, last], axis=1)))
    both, either = _count_pixels(shapes[0], shapes[1], size, skip_last_pair=False)
    out[which] = both / np.maximum(either, 1)
    return out


def _count_pixels(
    a: _Shapes, b: _Shapes, size: np.ndarray, skip_last_pair: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels in both regions and in either, (n,) each; `size` is the window's width and height."""
    area_a, area_b = _box_area(a.box), _box_area(b.box)
    meet = np.concatenate(
        [np.maximum(a.box[:, :2], b.box[:, :2]), np.minimum(a.box[:, 2:], b.box[:, 2:])], axis=1
    )
    both = _box_area(meet)
    for block in _blocks(a, b, size):
        spans_a = _Spans(a, block, size, skip_last_pair) if not a.is_box[block].all() else None
        spans_b = _Spans(b, block, size, skip_last_pair) if not b.is_box[block].all() else None
        for spans, area in ((spans_a, area_a), (spans_b, area_b)):
            if spans is not None:
                area[spans.frames] = spans.area()
        for spans, other in ((spans_a, b), (spans_b, a)):
            if spans is not None:
                alone = other.is_box[spans.frames]
                inside = spans.area_inside(other.box[spans.frames])
                both[spans.frames[alone]] = inside[alone]
        if spans_a is not None and spans_b is not None:
            frames, shared = spans_a.area_shared(spans_b)
            both[frames] = shared
    return both, area_a + area_b - both


def _box_area(box: np.ndarray) -> np.ndarray:
    sides = np.maximum(box[:, 2:] - box[:, :2] + 1, 0).astype(np.int64)
    return sides[:, 0] * sides[:, 1]


def _blocks(a: _Shapes, b: _Shapes, size: np.ndarray):
    """Return frames with a polygon, some thousand pixel rows at a time, as index arrays."""
    frames = np.flatnonzero(~(a.is_box & b.is_box))
    if not len(frames):
        return
    block = np.cumsum(size[frames, 1].astype(np.int64)) // _ROWS
    yield from np.split(frames, np.flatnonzero(np.diff(block)) + 1)


class _Spans:
    """Filled spans of every pixel row of a block of polygons: at most two per row for four corners."""

    def __init__(self, shapes: _Shapes, block: np.ndarray, size: np.ndarray, skip_last_pair: bool):
        self.frames = block[~shapes.is_box[block]]
        points = shapes.points[self.frames]
        y = points[:, :, 1]
        width, height = size[self.frames].T
        self.top = np.maximum(y.min(axis=1), 0)
        rows = np.maximum(np.minimum(y.max(axis=1), height - 1) - self.top + 1, 0)
        self.base = np.concatenate([[0], np.cumsum(rows)])
        self.owner = np.repeat(np.arange(len(self.frames)), rows)
        nodes = self._nodes(points, rows, skip_last_pair)
        first, last = _fill(nodes, skip_last_pair)
        edge = (width - 1)[self.owner].astype(np.int32)
        self.first = [np.maximum(f, 0) for f in first]
        self.last = [np.minimum(e, edge) for e in last]

    def _nodes(self, points: np.ndarray, rows: np.ndarray, skip_flat: bool) -> np.ndarray:
        """Return the columns where edges cross each row, sorted, (4, rows)."""
        nodes = np.full((4, self.base[-1]), _NO_NODE, np.int32)
        bottom = self.top + rows - 1
        for i in range(4):
            (x1, y1), (x2, y2) = points[:, i].T, points[:, i - 1].T
            start = np.maximum(np.minimum(y1, y2), self.top)
            stop = np.minimum(np.maximum(y1, y2), bottom)
            flat = y1 == y2
            count = np.maximum(stop - start + 1, 0)
            if skip_flat:
                count[flat] = 0
            total = int(count.sum())
            offset = np.cumsum(count) - count
            step = np.arange(total)
            where = step + np.repeat(self.base[:-1] + start - self.top - offset, count)
            # float64, in this order: a fraction of the edge times its width; flat edges give x1.
            slope = np.where(flat, 1, y2 - y1)
            along = (step + np.repeat(start - y1 - offset, count)) / np.repeat(slope, count)
            along *= np.repeat(np.where(flat, 0, x2 - x1), count)
            along += np.repeat(x1, count)
            nodes[i, where] = along  # conversion to int truncates
        for i, j in ((0, 1), (2, 3), (0, 2), (1, 3), (1, 2)):
            low = np.minimum(nodes[i], nodes[j])
            np.maximum(nodes[i], nodes[j], out=nodes[j])
            nodes[i] = low
        return nodes

    def _sum(self, per_row: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0], np.cumsum(per_row, dtype=np.int64)])
        return total[self.base[1:]] - total[self.base[:-1]]

    def area(self) -> np.ndarray:
        """Return pixels of each polygon inside its window."""
        lengths = [np.maximum(e - f + 1, 0) for f, e in zip(self.first, self.last)]
        return self._sum(lengths[0] + lengths[1])

    def area_inside(self, box: np.ndarray) -> np.ndarray:
        """Return pixels of each polygon inside a rectangle (x0, y0, x1, y1), inclusive."""
        left, right = (box[:, k].astype(np.int32)[self.owner] for k in (0, 2))
        y = np.arange(self.base[-1]) - np.repeat(self.base[:-1] - self.top, np.diff(self.base))
        inside = (y >= box[:, 1][self.owner]) & (y <= box[:, 3][self.owner])
        length = sum(
            np.maximum(np.minimum(e, right) - np.maximum(f, left) + 1, 0)
            for f, e in zip(self.first, self.last)
        )
        return self._sum(np.where(inside, length, 0))

    def area_shared(self, other: _Spans) -> tuple[np.ndarray, np.ndarray]:
        """Return frames in which both sides are polygons, and the pixels that both cover."""
        frames, i, j = np.intersect1d(
            self.frames, other.frames, assume_unique=True, return_indices=True
        )
        top = np.maximum(self.top[i], other.top[j])
        end_a = self.top[i] + np.diff(self.base)[i]
        end_b = other.top[j] + np.diff(other.base)[j]
        count = np.maximum(np.minimum(end_a, end_b) - top, 0)
        owner = np.repeat(np.arange(len(frames)), count)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        row_a = step + (self.base[:-1][i] + top - self.top[i])[owner]
        row_b = step + (other.base[:-1][j] + top - other.top[j])[owner]
        shared = np.zeros(len(owner), np.int64)
        for fa, ea in zip(self.first, self.last):
            for fb, eb in zip(other.first, other.last):
                first = np.maximum(fa[row_a], fb[row_b])
                shared += np.maximum(np.minimum(ea[row_a], eb[row_b]) - first + 1, 0)
        return frames, np.bincount(owner, weights=shared, minlength=len(frames)).astype(np.int64)


def _fill(nodes: np.ndarray, skip_last_pair: bool) -> tuple[list, list]:
    """Walk along sorted nodes: two equal neighbours skip one, else fill from the first to the second.

    Returns the first and last columns of the two possible spans; an empty span ends before it begins. A span
    that begins on the column where the one before ends begins one later, so that no pixel counts twice.
    """
    n0, n1, n2, n3 = nodes
    has2, has3, has4 = n1 < _NO_NODE, n2 < _NO_NODE, n3 < _NO_NODE
    single = not skip_last_pair  # the last pair is filled even when its nodes are equal
    fill01 = has2 & ((n0 < n1) | (single & ~has3))
    fill12 = ~fill01 & has3 & ((n1 < n2) | (single & ~has4))
    fill23 = ~fill12 & has4 & ((n2 < n3) | single)
    first_a = np.where(fill01, n0, n1)
    last_a = np.where(fill01, n1, np.where(fill12, n2, first_a - 1))
    last_b = np.where(fill23, n3, n2 - 1)
    first_b = np.where(fill01 & (n2 == n1), n2 + 1, n2)
    return [first_a, first_b], [last_a, last_b]
