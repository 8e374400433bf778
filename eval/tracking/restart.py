"""Restart after failure, the supervised experiment of VOT2016 to VOT2019, batched in slots.

A tracker that has lost its target (no overlap with the ground truth) is stopped, five frames later it is
started anew on the ground truth. Each line of a result is a box, or 1 where the tracker was started, 2 where
it failed, 0 where it was stopped (`eval.metrics.vot` scores it). Frames are tracked in chunks; what was
computed beyond a failure is thrown away, so the results are those of a tracker that goes frame by frame.

Frames whose target is out of view or not annotated, which VOT's own sequences have not, cannot be failed,
and no tracker is started on them.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Items

import numpy as np

from eval.metrics.annotation import Annotation
from eval.metrics.eao import FAILED, INITIALISED, REGION, SKIPPED, SKIPPING, VOT_PROTOCOLS, Run
from eval.metrics.protocols import BENCHMARKS, Benchmark
from eval.metrics.regions import as_regions, region_overlap
from eval.metrics.vot import VOTReport, evaluate_vot
from eval.tracking import slots as runner
from eval.tracking.sequences import Frame, Sequence
from jaxtrack import streaming
from jaxtrack.base import Tracker, Variables
from jaxtrack.io.prefetch import prefetch


@dataclasses.dataclass(frozen=True)
class Plan:
    """How supervised runs are judged.

    Attributes:
        year: the benchmark whose interval of lengths the expected average overlap takes.
        protocols: toolkits whose rules score the runs; the first one's regions decide about failures.
    """

    year: Benchmark
    protocols: tuple[str, ...]


def plan_of(benchmark: str, protocol: str | None) -> Plan | None:
    """Whether trackers are restarted after failure.

    Args:
        benchmark: name of the benchmark that is run.
        protocol: "vot2016" to "vot2019" restarts on any benchmark; None and the toolkits' names
            ("pysot", "vot_toolkit") restart on VOT's own.

    Returns:
        The plan; None for one pass.
    """
    own, asked = BENCHMARKS.get(benchmark), BENCHMARKS.get(protocol or "")
    if asked is not None and asked.kind == "vot":
        return Plan(asked, tuple(VOT_PROTOCOLS))
    if own is None or own.kind != "vot":
        return None
    if protocol is None:
        return Plan(own, tuple(VOT_PROTOCOLS))
    return Plan(own, (protocol,)) if protocol in VOT_PROTOCOLS else None


class _Supervised:
    """A sequence under supervision: what is read, what is tracked, where the tracker stands."""

    def __init__(self, sequence: Sequence, rule: str) -> None:
        self.sequence, self.rule = sequence, rule
        self.frames: Iterator[Frame] = prefetch(runner.checked_frames(sequence), 16)
        self.returned: collections.deque[Frame] = collections.deque()
        self.next = 0  # frames before this one are decided
        self.told = 0  # of them, those that were told as progress
        self.held: list[Frame] = []
        self.regions = np.full((sequence.length, 4), np.nan)
        self.codes = np.full(sequence.length, SKIPPED, np.int8)
        self.truth = usable_truth(sequence.annotation)
        self.known = np.isfinite(self.truth[:, :4]).all(axis=1)

    def _read(self) -> Frame:
        return self.returned.popleft() if self.returned else next(self.frames)

    @property
    def finished(self) -> bool:
        return self.next == self.sequence.length

    def start(self, lanes: runner.Lanes, where: int) -> None:
        """Start the tracker on the next frame that shows the target; none: the sequence is finished."""
        while not self.finished:
            frame, index = self._read(), self.next
            self.next += 1
            if self.known[index]:
                lanes.start(where, frame, self.sequence.boxes[index])
                self.codes[index] = INITIALISED
                return

    def chunk(self, lanes: runner.Lanes) -> np.ndarray:
        """The next frames, filled up with the last one."""
        count = min(lanes.chunk, self.sequence.length - self.next)
        self.held = [self._read() for _ in range(count)]
        frames = [streaming.pad_frame(frame, lanes.canvas) for frame in self.held]
        return np.stack(frames + frames[-1:] * (lanes.chunk - count))

    def take(self, boxes: np.ndarray) -> bool:
        """Judge the boxes of the held frames; whether the tracker must be started anew."""
        first, count = self.next, len(self.held)
        span = slice(first, first + count)
        found = np.asarray(boxes[:count], np.float64)
        found[:, :2] += self.sequence.origin
        height, width = self.sequence.size
        overlap = region_overlap(found, self.truth[span], (width, height), self.rule)
        lost = np.flatnonzero(self.known[span] & ~(overlap > 0))
        good = int(lost[0]) if len(lost) else count
        self.regions[first : first + good] = found[:good]
        self.codes[first : first + good] = REGION
        self.next += good
        if not len(lost):
            return False
        self.codes[self.next] = FAILED
        self.returned.extendleft(reversed(self.held[good + 1 :]))
        self.next += 1
        for _ in range(min(SKIPPING - 1, self.sequence.length - self.next)):
            self._read()
            self.next += 1
        return True


def usable_truth(annotation: Annotation) -> np.ndarray:
    """Regions ``(n, 8)`` in the benchmark's coordinates, NaN where no target is to be seen."""
    given = annotation.boxes if annotation.polygons is None else annotation.polygons
    regions = as_regions(given).copy()
    boxes = np.asarray(annotation.boxes, np.float64)
    unusable = ~np.isfinite(boxes).all(axis=1) | ~(boxes[:, 2:] > 0).all(axis=1)
    if annotation.absent is not None:
        unusable |= annotation.absent
    regions[unusable] = np.nan
    return regions


