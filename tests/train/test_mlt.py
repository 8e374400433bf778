"""MLT's training: only the meta-learner learns, M' and M agree, and stage 2 starts from stage 1."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import load_weights
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.losses import balanced_logistic
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
        config, tracker=tracker, template=template, context=context, patches=4, **changes
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
    value, metrics = task.video_loss(
        config, variables, exemplar, patches, patches[:1], jax.random.key(3)
    )
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


def test_stage_two_starts_from_stage_one(tmp_path):
    config = small()
    still = mlt.switched(config.tracker, False, False, False)
    first = variables_of(still, seed=4)
    card = Card("mlt-tiny-mt", "synthetic", 1, "abc1234", {})
    save_weights(tmp_path / "stage1.safetensors", first, card)
    found = task.load(config, tmp_path / "stage1.safetensors", jax.random.key(0))
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
        optim.OptimConfig("adam", 3e-3, groups=presets.get("mlt-tiny-meta").optim.groups),
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
    assert np.mean(values[-4:]) < 0.9 * np.mean(values[:4])


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
