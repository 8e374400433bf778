"""Random access to a built dataset: its videos, targets and boxes, and the bytes of any frame."""

from __future__ import annotations

import functools
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack.errors import JaxtrackError

INDEX_VERSION = 1
_OPENING = threading.Lock()
_ROWS = ("record", "box", "absent", "visibility")


def built_in(root: Path, pattern: str) -> list[Path]:
    """Lists the finished builds in a folder.

    Args:
        root: the folder.
        pattern: glob of their folders, e.g. `*` or `**`.

    Returns:
        Folders that hold `dataset_info.json`, sorted; not those that TFDS has not renamed yet.
    """
    found = {p.parent for p in root.glob(f"{pattern}/dataset_info.json")}
    return sorted(p for p in found if not p.name.startswith("incomplete."))


def find_built(path: str | os.PathLike) -> Path:
    """Finds the built dataset in or below a folder.

    Args:
        path: the dataset's folder (`.../got10k/train_frames/1.0.0`) or one above it.

    Returns:
        The folder that holds `dataset_info.json`.

    Raises:
        JaxtrackError: there is none, or more than one.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise JaxtrackError(f"no folder {root}: build it with python -m jaxtrack.data.prepare")
    if (root / "dataset_info.json").exists():
        return root
    for depth in ("*", "*/*", "*/*/*"):
        hits = built_in(root, depth)
        if len(hits) == 1:
            return hits[0]
        if hits:
            listed = ", ".join(str(p.relative_to(root)) for p in hits[:4])
            raise JaxtrackError(f"{root} holds {len(hits)} built datasets: name one of {listed}")
    if any(root.glob("**/.*.parts")):
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
        videos: `(num_videos + 1,)` number of the first target of each video.
        targets: `(num_targets + 1,)` number of the first row of each target.
        rows_record: `(n,)` frame record of each row, -1 if its frame was left out.
        rows_box: `(n, 4)` float32 (x, y, w, h), 0-based, pixels of the record's image.
        rows_absent: `(n,)` bool.
        rows_visibility: `(n,)` float16 visible share.
        sizes: `(num_records, 2)` int32 (height, width).
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Opens a built dataset.

        Args:
            path: its folder, or one above it.

        Raises:
            JaxtrackError: no built dataset there, or a part of it is missing or of another version.
        """
        self.path = str(find_built(path))
        self._open()

    def _open(self) -> None:
        folder = Path(self.path)
        try:
            self.summary = json.loads((folder / "summary.json").read_text())
            load = {
                # Plain views: indexing numpy's memmap class costs ten times as much.
                name: np.load(folder / "index" / f"{name}.npy", mmap_mode="r").view(np.ndarray)
                for name in ("targets", "videos", "sizes", *(f"rows_{key}" for key in _ROWS))
            }
        except (OSError, ValueError, EOFError) as error:
            raise JaxtrackError(
                f"the built dataset {folder} is damaged ({error}): delete it and build it again"
            ) from error
        if self.summary["index_version"] != INDEX_VERSION:
            raise JaxtrackError(
                f"{folder} was built by another version: delete it and build it again"
            )
        self.name: str = self.summary["dataset"]
        self.split: str = self.summary["split"]
        self.crop: int = self.summary["crop"]
        self.targets, self.videos = load["targets"], load["videos"]
        self.sizes, self.rows_record = load["sizes"], load["rows_record"]
        self.rows_box, self.rows_absent = load["rows_box"], load["rows_absent"]
        self.rows_visibility = load["rows_visibility"]
        self._names: dict[str, list[str]] | None = None
        self._records: Any = None
        self._deserialize: Any = None
        self._example: Any = None

    def __getstate__(self) -> str:
        """Workers open the files themselves."""
        return self.path

    def __setstate__(self, path: str) -> None:
        """Opens the files in the worker."""
        self.path = path
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
        """Names of `targets`, their `classes`, and of `videos`."""
        if self._names is None:
            self._names = json.loads((Path(self.path) / "index" / "names.json").read_text())
        return self._names

    def targets_of(self, video: int) -> range:
        """Lists the targets of a video.

        Args:
            video: number of the video.

        Returns:
            Numbers of its targets.
        """
        return range(int(self.videos[video]), int(self.videos[video + 1]))

    def rows_of(self, target: int) -> slice:
        """Finds the rows of a target, one per frame in order.

        Args:
            target: number of the target.

        Returns:
            A slice into the `rows_*` arrays.
        """
        return slice(int(self.targets[target]), int(self.targets[target + 1]))

    def record(self, number: int) -> dict[str, Any]:
        """Reads a frame record.

        Args:
            number: its number, as in `rows_record`.

        Returns:
            `image` (encoded bytes), `file`, `video`, `frame`, `targets`, `boxes`, `absent`.

        Raises:
            JaxtrackError: the shard cannot be read.
        """
        raw = self._raw(number)  # opens the files, which sets what follows
        return self._deserialize(raw)

    def image(self, number: int) -> bytes:
        """Reads the encoded image of a frame record and nothing else of it (a sixth of the time).

        Args:
            number: its number, as in `rows_record`.

        Returns:
            JPEG (or PNG) bytes.

        Raises:
            JaxtrackError: the shard cannot be read.
        """
        raw = self._raw(number)
        return self._example.FromString(raw).features.feature["image"].bytes_list.value[0]

    def _raw(self, number: int) -> bytes:
        if self._records is None:
            # One thread at a time: two that import tensorflow_datasets at once wait for each other.
            with _OPENING:
                if self._records is None:
                    self._open_records()
        try:
            return self._records[number]
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            raise JaxtrackError(
                f"record {number} of {self.path} cannot be read ({error}): run prepare with --check"
            ) from error

    def _open_records(self) -> None:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        _raise_file_limit()
        builder = tfds.builder_from_directory(self.path)
        skip = {"image": tfds.decode.SkipDecoding()}
        self._example = tf_example_pb2.Example
        self._deserialize = functools.partial(
            builder.info.features.deserialize_example_np, decoders=skip
        )
        self._records = builder.as_data_source(
            split=self.split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )

    def describe_row(self, row: int) -> str:
        """Names a row without reading its record: dataset, target, frame.

        Args:
            row: number of the row.

        Returns:
            One phrase.
        """
        target = int(np.searchsorted(self.targets, row, side="right")) - 1
        frame = row - int(self.targets[target])
        return f"{self.name}: video {self.names['targets'][target]}, frame {frame}"

    def describe(self, record: dict[str, Any]) -> str:
        """Names a frame: dataset, video, frame, file.

        Args:
            record: as given by `record`.

        Returns:
            One phrase.
        """
        video, file = record["video"].decode(), record["file"].decode()
        return f"{self.name}: video {video}, frame {int(record['frame'])} ({file})"


def _raise_file_limit() -> None:
    """Every shard is an open file; the usual limit of 1024 is too low for TrackingNet."""
    try:
        import resource
    except ImportError:  # not a POSIX system: no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
