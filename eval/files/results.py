"""Raw result files of the field: reading any tracker's, writing ours.

| layout | files under the tracker's folder |
|---|---|
| `pysot`, `lasot` | `SEQ.txt`, comma separated |
| `pytracking` | `SEQ.txt`, tab separated, `SEQ_time.txt` |
| `got10k` | `SEQ.txt` and `times/SEQ_time.txt`; on GOT-10k `SEQ/SEQ_001.txt` and `SEQ/SEQ_time.txt` |
| `vot` | `baseline/SEQ/SEQ_001.txt` with 1, 2 and 0 for initialisation, failure and skipped frames |
| `npz` | `TRACKER_boxes`, `TRACKER_lengths`, `names`; `TRACKER_code` for supervised runs |

Reading finds the layout by itself and takes any separator.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from eval.files.arrays import load_npz, split
from eval.metrics.eao import FAILED, INITIALISED, REGION, SKIPPED, Run
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.text import read_many, read_numbers

LAYOUTS = ("pysot", "got10k", "pytracking", "lasot", "vot")
_REPETITION = re.compile(r"^(?P<name>.+)_(?P<number>\d{3})$")
_SPECIAL = (SKIPPED, INITIALISED, FAILED)


@dataclasses.dataclass(eq=False)
class TrackerResults:
    """What one tracker left behind on one benchmark.

    Attributes:
        name: the tracker's name.
        source: the folder or file it was read from.
        boxes: sequence -> (n, 4) boxes of one pass, (x, y, w, h), pixels.
        repetitions: sequence -> boxes of each repetition (GOT-10k).
        runs: sequence -> supervised runs (VOT).
        times: sequence -> seconds per frame of each repetition.
        notes: what was odd, one line each.
    """

    name: str
    source: str
    boxes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    repetitions: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    runs: dict[str, list[Run]] = dataclasses.field(default_factory=dict)
    times: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def read_results(path: str | Path) -> list[TrackerResults]:
    """Read raw results in any of the published layouts.

    Args:
        path: the folder of one tracker, a folder of such folders, or an npz file.

    Returns:
        One entry per tracker, sorted by name.

    Raises:
        JaxtrackError: nothing that looks like results, or a file that cannot be read; named with its line.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    if not path.is_dir():
        raise JaxtrackError(f"no results at {path}: give a tracker's folder or an npz file")
    found = _read_tracker(path, path.name)
    if found is not None:
        return [found]
    trackers = []
    for folder in _folders(path):
        inner = _read_tracker(folder, folder.name)
        if inner is not None:
            trackers.append(inner)
            continue
        for run in _folders(folder):  # pytracking: TRACKER/PARAMETERS_000/SEQ.txt
            inner = _read_tracker(run, f"{folder.name}/{run.name}")
            if inner is not None:
                trackers.append(inner)
    if not trackers:
        raise JaxtrackError(
            f"no result files under {path}: looked for SEQ.txt, SEQ/SEQ_001.txt and baseline/SEQ/SEQ_001.txt"
        )
    return trackers


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_tracker(folder: Path, name: str) -> TrackerResults | None:
    """Read one tracker's folder, or None where it does not look like one."""
    results = TrackerResults(name, str(folder))
    if (folder / "baseline").is_dir():
        for sequence in _folders(folder / "baseline"):
            results.runs[sequence.name] = _read_runs(sequence)
        return results if results.runs else None
    with os.scandir(folder) as entries:
        files = sorted(e.name for e in entries if e.name.endswith(".txt") and e.is_file())
    stems = [f[:-4] for f in files]
    if any(s != "log" for s in stems):
        _read_flat(folder, stems, results)
        return results
    for sequence in _folders(folder):
        numbered = _repetitions(sequence)
        if numbered:
            results.repetitions[sequence.name] = read_many(numbered, (4,))
            clock = sequence / f"{sequence.name}_time.txt"
            if clock.is_file():
                results.times[sequence.name] = list(read_numbers(clock).T)
    return results if results.repetitions else None


def _repetitions(folder: Path) -> list[Path]:
    """Files `SEQ_001.txt`, `SEQ_002.txt`, ... of one sequence, in order."""
    found = []
    for path in sorted(folder.glob("*.txt")):
        parts = _REPETITION.match(path.stem)
        if parts and parts["name"] == folder.name:
            found.append(path)
    return found


