"""What a training is validated on, and never sees: pairs for the loss, clips that are tracked.

A run on the synthetic world holds out what is drawn from a key of its own. A run on built datasets holds out
whole videos: those of a validation split that lies in the folder, or else some of the training videos, chosen
by their names, so that every run on the same data holds out the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.data import frames as frame_files
from jaxtrack.data.record import usable_boxes
from jaxtrack.data.sampling import PairConfig
from jaxtrack.data.source import FrameSource, built_below
from jaxtrack.errors import JaxtrackError
from jaxtrack.synthetic.world import WorldConfig, make_clip

from .step import Batch, Task, pair_keys, streams

if TYPE_CHECKING:
    from jaxtrack.data.pipeline import Dataset

BATCHES, BATCH_SIZE = 4, 8  # for the loss
CLIPS, LENGTH = 8, 60  # videos that are tracked, and frames of each
WORLD = WorldConfig(height=200, width=280, length=LENGTH, target_size=(26.0, 64.0))

_KEY = 0x48454C44  # of what is held out; a run's own seeds pass through `jax.random.split` first
_PAIRS, _CLIPS = 0, 1
_SHARE = 10  # one in so many videos of a small folder is held out


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A clip to be tracked from its first box.

    Attributes:
        frames: opens it: uint8 RGB ``(h, w, 3)`` frames of one size.
        size: ``(h, w)``.
        boxes: ``(t, 4)`` x, y, w, h in pixels, 0-based corner.
        seen: ``(t,)`` bool, whether a frame's overlap counts.
    """

    frames: Callable[[], Iterable[np.ndarray]]
    size: tuple[int, int]
    boxes: np.ndarray
    seen: np.ndarray


class Held(Protocol):
    """What is held out of a run."""

    def batches(self, task: Task) -> list[tuple[Batch, jax.Array]]:
        """Return batches of pairs as the task's loss takes them, and the key of each pair."""

    def clips(self) -> Sequence[Clip]:
        """Return the clips."""


def _key(part: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(_KEY), part)


def _keys(batch: int) -> list[jax.Array]:
    """Return two ``(n,)`` keys of the pairs of a batch: to draw them, and for the loss."""
    return streams(pair_keys(jax.random.fold_in(_key(_PAIRS), batch), jnp.arange(BATCH_SIZE)), 2)


class Drawn:
    """Pairs and clips of the synthetic world, the same in every run.

    Args:
        clips: how many clips.
        world: what they show.
    """

    def __init__(self, clips: int = CLIPS, world: WorldConfig = WORLD) -> None:
        self._count, self._world = clips, world

    def batches(self, task: Task) -> list[tuple[Batch, jax.Array]]:
        """See `Held`."""
        draw = jax.jit(lambda keys: task.sample(task.config, keys))
        both = [_keys(number) for number in range(BATCHES)]
        return [(jax.device_get(draw(drawn)), keys) for drawn, keys in both]

    def clips(self) -> list[Clip]:
        """See `Held`."""
        draw = jax.jit(make_clip, static_argnums=0)
        found = []
        for number in range(self._count):
            clip = draw(self._world, jax.random.fold_in(_key(_CLIPS), number))
            frames, boxes, absent = (np.asarray(x) for x in clip[:3])
            opened = functools.partial(iter, frames)
            found.append(Clip(opened, (frames.shape[1], frames.shape[2]), boxes, ~absent))
        return found


class Videos:
    """Videos of built datasets.

    Args:
        datasets: the held-out videos of each (`jaxtrack.data.pipeline.Dataset.videos`).
        config: how pairs are drawn from them.
    """

    def __init__(self, datasets: Sequence[Dataset], config: PairConfig) -> None:
        self._datasets, self._config = list(datasets), config

    def batches(self, task: Task) -> list[tuple[Batch, jax.Array]]:
        """See `Held`."""
        from jaxtrack.data import pipeline

        pairs = pipeline.make_iterator(self._config, self._datasets, BATCH_SIZE, seed=_KEY)
        found = [(next(pairs), _keys(number)[1]) for number in range(BATCHES)]
        pairs.close()
        return found

    def clips(self) -> list[Clip]:
        """See `Held`."""
        found = []
        for dataset in self._datasets:
            source = FrameSource(dataset.path)
            for video in dataset.videos or ():
                clip = clip_of(source, video)
                assert clip is not None  # it was asked for before it was held out
                found.append(clip)
        return found


