"""One-pass evaluation: success, precision and normalised precision under a named protocol.

`evaluate_ope(results, ground_truth, protocol)` scores all frames of all sequences at once.
Everything is float64: boxes are often integers, their overlaps hit thresholds exactly, and the
order of the float operations then decides frames (`eval.metrics.counts`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtrack.errors import JaxtrackError

from .annotation import Annotation
from .bootstrap import bootstrap
from .counts import Counts, Frames, count, fit
from .names import IncompleteError, match_names
from .protocols import FLOAT64_EPSILON, Benchmark, Protocol, get_benchmark, get_protocol


@dataclasses.dataclass(frozen=True, eq=False)
class OPEReport:
    """Scores of one tracker on one benchmark under one protocol.

    Attributes:
        tracker: the tracker's name.
        benchmark: the benchmark.
        protocol: the rules.
        names: (S,) sequences that were scored.
        lengths: (S,) frames in each denominator.
        success: (S, 21) success rate per sequence and overlap threshold.
        precision: (S, 51) precision per sequence and distance threshold (pixels).
        norm_precision: (S, 51) the same over normalised distance, or None where the toolkit has none.
        average_overlap: (S,) mean overlap of the frames with valid ground truth.
        frame_overlaps: sequence -> (n,) overlap per scored frame, NaN where the frame does not count.
        frame_distances: sequence -> (n,) centre distance in pixels.
        attributes: attribute -> indices into `names`.
        repaired: number of result rows that took the row before.
        notes: what was repaired, padded, cut or left out, one line each.
    """

    tracker: str
    benchmark: Benchmark
    protocol: Protocol
    names: tuple[str, ...]
    lengths: np.ndarray
    success: np.ndarray
    precision: np.ndarray
    norm_precision: np.ndarray | None
    average_overlap: np.ndarray
    frame_overlaps: Mapping[str, np.ndarray]
    frame_distances: Mapping[str, np.ndarray]
    attributes: Mapping[str, np.ndarray]
    repaired: int
    notes: tuple[str, ...]

    def curves(self, which: Sequence[int] | np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the mean curves.

        Args:
            which: indices of the sequences to average; all when None.

        Returns:
            "success" (21,), "precision" (51,) and, where defined, "norm_precision" (51,).
        """
        tables = {"success": self.success, "precision": self.precision}
        if self.norm_precision is not None:
            tables["norm_precision"] = self.norm_precision
        return {k: self._mean(t if which is None else t[which]) for k, t in tables.items()}

    def _mean(self, table: np.ndarray) -> np.ndarray:
        table = table.astype(np.float64, copy=False)
        if self.protocol.drop_zero_curves:
            kept = table[table.sum(axis=1) > FLOAT64_EPSILON]
            return kept.mean(axis=0) if len(kept) else np.zeros(table.shape[1])
        return table.mean(axis=0)

    def overall(self, which: Sequence[int] | np.ndarray | None = None) -> dict[str, float]:
        """Return the headline numbers, as fractions.

        Args:
            which: indices of the sequences to average; all when None.

        Returns:
            "auc", "success_rate_0_50", "success_rate_0_75", "precision_20px", "average_overlap" and, where
            defined, "norm_precision_0_20" and "norm_precision_auc_0_to_0_50".
        """
        curves = self.curves(which)
        overlap = self.average_overlap if which is None else self.average_overlap[which]
        known = overlap[~np.isnan(overlap)]
        numbers = self._headline(
            curves["success"], curves["precision"], curves.get("norm_precision")
        )
        numbers["average_overlap"] = np.asarray(known.mean() if len(known) else np.nan)
        return {k: float(v) for k, v in numbers.items()}

    def headline(self) -> dict[str, float]:
        """Return the three numbers that the toolkit itself prints.

        Returns:
            "success", "precision" and, where the toolkit has it, "norm_precision", as fractions.
        """
        numbers = self.overall()
        pixels = "precision_auc_0_to_50px" if self.protocol.coarse_grid else "precision_20px"
        found = {"success": numbers["auc"], "precision": numbers[pixels]}
        if self.norm_precision is not None:
            mean = self.protocol.norm_headline == "mean"
            name = "norm_precision_auc_0_to_0_50" if mean else "norm_precision_0_20"
            found["norm_precision"] = numbers[name]
        return found

    def _headline(
        self, success: np.ndarray, precision: np.ndarray, norm: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Return the headline numbers of curves (..., K)."""
        rules = self.protocol
        numbers = {
            "auc": rules.area(success),
            "success_rate_0_50": success[..., 10],
            "success_rate_0_75": success[..., 15],
            "precision_20px": precision[..., _nearest(rules.precision_thresholds, 20)],
        }
        if rules.coarse_grid:
            numbers["precision_auc_0_to_50px"] = rules.area(precision)
        if norm is not None:
            at = _nearest(rules.norm_precision_thresholds, 0.2)
            numbers["norm_precision_0_20"] = norm[..., at]
            numbers["norm_precision_auc_0_to_0_50"] = rules.area(norm)
        return numbers

    def sequence_scores(self) -> dict[str, np.ndarray]:
        """Return the headline numbers per sequence, metric -> float64 (S,)."""
        tables = [
            None if t is None else t.astype(np.float64, copy=False)
            for t in (self.success, self.precision, self.norm_precision)
        ]
        scores = self._headline(*tables)  # type: ignore[arg-type]
        scores["average_overlap"] = self.average_overlap
        return scores

    def per_sequence(self) -> dict[str, dict[str, float]]:
        """Return sequence -> headline numbers."""
        scores = self.sequence_scores()
        return {n: {k: float(v[i]) for k, v in scores.items()} for i, n in enumerate(self.names)}

    def per_attribute(self) -> dict[str, dict[str, float]]:
        """Return attribute -> headline numbers over its sequences, with their number as "n"."""
        return {a: {"n": len(i), **self.overall(i)} for a, i in self.attributes.items()}

    def intervals(
        self, level: float = 0.95, resamples: int = 2000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals over sequences, metric -> (low, high); see `bootstrap`."""
        scores = self.sequence_scores()
        if self.protocol.drop_zero_curves:  # the mean is over the sequences that have a curve
            tables = {"auc": self.success, "success": self.success, "precision": self.precision}
            for key in scores:
                table = tables.get(key.split("_")[0], self.norm_precision)
                if table is not None and key != "average_overlap":
                    scores[key] = scores[key][table.sum(axis=1) > FLOAT64_EPSILON]
        return {k: bootstrap(v, level, resamples, seed) for k, v in scores.items()}


def _nearest(thresholds: np.ndarray, value: float) -> int:
    return int(np.argmin(np.abs(thresholds - value)))


def _check_rows(
    name: str,
    boxes: np.ndarray,
    frames: int,
    protocol: Protocol,
    allow_missing: bool,
    notes: list[str],
) -> np.ndarray:
    """Check the shape, the length and the values of one result; NaN rows need an explicit choice."""
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise JaxtrackError(f"{name}: boxes of shape {boxes.shape} where (frames, 4) is needed")
    if len(boxes) < frames and not allow_missing:
        what = f"{name}: {len(boxes)} result rows for {frames} frames"
        raise IncompleteError(what, "complete the file", "score what is there")
    if not np.isfinite(boxes.sum()):
        boxes = _without_infinite(name, boxes, allow_missing, notes)
        bad = np.flatnonzero(np.isnan(boxes).any(axis=1))
        if not len(bad):
            return boxes
        what = f"{name}: {len(bad)} result rows are not finite (first: row {bad[0] + 1})"
        if protocol.nan_rows_allowed:
            notes.append(f"{what}: {protocol.name} lets them take the row before")
        elif allow_missing:
            notes.append(f"{what}: counted as failures")
        else:
            raise IncompleteError(what, "correct them", "count them as failures")
    return boxes


def _without_infinite(
    name: str, boxes: np.ndarray, allow_missing: bool, notes: list[str]
) -> np.ndarray:
    """Put rows with an infinite number far outside, where no rule repairs them; refuse them unasked."""
    bad = np.isinf(boxes).any(axis=1)
    if not bad.any():
        return boxes
    what = (
        f"{name}: {bad.sum()} result rows hold infinity (first: row {np.flatnonzero(bad)[0] + 1})"
    )
    if not allow_missing:
        raise IncompleteError(what, "correct them", "count them as failures")
    notes.append(f"{what}: counted as failures")
    return np.where(bad[:, None], np.array([-1e9, -1e9, 1.0, 1.0]), boxes)


def evaluate_ope(
    results: Mapping[str, np.ndarray],
    ground_truth: Mapping[str, Annotation],
    protocol: str | Protocol | None = None,
    benchmark: str | Benchmark = "otb",
    tracker: str = "tracker",
    allow_missing: bool = False,
) -> OPEReport:
    """Score one tracker's boxes by one-pass evaluation.

    Args:
        results: sequence -> (n, 4) boxes (x, y, w, h), pixels, in the coordinates of the ground
            truth; row 0 is the first frame.
        ground_truth: sequence -> annotation.
        protocol: a name of `eval.metrics.protocols.PROTOCOLS`, a `Protocol`, or None for the benchmark's own.
        benchmark: a name of `eval.metrics.protocols.BENCHMARKS` or a `Benchmark`.
        tracker: name for the report.
        allow_missing: score what is there when sequences, rows or values are missing; every
            omission is a line in `notes`.

    Returns:
        The report.

    Raises:
        JaxtrackError: sequences, rows or values are missing and `allow_missing` is False.
    """
    benchmark = get_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    protocol = protocol or benchmark.protocol
    protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
    notes: list[str] = []
    names = match_names(results, ground_truth, allow_missing, notes)
    checked = {
        n: _check_rows(n, results[n], len(ground_truth[n]), protocol, allow_missing, notes)
        for n in names
    }
    fits = [fit(n, checked[n], ground_truth[n], protocol, notes) for n in names]
    frames = Frames(names, checked, ground_truth, protocol, fits, benchmark)
    if frames.repaired:
        notes.append(f"{frames.repaired} rows without a size take the row before ({protocol.name})")
    counts = count(frames, protocol, benchmark)
    return _report(tracker, benchmark, protocol, names, ground_truth, frames, counts, notes)


def _report(
    tracker: str,
    benchmark: Benchmark,
    protocol: Protocol,
    names: list[str],
    ground_truth: Mapping[str, Annotation],
    frames: Frames,
    counts: Counts,
    notes: list[str],
) -> OPEReport:
    """Turn counts into rates and put everything into a report."""
    empty = [n for n, d in zip(names, counts.denominators) if not d]
    if empty:
        raise JaxtrackError(f"{empty[0]}: no frame with ground truth: leave the sequence out")

    def rates(table: np.ndarray | None) -> np.ndarray | None:
        if table is None:
            return None
        if protocol.float32_curves:
            return table.astype(np.float32) / counts.denominators.astype(np.float32)[:, None]
        return table / (counts.denominators[:, None] + protocol.length_epsilon)

    valid = ~np.isnan(counts.overlaps)
    edges = frames.starts
    sums = np.add.reduceat(np.where(valid, counts.overlaps, 0.0), edges[:-1])
    seen = np.add.reduceat(valid.astype(np.int64), edges[:-1])
    attributes: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        for attribute in ground_truth[name].attributes:
            attributes.setdefault(attribute, []).append(i)
    spans = [(n, slice(edges[i], edges[i + 1])) for i, n in enumerate(names)]
    success, precision = rates(counts.success), rates(counts.precision)
    assert success is not None
    assert precision is not None
    return OPEReport(
        tracker=tracker,
        benchmark=benchmark,
        protocol=protocol,
        names=tuple(names),
        lengths=counts.denominators,
        success=success,
        precision=precision,
        norm_precision=rates(counts.norm_precision),
        average_overlap=np.where(seen > 0, sums / np.maximum(seen, 1), np.nan),
        frame_overlaps={n: counts.overlaps[s] for n, s in spans},
        frame_distances={n: counts.distances[s] for n, s in spans},
        attributes={a: np.array(i) for a, i in attributes.items()},
        repaired=frames.repaired,
        notes=tuple(notes),
    )
