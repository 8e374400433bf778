"""One test over all trackers: what the interface promises holds for each of them."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack import base, trackers
from jaxtrack.ops.colour import UNUSED
from tests.parity.standin import frames as draw

TINY = [name for name in trackers.names() if name.endswith("-tiny")]


def quick(*names):
    """Return all tiny presets as parameters; those that are not named run with ``-m slow``."""
    assert set(names) <= set(TINY)
    return [pytest.param(n, marks=[] if n in names else pytest.mark.slow) for n in TINY]


@functools.cache
def setting(name):
    """Tracker, shipped weights, a short clip and its first box."""
    tracker = jaxtrack.get_tracker(name)
    variables = jaxtrack.load_weights(name)
    images, boxes = draw(seed=7, count=4, height=120, width=160)
    return tracker, variables, jnp.asarray(images), jnp.asarray(boxes[0], jnp.float32)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_every_family_has_a_tiny_preset():
    for key in trackers.FAMILIES:
        family = trackers.family(key)
        tiny = [name for name in family.presets if name.endswith("-tiny")]
        assert tiny, key
        assert trackers.family_of(tiny[0]) is family
        assert family.owns(jaxtrack.get_tracker(tiny[0]))


def parts(value):
    """The parts of a config, as deep as dataclasses and tuples go."""
    if dataclasses.is_dataclass(value):
        return [p for f in dataclasses.fields(value) for p in parts(getattr(value, f.name))]
    if isinstance(value, tuple):
        return [part for item in value for part in parts(item)]
    return [value]


@pytest.mark.parametrize("name", trackers.names())
def test_presets_are_values(name):
    tracker = jaxtrack.get_tracker(name)
    # Made anew, so that equality is that of values and not of the one object.
    again = dataclasses.replace(tracker, config=dataclasses.replace(tracker.config))
    assert tracker == again
    assert hash(tracker) == hash(again)
    # A worker process gets the same value: its functions go by name.
    assert pickle.loads(pickle.dumps(tracker)) == tracker
    assert type(tracker.config).__dataclass_params__.frozen
    assert {type(part) for part in parts(tracker.config)} <= {int, float, str, bool, type(None)}
    field = next(
        f.name
        for f in dataclasses.fields(tracker.config)
        if isinstance(getattr(tracker.config, f.name), float)
    )
    other = tracker.replace(**{field: getattr(tracker.config, field) / 2 + 1e-3})
    assert other != tracker
    assert trackers.family_of(other) is trackers.family_of(name)


@pytest.mark.parametrize("name", TINY)
def test_variables_are_float32_whatever_is_the_default(name):
    tracker = jaxtrack.get_tracker(name)
    with jax.enable_x64(True):
        drawn = jax.eval_shape(lambda: tracker.init_variables(tracker.config, jax.random.key(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", quick("siamfc-tiny", "siamrpnpp-tiny", "tadt-tiny"))
def test_state_is_closed_and_nothing_is_retraced(name):
    tracker, variables, images, box = setting(name)
    state = jaxtrack.init(tracker, variables, images[0], box)
    before = base._track_frame._cache_size()
    after, prediction = jaxtrack.track_frame(tracker, variables, state, images[1])
    assert isinstance(state, tuple)
    assert hasattr(state, "_fields")
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert shapes(after) == shapes(state)
    assert prediction.box.shape == (4,)
    assert prediction.box.dtype == jnp.float32
    assert prediction.score.shape == ()
    jaxtrack.track_frame(tracker, variables, after, images[2])
    assert base._track_frame._cache_size() == before + 1


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


@pytest.mark.parametrize("name", quick("siamfc-tiny"))
def test_vmap_equals_loop(name):
    tracker, variables, images, box = setting(name)
    boxes = jnp.stack([box, box + jnp.asarray([6.0, -4.0, 3.0, 8.0])])
    size = jnp.asarray(images.shape[1:3], jnp.int32)

    def follow(box):
        state = tracker.init(tracker.config, variables, images[0], box, size)
        return tracker.track_frame(tracker.config, variables, state, images[1])[1]

    together = jax.jit(jax.vmap(follow))(boxes)
    for i in range(len(boxes)):
        state = jaxtrack.init(tracker, variables, images[0], boxes[i])
        _, one = jaxtrack.track_frame(tracker, variables, state, images[1])
        np.testing.assert_allclose(together.box[i], one.box, atol=2e-2)
        np.testing.assert_allclose(together.score[i], one.score, atol=1e-3)


@pytest.mark.parametrize("name", quick("siamfc-tiny", "siamrpnpp-tiny"))
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


@pytest.mark.parametrize("name", quick("siamfc-tiny", "siamrpnpp-tiny"))
def test_steps_one_by_one_are_the_frame(name):
    """Without compilation, and stopping at every step, a frame gives what the compiled verbs give."""
    tracker, variables, images, box = setting(name)
    config, steps = tracker.config, tracker.steps
    state = jaxtrack.init(tracker, variables, images[0], box)
    want_state, want = jaxtrack.track_frame(tracker, variables, state, images[1])
    look = steps.cut(config, state, images[1])
    features = steps.embed(config, variables, state, look)
    maps = steps.respond(config, variables, state, features)
    decision = steps.decide(config, variables, state, look, maps)
    after = steps.update(config, variables, state, images[1], decision)
    count = len(look.crops)
    assert look.crops.dtype == jnp.uint8
    assert look.crops.shape[1] == look.crops.shape[2]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(look.windows)} == {count}
    assert decision.box.dtype == jnp.float32
    assert 0 <= int(decision.which) < count
    assert decision.response.ndim == 2
    assert 0.3 < float(decision.share) <= 1
    np.testing.assert_allclose(decision.box, want.box, atol=2e-2)
    np.testing.assert_allclose(decision.score, want.score, atol=1e-3)
    assert shapes(after) == shapes(want_state)


def test_a_tracker_that_cannot_be_taken_apart_says_so():
    assert jaxtrack.get_tracker("siamrpnpp-r50-lt").steps is None
    short = jaxtrack.get_tracker("siamrpnpp-r50")
    assert short.steps is not None
    assert short.replace(size_rate=0.5).steps is short.steps
    assert short.replace(lost_instance_size=831).steps is None


BOXES = {
    "list": lambda box: box.astype(int).tolist(),
    "tuple": lambda box: tuple(float(v) for v in box),
    "int": lambda box: box.astype(np.int64),
    "float64": lambda box: box.astype(np.float64),
    "uint8": lambda box: box.astype(np.uint8),
    "float16": lambda box: box.astype(np.float16),
    "int on device": lambda box: jnp.asarray(box.astype(np.int32)),
}


@pytest.mark.parametrize("name", TINY)
def test_boxes_of_any_kind_give_the_same_track(name):
    tracker, variables, images, box = setting(name)
    whole = np.rint(np.asarray(box)).astype(np.float32)
    want = jaxtrack.init(tracker, variables, images[0], jnp.asarray(whole))
    moved, seen = jaxtrack.track_frame(tracker, variables, want, images[1])
    for kind, make in BOXES.items():
        got = jaxtrack.init(tracker, variables, images[0], make(whole))
        assert shapes(got) == shapes(want), kind
        jax.tree.map(np.testing.assert_array_equal, got, want)
    after, prediction = jaxtrack.track_frame(tracker, variables, got, images[1])
    np.testing.assert_array_equal(prediction.box, seen.box)
    assert shapes(after) == shapes(moved)


# Trained networks are surer of the target than float32 can resolve a slope of: these two are taken at random
# weights, where a response is all but linear in the pixels. Steps are grey levels (norm over the frame).
AT_RANDOM = {"siamfc-tiny", "mlt-tiny"}
# A grey level more and OSTrack's peak in the first frame, which corrects its sizes, is in another cell.
PIXEL_STEP = {"siamfc-tiny": 3.0, "mlt-tiny": 10.0, "ostrack-tiny": 0.3}


@pytest.mark.parametrize("name", quick("ostrack-tiny"))
def test_gradients_reach_pixels_and_box(name):
    """Of score and box, with respect to both frames (floats) and the first box; true by differences."""
    tracker, variables, images, box = setting(name)
    # Which colour a pixel has is counted, which has no gradient.
    config = tracker.config
    plain = {"confidence": dataclasses.replace(config.confidence, colour=0.0)}
    if hasattr(config, "colour"):
        plain["colour"] = UNUSED
    tracker = tracker.replace(**plain)
    if name in AT_RANDOM:
        draw_variables = jax.jit(tracker.init_variables, static_argnums=0)
        variables = draw_variables(tracker.config, jax.random.key(0))
    size = jnp.asarray(images.shape[1:3], jnp.int32)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def outcome(template, search, box):
        state = tracker.init(tracker.config, variables, template, box, size)
        _, prediction = tracker.track_frame(tracker.config, variables, state, search)
        return prediction.score + jnp.sum(prediction.box) / 100, prediction

    # Nothing that is rounded lies on an edge.
    box = box + jnp.asarray([0.21, 0.13, 0.17, 0.29])
    given = [images[0].astype(jnp.float32), images[1].astype(jnp.float32), box]
    _, gradients = outcome(*given)
    pixel = PIXEL_STEP.get(name, 1.0)
    for place, (gradient, step) in enumerate(zip(gradients, (pixel, pixel, 3e-3))):
        length = float(jnp.linalg.norm(gradient.ravel()))
        assert length > 0, place

        def at(factor, place=place, gradient=gradient, length=length):
            moved = list(given)
            moved[place] = moved[place] + factor * gradient / length
            (_, prediction), _ = outcome(*moved)
            box = np.asarray(prediction.box, np.float64)
            return float(prediction.score) + box.sum() / 100

        slope = (at(step) - at(-step)) / (2 * step)
        np.testing.assert_allclose(slope, length, rtol=0.05, err_msg=f"argument {place}")
