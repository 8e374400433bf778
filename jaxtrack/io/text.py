"""Numbers from text, fast, exact and strict: the one reader of boxes, scores, times and flags.

Reading text is most of the time of scoring: a file of boxes is read in a few array operations. Tokens of
plain decimal digits are decoded eight characters at a time with integer arithmetic; the value is mantissa /
10**digits, rounded once, as `float` does. Anything else (exponents, NaN, more than eighteen digits) goes
through `float`, line by line.

Numbers are written with a point and ASCII digits. One kind of separator holds a line together: commas or
semicolons (blanks beside them do not matter), or blanks and tabs alone; so a decimal comma is never taken
for a separator.
"""

from __future__ import annotations

import codecs
import math
import os
import re
from collections.abc import Sequence

import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io.atomic import read_whole

_PLAIN = b"0123456789.-, \t\r\n"
_SEPARATORS = bytes.maketrans(b",;\t", b"   ")
_NUMBER = re.compile(
    rb"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)", re.IGNORECASE
)
_POWERS = 10.0 ** np.arange(17)
_INT_POWERS = 10 ** np.arange(17, dtype=np.int64)
_ZEROS = np.uint64(0x3030303030303030)
_CHUNK = 1 << 19  # bytes at a time
_LONGEST_LINE = 1 << 20  # bytes
_PAD = b" " * 16


_Path = str | os.PathLike[str]


def read_text(path: _Path) -> str:
    """Return the text of a file: UTF-8, or UTF-16 that says so in its first two bytes.

    Args:
        path: the file.

    Raises:
        JaxtrackError: it is missing, no file, too large, or no such text.
    """
    data = read_whole(path)
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JaxtrackError(
            f"{path}: not a text file, or of another encoding than UTF-8 (byte {error.start})"
        ) from error
    if "\0" in text:
        raise JaxtrackError(f"{path}: not a text file (it holds NUL characters)")
    return text


def read_numbers(path: _Path, columns: int | Sequence[int] | None = None) -> np.ndarray:
    """Read a table of finite numbers and NaN, whatever separates them: comma, semicolon, tab or blanks.

    Args:
        path: the file; blank lines at its end are ignored.
        columns: allowed number or numbers of columns, or None for any.

    Returns:
        float64 (rows, columns).

    Raises:
        JaxtrackError: the file is missing or empty, rows differ in length, separators are mixed, or an entry
            is no number; the line is named.
    """
    return parse_numbers(read_whole(path), str(path), columns)


def read_many(
    paths: Sequence[_Path], columns: int | Sequence[int] | None = None
) -> list[np.ndarray]:
    """Read many tables; small files are decoded together.

    Args:
        paths: the files.
        columns: allowed number or numbers of columns, or None for any.

    Returns:
        One float64 (rows, columns) per file.

    Raises:
        JaxtrackError: as `read_numbers`.
    """
    tables: list[np.ndarray] = []
    batch: list[tuple[str, bytes]] = []
    size = 0
    for path in paths:
        data = read_whole(path).rstrip()
        batch.append((str(path), data))
        size += len(data)
        if size >= _CHUNK:
            tables += _parse_batch(batch, columns)
            batch, size = [], 0
    return tables + (_parse_batch(batch, columns) if batch else [])


def _parse_batch(
    batch: list[tuple[str, bytes]], columns: int | Sequence[int] | None
) -> list[np.ndarray]:
    """Decode small files in one go if they are plain and equally wide, else one by one."""
    together = _parse_plain(b"\n".join(data for _, data in batch)) if len(batch) > 1 else None
    rows = [data.count(b"\n") + 1 for _, data in batch]
    whole = together is not None and len(together) == sum(rows) and all(d for _, d in batch)
    if together is None or not whole or not _allowed(together.shape[1], columns):
        return [parse_numbers(data, path, columns) for path, data in batch]
    return np.split(together, np.cumsum(rows)[:-1])


def _allowed(width: int, columns: int | Sequence[int] | None) -> bool:
    return columns is None or width in ((columns,) if isinstance(columns, int) else columns)