def _read_flat(folder: Path, stems: list[str], results: TrackerResults) -> None:
    """Read `SEQ.txt` files; `SEQ_time.txt` beside or under `times` are seconds per frame."""
    known = set(stems)
    clocks = {s for s in stems if s.endswith("_time") and s[:-5] in known}
    scores = {s for s in stems for end in ("_object_presence_scores", "_score") if s.endswith(end)}
    names = [s for s in stems if s not in clocks | scores]
    tables = read_many([f"{folder}{os.sep}{n}.txt" for n in names], (4, 8))
    for name, table in zip(names, tables):
        results.boxes[name] = polygons_to_boxes(table) if table.shape[1] == 8 else table
    if any(t.shape[1] == 8 for t in tables):
        results.notes.append("polygons are scored by the upright rectangle around them")
    places = [(folder, n) for n in sorted(clocks)]
    if (folder / "times").is_dir():
        places += [(folder / "times", f"{n}_time") for n in names]
    for place, clock in places:
        path = place / f"{clock}.txt"
        if path.is_file():
            results.times[clock[:-5]] = [read_numbers(path).ravel()]


def polygons_to_boxes(polygons: np.ndarray) -> np.ndarray:
    """Return the upright rectangles around polygons.

    Args:
        polygons: (n, 8) corner points, pixels.

    Returns:
        (n, 4), (x, y, w, h).
    """
    points = polygons.reshape(-1, 4, 2)
    low, high = points.min(axis=1), points.max(axis=1)
    return np.concatenate([low, high - low], axis=1)


def _read_runs(folder: Path) -> list[Run]:
    """Read the repetitions of one sequence: all if there are fifteen, else the first."""
    files = sorted(folder.glob("*0*.txt"))
    files = [f for f in files if not f.stem.endswith("_time")]
    if not files:
        raise JaxtrackError(f"no result file {folder / folder.name}_001.txt")
    return [read_run(f) for f in (files if len(files) == 15 else files[:1])]


