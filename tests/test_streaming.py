"""Chunks, targets, slots, prefetch and errors of the stream, with a tracker whose answers are known."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import base as verbs
from jaxtrack import get_tracker, streaming
from jaxtrack.base import Prediction, Tracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.prefetch import prefetch

TRACES: list[str] = []


@dataclasses.dataclass(frozen=True)
class FakeConfig:
    step: float = 1.0


class FakeState(NamedTuple):
    box: jax.Array
    calls: jax.Array
    frame_size: jax.Array


def fake_init(
    config: FakeConfig, variables: Any, frame: Any, box: Any, frame_size: Any
) -> FakeState:
    TRACES.append("init")
    return FakeState(jnp.asarray(box), jnp.int32(0), frame_size)


def fake_track(
    config: FakeConfig, variables: Any, state: FakeState, frame: Any
) -> tuple[FakeState, Prediction]:
    """Moves right by ``step``; the score is the frame's value at (0, 0) plus 1000 per earlier call."""
    TRACES.append("track")
    box = state.box + jnp.asarray([config.step, 0, 0, 0]) * variables["gain"]
    score = frame[0, 0, 0].astype(jnp.float32) + 1000 * state.calls
    return FakeState(box, state.calls + 1, state.frame_size), Prediction(box, score)


FAKE = Tracker(FakeConfig(), lambda config, key: {"gain": jnp.ones(())}, fake_init, fake_track)
VARIABLES = {"gain": jnp.asarray(2.0)}


def clip(length: int, height: int = 4, width: int = 6) -> np.ndarray:
    """Frames filled with their index."""
    values = np.arange(length, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(values, (length, height, width, 3)).copy()


@pytest.mark.parametrize("length", [1, 2, 5, 8, 9, 17, 20])
@pytest.mark.parametrize("chunk", [1, 4, 8])
def test_every_frame_once_and_in_order(length: int, chunk: int) -> None:
    done: list[int] = []
    tracks = streaming.track(
        FAKE,
        VARIABLES,
        iter(clip(length, 8, 12)),
        np.asarray([1.0, 2, 3, 4]),
        chunk=chunk,
        progress=done.append,
    )
    assert tracks.boxes.shape == (1, length, 4)
    assert tracks.boxes.dtype == np.float32
    np.testing.assert_array_equal(tracks.boxes[0, :, 0], 1 + 2 * np.arange(length))
    np.testing.assert_array_equal(tracks.boxes[0, :, 1:], np.tile([2, 3, 4], (length, 1)))
    assert np.isnan(tracks.scores[0, 0])
    index = np.arange(1, length)
    np.testing.assert_array_equal(tracks.scores[0, 1:], index + 1000 * (index - 1))
    assert sum(done) == length


def test_pieces_carry_their_frames() -> None:
    frames = clip(11)
    start = 0
    for piece in streaming.stream(FAKE, VARIABLES, frames, np.ones((3, 4)), chunk=4):
        assert piece.start == start
        assert piece.tracks.boxes.shape == (3, len(piece.frames), 4)
        for offset, frame in enumerate(piece.frames):
            np.testing.assert_array_equal(frame, frames[start + offset])
        start += len(piece.frames)
    assert start == 11


def test_targets_side_by_side_equal_one_by_one() -> None:
    boxes = np.asarray([[1, 2, 3, 4], [10, 20, 30, 40], [0.5, 0, 1, 1]], np.float32)
    frames = clip(13, 60, 60)
    together = streaming.track(FAKE, VARIABLES, frames, boxes, chunk=5)
    for i, box in enumerate(boxes):
        alone = streaming.track(FAKE, VARIABLES, frames, box, chunk=5)
        np.testing.assert_array_equal(together.boxes[i], alone.boxes[0])
        np.testing.assert_array_equal(together.scores[i], alone.scores[0])


@pytest.mark.parametrize("targets", [1, 2])
def test_nothing_is_traced_twice(targets: int) -> None:
    tracker = dataclasses.replace(FAKE, config=FakeConfig(step=3.0 + targets))
    boxes = np.ones((targets, 4), np.float32)
    TRACES.clear()
    streaming.track(tracker, VARIABLES, clip(5), boxes, chunk=4)
    first = list(TRACES)
    assert "track" in first
    # Longer, shorter and ragged clips, and other boxes, run the program that is there.
    for length in (30, 2, 9):
        streaming.track(tracker, VARIABLES, clip(length), boxes * 2, chunk=4)
    # So do clips of other sizes on the same canvas.
    for height, width in ((4, 6), (3, 5)):
        streaming.track(tracker, VARIABLES, clip(6, height, width), boxes, chunk=4, canvas=(4, 6))
    assert first == TRACES


def test_canvas_pads_and_keeps_the_true_size() -> None:
    tracker = dataclasses.replace(
        FAKE,
        init=lambda config, variables, frame, box, frame_size: fake_init(
            config, variables, frame, frame_size[jnp.asarray([0, 1, 0, 1])] * 1.0, frame_size
        ),
    )
    seen = list(streaming.stream(tracker, VARIABLES, clip(3), np.ones(4), canvas=(8, 9)))
    np.testing.assert_array_equal(seen[-1].tracks.boxes[0, -1], [4 + 4, 6, 4, 6])
    assert seen[-1].frames[0].shape == (4, 6, 3)
    padded = streaming.pad_frame(clip(3)[2], (8, 9))
    assert padded.shape == (8, 9, 3)
    assert padded[4:].max() == 0
    assert padded[:, 6:].max() == 0
    with pytest.raises(ValueError, match="does not fit the canvas"):
        streaming.pad_frame(clip(1)[0], (3, 9))


def test_slots_equal_one_by_one_and_can_be_exchanged() -> None:
    frames = np.stack([clip(5), clip(5) + 100])
    boxes = np.asarray([[0, 0, 1, 1], [4, 2, 2, 2]], np.float32)
    sizes = np.asarray([[4, 6], [3, 5]], np.int32)
    started = [
        verbs.init(FAKE, VARIABLES, clip[0], box, size)
        for clip, box, size in zip(frames, boxes, sizes)
    ]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *started)
    states, found = streaming.track_slots(FAKE, VARIABLES, states, frames[:, 1:])
    np.testing.assert_array_equal(states.frame_size, sizes)
    for i in range(2):
        state = verbs.init(FAKE, VARIABLES, frames[i, 0], boxes[i], sizes[i])
        _, alone = verbs.track_clip(FAKE, VARIABLES, state, frames[i, 1:])
        np.testing.assert_array_equal(found.box[i], alone.box)
        np.testing.assert_array_equal(found.score[i], alone.score)
    fresh = verbs.init(FAKE, VARIABLES, frames[0, 0], np.full(4, 2, np.float32), sizes[1])
    changed = streaming.exchange_slot(states, jnp.int32(1), fresh)
    np.testing.assert_array_equal(changed.box[0], states.box[0])
    np.testing.assert_array_equal(changed.box[1], [2, 2, 2, 2])
    np.testing.assert_array_equal(changed.calls, [4, 0])


