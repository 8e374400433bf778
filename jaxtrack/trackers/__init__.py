"""The trackers, by preset name.

Each module here is one tracker, to be read top to bottom: ``Config``, ``PRESETS``, ``State``,
``init_variables``, ``init``, ``track_frame``, and the public functions that these are composed of. No
tracker imports another.
"""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType

from jaxtrack.errors import JaxtrackError
from jaxtrack.tracker import Tracker

FAMILIES = ("siamfc", "siamrpn", "ostrack", "tadt", "mlt")


def family_of(name: str) -> ModuleType:
    """The module that holds a preset.

    Raises:
        JaxtrackError: no tracker has this preset; the nearest names are offered.
    """
    for family in FAMILIES:
        module = importlib.import_module(f"jaxtrack.trackers.{family}")
        if name in module.PRESETS:
            return module
    near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
    offer = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(names())}"
    raise JaxtrackError(f"unknown tracker preset {name!r}; {offer}")


def names() -> list[str]:
    """All preset names, family by family."""
    return [
        name
        for family in FAMILIES
        for name in importlib.import_module(f"jaxtrack.trackers.{family}").PRESETS
    ]


def get(name: str) -> Tracker:
    """The tracker of a preset.

    Args:
        name: a preset's name, see `names`.

    Raises:
        JaxtrackError: unknown name; the nearest names are offered.
    """
    module = family_of(name)
    return Tracker(module.PRESETS[name], module.init_variables, module.init, module.track_frame)
