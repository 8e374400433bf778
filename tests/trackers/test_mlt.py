"""MLT against definitions: gradients, formulas written out, entropy, and what must stay as it is."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxtrack
from jaxtrack.base import Tracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.models.alexnet import AlexNetConfig, embed_crops
from jaxtrack.ops.correlation import cross_correlation
from jaxtrack.ops.losses import balanced_logistic
from jaxtrack.ops.template_update import FIXED
from jaxtrack.trackers.mlt import adaptation
from jaxtrack.trackers.mlt import network as net
from jaxtrack.trackers.mlt import tracker as mlt
from jaxtrack.trackers.mlt.meta import MetaConfig
from jaxtrack.trackers.mlt.pyramid import find_peak
from tests.parity.standin import frames as draw

# The same code with few channels and small crops: compiles and runs in no time.
SMALL = dataclasses.replace(
    mlt.PRESETS["mlt-tiny"],
    network=AlexNetConfig(
        channels=(4, 6, 6, 8, 5),
        groups=(1, 1, 1, 1, 1),
        kernels=(7, 5, 3, 3, 1),
        final_norm=True,
        norm_epsilon=1e-5,
    ),
    meta=MetaConfig(hidden=12, target_kernels=3, per_row=True),
    exemplar_size=79,
    instance_size=159,
    samples=3,
    template_update=FIXED,
    memory_size=4,
    update_interval=2,
    fewest_patches=1,
    tau=-1.0,
    response_up=4,
)


@functools.cache
def variables_of(config, seed=0):
    """Random variables whose normalisation is not the identity."""
    found = jax.jit(mlt.init_variables, static_argnums=0)(config, jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def vary(path, leaf):
        names = {key.key for key in path}
        if names & {"scale", "var"}:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        if names & {"mean", "bias"}:
            return jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype)
        return leaf

    return jax.tree_util.tree_map_with_path(vary, found)


def wide(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), tree)


def features(config, count, seed=3):
    """Trunk outputs of an exemplar and of context patches, float64 where that is on."""
    rng = np.random.default_rng(seed)
    sides = [
        config.network.feature_size(s, 4) for s in (config.exemplar_size, config.instance_size)
    ]
    c = config.network.channels[3]
    exemplar = np.maximum(rng.normal(size=(sides[0], sides[0], c)), 0)
    patches = np.maximum(rng.normal(size=(count, sides[1], sides[1], c)), 0)
    return jnp.asarray(exemplar), jnp.asarray(patches)


def exact_problem(config, seed=0, weights=(1.0, 0.5, 0.0)):
    """A problem in float64; the last patch has no weight."""
    variables = wide(variables_of(config, seed))
    exemplar, patches = features(config, len(weights))
    # A gain for which the responses are of order one.
    variables["params"]["match_batchnorm"]["scale"] = jnp.asarray([8.0])
    return variables, mlt.problem(config, variables, exemplar, patches, jnp.asarray(weights))


def test_sizes_are_the_descriptions():
    config = mlt.PRESETS["mlt"]
    shapes = jax.eval_shape(lambda key: mlt.init_variables(config, key), jax.random.key(0))
    backbone = shapes["params"]["backbone"]
    kernels = [backbone[f"conv{i}.0"]["kernel"].shape for i in range(1, 6)]
    assert kernels == [
        (11, 11, 3, 128),
        (5, 5, 128, 256),
        (3, 3, 256, 384),
        (3, 3, 384, 256),
        (1, 1, 256, 192),
    ]
    assert all(f"conv{i}.1" in backbone for i in range(1, 6))
    assert mlt.response_size(config) == 17
    meta = shapes["params"]["meta"]
    assert meta["fc1"]["kernel"].shape == (256 * 192, 512)
    assert meta["fc2"]["kernel"].shape == (512, 512)
    delta = jax.ShapeDtypeStruct((1, 1, 256, 192), jnp.float32)
    out = jax.eval_shape(lambda p, d: net.run_meta(config.meta, p, d), meta, delta)
    assert out.kernel.shape == (1, 1, 256, 32)
    assert out.attention.shape == (192 + 32,)


def test_trunk_and_last_layer_are_the_network():
    config = SMALL
    variables = variables_of(config)
    module = mlt.module(config)
    images = jax.random.uniform(jax.random.key(1), (2, 127, 127, 3))
    blocks = module.apply(variables, images, method="embed")
    layer = net.last_layer(module, variables)
    trunk = embed_crops(module, variables, images, 1, block=4)
    got = net.apply_last(layer, layer.kernel, 1, trunk)
    np.testing.assert_allclose(got, blocks[4], atol=1e-5)
    raw = jax.random.normal(jax.random.key(2), (2, 9, 9))
    match = net.head(module, variables)
    want = module.apply(variables, raw, method="match")
    np.testing.assert_allclose(raw * match.factor + match.offset, want, atol=1e-6)


def test_correlation_by_products_is_the_correlation():
    rng = np.random.default_rng(0)
    template, searches = rng.normal(size=(4, 3, 7)), rng.normal(size=(2, 9, 8, 7))
    template, searches = template.astype(np.float32), searches.astype(np.float32)
    want = cross_correlation(jnp.asarray(template), jnp.asarray(searches))
    np.testing.assert_allclose(net.correlate(template, searches), want, atol=1e-4)
    products = jnp.einsum("hwc,nabc->nabhw", template, searches, precision="highest")
    np.testing.assert_allclose(net._sum_along_diagonals(products), want, atol=1e-4)


def test_grouped_layers_take_new_kernels_group_by_group():
    """SiamFC's last layer has two groups: half of the new kernels sees each."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 5, 5, 6)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4 + 2)), jnp.float32)
    layer = net.LastLayer(kernel[..., :4], jnp.full(4, 2.0), jnp.full(4, 0.5))
    got = net.apply_last(layer, kernel, 2, x)
    old = net.apply_last(layer, layer.kernel, 2, x)
    np.testing.assert_array_equal(got[..., :4], old)
    for i in range(2):
        alone = net.conv2d(x[..., 3 * i : 3 * i + 3], kernel[..., 4 + i : 5 + i])
        np.testing.assert_allclose(got[..., 4 + i : 5 + i], alone, atol=1e-5)


