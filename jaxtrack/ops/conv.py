"""Two-dimensional convolution in NHWC, formulated per platform.

`conv2d` is what models call. On accelerators it is XLA's own convolution. On CPUs the formulation that
measures fastest for the shape is chosen (``python -m eval.speed --ops`` times them side by side); every
formulation equals the others up to float32 rounding, which a test holds. The platform is the one that the
program is lowered for, and equal shapes are traced once, however many layers have them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import precision
from jaxtrack.ops.mapping import by_platform, one_by_one
from jaxtrack.ops.winograd import MOST_TAPS, Padding, conv2d_winograd

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# From this batch on, XLA's convolution falls behind one large matrix product, forward and backward.
_PATCHES_FROM_BATCH = 4


_STATIC = ("strides", "padding", "dilation", "groups", "own")


# Traced once for equal shapes, but no function of the program: on accelerators it is one operation.
@functools.partial(jax.jit, static_argnames=_STATIC, inline=True)
def conv2d(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    own: bool = False,
) -> Float[Array, "n oh ow o"]:
    """Convolve (no kernel flip) by the formulation that is fastest on the platform and shape.

    Args:
        x: ``(n, h, w, c)`` input.
        kernel: ``(kh, kw, c / groups, features)``.
        strides: rows, columns.
        padding: ``((top, bottom), (left, right))`` zeros.
        dilation: spacing of the kernel's taps.
        groups: channel groups.
        own: the kernel belongs to one target. Under `jax.vmap` over targets XLA's convolution would
            become one of many groups, which GPUs are slow at; patches times kernel become a batch of
            matrix products.

    Returns:
        ``(n, oh, ow, features)``.

    Raises:
        JaxtrackError: the kernel finds no place on the input.
    """
    geometry = Geometry(strides, padding, dilation, groups)
    reach = [step * (tap - 1) + 1 for step, tap in zip(dilation, kernel.shape[:2])]
    refuse_small("a kernel", reach, [side + sum(pad) for side, pad in zip(x.shape[1:3], padding)])
    # The gradient is chosen again by the platform, from input and kernel alone: what a formulation keeps
    # for its own gradient would otherwise be kept for those of all platforms.
    return by_platform(
        lambda x, kernel: _on_cpu(x, kernel, geometry),
        lambda x, kernel: _on_accelerator(x, kernel, geometry, own),
        x,
        kernel,
        training=lambda x, kernel: _on_cpu(x, kernel, geometry, training=True),
    )


def refuse_small(what: str, window: Sequence[int], sides: Sequence[int]) -> None:
    """Refuse an input that is smaller than what is to be moved over it.

    Args:
        what: what is moved.
        window: its height and width.
        sides: height and width of the input with its border.

    Raises:
        JaxtrackError: it finds no place.
    """
    if any(side < reach for side, reach in zip(sides, window)):
        (height, width), (kh, kw) = sides, window
        raise JaxtrackError(
            f"{what} of {kh}x{kw} finds no place in {height}x{width}: the image, or crop, is too small for"
            " this network"
        )


class Geometry(NamedTuple):
    """How a kernel lies on its input; fields as the arguments of `conv2d`."""

    strides: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
    groups: int


def _on_accelerator(x: Array, kernel: Array, geometry: Geometry, own: bool) -> Array:
    if own and geometry.groups == 1:
        return conv2d_patches(x, kernel, *geometry[:3])
    if own:
        parts = zip(
            jnp.split(x, geometry.groups, axis=-1), jnp.split(kernel, geometry.groups, axis=-1)
        )
        outputs = [conv2d_patches(a, k, *geometry[:3]) for a, k in parts]
        return jnp.concatenate(outputs, axis=-1)
    # Strided ones are few and have few channels: they are not worth a loop in the program.
    if _is_depthwise(x, kernel, geometry) and geometry.strides == (1, 1):
        return _depthwise(x, kernel, geometry, False)
    return conv2d_xla(x, kernel, *geometry)


def _is_depthwise(x: Array, kernel: Array, geometry: Geometry) -> bool:
    return 1 < geometry.groups == x.shape[-1] == kernel.shape[-1]


def _on_cpu(x: Array, kernel: Array, geometry: Geometry, training: bool = False) -> Array:
    """Return the formulations of CPUs.

    Args:
        x: input.
        kernel: kernel.
        geometry: how it lies.
        training: the gradient is taken. Minimal filtering is then left out: gradients of the first
            layer, whose inputs are up to 255, would show the lost digits.
    """
    strides, padding, dilation, groups = geometry
    if groups == 1:
        return _one_group_on_cpu(x, kernel, geometry, training)
    if _is_depthwise(x, kernel, geometry):
        return _depthwise(x, kernel, geometry, True)
    # XLA's grouped convolution is slower on a CPU than its groups one by one.
    xs = jnp.split(x, groups, axis=-1)
    kernels = jnp.split(kernel, groups, axis=-1)
    if (
        x.shape[0] < _PATCHES_FROM_BATCH
        and not training
        and _filters_fast(xs[0], kernels[0], strides, padding, dilation)
    ):
        # As a loop, so that it is compiled once for all groups.
        out = lax.map(
            lambda pair: _conv2d_fast(pair[0], pair[1], strides, padding),
            (jnp.stack(xs), jnp.stack(kernels)),
        )
        return jnp.moveaxis(out, 0, 3).reshape(*out.shape[1:4], -1)
    whole = geometry._replace(groups=1)
    parts = [_one_group_on_cpu(a, k, whole, training) for a, k in zip(xs, kernels)]
    return jnp.concatenate(parts, axis=-1)


def _one_group_on_cpu(x: Array, kernel: Array, geometry: Geometry, training: bool) -> Array:
    strides, padding, dilation, _ = geometry
    kh, kw, channels, features = kernel.shape
    if kh == kw == 1 or features == 1:
        return conv2d_patches(x, kernel, strides, padding, dilation)
    if training or x.shape[0] >= _PATCHES_FROM_BATCH:
        # What counts is the gradient: XLA's with respect to the kernel takes eight times as long.
        if kh * kw > 9:
            return _conv2d_mixed(x, kernel, strides, padding, dilation)
        if channels <= 4 and strides[0] == strides[1] > 1 and dilation == (1, 1):
            return conv2d_space_to_depth(x, kernel, strides[0], padding)
        return conv2d_patches(x, kernel, strides, padding, dilation)
    if _filters_fast(x, kernel, strides, padding, dilation):
        return _conv2d_fast(x, kernel, strides, padding)
    # A few images: XLA's convolution one by one.
    return one_by_one(lambda image: conv2d_xla(image, kernel, strides, padding, dilation), x)


def _filters_fast(
    x: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int],
) -> bool:
    """Return whether minimal filtering pays."""
    kh, kw, channels, features = kernel.shape
    stride = strides[0]
    if dilation != (1, 1) or strides[1] != stride:
        return False
    if stride > 1 and channels > 4:
        return False
    if x.dtype not in (jnp.float32, jnp.float64):
        return False  # Fewer bits would show in the sums.
    kh, kw, channels = -(-kh // stride), -(-kw // stride), channels * stride * stride
    if not (kh >= 2 and 2 <= kw <= MOST_TAPS and channels >= 12 and features >= 16):
        return False
    height = (x.shape[1] + sum(padding[0])) // stride - kh + 1
    width = (x.shape[2] + sum(padding[1])) // stride - kw + 1
    area = height * width
    # Small maps are not worth the kernel's transform; the tiles of large ones leave the cache.
    return area >= max(64, channels // 2) and area * kh * channels <= 2**22


def _conv2d_fast(x: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    """Minimal filtering; a strided convolution of few channels by blocks of pixels as channels."""
    if strides[0] > 1:
        x, kernel = _blocks_to_channels(x, kernel, strides[0], padding)
        return conv2d_winograd(x, kernel)
    return conv2d_winograd(x, kernel, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv2d_mixed(
    x: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int],
) -> Array:
    """Batches under large kernels: products of rows forward, XLA's convolutions backward.

    There the gradients of the other formulations take longer than XLA's: 8 images of 46x46x32 under
    5x5x64 take 42 + 20 ms of processor time for kernel and input; by rows 62 + 18, by patches 73 + 48.
    (Has gradients of any order, but no forward mode.)
    """
    if kernel.shape[2] <= 4 and strides[0] == strides[1] > 1 and dilation == (1, 1):
        return conv2d_space_to_depth(x, kernel, strides[0], padding)
    return one_by_one(lambda image: conv2d_rows(image, kernel, strides, padding, dilation), x)


def _mixed_forward(
    x: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int],
) -> tuple[Array, tuple[Array, Array]]:
    return _conv2d_mixed(x, kernel, strides, padding, dilation), (x, kernel)


def _mixed_backward(
    strides: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int],
    saved: tuple[Array, Array],
    cotangent: Array,
) -> tuple[Array, Array]:
    _, transpose = jax.vjp(lambda x, k: conv2d_xla(x, k, strides, padding, dilation), *saved)
    return transpose(cotangent)


_conv2d_mixed.defvjp(_mixed_forward, _mixed_backward)


def conv2d_xla(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Float[Array, "n oh ow o"]:
    """XLA's convolution in full float32; arguments as in `conv2d`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
        precision=precision.of(x.dtype),
    )


