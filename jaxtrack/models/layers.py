"""Layers with the published codes' semantics: convolution, batch normalisation, pooling."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.ops.conv import conv2d, refuse_small
from jaxtrack.ops.mapping import by_platform
from jaxtrack.ops.precision import compute_dtype

Initializer = Callable[..., Any]

# PyTorch's default for kernels: U(-1, 1) / sqrt(fan in), the fan read from the kernel's shape.
torch_kernel_init: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_init(fan_in: int) -> Initializer:
    """Return PyTorch's default initialiser of biases, and of kernels whose shape does not tell their fan.

    Args:
        fan_in: inputs of one output, for a convolution kh * kw * channels.

    Returns:
        ``(key, shape, dtype)`` to values ``U(-1, 1) / sqrt(fan_in)``.
    """
    bound = fan_in**-0.5

    def draw(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def keep(module: nn.Module, name: str, x: Array) -> Array:
    """Return an intermediate map, and offer it to whoever asks for the collection ``intermediates``.

    Args:
        module: the module that is running.
        name: of the map; it is kept as ``stage.<name>``.
        x: the map.
    """
    module.sow("intermediates", f"stage.{name}", x)
    return x


def shared(block: nn.Module, *inputs: Any, remat: bool = False, **settings: Hashable) -> Any:
    """Run a submodule as a compiled function, one for all submodules of equal settings and shapes.

    A program then holds a block once, however often a network repeats it, and each is traced once.

    Args:
        block: a submodule of the module that calls this; it draws no random numbers but ``drop_path``.
        inputs: arrays (or None).
        remat: its inside is computed anew for the gradient instead of kept.
        settings: static arguments, by name.
    """
    if block.is_initializing() or block.is_mutable_collection("intermediates"):
        return block(*inputs, **settings)  # type: ignore[operator]
    alone = block.clone(parent=None, name=None)
    if not _is_static(alone):
        return block(*inputs, **settings)  # type: ignore[operator]
    mutable = block.is_mutable_collection("batch_stats")
    rngs = {"drop_path": block.make_rng("drop_path")} if block.has_rng("drop_path") else {}
    variables, static = block.variables, tuple(sorted(settings.items()))
    run = jax.checkpoint(_run, static_argnums=(0, 1, 5)) if remat else _run
    out, moved = run(alone, mutable, variables, rngs, inputs, static)
    for name, value in moved.get("batch_stats", {}).items():
        block.put_variable("batch_stats", name, value)
    return out


def _is_static(block: nn.Module) -> bool:
    """Say whether a block's settings are values; a search makes one of them an array."""
    try:
        hash(block)
    except TypeError:
        return False
    return True


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def _run(
    block: nn.Module,
    mutable: bool,
    variables: Any,
    rngs: Any,
    inputs: tuple[Any, ...],
    settings: tuple[tuple[str, Hashable], ...],
) -> tuple[Any, Any]:
    options: dict[str, Any] = dict(settings)
    collections = ["batch_stats"] if mutable else []
    return block.apply(variables, *inputs, mutable=collections, rngs=rngs, **options)


