"""Training patches of the synthetic world, rendered at their own resolution, without a clip.

On a CPU draw a batch by `jax.lax.map` over its keys (several pictures at once do not fit the
caches), on a GPU by `jax.vmap`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8, UInt32

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.patch import PatchSpec, context_side
from jaxtrack.ranges import NotNegative, Share, check_ranges
from jaxtrack.synthetic.objects import Object, Pose, Sprite
from jaxtrack.synthetic.realism import calmness, piece_of, random_turn, thin_aspect
from jaxtrack.synthetic.render import (
    Scene,
    View,
    WorldConfig,
    bake_all,
    colour_matrix,
    draw_scene,
    render,
    render_ground,
)
from jaxtrack.synthetic.textures import Draws, child, draw_background, seed_of

_TEMPLATE = PatchSpec(size=135, nominal=127, factor=1.0)
_SEARCH = PatchSpec(size=271, nominal=255, factor=255 / 127)


@dataclasses.dataclass(frozen=True)
class PatchConfig:
    """How training patches are cut, and how much their views differ.

    Patches are cut by the same specification as those of stored frames, so that a training on either sees
    the same. Outside the frame is the mean colour.

    Attributes:
        template: the template's patch.
        search: the search patch.
        max_shift: largest offset of the target from the search patch's centre, in pixels of the
            search patch.
        max_scale: largest logarithm of the window's deviation from its nominal side, search patches
            only.
        negative_rate: share of pairs whose search patch shows another object in the target's place.
        aspect_change: largest logarithm of the change of width / height between views.
        rotation: largest turn between views, radians.
        deformation: largest amplitude of the deforming wave, in half sizes.
        occlusion_rate: share of search views with an object before the target.
        border_rate: share of views in which the patch reaches beyond the frame (filled with the
            mean colour).
    """

    template: PatchSpec = _TEMPLATE
    search: PatchSpec = _SEARCH
    max_shift: NotNegative = 0.0
    max_scale: NotNegative = 0.0
    negative_rate: Share = 0.0
    aspect_change: NotNegative = 0.3
    rotation: NotNegative = 0.32
    deformation: NotNegative = 0.12
    occlusion_rate: Share = 0.15
    border_rate: Share = 0.15

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        check_ranges(self)
        if "black" in (self.template.pad, self.search.pad):
            raise JaxtrackError(
                "the synthetic world fills what lies outside a frame with its mean colour"
            )


class Pair(NamedTuple):
    """Two views of one target for Siamese training; boxes in pixels of their own patch."""

    template: UInt8[Array, "s s 3"]
    search: UInt8[Array, "r r 3"]
    template_box: Float[Array, " 4"]
    search_box: Float[Array, " 4"]
    negative: Bool[Array, ""]


class Patches(NamedTuple):
    """A template and search patches of one target over time; boxes in pixels of their own patch."""

    template: UInt8[Array, "s s 3"]
    template_box: Float[Array, " 4"]
    patches: UInt8[Array, "n r r 3"]
    boxes: Float[Array, "n 4"]


class _Windows(NamedTuple):
    """What differs between views besides the poses. Leaves lead with the view."""

    poses: Pose
    shift: Float[Array, "n 2"]
    zoom: Float[Array, " n"]
    gain: Float[Array, "n 3"]
    noise_seed: Array
    pan: Float[Array, "n 2"]
    border: Float[Array, "n 4"]


def _draw_windows(
    world: WorldConfig, patch: PatchConfig, seed: UInt32[Array, " 2"], views: int
) -> _Windows:
    """Draw poses and windows of several views of one scene. The target's size is the world's unit.

    The first view is the template's: nothing before the target, no shift, little blur.
    """
    count = world.behind + 1 + world.front
    target = world.behind
    d = Draws(seed, 64 + 16 * count + views * (32 + 16 * count))
    later = (jnp.arange(views) > 0).astype(jnp.float32)
    severity = d.uniform(0.1, 1.0)
    real = world.real
    extra = Draws(child(seed, 3), 64 + 8 * count)
    if real.calm:
        severity = severity * calmness(real, extra)
    aspect = jnp.log(d.log_uniform(*world.aspect, count))
    if real.thin:
        slim, thin = thin_aspect(real, extra, count)
        aspect = jnp.where(slim, thin, aspect)
    narrow = 0.18 if real.thin else 0.25
    side = d.log_uniform(0.5, 1.8, count).at[target].set(1.0)
    spread = 0.5 * severity * d.uniform(-1.0, 1.0, views, count)
    shape = jnp.clip(aspect[None] + patch.aspect_change * spread, np.log(narrow), -np.log(narrow))
    half = 0.5 * side[None, :, None] * jnp.exp(jnp.stack([0.5 * shape, -0.5 * shape], -1))
    half = half * jnp.exp(0.12 * severity * d.uniform(-1.0, 1.0, views, count))[..., None]

    # the target wanders over the background; others go with it or stay
    middle = d.uniform(-1.0, 1.0, views, 2) * severity * d.uniform(0.0, 4.0)
    turn = d.uniform(0.0, 2.0 * np.pi, count)
    away = d.uniform(0.9, 2.4, count)[:, None] * jnp.stack([jnp.cos(turn), jnp.sin(turn)], 1)
    company = d.flag(0.6, count)[None, :, None]
    place = away[None] + middle[:, None] * company + middle[:1, None] * ~company
    place = place + 0.4 * severity * d.uniform(-1.0, 1.0, views, count, 2)
    hit = d.flag(patch.occlusion_rate, views) & (later > 0)
    before = jnp.arange(count) > target
    offset = d.uniform(-0.7, 0.7, views, count, 2)
    place = jnp.where((hit[:, None] & before[None])[..., None], middle[:, None] + offset, place)
    place = place.at[:, target].set(middle)
    # whatever is before the target by chance alone is left out
    gap = jnp.max(jnp.abs(place - middle[:, None]), axis=-1)
    clear = gap > 0.9 * (jnp.max(half, axis=-1) + jnp.max(half[:, target], axis=-1)[:, None])
    shown = ~before[None] | hit[:, None] | clear

    turn_of_view = random_turn(real, extra) if real.turn else None
    tilt = jnp.where(
        d.flag(0.3, count), d.uniform(-np.pi, np.pi, count), d.uniform(-0.3, 0.3, count)
    )
    speed = jnp.abs(d.uniform(-0.4, 1.0, views, 1, 1)) ** 2 * (0.3 + 0.7 * later[:, None, None])
    poses = Pose(
        centre=place,
        half=half,
        angle=tilt[None]
        + 0.5 * patch.rotation * severity * d.uniform(-2.0, 2.0, views, count) / 2.0,
        wave=patch.deformation * severity * d.uniform(-1.0, 1.0, views, count, 2),
        phase=d.uniform(0.0, 2.0 * np.pi, 1, count) + severity * d.uniform(-1.5, 1.5, views, count),
        swing=jnp.broadcast_to(d.uniform(0.1, 1.0), (views, count)),
        opacity=shown.astype(jnp.float32),
        blur=0.35 * speed * d.uniform(-1.0, 1.0, views, count, 2),
    )
    light = severity * d.uniform(-0.35, 0.3, views, 1) + 0.06 * d.uniform(-1.0, 1.0, views, 3)
    border = jnp.where(
        d.flag(0.25 * patch.border_rate, views, 4), d.uniform(0.0, 1.5, views, 4), jnp.inf
    )
    if turn_of_view is not None:
        turned = poses.angle.at[1:, target].add(turn_of_view)
        poses = poses._replace(angle=turned)
    return _Windows(
        poses=poses,
        shift=patch.max_shift * d.uniform(-1.0, 1.0, views, 2) * later[:, None],
        zoom=jnp.exp(patch.max_scale * d.uniform(-1.0, 1.0, views) * later),
        gain=jnp.exp(light),
        noise_seed=(d.uniform(0.0, 65536.0, views) * 65536.0).astype(jnp.uint32),
        pan=0.15 * d.uniform(-1.0, 1.0, views, 2) * d.uniform(0.0, 1.0, views, 1) ** 4,
        border=border,
    )


def _cut_patch(
    scene: Scene,
    sprites: Sprite,
    window: _Windows,
    target: int,
    patch: PatchSpec,
    piece: _Piece | None = None,
) -> tuple[UInt8[Array, "s s 3"], Float[Array, " 4"]]:
    """Render the window around the target of one view; the box is in pixels of the patch."""
    full = patch.size
    box = sprites.box[target]
    side = patch.factor * context_side(box[2], box[3], patch.context) * window.zoom
    step = side / patch.nominal
    corner = box[:2] + 0.5 * box[2:] - (0.5 * full + window.shift) * step
    view = View(corner, step, window.gain, window.noise_seed)
    picture, _, _ = render(scene, sprites, view, (full, full), target, window.pan)
    if piece is not None:
        middle = box[:2] + 0.5 * box[2:] + piece.away * jnp.sqrt(box[2] * box[3])
        elsewhere = view._replace(origin=corner + piece.seen - middle)
        ground = render_ground(piece.scene, elsewhere, (full, full))
        at_pixel, half = (middle - corner) / step, 0.5 * box[2:] / step
        picture = piece_of(picture, ground, at_pixel, half, piece.wanted)
    # the frame ends somewhere beyond the target: what lies outside has the mean colour
    margin = window.border * jnp.sqrt(box[2] * box[3])
    low, high = box[:2] - margin[:2] - corner, box[:2] + box[2:] + margin[2:] - corner
    at = (jnp.arange(full, dtype=jnp.float32) + 0.5)[:, None] * step
    columns, rows = [(at[:, 0] >= low[axis]) & (at[:, 0] <= high[axis]) for axis in range(2)]
    inside = (rows[:, None] & columns[None, :])[..., None]
    few, seen = picture[::8, ::8], inside[::8, ::8]  # every pixel would be drawn twice for the mean
    total = jnp.sum(jnp.where(seen, few, 0).astype(jnp.float32), axis=(0, 1))
    mean = jnp.round(total / jnp.maximum(jnp.sum(seen), 1)).astype(jnp.uint8)
    picture = jnp.where(inside, picture, mean[None, None])
    return picture, jnp.concatenate([box[:2] - corner, box[2:]]) / step


def _pick(windows: _Windows, view: int | Array) -> _Windows:
    """Return one of several views."""
    return jax.tree.map(lambda leaf: leaf[view], windows)


def _bake_view(world: WorldConfig, scene: Scene, objects: Object, window: _Windows) -> Sprite:
    mix = colour_matrix(scene, window.gain)
    return bake_all(objects, window.poses, world.sprite_size, mix)


def make_pair(world: WorldConfig, patch: PatchConfig, key: Array) -> Pair:
    """Draw a template and a search patch of one target, a pure function of the key.

    Args:
        world: the world; static under `jax.jit`, like `patch`.
        patch: how patches are cut.
        key: a JAX random key.

    Returns:
        The pair. Boxes are x, y, w, h of the whole outline in pixels of their patch, margins
        included, 0-based; where `negative` is true the search box is that of another object, which
        stands in the target's place.
    """
    return _render_pair(world, patch, _draw_pair(world, patch, key))


class _Drawn(NamedTuple):
    """What the two views of a pair are rendered from."""

    seed: UInt32[Array, " 2"]
    windows: _Windows
    scene: Scene
    own: Object  # the objects of the first view
    searched: Object  # of the second one
    negative: Bool[Array, ""]


def _draw_pair(world: WorldConfig, patch: PatchConfig, key: Array) -> _Drawn:
    """Draw all about a pair but its pictures; see `make_pair`."""
    seed, real = seed_of(key), world.real
    windows = _draw_windows(world, patch, child(seed, 1), 2)
    spare = 1 if patch.negative_rate > 0 else 0
    unit = jnp.ones((), jnp.float32)
    alike = jnp.asarray(world.lookalike_rate, jnp.float32)
    hide = Draws(child(seed, 3), 1).flag(real.hidden) if real.hidden else None
    if hide is not None:
        alike = jnp.where(hide, 1.0, alike)
        windows = windows._replace(poses=_hidden(windows.poses, world.behind, hide))
    scene = draw_scene(world, child(seed, 0), unit, alike, spare)
    other = Draws(child(seed, 2), 1).flag(patch.negative_rate)
    if hide is not None:
        other = other & ~hide
    target, count = world.behind, world.behind + 1 + world.front
    own: Object = jax.tree.map(lambda leaf: leaf[:count], scene.objects)
    searched = own
    if spare:
        searched = jax.tree.map(
            lambda mine, every: mine.at[target].set(jnp.where(other, every[-1], mine[target])),
            own,
            scene.objects,
        )
        gone = other & scene.alike[:count]  # nothing of the template is left to be found
        opacity = windows.poses.opacity.at[1].multiply(~gone)
        windows = windows._replace(poses=windows.poses._replace(opacity=opacity))
    negative = other if hide is None else other | hide
    return _Drawn(seed, windows, scene, own, searched, negative)


def _render_pair(world: WorldConfig, patch: PatchConfig, drawn: _Drawn) -> Pair:
    """Render the two views of a pair; see `make_pair`."""
    scene, target = drawn.scene, world.behind
    # one after the other: baked together, both would be drawn anew for each use, at twice the time
    first, second = _pick(drawn.windows, 0), _pick(drawn.windows, 1)
    one = _bake_view(world, scene, drawn.own, first)
    two = _bake_view(world, scene, drawn.searched, second)
    template, template_box = _cut_patch(scene, one, first, target, patch.template)
    later, piece = scene, None
    if world.real.exchange:
        later, piece = _exchanged(world, scene, child(drawn.seed, 4), one.box[target])
    search, search_box = _cut_patch(later, two, second, target, patch.search, piece)
    return Pair(template, search, template_box, search_box, drawn.negative)


def _hidden(poses: Pose, target: int, hide: Bool[Array, ""]) -> Pose:
    """Put the object in front of the target over it, in the second view of a pair."""
    front = target + 1
    half = 1.5 * jnp.max(poses.half[1, target]) * jnp.ones((2,))
    return poses._replace(
        centre=poses.centre.at[1, front].set(
            jnp.where(hide, poses.centre[1, target], poses.centre[1, front])
        ),
        half=poses.half.at[1, front].set(jnp.where(hide, half, poses.half[1, front])),
        opacity=poses.opacity.at[1, front].set(jnp.where(hide, 1.0, poses.opacity[1, front])),
    )


class _Piece(NamedTuple):
    """A rectangle of another scene's ground to be laid beside the target."""

    scene: Scene
    away: Float[Array, " 2"]  # from the target's middle, in its sides
    seen: Float[Array, " 2"]  # world position of what its middle shows
    wanted: Bool[Array, ""]


