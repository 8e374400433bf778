"""Evaluate trackers on a benchmark: ``python -m eval.run --tracker siamfc-tiny --benchmark synthetic``.

Tracks every sequence (batched in slots), writes raw results in the published text format, prints the
scores, and writes one HTML report. An interrupted run goes on where it was: sequences whose results are
there, made from the same inputs, are not tracked again. On VOT2016 to VOT2019, and with
``--protocol vot2018`` on any benchmark, trackers are restarted after failures (`eval.tracking.restart`).
Where the truth of a test set is withheld, boxes are written for `eval.submit` and no score is printed.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from jaxtrack import cli
from jaxtrack.data.readers.entries import MissingError
from jaxtrack.errors import JaxtrackError, UsageError, brief, unknown
from jaxtrack.io.atomic import read_whole, write_whole
from jaxtrack.io.paths import output_folder
from jaxtrack.io.records import write_json
from jaxtrack.ops import precision

from .files import datasets
from .files.datasets import Dataset
from .files.kept import Kept
from .files.records import doubtful, late
from .files.results import (
    Tracked,
    TrackerResults,
    common_names,
    read_named,
    read_run,
    read_tracked,
    run_file,
    tracked_files,
    write_run,
    write_tracked,
)
from .metrics.annotation import Annotation
from .metrics.eao import VOT_PROTOCOLS, Run
from .metrics.names import IncompleteError, all_withheld, check_scorable, listing
from .report import scores as scoring
from .report.published import comparison
from .report.scores import Outcome
from .tracking import baselines, restart, slots
from .tracking.entry import Entry, parse_entries
from .tracking.sequences import Sequence, load
from .tracking.slots import BrokenSequencesError, Track

# What JAX calls the two long parts of a compilation.
_COMPILATION = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Evaluate trackers on a benchmark.

    Attributes:
        tracker: presets of jaxtrack with their shipped weights, PRESET=WEIGHTS_FILE, NAME:PRESET=WEIGHTS_FILE
            for a row of its own name, or package.module:TRACKER; several at once.
        set: settings of the trackers, PATH=VALUE, or ROW:PATH=VALUE for one of them.
        interpolate: resize position embeddings of weights that were trained for another size of crop.
        peer: trackers to compare with: static (a box that never moves), and OpenCV's that are there: mil,
            kcf, csrt, nano=BACKBONE,HEAD, vit=NET, dasiamrpn=MODEL,KERNEL_CLS1,KERNEL_R1.
        results: raw results of others, NAME=FOLDER, scored and drawn beside these.
        benchmark: synthetic, synthetic-hard, or a data set in its own layout: otb100, lasot, got10k, vot2018,
            custom, ...
        root: the benchmark's folder (not for the synthetic ones).
        split: the benchmark's split; by default the one that is scored: its test split.
        sequence: only these sequences; their scores and report are called scores-part.json and
            report-part.html and replace none of the whole benchmark.
        shard: I/N tracks every N-th sequence from the I-th on (1/4 to 4/4) and scores nothing; the command
            without it, with --merge or one --output for all, scores them together.
        merge: outputs of the same command on other hosts, from which results are taken over.
        output: folder of raw results and report.
        slots: videos tracked side by side, on all devices together.
        devices: devices that share the slots, such as all GPUs of a machine.
        chunk: frames per compiled call.
        precision: digits of the networks' products: highest (float32), high (TF32 on GPUs) or bfloat16;
            auto: highest on a CPU, high on accelerators.
        protocol: scoring rules; by default the benchmark's own. vot2016 to vot2019: restart after failures.
        no_report: do not write the HTML report.
        again: track again what is there already.
        debug: show the traceback of errors.
    """

    tracker: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    interpolate: bool = False
    peer: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    benchmark: str = "synthetic"
    root: Path | None = None
    split: str | None = None
    sequence: tuple[str, ...] = ()
    shard: str | None = None
    merge: tuple[Path, ...] = ()
    output: Path = Path("results")
    slots: Annotated[int, cli.Range(low=1, high=4096)] = 1
    devices: Annotated[int, cli.Range(low=1, high=4096)] = 1
    chunk: Annotated[int, cli.Range(low=1, high=4096)] = 8
    precision: precision.Choice = "auto"
    protocol: str | None = None
    no_report: bool = False
    again: bool = False
    debug: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What a call asks for, checked before anything is tracked.

    Attributes:
        options: the call.
        dataset: what is evaluated.
        supervision: how trackers are restarted; None for one pass.
        entries: our trackers.
        peers: OpenCV's trackers, and a box that never moves.
        rivals: raw results of others.
        folder: where results and report go.
        notes: what the data lack, one line each, which every score of them says.
        count: how many sequences the data should have: those that were opened, and those that are broken or
            missing.
        missing: how many are missing.
    """

    options: Options
    dataset: Dataset
    supervision: restart.Plan | None
    entries: tuple[Entry, ...]
    peers: tuple[baselines.Peer, ...]
    rivals: tuple[TrackerResults, ...]
    folder: Path
    notes: tuple[str, ...] = ()
    count: int = 0
    missing: int = 0

    def file(self, name: str) -> Path:
        """Return where a file of scores lies: that of some sequences replaces none of all."""
        path = self.folder / name
        return path.with_stem(f"{path.stem}-part") if self.options.sequence else path


def plan_of(options: Options) -> Plan:
    """Check a call: names, files and folders.

    Args:
        options: the call.

    Returns:
        The plan.

    Raises:
        JaxtrackError: something in the call is not there, unknown, or asked for twice.
    """
    if not options.tracker and not options.peer and not options.results:
        raise UsageError("nothing to run: name a --tracker or a --peer")
    if options.set and not options.tracker:
        raise UsageError("--set changes trackers: name a --tracker")
    dataset = datasets.find(options.benchmark, options.split)
    supervision = restart.plan_of(dataset.benchmark.name, options.protocol)
    datasets.check_root(dataset, options.root)
    if supervision is None and options.protocol is not None:
        known = scoring.protocols_of(datasets.find(datasets.SYNTHETIC[0]).benchmark)
        if options.protocol not in known:
            raise UsageError(str(unknown("protocol", options.protocol, (*known, "vot2018"))))
    if supervision is not None and (options.peer or options.results):
        raise UsageError("--peer and --results: only trackers can be restarted after a failure")
    parsed = parse_entries(options.tracker, options.set)
    entries = tuple(dataclasses.replace(e, interpolate=options.interpolate) for e in parsed)
    peers = tuple(baselines.parse(text) for text in options.peer)
    rivals = tuple(r for text in options.results for r in read_named(text))
    rows = [*(e.label for e in entries), *(p.name for p in peers), *(r.name for r in rivals)]
    twice = [name for name in dict.fromkeys(rows) if rows.count(name) > 1]
    if twice:
        raise UsageError(f"two rows are called {brief(twice[0])!r}: give one another name")
    for folder in options.merge:
        if not folder.is_dir():
            raise JaxtrackError(f"--merge {folder}: no such folder")
    given = [options.root, *options.merge, *(r.source for r in rivals)]
    given += [file for p in peers for file in p.files]
    given += [e.weights.partition("::")[0] for e in entries if e.weights]
    output = output_folder(options.output, [p for p in given if p is not None])
    label = dataset.label
    if supervision is not None and dataset.benchmark.kind != "vot":
        label = f"{label}-{supervision.year.name}"
    for folder in options.merge:
        if not (folder / label).is_dir():
            raise JaxtrackError(
                f"--merge {folder}: no results of {label} there, no folder {folder / label}: give the "
                "--output of the same command on another host"
            )
    return Plan(options, dataset, supervision, entries, peers, rivals, output / label)


def evaluate(options: Options) -> list[Outcome]:
    """Track and score; raw results go to ``output/benchmark/tracker/sequence.txt``.

    Args:
        options: what to run.

    Returns:
        One `Outcome` per tracker, peer and rival, in the order asked; none where the truth is withheld or a
        shard alone was tracked.

    Raises:
        JaxtrackError: nothing to run, unknown names, unreadable data.
    """
    return _one_pass(*_opened(plan_of(options)))


def _opened(plan: Plan) -> tuple[Plan, list[Sequence], list[str]]:
    """Open the sequences of a plan and say what they are.

    Returns:
        The plan, with notes on its data; the sequences; what is wrong with those that are left out.
    """
    options, dataset = plan.options, plan.dataset
    errors: list[JaxtrackError] = []
    sequences = load(dataset, options.root, names=options.sequence, on_problem=errors.append)
    problems = [str(error) for error in errors]
    if not sequences:
        raise JaxtrackError(problems[0] if problems else f"{dataset.label}: no sequence")
    missing = [error.count for error in errors if isinstance(error, MissingError)]
    count = len(sequences) + len(errors) - len(missing) + sum(missing)
    plan = dataclasses.replace(plan, count=count, missing=sum(missing))
    part = ""
    truth = {s.name: s.annotation for s in sequences}
    if not (problems or options.shard or all_withheld(truth.values())):
        check_scorable(truth)
    notes = late(truth) + doubtful(
        dataset.layout, [(s.boxes, s.size) for s in sequences if not s.fault]
    )
    if not options.sequence:
        notes += datasets.incomplete(dataset, len(sequences), len(problems))
    if options.shard is not None:
        number, count = _shard(options.shard)
        sequences = sequences[number - 1 :: count]
        part = f", shard {number} of {count}"
    frames = sum(s.length for s in sequences)
    print(
        f"{dataset.layout}, split {dataset.split}{part}: {len(sequences)} sequences, {frames} frames",
        flush=True,
    )
    for note in notes:
        print(f"note: {note}", flush=True)
    return dataclasses.replace(plan, notes=notes), sequences, problems


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    try:
        found = int(number), int(count)
    except ValueError:
        found = 0, 0
    if not slash or not 1 <= found[0] <= found[1]:
        raise UsageError(f"--shard {brief(text)}: give I/N, such as 1/4 to 4/4")
    return found


def _one_pass(plan: Plan, sequences: list[Sequence], problems: list[str]) -> list[Outcome]:
    options = plan.options
    makers: list[tuple[str, Entry | baselines.Peer]] = [(e.label, e) for e in plan.entries]
    makers += [(peer.name, peer) for peer in plan.peers]
    withheld = all_withheld(s.annotation for s in sequences)
    outcomes = []
    rivals: list[Outcome] = []
    if not (problems or withheld or options.shard):
        # Before anything is tracked: what is wrong with them does not cost our rows their report.
        rivals = [_rival(plan, rival, sequences) for rival in plan.rivals]
    broken: dict[str, str] = {}
    for label, maker in makers:
        try:
            tracks, rate = _track(label, maker, sequences, plan)
        except BrokenSequencesError as error:
            print(f"{label:20s} no score: {error}", flush=True)
            broken |= error.faults
            sound = [s for s in sequences if s.name not in error.faults]
            if options.shard is None:
                _score_sound(plan, label, sound)
            continue
        if problems:
            print(f"{label:20s} no score: {_left_out(problems)}")
            if options.shard is None:
                _score_sound(plan, label, sequences)
        elif options.shard is not None:
            print(f"{label:20s} {len(tracks)} sequences of shard {options.shard} are there")
        elif withheld:
            print(f"{label:20s} boxes of {len(tracks)} sequences in {plan.folder / label}")
        else:
            made = _results(plan, label, tracks, sequences)
            drawn = {n: t.boxes for n, t in tracks.items()}
            preset = maker.preset if isinstance(maker, Entry) else None
            more = {"boxes": drawn, "frames_per_second": rate, "preset": preset}
            outcomes.append(_measured(plan, made, sequences, **more))
            _tell(plan, outcomes[-1])
    # All others were tracked and are kept: the next call tracks only what was mended.
    if problems:
        raise JaxtrackError(_left_out([*problems, *broken.values()]))
    if broken:
        raise BrokenSequencesError(broken)
    if options.shard is not None:
        return []
    if withheld:
        print(
            f"no score: {plan.dataset.layout} publishes only the first boxes of this split; "
            f"python -m eval.submit {plan.folder}/TRACKER --benchmark {plan.dataset.layout} "
            "--output FILE.zip writes the file for its server"
        )
        return []
    for rival in rivals:
        _tell(plan, rival)
    return [*outcomes, *rivals]


def _results(
    plan: Plan, label: str, tracks: Mapping[str, Track], sequences: list[Sequence]
) -> TrackerResults:
    """Return a tracker's boxes in the benchmark's own coordinates."""
    own = {s.name: slots.own_coordinates(tracks[s.name].boxes, s) for s in sequences}
    return TrackerResults(label, str(plan.folder / label), boxes=own)


def _score_sound(plan: Plan, label: str, sound: list[Sequence]) -> None:
    """Print the score of the sequences that could be tracked, where others are broken."""
    sound = [s for s in sound if s.annotation.scorable]
    if not sound:
        return
    tracks = {s.name: _stored(plan.folder / label, s) for s in sound}
    outcome = _measured(plan, _results(plan, label, tracks, sound), sound)
    print(f"{'':20s} {_share(len(sound), plan)}: {_numbers(outcome)}", flush=True)


def _share(sound: int, plan: Plan) -> str:
    """Say of how many sequences a score is, where it is not that of the benchmark."""
    others = {"broken": plan.count - plan.missing - sound, "missing": plan.missing}
    said = ", ".join(f"{number} {kind}" for kind, number in others.items() if number)
    return f"{sound} of {plan.count} sequences, {said}"


def _part_of(results: TrackerResults, truth: Mapping[str, Annotation]) -> TrackerResults:
    """Return of a rival's results those that are asked for: --sequence takes a part of both sides."""
    kept = results.boxes or results.repetitions
    wanted = set(common_names(kept, truth)) or set(kept)
    boxes = {n: b for n, b in results.boxes.items() if n in wanted}
    repetitions = {n: r for n, r in results.repetitions.items() if n in wanted}
    return dataclasses.replace(results, boxes=boxes, repetitions=repetitions)