def read_run(path: str | Path) -> Run:
    """Read a supervised run: one line per frame, one number for special frames, else four or eight.

    Args:
        path: the file.

    Returns:
        The run.

    Raises:
        JaxtrackError: a line with another number of entries or an unknown code; the line is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise JaxtrackError(f"cannot read {path}: {error}") from error
    lines = text.replace(",", " ").replace("\t", " ").replace(";", " ").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise JaxtrackError(f"{path} is empty: one line per frame is expected")
    regions = np.full((len(lines), 8), np.nan)
    codes = np.full(len(lines), REGION, np.int8)
    for i, line in enumerate(lines):
        try:
            values = [float(v) for v in line.split()]
        except ValueError:
            raise JaxtrackError(f"{path} line {i + 1}: {line.strip()!r} are not numbers") from None
        if len(values) == 1 and values[0] in _SPECIAL:
            codes[i] = int(values[0])
        elif len(values) in (4, 8):
            regions[i, : len(values)] = values
        else:
            raise JaxtrackError(
                f"{path} line {i + 1}: a box, a polygon or one of 0, 1, 2 is expected, not {line.strip()!r}"
            )
    return Run(regions, codes)


def _read_npz(path: Path) -> list[TrackerResults]:
    content = load_npz(path)
    if "names" not in content:
        raise JaxtrackError(f"{path}: no array 'names': not a file of results")
    names = [str(n) for n in content["names"]]
    if "boxes" in content:
        stem = re.sub(r"^.*_result_", "", path.stem)
        content = {
            "names": content["names"],
            f"{stem}_boxes": content["boxes"],
            f"{stem}_lengths": content["lengths"],
        }
    found = []
    for key in sorted(content):
        if not key.endswith("_boxes"):
            continue
        tracker = key.removesuffix("_boxes")
        if f"{tracker}_lengths" not in content:
            raise JaxtrackError(f"{path}: {key} without {tracker}_lengths")
        lengths = content[f"{tracker}_lengths"]
        parts = split(content[key], lengths)
        results = TrackerResults(tracker, str(path))
        if f"{tracker}_code" in content:
            codes = split(content[f"{tracker}_code"], lengths)
            results.runs = {n: [Run(b, c)] for n, b, c in zip(names, parts, codes)}
        else:
            results.boxes = dict(zip(names, parts))
        found.append(results)
    if not found:
        raise JaxtrackError(f"{path}: no arrays TRACKER_boxes: not a file of results")
    return found


def write_results(
    folder: str | Path,
    name: str,
    boxes: np.ndarray,
    times: Sequence[float] | np.ndarray | None = None,
    layout: str = "pysot",
    repetition: int | None = None,
) -> Path:
    """Write one sequence's boxes in a published layout; the file appears whole or not at all.

    Args:
        folder: the tracker's folder, made if needed.
        name: the sequence.
        boxes: (n, 4), (x, y, w, h), pixels, in the benchmark's coordinates.
        times: (n,) seconds per frame, or None.
        layout: "pysot", "lasot", "got10k" or "pytracking".
        repetition: 1, 2, ... writes GOT-10k's `SEQ/SEQ_001.txt`; None writes `SEQ.txt`.

    Returns:
        The file with the boxes.

    Raises:
        JaxtrackError: unknown layout, wrong shape, or the disk refuses.
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise JaxtrackError(f"{name}: boxes of shape {boxes.shape} where (frames, 4) is needed")
    if layout not in LAYOUTS or layout == "vot":
        raise JaxtrackError(f"unknown layout {layout!r}: known: pysot, lasot, got10k, pytracking")
    folder = Path(folder)
    separator = "\t" if layout == "pytracking" else ","
    if repetition is not None:
        target = folder / name / f"{name}_{repetition:03d}.txt"
        clock = folder / name / f"{name}_time.txt"
    else:
        target = folder / f"{name}.txt"
        inside = folder / "times" if layout == "got10k" else folder
        clock = inside / f"{name}_time.txt"
    write_whole(target, _lines(boxes, separator).encode())
    if times is not None:
        rows = np.asarray(times, np.float64).reshape(-1, 1)
        if repetition is not None and repetition > 1 and clock.is_file():
            rows = np.concatenate([read_numbers(clock)[:, : repetition - 1], rows], axis=1)
        write_whole(clock, _lines(rows, ",", "%.8f").encode())
    return target


def write_run(folder: str | Path, name: str, run: Run, repetition: int = 1) -> Path:
    """Write a supervised run as `baseline/SEQ/SEQ_001.txt`.

    Args:
        folder: the tracker's folder.
        name: the sequence.
        run: the run.
        repetition: its number.

    Returns:
        The file.

    Raises:
        JaxtrackError: the disk refuses.
    """
    lines = []
    for region, code in zip(run.regions, run.codes):
        known = region[~np.isnan(region)]
        lines.append(str(int(code)) if code != REGION else ",".join(f"{v:.4f}" for v in known))
    target = Path(folder) / "baseline" / name / f"{name}_{repetition:03d}.txt"
    write_whole(target, ("\n".join(lines) + "\n").encode())
    return target


def _lines(table: np.ndarray, separator: str, form: str = "%.4f") -> str:
    row = separator.join([form] * table.shape[1])
    return "\n".join(row % tuple(r) for r in table.tolist()) + "\n"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


# The video Human4 has one annotated target, its second: toolkits name it either way.
_SAME = {"human42": "human4", "human4": "human42"}


def common_names(given: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Match names that toolkits spell differently (`Jogging-1`, `Jogging.1`, `jogging_1`).

    Args:
        given: names of the results.
        wanted: names of the ground truth.

    Returns:
        Name of the result -> name of the ground truth, where exactly one fits.
    """
    given, wanted = list(given), list(wanted)
    exact = set(given) & set(wanted)
    targets: dict[str, list[str]] = {}
    for name in wanted:
        if name not in exact:
            targets.setdefault(_plain(name), []).append(name)
    found = {name: name for name in exact}
    for name in given:
        options = targets.get(_plain(name)) or targets.get(_SAME.get(_plain(name), ""), [])
        if name not in exact and len(options) == 1 and options[0] not in found.values():
            found[name] = options[0]
    return found
