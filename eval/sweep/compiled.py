"""Many settings of one tracker side by side: the compiled part of `eval.search`.

Settings are float fields of the tracker's config. They become traced values, so that one program serves all
of them; a frame is decoded and handed over once. Each setting keeps its own state, because trajectories part.

Where a tracker's step can be cut in two (`SPLITS`), settings whose search windows are equal, which whole
pixels make frequent, share the crop and the network: only the decision is made for each. Nothing is
approximated by that: equal windows of one frame with one template give equal responses.
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

from jaxtrack.base import Look, Prediction, State, Steps, Tracker, Variables
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import crop
from jaxtrack.trackers.siamfc import tracker as siamfc
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.proposals import cut_pysot


@dataclasses.dataclass(frozen=True)
class Split:
    """A tracker's step in two: what its search windows decide, and what is made of it.

    Attributes:
        fields: settings that the decision alone reads; the first state does not depend on them either.
        windows: ``(config, state) -> (w, 4)`` int32, the search windows, fields of `crop.Window`.
        look: ``(config, variables, state, frame, window) -> maps``: crop and network for one of them; of
            the state it reads what no setting changes (the template, the fill colour).
        decide: ``(config, state, maps) -> (state, prediction)``; maps have a leading axis of windows.
    """

    fields: tuple[str, ...]
    windows: Callable[[Any, State], Array]
    look: Callable[[Any, Variables, State, Array, Array], Any]
    decide: Callable[[Any, State, Any], tuple[State, Prediction]]


def _siamfc_windows(config: Any, state: siamfc.State) -> Array:
    windows = crop.windows_siamfc(state.centre, state.search_side * siamfc.factors(config))
    return jnp.stack(windows, axis=1)


def _siamfc_look(
    config: Any, variables: Variables, state: siamfc.State, frame: Array, window: Array
) -> Array:
    windows = crop.Window(*window[:, None])
    size = config.instance_size
    crops = crop.cut_siamfc(frame, windows, size, state.fill, state.frame_size)
    features = siamfc.embed(config, variables, state, Look(windows, crops))
    return siamfc.respond(config, variables, state, features)[0]


def _siamfc_decide(config: Any, state: siamfc.State, responses: Array) -> tuple[State, Prediction]:
    return _settle(siamfc.STEPS, config, state, responses)


def _settle(steps: Steps, config: Any, state: State, maps: Any) -> tuple[State, Prediction]:
    """Decide and update; neither reads variables, look or frame in the families that are cut here."""
    decision = steps.decide(config, None, state, None, maps)  # type: ignore[arg-type]
    state = steps.update(config, None, state, None, decision)  # type: ignore[arg-type]
    return state, Prediction(decision.box, decision.score)


def _siamrpn_windows(config: Any, state: siamrpn.State) -> Array:
    return jnp.stack(siamrpn.search_window(config, state))[None]


def _siamrpn_look(
    config: Any, variables: Variables, state: siamrpn.State, frame: Array, window: Array
) -> Any:
    place, size = crop.Window(*window), config.instance_size
    image = cut_pysot(frame, place, size, state.fill, state.frame_size)
    features = siamrpn.features_of(config, variables, image[None])
    return siamrpn.respond(config, variables, state, features)


def _siamrpn_decide(config: Any, state: siamrpn.State, maps: Any) -> tuple[State, Prediction]:
    return _settle(siamrpn.STEPS, config, state, jax.tree.map(lambda leaf: leaf[0], maps))


SPLITS: dict[Callable[..., Any], Split] = {
    siamfc.track_frame: Split(
        ("window_influence", "scale_penalty", "scale_rate"),
        _siamfc_windows,
        _siamfc_look,
        _siamfc_decide,
    ),
    siamrpn.track_frame: Split(
        ("window_influence", "penalty_k", "size_rate"),
        _siamrpn_windows,
        _siamrpn_look,
        _siamrpn_decide,
    ),
}


def split_of(tracker: Tracker, names: Sequence[str]) -> Split | None:
    """How the step of a tracker is cut for these settings; None: it runs whole for each of them."""
    split = SPLITS.get(tracker.track_frame)
    if split is None or not set(names) <= set(split.fields):
        return None
    # The long-term tracker looks with one of two window sizes.
    return None if getattr(tracker.config, "lost_instance_size", 0) else split


def float_fields(tracker: Tracker) -> list[str]:
    """Names of the float fields of a tracker's config."""
    config: Any = tracker.config
    return [field.name for field in dataclasses.fields(config) if field.type in ("float", float)]


