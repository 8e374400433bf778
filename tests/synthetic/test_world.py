"""The synthetic world: pure, tight boxes, honest flags, patches of the published scale."""

from __future__ import annotations

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.ops.patch import PatchSpec
from jaxtrack.synthetic import objects, sheet
from jaxtrack.synthetic import render as rendering
from jaxtrack.synthetic import world as synthetic
from jaxtrack.synthetic.textures import Draws, seed_of
from jaxtrack.synthetic.world import (
    ATTRIBUTES,
    BENCHMARK,
    PatchConfig,
    WorldConfig,
    draw_clip,
    make_pair,
    make_patches,
    target_mask,
)

WORLD = WorldConfig(
    height=72,
    width=96,
    length=12,
    target_size=(14.0, 24.0),
    behind=2,
    texture_size=16,
    sprite_size=40,
    background_grid=12,
)
PATCH = PatchConfig(
    template=PatchSpec(size=35, nominal=31, factor=1.0),
    search=PatchSpec(size=71, nominal=63, factor=63 / 31),
)


EFFECTS = ((), ("out_of_view",), ("scale_variation", "aspect_ratio_change"), ("low_resolution",))
REPEATS = 5  # clips of each set of effects


def _arrays(tree):
    return jax.tree.map(np.asarray, tree)


def _wanted(names: tuple[str, ...]) -> np.ndarray:
    return np.asarray([name in names for name in ATTRIBUTES])


@functools.cache
def _draw():
    return jax.jit(jax.vmap(functools.partial(draw_clip, WORLD)))


@functools.cache
def _keys():
    return jax.random.split(jax.random.key(1), len(EFFECTS) * REPEATS)


@functools.cache
def _all_clips():
    """Clips (effects x repeats), all drawn at once: compiling is what takes time here."""
    wanted = np.repeat(np.stack([_wanted(names) for names in EFFECTS]), REPEATS, axis=0)
    return _arrays(_draw()(_keys(), wanted))


def _clips(*names: str):
    start = EFFECTS.index(names) * REPEATS
    everything = _all_clips()
    return [
        jax.tree.map(lambda leaf, index=index: leaf[index], everything)
        for index in range(start, start + REPEATS)
    ]


@functools.cache
def _pairs():
    patch = PatchConfig(
        **{**vars(PATCH), "max_shift": 10.0, "max_scale": 0.2, "negative_rate": 0.5}
    )
    draw = jax.jit(lambda keys: jax.lax.map(lambda key: make_pair(WORLD, patch, key), keys))
    return _arrays(draw(jax.random.split(jax.random.key(13), 64)))


def test_clip_shapes_and_ranges():
    for clip in _clips() + _clips("out_of_view"):
        assert clip.frames.shape == (12, 72, 96, 3)
        assert clip.frames.dtype == np.uint8
        assert clip.frames.std() > 5
        assert clip.boxes.shape == (12, 4)
        assert clip.boxes.dtype == np.float32
        assert clip.absent.shape == (12,)
        assert clip.absent.dtype == bool
        assert clip.attributes.shape == (len(ATTRIBUTES),)
        assert clip.attributes.dtype == bool
        assert np.isfinite(clip.boxes).all()
        assert (clip.boxes >= 0).all()
        assert (clip.boxes[:, 0] + clip.boxes[:, 2] <= 96 + 1e-3).all()
        assert (clip.boxes[:, 1] + clip.boxes[:, 3] <= 72 + 1e-3).all()


def test_clips_are_functions_of_their_keys():
    first = _all_clips()
    wanted = np.repeat(np.stack([_wanted(names) for names in EFFECTS]), REPEATS, axis=0)
    again = _arrays(_draw()(_keys(), wanted))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert _draw()._cache_size() == 1  # no second compilation
    assert np.abs(first.frames[0].astype(int) - first.frames[1]).mean() > 5
    assert np.abs(first.boxes[0] - first.boxes[1]).max() > 1


def test_attributes_of_a_key_follow_the_rate():
    rates = []
    for rate in (0.0, 0.5, 1.0):
        world = WorldConfig(attribute_rate=rate)
        keys = jax.random.split(jax.random.key(0), 64)
        drawn = jax.vmap(functools.partial(synthetic._draw_attributes, world))(keys)
        rates.append(float(drawn.mean()))
    assert rates[0] == 0.0
    assert rates[1] == pytest.approx(0.5, abs=0.1)
    assert rates[2] == 1.0


