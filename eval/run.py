"""Evaluate trackers on a benchmark: ``python -m eval.run --tracker siamfc-tiny --benchmark synthetic``.

Tracks every sequence (batched in slots), writes raw results in the published text format, prints the
scores, and writes one HTML report. An interrupted run goes on where it was: sequences whose result files
are there are not tracked again. On VOT2016 to VOT2019, and with ``--protocol vot2018`` on any benchmark,
trackers are restarted after failures (`eval.tracking.restart`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from pathlib import Path

import jax
import numpy as np

from eval.files import results
from eval.metrics.eao import VOT_PROTOCOLS, Run
from eval.metrics.ope import OPEReport, evaluate_ope
from eval.tracking import baselines as peers
from eval.tracking import restart
from eval.tracking import sequences as benchmarks
from eval.tracking import slots as runner
from eval.tracking.sequences import Sequence
from eval.tracking.slots import Track
from jaxtrack import cli, get_tracker, load_weights
from jaxtrack.base import Tracker, Variables
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.boxes import read_boxes, write_boxes


@dataclasses.dataclass(frozen=True)
class Options:
    """Evaluate trackers on a benchmark.

    Attributes:
        tracker: presets of jaxtrack with their shipped weights, or PRESET=WEIGHTS_FILE; several at once.
        peer: trackers to compare with: static (a box that never moves), mil, kcf, csrt.
        benchmark: synthetic, otb, lasot, uav123, nfs, tc128, got10k, trackingnet, vot2016 to vot2019.
        root: the benchmark's folder (not for synthetic).
        split: the benchmark's split; by default its own.
        sequence: only these sequences.
        output: folder of raw results and report.
        slots: videos tracked side by side, on all devices together.
        devices: devices that share the slots, such as all GPUs of a machine.
        chunk: frames per compiled call.
        protocol: scoring rules; by default the benchmark's own. vot2016 to vot2019: restart after failures.
        no_report: do not write the HTML report.
        again: track again what is there already.
        debug: show the traceback of errors.
    """

    tracker: tuple[str, ...] = ()
    peer: tuple[str, ...] = ()
    benchmark: str = "synthetic"
    root: Path | None = None
    split: str | None = None
    sequence: tuple[str, ...] = ()
    output: Path = Path("results")
    slots: int = 1
    devices: int = 1
    chunk: int = 8
    protocol: str | None = None
    no_report: bool = False
    again: bool = False
    debug: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """One tracker on one benchmark.

    Attributes:
        name: the tracker.
        tracks: its track of each sequence.
        report: its scores.
        frames_per_second: of this run, all sequences together, decoding included; NaN where every
            sequence was read from earlier results.
    """

    name: str
    tracks: dict[str, Track]
    report: OPEReport
    frames_per_second: float


def evaluate(options: Options) -> list[Outcome]:
    """Track and score; raw results go to ``output/benchmark/tracker/sequence.txt``.

    Args:
        options: what to run.

    Returns:
        One `Outcome` per tracker and peer, in the order asked.

    Raises:
        JaxtrackError: nothing to run, unknown names, unreadable data.
    """
    if not options.tracker and not options.peer:
        raise JaxtrackError("nothing to run: name a --tracker or a --peer")
    _check_names(options)
    sequences = benchmarks.load(options.benchmark, options.root, options.split, options.sequence)
    truth = {s.name: s.annotation for s in sequences}
    outcomes = []
    for name in (*options.tracker, *options.peer):
        started = time.perf_counter()
        label = label_of(name)
        tracks, fresh = _track(name, sequences, options)
        seconds = time.perf_counter() - started
        boxes = {s.name: runner.own_coordinates(tracks[s.name].boxes, s) for s in sequences}
        report = evaluate_ope(boxes, truth, options.protocol, options.benchmark, label)
        rate = fresh / seconds if fresh else float("nan")
        outcomes.append(Outcome(label, tracks, report, rate))
        print(_line(outcomes[-1]), flush=True)
    return outcomes


def supervise(options: Options, plan: restart.Plan) -> dict[str, dict[str, dict[str, float]]]:
    """Track with restarts after failure, write raw results in VOT's format, score and print.

    Args:
        options: what to run.
        plan: of `eval.tracking.restart.plan_of`.

    Returns:
        Tracker -> protocol -> "accuracy", "robustness", "lost", "eao".

    Raises:
        JaxtrackError: as `evaluate`; peers are refused, which cannot be restarted.
    """
    from tqdm import tqdm

    if options.peer:
        raise JaxtrackError(f"--peer {options.peer[0]}: peers cannot be restarted after a failure")
    if not options.tracker:
        raise JaxtrackError("nothing to run: name a --tracker")
    _check_names(options)
    sequences = benchmarks.load(options.benchmark, options.root, options.split, options.sequence)
    rule = VOT_PROTOCOLS[plan.protocols[0]].regions
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.tracker:
        label = label_of(name)
        folder = results_folder(options, plan) / label
        preset, _, weights = name.partition("=")
        tracker, variables = get_tracker(preset), load_weights(preset, weights or None)
        _check_mark(folder, f"{_fingerprint(tracker, variables)} {rule}", options.again)
        runs = {} if options.again else _stored_runs(folder, sequences)
        missing = [s for s in sequences if s.name not in runs]
        total = sum(s.length for s in missing)
        sizes = {"slots": options.slots, "chunk": options.chunk, "devices": options.devices}
        with tqdm(total=total, unit=" frames", desc=label, disable=not total) as bar:
            for finished, run in restart.run(
                tracker, variables, missing, rule=rule, progress=bar.update, **sizes
            ):
                results.write_run(folder, finished, run)
                # As the file has it: a run that goes on later gives the same scores.
                runs[finished] = results.read_run(_run_file(folder, finished))
        reports = restart.score(runs, sequences, plan, label)
        found[label] = {report.protocol.name: report.overall() for report in reports}
        for report in reports:
            print(restart.line(report), flush=True)
    return found


def results_folder(options: Options, plan: restart.Plan | None) -> Path:
    """Where a benchmark's results lie; supervised runs of other benchmarks than VOT's lie apart."""
    if plan is None or options.benchmark.startswith("vot"):
        return options.output / options.benchmark
    return options.output / f"{options.benchmark}-{plan.year.name}"


def _run_file(folder: Path, sequence: str) -> Path:
    return folder / "baseline" / sequence / f"{sequence}_001.txt"


def _stored_runs(folder: Path, sequences: list[Sequence]) -> dict[str, Run]:
    """Supervised runs of an earlier call, where they are whole."""
    found = {}
    for sequence in sequences:
        path = _run_file(folder, sequence.name)
        if path.is_file():
            run = results.read_run(path)
            if len(run) != sequence.length:
                raise JaxtrackError(
                    f"{path}: {len(run)} rows, but {sequence.name} has {sequence.length} frames; "
                    "remove the file or use --again"
                )
            found[sequence.name] = run
    return found


def _check_names(options: Options) -> None:
    """Unknown names are told before anything runs."""
    from jaxtrack import trackers

    for name in options.tracker:
        trackers.family_of(name.partition("=")[0])
    for name in options.peer:
        if name not in peers.names():
            raise JaxtrackError(f"no peer {name!r} here; known: {', '.join(peers.names())}")


def label_of(tracker: str) -> str:
    """How results of ``PRESET`` or ``PRESET=WEIGHTS_FILE`` are called: preset, and the run's folder."""
    preset, _, weights = tracker.partition("=")
    if not weights:
        return preset
    path = Path(weights)
    return f"{preset}-{path.parent.name if path.stem == 'weights' else path.stem}"