def _exchanged(
    world: WorldConfig, scene: Scene, seed: UInt32[Array, " 2"], box: Float[Array, " 4"]
) -> tuple[Scene, _Piece]:
    """Give a share of the second views another background, and keep a piece of the first one."""
    d = Draws(child(seed, 0), 8)
    swap, turn, away = d.flag(world.real.exchange), d.uniform(0.0, 2.0 * np.pi), d.uniform(1.1, 1.8)
    fresh = draw_background(child(seed, 1), world.background_grid, scene.side, world.real.plain)
    background = jax.tree.map(lambda a, b: jnp.where(swap, a, b), fresh, scene.background)
    offset = away * jnp.stack([jnp.cos(turn), jnp.sin(turn)])
    piece = _Piece(scene, offset, box[:2] + 0.5 * box[2:], swap)
    return scene._replace(background=background), piece


def make_pairs(world: WorldConfig, patch: PatchConfig, keys: Array) -> Pair:
    """Draw a pair for each key, one after the other, as a CPU draws fastest; see `make_pair`.

    Args:
        world: the world.
        patch: how patches are cut.
        keys: ``(n,)`` JAX random keys.

    Returns:
        The pairs; leaves lead with n.
    """
    # Accelerators draw many at once by `jax.vmap` over calls with one key: no loops around one pair.
    if len(keys) == 1:
        return jax.tree.map(lambda leaf: leaf[None], make_pair(world, patch, keys[0]))
    # In a loop of its own, so that it lies in memory: within the other one the compiler would draw
    # what an object is made of anew at each of its pixels.
    drawn = jax.lax.map(lambda key: _draw_pair(world, patch, key), keys)
    return jax.lax.map(lambda one: _render_pair(world, patch, one), drawn)


def make_patches(world: WorldConfig, patch: PatchConfig, key: Array, count: int) -> Patches:
    """Draw a template and search patches of one target over time, a pure function of the key.

    Args:
        world: the world; static under `jax.jit`, like `patch` and `count`.
        patch: how patches are cut.
        key: a JAX random key.
        count: search patches; the first shows the moment of the template.

    Returns:
        The patches; boxes are x, y, w, h of the whole outline in pixels of their patch, margins
        included, 0-based.
    """
    seed = seed_of(key)
    windows = _draw_windows(world, patch, child(seed, 1), count)
    alike = jnp.asarray(world.lookalike_rate, jnp.float32)
    scene = draw_scene(world, child(seed, 0), jnp.ones((), jnp.float32), alike)

    def cut(search: bool, index: Array) -> tuple[Array, Array]:
        window = _pick(windows, index)
        sprites = _bake_view(world, scene, scene.objects, window)
        return _cut_patch(
            scene, sprites, window, world.behind, patch.search if search else patch.template
        )

    template, template_box = cut(False, jnp.asarray(0))
    patches, boxes = jax.lax.map(lambda index: cut(True, index), jnp.arange(count))
    return Patches(template, template_box, patches, boxes)
