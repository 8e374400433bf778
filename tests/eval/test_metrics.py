"""One-pass, GOT-10k and long-term metrics: rules one by one, and the toolkits' own numbers."""

import dataclasses
import json

import numpy as np
import pytest

from eval.metrics.annotation import Annotation, from_record
from eval.metrics.bootstrap import bootstrap
from eval.metrics.counts import overlaps, passed
from eval.metrics.got10k import bounded_overlap, clip_boxes, evaluate_got10k
from eval.metrics.longterm import confidence_thresholds, evaluate_longterm
from eval.metrics.ope import evaluate_ope
from eval.metrics.protocols import (
    BENCHMARKS,
    PROTOCOLS,
    SUCCESS_THRESHOLDS,
    colon_success_thresholds,
    get_benchmark,
    get_protocol,
)
from jaxtrack.data.otb_attributes import attributes
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError

BOX = [10.0, 20.0, 30.0, 40.0]


def still(frames=5, box=BOX):
    return np.tile(np.array(box), (frames, 1))


def one(result, truth, protocol, benchmark="otb", absent=None, **more):
    """Report of a single sequence."""
    annotation = Annotation(np.asarray(truth, float), absent)
    return evaluate_ope({"a": result}, {"a": annotation}, protocol, benchmark, **more)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ground_truth_against_itself(protocol):
    """A perfect tracker reaches 20/21 (no overlap is above 1), and every distance is 0."""
    report = one(still(), still(), protocol)
    area = 1 - 1 / 40 if protocol == "trackingnet" else 20 / 21
    assert report.overall()["auc"] == pytest.approx(area, abs=1e-7)
    np.testing.assert_allclose(report.precision, 1, rtol=1e-15)
    if report.norm_precision is not None:
        np.testing.assert_allclose(report.norm_precision, 1, rtol=1e-15)


@pytest.mark.parametrize("grid", [SUCCESS_THRESHOLDS, colon_success_thresholds(), np.arange(51.0)])
def test_counting_equals_comparing(grid):
    """Ties fall as in a comparison with each threshold, one bit above and below it too."""
    rng = np.random.default_rng(0)
    around = np.concatenate([grid, np.nextafter(grid, -9), np.nextafter(grid, 99)])
    values = np.concatenate([around, rng.uniform(-1, 60, 500), [np.inf, -np.inf, np.nan, -1.0]])
    with np.errstate(invalid="ignore"):
        counted = passed(values, grid)
        expected = (values[:, None] > grid).sum(axis=1)
    np.testing.assert_array_equal(counted, expected)


def test_colon_thresholds_differ_in_five_places():
    assert np.sum(colon_success_thresholds() != SUCCESS_THRESHOLDS) == 5


def test_overlaps_by_hand():
    a = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 0, 0.0]])
    b = np.array([[1, 1, 2, 2], [5, 5, 1, 1], [0, 0, 0, 0.0]])
    np.testing.assert_allclose(overlaps(a, b), [1 / 7, 0, np.nan])
    assert overlaps(a, b, union_epsilon=1e-16)[2] == 0


def test_first_row():
    """Only pysot keeps the tracker's own first row."""
    result = still()
    result[0] = 500
    for name in PROTOCOLS:
        hits = one(result, still(), name).success[0, 0]
        assert hits == pytest.approx(0.8 if name == "pysot" else 1.0), name


def test_invalid_ground_truth():
    """The last annotated box is empty, as on OTB's Board."""
    truth = still()
    truth[-1] = 0
    values = {p: one(still(), truth, p) for p in PROTOCOLS}
    for name, report in values.items():
        all_frames = 1.0 if name == "pytracking_valid" else 0.8
        assert report.success[0, 0] == pytest.approx(all_frames), name
    precise = {n: float(r.precision[0, 0]) * len(truth) for n, r in values.items()}
    assert precise["pysot"] == precise["lasot_matlab"] == pytest.approx(5)  # counts as precise
    for name in ("got10k", "pytracking", "ostrack"):
        assert precise[name] == pytest.approx(4)


def test_border_boxes_fail_where_any_coordinate_must_be_positive():
    truth = still(box=[-5.0, 20, 30, 40])
    expected = {"pysot": 1, "got10k": 1, "ostrack": 1, "pytracking": 0, "lasot_matlab": 0}
    for name, hits in expected.items():
        assert one(truth, truth, name).success[0, 0] == hits, name


def test_absent_frames_leave_the_numerator_only():
    absent = np.array([False, True, True, False, False])
    for name in ("pysot", "pytracking", "ostrack", "lasot_matlab"):
        report = one(still(), still(), name, "lasot", absent)
        assert report.success[0, 0] == pytest.approx(0.6), name
        assert report.precision[0, 0] == pytest.approx(0.6), name
    assert one(still(), still(), "got10k", "lasot", absent).success[0, 0] == 1
    valid = one(still(), still(), "pytracking_valid", "lasot", absent)
    assert valid.success[0, 0] == 1
    assert valid.lengths.tolist() == [3]


