"""Objects of the synthetic world: outlines made of parts, textured, deformed, baked into sprites.

An object is a body, a few parts that swing about joints on it, and marks painted on its surface.
Each outline is the level set `d = 1` of a gauge function that is homogeneous of degree one, so that
the outline itself is known in closed form: boxes come from the outline, not from pixels. Deformations are
shears by waves, which have exact inverses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from jaxtrack.synthetic.realism import PLAIN, Realism, photo_piece
from jaxtrack.synthetic.textures import (
    Draws,
    child,
    object_texture,
    random_colour,
    triangle_weights,
)

LIMBS = 3  # parts that may stick out of the body
MARKS = 2  # parts painted on the others' surface
BODY = LIMBS  # index of the body: parts are ordered as they are painted, limbs first
PARTS = LIMBS + 1 + MARKS
OUTLINE_POINTS = 64  # per part; corners of square parts are among them
WAVE_NUMBER = 1.8  # of the deformation, in half sizes of the object


class Object(NamedTuple):
    """What an object is, whatever it does. `p` counts parts: limbs, body, marks."""

    joint: Float[Array, "p 2"]
    reach: Float[Array, " p"]
    angle: Float[Array, " p"]
    swing: Float[Array, " p"]
    swing_phase: Float[Array, " p"]
    radii: Float[Array, "p 2"]
    square: Float[Array, " p"]
    ripple: Float[Array, "p 4"]
    enabled: Bool[Array, " p"]
    colour: Float[Array, "p 3"]
    contrast: Float[Array, " p"]
    texture_scale: Float[Array, " p"]
    texture_offset: Float[Array, "p 2"]
    texture: Float[Array, "3 t t"]
    light: Float[Array, " 2"]
    roundness: Float[Array, ""]
    middle: Float[Array, " 2"]
    extent: Float[Array, " 2"]
    hole: Float[Array, " p"] | None = None  # size of each part's hole, in sizes of the part


class Pose(NamedTuple):
    """What an object does at one time. World units."""

    centre: Float[Array, " 2"]
    half: Float[Array, " 2"]  # half width and height before rotation and deformation
    angle: Float[Array, ""]
    wave: Float[Array, " 2"]  # amplitudes of the deformation, in half sizes
    phase: Float[Array, ""]  # of deformation and swinging, radians
    swing: Float[Array, ""]  # how far limbs swing, 0 to 1
    opacity: Float[Array, ""]
    blur: Float[Array, " 2"]  # path during the exposure


class Sprite(NamedTuple):
    """A picture of one posed object on its own small axis-aligned grid."""

    image: Float[Array, "n 4 n"]  # rows, channels (colours times alpha, alpha), columns
    corner: Float[Array, " 2"]  # world position of the grid's top-left corner
    texel: Float[Array, " 2"]  # world size of one cell
    box: Float[Array, " 4"]  # x, y, w, h of the outline, world units
    blur: Float[Array, " 2"]


@jax.jit
def bend(angle: Array) -> Array:
    """Return a sine's cheap relative, of two parabolas: period 2 pi, from -1 to 1, smooth."""
    turn = angle * (0.5 / np.pi)
    turn = turn - jnp.round(turn)
    return 8.0 * turn * (1.0 - 2.0 * jnp.abs(turn))


@jax.jit
def gauge(u: Array, v: Array, square: Array, ripple: Array) -> Array:
    """Return the outline function of one part: 1 on the outline, less inside; homogeneous of degree one.

    Args:
        u: first coordinate, in radii of the part.
        v: second coordinate.
        square: 0 for an ellipse, 1 for a rectangle, below 0 towards a star.
        ripple: (4,) amplitudes of the third and fifth harmonics of the radius.

    Returns:
        The gauge, of the shape of `u`.
    """
    square_radius = u * u + v * v + 1e-12
    inverse = jax.lax.rsqrt(square_radius)
    radius = square_radius * inverse
    c, s = u * inverse, v * inverse
    c2, s2 = c * c - s * s, 2.0 * c * s
    c3, s3 = c2 * c - s2 * s, s2 * c + c2 * s
    c5, s5 = c3 * c2 - s3 * s2, s3 * c2 + c3 * s2
    rim = 1.0 + ripple[0] * c3 + ripple[1] * s3 + ripple[2] * c5 + ripple[3] * s5
    base = radius + square * (jnp.maximum(jnp.abs(u), jnp.abs(v)) - radius)
    return base / rim


