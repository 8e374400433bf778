"""From published parameter names to ours and back, strictly.

Our modules carry the published names, so a parameter's path joined by dots is its published name up to
the leaf: ``kernel`` of a convolution is ``weight`` with axes OIHW instead of HWIO, ``kernel`` of a dense
layer is ``weight`` transposed, ``scale`` is ``weight``, batch statistics ``mean`` and ``var`` are
``running_mean`` and ``running_var``. A raw parameter keeps its name. What is left is told by a
`NameTable`.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtrack.errors import JaxtrackError, brief

# Ours to published, by number of dimensions of the kernel: dense, 1-d and 2-d convolution.
_KERNEL_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}
_LISTED = 24  # names printed of each list in an error
_LONGEST_NAME = 100  # characters printed of a name

# What wrappers put in front of every name, one within another: DataParallel and its kin ``module``,
# torch.compile ``_orig_mod``, training frameworks the attribute that holds the network. The first two may
# also wrap a part, and then stand within a name.
_WRAPPER = re.compile(r"(?:module|_orig_mod|model|net|network)\.")
_INNER_WRAPPER = re.compile(r"(?<![^.])(?:module|_orig_mod)\.")
_MOST_WRAPPERS = 4
# What PyTorch counts beside the weights: batches seen by a normalisation, states in an averaged model.
_COUNTER = re.compile(r"(?<![^.])(?:num_batches_tracked|n_averaged)$")

Variables = Any


@dataclasses.dataclass(frozen=True)
class NameTable:
    """How a published code's names differ from ours.

    Attributes:
        rename: ``(pattern, replacement)`` pairs, applied with `re.sub` one after the other to each
            published name.
        ignore: patterns (`re.search`) of published names that have no counterpart and are left out.
            PyTorch's own counters (``num_batches_tracked``, ``n_averaged``) always are. Wrappers in front
            of the names, such as ``module.``, are gone before patterns are looked for.
        restore: ``(pattern, replacement)`` pairs that lead from our dotted names back to the published
            ones; `to_published` checks that ``rename`` undoes them. Empty where ``rename`` only takes
            away what a file may or may not have.
        adapt: ``(state dict, {name: shape wanted}) -> state dict``: brings values to this network's
            shapes where that is sound, and says so; used only where it is asked for. None: nothing of
            the kind. It is also given our own names, joined by ``/``.
        adapts: patterns of the names that ``adapt`` can bring to another shape.
    """

    rename: tuple[tuple[str, str], ...] = ()
    ignore: tuple[str, ...] = ()
    restore: tuple[tuple[str, str], ...] = ()
    adapt: (
        Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]]], Mapping[str, Any]] | None
    ) = None
    adapts: tuple[str, ...] = ()


class Target(NamedTuple):
    """A leaf to be filled: its place in the tree, its shape and type, and published axes order."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[int, ...] | None


class Fit(NamedTuple):
    """What a strict merge found; perfect when all but ``sources`` are empty.

    Attributes:
        sources: ``{target name: source name}``.
        unused: source names without a target.
        unfilled: target names without a source.
        shapes: source names of another shape, with the words that say so.
        twice: targets with two sources, in words.
    """

    sources: dict[str, str]
    unused: list[str]
    unfilled: list[str]
    shapes: dict[str, str]
    twice: list[str]

    @property
    def faults(self) -> int:
        """Number of names that are wrong."""
        return len(self.unused) + len(self.unfilled) + len(self.shapes) + len(self.twice)


