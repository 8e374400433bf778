"""Zip archives from outside: what they may hold is bounded before anything of it is made."""

from __future__ import annotations

import os
import pathlib
import re
import struct
import zipfile

from jaxtrack.io.atomic import regular_file

_END, _END64 = b"PK\5\6", b"PK\6\6"
_IN_END64 = 0xFFFFFFFF  # the older record's way to say that the size stands in the newer one
_LONGEST_TAIL = 65_535 + 22 + 20 + 56  # a comment, and both records with the pointer between them
_MOST_DIRECTORY = 8 << 20  # bytes of the table of contents: some 80,000 entries
# Weights and boxes hardly pack; beyond this ratio, and this much beside it, a file is none of ours to unpack.
_USUAL_RATIO = 16
_ROOM_BESIDE = 1 << 26


def open_zip(path: str | os.PathLike[str]) -> zipfile.ZipFile:
    """Open a zip archive whose table of contents is of a sound size and names each entry once.

    Args:
        path: the file.

    Raises:
        JaxtrackError: no regular file.
        OSError, ValueError, zipfile.BadZipFile: no zip archive, damaged, or far too many entries.
    """
    path = regular_file(path)
    if _directory_size(path) > _MOST_DIRECTORY:
        raise ValueError("its table of contents is far too large")
    archive = zipfile.ZipFile(path)
    if len(set(archive.namelist())) != len(archive.namelist()):
        archive.close()
        raise ValueError("an archive that holds a name twice")
    return archive


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of an entry that is neither packed nor encrypted.

    Args:
        archive: the open archive.
        info: the entry.

    Raises:
        ValueError: it is packed (so that a small file cannot become a large one) or encrypted, or reaches
            beyond the archive.
        zipfile.BadZipFile: its checksum is another.
    """
    name = info.filename.rpartition("/")[2]
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"{name} is compressed or encrypted")
    if info.compress_size != info.file_size or info.file_size > archive_size(archive):
        raise ValueError(f"{name} ends beyond the file")
    return archive.read(info)


def archive_size(archive: zipfile.ZipFile) -> int:
    """Return the bytes of the archive's file."""
    assert archive.fp is not None
    return os.fstat(archive.fp.fileno()).st_size


def unpacked_room(size: int, wanted: int | None = None) -> int:
    """Return the most bytes that a packed file may unpack to.

    Args:
        size: of the file, in bytes.
        wanted: bytes that the reader can use, where it knows; four times as much is allowed.
    """
    return max(_USUAL_RATIO * size, 4 * (wanted or 0)) + _ROOM_BESIDE


def _directory_size(path: pathlib.Path) -> int:
    """Return the greatest size that an end record gives the table of contents."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _LONGEST_TAIL, 0))
        tail = file.read()
    sizes = [0]
    for signature, place, form in ((_END, 12, "<I"), (_END64, 40, "<Q")):
        for found in re.finditer(re.escape(signature), tail):
            at = found.start() + place
            if at + struct.calcsize(form) <= len(tail):
                sizes += struct.unpack_from(form, tail, at)
    return max(value for value in sizes if value != _IN_END64)
