"""Images in and out: RGB uint8 arrays through OpenCV, with errors that name the file."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxtrack.errors import JaxtrackError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own log lines off the screen; what went wrong is told by our error."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an encoded image.

    Args:
        data: the file's bytes.
        name: what the image is called in errors.

    Returns:
        ``(h, w, 3)`` uint8 RGB; grey images get three equal channels, transparency is dropped.

    Raises:
        JaxtrackError: empty, truncated or no image.
    """
    if not data:
        raise JaxtrackError(f"{name}: empty file, no image")
    if _cut_short(data):
        raise JaxtrackError(f"{name}: truncated image")
    try:
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise JaxtrackError(f"{name}: cannot be decoded as an image ({error.err})") from error
    if image is None:
        raise JaxtrackError(f"{name}: damaged, truncated or no image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; some decoders would fill the rest with grey in silence."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:] and b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    place = 2
    # Over the segments to the start of the scan: a thumbnail inside a segment has an end of its own.
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(b"\xff\xd9", place) < 0


def read_image(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image file.

    Args:
        path: the file, of any format that OpenCV decodes.

    Returns:
        ``(h, w, 3)`` uint8 RGB.

    Raises:
        JaxtrackError: missing, empty, truncated or no image.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JaxtrackError(f"{path}: cannot be read ({error.strerror or error})") from error
    return decode_image(data, str(path))


def write_image(path: str | os.PathLike[str], image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an image file; the suffix tells the format.

    Args:
        path: the file.
        image: ``(h, w, 3)`` uint8 RGB.

    Raises:
        JaxtrackError: unknown suffix, or the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise JaxtrackError(
            f"{path}: unknown image format; known suffixes: {', '.join(IMAGE_SUFFIXES)}"
        )
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR))
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise JaxtrackError(f"{path}: cannot be written ({error.strerror or error})") from error


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which ``frame10`` comes after ``frame9``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def list_images(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The images of a folder in natural order (not those of its subfolders).

    Raises:
        JaxtrackError: the folder is missing.
    """
    folder = pathlib.Path(folder)
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        ]
    except OSError as error:
        raise JaxtrackError(f"{folder}: cannot be listed ({error.strerror or error})") from error
    return sorted(found, key=lambda path: natural_key(path.name))
