"""Colours of the target against those around it: a second opinion that is learned in the first frame.

A network compares shapes. Two histograms remember which colours are the target's and which lie around it; the
share of the target in a colour is

    target[colour] / (target[colour] + around[colour]),

1 where only the target has it, 0 where only its surroundings do. The mean share of the pixels in a box says
how much of what lies in it looks like the target, whatever its pose. It is used in two ways:

* `likeness` over all places of a search region is mixed into the response (`ColourCue.weight`). Its
  histograms follow the target in frames that are tracked well.
* `standing`, the mean share in the box that was found less that in the box with its surroundings, in units of
  the first frame's, is a part of the score (`jaxtrack.ops.confidence.Confidence.colour`). Its histograms stay
  those of the first frame. Where a tracker stays on the background that was behind the target, the response
  is as it should be, but the target's colours are gone.

Nothing is trained for either: any weights serve.

Reference:
    The share of a colour: Possegger et al., In Defense of Color-based Model-free Tracking, 2015, section 3.1.
    Its mean over the box, mixed with a response of another kind: Bertinetto et al., Staple: Complementary
    Learners for Real-Time Tracking, 2016, section 3. The part in the score is this library's.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack.ops import precision
from jaxtrack.ops.response import pick
from jaxtrack.ranges import Share, check_ranges

_LEVELS = 16  # of each of red, green and blue
_INNER = 0.8  # of the box's sides: its border is background more often than not
_FAINT = 0.1  # contrast of a first frame below which a change of colours says little


@dataclasses.dataclass(frozen=True)
class ColourCue:
    """How colours help to find the target. The default: not at all.

    Attributes:
        weight: of the likeness of colours in the response.
        rate: share of a frame in the histograms.
        above: least score of a frame that takes part in them, without the colours' own part in it.
    """

    weight: Share = 0.0
    rate: Share = 0.04
    above: float = 0.4

    def __post_init__(self) -> None:
        """Refuse numbers without a meaning, by name."""
        check_ranges(self, "colour.")

    @property
    def on(self) -> bool:
        """Whether colours help at all."""
        return self.weight > 0


UNUSED = ColourCue()
HELPING = ColourCue(weight=0.3)


class Colours(NamedTuple):
    """What is remembered of the target's colours.

    Attributes:
        first: ``(4096,)`` share of the target in each colour, from the first frame.
        contrast: ``()`` see `contrast`, of the first frame.
        now: ``(2, 4096)`` running mean of `histograms`, where colours help to find the target; else ().
    """

    first: Float[Array, " b"]
    contrast: Float[Array, ""]
    now: Float[Array, "2 b"] | tuple[()]


class Place(NamedTuple):
    """A box in a crop.

    Attributes:
        middle: ``(2,)`` row and column, pixels of the crop, 0-based pixel centres.
        size: ``(2,)`` height and width, pixels of the crop.
    """

    middle: Float[Array, "2"]
    size: Float[Array, "2"]


Crop = UInt8[Array, "n n 3"] | Float[Array, "n n 3"]


class Look(Protocol):
    """What a tracker looks at, see `jaxtrack.base.Look`."""

    @property
    def crops(self) -> UInt8[Array, "s n n 3"] | Float[Array, "s n n 3"]:
        """``(s, n, n, 3)`` RGB, 0 to 255; the middle one is at the target's own scale."""


def begin(cue: ColourCue, scored: float, crop: Crop, place: Place) -> Colours | tuple[()]:
    """Return what has to be remembered of the first frame; nothing where colours are not used.

    Args:
        cue: how colours help to find the target.
        scored: their part in the score.
        crop: RGB, 0 to 255, with the target and what lies around it.
        place: of the target.
    """
    if not (cue.on or scored):
        return ()
    seen = histograms(crop, place)
    first = shares(seen)
    return Colours(first, contrast(first, crop, place), seen if cue.on else ())


def followed(
    cue: ColourCue,
    seen: Colours | tuple[()],
    score: Float[Array, ""],
    look: Look,
    place: Place | None,
) -> Colours | tuple[()]:
    """Return what is remembered after a frame.

    Args:
        cue: how colours help to find the target.
        seen: before the frame.
        score: of the frame, without the colours' part.
        look: of the frame.
        place: where the target was found in the middle crop; None where colours are not used.
    """
    now = running(seen)
    if not seen or place is None or now is None:
        return seen
    new = histograms(middle_of(look), place)
    rate = jnp.where(score >= cue.above, jnp.float32(cue.rate), 0)
    return seen._replace(now=now + rate * (new - now))


def running(seen: Colours | tuple[()]) -> Float[Array, "2 b"] | None:
    """Return the histograms that follow the target; None where colours do not help to find it."""
    return None if not seen or isinstance(seen.now, tuple) else seen.now


