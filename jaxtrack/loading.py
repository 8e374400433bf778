"""A tracker's learned values, from shipped weights or from a file."""

from __future__ import annotations

import os

import jax

from jaxtrack import checks, trackers, weights
from jaxtrack.base import Tracker, Variables, variable_shapes
from jaxtrack.errors import JaxtrackError


def load_weights(
    tracker: str | Tracker,
    path: str | os.PathLike[str] | None = None,
    *,
    source: str | None = None,
    key: str | None = None,
    interpolate: bool = False,
) -> Variables:
    """Load a tracker's variables.

    Args:
        tracker: a preset's name, or a `Tracker`: one of the library's with any config, or one of one's own.
        path: a published checkpoint (of PyTorch, MatConvNet, numpy or safetensors; told by its content),
            our ``.safetensors``, or the folder of an Orbax checkpoint; ``FILE::KEY`` names the entry
            of a file that holds several state dicts. None: the weights that come with the preset.
        source: name table to be used, where a family has several (see `jaxtrack.base.Family.tables`).
        key: the entry, as an alternative to ``FILE::KEY``.
        interpolate: resize position embeddings that were trained for another size of crop; they are
            refused otherwise.

    Returns:
        ``{"params": ..., "batch_stats": ...}``.

    Raises:
        JaxtrackError: unknown preset, no shipped weights, unreadable or hostile file, or weights of
            another network (both lists of names are in the message).
    """
    if not isinstance(tracker, (str, Tracker)):
        raise JaxtrackError(
            f"a tracker, or the name of a preset, is wanted; this is a {type(tracker).__name__}"
        )
    record = trackers.get(tracker) if isinstance(tracker, str) else tracker
    checks.tracker(record, Tracker)
    if path is None:
        path = _shipped((tracker,) if isinstance(tracker, str) else trackers.presets_of(tracker))
    template, tables = variable_shapes(record), trackers.family_of(record).tables
    return weights.load_into(
        template, path, tables, source=source, key=key, interpolate=interpolate
    )


def _shipped(names: tuple[str, ...]) -> os.PathLike[str]:
    """Return the weights that come with a tracker of these names, which are one and the same."""
    if not names:
        raise JaxtrackError(
            "this configuration is no preset: give the file of its weights, or load those of the preset that "
            "it was made from by its name, as load_weights('siamfc-tiny')"
        )
    known = weights.shipped_names()
    having = [name for name in names if name in known]
    if len(having) > 1:
        raise JaxtrackError(
            f"this configuration is that of {' and '.join(having)}, with weights of its own each: give the"
            " preset's name"
        )
    return weights.shipped_path(*having or names[:1])


def variables_of(
    name: str,
    tracker: Tracker,
    path: str | os.PathLike[str] | None = None,
    interpolate: bool = False,
) -> Variables:
    """Load what a command's tracker and weights mean.

    Args:
        name: the preset's, or ``package.module:TRACKER``.
        tracker: of this name, its settings changed or not: weights that a change does not fit are refused.
        path: file or folder of weights; None: those that come with the preset. A tracker of one's own that
            learns nothing needs none.
        interpolate: as for `load_weights`.

    Raises:
        JaxtrackError: as `load_weights`.
    """
    if path is None and ":" not in name:
        path = weights.shipped_path(name)
    if path is not None:
        return load_weights(tracker, path, interpolate=interpolate)
    if jax.tree.leaves(variable_shapes(tracker)):
        raise JaxtrackError(f"no weights come with {name}: give the file of its weights")
    return tracker.init_variables(tracker.config, jax.random.key(0))
