"""Images in and out: RGB uint8 arrays through OpenCV; the one image decoder of all readers."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxtrack.errors import JaxtrackError, brief, naming
from jaxtrack.io import headers
from jaxtrack.io.atomic import read_whole, write_whole
from jaxtrack.io.clips import IMAGE_SUFFIXES
from jaxtrack.io.paths import output_file

LARGEST_IMAGE = 1 << 27  # pixels: 400 MB once decoded

_JPEG = b"\xff\xd8"
# The upper eight of 16 bits, where the picture is in the lower twelve.
_NEARLY_BLACK = 15

_FLAGS = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own log lines off the screen; what went wrong is told by our error."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def decode_image(data: bytes, name: str, reduce: int = 1) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an encoded image.

    Pixels come as they are stored, whatever a mark of the camera's orientation (EXIF) says: the boxes of
    every dataset count stored pixels.

    Args:
        data: the file's bytes.
        name: what the image is called in errors.
        reduce: 1, 2, 4 or 8: the sides are that much smaller (rounded up), which a JPEG's decoder does two
            to five times faster.

    Returns:
        ``(h, w, 3)`` uint8 RGB; grey images get three equal channels, transparency is dropped.

    Raises:
        JaxtrackError: empty, truncated, damaged, no image, larger than `LARGEST_IMAGE`, or with 12 or fewer
            bits in values of 16.
    """
    check_image(data, name)
    try:
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[reduce])
    except cv2.error as error:
        raise JaxtrackError(
            f"{name}: cannot be decoded as an image ({brief(error.err)})"
        ) from error
    if image is None:
        raise JaxtrackError(f"{name}: {_unread(data)}")
    if not data.startswith(_JPEG) and image.max(initial=0) <= _NEARLY_BLACK:
        _check_range(data, name)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _check_range(data: bytes, name: str) -> None:
    """Refuse an image of 16 bits whose values use 12 or fewer of them: of these, eight would leave black."""
    with quiet_opencv():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None  # it was decoded once already
    colours = image[..., :3] if image.ndim == 3 else image
    most = int(colours.max(initial=0))
    if image.dtype == np.uint16 and most > 0:
        raise JaxtrackError(
            f"{name}: the largest of its 16-bit values is {most} of 65535, nearly black: save it with 8 "
            "bits, or scale its values to all of the 16"
        )


def _unread(data: bytes) -> str:
    """Return why a decoder gave no colours: some files are whole, but of pixels that are no bytes."""
    try:
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None or image.dtype in (np.uint8, np.uint16):
        return "damaged, truncated or no image"
    return f"its pixels are {image.dtype}; save it with 8 or 16 bits a channel"


def check_image(data: bytes, name: str) -> tuple[int, int]:
    """Check the bytes of an encoded image without decoding it.

    Args:
        data: the file's bytes.
        name: what the image is called in errors.

    Returns:
        ``(height, width)`` that its header declares.

    Raises:
        JaxtrackError: empty, truncated, visibly damaged, no image, or larger than `LARGEST_IMAGE`.
    """
    if not data:
        raise JaxtrackError(f"{name}: empty file, no image")
    if headers.is_pointer(data):
        raise JaxtrackError(f"{name}: {headers.POINTER}")
    size = headers.size_of(data)
    fault = headers.fault_of(data)
    if size is None:
        raise JaxtrackError(f"{name}: {fault or 'damaged, truncated or no image'}")
    height, width = size
    if not 0 < height * width <= LARGEST_IMAGE:
        raise JaxtrackError(
            f"{name}: {width}x{height} pixels are declared, at most {LARGEST_IMAGE // 10**6} million "
            "are decoded"
        )
    if fault is not None:
        raise JaxtrackError(f"{name}: {fault}")
    return size


def read_image(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image file.

    Args:
        path: a JPEG, PNG, BMP, WebP, TIFF or PNM file.

    Returns:
        ``(h, w, 3)`` uint8 RGB.

    Raises:
        JaxtrackError: missing, or as `decode_image`.
    """
    return decode_image(read_whole(path), str(path))


def output_image(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return the resolved path of an image file that may be written; asked before the picture is made.

    Raises:
        UsageError: as `jaxtrack.io.paths.output_file`.
        JaxtrackError: likewise, or an unknown suffix.
    """
    place = output_file(path)
    if place.suffix.lower() not in IMAGE_SUFFIXES:
        raise JaxtrackError(
            f"{place}: unknown image format; known suffixes: {', '.join(IMAGE_SUFFIXES)}"
        )
    return place


def write_image(path: str | os.PathLike[str], image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an image file; the suffix tells the format.

    Args:
        path: the file.
        image: ``(h, w, 3)`` uint8 RGB.

    Raises:
        JaxtrackError: unknown suffix, or the file cannot be written.
    """
    path = output_image(path)
    with naming(path, "cannot be written"), quiet_opencv():
        good, data = cv2.imencode(path.suffix, cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR))
    if not good:
        raise JaxtrackError(f"{path}: this OpenCV cannot write {path.suffix} images")
    write_whole(path, data.tobytes())