def clip_of(source: FrameSource, video: int) -> Clip | None:
    """Return the first frames of a video in which its first target can be followed; None: there are none.

    Args:
        source: of whole frames.
        video: number of the video.
    """
    for target in source.targets_of(video):
        span = source.rows_of(target)
        record = np.asarray(source.rows_record[span])
        boxes = np.asarray(source.rows_box[span])
        there = record >= 0
        seen = there & usable_boxes(boxes) & ~np.asarray(source.rows_absent[span])
        if not seen.any():
            continue
        rows = np.flatnonzero(there)
        rows = rows[rows >= int(np.argmax(seen))][:LENGTH]
        one_size = (source.sizes[record[rows]] == source.sizes[record[rows[0]]]).all()
        if seen[rows].sum() < 2 or not one_size:
            continue
        name = source.names["targets"][target]
        height, width = source.sizes[record[rows[0]]].tolist()
        frames = _Frames(source, name, tuple(record[rows].tolist()))
        return Clip(frames, (height, width), boxes[rows], seen[rows])
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class _Frames:
    """The frames of a clip, decoded one by one whenever they are asked for."""

    source: FrameSource
    name: str
    records: tuple[int, ...]

    def __call__(self) -> Iterator[np.ndarray]:
        for place, record in enumerate(self.records):
            where = f"{self.source.name}: {self.name}, frame {place}"
            yield frame_files.decode(self.source.image(record), where)


class _Part(NamedTuple):
    """A dataset, opened, and the numbers of its videos that are held out."""

    dataset: Dataset
    source: FrameSource
    videos: set[int]

    @property
    def targets(self) -> tuple[int, int]:
        """Return how many targets the dataset has, and how many of them are held out."""
        return self.source.num_targets, sum(len(self.source.targets_of(v)) for v in self.videos)


class Parted(NamedTuple):
    """A mixture in two parts.

    Attributes:
        mixture: what is left to be trained on.
        pairs: how pairs are drawn from it.
        held: what is held out.
        note: one line that says it.
    """

    mixture: list[Dataset]
    pairs: PairConfig
    held: Videos
    note: str


def hold_out(mixture: Sequence[Dataset], root: pathlib.Path, pairs: PairConfig) -> Parted:
    """Take videos out of a mixture to validate on.

    Args:
        mixture: what is trained on.
        root: the folder of built datasets; where a validation split of whole frames lies in it that is not
            trained on, it is validated on, and the mixture stays as it is.
        pairs: how pairs are drawn.

    Raises:
        JaxtrackError: no video can be held out.
    """
    from jaxtrack.data.pipeline import Dataset

    trained = [_Part(d, FrameSource(d.path), set()) for d in mixture]
    known = {os.path.realpath(part.source.path) for part in trained}
    splits = [path for path in built_below(root) if path.parent.name.startswith("val")]
    apart = [path for path in splits if os.path.realpath(path) not in known]
    parts = _choose([_Part(Dataset(path), FrameSource(path), set()) for path in apart], keep=0)
    left = list(mixture)
    if not any(part.videos for part in parts):
        parts = _choose(trained, keep=1)
        left = [_without(part) for part in parts]
    parts = [part for part in parts if part.videos]
    if not parts:
        raise JaxtrackError(
            "--validate-every: no video can be held out: that takes two videos of whole frames, one of "
            "them to be trained on (crops and still images cannot be tracked); build a validation split "
            "beside them, or leave the flag out"
        )
    held = [dataclasses.replace(p.dataset, videos=tuple(sorted(p.videos))) for p in parts]
    count = sum(part.targets[1] for part in parts)
    rest = sum(part.targets[0] - part.targets[1] for part in trained)
    note = f"held out for validation: {'; '.join(map(_said, parts))}"
    return Parted(left, _drawn(pairs, rest), Videos(held, _drawn(pairs, count)), note)


def _drawn(pairs: PairConfig, targets: int) -> PairConfig:
    """Return how pairs are drawn of so many targets: a negative pair is one of two."""
    return pairs if targets > 1 else dataclasses.replace(pairs, negative=0.0)


def _choose(parts: list[_Part], keep: int) -> list[_Part]:
    """Choose videos to hold out, by their names alone.

    Args:
        parts: the datasets; nothing is held out yet.
        keep: fewest videos that are left of each; where none need be, all may be taken.
    """
    whole = [p for p in parts if not p.source.crop and p.source.num_records > p.source.num_videos]
    places = [(part, video) for part in whole for video in range(part.source.num_videos)]
    wanted = min(CLIPS, max(1, len(places) // _SHARE) if keep else CLIPS)

    def rank(place: tuple[_Part, int]) -> bytes:
        source, video = place[0].source, place[1]
        text = f"{source.name}/{source.names['videos'][video]}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).digest()

    for part, video in sorted(places, key=rank):
        if sum(len(p.videos) for p in whole) == wanted:
            break
        room = part.source.num_videos - len(part.videos) > keep
        if room and clip_of(part.source, video) is not None:
            part.videos.add(video)
    return parts


def _without(part: _Part) -> Dataset:
    """Return a dataset without the videos that are held out."""
    if not part.videos:
        return part.dataset
    rest = tuple(v for v in range(part.source.num_videos) if v not in part.videos)
    return dataclasses.replace(part.dataset, videos=rest)


def _said(part: _Part) -> str:
    source = part.source
    names = [source.names["videos"][video] for video in sorted(part.videos)]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{len(names)} of {source.num_videos} videos of {source.name} ({source.split}): {listed}"
