"""MLT's training: only the meta-learner learns, M' and M agree, and stage 2 starts from stage 1."""

import dataclasses
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import load_weights
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.losses import balanced_logistic
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.synthetic.patches import PatchConfig
from jaxtrack.trackers.mlt import network as net
from jaxtrack.trackers.mlt import tracker as mlt
from jaxtrack.trackers.siamfc import tracker as siamfc
from jaxtrack.weights import Card, save_weights, shipped_path
from tests.trackers.test_mlt import SMALL, features, variables_of
from train import optim, presets
from train.step import init_state
from train.tasks import mlt as task

KEYS = jax.random.split(jax.random.key(0), 2)


def small(**changes):
    config = presets.get("mlt-tiny-meta").task.config
    tracker = dataclasses.replace(SMALL, meta=dataclasses.replace(SMALL.meta, keep=1.0))
    template, context = (
        dataclasses.replace(a, size=s)
        for a, s in (
            (config.template, tracker.exemplar_size),
            (config.context, tracker.instance_size),
        )
    )
    return dataclasses.replace(
        config,
        tracker=tracker,
        template=template,
        context=context,
        patch=PatchConfig(PatchSpec(87, 79, 1.0), PatchSpec(171, 159, 159 / 79)),
        patches=4,
        **changes,
    )


def batch_of(videos, patches):
    rng = np.random.default_rng(1)

    def pictures(*shape):
        return jnp.asarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))

    box = jnp.asarray([40.0, 40, 50, 50])
    return {
        "template": pictures(videos, 87, 87),
        "template_box": jnp.tile(box, (videos, 1)),
        "patches": pictures(videos, patches, 171, 171),
        "patch_boxes": jnp.tile(box, (videos, patches, 1)),
    }


def test_only_the_meta_learner_learns():
    config = small(other_videos=0.5)
    variables = variables_of(config.tracker)
    batch = batch_of(2, 4)
    gradient, aux = jax.jit(
        jax.grad(
            lambda p: task.loss(config, p, variables["batch_stats"], batch, KEYS),
            has_aux=True,
        )
    )(variables["params"])
    for name, part in gradient.items():
        moved = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(part))
        assert (moved > 0) == (name == "meta"), name
    assert set(aux.metrics) == {"adapted_loss", "matching_loss", "other_loss"}
    for a, b in zip(jax.tree.leaves(aux.batch_stats), jax.tree.leaves(variables["batch_stats"])):
        np.testing.assert_array_equal(a, b)

    preset = presets.get("mlt-tiny-meta")
    optimizer = optim.make(preset.optim, variables["params"], 10, 1)
    state = init_state(variables, optimizer)
    updates, _ = optimizer.update(gradient, state.opt_state, variables["params"])
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(updates["backbone"]))
    assert any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(updates["meta"]))


def test_the_calibration_moves_the_gain_alone():
    preset = presets.get("mlt-tiny-calibration")
    tracker = mlt.switched(SMALL, False, False, False)
    config = small(learns=preset.task.config.learns)
    config = dataclasses.replace(config, tracker=tracker)
    variables = variables_of(tracker)
    gradient = jax.jit(
        jax.grad(lambda p: task.loss(config, p, variables["batch_stats"], batch_of(2, 4), KEYS)[0])
    )(variables["params"])
    optimizer = optim.make(preset.optim, variables["params"], 10, 1)
    state = init_state(variables, optimizer)
    updates, _ = optimizer.update(gradient, state.opt_state, variables["params"])
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(updates["backbone"]))
    assert all(np.all(np.asarray(leaf) != 0) for leaf in updates["match_batchnorm"].values())


