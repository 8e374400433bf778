"""Regions on the pixel grid and the supervised experiment, against plain painting and the toolkits."""

import numpy as np
import pytest

from eval.metrics.annotation import Annotation
from eval.metrics.eao import (
    FAILED,
    INITIALISED,
    REGION,
    SKIPPED,
    VOT_PROTOCOLS,
    MeasuredRun,
    average,
    expected_overlap,
    fragments,
)
from eval.metrics.polygons import exact_overlap
from eval.metrics.protocols import BENCHMARKS
from eval.metrics.regions import RULES, region_overlap, region_overlaps_two_bounds
from eval.metrics.vot import Run, burn_in, evaluate_vot
from jaxtrack.errors import JaxtrackError

NAN = [np.nan] * 4


def paint(points, width, height, last_pair):
    """Scan line by line into a mask: the definition, one pixel at a time."""
    mask = np.zeros((height, width), bool)
    for y in range(height):
        nodes = []
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, 1, axis=0)):
            if y1 == y2:
                if last_pair and y == y1:
                    nodes.append(int(x1))
            elif min(y1, y2) <= y <= max(y1, y2):
                nodes.append(int(x1 + (y - y1) / (y2 - y1) * (x2 - x1)))
        nodes.sort()
        i = 0
        while i < len(nodes) - 1:
            if nodes[i] == nodes[i + 1] and not (last_pair and i + 2 == len(nodes)):
                i += 1
                continue
            mask[y, max(nodes[i], 0) : max(nodes[i + 1] + 1, 0)] = True
            i += 2
    return mask


def pysot_overlap(a, b):
    """Two polygons without bounds by pysot's rule, painted."""
    a, b = (np.float32(p).reshape(4, 2) for p in (a, b))
    low = np.floor(np.minimum(a.min(0), b.min(0)))
    width, height = (np.ceil(np.maximum(a.max(0), b.max(0))) - low + 1).astype(int)
    masks = []
    for p in (a, b):
        moved = p - low
        rounded = np.sign(moved) * np.floor(np.abs(moved) + np.float32(0.5))
        masks.append(paint(rounded.astype(float), width, height, last_pair=False))
    return np.float32((masks[0] & masks[1]).sum()) / np.float32((masks[0] | masks[1]).sum())


def toolkit_overlap(a, b):
    """Two polygons inside the image by vot-toolkit's rule, painted."""
    a, b = (np.round(p).reshape(4, 2) for p in (a, b))
    low = np.minimum(a.min(0), b.min(0))
    width, height = (np.maximum(a.max(0), b.max(0)) - low + 1).astype(int)
    masks = [paint(p - low, width, height, last_pair=True) for p in (a, b)]
    return (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()


@pytest.mark.parametrize("rule", RULES)
def test_polygons_of_any_shape_as_painted(rule):
    """Convex, concave and self-crossing, with corners on whole and half pixels."""
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0, 40, (2, 120, 8)) + 3
    a[:40], b[:40] = np.round(a[:40]), np.round(b[:40])
    a[40:80] = np.round(a[40:80] * 2) / 2
    painted = {"pysot": pysot_overlap, "vot_toolkit": toolkit_overlap}[rule]
    expected = [painted(p, q) for p, q in zip(a, b)]
    bounds = None if rule == "pysot" else (60, 60)
    found = region_overlap(a, b, bounds, rule)
    assert (found > 0).mean() > 0.8
    np.testing.assert_array_equal(found, np.array(expected, float))


def test_rectangles():
    """An integer rectangle covers (w + 1) x (h + 1) pixels for pysot and w x h for vot-toolkit."""
    a, b = np.array([[10.0, 10, 20, 20]]), np.array([[20.0, 10, 20, 20]])
    assert region_overlap(a, b)[0] == pytest.approx(11 / 31)
    assert region_overlap(a, b, (100, 100), "vot_toolkit")[0] == pytest.approx(10 / 30)
    assert exact_overlap(a, b)[0] == pytest.approx(10 / 30)
    corners = np.array([[10.0, 10, 30, 10, 30, 30, 10, 30]])
    assert region_overlap(corners, b)[0] == pytest.approx(11 / 31)


def test_regions_are_single_precision_before_they_are_rounded():
    """The toolkit's rule: 361.49999185 is stored as 361.5, whose nearest even pixel is 362."""
    truth = np.array([[362.0, 10, 20, 20]])
    near, half = np.array([[361.49999185, 10, 20, 20]]), np.array([[361.5, 10, 20, 20]])
    below = np.array([[361.4999, 10, 20, 20]])  # another number in single precision, too
    found = [region_overlap(r, truth, (640, 480), "vot_toolkit")[0] for r in (near, half, below)]
    assert found == [1.0, 1.0, 19 / 21]


