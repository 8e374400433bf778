"""AlexNet as SiamRPN and SiamRPN++ use it: batch normalisation, pooling before the ReLU, no groups.

It lies here and not with `jaxtrack.models.alexnet`, the embedding that SiamFC, MLT and TADT share: no other
tracker uses it, and beside five convolutions the two have neither order of layers nor names in common.
"""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxtrack.models.layers import BatchNorm, Conv, keep, max_pool

CHANNELS = (96, 256, 384, 384, 256)
KERNELS = (11, 5, 3, 3, 3)


class AlexNetRPN(nn.Module):
    """Five convolutions with bias and batch normalisation; total stride 8; as published unpadded.

    Blocks 1 and 2 pool (3x3, stride 2) before their ReLU; the fifth block has none.

    Attributes:
        width: factor on every width, truncated to whole channels.
        levels: blocks whose outputs are returned, ascending.
        channels: widths at factor 1.
        kernels: sides of the kernels.
        padded: zeros around every block's input but the first's, so that sides are those of the
            ResNet (127 -> 15, 255 -> 31) and deep features know the border.
        frozen_below: blocks before this one never train (see `SiamRPN`).

    Reference:
        STVIR/pysot, ``alexnet.py``.
    """

    width: float = 1.0
    levels: tuple[int, ...] = (5,)
    channels: tuple[int, ...] = CHANNELS
    kernels: tuple[int, ...] = KERNELS
    padded: bool = False
    frozen_below: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> list[Array]:
        """Turn images (BGR, 0..255) into the outputs of ``levels``.

        Args:
            x: ``(n, h, w, 3)``.
            train: batch statistics in the normalisation.
        """
        outputs = []
        for block in range(1, max(self.levels) + 1):
            stage = f"layer{block}"
            features = int(self.channels[block - 1] * self.width)
            strides = 2 if block == 1 else 1
            kernel = self.kernels[block - 1]
            padding = kernel // 2 if self.padded and block > 1 else 0
            if train and block == self.frozen_below:
                x = jax.lax.stop_gradient(x)
            conv = Conv(features, kernel, strides, padding, name=f"{stage}.0")
            x = keep(self, f"{stage}.0", conv(x))
            norm = BatchNorm(name=f"{stage}.1")
            x = keep(self, f"{stage}.1", norm(x, train and block >= self.frozen_below))
            if block <= 2:
                x = keep(self, f"{stage}.2", max_pool(x, 3, 2, padding=int(self.padded)))
            if block <= 4:
                x = keep(self, f"{stage}.{3 if block <= 2 else 2}", nn.relu(x))
            keep(self, stage, x)
            if block in self.levels:
                outputs.append(x)
        return outputs