def _part_frames(thing: Object, swing: Array, phase: Array) -> tuple[Array, Array, Array]:
    """Centres (p, 2), cosines and sines (p,) of the parts at one time."""
    angle = thing.angle + swing * thing.swing * jnp.sin(phase + thing.swing_phase)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    centre = thing.joint + thing.reach[:, None] * jnp.stack([cos, sin], 1)
    return centre, cos, sin


def _raw_outline(thing: Object, swing: Array, phase: Array) -> Float[Array, "p m 2"]:
    """Points on every part's outline, in the coordinates that the parts are given in."""
    theta = jnp.arange(OUTLINE_POINTS, dtype=jnp.float32) * (2.0 * np.pi / OUTLINE_POINTS)
    u, v = jnp.cos(theta), jnp.sin(theta)
    centre, cos, sin = _part_frames(thing, swing, phase)
    value = jax.vmap(lambda square, ripple: gauge(u, v, square, ripple))(thing.square, thing.ripple)
    u = u[None, :] / value * thing.radii[:, :1]
    v = v[None, :] / value * thing.radii[:, 1:]
    cos, sin = cos[:, None], sin[:, None]
    x = centre[:, :1] + cos * u - sin * v
    y = centre[:, 1:] + sin * u + cos * v
    return jnp.stack([x, y], -1)


def _extent(points: Float[Array, "p m 2"], enabled: Bool[Array, " p"]) -> tuple[Array, Array]:
    """Smallest and largest coordinates of the enabled body and limbs."""
    count = BODY + 1
    keep = enabled[:count, None, None]
    low = jnp.min(jnp.where(keep, points[:count], jnp.inf), axis=(0, 1))
    high = jnp.max(jnp.where(keep, points[:count], -jnp.inf), axis=(0, 1))
    return low, high


