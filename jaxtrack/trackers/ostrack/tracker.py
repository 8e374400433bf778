"""OSTrack: template and search region go through one transformer together.

Both crops become tokens that attend to each other in every block; search tokens that the target's centre
does not attend to are eliminated early (presets ``-ce``). A centre head reads the box from the search
tokens. As published the template is never updated, and there is no scale pyramid and no smoothing.

Reference:
    Ye et al., Joint Feature Learning and Relation Modeling for Tracking: A One-Stream Framework, ECCV
    2022. Rules of cropping, decoding and clipping are those of botaoye/OSTrack.

Read `jaxtrack.trackers.ostrack.config`, then here `State`, `init` and the five steps from `cut` to `update`
in the order in which `track_frame` takes them; then ``vit`` (the transformer), ``elimination`` (which tokens
go), ``head`` (from tokens to maps), ``crop`` (from frames to crops and back), ``losses`` for training.

The score of a prediction is the head's score at the chosen cell, in [0.0001, 0.9999]: the network's own
probability that the target's centre is there (before the Hann window); or with ``confidence`` how far the
highest score stands out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack.base import Frame, Look, Prediction, Steps, Variables
from jaxtrack.ops import colour, confidence, lost, template_update
from jaxtrack.ops.boxes import size_correction
from jaxtrack.ops.colour import UNUSED, Colours, Place
from jaxtrack.ops.crop import Window
from jaxtrack.ops.template_update import Appearance
from jaxtrack.settings import is_exactly
from jaxtrack.trackers.ostrack import crop as crop_ostrack
from jaxtrack.trackers.ostrack import elimination
from jaxtrack.trackers.ostrack.config import PRESETS, Config
from jaxtrack.trackers.ostrack.head import CentreMaps
from jaxtrack.trackers.ostrack.network import OneStream
from jaxtrack.trackers.ostrack.vit import Features

__all__ = ["PRESETS", "Config", "State", "init", "init_variables", "track_frame"]

# Per RGB channel, of ImageNet.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class State(NamedTuple):
    """What changes from frame to frame.

    Attributes:
        box: ``(4,)`` ``x, y, w, h`` of the target, pixels.
        template: ``(z, c)`` tokens of the template.
        template_mask: ``(z,)`` weight of each template token in the elimination score (0 or 1).
        frame_size: ``(2,)`` int32 true height and width of the frames.
        correction: ``(2,)`` factors on predicted width and height (see `Config.size_correction`).
        confidence: ``()`` the score without the colours' part, a running mean where it is one; 1 at first.
        misses: ``()`` int32 frames in a row whose score was low (see `jaxtrack.ops.lost`).
        appearance: what the template is made of, where it follows the target; else ().
        colours: of the target in the first frame, where the score asks for them; else ().
    """

    box: Float[Array, "4"]
    template: Float[Array, "z c"]
    template_mask: Float[Array, "z"]
    frame_size: Int[Array, "2"]
    correction: Float[Array, "2"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]
    appearance: Appearance | tuple[()]
    colours: Colours | tuple[()] = ()


class Decision(NamedTuple):
    """Where the target was found.

    Attributes:
        box: ``(4,)`` see `jaxtrack.base.Decision`; likewise ``score``, before the Hann window.
        score: ``()``.
        which: ``()`` int32 0: there is one crop.
        response: ``(s, s)`` score times the Hann window.
        share: see `jaxtrack.base.Decision`.
        unclipped: ``(4,)`` the predicted box, ``x, y, w, h`` in the frame.
        clipped: ``(4,)`` the same with its size smoothed, kept inside the frame: the state's next box.
        confidence: ``()`` see `State`.
        misses: ``()`` int32 see `State`.
    """

    box: Float[Array, "4"]
    score: Float[Array, ""]
    which: Int[Array, ""]
    response: Float[Array, "s s"]
    share: float | Float[Array, ""]
    unclipped: Float[Array, "4"]
    clipped: Float[Array, "4"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]


def network(config: Config) -> OneStream:
    """Return the Flax module of a config."""
    return OneStream(config)


def init_variables(config: Config, key: Array) -> Variables:
    """Draw fresh weights, as the published code starts without a checkpoint.

    Args:
        config: the network's settings.
        key: random key.

    Returns:
        ``{"params": ..., "batch_stats": ...}``.
    """
    net = network(config)
    template = jnp.zeros((1, config.template_size, config.template_size, 3))
    search = jnp.zeros((1, config.search_size, config.search_size, 3))
    # GT_BOX wants weights of the rows; they leave no trace in the variables.
    rows = jnp.ones((1, config.template_grid**2))
    # Compiled, because only the shapes of the forward pass matter: the compiler throws it away.
    return dict(jax.jit(net.init)(key, template, search, None, rows))


def normalise(image: UInt8[Array, "*n 3"] | Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Turn RGB 0..255 into what the network sees: ``(image / 255 - mean) / std``, float32."""
    mean, std = np.asarray(MEAN, np.float32), np.asarray(STD, np.float32)
    shape = (1,) * (image.ndim - 1) + (3,)
    unit = image.astype(jnp.float32) / 255
    return (unit - mean.reshape(shape)) / std.reshape(shape)


