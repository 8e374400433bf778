"""Settings of MLT: what the description fixes, and every choice that it leaves open as a field."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from jaxtyping import Array

from jaxtrack.errors import JaxtrackError
from jaxtrack.models.alexnet import ALEXNET_V1, AlexNetConfig, refuse_small
from jaxtrack.ops.confidence import COLOURED, MARGIN, RESPONSE, Confidence
from jaxtrack.ops.lost import NEVER, LostRule, refuse_aside
from jaxtrack.ops.template_update import FIXED, FOLLOWING, TemplateUpdate
from jaxtrack.ranges import Count, NotNegative, OddCount, Positive, Share, Whole, check_ranges
from jaxtrack.trackers.mlt.meta import MetaConfig
from jaxtrack.trackers.mlt.network import MATCHING, MATCHING_TINY


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of MLT.

    No code of the method is public. Fields marked *open* are not told in any text that could be reached;
    their defaults are this library's own. Three switches (`meta_learner`, `attention`, `fine_tuning`) are
    independent of each other, so that every reading of the paper's variants can be run.

    Attributes:
        network: the matching network's embedding; its fifth convolution is the last layer.
        backbone_name: name of the embedding's parameters.
        out_scale: factor on the raw correlation (open).
        match_norm: one-channel batch normalisation after the correlation: a gain and a bias (open).
        input_divisor: images are divided by it (open; 1: the network sees 0..255).
        exemplar_size: side of the exemplar crop x, pixels (127).
        instance_size: side of the search crop and of context patches z, pixels (255).
        context: context around the target (open; see `crop.context_side`).
        meta_learner: switch: the meta-learner's new kernels are appended to the last layer.
        attention: switch: the meta-learner's attention weighs the channels.
        fine_tuning: switch: the last layer's kernel is fine-tuned on the memory with Adam.
        meta: size and reading of the meta-learner.
        attention_place: the attention multiplies the template's features, or those of both branches,
            which squares it in the response (open).
        samples: M, patches that one adaptation uses (8).
        memory_size: K, patches that the memory holds (open).
        tau: a frame's patch enters the memory when the score passes it (open).
        update_interval: every so many frames a patch is offered to the memory, and the layer adapted
            when it enters (open). The patch is cut around the new position.
        fewest_patches: the layer stays as it is until the memory holds so many patches (open): one or two
            tell little of what a target will look like.
        rate: share of the new kernels and attention at an update, against those so far (open).
        gradient_scaling: ``rms``: delta is divided by its root mean square; ``none`` (open).
        gradient_factor: factor on delta (open).
        first_order: delta counts as a constant when adaptation is differentiated.
        positive_radius: cells up to this city-block distance from the centre are +1 in the generated
            labels, pixels of the search crop (open).
        fine_tune_steps: Adam steps at each update (open).
        fine_tune_rate: their learning rate (open).
        descent_steps: Adam steps on the new kernels and the attention from the meta-learner's answer on; 0:
            its answer, as described. Above 0: what its answer could at best have been, for study.
        descent_rate: their learning rate.
        scale_count: scales searched at each frame, odd (open).
        scale_step: ratio of neighbouring scales (open).
        scale_rate: share of the chosen scale in the new size, which so changes smoothly (open).
        scale_penalty: factor on the peak height of changed scales (open).
        window_influence: weight of the cosine window against the response (open).
        response_up: bicubic upsampling of the response (open).
        entry_softness: 0: a patch enters or not. Above 0: every offered patch enters, with the weight
            ``sigmoid((score - tau) / entry_softness)``: differentiable.
        peak_softness: 0: the peak is a maximum. Above 0: an expectation (see `pyramid.find_peak`).
        confidence: what the score is (see `jaxtrack.ops.confidence`); as described, the
            network's probability.
        lost: what a low score does (see `jaxtrack.ops.lost`); as described: nothing.
        template_update: how the exemplar's trunk output follows the target (see
            `jaxtrack.ops.template_update`); as described: not at all.
    """

    network: AlexNetConfig = MATCHING
    backbone_name: str = "backbone"
    out_scale: Positive = 0.001
    match_norm: bool = True
    input_divisor: Positive = 255.0
    exemplar_size: Count = 127
    instance_size: Count = 255
    context: NotNegative = 0.5
    meta_learner: bool = True
    attention: bool = True
    fine_tuning: bool = False
    meta: MetaConfig = dataclasses.field(default_factory=MetaConfig)
    attention_place: Literal["template", "both"] = "template"
    samples: Count = 8
    memory_size: Count = 16
    tau: float = 0.6
    update_interval: Count = 10
    fewest_patches: Count = 1
    rate: Share = 1.0
    gradient_scaling: Literal["none", "rms"] = "rms"
    gradient_factor: float = 1.0
    first_order: bool = False
    positive_radius: NotNegative = 16.0
    fine_tune_steps: Whole = 8
    fine_tune_rate: NotNegative = 1e-3
    descent_steps: Whole = 0
    descent_rate: NotNegative = 1e-2
    scale_count: OddCount = 3
    scale_step: Positive = 1.0375
    scale_rate: Share = 0.59
    scale_penalty: Positive = 0.9745
    window_influence: Share = 0.176
    response_up: Count = 16
    entry_softness: NotNegative = 0.0
    peak_softness: NotNegative = 0.0
    confidence: Confidence = RESPONSE
    lost: LostRule = NEVER
    template_update: TemplateUpdate = FIXED

    def __post_init__(self) -> None:
        """Refuse sizes that contradict each other, by name."""
        check_ranges(self)
        refuse_small(self.network, self.exemplar_size, self.instance_size)
        refuse_aside(self.lost, self.scale_count)
        if self.memory_size < self.samples:
            raise JaxtrackError(
                f"MLT: memory_size (K) is {self.memory_size}, but one adaptation uses samples (M) = "
                f"{self.samples} patches; K must be at least M"
            )
        if self.fewest_patches > self.memory_size:
            raise JaxtrackError(
                f"MLT: fewest_patches is {self.fewest_patches}; it lies between 1 and memory_size (K) = "
                f"{self.memory_size}"
            )
        if self.meta_learner and not self.meta.target_kernels:
            raise JaxtrackError("MLT: meta_learner is on, but meta.target_kernels is 0")
        if self.descent_steps and not (self.meta_learner and self.attention):
            raise JaxtrackError(
                "MLT: descent_steps is above 0, but meta_learner and attention, which it improves, are not on"
            )
        if self.attention and not self.meta.attention:
            raise JaxtrackError(
                "MLT: attention is on, but the meta-learner gives none (meta.attention)"
            )

    @property
    def has_meta(self) -> bool:
        """The meta-learner runs at all."""
        return self.meta_learner or self.attention

    @property
    def adapts(self) -> bool:
        """Anything changes while tracking."""
        return self.has_meta or self.fine_tuning


