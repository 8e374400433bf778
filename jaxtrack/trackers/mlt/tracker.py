"""MLT: Siamese tracking whose feature space is adapted by one forward pass of a meta-learner.

A matching network compares the target's first appearance with a search region. While tracking, context
patches of the target are kept in a memory; the loss of the matching network on them, differentiated
with respect to its last layer, is handed to a meta-learner, which answers with new kernels for that layer
and an attention over its channels. Nothing is optimised on line. With ``template_update`` (in ``-tiny``)
the first appearance is one part of a running mean that follows the target.

Reference:
    Choi, Kwon and Lee, Deep Meta Learning for Real-Time Target-Aware Visual Tracking, ICCV 2019. No code
    of it is public, and not all of its settings could be read: the fields of `Config` say which values are
    the description's and which are this library's.

Adapting is one compiled step: every `update_interval` frames, when the score passes tau, the patch at the
new position is embedded and remembered, and the layer adapted. Under `jax.vmap` over targets it is
computed for those alone that it is due for (`jaxtrack.ops.mapping.rarely`).

Read `jaxtrack.trackers.mlt.config`, then here `State`, `init` and the five steps from `cut` to `update` in
the order in which `track_frame` takes them; `update` leads to `learn`, and so to ``adaptation`` (gradient,
memory, ways to adapt), ``meta`` (the meta-learner) and ``network`` (the last layer held apart).

The score of a prediction is the sigmoid of the response's peak, or with ``confidence`` (in ``-tiny``) how
far the peak stands out; it compares over time, not between networks. Tau is compared with the sigmoid.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrack.base import Crops, Frame, Look, Prediction, Steps, Variables
from jaxtrack.models.alexnet import SiamFC, embed_crops
from jaxtrack.ops import colour, confidence, crop, lost, template_update
from jaxtrack.ops.boxes import box_about, middle_of
from jaxtrack.ops.colour import UNUSED, Colours, Place
from jaxtrack.ops.losses import balanced_logistic, distance_labels
from jaxtrack.ops.mapping import rarely
from jaxtrack.ops.response import pick, scale_factors
from jaxtrack.ops.template_update import Appearance
from jaxtrack.settings import is_exactly
from jaxtrack.trackers.mlt import adaptation
from jaxtrack.trackers.mlt import network as net
from jaxtrack.trackers.mlt.adaptation import Adapted, Memory, Problem
from jaxtrack.trackers.mlt.config import PRESETS, Config, Tuning, switched, tuning
from jaxtrack.trackers.mlt.pyramid import Peak, find_peak

__all__ = [
    "PRESETS",
    "Config",
    "State",
    "Tuning",
    "init",
    "init_variables",
    "switched",
    "track_frame",
    "tuning",
]


class State(NamedTuple):
    """What changes from frame to frame.

    Attributes:
        centre: ``(2,)`` target centre, row and column, 0-based pixel centres.
        size: ``(2,)`` target height and width, pixels.
        exemplar: ``(h, w, c)`` trunk output of the exemplar.
        template: ``(h', w', p)`` its features under the adapted layer, times the attention.
        kernel: ``(kh, kw, i, p)`` the adapted last layer: base kernels first, new ones behind.
        attention: ``(p,)`` factor of each channel in the correlation.
        memory: context patches; without slots where nothing adapts.
        frame_index: ``()`` int32 frames tracked so far.
        fill: ``(3,)`` colour beyond the border: the first frame's mean.
        frame_size: ``(2,)`` int32 true height and width of the frames.
        confidence: ``()`` the score without the colours' part, a running mean where it is one; 1 at first.
        misses: ``()`` int32 frames in a row whose score was low (see `jaxtrack.ops.lost`).
        appearance: what the exemplar's output is made of, where it follows the target; else ().
        colours: of the target in the first frame, where the score asks for them; else ().
    """

    centre: Float[Array, "2"]
    size: Float[Array, "2"]
    exemplar: Float[Array, "h w c"]
    template: Float[Array, "h w p"]
    kernel: Float[Array, "kh kw i p"]
    attention: Float[Array, "p"]
    memory: Memory
    frame_index: Int[Array, ""]
    fill: Float[Array, "3"]
    frame_size: Int[Array, "2"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]
    appearance: Appearance | tuple[()]
    colours: Colours | tuple[()] = ()


class Decision(NamedTuple):
    """How the target was found in one frame.

    Attributes:
        box: ``(4,)`` see `jaxtrack.base.Decision`; likewise ``score``, ``which`` and ``response``.
        score: ``()``.
        which: ``()`` int32 the chosen scale.
        response: ``(m, m)`` its response, mixed with the window.
        share: see `jaxtrack.base.Decision`.
        probability: ``()`` sigmoid of the response's peak, which tau is compared with.
        peak: place and scale, see `jaxtrack.trackers.mlt.pyramid.Peak`.
        centre: ``(2,)`` the target's new centre, row and column.
        size: ``(2,)`` its new height and width.
        confidence: ``()`` see `State`.
        misses: ``()`` int32 see `State`.
    """

    box: Float[Array, "4"]
    score: Float[Array, ""]
    which: Int[Array, ""]
    response: Float[Array, "m m"]
    share: float | Float[Array, ""]
    probability: Float[Array, ""]
    peak: Peak
    centre: Float[Array, "2"]
    size: Float[Array, "2"]
    confidence: Float[Array, ""]
    misses: Int[Array, ""]


def module(config: Config) -> SiamFC:
    """Return the Flax module of the matching network."""
    return SiamFC(config.network, config.backbone_name, config.out_scale, config.match_norm)


def init_variables(config: Config, key: Array) -> Variables:
    """Draw random variables: the matching network's, and ``params["meta"]`` where the meta-learner runs."""
    key_net, key_meta = jax.random.split(key)
    z = jnp.zeros((1, config.exemplar_size, config.exemplar_size, 3), jnp.float32)
    x = jnp.zeros((1, config.instance_size, config.instance_size, 3), jnp.float32)
    found = dict(module(config).init(key_net, z, x))
    if config.has_meta:
        meta = net.init_meta(config.meta, net.kernel_shape(config.network), key_meta)
        found["params"] = {**found["params"], "meta": meta}
    return {"params": found["params"], "batch_stats": found.get("batch_stats", {})}


