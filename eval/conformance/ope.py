"""The one-pass part of a pack: raw boxes, curves per sequence, and scores under several toolkits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtrack.errors import JaxtrackError

from ..files.arrays import annotations_from_arrays, split
from ..metrics.annotation import Annotation
from ..metrics.ope import OPEReport, evaluate_ope
from ..metrics.protocols import (
    NORM_PRECISION_THRESHOLDS,
    PRECISION_THRESHOLDS,
    PROTOCOLS,
    SUCCESS_THRESHOLDS,
    Benchmark,
    get_benchmark,
)
from .checker import Checker, Group

_THRESHOLDS = {
    "overlap_thresholds": SUCCESS_THRESHOLDS,
    "center_thresholds_px": PRECISION_THRESHOLDS,
    "norm_thresholds": NORM_PRECISION_THRESHOLDS,
}
_CURVES = ("success", "precision", "norm_precision")
_Boxes = Mapping[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class _Scorer:
    """Evaluates each tracker under each protocol once."""

    benchmark: Benchmark
    truth: Mapping[str, Annotation]
    results: Mapping[str, _Boxes]
    done: dict[tuple[str, str], OPEReport] = dataclasses.field(default_factory=dict)

    def report(self, tracker: str, toolkit: str, **changes: Any) -> OPEReport:
        """Score one tracker; `changes` replace rules of the protocol."""
        key = (tracker, f"{toolkit} {sorted(changes.items())}")
        if key not in self.done:
            # Whether to print normalised precision is the file's choice here, not the toolkit's.
            rules = dataclasses.replace(PROTOCOLS[toolkit], norm_precision_on=(), **changes)
            self.done[key] = evaluate_ope(
                self.results[tracker],
                self.truth,
                rules,
                self.benchmark,
                tracker,
                allow_missing=True,
            )
        return self.done[key]


def check(group: Group, checker: Checker) -> bool:
    """Check one benchmark of one-pass results.

    Args:
        group: its files.
        checker: takes the compared groups.

    Returns:
        Whether the group is of this kind.
    """
    expected = group.get("expected") or {}
    gt, curves = group.get("gt"), group.get("curves")
    wanted = expected.get("trackers", {})
    results = _results(group)
    if not (wanted or curves or results or (gt is not None and "boxes" in gt)):
        return False
    if gt is None:
        checker.fail(group.key, f"no ground truth {group.key}_gt.npz: nothing can be checked")
        return True
    truth, strangers = annotations_from_arrays(gt, expected.get("attributes"))
    for attribute, name in strangers:
        checker.fail(f"{group.key} attributes {attribute}", f"no ground truth for {name}")
    name = str(expected.get("dataset", group.key))
    scorer = _Scorer(_benchmark(name, checker), truth, results)
    _top_level(group.key, expected, truth, checker)
    columns = [str(c).split()[0] for c in expected.get("per_sequence_columns", [])]
    for tracker, toolkits in wanted.items():
        where = f"{group.key} {tracker}"
        if tracker not in results:
            checker.fail(where, "no result of this tracker")
            continue
        for toolkit, values in toolkits.items():
            if toolkit == "paper":
                checker.note(f"{where} paper: {len(values)} printed numbers, nothing to compute")
            elif toolkit not in PROTOCOLS:
                checker.fail(
                    f"{where} {toolkit}", f"unknown toolkit; known: {', '.join(PROTOCOLS)}"
                )
            else:
                with checker.guard(f"{where} {toolkit}"):
                    for note in scorer.report(tracker, toolkit).notes:
                        checker.note(f"{where} {toolkit}: {note}")
                    _toolkit(
                        f"{where} {toolkit}", scorer, tracker, toolkit, values, columns, checker
                    )
    if curves is not None:
        _curves(group.key, curves, scorer, checker)
    for role in group.files:
        if role not in ("expected", "gt", "curves", "results") and not role.startswith("result_"):
            checker.fail(f"{group.key} {role}", "unknown kind of file beside one-pass results")
    unscored = [t for t in results if t not in wanted]
    if unscored:
        checker.note(f"{group.key}: no expected scores for {', '.join(unscored)}")
    return True


def _benchmark(name: str, checker: Checker) -> Benchmark:
    try:
        return get_benchmark(name)
    except JaxtrackError:
        checker.note(
            f"{name}: no benchmark of that name; scored by the plain rules of each toolkit"
        )
        return Benchmark(name, "ope", "pysot")


def _results(group: Group) -> dict[str, _Boxes]:
    """Return tracker -> sequence -> boxes, from "X_results" (many trackers) and "X_result_TRACKER" files."""
    found: dict[str, _Boxes] = {}
    for role, content in group.files.items():
        if role == "results":
            for key in content:
                if key.endswith("_boxes"):
                    tracker = key.removesuffix("_boxes")
                    parts = split(content[key], content[f"{tracker}_lengths"])
                    found[tracker] = {str(n): p for n, p in zip(content["names"], parts)}
        elif role.startswith("result_"):
            parts = split(content["boxes"], content["lengths"])
            names = content["names"]
            found[role.removeprefix("result_")] = {str(n): p for n, p in zip(names, parts)}
    return found


def _top_level(
    where: str, expected: Mapping[str, Any], truth: Mapping[str, Annotation], checker: Checker
) -> None:
    counts = {"sequences": len(truth), "frames": sum(len(a) for a in truth.values())}
    handled = {"dataset", "trackers", "attributes", "per_sequence_columns", "note"}
    for key, values in expected.items():
        if key in _THRESHOLDS:
            checker.check(f"{where} {key}", _THRESHOLDS[key], values)
        elif key in counts:
            checker.check(f"{where} {key}", counts[key], values)
        elif key not in handled:
            checker.fail(f"{where} {key}", "unknown entry")


def _toolkit(
    where: str,
    scorer: _Scorer,
    tracker: str,
    toolkit: str,
    wanted: Mapping[str, Any],
    columns: list[str],
    checker: Checker,
) -> None:
    report = scorer.report(tracker, toolkit)
    overall = report.overall()
    for name, values in wanted.items():
        group = f"{where} {name}"
        if name == "overall":
            _overall(group, report, values, checker)
        elif name == "per_sequence":
            _per_sequence(group, report, values, columns, checker)
        elif name == "per_attribute":
            ours = {f"{a} {k}": v for a, r in report.per_attribute().items() for k, v in r.items()}
            flat = {f"{a} {k}": v for a, r in values.items() for k, v in r.items()}
            checker.table(group, ours, flat)
        elif name == "average_overlap":
            checker.check(group, overall["average_overlap"], values)
        elif name == "per_sequence_average_overlap":
            checker.table(group, dict(zip(report.names, report.average_overlap)), values)
        elif name == "toolkit_printed":  # percent
            ours = {
                "auc": overall["auc"],
                "precision": overall["precision_20px"],
                "norm_precision": overall.get("norm_precision_0_20", np.nan),
            }
            checker.table(group, ours, {k: v / 100 for k, v in values.items()})
        elif name == "exclude_invalid_frames":
            changed = scorer.report(tracker, toolkit, denominator="valid")
            checker.table(group, changed.overall(), values)
        elif name != "note":
            _special(group, name, scorer, tracker, toolkit, values, checker)


def _special(
    where: str,
    name: str,
    scorer: _Scorer,
    tracker: str,
    toolkit: str,
    values: Any,
    checker: Checker,
) -> None:
    """Return entries that count what a toolkit's rules did."""
    report = scorer.report(tracker, toolkit)
    if name == "auc_with_thresholds_i_times_0_05":
        changed = scorer.report(tracker, toolkit, colon_thresholds=False)
        checker.check(where, changed.overall()["auc"], values)
    elif name == "result_rows_replaced_by_previous":
        checker.check(where, report.repaired, values)
    elif name == "visible_frames_with_non_positive_ground_truth":
        count = 0
        for annotation in scorer.truth.values():
            bad = ~(annotation.boxes > 0).all(axis=1)
            count += int(np.sum(bad if annotation.absent is None else bad & ~annotation.absent))
        checker.check(where, count, values)
    elif name == "sequences_dropped_for_all_zero_curve":
        tables = (report.success, report.precision, report.norm_precision)
        ours = [int((t.sum(axis=1) <= 0).sum()) for t in tables if t is not None]
        checker.check(where, ours, values)
    else:
        checker.fail(where, "unknown entry")


