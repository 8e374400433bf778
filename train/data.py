"""Where the batches of a run come from: the synthetic world, drawn inside the step, or built datasets."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Protocol

import numpy as np

from jaxtrack.errors import JaxtrackError
from train.presets import DataConfig, PatchSpec, Preset
from train.step import Batch

SYNTHETIC = "synthetic"


class Batches(Protocol):
    """An endless source of batches whose position can be saved."""

    def next(self) -> tuple[Batch, str]:
        """The next batch of this process, host arrays, and a line that names what is in it."""

    def position(self) -> Any:
        """JSON-like; handed to `seek`, the batches go on as they would have."""

    def seek(self, position: Any) -> None:
        """Go to a saved position."""

    def close(self) -> None:
        """End what runs in the background."""


def places(batch_size: int, shard: tuple[int, int]) -> np.ndarray:
    """Return the places ``(n,)`` int32 of this process's pairs in the batch of the whole run.

    Args:
        batch_size: pairs per step of this process.
        shard: this process's number and their count; it takes every ``count``-th pair, as the input
            pipeline does.
    """
    return np.arange(batch_size, dtype=np.int32) * shard[1] + shard[0]


class Synthetic:
    """Asks for synthetic pairs: the batch holds indices only, the step draws the pictures.

    What is drawn depends on the run's seed, the step and the pair's place in the batch alone.

    Args:
        batch_size: pairs per step of this process.
        shard: this process's number and their count.
    """

    def __init__(self, batch_size: int, shard: tuple[int, int]) -> None:
        self._index = places(batch_size, shard)
        self._size = batch_size * shard[1]
        self._drawn = 0

    def next(self) -> tuple[Batch, str]:
        """See `Batches`."""
        first = self._drawn * self._size
        self._drawn += 1
        return {"index": self._index}, f"synthetic pairs {first}..{first + self._size - 1}"

    def position(self) -> Any:
        """See `Batches`."""
        return self._drawn

    def seek(self, position: Any) -> None:
        """See `Batches`."""
        self._drawn = int(position)

    def close(self) -> None:
        """See `Batches`."""


class Built:
    """Patches of built datasets, through `jaxtrack.data.pipeline`.

    Args:
        root: the folder of built datasets.
        config: recipe and patches.
        batch_size: pairs per step of this process.
        seed: of the run.
        shard: this process's number and their count.
        workers: processes that decode; 0: threads of this one.
    """

    def __init__(
        self,
        root: pathlib.Path,
        config: DataConfig,
        batch_size: int,
        seed: int,
        shard: tuple[int, int],
        workers: int,
    ) -> None:
        from jaxtrack.data import recipes
        from jaxtrack.data import sampling as pairs

        self._index = places(batch_size, shard)

        def patch(spec: PatchSpec) -> pairs.PatchConfig:
            whole = recipes.patch_config(spec.size, spec.nominal, spec.factor, spec.context)
            return dataclasses.replace(whole, shift=spec.shift, log_scale=spec.log_scale)

        self._iterator = recipes.open_recipe(
            config.recipe,
            root,
            patch(config.template),
            patch(config.search),
            batch_size,
            config.patches,
            seed=seed,
            shard_index=shard[0],
            shard_count=shard[1],
            workers=workers,
        )

    def next(self) -> tuple[Batch, str]:
        """See `Batches`."""
        batch = {**next(self._iterator), "index": self._index}
        return batch, " | ".join(self._iterator.describe())

    def position(self) -> Any:
        """See `Batches`."""
        return self._iterator.get_state()

    def seek(self, position: Any) -> None:
        """See `Batches`."""
        self._iterator.set_state(position)

    def close(self) -> None:
        """See `Batches`."""
        self._iterator.close()


def open_batches(
    data: str, preset: Preset, batch_size: int, seed: int, shard: tuple[int, int], workers: int
) -> Batches:
    """The batches of one process.

    Args:
        data: ``synthetic``, or the folder with the built datasets.
        preset: names the datasets and their ratios.
        batch_size: pairs per step of this process.
        seed: of the run.
        shard: this process's number and their count.
        workers: processes that decode; 0: in this one.

    Raises:
        JaxtrackError: no such folder; a dataset is not in it; the preset names none.
    """
    if workers < 0:
        raise JaxtrackError(f"--workers {workers}: 0 or more")
    if data == SYNTHETIC:
        return Synthetic(batch_size, shard)
    root = pathlib.Path(data).expanduser()
    if not root.is_dir():
        raise JaxtrackError(
            f"--data {data}: no such folder; give 'synthetic' or the folder of built datasets"
            " (python -m jaxtrack.data.prepare)"
        )
    if preset.data is None:
        raise JaxtrackError("this preset trains on the synthetic world only; leave --data out")
    return Built(root, preset.data, batch_size, seed, shard, workers)
