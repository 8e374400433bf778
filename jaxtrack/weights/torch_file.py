"""Read PyTorch checkpoints (``.pth``, ``.pth.tar``, ``.pt``) without PyTorch, running nothing.

Two containers are in use: a zip archive (PyTorch 1.6 and later) and the older stream of pickles with the
storages behind it. Both hold one pickle with the structure, read here by `jaxtrack.weights.inert`, and
raw storages, read only for the tensors that were asked for. Published files keep more than weights
(optimiser, statistics, settings objects): anything may stand beside the weights, as inert marks, but
among the weights there are tensors and plain numbers only.
"""

from __future__ import annotations

import dataclasses
import io
import mmap
import os
import pathlib
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from jaxtrack.errors import JaxtrackError
from jaxtrack.weights import inert
from jaxtrack.weights.torch_tensors import (
    REBUILD,
    Materialiser,
    NumpyArray,
    Storage,
    Tensor,
    persistent_storage,
)

# Where training codes put the network's state dict inside a checkpoint: PySOT and most others; OSTrack and
# pytracking; MAE; further customs. Looked for only when the file is not a state dict itself.
STATE_KEYS = ("state_dict", "net", "model", "network", "model_state_dict")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# Expanded tensors (stride 0) take no room in a file but do in memory; this much is granted beside it.
_EXPANSION_BYTES = 1 << 28


class _Zip:
    """The zip container: ``<name>/data.pkl`` and ``<name>/data/<key>``."""

    def __init__(self, path: pathlib.Path) -> None:
        self.archive = zipfile.ZipFile(path)
        names = self.archive.namelist()
        structures = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(structures) != 1:
            raise JaxtrackError(
                "a zip archive, but not one written by torch.save (no data.pkl in it)"
            )
        self.prefix = structures[0].removesuffix("data.pkl")
        if f"{self.prefix}constants.pkl" in names:
            raise JaxtrackError(
                "a TorchScript program, not a checkpoint: save model.state_dict() instead"
            )
        order = self._member("byteorder") if f"{self.prefix}byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise ValueError("an unknown byte order")
        self.order: Literal["<", ">"] = "<" if order == b"little" else ">"

    def _member(self, name: str) -> bytes:
        try:
            info = self.archive.getinfo(self.prefix + name)
        except KeyError:
            raise ValueError(f"no {name} in the archive") from None
        # torch.save never packs; refusing packed members also rules out zip bombs.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"{name} is compressed or encrypted")
        return self.archive.read(info)

    def structure(self) -> Any:
        return inert.load(io.BytesIO(self._member("data.pkl")), REBUILD, persistent_storage)

    def read(self, storage: Storage) -> np.ndarray:
        data = self._member(f"data/{storage.key}")
        if len(data) < storage.count * storage.dtype.itemsize:
            raise ValueError(f"storage {storage.key} is shorter than its tensors")
        return np.frombuffer(data, storage.dtype.newbyteorder(self.order), storage.count)

    def close(self) -> None:
        self.archive.close()


class _Legacy:
    """The older container: magic, protocol, system, structure, keys (five pickles), then storages."""

    def __init__(self, path: pathlib.Path) -> None:
        with path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.storages: dict[str, Storage] = {}
        self.places: dict[str, int] = {}

    def _pickle(self) -> Any:
        return inert.load(self.map, REBUILD, self._remember)

    def _remember(self, pid: Any) -> Storage:
        storage = persistent_storage(pid)
        self.storages[storage.key] = dataclasses.replace(storage, start=0)
        return storage

    def structure(self) -> Any:
        if self._pickle() != _LEGACY_MAGIC:
            raise JaxtrackError("a plain pickle, not a file written by torch.save")
        if self._pickle() != _LEGACY_PROTOCOL:
            raise ValueError("an unknown protocol of torch.save")
        self._pickle()
        structure = self._pickle()
        keys = self._pickle()
        if not isinstance(keys, list) or {str(key) for key in keys} != set(self.storages):
            raise ValueError("the list of storages does not fit the tensors")
        place = self.map.tell()
        for key in map(str, keys):
            storage = self.storages[key]
            (count,) = struct.unpack_from("<q", self.map, place)
            end = place + 8 + count * storage.dtype.itemsize
            if count != storage.count or end > len(self.map):
                raise ValueError(f"storage {key} ends beyond the file")
            self.places[key] = place + 8
            place = end
        return structure

    def read(self, storage: Storage) -> np.ndarray:
        # Storages are little-endian whatever machine wrote them. Copied, so that the map can be closed.
        kind = storage.dtype.newbyteorder("<")
        return np.frombuffer(self.map, kind, storage.count, self.places[storage.key]).copy()

    def close(self) -> None:
        self.map.close()


