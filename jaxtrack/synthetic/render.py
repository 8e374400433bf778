"""Scenes of the synthetic world and how a view of them becomes a picture."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8, UInt32

from jaxtrack.errors import JaxtrackError
from jaxtrack.ranges import Count, NotNegative, Positive, Share, Whole, check_ranges
from jaxtrack.synthetic.objects import Object, Pose, Sprite, bake, draw_object, place
from jaxtrack.synthetic.realism import (
    PHOTO_SIDE,
    PLAIN,
    Camera,
    Realism,
    Surroundings,
    add_surroundings,
    cast_shadow,
    compress,
    draw_camera,
    draw_surroundings,
    light_up,
)
from jaxtrack.synthetic.textures import (
    Background,
    Draws,
    child,
    draw_background,
    mix_bits,
    render_background,
)


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """What the world looks like. Ranges are (smallest, largest).

    Attributes:
        height: frame height of clips, pixels.
        width: frame width of clips, pixels.
        length: frames of a clip.
        target_size: sqrt(width x height) of the target in clips, pixels.
        aspect: width / height of objects, before rotation.
        behind: objects that the target may cover.
        front: objects that may cover the target; at least one where targets are hidden.
        lookalike_rate: share of the objects behind that look like the target.
        attribute_rate: probability of each attribute of a clip.
        texture_size: texels along a side of an object's texture; even and at most 128 where
            photographs become textures.
        sprite_size: cells along a side of the grid that an object is drawn on.
        background_grid: knots along a side of the background's random grids.
        noise: largest standard deviation of the sensor's noise, of 1.
        blur: largest half width of the lens blur, pixels; half of the scenes are sharp.
        grey_rate: share of grey clips and pairs.
        real: shares of what makes the world more like real video; all off.
    """

    height: Count = 240
    width: Count = 320
    length: Count = 64
    target_size: tuple[Positive, Positive] = (24.0, 72.0)
    aspect: tuple[Positive, Positive] = (0.4, 2.5)
    behind: Whole = 3
    front: Whole = 1
    lookalike_rate: Share = 0.3
    attribute_rate: Share = 0.3
    texture_size: Count = 64
    sprite_size: Count = 64
    background_grid: Count = 32
    noise: NotNegative = 0.03
    blur: NotNegative = 2.5
    grey_rate: Share = 0.1
    real: Realism = PLAIN

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, and fields that do not go together, by name."""
        check_ranges(self)
        for name in ("target_size", "aspect"):
            least, most = getattr(self, name)
            if least > most:
                raise JaxtrackError(f"{name} is {least:g} to {most:g}; the smallest comes first")
        if self.real.hidden and not self.front:
            raise JaxtrackError(
                f"real.hidden is {self.real.hidden:g}, but front is 0: an object in front hides the target"
            )
        if self.real.photo and (self.texture_size % 2 or self.texture_size > PHOTO_SIDE):
            raise JaxtrackError(
                f"texture_size is {self.texture_size}; even, at most {PHOTO_SIDE}, with real.photo above 0"
            )


class Scene(NamedTuple):
    """What does not change during a clip. Objects lead with their index, back to front."""

    objects: Object
    background: Background
    grey: Array
    saturation: Array
    contrast: Array
    noise: Array
    blur: Array
    alike: Bool[Array, " objects"]
    side: Array  # of the target, world units
    middle: Array  # world position of the middle of the first view
    around: Surroundings
    camera: Camera


class View(NamedTuple):
    """A window on the world: square pixels of `step` world units from `origin`."""

    origin: Float[Array, " 2"]
    step: Float[Array, ""]
    gain: Float[Array, " 3"]
    noise_seed: Array  # uint32


