"""Files of arrays: one npz per ground truth or set of results, all frames behind one another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io.arrays import read_arrays

from ..metrics.annotation import Annotation

# Boxes of the largest benchmark take some hundred megabytes; what claims far more is no table of boxes.
_WANTED = 512 << 20


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an npz file of ground truth or results: numbers and names.

    Args:
        path: the file.

    Returns:
        name -> array.

    Raises:
        JaxtrackError: it cannot be read, holds pickled objects, or claims more than a benchmark has.
    """
    return read_arrays(path, _WANTED, texts=True)


def checked_names(content: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> list[str]:
    """Return the array ``names`` as text.

    Args:
        content: of `load_npz`.
        path: the file, for messages.

    Returns:
        The names.

    Raises:
        JaxtrackError: it is missing, not a list of text, or a name stands twice.
    """
    if "names" not in content:
        raise JaxtrackError(f"{path}: no array 'names': not a file of results or ground truth")
    names = content["names"]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise JaxtrackError(f"{path}: 'names' is not a list of text")
    texts = [n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names]
    twice = (
        [n for n in dict.fromkeys(texts) if texts.count(n) > 1]
        if len(set(texts)) < len(texts)
        else []
    )
    if twice:
        raise JaxtrackError(f"{path}: the sequence {brief(twice[0], 60)!r} stands there twice")
    return texts


def checked_rows(
    content: Mapping[str, np.ndarray],
    rows: str,
    lengths: str,
    sequences: int,
    path: str | os.PathLike[str],
    columns: tuple[int, ...] = (4, 8),
) -> tuple[np.ndarray, np.ndarray]:
    """Return a table of all frames and the frames of each sequence.

    Args:
        content: of `load_npz`.
        rows: name of the table.
        lengths: name of the lengths.
        sequences: how many sequences there are.
        path: the file, for messages.
        columns: allowed numbers of columns.

    Returns:
        float64 (N, columns), int64 (S,).

    Raises:
        JaxtrackError: one is missing, of another shape, or not made of numbers, or they do not fit.
    """
    for key in (rows, lengths):
        if key not in content:
            raise JaxtrackError(f"{path}: no array {brief(key, 60)!r}")
    table, counts = content[rows], content[lengths]
    if table.ndim != 2 or table.shape[1] not in columns or table.dtype.kind not in "fiu":
        raise JaxtrackError(
            f"{path}: {brief(rows, 60)!r} is not a table of boxes (x, y, w, h per row)"
        )
    if counts.shape != (sequences,) or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise JaxtrackError(f"{path}: {brief(lengths, 60)!r} is not one number of frames per name")
    counts = counts.astype(np.int64)
    if int(counts.sum()) != len(table):
        raise JaxtrackError(
            f"{path}: lengths add up to {int(counts.sum())}, but there are {len(table)} rows"
        )
    return table.astype(np.float64), counts


def split(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Cut concatenated frames into sequences.

    Args:
        values: (N, ...) all frames.
        lengths: (S,) frames of each.

    Returns:
        S views.

    Raises:
        JaxtrackError: the lengths do not add up to the frames.
    """
    if int(np.sum(lengths)) != len(values):
        raise JaxtrackError(
            f"lengths add up to {int(np.sum(lengths))}, but there are {len(values)} rows"
        )
    return np.split(values, np.cumsum(lengths)[:-1])


def annotations_from_arrays(
    gt: Mapping[str, np.ndarray],
    listed: Mapping[str, list[str]] | None = None,
    path: str | os.PathLike[str] = "the ground truth",
) -> tuple[dict[str, Annotation], list[tuple[str, str]]]:
    """Turn the arrays of a ground-truth file into annotations.

    Args:
        gt: names, lengths, boxes, and absent, attributes and attribute_names if there are any.
        listed: attribute -> its sequences, where they are kept apart.
        path: the file, for messages.

    Returns:
        sequence -> annotation, and the (attribute, sequence) pairs without ground truth.

    Raises:
        JaxtrackError: unknown or malformed arrays, or lengths that do not add up.
    """
    known = {"names", "lengths", "boxes", "absent", "attributes", "attribute_names"}
    ignored = {"official_order", "first_image", "last_image"}
    _refuse_unknown([k for k in gt if k not in known | ignored], path)
    names = checked_names(gt, path)
    rows, lengths = checked_rows(gt, "boxes", "lengths", len(names), path, (4,))
    boxes = split(rows, lengths)
    absent = None
    if "absent" in gt:
        absent = split(_per_frame(gt, "absent", len(rows), path).astype(bool), lengths)
    attributes: dict[str, list[str]] = {n: [] for n in names}
    strangers: list[tuple[str, str]] = []
    if "attributes" in gt:
        flags, titles = gt["attributes"], gt.get("attribute_names", np.zeros(0, str))
        if flags.shape != (len(names), len(titles)) or flags.dtype.kind not in "biuf":
            raise JaxtrackError(f"{path}: 'attributes' is not one flag per sequence and attribute")
        for name, row in zip(names, flags):
            attributes[name] = [str(title) for title, flag in zip(titles, row) if flag]
    for attribute, members in (listed or {}).items():
        for name in members:
            if name not in attributes:
                strangers.append((attribute, name))
            elif attribute not in attributes[name]:
                attributes[name].append(attribute)
    annotations = {
        n: Annotation(boxes[i], absent[i] if absent else None, tuple(attributes[n]))
        for i, n in enumerate(names)
    }
    return annotations, strangers


def regions_from_arrays(
    gt: Mapping[str, np.ndarray], path: str | os.PathLike[str] = "the ground truth"
) -> dict[str, Annotation]:
    """Turn the arrays of a ground-truth file of regions into annotations.

    Args:
        gt: names, lengths, width, height, polygons, n_coords and `tag_*`.
        path: the file, for messages.

    Returns:
        sequence -> annotation.

    Raises:
        JaxtrackError: unknown or malformed arrays, or lengths that do not add up.
    """
    known = {"names", "lengths", "width", "height", "polygons", "n_coords"}
    _refuse_unknown([k for k in gt if k not in known and not k.startswith("tag_")], path)
    names = checked_names(gt, path)
    polygons, lengths = checked_rows(gt, "polygons", "lengths", len(names), path, (8,))
    polygons[_per_frame(gt, "n_coords", len(polygons), path) == 4, 4:] = np.nan
    regions = split(polygons, lengths)
    sizes = [_per_frame(gt, k, len(names), path) for k in ("width", "height")]
    if any((side <= 0).any() for side in sizes):
        raise JaxtrackError(f"{path}: a width or height is not positive")
    tags = {
        k.removeprefix("tag_"): split(_per_frame(gt, k, len(polygons), path), lengths)
        for k in gt
        if k.startswith("tag_")
    }
    return {
        name: Annotation(
            boxes=regions[i],
            polygons=regions[i],
            size=(int(sizes[0][i]), int(sizes[1][i])),
            tags={t: v[i] > 0 for t, v in tags.items() if (v[i] >= 0).all()},
        )
        for i, name in enumerate(names)
    }


def _refuse_unknown(keys: list[str], path: str | os.PathLike[str]) -> None:
    if keys:
        raise JaxtrackError(f"unknown arrays in {path}: {brief(', '.join(keys))}")


def _per_frame(
    content: Mapping[str, np.ndarray], key: str, count: int, path: str | os.PathLike[str]
) -> np.ndarray:
    values = content.get(key)
    if values is None or values.shape != (count,) or values.dtype.kind not in "biuf":
        raise JaxtrackError(f"{path}: {brief(key, 60)!r} is not a list of {count} numbers")
    return values
