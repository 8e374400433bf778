"""Runs trackers over benchmarks: many videos at once in slots, one compiled step.

Each slot holds one video. A chunk of frames of every slot goes through one vmapped, jitted program; when a
video ends, its slot takes the next one. Frames are decoded ahead in a thread for each slot. Slots can be
spread over several devices. The results are those of one video after the other (a test compares them).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eval.tracking.sequences import Frame, Sequence
from jaxtrack import base as verbs
from jaxtrack import cli, streaming
from jaxtrack.base import Prediction, State, Tracker, Variables
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.prefetch import prefetch


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """What a tracker made of one sequence.

    Attributes:
        boxes: float32 ``(n, 4)`` x, y, w, h in pixels, 0-based corner; row 0 is the given box.
        scores: float32 ``(n,)``; NaN on the first frame, where nothing was predicted.
        seconds: wall time of the sequence; in a batched run its share by frames of the whole run.
    """

    boxes: np.ndarray
    scores: np.ndarray
    seconds: float


@dataclasses.dataclass
class _Slot:
    """A video under way."""

    sequence: Sequence
    chunks: Iterator[np.ndarray]
    boxes: list[np.ndarray]
    scores: list[np.ndarray]
    left: int


def run(
    tracker: Tracker,
    variables: Variables,
    sequences: Items[Sequence],
    *,
    slots: int = 1,
    chunk: int = streaming.CHUNK,
    devices: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, Track]]:
    """Track the target of every sequence, several sequences at a time.

    Args:
        tracker: the tracker.
        variables: its learned values.
        sequences: what is tracked; frames of one sequence have one size, sequences may differ.
        slots: videos side by side, on all devices together (at least one on each).
        chunk: frames per compiled call.
        devices: devices that share the slots.
        progress: called with the number of frames done since the last call.

    Yields:
        Name and `Track` of each sequence, as they end.

    Raises:
        JaxtrackError: a sequence whose first box is unusable, a frame that cannot be read (the
            sequence is named), or fewer devices than asked for.
    """
    for sequence in sequences:
        check_first_box(sequence.name, sequence.boxes[0])
    if not sequences:
        return
    # The longest first: no slot is left alone with a long video at the end.
    waiting = collections.deque(sorted(sequences, key=lambda s: -s.length))
    lanes = Lanes(
        tracker, variables, canvas_of(sequences), min(slots, len(waiting)), chunk, devices
    )
    held: list[_Slot | None] = [None] * lanes.count
    started, done = time.perf_counter(), 0
    while waiting or any(held):
        for where, slot in enumerate(held):
            if slot is None and waiting:
                held[where] = _start(lanes, where, waiting.popleft())
        boxes, scores = lanes.step([next(s.chunks, None) if s is not None else None for s in held])
        for where, slot in enumerate(held):
            if slot is None:
                continue
            count = min(slot.left, chunk)
            slot.boxes.append(boxes[where, :count])
            slot.scores.append(scores[where, :count])
            slot.left -= count
            # The last frames were counted but not read: a longer folder is not an error here.
            finished = slot.left == 0
            done += count + finished
            if progress is not None:
                progress(count + finished)
            if finished:
                held[where] = None
                rate = (time.perf_counter() - started) / max(done, 1)
                whole = np.concatenate(slot.boxes)
                track = Track(whole, np.concatenate(slot.scores), rate * len(whole))
                yield slot.sequence.name, track


def _start(lanes: Lanes, where: int, sequence: Sequence) -> _Slot:
    """Put a video into a slot."""
    frames = checked_frames(sequence)
    box = np.asarray(sequence.boxes[0], np.float32)
    lanes.start(where, next(frames), box)
    chunks = prefetch(chunks_of(frames, lanes.chunk, lanes.canvas), 2)
    score = np.full(1, np.nan, np.float32)
    return _Slot(sequence, chunks, [box[None]], [score], sequence.length - 1)


class Lanes:
    """States of targets side by side, on one device or spread over several.

    Attributes:
        count: targets side by side: as many as asked for, and on several devices as many on each.
        chunk: frames per step.
        canvas: ``(height, width)`` of all frames.
    """

    def __init__(
        self,
        tracker: Tracker,
        variables: Variables,
        canvas: tuple[int, int],
        slots: int,
        chunk: int,
        devices: int = 1,
    ) -> None:
        """Prepare without tracking anything yet.

        Args:
            tracker: the tracker.
            variables: its learned values.
            canvas: ``(height, width)`` to which frames are padded.
            slots: targets side by side.
            chunk: frames per step.
            devices: devices that share them.

        Raises:
            JaxtrackError: numbers below 1, or fewer devices than asked for.
        """
        if slots < 1 or chunk < 1:
            raise JaxtrackError(f"slots and chunk are at least 1, not {slots} and {chunk}")
        self.tracker, self.variables = tracker, variables
        self.canvas, self.chunk = canvas, chunk
        self.mesh = mesh_of(devices)
        self.count = -(-slots // devices) * devices
        self._states: State = None
        if self.mesh is not None:
            everywhere = NamedSharding(self.mesh, PartitionSpec())
            self.variables = jax.device_put(variables, everywhere)

    def start(self, where: int, frame: Frame, box: np.ndarray) -> None:
        """Start on a target.

        Args:
            where: index of the lane.
            frame: uint8 RGB ``(h, w, 3)``, not larger than the canvas.
            box: ``(4,)`` x, y, w, h in pixels, 0-based corner.
        """
        state = verbs.init(
            self.tracker,
            self.variables,
            streaming.pad_frame(frame, self.canvas),
            np.asarray(box, np.float32),
            np.asarray(frame.shape[:2], np.int32),
        )
        if self._states is not None:
            self._states = streaming.exchange_slot(self._states, np.asarray(where), state)
            return
        self._states = jax.tree.map(lambda leaf: jnp.stack([leaf] * self.count), state)
        if self.mesh is not None:
            spread = NamedSharding(self.mesh, PartitionSpec("slot"))
            self._states = jax.device_put(self._states, spread)

    def step(self, chunks: Items[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
        """Track one chunk of every lane.

        Args:
            chunks: for each lane uint8 ``(chunk, H, W, 3)`` frames on the canvas, or None where it is idle.

        Returns:
            Boxes ``(lanes, chunk, 4)`` and scores ``(lanes, chunk)``; those of idle lanes mean nothing.
        """
        blank = np.zeros((self.chunk, *self.canvas, 3), np.uint8)
        frames: Any = np.stack([blank if part is None else part for part in chunks])
        if self.mesh is None:
            track = _track_lanes
        else:
            track = functools.partial(_track_spread, self.mesh)
            frames = jax.device_put(frames, NamedSharding(self.mesh, PartitionSpec("slot")))
        self._states, found = track(self.tracker, self.variables, self._states, frames)
        return np.asarray(found.box), np.asarray(found.score)


def mesh_of(devices: int) -> Mesh | None:
    """The devices that share the slots along the axis "slot"; None for one.

    Raises:
        JaxtrackError: a number below 1 or above what is there.
    """
    if devices == 1:
        return None
    here = cli.devices()
    if not 1 < devices <= len(here):
        raise JaxtrackError(
            f"--devices {devices}: {len(here)} here ({here[0].platform}); give 1 to {len(here)}"
        )
    return Mesh(np.asarray(here[:devices]), ("slot",))


def _track_lanes(
    tracker: Tracker, variables: Variables, states: State, frames: Any
) -> tuple[State, Prediction]:
    """A chunk of every lane on one device; a single lane runs the plain program, without an extra axis."""
    if frames.shape[0] > 1:
        return streaming.track_slots(tracker, variables, states, frames)
    state = jax.tree.map(lambda leaf: leaf[0], states)
    after: Any = verbs.track_clip(tracker, variables, state, frames[0])
    return jax.tree.map(lambda leaf: leaf[None], after)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _track_spread(
    mesh: Mesh, tracker: Tracker, variables: Variables, states: State, frames: Any
) -> tuple[State, Prediction]:
    """The same on every device with its own lanes; devices do not talk to each other."""
    alone, spread = PartitionSpec(), PartitionSpec("slot")
    return jax.shard_map(
        functools.partial(_track_lanes, tracker),
        mesh=mesh,
        in_specs=(alone, spread, spread),
        out_specs=spread,
        check_vma=False,
    )(variables, states, frames)


def own_coordinates(boxes: np.ndarray, sequence: Sequence) -> np.ndarray:
    """Boxes as the benchmark counts pixels, float64; the first row is the annotation itself."""
    shifted = np.asarray(boxes, np.float64).copy()
    shifted[:, :2] += sequence.origin
    shifted[0] = sequence.annotation.boxes[0]
    return shifted


def canvas_of(sequences: Items[Sequence]) -> tuple[int, int]:
    """One canvas for all frames, in whole blocks of 32 pixels: few programs for many benchmarks."""
    height = max(s.size[0] for s in sequences)
    width = max(s.size[1] for s in sequences)
    if all(s.size == (height, width) for s in sequences):
        return height, width
    return -(-height // 32) * 32, -(-width // 32) * 32


def check_first_box(name: str, box: np.ndarray) -> None:
    """Refuse a box without a size, by its sequence's name."""
    box = np.asarray(box, np.float64)
    if not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise JaxtrackError(
            f"{name}: the first box {box.tolist()} has no size; correct its annotation"
        )


def checked_frames(sequence: Sequence) -> Iterator[Frame]:
    """A sequence's frames; a short sequence or a change of size is told with its name."""
    count = 0
    for frame in sequence.frames():
        if frame.shape[:2] != sequence.size:
            raise JaxtrackError(
                f"{sequence.name}: frame {count} is {frame.shape[1]}x{frame.shape[0]}, the first "
                f"{sequence.size[1]}x{sequence.size[0]}; all frames must have one size"
            )
        yield frame
        count += 1
        if count == sequence.length:
            return
    raise JaxtrackError(f"{sequence.name}: {count} frames, but {sequence.length} boxes")


def chunks_of(frames: Iterator[Frame], chunk: int, canvas: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames on the canvas, `chunk` at a time; the last frame is repeated to fill the last chunk."""
    held: list[Frame] = []
    for frame in frames:
        held.append(streaming.pad_frame(frame, canvas))
        if len(held) == chunk:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held + held[-1:] * (chunk - len(held)))