def test_nan_ground_truth_of_uav123():
    truth = still()
    truth[2:4] = np.nan
    assert one(still(), truth, "got10k", "uav123").lengths.tolist() == [3]  # dropped
    for name in ("pysot", "pytracking", "otb_matlab"):
        report = one(still(), truth, name, "uav123")
        assert report.success[0, 0] == pytest.approx(0.6), name
        assert report.precision[0, 0] == 1, name  # not a number, hence "precise"
    assert one(still(), truth, "pytracking", "nfs").precision[0, 0] == pytest.approx(0.6)


def test_rows_without_a_size_take_the_row_before():
    result = still()
    result[2, 2] = 0
    result[3, 2] = -1
    assert one(result, still(), "pytracking").success[0, 0] == pytest.approx(0.8)
    report = one(result, still(), "lasot_matlab")
    assert report.success[0, 0] == pytest.approx(1)
    assert report.repaired == 2
    assert "2 rows" in report.notes[0]
    assert one(result, still(), "pysot").success[0, 0] == pytest.approx(0.6)


def test_short_and_long_results():
    with pytest.raises(JaxtrackError, match=r"a: 3 result rows for 5 frames.*--allow-missing"):
        one(still(3), still(), "pysot")
    padded = one(still(3), still(), "pysot", allow_missing=True)
    assert padded.success[0, 0] == pytest.approx(0.6)
    assert "3 result rows for 5 frames" in padded.notes[0]
    assert one(still(3), still(), "got10k", allow_missing=True).lengths.tolist() == [3]
    longer = one(still(9), still(), "pysot")
    assert longer.success[0, 0] == 1
    assert "cut" in longer.notes[0]


def test_nan_results_are_named_and_never_hits():
    result = still()
    result[3, 1] = np.nan
    with pytest.raises(JaxtrackError, match=r"a: 1 result rows are not finite \(first: row 4\)"):
        one(result, still(), "pysot")
    for name in ("pysot", "got10k", "pytracking", "ostrack"):
        report = one(result, still(), name, allow_missing=True)
        assert report.success[0, 0] == pytest.approx(0.8), name
        assert report.precision[0, -1] == pytest.approx(0.8), name
    assert one(result, still(), "lasot_matlab").success[0, 0] == pytest.approx(1)


def test_names_that_only_one_side_has():
    truth = {n: Annotation(still()) for n in ("a", "b", "c")}
    with pytest.raises(JaxtrackError, match="no result for 2 of 3 sequences: b, c"):
        evaluate_ope({"a": still()}, truth)
    with pytest.raises(JaxtrackError, match="no ground truth for 1 of 4 results: Z"):
        evaluate_ope({n: still() for n in "abcZ"}, truth)
    report = evaluate_ope({"a": still(), "Z": still()}, truth, allow_missing=True)
    assert report.names == ("a",)
    assert len(report.notes) == 2
    with pytest.raises(JaxtrackError, match="no sequence in common"):
        evaluate_ope({"Z": still()}, truth, allow_missing=True)
    with pytest.raises(JaxtrackError, match=r"boxes of shape \(5, 8\)"):
        evaluate_ope({"a": np.zeros((5, 8))}, {"a": truth["a"]})


def test_attributes_curves_and_headline():
    bad = still()
    bad[:, 0] += 300
    truth = {
        "good": Annotation(still(), attributes=("blur",)),
        "bad": Annotation(still(), attributes=("blur", "fast")),
    }
    report = evaluate_ope({"good": still(), "bad": bad}, truth, "pysot")
    table = report.per_attribute()
    assert table["blur"]["n"] == 2
    assert table["fast"]["auc"] == 0
    assert table["blur"]["auc"] == pytest.approx(report.overall()["auc"]) == pytest.approx(10 / 21)
    assert report.per_sequence()["good"]["precision_20px"] == 1
    assert report.curves()["success"].shape == (21,)
    assert report.headline()["success"] == report.overall()["auc"]
    np.testing.assert_array_equal(report.frame_overlaps["bad"], 0)
    np.testing.assert_allclose(report.frame_distances["bad"], 300)
    # The first row is the given box, hence no curve is all zero, unless the target is never there.
    matlab = evaluate_ope({"good": still(), "bad": bad}, truth, "lasot_matlab")
    assert matlab.overall()["auc"] == pytest.approx((1 + 0.2) / 2 * 20 / 21)
    truth["bad"] = Annotation(still(), absent=np.ones(5, bool))
    matlab = evaluate_ope({"good": still(), "bad": bad}, truth, "lasot_matlab")
    assert matlab.overall()["auc"] == pytest.approx(20 / 21)


