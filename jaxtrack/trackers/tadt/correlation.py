"""Correlation of maps with ONE large kernel of many channels whose true size is known at run time only.

The kernel lies centred in a static canvas. Each row of the kernel is one matrix product with the flattened
maps, and the products are then summed along shifted positions (a pad and a reshape skew them); rows beyond
the true size are never computed. So the cost follows the true height, on a static shape. The derivatives
run the same loop, which is why they are written out here: `jax.grad` cannot differentiate a loop of
unknown length.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def _sum_shifted(rows: Float[Array, "k m"]) -> Float[Array, "m"]:
    """Return ``out[m] = sum_j rows[j, m + j]``, zeros beyond the end."""
    k, m = rows.shape
    # Rows of length m + 1 laid over the flat array start one element later each.
    flat = jnp.pad(rows.reshape(-1), (0, k))
    skewed = flat.reshape(k, m + 1)
    inside = jnp.arange(k)[:, None] + jnp.arange(m)[None, :] < m
    return jnp.sum(jnp.where(inside, skewed[:, :m], 0), axis=0)


def _shifted_copies(row: Float[Array, "m"], k: int) -> Float[Array, "k m"]:
    """Return ``out[j, m] = row[m - j]``, zeros before the start."""
    m = row.shape[0]
    padded = jnp.pad(row, (0, k))
    period = m + k
    flat = jnp.tile(padded, k)[: k * (period - 1)]
    return flat.reshape(k, period - 1)[:, :m]


def _products_row(
    features: Float[Array, "n h w c"], kernel_row: Float[Array, "k c"]
) -> Float[Array, "n h w"]:
    """Correlate along x with one row of the kernel: ``sum_jc kernel[j, c] x[n, y, x + j - k//2, c]``."""
    n, h, w, c = features.shape
    k = kernel_row.shape[0]
    half = k // 2
    products = jnp.einsum(
        "jc,mc->jm", kernel_row, features.reshape(n * h * w, c), precision="highest"
    )
    # Zeros on both sides of each image row: shifts never run into a neighbour row.
    padded = jnp.pad(products.reshape(k, n * h, w), ((0, 0), (0, 0), (half, half)))
    total = _sum_shifted(padded.reshape(k, n * h * (w + 2 * half)))
    return total.reshape(n, h, w + 2 * half)[:, :, :w]


def _pad_rows(maps: Float[Array, "n h *rest"], half: int) -> Float[Array, "n hh *rest"]:
    border = ((0, 0), (half, half), *((0, 0) for _ in maps.shape[2:]))
    return jnp.pad(maps, border)


def _copies(padded: Float[Array, "n hh w"], i: Int[Array, ""], k: int, h: int) -> Array:
    """Return the cotangents of kernel row i: ``out[j, n, y, x] = g[n, y - (i - kh//2), x - (j - k//2)]``."""
    n, hh, w = padded.shape
    half = k // 2
    start = hh - h - i  # = 2 * (kh // 2) - i
    rows = lax.dynamic_slice_in_dim(padded, start, h, axis=1)
    flat = jnp.pad(rows, ((0, 0), (0, 0), (half, half))).reshape(-1)
    # out[j, x] = row[x - j + half] in unpadded terms: copies shifted by j, read from 2 * half on.
    copies = _shifted_copies(flat, k).reshape(k, n, h, w + 2 * half)
    return copies[..., 2 * half :]


@jax.custom_vjp
def correlate_same(
    features: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c"],
    half_rows: Int[Array, ""],
) -> Float[Array, "n h w"]:
    """Return ``out[n, y, x] = sum_ijc kernel[i, j, c] features[n, y + i - kh//2, x + j - kw//2, c]``.

    Zeros beyond the border ("same" padding).

    Args:
        features: maps.
        kernel: canvas of odd sides, the kernel in its middle, zeros around it.
        half_rows: ``()`` int: rows more than this from the middle are zero and not computed.

    Returns:
        ``(n, h, w)``.
    """
    n, h, w, _ = features.shape
    half = kernel.shape[0] // 2
    reach = jnp.minimum(half_rows, half)

    def add_row(i: Array, total: Array) -> Array:
        row = _products_row(features, kernel[i])
        return total + lax.dynamic_slice_in_dim(_pad_rows(row, half), i, h, axis=1)

    start = jnp.zeros((n, h, w), features.dtype)
    return lax.fori_loop(half - reach, half + reach + 1, add_row, start)


def correlate_same_features_gradient(
    cotangent: Float[Array, "n h w"], kernel: Float[Array, "kh kw c"], half_rows: Int[Array, ""]
) -> Float[Array, "n h w c"]:
    """Return the gradient of `correlate_same` with respect to the features, for a cotangent of its result."""
    n, h, w = cotangent.shape
    kh, kw, c = kernel.shape
    half = kh // 2
    reach = jnp.minimum(half_rows, half)
    padded = _pad_rows(cotangent, half)

    def add_row(i: Array, total: Array) -> Array:
        copies = _copies(padded, i, kw, h).reshape(kw, n * h * w)
        return total + jnp.einsum("jm,jc->mc", copies, kernel[i], precision="highest")

    start = jnp.zeros((n * h * w, c), kernel.dtype)
    total = lax.fori_loop(half - reach, half + reach + 1, add_row, start)
    return total.reshape(n, h, w, c)


def correlate_same_kernel_gradient(
    features: Float[Array, "n h w c"],
    cotangent: Float[Array, "n h w"],
    kernel_shape: tuple[int, int],
    half_rows: Int[Array, ""],
) -> Float[Array, "kh kw c"]:
    """Return the gradient of `correlate_same` with respect to the kernel, for a cotangent of its result.

    Rows beyond ``half_rows`` are zero; columns are all computed, the caller masks them.
    """
    n, h, w, c = features.shape
    kh, kw = kernel_shape
    half = kh // 2
    reach = jnp.minimum(half_rows, half)
    padded = _pad_rows(cotangent, half)
    flat = features.reshape(n * h * w, c)

    def set_row(i: Array, kernel: Array) -> Array:
        copies = _copies(padded, i, kw, h).reshape(kw, n * h * w)
        row = jnp.einsum("jm,mc->jc", copies, flat, precision="highest")
        return lax.dynamic_update_index_in_dim(kernel, row, i, axis=0)

    start = jnp.zeros((kh, kw, c), features.dtype)
    return lax.fori_loop(half - reach, half + reach + 1, set_row, start)


def _forward(features: Array, kernel: Array, half_rows: Array) -> tuple[Array, tuple]:
    return correlate_same(features, kernel, half_rows), (features, kernel, half_rows)


def _backward(saved: tuple, cotangent: Array) -> tuple[Array, Array, None]:
    features, kernel, half_rows = saved
    return (
        correlate_same_features_gradient(cotangent, kernel, half_rows),
        correlate_same_kernel_gradient(features, cotangent, kernel.shape[:2], half_rows),
        None,
    )


correlate_same.defvjp(_forward, _backward)
