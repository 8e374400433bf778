"""Training presets: what a published recipe fixes, as one value. Families define them in ``train/tasks``."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pathlib
from collections.abc import Callable, Hashable
from typing import Any

import jax

from jaxtrack.errors import JaxtrackError
from train import tasks
from train.optim import OptimConfig
from train.step import Task


@dataclasses.dataclass(frozen=True)
class Preset:
    """A recipe: task, optimiser, length, data.

    Attributes:
        task: what is trained.
        tracker: the tracker preset (`jaxtrack.trackers`) that the weights are for.
        optim: the optimiser for `batch_size`.
        batch_size: pairs per step of the whole run, over all devices.
        steps: length of the run.
        epochs: the same length in epochs, the unit of schedules and of ``batch["epoch"]``.
        data: what the input pipeline is to deliver from built datasets (`train.data`); None: this
            preset trains on the synthetic world only.
        source: where the recipe is published.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints.
        init_from: published weights that the recipe starts from, in words; "" for none. They are given
            with ``--init-from``; the run goes on without them, and says so.
        load: ``(task config, path, key) -> variables``: how such a file becomes the task's variables,
            where it does not hold all of them (a backbone alone); None: strictly, as a whole.
    """

    task: Task
    tracker: str
    optim: OptimConfig
    batch_size: int
    steps: int
    epochs: int = 1
    data: Hashable = None
    source: str = ""
    log_every: int = 20
    save_every: int = 500
    init_from: str = ""
    load: Callable[[Any, pathlib.Path, Any], Any] | None = None


def all_presets() -> dict[str, Preset]:
    """Every preset by name, family by family."""
    found: dict[str, Preset] = {}
    for family in tasks.FAMILIES:
        found.update(importlib.import_module(f"train.tasks.{family}").PRESETS)
    return found


def get(name: str) -> Preset:
    """The preset of a name.

    Raises:
        JaxtrackError: unknown; the nearest names are offered.
    """
    presets = all_presets()
    if name in presets:
        return presets[name]
    near = difflib.get_close_matches(name, presets, n=3, cutoff=0.4)
    offer = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(presets)}"
    raise JaxtrackError(f"unknown training preset {name!r}; {offer}")


def describe(preset: Preset) -> dict[str, Any]:
    """A preset as JSON-like values: nested settings, functions by name."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = dataclasses.fields(value)
            return {field.name: plain(getattr(value, field.name)) for field in fields}
        if isinstance(value, (tuple, list)):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if callable(value):
            return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
        return value

    return plain(preset)


def shapes(task: Task) -> Any:
    """Shapes of a task's variables, without computing them."""
    return jax.eval_shape(lambda key: task.init_variables(task.config, key), jax.random.key(0))
