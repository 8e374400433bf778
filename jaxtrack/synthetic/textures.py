"""Textures of the synthetic world: functions of continuous coordinates on axis-aligned grids.

Every random field is a small periodic grid of numbers read through cubic B-splines. On an axis-
aligned sampling grid that is two small matrix products, at any resolution and place, so that a
patch costs what its own pixels cost and no picture of the whole world is ever stored.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

EDGE_SOFTNESS = (0.8, 4.0)  # width of the edges between background regions, in pixels
REGIONS = 4  # background regions: one ground and three layers over it


def mix_bits(counter: Array) -> Array:
    """Mix whole numbers (uint32) so that neighbours have nothing in common.

    Two rounds of multiplication cost a small part, in time and in compiled code, of what a random
    generator for general use does; pictures ask for no more.

    Reference: the finaliser of MurmurHash3 (Appleby), public domain.
    """
    bits = (counter ^ (counter >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def seed_of(key: Array) -> UInt32[Array, " 2"]:
    """Return the seed that a JAX random key stands for."""
    words = jax.random.key_data(key).reshape(-1)
    return jnp.stack([words[0], words[-1]]).astype(jnp.uint32)


# What is drawn many times is a compiled function of its own: a program holds it once.


@jax.jit
def child(seed: UInt32[Array, " 2"], tag: int | Array) -> UInt32[Array, " 2"]:
    """Return a seed that depends on another and a number, for a part of what the other draws."""
    tag = mix_bits(jnp.asarray(tag).astype(jnp.uint32) * jnp.uint32(0x9E3779B9) + jnp.uint32(1))
    return jnp.stack([mix_bits(seed[0] + tag), mix_bits(seed[1] ^ tag) + seed[0]])


@functools.partial(jax.jit, static_argnums=1)
def _numbers(seed: UInt32[Array, " 2"], count: int) -> Float[Array, " count"]:
    """Uniform numbers in [0, 1)."""
    counter = jnp.arange(count, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    bits = mix_bits(mix_bits(counter + seed[1]) ^ seed[0])
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


@functools.partial(jax.jit, static_argnums=3)
def _between(numbers: Array, low: float, span: float, shape: tuple[int, ...]) -> Array:
    return low + span * numbers.reshape(shape)


@functools.partial(jax.jit, static_argnums=2)
def _below(numbers: Array, rate: float, shape: tuple[int, ...]) -> Array:
    return numbers.reshape(shape) < rate


class Draws:
    """Hands out uniform numbers of one seed in order.

    Args:
        seed: from `seed_of` or `child`.
        count: how many numbers to hold ready; asking for more raises.
    """

    def __init__(self, seed: UInt32[Array, " 2"], count: int) -> None:
        self._numbers = _numbers(seed, count)
        self._taken = 0

    def _take(self, shape: tuple[int, ...]) -> Array:
        size = int(np.prod(shape, dtype=int))
        start, self._taken = self._taken, self._taken + size
        if self._taken > self._numbers.shape[0]:
            raise ValueError(f"Draws holds {self._numbers.shape[0]} numbers, {self._taken} asked")
        return jax.lax.slice_in_dim(self._numbers, start, self._taken)

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Uniform numbers in [low, high) of the given shape."""
        return _between(self._take(shape), low, high - low, shape)

    def log_uniform(self, low: float, high: float, *shape: int) -> Array:
        """Numbers in [low, high) whose logarithms are uniform."""
        return jnp.exp(self.uniform(float(np.log(low)), float(np.log(high)), *shape))

    def sign(self, *shape: int) -> Array:
        """-1 or 1, with equal probability."""
        return jnp.sign(self.uniform(-1.0, 1.0, *shape))

    def flag(self, rate: float, *shape: int) -> Array:
        """Return True with probability `rate`."""
        return _below(self._take(shape), rate, shape)


