"""The VOT part of a pack: supervised runs, their overlaps per frame and their scores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..files.arrays import regions_from_arrays, split
from ..metrics.annotation import Annotation
from ..metrics.eao import REGION
from ..metrics.protocols import BENCHMARKS, Benchmark
from ..metrics.regions import region_overlap
from ..metrics.vot import Run, VOTReport, burn_in, evaluate_vot
from .checker import Checker, Group
from .examples import bounds_of

_FRAMES = re.compile(
    r"^(?P<toolkit>vot_toolkit_)?overlap_(?:burnin(?P<burn>\d+)_)?(?P<bounds>(?:no_)?bounds.*)$"
)
_RELIABILITY = 30  # frames over which vot-toolkit states the chance of no failure


def check(group: Group, checker: Checker) -> bool:
    """Check one benchmark of supervised runs.

    Args:
        group: its files.
        checker: takes the compared groups.

    Returns:
        Whether the group is of this kind.
    """
    expected = group.get("expected") or {}
    blocks = [b for t in expected.get("trackers", {}).values() for b in t.values()]
    gt, results = group.get("gt"), group.get("results")
    is_vot = (
        any(isinstance(b, Mapping) and "eao" in b for b in blocks)
        or (gt is not None and "polygons" in gt)
        or (results is not None and any(k.endswith("_code") for k in results))
    )
    if not is_vot:
        return False
    if gt is None or results is None:
        missing = [r for r in ("gt", "results") if group.get(r) is None]
        checker.fail(
            group.key, f"no {group.key}_{' and no '.join(missing)}.npz: nothing can be checked"
        )
        return True
    truth, runs = regions_from_arrays(gt), _runs(results)
    where = group.key
    _top_level(where, expected, truth, checker)
    for tracker, wanted in expected.get("trackers", {}).items():
        if tracker in runs:
            benchmark = _benchmark(str(expected.get("dataset", group.key)), wanted)
            with checker.guard(f"{where} {tracker}"):
                _tracker(f"{where} {tracker}", runs[tracker], truth, benchmark, wanted, checker)
        else:
            checker.fail(f"{where} {tracker}", "no result of this tracker")
    frames = group.get("frames")
    if frames is not None:
        _frames(where, frames, runs, truth, checker)
    for role in group.files:
        if role not in ("expected", "gt", "results", "frames"):
            checker.fail(f"{where} {role}", "unknown kind of file beside supervised runs")
    unscored = [t for t in runs if t not in expected.get("trackers", {})]
    if unscored:
        checker.note(f"{where}: no expected scores for {', '.join(unscored)}")
    return True


def _runs(results: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[Run]]]:
    trackers = [k.removesuffix("_boxes") for k in results if k.endswith("_boxes")]
    found = {}
    for tracker in trackers:
        lengths = results[f"{tracker}_lengths"]
        boxes = split(np.asarray(results[f"{tracker}_boxes"], np.float64), lengths)
        codes = split(results[f"{tracker}_code"], lengths)
        found[tracker] = {str(n): [Run(b, c)] for n, b, c in zip(results["names"], boxes, codes)}
    return found


def _benchmark(dataset: str, wanted: Mapping[str, Any]) -> Benchmark:
    """Return the benchmark of the file's data set; another interval in the file wins."""
    year = re.search(r"20\d\d", dataset)
    known = BENCHMARKS.get(f"vot{year[0]}") if year else None
    interval = next(
        (
            tuple(b["interval"])
            for b in wanted.values()
            if isinstance(b, Mapping) and "interval" in b
        ),
        known.eao_interval if known else None,
    )
    return Benchmark(dataset, "vot", "pysot", eao_interval=interval)


def _top_level(
    where: str, expected: Mapping[str, Any], truth: Mapping[str, Annotation], checker: Checker
) -> None:
    ours = {"sequences": len(truth), "frames": sum(len(a) for a in truth.values())}
    numbers = {k: v for k, v in expected.items() if k not in ("dataset", "trackers")}
    if numbers:
        checker.table(f"{where} counts", ours, numbers)


