"""The TFDS builder that every dataset shares: one record per frame, array_record, no TensorFlow.

    DIR/got10k/train_frames/1.0.0/
        dataset_info.json, features.json                   TFDS's own, written last
        got10k-train.array_record-00000-of-00132           the frames
        index/*.npy                                         targets and boxes, memory-mapped
        summary.json                                        counts, and what was left out
        checksums.json                                      sizes and checksums of all of these

A build writes its parts to ``DIR/got10k/train_frames/.1.0.0.parts`` and links them into place at the
end, so that a killed build leaves nothing that looks finished and a second run goes on with it. Every
shard is read back before it counts as done.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core import splits as tfds_splits

from jaxtrack.data import layouts, seal
from jaxtrack.data.builders import index, parts, stage
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import lock
from jaxtrack.io.records import checksum

# Records are read one by one in random order, so each is compressed (not at all: JPEG) alone.
_WRITER_OPTIONS = "group_size:1,uncompressed"


def features() -> tfds.features.FeaturesDict:
    """Return the features of one frame record.

    Returns:
        ``image`` holds the encoded bytes as delivered (or the crop's JPEG); ``boxes`` are (x, y, w, h),
        0-based, pixels, one row for each of ``targets``; ``frame`` counts from 0; ``file`` is relative to
        the source folder.
    """
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),
            "frame": np.int64,
            "file": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3)),
            "targets": tfds.features.Sequence(tfds.features.Text()),
            "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "absent": tfds.features.Tensor(shape=(None,), dtype=np.bool_),
        }
    )


class FrameBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One record per frame of a tracking dataset in its published layout.

    Attributes:
        dataset: the layout's name; ``name``, TFDS's own, is that of its folder.
    """

    dataset: ClassVar[str]

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "One record per frame."}
    # Nothing is downloaded; without this TFDS looks for a checksum file through a back-port that a
    # plain install lacks.
    url_infos: ClassVar[dict] = {}

    def __init__(
        self,
        *,
        source: str | os.PathLike,
        split: str | None = None,
        crop: int = 0,
        workers: int = 0,
        max_bad: float = 0.01,
        only: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        frames_per_part: int = parts.FRAMES_PER_PART,
        **kwargs: Any,
    ) -> None:
        """Set up a build of one split.

        Args:
            source: folder that the dataset unpacks to.
            split: split name, or None for the dataset's default.
            crop: side of the crops to store around each target (PySOT: 511), 0 for whole frames.
            workers: processes; 0 builds in this one.
            max_bad: share of frames that may be unreadable before the build stops.
            only: names of videos to keep.
            progress: called with (frames done, frames in all).
            frames_per_part: frames in one of the first shards.
            **kwargs: ``data_dir`` and others of TFDS.
        """
        _, self.split = layouts.resolve(self.dataset, split)
        self.source, self.crop, self.workers, self.max_bad = Path(source), crop, workers, max_bad
        self.only, self.progress, self.frames_per_part = only, progress, frames_per_part
        flavour = f"crop{crop}" if crop else "frames"
        config = tfds.core.BuilderConfig(name=f"{self.split}_{flavour}", version=self.VERSION)
        super().__init__(config=config, file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, features=features(), disable_shuffling=True
        )

    @property
    def stage(self) -> Path:
        """Folder of the parts of a build that is not finished."""
        final = Path(self._final_dir)
        return final.parent / f".{final.name}.parts"

    @property
    def _final_dir(self) -> str:
        return os.path.join(
            self._data_dir_root, self.name, self.builder_config.name, str(self.version)
        )

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        """TFDS's own view of the parts: one generator of (key, example) for each shard."""
        del dl_manager
        records = layouts.iter_layout(self.dataset, self.source, self.split, self.only)

        def generator(part):
            return lambda: enumerate(
                parts.part_examples(self.name, self.crop, part, parts.PartRows(), str(self.source))
            )

        return {self.split: [generator(part) for part in parts.plan(records, self.frames_per_part)]}

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Write the parts in parallel, skipping those that an earlier run finished."""
        del dl_manager, download_config
        started = time.monotonic()
        with lock(self.stage):
            for old in Path(self._final_dir).parent.glob(f"incomplete.*_{self.version}"):
                if old != Path(self.data_path):  # left by a build that was killed
                    shutil.rmtree(old)
            self._build(started)

    def _post_download_and_prepare_hook(self) -> None:
        shutil.rmtree(self.stage, ignore_errors=True)

    # The command line shows its own progress and summary.
    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...

    def _build(self, started: float) -> None:
        specs, total = self._write_specs()
        done = self._write_parts(specs, total)
        if not any(part.records for part in done):
            raise JaxtrackError(f"{self.name}: no usable frame in {self.source}: nothing was built")
        shards = [part for part in done if part.records]
        template = self._get_filename_template(split_name=self.split)
        for number, part in enumerate(shards):
            target = template.sharded_filepath(shard_index=number, num_shards=len(shards))
            _link(part.shard, Path(target))
        summary = index.write(Path(self.data_path), self.name, self.split, self.crop, done)
        summary["seconds"] = round(time.monotonic() - started, 1)
        summary["source"] = str(self.source)
        summary["only"] = sorted(self.only or ())
        summary["made_from"] = stage.combined(digest for _, digest in specs)
        index.write_summary(Path(self.data_path), summary)
        written = []
        for number, part in enumerate(shards):
            name = template.sharded_filepath(shard_index=number, num_shards=len(shards)).name
            written.append(
                {"name": name, "records": part.records, "bytes": part.bytes, "sha256": part.sha256}
            )
        split_info = tfds_splits.SplitInfo(
            name=self.split,
            shard_lengths=[part.records for part in shards],
            num_bytes=summary["bytes"],
            filename_template=template,
        )
        self.info.set_splits(tfds_splits.SplitDict([split_info]))
        # TFDS writes these again after this and the same: here they are sealed with all the others.
        self.info.download_size = 0
        self.info.write_to_directory(self.data_path)
        seal.write(Path(self.data_path), written)

    def _write_specs(self) -> tuple[list[tuple[Path, str]], int]:
        """Read all annotations and write one small file per part; memory stays flat."""
        specs, total = [], 0
        problems: list[JaxtrackError] = []
        records = layouts.iter_layout(
            self.dataset, self.source, self.split, self.only, problems.append
        )
        for number, part in enumerate(parts.plan(records, self.frames_per_part)):
            path = self.stage / f"part-{number:05d}.spec"
            specs.append(
                (path, stage.save_spec(path, self.dataset, self.crop, part, str(self.source)))
            )
            total += len({f for record in part for f in record.frames})
        if problems:
            more = f" (and {len(problems) - 1} more problems: --check lists them)" * (
                len(problems) > 1
            )
            raise JaxtrackError(f"{problems[0]}{more}")
        kept = {path.stem for path, _ in specs}
        for old in self.stage.glob("part-*"):
            if old.name.split(".", 1)[0] not in kept:
                old.unlink()
        if not specs:
            raise JaxtrackError(f"{self.name}: no video of split {self.split} in {self.source}")
        return specs, total

    def _write_parts(self, specs: list[tuple[Path, str]], total: int) -> list[stage.PartResult]:
        """Run the workers over the parts that are not there yet."""
        done = {n: result for n, spec in enumerate(specs) if (result := stage.finished(*spec))}
        frames = sum(result.frames for result in done.values())
        todo = [n for n in range(len(specs)) if n not in done]
        skipped: list[parts.Skipped] = []
        if self.progress:
            self.progress(frames, total)
        for number, result in self._results(specs, todo):
            done[number] = result
            frames += result.frames
            skipped += result.skipped
            parts.check_skips(self.name, skipped, total, self.max_bad)
            if self.progress:
                self.progress(frames, total)
        return [done[number] for number in range(len(specs))]

    def _results(
        self, specs: list[tuple[Path, str]], todo: list[int]
    ) -> Iterator[tuple[int, stage.PartResult]]:
        root = str(self.source)
        if self.workers < 2 or len(todo) < 2:
            for number in todo:
                yield number, write_part(*specs[number], root)
            return
        # Workers watch the process that started them: a build that is killed leaves none behind.
        # Spawned, not forked: OpenCV and JAX both hold threads that a fork would freeze.
        context = multiprocessing.get_context("spawn")
        pool = concurrent.futures.ProcessPoolExecutor(
            min(self.workers, len(todo)), mp_context=context, initializer=_end_with_parent
        )
        try:
            futures = {pool.submit(write_part, *specs[n], root): n for n in todo}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise JaxtrackError(
                f"{self.name}: a worker was killed (out of memory?): run the same command again, it "
                "goes on where it was; fewer --workers need less memory"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Make a worker end when the build that started it ends, however that is killed, and only then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the build's: it lets parts be finished
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _link(source: Path, target: Path) -> None:
    """Put a finished shard in place, keeping the staged one until the build is complete."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
        if checksum(source) != checksum(target):
            raise JaxtrackError(f"{target} is not what was copied from {source}") from None


