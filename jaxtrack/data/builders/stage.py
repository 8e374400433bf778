"""The files of a build that is not finished: what each part is made of, and what became of it.

    part-00012.spec                     the videos of the part
    part-00012.DIGEST.PROCESS.records   its shard, written by one process alone
    part-00012.done                     digest of the spec, the shard's name and checksum, and the rows of
                                        the index; written last

All are arrays and JSON (``.npz``), so that reading them runs no code. Every file carries the name of the
process that writes it until it is complete: a worker that outlives a killed build harms nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack.data import layouts
from jaxtrack.data.builders.parts import PartRows, Skipped, plan
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import BROKEN_INPUT, JaxtrackError
from jaxtrack.io.atomic import read_whole, write_whole
from jaxtrack.io.records import checksum

# What reading a damaged archive of arrays raises.
_DAMAGED: tuple[type[Exception], ...] = (
    JaxtrackError,
    *BROKEN_INPUT,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
)

# Names and boxes of the frames of one part.
_LARGEST = 1 << 34


@dataclasses.dataclass(frozen=True)
class PartResult:
    """What became of a part.

    Attributes:
        spec: the part's description; the shard and ``.done`` lie beside it.
        shard: the shard's file.
        sha256: checksum of the shard.
        records: number of frame records in the shard.
        frames: number of frames that were read.
        rows: number of (target, frame) rows.
        targets: number of targets.
        bytes: size of the shard.
        skipped: frames that were left out.
    """

    spec: Path
    shard: Path
    sha256: str
    records: int
    frames: int
    rows: int
    targets: int
    bytes: int
    skipped: list[Skipped]


def save_spec(
    path: Path | None, dataset: str, crop: int, part: list[VideoRecord], root: str
) -> str:
    """Write what a worker must know about a part.

    Args:
        path: where to write; None: only the digest is wanted.
        dataset: dataset name.
        crop: side of the stored crops, 0 for whole frames.
        part: its records.
        root: the dataset's folder; file names are kept relative to it, so that it may be moved.

    Returns:
        A digest that changes with anything in it.
    """
    folder = root.rstrip(os.sep) + os.sep
    header = {
        "dataset": dataset,
        "crop": crop,
        "targets": [
            {
                "name": r.name,
                "video": r.video,
                "object_class": r.object_class,
                "frames": [f.removeprefix(folder) for f in r.frames],
                "sparse": r.sparse,
                "size": r.size,
                "visibility": r.visibility is not None,
            }
            for r in part
        ],
    }
    arrays = {
        "boxes": _joined([r.boxes for r in part], (4,), np.float64),
        "absent": _joined([r.absent for r in part], (), np.bool_),
        "visibility": _joined(
            [r.visibility for r in part if r.visibility is not None], (), np.float32
        ),
    }
    return _save(path, header, arrays)


def combined(digests: Iterable[str]) -> str:
    """Return one digest of those of all parts."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def made_from(dataset: str, root: Path, split: str, only: Collection[str] | None, crop: int) -> str:
    """Return a digest of what a dataset's folder says: names, boxes, flags and files (not their pixels).

    Args:
        dataset: dataset name.
        root: the dataset's folder.
        split: split name.
        only: names of videos to keep.
        crop: side of the stored crops.
    """
    planned = plan(layouts.iter_layout(dataset, root, split, only))
    return combined(save_spec(None, dataset, crop, part, str(root)) for part in planned)


def load_spec(path: Path, root: str) -> tuple[str, int, list[VideoRecord]]:
    """Read what ``save_spec`` wrote.

    Args:
        path: the file.
        root: the dataset's folder.

    Returns:
        (dataset, crop, records).
    """
    header, arrays = _load(path)
    part = []
    start = seen = 0
    for target in header["targets"]:
        stop = start + len(target["frames"])
        visibility = None
        if target["visibility"]:
            visibility = arrays["visibility"][seen : seen + stop - start]
            seen += stop - start
        part.append(
            VideoRecord(
                name=target["name"],
                frames=tuple(os.path.join(root, f) for f in target["frames"]),
                boxes=arrays["boxes"][start:stop],
                absent=arrays["absent"][start:stop],
                video=target["video"],
                visibility=visibility,
                object_class=target["object_class"],
                sparse=target["sparse"],
                size=None if target["size"] is None else tuple(target["size"]),
            )
        )
        start = stop
    return header["dataset"], header["crop"], part


