"""The sequences of a benchmark, opened one by one: frames, boxes, annotation."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack.checks import box_fault
from jaxtrack.data import frames as frame_files
from jaxtrack.data.layouts import read_layout
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.paths import resolve

from ..files import datasets
from ..files.datasets import Dataset
from ..files.records import annotation_of, evaluated
from ..metrics.annotation import Annotation

Frame = np.ndarray


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
        video: name of the video, which two targets may share.
        source: layout and split that it comes from.
        root: folder that it comes from.
        references: the frames' files, as in `jaxtrack.data.record.VideoRecord`; empty in memory.
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
    video: str = ""
    source: str = ""
    root: str = ""
    references: tuple[str, ...] = ()

    def inputs(self) -> dict[str, str]:
        """Return what a tracker's boxes depend on, by name: data set, folder, frames, pictures, first box.

        The pictures are told by their sizes and the bytes of the first, the middle and the last one; those of
        a clip by its size.
        """
        found = {"data set": self.source, "folder": self.root}
        found["first box"] = repr(self.boxes[0].tolist())
        found["number of frames"] = str(self.length)
        try:
            return found | self._pictures()
        except (JaxtrackError, OSError) as error:
            return found | {"pictures": f"cannot be read: {error}"}  # tracking will name the frame

    def _pictures(self) -> dict[str, str]:
        found = {}
        if not self.references:
            found["pictures"] = _digest(np.ascontiguousarray(next(self.frames())).tobytes())
            return found
        # Below the folder: the same data at another place have the same list.
        names = [os.path.abspath(r).removeprefix(self.root) for r in self.references]
        found["list of frames"] = _digest("\0".join(names).encode(errors="surrogateescape"))
        if frame_files.is_clip_reference(self.references[0]):
            clip = Path(self.references[0].rpartition("::")[0])
            found["pictures"] = f"{clip.stat().st_size} bytes"
        else:
            shown = {self.references[i] for i in (0, self.length // 2, self.length - 1)}
            pictures = b"".join(frame_files.read_bytes(r) for r in sorted(shown))
            sizes = [_file_size(r) for r in self.references]
            found["pictures"] = _digest(pictures + repr(sizes).encode())
        return found

    def truth(self) -> str:
        """Return a digest of the whole annotation, on which supervised runs depend."""
        note = self.annotation
        parts = [note.boxes, note.absent, note.polygons]
        return _digest(b"".join(b"-" if p is None else np.asarray(p).tobytes() for p in parts))


def _file_size(reference: str) -> int:
    """Return the bytes of a frame's file, or of the archive that holds it."""
    path, _, _ = reference.partition("::")
    return os.stat(path).st_size


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def load(
    benchmark: str | Dataset,
    root: str | Path | None = None,
    split: str | None = None,
    names: tuple[str, ...] = (),
    on_problem: Callable[[JaxtrackError], None] | None = None,
) -> list[Sequence]:
    """Open a benchmark.

    Args:
        benchmark: "synthetic", "synthetic-hard", the name of a dataset in its own published layout ("otb",
            "lasot", ...), or one that `eval.files.datasets.find` has found.
        root: the dataset's folder; not for the synthetic ones.
        split: the dataset's split; None: the one that is scored.
        names: sequences to take; empty: all. Whatever is wrong with others does not matter.
        on_problem: called with what is wrong with each sequence that is then left out; None: the first
            problem is raised.

    Returns:
        The sequences, in the benchmark's order. No frame is read yet but the first of each.

    Raises:
        JaxtrackError: unknown benchmark, a missing or wrong folder, an unknown sequence.
    """
    dataset = benchmark if isinstance(benchmark, Dataset) else datasets.find(benchmark, split)
    datasets.check_root(dataset, root)
    if root is None:
        sequences = _synthetic(dataset.layout)
    else:
        sequences = _from_layout(dataset, resolve(root), names, on_problem)
    unknown = sorted(set(names) - {n for s in sequences for n in (s.name, s.video)})
    if unknown:
        raise JaxtrackError(
            f"{dataset.label} has no sequence {', '.join(unknown)}; it has {len(sequences)}, such as "
            f"{', '.join(s.name for s in sequences[:5])}"
        )
    return [s for s in sequences if not names or {s.name, s.video} & set(names)]


def first_box_fault(sequence: Sequence) -> str | None:
    """Return why a sequence's first box cannot start a tracker, in one line; None: it can."""
    return box_fault(sequence.boxes[0], sequence.size, f"{sequence.name}: the first box")


def shortened(sequence: Sequence, frames: int) -> Sequence:
    """Return the first frames of a sequence; 0: all of them."""
    if not frames:
        return sequence
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
def _synthetic_clips(
    benchmark: str,
) -> tuple[tuple[str, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]], ...]:
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
        for name, clip, attributes in benchmark_clips(benchmark)
    )


def _synthetic(benchmark: str) -> list[Sequence]:
    sequences = []
    for name, frames, boxes, absent, attributes in _synthetic_clips(benchmark):
        height, width = frames.shape[1:3]
        annotation = Annotation(boxes, absent, attributes, size=(width, height))
        opened = functools.partial(iter, frames)
        read = frames.__getitem__
        sequences.append(
            Sequence(name, len(frames), opened, boxes, annotation, (height, width), read=read)
        )
    return sequences


def _from_layout(
    dataset: Dataset,
    root: Path,
    names: tuple[str, ...],
    on_problem: Callable[[JaxtrackError], None] | None,
) -> list[Sequence]:
    sequences = []
    for read in read_layout(dataset.layout, root, dataset.split, names or None, on_problem):
        record, skipped = evaluated(dataset.layout, read)
        opened = functools.partial(_decoded, record.frames)
        clip = frame_files.is_clip_reference(record.frames[0])
        size, fault = (1, 1), None
        try:
            first = next(opened())
            size = (first.shape[0], first.shape[1])
        except JaxtrackError as error:
            fault = f"{record.name}: {error}"
        sequences.append(
            Sequence(
                name=record.name,
                length=len(record),
                frames=opened,
                boxes=record.boxes,
                annotation=annotation_of(record, (size[1], size[0]), skipped),
                size=size,
                origin=record.origin,
                read=None if clip else functools.partial(_one, record.frames),
                fault=fault,
                video=record.video,
                source=f"{dataset.layout} {dataset.split}",
                root=str(root.absolute()),
                references=record.frames,
            )
        )
    return sequences


def _one(references: tuple[str, ...], index: int) -> Frame:
    return frame_files.decode(frame_files.read_bytes(references[index]), references[index])


def _decoded(references: tuple[str, ...]) -> Iterator[Frame]:
    if frame_files.is_clip_reference(references[0]):
        yield from (frame for _, frame in frame_files.clip_frames(references))
    else:
        yield from (_one(references, index) for index in range(len(references)))
