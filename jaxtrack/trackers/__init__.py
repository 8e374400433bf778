"""The trackers, by preset name.

Each folder here is one family: its config, presets, state, network, losses and name tables, with
``FAMILY`` to bind them. No family imports another.
"""

from __future__ import annotations

import difflib
import importlib

from jaxtrack.base import Family, Tracker
from jaxtrack.errors import JaxtrackError

# A family is imported when it is first asked for: a start of one tracker does not pay for five.
FAMILIES = {
    "siamfc": "jaxtrack.trackers.siamfc",
    "siamrpn": "jaxtrack.trackers.siamrpn",
    "ostrack": "jaxtrack.trackers.ostrack",
    "tadt": "jaxtrack.trackers.tadt",
    "mlt": "jaxtrack.trackers.mlt",
}


def family(name: str) -> Family:
    """Return a family by its own name, ``siamfc`` and so on."""
    return importlib.import_module(FAMILIES[name]).FAMILY


def families() -> list[Family]:
    """Return all families."""
    return [family(name) for name in FAMILIES]


def family_of(name: str | Tracker) -> Family:
    """Return the family of a preset, or of a tracker with any config.

    Raises:
        JaxtrackError: no family has this preset (the nearest names are offered), or none is made of
            this tracker's functions.
    """
    if isinstance(name, Tracker):
        for one in families():
            if one.owns(name):
                return one
        raise JaxtrackError("this tracker belongs to no family of the library")
    for one in families():
        if name in one.presets:
            return one
    near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
    offer = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(names())}"
    raise JaxtrackError(f"unknown tracker preset {name!r}; {offer}")


def names() -> list[str]:
    """Return all preset names, family by family."""
    return [name for one in families() for name in one.presets]


def get(name: str) -> Tracker:
    """Return the tracker of a preset.

    Args:
        name: a preset's name, see `names`.

    Raises:
        JaxtrackError: unknown name; the nearest names are offered.
    """
    one = family_of(name)
    return one.tracker(one.presets[name])
