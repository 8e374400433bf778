"""TADT: target-aware deep tracking. A pre-trained network, and the channels of it that know this target.

In the first frame two branches tell which channels matter: a ridge regression of the features to a
Gaussian (which channels respond to the target), and a pairwise ranking of scaled samples (which ones feel
its size). The kept channels are matched as in a Siamese tracker, over three scales; nothing is updated.

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
    `tadt_importance.rank_feature_gradient`); ``tadt`` therefore pools it after multiplying by the features.

The score of a prediction is the largest correlation relative to the template's correlation with itself:
about 1 on the first frame, lower when the target is hidden or lost; it is not bounded by 1.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxtrack.errors import JaxtrackError
from jaxtrack.losses.tadt import ranking_derivative_published, ranking_pairs
from jaxtrack.models.alexnet import AlexNetConfig
from jaxtrack.ops.same_correlation import correlate_same
from jaxtrack.tracker import Prediction, Variables
from jaxtrack.trackers import tadt_features as features_of
from jaxtrack.trackers import tadt_geometry as geometry
from jaxtrack.trackers import tadt_importance as importance_of
from jaxtrack.trackers.tadt_features import Extractor
from jaxtrack.trackers.tadt_importance import Descent

RidgeRule = Literal["gradient", "gradient-times-feature", "kernel-sum"]
RankingRule = Literal["gradient-times-feature", "published", "none"]
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
        balance_top: channels that measure a layer's strength (see `tadt_importance.balance_weights`).
        selection: which branches decide; ``all`` and ``random`` are for comparison (random: as many
            channels as ``both`` would keep).
        seed: of the branches' initial kernels and of ``random``.
        max_window: a search window never grows beyond this side (pixels of the scaled image).
    """

    extractor: Extractor = _VGG
    max_size: float = 59
    min_size: float = 44
    search_factor: float = 3
    scales: tuple[float, ...] = (45 / 47, 1.0, 45 / 43)
    scale_weights: tuple[float, ...] = (0.99, 1.0, 1.0055)
    feature_pad: int = 2
    window_weight: float = 1.0
    ridge: Descent = _DESCENT
    ridge_rule: RidgeRule = "gradient"
    ranking: Descent = _DESCENT
    ranking_rule: RankingRule = "gradient-times-feature"
    label_alpha: float = 0.2
    label_sigma: float = 0.1
    caps: tuple[int, ...] = (80, 300)
    minimum: int = 250
    balance_top: int = 49
    selection: Selection = "both"
    seed: int = 1234
    max_window: int = 4096

    @property
    def input_canvas(self) -> int:
        """Largest side of the network's input (without margin), static."""
        return int(geometry.grown_side(int(self.search_factor * self.max_size), self.stride))

    @property
    def map_canvas(self) -> int:
        """Largest side of the feature map, odd."""
        return self.input_canvas // self.stride

    @property
    def stride(self) -> int:
        """Input pixels per feature cell."""
        return self.extractor.stride

    @property
    def slots(self) -> tuple[int, ...]:
        """Places for kept channels of each layer; those that stay empty hold zeros."""
        if self.selection == "all":
            return self.extractor.channels
        return (*self.caps[:-1], max(self.caps[-1], self.minimum))


PRESETS: dict[str, Config] = {
    # The paper's method: true gradients of the true losses.
    "tadt": Config(),
    # ZikunZhou/TADT-python as it is.
    "tadt-code": Config(ridge_rule="kernel-sum", ranking_rule="published"),
}


