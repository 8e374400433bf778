"""Self-contained files of a pack: GOT-10k and long-term examples, region overlap cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtrack.errors import JaxtrackError

from ..metrics.annotation import Annotation
from ..metrics.got10k import GOT10kReport, bounded_overlap, evaluate_got10k
from ..metrics.longterm import LongTermReport, evaluate_longterm, f_score
from ..metrics.polygons import exact_overlap
from ..metrics.regions import RULES, region_overlap
from .checker import Checker

_GOT10K_INPUTS = {"groundtruth", "cover", "absence", "resolution", "results", "times"}
_LONG_INPUTS = {"groundtruth", "prediction", "confidence", "width", "height"}
_BOUNDS = ("no_bounds", "bounds_w_h", "bounds_wm1_hm1")


def check(stem: str, content: Any, checker: Checker) -> bool:
    """Check a self-contained file.

    Args:
        stem: file name without suffix.
        content: the file's content.
        checker: takes the groups.

    Returns:
        Whether the file is one of these kinds.
    """
    if not isinstance(content, Mapping):
        return False
    kind = None
    if {"pred", "gt", "image_size"} <= set(content):
        kind = _regions
    elif isinstance(content.get("sequences"), Mapping) and "expected" in content:
        fields = set().union(*(s for s in content["sequences"].values()))
        if {"results", "cover"} <= fields:
            kind = _got10k
        elif {"prediction", "confidence"} <= fields:
            kind = _longterm
    if kind is None:
        return False
    with checker.guard(stem):
        kind(stem, content, checker)
    return True


def bounds_of(name: str, size: np.ndarray) -> np.ndarray | None:
    """Return the bounds that a column's name asks for.

    Args:
        name: one that ends in "no_bounds", "bounds_w_h" or "bounds_wm1_hm1".
        size: (..., 2) width and height.

    Returns:
        (..., 2), or None for no bounds.

    Raises:
        JaxtrackError: another name.
    """
    if name.endswith("no_bounds"):
        return None
    if name.endswith("bounds_w_h"):
        return size
    if name.endswith("bounds_wm1_hm1"):
        return size - 1
    raise JaxtrackError(f"unknown bounds in {name!r}: known: {', '.join(_BOUNDS)}")


def _regions(stem: str, content: Mapping[str, np.ndarray], checker: Checker) -> None:
    inputs = {"pred", "pred_n", "gt", "gt_n", "image_size"}
    pred, truth = (_known(content[k], content[f"{k}_n"]) for k in ("pred", "gt"))
    size = np.asarray(content["image_size"], np.float64)
    for name in content:
        if name in inputs:
            continue
        where, expected = f"{stem} {name}", np.asarray(content[name], np.float64)
        if name == "exact_area_no_bounds":
            ours = exact_overlap(pred, truth)
            crossing = np.isnan(ours)
            if crossing.any():
                checker.note(
                    f"{where}: {crossing.sum()} polygons that are not convex are not compared"
                )
            checker.check(where, ours[~crossing], expected[~crossing])
            continue
        rule = next((r for r in RULES if name.startswith(f"{r}_")), None)
        if rule is None:
            checker.fail(where, f"unknown toolkit; known: {', '.join(RULES)}")
            continue
        checker.check(where, region_overlap(pred, truth, bounds_of(name, size), rule), expected)


def _known(regions: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Blank what lies behind the coordinates that count."""
    if not np.isin(count, (4, 8)).all():
        raise JaxtrackError("regions with another number of coordinates than 4 or 8")
    regions = np.array(regions, np.float64)
    regions[count == 4, 4:] = np.nan
    return regions


def _got10k(stem: str, content: Mapping[str, Any], checker: Checker) -> None:
    sequences = content["sequences"]
    truth = {
        n: Annotation(
            boxes=np.asarray(s["groundtruth"], np.float64),
            cover=np.asarray(s["cover"]),
            size=tuple(s["resolution"]),
        )
        for n, s in sequences.items()
    }
    reports = {}
    for tracker in content["expected"]:
        results = {
            n: [np.asarray(r, np.float64) for r in s["results"][tracker]]
            for n, s in sequences.items()
        }
        times = {
            n: [np.asarray(t, np.float64) for t in s["times"][tracker]]
            for n, s in sequences.items()
            if tracker in s.get("times", {})
        }
        reports[tracker] = evaluate_got10k(results, truth, times, tracker, allow_missing=True)
        for note in reports[tracker].notes:
            checker.note(f"{stem} {tracker}: {note}")
        _got10k_values(f"{stem} {tracker}", reports[tracker], content["expected"][tracker], checker)
    for name in sorted({k for s in sequences.values() for k in s} - _GOT10K_INPUTS):
        if name not in ("iou_frames_1_to_end", "iou_unbounded"):
            checker.fail(f"{stem} {name}", "unknown entry of the sequences")
            continue
        for tracker, report in reports.items():
            ours, expected = [], []
            for n, s in sequences.items():
                if tracker not in s.get(name, {}):
                    continue
                expected += [np.asarray(e, np.float64) for e in s[name][tracker]]
                if name == "iou_unbounded":
                    runs = [np.asarray(r, np.float64) for r in s["results"][tracker]]
                    ours += [bounded_overlap(r, truth[n].boxes, None)[1:] for r in runs]
                else:
                    ours += list(report.bounded_overlaps[n])
            checker.check(
                f"{stem} {tracker} {name}", np.concatenate(ours), np.concatenate(expected)
            )


