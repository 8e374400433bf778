"""SiamRPN++: region proposals on depth-wise correlated deep features.

The target's first appearance becomes correlation kernels once; at every frame each anchor of a search
region gets a foreground probability and a box. Changes of size and shape are penalised, a cosine window
favours small motion, the best anchor's box moves and resizes the target.

Reference:
    Li et al., SiamRPN++: Evolution of Siamese Visual Tracking with Very Deep Networks, 2019. Rounding,
    clipping and constants are those of STVIR/pysot.

The score of a prediction is the foreground probability of the chosen anchor, in [0, 1].

Boxes in and out follow PySOT's test script around its tracker: the target's centre is ``x + w / 2``, so an
unmoved target comes back where it was. Presets ending in ``-lt`` follow PySOT's long-term tracker: a low
score freezes the target and enlarges the search region until a high score ends the search.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxtrack.base import Prediction
from jaxtrack.ops import crop
from jaxtrack.ops.response import hann_window
from jaxtrack.trackers.siamrpn.anchors import anchor_grid, base_anchors, decode
from jaxtrack.trackers.siamrpn.config import PRESETS, Config
from jaxtrack.trackers.siamrpn.heads import Kernels
from jaxtrack.trackers.siamrpn.losses import anchor_deltas, anchor_logits
from jaxtrack.trackers.siamrpn.network import SiamRPN
from jaxtrack.trackers.siamrpn.proposals import change_penalty, clip_to_frame, window_pysot

__all__ = ["PRESETS", "Config", "State", "init", "init_variables", "track_frame"]

# Weight of the window while a lost target is searched for (a constant in PySOT's long-term tracker).
LOST_WINDOW_INFLUENCE = 0.001


class State(NamedTuple):
    """What changes from frame to frame.

    Attributes:
        centre: ``(2,)`` target centre cx, cy, pixels of the frame, 0-based pixel centres.
        size: ``(2,)`` target width and height, pixels.
        kernels: per level, the class and the box branch's correlation kernel; never updated.
        fill: ``(3,)`` colour beyond the border: the first frame's mean (RGB, not rounded).
        lost: ``()`` the target is being searched for (long-term presets only).
        frame_size: ``(2,)`` int32 true height and width of the frames.
    """

    centre: Float[Array, "2"]
    size: Float[Array, "2"]
    kernels: Kernels
    fill: Float[Array, "3"]
    lost: Bool[Array, ""]
    frame_size: Int[Array, "2"]


class Maps(NamedTuple):
    """The network's view of one search region.

    Attributes:
        crop: ``(n, n, 3)`` uint8 RGB search crop.
        cls: ``(s, s, 2 a)`` class logits, see `jaxtrack.trackers.siamrpn.heads`.
        loc: ``(s, s, 4 a)`` box deltas.
    """

    crop: UInt8[Array, "n n 3"]
    cls: Float[Array, "s s c"]
    loc: Float[Array, "s s d"]


class Decision(NamedTuple):
    """How the best of all anchors was found; flat order is anchor, row, column.

    Attributes:
        score: ``(k,)`` foreground probability.
        boxes: ``(k, 4)`` ``cx, cy, w, h`` in crop pixels relative to the crop's centre.
        penalty: ``(k,)`` in (0, 1].
        penalised: ``(k,)`` penalised score mixed with the window.
        best: ``()`` int32 index of its first maximum.
        scale: ``()`` crop pixels per frame pixel.
    """

    score: Float[Array, "k"]
    boxes: Float[Array, "k 4"]
    penalty: Float[Array, "k"]
    penalised: Float[Array, "k"]
    best: Int[Array, ""]
    scale: Float[Array, ""]


class Estimate(NamedTuple):
    """The chosen box on its way into the state; pixels of the frame.

    Attributes:
        box: ``(4,)`` ``dx, dy, w, h`` of the best anchor, relative to the old centre.
        rate: ``()`` share of its size in the new size.
        unclipped: ``(4,)`` ``cx, cy, w, h`` after smoothing.
        clipped: ``(4,)`` the same inside the frame, not below 10 pixels.
        score: ``()`` foreground probability of the best anchor.
    """

    box: Float[Array, "4"]
    rate: Float[Array, ""]
    unclipped: Float[Array, "4"]
    clipped: Float[Array, "4"]
    score: Float[Array, ""]


def module(config: Config) -> SiamRPN:
    """The Flax module of a config."""
    return SiamRPN(config.network)


def apply(config: Config, variables: Any, *inputs: Any, method: str) -> Any:
    """Run one method of the network (see `SiamRPN`) with running statistics."""
    return module(config).apply(variables, *inputs, method=method)


def init_variables(config: Config, key: Array) -> dict[str, Any]:
    """Random variables: ``{"params", "batch_stats"}``."""
    z = jnp.zeros((1, config.exemplar_size, config.exemplar_size, 3), jnp.float32)
    x = jnp.zeros((1, config.instance_size, config.instance_size, 3), jnp.float32)
    made = module(config).init(key, z, x)
    return {"params": made["params"], "batch_stats": made["batch_stats"]}


def map_size(config: Config, instance_size: int) -> int:
    """Cells along each side of the output maps for a search crop of this side."""
    return (instance_size - config.exemplar_size) // config.stride + 1 + config.base_size


def tracking_anchors(config: Config, instance_size: int) -> np.ndarray:
    """Anchors relative to the crop's centre, ``(a, s, s, 4)`` float32 ``cx, cy, w, h``."""
    base = base_anchors(config.stride, config.ratios, config.scales)
    return anchor_grid(base, config.stride, map_size(config, instance_size))


