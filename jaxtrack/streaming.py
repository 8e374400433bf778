"""Frames in, predictions out: a clip, a live source, or many videos side by side.

A clip is cut into chunks of one fixed length; each runs as one compiled program (`track_clip`), the last
one padded and its surplus dropped, so that nothing is traced twice. While the device works on a chunk, a
thread decodes and stacks the next ones. Several targets of one video run side by side under `jax.vmap`.
A live source is tracked frame by frame, without waiting for a chunk to fill.
"""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Real, UInt8

from jaxtrack import base as verbs
from jaxtrack import checks
from jaxtrack.base import Prediction, State, Tracker, Variables
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.boxes import check_box
from jaxtrack.io.prefetch import prefetch
from jaxtrack.io.video import open_source

CHUNK = 8  # frames: 8 of 1280x720 are 22 MB, and already hide the cost of a call

Frame = UInt8[np.ndarray, "h w 3"]


class Tracks(NamedTuple):
    """Where the targets of a clip are.

    Attributes:
        boxes: ``(n, t, 4)`` float32 ``x, y, w, h`` in pixels, 0-based corner: targets, frames. The
            first frame's boxes are the given ones.
        scores: ``(n, t)`` float32, the tracker's own measure (see its module); NaN on the first frame,
            where nothing was predicted.
    """

    boxes: Float[np.ndarray, "n t 4"]
    scores: Float[np.ndarray, "n t"]


class Piece(NamedTuple):
    """Some consecutive frames and what was found in them.

    Attributes:
        start: index of the first of them in the clip.
        frames: the frames as they came.
        tracks: boxes and scores of the targets in these frames.
    """

    start: int
    frames: list[Frame]
    tracks: Tracks


