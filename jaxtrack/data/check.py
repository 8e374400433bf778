"""Check of a dataset's own folder before a build, and of a built dataset."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack.data import frames as frame_io
from jaxtrack.data import layouts, seal
from jaxtrack.data.builders import parts
from jaxtrack.data.record import (
    VideoRecord,
    doubts,
    implausible_boxes,
    numbers,
    reaching_out,
    usable_boxes,
)
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError


@dataclasses.dataclass
class Report:
    """What a check found.

    Attributes:
        videos: number of videos.
        targets: number of targets.
        frames: number of frames that were decoded.
        boxes: number of usable boxes.
        absent: number of frames flagged absent.
        outside: usable boxes that do not touch their frame.
        beyond: usable boxes that reach out of their frame by more than a pixel.
        resized: videos whose frame size changes (GOT-10k publishes some; trackers start anew on none).
        problems: one line for each frame or file that is not as it should be.
    """

    videos: int = 0
    targets: int = 0
    frames: int = 0
    boxes: int = 0
    absent: int = 0
    outside: int = 0
    beyond: int = 0
    resized: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def add_boxes(self, boxes: np.ndarray, absent: np.ndarray, sizes: np.ndarray) -> None:
        """Count boxes.

        Args:
            boxes: ``(n, 4)`` (x, y, w, h), pixels, 0-based.
            absent: ``(n,)`` bool.
            sizes: ``(n, 2)`` (height, width) of the frames.
        """
        self.absent += int(absent.sum())
        keep = usable_boxes(boxes) & ~absent
        self.boxes += int(keep.sum())
        low, high = boxes[keep, :2], boxes[keep, :2] + boxes[keep, 2:]
        limits = sizes[keep, ::-1]
        self.outside += int(((high <= 0) | (low >= limits)).any(axis=1).sum())
        self.beyond += int(reaching_out(boxes[keep], sizes[keep]).sum())

    def hints(self) -> list[str]:
        """Say what the counts suggest.

        Returns:
            Lines for the user.
        """
        found = doubts(self.beyond, self.boxes)
        if self.resized:
            found.append(
                f"the frame size changes in {len(self.resized)} videos: {', '.join(self.resized[:3])}"
            )
        return found


def _frame_sizes(records: list[VideoRecord]) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Decode the frames of one video."""
    references = list({f: None for record in records for f in record.frames})
    sizes: dict[str, tuple[int, int]] = {}
    problems = []
    name = records[0].video or records[0].name
    for reference, data in parts.frame_data(references):
        try:
            if isinstance(data, frame_io.FrameError):
                raise data
            if not isinstance(data, np.ndarray):
                _, data = frame_io.as_annotated(data, reference, records[0].size)
            sizes[reference] = data.shape[:2]
        except frame_io.FrameError as error:
            problems.append(f"video {name}: {error}")
    return sizes, problems


def check_source(
    dataset: str,
    root: str | os.PathLike,
    split: str | None = None,
    only: Iterable[str] | None = None,
    progress: Callable[[int], None] | None = None,
    threads: int = 2,
) -> Report:
    """Check a dataset's own folder: annotations, counts, and that every frame decodes.

    Args:
        dataset: dataset name.
        root: the folder.
        split: split name, or None for the default.
        only: names of videos to check.
        progress: called with the number of frames after each video.
        threads: videos that are decoded at once.

    Returns:
        The report.

    Raises:
        JaxtrackError: another layout. What is wrong with single videos is in the report.
    """
    report = Report()
    names = list(only) if only is not None else None

    def tell(problem: JaxtrackError) -> None:
        report.problems.append(str(problem))

    groups = parts.group_videos(layouts.iter_layout(dataset, root, split, names, tell))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting: list[tuple[list[VideoRecord], concurrent.futures.Future]] = []
        for group in groups:
            waiting.append((group, pool.submit(_frame_sizes, group)))
            if len(waiting) > 2 * threads:  # keeps memory flat
                _collect(report, *waiting.pop(0), progress)
        for item in waiting:
            _collect(report, *item, progress)
    if not report.targets and not report.problems:
        report.problems.append(f"{dataset}: no target that can be used in {os.fspath(root)}")
    return report


def _collect(
    report: Report,
    group: list[VideoRecord],
    future: concurrent.futures.Future,
    progress: Callable[[int], None] | None,
) -> None:
    sizes, problems = future.result()
    report.videos += 1
    report.targets += len(group)
    report.frames += len(sizes)
    report.problems += problems
    for record in group:
        known = np.array([sizes.get(f, (-1, -1)) for f in record.frames])
        there = known[:, 0] >= 0
        report.add_boxes(record.boxes[there], record.absent[there], known[there])
        if record.boxes.size and not record.usable.any():
            report.problems.append(f"video {record.name}: no usable box")
        if len({tuple(s) for s in known[there]}) > 1:
            report.resized.append(record.name)
        usable = np.flatnonzero(record.usable & there)
        report.problems += [
            f"video {record.name}: the box of frame {i}, {numbers(record.boxes[i])}, is far outside of its "
            f"{known[i][1]}x{known[i][0]} pixels"
            for i in usable[implausible_boxes(record.boxes[usable], known[usable])]
        ]
    if progress:
        progress(len(sizes) + len(problems))


def hints_of(source: FrameSource) -> list[str]:
    """Say what the boxes of a built dataset suggest; no frame is decoded.

    Args:
        source: the built dataset.

    Returns:
        Lines for the user.
    """
    report = Report()
    _add_stored(report, source)
    return report.hints()


def _add_stored(report: Report, source: FrameSource) -> None:
    stored = source.rows_record >= 0
    report.add_boxes(
        np.asarray(source.rows_box)[stored],
        np.asarray(source.rows_absent)[stored],
        np.asarray(source.sizes)[source.rows_record[stored]],
    )


def check_built(path: str | os.PathLike, progress: Callable[[int], None] | None = None) -> Report:
    """Check a built dataset: files, counts, and that every record decodes to its stored size.

    Args:
        path: folder of the built dataset (with ``dataset_info.json``), or one above it.
        progress: called with 1 after each record.

    Returns:
        The report.

    Raises:
        JaxtrackError: no built dataset there, or its parts do not fit together.
    """
    source = FrameSource(path)
    folder = Path(source.path)
    report = Report(videos=source.num_videos, targets=source.num_targets)
    readable = source.num_records
    try:
        source.open_records()
    except JaxtrackError as error:
        report.problems.append(str(error))
        readable = 0
    for number in range(readable):
        try:
            record: dict[str, Any] = source.record(number)
        except JaxtrackError as error:
            report.problems.append(str(error))
            continue
        try:
            pixels = frame_io.decode(record["image"], "the record")
            if pixels.shape[:2] != tuple(source.sizes[number]):
                raise frame_io.FrameError(f"size {pixels.shape[:2]}, not {source.sizes[number]}")
            report.frames += 1
        except frame_io.FrameError as error:
            report.problems.append(f"{source.describe(record)}: {error}")
        if progress:
            progress(1)
    _add_stored(report, source)
    report.problems += seal.bad_shards(folder, seal.read(folder))
    return report
