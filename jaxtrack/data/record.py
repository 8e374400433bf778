"""One annotated target in one video, as every layout reader returns it (numpy only)."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class VideoRecord:
    """One target of one video: its frames, one box per frame, and what the dataset says about them.

    A video with two targets gives two records that share `video` and the frame references.

    Attributes:
        name: unique name of the target within the dataset, e.g. `Jogging-1`.
        frames: one reference per frame: a path, `ARCHIVE.zip::MEMBER`, or `CLIP.mp4::INDEX`
            (`jaxtrack.data.frames.read_bytes` understands all three).
        boxes: `(n, 4)` float64, (x, y, w, h), 0-based top-left corner, pixels. NaN where the
            dataset gives no box (absent targets of UAV123, every frame but the first of a test set
            whose annotation is withheld).
        absent: `(n,)` bool: the dataset's own flag (fully occluded, out of view), whatever the box.
        video: name of the video, shared by its targets.
        visibility: `(n,)` float32 share of the target that is visible, 0 to 1, or None if unknown.
        polygons: `(n, 8)` float64 corner points x1, y1 .. x4, y4 as annotated, or None.
        attributes: names of the sequence's attributes (e.g. `Occlusion`).
        tags: per-frame attributes, name -> `(n,)` bool.
        object_class: class of the target, or "".
        origin: what was subtracted from the annotated x and y (1 for datasets that count pixels from
            1, else 0): result files in the dataset's own convention add it again.
    """

    name: str
    frames: tuple[str, ...]
    boxes: np.ndarray
    absent: np.ndarray
    video: str = ""
    visibility: np.ndarray | None = None
    polygons: np.ndarray | None = None
    attributes: tuple[str, ...] = ()
    tags: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    object_class: str = ""
    origin: int = 0

    def __len__(self) -> int:
        """Returns the number of frames."""
        return len(self.frames)

    @property
    def usable(self) -> np.ndarray:
        """`(n,)` bool: the frames to train on: a finite box of positive size, not flagged absent."""
        return usable_boxes(self.boxes) & ~self.absent


def usable_boxes(boxes: np.ndarray) -> np.ndarray:
    """Says which boxes are finite and of positive size.

    Args:
        boxes: `(n, 4)` (x, y, w, h), pixels.

    Returns:
        `(n,)` bool.
    """
    boxes = np.asarray(boxes)
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes).all(axis=-1) & (boxes[..., 2] > 0) & (boxes[..., 3] > 0)
