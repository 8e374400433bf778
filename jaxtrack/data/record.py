"""One annotated target in one video, as every layout reader returns it (numpy only)."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

# A box this many times as large as its frame, or as far outside of it, is a mistake of the annotation.
_LARGEST, _FARTHEST = 10.0, 1.0
# More than this share of boxes reaching out of the frame means that the columns are something else.
_SUSPICIOUS = 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class VideoRecord:
    """One target of one video: its frames, one box per frame, and what the dataset says about them.

    A video with two targets gives two records that share ``video`` and the frame references.

    Attributes:
        name: unique name of the target within the dataset, e.g. ``Jogging-1``.
        frames: one reference per frame: a path, ``ARCHIVE.zip::MEMBER``, or ``CLIP.mp4::INDEX``
            (``jaxtrack.data.frames.read_bytes`` understands all three). Empty where only the annotation was
            read (``jaxtrack.data.layouts.read_truth``).
        boxes: ``(n, 4)`` float64, (x, y, w, h), 0-based top-left corner, pixels. NaN where the
            dataset gives no box (absent targets of UAV123, every frame but the first of a test set
            whose annotation is withheld, the frames between those of a sparse annotation).
        absent: ``(n,)`` bool: the dataset's own flag (fully occluded, out of view), whatever the box.
        video: name of the video, shared by its targets.
        visibility: ``(n,)`` float32 share of the target that is visible, 0 to 1, or None if unknown.
        polygons: ``(n, 8)`` float64 corner points x1, y1 .. x4, y4 as annotated, or None.
        attributes: names of the sequence's attributes (e.g. ``Occlusion``).
        tags: per-frame attributes, name -> ``(n,)`` bool.
        object_class: class of the target, or "".
        origin: what was subtracted from the annotated x and y (1 for datasets that count pixels from
            1, else 0): result files in the dataset's own convention add it again.
        withheld: whether the dataset publishes the first box only, so that no score can be computed here.
        sparse: whether only some frames are annotated; the others have NaN boxes and no flag.
        size: (height, width) of the images that the boxes refer to, where the annotation says it.
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
    withheld: bool = False
    sparse: bool = False
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.boxes)

    @property
    def usable(self) -> np.ndarray:
        """``(n,)`` bool: the frames to train on: a finite box of positive size, not flagged absent."""
        return usable_boxes(self.boxes) & ~self.absent

    @property
    def annotated(self) -> np.ndarray:
        """``(n,)`` bool: the frames that the annotation says something about."""
        return np.isfinite(self.boxes).all(axis=1) | self.absent | (not self.sparse)


def usable_boxes(boxes: np.ndarray) -> np.ndarray:
    """Say which boxes are finite and of positive size.

    Args:
        boxes: ``(n, 4)`` (x, y, w, h), pixels.

    Returns:
        ``(n,)`` bool.
    """
    boxes = np.asarray(boxes)
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes).all(axis=-1) & (boxes[..., 2] > 0) & (boxes[..., 3] > 0)


def implausible_boxes(boxes: np.ndarray, sizes: ArrayLike) -> np.ndarray:
    """Say which boxes cannot belong to their frames.

    Targets may leave the view and boxes may reach out of it; none lies a whole frame away from it or is ten
    times as large.

    Args:
        boxes: ``(n, 4)`` (x, y, w, h), pixels, finite.
        sizes: ``(n, 2)`` or ``(2,)`` (height, width) of the frames.

    Returns:
        ``(n,)`` bool.
    """
    boxes, limits = np.asarray(boxes, np.float64), np.asarray(sizes)[..., ::-1]
    side = limits.max(axis=-1)
    outside = np.maximum(-(boxes[..., :2] + boxes[..., 2:]), boxes[..., :2] - limits).max(axis=-1)
    return (outside > _FARTHEST * side) | (boxes[..., 2:].max(axis=-1) > _LARGEST * side)


def reaching_out(boxes: np.ndarray, sizes: ArrayLike) -> np.ndarray:
    """Say which boxes reach out of their frames by more than a pixel.

    Args:
        boxes: ``(n, 4)`` (x, y, w, h), pixels, 0-based.
        sizes: ``(n, 2)`` or ``(2,)`` (height, width) of the frames.

    Returns:
        ``(n,)`` bool.
    """
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return ((low < -1) | (high > np.asarray(sizes)[..., ::-1] + 1)).any(axis=1)


def doubts(beyond: int, boxes: int) -> list[str]:
    """Say what it suggests that many boxes reach out of their frames; nothing where few do.

    Args:
        beyond: how many do (`reaching_out`).
        boxes: how many there are.
    """
    if beyond <= _SUSPICIOUS * boxes:
        return []
    return [
        f"{beyond} of {boxes} boxes reach out of their frames: are the columns x,y,w,h (corner and size, "
        "pixels), or x1,y1,x2,y2?"
    ]


def numbers(box: np.ndarray) -> str:
    """Write a box for a message.

    Args:
        box: ``(4,)`` (x, y, w, h).
    """
    return ", ".join(f"{v:.6g}" for v in box)
