"""Errors that a user can do something about, and the words they are told in."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import struct
import sys
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    # What the libraries below us raise at a file that is missing, damaged, hostile or too large.
    BROKEN_INPUT: tuple[type[Exception], ...]

_SHOWN_NAMES = 40
_BROKEN: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    UnicodeError,
    MemoryError,
    OverflowError,
    RecursionError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    json.JSONDecodeError,
    ElementTree.ParseError,
    struct.error,
    zlib.error,
)


def __getattr__(name: str) -> Any:
    """Return ``BROKEN_INPUT``, for which OpenCV is loaded."""
    if name != "BROKEN_INPUT":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import cv2

    return (*_BROKEN, cv2.error)


def is_broken_input(error: BaseException) -> bool:
    """Return whether an exception is one of ``BROKEN_INPUT``, without loading OpenCV."""
    return isinstance(error, _BROKEN) or is_opencv(error)


def is_opencv(error: BaseException) -> bool:
    """Return whether OpenCV raised this."""
    cv2 = sys.modules.get("cv2")
    return cv2 is not None and isinstance(error, cv2.error)


class JaxtrackError(Exception):
    """A user's mistake or an unusable input, told in one line: what, where, and what to do.

    Command lines print it without a traceback and exit with status 1 (or 2 for usage); libraries may
    catch it. Bugs raise ordinary exceptions and keep their traceback.
    """


class UsageError(JaxtrackError):
    """A mistake in how a command or a function was called; a command exits with status 2."""


def unknown(what: str, name: object, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not known, a mistake in the call; the nearest ones are offered.

    Args:
        what: kind of the name, such as "tracker preset".
        name: what was given.
        known: the names that exist.
    """
    return UsageError(f"unknown {what} {brief(repr(name), 80)}; {nearest(name, known)}")


def nearest(name: object, known: Iterable[str]) -> str:
    """Return "nearest: a, b" for a name that is not known, or "known: ..." where nothing is near."""
    names = list(known)
    near = difflib.get_close_matches(brief(str(name), 80), names, n=3, cutoff=0.4)
    if near:
        return f"nearest: {', '.join(near)}"
    if not names:
        return "none is known"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f"known: {', '.join(names[:_SHOWN_NAMES])}{more}"


def brief(text: object, limit: int = 200) -> str:
    """Return foreign text fit for a message: one line, printable, bounded.

    Args:
        text: what is to be shown: a name, a line of a file, another library's message.
        limit: most characters; longer text is cut and ends in "...".
    """
    if not isinstance(text, (str, bytes)):
        try:
            text = str(text)
        except Exception:  # a foreign object's own fault must not hide the message
            text = f"<{type(text).__name__}>"
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "backslashreplace")
    cut = len(text) > limit
    text = printable(text[: limit - 3] if cut else text)
    return text[: limit - 3] + "..." if cut or len(text) > limit else text


def printable(text: str) -> str:
    """Return text on one line, in which control characters and lone surrogates are written as escapes."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs", "Cf", "Zl", "Zp")
        else character
        for character in text
    )


def reason(error: BaseException) -> str:
    """Return what another library's exception says, in one short line, without the file's name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not text, or text of another encoding than UTF-8"
    if is_opencv(error):
        return brief(f"OpenCV: {getattr(error, 'err', '') or 'cannot use it'}")
    return brief(str(error) or type(error).__name__)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], doing: str = "cannot be read") -> Iterator[None]:
    """Turn what libraries raise at a file into one line that names it.

    Args:
        path: the file.
        doing: what failed, as a predicate of the file.

    Raises:
        JaxtrackError: one of `BROKEN_INPUT` was raised inside.
    """
    try:
        yield
    except Exception as error:
        if not is_broken_input(error):
            raise
        raise JaxtrackError(f"{os.fspath(path)}: {doing} ({reason(error)})") from error
