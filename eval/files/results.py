"""Raw result files of the field: reading any tracker's, writing ours.

| layout | files under the tracker's folder |
|---|---|
| ours | `SEQ.txt`, comma separated, `times/SEQ_time.txt`, `scores/SEQ_score.txt` |
| pysot, LaSOT | `SEQ.txt`, comma separated |
| pytracking | `SEQ.txt`, tab separated, `SEQ_time.txt` |
| GOT-10k | `SEQ.txt` and `times/SEQ_time.txt`, or `SEQ/SEQ_001.txt` and `SEQ/SEQ_time.txt` |
| VOT | `baseline/SEQ/SEQ_001.txt` with 1, 2 and 0 for initialisation, failure and skipped frames |
| VOT, long-term | `longterm/SEQ/SEQ_001.txt` and `SEQ_001_confidence.value` |
| npz | `TRACKER_boxes`, `TRACKER_lengths`, `names`; `TRACKER_code` for supervised runs |

Reading finds the layout by itself and takes any separator.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtrack.errors import JaxtrackError, UsageError, brief
from jaxtrack.io import clips
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.paths import resolve
from jaxtrack.io.text import parse_numbers, read_many, read_numbers, read_text

from ..metrics.eao import FAILED, INITIALISED, REGION, SKIPPED, Run
from ..metrics.names import listing
from .arrays import checked_names, checked_rows, load_npz, split

_DEPTH = 3  # folders below the one that is given: TRACKER/PARAMETERS/BENCHMARK
_REPETITION = re.compile(r"^(?P<name>.+)_(?P<number>\d{3})$")
_BETWEEN = re.compile(r"\s*[,;]\s*|\s+")
_SPECIAL = (SKIPPED, INITIALISED, FAILED)
# Texts beside the results that are none, and folders of what belongs to them.
_NOTES = ("log", "readme", "license")
_OWN = ("times", "scores")
_SIDES = ("_time", "_score", "_object_presence_scores")


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
        confidences: sequence -> (n,) score per frame, NaN where there is none.
        notes: what was odd, one line each.
    """

    name: str
    source: str
    boxes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    repetitions: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    runs: dict[str, list[Run]] = dataclasses.field(default_factory=dict)
    times: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    confidences: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


Problems = Callable[[JaxtrackError], None]


def read_results(path: str | Path, on_problem: Problems | None = None) -> list[TrackerResults]:
    """Read raw results in any of the published layouts.

    Args:
        path: the folder of one tracker, a folder of such folders, or an npz file.
        on_problem: called with what is wrong with a tracker among several, which is then left out; None: it
            is raised.

    Returns:
        One entry per tracker, sorted by name.

    Raises:
        JaxtrackError: nothing that looks like results, or a file that cannot be read; named with its line.
    """
    path = resolve(path)
    if path.suffix == ".npz" and not path.is_dir():
        return _read_npz(path)
    if not path.is_dir():
        raise JaxtrackError(f"no results at {path}: give a tracker's folder or an npz file")
    problems: list[JaxtrackError] = []
    trackers = _read_below(path, path.name, _DEPTH, problems)
    if problems and (on_problem is None or not trackers):
        raise problems[0]
    for problem in problems:
        assert on_problem is not None
        on_problem(problem)
    if not trackers:
        raise JaxtrackError(
            f"no result files under {path}: looked for SEQ.txt, SEQ/SEQ_001.txt, "
            "baseline/SEQ/SEQ_001.txt and longterm/SEQ/SEQ_001.txt"
        )
    return trackers


def read_named(text: str, on_problem: Problems | None = None) -> list[TrackerResults]:
    """Read what ``FOLDER`` or ``NAME=FOLDER`` on a command line means.

    Args:
        text: a folder or npz file as `read_results` takes it, with a name for its tracker in front or not.
        on_problem: as for `read_results`.

    Returns:
        One entry per tracker.

    Raises:
        JaxtrackError: as `read_results`; a name is given and there are several trackers.
    """
    name, equals, folder = text.partition("=")
    if not equals or resolve(text).exists():
        return read_results(text, on_problem)
    if not name or not folder:
        raise UsageError(
            f"{brief(text)}: {'no name before' if folder else 'no folder behind'} the sign =; give FOLDER "
            "or NAME=FOLDER"
        )
    found = read_results(folder, on_problem)
    if len(found) != 1:
        trackers = listing(t.name for t in found)
        raise UsageError(
            f"{brief(text)}: NAME=FOLDER wants the folder of one tracker, here are {len(found)}: {trackers}"
        )
    return [dataclasses.replace(found[0], name=name)]


