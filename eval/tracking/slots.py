"""Trackers over many sequences at once: one scheduler, videos side by side in slots, one compiled step.

Each slot holds one video. A chunk of frames of every slot goes through one vmapped, jitted program; when a
video ends, its slot takes the next one. A pool of threads decodes the next chunk into one of a few
preallocated arrays while the device works, and results are read a chunk late, so that decoder and device
both stay busy. Sequences are grouped by the size of their frames: a small video is not padded to the largest.
The arrays lie in ordinary memory: JAX's arrays in pinned memory (``memory_kind="pinned_host"``) cannot be
written to, so a chunk would be copied into one first.
Slots can be spread over several devices. The results are those of one video after the other.

What is done with a sequence is a `Job`: tracked once (`run`) or with restarts after failure
(`eval.tracking.restart`), with one setting or many (`eval.sweep.grid`).
"""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Items
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtrack import base as verbs
from jaxtrack import cli, streaming
from jaxtrack.base import Prediction, State, Tracker, Variables
from jaxtrack.errors import BROKEN_INPUT, JaxtrackError, UsageError, reason
from jaxtrack.io.turns import cores

from .sequences import Frame, Sequence, first_box_fault

# One under computation, one on its way to the device, one being filled.
_BUFFERS = 3
# A canvas may be so many times as large as the frames that lie on it: few programs, little padding.
_PADDING = 2.5
# What makes a sequence broken, and is no bug.
BROKEN: tuple[type[Exception], ...] = (JaxtrackError, *BROKEN_INPUT)


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


class BrokenSequencesError(JaxtrackError):
    """Some of the sequences could not be tracked; all others were.

    Attributes:
        faults: sequence -> what is wrong with it, in one line.
    """

    def __init__(self, faults: dict[str, str]) -> None:
        """Name the sequences: one in full, of many the first."""
        self.faults = faults
        first = next(iter(faults.values()))
        names = ", ".join(list(faults)[:5]) + (", ..." if len(faults) > 5 else "")
        several = f"{len(faults)} sequences could not be tracked ({names}); the first: {first}"
        super().__init__(first if len(faults) == 1 else several)


class Lanes(Protocol):
    """States of targets side by side, and the step that moves them on.

    Attributes:
        count: targets side by side.
        chunk: frames per step.
        canvas: ``(height, width)`` of all frames.
    """

    count: int
    chunk: int
    canvas: tuple[int, int]

    def start(self, where: int, frame: Frame, box: np.ndarray) -> None:
        """Start on a target in lane ``where``: uint8 frame ``(h, w, 3)``, box ``(4,)`` x, y, w, h, pixels."""

    def step(self, frames: np.ndarray) -> Any:
        """Send off a chunk of every lane, ``(count, chunk, H, W, 3)``.

        Returns:
            A tree of arrays ``(count, chunk, ...)`` that may still be under computation.
        """


class Job(abc.ABC):
    """One sequence under way in a slot.

    Attributes:
        sequence: what is tracked.
        decides: what was found decides what is tracked next (and frames may be asked for again).
        told: frames that were told as progress.
    """

    decides = False

    def __init__(self, sequence: Sequence) -> None:
        """Begin before the first frame."""
        self.sequence = sequence
        self.told = 0

    def fault(self) -> str | None:
        """Return why the sequence cannot be tracked at all; None: it can."""
        return self.sequence.fault or first_box_fault(self.sequence)

    @abc.abstractmethod
    def start(self) -> int | None:
        """Return the frame on which the tracker is to be started now; None: it goes on from its state."""

    @abc.abstractmethod
    def ask(self, chunk: int) -> tuple[int, int]:
        """Return the first of the next frames to be tracked, and how many there are (at most ``chunk``)."""

    @abc.abstractmethod
    def take(self, found: Any) -> None:
        """Take what was found in the frames that were asked for, arrays ``(frames, ...)``."""

    @property
    @abc.abstractmethod
    def asked(self) -> bool:
        """Whether no further frame will be asked for."""

    @property
    @abc.abstractmethod
    def done(self) -> int:
        """Frames that are decided."""


J = TypeVar("J", bound=Job)
T = TypeVar("T")


