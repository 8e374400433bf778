"""Training presets: what a published recipe fixes, as one value. Families define them in ``train/tasks``.

Those of others are imported, as their trackers are: ``package.module:PRESET`` serves wherever a name does.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from jaxtrack import settings
from jaxtrack.errors import UsageError, brief, unknown
from jaxtrack.imports import imported_as
from jaxtrack.ranges import BelowOne, Count, check_ranges
from jaxtrack.settings import Explained, as_text, described, replaced

from . import tasks
from .optim import OptimConfig
from .step import Task, function_name


@dataclasses.dataclass(frozen=True)
class Preset:
    """A recipe: task, optimiser, length, data.

    Attributes:
        task: what is trained.
        tracker: the tracker preset (`jaxtrack.trackers`) that the weights are for; it may be
            ``package.module:TRACKER``.
        optim: the optimiser for `batch_size`.
        batch_size: pairs per step of the whole run, over all devices.
        steps: length of the run.
        epochs: the same length in epochs, the unit of schedules and of ``batch["epoch"]``.
        data_recipe: datasets, ratios and pair rules of built data, by name
            (`jaxtrack.data.recipes.RECIPES`); their patches are cut as the task's config has it
            (`train.data.patches_of`). "": this preset trains on the synthetic world only.
        source: where the recipe is published.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints.
        init_from: published weights that the recipe starts from, in words; "" for none. They are given
            with ``--init-from``; the run goes on without them, and says so.
        load: ``(task config, path, key) -> variables``: how such a file becomes the task's variables,
            where it does not hold all of them (a backbone alone); None: strictly, as a whole.
        ema: decay of a moving average of the weights, which is then what is validated and written at
            the end; 0: none.
        name: under which it is found; filled in by `get`.
    """

    task: Task
    tracker: str
    optim: OptimConfig
    batch_size: Count
    steps: Count
    epochs: Count = 1
    data_recipe: str = ""
    source: str = ""
    log_every: Count = 20
    save_every: Count = 500
    init_from: str = ""
    load: Callable[[Any, pathlib.Path, Any], Any] | None = None
    ema: BelowOne = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers that make no training."""
        check_ranges(self)


def all_presets() -> dict[str, Preset]:
    """Return every preset by name, family by family."""
    found: dict[str, Preset] = {}
    for family in tasks.FAMILIES:
        found.update(importlib.import_module(f".tasks.{family}", __package__).PRESETS)
    return found


def get(name: str) -> Preset:
    """Return the preset of a name.

    Args:
        name: of one of the library's, or ``package.module:PRESET`` of somebody else's. The working folder is
            looked into last.

    Raises:
        JaxtrackError: unknown, the nearest names are offered; or no such module, an error in it, no such
            name in it, or no preset.
    """
    if ":" in name:
        return dataclasses.replace(_found(name), name=name)
    presets = all_presets()
    if name not in presets:
        raise unknown("training preset", name, presets)
    return dataclasses.replace(presets[name], name=name)


def _found(text: str) -> Preset:
    """Import a preset of somebody else's."""
    return imported_as(Preset, text, f"training preset {brief(repr(text), 100)}", "PRESET")


def changed(preset: Preset, texts: Iterable[str]) -> Preset:
    """Return a preset with fields changed, ``optim.rate=1e-3``; see `jaxtrack.settings.replaced`.

    A task's settings lie in its ``config``; nobody has to write that: ``task.world.noise=.05``.

    Raises:
        UsageError: a field that there is not, or a value that it does not take.
    """
    spelt = [_spelt_out(text) for text in texts]
    if any(text.partition("=")[0] == "name" for text in spelt):
        raise UsageError("name: a preset keeps the name under which it is found")
    try:
        return replaced(preset, spelt) if spelt else preset
    except UsageError as error:  # in the words of the user, who need not write ``config``
        raise UsageError(_as_written(str(error))) from error


def _spelt_out(change: str) -> str:
    """Return a ``FIELD=VALUE`` with the path as the dataclasses have it."""
    path, equals, value = change.partition("=")
    steps = path.strip().split(".")
    if steps[0] == "task" and len(steps) > 1 and steps[1] != "config":
        steps.insert(1, "config")
    return f"{'.'.join(steps)}{equals}{value}"


def _as_written(path: str) -> str:
    """Return a text's paths as ``--set`` takes them: the way back from `_spelt_out`."""
    return path.replace("task.config.", "task.")


def changes(preset: Preset) -> list[str]:
    """Return how a preset differs from the one of its name, as ``FIELD=VALUE`` texts for ``--set``.

    What no text says (`beyond_texts`) is not among them.
    """
    return [
        f"{_as_written(path)}={as_text(now)}"
        for path, now, settable in _differences(preset)
        if settable
    ]


def beyond_texts(preset: Preset) -> list[str]:
    """Return the fields in which a preset differs from the one of its name beyond what ``--set`` can say.

    They are functions, and what lies in a record that the other has not: changed in Python. A preset of no
    name that can be found differs in all: ``["preset"]``.
    """
    if not _is_found(preset.name):
        return ["preset"]
    found = [path for path, _, settable in _differences(preset) if not settable]
    return [_as_written(path) for path in found]


def _is_found(name: str) -> bool:
    return ":" in name or name in all_presets()


def _differences(preset: Preset) -> list[tuple[str, Any, bool]]:
    """Return path, value, and whether ``--set`` can say it, of what differs from the preset of the name."""
    if not _is_found(preset.name):
        return []
    before, now = described(get(preset.name)), described(preset)
    return [
        (path, value, path in before and not callable(value))
        for path, value in now.items()
        if path != "name" and (path not in before or before[path] != value)
    ]


def explained(preset: Preset) -> Iterator[Explained]:
    """Yield every field of a preset that ``--set`` changes; see `jaxtrack.settings.explained`."""
    for field in settings.explained(preset):
        path = field.path
        if path.startswith("task.config."):
            yield field._replace(path=_as_written(path))
        elif path != "name" and not path.startswith("task."):
            yield field


def describe(preset: Preset) -> dict[str, Any]:
    """Return a preset as JSON-like values: nested settings, functions by name."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [f for f in dataclasses.fields(value) if f.metadata.get("described", True)]
            return {field.name: plain(getattr(value, field.name)) for field in fields}
        if isinstance(value, (tuple, list)):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, functools.partial):
            return [plain(value.func), plain(value.args), plain(value.keywords)]
        if callable(value):
            return function_name(value)
        return value

    return plain(preset)


def shapes(task: Task) -> Any:
    """Return the shapes of a task's variables, without computing them."""
    return jax.eval_shape(lambda key: task.init_variables(task.config, key), jax.random.key(0))
