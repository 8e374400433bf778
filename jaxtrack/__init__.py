"""jaxtrack: five visual object trackers in JAX and Flax, as pure functions.

    tracker = jaxtrack.get_tracker("siamfc-tiny")
    variables = jaxtrack.load_weights("siamfc-tiny")
    state = jaxtrack.init(tracker, variables, frames[0], box)
    state, prediction = jaxtrack.track_clip(tracker, variables, state, frames[1:])

Frames are uint8 RGB ``(h, w, 3)``; boxes are ``(x, y, w, h)`` with a 0-based corner, in pixels.
"""

from jaxtrack.base import Prediction, Tracker, init, track_clip, track_frame
from jaxtrack.errors import JaxtrackError
from jaxtrack.loading import load_weights
from jaxtrack.trackers import get as get_tracker
from jaxtrack.trackers import names as tracker_names

__version__ = "0.1.0"

__all__ = [
    "JaxtrackError",
    "Prediction",
    "Tracker",
    "get_tracker",
    "init",
    "load_weights",
    "track_clip",
    "track_frame",
    "tracker_names",
]
