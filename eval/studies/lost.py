"""Does a low score tell that the target is lost? ``python -m eval.studies.lost``.

Tracks every sequence once, sorts the frames by the overlap of the box with the truth into tracked, lost and
neither, and asks how well the score alone tells the first two apart: the area under the ROC curve (AUROC),
which is the probability that a tracked frame scores above a lost one. 1: some threshold finds every loss; .5:
the score says nothing. Frames of all sequences are pooled, since a threshold has to hold for all videos; the
interval is a bootstrap over sequences. First frames, frames without a box and frames whose target is absent
count nowhere.

Reference:
    The area under the ROC curve is the Mann-Whitney statistic over the number of pairs, ties counting one
    half: Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from jaxtrack import cli
from jaxtrack.data.record import usable_boxes
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.ops.boxes import iou_xyxy, xywh_to_xyxy

from ..metrics.bootstrap import draw as resampled
from ..metrics.bootstrap import interval
from ..tracking import sequences as benchmarks
from ..tracking import slots
from ..tracking.entry import Entry, parse_entries
from ..tracking.sequences import Sequence
from . import results
from .results import Kept

SHIPPED = ("siamfc-tiny", "siamrpnpp-tiny", "mlt-tiny", "tadt-tiny", "ostrack-tiny")


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure how well scores tell lost targets.

    Attributes:
        tracker: presets, PRESET=WEIGHTS_FILE, NAME:PRESET=WEIGHTS_FILE or package.module:TRACKER.
        set: settings of the trackers, PATH=VALUE, or ROW:PATH=VALUE for one of them.
        benchmark: synthetic, synthetic-hard, or a data set in its own layout: otb100, lasot, custom, ...
        root: the benchmark's folder (not for the synthetic ones).
        split: the benchmark's split; by default the one that is scored.
        sequence: only these sequences.
        frames: frames of each sequence; 0: all.
        tracked: overlap from which on the target is tracked.
        lost: overlap below which it is lost.
        slots: videos tracked side by side.
        output: folder of the table, the figure and the numbers; tracks found there are not repeated.
        debug: show the traceback of errors.
    """

    tracker: tuple[str, ...] = SHIPPED
    set: tuple[str, ...] = ()
    benchmark: str = "synthetic"
    root: Path | None = None
    split: str | None = None
    sequence: tuple[str, ...] = ()
    frames: Annotated[int, cli.Range(low=0)] = 0
    tracked: Annotated[float, cli.Range(low=0, high=1)] = 0.5
    lost: Annotated[float, cli.Range(low=0, high=1)] = 0.1
    slots: Annotated[int, cli.Range(low=1, high=4096)] = 1
    output: Path = Path("results/lost")
    debug: bool = False


class Scored(NamedTuple):
    """The frames of one sequence that count.

    Attributes:
        overlap: ``(n,)`` intersection over union of box and truth.
        score: ``(n,)`` the tracker's.
    """

    overlap: np.ndarray
    score: np.ndarray


@dataclasses.dataclass(frozen=True)
class Row:
    """One tracker.

    Attributes:
        name: its label.
        auroc: NaN where there is no tracked or no lost frame.
        interval: 95 % of the resampled benchmarks.
        tracked: number of tracked frames.
        lost: number of lost frames.
        neither: number of all others that count.
        overlap: mean over all frames that count.
        tracked_score: median over tracked frames.
        lost_score: median over lost frames.
    """

    name: str
    auroc: float
    interval: tuple[float, float]
    tracked: int
    lost: int
    neither: int
    overlap: float
    tracked_score: float
    lost_score: float


