"""SiamFC: fully-convolutional Siamese tracking over a pyramid of scales.

The target's first appearance is embedded once and correlated with the embedding of a search region at
every frame; the peak of the response moves the box, the best of several scales resizes it. With
``template_update`` (in ``-tiny``) the template follows the target, and with ``colour`` the target's colours
help to find it.

Reference:
    Bertinetto et al., Fully-Convolutional Siamese Networks for Object Tracking, 2016. The rules of
    cropping, scale choice and update are those of huanglianghua/siamfc-pytorch.

Read `Config` and `State`, `init`, then the five steps from `cut` to `update` in the order in which
`track_frame` takes them; the network is `jaxtrack.models.alexnet`.

The score of a prediction is the sigmoid of the response at the peak, in [0, 1]: the network's own
probability that the target is there; or with ``confidence`` (in ``-tiny``) how far the peak stands out, and
whether the colours there are still the target's. It is comparable over time, not between networks.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrack.base import Frame, Look, Prediction, Steps, Variables
from jaxtrack.models.alexnet import (
    ALEXNET_SMALL,
    ALEXNET_TINY,
    ALEXNET_V1,
    ALEXNET_V2,
    ALEXNET_V3,
    BASELINE_EMBEDDING,
    Embedding,
    SiamFC,
    embed_crops,
    refuse_small,
)
from jaxtrack.ops import colour, confidence, crop, lost, template_update
from jaxtrack.ops.boxes import box_about, middle_of
from jaxtrack.ops.colour import HELPING, UNUSED, ColourCue, Colours, Crop, Place
from jaxtrack.ops.confidence import COLOURED, RESPONSE, Confidence
from jaxtrack.ops.correlation import cross_correlation
from jaxtrack.ops.lost import NEVER, LostRule
from jaxtrack.ops.response import first_peak, hann_window, pick, resize_maps, scale_factors
from jaxtrack.ops.template_update import FIXED, FOLLOWING, Appearance, TemplateUpdate
from jaxtrack.ranges import Count, NotNegative, OddCount, Positive, Share, check_ranges


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of SiamFC; the defaults are siamfc-pytorch's (three scales).

    Attributes:
        network: the embedding, an `AlexNetConfig` or one of your own (`jaxtrack.models.alexnet.Embedding`).
        backbone_name: name of the embedding's parameters in the published checkpoint.
        out_scale: factor on the raw correlation.
        match_norm: one-channel batch normalisation after the correlation.
        match_upscale: bilinear upscale of the response to ``(size - 1) * stride + 1`` in the head.
        input_divisor: images are divided by it (1: the network sees 0..255).
        exemplar_size: side of the exemplar crop, pixels.
        instance_size: side of the search crop, pixels.
        context: context amount around the target (see `crop.context_side`).
        scale_count: scales searched at each frame (odd).
        scale_step: ratio of neighbouring scales.
        scale_rate: share of the chosen scale in the new size (1 - damping).
        scale_penalty: factor on the responses of all scales but the middle one.
        window_influence: weight of the Hann window against the response.
        response_up: bicubic upsampling of the response.
        confidence: what the score is (see `jaxtrack.ops.confidence`); as published, the
            network's probability.
        lost: what a low score does (see `jaxtrack.ops.lost`); as published: nothing.
        template_update: how the template follows the target (see
            `jaxtrack.ops.template_update`); as published: not at all.
        colour: how the target's colours help to find it (see `jaxtrack.ops.colour`); as published:
            not at all.
    """

    network: Embedding = ALEXNET_V1
    backbone_name: str = "backbone"
    out_scale: Positive = 0.001
    match_norm: bool = False
    match_upscale: bool = False
    input_divisor: Positive = 1.0
    exemplar_size: Count = 127
    instance_size: Count = 255
    context: NotNegative = 0.5
    scale_count: OddCount = 3
    scale_step: Positive = 1.0375
    scale_rate: Share = 0.59
    scale_penalty: Positive = 0.9745
    window_influence: Share = 0.176
    response_up: Count = 16
    confidence: Confidence = RESPONSE
    lost: LostRule = NEVER
    template_update: TemplateUpdate = FIXED
    colour: ColourCue = UNUSED

    def __post_init__(self) -> None:
        """Refuse numbers that have no meaning, alone or together, by name."""
        check_ranges(self)
        refuse_small(self.network, self.exemplar_size, self.instance_size)
        lost.refuse_aside(self.lost, self.scale_count)


