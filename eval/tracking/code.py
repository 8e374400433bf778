"""The code that results depend on, as digests: kept results of other code are not those of this one."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtrack.io.records import checksum


@functools.cache
def of_package(name: str) -> str:
    """Return a digest of the source files of a package with all that is below it, or of a module alone.

    Args:
        name: of the package, ``jaxtrack``, or of a module that lies in none; imported.

    Returns:
        Hexadecimal text; of nothing where no source file is found, as in an interactive session.
    """
    digest = hashlib.sha256()
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is not None:
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        files = [(f.relative_to(folder), f) for folder in folders for f in folder.rglob("*.py")]
        if not folders and spec.origin is not None:
            files = [(Path(spec.origin).name, Path(spec.origin))]  # type: ignore[list-item]
        for place, file in sorted((str(place), file) for place, file in files):
            digest.update(f"{place} {checksum(file)}\n".encode())
    return digest.hexdigest()


def of_functions(*functions: Callable[..., Any]) -> str:
    """Return a digest of the code behind functions: this library's, and that of the packages they lie in.

    Args:
        functions: such as ``init`` and ``track_frame`` of a tracker, ours or somebody else's, or classes.
    """
    ours = ("jaxtrack", __package__)
    packages = dict.fromkeys((*ours, *(f.__module__.partition(".")[0] for f in functions)))
    return " ".join(map(of_package, packages))
