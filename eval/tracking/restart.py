"""Restart after failure, the supervised experiment of VOT2016 to VOT2019, batched in slots.

A tracker that has lost its target (no overlap with the ground truth) is stopped, five frames later it is
started anew on the ground truth. Each line of a result is a box, or 1 where the tracker was started, 2 where
it failed, 0 where it was stopped (`eval.metrics.vot` scores it). Frames are tracked in chunks; what was
computed beyond a failure is thrown away, so the results are those of a tracker that goes frame by frame.

Frames whose target is out of view or not annotated, which VOT's own sequences have not, cannot be failed,
and no tracker is started on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Items

import numpy as np

from jaxtrack import streaming
from jaxtrack.base import Prediction, Tracker, Variables
from jaxtrack.data.record import usable_boxes

from ..metrics.annotation import Annotation
from ..metrics.eao import FAILED, INITIALISED, REGION, SKIPPED, SKIPPING, VOT_PROTOCOLS, Run
from ..metrics.protocols import BENCHMARKS, Benchmark
from ..metrics.regions import as_regions, region_overlap
from ..metrics.vot import VOTReport, evaluate_vot
from . import slots as scheduler
from .sequences import Sequence


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
    """Return how trackers are restarted after failure, if they are.

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


class Supervised(scheduler.Job):
    """A sequence on which the tracker is stopped and started again.

    Attributes:
        regions: float64 ``(n, 4)`` boxes in the benchmark's coordinates; NaN where there is none.
        codes: what each frame is, of `eval.metrics.eao`.
    """

    decides = True

    def __init__(self, sequence: Sequence, rule: str) -> None:
        """Begin before the first frame.

        Args:
            sequence: what is tracked.
            rule: of `eval.metrics.regions`, which overlap counts.
        """
        super().__init__(sequence)
        self.rule = rule
        self.regions = np.full((sequence.length, 4), np.nan)
        self.codes = np.full(sequence.length, SKIPPED, np.int8)
        self.truth = usable_truth(sequence.annotation)
        self.known = np.isfinite(self.truth[:, :4]).all(axis=1)
        self._next = 0  # frames before this one are decided
        self._running = False

    def fault(self) -> str | None:
        """Return why the sequence cannot be tracked: no frame on which a tracker can be started."""
        if self.sequence.fault is None and not self.known.any():
            return f"{self.sequence.name}: no frame has a box to start on; correct its annotation"
        return self.sequence.fault

    def start(self) -> int | None:
        """Start on the next frame that shows the target; none: the sequence is finished."""
        if self._running or self.asked:
            return None
        places = np.flatnonzero(self.known[self._next :])
        if not len(places):
            self._next = self.sequence.length
            return None
        index = self._next + int(places[0])
        self.codes[index] = INITIALISED
        self._next, self._running = index + 1, True
        return index

    def ask(self, chunk: int) -> tuple[int, int]:
        """Ask for the frames that follow; those beyond a failure are asked for in vain."""
        return self._next, min(chunk, self.sequence.length - self._next)

    def take(self, found: Prediction) -> None:
        """Judge the boxes of the frames that were asked for."""
        first, count = self._next, len(found.box)
        span = slice(first, first + count)
        boxes = np.asarray(found.box, np.float64)
        boxes[:, :2] += self.sequence.origin
        height, width = self.sequence.size
        overlap = region_overlap(boxes, self.truth[span], (width, height), self.rule)
        lost = np.flatnonzero(self.known[span] & ~(overlap > 0))
        good = int(lost[0]) if len(lost) else count
        self.regions[first : first + good] = boxes[:good]
        self.codes[first : first + good] = REGION
        self._next += good
        if len(lost):
            self.codes[self._next] = FAILED
            self._next = min(self._next + SKIPPING, self.sequence.length)
            self._running = False

    @property
    def asked(self) -> bool:
        """Whether all frames are decided."""
        return self._next == self.sequence.length

    @property
    def done(self) -> int:
        """Frames that are decided."""
        return self._next


def boxes_of(run: Run, sequence: Sequence) -> np.ndarray:
    """Return the boxes ``(n, 4)`` of a run, x, y, w, h in pixels, 0-based corner; NaN on special frames."""
    boxes = np.where((run.codes == REGION)[:, None], run.regions[:, :4], np.nan)
    boxes[:, :2] -= sequence.origin
    return boxes


def usable_truth(annotation: Annotation) -> np.ndarray:
    """Return regions ``(n, 8)`` in the benchmark's coordinates, NaN where no target is to be seen."""
    given = annotation.boxes if annotation.polygons is None else annotation.polygons
    regions = as_regions(given).copy()
    boxes = np.asarray(annotation.boxes, np.float64)
    unusable = ~usable_boxes(boxes)
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

    def lanes(canvas: tuple[int, int], count: int) -> scheduler.Lanes:
        return scheduler.TrackerLanes(tracker, variables, canvas, min(slots, count), chunk, devices)

    jobs = [Supervised(sequence, rule) for sequence in sequences]
    for job in scheduler.schedule(jobs, lanes, progress=progress):
        yield job.sequence.name, Run(job.regions, job.codes)


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
    """Return one report in a line."""
    numbers, intervals = report.overall(), report.intervals()
    low, high = intervals.get("eao", (float("nan"), float("nan")))
    shortest, longest = report.interval or (0, 0)
    return (
        f"{report.tracker:20s} {report.protocol.name:12s} accuracy {numbers['accuracy']:.3f}  robustness "
        f"{numbers['robustness']:.3f}  lost {numbers['lost']:g}  EAO {numbers['eao']:.3f} "
        f"[{low:.3f}, {high:.3f}] over {shortest} to {longest} frames"
    )
