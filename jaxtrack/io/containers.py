"""What a video file says of its own length, and whether the file is whole.

Decoders tell a number of frames that is exact in some containers and a guess in others: in Matroska it comes
from the duration, which the longest stream sets, so that sound that goes on after the pictures looks like
missing frames. Whether frames are really missing shows in the file's structure: a container that was cut off
declares more bytes than there are.
"""

from __future__ import annotations

import os
import pathlib
import struct
from typing import BinaryIO

_SEGMENT = b"\x18\x53\x80\x67"
_EBML = b"\x1a\x45\xdf\xa3"
_MOVIE_LIMIT = 1 << 26  # bytes of an index that are read


def owes_frames(path: str | os.PathLike[str]) -> bool:
    """Return whether a video that ends before its declared number of frames lacks some of them.

    Args:
        path: a file that could be opened as a video.

    Returns:
        False where the number was only a guess and the file's structure is whole.
    """
    place = pathlib.Path(path)
    try:
        size = place.stat().st_size
        with open(place, "rb") as file:
            start = file.read(12)
            if start.startswith(_EBML):
                return _matroska_is_cut(file, size)
            if start[:4] == b"RIFF":
                return True  # the header counts frames
            if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return _mp4_owes(file, size)
    except (OSError, struct.error, ValueError):
        return True
    # Streams of packets (.ts, .mpg, .flv): a guess from the bit rate, and every end is an end.
    return False


def _matroska_is_cut(file: BinaryIO, size: int) -> bool:
    place = 0
    for _ in range(16):  # the header, perhaps something void, then the segment
        file.seek(place)
        data = file.read(16)
        known = _element_length(data)
        if known is None:
            return True
        head, length = known
        if data.startswith(_SEGMENT):
            # A length of ones only: written live, nobody knew the end.
            return length is not None and place + head + length > size
        if length is None:
            return True
        place += head + length
    return True


def _element_length(data: bytes) -> tuple[int, int | None] | None:
    """Return the bytes of an EBML element's head and of its body (None: unknown)."""
    if len(data) < 2 or not data[0]:
        return None
    mark = 9 - data[0].bit_length()  # bytes of the identifier
    if mark > 4 or len(data) <= mark or not data[mark]:
        return None
    width = 9 - data[mark].bit_length()
    if len(data) < mark + width:
        return None
    value = int.from_bytes(data[mark : mark + width], "big") & ((1 << 7 * width) - 1)
    return mark + width, None if value == (1 << 7 * width) - 1 else value


def _mp4_owes(file: BinaryIO, size: int) -> bool:
    """Return whether an MP4 is cut off, or has an exact count that nothing shortens on purpose."""
    place, index = 0, b""
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = struct.unpack_from(">I4s", head)
        if length == 1:
            (length,) = struct.unpack_from(">Q", head, 8)
        elif length == 0:  # to the end of the file
            length = size - place
        if length < 8 or place + length > size:
            return True
        if kind == b"moof":
            return False  # in fragments: the number was a guess
        if kind == b"moov":
            file.seek(place)
            index = file.read(min(length, _MOVIE_LIMIT))
        place += length
    return not _is_edited(index)


def _is_edited(index: bytes) -> bool:
    """Return whether an edit list leaves out frames of a track."""
    at = index.find(b"elst")
    while at >= 0:
        version, count = index[at + 4], int.from_bytes(index[at + 8 : at + 12], "big")
        form, width = (">Qq", 20) if version else (">Ii", 12)
        for entry in range(min(count, 64)):
            start = at + 12 + entry * width
            if start + width > len(index):
                break
            _, media_time = struct.unpack_from(form, index, start)
            if count > 1 or media_time > 0:
                return True
        at = index.find(b"elst", at + 4)
    return False
