"""The crop: exact for uint8 frames, smooth for float ones, never beyond the frame."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.ops import crop, patch
from jaxtrack.trackers.tadt import geometry

RNG = np.random.RandomState(3)
FRAME = RNG.randint(0, 256, (37, 53, 3)).astype(np.uint8)
SIZE = jnp.asarray(FRAME.shape[:2], jnp.int32)
WINDOWS = [(4, 6, 20, 20), (-7, -5, 31, 29), (20, 30, 40, 44), (3, 3, 1, 1)]


def cut(frame, window, fill=(110, 90, 70)):
    return crop.resize_window(
        frame, crop.Window(*map(jnp.int32, window)), (17, 24), SIZE, jnp.asarray(fill)
    )


@pytest.mark.parametrize("window", WINDOWS)
def test_floats_are_within_one_grey_level_of_the_exact_crop(window):
    exact = np.asarray(cut(jnp.asarray(FRAME), window))
    smooth = np.asarray(cut(jnp.asarray(FRAME, jnp.float32), window))
    assert exact.dtype == np.uint8
    assert smooth.dtype == np.float32
    assert np.abs(exact - smooth).max() <= 1
    # Of whole numbers that a resize leaves alone the two are equal.
    top, left, height, width = 5, 6, 17, 24
    same = cut(jnp.asarray(FRAME, jnp.float32), (top, left, height, width))
    np.testing.assert_array_equal(same, FRAME[top : top + height, left : left + width])


def test_floats_are_opencvs_bilinear_resize():
    window = (2, 5, 30, 41)
    want = cv2.resize(
        FRAME[2:32, 5:46].astype(np.float32), (24, 17), interpolation=cv2.INTER_LINEAR
    )
    got = cut(jnp.asarray(FRAME, jnp.float32), window)
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_the_float_crop_is_linear_in_the_pixels():
    frame = jnp.asarray(FRAME, jnp.float32)
    weight = jnp.asarray(RNG.randn(17, 24, 3), jnp.float32)
    window = WINDOWS[1]
    gradient = jax.grad(lambda f: jnp.sum(weight * cut(f, window)))(frame)
    black = jnp.sum(weight * cut(0 * frame, window))  # what the fill colour gives
    np.testing.assert_allclose(
        jnp.sum(gradient * frame) + black, jnp.sum(weight * cut(frame, window)), rtol=1e-4
    )
    assert float(jnp.abs(gradient).max()) > 0.1


def test_the_float_crop_of_a_scaled_image_too():
    window, side = jnp.asarray([3.0, -4.0, 36.0, 36.0]), jnp.asarray([24, 24])

    def scaled(frame):
        return geometry.crop_window(frame, SIZE, jnp.float32(1.3), window, side, (24, 24))

    exact, smooth = scaled(jnp.asarray(FRAME)), scaled(jnp.asarray(FRAME, jnp.float32))
    assert exact.dtype == jnp.uint8
    # Two resizes, each rounded for uint8.
    assert np.abs(np.asarray(exact, np.float32) - np.asarray(smooth)).max() <= 2


def test_mean_colour_of_floats():
    size = jnp.asarray([30, 41], jnp.int32)
    frame = jnp.asarray(FRAME, jnp.float32)
    want = FRAME[:30, :41].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(crop.mean_colour(frame, size), want, rtol=1e-5)
    np.testing.assert_allclose(crop.mean_colour(jnp.asarray(FRAME), size), want, rtol=1e-5)


def test_a_smaller_frame_is_not_read_beyond_its_end():
    """A state of a larger clip says a larger size than the frame has."""
    small = jnp.asarray(FRAME[:20, :30])
    window = crop.Window(*map(jnp.int32, (10, 20, 30, 40)))
    fill = jnp.asarray([1, 2, 3])
    got = crop.resize_window(small, window, (12, 12), SIZE, fill)
    want = crop.resize_window(small, window, (12, 12), jnp.asarray([20, 30]), fill)
    np.testing.assert_array_equal(got, want)


def test_the_context_of_a_target_is_one_rule_for_numbers_and_arrays():
    sizes = RNG.uniform(1, 300, (20, 2)).astype(np.float32)
    width, height = sizes[:, 0], sizes[:, 1]
    side = patch.context_side(width, height)
    pad = (width + height) / 2
    np.testing.assert_allclose(side**2, (width + pad) * (height + pad), rtol=1e-6)
    traced = jax.jit(patch.context_side)(width, height)
    np.testing.assert_allclose(traced, side, rtol=1e-6)
    np.testing.assert_allclose(crop.context_side(sizes[0]), side[0], rtol=1e-6)
    assert patch.context_side(30.0, 90.0, 0.0) == np.sqrt(30 * 90)
    # Each keeps its own kind: no number becomes an array of JAX, none is rounded to float32.
    assert isinstance(side, np.ndarray)
    assert isinstance(traced, jax.Array)
    assert isinstance(patch.context_side(30, 90), float)
