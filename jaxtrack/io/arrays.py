"""Read ``.npz`` files from outside: numbers and texts only, and never more than was agreed on."""

from __future__ import annotations

import math
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from jaxtrack.errors import JaxtrackError, brief, reason
from jaxtrack.io.archives import open_zip, unpacked_room

_MOST_ARRAYS = 20_000
_LONGEST_HEADER = 10_000
_CHUNK = 1 << 20
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'(?P<descr>[<>|=]?(?:\?|[bB]|b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,6}))',\s*"
    rb"'fortran_order':\s*(?P<fortran>True|False),\s*"
    rb"'shape':\s*\((?P<shape>(?:\d{1,18}L?,\s*){0,32}(?:\d{1,18})?)\),?\s*\}\s*"
)
_BROKEN = (
    OSError, ValueError, EOFError, KeyError, MemoryError, OverflowError, RecursionError,
    NotImplementedError, RuntimeError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error,
)  # fmt: skip


def read_arrays(
    path: str | os.PathLike[str], wanted: int | None = None, texts: bool = False
) -> dict[str, np.ndarray]:
    """Return the arrays of a ``.npz`` file, ``{name: array}``.

    Args:
        path: the file.
        wanted: bytes that the caller can use; the arrays may take four times as much. None: only the size
            of the file bounds them.
        texts: whether arrays of texts are wanted too.

    Raises:
        JaxtrackError: missing, damaged, no ``.npz`` file, an array of something else than numbers (and
            texts), or more than a file of this size, or the caller, lets expect.
    """
    path = pathlib.Path(path)
    try:
        with open_zip(path) as archive:
            room = unpacked_room(path.stat().st_size, wanted)
            return dict(_arrays(archive, room, texts))
    except _BROKEN as error:
        raise JaxtrackError(
            f"{brief(path, 400)}: not a whole .npz file of arrays ({reason(error)})"
        ) from error


def _arrays(archive: zipfile.ZipFile, room: int, texts: bool) -> Iterator[tuple[str, np.ndarray]]:
    infos = archive.infolist()
    if not any(info.filename.endswith(".npy") for info in infos):
        raise ValueError("it holds no array")
    if len(infos) > _MOST_ARRAYS:
        raise ValueError(f"more than {_MOST_ARRAYS} entries")
    size = sum(info.file_size for info in infos)
    if size > room:
        raise ValueError(f"it unpacks to {size / 1e6:.0f} MB, far more than can be wanted")
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise ValueError(f"{brief(name, 80)} is no array")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{brief(name, 80)} is packed in a way that numpy does not use")
        if info.flag_bits & 1:
            raise ValueError(f"{brief(name, 80)} is encrypted")
        with archive.open(info) as file:
            try:
                yield name, _array(file, info.file_size, texts)
            except ValueError as error:
                raise ValueError(f"{brief(name, 80)}: {error}") from error


def _array(file: IO[bytes], size: int, texts: bool) -> np.ndarray:
    """Return one array in numpy's format, of which not more is believed than its bytes bear out.

    Reference: numpy, ``numpy.lib.format``.
    """
    head = file.read(8)
    if head[:6] != b"\x93NUMPY" or len(head) < 8 or head[6] not in (1, 2, 3):
        raise ValueError("not in numpy's format")
    width = 2 if head[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise ValueError("a header that is far too long")
    found = _HEADER.fullmatch(file.read(length))
    dtype = None if found is None else np.dtype(found["descr"].decode())
    if found is None or dtype is None or (dtype.kind in "US" and not texts):
        raise ValueError("no array of plain numbers" + " or texts" * texts)
    shape = tuple(int(side.rstrip(b"L")) for side in re.findall(rb"\d+L?", found["shape"]))
    count = math.prod(shape)
    if not dtype.itemsize:
        raise ValueError("an array of empty texts")
    if count * dtype.itemsize != size - 8 - width - length:
        raise ValueError("an array whose bytes do not fit its shape")
    data = bytearray(count * dtype.itemsize)
    filled = 0
    while filled < len(data):
        part = file.read(min(_CHUNK, len(data) - filled))
        if not part:
            raise EOFError("ends too early")
        data[filled : filled + len(part)] = part
        filled += len(part)
    if file.read(1):  # also makes zipfile compare the checksum
        raise ValueError("an array whose bytes do not fit its shape")
    flat = np.frombuffer(data, dtype, count)
    return flat.reshape(shape, order="F" if found["fortran"] == b"True" else "C")
