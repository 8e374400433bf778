"""TADT's feature extractor as a value: a network of this library at named layers.

`Extractor.network` is the network's own configuration (`VGGConfig` or `AlexNetConfig`), `Extractor.layers`
names the layers. Networks without padding see a wider crop (by their margin), so that their map covers the
search window as a padded network's does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack.base import Variables
from jaxtrack.errors import JaxtrackError
from jaxtrack.models.alexnet import AlexNet, AlexNetConfig
from jaxtrack.models.vgg import CHANNELS, NUMBERS, VGG16, VGGConfig
from jaxtrack.ops.conv import conv2d_xla
from jaxtrack.ranges import Positive, check_ranges

Network = VGGConfig | AlexNetConfig
VGG16_CONV4 = VGGConfig()


@dataclasses.dataclass(frozen=True)
class Extractor:
    """Where features come from.

    Attributes:
        network: configuration of the network.
        layers: names of the layers, shallow to deep, one or more. VGG-16: ``conv1_1`` ... ``conv4_3``,
            all of one resolution; AlexNet: ``block3`` ... ``block5``.
        scope: name under which the network's parameters lie, or "" where they are the whole tree.
        pixel_offset: added to the RGB values 0..255.
        pixel_scale: factor on the result.
        feature_scale: factor on the features; brings them to the magnitude that the ridge branch's rate
            was published for.
    """

    network: Network = VGG16_CONV4
    layers: tuple[str, ...] = ("conv4_1", "conv4_3")
    scope: str = ""
    pixel_offset: tuple[float, float, float] = (-128.0, -128.0, -128.0)
    pixel_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    feature_scale: Positive = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)

    @property
    def stride(self) -> int:
        """Input pixels per feature cell."""
        return self.network.stride

    @property
    def margin(self) -> int:
        """Input pixels that unpadded layers take away, both sides together."""
        if isinstance(self.network, VGGConfig):
            return self.network.margin
        return alexnet_margin(self.network)

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels of each layer.

        Raises:
            JaxtrackError: a layer that the network does not have.
        """
        if isinstance(self.network, VGGConfig):
            table = CHANNELS
        else:
            table = {f"block{i + 1}": n for i, n in enumerate(self.network.channels) if i >= 2}
        for layer in self.layers:
            if layer not in table:
                known = ", ".join(table)
                raise JaxtrackError(f"TADT: the network has no layer {layer!r}; it has {known}")
        return tuple(table[layer] for layer in self.layers)


def alexnet_margin(network: AlexNetConfig) -> int:
    """Return pixels by which an input exceeds stride times map side, for the last block."""
    side = 1 + sum(k - 1 for k in network.kernels[2:])
    side = (side - 1) * network.pool_strides[1] + 3 + network.kernels[1] - 1
    side = (side - 1) * network.pool_strides[0] + 3
    return (side - 1) * 2 + network.kernels[0] - network.stride


def init_network(extractor: Extractor, key: Array) -> Variables:
    """Draw random variables of the extractor's network, in the published layout."""
    side = extractor.stride + extractor.margin
    images = jnp.zeros((1, side, side, 3), jnp.float32)
    if isinstance(extractor.network, VGGConfig):
        variables = VGG16(extractor.network).init(key, images)
    else:
        variables = AlexNet(extractor.network).init(key, images)
    named = {
        name: {extractor.scope: tree} if extractor.scope else tree
        for name, tree in variables.items()
    }
    return {"params": named["params"], "batch_stats": named.get("batch_stats", {})}


def _own_variables(extractor: Extractor, variables: Variables) -> Variables:
    if not extractor.scope:
        return variables
    return {name: tree.get(extractor.scope, {}) for name, tree in variables.items()}


def _all_layers(
    extractor: Extractor, variables: Variables, images: Float[Array, "n h w 3"], size: Array
) -> dict[str, Array]:
    """Return outputs by name; those that nobody uses are never computed (the compiler drops them)."""
    own = _own_variables(extractor, variables)
    if isinstance(extractor.network, VGGConfig):
        outputs: Any = VGG16(extractor.network).apply(own, images, size)
        return outputs
    blocks: Any = AlexNet(extractor.network).apply(own, images)
    return {f"block{i + 1}": block for i, block in enumerate(blocks)}


def prepare(extractor: Extractor, crop: UInt8[Array, "h w 3"]) -> Float[Array, "1 h w 3"]:
    """Return a crop as the network wants it: float32, offset, scaled, with a batch axis."""
    offset = jnp.asarray(extractor.pixel_offset, jnp.float32)[None, None, :]
    scale = jnp.asarray(extractor.pixel_scale, jnp.float32)[None, None, :]
    return ((crop.astype(jnp.float32) + offset) * scale)[None]


def _fit(
    extractor: Extractor, features: Float[Array, "1 h w c"], map_size: Array, side: int
) -> Float[Array, "side side c"]:
    """Cut the map's middle ``side`` cells (shallower unpadded layers are larger), masked, scaled."""
    excess = features.shape[1] - side
    first = excess // 2
    maps = features[0, first : first + side, first : first + side]
    line = (jnp.arange(side) < map_size).astype(maps.dtype)
    return maps * (extractor.feature_scale * line[:, None] * line[None, :])[:, :, None]


