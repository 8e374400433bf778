"""Read every dataset in the layout that its own site delivers, without building anything.

``read_layout("otb", root)`` lists the targets of a dataset with the paths of their frames and their boxes,
0-based. Evaluation reads raw folders through it; ``jaxtrack.data.prepare`` builds from it. ``read_truth``
reads the annotation alone, where there are no images. Needs numpy only (clips of the ``custom`` layout also
need OpenCV, to count frames). Frames and rows are joined by the numbers in the frames' names
(``readers/pairing.py``).

Traps of each dataset that are handled here:

=============  ====================================================================================
otb            1-based; comma, tab or blank separators; first images that are not 0001; David,
               Diving, Football1, Freeman3/4, BlurCar1/3/4 and Tiger1 annotated in part; Jogging and
               Skating2 have two targets; Human4 ships an empty first annotation
lasot          1-based; flags for full occlusion and out of view; absent frames may carry a box;
               per-class folders or flat ones; the extension is the same layout (``lasot_ext``)
got10k         1-based; absent targets as -1 or zero boxes; cover in eighths; test has first boxes
               only; 1,000 training videos are forbidden before a test on VOT (``train_vot``). Boxes of
               training videos 8623 to 8637 and 9058 to 9059 are reported not to fit (not mended here)
trackingnet    0-based floats; 12 parts; frames as folders or as the downloaded zip files, read in
               place; names sort by number (0.jpg, 1.jpg, 10.jpg); test has first boxes only
uav123         1-based; several targets are stretches of one video; absent targets are NaN
nfs            corners; one row per 240 fps frame also for the 30 fps frames; lost flag
vot            polygons (or boxes); frames in ``color/`` or beside the annotation; per-frame tags
tc128          1-based; annotated range in VIDEO_frames.txt
vid, det       several tracks per image; tracks present in a part of the frames only
coco           crowds and boxes below 2 pixels are left out
youtubebb      511 crops in PySOT's layout, the target at the centre
custom         clips or frame folders plus one text file per target (``readers/custom.py`` has the format)
=============  ====================================================================================

``package.module:LAYOUT``, wherever a dataset's name is asked for, imports a `Layout` of somebody else's.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from jaxtrack.data.readers import benchmarks, custom, files, images, otb, pairing, training
from jaxtrack.data.readers.entries import Entry, Found, read_entries
from jaxtrack.data.record import VideoRecord, usable_boxes
from jaxtrack.errors import JaxtrackError, brief, unknown
from jaxtrack.imports import imported_as

__all__ = [
    "DATASETS",
    "Entry",
    "Found",
    "Layout",
    "VideoRecord",
    "canonical",
    "evaluation_split",
    "folder_name",
    "is_own",
    "iter_layout",
    "layout_of",
    "names",
    "read_layout",
    "read_truth",
    "resolve",
    "usable_boxes",
    "withheld",
]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one dataset lies on disk.

    Attributes:
        find: ``(root, split, frames) -> what is there``; nothing is read but lists.
        splits: names of its splits; the first is the default for training.
        looked_for: the files that identify the layout, under the dataset's folder.
        evaluation: the split that is scored by default: the benchmark's test set; the first one where there
            is no such split.
        withheld: splits of which the dataset publishes the first boxes only: no score can be computed here.
        stills: whether every target has a single frame (pairs then use the image twice).
    """

    find: Callable[[Path, str, bool], Found]
    splits: tuple[str, ...]
    looked_for: str
    evaluation: str = "test"
    withheld: tuple[str, ...] = ()
    stills: bool = False


def _vot() -> Layout:
    return Layout(benchmarks.find_vot, ("test",), benchmarks.VOT_LAYOUT)