def broken(good: int) -> Iterator[np.ndarray]:
    yield from clip(good)
    raise JaxtrackError("clip.mp4: ends here")


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("good", [1, 3, 5, 12])
def test_frames_before_an_error_are_tracked(chunk: int, good: int) -> None:
    seen = 0
    with pytest.raises(JaxtrackError, match="ends here"):  # noqa: PT012
        for piece in streaming.stream(FAKE, VARIABLES, broken(good), np.ones(4), chunk=chunk):
            seen += len(piece.frames)
    assert seen == good


def test_bad_clips() -> None:
    with pytest.raises(JaxtrackError, match="the clip has no frames"):
        streaming.track(FAKE, VARIABLES, [], np.ones(4))
    with pytest.raises(JaxtrackError, match="ends here"):
        streaming.track(FAKE, VARIABLES, broken(0), np.ones(4))
    mixed = [*clip(3), *clip(3, 5, 6)]
    with pytest.raises(
        JaxtrackError, match=r"frame 3 has shape \(5, 6, 3\), the first \(4, 6, 3\)"
    ):
        streaming.track(FAKE, VARIABLES, iter(mixed), np.ones(4), chunk=2)
    with pytest.raises(JaxtrackError, match="at least one frame"):
        streaming.track(FAKE, VARIABLES, clip(3), np.ones(4), chunk=0)


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no chunk": ({"chunk": None}, "chunk is None; at least one frame"),
    "half a chunk": ({"chunk": 2.0}, r"chunk is 2\.0; at least one frame"),
    "true": ({"chunk": True}, "chunk is True"),
    "small canvas": (
        {"canvas": (3, 9)},
        r"canvas is \(3, 9\); give \(height, width\), whole numbers not below the frame's \(4, 6\)",
    ),
    "canvas of one": ({"canvas": (9,)}, r"canvas is \(9,\); give"),
    "canvas of floats": ({"canvas": (9.0, 9.0)}, "canvas is .*; give"),
    "canvas of text": ({"canvas": "9x9"}, "canvas is '9x9'; give"),
    "no frames": ({"frames": None}, r"frames are of type NoneType; give frames \(h, w, 3\)"),
    "a camera": ({"frames": 99}, r"frames are of type int; .*jaxtrack\.open_video"),
    "bytes": ({"frames": b"a.mp4"}, "frame 0 is of type int"),
    "no tracker": ({"tracker": "siamfc-tiny"}, "get_tracker"),
    "no variables": ({"variables": "a.pth"}, "variables are of type str; .*load_weights"),
    "beside": (
        {"boxes": [7, 1, 2, 2]},
        r"box \[7, 1, 2, 2\] lies outside the 6x4 frame; give x, y",
    ),
    "centre": ({"boxes": [5, 1, 4, 2]}, r"box \(5, 1, 4, 2\) has its centre outside the 6x4 frame"),
    "corners": ({"boxes": [1, 1, 6, 4]}, "fits as two corners"),
    "huge": ({"boxes": [1e30] * 4}, "lies outside the 6x4 frame"),
    "huge around": ({"boxes": [-5e29, -5e29, 1e30, 1e30]}, "far larger than the 6x4 frame"),
    "the second": ({"boxes": [[1, 1, 1, 1], [5, 1, 4, 2]]}, r"box 2 \(5, 1, 4, 2\) has its centre"),
}