def test_the_loss_of_a_video_is_that_of_its_adapted_network():
    """One video, all M' = M patches, no dropout: the same as the tracker's own functions give."""
    config = small(fewest=3, other_videos=0.0)
    config = dataclasses.replace(config, patches=3)
    tracker, variables = config.tracker, variables_of(config.tracker)
    exemplar, patches = (a.astype(jnp.float32) for a in features(tracker, 3))
    video = task.Video(exemplar, patches, jnp.zeros((3, 2)), patches[:1])
    value, metrics = task.video_loss(config, variables, video, jax.random.key(3))
    problem = mlt.problem(tracker, variables, exemplar, patches, jnp.ones(3))
    layer = mlt.adapt(tracker, variables, problem, problem.kernel)
    rule = (
        net.last_layer(mlt.module(tracker), variables),
        net.head(mlt.module(tracker), variables),
    )
    kernels = (layer.template_kernel, layer.search_kernel)
    responses = net.respond(*rule, 1, kernels, layer.attention, exemplar, patches)
    truth = jnp.broadcast_to(problem.labels[None], responses.shape)
    assert float(value) == pytest.approx(float(balanced_logistic(responses, truth)), rel=1e-5)
    assert float(metrics["matching_loss"]) != float(value)


def flat_batch(videos, patches, side=171):
    """Grey patches with one bright target each, in the middle."""
    grey = np.full((videos, patches, side, side, 3), 90, np.uint8)
    low, high = side // 2 - 12, side // 2 + 13
    for video in range(videos):
        grey[video, :, low:high, low:high] = 150 + 50 * video
    box = jnp.asarray([low, low, high - low, high - low], jnp.float32)
    batch = batch_of(videos, patches)
    boxes = jnp.tile(box, (videos, patches, 1))
    return {**batch, "patches": jnp.asarray(grey), "patch_boxes": boxes}


def test_a_pasted_target_stands_beside_the_patchs_own():
    batch = flat_batch(2, 3)
    patches, boxes = batch["patches"], batch["patch_boxes"]
    key = jax.random.key(5)
    made = np.asarray(task.paste(1.0, key, patches[0], boxes[0], patches[1], boxes[1]))
    x, y, w, h = np.asarray(boxes[0, 0], int)
    for before, after in zip(np.asarray(patches[0]), made):
        np.testing.assert_array_equal(after[y : y + h, x : x + w], before[y : y + h, x : x + w])
        rows, columns = np.nonzero((after == 200).all(axis=-1))
        assert 0.5 * w * h < len(rows) <= (w + 1) * (h + 1)
        away = np.hypot(rows.mean() - y - h / 2, columns.mean() - x - w / 2)
        assert 0.9 * w < away < 1.8 * w
        assert ((after == before).all(axis=-1) | (after == 200).all(axis=-1)).all()
    kept = task.paste(0.0, key, patches[0], boxes[0], patches[1], boxes[1])
    np.testing.assert_array_equal(kept, patches[0])


def test_labels_follow_the_target():
    config = mlt.PRESETS["mlt-tiny"]
    middle = task.labels_at(config, jnp.zeros((1, 2)))[0]
    np.testing.assert_array_equal(middle, mlt.labels(config))
    moved, gone = task.labels_at(config, jnp.asarray([[16.0, -8.0], [0.0, 500.0]]))
    np.testing.assert_array_equal(moved, np.roll(middle, (2, -1), (0, 1)))
    assert not gone.any()


def test_the_peak_loss_asks_where_the_highest_cells_are():
    labels = np.zeros((3, 5, 5), np.float32)
    labels[:2, 2, 2:4] = 1  # the third response holds no target
    responses = np.zeros((3, 5, 5), np.float32)
    responses[1, 0, 0] = 9
    value, slope = jax.value_and_grad(task.peak_loss)(jnp.asarray(responses), labels)
    want = [np.log(25 / 2), np.log((24 + np.exp(9)) / 2)]
    assert float(value) == pytest.approx(np.mean(want), rel=1e-5)
    assert np.isfinite(slope).all()
    assert not slope[2].any()
    # Unlike the logistic loss, it does not change with the level of a response.
    assert float(task.peak_loss(responses + 3.0, labels)) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.slow
