"""The main job from nothing: ``python -m eval.demo --output demo`` (or ``make demo``).

Trains a small tracker on the synthetic world for a few minutes, tracks a clip and writes it as a video,
scores all shipped trackers, the one just trained, OpenCV's and a box that never moves on a part of the
synthetic benchmark, and writes the report.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from jaxtrack import cli, weights
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.io import paths

from .studies.training import python

# A part of the benchmark with most attributes: the demo stays under its eight minutes on two cores.
CLIPS = 10


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a tracker, track a clip, score all trackers and write the report, from nothing.

    Attributes:
        output: folder of everything made.
        steps: training steps.
        clips: clips of the benchmark.
        debug: show the traceback of an error.
    """

    output: Path = Path("demo")
    steps: Annotated[int, cli.Range(low=1)] = 120
    clips: Annotated[int, cli.Range(low=1)] = CLIPS
    debug: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _demo, "python -m eval.demo", arguments)


def _demo(options: Options) -> None:
    demo(paths.output_folder(options.output), options.steps, options.clips)


def demo(output: Path, steps: int, clips: int) -> None:
    """Train, track, score, report.

    Args:
        output: folder of everything made; an earlier demo in it is replaced.
        steps: training steps.
        clips: clips of the synthetic benchmark that are scored.

    Raises:
        UsageError: the benchmark has fewer clips.
        JaxtrackError: ``output`` is in use by something else, or a part failed.
    """
    started = time.perf_counter()
    names = _clip_names(clips)
    mark = output / ".jaxtrack-demo"
    if output.exists() and any(output.iterdir()) and not mark.exists():
        raise JaxtrackError(f"{output} is not empty and not an earlier demo: name another --output")
    output.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for made in ("trained-now", "synthetic"):
        shutil.rmtree(output / made, ignore_errors=True)

    _say(f"1. train siamfc-tiny on the synthetic world, {steps} steps")
    trained = output / "trained-now"
    training = cli.beside(__package__, "train.run")
    python("-m", training, "siamfc-tiny", "--steps", str(steps), "--output", str(trained))

    _say("2. track a clip with the shipped weights")
    video = output / "tracked.mp4"
    python("-m", "jaxtrack", "demo", "--output", str(video))

    _say("3. score all trackers and write the report")
    # The larger ones would take as long as all of these.
    shipped = [name for name in weights.shipped_names() if name.endswith("-tiny")]
    trackers = [*shipped, f"siamfc-tiny={trained / 'weights.safetensors'}"]
    python(
        *("-m", cli.beside(__package__, "eval.run"), "--benchmark", "synthetic"),
        *("--output", str(output)),
        *(word for name in trackers for word in ("--tracker", name)),
        *("--peer", "mil", "--peer", "static"),
        *(word for name in names for word in ("--sequence", name)),
    )
    minutes = (time.perf_counter() - started) / 60
    print(f"\nvideo:  {video}\nreport: {output / 'synthetic' / 'report-part.html'}")
    print(f"done in {minutes:.1f} minutes; shipped trackers: {', '.join(weights.shipped_names())}")


def _clip_names(count: int) -> list[str]:
    from jaxtrack.synthetic.world import BENCHMARK

    # Clips repeat their leading attribute every few entries; a coprime stride meets them all.
    total = len(BENCHMARK)
    if count > total:
        raise UsageError(f"--clips {count}: the benchmark has {total} clips")
    return [BENCHMARK[i * 9 % total].name for i in range(count)]


def _say(line: str) -> None:
    print(f"\n{line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
