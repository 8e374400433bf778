"""One self-contained HTML page of an evaluation: no network, opens anywhere.

Tables that sort, curves that switch, attributes, and for each sequence its overlap over time and a film
strip. Beside the page: the same tables as CSV and LaTeX, and the curves as SVG and PDF.

Names come from folders and files of anybody. The template escapes everything, the data travel as JSON that no
browser runs, and the page allows one script, this module's own, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import math
import platform
import shlex
from collections.abc import Mapping
from collections.abc import Sequence as Items
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

import jaxtrack
from jaxtrack.errors import printable
from jaxtrack.io.atomic import write_whole

from ..files.datasets import Dataset
from ..tracking.sequences import Sequence
from . import tables
from .figures import write_figures
from .published import comparison
from .scores import Outcome


class Style(NamedTuple):
    """How a tracker's line is drawn; dashes tell lines apart where colours are lost."""

    colour: str
    dashes: str


# Distinct on white and on grey, also for most colour-blind eyes (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#555555")
_DASHES = ("none", "8 4", "2 3", "8 3 2 3", "14 4", "5 2", "10 3 2 3 2 3")
STRIP_FRAMES = 6
STRIP_HEIGHT = 120  # pixels
STRIPS_AT_MOST = 60  # of all sequences; beyond, the best and worst ones
POINTS_AT_MOST = 300  # of an overlap curve
HEADLINES = (
    "auc",
    "precision_20px",
    "precision_auc_0_to_50px",
    "norm_precision_0_20",
    "norm_precision_auc_0_to_0_50",
    "average_overlap",
    "success_rate_0_50",
    "success_rate_0_75",
    *("ao", "sr_0.50", "sr_0.75", "accuracy", "robustness", "eao", "f1", "precision", "recall"),
)


def style_of(index: int) -> Style:
    """Return the style of the tracker in a row: its colour and dashes repeat together only after 56 rows."""
    return Style(COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)])


