r"""Hyper-parameter search, many settings in one compiled run.

    python -m eval.search --tracker siamrpnpp-tiny --set window_influence=0.2,0.3,0.4,0.5 \
        --set penalty_k=0.05,0.1,0.15,0.2 --set size_rate=0.2,0.3,0.4,0.5

tracks the benchmark with all 64 combinations side by side (see `eval.sweep`) and writes a table (csv, json)
and a plot. Each setting gets what `eval.run` gives with that config. ``--compare N`` also runs N of the
settings one by one, each its own program, and prints what both ways cost.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eval import benchmarks, runner, sweep
from eval.benchmarks import Sequence
from eval.metrics import evaluate_ope
from eval.search_plot import plot
from jaxtrack import command, get_tracker, load_weights, streaming
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.prefetch import prefetch
from jaxtrack.tracker import Tracker, Variables

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
    protocol: str | None = None
    output: Path = Path("search")
    chunk: int = streaming.CHUNK
    block: int | None = None
    compare: int = 0
    debug: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The settings to be tried.

    Attributes:
        names: (k,) fields of the config.
        values: float64 (s, k), a row for each setting.
    """

    names: tuple[str, ...]
    values: np.ndarray

    def config(self, config: Any, index: int) -> Any:
        """Return a config with one of the settings in it, as a preset would have it."""
        return dataclasses.replace(config, **dict(zip(self.names, self.values[index].tolist())))


def parse_grid(given: Items[str], random: int | None = None, seed: int = 0) -> Grid:
    """Read FIELD=VALUE,VALUE,... options.

    Args:
        given: the options.
        random: number of random settings between the smallest and the largest values; None: all combinations.
        seed: of the random settings.

    Returns:
        The settings.

    Raises:
        JaxtrackError: nothing given, another form, a value that is no finite number, a field given twice.
    """
    axes: dict[str, list[float]] = {}
    for text in given:
        name, equals, listed = text.partition("=")
        if not equals or not name or not listed:
            raise command.UsageError(f"--set {text}: give FIELD=VALUE,VALUE,...")
        if name in axes:
            raise command.UsageError(f"--set {name} is given twice; list its values in one")
        try:
            values = [float(word) for word in listed.split(",")]
        except ValueError:
            values = [math.nan]
        if not all(math.isfinite(value) for value in values):
            raise command.UsageError(f"--set {text}: the values must be finite numbers")
        axes[name] = list(dict.fromkeys(values))
    if not axes:
        raise command.UsageError("nothing to search: give --set FIELD=VALUE,VALUE,...")
    if random is None:
        return Grid(tuple(axes), np.array(list(itertools.product(*axes.values()))))
    if random < 1:
        raise command.UsageError(f"--random {random}: give 1 or more")
    low, high = (np.array([pick(v) for v in axes.values()]) for pick in (min, max))
    drawn = np.random.default_rng(seed).uniform(low, high, (random, len(axes)))
    return Grid(tuple(axes), drawn)


