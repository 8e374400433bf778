"""What one training step is: the `Task` record, the `TrainState`, and the only update of the project.

A task is to training what a tracker is to tracking: a frozen record of pure functions. It is written in
``train/tasks/<family>.py``, which also holds the family's training presets
(``PRESETS: dict[str, train.presets.Preset]``); nothing else has to be changed to add one but the name in
``train.tasks.FAMILIES``.

The batch that a task's ``loss`` receives is a dict of arrays with a leading axis of ``n`` pairs, made either
by the task's own ``sample`` (on the device, inside the step) or by the input pipeline (`train.data`). Both
make the *same* raw batch, and the loss does the rest on the device: augmentation (`train.augment`), labels,
network, loss. A batch of pairs holds

========================  =================================================================================
``template``              ``(n, p, p, 3)`` uint8 context patch of the first frame, the target in its middle
``search``                ``(n, q, q, 3)`` uint8 context patch of the second frame
``template_box``          ``(n, 4)`` float32 ``x, y, w, h`` of the target in the patch, pixels, 0-based corner
``search_box``            ``(n, 4)`` float32 likewise; in a negative pair the box of the other object
``negative``              ``(n,)`` bool: the two patches show different objects
========================  =================================================================================

(a task that needs more, such as several patches of one video, adds keys of its own). The update adds two
scalars, so that a loss can follow a schedule without being compiled again:

========================  =================================================================================
``step``                  ``()`` int32, optimiser steps done so far
``epoch``                 ``()`` float32, ``step * epochs / steps``; its ``floor`` is the 0-based epoch
========================  =================================================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

AXIS = "device"  # name of the data-parallel axis

Batch = dict[str, Any]
Variables = dict[str, Any]


class Aux(NamedTuple):
    """What a loss returns beside its value.

    Attributes:
        batch_stats: the running statistics after this batch (as received where nothing moved them);
            averaged over the devices by the update.
        metrics: name -> ``()`` float32, for the log; averaged over the devices. The loss itself is
            added by the update as ``"loss"``.
    """

    batch_stats: Any
    metrics: dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Task:
    """A training task as a hashable value: equal when config and functions are equal. Not a pytree.

    Attributes:
        config: frozen dataclass of ints, floats, strings, tuples and frozen dataclasses; never arrays.
        init_variables: ``(config, key) -> {"params": ..., "batch_stats": ...}``; ``batch_stats`` may be
            an empty dict. Usually the tracker's own, so that its weights load without renaming.
        sample: ``(config, key, batch_size) -> batch``: a batch of the synthetic world, drawn inside
            the jitted step, so that nothing crosses the host. ``batch_size`` is a Python int: the pairs
            of *one device*.
        loss: ``(config, params, batch_stats, batch, key) -> (scalar, Aux)``. Mean over the device's
            pairs. No collective inside. ``key`` differs per step and device: augmentation, dropout.
    """

    config: Hashable
    init_variables: Callable[[Any, Array], Variables]
    sample: Callable[[Any, Array, int], Batch]
    loss: Callable[[Any, Any, Any, Batch, Array], tuple[Float[Array, ""], Aux]]


class TrainState(NamedTuple):
    """Everything that training changes. Saved by Orbax as it is, unstacked.

    Attributes:
        step: ``()`` int32, optimiser steps done.
        params: the network's parameters, float32.
        batch_stats: its running statistics.
        opt_state: the optimiser's state.
    """

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    opt_state: Any


def init_state(
    variables: Variables, optimizer: optax.GradientTransformation, step: int = 0
) -> TrainState:
    """The state before the first step.

    Args:
        variables: ``{"params": ..., "batch_stats": ...}``.
        optimizer: from `train.optim.make`.
        step: steps already done.
    """
    params = variables["params"]
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
    )


def epoch_of(step: Int[Array, ""], steps: int, epochs: int) -> Float[Array, ""]:
    """Epochs done after ``step`` of ``steps`` steps, with a whole part that is exact.

    Args:
        step: ``()`` int32 steps done.
        steps: length of the run in steps.
        epochs: length of the run in epochs.

    Returns:
        ``()`` float32 in ``[0, epochs]``.
    """
    # Whole epochs in integers (split so that steps * epochs cannot overflow int32), the rest in float32.
    per_epoch, rest = divmod(steps, epochs)
    if rest == 0:
        whole, within = step // per_epoch, step % per_epoch
        return whole + within.astype(jnp.float32) / per_epoch
    if steps * epochs >= 2**31:
        raise ValueError(f"{steps} steps in {epochs} epochs: make steps a multiple of epochs")
    whole, within = (step * epochs) // steps, (step * epochs) % steps
    return whole + within.astype(jnp.float32) / steps


def make_update(
    task: Task, optimizer: optax.GradientTransformation, steps: int, epochs: int
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, Array]]]:
    """The update of one device, to be mapped over the devices by `train.parallel.compile_update`.

    Args:
        task: what to train (static).
        optimizer: from `train.optim.make`.
        steps: length of the run, for ``batch["epoch"]``.
        epochs: likewise.

    Returns:
        ``update(state, batch, key) -> (state, metrics)``. A batch that holds nothing but ``index``
        ``(n,)`` asks for ``n`` pairs of the task's own ``sample``.
    """

    def update(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.fold_in(key, state.step), jax.lax.axis_index(AXIS))
        key_sample, key_loss = jax.random.split(key)
        if batch.keys() == {"index"}:
            batch = task.sample(task.config, key_sample, batch["index"].shape[0])
        batch = {**batch, "step": state.step, "epoch": epoch_of(state.step, steps, epochs)}

        def loss_of(params: Any) -> tuple[Array, Aux]:
            return task.loss(task.config, params, state.batch_stats, batch, key_loss)

        (loss, aux), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        aux = aux._replace(metrics={**aux.metrics, "loss": loss})
        grads, aux = jax.lax.pmean((grads, aux), AXIS)  # the only collective in the project
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
        metrics = {**aux.metrics, "grad_norm": norm}
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, aux.batch_stats, opt_state), metrics

    return update
