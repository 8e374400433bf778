"""Does it matter which channels TADT keeps: ``python -m eval.studies.tadt``.

The same backbone, matching and update with different choices of channels, on the synthetic benchmark: all
channels, as many at random, by the ridge branch alone, by the ranking branch alone, by both (the paper's
importance), and as the published code chooses. A seed draws the branches' first kernels and the random
channels; the spread is over seeds.

Reference:
    TADT, section 4.4 (ablation) and table 3.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxtrack import cli, trackers
from jaxtrack.base import Tracker, Variables
from jaxtrack.errors import UsageError, unknown

from ..metrics.ope import evaluate_ope
from ..tracking import sequences as benchmarks
from ..tracking import slots
from ..tracking.entry import fingerprint, parse_entry, with_weights
from ..tracking.sequences import Sequence
from . import results
from .results import Kept

# What each line changes in the preset's settings.
VARIANTS: dict[str, dict[str, Any]] = {
    "all channels": {"selection": "all"},
    "random": {"selection": "random"},
    "ridge only": {"selection": "ridge"},
    "ranking only": {"selection": "ranking"},
    "both (tadt)": {},
    "both, ridge by gradient x feature": {"ridge_rule": "gradient-times-feature"},
    "tadt-code": {"ridge_rule": "kernel-sum", "ranking_rule": "published"},
}
# The choice of these hangs on no seed.
FIXED = {"all channels"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare choices of channels.

    Attributes:
        tracker: a preset of TADT; the other settings are its own.
        weights: file of its weights; by default those that come with it.
        seeds: runs of each choice.
        clips: clips of the synthetic benchmark, spread over it; 0: all.
        frames: frames of each clip; 0: all.
        slots: clips side by side.
        variants: lines to run; empty: all of them.
        output: folder of the table, the figure and the numbers; runs found there are not repeated.
        debug: show the traceback of errors.
    """

    tracker: str = "tadt-tiny"
    weights: str | None = None
    seeds: Annotated[int, cli.Range(low=1)] = 5
    clips: Annotated[int, cli.Range(low=0)] = 0
    frames: Annotated[int, cli.Range(low=0)] = 0
    slots: Annotated[int, cli.Range(low=1)] = 8
    variants: tuple[str, ...] = ()
    output: Path = Path("results/tadt_ablation")
    debug: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: the choice of channels.
        auc: area under the success curve of each seed.
        precision: precision at 20 pixels of each seed.
    """

    name: str
    auc: tuple[float, ...]
    precision: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Return the mean area under the success curve."""
        return float(np.mean(self.auc))

    @property
    def spread(self) -> float:
        """Return the standard deviation over seeds (of the sample); 0 for one run."""
        return float(np.std(self.auc, ddof=1)) if len(self.auc) > 1 else 0.0


def cut(sequences: list[Sequence], clips: int, frames: int) -> list[Sequence]:
    """Return some clips, evenly spread over the benchmark, and of each the first frames."""
    if clips and clips < len(sequences):
        places = np.linspace(0, len(sequences) - 1, clips).round().astype(int)
        sequences = [sequences[i] for i in places]
    return [benchmarks.shortened(s, frames) for s in sequences]


def score(
    tracker: Tracker, variables: Variables, sequences: list[Sequence], side_by_side: int
) -> tuple[float, float]:
    """Return the area under the success curve, and precision at 20 pixels, over whole sequences."""
    boxes = {
        name: np.asarray(track.boxes, np.float64)
        for name, track in slots.run(tracker, variables, sequences, slots=side_by_side)
    }
    truth = {one.name: one.annotation for one in sequences}
    report = evaluate_ope(boxes, truth, None, "synthetic", "tadt")
    curves = report.curves()
    return float(curves["success"].mean()), float(curves["precision"][20])


def measure(options: Options) -> list[Row]:
    """Run every choice with every seed; finished runs are read from ``output/runs``."""
    from tqdm import tqdm

    for name in options.variants:
        if name not in VARIANTS:
            raise UsageError(str(unknown("variant", name, VARIANTS)))
    entry = parse_entry(with_weights(options.tracker, options.weights))
    record = entry.tracker
    if not trackers.family("tadt").owns(record):
        raise UsageError(f"--tracker {entry.label}: not a preset of TADT")
    variables = entry.load()
    sequences = cut(benchmarks.load("synthetic"), options.clips, options.frames)
    shown = {s.name: s.inputs() for s in sequences}
    kept = Kept(options.output / "runs")
    names = [name for name in VARIANTS if not options.variants or name in options.variants]
    rows = []
    for name in names:
        found = []
        seeds = range(1 if name in FIXED else options.seeds)
        for seed in tqdm(seeds, desc=name, unit=" runs"):
            config = dataclasses.replace(record.config, seed=1234 + seed, **VARIANTS[name])  # type: ignore[type-var]
            tracker = dataclasses.replace(record, config=config)
            inputs = {"tracker": fingerprint(tracker, variables), "sequences": shown}
            result = kept.get(inputs)
            if result is None:
                result = list(score(tracker, variables, sequences, options.slots))
                kept.put(inputs, result)
            found.append(result)
        rows.append(Row(name, *(tuple(float(v) for v in column) for column in zip(*found))))
    return rows


def table(rows: list[Row]) -> str:
    """Return rows as text; the difference is to the random choice of as many channels."""
    chance = next((row.mean for row in rows if row.name == "random"), float("nan"))
    lines = ["choice of channels                    AUC  spread  precision  to random  seeds"]
    lines += [
        f"{row.name:34s} {row.mean:.3f}   {row.spread:.3f}      {np.mean(row.precision):.3f}"
        f"     {row.mean - chance:+.3f}     {len(row.auc)}"
        for row in sorted(rows, key=lambda row: -row.mean)
    ]
    return "\n".join(lines)


def draw(rows: list[Row]) -> Any:
    """Draw every run as a dot, means as bars; a matplotlib figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 0.45 * len(rows) + 1))
    ordered = sorted(rows, key=lambda row: row.mean)
    for place, row in enumerate(ordered):
        axis.barh(place, row.mean, color="lightsteelblue")
        axis.plot(row.auc, [place] * len(row.auc), "k.", markersize=4)
    axis.set_yticks(range(len(ordered)), [row.name for row in ordered], fontsize=8)
    axis.set_xlabel("area under the success curve")
    figure.tight_layout()
    return figure


def _run(options: Options) -> None:
    folder = results.begin(options.output)
    rows = measure(options)
    text = table(rows)
    print(text)
    results.write(folder, "tadt_ablation", rows, text, draw(rows))


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.tadt", arguments)


if __name__ == "__main__":
    sys.exit(main())