def response_size(config: Config) -> int:
    """Return the side of the response, cells."""
    search = config.network.feature_size(config.instance_size)
    return search - config.network.feature_size(config.exemplar_size) + 1


def labels(config: Config) -> Float[Array, "m m"]:
    """Return the generated labels of a context patch: the target sits at its centre (1 there, 0 around)."""
    side = response_size(config)
    radius = config.positive_radius / config.network.stride
    return jnp.asarray(distance_labels((side, side), radius))


def problem(
    config: Config,
    variables: Variables,
    exemplar: Float[Array, "h w c"],
    patches: Float[Array, "n a b c"],
    weights: Float[Array, "n"],
) -> Problem:
    """Return the last layer, the exemplar and context patches as something to adapt to.

    Args:
        config: settings.
        variables: the matching network's.
        exemplar: trunk output of the exemplar x.
        patches: trunk outputs of the context patches z_i.
        weights: of the patches in the mean; zero: not there.
    """
    layer, match = net.last_layer(module(config), variables), net.head(module(config), variables)
    groups, truth = config.network.groups[4], labels(config)

    def respond(
        template_kernel: Array, search_kernel: Array, patch: Array, attention: Array | None = None
    ) -> Array:
        weight = jnp.ones(template_kernel.shape[-1:], patch.dtype)
        if attention is not None:
            weight = in_correlation(config, attention)
        kernels = (template_kernel, search_kernel)
        return net.respond(layer, match, groups, kernels, weight, exemplar, patch[None])[0]

    def loss(response: Array) -> Array:
        return balanced_logistic(response, truth)

    return Problem(layer.kernel, respond, loss, truth, patches, weights)


def learner(
    config: Config, variables: Variables, dropout_key: Array | None = None
) -> Callable[[Array], tuple[Array, Array]]:
    """Return the meta-learner with its switches: ``delta -> (new kernels, attention)``."""
    factor = tuning(config, variables).gradient_factor

    def learn(delta: Array) -> tuple[Array, Array]:
        scaled = adaptation.scale_gradient(delta, config.gradient_scaling, factor)
        out = net.run_meta(config.meta, variables["params"]["meta"], scaled, dropout_key)
        kernel = out.kernel if config.meta_learner else out.kernel[..., :0]
        count = delta.shape[-1] + kernel.shape[-1]
        attention = out.attention[:count] if config.attention else jnp.ones(count, delta.dtype)
        return kernel, attention

    return learn


