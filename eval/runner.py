"""Runs trackers over benchmarks: many videos at once in slots, one compiled step.

Each slot holds one video. A chunk of frames of every slot goes through one vmapped, jitted program; when a
video ends, its slot takes the next one. Frames are decoded ahead in a thread for each slot. The results are
those of one video after the other (a test compares them).
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items

import jax
import jax.numpy as jnp
import numpy as np

from eval.benchmarks import Frame, Sequence
from jaxtrack import streaming
from jaxtrack import tracker as verbs
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.prefetch import prefetch
from jaxtrack.tracker import Tracker, Variables


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
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, Track]]:
    """Track the target of every sequence, several sequences at a time.

    Args:
        tracker: the tracker.
        variables: its learned values.
        sequences: what is tracked; frames of one sequence have one size, sequences may differ.
        slots: videos side by side.
        chunk: frames per compiled call.
        progress: called with the number of frames done since the last call.

    Yields:
        Name and `Track` of each sequence, as they end.

    Raises:
        JaxtrackError: a sequence whose first box is unusable, or a frame that cannot be read; the
            sequence is named.
    """
    if slots < 1 or chunk < 1:
        raise JaxtrackError(f"slots and chunk are at least 1, not {slots} and {chunk}")
    for sequence in sequences:
        _check_first_box(sequence)
    if not sequences:
        return
    canvas = _canvas(sequences)
    # The longest first: no slot is left alone with a long video at the end.
    waiting = collections.deque(sorted(sequences, key=lambda s: -s.length))
    slots = min(slots, len(waiting))
    runner = _Slots(tracker, variables, canvas, slots, chunk)
    started, done = time.perf_counter(), 0
    while waiting or runner.busy:
        while waiting and runner.free:
            runner.start(waiting.popleft())
        for count, finished in runner.step():
            done += count
            if progress is not None:
                progress(count)
            if finished is not None:
                rate = (time.perf_counter() - started) / max(done, 1)
                boxes = np.concatenate(finished.boxes)
                scores = np.concatenate(finished.scores)
                yield finished.sequence.name, Track(boxes, scores, rate * len(boxes))


class _Slots:
    """Stacked states, and the videos that they belong to."""

    def __init__(
        self,
        tracker: Tracker,
        variables: Variables,
        canvas: tuple[int, int],
        slots: int,
        chunk: int,
    ) -> None:
        self.tracker, self.variables = tracker, variables
        self.canvas, self.chunk = canvas, chunk
        self.slots: list[_Slot | None] = [None] * slots
        self.states: verbs.State = None

    @property
    def busy(self) -> bool:
        return any(slot is not None for slot in self.slots)

    @property
    def free(self) -> bool:
        return any(slot is None for slot in self.slots)

    def start(self, sequence: Sequence) -> None:
        """Put a video into a free slot."""
        where = self.slots.index(None)
        frames = _checked(sequence)
        first = next(frames)
        box = np.asarray(sequence.boxes[0], np.float32)
        state = verbs.init(
            self.tracker,
            self.variables,
            streaming.pad_frame(first, self.canvas),
            box,
            jnp.asarray(first.shape[:2], jnp.int32),
        )
        if self.states is None:
            count = len(self.slots)
            self.states = jax.tree.map(lambda leaf: jnp.stack([leaf] * count), state)
        else:
            self.states = streaming.exchange_slot(self.states, jnp.asarray(where), state)
        chunks = prefetch(_chunks(frames, self.chunk, self.canvas), 2)
        score = np.full(1, np.nan, np.float32)
        self.slots[where] = _Slot(sequence, chunks, [box[None]], [score], sequence.length - 1)

    def step(self) -> Iterator[tuple[int, _Slot | None]]:
        """Track one chunk of every slot; yields frames done and, where a video ended, its slot."""
        blank = np.zeros((self.chunk, *self.canvas, 3), np.uint8)
        frames = []
        for slot in self.slots:
            part = next(slot.chunks, None) if slot is not None else None
            frames.append(blank if part is None else part)
        if len(self.slots) == 1:
            # The plain program: its convolutions see no extra axis.
            state = jax.tree.map(lambda leaf: leaf[0], self.states)
            state, found = verbs.track_clip(self.tracker, self.variables, state, frames[0])
            self.states = jax.tree.map(lambda leaf: leaf[None], state)
            found = jax.tree.map(lambda leaf: leaf[None], found)
        else:
            self.states, found = streaming.track_slots(
                self.tracker, self.variables, self.states, np.stack(frames)
            )
        boxes, scores = np.asarray(found.box), np.asarray(found.score)
        for where, slot in enumerate(self.slots):
            if slot is None:
                continue
            count = min(slot.left, self.chunk)
            slot.boxes.append(boxes[where, :count])
            slot.scores.append(scores[where, :count])
            slot.left -= count
            if slot.left == 0:
                self.slots[where] = None
                # The last frames were counted but not read: a longer folder is not an error here.
                yield count + 1, slot
            else:
                yield count, None


def _canvas(sequences: Items[Sequence]) -> tuple[int, int]:
    """One canvas for all frames, in whole blocks of 32 pixels: few programs for many benchmarks."""
    height = max(s.size[0] for s in sequences)
    width = max(s.size[1] for s in sequences)
    if all(s.size == (height, width) for s in sequences):
        return height, width
    return -(-height // 32) * 32, -(-width // 32) * 32


def _check_first_box(sequence: Sequence) -> None:
    box = np.asarray(sequence.boxes[0], np.float64)
    if not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise JaxtrackError(
            f"{sequence.name}: the first box {box.tolist()} has no size; correct its annotation"
        )


def _checked(sequence: Sequence) -> Iterator[Frame]:
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


def _chunks(frames: Iterator[Frame], chunk: int, canvas: tuple[int, int]) -> Iterator[np.ndarray]:
    held: list[Frame] = []
    for frame in frames:
        held.append(streaming.pad_frame(frame, canvas))
        if len(held) == chunk:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held + held[-1:] * (chunk - len(held)))
