"""GOT-10k: average overlap (AO) and success rate (SR), as the toolkit's validation report computes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtrack.errors import JaxtrackError

from .annotation import Annotation
from .bootstrap import bootstrap
from .counts import overlaps
from .names import IncompleteError, match_names
from .protocols import FLOAT64_EPSILON

THRESHOLDS = np.linspace(0, 1, 101)


@dataclasses.dataclass(frozen=True, eq=False)
class GOT10kReport:
    """Scores of one tracker on GOT-10k.

    Attributes:
        tracker: the tracker's name.
        names: (S,) sequences that were scored.
        lengths: (S,) frames of each, without the first.
        frame_overlaps: sequence -> overlaps of the visible frames of all repetitions, one after the other.
        bounded_overlaps: sequence -> (repetitions, n - 1) overlap of every frame but the first.
        frame_rates: sequence -> 1 / time of every frame of all repetitions, frames/s; empty without times.
        notes: what was left out, one line each.
    """

    tracker: str
    names: tuple[str, ...]
    lengths: np.ndarray
    frame_overlaps: Mapping[str, np.ndarray]
    bounded_overlaps: Mapping[str, np.ndarray]
    frame_rates: Mapping[str, np.ndarray]
    notes: tuple[str, ...]

    @property
    def curve(self) -> np.ndarray:
        """Share of the frames of all sequences with an overlap above 0.00, 0.01, ..., 1.00; (101,)."""
        values = np.sort(np.concatenate(list(self.frame_overlaps.values())))
        return (len(values) - np.searchsorted(values, THRESHOLDS, side="right")) / len(values)

    def overall(self) -> dict[str, float]:
        """Return "ao", "sr_0.50", "sr_0.75" over the frames of all sequences and "speed_fps"."""
        values = np.concatenate(list(self.frame_overlaps.values()))
        return {
            "ao": float(values.mean()),
            "sr_0.50": float(np.mean(values > 0.5)),
            "sr_0.75": float(np.mean(values > THRESHOLDS[75])),
            "speed_fps": _mean(np.concatenate(list(self.frame_rates.values()))),
        }

    def per_sequence(self) -> dict[str, dict[str, float]]:
        """Return sequence -> "ao", "sr_0.50", "sr_0.75", "speed_fps", "length"."""
        return {
            name: {
                "ao": _mean(values),
                "sr_0.50": _mean(values > 0.5),
                "sr_0.75": _mean(values > THRESHOLDS[75]),
                "speed_fps": _mean(self.frame_rates[name]),
                "length": int(length),
            }
            for (name, values), length in zip(self.frame_overlaps.items(), self.lengths)
        }

    def mean_over_sequences(self) -> dict[str, float]:
        """Return "ao", "sr_0.50", "sr_0.75" with every sequence weighing the same."""
        rows = self.per_sequence().values()
        return {
            k: _mean(np.array([r[k] for r in rows if not np.isnan(r[k])]))
            for k in ("ao", "sr_0.50", "sr_0.75")
        }

    def intervals(
        self, level: float = 0.95, resamples: int = 2000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals over sequences of the pooled "ao", "sr_0.50" and "sr_0.75"."""
        weights = np.array([len(v) for v in self.frame_overlaps.values()], np.float64)
        rows = list(self.per_sequence().values())
        return {
            k: bootstrap(np.array([r[k] for r in rows]), level, resamples, seed, weights)
            for k in ("ao", "sr_0.50", "sr_0.75")
        }


