"""Settings of SiamRPN++: `Config` and the published presets, with their sources."""

from __future__ import annotations

import dataclasses

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.colour import HELPING, UNUSED, ColourCue
from jaxtrack.ops.confidence import COLOURED, RESPONSE, Confidence
from jaxtrack.ops.lost import NEVER, LostRule, refuse_aside
from jaxtrack.ops.template_update import FIXED, FOLLOWING, TemplateUpdate
from jaxtrack.ranges import Count, NotNegative, Positive, Share, Whole, check_order, check_ranges
from jaxtrack.trackers.siamrpn.network import NetworkConfig

_R50 = NetworkConfig()


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of SiamRPN++; the defaults are PySOT's ``siamrpn_r50_l234_dwxcorr`` (tuned on VOT).

    Attributes:
        network: backbone, neck and head.
        stride: pixels of the search crop between map cells.
        ratios: anchors' height over width.
        scales: anchors' sizes, multiples of the stride.
        exemplar_size: side of the template crop, pixels.
        instance_size: side of the search crop, pixels.
        base_size: cells that the map has beyond ``(instance - exemplar) / stride + 1``.
        context: context amount around the target (see `crop.context_side`).
        penalty_k: strength of the penalty on changes of scale and shape.
        window_influence: weight of the cosine window against the penalised score.
        size_rate: share of the new size, times penalty and score.
        size_correction: how far predicted widths and heights are corrected by what the network makes of the
            first frame, where they are known (see `jaxtrack.ops.boxes.size_correction`); as published: not.
        lost_instance_size: side of the search crop while the target is lost; 0: short-term tracker.
        confidence_low: score below which the target is lost.
        confidence_high: score above which a lost target is found.
        confidence: what the score is (see `jaxtrack.ops.confidence`); as published, the best
            anchor's probability.
        lost: what a low score does in a short-term tracker (see `jaxtrack.ops.lost`); as published: nothing.
        template_update: how the correlation kernels follow the target (see
            `jaxtrack.ops.template_update`); as published: not at all.
        colour: how the target's colours help to find it (see `jaxtrack.ops.colour`); as published:
            not at all.
    """

    network: NetworkConfig = _R50
    stride: Count = 8
    ratios: tuple[Positive, ...] = (0.33, 0.5, 1, 2, 3)
    scales: tuple[Positive, ...] = (8,)
    exemplar_size: Count = 127
    instance_size: Count = 255
    base_size: Whole = 8
    context: NotNegative = 0.5
    penalty_k: NotNegative = 0.05
    window_influence: Share = 0.42
    size_rate: Share = 0.38
    size_correction: Share = 0.0
    lost_instance_size: Whole = 0
    confidence_low: Share = 0.85
    confidence_high: Share = 0.998
    confidence: Confidence = RESPONSE
    lost: LostRule = NEVER
    template_update: TemplateUpdate = FIXED
    colour: ColourCue = UNUSED

    def __post_init__(self) -> None:
        """Refuse numbers that have no meaning, alone or together, by name."""
        check_ranges(self)
        for name in ("instance_size", "lost_instance_size"):
            side = getattr(self, name)
            if side and side < self.exemplar_size:
                raise JaxtrackError(f"{name} is {side}, below exemplar_size = {self.exemplar_size}")
        shapes = len(self.ratios) * len(self.scales)
        if self.network.anchors != shapes:
            raise JaxtrackError(
                f"ratios and scales make {shapes} anchors, but the network has {self.network.anchors}"
                " (network.anchors)"
            )
        check_order(self, "confidence_low", "confidence_high")
        refuse_aside(self.lost, 1)


_ALEXNET = NetworkConfig(backbone="alexnet", levels=(5,), neck=(), head=(256,), fusion="single")
_MOBILENET = NetworkConfig(backbone="mobilenetv2", width=1.4, levels=(3, 5, 7), fusion="average")
_ALEX = Config(
    network=_ALEXNET,
    instance_size=287,
    base_size=0,
    penalty_k=0.16,
    window_influence=0.40,
    size_rate=0.30,
)

_TINY = Config(
    network=NetworkConfig(
        backbone="alexnet",
        levels=(3, 4, 5),
        # The widths of `siamfc-tiny`, whose weights the training starts from.
        channels=(24, 64, 96, 96, 64),
        kernels=(7, 5, 3, 3, 3),
        neck=(96, 96, 96),
        neck_crop=0,
        neck_align=True,
        head=(96, 96, 96),
    ),
    base_size=0,
    instance_size=287,
    penalty_k=0.1,
    window_influence=0.35,
    size_rate=0.08,
    size_correction=0.5,
    confidence=COLOURED,
    template_update=FOLLOWING,
)

# MobileNetV2 of width 1 up to its fifth stage, two levels: trained on an accelerator, from nothing or from
# torchvision's weights.
_SMALL = Config(
    network=NetworkConfig(
        backbone="mobilenetv2", width=1.0, levels=(3, 5), neck=(192, 192), head=(192, 192)
    ),
    penalty_k=0.08,
    window_influence=0.3,
    size_rate=0.06,
    size_correction=0.5,
    confidence=COLOURED,
    template_update=FOLLOWING,
    colour=HELPING,
)


def _with_levels(config: Config, levels: tuple[int, ...]) -> Config:
    """Return the same network with fewer levels."""
    count = len(levels)
    network = dataclasses.replace(
        config.network,
        levels=levels,
        neck=config.network.neck[:count],
        head=config.network.head[:count],
        fusion="weighted" if count > 1 else "single",
    )
    return dataclasses.replace(config, network=network)


PRESETS: dict[str, Config] = {
    # PySOT model zoo, siamrpn_r50_l234_dwxcorr.
    "siamrpnpp-r50": Config(),
    # siamrpn_r50_l234_dwxcorr_otb: levels averaged without weights.
    "siamrpnpp-r50-otb": Config(
        network=NetworkConfig(fusion="average"),
        penalty_k=0.24,
        window_influence=0.5,
        size_rate=0.25,
    ),
    # siamrpn_mobilev2_l234_dwxcorr.
    "siamrpnpp-mobilev2": Config(
        network=_MOBILENET, penalty_k=0.04, window_influence=0.4, size_rate=0.5
    ),
    # siamrpn_alex_dwxcorr, and the same settings for the checkpoint tuned on OTB.
    "siamrpnpp-alex": _ALEX,
    "siamrpnpp-alex-otb": _ALEX,
    # siamrpn_r50_l234_dwxcorr_lt.
    "siamrpnpp-r50-lt": Config(
        network=NetworkConfig(neck=(128, 256, 512), head=(128, 256, 512)),
        penalty_k=0.05,
        window_influence=0.28,
        size_rate=0.22,
        lost_instance_size=831,
        confidence_low=0.8,
        confidence_high=0.998,
    ),
    # Small, for the synthetic world and CPUs; shipped with weights.
    "siamrpnpp-tiny": _TINY,
    # Weights from nothing, and weights that begin as ImageNet's: two presets, for each has its own file.
    "siamrpnpp-small": _SMALL,
    "siamrpnpp-small-imagenet": _SMALL,
    # The tiny one with one or two levels, for the experiment on fusion (python -m eval.studies.rpn).
    "siamrpnpp-tiny-1level": _with_levels(_TINY, (5,)),
    "siamrpnpp-tiny-2levels": _with_levels(_TINY, (4, 5)),
    # Zero padding everywhere and large kernels: deep features know where the border is, as those of the
    # paper's ResNet do, for the experiment on the centre bias (python -m eval.studies.centre_bias).
    "siamrpnpp-padded": Config(
        network=NetworkConfig(
            backbone="alexnet",
            levels=(5,),
            channels=(16, 24, 32, 32, 32),
            kernels=(11, 5, 7, 7, 7),
            padded=True,
            neck=(32,),
            head=(32,),
            fusion="single",
        )
    ),
}