_BASELINE = Config(
    network=BASELINE_EMBEDDING,
    backbone_name="embedding_net",
    out_scale=1.0,
    match_norm=True,
    input_divisor=255.0,
    response_up=8,
)

# Small, for the synthetic world and CPUs; shipped with weights.
_TINY = Config(
    network=ALEXNET_TINY,
    match_norm=True,
    input_divisor=255.0,
    confidence=COLOURED,
    template_update=FOLLOWING,
    colour=HELPING,
)
# Two and a half times as wide: under 6 MB of weights, trained on an accelerator.
_SMALL = dataclasses.replace(_TINY, network=ALEXNET_SMALL)

PRESETS: dict[str, Config] = {
    # huanglianghua/siamfc-pytorch, default settings (the paper's SiamFC-3s).
    "siamfc": Config(),
    # The paper's SiamFC: five scales 1.025 ** {-2..2}, damping 0.35.
    "siamfc-5s": Config(scale_count=5, scale_step=1.025, scale_rate=0.35),
    # siamfc-pytorch's other backbones.
    "siamfc-v2": Config(network=ALEXNET_V2, response_up=8),
    "siamfc-v3": Config(network=ALEXNET_V3),
    # rafellerc/Pytorch-SiamFC: stride 4, batch normalisation after the match; tracked by the rules above.
    "siamfc-baseline": _BASELINE,
    "siamfc-baseline-up": dataclasses.replace(_BASELINE, match_upscale=True, response_up=2),
    "siamfc-tiny": _TINY,
    "siamfc-small": _SMALL,
}


class State(NamedTuple):
    """What changes from frame to frame.

    Attributes:
        centre: ``(2,)`` target centre, row and column, 0-based pixel centres.
        size: ``(2,)`` target height and width, pixels.
        exemplar_side: ``()`` side of the exemplar region, pixels of the frame.
        search_side: ``()`` side of the search region at scale 1, pixels of the frame.
        template: ``(h, w, c)`` the exemplar's embedding.
        fill: ``(3,)`` colour beyond the border: the first frame's mean.
        frame_size: ``(2,)`` int32 true height and width of the frames.
        confidence: ``()`` the score without the colours' part, a running mean where it is one; 1 at first.
        misses: ``()`` int32 frames in a row whose score was low (see `jaxtrack.ops.lost`).
        appearance: what the template is made of, where it follows the target; else ().
        colours: of the target, where they are used; else ().
    """

    centre: Float[Array, "2"]
    size: Float[Array, "2"]
    exemplar_side: Float[Array, ""]
    search_side: Float[Array, ""]
    template: Float[Array, "h w c"]
    fill: Float[Array, "3"]
    frame_size: Int[Array, "2"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]
    appearance: Appearance | tuple[()]
    colours: Colours | tuple[()] = ()


class Decision(NamedTuple):
    """How the target was found in one frame.

    Attributes:
        box: ``(4,)`` see `jaxtrack.base.Decision`; likewise ``score``.
        score: ``()``.
        which: ``()`` int32 the chosen scale.
        peak: ``(2,)`` int32 row and column of the maximum of ``response``.
        response: ``(m, m)`` the chosen response, normalised, mixed with the window.
        share: see `jaxtrack.base.Decision`.
        normalised: ``(m, m)`` before the window: minimum 0, sum 1.
        upsampled: ``(s, m, m)`` the responses (logits) of all scales before penalty and normalisation.
        shift: ``(2,)`` how far the target moved, rows and columns in pixels of the frame.
        growth: ``()`` factor on its size.
        centre: ``(2,)`` its new centre, row and column.
        size: ``(2,)`` its new height and width.
        confidence: ``()`` see `State`; likewise ``misses`` and ``colours``.
        misses: ``()`` int32.
        colours: after the frame.
    """

    box: Float[Array, "4"]
    score: Float[Array, ""]
    which: Int[Array, ""]
    peak: Int[Array, "2"]
    response: Float[Array, "m m"]
    share: float | Float[Array, ""]
    normalised: Float[Array, "m m"]
    upsampled: Float[Array, "s m m"]
    shift: Float[Array, "2"]
    growth: Float[Array, ""]
    centre: Float[Array, "2"]
    size: Float[Array, "2"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]
    colours: Colours | tuple[()] = ()


def response_size(config: Config) -> int:
    """Return the side of the correlation of an exemplar with a search region, cells."""
    search = config.network.feature_size(config.instance_size)
    return search - config.network.feature_size(config.exemplar_size) + 1


