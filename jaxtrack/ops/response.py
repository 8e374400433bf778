"""Response maps: windows, labels, resampling as constant linear maps, peaks, entropy."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Coefficients of cubic convolution: OpenCV's and PyTorch's, and Matlab's.
CUBIC, CUBIC_MATLAB = -0.75, -0.5


def hann_window(size: int) -> np.ndarray:
    """Return the outer product of two ``numpy.hanning`` windows, which touch zero at the border; float64.

    Args:
        size: side of the map.

    Returns:
        ``(size, size)``, not normalised.

    Reference:
        The cosine window of SiamFC and SiamRPN++ (siamfc-pytorch, PySOT).
    """
    return np.outer(np.hanning(size), np.hanning(size))


def scale_factors(count: int, step: float) -> np.ndarray:
    """Scale pyramid ``step ** (-count//2 .. count//2)``, smallest first, float64 ``(count,)``."""
    return step ** np.linspace(-(count // 2), count // 2, count)


def cubic_taps(t: Any, a: float) -> tuple[Any, Any, Any, Any]:
    """Return the weights of the four samples around a place, at -1, 0, 1 and 2 from the one before it.

    Args:
        t: how far the place lies behind the sample before it, 0 to 1; an array of numpy or JAX.
        a: coefficient, `CUBIC` or `CUBIC_MATLAB`.

    Reference:
        Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981.
    """

    def near(d: Any) -> Any:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Any) -> Any:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return far(1 + t), near(t), near(1 - t), far(2 - t)


@functools.lru_cache(maxsize=64)
def resize_matrix(size_in: int, size_out: int, kind: Literal["linear", "cubic"]) -> np.ndarray:
    """Return one-dimensional resampling as a matrix: ``out = M @ in``, as OpenCV and PyTorch resize.

    Pixels are areas (half-pixel centres), borders repeat, nothing is smoothed first.

    Args:
        size_in: samples before.
        size_out: samples after.
        kind: linear, or cubic convolution.

    Returns:
        ``(size_out, size_in)`` float64; rows sum to one. Shared between calls: do not write to it.
    """
    position = (np.arange(size_out, dtype=np.float64) + 0.5) * size_in / size_out - 0.5
    base = np.floor(position).astype(int)
    t = position - base
    taps: tuple[int, ...]
    if kind == "linear":
        taps, weights = (0, 1), np.stack([1 - t, t])
    else:
        taps, weights = (-1, 0, 1, 2), np.stack(cubic_taps(t, CUBIC))
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    for offset, weight in zip(taps, weights):
        np.add.at(matrix, (rows, np.clip(base + offset, 0, size_in - 1)), weight)
    matrix.setflags(write=False)
    return matrix


def resize_maps(
    maps: Float[Array, "*n h w"], size_out: tuple[int, int], kind: Literal["linear", "cubic"]
) -> Float[Array, "*n oh ow"]:
    """Resample maps to a static size by two constant matrix products (see `resize_matrix`)."""
    rows = resize_matrix(maps.shape[-2], size_out[0], kind)
    columns = resize_matrix(maps.shape[-1], size_out[1], kind)
    return jnp.einsum(
        "oh,...hw,pw->...op",
        jnp.asarray(rows, maps.dtype),
        maps,
        jnp.asarray(columns, maps.dtype),
        precision="highest",
    )


def pick(values: Array, *index: Int[Array, "*n"]) -> Array:
    """Return ``values[index]`` for indices in range: a few operations of the program, not a dozen."""
    return values.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def first_peak(response: Float[Array, "h w"]) -> Int[Array, "2"]:
    """Return the row and column of the maximum; the first in row-major order on ties."""
    return jnp.stack(row_and_column(jnp.argmax(response), response.shape[1])).astype(jnp.int32)


def row_and_column(
    place: Int[Array, "*n"], width: int | Int[Array, ""]
) -> tuple[Int[Array, "*n"], Int[Array, "*n"]]:
    """Return the row and column of places in a map of so many columns, counted in row-major order."""
    columns = jnp.broadcast_to(jnp.asarray(width, place.dtype), place.shape)
    # Not // and %, which take a dozen operations each for numbers that may be negative.
    return jax.lax.div(place, columns), jax.lax.rem(place, columns)


def entropy(response: Float[Array, "*n h w"]) -> Float[Array, "*n"]:
    """Return the Shannon entropy (nats) of responses, each shifted to minimum zero and normalised to sum one.

    Args:
        response: maps of any range; the entropy of a flat one is 0.

    Returns:
        Non-negative values; small = one clear peak.
    """
    shifted = response - jnp.min(response, axis=(-2, -1), keepdims=True)
    # A flat map must not divide by zero.
    p = shifted / (jnp.sum(shifted, axis=(-2, -1), keepdims=True) + 1e-12)
    return -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0), axis=(-2, -1))
