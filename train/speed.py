"""How fast recipes train: ``python -m train.speed siamfc-got10k``; ``list`` names them.

Times whole updates (augmentation, network, gradient, optimiser) at the recipe's own batch on one device, with
a batch that lies there: drawing or decoding pairs is not counted. Prints a line of JSON for each recipe.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxtrack import cli
from jaxtrack.io.turns import Turns
from jaxtrack.ops import precision

from . import optim, parallel, presets
from .step import init_state, make_update, pair_keys


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure training steps.

    Attributes:
        preset: recipes to measure (``package.module:PRESET``: of your own), or `list`.
        seconds: measured time of each.
        batch_size: pairs of a step (default: the recipe's).
        turn: a file shared with other measuring processes: nothing is timed while one of them compiles.
        precision: digits of the network's products, as of `train.run`.
        debug: show the traceback of an error.
    """

    preset: Annotated[tuple[str, ...], cli.Positional]
    seconds: Annotated[float, cli.Range(low=0.1, high=3600)] = 5.0
    batch_size: Annotated[int | None, cli.Range(low=1)] = None
    turn: pathlib.Path | None = None
    precision: precision.Choice = "auto"
    debug: bool = False


def measure(
    name: str, seconds: float, turns: Turns, batch_size: int | None = None
) -> dict[str, Any]:
    """Measure one recipe.

    Args:
        name: of the recipe.
        seconds: how long its steps are timed.
        turns: with whom the device is shared.
        batch_size: pairs of a step; None: the recipe's.

    Returns:
        "batch", "ms_per_step", "pairs_per_second", "compile_seconds", "peak_gib" (of the device where it
        tells, else of the process), "quiet" (nothing was compiled beside it).
    """
    preset = presets.get(name)
    task, batch_size = preset.task, batch_size or preset.batch_size
    devices = parallel.local_devices(1)
    key = jax.random.key(0)
    places = jnp.arange(batch_size, dtype=jnp.int32)
    with turns.preparing():
        optimizer = optim.make(
            preset.optim, presets.shapes(task)["params"], preset.steps, preset.epochs
        )
        variables = jax.jit(lambda key: task.init_variables(task.config, key))(key)
        state = parallel.place(init_state(variables, optimizer), devices)
        draw = jax.jit(lambda key: task.sample(task.config, pair_keys(key, places)))
        batch = jax.block_until_ready({**draw(key), "index": places})
        update = make_update(task, optimizer, preset.steps, preset.epochs)
        update = parallel.compile_update(update, devices)
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(update(state, batch, key))
        compiled = time.perf_counter() - started
    times: list[float] = []
    with turns.measuring() as quiet:
        limit = time.perf_counter() + seconds
        while len(times) < 2 or (time.perf_counter() < limit and len(times) < 1000):
            started = time.perf_counter()
            state, metrics = jax.block_until_ready(update(state, batch, key))
            times.append(time.perf_counter() - started)
    # The first finds caches cold.
    step = statistics.median(times[1:])
    peak = (devices[0].memory_stats() or {}).get("peak_bytes_in_use")
    peak = peak or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "recipe": name,
        "batch": batch_size,
        "ms_per_step": 1e3 * step,
        "pairs_per_second": batch_size / step,
        "compile_seconds": compiled,
        "peak_gib": peak / 2**30,
        "quiet": quiet,
        "loss": float(metrics["loss"]),
    }


def _run(options: Options) -> None:
    cli.use_compilation_cache()
    if options.preset == ("list",):
        print("\n".join(presets.all_presets()))
        return
    for name in options.preset:
        presets.get(name)
    turns = Turns(options.turn)
    with precision.using(options.precision):
        for name in options.preset:
            print(json.dumps(measure(name, options.seconds, turns, options.batch_size)), flush=True)
    turns.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, f"python -m {__package__}.speed", arguments)


if __name__ == "__main__":
    sys.exit(main())
