"""Statistics of tracks, real or synthetic."""

import numpy as np
import pytest

from jaxtrack.synthetic import statistics
from jaxtrack.synthetic.statistics import Crop, Track


def crop(image, box=(96.0, 96.0, 64.0, 64.0)):
    return Crop(image, np.asarray(box), 0.0)


def test_windows_know_how_much_lies_outside():
    frame = np.full((200, 300, 3), 90, np.uint8)
    frame[90:110, 140:160] = 200
    inside = statistics.cut(frame, np.asarray([140.0, 90.0, 20.0, 20.0]))
    assert inside.outside == 0
    np.testing.assert_allclose(inside.box[:2] + 0.5 * inside.box[2:], 127.5)
    x, y, w, h = inside.box.round().astype(int)
    assert inside.image[y + h // 2, x + w // 2].tolist() == [200] * 3
    # half of the window of a target in the frame's corner is beyond each of two borders
    corner = statistics.cut(frame, np.asarray([-10.0, -10.0, 20.0, 20.0]))
    assert corner.outside == pytest.approx(0.75)


def test_edges_blocks_spectrum_and_colour():
    noise = np.random.default_rng(0).integers(0, 255, (255, 255, 3), dtype=np.uint8)
    bars = np.where(np.arange(255) // 30 % 2, 200, 40).astype(np.uint8)
    bars = np.broadcast_to(bars[None, :, None], (255, 255, 3)).copy()
    assert statistics.upright_edges(crop(bars)) == 1
    assert statistics.upright_edges(crop(noise)) < 0.4
    assert statistics.flat_blocks(crop(noise)) == 0
    assert statistics.flat_blocks(crop(bars)) > 0.6
    assert abs(statistics.spectrum_slope(crop(noise))) < 0.3
    assert statistics.spectrum_slope(crop(bars)) < -1
    assert statistics.saturation(crop(bars)) == 0


def test_motion_and_likeness():
    frame = np.random.default_rng(1).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    boxes = np.stack([[40.0 + 5 * i, 40.0, 20.0, 20.0] for i in range(21)])
    track = Track({0: frame, 20: np.roll(frame, 100, 1)}, boxes)
    np.testing.assert_allclose(statistics.motion(track), 0.25)
    assert statistics.likeness(track, 20) > 0.95  # the windows' pixels fall a little otherwise
    assert np.isnan(statistics.likeness(track, 60))


def test_what_short_tracks_do_not_show_is_left_open():
    """No pair of frames that far apart: no figure, and no warning."""
    frame = np.zeros((60, 60, 3), np.uint8)
    track = Track({0: frame}, np.asarray([[20.0, 20.0, 10.0, 10.0]]))
    for name, of in statistics.STATISTICS.items():
        if name.startswith(("motion", "correlation")):
            assert np.isnan(of([track], [])), name
