"""Templates that follow the target's appearance: a running mean of what was tracked, beside the first look.

A target that turns, bends or is lit anew no longer looks like its first frame, and a place that does is then
the wrong one. With an update the tracker compares with

    (1 - share) first + share mean,        mean <- mean + rate (now - mean) in frames that are tracked well,

where ``first`` is the template of the first frame, which was given and not guessed, and ``now`` is made in
the same way at the place that was found. What is averaged are features, which are compared linearly. A frame
counts as tracked well if its score reaches a threshold: a lost target must not teach its surroundings.
Nothing is learned for it: any weights serve.

Reference:
    The running mean: Zhang et al., Learning the Model Update for Siamese Trackers, 2019, equation 1 (the
    standard linear update). The first template beside it is this library's choice against drift.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.ranges import Share, check_ranges

Template = Any  # an array of features, or a tree of them


@dataclasses.dataclass(frozen=True)
class TemplateUpdate:
    """How a template follows the target. The default: it stays as it was in the first frame.

    Attributes:
        rate: share of a frame in the running mean; 0: no update.
        above: least score of a frame that takes part, without the colours' part in it.
        share: of the running mean in the template, against the first frame's.
    """

    rate: Share = 0.0
    above: float = 0.4
    share: Share = 0.3

    def __post_init__(self) -> None:
        """Refuse numbers without a meaning, by name."""
        check_ranges(self, "template_update.")

    @property
    def on(self) -> bool:
        """Whether a template ever changes."""
        return self.rate > 0


FIXED = TemplateUpdate()
FOLLOWING = TemplateUpdate(rate=0.1)


class Appearance(NamedTuple):
    """What the target looked like, as templates.

    Attributes:
        first: of the first frame.
        mean: running mean over the frames since.
    """

    first: Template
    mean: Template


def begin(rule: TemplateUpdate, template: Template) -> Appearance | tuple[()]:
    """Return what has to be remembered of the first frame's template; nothing where it stays."""
    return Appearance(template, template) if rule.on else ()


def followed(
    rule: TemplateUpdate, seen: Appearance, score: Float[Array, ""], now: Template
) -> tuple[Appearance, Template]:
    """Return what is remembered after a frame, and the template of the next one.

    Args:
        rule: how the template follows the target.
        seen: before the frame.
        score: of the frame, without the colours' part.
        now: the template that would be made at the place that was found in it.
    """
    rate = jnp.where(score >= rule.above, rule.rate, 0)
    mean = jax.tree.map(lambda old, new: _towards(old, new, rate), seen.mean, now)
    template = jax.tree.map(lambda a, b: _towards(a, b, rule.share), seen.first, mean)
    return Appearance(seen.first, mean), template


def _towards(old: Array, new: Array, share: float | Array) -> Array:
    return (old + share * (new - old)).astype(old.dtype)
