"""Which channels matter for a target: both branches of TADT, the selection, the balance."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtrack.trackers.tadt import geometry
from jaxtrack.trackers.tadt import ranking as ranking_branch
from jaxtrack.trackers.tadt import ridge as ridge_branch
from jaxtrack.trackers.tadt.adam import AdamDescent, train_ridge_adam
from jaxtrack.trackers.tadt.config import Config
from jaxtrack.trackers.tadt.losses import ranking_derivative_published, ranking_pairs


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


class Kernels(NamedTuple):
    """Initial kernels of both branches, per layer, each centred in a canvas."""

    ridge: tuple[Float[Array, "f f c"], ...]
    ranking: tuple[Float[Array, "f f c"], ...]


def initial_kernels(config: Config, kernel_size: Int[Array, "2"]) -> Kernels:
    """Draw random starts: normal, of deviation ``1e-8 / sqrt(c * (kh - 1) / 2 * (kw - 1) / 2)``.

    Reference:
        ZikunZhou/TADT-python (whose values come from another generator).
    """
    side = config.map_canvas
    halves = (kernel_size // 2).astype(jnp.float32)
    mask = ridge_branch.centred_mask((side, side), kernel_size, jnp.float32)

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
    label = ridge_branch.gaussian_label(side, map_size, sigma, config.label_alpha)
    descent = config.ridge
    if isinstance(descent, AdamDescent):
        trained = train_ridge_adam(features, label, kernel, kernel_size, map_size, descent)
    else:
        trained = ridge_branch.train_ridge(features, label, kernel, kernel_size, map_size, descent)
    if config.ridge_rule == "kernel-sum":
        return jnp.sum(trained.kernel, axis=(0, 1))
    gradient = ridge_branch.ridge_feature_gradient(
        features, trained.kernel, trained.bias, label, kernel_size, map_size
    )
    return _pooled(gradient, features, map_size, config.ridge_rule == "gradient-times-feature")


def _pooled(
    gradient: Float[Array, "f f c"],
    features: Float[Array, "f f c"],
    map_size: Int[Array, ""],
    times_feature: bool,
) -> Float[Array, "c"]:
    """Pool the descent direction over the map: positive where more of the channel lowers the loss."""
    values = gradient * features if times_feature else gradient
    return -jnp.sum(values, axis=(0, 1)) / jnp.square(map_size.astype(values.dtype))


def ranking_importance(
    config: Config,
    features: Float[Array, "f f c"],
    kernel: Float[Array, "f f c"],
    kernel_size: Int[Array, "2"],
    map_size: Int[Array, ""],
) -> tuple[Float[Array, "c"], Bool[Array, ""]]:
    """Return the importance by the ranking branch: positive = the channel feels the target's size.

    Returns:
        The importance, and whether there are pairs to be ranked at all (not for targets that fill the
        search window; the published code fails there).

    Reference:
        TADT, equations 5 and 6; `published`: ZikunZhou/TADT-python.
    """
    side = features.shape[0]
    samples = ranking_branch.scaled_samples(side, side, map_size, kernel_size, features.dtype)
    possible = samples.number >= 5
    if config.ranking_rule in ("published", "published-neighbours"):
        scores = ranking_branch.rank_scores(features, kernel, samples)
        pairs = ranking_pairs(samples.number, scores.shape[0])
        if config.ranking_rule == "published-neighbours":
            index = jnp.arange(scores.shape[0])
            pairs &= jnp.abs(index[:, None] - index[None, :]) == 1
        _, total = ranking_derivative_published(scores, pairs)
        # Resizing weights sum to one, so the pooled gradient is this product exactly.
        return total * jnp.sum(kernel, axis=(0, 1)), possible
    trained, _ = ranking_branch.train_ranking(
        features, kernel, kernel_size, samples, config.ranking
    )
    gradient = ranking_branch.rank_feature_gradient(features, trained, samples)
    return _pooled(gradient, features, map_size, True), possible


def choose_channels(
    config: Config,
    maps: tuple[Float[Array, "f f c"], ...],
    map_size: Int[Array, ""],
    template_size: Int[Array, "2"],
    kernels: Kernels,
) -> Choice:
    """Run both branches on the first frame's features, and select.

    Args:
        config: settings.
        maps: features of each layer on canvases, zero beyond ``map_size``.
        map_size: true side of the maps.
        template_size: ``(2,)`` rows and columns of the target on the map.
        kernels: where both branches start from.
    """
    kernel_size = geometry.kernel_cells(template_size)
    sigma = config.label_sigma * template_size.astype(jnp.float32)
    # Which channels are kept does not change by a small step: no gradient goes through the branches.
    still = jax.lax.stop_gradient(maps)
    ridge = tuple(
        ridge_importance(config, m, kernel, kernel_size, map_size, sigma)
        for m, kernel in zip(still, kernels.ridge)
    )
    ranking = []
    for i, m in enumerate(still if config.selection == "ranking" else still[:1]):
        if config.ranking_rule == "none" or config.selection == "ridge":
            ranking.append(jnp.ones_like(ridge[i]))
            continue
        values, possible = ranking_importance(config, m, kernels.ranking[i], kernel_size, map_size)
        ranking.append(jnp.where(possible, values, 1))
    used = tuple(ranking) if config.selection == "ranking" else ridge
    masks = select_channels(used, ranking[0] > 0, config.caps, config.minimum)
    if config.selection == "all":
        masks = tuple(jnp.ones_like(mask) for mask in masks)
    elif config.selection == "random":
        masks = tuple(_random_of_size(config, i, mask) for i, mask in enumerate(masks))
    return Choice(masks, ridge, ranking[0], balance_weights(maps, ridge, config.balance_top))


def _random_of_size(config: Config, layer: int, mask: Bool[Array, "c"]) -> Bool[Array, "c"]:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), layer), 2)
    return top_channels(jax.random.uniform(key, mask.shape), jnp.sum(mask))


def top_channels(importance: Float[Array, "c"], count: Int[Array, ""] | int) -> Bool[Array, "c"]:
    """Return the ``count`` channels of greatest importance; the lower index first on ties."""
    order = jnp.argsort(-importance, stable=True)
    places = jnp.zeros(importance.shape[0], jnp.int32).at[order].set(
        jnp.arange(importance.shape[0], dtype=jnp.int32)
    )  # fmt: skip
    return places < count


def select_channels(
    importances: tuple[Float[Array, "c"], ...],
    ranking_mask: Bool[Array, "c"],
    caps: tuple[int, ...],
    minimum: int,
) -> tuple[Bool[Array, "c"], ...]:
    """Select the channels of each layer that are kept.

    A channel is kept when its ridge importance is positive and among the layer's greatest; in the first
    layer the ranking must agree. The last layer takes further channels in the order of ridge importance,
    even non-positive ones, until the total is ``minimum``.

    Args:
        importances: ridge importance of the channels of each layer.
        ranking_mask: the first layer's channels that the ranking branch admits.
        caps: greatest number of channels of each layer.
        minimum: least number over all layers together.

    Reference:
        ZikunZhou/TADT-python; the same in XinLi-zn/TADT.
    """
    masks = []
    for layer, (importance, cap) in enumerate(zip(importances, caps)):
        kept = (importance > 0) & top_channels(importance, cap)
        masks.append(kept & ranking_mask if layer == 0 else kept)
    others = sum((jnp.sum(mask) for mask in masks[:-1]), jnp.zeros((), jnp.int32))
    filled = top_channels(importances[-1], minimum - others)
    short = others + jnp.sum(masks[-1]) < minimum
    masks[-1] = jnp.where(short, masks[-1] | filled, masks[-1])
    return tuple(masks)


def balance_weights(
    maps: tuple[Float[Array, "h w c"], ...], importances: tuple[Float[Array, "c"], ...], top: int
) -> Float[Array, "layers"]:
    """Return the factors that make the layers' strongest responses equal; the last layer's is 1.

    A layer's strength is the largest value over the map of the sum of its ``top`` channels of greatest
    ridge importance (chosen or not).

    Reference:
        ZikunZhou/TADT-python.
    """
    strengths = []
    for features, importance in zip(maps, importances):
        best = top_channels(importance, top).astype(features.dtype)
        strengths.append(jnp.max(jnp.dot(features, best, precision="highest")))
    strength = jnp.stack(strengths)
    return strength[-1] / jnp.where(strength > 0, strength, 1)


def kept_indices(mask: Bool[Array, "c"], slots: int) -> tuple[Int[Array, "k"], Bool[Array, "k"]]:
    """Return rising indices of the True entries in a fixed number of places, and which are taken."""
    count = mask.shape[0]
    order = jnp.sort(jnp.where(mask, jnp.arange(count), count))[:slots]
    taken = order < count
    return jnp.where(taken, order, 0).astype(jnp.int32), taken