def draw_scene(
    config: WorldConfig,
    seed: UInt32[Array, " 2"],
    scale: Array,
    alike: Array,
    extra: int = 0,
    middle: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    """Draw objects, background and camera.

    Args:
        config: the world.
        seed: of everything in it.
        scale: typical object size in world units.
        alike: probability that an object behind looks like the target.
        extra: objects beyond those of the configuration, at the end.
        middle: world position of the middle of the first view.

    Returns:
        The scene; the target has index `config.behind`.
    """
    count = config.behind + 1 + config.front + extra
    d = Draws(child(seed, 0), 32 + 8 * count)
    own = child(seed, 1)
    real = config.real
    copy = (jnp.arange(count) < config.behind) & (d.uniform(0.0, 1.0, count) < alike)
    # A copy is drawn from the target's own seed.
    index = jnp.where(copy, config.behind, jnp.arange(count))
    mixed = jax.vmap(lambda i: draw_object(child(own, i), config.texture_size, real))(index)
    nuance = d.uniform(-0.12, 0.12, count, 3) * copy[:, None]
    mixed = mixed._replace(colour=jnp.clip(mixed.colour + nuance[:, None], 0.0, 1.0))
    return Scene(
        objects=mixed,
        background=draw_background(child(seed, 2), config.background_grid, scale, real.plain),
        grey=d.flag(config.grey_rate),
        saturation=d.uniform(0.6, 1.3),
        contrast=d.uniform(0.65, 1.15),
        noise=d.uniform(0.0, 1.0) ** 2 * config.noise,
        blur=jnp.maximum(d.uniform(-config.blur, config.blur), 0.0),
        alike=copy,
        side=scale,
        middle=jnp.asarray(middle, jnp.float32),
        around=draw_surroundings(
            real, Draws(child(seed, 3), 24), scale, jnp.asarray(middle[1], jnp.float32)
        ),
        camera=draw_camera(real, Draws(child(seed, 4), 40)),
    )


def _grid(view: View, height: int, width: int) -> tuple[Array, Array]:
    """World coordinates of the pixel centres: columns, rows."""
    xs = view.origin[0] + (jnp.arange(width, dtype=jnp.float32) + 0.5) * view.step
    ys = view.origin[1] + (jnp.arange(height, dtype=jnp.float32) + 0.5) * view.step
    return xs, ys


def colour_matrix(scene: Scene, gain: Float[Array, " 3"]) -> Float[Array, "3 3"]:
    """Saturation, contrast and gain of the camera."""
    saturation = jnp.where(scene.grey, 0.0, scene.saturation)
    luma = jnp.asarray([0.299, 0.587, 0.114], jnp.float32)
    mix = (1.0 - saturation) * luma[None, :] + saturation * jnp.eye(3, dtype=jnp.float32)
    return (scene.contrast * _channel_gain(scene, gain))[:, None] * mix


def _channel_gain(scene: Scene, gain: Float[Array, " 3"]) -> Float[Array, " 3"]:
    return jnp.where(scene.grey, jnp.mean(gain), gain)


def _grade(background: Background, mix: Float[Array, "3 3"]) -> Background:
    """Return the background in the camera's colours."""
    return background._replace(
        colour=background.colour @ mix.T,
        tint=mix @ background.tint,
        chroma=mix @ background.chroma,
        slope=mix @ background.slope,
    )


def hash_noise(counter: Array) -> Array:
    """White noise of zero mean and unit deviation, a function of whole numbers (uint32).

    The sum of two uniform halves is bell-shaped enough.
    """
    bits = mix_bits(counter)
    halves = (bits & jnp.uint32(0xFFFF)).astype(jnp.float32) + (bits >> 16).astype(jnp.float32)
    return halves * (2.4494897 / 65535.0) - 2.4494897


def _expose(scene: Scene, view: View, picture: Float[Array, "3 h w"]) -> UInt8[Array, "h w 3"]:
    """Noise, and the quantisation to bytes."""
    shape = picture.shape
    row, channel, column = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(3))
    channel = jnp.where(scene.grey, jnp.uint32(0), channel)
    noise = hash_noise(
        (row * jnp.uint32(3) + channel) * jnp.uint32(8192) + column + view.noise_seed
    )
    picture = picture + scene.noise * noise
    levels = jnp.clip(jnp.round(picture * 255.0), 0.0, 255.0).astype(jnp.uint8)
    return jnp.moveaxis(levels, 1, 2)


