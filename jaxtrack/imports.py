"""What somebody else's modules hold, found by import: trackers and trainings that no preset of ours names."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, TypeVar

from jaxtrack.errors import JaxtrackError, brief, nearest

T = TypeVar("T")


def imported(place: str, name: str, where: str, what: str) -> Any:
    """Import a module and return what it calls by a name.

    Args:
        place: ``package.module``. The working folder is looked into last.
        name: of the value in it.
        where: what messages begin with, such as ``tracker 'package.module:NAME'``.
        what: the value in capitals, for messages: ``TRACKER``.

    Raises:
        JaxtrackError: these are no names, no such module, an error in it, or no such name in it.
    """
    if not all(part.isidentifier() for part in [*place.split("."), name]):
        raise JaxtrackError(f"{where}: give package.module:{what}")
    module = _module(place, where)
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise JaxtrackError(f"{where}: {place} has no {name}; {nearest(name, public)}")
    return getattr(module, name)


def imported_as(kind: type[T], text: str, where: str, what: str) -> T:
    """Import what ``package.module:NAME`` names, which has to be of a type.

    Args:
        kind: the type.
        text: ``package.module:NAME``.
        where: what messages begin with.
        what: the value in capitals, for messages.

    Raises:
        JaxtrackError: as `imported`, or a value of another type.
    """
    place, _, name = text.partition(":")
    value = imported(place, name, where, what)
    if not isinstance(value, kind):
        raise JaxtrackError(
            f"{where}: {place}:{name} is {type(value).__name__}; "
            f"a {kind.__module__}.{kind.__name__} is wanted"
        )
    return value


def _module(place: str, where: str) -> Any:
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or place
        if place == missing or place.startswith(f"{missing}."):
            raise JaxtrackError(f"{where}: there is no module {missing}") from error
        raise JaxtrackError(f"{where}: {place} needs the module {missing}") from error
    except Exception as error:
        said = brief(f"{type(error).__name__}: {error}")
        raise JaxtrackError(f"{where}: importing {place} failed ({said})") from error
    finally:
        if added:
            sys.path.remove(here)
