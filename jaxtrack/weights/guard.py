"""One line for whatever a damaged or hostile file of weights makes its reader trip over."""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator

from jaxtrack.errors import JaxtrackError, brief, reason

# A file from outside may have any number in any place. Each reader checks what it uses; what is left
# arrives as one of these. Other exceptions are faults of ours and keep their traceback.
DAMAGE: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], damaged: str) -> Iterator[None]:
    """Name the file in every error of its reader.

    Args:
        path: the file.
        damaged: what to say of a file that is not well-formed.

    Raises:
        JaxtrackError: in one line, in place of anything that a file can cause.
    """
    where = brief(os.fspath(path), 400)
    try:
        yield
    except JaxtrackError as error:
        raise JaxtrackError(f"{where}: {error}") from error
    except OSError as error:
        raise JaxtrackError(
            f"{where}: cannot be read ({error.strerror or reason(error)})"
        ) from error
    except DAMAGE as error:
        raise JaxtrackError(f"{where}: {damaged} ({reason(error)})") from error
