"""Which frames form a training sample (numpy).

A sample is a pair of patches (template, search), or a template with several patches of the same video.
Each patch comes with the target's box in patch coordinates, so that augmentation and labels need nothing
else. Patches are context patches: larger than the network's crop, so that shifting and scaling happen on
the device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxtrack.data import frames as frame_io
from jaxtrack.data.patches import PatchCutter
from jaxtrack.data.record import usable_boxes
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.ranges import Count, Share, Whole, check_ranges

# Draws from videos without a usable frame before giving up, and from records that do not decode.
_MAX_EMPTY, _MAX_BROKEN = 1000, 20


@dataclasses.dataclass(frozen=True)
class FrameFilter:
    """Which annotated frames are good enough to train on, beside a usable box that is not absent.

    Attributes:
        min_side: least width and height, pixels.
        max_side: greatest width and height, pixels.
        min_share: least width and height as a share of the frame's.
        max_share: greatest such share.
        max_aspect: greatest of w / h and h / w.
        min_visibility: the visible share must exceed this (GOT-10k knows it; 1 where unknown).
    """

    min_side: float = 0.0
    max_side: float = math.inf
    min_share: float = 0.0
    max_share: float = math.inf
    max_aspect: float = math.inf
    min_visibility: float = -1.0

    def keep(self, boxes: np.ndarray, sizes: np.ndarray, visibility: np.ndarray) -> np.ndarray:
        """Say which frames pass.

        Args:
            boxes: ``(n, 4)`` (x, y, w, h), pixels, finite, of positive size.
            sizes: ``(n, 2)`` (height, width) of the frames.
            visibility: ``(n,)`` visible share.

        Returns:
            ``(n,)`` bool.
        """
        sides = boxes[:, 2:]
        share = sides / sizes[:, ::-1]
        aspect = sides[:, 0] / sides[:, 1]
        return (
            (sides.min(axis=1) >= self.min_side)
            & (sides.max(axis=1) <= self.max_side)
            & (share.min(axis=1) >= self.min_share)
            & (share.max(axis=1) <= self.max_share)
            & (np.maximum(aspect, 1 / aspect) <= self.max_aspect)
            & (visibility > self.min_visibility)
        )


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """What a training sample is made of.

    Attributes:
        template: patch of the template.
        search: patch of the search image (and of the others, if any).
        max_gap: most frames between template and search; a dataset of the mixture may set its own.
        order: ``any``; ``forward``: the search frame is later; ``sorted``: the earlier is the template.
        same_frame: whether template and search may be one frame of a longer video.
        negative: share of pairs whose search patch shows another target.
        patches: if not 0, this many search patches of one video instead of one.
        min_frames: fewest usable frames a video must have (a still image needs its one).
        filter: which frames are used; a dataset of the mixture may have its own.
        reduced_decode: see ``patches.PatchCutter``.
    """

    template: PatchSpec
    search: PatchSpec
    max_gap: Whole = 100
    order: Literal["any", "forward", "sorted"] = "any"
    same_frame: bool = True
    negative: Share = 0.0
    patches: Whole = 0
    min_frames: Count = 1
    filter: FrameFilter = FrameFilter()
    reduced_decode: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled."""
        check_ranges(self)


def usable_rows(
    source: FrameSource, target: int, frame_filter: FrameFilter, min_frames: int = 1
) -> np.ndarray:
    """List the rows of a target that can be trained on.

    Args:
        source: a built dataset.
        target: number of the target.
        frame_filter: what else is asked of a frame than a usable box.
        min_frames: fewest such frames (one for a still image).

    Returns:
        Row numbers, ascending; empty if there are fewer than ``min_frames``.
    """
    span = source.rows_of(target)
    record, boxes = source.rows_record[span], np.asarray(source.rows_box[span])
    keep = np.flatnonzero(usable_boxes(boxes) & ~source.rows_absent[span] & (record >= 0))
    sizes = source.sizes[record[keep]]
    keep = keep[frame_filter.keep(boxes[keep], sizes, source.rows_visibility[span][keep])]
    enough = len(keep) >= min(min_frames, len(record))
    return keep + span.start if enough else keep[:0]


