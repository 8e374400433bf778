"""The frames of a benchmark side by side, and how many of them pass each threshold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from .annotation import Annotation
from .protocols import (
    Benchmark,
    Protocol,
)

_BLOCK = 1 << 14  # frames at a time: some twenty float64 arrays of this length stay in the cache


def overlaps(boxes: np.ndarray, others: np.ndarray, union_epsilon: float = 0.0) -> np.ndarray:
    """Return the intersection over union of continuous boxes, row by row.

    Args:
        boxes: (n, 4), (x, y, w, h), pixels.
        others: (n, 4), the same convention.
        union_epsilon: added to the union.

    Returns:
        float64 (n,); NaN where both boxes are empty and `union_epsilon` is 0.
    """
    columns = [np.asarray(b, np.float64).T for b in (boxes, others)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return _overlap(columns[0], columns[1], "continuous", union_epsilon)


def _overlap(a: np.ndarray, b: np.ndarray, corners: str, union_epsilon: float) -> np.ndarray:
    """Return the overlap of (4, n) boxes; `corners` as in `Protocol`."""
    shift = 1.0 if corners == "pixel" else 0.0
    sides = []
    for k in (0, 1):
        right_a, right_b = a[k] + a[k + 2], b[k] + b[k + 2]
        if shift:
            right_a -= shift
            right_b -= shift
        side = np.minimum(right_a, right_b)
        side -= np.maximum(a[k], b[k])
        if shift:
            side += shift
        sides.append(np.maximum(side, 0.0, out=side))
    inter = sides[0] * sides[1]
    union = a[2] * a[3] + b[2] * b[3]
    union -= inter
    if union_epsilon:
        union += union_epsilon
    return np.divide(inter, union, out=union)


def _distances(
    pred: np.ndarray, truth: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return distance, normalised distance, and the centre of the truth (2, n), plain and normalised."""
    centre = truth[:2] + (truth[2:] - 1.0) / 2
    mine = pred[:2] + (pred[2:] - 1.0) / 2
    difference = centre - mine
    distance = np.sqrt(difference[0] ** 2 + difference[1] ** 2)
    if protocol.normalise == "squares":
        squares = difference / truth[2:] * difference / truth[2:]
        return distance, np.sqrt(squares[0] + squares[1]), centre, centre
    if protocol.normalise == "divide_first":
        size = truth[2:] + protocol.size_epsilon if protocol.size_epsilon else truth[2:]
        scaled = centre / size
        difference = scaled - mine / size
    else:
        scaled = centre
        difference /= np.maximum(truth[2:], 1.0)
    return distance, np.sqrt(difference[0] ** 2 + difference[1] ** 2), centre, scaled


