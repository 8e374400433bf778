"""Is the target found by a tracker that looks at the right place? ``python -m eval.studies.forced``.

A track that was lost once says little about the frames after it, so that a handful of videos tells two
trainings apart only where they differ much. Here the window lies in every frame where the target truly was in
the frame before, with its true size; what was learned from the first frame stays. The frames of a video
are then measured each for itself: hundreds of small questions in place of a few long ones. Found is a target
in whose box the middle of the predicted box lies. First frames, frames without a box, and frames after one
without a box count nowhere. Intervals are a bootstrap over sequences.

Trackers that learn on the way (MLT's memory, long-term presets) keep what they had after the first frame.
TADT, whose window is part of what it learned, and trackers of others are not measured.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxtrack import cli
from jaxtrack.base import Tracker
from jaxtrack.data.record import usable_boxes
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.boxes import iou_xyxy, xywh_to_xyxy

from ..metrics.bootstrap import bootstrap
from ..tracking import sequences as benchmarks
from ..tracking.entry import Entry, parse_entries
from ..tracking.sequences import Sequence
from . import results
from .results import Kept

SHIPPED = ("siamfc-tiny", "siamrpnpp-tiny", "mlt-tiny", "ostrack-tiny")
# The fields of the families' states that say where the target is; all others say what it is.
PLACE = ("centre", "size", "exemplar_side", "search_side", "box")


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure how often the target is found from its true place.

    Attributes:
        tracker: presets, PRESET=WEIGHTS_FILE, NAME:PRESET=WEIGHTS_FILE.
        set: settings of the trackers, PATH=VALUE, or ROW:PATH=VALUE for one of them.
        benchmark: synthetic, synthetic-hard, or a data set in its own layout: otb100, lasot, custom, ...
        root: the benchmark's folder (not for the synthetic ones).
        split: the benchmark's split; by default the one that is scored.
        sequence: only these sequences.
        frames: frames of each sequence; 0: all.
        output: folder of the table, the figure and the numbers; sequences found there are not repeated.
        debug: show the traceback of errors.
    """

    tracker: tuple[str, ...] = SHIPPED
    set: tuple[str, ...] = ()
    benchmark: str = "synthetic"
    root: Path | None = None
    split: str | None = None
    sequence: tuple[str, ...] = ()
    frames: Annotated[int, cli.Range(low=0)] = 0
    output: Path = Path("results/forced")
    debug: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One tracker.

    Attributes:
        name: its label.
        found: share of targets that are found, mean over sequences.
        interval: 95 % of the resampled benchmarks.
        overlap: mean overlap of the predicted boxes with the truth, mean over sequences.
        frames: number of frames that count.
        sequences: found, by name.
    """

    name: str
    found: float
    interval: tuple[float, float]
    overlap: float
    frames: int
    sequences: dict[str, float]


def placed(state: Any, there: Any) -> Any:
    """Return a state that has learned what one has, at the place of another.

    Args:
        state: of which all but the place is taken.
        there: the place.

    Raises:
        JaxtrackError: the state's fields do not say which of them are a place.
    """
    fields = [name for name in PLACE if name in getattr(state, "_fields", ())]
    if not fields:
        raise JaxtrackError(
            "this tracker's state has no place that can be told from what it learned"
        )
    return state._replace(**{name: getattr(there, name) for name in fields})


@functools.partial(jax.jit, static_argnums=0)
def _start(tracker: Tracker, variables: Any, frame: Any, box: Any) -> Any:
    size = jnp.asarray(frame.shape[:2], jnp.int32)
    return tracker.init(tracker.config, variables, frame, box, size)


@functools.partial(jax.jit, static_argnums=0)
def _step(tracker: Tracker, variables: Any, state: Any, before: Any, box: Any, frame: Any) -> Array:
    """Return the box predicted in a frame by what `state` knows, from `box` in the frame before."""
    looking = placed(state, _start(tracker, variables, before, box))
    return tracker.track_frame(tracker.config, variables, looking, frame)[1].box


def answers(entry: Entry, variables: Any, sequence: Sequence) -> np.ndarray:
    """Return what is predicted in each frame from where the target was in the frame before.

    Args:
        entry: the tracker.
        variables: its learned values.
        sequence: the video.

    Returns:
        ``(n, 4)`` x, y, w, h in pixels, 0-based; NaN in the first frame and after a frame without a box.
    """
    boxes = np.asarray(sequence.boxes, np.float32)
    found = np.full((sequence.length, 4), np.nan)
    usable = usable_boxes(boxes)
    state = before = None
    for index, frame in zip(range(sequence.length), sequence.frames()):
        if state is None:
            state = _start(entry.tracker, variables, frame, boxes[0])
        elif usable[index - 1]:
            found[index] = _step(
                *(entry.tracker, variables, state, before, boxes[index - 1], frame)
            )
        before = frame
    return found


def judged(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the share that is found, the mean overlap, and the number of frames that count.

    Args:
        predicted: ``(n, 4)`` x, y, w, h; NaN where nothing was predicted.
        truth: ``(n, 4)``.
    """
    counts = usable_boxes(predicted) & usable_boxes(truth)
    predicted, truth = predicted[counts], truth[counts]
    middle = predicted[:, :2] + predicted[:, 2:] / 2 - truth[:, :2]
    inside = ((middle >= 0) & (middle <= truth[:, 2:])).all(-1)
    overlap = np.asarray(iou_xyxy(xywh_to_xyxy(predicted), xywh_to_xyxy(truth)))
    if not len(inside):
        return {"found": float("nan"), "overlap": float("nan"), "frames": 0}
    return {"found": float(inside.mean()), "overlap": float(overlap.mean()), "frames": len(inside)}