class State(NamedTuple):
    """What belongs to a target.

    Attributes:
        target: ``(4,)`` x, y, w, h in the scaled image, 0-based corner.
        window: ``(4,)`` x, y, w, h of the next search window in the scaled image.
        rescale: ``()`` factor from the frame to the scaled image.
        input_side: ``()`` int32 side of the network's input.
        template: ``(f, f, k)`` kept features of the target, centred in a canvas.
        template_size: ``(2,)`` int32 true rows and columns of the template.
        channels: indices of the kept channels, per layer; empty places point to channel 0.
        weights: ``(k,)`` factor per kept channel: its layer's balance; 0 for empty places.
        filters: kernel and bias of the last layer cut to its kept channels; () where it is not cut.
        energy: ``()`` correlation of the template with itself.
        frame_size: ``(2,)`` int32 true height and width of the frames.
    """

    target: Float[Array, "4"]
    window: Float[Array, "4"]
    rescale: Float[Array, ""]
    input_side: Int[Array, ""]
    template: Float[Array, "f f k"]
    template_size: Int[Array, "2"]
    channels: tuple[Int[Array, "k"], ...]
    weights: Float[Array, "k"]
    filters: tuple[Array, ...]
    energy: Float[Array, ""]
    frame_size: Int[Array, "2"]


class Choice(NamedTuple):
    """The channels chosen in the first frame, and why.

    Attributes:
        masks: per layer ``(c,)``, True for a kept channel.
        ridge: per layer ``(c,)``, importance by the ridge branch.
        ranking: ``(c,)`` importance by the ranking branch, first layer.
        balance: ``(layers,)`` factor of each layer.
    """

    masks: tuple[Bool[Array, "c"], ...]
    ridge: tuple[Float[Array, "c"], ...]
    ranking: Float[Array, "c"]
    balance: Float[Array, "layers"]


def check(config: Config) -> None:
    """Refuse settings that ask for what the network does not have.

    Raises:
        JaxtrackError: says which field, where, and what would do.
    """
    channels, layers = config.extractor.channels, config.extractor.layers
    if len(config.caps) != len(layers):
        raise JaxtrackError(
            f"TADT: caps has {len(config.caps)} numbers for {len(layers)} layers; give one per layer"
        )
    for layer, cap, have in zip(layers, config.caps, channels):
        if not 1 <= cap <= have:
            raise JaxtrackError(
                f"TADT: caps asks for {cap} channels of layer {layer}, which has {have}; "
                f"give 1 to {have}"
            )
    if not 0 <= config.minimum <= channels[-1]:
        raise JaxtrackError(
            f"TADT: minimum asks for {config.minimum} channels, but layer {layers[-1]} has "
            f"{channels[-1]}; give 0 to {channels[-1]}"
        )
    if len(config.scales) != len(config.scale_weights) or len(config.scales) % 2 == 0:
        raise JaxtrackError(
            f"TADT: {len(config.scales)} scales and {len(config.scale_weights)} scale_weights; give an "
            "odd number of each"
        )


def init_variables(config: Config, key: Array) -> Variables:
    """Random variables; TADT itself learns nothing off line, so they are the extractor's."""
    check(config)
    return features_of.init_network(config.extractor, key)


class Kernels(NamedTuple):
    """Initial kernels of both branches, per layer, each centred in a canvas."""

    ridge: tuple[Float[Array, "f f c"], ...]
    ranking: tuple[Float[Array, "f f c"], ...]


def initial_kernels(config: Config, kernel_size: Int[Array, "2"]) -> Kernels:
    """Random starts: normal, of deviation ``1e-8 / sqrt(c * (kh - 1) / 2 * (kw - 1) / 2)``.

    Reference:
        ZikunZhou/TADT-python (whose values come from another generator).
    """
    side = config.map_canvas
    halves = (kernel_size // 2).astype(jnp.float32)
    mask = importance_of.centred_mask((side, side), kernel_size, jnp.float32)

    def draw(layer: int, branch: int) -> Array:
        count = config.extractor.channels[layer]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), layer), branch)
        values = jax.random.normal(key, (side, side, count), jnp.float32)
        deviation = 1e-8 / jnp.sqrt(count * jnp.maximum(halves[0] * halves[1], 1))
        return values * (deviation * mask)[:, :, None]

    layers = range(len(config.extractor.layers))
    return Kernels(tuple(draw(i, 0) for i in layers), tuple(draw(i, 1) for i in layers))


