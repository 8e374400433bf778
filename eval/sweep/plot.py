"""The plot of a hyper-parameter search."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np


def plot(rows: list[dict[str, float]], names: Sequence[str], title: str) -> bytes:
    """Draw AUC over each field, and over both where there are two; returns a png.

    Args:
        rows: a row for each setting, best first: fields and "auc".
        names: the fields.
        title: above the plot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = len(names) + (len(names) == 2)
    figure = Figure(figsize=(4.2 * panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    auc = np.array([row["auc"] for row in rows])
    columns = {name: np.array([row[name] for row in rows]) for name in names}
    for k, name in enumerate(names):
        axes = figure.add_subplot(1, panels, k + 1)
        axes.plot(columns[name], auc, "o", ms=4, alpha=0.5, label="one setting")
        levels = np.unique(columns[name])
        if len(levels) < len(rows):
            axes.plot(levels, [auc[columns[name] == v].max() for v in levels], label="best")
            axes.plot(levels, [auc[columns[name] == v].mean() for v in levels], label="mean")
        axes.plot(columns[name][0], auc[0], "r*", ms=12, label="best of all")
        axes.set(xlabel=name, ylabel="AUC")
        axes.grid(alpha=0.3)
        if k == 0:
            axes.legend(fontsize=8)
    if len(names) == 2:
        _heat_map(figure, figure.add_subplot(1, panels, panels), columns, auc)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _heat_map(figure: Any, axes: Any, columns: dict[str, np.ndarray], auc: np.ndarray) -> None:
    """AUC over two fields: cells of a full grid, points of random settings."""
    (first, x), (second, y) = columns.items()
    across, down = np.unique(x), np.unique(y)
    if len(across) * len(down) == len(auc):
        table = np.empty((len(down), len(across)))
        table[np.searchsorted(down, y), np.searchsorted(across, x)] = auc
        shown = axes.imshow(table, origin="lower", aspect="auto")
        axes.set_xticks(range(len(across)), [f"{v:g}" for v in across])
        axes.set_yticks(range(len(down)), [f"{v:g}" for v in down])
    else:
        shown = axes.scatter(x, y, c=auc)
    axes.set(xlabel=first, ylabel=second)
    figure.colorbar(shown, ax=axes, label="AUC")