@pytest.mark.parametrize("kind", BAD_ARGUMENTS)
def test_bad_arguments_are_one_line(kind: str) -> None:
    changes, message = BAD_ARGUMENTS[kind]
    given: dict[str, Any] = {
        "tracker": FAKE,
        "variables": VARIABLES,
        "frames": clip(3),
        "boxes": np.ones(4),
    }
    with pytest.raises(JaxtrackError, match=message) as caught:
        streaming.track(**{**given, **changes})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_chunk_and_canvas_of_numpy() -> None:
    sizes: dict[str, Any] = {"chunk": np.int64(2), "canvas": np.asarray([8, 9])}
    found = streaming.track(FAKE, VARIABLES, clip(5), np.ones(4), **sizes)
    np.testing.assert_array_equal(found.boxes[0, :, 0], 1 + 2 * np.arange(5))


GREY = np.zeros((4, 6), np.uint8)
NO_FRAMES = {
    "float32": (np.zeros((4, 6, 3), np.float32), "frame 5 is float32; give uint8, 0 to 255"),
    "uint16": (np.full((4, 6, 3), 300, np.uint16), "frame 5 is uint16; give uint8"),
    "negative": (np.full((4, 6, 3), -1), "frame 5 is int64; give uint8"),
    "bool": (np.ones((4, 6, 3), bool), "frame 5 is bool; give uint8"),
    "grey": (GREY, r"frame 5 has the shape \(4, 6\); give \(h, w, 3\)"),
    "none": (None, "frame 5 is of type NoneType"),
    "list": (clip(1)[0].tolist(), "frame 5 is a list"),
}


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("kind", NO_FRAMES)
def test_every_frame_is_looked_at(kind: str, chunk: int) -> None:
    """One of another kind among good ones is named, and those before it are tracked."""
    value, message = NO_FRAMES[kind]
    frames, seen = [*clip(5), value, *clip(3)], 0
    with pytest.raises(JaxtrackError, match=message):  # noqa: PT012
        for piece in streaming.stream(FAKE, VARIABLES, frames, np.ones(4), chunk=chunk):
            seen += len(piece.frames)
    assert seen == 5
    if kind not in ("none", "list"):
        with pytest.raises(JaxtrackError, match=message.replace("frame 5", "frame")):
            streaming.lay(value, np.zeros((8, 8, 3), np.uint8))


def threads() -> int:
    return sum(thread.name == "jaxtrack-prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("boxes", [[5.0, 5, 9, 9], [[5.0, 5, 9, 9], [7, 7, 8, 8]]])
def test_the_weights_of_another_tracker_are_told_for_any_number_of_targets(boxes: Any) -> None:
    tracker, other = get_tracker("siamfc-tiny"), get_tracker("siamrpnpp-tiny")
    shapes = verbs.variable_shapes(other)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    frames = [np.zeros((48, 64, 3), np.uint8)] * 3
    with pytest.raises(JaxtrackError, match="these variables are not this tracker's"):
        list(streaming.track(tracker, variables, frames, np.asarray(boxes, np.float32)))


def test_prefetch_keeps_order_and_ends_its_thread() -> None:
    assert list(prefetch(range(100), 3)) == list(range(100))
    assert list(prefetch(range(5), 0)) == list(range(5))
    assert threads() == 0


def test_prefetch_runs_ahead_but_not_away() -> None:
    made: list[int] = []
    ready = threading.Event()

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            if len(made) == 5:
                ready.set()
            yield i

    stream = prefetch(items(), 4)
    assert next(stream) == 0
    assert ready.wait(5)  # four more are made without being asked for
    assert len(made) <= 6
    stream.close()  # type: ignore[attr-defined]
    assert threads() == 0
    assert len(made) < 20


def test_prefetch_raises_after_the_items_and_closes_the_source() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
            raise OSError("gone")
        finally:
            closed.append(True)

    seen: list[int] = []
    with pytest.raises(OSError, match="gone"):
        seen.extend(prefetch(items(), 8))
    assert seen == [1, 2]
    assert closed == [True]
    assert threads() == 0


def test_leaving_a_stream_early_ends_its_threads() -> None:
    for piece in streaming.stream(FAKE, VARIABLES, clip(200), np.ones(4), chunk=2):
        if piece.start > 4:
            break
    del piece
    assert threads() == 0
