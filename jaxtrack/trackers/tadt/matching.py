"""TADT's response maps: scaled copies of features, upsampling to the window, the Hann window, the peak.

Maps lie in the top-left corner of a canvas; their true side and the window's side are run-time values.
Matrices that are made several times a frame are functions of the program (`jax.jit`), which holds each once.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxtrack.ops.response import CUBIC, CUBIC_MATLAB, cubic_taps, row_and_column


@functools.partial(jax.jit, static_argnames=("side", "align_corners"))
def linear_matrix(
    side: int,
    size_in: Int[Array, ""],
    size_out: Int[Array, ""],
    shift: int | Int[Array, ""],
    align_corners: bool = False,
) -> Float[Array, "side side"]:
    """Return bilinear resampling of a map inside its canvas, cut or padded about the middle.

    Args:
        side: of the canvas.
        size_in: true side of the map.
        size_out: side after resampling.
        shift: row i of the result is row ``i + shift`` of the resampled map, zero where there is none.
        align_corners: the first and last cells coincide; otherwise cells are areas (half-pixel centres).

    Returns:
        Matrix to be multiplied from the left; rows beyond ``size_in`` are zero.
    """
    index = jnp.arange(side)
    row = index + shift
    if align_corners:
        gaps = jnp.maximum(size_out - 1, 1).astype(jnp.float32)
        position = row.astype(jnp.float32) * ((size_in - 1).astype(jnp.float32) / gaps)
    else:
        ratio = size_in.astype(jnp.float32) / size_out.astype(jnp.float32)
        position = (row.astype(jnp.float32) + 0.5) * ratio - 0.5
    position = jnp.maximum(position, 0)
    lower = jnp.floor(position)
    part = (position - lower)[:, None]
    first = lower.astype(jnp.int32)[:, None]
    cells = index[None, :]
    last = size_in - 1
    matrix = jnp.where(cells == jnp.minimum(first, last), 1 - part, 0)
    matrix = matrix + jnp.where(cells == jnp.minimum(first + 1, last), part, 0)
    there = (row >= 0) & (row < size_out) & (index < size_in)
    return matrix * there[:, None].astype(jnp.float32)


def scaled_maps(
    features: Float[Array, "s s c"],
    map_size: Int[Array, ""],
    count: int,
    pad: int,
    align_corners: bool = False,
) -> Float[Array, "n s s c"]:
    """Make copies of a feature map that stand for other scales of the target.

    Copy k is resized to ``map_size + pad * (count // 2 - k)`` and cut, or padded with zeros, back to the
    map's size: the first shows the target largest.

    Reference:
        ZikunZhou/TADT-python (three copies, pad 2); with corners aligned: XinLi-zn/TADT.
    """
    side = features.shape[0]
    copies = []
    for k in range(count):
        border = pad * (count // 2 - k)
        if border == 0:
            copies.append(features)
            continue
        matrix = linear_matrix(side, map_size, map_size + border, border // 2, align_corners)
        rows = jnp.einsum("iy,yxc->ixc", matrix, features, precision="highest")
        copies.append(jnp.einsum("jx,ixc->ijc", matrix, rows, precision="highest"))
    return jnp.stack(copies)


@functools.partial(jax.jit, static_argnames=("side", "matlab"))
def cubic_weights(
    index: Int[Array, "n"],
    size_in: Int[Array, ""],
    size_out: Int[Array, ""],
    side: int,
    matlab: bool = False,
) -> Float[Array, "n side"]:
    """Return rows of the bicubic upsampling matrix, borders repeated; float32.

    Corners are aligned and the cubic's a is -0.75 (PyTorch); with ``matlab``, half-pixel centres and -0.5.
    """
    if matlab:
        ratio = size_in.astype(jnp.float32) / size_out.astype(jnp.float32)
        position = (index.astype(jnp.float32) + 0.5) * ratio - 0.5
    else:
        gaps = jnp.maximum(size_out - 1, 1).astype(jnp.float32)
        position = index.astype(jnp.float32) * ((size_in - 1).astype(jnp.float32) / gaps)
    lower = jnp.floor(position)
    weights = cubic_taps(position - lower, CUBIC_MATLAB if matlab else CUBIC)
    cells = jnp.arange(side)[None, :]
    matrix = jnp.zeros((index.shape[0], side), jnp.float32)
    for offset, weight in zip((-1, 0, 1, 2), weights):
        at = jnp.clip(lower.astype(jnp.int32) + offset, 0, size_in - 1)
        matrix = matrix + jnp.where(cells == at[:, None], weight[:, None], 0)
    return matrix


def hann_line(index: Int[Array, "n"], size: Int[Array, ""]) -> Float[Array, "n"]:
    """Return values of a symmetric Hann window of ``size`` points; float32."""
    gaps = jnp.maximum(size - 1, 1).astype(jnp.float32)
    return 0.5 - 0.5 * jnp.cos(2 * jnp.float32(jnp.pi) * (index.astype(jnp.float32) / gaps))


def score_block(
    response: Float[Array, "n s s"],
    map_size: Int[Array, ""],
    side: Int[Array, ""],
    rows: Int[Array, "r"],
    columns: Int[Array, "c"],
    window_weight: float = 1.0,
    matlab: bool = False,
) -> Float[Array, "n r c"]:
    """Return rows and columns of the score maps: responses upsampled to ``side`` plus the Hann window."""
    canvas = response.shape[-1]
    by_rows = cubic_weights(rows, map_size, side, canvas, matlab)
    by_columns = cubic_weights(columns, map_size, side, canvas, matlab)
    maps = jnp.einsum("ry,nyx,cx->nrc", by_rows, response, by_columns, precision="highest")
    hann = hann_line(rows, side)[:, None] * hann_line(columns, side)[None, :]
    return maps + window_weight * hann[None]


class Peaks(NamedTuple):
    """The maximum of each score map.

    Attributes:
        value: ``(n,)``.
        row, column: ``(n,)`` int32; the first maximum in row-major order.
    """

    value: Float[Array, "n"]
    row: Int[Array, "n"]
    column: Int[Array, "n"]


def score_peaks(
    response: Float[Array, "n s s"],
    map_size: Int[Array, ""],
    side: Int[Array, ""],
    window_weight: float = 1.0,
    tile: int = 96,
    matlab: bool = False,
) -> Peaks:
    """Find where the upsampled responses plus window are greatest.

    The window's side changes while tracking and has no bound, so the score maps are made and searched
    tile by tile: the number of tiles is a run-time value, the memory constant.

    Args:
        response: normalised responses of the scales, on a canvas.
        map_size: true side of the responses.
        side: pixels of the search window.
        window_weight: factor on the Hann window.
        tile: side of a tile.
        matlab: upsample as Matlab does (see `cubic_weights`).
    """
    n = response.shape[0]
    tiles = (side + tile - 1) // tile

    def visit(t: Array, best: Peaks) -> Peaks:
        top, left = (tile * at for at in row_and_column(t, tiles))
        rows, columns = top + jnp.arange(tile), left + jnp.arange(tile)
        scores = score_block(response, map_size, side, rows, columns, window_weight, matlab)
        outside = (rows >= side)[:, None] | (columns >= side)[None, :]
        flat = jnp.where(outside[None], -jnp.inf, scores).reshape(n, -1)
        place = jnp.argmax(flat, axis=1)
        value = jnp.max(flat, axis=1)
        down, across = row_and_column(place, tile)
        row, column = (top + down).astype(jnp.int32), (left + across).astype(jnp.int32)
        earlier = (row < best.row) | ((row == best.row) & (column < best.column))
        better = (value > best.value) | ((value == best.value) & earlier)
        return Peaks(
            jnp.where(better, value, best.value),
            jnp.where(better, row, best.row),
            jnp.where(better, column, best.column),
        )

    nowhere = jnp.full((n,), -1, jnp.int32)
    start = Peaks(jnp.full((n,), -jnp.inf, response.dtype), nowhere, nowhere)
    return lax.fori_loop(0, tiles * tiles, visit, start)