class OnePass(Job):
    """A sequence that is tracked from its first frame to its last.

    Attributes:
        found: what was found, chunk after chunk.
    """

    def __init__(self, sequence: Sequence) -> None:
        """Begin before the first frame."""
        super().__init__(sequence)
        self.found: list[Any] = []
        self._asked = self._taken = 0

    def start(self) -> int | None:
        """Start on the first frame."""
        if self._asked:
            return None
        self._asked = self._taken = 1
        return 0

    def ask(self, chunk: int) -> tuple[int, int]:
        """Ask for the next frames, whatever was found before."""
        first, count = self._asked, min(chunk, self.sequence.length - self._asked)
        self._asked += count
        return first, count

    def take(self, found: Any) -> None:
        """Keep what was found."""
        if len(jax.tree.leaves(found)[0]):
            self.found.append(found)
        self._taken += len(jax.tree.leaves(found)[0])

    @property
    def asked(self) -> bool:
        """Whether all frames were asked for."""
        return self._asked == self.sequence.length

    @property
    def done(self) -> int:
        """Frames that came back; the first with the last, so that none is told before it is done."""
        return self._taken if self._taken == self.sequence.length else max(self._taken - 1, 0)

    def whole(self) -> Any:
        """Return what was found in all frames but the first, as one tree of arrays."""
        return jax.tree.map(lambda *parts: np.concatenate(parts), *self.found)


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
        BrokenSequencesError: after all others: sequences whose first box is unusable, or frames of which
            cannot be read.
        JaxtrackError: fewer devices than asked for.
    """

    def lanes(canvas: tuple[int, int], count: int) -> Lanes:
        return TrackerLanes(tracker, variables, canvas, min(slots, count), chunk, devices)

    started, frames = time.perf_counter(), 0
    for job in schedule([OnePass(s) for s in sequences], lanes, progress=progress):
        length = job.sequence.length
        frames += length
        box, score = np.asarray(job.sequence.boxes[:1], np.float32), np.full(1, np.nan, np.float32)
        if length > 1:
            found = job.whole()
            box, score = np.concatenate([box, found.box]), np.concatenate([score, found.score])
        seconds = (time.perf_counter() - started) * length / frames
        yield job.sequence.name, Track(box, score, seconds)


@dataclasses.dataclass(frozen=True, eq=False)
class _Work(Generic[J]):
    """What one lane does in one step.

    Attributes:
        where: the lane.
        job: for whom.
        start: the frame on which the tracker is started before, and the target's box in it; None: it goes on.
        count: frames that are tracked.
        frames: their decoding, which ends when they lie in the step's array.
    """

    where: int
    job: J
    start: tuple[Future[Frame], np.ndarray] | None
    count: int
    frames: list[Future[Frame]]


def schedule(
    jobs: Items[J],
    make_lanes: Callable[[tuple[int, int], int], Lanes],
    *,
    progress: Callable[[int], object] | None = None,
) -> Iterator[J]:
    """Carry out jobs, several at a time, grouped by the size of their frames, the longest first.

    Args:
        jobs: one for each sequence.
        make_lanes: makes the lanes of one group, from its canvas and the number of its sequences.
        progress: called with the number of frames done since the last call.

    Yields:
        The jobs, as they end.

    Raises:
        BrokenSequencesError: after all others: sequences that cannot be tracked, each named.
    """
    faults: dict[str, str] = {}
    for job in jobs:
        fault = job.fault()
        if fault is not None:
            faults[job.sequence.name] = fault
    sound = [job for job in jobs if job.sequence.name not in faults]
    with ThreadPoolExecutor(decoders(), "jaxtrack-decode") as pool:
        try:
            for canvas, group in grouped(sound, lambda job: job.sequence.size):
                lanes = make_lanes(canvas, len(group))
                yield from _Schedule(group, lanes, pool, faults, progress).run()
        finally:
            pool.shutdown(cancel_futures=True)
    if faults:
        raise BrokenSequencesError(faults)


class _Schedule(Generic[J]):
    """The jobs of one canvas on their way through the lanes."""

    def __init__(
        self,
        jobs: Items[J],
        lanes: Lanes,
        pool: ThreadPoolExecutor,
        faults: dict[str, str],
        progress: Callable[[int], object] | None,
    ) -> None:
        # The longest first: no slot is left alone with a long video at the end.
        self.waiting = collections.deque(sorted(jobs, key=lambda job: -job.sequence.length))
        self.lanes, self.pool, self.faults, self.progress = lanes, pool, faults, progress
        # Where results decide what is tracked next, they are read before the next step is planned.
        self.ahead = not any(job.decides for job in jobs)
        self.held: list[J | None] = [None] * lanes.count
        self.films: dict[str, Film] = {}
        shape = (lanes.count, lanes.chunk, *lanes.canvas, 3)
        self.buffers = [np.zeros(shape, np.uint8) for _ in range(_BUFFERS if self.ahead else 1)]

    def run(self) -> Iterator[J]:
        """Step until no job is left."""
        pending: collections.deque[tuple[Any, list[_Work[J]]]] = collections.deque()
        turn, work = 0, self._plan(self.buffers[0])
        while work or pending:
            if work:
                work = self._decoded(work)
                some = any(item.count for item in work)
                buffer = self.buffers[turn % len(self.buffers)]
                pending.append((self.lanes.step(buffer) if some else None, work))
                turn += 1
            # A buffer is filled again only when the step that read it has given its results.
            following = self.buffers[turn % len(self.buffers)]
            work = self._plan(following) if self.ahead else []
            while len(pending) > (1 if work else 0):
                yield from self._collect(*pending.popleft())
            if not self.ahead:
                work = self._plan(following)

    def _plan(self, buffer: np.ndarray) -> list[_Work[J]]:
        """Give every lane something to do, and have its frames decoded."""
        work = []
        for where, job in enumerate(self.held):
            if job is None or job.asked:
                job = self.held[where] = self.waiting.popleft() if self.waiting else None
            if job is None:
                continue
            film, start = self._film(job), None
            first = job.start()
            if first is not None:
                start = film.decode(first, 1)[0], np.asarray(job.sequence.boxes[first], np.float32)
            first, count = job.ask(self.lanes.chunk)
            frames = film.decode(first, count, buffer[where])
            work.append(_Work(where, job, start, count, frames))
            if job.decides:  # what follows is decoded while the device works, whatever comes out
                film.ahead(first + count, self.lanes.chunk)
        if self.ahead:
            for job in itertools.islice(self.waiting, self.lanes.count):
                self._film(job).ahead(0, 1)
        return work

    def _film(self, job: J) -> Film:
        name = job.sequence.name
        if name not in self.films:
            self.films[name] = Film(job.sequence, self.pool, job.decides)
        return self.films[name]

    def _decoded(self, work: list[_Work[J]]) -> list[_Work[J]]:
        """Wait for a step's frames and start what is to be started; drop what is broken."""
        sound = []
        for item in work:
            try:
                for future in item.frames:
                    future.result()
                if item.start is not None:
                    self.lanes.start(item.where, item.start[0].result(), item.start[1])
            except BROKEN as error:
                self._give_up(item, error)
            else:
                sound.append(item)
        return sound

    def _give_up(self, item: _Work[J], error: Exception) -> None:
        # What is still being decoded is laid in the lane's rows, which the next sequence gets.
        concurrent.futures.wait(item.frames)
        name = item.job.sequence.name
        self.faults[name] = fault_of(name, error)
        self.held[item.where] = None
        del self.films[name]
        if self.progress is not None:
            self.progress(item.job.sequence.length - item.job.told)

    def _collect(self, found: Any, work: list[_Work[J]]) -> Iterator[J]:
        """Wait for a step's results, hand them out, and yield the jobs that are done."""
        found = jax.tree.map(np.asarray, found)
        for item in work:
            job, name = item.job, item.job.sequence.name
            if name in self.faults:
                continue
            if item.count:
                span = item.where, slice(item.count)
                job.take(jax.tree.map(lambda part, span=span: part[span], found))
                self.films[name].forget(job.done)
            if self.progress is not None:
                self.progress(job.done - job.told)
                job.told = job.done
            if job.done == job.sequence.length:
                del self.films[name]
                yield job