def draw_object(seed: UInt32[Array, " 2"], texture_size: int, real: Realism = PLAIN) -> Object:
    """Draw an object: body, limbs, marks, colours and texture.

    Args:
        seed: of everything about it.
        texture_size: texels along a side of its texture.
        real: shares of slim and hollow objects.

    Returns:
        The object. Its outline at rest fills the square from -1 to 1.
    """
    d = Draws(child(seed, 0), 192)
    direction = d.uniform(0.0, 2.0 * np.pi, PARTS)
    around = d.uniform(0.3, 0.85, PARTS)
    joint = around[:, None] * jnp.stack([jnp.cos(direction), jnp.sin(direction)], 1)
    limb_radii = jnp.stack([d.uniform(0.3, 0.7, LIMBS), d.uniform(0.12, 0.5, LIMBS)], 1)
    mark_radii = d.log_uniform(0.08, 0.45, MARKS, 2)
    body_radii = d.uniform(0.75, 1.0, 1, 2)
    ripple_scale = jnp.asarray([0.16, 0.16, 0.07, 0.07], jnp.float32)
    plain = d.flag(0.35)  # a third of the bodies are plain ellipses or rectangles
    body_colour = random_colour(d, 1)
    own = random_colour(d, PARTS)
    shared = jnp.where(d.flag(0.4, PARTS), 1.0, 0.0)[:, None]
    colour = own + shared * (body_colour - own)
    square = jnp.where(d.flag(0.4, PARTS), d.uniform(0.8, 1.0, PARTS), d.uniform(-0.2, 0.6, PARTS))
    limb_rate = d.uniform(0.0, 1.0)
    enabled = jnp.concatenate(
        [
            d.uniform(0.0, 1.0, LIMBS) < limb_rate,
            jnp.ones((1,), bool),
            d.flag(0.6, MARKS),
        ]
    )
    limb = jnp.asarray([1.0] * LIMBS + [0.0] * (1 + MARKS), jnp.float32)
    body = jnp.asarray([0.0] * LIMBS + [1.0] + [0.0] * MARKS, jnp.float32)
    amplitude = ripple_scale[None] * d.uniform(-1.0, 1.0, PARTS, 4)
    thing = Object(
        joint=joint * (1.0 - body)[:, None],
        reach=limb * d.uniform(0.1, 0.5, PARTS),
        angle=direction + (1.0 - body) * d.uniform(-0.8, 0.8, PARTS) - body * direction,
        swing=limb * d.uniform(0.1, 0.9, PARTS),
        swing_phase=d.uniform(0.0, 2.0 * np.pi, PARTS),
        radii=jnp.concatenate([limb_radii, body_radii, mark_radii], 0),
        square=square,
        ripple=jnp.where(plain, 0.0, amplitude),
        enabled=enabled,
        colour=colour,
        contrast=d.log_uniform(0.03, 0.5) * d.uniform(0.5, 1.5, PARTS),
        texture_scale=d.log_uniform(0.25, 1.0) * d.uniform(0.8, 1.25, PARTS),
        texture_offset=d.uniform(0.0, 1.0, PARTS, 2),
        texture=object_texture(child(seed, 1), texture_size),
        light=d.uniform(-0.15, 0.15, 2),
        roundness=d.flag(0.5) * d.uniform(0.0, 0.3),
        middle=jnp.zeros((2,), jnp.float32),
        extent=jnp.ones((2,), jnp.float32),
    )
    thing = _slim(thing, Draws(child(seed, 2), 64), real)
    thing = _pictured(thing, Draws(child(seed, 3), 8), real)
    still = jnp.zeros((), jnp.float32)
    low, high = _extent(_raw_outline(thing, still, still), thing.enabled)
    return thing._replace(middle=0.5 * (low + high), extent=0.5 * (high - low))


def _slim(thing: Object, draws: Draws, real: Realism) -> Object:
    """Make a share of the objects out of slim parts, and a share of their bodies hollow."""
    if real.thin:
        slim = draws.flag(real.thin)
        limbs = jnp.stack([draws.uniform(0.5, 1.0, LIMBS), draws.uniform(0.06, 0.18, LIMBS)], 1)
        body = jnp.stack([draws.uniform(0.7, 1.0, 1), draws.uniform(0.15, 0.4, 1)], 1)
        radii = jnp.concatenate([limbs, body, 0.5 * thing.radii[BODY + 1 :]], 0)
        has = jnp.concatenate([draws.flag(0.8, LIMBS), thing.enabled[BODY:]])
        thing = thing._replace(
            radii=jnp.where(slim, radii, thing.radii),
            enabled=jnp.where(slim, has, thing.enabled),
            reach=jnp.where(slim, 1.5 * thing.reach, thing.reach),
        )
    if real.hollow:
        hollow = draws.flag(real.hollow)
        size = jnp.zeros((PARTS,)).at[BODY].set(draws.uniform(0.5, 0.85))
        thing = thing._replace(hole=jnp.where(hollow, size, 0.0))
    return thing


def _pictured(thing: Object, draws: Draws, real: Realism) -> Object:
    """Give a share of the objects the colours of a piece of a photograph."""
    if not real.photo:
        return thing
    flag = draws.flag(real.photo)
    piece = photo_piece(real, draws, thing.texture.shape[-1])
    mean = jnp.mean(piece, (1, 2))
    # The parts still differ a little, as limbs and marks do.
    colour = mean[None] + 0.3 * (thing.colour - mean[None])
    return thing._replace(
        colour=jnp.where(flag, colour, thing.colour),
        contrast=jnp.where(flag, 1.0, thing.contrast),
        texture=jnp.where(flag, piece - mean[:, None, None], thing.texture),
    )


