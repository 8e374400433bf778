"""Settings and presets of OSTrack."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import numpy as np

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import precision
from jaxtrack.ops.confidence import RESPONSE, Confidence
from jaxtrack.ops.lost import NEVER, LostRule, refuse_aside
from jaxtrack.ops.template_update import FIXED, TemplateUpdate
from jaxtrack.ranges import (
    BelowOne,
    Count,
    NotNegative,
    Positive,
    PositiveShare,
    Range,
    Share,
    Whole,
    check_ranges,
)
from jaxtrack.trackers.ostrack.elimination import TemplateRange


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of OSTrack; the defaults are ``vitb_256_mae_32x4_ep300`` of botaoye/OSTrack.

    Attributes:
        template_size: side of the template crop, pixels.
        search_size: side of the search crop, pixels.
        template_factor: side of the template window over the square root of the target's area.
        search_factor: the same of the search window.
        patch: side of a token, pixels.
        width: channels of a token.
        depth: transformer blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs over ``width``.
        ce_blocks: blocks that eliminate search tokens, counted from 0; empty: none do.
        ce_keep_ratios: share of the search tokens that each of them keeps.
        ce_template_range: template tokens whose attention decides: CTR_POINT, CTR_REC, ALL, GT_BOX.
        head_channels: of the head's first convolution; each further one has half; at least 8.
        pretraining_grid: side of the pre-training position grid, whose unused ``cls_token`` and
            ``pos_embed`` a published state dict holds; 0: neither.
        drop_path_rate: stochastic depth of the last block in training; it rises linearly from 0.
        layer_norm_epsilon: of the transformer.
        batch_norm_epsilon: of the head.
        clip_margin: a predicted box keeps this many pixels inside the frame, and is at least as large.
        compute_dtype: ``float32`` or ``bfloat16``, of products; parameters, norms, softmax and the
            residual stream are float32.
        remat: recompute blocks in the backward pass (training needs less memory and more time).
        stem: channels of a convolutional stem in the place of the patch product; empty: none.
        similarity: start from attention as likeness of content, for training without pre-training.
        head_prior: score that every cell starts training with, so that the many empty cells do not rule
            the first steps; 0: as published (PyTorch's default bias, about 0.5).
        size_rate: share of the predicted width and height in the new ones; 1: all, as published.
        size_correction: how far predicted widths and heights are corrected by what the network makes of the
            first frame, where they are known (see `jaxtrack.ops.boxes.size_correction`); as published: not. A
            small network predicts the shape of the mean target.
        confidence: what the score is (see `jaxtrack.ops.confidence`); as published, the
            head's score.
        lost: what a low score does (see `jaxtrack.ops.lost`); as published: nothing.
        template_update: how the template's tokens follow the target (see
            `jaxtrack.ops.template_update`); as published: not at all.
    """

    template_size: Count = 128
    search_size: Count = 256
    template_factor: Positive = 2.0
    search_factor: Positive = 4.0
    patch: Count = 16
    width: Count = 768
    depth: Count = 12
    heads: Count = 12
    mlp_ratio: Positive = 4.0
    ce_blocks: tuple[Whole, ...] = ()
    ce_keep_ratios: tuple[PositiveShare, ...] = ()
    ce_template_range: TemplateRange = "CTR_POINT"
    head_channels: Annotated[int, Range(low=8)] = 256
    pretraining_grid: Whole = 14
    drop_path_rate: BelowOne = 0.1
    layer_norm_epsilon: Positive = 1e-6
    batch_norm_epsilon: Positive = 1e-5
    clip_margin: NotNegative = 10.0
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    stem: tuple[Count, ...] = ()
    similarity: bool = False
    head_prior: BelowOne = 0.0
    size_rate: Share = 1.0
    size_correction: Share = 0.0
    confidence: Confidence = RESPONSE
    lost: LostRule = NEVER
    template_update: TemplateUpdate = FIXED

    @property
    def template_grid(self) -> int:
        """Side of the template's token grid."""
        return self.template_size // self.patch

    def __post_init__(self) -> None:
        """Refuse numbers that have no meaning, alone or together, by name."""
        check_ranges(self)
        if self.width % self.heads:
            raise JaxtrackError(
                f"heads is {self.heads}, which does not divide width = {self.width}"
            )
        for name in ("template_size", "search_size"):
            side = getattr(self, name)
            if side < self.patch:
                raise JaxtrackError(f"{name} is {side}, less than one patch of {self.patch}")
        if self.stem and 2 ** len(self.stem) != self.patch:
            raise JaxtrackError(
                f"stem has {len(self.stem)} convolutions of stride 2, which make patches of "
                f"{2 ** len(self.stem)}, and patch is {self.patch}"
            )
        if self.stem and self.stem[-1] != self.width:
            raise JaxtrackError(
                f"stem ends with {self.stem[-1]} channels, and width is {self.width}"
            )
        if len(self.ce_blocks) != len(self.ce_keep_ratios):
            raise JaxtrackError(
                f"ce_blocks names {len(self.ce_blocks)} blocks, ce_keep_ratios {len(self.ce_keep_ratios)}"
                " ratios; one for each"
            )
        if any(block >= self.depth for block in self.ce_blocks):
            raise JaxtrackError(
                f"ce_blocks names block {max(self.ce_blocks)}; there are {self.depth}, counted from 0"
            )
        refuse_aside(self.lost, 1)

    @property
    def search_grid(self) -> int:
        """Side of the search region's token grid, and of the response."""
        return self.search_size // self.patch

    @property
    def dtype(self) -> np.dtype:
        """``compute_dtype`` as a dtype; bfloat16 where that precision was chosen."""
        return precision.compute_dtype(self.compute_dtype)


_BASE = Config()
_LARGE = dataclasses.replace(_BASE, template_size=192, search_size=384, search_factor=5.0)


def _eliminating(config: Config) -> Config:
    """Add elimination in the fourth, seventh and tenth block, as all published configurations have it."""
    return dataclasses.replace(config, ce_blocks=(3, 6, 9), ce_keep_ratios=(0.7, 0.7, 0.7))


# Small, for the synthetic world and CPUs; shipped with weights.
_TINY = Config(
    template_size=64,
    search_size=128,
    patch=8,
    width=96,
    depth=4,
    heads=3,
    ce_blocks=(1, 2),
    ce_keep_ratios=(0.7, 0.7),
    head_channels=64,
    pretraining_grid=0,
    drop_path_rate=0.0,
    stem=(32, 64, 96),
    similarity=True,
    head_prior=0.05,
    size_rate=0.1,
    size_correction=1.0,
)
# Twice as wide, half as many blocks again: trained on an accelerator.
_SMALL = dataclasses.replace(
    _TINY, width=192, depth=6, heads=6, ce_blocks=(2, 4), head_channels=96, stem=(48, 96, 192)
)

PRESETS: dict[str, Config] = {
    # experiments/ostrack/*.yaml of botaoye/OSTrack, named beside each.
    "ostrack-256": _BASE,  # vitb_256_mae_32x4_ep300
    "ostrack-256-ce": _eliminating(_BASE),  # vitb_256_mae_ce_32x4_ep300
    "ostrack-384": _LARGE,  # vitb_384_mae_32x4_ep300
    "ostrack-384-ce": _eliminating(_LARGE),  # vitb_384_mae_ce_32x4_ep300
    # vitb_256_mae_ce_32x4_got10k_ep100: the same network, trained on GOT-10k alone.
    "ostrack-256-got10k": _eliminating(_BASE),
    "ostrack-tiny": _TINY,
    "ostrack-small": _SMALL,
}
