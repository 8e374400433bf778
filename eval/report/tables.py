"""Scores as tables: for the terminal, CSV, LaTeX and JSON."""

from __future__ import annotations

import csv
import io
import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import jaxtrack
from jaxtrack.errors import brief, printable

from .scores import Score

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
    "f1": "F1",
    "precision": "Pr",
    "recall": "Re",
    "ao": "AO",
    "sr_0.50": "SR.50",
    "sr_0.75": "SR.75",
    "speed_fps": "fps",
    "length": "frames",
    "frames": "frames",
    "n": "n",
}
# The number by which trackers are ranked, by kind of benchmark.
MAIN = ("auc", "ao", "eao", "f1")
_COUNTS = ("lost", "n", "length", "frames", "speed_fps")
_COLUMNS_THAT_FIT = 7  # beside the name, in a column of text as wide as a page
_LOWER_IS_BETTER = ("robustness", "lost")


def main_metric(scores: Sequence[Score]) -> str | None:
    """Return the number by which trackers are ranked: the first of `MAIN` that all kinds of rows have."""
    return next(
        (m for m in MAIN if any(not _missing(s.metrics.get(m, math.nan)) for s in scores)), None
    )


def ranked(scores: Sequence[Score]) -> list[Score]:
    """Return scores protocol by protocol, the best tracker of each first.

    Args:
        scores: one per tracker and protocol.
    """
    main = main_metric(scores)
    order = {p: i for i, p in enumerate(dict.fromkeys(s.protocol for s in scores))}

    def key(score: Score) -> tuple[int, float]:
        value = score.metrics.get(main or "", math.nan)
        return order[score.protocol], math.inf if _missing(value) else -value

    return sorted(scores, key=key)


def best_values(scores: Sequence[Score]) -> dict[tuple[str, str], float]:
    """Return (protocol, metric) -> its best value, where several trackers share the protocol.

    Args:
        scores: one per tracker and protocol.
    """
    best: dict[tuple[str, str], float] = {}
    for protocol in dict.fromkeys(s.protocol for s in scores):
        group = [s for s in scores if s.protocol == protocol]
        for c in TITLES if len(group) > 1 else ():
            values = [s.metrics[c] for s in group if not _missing(s.metrics.get(c, math.nan))]
            if values and c not in ("n", "length", "frames"):
                best[protocol, c] = min(values) if c in _LOWER_IS_BETTER else max(values)
    return best


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
    for s in ranked(scores):
        cells = [_cell(c, s.metrics, s.intervals.get(c)) for c in columns]
        rows.append([brief(s.tracker, 60), s.protocol, str(s.sequences), *cells])
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
        heading = f"\n{brief(s.tracker, 60)} ({s.protocol})"
        if not table:
            parts.append(f"{heading}: no {group.removeprefix('per_')}s")
            continue
        columns = _columns(list(table.values()))
        rows = [[group.removeprefix("per_"), *(TITLES[c] or c for c in columns)]]
        rows += [[name, *(_cell(c, row) for c in columns)] for name, row in table.items()]
        parts.append(f"{heading}\n{_align(rows)}")
    return "\n".join(parts)


def notes(scores: Sequence[Score], told: Sequence[str] = ()) -> list[str]:
    """Return the notes of all scores, each once, with the trackers and protocols it holds for.

    Args:
        scores: one per tracker and protocol.
        told: notes to leave out, those that are of no tracker in particular.

    Returns:
        One line each.
    """
    found: dict[str, list[str]] = {}
    for s in scores:
        for note in (n for n in s.notes if n not in told):
            found.setdefault(note, []).append(f"{s.tracker} ({s.protocol})")
    return [f"{', '.join(who)}: {note}" for note, who in found.items()]


def csv_text(scores: Sequence[Score], sequences: bool = False) -> str:
    """Return the headline numbers as CSV, full precision, the best tracker first.

    Args:
        scores: one per tracker and protocol.
        sequences: also a row for each sequence.

    Returns:
        A row per tracker and protocol, with "(all)" for the sequence.
    """
    columns = [c for c in TITLES if any(c in s.metrics for s in scores)]
    bounds = [c for c in columns if any(c in s.intervals for s in scores)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = [*columns, *(f"{c}_{side}" for c in bounds for side in ("low", "high"))]
    writer.writerow(["tracker", "protocol", "sequence", "sequences", *header])

    def row(s: Score, name: str, count: int, numbers: Mapping[str, float]) -> list[object]:
        values = [repr(float(numbers[c])) if c in numbers else "" for c in columns]
        return [printable(s.tracker), s.protocol, printable(name), count, *values]

    for s in ranked(scores):
        ends = [v for c in bounds for v in s.intervals.get(c, ("", ""))]
        writer.writerow([*row(s, "(all)", s.sequences, s.metrics), *ends])
        for name, numbers in s.per_sequence.items() if sequences else ():
            writer.writerow([*row(s, name, 1, numbers), *[""] * (2 * len(bounds))])
    return out.getvalue()


def latex_text(scores: Sequence[Score], benchmark: str) -> str:
    """Return a LaTeX table (booktabs): fractions in percent, the best of each protocol in bold.

    Args:
        scores: one per tracker and protocol.
        benchmark: its name, for the caption.

    Returns:
        The table, the best tracker first; a wide one is shrunk to the width of the text.
    """
    columns = _columns([s.metrics for s in scores])
    best = best_values(scores)
    several = len({s.protocol for s in scores}) > 1
    wide = len(columns) > _COLUMNS_THAT_FIT
    titles = [
        "Tracker",
        *(["Rules"] if several else []),
        *(_escape(TITLES[c] or c) for c in columns),
    ]
    lines = [
        "% needs \\usepackage{booktabs}" + (" and \\usepackage{graphicx}" if wide else ""),
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape(benchmark)}.}}",
        *([r"  \resizebox{\linewidth}{!}{%"] if wide else []),
        r"  \begin{tabular}{l" + ("l" if several else "") + "r" * len(columns) + "}",
        r"    \toprule",
        "    " + " & ".join(titles) + r" \\",
        r"    \midrule",
    ]
    for s in ranked(scores):
        cells = [_escape(s.tracker), *([_escape(s.protocol)] if several else [])]
        for c in columns:
            cell = _percent(c, s.metrics)
            bold = s.metrics.get(c, math.nan) == best.get((s.protocol, c), math.inf)
            cells.append(rf"\textbf{{{cell}}}" if bold else cell)
        lines.append("    " + " & ".join(cells) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}" + ("}" if wide else ""), r"\end{table}"]
    return "\n".join(lines) + "\n"


def _percent(name: str, row: Mapping[str, float]) -> str:
    if name in (*_COUNTS, "accuracy", "robustness", "eao"):
        cell = _cell(name, row)
        return cell if name in _COUNTS or cell == "-" else f"{row[name]:.3f}"
    value = row.get(name, float("nan"))
    return "-" if _missing(value) else f"{100 * value:.1f}"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


def _escape(name: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in printable(name))


def record(scores: Sequence[Score], benchmark: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return everything that was scored, to be written as JSON.

    Args:
        scores: one per tracker and protocol.
        benchmark: its name.
        arguments: the command line that made the scores.
    """
    return {
        "benchmark": benchmark,
        "command": list(arguments),
        "versions": {
            "jaxtrack": jaxtrack.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "scores": list(scores),
    }
