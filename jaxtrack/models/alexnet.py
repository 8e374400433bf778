"""The AlexNet-like embedding of SiamFC, in the published codes' variants."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxtrack.errors import JaxtrackError
from jaxtrack.models.layers import BatchNorm, Conv, max_pool
from jaxtrack.ops.correlation import cross_correlation_pairs
from jaxtrack.ops.mapping import image_by_image
from jaxtrack.ops.response import resize_maps
from jaxtrack.ranges import Count, Positive, Share, check_ranges


@runtime_checkable
class Embedding(Protocol):
    """What `SiamFC` asks of its network's settings, a frozen dataclass: an `AlexNetConfig`, or one's own."""

    @property
    def stride(self) -> int:
        """Total stride, input pixels per feature cell."""

    def feature_size(self, image_size: int) -> int:
        """Return the side of the features of a square image, cells; below 1: it is too small for any."""

    def module(self, name: str) -> nn.Module:
        """Return the network under a name: ``(n, h, w, 3)`` images and ``train`` to a list of feature maps.

        The last one, ``(n, h', w', c)``, is the embedding.
        """


def refuse_small(network: Embedding, exemplar: int, search: int) -> None:
    """Refuse crops that a network makes nothing of.

    Args:
        network: its settings.
        exemplar: side of the exemplar crop, pixels.
        search: side of the search crop, pixels.

    Raises:
        JaxtrackError: says which, and what would do.
    """
    if network.feature_size(exemplar) < 1:
        sides = range(exemplar, 2**15)
        least = next((side for side in sides if network.feature_size(side) >= 1), sides.stop)
        raise JaxtrackError(
            f"exemplar_size is {exemplar}, of which the network leaves no feature; {least} or more"
        )
    if search < exemplar:
        raise JaxtrackError(f"instance_size is {search}, below exemplar_size = {exemplar}")


@dataclasses.dataclass(frozen=True)
class AlexNetConfig:
    """Five unpadded convolutions with batch normalisation and two 3x3 max pools.

    Attributes:
        channels: features of the five convolutions.
        groups: channel groups of the five convolutions.
        kernels: kernel sides of the five convolutions; the first has stride 2.
        pool_strides: strides of the pools after blocks 1 and 2; total stride = 2 * their product.
        final_norm: batch normalisation after the fifth convolution too (no ReLU follows it).
        norm_epsilon: of the batch normalisation.
        norm_momentum: weight of the new batch in the running statistics.
        conv_names: parameter names of the five convolutions.
        norm_names: parameter names of the batch normalisations.
    """

    channels: tuple[Count, ...] = (96, 256, 384, 384, 256)
    groups: tuple[Count, ...] = (1, 2, 1, 2, 2)
    kernels: tuple[Count, ...] = (11, 5, 3, 3, 3)
    pool_strides: tuple[Count, ...] = (2, 2)
    final_norm: bool = False
    norm_epsilon: Positive = 1e-6
    norm_momentum: Share = 0.05
    conv_names: tuple[str, ...] = tuple(f"conv{i}.0" for i in range(1, 6))
    norm_names: tuple[str, ...] = tuple(f"conv{i}.1" for i in range(1, 6))

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, and what makes no five convolutions, by name."""
        check_ranges(self)
        for name, count in [("channels", 5), ("groups", 5), ("kernels", 5), ("pool_strides", 2)]:
            given = getattr(self, name)
            if len(given) != count:
                raise JaxtrackError(f"{name} holds {len(given)} numbers; {count} are wanted")
        for before, after, groups in zip((3, *self.channels), self.channels, self.groups):
            if before % groups or after % groups:
                raise JaxtrackError(
                    f"groups asks for {groups} groups, which {before} and {after} channels are no multiple of"
                )

    @property
    def stride(self) -> int:
        """Total stride, input pixels per feature cell."""
        return 2 * self.pool_strides[0] * self.pool_strides[1]

    def feature_size(self, image_size: int, blocks: int = 5) -> int:
        """Return the side of the output of block 3, 4 or 5 of a square image, cells."""
        side = (image_size - self.kernels[0]) // 2 + 1
        side = (side - 3) // self.pool_strides[0] + 1
        side = side - self.kernels[1] + 1
        side = (side - 3) // self.pool_strides[1] + 1
        return side - sum(kernel - 1 for kernel in self.kernels[2:blocks])

    def module(self, name: str) -> AlexNet:
        """Return the network; see `Embedding`."""
        return AlexNet(self, name=name)


# huanglianghua/siamfc-pytorch, AlexNetV1 (the paper's network), V2 (stride 4) and V3 (wide, no groups).
ALEXNET_V1 = AlexNetConfig()
ALEXNET_V2 = AlexNetConfig(channels=(96, 256, 384, 384, 32), pool_strides=(2, 1))
ALEXNET_V3 = AlexNetConfig(
    channels=(192, 512, 768, 768, 512), groups=(1, 1, 1, 1, 1), final_norm=True
)
# Small, of siamfc-tiny and tadt-tiny; and two and a half times as wide, of siamfc-small and tadt-small.
ALEXNET_TINY = AlexNetConfig(
    channels=(24, 64, 96, 96, 64),
    groups=(1, 1, 1, 1, 1),
    kernels=(7, 5, 3, 3, 3),
    norm_epsilon=1e-5,
    norm_momentum=0.1,
)
ALEXNET_SMALL = dataclasses.replace(ALEXNET_TINY, channels=(64, 160, 224, 224, 160))
# rafellerc/Pytorch-SiamFC, BaselineEmbeddingNet: one Sequential, usual batch-norm constants.
BASELINE_EMBEDDING = AlexNetConfig(
    channels=(96, 256, 384, 384, 32),
    pool_strides=(2, 1),
    norm_epsilon=1e-5,
    norm_momentum=0.1,
    conv_names=tuple(f"fully_conv.{i}" for i in (0, 4, 8, 11, 14)),
    norm_names=tuple(f"fully_conv.{i}" for i in (1, 5, 9, 12, 15)),
)


