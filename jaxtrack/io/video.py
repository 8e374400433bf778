"""Frames from a video file, an image folder, a glob, a stream or a webcam."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxtrack.errors import JaxtrackError, brief, naming, reason
from jaxtrack.io import headers
from jaxtrack.io.atomic import regular_file
from jaxtrack.io.clips import (
    FRAME_FOLDERS,
    IMAGE_SUFFIXES,
    check_numbers,
    expand,
    frames_of,
    list_images,
)
from jaxtrack.io.containers import owes_frames
from jaxtrack.io.images import LARGEST_IMAGE, quiet_opencv, read_image
from jaxtrack.io.paths import is_stream, resolve
from jaxtrack.io.prefetch import on_demand, prefetch, waited

# Containers declare frames that no decoder delivers: so many, or this share, are no truncation.
_MISSING_FRAMES = 2
_MISSING_SHARE = 0.02
_MOST_FRAMES = 1 << 40
_DEPTH = 8
_CAMERA = re.compile(r"(?:/dev/video)?([0-9]{1,4})")
_LAST_CAMERA = 9999  # the last of the text form

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
        start: number of the first frame in the whole clip.
        files: what is read, where it lies on a disk: no output may replace it.
    """

    name: str
    first: Frame
    length: int | None
    fps: float | None
    live: bool
    frames: Callable[[], Iterator[Frame]]
    start: int = 0
    files: tuple[pathlib.Path, ...] = ()

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
        yield from on_demand(self._checked()) if self.live else prefetch(self._checked(), _DEPTH)

    def _checked(self) -> Iterator[Frame]:
        for index, frame in enumerate(self.frames()):
            if frame.shape[:2] != self.size:
                raise _other_size(self.name, self.start + index, frame, self.size)
            yield frame


def _other_size(name: str, number: int, frame: Frame, size: tuple[int, ...]) -> JaxtrackError:
    return JaxtrackError(
        f"{name}: frame {number} is {_pixels(frame.shape)}, the first is {_pixels(size)}; all frames of a "
        "clip must have one size"
    )


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


def open_source(
    source: str | int | np.integer | os.PathLike[str], start: int = 0, stop: int | None = None
) -> FrameSource:
    """Open a source of frames.

    Args:
        source: a video file; a folder of images (or of a benchmark sequence that keeps them in
            ``img/``), in natural order; a glob such as ``"clip/*.jpg"``; a camera's number; the
            address of a stream (``rtsp://...``).
        start: number of the first frame to give, from 0.
        stop: number of the frame behind the last one; None: to the end.

    Returns:
        The source; its first frame has been decoded.

    Raises:
        JaxtrackError: of another type, missing, without frames, not a video, no such camera, or fewer frames
            than ``start``, or an image twice under one number.
    """
    if start < 0 or (stop is not None and stop <= start):
        raise JaxtrackError(f"frames {start} to {stop}: no frame lies between")
    if not isinstance(source, (str, os.PathLike)):
        number = _camera(source)
        return _open_live(number, f"camera {number}", start, stop)
    text = os.fspath(source)
    camera = _CAMERA.fullmatch(text)
    if camera and not os.path.isfile(text) and not os.path.isdir(text):
        return _open_live(int(camera[1]), f"camera {int(camera[1])}", start, stop)
    if is_stream(text) and not os.path.exists(text):
        return _open_live(text, brief(text), start, stop)
    path = resolve(text)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise JaxtrackError(f"{path}: cannot be read ({reason(error)})") from error
    if stat.S_ISDIR(mode):
        return _open_images(_images_of(path), str(path), start, stop)
    if stat.S_ISREG(mode):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise JaxtrackError(f"{path}: a single image; give its folder, a glob or a video")
        return _open_video(path, start, stop)
    if mode:
        raise JaxtrackError(
            f"{path}: is a device, pipe or socket; give a video file, a camera's number or the address "
            "of a stream"
        )
    if any(sign in text for sign in "*?["):
        return _open_glob(text, start, stop)
    raise JaxtrackError(f"{path}: no such file or folder")


