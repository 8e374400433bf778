"""Reads every dataset in the layout that its own site delivers, without building anything.

`read_layout("otb", root)` lists the targets of a dataset with the paths of their frames and their
boxes, 0-based. Evaluation reads raw folders through it; `jaxtrack.data.prepare` builds from it.
Needs numpy only (clips of the `custom` layout also need OpenCV, to count frames).

Traps of each dataset that are handled here:

=============  ====================================================================================
otb            1-based; comma, tab or blank separators; first images that are not 0001; David,
               Diving, Football1, Freeman3/4, BlurCar1/3/4 and Tiger1 annotated in part; Jogging and
               Skating2 have two targets; Human4 ships an empty first annotation
lasot          1-based; flags for full occlusion and out of view; absent frames may carry a box;
               per-class folders or flat ones; the extension is the same layout (`lasot_ext`)
got10k         1-based; absent targets as -1 or zero boxes; cover in eighths; test has first boxes
               only; 1,000 training videos are forbidden before a test on VOT (`train_vot`). Boxes of
               training videos 8623 to 8637 and 9058 to 9059 are reported not to fit (not mended here)
trackingnet    0-based floats; 12 parts; frames as folders or as the downloaded zip files, read in
               place; names sort by number (0.jpg, 1.jpg, 10.jpg); test has first boxes only
uav123         1-based; several targets are stretches of one video; absent targets are NaN
nfs            corners; one row per 240 fps frame also for the 30 fps frames; lost flag
vot            polygons (or boxes); frames in `color/` or beside the annotation; per-frame tags
tc128          1-based; annotated range in VIDEO_frames.txt
vid, det       several tracks per image; tracks present in a part of the frames only
coco           crowds and boxes below 2 pixels are left out
youtubebb      511 crops in PySOT's layout, the target at the centre
custom         clips or frame folders plus one text file per target
=============  ====================================================================================
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jaxtrack.data.readers import benchmarks, custom, images, otb, tools, training
from jaxtrack.data.record import VideoRecord, usable_boxes
from jaxtrack.errors import JaxtrackError

__all__ = [
    "DATASETS",
    "Layout",
    "VideoRecord",
    "iter_layout",
    "names",
    "read_layout",
    "usable_boxes",
]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one dataset lies on disk.

    Attributes:
        read: `(root, split) -> records`.
        splits: names of its splits; the first is the default.
        looked_for: the files that identify the layout, under the dataset's folder.
        stills: whether every target has a single frame (pairs then use the image twice).
    """

    read: Callable[[Path, str], Iterator[VideoRecord]]
    splits: tuple[str, ...]
    looked_for: str
    stills: bool = False


DATASETS: dict[str, Layout] = {
    "got10k": Layout(
        training.read_got10k, ("train", "val", "test", "train_vot"), training.GOT10K_LAYOUT
    ),
    "lasot": Layout(training.read_lasot, ("train", "test", "full"), training.LASOT_LAYOUT),
    "lasot_ext": Layout(training.read_lasot, ("full",), training.LASOT_LAYOUT),
    "trackingnet": Layout(
        training.read_trackingnet, ("train", "test", "train_0_3"), training.TRACKINGNET_LAYOUT
    ),
    "vid": Layout(images.read_vid, ("train", "val"), images.VID_LAYOUT),
    "det": Layout(images.read_det, ("train", "val"), images.DET_LAYOUT, stills=True),
    "coco": Layout(images.read_coco, ("train", "val"), images.COCO_LAYOUT, stills=True),
    "youtubebb": Layout(images.read_crops, ("train", "val"), images.CROPS_LAYOUT),
    "otb": Layout(otb.read_otb, ("test", "otb2013", "otb50", "otb100"), otb.OTB_LAYOUT),
    "otb2013": Layout(otb.read_otb, ("otb2013",), otb.OTB_LAYOUT),
    "otb50": Layout(otb.read_otb, ("otb50",), otb.OTB_LAYOUT),
    "otb100": Layout(otb.read_otb, ("otb100",), otb.OTB_LAYOUT),
    "uav123": Layout(benchmarks.read_uav, ("uav123",), benchmarks.UAV_LAYOUT),
    "uav20l": Layout(benchmarks.read_uav, ("uav20l",), benchmarks.UAV_LAYOUT),
    "nfs": Layout(benchmarks.read_nfs, ("fps30", "fps240"), benchmarks.NFS_LAYOUT),
    "vot2016": Layout(benchmarks.read_vot, ("test",), benchmarks.VOT_LAYOUT),
    "vot2017": Layout(benchmarks.read_vot, ("test",), benchmarks.VOT_LAYOUT),
    "vot2018": Layout(benchmarks.read_vot, ("test",), benchmarks.VOT_LAYOUT),
    "vot2019": Layout(benchmarks.read_vot, ("test",), benchmarks.VOT_LAYOUT),
    "tc128": Layout(otb.read_tc128, ("test",), otb.TC128_LAYOUT),
    "custom": Layout(custom.read_custom, ("train",), custom.CUSTOM_LAYOUT),
}


def names() -> tuple[str, ...]:
    """Names the datasets whose layout can be read.

    Returns:
        Dataset names, in the order of the table above.
    """
    return tuple(DATASETS)


def resolve(dataset: str, split: str | None = None) -> tuple[Layout, str]:
    """Looks up a dataset and one of its splits.

    Args:
        dataset: dataset name.
        split: split name, or None for the dataset's default.

    Returns:
        Its layout and the split's name.

    Raises:
        JaxtrackError: an unknown dataset or split; the nearest name is offered.
    """
    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise JaxtrackError(f"no dataset '{dataset}': {hint}known: {', '.join(DATASETS)}")
    layout = DATASETS[dataset]
    if split is None:
        return layout, layout.splits[0]
    if split not in layout.splits and not (dataset == "trackingnet" and split.startswith("train_")):
        raise JaxtrackError(f"{dataset} has no split '{split}': known: {', '.join(layout.splits)}")
    return layout, split


def iter_layout(
    dataset: str,
    root: str | os.PathLike,
    split: str | None = None,
    only: Sequence[str] | None = None,
) -> Iterator[VideoRecord]:
    """Reads a dataset's folder target by target (COCO has 860,000 of them).

    Args:
        dataset: dataset name, see `names`.
        root: the folder that the dataset unpacks to.
        split: split name; None means the first of `DATASETS[dataset].splits`.
        only: names of videos or targets to keep; all of them must exist.

    Yields:
        Records; targets of one video follow each other.

    Raises:
        JaxtrackError: missing folder, another layout (and what was looked for), a missing or empty
            annotation, more or fewer boxes than frames; names dataset, video and file.
    """
    layout, split = resolve(dataset, split)
    path = tools.require_root(dataset, root)
    yield from tools.select(dataset, layout.read(path, split), only)


def read_layout(
    dataset: str,
    root: str | os.PathLike,
    split: str | None = None,
    only: Sequence[str] | None = None,
) -> list[VideoRecord]:
    """Reads a dataset's folder at once; see `iter_layout`.

    Args:
        dataset: dataset name, see `names`.
        root: the folder that the dataset unpacks to.
        split: split name; None means the dataset's default.
        only: names of videos or targets to keep; all of them must exist.

    Returns:
        One record per target.
    """
    return list(iter_layout(dataset, root, split, only))
