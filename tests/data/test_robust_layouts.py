"""Layouts as they lie on real disks: lost frames, stray files, parts of sets, hostile annotations."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from jaxtrack.data import layouts
from jaxtrack.data.readers import files, pairing
from jaxtrack.errors import JaxtrackError
from tests import data_fixtures as fx

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        \0\2\0\0\0\t\0\0\0\x32\0\0\0\xb0ATTR"

# dataset -> (writer, split, folder of one video's frames)
NUMBERED = {
    "otb": (fx.write_otb, None, "Boy/img"),
    "got10k": (fx.write_got10k, "train", "train/GOT-10k_Train_000002"),
    "lasot": (fx.write_lasot, "full", "airplane/airplane-1/img"),
    "trackingnet": (fx.write_trackingnet, "train_0", "TRAIN_0/frames/abc_0"),
    "nfs": (fx.write_nfs, "fps240", "airboard_1/240/airboard_1"),
    "vot2018": (fx.write_vot, None, "ants1/color"),
    "tc128": (fx.write_tc128, None, "Ball_ce2/img"),
    "custom": (lambda root: fx.write_custom(root, with_clip=False), None, "cat"),
}
LAYOUTS = {
    **{name: (writer, split) for name, (writer, split, _) in NUMBERED.items()},
    "vid": (fx.write_vid, "train"),
    "det": (fx.write_det, "train"),
    "coco": (fx.write_coco, "train"),
    "youtubebb": (fx.write_youtubebb, "train"),
}


@pytest.mark.parametrize("dataset", NUMBERED)
@pytest.mark.parametrize("which", ["first", "middle"])
def test_a_lost_frame_never_moves_the_boxes_behind_it(tmp_path, dataset, which):
    writer, split, folder = NUMBERED[dataset]
    root = tmp_path / "data"
    root.mkdir()
    writer(root)
    whole = layouts.read_layout(dataset, root, split)
    images = files.list_images(root / folder)
    last = images[-1]
    first = 1 if dataset == "tc128" else 0  # its first image is not annotated
    os.remove(images[first if which == "first" else len(images) // 2])
    with pytest.raises(JaxtrackError, match=r"frames? .*(missing|but \d+ boxes)"):
        layouts.read_layout(dataset, root, split)
    # One image more at the end makes the counts equal again: the numbers still tell.
    number = files.frame_number(last)
    name = os.path.basename(last)
    shutil.copy(last, os.path.join(root / folder, name.replace(str(number), str(number + 1))))
    if which == "middle" and dataset != "custom":  # a user's own frames may have any numbers
        with pytest.raises(JaxtrackError, match="missing"):
            layouts.read_layout(dataset, root, split)
    left = layouts.read_layout(dataset, root, split, on_problem=lambda _: None)
    assert {r.name for r in left} <= {r.name for r in whole}


def test_uav_pairs_a_stretch_by_its_numbers(tmp_path):
    fx.write_uav(tmp_path)
    folder = tmp_path / "data_seq/UAV123/bird1"
    (folder / "000400.jpg").unlink()  # between the two stretches: nobody's
    first, second = layouts.read_layout("uav123", tmp_path)
    assert second.frames[0].endswith("000775.jpg")
    (folder / "000776.jpg").unlink()
    with pytest.raises(JaxtrackError, match="frame 776 is missing"):
        layouts.read_layout("uav123", tmp_path)
    assert [r.name for r in layouts.read_layout("uav123", tmp_path, only=["bird1_1"])] == [
        "bird1_1"
    ]
    assert len(first) == 3


def test_numbers_of_frames():
    names = ["0001.jpg", "img_0012.png", "a/b7/3.jpg", "x.zip::in/12.jpg", "shot.jpg", "\u2460.jpg"]
    assert [files.frame_number(n) for n in names] == [1, 12, 3, 12, None, None]
    places = (fx.pathlib.Path("frames"), fx.pathlib.Path("truth.txt"))
    frames = [f"{i}.jpg" for i in range(5)]
    assert pairing.pair("v", frames, 5, places, 1) == tuple(frames)  # whole, counted from 0
    with pytest.raises(JaxtrackError, match="two images in frames have the number 1"):
        pairing.pair("v", ["1.jpg", "1.png", "2.jpg"], 3, places)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_what_systems_leave_behind_is_no_data(tmp_path, dataset):
    writer, split = LAYOUTS[dataset]
    root = tmp_path / "data"
    root.mkdir()
    writer(root)
    before = layouts.read_layout(dataset, root, split)
    for folder, _, names in list(os.walk(root)):
        for name in names:
            with open(os.path.join(folder, f"._{name}"), "wb") as f:
                f.write(APPLE_DOUBLE)
        os.makedirs(os.path.join(folder, "__MACOSX"))
        os.mkfifo(os.path.join(folder, "pipe.jpg"))
        os.symlink(folder, os.path.join(folder, "__MACOSX", "again"))  # leads back
    after = layouts.read_layout(dataset, root, split)
    assert [(r.name, r.frames) for r in after] == [(r.name, r.frames) for r in before]


def test_zip_files_of_frames_from_a_mac(tmp_path):
    fx.write_trackingnet(tmp_path, zipped=True)
    with zipfile.ZipFile(tmp_path / "TRAIN_0/zips/abc_0.zip", "a") as z:
        for i in range(12):
            z.writestr(f"__MACOSX/._{i}.jpg", APPLE_DOUBLE)
    assert len(layouts.read_layout("trackingnet", tmp_path, "train_0")[0]) == 12


@pytest.mark.parametrize(
    "dataset", sorted({*NUMBERED, "vid", "det"} - {"trackingnet", "nfs", "tc128"})
)
def test_what_was_not_asked_for_may_be_broken(tmp_path, dataset):
    writer, split = LAYOUTS[dataset]
    writer(tmp_path)
    records = layouts.read_layout(dataset, tmp_path, split)
    good, bad = records[0], records[-1]
    if dataset == "vid":  # a second video
        part = tmp_path / "Annotations/VID/train/ILSVRC2015_VID_train_0000"
        (part / "other").mkdir()
        (part / "other/000000.xml").write_text("<broken")
    elif dataset == "det":
        next((tmp_path / "Annotations").rglob("n00000001.xml")).write_text("<broken")
    elif dataset == "custom":
        good = records[1]
        (tmp_path / "cat.txt").write_text("1,2\n")
    else:
        names = ("groundtruth.txt", "groundtruth_rect.txt")
        folder = next(p for p in tmp_path.rglob(bad.name) if p.is_dir())
        for name in names:
            if (folder / name).exists():
                (folder / name).write_text("")
    assert [r.name for r in layouts.read_layout(dataset, tmp_path, split, [good.name])] == [
        good.name
    ]
    with pytest.raises(JaxtrackError):
        layouts.read_layout(dataset, tmp_path, split)
    problems: list[JaxtrackError] = []
    assert layouts.read_layout(dataset, tmp_path, split, None, problems.append)
    assert len(problems) == 1


def test_lists_of_the_whole_set_do_not_stop_a_part(tmp_path):
    fx.write_got10k(tmp_path)
    listed = tmp_path / "train/list.txt"
    listed.write_text(listed.read_text() + "GOT-10k_Train_000009\n")
    chosen = layouts.read_layout("got10k", tmp_path, only=["GOT-10k_Train_000002"])
    assert len(chosen) == 1
    with pytest.raises(JaxtrackError, match=r"list.txt is not there: GOT-10k_Train_000009"):
        layouts.read_layout("got10k", tmp_path)
    with pytest.raises(JaxtrackError, match="1 of 1 videos are missing"):
        layouts.read_layout("got10k", tmp_path, only=["GOT-10k_Train_000009"])
    listed.write_text("../../etc\n")
    with pytest.raises(JaxtrackError, match="leads out of"):
        layouts.read_layout("got10k", tmp_path)


def test_only_the_numbered_annotations_of_otb_are_targets(tmp_path):
    fx.write_otb(tmp_path, ("Diving",))
    text = (tmp_path / "Diving/groundtruth_rect.txt").read_text()
    for name in (
        "groundtruth_rect_new.txt",
        "groundtruth_rect copy.txt",
        "groundtruth_rect.txt.bak",
    ):
        (tmp_path / "Diving" / name).write_text(text)
    assert [r.name for r in layouts.read_layout("otb", tmp_path)] == ["Diving"]


def test_lasot_leaves_a_surplus_image_out(tmp_path):
    fx.write_lasot(tmp_path)
    folder = tmp_path / "airplane/airplane-1/img"
    shutil.copy(folder / "00000004.jpg", folder / "00000005.jpg")
    record = layouts.read_layout("lasot", tmp_path, "test")[0]
    assert len(record.frames) == len(record.boxes) == 4
    shutil.copy(folder / "00000004.jpg", folder / "00000006.jpg")
    with pytest.raises(JaxtrackError, match=r"6 frames in .* but 4 boxes"):
        layouts.read_layout("lasot", tmp_path, "test")


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("1e300,5,20,20", "1e+300"),
        ("5,5,1e-30,20", "1e-30"),
        ("5,5,20,2e6", "2e+06"),
        ("inf,5,20,20", "not finite"),
    ],
)
def test_boxes_that_are_no_pixels_are_refused_with_their_frame(tmp_path, row, shown):
    fx.write_otb(tmp_path, ("Boy", "Car1"))
    path = tmp_path / "Boy/groundtruth_rect.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], row, *lines[3:]]))
    with pytest.raises(JaxtrackError) as caught:
        layouts.read_layout("otb", tmp_path)
    assert shown in str(caught.value)
    assert "frame 2" in str(caught.value) or "line 3" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(layouts.read_layout("otb", tmp_path, only=["Car1"])) == 1


def _coco(root, images, notes):
    (root / "annotations").mkdir(parents=True)
    table = {"images": images, "annotations": notes}
    (root / "annotations/instances_train2017.json").write_text(json.dumps(table))
    return root


IMAGE = {"id": 1, "file_name": "1.jpg", "width": 96, "height": 72}
NOTE = {"id": 9, "image_id": 1, "bbox": [10, 20, 20, 20], "category_id": 1}


def test_coco_files_of_other_tools(tmp_path):
    notes = [
        {**NOTE, "id": 1, "bbox": []},
        {**NOTE, "id": 2, "bbox": None},
        {"id": 3, "image_id": 1, "segmentation": []},
        {**NOTE, "id": "a1", "image_id": "1"},
        NOTE,
    ]
    records = layouts.read_layout("coco", _coco(tmp_path / "a", [IMAGE], notes))
    assert [r.name for r in records] == ["1/9", "1/a1"]
    assert records[0].size == (72, 96)
    lvis = {"id": 1, "coco_url": "http://images.example/val2017/1.jpg"}
    assert (
        layouts.read_layout("coco", _coco(tmp_path / "b", [lvis], [NOTE]))[0]
        .frames[0]
        .endswith("b/train2017/1.jpg")
    )


HOSTILE = [
    ([{**IMAGE, "file_name": "../../secret.jpg"}], [NOTE], "leads out of"),
    ([{**IMAGE, "file_name": "/etc/passwd"}], [NOTE], "leads out of"),
    ([{**IMAGE, "file_name": "C:\\x.jpg"}], [NOTE], "leads out of"),
    ([{**IMAGE, "file_name": ["1.jpg"]}], [NOTE], "has no file_name"),
    ([{"id": 1}], [NOTE], "has no file_name"),
    ([IMAGE], [{**NOTE, "bbox": [1, 2, 3]}], "not .x, y, w, h"),
    ([IMAGE], [{**NOTE, "bbox": "1,2,3,4"}], "not .x, y, w, h"),
    ([IMAGE], [{**NOTE, "bbox": [[1, 2], 3, 4, 5]}], "not .x, y, w, h"),
    ([IMAGE], [{**NOTE, "bbox": [1, 2, float("nan"), 5]}], "not .x, y, w, h"),
    ([IMAGE], [{**NOTE, "bbox": [1, 2, 10**400, 5]}], "not .x, y, w, h"),
    ([IMAGE], [{**NOTE, "bbox": [1, True, 5, 5]}], "not .x, y, w, h"),
    ([IMAGE], [{**NOTE, "bbox": {"x": 1}}], "not .x, y, w, h"),
    ([IMAGE], [{**NOTE, "image_id": [1]}], "unknown image"),
    ([IMAGE], [{**NOTE, "image_id": 7}], "unknown image"),
    ([IMAGE], [3], "not a list of objects"),
    ([IMAGE], {"id": 1}, "not a list of objects"),
    ([None], [NOTE], "not a list of objects"),
    ([IMAGE], [{**NOTE, "bbox": [1e300, 2, 5, 5]}], "is none in pixels"),
]


@pytest.mark.parametrize(("images", "notes", "expected"), HOSTILE)
def test_hostile_coco_files_end_in_one_line(tmp_path, images, notes, expected):
    with pytest.raises(JaxtrackError, match=expected) as caught:
        layouts.read_layout("coco", _coco(tmp_path / "c", images, notes))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"v": 3},
        {"v": {"00": 3}},
        {"v": {"00": {"000001": 3}}},
        {"v": {"00": {"000001": [1, 2, "x", 4]}}},
        {"v": {"00": {"000001": [[1], 2, 3, 4]}}},
        {"v": {"00": {"000001": [0, 0, 1e308, 1e308]}}},
        {"../v": {"00": {"000001": [1, 2, 30, 40]}}},
    ],
)
def test_hostile_crop_tables_end_in_one_line(tmp_path, table):
    (tmp_path / "train.json").write_text(json.dumps(table))
    with pytest.raises(JaxtrackError) as caught:
        layouts.read_layout("youtubebb", tmp_path)
    assert "\n" not in str(caught.value)


def test_mutated_annotations_end_in_one_line_or_are_read(tmp_path):
    rng = np.random.default_rng(0)
    for dataset in ("otb", "vid", "coco", "youtubebb", "nfs", "vot2018", "custom", "got10k"):
        writer, split = LAYOUTS[dataset]
        root = tmp_path / dataset
        root.mkdir()
        writer(root)
        notes = [
            p
            for p in sorted(root.rglob("*"))
            if p.suffix in (".txt", ".json", ".xml", ".tag", ".label", ".ini")
        ]
        for _ in range(12):
            path = notes[rng.integers(len(notes))]
            kept = path.read_bytes()
            data = bytearray(kept)
            for place in rng.integers(0, len(data), rng.integers(1, 6)):
                data[place] = rng.choice(list(b'\0\xff-,.e9[{<\n"nI'))
            if rng.random() < 0.3:
                del data[rng.integers(len(data)) :]
            path.write_bytes(data)
            problems: list[JaxtrackError] = []
            with contextlib.suppress(JaxtrackError):  # any other error fails the test
                layouts.read_layout(dataset, root, split, None, problems.append)
            assert not any("\n" in str(p) or len(str(p)) > 1000 for p in problems)
            path.write_bytes(kept)


def test_folders_that_may_not_be_used(tmp_path):
    fx.write_otb(tmp_path / "otb", ("Boy",))
    os.rename(tmp_path / "otb/Boy", os.fsencode(tmp_path / "otb") + b"/Bo\xff")
    with pytest.raises(JaxtrackError, match="not UTF-8"):
        layouts.read_layout("otb", tmp_path / "otb")
    if os.geteuid() != 0:
        fx.write_otb(tmp_path / "o", ("Boy",))
        (tmp_path / "o/Boy").chmod(0)
        with pytest.raises(JaxtrackError, match="Boy"):
            layouts.read_layout("otb", tmp_path / "o")
        (tmp_path / "o/Boy").chmod(0o755)


def test_every_dataset_has_a_split_to_score_and_knows_what_is_withheld(tmp_path):
    for dataset in layouts.names():
        split = layouts.evaluation_split(dataset)
        layouts.resolve(dataset, split)
        assert layouts.canonical(dataset.upper().replace("_", "-")) == dataset
    assert layouts.evaluation_split("LaSOT") == layouts.evaluation_split("GOT-10k") == "test"
    assert [layouts.canonical(n) for n in ("OTB-100", "OTB2015", "lasot ext", "UAV-123")] == [
        "otb100",
        "otb100",
        "lasot_ext",
        "uav123",
    ]
    assert layouts.withheld("got10k", "test")
    assert layouts.withheld("trackingnet", "test")
    assert not layouts.withheld("got10k", "val")
    fx.write_got10k(tmp_path / "g", "test")
    fx.write_got10k(tmp_path / "g", "val")
    assert all(r.withheld for r in layouts.read_layout("got10k", tmp_path / "g", "test"))
    assert not any(r.withheld for r in layouts.read_layout("got10k", tmp_path / "g", "val"))


@pytest.mark.parametrize("dataset", sorted(set(LAYOUTS) - {"custom"}))
def test_the_truth_is_the_same_without_images(tmp_path, dataset):
    writer, split = LAYOUTS[dataset]
    writer(tmp_path)
    whole = layouts.read_layout(dataset, tmp_path, split)
    for path in files_below(tmp_path):
        if path.lower().endswith((".jpg", ".jpeg")):
            os.remove(path)
    truth = layouts.read_truth(dataset, tmp_path, split)
    assert [r.name for r in truth] == [r.name for r in whole]
    for one, two in zip(truth, whole):
        assert one.frames == ()
        np.testing.assert_array_equal(one.boxes[: len(two)], two.boxes[: len(one)])
        assert abs(len(one) - len(two)) <= (dataset in ("otb", "nfs"))


def remove_last_image(root):
    os.remove(max(path for path in files_below(root) if path.endswith(".jpg")))


def board(root):
    """As released: an annotation that is one row shorter than the images."""
    fx.write_otb(root, ("Board",), 6)
    rows = (root / "Board/groundtruth_rect.txt").read_text().splitlines(keepends=True)
    (root / "Board/groundtruth_rect.txt").write_text("".join(rows[:-1]))


def nfs_lost(root):
    fx.write_nfs(root)
    for rate in ("30", "240"):
        remove_last_image(root / "airboard_1" / rate)


COUNTED = {name: (name, *LAYOUTS[name]) for name in LAYOUTS}
COUNTED |= {
    "a row short": ("otb", board, None),
    "an image short": ("nfs", nfs_lost, "fps30"),
    "an image short of 240": ("nfs", nfs_lost, "fps240"),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_scores_count_the_frames_that_are_tracked(tmp_path, kind):
    dataset, writer, split = COUNTED[kind]
    writer(tmp_path)
    tracked = layouts.read_layout(dataset, tmp_path, split)
    scored = layouts.read_truth(dataset, tmp_path, split or layouts.resolve(dataset)[1])
    assert [r.name for r in scored] == [r.name for r in tracked]
    for one, two in zip(scored, tracked):
        np.testing.assert_array_equal(one.boxes, two.boxes)


def files_below(root):
    return [os.path.join(f, n) for f, _, names in os.walk(root) for n in names]


@pytest.mark.parametrize(
    "dataset", ["otb", "got10k", "lasot", "nfs", "vot2018", "tc128", "trackingnet"]
)
def test_a_video_without_its_annotation_is_told(tmp_path, dataset):
    writer, split = LAYOUTS[dataset]
    writer(tmp_path)
    record = layouts.read_layout(dataset, tmp_path, split)[0]
    folder = fx.pathlib.Path(record.frames[0]).parent
    other = folder.parent if folder.name in ("img", "color", "airboard_1") else folder
    if dataset == "nfs":
        other = other.parent
        shutil.copytree(other, tmp_path / "bare")
        (tmp_path / "bare/240/airboard_1").rename(tmp_path / "bare/240/bare")
    elif dataset == "trackingnet":
        (tmp_path / "TRAIN_0/anno/bare.txt").write_text("1,1,9,9\n")
    else:
        shutil.copytree(
            other, other.with_name("GOT-10k_Train_000009" if dataset == "got10k" else "bare-1")
        )
    for path in [p for p in tmp_path.rglob("*") if p.suffix == ".txt" and "bare" in str(p.parent)]:
        path.unlink()
    for path in tmp_path.rglob("GOT-10k_Train_000009/*.txt"):
        path.unlink()
    for path in tmp_path.rglob("list.txt"):
        path.unlink()
    problems: list[JaxtrackError] = []
    layouts.read_layout(dataset, tmp_path, split, None, problems.append)
    assert len(problems) == 1
    assert "bare" in str(problems[0]) or "000009" in str(problems[0])
