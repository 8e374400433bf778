"""TADT: branches against plain formulas, geometry against OpenCV, hard targets, cut filters, vmap."""

import dataclasses
import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxtrack import base as verbs
from jaxtrack.base import Tracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.trackers.siamfc import tracker as siamfc
from jaxtrack.trackers.tadt import channels as tadt_choice
from jaxtrack.trackers.tadt import geometry as tadt_geometry
from jaxtrack.trackers.tadt import matching as responses
from jaxtrack.trackers.tadt import ranking as tadt_ranking
from jaxtrack.trackers.tadt import ridge as tadt_ridge
from jaxtrack.trackers.tadt import tracker as tadt
from jaxtrack.trackers.tadt.correlation import correlate_same
from jaxtrack.trackers.tadt.losses import ranking_derivative_published, ranking_loss, ranking_pairs
from tests.parity.standin import frames
from tests.parity.tadt_checks import cut_margin

TINY = tadt.PRESETS["tadt-tiny"]


def plain_correlation(features, kernel):
    half = [(n // 2, n // 2) for n in kernel.shape[:2]]
    return lax.conv_general_dilated(
        features, kernel[..., None], (1, 1), half, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[..., 0]


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_correlation_and_its_gradients_equal_xlas():
    features = drawn(2, 9, 9, 4)
    kernel = jnp.zeros((9, 9, 4)).at[2:7, 1:8].set(drawn(5, 7, 4, seed=1))
    cotangent = drawn(2, 9, 9, seed=2)
    ours, pull = jax.vjp(lambda f, k: correlate_same(f, k, jnp.int32(2)), features, kernel)
    plain, pull_plain = jax.vjp(plain_correlation, features, kernel)
    np.testing.assert_allclose(ours, plain, atol=1e-4)
    (by_features, by_kernel), (want_features, want_kernel) = pull(cotangent), pull_plain(cotangent)
    np.testing.assert_allclose(by_features, want_features, atol=1e-4)
    np.testing.assert_allclose(by_kernel[2:7], want_kernel[2:7], atol=1e-4)


def test_ridge_in_the_dual_is_gradient_descent():
    """On a map smaller than its canvas, against descent on the kernel itself."""
    side, inner, size = 11, 9, (3, 5)
    features = jnp.pad(jnp.abs(drawn(inner, inner, 6)), ((0, 2), (0, 2), (0, 0)))
    start = jnp.zeros((7, 7, 6)).at[2:5, 1:6].set(0.01 * drawn(*size, 6, seed=1))
    sigma = jnp.asarray([0.2, 0.4])
    label = tadt_ridge.gaussian_label(side, inner, sigma, 0.2)
    descent = tadt_ridge.Descent(steps=12, rate=0.02, momentum=0.9, weight_decay=0.5)
    found = tadt_ridge.train_ridge(
        features, label, start, jnp.asarray(size), jnp.int32(inner), descent
    )

    def loss(weights):
        kernel, bias = weights
        prediction = plain_correlation(features[None, :inner, :inner], kernel)[0] + bias
        return jnp.mean(jnp.square(prediction - label[:inner, :inner]))

    weights = (start[2:5, 1:6], jnp.zeros(()))
    speeds, losses = jax.tree.map(jnp.zeros_like, weights), []
    step = jax.jit(jax.value_and_grad(loss))
    for _ in range(descent.steps):
        value, gradients = step(weights)
        losses.append(value)
        speeds = jax.tree.map(
            lambda v, g, w: descent.momentum * v + g + descent.weight_decay * w,
            speeds, gradients, weights,
        )  # fmt: skip
        weights = jax.tree.map(lambda w, v: w - descent.rate * v, weights, speeds)
    np.testing.assert_allclose(found.losses, losses, rtol=2e-4)
    np.testing.assert_allclose(found.kernel[2:5, 1:6], weights[0], atol=2e-5)
    assert float(jnp.abs(found.kernel).sum()) == pytest.approx(
        float(jnp.abs(found.kernel[2:5, 1:6]).sum())
    )
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_rankings_pooled_gradient_is_zero_and_with_features_it_is_not():
    """The paper's importance says nothing in the ranking branch, whatever the features and the kernel."""
    features = jnp.abs(drawn(21, 21, 8))
    size = jnp.asarray([7, 9])
    samples = tadt_ranking.scaled_samples(21, 21, jnp.int32(21), size, jnp.float32)
    kernel = jnp.zeros((21, 21, 8)).at[7:14, 6:15].set(0.01 * drawn(7, 9, 8, seed=3))
    gradient = tadt_ranking.rank_feature_gradient(features, kernel, samples)
    pooled = jnp.abs(jnp.sum(gradient, axis=(0, 1)))
    scale = jnp.sum(jnp.abs(gradient), axis=(0, 1))
    assert float(jnp.max(pooled / scale)) < 1e-4
    with_features = jnp.abs(jnp.sum(gradient * features, axis=(0, 1)))
    assert float(jnp.median(with_features / scale)) > 1e-2
    trained, losses = tadt_ranking.train_ranking(
        features, kernel, size, samples, tadt_ridge.Descent(20, 1e-4, 0.9, 0.0)
    )
    assert losses[-1] < losses[0]
    assert float(jnp.abs(trained[:7]).sum()) == 0


def test_published_ranking_derivative_is_not_the_true_one():
    scores = drawn(9)
    pairs = ranking_pairs(jnp.int32(9), 9)
    derivative, total = ranking_derivative_published(scores, pairs)
    assert float(total) == pytest.approx(float(jnp.sum(derivative)), rel=1e-4)
    true = jax.grad(ranking_loss)(scores, pairs)
    assert abs(float(jnp.sum(true))) < 1e-6
    assert float(jnp.max(jnp.abs(derivative - true))) > 0.05
    assert not ranking_pairs(jnp.int32(3), 9).any()


@pytest.mark.parametrize("seed", range(3))
def test_selection_follows_the_published_rule(seed):
    rng = np.random.default_rng(seed)
    first, last = rng.standard_normal(30) + seed - 1, rng.standard_normal(40) - seed
    ranking, caps, minimum = rng.random(30) > 0.5, (10, 20), 25
    masks = tadt_choice.select_channels(
        (jnp.asarray(first), jnp.asarray(last)), jnp.asarray(ranking), caps, minimum
    )
    best = set(np.argsort(-first)[: caps[0]])
    want = {c for c in best if first[c] > 0 and ranking[c]}
    order = np.argsort(-last)
    kept = [c for c in order[: caps[1]] if last[c] > 0]
    if len(want) + len(kept) < minimum:
        kept = list(order[: minimum - len(want)])
    assert set(np.flatnonzero(masks[0])) == want
    assert set(np.flatnonzero(masks[1])) == set(kept)


@pytest.mark.parametrize(
    ("rescale", "window", "size"),
    [
        (1.7, (20.25, 11.5, 60, 60), 44),
        (0.55, (-12.75, -3.0, 51, 51), 36),
        (1.0, (3, 5, 44, 44), 44),
    ],
)
def test_crop_equals_opencvs_two_resizes(rescale, window, size):
    frame = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    height, width = (int(np.ceil(n * rescale)) for n in frame.shape[:2])
    scaled = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    x, y, side = window[0], window[1], window[2]
    steps = np.arange(1, side + 1) - np.ceil(side / 2)
    columns = np.clip(np.floor(x + side / 2 + steps).astype(int), 0, width - 1)
    rows = np.clip(np.floor(y + side / 2 + steps).astype(int), 0, height - 1)
    want = cv2.resize(scaled[rows][:, columns], (size, size), interpolation=cv2.INTER_LINEAR)
    padded = np.pad(frame, ((0, 10), (0, 6), (0, 0)), constant_values=7)
    found = tadt_geometry.crop_window(
        jnp.asarray(padded),
        jnp.asarray(frame.shape[:2], jnp.int32),
        jnp.float32(rescale),
        jnp.asarray(window, jnp.float32),
        jnp.asarray([size, size]),
        (48, 48),
    )
    np.testing.assert_array_equal(found[:size, :size], want)


def test_peaks_do_not_depend_on_the_tiles():
    response = jnp.abs(drawn(3, 9, 9))
    side, map_size = jnp.int32(75), jnp.int32(9)
    index = jnp.arange(75)
    whole = responses.score_block(response, map_size, side, index, index).reshape(3, -1)
    for tile in (16, 40, 128):
        peaks = responses.score_peaks(response, map_size, side, tile=tile)
        place = np.argmax(whole, axis=1)
        np.testing.assert_array_equal(peaks.row, place // 75)
        np.testing.assert_array_equal(peaks.column, place % 75)
    ties = responses.score_peaks(jnp.zeros((1, 9, 9)), map_size, jnp.int32(20), 0.0, tile=8)
    assert (int(ties.row[0]), int(ties.column[0])) == (0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"caps": (24, 65)}, "asks for 65 channels of layer block5, which has 64"),
        ({"caps": (24,)}, "caps has 1 numbers for 2 layers"),
        ({"minimum": 65}, "minimum asks for 65"),
        ({"scales": (1.0, 1.1)}, "2 scales and 3 scale_weights"),
    ],
)
def test_asking_for_more_than_there_is_gets_one_clear_line(change, words):
    with pytest.raises(JaxtrackError, match=words) as caught:
        dataclasses.replace(TINY, **change)
    assert "\n" not in str(caught.value)


def test_an_unknown_layer_is_refused_by_name():
    extractor = dataclasses.replace(TINY.extractor, layers=("block4", "conv9"))
    with pytest.raises(JaxtrackError, match="no layer 'conv9'; it has block3, block4, block5"):
        tadt.init_variables(dataclasses.replace(TINY, extractor=extractor), jax.random.key(0))


def test_tiny_runs_on_siamfcs_backbone():
    assert TINY.extractor.network == siamfc.PRESETS["siamfc-tiny"].network
    own = jax.eval_shape(lambda key: tadt.init_variables(TINY, key), jax.random.key(0))
    other = jax.eval_shape(
        lambda key: siamfc.init_variables(siamfc.PRESETS["siamfc-tiny"], key), jax.random.key(0)
    )
    assert own["params"]["backbone"] == other["params"]["backbone"]
    assert own["batch_stats"]["backbone"] == other["batch_stats"]["backbone"]


@functools.cache
def running():
    """The tiny tracker, random variables, a clip on a padded canvas, its first box."""
    tracker = Tracker(TINY, tadt.init_variables, tadt.init, tadt.track_frame)
    variables = jax.jit(tadt.init_variables, static_argnums=0)(TINY, jax.random.key(0))
    images, boxes = frames(seed=7, count=2, height=120, width=160)
    padded = np.pad(images, ((0, 0), (0, 8), (0, 0), (0, 0)), constant_values=255)
    size = jnp.asarray([120, 160], jnp.int32)
    return tracker, variables, jnp.asarray(padded), size, jnp.asarray(boxes[0], jnp.float32)


BOXES = {
    "very small": (80, 60, 2, 2),
    "very wide": (10, 60, 140, 6),
    "very tall": (70, 5, 5, 110),
    "fills the frame": (0, 0, 160, 120),
    "partly outside": (-20, -10, 40, 40),
    "wholly outside": (200, 150, 30, 30),
}


@pytest.mark.parametrize("name", BOXES)
def test_hard_targets_are_tracked_without_harm(name):
    tracker, variables, images, size, _ = running()
    box = jnp.asarray(BOXES[name], jnp.float32)
    state = verbs.init(tracker, variables, images[0], box, size)
    state, prediction = verbs.track_frame(tracker, variables, state, images[1])
    assert np.isfinite(prediction.box).all()
    assert np.isfinite(prediction.score)
    assert (prediction.box[2:] > 0).all()
    # One step changes the size by one scale at most (and rounding of the scaled box).
    ratio = np.asarray(prediction.box[2:]) / np.asarray(box[2:])
    assert (ratio > 0.7).all()
    assert (ratio < 1.4).all()


def test_cut_filters_give_what_the_whole_layer_gives():
    _, variables, images, size, box = running()
    state = jax.jit(tadt.init, static_argnums=0)(TINY, variables, images[0], box, size)
    assert state.filters[0].shape[-1] == TINY.slots[-1]
    look = tadt.cut(TINY, state, images[1])
    embed = jax.jit(tadt.embed, static_argnums=0)
    cut = embed(TINY, variables, state, look)
    whole = embed(TINY, variables, state._replace(filters=()), look)
    np.testing.assert_allclose(cut, whole, atol=1e-4 * float(jnp.max(jnp.abs(whole))))
    assert float(jnp.max(jnp.abs(cut))) > 0


@pytest.mark.slow
def test_targets_under_vmap_equal_one_by_one():
    _, variables, images, size, box = running()
    boxes = jnp.stack([box, jnp.asarray(BOXES["very tall"], jnp.float32)])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def both(variables, box):
        state = tadt.init(TINY, variables, images[0], box, size)
        return tadt.track_frame(TINY, variables, state, images[1])[1]

    found = both(variables, boxes)
    tracker = running()[0]
    for i in range(2):
        state = verbs.init(tracker, variables, images[0], boxes[i], size)
        _, one = verbs.track_frame(tracker, variables, state, images[1])
        np.testing.assert_allclose(found.box[i], one.box, atol=0.05)
        np.testing.assert_allclose(found.score[i], one.score, rtol=1e-3)


def test_a_lost_target_lets_nothing_run_away():
    target, window = jnp.asarray([10.0, 10, 0.05, 40]), jnp.asarray([0.0, 0, 11, 11])
    small, _ = tadt.move(TINY, target, window, jnp.int32(0), jnp.asarray([5, 5]))
    np.testing.assert_allclose(small[2:], target[2:])
    wide = jnp.asarray([0.0, 0, TINY.max_window, TINY.max_window])
    grown, kept = tadt.move(TINY, target, wide, jnp.int32(2), jnp.asarray([5, 5]))
    np.testing.assert_allclose(grown[2:], target[2:])
    np.testing.assert_allclose(kept[2:], wide[2:])


def test_the_margin_of_the_cut_tells_a_tie():
    importance = jnp.asarray([4.0, -1.0, 2.0, 2.0, 3.0])
    (kept,) = tadt_choice.select_channels((importance,), jnp.ones(5, bool), (3,), 0)
    assert kept.tolist() == [True, False, True, False, True]
    assert float(cut_margin(importance, kept)) == 0
    admitted = jnp.asarray([True, True, True, False, True])
    assert float(cut_margin(importance, kept, admitted)) == 0.75
    assert np.isinf(cut_margin(importance, jnp.ones(5, bool)))
