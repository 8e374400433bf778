"""Which channels matter for a target: TADT's ridge and ranking branches, and the selection.

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
from jaxtyping import Array, Bool, Float, Int

from jaxtrack.losses.tadt import ranking_loss, ranking_pairs, ridge_loss
from jaxtrack.ops.same_correlation import correlate_same, correlate_same_kernel_gradient


class Descent(NamedTuple):
    """Gradient descent of the ridge branch (hashable, part of a config).

    Attributes:
        steps: number of full-batch steps.
        rate: learning rate.
        momentum: without dampening, not Nesterov's.
        weight_decay: times the weights, added to the gradient (bias included).
    """

    steps: int = 100
    rate: float = 1e-9
    momentum: float = 0.9
    weight_decay: float = 1000.0


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
    """1 on the top-left square of ``size`` cells, 0 on the rest of the canvas."""
    line = (jnp.arange(side) < size).astype(dtype)
    return line[:, None] * line[None, :]


def centred_mask(
    canvas: tuple[int, int], size: Int[Array, "2"], dtype: jnp.dtype
) -> Float[Array, "kh kw"]:
    """1 on the centred block of an odd ``size`` (rows, columns) of an odd canvas, 0 around it."""
    rows = jnp.abs(jnp.arange(canvas[0]) - canvas[0] // 2) <= size[0] // 2
    columns = jnp.abs(jnp.arange(canvas[1]) - canvas[1] // 2) <= size[1] // 2
    return (rows[:, None] & columns[None, :]).astype(dtype)


def gaussian_label(
    side: int, map_size: Int[Array, ""] | int, sigma: Float[Array, "2"], alpha: float
) -> Float[Array, "side side"]:
    """``exp(-alpha * ((dy / sy)^2 + (dx / sx)^2))`` about the map's middle cell, zero beyond the map.

    Args:
        side: side of the canvas.
        map_size: true side of the map, odd.
        sigma: ``(2,)`` widths along rows and columns, in cells.
        alpha: factor of the exponent.

    Reference:
        TADT, section 3.2; ZikunZhou/TADT-python (alpha 0.2, sigma 0.1 of the template's side).
    """
    middle = (jnp.asarray(map_size) - 1) // 2
    offset = (jnp.arange(side) - middle).astype(sigma.dtype)
    squares = jnp.square(offset[None, :] / sigma[:, None])
    label = jnp.exp(-alpha * (squares[0][:, None] + squares[1][None, :]))
    return label * square(side, map_size, label.dtype)


def _window_sums(blocks: Float[Array, "p p m"], half: Int[Array, ""]) -> Float[Array, "p p m"]:
    """``out[p, q] = sum over |d| <= half of blocks[p + d, q + d]`` (zero beyond the border)."""
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
    """Inner products of the kernel-sized windows around every two cells: ``X X^T``.

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
        weights = jax.tree.map(lambda x, v: x - descent.rate * v, weights, speeds)
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
    """The true gradient of the ridge loss with respect to the features, by `jax.grad`.

    Reference:
        TADT, equation 4.
    """
    inside = square(features.shape[0], map_size, features.dtype)

    def loss(x: Array) -> Array:
        prediction = correlate_same(x[None], kernel, kernel_size[0] // 2)[0] + bias
        return ridge_loss(prediction, label, inside)

    return jax.grad(loss)(features) * inside[:, :, None]


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
    """Number of ranking samples: one per size from the kernel's to the mirrored one, in steps of 2."""
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
    """One row (of the canvas) of every scaled sample."""
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
        scores = weights[0] * first + products @ weights[1]
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
    """The true gradient of the ranking loss with respect to the features, by `jax.grad`.

    Its mean over the map is zero for every channel: the loss does not change when all scores move
    together, so its derivatives with respect to the scores sum to zero, and the weights of a resize sum to
    one. Pooled alone it therefore says nothing of a channel; pooled after multiplication by the features
    it does (the first-order change of the loss when the channel is left out).
    """
    pairs = ranking_pairs(samples.number, samples.weights.shape[0])
    return jax.grad(lambda x: ranking_loss(rank_scores(x, kernel, samples), pairs))(features)


def top_channels(importance: Float[Array, "c"], count: Int[Array, ""] | int) -> Bool[Array, "c"]:
    """The ``count`` channels of greatest importance; the lower index first on ties."""
    order = jnp.argsort(-importance, stable=True)
    places = jnp.zeros(importance.shape[0], jnp.int32).at[order].set(
        jnp.arange(importance.shape[0], dtype=jnp.int32)
    )  # fmt: skip
    return places < count


def select_channels(
    importances: tuple[Float[Array, "c"], ...],
    ranking_mask: Bool[Array, "c"],
    caps: tuple[int, ...],
    minimum: int,
) -> tuple[Bool[Array, "c"], ...]:
    """Which channels of each layer are kept.

    A channel is kept when its ridge importance is positive and among the layer's greatest; in the first
    layer the ranking must agree. The last layer takes further channels in the order of ridge importance,
    even non-positive ones, until the total is ``minimum``.

    Args:
        importances: ridge importance of the channels of each layer.
        ranking_mask: the first layer's channels that the ranking branch admits.
        caps: greatest number of channels of each layer.
        minimum: least number over all layers together.

    Reference:
        ZikunZhou/TADT-python; the same in XinLi-zn/TADT.
    """
    masks = []
    for layer, (importance, cap) in enumerate(zip(importances, caps)):
        kept = (importance > 0) & top_channels(importance, cap)
        masks.append(kept & ranking_mask if layer == 0 else kept)
    others = sum((jnp.sum(mask) for mask in masks[:-1]), jnp.zeros((), jnp.int32))
    filled = top_channels(importances[-1], minimum - others)
    short = others + jnp.sum(masks[-1]) < minimum
    masks[-1] = jnp.where(short, masks[-1] | filled, masks[-1])
    return tuple(masks)


def balance_weights(
    maps: tuple[Float[Array, "h w c"], ...], importances: tuple[Float[Array, "c"], ...], top: int
) -> Float[Array, "layers"]:
    """Factor of each layer that makes the layers' strongest responses equal; the last layer's is 1.

    A layer's strength is the largest value over the map of the sum of its ``top`` channels of greatest
    ridge importance (chosen or not).

    Reference:
        ZikunZhou/TADT-python.
    """
    strengths = []
    for features, importance in zip(maps, importances):
        best = top_channels(importance, top).astype(features.dtype)
        strengths.append(jnp.max(features @ best))
    strength = jnp.stack(strengths)
    return strength[-1] / jnp.where(strength > 0, strength, 1)
