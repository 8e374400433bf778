"""Colours of a target and its surroundings: counts, likeness and contrast against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.base import Look
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import colour
from jaxtrack.ops.colour import HELPING, UNUSED, ColourCue, Colours, Place

SIDE = 64
RED, GREEN, BLUE = (200, 30, 30), (30, 160, 60), (20, 40, 220)


def scene(box=(22, 26, 20, 12), inside=RED, outside=GREEN):
    """A crop of one colour with a rectangle of another: row, column, height, width."""
    crop = np.broadcast_to(np.uint8(outside), (SIDE, SIDE, 3)).copy()
    row, column, height, width = box
    crop[row : row + height, column : column + width] = inside
    middle = jnp.asarray([row + (height - 1) / 2, column + (width - 1) / 2], jnp.float32)
    return jnp.asarray(crop), Place(middle, jnp.asarray([height, width], jnp.float32))


def looking(*crops):
    return Look(None, jnp.stack(crops))


def number(rgb):
    red, green, blue = (value // 16 for value in rgb)
    return red * 256 + green * 16 + blue


def test_the_colours_inside_and_around_are_counted_apart():
    crop, place = scene()
    target, around = colour.histograms(crop, place)
    assert target.shape == around.shape == (4096,)
    for counts, own, other in ((target, RED, GREEN), (around, GREEN, RED)):
        assert float(counts[number(own)]) == pytest.approx(1)
        assert float(counts[number(other)]) == 0
    # The inner part of the box alone, and no further than the usual context around it.
    noisy = np.array(crop)
    noisy[22, 26:38] = BLUE
    noisy[:3] = BLUE
    target, around = colour.histograms(jnp.asarray(noisy), place)
    assert float(target[number(BLUE)]) == float(around[number(BLUE)]) == 0


def test_frames_of_floats_have_the_same_colours():
    crop = jnp.asarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    _, place = scene()
    floats = crop.astype(jnp.float32)
    np.testing.assert_array_equal(colour.histograms(crop, place), colour.histograms(floats, place))
    # Values beyond 0 to 255, which resampling makes, are the nearest that there are; NaN is 0.
    np.testing.assert_array_equal(
        colour.histograms(jnp.asarray([-9.0, 300, jnp.nan])[None, None] + 0 * floats, place),
        colour.histograms(jnp.asarray([0.0, 255, 0])[None, None] + 0 * floats, place),
    )
    assert np.isfinite(colour.histograms(floats * 3 - 200, place)).all()


def test_likeness_is_the_mean_share_in_a_box_about_each_place():
    rng = np.random.default_rng(1)
    crop = jnp.asarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) // 64 * 64)
    _, place = scene()
    seen = colour.histograms(crop, place)
    table = np.asarray(colour.shares(seen))
    shares = table[(np.asarray(crop, int) // 16) @ [256, 16, 1]]
    # Places every 8 pixels; a box of odd sides about a pixel's middle covers whole pixels.
    got = colour.likeness(seen, crop[:63, :63], jnp.asarray([9.0, 5.0]), 7, 56 / 63)
    for i in range(7):
        for j in range(7):
            row, column = 31 + 8 * (i - 3), 31 + 8 * (j - 3)
            part = shares[:63, :63][max(row - 4, 0) : row + 5, max(column - 2, 0) : column + 3]
            assert float(got[i, j]) == pytest.approx(part.sum() / 45, abs=1e-5)


def test_likeness_is_greatest_where_the_target_has_gone():
    crop, place = scene()
    seen = colour.histograms(crop, place)
    moved, there = scene((36, 10, 20, 12))
    like = colour.likeness(seen, moved, place.size, SIDE, 1.0)
    row, column = np.unravel_index(int(jnp.argmax(like)), like.shape)
    np.testing.assert_allclose([row, column], there.middle, atol=1)
    assert float(like.max()) > 0.9  # its middle lies between pixels
    assert float(like[0, -1]) == 0


def test_standing_says_what_is_left_of_the_first_contrast():
    crop, place = scene()
    seen = colour.begin(UNUSED, 0.3, crop, place)
    assert isinstance(seen, Colours)
    assert seen.now == ()  # no running mean where colours do not help to find the target
    # Half of the first frame's surroundings lie in the ring around the box: its contrast is known.
    height, width = 20 + 16, 12 + 16
    wanted = 1 - 240 / (height * width)
    assert float(seen.contrast) == pytest.approx(wanted, abs=1e-5)
    assert float(colour.standing(seen, looking(crop), place)) == pytest.approx(1, abs=1e-5)
    gone, _ = scene(inside=GREEN)
    assert float(colour.standing(seen, looking(gone), place)) == 0
    half, _ = scene((22, 26, 10, 12))
    # The red half of the box, less the same red in the box with its surroundings: half of the contrast.
    assert float(colour.standing(seen, looking(half), place)) == pytest.approx(0.5, abs=1e-4)


def test_the_middle_crop_of_a_pyramid_is_looked_at():
    crop, place = scene()
    gone, _ = scene(inside=GREEN)
    seen = colour.begin(UNUSED, 0.3, crop, place)
    assert float(colour.standing(seen, looking(gone, crop, gone), place)) > 0.99
    assert float(colour.standing(seen, looking(crop, gone, crop), place)) == 0


def test_a_grey_target_before_grey_says_little():
    crop, place = scene(inside=GREEN)
    seen = colour.begin(UNUSED, 0.3, crop, place)
    assert abs(float(seen.contrast)) < 0.1
    other, _ = scene(inside=BLUE, outside=BLUE)
    assert float(colour.standing(seen, looking(other), place)) == pytest.approx(1, abs=0.01)


def test_the_running_colours_follow_what_is_tracked_well():
    crop, place = scene()
    seen = colour.begin(HELPING, 0.0, crop, place)
    blue, _ = scene(inside=BLUE)
    low = colour.followed(HELPING, seen, jnp.float32(0.2), looking(blue), place)
    assert float(low.now[0, number(BLUE)]) == 0
    high = colour.followed(HELPING, seen, jnp.float32(0.9), looking(blue), place)
    assert float(high.now[0, number(BLUE)]) == pytest.approx(HELPING.rate)
    assert float(high.now[0, number(RED)]) == pytest.approx(1 - HELPING.rate)
    np.testing.assert_array_equal(high.first, seen.first)
    assert jax.tree.structure(high) == jax.tree.structure(seen)


def test_nothing_is_kept_where_colours_are_not_used():
    crop, place = scene()
    assert colour.begin(UNUSED, 0.0, crop, place) == ()
    assert colour.standing((), looking(crop), place) is None
    assert colour.followed(UNUSED, (), jnp.float32(1), looking(crop), place) == ()
    assert not ColourCue().on


def test_places_beyond_the_crop_are_numbers_with_a_gradient():
    crop, place = scene()
    seen = colour.begin(HELPING, 0.3, crop, place)

    def of(middle, size):
        return colour.standing(seen, looking(crop), Place(middle, size))

    for middle, size in (((-90, 20), (20, 12)), ((31, 31), (0, 0)), ((31, 31), (900, 900))):
        value, slopes = jax.value_and_grad(of, (0, 1))(jnp.float32(middle), jnp.float32(size))
        assert 0 <= float(value) <= 1
        assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("field", ["weight", "rate"])
def test_shares_lie_between_nought_and_one(field):
    with pytest.raises(JaxtrackError, match=f"colour.{field}"):
        ColourCue(**{field: 1.5})
