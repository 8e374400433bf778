"""Checkpoints by Orbax: written in the background, whole or not at all, the last and the best kept.

A checkpoint holds the train state as it is and one JSON record: the run's settings, the position of the data
iterator, and the sums that state, record and settings are compared with when they are read back, so that a
flipped bit on a disk never becomes a wrong weight in silence. The randomness of a run is its seed and the
step, both in there. ``OUTPUT/checkpoints/STEP/state`` can be given to `jaxtrack.weights.load_into`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxtrack.errors import JaxtrackError, brief, naming
from jaxtrack.io import atomic, records
from jaxtrack.weights.sums import sum_of_arrays

from . import parallel
from .step import TrainState

FOLDER = "checkpoints"


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
        state: the train state, on the devices.
        record: the JSON record saved with it.
    """

    state: TrainState
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        output: the run's folder.
        keep: how many of the latest are kept, beside the best one.
        validated: the best is the one with the highest validation score, among those that have one;
            otherwise the one with the least loss.

    Raises:
        JaxtrackError: the folder cannot be made or read.
    """

    def __init__(self, output: pathlib.Path, keep: int = 2, validated: bool = False) -> None:
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

        # Orbax tells every save, and every failure with its traceback; both are told here in our words.
        logging.getLogger("absl").setLevel(logging.CRITICAL + 1)
        self._ocp = ocp
        self._rank = _by_score if validated else _by_loss
        self.folder = (output / FOLDER).absolute()
        policies = [
            keeping.LatestN(keep),
            keeping.BestN(get_metric_fn=self._rank, reverse=True, n=1),
        ]
        options = ocp.CheckpointManagerOptions(
            best_fn=self._rank,  # makes Orbax store the metrics beside the state
            best_mode="min",
            preservation_policy=keeping.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        self._manager = self._guard(
            "opened", lambda: ocp.CheckpointManager(epath.Path(self.folder), options=options)
        )

    def _guard(self, verb: str, action: Callable[[], Any]) -> Any:
        """Run an Orbax call; what goes wrong in it becomes one line."""
        try:
            return action()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = brief(_first_line(error))
            full = isinstance(error, OSError) or any(word in str(error) for word in _DISK)
            if verb == "written" and not full:
                raise  # not the disk: a bug, which keeps its traceback
            if verb == "opened":
                self._blame(error)
            last = self.latest if hasattr(self, "_manager") else None
            safe = f"; the last checkpoint is step {last}" if last is not None else ""
            raise JaxtrackError(
                f"{self.folder}: checkpoint could not be {verb} ({reason}){safe}"
            ) from error

    def _blame(self, error: Exception) -> None:
        """Name the checkpoint whose own description keeps Orbax from opening the folder."""
        for step in reversed(self.steps):
            place = self.folder / str(step)
            for name in ("_CHECKPOINT_METADATA", "metrics/metrics"):
                try:
                    records.read_json(place / name, "a part of a checkpoint", dict)
                except JaxtrackError as fault:
                    raise JaxtrackError(
                        f"{fault}; move {place} away: --resume then goes on from the newest that is left"
                    ) from error

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints on disk, ascending."""
        return steps_in(self.folder)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint on disk; None: there is none."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step of the best checkpoint that is kept; None: there is none."""
        self.wait()
        return self._guard("read", self._manager.best_step)

    def last_good(self) -> str:
        """Name the newest checkpoint, in words; waits for one that is being written."""
        self.wait()
        step = self.latest
        return (
            "no checkpoint yet"
            if step is None
            else f"last good checkpoint: {self.folder / str(step)}"
        )

    def save(self, state: TrainState, record: dict[str, Any], metrics: dict[str, float]) -> None:
        """Start writing a checkpoint; returns as soon as the state is copied.

        Args:
            state: on the devices; may be consumed by the next step meanwhile.
            record: JSON-like.
            metrics: ``loss``, the mean since the last save, and where it was validated ``score``, the
                higher the better; they rule which checkpoint is the best.

        Raises:
            JaxtrackError: this save, or the one before, cannot be written.
        """
        ocp, step = self._ocp, int(state.step)
        self._check_space(state)
        tree = _tree(state)
        record = {**record, "metrics": {k: float(v) for k, v in metrics.items()}}
        record["sums"] = _sums(tree, record)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(parallel.to_save(tree)), record=ocp.args.JsonSave(record)
        )
        self._guard(
            "written", lambda: self._manager.save(step, args=args, metrics=record["metrics"])
        )

    def _check_space(self, state: TrainState) -> None:
        """Refuse to begin what the disk cannot take: a save that breaks off half-way is a mess to read."""
        need = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD
        free = shutil.disk_usage(self.folder).free
        if free < need:
            self.wait()  # the save before this one may still be under way
            safe = f"; the last whole checkpoint is step {self.latest}" if self.latest else ""
            raise JaxtrackError(
                f"{self.folder}: the disk is full: {free / 1e6:.1f} MB free, a checkpoint takes "
                f"{need / 1e6:.1f} MB; make room, then --resume{safe}"
            )

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            JaxtrackError: the last save could not be written.
        """
        self._guard("written", self._manager.wait_until_finished)

    def restore(
        self, template: TrainState, devices: list[Any], step: int | None = None
    ) -> Restored:
        """Read a checkpoint and compare it with its sums.

        Args:
            template: a state of the shapes expected.
            devices: where the state goes.
            step: which; None: the newest. Those after it are deleted: the run goes on from it.

        Raises:
            JaxtrackError: there is none, it is damaged (the newest whole one before it is named), or it
                is that of another network.
        """
        wanted = self.latest if step is None else step
        if wanted is None:
            raise JaxtrackError(f"{self.folder}: no checkpoint to resume from")
        if wanted not in self.steps:
            have = ", ".join(map(str, self.steps)) or "none"
            raise JaxtrackError(f"{self.folder}: no checkpoint of step {wanted}; there is: {have}")
        try:
            found = self._read(template, wanted)
        except JaxtrackError as error:
            raise JaxtrackError(f"{error}; {self._way_on(template, wanted)}") from error
        for later in [s for s in self.steps if s > wanted]:
            self._guard("deleted", functools.partial(self._manager.delete, later))
        return Restored(parallel.from_saved(found.state, devices), found.record)

    def read(self, template: TrainState, step: int) -> Restored:
        """Read a checkpoint to the host, compared with its sums; see `restore`."""
        return self._read(template, step)

    def _way_on(self, template: TrainState, damaged: int) -> str:
        """Say which older checkpoint is whole, and how to go on from it."""
        for step in reversed([s for s in self.steps if s < damaged]):
            try:
                self._read(template, step)
            except JaxtrackError:
                continue
            return f"step {step} before it is whole: --resume --from-step {step} goes on from there"
        return "no whole one is left before it: start anew in another --output"

    def _read(self, template: TrainState, step: int) -> Restored:
        ocp = self._ocp
        want = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _tree(template))
        form = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), want)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(item=want, restore_args=form),
            record=ocp.args.JsonRestore(),
        )
        place = self.folder / str(step)
        try:
            read = self._manager.restore(step, args=args)
            state, record = TrainState(**read["state"]), dict(read["record"])
            sums = record.pop("sums", None)
            known = _sums(_tree(state), record)
        except Exception as error:  # whatever a damaged file makes the libraries below raise
            raise JaxtrackError(
                f"{place}: checkpoint could not be read ({brief(error)})"
            ) from error
        if not isinstance(sums, dict):
            raise JaxtrackError(
                f"{place}: checkpoint has no checksums (an older version wrote it) and cannot be resumed; "
                f"its weights can start a new run: --init-from {place}"
            )
        have = jax.tree_util.tree_leaves_with_path(_tree(state))
        for (path, leaf), shape in zip(have, jax.tree.leaves(want), strict=True):
            if leaf.shape != shape.shape or leaf.dtype != shape.dtype:
                name = jax.tree_util.keystr(path)
                raise JaxtrackError(
                    f"{place}: {name} is {leaf.dtype} {leaf.shape}, {shape.dtype} {shape.shape} expected"
                )
        spoiled = [name for name, value in known.items() if sums.get(name) != value]
        if spoiled or state.step != step:
            raise JaxtrackError(
                f"{place}: checkpoint is damaged ({spoiled or ['step']} differs from its sum)"
            )
        return Restored(state, record)

    def close(self) -> None:
        """Wait, and stop the background threads."""
        self._guard("written", self._manager.close)


_OVERHEAD = 200_000  # bytes of a checkpoint beside its arrays
# How the file system's refusals look in TensorStore's messages.
_DISK = ("RESOURCE_EXHAUSTED", "No space left", "File too large", "PERMISSION_DENIED", "Read-only")


def _tree(state: TrainState) -> dict[str, Any]:
    """Return a state as it is saved: by name, without an average that is not kept."""
    tree = state._asdict()
    return tree if state.average else {k: v for k, v in tree.items() if k != "average"}


def _sums(tree: dict[str, Any], record: dict[str, Any]) -> dict[str, str]:
    """Return the sums of a checkpoint's parts: whoever reads the weights alone compares theirs alone."""
    return {
        **{name: sum_of_arrays(part) for name, part in tree.items()},
        "record": _sum_of_json(record),
    }


