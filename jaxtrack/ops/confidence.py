"""Scores that fall when the target is lost: how far the highest peak stands out, averaged over frames.

A network's own probability at the peak says how well the place looks like the target, and not that no other
place does: on real video it stays high after a loss. The margin asks for the second. It is the height of the
peak above the highest response elsewhere, in units of its height above the mean of all responses elsewhere,

    (peak - highest elsewhere) / (peak - mean elsewhere),

where elsewhere begins at a distance that no other view of the same target reaches. It is 1 over a flat
surrounding, 0 beside a peak as high, and does not change with gain and offset of the response. Losses last,
so that a running mean over some frames tells them apart better than one frame does.

A tracker that stays on the background where the target was has the response of a tracked one. The colours in
its box have changed, though: `jaxtrack.ops.colour.standing` can be a part of the score.

Reference:
    The peak against its surroundings as a sign of failure: the peak-to-sidelobe ratio of Bolme et al., Visual
    Object Tracking using Adaptive Correlation Filters, 2010, section 3.5, in which the standard deviation
    stands where the highest response elsewhere stands here.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.ops.response import row_and_column
from jaxtrack.ranges import NotNegative, PositiveShare, Share, check_ranges


@dataclasses.dataclass(frozen=True)
class Confidence:
    """What the score of a prediction is.

    Attributes:
        rule: ``response``: the tracker's own, as published; ``margin``: the running mean of `margin`.
        radius: where elsewhere begins, rows or columns from the peak; a share of the template's side.
        rate: share of a frame's margin in the running mean, which starts at 1.
        colour: share of the colours' standing in the score.
    """

    rule: Literal["response", "margin"] = "response"
    radius: NotNegative = 1 / 3
    rate: PositiveShare = 0.1
    colour: Share = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers without a meaning, by name."""
        check_ranges(self, "confidence.")


RESPONSE = Confidence()
MARGIN = Confidence("margin")
COLOURED = Confidence("margin", colour=0.3)


def margin(
    response: Float[Array, "h w"], radius: float | Float[Array, ""], inside: Array | None = None
) -> Float[Array, ""]:
    """Return how far the highest peak of a response stands out, 0 to 1.

    Args:
        response: any range; only differences count.
        radius: cells; what lies further from the peak in rows or in columns is elsewhere.
        inside: ``(h, w)`` bool, cells that belong to the response; None: all.

    Returns:
        See the top of this page; 0 for a flat response, and where nothing is elsewhere.
    """
    rows, columns = (jnp.arange(side) for side in response.shape)
    there = jnp.ones(response.shape, bool) if inside is None else inside
    values = jnp.where(there, response, -jnp.inf)
    place = jnp.argmax(values)
    peak = values.reshape(-1)[place]
    row, column = row_and_column(place, response.shape[1])
    down = jnp.abs(rows - row)[:, None]
    across = jnp.abs(columns - column)[None, :]
    elsewhere = there & (jnp.maximum(down, across) > radius)
    count = jnp.sum(elsewhere)
    second = jnp.max(jnp.where(elsewhere, response, -jnp.inf))
    mean = jnp.sum(jnp.where(elsewhere, response, 0)) / jnp.maximum(count, 1)
    height = peak - mean
    known = (count > 0) & (height > 0)
    share = (peak - second) / jnp.where(known, height, 1)
    return jnp.where(known, jnp.clip(share, 0, 1), 0).astype(jnp.float32)


def score(
    rule: Confidence,
    before: Float[Array, ""],
    own: Float[Array, ""],
    response: Float[Array, "h w"],
    template: float | Float[Array, ""],
    inside: Array | None = None,
    standing: Float[Array, ""] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the score of a frame, and what the next frame has to know.

    Args:
        rule: what the score is.
        before: the running mean so far, 1 at the first frame.
        own: the tracker's own score.
        response: in which the target was found, without a window.
        template: side of the template in cells of the response.
        inside: see `margin`.
        standing: of the colours, see `jaxtrack.ops.colour.standing`; None: they take no part.

    Returns:
        The score, and the same without the colours' part, which the next frame's `before` is.
    """
    value = own
    if rule.rule == "margin":
        now = margin(response, rule.radius * template, inside)
        value = (before + (now - before) * rule.rate).astype(before.dtype)
    plain = value.astype(before.dtype)
    if standing is not None and rule.colour:
        value = (value + rule.colour * (standing - value)).astype(value.dtype)
    return value, plain