DATASETS: dict[str, Layout] = {
    "got10k": Layout(
        training.find_got10k,
        ("train", "val", "test", "train_vot"),
        training.GOT10K_LAYOUT,
        withheld=("test",),
    ),
    "lasot": Layout(training.find_lasot, ("train", "test", "full"), training.LASOT_LAYOUT),
    "lasot_ext": Layout(training.find_lasot, ("full",), training.LASOT_LAYOUT, "full"),
    "trackingnet": Layout(
        training.find_trackingnet,
        ("train", "test", "train_0_3"),
        training.TRACKINGNET_LAYOUT,
        withheld=("test",),
    ),
    "vid": Layout(images.find_vid, ("train", "val"), images.VID_LAYOUT, "val"),
    "det": Layout(images.find_det, ("train", "val"), images.DET_LAYOUT, "val", stills=True),
    "coco": Layout(images.find_coco, ("train", "val"), images.COCO_LAYOUT, "val", stills=True),
    "youtubebb": Layout(images.find_crops, ("train", "val"), images.CROPS_LAYOUT, "val"),
    "otb": Layout(otb.find_otb, ("test", "otb2013", "otb50", "otb100"), otb.OTB_LAYOUT),
    "otb2013": Layout(otb.find_otb, ("otb2013",), otb.OTB_LAYOUT, "otb2013"),
    "otb50": Layout(otb.find_otb, ("otb50",), otb.OTB_LAYOUT, "otb50"),
    "otb100": Layout(otb.find_otb, ("otb100",), otb.OTB_LAYOUT, "otb100"),
    "uav123": Layout(benchmarks.find_uav, ("uav123",), benchmarks.UAV_LAYOUT, "uav123"),
    "uav20l": Layout(benchmarks.find_uav, ("uav20l",), benchmarks.UAV_LAYOUT, "uav20l"),
    "nfs": Layout(benchmarks.find_nfs, ("fps30", "fps240"), benchmarks.NFS_LAYOUT, "fps30"),
    "vot2016": _vot(),
    "vot2017": _vot(),
    "vot2018": _vot(),
    "vot2019": _vot(),
    "tc128": Layout(otb.find_tc128, ("test",), otb.TC128_LAYOUT),
    "custom": Layout(custom.find_custom, ("train", "all"), custom.CUSTOM_LAYOUT, "all"),
}

# Other spellings, without case and signs.
_ALIASES = {
    "otb2015": "otb100",
    "tb100": "otb100",
    "tb50": "otb50",
    "otb13": "otb2013",
    "cvpr13": "otb2013",
    "got": "got10k",
    "lasotext": "lasot_ext",
    "lasotextension": "lasot_ext",
    "uav": "uav123",
    "needforspeed": "nfs",
    "templecolor128": "tc128",
    "tcolor128": "tc128",
    "imagenetvid": "vid",
    "imagenetdet": "det",
    "coco2017": "coco",
    "ytbb": "youtubebb",
}


def names() -> tuple[str, ...]:
    """Name the datasets whose layout can be read.

    Returns:
        Dataset names, in the order of the table above.
    """
    return tuple(DATASETS)


def canonical(dataset: str) -> str:
    """Find the name of a dataset, however it is spelled ("OTB-100", "GOT-10k", "LaSOT_ext").

    Args:
        dataset: a name, in any case and with any signs between letters and digits; or
            ``package.module:LAYOUT``.

    Returns:
        A key of ``DATASETS``, or what names a layout of somebody else's as it stands.

    Raises:
        JaxtrackError: an unknown dataset; the nearest names are offered. Or no such layout.
    """
    if ":" in dataset:
        layout_of(dataset)
        return dataset
    plain = re.sub(r"[^a-z0-9]", "", dataset.lower())
    spelled = {re.sub(r"[^a-z0-9]", "", name): name for name in DATASETS} | _ALIASES
    if plain not in spelled:
        raise unknown("dataset", dataset, DATASETS)
    return spelled[plain]


def layout_of(dataset: str) -> Layout:
    """Return the layout of a dataset.

    Args:
        dataset: a key of ``DATASETS``, or ``package.module:LAYOUT``.

    Raises:
        JaxtrackError: no such module, an error in it, no such name in it, or no layout.
    """
    if dataset in DATASETS:
        return DATASETS[dataset]
    where = f"dataset {brief(repr(dataset), 100)}"
    found = imported_as(Layout, dataset, where, "LAYOUT")
    if not found.splits:
        raise JaxtrackError(f"{where}: the layout names no split")
    return found


def is_own(dataset: str) -> bool:
    """Return whether a dataset is the user's own, and no published benchmark."""
    return dataset == "custom" or ":" in dataset


def folder_name(dataset: str) -> str:
    """Return a dataset's name as that of a folder."""
    return dataset.replace(":", ".")