def test_delta_is_the_finite_difference():
    with jax.enable_x64(True):
        _, task = exact_problem(SMALL)
        args = (task.patch_loss, task.patches, task.weights)
        delta = jax.jit(lambda k: adaptation.negative_gradient(k, *args))(task.kernel)
        loss = jax.jit(lambda k: adaptation.mean_loss(k, *args))
        flat, step = task.kernel.reshape(-1), 1e-5
        found = []
        for i in range(flat.size):
            low, high = (loss(flat.at[i].add(s).reshape(task.kernel.shape)) for s in (-step, step))
            found.append(-(high - low) / (2 * step))
        error = np.abs(np.reshape(found, delta.shape) - delta).max() / np.abs(delta).max()
        assert error < 1e-6
        assert np.abs(delta).max() > 1e-3


def test_delta_is_the_formula():
    """Equation 2 written out for a last layer of 1x1: both branches carry gradient to it."""
    with jax.enable_x64(True):
        variables, task = exact_problem(SMALL)
        layer = net.last_layer(mlt.module(SMALL), variables)
        match = net.head(mlt.module(SMALL), variables)
        exemplar = np.asarray(features(SMALL, 3)[0])
        w, f, o = (np.asarray(v) for v in (layer.kernel[0, 0], layer.factor, layer.offset))
        gain, bias = float(match.factor), float(match.offset)
        label = np.asarray(task.labels, np.float64)
        balance = 0.5 * label / label.sum() + 0.5 * (1 - label) / (1 - label).sum()
        template = (exemplar @ w) * f + o
        h, m = template.shape[0], label.shape[0]
        total = np.zeros_like(w)
        for patch, weight in zip(np.asarray(task.patches), np.asarray(task.weights)):
            search = (patch @ w) * f + o
            response = np.zeros((m, m))
            for p in range(h):
                for q in range(h):
                    response += search[p : p + m, q : q + m] @ template[p, q]
            response = gain * response + bias
            slope = gain * balance * (1 / (1 + np.exp(-response)) - label)
            to_template, to_search = np.zeros_like(template), np.zeros_like(search)
            for p in range(h):
                for q in range(h):
                    window = search[p : p + m, q : q + m]
                    to_template[p, q] = np.tensordot(slope, window, 2)
                    to_search[p : p + m, q : q + m] += slope[..., None] * template[p, q]
            gradient = np.tensordot(exemplar, to_template * f, ((0, 1), (0, 1)))
            total -= weight * (gradient + np.tensordot(patch, to_search * f, ((0, 1), (0, 1))))
        total /= np.sum(task.weights)
        delta = adaptation.negative_gradient(
            task.kernel, task.patch_loss, task.patches, task.weights
        )
        np.testing.assert_allclose(delta[0, 0], total, rtol=1e-9, atol=1e-12)