def module(config: Config) -> SiamFC:
    """Return the Flax module of a config (embedding and matching head)."""
    upscale = (response_size(config) - 1) * config.network.stride + 1
    return SiamFC(
        config.network,
        config.backbone_name,
        config.out_scale,
        config.match_norm,
        upscale if config.match_upscale else None,
    )


def init_variables(config: Config, key: Array) -> Variables:
    """Draw random variables, Xavier-uniform convolutions as published: ``{"params", "batch_stats"}``."""
    z = jnp.zeros((1, config.exemplar_size, config.exemplar_size, 3), jnp.float32)
    x = jnp.zeros((1, config.instance_size, config.instance_size, 3), jnp.float32)
    return {"batch_stats": {}, **module(config).init(key, z, x)}


def region_sides(
    config: Config, size: Float[Array, "2"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the sides of the exemplar and the search region (scale 1), pixels of the frame."""
    exemplar = crop.context_side(size, config.context)
    return exemplar, exemplar * config.instance_size / config.exemplar_size


def factors(config: Config) -> Float[Array, "s"]:
    """Return the scales that are searched, relative to the target's own, smallest first."""
    return jnp.asarray(scale_factors(config.scale_count, config.scale_step))


def init(
    config: Config,
    variables: Variables,
    frame: Frame,
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Embed the target's first appearance; see `jaxtrack.base.init`."""
    centre, size = middle_of(box)
    exemplar_side, search_side = region_sides(config, size)
    fill = crop.mean_colour(frame, frame_size).astype(centre.dtype)
    exemplar = exemplar_at(config, frame, centre, exemplar_side, fill, frame_size)
    template = template_of(config, variables, exemplar)
    side = config.exemplar_size
    place = Place(jnp.full(2, (side - 1) / 2), size * (side / exemplar_side))
    return State(
        centre,
        size,
        exemplar_side,
        search_side,
        template,
        fill,
        frame_size,
        jnp.ones((), jnp.float32),
        jnp.zeros((), jnp.int32),
        template_update.begin(config.template_update, template),
        colour.begin(config.colour, config.confidence.colour, exemplar, place),
    )


def exemplar_at(
    config: Config,
    frame: Frame,
    centre: Float[Array, "2"],
    side: Float[Array, ""],
    fill: Float[Array, "3"],
    frame_size: Int[Array, "2"],
) -> Crop:
    """Cut a square region out of a frame, of which a template is made.

    Args:
        config: settings.
        frame: RGB.
        centre: of the region, row and column.
        side: of the region, pixels of the frame.
        fill: colour beyond the border.
        frame_size: ``(2,)`` true height and width of the frame.
    """
    windows = crop.windows_siamfc(centre, side[None])
    return crop.cut_siamfc(frame, windows, config.exemplar_size, fill, frame_size)[0]


def template_of(config: Config, variables: Variables, exemplar: Crop) -> Float[Array, "h w c"]:
    """Embed an exemplar crop."""
    return embed_crops(module(config), variables, exemplar[None], config.input_divisor)[0]


def seen_side(config: Config, state: State) -> Float[Array, ""]:
    """Return the side of the search region at scale 1 in the next frame: wider while the target is lost."""
    return lost.widened(config.lost, state.misses, state.search_side)


def cut(config: Config, state: State, frame: Frame) -> Look:
    """Cut the search regions of all scales out of a frame, the smallest first."""
    seen = lost.views(config.lost, state.misses, factors(config), config.scale_penalty)
    sides = seen_side(config, state) * seen.factors
    windows = crop.windows_siamfc(lost.middles(seen, state.centre, sides), sides)
    size = config.instance_size
    crops = crop.cut_siamfc(frame, windows, size, state.fill, state.frame_size)
    return Look(windows, crops)


def embed(
    config: Config, variables: Variables, state: State, look: Look
) -> Float[Array, "s a b c"]:
    """Embed the search crops."""
    return embed_crops(module(config), variables, look.crops, config.input_divisor)


def respond(
    config: Config, variables: Variables, state: State, features: Float[Array, "s a b c"]
) -> Float[Array, "s m m"]:
    """Correlate the features with the template: responses (logits)."""
    raw = cross_correlation(state.template, features)
    responses: Any = module(config).apply(variables, raw, method="match")
    return responses


def decide(
    config: Config, variables: Variables, state: State, look: Look, maps: Float[Array, "s m m"]
) -> Decision:
    """Upsample, penalise scale changes, pick the scale, mix with colours and window, take the peak.

    Reference:
        SiamFC, section 3.1 ("Tracking algorithm"); siamfc-pytorch, ``update``. Neither centre nor size is
        clipped to the frame, as published.
    """
    side = maps.shape[-1] * config.response_up
    share = config.network.stride * response_size(config) / config.instance_size
    upsampled = resize_maps(maps, (side, side), "cubic")
    seen = lost.views(config.lost, state.misses, factors(config), config.scale_penalty)
    best = jnp.max(upsampled, axis=(1, 2)) * seen.keep
    # A negative maximum would gain by the penalty; the published code has the same quirk.
    scale = jnp.argmax(best).astype(jnp.int32)
    response = pick(upsampled, scale) * pick(seen.keep, scale)
    response = response - jnp.min(response)
    whole, factor = seen_side(config, state), pick(seen.factors, scale)
    zoom = config.instance_size / whole
    size = state.size * zoom  # in the middle crop
    colours = colour.running(state.colours)
    if colours is not None:
        image = colour.middle_of(look)
        like = colour.likeness(colours, image, size, maps.shape[-1], share * factor)
        like = resize_maps(like, (side, side), "cubic")
        response = colour.mixed(config.colour, response / (jnp.max(response) + 1e-16), like)
        response = response - jnp.min(response)
    response = response / (jnp.sum(response) + 1e-16)
    hann = hann_window(side)
    window = jnp.asarray(hann / hann.sum())
    weight = config.window_influence
    mixed = (1 - weight) * response.astype(window.dtype) + weight * window
    peak = first_peak(mixed)
    own = jax.nn.sigmoid(pick(upsampled, scale, *peak))
    offset = peak.astype(state.search_side.dtype) - (side - 1) / 2
    pitch = config.network.stride * response_size(config) / side
    shift = offset * pitch * whole * factor / config.instance_size
    place = Place((config.instance_size - 1) / 2 + shift * zoom, size)
    score, sure = confidence.score(
        *(config.confidence, state.confidence, own, pick(maps, scale)),
        template=config.exemplar_size / config.network.stride,
        standing=colour.standing(state.colours, look, place),
    )

    if seen.aside is not None:
        shift = lost.moved(seen, scale, whole * factor, shift)
    growth = (1 - config.scale_rate) + config.scale_rate * factor
    misses = lost.count(config.lost, state.misses, score)
    growth = lost.held(config.lost, misses, 1.0, growth)
    centre = (state.centre + shift).astype(state.centre.dtype)
    if config.lost.stay:
        centre = lost.held(config.lost, misses, state.centre, centre)
    size = (state.size * growth).astype(state.size.dtype)
    return Decision(
        box=box_about(centre, size).astype(jnp.float32),
        score=score,
        which=scale,
        peak=peak,
        response=mixed,
        share=share,
        normalised=response,
        upsampled=upsampled,
        shift=shift,
        growth=growth,
        centre=centre,
        size=size,
        confidence=sure,
        misses=misses,
        colours=colour.followed(config.colour, state.colours, sure, look, place),
    )


def update(
    config: Config, variables: Variables, state: State, frame: Frame, decision: Decision
) -> State:
    """Move and resize the target; the template stays, or follows it."""
    exemplar_side, search_side = state.exemplar_side, state.search_side
    state = state._replace(
        centre=decision.centre,
        size=decision.size,
        exemplar_side=(exemplar_side * decision.growth).astype(exemplar_side.dtype),
        search_side=(search_side * decision.growth).astype(search_side.dtype),
        confidence=decision.confidence,
        misses=decision.misses,
        colours=decision.colours,
    )
    if not isinstance(state.appearance, Appearance):
        return state
    middle, side = state.centre, state.exemplar_side
    exemplar = exemplar_at(config, frame, middle, side, state.fill, state.frame_size)
    seen, template = template_update.followed(
        *(config.template_update, state.appearance, decision.confidence),
        now=template_of(config, variables, exemplar),
    )
    return state._replace(appearance=seen, template=template)


def track_frame(
    config: Config, variables: Variables, state: State, frame: Frame
) -> tuple[State, Prediction]:
    """Find the target in the next frame; see `jaxtrack.base.track_frame`."""
    look = cut(config, state, frame)
    features = embed(config, variables, state, look)
    maps = respond(config, variables, state, features)
    decision = decide(config, variables, state, look, maps)
    state = update(config, variables, state, frame, decision)
    return state, Prediction(decision.box, decision.score)


STEPS = Steps(cut, embed, respond, decide, update)
