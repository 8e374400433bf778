"""PyTorch's tensors as records: what a checkpoint's pickle may build, and arrays out of it.

`REBUILD` lists every name that is admitted. None of them is PyTorch's or NumPy's own: each is a function
here that checks its arguments and keeps them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtrack.errors import JaxtrackError
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


@dataclasses.dataclass(frozen=True)
class Storage:
    """A flat piece of memory in the file; ``start`` is where a view of it begins, in elements."""

    key: str
    dtype: np.dtype
    count: int
    start: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A strided window onto a storage, not yet read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype


class _NumpyType:
    """A numpy dtype of plain numbers, as its pickle tells it."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        self.dtype = np.dtype(str(code)) if isinstance(code, str) and len(code) < 8 else None
        if self.dtype is None or self.dtype.kind not in "biufc":
            raise ValueError("a numpy array that holds no numbers")

    def set_state(self, state: Any) -> None:
        assert self.dtype is not None
        if state[1] in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """A pickled numpy array."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Take shape, type and bytes."""
        _, shape, kind, fortran, data = state
        data = data.encode("latin-1") if isinstance(data, str) else data
        flat = np.frombuffer(data, kind.dtype)
        self.array = flat.reshape(tuple(shape), order="F" if fortran else "C")


def _numpy_scalar(kind: Any, data: Any) -> Any:
    data = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(data, kind.dtype)[0].item()


def _integers(values: Any, what: str) -> tuple[int, ...]:
    values = tuple(values)
    if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
        raise ValueError(f"a tensor's {what} is not made of whole numbers from 0")
    return values


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without storage")
    (offset,) = _integers((offset,), "offset")
    shape, strides = _integers(shape, "shape"), _integers(strides, "strides")
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError("a tensor's shape and strides disagree")
    return Tensor(storage, offset, shape, strides, storage.dtype)


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    name = dtype.name if isinstance(dtype, inert.Name) and dtype.module == "torch" else str(dtype)
    if name not in _DTYPES:
        raise ValueError(f"a tensor of type {name}, which has no counterpart here")
    kind = _DTYPES[name]
    if not isinstance(storage, Storage) or storage.count * storage.dtype.itemsize % kind.itemsize:
        raise ValueError("a tensor whose storage has another size")
    count = storage.count * storage.dtype.itemsize // kind.itemsize
    typed = dataclasses.replace(storage, dtype=kind, count=count)
    return _tensor(typed, offset, shape, strides)


def _tensor_subclass(function: Any, kind: Any, args: Any, state: Any) -> Any:
    known = REBUILD.get(str(function)) if isinstance(function, inert.Name) else None
    if known is None:
        return inert.Opaque(
            str(function) if isinstance(function, inert.Name) else "a tensor subclass"
        )
    return known(*args)


def _pairs(*args: Any) -> dict[Any, Any]:
    """``OrderedDict()`` or, in the oldest protocols, ``OrderedDict([[key, value], ...])``."""
    made: dict[Any, Any] = {}
    inert.set_items(made, [part for pair in (args[0] if args else ()) for part in pair])
    return made


REBUILD: dict[str, inert.Rebuild] = {
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": lambda *_: {},
    "torch.Size": lambda *args: tuple(args[0]) if args else (),
    "torch.device": lambda *_: None,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _tensor_subclass,
    "numpy.dtype": _NumpyType,
    "_codecs.encode": lambda text, *_: text.encode("latin-1"),
    "builtins.set": lambda *args: list(args[0]) if args else [],
    "builtins.frozenset": lambda *args: list(args[0]) if args else [],
    "builtins.bytearray": lambda *args: (
        bytes(args[0]) if args and isinstance(args[0], bytes) else b""
    ),
}
for _core in ("numpy.core", "numpy._core"):
    REBUILD[f"{_core}.multiarray.scalar"] = _numpy_scalar
    REBUILD[f"{_core}.multiarray._reconstruct"] = NumpyArray
REBUILD["__builtin__.set"] = REBUILD["builtins.set"]
REBUILD["__builtin__.bytearray"] = REBUILD["builtins.bytearray"]


def persistent_storage(pid: Any) -> Storage:
    """A storage from its persistent id ``("storage", type, key, location, count[, view])``."""
    if not isinstance(pid, tuple) or not pid:
        raise ValueError("a persistent id that is no tuple")
    if pid[0] == "module":
        raise JaxtrackError(
            "the file holds a whole pickled module, not a state_dict: save model.state_dict() instead"
        )
    if pid[0] != "storage" or len(pid) not in (5, 6):
        raise ValueError("an unknown persistent id")
    _, kind, key, _, count = pid[:5]
    name = kind.name if isinstance(kind, inert.Name) else ""
    if name not in _STORAGES or not kind.module.startswith("torch"):
        raise JaxtrackError(f"the file has storages of type {kind}, which is not supported")
    (count,) = _integers((count,), "storage size")
    storage = Storage(str(key), _DTYPES[_STORAGES[name]], count)
    if len(pid) == 6 and pid[5] is not None:
        _, start, size = pid[5]
        start, size = _integers((start, size), "storage view")
        if start + size > count:
            raise ValueError("a storage view leaves its storage")
        storage = dataclasses.replace(storage, start=start)
    return storage


class Materialiser:
    """Turns `Tensor` records into arrays; a storage that several share is read once."""

    def __init__(self, read: Callable[[Storage], np.ndarray], budget: int) -> None:
        self.read = read
        self.budget = budget
        self.storages: dict[tuple[str, np.dtype], np.ndarray] = {}

    def array(self, tensor: Tensor) -> np.ndarray:
        """The tensor's values, row-major."""
        size = math.prod(tensor.shape)
        if size == 0:
            return np.zeros(tensor.shape, tensor.dtype)
        start = tensor.storage.start + tensor.offset
        last = start + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides))
        self.budget -= size * tensor.dtype.itemsize
        if last >= tensor.storage.count or self.budget < 0:
            raise ValueError("a tensor reaches beyond its storage")
        key = (tensor.storage.key, tensor.dtype)
        if key not in self.storages:
            flat = self.read(tensor.storage)
            if tensor.dtype == np.bool_:
                flat = flat.view(np.uint8) != 0
            self.storages[key] = flat.astype(tensor.dtype, copy=False)
        flat = self.storages[key][start : last + 1]
        strides = tuple(s * tensor.dtype.itemsize for s in tensor.strides)
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides)
        return np.asarray(view, order="C")