def _output_size(
    x: Array, kernel: Array, strides: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    kh, kw = kernel.shape[:2]
    oh = (x.shape[1] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (x.shape[2] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    return oh, ow


def _tap(
    x: Array, i: int, j: int, size: tuple[int, int], strides: tuple[int, int]
) -> Float[Array, "n oh ow c"]:
    """Return the input pixels under one tap of the kernel, at every output position."""
    return x[
        :,
        i : i + (size[0] - 1) * strides[0] + 1 : strides[0],
        j : j + (size[1] - 1) * strides[1] + 1 : strides[1],
    ]


def _pad(x: Array, padding: Padding) -> Array:
    if padding == ((0, 0), (0, 0)):
        return x
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def conv2d_patches(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, "n oh ow o"]:
    """Return all patches as rows of one matrix, times the kernel as a matrix; arguments as in `conv2d`.

    The gradient is made of matrix products too, where XLA's own convolution gradients are slow.
    """
    x = _pad(x, padding)
    kh, kw, channels, features = kernel.shape
    size = _output_size(x, kernel, strides, dilation)
    columns = [
        _tap(x, i * dilation[0], j * dilation[1], size, strides)
        for i in range(kh)
        for j in range(kw)
    ]
    patches = columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=-1)
    flat = patches.reshape(-1, kh * kw * channels)
    out = jnp.dot(flat, kernel.reshape(-1, features), precision=precision.of(x.dtype))
    return out.reshape(x.shape[0], *size, features)


def conv2d_rows(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, "n oh ow o"]:
    """Patches along the columns only, and one matrix product for each kernel row, summed.

    Takes a kernel-height less memory than `conv2d_patches`; arguments as in `conv2d`.
    """
    x = _pad(x, padding)
    kh, kw, channels, features = kernel.shape
    oh, ow = _output_size(x, kernel, strides, dilation)
    rows = x.shape[1]
    line = jnp.concatenate(
        [_tap(x, 0, j * dilation[1], (rows, ow), (1, strides[1])) for j in range(kw)], axis=-1
    )
    total = jnp.zeros((x.shape[0] * oh * ow, features), x.dtype)
    for i in range(kh):
        flat = _tap(line, i * dilation[0], 0, (oh, ow), (strides[0], 1)).reshape(-1, kw * channels)
        weights = kernel[i].reshape(kw * channels, features)
        total = total + jnp.dot(flat, weights, precision=precision.of(x.dtype))
    return total.reshape(x.shape[0], oh, ow, features)


def _blocks_to_channels(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, Array]:
    """Input and kernel of the unstrided convolution that equals one of equal strides."""
    x = _pad(x, padding)
    kh, kw, channels, features = kernel.shape
    oh, ow = _output_size(x, kernel, (stride, stride), (1, 1))
    blocks_h, blocks_w = -(-kh // stride), -(-kw // stride)
    height, width = stride * (oh + blocks_h - 1), stride * (ow + blocks_w - 1)
    extra = ((0, max(0, height - x.shape[1])), (0, max(0, width - x.shape[2])))
    x = _pad(x, extra)[:, :height, :width]
    x = x.reshape(-1, height // stride, stride, width // stride, stride, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(
        -1, height // stride, width // stride, stride * stride * channels
    )
    missing = ((0, blocks_h * stride - kh), (0, blocks_w * stride - kw), (0, 0), (0, 0))
    blocks = jnp.pad(kernel, missing).reshape(
        blocks_h, stride, blocks_w, stride, channels, features
    )
    blocks = blocks.transpose(0, 2, 1, 3, 4, 5).reshape(
        blocks_h, blocks_w, stride * stride * channels, features
    )
    return x, blocks


def conv2d_space_to_depth(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    stride: int,
    padding: Padding = ((0, 0), (0, 0)),
) -> Float[Array, "n oh ow o"]:
    """Return a strided convolution of few channels as an unstrided one of ``stride**2`` times as many.

    Blocks of ``stride x stride`` pixels become channels, so that the matrix products of the first layer
    have long rows. Arguments as in `conv2d`; image by image, which keeps the patches in the cache.
    """
    x, blocks = _blocks_to_channels(x, kernel, stride, padding)
    return one_by_one(lambda image: conv2d_rows(image, blocks), x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, geometry: Geometry, by_taps: bool) -> Array:
    """Depth-wise convolution, by taps or by XLA; its kernel's gradient is `depthwise_gradient`."""
    return _depthwise_alone(x, kernel, geometry, by_taps)


def _depthwise_alone(x: Array, kernel: Array, geometry: Geometry, by_taps: bool) -> Array:
    if by_taps:
        return conv2d_depthwise(x, kernel, *geometry[:3])
    return conv2d_xla(x, kernel, *geometry)


def _depthwise_forward(
    x: Array, kernel: Array, geometry: Geometry, by_taps: bool
) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, geometry, by_taps), (x, kernel)


# A function of the program, once for equal shapes.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _depthwise_backward(
    geometry: Geometry, by_taps: bool, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    to_input = jax.linear_transpose(lambda x: _depthwise_alone(x, kernel, geometry, by_taps), x)
    wide, side = _pad(x, geometry.padding), (kernel.shape[0], kernel.shape[1])
    to_kernel = depthwise_gradient(
        wide, cotangent, side, geometry.strides, geometry.dilation, together=True
    )
    return to_input(cotangent)[0], to_kernel.astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def depthwise_gradient(
    x: Float[Array, "n h w c"],
    cotangent: Float[Array, "n oh ow c"],
    size: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    together: bool = False,
) -> Float[Array, "n kh kw c"]:
    """Return what each image adds to the gradient of a depth-wise kernel, or all of them together.

    Left to XLA, each tap is a sum over whole maps on CPUs, 10 times as slow as adding up row by row (8 images
    of 31x31x576 under 3x3: 89 and 6 ms of two cores), and on GPUs a convolution of as many groups as
    channels.

    Args:
        x: ``(n, h, w, c)`` input, padded.
        cotangent: ``(n, oh, ow, c)`` gradient of the output.
        size: the kernel's rows and columns.
        strides: rows, columns.
        dilation: spacing of the kernel's taps.
        together: sum over the images; the result is then ``(kh, kw, 1, c)``, as a kernel is.
    """
    shape = (*size, 1, x.shape[3]) if together else (x.shape[0], *size, x.shape[3])
    summed = (0, 1) if together else (1,)

    def by_rows_of_images(x: Array, cotangent: Array) -> Array:
        def add(sums: list[Array], row: Array) -> tuple[list[Array], None]:
            own = lax.dynamic_index_in_dim(cotangent, row, 1, keepdims=False)
            added: list[Array] = []
            for i in range(size[0]):
                line = lax.dynamic_index_in_dim(
                    x, row * strides[0] + i * dilation[0], 1, keepdims=False
                )
                for j in range(size[1]):
                    first = j * dilation[1]
                    last = first + (own.shape[1] - 1) * strides[1] + 1
                    tap = line[:, first : last : strides[1]]
                    added.append(sums[len(added)] + tap * own)
            return added, None

        n, rows, columns, channels = cotangent.shape
        none = jnp.zeros((n, columns, channels), jnp.promote_types(x.dtype, jnp.float32))
        sums, _ = lax.scan(add, [none] * (size[0] * size[1]), jnp.arange(rows))
        return jnp.stack([jnp.sum(s, axis=summed) for s in sums], axis=-2).reshape(shape)

    def by_taps(x: Array, cotangent: Array) -> Array:
        rows, columns = cotangent.shape[1:3]
        wide = jnp.promote_types(x.dtype, jnp.float32)
        firsts = np.arange(size[0]) * dilation[0], np.arange(size[1]) * dilation[1]
        spans = ((rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1)

        def tap(place: tuple[Array, Array]) -> Array:
            zero = np.uint32(0)  # unsigned: nobody asks whether it is negative
            start = (zero, *place, zero)
            under = lax.dynamic_slice(x, start, (x.shape[0], *spans, x.shape[3]))
            under = _tap(under, 0, 0, (rows, columns), strides)
            return jnp.sum(cotangent * under, axis=(*summed, 2), dtype=wide)

        # A loop, so that its few operations stand there once.
        places = np.meshgrid(*firsts, indexing="ij")
        sums = lax.map(tap, tuple(jnp.asarray(place.ravel(), jnp.uint32) for place in places))
        return (sums if together else jnp.moveaxis(sums, 0, 1)).reshape(shape)

    return by_platform(by_rows_of_images, by_taps, x, cotangent)


def conv2d_depthwise(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, "n oh ow c"]:
    """Channel-wise convolution as a sum of shifted products; arguments as in `conv2d`."""
    x = _pad(x, padding)
    size = _output_size(x, kernel, strides, dilation)
    total = jnp.zeros((x.shape[0], *size, x.shape[-1]), x.dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            tap = _tap(x, i * dilation[0], j * dilation[1], size, strides)
            total = total + tap * kernel[i, j, 0][None, None, None, :]
    return total
