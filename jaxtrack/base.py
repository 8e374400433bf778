"""The interface of every tracker: a value of four pure functions, and three jitted verbs.

Conventions, for the whole library:

* frames are uint8 RGB ``(height, width, 3)``;
* boxes are ``(x, y, w, h)``: 0-based top-left corner and size, in pixels, float32;
* a frame may be padded (below and to the right) to a larger canvas; ``frame_size`` carries the true
  ``(height, width)`` and rules the crop, so that padding is never seen;
* static = config, learned = variables, changing = state.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

Variables = Any
State = Any


class Prediction(NamedTuple):
    """What a tracker says of one frame.

    Attributes:
        box: ``(4,)`` float32, ``x, y, w, h`` in pixels, 0-based corner.
        score: ``()`` float32; its meaning and range are the tracker's (see its module docstring).
            A lost target shows as a low score; the tracker goes on from its last state.
    """

    box: Float[Array, "4"]
    score: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Tracker:
    """A tracker as a hashable value: equal when config and functions are equal. Not a pytree.

    Attributes:
        config: frozen dataclass of ints, floats, strings and tuples; never arrays.
        init_variables: ``(config, key) -> {"params": ..., "batch_stats": ...}``.
        init: ``(config, variables, frame, box, frame_size) -> State``.
        track_frame: ``(config, variables, state, frame) -> (State, Prediction)``.
    """

    config: Hashable
    init_variables: Callable[..., Variables]
    init: Callable[..., State]
    track_frame: Callable[..., tuple[State, Prediction]]


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """What the library knows of a family of trackers: the presets and the functions that they share.

    Attributes:
        name: as it is listed, ``siamfc`` and so on.
        presets: preset name to config.
        init_variables: see `Tracker`; likewise ``init`` and ``track_frame``.
        tables: name of a published code to the `jaxtrack.weights.NameTable` that leads from its names
            to ours; empty where no code was published.
    """

    name: str
    presets: Mapping[str, Hashable]
    init_variables: Callable[..., Variables]
    init: Callable[..., State]
    track_frame: Callable[..., tuple[State, Prediction]]
    tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def tracker(self, config: Hashable) -> Tracker:
        """Return the tracker of this family with a config, a preset's or one's own."""
        return Tracker(config, self.init_variables, self.init, self.track_frame)

    def owns(self, tracker: Tracker) -> bool:
        """Say whether a tracker, whatever its config, is made of this family's functions."""
        return tracker == self.tracker(tracker.config)


@functools.partial(jax.jit, static_argnums=0)
def init(
    tracker: Tracker,
    variables: Variables,
    frame: UInt8[Array, "h w 3"],
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"] | None = None,
) -> State:
    """Start tracking a target.

    Args:
        tracker: the tracker (static).
        variables: its learned values, ``{"params": ..., "batch_stats": ...}``.
        frame: uint8 RGB ``(h, w, 3)``.
        box: ``(4,)`` ``x, y, w, h`` of the target in pixels, 0-based corner.
        frame_size: ``(2,)`` int32 true ``(height, width)`` where the frame is padded to a larger
            canvas; None: the whole frame is picture.

    Returns:
        The state: a NamedTuple of arrays, to be handed to `track_frame` or `track_clip`.
    """
    if frame_size is None:
        frame_size = jnp.asarray(frame.shape[:2], jnp.int32)
    return tracker.init(tracker.config, variables, frame, jnp.asarray(box), frame_size)


@functools.partial(jax.jit, static_argnums=0)
def track_frame(
    tracker: Tracker, variables: Variables, state: State, frame: UInt8[Array, "h w 3"]
) -> tuple[State, Prediction]:
    """Find the target in the next frame.

    Args:
        tracker: the tracker (static).
        variables: its learned values.
        state: from `init` or the previous call.
        frame: uint8 RGB, of the same canvas as the first frame.

    Returns:
        The next state (same tree, shapes and dtypes) and the `Prediction`.
    """
    return tracker.track_frame(tracker.config, variables, state, frame)


@functools.partial(jax.jit, static_argnums=0)
def track_clip(
    tracker: Tracker, variables: Variables, state: State, frames: UInt8[Array, "t h w 3"]
) -> tuple[State, Prediction]:
    """Track through a chunk of frames in one compiled program (`jax.lax.scan` of `track_frame`).

    Args:
        tracker: the tracker (static).
        variables: its learned values.
        state: from `init` or the previous chunk; long videos are handed over chunk by chunk.
        frames: ``(t, h, w, 3)`` uint8 RGB.

    Returns:
        The state after the last frame, and a `Prediction` with a leading time axis.
    """

    def step(carry: State, frame: Array) -> tuple[State, Prediction]:
        return tracker.track_frame(tracker.config, variables, carry, frame)

    return jax.lax.scan(step, state, frames)
