"""Convolution with fewer multiplications: minimal filtering along the image rows.

A tile of ``m`` neighbouring outputs under ``r`` taps takes ``m * r`` multiplications directly, but only
``m + r - 1`` between a transformed tile of the input and the transformed kernel. The transform runs along
the columns alone: that halves the multiplications (4 outputs of 3 taps: 6 for 12; of 5 taps: 8 for 20),
while the transformed tiles stay about as large as the image. Transforming the rows too would save little
more, move several times the memory and lose more digits.

Reference:
    Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for
    Convolutional Neural Networks, 2016 (there in two dimensions).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxtrack.ops import precision
from jaxtrack.ops.mapping import one_by_one

Padding = tuple[tuple[int, int], tuple[int, int]]
# Small in size and reciprocal: powers of other points would cost digits. Infinity is always one more.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
MOST_TAPS = len(_POINTS) - 1  # that leaves tiles of three outputs


def tile_outputs(taps: int) -> int:
    """Return the outputs of one tile: four, where the points suffice."""
    return min(4, len(_POINTS) + 2 - taps)


@functools.lru_cache(maxsize=16)
def transforms(outputs: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices A, G, B with ``out = A ((G kernel) * (B tile))``, the product element by element.

    They transpose the product of two polynomials by evaluation at points and interpolation.

    Args:
        outputs: outputs of a tile.
        taps: taps of the kernel; ``outputs + taps - 1`` is the tile's length n.

    Returns:
        ``(outputs, n)``, ``(n, taps)``, ``(n, n)`` float64. Shared between calls: do not write to them.
    """
    length = outputs + taps - 1
    points = np.asarray(_POINTS[: length - 1])

    def evaluate(degree: int) -> np.ndarray:
        at_infinity = np.eye(degree)[-1:]
        return np.concatenate([np.power.outer(points, np.arange(degree)), at_infinity])

    # Moving each point's common denominator to the kernel leaves short numbers for the tiles.
    gaps = points[:, None] - points[None, :] + np.eye(len(points))
    denominators = np.append(np.prod(gaps, axis=1), 1.0)[:, None]
    kernel_side = evaluate(taps) / denominators
    tile_side = np.linalg.inv(evaluate(length)).T * denominators
    # Exact: all entries are multiples of 1/64.
    tile_side = np.rint(tile_side * 64) / 64
    matrices = (evaluate(outputs).T, kernel_side, tile_side)
    for matrix in matrices:
        matrix.setflags(write=False)
    return matrices


def _combine(weights: np.ndarray, terms: Array) -> Array:
    """Sum over the leading axis by constant weights, written out: one pass over the memory."""
    used = [(float(w), term) for w, term in zip(weights, terms) if w]
    total = used[0][0] * used[0][1]
    for weight, term in used[1:]:
        total = total + weight * term
    return total


def conv2d_winograd(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    padding: Padding = ((0, 0), (0, 0)),
) -> Float[Array, "n oh ow o"]:
    """Unstrided convolution by minimal filtering along the columns, image by image.

    Equal to the direct sum up to some 1e-6 of the largest output in float32.

    Args:
        x: ``(n, h, w, c)`` input.
        kernel: ``(kh, kw, c, features)``; kw is at most `MOST_TAPS`.
        padding: ``((top, bottom), (left, right))`` zeros.

    Returns:
        ``(n, oh, ow, features)``.
    """
    kh, kw, channels, features = kernel.shape
    step = tile_outputs(kw)
    out_side, kernel_side, tile_side = transforms(step, kw)
    oh = x.shape[1] + sum(padding[0]) - kh + 1
    ow = x.shape[2] + sum(padding[1]) - kw + 1
    tiles = -(-ow // step)
    whole = tiles * step + kw - 1
    right = padding[1][1] + whole - (x.shape[2] + sum(padding[1]))
    if right or padding != ((0, 0), (0, 0)):
        x = jnp.pad(x, ((0, 0), padding[0], (padding[1][0], right), (0, 0)))
    digits = precision.of(jnp.float32)
    tile_matrix = jnp.asarray(tile_side, x.dtype)
    # The transforms into the domain are small matrix products too: written out as sums they run as fast,
    # but take three times as long to compile.
    kernels = jnp.einsum(
        "pj,ijco->pico", jnp.asarray(kernel_side, kernel.dtype), kernel, precision=digits
    ).reshape(len(tile_side), kh * channels, features)

    def one(image: Array) -> Array:
        starts = range(len(tile_side))
        shifted = jnp.stack([image[:, i : i + (tiles - 1) * step + 1 : step] for i in starts])
        flat = jnp.dot(tile_matrix, shifted.reshape(len(tile_side), -1), precision=digits)
        tile = flat.reshape(shifted.shape)
        # All kernel rows in one product: long rows keep the processor's arithmetic units busy.
        rows = jnp.concatenate([tile[:, i : i + oh] for i in range(kh)], axis=-1)
        products = lax.dot_general(
            rows.reshape(len(tile_side), -1, kh * channels),
            kernels,
            (((2,), (1,)), ((0,), (0,))),
            precision=digits,
        )
        outputs = jnp.stack([_combine(row, products) for row in out_side], axis=1)
        return outputs.reshape(oh, tiles * step, features)[:, :ow]

    # One image at a time: its tiles stay in the cache.
    return one_by_one(lambda images: one(images[0])[None], x)
