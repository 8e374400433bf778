"""What makes the synthetic world more like real video."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.synthetic import objects, realism
from jaxtrack.synthetic.realism import Realism
from jaxtrack.synthetic.textures import Draws, seed_of
from jaxtrack.synthetic.world import BENCHMARKS, HARD_WORLD, PatchConfig, WorldConfig, make_pair


def draws(seed, count=64):
    return Draws(seed_of(jax.random.key(seed)), count)


def test_shares_are_shares():
    with pytest.raises(JaxtrackError, match="thin"):
        Realism(thin=1.5)
    with pytest.raises(JaxtrackError, match="textures"):
        Realism(photo=0.5)


def test_a_target_is_hidden_by_something():
    """Without an object in front a pair would be marked negative, its target in plain sight."""
    with pytest.raises(JaxtrackError, match=r"real\.hidden is 0\.1, but front is 0"):
        WorldConfig(front=0, real=Realism(hidden=0.1))
    assert WorldConfig(front=0).front == 0


@pytest.mark.parametrize("size", [1, 15, 129, 130])
def test_photographs_have_pieces_of_certain_sizes(size, tmp_path):
    with pytest.raises(JaxtrackError, match=f"texture_size is {size}; even, at most 128"):
        WorldConfig(texture_size=size, real=Realism(photo=0.5, textures=str(tmp_path)))
    assert WorldConfig(texture_size=size).texture_size == size


@pytest.mark.parametrize("size", [2, 128])
def test_the_smallest_and_the_largest_piece_of_a_photograph(size, tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((40, 60, 3), 90, np.uint8))
    real = Realism(photo=1.0, textures=str(tmp_path))
    assert WorldConfig(texture_size=size, real=real).texture_size == size
    assert realism.photo_piece(real, draws(7), size).shape == (3, size, size)


def test_nothing_is_drawn_of_a_plain_world():
    around = realism.draw_surroundings(Realism(), draws(0), jnp.float32(1), jnp.float32(0))
    assert jax.tree.leaves(around) == []
    assert jax.tree.leaves(realism.draw_camera(Realism(), draws(0))) == []


def test_compression_leaves_blocks_and_keeps_the_light():
    camera = realism.draw_camera(Realism(jpeg=1.0), draws(1))
    picture = jax.random.uniform(jax.random.key(0), (50, 3, 70))  # no multiple of eight
    lossy = np.asarray(realism.compress(picture, camera))
    assert lossy.shape == picture.shape
    assert np.abs(lossy - picture).max() > 0.05
    assert abs(lossy.mean() - float(picture.mean())) < 0.02
    again = realism.compress(jnp.asarray(lossy), camera)
    whole = (slice(0, 48), slice(None), slice(0, 64))  # whole blocks are at their fixed point
    np.testing.assert_allclose(np.asarray(again)[whole], lossy[whole], atol=1e-4)


def test_enlarging_loses_the_finest_detail_only():
    camera = realism.draw_camera(Realism(upscale=1.0), draws(2))
    board = jnp.broadcast_to(
        ((jnp.arange(32)[:, None, None] + jnp.arange(32)[None, None]) % 2), (32, 3, 32)
    )
    assert float(jnp.std(realism.compress(board.astype(jnp.float32), camera))) < 0.01
    slope = jnp.broadcast_to(jnp.linspace(0, 1, 32)[:, None, None], (32, 3, 32))
    moved = realism.compress(slope, camera) - slope
    assert float(jnp.abs(moved[2:-2]).max()) < 1e-3


def test_sky_lies_above_the_horizon():
    around = realism.draw_surroundings(
        Realism(horizon=1.0), draws(3), jnp.float32(4), jnp.float32(0)
    )
    level = float(around.sky.horizon)
    ys = jnp.asarray([level - 8.0, level + 8.0])
    ground = jnp.zeros((2, 3, 1))
    shown = realism.add_surroundings(ground, around, jnp.zeros(1), ys, jnp.float32(1))
    assert float(shown[0].min()) > 0.3
    assert float(jnp.abs(shown[1]).max()) == 0


def test_night_is_dark_but_for_its_lamps():
    camera = realism.draw_camera(Realism(night=1.0), draws(4))
    far = jnp.asarray([100.0])
    dark = realism.light_up(jnp.ones((1, 3, 1)), camera, far, far)
    assert float(dark.max()) < 0.45
    x, y = (camera.night.lamps[0, axis][None] for axis in (0, 1))
    assert float(realism.light_up(jnp.ones((1, 3, 1)), camera, x, y).min()) > float(dark.max())


@pytest.mark.slow
def test_thin_objects_fill_less_of_their_box():
    @jax.jit
    def fill(seed):
        still = objects.Pose(
            jnp.zeros(2), jnp.full(2, 8.0), 0.0, jnp.zeros(2), 0.0, 0.0, 1.0, jnp.zeros(2)
        )

        def share(real):
            thing = objects.draw_object(seed, 8, real)
            alpha = objects.bake(thing, still, 32, jnp.eye(3)).image[2:-2, 3, 2:-2]
            return jnp.mean(alpha)

        real = Realism(thin=1.0)
        return share(Realism()), share(real), share(Realism(hollow=1.0))

    found = np.asarray([fill(seed_of(jax.random.key(i))) for i in range(12)])
    plain, thin, hollow = np.median(found, 0)
    assert thin < 0.75 * plain
    assert hollow < plain


def test_photographs_become_backgrounds(tmp_path):
    with pytest.raises(JaxtrackError, match="no pictures"):
        realism.read_photos(str(tmp_path))
    cv2.imwrite(str(tmp_path / "red.png"), np.full((40, 60, 3), (0, 0, 255), np.uint8))
    realism.read_photos.cache_clear()
    real = Realism(photo=1.0, textures=str(tmp_path))
    around = realism.draw_surroundings(real, draws(5), jnp.float32(10), jnp.float32(0))
    axis = jnp.arange(4, dtype=jnp.float32)
    shown = realism.add_surroundings(jnp.zeros((4, 3, 4)), around, axis, axis, jnp.float32(1))
    np.testing.assert_allclose(shown[:, 0], 1, atol=1e-5)
    np.testing.assert_allclose(shown[:, 1:], 0, atol=1e-5)


@pytest.mark.slow
def test_photographs_become_objects(tmp_path):
    rng = np.random.RandomState(0)
    cv2.imwrite(str(tmp_path / "noise.png"), rng.randint(0, 256, (200, 150, 3)).astype(np.uint8))
    realism.read_photos.cache_clear()
    real = Realism(photo=1.0, textures=str(tmp_path))
    piece = np.asarray(realism.photo_piece(real, draws(6), 32))
    assert piece.shape == (3, 32, 32)
    np.testing.assert_array_equal(piece, piece[:, ::-1])
    np.testing.assert_array_equal(piece, piece[:, :, ::-1])
    thing = objects.draw_object(seed_of(jax.random.key(0)), 32, real)
    np.testing.assert_allclose(thing.texture.mean((1, 2)), 0, atol=1e-5)
    assert float(thing.texture.std()) > 0.05
    np.testing.assert_array_equal(thing.contrast, 1)


def test_the_hard_benchmark_has_the_same_effects_on_other_clips():
    world, entries = BENCHMARKS["synthetic-hard"]
    plain, first = BENCHMARKS["synthetic"]
    assert world == HARD_WORLD
    assert dataclasses.replace(world, real=Realism()) == plain
    assert plain.real == Realism()
    assert [entry.effects for entry in entries] == [entry.effects for entry in first]
    assert not {entry.seed for entry in entries} & {entry.seed for entry in first}


@pytest.mark.slow
def test_pairs_with_everything():
    """Hidden targets make negative pairs; an exchanged background differs where nothing else does."""
    patch = PatchConfig(
        template=PatchSpec(size=48, nominal=48, factor=1.0),
        search=PatchSpec(size=96, nominal=96, factor=255 / 127),
    )
    small = {"texture_size": 16, "sprite_size": 16, "background_grid": 8}
    hidden = WorldConfig(real=Realism(hidden=1.0, turn=1.0, calm=1.0, shadow=1.0), **small)
    assert bool(jax.jit(lambda k: make_pair(hidden, patch, k))(jax.random.key(0)).negative)
    pictures = {}
    for share in (0.0, 1.0):
        world = WorldConfig(real=Realism(exchange=share), **small)
        pictures[share] = jax.jit(lambda k, w=world: make_pair(w, patch, k))(jax.random.key(3))
    np.testing.assert_array_equal(pictures[0.0].template, pictures[1.0].template)
    np.testing.assert_array_equal(pictures[0.0].search_box, pictures[1.0].search_box)
    differs = np.abs(np.asarray(pictures[0.0].search, int) - np.asarray(pictures[1.0].search)) > 8
    assert 0.2 < differs.any(-1).mean() < 0.999