def resolve(dataset: str, split: str | None = None) -> tuple[Layout, str]:
    """Look up a dataset and one of its splits.

    Args:
        dataset: dataset name, see ``canonical``.
        split: split name, or None for the dataset's default for training.

    Returns:
        Its layout and the split's name.

    Raises:
        JaxtrackError: an unknown dataset or split; the nearest name is offered.
    """
    dataset = canonical(dataset)
    layout = layout_of(dataset)
    if split is None:
        return layout, layout.splits[0]
    if dataset == "trackingnet" and split.startswith("train_"):
        training.trackingnet_parts(split)
    elif split not in layout.splits:
        raise unknown(f"split of {dataset}", split, layout.splits)
    return layout, split


def evaluation_split(dataset: str) -> str:
    """Name the split of a dataset that is scored when none is named: its test set.

    Args:
        dataset: dataset name, see ``canonical``.

    Returns:
        The split's name.
    """
    layout = layout_of(canonical(dataset))
    return layout.evaluation if layout.evaluation in layout.splits else layout.splits[0]


def withheld(dataset: str, split: str) -> bool:
    """Say whether the truth of a split is kept by its benchmark's server.

    Args:
        dataset: dataset name, see ``canonical``.
        split: split name.

    Returns:
        True where only first boxes are published (``VideoRecord.withheld`` says it of each video).
    """
    return split in layout_of(canonical(dataset)).withheld


def iter_layout(
    dataset: str,
    root: str | os.PathLike,
    split: str | None = None,
    only: Collection[str] | None = None,
    on_problem: Callable[[JaxtrackError], None] | None = None,
) -> Iterator[VideoRecord]:
    """Read a dataset's folder target by target (COCO has 860,000 of them).

    Args:
        dataset: dataset name, see ``canonical``.
        root: the folder that the dataset unpacks to.
        split: split name; None means the first of ``DATASETS[dataset].splits``.
        only: names of videos or targets to keep; all of them must exist. Nothing else is read.
        on_problem: called with what is wrong with each target that is then left out; None: the first
            problem is raised.

    Yields:
        Records; targets of one video follow each other.

    Raises:
        JaxtrackError: missing folder, another layout (and what was looked for), a missing or empty
            annotation, more or fewer boxes than frames, a video that is there twice; names dataset, video and
            file.
    """
    yield from _read(dataset, root, split, only, on_problem, True)


def read_layout(
    dataset: str,
    root: str | os.PathLike,
    split: str | None = None,
    only: Collection[str] | None = None,
    on_problem: Callable[[JaxtrackError], None] | None = None,
) -> list[VideoRecord]:
    """Read a dataset's folder at once; see ``iter_layout``.

    Args:
        dataset: dataset name, see ``canonical``.
        root: the folder that the dataset unpacks to.
        split: split name; None means the dataset's default.
        only: names of videos or targets to keep; all of them must exist.
        on_problem: see ``iter_layout``.

    Returns:
        One record per target.
    """
    return list(iter_layout(dataset, root, split, only, on_problem))


def read_truth(
    dataset: str,
    root: str | os.PathLike,
    split: str | None = None,
    only: Collection[str] | None = None,
    on_problem: Callable[[JaxtrackError], None] | None = None,
) -> list[VideoRecord]:
    """Read the annotation of a dataset's folder, whether or not its images are there.

    Args:
        dataset: dataset name, see ``canonical``.
        root: the folder that the dataset unpacks to.
        split: split name; None means the one that is scored by default (``evaluation_split``).
        only: names of videos or targets to keep; all of them must exist.
        on_problem: see ``iter_layout``.

    Returns:
        One record per target, without frames. A withheld annotation has its one row.
    """
    chosen = evaluation_split(dataset) if split is None else split
    return list(_read(dataset, root, chosen, only, on_problem, False))


def _read(
    dataset: str,
    root: str | os.PathLike,
    split: str | None,
    only: Collection[str] | None,
    on_problem: Callable[[JaxtrackError], None] | None,
    frames: bool,
) -> Iterator[VideoRecord]:
    layout, split = resolve(dataset, split)
    dataset = canonical(dataset)
    found = layout.find(files.require_root(dataset, root), split, frames)
    given: set[str] = set()
    for record in read_entries(dataset, found, only, on_problem):
        try:
            pairing.check_boxes(dataset, record)
            if record.name in given:
                raise JaxtrackError(f"{dataset}: {record.name} is there twice: delete one")
            if not layout.stills:  # hundreds of thousands, whose numbers merged files repeat
                given.add(record.name)
        except JaxtrackError as error:
            if on_problem is None:
                raise
            on_problem(error)
        else:
            yield record
