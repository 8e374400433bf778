"""SiamRPN++: region proposals on depth-wise correlated deep features.

The target's first appearance becomes correlation kernels once; at every frame each anchor of a search
region gets a foreground probability and a box. Changes of size and shape are penalised, a cosine window
favours small motion, the best anchor's box moves and resizes the target. With ``template_update`` (in
``-tiny``) the kernels follow the target, with ``size_correction`` sizes mean what the first box meant.

Reference:
    Li et al., SiamRPN++: Evolution of Siamese Visual Tracking with Very Deep Networks, 2019. Rounding,
    clipping and constants are those of STVIR/pysot.

The score of a prediction is the foreground probability of the chosen anchor, in [0, 1]; or with
``confidence`` (in the ``-tiny`` presets) how far the highest cell stands out.

Read `jaxtrack.trackers.siamrpn.config`, then here `State`, `init` and the five steps from `cut` to `update`
in the order in which `track_frame` takes them; then ``anchors`` and ``proposals`` (what `decide` computes
with), ``network`` with its ``heads`` and ``alexnet``, and ``losses`` for training.

Boxes in and out follow PySOT's test script around its tracker: the target's centre is ``x + w / 2``, so an
unmoved target comes back where it was. Presets ending in ``-lt`` follow PySOT's long-term tracker: a low
score freezes the target and enlarges the search region until a high score ends the search.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrack.base import Crops, Frame, Look, Prediction, Steps, Variables
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import colour, confidence, crop, lost, template_update
from jaxtrack.ops.boxes import size_correction
from jaxtrack.ops.colour import Colours, Crop, Place
from jaxtrack.ops.mapping import rarely
from jaxtrack.ops.response import hann_window, pick
from jaxtrack.ops.template_update import Appearance
from jaxtrack.settings import is_exactly
from jaxtrack.trackers.siamrpn.anchors import anchor_grid, base_anchors, decode
from jaxtrack.trackers.siamrpn.config import PRESETS, Config
from jaxtrack.trackers.siamrpn.heads import Kernels
from jaxtrack.trackers.siamrpn.losses import anchor_deltas, anchor_logits
from jaxtrack.trackers.siamrpn.network import SiamRPN
from jaxtrack.trackers.siamrpn.proposals import (
    change_penalty,
    clip_to_frame,
    cut_pysot,
    whole_window,
)

__all__ = ["PRESETS", "Config", "State", "init", "init_variables", "track_frame"]

# Weight of the window while a lost target is searched for (a constant in PySOT's long-term tracker).
LOST_WINDOW_INFLUENCE = 0.001


class State(NamedTuple):
    """What changes from frame to frame.

    Attributes:
        centre: ``(2,)`` target centre cx, cy, pixels of the frame, 0-based pixel centres.
        size: ``(2,)`` target width and height, pixels.
        kernels: per level, the class and the box branch's correlation kernel.
        fill: ``(3,)`` colour beyond the border: the first frame's mean (RGB, not rounded).
        lost: ``()`` the target is being searched for (long-term presets only).
        frame_size: ``(2,)`` int32 true height and width of the frames.
        confidence: ``()`` the score without the colours' part, a running mean where it is one; 1 at first.
        misses: ``()`` int32 frames in a row whose score was low (see `jaxtrack.ops.lost`).
        correction: ``(2,)`` factors on predicted width and height (see `Config.size_correction`).
        appearance: what the kernels are made of, where they follow the target; else ().
        colours: of the target, where they are used; else ().
    """

    centre: Float[Array, "2"]
    size: Float[Array, "2"]
    kernels: Kernels
    fill: Float[Array, "3"]
    lost: Bool[Array, ""]
    frame_size: Int[Array, "2"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]
    correction: Float[Array, "2"]
    appearance: Appearance | tuple[()]
    colours: Colours | tuple[()] = ()


class Maps(NamedTuple):
    """What the network says of one search region.

    Attributes:
        cls: ``(1, s, s, 2 a)`` class logits, see `jaxtrack.trackers.siamrpn.heads`.
        loc: ``(1, s, s, 4 a)`` box deltas.
    """

    cls: Float[Array, "1 s s c"]
    loc: Float[Array, "1 s s d"]


class Decision(NamedTuple):
    """How the best of all anchors was found, and where it leads; flat order is anchor, row, column.

    Attributes:
        box: ``(4,)`` see `jaxtrack.base.Decision`; likewise ``score``, the best anchor's.
        score: ``()``.
        which: ``()`` int32 0: there is one crop.
        response: ``(s, s)`` greatest penalised score over a cell's anchors.
        share: see `jaxtrack.base.Decision`.
        scores: ``(k,)`` foreground probability.
        boxes: ``(k, 4)`` ``cx, cy, w, h`` in crop pixels relative to the crop's centre, sizes corrected.
        penalty: ``(k,)`` in (0, 1].
        penalised: ``(k,)`` penalised score mixed with the window.
        best: ``()`` int32 index of its first maximum.
        scale: ``()`` crop pixels per frame pixel.
        offset: ``(4,)`` ``dx, dy, w, h`` of the best anchor in the frame, relative to the old centre.
        rate: ``()`` share of its size in the new size.
        unclipped: ``(4,)`` ``cx, cy, w, h`` after smoothing.
        clipped: ``(4,)`` the same inside the frame, not below 10 pixels.
        kept: ``(4,)`` ``cx, cy, w, h`` that the state goes on with.
        lost: ``()`` the target is being searched for (long-term presets only).
        confidence: ``()`` see `State`; likewise ``misses`` and ``colours``.
        misses: ``()`` int32.
        colours: after the frame.
    """

    box: Float[Array, "4"]
    score: Float[Array, ""]
    which: Int[Array, ""]
    response: Float[Array, "s s"]
    share: float | Float[Array, ""]
    scores: Float[Array, "k"]
    boxes: Float[Array, "k 4"]
    penalty: Float[Array, "k"]
    penalised: Float[Array, "k"]
    best: Int[Array, ""]
    scale: Float[Array, ""]
    offset: Float[Array, "4"]
    rate: Float[Array, ""]
    unclipped: Float[Array, "4"]
    clipped: Float[Array, "4"]
    kept: Float[Array, "4"]
    lost: Bool[Array, ""]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]
    colours: Colours | tuple[()] = ()


def module(config: Config) -> SiamRPN:
    """Return the Flax module of a config."""
    return SiamRPN(config.network)


def apply(config: Config, variables: Variables, *inputs: Any, method: str) -> Any:
    """Run one method of the network (see `SiamRPN`) with running statistics."""
    return module(config).apply(variables, *inputs, method=method)


def init_variables(config: Config, key: Array) -> Variables:
    """Draw random variables: ``{"params", "batch_stats"}``."""
    z = jnp.zeros((1, config.exemplar_size, config.exemplar_size, 3), jnp.float32)
    x = jnp.zeros((1, config.instance_size, config.instance_size, 3), jnp.float32)
    made = module(config).init(key, z, x)
    return {"params": made["params"], "batch_stats": made["batch_stats"]}


def map_size(config: Config, instance_size: int) -> int:
    """Return the cells along each side of the output maps for a search crop of this side."""
    return (instance_size - config.exemplar_size) // config.stride + 1 + config.base_size


def tracking_anchors(config: Config, instance_size: int) -> np.ndarray:
    """Return anchors relative to the crop's centre, ``(a, s, s, 4)`` float32 ``cx, cy, w, h``."""
    base = base_anchors(config.stride, config.ratios, config.scales)
    return anchor_grid(base, config.stride, map_size(config, instance_size))


