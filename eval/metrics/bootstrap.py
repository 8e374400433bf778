"""Percentile bootstrap over sequences: how far the choice of videos carries a number.

Sequences are drawn with replacement; frames of one video are not independent and are never resampled apart.
The same seed draws the same sequences, so that trackers are compared on equal draws.

Reference:
    Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13 (percentile intervals).
"""

from __future__ import annotations

import numpy as np


def draw(sequences: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Return how often each sequence is drawn in each resampled benchmark, int (resamples, sequences).

    Args:
        sequences: number of sequences, at least one.
        resamples: number of resampled benchmarks.
        seed: of the draws.
    """
    share = np.full(sequences, 1 / sequences)
    return np.random.default_rng(seed).multinomial(sequences, share, size=resamples)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the ends between which a share of the resampled values lies; NaN is left out.

    Args:
        values: (resamples,).
        level: the share.

    Returns:
        (low, high); both NaN without values.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap(
    values: np.ndarray,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> tuple[float, float]:
    """Return the interval of a mean over sequences.

    Args:
        values: (S,) one number per sequence; NaN is left out.
        level: share of the resampled means inside the interval.
        resamples: number of resampled benchmarks.
        seed: of the draws.
        weights: (S,) weight of each sequence in the mean (frames), or None for equal weights.

    Returns:
        (low, high); both NaN without values.
    """
    values = np.asarray(values, np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    known = ~np.isnan(values)
    values, weights = values[known], weights[known]
    if not len(values):
        return float("nan"), float("nan")
    counts = draw(len(values), resamples, seed)
    means = (counts @ (values * weights)) / np.maximum(counts @ weights, 1e-300)
    return interval(means, level)
