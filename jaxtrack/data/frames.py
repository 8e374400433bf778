"""Frame references to bytes, bytes to pixels, pixels to patches (OpenCV, on the host)."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io import images, video
from jaxtrack.io.atomic import read_whole, regular_file

# Quality of JPEGs that we write ourselves (crops, frames of clips). PySOT's crops have OpenCV's
# default of 95 too.
JPEG_QUALITY = 95

# Pixels by which a window may miss the pixel grid and still count as on it.
_SAME = 0.01

# Number of the tag in a photograph's notes that says how to turn it.
_ORIENTATION = 0x0112

# Bytes of an encoded frame: an 8K picture without compression has 100 MB.
_LARGEST_FILE = 1 << 28


class FrameError(JaxtrackError):
    """A frame that cannot be had: missing, truncated or not an image. Builds skip and count it."""


def count_clip_frames(clip: str | os.PathLike) -> int:
    """Count the frames of a video file; see ``jaxtrack.io.video.count_frames``.

    Args:
        clip: the video file.

    Raises:
        FrameError: no video, without frames, too large, or truncated.
    """
    try:
        return video.count_frames(clip)
    except JaxtrackError as error:
        raise FrameError(str(error)) from error


@functools.lru_cache(maxsize=4)
def _open_zip(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(regular_file(path))


def read_bytes(reference: str) -> bytes:
    """Read the encoded image behind a frame reference (not one inside a clip).

    Args:
        reference: a path or ``ARCHIVE.zip::MEMBER``.

    Returns:
        The file's bytes.

    Raises:
        FrameError: the file or member is missing, unreadable, or larger than any image.
    """
    archive, mark, member = reference.partition("::")
    try:
        if not mark:
            return read_whole(reference, _LARGEST_FILE)
        opened = _open_zip(archive)
        if opened.getinfo(member).file_size > _LARGEST_FILE:
            raise FrameError(f"{reference} is larger than any image")
        return opened.read(member)
    except JaxtrackError as error:
        raise FrameError(str(error)) from error
    except FileNotFoundError:
        raise FrameError(f"{archive}: no such file") from None
    except (
        OSError,
        KeyError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise FrameError(f"{reference}: cannot be read ({brief(error)})") from error


def is_clip_reference(reference: str) -> bool:
    """Say whether a frame reference points into a video file.

    Args:
        reference: a frame reference.

    Returns:
        True for ``CLIP.mp4::17``.
    """
    index = reference.rpartition("::")[2]
    return index.isascii() and index.isdigit()


def clip_frames(references: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Decode frames of clips, in one pass over a clip while their numbers rise.

    Args:
        references: ``CLIP::INDEX`` references.

    Yields:
        (reference, frame) with frames ``(h, w, 3)`` uint8 RGB.

    Raises:
        FrameError: as ``jaxtrack.io.video.read_frames``.
    """
    for clip, group in _passes(references):
        frames = video.read_frames(clip, [number for number, _ in group])
        try:
            for (_, reference), frame in zip(group, frames):
                yield reference, frame
        except JaxtrackError as error:
            raise FrameError(str(error)) from error