def write_report(
    path: Path,
    outcomes: Items[Outcome],
    dataset: Dataset,
    sequences: Items[Sequence] = (),
    command: Items[str] = (),
) -> Path:
    """Write the page, and beside it ``scores.csv``, ``scores.tex`` and the curves as SVG and PDF.

    Args:
        path: the html file; what ``report-NAME.html`` has behind its hyphen, the files beside it have too.
        outcomes: trackers with their scores, all under one protocol.
        dataset: what they were evaluated on.
        sequences: the sequences, to draw film strips from; empty where only results are there.
        command: the command line that made them.

    Returns:
        ``path``.

    Raises:
        JaxtrackError: a file cannot be written.
    """
    import jinja2
    import markupsafe

    ranks = {id(s): i for i, s in enumerate(tables.ranked([o.score for o in outcomes]))}
    outcomes = sorted(outcomes, key=lambda o: ranks[id(o.score)])
    data = collect(outcomes, dataset, sequences, command)
    here = Path(__file__).parent
    script = (here / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {}  # in our order
    template = environment.from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    page = template.render(
        data=data,
        script=markupsafe.Markup(script),
        script_hash=f"sha256-{digest}",
        sample=_sample,
    )
    scores = [o.score for o in outcomes]
    write_whole(path, page.encode(errors="replace"))
    ending = path.stem.removeprefix("report") if path.stem.startswith("report-") else ""
    table = path.with_name(f"scores{ending}.csv")
    write_whole(table, tables.csv_text(scores, sequences=True).encode())
    write_whole(table.with_suffix(".tex"), tables.latex_text(scores, dataset.label).encode())
    styles = [style_of(i) for i in range(len(outcomes))]
    write_figures(path.parent, outcomes, styles, dataset.label, ending)
    return path


def _sample(style: Style) -> Any:
    """Return a short piece of a tracker's line."""
    import markupsafe

    return markupsafe.Markup(
        '<svg class="sample" viewBox="0 0 30 10"><line x1="0" x2="30" y1="5" y2="5" stroke="{}" '
        'stroke-width="3" stroke-dasharray="{}"/></svg>'
    ).format(*style)


def collect(
    outcomes: Items[Outcome],
    dataset: Dataset,
    sequences: Items[Sequence] = (),
    command: Items[str] = (),
) -> dict[str, Any]:
    """Return everything that the page shows, as plain lists and numbers.

    Args:
        outcomes: trackers with their scores, in the order of the page.
        dataset: what they were evaluated on.
        sequences: the sequences, or nothing.
        command: the command line.
    """
    scores = [o.score for o in outcomes]
    names = list(dict.fromkeys(n for s in scores for n in s.per_sequence))
    main = _per_sequence_metric(scores)
    shown = {
        key: tables.TITLES[key] or "mean overlap"
        for key in HEADLINES
        if any(_round(s.metrics.get(key)) is not None for s in scores)
    }
    best = tables.best_values(scores)
    plots = {name: curve for o in outcomes for name, curve in o.plots.items()}
    return {
        "benchmark": printable(dataset.label),
        "protocol": " and ".join(dict.fromkeys(s.protocol for s in scores)),
        "sequences": [printable(n) for n in names],
        "frames": sum(
            max((len(o.overlaps.get(n, ())) for o in outcomes), default=0) for n in names
        ),
        "headlines": shown,
        "best": {k: _round(best.get((scores[0].protocol, k))) for k in shown},
        "per_sequence": tables.TITLES.get(main) or main,
        "timed": any(np.isfinite(o.frames_per_second) for o in outcomes),
        "trackers": [_tracker(o, i, names, shown, main, dataset) for i, o in enumerate(outcomes)],
        "styles": [style_of(i)._asdict() for i in range(max(len(outcomes), 1))],
        "plots": {
            name: {"title": c.title, "xlabel": c.xlabel, "key": c.key} for name, c in plots.items()
        },
        "attributes": sorted({a for s in scores for a in s.per_attribute}),
        "strips": _strips(outcomes, sequences, names, main),
        "command": printable(shlex.join(command)),
        "versions": versions(),
    }


def _per_sequence_metric(scores: Items[Any]) -> str:
    rows = [row for s in scores for row in s.per_sequence.values()]
    return next((m for m in (*tables.MAIN, "accuracy") if any(m in row for row in rows)), "auc")


def _tracker(
    outcome: Outcome,
    index: int,
    names: Items[str],
    shown: Mapping[str, str],
    main: str,
    dataset: Dataset,
) -> dict[str, Any]:
    score, rate = outcome.score, outcome.frames_per_second
    ends = {k: [_round(v) for v in score.intervals.get(k, ())] for k in shown}
    return {
        "name": printable(outcome.name),
        "style": style_of(index),
        "overall": {k: _round(score.metrics.get(k)) for k in shown},
        "intervals": {k: v if None not in v else [] for k, v in ends.items()},
        "fps": round(rate, 1) if np.isfinite(rate) else None,
        "curves": {
            name: [[round(x, 4), _round(y)] for x, y in curve.points]
            for name, curve in outcome.plots.items()
        },
        "attributes": {
            name: {"n": numbers["n"], "auc": _round(numbers.get("auc"))}
            for name, numbers in score.per_attribute.items()
        },
        "per_sequence": [_round(score.per_sequence.get(n, {}).get(main)) for n in names],
        "overlaps": [_thin(outcome.overlaps.get(n, np.zeros(0))) for n in names],
        "published": comparison(outcome, dataset),
        "notes": [printable(note) for note in score.notes],
    }


def _round(value: float | None) -> float | None:
    return round(float(value), 4) if value is not None and math.isfinite(value) else None


def _thin(overlaps: np.ndarray) -> list[list[float | None]]:
    """Return pairs of frame and overlap, thinned to what a screen can show."""
    step = max(1, len(overlaps) // POINTS_AT_MOST)
    return [[i, _round(float(overlaps[i]))] for i in range(0, len(overlaps), step)]


def versions() -> dict[str, str]:
    """Return the versions of what made the numbers, and the device."""
    found = {"jaxtrack": jaxtrack.__version__, "python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # built from its sources
            found[package] = "unknown"
    # OpenCV comes as any of four packages.
    found["opencv"] = cv2.__version__
    device = jax.devices()[0]
    return {**found, "device": f"{device.platform}: {device.device_kind}"}


def _strips(
    outcomes: Items[Outcome], sequences: Items[Sequence], names: Items[str], main: str
) -> dict[int, list[str]]:
    """Return film strips by index of the sequence: data addresses of evenly spaced frames with boxes."""
    rows = outcomes[0].score.per_sequence if outcomes else {}

    def value(sequence: Sequence) -> float:
        return rows.get(sequence.name, {}).get(main, 0.0)

    order = sorted((s for s in sequences if s.name in set(names)), key=value)
    half = STRIPS_AT_MOST // 2
    chosen = order if len(order) <= STRIPS_AT_MOST else [*order[:half], *order[-half:]]
    index = {n: i for i, n in enumerate(names)}
    return {index[s.name]: _strip(outcomes, s) for s in chosen}


def _strip(outcomes: Items[Outcome], sequence: Sequence) -> list[str]:
    wanted = set(np.linspace(0, sequence.length - 1, STRIP_FRAMES).astype(int).tolist())
    pictures = []
    for index, frame in enumerate(sequence.frames()):
        if index in wanted:
            pictures.append(_picture(outcomes, sequence, index, frame))
        if index >= max(wanted):
            break
    return pictures


def _picture(outcomes: Items[Outcome], sequence: Sequence, index: int, frame: np.ndarray) -> str:
    scale = STRIP_HEIGHT / frame.shape[0]
    width = max(1, round(frame.shape[1] * scale))
    small = cv2.resize(frame, (width, STRIP_HEIGHT), interpolation=cv2.INTER_AREA)
    boxes = [(sequence.boxes[index], (255, 255, 255), 3)]
    for i, outcome in enumerate(outcomes):
        colour, found = style_of(i).colour, outcome.boxes.get(sequence.name, ())
        if index < len(found):
            red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
            boxes.append((found[index], (red, green, blue), 1))
    for box, rgb, thickness in boxes:
        if np.isfinite(box).all():
            # Off-screen boxes may be huge; OpenCV draws within 16 bits.
            corners = np.clip(np.concatenate([box[:2], box[:2] + box[2:]]) * scale, -9999, 9999)
            x0, y0, x1, y1 = np.round(corners).astype(int).tolist()
            cv2.rectangle(small, (x0, y0), (x1, y1), rgb, thickness, cv2.LINE_AA)
    cv2.putText(small, str(index), (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 3)
    cv2.putText(small, str(index), (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1)
    done, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise RuntimeError("OpenCV could not encode a jpeg")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
