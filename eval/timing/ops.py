"""The formulations of convolution and depth-wise correlation, side by side."""

from __future__ import annotations

import functools
from typing import Any

import jax

from jaxtrack.ops import conv, correlation
from jaxtrack.ops.winograd import conv2d_winograd

from .clock import clock, describe_device

# Layers of the published networks that take most of the time: input, kernel, stride, groups, dilation.
_SHAPES = {
    "siamfc conv1, 3 scales": ((3, 255, 255, 3), (11, 11, 3, 96), 2, 1, 1),
    "siamfc conv2, 3 scales": ((3, 61, 61, 96), (5, 5, 48, 256), 1, 2, 1),
    "siamfc conv3, 3 scales": ((3, 28, 28, 256), (3, 3, 256, 384), 1, 1, 1),
    "siamfc conv4, 3 scales": ((3, 26, 26, 384), (3, 3, 192, 384), 1, 2, 1),
    "siamfc conv5, 3 scales": ((3, 24, 24, 384), (3, 3, 192, 256), 1, 2, 1),
    "mlt conv2": ((1, 61, 61, 128), (5, 5, 128, 256), 1, 1, 1),
    "resnet layer3": ((1, 33, 33, 256), (3, 3, 256, 256), 1, 1, 2),
    "vgg conv1_2": ((1, 180, 180, 64), (3, 3, 64, 64), 1, 1, 1),
    "vgg conv4": ((1, 45, 45, 512), (3, 3, 512, 512), 1, 1, 1),
}


# Depth-wise correlations: template, search map (SiamRPN++'s, and the one of a larger search region).
_CORRELATIONS = {
    "depth-wise 5x5": ((1, 5, 5, 256), (1, 29, 29, 256)),
    "depth-wise 5x5, lost target": ((1, 5, 5, 256), (1, 101, 101, 256)),
}


def measure_ops(rounds: int) -> dict[str, Any]:
    """Return milliseconds of each formulation on the networks' heaviest layers and correlations."""
    figures: dict[str, Any] = {"device": describe_device()}
    for name, (shape, kernel_shape, stride, groups, dilation) in _SHAPES.items():
        partial: Any = functools.partial
        tapped = {"strides": (stride, stride), "dilation": (dilation, dilation)}
        forms = {"chosen": partial(conv.conv2d, groups=groups, **tapped)}
        forms["xla"] = partial(conv.conv2d_xla, groups=groups, **tapped)
        if groups == 1:
            forms["patches"] = partial(conv.conv2d_patches, **tapped)
            forms["rows"] = partial(conv.conv2d_rows, **tapped)
            if stride == dilation == 1:
                forms["winograd"] = conv2d_winograd
        figures[name] = _in_turns(forms, shape, kernel_shape, rounds)
    for name, (template, search) in _CORRELATIONS.items():
        forms = {
            "chosen": correlation.depthwise_correlation,
            "xla": correlation.depthwise_correlation_grouped,
        }
        figures[name] = _in_turns(forms, template, search, rounds)
    return figures


def _in_turns(
    forms: dict[str, Any], first: tuple[int, ...], second: tuple[int, ...], rounds: int
) -> dict[str, float]:
    """Return the least milliseconds of several functions of the same two arrays, measured in turns."""
    keys = jax.random.split(jax.random.key(0))
    x, y = jax.random.normal(keys[0], first), jax.random.normal(keys[1], second)
    compiled = {key: jax.jit(form) for key, form in forms.items()}
    for form in compiled.values():
        jax.block_until_ready(form(x, y))
    times: dict[str, list[float]] = {key: [] for key in compiled}
    for _ in range(rounds):
        for key, form in compiled.items():
            times[key] += clock(functools.partial(form, x, y), 1)
    return {key: 1e3 * min(values) for key, values in times.items()}
