"""Build a dataset from the folder that its own site delivers.

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
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm

from jaxtrack import cli
from jaxtrack.data import layouts
from jaxtrack.data.builders.stage import made_from
from jaxtrack.data.readers import files
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import paths, text

_LEAST_CROP = 64
_SHOWN_PROBLEMS = 20


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Build (or check) a tracking dataset from the folder that its own site delivers.

    Attributes:
        dataset: dataset name: got10k, lasot, trackingnet, vid, det, coco, youtubebb, otb, ..., custom; or
            ``package.module:LAYOUT``, a layout of your own.
        source: folder that the dataset unpacks to.
        output: folder for built datasets; this one goes to OUTPUT/DATASET/SPLIT_FLAVOUR/VERSION.
        split: split name; the dataset's training (or only) split by default.
        crop: store crops of this side around each target (PySOT: 511) instead of whole frames.
        check: check the source folder (with --source) or an existing build (with --output) instead.
        workers: processes that decode and write; as many as there are processors by default, 0 for none.
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
    crop: Annotated[int, cli.Range(low=0, high=4096)] = 0
    check: bool = False
    workers: Annotated[int | None, cli.Range(low=0, high=1024)] = None
    max_bad: Annotated[float, cli.Range(low=0, high=1)] = 0.01
    only: tuple[str, ...] = ()
    list: Path | None = None
    debug: bool = False


def run(args: Prepare) -> dict[str, Any]:
    """Do what the command line asks for.

    Args:
        args: the parsed command line.

    Returns:
        The summary of the build, or of the check.

    Raises:
        UsageError: a mistake in the call.
        JaxtrackError: anything that is wrong with the folders, or problems that a check found.
    """
    try:
        dataset = layouts.canonical(args.dataset)
        _, split = layouts.resolve(dataset, args.split)
    except JaxtrackError as error:
        raise cli.UsageError(str(error)) from error
    if 0 < args.crop < _LEAST_CROP:
        raise cli.UsageError(
            f"--crop {args.crop}: a side from {_LEAST_CROP} to 4096 pixels was expected"
        )
    if args.source is None and (args.output is None or not args.check):
        needed = "--check needs --source (a dataset's folder) or --output (a build)"
        raise cli.UsageError(
            needed
            if args.check
            else "--source and --output are both needed to build (or add --check)"
        )
    if not args.check and args.output is None:
        raise cli.UsageError("--source and --output are both needed to build (or add --check)")
    workers = (os.cpu_count() or 1) if args.workers is None else args.workers
    args = dataclasses.replace(args, dataset=dataset, split=split, workers=workers)
    if args.list is not None:
        args = dataclasses.replace(args, only=(*args.only, *read_list(dataset, args.list)))
    return _check(args, split) if args.check else _build(args, split)


def read_list(dataset: str, path: Path) -> tuple[str, ...]:
    """Read names of videos from a file.

    Args:
        dataset: dataset name.
        path: one name per line; for GOT-10k's training split also numbers that count from 0.

    Returns:
        Names.

    Raises:
        JaxtrackError: the file is missing or empty, or holds numbers for another dataset.
    """
    lines = [line.strip() for line in text.read_text(path).splitlines() if line.strip()]
    if not lines:
        raise JaxtrackError(f"{path} is empty: one name of a video per line was expected")
    if not all(re.fullmatch("[0-9]{1,6}", line) for line in lines):
        return tuple(lines)
    if dataset != "got10k":
        raise JaxtrackError(f"{path} holds numbers: {dataset} needs the names of its videos")
    return tuple(f"GOT-10k_Train_{int(line) + 1:06d}" for line in lines)


def _built_at(args: Prepare, split: str) -> Path:
    flavour = f"crop{args.crop}" if args.crop else "frames"
    assert args.output is not None
    return args.output / layouts.folder_name(args.dataset) / f"{split}_{flavour}"


def _build(args: Prepare, split: str) -> dict[str, Any]:
    from jaxtrack.data import check
    from jaxtrack.data.source import FrameSource

    assert args.source is not None
    assert args.output is not None
    root = files.require_root(args.dataset, args.source)
    output = paths.output_folder(args.output, [root])
    there = [
        f for f in files.subfolders(_built_at(args, split)) if (f / "dataset_info.json").exists()
    ]
    if not there:
        _write(args, root, output)
    source = FrameSource(_built_at(args, split))
    if source.summary["only"] != sorted(args.only):
        raise JaxtrackError(
            f"{source.path} was built from another choice of videos (--only): "
            "delete it, or give another --output"
        )
    if there and source.summary["made_from"] != made_from(
        args.dataset, root, split, args.only or None, args.crop
    ):
        raise JaxtrackError(
            f"{source.path} was built from other annotations or frames than {root} holds now: delete it, "
            "or give another --output"
        )
    print(f"{'already built' if there else 'built'}: {source.path}")
    print(format_summary(source.summary))
    for line in check.hints_of(source):
        print(f"  note: {line}")
    return source.summary


def _write(args: Prepare, root: Path, output: Path) -> None:
    from jaxtrack.data import builders  # imports tensorflow_datasets: slow

    logging.getLogger("absl").setLevel(logging.ERROR)
    output.mkdir(parents=True, exist_ok=True)
    with tqdm(desc=f"{args.dataset} {args.split}", unit=" frames", smoothing=0.1) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        builder = builders.builder(args.dataset)(
            source=root,
            split=args.split,
            crop=args.crop,
            workers=args.workers or 0,
            max_bad=args.max_bad,
            only=args.only or None,
            progress=progress,
            data_dir=str(output),
        )
        builder.download_and_prepare(download_dir=str(builder.stage))


def format_summary(summary: dict[str, Any]) -> str:
    """Write a build's counts for a reader.

    Args:
        summary: as in ``summary.json``.

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
                max(1, args.workers or 1),
            )
        else:
            where = _built_at(args, split)
            report = check.check_built(where, bar.update)
    print(f"checked: {where}")
    print(
        f"  {report.videos:,} videos, {report.targets:,} targets, {report.frames:,} frames decoded"
    )
    print(
        f"  {report.boxes:,} boxes ({report.outside:,} outside the frame), {report.absent:,} absent"
    )
    for line in report.hints():
        print(f"  note: {line}")
    for line in report.problems:
        print(f"  {line}")
    if report.problems:
        count = len(report.problems)
        raise JaxtrackError(
            f"{args.dataset}: {count} problem{'s' * (count > 1)} in {where}, first: {report.problems[0]}"
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
