"""Write and check the zip files that evaluation servers take (GOT-10k, TrackingNet).

python -m eval.submit RESULTS --benchmark got10k --output got10k.zip
python -m eval.submit --check got10k.zip --benchmark got10k
"""

from __future__ import annotations

import dataclasses
import lzma
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from jaxtrack import cli
from jaxtrack.data import layouts
from jaxtrack.errors import JaxtrackError, UsageError, brief, naming, nearest, reason
from jaxtrack.io.atomic import Pending
from jaxtrack.io.paths import output_file
from jaxtrack.io.text import parse_numbers

from .files.results import TrackerResults, read_results
from .files.truth import read_ground_truth
from .metrics.names import listing
from .metrics.protocols import get_benchmark

# A result file holds a few thousand lines; what a zip file claims beyond these is no submission.
_MEMBER_AT_MOST, _TOTAL_AT_MOST, _MEMBERS_AT_MOST = 16 << 20, 256 << 20, 10_000


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a server expects in its zip file.

    Attributes:
        benchmark: the benchmark.
        sequences: number of sequences of the test set.
        name: pattern of a sequence's name.
        example: a name, for messages.
        times: whether every sequence has a file of seconds per frame.
    """

    benchmark: str
    sequences: int
    name: str
    example: str
    times: bool


LAYOUTS = {
    "got10k": Layout("got10k", 180, r"GOT-10k_Test_\d{6}", "GOT-10k_Test_000001", True),
    "trackingnet": Layout("trackingnet", 511, r"[\w-]{11}_\d+", "0-6LB4FqxoE_0", False),
}


def _layout(benchmark: str) -> Layout:
    """Return what the server of a benchmark expects, however the benchmark is spelled."""
    try:
        return LAYOUTS[layouts.canonical(benchmark)]
    except (JaxtrackError, KeyError):
        raise UsageError(
            f"no server takes a zip file of {brief(benchmark)!r}; {nearest(benchmark, LAYOUTS)}"
        ) from None


def write_zip(
    path: str | Path,
    results: TrackerResults,
    benchmark: str,
    lengths: Mapping[str, int] | None = None,
    first_boxes: Mapping[str, np.ndarray] | None = None,
    partial: bool = False,
) -> list[str]:
    """Write a submission and check it; the file appears only when it is right.

    Args:
        path: the zip file.
        results: boxes (or repetitions) and times of one tracker.
        benchmark: "got10k" or "trackingnet".
        lengths: frames per sequence, to check the rows against.
        first_boxes: sequence -> (4,) given box, to check the first rows against.
        partial: allow fewer sequences than the test set has (to try things out).

    Returns:
        Remarks, one line each.

    Raises:
        JaxtrackError: what is wrong with the results, before anything is uploaded.
    """
    layout, path = _layout(benchmark), Path(path)
    runs = results.repetitions or {n: [b] for n, b in results.boxes.items()}
    if not runs:
        raise JaxtrackError(
            f"{results.source}: no boxes of one pass, which {layout.benchmark} needs"
        )
    members = [
        member
        for name in sorted(runs)
        for member in _members(layout, name, runs[name], results.times.get(name))
    ]
    file = Pending(path)
    try:
        with (
            naming(path, "cannot be written"),
            zipfile.ZipFile(file.temporary, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for member, text in members:
                archive.writestr(zipfile.ZipInfo(member), text, zipfile.ZIP_DEFLATED)
        written = _read_members(file.temporary, path)
        remarks = _checked(path, written, layout, lengths, first_boxes, partial)
        file.keep()
    finally:
        file.drop()
    return remarks


def _members(
    layout: Layout, name: str, runs: list[np.ndarray], times: list[np.ndarray] | None
) -> list[tuple[str, str]]:
    """Return names and texts of one sequence's files."""
    if not layout.times:
        return [(f"{name}.txt", _text(runs[0], "%.4f"))]
    if times is None:
        raise JaxtrackError(
            f"{name}: no seconds per frame; {layout.benchmark}'s server wants {name}_time.txt"
        )
    if len({len(t) for t in times}) > 1:
        raise JaxtrackError(f"{name}: repetitions of different length")
    table = np.stack([np.ravel(t) for t in times], axis=1)
    numbered = [(f"{name}/{name}_{i:03d}.txt", _text(b, "%.4f")) for i, b in enumerate(runs, 1)]
    return [*numbered, (f"{name}/{name}_time.txt", _text(table, "%.8f"))]


def _text(table: np.ndarray, form: str) -> str:
    row = ",".join([form] * table.shape[1])
    return "\n".join(row % tuple(r) for r in np.asarray(table, np.float64).tolist()) + "\n"


