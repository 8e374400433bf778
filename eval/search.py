r"""Hyper-parameter search, many settings in one compiled run.

    python -m eval.search --tracker siamrpnpp-tiny --set window_influence=0.2,0.3,0.4,0.5 \
        --set penalty_k=0.05,0.1,0.15,0.2 --set size_rate=0.2,0.3,0.4,0.5

tracks the benchmark with all 64 combinations side by side (see `eval.sweep.compiled`) and writes a table
(csv, json) and a plot. Each setting gets what `eval.run` gives with that config. ``--compare N`` also runs
N of the settings one by one, each its own program, and prints what both ways cost.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import sys
import time
from collections.abc import Iterator
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from jaxtrack import cli, streaming
from jaxtrack.base import Tracker, Variables
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.io import paths
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.records import json_text
from jaxtrack.ops import precision

from .files import datasets
from .files.records import doubtful, late
from .metrics.names import all_withheld, check_scorable
from .metrics.ope import evaluate_ope
from .metrics.protocols import get_protocol
from .sweep import compiled
from .sweep.grid import Grid, parse_grid, track_sequences
from .sweep.plot import plot
from .tracking import sequences as benchmarks
from .tracking import slots
from .tracking.entry import parse_entry, with_weights
from .tracking.sequences import Sequence

METRICS = ("auc", "precision_20px", "norm_precision_0_20")


@dataclasses.dataclass(frozen=True)
class Options:
    """Search the hyper-parameters of a tracker.

    Attributes:
        tracker: preset of jaxtrack, PRESET=WEIGHTS_FILE, or package.module:TRACKER.
        set: FIELD=VALUE,VALUE,... of the tracker's config, several times: all combinations are tried.
        random: try this many random settings between the smallest and largest value of each field instead.
        seed: of the random settings.
        weights: weights file; by default the shipped ones.
        benchmark: synthetic, synthetic-hard, or a data set in its own layout: otb100, lasot, custom, ...
        root: the benchmark's folder (not for the synthetic ones).
        split: the benchmark's split; by default the one that is scored.
        sequence: only these sequences.
        frames: only the first frames of each.
        protocol: scoring rules; by default the benchmark's own.
        precision: digits of the networks' products: highest (float32), high (TF32 on GPUs) or bfloat16;
            auto: highest on a CPU, high on accelerators.
        output: folder of table and plot.
        chunk: frames per compiled call.
        block: settings that go through the network at once; by default 1 on a CPU, all elsewhere.
        compare: also run this many of the settings one by one, and tell the cost of both.
        debug: show the traceback of errors.
    """

    tracker: str
    set: tuple[str, ...] = ()
    random: Annotated[int | None, cli.Range(low=1, high=100_000)] = None
    seed: Annotated[int, cli.Range(low=0)] = 0
    weights: Path | None = None
    benchmark: str = "synthetic"
    root: Path | None = None
    split: str | None = None
    sequence: tuple[str, ...] = ()
    frames: Annotated[int | None, cli.Range(low=2)] = None
    protocol: str | None = None
    precision: precision.Choice = "auto"
    output: Path = Path("search")
    chunk: Annotated[int, cli.Range(low=1, high=4096)] = streaming.CHUNK
    block: Annotated[int | None, cli.Range(low=1)] = None
    compare: Annotated[int, cli.Range(low=0)] = 0
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
        own = {s.name: slots.own_coordinates(boxes[s.name][index], s) for s in sequences}
        numbers = evaluate_ope(own, truth, protocol, benchmark, f"setting {index}").overall()
        metrics = {key: numbers[key] for key in METRICS if key in numbers}
        rows.append({"setting": index, **dict(zip(grid.names, values)), **metrics})
    return sorted(rows, key=lambda row: -row["auc"])


@dataclasses.dataclass
class Clock:
    """Wall and processor seconds (of all threads) since it was made."""

    wall: float = dataclasses.field(default_factory=time.perf_counter)
    cpu: float = dataclasses.field(default_factory=time.process_time)

    def read(self) -> dict[str, float]:
        """Return the seconds so far, "wall" and "cpu"."""
        return {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


@contextlib.contextmanager
def _no_compilation_cache() -> Iterator[None]:
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def compare(
    tracker: Tracker,
    variables: Variables,
    sequences: Items[Sequence],
    grid: Grid,
    count: int,
    chunk: int = streaming.CHUNK,
    block: int | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray], int]:
    """Measure all settings in one run against settings one by one, with and without compilation.

    Args:
        tracker: the tracker.
        variables: its learned values.
        sequences: what is tracked.
        grid: the settings.
        count: this many settings, spread over the grid, are run by `eval.tracking.slots.run`, each with its
            own static config; their mean cost is taken for each of the others.
        chunk: frames per compiled call.
        block: settings that go through the network at once.

    Returns:
        Seconds ("wall" and "cpu") of the search and of all settings one by one, "cold" (with compilation, no
        cache) and "warm"; their ratios; the largest difference of boxes between both ways, pixels. Then
        boxes and windows, as `track_sequences`.
    """
    chosen = np.unique(np.linspace(0, len(grid.values) - 1, count).round().astype(int))
    figures: dict[str, Any] = {"settings": len(grid.values), "one_by_one": len(chosen)}
    costs: dict[str, list[dict[str, float]]] = {"search": [], "single": []}
    boxes: dict[str, np.ndarray] = {}
    looked = 0
    difference = 0.0
    with _no_compilation_cache():
        for _ in ("cold", "warm"):
            clock = Clock()
            boxes, looked = track_sequences(
                tracker, variables, sequences, grid, chunk=chunk, block=block
            )
            costs["search"].append(clock.read())
        for _ in ("cold", "warm"):
            clock = Clock()
            for index in chosen:
                changed = dataclasses.replace(tracker, config=grid.config(tracker.config, index))
                for name, track in slots.run(changed, variables, sequences, chunk=chunk):
                    apart = np.abs(track.boxes - boxes[name][index]).max()
                    difference = max(difference, float(apart))
            share = len(grid.values) / len(chosen)
            costs["single"].append({key: value * share for key, value in clock.read().items()})
    for k, kind in enumerate(("cold", "warm")):
        search, single = costs["search"][k], costs["single"][k]
        ratio = {key: search[key] / single[key] for key in search}
        figures[kind] = {"search": search, "one_by_one": single, "ratio": ratio}
    return {**figures, "largest_difference": difference}, boxes, looked


def print_costs(figures: dict[str, Any]) -> None:
    """Print the figures of `compare`."""
    for kind, words in (("cold", "with compilation"), ("warm", "without compilation")):
        part = figures[kind]
        for key in ("cpu", "wall"):
            print(
                f"{words:20s} {key:4s}  {figures['settings']} settings in one run "
                f"{part['search'][key]:8.1f} s, one by one {part['one_by_one'][key]:8.1f} s: "
                f"ratio {part['ratio'][key]:.3f}"
            )
    print(
        f"(one by one: {figures['one_by_one']} settings were run, their mean counts for all; boxes differ "
        f"by at most {figures['largest_difference']:.2g} pixels)"
    )


def search(options: Options) -> list[dict[str, float]]:
    """Track, score, print and write; returns the rows of `score`.

    Args:
        options: what to do.

    Raises:
        JaxtrackError: nothing to search, fields that cannot be searched, unreadable data.
    """
    from tqdm import tqdm

    grid = parse_grid(options.set, options.random, options.seed)
    if not 0 <= options.compare <= len(grid.values):
        raise UsageError(f"--compare {options.compare}: 1 to {len(grid.values)}, the settings")
    entry = parse_entry(with_weights(options.tracker, options.weights))
    tracker = entry.tracker
    compiled.check_fields(tracker, entry.label, grid.names)
    grid.check(tracker)
    if options.protocol is not None:
        get_protocol(options.protocol)
    dataset = datasets.find(options.benchmark, options.split)
    datasets.check_root(dataset, options.root)
    inputs = [path for path in (options.root, options.weights) if path is not None]
    paths.output_folder(options.output, inputs)
    variables = entry.load()
    sequences = benchmarks.load(dataset, options.root, names=options.sequence)
    if all_withheld(s.annotation for s in sequences):
        raise JaxtrackError(
            f"{dataset.label}: its truth is withheld, there is nothing to search by; name another --split"
        )
    notes = late({s.name: s.annotation for s in sequences})
    notes += doubtful(dataset.layout, [(s.boxes, s.size) for s in sequences if not s.fault])
    if not options.sequence:
        notes += datasets.incomplete(dataset, len(sequences))
    for note in notes:
        print(f"note: {note}", flush=True)
    if options.frames is not None:
        sequences = [benchmarks.shortened(s, options.frames) for s in sequences]
    check_scorable({s.name: s.annotation for s in sequences})
    figures: dict[str, Any] = {
        "tracker": entry.label,
        "fingerprint": entry.fingerprint(variables),
        "benchmark": dataset.label,
        "sequences": [s.name for s in sequences],
        "notes": notes,
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
        with tqdm(total=total, unit=" settings x frames", desc=entry.label) as bar:
            boxes, looked = track_sequences(
                tracker, variables, sequences, grid, progress=bar.update, **sizes
            )
        figures["seconds"] = clock.read()
    figures["windows"] = looked
    rows = score(boxes, sequences, grid, options.protocol, dataset.benchmark.name)
    _write(options, grid, rows, figures)
    best = " ".join(f"--set {name}={float(rows[0][name])!r}" for name in grid.names)
    numbers = "  ".join(f"{key} {rows[0][key]:.3f}" for key in METRICS if key in rows[0])
    print(f"best of {len(rows)}: {best}  {numbers}")
    return rows


def _write(
    options: Options, grid: Grid, rows: list[dict[str, float]], figures: dict[str, Any]
) -> None:
    """Write the table as csv and json, and the plot."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    title = f"{options.tracker} on {options.benchmark}: {len(rows)} settings"
    content = {
        "search.csv": text.getvalue().encode(),
        "search.json": json_text({**figures, "rows": rows}).encode(),
        "search.png": plot(rows, grid.names, title),
    }
    for name, data in content.items():
        write_whole(options.output / name, data)
    print(f"wrote {', '.join(str(options.output / name) for name in content)}")


def _run(options: Options) -> None:
    cli.use_compilation_cache()
    with precision.using(options.precision):
        search(options)


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.search", arguments)


if __name__ == "__main__":
    sys.exit(main())
