"""Named evaluation protocols: the rules in which the field's toolkits differ, as values.

The toolkits of the field score the same result files differently, by up to a point. Each difference is one
field of `Protocol`; a toolkit is a combination of fields. Nothing else in the package asks for a
toolkit by name.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from jaxtrack.errors import UsageError, unknown

SUCCESS_THRESHOLDS = np.arange(21) * 0.05
PRECISION_THRESHOLDS = np.arange(51, dtype=np.float64)
NORM_PRECISION_THRESHOLDS = np.arange(51) / 100.0
FLOAT64_EPSILON = float(np.finfo(np.float64).eps)


def colon_success_thresholds() -> np.ndarray:
    """Return Matlab's `0:0.05:1`, which is built from both ends.

    Returns:
        float64 (21,); five values differ from `i * 0.05` in the last bit, and integer boxes do hit them.
    """
    i = np.arange(21)
    return np.where(i <= 10, i * 0.05, 1 - (20 - i) * 0.05)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The rules of one toolkit for one-pass evaluation.

    Attributes:
        name: name on the command line and in reports.
        source: the published code the rules were observed on.
        first_frame: "result" keeps the tracker's own first row, "ground_truth" overwrites it.
        result_rows: rows that count as missing and take the row before: "as_is" none, "zero_size"
            those with w == 0 or h == 0, "non_positive" those with NaN or w <= 0 or h <= 0.
        nan_rows_allowed: whether the toolkit defines what a NaN row means; otherwise such a file
            is refused.
        length: results that are too long are cut; short ones are padded with zero boxes ("pad") or
            shorten the ground truth ("truncate").
        invalid_ground_truth: frames that always fail for success: "size" w <= 0 or h <= 0, "any"
            one of x, y, w, h <= 0, "none" no rule. NaN is never > 0, hence invalid.
        invalid_distance: what an invalid frame counts for precision and normalised precision:
            "precise" both precise; "never" pixel distance never precise but the normalised one
            precise; "centre" precise in both where the ground truth's (normalised) centre is not
            inside the positive quadrant; "distance" the plain distance.
        nan_ground_truth: "invalid" as above, "drop" leaves the frame out altogether.
        absent: "fail" takes frames flagged absent out of the numerators, "ignore" does not read
            the flag.
        denominator: "all" frames of the sequence or only its "valid" ones.
        corners: "continuous" right = x + w; "pixel" right = x + w - 1 and 1 added back (the same up
            to rounding).
        union_epsilon: added to the union of the overlap.
        overlap_clipped: rounding never lifts an overlap above 1.
        normalise: "divide_first" divides both centres by the ground truth's size
            (+ `size_epsilon`) and subtracts, "subtract_first" divides the difference by the size,
            at least 1 px, "squares" divides its square twice by the size.
        size_epsilon: see `normalise`.
        length_epsilon: added to the denominator.
        colon_thresholds: success thresholds as Matlab's colon operator builds them.
        float32_curves: per-sequence curves are stored in float32.
        drop_zero_curves: sequences whose whole curve is 0 are left out of the means.
        rounded: both boxes are rounded to whole pixels first.
        coarse_grid: 21 thresholds for the distances as well, and areas by the trapezoid rule.
        norm_headline: headline normalised precision: "at_0.20" or the "mean" of the curve.
        norm_precision_on: benchmarks for which the toolkit has normalised precision; empty = all.
    """

    name: str
    source: str
    first_frame: Literal["result", "ground_truth"] = "ground_truth"
    result_rows: Literal["as_is", "zero_size", "non_positive"] = "as_is"
    nan_rows_allowed: bool = False
    length: Literal["pad", "truncate"] = "pad"
    invalid_ground_truth: Literal["size", "any", "none"] = "any"
    invalid_distance: Literal["precise", "never", "centre", "distance"] = "precise"
    nan_ground_truth: Literal["invalid", "drop"] = "invalid"
    absent: Literal["fail", "ignore"] = "fail"
    denominator: Literal["all", "valid"] = "all"
    corners: Literal["continuous", "pixel"] = "continuous"
    union_epsilon: float = 0.0
    overlap_clipped: bool = False
    normalise: Literal["divide_first", "subtract_first", "squares"] = "divide_first"
    size_epsilon: float = 0.0
    length_epsilon: float = 0.0
    colon_thresholds: bool = False
    float32_curves: bool = False
    drop_zero_curves: bool = False
    rounded: bool = False
    coarse_grid: bool = False
    norm_headline: Literal["at_0.20", "mean"] = "at_0.20"
    norm_precision_on: tuple[str, ...] = ()

    @property
    def success_thresholds(self) -> np.ndarray:
        """Success thresholds, float64 (21,)."""
        return colon_success_thresholds() if self.colon_thresholds else SUCCESS_THRESHOLDS

    @property
    def precision_thresholds(self) -> np.ndarray:
        """Distance thresholds in pixels, float64 (51,), or (21,) on the coarse grid."""
        return np.linspace(0, 50, 21) if self.coarse_grid else PRECISION_THRESHOLDS

    @property
    def norm_precision_thresholds(self) -> np.ndarray:
        """Thresholds of the normalised distance, float64 (51,), or (21,) on the coarse grid."""
        return np.linspace(0, 0.5, 21) if self.coarse_grid else NORM_PRECISION_THRESHOLDS

    def area(self, curves: np.ndarray) -> np.ndarray:
        """Return the area under curves, over thresholds scaled to [0, 1].

        Args:
            curves: (..., K).

        Returns:
            (...), the mean of the points, or the trapezoid rule on the coarse grid.
        """
        if self.coarse_grid:
            return (curves[..., 1:] + curves[..., :-1]).sum(axis=-1) / (2 * (curves.shape[-1] - 1))
        return curves.mean(axis=-1)