@functools.cache
def _outer(first_order):
    """Loss of the adapted layer on all patches, as a function of g's parameters and the base kernel."""
    config = dataclasses.replace(SMALL, first_order=first_order, gradient_scaling="rms")
    variables, _ = exact_problem(config)
    exemplar, patches = features(config, 3)

    def outer(meta, kernel):
        params = {**variables["params"], "meta": meta}
        backbone = dict(params["backbone"])
        backbone["conv5.0"] = {**backbone["conv5.0"], "kernel": kernel}
        now = {**variables, "params": {**params, "backbone": backbone}}
        task = mlt.problem(config, now, exemplar, patches, jnp.ones(3, kernel.dtype))
        layer = mlt.adapt(config, now, task, kernel)
        responses = net.respond(
            *(net.last_layer(mlt.module(config), now), net.head(mlt.module(config), now), 1),
            *((layer.template_kernel, layer.search_kernel), layer.attention, exemplar, patches),
        )
        return balanced_logistic(responses, jnp.broadcast_to(task.labels[None], responses.shape))

    meta = variables["params"]["meta"]
    return jax.jit(outer), meta, net.last_layer(mlt.module(config), variables).kernel


def test_meta_gradient_is_the_finite_difference():
    """With respect to g, and through delta (second order) with respect to the base kernel."""
    with jax.enable_x64(True):
        outer, meta, kernel = _outer(False)
        gradient = jax.jit(jax.grad(outer, argnums=(0, 1)))(meta, kernel)
        rng = np.random.default_rng(5)
        for which in (0, 1):
            point = (meta, kernel)
            way = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), point[which])

            def at(step, which=which, way=way, point=point):
                moved = list(point)
                moved[which] = jax.tree.map(lambda a, b: a + step * b, moved[which], way)
                return float(outer(*moved))

            numeric = (at(1e-6) - at(-1e-6)) / 2e-6
            parts = jax.tree.map(lambda a, b: float(np.sum(a * b)), gradient[which], way)
            assert sum(jax.tree.leaves(parts)) == pytest.approx(numeric, rel=1e-5)
            assert abs(numeric) > 1e-6


def test_first_order_leaves_the_path_through_delta_out():
    with jax.enable_x64(True):
        full, meta, kernel = _outer(False)
        short = _outer(True)[0]
        assert float(full(meta, kernel)) == pytest.approx(float(short(meta, kernel)), rel=1e-12)
        one, two = (jax.jit(jax.grad(f, argnums=(0, 1)))(meta, kernel) for f in (full, short))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), one[0], two[0])
        assert np.abs(one[1] - two[1]).max() > 1e-9