def _left_out(problems: list[str]) -> str:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"


def _rival(plan: Plan, results: TrackerResults, sequences: list[Sequence]) -> Outcome:
    """Score raw results of somebody else.

    Raises:
        JaxtrackError: they are not of the sequences that are evaluated, all of them and no others.
    """
    truth = {s.name: s.annotation for s in sequences}
    if plan.options.sequence:
        results = _part_of(results, truth)
    given = results.boxes or {n: runs[0] for n, runs in results.repetitions.items()}
    origin = {s.name: s.origin for s in sequences}
    names = common_names(given, truth)
    own = {w: truth[w].rows_of(given[g]) for g, w in names.items()}
    drawn = {name: boxes - [origin[name], origin[name], 0, 0] for name, boxes in own.items()}
    try:
        return _measured(plan, results, sequences, boxes=drawn)
    except JaxtrackError as error:
        # The choice to score a part of them is that of eval.score.
        text = error.plain if isinstance(error, IncompleteError) else str(error)
        raise JaxtrackError(f"--results {brief(results.name, 60)}: {text}") from error


def _tell(plan: Plan, outcome: Outcome) -> None:
    """Print the line of one row, what is published for it, and what is odd about it."""
    print(f"{brief(outcome.name, 60):20s} {_numbers(outcome)}", flush=True)
    for line in comparison(outcome, plan.dataset):
        print(f"{'':20s} {line}")
    for note in outcome.score.notes:
        if note not in plan.notes:  # told once, of all rows
            print(f"note: {brief(outcome.name, 60)}: {note}")


