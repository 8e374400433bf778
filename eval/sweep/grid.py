"""The settings of a hyper-parameter search, and tracking with all of them (see `eval.sweep.compiled`)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Any

import jax.numpy as jnp
import numpy as np

from eval.sweep import compiled as sweep
from eval.tracking import slots as runner
from eval.tracking.sequences import Sequence
from jaxtrack import cli, streaming
from jaxtrack.base import Tracker, Variables
from jaxtrack.io.prefetch import prefetch


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
            raise cli.UsageError(f"--set {text}: give FIELD=VALUE,VALUE,...")
        if name in axes:
            raise cli.UsageError(f"--set {name} is given twice; list its values in one")
        try:
            values = [float(word) for word in listed.split(",")]
        except ValueError:
            values = [math.nan]
        if not all(math.isfinite(value) for value in values):
            raise cli.UsageError(f"--set {text}: the values must be finite numbers")
        axes[name] = list(dict.fromkeys(values))
    if not axes:
        raise cli.UsageError("nothing to search: give --set FIELD=VALUE,VALUE,...")
    if random is None:
        return Grid(tuple(axes), np.array(list(itertools.product(*axes.values()))))
    if random < 1:
        raise cli.UsageError(f"--random {random}: give 1 or more")
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
        JaxtrackError: as `eval.tracking.slots.run`.
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