def test_base_kernels_stay_bit_equal_and_zero_output_is_the_matching_network():
    variables = variables_of(SMALL)
    exemplar, patches = (a.astype(jnp.float32) for a in features(SMALL, 3))
    task = mlt.problem(SMALL, variables, exemplar, patches, jnp.ones(3))
    layer = mlt.adapt(SMALL, variables, task, task.kernel)
    count = task.kernel.shape[-1]
    np.testing.assert_array_equal(layer.search_kernel[..., :count], task.kernel)
    assert layer.search_kernel.shape[-1] == count + 3
    assert np.abs(layer.search_kernel[..., count:]).max() > 0
    assert not np.all(np.asarray(layer.attention) == 1)

    meta = dict(variables["params"]["meta"])
    for name in ("fc3", "fc3_bias", "attention"):
        meta[name] = jax.tree.map(jnp.zeros_like, meta[name])
    silent = {**variables, "params": {**variables["params"], "meta": meta}}
    layer = mlt.adapt(SMALL, silent, task, task.kernel)
    np.testing.assert_array_equal(layer.attention, 1)
    rule = (net.last_layer(mlt.module(SMALL), variables), net.head(mlt.module(SMALL), variables), 1)
    kernels = (layer.template_kernel, layer.search_kernel)
    got = net.respond(*rule, kernels, layer.attention, exemplar, patches)
    want = net.respond(*rule, (task.kernel,) * 2, jnp.ones(count), exemplar, patches)
    np.testing.assert_allclose(got, want, atol=1e-5)


def oracle_entropy(responses):
    found = []
    for response in np.asarray(responses, np.float64):
        p = (response - response.min()) / (response - response.min()).sum()
        p = p[p > 0]
        found.append(-(p * np.log(p)).sum())
    return np.asarray(found)


def test_least_entropy_is_numpys():
    rng = np.random.default_rng(2)
    responses = rng.normal(size=(12, 17, 17)) * rng.uniform(0.2, 5, (12, 1, 1))
    responses = np.exp(responses).astype(np.float32)
    order = np.argsort(oracle_entropy(responses), kind="stable")
    slots, used = adaptation.least_entropy(jnp.asarray(responses), 5)
    np.testing.assert_array_equal(slots, order[:5])
    np.testing.assert_array_equal(used, 1)
    # In a compiled step with fewer patches than M: those that are there, the others without weight.
    pick = jax.jit(lambda r, n: adaptation.least_entropy(r, 5, n))
    slots, used = pick(responses, 3)
    np.testing.assert_array_equal(slots[:3], np.argsort(oracle_entropy(responses[:3])))
    np.testing.assert_array_equal(used, [1, 1, 1, 0, 0])


def test_memory_keeps_the_first_and_drops_the_oldest():
    memory = adaptation.empty_memory(4, (1, 1, 1), (2, 2))
    for i in range(9):
        memory = adaptation.remember(memory, jnp.full((1, 1, 1), i), jnp.zeros((2, 2)), i)
    np.testing.assert_array_equal(memory.features[:, 0, 0, 0], [0, 7, 8, 6])
    np.testing.assert_array_equal(memory.weights, [0, 7, 8, 6])
    assert memory.filled == 9


@functools.cache
def clip():
    images, boxes = draw(seed=7, count=6, height=120, width=160)
    return jnp.asarray(images), jnp.asarray(boxes[0], jnp.float32)


def follow(config, variables):
    """States after each of five frames, the first included, and the scores."""
    images, box = clip()
    tracker = Tracker(config, mlt.init_variables, mlt.init, mlt.track_frame)
    state = jaxtrack.init(tracker, variables, images[0], box)
    states, scores = [state], []
    for image in images[1:]:
        state, found = jaxtrack.track_frame(tracker, variables, state, image)
        states.append(state)
        scores.append(float(found.score))
    return states, scores


def test_memory_is_fed_at_the_interval_when_tau_is_passed():
    variables = variables_of(SMALL)
    states, _ = follow(SMALL, variables)
    assert [int(s.memory.filled) for s in states] == [1, 1, 2, 2, 3, 3]
    count = SMALL.network.channels[4]
    base = net.last_layer(mlt.module(SMALL), variables).kernel
    for state in states:
        np.testing.assert_array_equal(state.kernel[..., :count], base)
    changed = [np.any(a.kernel != b.kernel) for a, b in itertools.pairwise(states)]
    assert changed == [False, True, False, True, False]
    states, scores = follow(dataclasses.replace(SMALL, tau=1.1), variables)
    assert [int(s.memory.filled) for s in states] == [1] * 6
    assert max(scores) <= 1