def _measured(
    plan: Plan, results: TrackerResults, sequences: list[Sequence], **more: Any
) -> Outcome:
    """Return the score of one row by the rules of the plan; ``more`` are further fields of `Outcome`."""
    truth = {s.name: s.annotation for s in sequences}
    rules = plan.dataset.benchmark
    if rules.kind != "got10k" or plan.options.protocol not in (None, rules.protocol):
        rules = dataclasses.replace(rules, kind="ope")
    report, notes = scoring.measure(results, truth, rules, plan.options.protocol)
    protocol = plan.options.protocol or rules.protocol
    score = scoring.score_of(report, protocol, [*plan.notes, *notes])
    return scoring.outcome_of(report, score, **more)


def supervise(
    plan: Plan, sequences: list[Sequence], problems: Items[str] = ()
) -> dict[str, list[Outcome]]:
    """Track with restarts after failure, write raw results in VOT's format, score and print.

    Args:
        plan: of `plan_of`, with a supervision.
        sequences: what is tracked.
        problems: what is wrong with sequences that were left out; nothing is scored then.

    Returns:
        Protocol -> one `Outcome` per tracker; nothing for a shard.

    Raises:
        JaxtrackError: as `evaluate`.
    """
    assert plan.supervision is not None
    withheld = [s.name for s in sequences if s.annotation.withheld]
    if withheld:
        raise JaxtrackError(
            f"no restarts without ground truth: only the first box is known of {listing(withheld)}"
        )
    found: dict[str, list[Outcome]] = {}
    broken: dict[str, str] = {}
    for entry in plan.entries:
        sound = sequences
        try:
            runs = _supervised(entry, sequences, plan)
        except BrokenSequencesError as error:
            print(f"{entry.label:20s} no score: {error}", flush=True)
            broken |= error.faults
            sound = [s for s in sequences if s.name not in error.faults]
            runs = {s.name: read_run(run_file(plan.folder / entry.label, s.name)) for s in sound}
        count = plan.count
        if plan.options.shard is not None:
            print(
                f"{entry.label:20s} {len(runs)} sequences of shard {plan.options.shard} are there"
            )
            continue
        reports = restart.score(runs, sound, plan.supervision, entry.label) if sound else []
        for report in reports:
            if len(sound) < count:
                print(f"{entry.label:20s} no score: {_share(len(sound), plan)}; of those tracked:")
            print(restart.line(report), flush=True)
            score = scoring.score_of(report, report.protocol.name, plan.notes)
            drawn = {s.name: restart.boxes_of(runs[s.name], s) for s in sound}
            outcome = scoring.outcome_of(report, score, boxes=drawn, preset=entry.preset)
            found.setdefault(score.protocol, []).append(outcome)
            for line in comparison(outcome, plan.dataset) if len(sound) == count else ():
                print(f"{'':20s} {line}")
    if problems:
        raise JaxtrackError(_left_out([*problems, *broken.values()]))
    if broken:
        raise BrokenSequencesError(broken)
    return found


