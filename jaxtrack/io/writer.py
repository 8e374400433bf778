"""Boxes drawn into frames, and frames written as a video."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType

import cv2
import numpy as np
from jaxtyping import Real, UInt8

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import Pending
from jaxtrack.io.images import quiet_opencv
from jaxtrack.io.paths import resolve

# Codecs per container, the first that this OpenCV can encode is taken. H.264 (avc1) plays in browsers, but
# is absent from the usual builds for licence reasons; VP9 in .webm is there and plays in them as well.
CODECS: dict[str, tuple[str, ...]] = {
    ".mp4": ("avc1", "mp4v"),
    ".mov": ("avc1", "mp4v"),
    ".mkv": ("avc1", "mp4v", "XVID"),
    ".avi": ("MJPG", "XVID"),
    ".webm": ("VP90", "VP80"),
}
# Containers count frames to within so many, or this share.
_UNCERTAIN_FRAMES = 2
_UNCERTAIN_SHARE = 0.02
_RATE = 25.0
_GAP = 4  # pixels between pictures side by side
_LEAST_SPACE = 1 << 16  # bytes
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
    """Return a copy of a frame with boxes drawn into it.

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


def beside(images: Sequence[np.ndarray], axis: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return pictures side by side, with black where one is smaller and between them.

    Args:
        images: ``(h, w, 3)`` uint8 each, of any sizes.
        axis: 1: in a row; 0: in a column.
    """
    extent = max(image.shape[1 - axis] for image in images)
    padded = []
    for image in images:
        pad = [(0, 0), (0, 0), (0, 0)]
        pad[1 - axis] = (0, extent - image.shape[1 - axis])
        pad[axis] = (0, _GAP)
        padded.append(np.pad(image, pad))
    return np.concatenate(padded, axis)


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
            path: ``.mp4``, ``.mov``, ``.mkv``, ``.webm`` or ``.avi``.
            size: ``(height, width)`` of the frames; codecs want even sides, so an odd last row or
                column is left out.
            fps: frames per second; None: 25.

        Raises:
            JaxtrackError: unknown suffix, folder that cannot be written, or no codec.
        """
        self.path = resolve(path)
        suffix = self.path.suffix.lower()
        if suffix not in CODECS:
            raise JaxtrackError(
                f"{self.path}: unknown video format; known suffixes: {', '.join(CODECS)}"
            )
        self.size = (size[0] // 2 * 2, size[1] // 2 * 2)
        if min(self.size) < 2:
            raise JaxtrackError(
                f"{self.path}: frames of {size[1]}x{size[0]} are too small for a video"
            )
        self.count = 0
        self._frame_size = tuple(size)
        self._file = Pending(self.path, suffix)
        self._open_now = True
        rate = fps if fps is not None and 0 < fps < 1000 else _RATE
        self.codec, self._writer = self._open(CODECS[suffix], rate)

    def _open(self, codecs: Sequence[str], fps: float) -> tuple[str, cv2.VideoWriter]:
        # Some codecs take no rate that is no simple fraction.
        for rate in dict.fromkeys((fps, float(max(round(fps), 1)), _RATE)):
            for codec in codecs:
                with quiet_opencv(), quiet_libraries():
                    code = cv2.VideoWriter.fourcc(*codec)
                    writer = cv2.VideoWriter(str(self._file.temporary), code, rate, self.size[::-1])
                if writer.isOpened():
                    return codec, writer
                writer.release()
        self._file.drop()
        if shutil.disk_usage(self._file.temporary.parent).free < _LEAST_SPACE:
            raise JaxtrackError(f"{self.path}: cannot be written (the disk is full)")
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
        with quiet_opencv():
            self._writer.write(np.ascontiguousarray(image[: self.size[0], : self.size[1]]))
        self.count += 1

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            JaxtrackError: frames are missing in it (OpenCV does not report a full disk, so they are
                counted): it then replaces no older file; or it cannot be renamed.
        """
        if not self._open_now:
            return
        self._open_now = False
        with quiet_opencv():
            self._writer.release()
        if self.count == 0:
            self._file.drop()
            return
        held = _frames_in(self._file.temporary)
        if self.count - held <= max(_UNCERTAIN_FRAMES, _UNCERTAIN_SHARE * self.count) and held:
            self._file.keep()
            return
        if not held:
            self._file.drop()
        alone = held and self._file.keep_if_alone()
        older = not alone and self._file.path.exists()
        kept = "; the older file of this name was left as it is" if older else ""
        raise JaxtrackError(
            f"{self.path}: holds {held} of {self.count} frames (is the disk full?){kept}"
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


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep off the screen what libraries write there behind Python's back, for a moment."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
    try:
        held = os.dup(2)
    except OSError:  # the standard error is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(held, 2)
        os.close(held)


def _frames_in(path: pathlib.Path) -> int:
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
    return count