def network_input(crops: UInt8[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """RGB crops as the network takes them: BGR, float32, 0..255."""
    return crops[..., ::-1].astype(jnp.float32)


def cut(
    frame: UInt8[Array, "h w 3"],
    centre: Float[Array, "2"],
    side: Float[Array, ""],
    out_size: int,
    fill: Float[Array, "3"],
    frame_size: Int[Array, "2"],
) -> UInt8[Array, "n n 3"]:
    """The published crop: rounded side, truncated mean colour beyond the border, OpenCV's resize.

    Args:
        frame: uint8 RGB.
        centre: ``(2,)`` cx, cy.
        side: ``()`` side in pixels of the frame, rounded here (half to even).
        out_size: side of the crop.
        fill: ``(3,)`` mean colour of the first frame.
        frame_size: ``(2,)`` true height and width.
    """
    return cut_window(frame, whole_window(centre, side), out_size, fill, frame_size)


def whole_window(centre: Float[Array, "2"], side: Float[Array, ""]) -> crop.Window:
    """The window of a crop in whole pixels: its side rounded half to even, at least 1."""
    return window_pysot(centre, jnp.maximum(crop.round_half_even(side), 1))


def cut_window(
    frame: UInt8[Array, "h w 3"],
    window: crop.Window,
    out_size: int,
    fill: Float[Array, "3"],
    frame_size: Int[Array, "2"],
) -> UInt8[Array, "n n 3"]:
    """`cut` of a window that is already in whole pixels."""
    return crop.resize_window(frame, window, (out_size, out_size), frame_size, jnp.floor(fill))


def template_features(
    config: Config, variables: Any, exemplar: UInt8[Array, "n n 3"]
) -> list[Array]:
    """What the head makes its kernels from: one ``(1, h, w, c)`` map per level."""
    return apply(config, variables, network_input(exemplar[None]), method="features")


def start(
    config: Config,
    variables: Any,
    frame: UInt8[Array, "h w 3"],
    centre: Float[Array, "2"],
    size: Float[Array, "2"],
    frame_size: Int[Array, "2"],
) -> State:
    """A state from a centre (cx, cy) and a size (w, h); `init` computes them from a box."""
    fill = crop.mean_colour(frame, frame_size).astype(centre.dtype)
    side = crop.context_side(size, config.context)
    exemplar = cut(frame, centre, side, config.exemplar_size, fill, frame_size)
    features = template_features(config, variables, exemplar)
    kernels = apply(config, variables, features, method="kernels")
    return State(centre, size, kernels, fill, jnp.zeros((), bool), frame_size)


def init(
    config: Config,
    variables: Any,
    frame: UInt8[Array, "h w 3"],
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Turn the target's first appearance into kernels; see `jaxtrack.base.init`."""
    return start(config, variables, frame, box[:2] + box[2:] / 2, box[2:], frame_size)


def look(
    config: Config,
    variables: Any,
    state: State,
    frame: UInt8[Array, "h w 3"],
    instance_size: int,
) -> Maps:
    """Cut the search region out of a frame and run the network on it."""
    window = search_window(config, state, instance_size)
    return look_into(config, variables, state, frame, window, instance_size)


def search_window(config: Config, state: State, instance_size: int) -> crop.Window:
    """The search region in whole pixels of the frame."""
    side = crop.context_side(state.size, config.context) * (instance_size / config.exemplar_size)
    return whole_window(state.centre, side)


def look_into(
    config: Config,
    variables: Any,
    state: State,
    frame: UInt8[Array, "h w 3"],
    window: crop.Window,
    instance_size: int,
) -> Maps:
    """`look` into a window; of the state it reads the kernels, the fill colour and the frame's size."""
    image = cut_window(frame, window, instance_size, state.fill, state.frame_size)
    features = apply(config, variables, network_input(image[None]), method="features")
    cls, loc = apply(config, variables, state.kernels, features, method="predict")
    return Maps(image, cls[0], loc[0])


def decide(
    config: Config,
    cls: Float[Array, "s s c"],
    loc: Float[Array, "s s d"],
    size: Float[Array, "2"],
    instance_size: int,
    window_influence: float,
) -> Decision:
    """Score every anchor and take the best.

    Args:
        config: settings.
        cls: class logits.
        loc: box deltas.
        size: ``(2,)`` target width and height in frame pixels.
        instance_size: side of the search crop.
        window_influence: weight of the cosine window.
    """
    score = jax.nn.softmax(anchor_logits(cls[None]), axis=-1)[..., 1].reshape(-1)
    anchors = tracking_anchors(config, instance_size)
    boxes = decode(anchor_deltas(loc[None])[0], jnp.asarray(anchors)).reshape(-1, 4)
    scale = config.exemplar_size / crop.context_side(size, config.context)
    penalty = change_penalty(boxes, size, scale, config.penalty_k)
    window = np.tile(hann_window(anchors.shape[1]).reshape(-1), len(anchors))
    penalised = penalty * score.astype(size.dtype) * (1 - window_influence)
    penalised = penalised + jnp.asarray(window, size.dtype) * window_influence
    # Not a number (infinite width over infinite height) must not win.
    best = jnp.argmax(jnp.where(jnp.isnan(penalised), -jnp.inf, penalised)).astype(jnp.int32)
    return Decision(score, boxes, penalty, penalised, best, scale)


def estimate(config: Config, state: State, decision: Decision) -> Estimate:
    """From the best anchor to the target's new centre and size."""
    best = decision.best
    box = decision.boxes[best].astype(state.size.dtype) / decision.scale
    score = decision.score[best]
    rate = decision.penalty[best] * score.astype(state.size.dtype) * config.size_rate
    centre = state.centre + box[:2]
    size = state.size * (1 - rate) + box[2:] * rate
    # An infinite box has rate zero, and infinity times zero is no size.
    size = jnp.where(jnp.isfinite(size), size, state.size)
    unclipped = jnp.concatenate([centre, size])
    return Estimate(box, rate, unclipped, clip_to_frame(unclipped, state.frame_size), score)


def update(config: Config, state: State, found: Estimate) -> tuple[State, Prediction]:
    """Move the state and report the box.

    Reference:
        STVIR/pysot, ``SiamRPNTracker.track`` and ``SiamRPNLTTracker.track``.
    """
    if not config.lost_instance_size:
        moved, shown, lost = found.clipped, found.clipped, state.lost
    else:
        # The long-term state is never clipped, and stays where it is while the score is low.
        still = jnp.concatenate([state.centre, state.size])
        moved = jnp.where(found.score >= config.confidence_low, found.unclipped, still)
        shown = clip_to_frame(moved, state.frame_size)
        lost = (found.score < config.confidence_low) | (
            state.lost & (found.score <= config.confidence_high)
        )
    box = jnp.concatenate([shown[:2] - shown[2:] / 2, shown[2:]])
    state = state._replace(
        centre=moved[:2].astype(state.centre.dtype),
        size=moved[2:].astype(state.size.dtype),
        lost=lost,
    )
    return state, Prediction(box.astype(jnp.float32), found.score)


def track_frame(
    config: Config, variables: Any, state: State, frame: UInt8[Array, "h w 3"]
) -> tuple[State, Prediction]:
    """Find the target in the next frame; see `jaxtrack.base.track_frame`."""

    def step(state: State, instance_size: int, influence: float) -> tuple[State, Prediction]:
        maps = look(config, variables, state, frame, instance_size)
        decision = decide(config, maps.cls, maps.loc, state.size, instance_size, influence)
        return update(config, state, estimate(config, state, decision))

    if not config.lost_instance_size:
        return step(state, config.instance_size, config.window_influence)
    return jax.lax.cond(
        state.lost,
        lambda s: step(s, config.lost_instance_size, LOST_WINDOW_INFLUENCE),
        lambda s: step(s, config.instance_size, config.window_influence),
        state,
    )
