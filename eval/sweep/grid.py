"""The settings of a hyper-parameter search, and tracking with all of them (see `eval.sweep.compiled`)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack import streaming
from jaxtrack.base import State, Tracker, Variables
from jaxtrack.errors import UsageError, brief

from ..tracking import slots
from ..tracking.sequences import Frame, Sequence
from . import compiled

_MOST_SETTINGS = 100_000


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

    def check(self, tracker: Tracker) -> None:
        """Refuse values that the tracker's config does not take; the outermost of each field are tried.

        Raises:
            UsageError: names the field, its value and what it may be.
        """
        outermost = {
            int(pick(column)) for column in self.values.T for pick in (np.argmin, np.argmax)
        }
        for index in sorted(outermost):
            tracker.replace(**dict(zip(self.names, self.values[index].tolist())))


def parse_grid(given: Items[str], random: int | None = None, seed: int = 0) -> Grid:
    """Read FIELD=VALUE,VALUE,... options.

    Args:
        given: the options.
        random: number of random settings between the smallest and the largest values; None: all combinations.
        seed: of the random settings.

    Returns:
        The settings.

    Raises:
        UsageError: nothing given, another form, a value that is no finite number, a field given twice, too
            many settings.
    """
    axes: dict[str, list[float]] = {}
    for text in given:
        name, equals, listed = text.partition("=")
        if not equals or not name or not listed:
            raise UsageError(f"--set {brief(text)}: give FIELD=VALUE,VALUE,...")
        if name in axes:
            raise UsageError(f"--set {brief(name)} is given twice; list its values in one")
        try:
            values = [float(word) for word in listed.split(",")]
        except ValueError:
            values = [math.nan]
        if not all(math.isfinite(value) for value in values):
            raise UsageError(f"--set {brief(text)}: the values must be finite numbers")
        axes[name] = list(dict.fromkeys(values))
    if not axes:
        raise UsageError("nothing to search: give --set FIELD=VALUE,VALUE,...")
    total = math.prod(map(len, axes.values())) if random is None else random
    if total > _MOST_SETTINGS:
        raise UsageError(f"{total} settings; at most {_MOST_SETTINGS} can be searched at once")
    if random is None:
        return Grid(tuple(axes), np.array(list(itertools.product(*axes.values()))))
    if random < 1:
        raise UsageError(f"--random {random}: give 1 or more")
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
        BrokenSequencesError: as `eval.tracking.slots.run`.
    """

    def lanes(canvas: tuple[int, int], _: int) -> SettingLanes:
        return SettingLanes(tracker, variables, grid, canvas, chunk, block)

    def count(frames: int) -> None:
        if progress is not None:
            progress(frames * len(grid.values))

    found, looked = {}, 0
    for job in slots.schedule([slots.OnePass(s) for s in sequences], lanes, progress=count):
        sequence = job.sequence
        boxes = np.tile(np.asarray(sequence.boxes[:1], np.float32)[:, None], (len(grid.values), 1))
        if sequence.length > 1:
            seen: Seen = job.whole()
            boxes = np.concatenate([boxes, seen.boxes])
            looked += int(seen.windows.sum())
        found[sequence.name] = boxes.transpose(1, 0, 2)
    return found, looked


class Seen(NamedTuple):
    """What all settings made of some frames.

    Attributes:
        boxes: ``(..., t, s, 4)`` x, y, w, h in pixels, 0-based corner, of each setting.
        windows: ``(..., t)`` search windows that went through the network.
    """

    boxes: Any
    windows: Any


class SettingLanes:
    """One target with every setting side by side; see `eval.tracking.slots.Lanes`.

    Attributes:
        count: 1: the settings share the frames of one sequence.
        chunk: frames per step.
        canvas: ``(height, width)`` of all frames.
    """

    def __init__(
        self,
        tracker: Tracker,
        variables: Variables,
        grid: Grid,
        canvas: tuple[int, int],
        chunk: int,
        block: int | None = None,
    ) -> None:
        """Prepare without tracking anything yet.

        Args:
            tracker: the tracker; the settings replace fields of its config.
            variables: its learned values.
            grid: the settings.
            canvas: ``(height, width)`` to which frames are padded.
            chunk: frames per step.
            block: settings that go through the network at once; None: what suits the platform.
        """
        self.count, self.chunk, self.canvas = 1, chunk, canvas
        block = compiled.default_block() if block is None else block
        values = jnp.asarray(grid.values, jnp.float32)
        self._fixed = (tracker, grid.names, block, variables, values)
        self._states: State = None

    def start(self, where: int, frame: Frame, box: np.ndarray) -> None:
        """Start every setting on a target."""
        size = jnp.asarray(frame.shape[:2], jnp.int32)
        padded = streaming.pad_frame(frame, self.canvas)
        self._states = compiled.init_settings(*self._fixed, padded, box, size)

    def step(self, frames: np.ndarray) -> Seen:
        """Send off one chunk, ``(1, chunk, H, W, 3)``."""
        self._states, seen, windows = compiled.track_settings(
            *self._fixed, self._states, jax.device_put(frames)[0]
        )
        return Seen(seen.box[None], windows[None])
