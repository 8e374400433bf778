"""Every published layout gives the boxes that were written, 0-based, with its traps handled."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from jaxtrack.data import frames as frame_io
from jaxtrack.data import layouts, splits
from jaxtrack.data.readers import geometry
from jaxtrack.errors import JaxtrackError
from tests import data_fixtures as fx


def one(dataset, root, split=None, number=0):
    return layouts.read_layout(dataset, root, split)[number]


@pytest.mark.parametrize("separator", [",", "\t", " ", ", ", ";"])
def test_otb_is_one_based_whatever_separates(tmp_path, separator):
    fx.write_otb(tmp_path, ("Boy", "Deer"), separator=separator)
    records = layouts.read_layout("otb", tmp_path)
    assert [r.name for r in records] == ["Boy", "Deer"]
    np.testing.assert_array_equal(records[1].boxes, fx.clip(1, 5)[1])
    assert records[0].frames[0].endswith("Boy/img/0001.jpg")
    assert records[0].origin == 1
    assert records[0].usable.all()


def test_otb_two_targets_share_their_frames(tmp_path):
    fx.write_otb(tmp_path, ("Jogging", "Human4"))
    for name in ("Jogging", "Human4"):
        text = (tmp_path / name / "groundtruth_rect.txt").read_text()
        (tmp_path / name / "groundtruth_rect.txt").unlink()
        (tmp_path / name / "groundtruth_rect.1.txt").write_text(text if name == "Jogging" else "")
        (tmp_path / name / "groundtruth_rect.2.txt").write_text(text)
    records = layouts.read_layout("otb", tmp_path)
    assert [r.name for r in records] == ["Human4-2", "Jogging-1", "Jogging-2"]
    assert records[1].frames == records[2].frames
    assert records[1].video == "Jogging"


def test_otb_partial_ranges(tmp_path):
    frames, boxes = fx.clip(0, 20)
    # David: frames 300 to 770 are annotated; here 295..314 exist, of which 300..314.
    fx.write_frames(tmp_path / "David" / "img", frames, "{:04d}.jpg", 295)
    (tmp_path / "David" / "groundtruth_rect.txt").write_text(fx.table(boxes[5:], "\t", 1))
    # Tiger1: every frame has a row, but its first five are left out.
    fx.write_frames(tmp_path / "Tiger1" / "img", frames, "{:04d}.jpg", 1)
    (tmp_path / "Tiger1" / "groundtruth_rect.txt").write_text(fx.table(boxes, ",", 1))
    # Board is one row short.
    fx.write_frames(tmp_path / "Board" / "img", frames, "{:05d}.jpg", 1)
    (tmp_path / "Board" / "groundtruth_rect.txt").write_text(fx.table(boxes[:-1], ",", 1))
    # An excerpt of BlurCar1 (frames 247 to 988), numbered anew.
    fx.write_frames(tmp_path / "BlurCar1" / "img", frames, "{:04d}.jpg", 1)
    (tmp_path / "BlurCar1" / "groundtruth_rect.txt").write_text(fx.table(boxes, ",", 1))
    blur, board, david, tiger = layouts.read_layout("otb", tmp_path)
    np.testing.assert_array_equal(blur.boxes, boxes)
    assert david.frames[0].endswith("0300.jpg")
    np.testing.assert_array_equal(david.boxes, boxes[5:])
    assert tiger.frames[0].endswith("0006.jpg")
    np.testing.assert_array_equal(tiger.boxes, boxes[5:])
    assert len(board) == 20
    assert not board.usable[-1]


def test_otb_benchmarks_want_all_their_videos(tmp_path):
    fx.write_otb(tmp_path, ("Boy",))
    with pytest.raises(
        JaxtrackError, match=r"97 of the videos of otb100 are not there: Basketball"
    ):
        layouts.read_layout("otb100", tmp_path)
    assert [r.name for r in layouts.read_layout("otb", tmp_path, only=["Boy"])] == ["Boy"]
    with pytest.raises(JaxtrackError, match="1 of 1 videos are missing: Bot"):
        layouts.read_layout("otb", tmp_path, only=["Bot"])


@pytest.mark.shared
def test_otb_list_and_lengths_agree_with_the_published_ones(shared_dir):
    truth = np.load(shared_dir / "benchmarks" / "otb100_gt.npz")
    folders = {str(n).rsplit("-", 1)[0] for n in truth["names"]}
    assert folders == set(splits.OTB100)
    lengths = dict(zip((str(n) for n in truth["names"]), truth["lengths"]))
    for name, (first, last) in splits.OTB_RANGES.items():
        assert lengths[name] == last - first + 1
    records = {r.name: r for r in layouts.read_layout("otb", shared_dir / "sequences")}
    start = np.cumsum([0, *truth["lengths"]])
    for number, name in enumerate(map(str, truth["names"])):
        if name in records:
            expected = truth["boxes"][start[number] : start[number + 1]] - [1, 1, 0, 0]
            np.testing.assert_array_equal(records[name].boxes, expected)


@pytest.mark.shared
def test_lasot_test_split_is_the_published_one(shared_dir):
    names = np.load(shared_dir / "benchmarks" / "lasot_test_gt.npz")["names"]
    assert splits.lasot_test() == {str(n) for n in names}


def test_got10k(tmp_path):
    fx.write_got10k(tmp_path)
    records = layouts.read_layout("got10k", tmp_path)
    assert [r.name[-6:] for r in records] == ["000001", "000002", "000004"]
    first = records[0]
    np.testing.assert_array_equal(first.boxes[:4], fx.clip(1, 5)[1][:4])
    np.testing.assert_array_equal(first.absent, [False] * 4 + [True])
    np.testing.assert_array_equal(first.usable, [True] * 4 + [False])
    np.testing.assert_array_equal(first.visibility, np.float32([1, 0.5, 1, 1, 0]))
    assert first.object_class == "dog 100%"
    # Number 4 is on the list of those that VOT forbids, 1 and 2 are not.
    allowed = layouts.read_layout("got10k", tmp_path, "train_vot")
    assert [r.name[-6:] for r in allowed] == ["000001", "000002"]
    assert len(splits.got10k_vot_forbidden()) == 1000


def test_got10k_test_has_first_boxes_only(tmp_path):
    fx.write_got10k(tmp_path, "test")
    record = one("got10k", tmp_path, "test")
    assert len(record) == len(record.boxes) == 5
    assert np.isfinite(record.boxes[0]).all()
    assert np.isnan(record.boxes[1:]).all()
    assert record.usable.sum() == 1


@pytest.mark.parametrize("flat", [False, True])
def test_lasot(tmp_path, flat):
    fx.write_lasot(tmp_path, flat=flat)
    train = layouts.read_layout("lasot", tmp_path)
    test = layouts.read_layout("lasot", tmp_path, "test")
    assert [r.name for r in train] == ["airplane-2"]
    assert [r.name for r in test] == ["airplane-1"]
    np.testing.assert_array_equal(test[0].absent, [False, False, True, True])
    np.testing.assert_array_equal(test[0].boxes, fx.clip(0, 4)[1])
    assert np.isfinite(test[0].boxes).all()  # absent frames keep their box
    assert test[0].usable.sum() == 2
    assert len(layouts.read_layout("lasot_ext", tmp_path)) == 2


@pytest.mark.parametrize("zipped", [False, True])
def test_trackingnet_parts_zip_files_and_number_order(tmp_path, zipped):
    fx.write_trackingnet(tmp_path, zipped=zipped)
    record = one("trackingnet", tmp_path, "train_0")
    assert [f.replace("::", "/").rsplit("/", 1)[1] for f in record.frames[-2:]] == [
        "10.jpg",
        "11.jpg",
    ]
    np.testing.assert_array_equal(record.boxes, fx.clip(3, 12)[1] + 0.25)
    frame = frame_io.decode(frame_io.read_bytes(record.frames[11]), "frame")
    assert np.abs(frame.astype(int) - fx.clip(3, 12)[0][11]).mean() < 8
    with pytest.raises(JaxtrackError, match=r"looked for TRAIN_1/anno/VIDEO.txt"):
        layouts.read_layout("trackingnet", tmp_path, "train")


def test_vid_has_tracks_that_come_and_go(tmp_path):
    fx.write_vid(tmp_path)
    first, second = layouts.read_layout("vid", tmp_path)
    boxes = fx.clip(1, 4)[1]
    assert (first.name, second.name) == (
        "ILSVRC2015_train_00000000/0",
        "ILSVRC2015_train_00000000/1",
    )
    np.testing.assert_array_equal(first.boxes, boxes)
    np.testing.assert_array_equal(second.boxes, boxes[[0, 0]])
    assert second.frames == first.frames[2:]
    assert first.video == second.video


def test_det_and_coco_are_videos_of_one_frame(tmp_path):
    fx.write_det(tmp_path)
    det = layouts.read_layout("det", tmp_path)
    boxes = fx.clip(2, 2)[1]
    np.testing.assert_array_equal(np.concatenate([r.boxes for r in det]), boxes[[0, 1, 0]])
    assert det[1].video == det[2].video
    fx.write_coco(tmp_path)
    coco = layouts.read_layout("coco", tmp_path)
    assert [r.name for r in coco] == ["000000000009/5", "000000000010/7"]  # no crowd, no dust
    np.testing.assert_array_equal(coco[1].boxes, fx.clip(4, 2)[1][1:])
    assert coco[0].object_class == "cat"


def test_youtubebb_crops_have_the_target_at_the_centre(tmp_path):
    fx.write_youtubebb(tmp_path)
    record = one("youtubebb", tmp_path)
    assert len(record) == 3
    centre = record.boxes[:, :2] + record.boxes[:, 2:] / 2
    np.testing.assert_allclose(centre, 255.5)
    w, h = record.boxes[0, 2:]
    assert w / h == pytest.approx(2)
    assert np.sqrt((w + (w + h) / 2) * (h + (w + h) / 2)) == pytest.approx(127)


def test_uav123_targets_are_stretches_of_one_video(tmp_path):
    fx.write_uav(tmp_path)
    first, second = layouts.read_layout("uav123", tmp_path)
    boxes = fx.clip(6, 780)[1]
    assert second.frames[0].endswith("bird1/000775.jpg")
    np.testing.assert_array_equal(first.boxes, boxes[:3])
    np.testing.assert_array_equal(second.boxes[1:], boxes[775:778])
    np.testing.assert_array_equal(second.absent, [True, False, False, False])
    assert splits.uav123_folder("car1_s") == "car1_s"


@pytest.mark.parametrize(("split", "count"), [("fps30", 3), ("fps240", 17)])
def test_nfs_rows_are_per_240_fps_frame(tmp_path, split, count):
    fx.write_nfs(tmp_path)
    record = one("nfs", tmp_path, split)
    boxes = fx.clip(7, 3)[1]
    assert len(record) == count
    np.testing.assert_array_equal(record.boxes[0], boxes[0])
    np.testing.assert_array_equal(record.boxes[-1], boxes[2])
    assert record.absent.tolist() == [False] * (count - 1) + [True]


def test_vot_polygons_tags_and_boxes(tmp_path):
    fx.write_vot(tmp_path)
    ants, conduction = layouts.read_layout("vot2018", tmp_path)
    boxes = fx.clip(8, 4)[1]
    # Inclusive corners: an upright polygon is its own box.
    np.testing.assert_allclose(ants.boxes, boxes + np.array([-0.5, -0.5, 0, 0]))
    assert ants.polygons.shape == (4, 8)
    np.testing.assert_array_equal(ants.tags["occlusion"], [False, True, False, False])
    assert ants.attributes == ("occlusion",)
    assert conduction.polygons is None
    np.testing.assert_array_equal(conduction.boxes, boxes)


def test_polygon_box_keeps_centre_and_area():
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-20, -10], [20, -10], [20, 10], [-20, 10]]) @ turn.T + [50, 40]
    box = geometry.polygons_to_boxes(corners.reshape(1, 8))[0]
    np.testing.assert_allclose(box[:2] + box[2:] / 2, [50, 40])
    assert (box[2] - 1) * (box[3] - 1) == pytest.approx(800)


def test_tc128_range_and_attributes(tmp_path):
    fx.write_tc128(tmp_path)
    record = one("tc128", tmp_path)
    assert [f[-8:] for f in record.frames] == ["0002.jpg", "0003.jpg", "0004.jpg"]
    np.testing.assert_array_equal(record.boxes, fx.clip(9, 5)[1][1:4])
    assert record.attributes == ("OCC", "FM")


def test_custom_folders_clips_and_two_targets(tmp_path):
    fx.write_custom(tmp_path)
    records = {r.name: r for r in layouts.read_layout("custom", tmp_path)}
    assert list(records) == ["cat", "cat.2", "dog"]
    boxes = fx.clip(10, 4)[1]
    np.testing.assert_array_equal(records["cat"].absent, [False, False, True, False])
    np.testing.assert_array_equal(records["cat"].boxes[3], boxes[3])
    assert records["cat"].frames[0].endswith("9.png")  # before 10.png
    assert records["cat.2"].video == "cat"
    np.testing.assert_array_equal(records["dog"].boxes, boxes)
    decoded = list(frame_io.clip_frames(records["dog"].frames[1:3]))
    assert np.abs(decoded[0][1].astype(int) - fx.clip(10, 4)[0][1]).mean() < 15


def test_reading_needs_neither_tfds_nor_grain(tmp_path):
    fx.write_otb(tmp_path)
    code = (
        "import sys; from jaxtrack.data import layouts; "
        f"assert len(layouts.read_layout('otb', {str(tmp_path)!r})) == 2; "
        "assert not {'tensorflow_datasets', 'tensorflow', 'grain'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
