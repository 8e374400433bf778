"""The synthetic world: video clips and training patches drawn by pure functions of a key.

Textured objects of random shape move before textured backgrounds; the camera moves too, light
changes, others occlude the target or look like it. Nothing is read from a disk: every function here
can be jitted and mapped with `jax.vmap` and gives the same picture for the same key on one
platform.

Boxes are those of the object's whole outline, hidden parts included. In clips they are cut at the
frame's border, as annotators do; in patches they are not.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8, UInt32

from jaxtrack.synthetic.motion import ATTRIBUTES, Script, draw_script
from jaxtrack.synthetic.objects import Pose, Sprite
from jaxtrack.synthetic.patches import (
    Pair,
    PatchConfig,
    Patches,
    make_pair,
    make_pairs,
    make_patches,
)
from jaxtrack.synthetic.realism import Realism
from jaxtrack.synthetic.render import (
    Scene,
    View,
    WorldConfig,
    bake_all,
    colour_matrix,
    draw_scene,
    render,
)
from jaxtrack.synthetic.textures import Draws, child, seed_of

__all__ = [
    "ATTRIBUTES",
    "BENCHMARK",
    "BENCHMARKS",
    "BENCHMARK_WORLD",
    "BenchmarkClip",
    "Clip",
    "Pair",
    "PatchConfig",
    "Patches",
    "Realism",
    "WorldConfig",
    "benchmark_clips",
    "draw_clip",
    "make_clip",
    "make_pair",
    "make_pairs",
    "make_patches",
    "target_mask",
]

ABSENT_BELOW = 0.03  # visible share of the target below which it counts as absent


class Clip(NamedTuple):
    """A video with its truth."""

    frames: UInt8[Array, "t h w 3"]
    boxes: Float[Array, "t 4"]
    absent: Bool[Array, " t"]
    attributes: Bool[Array, " a"]


def _cut(box: Float[Array, " 4"], height: int, width: int) -> Float[Array, " 4"]:
    """Return the part of a box within the frame."""
    limit = jnp.asarray([width, height], jnp.float32)
    low = jnp.clip(box[:2], 0.0, limit)
    high = jnp.clip(box[:2] + box[2:], 0.0, limit)
    return jnp.concatenate([low, high - low])


def _clip_parts(
    config: WorldConfig, seed: UInt32[Array, " 2"], attributes: Bool[Array, " a"]
) -> tuple[Scene, Script]:
    script = draw_script(
        child(seed, 1),
        attributes,
        (config.height, config.width),
        config.length,
        config.behind,
        config.front,
        config.target_size,
        config.aspect,
        config.real,
    )
    scale = 2.0 * jnp.sqrt(jnp.prod(script.poses.half[0, config.behind]))
    scale = jnp.maximum(scale, 0.12 * min(config.height, config.width))
    clutter = attributes[ATTRIBUTES.index("background_clutter")]
    alike = jnp.where(clutter, 0.85, config.lookalike_rate)
    middle = (0.5 * config.width, 0.5 * config.height)
    return draw_scene(config, child(seed, 0), scale, alike, middle=middle), script


def _frame_view(script: Script, index: Array) -> View:
    seed = index.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    return View(script.origin[index], script.step[index], script.gain[index], seed)


def _draw_frame(
    config: WorldConfig, scene: Scene, script: Script, index: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Frame, box, visible share, coverage of the target, at one time of a clip."""
    poses: Pose = jax.tree.map(lambda leaf: leaf[index], script.poses)
    view = _frame_view(script, index)
    mix = colour_matrix(scene, view.gain)
    sprites = bake_all(scene.objects, poses, config.sprite_size, mix)
    size = (config.height, config.width)
    previous = jnp.maximum(index - 1, 0)
    pan = 0.3 * (script.origin[index] - script.origin[previous])
    frame, cover, seen = render(scene, sprites, view, size, config.behind, pan)
    sprite: Sprite = jax.tree.map(lambda leaf: leaf[config.behind], sprites)
    whole = jnp.sum(sprite.image[:, 3]) * jnp.prod(sprite.texel) / view.step**2
    box = jnp.concatenate([sprite.box[:2] - view.origin, sprite.box[2:]]) / view.step
    cut = _cut(box, *size)
    # what motion blur alone brings into the frame is not the target in view
    within = jnp.prod(cut[2:]) / jnp.prod(box[2:])
    return frame, cut, jnp.minimum(seen / whole, within), cover, box


def draw_clip(
    config: WorldConfig, key: Array, attributes: Bool[Array, " a"], indices: Array | None = None
) -> Clip:
    """Draw a clip, or some of its frames, with chosen attributes.

    Args:
        config: the world.
        key: a JAX random key.
        attributes: (len(ATTRIBUTES),) which effects the clip shall have.
        indices: which frames, in order, the first among them; all without it.

    Returns:
        The clip. Attributes that boxes decide (scale, aspect, speed, resolution, view) are measured
        on them.
    """
    scene, script = _clip_parts(config, seed_of(key), attributes)

    def at(index: Array) -> tuple[Array, Array, Array]:
        frame, box, visible, _, _ = _draw_frame(config, scene, script, index)
        return frame, box, visible

    frames, boxes, visible = jax.lax.map(
        at, jnp.arange(config.length) if indices is None else indices
    )
    absent = visible < ABSENT_BELOW
    return Clip(frames, boxes, absent, _measure(boxes, absent, visible, attributes))


