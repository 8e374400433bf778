"""OSTrack: windows and boxes against plain Python, labels, losses, schedule, weights, one compilation."""

import dataclasses
import functools
import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrack.errors import JaxtrackError
from jaxtrack.trackers.ostrack import crop as crop_ostrack
from jaxtrack.trackers.ostrack import elimination, losses
from jaxtrack.trackers.ostrack import tracker as ostrack
from jaxtrack.trackers.ostrack.head import CentreMaps
from jaxtrack.trackers.ostrack.names import OSTRACK, TABLES, load_pretraining, resize_pos_embed
from jaxtrack.weights import load_into, to_published, write_torch
from tests.trackers.test_ostrack_vit import SMALL
from train import optim
from train.tasks import ostrack as task
from train.tasks.ostrack import crops, recipe

IMAGE = np.random.RandomState(3).randint(0, 256, (60, 80, 3)).astype(np.uint8)


def reference_crop(image, box, factor, size):
    """The published rule, pixel by pixel, with OpenCV's resize."""
    x, y, w, h = box
    side = math.ceil(math.sqrt(w * h) * factor)
    left, top = round(x + 0.5 * w - side * 0.5), round(y + 0.5 * h - side * 0.5)
    square, mask = np.zeros((side, side, 3), np.uint8), np.ones((side, side))
    for row in range(side):
        for column in range(side):
            i, j = top + row, left + column
            # The last row and column count as padding once the square reaches them.
            if 0 <= i < image.shape[0] - 1 and 0 <= j < image.shape[1] - 1:
                square[row, column], mask[row, column] = image[i, j], 0
    return cv2.resize(square, (size, size)), cv2.resize(mask, (size, size)) != 0


@functools.partial(jax.jit, static_argnums=(2, 3))
def own_crop(image, box, factor, size):
    window = crop_ostrack.window_ostrack(box, factor)
    frame_size = jnp.asarray(image.shape[:2])
    crop = crop_ostrack.crop_ostrack(image, window, size, frame_size)
    return crop, crop_ostrack.padding_mask(window, size, frame_size)


@pytest.mark.parametrize(("factor", "size"), [(2.0, 32), (4.0, 48)])
def test_crop_and_padding_mask_are_opencvs(factor, size):
    for box in [(30, 20, 20, 16), (-4.5, 3, 18, 9), (66, 44, 14, 15), (40, 30, 2, 3)]:
        want, mask = reference_crop(IMAGE, box, factor, size)
        got, own = own_crop(jnp.asarray(IMAGE), jnp.asarray(box, jnp.float32), factor, size)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(own, mask)


own_clip = jax.jit(crop_ostrack.clip_box)
coordinate = st.floats(-300, 300, width=32)
extent = st.floats(1, 400, width=32)


@settings(max_examples=60, deadline=None)
@given(x=coordinate, y=coordinate, w=extent, h=extent)
def test_clipped_boxes_stay_in_the_frame(x, y, w, h):
    box = own_clip(jnp.asarray([x, y, w, h], jnp.float32), jnp.asarray([120, 160]), 10.0)
    x1, y1, w1, h1 = (float(value) for value in box)
    assert 0 <= x1 <= 150
    assert 0 <= y1 <= 110
    assert w1 >= 10
    assert h1 >= 10
    assert x1 + w1 <= 160 + 1e-4
    assert y1 + h1 <= 120 + 1e-4


def test_training_and_tracking_differ_by_half_a_pixel_of_the_crop():
    around, box = jnp.asarray([40.0, 30.0, 20.0, 10.0]), jnp.asarray([45.0, 31.0, 22.0, 12.0])
    scale, size = jnp.asarray(1.5), 64
    inside = crop_ostrack.box_to_crop(box, around, scale, size)
    centre = (inside[:2] + 0.5 * inside[2:]) / scale
    back = crop_ostrack.box_to_image(jnp.concatenate([centre, box[2:]]), around, scale, size)
    np.testing.assert_allclose(back[:2] - box[:2], -0.5 / scale, atol=1e-5)


