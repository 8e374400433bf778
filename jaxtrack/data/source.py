"""Random access to a built dataset: its videos, targets and boxes, and the bytes of any frame."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack.data import seal
from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io import paths
from jaxtrack.io.records import read_json

INDEX_VERSION = 2  # of what builders write; raised when older builds cannot be read any more
_OPENING = threading.Lock()
_ROWS = ("record", "box", "absent", "visibility")


def built_below(root: Path, depth: int = 4) -> list[Path]:
    """List the finished builds in a folder.

    Args:
        root: the folder.
        depth: how many folders down they may lie (``got10k/train_frames/1.0.0`` is three).

    Returns:
        Folders that hold ``dataset_info.json``, sorted; not those that TFDS has not renamed yet.
    """
    return sorted(p for p in _folders(root, depth) if (p / "dataset_info.json").is_file())


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Yield the folders below one; hidden ones are left out, and so is what is still being written."""
    try:
        with os.scandir(root) as entries:
            inner = [e.name for e in entries if e.is_dir()]
    except OSError as error:
        raise JaxtrackError(f"{root} cannot be listed: {error.strerror}") from error
    for name in sorted(inner):
        if name.startswith((".", "incomplete.")):
            continue
        yield root / name
        if depth > 1:
            yield from _folders(root / name, depth - 1)


def find_built(path: str | os.PathLike) -> Path:
    """Find the built dataset in or below a folder.

    Args:
        path: the dataset's folder (``.../got10k/train_frames/1.0.0``) or one above it.

    Returns:
        The folder that holds ``dataset_info.json``.

    Raises:
        JaxtrackError: there is none, or more than one.
    """
    root = paths.resolve(path)
    if not root.is_dir():
        raise JaxtrackError(f"no folder {root}: build it with python -m jaxtrack.data.prepare")
    if (root / "dataset_info.json").exists():
        return root
    hits = built_below(root)
    if len(hits) == 1:
        return hits[0]
    if hits:
        listed = ", ".join(str(p.relative_to(root)) for p in hits[:4])
        raise JaxtrackError(f"{root} holds {len(hits)} built datasets: name one of {listed}")
    if any(any(f.glob(".*.parts")) for f in (root, *_folders(root, 3))):
        raise JaxtrackError(
            f"the build in {root} is not finished: run the same prepare command again"
        )
    raise JaxtrackError(
        f"no built dataset in {root} (looked for dataset_info.json): "
        "build it with python -m jaxtrack.data.prepare"
    )


