"""Region proposal heads on correlated features: depth-wise, up-channel and plain; one level or several."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.models.layers import (
    BatchNorm,
    Conv,
    parameter,
    shared,
    torch_init,
    torch_kernel_init,
)
from jaxtrack.ops.correlation import (
    cross_correlation_pairs,
    depthwise_correlation,
    up_channel_correlation,
)

Correlation = Literal["depthwise", "up", "plain"]
Kernels = tuple[tuple[Array, Array], ...]  # per level: class and box branch


class ConvNormRelu(nn.Module):
    """Unpadded 3x3 convolution, batch normalisation, ReLU (children named ``0`` and ``1``)."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n oh ow o"]:
        """Apply the three."""
        x = Conv(self.features, 3, use_bias=False, kernel_init=torch_kernel_init, name="0")(x)
        return nn.relu(BatchNorm(name="1")(x, train))


class Predictor(nn.Module):
    """1x1 convolution, normalisation, ReLU, 1x1 convolution with bias (children ``0``, ``1``, ``3``)."""

    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w o"]:
        """Apply the four."""
        x = Conv(self.hidden, 1, use_bias=False, kernel_init=torch_kernel_init, name="0")(x)
        x = nn.relu(BatchNorm(name="1")(x, train))
        return Conv(
            self.outputs,
            1,
            kernel_init=torch_kernel_init,
            bias_init=torch_init(self.hidden),
            name="3",
        )(x)


class CorrelationBranch(nn.Module):
    """One output (classes or boxes) of one level: depth-wise or plain correlation, then a predictor.

    Reference:
        SiamRPN++, section 3.4; STVIR/pysot, ``DepthwiseXCorr``.
    """

    features: int
    outputs: int
    plain: bool = False

    def setup(self) -> None:
        """Name the parts as published."""
        self.conv_kernel = ConvNormRelu(self.features)
        self.conv_search = ConvNormRelu(self.features)
        self.head = Predictor(self.features, self.outputs)

    def kernel(self, template: Array, train: bool = False) -> Array:
        """Turn template features into the correlation kernel."""
        return shared(self.conv_kernel, template, train=train)

    def predict(self, kernel: Array, search: Array, train: bool = False) -> Array:
        """Correlate the search features with the kernel and predict ``(n, s, s, outputs)``."""
        x = shared(self.conv_search, search, train=train)
        self.sow("intermediates", "stage.kernel", kernel)
        self.sow("intermediates", "stage.search", x)
        if self.plain:
            # The mean keeps the response in the range of one channel's correlation.
            response = cross_correlation_pairs(kernel, x)[..., None] / self.features
        else:
            response = depthwise_correlation(kernel, x)
        self.sow("intermediates", "stage.corr", response)
        out = shared(self.head, response, train=train)
        self.sow("intermediates", "stage.out", out)
        return out


class LevelHead(nn.Module):
    """Classes and boxes of one level."""

    features: int
    anchors: int
    plain: bool = False

    def setup(self) -> None:
        """Make two branches with weights of their own."""
        self.cls = CorrelationBranch(self.features, 2 * self.anchors, self.plain)
        self.loc = CorrelationBranch(self.features, 4 * self.anchors, self.plain)

    def kernels(self, template: Array, train: bool = False) -> tuple[Array, Array]:
        """Return the kernels of both branches."""
        return self.cls.kernel(template, train), self.loc.kernel(template, train)

    def predict(
        self, kernels: tuple[Array, Array], search: Array, train: bool = False
    ) -> tuple[Array, Array]:
        """Return ``(n, s, s, 2 a)`` class logits and ``(n, s, s, 4 a)`` box deltas."""
        return (
            self.cls.predict(kernels[0], search, train),
            self.loc.predict(kernels[1], search, train),
        )