def _read_below(
    folder: Path, name: str, depth: int, problems: list[JaxtrackError]
) -> list[TrackerResults]:
    """Read a tracker's folder, or else the trackers in the folders below it; collect what is wrong."""
    try:
        found = _read_tracker(folder, name)
    except JaxtrackError as error:
        problems.append(error)
        return []
    if found is not None:
        return [found]
    if not depth:
        return []
    trackers = []
    for inner in _folders(folder):
        label = inner.name if depth == _DEPTH else f"{name}/{inner.name}"
        trackers += _read_below(inner, label, depth - 1, problems)
    return trackers


def _folders(path: Path) -> list[Path]:
    return sorted(clips.list_folders(path))


def _files(path: Path, suffix: str) -> list[Path]:
    return sorted(clips.list_files(path, (suffix,)))


def _is_note(path: Path) -> bool:
    """Return whether a text is about results, and not those of a video that is called ``log``."""
    if path.stem.lower() not in _NOTES:
        return False
    try:
        return read_numbers(path).shape[1] not in (4, 8)
    except JaxtrackError:
        return True


def _texts(folder: Path) -> dict[str, Path]:
    """Return the result files of a folder by their names without the suffix."""
    found: dict[str, Path] = {}
    for path in _files(folder, ".txt"):
        if _is_note(path):
            continue
        if path.stem in found:
            raise JaxtrackError(
                f"{found[path.stem]} and {path} are of one name: delete one of them"
            )
        found[path.stem] = path
    return found


def _read_tracker(folder: Path, name: str) -> TrackerResults | None:
    """Read one tracker's folder, or None where it does not look like one."""
    results = TrackerResults(name, str(folder))
    if (folder / "baseline").is_dir():
        for sequence in _folders(folder / "baseline"):
            results.runs[sequence.name] = _read_runs(sequence)
        return results if results.runs else None
    if (folder / "longterm").is_dir():
        for sequence in _folders(folder / "longterm"):
            _read_longterm(sequence, results)
        return results if results.runs else None
    texts = _texts(folder)
    if texts:
        _read_flat(folder, texts, results)
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
    """Return files `SEQ_001.txt`, `SEQ_002.txt`, ... of one sequence, in order."""
    found = []
    for path in _files(folder, ".txt"):
        parts = _REPETITION.match(path.stem)
        if parts and parts["name"] == folder.name:
            found.append(path)
    return found


def _read_flat(folder: Path, texts: Mapping[str, Path], results: TrackerResults) -> None:
    """Read `SEQ.txt` files, and seconds and scores per frame beside them or in folders of their own."""
    sides = {s for s in texts for end in _SIDES if s.endswith(end) and s[: -len(end)] in texts}
    # "B_time" beside "B" holds B's times, or is the result of a sequence of that name: the columns tell.
    sides = {s for s in sides if read_numbers(texts[s]).shape[1] not in (4, 8)}
    names = [s for s in texts if s not in sides]
    tables = read_many([texts[n] for n in names], (4, 8))
    for name, table in zip(names, tables):
        results.boxes[name] = polygon_bounds(table) if table.shape[1] == 8 else table
    if any(t.shape[1] == 8 for t in tables):
        results.notes.append("polygons are scored by the upright rectangle around them")
    for name in names:
        for end, place in (("_time", "times"), ("_score", "scores")):
            inside = folder / place / f"{name}{end}.txt"
            beside = f"{name}{end}"
            path = texts[beside] if beside in sides else inside
            if not path.is_file():
                continue
            values = read_numbers(path).ravel()
            if end == "_time":
                results.times[name] = [values]
            else:
                results.confidences[name] = values
    others = [p.name for p in _folders(folder) if p.name not in _OWN and _holds_results(p)]
    if others:
        results.notes.append(
            f"{folder} holds results of its own, so that those in its folders are not read: "
            f"{listing(others)}"
        )


def _holds_results(folder: Path) -> bool:
    """Return whether a folder holds files `SEQ.txt`, or those of a repetition in one for each sequence."""
    return bool(_texts(folder)) or any(_repetitions(p) for p in _folders(folder))