def adapt(
    config: Config,
    variables: Variables,
    task: Problem,
    kernel: Float[Array, "kh kw i o"],
    dropout_key: Array | None = None,
) -> Adapted:
    """Adapt the last layer to a target, by the switches of the config.

    Args:
        config: settings.
        variables: matching network and meta-learner.
        task: from `problem`.
        kernel: the base kernel so far; fine-tuning goes on from it.
        dropout_key: in training of the meta-learner.

    Returns:
        Base kernels (fine-tuned, or as they are, bit for bit) with new ones behind, and the attention.
        The gradient for the meta-learner is always taken at the matching network's own kernel, which is
        what it has been trained with.
    """
    if config.fine_tuning:
        start = dataclasses.replace(task, kernel=kernel)
        rate = tuning(config, variables).fine_tune_rate
        kernel = adaptation.adam_steps(start, config.fine_tune_steps, rate).search_kernel
    if not config.has_meta:
        return adaptation.unadapted(dataclasses.replace(task, kernel=kernel))
    learn = learner(config, variables, dropout_key)
    found = adaptation.meta_learned(task, learn, config.first_order)
    if config.descent_steps:
        steps, rate = config.descent_steps, config.descent_rate
        found = adaptation.appended_steps(task, found, steps, rate)
    count = kernel.shape[-1]
    kernel = jnp.concatenate([kernel, found.search_kernel[..., count:]], axis=-1)
    return Adapted(kernel, kernel, found.attention)


def in_correlation(config: Config, attention: Float[Array, "p"]) -> Float[Array, "p"]:
    """Return the attention's factor in the correlation: itself, or its square where both branches have it."""
    return attention if config.attention_place == "template" else attention * attention


def trunk(config: Config, variables: Variables, crops: Crops) -> Float[Array, "n a b c"]:
    """Return blocks 1 to 4 of RGB crops: what the last layer, which adapts, takes."""
    return embed_crops(module(config), variables, crops, config.input_divisor, block=4)


def look_at(
    config: Config, state: State, frame: Frame, factors: Float[Array, "s"], size: int
) -> Look:
    """Cut crops around the state's position.

    Args:
        config: settings.
        state: where the target is, how large, what lies beyond the border.
        frame: RGB.
        factors: each crop shows ``context_side * size / exemplar_size`` pixels, times its factor.
        size: side of the crops, pixels.
    """
    side = crop.context_side(state.size, config.context) * size / config.exemplar_size
    windows = crop.windows_siamfc(state.centre, side * factors)
    return Look(windows, crop.cut_siamfc(frame, windows, size, state.fill, state.frame_size))


def respond(
    config: Config, variables: Variables, state: State, features: Float[Array, "n a b c"]
) -> Float[Array, "n m m"]:
    """Return responses (logits) of the adapted tracker on trunk outputs of search crops."""
    layer, match = net.last_layer(module(config), variables), net.head(module(config), variables)
    searched = net.apply_last(layer, state.kernel, config.network.groups[4], features)
    return net.correlate(state.template, searched) * match.factor + match.offset


def with_layer(
    config: Config,
    variables: Variables,
    state: State,
    kernel: Float[Array, "kh kw i p"],
    weight: Float[Array, "p"],
) -> State:
    """Put an adapted kernel and channel factors into the state, with the template made by them."""
    template = _template(config, variables, state.exemplar, kernel, weight)
    return state._replace(template=template, kernel=kernel, attention=weight)


@functools.partial(jax.jit, static_argnums=0)
def _template(
    config: Config, variables: Variables, exemplar: Array, kernel: Array, weight: Array
) -> Array:
    base, groups = net.last_layer(module(config), variables), config.network.groups[4]
    return net.apply_last(base, kernel, groups, exemplar[None])[0] * weight[None, None]


def chosen(config: Config, memory: Memory) -> tuple[Array, Array]:
    """Return trunk outputs and weights of the M patches of least entropy (fewer in the first frames)."""
    filled = jnp.minimum(memory.filled, config.memory_size)
    slots, used = adaptation.least_entropy(memory.responses, config.samples, filled)
    features, weights = (
        x.at[slots].get(wrap_negative_indices=False) for x in (memory.features, memory.weights)
    )
    return features, used * weights


