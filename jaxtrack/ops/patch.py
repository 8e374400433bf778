"""What a patch is: how large, how much of the scene, with how much room around it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxtrack.ranges import Count, NotNegative, Positive, check_ranges


@dataclasses.dataclass(frozen=True)
class PatchSpec:
    """How a patch is cut around a target, with a margin around what the network sees.

    Attributes:
        size: side of the patch with its margin, pixels.
        nominal: side without the margin.
        factor: side of the window of the nominal patch in reference sides. The reference side is
            sqrt((w + c)(h + c)), c = context * (w + h).
        context: 0.5 for the Siamese trackers, 0 for OSTrack.
        pad: colour outside the frame: its mean, or black.
    """

    size: Count
    nominal: Count
    factor: Positive
    context: NotNegative = 0.5
    pad: Literal["mean", "black"] = "mean"

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)

    @property
    def scale(self) -> float:
        """Side of the whole patch's window in reference sides."""
        return self.factor * self.size / self.nominal
