"""The interface of every tracker: a value of pure functions, three verbs, and the joint inside a frame.

Conventions, for the whole library:

* frames are RGB ``(height, width, 3)``: uint8, or float32 in 0 to 255 where gradients with respect to pixels
  are wanted (`jaxtrack.ops.crop` says how the two differ);
* boxes are ``(x, y, w, h)``: 0-based top-left corner and size, in pixels, float32;
* a frame may be padded (below and to the right) to a larger canvas; ``frame_size`` carries the true
  ``(height, width)`` and rules the crop, so that padding is never seen;
* static = config, learned = variables, changing = state.

The joint: in every family ``track_frame`` reads

    look = cut(config, state, frame)                             # windows of the frame, and their pixels
    features = embed(config, variables, state, look)             # the network's view of them
    maps = respond(config, variables, state, features)           # compared with the target
    decision = decide(config, variables, state, look, maps)      # which peak, which scale, which box
    state = update(config, variables, state, frame, decision)    # what is remembered of it

and each of the five is a public function of the family's ``tracker`` module. ``tracker.steps`` binds them for
whoever wants to stop in between: to time the parts, to draw a response, to share one look among many
settings. A step is pure, so each is a program of its own:

    part = jax.jit(tracker.steps.embed, static_argnums=0)
    features = part(tracker.config, variables, state, look)

and of what is returned only what is used is computed (a compiled function that keeps ``look.windows`` cuts no
pixel). ``steps`` is None where a configuration cannot be taken apart so (the long-term tracker of SiamRPN++
looks with windows of two sizes); ``track_frame`` is the law.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack import checks
from jaxtrack.errors import JaxtrackError
from jaxtrack.settings import replaced

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}: nested dicts of arrays
State = Any  # a NamedTuple of arrays, each family its own
Features = Any  # what a family's network makes of a look
Maps = Any  # what a family's network says of it
Frame = UInt8[Array, "h w 3"] | Float[Array, "h w 3"]
Frames = UInt8[Array, "t h w 3"] | Float[Array, "t h w 3"]
Crops = UInt8[Array, "n s s 3"] | Float[Array, "n s s 3"]
# What the verbs take besides: values of the host.
HostFrame = Frame | np.ndarray
HostBox = Float[Array, "4"] | np.ndarray | Sequence[float]
HostSize = Int[Array, "2"] | np.ndarray | Sequence[int]


class Prediction(NamedTuple):
    """What a tracker says of one frame.

    Attributes:
        box: ``(4,)`` float32, ``x, y, w, h`` in pixels, 0-based corner.
        score: ``()`` float32; its meaning and range are the tracker's (see its module docstring).
            A lost target shows as a low score; the tracker goes on from its last state.
    """

    box: Float[Array, "4"]
    score: Float[Array, ""]


class Look(NamedTuple):
    """What a tracker looks at in one frame.

    Attributes:
        windows: where the crops lie, with a leading axis of n: `jaxtrack.ops.crop.Window` in pixels of
            the frame; for TADT ``(n, 4)`` ``x, y, w, h`` in its scaled image.
        crops: ``(n, s, s, 3)`` their pixels, in the frame's dtype; n is the number of scales.
    """

    windows: Any
    crops: Crops


class Decision(Protocol):
    """What every family's ``Decision`` holds; each adds how it was found.

    Attributes:
        box: ``(4,)`` float32, as in `Prediction`.
        score: ``()`` float32, as in `Prediction`.
        which: ``()`` int32, which of the look's crops the target was found in.
        response: ``(m, m)`` over that crop: the target is likelier where it is larger (for TADT in the
            top-left corner of a canvas, see its `Maps`).
        share: side of the response over the side of the crop; both have the same middle.
    """

    @property
    def box(self) -> Float[Array, "4"]: ...  # noqa: D102
    @property
    def score(self) -> Float[Array, ""]: ...  # noqa: D102
    @property
    def which(self) -> Int[Array, ""]: ...  # noqa: D102
    @property
    def response(self) -> Float[Array, "m m"]: ...  # noqa: D102
    @property
    def share(self) -> float | Float[Array, ""]: ...  # noqa: D102


class InitVariables(Protocol):
    """Draw random variables of a tracker's network."""

    def __call__(self, config: Any, key: Array) -> Variables:
        """Return ``{"params": ..., "batch_stats": ...}``."""


class Init(Protocol):
    """Start tracking a target; see `init`."""

    def __call__(
        self,
        config: Any,
        variables: Variables,
        frame: Frame,
        box: Float[Array, "4"],
        frame_size: Int[Array, "2"],
    ) -> State:
        """Return the state after the first frame."""


class TrackFrame(Protocol):
    """Find the target in the next frame; see `track_frame`."""

    def __call__(
        self, config: Any, variables: Variables, state: State, frame: Frame
    ) -> tuple[State, Prediction]:
        """Return the next state (same tree, shapes and dtypes) and the `Prediction`."""


