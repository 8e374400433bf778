"""Frames from a video file, an image folder, a glob, a stream or a webcam."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.clips import FRAME_FOLDERS, IMAGE_SUFFIXES, expand, frames_of
from jaxtrack.io.images import quiet_opencv, read_image
from jaxtrack.io.prefetch import prefetch

# Containers declare frames that no decoder delivers: so many, or this share, are no truncation.
_MISSING_FRAMES = 2
_MISSING_SHARE = 0.02
_DEPTH = 8

Frame = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class FrameSource:
    """The frames of one clip; iterate over it to get uint8 RGB ``(h, w, 3)`` arrays.

    Decoding runs ahead in a thread, except for live sources. Files can be iterated over again.

    Attributes:
        name: for messages and file names.
        first: the first frame.
        length: number of frames; None where it is not known.
        fps: frames per second; None where the source does not say.
        live: a camera or stream: frames are lost when nobody asks for them.
        frames: makes a fresh iterator over the frames, without a thread.
    """

    name: str
    first: Frame
    length: int | None
    fps: float | None
    live: bool
    frames: Callable[[], Iterator[Frame]]

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` of every frame."""
        return self.first.shape[0], self.first.shape[1]

    def __iter__(self) -> Iterator[Frame]:
        """Decode from the start.

        Raises:
            JaxtrackError: while iterating: a frame that is missing, damaged or of another size (named),
                or a file that ends early; all frames before it have been given out.
        """
        yield from prefetch(self._checked(), 0 if self.live else _DEPTH)

    def _checked(self) -> Iterator[Frame]:
        for index, frame in enumerate(self.frames()):
            if frame.shape[:2] != self.size:
                raise JaxtrackError(
                    f"{self.name}: frame {index} is {_pixels(frame.shape)}, the first is "
                    f"{_pixels(self.size)}; all frames of a clip must have one size"
                )
            yield frame


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


def open_source(source: str | int | os.PathLike[str]) -> FrameSource:
    """Open a source of frames.

    Args:
        source: a video file; a folder of images (or of a benchmark sequence that keeps them in
            ``img/``), in natural order; a glob such as ``"clip/*.jpg"``; a camera's number; the
            address of a stream (``rtsp://...``).

    Returns:
        The source; its first frame has been decoded.

    Raises:
        JaxtrackError: missing, without frames, not a video, or no such camera.
    """
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    path = pathlib.Path(text).expanduser()
    if isinstance(source, int) or (text.isdigit() and not path.exists()):
        return _open_live(int(text), f"camera {text}")
    if "://" in text:
        return _open_live(text, text)
    if path.is_dir():
        return _open_images(_images_of(path), str(path))
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise JaxtrackError(f"{path}: a single image; give its folder, a glob or a video")
        return _open_video(path)
    if any(sign in text for sign in "*?["):
        return _open_glob(os.path.expanduser(text))
    raise JaxtrackError(f"{path}: no such file or folder")


def from_arrays(
    frames: UInt8[np.ndarray, "t h w 3"], fps: float | None = None, name: str = "clip"
) -> FrameSource:
    """A source over frames in memory.

    Args:
        frames: ``(t, h, w, 3)`` uint8 RGB.
        fps: frames per second, if known.
        name: for messages.
    """
    if len(frames) == 0:
        raise JaxtrackError(f"{name}: no frames")
    return FrameSource(name, frames[0], len(frames), fps, False, lambda: iter(frames))


def _images_of(folder: pathlib.Path) -> list[pathlib.Path]:
    images = frames_of(folder)
    if not images:
        raise JaxtrackError(
            f"{folder}: no images in this folder (looked for {', '.join(IMAGE_SUFFIXES)}, "
            f"here and in {'/, '.join(FRAME_FOLDERS)}/)"
        )
    return images


def _open_glob(pattern: str) -> FrameSource:
    found = expand(pattern)
    if not found:
        raise JaxtrackError(f"{pattern}: no file matches")
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if images:
        return _open_images(images, pattern)
    if len(found) == 1:
        return open_source(found[0])
    raise JaxtrackError(f"{pattern}: matches {len(found)} files, none of them an image")


def _open_images(paths: list[pathlib.Path], name: str) -> FrameSource:
    first = read_image(paths[0])
    size = first.shape[:2]

    def frames() -> Iterator[Frame]:
        for path in paths:
            frame = read_image(path)
            if frame.shape[:2] != size:
                raise JaxtrackError(
                    f"{path}: {_pixels(frame.shape)}, but the first frame {paths[0].name} is "
                    f"{_pixels(size)}; all frames of a clip must have one size"
                )
            yield frame

    return FrameSource(name, first, len(paths), None, False, frames)


def _capture(target: str | int, name: str) -> cv2.VideoCapture:
    with quiet_opencv():
        capture = cv2.VideoCapture(target)
    if not capture.isOpened():
        capture.release()
        what = "cannot be opened" if isinstance(target, int) else "cannot be opened as a video"
        why = (
            "is it connected and free?" if isinstance(target, int) else "truncated, or not a video"
        )
        raise JaxtrackError(f"{name}: {what} ({why})")
    return capture


def _next(capture: cv2.VideoCapture) -> Frame | None:
    with quiet_opencv():
        good, frame = capture.read()
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None


def _rate(capture: cv2.VideoCapture) -> float | None:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0 < fps < 1000 else None


def _open_video(path: pathlib.Path) -> FrameSource:
    if path.stat().st_size == 0:
        raise JaxtrackError(f"{path}: empty file, no video")
    capture = _capture(str(path), str(path))
    try:
        # The first frame tells the size as it is seen: a rotation mark may swap the header's sides.
        first = _next(capture)
        declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = _rate(capture)
    finally:
        capture.release()
    if first is None:
        raise JaxtrackError(f"{path}: no frame can be decoded (truncated, or not a video)")

    def frames() -> Iterator[Frame]:
        capture = _capture(str(path), str(path))
        count = 0
        try:
            while (frame := _next(capture)) is not None:
                yield frame
                count += 1
        finally:
            capture.release()
        if declared - count > max(_MISSING_FRAMES, _MISSING_SHARE * declared):
            raise JaxtrackError(
                f"{path}: ends after frame {count - 1}, but {declared} frames are declared: "
                "the file is truncated or damaged there"
            )

    return FrameSource(str(path), first, declared if declared > 0 else None, fps, False, frames)


def _open_live(target: str | int, name: str) -> FrameSource:
    capture = _capture(target, name)
    first = _next(capture)
    if first is None:
        capture.release()
        raise JaxtrackError(f"{name}: gives no frame")
    start = first

    def frames() -> Iterator[Frame]:
        try:
            yield start
            while (frame := _next(capture)) is not None:
                yield frame
        finally:
            capture.release()

    return FrameSource(name, first, None, _rate(capture), True, frames)
