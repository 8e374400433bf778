"""Read ``.safetensors`` files: ours, and published ones."""

from __future__ import annotations

import os
import pathlib

import jax.numpy as jnp
import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.weights.guard import reading

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "C64": np.dtype("<c8"),
}
_LONGEST_HEADER = 8 << 20  # bytes: some 50,000 arrays


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a ``.safetensors`` file.

    Args:
        path: the file.

    Returns:
        ``{name: array}``, by name: the library tells the arrays in any order.

    Raises:
        JaxtrackError: missing, truncated, another format, or an array of a type that numpy lacks.
    """
    import safetensors

    path = pathlib.Path(path)
    with reading(path, "not a whole .safetensors file"):
        content = path.read_bytes()
        if int.from_bytes(content[:8], "little") > _LONGEST_HEADER:
            raise ValueError("a header that is far too long")
        try:
            parts = safetensors.deserialize(content)
        except safetensors.SafetensorError as error:
            raise ValueError(brief(error)) from error
        del content
        return {name: _array(name, part) for name, part in sorted(parts, key=_name)}


def is_safetensors(head: bytes) -> bool:
    """Say whether a file that begins with these bytes (at least nine) is of this format."""
    return len(head) > 8 and head[8:9] == b"{" and not any(head[5:8])


def _name(part: tuple[str, dict[str, object]]) -> str:
    return part[0]


def _array(name: str, part: dict[str, object]) -> np.ndarray:
    kind, shape, data = part["dtype"], part["shape"], part["data"]
    if kind not in _DTYPES:
        raise JaxtrackError(
            f"{brief(repr(name), 100)} is of type {brief(kind, 20)}, which is not read here; "
            "save it as F32"
        )
    flat = np.frombuffer(data, _DTYPES[kind])  # type: ignore[call-overload]
    return flat.reshape(shape)  # type: ignore[no-any-return]
