"""MLT's ablation from one command: ``python -m eval.studies.mlt --output ablation``.

All eight combinations of the three switches (meta-learner, attention, fine-tuning) on the fixed synthetic
benchmark or any other, for several seeds of training: mean and spread of the scores, the paired difference
to the matching network alone, and frames per second of each, measured in turns on the same clip.
``--fewest`` adds rows in which the meta-learner runs only when the memory holds so many patches.

Trains what is not there yet (both stages and the calibration between them, in processes of their own;
``OUTPUT/seed-N/``), or takes ``--weights``, one file per seed. Weights of the full tracker serve all
combinations: a switch that is off leaves its part unused. New kernels and attention have been trained
together, so that one without the other is not what a training of its own would give.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from jaxtrack import base as verbs
from jaxtrack import cli, load_weights
from jaxtrack.base import Tracker
from jaxtrack.errors import UsageError
from jaxtrack.trackers.mlt import tracker as mlt

from ..files import datasets
from ..metrics.bootstrap import bootstrap
from ..metrics.names import check_scorable
from ..metrics.ope import OPEReport, evaluate_ope
from ..tracking import sequences as benchmarks
from ..tracking import slots
from ..tracking.entry import Entry, parse_entry
from ..tracking.sequences import Sequence
from . import results
from .training import Training, check_presets

Switches = tuple[bool, bool, bool]
MT: Switches = (False, False, False)
MT_FT: Switches = (False, False, True)
FULL: Switches = (True, True, False)


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure MLT with every combination of its switches.

    Attributes:
        tracker: preset whose switches are set.
        weights: weights of the full tracker, one file per seed; empty: train.
        seeds: trainings, where no weights are given.
        matching: name of the training preset of stage 1.
        calibration: name of the training preset between the stages.
        meta: name of the training preset of stage 2.
        matching_weights: weights of stage 1 for every seed, in place of training it.
        matching_steps: length of stage 1 (default: the preset's).
        meta_steps: length of stage 2 (default: the preset's).
        benchmark: synthetic, synthetic-hard, or a data set in its own layout: otb100, custom, ...
        root: the benchmark's folder (not for the synthetic ones).
        sequence: only these sequences.
        row: only these rows, by name, and mt.
        fewest: rows more: the full tracker, which adapts from so many patches on.
        output: folder of weights, table and plot; tracks found there are not repeated.
        slots: videos tracked side by side.
        chunk: frames per compiled call.
        speed_rounds: timed runs of each combination, in turns; the fastest counts; 0: none.
        debug: show the traceback of errors.
    """

    tracker: str = "mlt-tiny"
    weights: tuple[Path, ...] = ()
    seeds: Annotated[int, cli.Range(low=1)] = 3
    matching: str = "mlt-tiny-matching"
    calibration: str = "mlt-tiny-calibration"
    meta: str = "mlt-tiny-meta"
    matching_weights: Path | None = None
    matching_steps: Annotated[int | None, cli.Range(low=1)] = None
    meta_steps: Annotated[int | None, cli.Range(low=1)] = None
    benchmark: str = "synthetic"
    root: Path | None = None
    sequence: tuple[str, ...] = ()
    row: tuple[str, ...] = ()
    fewest: tuple[int, ...] = ()
    output: Path = Path("ablation")
    slots: Annotated[int, cli.Range(low=1)] = 1
    chunk: Annotated[int, cli.Range(low=1)] = 8
    speed_rounds: Annotated[int, cli.Range(low=0)] = 3
    debug: bool = False


def label_of(switches: Switches) -> str:
    """Return the paper's name of a combination where it has one, else what is on."""
    names = {MT: "mt", MT_FT: "mt+ft", FULL: "mlt (full)"}
    parts = ("kernels", "attention", "fine-tuning")
    return names.get(switches, " + ".join(p for p, on in zip(parts, switches) if on))


def combinations(preset: str) -> dict[Switches, Tracker]:
    """Return the tracker with each combination of switches, the matching network alone first.

    All adapt from the first patch on, as described.

    Raises:
        UsageError: the preset is not of MLT, or its meta-learner has not both outputs.
    """
    whole = parse_entry(preset).tracker
    if not isinstance(whole.config, mlt.Config):
        raise UsageError(f"--tracker {preset}: not a preset of MLT, which alone has these switches")
    if not (whole.config.meta.attention and whole.config.meta.target_kernels):
        raise UsageError(
            f"--tracker {preset}: its meta-learner lacks an output; take a full preset"
        )
    onoff = (False, True)
    config = dataclasses.replace(whole.config, fewest_patches=1)
    return {
        (a, b, c): dataclasses.replace(whole, config=mlt.switched(config, a, b, c))
        for a, b, c in itertools.product(onoff, onoff, onoff)
    }