class Cut(Protocol):
    """Choose where to look, and cut it out of the frame."""

    def __call__(self, config: Any, state: State, frame: Frame) -> Look:
        """Return windows and crops."""


class Embed(Protocol):
    """Run the network on the crops."""

    def __call__(self, config: Any, variables: Variables, state: State, look: Look) -> Features:
        """Return features; the leading axis is that of the crops."""


class Respond(Protocol):
    """Compare the features with the target's."""

    def __call__(self, config: Any, variables: Variables, state: State, features: Features) -> Maps:
        """Return response maps; the leading axis is that of the crops."""


class Decide(Protocol):
    """Choose the box from the maps."""

    def __call__(
        self, config: Any, variables: Variables, state: State, look: Look, maps: Maps
    ) -> Decision:
        """Return the decision; nothing is remembered yet."""


class Update(Protocol):
    """Remember the decision."""

    def __call__(
        self, config: Any, variables: Variables, state: State, frame: Frame, decision: Any
    ) -> State:
        """Return the next state; families that adapt learn from the frame here."""


class Steps(NamedTuple):
    """The five parts of a frame, in order; the module's docstring shows how they follow each other.

    Attributes:
        cut: frame to `Look`.
        embed: look to features.
        respond: features to maps.
        decide: maps to a decision, of which `Decision` says what all have.
        update: decision to the next state.
    """

    cut: Cut
    embed: Embed
    respond: Respond
    decide: Decide
    update: Update


