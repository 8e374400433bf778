"""What a tracker responds to, drawn over the frames: the joint of a tracker, stopped at its decision."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real, UInt8

from jaxtrack import base
from jaxtrack.base import Frame, Prediction, State, Tracker, Variables
from jaxtrack.errors import JaxtrackError
from jaxtrack.streaming import Piece, Tracks

_STRENGTH = 0.65  # how much of the frame the strongest response covers


class Response(NamedTuple):
    """A response, and where it lies.

    Attributes:
        values: ``(m, m)``, larger where the target is likelier.
        cells: ``()`` int32, the true side of ``values``; what lies behind it is padding.
        place: ``(4,)`` x, y, w, h in pixels of the frame that the true side covers.
    """

    values: Float[Array, "m m"]
    cells: Int[Array, ""]
    place: Float[Array, "4"]


@functools.partial(jax.jit, static_argnums=0)
def track_frame(
    tracker: Tracker, variables: Variables, state: State, frame: Frame
) -> tuple[State, Prediction, Response]:
    """Find the target in the next frame, and tell the response in which it was found.

    Args:
        tracker: a tracker with ``steps``.
        variables: its learned values.
        state: from `jaxtrack.base.init` or the previous call.
        frame: uint8 RGB.

    Returns:
        State and prediction as `jaxtrack.base.track_frame` gives them, and the response.
    """
    steps, config = tracker.steps, tracker.config
    assert steps is not None
    look = steps.cut(config, state, frame)
    features = steps.embed(config, variables, state, look)
    maps = steps.respond(config, variables, state, features)
    decision = steps.decide(config, variables, state, look, maps)
    following = steps.update(config, variables, state, frame, decision)
    response = _response(config, state, look.windows, decision)
    return following, Prediction(decision.box, decision.score), response


def _response(config: Any, state: State, windows: Any, decision: Any) -> Response:
    values = decision.response
    if hasattr(windows, "height"):
        sides = (windows.left, windows.top, windows.width, windows.height)
        window = jnp.stack([side[decision.which] for side in sides]).astype(jnp.float32)
        cells = jnp.asarray(values.shape[-1], jnp.int32)
    else:  # TADT: x, y, w, h in its scaled image; the map lies in a corner of its canvas
        window = windows[decision.which] / state.rescale
        cells = state.input_side // config.stride
    margin = window[2:] * (1 - decision.share) / 2
    place = jnp.concatenate([window[:2] + margin, window[2:] - 2 * margin])
    return Response(values, cells, place)


def stream(
    tracker: Tracker,
    variables: Variables,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    boxes: Real[np.ndarray, "n 4"],
) -> Iterator[tuple[Piece, list[np.ndarray]]]:
    """Track targets frame by frame, and draw what the tracker responds to.

    Args:
        tracker: the tracker.
        variables: its learned values.
        frames: uint8 RGB ``(h, w, 3)`` frames of one size.
        boxes: ``(n, 4)`` ``x, y, w, h`` in the first frame.

    Yields:
        A piece of one frame, as `jaxtrack.streaming.stream` gives it, and its picture.

    Raises:
        JaxtrackError: the tracker cannot be taken apart.
    """
    if tracker.steps is None:
        raise JaxtrackError("--heatmap: this tracker cannot be taken apart at its response")
    states: list[State] = []
    for index, frame in enumerate(frames):
        if not states:
            states = [base.init(tracker, variables, frame, box) for box in boxes]
            lost = np.full((len(boxes), 1), np.nan, np.float32)
            first = Tracks(np.asarray(boxes, np.float32)[:, None], lost)
            yield Piece(0, [frame], first), [frame]
            continue
        found = [track_frame(tracker, variables, state, frame) for state in states]
        states = [state for state, _, _ in found]
        tracks = Tracks(
            np.stack([np.asarray(p.box) for _, p, _ in found])[:, None],
            np.stack([np.asarray(p.score) for _, p, _ in found])[:, None],
        )
        yield Piece(index, [frame], tracks), [draw(frame, [r for _, _, r in found])]


def draw(
    frame: UInt8[np.ndarray, "h w 3"], responses: Iterable[Response]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a frame with responses over it; the stronger one shows where they overlap.

    Args:
        frame: uint8 RGB.
        responses: what was responded to in it.
    """
    height, width = frame.shape[:2]
    heat = np.zeros((height, width), np.float32)
    for response in responses:
        heat = np.maximum(heat, _spread(response, height, width))
    colours = cv2.cvtColor(
        cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB
    )
    cover = (_STRENGTH * heat)[..., None]
    return (frame * (1 - cover) + colours * cover + 0.5).astype(np.uint8)


def _spread(response: Response, height: int, width: int) -> np.ndarray:
    """Return a response from 0 to 1 over the whole frame; 0 where nothing was looked at."""
    cells = int(response.cells)
    values = np.asarray(response.values, np.float32)[:cells, :cells]
    x, y, w, h = (float(v) for v in np.asarray(response.place))
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if not (np.isfinite([low, high, x, y, w, h]).all() and high > low and w > 0 and h > 0):
        return np.zeros((height, width), np.float32)
    across, down = cells / w, cells / h
    # Cell i covers [i, i + 1): the centre of a pixel goes to the place between centres of cells.
    matrix = np.array(
        [
            [across, 0, (0.5 - x) * across - 0.5],
            [0, down, (0.5 - y) * down - 0.5],
        ]
    )
    return cv2.warpAffine(
        (values - low) / (high - low),
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0.0,
    )
