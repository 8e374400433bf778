"""From images to tokens, and how a vision transformer's parameters begin."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtrack.models.layers import Conv

EMBEDDING = nn.initializers.normal(0.02)  # timm cuts at +-2, a hundred deviations: a plain normal


def highest(dtype: Any) -> jax.lax.Precision | None:
    """Real float32 products where float32 is asked for (accelerators round them by default)."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default of convolutions and their biases: ``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``."""
    bound = fan_in**-0.5

    def draw(key: Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def similarity_qkv(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
    """Kernel of a fused qkv layer whose keys equal its queries: attention starts as likeness of content.

    Without pre-training a small model must first learn that like attends to like, which is most of what
    matching a template is; here it begins there.

    Reference:
        The idea is that of Trockman and Kolter, Mimetic Initialization of Self-Attention Layers, 2023.
    """
    key_query, key_value = jax.random.split(key)
    width = shape[0]
    query = jax.random.normal(key_query, (width, width), dtype) * width**-0.5
    value = jax.random.normal(key_value, (width, width), dtype) * width**-0.5
    return jnp.concatenate([query, query, value], axis=1)


def wave_positions(grid: int, width: int, segment: float) -> Any:
    """Initial position embedding of sines and cosines, and a constant that tells template from search.

    Args:
        grid: side of the token grid; positions count from its centre, so that template and search
            tokens with the same offset from their centre begin alike.
        width: channels; a multiple of 4.
        segment: factor on a constant random direction, the same for every call.

    Returns:
        An initialiser of shape ``(1, grid * grid, width)``.
    """
    offset = np.arange(grid) - (grid - 1) / 2
    rates = np.pi / 2 * 16.0 ** -np.linspace(0, 1, width // 4)
    waves = np.concatenate(
        [np.sin(offset[:, None] * rates), np.cos(offset[:, None] * rates)], axis=1
    )
    rows = np.repeat(waves[:, None], grid, axis=1)
    columns = np.repeat(waves[None], grid, axis=0)
    table = np.concatenate([rows, columns], axis=-1).reshape(1, grid * grid, width)
    direction = np.random.RandomState(0).randn(width)
    table = 0.3 * (table + segment * direction)

    def draw(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        return jnp.asarray(table, dtype).reshape(shape)

    return draw


class ConvStem(nn.Module):
    """Tokens of an image by overlapping convolutions of stride 2 instead of one patch product.

    A few convolutions learn edges and textures within minutes, where a patch product needs long training
    (Xiao et al., Early Convolutions Help Transformers See Better, 2021).

    Attributes:
        channels: of each 3x3 convolution; layer norm and GELU follow.
        features: channels of a token.
        epsilon: of the layer norms.
        dtype: of the computation.
    """

    channels: tuple[int, ...]
    features: int
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "b h w k"]) -> Float[Array, "b n c"]:
        """``(b, h, w, k)`` to ``(b, n, c)``, row-major."""
        x = image.astype(self.dtype)
        for i, channels in enumerate(self.channels):
            x = Conv(channels, 3, strides=2, padding=1, name=f"stem.{i}.0")(x)
            x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=f"stem.{i}.1")(x)
            x = nn.gelu(x, approximate=False)
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        tokens = nn.Dense(
            self.features, dtype=self.dtype, precision=highest(self.dtype), name="proj"
        )(tokens)
        return tokens.astype(jnp.float32)


class PatchEmbed(nn.Module):
    """Tokens of an image: a convolution whose stride is its kernel, as one matrix product.

    Attributes:
        features: channels of a token.
        patch: side of a patch in pixels.
        dtype: of the computation.
    """

    features: int
    patch: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "b h w k"]) -> Float[Array, "b n c"]:
        """``(b, h, w, k)`` to ``(b, (h / patch) * (w / patch), c)``, row-major."""
        batch, height, width, channels = image.shape
        p = self.patch
        fan_in = p * p * channels
        shape = (p, p, channels, self.features)
        kernel = self.param("kernel", uniform_fan_in(fan_in), shape, jnp.float32)
        bias = self.param("bias", uniform_fan_in(fan_in), (self.features,), jnp.float32)
        patches = image.reshape(batch, height // p, p, width // p, p, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, fan_in)
        flat = kernel.reshape(fan_in, self.features).astype(self.dtype)
        tokens = jnp.dot(patches.astype(self.dtype), flat, precision=highest(self.dtype))
        return tokens.astype(jnp.float32) + bias[None, None, :]
