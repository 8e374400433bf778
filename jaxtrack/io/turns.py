"""Processes that prepare side by side and measure one at a time."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator
from typing import IO, Any

from jaxtrack.errors import JaxtrackError, reason

_PATIENCE = 45.0  # seconds for which the slowest preparation of all may hold up a measurement


def accelerated() -> bool:
    """Return whether JAX will find an accelerator here, without starting it: another process may use it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return "cpu" not in platforms.split(",") and any(
        pathlib.Path(device).exists()
        for device in ("/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
    )


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(compiled: str | os.PathLike[str]) -> dict[str, str]:
    """Return the environment of processes that share an accelerator, and what they compile.

    None takes all of the device's memory at its start.

    Args:
        compiled: folder of compiled programs.
    """
    return {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": os.path.abspath(compiled),
    }


class Turns:
    """A file that processes share: many may prepare at once, and nobody does while one measures.

    One measures at a time. Who has waited too long for the others' preparations measures beside them. Where
    the system has no such locks, or no file is given, nobody waits.
    """

    def __init__(self, path: str | os.PathLike[str] | None, patience: float = _PATIENCE) -> None:
        """Name the file, which is made, and one beside it.

        Args:
            path: the file; None: nobody else measures.
            patience: seconds that a measurement waits for preparations to end.
        """
        self._patience = patience
        self._files: list[IO[bytes]] = []
        for name in () if path is None else (os.fspath(path), f"{os.fspath(path)}.measuring"):
            try:
                self._files.append(open(name, "ab"))  # noqa: SIM115 (held for life)
            except OSError as error:
                self.close()
                raise JaxtrackError(f"{name}: cannot be opened ({reason(error)})") from error

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Hold off measurements of others while preparing."""
        locks = self._locks()
        if locks is None:
            yield
            return
        with _held(locks, self._files[0], locks.LOCK_SH):
            yield

    @contextlib.contextmanager
    def measuring(self) -> Iterator[bool]:
        """Wait until nobody prepares or measures, and hold others off.

        Yields:
            Whether nobody prepares meanwhile.
        """
        locks = self._locks()
        if locks is None:
            yield True
            return
        quiet, device = self._files
        limit = time.monotonic() + self._patience
        with _held(locks, device, locks.LOCK_EX):
            while True:
                try:
                    locks.flock(quiet, locks.LOCK_EX | locks.LOCK_NB)
                except OSError:
                    if time.monotonic() >= limit:
                        yield False
                        return
                    time.sleep(0.05)
                else:
                    break
            try:
                yield True
            finally:
                locks.flock(quiet, locks.LOCK_UN)

    def _locks(self) -> Any:
        """Return the module of file locks; None where nobody waits."""
        try:
            import fcntl
        except ImportError:  # Windows
            return None
        return fcntl if self._files else None

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


@contextlib.contextmanager
def _held(locks: Any, file: IO[bytes], kind: int) -> Iterator[None]:
    locks.flock(file, kind)
    try:
        yield
    finally:
        locks.flock(file, locks.LOCK_UN)
