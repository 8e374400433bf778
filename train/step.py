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

Whatever is random belongs to a pair: `Task.sample` and `Task.loss` are handed one key for each pair, made of
the run's seed, the step and the pair's place in the batch of the *whole* run. The data of a run are therefore
the same on one device, on many, and on many processes; what pairs share (batch statistics, losses of one
target on another's search image, means over chosen cells, dropped paths) is of the pairs on one device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxtrack.errors import JaxtrackError

AXIS = "device"  # name of the data-parallel axis
STOP = "stop"  # the flag by which one process tells all others that it has to stop
LENGTH = "length"  # of the run, told with each batch: one program serves runs of all lengths

_MIXED = 2  # of a pair's key: whether it is drawn; 0 and 1 are its streams

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


class View(NamedTuple):
    """What the network is trained on, for people to look at (``python -m train.look``).

    Attributes:
        template: ``(n, s, s, 3)`` augmented templates, 0..255.
        search: ``(n, r, r, 3)`` augmented search images.
        boxes: ``(n, 4)`` ``x, y, w, h`` of the target in the search image, pixels.
        labels: ``(n, m, m)`` labels of the response's cells, 0 to 1; nan where a cell does not count.
        stride: search pixels per cell; the map lies in the middle of the search image.
    """

    template: Float[Array, "n s s 3"]
    search: Float[Array, "n r r 3"]
    boxes: Float[Array, "n 4"]
    labels: Float[Array, "n m m"]
    stride: float


class Keep(NamedTuple):
    """The part of a loss that no step changes, which can be computed once and kept (`train.keep`).

    Attributes:
        compute: ``(config, params, batch_stats, batch, keys) -> batch``: what the loss takes in place of
            the raw pairs; ``keys`` as the loss has them.
        free: fields of the config that it does not depend on.
    """

    compute: Callable[[Any, Any, Any, Batch, Array], Batch]
    free: tuple[str, ...]


class Gradient(NamedTuple):
    """A cheaper way to a loss's gradient than to differentiate it as a whole.

    Attributes:
        of: the loss whose gradient it is.
        compute: ``(config, params, batch_stats, batch, keys) -> ((scalar, Aux), gradient)``.
    """

    of: Callable[..., tuple[Array, Aux]]
    compute: Callable[[Any, Any, Any, Batch, Array], tuple[tuple[Array, Aux], Any]]


@dataclasses.dataclass(frozen=True)
class Task:
    """A training task as a hashable value: equal when config and functions are equal. Not a pytree.

    Attributes:
        config: frozen dataclass of ints, floats, strings, tuples and frozen dataclasses; never arrays.
        init_variables: ``(config, key) -> {"params": ..., "batch_stats": ...}``; ``batch_stats`` may be
            an empty dict. Usually the tracker's own, so that its weights load without renaming.
        sample: ``(config, keys) -> batch``: pairs of the synthetic world, drawn inside the jitted step,
            so that nothing crosses the host; one pair for each of the ``(n,)`` keys, made of it alone.
        loss: ``(config, params, batch_stats, batch, keys) -> (scalar, Aux)``. Mean over the pairs
            given. No collective inside. ``keys`` is ``(n,)``: what is random about a pair
            (augmentation, labels, dropout) is drawn from its own; `streams` splits them.
        view: ``(config, batch, keys) -> View``: the crops and labels that `loss` makes of the batch;
            None: nothing to be seen.
        gradient: where the loss has a cheaper way to it than being differentiated as a whole; None: it
            is. Whoever puts another loss in place of a task's leaves it out: ``gradient=None``.
        keep: what of the loss can be kept; None: nothing.
    """

    config: Hashable
    init_variables: Callable[[Any, Array], Variables]
    sample: Callable[[Any, Array], Batch]
    loss: Callable[[Any, Any, Any, Batch, Array], tuple[Float[Array, ""], Aux]]
    view: Callable[[Any, Batch, Array], View] | None = None
    gradient: Gradient | None = dataclasses.field(default=None, metadata={"described": False})
    keep: Keep | None = dataclasses.field(default=None, metadata={"described": False})

    def __post_init__(self) -> None:
        """Refuse the gradient of another loss, by which the task's own would never be trained."""
        if self.gradient is not None and self.gradient.of is not self.loss:
            raise JaxtrackError(
                f"the task's gradient is that of {function_name(self.gradient.of)}, not of its loss"
                f" {function_name(self.loss)}: give gradient=None (or that loss's own) with the loss"
            )


def function_name(function: Any) -> str:
    """Return where a function is from, ``module.name``; of a callable value, its class."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


class TrainState(NamedTuple):
    """Everything that training changes. Saved by Orbax as it is, unstacked.

    Attributes:
        step: ``()`` int32, optimiser steps done.
        params: the network's parameters, float32.
        batch_stats: its running statistics.
        opt_state: the optimiser's state.
        average: moving average of ``{"params": ..., "batch_stats": ...}``; empty where none is kept.
    """

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = ()

    @property
    def variables(self) -> Variables:
        """Return the variables to track with: the moving average where one is kept."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


def init_state(
    variables: Variables, optimizer: optax.GradientTransformationExtraArgs, averaged: bool = False
) -> TrainState:
    """Return the state before the first step.

    Args:
        variables: ``{"params": ..., "batch_stats": ...}``.
        optimizer: from `train.optim.make`.
        averaged: keep a moving average of the variables.
    """
    params, stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=stats,
        opt_state=optimizer.init(params),
        # A copy: the update gives its buffers back one by one.
        average=jax.tree.map(jnp.array, {"params": params, "batch_stats": stats})
        if averaged
        else (),
    )