def polygon_bounds(polygons: np.ndarray) -> np.ndarray:
    """Return the upright rectangles around polygons.

    Readers of data sets start trackers from boxes of the polygons' area instead:
    `jaxtrack.data.readers.geometry.polygons_to_boxes`.

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
    files = [f for f in _files(folder, ".txt") if _REPETITION.match(f.stem)]
    if not files:
        binary = _files(folder, ".bin")
        if binary:
            raise JaxtrackError(
                f"{binary[0]}: results in the VOT toolkit's binary form (.bin) are not read; "
                "let it write text"
            )
        raise JaxtrackError(f"no result file {folder / folder.name}_001.txt")
    return [read_run(f) for f in (files if len(files) == 15 else files[:1])]


def _read_longterm(folder: Path, results: TrackerResults) -> None:
    """Read the regions and confidences of one sequence of a long-term challenge."""
    path = folder / f"{folder.name}_001.txt"
    results.runs[folder.name] = [read_run(path)]
    # The first line, of the frame that starts the tracker, is blank.
    beside = folder / f"{folder.name}_001_confidence.value"
    lines = [line.strip() or "nan" for line in read_text(beside).splitlines()]
    results.confidences[folder.name] = _rows(beside, lines, range(len(lines))).ravel()


def read_run(path: str | Path) -> Run:
    """Read a supervised run: one line per frame, one number for special frames, else four or eight.

    Args:
        path: the file.

    Returns:
        The run.

    Raises:
        JaxtrackError: a line with another number of entries or an unknown code; the line is named.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise JaxtrackError(f"{path} is empty: one line per frame is expected")
    regions = np.full((len(lines), 8), np.nan)
    codes = np.full(len(lines), REGION, np.int8)
    by_width: dict[int, list[int]] = {}
    for i, line in enumerate(lines):
        by_width.setdefault(len(_BETWEEN.split(line)), []).append(i)
    for width, members in by_width.items():
        where = np.array(members)
        table = _rows(path, lines, members)
        if width in (4, 8):
            regions[where, :width] = table
        elif width == 1 and np.isin(table, _SPECIAL).all():
            codes[where] = table[:, 0]
        else:
            bad = 0 if width > 1 else int(np.argmin(np.isin(table[:, 0], _SPECIAL)))
            raise JaxtrackError(
                f"{path} line {members[bad] + 1}: a box, a polygon or one of 0, 1, 2 is expected, not "
                f"{brief(lines[members[bad]], 60)!r}"
            )
    return Run(regions, codes)


def _rows(path: str | Path, lines: Sequence[str], members: Sequence[int]) -> np.ndarray:
    """Read some lines of a file as one table; an error names the line of the file."""
    try:
        return parse_numbers("\n".join(lines[i] for i in members).encode(), str(path))
    except JaxtrackError:
        for i in members:
            parse_numbers(lines[i].encode(), f"{path} (line {i + 1})")
        raise


def _read_npz(path: Path) -> list[TrackerResults]:
    content = load_npz(path)
    names = checked_names(content, path)
    if "boxes" in content:
        stem = re.sub(r"^.*_result_", "", path.stem)
        own = ("boxes", "lengths", "code")
        content = {f"{stem}_{k}" if k in own else k: v for k, v in content.items()}
    found = []
    for key in sorted(content):
        if not key.endswith("_boxes"):
            continue
        tracker = key.removesuffix("_boxes")
        rows, lengths = checked_rows(content, key, f"{tracker}_lengths", len(names), path)
        parts = split(rows, lengths)
        results = TrackerResults(tracker, str(path))
        if f"{tracker}_code" in content:
            codes = np.asarray(content[f"{tracker}_code"])
            if codes.shape != (len(rows),) or codes.dtype.kind not in "iub":
                raise JaxtrackError(f"{path}: {tracker}_code is not one whole number per row")
            runs = zip(names, parts, split(codes, lengths))
            results.runs = {n: [Run(b, c)] for n, b, c in runs}
        else:
            results.boxes = dict(zip(names, parts))
        found.append(results)
    if not found:
        raise JaxtrackError(f"{path}: no arrays TRACKER_boxes: not a file of results")
    return found