class FrameSource:
    """A built dataset, opened lazily and picklable, so that workers can share it.

    Videos hold targets, targets hold rows (one per frame), rows point to frame records.

    Attributes:
        path: the dataset's folder.
        name: dataset name.
        split: split name.
        crop: side of the stored crops, or 0 for whole frames.
        summary: the build's counts.
        videos: ``(num_videos + 1,)`` number of the first target of each video.
        targets: ``(num_targets + 1,)`` number of the first row of each target.
        rows_record: ``(n,)`` frame record of each row, -1 if its frame was left out.
        rows_box: ``(n, 4)`` float32 (x, y, w, h), 0-based, pixels of the record's image.
        rows_absent: ``(n,)`` bool.
        rows_visibility: ``(n,)`` float16 visible share.
        sizes: ``(num_records, 2)`` int32 (height, width).
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Open a built dataset.

        Args:
            path: its folder, or one above it.

        Raises:
            JaxtrackError: no built dataset there, or a part of it is missing or of another version.
        """
        self.path = str(find_built(path))
        folder = Path(self.path)
        self.check_version(folder)
        self._seal = seal.read(folder)
        seal.verify(folder, self._seal)
        self._open()

    @staticmethod
    def check_version(folder: Path) -> None:
        """Refuse a build of another version before anything else of it is judged."""
        try:
            version = read_json(folder / "summary.json", kind=dict).get("index_version")
        except JaxtrackError:
            return  # damaged: the checksums tell
        if version != INDEX_VERSION:
            raise JaxtrackError(
                f"{folder} was built by another version: delete it and build it again"
            )

    def _open(self) -> None:
        folder = Path(self.path)
        try:
            self.summary = read_json(folder / "summary.json", "the counts of a build", dict)
            load = {
                # Plain views: indexing numpy's memmap class costs ten times as much.
                name: np.load(folder / "index" / f"{name}.npy", mmap_mode="r").view(np.ndarray)
                for name in ("targets", "videos", "sizes", *(f"rows_{key}" for key in _ROWS))
            }
            self.name: str = self.summary["dataset"]
            self.split: str = self.summary["split"]
            self.crop: int = self.summary["crop"]
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            raise JaxtrackError(
                f"the built dataset {folder} is damaged ({error}): delete it and build it again"
            ) from error
        self.targets, self.videos = load["targets"], load["videos"]
        self.sizes, self.rows_record = load["sizes"], load["rows_record"]
        self.rows_box, self.rows_absent = load["rows_box"], load["rows_absent"]
        self.rows_visibility = load["rows_visibility"]
        self._names: dict[str, list[str]] | None = None
        self._records: Any = None
        self._deserialize: Any = None
        self._example: Any = None

    def __getstate__(self) -> tuple[str, dict[str, Any]]:
        """Return what workers need to open the files themselves."""
        return self.path, self._seal

    def __setstate__(self, state: tuple[str, dict[str, Any]]) -> None:
        """Open the files in the worker; they were verified by the process that started it."""
        self.path, self._seal = state
        self._open()

    @property
    def num_videos(self) -> int:
        """Number of videos."""
        return len(self.videos) - 1

    @property
    def num_targets(self) -> int:
        """Number of targets."""
        return len(self.targets) - 1

    @property
    def num_records(self) -> int:
        """Number of frame records."""
        return len(self.sizes)

    @property
    def names(self) -> dict[str, list[str]]:
        """Name of ``targets``, their ``classes``, and of ``videos``."""
        if self._names is None:
            names = Path(self.path) / "index" / "names.json"
            self._names = read_json(names, "the names of a build", dict)
        assert self._names is not None
        return self._names

    def targets_of(self, video: int) -> range:
        """List the targets of a video.

        Args:
            video: number of the video.

        Returns:
            Numbers of its targets.
        """
        return range(int(self.videos[video]), int(self.videos[video + 1]))

    def rows_of(self, target: int) -> slice:
        """Find the rows of a target, one per frame in order.

        Args:
            target: number of the target.

        Returns:
            A slice into the ``rows_*`` arrays.
        """
        return slice(int(self.targets[target]), int(self.targets[target + 1]))

    def record(self, number: int) -> dict[str, Any]:
        """Read a frame record.

        Args:
            number: its number, as in ``rows_record``.

        Returns:
            ``image`` (encoded bytes), ``file``, ``video``, ``frame``, ``targets``, ``boxes``, ``absent``.

        Raises:
            JaxtrackError: the shard cannot be read.
        """
        raw = self._raw(number)  # opens the files, which sets what follows
        return self._deserialize(raw)

    def image(self, number: int) -> bytes:
        """Read the encoded image of a frame record and nothing else of it (a sixth of the time).

        Args:
            number: its number, as in ``rows_record``.

        Returns:
            JPEG (or PNG) bytes.

        Raises:
            JaxtrackError: the shard cannot be read.
        """
        raw = self._raw(number)
        return self._example.FromString(raw).features.feature["image"].bytes_list.value[0]

    def open_records(self) -> None:
        """Open the shards; the first record that is read does so.

        Raises:
            JaxtrackError: one of them is damaged.
        """
        if self._records is None:
            # One thread at a time: two that import tensorflow_datasets at once wait for each other.
            with _OPENING:
                if self._records is None:
                    self._open_records()

    def _raw(self, number: int) -> bytes:
        self.open_records()
        try:
            return self._records[number]
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            raise JaxtrackError(
                f"record {number} of {self.path} cannot be read ({error}): run prepare with --check"
            ) from error

    def _open_records(self) -> None:
        # TFDS would import what the build's own feature file names: the features here are ours.
        import tensorflow_datasets as tfds
        from array_record.python import array_record_data_source as array_record
        from tensorflow_datasets.proto import tf_example_pb2

        from jaxtrack.data.builders.frames import features

        _raise_file_limit()
        skip = {"image": tfds.decode.SkipDecoding()}
        self._example = tf_example_pb2.Example
        self._deserialize = functools.partial(features().deserialize_example_np, decoders=skip)
        shards = [os.path.join(self.path, shard["name"]) for shard in self._seal["shards"]]
        try:
            self._records = array_record.ArrayRecordDataSource(shards)
        except (RuntimeError, ValueError, OSError) as error:
            raise JaxtrackError(
                f"the built dataset {self.path} is damaged, its records cannot be opened ({brief(error)}): "
                "delete it and build it again"
            ) from error

    def describe_row(self, row: int) -> str:
        """Name a row without reading its record: dataset, target, frame.

        Args:
            row: number of the row.

        Returns:
            One phrase.
        """
        target = int(np.searchsorted(self.targets, row, side="right")) - 1
        frame = row - int(self.targets[target])
        return f"{self.name}: video {self.names['targets'][target]}, frame {frame}"

    def describe(self, record: dict[str, Any]) -> str:
        """Name a frame: dataset, video, frame, file.

        Args:
            record: as given by ``record``.

        Returns:
            One phrase.
        """
        video, file = record["video"].decode(), record["file"].decode()
        return f"{self.name}: video {video}, frame {int(record['frame'])} ({file})"


def _raise_file_limit() -> None:
    """Let this process open more files.

    Every shard is an open file, and the usual limit of 1024 is too low for TrackingNet.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system: no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
