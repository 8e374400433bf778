"""Read PyTorch checkpoints (``.pth``, ``.pth.tar``, ``.pt``) without PyTorch, running nothing.

Two containers are in use: a zip archive (PyTorch 1.6 and later) and the older stream of pickles with the
storages behind it. Both hold one pickle with the structure, read here by `jaxtrack.weights.inert`, and
raw storages, read only for the tensors that were asked for. Published files keep more than weights
(optimiser, statistics, settings objects): anything may stand beside the weights, as inert marks, but
among the weights there are tensors and plain numbers only.
"""

from __future__ import annotations

import io
import mmap
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io import headers
from jaxtrack.io.archives import open_zip, read_member
from jaxtrack.weights import inert
from jaxtrack.weights.guard import reading
from jaxtrack.weights.torch_tensors import REBUILD, NumpyArray, Storages, Tensor

# Where training codes put the network's state dict inside a checkpoint: PySOT and most others; OSTrack and
# pytracking; MAE; further customs. Taken before other entries when the file is not a state dict itself.
STATE_KEYS = ("state_dict", "net", "model", "network", "model_state_dict")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MOST_ENTRIES = 20_000  # of one state dict; a ViT has some 200, ResNet-50 some 300
_MOST_STATES = 16
_DEEPEST = 8
_LONGEST_NAME = 1_000
_DAMAGED = "truncated or damaged PyTorch checkpoint, get the file again"

State = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
Pick = Callable[[Mapping[str, Shapes]], str]


class _Zip:
    """The zip container: ``<name>/data.pkl`` and ``<name>/data/<key>``."""

    def __init__(self, path: pathlib.Path, storages: Storages) -> None:
        self.storages = storages
        self.archive = open_zip(path)
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
        order = self.read_member("byteorder") if f"{self.prefix}byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise ValueError("an unknown byte order")
        self.order: Literal["<", ">"] = "<" if order == b"little" else ">"

    def read_member(self, name: str) -> bytes:
        try:
            info = self.archive.getinfo(self.prefix + name)
        except KeyError:
            raise ValueError(f"no {name} in the archive") from None
        return read_member(self.archive, info)

    def structure(self, budget: inert.Budget) -> Any:
        stream = io.BytesIO(self.read_member("data.pkl"))
        return inert.load(stream, REBUILD, self.storages.described_by, budget)

    def read(self, key: str) -> bytes:
        return self.read_member(f"data/{key}")

    def close(self) -> None:
        self.archive.close()


class _Legacy:
    """The older container: magic, protocol, system, structure, keys (five pickles), then storages."""

    order: Literal["<", ">"] = "<"  # whatever machine wrote them

    def __init__(self, path: pathlib.Path, storages: Storages) -> None:
        with path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.storages = storages
        self.places: dict[str, tuple[int, int]] = {}

    def structure(self, budget: inert.Budget) -> Any:
        def next_pickle() -> Any:
            return inert.load(self.map, REBUILD, self.storages.described_by, budget)

        if not _is_number(next_pickle(), _LEGACY_MAGIC):
            raise JaxtrackError("a plain pickle, not a file written by torch.save")
        if not _is_number(next_pickle(), _LEGACY_PROTOCOL):
            raise ValueError("an unknown protocol of torch.save")
        next_pickle()
        structure = next_pickle()
        keys = next_pickle()
        if not isinstance(keys, list) or not all(isinstance(key, (str, int)) for key in keys):
            raise ValueError("no list of storages")
        names = [str(key) for key in keys]
        if len(set(names)) != len(names) or set(names) != set(self.storages.described):
            raise ValueError("the list of storages does not fit the tensors")
        place = self.map.tell()
        for name in names:
            dtype, wanted = self.storages.described[name]
            (count,) = struct.unpack_from("<q", self.map, place)
            end = place + 8 + count * dtype.itemsize
            if count != wanted or end > len(self.map):
                raise ValueError(f"storage {name} ends beyond the file")
            self.places[name] = place + 8, end
            place = end
        return structure

    def read(self, key: str) -> bytes:
        start, end = self.places[key]
        return self.map[start:end]

    def close(self) -> None:
        self.map.close()


def _is_number(value: Any, wanted: int) -> bool:
    return isinstance(value, int) and value == wanted