class Tracked(NamedTuple):
    """One sequence of one tracker, as its files hold it.

    Attributes:
        boxes: float64 (n, 4), (x, y, w, h), pixels, in the benchmark's coordinates.
        scores: float64 (n,), NaN on the first frame.
        times: float64 (n,) seconds per frame.
    """

    boxes: np.ndarray
    scores: np.ndarray
    times: np.ndarray


def tracked_files(folder: Path, name: str) -> dict[str, Path]:
    """Return the files of one sequence: "boxes", "scores", "times".

    Args:
        folder: the tracker's folder.
        name: the sequence.

    Returns:
        Role -> path. Scores and times lie in folders of their own, so that sequences called ``B`` and
        ``B_time`` do not meet.

    Raises:
        JaxtrackError: the sequence's name cannot be that of a file.
    """
    if not name or name.startswith(".") or any(sign in name for sign in "/\\\0"):
        raise JaxtrackError(
            f"a sequence called {brief(repr(name))}: it cannot be the name of a file"
        )
    return {
        "boxes": folder / f"{name}.txt",
        "scores": folder / "scores" / f"{name}_score.txt",
        "times": folder / "times" / f"{name}_time.txt",
    }


def write_tracked(folder: str | Path, name: str, tracked: Tracked) -> None:
    """Write one sequence of one tracker, each file whole or not at all.

    Args:
        folder: the tracker's folder, made if needed.
        name: the sequence.
        tracked: its boxes, scores and times.

    Raises:
        JaxtrackError: wrong shapes, a name that cannot be that of a file, or the disk refuses.
    """
    boxes = np.asarray(tracked.boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise JaxtrackError(f"{name}: boxes of shape {boxes.shape} where (frames, 4) is needed")
    files = tracked_files(Path(folder), name)
    write_whole(files["times"], _lines(np.reshape(tracked.times, (-1, 1)), "%.8f").encode())
    write_whole(files["scores"], _lines(np.reshape(tracked.scores, (-1, 1)), "%.6f").encode())
    write_whole(files["boxes"], _lines(boxes, "%.4f").encode())


def read_tracked(folder: str | Path, name: str) -> Tracked:
    """Read what `write_tracked` wrote.

    Args:
        folder: the tracker's folder.
        name: the sequence.

    Returns:
        The sequence.

    Raises:
        JaxtrackError: a file is missing, damaged, or of another length.
    """
    files = tracked_files(Path(folder), name)
    boxes = read_numbers(files["boxes"], (4,))
    scores, times = (read_numbers(files[role], (1,)).ravel() for role in ("scores", "times"))
    if not len(boxes) == len(scores) == len(times):
        raise JaxtrackError(
            f"{files['boxes']}: {len(boxes)} boxes, {len(scores)} scores and {len(times)} times: "
            "one of each per frame is needed"
        )
    return Tracked(boxes, scores, times)


def run_file(folder: str | Path, name: str, repetition: int = 1) -> Path:
    """Return where a supervised run lies: `baseline/SEQ/SEQ_001.txt`."""
    return Path(folder) / "baseline" / name / f"{name}_{repetition:03d}.txt"


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
    target = run_file(folder, name, repetition)
    write_whole(target, ("\n".join(lines) + "\n").encode())
    return target


def _lines(table: np.ndarray, form: str) -> str:
    row = ",".join([form] * table.shape[1])
    return "\n".join(row % tuple(r) for r in table.tolist()) + "\n"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


# The video Human4 has one annotated target, its second: toolkits name it either way.
_SAME = {"human42": "human4", "human4": "human42"}
# pytracking and its descendants put the data set before the name: uav_bike1, nfs_bee, tpl_Ball_ce1.
_PREFIX = re.compile(r"^(?:uav|uav123|uav20l|nfs|tpl|tc128|otb|lasot|vot)_(?=.)", re.IGNORECASE)


def common_names(given: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Match names that toolkits spell differently (`Jogging-1`, `Jogging.1`, `jogging_1`, `uav_bike1`).

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
        if name in exact:
            continue
        for spelling in (name, _PREFIX.sub("", name)):
            plain = _plain(spelling)
            options = targets.get(plain) or targets.get(_SAME.get(plain, ""), [])
            options = [o for o in ({spelling} & set(wanted)) or options if o not in found.values()]
            if len(options) == 1:
                found[name] = options[0]
                break
    return found
