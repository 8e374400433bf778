"""What a patch is: how large, how much of the scene, with how much room around it.

This module needs no JAX: the workers that decode and cut frames do without it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from jaxtrack.ranges import Count, NotNegative, Positive, check_ranges


@dataclasses.dataclass(frozen=True)
class PatchSpec:
    """How a patch is cut around a target, with a margin around what the network sees.

    Attributes:
        size: side of the patch with its margin, pixels.
        nominal: side without the margin.
        factor: side of the window of the nominal patch in reference sides. The reference side is
            `context_side` of the target.
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


def context_side(width: Any, height: Any, amount: Any = 0.5) -> Any:
    """Return the side of the square that holds a target and its context: ``sqrt((w + p) (h + p))``.

    Args:
        width: of the target, pixels; a number, or an array of NumPy or JAX (traced or not).
        height: likewise.
        amount: context amount; ``p = amount * (w + h)``.

    Returns:
        Pixels, of the kind that was given.

    Reference:
        SiamFC, section 4.1 ("Dataset curation"); the same in SiamRPN++.
    """
    pad = amount * (width + height)
    area = (width + pad) * (height + pad)
    library = area.__array_namespace__() if hasattr(area, "__array_namespace__") else np
    return library.sqrt(area)
