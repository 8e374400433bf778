"""The SiamRPN++ network: backbone, neck, region proposal heads."""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.errors import JaxtrackError
from jaxtrack.models.layers import BatchNorm, Conv, torch_kernel_init
from jaxtrack.models.mobilenet import MobileNetV2
from jaxtrack.models.resnet import ResNet50
from jaxtrack.ranges import Count, Positive, Whole, check_ranges
from jaxtrack.trackers.siamrpn.alexnet import CHANNELS, KERNELS, AlexNetRPN
from jaxtrack.trackers.siamrpn.heads import (
    Correlation,
    FusedHead,
    Kernels,
    level_head,
)


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """What the network is made of.

    Attributes:
        backbone: which one.
        width: factor on the backbone's widths (AlexNet, MobileNetV2).
        levels: backbone stages that are fused, ascending.
        channels: AlexNet's widths at factor 1.
        kernels: AlexNet's kernel sides.
        padded: AlexNet with zero padding, see `AlexNetRPN`.
        frozen_below: backbone stages before this one keep their weights and running statistics in
            training too (0: all train).
        neck: width of each level's 1x1 convolution; empty: no neck.
        neck_crop: a map narrower than 20 cells is cut to its central square of this side (0: never).
        neck_align: levels are cut to the side of the deepest one first, which an unpadded backbone
            needs: its levels differ by their borders.
        head: width of each level's head.
        fusion: how levels are combined; one level needs none ("single").
        correlation: depth-wise (SiamRPN++), up-channel (SiamRPN), or plain with one response channel.
        anchors: anchors per cell.
    """

    backbone: Literal["resnet50", "mobilenetv2", "alexnet"] = "resnet50"
    width: Positive = 1.0
    levels: tuple[Count, ...] = (2, 3, 4)
    channels: tuple[Count, ...] = CHANNELS
    kernels: tuple[Count, ...] = KERNELS
    padded: bool = False
    frozen_below: Whole = 0
    neck: tuple[Count, ...] = (256, 256, 256)
    neck_crop: Whole = 7
    neck_align: bool = False
    head: tuple[Count, ...] = (256, 256, 256)
    fusion: Literal["single", "average", "weighted"] = "weighted"
    correlation: Correlation = "depthwise"
    anchors: Count = 5

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, and levels without a part of their own, by name."""
        check_ranges(self)
        for name, widths in (("channels", self.channels), ("kernels", self.kernels)):
            if len(widths) != 5:
                raise JaxtrackError(f"{name} holds {len(widths)} numbers; 5 are wanted, AlexNet's")
        count = len(self.levels)
        for name, given in (("neck", self.neck), ("head", self.head)):
            if len(given) != count and (given or name == "head"):
                raise JaxtrackError(
                    f"{name} has {len(given)} widths for {count} levels; one for each"
                )
        if (self.fusion == "single") != (count == 1):
            raise JaxtrackError(
                f'fusion is "{self.fusion}" of {count} levels; "single" is for one, the others for several'
            )


def central(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n s s c"]:
    """Return the central square of a square map."""
    start = (x.shape[2] - size) // 2
    return x[:, start : start + size, start : start + size]


class AdjustLevel(nn.Module):
    """1x1 convolution and batch normalisation; small maps are cut to their centre.

    Reference:
        SiamRPN++, section 3.3; STVIR/pysot, ``AdjustLayer``.
    """

    features: int
    crop: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n oh ow o"]:
        """Adjust one level."""
        conv = Conv(
            self.features,
            1,
            use_bias=False,
            kernel_init=torch_kernel_init,
            name="downsample.0",
        )
        # Cut after the normalisation: batch statistics see the whole map.
        x = BatchNorm(name="downsample.1")(conv(x), train)
        if self.crop and x.shape[2] < 20:
            x = central(x, self.crop)
        return x


class Neck(nn.Module):
    """One `AdjustLevel` per level, named as published (``downsample`` alone, else from 2 on)."""

    features: tuple[int, ...]
    crop: int
    align: bool = False

    @nn.compact
    def __call__(self, levels: list[Array], train: bool) -> list[Array]:
        """Adjust every level."""
        if self.align:
            levels = [central(level, levels[-1].shape[2]) for level in levels]
        names = (
            ["downsample"]
            if len(levels) == 1
            else [f"downsample{i + 2}" for i in range(len(levels))]
        )
        return [
            AdjustLevel(features, self.crop, name=name)(x, train)
            for features, name, x in zip(self.features, names, levels)
        ]


class SiamRPN(nn.Module):
    """The whole network; images are BGR, 0..255, not normalised.

    Reference:
        SiamRPN++ (Li et al., 2019), figure 2; STVIR/pysot, ``ModelBuilder``.
    """

    config: NetworkConfig

    def setup(self) -> None:
        """Make backbone, neck (where there is one) and head, named as published."""
        config = self.config
        if config.backbone == "resnet50":
            self.backbone: nn.Module = ResNet50(config.levels, config.frozen_below)
        elif config.backbone == "mobilenetv2":
            self.backbone = MobileNetV2(config.width, config.levels, config.frozen_below)
        else:
            self.backbone = AlexNetRPN(
                config.width,
                config.levels,
                config.channels,
                config.kernels,
                config.padded,
                config.frozen_below,
            )
        if config.neck:
            self.neck = Neck(config.neck, config.neck_crop, config.neck_align)
        if config.fusion == "single":
            self.rpn_head: nn.Module = level_head(
                config.correlation, config.head[0], config.anchors
            )
        else:
            self.rpn_head = FusedHead(
                config.head, config.anchors, config.correlation, config.fusion == "weighted"
            )

    def backbone_levels(self, images: Float[Array, "n h w 3"], train: bool = False) -> list[Array]:
        """Return the backbone's used levels."""
        return self.backbone(images, train)

    def adjust(self, levels: list[Array], train: bool = False) -> list[Array]:
        """Run the neck, where there is one."""
        return self.neck(levels, train) if self.config.neck else levels

    def features(
        self,
        images: Float[Array, "n h w 3"],
        train: bool = False,
        train_backbone: bool | None = None,
    ) -> list[Array]:
        """Turn images into what the head takes (backbone, then neck).

        Args:
            images: ``(n, h, w, 3)`` BGR.
            train: batch statistics in the normalisation.
            train_backbone: the same for the backbone alone (None: as ``train``).
        """
        deep = train if train_backbone is None else train_backbone
        return self.adjust(self.backbone_levels(images, deep), train)

    def kernels(self, templates: list[Array], train: bool = False) -> Kernels:
        """Turn template features into correlation kernels; once per target."""
        made = self.rpn_head.kernels(templates if self._fused else templates[0], train)
        return made if self._fused else (made,)

    def predict(
        self, kernels: Kernels, searches: list[Array], train: bool = False
    ) -> tuple[Array, Array]:
        """Turn kernels and search features into class logits and box deltas.

        Returns:
            ``(n, s, s, 2 a)``: a background logits, then a foreground logits; ``(n, s, s, 4 a)``: a of
            dx, then dy, dw, dh. Both float32.
        """
        inputs = (kernels, searches) if self._fused else (kernels[0], searches[0])
        cls, loc = self.rpn_head.predict(*inputs, train)
        return cls.astype(jnp.float32), loc.astype(jnp.float32)

    def __call__(
        self,
        templates: Float[Array, "n h w 3"],
        searches: Float[Array, "n sh sw 3"],
        train: bool = False,
        train_backbone: bool | None = None,
    ) -> tuple[Array, Array]:
        """Turn a training batch of image pairs into class logits and box deltas (see `predict`)."""
        kernels = self.kernels(self.features(templates, train, train_backbone), train)
        return self.predict(kernels, self.features(searches, train, train_backbone), train)

    @property
    def _fused(self) -> bool:
        return self.config.fusion != "single"