class Background(NamedTuple):
    """An endless background. Lengths are in world units; `r` counts regions, `o` octaves."""

    octaves: Float[Array, "o 2 g g"]  # lightness and chroma
    octave_cell: Float[Array, " o"]
    fields: Float[Array, "r g g"]
    field_cell: Float[Array, " r"]
    noise_part: Float[Array, " r"]
    wave_part: Float[Array, " r"]
    wave: Float[Array, "r 2 3"]
    level: Float[Array, " r"]
    softness: Float[Array, " r"]
    colour: Float[Array, "r 3"]
    grain: Float[Array, "r 2"]  # strength of coarse and fine detail
    tint: Float[Array, " 3"]  # what one unit of grain adds to each channel
    chroma: Float[Array, "3 2"]
    slope: Float[Array, "3 2"]
    shadow: Float[Array, ""]


@functools.partial(jax.jit, static_argnums=1)
def spline_weights(position: Float[Array, " n"], count: int) -> Float[Array, "n count"]:
    """Weights of the periodic cubic B-spline on `count` knots at the given positions (in knots)."""
    distance = position[:, None] - jnp.arange(count, dtype=jnp.float32)[None, :]
    distance = jnp.abs(distance - count * jnp.round(distance / count))
    near = 2.0 / 3.0 - distance**2 * (1.0 - 0.5 * distance)
    far = jnp.maximum(2.0 - distance, 0.0) ** 3 / 6.0
    return jnp.where(distance < 1.0, near, far)


@functools.partial(jax.jit, static_argnums=1)
def triangle_weights(
    position: Float[Array, " n"], count: int, half_width: Float[Array, ""]
) -> Float[Array, "n count"]:
    """Weights of a triangle of the given half width (in knots, at least 1) around each position."""
    distance = jnp.abs(position[:, None] - jnp.arange(count, dtype=jnp.float32)[None, :])
    return jnp.maximum(1.0 - distance / half_width, 0.0) / half_width


def triangle_wave(phase: Array) -> Array:
    """Return a wave of period 1 between -1 and 1, without a transcendental function."""
    return 4.0 * jnp.abs(phase - jnp.round(phase)) - 1.0


def random_colour(draws: Draws, *shape: int) -> Array:
    """Colours in [0, 1], mostly of low saturation, as in real pictures. Shape: shape + (3,)."""
    grey = draws.uniform(0.08, 0.92, *shape, 1)
    saturation = draws.uniform(0.0, 1.0, *shape, 1) ** 3
    return jnp.clip(grey + saturation * draws.uniform(-0.7, 0.7, *shape, 3), 0.0, 1.0)


