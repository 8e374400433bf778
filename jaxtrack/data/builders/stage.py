"""The files of a build that is not finished: what each part is made of, and what became of it.

part-00012.spec      the videos of the part
part-00012.records   its shard
part-00012.done      digest of the spec, counts, and the rows of the index; written last
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
from pathlib import Path

from jaxtrack.data.builders.parts import PartRows, Skipped
from jaxtrack.data.record import VideoRecord


@dataclasses.dataclass(frozen=True)
class PartResult:
    """What became of a part.

    Attributes:
        spec: the part's description; `.records` and `.done` lie beside it.
        records: number of frame records in the shard.
        frames: number of frames that were read.
        rows: number of (target, frame) rows.
        targets: number of targets.
        bytes: size of the shard.
        skipped: frames that were left out.
    """

    spec: Path
    records: int
    frames: int
    rows: int
    targets: int
    bytes: int
    skipped: list[Skipped]

    @property
    def shard(self) -> Path:
        """The shard's file."""
        return self.spec.with_suffix(".records")


def save_spec(path: Path, dataset: str, crop: int, part: list[VideoRecord]) -> str:
    """Writes what a worker must know about a part.

    Args:
        path: where to write.
        dataset: dataset name.
        crop: side of the stored crops, 0 for whole frames.
        part: its records.

    Returns:
        A digest that changes with anything in it.
    """
    data = pickle.dumps((dataset, crop, part), protocol=5)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def load_spec(path: Path) -> tuple[str, int, list[VideoRecord]]:
    """Reads what `save_spec` wrote.

    Args:
        path: the file, written by this build on this machine.

    Returns:
        (dataset, crop, records).
    """
    return pickle.loads(path.read_bytes())


def finish(spec: Path, digest: str, part: list[VideoRecord], rows: PartRows) -> PartResult:
    """Marks a part as done, atomically.

    Args:
        spec: the part's description; its shard is complete.
        digest: of the description.
        part: its records.
        rows: filled by `part_examples`.

    Returns:
        The result, which `finished` gives again in a later run.
    """
    result = PartResult(
        spec=spec,
        records=len(rows.sizes),
        frames=len({f for record in part for f in record.frames}),
        rows=sum(len(record) for record in part),
        targets=len(rows.targets),
        bytes=spec.with_suffix(".records").stat().st_size,
        skipped=rows.skipped,
    )
    temporary = spec.with_suffix(".tmp")
    with open(temporary, "wb") as f:
        pickle.dump((digest, result, rows), f, protocol=5)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, spec.with_suffix(".done"))
    return result


def finished(spec: Path, digest: str) -> PartResult | None:
    """Finds the result of a part that an earlier run finished from the same input.

    Args:
        spec: the part's description.
        digest: of the description.

    Returns:
        The result; None if the part has to be made (again). A part that lost frames is made again:
        the files may have been repaired since.
    """
    try:
        with open(spec.with_suffix(".done"), "rb") as f:
            found, result, _ = pickle.load(f)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    if found != digest or result.skipped or not result.shard.exists():
        return None
    return result


def load_rows(result: PartResult) -> PartRows:
    """Reads a finished part's rows for the index.

    Args:
        result: of `finish` or `finished`.

    Returns:
        The rows.
    """
    with open(result.spec.with_suffix(".done"), "rb") as f:
        return pickle.load(f)[2]