def wins(tracked: np.ndarray, lost: np.ndarray) -> float:
    """Return the pairs of a tracked and a lost frame in which the tracked one scores higher; ties count half.

    Args:
        tracked: ``(n,)`` scores of tracked frames.
        lost: ``(m,)`` scores of lost frames.

    Returns:
        The Mann-Whitney statistic, 0 to ``n * m``. What is not a number ranks lowest.
    """
    from scipy.stats import mannwhitneyu

    if not len(tracked) or not len(lost):
        return 0.0
    one, other = (np.where(np.isnan(s), -np.inf, s) for s in (tracked, lost))
    return float(mannwhitneyu(one, other, method="asymptotic").statistic)


def row_of(name: str, sequences: Items[Scored], tracked: float, lost: float) -> Row:
    """Return the figures of one tracker.

    Args:
        name: its label.
        sequences: the frames that count, by sequence.
        tracked: overlap from which on the target is tracked.
        lost: overlap below which it is lost.
    """
    high = [s.score[s.overlap >= tracked] for s in sequences]
    low = [s.score[s.overlap < lost] for s in sequences]
    # Pairs between any two sequences, so that a resampled benchmark is a weighted sum.
    table = np.array([[wins(one, other) for other in low] for one in high])
    many, few = (np.array([len(s) for s in part]) for part in (high, low))
    with np.errstate(invalid="ignore"):
        area = table.sum() / np.float64(many.sum() * few.sum())
        counts = resampled(len(sequences), 2000)
        areas = np.einsum("rs,st,rt->r", counts, table, counts) / ((counts @ many) * (counts @ few))
    overlap = np.concatenate([s.overlap for s in sequences])

    def median(parts: list[np.ndarray]) -> float:
        values = np.concatenate(parts)
        return float(np.median(values)) if len(values) else float("nan")

    return Row(
        name=name,
        auroc=float(area),
        interval=interval(areas),
        tracked=int(many.sum()),
        lost=int(few.sum()),
        neither=len(overlap) - int(many.sum() + few.sum()),
        overlap=float(overlap.mean()) if len(overlap) else float("nan"),
        tracked_score=median(high),
        lost_score=median(low),
    )


def scored(sequence: Sequence, boxes: np.ndarray, scores: np.ndarray) -> Scored:
    """Sort out the frames that count.

    Args:
        sequence: gives the truth.
        boxes: ``(n - 1, 4)`` x, y, w, h from the second frame on.
        scores: ``(n - 1,)``.
    """
    truth = sequence.boxes[1:]
    known = usable_boxes(truth)
    if sequence.annotation.absent is not None:
        known &= ~np.asarray(sequence.annotation.absent[1:], bool)
    overlap = iou_xyxy(xywh_to_xyxy(boxes[known]), xywh_to_xyxy(truth[known]))
    return Scored(np.asarray(overlap), scores[known])


def track(
    entry: Entry, sequences: list[Sequence], kept: Kept, side_by_side: int
) -> tuple[dict[str, Scored], list[str]]:
    """Track every sequence that was not tracked before.

    Args:
        entry: the tracker.
        sequences: what is tracked.
        kept: tracks of earlier calls.
        side_by_side: videos tracked at a time.

    Returns:
        The frames that count by sequence; what is wrong with sequences that cannot be tracked.
    """
    from tqdm import tqdm

    variables = entry.load()
    made = entry.fingerprint(variables)
    inputs: dict[str, dict[str, Any]] = {
        s.name: {"tracker": made, "sequence": s.name, **s.inputs()} for s in sequences
    }
    found = {name: kept.get(key) for name, key in inputs.items()}
    missing = [s for s in sequences if found[s.name] is None]
    total = sum(s.length for s in missing)
    faults: list[str] = []
    with tqdm(total=total, unit=" frames", desc=entry.label, disable=not total, leave=False) as bar:
        tracks = slots.run(
            *(entry.tracker, variables, missing), slots=side_by_side, progress=bar.update
        )
        try:
            for name, one in tracks:
                boxes, scores = one.boxes[1:].astype(float), one.scores[1:].astype(float)
                found[name] = {"boxes": boxes.tolist(), "scores": scores.tolist()}
                kept.put(inputs[name], found[name])
        except slots.BrokenSequencesError as error:
            faults = list(error.faults.values())
    parts = {
        s.name: scored(
            s, np.reshape(found[s.name]["boxes"], (-1, 4)), np.array(found[s.name]["scores"])
        )
        for s in sequences
        if found[s.name] is not None
    }
    return parts, faults