def fault_of(name: str, error: Exception) -> str:
    """Return what is wrong with a sequence in one line that begins with its name."""
    told = str(error) if isinstance(error, JaxtrackError) else reason(error)
    return told if told.startswith(f"{name}:") else f"{name}: {told}"


class Film:
    """The frames of one sequence, decoded by a pool of threads.

    Images that can be opened one by one are decoded side by side, the frames of a video file in order.
    """

    def __init__(self, sequence: Sequence, pool: ThreadPoolExecutor, keeps: bool = False) -> None:
        """Open a sequence; nothing is decoded yet.

        Args:
            sequence: what is decoded.
            pool: where.
            keeps: hold decoded frames until `forget`: they may be asked for again.
        """
        self._sequence, self._pool, self._keeps = sequence, pool, keeps
        self._held: dict[int, Future[Frame]] = {}
        # Of a sequence whose frames come in order alone: its iterator, and how far it was read.
        self._frames = iter(()) if sequence.read is not None else sequence.frames()
        self._place = 0
        self._last: Future[Frame] | None = None

    def decode(self, first: int, count: int, rows: np.ndarray | None = None) -> list[Future[Frame]]:
        """Have frames decoded, and laid on a canvas.

        Args:
            first: index of the first of them; not below those that were forgotten.
            count: how many.
            rows: uint8 ``(at least count, H, W, 3)``, where they are laid; None: nowhere.

        Returns:
            A future for each frame, which ends when it lies in its row. It holds the frame where it was laid
            nowhere or is kept.
        """
        asked = []
        fresh: list[tuple[int, Future[Frame], np.ndarray | None]] = []
        for index in range(first, first + count):
            row = None if rows is None else rows[index - first]
            held = self._held.get(index) if self._keeps else self._held.pop(index, None)
            if held is not None:
                future = held if row is None else self._pool.submit(_lay, held, row)
            elif self._sequence.read is not None:
                future = self._pool.submit(self._read, index, row)
            else:
                future = Future()
                fresh.append((index, future, row))
            if self._keeps and held is None:
                self._held[index] = future
            asked.append(future)
        if fresh:
            self._pool.submit(self._go_on, fresh, self._last)
            self._last = fresh[-1][1]
        return asked

    def ahead(self, first: int, count: int) -> None:
        """Have frames decoded that will probably be asked for."""
        last = min(first + count, self._sequence.length)
        for index in range(first, last):
            if index not in self._held:
                self._held[index] = self.decode(index, 1)[0]

    def forget(self, before: int) -> None:
        """Drop the frames before one, which are not asked for again."""
        for index in [index for index in self._held if index < before]:
            del self._held[index]

    def _read(self, index: int, row: np.ndarray | None) -> Any:
        assert self._sequence.read is not None
        return self._done(index, self._sequence.read(index), row)

    def _done(self, index: int, frame: Frame, row: np.ndarray | None) -> Any:
        sequence = self._sequence
        if frame.shape[:2] != sequence.size:
            raise JaxtrackError(
                f"{sequence.name}: frame {index} is {frame.shape[1]}x{frame.shape[0]}, the first "
                f"{sequence.size[1]}x{sequence.size[0]}; all frames must have one size"
            )
        if row is None:
            return frame
        streaming.lay(frame, row)
        return frame if self._keeps else None

    def _go_on(
        self,
        wanted: list[tuple[int, Future[Frame], np.ndarray | None]],
        before: Future[Frame] | None,
    ) -> None:
        """Read on in a video; frames between are skipped."""
        if before is not None:  # its task left the pool's queue before this one: it does end
            concurrent.futures.wait([before])
        for index, future, row in wanted:
            try:
                future.set_result(self._done(index, self._next(index), row))
            except BaseException as error:
                future.set_exception(error)

    def _next(self, index: int) -> Frame:
        while True:
            try:
                frame = next(self._frames)
            except StopIteration:
                raise JaxtrackError(
                    f"{self._sequence.name}: {self._place} frames, but {self._sequence.length} boxes"
                ) from None
            self._place += 1
            if self._place > index:
                return frame


