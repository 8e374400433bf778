"""What a low score does: misses counted, sizes held, regions widened; and nothing by default."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import lost
from jaxtrack.ops.lost import LostRule

RULE = LostRule(below=0.3, above=0.6, patience=2, step=1.5, widest=2.0)


def test_misses_are_counted_until_a_score_ends_the_search():
    scores = jnp.asarray([0.9, 0.2, 0.5, 0.59, 0.6, 0.5, 0.1])

    def step(misses, score):
        after = lost.count(RULE, misses, score)
        return after, after

    _, found = jax.lax.scan(step, jnp.zeros((), jnp.int32), scores)
    # A score between the thresholds goes on with a search, and begins none.
    assert found.tolist() == [0, 1, 2, 3, 0, 0, 1]


def test_the_region_grows_by_steps_up_to_its_limit():
    sides = [float(lost.widened(RULE, jnp.asarray(n), jnp.float32(100))) for n in range(6)]
    assert sides == [100, 100, 100, 150, 200, 200]
    still = LostRule(below=0.3, above=0.3)
    assert lost.widened(still, jnp.asarray(9), 100.0) == 100


def test_a_miss_leaves_the_old_value():
    old, new = jnp.asarray([1.0, 2.0]), jnp.asarray([3.0, 4.0])
    for misses, want in ((0, new), (1, old), (7, old)):
        np.testing.assert_array_equal(lost.held(RULE, jnp.asarray(misses), old, new), want)


def test_a_pyramid_looks_along_another_line_at_each_miss():
    rule = LostRule(below=0.3, above=0.3, patience=2, aside=0.5, doubt=0.8)
    scales = jnp.asarray([0.9, 1.0, 1.1])
    for misses in (0, 2):
        seen = lost.views(rule, jnp.asarray(misses), scales, 0.7)
        np.testing.assert_array_equal(seen.factors, scales)
        np.testing.assert_allclose(seen.keep, [0.7, 1, 0.7])
        assert not seen.aside.any()
    lines = set()
    for misses in range(3, 7):
        seen = lost.views(rule, jnp.asarray(misses), scales, 0.7)
        np.testing.assert_array_equal(seen.factors, [1, 1, 1])
        np.testing.assert_allclose(seen.keep, [0.8, 1, 0.8])
        np.testing.assert_array_equal(seen.aside[0], -seen.aside[2])
        assert not seen.aside[1].any()
        assert np.abs(seen.aside[2]).max() == 0.5
        lines.add(tuple(np.asarray(seen.aside[2]).tolist()))
        sides, centre = jnp.asarray([10.0, 20, 40]), jnp.asarray([3.0, 4])
        middles = lost.middles(seen, centre, sides)
        np.testing.assert_allclose(middles - centre[None], seen.aside * sides[:, None])
        moved = lost.moved(seen, jnp.asarray(2), sides[2], jnp.ones(2))
        np.testing.assert_allclose(moved, 1 + seen.aside[2] * 40)
    assert len(lines) == 4


def test_by_default_nothing_happens():
    misses, value = jnp.zeros((), jnp.int32), jnp.ones(2)
    assert lost.count(lost.NEVER, misses, jnp.asarray(0.0)) is misses
    assert lost.held(lost.NEVER, misses, value + 1, value) is value
    assert lost.widened(lost.NEVER, misses, value) is value
    seen = lost.views(lost.NEVER, misses, value, 0.9)
    assert seen.factors is value
    assert lost.middles(seen, value, value) is value
    assert lost.moved(seen, misses, value[0], value) is value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"below": 0.5}, "lost.above is 0, below lost.below = 0.5"),
        ({"patience": -1}, "lost.patience is -1"),
        ({"step": 0.5}, "lost.step is 0.5"),
        ({"widest": 0.0}, "lost.widest is 0"),
        ({"aside": -0.5}, "lost.aside is -0.5"),
        ({"doubt": 0.0}, "lost.doubt is 0; above 0, at most 1"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused_by_name(fields, words):
    with pytest.raises(JaxtrackError, match=words):
        LostRule(**fields)


@pytest.mark.parametrize("name", ["siamrpnpp-tiny", "tadt-tiny", "ostrack-tiny"])
def test_looking_aside_takes_crops_to_spare(name):
    rule = LostRule(below=0.3, above=0.3, aside=0.5)
    with pytest.raises(JaxtrackError, match=r"lost.aside is 0.5, but this tracker searches 1 crop"):
        jaxtrack.get_tracker(name, lost=rule)
    with pytest.raises(JaxtrackError, match="searches 1 crop"):
        jaxtrack.get_tracker("siamfc-tiny", lost=rule, scale_count=1)
    assert jaxtrack.get_tracker("mlt-tiny", lost=rule).config.lost.looks_aside
