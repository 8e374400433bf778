"""PyTorch's tensors as records: what a checkpoint's pickle may build, and arrays out of it.

`REBUILD` lists every name that is admitted. None of them is PyTorch's or NumPy's own: each is a function
here that checks its arguments and keeps them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.weights import inert

_DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(jnp.bfloat16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_NUMBER_CODE = re.compile(r"[<>=|]?([?]|[bB]|b1|[iu][1248]|f[248]|c8|c16)")
_MOST_AXES = 32
_MOST_ELEMENTS = 1 << 48
_LONGEST_KEY = 100
# Expanded tensors (stride 0) take no room in a file but do in memory; this much is granted beside it.
_COPIES_BESIDE = 1 << 26


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A flat piece of memory in the file, or a view of a part of it.

    Attributes:
        key: its name in the file.
        dtype: of its elements.
        count: elements of the whole storage.
        start: where the view begins, in elements.
        stop: where it ends.
    """

    key: str
    dtype: np.dtype
    count: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """A strided window onto a storage, not yet read; offset and strides in elements of its own type."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype


class _NumpyType:
    """A numpy dtype of plain numbers, as its pickle tells it."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any = None, *_: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _NUMBER_CODE.fullmatch(code):
            raise ValueError("a numpy array that holds no numbers")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """Take the byte order."""
        if not isinstance(state, tuple) or len(state) < 2:
            raise ValueError("a numpy type without its state")
        if state[1] in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """A pickled numpy array."""

    __slots__ = ("array",)

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Take shape, type and bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("a numpy array without its state")
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _NumpyType):
            raise ValueError("a numpy array without its type")
        flat = np.frombuffer(_bytes(data), kind.dtype)
        self.array = flat.reshape(_sizes(shape, "shape"), order="F" if fortran else "C")


def _bytes(data: Any) -> bytes | bytearray:
    """Return raw bytes, which the oldest protocols write as text."""
    data = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError("a numpy array whose data are no bytes")
    return data


def _numpy_scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _NumpyType):
        raise ValueError("a numpy number without its type")
    return np.frombuffer(_bytes(data), kind.dtype, 1)[0].item()


