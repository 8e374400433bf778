"""Data parallelism: one device, N devices of one process, or many processes. The only file that says pmap.

The loop handles one unstacked state and host batches; how many devices and processes there are is known
here alone. Two facts shape the file (measured with JAX 0.10, Gloo): with several processes, donating an
argument that is broadcast by ``in_axes=None`` deletes it at the first call, so donation is for one process;
and Orbax takes only global arrays then, where ``pmap`` returns host-local ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtrack.errors import JaxtrackError
from train.step import AXIS


def initialize(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Join the other processes of this run. Call once, before any other use of JAX.

    Args:
        coordinator: ``host:port`` of process 0; ``"auto"`` lets JAX ask the cluster (SLURM, Open MPI,
            Cloud TPU, Kubernetes); None: a run of one process.
        processes: how many there are; None with ``"auto"``.
        process_id: this one's number, from 0; None with ``"auto"``.

    Raises:
        JaxtrackError: the arguments contradict each other, or the others cannot be reached.
    """
    if coordinator is None:
        if processes not in (None, 1) or process_id not in (None, 0):
            raise JaxtrackError("--processes and --process-id need --coordinator HOST:PORT")
        return
    if coordinator != "auto" and (processes is None or process_id is None):
        raise JaxtrackError("--coordinator HOST:PORT needs --processes N and --process-id I")
    if processes is not None and process_id is not None and not 0 <= process_id < processes:
        raise JaxtrackError(f"--process-id {process_id} is outside 0..{processes - 1}")
    address = None if coordinator == "auto" else coordinator
    try:
        jax.distributed.initialize(address, processes, process_id)
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise JaxtrackError(f"could not join the run at {coordinator}: {line}") from error


def local_devices(count: int | None = None) -> list[Any]:
    """The devices that this process trains on.

    Args:
        count: use the first ``count``; None: all.

    Raises:
        JaxtrackError: the platform asked for is not there, or it has fewer devices.
    """
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise JaxtrackError(f"no device to train on: {line}") from error
    if count is None:
        return devices
    if not 1 <= count <= len(devices):
        found = f"{len(devices)} {devices[0].platform} device(s)"
        raise JaxtrackError(f"--devices {count}: this process has {found}")
    return devices[:count]


def is_main() -> bool:
    """Whether this process writes logs and talks to the user."""
    return jax.process_index() == 0


def local_batch_size(batch_size: int, devices: list[Any]) -> int:
    """Pairs that this process feeds per step.

    Args:
        batch_size: pairs per step of the whole run.
        devices: from `local_devices`; every process has as many.

    Raises:
        JaxtrackError: the pairs cannot be shared out evenly.
    """
    total = len(devices) * jax.process_count()
    if batch_size < 1 or batch_size % total:
        raise JaxtrackError(
            f"a batch of {batch_size} cannot be shared by {total} devices; give a --batch-size that is"
            f" a multiple of {total}, or --devices"
        )
    return batch_size // jax.process_count()


def replicated(devices: list[Any]) -> NamedSharding:
    """The sharding of a state: a whole copy on each local device."""
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec())


def place(tree: Any, devices: list[Any]) -> Any:
    """Copy a tree to every local device, laid out as `compile_update` returns it (no second compilation)."""
    return jax.device_put(tree, replicated(devices))


def compile_update(update: Callable[..., Any], devices: list[Any]) -> Callable[..., Any]:
    """Compile an update for the devices.

    Args:
        update: ``(state, batch, key) -> (state, metrics)`` of one device, whose results are equal on
            all of them (that is not checked: a forgotten mean over the devices shows only as a wrong
            result; ``tests/test_train_step.py`` looks for it).
        devices: from `local_devices`.

    Returns:
        ``step(state, batch, key)``. The state is unstacked and consumed by the call (one process: its
        memory is reused); leaves of ``batch`` have the leading axis of this process's pairs.
    """
    donate = (0,) if jax.process_count() == 1 else ()
    mapped = jax.pmap(
        update,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=None,
        devices=devices if jax.process_count() == 1 else None,
        donate_argnums=donate,
    )

    def split(leaf: Any) -> Any:
        return leaf.reshape(len(devices), leaf.shape[0] // len(devices), *leaf.shape[1:])

    def step(state: Any, batch: Any, key: Any) -> Any:
        return mapped(state, jax.tree.map(split, batch), key)

    return step


def to_save(tree: Any) -> Any:
    """A state as Orbax takes it: global arrays where there are several processes."""
    if jax.process_count() == 1:
        return tree
    from orbax.checkpoint.utils import fully_replicated_host_local_array_to_global_array

    return jax.tree.map(fully_replicated_host_local_array_to_global_array, tree)


def from_saved(tree: Any, devices: list[Any]) -> Any:
    """The way back: host-local copies on this process's devices."""
    return place(jax.tree.map(np.asarray, tree), devices)
