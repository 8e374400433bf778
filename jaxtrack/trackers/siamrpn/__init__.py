"""SiamRPN++ (2019): siamese region proposals on deep backbones."""

from jaxtrack.base import Family
from jaxtrack.trackers.siamrpn import tracker
from jaxtrack.trackers.siamrpn.names import TABLES

FAMILY = Family(
    name="siamrpn",
    presets=tracker.PRESETS,
    init_variables=tracker.init_variables,
    init=tracker.init,
    track_frame=tracker.track_frame,
    steps=tracker.STEPS,
    cuttable=tracker.is_cuttable,
    tables=TABLES,
)
