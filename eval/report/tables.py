"""Scores as tables: for the terminal, CSV, LaTeX and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence

import numpy as np

import jaxtrack

# Column titles of the headline numbers, in their order; None: not in the printed table.
TITLES: dict[str, str | None] = {
    "auc": "AUC",
    "precision_20px": "P@20",
    "precision_auc_0_to_50px": "P auc",
    "norm_precision_0_20": "NP@.20",
    "norm_precision_auc_0_to_0_50": "NP auc",
    "success_rate_0_50": "OP50",
    "success_rate_0_75": "OP75",
    "average_overlap": None,
    "accuracy": "A",
    "robustness": "R",
    "lost": "lost",
    "eao": "EAO",
    "ao": "AO",
    "sr_0.50": "SR.50",
    "sr_0.75": "SR.75",
    "speed_fps": "fps",
    "length": "frames",
    "frames": "frames",
    "n": "n",
}
_COUNTS = ("lost", "n", "length", "frames", "speed_fps")
_LOWER_IS_BETTER = ("robustness", "lost")


@dataclasses.dataclass(frozen=True)
class Score:
    """Numbers of one tracker under one protocol.

    Attributes:
        tracker: the tracker's name.
        protocol: the rules.
        sequences: how many sequences were scored.
        metrics: headline numbers, as fractions.
        intervals: metric -> (low, high).
        per_sequence: sequence -> numbers.
        per_attribute: attribute -> numbers.
        curves: name -> points.
        notes: what was repaired, cut or left out.
    """

    tracker: str
    protocol: str
    sequences: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    per_sequence: Mapping[str, Mapping[str, float]]
    per_attribute: Mapping[str, Mapping[str, float]]
    curves: Mapping[str, Sequence[float]]
    notes: tuple[str, ...] = ()


def _columns(rows: Sequence[Mapping[str, float]]) -> list[str]:
    present = {k for r in rows for k, v in r.items() if not _missing(v)}
    return [k for k, title in TITLES.items() if title and k in present]


def _missing(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cell(name: str, row: Mapping[str, float], interval: tuple[float, float] | None = None) -> str:
    value = row.get(name, float("nan"))
    if _missing(value):
        return "-"
    if name in _COUNTS:
        return f"{value:g}" if float(value).is_integer() else f"{value:.1f}"
    text = f"{value:.4f}"
    if interval is not None:
        text += f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return text


def _align(rows: list[list[str]], left: int = 1) -> str:
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append("-" * len(lines[0]))
    return "\n".join(lines)


def text(scores: Sequence[Score], benchmark: str) -> str:
    """Return the table for the terminal.

    Args:
        scores: one per tracker and protocol.
        benchmark: its name, for the heading.

    Returns:
        Lines of text; intervals in brackets are 95 % bootstrap intervals over sequences.
    """
    columns = _columns([s.metrics for s in scores])
    rows = [["tracker", "protocol", "seqs", *(TITLES[c] or c for c in columns)]]
    for s in scores:
        cells = [_cell(c, s.metrics, s.intervals.get(c)) for c in columns]
        rows.append([s.tracker, s.protocol, str(s.sequences), *cells])
    tail = "\n[low, high]: 95 % bootstrap interval over sequences" if scores[0].intervals else ""
    return f"{benchmark}\n{_align(rows, 2)}{tail}"


def group_text(scores: Sequence[Score], group: str) -> str:
    """Return one table per score over its sequences or attributes.

    Args:
        scores: one per tracker and protocol.
        group: "per_sequence" or "per_attribute".

    Returns:
        Lines of text.
    """
    parts = []
    for s in scores:
        table: Mapping[str, Mapping[str, float]] = getattr(s, group)
        heading = f"\n{s.tracker} ({s.protocol})"
        if not table:
            parts.append(f"{heading}: no {group.removeprefix('per_')}s")
            continue
        columns = _columns(list(table.values()))
        rows = [[group.removeprefix("per_"), *(TITLES[c] or c for c in columns)]]
        rows += [[name, *(_cell(c, row) for c in columns)] for name, row in table.items()]
        parts.append(f"{heading}\n{_align(rows)}")
    return "\n".join(parts)


def notes(scores: Sequence[Score]) -> list[str]:
    """Return the notes of all scores, each once, with the trackers and protocols it holds for.

    Args:
        scores: one per tracker and protocol.

    Returns:
        One line each.
    """
    found: dict[str, list[str]] = {}
    for s in scores:
        for note in s.notes:
            found.setdefault(note, []).append(f"{s.tracker} ({s.protocol})")
    return [f"{', '.join(who)}: {note}" for note, who in found.items()]


def csv_text(scores: Sequence[Score]) -> str:
    """Return the headline numbers as CSV, full precision.

    Args:
        scores: one per tracker and protocol.

    Returns:
        One row per tracker and protocol.
    """
    columns = [c for c in TITLES if any(c in s.metrics for s in scores)]
    bounds = [c for c in columns if any(c in s.intervals for s in scores)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = [*columns, *(f"{c}_{side}" for c in bounds for side in ("low", "high"))]
    writer.writerow(["tracker", "protocol", "sequences", *header])
    for s in scores:
        ends = [v for c in bounds for v in s.intervals.get(c, ("", ""))]
        row = [repr(s.metrics[c]) if c in s.metrics else "" for c in columns]
        writer.writerow([s.tracker, s.protocol, s.sequences, *row, *ends])
    return out.getvalue()


def latex_text(scores: Sequence[Score], benchmark: str) -> str:
    """Return a LaTeX table (booktabs): fractions in percent, the best of each protocol in bold.

    Args:
        scores: one per tracker and protocol.
        benchmark: its name, for the caption.

    Returns:
        The table.
    """
    columns = _columns([s.metrics for s in scores])
    best: dict[tuple[str, str], float] = {}
    rivals = {p: [s for s in scores if s.protocol == p] for p in {s.protocol for s in scores}}
    for protocol, group in rivals.items():
        for c in columns if len(group) > 1 else []:
            values = [s.metrics[c] for s in group if not _missing(s.metrics.get(c, math.nan))]
            if values:
                best[protocol, c] = min(values) if c in _LOWER_IS_BETTER else max(values)
    several = len({s.protocol for s in scores}) > 1
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape(benchmark)}.}}",
        r"  \begin{tabular}{l" + ("l" if several else "") + "r" * len(columns) + "}",
        r"    \toprule",
        "    "
        + " & ".join(
            [
                "Tracker",
                *(["Rules"] if several else []),
                *(_escape(TITLES[c] or c) for c in columns),
            ]
        )
        + r" \\",
        r"    \midrule",
    ]
    for s in scores:
        cells = [_escape(s.tracker), *([_escape(s.protocol)] if several else [])]
        for c in columns:
            cell = _percent(c, s.metrics)
            bold = s.metrics.get(c, math.nan) == best.get((s.protocol, c), math.inf)
            cells.append(rf"\textbf{{{cell}}}" if bold else cell)
        lines.append("    " + " & ".join(cells) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _percent(name: str, row: Mapping[str, float]) -> str:
    if name in (*_COUNTS, "accuracy", "robustness", "eao"):
        cell = _cell(name, row)
        return cell if name in _COUNTS or cell == "-" else f"{row[name]:.3f}"
    value = row.get(name, float("nan"))
    return "-" if _missing(value) else f"{100 * value:.1f}"


def _escape(name: str) -> str:
    for character in "\\&%$#_{}":
        name = name.replace(
            character, r"\textbackslash{}" if character == "\\" else "\\" + character
        )
    return name


def json_text(scores: Sequence[Score], benchmark: str, arguments: Sequence[str]) -> str:
    """Return everything as JSON; what is not a number is null.

    Args:
        scores: one per tracker and protocol.
        benchmark: its name.
        arguments: the command line that made the scores.

    Returns:
        The text.
    """
    content = {
        "benchmark": benchmark,
        "command": list(arguments),
        "versions": {
            "jaxtrack": jaxtrack.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "scores": [dataclasses.asdict(s) for s in scores],
    }
    return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def _plain(value):
    """NaN and infinities as null, tuples as lists, numpy numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
