"""Many settings of one tracker side by side: the compiled part of `eval.search`.

Settings are float fields of the tracker's config. They become traced values, so that one program serves all
of them; a frame is decoded and handed over once. Each setting keeps its own state, because trajectories part.

Where settings rule the decision alone (`shares`), those whose search windows are equal, which whole pixels
make frequent, share the crop and the network: only the decision is made for each. Nothing is approximated by
that: equal windows of one frame with one template give equal responses.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack import settings
from jaxtrack.base import Look, Prediction, State, Tracker, Variables, variable_shapes
from jaxtrack.errors import UsageError

# What JAX raises where Python or NumPy needs a number itself (TypeError), or a compiled part has it built in.
_NEEDED = (TypeError, ValueError)


@functools.lru_cache(maxsize=64)
def shares(tracker: Tracker, names: tuple[str, ...]) -> bool:
    """Return whether settings of a tracker can share what they look at; else each has the whole step.

    Read from the tracker's own program: start, crop and network must not depend on the settings, and of the
    state the network may read only what no frame changes (the template).

    Args:
        tracker: the tracker.
        names: fields of its config that are searched.
    """
    steps, config = tracker.steps, tracker.config
    if steps is None:
        return False
    variables, frame, box, size = _inputs(tracker)

    def before(
        values: list[Array], variables: Variables, frame: Array, box: Array, size: Array
    ) -> Any:
        changed = dataclasses.replace(config, **dict(zip(names, values)))  # type: ignore[type-var]
        state = tracker.init(changed, variables, frame, box, size)
        look = steps.cut(changed, state, frame)
        features = steps.embed(changed, variables, state, look)
        return state, look, steps.respond(changed, variables, state, features)

    def respond(state: State, look: Look, variables: Variables) -> Any:
        features = steps.embed(config, variables, state, look)
        return steps.respond(config, variables, state, features)

    def after(state: State, look: Look, maps: Any, variables: Variables, frame: Array) -> State:
        decision = steps.decide(config, variables, state, look, maps)
        return steps.update(config, variables, state, frame, decision)

    values = [jax.ShapeDtypeStruct((), jnp.float32) for _ in names]
    try:
        program = jax.make_jaxpr(before)(values, variables, frame, box, size).jaxpr
    except _NEEDED:
        return False
    if _read(program) & {id(value) for value in program.invars[: len(names)]}:
        return False
    state, look, maps = jax.eval_shape(before, values, variables, frame, box, size)
    seen = jax.make_jaxpr(respond)(state, look, variables).jaxpr
    moved = jax.make_jaxpr(after)(state, look, maps, variables, frame).jaxpr
    count = len(jax.tree.leaves(state))
    kept = [new is old for new, old in zip(moved.outvars, moved.invars[:count])]
    read = _read(seen)
    return all(k or id(leaf) not in read for k, leaf in zip(kept, seen.invars[:count]))


def _read(program: Any) -> set[int]:
    """Return the identities of the values that a program computes with."""
    return {id(value) for equation in program.eqns for value in equation.invars}


def _inputs(tracker: Tracker) -> tuple[Any, Any, Any, Any]:
    """Return shapes of variables, a small frame, a box and the frame's size."""
    variables = variable_shapes(tracker)
    frame = jax.ShapeDtypeStruct((96, 96, 3), jnp.uint8)
    box, size = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    return variables, frame, box, size


def _windows(look: Look) -> Float[Array, "n k"]:
    """Return a look's windows as rows of numbers."""
    count = len(look.crops)
    leaves = [leaf.reshape(count, -1) for leaf in jax.tree.leaves(look.windows)]
    return jnp.concatenate([leaf.astype(jnp.float32) for leaf in leaves], axis=1)


def float_fields(tracker: Tracker) -> list[str]:
    """Return the names of the float fields of a tracker's config."""
    config: Any = tracker.config
    declared = settings.hints(type(config))
    return [f.name for f in dataclasses.fields(config) if declared.get(f.name) is float]


