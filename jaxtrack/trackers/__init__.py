"""The trackers, by preset name.

Each folder here is one family: its config, presets, state, network, losses and name tables, with
``FAMILY`` to bind them. No family imports another.

Trackers of others come in by two doors. ``package.module:TRACKER``, wherever a preset's name is asked for,
imports a `jaxtrack.base.Tracker` or a `jaxtrack.base.Family` (``package.module:FAMILY.preset`` where it has
several presets). A package that declares the entry-point group ``jaxtrack.trackers`` makes its presets known
by name: those of a family by their own names, a tracker by the entry's.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import warnings
from typing import Any

from jaxtrack import checks
from jaxtrack.base import Family, Tracker
from jaxtrack.errors import JaxtrackError, UsageError, brief, nearest, unknown
from jaxtrack.imports import imported

# A family is imported when it is first asked for: a start of one tracker does not pay for five.
FAMILIES = {
    "siamfc": "jaxtrack.trackers.siamfc",
    "siamrpn": "jaxtrack.trackers.siamrpn",
    "ostrack": "jaxtrack.trackers.ostrack",
    "tadt": "jaxtrack.trackers.tadt",
    "mlt": "jaxtrack.trackers.mlt",
}
GROUP = "jaxtrack.trackers"
# Families that `find` has imported: their trackers are known by value from then on.
_FOUND: dict[str, Family] = {}


def family(name: str) -> Family:
    """Return a family of the library by its own name, ``siamfc`` and so on."""
    return importlib.import_module(FAMILIES[name]).FAMILY


def families() -> list[Family]:
    """Return all families: the library's, those of installed packages, and those that `find` imported."""
    ours = [family(name) for name in FAMILIES]
    return ours + [one for _, one in _installed()[0]] + list(_FOUND.values())


def family_of(name: str | Tracker) -> Family:
    """Return the family of a preset, or of a tracker with any config.

    Args:
        name: a preset's name, a text as for `find`, or a tracker. One that belongs to no family is given
            one of its own, without presets and name tables.

    Raises:
        JaxtrackError: no family has this preset; the nearest names are offered.
    """
    if isinstance(name, Tracker):
        for one in families():
            if one.owns(name):
                return one
        return _alone(name, getattr(name.track_frame, "__module__", "own"), {})
    _check_name(name)
    if ":" in name:
        return find(name)[0]
    for key in FAMILIES:
        if name in family(key).presets:
            return family(key)
    others, broken = _installed()
    having = [(package, one) for package, one in others if name in one.presets]
    if len(having) > 1:
        packages = ", ".join(package for package, _ in having)
        raise JaxtrackError(f"tracker preset {name!r} is declared by several packages: {packages}")
    if having:
        return having[0][1]
    if name in broken:
        raise JaxtrackError(f"tracker {name!r}: {broken[name]}")
    if "." in name:
        raise UsageError(
            f"unknown tracker preset {brief(repr(name), 80)}; one of your own is given with its name in the "
            "module, as package.module:TRACKER"
        )
    raise unknown("tracker preset", name, names())


def names() -> list[str]:
    """Return the preset names of the library and of installed packages, family by family."""
    ours = [family(name) for name in FAMILIES]
    return [name for one in [*ours, *(one for _, one in _installed()[0])] for name in one.presets]


def get(name: str, **changes: Any) -> Tracker:
    """Return the tracker of a preset: ``get("siamfc", window_influence=0.3)``.

    Args:
        name: a preset's name, see `names`, or a text as for `find`.
        **changes: fields of its config to be changed, see `jaxtrack.base.Tracker.replace`.

    Raises:
        JaxtrackError: no text, unknown name or field (the nearest are offered), a value of another type, or
            a text that leads to no tracker.
    """
    _check_name(name)
    if ":" in name:
        one, preset = find(name)
    else:
        one, preset = family_of(name), name
    tracker = one.tracker(one.presets[preset])
    checks.tracker(tracker, Tracker)  # one from outside may have a config that cannot key a program
    return tracker.replace(**changes)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise JaxtrackError(
            f"a tracker preset is given by its name, not by a {type(name).__name__}: get_tracker('siamfc'); "
            "jaxtrack.tracker_names() lists them"
        )


def presets_of(tracker: Tracker) -> tuple[str, ...]:
    """Return the names under which a tracker is a preset; presets are compared by value.

    Several names mean the same network and settings, which other weights go with.
    """
    one = family_of(tracker)
    return tuple(name for name, config in one.presets.items() if config == tracker.config)


def find(text: str) -> tuple[Family, str]:
    """Import a tracker of somebody else's.

    Args:
        text: ``package.module:NAME``, where NAME is a `Tracker`, or a `Family` of one preset; or
            ``package.module:NAME.preset``. The working folder is looked into last.

    Returns:
        The family, and the name of the preset in it (for a single tracker, the text itself).

    Raises:
        JaxtrackError: no such module, an error in it, no such name, or neither tracker nor family.
    """
    place, _, rest = text.partition(":")
    name, _, preset = rest.partition(".")
    where = f"tracker {brief(repr(text), 100)}"
    value = imported(place, name, where, "TRACKER")
    if isinstance(value, Tracker) and not preset:
        return _alone(value, place, {text: value.config}), text
    if not isinstance(value, Family):
        kind = (
            "a tracker, which has no presets"
            if isinstance(value, Tracker)
            else type(value).__name__
        )
        raise JaxtrackError(
            f"{where}: {place}:{name} is {kind}; a jaxtrack Tracker or Family is wanted"
        )
    if not preset and len(value.presets) == 1:
        preset = next(iter(value.presets))
    if preset not in value.presets:
        raise JaxtrackError(
            f"{where}: give one of its presets, {place}:{name}.PRESET; "
            f"{nearest(preset, value.presets)}"
        )
    _FOUND[f"{place}:{name}"] = value
    return value, preset


def _alone(tracker: Tracker, name: str, presets: dict[str, Any]) -> Family:
    """Return the family of a tracker that was handed over without one."""
    return Family(
        name=name,
        presets=presets,
        init_variables=tracker.init_variables,
        init=tracker.init,
        track_frame=tracker.track_frame,
        steps=tracker.steps,
        cuttable=tracker.cuttable,
    )


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[list[tuple[str, Family]], dict[str, str]]:
    """Return the families that installed packages declare, with the package; and what could not be loaded."""
    found: list[tuple[str, Family]] = []
    broken: dict[str, str] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else entry.value
        try:
            value = entry.load()
            if isinstance(value, Tracker):
                value = _alone(value, entry.name, {entry.name: value.config})
            if not isinstance(value, Family):
                raise TypeError(f"a {type(value).__name__}, neither Tracker nor Family")
        # Another package's fault, whatever it is, must not take the library's own trackers away.
        except Exception as error:
            said = brief(f"{type(error).__name__}: {error}")
            broken[entry.name] = (
                f"the package {package} declares it, but {entry.value} failed ({said})"
            )
            warnings.warn(f"tracker {entry.name!r}: {broken[entry.name]}", stacklevel=2)
            continue
        found.append((package, value))
    return found, broken