def _track(name: str, sequences: list[Sequence], options: Options) -> tuple[dict[str, Track], int]:
    """Tracks by sequence, and the number of frames that were tracked now."""
    from tqdm import tqdm

    label = label_of(name)
    folder = options.output / options.benchmark / label
    own = name not in peers.names()
    if own:
        preset, _, weights = name.partition("=")
        tracker, variables = get_tracker(preset), load_weights(preset, weights or None)
    _check_mark(folder, _fingerprint(tracker, variables) if own else name, options.again)
    stored = {s.name: None if options.again else _stored(folder, s) for s in sequences}
    tracks = {key: track for key, track in stored.items() if track is not None}
    missing = {s.name: s for s in sequences if s.name not in tracks}
    total = sum(s.length for s in missing.values())
    with tqdm(total=total, unit=" frames", desc=label, disable=not total) as bar:
        if own:
            run = runner.run(
                tracker,
                variables,
                list(missing.values()),
                slots=options.slots,
                chunk=options.chunk,
                devices=options.devices,
                progress=bar.update,
            )
        else:
            run = _run_peer(name, missing, bar.update)
        for finished, track in run:
            tracks[finished] = track
            _store(folder, missing[finished], track)
    return tracks, total


def _run_peer(
    name: str, sequences: dict[str, Sequence], progress: Callable[[int], object]
) -> Iterator[tuple[str, Track]]:
    for sequence in sequences.values():
        yield sequence.name, peers.run(name, sequence)
        progress(sequence.length)