def _lay(held: Future[Frame], row: np.ndarray) -> Frame:
    frame = held.result()
    streaming.lay(frame, row)
    return frame


def frames_of(sequence: Sequence) -> Iterator[Frame]:
    """Yield a sequence's frames, decoded ahead.

    Raises:
        JaxtrackError: a frame that cannot be read, has another size than the first, or is missing.
    """
    with ThreadPoolExecutor(decoders(), "jaxtrack-decode") as pool:
        try:
            film = Film(sequence, pool)
            for index in range(sequence.length):
                film.ahead(index, streaming.CHUNK)
                yield film.decode(index, 1)[0].result()
        finally:
            pool.shutdown(cancel_futures=True)


def decoders() -> int:
    """Return how many threads decode: a core is left to the loop."""
    return max(1, cores() - 1)


def grouped(
    items: Iterable[T], size_of: Callable[[T], tuple[int, int]]
) -> list[tuple[tuple[int, int], list[T]]]:
    """Group items by the size of their frames.

    Args:
        items: what is grouped.
        size_of: ``(height, width)`` of an item's frames.

    Returns:
        Canvas ``(height, width)`` and items of each group, the largest canvas first. No canvas has more than
        2.5 times the area of a frame on it; one for frames of different sizes has sides in whole blocks of
        32 pixels, so that many benchmarks share few programs.
    """
    groups: list[tuple[tuple[int, int], list[T]]] = []
    for item in sorted(items, key=lambda item: -math.prod(size_of(item))):
        height, width = size_of(item)
        for place, ((rows, columns), members) in enumerate(groups):
            canvas = max(rows, height), max(columns, width)
            # The smallest frame of a group is the one that joins it.
            if math.prod(canvas) <= _PADDING * height * width:
                groups[place] = canvas, [*members, item]
                break
        else:
            groups.append(((height, width), [item]))
    return [
        (canvas if len(set(map(size_of, members))) == 1 else _whole_blocks(canvas), members)
        for canvas, members in groups
    ]