def count_frames(clip: str | os.PathLike[str]) -> int:
    """Count the frames of a video file by going through it: what headers say is wrong too often.

    Args:
        clip: the video file.

    Raises:
        JaxtrackError: whatever stops `open_source` and who iterates over all of its frames: no video,
            without frames, too large, or truncated.
    """
    path = regular_file(clip)
    with _opened(path) as (capture, declared):
        count = _skip(capture, _MOST_FRAMES)
        if not count:
            raise _no_frame(path)
        _refuse_truncated(path, count, declared, declared)
    return count


def read_frames(clip: str | os.PathLike[str], numbers: Sequence[int]) -> Iterator[Frame]:
    """Decode some frames of a video file in one pass.

    Args:
        clip: the video file.
        numbers: of the frames, from 0, rising.

    Yields:
        ``(h, w, 3)`` uint8 RGB.

    Raises:
        JaxtrackError: as `open_source` and iterating over its frames; or the file, though whole, has not that
            many.
    """
    path = regular_file(clip)
    size, place = None, 0
    with _opened(path) as (capture, declared):
        for number in numbers:
            place += _skip(capture, number - place)
            frame = _next(capture) if place == number else None
            if frame is None:
                if not place:
                    raise _no_frame(path)
                _refuse_truncated(path, place, declared, declared)
                raise JaxtrackError(f"{path}: ends before frame {number}")
            size = size or frame.shape[:2]
            if frame.shape[:2] != size:
                raise _other_size(str(path), number, frame, size)
            place += 1
            yield frame


