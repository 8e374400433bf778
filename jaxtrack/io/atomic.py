"""Files that are read whole, and appear whole or not at all; folders with one owner at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator

from jaxtrack.errors import JaxtrackError, brief, naming
from jaxtrack.io.paths import resolve

LOCK = ".jaxtrack.lock"

_LARGEST = 1 << 30  # bytes: more than any annotation, table or record of ours
_STALE_SECONDS = 24 * 3600
_PART = re.compile(r"\.(?P<name>.*)\.(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-[a-z0-9_]{8}(\.\w+)?")
_KEPT_NAME = 120  # characters of a name that go into its temporary's: names have 255 at most


def regular_file(path: str | os.PathLike[str], limit: int | None = None) -> pathlib.Path:
    """Return the resolved path of a file that can be opened without waiting for anyone.

    Args:
        path: the file.
        limit: most bytes; a larger file is refused. None: any number.

    Raises:
        JaxtrackError: it is missing, a folder, a pipe or device (which might never end), or too large.
    """
    place = resolve(path)
    try:
        found = place.stat()
    except FileNotFoundError:
        raise JaxtrackError(f"{place}: no such file") from None
    except OSError as error:
        raise JaxtrackError(f"{place}: cannot be read ({brief(error.strerror)})") from error
    if stat.S_ISDIR(found.st_mode):
        raise JaxtrackError(f"{place}: is a folder, a file is wanted")
    if not stat.S_ISREG(found.st_mode):
        raise JaxtrackError(f"{place}: is a device, pipe or socket, a file is wanted")
    if limit is not None and found.st_size > limit:
        raise JaxtrackError(
            f"{place}: {found.st_size:,} bytes, more than the {limit:,} that such a file may have"
        )
    return place


def read_whole(path: str | os.PathLike[str], limit: int = _LARGEST) -> bytes:
    """Return the bytes of a file.

    Args:
        path: the file.
        limit: most bytes; a larger file is refused before it is read.

    Raises:
        JaxtrackError: it is no regular file, too large, or cannot be read.
    """
    place = regular_file(path, limit)
    with naming(place):
        return place.read_bytes()


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under another name first, then rename it; missing folders are made.

    A link stays a link: what it points to is written. Temporaries of this file that killed processes have
    left are removed.

    Args:
        path: the file; an older one of this name stays as it is until the new one is complete.
        data: its content.

    Raises:
        JaxtrackError: the folder cannot be made, the disk is full, or writing is not allowed.
    """
    shown = resolve(path)
    temporary = None
    with naming(shown, "cannot be written"):
        place = pathlib.Path(os.path.realpath(shown))
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if place.exists() and not place.is_file():  # a pipe or a device is written, never replaced
            place.write_bytes(data)
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            sweep(place)
            temporary = temporary_beside(place)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, place)
        except BaseException:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise


class Pending:
    """A file that is written under another name until it is finished.

    Attributes:
        path: the name that it will have.
        temporary: where it is written meanwhile; it exists, empty.
    """

    def __init__(self, path: str | os.PathLike[str], suffix: str = "") -> None:
        """Make the temporary file, and the folder if it is missing.

        Args:
            path: the file.
            suffix: end of the temporary's name, for libraries that tell the format by it.

        Raises:
            JaxtrackError: nothing can be written there.
        """
        self.path = resolve(path)
        with naming(self.path, "cannot be written"):
            self._place = pathlib.Path(os.path.realpath(self.path))
            self._place.parent.mkdir(parents=True, exist_ok=True)
            sweep(self._place)
            self.temporary = temporary_beside(self._place, suffix)
            self.temporary.write_bytes(b"")

    def keep(self) -> None:
        """Give the file its name, in place of an older one.

        Raises:
            JaxtrackError: it cannot be renamed.
        """
        with naming(self.path, "cannot be written"):
            os.replace(self.temporary, self._place)

    def keep_if_alone(self) -> bool:
        """Give a broken file its name unless it is empty or would replace an older one; then it is removed.

        Returns:
            Whether it was kept.
        """
        if self._place.exists() or not self.temporary.stat().st_size:
            self.drop()
            return False
        self.keep()
        return True

    def drop(self) -> None:
        """Remove the file; an older one of its name stays."""
        self.temporary.unlink(missing_ok=True)


def temporary_beside(path: pathlib.Path, suffix: str = "") -> pathlib.Path:
    """Return an unused name beside a file or folder, to write it under first; `sweep` knows such names.

    Args:
        path: the file that it will become.
        suffix: the temporary's own, where a library tells the format by it.
    """
    name, random = path.name[:_KEPT_NAME], secrets.token_hex(4)
    return path.with_name(f".{name}.{_host()}-{os.getpid()}-{random}{suffix}")


def sweep(path: pathlib.Path) -> None:
    """Remove temporaries of a file or folder whose writers have died.

    Args:
        path: what they would have become.
    """
    try:
        with os.scandir(path.parent) as entries:
            names = [e.name for e in entries if e.name.startswith(f".{path.name[:_KEPT_NAME]}.")]
    except OSError:
        return
    for name in names:
        found = _PART.match(name)
        if not found or found["name"] != path.name[:_KEPT_NAME]:
            continue
        left = path.with_name(name)
        with contextlib.suppress(OSError):
            if found["host"] == _host():
                over = not _alive(int(found["pid"]))
            else:
                over = time.time() - left.stat().st_mtime > _STALE_SECONDS
            if over and left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif over:
                left.unlink()


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def lock(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Own a folder for a while; the system gives it back when the process dies, however it dies.

    Args:
        folder: made if missing; holds the file `LOCK` meanwhile.

    Raises:
        JaxtrackError: another process owns it (named), or it cannot be written.
    """
    place = resolve(folder)
    with naming(place, "cannot be written"):
        place.mkdir(parents=True, exist_ok=True)
        handle = _locked(place)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (place / LOCK).unlink()
        os.close(handle)


def _locked(folder: pathlib.Path) -> int:
    """Return the open lock file of a folder, with this process as its owner."""
    import fcntl

    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(os.read(handle, 4096))
            os.close(handle)
            raise JaxtrackError(
                f"{folder}: in use by {owner}; wait for it or stop it, or name another folder"
            ) from None
        except OSError as error:
            # A file system without locks: the file alone is the mark.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
                os.close(handle)
                raise
        # The last owner may have removed the file between our opening it and locking it.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        os.close(handle)
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": brief(" ".join(sys.argv), 160),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(about).encode(), 0)
    return handle


def _owner(data: bytes) -> str:
    try:
        about = json.loads(data)
        return brief(
            f"process {about['pid']} on {about['host']} since {about['since']} ({about['command']})"
        )
    except (ValueError, TypeError, KeyError):
        return "another process"
