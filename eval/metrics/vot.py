"""Restart-after-failure evaluation of VOT2016 to VOT2019: accuracy, robustness, expected average overlap.

A supervised run is written as one line per frame: 1 initialisation, 2 failure, 0 skipped, else a
region. The two toolkits of the field differ in how they paint regions (`eval.metrics.regions`), pool frames
and cut runs into fragments; `VOT_PROTOCOLS` names their rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtrack.errors import JaxtrackError

from .annotation import Annotation
from .bootstrap import bootstrap, draw
from .bootstrap import interval as ends
from .eao import (
    BURN_IN,
    INITIALISED,
    REGION,
    VOT_PROTOCOLS,
    Fragments,
    MeasuredRun,
    Run,
    VOTProtocol,
    average,
    curve_entries,
    expected_overlap,
    fragments,
    nan_mean,
    running_means,
)
from .names import IncompleteError, match_names
from .protocols import Benchmark, get_benchmark
from .regions import as_regions, region_overlap, region_overlaps_two_bounds


@dataclasses.dataclass(frozen=True, eq=False)
class VOTReport:
    """Scores of one tracker in the supervised experiment.

    Attributes:
        tracker: the tracker's name.
        benchmark: the benchmark.
        protocol: the rules.
        names: (S,) sequences that were scored.
        lengths: (S,) frames of each.
        accuracy: mean overlap while tracking.
        failures: failures summed over sequences, or weighted by their lengths, by the protocol.
        robustness: failures per hundred frames.
        eao: expected average overlap over `interval`, NaN without an interval.
        interval: shortest and longest sequence length of the expected average overlap.
        curve: (L,) expected overlap by sequence length.
        eao_by_tag: tag -> expected average overlap, pieces weighted by their share of tagged frames.
        sequence_accuracy: (S,).
        sequence_failures: (S,) mean over repetitions.
        frame_overlaps: sequence -> (n,) overlap per frame, NaN on special frames and in the burn-in.
        fragments: the pieces the curve is made of.
        notes: what was cut or left out, one line each.
    """

    tracker: str
    benchmark: Benchmark
    protocol: VOTProtocol
    names: tuple[str, ...]
    lengths: np.ndarray
    accuracy: float
    failures: float
    robustness: float
    eao: float
    interval: tuple[int, int] | None
    curve: np.ndarray
    eao_by_tag: Mapping[str, float]
    sequence_accuracy: np.ndarray
    sequence_failures: np.ndarray
    frame_overlaps: Mapping[str, np.ndarray]
    fragments: Fragments
    notes: tuple[str, ...]

    def overall(self) -> dict[str, float]:
        """Return the headline numbers: "accuracy", "robustness", "lost" and "eao"."""
        return {
            "accuracy": self.accuracy,
            "robustness": self.robustness,
            "lost": self.failures,
            "eao": self.eao,
        }

    def per_sequence(self) -> dict[str, dict[str, float]]:
        """Return sequence -> "accuracy", "lost", "frames"."""
        return {
            n: {"accuracy": float(a), "lost": float(f), "frames": int(k)}
            for n, a, f, k in zip(
                self.names, self.sequence_accuracy, self.sequence_failures, self.lengths
            )
        }

    def intervals(
        self, level: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals over sequences: "accuracy", "robustness" and "eao".

        Args:
            level: share of the resampled values inside the interval.
            resamples: number of resampled benchmarks.
            seed: the same seed draws the same sequences.

        Returns:
            metric -> (low, high).
        """
        counted = np.array([np.sum(~np.isnan(self.frame_overlaps[n])) for n in self.names])
        weights = counted if self.protocol.pooling == "frames" else self.lengths
        rate = 100.0 * self.sequence_failures / self.lengths
        found = {
            "accuracy": bootstrap(self.sequence_accuracy, level, resamples, seed, weights),
            "robustness": bootstrap(rate, level, resamples, seed, self.lengths),
        }
        if self.interval is None or np.isnan(self.eao):
            return found
        draws = draw(len(self.names), resamples, seed)[:, self.fragments.sequence]
        entries = curve_entries(self.interval, self.protocol)
        means, alive = running_means(self.fragments.overlaps)
        weighted = draws * self.fragments.weights
        total = weighted @ np.where(alive, means, 0.0)[:, entries]
        with np.errstate(invalid="ignore", divide="ignore"):
            curves = total / (weighted @ alive[:, entries].astype(np.float64))
        known = ~np.isnan(curves)
        mean = np.where(known, curves, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        found["eao"] = ends(np.where(known.any(axis=1), mean, np.nan), level)
        return found


def evaluate_vot(
    results: Mapping[str, Sequence[Run]],
    ground_truth: Mapping[str, Annotation],
    protocol: str | VOTProtocol = "pysot",
    benchmark: str | Benchmark = "vot2018",
    tracker: str = "tracker",
    interval: tuple[int, int] | None = None,
    allow_missing: bool = False,
) -> VOTReport:
    """Score supervised runs.

    Args:
        results: sequence -> repetitions.
        ground_truth: sequence -> annotation with `polygons` (or `boxes`) and `size`, and `tags` if any.
        protocol: a name of `VOT_PROTOCOLS` or a `VOTProtocol`.
        benchmark: decides the interval of the expected average overlap.
        tracker: name for the report.
        interval: shortest and longest sequence length, instead of the benchmark's.
        allow_missing: score what is there; every omission is a line in `notes`.

    Returns:
        The report.

    Raises:
        JaxtrackError: unknown protocol, missing sequences or sizes, runs that are too short.
    """
    benchmark = get_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    if isinstance(protocol, str):
        if protocol not in VOT_PROTOCOLS:
            raise JaxtrackError(f"unknown protocol {protocol!r}: known: {', '.join(VOT_PROTOCOLS)}")
        protocol = VOT_PROTOCOLS[protocol]
    interval = interval or benchmark.eao_interval
    notes: list[str] = []
    names = match_names(results, ground_truth, allow_missing, notes)
    runs = _measure(names, results, ground_truth, protocol, allow_missing, notes)
    groups: list[list[MeasuredRun]] = [[] for _ in names]
    for run in runs:
        groups[run.sequence].append(run)
    frame_overlaps = [_mean_over_runs([r.accuracy for r in group]) for group in groups]
    lengths = np.array([len(o) for o in frame_overlaps])
    sequence_accuracy = np.array([nan_mean(o) for o in frame_overlaps])
    sequence_failures = np.array([np.mean([len(r.failures) for r in g]) for g in groups])
    if protocol.pooling == "frames":
        accuracy = nan_mean(np.concatenate(frame_overlaps))
        failures = float(sequence_failures.sum())
        robustness = failures / lengths.sum() * 100
    else:
        # A sequence without a frame outside the burn-in counts as 0, with its length.
        sequence_accuracy = np.nan_to_num(sequence_accuracy)
        accuracy = float(np.average(sequence_accuracy, weights=lengths))
        failures = float(np.average(sequence_failures, weights=lengths))
        robustness = failures / lengths.mean() * 100
    pieces = fragments(runs, protocol)
    curve = expected_overlap(pieces, protocol)
    return VOTReport(
        tracker=tracker,
        benchmark=benchmark,
        protocol=protocol,
        names=tuple(names),
        lengths=lengths,
        accuracy=accuracy,
        failures=failures,
        robustness=float(robustness),
        eao=average(curve, interval, protocol),
        interval=interval,
        curve=curve,
        eao_by_tag=_by_tag(runs, names, ground_truth, protocol, interval),
        sequence_accuracy=sequence_accuracy,
        sequence_failures=sequence_failures,
        frame_overlaps=dict(zip(names, frame_overlaps)),
        fragments=pieces,
        notes=tuple(notes),
    )


def _mean_over_runs(overlaps: list[np.ndarray]) -> np.ndarray:
    """Return the mean per frame over repetitions, NaN where every repetition has NaN."""
    if len(overlaps) == 1:
        return overlaps[0]
    table = np.stack([o[: min(map(len, overlaps))] for o in overlaps])
    known = ~np.isnan(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _measure(
    names: list[str],
    results: Mapping[str, Sequence[Run]],
    ground_truth: Mapping[str, Annotation],
    protocol: VOTProtocol,
    allow_missing: bool,
    notes: list[str],
) -> list[MeasuredRun]:
    """Paint all runs at once and cut the overlaps apart again."""
    parts: list[tuple[int, Run, int]] = []
    regions, truths, sizes = [], [], []
    for i, name in enumerate(names):
        annotation = ground_truth[name]
        truth = as_regions(annotation.boxes if annotation.polygons is None else annotation.polygons)
        if annotation.size is None:
            raise JaxtrackError(f"{name}: the image size is not known, which the overlap needs")
        if not len(results[name]):
            raise JaxtrackError(f"{name}: no repetition")
        for run in results[name]:
            _check_length(name, run, len(truth), protocol, allow_missing, notes)
            _check_rows(name, run, allow_missing, notes)
            n = min(len(run), len(truth))
            parts.append((i, run, n))
            regions.append(as_regions(run.regions)[:n])
            truths.append(truth[:n])
            sizes.append(np.broadcast_to(np.asarray(annotation.size, np.float64), (n, 2)))
    boxes, size = np.concatenate(regions), np.concatenate(sizes)
    codes = np.concatenate([run.codes[:n] for _, run, n in parts])
    boxes[codes != REGION] = np.nan
    truth = np.concatenate(truths)
    if protocol.eao_margin:
        wide, narrow = region_overlaps_two_bounds(boxes, truth, size, size - protocol.eao_margin)
    else:
        wide = narrow = region_overlap(boxes, truth, size, protocol.regions)
    edges = np.cumsum([n for _, _, n in parts])[:-1]
    measured = []
    pieces = zip(parts, np.split(wide, edges), np.split(narrow, edges))
    for (i, run, n), for_accuracy, for_eao in pieces:
        measured.append(
            MeasuredRun(
                sequence=i,
                frames=len(ground_truth[names[i]]),
                failures=run.failures,
                codes=run.codes[:n],
                accuracy=np.where(burn_in(run.codes[:n]), np.nan, for_accuracy),
                eao=for_eao,
            )
        )
    return measured


def _check_length(
    name: str,
    run: Run,
    frames: int,
    protocol: VOTProtocol,
    allow_missing: bool,
    notes: list[str],
) -> None:
    if len(run) == frames:
        return
    what = f"{name}: {len(run)} result rows for {frames} frames"
    if not allow_missing and (len(run) < frames or protocol.lengths == "equal"):
        version = f"{what}, as of another version of the video"
        raise IncompleteError(version, "take runs of this one", "score the common frames")
    notes.append(f"{what}: only the first {min(len(run), frames)} are scored")


def _check_rows(name: str, run: Run, allow_missing: bool, notes: list[str]) -> None:
    """Refuse what would be scored as a good run: one pass without restarts, and regions of NaN.

    No toolkit takes them for failures: of one pass no failure is counted, and accuracy leaves NaN out.
    """
    if len(run) and run.codes[0] != INITIALISED:
        raise JaxtrackError(
            f"{name}: row 1 is not 1, the initialisation: these are boxes of one pass, no supervised run"
        )
    regions = run.regions[run.codes == REGION, :4]
    bad = np.flatnonzero(~np.isfinite(regions).all(axis=1))
    if not len(bad):
        return
    row = np.flatnonzero(run.codes == REGION)[bad[0]] + 1
    what = f"{name}: {len(bad)} result rows are not finite (first: row {row})"
    if not allow_missing:
        raise IncompleteError(what, "correct them", "leave them out")
    notes.append(f"{what}: left out of the accuracy")


def burn_in(codes: np.ndarray, frames: int = BURN_IN) -> np.ndarray:
    """Return which frames lie in the burn-in after an initialisation.

    Args:
        codes: int (n,), one run.
        frames: length of the burn-in.

    Returns:
        bool (n,): the frame of each initialisation and those after it, `frames` in all.
    """
    marked = np.zeros(len(codes), bool)
    for start in np.flatnonzero(codes == INITIALISED):
        marked[start : start + frames] = True
    return marked


def _by_tag(
    runs: Sequence[MeasuredRun],
    names: Sequence[str],
    ground_truth: Mapping[str, Annotation],
    protocol: VOTProtocol,
    interval: tuple[int, int] | None,
) -> dict[str, float]:
    """Return the expected average overlap for "all", per tag of the annotation, and pysot's "empty"."""
    tags = list(dict.fromkeys(t for n in names for t in ground_truth[n].tags))
    if not tags or interval is None or protocol.fragments != "restart":
        return {}
    flags = {t: [_tag(ground_truth[n], t) for n in names] for t in tags}
    flags["empty"] = [_never_set(ground_truth[n]) for n in names]
    found = {
        "all": average(expected_overlap(fragments(runs, protocol), protocol), interval, protocol)
    }
    for tag, per_sequence in flags.items():
        pieces = fragments(runs, protocol, per_sequence, empty_tag=tag == "empty")
        found[tag] = average(expected_overlap(pieces, protocol), interval, protocol)
    return found


def _tag(annotation: Annotation, tag: str) -> np.ndarray:
    """Return flags of one tag; without a list for the sequence it holds nowhere."""
    flags = annotation.tags.get(tag)
    return np.zeros(len(annotation), bool) if flags is None else np.asarray(flags, bool)


def _never_set(annotation: Annotation) -> np.ndarray:
    """Return pysot's tag "empty": a flag per tag, whether it holds at no frame; not a list of frames.

    The weight of a piece is the number of such tags over its length, so the number means little;
    it is kept because the toolkit prints it.
    """
    return np.array([not np.any(flags) for flags in annotation.tags.values()], bool)
