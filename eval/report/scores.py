"""The numbers of one tracker on one benchmark, whatever the benchmark's kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtrack.errors import JaxtrackError, UsageError, unknown

from ..files.results import TrackerResults, common_names
from ..metrics.annotation import Annotation
from ..metrics.counts import overlaps
from ..metrics.eao import VOT_PROTOCOLS
from ..metrics.got10k import THRESHOLDS, GOT10kReport, evaluate_got10k
from ..metrics.longterm import LongTermReport, evaluate_longterm
from ..metrics.names import listing
from ..metrics.ope import OPEReport, evaluate_ope
from ..metrics.protocols import PROTOCOLS, Benchmark
from ..metrics.vot import VOTReport, evaluate_vot

Report = OPEReport | GOT10kReport | VOTReport | LongTermReport


@dataclasses.dataclass(frozen=True)
class Curve:
    """One curve of one tracker.

    Attributes:
        title: what it is called.
        xlabel: what its x axis says.
        key: the number that ranks trackers beside it.
        points: (x, y) pairs.
    """

    title: str
    xlabel: str
    key: str
    points: Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Score:
    """Numbers of one tracker under one protocol.

    Attributes:
        tracker: the tracker's name.
        protocol: the rules.
        sequences: how many sequences were scored.
        metrics: headline numbers, as fractions.
        intervals: metric -> (low, high).
        per_sequence: sequence -> numbers.
        per_attribute: attribute -> numbers.
        curves: name -> points.
        notes: what was repaired, cut or left out.
    """

    tracker: str
    protocol: str
    sequences: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    per_sequence: Mapping[str, Mapping[str, float]]
    per_attribute: Mapping[str, Mapping[str, float]]
    curves: Mapping[str, Sequence[float]]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """One tracker on one benchmark, as a report shows it.

    Attributes:
        score: its numbers.
        plots: its curves, to be drawn.
        overlaps: sequence -> (n,) overlap per frame, NaN where the frame does not count.
        boxes: sequence -> (n, 4) boxes, x, y, w, h in pixels, 0-based corner, to be drawn; may be empty.
        frames_per_second: of a run, compilation left out; NaN where nothing was tracked now.
        preset: the preset that made it unchanged, or None.
    """

    score: Score
    plots: Mapping[str, Curve]
    overlaps: Mapping[str, np.ndarray]
    boxes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    frames_per_second: float = float("nan")
    preset: str | None = None

    @property
    def name(self) -> str:
        """The tracker's name."""
        return self.score.tracker


