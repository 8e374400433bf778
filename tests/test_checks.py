"""What the verbs are handed by mistake: one clear line each, before anything is compiled."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack import JaxtrackError, base, checks, streaming, trackers

FRAME = np.zeros((40, 50, 3), np.uint8)
CLIP = np.zeros((2, 40, 50, 3), np.uint8)
BOX = [10, 10, 12, 9]


@functools.cache
def started():
    tracker = jaxtrack.get_tracker("siamfc-tiny")
    variables = jax.eval_shape(lambda: tracker.init_variables(tracker.config, jax.random.key(0)))
    return tracker, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)


BAD_BOXES = {
    "three": ([1, 2, 3], r"shape \(3,\)"),
    "eight": (np.zeros(8), r"shape \(8,\)"),
    "rows": ([[1, 2, 3, 4]], r"shape \(1, 4\)"),
    "ragged": ([1, [2, 3], 4, 5], "not four numbers"),
    "none": (None, "not numbers"),
    "text": ("1,2,3,4", "not numbers"),
    "bool": ([True, True, True, True], "bool"),
    "complex": (np.ones(4, complex), "complex"),
    "nan": ([np.nan, 1, 2, 3], "not finite"),
    "inf": ([1, 1, np.inf, 3], "not finite"),
    "beyond float32": ([1, 1, 1e300, 3], "not finite"),
    "no width": ([1, 1, 0, 3], "no positive width"),
    "below float32": ([1, 1, 1e-60, 3], "no positive width"),
    "negative": ([1, 1, 5, -3], "no positive width"),
    "huge": ([1e30] * 4, "far larger than the 50x40 frame"),
    "huge around": ([-5e29, 0, 1e30, 3], "far larger than the 50x40 frame"),
    "on the device": (jnp.asarray([1.0, 1.0, -5.0, 3.0]), "no positive width"),
}


@pytest.mark.parametrize("kind", BAD_BOXES)
def test_bad_boxes_are_refused(kind):
    value, message = BAD_BOXES[kind]
    with pytest.raises(JaxtrackError, match=message) as caught:
        jaxtrack.init(*started(), FRAME, value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


BAD_FRAMES = {
    "int8": (FRAME.astype(np.int8), "int8"),
    "int32": (FRAME.astype(np.int32), "int32"),
    "bool": (FRAME.astype(bool), "bool"),
    "complex": (FRAME.astype(complex), "complex"),
    "grey": (FRAME[..., 0], r"shape \(40, 50\)"),
    "four channels": (np.zeros((40, 50, 4), np.uint8), r"shape \(40, 50, 4\)"),
    "channels first": (FRAME.transpose(2, 0, 1), "channels"),
    "a clip": (CLIP, r"shape \(2, 40"),
    "empty": (FRAME[:0], r"shape \(0, 50"),
    "list": (FRAME.tolist(), "is a list"),
    "path": ("frame.jpg", "type str"),
    "none": (None, "type NoneType"),
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_bad_frames_are_refused(kind):
    value, message = BAD_FRAMES[kind]
    tracker, variables = started()
    with pytest.raises(JaxtrackError, match=message):
        jaxtrack.init(tracker, variables, value, BOX)
    with pytest.raises(JaxtrackError, match=message):
        jaxtrack.track_frame(tracker, variables, None, value)


def test_a_clip_is_one_array():
    tracker, variables = started()
    for value, message in (
        (list(CLIP), "stack them"),
        (FRAME, r"\(40, 50, 3\)"),
        (CLIP[:0], "0, 40"),
    ):
        with pytest.raises(JaxtrackError, match=message):
            jaxtrack.track_clip(tracker, variables, None, value)


@pytest.mark.parametrize(
    ("size", "message"),
    [((40,), "two integers"), ((40.0, 50.0), "two integers"), ((41, 50), "fit"), ((0, 5), "fit")],
)
def test_bad_frame_sizes_are_refused(size, message):
    with pytest.raises(JaxtrackError, match=message):
        jaxtrack.init(*started(), FRAME, BOX, size)


@pytest.mark.parametrize("value", ["siamfc-tiny", "x" * 5000, None, 3])
def test_a_tracker_is_a_value(value):
    calls = (
        lambda: jaxtrack.init(value, {}, FRAME, BOX),
        lambda: jaxtrack.track_frame(value, {}, None, FRAME),
        lambda: jaxtrack.track_clip(value, {}, None, CLIP),
    )
    for call in calls:
        with pytest.raises(JaxtrackError, match="get_tracker") as caught:
            call()
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("call", [jaxtrack.track_frame, jaxtrack.track_clip])
def test_a_state_is_what_init_returned(call):
    tracker, variables = started()
    frames = FRAME if call is jaxtrack.track_frame else CLIP
    prediction = jaxtrack.Prediction(np.zeros(4), np.zeros(()))
    pair = ({}, prediction)
    for value, message in (
        (pair, "its first part"),
        (None, "NoneType"),
        (prediction, "Prediction"),
    ):
        with pytest.raises(JaxtrackError, match=message):
            call(tracker, variables, value, frames)


@pytest.mark.parametrize("call", [jaxtrack.track_frame, jaxtrack.track_clip])
def test_the_state_of_another_tracker_is_told(call):
    tracker, variables = started()
    frames = FRAME if call is jaxtrack.track_frame else CLIP
    other = jaxtrack.get_tracker("siamrpnpp-tiny")
    shapes = base.variable_shapes(other)
    theirs = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    there = jaxtrack.init(other, theirs, FRAME, BOX)
    ours = jaxtrack.init(tracker, variables, FRAME, BOX)
    for value, message in (
        ({}, r"state is of type dict and not this tracker's: it needs \w+ "),
        (np.zeros(4), r"type ndarray .*; here .*\(4,\); hand over what jaxtrack.init returned"),
        (there, "it needs .*; here "),
        (tuple(ours), "type tuple and not this tracker's"),
        (object(), "type object and not this tracker's"),
    ):
        with pytest.raises(JaxtrackError, match=message) as caught:
            call(tracker, variables, value, frames)
        assert len(str(caught.value).splitlines()[0]) < 500


def test_a_fault_of_the_tracker_is_not_laid_on_its_state():
    def broken(config, variables, state, frame):
        raise AttributeError("no attribute misses")

    tracker = dataclasses.replace(started()[0], track_frame=broken, steps=None)
    state = jaxtrack.init(tracker, started()[1], FRAME, BOX)
    with pytest.raises(AttributeError, match="misses"):
        jaxtrack.track_frame(tracker, started()[1], state, FRAME)


@pytest.mark.parametrize("value", ["x", None, 3, np.zeros(3), ["a"], object()])
def test_variables_are_a_tree(value):
    tracker, variables = started()
    state = jaxtrack.init(tracker, variables, FRAME, BOX)
    calls = (
        lambda: jaxtrack.init(tracker, value, FRAME, BOX),
        lambda: jaxtrack.track_frame(tracker, value, state, FRAME),
        lambda: jaxtrack.track_clip(tracker, value, state, CLIP),
    )
    for call in calls:
        with pytest.raises(JaxtrackError, match=r"variables are.*jaxtrack\.load_w") as caught:
            call()
        assert len(str(caught.value).splitlines()[0]) < 500


@pytest.mark.parametrize("value", [None, 3, b"siamfc", ["siamfc"]])
def test_a_preset_is_a_name(value):
    for call in (jaxtrack.get_tracker, trackers.family_of):
        with pytest.raises(JaxtrackError, match="given by its name, not by a") as caught:
            call(value)
        assert "\n" not in str(caught.value)


def test_published_first_boxes_start_a_tracker():
    """They may reach out of the frame, and lie outside where a target has left it."""
    for box in ([-8, 5, 12, 9], [45, 38, 30, 9], [60, 1, 5, 3], [1, -5, 5, 3]):
        jaxtrack.init(*started(), FRAME, box)
    # The picture ends before its canvas does.
    with pytest.raises(JaxtrackError, match="far larger than the 2x1 frame"):
        jaxtrack.init(*started(), FRAME, [2, 5, 36, 6], (1, 2))
    jaxtrack.init(*started(), FRAME, [2, 5, 36, 6], jnp.asarray([1, 2]))  # not known yet


def test_weights_of_another_preset_are_told_by_both_lists():
    tracker, variables = started()
    other = jaxtrack.get_tracker("siamrpnpp-tiny")
    with pytest.raises(JaxtrackError, match=r"needs batch_stats\.backbone.* here batch") as caught:
        jaxtrack.init(other, variables, FRAME, BOX)
    assert "more" in str(caught.value)
    assert len(str(caught.value)) < 900
    with pytest.raises(JaxtrackError, match="there are none"):
        jaxtrack.init(tracker, {}, FRAME, BOX)


def test_more_weights_than_needed_are_no_mistake():
    have = {"params": {"a": np.zeros(3), "b": np.zeros(2)}, "batch_stats": {}}
    checks.variables(have, {"params": {"a": np.zeros(3)}})
    with pytest.raises(JaxtrackError, match=r"needs params\.a \(4,\); here params\.a \(3,\)"):
        checks.variables(have, {"params": {"a": np.zeros(4)}})


@pytest.mark.parametrize("dtype", [np.int8, np.int32, bool, np.complex64])
def test_variables_are_floats(dtype):
    tracker, variables = started()
    integers = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
    some = {"params": variables["params"], "batch_stats": integers["batch_stats"]}
    message = rf"batch_stats\.\S+ is {np.dtype(dtype)}; floats are wanted"
    for value in (integers, some):
        with pytest.raises(JaxtrackError, match=message):
            jaxtrack.init(tracker, value, FRAME, BOX)
        with pytest.raises(JaxtrackError, match=message):
            jaxtrack.track(tracker, value, CLIP, [BOX, BOX])
    checks.variables({"a": np.ones(2, jnp.bfloat16), "n": 3}, {"a": np.zeros(2), "n": np.int32(0)})
    with pytest.raises(JaxtrackError, match="a is int64; floats are wanted"):
        checks.variables({"a": 3}, {"a": 0.5})


def test_a_traced_box_is_not_looked_at():
    """Inside `jax.jit` and `jax.vmap` values are unknown: shape and kind are still checked."""
    seen = jax.jit(checks.box)(jnp.arange(1, 5))
    assert seen.dtype == jnp.float32
    assert jax.vmap(checks.box)(jnp.ones((3, 4), jnp.int32)).dtype == jnp.float32
    mixed = jax.jit(lambda x: checks.box([1, x, 3, 4]))(2.0)
    np.testing.assert_array_equal(mixed, [1, 2, 3, 4])
    with pytest.raises(JaxtrackError, match=r"shape \(3,\)"):
        jax.jit(checks.box)(jnp.ones(3))


def test_boxes_of_several_targets_are_checked_one_by_one():
    np.testing.assert_array_equal(checks.boxes([1, 2, 3, 4]), [[1, 2, 3, 4]])
    assert checks.boxes(np.ones((3, 4), np.uint8)).dtype == np.float32
    for value in ([], np.zeros((0, 4)), np.ones(8), [[1, 2, 3, 4], [1, 2]], np.ones((1, 2, 4))):
        with pytest.raises(JaxtrackError, match=r"give \(n, 4\)"):
            checks.boxes(value)
    with pytest.raises(JaxtrackError, match="not finite"):
        checks.boxes([[1, 2, 3, 4], [1, np.nan, 3, 4]])


def test_a_stream_takes_frames_of_bytes_alone():
    tracker, variables = started()
    with pytest.raises(JaxtrackError, match="float32; give uint8"):
        next(streaming.stream(tracker, variables, CLIP.astype(np.float32), BOX))
    with pytest.raises(JaxtrackError, match="no positive width"):
        next(streaming.stream(tracker, variables, CLIP, [BOX, [1, 1, 0, 1]]))