_PYSOT = Protocol(
    name="pysot",
    source="STVIR/pysot d04028f toolkit/",
    first_frame="result",
    invalid_ground_truth="size",
    invalid_distance="centre",
    overlap_clipped=True,
    size_epsilon=1e-16,
)
_GOT10K = Protocol(
    name="got10k",
    source="got-10k/toolkit 956e728",
    length="truncate",
    invalid_ground_truth="none",
    invalid_distance="distance",
    nan_ground_truth="drop",
    absent="ignore",
    union_epsilon=FLOAT64_EPSILON,
    overlap_clipped=True,
    normalise="subtract_first",
    norm_headline="mean",
    norm_precision_on=("lasot",),
)
_PYTRACKING = Protocol(
    name="pytracking",
    source="visionml/pytracking 7eb9e74 analysis/extract_results (run, not read)",
    result_rows="zero_size",
    invalid_distance="never",
    corners="pixel",
    float32_curves=True,
)
_OSTRACK = dataclasses.replace(
    _PYTRACKING, name="ostrack", source="botaoye/OSTrack 33b5e12", invalid_ground_truth="size"
)
_LASOT = Protocol(
    name="lasot_matlab",
    source="HengLan/LaSOT_Evaluation_Toolkit 95bf38a (its definitions; the OTB toolbox's rules)",
    result_rows="non_positive",
    nan_rows_allowed=True,
    corners="pixel",
    length_epsilon=FLOAT64_EPSILON,
    colon_thresholds=True,
    drop_zero_curves=True,
)

PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        _PYSOT,
        _GOT10K,
        _PYTRACKING,
        dataclasses.replace(_PYTRACKING, name="pytracking_valid", denominator="valid"),
        _OSTRACK,
        _LASOT,
        dataclasses.replace(
            _LASOT,
            name="otb_matlab",
            source="the OTB benchmark's toolbox, whose rules the LaSOT toolkit kept",
        ),
        dataclasses.replace(
            _PYSOT,
            name="annotated",
            source="pysot's rules over the frames that have a box, for videos annotated in part",
            first_frame="ground_truth",
            nan_ground_truth="drop",
        ),
        Protocol(
            name="trackingnet",
            source="SilvioGiancola/TrackingNet-devkit 6337d03 metrics.py, as on the server",
            invalid_ground_truth="none",
            invalid_distance="distance",
            absent="ignore",
            corners="pixel",
            normalise="squares",
            rounded=True,
            coarse_grid=True,
            norm_headline="mean",
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What the rules must know about a benchmark.

    Attributes:
        name: name on the command line.
        kind: "ope" one pass, "got10k" average overlap, "vot" restart after failure, "longterm" one pass in
            which the tracker says with what confidence it sees the target.
        protocol: the benchmark's own rules, the default.
        absent_in_ground_truth: annotation rows are NaN where the target is absent (UAV123), so that toolkits
            which never count an invalid frame as precise in pixels do so here.
        eao_interval: low and high sequence length of the expected average overlap (VOT).
        origin: coordinate of the first pixel in its annotation and in results of it, 0 or 1.
        absent_flags: its toolkits read flags of absence, as those of NfS ("lost") and UAV123 do not.
    """

    name: str
    kind: Literal["ope", "got10k", "vot", "longterm"]
    protocol: str
    absent_in_ground_truth: bool = False
    eao_interval: tuple[int, int] | None = None
    origin: int = 0
    absent_flags: bool = True


BENCHMARKS: dict[str, Benchmark] = {
    b.name: b
    for b in (
        Benchmark("otb", "ope", "otb_matlab", origin=1),
        Benchmark("lasot", "ope", "lasot_matlab", origin=1),
        Benchmark(
            "uav123", "ope", "otb_matlab", absent_in_ground_truth=True, origin=1, absent_flags=False
        ),
        Benchmark("nfs", "ope", "otb_matlab", absent_flags=False),
        Benchmark("tc128", "ope", "otb_matlab", origin=1),
        Benchmark("trackingnet", "ope", "trackingnet"),
        Benchmark("synthetic", "ope", "pysot"),
        Benchmark("synthetic-hard", "ope", "pysot"),
        Benchmark("custom", "ope", "annotated"),
        Benchmark("vid", "ope", "annotated"),
        Benchmark("got10k", "got10k", "got10k", origin=1),
        Benchmark("vot2016", "vot", "pysot", eao_interval=(108, 371)),
        Benchmark("vot2017", "vot", "pysot", eao_interval=(100, 356)),
        Benchmark("vot2018", "vot", "pysot", eao_interval=(100, 356)),
        Benchmark("vot2019", "vot", "pysot", eao_interval=(46, 291)),
        Benchmark("vot2018lt", "longterm", "f1"),
        Benchmark("vot2019lt", "longterm", "f1"),
    )
}


def _lookup(kind: str, table: dict, name: str):
    if name in table:
        return table[name]
    raise UsageError(str(unknown(kind, name, table)))


def get_protocol(name: str) -> Protocol:
    """Return a named protocol for one-pass evaluation.

    Args:
        name: a key of `PROTOCOLS`.

    Returns:
        The protocol.

    Raises:
        JaxtrackError: the name is unknown; the nearest one is offered.
    """
    return _lookup("protocol", PROTOCOLS, name)


def get_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name ("OTB-100", "otb100" and "otb" are the same).

    Args:
        name: a key of `BENCHMARKS`, in any case; digits and signs after "otb", "lasot", "uav" and
            "nfs" are ignored.

    Returns:
        The benchmark.

    Raises:
        JaxtrackError: the name is unknown; the nearest one is offered.
    """
    plain = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    families = {"otb": "otb", "lasot": "lasot", "uav": "uav123", "nfs": "nfs", "tc128": "tc128"}
    for start, family in families.items():
        if plain.startswith(start):
            return BENCHMARKS[family]
    spelt = {"got10kval": "got10k", "got10ktest": "got10k", "tcolor128": "tc128"}
    spelt["synthetichard"] = "synthetic-hard"
    plain = spelt.get(plain, plain)
    return _lookup("benchmark", BENCHMARKS, plain)