def test_one_clip_alone_and_its_mask():
    """Alone, a clip is what it is among others; its boxes are tight around the target's mask."""
    frame_and_mask = jax.jit(
        lambda key, wanted, index: (
            draw_clip(WORLD, key, wanted, index[None]),
            target_mask(WORLD, key, index, wanted),
        )
    )
    checked = 0
    for position, clip in enumerate(_clips()):
        for index in (0, 7):
            key = _keys()[position]
            alone, mask = _arrays(frame_and_mask(key, _wanted(()), jnp.asarray(index)))
            difference = np.abs(alone.frames[0].astype(int) - clip.frames[index])
            assert difference.max() <= 2  # sums in another order round some pixels the other way
            assert (difference > 0).mean() < 0.02
            np.testing.assert_allclose(alone.boxes[0], clip.boxes[index], atol=1e-3)
            cover, box = mask
            low, high = box[:2], box[:2] + box[2:]
            if (low < 1).any() or high[0] > 95 or high[1] > 71:
                continue
            np.testing.assert_allclose(clip.boxes[index], box, atol=1e-3)
            # the mask fades at its edge, and more where it moves
            rows, columns = (np.flatnonzero(cover.max(axis) > 0.3) for axis in (1, 0))
            drawn = np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
            slack = 1.5 + 0.1 * np.concatenate([box[2:], box[2:]])
            assert (np.abs(drawn - np.concatenate([low, high])) <= slack).all(), (drawn, box)
            checked += 1
    assert checked >= 6


@functools.cache
def _draw_object():
    return jax.jit(lambda seed: objects.draw_object(seed, 16))


def _object(seed: int) -> objects.Object:
    return _draw_object()(seed_of(jax.random.key(seed)))


def test_a_drawn_box_holds_all_of_the_target():
    # what changes between a picture with and without its target lies within the box
    thing = _object(9)
    pose = objects.Pose(
        centre=jnp.asarray([30.0, 26.0]),
        half=jnp.asarray([14.0, 8.0]),
        angle=jnp.asarray(0.5),
        wave=jnp.asarray([0.1, -0.1]),
        phase=jnp.asarray(0.7),
        swing=jnp.asarray(0.6),
        opacity=jnp.asarray(1.0),
        blur=jnp.zeros(2),
    )
    axis = jnp.arange(240) * 0.25 + 0.125

    @jax.jit
    def draw(thing, pose):
        sprite = objects.bake(thing, pose, 96, jnp.eye(3))
        return sprite, objects.place(sprite, axis, axis, jnp.asarray(0.25), jnp.zeros(2))[:, 3]

    sprite, alpha = draw(thing, pose)
    rows, columns = (np.flatnonzero(np.asarray(alpha).max(a) > 0.5) for a in (1, 0))
    drawn = 0.25 * np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    box = np.asarray(sprite.box)
    np.testing.assert_allclose(drawn, np.concatenate([box[:2], box[:2] + box[2:]]), atol=0.5)


def test_the_deformation_has_an_inverse():
    thing = _object(10)
    pose = objects.Pose(
        *(jnp.asarray(value) for value in ([3.0, 4.0], [5.0, 2.0], 0.9, [0.2, 0.15], 1.1)),
        *(jnp.asarray(value) for value in (0.8, 1.0, [0.0, 0.0])),
    )

    @jax.jit
    def there_and_back(thing, pose):
        points, _ = objects.outline(thing, pose)
        x, y = objects._rest_coordinates(thing, pose, points[..., 0], points[..., 1])
        return jnp.stack([x, y], -1), objects._raw_outline(thing, pose.swing, pose.phase)

    back, rest = there_and_back(thing, pose)
    assert float(jnp.ptp(rest)) > 1
    np.testing.assert_allclose(back, rest, atol=1e-4)


def test_absent_where_the_target_is_out_of_view():
    for clip in _clips("out_of_view"):
        area = clip.boxes[:, 2] * clip.boxes[:, 3]
        assert not clip.absent[0]
        assert clip.absent.any()
        assert clip.absent[area == 0].all()
        assert (area[clip.absent] < 0.3 * area[0]).all()
        assert not clip.absent[area > 0.5 * area[0]].any()


def test_a_plain_clip_is_never_absent_and_begins_in_full_view():
    for clip in _clips():
        assert not clip.absent.any()
        x, y, w, h = clip.boxes[0]
        assert x > 0
        assert y > 0
        assert x + w < 96
        assert y + h < 72
        assert w * h > 60


