"""What lies in a folder: images, videos and clips, in natural order; the one lister of all readers.

A clip is a video file, or a folder with the images of its frames. Hidden files are passed over, among them
the ``._name`` files that macOS leaves on foreign disks, and so is whatever is no file: folders called
``a.jpg``, pipes, devices. A link that points nowhere stays in the list: its frame is missing, and reading it
says so, while leaving it out would move all later frames by one.
"""

from __future__ import annotations

import os
import pathlib
import re
import stat
from collections.abc import Iterable

from jaxtrack.errors import JaxtrackError, reason
from jaxtrack.io.paths import resolve

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
# Where benchmark sequences keep their frames: OTB, VOT, others.
FRAME_FOLDERS = ("img", "color", "imgs", "images", "frames")

_FOREIGN = ("__MACOSX", "Thumbs.db", "desktop.ini")
_DIGITS = re.compile(r"([0-9]+)")
_MAGIC = re.compile(r"[*?[]")

_Path = str | os.PathLike[str]


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key in which ``frame10`` comes after ``frame9``."""
    # Every second part is a number of the digits 0 to 9: other signs that Unicode calls digits are none.
    parts = enumerate(_DIGITS.split(name))
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in parts if part], name


def list_images(folder: _Path) -> list[pathlib.Path]:
    """Return the images of a folder in natural order (not those of its subfolders).

    Raises:
        JaxtrackError: the folder is missing or cannot be listed.
    """
    return list_files(folder, IMAGE_SUFFIXES)


def list_folders(folder: _Path) -> list[pathlib.Path]:
    """Return the visible subfolders of a folder in natural order.

    Raises:
        JaxtrackError: the folder is missing or cannot be listed.
    """
    place = resolve(folder)
    return [place / e.name for e in entries(place) if e.is_dir()]


def frames_of(folder: _Path) -> list[pathlib.Path]:
    """Return the frames of a clip's folder: its images, or those of the subfolder that benchmarks use.

    Where both have some, those of which there are more: a cover or thumbnail beside ``img/`` is no clip.

    Returns:
        The images in natural order; empty where the folder is no clip.

    Raises:
        JaxtrackError: the folder is missing or cannot be listed.
    """
    place = resolve(folder)
    found = list_images(place)
    inner: list[pathlib.Path] = []
    for name in FRAME_FOLDERS:
        if not inner and (place / name).is_dir():
            inner = list_images(place / name)
    return inner if len(inner) > len(found) else found


def check_numbers(images: Iterable[pathlib.Path]) -> None:
    """Refuse frames that are there twice, ``0001.png`` and ``0001.jpg``: as many again would be tracked.

    Raises:
        JaxtrackError: two images of one folder have the same number; both are named.
    """
    seen: dict[tuple[object, ...], pathlib.Path] = {}
    for path in images:
        first = seen.setdefault((path.parent, *natural_key(path.stem)[0]), path)
        if first is not path:
            raise JaxtrackError(
                f"two images in {path.parent} have the number {path.stem} ({first.name}, {path.name}); "
                "give one of them by a pattern, such as '*.jpg'"
            )


def in_order(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Return paths in natural order of their folders and names."""
    return sorted(paths, key=lambda path: [natural_key(part) for part in path.parts])


def expand(pattern: str) -> list[pathlib.Path]:
    """Return the files that a pattern such as ``"clip/*.jpg"`` names, in natural order.

    Args:
        pattern: with ``*``, ``?``, ``[...]`` and ``**`` (which does not follow links, so that it ends).

    Raises:
        JaxtrackError: a pattern that is none, or no path.
    """
    path = resolve(pattern)
    parts = path.parts
    fixed = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    root = pathlib.Path(*parts[:fixed])
    if fixed == len(parts):
        return [path] if _is_file(path) else []
    try:
        found = [
            place
            for place in root.glob(str(pathlib.Path(*parts[fixed:])))
            if not any(part.startswith(".") for part in place.parts[len(root.parts) :])
            and _is_file(place)
        ]
    except (ValueError, NotImplementedError, OSError, re.error) as error:
        raise JaxtrackError(f"{pattern}: cannot be used as a pattern ({reason(error)})") from error
    return in_order(found)


def is_data(name: str) -> bool:
    """Return whether a name is one of data: visible, and none that a system leaves behind."""
    return not name.startswith(".") and name not in _FOREIGN


def entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    """Return the visible entries of a folder in natural order.

    Raises:
        JaxtrackError: the folder is missing or cannot be listed.
    """
    try:
        with os.scandir(folder) as listed:
            found = [entry for entry in listed if is_data(entry.name)]
    except FileNotFoundError:
        raise JaxtrackError(f"{folder}: no such folder") from None
    except OSError as error:
        raise JaxtrackError(f"{folder}: cannot be listed ({reason(error)})") from error
    return sorted(found, key=lambda entry: natural_key(entry.name))


def is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a regular file, or a link that points nowhere."""
    return entry.is_file(follow_symlinks=False) or _is_file(pathlib.Path(entry.path))


def list_files(folder: _Path, suffixes: tuple[str, ...]) -> list[pathlib.Path]:
    """Return the files of a folder whose names end in one of some ways, in natural order.

    Args:
        folder: the folder.
        suffixes: endings in lower case.

    Raises:
        JaxtrackError: the folder is missing or cannot be listed.
    """
    place = resolve(folder)
    return [
        place / entry.name
        for entry in entries(place)
        if entry.name.lower().endswith(suffixes) and is_file(entry)
    ]


def _is_file(path: pathlib.Path) -> bool:
    """Return whether this is a regular file, or a link that points nowhere."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True
