"""Context patches: the window around a target, cut out of a stored frame (numpy and OpenCV)."""

from __future__ import annotations

import numpy as np

from jaxtrack.data import frames as frame_io
from jaxtrack.data.source import FrameSource
from jaxtrack.ops.patch import PatchSpec, context_side


def window_of(box: np.ndarray, patch: PatchSpec) -> tuple[tuple[float, float], float]:
    """Lay the window of a patch around a box.

    Args:
        box: ``(4,)`` (x, y, w, h), pixels.
        patch: how.

    Returns:
        ((x, y) of the centre, side), pixels.
    """
    x, y, w, h = (float(v) for v in box)
    return (x + w / 2, y + h / 2), patch.scale * float(context_side(w, h, patch.context))


class PatchCutter:
    """Cut the patches of one sample; a record that two patches share is read once."""

    def __init__(self, reduced_decode: bool = True) -> None:
        """Set up for one sample.

        Args:
            reduced_decode: decode JPEGs at a half, quarter or eighth where the patch is that much
                coarser than the frame: faster, and less aliased than sampling every other pixel.
        """
        self._reduced_decode = reduced_decode
        self._images: dict[tuple[int, int, int], np.ndarray] = {}
        self._data: dict[tuple[int, int], bytes] = {}
        self.used: list[tuple[int, int]] = []  # (dataset, row)
        self.record = (-1, -1)  # (dataset, record) of the patch at hand

    def cut(
        self, source: FrameSource, number: int, row: int, patch: PatchSpec
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cut one patch.

        Args:
            source: a built dataset.
            number: its number in the mixture.
            row: the row of the target and frame.
            patch: how.

        Returns:
            ``(size, size, 3)`` uint8 RGB and the target's box ``(4,)`` float32 (x, y, w, h) in it.

        Raises:
            FrameError: the record does not decode.
        """
        record = int(source.rows_record[row])
        self.record = (number, record)
        box = np.asarray(source.rows_box[row], dtype=np.float64)
        height, width = (int(v) for v in source.sizes[record])
        centre, side = window_of(box, patch)
        low = (centre[0] - side / 2, centre[1] - side / 2)
        if not (side >= 1 and -side < low[0] < width and -side < low[1] < height):
            raise frame_io.FrameError(f"row {row}: no window overlaps the frame")
        self.used.append((number, row))
        reduce = 1
        while self._reduced_decode and reduce < 8 and side / patch.size >= 2 * reduce:
            reduce *= 2
        image = self._image(source, number, row, reduce)
        inside = min(low) >= 0 and low[0] + side <= width and low[1] + side <= height
        pad = (0.0, 0.0, 0.0) if inside or patch.pad == "black" else frame_io.mean_colour(image)
        pixels = frame_io.cut_patch(
            image, (centre[0] / reduce, centre[1] / reduce), side / reduce, patch.size, pad
        )
        moved = np.array([box[0] - low[0], box[1] - low[1], box[2], box[3]]) * (patch.size / side)
        return pixels, moved.astype(np.float32)

    def _image(self, source: FrameSource, number: int, row: int, reduce: int) -> np.ndarray:
        record = int(source.rows_record[row])
        key = (number, record, reduce)
        if key not in self._images:
            if (number, record) not in self._data:
                self._data[number, record] = source.image(record)
            data = self._data[number, record]
            self._images[key] = frame_io.decode(data, source.describe_row(row), reduce)
        return self._images[key]
