"""Name tables of OSTrack: its own checkpoints, and ViT-B pre-training files of MAE and timm."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.response import resize_matrix
from jaxtrack.weights.names import NameTable

# botaoye/OSTrack ``.pth.tar``, entry "net": our modules carry these very names. Files saved from several
# GPUs may have "module." in front.
OSTRACK = NameTable(rename=((r"^module\.", ""),))


def resize_pos_embed(
    pos_embed: Float[np.ndarray, "1 n c"], grid: int, skip: int = 1
) -> Float[np.ndarray, "1 m c"]:
    """A pre-trained position embedding on another grid.

    Args:
        pos_embed: ``(1, skip + g * g, c)``, a square grid in row-major order.
        grid: side of the new grid.
        skip: leading entries that belong to no place (the class token).

    Returns:
        ``(1, grid * grid, c)`` float32: bicubic (a = -0.75), half-pixel centres, border repeated, no
        antialiasing, as in the published code.

    Raises:
        JaxtrackError: the entries do not form a square.
    """
    table = np.asarray(pos_embed)[:, skip:]
    side = math.isqrt(table.shape[1])
    if side * side != table.shape[1]:
        raise JaxtrackError(
            f"pos_embed has {table.shape[1]} places, which form no square grid; give a ViT checkpoint"
        )
    matrix = resize_matrix(side, grid, "cubic")
    square = table.reshape(1, side, side, -1).astype(np.float64)
    resized = np.einsum("yv,xu,bvuc->byxc", matrix, matrix, square, optimize=True)
    return resized.reshape(1, grid * grid, -1).astype(np.float32)