def ridge_importance(
    config: Config,
    features: Float[Array, "f f c"],
    kernel: Float[Array, "f f c"],
    kernel_size: Int[Array, "2"],
    map_size: Int[Array, ""],
    sigma: Float[Array, "2"],
) -> Float[Array, "c"]:
    """Train the ridge branch and take each channel's importance: positive = it helps to find the target.

    Reference:
        TADT, equations 2 to 4; `kernel-sum`: ZikunZhou/TADT-python.
    """
    side = features.shape[0]
    label = importance_of.gaussian_label(side, map_size, sigma, config.label_alpha)
    trained = importance_of.train_ridge(
        features, label, kernel, kernel_size, map_size, config.ridge
    )
    if config.ridge_rule == "kernel-sum":
        return jnp.sum(trained.kernel, axis=(0, 1))
    gradient = importance_of.ridge_feature_gradient(
        features, trained.kernel, trained.bias, label, kernel_size, map_size
    )
    return _pooled(gradient, features, map_size, config.ridge_rule == "gradient-times-feature")


def _pooled(
    gradient: Float[Array, "f f c"],
    features: Float[Array, "f f c"],
    map_size: Int[Array, ""],
    times_feature: bool,
) -> Float[Array, "c"]:
    """Global average pool of the descent direction: positive where more of the channel lowers the loss."""
    values = gradient * features if times_feature else gradient
    return -jnp.sum(values, axis=(0, 1)) / jnp.square(map_size.astype(values.dtype))


def ranking_importance(
    config: Config,
    features: Float[Array, "f f c"],
    kernel: Float[Array, "f f c"],
    kernel_size: Int[Array, "2"],
    map_size: Int[Array, ""],
) -> tuple[Float[Array, "c"], Bool[Array, ""]]:
    """Importance by the ranking branch: positive = the channel feels the target's size.

    Returns:
        The importance, and whether there are pairs to be ranked at all (not for targets that fill the
        search window; the published code fails there).

    Reference:
        TADT, equations 5 and 6; `published`: ZikunZhou/TADT-python.
    """
    side = features.shape[0]
    samples = importance_of.scaled_samples(side, side, map_size, kernel_size, features.dtype)
    possible = samples.number >= 5
    if config.ranking_rule == "published":
        scores = importance_of.rank_scores(features, kernel, samples)
        pairs = ranking_pairs(samples.number, scores.shape[0])
        _, total = ranking_derivative_published(scores, pairs)
        # Resizing weights sum to one, so the pooled gradient is this product exactly.
        return total * jnp.sum(kernel, axis=(0, 1)), possible
    trained, _ = importance_of.train_ranking(features, kernel, kernel_size, samples, config.ranking)
    gradient = importance_of.rank_feature_gradient(features, trained, samples)
    return _pooled(gradient, features, map_size, True), possible


def choose_channels(
    config: Config,
    maps: tuple[Float[Array, "f f c"], ...],
    map_size: Int[Array, ""],
    template_size: Int[Array, "2"],
    kernels: Kernels,
) -> Choice:
    """Both branches and the selection, from the first frame's features.

    Args:
        config: settings.
        maps: features of each layer on canvases, zero beyond ``map_size``.
        map_size: true side of the maps.
        template_size: ``(2,)`` rows and columns of the target on the map.
        kernels: where both branches start from.
    """
    kernel_size = geometry.kernel_cells(template_size)
    sigma = config.label_sigma * template_size.astype(jnp.float32)
    ridge = tuple(
        ridge_importance(config, m, kernel, kernel_size, map_size, sigma)
        for m, kernel in zip(maps, kernels.ridge)
    )
    ranking = []
    for i, m in enumerate(maps if config.selection == "ranking" else maps[:1]):
        if config.ranking_rule == "none" or config.selection == "ridge":
            ranking.append(jnp.ones_like(ridge[i]))
            continue
        values, possible = ranking_importance(config, m, kernels.ranking[i], kernel_size, map_size)
        ranking.append(jnp.where(possible, values, 1))
    used = tuple(ranking) if config.selection == "ranking" else ridge
    masks = importance_of.select_channels(used, ranking[0] > 0, config.caps, config.minimum)
    if config.selection == "all":
        masks = tuple(jnp.ones_like(mask) for mask in masks)
    elif config.selection == "random":
        masks = tuple(_random_of_size(config, i, mask) for i, mask in enumerate(masks))
    return Choice(
        masks, ridge, ranking[0], importance_of.balance_weights(maps, ridge, config.balance_top)
    )