def parameter(
    module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Return a float32 parameter of a module: `flax.linen.Module.param`, quicker to trace.

    There the initialiser of a parameter that exists is traced each time, to compare shapes.

    Args:
        module: that calls this in ``setup`` or in its compact method.
        name: of the parameter.
        init: ``(key, shape, dtype)`` to its first value.
        shape: of the parameter.

    Raises:
        flax.errors.ScopeParamShapeError: what is given as the parameter has another shape.
    """
    if module.is_initializing() or not module.has_variable("params", name):
        return module.param(name, init, shape, jnp.float32)
    value: Array = module.get_variable("params", name)
    if value.shape != shape:
        path = "/".join(("", *module.path))
        raise flax.errors.ScopeParamShapeError(name, path, value.shape, shape)
    return value


class Conv(nn.Module):
    """Convolution whose formulation is chosen per platform (`jaxtrack.ops.conv.conv2d`).

    Parameters: ``kernel`` HWIO and, with ``use_bias``, ``bias``. Padding is symmetric zeros.
    """

    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.he_normal()
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n oh ow o"]:
        """Convolve ``(n, h, w, c)``; the result has the dtype of `jaxtrack.ops.precision.compute_dtype`."""
        x = x.astype(compute_dtype(x.dtype))
        size = self.kernel_size
        kh, kw = (size, size) if isinstance(size, int) else size
        shape = (kh, kw, x.shape[-1] // self.groups, self.features)
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        pad = (self.padding, self.padding)
        y = conv2d(
            x,
            kernel.astype(x.dtype),
            strides=(self.strides, self.strides),
            padding=(pad, pad),
            dilation=(self.dilation, self.dilation),
            groups=self.groups,
        )
        if self.use_bias:
            bias = parameter(self, "bias", self.bias_init, (self.features,))
            y = y + bias.astype(y.dtype)[None, None, None, :]
        return y


class BatchNorm(nn.Module):
    """Batch normalisation as in PyTorch.

    Normalises by the biased batch variance, but the running variance takes the unbiased one;
    ``running = (1 - momentum) * running + momentum * batch``. Parameters ``scale`` and ``bias``, statistics
    ``mean`` and ``var`` in ``batch_stats``. Statistics are per device (never synchronised), as published.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"], train: bool) -> Float[Array, "*n c"]:
        """Normalise over all axes but the last.

        Args:
            x: ``(..., c)``.
            train: use the batch's statistics and move the running ones (when mutable).
        """
        shape = (x.shape[-1],)
        scale = parameter(self, "scale", nn.initializers.ones, shape)
        bias = parameter(self, "bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not train:
            return normalise(x, scale, bias, mean.value, var.value, self.epsilon)
        out, *found = normalise_batch(x, scale, bias, self.epsilon)
        found = jax.lax.stop_gradient(found)
        if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            count = x.size // x.shape[-1]
            unbiasing = count / max(count - 1, 1)
            mean.value, var.value = move_statistics(
                mean.value, var.value, *found, self.momentum, unbiasing
            )
        return out


# These are compiled functions of their own, so that a program holds each shape of them once.


@functools.partial(jax.jit, static_argnums=5)
def normalise(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> Array:
    """Normalise ``(..., c)`` by running statistics."""
    # As one multiply and one add, so that the compiler folds it into the convolution's epilogue.
    factor, offset = _folded(scale, bias, mean, var, epsilon)
    y = x.astype(jnp.float32)
    return (y * _spread(factor, x) + _spread(offset, x)).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=4)
def _folded(
    scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> tuple[Array, Array]:
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return factor, bias - mean * factor


def _spread(channels: Float[Array, "c"], like: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Repeat values of channels at every place of an array."""
    return jax.lax.broadcast_in_dim(channels, like.shape, (like.ndim - 1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_batch(
    x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Normalise ``(..., c)`` by its own statistics.

    Only input and statistics are kept for the gradient (of any order, but there is no forward mode);
    left to itself it would keep two more maps.

    Args:
        x: ``(..., c)``.
        scale: ``(c,)``.
        bias: ``(c,)``.
        epsilon: added to the variance.

    Returns:
        The result, and mean and biased variance ``(c,)``, which carry no gradient.
    """
    return _normalise_batch(x, scale, bias, epsilon)[:3]


@functools.partial(jax.jit, static_argnums=3)
def _normalise_batch(
    x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, Array, Array, Array]:
    y = x.astype(jnp.float32)
    axes, count = tuple(range(x.ndim - 1)), jnp.full_like(scale, x.size // x.shape[-1])
    mean = jnp.sum(y, axis=axes) / count
    centred = y - _spread(mean, y)
    var = jnp.sum(jnp.square(centred), axis=axes) / count
    inverse = jax.lax.rsqrt(var + epsilon)
    out = centred * _spread(scale * inverse, y) + _spread(bias, y)
    return out.astype(x.dtype), mean, var, inverse


def _normalise_forward(
    x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    out, mean, var, inverse = _normalise_batch(x, scale, bias, epsilon)
    return (out, mean, var), (x, scale, mean, inverse)


@functools.partial(jax.jit, static_argnums=0)
def _normalise_backward(
    _: float, kept: tuple[Array, ...], cotangents: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    x, scale, mean, inverse = kept
    to_out = cotangents[0].astype(jnp.float32)
    y = x.astype(jnp.float32)
    axes, count = tuple(range(x.ndim - 1)), jnp.full_like(scale, x.size // x.shape[-1])
    centred = y - _spread(mean, y)
    to_bias = jnp.sum(to_out, axis=axes)
    to_scale = jnp.sum(to_out * centred, axis=axes) * inverse
    # Without its parts along the constant and along the result, which the statistics take out again.
    along = _spread(to_scale * inverse / count, y)
    to_x = (to_out - _spread(to_bias / count, y) - centred * along) * _spread(scale * inverse, y)
    return to_x.astype(x.dtype), to_scale, to_bias


normalise_batch.defvjp(_normalise_forward, _normalise_backward)


@functools.partial(jax.jit, static_argnums=4)
def move_statistics(
    running_mean: Float[Array, "c"],
    running_var: Float[Array, "c"],
    mean: Float[Array, "c"],
    var: Float[Array, "c"],
    momentum: float,
    unbiasing: float,
) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    """Return the running mean and variance after a batch.

    Args:
        running_mean: before it.
        running_var: before it.
        mean: of the batch.
        var: of the batch, biased.
        momentum: weight of the batch.
        unbiasing: factor that makes its variance unbiased.
    """
    running_mean = (1 - momentum) * running_mean + momentum * mean
    return running_mean, (1 - momentum) * running_var + momentum * (var * unbiasing)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def max_pool(
    x: Float[Array, "n h w c"], size: int = 3, stride: int = 2, padding: int = 0
) -> Float[Array, "n oh ow c"]:
    """Max pooling, floor mode, as a maximum over strided slices.

    The gradient of ``reduce_window`` costs ten times as much on a CPU. On ties the gradient goes to the
    first maximum in row-major order, as in PyTorch: each later tap wins only where it is greater.

    Args:
        x: ``(n, h, w, c)``.
        size: side of the pooling window.
        stride: step in both axes.
        padding: border of minus infinity on every side.

    Raises:
        JaxtrackError: the window finds no place on the input.
    """
    refuse_small("a window", (size, size), [side + 2 * padding for side in x.shape[1:3]])
    if padding:
        border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        x = jnp.pad(x, border, constant_values=-jnp.inf)
    along = functools.partial(_max_along, size=size, stride=stride)
    # In two passes a third of the program; on a CPU each would go through the memory.
    return by_platform(
        functools.partial(_max_of_all, size=size, stride=stride),
        lambda x: along(along(x, axis=2), axis=1),
        x,
    )


def _max_of_all(x: Array, size: int, stride: int) -> Array:
    oh = (x.shape[1] - size) // stride + 1
    ow = (x.shape[2] - size) // stride + 1
    taps = [
        x[:, i : i + (oh - 1) * stride + 1 : stride, j : j + (ow - 1) * stride + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return functools.reduce(_first_maximum, taps)


def _max_along(x: Array, axis: int, size: int, stride: int) -> Array:
    length = (x.shape[axis] - size) // stride * stride + 1
    taps = [jax.lax.slice_in_dim(x, i, i + length, stride, axis) for i in range(size)]
    return functools.reduce(_first_maximum, taps)


def _first_maximum(best: Array, tap: Array) -> Array:
    return jax.lax.select(tap > best, tap, best)