class UpChannelHead(nn.Module):
    """Classes and boxes of one level by up-channel correlation: the template makes every output's kernel.

    Reference:
        SiamRPN, section 3.2; STVIR/pysot, ``UPChannelRPN``.
    """

    features: int
    anchors: int

    def setup(self) -> None:
        """Name the parts as published."""

        def conv(features: int) -> Conv:
            fan_in = 9 * self.features
            return Conv(features, 3, kernel_init=torch_kernel_init, bias_init=torch_init(fan_in))

        self.template_cls_conv = conv(2 * self.anchors * self.features)
        self.template_loc_conv = conv(4 * self.anchors * self.features)
        self.search_cls_conv = conv(self.features)
        self.search_loc_conv = conv(self.features)
        self.loc_adjust = Conv(
            4 * self.anchors,
            1,
            kernel_init=torch_kernel_init,
            bias_init=torch_init(4 * self.anchors),
        )

    def kernels(self, template: Array, train: bool = False) -> tuple[Array, Array]:
        """Return the kernels of both branches, ``(n, h, w, outputs * features)``."""
        return self.template_cls_conv(template), self.template_loc_conv(template)

    def predict(
        self, kernels: tuple[Array, Array], search: Array, train: bool = False
    ) -> tuple[Array, Array]:
        """Return ``(n, s, s, 2 a)`` class logits and ``(n, s, s, 4 a)`` box deltas."""
        features = self.search_cls_conv(search)
        self.sow("intermediates", "stage.cls_feature", features)
        cls = up_channel_correlation(kernels[0], features)
        loc = up_channel_correlation(kernels[1], self.search_loc_conv(search))
        self.sow("intermediates", "stage.loc_before_adjust", loc)
        return cls, self.loc_adjust(loc)


class FusedHead(nn.Module):
    """One head per level (named from ``rpn2`` on), averaged with equal or learned weights.

    Reference:
        SiamRPN++, section 3.3, equations 3 and 4; STVIR/pysot, ``MultiRPN``.
    """

    features: tuple[int, ...]
    anchors: int
    correlation: Correlation
    weighted: bool

    def setup(self) -> None:
        """Make a head per level, and the two weight vectors."""
        for i, features in enumerate(self.features):
            setattr(self, f"rpn{i + 2}", level_head(self.correlation, features, self.anchors))
        if self.weighted:
            shape = (len(self.features),)
            self.cls_weight = parameter(self, "cls_weight", nn.initializers.ones, shape)
            self.loc_weight = parameter(self, "loc_weight", nn.initializers.ones, shape)

    def kernels(self, templates: list[Array], train: bool = False) -> Kernels:
        """Return the kernels of both branches, level by level."""
        return tuple(head.kernels(z, train) for head, z in zip(self._heads(), templates))

    def predict(
        self, kernels: Kernels, searches: list[Array], train: bool = False
    ) -> tuple[Array, Array]:
        """Return fused ``(n, s, s, 2 a)`` class logits and ``(n, s, s, 4 a)`` box deltas."""
        outputs = [
            head.predict(k, x, train) for head, k, x in zip(self._heads(), kernels, searches)
        ]
        cls = jnp.stack([output[0] for output in outputs])
        loc = jnp.stack([output[1] for output in outputs])
        if not self.weighted:
            return jnp.mean(cls, axis=0), jnp.mean(loc, axis=0)
        return _weigh(self.cls_weight, cls), _weigh(self.loc_weight, loc)

    def _heads(self) -> list[Any]:
        return [getattr(self, f"rpn{i + 2}") for i in range(len(self.features))]


_shares = jax.jit(nn.softmax)


@jax.jit
def _weigh(weight: Array, maps: Array) -> Array:
    share = _shares(weight).astype(maps.dtype)
    return jnp.sum(share[:, None, None, None, None] * maps, axis=0)


def level_head(correlation: Correlation, features: int, anchors: int) -> LevelHead | UpChannelHead:
    """Return the head of one level for a kind of correlation."""
    if correlation == "up":
        return UpChannelHead(features, anchors)
    return LevelHead(features, anchors, plain=correlation == "plain")
