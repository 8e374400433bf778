"""Weight files of all kinds into a tracker's variables, and ours onto disk."""

from __future__ import annotations

import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io import headers
from jaxtrack.io.archives import open_zip
from jaxtrack.io.arrays import read_arrays
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.paths import resolve
from jaxtrack.weights import cards, mat, names
from jaxtrack.weights.guard import reading
from jaxtrack.weights.names import NameTable, Target
from jaxtrack.weights.orbax_folder import read_orbax
from jaxtrack.weights.safetensors_file import is_safetensors, read_safetensors
from jaxtrack.weights.torch_file import STATE_KEYS, Pick, Shapes, foreign, read_torch, which

SUFFIXES = (".pth", ".pth.tar", ".pt", ".mat", ".npz", ".safetensors")
_TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt", ".pkl", ".model", ".th")
_OWN_COLLECTIONS = ("params/", "batch_stats/")

PathLike = str | os.PathLike[str]
Variables = Any


def read_published(
    path: PathLike, key: str | None = None, *, wanted: int | None = None, pick: Pick | None = None
) -> dict[str, np.ndarray]:
    """Read a file of weights, whatever its format, as ``{name: array}``.

    The format is told by the content; the name may be any.

    Args:
        path: PyTorch's (``.pth``, ``.pth.tar``, ``.pt``, both formats), ``.mat`` (MatConvNet; names are
            ``conv.<k>.weight`` and ``.bias``), ``.npz`` or ``.safetensors``; ``FILE::KEY`` names the
            entry of a PyTorch file too.
        key: for PyTorch files, the entry that holds the state dict (see `read_torch`).
        wanted: bytes that can be used, where they are known; bounds what a packed file may unpack to.
        pick: for PyTorch files, chooses among several state dicts (see `read_torch`).

    Returns:
        The arrays under the file's own names, kernels as the file has them (PyTorch: OIHW).

    Raises:
        JaxtrackError: missing, of an unknown kind, truncated, damaged or hostile.
    """
    path, key = split_key(path, key)
    kind = _kind(path)
    if key is not None and kind != "torch":
        raise JaxtrackError(
            f"{path}: an entry ({brief(key, 60)}) can only be chosen in a PyTorch file"
        )
    if kind == "torch":
        return read_torch(path, key, pick)
    if kind == "mat":
        return mat.matconvnet_state_dict(mat.read_matconvnet(path, wanted))
    if kind == "npz":
        return read_arrays(path, wanted)
    return read_safetensors(path)


