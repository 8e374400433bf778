"""TADT's settings."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.colour import UNUSED, ColourCue
from jaxtrack.ops.confidence import RESPONSE, Confidence
from jaxtrack.ops.lost import NEVER, LostRule, refuse_aside
from jaxtrack.ops.template_update import FIXED, TemplateUpdate
from jaxtrack.ranges import Count, NotNegative, Positive, Whole, check_order, check_ranges
from jaxtrack.trackers.tadt import geometry
from jaxtrack.trackers.tadt.adam import AdamDescent
from jaxtrack.trackers.tadt.extractor import Extractor
from jaxtrack.trackers.tadt.ridge import Descent

RidgeRule = Literal["gradient", "gradient-times-feature", "kernel-sum"]
RankingRule = Literal["gradient-times-feature", "published", "published-neighbours", "none"]
Selection = Literal["both", "ridge", "ranking", "all", "random"]

_VGG = Extractor()
_DESCENT = Descent()


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of TADT.

    Attributes:
        extractor: network, layers and preprocessing.
        max_size: targets greater than this (root of the area, pixels) are scaled down to it.
        min_size: smaller ones are scaled up to it.
        search_factor: side of the search window in units of ``max_size``.
        scales: size factors of the copies of the search features, rising.
        scale_weights: factors on the copies' best scores.
        feature_pad: cells by which neighbouring copies differ in size.
        window_weight: factor on the Hann window, which is added to the responses.
        ridge: training of the ridge branch.
        ridge_rule: how the ridge branch's importance of a channel is taken.
        ranking: training of the ranking branch (unused by the published rule).
        ranking_rule: how the ranking branch's importance of a channel is taken.
        label_alpha: factor of the label's exponent.
        label_sigma: width of the label, in template sides.
        caps: greatest number of channels of each layer.
        minimum: least number of channels of all layers together; at most the last layer's channels.
        balance_top: channels that measure a layer's strength (see `channels.balance_weights`).
        selection: which branches decide; ``all`` and ``random`` are for comparison (random: as many
            channels as ``both`` would keep).
        matlab_resampling: scaled copies with corners aligned, responses upsampled with half-pixel centres
            and a cubic of -0.5, as in the Matlab code.
        seed: of the branches' initial kernels and of ``random``.
        max_window: a search window never grows beyond this side (pixels of the scaled image).
        confidence: what the score is (see `jaxtrack.ops.confidence`); as published, the
            relative correlation.
        lost: what a low score does (see `jaxtrack.ops.lost`); as published: nothing.
        template_update: how the template follows the target (see
            `jaxtrack.ops.template_update`); as published: not at all.
        colour: how the target's colours help to find it (see `jaxtrack.ops.colour`); as published:
            not at all.
    """

    extractor: Extractor = _VGG
    max_size: Positive = 59
    min_size: Positive = 44
    search_factor: Positive = 3
    scales: tuple[Positive, ...] = (45 / 47, 1.0, 45 / 43)
    scale_weights: tuple[Positive, ...] = (0.99, 1.0, 1.0055)
    feature_pad: Whole = 2
    window_weight: NotNegative = 1.0
    ridge: Descent | AdamDescent = _DESCENT
    ridge_rule: RidgeRule = "gradient"
    ranking: Descent = _DESCENT
    ranking_rule: RankingRule = "gradient-times-feature"
    label_alpha: Positive = 0.2
    label_sigma: Positive = 0.1
    caps: tuple[Count, ...] = (80, 300)
    minimum: Whole = 250
    balance_top: Count = 49
    selection: Selection = "both"
    matlab_resampling: bool = False
    seed: Whole = 1234
    max_window: Count = 4096
    confidence: Confidence = RESPONSE
    lost: LostRule = NEVER
    template_update: TemplateUpdate = FIXED
    colour: ColourCue = UNUSED

    @property
    def input_canvas(self) -> int:
        """Largest side of the network's input (without margin), static."""
        return int(geometry.grown_side(int(self.search_factor * self.max_size), self.stride))

    def __post_init__(self) -> None:
        """Refuse numbers without a meaning, alone or together, and what the network does not have."""
        check_ranges(self)
        check_order(self, "min_size", "max_size", "TADT: ")
        refuse_aside(self.lost, 1)
        channels, layers = self.extractor.channels, self.extractor.layers
        if len(self.caps) != len(layers):
            raise JaxtrackError(
                f"TADT: caps has {len(self.caps)} numbers for {len(layers)} layers; give one per layer"
            )
        for layer, cap, have in zip(layers, self.caps, channels):
            if cap > have:
                raise JaxtrackError(
                    f"TADT: caps asks for {cap} channels of layer {layer}, which has {have}; "
                    f"give 1 to {have}"
                )
        if self.minimum > channels[-1]:
            raise JaxtrackError(
                f"TADT: minimum asks for {self.minimum} channels, but layer {layers[-1]} has "
                f"{channels[-1]}; give 0 to {channels[-1]}"
            )
        if len(self.scales) != len(self.scale_weights) or len(self.scales) % 2 == 0:
            raise JaxtrackError(
                f"TADT: {len(self.scales)} scales and {len(self.scale_weights)} scale_weights; give an "
                "odd number of each"
            )

    @property
    def map_canvas(self) -> int:
        """Largest side of the feature map, odd."""
        return self.input_canvas // self.stride

    @property
    def stride(self) -> int:
        """Input pixels per feature cell."""
        return self.extractor.stride

    @property
    def template_width(self) -> int:
        """Cells of the longest that a template's shorter side can be, odd: its area is bounded."""
        return min(2 * (int(self.max_size + 1) // (2 * self.stride)) + 1, self.map_canvas)

    @property
    def slots(self) -> tuple[int, ...]:
        """Places for kept channels of each layer; those that stay empty hold zeros."""
        if self.selection == "all":
            return self.extractor.channels
        return (*self.caps[:-1], max(self.caps[-1], self.minimum))