def network_input(crops: Crops) -> Float[Array, "n h w 3"]:
    """Return RGB crops as the network takes them: BGR, float32, 0..255."""
    return crops[..., ::-1].astype(jnp.float32)


def features_of(config: Config, variables: Variables, crops: Crops) -> list[Array]:
    """Return backbone and neck of RGB crops: one ``(n, h, w, c)`` map per level."""
    return apply(config, variables, network_input(crops), method="features")


def start(
    config: Config,
    variables: Variables,
    frame: Frame,
    centre: Float[Array, "2"],
    size: Float[Array, "2"],
    frame_size: Int[Array, "2"],
) -> State:
    """Make a state from a centre (cx, cy) and a size (w, h); `init` computes them from a box."""
    fill = crop.mean_colour(frame, frame_size).astype(centre.dtype)
    exemplar = exemplar_at(config, frame, centre, size, fill, frame_size)
    kernels = kernels_of(config, variables, exemplar)
    scale = config.exemplar_size / crop.context_side(size, config.context)
    place = Place(jnp.full(2, (config.exemplar_size - 1) / 2), size[::-1] * scale)
    colours = colour.begin(config.colour, config.confidence.colour, exemplar, place)
    seen = template_update.begin(config.template_update, kernels)
    found, sure, misses = jnp.zeros((), bool), jnp.ones((), jnp.float32), jnp.zeros((), jnp.int32)
    ones = jnp.ones(2, size.dtype)
    return State(centre, size, kernels, fill, found, frame_size, sure, misses, ones, seen, colours)


