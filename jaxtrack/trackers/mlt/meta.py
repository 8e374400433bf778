"""MLT's meta-learner: from the gradient of the last layer to new kernels and channel attention.

What the reachable texts leave open is a field of `MetaConfig` or stated here: rectified linear units between
the layers; attention is a second output of the last hidden layer; how both outputs begin (see
`MetaLearner`).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtrack.models.layers import parameter
from jaxtrack.ops import precision
from jaxtrack.ranges import Count, PositiveShare, Whole, check_ranges

# Initial scales of what delta adds to the new kernels, and of their bias.
_START, _BIAS = 0.05, 1.0


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """Size and reading of the meta-learner.

    Attributes:
        hidden: units of the two hidden layers (512 in the description).
        target_kernels: new kernels for the last layer (32 in the description); 0: none.
        attention: give an attention weight per channel of the adapted layer, old and new.
        keep: share of the hidden units that dropout keeps in training (0.7 in the description).
        per_row: open in the description: False: the gradient is one long vector (25 million weights at
            full size). True: the same three layers read each input channel's row of the gradient, and
            give that channel's row of the new kernels; the attention reads the mean over the rows.
    """

    hidden: Count = 512
    target_kernels: Whole = 32
    attention: bool = True
    keep: PositiveShare = 0.7
    per_row: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)


class MetaOutput(NamedTuple):
    """What the meta-learner makes of a gradient.

    Attributes:
        kernel: ``(kh, kw, i, target_kernels)`` new kernels; the last axis is empty without them.
        attention: ``(o + target_kernels,)`` in (0, 2); ones where attention is off.
    """

    kernel: Float[Array, "kh kw i t"]
    attention: Float[Array, "c"]


class MetaLearner(nn.Module):
    """Three fully connected layers: ``w_target, attention = g(delta)``.

    The new kernels are a bias of their own plus a linear image of delta, divided by the root of their
    fan-in. The bias is needed: the kernels act on template and search alike, so the response is quadratic
    in them, and a sum without a constant term would be the same for delta and for -delta and have no slope
    at zero. It starts at the size of the base kernels, and what delta adds at a twentieth of it (both
    chosen by experiment, see ``eval/RESULTS.md``). The attention is twice the sigmoid of an output that
    starts at zero: at first every channel keeps its weight.

    Reference:
        MLT (Choi, Kwon and Lee, Deep Meta Learning for Real-Time Target-Aware Visual Tracking, 2019),
        section 3.2, as far as it is described: equation 3 and the attention.
    """

    config: MetaConfig = MetaConfig()

    @nn.compact
    def __call__(self, delta: Float[Array, "kh kw i o"], train: bool = False) -> MetaOutput:
        """Run one forward pass.

        Args:
            delta: negative gradient of the loss with respect to the last layer's kernel.
            train: dropout (needs the random stream ``dropout``).
        """
        config = self.config
        kh, kw, channels, features = delta.shape
        new = config.target_kernels
        dense = partial(nn.Dense, precision=precision.of(delta.dtype))
        rows = delta.reshape(-1, features) if config.per_row else delta.reshape(1, -1)
        x = rows
        for i in (1, 2):
            x = nn.relu(dense(config.hidden, name=f"fc{i}")(x))
            x = nn.Dropout(1 - config.keep, deterministic=not train)(x)
        kernel = jnp.zeros((kh, kw, channels, 0), delta.dtype)
        if new:
            width = new if config.per_row else kh * kw * channels * new
            small = nn.initializers.variance_scaling(_START**2, "fan_in", "truncated_normal")
            kernel = dense(width, kernel_init=small, use_bias=False, name="fc3")(x)
            shape = (kh, kw, channels, new)
            bias = parameter(self, "fc3_bias", nn.initializers.normal(_BIAS), shape)
            kernel = kernel.reshape(shape) + bias
            kernel = kernel / np.sqrt(kh * kw * channels).astype(delta.dtype)
        attention = jnp.ones((features + new,), delta.dtype)
        if config.attention:
            zero = nn.initializers.zeros
            logits = dense(features + new, kernel_init=zero, name="attention")(jnp.mean(x, axis=0))
            attention = 2 * nn.sigmoid(logits)
        return MetaOutput(kernel, attention)
