"""One test over all trackers: what the interface promises holds for each of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack import trackers
from tests.parity.standin import frames as draw

TINY = [name for name in trackers.names() if name.endswith("-tiny")]


@functools.cache
def setting(name):
    """Tracker, random variables, a short clip and its first box."""
    tracker = jaxtrack.get_tracker(name)
    variables = jax.jit(tracker.init_variables, static_argnums=0)(tracker.config, jax.random.key(0))
    images, boxes = draw(seed=7, count=4, height=120, width=160)
    return tracker, variables, jnp.asarray(images), jnp.asarray(boxes[0], jnp.float32)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_every_family_has_a_tiny_preset():
    for family in trackers.FAMILIES:
        assert any(name in trackers.family_of(name).presets for name in TINY if family[:4] in name)


@pytest.mark.parametrize("name", trackers.names())
def test_presets_are_values(name):
    tracker = jaxtrack.get_tracker(name)
    assert tracker == jaxtrack.get_tracker(name)
    assert hash(tracker) == hash(jaxtrack.get_tracker(name))
    assert not jax.tree.leaves(tracker.config) or not any(
        isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(tracker.config)
    )


@pytest.mark.parametrize("name", TINY)
def test_state_is_closed_and_nothing_is_retraced(name):
    tracker, variables, images, box = setting(name)
    state = jaxtrack.init(tracker, variables, images[0], box)
    before = jaxtrack.track_frame._cache_size()
    after, prediction = jaxtrack.track_frame(tracker, variables, state, images[1])
    assert isinstance(state, tuple)
    assert hasattr(state, "_fields")
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert shapes(after) == shapes(state)
    assert prediction.box.shape == (4,)
    assert prediction.box.dtype == jnp.float32
    assert prediction.score.shape == ()
    jaxtrack.track_frame(tracker, variables, after, images[2])
    assert jaxtrack.track_frame._cache_size() == before + 1


@pytest.mark.parametrize("name", TINY)
def test_scan_equals_loop_and_boxes_are_sane(name):
    tracker, variables, images, box = setting(name)
    start = jaxtrack.init(tracker, variables, images[0], box)
    _, clip = jaxtrack.track_clip(tracker, variables, start, images[1:])
    state, found = start, []
    for image in images[1:]:
        state, prediction = jaxtrack.track_frame(tracker, variables, state, image)
        found.append(prediction)
    loop = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
    np.testing.assert_array_equal(clip.box, loop.box)
    np.testing.assert_array_equal(clip.score, loop.score)
    assert np.isfinite(clip.box).all()
    assert np.isfinite(clip.score).all()
    assert (clip.box[:, 2:] > 0).all()
    assert (np.abs(clip.box) < 1000).all()


@pytest.mark.parametrize("name", TINY)
def test_vmap_equals_loop(name):
    tracker, variables, images, box = setting(name)
    boxes = jnp.stack([box, box + jnp.asarray([6.0, -4.0, 3.0, 8.0])])
    size = jnp.asarray(images.shape[1:3], jnp.int32)

    def follow(box):
        state = tracker.init(tracker.config, variables, images[0], box, size)
        return tracker.track_frame(tracker.config, variables, state, images[1])[1]

    together = jax.jit(jax.vmap(follow))(boxes)
    alone = [jax.jit(follow)(one) for one in boxes]
    for i, one in enumerate(alone):
        np.testing.assert_allclose(together.box[i], one.box, atol=2e-2)
        np.testing.assert_allclose(together.score[i], one.score, atol=1e-3)


@pytest.mark.parametrize("name", TINY)
def test_padding_of_the_canvas_is_never_seen(name):
    tracker, variables, images, box = setting(name)
    size = jnp.asarray(images.shape[1:3], jnp.int32)
    noise = jax.random.randint(jax.random.key(1), (4, 144, 200, 3), 0, 256).astype(jnp.uint8)
    padded = noise.at[:, : images.shape[1], : images.shape[2]].set(images)
    plain = jaxtrack.init(tracker, variables, images[0], box)
    canvas = jaxtrack.init(tracker, variables, padded[0], box, size)
    _, want = jaxtrack.track_frame(tracker, variables, plain, images[1])
    _, got = jaxtrack.track_frame(tracker, variables, canvas, padded[1])
    np.testing.assert_allclose(got.box, want.box, atol=1e-3)
    np.testing.assert_allclose(got.score, want.score, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_jit_changes_nothing(name):
    tracker, variables, images, box = setting(name)
    size = jnp.asarray(images.shape[1:3], jnp.int32)
    state = jaxtrack.init(tracker, variables, images[0], box)
    _, want = jaxtrack.track_frame(tracker, variables, state, images[1])
    plain = tracker.init(tracker.config, variables, images[0], box, size)
    _, got = tracker.track_frame(tracker.config, variables, plain, images[1])
    np.testing.assert_allclose(got.box, want.box, atol=2e-2)
    np.testing.assert_allclose(got.score, want.score, atol=1e-3)
