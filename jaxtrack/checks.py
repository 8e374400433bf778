"""What the verbs accept, and the one line that each other argument is answered with.

All checks but that of a box's values look at types, shapes and dtypes alone: they cost nothing while a
compiled program runs, and hold for tracers too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.errors import JaxtrackError, brief

_SHOWN = 3  # names of each list in a message


def tracker(value: Any, kind: type) -> None:
    """Refuse what is no tracker, above all a preset's name.

    Args:
        value: what was handed over.
        kind: `jaxtrack.base.Tracker`.
    """
    if isinstance(value, str):
        name = brief(repr(value), 60)
        raise JaxtrackError(f"tracker is the text {name}; hand over jaxtrack.get_tracker({name})")
    if not isinstance(value, kind):
        raise JaxtrackError(
            f"tracker is of type {type(value).__name__}; hand over jaxtrack.get_tracker(...)"
        )


def frame(value: Any, what: str = "frame", axes: str = "(h, w, 3)", floats: bool = True) -> None:
    """Refuse what is no picture of this library: RGB, channels last, uint8 or float.

    Args:
        value: what was handed over.
        what: its name in a message.
        axes: the axes it shall have.
        floats: floats are pictures too (not where frames are gathered on canvases of bytes).
    """
    if isinstance(value, (list, tuple)):
        advice = "stack them: numpy.stack(frames)" if what == "frames" else "give one array"
        raise JaxtrackError(f"{what} is a {type(value).__name__}; {advice}")
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise JaxtrackError(
            f"{what} is of type {type(value).__name__}; give an array {axes} of RGB, uint8"
        )
    shape, rank = tuple(value.shape), axes.count(",") + 1
    if len(shape) != rank or shape[-1] != 3 or 0 in shape:
        raise JaxtrackError(
            f"{what} has the shape {shape}; give {axes}: rows, columns, and the channels R, G, B last"
        )
    if not floats and value.dtype != np.uint8:
        raise JaxtrackError(f"{what} is {value.dtype}; give uint8, 0 to 255")
    if value.dtype != np.uint8 and not _is_float(value.dtype):
        raise JaxtrackError(
            f"{what} is {value.dtype}; give uint8, or floats in 0 to 255 (not in 0 to 1)"
        )


def frames(value: Any) -> None:
    """Refuse what is no clip: one array of frames, time first."""
    frame(value, "frames", "(t, h, w, 3)")


def state(value: Any, prediction: type) -> None:
    """Refuse what is no state, above all the pair that `track_frame` returned.

    Args:
        value: what was handed over.
        prediction: `jaxtrack.base.Prediction`.
    """
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], prediction):
        raise JaxtrackError("state is a pair (state, prediction); hand over its first part alone")
    if value is None or isinstance(value, (prediction, str)):
        raise JaxtrackError(
            f"state is of type {type(value).__name__}; hand over what jaxtrack.init returned"
        )


def box(value: Any) -> Any:
    """Return a box as ``(4,)`` float32.

    Args:
        value: ``x, y, w, h``: a list, a tuple, or an array of integers or floats. Values that are known
            now must be finite and the size positive; a tracer's cannot be looked at.
    """
    where = "box: give x, y, w, h in pixels, 0-based corner"
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        given: Any = jnp.asarray(value)
        traced = True
    elif isinstance(value, jax.Array) and not value.is_fully_addressable:
        given, traced = value, True
    else:
        try:
            given = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise JaxtrackError(f"{where}; these are not four numbers") from error
        traced = False
    number = np.issubdtype(given.dtype, np.integer) or _is_float(given.dtype)
    if not number:
        raise JaxtrackError(f"{where}; these are {given.dtype}, not numbers")
    if given.shape != (4,):
        raise JaxtrackError(f"{where}; this one has the shape {given.shape}, not (4,)")
    if traced:
        return given.astype(jnp.float32)
    with np.errstate(over="ignore"):
        ours = given.astype(np.float32)
    shown = "(" + ", ".join(f"{float(v):g}" for v in ours) + ")"
    if not np.isfinite(ours).all():
        raise JaxtrackError(f"box {shown} is not finite; give x, y, w, h in pixels")
    if not (ours[2:] > 0).all():
        raise JaxtrackError(
            f"box {shown} has no positive width and height; give x, y, w, h (not two corners)"
        )
    return ours


def boxes(value: Any) -> np.ndarray:
    """Return the boxes of several targets as ``(n, 4)`` float32, each checked as by `box`.

    Args:
        value: ``(n, 4)``, or ``(4,)`` for one target; values of the host.
    """
    try:
        given = np.asarray(value)
    except (ValueError, TypeError):
        given = np.empty(0)
    if given.ndim not in (1, 2) or given.shape[-1] != 4 or given.size == 0:
        raise JaxtrackError(
            f"boxes have the shape {given.shape}; give (n, 4), a row x, y, w, h for each target"
        )
    return np.stack([box(row) for row in given.reshape(-1, 4)])


def frame_size(value: Any, frame: Any) -> Any:
    """Return the true size ``(2,)`` int32 of the picture on its canvas; None stays None.

    Args:
        value: ``(height, width)``, or None: the whole frame.
        frame: the checked frame.
    """
    if value is None:
        return None
    canvas = tuple(frame.shape[:2])
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        given: Any = jnp.asarray(value)
        traced = True
    else:
        traced = isinstance(value, jax.Array)  # not looked at: that would wait for the device
        given = value if traced else np.asarray(value)
    if given.shape != (2,) or not np.issubdtype(given.dtype, np.integer):
        raise JaxtrackError(
            f"frame_size has the shape {given.shape} and is {given.dtype}; give two integers, (height, width)"
        )
    if not traced and not ((given >= 1) & (given <= canvas)).all():
        raise JaxtrackError(
            f"frame_size {tuple(int(v) for v in given)} does not fit the frame's {canvas}"
        )
    return given.astype(np.int32)


def variables(value: Any, template: Any) -> None:
    """Refuse weights that are not this tracker's: every array that it needs must be there, in its shape.

    Integers in the place of floats are weights that lost their scale when they were quantised.

    Args:
        value: ``{"params": ..., "batch_stats": ...}``; what the tracker does not need may lie beside it.
        template: what it needs, arrays or shapes.
    """
    have, want = _named(value), _named(template)
    wrong = [name for name in want if have.get(name) != want[name]]
    if not wrong:
        kinds = _named(value, _kind_of)
        for name, kind in _named(template, _kind_of).items():
            if _is_float(kind) and not _is_float(kinds[name]):
                raise JaxtrackError(f"{brief(name, 80)} is {kinds[name]}; floats are wanted")
        return
    others = [name for name in have if have[name] != want.get(name)]
    raise JaxtrackError(
        "these variables are not this tracker's: it needs "
        f"{_some(wrong, want)}; here {_some(others, have) if others else 'there are none'}. "
        "Load them with jaxtrack.load_weights(tracker, path)"
    )


def _named(tree: Any, ask: Callable[[Any], Any] = jnp.shape) -> dict[str, Any]:
    """Return what is asked of a tree's leaves, their shapes, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        ".".join(str(getattr(key, "key", key)).lstrip(".") for key in path): ask(leaf)
        for path, leaf in leaves
    }


def _kind_of(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _some(names: list[str], shapes: dict[str, tuple[int, ...]]) -> str:
    """Return the first few names with their shapes, and how many more there are."""
    shown = ", ".join(f"{brief(name, 80)} {shapes[name]}" for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))
