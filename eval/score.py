"""Score raw results of any tracker, or check a pack of expected values.

python -m eval.score RESULTS... --benchmark otb --ground-truth FOLDER_OR_FILE
python -m eval.score --pack FOLDER
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from jaxtrack import cli
from jaxtrack.errors import JaxtrackError, UsageError, unknown
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.paths import output_file
from jaxtrack.io.records import json_text

from .conformance.pack import check_pack
from .files import datasets
from .files.datasets import Dataset
from .files.records import late
from .files.results import TrackerResults, read_named
from .files.truth import Truth, read_truth
from .metrics.names import listing
from .metrics.protocols import Benchmark, get_benchmark
from .report import tables
from .report.scores import Outcome, measure, outcome_of, protocols_of, score_of


@dataclasses.dataclass(frozen=True)
class Options:
    """Score raw results of any tracker, or check a pack of expected values.

    Attributes:
        results: folders of one tracker each, folders of such folders, or npz files; NAME=FOLDER names a row.
        benchmark: otb, lasot, uav123, nfs, tc128, trackingnet, got10k, vot2016 to vot2019, vot2018lt, custom,
            synthetic, synthetic-hard.
        ground_truth: npz or json file, or a folder of annotations.
        split: the split of a ground-truth folder; by default the one that is scored, or else the one there.
        protocol: scoring rules; by default the benchmark's own. "all" shows every one of them.
        base: coordinate of the first pixel in the results, where it is not the one in the ground truth: 0
            moves results that count from 0 of benchmarks that count from 1.
        allow_missing: score what is there when sequences, rows or values are missing.
        intervals: print bootstrap intervals over sequences beside the headline numbers.
        attributes: print a table per attribute.
        sequences: print a table per sequence.
        json: write everything, curves included, to this file.
        csv: write the headline numbers to this file, with --sequences those of each sequence as well.
        latex: write a table for a paper to this file.
        report: write a page with tables and curves to this file, and the curves as SVG and PDF beside it.
        pack: check every expected value of this folder instead.
        debug: show the traceback of errors.
    """

    results: Annotated[tuple[str, ...], cli.Positional] = ()
    benchmark: str | None = None
    ground_truth: Path | None = None
    split: str | None = None
    protocol: tuple[str, ...] = ()
    base: Literal[0, 1] | None = None
    allow_missing: bool = False
    intervals: bool = True
    attributes: bool = False
    sequences: bool = False
    json: Path | None = None
    csv: Path | None = None
    latex: Path | None = None
    report: Path | None = None
    pack: Path | None = None
    debug: bool = False


def _protocols(options: Options, benchmark: Benchmark) -> list[str]:
    known = protocols_of(benchmark)
    for name in options.protocol:
        if name not in (*known, "all"):
            kind = f"protocol of {benchmark.name}"
            raise UsageError(str(unknown(kind, name, (*known, "all"))))
    if "all" in options.protocol:
        return list(known)
    return list(dict.fromkeys(options.protocol)) or [benchmark.protocol]


def _score_all(options: Options) -> None:
    if not options.results:
        raise UsageError("give RESULTS to score, or --pack FOLDER; --help shows all options")
    if options.benchmark is None or options.ground_truth is None:
        raise UsageError("--benchmark NAME and --ground-truth FOLDER_OR_FILE are needed")
    benchmark = get_benchmark(options.benchmark)
    protocols = _protocols(options, benchmark)
    if options.report is not None and len(protocols) > 1:
        raise UsageError("--report shows one protocol: name one with --protocol")
    if options.split is not None:
        datasets.find(options.benchmark, options.split)
    inputs: list[str | Path] = [options.ground_truth]
    inputs += [text.rpartition("=")[2] for text in options.results]
    given = (options.json, options.csv, options.latex, options.report)
    outputs = [output_file(path, inputs) for path in given if path is not None]
    if len(set(outputs)) < len(outputs):
        raise UsageError("two outputs have one name: give each its own file")
    truth = read_truth(options.ground_truth, benchmark, options.benchmark, options.split)
    dataset = _dataset(options, benchmark, truth.split)
    datasets.check_size(dataset, len(truth.annotations), options.ground_truth)
    notes = (
        *late(truth.annotations),
        *datasets.incomplete(dataset, len(truth.annotations)),
    )
    problems: list[JaxtrackError] = []
    trackers = [t for text in options.results for t in read_named(text, problems.append)]
    rows = [t.name for t in trackers]
    twice = [name for name in dict.fromkeys(rows) if rows.count(name) > 1]
    if twice:
        raise UsageError(f"several trackers are called {listing(twice)}: name them, NAME=FOLDER")
    outcomes = []
    for tracker in trackers:
        try:
            outcomes += _scored(tracker, protocols, truth, benchmark, options, notes)
        except JaxtrackError as error:
            # One tracker's fault does not hide the scores of the others.
            named = JaxtrackError(f"{tracker.name}: {error}") if len(trackers) > 1 else error
            problems.append(named)
    if outcomes:
        _show(options, dataset, outcomes, notes)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise JaxtrackError(f"{problems[0]}{more}") if more else problems[0]


def _scored(
    tracker: TrackerResults,
    protocols: list[str],
    truth: Truth,
    benchmark: Benchmark,
    options: Options,
    about: Sequence[str],
) -> list[Outcome]:
    """Score one tracker under each protocol; ``about`` are notes on the truth."""
    outcomes = []
    for protocol in protocols:
        report, notes = measure(
            tracker, truth.annotations, benchmark, protocol, options.allow_missing, options.base
        )
        score = score_of(report, protocol, [*about, *notes], options.intervals)
        outcomes.append(outcome_of(report, score))
    return outcomes


def _show(
    options: Options, dataset: Dataset, outcomes: list[Outcome], about: Sequence[str]
) -> None:
    """Print the tables and write the files; ``about`` are notes that hold for all rows."""
    name = dataset.label
    scores = [o.score for o in outcomes]
    print(tables.text(scores, name))
    if options.attributes:
        print(tables.group_text(scores, "per_attribute"))
    if options.sequences:
        print(tables.group_text(scores, "per_sequence"))
    for line in (*about, *tables.notes(scores, about)):
        print(f"note: {line}")
    for path, content in (
        (options.json, lambda: json_text(tables.record(scores, name, sys.argv))),
        (options.csv, lambda: tables.csv_text(scores, options.sequences)),
        (options.latex, lambda: tables.latex_text(scores, name)),
    ):
        if path is not None:
            write_whole(path, content().encode(errors="replace"))
            print(f"wrote {path}")
    if options.report is not None:
        from .report.page import write_report

        command = ["python", "-m", cli.beside(__package__, "eval.score"), *sys.argv[1:]]
        write_report(options.report, outcomes, dataset, command=command)
        print(f"report: {options.report}")


def _dataset(options: Options, benchmark: Benchmark, split: str | None) -> Dataset:
    """Return the data set of the benchmark's name; one without a layout stands for itself.

    Args:
        options: the call.
        benchmark: the rules.
        split: the one that was read; None: the one that is asked for, or scored by default.
    """
    try:
        return datasets.find(options.benchmark or benchmark.name, split or options.split)
    except JaxtrackError:
        return Dataset(benchmark, benchmark.name, split or "test", benchmark.name)


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


def run(options: Options) -> None:
    """Run the command.

    Args:
        options: the call.

    Raises:
        JaxtrackError: results or ground truth that cannot be read or scored; a pack that differs.
    """
    if options.pack is not None:
        _check(options.pack)
    else:
        _score_all(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's own.

    Returns:
        Exit status: 0, 1 for a failure, 2 for a mistake in the call.
    """
    return cli.command(Options, run, "python -m eval.score", arguments)


if __name__ == "__main__":
    sys.exit(main())