class Tuning(NamedTuple):
    """Hyper-parameters that a gradient can be taken with respect to.

    ``variables["tuning"]``, where it is there, replaces the config's values of the same names.
    """

    rate: float | Array
    tau: float | Array
    window_influence: float | Array
    fine_tune_rate: float | Array
    gradient_factor: float | Array


def tuning(config: Config, variables: Any) -> Tuning:
    """Return the hyper-parameters in force: ``variables["tuning"]`` (dict or `Tuning`), else the config's."""
    given = variables.get("tuning", {})
    given = given._asdict() if isinstance(given, Tuning) else given
    return Tuning(**{name: given.get(name, getattr(config, name)) for name in Tuning._fields})


def switched(config: Config, meta_learner: bool, attention: bool, fine_tuning: bool) -> Config:
    """Return the same tracker with other switches; weights of the full one serve all of them."""
    return dataclasses.replace(
        config, meta_learner=meta_learner, attention=attention, fine_tuning=fine_tuning
    )


_TINY = Config(
    network=MATCHING_TINY,
    meta=MetaConfig(hidden=128, target_kernels=32),
    samples=4,
    memory_size=8,
    confidence=COLOURED,
    template_update=FOLLOWING,
)
# The widths of siamfc-small, from whose blocks 1 to 4 it starts; the meta-learner's first layer grows with
# the product of the last two.
_SMALL = dataclasses.replace(
    _TINY, network=dataclasses.replace(MATCHING_TINY, channels=(64, 160, 224, 224, 96))
)
_SIAMFC = Config(
    network=ALEXNET_V1,
    match_norm=False,
    input_divisor=1.0,
    # A gradient of 3x3x192x256 as one vector would need 226 million weights in the first layer.
    meta=MetaConfig(per_row=True),
)
_SIAMFC_TINY = dataclasses.replace(
    _TINY,
    network=dataclasses.replace(MATCHING_TINY, kernels=(7, 5, 3, 3, 3), final_norm=False),
    meta=MetaConfig(hidden=128, target_kernels=32, per_row=True),
    confidence=MARGIN,  # the colours' part would make its frame the largest program
)


def _no_attention(config: Config) -> Config:
    meta = dataclasses.replace(config.meta, attention=False)
    return dataclasses.replace(config, attention=False, meta=meta)


def _family(name: str, config: Config, fewest: int = 1) -> dict[str, Config]:
    """Return the paper's variants of one network: full (from so many patches on), mt, mt+ft, no attention."""
    return {
        name: dataclasses.replace(config, fewest_patches=fewest),
        f"{name}-mt": switched(config, False, False, False),
        f"{name}-mt-ft": switched(config, False, False, True),
        f"{name}-noattention": _no_attention(config),
    }


PRESETS: dict[str, Config] = {
    # The description's sizes.
    **_family("mlt", Config()),
    # The same mechanism on the last layer of SiamFC (huanglianghua/siamfc-pytorch), and of siamfc-tiny.
    "siamfc-mlt": _SIAMFC,
    "siamfc-tiny-mlt": _SIAMFC_TINY,
    # Small, for the synthetic world and CPUs. One or two patches mislead (eval/RESULTS.md, "MLT decided").
    **_family("mlt-tiny", _TINY, fewest=3),
    # Larger, trained on an accelerator.
    **_family("mlt-small", _SMALL, fewest=3),
}
