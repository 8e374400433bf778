"""Which frames pair up, and what the patches show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrack.data import frames as frame_io
from jaxtrack.data import patches
from jaxtrack.data import sampling as pairs
from jaxtrack.data.sampling import FrameFilter, PairConfig, Sampler
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.patch import PatchSpec
from tests import data_fixtures as fx

TEMPLATE, SEARCH = PatchSpec(63, 63, 1.0), PatchSpec(127, 127, 127 / 63)


def config(**changes) -> PairConfig:
    return PairConfig(**{"template": TEMPLATE, "search": SEARCH, **changes})


@given(
    rows=st.lists(st.integers(0, 300), min_size=1, max_size=40, unique=True).map(sorted),
    gap=st.integers(0, 60),
    order=st.sampled_from(["any", "forward", "sorted"]),
    same=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_pairs_respect_gap_and_order(rows, gap, order, same, seed):
    rows = np.array(rows)
    rng = np.random.default_rng(seed)
    setting = config(order=order, same_frame=same)
    first, second = pairs.choose_pair(rows, setting, gap, rng)
    assert {first, second} <= set(rows.tolist())
    if order != "any":
        assert second >= first
    if not same and len(rows) > 1:
        assert first != second
    if same:
        assert abs(second - first) <= gap
    elif abs(second - first) > gap and len(rows) > 1:
        # Nothing within the gap: then the nearest was taken.
        near = np.abs(np.diff(np.searchsorted(rows, [first, second])))
        assert near == 1


def test_gaps_are_uniform():
    rng = np.random.default_rng(0)
    rows = np.arange(1000)
    drawn = [pairs.choose_pair(rows, config(order="forward"), 10, rng) for _ in range(4000)]
    gaps = np.bincount([b - a for a, b in drawn], minlength=11)
    assert len(gaps) == 11
    assert gaps.min() > 250  # 364 expected


def test_windows_follow_the_papers():
    box = np.array([10.0, 20.0, 30.0, 50.0])
    centre, side = patches.window_of(box, PatchSpec(127, 127, 1.0))
    assert centre == (25.0, 45.0)
    assert side == pytest.approx(np.sqrt((30 + 40) * (50 + 40)))
    _, side = patches.window_of(box, PatchSpec(256, 256, 4.0, context=0.0))
    assert side == pytest.approx(4 * np.sqrt(30 * 50))


def test_a_patch_at_scale_one_is_a_copy():
    frame = fx.clip(2, 1)[0][0]
    patch = frame_io.cut_patch(frame, (40.0, 30.0), 32, 32, (0, 0, 0))
    np.testing.assert_array_equal(patch, frame[14:46, 24:56])
    outside = frame_io.cut_patch(frame, (0.0, 0.0), 32, 32, (7, 8, 9))
    np.testing.assert_array_equal(outside[16:, 16:], frame[:16, :16])
    assert (outside[:15] == (7, 8, 9)).all()


def test_patch_and_box_agree():
    """A rectangle of one colour is found in the patch where its box says."""
    source = FrameSource(fx.built() / "got10k")
    for target in range(4):
        row = int(source.rows_of(target).start)
        for patch in (SEARCH, PatchSpec(200, 200, 3.0, 0.0)):
            cutter = patches.PatchCutter(reduced_decode=False)
            pixels, box = cutter.cut(source, 0, row, patch)
            frame = frame_io.decode(source.record(int(source.rows_record[row]))["image"], "frame")
            x, y, w, h = (int(v) for v in source.rows_box[row])
            mx, my = box[:2] + box[2:] / 2
            scale = box[2] / w
            assert box[3] / h == pytest.approx(scale, rel=1e-5)
            reach = 0.3 * min(box[2:])
            inside = pixels[int(my - reach) : int(my + reach), int(mx - reach) : int(mx + reach)]
            r = reach / scale
            cx, cy = x + w / 2, y + h / 2
            original = frame[round(cy - r) : round(cy + r), round(cx - r) : round(cx + r)]
            gap = np.abs(inside.mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max()
            assert gap < 12, (target, gap)


def test_reduced_decoding_shows_the_same():
    source = FrameSource(fx.built() / "got10k")
    small = PatchSpec(24, 24, 4.0)
    full, quick = (patches.PatchCutter(r).cut(source, 0, 3, small) for r in (False, True))
    np.testing.assert_array_equal(full[1], quick[1])
    assert np.abs(full[0].astype(int) - quick[0]).mean() < 12
    assert (full[0] != quick[0]).any()  # it was in fact decoded smaller


def sampler(setting, names=("got10k", "coco", "otb"), gap=100) -> Sampler:
    sources = [FrameSource(fx.built() / name) for name in names]
    return Sampler(setting, sources, [gap] * len(sources), [setting.filter] * len(sources))


def test_samples_of_each_kind():
    rng = np.random.default_rng(1)
    found = sampler(config()).sample(0, 3, rng)
    assert found["template"].shape == (63, 63, 3)
    assert found["search"].shape == (127, 127, 3)
    assert found["search"].dtype == np.uint8
    for key, side in (("template_box", 63), ("search_box", 127)):
        np.testing.assert_allclose(found[key][:2] + found[key][2:] / 2, side / 2, atol=1e-3)
        assert found[key].dtype == np.float32
    assert not found["negative"]

    found = sampler(config(patches=5)).sample(0, 3, rng)
    assert found["patches"].shape == (5, 127, 127, 3)
    assert found["patch_boxes"].shape == (5, 4)
    assert "search" not in found
    rows = found["used"][1:, 1]
    assert len(set(rows.tolist())) == 5  # distinct frames where there are enough
    still = sampler(config(patches=5)).sample(1, 0, rng)
    assert still["patches"].shape == (5, 127, 127, 3)


def test_negatives_show_another_target_at_their_rate():
    draw = sampler(config(negative=0.3))
    rng = np.random.default_rng(2)
    names = [s.names["targets"] for s in draw.sources]
    negatives = others = 0
    for i in range(300):
        found = draw.sample(0, i % 7, rng)
        (a, first), (b, second) = found["used"]
        one = names[a][_target_of(draw.sources[a], first)]
        two = names[b][_target_of(draw.sources[b], second)]
        assert (one != two) == bool(found["negative"])
        negatives += bool(found["negative"])
        others += b != 0
    assert 60 < negatives < 120
    assert others > 25  # from any dataset of the mixture


def _target_of(source, row):
    return int(np.searchsorted(source.targets, row, side="right") - 1)


def test_absent_frames_are_never_used():
    draw = sampler(config(), ("got10k",))
    rng = np.random.default_rng(3)
    source = draw.sources[0]
    absent = set(np.flatnonzero(source.rows_absent).tolist())
    used = [tuple(u) for i in range(150) for u in draw.sample(0, i % 7, rng)["used"]]
    assert absent
    assert not absent & {row for _, row in used}
    assert len({row for _, row in used}) == source.num_records - len(absent)


def test_filters():
    source = FrameSource(fx.built() / "got10k")
    every = pairs.usable_rows(source, 0, FrameFilter())
    assert len(every) == 7
    assert len(pairs.usable_rows(source, 0, FrameFilter(min_visibility=0.6))) == 6
    assert len(pairs.usable_rows(source, 0, FrameFilter(min_side=60))) == 0
    assert len(pairs.usable_rows(source, 0, FrameFilter(max_share=0.05))) == 0
    assert len(pairs.usable_rows(source, 0, FrameFilter(), min_frames=8)) == 0
    stills = FrameSource(fx.built() / "coco")
    assert len(pairs.usable_rows(stills, 0, FrameFilter(), min_frames=8)) == 1
    with pytest.raises(JaxtrackError, match="no usable frame: loosen the frame filter"):
        sampler(config(filter=FrameFilter(min_side=60)), ("got10k",)).sample(
            0, 0, np.random.default_rng(0)
        )


def test_impossible_settings():
    for make, line in (
        (lambda: PatchSpec(0, 10, 1.0), "size is 0; 1 or more"),
        (lambda: PatchSpec(10, 10, float("nan")), "factor is nan; above 0"),
        (lambda: config(negative=1.5), "negative is 1.5; from 0 to 1"),
        (lambda: config(max_gap=-1), "max_gap is -1; 0 or more"),
    ):
        with pytest.raises(JaxtrackError, match=line):
            make()
    alone = sampler(config(negative=1.0), ("otb",))
    alone.videos = (range(1),)
    with pytest.raises(JaxtrackError, match="at least two targets"):
        alone.sample(0, 0, np.random.default_rng(0))
