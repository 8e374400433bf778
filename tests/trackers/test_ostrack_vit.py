"""The one-stream transformer: both forms of elimination, cost, initial values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.trackers.ostrack import elimination
from jaxtrack.trackers.ostrack import tracker as ostrack
from jaxtrack.trackers.ostrack.vit import attend

SMALL = ostrack.Config(
    template_size=32,
    search_size=64,
    patch=8,
    width=32,
    depth=3,
    heads=2,
    ce_blocks=(0, 1),
    ce_keep_ratios=(0.7, 0.7),
    head_channels=16,
    pretraining_grid=0,
    drop_path_rate=0.0,
)


@functools.cache
def setting(config, seed=0, batch=2):
    variables = ostrack.init_variables(config, jax.random.key(seed))
    keys = jax.random.split(jax.random.key(seed + 1), 2)
    z = jax.random.normal(keys[0], (batch, config.template_size, config.template_size, 3))
    x = jax.random.normal(keys[1], (batch, config.search_size, config.search_size, 3))
    # Fresh weights attend to everything alike; larger ones give scores that differ clearly.
    variables["params"] = jax.tree.map(lambda leaf: 3 * leaf, variables["params"])
    return variables, z, x


def features(config, variables, z, x, counts=None, rows=None, search_only=False):
    def run(net):
        tokens = net.embed_template(z)
        return net.features(tokens, x, counts, rows, False, search_only)

    return ostrack.network(config).apply(variables, method=run)


@functools.partial(jax.jit, static_argnums=(0, 4, 6))
def gathered(config, variables, z, x, counts=None, rows=None, search_only=False):
    return features(config, variables, z, x, counts, rows, search_only)


@pytest.mark.parametrize("template_range", ["CTR_POINT", "CTR_REC", "ALL", "GT_BOX"])
def test_masked_elimination_equals_gathered(template_range):
    config = dataclasses.replace(SMALL, ce_template_range=template_range)
    variables, z, x = setting(config)
    rows = None
    if template_range == "GT_BOX":
        boxes = jnp.asarray([[0.25, 0.3, 0.5, 0.4], [0.4, 0.2, 0.2, 0.6]])
        rows = jnp.stack([ostrack.template_mask(config, box) for box in boxes])
    masked = jax.jit(lambda counts: features(config, variables, z, x, counts, rows))
    for counts in [(45, 32)] if rows is not None else [(64, 64), (20, 3)]:
        want = gathered(config, variables, z, x, counts, rows)
        got = masked(jnp.asarray(counts, jnp.int32))
        np.testing.assert_allclose(got.search, want.search, atol=2e-5)
        np.testing.assert_allclose(got.template, want.template, atol=2e-5)
        for stage, count in enumerate(counts):
            np.testing.assert_array_equal(got.kept[stage], want.kept[stage])
            np.testing.assert_array_equal(got.kept[stage].sum(axis=1), count)
            np.testing.assert_allclose(got.scores[stage], want.scores[stage], atol=1e-6)
        gone = ~np.asarray(got.kept[-1])
        assert (np.asarray(got.search)[gone] == 0).all()
        assert (np.asarray(want.search)[gone] == 0).all()
    assert masked._cache_size() == 1


@pytest.mark.slow
def test_gradients_of_both_forms_agree():
    variables, z, x = setting(SMALL)

    def loss(params, counts):
        out = features(SMALL, {"params": params, "batch_stats": {}}, z, x, counts)
        return jnp.sum(jnp.sin(out.search))

    counts = (40, 25)
    taken = jax.jit(lambda p: jax.grad(loss)(p, counts))(variables["params"])
    masked = jax.jit(jax.grad(loss))(variables["params"], jnp.asarray(counts))
    for a, b in zip(jax.tree.leaves(taken), jax.tree.leaves(masked)):
        np.testing.assert_allclose(a, b, atol=2e-4 * (1 + float(jnp.abs(a).max())))


def test_leaving_out_the_template_changes_nothing():
    variables, z, x = setting(SMALL)
    whole = gathered(SMALL, variables, z, x)
    part = gathered(SMALL, variables, z, x, None, None, True)
    assert part.template is None
    np.testing.assert_allclose(part.search, whole.search, atol=1e-5)


def test_rematerialisation_changes_nothing():
    variables, z, x = setting(SMALL)
    counts = jnp.asarray([40, 25])

    def gradient(config):
        def loss(params):
            out = features(config, {"params": params, "batch_stats": {}}, z, x, counts)
            return jnp.sum(jnp.sin(out.search))

        return jax.jit(jax.grad(loss))(variables["params"])

    kept = gradient(SMALL)
    again = gradient(dataclasses.replace(SMALL, remat=True))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(again)):
        np.testing.assert_allclose(a, b, atol=1e-4 * (1 + float(jnp.abs(a).max())))


def test_bfloat16_stays_near_and_keeps_float32_outside():
    config = dataclasses.replace(SMALL, ce_blocks=(), ce_keep_ratios=())
    variables, z, x = setting(config)
    half = dataclasses.replace(config, compute_dtype="bfloat16")
    want, got = gathered(config, variables, z, x), gathered(half, variables, z, x)
    assert got.search.dtype == jnp.float32
    error = np.linalg.norm(got.search - want.search) / np.linalg.norm(want.search)
    assert 0 < error < 0.05


def test_attention_of_a_batch_is_that_of_its_samples():
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (3, 7, 2, 4)) for key in keys)
    kept = jnp.asarray(np.random.RandomState(0).rand(3, 7) < 0.6).at[:, 0].set(True)
    together = jax.jit(attend)(q, k, v, kept)
    for i in range(3):
        logits = np.einsum("qhd,lhd->hql", q[i], k[i]) / 2
        logits[:, :, ~np.asarray(kept[i])] = -np.inf
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        want = np.einsum("hql,lhd->qhd", weights, v[i]).reshape(7, 8)
        np.testing.assert_allclose(together[i], want, atol=1e-5)


def test_keep_counts_are_counted_in_double_precision():
    assert elimination.keep_counts((0.7, 0.7, 0.7), 256) == (180, 126, 89)
    assert elimination.keep_counts((0.7, 0.7, 0.7), 576) == (404, 283, 199)
    assert elimination.keep_counts((1.0, 0.97), 16) == (16, 16)


def test_still_kept_takes_the_best_of_those_left():
    score = jnp.asarray([[0.1, 0.9, 0.5, 0.7, 0.3]])
    kept = jnp.asarray([[True, False, True, True, True]])
    got = elimination.still_kept(score, kept, jnp.asarray(2))
    np.testing.assert_array_equal(got, [[False, False, True, True, False]])


@pytest.mark.parametrize(
    ("size", "paper"),
    [("256", (29.0, 21.5)), pytest.param("384", (65.3, 48.3), marks=pytest.mark.slow)],
)
def test_elimination_saves_what_the_paper_says(size, paper):
    def giga_products(name):
        config = ostrack.PRESETS[name]
        variables = jax.eval_shape(lambda: ostrack.init_variables(config, jax.random.key(0)))
        box, frame_size = jnp.asarray([90.0, 60.0, 40.0, 30.0]), jnp.asarray([120, 160])
        frame = jax.ShapeDtypeStruct((120, 160, 3), jnp.uint8)
        state = jax.eval_shape(
            lambda v, f: ostrack.init(config, v, f, box, frame_size), variables, frame
        )
        step = jax.jit(lambda v, s, f: ostrack.track_frame(config, v, s, f))
        # Counted by XLA before it optimises: nothing has to be compiled.
        return step.lower(variables, state, frame).cost_analysis()["flops"] / 2e9

    plain, saving = giga_products(f"ostrack-{size}"), giga_products(f"ostrack-{size}-ce")
    # The paper leaves the attention's products out of its figures; XLA counts them.
    assert plain == pytest.approx(paper[0], rel=0.15)
    assert saving == pytest.approx(paper[1], rel=0.15)
    assert saving / plain < paper[1] / paper[0]
