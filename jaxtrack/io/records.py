"""JSON files in and out, and checksums: the one reader of every JSON file, ours or foreign."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxtrack.errors import JaxtrackError, brief, naming
from jaxtrack.io.atomic import read_whole, write_whole
from jaxtrack.io.paths import resolve

_LARGEST = 1 << 30  # bytes: COCO's annotations have 470 MB
_BLOCK = 1 << 20


def read_json(
    path: str | os.PathLike[str],
    what: str = "JSON",
    kind: type | None = None,
    limit: int = _LARGEST,
) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        what: what it should be, for messages: "the card of a weights file".
        kind: type that its outermost value must have, dict or list; None: any.
        limit: most bytes.

    Raises:
        JaxtrackError: missing, too large, no text, no JSON, nested too deeply, a name twice in one object, or
            another outermost type; the line is named where one is to blame.
    """
    place = resolve(path)
    data = read_whole(place, limit)
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise JaxtrackError(f"{place}: not {what} (no UTF-8 text)") from error
    except json.JSONDecodeError as error:
        raise JaxtrackError(
            f"{place}: not {what} (line {error.lineno}: {brief(error.msg)})"
        ) from error
    except RecursionError as error:
        raise JaxtrackError(f"{place}: not {what} (nested too deeply)") from error
    except (ValueError, MemoryError) as error:  # a name twice, a number of thousands of digits
        raise JaxtrackError(f"{place}: not {what} ({brief(error) or 'too large'})") from error
    if kind is not None and not isinstance(value, kind):
        names: dict[type, str] = {dict: "an object", list: "a list"}
        raise JaxtrackError(
            f"{place}: not {what} ({names.get(kind, kind.__name__)} is wanted, it holds "
            f"{names.get(type(value), f'a {type(value).__name__}')})"
        )
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{brief(repr(twice), 80)} stands twice in one object")
    return found


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file; it appears whole or not at all.

    Args:
        path: the file.
        value: dicts, lists, texts and numbers; also paths, dataclasses, and what NumPy and JAX hold.

    Raises:
        JaxtrackError: the file cannot be written.
    """
    write_whole(path, json_text(value).encode())


def json_text(value: Any) -> str:
    """Return a value as the text of a JSON file; what is not a number (NaN, infinite) is null.

    Args:
        value: as `write_json` takes it.
    """
    return json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names, in hexadecimal.

    Args:
        path: the file or folder; files and folders whose names begin with a dot are left out of a folder.

    Raises:
        JaxtrackError: it cannot be read.
    """
    place = resolve(path)
    with naming(place):
        if not place.is_dir():
            return _digest(place).hexdigest()
        whole = hashlib.sha256()
        for file in sorted(_files_below(place)):
            name = file.relative_to(place).as_posix()
            whole.update(os.fsencode(name) + b"\0" + _digest(file).digest())
        return whole.hexdigest()


def _files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [pathlib.Path(root, name) for name in files if not name.startswith(".")]
    return found


def _digest(path: pathlib.Path) -> Any:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest
