"""What correlation and fusion cost in a region proposal head: ``python -m eval.studies.rpn``.

Part one: parameters, operations and time of a full-size head with depth-wise, up-channel and plain
correlation. Part two: the tiny network with one, two and three fused levels; with ``--train`` each is also
trained for as many steps on the synthetic world and measured on fresh pairs.

Reference:
    SiamRPN++, section 3.4 and table 3 (ablation), figure 4.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxtrack
from jaxtrack import cli
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.heads import level_head
from jaxtrack.weights import shipped_path

from . import pairs, results
from .training import Training

FUSION = {1: "siamrpnpp-tiny-1level", 2: "siamrpnpp-tiny-2levels", 3: "siamrpnpp-tiny"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare heads.

    Attributes:
        width: channels of the head in part one.
        rounds: timed rounds, the kinds taking turns.
        train: training steps of each network of part two; 0: cost only.
        pairs: fresh pairs to measure on.
        runs: folder of the trainings; finished ones are used again.
        output: folder of the figure and the numbers.
        debug: show the traceback of errors.
    """

    width: Annotated[int, cli.Range(low=1, high=4096)] = 256
    rounds: Annotated[int, cli.Range(low=1)] = 15
    train: Annotated[int, cli.Range(low=0)] = 0
    pairs: Annotated[int, cli.Range(low=1, high=100_000)] = 256
    runs: Path = Path("runs/rpn_ablation")
    output: Path = Path("results/rpn_ablation")
    debug: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        name: what was measured.
        parameters: values that are learned.
        gflops: operations of one frame (10**9), by the compiler's own count.
        milliseconds: median of one frame.
        overlap: mean overlap on fresh pairs; None where nothing was trained.
    """

    name: str
    parameters: int
    gflops: float
    milliseconds: float
    overlap: float | None = None


def count(tree: Any) -> int:
    """Count the values in a tree of arrays."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def flops(compiled: Any) -> float:
    """Return the compiler's count of operations, in 10**9; not a number where it keeps none."""
    analysis = compiled.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return float((analysis or {}).get("flops", float("nan"))) / 1e9