class AlexNet(nn.Module):
    """SiamFC's embedding: ``(n, h, w, 3)`` images to ``(n, h', w', channels[-1])`` features.

    Reference:
        SiamFC, table 1; huanglianghua/siamfc-pytorch, ``backbones.py``.
    """

    config: AlexNetConfig = ALEXNET_V1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> list[Array]:
        """Run the five blocks.

        Args:
            x: images in the range that the weights were trained for.
            train: batch statistics in the normalisation.

        Returns:
            The outputs of the five blocks (pool included); the last one is the embedding.
        """
        config, dtype = self.config, x.dtype
        blocks = []
        for i in range(5):
            x = Conv(
                config.channels[i],
                config.kernels[i],
                strides=2 if i == 0 else 1,
                groups=config.groups[i],
                kernel_init=nn.initializers.xavier_uniform(),
                name=config.conv_names[i],
            )(x)
            if i < 4 or config.final_norm:
                norm = BatchNorm(
                    config.norm_momentum, config.norm_epsilon, name=config.norm_names[i]
                )
                x = norm(x, train)
            if i < 4:
                x = nn.relu(x)
            if i < 2:
                x = max_pool(x, 3, config.pool_strides[i])
            blocks.append(x)
        return [block.astype(dtype) for block in blocks]


class SiamFC(nn.Module):
    """The embedding and the matching head of SiamFC.

    Reference:
        SiamFC, section 2.2; the head with batch normalisation: rafellerc/Pytorch-SiamFC, ``match_corr``.
    """

    network: Embedding = ALEXNET_V1
    backbone_name: str = "backbone"
    out_scale: float = 0.001
    match_norm: bool = False
    upscale_size: int | None = None

    def setup(self) -> None:
        """Make the embedding and, where asked, the one-channel normalisation of the match."""
        self.backbone = self.network.module(self.backbone_name)
        if self.match_norm:
            self.match_batchnorm = BatchNorm(0.1, 1e-5)

    def embed(self, images: Float[Array, "n h w 3"], train: bool = False) -> list[Array]:
        """Return the feature maps of the network, the embedding last; see `AlexNet` and `Embedding`.

        Raises:
            JaxtrackError: the embedding is of another size than the network's settings say.
        """
        maps: list[Array] = self.backbone(images, train)
        sides = images.shape[1:3]
        told = tuple(map(self.network.feature_size, sides))
        if maps[-1].shape[1:3] != told:
            raise JaxtrackError(
                f"{type(self.network).__name__} makes features of {maps[-1].shape[1:3]} cells of an image of"
                f" {sides}; its feature_size says {told}"
            )
        return maps

    def match(
        self, responses: Float[Array, "n h w"], train: bool = False
    ) -> Float[Array, "n oh ow"]:
        """Turn raw correlations into responses (logits): scale, normalisation, bilinear upscale.

        Args:
            responses: raw cross-correlations.
            train: normalise over the whole batch of maps.
        """
        responses = responses * self.out_scale if self.out_scale != 1 else responses
        if self.match_norm:
            responses = self.match_batchnorm(responses[..., None], train)[..., 0]
        if self.upscale_size is not None:
            size = (self.upscale_size, self.upscale_size)
            responses = resize_maps(responses, size, "linear")
        return responses

    def __call__(
        self,
        exemplars: Float[Array, "n h w 3"],
        searches: Float[Array, "n sh sw 3"],
        train: bool = False,
    ) -> Float[Array, "n oh ow"]:
        """Return the responses of a batch of pairs; both branches are normalised apart, exemplars first."""
        z = self.embed(exemplars, train)[-1]
        x = self.embed(searches, train)[-1]
        return self.match(cross_correlation_pairs(z, x), train)


def embed_crops(
    module: SiamFC,
    variables: Any,
    crops: UInt8[Array, "n h w 3"] | Float[Array, "n h w 3"],
    divisor: float,
    block: int = 0,
) -> Float[Array, "n a b c"]:
    """Embed RGB crops with running statistics.

    Args:
        module: the network.
        variables: ``{"params", "batch_stats"}``; other collections in it are ignored.
        crops: 0 to 255.
        divisor: they are divided by it (1: the network sees 0 to 255).
        block: the block whose output is wanted, from 1 on (the compiler leaves out the later ones); 0: the
            last one, the embedding.
    """
    own = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    images = crops.astype(jnp.float32)
    if divisor != 1:
        images = images / divisor

    def network(images: Array, own: Any) -> Array:
        blocks: Any = module.apply(own, images, method="embed")
        return blocks[block - 1]

    return image_by_image(network, images, own)
