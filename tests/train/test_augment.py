"""Augmentation: exact where it can be exact, boxes that follow the pixels, recipes of the field."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from train.augment import (
    AugmentConfig,
    augment,
    augment_pairs,
    change_colours,
    change_detail,
    draw_window,
    sample_window,
)

RNG = np.random.default_rng(0)
PATCH = RNG.integers(0, 256, (21, 21, 3), dtype=np.uint8)
BOX = jnp.asarray([6.0, 7.0, 8.0, 6.0])
CUT = jax.jit(augment, static_argnums=0)
KEY, PAIR_KEY = jax.random.split(jax.random.key(3))


def test_defaults_are_a_plain_centre_crop() -> None:
    crop, box = CUT(AugmentConfig(15), KEY, PAIR_KEY, PATCH, BOX)
    np.testing.assert_allclose(crop, PATCH[3:18, 3:18], atol=1e-3)
    np.testing.assert_allclose(box, [3, 4, 8, 6], atol=1e-5)


def test_whole_pixel_shifts_are_copies() -> None:
    config = AugmentConfig(13, shift=4, whole_pixels=True)
    run = jax.jit(functools.partial(augment, config))
    corners = set()
    for seed in range(200):
        crop, box = run(jax.random.key(seed), PAIR_KEY, PATCH, BOX)
        x, y = (int(v) for v in np.round(6 - np.asarray(box[:2]) + np.asarray([0, 1])))
        corners |= {("x", x), ("y", y)}
        np.testing.assert_allclose(crop, PATCH[y : y + 13, x : x + 13], atol=1e-3)
    assert corners == {(axis, offset) for axis in "xy" for offset in range(9)}


def test_flip_is_a_mirror_and_moves_the_box() -> None:
    crop, box = CUT(AugmentConfig(21, flip=1.0), KEY, PAIR_KEY, PATCH, BOX)
    np.testing.assert_allclose(crop, PATCH[:, ::-1], atol=1e-3)
    np.testing.assert_allclose(box, [21 - 6 - 8, 7, 8, 6], atol=1e-5)
    twice, _ = CUT(AugmentConfig(21, flip=1.0, pair_flip=1.0), KEY, PAIR_KEY, PATCH, BOX)
    np.testing.assert_allclose(twice, PATCH, atol=1e-3)


@pytest.mark.parametrize("step", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("flip", [False, True])
def test_box_follows_the_pixels(step: float, flip: bool) -> None:
    """A bright rectangle stays under its box, whatever the window."""
    patch = np.zeros((60, 60, 3), np.uint8)
    patch[20:36, 14:40] = 200
    box = jnp.asarray([14.0, 20.0, 26.0, 16.0])
    start = jnp.asarray([4.3, 6.8])
    steps = jnp.full(2, step)
    crop, moved = sample_window(jnp.asarray(patch), box, start, steps, 32, flip, antialias=True)
    weight = np.asarray(crop[..., 0]) - np.asarray(crop[..., 0]).min()
    inside = weight[:, :] > 100
    x, y, w, h = np.asarray(moved)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    for low, high, edges in ((x, x + w, columns), (y, y + h, rows)):
        assert abs(edges[0] - max(low, 0)) <= 1
        assert abs(edges[-1] + 1 - min(high, 32)) <= 1


def test_beyond_the_patch_lies_its_mean() -> None:
    start, step = jnp.asarray([-30.0, 0.0]), jnp.ones(2)
    crop, _ = sample_window(jnp.asarray(PATCH), BOX, start, step, 21)
    np.testing.assert_allclose(
        crop[:, :29], np.broadcast_to(PATCH.mean((0, 1)), crop[:, :29].shape), rtol=1e-4
    )


def test_antialiasing_keeps_a_constant_and_averages_stripes() -> None:
    flat = np.full((40, 40, 3), 77, np.uint8)
    flat[0, 0] = 78  # so that the mean is not the constant itself
    striped = np.zeros((40, 40, 3), np.uint8)
    striped[:, ::2] = 200
    start, step = jnp.full(2, 8.0), jnp.full(2, 2.4)
    crop, _ = sample_window(jnp.asarray(flat), BOX, start, step, 10, antialias=True)
    np.testing.assert_allclose(crop, 77, atol=1e-2)
    smooth, _ = sample_window(jnp.asarray(striped), BOX, start, step, 10, antialias=True)
    rough, _ = sample_window(jnp.asarray(striped), BOX, start, step, 10, antialias=False)
    assert np.std(smooth) < 0.3 * np.std(rough)


def test_windows_have_the_range_asked_for() -> None:
    keys = jax.random.split(jax.random.key(0), 2000)

    def windows(config: AugmentConfig, patch: int) -> tuple[np.ndarray, np.ndarray]:
        start, step = jax.jit(jax.vmap(lambda key: draw_window(config, key, patch)))(keys)
        return np.asarray(start), np.asarray(step)

    # PySOT's search crop: shift 64 of 255, scale 18 % per axis, kept inside the 511 patch.
    start, step = windows(
        AugmentConfig(255, shift=64, scale=0.18, scale_axes=True, bounded=True), 511
    )
    factor = 1 / step
    assert 0.82 <= factor.min() < 0.83
    assert 1.17 < factor.max() <= 1.181
    assert np.abs(factor[:, 0] - factor[:, 1]).max() > 0.2
    assert start.min() >= 0
    assert (start + 255 * step).max() <= 511.001
    centre = start + 127.5 * step - 255.5
    np.testing.assert_allclose(np.abs(centre).max(), 64 / 0.82, rtol=0.05)
    # siamfc-pytorch's stretch: one factor for both axes.
    _, step = windows(AugmentConfig(239, scale=0.05), 263)
    np.testing.assert_array_equal(step[:, 0], step[:, 1])
    # Log-normal, as in OSTrack's search jitter.
    _, step = windows(AugmentConfig(256, scale=0.25, scale_kind="lognormal"), 600)
    assert np.log(step[:, 0]).std() == pytest.approx(0.25, rel=0.1)


def test_pairs_share_what_they_must() -> None:
    batch = {
        "template": jnp.asarray(RNG.integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)),
        "search": jnp.asarray(RNG.integers(0, 256, (16, 20, 20, 3), dtype=np.uint8)),
        "template_box": jnp.tile(jnp.asarray([3.0, 3.0, 4.0, 4.0]), (16, 1)),
        "search_box": jnp.tile(jnp.asarray([6.0, 6.0, 5.0, 5.0]), (16, 1)),
    }
    both = (AugmentConfig(12, pair_grey=0.5), AugmentConfig(20, pair_grey=0.5))
    cut = jax.jit(augment_pairs, static_argnums=(0, 1))
    z, x, _, _ = cut(*both, batch, jax.random.split(KEY, 16))

    def grey(images: jax.Array) -> np.ndarray:
        return np.asarray(jnp.ptp(images, axis=-1).max((1, 2)) < 1e-3)

    np.testing.assert_array_equal(grey(z), grey(x))
    assert 2 < grey(z).sum() < 14
    apart = (AugmentConfig(12, grey=0.5), AugmentConfig(20, grey=0.5))
    z, x, _, _ = cut(*apart, batch, jax.random.split(KEY, 16))
    assert (grey(z) != grey(x)).any()


def test_colours() -> None:
    crop = jnp.asarray(RNG.uniform(60, 180, (30, 30, 3)), jnp.float32)
    keys = jax.random.split(KEY, 300)

    def changed(**fields: object) -> np.ndarray:
        config = AugmentConfig(30, **fields)  # type: ignore[arg-type]
        return np.asarray(jax.jit(jax.vmap(lambda key: change_colours(config, key, crop)))(keys))

    factors = (changed(brightness=0.2) / np.asarray(crop)).reshape(300, -1)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(factors.shape[1], 1), rtol=1e-4)
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2001
    spread = changed(contrast=0.5).std((1, 2, 3)) / np.asarray(crop).std()
    assert 0.49 < spread.min() < 0.55
    assert 1.45 < spread.max() < 1.51
    offsets = (changed(offset=10.0) - np.asarray(crop)).mean((1, 2))
    np.testing.assert_allclose(offsets.std(0), 10, rtol=0.15)
    mix = ((4.0, 0.0, 0.0), (4.0, 0.0, 0.0), (0.0, 0.0, 2.0))
    offsets = (changed(offset_mix=mix) - np.asarray(crop)).mean((1, 2))
    np.testing.assert_allclose(np.cov(offsets.T), [[16, 16, 0], [16, 16, 0], [0, 0, 4]], atol=3)


def test_blur_smaller_than_the_smallest_kernel_is_refused() -> None:
    with pytest.raises(JaxtrackError, match="blur_size"):
        AugmentConfig(24, blur=1.0, blur_size=3)


def test_blur_is_opencvs_cross_filter() -> None:
    """The same kernel through cv2.filter2D with its mirrored border."""
    import cv2

    crop = jnp.asarray(RNG.uniform(0, 255, (24, 24, 3)), jnp.float32)
    config = AugmentConfig(24, blur=1.0, blur_size=9)
    blur = jax.jit(functools.partial(change_detail, config))
    found = set()
    for seed in range(12):
        blurred = np.asarray(blur(jax.random.key(seed), crop))
        fits = []
        for size in (5, 7, 9):
            column, row = (np.zeros((size, size), np.float32) for _ in range(2))
            column[:, size // 2] = row[size // 2] = 1 / size
            a, b = (cv2.filter2D(np.asarray(crop), -1, kernel) for kernel in (column, row))
            mix = float(np.vdot(blurred - b, a - b) / np.vdot(a - b, a - b))
            fits.append((np.abs(mix * a + (1 - mix) * b - blurred).max(), size, mix))
        error, size, mix = min(fits)
        assert error < 1e-2
        assert -1e-3 <= mix <= 1.001
        found.add(size)
    assert found == {5, 7, 9}


def test_noise() -> None:
    crop = jnp.full((50, 50, 3), 100.0)
    noisy = np.asarray(change_detail(AugmentConfig(50, noise=5.0), KEY, crop)) - 100
    assert noisy.std() == pytest.approx(5, rel=0.05)
    assert abs(noisy.mean()) < 0.3