def split_key(path: PathLike, key: str | None = None) -> tuple[pathlib.Path, str | None]:
    """Return file and entry of ``FILE::KEY``.

    Args:
        path: a file, with or without an entry behind two colons.
        key: the entry, where it was given apart.

    Raises:
        JaxtrackError: no path, an empty entry, or two different ones.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise JaxtrackError(
            f"weights are given by the path of a file, not by a {type(path).__name__}"
        )
    place = resolve(path)
    file, colons, entry = str(place).rpartition("::")
    if not colons or os.path.lexists(place):
        return place, key
    if not file or not entry:
        raise JaxtrackError(f"{brief(place, 400)}: FILE::KEY is wanted, one of them is empty")
    if key is not None and key != entry:
        raise JaxtrackError(f"{brief(place, 400)}: another entry than key={brief(repr(key), 60)}")
    return pathlib.Path(file), entry


def is_own(state: Mapping[str, Any], collections: Iterable[str] = ()) -> bool:
    """Say whether the names of a file are ours (``params/backbone/...``) and not those of a published code.

    Most of them decide: a stray array among ours makes no published file, and is to be told by its name.

    Args:
        state: ``{name: ...}``.
        collections: what a tracker's variables hold beside the usual two.
    """
    starts = (*_OWN_COLLECTIONS, *(f"{name}/" for name in collections))
    return 2 * sum(name.startswith(starts) for name in state) > len(state)


def _kind(path: pathlib.Path) -> str:
    """Return the format of a file: by its first bytes; by its name only where they say nothing."""
    with reading(path, "cannot be read"):
        if not path.is_file():
            what = "no such file"
            if path.is_dir():
                what = "a folder without an Orbax checkpoint"
            elif os.path.lexists(path):
                what = "neither a file nor a folder"
            raise JaxtrackError(what)
        with path.open("rb") as file:
            head = file.read(512)
    suffix = path.suffix.lower()
    if headers.is_pointer(head):  # whatever kind of file its name promises
        raise JaxtrackError(f"{brief(path, 400)}: {headers.POINTER}")
    if head.startswith(b"PK"):
        return _kind_of_zip(path, suffix)
    if head.startswith(b"\x80") and not is_safetensors(head):
        return "torch"
    if head.startswith(b"MATLAB"):
        return "mat"
    if is_safetensors(head):
        return "safetensors"
    if suffix in _TORCH_SUFFIXES:
        return "torch"
    if suffix in (".mat", ".npz", ".safetensors"):
        return suffix[1:]
    raise JaxtrackError(
        f"{brief(path, 400)}: "
        + (
            foreign(head)
            or f"unknown kind of weight file {brief(repr(suffix or '(no suffix)'), 40)}; "
            f"known: {', '.join(SUFFIXES)}, or a folder of an Orbax checkpoint"
        )
    )


def _kind_of_zip(path: pathlib.Path, suffix: str) -> str:
    try:
        with open_zip(path) as archive:
            held = archive.namelist()
    except Exception:  # the reader of the kind that its name says tells what is wrong
        return "npz" if suffix == ".npz" else "torch"
    if any(name.endswith("data.pkl") for name in held):
        return "torch"
    if suffix == ".npz" or any(name.endswith(".npy") for name in held):
        return "npz"
    return "torch"


def load_into(
    template: Variables,
    path: PathLike,
    tables: Mapping[str, NameTable] | None = None,
    *,
    source: str | None = None,
    key: str | None = None,
    part: str | None = None,
    interpolate: bool = False,
) -> Variables:
    """Fill variables from a file or folder, strictly.

    Our own files (``.safetensors`` written by `save_weights`, Orbax folders written by training) hold our
    names; all others hold published names and go through a name table. Wrappers in front of the names
    (``module.``, ``_orig_mod.``, ``model.``, ``net.``) do not matter. Of several tables, and of several
    state dicts in one file, the one that fits without a fault is taken; when none does, the error is
    that of the nearest; when several state dicts do, they are listed.

    Args:
        template: the tree to be filled, ``{"params": ..., "batch_stats": ...}`` of arrays or
            `jax.ShapeDtypeStruct` (``jax.eval_shape`` of ``init_variables``).
        path: the file, ``FILE::KEY``, or the folder of an Orbax checkpoint.
        tables: the family's name tables, by published code (see `jaxtrack.base.Family.tables`); None or
            empty: published names are ours joined by dots.
        source: take this table only.
        key: for PyTorch files, the entry that holds the state dict.
        part: of a ``.safetensors`` file of ours, take only the arrays whose name (as
            ``params/backbone/conv1.0/kernel``) this regular expression finds; None: all.
        interpolate: bring what a table can bring (position embeddings) to the shapes wanted.

    Returns:
        The filled tree.

    Raises:
        JaxtrackError: unreadable file, sha256 other than the card's, or weights that do not fit; then
            both lists of names are in the message.
    """
    tables = tables or {"our own names": NameTable()}
    if source is not None:
        if source not in tables:
            raise JaxtrackError(
                f"no name table {brief(repr(source), 60)}; known: {', '.join(tables)}"
            )
        tables = {source: tables[source]}
    path, key = split_key(path, key)
    if path.is_dir():
        if key is not None:
            raise JaxtrackError(f"{path}: a folder, in which no entry can be chosen")
        return _fill_own(template, read_orbax(path, template), path, tables, interpolate)
    _kind(path)  # what is no weights at all is told as such, not as a file of another sum
    cards.check_sum(path)
    where = brief(path, 400)

    def pick(candidates: Mapping[str, Shapes]) -> str:
        targets = _published_targets(template, path)
        faults = {k: names.lay(tables, c, targets).fit.faults for k, c in candidates.items()}
        whole = [k for k in candidates if not faults[k]]
        # ``{"model": {"net": ...}}`` is met from outside and from inside: the outer one stands for both.
        whole = [k for k in whole if not any(k.startswith(f"{other}.") for other in whole)]
        if len(whole) > 1:
            raise JaxtrackError(which(whole))
        usual = [k for k in candidates if k.rpartition(".")[2] in STATE_KEYS]
        chosen = whole[0] if whole else min(usual or candidates, key=lambda k: faults[k])
        nonlocal where
        where = f"{where}::{brief(chosen, 60)}"
        return chosen

    state = read_published(path, key, wanted=_bytes(template), pick=pick)
    if is_own(state, template):
        if part is not None:
            state = {name: value for name, value in state.items() if re.search(part, name)}
        return _fill_own(template, state, path, tables, interpolate)
    targets = _published_targets(template, path)
    laid = names.lay(tables, _shapes(state), targets)
    state = {laid.names[name]: value for name, value in state.items()}
    where = f"{where} (read as {laid.label})"
    return _merge(tables[laid.label], laid.fit, state, targets, template, where, interpolate)


def _published_targets(template: Variables, path: pathlib.Path) -> dict[str, Target]:
    try:
        return names.published_targets(template)
    except ValueError as error:  # possible for a tracker from outside
        raise JaxtrackError(
            f"{brief(path, 400)}: not written by jaxtrack, and the tracker's variables have no published "
            f"names ({error})"
        ) from error


def _bytes(template: Variables) -> int:
    return sum(
        math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for _, leaf in names.leaves(template)
    )


def _shapes(state: Mapping[str, Any]) -> Shapes:
    return {name: np.shape(value) for name, value in state.items()}


def _fill_own(
    template: Variables,
    state: dict[str, np.ndarray],
    path: pathlib.Path,
    tables: Mapping[str, NameTable],
    interpolate: bool,
) -> Variables:
    """Fill by our own names."""
    adapting = next((table for table in tables.values() if table.adapt), NameTable())
    table = NameTable(adapt=adapting.adapt, adapts=adapting.adapts)
    targets = names.own_targets(template)
    found = names.fit(table, _shapes(state), targets)
    return _merge(table, found, state, targets, template, brief(path, 400), interpolate)


def _merge(
    table: NameTable,
    found: names.Fit,
    state: dict[str, np.ndarray],
    targets: dict[str, Target],
    template: Variables,
    where: str,
    interpolate: bool,
) -> Variables:
    note = ""
    if table.adapt is not None and found.shapes:
        if interpolate:
            state = dict(table.adapt(state, {name: t.shape for name, t in targets.items()}))
            found = names.fit(table, _shapes(state), targets)
        elif found.faults == len(found.shapes) and names.adaptable(table, found):
            note = (
                "\n  Only the grid differs: these are weights for another size of crop. Take the preset of "
                "that size, or have the grid resized: interpolate=True (track, export, eval.run: "
                "--interpolate)"
            )
    try:
        return names.merge(found, state, targets, template)
    except JaxtrackError as error:
        raise JaxtrackError(f"{where}: {error}{note}") from error


def save_weights(path: PathLike, variables: Variables, card: cards.Card | None = None) -> None:
    """Write variables as ``.safetensors``, with a model card beside it.

    Each file appears whole or not at all, and the two as a pair: whenever the writing breaks off, what is
    on disk can be loaded, as the old weights or as the new.

    Args:
        path: the ``.safetensors`` file; the card goes to the same name with ``.json``.
        variables: ``{"params": ..., "batch_stats": ...}`` of arrays.
        card: what these weights are; its ``sha256`` is filled in here. None: no card; an older one goes.

    Raises:
        JaxtrackError: another suffix, or the disk does not take it.
    """
    import safetensors.numpy

    path = resolve(path)
    if path.suffix != ".safetensors":
        raise JaxtrackError(f"{brief(path, 400)}: weights are saved as .safetensors")
    flat = {"/".join(p): np.asarray(leaf, order="C") for p, leaf in names.leaves(variables)}
    data = safetensors.numpy.save(flat)
    if card is None:
        cards.remove_card(path)
        write_whole(path, data)
    else:
        cards.announce(path, card, data)
        write_whole(path, data)
        cards.write_card(path, card, data)