def exemplar_at(
    config: Config,
    frame: Frame,
    centre: Float[Array, "2"],
    size: Float[Array, "2"],
    fill: Float[Array, "3"],
    frame_size: Int[Array, "2"],
) -> Crop:
    """Cut a place out of a frame, with its context.

    Args:
        config: settings.
        frame: RGB.
        centre: cx, cy.
        size: width and height.
        fill: colour beyond the border.
        frame_size: ``(2,)`` true height and width of the frame.
    """
    window = whole_window(centre, crop.context_side(size, config.context))
    return cut_pysot(frame, window, config.exemplar_size, fill, frame_size)


def kernels_of(config: Config, variables: Variables, exemplar: Crop) -> Kernels:
    """Turn an exemplar crop into correlation kernels."""
    features = features_of(config, variables, exemplar[None])
    kernels: Kernels = apply(config, variables, features, method="kernels")
    return kernels


def init(
    config: Config,
    variables: Variables,
    frame: Frame,
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Turn the target's first appearance into kernels; see `jaxtrack.base.init`."""
    state = start(config, variables, frame, box[:2] + box[2:] / 2, box[2:], frame_size)
    if is_exactly(config.size_correction, 0):
        return state
    return corrected(config, variables, state, frame)


def corrected(config: Config, variables: Variables, state: State, frame: Frame) -> State:
    """Compare the size that the network predicts in the first frame with the given one; keep the ratio.

    The target is known to be in the middle: the best anchor is that of the highest score times the window.
    No setting takes part that rules later frames, so that `eval.search` looks once for many of them.
    """
    look = cut(config, state, frame)
    maps = respond(config, variables, state, embed(config, variables, state, look))
    scores, boxes, window = read(config, maps)
    predicted = boxes[jnp.argmax(scores * jnp.asarray(window, scores.dtype)), 2:]
    predicted = predicted.astype(state.size.dtype) / crop_scale(config, state)
    ratio = size_correction(state.size, predicted, config.size_correction)
    return state._replace(correction=ratio.astype(state.size.dtype))


def search_window(config: Config, state: State) -> crop.Window:
    """Return the search region in whole pixels of the frame."""
    ratio = config.instance_size / config.exemplar_size
    side = crop.context_side(state.size, config.context) * ratio
    return whole_window(state.centre, lost.widened(config.lost, state.misses, side))


def cut(config: Config, state: State, frame: Frame) -> Look:
    """Cut the search region out of a frame."""
    window = search_window(config, state)
    image = cut_pysot(frame, window, config.instance_size, state.fill, state.frame_size)
    return Look(jax.tree.map(lambda side: side[None], window), image[None])


def embed(config: Config, variables: Variables, state: State, look: Look) -> list[Array]:
    """Run backbone and neck on the crop: one map per level."""
    return features_of(config, variables, look.crops)


def respond(config: Config, variables: Variables, state: State, features: list[Array]) -> Maps:
    """Correlate the features with the target's kernels and read class logits and box deltas."""
    return Maps(*apply(config, variables, state.kernels, features, method="predict"))


def read(config: Config, maps: Maps) -> tuple[Float[Array, "k"], Float[Array, "k 4"], np.ndarray]:
    """Return what the maps say of every anchor, flat in the order anchor, row, column.

    Returns:
        Foreground probabilities; boxes ``cx, cy, w, h`` in crop pixels relative to the crop's centre; the
        cosine window at each anchor's place.

    Raises:
        JaxtrackError: the network makes maps of another size than the anchors are laid out for.
    """
    made, wanted = maps.cls.shape[1], map_size(config, config.instance_size)
    if made != wanted:
        raise JaxtrackError(
            f"the network makes maps of {made}x{made} cells of instance_size = {config.instance_size}, but"
            f" stride, exemplar_size and base_size lay anchors out over {wanted}x{wanted}"
        )
    scores = jax.nn.softmax(anchor_logits(maps.cls), axis=-1)[..., 1].reshape(-1)
    anchors = tracking_anchors(config, config.instance_size)
    boxes = decode(anchor_deltas(maps.loc)[0], jnp.asarray(anchors)).reshape(-1, 4)
    window = np.tile(hann_window(anchors.shape[1]).reshape(-1), len(anchors))
    return scores, boxes, window


def crop_scale(config: Config, state: State) -> Float[Array, ""]:
    """Return crop pixels per frame pixel."""
    side = crop.context_side(state.size, config.context)
    return config.exemplar_size / lost.widened(config.lost, state.misses, side)


def decide(config: Config, variables: Variables, state: State, look: Look, maps: Maps) -> Decision:
    """Score every anchor, take the best, and bring its box into the frame.

    Reference:
        STVIR/pysot, ``SiamRPNTracker.track`` and ``SiamRPNLTTracker.track``.
    """
    influence, size = config.window_influence, state.size
    cells = (-1, *[map_size(config, config.instance_size)] * 2)
    scores, boxes, window = read(config, maps)
    if not is_exactly(config.size_correction, 0):
        factors = jnp.concatenate([jnp.ones(2), state.correction]).astype(boxes.dtype)
        boxes = boxes * factors[None]
    scale = crop_scale(config, state)
    share = config.stride * map_size(config, config.instance_size) / config.instance_size
    penalty = change_penalty(boxes, size, scale, config.penalty_k)
    alike = scores
    colours = colour.running(state.colours)
    if colours is not None:
        image, extent = colour.middle_of(look), size[::-1] * scale
        like = colour.likeness(colours, image, extent, cells[1], share).reshape(-1)
        alike = colour.mixed(config.colour, scores, jnp.tile(like, len(scores) // len(like)))
    penalised = penalty * alike.astype(size.dtype) * (1 - influence)
    penalised = penalised + jnp.asarray(window, size.dtype) * influence
    # Not a number (infinite width over infinite height) must not win.
    best = jnp.argmax(jnp.where(jnp.isnan(penalised), -jnp.inf, penalised)).astype(jnp.int32)

    found = pick(boxes, best).astype(size.dtype)
    offset = found / scale
    own = pick(scores, best)
    place = Place((config.instance_size - 1) / 2 + found[1::-1], size[::-1] * scale)
    score, sure = confidence.score(
        *(config.confidence, state.confidence, own, jnp.sum(scores.reshape(cells), axis=0)),
        template=config.exemplar_size / config.stride,
        standing=colour.standing(state.colours, look, place),
    )
    rate = pick(penalty, best) * own.astype(size.dtype) * config.size_rate
    moved = state.centre + offset[:2]
    grown = size * (1 - rate) + offset[2:] * rate
    # An infinite box has rate zero, and infinity times zero is no size.
    grown = jnp.where(jnp.isfinite(grown), grown, size)
    misses = lost.count(config.lost, state.misses, score)
    grown = lost.held(config.lost, misses, size, grown)
    if config.lost.stay:
        moved = lost.held(config.lost, misses, state.centre, moved)
    unclipped = jnp.concatenate([moved, grown])
    clipped = clip_to_frame(unclipped, state.frame_size)
    if not config.lost_instance_size:
        kept, shown, searching = clipped, clipped, state.lost
    else:
        # The long-term state is never clipped, and stays where it is while the score is low.
        still = jnp.concatenate([state.centre, size])
        kept = jnp.where(own >= config.confidence_low, unclipped, still)
        shown = clip_to_frame(kept, state.frame_size)
        low, high = config.confidence_low, config.confidence_high
        searching = (own < low) | (state.lost & (own <= high))
    return Decision(
        box=jnp.concatenate([shown[:2] - shown[2:] / 2, shown[2:]]).astype(jnp.float32),
        score=score,
        which=jnp.zeros((), jnp.int32),
        response=jnp.max(penalised.reshape(cells), axis=0),
        share=share,
        scores=scores,
        boxes=boxes,
        penalty=penalty,
        penalised=penalised,
        best=best,
        scale=scale,
        offset=offset,
        rate=rate,
        unclipped=unclipped,
        clipped=clipped,
        kept=kept,
        lost=searching,
        confidence=sure,
        misses=misses,
        colours=colour.followed(config.colour, state.colours, sure, look, place),
    )


def update(
    config: Config, variables: Variables, state: State, frame: Frame, decision: Decision
) -> State:
    """Move and resize the target; its kernels stay, or follow it."""
    state = state._replace(
        centre=decision.kept[:2].astype(state.centre.dtype),
        size=decision.kept[2:].astype(state.size.dtype),
        lost=decision.lost,
        confidence=decision.confidence,
        misses=decision.misses,
        colours=decision.colours,
    )
    if not isinstance(state.appearance, Appearance):
        return state
    place = state.centre, state.size, state.fill, state.frame_size
    seen, kernels = template_update.followed(
        *(config.template_update, state.appearance, decision.confidence),
        now=kernels_of(config, variables, exemplar_at(config, frame, *place)),
    )
    return state._replace(appearance=seen, kernels=kernels)


def while_lost(config: Config) -> Config:
    """Return the settings by which a long-term tracker searches for a lost target."""
    return dataclasses.replace(
        config,
        instance_size=config.lost_instance_size,
        window_influence=LOST_WINDOW_INFLUENCE,
    )


def track_frame(
    config: Config, variables: Variables, state: State, frame: Frame
) -> tuple[State, Prediction]:
    """Find the target in the next frame; see `jaxtrack.base.track_frame`."""
    if not config.lost_instance_size:
        return _step(config, variables, state, frame)
    return rarely(_search, _step, config, state.lost, variables, state, frame)


def _search(
    config: Config, variables: Variables, state: State, frame: Frame
) -> tuple[State, Prediction]:
    return _step(while_lost(config), variables, state, frame)


def _step(
    config: Config, variables: Variables, state: State, frame: Frame
) -> tuple[State, Prediction]:
    look = cut(config, state, frame)
    features = embed(config, variables, state, look)
    maps = respond(config, variables, state, features)
    decision = decide(config, variables, state, look, maps)
    state = update(config, variables, state, frame, decision)
    return state, Prediction(decision.box, decision.score)


def is_cuttable(config: Config) -> bool:
    """Say whether the steps serve a config: the long-term tracker looks with windows of two sizes."""
    return not config.lost_instance_size


STEPS = Steps(cut, embed, respond, decide, update)
