"""The centre head of OSTrack: a score, a size and an offset per cell of the search region."""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.models.layers import BatchNorm, Conv, torch_init
from jaxtrack.trackers.ostrack.config import Config

_XAVIER = nn.initializers.xavier_uniform()
_LOWEST = 1e-4  # of the clamp after the sigmoid


class CentreMaps(NamedTuple):
    """Output of `CentreHead`, per cell ``[row, column]``.

    Attributes:
        score: ``(b, s, s)`` in [1e-4, 1 - 1e-4]: the target's centre lies here.
        size: ``(b, s, s, 2)`` width and height as fractions of the crop, in the same range.
        offset: ``(b, s, s, 2)`` x and y of the centre inside the cell, in cells, unbounded.
    """

    score: Float[Array, "b s s"]
    size: Float[Array, "b s s 2"]
    offset: Float[Array, "b s s 2"]


def bounded_sigmoid(logits: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the sigmoid clamped to [1e-4, 1 - 1e-4]; no gradient beyond."""
    return jnp.clip(jax.nn.sigmoid(logits), _LOWEST, 1 - _LOWEST)


class CentreHead(nn.Module):
    """Three branches of four 3x3 convolutions (batch normalisation, ReLU) and a 1x1 convolution.

    The first convolution has ``head_channels``, each further one half of them.

    Attributes:
        config: the tracker's settings.

    Reference:
        OSTrack, section 3.4.
    """

    config: Config

    @nn.compact
    def __call__(self, features: Float[Array, "b s s c"], train: bool) -> CentreMaps:
        """Make maps from the search tokens laid out on their grid.

        Args:
            features: ``(b, s, s, c)``.
            train: batch normalisation by the batch's statistics.
        """
        config, prior = self.config, self.config.head_prior
        logits = {}
        for branch, outputs in (("ctr", 1), ("offset", 2), ("size", 2)):
            x = features.astype(config.dtype)
            for stage in range(4):
                fan_in = 9 * x.shape[-1]
                x = Conv(
                    config.head_channels >> stage,
                    3,
                    padding=1,
                    kernel_init=_XAVIER,
                    bias_init=torch_init(fan_in),
                    name=f"conv{stage + 1}_{branch}.0",
                )(x)
                norm = BatchNorm(
                    epsilon=config.batch_norm_epsilon, name=f"conv{stage + 1}_{branch}.1"
                )
                x = nn.relu(norm(x, train))
                self.sow("intermediates", f"{branch}{stage + 1}", x)
            bias_init: nn.initializers.Initializer = torch_init(x.shape[-1])
            if branch == "ctr" and prior:
                bias_init = nn.initializers.constant(math.log(prior / (1 - prior)))
            logits[branch] = Conv(
                outputs,
                1,
                kernel_init=_XAVIER,
                bias_init=bias_init,
                name=f"conv5_{branch}",
            )(x).astype(jnp.float32)
            self.sow("intermediates", f"{branch}_logits", logits[branch])
        score = bounded_sigmoid(logits["ctr"][..., 0])
        return CentreMaps(score, bounded_sigmoid(logits["size"]), logits["offset"])