def read_torch(
    path: str | os.PathLike[str], key: str | None = None, pick: Pick | None = None
) -> dict[str, np.ndarray]:
    """Read the state dict of a PyTorch checkpoint.

    Args:
        path: a ``.pth``, ``.pth.tar`` or ``.pt`` file, of the zip or the older stream format.
        key: entry of the file that holds the state dict (``"net"``, ``"state_dict"``, ``"model"`` ...;
            dots lead further down); None: the file itself where all its entries are tensors, else
            the one of `STATE_KEYS` that is there.
        pick: chooses among several state dicts by the shapes that each holds, ``{key: {name:
            shape}}``, in place of `STATE_KEYS`; not asked where the file is a state dict itself.

    Returns:
        ``{name: array}`` in the file's order, in the file's layout (kernels OIHW) and types.

    Raises:
        JaxtrackError: no such file, truncated, damaged, another format, not a checkpoint, a program
            instead of data, or something else than tensors among the weights (named).
    """
    path = pathlib.Path(path)
    with reading(path, _DAMAGED):
        size = path.stat().st_size
        storages = Storages(size)
        container = _open(path, storages)
        try:
            chosen = _choose(container.structure(inert.Budget(size)), key, pick)
            return {
                name: storages.array(value, container.order, container.read)
                if isinstance(value, Tensor)
                else _number(name, value)
                for name, value in chosen.items()
            }
        finally:
            container.close()


def _open(path: pathlib.Path, storages: Storages) -> _Zip | _Legacy:
    """Return the container, told by the first bytes and not by the name."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return _Zip(path, storages)
    if head.startswith(b"\x80"):
        return _Legacy(path, storages)
    raise JaxtrackError(foreign(head) or _NO_CHECKPOINT)


_NO_CHECKPOINT = "not a PyTorch checkpoint (neither its zip nor its older format)"


def foreign(head: bytes) -> str:
    """Return what a file is that is often found in place of weights, by its first 512 bytes; "": unknown."""
    if not head:
        return "the file is empty, get it again"
    if head[257:262] == b"ustar":
        if head.startswith((b"sys_info\0", b"pickle\0", b"storages\0", b"tensors\0")):
            return "the tar format of PyTorch before 0.2; load and save it again with PyTorch"
        return "a tar archive (tar format of PyTorch before 0.2, or packed files); unpack it first"
    if head.startswith(b"\x1f\x8b"):
        return "a file packed by gzip; unpack it first"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not a checkpoint: the download failed"
    if headers.is_pointer(head):
        return headers.POINTER
    if head.startswith((b"\x89HDF", b"MATLAB")):
        return "an HDF5 or MATLAB file, not a PyTorch checkpoint"
    return ""


def _is_value(value: Any) -> bool:
    return isinstance(value, (Tensor, NumpyArray))


def _walk(value: Any) -> Iterator[Any]:
    """Yield every value inside plain containers, each object once, without recursion."""
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


def _choose(root: Any, key: str | None, pick: Pick | None) -> State:
    """Return the state dict inside a file's structure, flat."""
    if isinstance(root, inert.Opaque):
        raise JaxtrackError(
            f"the file holds an object of class {brief(root.name)}, not a state_dict; "
            "save model.state_dict()"
        )
    if not isinstance(root, dict):
        raise JaxtrackError(f"the file holds a {type(root).__name__}, not a state_dict")
    if key is not None:
        return _under(root, key)
    if root and all(_is_value(v) for v in root.values()):
        return _flat(root)
    states = _states(root)
    usual = [k for k in STATE_KEYS if k in states]
    if pick is not None and len(states) > 1:
        shapes = {k: {name: _shape(v) for name, v in s.items()} for k, s in states.items()}
        return states[pick(shapes)]
    if len(usual) == 1:
        return states[usual[0]]
    if not usual and len(states) == 1 and pick is not None:
        return next(iter(states.values()))
    if not states and any(_is_value(value) for value in root.values()):
        return _flat(
            root
        )  # a state dict with something else among its tensors, which is told by its name
    if not states:
        # An object of a foreign class is the likeliest reason why a state dict is not taken for one.
        found = sorted({v.name for v in _walk(root) if isinstance(v, inert.Opaque)})
        note = f" (and objects of {brief(', '.join(found[:4]))})" if found else ""
        raise JaxtrackError(f"no state dict; the file holds: {_entries(root)}{note}")
    raise JaxtrackError(which(list(states)))


def which(keys: list[str]) -> str:
    """Return the line that asks which of several state dicts is meant."""
    names = brief(", ".join(keys), 400)
    return (
        f"state dicts under {names}: say which, by FILE::KEY (for instance FILE::{brief(keys[0], 60)}) "
        "or key=KEY"
    )