def test_trackingnet_rounds_and_integrates():
    truth = still()
    shifted = truth + np.array([0.4, 0, 0, 0])
    report = one(shifted, truth, None, "trackingnet")
    assert report.protocol.name == "trackingnet"
    assert report.success.shape == report.precision.shape == (1, 21)
    assert report.headline()["precision"] == 1  # 0.4 px vanish in the rounding


def test_float32_protocols_store_float32():
    report = one(still(3), still(3), "pytracking")
    assert report.success.dtype == np.float32
    assert dataclasses.replace(PROTOCOLS["pytracking"], name="x").float32_curves


def test_attributes_of_otb(golden_dir):
    expected = json.loads((golden_dir / "benchmarks" / "otb_expected.json").read_text())[
        "attributes"
    ]
    known = attributes()
    assert len(known) == 100
    for attribute, names in expected.items():
        assert all(attribute in known[name] for name in names)


def test_names_of_protocols_and_benchmarks():
    assert get_benchmark("OTB-100").name == "otb"
    assert get_benchmark("LaSOT test set (protocol II)").name == "lasot"
    assert all(get_benchmark(name) is b for name, b in BENCHMARKS.items())
    with pytest.raises(JaxtrackError, match="nearest: pytracking"):
        get_protocol("pytraking")
    with pytest.raises(JaxtrackError, match="unknown benchmark 'vot2031'"):
        get_benchmark("vot2031")


def test_bootstrap():
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = bootstrap(values)
    expected = 1.96 * values.std() / 20
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * expected, rel=0.1)
    assert bootstrap(values) == (low, high)
    assert bootstrap(np.append(values, np.nan)) == (low, high)
    assert np.isnan(bootstrap(np.array([]))).all()
    weights = np.array([1.0, 0.0])
    assert bootstrap(np.array([0.25, 0.75]), weights=weights)[1] <= 0.25


def test_intervals_hold_every_headline():
    rng = np.random.default_rng(0)
    truth = {f"s{i}": Annotation(still(30)) for i in range(12)}
    results = {n: a.boxes + rng.normal(0, 6, a.boxes.shape) for n, a in truth.items()}
    report = evaluate_ope(results, truth, "lasot_matlab")
    overall = report.overall()
    for name, (low, high) in report.intervals().items():
        assert low <= overall[name] <= high, name


def test_annotation_of_a_record_is_in_the_benchmarks_coordinates():
    record = VideoRecord("a", ("1.jpg",), np.array([[4.0, 5, 6, 7]]), np.array([False]), origin=1)
    np.testing.assert_array_equal(from_record(record).boxes, [[5, 6, 6, 7]])


def test_got10k_clipping_shifts_boxes_over_the_left_border():
    np.testing.assert_array_equal(
        clip_boxes(np.array([[-10.0, 5, 20, 10]]), (100, 12)), [[0, 5, 20, 7]]
    )
    box = np.array([[-10.0, 5, 20, 10]])
    assert bounded_overlap(box, box, (100, 12))[0] == pytest.approx(1)


def test_got10k_counts_visible_frames_but_the_first():
    truth = {"a": Annotation(still(4), cover=np.array([8, 8, 0, 3]), size=(100, 100))}
    miss = still(4)
    miss[2:] = [80, 80, 5, 5]
    report = evaluate_got10k({"a": [still(4), miss]}, truth, {"a": [np.full(4, 0.1)]})
    assert report.overall()["ao"] == pytest.approx(0.75)  # four frames of two repetitions
    assert report.overall()["speed_fps"] == pytest.approx(10)
    assert report.per_sequence()["a"]["length"] == 3
    assert report.intervals()["ao"][0] == pytest.approx(0.75)
    with pytest.raises(JaxtrackError, match="a: 3 result rows for 4 frames"):
        evaluate_got10k({"a": [still(3)]}, truth)
    with pytest.raises(JaxtrackError, match="image size"):
        evaluate_got10k({"a": [still(4)]}, {"a": Annotation(still(4))})


def test_longterm_by_hand():
    size = (200, 200)
    truth = {"a": Annotation(np.array([BOX, BOX, [np.nan] * 4, BOX]), size=size)}
    regions = {"a": np.array([[np.nan] * 4, BOX, BOX, [150.0, 150, 10, 10]])}
    report = evaluate_longterm(regions, {"a": np.array([np.nan, 0.9, 0.5, 0.1])}, truth)
    curves = report.curves()
    assert curves["precision"][0] == 1  # nothing is kept above infinity
    assert curves["recall"][0] == 0
    sure = int(np.flatnonzero(report.thresholds == 0.9)[0])
    assert curves["precision"][sure] == pytest.approx(1)
    assert curves["recall"][sure] == pytest.approx(1 / 3)  # of three frames with the target
    assert curves["precision"][-1] == pytest.approx(1 / 3)
    assert report.overall()["f1"] == pytest.approx(0.5)
    with pytest.raises(JaxtrackError, match="no confidence score"):
        confidence_thresholds(np.array([np.nan]))
