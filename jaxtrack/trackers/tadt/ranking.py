"""TADT's ranking branch: samples of the target at many scales, in order.

Maps lie in the top-left corner of a canvas, kernels centred in one, as in `ridge`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxtrack.trackers.tadt.losses import ranking_loss, ranking_pairs
from jaxtrack.trackers.tadt.ridge import Descent, centred_mask


class Samples(NamedTuple):
    """The scaled samples of the ranking branch.

    Attributes:
        number: ``()`` int number of samples; 0 where the kernel is larger than the map.
        sizes: ``(n,)`` int side that the map is resized to, 0 beyond the count.
        weights: ``(n, k, side)`` linear weights: sample row i = ``weights[s, i] @ map rows``, for the
            cells of a centred canvas of k rows (columns alike).
    """

    number: Int[Array, ""]
    sizes: Int[Array, "n"]
    weights: Float[Array, "n k side"]


def sample_count(map_size: Int[Array, ""] | int, kernel_size: Int[Array, "2"]) -> Int[Array, ""]:
    """Return the number of ranking samples: one per size, from the kernel's to the mirrored one by 2."""
    margin = jnp.max(kernel_size) // 2
    return jnp.maximum(2 * ((jnp.asarray(map_size) - 1) // 2 - margin) + 1, 0)


def scaled_samples(
    side: int,
    canvas: int,
    map_size: Int[Array, ""] | int,
    kernel_size: Int[Array, "2"],
    dtype: jnp.dtype,
) -> Samples:
    """Resize a map to many sizes (bilinear, corners aligned) and cut the centre out of each.

    Args:
        side: side of the map's canvas.
        canvas: side of the kernel's canvas, odd.
        map_size: true side of the map, odd.
        kernel_size: ``(2,)`` odd rows and columns; its longer side is the smallest size.
        dtype: of the weights.

    Reference:
        TADT, section 3.2; sizes and cut: ZikunZhou/TADT-python.
    """
    count = sample_count(map_size, kernel_size)
    n = max(side - 2, 1)  # the smallest kernel has 3 cells
    index = jnp.arange(n)
    smallest = 2 * (jnp.max(kernel_size) // 2) + 1
    sizes = jnp.where(index < count, smallest + 2 * index, 0)
    offsets = jnp.arange(canvas) - canvas // 2
    middle = (sizes - 1) // 2
    last = jnp.asarray(map_size) - 1
    ratio = last.astype(dtype) / jnp.maximum(sizes - 1, 1).astype(dtype)
    positions = (middle[:, None] + offsets[None, :]).astype(dtype) * ratio[:, None]
    lower = jnp.floor(positions)
    part = positions - lower
    first = lower.astype(jnp.int32)[..., None]
    cells = jnp.arange(side)[None, None, :]
    weights = jnp.where(cells == first, 1 - part[..., None], 0)
    weights = weights + jnp.where(cells == jnp.minimum(first + 1, last), part[..., None], 0)
    used = (index < count)[:, None] & (jnp.abs(offsets)[None, :] <= jnp.max(kernel_size) // 2)
    return Samples(count, sizes, weights * used[..., None].astype(dtype))


def rank_scores(
    features: Float[Array, "h w c"], kernel: Float[Array, "k k c"], samples: Samples
) -> Float[Array, "n"]:
    """Score of every scaled sample: the kernel laid over its centre. Linear in both arguments.

    The samples are never built: the kernel's rows meet the map first, the resize comes after.
    """
    h, w, c = features.shape
    flat = features.reshape(h * w, c)

    def add_row(total: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        kernel_row, weights_row = row  # (k, c), (n, h)
        maps = jnp.einsum("jc,mc->jm", kernel_row, flat, precision="highest")
        maps = maps.reshape(-1, h, w)
        lines = jnp.einsum("ny,jyx->njx", weights_row, maps, precision="highest")
        return total + jnp.sum(lines * samples.weights, axis=(1, 2)), None

    start = jnp.zeros(samples.weights.shape[0], features.dtype)
    rows = (kernel, samples.weights.transpose(1, 0, 2))
    return lax.scan(add_row, start, rows)[0]


def sample_rows(
    features: Float[Array, "h w c"], samples: Samples, row: Int[Array, ""]
) -> Float[Array, "n k c"]:
    """Return one row (of the canvas) of every scaled sample."""
    weights = lax.dynamic_index_in_dim(samples.weights, row, axis=1, keepdims=False)
    lines = jnp.einsum("ny,yxc->nxc", weights, features, precision="highest")
    return jnp.einsum("njx,nxc->njc", samples.weights, lines, precision="highest")


def train_ranking(
    features: Float[Array, "h w c"],
    kernel: Float[Array, "k k c"],
    kernel_size: Int[Array, "2"],
    samples: Samples,
    descent: Descent,
) -> tuple[Float[Array, "k k c"], Float[Array, "steps"]]:
    """Train the ranking branch's kernel on the true ranking loss, in the dual, as `train_ridge`.

    The published code leaves this kernel random. The paper takes the model as given.

    Returns:
        The kernel's canvas, and the loss before each step.
    """
    canvas = kernel.shape[0]
    dtype = features.dtype
    mask = centred_mask((canvas, canvas), kernel_size, dtype)
    half, middle = kernel_size[0] // 2, canvas // 2

    def add_row(i: Array, total: Array) -> Array:
        rows = sample_rows(features, samples, i) * mask[i][None, :, None]
        return total + jnp.einsum("njc,mjc->nm", rows, rows, precision="highest")

    n = samples.weights.shape[0]
    start = jnp.zeros((n, n), dtype)
    products = lax.fori_loop(middle - half, middle + half + 1, add_row, start)
    first = rank_scores(features, kernel, samples)
    pairs = ranking_pairs(samples.number, n)

    def step(carry: tuple, _: None) -> tuple[tuple, Array]:
        weights, speeds = carry
        scores = weights[0] * first + jnp.dot(products, weights[1], precision="highest")
        loss, slope = jax.value_and_grad(ranking_loss)(scores, pairs)
        speeds = jax.tree.map(
            lambda v, g, x: descent.momentum * v + g + descent.weight_decay * x,
            speeds, (jnp.zeros_like(weights[0]), slope), weights,
        )  # fmt: skip
        return (jax.tree.map(lambda x, v: x - descent.rate * v, weights, speeds), speeds), loss

    weights = (jnp.ones((), dtype), jnp.zeros(n, dtype))
    speeds = jax.tree.map(jnp.zeros_like, weights)
    ((scale, dual), _), losses = lax.scan(step, (weights, speeds), None, length=descent.steps)

    def set_row(i: Array, total: Array) -> Array:
        rows = sample_rows(features, samples, i) * mask[i][None, :, None]
        row = jnp.einsum("n,njc->jc", dual, rows, precision="highest")
        return lax.dynamic_update_index_in_dim(total, row, i, axis=0)

    trained = lax.fori_loop(middle - half, middle + half + 1, set_row, jnp.zeros_like(kernel))
    return scale * kernel + trained, losses


def rank_feature_gradient(
    features: Float[Array, "h w c"], kernel: Float[Array, "k k c"], samples: Samples
) -> Float[Array, "h w c"]:
    """Return the true gradient of the ranking loss with respect to the features, by `jax.grad`.

    Its mean over the map is zero for every channel: the loss does not change when all scores move
    together, so its derivatives with respect to the scores sum to zero, and the weights of a resize sum to
    one. Pooled alone it therefore says nothing of a channel; pooled after multiplication by the features
    it does (the first-order change of the loss when the channel is left out).
    """
    pairs = ranking_pairs(samples.number, samples.weights.shape[0])
    return jax.grad(lambda x: ranking_loss(rank_scores(x, kernel, samples), pairs))(features)
