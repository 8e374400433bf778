"""Training batches from a mixture of built datasets, through Grain.

Every sample is a function of (seed, its number) alone, so the order does not depend on the number of
workers, a position is one number, and hosts take every n-th sample. Each dataset is gone through in
shuffled epochs over its videos; the mixture keeps the ratios exactly, over every thousand samples.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from jaxtrack.data.sampling import FrameFilter, PairConfig, Sampler
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError

# Samples within such a window are shuffled, so that the mixture's regular beat does not meet the
# regular beat of the shards (two datasets on two hosts).
_WINDOW = 1024
_PRIVATE = ("used", "broken", "failures")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A built dataset in a mixture.

    Attributes:
        path: its folder, or one above it.
        weight: its share of the samples, relative to the others'; None: its number of videos, so
            that every video of the datasets without a weight comes equally often.
        max_gap: most frames between template and search; None for the sampling's own.
        filter: which frames are used; None for the sampling's own.
        videos: numbers of the videos that are used; None: all of them.
    """

    path: str | os.PathLike
    weight: float | None = 1.0
    max_gap: int | None = None
    filter: FrameFilter | None = None
    videos: tuple[int, ...] | None = None


class Order:
    """The endless sequence of (dataset, video) of all hosts, by number; picklable.

    Every window of ``_WINDOW`` samples holds the datasets in their ratios, shuffled, and every dataset
    is gone through in epochs, each a new permutation of its videos. Grain's own shuffle walks through
    65,536 numbers to permute a handful: milliseconds per sample for a dataset of few videos.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        """Set up the sequence.

        Args:
            sizes: number of videos of each dataset that are used.
            weights: relative shares of the samples.
            seed: decides the order.
        """
        self._sizes, self._seed = tuple(sizes), seed
        self._shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)

    def __len__(self) -> int:
        """Say that there is no end."""
        return sys.maxsize

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Find a sample.

        Args:
            number: which.

        Returns:
            (number of the dataset, place of the video among those that are used).
        """
        window, place = divmod(int(number), _WINDOW)
        dataset, rank = _window(self._seed, tuple(self._shares), window)
        which = int(dataset[place])
        epoch, position = divmod(int(rank[place]), self._sizes[which])
        return which, int(_epoch(self._seed, which, self._sizes[which], epoch)[position])