def _ground(
    scene: Scene, view: View, size: tuple[int, int], blur: Float[Array, " 2"]
) -> tuple[Float[Array, "h 3 w"], Float[Array, "h w"]]:
    """Return colours and light of what lies behind all objects."""
    xs, ys = _grid(view, *size)
    ground = _grade(scene.background, colour_matrix(scene, view.gain))
    picture, light = render_background(ground, xs, ys, view.step, jnp.mean(blur))
    return add_surroundings(picture, scene.around, xs, ys, view.step), light


def _develop(
    scene: Scene, view: View, picture: Float[Array, "h 3 w"], light: Float[Array, "h w"]
) -> UInt8[Array, "h w 3"]:
    """Turn colours into what the camera stores."""
    height, _, width = picture.shape
    xs, ys = _grid(view, height, width)
    offset = _channel_gain(scene, view.gain) * (0.5 - 0.5 * scene.contrast)
    picture = picture * light[:, None] + offset[None, :, None]
    far = (xs - scene.middle[0]) / scene.side, (ys - scene.middle[1]) / scene.side
    picture = compress(light_up(picture, scene.camera, *far), scene.camera)
    return _expose(scene, view, picture)


def render_ground(scene: Scene, view: View, size: tuple[int, int]) -> UInt8[Array, "h w 3"]:
    """Draw one view without any object.

    Args:
        scene: what there is.
        view: the window.
        size: height and width in pixels.
    """
    blur = jnp.broadcast_to(scene.blur * view.step, (2,))
    return _develop(scene, view, *_ground(scene, view, size, blur))


@jax.jit
def _under(
    picture: Array, seen: Array, layer: Array, camera: Camera, side: Array
) -> tuple[Array, Array]:
    """Return the picture, and what is seen of the target, under one more layer."""
    picture = cast_shadow(picture, layer[:, 3], camera, side)
    return picture * (1.0 - layer[:, 3:]) + layer[:, :3], seen * (1.0 - layer[:, 3])


@functools.partial(jax.jit, static_argnames=("size", "target"))
def render(
    scene: Scene,
    sprites: Sprite,
    view: View,
    size: tuple[int, int],
    target: int,
    pan: Float[Array, " 2"],
) -> tuple[UInt8[Array, "h w 3"], Float[Array, "h w"], Float[Array, ""]]:
    """Draw one view.

    Args:
        scene: what there is.
        sprites: the posed objects in the camera's colours, back to front, leading axis objects.
        view: the window.
        size: height and width in pixels.
        target: index of the target.
        pan: the camera's path during the exposure, world units.

    Returns:
        The picture, the target's own coverage of each pixel (as if nothing were before it), and the
        area in pixels of the target that is seen.
    """
    xs, ys = _grid(view, *size)
    blur = scene.blur * view.step + 0.5 * jnp.abs(pan)
    picture, light = _ground(scene, view, size, blur)
    layers = jax.vmap(lambda sprite: place(sprite, xs, ys, view.step, blur))(sprites)
    seen = jnp.zeros(size, jnp.float32)
    for index in range(layers.shape[0]):
        covered, hidden = _under(picture, seen, layers[index], scene.camera, scene.side / view.step)
        picture, seen = covered, layers[index, :, 3] if index == target else hidden
    frame = _develop(scene, view, picture, light)
    return frame, layers[target, :, 3], jnp.sum(seen)


@functools.partial(jax.jit, static_argnames=("size",))
def bake_all(objects: Object, poses: Pose, size: int, mix: Float[Array, "3 3"]) -> Sprite:
    """Bake every object of a scene; leaves lead with the object."""
    return jax.vmap(lambda thing, pose: bake(thing, pose, size, mix))(objects, poses)
