"""Expected average overlap: pieces of supervised runs and the curve over their lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

_Piece = tuple[int, int, int, np.ndarray]  # start, stop, length for the weight, padded overlaps
REGION, SKIPPED, INITIALISED, FAILED = -1, 0, 1, 2
BURN_IN = 10  # frames from an initialisation on that accuracy leaves out
SKIPPING = 5  # the tracker restarts this many frames after a failure


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One repetition of a tracker on one sequence.

    Attributes:
        regions: (n, 4) boxes or (n, 8) corner points in pixels, NaN on special frames.
        codes: int (n,), -1 region, 0 skipped, 1 initialisation, 2 failure.
    """

    regions: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.codes)

    @property
    def failures(self) -> np.ndarray:
        """Indices of the frames at which the tracker failed."""
        return np.flatnonzero(self.codes == FAILED)


@dataclasses.dataclass(frozen=True)
class VOTProtocol:
    """The rules of one toolkit for supervised runs.

    Attributes:
        name: name on the command line.
        source: the published code.
        regions: rule of `eval.metrics.regions`.
        eao_margin: pixels by which the bounds shrink for the expected average overlap.
        pooling: accuracy and failures over the "frames" of all sequences (failures are summed), or
            as a mean over "sequences" weighted by their lengths.
        fragments: "restart" cuts a run where the tracker restarts and keeps the skipped frames inside,
            "failure" keeps what lies between an initialisation and the failure.
        first_entry: index of the curve that belongs to a length of one frame.
        curve_start: value of the curve's entry 0.
        lengths: "cut" shortens runs and ground truth to the shorter, "equal" refuses another length.
    """

    name: str
    source: str
    regions: Literal["pysot", "vot_toolkit"]
    eao_margin: int
    pooling: Literal["frames", "sequences"]
    fragments: Literal["restart", "failure"]
    first_entry: int
    curve_start: float
    lengths: Literal["cut", "equal"]