def middle_of(look: Look) -> Crop:
    """Return the crop at the target's own scale, the middle one of a pyramid."""
    return look.crops[look.crops.shape[0] // 2]


def histograms(crop: Crop, place: Place) -> Float[Array, "2 b"]:
    """Return the shares of the pixels by colour, inside a box and around it; each sums to one.

    Args:
        crop: RGB, 0 to 255.
        place: of the box. Its inner part counts as inside; around is all else of the usual context.
    """
    pixels = np.arange(crop.shape[0], dtype=np.float32)
    distance = jnp.abs(pixels[None, :] - place.middle[:, None])
    sizes = jnp.stack([place.size * _INNER, _wide(place.size), place.size])
    near = distance[None] <= sizes[..., None] / 2
    inner, wide, box = near[:, 0, :, None] & near[:, 1, None, :]
    # Whole numbers: their sum is the same in any order.
    counted = jnp.stack([inner, wide & ~box], axis=-1).astype(jnp.int32)
    counts = jnp.zeros((_LEVELS**3, 2), jnp.int32)
    where = counts.at[_colour(crop)]
    counts = where.add(counted, mode="promise_in_bounds", wrap_negative_indices=False).T
    return (counts / jnp.maximum(jnp.sum(counts, axis=1, keepdims=True), 1)).astype(jnp.float32)


def shares(seen: Float[Array, "2 b"]) -> Float[Array, " b"]:
    """Return the share of the target in each colour; 0 for colours that were not seen."""
    return seen[0] / jnp.maximum(jnp.sum(seen, axis=0), 1e-6)


def likeness(
    seen: Float[Array, "2 b"],
    crop: Crop,
    size: Float[Array, "2"],
    cells: int,
    share: float | Array,
) -> Float[Array, "m m"]:
    """Return how much of a box about each place of a crop has the target's colours, 0 to 1.

    Args:
        seen: the colours now, from `histograms`.
        crop: the search region.
        size: ``(2,)`` height and width of the box, pixels of the crop.
        cells: side of the map of places, which has the middle of the crop.
        share: side of that map over the side of the crop.

    Returns:
        Rows and columns of places; what lies outside the crop is not like the target.
    """
    side = crop.shape[0]
    steps = (np.arange(cells) - (cells - 1) / 2) / cells * side
    places = jnp.asarray(steps, jnp.float32) * share + (side - 1) / 2
    rows, columns = _coverage(side, places[None, :, None], size[:, None, None] / 2)
    covered = _product(_product(rows, _look_up(shares(seen), crop)), columns.T)
    return covered / jnp.maximum(jnp.prod(size), 1)


def mixed(
    cue: ColourCue, response: Float[Array, "*m"], like: Float[Array, "*m"]
) -> Float[Array, "*m"]:
    """Mix the likeness of colours into a response, by the weight of the cue.

    Args:
        cue: how colours help.
        response: 0 to 1.
        like: from `likeness`, at the same places.
    """
    return ((1 - cue.weight) * response + cue.weight * like).astype(response.dtype)


def contrast(table: Float[Array, " b"], crop: Crop, place: Place) -> Float[Array, ""]:
    """Return the mean share of the target in a box, less that in the box with its surroundings.

    Args:
        table: ``(4096,)`` share of the target in each colour.
        crop: RGB, 0 to 255.
        place: of the box; what lies outside the crop does not count.

    Returns:
        Between -1 and 1.
    """
    sides = jnp.stack([place.size, _wide(place.size)], axis=1)  # by axis, then box and surroundings
    rows, columns = _coverage(crop.shape[0], place.middle[:, None, None], sides[..., None] / 2)
    covered = jnp.sum(_product(rows, _look_up(table, crop)) * columns, axis=1)
    areas = jnp.sum(rows, axis=1) * jnp.sum(columns, axis=1)
    return jnp.sum(covered / jnp.maximum(areas, 1) * np.array([1, -1], np.float32))


def standing(seen: Colours | tuple[()], look: Look, place: Place | None) -> Float[Array, ""] | None:
    """Return how the contrast of the place where the target was found compares with the first frame's.

    Args:
        seen: before the frame.
        look: of the frame.
        place: where the target was found in the middle crop; None where colours are not used.

    Returns:
        Their ratio, at most 1 and at least 0. Where the first frame had next to no contrast (a grey target
        before grey), colours say little, and it is near 1. None where colours are not used.
    """
    if not seen or place is None:
        return None
    missing = seen.contrast - contrast(seen.first, middle_of(look), place)
    return lax.clamp(
        jnp.float32(0), 1 - missing / jnp.maximum(seen.contrast, _FAINT), jnp.float32(1)
    )


@jax.jit
def _colour(crop: Crop) -> Int[Array, "n n"]:
    """Return the colour of each pixel as one number."""
    # What is not a number becomes 0: indices must stay in range.
    whole = crop if crop.dtype == jnp.uint8 else jnp.minimum(jnp.where(crop > 0, crop, 0), 255)
    level = whole.astype(jnp.int32) >> (8 - (_LEVELS - 1).bit_length())
    return jnp.sum(level * np.array([[[_LEVELS**2, _LEVELS, 1]]], np.int32), axis=-1)


def _look_up(table: Float[Array, " b"], crop: Crop) -> Float[Array, "n n"]:
    """Return what a table says of the colour of each pixel."""
    return pick(table, _colour(crop))


def _coverage(side: int, middle: Float[Array, "*m"], half: Float[Array, "*m"]) -> Array:
    """Return the part of each of ``side`` pixels of a line that lies within ``half`` of ``middle``.

    The last axis, 1 in both, becomes the pixels.
    """
    pixels = np.arange(side, dtype=np.float32).reshape((1,) * (middle.ndim - 1) + (side,))
    distance = jnp.abs(pixels - middle)
    within = (half + 0.5 - distance).astype(jnp.float32)
    return lax.clamp(jnp.float32(0), within, jnp.float32(1))


def _product(one: Float[Array, "a b"], other: Float[Array, "b c"]) -> Float[Array, "a c"]:
    return jnp.matmul(one, other, precision=precision.of(one.dtype))


def _wide(size: Float[Array, "2"]) -> Float[Array, "2"]:
    """Return the size of a box with its surroundings, the trackers' usual context of .5."""
    return size + jnp.sum(size) / 2