def update_layer(config: Config, variables: Variables, state: State, rate: float | Array) -> State:
    """Adapt to the memory; new kernels and attention come in by ``rate``, the base is never blended."""
    patches, weights = chosen(config, state.memory)
    count = config.network.channels[4]
    task = problem(config, variables, state.exemplar, patches, weights)
    layer = adapt(config, variables, task, state.kernel[..., :count])
    kernel, weight = layer.search_kernel, in_correlation(config, layer.attention)
    if not is_exactly(rate, 1):
        new = state.kernel[..., count:] * (1 - rate) + kernel[..., count:] * rate
        kernel = jnp.concatenate([kernel[..., :count], new], axis=-1)
        weight = state.attention * (1 - rate) + weight * rate
    return with_layer(config, variables, state, kernel, weight)


def learn(
    config: Config,
    variables: Variables,
    state: State,
    frame: Frame,
    weight: Float[Array, ""] | float,
    rate: float | Array,
) -> State:
    """Remember the patch at the state's position and, when there are enough of them, adapt to the memory."""
    one = jnp.ones((1,), state.size.dtype)
    patch = look_at(config, state, frame, one, config.instance_size)
    features = trunk(config, variables, patch.crops)
    response = respond(config, variables, state, features)[0]
    memory = adaptation.remember(state.memory, features[0], response, weight)
    state = state._replace(memory=memory)
    adapted = update_layer(config, variables, state, rate)
    if config.fewest_patches == 1:
        return adapted
    # Learning is rare: what is not wanted yet is computed for nothing a few times, and is no branch.
    enough = memory.filled >= config.fewest_patches
    return state._replace(
        template=jnp.where(enough, adapted.template, state.template),
        kernel=jnp.where(enough, adapted.kernel, state.kernel),
        attention=jnp.where(enough, adapted.attention, state.attention),
    )