def extract(
    extractor: Extractor,
    variables: Variables,
    crop: UInt8[Array, "h w 3"],
    map_size: Int[Array, ""],
) -> tuple[Float[Array, "s s c"], ...]:
    """Return all channels of the named layers.

    Args:
        extractor: network, layers, preprocessing.
        variables: the network's learned values.
        crop: canvas of a square crop with its margin; the picture is its top-left part.
        map_size: ``()`` true side of the feature map.

    Returns:
        One map per layer, on a canvas, zero beyond ``map_size``.
    """
    side = (crop.shape[0] - extractor.margin) // extractor.stride
    outputs = _all_layers(
        extractor, variables, prepare(extractor, crop), map_size * extractor.stride
    )
    return tuple(_fit(extractor, outputs[layer], map_size, side) for layer in extractor.layers)


def cuts_exactly(extractor: Extractor) -> bool:
    """Say whether the last layer is a plain convolution, so that only kept filters need be computed."""
    network, last = extractor.network, extractor.layers[-1]
    if isinstance(network, VGGConfig):
        return last == network.until and _input_of(extractor) is not None
    return last == "block5" and network.groups[4] == 1 and not network.final_norm


def _input_of(extractor: Extractor) -> str | None:
    """Return the layer that feeds the last one directly, where no pool lies between."""
    if not isinstance(extractor.network, VGGConfig):
        return "block4"
    names = list(CHANNELS)
    place = names.index(extractor.layers[-1])
    pooled_before = extractor.layers[-1] in ("conv1_1", "conv2_1", "conv3_1")
    return None if pooled_before else names[place - 1]


def kept_filters(
    extractor: Extractor, variables: Variables, channels: Int[Array, "k"]
) -> tuple[Float[Array, "kh kw i k"], Float[Array, "k"]]:
    """Return the kernel and bias of the last layer's chosen filters (`cuts_exactly` must hold)."""
    params = _own_variables(extractor, variables)["params"]
    if isinstance(extractor.network, VGGConfig):
        parameters = params[f"features.{NUMBERS[extractor.layers[-1]]}"]
    else:
        parameters = params[extractor.network.conv_names[4]]
    return parameters["kernel"][..., channels], parameters["bias"][channels]


def extract_kept(
    extractor: Extractor,
    variables: Variables,
    crop: UInt8[Array, "h w 3"],
    map_size: Int[Array, ""],
    channels: tuple[Int[Array, "k"], ...],
    filters: tuple[Array, ...],
) -> Float[Array, "s s kk"]:
    """Compute the chosen channels only, layer after layer.

    Args:
        extractor: network, layers, preprocessing.
        variables: the network's learned values.
        crop: as in `extract`.
        map_size: true side of the feature map.
        channels: indices per layer.
        filters: the last layer cut to its chosen filters (`kept_filters`); (): all are computed and
            the chosen ones picked.

    Returns:
        The kept channels on one canvas, zero beyond ``map_size``.
    """
    side = (crop.shape[0] - extractor.margin) // extractor.stride
    images = prepare(extractor, crop)
    outputs = _all_layers(extractor, variables, images, map_size * extractor.stride)
    parts = []
    for place, (layer, kept) in enumerate(zip(extractor.layers, channels)):
        if filters and place == len(channels) - 1:
            padded = isinstance(extractor.network, VGGConfig)
            before = _input_of(extractor)
            assert before is not None
            features = _convolve(outputs[before], filters, pad=padded)
            features = jax.nn.relu(features) if padded else features
        else:
            features = outputs[layer][..., kept]
        parts.append(_fit(extractor, features, map_size, side))
    return jnp.concatenate(parts, axis=-1)


def _convolve(
    x: Float[Array, "1 h w i"], filters: tuple[Array, ...], pad: bool
) -> Float[Array, "1 oh ow k"]:
    kernel, bias = filters
    if pad:
        half = kernel.shape[0] // 2
        x = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    return _unpadded(x, kernel) + bias[None, None, None, :]


def _by_taps(x: Float[Array, "n h w i"], kernel: Float[Array, "kh kw i k"]) -> Array:
    """Convolve without padding, by one matrix product per tap."""
    kh, kw = kernel.shape[:2]
    oh, ow = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    total = jnp.zeros((x.shape[0], oh, ow, kernel.shape[3]), x.dtype)
    for i in range(kh):
        for j in range(kw):
            tap = x[:, i : i + oh, j : j + ow]
            total = total + jnp.einsum("nyxi,ik->nyxk", tap, kernel[i, j], precision="highest")
    return total


@jax.custom_jvp
def _unpadded(x: Float[Array, "n h w i"], kernel: Float[Array, "kh kw i k"]) -> Array:
    """Convolve without padding: XLA's convolution for one target, matrix products for several targets.

    Each target has filters of its own, which XLA would take for a slow grouped convolution.
    """
    return _for_one_or_many(x, kernel)


@_unpadded.defjvp
def _unpadded_derivative(
    given: tuple[Array, Array], change: tuple[Array, Array]
) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = given, change
    return _unpadded(x, kernel), conv2d_xla(dx, kernel) + conv2d_xla(x, dkernel)


@jax.custom_batching.custom_vmap
def _for_one_or_many(x: Array, kernel: Array) -> Array:
    return conv2d_xla(x, kernel)


@_for_one_or_many.def_vmap
def _for_many(
    axis_size: int, in_batched: list[bool], x: Array, kernel: Array
) -> tuple[Array, bool]:
    x_axis, kernel_axis = (0 if batched else None for batched in in_batched)
    function = _by_taps if in_batched[1] else conv2d_xla
    return jax.vmap(function, in_axes=(x_axis, kernel_axis))(x, kernel), True