def passed(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count the thresholds that lie strictly below each value.

    The even grid gives a guess, the thresholds themselves decide, so that ties fall as in a
    comparison with each threshold.

    Args:
        values: (n,); NaN counts none.
        thresholds: (K,), evenly spaced from 0.

    Returns:
        int (n,), 0 to K.
    """
    last = len(thresholds)
    scale = (last - 1) / thresholds[-1]
    guess = np.fmin(np.fmax(np.ceil(values * scale), 0.0), float(last)).astype(np.intp)
    padded = np.concatenate([[np.nan], thresholds, [np.inf]])
    guess += padded[guess + 1] < values  # the next threshold is below as well
    guess -= padded[guess] >= values  # the last one counted is not below
    return guess


def _invalid(truth: np.ndarray, rule: str) -> np.ndarray:
    if rule == "size":
        return ~((truth[2] > 0) & (truth[3] > 0))
    if rule == "any":
        return ~((truth[0] > 0) & (truth[1] > 0) & (truth[2] > 0) & (truth[3] > 0))
    return np.zeros(truth.shape[1], bool)


def fit(
    name: str,
    given: np.ndarray,
    notation: Annotation,
    protocol: Protocol,
    notes: list[str],
) -> tuple[int, np.ndarray | None]:
    """Apply the protocol's rules on lengths and NaN ground truth.

    Args:
        name: the sequence.
        given: (rows, 4) its result.
        notation: its ground truth.
        protocol: the rules.
        notes: a line is added when rows and frames differ.

    Returns:
        The number of frames to score, and which of them if not the first ones.
    """
    rows, frames = len(given), len(notation)
    length = frames
    if rows != frames:
        short = rows < frames
        what = f"{name}: {rows} result rows for {frames} frames"
        if protocol.length == "truncate" and short:
            notes.append(f"{what}: only the frames that have a row are scored")
            length = rows
        else:
            notes.append(f"{what}: {'missing rows count as failures' if short else 'cut'}")
    if protocol.nan_ground_truth == "drop":
        bad = np.isnan(notation.boxes[:length]).any(axis=1)
        if bad.any():
            keep = np.flatnonzero(~bad)
            return len(keep), keep
    return length, None


class Frames:
    """All frames of all sequences side by side, after the protocol's rules on lengths and rows.

    Attributes:
        lengths: (S,) frames per sequence.
        starts: (S + 1,) first frame of each sequence, and the total.
        pred: (4, N) boxes of the tracker.
        truth: (4, N) boxes of the ground truth.
        absent: (N,) bool, or None where the protocol or the benchmark has no such flag.
        repaired: number of rows that took the row before.
    """

    def __init__(
        self,
        names: Sequence[str],
        results: Mapping[str, np.ndarray],
        ground_truth: Mapping[str, Annotation],
        protocol: Protocol,
        fits: Sequence[tuple[int, np.ndarray | None]],
        benchmark: Benchmark,
    ):
        self.lengths = np.array([length for length, _ in fits], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        total = int(self.starts[-1])
        self.pred = np.zeros((4, total))
        self.truth = np.empty((4, total))
        self.absent: np.ndarray | None = None
        given_rows = np.empty(len(names), np.int64)
        for i, (name, (length, keep)) in enumerate(zip(names, fits)):
            inside = slice(self.starts[i], self.starts[i + 1])
            given, notation = results[name], ground_truth[name]
            rows = slice(0, length) if keep is None else keep
            taken = given[rows].T
            given_rows[i] = taken.shape[1]
            self.pred[:, inside][:, : taken.shape[1]] = taken
            self.truth[:, inside] = notation.boxes[rows].T
            if notation.absent is not None and protocol.absent == "fail" and benchmark.absent_flags:
                if self.absent is None:
                    self.absent = np.zeros(total, bool)
                self.absent[inside] = notation.absent[rows]
        self.repaired = self._repair(protocol, given_rows)
        if protocol.rounded:
            np.round(self.pred, out=self.pred)
            np.round(self.truth, out=self.truth)
        if protocol.first_frame == "ground_truth":
            first = self.starts[:-1][self.lengths > 0]
            self.pred[:, first] = self.truth[:, first]

    def _repair(self, protocol: Protocol, given_rows: np.ndarray) -> int:
        """Let rows that the protocol calls missing take the row before; padding rows stay zero."""
        if protocol.result_rows == "as_is":
            return 0
        x, y, w, h = self.pred
        if protocol.result_rows == "zero_size":
            bad = (w == 0) | (h == 0)
        else:
            bad = ~((w > 0) & (h > 0)) | np.isnan(x) | np.isnan(y)
        bad[self.starts[:-1][self.lengths > 0]] = False
        for i in np.flatnonzero(given_rows < self.lengths):
            bad[self.starts[i] + given_rows[i] : self.starts[i + 1]] = False
        where = np.flatnonzero(bad)
        if len(where):
            source = np.maximum.accumulate(np.where(bad, 0, np.arange(len(bad))))
            self.pred[:, where] = self.pred[:, source[where]]
        return len(where)


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Frames that pass each threshold.

    Attributes:
        success: (S, 21) frames whose overlap is above each threshold.
        precision: (S, 51) frames whose distance is at most each threshold.
        norm_precision: (S, 51) the same for the normalised distance, or None.
        denominators: (S,) frames that each count is divided by.
        overlaps: (N,) overlap per frame, NaN where the frame is invalid or absent.
        distances: (N,) centre distance per frame in pixels, not marked.
    """

    success: np.ndarray
    precision: np.ndarray
    norm_precision: np.ndarray | None
    denominators: np.ndarray
    overlaps: np.ndarray
    distances: np.ndarray


def count(frames: Frames, protocol: Protocol, benchmark: Benchmark) -> Counts:
    """Count the frames of every sequence that pass every threshold.

    Args:
        frames: boxes side by side.
        protocol: the rules.
        benchmark: decides where the rules depend on it.

    Returns:
        The counts.
    """
    total, sequences = frames.pred.shape[1], len(frames.lengths)
    thresholds = (
        protocol.success_thresholds,
        protocol.precision_thresholds,
        protocol.norm_precision_thresholds,
    )
    wants_norm = not protocol.norm_precision_on or benchmark.name in protocol.norm_precision_on
    tables = [np.zeros(sequences * (len(t) + 1), np.int64) for t in thresholds]
    overlap, distance = np.empty(total), np.empty(total)
    owner = np.repeat(np.arange(sequences), frames.lengths)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for a in range(0, total, _BLOCK):
            block = slice(a, min(a + _BLOCK, total))
            measured = _measure(frames, block, protocol, benchmark, wants_norm, overlap, distance)
            for table, values, grid in zip(tables, measured, thresholds):
                if values is not None:
                    index = owner[block] * (len(grid) + 1) + passed(values, grid)
                    table += np.bincount(index, minlength=len(table))
    shaped = [t.reshape(sequences, -1) for t in tables]
    valid = ~np.isnan(overlap)
    return Counts(
        success=np.cumsum(shaped[0][:, :0:-1], axis=1)[:, ::-1],
        precision=np.cumsum(shaped[1][:, :-1], axis=1),
        norm_precision=np.cumsum(shaped[2][:, :-1], axis=1) if wants_norm else None,
        denominators=np.bincount(owner[valid], minlength=sequences)
        if protocol.denominator == "valid"
        else frames.lengths,
        overlaps=overlap,
        distances=distance,
    )


def _measure(
    frames: Frames,
    block: slice,
    protocol: Protocol,
    benchmark: Benchmark,
    wants_norm: bool,
    overlap_out: np.ndarray,
    distance_out: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the overlap, distance and normalised distance of a block, with the rules on invalid frames."""
    pred, truth = frames.pred[:, block], frames.truth[:, block]
    overlap = _overlap(pred, truth, protocol.corners, protocol.union_epsilon)
    distance, norm, centre, scaled = _distances(pred, truth, protocol)
    # A NaN that comes from the result is a failure, whatever the comparison says.
    np.fmax(overlap, 0.0, out=overlap)
    if protocol.overlap_clipped:
        np.minimum(overlap, 1.0, out=overlap)
    np.fmin(distance, np.inf, out=distance)
    np.fmin(norm, np.inf, out=norm)
    overlap_out[block], distance_out[block] = overlap, distance
    bad = _invalid(truth, protocol.invalid_ground_truth)
    if protocol.invalid_distance == "centre":
        distance[~((centre[0] > 0) & (centre[1] > 0))] = -1.0
        norm[~((scaled[0] > 0) & (scaled[1] > 0))] = -1.0
    elif protocol.invalid_distance != "distance":
        never = protocol.invalid_distance == "never" and not benchmark.absent_in_ground_truth
        distance[bad] = np.inf if never else -1.0
        norm[bad] = -1.0
    if frames.absent is not None:
        absent = frames.absent[block]
        distance[absent] = norm[absent] = np.inf
        bad = bad | absent
    overlap[bad] = -1.0
    overlap_out[block][bad] = np.nan
    return overlap, distance, norm if wants_norm else None
