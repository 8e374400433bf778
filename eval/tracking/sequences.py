"""The sequences of a benchmark, opened one by one: frames, boxes, annotation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics.annotation import Annotation, from_record
from eval.metrics.protocols import BENCHMARKS
from jaxtrack.errors import JaxtrackError

Frame = np.ndarray

_LARGEST_BOX = 10.0  # of the frame's longer side; no annotation in use comes near it


@dataclasses.dataclass(frozen=True, eq=False)
class Sequence:
    """One sequence to be tracked.

    Attributes:
        name: unique within the benchmark.
        length: number of frames.
        frames: opens the sequence: an iterator over uint8 RGB ``(h, w, 3)`` frames, from the first on.
        boxes: float64 ``(n, 4)`` x, y, w, h in pixels, 0-based corner; NaN where there is none.
        annotation: the ground truth in the benchmark's own coordinates, for scoring.
        size: ``(height, width)`` of the frames.
        origin: what the benchmark's own coordinates have on top of 0-based ones (1 for OTB).
        read: opens one frame by its index, where they can be opened one by one: several threads then decode
            a sequence; None: they come in order, through ``frames``.
        fault: why the sequence cannot be tracked, in one line; None: it can, as far as is known.
    """

    name: str
    length: int
    frames: Callable[[], Iterator[Frame]]
    boxes: np.ndarray
    annotation: Annotation
    size: tuple[int, int]
    origin: int = 0
    read: Callable[[int], Frame] | None = None
    fault: str | None = None


def load(
    benchmark: str,
    root: str | Path | None = None,
    split: str | None = None,
    names: tuple[str, ...] = (),
) -> list[Sequence]:
    """Open a benchmark.

    Args:
        benchmark: "synthetic", or a dataset in its own published layout ("otb", "lasot", ...).
        root: the dataset's folder; not for "synthetic".
        split: the dataset's split; None: its default.
        names: sequences to take; empty: all.

    Returns:
        The sequences, in the benchmark's order. No frame is read yet but the first of each.

    Raises:
        JaxtrackError: unknown benchmark, a missing or wrong folder, an unknown sequence.
    """
    if benchmark == "synthetic":
        sequences = _synthetic()
    elif benchmark not in BENCHMARKS:
        known = ", ".join(["synthetic", *sorted(BENCHMARKS)])
        raise JaxtrackError(f"unknown benchmark {benchmark!r}; known: {known}")
    elif root is None:
        raise JaxtrackError(f"benchmark {benchmark!r} needs --root, the folder of its sequences")
    else:
        sequences = _from_layout(benchmark, Path(root), split)
    unknown = sorted(set(names) - {s.name for s in sequences})
    if unknown:
        raise JaxtrackError(
            f"{benchmark} has no sequence {', '.join(unknown)}; it has {len(sequences)}, such as "
            f"{', '.join(s.name for s in sequences[:5])}"
        )
    return [s for s in sequences if not names or s.name in names]


def first_box_fault(sequence: Sequence) -> str | None:
    """Return why a sequence's first box cannot start a tracker, in one line; None: it can."""
    return box_fault(sequence.boxes[0], sequence.size, f"{sequence.name}: the first box")


def box_fault(box: np.ndarray, size: tuple[int, int], name: str) -> str | None:
    """Return why a box cannot start a tracker in a frame, in one line; None: it can.

    Args:
        box: ``(4,)`` x, y, w, h in pixels, 0-based corner.
        size: ``(height, width)`` of the frame.
        name: what the box is called.
    """
    box = np.asarray(box, np.float64).reshape(-1)
    if box.shape != (4,):
        return f"{name} has {len(box)} numbers; x, y, w, h are wanted"
    shown = "[" + ", ".join(f"{value:g}" for value in box) + "]"
    if not np.isfinite(box).all() or (box[2:] <= 0).any():
        return f"{name} {shown} has no size; correct its annotation"
    height, width = size
    if (box[:2] + box[2:] <= 0).any() or box[0] >= width or box[1] >= height:
        return f"{name} {shown} lies outside the {width}x{height} frame; correct its annotation"
    if (box[2:] > _LARGEST_BOX * max(height, width)).any():
        return (
            f"{name} {shown} is far larger than the {width}x{height} frame; correct its annotation"
        )
    return None


def shortened(sequence: Sequence, frames: int) -> Sequence:
    """The first frames of a sequence."""
    note = sequence.annotation
    rows = {"boxes": note.boxes, "absent": note.absent, "polygons": note.polygons}
    cut: dict[str, Any] = {k: None if v is None else v[:frames] for k, v in rows.items()}
    cut["cover"] = None if note.cover is None else note.cover[:frames]
    cut["tags"] = {name: flags[:frames] for name, flags in note.tags.items()}
    return dataclasses.replace(
        sequence,
        length=min(frames, sequence.length),
        boxes=sequence.boxes[:frames],
        annotation=dataclasses.replace(note, **cut),
    )


@functools.lru_cache(maxsize=1)
def _synthetic_clips() -> tuple[
    tuple[str, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]], ...
]:
    # Half a gigabyte of frames, drawn once a process: every tracker sees the same clips.
    from jaxtrack.synthetic.world import benchmark_clips

    return tuple(
        (
            name,
            np.asarray(clip.frames),
            np.asarray(clip.boxes, np.float64),
            np.asarray(clip.absent),
            attributes,
        )
        for name, clip, attributes in benchmark_clips()
    )


def _synthetic() -> list[Sequence]:
    sequences = []
    for name, frames, boxes, absent, attributes in _synthetic_clips():
        height, width = frames.shape[1:3]
        annotation = Annotation(boxes, absent, attributes, size=(width, height))
        opened = functools.partial(iter, frames)
        read = frames.__getitem__
        sequences.append(
            Sequence(name, len(frames), opened, boxes, annotation, (height, width), read=read)
        )
    return sequences


def _from_layout(benchmark: str, root: Path, split: str | None) -> list[Sequence]:
    from jaxtrack.data.layouts import read_layout

    layout = "vot" if benchmark.startswith("vot") else benchmark
    sequences = []
    for record in read_layout(layout, root, split):
        opened = functools.partial(_decoded, record.frames)
        first = next(opened())
        size = (first.shape[0], first.shape[1])
        annotation = from_record(record, (size[1], size[0]))
        sequences.append(
            Sequence(
                record.name, len(record), opened, record.boxes, annotation, size, record.origin
            )
        )
    return sequences


def _decoded(references: tuple[str, ...]) -> Iterator[Frame]:
    from jaxtrack.data import frames

    if frames.is_clip_reference(references[0]):
        yield from (frame for _, frame in frames.clip_frames(references))
    else:
        yield from (frames.decode(frames.read_bytes(item), item) for item in references)
