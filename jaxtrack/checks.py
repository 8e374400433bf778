"""What the verbs accept, and the one line that each other argument is answered with.

All checks but that of a box's values look at types, shapes and dtypes alone: they cost nothing while a
compiled program runs, and hold for tracers too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.errors import JaxtrackError, brief

_SHOWN = 3  # names of each list in a message
IN_FRAME = "give x, y, w, h in pixels of this frame"  # what to do about a box that does not fit
_LARGEST_BOX = 10.0  # of the frame's longer side; no annotation in use comes near it


def tracker(value: Any, kind: type) -> None:
    """Refuse what is no tracker, above all a preset's name, and a config that cannot key a program.

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
    config: Any = value.config  # type: ignore[attr-defined]
    if isinstance(config, type):
        raise JaxtrackError(
            f"the tracker's config is the class {config.__name__}; give a value of it, {config.__name__}()"
        )
    try:
        hash(config)
    except TypeError as error:
        raise JaxtrackError(
            f"the tracker's config, of type {type(config).__name__}, cannot be hashed ({brief(error)}); "
            "make it a frozen dataclass of numbers, strings and tuples (settings that are arrays go to "
            "tracker.init and tracker.track_frame)"
        ) from error


def variables_kind(value: Any) -> None:
    """Refuse what is no tree of arrays at all; `variables` looks into one."""
    if isinstance(value, Mapping):  # what they nearly always are: nothing is walked through
        return
    leaves = jax.tree.leaves(value)
    if value is None or not all(hasattr(x, "dtype") or isinstance(x, (int, float)) for x in leaves):
        raise JaxtrackError(
            f"variables are of type {type(value).__name__}; hand over jaxtrack.load_weights(...)"
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


def state_fits(value: Any, template: Any) -> None:
    """Refuse a state of another tracker's form.

    Args:
        value: what was handed over.
        template: what the tracker's ``init`` returns, arrays or shapes.
    """
    have, want = _named(value), _named(template)
    form: Any = jax.tree.structure(template)
    if have == want and form == jax.tree.structure(value):
        return
    wrong = [name for name in want if have.get(name) != want[name]]
    others = [name for name in have if have[name] != want.get(name)]
    raise JaxtrackError(
        f"state is of type {type(value).__name__} and not this tracker's"
        + (f": it needs {_some(wrong, want)}" if wrong else "")
        + (f"; here {_some(others, have)}" if others else "")
        + "; hand over what jaxtrack.init returned for this tracker"
    )


def step(before: Any, returned: Any, prediction: type) -> None:
    """Refuse what a tracker's ``track_frame`` must not return, for it is a tracker of somebody's own.

    Args:
        before: the state that it was given.
        returned: what it returned.
        prediction: `jaxtrack.base.Prediction`.
    """
    where = "this tracker's track_frame"
    pair = isinstance(returned, tuple) and len(returned) == 2
    if not (pair and isinstance(returned[1], prediction)):
        kind = type(returned[1] if pair else returned).__name__
        raise JaxtrackError(
            f"{where} returned a {kind} {'behind the state' if pair else 'alone'}; "
            "return state, jaxtrack.Prediction(box, score)"
        )
    after, found = returned
    for name, value, shape in (("box", found.box, (4,)), ("score", found.score, ())):
        if jnp.shape(value) != shape or not _is_float(jnp.result_type(value)):
            raise JaxtrackError(
                f"{where} predicted a {name} that is {_form(value)}; floats of the shape {shape} are wanted"
            )
    have, want = _named(after, _form), _named(before, _form)
    wrong = [name for name in want if have.get(name) != want[name]]
    if wrong:
        raise JaxtrackError(
            f"{where} was given {_some(wrong, want)} in its state and returned "
            f"{_some([name for name in wrong if name in have], have) or 'none of it'}; return the same tree, "
            "shapes and dtypes"
        )
    form: Any = jax.tree.structure(before)
    if form != jax.tree.structure(after):
        raise JaxtrackError(
            f"{where} was given a state of type {type(before).__name__} and returned a "
            f"{type(after).__name__} of another tree; return the same tree, shapes and dtypes"
        )


def _form(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)} {jnp.shape(leaf)}"