def test_window_and_decoding():
    window = np.asarray(ostrack.hann_window(4))
    line = [0.5 * (1 - math.cos(2 * math.pi * k / 5)) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(window, np.outer(line, line), rtol=1e-6)
    score = jnp.zeros((1, 4, 4)).at[0, 2, 1].set(1.0)
    size = jnp.zeros((1, 4, 4, 2)).at[0, 2, 1].set(jnp.asarray([0.3, 0.2]))
    offset = jnp.zeros((1, 4, 4, 2)).at[0, 2, 1].set(jnp.asarray([0.5, 0.25]))
    box = ostrack.decode_boxes(score, size, offset)
    np.testing.assert_allclose(box, [[1.5 / 4, 2.25 / 4, 0.3, 0.2]], rtol=1e-6)


def test_heatmap_against_loops():
    boxes = np.asarray(
        [[0.3, 0.4, 0.25, 0.2], [0.95, 0.0, 0.1, 0.1], [-0.3, 0.2, 0.2, 0.3]], np.float32
    )
    got = np.asarray(losses.gaussian_heatmap(jnp.asarray(boxes), 16))
    for box, heatmap in zip(boxes, got):
        radius = int(losses.gaussian_radius(jnp.asarray(box[2:] * 16)))
        sigma = (2 * radius + 1) / 6
        cx, cy = (round(float(box[i] * 16 + box[i + 2] * 8)) for i in (0, 1))
        for i in range(16):
            for j in range(16):
                near = abs(i - cy) <= radius and abs(j - cx) <= radius
                square = (i - cy) ** 2 + (j - cx) ** 2
                want = math.exp(-square / (2 * sigma**2)) if near else 0.0
                assert heatmap[i, j] == pytest.approx(want, abs=1e-6)
    assert got[0].max() == 1
    assert got[2].max() < 1  # the centre lies outside: no cell is a positive


def test_giou_is_that_of_the_definition_and_degenerate_boxes_count_nothing():
    a, b = jnp.asarray([[0.0, 0.0, 2.0, 2.0]]), jnp.asarray([[1.0, 1.0, 4.0, 3.0]])
    np.testing.assert_allclose(losses.generalized_iou(a, b), [1 / 9 - (12 - 9) / 12], rtol=1e-6)
    assert losses.giou_loss(a, jnp.asarray([[3.0, 0.0, 1.0, 2.0]])) == 0


def test_negative_pairs_want_an_empty_map_and_no_box():
    keys = jax.random.split(jax.random.key(0), 3)
    maps = CentreMaps(
        jax.random.uniform(keys[0], (2, 8, 8), minval=0.1, maxval=0.9),
        jax.random.uniform(keys[1], (2, 8, 8, 2), minval=0.1, maxval=0.9),
        jax.random.normal(keys[2], (2, 8, 8, 2)),
    )
    boxes = jnp.asarray([[0.3, 0.3, 0.2, 0.2], [0.5, 0.1, 0.3, 0.4]])
    both = jnp.asarray([True, True])
    _, parts = task.box_losses(task.LossWeights(), maps, boxes, both)
    assert parts["giou"] == pytest.approx(0, abs=1e-6)
    assert parts["l1"] == 0
    empty = losses.heatmap_focal(maps.score, jnp.zeros_like(maps.score))
    assert parts["focal"] == pytest.approx(float(empty), rel=1e-6)


def test_keep_rate_anneals_as_published():
    annealing = recipe.Annealing(20, 80)
    assert [recipe.keep_rate(annealing, 0.7, e) for e in (1, 19, 20, 100, 300)] == [
        1,
        1,
        1,
        0.7,
        0.7,
    ]
    assert recipe.keep_rate(annealing, 0.7, 60) == pytest.approx(0.85)
    table = recipe.keep_table(
        annealing, (0.7, 0.5, 0.5), 256, 300
    )  # the first ratio counts for all
    assert table[24].tolist() == [256, 256, 256]
    assert table[25, 0] == 255  # epoch 26 drops the first token
    assert table[-1].tolist() == [180, 126, 89]
    assert (np.diff(table, axis=0) <= 0).all()


@pytest.mark.parametrize("annealing", [(20, 80), (0, 0), (0, 9), (150, 400)])
def test_the_annealing_goes_by_the_epochs_of_the_run(annealing):
    """Whatever length the recipe had: a run of other epochs anneals to the end, and stays there."""
    schedule = recipe.Annealing(*annealing)
    tracker = dataclasses.replace(SMALL, ce_blocks=(1,), ce_keep_ratios=(0.5,))
    config = dataclasses.replace(small_task(), tracker=tracker, annealing=schedule)
    whole = recipe.keep_table(schedule, (0.5,), SMALL.search_grid**2, 700)
    for epoch in (0, 8, 9, 20, 99, 100, 299, 300, 549, 699):
        assert task.kept_tokens(config, jnp.float32(epoch)).tolist() == whole[epoch].tolist()


def small_task():
    tiny = task.PRESETS["ostrack-tiny"].task.config
    crop, patch = dataclasses.replace(tiny.crop, colours=None), tiny.patch
    return dataclasses.replace(
        tiny,
        tracker=dataclasses.replace(SMALL, depth=2, ce_blocks=(1,), ce_keep_ratios=(0.5,)),
        crop=crop,
        patch=dataclasses.replace(
            patch,
            template=dataclasses.replace(patch.template, size=96, nominal=SMALL.template_size),
            search=dataclasses.replace(patch.search, size=96, nominal=SMALL.search_size),
        ),
    )


def small_batch(count=2, size=96):
    rng = np.random.RandomState(0)
    box = np.asarray([[40.0, 36.0, 16.0, 20.0]], np.float32).repeat(count, 0)
    return {
        "template": jnp.asarray(rng.randint(0, 256, (count, size, size, 3)), jnp.uint8),
        "search": jnp.asarray(rng.randint(0, 256, (count, size, size, 3)), jnp.uint8),
        "template_box": jnp.asarray(box),
        "search_box": jnp.asarray(box),
        "negative": jnp.zeros(count, bool),
        "step": jnp.asarray(0, jnp.int32),
    }


@pytest.mark.slow
def test_the_whole_annealing_is_one_trace():
    config = small_task()
    variables = task.init_variables(config, jax.random.key(0))
    traces = []

    @jax.jit
    def gradient(params, batch, key):
        traces.append(1)
        loss = lambda p: task.loss(config, p, variables["batch_stats"], batch, key)  # noqa: E731
        return jax.grad(loss, has_aux=True)(params)

    kept = []
    for epoch in range(0, 100, 11):
        batch = {**small_batch(), "epoch": jnp.asarray(epoch, jnp.float32)}
        keys = jax.random.split(jax.random.key(epoch), len(batch["negative"]))
        grads, aux = gradient(variables["params"], batch, keys)
        kept.append(int(aux.metrics["kept"]))
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    assert len(traces) == 1
    assert (kept[0], kept[-1]) == (64, 32)
    assert kept == sorted(kept, reverse=True)


def test_training_crops_hold_their_boxes():
    """A bright target on black: the box in the crop is where the bright pixels are."""
    patch = np.zeros((128, 128, 3), np.uint8)
    patch[50:74, 44:80] = 255
    box = jnp.asarray([44.0, 50.0, 36.0, 24.0])
    config = crops.CropConfig(centre_jitter=2.0, grey=0.0, brightness=0.0, pair_flip=0.0)
    cut = jax.jit(crops.cut, static_argnums=(0, 1, 2, 7))
    for seed in range(6):
        key = jax.random.key(seed)
        crop, inside = cut(config, 96, 4.0, key, key, jnp.asarray(patch), box, True)
        # Beyond the patch lies its mean colour, which is dark.
        weight = (np.asarray(crop)[:, :, 0] > 127).astype(float)
        centre = [
            (weight.sum(axis) * (np.arange(96) + 0.5)).sum() / weight.sum() for axis in (0, 1)
        ]
        want = (np.asarray(inside)[:2] + 0.5 * np.asarray(inside)[2:]) * 96
        if want.min() > 25 and want.max() < 71:  # wholly inside
            np.testing.assert_allclose(centre, want, atol=1.2)


@pytest.mark.slow
def test_published_optimiser_spares_what_takes_no_part():
    config = dataclasses.replace(SMALL, pretraining_grid=4)
    params = ostrack.init_variables(config, jax.random.key(0))["params"]
    transform = optim.make(recipe.optimiser(weight_decay=1.0), params, steps=10, epochs=10)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = transform.update(grads, transform.init(params), params)
    moved = optax.apply_updates(params, updates)
    before, after = (to_published(OSTRACK, {"params": tree}) for tree in (params, moved))
    for name in before:
        step = np.abs(after[name] - before[name] * (1 - 4e-4 if "box_head" in name else 1 - 4e-5))
        rate = 0 if name in ("backbone.cls_token", "backbone.pos_embed") else 4e-5
        rate = 4e-4 if "box_head" in name else rate
        if rate == 0:
            np.testing.assert_array_equal(after[name], before[name])
        else:
            np.testing.assert_allclose(step, rate, rtol=2e-2)


def test_published_files_fit_and_other_crop_sizes_are_interpolated(tmp_path, capsys):
    config = dataclasses.replace(SMALL, pretraining_grid=4)
    variables = ostrack.init_variables(config, jax.random.key(0))
    write_torch(tmp_path / "own.pth.tar", to_published(OSTRACK, variables))
    again = load_into(variables, tmp_path / "own.pth.tar", TABLES)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, variables))
    assert capsys.readouterr().err == ""
    larger = dataclasses.replace(config, template_size=48, search_size=96)
    target = jax.eval_shape(lambda: ostrack.init_variables(larger, jax.random.key(0)))
    with pytest.raises(JaxtrackError, match=r"another size of crop.*--interpolate"):
        load_into(target, tmp_path / "own.pth.tar", TABLES)
    loaded = load_into(target, tmp_path / "own.pth.tar", TABLES, interpolate=True)
    told = capsys.readouterr().err
    assert "4x4 grid interpolated to 6x6" in told
    assert "8x8 grid interpolated to 12x12" in told
    assert loaded["params"]["backbone"]["pos_embed_x"].shape == (1, 144, 32)
    wider = jax.eval_shape(
        lambda: ostrack.init_variables(dataclasses.replace(config, width=48), jax.random.key(0))
    )
    with pytest.raises(JaxtrackError, match="of another shape") as refused:
        load_into(wider, tmp_path / "own.pth.tar", TABLES, interpolate=True)
    told = " ".join(str(refused.value).split())
    assert "backbone.blocks.0.norm1.weight is (32,), (48,) wanted" in told