def parse_numbers(
    data: bytes,
    where: str = "text",
    columns: int | Sequence[int] | None = None,
) -> np.ndarray:
    """Read a table of numbers from the bytes of a file; see `read_numbers`.

    Args:
        data: the text.
        where: its name, for errors.
        columns: allowed number or numbers of columns, or None for any.

    Returns:
        float64 (rows, columns).

    Raises:
        JaxtrackError: as `read_numbers`.
    """
    table = _parse_plain(data)
    if table is None:
        table = _parse_any(data, where)
    if not _allowed(table.shape[1], columns):
        wanted = columns if isinstance(columns, int) else " or ".join(map(str, columns or ()))
        raise JaxtrackError(f"{where}: {table.shape[1]} columns where {wanted} are expected")
    return table


def _parse_any(data: bytes, where: str) -> np.ndarray:
    """Line by line, with `float`; errors name the line."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeError as error:
            raise JaxtrackError(f"{where}: damaged UTF-16 text") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    lines = data.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise JaxtrackError(f"{where} is empty: one box per line is expected")
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        place = f"{where} line {number}"
        row = [_number(word, place) for word in _words(line, place)]
        if rows and len(row) != len(rows[0]):
            raise JaxtrackError(
                f"{place}: {len(row)} numbers where the first line has {len(rows[0])}"
            )
        rows.append(row)
    return np.array(rows, np.float64)


def _words(line: bytes, place: str) -> list[bytes]:
    """Return the words of a line, which one kind of separator holds together."""
    if len(line) > _LONGEST_LINE:
        raise JaxtrackError(f"{place}: {len(line):,} characters, that is no row of a table")
    line = line.strip()
    if not line:
        raise JaxtrackError(f"{place} is blank: one box per line is expected")
    if b"," in line and b";" in line:
        raise JaxtrackError(
            f"{place}: '{brief(line, 60)}' mixes commas and semicolons; numbers are written with a "
            "point, and one kind of separator is wanted"
        )
    sign = b"," if b"," in line else b";" if b";" in line else None
    if sign is None:
        return line.split()
    words = [word.strip() for word in line.removesuffix(sign).split(sign)]
    for word in words:
        if len(word.split()) > 1:
            raise JaxtrackError(
                f"{place}: '{brief(line, 60)}' is separated by {sign.decode()!r} and by blanks; "
                "numbers are written with a point, and one kind of separator is wanted"
            )
    return words


def _number(word: bytes, place: str) -> float:
    if not _NUMBER.fullmatch(word):
        raise JaxtrackError(f"{place}: '{brief(word, 60)}' is not a number")
    value = float(word)
    if math.isinf(value):
        raise JaxtrackError(f"{place}: '{brief(word, 60)}' is not finite")
    return value


def _parse_plain(data: bytes) -> np.ndarray | None:
    """Tables of plain decimal numbers; None where anything else is in the text."""
    data = data.rstrip()
    if data.translate(None, _PLAIN) or data.count(b"\r") != data.count(b"\r\n"):
        return None
    first = data.split(b"\n", 1)[0]
    if len(first) > _LONGEST_LINE:
        return None
    width = len(first.translate(_SEPARATORS).split())
    if not width:
        return None
    parts: list[np.ndarray] = []
    start = 0
    while start < len(data):
        stop = (
            len(data)
            if start + _CHUNK >= len(data)
            else data.rfind(b"\n", start, start + _CHUNK) + 1
        )
        if stop <= start:
            return None
        values = _decode(data[start:stop], width)
        if values is None:
            return None
        parts.append(values)
        start = stop
    table = parts[0] if len(parts) == 1 else np.concatenate(parts)
    # A blank line would move every row behind it by one frame.
    return table if len(table) == data.count(b"\n") + 1 else None


def _decode(data: bytes, width: int) -> np.ndarray | None:
    """Decode whole lines of `width` plain numbers each; None where a line or a number is not plain."""
    padded = _PAD + data + b"\n"
    text = np.frombuffer(padded, np.uint8)
    blank = text <= 44  # of the characters that are here: blanks, line ends and commas
    change = np.flatnonzero(blank[1:] != blank[:-1])
    if not len(change):
        return np.zeros((0, width))
    starts, ends = change[::2] + 1, change[1::2] + 1
    if len(starts) % width:
        return None
    behind = text[ends].reshape(-1, width)
    if (behind[:, -1] > 13).any() or (width > 1 and (behind[:, :-1] == 10).any()):
        return None
    if not _held_by_commas(data, text, ends, width):
        return None
    negative = text[starts] == 45
    if np.count_nonzero(text == 45) != np.count_nonzero(negative):
        return None
    digits = starts + negative
    stops = _dots(text, starts, ends)
    if stops is None:
        return None
    words = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    whole = stops - digits
    places = np.maximum(ends - stops - 1, 0)
    count = whole + places
    odd = np.flatnonzero((whole > 8) | (places > 16) | (count > 18) | (count < 1))
    value = _value(words, stops, ends, whole, places)
    np.negative(value, out=value, where=negative)
    try:
        for i in odd:
            value[i] = float(padded[starts[i] : ends[i]])
    except ValueError:
        return None
    return value.reshape(-1, width)


def _held_by_commas(data: bytes, text: np.ndarray, ends: np.ndarray, width: int) -> bool:
    """Return whether there is no comma, or exactly one between the numbers of a line."""
    count = data.count(b",")
    inner = len(ends) - len(ends) // width
    if not count or (count == inner and b" " not in data and b"\t" not in data):
        return True
    if count != inner:
        return False
    gaps = np.searchsorted(ends, np.flatnonzero(text == 44), side="right") - 1
    return np.array_equal(gaps, np.arange(len(ends)).reshape(-1, width)[:, :-1].ravel())


def _value(
    words: np.ndarray, stops: np.ndarray, ends: np.ndarray, whole: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Value of the digits before and behind the dot, rounded once."""
    mantissa = _eight_digits(words, stops, np.minimum(whole, 8)).astype(np.int64)
    most = int(places.max())
    if not most:
        return mantissa.astype(np.float64)
    places = np.minimum(places, 16)
    fraction = _eight_digits(words, ends, np.minimum(places, 8)).astype(np.int64)
    if most > 8:
        high = _eight_digits(words, np.maximum(ends - 8, 8), np.maximum(places - 8, 0))
        fraction += high.astype(np.int64) * 10**8
    mantissa = mantissa * _INT_POWERS[places] + fraction
    scale = _POWERS[places]
    near = mantissa.astype(np.float64)
    value = near / scale
    long = np.flatnonzero(mantissa >= 2**53)
    if len(long):  # the quotient of a rounded mantissa: add what is left of the division
        top, factor, quotient = near[long], scale[long], value[long]
        left = _remainder(top, quotient, factor) + (mantissa[long] - top.astype(np.int64))
        value[long] = quotient + left / factor
    return value


