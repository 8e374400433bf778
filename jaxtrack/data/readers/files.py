"""The files of a dataset's folder: what is there, in natural order, and the numbers in their names.

Every reader lists folders through this module, so that what is no data (hidden files, ``._`` copies that
macOS leaves on foreign disks, ``__MACOSX``, pipes) is skipped alike everywhere.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from jaxtrack.errors import JaxtrackError, brief, reason
from jaxtrack.io import clips, paths

natural_key = clips.natural_key

_LAST_NUMBER = re.compile(r"([0-9]+)(?:\.[^.]*)?$")


def frame_number(reference: str) -> int | None:
    """Find the number in the name of a frame's file.

    Args:
        reference: a path or ``ARCHIVE.zip::MEMBER``.

    Returns:
        The digits that end the name, as in ``img_0012.jpg``; None without any.
    """
    found = _LAST_NUMBER.search(os.path.basename(reference.rpartition("::")[2]))
    return int(found[1]) if found else None


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """List what a folder holds, in natural order, without what is no data.

    Args:
        folder: a folder; a missing one holds nothing.

    Returns:
        Its entries.

    Raises:
        JaxtrackError: it cannot be listed, or a name in it is not UTF-8.
    """
    if not _is_folder(folder):
        return []
    found = clips.entries(folder)
    for entry in found:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise JaxtrackError(
                f"{folder} holds a name that is not UTF-8 ({brief(entry.name, 80)}): rename it"
            ) from None
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise JaxtrackError(f"{path}: cannot be read ({reason(error)})") from error


def subfolders(path: Path) -> list[Path]:
    """List the sub-folders in natural order.

    Args:
        path: a folder.

    Returns:
        Their paths; none when ``path`` does not exist.
    """
    return [path / e.name for e in entries(path) if e.is_dir()]


def named(path: Path, *suffixes: str) -> list[Path]:
    """List the files of a folder whose names end in one of some ways, in natural order.

    Args:
        path: a folder.
        *suffixes: endings such as ``.txt`` or ``_gt.txt``, in lower case.

    Returns:
        Their paths; none when ``path`` does not exist.
    """
    return [path / name for name in _names(path, suffixes)]


def _names(path: Path, suffixes: tuple[str, ...]) -> list[str]:
    return [e.name for e in entries(path) if e.name.lower().endswith(suffixes) and clips.is_file(e)]


def walk(root: Path, suffix: str) -> Iterator[Path]:
    """Go through a folder and all below it; a link that leads back is not followed.

    Args:
        root: the folder.
        suffix: ending of the files to give.

    Yields:
        Paths, folder by folder.
    """
    visited: set[tuple[int, int]] = set()

    def inside(folder: Path) -> Iterator[Path]:
        state = os.stat(folder)
        if (state.st_dev, state.st_ino) in visited:
            return
        visited.add((state.st_dev, state.st_ino))
        yield from named(folder, suffix)
        for inner in subfolders(folder):
            yield from inside(inner)

    if root.is_dir():
        yield from inside(root)


def list_images(folder: Path) -> list[str]:
    """List the image files of a folder in natural order.

    Args:
        folder: a folder; a missing one has no images.

    Returns:
        Paths as strings.
    """
    return [f"{folder}{os.sep}{name}" for name in _names(folder, clips.IMAGE_SUFFIXES)]


def list_zip_images(archive: Path) -> list[str]:
    """List the images inside a zip file in natural order of their base names.

    Args:
        archive: the zip file.

    Returns:
        References ``ARCHIVE::MEMBER``.

    Raises:
        JaxtrackError: the archive cannot be read.
    """
    if not archive.is_file():
        raise JaxtrackError(f"{archive} is not a zip file")
    try:
        with zipfile.ZipFile(archive) as z:
            members = z.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise JaxtrackError(
            f"{archive} is not a readable zip file ({brief(error)}): fetch it again"
        ) from error
    kept = [
        m
        for m in members
        if m.lower().endswith(clips.IMAGE_SUFFIXES)
        and all(clips.is_data(part) for part in m.split("/"))
    ]
    return [f"{archive}::{m}" for m in sorted(kept, key=lambda m: natural_key(os.path.basename(m)))]


def require_root(dataset: str, root: str | os.PathLike) -> Path:
    """Check that a dataset's folder exists and is not empty.

    Args:
        dataset: dataset name, for the message.
        root: the folder.

    Returns:
        The folder as a Path.

    Raises:
        JaxtrackError: it is missing, a file, empty, or may not be read.
    """
    path = paths.resolve(root)
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError as error:
        raise JaxtrackError(f"{dataset}: {path} cannot be read: {error.strerror}") from error
    if not there:
        raise JaxtrackError(
            f"{dataset}: no folder {path}: give the folder that the dataset unpacks to"
        )
    if not folder:
        raise JaxtrackError(
            f"{dataset}: {path} is a file: give the folder that the dataset unpacks to"
        )
    if not entries(path):
        raise JaxtrackError(f"{dataset}: the folder {path} is empty: unpack the dataset there")
    return path


class WrongLayoutError(JaxtrackError):
    """A folder that holds something else than the dataset that was named."""


def wrong_layout(dataset: str, root: Path, looked_for: str) -> WrongLayoutError:
    """Build the error for a folder that holds something else.

    Args:
        dataset: dataset name.
        root: the folder.
        looked_for: patterns under ``root`` that the dataset's own layout has.

    Returns:
        The error (to be raised), which also says what the folder holds instead.
    """
    listed = entries(root)
    found = [e.name for e in listed]
    shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    if len(listed) == 1 and listed[0].is_dir():
        shown += f" alone: is {root / found[0]} the folder to give?"
    return WrongLayoutError(
        f"{dataset}: {root} has another layout: looked for {looked_for}; it holds {shown}"
    )


def too_deep(folders: Iterable[Path], is_video: Callable[[Path], bool]) -> list[str]:
    """Find videos that lie in a folder of their own name, as archives leave them that hold one.

    Args:
        folders: those that are no videos.
        is_video: whether a folder is one.

    Returns:
        One line for each.
    """
    inner = (folder / folder.name for folder in folders)
    return [f"{v} lies a folder too deep: move it one up" for v in inner if is_video(v)]


def inside(folder: Path, name: str, where: str) -> Path:
    """Join a name from a dataset's own list to its folder.

    Args:
        folder: the folder.
        name: a relative path as a list or an annotation gives it.
        where: what gives it, for the message.

    Returns:
        The path.

    Raises:
        JaxtrackError: the name leads out of the folder.
    """
    parts = re.split(r"[/\\]", name)
    if not name or name.startswith(("/", "\\")) or ".." in parts or "\0" in name or ":" in parts[0]:
        raise JaxtrackError(f"{where}: the name {brief(name, 80)!r} leads out of {folder}")
    return folder / name


def names_listed(path: Path, text: str) -> list[str]:
    """Read the folder names of a dataset's ``list.txt``.

    Args:
        path: the file, for the message.
        text: its content.

    Returns:
        One name for each line.

    Raises:
        JaxtrackError: a name leads out of the folder, or the list is empty.
    """
    listed: Iterable[str] = dict.fromkeys(line.strip() for line in text.splitlines())
    names = [name for name in listed if name]
    for name in names:
        if inside(path.parent, name, str(path)).parent != path.parent:
            raise JaxtrackError(
                f"{path}: the name {brief(name, 80)!r} is not that of a folder beside it"
            )
    return names
