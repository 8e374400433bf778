"""The curves of an evaluation as SVG and PDF, for a paper."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtrack.errors import brief
from jaxtrack.io.atomic import write_whole

from .scores import Outcome

_SUFFIXES = ("svg", "pdf")
_LONGEST_NAME = 24  # letters of a legend


def write_figures(
    folder: Path,
    outcomes: Sequence[Outcome],
    styles: Sequence[Any],
    title: str,
    ending: str = "",
) -> list[Path]:
    """Write each curve of the trackers as ``NAME.svg`` and ``NAME.pdf``.

    Args:
        folder: where the files go.
        outcomes: the trackers, the best first.
        styles: colour and dashes of each.
        title: above the curves.
        ending: put behind each NAME.

    Returns:
        The files; none where Matplotlib is not installed.

    Raises:
        JaxtrackError: a file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        print("note: no curves as SVG and PDF: matplotlib is not installed")
        return []
    names = dict.fromkeys(name for o in outcomes for name in o.plots)
    written = []
    # Text stays text in both formats, and the files do not depend on the clock.
    settings: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "jaxtrack"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks
        for name in names:
            figure = _figure(name, outcomes, styles, title)
            for suffix in _SUFFIXES:
                path = folder / f"{name}{ending}.{suffix}"
                write_whole(path, _rendered(figure, suffix))
                written.append(path)
    return written


def _rendered(figure: Any, suffix: str) -> bytes:
    import io

    out = io.BytesIO()
    clock = {"Date": None} if suffix == "svg" else {"CreationDate": None}
    figure.savefig(out, format=suffix, metadata=clock)
    return out.getvalue()


def _figure(name: str, outcomes: Sequence[Outcome], styles: Sequence[Any], title: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5, 3.0), layout="constrained")  # one column of a paper
    axes = figure.subplots()
    labels: list[str] = []
    for outcome, style in zip(outcomes, styles):
        curve = outcome.plots.get(name)
        if curve is None:
            continue
        dashes = () if style.dashes == "none" else tuple(float(v) / 2 for v in style.dashes.split())
        axes.plot(
            [x for x, _ in curve.points],
            [y for _, y in curve.points],
            color=style.colour,
            linestyle=(0, dashes) if dashes else "-",
            linewidth=1.4,
            label=f"row {len(labels)}",
        )
        value = outcome.score.metrics.get(curve.key)
        shown = "" if value is None else f" [{value:.3f}]"
        labels.append(f"{brief(outcome.name, _LONGEST_NAME)}{shown}")
        axes.set_xlabel(curve.xlabel)
        axes.set_ylabel(curve.title)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.set_title(title, fontsize=9, parse_math=False)
    legend = axes.legend(fontsize=7, framealpha=0.8)
    for text, label in zip(legend.get_texts(), labels):
        text.set_parse_math(False)  # a name with two dollars in it is no formula
        text.set_text(label)
    return figure