@functools.lru_cache(maxsize=16)
def _window(seed: int, shares: tuple[float, ...], window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the datasets of one window of samples, and how often each was drawn before."""
    largest = int(np.argmax(shares))
    before = [int(share * window * _WINDOW) for share in shares]
    after = [int(share * (window + 1) * _WINDOW) for share in shares]
    for bounds, total in ((before, window * _WINDOW), (after, (window + 1) * _WINDOW)):
        bounds[largest] += total - sum(bounds)  # what rounding down left over
    counts = np.subtract(after, before)
    dataset = np.repeat(np.arange(len(shares)), counts)
    dataset = np.random.default_rng((seed, 1, window)).permutation(dataset)
    rank = np.empty(_WINDOW, dtype=np.int64)
    for number, (low, high) in enumerate(zip(before, after)):
        rank[dataset == number] = np.arange(low, high)
    return dataset, rank


@functools.lru_cache(maxsize=64)
def _epoch(seed: int, dataset: int, size: int, epoch: int) -> np.ndarray:
    """Return the order of a dataset's videos in one epoch."""
    return np.random.default_rng((seed, 2, dataset, epoch)).permutation(size).astype(np.int32)


class _Draw(grain.transforms.RandomMap):
    """Draw the sample of a (dataset, place of the video)."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def random_map(self, element: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        return self._sampler.sample(*element, rng)


def _single_threaded(index: int, count: int) -> None:
    """Keep OpenCV from starting a thread per core in every worker."""
    import cv2

    del index, count
    cv2.setNumThreads(0)


class TrainIterator:
    """Endless training batches with a position that can be saved.

    Attributes:
        skipped: number of records so far that did not decode and were replaced.
    """

    def __init__(
        self,
        dataset: grain.MapDataset,
        sources: Sequence[FrameSource],
        workers: int,
        threads: int,
        max_bad: int,
        identity: dict[str, Any],
    ) -> None:
        """Use ``make_iterator``.

        Args:
            dataset: batches by number.
            sources: the datasets, to name records.
            workers: processes.
            threads: threads that make batches, in this process or in each worker.
            max_bad: replaced records before it stops.
            identity: what a saved position must agree with.
        """
        self._dataset, self._sources, self._workers = dataset, sources, workers
        self._threads, self._max_bad, self._identity = threads, max_bad, identity
        self._position = 0
        self.skipped = 0
        self._running: Any = None
        self._last: dict[str, np.ndarray] = {}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Is its own iterator."""
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Give the next batch.

        Returns:
            See ``make_iterator``.

        Raises:
            JaxtrackError: more records than ``max_bad`` could not be decoded so far.
        """
        if self._running is None:
            self._running = iter(self._start())
        batch = next(self._running)
        # Workers hand over shared memory, which must not outlive them: a copy costs a millisecond.
        batch = {key: np.array(v) if self._workers else v for key, v in batch.items()}
        self._last = {key: batch.pop(key) for key in _PRIVATE}
        self._position += 1
        failures = int(self._last["failures"].sum())
        if failures:
            self._count_bad(failures)
        return batch

    def _count_bad(self, failures: int) -> None:
        self.skipped += failures
        if self.skipped > self._max_bad:
            number, record = max(tuple(int(v) for v in b) for b in self._last["broken"])
            source = self._sources[number]
            raise JaxtrackError(
                f"{self.skipped} records could not be decoded so far (at most {self._max_bad}); last: "
                f"{source.describe(source.record(record))}: run prepare with --check"
            )

    def _start(self) -> Any:
        options = grain.ReadOptions(
            num_threads=self._threads, prefetch_buffer_size=2 * self._threads
        )
        batches = self._dataset[self._position :].to_iter_dataset(options)
        if not self._workers:
            return batches
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain's workers read a flag
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
        return batches.mp_prefetch(workers, worker_init_fn=_single_threaded)

    def describe(self) -> list[str]:
        """Name the frames of the last batch, for an error report.

        Returns:
            One phrase for each sample: dataset, video and frame of each of its patches.
        """
        return [
            "; ".join(self._sources[int(n)].describe_row(int(row)) for n, row in used)
            for used in self._last.get("used", ())
        ]

    def get_state(self) -> dict[str, Any]:
        """Save the position.

        Returns:
            A small dictionary that JSON can hold.
        """
        return {**self._identity, "batches": self._position, "skipped": self.skipped}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a saved position; the batches from there on are the same.

        Args:
            state: as given by ``get_state``.

        Raises:
            JaxtrackError: it was saved with other data, another seed, batch or sampling.
        """
        for key, value in self._identity.items():
            if state.get(key) != value:
                raise JaxtrackError(
                    f"cannot resume the data: {key} was {state.get(key)!r} and is {value!r} now"
                )
        self.close()
        self._position, self.skipped = int(state["batches"]), int(state["skipped"])

    def close(self) -> None:
        """End the workers. The iterator starts them again when asked for a batch."""
        running, self._running = self._running, None
        if running is not None and hasattr(running, "close"):
            running.close()


def make_iterator(
    config: PairConfig,
    datasets: Sequence[Dataset],
    batch_size: int,
    seed: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    max_bad: int = 100,
) -> TrainIterator:
    """Make the training batches of one host.

    Args:
        config: what a sample is made of.
        datasets: the mixture.
        batch_size: samples per batch on this host.
        seed: decides everything.
        shard_index: number of this host.
        shard_count: number of hosts; together they see every sample once.
        workers: processes that read; 0 uses threads of this one, which is enough for some cores
            (OpenCV decodes without Python's lock). Scripts that use processes need the usual
            ``if __name__ == "__main__"``.
        threads: batches that are made at once, in each process.
        max_bad: records that may fail to decode, and are replaced, before training stops.

    Returns:
        An iterator of dictionaries of arrays: ``template`` ``(B, S, S, 3)`` uint8 RGB, ``template_box``
        ``(B, 4)`` float32 (x, y, w, h) in patch pixels, ``search`` and ``search_box`` alike, ``negative``
        ``(B,)`` bool. With ``config.patches``: ``patches`` ``(B, M, S, S, 3)`` and ``patch_boxes`` ``(B, M,
        4)`` in place of search.

    Raises:
        JaxtrackError: a dataset is missing or damaged, or a number makes no sense.
    """
    if not datasets:
        raise JaxtrackError(
            "no dataset given: name at least one built dataset, or use synthetic data"
        )
    if batch_size < 1 or workers < 0 or threads < 1 or not 0 <= shard_index < shard_count:
        raise JaxtrackError(
            f"impossible pipeline: batch {batch_size}, {workers} workers, {threads} threads, "
            f"shard {shard_index} of {shard_count}"
        )
    sources = [FrameSource(d.path) for d in datasets]
    videos = [
        range(s.num_videos) if d.videos is None else d.videos for s, d in zip(sources, datasets)
    ]
    weights = [len(v) if d.weight is None else d.weight for v, d in zip(videos, datasets)]
    if not all(w > 0 and np.isfinite(w) for w in weights):
        raise JaxtrackError(f"dataset weights must be positive: {weights}")
    gaps = [config.max_gap if d.max_gap is None else d.max_gap for d in datasets]
    filters = [d.filter or config.filter for d in datasets]
    draw = _Draw(Sampler(config, sources, gaps, filters, videos))
    order = Order([len(v) for v in videos], weights, seed)
    drawn = grain.MapDataset.source(order).random_map(draw, seed=seed)
    batches = drawn[shard_index::shard_count].batch(batch_size)
    sampling: tuple[Any, ...] = (config, gaps, filters, weights)
    if any(d.videos is not None for d in datasets):
        sampling += (videos,)
    identity = {
        "seed": seed,
        "batch": batch_size * shard_count,
        "data": [f"{s.name}/{s.split}: {s.num_records}" for s in sources],
        "sampling": hashlib.sha256(repr(sampling).encode()).hexdigest()[:16],
    }
    return TrainIterator(batches, sources, workers, threads, max_bad, identity)
