"""MLT's ablation from one command: ``python -m eval.studies.mlt --output ablation``.

All eight combinations of the three switches (meta-learner, attention, fine-tuning) on the fixed synthetic
benchmark, for several seeds of training: mean and spread of the scores, the paired difference to the
matching network alone, and frames per second of each, measured in turns on the same clip.

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

from ..metrics.bootstrap import bootstrap
from ..metrics.ope import OPEReport, evaluate_ope
from ..tracking import sequences as benchmarks
from ..tracking import slots
from ..tracking.entry import parse_entry
from ..tracking.sequences import Sequence
from . import results
from .training import Training

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
        sequence: only these sequences of the synthetic benchmark.
        output: folder of weights, table and plot.
        slots: videos tracked side by side.
        chunk: frames per compiled call.
        speed_rounds: timed runs of each combination, in turns; the fastest counts.
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
    sequence: tuple[str, ...] = ()
    output: Path = Path("ablation")
    slots: Annotated[int, cli.Range(low=1)] = 1
    chunk: Annotated[int, cli.Range(low=1)] = 8
    speed_rounds: Annotated[int, cli.Range(low=1)] = 3
    debug: bool = False


def label_of(switches: Switches) -> str:
    """Return the paper's name of a combination where it has one, else what is on."""
    names = {MT: "mt", MT_FT: "mt+ft", FULL: "mlt (full)"}
    parts = ("kernels", "attention", "fine-tuning")
    return names.get(switches, " + ".join(p for p, on in zip(parts, switches) if on))


def combinations(preset: str) -> dict[Switches, Tracker]:
    """Return the tracker with each combination of switches, the matching network alone first.

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
    return {
        (a, b, c): dataclasses.replace(whole, config=mlt.switched(whole.config, a, b, c))
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


def score(
    tracker: Tracker, variables: Any, sequences: list[Sequence], options: Options
) -> OPEReport:
    """Evaluate one combination in one pass."""
    from tqdm import tqdm

    boxes = {}
    total = sum(s.length for s in sequences)
    with tqdm(total=total, unit=" frames", leave=False) as bar:
        tracks = slots.run(
            *(tracker, variables, sequences),
            slots=options.slots,
            chunk=options.chunk,
            progress=bar.update,
        )
        for name, track in tracks:
            boxes[name] = np.asarray(track.boxes, np.float64)
    truth = {s.name: s.annotation for s in sequences}
    for sequence in sequences:
        boxes[sequence.name][0] = sequence.annotation.boxes[0]
    return evaluate_ope(boxes, truth, None, "synthetic", "mlt")


def speeds(
    trackers: dict[Switches, Tracker], variables: Any, sequence: Sequence, rounds: int
) -> dict[Switches, float]:
    """Measure frames per second of `track_clip` on one clip: in turns, the fastest round of each."""
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
        One row per combination: ``switches``, ``auc`` and ``precision`` (mean), ``auc_spread`` (standard
        deviation over seeds; NaN for one), ``auc_by_seed``, ``gain`` over the matching network with
        its 95 % ``interval`` over sequences, ``frames_per_second`` and ``slowdown`` against mt.
    """
    trackers = combinations(options.tracker)
    paths = trained(options)
    sequences = benchmarks.load("synthetic", names=options.sequence)
    full = trackers[(True, True, True)]
    learned = [load_weights(full, path) for path in paths]
    rates = speeds(trackers, learned[0], sequences[0], options.speed_rounds)
    per_sequence: dict[Switches, np.ndarray] = {}
    rows = []
    for switches, tracker in trackers.items():
        # Without the meta-learner, seeds that share the matching network are one and the same.
        shared = options.matching_weights is not None and not any(switches[:2])
        distinct = learned[:1] if shared else learned
        reports = [score(tracker, variables, sequences, options) for variables in distinct]
        reports *= len(learned) // len(distinct)
        auc = np.asarray([r.overall()["auc"] for r in reports])
        precision = [r.overall()["precision_20px"] for r in reports]
        per_sequence[switches] = np.mean([r.sequence_scores()["auc"] for r in reports], axis=0)
        difference = per_sequence[switches] - per_sequence[MT]
        rows.append(
            {
                "name": label_of(switches),
                "switches": list(switches),
                "auc": float(auc.mean()),
                "auc_spread": float(auc.std(ddof=1)) if len(auc) > 1 else float("nan"),
                "auc_by_seed": auc.tolist(),
                "precision": float(np.mean(precision)),
                "gain": float(difference.mean()),
                "interval": [float(v) for v in bootstrap(difference)],
                "frames_per_second": rates[switches],
                "slowdown": rates[MT] / rates[switches],
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
    full, mt, ft = (by_name[label_of(key)] for key in (FULL, MT, MT_FT))

    def say(claim: str, holds: bool, figures: str) -> str:
        return f"{'holds' if holds else 'does NOT hold'}: {claim} ({figures})"

    return [
        say("full above mt", full["auc"] > mt["auc"], f"{full['auc']:.3f}, {mt['auc']:.3f}"),
        say("full above mt+ft", full["auc"] > ft["auc"], f"{full['auc']:.3f}, {ft['auc']:.3f}"),
        say("full at most 1.3 times slower than mt", full["slowdown"] <= 1.3, f"{full['slowdown']:.2f}"),
        say(
            "mt+ft slower than both",
            ft["slowdown"] > max(1.0, full["slowdown"]),
            f"{ft['slowdown']:.2f}",
        ),
    ]  # fmt: skip


def draw(rows: list[dict[str, Any]]) -> Any:
    """Draw AUC of every combination against frames per second; a matplotlib figure.

    Each seed is a point, the mean a line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for i, row in enumerate(rows):
        colour = f"C{i}"
        speed = row["frames_per_second"]
        axes.plot([speed] * len(row["auc_by_seed"]), row["auc_by_seed"], "o", ms=4, color=colour)
        axes.plot(speed, row["auc"], "_", ms=18, mew=2, color=colour, label=row["name"])
    axes.set(xlabel="frames per second", ylabel="AUC", title="MLT's switches, synthetic benchmark")
    axes.legend(fontsize="small")
    return figure


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _main, "python -m eval.studies.mlt", arguments)


def _main(options: Options) -> None:
    cli.use_compilation_cache()
    folder = results.begin(options.output, *options.weights, options.matching_weights)
    rows = ablate(options)
    lines = [*map(line_of, rows), "", *verdict(rows)]
    print("\n".join(lines[len(rows) :]))
    results.write(folder, "ablation", rows, "\n".join(lines), draw(rows))


if __name__ == "__main__":
    sys.exit(main())