def box_fault(
    box: Any, size: tuple[int, int], name: str, advice: str = "correct its annotation"
) -> str | None:
    """Return why a box cannot start a tracker in a frame, in one line; None: it can.

    The rule of evaluations: published first boxes whose centre lies a little outside are tracked.

    Args:
        box: ``(4,)`` x, y, w, h in pixels, 0-based corner.
        size: ``(height, width)`` of the frame.
        name: what the box is called.
        advice: what to do about it.
    """
    box = np.asarray(box, np.float64).reshape(-1)
    if box.shape != (4,):
        return f"{name} has {len(box)} numbers; x, y, w, h of positive size are wanted"
    shown = "[" + ", ".join(f"{value:g}" for value in box) + "]"
    if not np.isfinite(box).all() or (box[2:] <= 0).any():
        return f"{name} {shown} has no positive size; {advice}"
    height, width = size
    if (box[:2] + box[2:] <= 0).any() or box[0] >= width or box[1] >= height:
        return f"{name} {shown} lies outside the {width}x{height} frame; {advice}"
    return _too_large(box, size, f"{name} {shown}", advice)


def _too_large(box: np.ndarray, size: tuple[int, int], shown: str, advice: str) -> str | None:
    """Return why a box is too large for a frame, whose windows would hold nothing of it; None: it is not."""
    height, width = size
    if (box[2:] > _LARGEST_BOX * max(height, width)).any():
        return f"{shown} is far larger than the {width}x{height} frame; {advice}"
    return None


def box(value: Any, size: tuple[int, int] | None = None) -> Any:
    """Return a box as ``(4,)`` float32.

    Args:
        value: ``x, y, w, h``: a list, a tuple, or an array of integers or floats. Values that are known
            now must be finite, the size positive; a tracer's cannot be looked at.
        size: ``(height, width)`` of the frame, than which a box of known values must not be far larger. It
            may lie outside, as after a target that left the frame.
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
    if size is not None and (fault := _too_large(ours, size, f"box {shown}", IN_FRAME)) is not None:
        raise JaxtrackError(fault)
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


def known_size(size: Any, frame: Any) -> tuple[int, int]:
    """Return ``(height, width)`` in which a box must lie: the picture, or the canvas where it is unknown.

    Args:
        size: from `frame_size`.
        frame: the checked frame.
    """
    if size is None or isinstance(size, jax.Array):
        return frame.shape[0], frame.shape[1]
    return int(size[0]), int(size[1])


def clip(frames: Any) -> None:
    """Refuse what no frames can be taken from one after the other."""
    try:
        iter(frames)
    except TypeError:
        raise JaxtrackError(
            f"frames are of type {type(frames).__name__}; give frames (h, w, 3), the path of a video, or "
            "jaxtrack.open_video(...)"
        ) from None


def chunk(value: Any) -> int:
    """Return the number of frames of a chunk."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise JaxtrackError(
            f"chunk is {brief(repr(value), 40)}; at least one frame per chunk is needed, a whole number"
        )
    return int(value)


def canvas(value: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Return ``(height, width)`` of a canvas that holds a frame.

    Args:
        value: of a canvas; None: the frame's own size.
        size: ``(height, width)`` of the frame.
    """
    if value is None:
        return size
    try:
        given = np.asarray(value)
    except (ValueError, TypeError):
        given = np.empty(0)
    whole = given.shape == (2,) and np.issubdtype(given.dtype, np.integer)
    if not whole or (given < size).any():
        raise JaxtrackError(
            f"canvas is {brief(repr(value), 60)}; give (height, width), whole numbers not below the "
            f"frame's {size}"
        )
    return int(given[0]), int(given[1])


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


def _named(tree: Any, ask: Callable[[Any], Any] = np.shape) -> dict[str, Any]:
    """Return what is asked of a tree's leaves, their shapes, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        ".".join(str(getattr(key, "key", key)).lstrip(".") for key in path): ask(leaf)
        for path, leaf in leaves
    }


def _kind_of(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _some(names: list[str], shapes: Mapping[str, object]) -> str:
    """Return the first few names with their shapes or forms, and how many more there are."""
    shown = ", ".join(f"{brief(name, 80)} {shapes[name]}" for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))