def trained(options: Options) -> list[Path]:
    """Return the weights of every seed: those given, or trained now (a stopped training goes on)."""
    if options.weights:
        return list(options.weights)
    found = []
    for seed in range(options.seeds):
        folder = options.output / f"seed-{seed}"
        first, place, own = options.matching_weights, options.output, 0
        if first is None:
            place, own, steps = folder, seed, options.matching_steps
            first = Training(options.matching, folder / "matching", steps, seed).weights()
        ready = Training(options.calibration, place / "calibration", None, own, first).weights()
        steps = options.meta_steps
        found.append(Training(options.meta, folder / "meta", steps, seed, ready).weights())
    return found


def opened(options: Options) -> list[Sequence]:
    """Return what is tracked.

    Raises:
        JaxtrackError: as `eval.tracking.sequences.load`; a sequence cannot be tracked, or none be scored.
    """
    sequences = benchmarks.load(options.benchmark, options.root, names=options.sequence)
    faults = {s.name: s.fault or benchmarks.first_box_fault(s) for s in sequences}
    broken = {name: fault for name, fault in faults.items() if fault is not None}
    if broken:
        raise slots.BrokenSequencesError(broken)
    check_scorable({s.name: s.annotation for s in sequences})
    return sequences


def rows_of(options: Options) -> dict[str, Tracker]:
    """Return the trackers that are compared, by the name of their row, the matching network alone first.

    Raises:
        UsageError: as `combinations`; a row that there is not.
    """
    made = combinations(options.tracker)
    rows = {label_of(switches): tracker for switches, tracker in made.items()}
    for count in options.fewest:
        config: Any = made[FULL].config
        config = dataclasses.replace(config, fewest_patches=count)
        name = f"{label_of(FULL)} from {count} patches on"
        rows[name] = dataclasses.replace(made[FULL], config=config)
    for name in options.row:
        if name not in rows:
            raise UsageError(f"--row {name}: one of {', '.join(rows)} is wanted")
    # What --fewest asks for needs not be named again.
    extra = [name for name in rows if " from " in name]
    wanted = {label_of(MT), *options.row, *extra} if options.row else set(rows)
    return {name: tracker for name, tracker in rows.items() if name in wanted}


def score(entry: Entry, variables: Any, sequences: list[Sequence], options: Options) -> OPEReport:
    """Evaluate one row in one pass; sequences that were tracked before are not tracked again."""
    from tqdm import tqdm

    kept, made = results.Kept(options.output / "runs"), entry.fingerprint(variables)
    inputs: dict[str, dict[str, Any]] = {
        s.name: {"tracker": made, "sequence": s.name, **s.inputs()} for s in sequences
    }
    found = {name: kept.get(key) for name, key in inputs.items()}
    missing = [s for s in sequences if found[s.name] is None]
    total = sum(s.length for s in missing)
    with tqdm(total=total, unit=" frames", desc=entry.label, disable=not total, leave=False) as bar:
        tracks = slots.run(
            *(entry.tracker, variables, missing),
            slots=options.slots,
            chunk=options.chunk,
            progress=bar.update,
        )
        for name, track in tracks:
            found[name] = track.boxes.astype(np.float64).tolist()
            kept.put(inputs[name], found[name])
    boxes, truth = {}, {s.name: s.annotation for s in sequences}
    for sequence in sequences:
        rows = np.array(found[sequence.name])
        rows[:, :2] += sequence.origin
        rows[0] = sequence.annotation.boxes[0]
        boxes[sequence.name] = rows
    rules = datasets.find(options.benchmark).benchmark
    return evaluate_ope(boxes, truth, None, rules, "mlt")


def speeds(
    trackers: dict[str, Tracker], variables: Any, sequence: Sequence, rounds: int
) -> dict[str, float]:
    """Measure frames per second of `track_clip` on one clip: in turns, the fastest round of each.

    Returns:
        By row; NaN without rounds.
    """
    if not rounds:
        return dict.fromkeys(trackers, np.nan)
    images = np.stack(list(sequence.frames()))
    box = np.asarray(sequence.boxes[0], np.float32)
    states = {key: verbs.init(t, variables, images[0], box) for key, t in trackers.items()}
    best = dict.fromkeys(trackers, np.inf)
    for turn in range(rounds + 1):  # the first one compiles
        for key, tracker in trackers.items():
            started = time.perf_counter()
            jax.block_until_ready(verbs.track_clip(tracker, variables, states[key], images[1:]))
            if turn:
                best[key] = min(best[key], time.perf_counter() - started)
    return {key: (len(images) - 1) / seconds for key, seconds in best.items()}


