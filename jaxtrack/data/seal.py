"""What a finished build must consist of: sizes and checksums of its files, and features that run no code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io import text
from jaxtrack.io.records import checksum, read_json, write_json

NAME = "checksums.json"

# TFDS imports the module that a feature's class names: only those that a build writes may stand there.
_FEATURES = frozenset(
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        "features_dict.FeaturesDict",
        "text_feature.Text",
        "tensor_feature.Tensor",
        "scalar.Scalar",
        "image_feature.Image",
        "sequence_feature.Sequence",
    )
)


def write(folder: Path, shards: Sequence[Mapping[str, Any]]) -> None:
    """Write the checksums of a build whose other files are all there.

    Args:
        folder: the build.
        shards: ``name``, ``records``, ``bytes`` and ``sha256`` of each shard, in order.
    """
    known = {str(s["name"]) for s in shards}
    others = sorted(
        p for p in folder.rglob("*") if p.is_file() and p.name not in known and p.name != NAME
    )
    files = {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": checksum(p)}
        for p in others
    }
    write_json(folder / NAME, {"shards": list(shards), "files": files})


def read(folder: Path) -> dict[str, Any]:
    """Read the checksums of a build.

    Args:
        folder: the build.

    Returns:
        ``shards`` and ``files``, see ``write``.

    Raises:
        JaxtrackError: they are missing or damaged.
    """
    if not (folder / NAME).exists():
        raise _damaged(folder, f"no {NAME}, or built by another version")
    try:
        found = read_json(folder / NAME, "the checksums of a build", dict)
        shards = [
            {
                "name": Path(s["name"]).name,
                "records": int(s["records"]),
                "bytes": int(s["bytes"]),
                "sha256": str(s["sha256"]),
            }
            for s in found["shards"]
        ]
        files = {
            str(k): {"bytes": int(v["bytes"]), "sha256": str(v["sha256"])}
            for k, v in found["files"].items()
        }
    except (JaxtrackError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"{NAME} cannot be read") from error
    return {"shards": shards, "files": files}


def verify(folder: Path, found: Mapping[str, Any]) -> None:
    """Check that everything but the content of the shards is as it was written.

    Args:
        folder: the build.
        found: of ``read``.

    Raises:
        JaxtrackError: a file is missing, has another size or another content, or names foreign code.
    """
    check_features(folder)
    for shard in found["shards"]:
        _check_size(folder, shard["name"], shard["bytes"])
    for name, kept in found["files"].items():
        if ".." in name.split("/") or name.startswith("/"):
            raise _damaged(folder, f"{NAME} names {name}")
        _check_size(folder, name, kept["bytes"])
        if checksum(folder / name) != kept["sha256"]:
            raise _damaged(folder, f"{name} is not what was written")
    lost = {"features.json", "dataset_info.json", "summary.json", "index/names.json"} - set(
        found["files"]
    )
    if lost or not found["shards"]:
        raise _damaged(folder, f"{NAME} lacks {', '.join(sorted(lost)) or 'the shards'}")


def bad_shards(folder: Path, found: Mapping[str, Any]) -> Iterator[str]:
    """Compare the content of the shards with their checksums.

    Args:
        folder: the build.
        found: of ``read``.

    Yields:
        A line for each that is not what was written.
    """
    for shard in found["shards"]:
        try:
            if checksum(folder / shard["name"]) != shard["sha256"]:
                yield f"{folder / shard['name']} is not what was written"
        except JaxtrackError as error:
            yield str(error)


def check_features(folder: Path) -> None:
    """Refuse a build whose feature file names other classes than ours: TFDS would import them.

    Args:
        folder: the build.

    Raises:
        JaxtrackError: it does, or the file cannot be read.
    """
    try:
        content = text.read_text(folder / "features.json")
        # As pairs: of a key that stands twice, readers take the first or the last.
        named = list(_dotted(json.loads(content, object_pairs_hook=lambda pairs: pairs)))
    except (JaxtrackError, ValueError, RecursionError) as error:
        raise _damaged(folder, "features.json cannot be read") from error
    foreign = [name for name in named if name not in _FEATURES]
    if foreign or not named:
        what = f"the class {brief(foreign[0], 100)!r}" if foreign else "no class"
        raise JaxtrackError(
            f"{folder / 'features.json'} names {what}: this build was not written by jaxtrack, and "
            "reading it would run foreign code"
        )


def _dotted(content: Any) -> Iterator[str]:
    """Find every text that could be the name of a module's member."""
    if isinstance(content, str):
        if "." in content:
            yield content
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _dotted(value)


def _check_size(folder: Path, name: str, size: int) -> None:
    try:
        there = (folder / name).stat().st_size
    except OSError as error:
        raise _damaged(folder, f"{name}: {error.strerror}") from error
    if there != size:
        raise _damaged(folder, f"{name} has {there} bytes, {size} were written")


def _damaged(folder: Path, why: str) -> JaxtrackError:
    return JaxtrackError(
        f"the built dataset {folder} is damaged ({why}): delete it and build it again"
    )