def _camera(number: object) -> int:
    """Return a camera's number; OpenCV ends the process at numbers below 0."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise JaxtrackError(
            f"a source of type {type(number).__name__} cannot be opened; give a path, the address of a "
            "stream or a camera's number"
        )
    if not 0 <= number <= _LAST_CAMERA:
        raise JaxtrackError(f"camera {brief(number, 40)}: give a number from 0 to {_LAST_CAMERA}")
    return int(number)


def _cut(name: str, paths: list[pathlib.Path], start: int, stop: int | None) -> list[pathlib.Path]:
    if start >= len(paths):
        raise JaxtrackError(f"{name}: has frames 0 to {len(paths) - 1}, frame {start} is asked for")
    return paths[start:stop]


def _images_of(folder: pathlib.Path) -> list[pathlib.Path]:
    images = frames_of(folder)
    if not images:
        raise JaxtrackError(
            f"{folder}: no images in this folder (looked for {', '.join(IMAGE_SUFFIXES)}, "
            f"here and in {'/, '.join(FRAME_FOLDERS)}/)"
        )
    place = images[0].parent
    if place != folder and (beside := list_images(folder)):
        print(
            f"note: {folder}: the {len(images)} images of {place.name}/ are the clip, not the "
            f"{len(beside)} beside it",
            file=sys.stderr,
        )
    return images


def _open_glob(pattern: str, start: int, stop: int | None) -> FrameSource:
    found = expand(pattern)
    if not found:
        raise JaxtrackError(f"{pattern}: no file matches")
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if images:
        return _open_images(images, pattern, start, stop)
    if len(found) == 1:
        return open_source(found[0], start, stop)
    raise JaxtrackError(f"{pattern}: matches {len(found)} files, none of them an image")


def _open_images(paths: list[pathlib.Path], name: str, start: int, stop: int | None) -> FrameSource:
    check_numbers(paths)
    paths = _cut(name, paths, start, stop)
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

    return FrameSource(name, first, len(paths), None, False, frames, start, tuple(paths))


def _capture(target: str | int, name: str) -> cv2.VideoCapture:
    with quiet_opencv():
        capture = cv2.VideoCapture(target)
    if not capture.isOpened():
        capture.release()
        what, why = "cannot be opened as a video", "truncated, or not a video"
        if isinstance(target, int):
            what, why = "cannot be opened", "is it connected and free?"
        elif "://" in target:
            what, why = "cannot be opened", "is it there, and a video?"
        raise JaxtrackError(f"{name}: {what} ({why})")
    return capture


def _next(capture: cv2.VideoCapture) -> Frame | None:
    with quiet_opencv():
        good, frame = capture.read()
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None


def _rate(capture: cv2.VideoCapture) -> float | None:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0 < fps < 1000 else None


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[tuple[cv2.VideoCapture, int]]:
    """Open a video file; give its decoder and the number of frames that it declares."""
    with naming(path), open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise JaxtrackError(f"{path}: empty file, no video")
    if headers.is_pointer(head):
        raise JaxtrackError(f"{path}: {headers.POINTER}")
    capture = _capture(str(path), str(path))
    try:
        _check_size(capture, str(path))
        declared = int(min(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0), _MOST_FRAMES))
        yield capture, declared
    finally:
        capture.release()


def _no_frame(path: pathlib.Path) -> JaxtrackError:
    return JaxtrackError(f"{path}: no frame can be decoded (truncated, or not a video)")


def _refuse_truncated(path: pathlib.Path, count: int, declared: int, wanted: int) -> None:
    """Refuse a file that ended after ``count`` frames although it should have had ``wanted``."""
    most = max(_MISSING_FRAMES, _MISSING_SHARE * declared)
    if wanted - count > most and owes_frames(path):
        raise JaxtrackError(
            f"{path}: ends after frame {count - 1}, but {declared} frames are declared: "
            "the file is truncated or damaged there"
        )


def _open_video(path: pathlib.Path, start: int, stop: int | None) -> FrameSource:
    with _opened(path) as (capture, declared):
        skipped = _skip(capture, start)
        # The first frame tells the size as it is seen: a rotation mark may swap the header's sides.
        first = _next(capture)
        fps = _rate(capture)
    if first is None:
        if skipped:
            raise JaxtrackError(
                f"{path}: has frames 0 to {skipped - 1}, frame {start} is asked for"
            )
        raise _no_frame(path)
    wanted = declared if stop is None else min(declared, stop)

    def frames() -> Iterator[Frame]:
        with _opened(path) as (capture, _):
            count = _skip(capture, start)
            while (stop is None or count < stop) and (frame := _next(capture)) is not None:
                yield frame
                count += 1
        _refuse_truncated(path, count, declared, wanted)

    length = wanted - start
    return FrameSource(
        str(path), first, length if length > 0 else None, fps, False, frames, start, (path,)
    )


def _check_size(capture: cv2.VideoCapture, name: str) -> None:
    width, height = (capture.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > LARGEST_IMAGE:
        raise JaxtrackError(
            f"{name}: frames of {width:.0f}x{height:.0f} pixels are declared, at most "
            f"{LARGEST_IMAGE // 10**6} million are decoded"
        )


def _skip(capture: cv2.VideoCapture, count: int) -> int:
    """Pass over frames; return how many there were."""
    with quiet_opencv():
        for index in range(count):
            if not capture.grab():
                return index
    return count


def _open_live(target: str | int, name: str, start: int, stop: int | None) -> FrameSource:
    if start:
        raise JaxtrackError(f"{name}: a live source begins now, not at frame {start}")

    def begin() -> tuple[cv2.VideoCapture, Frame | None]:
        capture = _capture(target, name)
        return capture, _next(capture)

    capture, first = waited(begin)
    if first is None:
        capture.release()
        raise JaxtrackError(f"{name}: gives no frame")
    opening = first

    def frames() -> Iterator[Frame]:
        try:
            yield opening
            count = 1
            while (stop is None or count < stop) and (frame := _next(capture)) is not None:
                yield frame
                count += 1
        finally:
            capture.release()

    return FrameSource(name, first, None, _rate(capture), True, frames)