@functools.partial(jax.jit, static_argnums=0)
def init_targets(
    tracker: Tracker,
    variables: Variables,
    frame: UInt8[Array, "h w 3"],
    boxes: Float[Array, "n 4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Start tracking several targets of one frame.

    Args:
        tracker: the tracker (static).
        variables: its learned values.
        frame: uint8 RGB, the whole canvas.
        boxes: ``(n, 4)`` ``x, y, w, h`` in pixels, 0-based corner.
        frame_size: ``(2,)`` int32 true ``(height, width)``.

    Returns:
        The states, stacked along a leading axis.
    """
    checks.variables(variables, verbs.variable_shapes(tracker))
    start = functools.partial(tracker.init, tracker.config, variables, frame)
    return jax.vmap(lambda box: start(box, frame_size))(boxes)


@functools.partial(jax.jit, static_argnums=0)
def track_targets(
    tracker: Tracker, variables: Variables, states: State, frames: UInt8[Array, "t h w 3"]
) -> tuple[State, Prediction]:
    """Track several targets through one chunk of frames.

    Args:
        tracker: the tracker (static).
        variables: its learned values.
        states: stacked states, from `init_targets` or the previous chunk.
        frames: ``(t, h, w, 3)`` uint8 RGB, the same for all targets.

    Returns:
        The states after the last frame, and predictions ``(n, t, ...)``.
    """
    return jax.vmap(lambda state: verbs.track_clip(tracker, variables, state, frames))(states)


@functools.partial(jax.jit, static_argnums=0)
def track_slots(
    tracker: Tracker, variables: Variables, states: State, frames: UInt8[Array, "s t h w 3"]
) -> tuple[State, Prediction]:
    """Track the target of each slot through a chunk of its own video.

    Args:
        tracker: the tracker (static).
        variables: its learned values.
        states: stacked states.
        frames: ``(s, t, h, w, 3)`` uint8 RGB.

    Returns:
        The states after the last frame, and predictions ``(s, t, ...)``.
    """
    step = functools.partial(verbs.track_clip, tracker, variables)
    return jax.vmap(step)(states, frames)


@jax.jit
def exchange_slot(states: State, slot: Int[Array, ""], state: State) -> State:
    """Put one target's state into a slot of the stacked states."""
    return jax.tree.map(lambda old, new: old.at[slot].set(new), states, state)


def lay(frame: Frame, canvas: UInt8[np.ndarray, "H W 3"]) -> None:
    """Lay a frame on a canvas, black below it and to its right.

    Args:
        frame: ``(h, w, 3)`` uint8 RGB.
        canvas: where it is written, not smaller than the frame.

    Raises:
        JaxtrackError: no uint8 RGB; numpy would turn other numbers into bytes without a word.
    """
    checks.frame(frame, floats=False)
    height, width = frame.shape[:2]
    if height > canvas.shape[0] or width > canvas.shape[1]:
        raise ValueError(f"a frame of {frame.shape[:2]} does not fit the canvas {canvas.shape[:2]}")
    canvas[:height, :width] = frame
    canvas[height:] = 0
    canvas[:height, width:] = 0


def pad_frame(frame: Frame, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame padded with black below and to the right.

    Args:
        frame: ``(h, w, 3)`` uint8 RGB.
        size: ``(height, width)``, not smaller than the frame.
    """
    if frame.shape[:2] == size:
        return frame
    canvas = np.empty((*size, 3), np.uint8)
    lay(frame, canvas)
    return canvas


def fill(frames: list[Frame], chunk: int, size: tuple[int, int]) -> UInt8[np.ndarray, "t H W 3"]:
    """Return frames as one array of a chunk's length; the last frame is repeated to fill it.

    Args:
        frames: at least one, at most ``chunk``.
        chunk: length of the array.
        size: ``(height, width)`` to which frames are padded.
    """
    held = np.empty((chunk, *size, 3), np.uint8)
    for place, frame in zip(range(chunk), [*frames, *frames[-1:] * (chunk - len(frames))]):
        lay(frame, held[place])
    return held


def stream(
    tracker: Tracker,
    variables: Variables,
    frames: Iterable[Frame],
    boxes: Real[np.ndarray, "*n 4"],
    *,
    chunk: int = CHUNK,
    canvas: tuple[int, int] | None = None,
) -> Iterator[Piece]:
    """Track targets through a clip and hand the frames out again with what was found in them.

    Args:
        tracker: the tracker.
        variables: its learned values.
        frames: uint8 RGB ``(h, w, 3)`` frames of one size, such as a `jaxtrack.io.video.FrameSource`;
            the first one shows the targets at ``boxes``.
        boxes: ``(n, 4)`` ``x, y, w, h`` in pixels, 0-based corner; ``(4,)`` is one target.
        chunk: frames per compiled call; 1 is for live use: no thread, an answer after every frame.
        canvas: ``(height, width)`` to which frames are padded; clips of different sizes on one canvas
            share one compiled program.

    Yields:
        `Piece` after piece, in order; the first is the first frame alone.

    Raises:
        JaxtrackError: an argument of another kind; no frames, boxes that cannot start a tracker in the first
            of them, or a frame that is no uint8 RGB or of another size (its index is named). What the source
            raises comes after all frames before it have been handed out.
    """
    checks.tracker(tracker, Tracker)
    checks.variables_kind(variables)
    checks.clip(frames)
    boxes, chunk = checks.boxes(boxes), checks.chunk(chunk)
    chunks = _ahead(frames, chunk)
    first = next(chunks, None)
    if first is None or isinstance(first, Exception):
        raise first or JaxtrackError("the clip has no frames")
    size = first[0].shape[0], first[0].shape[1]
    canvas = checks.canvas(canvas, size)
    for number, box in enumerate(boxes, 1):
        fault = checks.box_fault(box, size, "box", checks.IN_FRAME)
        if fault is not None:
            raise JaxtrackError(fault)
        check_box(box, size, "box" if len(boxes) == 1 else f"box {number}")
    run = _Runner(tracker, variables, boxes, pad_frame(first[0], canvas), size)
    yield Piece(0, first, Tracks(boxes[:, None], np.full((len(boxes), 1), np.nan, np.float32)))
    # One chunk is always under way: while it is computed, the next one is stacked and sent.
    pending: collections.deque[tuple[int, list[Frame], Prediction]] = collections.deque()
    start, failure = 1, None
    for held in chunks:
        if isinstance(held, Exception):
            failure = held
            break
        pending.append((start, held, run.step(fill(held, chunk, canvas))))
        start += len(held)
        if len(pending) > (chunk > 1):
            yield _collect(*pending.popleft())
    while pending:
        yield _collect(*pending.popleft())
    if failure is not None:
        raise failure


def track(
    tracker: Tracker,
    variables: Variables,
    frames: Iterable[Frame] | str | os.PathLike[str],
    boxes: Real[np.ndarray, "*n 4"] | Sequence[float],
    *,
    chunk: int = CHUNK,
    canvas: tuple[int, int] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Tracks:
    """Track targets through a whole clip.

    Args:
        tracker: the tracker.
        variables: its learned values.
        frames: uint8 RGB frames of one size; the first one shows the targets. Or what
            `jaxtrack.io.video.open_source` takes: a video's path, a folder, a pattern.
        boxes: ``(n, 4)`` ``x, y, w, h`` in pixels, 0-based corner; ``(4,)`` is one target.
        chunk: frames per compiled call.
        canvas: ``(height, width)`` to which frames are padded, see `stream`.
        progress: called with the number of frames that were done since the last call.

    Returns:
        Boxes ``(n, t, 4)`` and scores ``(n, t)``.

    Raises:
        JaxtrackError: as `stream`; what was found before is lost, use `stream` to keep it.
    """
    source = open_source(frames) if isinstance(frames, (str, os.PathLike)) else frames
    given = checks.boxes(boxes)
    parts = []
    for piece in stream(tracker, variables, source, given, chunk=chunk, canvas=canvas):
        parts.append(piece.tracks)
        if progress is not None:
            progress(len(piece.frames))
    return Tracks(*(np.concatenate(part, axis=1) for part in zip(*parts)))


class _Runner:
    """The state of a clip's targets and the step that moves it on."""

    def __init__(
        self,
        tracker: Tracker,
        variables: Variables,
        boxes: np.ndarray,
        frame: Frame,
        size: tuple[int, int],
    ) -> None:
        self.tracker, self.variables = tracker, variables
        frame_size = np.asarray(size, np.int32)
        # One target runs without vmap: the same program as the plain verbs, bit for bit.
        self.single = len(boxes) == 1
        if self.single:
            self.state = verbs.init(tracker, variables, frame, boxes[0], frame_size)
        else:
            self.state = init_targets(tracker, variables, frame, boxes, frame_size)

    def step(self, frames: np.ndarray) -> Prediction:
        """Send off a chunk; the arrays that come back may still be under computation."""
        move = verbs.track_clip if self.single else track_targets
        self.state, found = move(self.tracker, self.variables, self.state, frames)
        return jax.tree.map(lambda x: x[None], found) if self.single else found


def _collect(start: int, frames: list[Frame], found: Prediction) -> Piece:
    boxes, scores = (np.asarray(value)[:, : len(frames)] for value in found)
    return Piece(start, frames, Tracks(boxes, scores))


def _ahead(frames: Iterable[Frame], chunk: int) -> Iterator[list[Frame] | Exception]:
    """Yield the first frame, then chunks of frames; for more than one frame at once, formed in a thread."""
    yield from prefetch(_chunks(frames, chunk), 2 if chunk > 1 else 0)


def _chunks(frames: Iterable[Frame], chunk: int) -> Iterator[list[Frame] | Exception]:
    """Frames in lists; an error comes last, as a value, after the frames that came before it."""
    held: list[Frame] = []
    failure: Exception | None = None
    size: tuple[int, ...] | None = None
    try:
        for index, frame in enumerate(frames):
            checks.frame(frame, f"frame {index}", floats=False)
            if size is not None and frame.shape != size:
                raise JaxtrackError(
                    f"frame {index} has shape {frame.shape}, the first {size}; "
                    "all frames of a clip must have one size"
                )
            held.append(frame)
            if len(held) == chunk or size is None:
                yield held
                held = []
            size = frame.shape
    except Exception as error:  # kept, so that the frames before it are not lost with it
        failure = error
    if held:
        yield held
    if failure is not None:
        yield failure