def _tracker(
    where: str,
    runs: Mapping[str, list[Run]],
    truth: Mapping[str, Annotation],
    benchmark: Benchmark,
    wanted: Mapping[str, Any],
    checker: Checker,
) -> None:
    for toolkit, values in wanted.items():
        if toolkit == "paper":
            checker.note(f"{where} paper: {len(values)} printed numbers, nothing to compute")
            continue
        protocol = "vot_toolkit" if toolkit.startswith("vot_toolkit") else toolkit
        if protocol not in ("pysot", "vot_toolkit"):
            checker.fail(f"{where} {toolkit}", "unknown toolkit; known: pysot, vot_toolkit")
            continue
        report = evaluate_vot(runs, truth, protocol, benchmark, allow_missing=True)
        for note in report.notes:
            checker.note(f"{where} {toolkit}: {note}")
        _values(f"{where} {toolkit}", report, values, checker)


def _values(where: str, report: VOTReport, wanted: Mapping[str, Any], checker: Checker) -> None:
    length = float(report.lengths.mean())
    ours = {
        **report.overall(),
        "frames": int(report.lengths.sum()),
        "fragments": len(report.fragments.weights),
        "average_failures_length_weighted": report.failures,
        f"robustness_reliability_{_RELIABILITY}": float(
            np.exp(-_RELIABILITY * report.failures / length)
        ),
        "average_length": length,
    }
    numbers = {k: v for k, v in wanted.items() if not isinstance(v, list | dict | str)}
    checker.table(f"{where} scores", ours, numbers)
    for name, values in wanted.items():
        if name in numbers or name == "note":
            continue
        if name == "eao_curve":
            checker.check(f"{where} eao_curve", report.curve, values)
        elif name == "interval":
            known = _benchmark(report.benchmark.name, {}).eao_interval
            if known is None:
                checker.note(f"{where} interval: taken from the file")
            else:
                checker.check(f"{where} interval", known, values)
        elif name == "eao_by_tag":
            # Tags that the annotation does not have are NaN, in the toolkit as well.
            ours = {"all": report.eao, **report.eao_by_tag}
            checker.table(f"{where} eao_by_tag", {t: ours.get(t, np.nan) for t in values}, values)
        elif name == "per_sequence":
            rows = {f"{n} {k}": v for n, r in report.per_sequence().items() for k, v in r.items()}
            flat = {f"{n} {k}": v for n, r in values.items() for k, v in r.items()}
            checker.table(f"{where} per_sequence", rows, flat)
        else:
            checker.fail(f"{where} {name}", "unknown entry")


def _frames(
    where: str,
    frames: Mapping[str, np.ndarray],
    runs: Mapping[str, Mapping[str, list[Run]]],
    truth: Mapping[str, Annotation],
    checker: Checker,
) -> None:
    names = [str(n) for n in frames["names"]]
    unknown = [n for n in names if n not in truth]
    if unknown:
        return checker.fail(f"{where} frames", f"no ground truth for {', '.join(unknown[:5])}")
    size = np.concatenate(
        [np.tile(np.asarray(truth[n].size, float), (len(truth[n]), 1)) for n in names]
    )
    regions = np.concatenate([truth[n].boxes for n in names])
    for key in frames:
        if key == "names":
            continue
        tracker, _, column = key.rpartition("__")
        parts = _FRAMES.match(column)
        group = f"{where} {tracker} frames {column}"
        if parts is None:
            checker.fail(f"{where} frames {key}", "unknown column")
        elif tracker not in runs:
            checker.fail(group, "no result of this tracker")
        elif any(n not in runs[tracker] for n in names):
            checker.fail(group, "sequences without a result")
        else:
            given = [runs[tracker][n][0] for n in names]
            if any(len(r) != len(truth[n]) for r, n in zip(given, names)):
                given = [_fit(r, len(truth[n])) for r, n in zip(given, names)]
            rule = "vot_toolkit" if parts["toolkit"] else "pysot"
            boxes = np.concatenate([r.regions for r in given])
            codes = np.concatenate([r.codes for r in given])
            boxes = np.where((codes == REGION)[:, None], boxes, np.nan)
            ours = region_overlap(boxes, regions, bounds_of(parts["bounds"], size), rule)
            if rule == "vot_toolkit":
                ours = np.nan_to_num(ours)
            if parts["burn"]:
                marked = np.concatenate([burn_in(r.codes, int(parts["burn"])) for r in given])
                ours = np.where(marked, np.nan, ours)
            checker.check(group, ours, frames[key])
    return None


def _fit(run: Run, frames: int) -> Run:
    """Cut a run to the ground truth's frames, or fill it with skipped ones."""
    n = min(len(run), frames)
    regions = np.full((frames, run.regions.shape[1]), np.nan)
    codes = np.zeros(frames, int)
    regions[:n], codes[:n] = run.regions[:n], run.codes[:n]
    return Run(regions, codes)
