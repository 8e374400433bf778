"""Lower trackers and training updates for a GPU on a machine that has none, and count operations.

``python -m tests.lowering [PRESET ...]`` prints a table: seconds of processor time to trace and to lower,
operations.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxtrack import trackers
from jaxtrack.base import variable_shapes
from train import optim, presets
from train.step import AXIS, init_state, make_draw, make_update

FRAME = jax.ShapeDtypeStruct((480, 640, 3), jnp.uint8)
KEY = jax.random.key(0)
# What computes nothing: constants, the ends of functions, their heads.
STILL = {"stablehlo.constant", "stablehlo.return", "func.return", "func.func", "sdy.return"}

PRODUCTS = {"stablehlo.dot_general", "stablehlo.convolution"}


class Size(NamedTuple):
    """What lowering a program takes.

    Attributes:
        trace: seconds of processor time to trace it.
        lower: likewise to lower it.
        operations: of StableHLO that compute, or call a function.
        names: how often each occurs.
        groups: of each convolution.
        doubles: arrays of float64 that operations make.
        loose: products of float32 whose digits are left to the platform: on GPUs some three of them.
    """

    trace: float
    lower: float
    operations: int
    names: dict[str, int]
    groups: list[int]
    doubles: int
    loose: int


@contextlib.contextmanager
def drawing_by_kernels(platform: str) -> Iterator[None]:
    """Draw random numbers as `train.parallel.compile_update` has GPUs do it."""
    name = "jax_threefry_gpu_kernel_lowering"
    before = getattr(jax.config, name)
    jax.config.update(name, platform == "cuda")
    try:
        yield
    finally:
        jax.config.update(name, before)


def measure(function: Callable[..., Any], *arguments: Any, platform: str = "cuda") -> Size:
    """Trace and lower a function for a platform; nothing is compiled.

    Args:
        function: the program.
        arguments: arrays, or their shapes.
        platform: ``cuda``, ``cpu``, ``tpu``.
    """
    with drawing_by_kernels(platform):
        start = time.process_time()
        traced = jax.jit(function).trace(*arguments)
        middle = time.process_time()
        lowered = traced.lower(lowering_platforms=(platform,))
        end = time.process_time()
    names: dict[str, int] = {}
    groups: list[int] = []
    doubles = loose = 0

    def visit(operation: Any) -> None:
        for region in operation.regions:
            for block in region.blocks:
                for inner in block.operations:
                    name = inner.operation.name
                    names[name] = names.get(name, 0) + 1
                    look(inner.operation)
                    visit(inner.operation)

    def look(operation: Any) -> None:
        nonlocal doubles, loose
        if operation.name == "stablehlo.convolution":
            groups.append(int(operation.attributes["feature_group_count"]))
        doubles += sum("xf64>" in str(result.type) for result in operation.results)
        if operation.name in PRODUCTS and all("f32>" in str(x.type) for x in operation.operands):
            loose += "HIGH" not in str(operation.attributes["precision_config"])

    visit(lowered.compiler_ir("stablehlo").operation)
    count = sum(number for name, number in names.items() if name not in STILL)
    return Size(middle - start, end - middle, count, names, groups, doubles, loose)


BOX = jax.ShapeDtypeStruct((4,), jnp.float32)
FRAME_SIZE = jax.ShapeDtypeStruct((2,), jnp.int32)


def init(preset: str, platform: str = "cuda") -> Size:
    """Measure a tracker's ``init``."""
    tracker = trackers.get(preset)
    start = partial(tracker.init, tracker.config)
    return measure(start, variable_shapes(tracker), FRAME, BOX, FRAME_SIZE, platform=platform)


def frame(preset: str, slots: int = 0, platform: str = "cuda") -> Size:
    """Measure a tracker's ``track_frame``.

    Args:
        preset: the tracker.
        slots: videos side by side under `jax.vmap`; 0: one, without it.
        platform: see `measure`.
    """
    tracker = trackers.get(preset)
    variables = variable_shapes(tracker)

    start = partial(tracker.init, tracker.config)

    def track(variables: Any, state: Any, frame: Any) -> Any:
        return tracker.track_frame(tracker.config, variables, state, frame)

    state = jax.eval_shape(start, variables, FRAME, BOX, FRAME_SIZE)
    if not slots:
        return measure(track, variables, state, FRAME, platform=platform)
    many = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((slots, *leaf.shape), leaf.dtype), (state, FRAME)
    )
    return measure(jax.vmap(track, (None, 0, 0)), variables, *many, platform=platform)


def update(preset: str, platform: str = "cuda") -> Size:
    """Measure a training preset's update of one device, at its own batch."""
    made = presets.get(preset)
    task = made.task
    variables = jax.eval_shape(lambda key: task.init_variables(task.config, key), KEY)
    optimizer = optim.make(made.optim, variables["params"], made.steps, made.epochs)
    state = jax.eval_shape(lambda variables: init_state(variables, optimizer), variables)
    step = make_update(task, optimizer, made.steps, made.epochs)
    index = jax.ShapeDtypeStruct((made.batch_size,), jnp.int32)
    pairs = jax.eval_shape(make_draw(task), jnp.zeros((), jnp.int32), index, KEY, {})
    mesh = Mesh(np.asarray(jax.devices()[:1]), (AXIS,))
    whole, shared = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(whole, shared, whole), out_specs=whole, check_vma=False
    )
    return measure(mapped, state, {**pairs, "index": index}, KEY, platform=platform)


def draw(preset: str, platform: str = "cuda") -> Size:
    """Measure the drawing of a training preset's batch by the synthetic world, as a run draws it there."""
    made = presets.get(preset)
    index = jax.ShapeDtypeStruct((made.batch_size,), jnp.int32)
    drawn = make_draw(made.task, 1 if platform == "cpu" else 64)
    return measure(drawn, jnp.zeros((), jnp.int32), index, KEY, {}, platform=platform)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    kinds: list[tuple[str, Callable[[str], Size], list[str]]]
    kinds = [("frame", frame, trackers.names()), ("update", update, list(presets.all_presets()))]
    kinds.append(("draw", draw, list(presets.all_presets())))
    print("| program | preset | trace, s | lower, s | operations |\n|---|---|---|---|---|")
    for kind, function, names in kinds:
        for name in names:
            if not arguments or name in arguments:
                jax.clear_caches()
                size = function(name)
                print(
                    f"| {kind} | {name} | {size.trace:.1f} | {size.lower:.1f} | {size.operations} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