def leaves(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """``(path, leaf)`` of a tree of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def plant(values: Mapping[tuple[str, ...], Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested tree of a template's form with these leaves (empty branches are kept)."""

    def grow(node: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        return {
            key: grow(value, (*path, str(key)))
            if isinstance(value, Mapping)
            else values[(*path, str(key))]
            for key, value in node.items()
        }

    return grow(template, ())


def published_targets(variables: Variables) -> dict[str, Target]:
    """Return the published name of every leaf of a variable tree.

    Args:
        variables: ``{"params": ..., "batch_stats": ...}`` or a part of it (say one backbone under
            ``params``), of arrays or `jax.ShapeDtypeStruct`.

    Returns:
        ``{published name: Target}``.

    Raises:
        ValueError: a collection that is neither, or two leaves of one name.
    """
    targets: dict[str, Target] = {}
    for path, leaf in leaves(variables):
        shape, axes = tuple(leaf.shape), None
        collection, *modules, last = path
        if collection == "params":
            if last == "kernel" and len(shape) in _KERNEL_AXES:
                axes = _KERNEL_AXES[len(shape)]
                shape = tuple(shape[a] for a in axes)
            last = {"kernel": "weight", "scale": "weight"}.get(last, last)
        elif collection == "batch_stats":
            last = {"mean": "running_mean", "var": "running_var"}.get(last, last)
        else:
            raise ValueError(f"collection {collection!r} has no published counterpart")
        name = ".".join((*modules, last))
        if name in targets:
            raise ValueError(f"two variables share the published name {name}")
        targets[name] = Target(path, shape, leaf.dtype, axes)
    return targets


def own_targets(variables: Variables) -> dict[str, Target]:
    """Our own flat name (the path joined by ``/``) of every leaf of a variable tree."""
    return {
        "/".join(path): Target(path, tuple(leaf.shape), leaf.dtype, None)
        for path, leaf in leaves(variables)
    }


def _renamed(rules: tuple[tuple[str, str], ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def fit(
    table: NameTable, shapes: Mapping[str, tuple[int, ...]], targets: Mapping[str, Target]
) -> Fit:
    """Lay source names beside target names.

    Args:
        table: the renaming.
        shapes: ``{source name: shape}``.
        targets: ``{name: Target}`` to be filled.

    Returns:
        The assignment and everything that does not fit.
    """
    sources: dict[str, str] = {}
    found = Fit(sources, [], [], {}, [])
    for source, shape in shapes.items():
        if _COUNTER.search(source) or any(re.search(p, source) for p in table.ignore):
            continue
        name = _renamed(table.rename, source)
        if name not in targets:
            found.unused.append(source)
        elif name in sources:
            found.twice.append(f"{name} by {sources[name]} and {source}")
        else:
            sources[name] = source
            if tuple(shape) != targets[name].shape:
                found.shapes[source] = f"{source} is {tuple(shape)}, {targets[name].shape} wanted"
    found.unfilled.extend(name for name in targets if name not in sources)
    return found


def adaptable(table: NameTable, found: Fit) -> bool:
    """Say whether every value of another shape is one that the table's ``adapt`` may bring to it."""
    return all(any(re.search(p, name) for p in table.adapts) for name in found.shapes)


class Laid(NamedTuple):
    """The table and the reading of a file's names that fit best.

    Attributes:
        label: of the table.
        names: ``{name in the file: name without wrappers}``.
        fit: what was found, by names without wrappers.
    """

    label: str
    names: dict[str, str]
    fit: Fit


def lay(
    tables: Mapping[str, NameTable],
    shapes: Mapping[str, tuple[int, ...]],
    targets: Mapping[str, Target],
) -> Laid:
    """Choose the table, and how much of a wrapper to take off the names, that leave the fewest faults.

    Args:
        tables: by label, at least one.
        shapes: ``{source name: shape}`` of the file.
        targets: ``{name: Target}`` to be filled.
    """
    best: Laid | None = None
    for names in _readings(list(shapes)):
        plain = {names[source]: shape for source, shape in shapes.items()}
        for label, table in tables.items():
            found = fit(table, plain, targets)
            if best is None or found.faults < best.fit.faults:
                best = Laid(label, names, found)
            if not found.faults:
                return best
    assert best is not None
    return best


def _readings(sources: list[str]) -> Iterator[dict[str, str]]:
    """Name as they are, then with one wrapper after another taken off, as long as they stay apart."""
    known: list[list[str]] = []
    outer = sources
    for _ in range(_MOST_WRAPPERS + 1):
        for names in (outer, [_INNER_WRAPPER.sub("", name) for name in outer]):
            if names not in known and len(set(names)) == len(names):
                known.append(names)
                yield dict(zip(sources, names))
        outer = [_without_first(name) for name in outer]


def _without_first(name: str) -> str:
    found = _WRAPPER.match(name)
    return name[found.end() :] if found else name


def explain(found: Fit) -> str:
    """Return the error text of a merge that does not fit: the counts in one line, then the lists."""
    parts = {
        "in the file, without a place here": found.unused,
        "wanted here, not in the file": found.unfilled,
        "of another shape": list(found.shapes.values()),
        "filled twice": found.twice,
    }
    counts = ", ".join(f"{len(names)} {what}" for what, names in parts.items() if names)
    lines = [f"the weights do not fit this network: {counts}"]
    for what, names in parts.items():
        if not names:
            continue
        shown = ", ".join(brief(name, _LONGEST_NAME) for name in names[:_LISTED])
        rest = f" ... and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        text = f"{what}: {shown}{rest}"
        lines += textwrap.wrap(
            text, 100, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join(lines)


def merge(
    found: Fit,
    values: Mapping[str, np.ndarray],
    targets: Mapping[str, Target],
    variables: Variables,
) -> Variables:
    """Fill a tree by a fit.

    Raises:
        JaxtrackError: the fit has faults, or a value is no finite real number, of another kind than the
            variable (integers of a quantised file have lost their scale), or a variance below 0.
    """
    if found.faults:
        raise JaxtrackError(explain(found))
    filled = {}
    for name, target in targets.items():
        value = np.asarray(values[found.sources[name]])
        # bfloat16 is a float to jax but not to numpy's kinds.
        if not (jnp.issubdtype(value.dtype, jnp.floating) or value.dtype.kind in "biu"):
            raise JaxtrackError(f"{found.sources[name]} holds {value.dtype}, not real numbers")
        floats = jnp.issubdtype(target.dtype, jnp.floating)
        if floats != jnp.issubdtype(value.dtype, jnp.floating):
            wanted = "floats are" if floats else f"{np.dtype(target.dtype)} is"
            raise JaxtrackError(f"{found.sources[name]} is {value.dtype}; {wanted} wanted")
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            value = np.asarray(value, target.dtype)
        if not np.isfinite(value).all():
            raise JaxtrackError(f"{found.sources[name]} holds NaN or infinite values")
        if (target.path[0], target.path[-1]) == ("batch_stats", "var") and (value < 0).any():
            raise JaxtrackError(f"{found.sources[name]} holds a variance below 0 ({value.min():g})")
        if target.axes is not None:
            value = value.transpose(np.argsort(target.axes))
        filled[target.path] = jnp.asarray(value)
    return plant(filled, variables)


def from_published(
    table: NameTable, state_dict: Mapping[str, np.ndarray], variables: Variables
) -> Variables:
    """Fill our variables from a published state dict, strictly.

    Every source entry is used or ignored by the table, every leaf is filled, every shape is equal. To
    take over a part only (a pre-trained backbone), hand over that part of the tree,
    ``{"params": {"backbone": ...}}``, with a table that ignores the rest.

    Args:
        table: the renaming.
        state_dict: ``{published name: array}``, kernels OIHW.
        variables: the tree to be filled; arrays or `jax.ShapeDtypeStruct` (only names, shapes and
            types matter).

    Returns:
        A tree of the same form and types, kernels HWIO.

    Raises:
        JaxtrackError: something does not fit; both lists are in the message.
    """
    targets = published_targets(variables)
    laid = lay({"": table}, {name: np.shape(value) for name, value in state_dict.items()}, targets)
    plain = {laid.names[name]: value for name, value in state_dict.items()}
    return merge(laid.fit, plain, targets, variables)


def to_published(table: NameTable, variables: Variables) -> dict[str, np.ndarray]:
    """Return the way back: our variables under published names and in published layout.

    Args:
        table: the renaming that `from_published` would use.
        variables: ``{"params": ..., "batch_stats": ...}`` of arrays, kernels HWIO.

    Returns:
        ``{published name: array}``, kernels OIHW, with the ``num_batches_tracked`` counters (zero) that
        PyTorch's strict loading asks for.

    Raises:
        ValueError: the table's ``restore`` is not undone by its ``rename``.
    """
    values = dict(leaves(variables))
    state: dict[str, np.ndarray] = {}
    for name, target in published_targets(variables).items():
        source = _renamed(table.restore, name)
        if _renamed(table.rename, source) != name:
            raise ValueError(f"the name table has no way back for {name} (gave {source})")
        value = np.asarray(values[target.path])
        state[source] = value if target.axes is None else value.transpose(target.axes).copy()
        if source.endswith("running_var"):
            counter = source.removesuffix("running_var") + "num_batches_tracked"
            state[counter] = np.zeros((), np.int64)
    return state
