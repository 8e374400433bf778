"""The data of the published training recipes: which datasets, in which ratios, which frames pair up.

A recipe does not say how large a patch is: that depends on what the device does with it, and comes
from the training preset. ``pair_config`` puts the two together.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Literal

from jaxtrack.data.pipeline import Dataset
from jaxtrack.data.sampling import FrameFilter, PairConfig
from jaxtrack.data.source import built_below, find_built
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import paths
from jaxtrack.ops.patch import PatchSpec

# A stored crop of side 511 holds this many context windows: larger patches need whole frames.
CROP_SCALE = 511 / 127

_ANY = FrameFilter()
_VISIBLE = FrameFilter(min_visibility=0.0)


@dataclasses.dataclass(frozen=True)
class Ingredient:
    """One dataset of a recipe.

    Attributes:
        dataset: name, as for ``prepare``.
        split: split name.
        weight: share of the samples; None: its number of videos (all of them, none repeated).
        max_gap: most frames between template and search; None: the recipe's.
        filter: which frames are used; None: the recipe's.
    """

    dataset: str
    split: str = "train"
    weight: float | None = 1.0
    max_gap: int | None = None
    filter: FrameFilter | None = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Datasets, ratios and sampling of a published training.

    Attributes:
        source: where it is published.
        ingredients: the datasets; none: every built dataset in the folder, in equal parts.
        max_gap: most frames between template and search.
        order: see ``PairConfig``.
        same_frame: see ``PairConfig``.
        negative: share of negative pairs.
        min_frames: fewest usable frames of a video.
        filter: which frames are used.
        pad: colour outside the frame.
    """

    source: str
    ingredients: tuple[Ingredient, ...] = ()
    max_gap: int = 100
    order: Literal["any", "forward", "sorted"] = "any"
    same_frame: bool = True
    negative: float = 0.0
    min_frames: int = 1
    filter: FrameFilter = _ANY
    pad: Literal["mean", "black"] = "mean"


RECIPES: dict[str, Recipe] = {
    "all": Recipe("every built dataset in the folder, in equal parts"),
    "siamfc_got10k": Recipe(
        "huanglianghua/siamfc-pytorch: GOT-10k; frame filter and pair rule of its data set class",
        (Ingredient("got10k"),),
        max_gap=99,
        order="sorted",
        same_frame=False,
        min_frames=2,
        # Visible share above max(1 / 8, 0.3 of the video's largest): taken as 0.3 here.
        filter=FrameFilter(20, 500, 0.01, 0.5, 4.0, 0.3),
    ),
    "siamrpn": Recipe(
        "PySOT's SiamRPN++ training (config.py): VID 100,000 draws, the others once, negatives 0.2",
        (
            Ingredient("vid", weight=100_000),
            Ingredient("youtubebb", weight=None, max_gap=3),
            Ingredient("coco", weight=None, max_gap=1),
            Ingredient("det", weight=None, max_gap=1),
        ),
        negative=0.2,
    ),
    "ostrack": Recipe(
        "OSTrack, experiments/ostrack/*_ep300.yaml: four datasets in equal parts, up to 199 frames on. "
        "Its vottrain is a part (7,086 videos) of what train_vot has (8,335)",
        (
            Ingredient("lasot"),
            Ingredient("got10k", split="train_vot", filter=_VISIBLE),
            Ingredient("coco", filter=FrameFilter(min_side=50.001)),
            Ingredient("trackingnet"),
        ),
        max_gap=199,
        order="forward",
        same_frame=False,
        min_frames=5,
        pad="black",
    ),
    "ostrack_got10k": Recipe(
        "OSTrack, experiments/ostrack/*_got10k_*_ep100.yaml: GOT-10k's whole training split",
        (Ingredient("got10k", filter=_VISIBLE),),
        max_gap=199,
        order="forward",
        same_frame=False,
        min_frames=5,
        pad="black",
    ),
    "mlt": Recipe(
        "ours: the paper's data could not be verified. ImageNet VID, at most 100 frames apart, as for "
        "SiamFC (Bertinetto et al. 2016, section 4.1)",
        (Ingredient("vid"),),
        order="sorted",
        min_frames=2,
    ),
}


# The AlexNet's file has fewer negative pairs.
RECIPES["siamrpn_alex"] = dataclasses.replace(
    RECIPES["siamrpn"],
    source="PySOT's SiamRPN++ training with AlexNet: as siamrpn, negatives 0.05",
    negative=0.05,
)


def pair_config(
    recipe: Recipe, template: PatchSpec, search: PatchSpec, patches: int = 0
) -> PairConfig:
    """Put a recipe's sampling and the patches of a training preset together.

    Args:
        recipe: datasets and sampling.
        template: patch of the template; the recipe's padding replaces its own.
        search: patch of the search image, likewise.
        patches: see ``PairConfig``.

    Returns:
        What a sample is made of.
    """
    return PairConfig(
        template=dataclasses.replace(template, pad=recipe.pad),
        search=dataclasses.replace(search, pad=recipe.pad),
        max_gap=recipe.max_gap,
        order=recipe.order,
        same_frame=recipe.same_frame,
        negative=recipe.negative,
        patches=patches,
        min_frames=recipe.min_frames,
        filter=recipe.filter,
    )


def find_datasets(
    recipe: Recipe, root: str | os.PathLike, template: PatchSpec, search: PatchSpec
) -> list[Dataset]:
    """Find the built datasets of a recipe.

    Args:
        recipe: names them.
        root: the ``--output`` of ``prepare``.
        template: patch of the template: decides whether 511 crops are large enough.
        search: patch of the search image.

    Returns:
        The mixture. Stored crops are preferred where the patches fit into them.

    Raises:
        JaxtrackError: one is not there, and how to build it.
    """
    base = paths.resolve(root)
    if not recipe.ingredients:
        if not base.is_dir():
            raise JaxtrackError(
                f"no folder {base}: build datasets with python -m jaxtrack.data.prepare"
            )
        found = built_below(base)
        return [Dataset(path) for path in found] or [Dataset(find_built(base))]
    fits = all(p.context == 0.5 and p.scale <= CROP_SCALE for p in (template, search))
    flavours: tuple[str, ...] = ("crop511", "frames") if fits else ("frames",)
    mixture = []
    for part in recipe.ingredients:
        # YouTube-BB is passed on as crops: they are its frames.
        usable = flavours if fits or part.dataset != "youtubebb" else ()
        folders = [base / part.dataset / f"{part.split}_{f}" for f in usable]
        there = [f for f in folders if f.is_dir() and built_below(f, 1)]
        if not there:
            raise JaxtrackError(
                f"the recipe needs {part.dataset} ({part.split}), which {base} does not hold: python -m "
                f"jaxtrack.data.prepare {part.dataset} --split {part.split} --source DIR --output {base}"
                + ("" if fits else " (whole frames: the patches are larger than 511 crops)")
            )
        mixture.append(Dataset(there[0], part.weight, part.max_gap, part.filter))
    return mixture