def why_not(tracker: Tracker, name: str) -> str | None:
    """Why a float field cannot be swept: it decides shapes, or tracking does not read it. None: it can."""
    config: Any = tracker.config
    variables = jax.eval_shape(lambda key: tracker.init_variables(config, key), jax.random.key(0))
    frame = jax.ShapeDtypeStruct((96, 96, 3), jnp.uint8)
    box, size = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)

    def both(value: Array, variables: Variables, frame: Array, box: Array, size: Array) -> Any:
        changed = dataclasses.replace(config, **{name: value})
        state = tracker.init(changed, variables, frame, box, size)
        return tracker.track_frame(changed, variables, state, frame)

    value = jax.ShapeDtypeStruct((), jnp.float32)
    try:
        program = jax.make_jaxpr(both)(value, variables, frame, box, size).jaxpr
    except TypeError:  # what JAX raises where Python or NumPy needs the number itself
        return "is built into the program"
    used = {id(v) for equation in program.eqns for v in equation.invars}
    return None if id(program.invars[0]) in used else "is not read in tracking"


def check_fields(tracker: Tracker, name: str, wanted: Sequence[str]) -> None:
    """Refuse what cannot be swept.

    Args:
        tracker: the tracker.
        name: its name, for the message.
        wanted: names of fields.

    Raises:
        JaxtrackError: a field that is unknown, no float, built into the program, or without effect; those
            that can be swept are named.
    """
    config: Any = tracker.config
    known, floats = {field.name for field in dataclasses.fields(config)}, float_fields(tracker)
    for field in wanted:
        if field not in known:
            reason = "is unknown"
        elif field not in floats:
            reason = "is no float"
        else:
            reason = why_not(tracker, field) or ""
        if reason:
            able = [f for f in floats if f != field and why_not(tracker, f) is None]
            raise JaxtrackError(
                f"--set {field}: this field of {name} {reason}; can be searched: {', '.join(able)}"
            )


def default_block() -> int:
    """How many go through the network at once: one on a CPU, whose convolutions are quicker so, else all."""
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
    look: Callable[[Array], Any], windows: Int[Array, "n k"], block: int
) -> tuple[Any, Int[Array, "n"], Int[Array, ""]]:
    """Look once at each different window; maps by group, the group of each window, the number of groups."""
    group, members, count = groups(windows)
    total = math.ceil(len(windows) / block) * block
    order = jnp.pad(windows[members], ((0, total - len(windows)), (0, 0)))

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

    shapes = jax.eval_shape(look, windows[0])
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
    if split_of(tracker, names) is not None:
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
    split, settings = split_of(tracker, names), len(values)

    def whole(states: State, frame: Array) -> tuple[State, tuple[Prediction, Any]]:
        def one(row: Array, state: State) -> tuple[State, Prediction]:
            return tracker.track_frame(_config(tracker, names, row), variables, state, frame)

        states, found = _over(block, one, values, states)
        return states, (found, jnp.asarray(settings))

    def shared(states: State, frame: Array) -> tuple[State, tuple[Prediction, Any]]:
        assert split is not None
        # What `look` reads of a state is the same for all settings.
        state = jax.tree.map(lambda leaf: leaf[0], states)

        def look(window: Array) -> Any:
            return split.look(tracker.config, variables, state, frame, window)

        windows = jax.vmap(lambda state: split.windows(tracker.config, state))(states)
        flat = windows.reshape(-1, windows.shape[-1])
        if block >= settings:
            held, group = jax.vmap(look)(flat), jnp.arange(len(flat))
            runs = jnp.asarray(len(flat))
        else:
            held, group, runs = _look_once(look, flat, block)

        def one(row: Array, state: State, which: Array) -> tuple[State, Prediction]:
            maps = jax.tree.map(lambda leaf: leaf[which], held)
            return split.decide(_config(tracker, names, row), state, maps)

        states, found = _over(block, one, values, states, group.reshape(windows.shape[:2]))
        return states, (found, runs)

    states, (found, runs) = jax.lax.scan(whole if split is None else shared, states, frames)
    return states, found, runs
