"""Write a state dict as a PyTorch checkpoint (zip format), without PyTorch.

The pickle is written instruction by instruction: Python's own pickler would have to import the functions
that it names.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from jaxtrack.io.atomic import write_whole

_STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
_DICT = b"ccollections\nOrderedDict\n)R"  # OrderedDict()


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(parts: list[bytes]) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _tensor(key: str, value: np.ndarray) -> bytes:
    storage = [
        _text("storage"),
        f"ctorch\n{_STORAGES[str(value.dtype)]}\n".encode(),
        _text(key),
        _text("cpu"),
        _integer(value.size),
    ]
    strides = [1]
    for side in value.shape[:0:-1]:
        strides.insert(0, strides[0] * side)
    arguments = [
        _tuple(storage) + b"Q",
        _integer(0),
        _tuple([_integer(side) for side in value.shape]),
        _tuple([_integer(stride) for stride in strides[: value.ndim]]),
        b"\x89",  # requires_grad False
        _DICT,  # backward hooks
    ]
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + _tuple(arguments) + b"R"


def write_torch(path: str | os.PathLike[str], state_dict: Mapping[str, np.ndarray]) -> None:
    """Write a state dict that ``torch.load(path, weights_only=True)`` reads.

    Args:
        path: the file, ``.pth`` or ``.pt``; it appears whole or not at all.
        state_dict: ``{name: array}``, such as `to_published` gives; kernels OIHW.

    Raises:
        ValueError: an array of a type that PyTorch's storages do not have.
        JaxtrackError: the file cannot be written.
    """
    arrays = {name: np.asarray(value, order="C") for name, value in state_dict.items()}
    for name, value in arrays.items():
        if str(value.dtype) not in _STORAGES:
            raise ValueError(f"{name} is {value.dtype}, for which there is no storage type")
    items = [_text(name) + _tensor(str(i), v) for i, (name, v) in enumerate(arrays.items())]
    structure = b"\x80\x02" + _DICT + b"(" + b"".join(items) + b"u."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", structure)
        archive.writestr("archive/byteorder", "little")
        for i, value in enumerate(arrays.values()):
            little = value.astype(value.dtype.newbyteorder("<"), copy=False)
            archive.writestr(f"archive/data/{i}", little.tobytes())
        archive.writestr("archive/version", "3\n")
    write_whole(path, file.getvalue())
