"""Colours in each family: they decide between equal peaks, and a box that has lost them has a lower score."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack.ops.colour import UNUSED, ColourCue
from jaxtrack.ops.confidence import MARGIN
from jaxtrack.ops.template_update import FIXED
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.tadt import tracker as tadt
from tests.trackers.made import BOX, FRAME, maps, peaked, quick

SIZE = jnp.asarray(FRAME.shape[:2], jnp.int32)
COLOURED = dataclasses.replace(MARGIN, colour=0.5)


def picture(*corners):
    """Green, with a red target at each corner x, y; none: it has gone."""
    frame = np.broadcast_to(np.uint8([30, 160, 60]), FRAME.shape).copy()
    for x, y in corners:
        frame[y : y + int(BOX[3]), x : x + int(BOX[2])] = [200, 30, 30]
    return jnp.asarray(frame)


def begun(name, **changes):
    """A tracker with fresh weights and its state after a frame with the target."""
    tracker = jaxtrack.get_tracker(name)
    config = dataclasses.replace(tracker.config, template_update=FIXED, **changes)
    variables = jax.jit(lambda: tracker.init_variables(config, jax.random.key(0)))()
    there = picture((60, 40))
    state = jax.jit(lambda v: tracker.init(config, v, there, BOX, SIZE))(variables)
    return dataclasses.replace(tracker, config=config), variables, state


def unhelped(name):
    """The change of settings by which colours do not help to find the target, where they can."""
    config = jaxtrack.get_tracker(name).config
    return {"colour": UNUSED} if hasattr(config, "colour") else {}


@pytest.mark.parametrize("name", quick("siamfc-tiny", "siamrpnpp-tiny", "ostrack-tiny"))
def test_a_box_that_has_lost_its_colours_scores_lower(name):
    tracker, variables, state = begun(name, confidence=COLOURED, **unhelped(name))
    seen = maps(tracker, state)

    def score(frame):
        look = tracker.steps.cut(tracker.config, state, frame)
        return tracker.steps.decide(tracker.config, variables, state, look, seen)

    gone = score(picture())
    there = score(picture(tuple(round(float(at)) for at in gone.box[:2])))
    np.testing.assert_allclose(there.box, gone.box, atol=1e-3)
    assert float(there.score - gone.score) > 0.35
    assert float(there.confidence) == pytest.approx(float(gone.confidence), abs=1e-5)


@pytest.mark.parametrize("name", quick("siamfc-tiny"))
def test_nothing_is_kept_where_colours_are_not_used(name):
    assert begun(name, confidence=MARGIN, **unhelped(name))[2].colours == ()


@pytest.mark.parametrize(
    "name", ["siamfc-tiny", "siamrpnpp-tiny", pytest.param("tadt-tiny", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("side", [-1, 1])
def test_colours_decide_between_equal_peaks(name, side):
    tracker, variables, state = begun(name, colour=ColourCue(weight=0.3))
    config = tracker.config
    if isinstance(config, siamrpn.Config):
        cells = siamrpn.map_size(config, config.instance_size)
        both = peaked(cells, cells // 2, cells // 2 - 4) + peaked(cells, cells // 2, cells // 2 + 4)
        count = len(config.ratios) * len(config.scales)
        logits = jnp.stack([jnp.zeros((cells, cells)), 8 * both - 4], axis=-1)
        deltas = jnp.zeros((1, cells, cells, 4 * count))
        seen = siamrpn.Maps(jnp.repeat(logits, count, axis=-1)[None], deltas)
    elif isinstance(config, tadt.Config):
        middle = int(state.input_side) // config.stride // 2
        both = sum(peaked(config.map_canvas, middle, middle + 4 * sign) for sign in (-1, 1))
        seen = tadt.Maps(jnp.stack([both * 0.5, both, both * 0.5]), jnp.asarray(0.8))
    else:
        both = peaked(17, 8, 4) + peaked(17, 8, 12)
        seen = jnp.stack([both * 0.5, both, both * 0.5]) * 8 - 4
    # Four cells lie 32 pixels of the crop away.
    away = round(32 * float(jnp.sqrt((24 + 28) * (32 + 28))) / 127)
    if hasattr(state, "rescale"):
        away = round(32 / float(state.rescale))
    frame = picture((60 + side * away, 40))
    look = tracker.steps.cut(config, state, frame)
    decision = tracker.steps.decide(config, variables, state, look, seen)
    moved = float(decision.box[0] + decision.box[2] / 2 - (BOX[0] + BOX[2] / 2))
    assert moved == pytest.approx(side * away, abs=3)
