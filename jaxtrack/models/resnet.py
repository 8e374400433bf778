"""ResNet-50 with the strides and dilations of SiamRPN++: total stride 8 from the second stage on."""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxtrack.models.layers import BatchNorm, Conv, keep, max_pool, shared

BLOCKS = (3, 4, 6, 3)
PLANES = (64, 128, 256, 512)
STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut.

    Attributes:
        planes: width of the inner convolutions; the output has four times as many channels.
        stride: of the 3x3 convolution (and of the shortcut).
        dilation: of the stage; the first block of a dilated stage uses half of it.
        shortcut: kernel side of the shortcut's convolution; 0: the input itself.
    """

    planes: int
    stride: int = 1
    dilation: int = 1
    shortcut: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n oh ow o"]:
        """Apply the block; ReLU after the sum."""
        dilation = self.dilation // 2 if self.shortcut and self.dilation > 1 else self.dilation
        # A strided 3x3 has no padding (published: "2 - stride"), so that sides stay 8 n + 7.
        padding = dilation if self.dilation > 1 else 2 - self.stride
        y = Conv(self.planes, 1, use_bias=False, name="conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train))
        y = Conv(
            self.planes,
            3,
            strides=self.stride,
            padding=padding,
            dilation=dilation,
            use_bias=False,
            name="conv2",
        )(y)
        y = nn.relu(BatchNorm(name="bn2")(y, train))
        y = Conv(EXPANSION * self.planes, 1, use_bias=False, name="conv3")(y)
        y = BatchNorm(name="bn3")(y, train)
        if self.shortcut:
            x = Conv(
                EXPANSION * self.planes,
                self.shortcut,
                strides=self.stride,
                padding=padding if self.shortcut > 1 else 0,
                dilation=dilation if self.shortcut > 1 else 1,
                use_bias=False,
                name="downsample.0",
            )(x)
            x = BatchNorm(name="downsample.1")(x, train)
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """ResNet-50, stages 3 and 4 dilated instead of strided; unpadded stem and strided 3x3 shortcuts.

    Attributes:
        levels: stages (1 to 4) whose outputs are returned, ascending.
        frozen_below: stages before this one (0: the stem) never train (see `SiamRPN`).

    Reference:
        SiamRPN++, section 3.3; STVIR/pysot, ``resnet_atrous.py``.
    """

    levels: tuple[int, ...] = (2, 3, 4)
    frozen_below: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> list[Array]:
        """Images (BGR, 0..255) to the outputs of ``levels``.

        Args:
            x: ``(n, h, w, 3)``.
            train: batch statistics in the normalisation.
        """
        x = keep(self, "conv1", Conv(64, 7, strides=2, use_bias=False, name="conv1")(x))
        stem_trains = train and self.frozen_below == 0
        x = keep(self, "bn1", BatchNorm(name="bn1")(x, stem_trains))
        x = keep(self, "relu", nn.relu(x))
        x = keep(self, "maxpool", max_pool(x, 3, 2, padding=1))
        outputs = []
        for stage in range(1, max(self.levels) + 1):
            stride, dilation = STRIDES[stage - 1], DILATIONS[stage - 1]
            trains = train and stage >= self.frozen_below
            if train and stage == self.frozen_below:
                x = jax.lax.stop_gradient(x)
            for i in range(BLOCKS[stage - 1]):
                first = i == 0
                block = Bottleneck(
                    PLANES[stage - 1],
                    stride if first else 1,
                    dilation,
                    # The first stage's shortcut is 1x1; the others are 3x3.
                    shortcut=(1 if stage == 1 else 3) if first else 0,
                    name=f"layer{stage}.{i}",
                )
                x = shared(block, x, train=trains)
                keep(self, f"layer{stage}.{i}", x)
            keep(self, f"layer{stage}", x)
            if stage in self.levels:
                outputs.append(x)
        return outputs
