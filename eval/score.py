"""Score raw results of any tracker, or check a pack of expected values.

python -m eval.score RESULTS... --benchmark otb --ground-truth FOLDER_OR_FILE
python -m eval.score --pack FOLDER
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from eval.conformance.pack import check_pack
from eval.files.names import listing
from eval.files.results import TrackerResults, common_names, read_results
from eval.files.truth import read_ground_truth
from eval.metrics.annotation import Annotation
from eval.metrics.eao import VOT_PROTOCOLS
from eval.metrics.got10k import evaluate_got10k
from eval.metrics.ope import evaluate_ope, overlaps
from eval.metrics.protocols import PROTOCOLS, Benchmark, get_benchmark
from eval.metrics.vot import evaluate_vot
from eval.report import tables
from jaxtrack import cli
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import write_whole


@dataclasses.dataclass(frozen=True)
class Options:
    """Score raw results of any tracker, or check a pack of expected values.

    Attributes:
        results: folders of one tracker each, folders of such folders, or npz files.
        benchmark: otb, lasot, uav123, nfs, tc128, trackingnet, got10k, vot2016 to vot2019, synthetic.
        ground_truth: npz or json file, or a folder of annotations.
        protocol: scoring rules; by default the benchmark's own. "all" shows every one of them.
        allow_missing: score what is there when sequences, rows or values are missing.
        intervals: print bootstrap intervals over sequences beside the headline numbers.
        attributes: print a table per attribute.
        sequences: print a table per sequence.
        json: write everything, curves included, to this file.
        csv: write the headline numbers to this file.
        latex: write a table for a paper to this file.
        pack: check every expected value of this folder instead.
        debug: show the traceback of errors.
    """

    results: Annotated[tuple[Path, ...], cli.Positional] = ()
    benchmark: str | None = None
    ground_truth: Path | None = None
    protocol: tuple[str, ...] = ()
    allow_missing: bool = False
    intervals: bool = True
    attributes: bool = False
    sequences: bool = False
    json: Path | None = None
    csv: Path | None = None
    latex: Path | None = None
    pack: Path | None = None
    debug: bool = False


def score(
    results: TrackerResults,
    ground_truth: Mapping[str, Annotation],
    benchmark: Benchmark,
    protocol: str | None = None,
    allow_missing: bool = False,
    intervals: bool = True,
) -> tables.Score:
    """Score one tracker under one protocol.

    Args:
        results: of `eval.files.results.read_results`.
        ground_truth: sequence -> annotation.
        benchmark: the benchmark; its kind decides the metric.
        protocol: a protocol's name, or None for the benchmark's own.
        allow_missing: score what is there.
        intervals: compute bootstrap intervals.

    Returns:
        The numbers.

    Raises:
        JaxtrackError: results of another kind, or as the metric's function.
    """
    given, notes = _given(results, benchmark, ground_truth)
    name = protocol or benchmark.protocol
    report: Any
    if benchmark.kind == "vot":
        report = evaluate_vot(
            given, ground_truth, name, benchmark, results.name, allow_missing=allow_missing
        )
        name = report.protocol.name
    elif benchmark.kind == "got10k":
        if name != "got10k":
            raise JaxtrackError(f"GOT-10k is scored by its own rules (got10k), not by {name!r}")
        report = evaluate_got10k(given, ground_truth, results.times, results.name, allow_missing)
    else:
        notes += _first_frame_notes(given, ground_truth)
        report = evaluate_ope(given, ground_truth, name, benchmark, results.name, allow_missing)
        name = report.protocol.name
    return tables.Score(
        tracker=results.name,
        protocol=name,
        sequences=len(report.names),
        metrics=report.overall(),
        intervals=report.intervals() if intervals else {},
        per_sequence=report.per_sequence(),
        per_attribute=report.per_attribute() if hasattr(report, "per_attribute") else {},
        curves=_curves(report),
        notes=(*results.notes, *notes, *report.notes),
    )


def _curves(report: Any) -> dict[str, list[float]]:
    curve = getattr(report, "curves", None)
    found = curve() if callable(curve) else {"curve": report.curve}
    return {k: np.asarray(v, np.float64).tolist() for k, v in found.items()}


def _given(
    results: TrackerResults, benchmark: Benchmark, truth: Mapping[str, Annotation]
) -> tuple[dict[str, Any], list[str]]:
    """The part of the results that the benchmark needs, under the names of the ground truth."""
    kinds: dict[str, dict[str, Any]] = {"vot": results.runs, "got10k": dict(results.repetitions)}
    wanted = kinds.get(benchmark.kind, dict(results.boxes))
    if not wanted and benchmark.kind == "got10k" and results.boxes:
        wanted = {n: [b] for n, b in results.boxes.items()}
    if not wanted and benchmark.kind == "ope" and results.repetitions:
        wanted = {n: runs[0] for n, runs in results.repetitions.items()}
    if not wanted:
        missing = {"vot": "supervised runs (baseline/SEQ/SEQ_001.txt)", "got10k": "repetitions"}
        raise JaxtrackError(
            f"{results.source}: no {missing.get(benchmark.kind, 'boxes (SEQ.txt)')}, which "
            f"{benchmark.name} needs"
        )
    names = common_names(wanted, truth)
    renamed = [f"{n} for {names[n]}" for n in wanted if names.get(n, n) != n]
    notes = [f"taken by another spelling: {listing(renamed)}"] if renamed else []
    return {str(names.get(n, n)): v for n, v in wanted.items()}, notes


def _first_frame_notes(
    boxes: Mapping[str, np.ndarray], truth: Mapping[str, Annotation]
) -> list[str]:
    """Signs of other conventions in the first rows: corners for sizes, or pixels counted from 0."""
    names = [n for n in boxes if n in truth and len(boxes[n]) and len(truth[n])]
    if not names:
        return []
    first = np.array([boxes[n][0] for n in names], np.float64)
    wanted = np.array([truth[n].boxes[0] for n in names], np.float64)
    corners = np.concatenate([first[:, :2], first[:, 2:] - first[:, :2]], axis=1)
    as_boxes, as_corners = overlaps(first, wanted), overlaps(corners, wanted)
    notes = []
    corner_like = (as_corners > 0.7) & (as_corners > as_boxes + 0.2)
    off, looks = int(np.sum((as_boxes < 0.5) | corner_like)), int(np.sum(corner_like))
    if off > len(names) / 10:
        guess = f"; {looks} look like corners (x1, y1, x2, y2)" if looks > off / 2 else ""
        notes.append(f"row 1 is not the given box in {off} of {len(names)} sequences{guess}")
    shift = (first - wanted)[:, :2]
    if np.mean((np.abs(shift + 1) < 0.01).all(axis=1)) > 0.8:
        notes.append(
            "row 1 lies one pixel up and left of the given box: these results seem to count pixels "
            "from 0 where the ground truth counts from 1"
        )
    return notes


def _protocols(options: Options, benchmark: Benchmark) -> list[str]:
    known = list(VOT_PROTOCOLS if benchmark.kind == "vot" else PROTOCOLS)
    if benchmark.kind == "got10k":
        known = ["got10k"]
    return known if "all" in options.protocol else list(options.protocol) or [benchmark.protocol]


def _score_all(options: Options) -> None:
    if not options.results:
        raise cli.UsageError("give RESULTS to score, or --pack FOLDER; --help shows all options")
    if options.benchmark is None or options.ground_truth is None:
        raise cli.UsageError("--benchmark NAME and --ground-truth FOLDER_OR_FILE are needed")
    benchmark = get_benchmark(options.benchmark)
    truth = read_ground_truth(options.ground_truth, benchmark)
    trackers = [t for path in options.results for t in read_results(path)]
    scores = [
        score(t, truth, benchmark, p, options.allow_missing, options.intervals)
        for t in trackers
        for p in _protocols(options, benchmark)
    ]
    print(tables.text(scores, benchmark.name))
    if options.attributes:
        print(tables.group_text(scores, "per_attribute"))
    if options.sequences:
        print(tables.group_text(scores, "per_sequence"))
    for line in tables.notes(scores):
        print(f"note: {line}")
    for path, content in (
        (options.json, lambda: tables.json_text(scores, benchmark.name, sys.argv)),
        (options.csv, lambda: tables.csv_text(scores)),
        (options.latex, lambda: tables.latex_text(scores, benchmark.name)),
    ):
        if path is not None:
            write_whole(path, content().encode())
            print(f"wrote {path}")


def _check(folder: Path) -> None:
    checker = check_pack(folder)
    for note in checker.notes:
        print(f"NOTE  {note}")
    for line in checker.lines:
        print(line)
    failed = [x for x in checker.lines if not x.passed]
    values = sum(x.values for x in checker.lines)
    print(
        f"{len(checker.lines)} groups, {values} values: "
        f"{len(checker.lines) - len(failed)} passed, {len(failed)} failed"
    )
    if failed:
        raise JaxtrackError(f"{len(failed)} groups of {folder} differ; first: {failed[0].where}")


def _run(options: Options) -> None:
    if options.pack is not None:
        _check(options.pack)
    else:
        _score_all(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.score", arguments)


if __name__ == "__main__":
    sys.exit(main())