def outline(thing: Object, pose: Pose) -> tuple[Float[Array, "p m 2"], Float[Array, " 4"]]:
    """Outline points of the posed object in the world, and their tight box.

    Args:
        thing: the object.
        pose: what it does.

    Returns:
        Points of every part, and the box (x, y, w, h) of body and limbs, in world units.
    """
    points = (_raw_outline(thing, pose.swing, pose.phase) - thing.middle[None, None]) / (
        thing.extent[None, None]
    )
    x, y = points[..., 0], points[..., 1]
    x = x + pose.wave[0] * bend(WAVE_NUMBER * y + pose.phase)
    y = y + pose.wave[1] * bend(WAVE_NUMBER * x + 1.3 * pose.phase)
    x, y = x * pose.half[0], y * pose.half[1]
    cos, sin = jnp.cos(pose.angle), jnp.sin(pose.angle)
    points = jnp.stack([cos * x - sin * y, sin * x + cos * y], -1) + pose.centre[None, None]
    low, high = _extent(points, thing.enabled)
    return points, jnp.concatenate([low, high - low])


def _rest_coordinates(thing: Object, pose: Pose, x: Array, y: Array) -> tuple[Array, Array]:
    """World coordinates to those that the parts are given in: the inverse of `outline`."""
    x, y = x - pose.centre[0], y - pose.centre[1]
    cos, sin = jnp.cos(pose.angle), jnp.sin(pose.angle)
    x, y = (cos * x + sin * y) / pose.half[0], (cos * y - sin * x) / pose.half[1]
    y = y - pose.wave[1] * bend(WAVE_NUMBER * x + 1.3 * pose.phase)
    x = x - pose.wave[0] * bend(WAVE_NUMBER * y + pose.phase)
    return x * thing.extent[0] + thing.middle[0], y * thing.extent[1] + thing.middle[1]


def _lookup(table: Float[Array, "t2 4"], u: Array, v: Array) -> Float[Array, "n 4 n"]:
    """Bilinear lookup in a periodic square texture, a table of texels; u and v count periods."""
    size = math.isqrt(table.shape[0])
    x, y = (u - jnp.floor(u)) * size, (v - jnp.floor(v)) * size
    x0, y0 = jnp.floor(x), jnp.floor(y)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    left, top = x0.astype(jnp.int32) % size, y0.astype(jnp.int32) % size
    right, bottom = (left + 1) % size, (top + 1) % size
    upper = table[top * size + left] * (1.0 - fx) + table[top * size + right] * fx
    lower = table[bottom * size + left] * (1.0 - fx) + table[bottom * size + right] * fx
    return jnp.moveaxis(upper * (1.0 - fy) + lower * fy, -1, 1)