def choose_pair(
    rows: np.ndarray, config: PairConfig, max_gap: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw a template row, and a search row within the allowed gap.

    Args:
        rows: usable rows of one target, ascending; one row per frame, so that differences are gaps.
        config: order and whether one frame may be used twice.
        max_gap: most frames between the two.
        rng: random numbers.

    Returns:
        (template row, search row). Where no other frame lies within the gap, the nearest one on the
        allowed side is taken; where there is none at all, the same frame twice.
    """
    first = int(rng.integers(len(rows)))
    low = rows[first] + (0 if config.order == "forward" else -max_gap)
    start, stop = np.searchsorted(rows, [low, rows[first] + max_gap + 1])
    candidates = np.arange(start, stop)
    if not config.same_frame:
        candidates = candidates[candidates != first]
        if not len(candidates):
            nearest = [first + 1] if config.order == "forward" else [first - 1, first + 1]
            candidates = np.array([i for i in nearest if 0 <= i < len(rows)], dtype=np.int64)
        if not len(candidates) and first > 0:  # the last frame has no later one
            first, candidates = first - 1, np.array([first])
    second = int(rng.choice(candidates)) if len(candidates) else first
    if config.order == "sorted" and second < first:
        first, second = second, first
    return int(rows[first]), int(rows[second])


class Sampler:
    """Turn (dataset, video) and random numbers into a sample; picklable."""

    def __init__(
        self,
        config: PairConfig,
        sources: Sequence[FrameSource],
        max_gaps: Sequence[int],
        filters: Sequence[FrameFilter],
        videos: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Set up for a mixture.

        Args:
            config: what a sample is made of.
            sources: built datasets.
            max_gaps: most frames between template and search, for each.
            filters: which frames are used, for each.
            videos: numbers of the videos that are used, for each; None: all.
        """
        self.config, self.sources = config, tuple(sources)
        self.videos = tuple(videos or (range(source.num_videos) for source in sources))
        self.max_gaps, self.filters = tuple(max_gaps), tuple(filters)

    def sample(self, number: int, place: int, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a sample that starts from a video.

        A video without a usable frame is replaced by a random one of the same dataset; a sample with
        a record that does not decode is drawn again.

        Args:
            number: dataset's number in the mixture.
            place: of the video among those that are used.
            rng: random numbers; they alone decide.

        Returns:
            See ``pipeline.make_iterator``, for one element, plus ``used``: ``(k, 2)`` int64 (dataset, row)
            of the patches, ``broken``: (dataset, record) of the last record that did not decode, or -1,
            and ``failures``, the number of those.

        Raises:
            JaxtrackError: no usable video, or too many records in a row that do not decode.
        """
        broken, failures = (-1, -1), 0
        for _ in range(_MAX_BROKEN):
            cutter = PatchCutter(self.config.reduced_decode)
            try:
                found = self._draw(cutter, number, place, rng)
            except frame_io.FrameError as error:
                failures, broken = failures + 1, cutter.record
                last = error
                place = int(rng.integers(len(self.videos[number])))
                continue
            found["used"] = np.array(cutter.used, dtype=np.int64)
            found["broken"] = np.array(broken, dtype=np.int64)
            found["failures"] = np.int64(failures)
            return found
        raise JaxtrackError(f"{_MAX_BROKEN} samples in a row cannot be read, last: {last}")

    def _draw(
        self, cutter: PatchCutter, number: int, place: int, rng: np.random.Generator
    ) -> dict[str, Any]:
        config, source = self.config, self.sources[number]
        target, rows = self._target(number, place, rng)
        first, second = choose_pair(rows, config, self.max_gaps[number], rng)
        found: dict[str, Any] = {"negative": np.bool_(False)}
        pixels, box = cutter.cut(source, number, first, config.template)
        found["template"], found["template_box"] = pixels, box
        if config.patches:
            near = rows[np.abs(rows - first) <= self.max_gaps[number]]
            chosen = rng.choice(near, config.patches, replace=len(near) < config.patches)
            cuts = [cutter.cut(source, number, int(r), config.search) for r in np.sort(chosen)]
            found["patches"] = np.stack([c[0] for c in cuts])
            found["patch_boxes"] = np.stack([c[1] for c in cuts])
            return found
        if config.negative and rng.random() < config.negative:
            other, row = self._other(number, target, rng)
            found["negative"] = np.bool_(True)
            pixels, box = cutter.cut(self.sources[other], other, row, config.search)
        else:
            pixels, box = cutter.cut(source, number, second, config.search)
        found["search"], found["search_box"] = pixels, box
        return found

    def _target(self, number: int, place: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """Draw a target of a video that has usable frames, or of another video."""
        source, videos = self.sources[number], self.videos[number]
        for _ in range(_MAX_EMPTY):
            targets = source.targets_of(videos[place])
            for i in rng.permutation(len(targets)):
                rows = usable_rows(
                    source, targets[int(i)], self.filters[number], self.config.min_frames
                )
                if len(rows):
                    return targets[int(i)], rows
            place = int(rng.integers(len(videos)))
        raise JaxtrackError(
            f"{source.name}: {_MAX_EMPTY} videos in a row of {source.path} have no usable frame: "
            "loosen the frame filter"
        )

    def _other(self, number: int, target: int, rng: np.random.Generator) -> tuple[int, int]:
        """Draw a frame of another target from any dataset of the mixture, all equally likely."""
        for _ in range(_MAX_EMPTY):
            other = int(rng.integers(len(self.sources)))
            place = int(rng.integers(len(self.videos[other])))
            found, rows = self._target(other, place, rng)
            if (other, found) != (number, target):
                return other, int(rng.choice(rows))
        raise JaxtrackError("negative pairs need at least two targets in the datasets")
