"""Boxes drawn into frames, and frames written as a video."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from types import TracebackType

import cv2
import numpy as np
from jaxtyping import Real, UInt8

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.images import quiet_opencv

# Codecs per container, the first that this OpenCV can encode is taken. H.264 (avc1) is absent from the
# usual builds for licence reasons, so MPEG-4 comes first.
CODECS: dict[str, tuple[str, ...]] = {
    ".mp4": ("mp4v", "avc1"),
    ".mov": ("mp4v", "avc1"),
    ".mkv": ("mp4v", "XVID"),
    ".avi": ("MJPG", "XVID"),
}
# One colour per target, RGB, told apart on light and dark pictures.
COLOURS = (
    (255, 64, 64), (64, 200, 255), (255, 208, 48), (96, 224, 96),
    (224, 96, 255), (255, 144, 48), (64, 255, 208), (255, 128, 192),
)  # fmt: skip


def draw_boxes(
    frame: UInt8[np.ndarray, "h w 3"],
    boxes: Real[np.ndarray, "n 4"],
    labels: Sequence[str] | None = None,
    colours: Sequence[tuple[int, int, int]] = COLOURS,
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of a frame with boxes drawn into it.

    Args:
        frame: ``(h, w, 3)`` uint8 RGB.
        boxes: ``(n, 4)`` ``x, y, w, h`` in pixels, 0-based corner; rows that are not finite are left out.
        labels: a text for each box, drawn above it.
        colours: RGB of the boxes, used in turn.
    """
    frame = np.array(frame)
    height, width = frame.shape[:2]
    thick = max(1, round(min(height, width) / 240))
    for i, box in enumerate(np.asarray(boxes, float).reshape(-1, 4)):
        if not np.isfinite(box).all():
            continue
        # Far outside is as good as just outside, and fits OpenCV's integers.
        reach = 4 * max(height, width)
        x, y, w, h = np.clip(box, -reach, reach)
        corner, opposite = (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1)
        colour = colours[i % len(colours)]
        cv2.rectangle(frame, corner, opposite, (0, 0, 0), thick + 2)
        cv2.rectangle(frame, corner, opposite, colour, thick)
        if labels is not None:
            place = (corner[0], max(corner[1] - 4 * thick, 10 * thick))
            scale = 0.35 * max(1, thick)
            for ink, extra in (((0, 0, 0), 2), (colour, 0)):
                cv2.putText(
                    frame, labels[i], place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick + extra,
                    cv2.LINE_AA,
                )  # fmt: skip
    return frame


class VideoWriter:
    """Writes frames into a video file; the file appears under its name when it is closed.

    Attributes:
        path: the file.
        codec: the codec that was taken.
        count: frames written so far.
    """

    def __init__(
        self, path: str | os.PathLike[str], size: tuple[int, int], fps: float | None = None
    ) -> None:
        """Open the file.

        Args:
            path: ``.mp4``, ``.mov``, ``.mkv`` or ``.avi``.
            size: ``(height, width)`` of the frames; codecs want even sides, so an odd last row or
                column is left out.
            fps: frames per second; None: 25.

        Raises:
            JaxtrackError: unknown suffix, folder that cannot be written, or no codec.
        """
        self.path = pathlib.Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in CODECS:
            raise JaxtrackError(
                f"{self.path}: unknown video format; known suffixes: {', '.join(CODECS)}"
            )
        self.size = (size[0] // 2 * 2, size[1] // 2 * 2)
        self.count = 0
        self._frame_size = tuple(size)
        self._part = self.path.with_name(f".{self.path.stem}.part{suffix}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part.write_bytes(b"")  # tells a folder without permission from a missing codec
        except OSError as error:
            raise JaxtrackError(
                f"{self.path}: cannot be written ({error.strerror or error})"
            ) from error
        self.codec, self._writer = self._open(CODECS[suffix], fps or 25.0)

    def _open(self, codecs: Sequence[str], fps: float) -> tuple[str, cv2.VideoWriter]:
        for codec in codecs:
            with quiet_opencv():
                code = cv2.VideoWriter.fourcc(*codec)
                writer = cv2.VideoWriter(str(self._part), code, fps, self.size[::-1])
            if writer.isOpened():
                return codec, writer
            writer.release()
        self._part.unlink(missing_ok=True)
        raise JaxtrackError(
            f"{self.path}: this OpenCV has no encoder for it (tried {', '.join(codecs)}); "
            "try another suffix, such as .avi"
        )

    def write(
        self,
        frame: UInt8[np.ndarray, "h w 3"],
        boxes: Real[np.ndarray, "n 4"] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Append a frame (uint8 RGB), with boxes drawn into it.

        Raises:
            JaxtrackError: the frame has another size.
        """
        if frame.shape[:2] != self._frame_size:
            raise JaxtrackError(f"{self.path}: frame {self.count} has another size than announced")
        if boxes is not None:
            frame = draw_boxes(frame, boxes, labels)
        image = cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2BGR)
        self._writer.write(np.ascontiguousarray(image[: self.size[0], : self.size[1]]))
        self.count += 1

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            JaxtrackError: frames are missing in it (OpenCV does not report a full disk, so they are
                counted), or it cannot be renamed.
        """
        if not self._part.exists():
            return
        self._writer.release()
        if self.count == 0:
            self._part.unlink()
            return
        held = _frames_in(self._part)
        try:
            os.replace(self._part, self.path)
        except OSError as error:
            raise JaxtrackError(
                f"{self.path}: cannot be written ({error.strerror or error})"
            ) from error
        if held < self.count:
            raise JaxtrackError(
                f"{self.path}: holds {held} of {self.count} frames; is the disk full?"
            )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file; after an error too, so that what was written is kept."""
        self.close()


def _frames_in(path: pathlib.Path) -> int:
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
    return count
