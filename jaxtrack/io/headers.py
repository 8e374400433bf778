"""What an encoded image says of itself before it is decoded: its size, and whether its bytes are whole.

Decoders make the picture first and ask later: a small file can declare a picture of gigabytes, and a JPEG
that is damaged in the middle comes back half grey without a word.
"""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np

# JPEG: the frame header carries the size; these markers are frame headers.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Tables that may stand between two scans of a JPEG.
_TABLES = frozenset({0xC4, 0xDB, 0xDC, 0xDD})
# No picture compresses to so many zeros, but a hole in a file is made of them.
_HOLE = bytes(512)
_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}
_PNM = re.compile(rb"P([2356])(?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})\s")
_PNM_MOST = re.compile(
    rb"P([2356])(?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,5})\s"
)

# What a repository holds in place of a large file until it is fetched.
POINTER = "a Git LFS pointer, not the file itself: run git lfs pull"


def is_pointer(data: bytes) -> bool:
    """Return whether these bytes, or first bytes, are those of a Git LFS pointer."""
    return data.startswith(b"version https://git-lfs")


def size_of(data: bytes) -> tuple[int, int] | None:
    """Return the size that an image's header declares.

    Args:
        data: a JPEG, PNG, BMP, WebP, TIFF or PNM file.

    Returns:
        ``(height, width)``; None where this is no such image.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        if data.startswith(b"BM"):
            return _bmp_size(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff_size(data)
        found = _PNM.match(data[:4096])
        return (int(found[3]), int(found[2])) if found else None
    except (struct.error, IndexError, KeyError):
        return None


def fault_of(data: bytes) -> str | None:
    """Return what is wrong with the bytes of an image that a decoder might pass over, or None.

    What lies behind the end of an image is not looked at, whatever its format: cameras append thumbnails
    and second pictures, and no decoder reads them.

    Args:
        data: the file.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_fault(data)
        if data.startswith(b"\x89PNG"):
            return _png_fault(data)
        if data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data):
            return "truncated image"
        if data.startswith(b"BM"):
            return _bmp_fault(data)
        return _pnm_fault(data)
    except (struct.error, IndexError):
        return "truncated image"


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    for marker, place in _segments(data):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 3)
            return height, width
    return None


def _segments(data: bytes) -> list[tuple[int, int]]:
    """Return (marker, place of its length) of a JPEG's segments, up to its first scan."""
    found, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        found.append((marker, place + 2))
        if marker == 0xDA:
            break
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return found


def _jpeg_fault(data: bytes) -> str | None:
    segments = _segments(data)
    if not segments or segments[-1][0] != 0xDA:
        return "truncated image"
    fault, end = _jpeg_scans(data, segments[-1][1])
    if data.find(_HOLE, segments[-1][1], end) >= 0:
        return "damaged image (a hole in its data)"
    return fault


def _jpeg_scans(data: bytes, place: int) -> tuple[str | None, int]:
    """Return what is wrong with a JPEG's scans, and where they end.

    Args:
        data: the file.
        place: of the length of the first scan's header.
    """
    text = np.frombuffer(data, np.uint8)
    signs = np.flatnonzero(text[place:-1] == 0xFF) + place
    behind = text[signs + 1]
    markers = signs[(behind != 0) & (behind != 0xFF) & ((behind < 0xD0) | (behind > 0xD7))]
    while True:
        place += int.from_bytes(data[place : place + 2], "big")  # over the segment's own bytes
        index = int(np.searchsorted(markers, place))
        if index == len(markers):
            return "truncated image", len(data)
        place = int(markers[index])
        marker = data[place + 1]
        while marker in _TABLES:  # tables of the next scan, one behind the other
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            if data[place : place + 1] != b"\xff":
                return f"damaged image (byte {place:,})", len(data)
            marker = data[place + 1]
        if marker == 0xD9:
            return None, place
        if marker != 0xDA:
            return f"damaged image (byte {place:,})", len(data)
        place += 2


def _png_fault(data: bytes) -> str | None:
    place = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            return "truncated image"
        critical = not kind[0] & 0x20
        (mark,) = struct.unpack_from(">I", data, end)
        if critical and zlib.crc32(memoryview(data)[place + 4 : end]) != mark:
            return f"damaged image (byte {place:,})"
        if kind == b"IEND":
            return None
        place = end + 4


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(height), abs(width)


def _bmp_fault(data: bytes) -> str | None:
    start, header = struct.unpack_from("<II", data, 10)
    if header < 40:
        return None
    width, height, _, bits, packed = struct.unpack_from("<iiHHI", data, 18)
    whole = packed or start + (abs(width) * bits + 31) // 32 * 4 * abs(height) <= len(data)
    return None if whole else "truncated image"


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            int.from_bytes(data[27:30], "little") + 1,
            int.from_bytes(data[24:27], "little") + 1,
        )
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    place += 8 if big else 2
    found = {}
    for index in range(min(count, 4096)):
        at = place + index * (20 if big else 12)
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (256, 257):
            number = order + _TIFF_NUMBERS[kind]
            (found[tag],) = struct.unpack_from(number, data, at + (12 if big else 8))
    return (found[257], found[256]) if len(found) == 2 else None


def _pnm_fault(data: bytes) -> str | None:
    found = _PNM_MOST.match(data[:4096])
    if not found:
        return None
    kind, width, height, most = (int(x) for x in found.groups())
    if most not in (255, 65535):  # decoders take the values as they are: all too dark
        return f"its values go up to {most}, not to 255 or 65535: save it with one of these"
    if kind < 5:
        return None
    values = width * height * (3 if kind == 6 else 1) * (2 if most > 255 else 1)
    return None if found.end() + values <= len(data) else "truncated image"