def _overall(where: str, report: OPEReport, wanted: Mapping[str, Any], checker: Checker) -> None:
    curves = {f"{k}_curve": v for k, v in report.curves().items()}
    numbers = {k: v for k, v in wanted.items() if not isinstance(v, list)}
    checker.table(where, report.overall(), numbers)
    for name in wanted:
        if name in curves:
            checker.check(f"{where} {name}", curves[name], wanted[name])
        elif name not in numbers:
            checker.fail(f"{where} {name}", "unknown entry")


def _per_sequence(
    where: str,
    report: OPEReport,
    wanted: Mapping[str, list[float]],
    columns: list[str],
    checker: Checker,
) -> None:
    ours = report.per_sequence()
    strangers = [n for n in wanted if n not in ours]
    if strangers:
        return checker.fail(where, f"no result for {', '.join(strangers[:5])}")
    table, expected = [], []
    for name, values in wanted.items():
        if len(values) > len(columns):
            return checker.fail(where, f"{len(values)} columns, {len(columns)} names for them")
        if any(c not in ours[name] for c in columns[: len(values)]):
            return checker.fail(where, f"unknown columns: {', '.join(columns)}")
        table += [ours[name][c] for c in columns[: len(values)]]
        expected += values
    return checker.check(where, table, expected)


def _curves(
    where: str, curves: Mapping[str, np.ndarray], scorer: _Scorer, checker: Checker
) -> None:
    names = [str(n) for n in curves["names"]]
    for key in curves:
        if key == "names":
            continue
        toolkit, _, rest = key.partition("__")
        tracker, _, kind = rest.rpartition("__")
        group = f"{where} {tracker} {toolkit} curves per sequence, {kind}"
        if toolkit not in PROTOCOLS or kind not in _CURVES:
            checker.fail(f"{where} curves {key}", "unknown toolkit or curve")
            continue
        if tracker not in scorer.results:
            checker.fail(group, "no result of this tracker")
            continue
        with checker.guard(group):
            report = scorer.report(tracker, toolkit)
            rows = {n: i for i, n in enumerate(report.names)}
            strangers = [n for n in names if n not in rows]
            if strangers:
                checker.fail(group, f"no result for {', '.join(strangers[:5])}")
            else:
                checker.check(group, getattr(report, kind)[[rows[n] for n in names]], curves[key])
