"""Long-term tracking: precision, recall and F1 over the tracker's own confidence (VOT2018-LT)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxtrack.errors import JaxtrackError

from .annotation import Annotation
from .bootstrap import draw, interval
from .names import match_names
from .regions import as_regions, region_overlap

RESOLUTION = 100


@dataclasses.dataclass(frozen=True, eq=False)
class LongTermReport:
    """Precision, recall and F1 of one tracker.

    Attributes:
        tracker: the tracker's name.
        names: (S,) sequences.
        thresholds: (100,) confidence thresholds, descending, from +inf to -inf.
        precision: (S, 100) mean overlap of the frames at or above each threshold.
        recall: (S, 100) their summed overlap over the frames in which the target is present.
        frame_overlaps: sequence -> (n,) overlap, NaN where the target is absent or no box is given.
        notes: what was left out, one line each.
    """

    tracker: str
    names: tuple[str, ...]
    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    frame_overlaps: Mapping[str, np.ndarray]
    notes: tuple[str, ...]

    def curves(self) -> dict[str, np.ndarray]:
        """Return "precision", "recall" (means over sequences) and "f1" (of the means), (100,) each."""
        precision, recall = self.precision.mean(axis=0), self.recall.mean(axis=0)
        return {"precision": precision, "recall": recall, "f1": f_score(precision, recall)}

    def overall(self) -> dict[str, float]:
        """Return "precision", "recall" and "f1" at the threshold of the best F1."""
        curves, best = self.curves(), self.best
        return {k: float(v[best]) for k, v in curves.items()}

    def per_sequence(self) -> dict[str, dict[str, float]]:
        """Return sequence -> "precision", "recall", "f1" at the threshold of the best F1 over all."""
        best = self.best
        rows = zip(self.names, self.precision[:, best], self.recall[:, best])
        return {
            n: {"precision": float(p), "recall": float(r), "f1": float(f_score(p, r))}
            for n, p, r in rows
        }

    def intervals(
        self, level: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Return the bootstrap interval over sequences of "f1", its threshold chosen anew each time."""
        draws = draw(len(self.names), resamples, seed) / len(self.names)
        f1 = f_score(draws @ self.precision, draws @ self.recall)
        return {"f1": interval(np.nan_to_num(f1).max(axis=1), level)}

    @property
    def best(self) -> int:
        """Index of the threshold with the best F1."""
        return int(np.argmax(np.nan_to_num(self.curves()["f1"], nan=-1.0)))


def f_score(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Return the harmonic mean of precision and recall; NaN where both are 0.

    Args:
        precision: (n,).
        recall: (n,).

    Returns:
        (n,).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * precision * recall / (precision + recall)


def confidence_thresholds(scores: np.ndarray, resolution: int = RESOLUTION) -> np.ndarray:
    """Choose thresholds so that between any two neighbours lie equally many scores.

    Args:
        scores: all scores of all sequences; NaN is left out.
        resolution: number of thresholds, the first -inf, the last +inf.

    Returns:
        (resolution,), ascending.

    Raises:
        JaxtrackError: there are no scores.
    """
    scores = np.sort(scores[~np.isnan(scores)])
    if not len(scores):
        raise JaxtrackError(
            "no confidence score is finite: the long-term measures need one per frame"
        )
    step = np.floor(len(scores) / (resolution - 2))
    where = np.linspace(step - 1, len(scores) - step, resolution - 2)
    index = np.clip(np.floor(where + 0.5).astype(int), -len(scores), len(scores) - 1)
    return np.concatenate([[-np.inf], scores[index], [np.inf]])


def evaluate_longterm(
    regions: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    ground_truth: Mapping[str, Annotation],
    tracker: str = "tracker",
    allow_missing: bool = False,
) -> LongTermReport:
    """Score a long-term tracker.

    Args:
        regions: sequence -> (n, 4) boxes or (n, 8) corner points, NaN on special frames.
        scores: sequence -> (n,) confidence, NaN where there is none.
        ground_truth: sequence -> annotation with `size`; NaN boxes where the target is absent.
        tracker: name for the report.
        allow_missing: score the sequences that are there.

    Returns:
        The report.

    Raises:
        JaxtrackError: missing sequences, sizes or scores, or another number of frames.

    Reference:
        STVIR/pysot d04028f, F1 benchmark; Lukezic et al., "Now you see me" (2018).
    """
    notes: list[str] = []
    names = match_names(regions, ground_truth, allow_missing, notes)
    thresholds = confidence_thresholds(np.concatenate([scores[n] for n in names]))[::-1]
    precision, recall, per_frame = [], [], {}
    for name in names:
        annotation = ground_truth[name]
        if annotation.size is None:
            raise JaxtrackError(f"{name}: the image size is not known, which the overlap needs")
        given, score = as_regions(regions[name]), np.asarray(scores[name], np.float64)
        if not len(given) == len(score) == len(annotation):
            raise JaxtrackError(
                f"{name}: {len(given)} regions, {len(score)} scores and {len(annotation)} frames: "
                "one of each per frame is needed"
            )
        overlap = region_overlap(given, annotation.boxes, annotation.size)
        per_frame[name] = overlap
        present = int(np.sum(~np.isnan(annotation.boxes[:, 0])))
        p, r = _precision_recall(np.nan_to_num(overlap), np.nan_to_num(score), thresholds, present)
        precision.append(p)
        recall.append(r)
    return LongTermReport(
        tracker,
        tuple(names),
        thresholds,
        np.array(precision),
        np.array(recall),
        per_frame,
        tuple(notes),
    )


def _precision_recall(
    overlap: np.ndarray, score: np.ndarray, thresholds: np.ndarray, present: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall at each threshold; keeping nothing is precise and recalls nothing."""
    kept = np.where(np.isneginf(thresholds)[:, None], score > 0, score >= thresholds[:, None])
    number = kept.sum(axis=1)
    total = kept @ overlap
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(number > 0, total / number, 1.0)
        recall = np.where(number > 0, total / present, 0.0)
    return precision, recall