def check_zip(
    path: str | Path,
    benchmark: str,
    lengths: Mapping[str, int] | None = None,
    first_boxes: Mapping[str, np.ndarray] | None = None,
    partial: bool = False,
) -> list[str]:
    """Check a submission, whoever wrote it.

    Args:
        path: the zip file.
        benchmark: "got10k" or "trackingnet".
        lengths: frames per sequence, to check the rows against.
        first_boxes: sequence -> (4,) given box, to check the first rows against.
        partial: allow fewer sequences than the test set has.

    Returns:
        Remarks, one line each.

    Raises:
        JaxtrackError: the first thing that the server would stumble over.
    """
    members = _read_members(Path(path), path)
    return _checked(path, members, _layout(benchmark), lengths, first_boxes, partial)


def _checked(
    path: str | Path,
    members: Mapping[str, bytes],
    layout: Layout,
    lengths: Mapping[str, int] | None,
    first_boxes: Mapping[str, np.ndarray] | None,
    partial: bool,
) -> list[str]:
    """Check the members of a submission that is called, or will be called, ``path``."""
    boxes, times = _sort_members(path, layout, members)
    _check_names(path, layout, set(boxes), lengths, partial)
    for name, files in boxes.items():
        frames = lengths.get(name) if lengths else None
        for member, table in files.items():
            _check_boxes(f"{path} {member}", table, frames, (first_boxes or {}).get(name))
        if layout.times:
            rows = len(next(iter(files.values())))
            _check_times(f"{path} {name}_time.txt", times.get(name), rows, len(files))
    remarks = [f"{len(boxes)} sequences, {sum(len(f) for f in boxes.values())} result files"]
    if lengths is None:
        remarks.append(
            "the numbers of frames were not checked: --ground-truth, the folder with the images, gives them"
        )
    return remarks