def _supervised(entry: Entry, sequences: list[Sequence], plan: Plan) -> dict[str, Run]:
    """Return the runs by sequence, those that were kept and those made now."""
    from tqdm import tqdm

    assert plan.supervision is not None
    options, folder = plan.options, plan.folder / entry.label
    rule = VOT_PROTOCOLS[plan.supervision.protocols[0]].regions
    variables = entry.load()
    made = {"tracker": entry.fingerprint(variables), "rule of overlap": rule}
    inputs = {s.name: {**made, **s.inputs(), "annotation": s.truth()} for s in sequences}
    kept = Kept(folder)
    missing = _to_track(plan, entry.label, sequences, inputs, _run_files)
    waiting = {s.name for s in missing}
    runs = {s.name: read_run(run_file(folder, s.name)) for s in sequences if s.name not in waiting}
    total = sum(s.length for s in missing)
    sizes = {"slots": options.slots, "chunk": options.chunk, "devices": options.devices}
    with tqdm(total=total, unit=" frames", desc=entry.label, disable=not total) as bar:
        tracking = restart.run(
            entry.tracker, variables, missing, rule=rule, progress=bar.update, **sizes
        )
        for name, run in tracking:
            write_run(folder, name, run)
            kept.remember(name, inputs[name], _run_files(folder, name))
            # As the file has it: a run that goes on later gives the same scores.
            runs[name] = read_run(run_file(folder, name))
    return runs