def test_nan_regions_and_wrong_shapes():
    assert np.isnan(region_overlap(np.array([NAN]), np.array([[1.0, 2, 3, 4]]))[0])
    assert np.isnan(
        exact_overlap(np.array([[0.0, 0, 2, 2, 0, 2, 2, 0]]), np.array([[0.0, 0, 2, 2]]))[0]
    )
    with pytest.raises(JaxtrackError, match="4 or 8 numbers"):
        region_overlap(np.zeros((2, 6)), np.zeros((2, 6)))
    with pytest.raises(JaxtrackError, match="unknown region rule"):
        region_overlap(np.zeros((2, 4)), np.zeros((2, 4)), rule="exact")
    with pytest.raises(JaxtrackError, match="2 regions against 3"):
        region_overlap(np.zeros((2, 4)), np.zeros((3, 4)))


def test_two_bounds_at_once():
    rng = np.random.default_rng(5)
    a = np.concatenate([rng.uniform(-20, 70, (60, 2)), rng.uniform(1, 40, (60, 2))], axis=1)
    b = a + rng.uniform(-5, 5, a.shape)
    b[:, 2:] = np.abs(b[:, 2:])
    size = np.full((60, 2), 64.0)
    wide, narrow = region_overlaps_two_bounds(a, b, size, size - 1)
    np.testing.assert_array_equal(wide, region_overlap(a, b, size))
    np.testing.assert_array_equal(narrow, region_overlap(a, b, size - 1))
    assert (wide != narrow).any()


def test_overlaps_of_the_toolkits(golden_dir):
    """A real polygon sequence, frame by frame; the whole pack is checked in test_score."""
    gt = dict(np.load(golden_dir / "benchmarks" / "vot2018_gt.npz"))
    runs = dict(np.load(golden_dir / "benchmarks" / "vot2018_results.npz"))
    frames = dict(np.load(golden_dir / "benchmarks" / "vot2018_frames.npz"))
    size = np.repeat(np.stack([gt["width"], gt["height"]], axis=1), gt["lengths"], axis=0)
    regions = np.where(gt["n_coords"][:, None] == 4, [1.0] * 4 + NAN, 1.0) * gt["polygons"]
    found = region_overlap(runs["SiamTPN_boxes"], regions, size - 1)
    np.testing.assert_array_equal(found, frames["SiamTPN__overlap_bounds_wm1_hm1"])


def measured(golden_dir):
    """All runs of one tracker on VOT2018 with the toolkits' own overlaps, and what they got."""
    data = dict(np.load(golden_dir / "eao" / "vot2018_SiamTPN.npz"))
    edges = np.cumsum(data["lengths"])[:-1]
    codes = np.split(data["code"], edges)

    def runs(toolkit):
        return [
            MeasuredRun(i, len(o), np.flatnonzero(c == FAILED), c, o, o)
            for i, (o, c) in enumerate(zip(np.split(data[toolkit].astype(float), edges), codes))
        ]

    return data, runs


def test_expected_average_overlap_of_the_toolkits(golden_dir):
    data, runs = measured(golden_dir)
    interval = BENCHMARKS["vot2018"].eao_interval
    for name, tolerance in (("pysot", 1e-12), ("vot_toolkit", 1e-7)):  # stored in float32
        rules = VOT_PROTOCOLS[name]
        pieces = fragments(runs(name), rules)
        curve = expected_overlap(pieces, rules)
        np.testing.assert_allclose(curve, data[f"{name}_curve"], rtol=0, atol=max(tolerance, 3e-7))
        assert average(curve, interval, rules) == pytest.approx(
            float(data[f"{name}_eao"]), abs=1e-7
        )
        assert len(pieces.weights) == 211


def test_tag_weights_of_pysot(golden_dir):
    data, runs = measured(golden_dir)
    rules, interval = VOT_PROTOCOLS["pysot"], BENCHMARKS["vot2018"].eao_interval
    edges = np.cumsum(data["lengths"])[:-1]
    for flags, expected in zip(data["tag_flags"], data["tag_eao"]):
        per_sequence = [f > 0 for f in np.split(flags, edges)]
        curve = expected_overlap(fragments(runs("pysot"), rules, per_sequence), rules)
        assert average(curve, interval, rules) == pytest.approx(expected, abs=1e-9)


def supervised(failures, frames=40):
    """A run on a still target: right until it fails, restarted five frames later."""
    codes = np.full(frames, REGION, np.int8)
    codes[0] = INITIALISED
    for f in failures:
        codes[f] = FAILED
        codes[f + 1 : f + 5] = SKIPPED
        codes[f + 5 : f + 6] = INITIALISED
    regions = np.where((codes == REGION)[:, None], [20.0, 20, 30, 30], np.nan)
    return Run(regions, codes)


TRUTH = {"a": Annotation(np.tile([20.0, 20, 30, 30], (40, 1)), size=(100, 100))}


@pytest.mark.parametrize("protocol", VOT_PROTOCOLS)
def test_perfect_run(protocol):
    report = evaluate_vot({"a": [supervised([])]}, TRUTH, protocol, interval=(5, 30))
    assert report.accuracy == report.eao == 1
    assert report.overall()["lost"] == report.robustness == 0
    assert report.intervals()["eao"] == (1, 1)


