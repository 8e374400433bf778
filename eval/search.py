r"""Hyper-parameter search, many settings in one compiled run.

    python -m eval.search --tracker siamrpnpp-tiny --set window_influence=0.2,0.3,0.4,0.5 \
        --set penalty_k=0.05,0.1,0.15,0.2 --set size_rate=0.2,0.3,0.4,0.5

tracks the benchmark with all 64 combinations side by side (see `eval.sweep.compiled`) and writes a table
(csv, json) and a plot. Each setting gets what `eval.run` gives with that config. ``--compare N`` also runs
N of the settings one by one, each its own program, and prints what both ways cost.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack import cli, get_tracker, load_weights, streaming
from jaxtrack.io.atomic import write_whole

from .metrics.ope import evaluate_ope
from .sweep import compiled as sweep
from .sweep.cost import Clock, compare, print_costs
from .sweep.grid import Grid, parse_grid, track_sequences
from .sweep.plot import plot
from .tracking import sequences as benchmarks
from .tracking import slots as runner
from .tracking.sequences import Sequence

METRICS = ("auc", "precision_20px", "norm_precision_0_20")


@dataclasses.dataclass(frozen=True)
class Options:
    """Search the hyper-parameters of a tracker.

    Attributes:
        tracker: preset of jaxtrack.
        set: FIELD=VALUE,VALUE,... of the tracker's config, several times: all combinations are tried.
        random: try this many random settings between the smallest and largest value of each field instead.
        seed: of the random settings.
        weights: weights file; by default the shipped ones.
        benchmark: synthetic, otb, lasot, uav123, nfs, tc128, ...
        root: the benchmark's folder (not for synthetic).
        split: the benchmark's split; by default its own.
        sequence: only these sequences.
        frames: only the first frames of each.
        protocol: scoring rules; by default the benchmark's own.
        output: folder of table and plot.
        chunk: frames per compiled call.
        block: settings that go through the network at once; by default 1 on a CPU, all elsewhere.
        compare: also run this many of the settings one by one, and tell the cost of both.
        debug: show the traceback of errors.
    """

    tracker: str
    set: tuple[str, ...] = ()
    random: int | None = None
    seed: int = 0
    weights: Path | None = None
    benchmark: str = "synthetic"
    root: Path | None = None
    split: str | None = None
    sequence: tuple[str, ...] = ()
    frames: int | None = None
    protocol: str | None = None
    output: Path = Path("search")
    chunk: int = streaming.CHUNK
    block: int | None = None
    compare: int = 0
    debug: bool = False


def score(
    boxes: dict[str, np.ndarray],
    sequences: Items[Sequence],
    grid: Grid,
    protocol: str | None,
    benchmark: str,
) -> list[dict[str, float]]:
    """Score every setting.

    Args:
        boxes: of `track_sequences`.
        sequences: what was tracked.
        grid: the settings.
        protocol: scoring rules; None: the benchmark's own.
        benchmark: its name.

    Returns:
        A row for each setting, best AUC first: "setting" (its number in the grid), fields, `METRICS`.
    """
    truth = {s.name: s.annotation for s in sequences}
    rows = []
    for index, values in enumerate(grid.values.tolist()):
        own = {s.name: runner.own_coordinates(boxes[s.name][index], s) for s in sequences}
        numbers = evaluate_ope(own, truth, protocol, benchmark, f"setting {index}").overall()
        metrics = {key: numbers[key] for key in METRICS if key in numbers}
        rows.append({"setting": index, **dict(zip(grid.names, values)), **metrics})
    return sorted(rows, key=lambda row: -row["auc"])


def search(options: Options) -> list[dict[str, float]]:
    """Track, score, print and write; returns the rows of `score`.

    Args:
        options: what to do.

    Raises:
        JaxtrackError: nothing to search, fields that cannot be searched, unreadable data.
    """
    from tqdm import tqdm

    grid = parse_grid(options.set, options.random, options.seed)
    if options.chunk < 1 or (options.block is not None and options.block < 1):
        raise cli.UsageError("--chunk and --block are at least 1")
    if not 0 <= options.compare <= len(grid.values):
        raise cli.UsageError(f"--compare {options.compare}: 1 to {len(grid.values)}, the settings")
    if options.frames is not None and options.frames < 2:
        raise cli.UsageError(f"--frames {options.frames}: give 2 or more")
    tracker = get_tracker(options.tracker)
    sweep.check_fields(tracker, options.tracker, grid.names)
    variables = load_weights(options.tracker, options.weights)
    sequences = benchmarks.load(options.benchmark, options.root, options.split, options.sequence)
    if options.frames is not None:
        sequences = [benchmarks.shortened(s, options.frames) for s in sequences]
    figures: dict[str, Any] = {
        "tracker": options.tracker,
        "benchmark": options.benchmark,
        "sequences": [s.name for s in sequences],
        "arguments": sys.argv[1:],
    }
    total, clock = len(grid.values) * sum(s.length - 1 for s in sequences), Clock()
    sizes: dict[str, Any] = {"chunk": options.chunk, "block": options.block}
    if options.compare:
        count = options.compare
        figures["cost"], boxes, looked = compare(
            tracker, variables, sequences, grid, count, **sizes
        )
        print_costs(figures["cost"])
    else:
        with tqdm(total=total, unit=" settings x frames", desc=options.tracker) as bar:
            boxes, looked = track_sequences(
                tracker, variables, sequences, grid, progress=bar.update, **sizes
            )
        figures["seconds"] = clock.read()
    figures["windows"] = looked
    rows = score(boxes, sequences, grid, options.protocol, options.benchmark)
    _write(options, grid, rows, figures)
    best = "  ".join(f"{name}={rows[0][name]:.6g}" for name in grid.names)
    numbers = "  ".join(f"{key} {rows[0][key]:.3f}" for key in METRICS if key in rows[0])
    print(f"best of {len(rows)}: {best}  {numbers}")
    return rows


def _write(
    options: Options, grid: Grid, rows: list[dict[str, float]], figures: dict[str, Any]
) -> None:
    """The table as csv and json, and the plot."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    title = f"{options.tracker} on {options.benchmark}: {len(rows)} settings"
    content = {
        "search.csv": text.getvalue().encode(),
        "search.json": json.dumps({**figures, "rows": rows}, indent=1).encode(),
        "search.png": plot(rows, grid.names, title),
    }
    for name, data in content.items():
        write_whole(options.output / name, data)
    print(f"wrote {', '.join(str(options.output / name) for name in content)}")


def _run(options: Options) -> None:
    cli.use_compilation_cache()
    search(options)


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.search", arguments)


if __name__ == "__main__":
    sys.exit(main())