def _always(config: Any) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Tracker:
    """A tracker as a hashable value: equal when config and functions are equal. Not a pytree.

    Attributes:
        config: frozen dataclass of ints, floats, strings and tuples; never arrays.
        init_variables: see `InitVariables`.
        init: see `Init`.
        track_frame: see `TrackFrame`.
        steps: the parts of ``track_frame``, or None where it cannot be taken apart. They take no part in
            comparisons, for ``track_frame`` says it all.
        cuttable: whether the steps serve a config; where they do not, ``steps`` is made None.
    """

    config: Hashable
    init_variables: InitVariables
    init: Init
    track_frame: TrackFrame
    steps: Steps | None = dataclasses.field(default=None, compare=False, repr=False)
    cuttable: Callable[[Any], bool] = dataclasses.field(default=_always, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Drop the steps where they do not serve the config."""
        if self.steps is not None and not self.cuttable(self.config):
            object.__setattr__(self, "steps", None)

    def replace(self, **changes: Any) -> Tracker:
        """Return the tracker with fields of its config changed: ``tracker.replace(window_influence=0.3)``.

        Raises:
            JaxtrackError: a field that the config does not have (the nearest are offered), or a value of
                another type.
        """
        return dataclasses.replace(self, config=replaced(self.config, changes))


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """What the library knows of a family of trackers: the presets and the functions that they share.

    Attributes:
        name: as it is listed, ``siamfc`` and so on.
        presets: preset name to config.
        init_variables: see `Tracker`; likewise ``init``, ``track_frame``, ``steps`` and ``cuttable``.
        tables: name of a published code to the `jaxtrack.weights.NameTable` that leads from its names
            to ours; empty where no code was published.
    """

    name: str
    presets: Mapping[str, Hashable]
    init_variables: InitVariables
    init: Init
    track_frame: TrackFrame
    steps: Steps | None = None
    tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cuttable: Callable[[Any], bool] = _always

    def tracker(self, config: Hashable) -> Tracker:
        """Return the tracker of this family with a config, a preset's or one's own."""
        return Tracker(
            config,
            init_variables=self.init_variables,
            init=self.init,
            track_frame=self.track_frame,
            steps=self.steps,
            cuttable=self.cuttable,
        )

    def owns(self, tracker: Tracker) -> bool:
        """Say whether a tracker, whatever its config, is made of this family's functions."""
        return (tracker.init_variables, tracker.init, tracker.track_frame) == (
            self.init_variables,
            self.init,
            self.track_frame,
        )


@functools.lru_cache(maxsize=64)
def variable_shapes(tracker: Tracker) -> Variables:
    """Return shapes and dtypes of a tracker's variables (`jax.ShapeDtypeStruct`); nothing is computed."""
    return jax.eval_shape(lambda: tracker.init_variables(tracker.config, jax.random.key(0)))


def init(
    tracker: Tracker,
    variables: Variables,
    frame: HostFrame,
    box: HostBox,
    frame_size: HostSize | None = None,
) -> State:
    """Start tracking a target.

    Args:
        tracker: a value, from `jaxtrack.get_tracker` or one's own.
        variables: its learned values, ``{"params": ..., "batch_stats": ...}``.
        frame: RGB ``(h, w, 3)``, uint8, or floats in 0 to 255.
        box: ``x, y, w, h`` of the target in pixels, 0-based corner: four numbers of any kind (a list, a
            tuple, an array of integers or floats); they become float32.
        frame_size: ``(2,)`` true ``(height, width)`` where the frame is padded to a larger canvas; None:
            the whole frame is picture.

    Returns:
        The state: a NamedTuple of arrays, to be handed to `track_frame` or `track_clip`.

    Raises:
        JaxtrackError: an argument of another kind, shape or dtype; a box that is not finite, has no size or
            is far larger than the frame (where its values are known before the program runs); weights of
            another network.
    """
    checks.tracker(tracker, Tracker)
    checks.variables_kind(variables)
    checks.frame(frame)
    size = checks.frame_size(frame_size, frame)
    box = checks.box(box, checks.known_size(size, frame))
    return _init(tracker, variables, frame, box, size)


def track_frame(
    tracker: Tracker, variables: Variables, state: State, frame: HostFrame
) -> tuple[State, Prediction]:
    """Find the target in the next frame.

    Args:
        tracker: as in `init`.
        variables: its learned values.
        state: from `init` or the previous call.
        frame: as in `init`, of the same canvas as the first frame.

    Returns:
        The next state (same tree, shapes and dtypes) and the `Prediction`.

    Raises:
        JaxtrackError: as in `init`; a state that is another tracker's or none.
    """
    checks.frame(frame)
    return _checked(_track_frame, tracker, variables, state, frame)


def track_clip(
    tracker: Tracker, variables: Variables, state: State, frames: Frames | np.ndarray
) -> tuple[State, Prediction]:
    """Track through a chunk of frames in one compiled program (`jax.lax.scan` of `track_frame`).

    Args:
        tracker: as in `init`.
        variables: its learned values.
        state: from `init` or the previous chunk; long videos are handed over chunk by chunk.
        frames: ``(t, h, w, 3)``, one array; else as in `init`.

    Returns:
        The state after the last frame, and a `Prediction` with a leading time axis.

    Raises:
        JaxtrackError: as in `track_frame`.
    """
    checks.frames(frames)
    return _checked(_track_clip, tracker, variables, state, frames)


def _checked(
    run: Callable[..., tuple[State, Prediction]],
    tracker: Tracker,
    variables: Variables,
    state: State,
    frames: Any,
) -> tuple[State, Prediction]:
    """Run a program on a state; where it fails, say whether the state is another tracker's.

    Its form is compared after a failure alone: ``init`` has to be traced for it.
    """
    checks.tracker(tracker, Tracker)
    checks.variables_kind(variables)
    checks.state(state, Prediction)
    try:
        return run(tracker, variables, state, frames)
    except JaxtrackError:
        raise
    except Exception:
        checks.state_fits(state, _state_shapes(tracker, frames))
        raise


def _state_shapes(tracker: Tracker, frames: Any) -> State:
    frame = jax.ShapeDtypeStruct(frames.shape[-3:], jnp.uint8)
    box, size = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    start = functools.partial(tracker.init, tracker.config)
    return jax.eval_shape(start, variable_shapes(tracker), frame, box, size)


@functools.partial(jax.jit, static_argnums=0)
def _init(
    tracker: Tracker, variables: Variables, frame: Array, box: Array, frame_size: Array | None
) -> State:
    checks.variables(variables, variable_shapes(tracker))
    if frame_size is None:
        frame_size = jnp.asarray(frame.shape[:2], jnp.int32)
    return tracker.init(tracker.config, variables, _pixels(frame), box, frame_size)


@functools.partial(jax.jit, static_argnums=0)
def _track_frame(
    tracker: Tracker, variables: Variables, state: State, frame: Array
) -> tuple[State, Prediction]:
    checks.variables(variables, variable_shapes(tracker))
    return _step(tracker, variables, state, frame)


@functools.partial(jax.jit, static_argnums=0)
def _track_clip(
    tracker: Tracker, variables: Variables, state: State, frames: Array
) -> tuple[State, Prediction]:
    checks.variables(variables, variable_shapes(tracker))

    def step(carry: State, frame: Array) -> tuple[State, Prediction]:
        return _step(tracker, variables, carry, frame)

    return jax.lax.scan(step, state, frames)


def _step(
    tracker: Tracker, variables: Variables, state: State, frame: Array
) -> tuple[State, Prediction]:
    """Call the tracker, and hold what it returns to the contract while the program is traced."""
    returned = tracker.track_frame(tracker.config, variables, state, _pixels(frame))
    checks.step(state, returned, Prediction)
    return returned


def _pixels(frame: Array) -> Array:
    """Return uint8 frames as they are and all floats as float32."""
    return frame if frame.dtype == jnp.uint8 else frame.astype(jnp.float32)
