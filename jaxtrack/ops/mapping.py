"""Formulations by platform, and images one after the other where that is faster than together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import lax
from jaxtyping import Array, Float

Function = Callable[[Array], Array]


def by_platform(cpu: Callable[..., Any], other: Callable[..., Any], *arguments: Any) -> Any:
    """Compute with one of two formulations, chosen when the program is lowered.

    So a program for a GPU can be lowered and exported on a machine without one. Only the chosen one gets
    into the program; both are traced.

    Args:
        cpu: the formulation for CPUs.
        other: the formulation for accelerators; equal but for rounding.
        arguments: arrays, or trees of them.
    """
    return lax.platform_dependent(*arguments, cpu=cpu, default=other)


def one_by_one(function: Function, images: Float[Array, "n h w c"]) -> Float[Array, "n a b d"]:
    """Apply a function of a batch to its images in turn.

    Args:
        function: ``(1, h, w, c)`` to ``(1, a, b, d)``.
        images: ``(n, h, w, c)``.
    """
    if images.shape[0] == 1:
        return function(images)
    return lax.map(lambda image: function(image[None])[0], images)


def image_by_image(network: Function, images: Float[Array, "n h w c"]) -> Float[Array, "n a b d"]:
    """Run a network at rest on images: together, or on CPUs `one_by_one`.

    There one image's maps stay in the cache from layer to layer, and the working memory, which the
    system hands out anew at each call, is that of one image.

    Args:
        network: ``(n, h, w, c)`` to ``(n, a, b, d)``, each image for itself (no batch statistics).
        images: ``(n, h, w, c)``.
    """
    if images.shape[0] == 1:
        return network(images)
    return by_platform(lambda x: one_by_one(network, x), network, images)