# What a system says of a disk without room, of a user's share of it, and of a file at its limit.
_FULL = ("No space left", "quota exceeded", "File too large")


def write_part(spec: Path, digest: str, root: str) -> stage.PartResult:
    """Write one shard and the rows of its index, and read the shard back; runs in a worker.

    Args:
        spec: the part's description; the shard and the result lie beside it.
        digest: of the description.
        root: the dataset's folder.

    Returns:
        What became of it; the rows themselves stay in the file that ``stage.load_rows`` reads.

    Raises:
        JaxtrackError: the disk is full, or the shard does not read back as it was written.
    """
    import cv2

    cv2.setNumThreads(1)
    dataset, crop, part = stage.load_spec(spec, root)
    rows = parts.PartRows()
    shard = stage.shard_path(spec, digest)
    try:
        written = _write_records(shard, parts.part_examples(dataset, crop, part, rows, root))
        if _read_records(shard, len(rows.sizes)) != written:
            raise JaxtrackError(
                f"{dataset}: {shard} does not read back as it was written: is the disk damaged?"
            )
        return stage.finish(spec, digest, part, rows, shard)
    except (OSError, ValueError, RuntimeError) as error:
        shard.unlink(missing_ok=True)
        free = shutil.disk_usage(spec.parent).free
        if any(words in str(error) for words in _FULL) or free < 1 << 20:
            raise JaxtrackError(
                f"{dataset}: the disk of {spec.parent}, or your share of it, is full ({free >> 20} MiB "
                "left): make room and run the same command again, it goes on where it was"
            ) from error
        raise


def _write_records(path: Path, examples: Iterator[dict[str, Any]]) -> str:
    """Write a shard; gives a digest of its records."""
    encoder = features()
    serializer = example_serializer.ExampleSerializer(encoder.get_serialized_info())
    digest = hashlib.sha256()
    writer = array_record_module.ArrayRecordWriter(str(path), _WRITER_OPTIONS)
    try:
        for example in examples:
            record = serializer.serialize_example(encoder.encode_example(example))
            digest.update(record)
            writer.write(record)
    finally:
        writer.close()
    with open(path, "rb") as f:  # on the disk before anything says so
        os.fsync(f.fileno())
    return digest.hexdigest()


def _read_records(path: Path, count: int) -> str:
    """Read a shard; gives a digest of its records."""
    digest = hashlib.sha256()
    if count:
        reader = array_record_module.ArrayRecordReader(str(path))
        try:
            for number in range(count):
                digest.update(reader.read([number])[0])
        finally:
            reader.close()
    return digest.hexdigest()
