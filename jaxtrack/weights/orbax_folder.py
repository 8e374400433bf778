"""Read the weights in an Orbax checkpoint folder, such as training writes."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io.records import read_json
from jaxtrack.weights import names
from jaxtrack.weights.sums import sum_of_arrays

# The item of a training's checkpoint that holds its JSON record; ``sums`` there are those of the collections.
RECORD = "record"
# Where training keeps a moving average of the variables, beside those that it goes on with.
AVERAGE = "average"
_LATE_SECONDS = 0.05  # for what other reads still have to say when one has failed
_LARGEST_RECORD = 64 << 20  # bytes: the position of a data iterator may be long

Variables = Any


def read_orbax(path: pathlib.Path, template: Variables) -> dict[str, np.ndarray]:
    """Read parameters and batch statistics, flat under our own names; the optimiser is left on disk.

    Where training kept a moving average of them, the average is what is read, for it is what the run's own
    weights are and what its validation measured.

    Numbers of values are compared with the template's before any array is read, so that no file makes them
    fill the memory: at most four times as many are read, and 16.8 million more. Smaller differences are left
    to the merge, which names them.

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
        with _quiet(), ocp.Checkpointer(handler) as reader:
            tree = reader.metadata(item.parent).item_metadata[item.name].tree
            averaged = AVERAGE not in template and "params" in (tree.get(AVERAGE) or ())
            wanted = [AVERAGE] if averaged else template
            want = {name: tree[name] for name in wanted if name in tree}
            if not averaged and "params" not in want:
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
            restored = reader.restore(item.parent, args=ocp.args.Composite(**{item.name: args}))
            tree = restored[item.name]
            inner = tree[AVERAGE] if averaged else tree
            flat = {"/".join(p): np.asarray(leaf) for p, leaf in names.leaves(inner)}
    except JaxtrackError:
        raise
    except Exception as error:  # Orbax and TensorStore raise what they please at a damaged folder
        line = brief(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise JaxtrackError(f"{item}: not a whole Orbax checkpoint ({line})") from error
    _check_sums(item, tree)
    return flat


def _check_sums(item: pathlib.Path, tree: Any) -> None:
    """Compare what was read with the sums that training keeps beside it: Orbax itself keeps none."""
    place, sums = item.parent / RECORD / "metadata", None
    if place.is_file():
        record = read_json(place, "the record of a checkpoint", dict, _LARGEST_RECORD)
        sums = record.get("sums")
    if not isinstance(sums, dict):
        why = "an older version or another program wrote it"
        print(f"note: {item}: no checksums lie beside it ({why}); read unchecked", file=sys.stderr)
        return
    for name in tree:
        if name in sums and sums[name] != sum_of_arrays(tree[name]):
            raise JaxtrackError(
                f"{item}: the checkpoint is damaged ({name} differ from their sum); take another step"
            )


def _check_size(item: pathlib.Path, want: dict[str, Any], template: Variables) -> None:
    size = sum(np.prod(leaf.shape, dtype=np.float64) for _, leaf in names.leaves(want))
    wanted = sum(np.prod(leaf.shape, dtype=np.float64) for _, leaf in names.leaves(template))
    if size > 4 * wanted + (1 << 24):
        raise JaxtrackError(
            f"{item}: the weights do not fit this network: {size:.4g} values, {wanted:.4g} wanted"
        )


def _item(path: pathlib.Path) -> pathlib.Path:
    """Return the folder of the array tree in an Orbax checkpoint: the item of the newest step."""
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
def _quiet() -> Iterator[None]:
    """Keep off the screen what Orbax says beside its exception.

    That other items of a checkpoint (its data position) are left unread; what is wrong, at length; and, when
    a read fails, that the others under way find no one any more who waits for them.
    """
    logger, level, hook = (
        logging.getLogger("absl"),
        logging.getLogger("absl").level,
        sys.unraisablehook,
    )
    logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda _: None
    try:
        yield
    except Exception:
        time.sleep(_LATE_SECONDS)
        raise
    finally:
        logger.setLevel(level)
        sys.unraisablehook = hook
