"""Processes that prepare side by side and measure one at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

from jaxtrack.errors import JaxtrackError, reason


class Turns:
    """A file that processes share: many may prepare at once, nobody does while one measures.

    Where the system has no such locks, or no file is given, nobody waits.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """Name the file, which is made; None: nobody else measures."""
        self._file: IO[bytes] | None = None
        try:
            self._file = open(path, "ab") if path is not None else None  # noqa: SIM115 (held for life)
        except OSError as error:
            raise JaxtrackError(f"{path}: cannot be opened ({reason(error)})") from error

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Hold off measurements of others while preparing."""
        with self._held(exclusive=False):
            yield

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Wait until nobody prepares or measures, and hold others off."""
        with self._held(exclusive=True):
            yield

    @contextlib.contextmanager
    def _held(self, exclusive: bool) -> Iterator[None]:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        if self._file is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
