"""SiamFC: fully-convolutional Siamese tracking over a pyramid of scales.

The target's first appearance is embedded once and correlated with the embedding of a search region at
every frame; the peak of the response moves the box, the best of several scales resizes it.

Reference:
    Bertinetto et al., Fully-Convolutional Siamese Networks for Object Tracking, 2016. The rules of
    cropping, scale choice and update are those of huanglianghua/siamfc-pytorch.

The score of a prediction is the sigmoid of the response at the peak, in [0, 1]: the network's own
probability that the target is there. It is comparable over time, not between networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack.base import Prediction
from jaxtrack.models.alexnet import (
    ALEXNET_V1,
    ALEXNET_V2,
    ALEXNET_V3,
    BASELINE_EMBEDDING,
    AlexNetConfig,
    SiamFC,
)
from jaxtrack.ops import crop
from jaxtrack.ops.correlation import cross_correlation
from jaxtrack.ops.mapping import image_by_image
from jaxtrack.ops.response import first_peak, hann_window, resize_maps, scale_factors


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of SiamFC; the defaults are siamfc-pytorch's (three scales).

    Attributes:
        network: the embedding.
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
    """

    network: AlexNetConfig = ALEXNET_V1
    backbone_name: str = "backbone"
    out_scale: float = 0.001
    match_norm: bool = False
    match_upscale: bool = False
    input_divisor: float = 1.0
    exemplar_size: int = 127
    instance_size: int = 255
    context: float = 0.5
    scale_count: int = 3
    scale_step: float = 1.0375
    scale_rate: float = 0.59
    scale_penalty: float = 0.9745
    window_influence: float = 0.176
    response_up: int = 16


_BASELINE = Config(
    network=BASELINE_EMBEDDING,
    backbone_name="embedding_net",
    out_scale=1.0,
    match_norm=True,
    input_divisor=255.0,
    response_up=8,
)

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
    # Small, for the synthetic world and CPUs; shipped with weights.
    "siamfc-tiny": Config(
        network=AlexNetConfig(
            channels=(24, 64, 96, 96, 64),
            groups=(1, 1, 1, 1, 1),
            kernels=(7, 5, 3, 3, 3),
            norm_epsilon=1e-5,
            norm_momentum=0.1,
        ),
        match_norm=True,
        input_divisor=255.0,
    ),
}


class State(NamedTuple):
    """What changes from frame to frame.

    Attributes:
        centre: ``(2,)`` target centre, row and column, 0-based pixel centres.
        size: ``(2,)`` target height and width, pixels.
        exemplar_side: ``()`` side of the exemplar region, pixels of the frame.
        search_side: ``()`` side of the search region at scale 1, pixels of the frame.
        template: ``(h, w, c)`` the exemplar's embedding; never updated.
        fill: ``(3,)`` colour beyond the border: the first frame's mean.
        frame_size: ``(2,)`` int32 true height and width of the frames.
    """

    centre: Float[Array, "2"]
    size: Float[Array, "2"]
    exemplar_side: Float[Array, ""]
    search_side: Float[Array, ""]
    template: Float[Array, "h w c"]
    fill: Float[Array, "3"]
    frame_size: Int[Array, "2"]


class Choice(NamedTuple):
    """The decision of one frame.

    Attributes:
        scale: ``()`` int32 index of the chosen scale.
        peak: ``(2,)`` int32 row and column of the maximum of ``mixed``.
        normalised: ``(m, m)`` chosen response, minimum 0, sum 1.
        mixed: ``(m, m)`` the same mixed with the window.
    """

    scale: Int[Array, ""]
    peak: Int[Array, "2"]
    normalised: Float[Array, "m m"]
    mixed: Float[Array, "m m"]


def feature_size(network: AlexNetConfig, image_size: int) -> int:
    """Side of the embedding of a square image, cells."""
    side = (image_size - network.kernels[0]) // 2 + 1
    side = (side - 3) // network.pool_strides[0] + 1
    side = side - network.kernels[1] + 1
    side = (side - 3) // network.pool_strides[1] + 1
    return side - sum(kernel - 1 for kernel in network.kernels[2:])


