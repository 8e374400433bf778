"""A low score in each family: the target is held, the region widens, a good score ends it; made responses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack.base import variable_shapes
from jaxtrack.ops.confidence import MARGIN, RESPONSE
from jaxtrack.ops.lost import LostRule
from jaxtrack.trackers.ostrack.head import CentreMaps
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.tadt import tracker as tadt

FRAME = jnp.zeros((120, 160, 3), jnp.uint8)
BOX = jnp.asarray([60.0, 40, 24, 32])
# A score never reaches 2: every frame is a miss.
ALWAYS = LostRule(below=2.0, above=2.0, stay=True, patience=1, step=1.5, widest=2.0)
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
        return state._replace(centre=middle, size=wh)
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


def follow(name, frames, **changes):
    """Boxes, scores and sides of the windows over frames with the same responses."""
    tracker = jaxtrack.get_tracker(name)
    tracker = dataclasses.replace(tracker, config=dataclasses.replace(tracker.config, **changes))
    state, seen = start(tracker), maps(tracker, start(tracker))

    @jax.jit
    def step(state):
        look = tracker.steps.cut(tracker.config, state, FRAME)
        decision = tracker.steps.decide(tracker.config, {}, state, look, seen)
        after = tracker.steps.update(tracker.config, {}, state, FRAME, decision)
        windows = look.windows
        side = windows.width[-1] if hasattr(windows, "width") else windows[0, 2]
        return after, (decision.box, decision.score, side, after.misses)

    found = []
    for _ in range(frames):
        state, one = step(state)
        found.append(jax.tree.map(np.asarray, one))
    return [np.stack(column) for column in zip(*found)]


@pytest.mark.parametrize("name", quick("siamrpnpp-tiny", "ostrack-tiny"))
def test_a_miss_holds_the_target_and_widens_the_region(name):
    boxes, _, sides, misses = follow(name, 4, lost=ALWAYS)
    assert misses.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(boxes, np.broadcast_to(boxes[0], boxes.shape), atol=1e-3)
    np.testing.assert_allclose(boxes[0][2:], BOX[2:], rtol=0.03)
    np.testing.assert_allclose(sides / sides[0], [1, 1, 1.5, 2], rtol=0.02)


@pytest.mark.parametrize("name", ["ostrack-tiny"])
def test_the_place_may_move_while_the_size_is_held(name):
    plain, *_ = follow(name, 1)
    held, *_ = follow(name, 1, lost=dataclasses.replace(ALWAYS, stay=False))
    middle = [b[0][:2] + b[0][2:] / 2 for b in (plain, held)]
    np.testing.assert_allclose(*middle, atol=0.1)
    assert np.abs(plain[0][2:] - BOX[2:]).max() > 0.3
    np.testing.assert_allclose(held[0][2:], BOX[2:], atol=1e-3)


@pytest.mark.parametrize("name", quick("siamrpnpp-tiny"))
def test_a_margin_takes_the_place_of_the_score(name):
    _, own, *_ = follow(name, 3, confidence=RESPONSE)
    _, margins, *_ = follow(name, 3, confidence=MARGIN)
    assert np.ptp(own) < 0.2
    assert not np.allclose(own, margins)
    assert ((margins >= 0) & (margins <= 1)).all()
    # One clear peak: its margin is nearly 1, and so the running mean stays there.
    assert margins[-1] > 0.9


@pytest.mark.parametrize("name", ["siamfc-tiny", "mlt-tiny-mt"])
def test_a_lost_target_is_found_aside(name):
    """Three crops at the target's own scale; a peak in the last one lies as far away as that crop does."""
    rule = dataclasses.replace(ALWAYS, stay=False, step=1.0, aside=0.5, doubt=0.9)
    tracker = jaxtrack.get_tracker(name)
    config = dataclasses.replace(tracker.config, lost=rule)
    state = start(tracker)._replace(misses=jnp.asarray(4, jnp.int32))  # along the rows
    seen = tracker.steps.cut(config, state, FRAME).windows
    assert np.ptp(np.asarray(seen.width)) == 0
    side = float(seen.width[0])
    np.testing.assert_allclose(np.diff(seen.left), [side / 2] * 2, atol=1)
    assert np.ptp(np.asarray(seen.top)) == 0
    middle = peaked(17, 8, 8)
    for height, crop in ((1.05, 0), (1.3, 1)):
        maps = jnp.stack([middle * 0.2, middle, middle * height]) * 8
        decision = tracker.steps.decide(config, {}, state, None, maps)
        away = np.asarray(decision.centre - state.centre)
        np.testing.assert_allclose(away, [0, crop * side / 2], atol=1.5)
        np.testing.assert_allclose(decision.size, state.size)
    # A frame before: at other scales.
    state = state._replace(misses=jnp.asarray(1, jnp.int32))
    seen = tracker.steps.cut(config, state, FRAME).windows
    assert np.ptp(np.asarray(seen.width)) > 0
