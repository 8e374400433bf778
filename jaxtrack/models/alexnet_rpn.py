"""AlexNet as SiamRPN and SiamRPN++ use it: batch normalisation, pooling before the ReLU, no groups."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from jaxtrack.models.layers import BatchNorm, Conv, max_pool

CHANNELS = (96, 256, 384, 384, 256)
KERNELS = (11, 5, 3, 3, 3)


class AlexNetRPN(nn.Module):
    """Five unpadded convolutions with bias and batch normalisation; total stride 8.

    Blocks 1 and 2 pool (3x3, stride 2) before their ReLU; the fifth block has none.

    Attributes:
        width: factor on every width, truncated to whole channels.
        levels: blocks whose outputs are returned, ascending.
        channels: widths at factor 1.

    Reference:
        STVIR/pysot, ``alexnet.py``.
    """

    width: float = 1.0
    levels: tuple[int, ...] = (5,)
    channels: tuple[int, ...] = CHANNELS

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> list[Array]:
        """Images (BGR, 0..255) to the outputs of ``levels``.

        Args:
            x: ``(n, h, w, 3)``.
            train: batch statistics in the normalisation.
        """
        outputs = []
        for block in range(1, max(self.levels) + 1):
            stage = f"layer{block}"
            features = int(self.channels[block - 1] * self.width)
            strides = 2 if block == 1 else 1
            conv = Conv(features, KERNELS[block - 1], strides=strides, name=f"{stage}.0")
            x = self._keep(f"{stage}.0", conv(x))
            x = self._keep(f"{stage}.1", BatchNorm(name=f"{stage}.1")(x, train))
            if block <= 2:
                x = self._keep(f"{stage}.2", max_pool(x, 3, 2))
            if block <= 4:
                x = self._keep(f"{stage}.{3 if block <= 2 else 2}", nn.relu(x))
            self._keep(stage, x)
            if block in self.levels:
                outputs.append(x)
        return outputs

    def _keep(self, name: str, x: Array) -> Array:
        """Offer an intermediate map to who asks for the collection ``intermediates``."""
        self.sow("intermediates", f"stage.{name}", x)
        return x