def _passes(references: Sequence[str]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Split references into runs of one clip with rising numbers."""
    opened = ""
    run: list[tuple[int, str]] = []
    for reference in references:
        clip, _, index = reference.rpartition("::")
        if run and (clip != opened or int(index) <= run[-1][0]):
            yield opened, run
            run = []
        opened = clip
        run.append((int(index), reference))
    if run:
        yield opened, run


def decode(data: bytes, name: str, reduce: int = 1) -> np.ndarray:
    """Decode an image; see ``jaxtrack.io.images.decode_image``.

    Args:
        data: JPEG (or PNG, BMP, ...) bytes.
        name: what to call it in the error.
        reduce: 1, 2, 4 or 8: side of the decoded image is that much smaller (rounded up).

    Returns:
        ``(h, w, 3)`` uint8 RGB.

    Raises:
        FrameError: not an image, damaged, or one that breaks off.
    """
    try:
        return images.decode_image(data, name, reduce)
    except JaxtrackError as error:
        raise FrameError(str(error)) from error


def as_annotated(data: bytes, name: str, size: tuple[int, int] | None) -> tuple[bytes, np.ndarray]:
    """Decode an image as its annotation means it, and take out a mark of the camera's orientation.

    Boxes count the pixels as they are stored, unless the size that the annotation gives is that of the image
    turned by its mark. Without the mark, every decoder makes the same of the bytes.

    Args:
        data: encoded bytes.
        name: what to call it in the error.
        size: (height, width) of the image that the boxes refer to; None: not known.

    Returns:
        The bytes (of the turned image: encoded again), and ``(h, w, 3)`` uint8 RGB.

    Raises:
        FrameError: the image has another size either way, or cannot be decoded.
    """
    pixels = decode(data, name)
    mark = _orientation(data)
    if mark is not None:
        place, value, order = mark
        if (
            size is not None
            and size != pixels.shape[:2]
            and value > 4
            and size == pixels.shape[1::-1]
        ):
            pixels = _turned(data)
            data = encode(pixels)
        else:
            upright = (1).to_bytes(2, "big" if order == b"MM" else "little")
            data = data[:place] + upright + data[place + 2 :]
    if size is not None and pixels.shape[:2] != size:
        raise FrameError(
            f"another size: {name} has {pixels.shape[1]}x{pixels.shape[0]} pixels, "
            f"the annotation says {size[1]}x{size[0]}"
        )
    return data, pixels


def _turned(data: bytes) -> np.ndarray:
    """Decode a JPEG as its mark of orientation says."""
    with images.quiet_opencv():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None  # it was decoded once already
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _orientation(data: bytes) -> tuple[int, int, bytes] | None:
    """Find the mark of orientation in a JPEG: its place, its value (2 to 8) and the order of bytes."""
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] not in (b"\xda", b""):
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            return _exif_orientation(data, place + 10)
        place += 2 + max(length, 2)
    return None


def _exif_orientation(data: bytes, start: int) -> tuple[int, int, bytes] | None:
    order = data[start : start + 2]
    if order not in (b"II", b"MM"):
        return None

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "big" if order == b"MM" else "little")

    table = start + number(start + 4, 4)
    for entry in range(table + 2, table + 2 + 12 * min(number(table, 2), 512), 12):
        if number(entry, 2) == _ORIENTATION and 2 <= number(entry + 8, 2) <= 8:
            return entry + 8, number(entry + 8, 2), order
    return None


def encode(image: np.ndarray) -> bytes:
    """Encode an image as JPEG of ``JPEG_QUALITY``.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.

    Returns:
        JPEG bytes.
    """
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not ok:
        raise FrameError(f"cannot encode an image of shape {image.shape}")
    return data.tobytes()


def mean_colour(image: np.ndarray) -> tuple[float, float, float]:
    """Mean colour of an image, which fills what lies outside of it.

    Args:
        image: ``(h, w, 3)`` uint8.

    Returns:
        Three means.
    """
    first, second, third, _ = cv2.mean(image)
    return first, second, third


def cut_patch(
    image: np.ndarray,
    centre: tuple[float, float],
    side: float | tuple[float, float],
    size: int,
    pad: tuple[float, float, float],
) -> np.ndarray:
    """Cut a window out of a frame and resize it, bilinearly.

    Pixel centres lie at integers (half-pixel rule): output pixel i covers the source interval
    ``left + [i, i + 1) * side / size`` with ``left = centre - side / 2`` in coordinates where the frame
    spans [0, w].

    Args:
        image: ``(h, w, 3)`` uint8.
        centre: (x, y) of the window's centre, pixels; a pixel k spans [k, k + 1).
        side: side of the window, pixels, or (width, height).
        size: side of the patch.
        pad: colour outside the frame.

    Returns:
        ``(size, size, 3)`` uint8.
    """
    width, height = side if isinstance(side, tuple) else (side, side)
    if abs(width - size) + abs(height - size) < _SAME:  # stored crops: the pixels themselves
        left, top = centre[0] - width / 2, centre[1] - height / 2
        x, y = round(left), round(top)
        inside = min(x, y) >= 0 and x + size <= image.shape[1] and y + size <= image.shape[0]
        if inside and abs(left - x) + abs(top - y) < _SAME:
            return image[y : y + size, x : x + size].copy()
    sx, sy = width / size, height / size
    matrix = np.array(
        [
            [sx, 0, centre[0] - width / 2 + sx / 2 - 0.5],
            [0, sy, centre[1] - height / 2 + sy / 2 - 0.5],
        ]
    )
    return cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=pad,
    )


def describe(dataset: str, video: str, frame: int, file: str) -> str:
    """Name a frame in an error: dataset, video, frame, file.

    Args:
        dataset: dataset name.
        video: target's name.
        frame: index of the frame in the target's video.
        file: where it came from.

    Returns:
        One phrase.
    """
    return f"{dataset}: video {video}, frame {frame} ({Path(file).as_posix()})"
