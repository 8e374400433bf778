"""Where the time goes: ``python -m eval.speed --tracker siamfc``.

Frames per second live, through a clip and in slots; decoding and each step of a tracker apart; time to
compile and to the first box; the device named. Peers are measured in the same run, turn by turn:
``--peer COMMAND`` runs a program of yours that prints a line ``ms_per_frame NUMBER``. Timings are medians
(and minima) over rounds; run them on a quiet machine. Besides:

``--suite --minutes 8 --output FILE`` measures everything that is worth knowing of a card, within the time;
``--benchmark`` the whole way from JPEG files to boxes; ``--data FOLDER`` the input pipeline of trainings;
``--ops`` the formulations of the convolution and of the depth-wise correlation.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from jaxtrack import cli
from jaxtrack.errors import UsageError
from jaxtrack.io import paths
from jaxtrack.io.records import write_json
from jaxtrack.io.turns import Turns
from jaxtrack.ops import precision

from .timing import ops
from .timing.clock import describe_device
from .timing.peers import peer_time, words_of
from .timing.suite import Suite, table
from .timing.throughput import Load
from .timing.throughput import measure as measure_throughput
from .timing.tracker import Measured
from .tracking.entry import parse_entries


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure trackers, the way of a benchmark, the input pipeline, or a whole card.

    Attributes:
        tracker: presets to measure, or package.module:TRACKER; their values are random, which does not
            change the time.
        set: settings of the trackers, PATH=VALUE, or ROW:PATH=VALUE for one of them.
        peer: commands to measure in the same rounds; each prints a line "ms_per_frame NUMBER".
        rounds: how often each is measured, turn by turn.
        frames: tracked frames in each measurement.
        targets: targets tracked at once under vmap, besides the single one; 0: none.
        slots: videos side by side; 0: none (--benchmark: 64).
        brief: do not take the trackers apart.
        turn: a file shared with other measuring processes: nothing is timed while one of them compiles.
        ops: time the formulations of convolution and depth-wise correlation instead.
        benchmark: time decoding alone, tracking alone and both, on JPEG files of 1280x720 made on the spot.
        data: time building data sets and drawing pairs from them, in this folder.
        videos: of --benchmark and --data, how many are made.
        length: of --benchmark and --data, frames of each.
        workers: of --data, numbers of worker processes to try.
        suite: measure everything, within --minutes; needs --output.
        minutes: of --suite.
        presets: of --suite, only presets and recipes whose name holds one of these words, such as tiny.
        precision: digits of the networks' products: highest (float32), high (TF32 on GPUs) or bfloat16;
            auto: highest on a CPU, high on accelerators.
        output: write the figures as json.
        debug: show the traceback of errors.
    """

    tracker: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    peer: Annotated[tuple[str, ...], cli.Each] = ()
    rounds: Annotated[int, cli.Range(low=1, high=10_000)] = 5
    frames: Annotated[int, cli.Range(low=1, high=1000)] = 10
    targets: Annotated[int, cli.Range(low=0, high=4096)] = 0
    slots: Annotated[int, cli.Range(low=0, high=4096)] = 0
    brief: bool = False
    turn: Path | None = None
    ops: bool = False
    benchmark: bool = False
    data: Path | None = None
    videos: Annotated[int, cli.Range(low=1, high=10_000)] = 64
    length: Annotated[int, cli.Range(low=2, high=10_000)] = 64
    workers: Annotated[tuple[int, ...], cli.Range(low=0, high=256)] = (0, 1, 2)
    suite: bool = False
    minutes: Annotated[float, cli.Range(low=0.5, high=600)] = 8.0
    presets: tuple[str, ...] = ()
    precision: precision.Choice = "auto"
    output: Path | None = None
    debug: bool = False