def _entries(root: dict[Any, Any]) -> str:
    names = [str(k.name if isinstance(k, inert.Opaque) else k) for k in list(root)[:12]]
    return brief(", ".join(brief(name, 60) for name in names), 400) or "nothing"


def _under(root: dict[Any, Any], key: str) -> State:
    """Return the state dict under a key, or under names joined by dots."""
    found: Any = root.get(key)
    if found is None:
        found = root
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise JaxtrackError(
            f"no state dict under {brief(repr(key), 80)}; the file holds: {_entries(root)}"
        )
    return _flat(found)


def _states(root: dict[Any, Any]) -> dict[str, State]:
    """Return all state dicts below the root by key (dots lead down), outer ones before inner ones.

    One state dict may be made of several (``{"ema": {...}, "raw": {...}}`` and ``{"backbone": {...}, "head":
    {...}}`` look alike): the whole and its parts are listed.
    """
    holding = _holding(root)
    states: dict[str, State] = {}
    fault: ValueError | None = None
    pending: list[tuple[str, dict[Any, Any], int]] = [("", root, 0)]
    tries = 0
    for path, node, depth in pending:
        for name, value in node.items():
            if not isinstance(name, str) or id(value) not in holding or tries >= 2 * _MOST_STATES:
                continue
            tries += 1
            key = f"{path}{name}"
            try:
                states[key] = _flat(value)
            except ValueError as error:  # an optimiser's state, say: told if nothing else is there
                fault = fault or error
                continue
            if depth < 2 and not any(_is_value(v) for v in value.values()):
                pending.append((f"{key}.", value, depth + 1))
    if not states and fault is not None:
        raise fault
    return dict(list(states.items())[:_MOST_STATES])


def _holding(root: dict[Any, Any]) -> set[int]:
    """Identities of the dictionaries that hold tensors, themselves or in dictionaries below."""
    parents: dict[int, list[int]] = {id(root): []}
    pending, holding = [root], []
    while pending:
        node = pending.pop()
        if any(_is_value(v) for v in node.values()):
            holding.append(id(node))
        for value in node.values():
            if isinstance(value, dict):
                if id(value) not in parents:
                    parents[id(value)] = []
                    pending.append(value)
                parents[id(value)].append(id(node))
    found: set[int] = set()
    while holding:
        one = holding.pop()
        if one not in found:
            found.add(one)
            holding.extend(parents[one])
    return found


def _flat(tree: dict[Any, Any]) -> State:
    """Entries of nested dictionaries, names joined by dots."""
    flat: State = {}
    steps = 0

    def add(node: dict[Any, Any], prefix: str, depth: int) -> None:
        nonlocal steps
        if depth > _DEEPEST:
            raise ValueError("dictionaries nested too deeply")
        for name, value in node.items():
            steps += 1
            if steps > _MOST_ENTRIES:
                raise ValueError(f"more than {_MOST_ENTRIES} entries")
            if isinstance(name, inert.Opaque):
                raise ValueError(f"an entry named by a {brief(name.name)}")
            joined = f"{prefix}{brief(name, 1000) if isinstance(name, bytes) else name}"
            if len(joined) > _LONGEST_NAME:
                raise ValueError(f"a name of {len(joined)} characters")
            if isinstance(value, dict):
                add(value, f"{joined}.", depth + 1)
            elif joined in flat:
                raise ValueError(f"two entries are named {brief(joined, 80)}")
            else:
                flat[joined] = value

    add(tree, "", 0)
    return flat


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, Tensor):
        return value.shape
    return np.shape(value.array) if isinstance(value, NumpyArray) else ()  # type: ignore[arg-type]


def _number(name: str, value: Any) -> np.ndarray:
    """Return a numpy array, or a plain number, as an array."""
    if isinstance(value, NumpyArray) and value.array is not None:
        return np.asarray(value.array, value.array.dtype.newbyteorder("="), order="C")
    if isinstance(value, bool):
        return np.asarray(value)
    if isinstance(value, int) and abs(value) < 1 << 63:
        return np.asarray(value, np.int64)
    if isinstance(value, float):
        return np.asarray(value)
    kind = value.name if isinstance(value, inert.Opaque) else type(value).__name__
    kind = str(value) if isinstance(value, inert.Name) else kind
    raise JaxtrackError(
        f"entry {brief(repr(name), 100)} holds an object of {brief(kind, 100)}; "
        "only tensors are admitted here"
    )
