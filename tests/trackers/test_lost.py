"""A low score in each family: the target is held, the region widens, a good score ends it; made responses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack.ops.confidence import MARGIN, RESPONSE
from jaxtrack.ops.lost import LostRule
from jaxtrack.ops.template_update import FIXED
from tests.trackers.made import BOX, FRAME, maps, peaked, quick, start

# A score never reaches 2: every frame is a miss.
ALWAYS = LostRule(below=2.0, above=2.0, stay=True, patience=1, step=1.5, widest=2.0)


def follow(name, frames, **changes):
    """Boxes, scores and sides of the windows over frames with the same responses."""
    tracker = jaxtrack.get_tracker(name)
    # The network of a template that follows the target has no weights here.
    config = dataclasses.replace(tracker.config, template_update=FIXED, **changes)
    tracker = dataclasses.replace(tracker, config=config)
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
    look = tracker.steps.cut(config, state, FRAME)
    seen = look.windows
    assert np.ptp(np.asarray(seen.width)) == 0
    side = float(seen.width[0])
    np.testing.assert_allclose(np.diff(seen.left), [side / 2] * 2, atol=1)
    assert np.ptp(np.asarray(seen.top)) == 0
    middle = peaked(17, 8, 8)
    for height, crop in ((1.05, 0), (1.3, 1)):
        maps = jnp.stack([middle * 0.2, middle, middle * height]) * 8
        decision = tracker.steps.decide(config, {}, state, look, maps)
        away = np.asarray(decision.centre - state.centre)
        np.testing.assert_allclose(away, [0, crop * side / 2], atol=1.5)
        np.testing.assert_allclose(decision.size, state.size)
    # A frame before: at other scales.
    state = state._replace(misses=jnp.asarray(1, jnp.int32))
    seen = tracker.steps.cut(config, state, FRAME).windows
    assert np.ptp(np.asarray(seen.width)) > 0