def _random_of_size(config: Config, layer: int, mask: Bool[Array, "c"]) -> Bool[Array, "c"]:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), layer), 2)
    return importance_of.top_channels(jax.random.uniform(key, mask.shape), jnp.sum(mask))


def kept_indices(mask: Bool[Array, "c"], slots: int) -> tuple[Int[Array, "k"], Bool[Array, "k"]]:
    """Rising indices of the True entries in a fixed number of places, and which places are taken."""
    count = mask.shape[0]
    order = jnp.sort(jnp.where(mask, jnp.arange(count), count))[:slots]
    taken = order < count
    return jnp.where(taken, order, 0).astype(jnp.int32), taken


def cut_template(
    features: Float[Array, "f f k"], map_size: Int[Array, ""], template_size: Int[Array, "2"]
) -> Float[Array, "f f k"]:
    """The block about the map's middle, moved to the middle of the canvas; zeros around it."""
    side = features.shape[0]
    shift = side // 2 - (map_size - 1) // 2
    centred = jnp.roll(jnp.roll(features, shift, axis=0), shift, axis=1)
    mask = importance_of.centred_mask((side, side), template_size, features.dtype)
    return centred * mask[:, :, None]


def crop_search(
    config: Config,
    frame: UInt8[Array, "h w 3"],
    frame_size: Int[Array, "2"],
    rescale: Float[Array, ""],
    window: Float[Array, "4"],
    input_side: Int[Array, ""],
) -> UInt8[Array, "s s 3"]:
    """The network's input (uint8) for a search window, widened by the extractor's margin."""
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
    """`tadt_geometry.first_frame` with a config's numbers."""
    return geometry.first_frame(
        box,
        frame_size,
        max_size=config.max_size,
        min_size=config.min_size,
        search_factor=config.search_factor,
        stride=config.stride,
    )


def fitting_template(first: geometry.FirstFrame) -> Int[Array, "2"]:
    """The template's size, cut where the target fills the window.

    The branches' kernels are one cell wider on every side and must fit the map; the published code fails
    there.
    """
    return jnp.minimum(first.template_size, jnp.maximum(first.map_size - 2, 1))


