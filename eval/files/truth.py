"""Reading what benchmarks publish as ground truth, without their images.

Understood are: an `.npz` file (names, lengths, boxes or polygons), a data set's `.json` as pysot
keeps it, a folder of `SEQ.txt` files, and the benchmarks' own folders (`SEQ/groundtruth*.txt` and
the like, any separator).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.files.arrays import annotations_from_arrays, load_npz, regions_from_arrays
from eval.files.results import polygons_to_boxes
from eval.metrics.annotation import Annotation
from eval.metrics.protocols import Benchmark
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.records import read_json
from jaxtrack.io.text import read_numbers

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
_TAGS = ("camera_motion", "illum_change", "motion_change", "size_change", "occlusion")


def read_ground_truth(path: str | Path, benchmark: Benchmark) -> dict[str, Annotation]:
    """Read the annotation of a benchmark.

    Args:
        path: an npz or json file, or a folder.
        benchmark: decides how a folder is read.

    Returns:
        sequence -> annotation, in the benchmark's own coordinates.

    Raises:
        JaxtrackError: nothing of the kind is there, or a file cannot be read; named with its line.
    """
    path = Path(path)
    if path.suffix == ".npz":
        content = load_npz(path)
        if "names" not in content or "lengths" not in content:
            raise JaxtrackError(f"{path}: no arrays 'names' and 'lengths': not a ground truth")
        if "polygons" in content:
            return regions_from_arrays(content)
        if "boxes" not in content:
            raise JaxtrackError(f"{path}: neither 'boxes' nor 'polygons': not a ground truth")
        listed = read_json(side, "list of attributes") if (side := _expected_beside(path)) else {}
        attributes = listed.get("attributes") if isinstance(listed, dict) else None
        return annotations_from_arrays(content, attributes)[0]
    if path.suffix == ".json":
        return _from_json(read_json(path, "data set file"), path)
    if not path.is_dir():
        raise JaxtrackError(f"no ground truth at {path}: give an npz or json file, or a folder")
    found = _from_folder(path, benchmark)
    if not found:
        raise JaxtrackError(
            f"no annotation under {path}: looked for SEQ.txt, SEQ/groundtruth*.txt, SEQ/SEQ_gt.txt, "
            "SEQ/30/SEQ.txt and CLASS/SEQ/groundtruth.txt"
        )
    return found


def _expected_beside(path: Path) -> Path | None:
    """The file that lists the attributes of `X_gt.npz`: `X_expected.json` in the same folder."""
    side = path.with_name(re.sub(r"(?:_test)?_gt$", "_expected", path.stem) + ".json")
    return side if side.is_file() else None


def _from_json(content: Any, path: Path) -> dict[str, Annotation]:
    """Read a data set as pysot keeps it: sequence -> gt_rect, attr, absent, tags."""
    if not isinstance(content, Mapping) or not all(
        isinstance(v, Mapping) and "gt_rect" in v for v in content.values()
    ):
        raise JaxtrackError(f"{path}: not a data set file: every sequence needs a 'gt_rect'")
    found = {}
    for name, entry in content.items():
        try:
            regions = [[np.nan] * 4 if r is None or len(r) == 1 else r for r in entry["gt_rect"]]
            widths = {len(r) for r in regions}
            table = np.full((len(regions), 8), np.nan)
            for i, region in enumerate(regions):
                table[i, : len(region)] = region
        except (TypeError, ValueError) as error:
            raise JaxtrackError(f"{path}: gt_rect of {name} is not a list of boxes") from error
        polygons = table if 8 in widths else None
        boxes = table[:, :4] if polygons is None else _upright(table)
        tags = {t: np.array(entry[t], bool) for t in _TAGS if len(entry.get(t) or ()) == len(table)}
        present = entry.get("absent")  # the file's flag says 1 where the target is present
        found[str(name)] = Annotation(
            boxes=boxes,
            absent=None if present is None else np.asarray(present) == 0,
            attributes=tuple(entry.get("attr") or ()),
            polygons=polygons,
            tags=tags,
            size=(entry["width"], entry["height"]) if {"width", "height"} <= set(entry) else None,
        )
    return found


def _upright(table: np.ndarray) -> np.ndarray:
    """Upright boxes of a table that mixes polygons and rectangles."""
    boxes = table[:, :4].copy()
    polygon = ~np.isnan(table[:, 4])
    boxes[polygon] = polygons_to_boxes(table[polygon])
    return boxes


def _from_folder(path: Path, benchmark: Benchmark) -> dict[str, Annotation]:
    for inner in ("anno/UAV123", "anno", "annos"):  # where toolkits keep the text files
        if (path / inner).is_dir() and any((path / inner).glob("*.txt")):
            path = path / inner
            break
    flat = sorted(p for p in path.glob("*.txt") if p.stem not in ("list", "attributes", "log"))
    if flat:
        return {p.stem: _from_text(p, benchmark) for p in flat}
    found: dict[str, Annotation] = {}
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    for folder in folders:
        found.update(_from_sequence(folder, benchmark))
    if not found:  # LaSOT: CLASS/SEQ/groundtruth.txt
        for folder in folders:
            for sequence in sorted(p for p in folder.iterdir() if p.is_dir()):
                found.update(_from_sequence(sequence, benchmark))
    return found


def _from_text(path: Path, benchmark: Benchmark) -> Annotation:
    """One `SEQ.txt`, with the LaSOT toolkit's `absent/SEQ.txt` and `att/SEQ.txt` if they are there."""
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
        return Annotation(polygons_to_boxes(table), polygons=table, **more)
    return Annotation(table, **more)