def _got10k_values(
    where: str, report: GOT10kReport, expected: Mapping[str, Any], checker: Checker
) -> None:
    renamed = {"sr": "sr_0.50", "succ_curve": "curve"}

    def compare(group: str, ours: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        numbers = {k: v for k, v in values.items() if not isinstance(v, list)}
        named = {k: ours[renamed.get(k, k)] for k in numbers if renamed.get(k, k) in ours}
        scale = {
            k: max(abs(float(v)), 1.0) if k == "speed_fps" else 1.0 for k, v in numbers.items()
        }
        checker.table(
            f"{where} {group}",
            {k: v / scale[k] for k, v in named.items()},
            {k: v / scale[k] for k, v in numbers.items()},
        )

    for group, values in expected.items():
        if group == "overall":
            compare(group, report.overall(), values)
            if "succ_curve" in values:
                checker.check(f"{where} overall succ_curve", report.curve, values["succ_curve"])
        elif group == "mean_over_sequences":
            compare(group, report.mean_over_sequences(), values)
        elif group == "seq_wise":
            ours = report.per_sequence()
            flat = {
                f"{n} {renamed.get(k, k)}": v for n, row in ours.items() for k, v in row.items()
            }
            wanted = {
                f"{n} {renamed.get(k, k)}": v for n, row in values.items() for k, v in row.items()
            }
            for k in wanted:  # speeds in frames/s are compared relative to their size
                if k.endswith("speed_fps") and k in flat:
                    size = max(abs(wanted[k]), 1.0)
                    flat[k], wanted[k] = flat[k] / size, wanted[k] / size
            checker.table(f"{where} seq_wise", flat, wanted)
        else:
            checker.fail(f"{where} {group}", "unknown entry")


def _rows(values: Sequence[Any]) -> np.ndarray:
    """Return boxes (n, 4) from a list that holds None or one number where there is no box."""
    blank = [np.nan] * 4
    return np.array([v if v is not None and len(v) > 1 else blank for v in values], np.float64)


def _longterm(stem: str, content: Mapping[str, Any], checker: Checker) -> None:
    sequences, expected = content["sequences"], content["expected"]
    for name in sorted({k for s in sequences.values() for k in s} - _LONG_INPUTS):
        checker.fail(f"{stem} {name}", "unknown entry of the sequences")
    report = evaluate_longterm(
        {n: _rows(s["prediction"]) for n, s in sequences.items()},
        {n: np.array(s["confidence"], np.float64) for n, s in sequences.items()},
        {
            n: Annotation(_rows(s["groundtruth"]), size=(s["width"], s["height"]))
            for n, s in sequences.items()
        },
    )
    ours = {
        **report.curves(),
        "thresholds": report.thresholds,
        # As the toolkit does, NaN counts as the largest.
        "best_index_argmax_as_toolkit": int(np.argmax(report.curves()["f1"])),
    }
    for name, values in expected.items():
        if name == "per_sequence":
            _longterm_sequences(stem, report, values, checker)
        elif name == "best":
            checker.table(f"{stem} best", report.overall(), values)
        elif name in ours:
            checker.check(f"{stem} {name}", ours[name], values)
        else:
            checker.fail(f"{stem} {name}", "unknown entry")


def _longterm_sequences(
    stem: str, report: LongTermReport, expected: Mapping[str, Any], checker: Checker
) -> None:
    for name, values in expected.items():
        where = f"{stem} {name}"
        if name not in report.names:
            checker.fail(where, "no such sequence")
            continue
        i = report.names.index(name)
        ours = {
            "precision": report.precision[i],
            "recall": report.recall[i],
            "f1": f_score(report.precision[i], report.recall[i]),
            "overlaps": report.frame_overlaps[name],
        }
        for key, wanted in values.items():
            if key in ours:
                checker.check(f"{where} {key}", ours[key], wanted)
            else:
                checker.fail(f"{where} {key}", "unknown entry")
