"""TADT: target-aware deep tracking. A pre-trained network, and the channels of it that know this target.

In the first frame two branches tell which channels matter: a ridge regression of the features to a
Gaussian (which channels respond to the target), and a pairwise ranking of scaled samples (which ones feel
its size). The kept channels are matched as in a Siamese tracker, over three scales; as published
nothing is updated.

Reference:
    Li, Ma, Wu, He and Yang, Target-Aware Deep Tracking, CVPR 2019. Rules of cropping, matching and update
    are those of ZikunZhou/TADT-python. How presets take a channel's importance:

    ========== ============================================ ========================================
    preset     ridge branch                                 ranking branch (first layer)
    ========== ============================================ ========================================
    tadt       pooled gradient of the ridge loss            gradient times feature, pooled; the
                                                            kernel is trained on the ranking loss
    tadt-code  the trained kernel, summed over its window   as published: a hand-written derivative
                                                            and a random kernel
    ========== ============================================ ========================================

    The paper's pooled gradient of the ranking loss is zero for every channel, whatever the features (see
    `jaxtrack.trackers.tadt.ranking.rank_feature_gradient`); ``tadt`` therefore multiplies it by the features
    before pooling.

Read `jaxtrack.trackers.tadt.config`, then here `State`, `init` and the five steps from `cut` to `update` in
the order in which `track_frame` takes them; then ``channels`` (which features tell the target apart: the
paper's point) with its two branches ``ridge`` and ``ranking``; ``extractor``, ``geometry``, ``matching`` and
``correlation`` are the means.

The score of a prediction is the largest correlation relative to the template's correlation with itself:
about 1 on the first frame, lower when the target is hidden or lost; it is not bounded by 1. With
``confidence`` (in ``-tiny``) it is how far the peak stands out, in [0, 1].
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxtrack.base import Frame, Look, Prediction, Steps, Variables
from jaxtrack.models.alexnet import ALEXNET_SMALL, ALEXNET_TINY
from jaxtrack.ops import colour, confidence, lost, template_update
from jaxtrack.ops.colour import HELPING, Colours, Place
from jaxtrack.ops.confidence import COLOURED
from jaxtrack.ops.response import pick
from jaxtrack.ops.template_update import Appearance
from jaxtrack.trackers.tadt import extractor as features_of
from jaxtrack.trackers.tadt import geometry
from jaxtrack.trackers.tadt import matching as responses
from jaxtrack.trackers.tadt.adam import AdamDescent
from jaxtrack.trackers.tadt.channels import (
    Choice,
    choose_channels,
    initial_kernels,
    kept_indices,
)
from jaxtrack.trackers.tadt.config import Config
from jaxtrack.trackers.tadt.correlation import correlate_same
from jaxtrack.trackers.tadt.extractor import Extractor
from jaxtrack.trackers.tadt.ridge import Descent, centred_mask

# The network of `siamfc-tiny` with its shipped weights: nothing to download.
_TINY = Config(
    extractor=Extractor(
        network=ALEXNET_TINY,
        layers=("block4", "block5"),
        scope="backbone",
        pixel_offset=(0.0, 0.0, 0.0),
        pixel_scale=(1 / 255, 1 / 255, 1 / 255),
        feature_scale=300.0,
    ),
    ridge=Descent(bounded=True),
    caps=(24, 40),
    minimum=40,
    balance_top=16,
    # The published ones favour growth, by what VGG's features answer to a larger copy; these do not.
    scale_weights=(0.985, 1.0, 1.0),
    # Narrower than elsewhere: the map has few rows or columns on which a long template fits.
    confidence=dataclasses.replace(COLOURED, radius=0.2),
    colour=HELPING,
)
# The network of `siamfc-small`.
_SMALL = dataclasses.replace(
    _TINY,
    extractor=dataclasses.replace(
        _TINY.extractor,
        network=ALEXNET_SMALL,
    ),
    caps=(48, 96),
    minimum=80,
    balance_top=32,
)
PRESETS: dict[str, Config] = {
    # The paper's method: true gradients of the true losses.
    "tadt": Config(ridge=Descent(bounded=True)),
    # ZikunZhou/TADT-python as it is.
    "tadt-code": Config(ridge_rule="kernel-sum", ranking_rule="published"),
    # XinLi-zn/TADT where it differs; its antialiased bicubic resizes (image, ranking) are bilinear here.
    "tadt-matlab": Config(
        ridge=AdamDescent(),
        ridge_rule="kernel-sum",
        ranking_rule="published-neighbours",
        balance_top=50,
        matlab_resampling=True,
    ),
    "tadt-tiny": _TINY,
    "tadt-small": _SMALL,
}


class State(NamedTuple):
    """What belongs to a target.

    Attributes:
        target: ``(4,)`` x, y, w, h in the scaled image, 0-based corner.
        window: ``(4,)`` x, y, w, h of the next search window in the scaled image.
        rescale: ``()`` factor from the frame to the scaled image.
        input_side: ``()`` int32 side of the network's input.
        template: ``(f, width, k)`` kept features of the target, centred in a canvas, its shorter side
            along the columns (`upright`).
        template_size: ``(2,)`` int32 true rows and columns of the template.
        channels: indices of the kept channels, per layer; empty places point to channel 0.
        weights: ``(k,)`` factor per kept channel: its layer's balance; 0 for empty places.
        filters: kernel and bias of the last layer cut to its kept channels; () where it is not cut.
        energy: ``()`` correlation of the template with itself.
        frame_size: ``(2,)`` int32 true height and width of the frames.
        confidence: ``()`` the score without the colours' part, a running mean where it is one; 1 at first.
        misses: ``()`` int32 frames in a row whose score was low (see `jaxtrack.ops.lost`).
        appearance: what the template is made of, where it follows the target; else ().
        colours: of the target, where they are used; else ().
    """

    target: Float[Array, "4"]
    window: Float[Array, "4"]
    rescale: Float[Array, ""]
    input_side: Int[Array, ""]
    template: Float[Array, "f width k"]
    template_size: Int[Array, "2"]
    channels: tuple[Int[Array, "k"], ...]
    weights: Float[Array, "k"]
    filters: tuple[Array, ...]
    energy: Float[Array, ""]
    frame_size: Int[Array, "2"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]
    appearance: Appearance | tuple[()]
    colours: Colours | tuple[()] = ()


class Maps(NamedTuple):
    """Responses of the template.

    Attributes:
        response: ``(n, f, f)`` on all scaled copies of the features, divided by their common maximum; the
            true side of a map is ``input_side // stride``, zeros lie around it.
        top: ``()`` that maximum.
    """

    response: Float[Array, "n f f"]
    top: Float[Array, ""]


class Decision(NamedTuple):
    """How the target was found in one frame.

    Attributes:
        box: ``(4,)`` see `jaxtrack.base.Decision`; likewise ``score``.
        score: ``()``.
        which: ``()`` int32 0: there is one crop.
        response: ``(f, f)`` the chosen copy's response, before it is upsampled and the window added.
        share: see `jaxtrack.base.Decision`.
        peaks: the maximum of each copy's score map.
        scale: ``()`` int32 the chosen copy.
        peak_xy: ``(2,)`` int32 column and row of its maximum.
        target: ``(4,)`` x, y, w, h of the target in the scaled image.
        window: ``(4,)`` the next search window in the scaled image, as long as the target is not lost.
        confidence: ``()`` see `State`; likewise ``misses`` and ``colours``.
        misses: ``()`` int32.
        colours: after the frame.
    """

    box: Float[Array, "4"]
    score: Float[Array, ""]
    which: Int[Array, ""]
    response: Float[Array, "f f"]
    share: float | Float[Array, ""]
    peaks: responses.Peaks
    scale: Int[Array, ""]
    peak_xy: Int[Array, "2"]
    target: Float[Array, "4"]
    window: Float[Array, "4"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]
    colours: Colours | tuple[()] = ()


def init_variables(config: Config, key: Array) -> Variables:
    """Draw random variables; TADT itself learns nothing off line, so they are the extractor's."""
    return features_of.init_network(config.extractor, key)


