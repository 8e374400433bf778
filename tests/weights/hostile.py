"""Files that mean harm, made by hand, and the watch that is kept while one of them is read."""

from __future__ import annotations

import io
import pathlib
import re
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from jaxtrack.errors import JaxtrackError

LONGEST_MESSAGE = 4_000
MOST_MEMORY = 150e6  # bytes beside what was in use: each file here is under a megabyte
MOST_SECONDS = 5.0  # of the processor, not of the clock


def watch(read: Callable[..., Any], *args: Any, bounded: bool = True) -> str | None:
    """Read a file and return the error's text, or None where it was accepted.

    Anything else than a `JaxtrackError` comes through; so do a message that is too long, and too much
    time or memory.

    Args:
        read: reads the file.
        args: for it.
        bounded: measure memory too (slower).
    """
    if bounded:
        tracemalloc.start()
    started = time.process_time()
    message = None
    try:
        read(*args)
    except JaxtrackError as error:
        message = str(error)
        error.__traceback__ = None
    finally:
        seconds = time.process_time() - started
        peak = tracemalloc.get_traced_memory()[1] if bounded else 0
        tracemalloc.stop()
    assert seconds < MOST_SECONDS, f"{seconds:.1f} s"
    assert peak < MOST_MEMORY, f"{peak / 1e6:.0f} MB"
    if message is not None:
        assert len(message) < LONGEST_MESSAGE, message[:500]
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", message), repr(
            message
        )[:500]
    return message


def zip_checkpoint(
    path: pathlib.Path, structure: bytes, storages: dict[str, bytes] | None = None
) -> None:
    """Write the container of `torch.save` around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", structure)
        for key, data in (storages or {}).items():
            archive.writestr(f"net/data/{key}", data)


MAGIC = b"\x80\x02\x8a\n" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
PROTOCOL = b"\x80\x02M\xe9\x03."


def legacy_checkpoint(
    path: pathlib.Path, structure: bytes, storages: Iterable[tuple[str, int, bytes]] = ()
) -> None:
    """Write the older container around a pickle; storages are key, number of elements, and bytes."""
    storages = list(storages)
    keys = b"\x80\x02](" + b"".join(text(key) for key, _, _ in storages) + b"e."
    body = b"".join(struct.pack("<q", count) + data for _, count, data in storages)
    path.write_bytes(MAGIC + PROTOCOL + b"\x80\x02}." + structure + keys + body)


def text(value: str) -> bytes:
    """Return the instruction that puts a text on the stack."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """Return the instruction that puts a whole number on the stack, of any width."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(data)) + data


def several(*parts: bytes) -> bytes:
    """Return the instructions for a tuple."""
    return b"(" + b"".join(parts) + b"t"


def entries(**values: bytes) -> bytes:
    """Return a whole pickle that holds a dictionary."""
    items = b"".join(text(name) + value for name, value in values.items())
    return b"\x80\x02}(" + items + b"u."


def storage(
    key: bytes = text("0"),
    count: int | bytes = 4,
    kind: bytes = b"ctorch\nFloatStorage\n",
    view: bytes = b"",
) -> bytes:
    """Return a storage."""
    size = number(count) if isinstance(count, int) else count
    return several(text("storage"), kind, key, text("cpu"), size, view) + b"Q"


def tensor(
    held: bytes | None = None,
    shape: bytes | tuple[int, ...] = (4,),
    strides: bytes | tuple[int, ...] = (1,),
    offset: int | bytes = 0,
) -> bytes:
    """Return a tensor."""

    def sizes(value: bytes | tuple[int, ...]) -> bytes:
        return value if isinstance(value, bytes) else several(*(number(n) for n in value))

    start = offset if isinstance(offset, bytes) else number(offset)
    arguments = several(
        storage() if held is None else held, start, sizes(shape), sizes(strides), b"\x89", b"}"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def doubled(times: int) -> bytes:
    """Return a tuple of two that are the same tuple of two, and so on: small here, endless to print."""
    return text("a") + b"".join(b"q%ch%c\x86" % (i, i) for i in range(times))


def deep(times: int) -> bytes:
    """Return a tuple in a tuple in a tuple."""
    return b")" + b"\x85" * times


# ---------------------------------------------------------------------------------------------------- MATLAB


def element(kind: int, data: bytes) -> bytes:
    """Return a data element of a MATLAB file."""
    return struct.pack("<2I", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(kind: int, shape: tuple[int, ...], *parts: bytes, name: str = "") -> bytes:
    """Return an array of a MATLAB file."""
    head = element(6, struct.pack("<2I", kind, 0)) + element(
        5, struct.pack(f"<{len(shape)}i", *shape)
    )
    return element(14, head + element(1, name.encode()) + b"".join(parts))


def numbers(value: np.ndarray) -> bytes:
    """Return a single-precision array."""
    return matrix(7, value.shape, element(7, value.astype("<f4").tobytes(order="F")))


def characters(value: str) -> bytes:
    """Return a row of characters."""
    return matrix(4, (1, len(value)), element(16, value.encode()))


def struct_of(called: str = "", /, **fields: bytes) -> bytes:
    """Return a struct."""
    names = b"".join(field.encode().ljust(32, b"\0") for field in fields)
    width = struct.pack("<2HI", 5, 4, 32)
    return matrix(2, (1, 1), width, element(1, names), *fields.values(), name=called)


def cell_of(*parts: bytes, name: str = "") -> bytes:
    """Return a cell array."""
    return matrix(1, (1, len(parts)), *parts, name=name)


def convolution(kernel: np.ndarray, bias: np.ndarray) -> bytes:
    """Return a layer as MatConvNet writes it."""
    pair = cell_of(numbers(kernel), numbers(bias))
    return struct_of(name=characters("conv1"), type=characters("conv"), weights=pair)


def matlab(*variables: bytes, packed: bool = False) -> bytes:
    """Return a MATLAB 5 file."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    if packed:
        squeezed = [zlib.compress(variable) for variable in variables]
        return head + b"".join(struct.pack("<2I", 15, len(z)) + z for z in squeezed)
    return head + b"".join(variables)


# ------------------------------------------------------------------------------------------------------ .npz


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """Return a numpy array file with any header."""
    raw = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H", len(raw)) + raw + data


def archive(**members: bytes) -> bytes:
    """Return a zip archive, packed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name.replace("_dot_", "."), data)
    return file.getvalue()