def object_texture(seed: UInt32[Array, " 2"], size: int) -> Float[Array, "3 size size"]:
    """Draw a periodic RGB texture of four octaves, smooth or hard-edged, -1 to 1."""
    grids = (3, 6, 12, size // 2)
    draws = Draws(child(seed, 0), 32)
    strength = draws.log_uniform(0.15, 1.0, len(grids))
    strength = strength / jnp.sqrt(jnp.sum(strength**2))
    chroma = draws.uniform(0.0, 1.0) ** 2
    gain = draws.log_uniform(1.0, 12.0)
    numbers = Draws(child(seed, 1), 3 * sum(g * g for g in grids))
    total = jnp.zeros((3, size, size), jnp.float32)
    for index, grid in enumerate(grids):
        values = numbers.uniform(-3.0, 3.0, 3, grid, grid)
        weights = spline_weights(jnp.arange(size, dtype=jnp.float32) * (grid / size), grid)
        total = total + strength[index] * jnp.einsum("yg,cgk,xk->cyx", weights, values, weights)
    total = total[:1] + chroma * (total - total[:1])
    return gain * total / (1.0 + jnp.abs(gain * total))


def draw_background(
    seed: UInt32[Array, " 2"], grid: int, scale: Float[Array, ""], plain: float = 0.0
) -> Background:
    """Draw a background.

    Args:
        seed: of everything in it.
        grid: knots of each random grid along an axis.
        scale: a typical object's size in world units; regions and grain follow it.
        plain: share of backgrounds with little grain and few, sharp, upright or level edges.

    Returns:
        The background's parameters.
    """
    draws = Draws(child(seed, 0), 256)
    r = REGIONS
    coarse = scale * draws.log_uniform(0.35, 1.5)
    octave_cell = coarse / jnp.asarray([1.0, 2.3, 5.1, 11.0], jnp.float32)
    field_cell = scale * draws.log_uniform(0.4, 3.0, r)
    kind = draws.uniform(0.0, 1.0, r)  # blobs, stripes or grids, or stripes bent by noise
    wave_part = jnp.where(kind < 0.45, 0.0, 1.0)
    noise_part = jnp.where(kind < 0.45, 2.0, jnp.where(kind < 0.75, 0.0, 1.5))
    turn = jnp.where(draws.flag(0.5, r), 0.0, draws.uniform(0.0, np.pi, r))
    frequency = 0.5 / (field_cell[:, None] * draws.log_uniform(0.5, 2.0, r, 2))
    single = draws.flag(0.5, r)  # stripes: the second wave is switched off by a constant phase
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    first = jnp.stack([cos, sin], 1) * frequency[:, :1]
    second = jnp.stack([-sin, cos], 1) * jnp.where(single, 0.0, frequency[:, 1])[:, None]
    phase = draws.uniform(0.0, 1.0, r, 2).at[:, 1].set(jnp.where(single, 0.5, 0.0))
    numbers = Draws(child(seed, 1), (8 + r) * grid * grid)
    octaves = numbers.uniform(-1.5, 1.5, 4, 2, grid, grid)
    fields = numbers.uniform(-1.0, 1.0, r, grid, grid)
    background = Background(
        octaves=octaves * draws.log_uniform(0.25, 1.0, 4)[:, None, None, None],
        octave_cell=octave_cell,
        fields=fields,
        field_cell=field_cell,
        noise_part=noise_part,
        wave_part=wave_part,
        wave=jnp.concatenate([jnp.stack([first, second], 1), phase[:, :, None]], 2),
        level=draws.uniform(-0.6, 0.2, r),
        softness=draws.log_uniform(*EDGE_SOFTNESS, r),
        colour=random_colour(draws, r),
        grain=draws.log_uniform(0.03, 0.6, r, 2) * draws.sign(r, 2),
        tint=jnp.ones((3,), jnp.float32),
        chroma=draws.uniform(0.0, 1.0) ** 2 * draws.uniform(-0.4, 0.4, 3, 2),
        slope=draws.uniform(-0.12, 0.12, 3, 1) + draws.uniform(-0.04, 0.04, 3, 2),
        shadow=draws.flag(0.5) * draws.uniform(0.1, 0.6),
    )
    return _plain(background, Draws(child(seed, 2), 64), scale, plain) if plain else background


def _plain(background: Background, draws: Draws, scale: Array, share: float) -> Background:
    """Make a share of the backgrounds plain: walls, roads, courts, water."""
    r = REGIONS
    upright = draws.flag(0.5, r)
    frequency = 0.5 / (scale * draws.log_uniform(1.5, 8.0, r))
    across = jnp.stack([jnp.where(upright, frequency, 0.0), jnp.where(upright, 0.0, frequency)], 1)
    phase = jnp.stack([draws.uniform(0.0, 1.0, r), jnp.full((r,), 0.5)], 1)
    wave = jnp.concatenate([jnp.stack([across, jnp.zeros((r, 2))], 1), phase[:, :, None]], 2)
    other = background._replace(
        noise_part=jnp.zeros((r,)),
        wave_part=jnp.ones((r,)),
        wave=wave,
        level=draws.uniform(-0.9, 0.0, r),
        softness=jnp.full((r,), EDGE_SOFTNESS[0]),
        grain=0.15 * background.grain,
        chroma=0.3 * background.chroma,
        shadow=background.shadow * draws.flag(0.5),
    )
    chosen = draws.flag(share)
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), other, background)


class _Region(NamedTuple):
    """One region of a background; see `Background`."""

    wave: Float[Array, "2 3"]
    wave_part: Float[Array, ""]
    noise_part: Float[Array, ""]
    level: Float[Array, ""]
    colour: Float[Array, " 3"]
    grain: Float[Array, " 2"]
    sharpness: Float[Array, ""]


