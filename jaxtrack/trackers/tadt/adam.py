"""The ridge branch as the Matlab code trains it: Adam on a weighted error with a dead zone."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxtrack.ranges import BelowOne, NotNegative, Positive, Whole
from jaxtrack.trackers.tadt.correlation import correlate_same, correlate_same_kernel_gradient
from jaxtrack.trackers.tadt.ridge import Ridge, centred_mask, square


class AdamDescent(NamedTuple):
    """Adam (hashable, part of a config).

    Attributes:
        steps: greatest number of full-batch steps.
        rate: learning rate of the kernel.
        bias_rate: learning rate of the bias.
        weight_decay: times the weights, added to the gradient.
        dead_zone: errors smaller than this count as none.
        enough: training stops once the summed weighted squared error is below this.
        first_decay, second_decay, epsilon: Adam's own.
    """

    steps: Whole = 100
    rate: NotNegative = 5e-7
    bias_rate: NotNegative = 1e-6
    weight_decay: NotNegative = 1000.0
    dead_zone: NotNegative = 0.1
    enough: NotNegative = 0.02
    first_decay: BelowOne = 0.9
    second_decay: BelowOne = 0.999
    epsilon: Positive = 1e-8


def train_ridge_adam(
    features: Float[Array, "h w c"],
    label: Float[Array, "h w"],
    kernel: Float[Array, "kh kw c"],
    kernel_size: Int[Array, "2"],
    map_size: Int[Array, ""] | int,
    descent: AdamDescent,
) -> Ridge:
    """Regress the label as `ridge.train_ridge` does, by Adam.

    Adam treats every weight on its own, so the kernel itself is trained and not its dual.

    Returns:
        The trained branch; ``losses`` are the weighted squared errors that the stop looks at.

    Reference:
        XinLi-zn/TADT: the derivative is ``2 / n * exp(label) * error``, the loss
        ``sum((exp(label) * error)^2)``; both with errors below the dead zone set to zero.
    """
    dtype = features.dtype
    inside = square(features.shape[0], map_size, dtype)
    count, half_rows = jnp.sum(inside), kernel_size[0] // 2
    canvas = (kernel.shape[0], kernel.shape[1])
    mask = centred_mask(canvas, kernel_size, dtype)[:, :, None]
    rates = (descent.rate, descent.bias_rate)

    def predict(weights: tuple[Array, Array]) -> Array:
        return (correlate_same(features[None], weights[0], half_rows)[0] + weights[1]) * inside

    def step(carry: tuple, number: Array) -> tuple[tuple, Array]:
        weights, first, second, stopped = carry
        error = predict(weights) - label * inside
        error = jnp.where(jnp.abs(error) < descent.dead_zone, 0, error)
        weighted = jnp.exp(label) * error
        loss = jnp.sum(jnp.square(weighted))
        stopped = stopped | (loss < descent.enough)
        slope = 2 * weighted / count
        by_kernel = correlate_same_kernel_gradient(features[None], slope[None], canvas, half_rows)
        gradients = jax.tree.map(
            lambda g, x: g + descent.weight_decay * x, (by_kernel * mask, jnp.sum(slope)), weights
        )
        new_first = jax.tree.map(
            lambda m, g: descent.first_decay * m + (1 - descent.first_decay) * g, first, gradients
        )
        new_second = jax.tree.map(
            lambda v, g: descent.second_decay * v + (1 - descent.second_decay) * g * g,
            second,
            gradients,
        )
        time = number.astype(dtype) + 1
        correction = jnp.sqrt(1 - descent.second_decay**time) / (1 - descent.first_decay**time)
        moved = tuple(
            x - rate * correction * m / (jnp.sqrt(v) + descent.epsilon)
            for x, rate, m, v in zip(weights, rates, new_first, new_second)
        )
        keep = (weights, first, second)
        now = jax.tree.map(
            lambda old, new: jnp.where(stopped, old, new), keep, (moved, new_first, new_second)
        )
        return (*now, stopped), loss

    weights = (kernel, jnp.zeros((), dtype))
    nothing = jax.tree.map(jnp.zeros_like, weights)
    start = (weights, nothing, nothing, jnp.zeros((), bool))
    (trained, _, _, _), losses = lax.scan(step, start, jnp.arange(descent.steps))
    return Ridge(
        kernel=trained[0],
        bias=trained[1],
        losses=losses,
        prediction=predict(trained),
        first_prediction=predict(weights),
    )
