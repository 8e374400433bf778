"""What a build consists of: parts of whole videos, and the frame records made from each part.

A part is the unit of parallel work and of resuming: it becomes one shard. Part k holds about
``1000 << (k // 256)`` frames, so that a million frames give some hundred files and ten million not
tens of thousands.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jaxtrack.data import frames as frame_io
from jaxtrack.data.record import VideoRecord, implausible_boxes, numbers
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.patch import context_side

FRAMES_PER_PART = 1000
_DOUBLE_EVERY = 256

# Side of the context window in a stored crop, and the ratio of crop to window: PySOT's convention.
EXEMPLAR_SIDE = 127


@dataclasses.dataclass
class Skipped:
    """A frame that could not be stored.

    Attributes:
        reason: one of a few words, to count by.
        where: dataset, video, frame and file.
    """

    reason: str
    where: str


@dataclasses.dataclass
class PartRows:
    """What the index needs to know of a part's records, beside the records themselves.

    Attributes:
        sizes: (height, width) of every record's image.
        targets: one entry per target: name, video, object class, and its rows.
        skipped: frames that were left out.
    """

    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    targets: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    skipped: list[Skipped] = dataclasses.field(default_factory=list)


def group_videos(records: Iterable[VideoRecord]) -> Iterator[list[VideoRecord]]:
    """Group the targets of one video, which follow each other.

    Args:
        records: a layout's records.

    Yields:
        Lists of records with the same ``video``.
    """
    for _, group in itertools.groupby(records, key=lambda r: r.video or r.name):
        yield list(group)


def plan(
    records: Iterable[VideoRecord], frames_per_part: int = FRAMES_PER_PART
) -> Iterator[list[VideoRecord]]:
    """Cut a layout into parts of whole videos.

    Args:
        records: a layout's records.
        frames_per_part: frames in one of the first parts.

    Yields:
        The records of each part.
    """
    part: list[VideoRecord] = []
    count = number = 0
    for video in group_videos(records):
        part += video
        count += len({f for record in video for f in record.frames})
        if count >= frames_per_part << (number // _DOUBLE_EVERY):
            yield part
            part, count, number = [], 0, number + 1
    if part:
        yield part


def part_examples(
    dataset: str, crop: int, part: list[VideoRecord], rows: PartRows, root: str
) -> Iterator[dict[str, Any]]:
    """Make the records of a part, checking that every image decodes.

    Args:
        dataset: dataset name.
        crop: side of the stored crops (one record per target and usable frame), 0 for whole frames
            (one record per frame, whatever the number of its targets).
        part: records of whole videos.
        rows: filled while this runs.
        root: the dataset's folder; file names are stored relative to it.

    Yields:
        Feature dictionaries of ``builders.frames.features``.
    """
    for video in group_videos(part):
        first = len(rows.targets)
        rows.targets += [_target_entry(record) for record in video]
        entries = rows.targets[first:]
        annotated = [record.annotated for record in video]
        uses: dict[str, list[tuple[int, int]]] = {}  # frame -> (target, position in its video)
        for target, record in enumerate(video):
            for position, reference in enumerate(record.frames):
                if entries[target]["usable"][position] if crop else annotated[target][position]:
                    uses.setdefault(reference, []).append((target, position))
        for reference, data in frame_data(uses):
            users = uses[reference]
            where = frame_io.describe(
                dataset, video[users[0][0]].name, users[0][1], os.path.relpath(reference, root)
            )
            try:
                if isinstance(data, frame_io.FrameError):
                    raise data
                yield from _examples(crop, video, entries, users, reference, data, rows, root)
            except frame_io.FrameError as error:
                rows.skipped.append(Skipped(_reason(error), f"{where}: {error}"))


def _reason(error: frame_io.FrameError) -> str:
    text = str(error)
    for words in (
        "no such file",
        "no image",
        "truncated",
        "damaged",
        "are declared",
        "ends before frame",
        "a box far outside",
        "another size",
    ):
        if words in text:
            return words
    return "unreadable"


def _target_entry(record: VideoRecord) -> dict[str, Any]:
    count = len(record)
    visibility = record.visibility if record.visibility is not None else np.ones(count)
    return {
        "name": record.name,
        "video": record.video or record.name,
        "object_class": record.object_class,
        "record": np.full(count, -1, dtype=np.int64),  # within the part
        "box": np.asarray(record.boxes, dtype=np.float32),
        "absent": np.asarray(record.absent, dtype=bool),
        "usable": record.usable,
        "visibility": visibility.astype(np.float32),
    }


def frame_data(
    references: Iterable[str],
) -> Iterator[tuple[str, bytes | np.ndarray | frame_io.FrameError]]:
    """Read every frame of a video once.

    Args:
        references: frame references, all into clips or none.

    Yields:
        (reference, the file's bytes, the pixels if it lies in a clip, or the error).
    """
    listed = list(references)
    if listed and frame_io.is_clip_reference(listed[0]):
        yield from _clip_data(listed)
        return
    for reference in listed:
        try:
            yield reference, frame_io.read_bytes(reference)
        except frame_io.FrameError as error:
            yield reference, error


def _clip_data(
    references: list[str],
) -> Iterator[tuple[str, bytes | np.ndarray | frame_io.FrameError]]:
    """Decode clip frames; once a clip breaks off, all that follow are errors."""
    left = list(references)
    try:
        for reference, frame in frame_io.clip_frames(references):
            left.pop(0)
            yield reference, frame
    except frame_io.FrameError as error:
        for reference in left:
            yield reference, error


def _examples(
    crop: int,
    video: list[VideoRecord],
    entries: list[dict[str, Any]],
    users: list[tuple[int, int]],
    reference: str,
    data: bytes | np.ndarray,
    rows: PartRows,
    root: str,
) -> Iterator[dict[str, Any]]:
    """Make the record(s) of one frame."""
    name = os.path.relpath(reference, root)
    if isinstance(data, bytes):
        data, pixels = frame_io.as_annotated(data, name, video[users[0][0]].size)
    else:
        pixels = data
    for target, position in users:
        usable = entries[target]["usable"][position]
        if usable and implausible_boxes(video[target].boxes[position], pixels.shape[:2]):
            box = numbers(video[target].boxes[position])
            raise frame_io.FrameError(
                f"a box far outside: {video[target].name} is at {box} in "
                f"{pixels.shape[1]}x{pixels.shape[0]} pixels"
            )
    if not crop:
        encoded = data if isinstance(data, bytes) else frame_io.encode(pixels)
        yield _add(
            entries, users, [entries[t]["box"][p] for t, p in users], encoded, pixels, rows, name
        )
        return
    pad = frame_io.mean_colour(pixels)
    for target, position in users:
        box = video[target].boxes[position]
        window = context_side(box[2], box[3]) * crop / EXEMPLAR_SIDE
        centre = (box[0] + box[2] / 2, box[1] + box[3] / 2)
        patch = frame_io.cut_patch(pixels, centre, window, crop, pad)
        scaled = np.array([crop / 2, crop / 2, 0, 0]) + np.array(
            [-box[2] / 2, -box[3] / 2, box[2], box[3]]
        ) * (crop / window)
        entries[target]["box"][position] = scaled
        yield _add(
            entries, [(target, position)], [scaled], frame_io.encode(patch), patch, rows, name
        )


def _add(
    entries: list[dict[str, Any]],
    users: list[tuple[int, int]],
    boxes: list[np.ndarray],
    encoded: bytes,
    pixels: np.ndarray,
    rows: PartRows,
    name: str,
) -> dict[str, Any]:
    number = len(rows.sizes)
    rows.sizes.append(pixels.shape[:2])
    for target, position in users:
        entries[target]["record"][position] = number
    return {
        "video": entries[users[0][0]]["video"],
        "frame": users[0][1],
        "file": name,
        "image": encoded,
        "targets": [entries[t]["name"] for t, _ in users],
        "boxes": np.asarray(boxes, dtype=np.float32),
        "absent": np.array([entries[t]["absent"][p] for t, p in users], dtype=bool),
    }


def check_skips(dataset: str, skipped: list[Skipped], total: int, max_bad: float) -> None:
    """Stop a build that loses too many frames.

    Args:
        dataset: dataset name.
        skipped: frames that could not be stored.
        total: frames that were read.
        max_bad: share that may be lost.

    Raises:
        JaxtrackError: more than that; names the first.
    """
    if len(skipped) > max_bad * total:
        raise JaxtrackError(
            f"{dataset}: {len(skipped)} of {total} frames cannot be stored (more than {max_bad:.2%}); "
            f"first: {skipped[0].where}; repair the files, or raise --max-bad to leave them out"
        )
