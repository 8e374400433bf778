"""What a benchmark says about one sequence, and reading it without opening an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtrack.data.record import VideoRecord


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
    """Ground truth of one sequence.

    Attributes:
        boxes: float64 (n, 4), (x, y, w, h) in pixels, in the benchmark's own coordinates (OTB and
            LaSOT count from 1). NaN rows: no box.
        absent: bool (n,), the target is not in view, or None where the benchmark has no such flag.
        attributes: names of the sequence's attributes.
        polygons: float64 (n, 8) corner points (VOT), rows with NaN after the fourth number are
            rectangles; or None.
        tags: per-frame attributes (VOT), name -> bool (n,).
        size: (width, height) of the image in pixels, or None.
        cover: int (n,), visible eighths 0..8 (GOT-10k), or None.
        withheld: the benchmark publishes the first box alone, as of the test sets of GOT-10k and TrackingNet.
        skipped: frames of the video before the first row, of a user's own video whose target enters late.
    """

    boxes: np.ndarray
    absent: np.ndarray | None = None
    attributes: tuple[str, ...] = ()
    polygons: np.ndarray | None = None
    tags: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    size: tuple[int, int] | None = None
    cover: np.ndarray | None = None
    withheld: bool = False
    skipped: int = 0

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.boxes)

    def rows_of(self, results: np.ndarray) -> np.ndarray:
        """Return the rows of a result that are of these frames, be there one for each of the whole video."""
        whole = self.skipped > 0 and len(results) == self.skipped + len(self)
        return results[self.skipped :] if whole else results

    @property
    def scorable(self) -> bool:
        """Whether a box is known of a frame after the first, whose box is given."""
        return bool(np.isfinite(self.boxes[1:, :4]).all(axis=1).any())


def from_record(record: VideoRecord, size: tuple[int, int] | None = None) -> Annotation:
    """Turn a data record into an annotation in the benchmark's own coordinates.

    Args:
        record: a record of `jaxtrack.data` (0-based boxes).
        size: (width, height) in pixels, where the benchmark's metric needs it (GOT-10k, VOT).

    Returns:
        The annotation; what was subtracted from x and y on reading is added again.
    """
    boxes = np.array(record.boxes, np.float64)
    boxes[:, :2] += record.origin
    visibility = record.visibility
    return Annotation(
        boxes=boxes,
        absent=np.asarray(record.absent, bool),
        attributes=tuple(record.attributes),
        polygons=record.polygons,
        tags=dict(record.tags),
        size=size,
        cover=None if visibility is None else np.rint(np.asarray(visibility) * 8).astype(int),
        withheld=record.withheld,
    )
