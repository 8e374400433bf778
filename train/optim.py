"""Optimisers and learning-rate schedules as values: masks by parameter path, freezing, warm-up, clipping.

A rate is a function of the epoch, so that one description serves a run of any length: ``--steps`` squeezes
the whole schedule into the steps asked for. Both take ``package.module:NAME`` in place of a name, for what is
somebody else's.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.imports import imported
from jaxtrack.ranges import BelowOne, NotNegative, Positive, Share, Whole, check_ranges
from jaxtrack.settings import is_exactly

from .step import epoch_of

Name = Literal["sgd", "adam", "adamw"]
Kind = Literal["constant", "geometric", "step", "cosine", "onecycle"]


def _check_name(field: str, given: str, kind: Any) -> None:
    """Refuse what is neither one of our names nor that of a module's value.

    Raises:
        JaxtrackError: says which there are.
    """
    known = get_args(kind)
    if given not in known and ":" not in given:
        raise JaxtrackError(
            f"{field} is {brief(repr(given), 80)}; one of {', '.join(known)}, or package.module:NAME"
        )


def _own(field: str, text: str, what: str) -> Any:
    """Import what somebody else's module calls by a name.

    Args:
        field: that holds the name, for messages.
        text: ``package.module:NAME``.
        what: the value in capitals, for messages.
    """
    place, _, name = text.partition(":")
    return imported(place, name, f"{field}={brief(text, 100)}", what)


def own_core(config: OptimConfig) -> optax.GradientTransformation | None:
    """Return somebody else's optimiser; None where it is one of ours.

    Raises:
        JaxtrackError: there is none of that name.
    """
    if config.name in get_args(Name):
        return None
    core = _own("optim.name", config.name, "CORE")
    if not isinstance(core, optax.GradientTransformation):
        raise JaxtrackError(
            f"optim.name={config.name} is {type(core).__name__}; an optax.GradientTransformation is wanted,"
            " such as optax.scale_by_lion()"
        )
    return core


def own_rate(schedule: Schedule) -> Callable[[Array], Array] | None:
    """Return somebody else's schedule, the factor on the peak rate by the share of the run that is done.

    None: it is one of ours.

    Raises:
        JaxtrackError: there is none of that name.
    """
    if schedule.kind in get_args(Kind):
        return None
    rate = _own("optim.schedule.kind", schedule.kind, "RATE")
    if not callable(rate):
        raise JaxtrackError(
            f"optim.schedule.kind={schedule.kind} is {type(rate).__name__}; a function of the share of"
            " the run that is done is wanted, the factor on the peak rate"
        )
    return rate


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the learning rate moves over the epochs, from the peak rate of `OptimConfig`.

    Attributes:
        kind: ``constant``; ``geometric`` (equal ratios, also called log or exponential) to ``final``;
            ``step`` (times ``factor`` at each milestone); ``cosine`` to ``final``; ``onecycle``
            (cosine from ``peak / 25`` up to the peak over ``rise`` of the run, then down to ``final``);
            ``package.module:NAME``: one of your own, a function of the share of the run that is done, ``()``
            float32 from 0 to 1, that returns the factor on the peak rate.
        final: rate at the end of ``geometric``, ``cosine`` and ``onecycle``.
        per_epoch: the rate changes only between epochs.
        endpoint: with ``per_epoch``: the last epoch runs exactly at ``final`` (numpy's ``logspace``);
            otherwise ``final`` would be the rate of the epoch after the last.
        milestones: epochs (0-based) from which ``step`` has dropped once more.
        factor: the drop.
        rise: share of the run in which ``onecycle`` rises.
        warmup_epochs: epochs before the schedule proper begins; it then spans the rest of the run.
        warmup_start: rate of the first epoch of the warm-up.
        warmup_kind: ``linear`` or ``geometric`` towards the peak, which the epoch after it has.
    """

    kind: Kind | str = "constant"
    final: NotNegative = 0.0
    per_epoch: bool = False
    endpoint: bool = False
    milestones: tuple[Whole, ...] = ()
    factor: Positive = 0.1
    rise: Share = 0.3
    warmup_epochs: Whole = 0
    warmup_start: NotNegative = 0.0
    warmup_kind: Literal["linear", "geometric"] = "linear"

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name, and equal ratios from or to nothing."""
        check_ranges(self)
        _check_name("kind", self.kind, Kind)
        if self.kind == "geometric" and is_exactly(self.final, 0):
            raise JaxtrackError("final is 0; above 0 with kind=geometric, whose ratios are equal")
        if self.warms_by_ratios and is_exactly(self.warmup_start, 0):
            raise JaxtrackError(
                "warmup_start is 0; above 0 with warmup_kind=geometric, whose ratios are equal"
            )

    @property
    def warms_by_ratios(self) -> bool:
        """Return whether there is a warm-up of equal ratios."""
        return self.warmup_epochs > 0 and self.warmup_kind == "geometric"


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that are treated apart; the first group whose pattern is found in the path counts.

    Attributes:
        pattern: regular expression, searched in the path (keys joined by dots, as in
            ``backbone.conv1.0.kernel``).
        rate: factor on the learning rate; 0: never trained (no decay, no optimiser memory).
        from_epoch: 0-based epoch from which it trains; frozen before, decay and momentum included.
    """

    pattern: str
    rate: NotNegative = 1.0
    from_epoch: Whole = 0

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """An optimiser with its schedule.

    Attributes:
        name: ``sgd`` (momentum, no Nesterov), ``adam`` or ``adamw``. Weight decay is added to the
            gradient for the first two, and to the step for ``adamw``. ``package.module:NAME``: one of your
            own, an ``optax.GradientTransformation`` that makes the direction of the gradient
            (``optax.scale_by_lion()``); decay, rate and its rule for other batches are those of ``adamw``.
        rate: peak rate for the preset's batch; see `scaled_rate` for other batches.
        schedule: how it moves.
        momentum: of ``sgd``; the first step's buffer is the gradient.
        betas: of ``adam`` and ``adamw``.
        epsilon: likewise.
        weight_decay: coefficient.
        no_decay: regular expression of parameter paths without decay; "": all decay.
        clip_norm: largest global gradient norm; None: no clipping. Frozen parameters do not count.
        groups: parameters treated apart.
        restart: forget momentum and moments when a group starts to train, as codes do that rebuild
            their optimiser.
    """

    name: Name | str
    rate: NotNegative
    schedule: Schedule = Schedule()
    momentum: BelowOne = 0.9
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    no_decay: str = ""
    clip_norm: Positive | None = None
    groups: tuple[Group, ...] = ()
    restart: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name, and equal ratios from or to a rate of nothing."""
        check_ranges(self)
        _check_name("name", self.name, Name)
        schedule = self.schedule
        if is_exactly(self.rate, 0) and (schedule.kind == "geometric" or schedule.warms_by_ratios):
            field = "kind" if schedule.kind == "geometric" else "warmup_kind"
            raise JaxtrackError(f"rate is 0; above 0 with schedule.{field}=geometric")


class OptimState(NamedTuple):
    """State of the optimiser: updates done, and momentum or moments of the parameters that train."""

    steps_done: Int[Array, ""]
    core: Any


def scaled_rate(config: OptimConfig, batch_size: int, preset_batch_size: int) -> OptimConfig:
    """Return the same optimiser for another global batch.

    The rule: with a batch k times the preset's, rates are k times as high for SGD (Goyal et al., Accurate,
    Large Minibatch SGD, section 2.1) and sqrt(k) times for Adam and AdamW, whose steps do not grow with
    the gradient (Malladi et al., On the SDEs and Scaling Rules for Adaptive Gradient Algorithms), and for
    those of others.
    """
    k = batch_size / preset_batch_size
    factor = k if config.name == "sgd" else math.sqrt(k)
    schedule = dataclasses.replace(
        config.schedule,
        final=config.schedule.final * factor,
        warmup_start=config.schedule.warmup_start * factor,
    )
    return dataclasses.replace(config, rate=config.rate * factor, schedule=schedule)


_LEAST = 1e-9  # share of a run; a cycle may rise in all of it, or in nothing


def learning_rate(
    config: OptimConfig, epoch: Float[Array, ""] | float, epochs: int
) -> Float[Array, ""]:
    """Return the rate of parameters in no group.

    Args:
        config: the optimiser.
        epoch: ``()`` float epochs done (0 at the start).
        epochs: length of the run.
    """
    schedule, peak = config.schedule, config.rate
    now = jnp.asarray(epoch, jnp.float32)
    now = jnp.floor(now) if schedule.per_epoch else now
    warm = schedule.warmup_epochs
    whole = epochs - warm - (1 if schedule.per_epoch and schedule.endpoint else 0)
    part = jnp.clip((now - warm) / max(whole, 1), 0.0, 1.0)
    if schedule.kind == "constant":
        rate = jnp.full((), peak, jnp.float32)
    elif schedule.kind == "geometric":
        rate = peak * jnp.exp(part * math.log(schedule.final / peak))
    elif schedule.kind == "step":
        drops = sum((now >= m).astype(jnp.float32) for m in schedule.milestones)
        rate = peak * jnp.power(jnp.float32(schedule.factor), drops)
    elif schedule.kind == "cosine":
        rate = _cosine(peak, schedule.final, part)
    elif schedule.kind == "onecycle":
        up = _cosine(peak / 25, peak, jnp.clip(part / max(schedule.rise, _LEAST), 0, 1))
        fall = jnp.clip((part - schedule.rise) / max(1 - schedule.rise, _LEAST), 0, 1)
        rate = jnp.where(part < schedule.rise, up, _cosine(peak, schedule.final, fall))
    else:
        own = own_rate(schedule)
        assert own is not None
        factor = jnp.asarray(own(part), jnp.float32)
        if factor.shape:
            raise JaxtrackError(
                f"optim.schedule.kind={schedule.kind} returns shape {factor.shape}; one number is wanted"
            )
        rate = peak * factor
    if not warm:
        return rate
    start, share = schedule.warmup_start, now / warm
    if schedule.warmup_kind == "geometric":
        rising = start * jnp.exp(share * math.log(peak / start))
    else:
        rising = start + (peak - start) * share
    return jnp.where(now < warm, rising, rate)


def rate_of_step(config: OptimConfig, steps: int, epochs: int) -> Callable[[int], float]:
    """Return the function ``step -> rate`` of a run: the rate that the given step (from 1) has taken.

    Args:
        config: the optimiser.
        steps: length of the run.
        epochs: likewise.
    """
    found = jax.jit(lambda done: learning_rate(config, epoch_of(done, steps, epochs), epochs))
    return lambda step: float(found(jnp.int32(step - 1)))


def _cosine(start: float, end: float, part: Array) -> Array:
    """Return half a cosine from ``start`` (part 0) to ``end`` (part 1)."""
    return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * part))


def parameter_paths(params: Any) -> Any:
    """Return the tree of the parameters' paths: keys joined by dots."""

    def join(path: tuple[Any, ...], _: Any) -> str:
        return ".".join(str(getattr(entry, "key", entry)) for entry in path)

    return jax.tree_util.tree_map_with_path(join, params)


