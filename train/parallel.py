"""Data parallelism: one device, N devices of one process, or many processes. The only file that says pmap.

The loop handles one unstacked state and host batches; how many devices and processes there are is known
here alone. Two facts shape the file (measured with JAX 0.10, Gloo): with several processes, donating an
argument that is broadcast by ``in_axes=None`` deletes it at the first call, so donation is for one process;
and Orbax takes only global arrays then, where ``pmap`` returns host-local ones.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtrack.errors import JaxtrackError, UsageError, brief

from .peers import Peers, meet, met_by_jax
from .step import AXIS, LENGTH, STOP

T = TypeVar("T")


@contextlib.contextmanager
def joined(
    coordinator: str | None, processes: int | None, process_id: int | None, timeout: int = 60
) -> Iterator[None]:
    """Join the other processes of this run for a while. Enter once, before any other use of JAX.

    When another process is lost meanwhile, this one says which and how to go on, and ends with status 1.

    Args:
        coordinator: ``host:port`` of process 0; ``"auto"`` lets JAX ask the cluster (SLURM, Open MPI,
            Cloud TPU, Kubernetes); None: a run of one process.
        processes: how many there are; None with ``"auto"``.
        process_id: this one's number, from 0; None with ``"auto"``.
        timeout: seconds in which all have to join.

    Raises:
        UsageError: the arguments contradict each other, or the coordinator is none.
        JaxtrackError: the others cannot be reached.
    """
    if coordinator is None:
        if processes not in (None, 1) or process_id not in (None, 0):
            raise UsageError("--processes and --process-id need --coordinator HOST:PORT")
        yield
        return
    if coordinator != "auto":
        host, port = address_of(coordinator)
        if processes is None or process_id is None:
            raise UsageError("--coordinator HOST:PORT needs --processes N and --process-id I")
        if not 0 <= process_id < processes:
            raise UsageError(f"--process-id {process_id} is outside 0..{processes - 1}")
        links = meet(host, port, processes, process_id, timeout)
    with contextlib.ExitStack() as stack:
        if coordinator != "auto":
            stack.enter_context(Peers(links))
        try:
            jax.distributed.initialize(
                None if coordinator == "auto" else coordinator,
                processes,
                process_id,
                initialization_timeout=timeout,
            )
        except (RuntimeError, ValueError) as error:
            raise JaxtrackError(
                f"could not join the run at {coordinator}: {_line(error)}"
            ) from error
        if coordinator == "auto" and jax.process_count() > 1:
            stack.enter_context(Peers(met_by_jax()))
        yield


def address_of(coordinator: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` (an IPv6 address stands in brackets).

    Raises:
        UsageError: it is something else.
    """
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", coordinator)
    if not found or not 0 < int(found[2]) < 2**16:
        raise UsageError(
            f"--coordinator {brief(coordinator, 80)}: give HOST:PORT (a port from 1 to 65535) or auto"
        )
    return found[1].strip("[]"), int(found[2])


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return brief(text.splitlines()[0]) if text else type(error).__name__


def agreed(numbers: T) -> T:
    """Return what process 0 has, in all processes; all have to ask.

    Args:
        numbers: an int or float, or a dict of such, of the same names in all processes.
    """
    if jax.process_count() == 1:
        return numbers
    from jax.experimental import multihost_utils

    arrays = jax.tree.map(np.asarray, numbers)
    said = multihost_utils.broadcast_one_to_all(arrays)
    return jax.tree.map(lambda one, other: type(one)(other), numbers, said)


def told(batch: dict[str, Any], steps: int, stop: int = 0) -> dict[str, Any]:
    """Return a batch that tells the update what it cannot know.

    Args:
        batch: pairs, or their ``index`` alone.
        steps: length of the run.
        stop: whether this process has to stop; told to the others, where there are any.
    """
    count = len(batch["index"])
    batch = {**batch, LENGTH: np.full(count, steps, np.int32)}
    if jax.process_count() > 1:
        batch[STOP] = np.full(count, bool(stop), np.float32)
    return batch


def local_devices(count: int | None = None) -> list[Any]:
    """Return the devices that this process trains on.

    Args:
        count: use the first ``count``; None: all.

    Raises:
        JaxtrackError: the platform asked for is not there, or it has fewer devices.
    """
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        raise JaxtrackError(f"no device to train on: {_line(error)}") from error
    if count is None:
        return devices
    if not 1 <= count <= len(devices):
        found = f"{len(devices)} {devices[0].platform} device(s)"
        raise JaxtrackError(f"--devices {count}: this process has {found}")
    return devices[:count]


