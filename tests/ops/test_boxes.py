"""Box arithmetic on numpy and on jax arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.ops import boxes

GIVEN = np.asarray([[10.0, 20.0, 4.0, 6.0], [12.0, 21.0, 4.0, 6.0]])


def test_numpy_stays_numpy_and_jax_jax():
    for name in ("xywh_to_xyxy", "cxcywh_to_xywh", "cxcywh_to_xyxy"):
        function = getattr(boxes, name)
        host, device = function(GIVEN), function(jnp.asarray(GIVEN))
        assert type(host) is np.ndarray
        assert host.dtype == np.float64
        assert isinstance(device, jax.Array)
        np.testing.assert_allclose(host, device)
    corners = boxes.xywh_to_xyxy(GIVEN)
    assert isinstance(boxes.iou_xyxy(corners[0], jnp.asarray(corners[1])), jax.Array)
    np.testing.assert_allclose(boxes.iou_xyxy(corners[0], corners[1]), 10 / (24 + 24 - 10))
    nothing = np.zeros(4)
    assert boxes.iou_xyxy(nothing, nothing) == 0


def test_middle_pixels_and_back():
    middle, size = boxes.middle_of(GIVEN[0])
    np.testing.assert_array_equal(middle, [22.5, 11.5])
    np.testing.assert_array_equal(size, [6, 4])
    np.testing.assert_array_equal(boxes.box_about(middle, size), GIVEN[0])
