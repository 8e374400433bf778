"""A tracker ready to be timed: alone, through a clip, in slots, and taken apart."""

from __future__ import annotations

import functools
import statistics
import time
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

import jaxtrack
from jaxtrack import streaming

from ..tracking.entry import Entry
from .clock import BOX, FRAME_SIZE, clip, clock

_SLOT_FRAMES = 4  # frames of each slot in a call


class Measured:
    """A tracker with random values: they do not change the time.

    Attributes:
        label: its row.
        tracker: the tracker.
        variables: its values.
        images: ``(frames + 1, h, w, 3)`` the clip.
        state: after the first frame.
        first_init: seconds of the first start, compilation included.
        first_frame: seconds of the first tracked frame, likewise.
    """

    def __init__(self, entry: Entry, frames: int) -> None:
        """Compile what a live tracker needs; the times of that are kept.

        Args:
            entry: the tracker.
            frames: tracked frames of the clip.
        """
        self.label, self.tracker = entry.label, entry.tracker
        make = jax.jit(self.tracker.init_variables, static_argnums=0)
        self.variables = jax.block_until_ready(make(self.tracker.config, jax.random.key(0)))
        self.images = clip(frames + 1)
        self.box = np.asarray(BOX, np.float32)
        started = time.perf_counter()
        self.state = jax.block_until_ready(self._init())
        self.first_init = time.perf_counter() - started
        started = time.perf_counter()
        jax.block_until_ready(self._track(self.images[1]))
        self.first_frame = time.perf_counter() - started

    def _init(self) -> Any:
        return jaxtrack.init(self.tracker, self.variables, self.images[0], self.box)

    def _track(self, frame: np.ndarray) -> Any:
        return jaxtrack.track_frame(self.tracker, self.variables, self.state, frame)

    def frame_times(self) -> list[float]:
        """Return the seconds of each frame, one call and one wait a frame, as in live use."""
        return [clock(functools.partial(self._track, f), 1)[0] for f in self.images[1:]]

    def init_time(self) -> float:
        """Return the seconds of starting on a target, compiled."""
        return clock(self._init, 1)[0]

    def clip_call(self) -> Any:
        """Return a function that tracks the whole clip in one program."""
        frames = jax.device_put(self.images[1:])
        track = jaxtrack.track_clip
        return functools.partial(track, self.tracker, self.variables, self.state, frames)

    def slots_call(self, count: int) -> Any:
        """Return a function that tracks a few frames of so many videos, which lie on the device."""
        states = jax.tree.map(lambda leaf: jnp.stack([leaf] * count), self.state)
        one = jax.device_put(clip(_SLOT_FRAMES))
        frames = jnp.stack([one] * count)
        return functools.partial(
            streaming.track_slots, self.tracker, self.variables, states, frames
        )

    def clip_time(self) -> float:
        """Return the seconds a frame of a whole clip in one program."""
        run = self.clip_call()
        jax.block_until_ready(run())
        return min(clock(run, 2)) / (len(self.images) - 1)

    def slots_time(self, count: int) -> float:
        """Return the seconds a frame of one video, of ``count`` videos side by side."""
        run = self.slots_call(count)
        jax.block_until_ready(run())
        return min(clock(run, 3)) / (_SLOT_FRAMES * count)

    def targets_time(self, count: int) -> float:
        """Return the seconds a frame for ``count`` targets of one video at once."""
        boxes = self.box[None] + 4 * jnp.arange(count)[:, None] * jnp.asarray([1.0, 1, 0, 0])[None]
        size = jnp.asarray(FRAME_SIZE, jnp.int32)
        start = streaming.init_targets
        states = start(self.tracker, self.variables, self.images[0], boxes, size)

        def run() -> Any:
            track = streaming.track_targets
            return track(self.tracker, self.variables, states, self.images[1:3])

        jax.block_until_ready(run())
        return min(clock(run, 3)) / 2

    def parts(self, rounds: int = 10) -> dict[str, float]:
        """Return the milliseconds of decoding a frame, and of each step of the tracker.

        Args:
            rounds: how often each is measured.

        Returns:
            "decode", and "cut", "embed", "respond", "decide", "update" where the tracker can be taken apart.
            Each is a program of its own: what the whole fuses counts twice, so their sum is an upper bound.
        """
        done, data = cv2.imencode(".jpg", self.images[0])
        assert done
        decode = clock(lambda: cv2.imdecode(data, cv2.IMREAD_COLOR), 2 * rounds)
        found = {"decode": 1e3 * statistics.median(decode)}
        steps = self.tracker.steps
        if steps is None:
            return found
        variables, state, frame = self.variables, self.state, jax.device_put(self.images[1])

        def timed(name: str, step: Any, *given: Any) -> Any:
            run = functools.partial(jax.jit(step, static_argnums=0), self.tracker.config, *given)
            result = jax.block_until_ready(run())
            found[name] = 1e3 * statistics.median(clock(run, rounds))
            return result

        look = timed("cut", steps.cut, state, frame)
        features = timed("embed", steps.embed, variables, state, look)
        maps = timed("respond", steps.respond, variables, state, features)
        decision = timed("decide", steps.decide, variables, state, look, maps)
        timed("update", steps.update, variables, state, frame, decision)
        return found
