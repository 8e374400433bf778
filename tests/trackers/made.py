"""States and responses made by hand, for tests of what a tracker does with them."""

import jax
import jax.numpy as jnp
import pytest

from jaxtrack.base import variable_shapes
from jaxtrack.trackers.ostrack.head import CentreMaps
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.tadt import tracker as tadt

FRAME = jnp.zeros((120, 160, 3), jnp.uint8)
BOX = jnp.asarray([60.0, 40, 24, 32])
NAMES = ("siamfc-tiny", "siamrpnpp-tiny", "mlt-tiny-mt", "tadt-tiny", "ostrack-tiny")


def quick(*names):
    """Return all families as parameters; those that are not named run with ``-m slow``."""
    return [pytest.param(n, marks=[] if n in names else pytest.mark.slow) for n in NAMES]


def start(tracker):
    """A state whose arrays of learned values are zero."""
    size = jnp.asarray(FRAME.shape[:2], jnp.int32)
    config = tracker.config
    shapes = jax.eval_shape(
        lambda v: tracker.init(config, v, FRAME, BOX, size), variable_shapes(tracker)
    )
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state = state._replace(frame_size=size, confidence=jnp.ones(()))
    middle, wh = BOX[:2] + BOX[2:] / 2, BOX[2:]
    if hasattr(state, "rescale"):
        first = tadt.first_frame(config, BOX, size)
        return state._replace(
            target=first.target,
            window=first.window,
            rescale=first.rescale,
            input_side=first.input_side,
            template_size=first.template_size,
            energy=jnp.ones(()),
        )
    if hasattr(state, "box"):
        return state._replace(box=BOX, correction=jnp.ones(2))
    if hasattr(state, "kernels"):
        return state._replace(centre=middle, size=wh, correction=jnp.ones(2))
    state = state._replace(centre=middle[::-1] - 0.5, size=wh[::-1])
    if hasattr(state, "search_side"):
        state = state._replace(exemplar_side=jnp.asarray(56.0), search_side=jnp.asarray(112.0))
    return state


def peaked(side, row, column, sharp=1.0):
    line = jnp.arange(side)
    distance = (line[:, None] - row) ** 2 + (line[None, :] - column) ** 2
    return jnp.exp(-sharp * distance.astype(jnp.float32))


def maps(tracker, state):
    """Responses with one peak, off the middle, that asks for a larger target where maps can."""
    config = tracker.config
    if isinstance(config, siamrpn.Config):
        side = siamrpn.map_size(config, config.instance_size)
        count = len(config.ratios) * len(config.scales)
        foreground = 8 * peaked(side, side // 2 + 2, side // 2 - 1) - 4
        logits = jnp.stack([jnp.zeros((side, side)), foreground], axis=-1)
        cls = jnp.repeat(logits, count, axis=-1)
        return siamrpn.Maps(cls[None], jnp.full((1, side, side, 4 * count), 0.2))
    if isinstance(config, tadt.Config):
        side = config.map_canvas
        cells = int(state.input_side) // config.stride
        one = peaked(side, cells // 2 + 1, cells // 2 - 1)
        return tadt.Maps(jnp.stack([one * 0.5, one * 0.6, one]), jnp.asarray(0.8))
    if hasattr(config, "patch"):
        side = config.search_grid
        score = 0.9 * peaked(side, side // 2 + 1, side // 2 - 2)[None]
        size = jnp.full((1, side, side, 2), 0.4)
        return CentreMaps(score, size, jnp.zeros((1, side, side, 2)))
    one = 8 * peaked(17, 10, 7) - 4
    return jnp.stack([one * 0.5, one * 0.6, one])
