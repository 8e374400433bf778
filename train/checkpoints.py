"""Checkpoints by Orbax: written in the background, whole or not at all, the last and the best kept.

A checkpoint holds the train state as it is and one JSON record: the run's settings, the loss since the last
save, and the position of the data iterator. The randomness of a run is its seed and the step, both in there.
``OUTPUT/checkpoints/STEP/state`` can be given to `jaxtrack.weights.load_into`.
"""

from __future__ import annotations

import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from etils import epath

from jaxtrack.errors import JaxtrackError
from train import parallel
from train.step import TrainState

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
        keep: how many of the latest are kept, beside the one with the least loss.

    Raises:
        JaxtrackError: the folder cannot be made or read.
    """

    def __init__(self, output: pathlib.Path, keep: int = 2) -> None:
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

        # Orbax tells every save, and every failure with its traceback; both are told here in our words.
        logging.getLogger("absl").setLevel(logging.CRITICAL + 1)
        self._ocp = ocp
        self.folder = (output / FOLDER).absolute()
        policies = [keeping.LatestN(keep), keeping.BestN(get_metric_fn=_loss, reverse=True, n=1)]
        options = ocp.CheckpointManagerOptions(
            best_fn=_loss,  # makes Orbax store the loss beside the state
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
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = _first_line(error)
            full = isinstance(error, OSError) or any(word in str(error) for word in _DISK)
            if verb == "written" and not full:
                raise  # not the disk: a bug, which keeps its traceback
            last = self.latest if hasattr(self, "_manager") else None
            safe = f"; the last whole checkpoint is step {last}" if last is not None else ""
            raise JaxtrackError(
                f"{self.folder}: checkpoint could not be {verb} ({reason}){safe}"
            ) from error

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint on disk; None: there is none."""
        steps = [p.name for p in self.folder.glob("*") if p.name.isdigit()]
        return max(map(int, steps), default=None)

    def last_good(self) -> str:
        """Names the newest whole checkpoint, in words; waits for one that is being written."""
        self.wait()
        step = self.latest
        return (
            "no checkpoint yet"
            if step is None
            else f"last good checkpoint: {self.folder / str(step)}"
        )

    def save(self, state: TrainState, record: dict[str, Any], loss: float) -> None:
        """Start writing a checkpoint; returns as soon as the state is copied.

        Args:
            state: on the devices; may be consumed by the next step meanwhile.
            record: JSON-like.
            loss: mean since the last save; rules which checkpoint is the best.

        Raises:
            JaxtrackError: this save, or the one before, cannot be written.
        """
        ocp, step = self._ocp, int(state.step)
        self._check_space(state)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(parallel.to_save(state._asdict())),
            record=ocp.args.JsonSave(record),
        )
        self._guard(
            "written", lambda: self._manager.save(step, args=args, metrics={"loss": float(loss)})
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

    def restore(self, template: TrainState, devices: list[Any]) -> Restored:
        """Read the newest checkpoint.

        Args:
            template: a state of the shapes expected.
            devices: where the state goes.

        Raises:
            JaxtrackError: there is none, it is damaged, or it is that of another network.
        """
        ocp, step = self._ocp, self.latest
        if step is None:
            raise JaxtrackError(f"{self.folder}: no checkpoint to resume from")
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), template._asdict())
        form = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=_numpy()), shapes)
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(item=shapes, restore_args=form),
            record=ocp.args.JsonRestore(),
        )
        read = self._guard("read", lambda: self._manager.restore(step, args=args))
        state = TrainState(**read["state"])
        for (path, want), have in zip(
            jax.tree_util.tree_leaves_with_path(template), jax.tree.leaves(state), strict=True
        ):
            if want.shape != have.shape:
                name = jax.tree_util.keystr(path)
                raise JaxtrackError(
                    f"{self.folder / str(step)}: {name} has shape {have.shape}, {want.shape} expected"
                )
        return Restored(parallel.from_saved(state, devices), dict(read["record"]))

    def close(self) -> None:
        """Wait, and stop the background threads."""
        self._guard("written", self._manager.close)


_OVERHEAD = 200_000  # bytes of a checkpoint beside its arrays
# How the file system's refusals look in TensorStore's messages.
_DISK = ("RESOURCE_EXHAUSTED", "No space left", "File too large", "PERMISSION_DENIED", "Read-only")


def _numpy() -> Any:
    import numpy as np

    return np.ndarray


def _loss(metrics: Any) -> float:
    """What `keeping.BestN` ranks by."""
    loss = float(metrics["loss"])
    return loss if math.isfinite(loss) else float("inf")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def read_settings(output: pathlib.Path) -> dict[str, Any] | None:
    """The settings of the run in a folder; None: no run there.

    Raises:
        JaxtrackError: the file is damaged.
    """
    path = output / "settings.json"
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JaxtrackError(f"{path}: not the settings of a run ({_first_line(error)})") from error
    if not isinstance(settings, dict):
        raise JaxtrackError(f"{path}: not the settings of a run")
    return settings


def write_settings(output: pathlib.Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run, whole or not at all.

    Raises:
        JaxtrackError: the folder cannot be written.
    """
    path = output / "settings.json"
    temporary = path.with_suffix(".tmp")
    try:
        output.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise JaxtrackError(f"{output}: cannot be written ({error.strerror})") from error