def upright(
    maps: Float[Array, "*n f f k"], template_size: Int[Array, "2"]
) -> Float[Array, "*n f f k"]:
    """Swap rows and columns of maps where the template is wider than high.

    Matching costs rows times the canvas's columns, so the template's shorter side lies along the columns.
    """
    return jnp.where(template_size[1] > template_size[0], jnp.swapaxes(maps, -3, -2), maps)


def cut_template(
    features: Float[Array, "f f k"],
    map_size: Int[Array, ""],
    template_size: Int[Array, "2"],
    width: int,
) -> Float[Array, "f width k"]:
    """Cut the block about the map's middle, upright, moved to the middle of a canvas; zeros around it.

    Args:
        features: canvas of a map.
        map_size: true side of the map.
        template_size: ``(2,)`` odd rows and columns.
        width: columns of the canvas, odd, at least the template's shorter side.
    """
    side = features.shape[0]
    shift = side // 2 - (map_size - 1) // 2
    centred = jnp.roll(jnp.roll(features, shift, axis=0), shift, axis=1)
    mask = centred_mask((side, side), template_size, features.dtype)
    turned = upright(centred * mask[:, :, None], template_size)
    first = side // 2 - width // 2
    return turned[:, first : first + width]


def crop_search(
    config: Config,
    frame: Frame,
    frame_size: Int[Array, "2"],
    rescale: Float[Array, ""],
    window: Float[Array, "4"],
    input_side: Int[Array, ""],
) -> UInt8[Array, "s s 3"] | Float[Array, "s s 3"]:
    """Cut the network's input for a search window, widened by the extractor's margin."""
    margin = config.extractor.margin
    canvas = config.input_canvas + margin
    if margin:
        wide = input_side.astype(window.dtype) + margin
        length = geometry.round_half_up(window[2:] * wide / (wide - margin))
        corner = window[:2] - (length - window[2:]) / 2
        window, input_side = jnp.concatenate([corner, length]), input_side + margin
    size = jnp.stack([input_side, input_side])
    return geometry.crop_window(frame, frame_size, rescale, window, size, (canvas, canvas))


