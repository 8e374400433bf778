"""One self-contained HTML page of an evaluation: no network, opens anywhere.

Tables that sort, curves that switch, attributes, and for each sequence its overlap over time and a film
strip. Beside the page: the same tables as CSV and LaTeX.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import platform
import shlex
import sys
from collections.abc import Sequence as Items
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import jax
import numpy as np

import jaxtrack
from eval.report.published import of_benchmark
from eval.tracking.sequences import Sequence
from jaxtrack.io.atomic import write_whole

if TYPE_CHECKING:
    from eval.run import Outcome

# Distinct on white and on grey, also for most colour-blind eyes (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#555555")
STRIP_FRAMES = 6
STRIP_HEIGHT = 120  # pixels
STRIPS_AT_MOST = 60  # of all sequences; beyond, the best and worst ones
POINTS_AT_MOST = 300  # of an overlap curve
HEADLINES = {
    "auc": "AUC",
    "precision_20px": "precision",
    "norm_precision_0_20": "norm. precision",
    "average_overlap": "AO",
    "success_rate_0_50": "SR 0.50",
    "success_rate_0_75": "SR 0.75",
}


def write_report(path: Path, outcomes: Items[Outcome], sequences: Items[Sequence]) -> Path:
    """Write the page, and ``scores.csv`` and ``scores.tex`` beside it.

    Args:
        path: the html file.
        outcomes: trackers with their tracks and scores, on the same sequences.
        sequences: the sequences, to draw film strips from.

    Returns:
        ``path``.
    """
    import jinja2

    data = collect(outcomes, sequences)
    template = (Path(__file__).parent / "page.html.jinja").read_text()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    # "</" inside a script element would end it.
    payload = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    page = environment.from_string(template).render(data=data, payload=payload, colours=COLOURS)
    write_whole(path, page.encode())
    write_whole(path.with_name("scores.csv"), to_csv(outcomes).encode())
    write_whole(path.with_name("scores.tex"), to_latex(outcomes).encode())
    return path


def collect(outcomes: Items[Outcome], sequences: Items[Sequence]) -> dict[str, Any]:
    """Everything that the page shows, as plain lists and numbers."""
    first = outcomes[0].report
    return {
        "benchmark": first.benchmark.name,
        "protocol": first.protocol.name,
        "sequences": len(first.names),
        "frames": int(sum(s.length for s in sequences)),
        "headlines": {k: v for k, v in HEADLINES.items() if k in first.overall()},
        "trackers": [_tracker(outcome) for outcome in outcomes],
        "thresholds": _thresholds(first),
        "attributes": sorted(first.attributes),
        "strips": _strips(outcomes, sequences),
        "published": [entry._asdict() for entry in of_benchmark(first.benchmark.name)],
        "command": shlex.join(["python", "-m", "eval.run", *sys.argv[1:]]),
        "versions": _versions(),
    }


def _tracker(outcome: Outcome) -> dict[str, Any]:
    report = outcome.report
    overall, intervals = report.overall(), report.intervals()
    rate = outcome.frames_per_second
    return {
        "name": outcome.name,
        "overall": {key: _round(overall[key]) for key in HEADLINES if key in overall},
        "intervals": {
            key: [_round(v) for v in intervals[key]] for key in HEADLINES if key in intervals
        },
        "fps": round(rate, 1) if np.isfinite(rate) else None,
        "curves": {key: [_round(v) for v in curve] for key, curve in report.curves().items()},
        "attributes": {
            name: {"n": numbers["n"], "auc": _round(numbers["auc"])}
            for name, numbers in report.per_attribute().items()
        },
        "per_sequence": {
            name: {key: _round(numbers[key]) for key in HEADLINES if key in numbers}
            for name, numbers in report.per_sequence().items()
        },
        "overlaps": {name: _thin(report.frame_overlaps[name]) for name in report.names},
        "notes": list(report.notes),
    }


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _thin(overlaps: np.ndarray) -> list[list[float | None]]:
    """Pairs of frame and overlap, thinned to what a screen can show."""
    step = max(1, len(overlaps) // POINTS_AT_MOST)
    return [[i, _round(overlaps[i])] for i in range(0, len(overlaps), step)]


def _thresholds(report: Any) -> dict[str, list[float]]:
    found = {"success": np.linspace(0, 1, 21), "precision": np.arange(51)}
    if "norm_precision" in report.curves():
        found["norm_precision"] = np.linspace(0, 0.5, 51)
    return {key: [round(float(v), 3) for v in values] for key, values in found.items()}


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "numpy", "opencv-python")
    device = jax.devices()[0]
    return {
        "jaxtrack": jaxtrack.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": f"{device.platform}: {device.device_kind}",
    }


def _strips(outcomes: Items[Outcome], sequences: Items[Sequence]) -> dict[str, list[str]]:
    """Film strips by sequence: jpeg data addresses of evenly spaced frames with all boxes drawn."""
    scores = outcomes[0].report.per_sequence()
    order = sorted(sequences, key=lambda s: scores[s.name]["auc"])
    half = STRIPS_AT_MOST // 2
    chosen = order if len(order) <= STRIPS_AT_MOST else [*order[:half], *order[-half:]]
    return {s.name: _strip(outcomes, s) for s in chosen}


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
    width = round(frame.shape[1] * scale)
    small = cv2.resize(frame, (width, STRIP_HEIGHT), interpolation=cv2.INTER_AREA)
    boxes = [(sequence.boxes[index], (255, 255, 255), 3)]
    for outcome, colour in zip(outcomes, COLOURS * len(outcomes)):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        boxes.append((outcome.tracks[sequence.name].boxes[index], (red, green, blue), 1))
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


def to_csv(outcomes: Items[Outcome]) -> str:
    """Headline numbers, one line per tracker and per tracker and sequence."""
    text = io.StringIO()
    writer = csv.writer(text)
    keys = [key for key in HEADLINES if key in outcomes[0].report.overall()]
    writer.writerow(["tracker", "sequence", *keys])
    for outcome in outcomes:
        overall = outcome.report.overall()
        writer.writerow([outcome.name, "(all)", *(f"{overall[key]:.6f}" for key in keys)])
        for name, numbers in outcome.report.per_sequence().items():
            writer.writerow([outcome.name, name, *(f"{numbers[key]:.6f}" for key in keys)])
    return text.getvalue()


def to_latex(outcomes: Items[Outcome]) -> str:
    """The headline table, the best number of each column in bold."""
    keys = [key for key in HEADLINES if key in outcomes[0].report.overall()]
    rows = [(o.name, [o.report.overall()[key] for key in keys]) for o in outcomes]
    best = np.nanmax([values for _, values in rows], axis=0)
    lines = [
        "\\begin{tabular}{l" + "r" * len(keys) + "}",
        "\\hline",
        "tracker & " + " & ".join(HEADLINES[key] for key in keys) + " \\\\",
        "\\hline",
    ]
    for name, values in rows:
        cells = [f"{100 * v:.1f}" for v in values]
        cells = [f"\\textbf{{{c}}}" if v == b else c for c, v, b in zip(cells, values, best)]
        lines.append(" & ".join([name.replace("_", "\\_"), *cells]) + " \\\\")
    return "\n".join([*lines, "\\hline", "\\end{tabular}", ""])