def test_nothing_adapts_before_there_are_enough_patches():
    variables = variables_of(SMALL)
    waiting, scores = follow(dataclasses.replace(SMALL, fewest_patches=3), variables)
    plain, unadapted = follow(mlt.switched(SMALL, False, False, False), variables)
    assert [int(s.memory.filled) for s in waiting] == [1, 1, 2, 2, 3, 3]
    assert scores[:4] == pytest.approx(unadapted[:4], abs=1e-6)
    count = SMALL.network.channels[4]
    for before in waiting[:4]:
        np.testing.assert_array_equal(before.template[..., :count], plain[0].template)
        assert not np.any(before.kernel[..., count:])
    assert np.any(waiting[4].kernel[..., count:])
    assert np.any(waiting[4].attention != 1)


@pytest.mark.parametrize("switches", [(True, False, True), (False, True, False)])
def test_switches_are_independent(switches):
    config = mlt.switched(SMALL, *switches)
    variables = variables_of(SMALL)
    states, _ = follow(config, variables)
    count = SMALL.network.channels[4]
    base = net.last_layer(mlt.module(SMALL), variables).kernel
    last = states[-1]
    assert last.kernel.shape[-1] == count + (3 if switches[0] else 0)
    assert bool(np.any(last.attention != 1)) == switches[1]
    assert bool(np.any(last.kernel[..., :count] != base)) == switches[2]


def test_matching_network_alone_keeps_nothing():
    config = mlt.switched(SMALL, False, False, False)
    states, _ = follow(config, variables_of(config))
    assert states[-1].memory.features.size == 0
    np.testing.assert_array_equal(states[0].template, states[-1].template)
    assert "meta" not in variables_of(config)["params"]


@pytest.mark.slow
def test_ways_to_adapt_lower_the_loss_and_are_what_they_say():
    with jax.enable_x64(True):
        _, task = exact_problem(SMALL, weights=(1.0, 1.0, 0.0))

        def loss(layer):
            def one(patch):
                return task.loss(task.respond(layer.template_kernel, layer.search_kernel, patch))

            return float(jnp.mean(jax.vmap(one)(task.patches[:2])))

        def weighed(layer):
            def one(patch):
                kernel = layer.search_kernel
                return task.loss(task.respond(kernel, kernel, patch, layer.attention))

            return float(jnp.mean(jax.vmap(one)(task.patches[:2])))

        start = loss(adaptation.unadapted(task))
        delta = adaptation.negative_gradient(
            task.kernel, task.patch_loss, task.patches, task.weights
        )
        single = adaptation.gradient_steps(task, 1, 0.1)
        np.testing.assert_allclose(single.search_kernel, task.kernel + 0.1 * delta, rtol=1e-12)
        assert loss(adaptation.gradient_steps(task, 5, 0.01)) < start
        tuned = adaptation.adam_steps(task, 4, 1e-2)
        assert loss(tuned) < start
        np.testing.assert_allclose(tuned.search_kernel, _optax_adam(task, 4, 1e-2), rtol=1e-9)
        new = jnp.full((*task.kernel.shape[:3], 2), 0.05)
        longer = jnp.concatenate([task.kernel, new], axis=-1)
        first = adaptation.Adapted(longer, longer, jnp.ones(longer.shape[-1]))
        appended = adaptation.appended_steps(task, first, 5, 1e-2)
        np.testing.assert_array_equal(appended.search_kernel[..., :5], task.kernel)
        assert weighed(appended) < weighed(first)
        solved = adaptation.ridge(task, 1e-3)
        np.testing.assert_array_equal(solved.template_kernel, task.kernel)
        _assert_ridge_is_the_minimum(task, solved.search_kernel, 1e-3)


