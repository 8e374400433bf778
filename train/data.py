"""Where the batches of a run come from: the synthetic world, drawn inside the step, or built datasets."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from jaxtrack.errors import JaxtrackError, UsageError, brief, reason, unknown
from jaxtrack.io import paths
from jaxtrack.io.records import checksum, json_text, read_json
from jaxtrack.ops.patch import PatchSpec

from . import held, presets
from .held import Held
from .presets import Preset
from .step import Batch, Task

if TYPE_CHECKING:
    from jaxtrack.data.source import FrameSource

SYNTHETIC = "synthetic"
KEPT = "kept.json"  # what a folder of `train.keep` holds, beside an array for each part of a batch


class Batches(Protocol):
    """An endless source of batches whose position can be saved.

    Attributes:
        held: what is held out of them; None where a run need not ask.
        seen: which data they are, in words, for the card of the weights.
    """

    held: Held | None
    seen: str

    def next(self) -> tuple[Batch, str]:
        """Return the next batch of this process, host arrays, and a line that names what is in it."""

    def position(self) -> Any:
        """JSON-like; handed to `seek`, the batches go on as they would have."""

    def seek(self, position: Any) -> None:
        """Go to a saved position."""

    def close(self) -> None:
        """End what runs in the background."""


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that one process feeds.

    Attributes:
        size: its pairs per step.
        number: the process's number.
        count: how many processes there are.
    """

    size: int
    number: int = 0
    count: int = 1

    def places(self) -> np.ndarray:
        """Return the places ``(n,)`` int32 of these pairs in the batch of the whole run.

        A process takes every ``count``-th pair, as the input pipeline does.
        """
        return np.arange(self.size, dtype=np.int32) * self.count + self.number


class Synthetic:
    """Pairs of the synthetic world: the batch holds indices only, the step draws the pictures.

    What is drawn depends on the run's seed, the step and the pair's place in the batch alone.

    Args:
        share: of every batch.

    Attributes:
        held: nothing: what is drawn for validation has a key of its own.
        seen: that they are synthetic.
    """

    held: Held | None = None
    seen: str = SYNTHETIC

    def __init__(self, share: Share) -> None:
        self._index = share.places()
        self._size = share.size * share.count
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


class Cuts(NamedTuple):
    """How the patches of a task are cut from stored frames: as the synthetic world cuts its own.

    Attributes:
        template: the template's patch.
        search: the search patch.
        patches: search patches per video, where a task wants several (``patches`` and ``patch_boxes`` in
            place of ``search`` and ``search_box``); 0: pairs.
    """

    template: PatchSpec
    search: PatchSpec
    patches: int


def patches_of(task: Task) -> Cuts:
    """Return how a task has its patches cut: ``patch.template``, ``patch.search``, ``patches`` of its config.

    Raises:
        JaxtrackError: the config does not say.
    """
    config: Any = task.config
    try:
        return Cuts(config.patch.template, config.patch.search, getattr(config, "patches", 0))
    except AttributeError as error:
        raise JaxtrackError(
            f"{type(config).__name__} of this preset's task does not say how built data are cut: it lacks a"
            " field patch with template and search (jaxtrack.synthetic.world.PatchConfig)"
        ) from error


def _not_shifted(preset: Preset) -> str:
    """Return what to tell of a sampling that the synthetic world does as it draws; "" where there is none."""
    config: Any = preset.task.config
    shift = getattr(config.patch, "max_shift", 0)
    if not shift:
        return ""
    return (
        f"task.patch.max_shift={shift:g} is of the synthetic world alone: targets lie in the middle of built"
        " patches, and only the task's own augmentation moves them (task.search.shift)"
    )


