"""OSTrack (2022): one transformer over template and search tokens."""

from jaxtrack.base import Family
from jaxtrack.trackers.ostrack import tracker
from jaxtrack.trackers.ostrack.names import TABLES

FAMILY = Family(
    name="ostrack",
    presets=tracker.PRESETS,
    init_variables=tracker.init_variables,
    init=tracker.init,
    track_frame=tracker.track_frame,
    steps=tracker.STEPS,
    tables=TABLES,
)