def measure(options: Options) -> tuple[list[Row], dict[str, dict[str, Scored]], list[str]]:
    """Measure every tracker.

    Returns:
        A row for each; its frames by sequence; what is wrong with sequences that were left out.
    """
    if options.tracked < options.lost:
        raise UsageError(
            f"--tracked {options.tracked:g} is below --lost {options.lost:g}: a frame would be both"
        )
    entries = parse_entries(options.tracker, options.set)
    faults: list[str] = []
    sequences = benchmarks.load(
        *(options.benchmark, options.root, options.split, options.sequence),
        on_problem=lambda error: faults.append(str(error)),
    )
    sequences = [benchmarks.shortened(s, options.frames) for s in sequences]
    if not any(np.isfinite(s.boxes[1:]).all(axis=1).any() for s in sequences):
        raise JaxtrackError(
            faults[0]
            if faults
            else "no sequence has a box beyond its first: nothing to compare with"
        )
    kept, rows, frames = Kept(options.output / "runs"), [], {}
    for entry in entries:
        frames[entry.label], broken = track(entry, sequences, kept, options.slots)
        faults += [fault for fault in broken if fault not in faults]
        parts = list(frames[entry.label].values())
        if parts:
            rows.append(row_of(entry.label, parts, options.tracked, options.lost))
    return rows, frames, faults


def table(rows: list[Row]) -> str:
    """Return rows as text."""
    width = max([len("tracker"), *(len(row.name) for row in rows)])
    lines = [
        f"{'tracker':{width}s}  AUROC       interval  tracked   lost  neither  overlap  score tracked   lost"
    ]
    lines += [
        f"{r.name:{width}s}  {r.auroc:5.3f}  [{r.interval[0]:.3f}, {r.interval[1]:.3f}]  {r.tracked:7d}  "
        f"{r.lost:5d}  {r.neither:7d}  {r.overlap:7.3f}  {r.tracked_score:13.3f}  {r.lost_score:5.3f}"
        for r in rows
    ]
    return "\n".join(lines)


def draw(rows: list[Row], frames: dict[str, dict[str, Scored]], options: Options) -> Any:
    """Draw each tracker's scores on tracked and on lost frames as histograms; a matplotlib figure."""
    import matplotlib.pyplot as plt

    size = (3.0 * len(rows), 2.6)
    figure, axes = plt.subplots(1, len(rows), figsize=size, squeeze=False, layout="constrained")
    for axis, row in zip(axes[0], rows):
        parts = frames[row.name].values()
        overlap = np.concatenate([s.overlap for s in parts])
        score = np.concatenate([s.score for s in parts])
        bins = np.linspace(0, max(1.0, float(np.nanmax(score, initial=1.0))), 41)
        for kind, chosen in (
            ("tracked", overlap >= options.tracked),
            ("lost", overlap < options.lost),
        ):
            if chosen.any():
                axis.hist(score[chosen], bins, density=True, alpha=0.6, label=kind)
        axis.set_title(f"{row.name}: {row.auroc:.3f}", fontsize=9)
        axis.set_xlabel("score", fontsize=8)
        axis.set_yticks([])
    axes[0][0].legend(fontsize=8)
    return figure


def _run(options: Options) -> None:
    folder = results.begin(options.output, options.root)
    rows, frames, faults = measure(options)
    if rows:
        text = table(rows)
        print(text)
        results.write(folder, "lost", rows, text, draw(rows, frames, options))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise JaxtrackError(f"left out: {faults[0]}{more}")


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.lost", arguments)


if __name__ == "__main__":
    sys.exit(main())
