"""The convolutional trunk of VGG-16, up to conv4_3, as TADT uses it."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrack.models.layers import max_pool, parameter
from jaxtrack.ops.conv import conv2d_xla
from jaxtrack.ops.precision import compute_dtype

# (layer, features, published number in torchvision's ``features``); None: a 2x2 pool. The third pool of
# VGG-16 is left out here (see `VGG16`), but the numbering counts it.
LAYERS: tuple[tuple[str, int, int] | None, ...] = (
    ("conv1_1", 64, 0),
    ("conv1_2", 64, 2),
    None,
    ("conv2_1", 128, 5),
    ("conv2_2", 128, 7),
    None,
    ("conv3_1", 256, 10),
    ("conv3_2", 256, 12),
    ("conv3_3", 256, 14),
    ("conv4_1", 512, 17),
    ("conv4_2", 512, 19),
    ("conv4_3", 512, 21),
)
CHANNELS = {row[0]: row[1] for row in LAYERS if row is not None}
# Place of each convolution in torchvision's ``features``, where ReLUs and pools count as well.
NUMBERS = {row[0]: row[2] for row in LAYERS if row is not None}


@dataclasses.dataclass(frozen=True)
class VGGConfig:
    """The trunk as a value.

    Attributes:
        until: the last layer that is run.
    """

    until: str = "conv4_3"

    @property
    def stride(self) -> int:
        """Total stride, input pixels per feature cell."""
        return 4

    @property
    def margin(self) -> int:
        """Input pixels lost at the borders, both sides together: none, every layer pads."""
        return 0


def inside(side: int, size: Int[Array, ""]) -> Float[Array, "side side"]:
    """1 on the cells of the top-left square of ``size`` cells, 0 beyond; float32."""
    line = (jnp.arange(side) < size).astype(jnp.float32)
    return line[:, None] * line[None, :]


class Conv3x3(nn.Module):
    """3x3 convolution with one zero of padding and a bias, always by XLA's own formulation.

    On a CPU that is the fastest for one undilated image at each of VGG's shapes: 93 ms of processor time
    for 45x45x512 under 3x3x512, where products by rows take 137 and by patches 144.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w o"]:
        """Convolve; same height and width."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = parameter(self, "kernel", nn.initializers.he_normal(), shape)
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        dtype = compute_dtype(x.dtype)
        y = conv2d_xla(x.astype(dtype), kernel.astype(dtype), padding=((1, 1), (1, 1)))
        return y.astype(x.dtype) + bias[None, None, None, :]


class VGG16(nn.Module):
    """VGG-16's convolutions conv1_1 to conv4_3, pooled twice only: ``(n, h, w, 3)`` to stride 4.

    The pools after conv3_3 and conv4_3 are left out, so that conv4 sees a finer grid than it was trained
    on. All kernels are 3x3 with one zero of padding, and a ReLU follows each.

    Reference:
        VGG (Simonyan and Zisserman), configuration D; TADT, section 4.1; XinLi-zn/TADT.
    """

    config: VGGConfig = VGGConfig()

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w 3"], size: Int[Array, ""] | None = None
    ) -> dict[str, Array]:
        """Run the trunk.

        Args:
            x: RGB images, 0..255 minus the mean that the weights were trained with (TADT: 128).
            size: ``()`` true side of a square picture in the top-left corner of ``x``, a multiple of 4;
                what lies beyond is treated as padding after every layer, so that a smaller picture gives
                what it would give alone. None: the whole input is picture.

        Returns:
            ``{layer: features after the ReLU}``, pools (``pool1``, ``pool2``) included, in running order.
        """
        outputs: dict[str, Array] = {}
        pools = 0

        def mask(y: Array, stride: int) -> Array:
            return y if size is None else y * inside(y.shape[1], size // stride)[None, :, :, None]

        x = mask(x, 1)
        for row in LAYERS:
            if row is None:
                pools += 1
                x = max_pool(x, 2, 2)
                outputs[f"pool{pools}"] = x
                continue
            name, features, number = row
            x = nn.relu(Conv3x3(features, name=f"features.{number}")(x))
            x = mask(x, 2**pools)
            outputs[name] = x
            if name == self.config.until:
                break
        return outputs