def take_turns(runs: dict[str, Any], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of several calls, measured in turn so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        jax.block_until_ready(run())
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def correlation_rows(width: int, rounds: int) -> list[Row]:
    """Measure full-size heads (7x7 template, 31x31 search features, 5 anchors), kernels made once."""
    rng = np.random.RandomState(0)
    template = jnp.asarray(rng.randn(1, 7, 7, width), jnp.float32)
    search = jnp.asarray(rng.randn(1, 31, 31, width), jnp.float32)
    calls, sizes, cost = {}, {}, {}
    for kind in ("depthwise", "up", "plain"):
        head = level_head(kind, width, 5)  # type: ignore[arg-type]

        def both(module: Any, z: Any, x: Any) -> Any:
            return module.predict(module.kernels(z), x)

        def init(key: Any, head: Any = head, both: Any = both) -> Any:
            return head.init(key, template, search, method=both)

        variables = jax.jit(init)(jax.random.key(0))
        kernels = jax.jit(lambda v, z, head=head: head.apply(v, z, method="kernels"))(
            variables, template
        )
        predict = jax.jit(lambda v, k, x, head=head: head.apply(v, k, x, method="predict"))
        compiled = predict.lower(variables, kernels, search).compile()
        calls[kind] = lambda run=compiled, v=variables, k=kernels: run(v, k, search)
        sizes[kind], cost[kind] = count(variables["params"]), flops(compiled)
    times = take_turns(calls, rounds)
    return [Row(kind, sizes[kind], cost[kind], times[kind]) for kind in calls]


def trainings_of(options: Options) -> dict[int, Training]:
    """Return the trainings that are asked for, by the number of levels.

    Raises:
        JaxtrackError: the folder of one of them holds a training of something else.
    """
    if not options.train:
        return {}
    start = shipped_path("siamfc-tiny")
    found = {}
    for levels, preset in FUSION.items():
        folder = options.runs / f"{preset}-{options.train}steps"
        found[levels] = Training(preset, folder, options.train, init_from=start)
        found[levels].check()
    return found


def fusion_rows(options: Options) -> list[Row]:
    """Measure the tiny network with one, two and three levels."""
    size = siamrpn.PRESETS["siamrpnpp-tiny"].instance_size
    rng = np.random.RandomState(0)
    crop = jnp.asarray(rng.randint(0, 256, (1, size, size, 3)), jnp.uint8)
    exemplar = jnp.asarray(rng.randint(0, 256, (127, 127, 3)), jnp.uint8)
    calls, sizes, cost, overlaps = {}, {}, {}, {}
    trainings = trainings_of(options)
    fresh = pairs.draw_pairs(options.pairs, size, 48.0) if options.train else None
    for levels, preset in FUSION.items():
        tracker = jaxtrack.get_tracker(preset)
        config: Any = tracker.config
        if fresh is not None:
            variables = jaxtrack.load_weights(tracker, trainings[levels].weights())
            answers = pairs.answer(config, variables, fresh)
            overlaps[levels] = float(pairs.overlap(answers, fresh).mean())
        else:
            variables = jax.jit(tracker.init_variables, static_argnums=0)(config, jax.random.key(0))

        def kernels_of(variables: Any, config: Any = config) -> Any:
            features = siamrpn.features_of(config, variables, exemplar[None])
            return siamrpn.apply(config, variables, features, method="kernels")

        def predict(variables: Any, kernels: Any, config: Any = config) -> Any:
            features = siamrpn.features_of(config, variables, crop)
            return siamrpn.apply(config, variables, kernels, features, method="predict")

        kernels = jax.jit(kernels_of)(variables)
        compiled = jax.jit(predict).lower(variables, kernels).compile()
        calls[str(levels)] = lambda run=compiled, v=variables, k=kernels: run(v, k)
        sizes[levels], cost[levels] = count(variables["params"]), flops(compiled)
    times = take_turns(calls, options.rounds)
    return [Row(f"{n} level(s)", sizes[n], cost[n], times[str(n)], overlaps.get(n)) for n in FUSION]


def table(rows: list[Row]) -> str:
    """Return rows as text."""
    lines = ["                 parameters     GFLOP   ms/frame   overlap"]
    for row in rows:
        score = "      -" if row.overlap is None else f"{row.overlap:7.3f}"
        lines.append(
            f"{row.name:14s} {row.parameters:12,d} {row.gflops:9.3f} {row.milliseconds:10.2f}   {score}"
        )
    return "\n".join(lines)


def draw(correlation: list[Row], fusion: list[Row]) -> Any:
    """Draw bars of parameters and time; a matplotlib figure."""
    import matplotlib.pyplot as plt

    trained = any(row.overlap is not None for row in fusion)
    panels: list[tuple[str, list[Row], str]] = [
        ("parameters", correlation, "parameters"),
        ("ms per frame", correlation, "milliseconds"),
        ("ms per frame", fusion, "milliseconds"),
    ]
    if trained:
        panels.append(("overlap on fresh pairs", fusion, "overlap"))
    figure, axes = plt.subplots(1, len(panels), figsize=(3 * len(panels), 3), squeeze=False)
    for axis, (title, rows, field) in zip(axes[0], panels):
        axis.bar([row.name for row in rows], [getattr(row, field) or 0 for row in rows])
        axis.set_title(title, fontsize=9)
        if field == "parameters":
            axis.set_yscale("log")
        axis.tick_params(labelsize=7, which="both")
    figure.tight_layout()
    return figure


def _run(options: Options) -> None:
    folder = results.begin(options.output, options.runs)
    trainings_of(options)  # a folder in use is told before anything is measured
    correlation = correlation_rows(options.width, options.rounds)
    print(table(correlation), flush=True)
    fusion = fusion_rows(options)
    print(table(fusion))
    text = f"{table(correlation)}\n\n{table(fusion)}"
    results.write(folder, "rpn_ablation", [*correlation, *fusion], text, draw(correlation, fusion))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.rpn", arguments)


if __name__ == "__main__":
    sys.exit(main())
