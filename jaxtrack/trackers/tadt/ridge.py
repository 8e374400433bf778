"""TADT's ridge branch: regression of the features to a Gaussian label.

All maps lie in the top-left corner of a static canvas and are zero beyond their true side; kernels lie
centred in a canvas. So everything runs on traced sizes, in one compiled program.

The ridge branch is trained in the dual. Every iterate of gradient descent from ``w0`` is
``c * w0 + X^T a``, with one coefficient per map cell in ``a`` (``X`` holds a window of features in each
row), so a step costs one product with the ``cells x cells`` matrix ``X X^T`` instead of two convolutions
over all channels. It is the same iteration, up to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxtrack.ranges import BelowOne, NotNegative, Whole
from jaxtrack.trackers.tadt.correlation import correlate_same, correlate_same_kernel_gradient
from jaxtrack.trackers.tadt.losses import ridge_loss


class Descent(NamedTuple):
    """Gradient descent of the ridge branch (hashable, part of a config).

    Attributes:
        steps: number of full-batch steps.
        rate: learning rate.
        momentum: without dampening, not Nesterov's.
        weight_decay: times the weights, added to the gradient (bias included).
        bounded: the ridge branch lowers the rate where the features are so strong that the descent would
            diverge. The published code does not look.
    """

    steps: Whole = 100
    rate: NotNegative = 1e-9
    momentum: BelowOne = 0.9
    weight_decay: NotNegative = 1000.0
    bounded: bool = False


class Ridge(NamedTuple):
    """A trained ridge branch.

    Attributes:
        kernel: ``(kh, kw, c)`` canvas.
        bias: ``()``.
        losses: ``(steps,)`` before each step.
        prediction: ``(h, w)`` after the last step.
        first_prediction: ``(h, w)`` before the first.
    """

    kernel: Float[Array, "kh kw c"]
    bias: Float[Array, ""]
    losses: Float[Array, "steps"]
    prediction: Float[Array, "h w"]
    first_prediction: Float[Array, "h w"]


def square(side: int, size: Int[Array, ""] | int, dtype: jnp.dtype) -> Float[Array, "side side"]:
    """Return 1 on the top-left square of ``size`` cells, 0 on the rest of the canvas."""
    line = (jnp.arange(side) < size).astype(dtype)
    return line[:, None] * line[None, :]


def centred_mask(
    canvas: tuple[int, int], size: Int[Array, "2"], dtype: jnp.dtype
) -> Float[Array, "kh kw"]:
    """Return 1 on the centred block of an odd ``size`` (rows, columns) of an odd canvas, else 0."""
    rows = jnp.abs(jnp.arange(canvas[0]) - canvas[0] // 2) <= size[0] // 2
    columns = jnp.abs(jnp.arange(canvas[1]) - canvas[1] // 2) <= size[1] // 2
    return (rows[:, None] & columns[None, :]).astype(dtype)


def gaussian_label(
    side: int, map_size: Int[Array, ""] | int, sigma: Float[Array, "2"], alpha: float
) -> Float[Array, "side side"]:
    """Return ``exp(-alpha * ((dy / sy)^2 + (dx / sx)^2))`` about the map's middle, zero beyond the map.

    Args:
        side: side of the canvas.
        map_size: true side of the map.
        sigma: ``(2,)`` widths along rows and columns, in cells.
        alpha: factor of the exponent.

    Reference:
        TADT, section 3.2; ZikunZhou/TADT-python (alpha 0.2, sigma 0.1 of the template's side).
    """
    middle = (jnp.asarray(map_size) - 1).astype(sigma.dtype) / 2
    offset = jnp.arange(side).astype(sigma.dtype) - middle
    squares = jnp.square(offset[None, :] / sigma[:, None])
    label = jnp.exp(-alpha * (squares[0][:, None] + squares[1][None, :]))
    return label * square(side, map_size, label.dtype)


def _window_sums(blocks: Float[Array, "p p m"], half: Int[Array, ""]) -> Float[Array, "p p m"]:
    """Return ``out[p, q] = sum over |d| <= half of blocks[p + d, q + d]`` (zero beyond the border)."""
    size = blocks.shape[0]

    def add(previous: Array, row: Array) -> tuple[Array, Array]:
        shifted = jnp.concatenate([jnp.zeros_like(previous[:1]), previous[:-1]])
        running = row + shifted
        return running, running

    _, running = lax.scan(add, jnp.zeros_like(blocks[0]), blocks)
    p, q = jnp.arange(size)[:, None], jnp.arange(size)[None, :]
    ahead = jnp.minimum(half, size - 1 - jnp.maximum(p, q))
    behind = half + 1
    flat = running.reshape(size * size, -1)
    upper = flat[(p + ahead) * size + q + ahead]
    lower_exists = jnp.minimum(p, q) >= behind
    lower = flat[jnp.where(lower_exists, (p - behind) * size + q - behind, 0)]
    return upper - jnp.where(lower_exists[..., None], lower, 0)


def window_products(
    features: Float[Array, "h w c"], kernel_size: Int[Array, "2"]
) -> Float[Array, "hw hw"]:
    """Return inner products of the kernel-sized windows around every two cells: ``X X^T``.

    Args:
        features: canvas, zero beyond the map.
        kernel_size: ``(2,)`` odd rows and columns.
    """
    h, w, c = features.shape
    half = kernel_size // 2
    flat = features.transpose(1, 0, 2).reshape(w * h, c)
    cells = jnp.einsum("ac,bc->ab", flat, flat, precision="highest")
    # [x, y, x', y'] -> sums along x and x' together, then along y and y'.
    along_x = cells.reshape(w, h, w, h).transpose(0, 2, 1, 3).reshape(w, w, h * h)
    summed = _window_sums(along_x, half[1])
    along_y = summed.reshape(w * w, h * h).T.reshape(h, h, w * w)
    total = _window_sums(along_y, half[0]).reshape(h, h, w, w)
    return total.transpose(0, 2, 1, 3).reshape(h * w, h * w)


def train_ridge(
    features: Float[Array, "h w c"],
    label: Float[Array, "h w"],
    kernel: Float[Array, "kh kw c"],
    kernel_size: Int[Array, "2"],
    map_size: Int[Array, ""] | int,
    descent: Descent,
) -> Ridge:
    """Regress the label from the features by one convolution, with plain gradient descent.

    Args:
        features: canvas of one map, zero beyond ``map_size``.
        label: canvas of the Gaussian label.
        kernel: canvas of the initial kernel.
        kernel_size: ``(2,)`` odd rows and columns of the kernel.
        map_size: true side of the map.
        descent: steps, rate, momentum, weight decay (static).

    Returns:
        The trained branch.

    Reference:
        TADT, equation 3; the optimiser: ZikunZhou/TADT-python.
    """
    h, w, _ = features.shape
    dtype = features.dtype
    inside = square(h, map_size, dtype)
    count = jnp.sum(inside)
    products = window_products(features, kernel_size)
    half_rows = kernel_size[0] // 2
    start = correlate_same(features[None], kernel, half_rows)[0] * inside
    rate: Array | float = descent.rate
    if descent.bounded:
        # The largest row sum bounds the largest eigenvalue; with momentum, twice this rate is still safe.
        strongest = jnp.max(jnp.sum(jnp.abs(products), axis=1))
        rate = jnp.minimum(descent.rate, count / jnp.maximum(strongest, 1e-30))

    def predict(scale: Array, dual: Array, bias: Array) -> Array:
        by_dual = jnp.einsum("ab,b->a", products, dual, precision="highest").reshape(h, w)
        return (scale * start + by_dual + bias) * inside

    def step(carry: tuple, _: None) -> tuple[tuple, Array]:
        weights, speeds = carry
        scale, dual, bias = weights
        error = predict(scale, dual, bias) - label * inside
        loss = jnp.sum(jnp.square(error)) / count
        slope = 2 * error / count
        gradients = (jnp.zeros_like(scale), slope.reshape(-1), jnp.sum(slope))
        speeds = jax.tree.map(
            lambda v, g, x: descent.momentum * v + g + descent.weight_decay * x,
            speeds, gradients, weights,
        )  # fmt: skip
        weights = jax.tree.map(lambda x, v: x - rate * v, weights, speeds)
        return (weights, speeds), loss

    weights = (jnp.ones((), dtype), jnp.zeros(h * w, dtype), jnp.zeros((), dtype))
    speeds = jax.tree.map(jnp.zeros_like, weights)
    (weights, _), losses = lax.scan(step, (weights, speeds), None, length=descent.steps)
    scale, dual, bias = weights
    canvas = (kernel.shape[0], kernel.shape[1])
    trained = correlate_same_kernel_gradient(
        features[None], dual.reshape(1, h, w), canvas, half_rows
    )
    mask = centred_mask(canvas, kernel_size, dtype)
    return Ridge(
        kernel=scale * kernel + trained * mask[:, :, None],
        bias=bias,
        losses=losses,
        prediction=predict(scale, dual, bias),
        first_prediction=start,
    )


def ridge_feature_gradient(
    features: Float[Array, "h w c"],
    kernel: Float[Array, "kh kw c"],
    bias: Float[Array, ""],
    label: Float[Array, "h w"],
    kernel_size: Int[Array, "2"],
    map_size: Int[Array, ""] | int,
) -> Float[Array, "h w c"]:
    """Return the true gradient of the ridge loss with respect to the features, by `jax.grad`.

    Reference:
        TADT, equation 4.
    """
    inside = square(features.shape[0], map_size, features.dtype)

    def loss(x: Array) -> Array:
        prediction = correlate_same(x[None], kernel, kernel_size[0] // 2)[0] + bias
        return ridge_loss(prediction, label, inside)

    return jax.grad(loss)(features) * inside[:, :, None]
