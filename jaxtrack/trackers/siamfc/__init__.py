"""SiamFC (2016): fully-convolutional siamese matching over a pyramid of scales."""

from jaxtrack.base import Family
from jaxtrack.trackers.siamfc import tracker
from jaxtrack.trackers.siamfc.names import TABLES

FAMILY = Family(
    name="siamfc",
    presets=tracker.PRESETS,
    init_variables=tracker.init_variables,
    init=tracker.init,
    track_frame=tracker.track_frame,
    steps=tracker.STEPS,
    tables=TABLES,
)