def read_torch(path: str | os.PathLike[str], key: str | None = None) -> dict[str, np.ndarray]:
    """Read the state dict of a PyTorch checkpoint.

    Args:
        path: a ``.pth``, ``.pth.tar`` or ``.pt`` file, of the zip or the older stream format.
        key: entry of the file that holds the state dict (``"net"``, ``"state_dict"``, ``"model"`` ...);
            None: the file itself where all its entries are tensors, else the one of `STATE_KEYS`
            that is there.

    Returns:
        ``{name: array}`` in the file's order, in the file's layout (kernels OIHW) and types.

    Raises:
        JaxtrackError: no such file, truncated, damaged, another format, not a checkpoint, a program
            instead of data, or something else than tensors among the weights (named).
    """
    path = pathlib.Path(path)
    try:
        container = _open(path)
        try:
            chosen = _choose(container.structure(), key)
            make = Materialiser(container.read, path.stat().st_size + _EXPANSION_BYTES)
            return {name: _value(name, value, make) for name, value in _flat(chosen)}
        finally:
            container.close()
    except JaxtrackError as error:
        raise JaxtrackError(f"{path}: {error}") from error
    except OSError as error:
        raise JaxtrackError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise JaxtrackError(
            f"{path}: truncated or damaged PyTorch checkpoint, get the file again ({error})"
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, MemoryError) as error:
        raise JaxtrackError(
            f"{path}: truncated or damaged PyTorch checkpoint, get the file again ({error})"
        ) from error


def _open(path: pathlib.Path) -> _Zip | _Legacy:
    """The container, told by the first bytes and not by the name."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise JaxtrackError("the file is empty, get it again")
    if head.startswith(b"PK"):
        return _Zip(path)
    if head.startswith(b"\x80"):
        return _Legacy(path)
    if head[257:262] == b"ustar" or head.startswith(b"sys_info"):
        raise JaxtrackError(
            "the tar format of PyTorch before 0.2; load and save it again with PyTorch"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise JaxtrackError("a web page, not a checkpoint: the download failed")
    if head.startswith(b"version https://git-lfs"):
        raise JaxtrackError("a Git LFS pointer, not the file itself: run git lfs pull")
    if head.startswith((b"\x89HDF", b"MATLAB")):
        raise JaxtrackError("an HDF5 or MATLAB file, not a PyTorch checkpoint")
    raise JaxtrackError("not a PyTorch checkpoint (neither its zip nor its older format)")


def _is_value(value: Any) -> bool:
    return isinstance(value, (Tensor, NumpyArray))


def _walk(value: Any) -> Iterator[Any]:
    """Every value inside plain containers, each object once, without recursion."""
    seen: set[int] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, (dict, list, tuple)):
            if id(item) in seen:
                continue
            seen.add(id(item))
            pending.extend(item.values() if isinstance(item, dict) else item)
            if isinstance(item, dict):
                pending.extend(key for key in item if isinstance(key, inert.Opaque))
        else:
            yield item


def _choose(root: Any, key: str | None) -> dict[Any, Any]:
    """The state dict inside a file's structure."""
    if isinstance(root, inert.Opaque):
        raise JaxtrackError(
            f"the file holds an object of class {root.name}, not a state_dict; save model.state_dict()"
        )
    if not isinstance(root, dict):
        raise JaxtrackError(f"the file holds a {type(root).__name__}, not a state_dict")
    entries = ", ".join(str(k) for k in list(root)[:12]) or "nothing"
    if key is not None:
        if not isinstance(root.get(key), dict):
            raise JaxtrackError(f"no state dict under {key!r}; the file holds: {entries}")
        return root[key]
    if root and all(_is_value(v) for v in root.values()):
        return root
    held = [k for k in STATE_KEYS if isinstance(root.get(k), dict)]
    held = [k for k in held if any(_is_value(v) for v in _walk(root[k]))]
    if len(held) != 1:
        what = f"state dicts under {', '.join(held)}: say which" if held else "no state dict"
        # An object of a foreign class is the likeliest reason why a state dict is not taken for one.
        foreign = sorted({v.name for v in _walk(root) if isinstance(v, inert.Opaque)})
        note = f" (and objects of {', '.join(foreign[:4])})" if foreign and not held else ""
        raise JaxtrackError(f"{what}; the file holds: {entries}{note}")
    return root[held[0]]


def _flat(tree: dict[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Entries of nested dictionaries, names joined by dots."""
    if depth > 8:
        raise ValueError("dictionaries nested too deeply")
    for name, value in tree.items():
        if isinstance(name, inert.Opaque):
            raise ValueError(f"an entry named by a {name.name}")
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", value


def _value(name: str, value: Any, make: Materialiser) -> np.ndarray:
    if isinstance(value, Tensor):
        return make.array(value)
    if isinstance(value, NumpyArray) and value.array is not None:
        return np.asarray(value.array, value.array.dtype.newbyteorder("="), order="C")
    if isinstance(value, (bool, int, float)):
        return np.asarray(value)
    kind = value.name if isinstance(value, inert.Opaque) else type(value).__name__
    kind = str(value) if isinstance(value, inert.Name) else kind
    raise JaxtrackError(f"entry {name!r} holds an object of {kind}; only tensors are admitted here")
