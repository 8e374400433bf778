"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import pathlib
import tempfile

from jaxtrack.errors import JaxtrackError


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under another name first, then rename it; missing folders are made.

    Args:
        path: the file; an older one of this name stays as it is until the new one is complete.
        data: its content.

    Raises:
        JaxtrackError: the folder cannot be made, the disk is full, or writing is not allowed.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            pathlib.Path(temporary).unlink(missing_ok=True)
        raise JaxtrackError(f"{path}: cannot be written ({error.strerror or error})") from error