def _read_members(path: Path, shown: str | Path) -> dict[str, bytes]:
    """Read a zip file's members; nothing is unpacked that no submission needs.

    Args:
        path: the file.
        shown: what it is called in messages.

    Raises:
        JaxtrackError: no zip file, damaged, encrypted, a name that stands twice, or far too much in it.
    """
    if not path.is_file():
        raise JaxtrackError(f"{shown}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir()]
            _check_entries(shown, entries)
            return {e.filename: archive.read(e) for e in entries}
    except (
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise JaxtrackError(f"{shown} is not a readable zip file ({reason(error)})") from error


def _check_entries(path: str | Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse what costs memory or cannot be read, by what the directory of the zip file says."""
    if len(entries) > _MEMBERS_AT_MOST:
        raise JaxtrackError(f"{path}: {len(entries)} files, far more than a submission has")
    total = 0
    seen: set[str] = set()
    for entry in entries:
        name = brief(entry.filename, 80)
        total += entry.file_size
        if entry.file_size > _MEMBER_AT_MOST or total > _TOTAL_AT_MOST:
            raise JaxtrackError(
                f"{path}: {name} unpacks to {entry.file_size:,} bytes ({total:,} with those before it), far "
                "more than a result file"
            )
        if entry.flag_bits & 1:
            raise JaxtrackError(f"{path}: {name} is encrypted, which no server opens")
        if entry.filename in seen:
            raise JaxtrackError(f"{path}: {name} stands there twice")
        seen.add(entry.filename)


def _sort_members(
    path: str | Path, layout: Layout, members: Mapping[str, bytes]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Return sequence -> tables of its files, and sequence -> times; anything else is an error."""
    name = layout.name
    if layout.times:
        pattern = re.compile(rf"^(?P<folder>{name})/(?P<stem>{name})_(?P<kind>\d{{3}}|time)\.txt$")
        wanted = f"{layout.example}/{layout.example}_001.txt"
    else:
        pattern = re.compile(rf"^(?P<stem>{name})(?P<kind>)\.txt$")
        wanted = f"{layout.example}.txt"
    boxes: dict[str, dict[str, np.ndarray]] = {}
    times: dict[str, np.ndarray] = {}
    for member in sorted(members):
        parts = pattern.match(member)
        if parts is None or (layout.times and parts["folder"] != parts["stem"]):
            raise JaxtrackError(
                f"{path}: {brief(member, 80)!r} is not named as the server expects, e.g. {wanted!r}, without "
                "a folder above"
            )
        data = members[member]
        if b"," not in data and (parts["kind"] != "time" or b" " in data.strip()):
            raise JaxtrackError(
                f"{path} {member}: values are not separated by commas, which the server wants"
            )
        table = parse_numbers(data, f"{path} {member}")
        if parts["kind"] == "time":
            times[parts["stem"]] = table
        else:
            boxes.setdefault(parts["stem"], {})[member] = table
    return boxes, times


def _check_names(
    path: str | Path,
    layout: Layout,
    names: set[str],
    lengths: Mapping[str, int] | None,
    partial: bool,
) -> None:
    if not names:
        raise JaxtrackError(f"{path}: no result files")
    if lengths is not None:
        strangers = sorted(names - set(lengths))
        missing = sorted(set(lengths) - names)
        if strangers:
            raise JaxtrackError(
                f"{path}: sequences that are not in the test set: {listing(strangers)}"
            )
        if missing and not partial:
            raise JaxtrackError(f"{path}: no result for {listing(missing)}")
    if len(names) != layout.sequences and not partial:
        raise JaxtrackError(
            f"{path}: {len(names)} sequences where the test set has {layout.sequences}; --partial "
            "writes it all the same, but no server takes it"
        )


def _check_boxes(
    where: str, table: np.ndarray, frames: int | None, first: np.ndarray | None
) -> None:
    if table.shape[1] != 4:
        raise JaxtrackError(f"{where}: {table.shape[1]} columns where x, y, w, h are expected")
    if frames is not None and len(table) != frames:
        raise JaxtrackError(f"{where}: {len(table)} rows for {frames} frames")
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        raise JaxtrackError(f"{where} line {bad[0] + 1}: not a finite box")
    bad = np.flatnonzero((table[:, 2:] < 0).any(axis=1))
    if len(bad):
        raise JaxtrackError(
            f"{where} line {bad[0] + 1}: negative width or height (corners instead of sizes?)"
        )
    if first is not None and np.abs(table[0] - first).max() > 2:
        raise JaxtrackError(
            f"{where} line 1: {table[0].tolist()} is not the given box {np.asarray(first).tolist()}"
        )


def _check_times(where: str, table: np.ndarray | None, rows: int, runs: int) -> None:
    if table is None:
        raise JaxtrackError(f"{where} is missing: seconds per frame, one row per frame")
    if table.shape != (rows, runs):
        raise JaxtrackError(f"{where}: shape {table.shape} where {(rows, runs)} is expected")
    if not np.isfinite(table).all() or (table < 0).any():
        raise JaxtrackError(f"{where}: a time is negative or not finite")


@dataclasses.dataclass(frozen=True)
class Options:
    """Write a submission for an evaluation server, or check one.

    Attributes:
        results: the tracker's folder of raw results, or an npz file.
        benchmark: got10k or trackingnet.
        output: the zip file to write.
        check: a zip file to check instead.
        ground_truth: folder of the test set, to check names, first rows and, where its images are there, the
            numbers of frames.
        partial: allow fewer sequences than the test set has.
        debug: show the traceback of errors.
    """

    results: Annotated[Path | None, cli.Positional] = None
    benchmark: str = "got10k"
    output: Path | None = None
    check: Path | None = None
    ground_truth: Path | None = None
    partial: bool = False
    debug: bool = False


def _frames_of(path: Path, benchmark: str, wanted: Iterable[str]) -> dict[str, int] | None:
    """Count the images of a test set's sequences; None where not all of them are there."""
    problems: list[JaxtrackError] = []
    try:
        records = layouts.read_layout(benchmark, path, "test", on_problem=problems.append)
    except JaxtrackError:
        return None  # no folder, but the first boxes of one in another form
    found = {record.name: len(record) for record in records}
    return found if set(found) == set(wanted) else None


def run(options: Options) -> None:
    """Run the command.

    Args:
        options: the call.

    Raises:
        JaxtrackError: what is wrong with the results or the zip file.
    """
    benchmark = _layout(options.benchmark).benchmark
    if options.check is None and (options.results is None or options.output is None):
        raise UsageError("give RESULTS and --output FILE.zip, or --check FILE.zip")
    if options.check is not None and (options.results is not None or options.output is not None):
        raise UsageError("--check FILE.zip stands alone: nothing is written then")
    lengths, first = None, None
    if options.ground_truth is not None:
        truth = read_ground_truth(options.ground_truth, get_benchmark(benchmark))
        first = {n: a.boxes[0] for n, a in truth.items()}
        lengths = {n: len(a) for n, a in truth.items()}
        if not all(count > 1 for count in lengths.values()):
            lengths = _frames_of(options.ground_truth, benchmark, lengths)
    if options.check is not None:
        remarks = check_zip(options.check, benchmark, lengths, first, options.partial)
        target = options.check
    else:
        assert options.results is not None
        assert options.output is not None
        given = [p for p in (options.results, options.ground_truth) if p is not None]
        target = output_file(options.output, given)
        trackers = read_results(options.results)
        if len(trackers) != 1:
            found = listing(t.name for t in trackers)
            raise JaxtrackError(
                f"{options.results} holds {len(trackers)} trackers, give one: {found}"
            )
        remarks = write_zip(target, trackers[0], benchmark, lengths, first, options.partial)
    for remark in remarks:
        print(f"note: {remark}")
    state = "not complete, for trying out only" if options.partial else "ready for the server"
    print(f"{target}: {state}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's own.

    Returns:
        Exit status: 0, 1 for a failure, 2 for a mistake in the call.
    """
    return cli.command(Options, run, "python -m eval.submit", arguments)


if __name__ == "__main__":
    sys.exit(main())
