"""MobileNetV2 with the strides and dilations of SiamRPN++: total stride 8 from the third stage on."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.models.layers import BatchNorm, Conv, keep, shared

# (expansion, channels at width 1, blocks, stride, dilation) of stages 1 to 7.
STAGES = (
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 1),
    (6, 64, 4, 1, 2),
    (6, 96, 3, 1, 2),
    (6, 160, 3, 1, 4),
    (6, 320, 1, 1, 4),
)
STEM = 32


@jax.custom_vjp
@jax.jit
def relu6(x: Array) -> Array:
    """Clip to [0, 6]; no gradient at the ends, as in PyTorch (nor forward mode)."""
    return jax.lax.clamp(jnp.zeros((), x.dtype), x, jnp.asarray(6, x.dtype))


def _relu6_forward(x: Array) -> tuple[Array, Array]:
    # The next layer keeps the result anyway.
    return (y := relu6(x)), y


@jax.jit
def _relu6_backward(y: Array, cotangent: Array) -> tuple[Array]:
    nothing = jnp.zeros_like(y)
    return (jax.lax.select((y > nothing) & (y < 6), cotangent, nothing),)


relu6.defvjp(_relu6_forward, _relu6_backward)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depth-wise, 1x1 projection (linear); the expansion stays even at factor 1.

    Attributes:
        features: output channels.
        stride: of the depth-wise convolution; a strided one has no padding.
        expansion: inner channels per input channel.
        dilation: of the depth-wise convolution.
    """

    features: int
    stride: int
    expansion: int
    dilation: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n oh ow o"]:
        """Apply the block; the input is added where shapes agree."""
        inner = round(x.shape[-1] * self.expansion)
        y = Conv(inner, 1, use_bias=False, name="conv.0")(x)
        y = relu6(BatchNorm(name="conv.1")(y, train))
        y = Conv(
            inner,
            3,
            strides=self.stride,
            padding=self.dilation if self.stride == 1 else 0,
            dilation=self.dilation,
            groups=inner,
            use_bias=False,
            name="conv.3",
        )(y)
        y = relu6(BatchNorm(name="conv.4")(y, train))
        y = Conv(self.features, 1, use_bias=False, name="conv.6")(y)
        y = BatchNorm(name="conv.7")(y, train)
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MobileNetV2(nn.Module):
    """MobileNetV2, stages 4 to 7 dilated instead of strided.

    Attributes:
        width: factor on every width; channel counts are truncated, not rounded to multiples of 8.
        levels: stages (1 to 7) whose outputs are returned, ascending.
        frozen_below: stages before this one (0: the stem) never train (see `SiamRPN`).

    Reference:
        SiamRPN++, section 4.2; STVIR/pysot, ``mobile_v2.py``.
    """

    width: float = 1.4
    levels: tuple[int, ...] = (3, 5, 7)
    frozen_below: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> list[Array]:
        """Images (BGR, 0..255) to the (linear) outputs of ``levels``.

        Args:
            x: ``(n, h, w, 3)``.
            train: batch statistics in the normalisation.
        """
        stem = Conv(int(STEM * self.width), 3, strides=2, use_bias=False, name="layer0.0")
        x = keep(self, "layer0.0", stem(x))
        x = keep(self, "layer0.1", BatchNorm(name="layer0.1")(x, train and self.frozen_below == 0))
        x = keep(self, "layer0.2", relu6(x))
        keep(self, "layer0", x)
        outputs = []
        previous = 1
        for stage, (expansion, channels, count, stride, dilation) in enumerate(STAGES, start=1):
            if stage > max(self.levels):
                break
            trains = train and stage >= self.frozen_below
            if train and stage == self.frozen_below:
                x = jax.lax.stop_gradient(x)
            for i in range(count):
                block = InvertedResidual(
                    int(channels * self.width),
                    stride if i == 0 else 1,
                    expansion,
                    # A stage's first block still has the dilation of the stage before it.
                    previous if i == 0 else dilation,
                    name=f"layer{stage}.{i}",
                )
                x = shared(block, x, train=trains)
                keep(self, f"layer{stage}.{i}", x)
            previous = dilation
            keep(self, f"layer{stage}", x)
            if stage in self.levels:
                outputs.append(x)
        return outputs
