"""Responses over frames: nothing about the tracking changes, and they lie where the target is."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

from jaxtrack import base, heatmap, trackers
from jaxtrack.errors import JaxtrackError
from jaxtrack.heatmap import Response


def test_the_response_lies_over_the_target() -> None:
    """Shipped weights on a square in a noisy frame: the strongest place is inside the found box."""
    from jaxtrack import load_weights

    tracker, variables = trackers.get("siamfc-tiny"), load_weights("siamfc-tiny")
    rng = np.random.default_rng(0)
    frames = rng.integers(60, 90, (3, 120, 160, 3)).astype(np.uint8)
    for i in range(3):
        frames[i, 40:70, 60 + 3 * i : 90 + 3 * i] = (220, 40, 30)
        frames[i, 48:62, 68 + 3 * i : 82 + 3 * i] = (30, 60, 220)
    box = np.asarray([60.0, 40, 30, 30], np.float32)
    state = base.init(tracker, variables, frames[0], box)
    _, plain = base.track_frame(tracker, variables, state, frames[1])
    _, found, response = heatmap.track_frame(tracker, variables, state, frames[1])
    np.testing.assert_allclose(found.box, plain.box, rtol=1e-4, atol=1e-3)
    heat = heatmap._spread(jax.device_get(response), 120, 160)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    x, y, w, h = np.asarray(plain.box)
    assert x + w / 4 < column < x + 3 * w / 4
    assert y + h / 4 < row < y + 3 * h / 4
    pieces = list(heatmap.stream(tracker, variables, frames[:2], box[None]))
    assert [piece.start for piece, _ in pieces] == [0, 1]
    np.testing.assert_array_equal(pieces[0][1][0], frames[0])
    np.testing.assert_allclose(pieces[1][0].tracks.boxes[0, 0], plain.box, rtol=1e-4, atol=1e-3)


def test_cells_lie_where_they_belong() -> None:
    values = np.zeros((6, 6), np.float32)
    values[1, 2] = 1.0
    values[5, 5] = 9.0  # padding
    frame = np.full((40, 50, 3), 100, np.uint8)
    response = Response(values, np.int32(4), np.asarray([10.0, 4, 16, 16], np.float32))  # type: ignore[arg-type]
    heat = heatmap._spread(response, 40, 50)
    # Cell (1, 2) covers rows 8 to 12 and columns 18 to 22.
    rows, columns = np.mgrid[:40, :50]
    assert abs((heat * rows).sum() / heat.sum() - 9.5) < 0.01
    assert abs((heat * columns).sum() / heat.sum() - 19.5) < 0.01
    picture = heatmap.draw(frame, [response])
    np.testing.assert_array_equal(picture[30:], frame[30:])
    assert (picture[9, 19] != 100).any()
    flat = response._replace(values=np.full((6, 6), 3.0, np.float32))  # type: ignore[arg-type]
    np.testing.assert_array_equal(heatmap.draw(frame, [flat]), frame)


def test_a_tracker_without_a_joint_is_told(tmp_path: pathlib.Path) -> None:
    tracker = trackers.get("siamfc-tiny")
    whole = base.Tracker(tracker.config, tracker.init_variables, tracker.init, tracker.track_frame)
    with pytest.raises(JaxtrackError, match="cannot be taken apart"):
        next(iter(heatmap.stream(whole, {}, [], np.zeros((1, 4)))))