def response_size(config: Config) -> int:
    """Side of the correlation of an exemplar with a search region, cells."""
    search = feature_size(config.network, config.instance_size)
    return search - feature_size(config.network, config.exemplar_size) + 1


def module(config: Config) -> SiamFC:
    """The Flax module of a config (embedding and matching head)."""
    upscale = (response_size(config) - 1) * config.network.stride + 1
    return SiamFC(
        config.network,
        config.backbone_name,
        config.out_scale,
        config.match_norm,
        upscale if config.match_upscale else None,
    )


def init_variables(config: Config, key: Array) -> dict[str, Any]:
    """Random variables, Xavier-uniform convolutions as published: ``{"params", "batch_stats"}``."""
    z = jnp.zeros((1, config.exemplar_size, config.exemplar_size, 3), jnp.float32)
    x = jnp.zeros((1, config.instance_size, config.instance_size, 3), jnp.float32)
    return dict(module(config).init(key, z, x))


def embed(
    config: Config, variables: Any, crops: UInt8[Array, "n h w 3"]
) -> Float[Array, "n a b c"]:
    """Embed uint8 RGB crops with running statistics."""
    images = crops.astype(jnp.float32)
    if config.input_divisor != 1:
        images = images / config.input_divisor

    def network(images: Array) -> Array:
        blocks: Any = module(config).apply(variables, images, method="embed")
        return blocks[-1]

    return image_by_image(network, images)


def respond(
    config: Config,
    variables: Any,
    template: Float[Array, "h w c"],
    features: Float[Array, "s a b c"],
) -> Float[Array, "s m m"]:
    """Responses (logits) of one template on the features of several search crops."""
    raw = cross_correlation(template, features)
    responses: Any = module(config).apply(variables, raw, method="match")
    return responses


