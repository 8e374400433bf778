"""jaxtrack: five visual object trackers in JAX and Flax, as pure functions.

    tracker = jaxtrack.get_tracker("siamfc-tiny")
    variables = jaxtrack.load_weights("siamfc-tiny")
    state = jaxtrack.init(tracker, variables, frames[0], box)
    state, prediction = jaxtrack.track_clip(tracker, variables, state, frames[1:])

or, for a whole clip at once:

    boxes, scores = jaxtrack.track(tracker, variables, jaxtrack.open_video("clip.mp4"), box)

Frames are uint8 RGB ``(h, w, 3)``; boxes are ``(x, y, w, h)`` with a 0-based corner, in pixels.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtrack.base import Prediction, Tracker, init, track_clip, track_frame
    from jaxtrack.errors import JaxtrackError
    from jaxtrack.io.video import open_source as open_video
    from jaxtrack.loading import load_weights
    from jaxtrack.streaming import Tracks, track
    from jaxtrack.trackers import get as get_tracker
    from jaxtrack.trackers import names as tracker_names

__version__ = "0.1.0"

__all__ = [
    "JaxtrackError",
    "Prediction",
    "Tracker",
    "Tracks",
    "get_tracker",
    "init",
    "load_weights",
    "open_video",
    "track",
    "track_clip",
    "track_frame",
    "tracker_names",
]

# Where the names above come from. They are fetched when they are first asked for, so that a command explains
# itself, or says what is wrong with its words, before JAX is loaded.
_HOMES = {
    "JaxtrackError": ("errors", "JaxtrackError"),
    "Prediction": ("base", "Prediction"),
    "Tracker": ("base", "Tracker"),
    "Tracks": ("streaming", "Tracks"),
    "get_tracker": ("trackers", "get"),
    "init": ("base", "init"),
    "load_weights": ("loading", "load_weights"),
    "open_video": ("io.video", "open_source"),
    "track": ("streaming", "track"),
    "track_clip": ("base", "track_clip"),
    "track_frame": ("base", "track_frame"),
    "tracker_names": ("trackers", "names"),
}
_MODULES = ("base", "errors", "loading", "settings", "streaming", "trackers", "weights")


def __getattr__(name: str) -> Any:
    """Return a name of the face, or a module that is reached by it."""
    if name in _HOMES:
        module, inner = _HOMES[name]
        value = getattr(importlib.import_module(f"jaxtrack.{module}"), inner)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"jaxtrack.{name}")
    raise AttributeError(f"module 'jaxtrack' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what the package offers."""
    return sorted({*globals(), *__all__, *_MODULES})