def ablate(options: Options) -> list[dict[str, Any]]:
    """Measure everything.

    Returns:
        One row per combination: ``auc`` and ``precision`` (mean), ``auc_spread`` (standard
        deviation over seeds; NaN for one), ``auc_by_seed``, ``gain`` over the matching network with
        its 95 % ``interval`` over sequences, ``frames_per_second`` and ``slowdown`` against mt.
    """
    trackers = rows_of(options)
    sequences = opened(options)  # what is wrong with them costs no training
    if not options.weights:
        first = () if options.matching_weights else (options.matching,)
        check_presets(*first, options.calibration, options.meta)
    paths = trained(options)
    whole = combinations(options.tracker)[(True, True, True)]
    learned = [load_weights(whole, path) for path in paths]
    rates = speeds(trackers, learned[0], sequences[0], options.speed_rounds)
    mt = label_of(MT)
    per_sequence: dict[str, np.ndarray] = {}
    rows = []
    for name, tracker in trackers.items():
        config: Any = tracker.config
        # Without the meta-learner, seeds that share the matching network are one and the same.
        shared = options.matching_weights is not None and not config.has_meta
        distinct = learned[:1] if shared else learned
        entry = Entry(name, options.tracker, tracker)
        reports = [score(entry, variables, sequences, options) for variables in distinct]
        reports *= len(learned) // len(distinct)
        auc = np.asarray([r.overall()["auc"] for r in reports])
        precision = [r.overall()["precision_20px"] for r in reports]
        per_sequence[name] = np.mean([r.sequence_scores()["auc"] for r in reports], axis=0)
        difference = per_sequence[name] - per_sequence[mt]
        rows.append(
            {
                "name": name,
                "auc": float(auc.mean()),
                "auc_spread": float(auc.std(ddof=1)) if len(auc) > 1 else float("nan"),
                "auc_by_seed": auc.tolist(),
                "precision": float(np.mean(precision)),
                "gain": float(difference.mean()),
                "interval": [float(v) for v in bootstrap(difference)],
                "frames_per_second": rates[name],
                "slowdown": rates[mt] / rates[name],
            }
        )
        print(line_of(rows[-1]), flush=True)
    return rows


def line_of(row: dict[str, Any]) -> str:
    """Return a row of the table as text."""
    low, high = row["interval"]
    return (
        f"{row['name']:36s} AUC {row['auc']:.3f} +- {row['auc_spread']:.3f}  precision "
        f"{row['precision']:.3f}  against mt {row['gain']:+.3f} [{low:+.3f}, {high:+.3f}]  "
        f"{row['frames_per_second']:7.1f} frames/s  {row['slowdown']:.2f} x the time of mt"
    )


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """Say what the figures tell of the paper's claims, one line each, whichever way they come out."""
    by_name = {row["name"]: row for row in rows}
    if not {label_of(key) for key in (FULL, MT, MT_FT)} <= set(by_name):
        return []  # some of them were not asked for
    full, mt, ft = (by_name[label_of(key)] for key in (FULL, MT, MT_FT))

    def say(claim: str, holds: bool, figures: str) -> str:
        return f"{'holds' if holds else 'does NOT hold'}: {claim} ({figures})"

    said = [
        say("full above mt", full["auc"] > mt["auc"], f"{full['auc']:.3f}, {mt['auc']:.3f}"),
        say("full above mt+ft", full["auc"] > ft["auc"], f"{full['auc']:.3f}, {ft['auc']:.3f}"),
    ]
    if np.isnan(full["slowdown"]):
        return said
    return [
        *said,
        say("full at most 1.3 times slower than mt", full["slowdown"] <= 1.3, f"{full['slowdown']:.2f}"),
        say(
            "mt+ft slower than both",
            ft["slowdown"] > max(1.0, full["slowdown"]),
            f"{ft['slowdown']:.2f}",
        ),
    ]  # fmt: skip


def draw(rows: list[dict[str, Any]], benchmark: str) -> Any:
    """Draw AUC of every combination against frames per second, or side by side where these are not known.

    Args:
        rows: of `ablate`.
        benchmark: its name, for the title.

    Returns:
        A matplotlib figure; each seed is a point, the mean a line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    timed = not np.isnan(rows[0]["frames_per_second"])
    for i, row in enumerate(rows):
        colour = f"C{i}"
        speed = row["frames_per_second"] if timed else i
        axes.plot([speed] * len(row["auc_by_seed"]), row["auc_by_seed"], "o", ms=4, color=colour)
        axes.plot(speed, row["auc"], "_", ms=18, mew=2, color=colour, label=row["name"])
    axes.set(
        xlabel="frames per second" if timed else "row",
        ylabel="AUC",
        title=f"MLT's switches, {benchmark}",
    )
    axes.legend(fontsize="small")
    return figure


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _main, "python -m eval.studies.mlt", arguments)


def _main(options: Options) -> None:
    cli.use_compilation_cache()
    folder = results.begin(options.output, *options.weights, options.matching_weights, options.root)
    rows = ablate(options)
    lines = [*map(line_of, rows), "", *verdict(rows)]
    print("\n".join(lines[len(rows) :]))
    results.write(folder, "ablation", rows, "\n".join(lines), draw(rows, options.benchmark))


if __name__ == "__main__":
    sys.exit(main())
