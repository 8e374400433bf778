"""What a hyper-parameter search costs, against its settings one by one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence as Items
from typing import Any

import jax
import numpy as np

from jaxtrack import streaming
from jaxtrack.base import Tracker, Variables

from ..tracking import slots as runner
from ..tracking.sequences import Sequence
from .grid import Grid, track_sequences


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
    cache = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    chosen = np.unique(np.linspace(0, len(grid.values) - 1, count).round().astype(int))
    figures: dict[str, Any] = {"settings": len(grid.values), "one_by_one": len(chosen)}
    costs: dict[str, list[dict[str, float]]] = {"search": [], "single": []}
    boxes: dict[str, np.ndarray] = {}
    looked = 0
    for _ in ("cold", "warm"):
        clock = Clock()
        boxes, looked = track_sequences(
            tracker, variables, sequences, grid, chunk=chunk, block=block
        )
        costs["search"].append(clock.read())
    difference = 0.0
    for _ in ("cold", "warm"):
        clock = Clock()
        for index in chosen:
            changed = dataclasses.replace(tracker, config=grid.config(tracker.config, index))
            for name, track in runner.run(changed, variables, sequences, chunk=chunk):
                apart = np.abs(track.boxes - boxes[name][index]).max()
                difference = max(difference, float(apart))
        share = len(grid.values) / len(chosen)
        costs["single"].append({key: value * share for key, value in clock.read().items()})
    for k, kind in enumerate(("cold", "warm")):
        search, single = costs["search"][k], costs["single"][k]
        ratio = {key: search[key] / single[key] for key in search}
        figures[kind] = {"search": search, "one_by_one": single, "ratio": ratio}
    jax.config.update("jax_enable_compilation_cache", cache)
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