def run(
    tracker: Tracker,
    variables: Variables,
    sequences: Items[Sequence],
    *,
    rule: str = "pysot",
    slots: int = 1,
    chunk: int = streaming.CHUNK,
    devices: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, Run]]:
    """Track every sequence under supervision, several sequences at a time.

    Args:
        tracker: the tracker.
        variables: its learned values.
        sequences: what is tracked.
        rule: of `eval.metrics.regions`, which overlap counts.
        slots: videos side by side, on all devices together.
        chunk: frames per compiled call.
        devices: devices that share the slots.
        progress: called with the number of frames done since the last call.

    Yields:
        Name and run (boxes in the benchmark's coordinates) of each sequence, as they end.

    Raises:
        JaxtrackError: as `eval.tracking.slots.run`.
    """
    for sequence in sequences:
        runner.check_first_box(sequence.name, sequence.boxes[0])
    if not sequences:
        return
    waiting = collections.deque(sorted(sequences, key=lambda s: -s.length))
    canvas, slots = runner.canvas_of(sequences), min(slots, len(waiting))
    lanes = runner.Lanes(tracker, variables, canvas, slots, chunk, devices)
    held: list[_Supervised | None] = [None] * lanes.count
    while waiting or any(held):
        for where, slot in enumerate(held):
            if slot is None and waiting:
                fresh = _Supervised(waiting.popleft(), rule)
                fresh.start(lanes, where)
                held[where] = fresh
        running = [slot if slot is not None and not slot.finished else None for slot in held]
        if any(running):
            boxes, _ = lanes.step([s.chunk(lanes) if s is not None else None for s in running])
        for where, slot in enumerate(held):
            if slot is None:
                continue
            if running[where] is not None and slot.take(boxes[where]):
                slot.start(lanes, where)
            if progress is not None:
                progress(slot.next - slot.told)
                slot.told = slot.next
            if slot.finished:
                held[where] = None
                yield slot.sequence.name, Run(slot.regions, slot.codes)


def score(
    runs: Mapping[str, Run], sequences: Items[Sequence], plan: Plan, tracker: str
) -> list[VOTReport]:
    """Score supervised runs by the rules of each toolkit of the plan.

    Args:
        runs: sequence -> run.
        sequences: what was tracked.
        plan: year and rules. Where no sequence is as long as the year's interval asks, the expected average
            overlap is taken over lengths from half the shortest sequence up to one less than it.
        tracker: name for the report.

    Returns:
        One report for each of the plan's protocols.
    """
    truth = {
        s.name: dataclasses.replace(s.annotation, polygons=usable_truth(s.annotation))
        for s in sequences
    }
    interval = plan.year.eao_interval
    if interval is None or max(s.length for s in sequences) <= interval[1]:
        shortest = min(s.length for s in sequences)
        interval = (max(1, shortest // 2), max(1, shortest - 1))
    given = {name: [run] for name, run in runs.items()}
    return [
        evaluate_vot(given, truth, protocol, plan.year, tracker, interval)
        for protocol in plan.protocols
    ]


def line(report: VOTReport) -> str:
    """One report in a line."""
    numbers, intervals = report.overall(), report.intervals()
    low, high = intervals.get("eao", (float("nan"), float("nan")))
    shortest, longest = report.interval or (0, 0)
    return (
        f"{report.tracker:20s} {report.protocol.name:12s} accuracy {numbers['accuracy']:.3f}  robustness "
        f"{numbers['robustness']:.3f}  lost {numbers['lost']:g}  EAO {numbers['eao']:.3f} "
        f"[{low:.3f}, {high:.3f}] over {shortest} to {longest} frames"
    )
