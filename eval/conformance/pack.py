"""Check expected metric values against this package: `python -m eval.score --pack FOLDER`.

A pack is a folder of `.npz` and `.json` files: ground truth, raw results, and the values and curves
that the field's toolkits computed from them. Everything is taken from the files; what is not
understood fails by name.
"""

from __future__ import annotations

import re
from pathlib import Path

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.paths import resolve
from jaxtrack.io.records import read_json

from ..files.arrays import load_npz
from . import examples, ope, vot
from .checker import Checker, Group

_NAME = re.compile(
    r"^(?P<key>.+?)(?:_(?:test|val|train))?_(?P<role>expected|gt|curves|frames|results|result_.+)$"
)


def check_pack(folder: str | Path) -> Checker:
    """Check every expected value of a pack.

    Args:
        folder: the pack.

    Returns:
        The compared groups.

    Raises:
        JaxtrackError: no such folder, or nothing to check in it.
    """
    folder = resolve(folder)
    if not folder.is_dir():
        raise JaxtrackError(f"no folder {folder}: give a folder of *_expected.json and data files")
    checker = Checker()
    groups: dict[str, Group] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".npz", ".json"):
            checker.note(f"{path.name}: no data file, not read")
            continue
        with checker.guard(path.name):
            content = load_npz(path) if path.suffix == ".npz" else read_json(path, "file of a pack")
            if examples.check(path.stem, content, checker):
                continue
            parts = _NAME.match(path.stem)
            if parts is None or not isinstance(content, dict):
                checker.fail(path.name, "unknown kind of file")
                continue
            group = groups.setdefault(parts["key"], Group(parts["key"], {}))
            group.files[parts["role"]] = content
    for group in groups.values():
        before = len(checker.lines)
        with checker.guard(group.key):
            if not (vot.check(group, checker) or ope.check(group, checker)):
                checker.fail(group.key, f"unknown structure of {', '.join(sorted(group.files))}")
        if len(checker.lines) == before:
            files = ", ".join(f"{group.key}_{role}" for role in sorted(group.files))
            checker.note(f"{files}: no expected values beside it, nothing compared")
    if not checker.lines:
        raise JaxtrackError(f"nothing to check in {folder}: no *_expected.json and no data file")
    return checker