def test_a_followed_patch_lies_about_the_peak_of_the_matching_network(monkeypatch):
    """A peak that is always 10 pixels right and 6 above moves every window by as much."""
    config = small(followed=1.0, drift=20.0)
    side = config.tracker.network.stride * mlt.response_size(config.tracker)

    def find_peak(maps, *rules):
        return types.SimpleNamespace(offset=jnp.asarray([-6.0, 10.0]) / side)

    monkeypatch.setattr(task, "find_peak", find_peak)
    variables, batch = variables_of(config.tracker), flat_batch(2, 4)
    template = jnp.zeros((2, *[config.tracker.exemplar_size] * 2, 3))
    exemplars = mlt.trunk(config.tracker, variables, template)
    _, looked, before = task._cut(config, batch, KEYS, jnp.zeros((2, 4, 2)))
    made, after = task.follow(config, variables, exemplars, batch, KEYS)
    assert made.shape == looked.shape
    np.testing.assert_allclose(after[..., 0], before[..., 0] - 10, atol=1e-3)
    np.testing.assert_allclose(after[..., 1], before[..., 1] + 6, atol=1e-3)
    # The windows were drawn as far away as drift says, and the pixels are those that the boxes tell.
    assert 8 < np.ptp(np.asarray(before[..., :2])) <= 45
    rows, columns = np.nonzero(np.asarray(made[0, 0]).mean(axis=-1) > 120)
    x, y, w, h = np.asarray(after[0, 0])
    assert abs(columns.mean() + 0.5 - x - w / 2) < 1
    assert abs(rows.mean() + 0.5 - y - h / 2) < 1


@pytest.mark.parametrize("given", ["first", "likest"])
def test_delta_can_come_from_the_first_or_the_likest_patches(given, monkeypatch):
    config = dataclasses.replace(small(fewest=3, given=given), patches=5)
    tracker, variables = config.tracker, variables_of(config.tracker)
    exemplar, patches = (a.astype(jnp.float32) for a in features(tracker, 5))
    seen = []
    real = mlt.problem

    def problem(*values):
        seen.append(values[3])
        return real(*values)

    monkeypatch.setattr(task.mlt, "problem", problem)
    video = task.Video(exemplar, patches, jnp.zeros((5, 2)), patches[:1])
    task.video_loss(config, variables, video, jax.random.key(3))
    order = [0, 1, 2]
    if given == "likest":
        module = mlt.module(tracker)
        layer, head = net.last_layer(module, variables), net.head(module, variables)
        ones = jnp.ones(layer.kernel.shape[-1])
        kernels = (layer.kernel, layer.kernel)
        maps = np.asarray(net.respond(layer, head, 1, kernels, ones, exemplar, patches))
        middle = maps.shape[-1] // 2
        order = np.argsort(-maps[:, middle, middle])[:3]
    np.testing.assert_array_equal(seen[0], patches[np.asarray(order)])


@pytest.mark.slow
def test_all_additions_together_give_the_meta_learner_a_gradient():
    config = small(peak=0.5, followed=0.5, drift=16.0, pasted=0.5, given="likest")
    variables = variables_of(config.tracker)
    gradient, aux = jax.jit(
        jax.grad(
            lambda p: task.loss(config, p, variables["batch_stats"], batch_of(2, 4), KEYS),
            has_aux=True,
        )
    )(variables["params"])
    leaves = jax.tree.leaves(gradient["meta"])
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.asarray(leaf).any() for leaf in leaves)
    assert all(np.isfinite(value) for value in aux.metrics.values())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"followed": 1.5}, "followed is 1.5"),
        ({"pasted": -0.1}, "pasted is -0.1"),
        ({"peak": -1.0}, "peak is -1"),
    ],
)
def test_shares_that_are_none_are_refused_by_name(fields, words):
    with pytest.raises(JaxtrackError, match=words):
        small(**fields)


def test_stage_two_starts_from_stage_one(tmp_path):
    config = small()
    still = mlt.switched(config.tracker, False, False, False)
    first = variables_of(still, seed=4)
    card = Card("mlt-tiny-mt", "synthetic", 1, "abc1234", {})
    save_weights(tmp_path / "stage1.safetensors", first, card)
    whole = {**first, "params": {**first["params"], "meta": {"fc1": {"bias": np.ones(3)}}}}
    save_weights(tmp_path / "full.safetensors", whole, dataclasses.replace(card, preset="mlt-tiny"))
    found, again = (
        task.load(config, tmp_path / f"{name}.safetensors", jax.random.key(0))
        for name in ("stage1", "full")
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)  # a full tracker's meta-learner begins anew, too
    shapes = presets.shapes(task.task(config))
    assert jax.tree.structure(found) == jax.tree.structure(shapes)
    for name, part in first["params"].items():
        for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(found["params"][name])):
            np.testing.assert_array_equal(a, b)


def test_stages_have_the_trackers_variables():
    for name in ("mlt-tiny-matching", "mlt-tiny-calibration", "mlt-tiny-meta", "siamfc-tiny-mlt"):
        preset = presets.get(name)
        config = mlt.PRESETS[preset.tracker]
        want = jax.eval_shape(lambda k, c=config: mlt.init_variables(c, k), jax.random.key(0))
        assert jax.tree.structure(presets.shapes(preset.task)) == jax.tree.structure(want), name


def test_fewer_patches_than_the_gradient_needs_are_refused():
    config = presets.get("mlt-meta").task.config
    assert (config.patches, config.tracker.samples) == (16, 8)
    with pytest.raises(JaxtrackError, match=r"patches \(M'\) is 7, but .* samples \(M\) = 8"):
        dataclasses.replace(config, patches=7)
    with pytest.raises(JaxtrackError, match="fewest is 9"):
        dataclasses.replace(config, fewest=9)


@pytest.mark.slow
def test_a_few_steps_teach_the_meta_learner():
    """On two fixed videos the loss of the adapted network falls."""
    config = small(fewest=3)
    variables = variables_of(config.tracker)
    batch = task.sample(config, KEYS)
    optimizer = optim.make(
        optim.OptimConfig("adam", 3e-2, groups=presets.get("mlt-tiny-meta").optim.groups),
        *(variables["params"], 40, 1),
    )
    state = init_state(variables, optimizer)

    @jax.jit
    def step(params, memory, key):
        def loss(p):
            return task.loss(config, p, variables["batch_stats"], batch, key)

        (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        moves, memory = optimizer.update(gradient, memory, params)
        return jax.tree.map(jnp.add, params, moves), memory, value

    params, memory, values = state.params, state.opt_state, []
    for i in range(40):
        params, memory, value = step(params, memory, jax.random.split(jax.random.key(i % 2)))
        values.append(float(value))
    # The matching network is random and stays so: from a loss of .706 there is little to be had.
    assert np.mean(values[-4:]) < np.mean(values[:4]) - 0.015


def test_stage_one_starts_from_the_trunk_of_siamfc():
    config = presets.get("mlt-tiny-matching").task.config
    started = task.load_trunk(config, shipped_path("siamfc-tiny"), jax.random.key(0))
    image = np.random.RandomState(0).uniform(0, 1, (1, 127, 127, 3)).astype(np.float32)
    ours, theirs = (
        jax.jit(partial(siamfc.module(fc).apply, method="embed"))(variables, image)
        for fc, variables in (
            (config.tracker, started),
            (siamfc.PRESETS["siamfc-tiny"], load_weights("siamfc-tiny")),
        )
    )
    np.testing.assert_array_equal(ours[3], theirs[3])
    assert ours[4].shape != theirs[4].shape