def _from_sequence(folder: Path, benchmark: Benchmark) -> dict[str, Annotation]:
    """Annotations of one sequence's folder: one, or two where it has two targets (OTB)."""
    if benchmark.name == "nfs":
        path = folder / "30" / f"{folder.name}.txt"
        return {folder.name: Annotation(_nfs_boxes(path))} if path.is_file() else {}
    if benchmark.name == "tc128":
        path = folder / f"{folder.name}_gt.txt"
        return {folder.name: Annotation(read_numbers(path, (4,)))} if path.is_file() else {}
    files = [p for p in sorted(folder.glob("groundtruth*.txt")) if p.read_bytes().strip()]
    found = {}
    for path in files:
        target = path.stem.removeprefix("groundtruth_rect").removeprefix("groundtruth").strip("._")
        name = f"{folder.name}-{target}" if target else folder.name
        table = read_numbers(path, (4, 8))
        if benchmark.name == "otb":
            table = _otb_range(folder.name, table)
        found[name] = _annotation(table, **_side_files(folder, len(table), benchmark))
    return found


def _otb_range(video: str, table: np.ndarray) -> np.ndarray:
    """The evaluated frames of a video whose annotation covers all images (Tiger1)."""
    from jaxtrack.data.splits import OTB_RANGES

    first, last = OTB_RANGES.get(video, (1, len(table)))
    return table[first - 1 : last] if len(table) == last else table


def _nfs_boxes(path: Path) -> np.ndarray:
    """Every eighth row of the 240 fps annotation; columns 1 to 4 are left, top, right, bottom."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        corners = np.array([line.split()[1:5] for line in lines if line.strip()], np.float64)
    except (OSError, ValueError) as error:
        raise JaxtrackError(f"{path}: not an annotation of NfS ({error})") from error
    corners = corners[::8]
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _side_files(folder: Path, frames: int, benchmark: Benchmark) -> dict[str, Any]:
    """What lies beside the boxes: flags of absence, cover, image size, tags."""
    more: dict[str, Any] = {"size": _image_size(folder)}
    absent = [folder / f for f in ("full_occlusion.txt", "out_of_view.txt")]
    if benchmark.name == "lasot" and all(p.is_file() for p in absent):
        flags = [read_numbers(p).ravel() > 0 for p in absent]
        if any(len(f) != frames for f in flags):
            raise JaxtrackError(f"{folder}: {len(flags[0])} flags of absence for {frames} frames")
        more["absent"] = flags[0] | flags[1]
    cover = folder / "cover.label"
    if cover.is_file():
        more["cover"] = read_numbers(cover).ravel().astype(int)
    if benchmark.kind == "vot":
        tags: dict[str, np.ndarray] = {}
        for path in sorted([*folder.glob("*.tag"), *folder.glob("*.label")]):
            marks = read_numbers(path).ravel()[:frames] > 0
            tags[path.stem] = np.zeros(frames, bool)  # files may end at the last tagged frame
            tags[path.stem][: len(marks)] = marks
        more["tags"] = tags
    return more


def _image_size(folder: Path) -> tuple[int, int] | None:
    """Width and height from `sequence`, `meta_info.ini` or the first image; None without any."""
    note = folder / "sequence"
    if note.is_file():
        entries = dict(line.split("=", 1) for line in note.read_text().splitlines() if "=" in line)
        if {"width", "height"} <= set(entries):
            return int(entries["width"]), int(entries["height"])
    note = folder / "meta_info.ini"
    if note.is_file():
        parts = re.search(r"^resolution\s*[:=]\s*\(?\s*(\d+)\D+(\d+)", note.read_text(), re.M)
        if parts:
            return int(parts[1]), int(parts[2])
    for pattern in ("color/*.jpg", "img/*.jpg", "*.jpg", "*.png"):
        for image in sorted(folder.glob(pattern))[:1]:
            import cv2

            pixels = cv2.imread(str(image))
            if pixels is None:
                raise JaxtrackError(f"{image} cannot be decoded: fetch it again")
            return pixels.shape[1], pixels.shape[0]
    return None