@jax.jit
def _cover(
    region: _Region,
    below: tuple[Array, Array],
    xs: Array,
    ys: Array,
    field: Array,
    detail: tuple[Array, Array],
) -> tuple[Float[Array, "h 3 w"], Float[Array, "h w"]]:
    """Lay a region over colour and grain of those below it."""
    colour, grain = below
    wave = region.wave
    height = triangle_wave(wave[0, 0] * xs[None] + wave[0, 1] * ys[:, None] + wave[0, 2])
    other = triangle_wave(wave[1, 0] * xs[None] + wave[1, 1] * ys[:, None] + wave[1, 2])
    height = region.wave_part * jnp.minimum(height, other)
    value = region.noise_part * field + height + region.level
    cover = jnp.clip(0.5 + value * region.sharpness, 0.0, 1.0)
    colour = colour + cover[:, None] * (region.colour[None, :, None] - colour)
    own = region.grain[0] * detail[0] + region.grain[1] * detail[1]
    return colour, grain + cover * (own - grain)


def render_background(
    background: Background,
    xs: Float[Array, " w"],
    ys: Float[Array, " h"],
    step: Float[Array, ""],
    blur: Float[Array, ""],
) -> tuple[Float[Array, "h 3 w"], Float[Array, "h w"]]:
    """Evaluate a background on an axis-aligned grid.

    Args:
        background: from `draw_background`.
        xs: world abscissae of the columns.
        ys: world ordinates of the rows.
        step: world units per pixel; edges between regions are a few pixels wide.
        blur: half width of the blur, world units: edges widen and grain finer than it fades.

    Returns:
        The colours (about 0 to 1; rows, channels, columns) and the light (1, less in shadow) of every
        pixel.
    """
    grid = background.octaves.shape[-1]

    def weights(axis: Array, cell: Array) -> Array:
        return jax.vmap(lambda c: spline_weights(axis / c, grid))(cell)

    rows, columns = (weights(axis, background.octave_cell) for axis in (ys, xs))
    left = 1.0 / (1.0 + (2.0 * blur / background.octave_cell) ** 2)
    tall = jnp.einsum("oyg,ocgk->ocyk", rows * left[:, None, None], background.octaves)
    # coarse and fine octaves stay apart: regions mix them differently
    coarse = jnp.einsum("ocyk,oxk->cyx", tall[:2], columns[:2])
    fine = jnp.einsum("ocyk,oxk->cyx", tall[2:], columns[2:])

    rows, columns = (weights(axis, background.field_cell) for axis in (ys, xs))
    tall = jnp.einsum("ryg,rgk->ryk", rows, background.fields)
    field = jnp.einsum("ryk,rxk->ryx", tall, columns)
    softness = step * background.softness + blur
    sharpness = background.field_cell / softness
    colour = jnp.broadcast_to(background.colour[0][None, :, None], (ys.shape[0], 3, xs.shape[0]))
    grain = background.grain[0, 0] * coarse[0] + background.grain[0, 1] * fine[0]
    for region in range(1, REGIONS):
        own = _Region(
            background.wave[region],
            background.wave_part[region],
            background.noise_part[region],
            background.level[region],
            background.colour[region],
            background.grain[region],
            sharpness[region],
        )
        colour, grain = _cover(own, (colour, grain), xs, ys, field[region], (coarse[0], fine[0]))
    along = (ys - jnp.mean(ys)) / (step * ys.shape[0])
    across = (xs - jnp.mean(xs)) / (step * xs.shape[0])

    def add(channels: Array, plane: Array) -> Array:
        return channels[None, :, None] * plane[:, None]

    colour = colour + add(background.tint, grain)
    colour = (
        colour + add(background.chroma[:, 0], coarse[1]) + add(background.chroma[:, 1], fine[1])
    )
    colour = colour + add(background.slope[:, 0], along[:, None])
    colour = colour + add(background.slope[:, 1], across[None])
    shade = jnp.clip(0.5 + 3.0 * field[0], 0.0, 1.0)
    return colour, 1.0 - background.shadow * shade