def region_sides(
    config: Config, size: Float[Array, "2"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sides of the exemplar and the search region (scale 1) around a target, pixels of the frame."""
    exemplar = crop.context_side(size, config.context)
    return exemplar, exemplar * config.instance_size / config.exemplar_size


def search_windows(
    config: Config, centre: Float[Array, "2"], side: Float[Array, ""]
) -> crop.Window:
    """Windows of all scales around the centre, smallest region first (leading axis: scales)."""
    factors = jnp.asarray(scale_factors(config.scale_count, config.scale_step))
    return jax.vmap(lambda factor: crop.window_siamfc(centre, side * factor))(factors)


def cut(
    frame: UInt8[Array, "h w 3"],
    window: crop.Window,
    out_size: int,
    fill: Float[Array, "3"],
    frame_size: Int[Array, "2"],
) -> UInt8[Array, "n n 3"]:
    """The published crop of one window: mean colour beyond the border, OpenCV's bilinear resize."""
    colour = crop.round_half_even(fill)
    return crop.resize_window(frame, window, (out_size, out_size), frame_size, colour)


def choose(
    config: Config, responses: Float[Array, "s m m"]
) -> tuple[Choice, Float[Array, "s n n"]]:
    """Upsample, penalise scale changes, pick the scale, mix with the window, take the peak.

    Args:
        config: settings.
        responses: responses of all scales.

    Returns:
        The `Choice`, and the upsampled responses before the penalty ``(s, n, n)``.

    Reference:
        SiamFC, section 3.1 ("Tracking algorithm"); siamfc-pytorch, ``update``.
    """
    side = responses.shape[-1] * config.response_up
    upsampled = resize_maps(responses, (side, side), "cubic")
    middle = np.arange(config.scale_count) == config.scale_count // 2
    penalty = jnp.where(middle, 1, jnp.asarray(config.scale_penalty, jnp.float32))
    best = jnp.max(upsampled, axis=(1, 2)) * penalty
    # A negative maximum would gain by the penalty; the published code has the same quirk.
    scale = jnp.argmax(best).astype(jnp.int32)
    response = upsampled[scale] * penalty[scale]
    response = response - jnp.min(response)
    response = response / (jnp.sum(response) + 1e-16)
    hann = hann_window(side)
    window = jnp.asarray(hann / hann.sum())
    weight = config.window_influence
    mixed = (1 - weight) * response.astype(window.dtype) + weight * window
    return Choice(scale, first_peak(mixed), response, mixed), upsampled


def displacement(
    config: Config, choice: Choice, search_side: Float[Array, ""]
) -> Float[Array, "2"]:
    """From the peak to the shift of the target, rows and columns in pixels of the frame."""
    side = choice.mixed.shape[-1]
    offset = choice.peak.astype(search_side.dtype) - (side - 1) / 2
    pitch = config.network.stride * response_size(config) / side
    factor = jnp.asarray(scale_factors(config.scale_count, config.scale_step))[choice.scale]
    return offset * pitch * search_side * factor / config.instance_size


def update(config: Config, state: State, choice: Choice) -> State:
    """Move and resize the target; neither is clipped to the frame, as published."""
    factors = jnp.asarray(scale_factors(config.scale_count, config.scale_step))
    scale = (1 - config.scale_rate) + config.scale_rate * factors[choice.scale]
    shift = displacement(config, choice, state.search_side)
    return state._replace(
        centre=(state.centre + shift).astype(state.centre.dtype),
        size=(state.size * scale).astype(state.size.dtype),
        exemplar_side=(state.exemplar_side * scale).astype(state.exemplar_side.dtype),
        search_side=(state.search_side * scale).astype(state.search_side.dtype),
    )


def box_of(state: State) -> Float[Array, "4"]:
    """The target's box ``x, y, w, h``, 0-based corner: centre - (size - 1) / 2."""
    corner = state.centre - (state.size - 1) / 2
    return jnp.concatenate([corner[::-1], state.size[::-1]])


def init(
    config: Config,
    variables: Any,
    frame: UInt8[Array, "h w 3"],
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Embed the target's first appearance; see `jaxtrack.base.init`."""
    size = box[3:1:-1]
    centre = box[1::-1] + (size - 1) / 2
    exemplar_side, search_side = region_sides(config, size)
    fill = crop.mean_colour(frame, frame_size).astype(centre.dtype)
    window = crop.window_siamfc(centre, exemplar_side)
    exemplar = cut(frame, window, config.exemplar_size, fill, frame_size)
    template = embed(config, variables, exemplar[None])[0]
    return State(centre, size, exemplar_side, search_side, template, fill, frame_size)


def track_frame(
    config: Config, variables: Any, state: State, frame: UInt8[Array, "h w 3"]
) -> tuple[State, Prediction]:
    """Find the target in the next frame; see `jaxtrack.base.track_frame`."""
    windows = search_windows(config, state.centre, state.search_side)
    crops = jax.vmap(
        lambda window: cut(frame, window, config.instance_size, state.fill, state.frame_size)
    )(windows)
    responses = respond(config, variables, state.template, embed(config, variables, crops))
    choice, upsampled = choose(config, responses)
    state = update(config, state, choice)
    score = jax.nn.sigmoid(upsampled[choice.scale, choice.peak[0], choice.peak[1]])
    return state, Prediction(box_of(state).astype(jnp.float32), score)


def stages(
    config: Config, variables: Any, state: State, frame: UInt8[Array, "h w 3"]
) -> dict[str, Callable[[], Any]]:
    """The parts of `track_frame` as compiled calls, for timing: crops, network, choice of the peak."""
    cut_all = jax.jit(
        lambda state, frame: jax.vmap(
            lambda w: cut(frame, w, config.instance_size, state.fill, state.frame_size)
        )(search_windows(config, state.centre, state.search_side))
    )
    run = jax.jit(lambda variables, crops: embed(config, variables, crops))
    match = jax.jit(
        lambda variables, template, features: (
            choose(config, respond(config, variables, template, features))[0].peak
        )
    )
    crops = cut_all(state, frame)
    features = run(variables, crops)
    return {
        "crop": lambda: cut_all(state, frame),
        "network": lambda: run(variables, crops),
        "match": lambda: match(variables, state.template, features),
    }