def group_of(config: OptimConfig, path: str) -> Group:
    """Return the group that a parameter belongs to (rate 1 from the start, where none matches)."""
    for group in config.groups:
        if re.search(group.pattern, path):
            return group
    return Group("")


def make(
    config: OptimConfig, params: Any, steps: int, epochs: int
) -> optax.GradientTransformationExtraArgs:
    """Build the optimiser for a parameter tree.

    Args:
        config: what to build.
        params: the parameters, or their shapes.
        steps: length of the run.
        epochs: likewise; rates and freezing are told in epochs.

    Returns:
        An optax transformation whose updates are added to the parameters; with ``added=True`` it returns
        their sums, in a smaller program. ``squares``, ``(leaves,)`` sums of squares of the gradients,
        need not be counted again where the caller has them; ``length`` is the length of the run in steps,
        where it is an array or another one. Its memory
        (`OptimState`) is a dict by path of the parameters that ever train.

    Raises:
        ValueError: a group matches no parameter.
    """
    paths, structure = jax.tree.flatten(parameter_paths(params))
    for group in config.groups:
        if not any(re.search(group.pattern, path) for path in paths):
            raise ValueError(f"optimiser group {group.pattern!r} matches no parameter")
    groups = {path: group_of(config, path) for path in paths}
    groups = {path: group for path, group in groups.items() if group.rate}
    places = np.asarray([i for i, path in enumerate(paths) if path in groups], np.int32)
    inner = _transformation(config, groups, epochs)

    def trained(tree: Any) -> dict[str, Any]:
        leaves = dict(zip(paths, jax.tree.leaves(tree), strict=True))
        return {path: leaves[path] for path in groups}

    def init(params: Any) -> OptimState:
        return inner.init(trained(params))

    def update(
        grads: Any,
        state: Any,
        params: Any = None,
        *,
        squares: Any = None,
        added: bool = False,
        length: Any = steps,
        **_: Any,
    ) -> tuple[Any, Any]:
        if squares is None:
            squares = jnp.stack([jnp.sum(jnp.square(grad)) for grad in jax.tree.leaves(grads)])
        given = trained(grads), state, trained(params)
        moved, state = inner.update(*given, squares=squares[places], added=added, length=length)
        still = jax.tree.leaves(params)
        still = still if added else [jnp.zeros_like(p) for p in still]
        leaves = [moved.get(path, p) for path, p in zip(paths, still)]
        return jax.tree.unflatten(structure, leaves), state

    return optax.GradientTransformationExtraArgs(init, update)