def _size(value: Any, what: str) -> int:
    """Return a whole number from 0 that can count elements of a file."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST_ELEMENTS:
        raise ValueError(f"a tensor's {what} is no whole number from 0, or far too large")
    return value


def _sizes(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > _MOST_AXES:
        raise ValueError(f"a tensor's {what} is no tuple of at most {_MOST_AXES} numbers")
    return tuple(_size(value, what) for value in values)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without storage")
    return _window(storage, offset, shape, strides, storage.dtype)


def _window(storage: Storage, offset: Any, shape: Any, strides: Any, dtype: np.dtype) -> Tensor:
    offset, shape = _size(offset, "offset"), _sizes(shape, "shape")
    strides = _sizes(strides, "strides")
    if len(shape) != len(strides):
        raise ValueError("a tensor's shape and strides disagree")
    return Tensor(storage, offset, shape, strides, dtype)


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    name = dtype.name if isinstance(dtype, inert.Name) and dtype.module == "torch" else ""
    if name not in _DTYPES:
        raise ValueError(f"a tensor of type {brief(name, 40)}, which has no counterpart here")
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without storage")
    return _window(storage, offset, shape, strides, _DTYPES[name])


def _tensor_subclass(function: Any, kind: Any, args: Any, state: Any) -> Any:
    known = REBUILD.get(str(function)) if isinstance(function, inert.Name) else None
    if known is None:
        return inert.Opaque(
            str(function) if isinstance(function, inert.Name) else "a tensor subclass"
        )
    if not str(function).startswith("torch._utils."):
        raise ValueError("a tensor subclass that is made of no tensor")
    if not isinstance(args, (tuple, list)) or len(args) > _MOST_AXES:
        raise ValueError("a tensor subclass without arguments")
    return known(*args)


def _pairs(*args: Any) -> dict[Any, Any]:
    """``OrderedDict()`` or, in the oldest protocols, ``OrderedDict([[key, value], ...])``."""
    made: dict[Any, Any] = {}
    pairs = args[0] if args else ()
    if not isinstance(pairs, (list, tuple)):
        raise ValueError("a dictionary that is not made of pairs")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError("a dictionary that is not made of pairs")
        inert.set_items(made, list(pair))
    return made


def _listed(*args: Any) -> list[Any]:
    """``set([...])``, as a list."""
    values = args[0] if args else ()
    if not isinstance(values, (list, tuple)):
        raise ValueError("a set that is not made of a list")
    return list(values)


def _torch_size(*args: Any) -> tuple[Any, ...]:
    return tuple(_listed(*args))


def _encoded(text: Any = None, *_: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("bytes that are not written as text")
    return text.encode("latin-1")


REBUILD: dict[str, inert.Rebuild] = {
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": lambda *_: {},
    "torch.Size": _torch_size,
    "torch.device": lambda *_: None,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _tensor_subclass,
    "numpy.dtype": _NumpyType,
    "_codecs.encode": _encoded,
    "builtins.set": _listed,
    "builtins.frozenset": _listed,
    "builtins.bytearray": lambda *args: (
        bytes(args[0]) if args and isinstance(args[0], bytes) else b""
    ),
}
for _core in ("numpy.core", "numpy._core"):
    REBUILD[f"{_core}.multiarray.scalar"] = _numpy_scalar
    REBUILD[f"{_core}.multiarray._reconstruct"] = NumpyArray
REBUILD["__builtin__.set"] = REBUILD["builtins.set"]
REBUILD["__builtin__.bytearray"] = REBUILD["builtins.bytearray"]


class Storages:
    """The storages of one file: what its pickles say of them, and their bytes.

    Every use is checked twice: against what the file says of the storage everywhere else, and against
    the bytes that are there.

    Args:
        size: bytes of the file; storages cannot be more, and bound what copies may take.
    """

    def __init__(self, size: int) -> None:
        self.described: dict[str, tuple[np.dtype, int]] = {}
        self._size = size
        self._read = 0
        self._copied = 0
        self._bytes: dict[str, bytes] = {}

    def described_by(self, pid: Any) -> Storage:
        """Return a storage from its persistent id ``("storage", type, key, location, count[, view])``.

        Raises:
            JaxtrackError: a whole module instead of weights, or a type that is not supported.
            ValueError: malformed, or another storage under the key of one that was told before.
        """
        if not isinstance(pid, tuple) or not pid:
            raise ValueError("a persistent id that is no tuple")
        if isinstance(pid[0], str) and pid[0] == "module":
            raise JaxtrackError(
                "the file holds a whole pickled module, not a state_dict: "
                "save model.state_dict() instead"
            )
        if not isinstance(pid[0], str) or pid[0] != "storage" or len(pid) not in (5, 6):
            raise ValueError("an unknown persistent id")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, inert.Name) or not kind.module.startswith("torch"):
            raise ValueError("a storage without a type")
        if kind.name not in _STORAGES:
            raise JaxtrackError(
                f"the file has storages of type {brief(kind, 80)}, which is not supported"
            )
        key, dtype = _key(key), _DTYPES[_STORAGES[kind.name]]
        count = _size(count, "storage size")
        if self.described.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f"storage {key} is described in two ways")
        if len(pid) == 5 or pid[5] is None:
            return Storage(key, dtype, count, 0, count)
        _, start, length = _sizes_of_view(pid[5])
        if start + length > count:
            raise ValueError("a storage view leaves its storage")
        return Storage(key, dtype, count, start, start + length)

    def array(self, tensor: Tensor, order: str, read: Callable[[str], bytes]) -> np.ndarray:
        """Return a tensor's values, row-major, in this machine's byte order.

        Args:
            tensor: the record.
            order: byte order of the file, ``<`` or ``>``.
            read: gives the bytes of a storage; asked once for each.

        Raises:
            ValueError: the tensor or its storage reaches beyond the bytes of the file.
        """
        size, width = math.prod(tensor.shape), tensor.dtype.itemsize
        if size == 0:
            return np.zeros(tensor.shape, tensor.dtype)
        storage = tensor.storage
        first = storage.start * storage.dtype.itemsize + tensor.offset * width
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides)) + 1
        if first + reach * width > storage.stop * storage.dtype.itemsize:
            raise ValueError("a tensor reaches beyond its storage")
        data = self._stored(storage, read)
        # numpy compares shape and strides with the buffer once more.
        view: np.ndarray = np.ndarray(
            tensor.shape,
            tensor.dtype.newbyteorder(order),  # type: ignore[arg-type]
            data,
            first,
            tuple(s * width for s in tensor.strides),
        )
        if tensor.dtype == np.bool_:
            self._pay(size)
            return np.asarray(view.view(np.uint8) != 0, order="C")
        if not view.flags.c_contiguous or not view.dtype.isnative:
            self._pay(size * width)
        return np.asarray(view, tensor.dtype, order="C")

    def _stored(self, storage: Storage, read: Callable[[str], bytes]) -> bytes:
        if storage.key not in self._bytes:
            data = read(storage.key)
            self._read += len(data)
            if self._read > self._size:
                raise ValueError("its storages overlap")
            if len(data) < storage.count * storage.dtype.itemsize:
                raise ValueError(f"storage {storage.key} is shorter than its tensors")
            self._bytes[storage.key] = data
        return self._bytes[storage.key]

    def _pay(self, size: int) -> None:
        """Count the bytes of a copy: of an expanded tensor (stride 0), or one in another order."""
        self._copied += size
        if self._copied > self._size + _COPIES_BESIDE:
            raise ValueError("its tensors take far more room than the file has")


def _key(key: Any) -> str:
    """Return the key of a storage: a short text, or a number in the oldest files."""
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(_size(key, "storage"))
    if not isinstance(key, str) or not key or len(key) > _LONGEST_KEY:
        raise ValueError("a storage without a key")
    return key


def _sizes_of_view(view: Any) -> tuple[Any, int, int]:
    if not isinstance(view, tuple) or len(view) != 3:
        raise ValueError("a storage view that is no tuple")
    return view[0], _size(view[1], "storage view"), _size(view[2], "storage view")