def _run_files(folder: Path, name: str) -> dict[str, Path]:
    return {"boxes": run_file(folder, name)}


def _to_track(
    plan: Plan,
    label: str,
    sequences: list[Sequence],
    inputs: Mapping[str, Mapping[str, str]],
    files_of: Callable[[Path, str], Mapping[str, Path]],
) -> list[Sequence]:
    """Return the sequences without results that can be kept; say what is kept, what is not, and why."""
    kept = Kept(plan.folder / label)
    missing: list[Sequence] = []
    reasons: dict[str, list[str]] = {}
    taken = 0
    for s in sequences:
        files = files_of(kept.folder, s.name)
        problem = "" if plan.options.again else kept.problem(s.name, inputs[s.name], files)
        if problem is None:
            continue
        if not plan.options.again:
            refused = _take_over(plan, kept, s.name, inputs[s.name], files_of)
            if refused is None:
                taken += 1
                continue
            if refused:
                reasons.setdefault(f"not taken over, {refused}", []).append(s.name)
        missing.append(s)
        if problem:
            reasons.setdefault(f"tracked again, {problem}", []).append(s.name)
    for reason, names in reasons.items():
        print(f"note: {label}: {reason}: {listing(names)}", flush=True)
    if taken:
        print(f"note: {label}: {taken} sequences taken over", flush=True)
    there = len(sequences) - len(missing) - taken
    if there:
        print(f"note: {label}: {there} sequences kept", flush=True)
    return missing