def _transformation(
    config: OptimConfig, groups: dict[str, Group], epochs: int
) -> optax.GradientTransformationExtraArgs:
    """Make one update, in order: freeze, clip, decay (coupled), core, decay (decoupled), rate."""
    foreign = own_core(config)
    if foreign is not None:
        core = foreign
    elif config.name == "sgd":
        core = optax.trace(config.momentum) if config.momentum else optax.identity()
    else:
        core = optax.scale_by_adam(*config.betas, eps=config.epsilon)
    starts = sorted({group.from_epoch for group in groups.values()} - {0})
    spared = {p for p in groups if config.no_decay and re.search(config.no_decay, p)}
    decays = {p: 0.0 if p in spared else config.weight_decay for p in groups}
    move_one = jax.jit(partial(_move_one, config, core), static_argnames=("decay", "added"))

    def init(params: dict[str, Array]) -> OptimState:
        return OptimState(jnp.zeros((), jnp.int32), core.init(params))

    def update(
        grads: dict[str, Array],
        state: OptimState,
        params: Any = None,
        *,
        squares: Any,
        added: bool,
        length: Any,
        **_: Any,
    ) -> tuple[dict[str, Array], OptimState]:
        epoch = epoch_of(state.steps_done, length, epochs)
        waiting = {s: epoch < s for s in starts}
        clip = None
        if config.clip_norm is not None:
            from_epoch = np.asarray([groups[p].from_epoch for p in grads])
            norm = jnp.sqrt(jnp.sum(jnp.where(epoch < from_epoch, 0, squares)))
            small = norm < config.clip_norm
            clip = Clip(jnp.where(small, 1, norm), jnp.where(small, 1, config.clip_norm))
        forget = None
        if config.restart and starts:
            before = epoch_of(jnp.maximum(state.steps_done - 1, 0), length, epochs)
            forget = jnp.stack([(before < s) & (epoch >= s) for s in starts]).any()
        rate = learning_rate(config, epoch, epochs)
        count, unbiasing = None, None
        if foreign is None and config.name != "sgd":
            # Of the moments, once for all parameters.
            count = state.core.count if forget is None else _unless(forget, state.core.count)
            count = optax.safe_increment(count)
            unbiasing = tuple(1 - beta**count for beta in config.betas)
        moments = {}
        for factor, start in sorted({(g.rate, g.from_epoch) for g in groups.values()}):
            wait = waiting.get(start)
            move_by = -rate * factor if wait is None else jnp.where(wait, 0, -rate * factor)
            moments[factor, start] = Moment(wait, clip, forget, unbiasing, move_by)
        of = {p: moments[groups[p].rate, groups[p].from_epoch] for p in grads}
        if foreign is not None:
            memory = state.core
            if forget is not None:
                memory = jax.tree.map(partial(jnp.where, forget), core.init(params), memory)
            ready = {p: _prepared(g, params[p], of[p], 0.0) for p, g in grads.items()}
            ways, memory = core.update(ready, memory, params)
            moves = {p: _moved(way, params[p], of[p], decays[p], added) for p, way in ways.items()}
            return moves, OptimState(state.steps_done + 1, memory)
        moves, memories = {}, {}
        for p, grad in grads.items():
            moment = of[p]
            own = _of_one(state.core, p)
            moves[p], memories[p] = move_one(grad, params[p], own, moment, decays[p], added)
        moved = _of_all(state.core, memories)
        moved = moved if count is None else moved._replace(count=count)
        return moves, OptimState(state.steps_done + 1, moved)

    return optax.GradientTransformationExtraArgs(init, update)