@jax.jit
def pair_keys(key: Array, index: Int[Array, "n"]) -> Array:
    """Return the ``(n,)`` keys of pairs.

    Args:
        key: of the step; the same on all devices.
        index: places of the pairs in the batch of the whole run.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


@partial(jax.jit, static_argnums=1)
def streams(keys: Array, count: int) -> list[Array]:
    """Split the ``(n,)`` keys of pairs into so many ``(n,)`` keys that are independent of each other."""
    parts = jax.vmap(lambda key: jax.random.split(key, count))(keys)
    return [parts[:, i] for i in range(count)]


def epoch_of(step: Int[Array, ""], steps: int | Int[Array, ""], epochs: int) -> Float[Array, ""]:
    """Count the epochs done after ``step`` of ``steps`` steps, with a whole part that is exact.

    Args:
        step: ``()`` int32 steps done.
        steps: length of the run in steps; ``steps * epochs`` is below 2**31.
        epochs: length of the run in epochs.

    Returns:
        ``()`` float32 in ``[0, epochs]``.

    Raises:
        ValueError: a run that is too long to be counted, where its length is known.
    """
    if isinstance(steps, int) and steps * epochs >= 2**31:
        raise ValueError(f"{steps} steps in {epochs} epochs: fewer steps or epochs are wanted")
    # Whole epochs in integers, the rest in float32.
    whole, within = (step * epochs) // steps, (step * epochs) % steps
    return whole + within.astype(jnp.float32) / steps


def make_update(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    steps: int,
    epochs: int,
    accumulate: int = 1,
    decay: float = 0.0,
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, Array]]]:
    """Make the update of one device, to be mapped over the devices by `train.parallel.compile_update`.

    Args:
        task: what to train (static).
        optimizer: from `train.optim.make`.
        steps: length of the run, for ``batch["epoch"]`` and the optimiser, where a batch does not tell it.
        epochs: likewise.
        accumulate: the gradient is the mean over so many parts of the device's pairs, one after the
            other: the memory of one part. The batch statistics are those of the parts.
        decay: of the moving average of the variables, from 0 at the first step up to this; 0: none.

    Returns:
        ``update(state, batch, key) -> (state, metrics)``. Beside the pairs a batch holds ``index``
        ``(n,)`` int32, their places in the batch of the whole run; it may hold ``length`` ``(n,)`` int32, n
        times the length of the run.
    """

    def gradient(params: Any, stats: Any, batch: Batch, shared: Batch, key: Array) -> Any:
        batch = dict(batch)
        _, keys_loss = streams(pair_keys(key, batch.pop("index")), 2)
        given = task.config, params, stats, {**batch, **shared}, keys_loss
        if task.gradient is not None:
            (loss, aux), grads = task.gradient.compute(*given)
        else:
            (loss, aux), grads = jax.value_and_grad(task.loss, argnums=1, has_aux=True)(*given)
        return grads, aux.batch_stats, {**aux.metrics, "loss": loss}

    def accumulated(params: Any, stats: Any, batch: Batch, shared: Batch, key: Array) -> Any:
        def part(carry: Any, batch: Batch) -> Any:
            total, stats = carry
            grads, stats, metrics = gradient(params, stats, batch, shared, key)
            return (jax.tree.map(jnp.add, total, grads), stats), metrics

        batch = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
        start = jax.tree.map(jnp.zeros_like, params), stats
        (total, stats), metrics = jax.lax.scan(part, start, batch)
        mean = jax.tree.map(lambda x: x / accumulate, total)
        return mean, stats, jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)

    def update(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Array]]:
        batch = dict(batch)
        length = batch.pop(LENGTH)[0] if LENGTH in batch else steps
        shared = {"step": state.step, "epoch": epoch_of(state.step, length, epochs)}
        make = gradient if accumulate == 1 else accumulated
        told = {name: batch.pop(name) for name in (STOP,) if name in batch}
        key = jax.random.fold_in(key, state.step)
        grads, stats, metrics = make(state.params, state.batch_stats, batch, shared, key)
        found = grads, stats, {**metrics, **jax.tree.map(jnp.mean, told)}
        # The only collective in the project, leaf by leaf: a program holds each shape once.
        if jax.lax.axis_size(AXIS) > 1:
            found = jax.tree.map(_mean_over_devices, found)
        grads, stats, metrics = found
        squares = jnp.concatenate([_sum_of_squares(grad) for grad in jax.tree.leaves(grads)])
        metrics = {**metrics, "grad_norm": jnp.sqrt(jnp.sum(squares))}
        params, opt_state = optimizer.update(
            grads, state.opt_state, state.params, squares=squares, added=True, length=length
        )
        average = state.average
        if decay:
            now = {"params": params, "batch_stats": stats}
            average = move_average(average, now, state.step, decay)
        return TrainState(state.step + 1, params, stats, opt_state, average), metrics

    return update


def make_draw(
    task: Task, abreast: int = 1, synthetic: float = 0.0
) -> Callable[[Int[Array, ""], Int[Array, "n"], Array, Batch], Batch]:
    """Make the drawing of one device's pairs by the task's own ``sample``: a program of its own.

    So the update holds no synthetic world, and where the patches are the same, one world's program
    serves the updates of all tasks.

    Args:
        task: whose pairs.
        abreast: at most so many pairs are drawn at once, as an accelerator needs it to be busy; 1: one
            after the other, which is faster on a CPU, whose caches hold one.
        synthetic: probability that a drawn pair takes the place of a given one; every pair's own chance,
            so that it is the same on any number of devices.

    Returns:
        ``draw(step, index, key, given) -> pairs``, of the arguments of the update that they are for;
        ``given`` is the pairs that there are already, ``{}`` for none.
    """

    def draw(step: Int[Array, ""], index: Int[Array, "n"], key: Array, given: Batch) -> Batch:
        own = pair_keys(jax.random.fold_in(key, step), index)
        pairs = drawn(own)
        if not given:
            return pairs
        chance = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _MIXED)))(own)

        def chosen(one: Array, other: Array) -> Array:
            which = (chance < synthetic).reshape(-1, *(1,) * (other.ndim - 1))
            return jnp.where(which, one, other)

        return {name: chosen(pair, given[name]) for name, pair in pairs.items()}

    def drawn(own: Array) -> Batch:
        keys, _ = streams(own, 2)
        count = keys.shape[0]
        side = max(n for n in range(1, abreast + 1) if count % n == 0)
        if side == 1:
            return task.sample(task.config, keys)
        # Each pair is made of its own key alone.
        one = jax.vmap(lambda key: task.sample(task.config, key[None]))
        drawn = jax.lax.map(one, keys.reshape(count // side, side))
        return jax.tree.map(lambda x: x.reshape(count, *x.shape[3:]), drawn)

    return draw


def move_average(average: Any, now: Any, step: Int[Array, ""], decay: float) -> Any:
    """Move an average of variables one step on.

    Args:
        average: the average so far.
        now: the variables after the step.
        step: steps done before it. The first steps weigh more, or a short run's average would be that
            of its random start: the decay is at most ``(1 + step) / (10 + step)``.
        decay: share of the old average in a long run.
    """
    done = step.astype(jnp.float32)
    share = jnp.minimum(decay, (1 + done) / (10 + done))
    return jax.tree.map(partial(_averaged, share), average, now)


@jax.jit
def _mean_over_devices(leaf: Array) -> Array:
    return jax.lax.pmean(leaf, AXIS)


@jax.jit
def _sum_of_squares(leaf: Array) -> Float[Array, "1"]:
    return jnp.sum(jnp.square(leaf)).reshape(1)


@jax.jit
def _averaged(share: Array, old: Array, new: Array) -> Array:
    return share * old + (1 - share) * new