def shard_path(spec: Path, digest: str) -> Path:
    """Name the shard that this process writes for a part.

    Args:
        spec: the part's description.
        digest: of the description.

    Returns:
        A path that no other process uses.
    """
    return spec.with_suffix(f".{digest[:12]}.{os.getpid()}.records")


def finish(
    spec: Path, digest: str, part: list[VideoRecord], rows: PartRows, shard: Path
) -> PartResult:
    """Mark a part as done, atomically.

    Args:
        spec: the part's description.
        digest: of the description.
        part: its records.
        rows: filled by ``part_examples``.
        shard: the shard's file, complete and read back.

    Returns:
        The result, which ``finished`` gives again in a later run.
    """
    result = PartResult(
        spec=spec,
        shard=shard,
        sha256=checksum(shard),
        records=len(rows.sizes),
        frames=len({f for record in part for f in record.frames}),
        rows=sum(len(record) for record in part),
        targets=len(rows.targets),
        bytes=shard.stat().st_size,
        skipped=rows.skipped,
    )
    kept = dataclasses.asdict(result)
    header = {
        **kept,
        "spec": digest,
        "shard": shard.name,
        "skipped": [dataclasses.asdict(s) for s in rows.skipped],
        "of_targets": [
            {"name": t["name"], "video": t["video"], "object_class": t["object_class"]}
            for t in rows.targets
        ],
        "lengths": [len(t["record"]) for t in rows.targets],
    }
    arrays = {
        "sizes": np.asarray(rows.sizes, np.int32).reshape(-1, 2),
        **{
            key: _joined([t[key] for t in rows.targets], shape, dtype)
            for key, (dtype, shape) in _ROWS.items()
        },
    }
    _save(spec.with_suffix(".done"), header, arrays)
    return result


_ROWS: Mapping[str, tuple[Any, tuple[int, ...]]] = {
    "record": (np.int64, ()),
    "box": (np.float32, (4,)),
    "absent": (np.bool_, ()),
    "usable": (np.bool_, ()),
    "visibility": (np.float32, ()),
}


def finished(spec: Path, digest: str) -> PartResult | None:
    """Find the result of a part that an earlier run finished from the same input.

    Args:
        spec: the part's description.
        digest: of the description.

    Returns:
        The result; None if the part has to be made (again). A part that lost frames is made again:
        the files may have been repaired since. So is one whose shard is not what was written.
    """
    try:
        header, _ = _load(spec.with_suffix(".done"))
        if header["spec"] != digest or header["skipped"]:
            return None
        shard = spec.parent / Path(header["shard"]).name
        counts = {
            key: int(header[key]) for key in ("records", "frames", "rows", "targets", "bytes")
        }
        result = PartResult(spec, shard, header["sha256"], skipped=[], **counts)
        if shard.stat().st_size != result.bytes or checksum(shard) != result.sha256:
            return None
    except _DAMAGED:
        return None
    return result


def load_rows(result: PartResult) -> PartRows:
    """Read a finished part's rows for the index.

    Args:
        result: of ``finish`` or ``finished``.

    Returns:
        The rows.
    """
    header, arrays = _load(result.spec.with_suffix(".done"))
    rows = PartRows(
        sizes=[(int(h), int(w)) for h, w in arrays["sizes"]],
        skipped=[Skipped(s["reason"], s["where"]) for s in header["skipped"]],
    )
    start = 0
    for target, length in zip(header["of_targets"], header["lengths"], strict=True):
        stop = start + length
        rows.targets.append({**target, **{key: arrays[key][start:stop] for key in _ROWS}})
        start = stop
    return rows


def _joined(arrays: list[Any], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.concatenate([np.zeros((0, *shape), dtype), *(np.asarray(a, dtype) for a in arrays)])


def _save(path: Path | None, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """Write arrays and a JSON header, whole or not at all; gives a digest of the content."""
    note = json.dumps(header, default=os.fspath).encode()
    digest = hashlib.sha256(note)
    for key in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[key]).tobytes())
    if path is None:
        return digest.hexdigest()
    data = io.BytesIO()
    np.savez(data, header=np.frombuffer(note, np.uint8), **arrays)  # type: ignore[arg-type]
    write_whole(path, data.getvalue())
    return digest.hexdigest()


def _load(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(io.BytesIO(read_whole(path, _LARGEST)), allow_pickle=False) as found:
        arrays = {key: found[key] for key in found.files}
    return json.loads(arrays.pop("header").tobytes()), arrays