def measure(options: Options) -> dict[str, Any]:
    """Measure all trackers and peers turn by turn.

    Returns:
        Figures by tracker and peer; milliseconds unless the key says otherwise.
    """
    turns = Turns(options.turn)
    entries = parse_entries(options.tracker, options.set)
    with turns.preparing():
        ready = [Measured(entry, options.frames) for entry in entries]
        for measured in ready:
            measured.clip_call()()
            if options.slots:
                measured.slots_call(options.slots)()
    frames: dict[str, list[float]] = {m.label: [] for m in ready}
    inits: dict[str, list[float]] = {m.label: [] for m in ready}
    peers: dict[str, list[float]] = {line: [] for line in options.peer}
    with turns.measuring() as quiet:
        for _ in range(options.rounds):
            for measured in ready:
                frames[measured.label] += measured.frame_times()
                inits[measured.label].append(measured.init_time())
            for line in options.peer:
                peers[line].append(peer_time(line))
        figures: dict[str, Any] = {"device": describe_device()}
        for measured in ready:
            times = frames[measured.label]
            row: dict[str, Any] = {
                "ms_per_frame": 1e3 * statistics.median(times),
                "ms_per_frame_min": 1e3 * min(times),
                "ms_per_frame_in_clip": 1e3 * measured.clip_time(),
                "ms_init": 1e3 * statistics.median(inits[measured.label]),
                "compile_init_s": measured.first_init,
                "compile_frame_s": measured.first_frame,
                "quiet": quiet,
            }
            if options.targets:
                seconds = measured.targets_time(options.targets)
                row[f"ms_per_frame_{options.targets}_targets"] = 1e3 * seconds
            if options.slots:
                rate = 1 / measured.slots_time(options.slots)
                row[f"frames_per_second_{options.slots}_slots"] = rate
            if not options.brief:
                row["parts_ms"] = measured.parts()
            figures[measured.label] = row
    for line, values in peers.items():
        figures[line] = {"ms_per_frame": statistics.median(values), "ms_per_frame_min": min(values)}
    turns.close()
    return figures


def benchmark(options: Options) -> dict[str, Any]:
    """Measure decoding, tracking and both, for each tracker."""
    load = Load(options.videos, options.length, options.slots or 64)
    figures: dict[str, Any] = {"device": describe_device()}
    for entry in parse_entries(options.tracker, options.set):
        figures[entry.label] = found = measure_throughput(entry, load)
        print(
            f"{entry.label}: decode {found['decode']:.1f}, tracking {found['tracking']:.1f}, end to end "
            f"{found['end_to_end']:.1f} frames/s: {100 * found['share']:.0f} % of the slower",
            flush=True,
        )
    return figures


def _print(figures: dict[str, Any]) -> None:
    print(figures["device"])
    for name, values in figures.items():
        if isinstance(values, dict):
            parts = values.get("parts_ms", {})
            flat = {k: v for k, v in values.items() if k not in ("parts_ms", "quiet")}
            text = "  ".join(f"{key} {value:.2f}" for key, value in flat.items())
            beside = "" if values.get("quiet", True) else " (beside compilations of others)"
            print(f"{name}{beside}\n    {text}")
            if parts:
                print("    " + "  ".join(f"{key} {value:.2f} ms" for key, value in parts.items()))


def _run(options: Options) -> None:
    kinds = {
        "--suite": options.suite,
        "--benchmark": options.benchmark,
        "--data": options.data is not None,
        "--ops": options.ops,
    }
    asked = [name for name, given in kinds.items() if given]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)}: give one of them")
    if not options.tracker and asked in ([], ["--benchmark"]):
        raise UsageError(
            "nothing to measure: name a --tracker, or use --suite, --benchmark, --data or --ops"
        )
    for line in options.peer:
        words_of(line)
    if options.output is not None and options.data is not None:
        raise UsageError("--output: the figures of --data are printed only")
    output = None if options.output is None else paths.output_file(options.output)
    if options.suite:  # its processes measure; this one leaves the device alone, and its memory
        if output is None:
            raise UsageError("--suite needs --output FILE, where the figures are written")
        suite = Suite(options.minutes, output, options.presets, options.precision)
        print(table(suite.run(options.peer)))
        return
    with precision.using(options.precision):
        _measure_here(options, output)


def _measure_here(options: Options, output: Path | None) -> None:
    cli.use_compilation_cache()
    if options.data is not None:
        from .timing import data

        folder = paths.output_folder(options.data)
        data.run(data.Pipeline(folder, options.videos, options.length, workers=options.workers))
        return
    if options.benchmark:
        figures = benchmark(options)
    else:
        figures = ops.measure_ops(options.rounds) if options.ops else measure(options)
        _print(figures)
    if output is not None:
        write_json(output, figures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.speed", arguments)


if __name__ == "__main__":
    sys.exit(main())