def why_not(tracker: Tracker, name: str) -> str | None:
    """Return why a float field cannot be swept: it decides shapes, or is not read. None: it can."""
    config: Any = tracker.config
    variables, frame, box, size = _inputs(tracker)

    def both(value: Array, variables: Variables, frame: Array, box: Array, size: Array) -> Any:
        changed = dataclasses.replace(config, **{name: value})
        state = tracker.init(changed, variables, frame, box, size)
        return tracker.track_frame(changed, variables, state, frame)

    value = jax.ShapeDtypeStruct((), jnp.float32)
    try:
        program = jax.make_jaxpr(both)(value, variables, frame, box, size).jaxpr
    except _NEEDED:
        return "is built into the program"
    return None if id(program.invars[0]) in _read(program) else "is not read in tracking"


def check_fields(tracker: Tracker, name: str, wanted: Sequence[str]) -> None:
    """Refuse what cannot be swept.

    Args:
        tracker: the tracker.
        name: its name, for the message.
        wanted: names of fields.

    Raises:
        UsageError: a field that is unknown, within another one, no float, built into the program, or
            without effect; those that can be swept are named.
    """
    config: Any = tracker.config
    known, floats = {field.name for field in dataclasses.fields(config)}, float_fields(tracker)
    for field in wanted:
        if field.partition(".")[0] not in known:
            reason = "is unknown"
        elif field not in known:
            reason = "lies in another field, where no search reaches"
        elif field not in floats:
            reason = "is no float"
        else:
            reason = why_not(tracker, field) or ""
        if reason:
            able = [f for f in floats if f != field and why_not(tracker, f) is None]
            raise UsageError(
                f"--set {field}: this field of {name} {reason}; can be searched: {', '.join(able)}"
            )


def default_block() -> int:
    """Return how many go through the network at once: one on a CPU, where that is quicker, else all."""
    return 1 if jax.default_backend() == "cpu" else 1 << 20


def _config(tracker: Tracker, names: Sequence[str], row: Float[Array, "k"]) -> Any:
    config: Any = tracker.config
    return dataclasses.replace(config, **{name: row[i] for i, name in enumerate(names)})


def _over(block: int, function: Callable[..., Any], *rows: Any) -> Any:
    """Map a function over the leading axis, `block` rows at a time."""
    count = jax.tree.leaves(rows)[0].shape[0]
    if block >= count:
        return jax.vmap(function)(*rows)
    size = None if block == 1 else block
    return jax.lax.map(lambda row: function(*row), rows, batch_size=size)


def groups(
    keys: Int[Array, "s k"],
) -> tuple[Int[Array, "s"], Int[Array, "s"], Int[Array, ""]]:
    """Find equal rows.

    Args:
        keys: one row for each setting.

    Returns:
        The group of each row; one member of each group, in order (surplus entries 0); the number of groups.
    """
    same = jnp.all(keys[:, None] == keys[None], axis=-1)
    first = jnp.argmax(same, axis=1)
    leads = first == jnp.arange(len(keys))
    rank = jnp.cumsum(leads) - 1
    (members,) = jnp.nonzero(leads, size=len(keys), fill_value=0)
    return rank[first], members, rank[-1] + 1