def first_frame(
    config: Config, box: Float[Array, "4"], frame_size: Int[Array, "2"]
) -> geometry.FirstFrame:
    """Call `jaxtrack.trackers.tadt.geometry.first_frame` with a config's numbers."""
    return geometry.first_frame(
        box,
        frame_size,
        max_size=config.max_size,
        min_size=config.min_size,
        search_factor=config.search_factor,
        stride=config.stride,
    )


def fitting_template(first: geometry.FirstFrame) -> Int[Array, "2"]:
    """Return the template's size, cut where the target fills the window.

    The branches' kernels are one cell wider on every side and must fit the map; the published code fails
    there.
    """
    return jnp.minimum(first.template_size, jnp.maximum(first.map_size - 2, 1))


def init(
    config: Config,
    variables: Variables,
    frame: Frame,
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Choose the target's channels and cut its template; one compiled program.

    Args:
        config: settings.
        variables: the extractor's learned values.
        frame: ``(h, w, 3)`` RGB, uint8 or floats from 0 to 255.
        box: ``(4,)`` x, y, w, h, pixels, 0-based corner.
        frame_size: ``(2,)`` true height and width.

    Returns:
        The `State`.
    """
    first = first_frame(config, box, frame_size)
    template_size = fitting_template(first)
    crop = crop_search(config, frame, frame_size, first.rescale, first.window, first.input_side)
    maps = features_of.extract(config.extractor, variables, crop, first.map_size)
    kernels = initial_kernels(config, geometry.kernel_cells(template_size))
    choice = choose_channels(config, maps, first.map_size, template_size, kernels)
    state = start_state(config, variables, first, template_size, maps, choice, frame_size)
    place = place_of(config, first.target, first.window, first.input_side)
    colours = colour.begin(config.colour, config.confidence.colour, crop, place)
    return state._replace(colours=colours)


def place_of(
    config: Config,
    target: Float[Array, "4"],
    window: Float[Array, "4"],
    input_side: Int[Array, ""],
) -> Place:
    """Return where a target lies in the crop of a search window; all but the crop in the scaled image."""
    zoom = input_side.astype(window.dtype) / window[2]
    shift = target[:2] + target[2:] / 2 - (window[:2] + window[2:] / 2)
    middle = (input_side + config.extractor.margin - 1).astype(window.dtype) / 2
    return Place((middle + shift * zoom)[::-1], (target[2:] * zoom)[::-1])


def start_state(
    config: Config,
    variables: Variables,
    first: geometry.FirstFrame,
    template_size: Int[Array, "2"],
    maps: tuple[Float[Array, "f f c"], ...],
    choice: Choice,
    frame_size: Int[Array, "2"],
) -> State:
    """Make the state for given channels: template, weights, cut filters."""
    channels, weights, kept = [], [], []
    for layer, (mask, slots) in enumerate(zip(choice.masks, config.slots)):
        index, taken = kept_indices(mask, slots)
        channels.append(index)
        weights.append(jnp.where(taken, choice.balance[layer], 0).astype(jnp.float32))
        kept.append(maps[layer][..., index])
    factors = jnp.concatenate(weights)
    features = jnp.concatenate(kept, axis=-1) * factors[None, None, :]
    template = cut_template(features, first.map_size, template_size, config.template_width)
    filters: tuple[Array, ...] = ()
    if features_of.cuts_exactly(config.extractor) and config.selection != "all":
        filters = features_of.kept_filters(config.extractor, variables, channels[-1])
    return State(
        target=first.target,
        window=first.window,
        rescale=first.rescale,
        input_side=first.input_side,
        template=template,
        template_size=template_size,
        channels=tuple(channels),
        weights=factors,
        filters=filters,
        energy=jnp.sum(jnp.square(template)),
        frame_size=frame_size,
        confidence=jnp.ones((), jnp.float32),
        misses=jnp.zeros((), jnp.int32),
        appearance=template_update.begin(config.template_update, template),
        colours=(),
    )


def matched(
    side: int, template_size: Int[Array, "2"], map_size: Int[Array, ""]
) -> Bool[Array, "f f"]:
    """Return the cells of a canvas at which the template lies within the map.

    Args:
        side: of the canvas.
        template_size: ``(2,)`` odd rows and columns.
        map_size: true side of the map.
    """
    cells, half = jnp.arange(side), template_size >> 1
    rows, columns = ((cells >= h) & (cells < map_size - h) for h in (half[0], half[1]))
    return rows[:, None] & columns[None, :]


def match(
    config: Config,
    template: Float[Array, "f width k"],
    template_size: Int[Array, "2"],
    features: Float[Array, "f f k"],
    map_size: Int[Array, ""],
) -> Maps:
    """Correlate the template with the scaled copies of the search features.

    The response is zero where the template would leave the map.
    """
    turned = upright(features, template_size)
    copies = responses.scaled_maps(
        turned, map_size, len(config.scales), config.feature_pad, config.matlab_resampling
    )
    raw = correlate_same(copies, template, jnp.max(template_size) >> 1)
    raw = upright(raw[..., None], template_size)[..., 0]
    raw = jnp.where(matched(features.shape[0], template_size, map_size), raw, 0)
    top = jnp.max(raw)
    return Maps(raw / jnp.where(top > 0, top, 1), top)


def choose_scale(config: Config, peaks: responses.Peaks) -> Int[Array, ""]:
    """Return the index of the scale whose best score, times the scale's weight, is greatest."""
    weights = jnp.asarray(config.scale_weights, peaks.value.dtype)
    return jnp.argmax(peaks.value * weights).astype(jnp.int32)


def move(
    config: Config,
    target: Float[Array, "4"],
    window: Float[Array, "4"],
    scale_index: Int[Array, ""],
    peak_xy: Int[Array, "2"],
) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
    """Return the new target and search window (scaled image) from the peak of the score map.

    A window that would pass ``max_window``, and a target that would shrink below 1/16 pixel, keep their
    size: the published code has no limit, but a lost target would let them run away.
    """
    scale = pick(jnp.asarray(config.scales, target.dtype), scale_index)
    side = window[2]
    grown = geometry.round_half_up(side * scale)
    vanishing = (jnp.min(target[2:]) * scale < 1 / 16) & (scale < 1)
    stuck = (grown > config.max_window) | (grown < 1) | vanishing
    factor = jnp.where(stuck, 1, scale)
    new_side = jnp.where(stuck, side, grown)
    centre = target[:2] + target[2:] / 2
    centre = centre + (peak_xy.astype(target.dtype) - (side / 2 - 1)) * scale
    size = target[2:] * factor
    return (
        jnp.concatenate([centre - size / 2, size]),
        jnp.concatenate([centre - new_side / 2, jnp.stack([new_side, new_side])]),
    )


def report_box(target: Float[Array, "4"], rescale: Float[Array, ""]) -> Float[Array, "4"]:
    """Return the target's box in the frame, 0-based corner."""
    return geometry.zero_based(geometry.one_based(target) / rescale)


def seen_window(config: Config, state: State) -> Float[Array, "4"]:
    """Return the search window of the next frame: wider while the target is lost."""
    if not config.lost.on:
        return state.window
    side = lost.widened(config.lost, state.misses, state.window[2])
    side = jnp.clip(geometry.round_half_up(side), 1, config.max_window)
    side = jnp.where(state.misses > 0, side, state.window[2])
    corner = state.window[:2] + (state.window[2] - side) / 2
    return jnp.concatenate([corner, jnp.stack([side, side])])


def cut(config: Config, state: State, frame: Frame) -> Look:
    """Cut the search window out of the scaled frame."""
    window = seen_window(config, state)

    def crop() -> Array:
        given = state.frame_size, state.rescale, window, state.input_side
        return crop_search(config, frame, *given)

    if not state.colours:
        return Look(window[None], crop()[None])
    # A branch that is always taken: else CPUs compute the crop for the network, and again for its colours.
    shape = jax.eval_shape(crop)
    image = lax.cond(state.input_side > 0, crop, lambda: jnp.zeros(shape.shape, shape.dtype))
    return Look(window[None], image[None])


def map_size(config: Config, state: State) -> Int[Array, ""]:
    """Return the true side of the feature map, cells."""
    return lax.div(state.input_side, jnp.int32(config.stride))


def embed(
    config: Config, variables: Variables, state: State, look: Look
) -> Float[Array, "1 f f k"]:
    """Compute the kept features of the search window, balanced between layers."""
    features = features_of.extract_kept(
        config.extractor,
        variables,
        look.crops[0],
        map_size(config, state),
        state.channels,
        state.filters,
    )
    return (features * state.weights[None, None, :])[None]


def respond(
    config: Config, variables: Variables, state: State, features: Float[Array, "1 f f k"]
) -> Maps:
    """Correlate the template with scaled copies of the features."""
    size = map_size(config, state)
    return match(config, state.template, state.template_size, features[0], size)


def decide(config: Config, variables: Variables, state: State, look: Look, maps: Maps) -> Decision:
    """Mix with colours, upsample the responses to the window, add the Hann window, take peak and scale.

    Reference:
        TADT, section 3.4; ZikunZhou/TADT-python.
    """
    seen = seen_window(config, state)
    response, inside = (
        maps.response,
        matched(maps.response.shape[-1], state.template_size, map_size(config, state)),
    )
    colours = colour.running(state.colours)
    if colours is not None:
        image, cells = colour.middle_of(look), config.map_canvas
        extent = state.target[:1:-1] * (state.input_side.astype(seen.dtype) / seen[2])
        share = config.stride * cells / image.shape[0]
        like = colour.likeness(colours, image, extent, cells, share)
        response = colour.mixed(config.colour, response, jnp.where(inside, like, 0)[None])
    # Places of peaks are whole numbers: no gradient, and none is asked of the loop over tiles.
    peaks = responses.score_peaks(
        lax.stop_gradient(response),
        map_size(config, state),
        seen[2].astype(jnp.int32),
        config.window_weight,
        matlab=config.matlab_resampling,
    )
    best = choose_scale(config, peaks)
    response = pick(maps.response, best)
    peak_xy = jnp.stack([pick(peaks.column, best), pick(peaks.row, best)])
    target, window = move(config, state.target, seen, best, peak_xy)
    place = place_of(config, target, seen, state.input_side) if state.colours else None
    score, sure = confidence.score(
        config.confidence,
        state.confidence,
        maps.top / jnp.where(state.energy > 0, state.energy, 1),
        response,
        # Twice the target, as wide as the crops that other trackers take their templates from.
        2 * jnp.sqrt(jnp.prod(state.template_size).astype(jnp.float32)),
        inside,
        colour.standing(state.colours, look, place),
    )
    misses = lost.count(config.lost, state.misses, score)
    if config.lost.on:
        middle = target[:2] + target[2:] / 2
        if config.lost.stay:
            old = state.target[:2] + state.target[2:] / 2
            middle = lost.held(config.lost, misses, old, middle)
        # A search that has ended leaves the window at its plain side, the target's growth aside.
        plain = state.window[2:] * (target[2] / state.target[2])
        plain = jnp.where(state.misses > 0, geometry.round_half_up(plain), window[2:])
        size = lost.held(config.lost, misses, state.target[2:], target[2:])
        side = lost.held(config.lost, misses, state.window[2:], plain)
        target = jnp.concatenate([middle - size / 2, size])
        window = jnp.concatenate([middle - side / 2, side])
    return Decision(
        box=report_box(target, state.rescale),
        score=score,
        which=jnp.zeros((), jnp.int32),
        response=response,
        share=1.0,
        peaks=peaks,
        scale=best,
        peak_xy=peak_xy,
        target=target,
        window=window,
        confidence=sure,
        misses=misses,
        colours=colour.followed(config.colour, state.colours, sure, look, place),
    )


def update(
    config: Config, variables: Variables, state: State, frame: Frame, decision: Decision
) -> State:
    """Move target and search window; the channels stay, the template stays or follows the target."""
    state = state._replace(
        target=decision.target,
        window=decision.window,
        confidence=decision.confidence,
        misses=decision.misses,
        colours=decision.colours,
    )
    if not isinstance(state.appearance, Appearance):
        return state
    window = decision.window
    image = crop_search(config, frame, state.frame_size, state.rescale, window, state.input_side)
    features = embed(config, variables, state, Look(window[None], image[None]))[0]
    size = map_size(config, state)
    now = cut_template(features, size, state.template_size, config.template_width)
    seen, template = template_update.followed(
        config.template_update, state.appearance, decision.confidence, now
    )
    energy = jnp.sum(jnp.square(template))
    return state._replace(appearance=seen, template=template, energy=energy)


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