class Clip(NamedTuple):
    """A gradient is divided by ``norm``, then multiplied by ``most``; both are 1 where it is short enough."""

    norm: Float[Array, ""]
    most: Float[Array, ""]


class Moment(NamedTuple):
    """What an update tells all parameters, or all of a group.

    Attributes:
        waiting: the group does not train yet; None: it always trains.
        clip: of the gradient of all that trains; None: no clipping.
        forget: momentum and moments are forgotten now; None: never.
        unbiasing: what both moments are divided by, which began at zero; None: there are none.
        rate: times the direction is the move; 0 while the group waits.
    """

    waiting: Bool[Array, ""] | None
    clip: Clip | None
    forget: Bool[Array, ""] | None
    unbiasing: tuple[Float[Array, ""], ...] | None
    rate: Float[Array, ""]


def _move_one(
    config: OptimConfig,
    core: optax.GradientTransformation,
    move: Array,
    param: Array,
    memory: Any,
    moment: Moment,
    decay: float,
    added: bool,
) -> tuple[Array, Any]:
    """Update one parameter, compiled by itself: a program holds each shape of parameters once.

    Args:
        config: the optimiser.
        core: momentum or moments.
        move: the gradient.
        param: the parameter.
        memory: of the core.
        moment: what holds for all of a group.
        decay: coefficient of weight decay.
        added: return the moved parameter, not its move.
    """
    apart = config.name == "adamw"  # decay is added to the step, not to the gradient
    move = _prepared(move, param, moment, 0.0 if apart else decay)
    if moment.forget is not None:
        memory = jax.tree.map(partial(_unless, moment.forget), memory)
    if moment.unbiasing is None:
        move, memory = core.update(move, memory)
    else:
        move, memory = _adam_of_one(config, move, memory, moment.unbiasing)
    return _moved(move, param, moment, decay if apart else 0.0, added), memory