def test_a_front_object_hides_the_target():
    zeros = jnp.zeros(4)
    poses = rendering.Pose(
        centre=jnp.full((4, 2), 40.0),
        half=jnp.asarray([[5.0, 5.0], [5.0, 5.0], [9.0, 9.0], [60.0, 60.0]]),
        angle=zeros,
        wave=jnp.zeros((4, 2)),
        phase=zeros,
        swing=zeros,
        opacity=jnp.ones(4),
        blur=jnp.zeros((4, 2)),
    )
    view = rendering.View(jnp.zeros(2), jnp.asarray(1.0), jnp.ones(3), jnp.uint32(1))

    @jax.jit
    def share(opacity):
        now = poses._replace(opacity=poses.opacity.at[3].set(opacity))
        scene = rendering.draw_scene(
            WORLD, seed_of(jax.random.key(0)), jnp.asarray(20.0), jnp.asarray(0.0)
        )
        sprites = rendering.bake_all(scene.objects, now, 40, jnp.eye(3))
        _, cover, area = rendering.render(scene, sprites, view, (72, 96), 2, jnp.zeros(2))
        return area / cover.sum()

    seen = [float(share(opacity)) for opacity in (1.0, 0.0)]
    assert seen[0] < 0.35
    assert seen[1] == pytest.approx(1.0, abs=1e-3)


def test_attributes_that_boxes_decide():
    def share(name, clips):
        return np.mean([clip.attributes[ATTRIBUTES.index(name)] for clip in clips])

    changing = _clips("scale_variation", "aspect_ratio_change")
    assert share("scale_variation", changing) >= 0.6
    assert share("aspect_ratio_change", changing) >= 0.6
    assert share("aspect_ratio_change", _clips()) <= 0.4
    assert share("low_resolution", _clips("low_resolution")) == 1.0
    for clip in changing:
        aspect = clip.boxes[:, 2] / clip.boxes[:, 3]
        ratio = aspect / aspect[0]
        left = ((ratio > 2) | (ratio < 0.5)).any()
        if clip.attributes[ATTRIBUTES.index("aspect_ratio_change")]:
            assert left


def test_each_effect_changes_the_script():
    from jaxtrack.synthetic.motion import draw_script

    draw = jax.jit(
        lambda wanted: draw_script(
            seed_of(jax.random.key(11)), wanted, (72, 96), 12, 2, 1, (14.0, 24.0), (0.4, 2.5)
        )
    )
    plain = jax.tree.leaves(_arrays(draw(_wanted(()))))
    for name in ATTRIBUTES:
        other = jax.tree.leaves(_arrays(draw(_wanted((name,)))))
        change = max(float(np.abs(a - b).max()) for a, b in zip(plain, other))
        assert change > 0.1, name


def test_pairs_have_the_published_scale():
    pairs = _pairs()
    assert pairs.template.shape == (64, 35, 35, 3)
    assert pairs.search.shape == (64, 71, 71, 3)
    assert pairs.template.dtype == pairs.search.dtype == np.uint8
    centre = pairs.template_box[:, :2] + 0.5 * pairs.template_box[:, 2:]
    np.testing.assert_allclose(centre, 35 / 2, atol=1e-2)
    around = 0.5 * (pairs.template_box[:, 2] + pairs.template_box[:, 3])
    side = np.sqrt((pairs.template_box[:, 2] + around) * (pairs.template_box[:, 3] + around))
    np.testing.assert_allclose(side, 31, rtol=1e-4)
    aspect = np.log(pairs.template_box[:, 2] / pairs.template_box[:, 3])
    assert aspect.std() > 0.15


def test_shift_and_scale_of_search_patches():
    pairs = _pairs()
    centre = pairs.search_box[:, :2] + 0.5 * pairs.search_box[:, 2:] - 71 / 2
    assert 7 < np.abs(centre).max() <= 10.01
    around = 0.5 * (pairs.search_box[:, 2] + pairs.search_box[:, 3])
    side = np.sqrt((pairs.search_box[:, 2] + around) * (pairs.search_box[:, 3] + around))
    scale = np.log(side / 31)
    assert 0.15 < np.abs(scale).max() <= 0.2001


