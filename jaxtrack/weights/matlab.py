"""Read what MatConvNet keeps in a MATLAB 5 file: numbers, text, cells and structs, and nothing else.

The file is walked as it lies: a `Matrix` is a place in it, and only what is asked for is looked at. So there
is no recursion, nothing is made that a file could swell, and every length is checked against the bytes that
are there. Objects, function handles and sparse matrices may stand in a file but cannot be read.

Reference: MathWorks, "MAT-File Format", version 5.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TEXT_TYPES = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_NUMBER_TYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX = 0x0800
_MOST_PARTS = 10_000  # cells of one cell array, fields of one struct
_LONGEST_TEXT = 1_000
_MOST_AXES = 32
_PIECE = 1 << 14  # bytes of a packed variable at a time: they unpack to 16 MB at most


@dataclasses.dataclass(frozen=True, slots=True)
class _Tag:
    """A data element: its type and where its bytes lie."""

    kind: int
    start: int
    stop: int
    after: int


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
    """One array of the file, not yet looked into.

    Attributes:
        name: of a variable; empty for what stands in cells and structs.
        kind: MATLAB's number for the class of array.
        shape: its sizes.
        data: the bytes that hold it.
        order: byte order of numbers, ``<`` or ``>``.
        start: where its content begins.
        stop: where it ends.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    data: memoryview
    order: str
    start: int
    stop: int

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell array."""
        return self.kind == _CELL

    @property
    def is_struct(self) -> bool:
        """Whether it is a struct, or an array of structs."""
        return self.kind == _STRUCT

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def cells(self) -> list[Matrix]:
        """Return the arrays in a cell array, column by column.

        Raises:
            ValueError: no cell array, or damaged.
        """
        if not self.is_cell:
            raise ValueError("no cell array where one is due")
        return self._parts(self.start, self.size)

    def fields(self) -> dict[str, Matrix]:
        """Return the arrays in a struct by the names of its fields.

        Raises:
            ValueError: no single struct, or damaged.
        """
        if not self.is_struct or self.size != 1:
            raise ValueError("no single struct where one is due")
        tag = _tag(self.data, self.order, self.start, self.stop)
        (width,) = struct.unpack_from(f"{self.order}I", self.data, tag.start)
        tag = _tag(self.data, self.order, tag.after, self.stop)
        names = bytes(self.data[tag.start : min(tag.stop, tag.start + 64 * _MOST_PARTS)])
        if not 0 < width <= 64 or len(names) % width:
            raise ValueError("a struct whose names are damaged")
        fields = [
            names[i : i + width].split(b"\0")[0].decode("latin-1")
            for i in range(0, len(names), width)
        ]
        if len(set(fields)) != len(fields):
            raise ValueError("a struct with two fields of one name")
        return dict(zip(fields, self._parts(tag.after, len(fields)), strict=True))

    def _parts(self, place: int, count: int) -> list[Matrix]:
        if count > _MOST_PARTS:
            raise ValueError(f"{count} parts, at most {_MOST_PARTS} are read")
        parts = []
        for _ in range(count):
            tag = _tag(self.data, self.order, place, self.stop)
            if tag.kind != _MATRIX:
                raise ValueError("no array where one is due")
            parts.append(_matrix(self.data, self.order, tag))
            place = tag.after
        return parts

    def text(self) -> str:
        """Return a row of characters.

        Raises:
            ValueError: no text, or damaged.
        """
        tag = _tag(self.data, self.order, self.start, self.stop) if self.size else None
        if self.kind != _CHAR or self.size > _LONGEST_TEXT:
            raise ValueError("no short text where one is due")
        if tag is None:
            return ""
        if tag.kind not in _TEXT_TYPES or tag.stop - tag.start > 4 * _LONGEST_TEXT:
            raise ValueError("text of an unknown encoding")
        encoding = _TEXT_TYPES[tag.kind]
        encoding += {"<": "-le", ">": "-be"}[self.order] if encoding == "utf-16" else ""
        return bytes(self.data[tag.start : tag.stop]).decode(encoding)

    def numbers(self) -> np.ndarray:
        """Return a numeric array, in the type in which the file stores it; a view of the file's bytes.

        Raises:
            ValueError: not numeric, complex, or damaged.
        """
        if self.kind not in _NUMERIC:
            raise ValueError("no numbers where they are due")
        if self.size == 0:
            return np.zeros(self.shape, np.float32)
        tag = _tag(self.data, self.order, self.start, self.stop)
        if tag.kind not in _NUMBER_TYPES:
            raise ValueError("numbers of an unknown type")
        dtype = np.dtype(self.order + _NUMBER_TYPES[tag.kind])
        if tag.stop - tag.start != self.size * dtype.itemsize:
            raise ValueError("an array whose bytes do not fit its shape")
        flat = np.frombuffer(self.data, dtype, self.size, tag.start)
        return flat.reshape(self.shape, order="F")


def _tag(data: memoryview, order: str, place: int, stop: int) -> _Tag:
    """Return the data element at a place; ``after`` is that of the next, at a multiple of eight bytes."""
    if stop - place < 8:
        raise ValueError("ends too early")
    (first,) = struct.unpack_from(f"{order}I", data, place)
    if first >> 16:  # up to four bytes are kept within the tag itself
        kind, size, start = first & 0xFFFF, first >> 16, place + 4
        if size > 4:
            raise ValueError("a damaged tag")
        return _Tag(kind, start, start + size, place + 8)
    (size,) = struct.unpack_from(f"{order}I", data, place + 4)
    start = place + 8
    if size > stop - start:
        raise ValueError("ends too early")
    return _Tag(first, start, start + size, start + size + -size % 8)


def _matrix(data: memoryview, order: str, tag: _Tag) -> Matrix:
    if tag.start == tag.stop:  # MATLAB's way to write an empty array
        return Matrix("", 6, (0, 0), data, order, tag.start, tag.stop)
    flags = _tag(data, order, tag.start, tag.stop)
    if flags.kind != 6 or flags.stop - flags.start != 8:
        raise ValueError("an array without flags")
    (bits,) = struct.unpack_from(f"{order}I", data, flags.start)
    kind = bits & 0xFF
    if bits & _COMPLEX or kind not in (_CELL, _STRUCT, _CHAR, *_NUMERIC):
        return Matrix("", 0, (), data, order, tag.stop, tag.stop)  # of no use here
    sizes = _tag(data, order, flags.after, tag.stop)
    axes = (sizes.stop - sizes.start) // 4
    if sizes.kind != 5 or not 2 <= axes <= _MOST_AXES:
        raise ValueError("an array without sizes")
    shape = struct.unpack_from(f"{order}{axes}i", data, sizes.start)
    if min(shape) < 0:
        raise ValueError("an array of a negative size")
    label = _tag(data, order, sizes.after, tag.stop)
    name = bytes(data[label.start : min(label.stop, label.start + _LONGEST_TEXT)])
    return Matrix(name.decode("latin-1"), kind, shape, data, order, label.after, tag.stop)


def variables(data: memoryview, room: int) -> Iterator[Matrix]:
    """Yield the variables of a file that may hold a network: cell arrays and structs.

    Others are passed over without being unpacked.

    Args:
        data: the whole file; may be a memory map: what is yielded is a copy.
        room: the most bytes that unpacking may take.

    Raises:
        ValueError: no MATLAB 5 file, damaged, or packed far beyond its size.
        NotImplementedError: a file of another version.
    """
    if len(data) < _HEADER:
        raise ValueError("ends too early")
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if order is None:
        raise ValueError("no MATLAB 5 file")
    (version,) = struct.unpack_from(f"{order}H", data, 124)
    if version != 0x0100:
        raise NotImplementedError
    place = _HEADER
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("ends too early")
        kind, size = struct.unpack_from(f"{order}2I", data, place)
        start = place + 8
        if size > len(data) - start:
            raise ValueError("ends too early")
        if kind == _COMPRESSED:
            packed = data[start : start + size]
            # What lies ahead in a variable tells whether it is worth unpacking.
            peek = memoryview(zlib.decompressobj().decompress(packed[:_PIECE], _PIECE))
            if _may_hold_a_network(peek, order):
                whole = _unpacked(packed, peek, order, room)
                room -= len(whole)
                yield _matrix(whole, order, _tag(whole, order, 0, len(whole)))
            place = start + size
        else:
            if _may_hold_a_network(data[place : start + size], order):
                whole = memoryview(bytes(data[place : start + size]))
                yield _matrix(whole, order, _tag(whole, order, 0, len(whole)))
            place = start + size + -size % 8


def _may_hold_a_network(peek: memoryview, order: str) -> bool:
    if len(peek) < 24:
        raise ValueError("ends too early")
    kind, _, _, _, bits = struct.unpack_from(f"{order}5I", peek)
    return kind == _MATRIX and bits & 0xFF in (_CELL, _STRUCT)


def _unpacked(packed: memoryview, peek: memoryview, order: str, room: int) -> memoryview:
    """Return a packed variable, whose first bytes tell its length."""
    _, size = struct.unpack_from(f"{order}2I", peek)
    if size + 8 > room:
        raise ValueError(
            f"unpacks to {(size + 8) / 1e6:.0f} MB, far more than its size lets expect"
        )
    whole = bytearray(size + 8)
    unpacker = zlib.decompressobj()
    filled = 0
    for place in range(0, len(packed), _PIECE):
        left = len(whole) - filled
        part = unpacker.decompress(packed[place : place + _PIECE], left + 1)
        if len(part) > left or unpacker.unconsumed_tail or unpacker.unused_data:
            raise ValueError("a packed variable of another length")
        whole[filled : filled + len(part)] = part
        filled += len(part)
    # Only at the end of the stream does zlib compare its checksum.
    if filled < len(whole) or not unpacker.eof:
        raise ValueError("ends too early")
    return memoryview(whole)
