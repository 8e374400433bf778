"""The ground truth that results are scored against, without images.

Understood are: a benchmark's own folder, read by `jaxtrack.data.layouts.read_truth` as for tracking; an
`.npz` file (names, lengths, boxes or polygons); a data set's `.json` as pysot keeps it; and a folder of
`SEQ.txt` files as the LaSOT toolkit and others keep them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrack.data import layouts
from jaxtrack.data.readers import files
from jaxtrack.data.readers.files import WrongLayoutError
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io.atomic import read_whole
from jaxtrack.io.images import check_image
from jaxtrack.io.paths import resolve
from jaxtrack.io.records import read_json
from jaxtrack.io.text import read_numbers, read_text

from ..metrics.annotation import Annotation
from ..metrics.protocols import Benchmark
from .arrays import annotations_from_arrays, load_npz, regions_from_arrays
from .records import annotation_of, evaluated
from .results import polygon_bounds

# Columns of the LaSOT toolkit's attribute files, spelled as there.
LASOT_ATTRIBUTES = (
    "Illumination Variation",
    "Partial Occlusion",
    "Deformation",
    "Motion Blur",
    "Camera Motion",
    "Rotation",
    "Background Clutter",
    "Viewpoint Change",
    "Scale Variation",
    "Full Occlusion",
    "Fast Motion",
    "Out-of-View",
    "Low Resolution",
    "Aspect Ration Change",
)
# Columns of UAV123's attribute rows, in the order of the paper (table 2).
UAV_ATTRIBUTES = (
    "Scale Variation",
    "Aspect Ratio Change",
    "Low Resolution",
    "Fast Motion",
    "Full Occlusion",
    "Partial Occlusion",
    "Out-of-View",
    "Background Clutter",
    "Illumination Variation",
    "Viewpoint Change",
    "Camera Motion",
    "Similar Object",
)
# Texts beside the annotations that are none.
_NO_SEQUENCE = ("list", "attributes", "log", "readme", "license")
_TAGS = ("camera_motion", "illum_change", "motion_change", "size_change", "occlusion")


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """What results are scored against.

    Attributes:
        annotations: sequence -> annotation, in the benchmark's own coordinates.
        split: the split that they are of; None where the files do not say it.
    """

    annotations: dict[str, Annotation]
    split: str | None = None


def read_ground_truth(
    path: str | Path, benchmark: Benchmark, layout: str | None = None, split: str | None = None
) -> dict[str, Annotation]:
    """Read the annotation of a benchmark: the annotations of `read_truth`."""
    return read_truth(path, benchmark, layout, split).annotations


def read_truth(
    path: str | Path, benchmark: Benchmark, layout: str | None = None, split: str | None = None
) -> Truth:
    """Read the annotation of a benchmark, and which split it is.

    Args:
        path: an npz or json file, or a folder.
        benchmark: the rules; decides which side files matter.
        layout: how a folder is laid out, a name of `jaxtrack.data.layouts`; None: the benchmark's name.
        split: split of a folder; None: the one that is scored, or else the one that is there.

    Returns:
        The annotation.

    Raises:
        JaxtrackError: nothing of the kind is there, or a file cannot be read; named with its line.
    """
    path = resolve(path)
    if path.is_dir():
        # The long-term challenges lie on disk as the short-term ones.
        longterm = benchmark.kind == "longterm"
        found = _from_layout(path, "vot2018" if longterm else layout or benchmark.name, split)
        found = found if found is not None else _bare(_from_flat(path, benchmark))
        if not found.annotations:
            raise JaxtrackError(
                f"no annotation of {benchmark.name} under {path}: looked for its own layout and for SEQ.txt"
            )
        return found
    if not path.exists():
        raise JaxtrackError(f"no ground truth at {path}: give an npz or json file, or a folder")
    if path.suffix == ".json":
        return _bare(_from_json(read_json(path, "data set file"), path))
    if path.suffix != ".npz":
        raise JaxtrackError(f"{path}: give an npz or json file, or a folder")
    content = load_npz(path)
    if "names" not in content or "lengths" not in content:
        raise JaxtrackError(f"{path}: no arrays 'names' and 'lengths': not a ground truth")
    if "polygons" in content:
        return _bare(regions_from_arrays(content, path))
    if "boxes" not in content:
        raise JaxtrackError(f"{path}: neither 'boxes' nor 'polygons': not a ground truth")
    listed = read_json(side, "list of attributes") if (side := _expected_beside(path)) else {}
    attributes = listed.get("attributes") if isinstance(listed, dict) else None
    if not _is_listing(attributes):
        raise JaxtrackError(f"{side}: 'attributes' is no table of lists of sequences")
    return _bare(annotations_from_arrays(content, attributes, path)[0])


def _bare(annotations: dict[str, Annotation]) -> Truth:
    """Return annotations of no layout: where given boxes are all there is, the others are withheld."""
    return Truth(
        {n: dataclasses.replace(a, withheld=not a.scorable) for n, a in annotations.items()}
    )


def _is_listing(attributes: Any) -> bool:
    """Return whether this is None, or attribute -> names of sequences."""
    if not isinstance(attributes, Mapping | None):
        return False
    lists = (attributes or {}).values()
    return all(isinstance(v, list) and all(isinstance(n, str) for n in v) for v in lists)


def _expected_beside(path: Path) -> Path | None:
    """Return the file that lists the attributes of `X_gt.npz`: `X_expected.json` in the same folder."""
    side = path.with_name(re.sub(r"(?:_test)?_gt$", "_expected", path.stem) + ".json")
    return side if side.is_file() else None


def _from_json(content: Any, path: Path) -> dict[str, Annotation]:
    """Read a data set as pysot keeps it: sequence -> gt_rect, attr, absent, tags."""
    if not isinstance(content, Mapping) or not all(
        isinstance(v, Mapping) and "gt_rect" in v for v in content.values()
    ):
        raise JaxtrackError(f"{path}: not a data set file: every sequence needs a 'gt_rect'")
    return {str(name): _from_entry(f"{path}: {brief(name, 60)}", e) for name, e in content.items()}


def _from_entry(where: str, entry: Mapping[str, Any]) -> Annotation:
    """Read one sequence of a data set file."""
    try:
        regions = [[np.nan] * 4 if r is None or len(r) == 1 else r for r in entry["gt_rect"]]
        table = np.full((len(regions), 8), np.nan)
        for i, region in enumerate(regions):
            if len(region) not in (4, 8):
                raise ValueError(f"{len(region)} numbers in a row")
            table[i, : len(region)] = np.asarray(region, np.float64)
    except (TypeError, ValueError) as error:
        raise JaxtrackError(
            f"{where}: gt_rect is not a list of boxes ({brief(error, 80)})"
        ) from error
    if not len(table) or np.isinf(table).any():
        raise JaxtrackError(f"{where}: gt_rect is empty or holds an infinite number")
    polygons = table if np.isfinite(table[:, 4]).any() else None
    present = entry.get("absent")  # the file's flag says 1 where the target is present
    attributes = entry.get("attr") or ()
    if not isinstance(attributes, list | tuple) or not all(isinstance(a, str) for a in attributes):
        raise JaxtrackError(f"{where}: attr is not a list of names")
    size = None
    if {"width", "height"} <= set(entry):
        size = (entry["width"], entry["height"])
        if not all(isinstance(v, int) and 0 < v < 1 << 20 for v in size):
            raise JaxtrackError(f"{where}: width and height are not two sizes in pixels")
    return Annotation(
        boxes=table[:, :4] if polygons is None else _upright(table),
        absent=None if present is None else ~_flags(where, "absent", present, len(table)),
        attributes=tuple(attributes),
        polygons=polygons,
        tags={
            tag: _flags(where, tag, entry[tag], len(table))
            for tag in _TAGS
            if isinstance(entry.get(tag), list) and len(entry[tag]) == len(table)
        },
        size=size,
    )


def _flags(where: str, name: str, values: Any, count: int) -> np.ndarray:
    """Return a list of numbers as flags."""
    if not isinstance(values, list) or len(values) != count:
        raise JaxtrackError(f"{where}: {name} is not a list of {count} flags")
    if not all(isinstance(v, int | float) for v in values):
        raise JaxtrackError(f"{where}: {name} holds something else than numbers")
    return np.array([v != 0 for v in values], bool)


def _upright(table: np.ndarray) -> np.ndarray:
    """Return upright boxes of a table that mixes polygons and rectangles."""
    boxes = table[:, :4].copy()
    polygon = ~np.isnan(table[:, 4])
    boxes[polygon] = polygon_bounds(table[polygon])
    return boxes


def _from_layout(path: Path, layout: str, split: str | None) -> Truth | None:
    """Read a folder as its benchmark lays it out; None where it is another layout."""
    try:
        layout = layouts.canonical(layout)
    except JaxtrackError:
        return None
    scored = layouts.evaluation_split(layout)
    others = [s for s in layouts.layout_of(layout).splits if s != scored]
    for chosen in [scored, *others] if split is None else [split]:
        try:
            records = layouts.read_truth(layout, path, chosen)
        except WrongLayoutError:
            continue
        if records:
            return Truth({r.name: _of_record(layout, r, path) for r in records}, chosen)
    return None


def _of_record(layout: str, record: VideoRecord, root: Path) -> Annotation:
    record, skipped = evaluated(layout, record)
    size = record.size[::-1] if record.size is not None else None
    folders = (root / record.name, *(root / s / record.name for s in ("val", "test", "train")))
    folder = next((f for f in folders if f.is_dir()), None)
    if size is None and folder is not None:
        size = _image_size(folder)
    return annotation_of(record, size, skipped)


def _from_flat(path: Path, benchmark: Benchmark) -> dict[str, Annotation]:
    """Read a folder of `SEQ.txt`, or one that holds them in `anno` or `annos`."""
    for inner in ("anno/UAV123", "anno", "annos"):
        if files.named(path / inner, ".txt"):
            path = path / inner
            break
    flat = [p for p in sorted(files.named(path, ".txt")) if p.stem.lower() not in _NO_SEQUENCE]
    return {p.stem: _from_text(p, benchmark) for p in flat}


def _from_text(path: Path, benchmark: Benchmark) -> Annotation:
    """Read one `SEQ.txt`, with the LaSOT toolkit's `absent/SEQ.txt` and `att/SEQ.txt` if they are there."""
    table = read_numbers(path, (4, 8))
    absent = path.parent / "absent" / path.name
    marks = path.parent / "att" / path.name
    attributes: tuple[str, ...] = ()
    if marks.is_file():
        flags = read_numbers(marks).ravel()
        names = UAV_ATTRIBUTES if benchmark.name == "uav123" else LASOT_ATTRIBUTES
        if len(flags) != len(names):
            raise JaxtrackError(f"{marks}: {len(flags)} flags where {len(names)} are expected")
        attributes = tuple(n for n, f in zip(names, flags) if f)
    return _annotation(
        table,
        absent=read_numbers(absent).ravel() > 0 if absent.is_file() else None,
        attributes=attributes,
    )


def _annotation(table: np.ndarray, **more: Any) -> Annotation:
    if table.shape[1] == 8:
        return Annotation(polygon_bounds(table), polygons=table, **more)
    return Annotation(table, **more)


def _image_size(folder: Path) -> tuple[int, int] | None:
    """Return the width and height from `sequence`, `meta_info.ini` or the first image; None without any."""
    note = folder / "sequence"
    if note.is_file():
        lines = read_text(note).splitlines()
        entries = dict(line.split("=", 1) for line in lines if "=" in line)
        sides = [entries.get(k, "").strip() for k in ("width", "height")]
        if all(re.fullmatch(r"[0-9]{1,6}", side) for side in sides):
            return int(sides[0]), int(sides[1])
    note = folder / "meta_info.ini"
    if note.is_file():
        parts = re.search(
            r"^resolution\s*[:=]\s*\(?\s*([0-9]{1,6})\D+([0-9]{1,6})\b", read_text(note), re.M
        )
        if parts:
            return int(parts[1]), int(parts[2])
    for inner in ("color", "img", ""):
        for image in files.list_images(folder / inner)[:1]:
            height, width = check_image(read_whole(image), image)
            return width, height
    return None