def test_failures_by_hand():
    """One failure at frame 20: pieces of 26 and 15 frames for pysot, of 20 and 15 for vot-toolkit."""
    runs = {"a": [supervised([20])]}
    pysot = evaluate_vot(runs, TRUTH, "pysot", interval=(5, 30))
    assert pysot.overall()["lost"] == 1
    assert pysot.robustness == pytest.approx(100 / 40)
    assert pysot.fragments.overlaps.shape == (2, 40)
    np.testing.assert_array_equal(
        pysot.fragments.overlaps[0, [0, 1, 19, 20, 25, 39]], [0, 1, 1, 0, 0, 0]
    )
    np.testing.assert_array_equal(pysot.fragments.overlaps[1, [0, 1, 14]], [0, 1, 1])
    assert np.isnan(pysot.fragments.overlaps[1, 15])
    assert pysot.curve[0] == 1
    assert pysot.curve[10] == 1
    assert pysot.curve[30] == pytest.approx(19 / 30)
    toolkit = evaluate_vot(runs, TRUTH, "vot_toolkit", interval=(5, 30))
    assert toolkit.curve[0] == 0
    assert toolkit.curve[-1] == pytest.approx(1)  # as long as the longest piece
    assert len(toolkit.curve) == 20


def test_fifteen_repetitions_are_averaged():
    runs = [supervised([20])] + [supervised([])] * 14
    report = evaluate_vot({"a": runs}, TRUTH, "pysot", interval=(5, 30))
    assert report.overall()["lost"] == pytest.approx(1 / 15)
    assert report.accuracy == 1
    assert len(report.fragments.weights) == 16


def test_burn_in():
    codes = supervised([20]).codes
    np.testing.assert_array_equal(np.flatnonzero(burn_in(codes)), [*range(10), *range(25, 35)])
    report = evaluate_vot({"a": [supervised([20])]}, TRUTH)
    kept = np.flatnonzero(~np.isnan(report.frame_overlaps["a"]))
    np.testing.assert_array_equal(kept, [*range(10, 20), *range(35, 40)])


def test_a_sequence_inside_the_burn_in_counts_as_zero_for_the_toolkit():
    """One of 40 frames tracked perfectly, one of 10 of which accuracy sees nothing."""
    short = Annotation(TRUTH["a"].boxes[:10], size=TRUTH["a"].size)
    truth = {**TRUTH, "b": short}
    runs = {"a": [supervised([])], "b": [supervised([], 10)]}
    toolkit = evaluate_vot(runs, truth, "vot_toolkit", interval=(2, 9))
    assert toolkit.accuracy == pytest.approx(40 / 50)
    assert toolkit.per_sequence()["b"]["accuracy"] == 0
    low, high = toolkit.intervals()["accuracy"]
    assert 0 <= low <= toolkit.accuracy <= high
    pysot = evaluate_vot(runs, truth, "pysot", interval=(2, 9))
    assert pysot.accuracy == 1


def test_what_no_toolkit_takes_for_a_failure_is_refused():
    one_pass = Run(np.tile([20.0, 20, 30, 30], (40, 1)), np.full(40, REGION, np.int8))
    with pytest.raises(JaxtrackError, match=r"a: row 1 is not 1, .* no supervised run"):
        evaluate_vot({"a": [one_pass]}, TRUTH, allow_missing=True)
    run = supervised([])
    run.regions[20:30] = np.nan
    run.regions[10, :4] = [50, 50, 30, 30]
    with pytest.raises(JaxtrackError, match=r"a: 10 result rows are not finite \(first: row 21\)"):
        evaluate_vot({"a": [run]}, TRUTH)
    report = evaluate_vot({"a": [run]}, TRUTH, allow_missing=True)
    assert report.notes == (
        "a: 10 result rows are not finite (first: row 21): left out of the accuracy",
    )


def test_what_is_wrong_is_said():
    with pytest.raises(JaxtrackError, match="unknown protocol 'matlab'"):
        evaluate_vot({"a": [supervised([])]}, TRUTH, "matlab")
    with pytest.raises(JaxtrackError, match=r"a: 39 result rows for 40 frames.*another version"):
        evaluate_vot({"a": [supervised([], 39)]}, TRUTH)
    with pytest.raises(JaxtrackError, match="41 result rows"):
        evaluate_vot({"a": [supervised([], 41)]}, TRUTH, "vot_toolkit")
    longer = evaluate_vot({"a": [supervised([], 41)]}, TRUTH, "pysot")
    assert longer.notes == ("a: 41 result rows for 40 frames: only the first 40 are scored",)
    with pytest.raises(JaxtrackError, match="image size"):
        evaluate_vot({"a": [supervised([])]}, {"a": Annotation(TRUTH["a"].boxes)})
    with pytest.raises(JaxtrackError, match="no repetition"):
        evaluate_vot({"a": []}, TRUTH)
