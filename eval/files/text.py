"""Numbers from text, fast and exact: a file of boxes is read in a few array operations.

Reading text is most of the time of scoring. Tokens of plain decimal digits are decoded eight characters at a
time with integer arithmetic; the value is mantissa / 10**digits, rounded once, as `float` does. Anything else
(exponents, NaN, more than eighteen digits) goes through `float`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtrack.errors import JaxtrackError

_PLAIN = b"0123456789.-, \t\r\n"
_SEPARATORS = bytes.maketrans(b",;\t", b"   ")
_POWERS = 10.0 ** np.arange(17)
_INT_POWERS = 10 ** np.arange(17, dtype=np.int64)
_ZEROS = np.uint64(0x3030303030303030)
_CHUNK = 1 << 19  # bytes at a time
_PAD = b" " * 16


def read_numbers(path: str | Path, columns: tuple[int, ...] | None = None) -> np.ndarray:
    """Read a table of numbers, whatever separates them: comma, semicolon, tab or blanks.

    Args:
        path: the file; blank lines at its end are ignored.
        columns: allowed numbers of columns, or None for any.

    Returns:
        float64 (rows, columns).

    Raises:
        JaxtrackError: the file is missing or empty, rows differ in length, or an entry is no
            number; the line is named.
    """
    return parse_numbers(_read(path), str(path), columns)


def read_many(
    paths: Sequence[str | Path], columns: tuple[int, ...] | None = None
) -> list[np.ndarray]:
    """Read many tables; small files are decoded together.

    Args:
        paths: the files.
        columns: allowed numbers of columns, or None for any.

    Returns:
        One float64 (rows, columns) per file.

    Raises:
        JaxtrackError: as `read_numbers`.
    """
    tables: list[np.ndarray] = []
    batch: list[tuple[str, bytes]] = []
    size = 0
    for path in paths:
        data = _read(path).rstrip()
        batch.append((str(path), data))
        size += len(data)
        if size >= _CHUNK:
            tables += _parse_batch(batch, columns)
            batch, size = [], 0
    return tables + (_parse_batch(batch, columns) if batch else [])


def _parse_batch(
    batch: list[tuple[str, bytes]], columns: tuple[int, ...] | None
) -> list[np.ndarray]:
    """Decode small files in one go if they are plain and equally wide, else one by one."""
    together = _parse_plain(b"\n".join(data for _, data in batch)) if len(batch) > 1 else None
    rows = [data.count(b"\n") + 1 for _, data in batch]
    if together is None or len(together) != sum(rows) or not all(data for _, data in batch):
        return [parse_numbers(data, path, columns) for path, data in batch]
    if columns is not None and together.shape[1] not in columns:
        return [parse_numbers(data, path, columns) for path, data in batch]
    return np.split(together, np.cumsum(rows)[:-1])


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise JaxtrackError(f"cannot read {path}: {error.strerror or error}") from error


def parse_numbers(
    data: bytes, where: str = "text", columns: tuple[int, ...] | None = None
) -> np.ndarray:
    """Read a table of numbers from the bytes of a file; see `read_numbers`.

    Args:
        data: the text.
        where: its name, for errors.
        columns: allowed numbers of columns, or None for any.

    Returns:
        float64 (rows, columns).

    Raises:
        JaxtrackError: as `read_numbers`.
    """
    table = _parse_plain(data)
    if table is None:
        table = _parse_any(data, where)
    if columns is not None and table.shape[1] not in columns:
        wanted = " or ".join(map(str, columns))
        raise JaxtrackError(f"{where}: {table.shape[1]} columns where {wanted} are expected")
    return table


def _parse_any(data: bytes, where: str) -> np.ndarray:
    """Line by line, with `float`; errors name the line."""
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    rows = data.translate(_SEPARATORS).splitlines()
    while rows and not rows[-1].strip():
        rows.pop()
    if not rows:
        raise JaxtrackError(f"{where} is empty: one box per line is expected")
    words = [row.split() for row in rows]
    width = len(words[0])
    for number, row in enumerate(words, 1):
        if not row:
            raise JaxtrackError(f"{where} line {number} is blank: one box per line is expected")
        if len(row) != width:
            raise JaxtrackError(
                f"{where} line {number}: {len(row)} numbers where the first line has {width}"
            )
    try:
        return np.array([[float(w) for w in row] for row in words])
    except ValueError:
        for number, row in enumerate(words, 1):
            for word in row:
                try:
                    float(word)
                except ValueError:
                    text = word.decode("utf-8", "replace")
                    raise JaxtrackError(
                        f"{where} line {number}: {text!r} is not a number"
                    ) from None
        raise


def _parse_plain(data: bytes) -> np.ndarray | None:
    """Tables of plain decimal numbers; None where anything else is in the text."""
    data = data.rstrip()
    if data.translate(None, _PLAIN) or (b"\r" in data and b"\n" not in data):
        return None
    first = data.split(b"\n", 1)[0]
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