def init(
    config: Config,
    variables: Variables,
    frame: UInt8[Array, "h w 3"],
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Choose the target's channels and cut its template; one compiled program.

    Args:
        config: settings.
        variables: the extractor's learned values.
        frame: uint8 RGB.
        box: ``(4,)`` x, y, w, h, pixels, 0-based corner.
        frame_size: ``(2,)`` true height and width.

    Returns:
        The `State`.

    Raises:
        JaxtrackError: more channels asked for than there are.
    """
    check(config)
    first = first_frame(config, box, frame_size)
    template_size = fitting_template(first)
    crop = crop_search(config, frame, frame_size, first.rescale, first.window, first.input_side)
    maps = features_of.extract(config.extractor, variables, crop, first.map_size)
    kernels = initial_kernels(config, geometry.kernel_cells(template_size))
    choice = choose_channels(config, maps, first.map_size, template_size, kernels)
    return start_state(config, variables, first, template_size, maps, choice, frame_size)


def start_state(
    config: Config,
    variables: Variables,
    first: geometry.FirstFrame,
    template_size: Int[Array, "2"],
    maps: tuple[Float[Array, "f f c"], ...],
    choice: Choice,
    frame_size: Int[Array, "2"],
) -> State:
    """The state for given channels: template, weights, cut filters."""
    channels, weights, kept = [], [], []
    for layer, (mask, slots) in enumerate(zip(choice.masks, config.slots)):
        index, taken = kept_indices(mask, slots)
        channels.append(index)
        weights.append(jnp.where(taken, choice.balance[layer], 0).astype(jnp.float32))
        kept.append(maps[layer][..., index])
    factors = jnp.concatenate(weights)
    features = jnp.concatenate(kept, axis=-1) * factors[None, None, :]
    template = cut_template(features, first.map_size, template_size)
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
    )


def search_features(
    config: Config, variables: Variables, state: State, frame: UInt8[Array, "h w 3"]
) -> Float[Array, "f f k"]:
    """The kept, balanced features of the search window."""
    crop = crop_search(
        config, frame, state.frame_size, state.rescale, state.window, state.input_side
    )
    map_size = state.input_side // config.stride
    features = features_of.extract_kept(
        config.extractor, variables, crop, map_size, state.channels, state.filters
    )
    return features * state.weights[None, None, :]


def match(
    config: Config,
    template: Float[Array, "f f k"],
    template_size: Int[Array, "2"],
    features: Float[Array, "f f k"],
    map_size: Int[Array, ""],
) -> tuple[Float[Array, "n f f"], Float[Array, ""]]:
    """Correlate the template with the scaled copies of the search features.

    Returns:
        Responses over all scales divided by their common maximum, zero where the template would leave
        the map; and that maximum.
    """
    copies = geometry.scaled_maps(features, map_size, len(config.scales), config.feature_pad)
    raw = correlate_same(copies, template, template_size[0] // 2)
    cells = jnp.arange(features.shape[0])
    half = template_size // 2
    rows, columns = ((cells >= h) & (cells < map_size - h) for h in (half[0], half[1]))
    raw = jnp.where(rows[:, None] & columns[None, :], raw, 0)
    top = jnp.max(raw)
    return raw / jnp.where(top > 0, top, 1), top


def choose_scale(config: Config, peaks: geometry.Peaks) -> Int[Array, ""]:
    """Index of the scale whose best score, times the scale's weight, is greatest."""
    weights = jnp.asarray(config.scale_weights, peaks.value.dtype)
    return jnp.argmax(peaks.value * weights).astype(jnp.int32)


def move(
    config: Config,
    target: Float[Array, "4"],
    window: Float[Array, "4"],
    scale_index: Int[Array, ""],
    peak_xy: Int[Array, "2"],
) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
    """New target and search window (scaled image) from the peak of the score map.

    A window that would pass ``max_window``, and a target that would shrink below 1/16 pixel, keep their
    size: the published code has no limit, but a lost target would let them run away.
    """
    scale = jnp.asarray(config.scales, target.dtype)[scale_index]
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
    """The target's box in the frame, 0-based corner."""
    return geometry.zero_based(geometry.one_based(target) / rescale)


def track_frame(
    config: Config, variables: Variables, state: State, frame: UInt8[Array, "h w 3"]
) -> tuple[State, Prediction]:
    """Find the target in the next frame.

    Args:
        config: settings.
        variables: the extractor's learned values.
        state: from `init` or the previous frame.
        frame: uint8 RGB.

    Returns:
        The next state and the `Prediction`.

    Reference:
        TADT, section 3.4; ZikunZhou/TADT-python.
    """
    features = search_features(config, variables, state, frame)
    map_size = state.input_side // config.stride
    response, top = match(config, state.template, state.template_size, features, map_size)
    side = state.window[2].astype(jnp.int32)
    peaks = geometry.score_peaks(response, map_size, side, config.window_weight)
    best = choose_scale(config, peaks)
    peak_xy = jnp.stack([peaks.column[best], peaks.row[best]])
    target, window = move(config, state.target, state.window, best, peak_xy)
    score = top / jnp.where(state.energy > 0, state.energy, 1)
    box = report_box(target, state.rescale)
    return state._replace(target=target, window=window), Prediction(box, score)


_TINY_NETWORK = AlexNetConfig(
    channels=(32, 64, 96, 96, 64),
    groups=(1, 1, 1, 1, 1),
    norm_epsilon=1e-5,
    norm_momentum=0.1,
)
# The network of `siamfc-tiny` with its shipped weights: nothing to download.
PRESETS["tadt-tiny"] = Config(
    extractor=Extractor(
        network=_TINY_NETWORK,
        layers=("block4", "block5"),
        scope="backbone",
        pixel_offset=(0.0, 0.0, 0.0),
        pixel_scale=(1 / 255, 1 / 255, 1 / 255),
    ),
    caps=(24, 40),
    minimum=40,
    balance_top=16,
)
