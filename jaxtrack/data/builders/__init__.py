"""TFDS builders, one per dataset: ``builder("got10k")`` gives the class.

They share ``frames.FrameBuilder`` and differ by the layout reader of the same name
(``jaxtrack.data.layouts``). None is entered in TFDS's own registry, where ``coco`` is taken.
tensorflow_datasets (not TensorFlow) is imported when the first builder is asked for.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from jaxtrack.data import layouts

if TYPE_CHECKING:
    from jaxtrack.data.builders.frames import FrameBuilder

__all__ = ["builder"]

_DESCRIPTIONS = {
    "got10k": "GOT-10k (Huang et al. 2019): 10,000 videos of 563 classes.",
    "lasot": "LaSOT (Fan et al. 2019): 1,400 long videos of 70 classes.",
    "lasot_ext": "The extension of LaSOT (Fan et al. 2021): 150 videos of 15 unseen classes.",
    "trackingnet": "TrackingNet (Mueller et al. 2018): 30,000 videos from YouTube-BB.",
    "vid": "ImageNet VID (Russakovsky et al. 2015): objects in video, several tracks each.",
    "det": "ImageNet DET (Russakovsky et al. 2015): objects in still images.",
    "coco": "COCO 2017 (Lin et al. 2014): objects in still images.",
    "youtubebb": "YouTube-BoundingBoxes (Real et al. 2017), as 511 x 511 crops.",
    "otb": "Object Tracking Benchmark (Wu et al. 2015): 100 targets in 98 videos.",
    "otb2013": "Object Tracking Benchmark of 2013 (Wu et al.): 51 targets in 50 videos.",
    "otb50": "The harder half of the Object Tracking Benchmark (Wu et al. 2015).",
    "otb100": "Object Tracking Benchmark (Wu et al. 2015), complete.",
    "uav123": "UAV123 (Mueller et al. 2016): 123 targets seen from drones.",
    "uav20l": "UAV20L (Mueller et al. 2016): 20 long videos seen from drones.",
    "nfs": "Need for Speed (Kiani Galoogahi et al. 2017): 100 videos at 240 frames per second.",
    "vot2016": "VOT2016 short-term challenge: 60 videos, rotated boxes.",
    "vot2017": "VOT2017 short-term challenge: 60 videos, rotated boxes.",
    "vot2018": "VOT2018 short-term challenge: 60 videos, rotated boxes.",
    "vot2019": "VOT2019 short-term challenge: 60 videos, rotated boxes.",
    "tc128": "Temple-Color-128 (Liang et al. 2015): 128 colour videos.",
    "custom": "A user's own videos with one text file per target.",
}


def builder(dataset: str) -> type[FrameBuilder]:
    """Find the builder class of a dataset.

    Args:
        dataset: a name of ``jaxtrack.data.layouts.names()``, or ``package.module:LAYOUT``.

    Returns:
        Its class; see ``frames.FrameBuilder`` for the arguments.

    Raises:
        JaxtrackError: an unknown dataset; the nearest name is offered.
    """
    return _make(layouts.canonical(dataset))


@functools.cache
def _make(name: str) -> type[FrameBuilder]:
    from jaxtrack.data.builders.frames import FrameBuilder

    folder = layouts.folder_name(name)
    members = {
        "__doc__": _DESCRIPTIONS.get(name, f"Videos in the layout {name}."),
        "__module__": __name__,
        "name": folder,
        "dataset": name,
    }
    return type(folder.title(), (FrameBuilder,), members, skip_registration=True)  # type: ignore[call-overload]