def bake(thing: Object, pose: Pose, size: int, mix: Float[Array, "3 3"]) -> Sprite:
    """Draw a posed object on a grid of its own that just covers it.

    Args:
        thing: the object.
        pose: what it does.
        size: cells along a side of the grid.
        mix: the camera's colour matrix; applied here because compositing is linear and sprites are
            small.

    Returns:
        The sprite.
    """
    _, box = outline(thing, pose)
    texel = box[2:] / (size - 4)
    corner = box[:2] - 2.0 * texel
    cells = jnp.arange(size, dtype=jnp.float32) + 0.5
    x = jnp.broadcast_to((corner[0] + cells * texel[0])[None, :], (size, size))
    y = jnp.broadcast_to((corner[1] + cells * texel[1])[:, None], (size, size))
    x, y = _rest_coordinates(thing, pose, x, y)
    centre, cos, sin = _part_frames(thing, pose.swing, pose.phase)
    radii = thing.radii
    # Rest coordinates to those of each part, in radii. One matrix product, because the compiler
    # keeps its operands and results, where it would compute element-wise chains anew for each use.
    shift = cos * centre[:, 0] + sin * centre[:, 1], cos * centre[:, 1] - sin * centre[:, 0]
    rows = jnp.stack(
        [
            jnp.stack([cos, sin, -shift[0]], 1) / radii[:, :1],
            jnp.stack([-sin, cos, -shift[1]], 1) / radii[:, 1:],
        ]
    )
    u, v = jnp.einsum("apk,kyx->apyx", rows, jnp.stack([x, y, jnp.ones_like(x)]))
    value = jax.vmap(gauge)(u, v, thing.square, thing.ripple)
    # cells per unit of the gauge, about: the edge is one cell wide
    unit = jnp.sqrt(jnp.prod(pose.half / thing.extent) / jnp.prod(texel))
    edge = unit * jnp.sqrt(radii[:, 0] * radii[:, 1])
    cover = jnp.clip(0.5 + (1.0 - value) * edge[:, None, None], 0.0, 1.0)
    if thing.hole is not None:
        inside = jnp.clip(0.5 + (thing.hole[:, None, None] - value) * edge[:, None, None], 0.0, 1.0)
        cover = cover - jnp.where(thing.hole[:, None, None] > 0, inside, 0.0)
    cover = cover * thing.enabled[:, None, None]
    alpha = 1.0 - jnp.prod(1.0 - cover[: BODY + 1], axis=0)
    paint = jnp.concatenate([cover[: BODY + 1], cover[BODY + 1 :] * alpha[None]], 0)
    through = [jnp.ones_like(alpha)]
    for part in range(PARTS - 1, 0, -1):
        through.append(through[-1] * (1.0 - cover[part]))
    weight = paint * jnp.stack(through[::-1])
    # the fourth channel is alpha: colour 1, no texture, no shading
    colour = jnp.concatenate([thing.colour @ mix.T, jnp.ones((PARTS, 1), jnp.float32)], 1)
    table = thing.texture.reshape(3, -1).T @ jnp.pad(mix.T, ((0, 0), (0, 1)))
    tone = jnp.einsum("pc,pyx->ycx", colour, weight)
    contrast = jnp.einsum("p,pyx->yx", thing.contrast, weight)
    u = u * (radii[:, 0] * thing.texture_scale)[:, None, None] + thing.texture_offset[:, :1, None]
    v = v * (radii[:, 1] * thing.texture_scale)[:, None, None] + thing.texture_offset[:, 1:, None]
    tu, tv = u[0], v[0]
    for part in range(1, PARTS):
        top = cover[part] > 0.5
        tu, tv = jnp.where(top, u[part], tu), jnp.where(top, v[part], tv)
    x = (x - thing.middle[0]) / thing.extent[0]
    y = (y - thing.middle[1]) / thing.extent[1]
    light = thing.light[0] * x + thing.light[1] * y - thing.roundness * (x * x + y * y)
    solid = jnp.asarray([1.0, 1.0, 1.0, 0.0], jnp.float32)[None, :, None]
    image = tone + contrast[:, None] * _lookup(table, tu, tv)
    image = image * (1.0 + solid * light[:, None]) * pose.opacity
    return Sprite(image, corner, texel, box, pose.blur)


def place(
    sprite: Sprite,
    xs: Float[Array, " w"],
    ys: Float[Array, " h"],
    step: Float[Array, ""],
    blur: Float[Array, " 2"],
) -> Float[Array, "h 4 w"]:
    """Sample a sprite on an axis-aligned grid, blurred along its path during the exposure.

    Args:
        sprite: from `bake`.
        xs: world abscissae of the columns.
        ys: world ordinates of the rows.
        step: world units per pixel.
        blur: half widths of the lens blur, world units.

    Returns:
        Colours times alpha, and alpha; zero outside the sprite.
    """
    size = sprite.image.shape[-1]
    # as wide as a pixel when the sprite shrinks, wider when it moves during the exposure
    half_width = jnp.maximum(1.0, (step + blur + 0.5 * jnp.abs(sprite.blur)) / sprite.texel)
    columns = triangle_weights((xs - sprite.corner[0]) / sprite.texel[0] - 0.5, size, half_width[0])
    rows = triangle_weights((ys - sprite.corner[1]) / sprite.texel[1] - 0.5, size, half_width[1])
    tall = jnp.einsum("ys,sck->yck", rows, sprite.image)
    return jnp.einsum("yck,xk->ycx", tall, columns)
