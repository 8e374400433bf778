"""Paths as users give them: one resolver for all commands and readers, and outputs that harm no input."""

from __future__ import annotations

import os
import pathlib
import re
import stat
import urllib.parse
from collections.abc import Iterable

from jaxtrack.errors import JaxtrackError, UsageError, brief, reason

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_FILE = re.compile(r"(?:[\w.-]+[:+])*file://", re.IGNORECASE)

PathLike = str | os.PathLike[str]


def resolve(path: PathLike) -> pathlib.Path:
    """Return a path as the file system takes it: ``~`` expanded, otherwise as given.

    Relative paths stay relative and links stay links, so that messages show what was typed.

    Args:
        path: of a local file or folder.

    Raises:
        JaxtrackError: empty, with a NUL or a character that is none, an unknown user's ``~``, or the address
            of something that is not local.
    """
    text = os.fspath(path)
    if not text:
        raise JaxtrackError("an empty path: give a file or a folder")
    if "\0" in text:
        raise JaxtrackError(f"{brief(text)}: a path cannot hold a NUL character")
    try:
        os.fsencode(text)
    except UnicodeError as error:
        raise JaxtrackError(f"{brief(text)}: a path cannot hold a lone surrogate") from error
    scheme = _SCHEME.match(text)
    if scheme is not None:
        raise JaxtrackError(
            f"{brief(text)}: a local path is wanted here, not an address ({scheme[1]}://); "
            f"{_instead(text[scheme.end() :], scheme[1])}"
        )
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise JaxtrackError(f"{brief(text)}: no home folder is known for its ~") from error


def _instead(rest: str, scheme: str) -> str:
    """Return what to do about an address: ``file://`` names a path of this machine, others do not."""
    host, slash, place = rest.partition("/")
    if scheme.lower() == "file" and slash and host.lower() in ("", "localhost"):
        return f"give {brief(urllib.parse.unquote(slash + place))}"
    return "fetch it first"


def is_stream(text: str) -> bool:
    """Return whether a text is the address of something that is not a file of this machine.

    ``file://`` is none, nor behind another scheme (``cache:file://``): who took it for a stream would not
    know which file is read, and let an output replace it.
    """
    return "://" in text and _FILE.match(text) is None


def output_file(path: PathLike, inputs: Iterable[PathLike] = ()) -> pathlib.Path:
    """Return the resolved path of a file that may be written; missing folders are made at writing.

    Args:
        path: the output.
        inputs: files that must stay as they are, and folders in which nothing is replaced.

    Raises:
        UsageError: it is an input, also by a link or a second name of the same file.
        JaxtrackError: it is a folder or a device, or cannot be written.
    """
    place = resolve(path)
    kind = _kind(place)
    if kind == "folder":
        raise JaxtrackError(f"{place}: is a folder, the name of a file is wanted")
    if kind == "special":
        raise JaxtrackError(f"{place}: is a device, pipe or socket, not a file")
    _refuse_inputs(place, inputs)
    _check_writable(place, kind)
    return place


def output_folder(path: PathLike, inputs: Iterable[PathLike] = ()) -> pathlib.Path:
    """Return the resolved path of a folder that may be written into; it need not exist.

    Args:
        path: the output.
        inputs: files and folders that must stay as they are.

    Raises:
        UsageError: it is an input.
        JaxtrackError: it is a file, or cannot be written.
    """
    place = resolve(path)
    kind = _kind(place)
    if kind in ("file", "special"):
        raise JaxtrackError(f"{place}: is a file, the name of a folder is wanted")
    _refuse_inputs(place, inputs)
    _check_writable(place, kind)
    return place


def same(one: PathLike, other: PathLike) -> bool:
    """Return whether two paths are the same file or folder, under whatever names.

    Paths of things that do not exist are the same when their real places are.
    """
    one, other = resolve(one), resolve(other)
    try:
        return os.path.samefile(one, other)
    except OSError:
        return _real(one) == _real(other)


def _real(path: pathlib.Path) -> str:
    try:
        return os.path.realpath(path)
    except OSError:  # a loop of links
        return os.path.abspath(path)


def _kind(path: pathlib.Path) -> str:
    """Return "file", "folder", "special" or "" (nothing there)."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise JaxtrackError(f"{path}: cannot be written ({reason(error)})") from error
    if stat.S_ISDIR(mode):
        return "folder"
    # /dev/null and friends take output by being written, never by being replaced.
    return "file" if stat.S_ISREG(mode) else "special"


def _refuse_inputs(place: pathlib.Path, inputs: Iterable[PathLike]) -> None:
    # x/../a is the file a for whoever makes x on the way to it.
    there = place if place.exists() else pathlib.Path(_real(place))
    if not there.exists():
        return
    for given in inputs:
        source = resolve(given)
        if same(there, source):
            raise UsageError(
                f"{place}: is also an input ({source}) and would be overwritten; name another output"
            )
        if source.is_dir() and there.is_file() and _inside(there, source):
            raise UsageError(
                f"{place}: is a file of the input {source} and would be overwritten; "
                "name another output"
            )


def _inside(path: pathlib.Path, folder: pathlib.Path) -> bool:
    return pathlib.Path(_real(path)).is_relative_to(_real(folder))


def _check_writable(place: pathlib.Path, kind: str) -> None:
    """Check permissions without leaving anything behind."""
    standing = place
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    if standing != place and not standing.is_dir():
        raise JaxtrackError(f"{place}: cannot be written ({standing} is not a folder)")
    folder = standing if standing.is_dir() else standing.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise JaxtrackError(f"{place}: cannot be written (permission denied in {folder})")
    if kind == "file" and not os.access(place, os.W_OK):
        raise JaxtrackError(f"{place}: cannot be written (permission denied)")