def track_sequences(
    tracker: Tracker,
    variables: Variables,
    sequences: Items[Sequence],
    grid: Grid,
    *,
    chunk: int = streaming.CHUNK,
    block: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[dict[str, np.ndarray], int]:
    """Track every sequence with every setting.

    Args:
        tracker: the tracker; the settings replace fields of its config.
        variables: its learned values.
        sequences: what is tracked.
        grid: the settings.
        chunk: frames per compiled call.
        block: settings that go through the network at once; None: what suits the platform.
        progress: called with the number of settings times frames done since the last call.

    Returns:
        Sequence -> float32 boxes ``(s, n, 4)``, x, y, w, h in pixels, 0-based, row 0 the given box; and how
        many search windows went through the network (without sharing: settings times frames times the
        windows of a frame).

    Raises:
        JaxtrackError: as `eval.runner.run`.
    """
    values = jnp.asarray(grid.values, jnp.float32)
    block = sweep.default_block() if block is None else block
    canvas, found, looked = runner.canvas_of(sequences), {}, 0
    for sequence in sequences:
        runner.check_first_box(sequence.name, sequence.boxes[0])
        frames = runner.checked_frames(sequence)
        first = next(frames)
        box = np.asarray(sequence.boxes[0], np.float32)
        size = jnp.asarray(first.shape[:2], jnp.int32)
        static = (tracker, grid.names, block, variables, values)
        states = sweep.init_settings(*static, streaming.pad_frame(first, canvas), box, size)
        parts, left = [np.tile(box, (1, len(values), 1))], sequence.length - 1
        for held in prefetch(runner.chunks_of(frames, chunk, canvas), 2):
            states, seen, runs = sweep.track_settings(*static, states, held)
            count = min(left, chunk)
            parts.append(np.asarray(seen.box)[:count])
            looked += int(np.asarray(runs)[:count].sum())
            left -= count
            if progress is not None:
                progress(count * len(values))
        found[sequence.name] = np.concatenate(parts).transpose(1, 0, 2)
    return found, looked


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


@dataclasses.dataclass
class Clock:
    """Wall and processor seconds (of all threads) since it was made."""

    wall: float = dataclasses.field(default_factory=time.perf_counter)
    cpu: float = dataclasses.field(default_factory=time.process_time)

    def read(self) -> dict[str, float]:
        """Return the seconds so far, "wall" and "cpu"."""
        return {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


def compare(
    tracker: Tracker,
    variables: Variables,
    sequences: Items[Sequence],
    grid: Grid,
    options: Options,
) -> dict[str, Any]:
    """Measure all settings in one run against settings one by one, with and without compilation.

    Args:
        tracker: the tracker.
        variables: its learned values.
        sequences: what is tracked.
        grid: the settings.
        options: ``compare`` settings, spread over the grid, are run by `eval.runner.run`, each with its own
            static config; their mean cost is taken for each of the others.

    Returns:
        Seconds ("wall" and "cpu") of the search and of all settings one by one, "cold" (with compilation, no
        cache) and "warm"; their ratios; the largest difference of boxes between both ways, pixels.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    chosen = np.unique(np.linspace(0, len(grid.values) - 1, options.compare).round().astype(int))
    figures: dict[str, Any] = {"settings": len(grid.values), "one_by_one": len(chosen)}
    costs: dict[str, list[dict[str, float]]] = {"search": [], "single": []}
    boxes: dict[str, np.ndarray] = {}
    for _ in ("cold", "warm"):
        clock = Clock()
        boxes, _ = track_sequences(
            tracker, variables, sequences, grid, chunk=options.chunk, block=options.block
        )
        costs["search"].append(clock.read())
    difference = 0.0
    for _ in ("cold", "warm"):
        clock = Clock()
        for index in chosen:
            changed = dataclasses.replace(tracker, config=grid.config(tracker.config, index))
            for name, track in runner.run(changed, variables, sequences, chunk=options.chunk):
                apart = np.abs(track.boxes - boxes[name][index]).max()
                difference = max(difference, float(apart))
        share = len(grid.values) / len(chosen)
        costs["single"].append({key: value * share for key, value in clock.read().items()})
    for k, kind in enumerate(("cold", "warm")):
        search, single = costs["search"][k], costs["single"][k]
        ratio = {key: search[key] / single[key] for key in search}
        figures[kind] = {"search": search, "one_by_one": single, "ratio": ratio}
    return {**figures, "largest_difference": difference}


def _print_costs(figures: dict[str, Any]) -> None:
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
    if options.chunk < 1 or (options.block is not None and options.block < 1):
        raise command.UsageError("--chunk and --block are at least 1")
    if not 0 <= options.compare <= len(grid.values):
        raise command.UsageError(
            f"--compare {options.compare}: 1 to {len(grid.values)}, the settings"
        )
    tracker = get_tracker(options.tracker)
    sweep.check_fields(tracker, options.tracker, grid.names)
    variables = load_weights(options.tracker, options.weights)
    sequences = benchmarks.load(options.benchmark, options.root, options.split, options.sequence)
    figures: dict[str, Any] = {
        "tracker": options.tracker,
        "benchmark": options.benchmark,
        "sequences": [s.name for s in sequences],
        "arguments": sys.argv[1:],
    }
    if options.compare:
        figures["cost"] = compare(tracker, variables, sequences, grid, options)
        _print_costs(figures["cost"])
    total, clock = len(grid.values) * sum(s.length - 1 for s in sequences), Clock()
    with tqdm(total=total, unit=" settings x frames", desc=options.tracker) as bar:
        boxes, looked = track_sequences(
            tracker,
            variables,
            sequences,
            grid,
            chunk=options.chunk,
            block=options.block,
            progress=bar.update,
        )
    figures["seconds"], figures["windows"] = clock.read(), looked
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


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    import tyro

    config = (tyro.conf.UseAppendAction, tyro.conf.FlagCreatePairsOff)
    options = tyro.cli(Options, args=arguments, prog="python -m eval.search", config=config)

    def run() -> None:
        command.use_compilation_cache()
        search(options)

    return command.run(run, options.debug)


if __name__ == "__main__":
    sys.exit(main())
