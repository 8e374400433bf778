"""What a tracker does while its score stays low: hold the target's size, and look further afield.

A frame whose score is below a threshold is a miss. After some misses in a row the target counts as lost: with
every further one the search region grows by a factor, up to a limit, until a score above a second threshold
ends the search. The crop keeps its pixels, so that a wider region shows the target smaller, which trackers
that know only the scales about the target's own do not find. Those with a pyramid of scales can look aside
instead: in place of other scales their crops then show other places.

Reference:
    The long-term preset of SiamRPN++ (STVIR/pysot, ``SiamRPNLTTracker``) has two thresholds, holds the target
    and looks at a larger crop; growing by steps: Zhu et al., Distractor-aware Siamese Networks for Visual
    Object Tracking, 2018, section 3.4 ("local-to-global search region").
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtrack.errors import JaxtrackError
from jaxtrack.ranges import AtLeastOne, NotNegative, PositiveShare, Whole, check_ranges


@dataclasses.dataclass(frozen=True)
class LostRule:
    """When a target counts as lost, and what is done then. The default: never.

    Attributes:
        below: a frame with a lower score is a miss; 0: no frame is one.
        above: score that ends a search; at least ``below``.
        stay: a miss leaves the target in its place, too; otherwise only its size is held.
        patience: misses in a row after which the search region grows.
        step: factor by which its side grows at each further miss; 1: it does not.
        widest: limit of that growth.
        aside: after ``patience`` misses, trackers with a pyramid of scales look to both sides at their scale
            in place of at other scales: at regions moved by this share of their side, along another line at
            each miss; 0: they do not.
        doubt: factor on the height of a peak that is found aside, against the one in the middle.
    """

    below: float = 0.0
    above: float = 0.0
    stay: bool = False
    patience: Whole = 3
    step: AtLeastOne = 1.0
    widest: AtLeastOne = 2.0
    aside: NotNegative = 0.0
    doubt: PositiveShare = 0.9

    def __post_init__(self) -> None:
        """Refuse numbers that contradict each other, by name."""
        check_ranges(self, "lost.")
        if self.below and self.above < self.below:
            raise JaxtrackError(
                f"lost.above is {self.above:g}, below lost.below = {self.below:g}: a search would never end"
            )

    @property
    def on(self) -> bool:
        """Whether a frame can be a miss."""
        return self.below > 0

    @property
    def looks_aside(self) -> bool:
        """Whether a pyramid's crops ever show other places."""
        return self.on and self.aside > 0


def refuse_aside(rule: LostRule, crops: int) -> None:
    """Refuse a rule that looks aside in a tracker that has no crops to spare for it.

    Args:
        rule: the tracker's.
        crops: that it searches in a frame.

    Raises:
        JaxtrackError: fewer than three.
    """
    if rule.aside and crops < 3:
        raise JaxtrackError(
            f"lost.aside is {rule.aside:g}, but this tracker searches {crops} crop a frame: looking aside"
            " takes a pyramid of three scales or more (siamfc, mlt); 0 is wanted"
        )


NEVER = LostRule()


def count(rule: LostRule, misses: Int[Array, ""], score: Float[Array, ""]) -> Int[Array, ""]:
    """Return the misses in a row after a frame.

    Args:
        rule: when a frame is a miss.
        misses: in a row before it.
        score: of the frame.
    """
    if not rule.on:
        return misses
    missed = (score < rule.below) | ((misses > 0) & (score < rule.above))
    return jnp.where(missed, misses + 1, 0)


def held(
    rule: LostRule,
    misses: Int[Array, ""],
    old: Float[Array, "*n"] | float,
    new: Float[Array, "*n"],
) -> Float[Array, "*n"]:
    """Return what a frame leaves of a target's value: the old one after a miss.

    Args:
        rule: when a frame is a miss.
        misses: in a row after the frame, from `count`.
        old: size, or place, before the frame.
        new: what the frame says.
    """
    return jnp.where(misses > 0, old, new) if rule.on else new


def widened(rule: LostRule, misses: Int[Array, ""], side: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the side of the search region in the next frame, or any other length that grows with it.

    Args:
        rule: how it grows.
        misses: in a row so far.
        side: the length as long as the target is not lost.
    """
    if not rule.on or rule.step == 1:
        return side
    beyond = jnp.maximum(misses - rule.patience, 0)
    factor = jnp.minimum(jnp.float32(rule.step) ** beyond, rule.widest)
    return (side * factor).astype(side.dtype)


# Lines along which is looked aside: rows, columns.
_LINES = ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, -1.0))


class Views(NamedTuple):
    """What the crops of a pyramid show.

    Attributes:
        factors: ``(s,)`` of each crop's side.
        aside: ``(s, 2)`` how far each lies from the target's place, rows and columns as shares of its side;
            None: they all lie there.
        keep: ``(s,)`` factor on each peak's height.
    """

    factors: Float[Array, "s"]
    aside: Float[Array, "s 2"] | None
    keep: Float[Array, "s"]


def views(
    rule: LostRule, misses: Int[Array, ""], factors: Float[Array, "s"], penalty: float
) -> Views:
    """Return what the crops of a pyramid show in the next frame: other scales, or other places.

    Args:
        rule: when they look aside.
        misses: in a row so far.
        factors: the scales, the target's own in the middle.
        penalty: factor on the peaks of other scales.
    """
    place = np.arange(len(factors)) - len(factors) // 2
    keep = jnp.where(place == 0, 1, jnp.asarray(penalty, jnp.float32))
    if not rule.looks_aside:
        return Views(factors, None, keep)
    lost = misses > rule.patience
    line = jnp.asarray(_LINES, factors.dtype)[misses % len(_LINES)]
    away = jnp.where(lost, rule.aside * place[:, None] * line[None], 0).astype(factors.dtype)
    keep = jnp.where(lost & (place != 0), rule.doubt, keep)
    return Views(jnp.where(lost, 1, factors), away, keep)


def middles(
    seen: Views, centre: Float[Array, "2"], sides: Float[Array, "s"]
) -> Float[Array, "2"] | Float[Array, "s 2"]:
    """Return the middle of all crops of a pyramid, or where they look aside that of each, rows and columns.

    Args:
        seen: what the crops show.
        centre: the target's place.
        sides: of the crops.
    """
    return centre if seen.aside is None else centre[None] + seen.aside * sides[:, None]


def moved(
    seen: Views, chosen: Int[Array, ""], side: Float[Array, ""], shift: Float[Array, "2"]
) -> Float[Array, "2"]:
    """Return how far a place in a crop lies from the target's, rows and columns.

    Args:
        seen: what the crops show.
        chosen: index of the crop.
        side: of that crop.
        shift: how far the place lies from the crop's middle.
    """
    return shift if seen.aside is None else shift + seen.aside[chosen] * side