def _remainder(value: np.ndarray, quotient: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Value - quotient * factor without rounding the product (Dekker, 1971)."""
    halves = []
    for x in (quotient, factor):
        wide = x * 134217729.0
        high = wide - (wide - x)
        halves.append((high, x - high))
    (qh, ql), (fh, fl) = halves
    product = quotient * factor
    error = ((qh * fh - product) + qh * fl + ql * fh) + ql * fl
    return (value - product) - error


def _dots(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """Position of the dot of every token, its end where it has none; None where one has two."""
    dots = np.flatnonzero(text == 46)
    if not len(dots):
        return ends
    if len(dots) == len(starts):
        if (dots >= starts).all() and (dots < ends).all():
            return dots
        return None
    owner = np.searchsorted(starts, dots, side="right") - 1
    if (owner[1:] == owner[:-1]).any():
        return None
    stops = ends.copy()
    stops[owner] = dots
    return stops


def _eight_digits(words: np.ndarray, stops: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Value of the `count` (0 to 8) digits in front of each position, uint64."""
    x = words[stops - 8]
    x ^= _ZEROS
    shift = (64 - 8 * count).astype(np.uint64)
    np.minimum(shift, 63, out=shift)
    x >>= shift
    x <<= shift
    x[count <= 0] = 0
    for factor, step, mask in (
        (10, 8, 0x00FF00FF00FF00FF),
        (100, 16, 0x0000FFFF0000FFFF),
        (10000, 32, 0x00000000FFFFFFFF),
    ):
        high = x >> np.uint64(step)
        x *= np.uint64(factor)
        x += high
        x &= np.uint64(mask)
    return x
