"""Builds a dataset from the folder that its own site delivers.

    python -m jaxtrack.data.prepare got10k --source DIR --output DIR
    python -m jaxtrack.data.prepare vid --source DIR --output DIR --crop 511 --workers 16
    python -m jaxtrack.data.prepare custom --source clips --check        # look, build nothing
    python -m jaxtrack.data.prepare got10k --output DIR --check          # an existing build

A run that was stopped or killed goes on where it was when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm

from jaxtrack import cli
from jaxtrack.data import layouts
from jaxtrack.errors import JaxtrackError

_SHOWN_PROBLEMS = 20


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Build (or check) a tracking dataset from the folder that its own site delivers.

    Attributes:
        dataset: dataset name: got10k, lasot, trackingnet, vid, det, coco, youtubebb, otb, ..., custom.
        source: folder that the dataset unpacks to.
        output: folder for built datasets; this one goes to OUTPUT/DATASET/SPLIT_FLAVOUR/VERSION.
        split: split name; the dataset's training (or only) split by default.
        crop: store crops of this side around each target (PySOT: 511) instead of whole frames.
        check: check the source folder (with --source) or an existing build (with --output) instead.
        workers: processes that decode and write.
        max_bad: share of frames that may be unreadable: they are left out, counted and named.
        only: names of the videos to take; all by default.
        list: file with such names, one per line (for GOT-10k also numbers from 0, as other toolboxes write
            their splits).
        debug: show the traceback of an error.
    """

    dataset: Annotated[str, cli.Positional]
    source: Path | None = None
    output: Path | None = None
    split: str | None = None
    crop: int = 0
    check: bool = False
    workers: int = os.cpu_count() or 1
    max_bad: float = 0.01
    only: tuple[str, ...] = ()
    list: Path | None = None
    debug: bool = False


def run(args: Prepare) -> dict[str, Any]:
    """Does what the command line asks for.

    Args:
        args: the parsed command line.

    Returns:
        The summary of the build, or of the check.

    Raises:
        JaxtrackError: anything that is wrong with the folders, or problems that a check found.
    """
    _, split = layouts.resolve(args.dataset, args.split)
    if args.crop and not 64 <= args.crop <= 4096:
        raise JaxtrackError(f"--crop {args.crop}: a side from 64 to 4096 pixels was expected")
    if args.workers < 0 or not 0 <= args.max_bad <= 1:
        raise JaxtrackError("--workers must not be negative and --max-bad lies between 0 and 1")
    if args.list is not None:
        args = dataclasses.replace(args, only=(*args.only, *read_list(args.dataset, args.list)))
    if args.check:
        return _check(args, split)
    if args.source is None or args.output is None:
        raise JaxtrackError("--source and --output are both needed to build (or add --check)")
    return _build(args, split)


def read_list(dataset: str, path: Path) -> tuple[str, ...]:
    """Reads names of videos from a file.

    Args:
        dataset: dataset name.
        path: one name per line; for GOT-10k's training split also numbers that count from 0.

    Returns:
        Names.

    Raises:
        JaxtrackError: the file is missing or empty, or holds numbers for another dataset.
    """
    lines = [line.strip() for line in layouts.tools.read_text(path).splitlines() if line.strip()]
    if not lines:
        raise JaxtrackError(f"{path} is empty: one name of a video per line was expected")
    if not all(line.isdigit() for line in lines):
        return tuple(lines)
    if dataset != "got10k":
        raise JaxtrackError(f"{path} holds numbers: {dataset} needs the names of its videos")
    return tuple(f"GOT-10k_Train_{int(line) + 1:06d}" for line in lines)


def _built_at(args: Prepare, split: str) -> Path:
    flavour = f"crop{args.crop}" if args.crop else "frames"
    assert args.output is not None
    return args.output / args.dataset / f"{split}_{flavour}"


def _build(args: Prepare, split: str) -> dict[str, Any]:
    from jaxtrack.data import builders  # imports tensorflow_datasets: slow
    from jaxtrack.data.source import FrameSource

    logging.getLogger("absl").setLevel(logging.ERROR)
    assert args.source is not None
    assert args.output is not None
    layouts.tools.require_root(args.dataset, args.source)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JaxtrackError(f"cannot make the folder {args.output}: {error.strerror}") from error
    with tqdm(desc=f"{args.dataset} {split}", unit=" frames", smoothing=0.1) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        builder = builders.builder(args.dataset)(
            source=args.source,
            split=args.split,
            crop=args.crop,
            workers=args.workers,
            max_bad=args.max_bad,
            only=args.only or None,
            progress=progress,
            data_dir=str(args.output),
        )
        there = Path(builder.data_dir, "dataset_info.json").exists()
        builder.download_and_prepare(download_dir=str(builder.stage))
    source = FrameSource(builder.data_dir)
    if source.summary["only"] != sorted(args.only):
        raise JaxtrackError(
            f"{builder.data_dir} was built from another choice of videos (--only): "
            "delete it, or give another --output"
        )
    print(f"{'already built' if there else 'built'}: {builder.data_dir}")
    print(format_summary(source.summary))
    return source.summary


def format_summary(summary: dict[str, Any]) -> str:
    """Writes a build's counts for a reader.

    Args:
        summary: as in `summary.json`.

    Returns:
        Some lines.
    """
    lines = [
        f"  {summary['videos']:,} videos, {summary['targets']:,} targets, {summary['frames']:,} frames",
        f"  {summary['boxes']:,} boxes, {summary['absent']:,} absent, "
        f"{summary['without_box']:,} without a usable box",
        f"  {summary['records']:,} records, {summary['bytes'] / 1e6:,.1f} MB, {summary['seconds']} s",
    ]
    for reason, count in summary["skipped"].items():
        lines.append(f"  {count} frames left out: {reason}")
    lines += [f"    {where}" for where in summary["skipped_frames"][:_SHOWN_PROBLEMS]]
    return "\n".join(lines)


def _check(args: Prepare, split: str) -> dict[str, Any]:
    from jaxtrack.data import check

    with tqdm(desc=f"check {args.dataset}", unit=" frames", smoothing=0.1) as bar:
        if args.source is not None:
            where: Path = args.source
            report = check.check_source(
                args.dataset,
                args.source,
                args.split,
                args.only or None,
                bar.update,
                max(1, args.workers),
            )
        elif args.output is not None:
            where = _built_at(args, split)
            report = check.check_built(where, bar.update)
        else:
            raise JaxtrackError("--check needs --source (a dataset's folder) or --output (a build)")
    print(f"checked: {where}")
    print(
        f"  {report.videos:,} videos, {report.targets:,} targets, {report.frames:,} frames decoded"
    )
    print(
        f"  {report.boxes:,} boxes ({report.outside:,} outside the frame), {report.absent:,} absent"
    )
    for line in report.hints():
        print(f"  note: {line}")
    for line in report.problems[:_SHOWN_PROBLEMS]:
        print(f"  {line}")
    if report.problems:
        raise JaxtrackError(
            f"{args.dataset}: {len(report.problems)} problems in {where}, first: {report.problems[0]}"
        )
    return dataclasses.asdict(report)


def _run(args: Prepare) -> None:
    try:
        run(args)
    except KeyboardInterrupt as error:
        raise type(error)("stopped: the same command goes on where it was") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Prepare, _run, "python -m jaxtrack.data.prepare", arguments)


if __name__ == "__main__":
    sys.exit(main())