def init(
    config: Config,
    variables: Variables,
    frame: Frame,
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Embed the target, remember its first context patch and adapt to it; see `jaxtrack.base.init`."""
    centre, size = middle_of(box)
    fill = crop.mean_colour(frame, frame_size).astype(centre.dtype)
    extent, side = crop.context_side(size, config.context), config.exemplar_size
    windows = crop.windows_siamfc(centre, extent[None])
    crops = crop.cut_siamfc(frame, windows, side, fill, frame_size)
    place = Place(jnp.full(2, (side - 1) / 2), size * (side / extent))
    colours = colour.begin(UNUSED, config.confidence.colour, crops[0], place)
    exemplar = trunk(config, variables, crops)[0]
    side = config.network.feature_size(config.instance_size, 4)
    cells = response_size(config)
    slots = config.memory_size if config.adapts else 0
    memory = adaptation.empty_memory(slots, (side, side, exemplar.shape[-1]), (cells, cells))
    kernel = net.last_layer(module(config), variables).kernel
    if config.meta_learner and config.fewest_patches > 1:
        # The shape of the layer must not change later: kernels of zero answer nothing.
        kernel = jnp.pad(kernel, ((0, 0),) * 3 + ((0, config.meta.target_kernels),))
    ones = jnp.ones(kernel.shape[-1:], jnp.float32)
    zero = jnp.zeros((), jnp.int32)
    state = State(
        centre,
        size,
        exemplar,
        exemplar,
        kernel,
        ones,
        memory,
        zero,
        fill,
        frame_size,
        jnp.ones((), jnp.float32),
        zero,
        template_update.begin(config.template_update, exemplar),
        colours,
    )
    state = with_layer(config, variables, state, kernel, ones)
    return learn(config, variables, state, frame, 1.0, 1.0) if config.adapts else state


def cut(config: Config, state: State, frame: Frame) -> Look:
    """Cut the search regions of all scales out of a frame, the smallest first."""
    seen, size = views(config, state), config.instance_size
    sides = crop.context_side(state.size, config.context) * size / config.exemplar_size
    sides = sides * lost.widened(config.lost, state.misses, seen.factors)
    windows = crop.windows_siamfc(lost.middles(seen, state.centre, sides), sides)
    return Look(windows, crop.cut_siamfc(frame, windows, size, state.fill, state.frame_size))


def views(config: Config, state: State) -> lost.Views:
    """Return what the search crops show: other scales, or, while the target is lost, other places."""
    factors = jnp.asarray(scale_factors(config.scale_count, config.scale_step), state.size.dtype)
    return lost.views(config.lost, state.misses, factors, config.scale_penalty)


def embed(
    config: Config, variables: Variables, state: State, look: Look
) -> Float[Array, "s a b c"]:
    """Run the trunk on the search crops."""
    return trunk(config, variables, look.crops)


def decide(
    config: Config, variables: Variables, state: State, look: Look, maps: Float[Array, "s m m"]
) -> Decision:
    """Find place and scale of the target; neither is clipped to the frame."""
    seen = views(config, state)
    peak = find_peak(
        maps,
        seen.factors,
        seen.keep,
        tuning(config, variables).window_influence,
        config.response_up,
        config.peak_softness,
    )
    extent = config.network.stride * response_size(config) / config.exemplar_size
    whole = crop.context_side(state.size, config.context)
    shift = peak.offset * extent * whole * peak.factor
    if seen.aside is not None:
        side = whole * config.instance_size / config.exemplar_size * peak.factor
        shift = lost.moved(seen, peak.scale, side, shift)
    shift = lost.widened(config.lost, state.misses, shift)
    growth = (1 - config.scale_rate) + config.scale_rate * peak.factor
    own = jax.nn.sigmoid(peak.logit)
    zoom = config.exemplar_size / lost.widened(config.lost, state.misses, whole)
    place = Place((config.instance_size - 1) / 2 + shift * zoom, state.size * zoom)
    score, sure = confidence.score(
        *(config.confidence, state.confidence, own, pick(maps, peak.scale)),
        template=config.exemplar_size / config.network.stride,
        standing=colour.standing(state.colours, look, place),
    )
    misses = lost.count(config.lost, state.misses, score)
    centre = (state.centre + shift).astype(state.centre.dtype)
    size = (state.size * growth).astype(state.size.dtype)
    size = lost.held(config.lost, misses, state.size, size)
    if config.lost.stay:
        centre = lost.held(config.lost, misses, state.centre, centre)
    return Decision(
        box=box_about(centre, size).astype(jnp.float32),
        score=score,
        which=peak.scale,
        response=peak.response,
        share=config.network.stride * response_size(config) / config.instance_size,
        probability=own,
        peak=peak,
        centre=centre,
        size=size,
        confidence=sure,
        misses=misses,
    )


def update(
    config: Config, variables: Variables, state: State, frame: Frame, decision: Decision
) -> State:
    """Move the target; when it is due and the score passes tau, remember its patch and adapt."""
    state = state._replace(
        centre=decision.centre,
        size=decision.size,
        frame_index=state.frame_index + 1,
        confidence=decision.confidence,
        misses=decision.misses,
    )
    if isinstance(state.appearance, Appearance):
        state = follow(config, variables, state, state.appearance, frame, decision.confidence)
    if not config.adapts:
        return state
    rules = tuning(config, variables)
    due = jax.lax.rem(state.frame_index, jnp.int32(config.update_interval)) == 0
    weight = jnp.ones((), jnp.float32)
    if config.entry_softness:
        weight = jax.nn.sigmoid((decision.probability - rules.tau) / config.entry_softness)
    else:
        due = due & (decision.probability > rules.tau)
    return rarely(_learn, _rest, config, due, variables, state, frame, weight)


def follow(
    config: Config,
    variables: Variables,
    state: State,
    seen: Appearance,
    frame: Frame,
    score: Float[Array, ""],
) -> State:
    """Let the exemplar follow the target, and the template with it; the layer stays as it is."""
    one = jnp.ones((1,), state.size.dtype)
    now = trunk(config, variables, look_at(config, state, frame, one, config.exemplar_size).crops)
    seen, exemplar = template_update.followed(config.template_update, seen, score, now[0])
    state = state._replace(appearance=seen, exemplar=exemplar)
    return with_layer(config, variables, state, state.kernel, state.attention)


def _learn(
    config: Config, variables: Variables, state: State, frame: Frame, weight: Float[Array, ""]
) -> State:
    return learn(config, variables, state, frame, weight, tuning(config, variables).rate)


def _rest(
    config: Config, variables: Variables, state: State, frame: Frame, weight: Float[Array, ""]
) -> State:
    return state


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
