"""The index of a built dataset: which target is where in which frame, as memory-mapped arrays.

rows_*      one row per target and frame, the rows of a target together
targets_*   one entry per target: where its rows start, which video it belongs to
videos      where the targets of each video start
sizes       (height, width) of every frame record
names.json  names of the targets and their classes (numpy strings would take ten times the room)
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack.data.builders import stage
from jaxtrack.data.record import usable_boxes
from jaxtrack.data.source import INDEX_VERSION
from jaxtrack.io.records import write_json

SHOWN_SKIPS = 50


def write(
    folder: Path, dataset: str, split: str, crop: int, done: list[stage.PartResult]
) -> dict[str, Any]:
    """Write the index of a dataset from the results of its parts, one part in memory at a time.

    Args:
        folder: the dataset's folder.
        dataset: dataset name.
        split: split name.
        crop: side of the stored crops, or 0.
        done: results of all parts, in order.

    Returns:
        The summary (see ``write_summary``).
    """
    out = folder / "index"
    out.mkdir(exist_ok=True)
    count, records = sum(p.rows for p in done), sum(p.records for p in done)
    rows = {
        key: _create(out / f"rows_{key}.npy", dtype, (count, *shape))
        for key, (dtype, shape) in _ROWS.items()
    }
    sizes = _create(out / "sizes.npy", np.int32, (records, 2))
    listed = _Listing()
    row = record = 0
    for part in done:
        found = stage.load_rows(part)
        sizes[record : record + part.records] = np.reshape(found.sizes, (-1, 2))
        for target in found.targets:
            end = row + len(target["record"])
            stored = target["record"] >= 0
            rows["record"][row:end] = np.where(stored, target["record"] + record, -1)
            rows["box"][row:end] = target["box"]
            rows["absent"][row:end] = target["absent"]
            rows["visibility"][row:end] = target["visibility"]
            listed.add(target, end, stored)
            row = end
        record += part.records
    for array in (*rows.values(), sizes):
        array.flush()
    np.save(out / "targets.npy", np.array(listed.ends, dtype=np.int64))
    np.save(out / "videos.npy", np.array([*listed.video_starts, len(listed.names)], dtype=np.int64))
    write_json(
        out / "names.json",
        {"targets": listed.names, "classes": listed.classes, "videos": listed.videos},
    )
    skipped = [skip for part in done for skip in part.skipped]
    return {
        "index_version": INDEX_VERSION,
        "dataset": dataset,
        "split": split,
        "crop": crop,
        "videos": len(listed.videos),
        "targets": len(listed.names),
        "frames": sum(part.frames for part in done),
        "records": records,
        "boxes": listed.boxes,
        "absent": listed.absent,
        "without_box": listed.without_box,
        "skipped": dict(collections.Counter(skip.reason for skip in skipped)),
        "skipped_frames": [skip.where for skip in skipped[:SHOWN_SKIPS]],
        "bytes": sum(part.bytes for part in done),
    }


_ROWS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "record": (np.int64, ()),
    "box": (np.float32, (4,)),
    "absent": (np.bool_, ()),
    "visibility": (np.float16, ()),
}


def _create(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


class _Listing:
    """Collect names, boundaries and counts while the parts go by."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.classes: list[str] = []
        self.videos: list[str] = []
        self.video_starts: list[int] = []
        self.ends = [0]
        self.boxes = self.absent = self.without_box = 0

    def add(self, target: dict[str, Any], end: int, stored: np.ndarray) -> None:
        if not self.videos or target["video"] != self.videos[-1]:
            self.videos.append(target["video"])
            self.video_starts.append(len(self.names))
        self.names.append(target["name"])
        self.classes.append(target["object_class"])
        self.ends.append(end)
        usable = usable_boxes(target["box"])
        self.boxes += int((usable & ~target["absent"] & stored).sum())
        self.absent += int(target["absent"].sum())
        self.without_box += int((~usable & ~target["absent"]).sum())


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write ``summary.json``.

    Args:
        folder: the dataset's folder.
        summary: counts; JSON types only.
    """
    write_json(folder / "summary.json", summary)
