"""Read the weights in an Orbax checkpoint folder, such as training writes."""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.weights import names

Variables = Any


def read_orbax(path: pathlib.Path, template: Variables) -> dict[str, np.ndarray]:
    """Read parameters and batch statistics, flat under our own names; the optimiser is left on disk.

    Shapes are compared with the template's before any array is read, so that not more is made than it holds.

    Args:
        path: the folder of a run, of its checkpoints, of one step, or of the array tree itself.
        template: ``{"params": ..., "batch_stats": ...}`` of arrays or shapes.

    Raises:
        JaxtrackError: no Orbax checkpoint, a damaged one, or far more in it than the template takes.
    """
    import orbax.checkpoint as ocp

    try:
        item = _item(path.resolve())
    except OSError as error:
        raise JaxtrackError(f"{path}: cannot be read ({error.strerror or error})") from error
    handler = ocp.CompositeCheckpointHandler(**{item.name: ocp.PyTreeCheckpointHandler()})
    try:
        with _absl_quiet(), ocp.Checkpointer(handler) as reader:
            tree = reader.metadata(item.parent).item_metadata[item.name].tree
            want = {name: tree[name] for name in template if name in tree}
            if "params" not in want:
                raise JaxtrackError(
                    f"{item}: the checkpoint holds {brief(', '.join(map(str, tree)))}, but no 'params'"
                )
            _check_size(item, want, template)
            # As numpy: a checkpoint of many devices must open on one.
            form = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
                want,
                is_leaf=lambda x: hasattr(x, "shape"),
            )
            args = ocp.args.PyTreeRestore(item=want, restore_args=form, partial_restore=True)
            tree = reader.restore(item.parent, args=ocp.args.Composite(**{item.name: args}))
            return {"/".join(p): np.asarray(leaf) for p, leaf in names.leaves(tree[item.name])}
    except JaxtrackError:
        raise
    except Exception as error:  # Orbax and TensorStore raise what they please at a damaged folder
        line = brief(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise JaxtrackError(f"{item}: not a whole Orbax checkpoint ({line})") from error


def _check_size(item: pathlib.Path, want: dict[str, Any], template: Variables) -> None:
    size = sum(np.prod(leaf.shape, dtype=np.float64) for _, leaf in names.leaves(want))
    wanted = sum(np.prod(leaf.shape, dtype=np.float64) for _, leaf in names.leaves(template))
    if size > 4 * wanted + (1 << 24):
        raise JaxtrackError(
            f"{item}: the weights do not fit this network: {size:.4g} values, {wanted:.4g} wanted"
        )


def _item(path: pathlib.Path) -> pathlib.Path:
    """The folder of the array tree in an Orbax checkpoint: the item of the newest step."""
    if (path / "_METADATA").is_file():
        return path
    steps = [p for p in path.iterdir() if p.is_dir() and p.name.isdecimal() and p.name.isascii()]
    if steps:
        path = max(steps, key=lambda p: int(p.name[:18]))
    items = sorted(p.parent for p in path.glob("*/_METADATA"))
    if len(items) == 1:
        return items[0]
    if not items and (path / "checkpoints").is_dir():
        return _item(path / "checkpoints")
    found = f"{len(items)} of them: {brief(', '.join(p.name for p in items))}" if items else "none"
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
