"""What makes the synthetic world look more like real video: fields of the world, all off by default.

Each field of `Realism` is the share of scenes, pairs or pictures that have one property of real video which
the plain world lacks. With every share at zero the world draws, bit for bit, what it draws without them.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxtrack.errors import JaxtrackError
from jaxtrack.ranges import Share, check_ranges
from jaxtrack.synthetic.textures import Draws, spline_weights

PHOTO_SIDE = 128  # texels along a side of a photograph used as texture
MOST_PHOTOS = 256  # they are part of the compiled program
LAMPS = 4  # lights of a night scene


@dataclasses.dataclass(frozen=True)
class Realism:
    """Shares, from 0 (never) to 1 (always).

    Attributes:
        thin: objects of slim parts, with an aspect down to .2.
        hollow: objects with a hole, through which the background is seen.
        plain: backgrounds with little detail and few, sharp, upright or level edges.
        horizon: scenes with a sky above a ground.
        shadow: scenes in which objects cast a shadow.
        night: dark scenes, lit by a few lamps.
        jpeg: pictures with the blocks of strong compression.
        upscale: pictures enlarged from fewer pixels.
        exchange: pairs whose second view has another background; a piece of the first one lies there as a
            distractor.
        hidden: pairs whose target is hidden in the second view while look-alikes stand clear; such a
            pair is marked negative.
        turn: pairs whose second view is turned by up to half a turn.
        calm: clips and pairs in which little changes, as in most real video.
        border: clips whose target roams up to the frame's border.
        photo: backgrounds, and objects, that show a photograph from `textures`.
        textures: folder of pictures for `photo`.
    """

    thin: Share = 0.0
    hollow: Share = 0.0
    plain: Share = 0.0
    horizon: Share = 0.0
    shadow: Share = 0.0
    night: Share = 0.0
    jpeg: Share = 0.0
    upscale: Share = 0.0
    exchange: Share = 0.0
    hidden: Share = 0.0
    turn: Share = 0.0
    calm: Share = 0.0
    border: Share = 0.0
    photo: Share = 0.0
    textures: str = ""

    def __post_init__(self) -> None:
        """Check the shares."""
        check_ranges(self)
        if self.photo and not self.textures:
            raise JaxtrackError("photo is above 0, but textures names no folder of pictures")


PLAIN = Realism()
# What the recipes for accelerators train on.
LIFELIKE = Realism(
    thin=0.25,
    hollow=0.15,
    plain=0.35,
    horizon=0.25,
    shadow=0.3,
    night=0.06,
    jpeg=0.3,
    upscale=0.2,
    exchange=0.25,
    hidden=0.06,
    turn=0.1,
    calm=0.4,
)


class Sky(NamedTuple):
    """The sky of a scene."""

    horizon: Float[Array, ""]  # world ordinate; far above the view where no sky is wanted
    colours: Float[Array, "2 3"]  # at the horizon, and high above it


class Photo(NamedTuple):
    """A photograph behind a scene."""

    image: Float[Array, "3 p p"]
    cell: Float[Array, ""]  # world units per texel; 0: no photograph is wanted
    origin: Float[Array, "2"]


class Surroundings(NamedTuple):
    """What a background has beside its texture. None: the world never draws it."""

    sky: Sky | None
    photo: Photo | None


class Night(NamedTuple):
    """The light of a dark scene."""

    left: Float[Array, ""]  # share of the daylight that is left; 1: it is day
    lamps: Float[Array, "l 4"]  # x, y, radius, brightness; in sides of the target


class Camera(NamedTuple):
    """What light and camera add to the pictures of a scene. None: the world never draws it."""

    shadow: Float[Array, "3"] | None  # strength, and the offset in sides of the target
    night: Night | None
    quality: Float[Array, ""] | None  # step of JPEG's quantiser, grey levels; 0: none
    shrink: Float[Array, ""] | None  # 1: the picture is enlarged from half its pixels


@functools.lru_cache(maxsize=4)
def read_photos(folder: str) -> UInt8[np.ndarray, "n p p 3"]:
    """Read the pictures of a folder as square textures.

    Args:
        folder: its images, of any size; each is cut to its middle square.

    Returns:
        ``(n, 128, 128, 3)`` uint8 RGB; of more than 256 pictures some, evenly.

    Raises:
        JaxtrackError: no folder, or no picture in it.
    """
    import cv2

    from jaxtrack.io.clips import list_images
    from jaxtrack.io.images import read_image

    photos = []
    found = list_images(folder)
    for path in found[:: max(1, -(-len(found) // MOST_PHOTOS))]:
        image = read_image(path)
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = image[top : top + side, left : left + side]
        size = (PHOTO_SIDE, PHOTO_SIDE)
        photos.append(cv2.resize(square, size, interpolation=cv2.INTER_AREA))
    if not photos:
        raise JaxtrackError(f"{folder}: no pictures to take textures from")
    return np.stack(photos)


def draw_surroundings(
    real: Realism, draws: Draws, scale: Float[Array, ""], middle: Float[Array, ""]
) -> Surroundings:
    """Draw a scene's horizon and photograph.

    Args:
        real: the shares.
        draws: at least 24 numbers.
        scale: a typical object's size, world units.
        middle: world ordinate of the middle of the first view.
    """
    sky = photo = None
    place = middle + scale * draws.uniform(-2.5, 2.5)
    colours = jnp.clip(
        draws.uniform(0.45, 0.95, 2, 1)
        + jnp.asarray([[-0.06, 0.0, 0.1]]) * draws.uniform(0.0, 1.5),
        0.0,
        1.0,
    )
    flag = draws.uniform(0.0, 1.0)
    if real.horizon:
        sky = Sky(jnp.where(flag < real.horizon, place, middle - 1e6), colours)
    flag, index = draws.uniform(0.0, 1.0), draws.uniform(0.0, 1.0)
    size, where = draws.log_uniform(0.02, 0.12), draws.uniform(0.0, float(PHOTO_SIDE), 2)
    if real.photo:
        photos = read_photos(real.textures)
        chosen = (index * len(photos)).astype(jnp.int32)
        picked = jnp.asarray(photos)[chosen].astype(jnp.float32) / 255.0
        cell = jnp.where(flag < real.photo, size * scale, 0.0)
        photo = Photo(jnp.moveaxis(picked, -1, 0), cell, where)
    return Surroundings(sky, photo)


def photo_piece(real: Realism, draws: Draws, size: int) -> Float[Array, "3 t t"]:
    """Cut a piece of a photograph as a texture that repeats without a seam.

    Args:
        real: names the folder of photographs.
        draws: at least 3 numbers.
        size: texels along a side, even; at most 128.

    Returns:
        Colours from 0 to 1: the piece, and its mirror images beside and below it.
    """
    photos = read_photos(real.textures)
    which, corner = draws.uniform(0.0, 1.0), draws.uniform(0.0, 1.0, 2)
    photo = jnp.asarray(photos)[(which * len(photos)).astype(jnp.int32)]
    first = (corner * (PHOTO_SIDE - size)).astype(jnp.int32)
    piece = jax.lax.dynamic_slice(photo, (first[0], first[1], 0), (size, size, 3))
    half = piece.astype(jnp.float32).reshape(size // 2, 2, size // 2, 2, 3).mean((1, 3)) / 255.0
    wide = jnp.concatenate([half, half[:, ::-1]], 1)
    return jnp.moveaxis(jnp.concatenate([wide, wide[::-1]], 0), -1, 0)


def add_surroundings(
    colour: Float[Array, "h 3 w"],
    around: Surroundings,
    xs: Float[Array, " w"],
    ys: Float[Array, " h"],
    step: Float[Array, ""],
) -> Float[Array, "h 3 w"]:
    """Lay a photograph over a background's colours, and the sky above its horizon.

    Args:
        colour: rows, channels, columns; about 0 to 1.
        around: from `draw_surroundings`.
        xs: world abscissae of the columns.
        ys: world ordinates of the rows.
        step: world units per pixel.
    """
    if around.photo is not None:
        cell = jnp.maximum(around.photo.cell, 1e-6)

        def weights(axis: Array, start: Array) -> Array:
            # Mirrored, so that the photograph has no seam; no finer than a pixel of the view.
            turn = jnp.mod(axis / cell + start, 2.0 * PHOTO_SIDE)
            return spline_weights(PHOTO_SIDE - jnp.abs(turn - PHOTO_SIDE), PHOTO_SIDE)

        rows, columns = weights(ys, around.photo.origin[1]), weights(xs, around.photo.origin[0])
        picture = jnp.einsum("yg,cgk,xk->ycx", rows, around.photo.image, columns)
        colour = jnp.where(around.photo.cell > 0, picture, colour)
    if around.sky is not None:
        above = (around.sky.horizon - ys) / step
        high = jnp.clip(above / (0.8 * ys.shape[0]), 0.0, 1.0)[:, None]
        low, top = around.sky.colours
        sky = low[None] * (1.0 - high) + top[None] * high
        cover = jnp.clip(0.5 + above, 0.0, 1.0)[:, None, None]
        colour = colour * (1.0 - cover) + sky[:, :, None] * cover
    return colour


def draw_camera(real: Realism, draws: Draws) -> Camera:
    """Draw what the camera and the light add to a scene; needs at least 40 numbers."""
    shadow = night = quality = shrink = None
    flags = draws.uniform(0.0, 1.0, 4)
    strength, away = draws.uniform(0.25, 0.6), draws.uniform(-0.3, 0.3, 2)
    if real.shadow:
        shadow = jnp.concatenate([jnp.where(flags[0] < real.shadow, strength, 0.0)[None], away])
    left = draws.uniform(0.12, 0.4)
    places = draws.uniform(-3.0, 3.0, LAMPS, 2)
    radius, bright = draws.log_uniform(0.15, 1.5, LAMPS, 1), draws.uniform(0.2, 1.0, LAMPS, 1)
    if real.night:
        dark = flags[1] < real.night
        lamps = jnp.concatenate([places, radius, jnp.where(dark, bright, 0.0)], 1)
        night = Night(jnp.where(dark, left, 1.0), lamps)
    coarse = draws.log_uniform(6.0, 40.0)
    if real.jpeg:
        quality = jnp.where(flags[2] < real.jpeg, coarse, 0.0)
    if real.upscale:
        shrink = (flags[3] < real.upscale).astype(jnp.float32)
    return Camera(shadow, night, quality, shrink)


def cast_shadow(
    picture: Float[Array, "h 3 w"],
    cover: Float[Array, "h w"],
    camera: Camera,
    side: Float[Array, ""],
) -> Float[Array, "h 3 w"]:
    """Darken a picture where an object's shadow falls.

    Args:
        picture: what lies behind the object.
        cover: the object's coverage of each pixel.
        camera: of the scene.
        side: the target's side, pixels of the view.
    """
    if camera.shadow is None:
        return picture
    moved = jnp.round(camera.shadow[1:] * side).astype(jnp.int32)
    fallen = jnp.roll(jnp.roll(cover, moved[1], 0), moved[0], 1)
    return picture * (1.0 - camera.shadow[0] * fallen)[:, None]


def light_up(
    picture: Float[Array, "h 3 w"],
    camera: Camera,
    xs: Float[Array, " w"],
    ys: Float[Array, " h"],
) -> Float[Array, "h 3 w"]:
    """Make night of a picture and light its lamps.

    Args:
        picture: colours, about 0 to 1.
        camera: of the scene.
        xs: abscissae of the columns from the middle of the first view, sides of the target.
        ys: ordinates of the rows, likewise.
    """
    if camera.night is None:
        return picture
    lamps = camera.night.lamps
    narrow = 1.0 / (2.0 * lamps[:, 2:3] ** 2)
    columns = jnp.exp(-((xs[None] - lamps[:, :1]) ** 2) * narrow)
    rows = jnp.exp(-((ys[None] - lamps[:, 1:2]) ** 2) * narrow)
    glow = jnp.einsum("l,ly,lx->yx", lamps[:, 3], rows, columns)
    # a lamp lights what is near it, and is itself seen
    return (
        picture * (camera.night.left + glow)[:, None] + 0.5 * jnp.maximum(glow - 0.3, 0.0)[:, None]
    )


@functools.lru_cache(maxsize=8)
def _halved(size: int) -> np.ndarray:
    """Return the matrix that averages pairs of pixels and enlarges them again, linearly."""
    half = (size + 1) // 2
    down = np.zeros((half, size))
    for row in range(half):
        cells = [2 * row, min(2 * row + 1, size - 1)]
        down[row, cells] += 0.5
    up = np.zeros((size, half))
    for row in range(size):
        at = np.clip((row + 0.5) / 2 - 0.5, 0, half - 1)
        low = int(at)
        up[row, low] += 1 - (at - low)
        up[row, min(low + 1, half - 1)] += at - low
    return (up @ down).astype(np.float32)


def _cosines() -> np.ndarray:
    """Return the orthonormal cosine transform of eight values."""
    k, n = np.mgrid[:8, :8]
    basis = np.cos(np.pi * (2 * n + 1) * k / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    return basis.astype(np.float32)


def compress(picture: Float[Array, "h 3 w"], camera: Camera) -> Float[Array, "h 3 w"]:
    """Lose what a small, strongly compressed picture loses: detail, and the blocks' joints.

    Args:
        picture: colours, about 0 to 1.
        camera: of the scene.
    """
    height, _, width = picture.shape
    if camera.shrink is not None:
        rows, columns = _halved(height), _halved(width)
        small = jnp.einsum("ay,ycx,bx->acb", rows, picture, columns)
        picture = jnp.where(camera.shrink > 0, small, picture)
    if camera.quality is not None:
        padded = jnp.pad(picture, ((0, -height % 8), (0, 0), (0, -width % 8)), mode="edge")
        blocks = padded.reshape(padded.shape[0] // 8, 8, 3, padded.shape[2] // 8, 8)
        cosines = jnp.asarray(_cosines())
        spectrum = jnp.einsum("ka,YacXb,lb->YkcXl", cosines, blocks, cosines)
        # high frequencies are quantised more coarsely, as the standard's tables do
        order = np.add.outer(np.arange(8), np.arange(8)).astype(np.float32)
        pitch = camera.quality / 255.0 * (1.0 + 0.5 * order)[None, :, None, None]
        pitch = jnp.maximum(pitch, 1e-6)
        kept = jnp.round(spectrum / pitch) * pitch
        blocks = jnp.einsum("ka,YkcXl,lb->YacXb", cosines, kept, cosines)
        lossy = blocks.reshape(padded.shape)[:height, :, :width]
        picture = jnp.where(camera.quality > 0, lossy, picture)
    return picture


def thin_aspect(real: Realism, draws: Draws, count: int) -> tuple[Array, Array]:
    """Draw which objects are slim, and their logarithm of width / height.

    Args:
        real: the shares.
        draws: at least ``3 * count`` numbers.
        count: objects.
    """
    slim = draws.flag(real.thin, count)
    shape = jnp.log(draws.log_uniform(0.2, 0.5, count)) * jnp.where(
        draws.uniform(0.0, 1.0, count) < 0.75, 1.0, -1.0
    )
    return slim, shape


def random_turn(real: Realism, draws: Draws) -> Array:
    """Draw a turn of a pair's second view, radians; zero but in a share of the pairs."""
    flag = draws.uniform(0.0, 1.0)
    return jnp.where(flag < real.turn, draws.uniform(-np.pi, np.pi), 0.0)


def calmness(real: Realism, draws: Draws) -> Array:
    """Draw a factor on all change: 1, or a small number in a share of the scenes."""
    flag = draws.uniform(0.0, 1.0)
    return jnp.where(flag < real.calm, draws.uniform(0.15, 0.45), 1.0)


def piece_of(
    picture: UInt8[Array, "h w 3"],
    piece: UInt8[Array, "h w 3"],
    centre: Float[Array, "2"],
    half: Float[Array, "2"],
    wanted: Array,
) -> UInt8[Array, "h w 3"]:
    """Lay a rectangle of another picture over one.

    Args:
        picture: the picture below.
        piece: the other, already in place.
        centre: x, y of the rectangle, pixels.
        half: its half width and height, pixels.
        wanted: whether to.
    """
    ys = jax.lax.broadcasted_iota(jnp.float32, picture.shape[:2], 0) + 0.5
    xs = jax.lax.broadcasted_iota(jnp.float32, picture.shape[:2], 1) + 0.5
    inside = (jnp.abs(xs - centre[0]) <= half[0]) & (jnp.abs(ys - centre[1]) <= half[1]) & wanted
    return jnp.where(inside[..., None], piece, picture)