def _prepared(move: Array, param: Array, moment: Moment, decay: float) -> Array:
    """Return a gradient as an optimiser takes it: clipped, with its decay, none while it waits."""
    if moment.clip is not None:
        move = (move / moment.clip.norm) * moment.clip.most
    if decay:
        move = move + decay * param
    if moment.waiting is not None:
        move = _unless(moment.waiting, move)
    return move


def _moved(move: Array, param: Array, moment: Moment, decay: float, added: bool) -> Array:
    """Return the move of a direction, or the moved parameter."""
    if decay:
        move = move + decay * param
    move = moment.rate * move
    return param + move if added else move


def _adam_of_one(
    config: OptimConfig, move: Array, memory: Any, unbiasing: tuple[Array, ...]
) -> tuple[Array, Any]:
    """Return what `optax.scale_by_adam` does, but for the count and its powers, which all share."""
    first, second = config.betas
    mu = optax.tree.update_moment(move, memory.mu, first, 1)
    nu = optax.tree.update_moment_per_elem_norm(move, memory.nu, second, 2)
    move = (mu / unbiasing[0]) / (jnp.sqrt(nu / unbiasing[1]) + config.epsilon)
    return move, memory._replace(mu=mu, nu=nu)


def _unless(condition: Bool[Array, ""], x: Array) -> Array:
    """Return an array, or zeros of its kind."""
    return jax.lax.select(condition, jnp.zeros_like(x), x)


def _of_one(memory: Any, path: str) -> Any:
    """Return one parameter's part of an optax state (dicts by path, and values that all share)."""
    return type(memory)(*(field[path] if isinstance(field, dict) else field for field in memory))


def _of_all(memory: Any, parts: dict[str, Any]) -> Any:
    """Put the states of the parameters together again; what they share is that of any of them."""
    fields = []
    for i, field in enumerate(memory):
        own = {path: part[i] for path, part in parts.items()}
        fields.append(own if isinstance(field, dict) else next(iter(own.values()), field))
    return type(memory)(*fields)