VOT_PROTOCOLS: dict[str, VOTProtocol] = {
    "pysot": VOTProtocol(
        name="pysot",
        source="STVIR/pysot d04028f toolkit/",
        regions="pysot",
        eao_margin=1,
        pooling="frames",
        fragments="restart",
        first_entry=0,
        curve_start=1.0,
        lengths="cut",
    ),
    "vot_toolkit": VOTProtocol(
        name="vot_toolkit",
        source="vot-toolkit 0.9.0 (run, not read)",
        regions="vot_toolkit",
        eao_margin=0,
        pooling="sequences",
        fragments="failure",
        first_entry=1,
        curve_start=0.0,
        lengths="equal",
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class MeasuredRun:
    """One run with its overlaps.

    Attributes:
        sequence: index of its sequence.
        frames: frames of the ground truth.
        failures: indices of the failures in the whole result file.
        codes: int (n,) of the scored frames.
        accuracy: (n,) overlap, NaN on special frames and in the burn-in.
        eao: (n,) overlap within the bounds of the expected average overlap, NaN on special frames.
    """

    sequence: int
    frames: int
    failures: np.ndarray
    codes: np.ndarray
    accuracy: np.ndarray
    eao: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Fragments:
    """The pieces of all runs.

    Attributes:
        overlaps: (F, L) overlap per frame, zeros after a failure, NaN after a sequence's end.
        weights: (F,) weight of each piece.
        sequence: (F,) index of the sequence it comes from.
    """

    overlaps: np.ndarray
    weights: np.ndarray
    sequence: np.ndarray


def fragments(
    runs: Sequence[MeasuredRun],
    protocol: VOTProtocol,
    tags: Sequence[np.ndarray] | None = None,
    empty_tag: bool = False,
) -> Fragments:
    """Cut runs into pieces.

    Args:
        runs: measured runs.
        protocol: the rules.
        tags: per sequence, flags of the frames a tag holds for; None weights every piece by 1.
        empty_tag: weigh by the flags of the whole sequence instead of the piece's (pysot's tag "empty").

    Returns:
        The pieces, padded to the longest run.
    """
    longest = _longest(runs, protocol)
    rows, weights, owners = [], [], []
    repetitions = sum(r.sequence == runs[-1].sequence for r in runs) if runs else 1
    share = 1 / (repetitions + 1e-10)
    cut = _cut_at_restarts if protocol.fragments == "restart" else _cut_at_failures
    for run in runs:
        for start, stop, length, row in cut(run, longest):
            rows.append(row)
            owners.append(run.sequence)
            if tags is None:
                weights.append(share if protocol.fragments == "restart" else 1.0)
            else:
                flags = tags[run.sequence]
                tagged = flags.sum() if empty_tag else flags[start:stop].sum()
                weights.append(share * tagged / (length + 1e-16))
    return Fragments(np.array(rows).reshape(-1, longest), np.array(weights), np.array(owners, int))


def _longest(runs: Sequence[MeasuredRun], protocol: VOTProtocol) -> int:
    """Return frames of the longest run, or of the longest piece where pieces do not hold skipped frames."""
    if protocol.fragments == "restart":
        return max((len(r.eao) for r in runs), default=0)
    return max((stop - start for r in runs for start, stop, _ in _tracked(r)), default=0)


def _cut_at_restarts(run: MeasuredRun, longest: int) -> Iterator[_Piece]:
    """Cut where the tracker restarts: a piece holds the frames skipped at its end."""
    n = len(run.eao)
    starts = [0, *(int(f) + SKIPPING for f in run.failures if f + SKIPPING <= n)]
    for k, start in enumerate(starts):
        last = k == len(starts) - 1
        stop = n if last else starts[k + 1] + 1
        row = np.full(longest, np.nan if last else 0.0)
        piece = run.eao[start:stop]
        # A run without any failure keeps its unknown frames (the first) as they are.
        row[: len(piece)] = np.nan_to_num(piece) if len(run.failures) else piece
        yield start, stop, (run.frames - start if last and len(run.failures) else stop - start), row


def _cut_at_failures(run: MeasuredRun, longest: int) -> Iterator[_Piece]:
    """Cut at initialisations and failures; the overlap is 0 ever after a failure."""
    for start, stop, failed in _tracked(run):
        row = np.full(longest, 0.0 if failed else np.nan)
        row[: stop - start] = np.nan_to_num(run.eao[start:stop])
        yield start, stop, stop - start, row


def _tracked(run: MeasuredRun) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, failed) of each stretch from an initialisation up to the failure or the end."""
    starts = np.flatnonzero(run.codes == INITIALISED)
    limits = [*starts[1:], len(run.codes)]
    for start, limit in zip(starts, limits):
        failed = run.failures[(run.failures >= start) & (run.failures < limit)]
        yield int(start), int(failed[0]) if len(failed) else int(limit), bool(len(failed))


def running_means(overlaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the frames 1..i of every piece.

    Args:
        overlaps: (F, L).

    Returns:
        The means (F, L), entry 0 is 0; and which entries are inside a piece, bool (F, L).
    """
    means = np.zeros_like(overlaps)
    steps = np.arange(1, overlaps.shape[1])
    np.divide(np.cumsum(overlaps[:, 1:], axis=1), steps, out=means[:, 1:])
    return means, ~np.isnan(overlaps)


def expected_overlap(pieces: Fragments, protocol: VOTProtocol) -> np.ndarray:
    """Return the curve of the expected overlap over the sequence length.

    Args:
        pieces: of `fragments`.
        protocol: the rules.

    Returns:
        (L,); float32 by pysot's rules, NaN where no piece has any weight.
    """
    if protocol.fragments == "failure":
        return _expected_overlap_float32(pieces, protocol)
    means, alive = running_means(pieces.overlaps)
    weights = pieces.weights[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        curve = np.where(alive, means * weights, 0.0).sum(axis=0) / (alive * weights).sum(axis=0)
    curve[~alive.any(axis=0)] = 0.0
    curve[:1] = protocol.curve_start
    return curve.astype(np.float32)


def _expected_overlap_float32(pieces: Fragments, protocol: VOTProtocol) -> np.ndarray:
    """Return the curve with vot-toolkit's roundings: float32 means, added one after the other in float32."""
    overlaps = pieces.overlaps.astype(np.float32)
    curve = np.full(overlaps.shape[1], protocol.curve_start)
    for i in range(1, len(curve)):
        means = overlaps[:, 1 : i + 1].mean(axis=1)
        means = means[~np.isnan(overlaps[:, i])]
        curve[i] = float(np.cumsum(means, dtype=np.float32)[-1]) / len(means)
    return curve


def curve_entries(interval: tuple[int, int], protocol: VOTProtocol) -> slice:
    """Return the entries of the curve that the interval averages.

    Args:
        interval: shortest and longest sequence length.
        protocol: the rules.

    Returns:
        A slice of the curve.
    """
    offset = protocol.first_entry - 1
    return slice(interval[0] + offset, interval[1] + offset + 1)


def average(curve: np.ndarray, interval: tuple[int, int] | None, protocol: VOTProtocol) -> float:
    """Return the mean of the curve over the interval; NaN without an interval or without a known entry.

    Args:
        curve: (L,).
        interval: shortest and longest sequence length.
        protocol: the rules.

    Returns:
        The expected average overlap.
    """
    if interval is None:
        return float("nan")
    return float(nan_mean(curve[curve_entries(interval, protocol)].astype(np.float64)))


def nan_mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN where there are none, without a warning."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