def measure(options: Options) -> list[Row]:
    """Measure every tracker; sequences that were measured before are read from ``output/runs``."""
    from tqdm import tqdm

    entries = parse_entries(options.tracker, options.set)
    sequences = benchmarks.load(*(options.benchmark, options.root, options.split, options.sequence))
    sequences = [benchmarks.shortened(s, options.frames) for s in sequences]
    kept, rows = Kept(options.output / "runs"), []
    for entry in entries:
        variables = entry.load()
        made, parts = entry.fingerprint(variables), {}
        for sequence in tqdm(sequences, desc=entry.label, unit=" sequences", leave=False):
            inputs = {"tracker": made, "sequence": sequence.name, **sequence.inputs()}
            part = kept.get(inputs)
            if part is None:
                part = judged(answers(entry, variables, sequence), sequence.boxes)
                kept.put(inputs, part)
            parts[sequence.name] = part
        rows.append(row_of(entry.label, parts))
    return rows


def row_of(name: str, parts: dict[str, dict[str, float]]) -> Row:
    """Return the figures of one tracker.

    Args:
        name: its label.
        parts: from `judged`, by sequence.

    Raises:
        JaxtrackError: no frame counts.
    """
    parts = {key: part for key, part in parts.items() if part["frames"]}
    if not parts:
        raise JaxtrackError("no sequence has two frames with a box: nothing to measure")
    found = np.array([part["found"] for part in parts.values()])
    return Row(
        name=name,
        found=float(found.mean()),
        interval=bootstrap(found),
        overlap=float(np.mean([part["overlap"] for part in parts.values()])),
        frames=int(sum(part["frames"] for part in parts.values())),
        sequences={key: part["found"] for key, part in parts.items()},
    )


def table(rows: list[Row]) -> str:
    """Return rows as text."""
    width = max([len("tracker"), *(len(row.name) for row in rows)])
    lines = [f"{'tracker':{width}s}  found        interval  overlap  frames"]
    lines += [
        f"{r.name:{width}s}  {r.found:5.3f}  [{r.interval[0]:.3f}, {r.interval[1]:.3f}]  "
        f"{r.overlap:7.3f}  {r.frames:6d}"
        for r in rows
    ]
    return "\n".join(lines)


def draw(rows: list[Row]) -> Any:
    """Draw the share found of every sequence, a group of bars for each; a matplotlib figure."""
    import matplotlib.pyplot as plt

    names = list(rows[0].sequences)
    figure, axis = plt.subplots(figsize=(1.5 + 0.5 * len(names), 3), layout="constrained")
    wide = 0.8 / len(rows)
    for index, row in enumerate(rows):
        at = np.arange(len(names)) + (index - (len(rows) - 1) / 2) * wide
        axis.bar(
            at, [row.sequences[name] for name in names], wide, label=f"{row.name} {row.found:.3f}"
        )
    axis.set_xticks(np.arange(len(names)), names, rotation=60, ha="right", fontsize=7)
    axis.set_ylabel("found")
    axis.legend(fontsize=7)
    return figure


def _run(options: Options) -> None:
    folder = results.begin(options.output, options.root)
    rows = measure(options)
    text = table(rows)
    print(text)
    results.write(folder, "forced", rows, text, draw(rows))


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.forced", arguments)


if __name__ == "__main__":
    sys.exit(main())
