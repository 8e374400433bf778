"""MLT's matching network, with its last layer held apart so that it can be adapted.

The network is SiamFC's fully-convolutional pair of branches with other sizes (`MATCHING`), so its modules
are `jaxtrack.models.alexnet`'s. This file splits it: the *trunk* (blocks 1 to 4, see
`jaxtrack.models.alexnet.embed_crops`) runs once per crop; the *last layer* and the matching are pure
functions of their values, cheap enough to be differentiated while tracking.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.models.alexnet import AlexNetConfig, SiamFC
from jaxtrack.ops import precision
from jaxtrack.ops.conv import conv2d
from jaxtrack.ops.correlation import sum_of_shifts
from jaxtrack.ops.mapping import by_platform
from jaxtrack.trackers.mlt.meta import MetaConfig, MetaLearner, MetaOutput

# Kernels 11x11x3x128, 5x5x128x256, 3x3x256x384, 3x3x384x256, 1x1x256x192, normalisation after each.
MATCHING = AlexNetConfig(
    channels=(128, 256, 384, 256, 192),
    groups=(1, 1, 1, 1, 1),
    kernels=(11, 5, 3, 3, 1),
    final_norm=True,
    norm_epsilon=1e-5,
    norm_momentum=0.1,
)
MATCHING_TINY = AlexNetConfig(
    channels=(24, 64, 96, 96, 64),
    groups=(1, 1, 1, 1, 1),
    kernels=(7, 5, 3, 3, 1),
    final_norm=True,
    norm_epsilon=1e-5,
    norm_momentum=0.1,
)


class LastLayer(NamedTuple):
    """The last layer at rest: ``conv(x, kernel) * factor + offset``.

    Attributes:
        kernel: ``(kh, kw, i / groups, o)``.
        factor: ``(o,)`` of the normalisation by running statistics; ones where there is none.
        offset: ``(o,)`` of bias and normalisation.
    """

    kernel: Float[Array, "kh kw i o"]
    factor: Float[Array, "o"]
    offset: Float[Array, "o"]


class Head(NamedTuple):
    """From a raw correlation to a response (logit): ``raw * factor + offset``."""

    factor: Float[Array, ""]
    offset: Float[Array, ""]


def _affine(params: Any, stats: Any, epsilon: float) -> tuple[Array, Array]:
    """Return the factor and offset of a batch normalisation at rest, as `layers.BatchNorm` computes them."""
    factor = params["scale"] * jax.lax.rsqrt(stats["var"] + epsilon)
    return factor, params["bias"] - stats["mean"] * factor


@functools.partial(jax.jit, static_argnums=0)
def last_layer(module: SiamFC, variables: Any) -> LastLayer:
    """Return the fifth convolution with its bias and normalisation."""
    network = module.network
    assert isinstance(network, AlexNetConfig)
    params = variables["params"][module.backbone_name]
    conv = params[network.conv_names[4]]
    if not network.final_norm:
        return LastLayer(conv["kernel"], jnp.ones_like(conv["bias"]), conv["bias"])
    name = network.norm_names[4]
    stats = variables["batch_stats"][module.backbone_name][name]
    factor, offset = _affine(params[name], stats, network.norm_epsilon)
    return LastLayer(conv["kernel"], factor, conv["bias"] * factor + offset)


@functools.partial(jax.jit, static_argnums=0)
def head(module: SiamFC, variables: Any) -> Head:
    """Return the matching head at rest: scale and, where it has one, the one-channel normalisation."""
    if not module.match_norm:
        one = jnp.ones((), jnp.float32)
        return Head(one * module.out_scale, 0 * one)
    params = variables["params"]["match_batchnorm"]
    factor, offset = _affine(params, variables["batch_stats"]["match_batchnorm"], 1e-5)
    return Head(factor[0] * module.out_scale, offset[0])


def apply_last(
    layer: LastLayer,
    kernel: Float[Array, "kh kw i p"],
    groups: int,
    x: Float[Array, "n h w c"],
) -> Float[Array, "n a b p"]:
    """Run the last layer with a kernel in place of its own; it may have more outputs.

    New outputs have no running statistics: they are used as they come out of the convolution.

    Args:
        layer: gives factor and offset of its own outputs.
        kernel: its outputs come first, new ones behind them.
        groups: channel groups; new outputs are spread over them too.
        x: outputs of the trunk.
    """
    count = layer.factor.shape[0]
    new = kernel.shape[-1] - count
    if groups == 1 or new == 0:
        y = conv2d(x, kernel, groups=groups, own=True)
    else:
        parts = [
            conv2d(x, part, groups=groups, own=True) for part in jnp.split(kernel, [count], axis=-1)
        ]
        y = jnp.concatenate(parts, axis=-1)
    factor, offset = (
        jax.lax.pad(x, jnp.asarray(rest, x.dtype), ((0, new, 0),))
        for x, rest in ((layer.factor, 1), (layer.offset, 0))
    )
    return y * factor[None, None, None] + offset[None, None, None]


@jax.jit
def correlate(
    template: Float[Array, "h w c"], searches: Float[Array, "n a b c"]
) -> Float[Array, "n oh ow"]:
    """Correlate by one matrix product over the channels and shifted sums.

    For templates of many channels: needs no patch matrix (which is ``h * w`` times the search map, for
    every scale and memory patch), and its gradient is as cheap.
    """
    h, w, channels = template.shape
    n, a, b, _ = searches.shape
    digits = precision.of(searches.dtype)
    products = jnp.dot(
        searches.reshape(-1, channels), template.reshape(-1, channels).T, precision=digits
    ).reshape(n, a, b, h, w)
    return by_platform(_sum_by_slices, _sum_along_diagonals, products)


def _sum_by_slices(products: Float[Array, "n a b h w"]) -> Float[Array, "n oh ow"]:
    _, a, b, h, w = products.shape
    oh, ow = a - h + 1, b - w + 1
    rows = products[:, :oh, :, 0]
    for p in range(1, h):
        rows = rows + products[:, p : p + oh, :, p]
    total = rows[:, :, :ow, 0]
    for q in range(1, w):
        total = total + rows[:, :, q : q + ow, q]
    return total


def _sum_along_diagonals(products: Float[Array, "n a b h w"]) -> Float[Array, "n oh ow"]:
    """Return the same, however large the template is in a few operations."""
    rows = sum_of_shifts(jnp.transpose(products, (0, 2, 4, 3, 1)))
    return sum_of_shifts(jnp.transpose(rows, (0, 3, 2, 1)))


def respond(
    layer: LastLayer,
    match: Head,
    groups: int,
    kernels: tuple[Array, Array],
    attention: Float[Array, "p"],
    exemplar: Float[Array, "h w c"],
    searches: Float[Array, "n a b c"],
) -> Float[Array, "n oh ow"]:
    """Return the responses (logits) of one exemplar on searches under an adapted last layer.

    Args:
        layer: the last layer at rest.
        match: the matching head.
        groups: channel groups of the last layer.
        kernels: for the exemplar and for the searches; usually the same one twice.
        attention: factor of each channel in the correlation.
        exemplar: trunk output of the exemplar.
        searches: trunk outputs of the searches.
    """
    template = apply_last(layer, kernels[0], groups, exemplar[None])[0]
    features = apply_last(layer, kernels[1], groups, searches)
    raw = correlate(template * attention[None, None], features)
    return raw * match.factor + match.offset


def run_meta(
    config: MetaConfig,
    params: Any,
    delta: Float[Array, "kh kw i o"],
    dropout_key: Array | None = None,
) -> MetaOutput:
    """Run the meta-learner on a gradient; with a key, in training (dropout)."""
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    out: Any = MetaLearner(config).apply(
        {"params": params}, delta, dropout_key is not None, rngs=rngs
    )
    return out


def init_meta(config: MetaConfig, kernel_shape: tuple[int, ...], key: Array) -> Any:
    """Draw random parameters of the meta-learner for a last layer of this shape."""
    delta = jnp.zeros(kernel_shape, jnp.float32)
    return dict(MetaLearner(config).init(key, delta)["params"])


def kernel_shape(network: AlexNetConfig) -> tuple[int, int, int, int]:
    """Return the shape of the last layer's kernel."""
    side, groups = network.kernels[4], network.groups[4]
    return side, side, network.channels[3] // groups, network.channels[4]