def _optax_adam(task, steps, rate):
    optimizer = optax.adam(rate)
    kernel, state = task.kernel, optimizer.init(task.kernel)
    for _ in range(steps):
        gradient = -adaptation.negative_gradient(
            kernel, task.patch_loss, task.patches, task.weights
        )
        moves, state = optimizer.update(gradient, state)
        kernel = kernel + moves
    return kernel


def _assert_ridge_is_the_minimum(task, solution, penalty):
    """The gradient of the regression's objective, written out, vanishes at the closed form."""
    label = np.asarray(task.labels)
    balance = 0.5 * label / label.sum() + 0.5 * (1 - label) / (1 - label).sum()
    share = task.weights / jnp.sum(task.weights)

    def objective(kernel):
        def one(patch, weight):
            rest = task.respond(task.kernel, kernel, patch) - 3.0 * (2 * task.labels - 1)
            return weight * jnp.sum(balance * rest**2)

        fit = jnp.sum(jax.vmap(one)(task.patches, share))
        return fit + penalty * jnp.sum((kernel - task.kernel) ** 2)

    slope, first = jax.grad(objective)(solution), jax.grad(objective)(task.kernel)
    assert np.abs(slope).max() < 1e-7 * np.abs(first).max()


@pytest.mark.slow
def test_a_clip_can_be_differentiated_by_its_hyper_parameters():
    """Through `track_clip`: rate, tau in its soft form, weight of the window."""
    config = dataclasses.replace(SMALL, entry_softness=0.1, peak_softness=0.1, tau=0.5)
    images, box = clip()
    tracker = Tracker(config, mlt.init_variables, mlt.init, mlt.track_frame)
    variables = variables_of(config)
    state = jaxtrack.init(tracker, variables, images[0], box)

    def loss(rules):
        _, found = jaxtrack.track_clip(tracker, {**variables, "tuning": rules}, state, images[1:])
        return -jnp.mean(jnp.log(found.score))

    rules = {"rate": 0.5, "tau": 0.5, "window_influence": 0.2}
    gradient = jax.grad(loss)(rules)
    assert all(np.isfinite(value) for value in gradient.values())
    assert gradient["rate"] != 0
    assert gradient["tau"] != 0


def test_soft_peaks_become_the_hard_ones():
    line = np.arange(9, dtype=np.float32)
    bump = np.exp(-0.5 * ((line[:, None] - 5.5) ** 2 + (line[None] - 3) ** 2))
    maps = jnp.asarray(np.stack([bump, 1.5 * bump, bump]) * 8)
    factors, keep = np.asarray([0.96, 1.0, 1.04]), np.asarray([0.97, 1.0, 0.97])
    hard = find_peak(maps, factors, keep, 0.1, 4)
    soft = find_peak(maps, factors, keep, 0.1, 4, softness=1e-3)
    assert hard.scale == 1
    np.testing.assert_allclose(soft.offset, hard.offset, atol=0.02)
    assert float(soft.factor) == pytest.approx(1.0)
    assert abs(float(hard.offset[0]) - 1.5 / 9) < 0.05
    assert abs(float(hard.offset[1]) + 1 / 9) < 0.05


def test_numbers_that_contradict_each_other_are_refused_by_name():
    with pytest.raises(JaxtrackError, match=r"memory_size \(K\) is 2.*samples \(M\) = 3"):
        dataclasses.replace(SMALL, memory_size=2)
    with pytest.raises(JaxtrackError, match=r"M = 3 .* the memory holds 2"):
        adaptation.least_entropy(jnp.zeros((4, 5, 5)), 3, 2)
    with pytest.raises(JaxtrackError, match=r"update_interval is 0"):
        dataclasses.replace(SMALL, update_interval=0)
    with pytest.raises(JaxtrackError, match=r"fewest_patches is 5"):
        dataclasses.replace(SMALL, fewest_patches=5)
    with pytest.raises(JaxtrackError, match=r"descent_steps is above 0"):
        dataclasses.replace(mlt.switched(SMALL, True, False, False), descent_steps=4)
    with pytest.raises(JaxtrackError, match=r"attention is on"):
        dataclasses.replace(SMALL, meta=MetaConfig(attention=False))