def _fingerprint(tracker: Tracker, variables: Variables) -> str:
    """What results depend on: settings and learned values."""
    digest = hashlib.sha256(repr(tracker.config).encode())
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _check_mark(folder: Path, mark: str, again: bool) -> None:
    """Results of other weights are not mixed with these."""
    path = folder / "tracker.sha256"
    if path.is_file() and path.read_text() != mark and not again:
        raise JaxtrackError(
            f"{folder} holds results of other weights or settings; use --again or another --output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(mark)


def _store(folder: Path, sequence: Sequence, track: Track) -> None:
    """Raw results in the published format, boxes last: a box file means that all is there."""
    seconds = track.seconds / max(len(track.boxes) - 1, 1)
    lines = "".join(f"{seconds:.6f}\n" for _ in track.boxes)
    (folder / f"{sequence.name}_time.txt").write_text(lines)
    scores = "".join(f"{score:.6f}\n" for score in track.scores)
    (folder / f"{sequence.name}_score.txt").write_text(scores)
    write_boxes(folder / f"{sequence.name}.txt", runner.own_coordinates(track.boxes, sequence))


def _stored(folder: Path, sequence: Sequence) -> Track | None:
    """Results of an earlier run, where they are whole."""
    path = folder / f"{sequence.name}.txt"
    if not path.is_file():
        return None
    boxes = read_boxes(path)
    if len(boxes) != sequence.length:
        raise JaxtrackError(
            f"{path}: {len(boxes)} rows, but {sequence.name} has {sequence.length} frames; "
            "remove the file or use --again"
        )
    boxes[:, :2] -= sequence.origin
    scores = np.loadtxt(folder / f"{sequence.name}_score.txt", ndmin=1)
    seconds = float(np.loadtxt(folder / f"{sequence.name}_time.txt", ndmin=1).sum())
    return Track(boxes.astype(np.float32), scores.astype(np.float32), seconds)


def _line(outcome: Outcome) -> str:
    numbers, intervals = outcome.report.overall(), outcome.report.intervals()
    low, high = intervals["auc"]
    rate = outcome.frames_per_second
    speed = f"{rate:8.1f} frames/s" if np.isfinite(rate) else "  from earlier results"
    norm = numbers.get("norm_precision_0_20")
    middle = f"  norm. precision {norm:.3f}" if norm is not None else ""
    return (
        f"{outcome.name:20s} AUC {numbers['auc']:.3f} [{low:.3f}, {high:.3f}]  precision "
        f"{numbers['precision_20px']:.3f}{middle}  AO {numbers['average_overlap']:.3f} {speed}"
    )


def summary(outcomes: list[Outcome]) -> dict[str, dict[str, float]]:
    """Headline numbers by tracker, for json."""
    return {
        o.name: {**o.report.overall(), "frames_per_second": o.frames_per_second} for o in outcomes
    }


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _main, "python -m eval.run", arguments)


def _main(options: Options) -> None:
    cli.use_compilation_cache()
    plan = restart.plan_of(options.benchmark, options.protocol)
    folder = results_folder(options, plan)
    if plan is not None:
        scores = supervise(options, plan)
        write_whole(folder / "scores.json", json.dumps(scores, indent=1).encode())
        print(f"wrote {folder / 'scores.json'} and runs in VOT's format beside it")
        return
    outcomes = evaluate(options)
    (folder / "scores.json").write_text(json.dumps(summary(outcomes), indent=1))
    if not options.no_report:
        from eval.report.page import write_report

        sequences = benchmarks.load(
            options.benchmark, options.root, options.split, options.sequence
        )
        print(f"report: {write_report(folder / 'report.html', outcomes, sequences)}")


if __name__ == "__main__":
    sys.exit(main())
