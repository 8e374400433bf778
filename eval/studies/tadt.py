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
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import jaxtrack
from eval.metrics.ope import evaluate_ope
from eval.tracking import sequences as benchmarks
from eval.tracking import slots as runner
from jaxtrack import cli, trackers
from jaxtrack.base import Tracker, Variables
from jaxtrack.errors import JaxtrackError

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
        weights: file of its weights; empty: those that come with it.
        seeds: runs of each choice.
        clips: clips of the synthetic benchmark, spread over it; 0: all.
        frames: frames of each clip; 0: all.
        slots: clips side by side.
        variants: lines to run; empty: all of them.
        output: folder of the table, the figure and the numbers; runs found there are not repeated.
        debug: show the traceback of errors.
    """

    tracker: str = "tadt-tiny"
    weights: str = ""
    seeds: int = 5
    clips: int = 0
    frames: int = 0
    slots: int = 8
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
        """Mean area under the success curve."""
        return float(np.mean(self.auc))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds (of the sample); 0 for one run."""
        return float(np.std(self.auc, ddof=1)) if len(self.auc) > 1 else 0.0


def cut(sequences: list[benchmarks.Sequence], clips: int, frames: int) -> list[benchmarks.Sequence]:
    """Some clips, evenly spread over the benchmark, and the first frames of each."""
    if clips and clips < len(sequences):
        places = np.linspace(0, len(sequences) - 1, clips).round().astype(int)
        sequences = [sequences[i] for i in places]
    return [benchmarks.shortened(s, frames) for s in sequences] if frames else sequences


def score(
    tracker: Tracker, variables: Variables, sequences: list[benchmarks.Sequence], slots: int
) -> tuple[float, float]:
    """Area under the success curve, and precision at 20 pixels, over whole sequences."""
    boxes = {
        name: np.asarray(track.boxes, np.float64)
        for name, track in runner.run(tracker, variables, sequences, slots=slots)
    }
    truth = {one.name: one.annotation for one in sequences}
    report = evaluate_ope(boxes, truth, None, "synthetic", "tadt")
    curves = report.curves()
    return float(curves["success"].mean()), float(curves["precision"][20])


def measure(options: Options) -> list[Row]:
    """Run every choice with every seed; finished runs are read from ``output/runs``."""
    from tqdm import tqdm

    unknown = sorted(set(options.variants) - set(VARIANTS))
    if unknown:
        raise JaxtrackError(f"unknown variants {', '.join(unknown)}; known: {', '.join(VARIANTS)}")
    if options.seeds < 1 or options.clips < 0 or options.frames < 0:
        raise JaxtrackError("seeds is at least 1, clips and frames at least 0 (all of them)")
    record = jaxtrack.get_tracker(options.tracker)
    if not trackers.family("tadt").owns(record):
        raise JaxtrackError(f"{options.tracker} is not a preset of TADT")
    variables = jaxtrack.load_weights(options.tracker, options.weights or None)
    sequences = cut(benchmarks.load("synthetic"), options.clips, options.frames)
    runs = options.output / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    names = [name for name in VARIANTS if not options.variants or name in options.variants]
    rows = []
    for name in names:
        found = []
        seeds = range(1 if name in FIXED else options.seeds)
        for seed in tqdm(seeds, desc=name, unit=" runs"):
            config = dataclasses.replace(record.config, seed=1234 + seed, **VARIANTS[name])  # type: ignore[type-var]
            tracker = dataclasses.replace(record, config=config)
            asked = f"{config} {options.weights} {options.clips} {options.frames}"
            path = runs / f"{zlib.crc32(asked.encode()):08x}.json"
            if path.is_file():
                found.append(tuple(json.loads(path.read_text())))
                continue
            found.append(score(tracker, variables, sequences, options.slots))
            path.write_text(json.dumps(found[-1]))
        rows.append(Row(name, *(tuple(float(v) for v in column) for column in zip(*found))))
    return rows


def table(rows: list[Row]) -> str:
    """Rows as text; the difference is to the random choice of as many channels."""
    chance = next((row.mean for row in rows if row.name == "random"), float("nan"))
    lines = ["choice of channels                    AUC  spread  precision  to random  seeds"]
    lines += [
        f"{row.name:34s} {row.mean:.3f}   {row.spread:.3f}      {np.mean(row.precision):.3f}"
        f"     {row.mean - chance:+.3f}     {len(row.auc)}"
        for row in sorted(rows, key=lambda row: -row.mean)
    ]
    return "\n".join(lines)


def draw(rows: list[Row]) -> Any:
    """Every run as a dot, means as bars; a matplotlib figure."""
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
    import matplotlib as mpl

    mpl.use("Agg")
    rows = measure(options)
    text = table(rows)
    print(text)
    (options.output / "tadt_ablation.txt").write_text(text + "\n")
    numbers = [dataclasses.asdict(row) for row in rows]
    (options.output / "tadt_ablation.json").write_text(json.dumps(numbers, indent=1))
    draw(rows).savefig(options.output / "tadt_ablation.png", dpi=120)
    print(f"figure: {options.output / 'tadt_ablation.png'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.tadt", arguments)


if __name__ == "__main__":
    sys.exit(main())
