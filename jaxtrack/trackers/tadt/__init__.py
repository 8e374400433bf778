"""TADT (2019): channels chosen for the target by the gradients of two losses."""

from jaxtrack.base import Family
from jaxtrack.trackers.tadt import tracker
from jaxtrack.trackers.tadt.names import TABLES

FAMILY = Family(
    name="tadt",
    presets=tracker.PRESETS,
    init_variables=tracker.init_variables,
    init=tracker.init,
    track_frame=tracker.track_frame,
    steps=tracker.STEPS,
    tables=TABLES,
)