def _whole_blocks(canvas: tuple[int, int]) -> tuple[int, int]:
    return -(-canvas[0] // 32) * 32, -(-canvas[1] // 32) * 32


class TrackerLanes:
    """States of one tracker's targets side by side, on one device or spread over several.

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

    def step(self, frames: np.ndarray) -> Prediction:
        """Send off one chunk of every lane.

        Args:
            frames: uint8 ``(lanes, chunk, H, W, 3)``; what lies in an idle lane does not matter. It must not
                change before the results are there.

        Returns:
            Boxes ``(lanes, chunk, 4)`` and scores ``(lanes, chunk)``, perhaps still under computation;
            those of idle lanes mean nothing.
        """
        track: Any = _track_lanes
        place: Any = None
        if self.mesh is not None:
            track = functools.partial(_track_spread, self.mesh)
            place = NamedSharding(self.mesh, PartitionSpec("slot"))
        sent = jax.device_put(frames, place)
        self._states, found = track(self.tracker, self.variables, self._states, sent)
        return found


def mesh_of(devices: int) -> Mesh | None:
    """Return the devices that share the slots along the axis "slot"; None for one.

    Raises:
        UsageError: a number below 1 or above what is there.
    """
    if devices == 1:
        return None
    here = cli.devices()
    if not 1 < devices <= len(here):
        raise UsageError(
            f"--devices {devices}: {len(here)} here ({here[0].platform}); give 1 to {len(here)}"
        )
    return Mesh(np.asarray(here[:devices]), ("slot",))


def _track_lanes(
    tracker: Tracker, variables: Variables, states: State, frames: Any
) -> tuple[State, Prediction]:
    """Track a chunk of every lane on one device; a single lane runs the plain program, without that axis."""
    if frames.shape[0] > 1:
        return streaming.track_slots(tracker, variables, states, frames)
    state = jax.tree.map(lambda leaf: leaf[0], states)
    after: Any = verbs.track_clip(tracker, variables, state, frames[0])
    return jax.tree.map(lambda leaf: leaf[None], after)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _track_spread(
    mesh: Mesh, tracker: Tracker, variables: Variables, states: State, frames: Any
) -> tuple[State, Prediction]:
    """Track on every device its own lanes; devices do not talk to each other."""
    alone, spread = PartitionSpec(), PartitionSpec("slot")
    return jax.shard_map(
        functools.partial(_track_lanes, tracker),
        mesh=mesh,
        in_specs=(alone, spread, spread),
        out_specs=spread,
        check_vma=False,
    )(variables, states, frames)


def own_coordinates(boxes: np.ndarray, sequence: Sequence) -> np.ndarray:
    """Return boxes as the benchmark counts pixels, float64; the first row is the annotation itself."""
    shifted = np.asarray(boxes, np.float64).copy()
    shifted[:, :2] += sequence.origin
    shifted[0] = sequence.annotation.boxes[0]
    return shifted
