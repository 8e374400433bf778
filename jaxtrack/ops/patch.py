"""What a patch is: how large, how much of the scene, with how much room around it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxtrack.errors import JaxtrackError


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

    size: int
    nominal: int
    factor: float
    context: float = 0.5
    pad: Literal["mean", "black"] = "mean"

    def __post_init__(self) -> None:
        """Refuse sizes that make no patch."""
        if min(self.size, self.nominal) < 1 or not self.factor > 0 or not self.context >= 0:
            raise JaxtrackError(f"impossible patch: {self}")

    @property
    def scale(self) -> float:
        """Side of the whole patch's window in reference sides."""
        return self.factor * self.size / self.nominal
