"""Weight files of all kinds into a tracker's variables, and ours onto disk."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import write_whole
from jaxtrack.weights import cards, mat, names
from jaxtrack.weights.names import NameTable
from jaxtrack.weights.torch_file import read_torch

TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt", ".pkl")
SUFFIXES = (".pth", ".pth.tar", ".pt", ".mat", ".npz", ".safetensors")
_OWN_COLLECTIONS = ("params/", "batch_stats/")

Variables = Any


def read_published(path: str | os.PathLike[str], key: str | None = None) -> dict[str, np.ndarray]:
    """Read a file of weights, whatever its format, as ``{name: array}``.

    Args:
        path: ``.pth``, ``.pth.tar``, ``.pt`` (PyTorch, both formats), ``.mat`` (MatConvNet; names are
            ``conv.<k>.weight`` and ``.bias``), ``.npz`` or ``.safetensors``.
        key: for PyTorch files, the entry that holds the state dict (see `read_torch`).

    Returns:
        The arrays under the file's own names, kernels as the file has them (PyTorch: OIHW).

    Raises:
        JaxtrackError: missing, unknown suffix, truncated, damaged or hostile.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        what = "a folder without an Orbax checkpoint" if path.is_dir() else "no such file"
        raise JaxtrackError(f"{path}: {what}")
    suffix = path.suffix.lower()
    if suffix in TORCH_SUFFIXES:
        return read_torch(path, key)
    if suffix == ".mat":
        return mat.matconvnet_state_dict(mat.read_matconvnet(path))
    if suffix == ".npz":
        return _read_npz(path)
    if suffix == ".safetensors":
        return read_safetensors(path)
    raise JaxtrackError(
        f"{path}: unknown kind of weight file {suffix or '(no suffix)'!r}; "
        f"known: {', '.join(SUFFIXES)}, or a folder of an Orbax checkpoint"
    )


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    import zipfile

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise JaxtrackError(f"{path}: not a whole .npz file of arrays ({error})") from error


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a ``.safetensors`` file.

    Raises:
        JaxtrackError: missing, truncated or another format.
    """
    import safetensors
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise JaxtrackError(f"{path}: not a whole .safetensors file ({error})") from error


def load_into(
    template: Variables,
    path: str | os.PathLike[str],
    tables: Mapping[str, NameTable] | None = None,
    *,
    source: str | None = None,
    key: str | None = None,
    part: str | None = None,
) -> Variables:
    """Fill variables from a file or folder, strictly.

    Our own files (``.safetensors`` written by `save_weights`, Orbax folders written by training) hold our
    names; all others hold published names and go through a name table. Of several tables the one
    that fits without a fault is taken; when none does, the error is that of the nearest.

    Args:
        template: the tree to be filled, ``{"params": ..., "batch_stats": ...}`` of arrays or
            `jax.ShapeDtypeStruct` (``jax.eval_shape`` of ``init_variables``).
        path: the file, or the folder of an Orbax checkpoint.
        tables: the family's name tables, by published code (see `jaxtrack.weights.tables`).
        source: take this table only.
        key: for PyTorch files, the entry that holds the state dict.
        part: of a ``.safetensors`` file of ours, take only the arrays whose name (as
            ``params/backbone/conv1.0/kernel``) this regular expression finds; None: all.

    Returns:
        The filled tree.

    Raises:
        JaxtrackError: unreadable file, sha256 other than the card's, or weights that do not fit; then
            both lists of names are in the message.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        return _fill_own(template, _read_orbax(path, template), path)
    cards.check_sum(path)
    state = read_published(path, key)
    if state and all(name.startswith(_OWN_COLLECTIONS) for name in state):
        if part is not None:
            state = {name: value for name, value in state.items() if re.search(part, name)}
        return _fill_own(template, state, path)
    tables = tables or {"our own names": NameTable()}
    if source is not None:
        if source not in tables:
            raise JaxtrackError(f"no name table {source!r}; known: {', '.join(tables)}")
        tables = {source: tables[source]}
    targets = names.published_targets(template)
    shapes = {name: np.shape(value) for name, value in state.items()}
    fits = {label: names.fit(table, shapes, targets) for label, table in tables.items()}
    best = min(fits, key=lambda label: fits[label].faults)
    adapt = tables[best].adapt
    if adapt is not None and fits[best].shapes:
        state = dict(adapt(state, {name: target.shape for name, target in targets.items()}))
        shapes = {name: np.shape(value) for name, value in state.items()}
        fits[best] = names.fit(tables[best], shapes, targets)
    try:
        return names.merge(fits[best], state, targets, template)
    except JaxtrackError as error:
        raise JaxtrackError(f"{path} (read as {best}): {error}") from error