def _mean(values: np.ndarray) -> float:
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def clip_boxes(boxes: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Clip boxes to the image the toolkit's way.

    The corner is moved inside first and the size is then limited to what is left; a box over the left or top
    border is therefore shifted, not cut.

    Args:
        boxes: (n, 4), (x, y, w, h), pixels.
        size: (width, height) of the image.

    Returns:
        float64 (n, 4), a new array.

    Reference:
        got-10k/toolkit 956e728, `rect_iou` with a bound.
    """
    clipped = np.array(boxes, np.float64)
    for k in (0, 1):
        clipped[:, k] = np.clip(clipped[:, k], 0, size[k])
        clipped[:, k + 2] = np.minimum(np.maximum(clipped[:, k + 2], 0), size[k] - clipped[:, k])
    return clipped


def bounded_overlap(
    boxes: np.ndarray, others: np.ndarray, size: tuple[float, float] | None
) -> np.ndarray:
    """Return the overlap of two boxes per frame inside the image.

    Args:
        boxes: (n, 4), (x, y, w, h), pixels.
        others: (n, 4), the same convention.
        size: (width, height) of the image, or None for no clipping.

    Returns:
        float64 (n,) in [0, 1].
    """
    if size is not None:
        boxes, others = clip_boxes(boxes, size), clip_boxes(others, size)
    return np.clip(overlaps(boxes, others, FLOAT64_EPSILON), 0.0, 1.0)


def evaluate_got10k(
    results: Mapping[str, Sequence[np.ndarray]],
    ground_truth: Mapping[str, Annotation],
    times: Mapping[str, Sequence[np.ndarray]] | None = None,
    tracker: str = "tracker",
    allow_missing: bool = False,
) -> GOT10kReport:
    """Score a tracker on sequences of GOT-10k whose ground truth is public.

    Args:
        results: sequence -> repetitions of (n, 4) boxes, (x, y, w, h), pixels.
        ground_truth: sequence -> annotation with `size`; `cover` where frames may be out of view.
        times: sequence -> seconds per frame of each repetition, for the speed.
        tracker: name for the report.
        allow_missing: score what is there; every omission is a line in `notes`.

    Returns:
        The report.

    Raises:
        JaxtrackError: missing sequences, sizes or rows, or values that are not finite.
    """
    notes: list[str] = []
    names = match_names(results, ground_truth, allow_missing, notes)
    visible: dict[str, np.ndarray] = {}
    bounded: dict[str, np.ndarray] = {}
    for name in names:
        annotation, runs = ground_truth[name], results[name]
        if annotation.size is None:
            raise JaxtrackError(f"{name}: the image size is not known, which the overlap needs")
        if not len(runs):
            raise JaxtrackError(f"{name}: no repetition")
        rows = [_fit(name, run, len(annotation), allow_missing, notes) for run in runs]
        table = np.stack([bounded_overlap(r, annotation.boxes, annotation.size)[1:] for r in rows])
        bounded[name] = np.nan_to_num(table)
        cover = annotation.cover
        seen = np.ones(len(annotation), bool) if cover is None else np.asarray(cover) > 0
        visible[name] = bounded[name][:, seen[1:]].ravel()
    return GOT10kReport(
        tracker=tracker,
        names=tuple(names),
        lengths=np.array([len(ground_truth[n]) - 1 for n in names]),
        frame_overlaps=visible,
        bounded_overlaps=bounded,
        frame_rates={n: _frame_rates((times or {}).get(n)) for n in names},
        notes=tuple(notes),
    )


def _fit(
    name: str, boxes: np.ndarray, frames: int, allow_missing: bool, notes: list[str]
) -> np.ndarray:
    """Check one repetition; NaN rows and missing rows have overlap 0 once they are allowed."""
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise JaxtrackError(f"{name}: boxes of shape {boxes.shape} where (frames, 4) is needed")
    bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    problem = ""
    if len(boxes) != frames:
        problem = f"{name}: {len(boxes)} result rows for {frames} frames"
    elif len(bad):
        problem = f"{name}: {len(bad)} result rows are not finite (first: row {bad[0] + 1})"
    if not problem:
        return boxes
    if not allow_missing:
        raise IncompleteError(problem, "correct the file", "score what is there")
    notes.append(f"{problem}: missing rows count as failures, rows behind the last frame are cut")
    fitted = np.zeros((frames, 4))
    fitted[: len(boxes)] = np.where(np.isfinite(boxes).all(axis=1)[:, None], boxes, 0.0)[:frames]
    return fitted


def _frame_rates(times: Sequence[np.ndarray] | None) -> np.ndarray:
    """Return 1 / time of all frames that took any time."""
    seconds = np.concatenate([np.ravel(t) for t in times]) if times else np.zeros(0)
    return 1.0 / seconds[seconds > 0]