@pytest.mark.slow
def test_pretraining_files_fill_the_backbone(tmp_path, capsys):
    config = dataclasses.replace(SMALL, pretraining_grid=5)
    variables = ostrack.init_variables(config, jax.random.key(0))
    backbone = variables["params"]["backbone"]
    state = to_published(OSTRACK, {"params": backbone})
    state = {
        k: np.asarray(v) + 1 for k, v in state.items() if k not in ("pos_embed_z", "pos_embed_x")
    }
    extra = {"mask_token": np.zeros((1, 1, 32)), "decoder_embed.weight": np.zeros((8, 32))}
    write_torch(tmp_path / "mae.pth", {**state, **extra})
    path, key = tmp_path / "mae.pth", jax.random.key(1)
    loaded = task.load(dataclasses.replace(small_task(), tracker=config), path, key)
    told = capsys.readouterr().err
    assert "not used of the file: mask_token, decoder_embed.weight" in told
    assert "pos_embed_z: 5x5 grid interpolated to 4x4" in told
    want = resize_pos_embed(state["pos_embed"], 8)
    np.testing.assert_allclose(loaded["params"]["backbone"]["pos_embed_x"], want, atol=1e-6)
    kernel = loaded["params"]["backbone"]["blocks.0"]["attn.qkv"]["kernel"]
    np.testing.assert_array_equal(kernel, state["blocks.0.attn.qkv.weight"].T)
    timm = {**state, "head.weight": np.zeros((10, 32)), "head.bias": np.zeros(10)}
    load_pretraining(backbone, timm)
    assert "head.weight, head.bias" in capsys.readouterr().err
    del state["blocks.1.norm1.weight"]
    with pytest.raises(JaxtrackError, match=r"not in the file: blocks\.1\.norm1\.weight"):
        load_pretraining(backbone, {**state, "surplus": np.zeros(3)})