def _take_over(
    plan: Plan,
    kept: Kept,
    name: str,
    inputs: Mapping[str, str],
    files_of: Callable[[Path, str], Mapping[str, Path]],
) -> str | None:
    """Copy a sequence's results from another host's output, if it has them from the same inputs.

    Returns:
        None: done. Else why the first results of the sequence there could not be taken; "": there are none.
    """
    refused = ""
    for output in plan.options.merge:
        other = Kept(output / plan.folder.name / kept.folder.name)
        theirs, ours = files_of(other.folder, name), files_of(kept.folder, name)
        problem = other.problem(name, inputs, theirs, elsewhere=True)
        if problem is None:
            for role, path in theirs.items():
                write_whole(ours[role], read_whole(path))
            kept.remember(name, inputs, ours)
            return None
        if problem and not refused:
            refused = f"{problem} ({output})"
    return refused


def _track(
    label: str, maker: Entry | baselines.Peer, sequences: list[Sequence], plan: Plan
) -> tuple[dict[str, Track], float]:
    """Return tracks by sequence, and frames a second of what was tracked now, compilation left out."""
    from tqdm import tqdm

    options, folder = plan.options, plan.folder / label
    if isinstance(maker, Entry):
        variables = maker.load()
        tracker = maker.fingerprint(variables)
    else:
        tracker = maker.fingerprint()
    inputs = {s.name: {"tracker": tracker, **s.inputs()} for s in sequences}
    kept = Kept(folder)
    missing = _to_track(plan, label, sequences, inputs, tracked_files)
    by_name = {s.name: s for s in missing}
    total = sum(s.length for s in missing)
    with (
        _Clock() as clock,
        tqdm(total=total, unit=" frames", desc=label, disable=not total) as bar,
    ):

        def progress(count: int) -> None:
            clock.count(count)
            bar.update(count)

        if isinstance(maker, Entry):
            tracking: Iterator[tuple[str, Track]] = slots.run(
                maker.tracker,
                variables,
                missing,
                slots=options.slots,
                chunk=options.chunk,
                devices=options.devices,
                progress=progress,
            )
        else:
            tracking = baselines.track(maker, missing, progress)
        for name, track in tracking:
            sequence = by_name[name]
            seconds = np.full(len(track.boxes), track.seconds / len(track.boxes))
            own = slots.own_coordinates(track.boxes, sequence)
            write_tracked(folder, name, Tracked(own, track.scores, seconds))
            kept.remember(name, inputs[name], tracked_files(folder, name))
    # All are read back, those made now as well: a run that goes on later gives the same scores.
    found = {s.name: _stored(folder, s) for s in sequences}
    for s in sequences:
        problem = kept.problem(s.name, inputs[s.name], tracked_files(folder, s.name))
        if problem is not None:
            raise JaxtrackError(
                f"{folder}: the results of {s.name} were changed while this ran ({problem or 'removed'}): no "
                "other run may write there; give it another --output, or its tracker another NAME:"
            )
    return found, clock.rate


class _Clock:
    """Frames a second from the end of the first call on, without the compilations that come later."""

    def __init__(self) -> None:
        self.started = self.now = time.perf_counter()
        self.first = self.frames = 0
        self.compiling = 0.0

    def __enter__(self) -> _Clock:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *error: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **more: str | int) -> None:
        if event in _COMPILATION:
            self.compiling += duration_secs

    def count(self, frames: int) -> None:
        """Count frames that are done."""
        self.now = time.perf_counter()
        if not self.frames:
            self.started, self.first, self.compiling = self.now, frames, 0.0
        self.frames += frames

    @property
    def rate(self) -> float:
        """Frames a second; NaN where there was one call or none."""
        later = self.frames - self.first
        elapsed = self.now - self.started - self.compiling
        return later / elapsed if later and elapsed > 0 else float("nan")


