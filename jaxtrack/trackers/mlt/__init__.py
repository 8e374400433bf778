"""MLT (2019): target-specific kernels, predicted by a meta-learner from the gradient of the loss."""

from jaxtrack.base import Family
from jaxtrack.trackers.mlt import tracker

FAMILY = Family(
    name="mlt",
    presets=tracker.PRESETS,
    init_variables=tracker.init_variables,
    init=tracker.init,
    track_frame=tracker.track_frame,
    steps=tracker.STEPS,
)