def hann_window(size: int) -> Float[Array, "s s"]:
    """Return the outer product of two Hann windows that stay above zero at the border, float32.

    Reference:
        ``0.5 (1 - cos(2 pi k / (size + 1)))``, k = 1..size, as in the DiMP and OSTrack codes.
    """
    k = np.arange(1, size + 1)
    window = 0.5 * (1 - np.cos(2 * np.pi * k / (size + 1)))
    return jnp.asarray(np.outer(window, window), jnp.float32)


def decode_boxes(
    response: Float[Array, "b s s"], size: Float[Array, "b s s 2"], offset: Float[Array, "b s s 2"]
) -> Float[Array, "b 4"]:
    """Read each box at the maximum of its response; gradients reach that one cell only.

    Args:
        response: where to look; its first maximum in row-major order counts.
        size: width and height per cell, fractions of the crop.
        offset: x and y inside each cell, in cells.

    Returns:
        ``(b, 4)`` ``cx, cy, w, h`` as fractions of the crop.

    Reference:
        OSTrack, section 3.4, equation 8.
    """
    batch, side = response.shape[:2]
    index = jnp.argmax(response.reshape(batch, -1), axis=1)
    pick = index[:, None, None]
    extent = jnp.take_along_axis(size.reshape(batch, -1, 2), pick, axis=1)[:, 0]
    shift = jnp.take_along_axis(offset.reshape(batch, -1, 2), pick, axis=1)[:, 0]
    cell = jnp.stack([index % side, index // side], axis=1).astype(shift.dtype)
    return jnp.concatenate([(cell + shift) / side, extent], axis=1)


def template_mask(config: Config, box: Float[Array, "4"]) -> Float[Array, "z"]:
    """Return the template tokens whose attention decides about elimination, as weights 0 or 1.

    Args:
        config: ``ce_template_range`` and sizes.
        box: ``x, y, w, h`` of the target as fractions of the template crop (GT_BOX only).
    """
    rows = elimination.template_rows(config.template_grid, config.ce_template_range)
    if rows is None:
        inside = elimination.box_rows(box[None], config.template_size, config.patch)[0]
        return inside.astype(jnp.float32)
    mask = np.zeros(config.template_grid**2, np.float32)
    mask[list(rows)] = 1
    return jnp.asarray(mask)


def scale_of(window: Window, size: int) -> Float[Array, ""]:
    """Return crop pixels per image pixel."""
    return size / window.width


def start(
    config: Config,
    variables: Variables,
    crop: UInt8[Array, "p p 3"],
    box: Float[Array, "4"],
    window: Window,
    frame_size: Int[Array, "2"],
) -> State:
    """Make the state from a template crop that is already cut.

    Args:
        config: settings.
        variables: learned values.
        crop: the template crop.
        box: the target, ``x, y, w, h`` in pixels of the frame.
        window: the crop's window.
        frame_size: ``(2,)`` true height and width of the frame.
    """
    size = config.template_size
    tokens = template_tokens(config, variables, crop)
    inside = crop_ostrack.box_to_crop(box, box, scale_of(window, size), size) / size
    mask = template_mask(config, inside.astype(jnp.float32))
    frame_size, ones = frame_size.astype(jnp.int32), jnp.ones(2, box.dtype)
    sure, misses = jnp.ones((), jnp.float32), jnp.zeros((), jnp.int32)
    seen = template_update.begin(config.template_update, tokens)
    place = place_of(config.template_size, box, window)
    colours = colour.begin(UNUSED, config.confidence.colour, crop, place)
    return State(box, tokens, mask, frame_size, ones, sure, misses, seen, colours)


def place_of(size: int, box: Float[Array, "4"], window: Window) -> Place:
    """Return where a box of the frame lies in the crop of a window.

    Args:
        size: side of the crop, pixels.
        box: ``x, y, w, h`` in pixels of the frame.
        window: the crop's.
    """
    corner = jnp.stack([window.left, window.top]).astype(box.dtype)
    scale = scale_of(window, size).astype(box.dtype)
    middle = (box[:2] + box[2:] / 2 - corner) * scale - 0.5
    return Place(middle[::-1], box[:1:-1] * scale)


def template_tokens(
    config: Config, variables: Variables, crop: UInt8[Array, "p p 3"]
) -> Float[Array, "z c"]:
    """Embed a template crop: its patches as tokens, before the first block."""
    tokens: Any = network(config).apply(variables, normalise(crop)[None], method="embed_template")
    return tokens[0]


def init(
    config: Config,
    variables: Variables,
    frame: Frame,
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Start tracking: cut the template and embed it (see `jaxtrack.base.init`)."""
    box = box.astype(jnp.result_type(float))
    window = crop_ostrack.window_ostrack(box, config.template_factor)
    crop = crop_ostrack.crop_ostrack(frame, window, config.template_size, frame_size)
    state = start(config, variables, crop, box, window, frame_size)
    if is_exactly(config.size_correction, 0):
        return state
    return corrected(config, variables, state, frame)


def corrected(config: Config, variables: Variables, state: State, frame: Frame) -> State:
    """Compare the size that the network predicts in the first frame with the given one; keep the ratio."""
    look = cut(config, state, frame)
    maps = respond(config, variables, state, embed(config, variables, state, look))
    predicted = decide(config, variables, state, look, maps).unclipped
    ratio = size_correction(state.box[2:], predicted[2:], config.size_correction)
    return state._replace(correction=ratio)


def cut(config: Config, state: State, frame: Frame) -> Look:
    """Cut the search region out of a frame."""
    factor: Any = config.search_factor
    if config.lost.on:
        factor = lost.widened(config.lost, state.misses, jnp.asarray(factor, state.box.dtype))
    window = crop_ostrack.window_ostrack(state.box, factor)
    crop = crop_ostrack.crop_ostrack(frame, window, config.search_size, state.frame_size)
    return Look(jax.tree.map(lambda side: side[None], window), crop[None])


def embed(
    config: Config, variables: Variables, state: State, look: Look, full: bool = False
) -> Features:
    """Run the backbone on template and search tokens together: embedding and comparing are one here.

    Args:
        config: settings.
        variables: learned values.
        state: holds the template.
        look: from `cut`.
        full: compute the template's output tokens too, which tracking does not need.
    """
    features: Any = network(config).apply(
        variables,
        state.template[None],
        normalise(look.crops),
        row_weights=state.template_mask[None],
        search_only=not full,
        method="features",
    )
    return features


def respond(config: Config, variables: Variables, state: State, features: Features) -> CentreMaps:
    """Read score, size and offset of every cell from the search tokens."""
    maps: Any = network(config).apply(variables, features.search, method="maps")
    return maps


def decide(
    config: Config, variables: Variables, state: State, look: Look, maps: CentreMaps
) -> Decision:
    """Weigh the scores with the Hann window, read the box at the maximum, keep it inside the frame."""
    response = maps.score * hann_window(config.search_grid)[None]
    window = jax.tree.map(lambda side: side[0], look.windows)
    scale = scale_of(window, config.search_size)
    box = decode_boxes(response, maps.size, maps.offset)[0]
    pixels = box * config.search_size / scale.astype(box.dtype)
    unclipped = crop_ostrack.box_to_image(pixels, state.box, scale, config.search_size)
    own = maps.score.reshape(-1)[jnp.argmax(response)]
    place = None
    if state.colours:
        middle = unclipped[:2] + unclipped[2:] / 2
        found = jnp.concatenate([middle - state.box[2:] / 2, state.box[2:]])
        place = place_of(config.search_size, found, window)
    score, sure = confidence.score(
        *(config.confidence, state.confidence, own, maps.score[0]),
        template=config.template_grid,
        standing=colour.standing(state.colours, look, place),
    )
    misses = lost.count(config.lost, state.misses, score)
    kept = smoothed(config, state, unclipped, misses)
    clipped = crop_ostrack.clip_box(kept, state.frame_size, config.clip_margin)
    return Decision(
        box=clipped.astype(jnp.float32),
        score=score,
        which=jnp.zeros((), jnp.int32),
        response=response[0],
        share=1.0,
        unclipped=unclipped,
        clipped=clipped,
        confidence=sure,
        misses=misses,
    )


def smoothed(
    config: Config, state: State, new: Float[Array, "4"], misses: Int[Array, ""]
) -> Float[Array, "4"]:
    """Return a predicted box with its size corrected and smoothed about its middle; as published: the box.

    Args:
        config: ``size_rate``, ``size_correction`` and ``lost`` rule.
        state: before the frame.
        new: predicted box, ``x, y, w, h``.
        misses: in a row after the frame.
    """
    raw = is_exactly(config.size_correction, 0)
    if is_exactly(config.size_rate, 1) and raw and not config.lost.on:
        return new
    old, middle = state.box, new[:2] + new[2:] / 2
    size = new[2:] if raw else new[2:] * state.correction
    size = old[2:] * (1 - config.size_rate) + size * config.size_rate
    size = lost.held(config.lost, misses, old[2:], size)
    if config.lost.stay:
        middle = lost.held(config.lost, misses, old[:2] + old[2:] / 2, middle)
    return jnp.concatenate([middle - size / 2, size])


def update(
    config: Config, variables: Variables, state: State, frame: Frame, decision: Decision
) -> State:
    """Move the target; the template stays, or follows it."""
    state = state._replace(
        box=decision.clipped, confidence=decision.confidence, misses=decision.misses
    )
    if not isinstance(state.appearance, Appearance):
        return state
    window = crop_ostrack.window_ostrack(state.box, config.template_factor)
    crop = crop_ostrack.crop_ostrack(frame, window, config.template_size, state.frame_size)
    seen, template = template_update.followed(
        config.template_update,
        state.appearance,
        decision.confidence,
        template_tokens(config, variables, crop),
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