def _measure(
    boxes: Float[Array, "t 4"],
    absent: Bool[Array, " t"],
    visible: Float[Array, " t"],
    wanted: Bool[Array, " a"],
) -> Bool[Array, " a"]:
    """Attributes by the field's definitions where boxes decide them, as asked for elsewhere.

    Reference: LaSOT (Fan et al. 2019), table 2: scale and aspect ratio leave [0.5, 2] of the first
    frame's; motion larger than the target (half of it here) and area below 1000 pixels (400 here):
    the frames are small.
    """
    area = boxes[:, 2] * boxes[:, 3]
    whole = ~absent & (visible > 0.9)
    aspect = boxes[:, 2] / jnp.maximum(boxes[:, 3], 1e-3)

    def leaves(values: Array) -> Array:
        ratio = values / values[0]
        return jnp.any(whole & ((ratio > 2.0) | (ratio < 0.5)))

    centre = boxes[:, :2] + 0.5 * boxes[:, 2:]
    move = jnp.linalg.norm(jnp.diff(centre, axis=0), axis=1)
    fast = jnp.any((move > 0.7 * jnp.sqrt(area[:-1])) & whole[1:] & whole[:-1])
    flags = dict(zip(ATTRIBUTES, wanted))
    flags["scale_variation"] = leaves(area)
    flags["aspect_ratio_change"] = leaves(aspect)
    flags["fast_motion"] = fast
    flags["low_resolution"] = jnp.any(whole & (area < 400.0))
    return jnp.stack([flags[name] for name in ATTRIBUTES])


def _draw_attributes(config: WorldConfig, key: Array) -> Bool[Array, " a"]:
    """Return the attributes of the clip of a key."""
    return Draws(child(seed_of(key), 2), len(ATTRIBUTES)).flag(
        config.attribute_rate, len(ATTRIBUTES)
    )


def make_clip(config: WorldConfig, key: Array, indices: Array | None = None) -> Clip:
    """Draw a clip, a pure function of the key.

    Args:
        config: the world; static under `jax.jit`.
        key: a JAX random key.
        indices: which frames, in order, the first among them; all without it.

    Returns:
        Frames (t, h, w, 3) uint8 RGB; boxes (t, 4) x, y, w, h in pixels, 0-based, of the whole
        outline (parts hidden by others included) cut at the frame's border; absent (t,), true where
        the target is out of view or hidden; attributes (len(ATTRIBUTES),). The target is in full view
        in the first frame.
    """
    return draw_clip(config, key, _draw_attributes(config, key), indices)


def target_mask(
    config: WorldConfig, key: Array, index: int | Array, attributes: Bool[Array, " a"]
) -> tuple[Float[Array, "h w"], Float[Array, " 4"]]:
    """Return the target's coverage of each pixel of one frame of `draw_clip(config, key, attributes)`.

    Args:
        config: the world.
        key: the clip's key.
        index: which frame.
        attributes: those of the clip.

    Returns:
        Coverage (h, w) between 0 and 1, as if nothing were before the target, and the uncut box (4,).
    """
    scene, script = _clip_parts(config, seed_of(key), attributes)
    _, _, _, cover, box = _draw_frame(config, scene, script, jnp.asarray(index))
    return cover, box


class BenchmarkClip(NamedTuple):
    """One entry of the benchmark: a name, the seed of its key, and the effects asked for."""

    name: str
    seed: int
    effects: tuple[str, ...]


BENCHMARK_WORLD = WorldConfig(height=200, width=280, length=80, target_size=(26.0, 64.0))


# What real video has more of: see `python -m jaxtrack.synthetic.statistics`.
HARD_WORLD = dataclasses.replace(
    BENCHMARK_WORLD,
    real=Realism(
        thin=0.35,
        hollow=0.25,
        plain=0.35,
        horizon=0.3,
        shadow=0.4,
        night=0.1,
        jpeg=0.3,
        upscale=0.25,
        calm=0.5,
        border=0.5,
    ),
)


def _benchmark(first_seed: int) -> tuple[BenchmarkClip, ...]:
    """Return forty clips: each attribute leads three or four, half have a second, a third change aspect."""
    entries = []
    for index in range(40):
        effects = {ATTRIBUTES[index % len(ATTRIBUTES)]}
        if index % 2:
            effects.add(ATTRIBUTES[(5 * index + 3) % len(ATTRIBUTES)])
        if index % 3 == 0:
            effects.add("aspect_ratio_change")
        name = f"{index + 1:02d}_{ATTRIBUTES[index % len(ATTRIBUTES)]}"
        ordered = tuple(attribute for attribute in ATTRIBUTES if attribute in effects)
        entries.append(BenchmarkClip(name, first_seed + index, ordered))
    return tuple(entries)


BENCHMARK = _benchmark(1000)
BENCHMARKS = {
    "synthetic": (BENCHMARK_WORLD, BENCHMARK),
    "synthetic-hard": (HARD_WORLD, _benchmark(2000)),
}


@functools.partial(jax.jit, static_argnums=0)
def _draw_benchmark_clip(config: WorldConfig, seed: Array, attributes: Bool[Array, " a"]) -> Clip:
    return draw_clip(config, jax.random.key(seed), attributes)


def benchmark_clips(
    benchmark: str = "synthetic",
) -> Iterator[tuple[str, Clip, tuple[str, ...]]]:
    """Draw a fixed benchmark: the same clips every time.

    Args:
        benchmark: ``synthetic``, or ``synthetic-hard``, whose clips have more of what makes real video
            difficult.

    Yields:
        The clip's name, the clip as numpy arrays, and the names of its attributes.
    """
    world, entries = BENCHMARKS[benchmark]
    for entry in entries:
        wanted = np.asarray([name in entry.effects for name in ATTRIBUTES])
        seed = np.uint32(entry.seed)
        clip = _draw_benchmark_clip(world, seed, wanted)
        clip = jax.tree.map(np.asarray, clip)
        names = tuple(name for name, has in zip(ATTRIBUTES, clip.attributes) if has)
        yield entry.name, clip, names