def check_alike(devices: list[Any]) -> None:
    """Refuse processes that train on different numbers of devices; all have to ask.

    Args:
        devices: of this process, from `local_devices`.

    Raises:
        JaxtrackError: in all processes.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    counts = np.ravel(multihost_utils.process_allgather(np.int32(len(devices)))).tolist()
    if len(set(counts)) > 1:
        listed = ", ".join(map(str, counts[:8])) + (", ..." if len(counts) > 8 else "")
        error = JaxtrackError(
            f"the processes would train on {listed} devices: give each the same --devices, which all of them"
            " have"
        )
        error.in_order = True  # type: ignore[attr-defined] # no process is lost: each has this line
        raise error


def first_of_each(devices: Iterable[Any], count: int) -> list[Any]:
    """Return the first devices of every process, process by process.

    Args:
        devices: of all processes; each has a ``process_index``.
        count: how many of each process.
    """
    of_process: dict[int, list[Any]] = {}
    for device in devices:
        of_process.setdefault(device.process_index, []).append(device)
    return [device for process in sorted(of_process) for device in of_process[process][:count]]


def _everywhere(devices: list[Any]) -> list[Any]:
    """Return the devices of the whole run, of which these are this process's; the same in all processes."""
    return devices if jax.process_count() == 1 else first_of_each(jax.devices(), len(devices))


def is_main() -> bool:
    """Return whether this process writes logs and talks to the user."""
    return jax.process_index() == 0


def local_batch_size(batch_size: int, devices: list[Any], accumulate: int = 1) -> int:
    """Count the pairs that this process feeds per step.

    Args:
        batch_size: pairs per step of the whole run.
        devices: from `local_devices`; every process has as many.
        accumulate: parts into which each device's share is cut.

    Raises:
        JaxtrackError: the pairs cannot be shared out evenly.
    """
    total = len(devices) * jax.process_count()
    if batch_size < 1 or batch_size % (total * accumulate):
        parts = f" in {accumulate} parts each" if accumulate > 1 else ""
        raise JaxtrackError(
            f"a batch of {batch_size} cannot be shared by {total} devices{parts}; give a --batch-size that is"
            f" a multiple of {total * accumulate}, or --devices"
        )
    return batch_size // jax.process_count()


def replicated(devices: list[Any]) -> NamedSharding:
    """Return the sharding of a state: a whole copy on each of the devices."""
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec())


def place(tree: Any, devices: list[Any]) -> Any:
    """Copy a tree to every local device, laid out as `compile_update` returns it (no second compilation)."""
    return jax.device_put(tree, replicated(devices))


def compile_update(
    update: Callable[..., Any],
    devices: list[Any],
    draw: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Compile an update for the devices.

    Args:
        update: ``(state, batch, key) -> (state, metrics)`` of one device, whose results are equal on
            all of them (that is not checked: a forgotten mean over the devices shows only as a wrong
            result; ``tests/train/test_step.py`` looks for it).
        devices: from `local_devices`.
        draw: ``(step, index, key, given) -> pairs`` (`train.step.make_draw`), a program of its own; None:
            batches hold all their pairs.

    Returns:
        ``step(state, batch, key)``. The state is unstacked and consumed by the call (one process: its
        memory is reused); leaves of ``batch`` have the leading axis of this process's pairs.
    """
    _draw_by_kernels(devices)
    donate = (0,) if jax.process_count() == 1 else ()
    places = _everywhere(devices)
    mapped = jax.pmap(
        update,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=None,
        devices=places,
        donate_argnums=donate,
    )
    drawn = jax.pmap(draw, in_axes=(None, 0, None, 0), devices=places) if draw else None

    def split(leaf: Any) -> Any:
        return leaf.reshape(len(devices), leaf.shape[0] // len(devices), *leaf.shape[1:])

    def step(state: Any, batch: Any, key: Any) -> Any:
        batch = jax.tree.map(split, batch)
        if drawn:
            given = {name: x for name, x in batch.items() if name not in ("index", LENGTH, STOP)}
            batch = {**batch, **drawn(state.step, batch["index"], key, given)}
        return mapped(state, batch, key)

    return step


def _draw_by_kernels(devices: list[Any]) -> None:
    """Have GPUs draw random numbers by a kernel: the same ones, in a tenth of the program."""
    name = "jax_threefry_gpu_kernel_lowering"
    if devices[0].platform in ("gpu", "cuda", "rocm") and hasattr(jax.config, name):
        jax.config.update(name, True)


def to_save(tree: Any) -> Any:
    """Return a state as Orbax takes it: global arrays where there are several processes."""
    if jax.process_count() == 1:
        return tree

    # Orbax has a function for this, which takes every device of a process to hold a copy.
    def whole(leaf: Any) -> Any:
        shards = leaf.addressable_shards
        everywhere = replicated(_everywhere([shard.device for shard in shards]))
        copies = [shard.data for shard in shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, everywhere, copies)

    return jax.tree.map(whole, tree)


def from_saved(tree: Any, devices: list[Any]) -> Any:
    """Return a saved state to the devices: host-local copies on this process's devices."""
    return place(jax.tree.map(np.asarray, tree), devices)