def _stored(folder: Path, sequence: Sequence) -> Track:
    """Return a track as its files have it."""
    boxes, scores, times = read_tracked(folder, sequence.name)
    if len(boxes) != sequence.length:
        raise JaxtrackError(
            f"{folder / sequence.name}.txt: {len(boxes)} rows, but {sequence.name} has "
            f"{sequence.length} frames; remove the file or use --again"
        )
    boxes[:, :2] -= sequence.origin
    return Track(boxes.astype(np.float32), scores.astype(np.float32), float(times.sum()))


def _numbers(outcome: Outcome) -> str:
    """Return the headline numbers of an outcome on one line."""
    numbers, ends = outcome.score.metrics, outcome.score.intervals
    rate = outcome.frames_per_second
    speed = f"{rate:8.1f} frames/s" if np.isfinite(rate) else ""
    if "auc" not in numbers:
        low, high = ends["ao"]
        return (
            f"AO {numbers['ao']:.3f} [{low:.3f}, {high:.3f}]  SR.50 {numbers['sr_0.50']:.3f}  "
            f"SR.75 {numbers['sr_0.75']:.3f} {speed}"
        ).rstrip()
    low, high = ends["auc"]
    norm = numbers.get("norm_precision_0_20")
    middle = f"  norm. precision {norm:.3f}" if norm is not None else ""
    return (
        f"AUC {numbers['auc']:.3f} [{low:.3f}, {high:.3f}]  precision "
        f"{numbers['precision_20px']:.3f}{middle}  AO {numbers['average_overlap']:.3f} {speed}"
    ).rstrip()


def summary(outcomes: list[Outcome]) -> dict[str, dict[str, float | None]]:
    """Return headline numbers by tracker, for json; what is not a number is null.

    Args:
        outcomes: the trackers.
    """
    rows = {o.name: {**o.score.metrics, "frames_per_second": o.frames_per_second} for o in outcomes}
    return {
        name: {k: v if np.isfinite(v) else None for k, v in row.items()}
        for name, row in rows.items()
    }


def run(options: Options) -> None:
    """Run the command.

    Args:
        options: the call.

    Raises:
        JaxtrackError: as `evaluate`.
    """
    cli.use_compilation_cache()
    plan = plan_of(options)
    with precision.using(options.precision):
        _carry_out(plan)


def _carry_out(plan: Plan) -> None:
    plan, sequences, problems = _opened(plan)
    scores_file = plan.file("scores.json")
    if plan.supervision is not None:
        found = supervise(plan, sequences, problems)
        if not found:
            return
        rows: dict[str, Any] = {}
        for protocol, outcomes in found.items():
            for outcome in outcomes:
                rows.setdefault(outcome.name, {})[protocol] = dict(outcome.score.metrics)
        write_json(scores_file, rows)
        print(f"wrote {scores_file} and runs in VOT's format beside it")
    else:
        outcomes = _one_pass(plan, sequences, problems)
        if not outcomes:
            return
        write_json(scores_file, summary(outcomes))
        found = {"": outcomes}
    if plan.options.sequence:
        print(f"note: the sequences that --sequence names have scores of their own: {scores_file}")
    for number, (protocol, outcomes) in enumerate(found.items()):
        _report(plan, sequences, outcomes, f"-{protocol}" if number else "")


def _report(plan: Plan, sequences: list[Sequence], outcomes: list[Outcome], ending: str) -> None:
    """Write a page of the outcomes under one protocol."""
    if plan.options.no_report:
        return
    from .report.page import write_report

    command = ["python", "-m", cli.beside(__package__, "eval.run"), *sys.argv[1:]]
    place = plan.file(f"report{ending}.html")
    print(f"report: {write_report(place, outcomes, plan.dataset, sequences, command)}")


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's own.

    Returns:
        Exit status: 0, 1 for a failure, 2 for a mistake in the call.
    """
    return cli.command(Options, run, "python -m eval.run", arguments)


if __name__ == "__main__":
    sys.exit(main())
