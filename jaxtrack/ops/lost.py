"""What a tracker does while its score stays low: hold the target's size, and look further afield.

A frame whose score is below a threshold is a miss. After some misses in a row the target counts as lost: with
every further one the search region grows by a factor, up to a limit, until a score above a second threshold
ends the search. The crop keeps its pixels, so that a wider region shows the target smaller.

Reference:
    The long-term preset of SiamRPN++ (STVIR/pysot, ``SiamRPNLTTracker``) has two thresholds, holds the target
    and looks at a larger crop; growing by steps: Zhu et al., Distractor-aware Siamese Networks for Visual
    Object Tracking, 2018, section 3.4 ("local-to-global search region").
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrack.errors import JaxtrackError


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
    """

    below: float = 0.0
    above: float = 0.0
    stay: bool = False
    patience: int = 3
    step: float = 1.0
    widest: float = 2.0

    def __post_init__(self) -> None:
        """Refuse numbers that contradict each other, by name."""
        if self.below and self.above < self.below:
            raise JaxtrackError(
                f"lost.above is {self.above:g}, below lost.below = {self.below:g}: a search would never end"
            )
        if self.patience < 0:
            raise JaxtrackError(f"lost.patience is {self.patience}; at least 0")
        if self.step < 1 or self.widest < 1:
            raise JaxtrackError(
                f"lost.step is {self.step:g} and lost.widest {self.widest:g}; both are at least 1"
            )

    @property
    def on(self) -> bool:
        """Whether a frame can be a miss."""
        return self.below > 0


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
