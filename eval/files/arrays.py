"""Files of arrays: one npz per ground truth or set of results, all frames behind one another."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics.annotation import Annotation
from jaxtrack.errors import JaxtrackError


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an npz file once.

    Args:
        path: the file.

    Returns:
        name -> array.

    Raises:
        JaxtrackError: it cannot be read, or holds pickled objects.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {k: archive[k] for k in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise JaxtrackError(f"cannot read {path}: {error}") from error


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        JaxtrackError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JaxtrackError(f"cannot read {path}: {error}") from error


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
    gt: Mapping[str, np.ndarray], listed: Mapping[str, list[str]] | None = None
) -> tuple[dict[str, Annotation], list[tuple[str, str]]]:
    """Turn the arrays of a ground-truth file into annotations.

    Args:
        gt: names, lengths, boxes, and absent, attributes and attribute_names if there are any.
        listed: attribute -> its sequences, where they are kept apart.

    Returns:
        sequence -> annotation, and the (attribute, sequence) pairs without ground truth.

    Raises:
        JaxtrackError: unknown arrays or lengths that do not add up.
    """
    known = {"names", "lengths", "boxes", "absent", "attributes", "attribute_names"}
    ignored = {"official_order", "first_image", "last_image"}
    unknown = [k for k in gt if k not in known | ignored]
    if unknown:
        raise JaxtrackError(f"unknown arrays in the ground truth: {', '.join(unknown)}")
    names = [str(n) for n in gt["names"]]
    boxes = split(np.asarray(gt["boxes"], np.float64), gt["lengths"])
    absent = split(gt["absent"].astype(bool), gt["lengths"]) if "absent" in gt else None
    attributes: dict[str, list[str]] = {n: [] for n in names}
    strangers: list[tuple[str, str]] = []
    if "attributes" in gt:
        for i, flags in enumerate(gt["attributes"]):
            attributes[names[i]] = [str(a) for a, f in zip(gt["attribute_names"], flags) if f]
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


def regions_from_arrays(gt: Mapping[str, np.ndarray]) -> dict[str, Annotation]:
    """Turn the arrays of a ground-truth file into annotations.

    Args:
        gt: names, lengths, width, height, polygons, n_coords and `tag_*`.

    Returns:
        sequence -> annotation.

    Raises:
        JaxtrackError: unknown arrays or lengths that do not add up.
    """
    polygons = np.array(gt["polygons"], np.float64)
    polygons[np.asarray(gt["n_coords"]) == 4, 4:] = np.nan
    regions = split(polygons, gt["lengths"])
    tags = {
        k.removeprefix("tag_"): split(v, gt["lengths"])
        for k, v in gt.items()
        if k.startswith("tag_")
    }
    known = {"names", "lengths", "width", "height", "polygons", "n_coords"}
    unknown = [k for k in gt if k not in known and not k.startswith("tag_")]
    if unknown:
        raise JaxtrackError(f"unknown arrays in the ground truth: {', '.join(unknown)}")
    return {
        str(n): Annotation(
            boxes=regions[i],
            polygons=regions[i],
            size=(int(gt["width"][i]), int(gt["height"][i])),
            tags={t: v[i] > 0 for t, v in tags.items() if (v[i] >= 0).all()},
        )
        for i, n in enumerate(gt["names"])
    }