def _sum_of_json(value: Any) -> str:
    """Return the sha256 of a JSON-like value, whatever its white space and order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _by_loss(metrics: Any) -> float:
    """Rank by the loss."""
    loss = float(metrics["loss"])
    return loss if math.isfinite(loss) else float("inf")


def _by_score(metrics: Any) -> float:
    """Rank by the score on held-out clips; what has none comes last."""
    return -float(metrics["score"]) if "score" in metrics else float("inf")


def steps_in(folder: pathlib.Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, ascending."""
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal() and p.is_dir())


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# What a start leaves that has not saved a checkpoint: none of it is worth keeping.
_BEGUN = {"settings.json", "metrics.jsonl", "tensorboard", FOLDER, atomic.LOCK}


def is_free(output: pathlib.Path) -> bool:
    """Return whether a new run may start in a folder: it is empty, or no run in it came to its first save.

    Raises:
        JaxtrackError: it cannot be read.
    """
    with naming(output):
        if not output.exists():
            return True
        names = {
            path.name for path in output.iterdir() if not path.name.startswith(".settings.json.")
        }
        saved = list((output / FOLDER).glob("*")) if FOLDER in names else []
        return names <= _BEGUN and not any(path.name.isdecimal() for path in saved)


def clear(output: pathlib.Path) -> None:
    """Remove what an earlier start has left in a folder that `is_free`."""
    with naming(output, "cannot be written"):
        for name in _BEGUN - {atomic.LOCK}:
            path = output / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def held(output: pathlib.Path) -> Iterator[None]:
    """Own a run's folder for a while; one that is left empty goes, with those above it that were made for it.

    Raises:
        JaxtrackError: another process owns it (named), or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for folder in reversed([output, *(p for p in output.parents if not p.exists())]):
            stack.callback(_remove_empty, folder)
        stack.enter_context(atomic.lock(output))
        yield


def _remove_empty(folder: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # it is not empty
        folder.rmdir()


# What the settings of every run hold, and of which type.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "preset": str,
    "set": list,
    "steps": int,
    "batch_size": int,
    "accumulate": int,
    "seed": int,
    "data": str,
    "published_data": bool,
    "init_from": str,
    "minutes": (int, float),
    "devices": int,
    "validate_every": int,
    "commit": str,
    "recipe": dict,
}


def read_settings(output: pathlib.Path) -> dict[str, Any] | None:
    """Read the settings of the run in a folder, compared with their sum; None: no run there.

    Raises:
        JaxtrackError: the file is damaged.
    """
    path = output / "settings.json"
    if not path.is_file():
        return None
    settings = records.read_json(path, "the settings of a run", dict)
    for name, kind in {**_FIELDS, "sum": str}.items():
        if not isinstance(settings.get(name), kind):
            state = (
                "is missing" if name not in settings else f"is {brief(repr(settings[name]), 60)}"
            )
            raise JaxtrackError(f"{path}: not the settings of a run ({name} {state})")
    if settings.pop("sum") != _sum_of_json(settings):
        raise JaxtrackError(
            f"{path}: not the settings of a run as they were written (their sum differs): the file is "
            "damaged or was edited; start anew in another --output"
        )
    return settings


def write_settings(output: pathlib.Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run with their sum, whole or not at all.

    Raises:
        JaxtrackError: the folder cannot be written.
    """
    plain = json.loads(json.dumps(settings))
    records.write_json(output / "settings.json", {**plain, "sum": _sum_of_json(plain)})