def test_negative_pairs_show_another_object():
    pairs = _pairs()
    assert 0.3 < pairs.negative.mean() < 0.7
    change = []
    for index in range(64):
        colours = []
        for picture, box in (
            (pairs.template[index], pairs.template_box[index]),
            (pairs.search[index], pairs.search_box[index]),
        ):
            x, y = np.round(box[:2] + 0.25 * box[2:]).astype(int)
            w, h = np.round(0.5 * box[2:]).astype(int)
            colours.append(picture[y : y + h, x : x + w].mean((0, 1)))
        change.append(np.abs(colours[0] - colours[1]).max())
    change = np.asarray(change)
    assert np.median(change[pairs.negative]) > 1.5 * np.median(change[~pairs.negative])


@pytest.mark.slow
def test_patches_over_time_cut_by_area():
    patch = PatchConfig(
        template=PatchSpec(size=35, nominal=31, factor=2.0, context=0.0),
        search=PatchSpec(size=71, nominal=63, factor=4.0, context=0.0),
        border_rate=0.0,
    )
    draw = jax.jit(lambda key: make_patches(WORLD, patch, key, 4))
    first, again = (_arrays(draw(jax.random.key(15))) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert first.template.shape == (35, 35, 3)
    assert first.patches.shape == (4, 71, 71, 3)
    assert first.boxes.shape == (4, 4)
    side = np.sqrt(first.boxes[:, 2] * first.boxes[:, 3])
    np.testing.assert_allclose(4.0 * side, 63, rtol=1e-4)
    np.testing.assert_allclose(2.0 * np.sqrt(np.prod(first.template_box[2:])), 31, rtol=1e-4)
    # the first patch is the template's moment
    aspect = first.boxes[:, 2] / first.boxes[:, 3]
    assert first.template_box[2] / first.template_box[3] == pytest.approx(aspect[0], rel=1e-3)
    assert np.abs(first.patches[0].astype(int) - first.patches[1]).mean() > 1


def test_noise_is_white_and_normalised():
    from jaxtrack.synthetic.render import hash_noise

    noise = np.asarray(hash_noise(jnp.arange(1 << 16, dtype=jnp.uint32)))
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02


def test_draws_refuse_to_run_out():
    draws = Draws(seed_of(jax.random.key(0)), 4)
    draws.uniform(0.0, 1.0, 3)
    with pytest.raises(ValueError, match="4 numbers"):
        draws.uniform(0.0, 1.0, 2)


def test_benchmark_is_complete():
    assert len(BENCHMARK) == 40
    assert len({entry.name for entry in BENCHMARK}) == 40
    assert len({entry.seed for entry in BENCHMARK}) == 40
    counts = {name: sum(name in entry.effects for entry in BENCHMARK) for name in ATTRIBUTES}
    assert min(counts.values()) >= 3
    assert counts["aspect_ratio_change"] >= 12


def test_strips_show_boxes():
    clip = _clips()[0]
    strip = sheet.clip_strip(clip)
    assert strip.shape[0] >= 72
    assert strip.shape[1] >= 12 * 96
    plain = strip[:72, :96].astype(int) - clip.frames[0]
    assert (np.abs(plain).max(-1) > 0).mean() < 0.4
    assert np.abs(plain).max() > 20


def test_a_sheet_that_cannot_be_written_is_not_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sheet, "sheet", None)
    for name, told in (("sheet.gif", "unknown image format"), (".", "is a folder")):
        assert sheet.main(["--output", str(tmp_path / name)]) == 1
        assert told in capsys.readouterr().err


def test_sheet_refuses_nothing_to_draw(capsys):
    assert sheet.main(["--pairs", "0"]) == 2
    assert "--pairs 0" in capsys.readouterr().err


@pytest.mark.slow
def test_contact_sheet(tmp_path, capsys):
    path = tmp_path / "sheet.png"
    arguments = ["--output", str(path), "--clips", "1", "--frames", "2", "--pairs", "2"]
    assert sheet.main(arguments) == 0
    assert "wrote" in capsys.readouterr().out
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 240
    assert picture.std() > 10


@pytest.mark.slow
def test_benchmark_clip_is_the_same_every_time():
    first, again = (next(synthetic.benchmark_clips()) for _ in range(2))
    assert first[0] == BENCHMARK[0].name
    jax.tree.map(np.testing.assert_array_equal, first[1], again[1])
    assert first[1].frames.shape == (80, 200, 280, 3)
    assert not first[1].absent[0]