def _fill_own(
    template: Variables, state: Mapping[str, np.ndarray], path: pathlib.Path
) -> Variables:
    targets = names.own_targets(template)
    shapes = {name: np.shape(value) for name, value in state.items()}
    try:
        return names.merge(names.fit(NameTable(), shapes, targets), state, targets, template)
    except JaxtrackError as error:
        raise JaxtrackError(f"{path}: {error}") from error


def save_weights(
    path: str | os.PathLike[str], variables: Variables, card: cards.Card | None = None
) -> None:
    """Write variables as ``.safetensors``, with a model card beside it.

    Each file appears whole or not at all: it is written under another name first.

    Args:
        path: the ``.safetensors`` file; the card goes to the same name with ``.json``.
        variables: ``{"params": ..., "batch_stats": ...}`` of arrays.
        card: what these weights are; its ``sha256`` is filled in here.

    Raises:
        JaxtrackError: another suffix, or the disk does not take it.
    """
    import safetensors.numpy

    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise JaxtrackError(f"{path}: weights are saved as .safetensors")
    flat = {"/".join(p): np.asarray(leaf, order="C") for p, leaf in names.leaves(variables)}
    data = safetensors.numpy.save(flat)
    write_whole(path, data)
    if card is not None:
        cards.write_card(path, card, data)


def _orbax_item(path: pathlib.Path) -> pathlib.Path:
    """The folder of the array tree in an Orbax checkpoint: the item of the newest step."""
    if (path / "_METADATA").is_file():
        return path
    steps = [p for p in path.iterdir() if p.is_dir() and p.name.isdigit()]
    if steps:
        path = max(steps, key=lambda p: int(p.name))
    items = sorted(p.parent for p in path.glob("*/_METADATA"))
    if len(items) == 1:
        return items[0]
    if not items and (path / "checkpoints").is_dir():
        return _orbax_item(path / "checkpoints")
    found = f"{len(items)} of them: {', '.join(p.name for p in items)}" if items else "none"
    raise JaxtrackError(
        f"{path}: an Orbax checkpoint with one array tree was looked for, {found} found"
    )


@contextlib.contextmanager
def _absl_quiet() -> Iterator[None]:
    """Keep off the screen that other items of a checkpoint (its data position) are left unread."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _read_orbax(path: pathlib.Path, template: Variables) -> dict[str, np.ndarray]:
    """Parameters and batch statistics of a training checkpoint, flat; the optimiser is left on disk."""
    import orbax.checkpoint as ocp

    item = _orbax_item(path.resolve())
    handler = ocp.CompositeCheckpointHandler(**{item.name: ocp.PyTreeCheckpointHandler()})
    try:
        with _absl_quiet(), ocp.Checkpointer(handler) as reader:
            tree = reader.metadata(item.parent).item_metadata[item.name].tree
            want = {name: tree[name] for name in template if name in tree}
            if "params" not in want:
                raise JaxtrackError(
                    f"{item}: the checkpoint holds {', '.join(map(str, tree))}, but no 'params'"
                )
            # As numpy: a checkpoint of many devices must open on one.
            form = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
                want,
                is_leaf=lambda x: hasattr(x, "shape"),
            )
            args = ocp.args.PyTreeRestore(item=want, restore_args=form, partial_restore=True)
            tree = reader.restore(item.parent, args=ocp.args.Composite(**{item.name: args}))
    except (ValueError, OSError, KeyError, TypeError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise JaxtrackError(f"{item}: not a whole Orbax checkpoint ({line})") from error
    return {"/".join(p): np.asarray(leaf) for p, leaf in names.leaves(tree[item.name])}