def _look_once(
    look: Callable[[Array], Any], windows: Float[Array, "n k"], block: int
) -> tuple[Any, Int[Array, "n"], Int[Array, ""]]:
    """Look once at each different window.

    Args:
        look: index of a window -> maps.
        windows: one row for each.
        block: windows at a time.

    Returns:
        Maps by group, the group of each window, the number of groups.
    """
    group, members, count = groups(windows)
    total = math.ceil(len(windows) / block) * block
    order = jnp.pad(members, (0, total - len(windows)))

    def body(turn: Array, held: Any) -> Any:
        rows = jax.lax.dynamic_slice_in_dim(order, turn * block, block)
        if block == 1:
            # Without an axis of windows the convolutions see their usual, quickest shapes.
            seen = jax.tree.map(lambda leaf: leaf[None], look(rows[0]))
        else:
            seen = jax.vmap(look)(rows)
        return jax.tree.map(
            lambda h, s: jax.lax.dynamic_update_slice_in_dim(h, s, turn * block, 0), held, seen
        )

    shapes = jax.eval_shape(look, order[0])
    held = jax.tree.map(lambda leaf: jnp.zeros((total, *leaf.shape), leaf.dtype), shapes)
    held = jax.lax.fori_loop(0, (count + block - 1) // block, body, held)
    return held, group, count


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def init_settings(
    tracker: Tracker,
    names: tuple[str, ...],
    block: int,
    variables: Variables,
    values: Float[Array, "s k"],
    frame: UInt8[Array, "h w 3"],
    box: Float[Array, "4"],
    frame_size: Int[Array, "2"],
) -> State:
    """Start tracking a target with every setting.

    Args:
        tracker: the tracker (static).
        names: fields of its config (static).
        block: settings at a time (static).
        variables: its learned values.
        values: a row of field values for each setting.
        frame: uint8 RGB.
        box: ``x, y, w, h`` of the target, pixels.
        frame_size: ``(2,)`` int32 true height and width.

    Returns:
        The states, stacked along a leading axis.
    """
    if shares(tracker, names):
        state = tracker.init(tracker.config, variables, frame, box, frame_size)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (len(values), *x.shape)), state)

    def start(row: Array) -> State:
        return tracker.init(_config(tracker, names, row), variables, frame, box, frame_size)

    return _over(block, start, values)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def track_settings(
    tracker: Tracker,
    names: tuple[str, ...],
    block: int,
    variables: Variables,
    values: Float[Array, "s k"],
    states: State,
    frames: UInt8[Array, "t h w 3"],
) -> tuple[State, Prediction, Int[Array, "t"]]:
    """Track one target through a chunk of frames with every setting.

    Args:
        tracker: the tracker (static).
        names: fields of its config (static).
        block: settings that go through the network at once (static).
        variables: its learned values.
        values: a row of field values for each setting.
        states: stacked states.
        frames: ``(t, h, w, 3)`` uint8 RGB, shared by all settings.

    Returns:
        The states, predictions ``(t, s, ...)``, and how often the network ran for each frame.
    """
    steps, config, count = tracker.steps, tracker.config, len(values)

    def whole(states: State, frame: Array) -> tuple[State, tuple[Prediction, Any]]:
        def one(row: Array, state: State) -> tuple[State, Prediction]:
            return tracker.track_frame(_config(tracker, names, row), variables, state, frame)

        states, found = _over(block, one, values, states)
        return states, (found, jnp.asarray(count))

    def shared(states: State, frame: Array) -> tuple[State, tuple[Prediction, Any]]:
        assert steps is not None
        # The crops are cut here for their windows' sake alone: the compiler leaves them out.
        windows = jax.vmap(lambda state: _windows(steps.cut(config, state, frame)))(states)
        scales = windows.shape[1]
        flat = windows.reshape(-1, windows.shape[-1])

        def look(index: Array) -> Any:
            """Look at one window of one setting."""
            state = jax.tree.map(lambda leaf: leaf[index // scales], states)
            whole = steps.cut(config, state, frame)
            one = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index % scales, 1), whole
            )
            features = steps.embed(config, variables, state, one)
            maps = steps.respond(config, variables, state, features)
            return jax.tree.map(lambda leaf: leaf[0], maps)

        if block >= count:
            held, group = jax.vmap(look)(jnp.arange(len(flat))), jnp.arange(len(flat))
            runs = jnp.asarray(len(flat))
        else:
            held, group, runs = _look_once(look, flat, block)

        def one(row: Array, state: State, which: Array) -> tuple[State, Prediction]:
            changed = _config(tracker, names, row)
            maps = jax.tree.map(lambda leaf: leaf[which], held)
            seen = steps.cut(changed, state, frame)
            decision = steps.decide(changed, variables, state, seen, maps)
            state = steps.update(changed, variables, state, frame, decision)
            return state, Prediction(decision.box, decision.score)

        states, found = _over(block, one, values, states, group.reshape(windows.shape[:2]))
        return states, (found, runs)

    step = shared if shares(tracker, names) else whole
    states, (found, runs) = jax.lax.scan(step, states, frames)
    return states, found, runs