class Built:
    """Patches of built datasets, through `jaxtrack.data.pipeline`.

    Args:
        root: the folder of built datasets.
        preset: names the recipe; its task says how patches are cut.
        share: of every batch.
        seed: of the run.
        workers: processes that decode; 0: threads of this one.
        published: insist on the recipe's own datasets.
        validate: hold out some videos (`train.held`).

    Attributes:
        held: these videos; None where none were asked for.
        seen: the datasets with their splits and numbers of videos.

    Raises:
        JaxtrackError: a dataset is not there or damaged, or a library that reads them is missing.
    """

    held: Held | None = None

    def __init__(
        self,
        root: pathlib.Path,
        preset: Preset,
        share: Share,
        seed: int,
        workers: int,
        published: bool,
        validate: bool = False,
    ) -> None:
        try:
            from jaxtrack.data import pipeline, recipes
            from jaxtrack.data.source import FrameSource
        except ImportError as error:
            raise JaxtrackError(
                f"--data reads built datasets with {error.name}: pip install {error.name}"
            ) from error

        self._index = share.places()
        cuts = patches_of(preset.task)
        recipe, mixture, note = choose_datasets(
            preset.data_recipe, root, cuts.template, cuts.search, published
        )
        pairs = recipes.pair_config(recipe, *cuts)
        notes = [note, _not_shifted(preset)]
        if validate:
            mixture, pairs, self.held, line = held.hold_out(mixture, root, pairs)
            notes.append(line)
        self.seen = ", ".join(
            named(FrameSource(dataset.path), dataset.videos) for dataset in mixture
        )
        for line in filter(None, notes if share.number == 0 else ()):
            print(f"note: {line}", file=sys.stderr)
        self._iterator = pipeline.make_iterator(
            pairs,
            mixture,
            share.size,
            seed=seed,
            shard_index=share.number,
            shard_count=share.count,
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


class Kept:
    """What `train.keep` computed, over and over in an order of the run's own.

    Args:
        root: its folder.
        preset: what is trained on it.
        share: of every batch.
        seed: of the run.
        init_from: file of the weights that the run began with; None: random ones.

    Attributes:
        held: nothing: validation draws with a key of its own.
        seen: what was drawn and kept.

    Raises:
        JaxtrackError: it was computed by other weights or settings, or is not whole.
    """

    held: Held | None = None

    def __init__(
        self,
        root: pathlib.Path,
        preset: Preset,
        share: Share,
        seed: int,
        init_from: pathlib.Path | None,
    ) -> None:
        record = read_json(root / KEPT, "the record of kept outputs", dict)
        own = json.loads(json_text(kept_settings(preset)))
        try:
            others = [name for name in own if record["task"].get(name) != own[name]]
            self._arrays = {
                name: np.load(root / f"{name}.npy", mmap_mode="r").view(np.ndarray)
                for name in record["arrays"]
            }
            self._count, start = int(record["count"]), str(record["init_from"])
            self.seen = str(record["seen"])
            whole = self._count > 0 and all(len(x) == self._count for x in self._arrays.values())
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
            raise JaxtrackError(
                f"{root}: kept outputs that are damaged ({reason(error)})"
            ) from error
        if others or record["task"].keys() != own.keys():
            raise JaxtrackError(
                f"{root} was kept with other settings of {preset.name}: task.{others[0] if others else '*'}"
            )
        if init_from is None or checksum(init_from) != start:
            raise JaxtrackError(
                f"{root} was computed with other weights: give the --init-from that it was kept with"
            )
        if not whole:
            raise JaxtrackError(f"{root}: kept outputs of different lengths; keep them anew")
        self._index, self._total = share.places(), share.size * share.count
        self._seed, self._drawn = seed, 0

    def next(self) -> tuple[Batch, str]:
        """See `Batches`."""
        first = self._drawn * self._total
        self._drawn += 1
        places = (first + self._index).tolist()
        rows = [
            int(_order(self._seed, n // self._count, self._count)[n % self._count]) for n in places
        ]
        batch = {name: array[rows] for name, array in self._arrays.items()}
        return {**batch, "index": self._index}, f"kept pairs {', '.join(map(str, rows[:8]))}"

    def position(self) -> Any:
        """See `Batches`."""
        return self._drawn

    def seek(self, position: Any) -> None:
        """See `Batches`."""
        self._drawn = int(position)

    def close(self) -> None:
        """See `Batches`."""


def is_kept(data: str) -> bool:
    """Return whether a folder is one of `train.keep`."""
    return data != SYNTHETIC and (paths.resolve(data) / KEPT).is_file()


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order in which an epoch goes through what is kept."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def kept_settings(preset: Preset) -> dict[str, Any]:
    """Return the settings that what is kept of a preset depends on."""
    assert preset.task.keep is not None
    settings = presets.describe(preset)["task"]["config"]
    return {name: value for name, value in settings.items() if name not in preset.task.keep.free}


def choose_datasets(
    name: str, root: pathlib.Path, template: PatchSpec, search: PatchSpec, published: bool
) -> tuple[Any, list[Any], str]:
    """Choose the datasets of a run: the recipe's own, or what the folder holds in their place.

    Args:
        name: of the recipe (`jaxtrack.data.recipes.RECIPES`).
        root: the folder of built datasets.
        template: patch of the template (`jaxtrack.ops.patch.PatchSpec`).
        search: patch of the search image.
        published: insist on the recipe's own.

    Returns:
        The recipe; the datasets (`jaxtrack.data.pipeline.Dataset`); and what to tell the user, "" where
        all is as published. Datasets in place of the published ones are drawn from by their numbers of
        videos, training splits alone where there are any, with the recipe's pair rules; its filters of
        frames belong to its datasets and go with them.

    Raises:
        JaxtrackError: no such recipe; a dataset of it is not there, or none at all.
    """
    from jaxtrack.data import recipes
    from jaxtrack.data.pipeline import Dataset
    from jaxtrack.data.sampling import FrameFilter
    from jaxtrack.data.source import FrameSource

    if name not in recipes.RECIPES:
        raise unknown("data recipe", name, recipes.RECIPES)
    recipe = recipes.RECIPES[name]
    if published and not recipe.ingredients:
        raise UsageError("--recipe: this preset has no published datasets to insist on")
    if recipe.ingredients:
        try:
            return recipe, recipes.find_datasets(recipe, root, template, search), ""
        except JaxtrackError:
            if published:
                raise
    bare = dataclasses.replace(recipe, ingredients=(), filter=FrameFilter())
    sources = [FrameSource(d.path) for d in recipes.find_datasets(bare, root, template, search)]
    fits = all(p.context == 0.5 and p.scale <= recipes.CROP_SCALE for p in (template, search))
    usable = [s for s in sources if fits or not s.crop]
    if not usable:
        raise JaxtrackError(
            f"{root} holds crops of 511 pixels alone, which are too small for this preset: build whole frames"
            " (python -m jaxtrack.data.prepare without --crop)"
        )
    training = [s for s in usable if s.split.startswith("train")] or usable
    # Of a dataset that was built in both forms, the crops: they decode faster.
    chosen = {_build_of(s): s for s in sorted(training, key=lambda s: bool(s.crop))}
    note = ""
    if recipe.ingredients:
        wanted = ", ".join(part.dataset for part in recipe.ingredients)
        found = ", ".join(map(named, chosen.values()))
        note = (
            f"recipe {name} is published for {wanted}; trained on what {root} holds: {found}"
            " (--recipe insists on the published datasets)"
        )
    if recipe.negative and sum(s.num_targets for s in chosen.values()) < 2:
        bare = dataclasses.replace(bare, negative=0.0)
        note += "; negative pairs need two targets, there is one: none are drawn"
    weight = None if recipe.ingredients else 1.0
    return bare, [Dataset(s.path, weight) for s in chosen.values()], note


def named(source: FrameSource, videos: Collection[int] | None = None) -> str:
    """Return a built dataset in words: name, split, how many of its videos are used (None: all)."""
    whole = source.num_videos
    count = f"{whole:,}" if videos is None else f"{len(videos):,} of {whole:,}"
    return f"{source.name} ({source.split}, {count} video{'s' if whole != 1 else ''})"


def _build_of(source: FrameSource) -> tuple[pathlib.Path, str, str]:
    """Return what a build has in common with the same data in another form, and with nothing else.

    They lie side by side: ``DIR/got10k/train_frames/1.0.0`` and ``DIR/got10k/train_crop511/1.0.0``. Several
    builds may have one name: everybody's own videos are ``custom``.
    """
    return pathlib.Path(source.path).parent.parent, source.name, source.split


def open_batches(
    data: str,
    preset: Preset,
    share: Share,
    seed: int = 0,
    workers: int = 0,
    published: bool = False,
    validate: bool = False,
    init_from: pathlib.Path | None = None,
) -> Batches:
    """Open the batches of one process.

    Args:
        data: ``synthetic``, the folder with the built datasets, or one of `train.keep`.
        preset: names the datasets and their ratios.
        share: of every batch.
        seed: of the run.
        workers: processes that decode; 0: in this one.
        published: insist on the datasets of the preset's recipe.
        validate: hold out some of the data, to validate on.
        init_from: file of the weights that the run begins with, which kept outputs are compared by.

    Raises:
        JaxtrackError: no such folder; a dataset is not in it; the preset names none.
    """
    if data == SYNTHETIC:
        if published:
            raise UsageError("--recipe insists on published datasets: it goes with --data DIR")
        return Synthetic(share)
    root = paths.resolve(data)
    if not root.is_dir():
        raise JaxtrackError(
            f"--data {brief(data)}: no such folder; give 'synthetic' or the folder of built datasets"
            " (python -m jaxtrack.data.prepare)"
        )
    if is_kept(data):
        if published:
            raise UsageError(f"--recipe goes with built datasets; {data} holds kept outputs")
        if preset.task.keep is None:
            raise JaxtrackError(f"{root} holds kept outputs, which {preset.name} does not train on")
        return Kept(root, preset, share, seed, init_from)
    if not preset.data_recipe:
        raise JaxtrackError("this preset trains on the synthetic world only; leave --data out")
    return Built(root, preset, share, seed, workers, published, validate)