def test_published_presets_have_the_published_lengths():
    for name, preset in task.PRESETS.items():
        if name not in ("ostrack-tiny", "ostrack-small"):
            assert preset.steps == 468 * preset.epochs
            assert preset.batch_size == 128
            assert preset.task.config.tracker == ostrack.PRESETS[preset.tracker]
    rows = elimination.template_rows(12, "CTR_POINT")
    assert rows == (65,)


def test_sizes_are_corrected_by_the_first_frame_and_smoothed():
    config = dataclasses.replace(
        ostrack.PRESETS["ostrack-tiny"], size_rate=0.25, size_correction=1.0
    )
    ones = jnp.ones(1)
    state = ostrack.State(
        box=jnp.asarray([10.0, 20, 40, 20]),
        template=ones,
        template_mask=ones,
        frame_size=jnp.asarray([100, 100]),
        correction=jnp.asarray([2.0, 0.5]),
        confidence=jnp.ones(()),
        misses=jnp.zeros((), jnp.int32),
        appearance=(),
    )
    new = jnp.asarray([20.0, 20, 24, 48])  # about (32, 44)
    got = ostrack.smoothed(config, state, new, state.misses)
    size = np.array([0.75 * 40 + 0.25 * 48, 0.75 * 20 + 0.25 * 24])
    np.testing.assert_allclose(got, [*(np.array([32, 44]) - size / 2), *size], rtol=1e-6)
    published = dataclasses.replace(config, size_rate=1.0, size_correction=0.0)
    assert ostrack.smoothed(published, state, new, state.misses) is new
