"""Images one after the other, where that is faster than together."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax
from jaxtyping import Array, Float

Function = Callable[[Array], Array]


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
    if jax.default_backend() != "cpu":
        return network(images)
    return one_by_one(network, images)
