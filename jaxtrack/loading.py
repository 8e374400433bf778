"""A tracker's learned values, from shipped weights or from a file."""

from __future__ import annotations

import os

import jax

from jaxtrack import trackers, weights
from jaxtrack.base import Tracker, Variables
from jaxtrack.errors import JaxtrackError


def load_weights(
    tracker: str | Tracker, path: str | os.PathLike[str] | None = None, *, source: str | None = None
) -> Variables:
    """Load a tracker's variables.

    Args:
        tracker: a preset's name, or a `Tracker` (its own configuration is allowed when a path is given).
        path: a published checkpoint (``.pth``, ``.pth.tar``, ``.pt``, ``.mat``, ``.npz``), our
            ``.safetensors``, or the folder of an Orbax checkpoint; None: the weights that come with
            the preset.
        source: name table to be used, where a family has several (see `jaxtrack.base.Family.tables`).

    Returns:
        ``{"params": ..., "batch_stats": ...}``.

    Raises:
        JaxtrackError: unknown preset, no shipped weights, unreadable or hostile file, or weights of
            another network (both lists of names are in the message).
    """
    name = tracker if isinstance(tracker, str) else preset_of(tracker)
    if path is None:
        if name is None:
            raise JaxtrackError("this configuration is no preset: give the file of its weights")
        if isinstance(tracker, str):
            trackers.family_of(tracker)  # an unknown name is told as such
        path = weights.shipped_path(name)
    record = trackers.get(tracker) if isinstance(tracker, str) else tracker
    template = jax.eval_shape(
        lambda key: record.init_variables(record.config, key), jax.random.key(0)
    )
    return weights.load_into(template, path, trackers.family_of(record).tables, source=source)


def preset_of(tracker: Tracker) -> str | None:
    """The name under which a tracker is a preset, or None."""
    return next((name for name in trackers.names() if trackers.get(name) == tracker), None)
