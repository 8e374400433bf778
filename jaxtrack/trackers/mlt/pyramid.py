"""Choosing place and scale from the responses of a scale pyramid, and the move that follows from it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtrack.ops.response import first_peak, hann_window, pick, resize_maps


class Peak(NamedTuple):
    """Where the target is, in the pyramid's own units.

    Attributes:
        scale: ``()`` int32 index of the best scale.
        factor: ``()`` its factor; with softness the expected one.
        offset: ``(2,)`` row and column from the middle, as a share of the response's side; with softness
            the expected ones.
        logit: ``()`` response at the peak of the best scale, before penalty and window.
        response: ``(m, m)`` the best scale's response, of sum one, mixed with the window.
    """

    scale: Int[Array, ""]
    factor: Float[Array, ""]
    offset: Float[Array, "2"]
    logit: Float[Array, ""]
    response: Float[Array, "m m"]


def find_peak(
    responses: Float[Array, "s m m"],
    factors: np.ndarray | Float[Array, "s"],
    keep: np.ndarray | Float[Array, "s"],
    window_influence: float | Array,
    up: int,
    softness: float = 0.0,
) -> Peak:
    """Upsample, hold back scale changes, pick the scale, mix with the cosine window, take the peak.

    Args:
        responses: logits of all scales, smallest region first; the middle scale is the current one.
        factors: ``(s,)`` the scales.
        keep: ``(s,)`` share that each keeps of the *height of its peak above the map's minimum* (so that it
            holds back negative peaks as well as positive ones): 1 for the middle one.
        window_influence: weight of the window against the response, both of sum one.
        up: bicubic upsampling of the responses.
        softness: 0: maxima. Above 0: expectations under a softmax, in units of one logit between scales
            and of the mixed map's maximum between cells: differentiable.

    Reference:
        SiamFC, section 3.1 ("Tracking algorithm"), the same steps.
    """
    side = responses.shape[-1] * up
    maps = resize_maps(responses, (side, side), "cubic")
    lowest = jnp.min(maps, axis=(1, 2), keepdims=True)
    height = jnp.max(maps - lowest, axis=(1, 2)) * jnp.asarray(keep, maps.dtype)
    scale = jnp.argmax(height).astype(jnp.int32)
    steps = jnp.asarray(factors, maps.dtype)
    best = pick(maps, scale) - pick(lowest, scale)
    best = best / (jnp.sum(best) + 1e-16)
    hann = hann_window(side)
    window = jnp.asarray(hann / hann.sum(), maps.dtype)
    mixed = (1 - window_influence) * best + window_influence * window
    peak = first_peak(mixed)
    logit = pick(maps, scale, *peak)
    middle = (side - 1) / 2
    if not softness:
        return Peak(
            scale, pick(steps, scale), (peak - middle).astype(maps.dtype) / side, logit, mixed
        )
    share = jax.nn.softmax(height / softness)
    weight = jax.nn.softmax((mixed / jnp.max(mixed) / softness).reshape(-1)).reshape(mixed.shape)
    line = (jnp.arange(side) - middle).astype(maps.dtype) / side
    offset = jnp.stack([jnp.sum(jnp.sum(weight, axis=axis) * line) for axis in (1, 0)])
    return Peak(scale, jnp.sum(share * steps), offset, logit, mixed)