def protocols_of(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the names of the rules by which a benchmark can be scored."""
    if benchmark.kind == "ope":
        return tuple(PROTOCOLS)
    return tuple(VOT_PROTOCOLS) if benchmark.kind == "vot" else (benchmark.protocol,)


def measure(
    results: TrackerResults,
    ground_truth: Mapping[str, Annotation],
    benchmark: Benchmark,
    protocol: str | None = None,
    allow_missing: bool = False,
    base: int | None = None,
) -> tuple[Report, list[str]]:
    """Score one tracker under one protocol.

    Args:
        results: of `eval.files.results.read_results`.
        ground_truth: sequence -> annotation.
        benchmark: the benchmark; its kind decides the metric.
        protocol: a protocol's name, or None for the benchmark's own.
        allow_missing: score what is there.
        base: coordinate of the first pixel in the results, 0 or 1; None: as the benchmark counts.

    Returns:
        The report, and remarks on the results.

    Raises:
        JaxtrackError: results of another kind, or as the metric's function.
    """
    name = protocol or benchmark.protocol
    if name not in protocols_of(benchmark):
        raise UsageError(
            str(unknown(f"protocol of {benchmark.name}", name, protocols_of(benchmark)))
        )
    given, notes = _given(results, benchmark, ground_truth)
    shift = 0 if base is None else benchmark.origin - base
    if shift:
        given = {n: _shifted(v, shift) for n, v in given.items()}
        notes.append(f"moved by {shift} pixel: these results count from {base}")
    who = results.name
    if benchmark.kind == "vot":
        report: Report = evaluate_vot(
            given, ground_truth, name, benchmark, who, allow_missing=allow_missing
        )
    elif benchmark.kind == "longterm":
        confidences = {
            n: results.confidences[given_name] for n, given_name in _origin(given, results)
        }
        regions = {n: runs[0].regions for n, runs in given.items()}
        report = evaluate_longterm(regions, confidences, ground_truth, who, allow_missing)
    elif benchmark.kind == "got10k":
        times = {n: results.times[g] for n, g in _origin(given, results) if g in results.times}
        report = evaluate_got10k(given, ground_truth, times, who, allow_missing)
    else:
        notes += _first_frame_notes(given, ground_truth)
        report = evaluate_ope(given, ground_truth, name, benchmark, who, allow_missing)
    return report, [*results.notes, *notes]


def score_of(
    report: Report, protocol: str, notes: Sequence[str] = (), intervals: bool = True
) -> Score:
    """Return the numbers of a report.

    Args:
        report: of any metric.
        protocol: name of the rules.
        notes: remarks that come before the report's own.
        intervals: compute bootstrap intervals.
    """
    grouped = report.per_attribute() if isinstance(report, OPEReport) else {}
    return Score(
        tracker=report.tracker,
        protocol=protocol,
        sequences=len(report.names),
        metrics=report.overall(),
        intervals=report.intervals() if intervals else {},
        per_sequence=report.per_sequence(),
        per_attribute=grouped,
        curves={k: np.asarray(v, np.float64).tolist() for k, v in _tables(report).items()},
        notes=(*notes, *report.notes),
    )


def outcome_of(report: Report, score: Score, **more: Any) -> Outcome:
    """Return what a page shows of a report; `more` are further fields of `Outcome`."""
    if isinstance(report, GOT10kReport):
        per_frame = {n: table[0] for n, table in report.bounded_overlaps.items()}
    else:
        per_frame = dict(report.frame_overlaps)
    return Outcome(score, _plots(report), per_frame, **more)


def _tables(report: Report) -> dict[str, np.ndarray]:
    if isinstance(report, GOT10kReport | VOTReport):
        return {"curve": report.curve}
    return report.curves()


def _plots(report: Report) -> dict[str, Curve]:
    if isinstance(report, VOTReport):
        lengths = np.arange(len(report.curve)) + 1 - report.protocol.first_entry
        return {"eao": _curve("expected overlap", "sequence length", "eao", lengths, report.curve)}
    if isinstance(report, GOT10kReport):
        return {"success": _curve("success", "overlap threshold", "ao", THRESHOLDS, report.curve)}
    curves = report.curves()
    if isinstance(report, LongTermReport):
        pair = (curves["recall"], curves["precision"])
        return {"recall": _curve("precision over recall", "recall", "f1", *pair)}
    rules = report.protocol
    found = {
        "success": _curve(
            "success", "overlap threshold", "auc", rules.success_thresholds, curves["success"]
        ),
        "precision": _curve(
            "precision",
            "centre distance, pixels",
            "precision_20px",
            rules.precision_thresholds,
            curves["precision"],
        ),
    }
    if "norm_precision" in curves:
        found["norm_precision"] = _curve(
            "normalised precision",
            "normalised distance",
            "norm_precision_0_20",
            rules.norm_precision_thresholds,
            curves["norm_precision"],
        )
    return found


def _curve(title: str, xlabel: str, key: str, x: np.ndarray, y: np.ndarray) -> Curve:
    return Curve(title, xlabel, key, [(float(a), float(b)) for a, b in zip(x, y)])


def _origin(given: Mapping[str, Any], results: TrackerResults) -> list[tuple[str, str]]:
    """Return pairs of a sequence's name in the ground truth and in the results."""
    kept = results.runs or results.repetitions or results.boxes
    names = common_names(kept, given)
    return [(wanted, own) for own, wanted in names.items()]


def _shifted(value: Any, shift: int) -> Any:
    """Return boxes, or a list of boxes or supervised runs, moved by whole pixels."""
    if isinstance(value, list):
        return [_shifted(v, shift) for v in value]
    if not isinstance(value, np.ndarray):
        return dataclasses.replace(value, regions=_shifted(value.regions, shift))
    moved = np.array(value, np.float64)
    points = moved.shape[1] == 8 and ~np.isnan(moved[:, 4])
    moved[:, :2] += shift
    if moved.shape[1] == 8:
        moved[points, 4:] += shift
        moved[points, 2:4] += shift
    return moved


def _given(
    results: TrackerResults, benchmark: Benchmark, truth: Mapping[str, Annotation]
) -> tuple[dict[str, Any], list[str]]:
    """Return the part of the results that the benchmark needs, under the names of the ground truth."""
    wanted: dict[str, Any]
    if benchmark.kind == "vot":
        wanted = dict(results.runs) if not results.confidences else {}
    elif benchmark.kind == "longterm":
        wanted = {n: results.runs[n] for n in results.confidences if n in results.runs}
    elif benchmark.kind == "got10k":
        wanted = dict(results.repetitions) or {n: [b] for n, b in results.boxes.items()}
    else:
        wanted = dict(results.boxes) or {n: runs[0] for n, runs in results.repetitions.items()}
    if not wanted:
        missing = {
            "vot": "supervised runs (baseline/SEQ/SEQ_001.txt)",
            "longterm": "runs with confidence (longterm/SEQ/SEQ_001.txt and SEQ_001_confidence.value)",
            "got10k": "repetitions (SEQ/SEQ_001.txt)",
        }
        raise JaxtrackError(
            f"{results.source}: no {missing.get(benchmark.kind, 'boxes (SEQ.txt)')}, which "
            f"{benchmark.name} needs"
        )
    names = common_names(wanted, truth)
    if benchmark.kind == "ope":
        wanted = {n: truth[names[n]].rows_of(b) if n in names else b for n, b in wanted.items()}
    renamed = [f"{n} for {names[n]}" for n in wanted if names.get(n, n) != n]
    notes = [f"taken by another spelling: {listing(renamed)}"] if renamed else []
    return {str(names.get(n, n)): v for n, v in wanted.items()}, notes


def _first_frame_notes(
    boxes: Mapping[str, np.ndarray], truth: Mapping[str, Annotation]
) -> list[str]:
    """Return signs of other conventions in the first rows: corners for sizes, or pixels counted from 0."""
    names = [n for n in boxes if n in truth and len(boxes[n]) and len(truth[n])]
    if not names:
        return []
    first = np.array([boxes[n][0] for n in names], np.float64)
    wanted = np.array([truth[n].boxes[0] for n in names], np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        corners = np.concatenate([first[:, :2], first[:, 2:] - first[:, :2]], axis=1)
        shift = (first - wanted)[:, :2]
    as_boxes, as_corners = overlaps(first, wanted), overlaps(corners, wanted)
    notes = []
    corner_like = (as_corners > 0.7) & (as_corners > as_boxes + 0.2)
    off, looks = int(np.sum((as_boxes < 0.5) | corner_like)), int(np.sum(corner_like))
    if off > len(names) / 10:
        guess = f"; {looks} look like corners (x1, y1, x2, y2)" if looks > off / 2 else ""
        notes.append(f"row 1 is not the given box in {off} of {len(names)} sequences{guess}")
    if np.mean((np.abs(shift + 1) < 0.01).all(axis=1)) > 0.8:
        notes.append(
            "row 1 lies one pixel up and left of the given box: these results seem to count pixels "
            "from 0 where the ground truth counts from 1 (--base 0 moves them)"
        )
    return notes
