"""What is wrong with a dataset's folder is said in one line: what, where, what to do."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from jaxtrack.data import check, layouts
from jaxtrack.data import frames as frame_io
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import video, writer
from tests import data_fixtures as fx


def message(dataset, root, split=None) -> str:
    with pytest.raises(JaxtrackError) as caught:
        layouts.read_layout(dataset, root, split)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_unknown_names_offer_the_nearest():
    assert "nearest: got10k" in message("got10", ".")
    assert "unknown split of got10k 'trian'; nearest: train" in message("got10k", ".", "trian")
    assert "is not train, test, train_3" in message("trackingnet", ".", "train_x")


@pytest.mark.parametrize("dataset", [n for n in layouts.names() if n != "lasot_ext"])
def test_missing_empty_and_wrong_folders(tmp_path, dataset):
    assert f"no folder {tmp_path}/no" in message(dataset, tmp_path / "no")
    (tmp_path / "file").write_text("x")
    assert "is a file" in message(dataset, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "is empty" in message(dataset, tmp_path / "empty")
    (tmp_path / "other" / "holiday").mkdir(parents=True)
    text = message(dataset, tmp_path / "other")
    assert "looked for" in text
    assert "it holds holiday" in text


def test_counts_that_differ(tmp_path):
    fx.write_otb(tmp_path, ("Boy",))
    truth = tmp_path / "Boy" / "groundtruth_rect.txt"
    text = truth.read_text()
    truth.write_text(text + "1,1,5,5\n")
    assert "otb Boy: 5 frames in" in message("otb", tmp_path)
    assert "but 6 boxes in" in message("otb", tmp_path)
    truth.write_text(text)
    (tmp_path / "Boy" / "img" / "0003.jpg").unlink()
    assert "4 frames in" in message("otb", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "every annotation file|is empty"),
        ("\n \n", "every annotation file|is empty"),
        ("1,2,3\n", "3 columns where 4 are expected"),
        ("1,2,3,4\n1,2,3,4,5\n", "line 2: 5 numbers"),
        ("1,2,3,4\n1,2,x,4\n", "line 2: 'x' is not a number"),
    ],
)
def test_broken_annotations(tmp_path, text, expected):
    fx.write_otb(tmp_path, ("Boy",))
    (tmp_path / "Boy" / "groundtruth_rect.txt").write_text(text)
    with pytest.raises(JaxtrackError, match=expected):
        layouts.read_layout("otb", tmp_path)


def test_nan_boxes_are_read_and_not_used(tmp_path):
    fx.write_otb(tmp_path, ("Boy",))
    path = tmp_path / "Boy" / "groundtruth_rect.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["NaN,NaN,NaN,NaN", *lines[1:]]))
    record = layouts.read_layout("otb", tmp_path)[0]
    np.testing.assert_array_equal(record.usable, [False] + [True] * 4)


def test_other_broken_files(tmp_path):
    fx.write_got10k(tmp_path / "g")
    (tmp_path / "g/train/GOT-10k_Train_000002/cover.label").write_text("8\n8\n")
    assert "got10k GOT-10k_Train_000002: 5 frames but 2 flags" in message("got10k", tmp_path / "g")
    (tmp_path / "g/train/GOT-10k_Train_000002/groundtruth.txt").unlink()
    assert "groundtruth.txt: no such file" in message("got10k", tmp_path / "g")
    fx.write_coco(_made(tmp_path / "c"))
    (tmp_path / "c/annotations/instances_train2017.json").write_text("{")
    assert "not the annotation of coco" in message("coco", tmp_path / "c")
    fx.write_trackingnet(tmp_path / "t", zipped=True)
    (tmp_path / "t/TRAIN_0/zips/abc_0.zip").write_bytes(b"PK no")
    assert "abc_0.zip is not a readable zip file" in message(
        "trackingnet", tmp_path / "t", "train_0"
    )
    fx.write_vid(_made(tmp_path / "v"))
    next((tmp_path / "v").rglob("000001.xml")).write_text("<annotation>")
    assert "000001.xml is not a readable annotation" in message("vid", tmp_path / "v")


def write_test_videos(dataset, root):
    """Two videos of a test split, whose annotation is the first box, and no image of the second."""
    if dataset == "got10k":
        fx.write_got10k(root, "test", numbers=(1, 2))
        for image in (root / "test/GOT-10k_Test_000002").glob("*.jpg"):
            image.unlink()
        return "GOT-10k_Test_000002"
    fx.write_trackingnet(root, "TEST")
    (root / "TEST/anno/lost_0.txt").write_text("1,2,3,4\n")
    return "lost_0"


@pytest.mark.parametrize("dataset", ["got10k", "trackingnet"])
def test_a_test_video_that_was_not_downloaded_stops_no_other(tmp_path, dataset):
    lost = write_test_videos(dataset, tmp_path)
    assert f"{dataset} {lost}: no image files in" in message(dataset, tmp_path, "test")
    problems: list[JaxtrackError] = []
    found = layouts.read_layout(dataset, tmp_path, "test", None, problems.append)
    names = [record.name for record in found]
    assert names
    assert lost not in names
    assert len(problems) == 1
    assert {r.name for r in layouts.read_truth(dataset, tmp_path, "test")} > {lost}


def test_lists_flags_and_parts_that_do_not_fit_are_told(tmp_path):
    got = tmp_path / "g"
    fx.write_got10k(got, "val", numbers=(1,))
    listed = got / "val/list.txt"
    listed.write_text("GOT-10k_Val_000001\nGOT-10k_val_000002\n")
    assert "list.txt names GOT-10k_val_000002; videos of val are called" in message(
        "got10k", got, "val"
    )
    listed.write_text("000001\n")
    assert "list.txt names 000001; videos of val are called GOT-10k_Val_000001" in message(
        "got10k", got, "val"
    )
    (got / "train").mkdir()
    assert "looked for train/GOT-10k_Train_000001/" in message("got10k", got, "train")
    fx.write_lasot(tmp_path / "l")
    flags = tmp_path / "l/airplane/airplane-1/out_of_view.txt"
    flags.write_text(flags.read_text().replace("0", "nan", 1))
    assert "out_of_view.txt holds something else than numbers" in message(
        "lasot", tmp_path / "l", "full"
    )
    fx.write_trackingnet(tmp_path / "t", "TRAIN_2")
    assert "--split train_2 is what is there" in message("trackingnet", tmp_path / "t", "train")
    fx.write_vot(tmp_path / "v")
    (tmp_path / "v/ants1/groundtruth.txt").write_text("m0,0,3,3,1,2\nm0,0,3,3,1,2\n")
    assert "holds masks; boxes and polygons of four points are read" in message(
        "vot2018", tmp_path / "v"
    )


def test_custom_messages(tmp_path):
    fx.write_custom(tmp_path, with_clip=False)
    (tmp_path / "cat.txt").write_text("1,2,3,four\n")
    assert "cat.txt line 1: 'four' is not a number" in message("custom", tmp_path)
    (tmp_path / "cat.txt").write_text("")
    assert "cat.txt is empty" in message("custom", tmp_path)
    (tmp_path / "cat.txt").unlink()
    (tmp_path / "cat.2.txt").unlink()
    assert "custom cat: no" in message("custom", tmp_path)
    (tmp_path / "dog.mp4").write_bytes(b"not a video")
    (tmp_path / "cat.txt").write_text("absent\n" * 4)
    assert "no usable box" in message("custom", tmp_path)
    (tmp_path / "cat.txt").write_text(fx.table(fx.clip(10, 4)[1]))
    (tmp_path / "dog.txt").write_text("1,2,3,4\n")
    assert "dog.mp4: cannot be opened as a video" in message("custom", tmp_path)


def write_clip(root, suffix, count=20):
    frames, boxes = fx.clip(10, count)
    path = root / f"dog{suffix}"
    with writer.VideoWriter(path, frames.shape[1:3], 10.0) as out:
        for frame in frames:
            out.write(frame)
    (root / "dog.txt").write_text(fx.table(boxes))
    return path


def seen(frames):
    """Frames until something is wrong, and what that is."""
    before = []
    try:
        before.extend(frames)
    except JaxtrackError as error:
        return before, str(error)
    return before, None


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_clip_is_one_thing_for_data_sets_and_for_track(tmp_path, suffix, monkeypatch):
    path = write_clip(tmp_path, suffix)
    references = layouts.read_layout("custom", tmp_path)[0].frames
    frames, fault = seen(video.open_source(path))
    assert (len(references), len(frames), fault) == (20, 20, None)
    # As two targets of one video ask for them: in two passes.
    asked = [3, 4, 9, 19, 0, 4]
    decoded = list(frame_io.clip_frames([references[i] for i in asked]))
    assert [reference for reference, _ in decoded] == [references[i] for i in asked]
    np.testing.assert_array_equal([frame for _, frame in decoded], [frames[i] for i in asked])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, fault = seen(video.open_source(path))
    assert "the file is truncated or damaged there" in fault
    assert message("custom", tmp_path) == fault
    # A clip that broke after it was listed.
    decoded, same = seen(frame_io.clip_frames(references))
    assert same == fault
    np.testing.assert_array_equal([frame for _, frame in decoded], frames)
    monkeypatch.setattr(video, "LARGEST_IMAGE", 1000)
    with pytest.raises(JaxtrackError, match="pixels are declared") as refused:
        video.open_source(path)
    assert message("custom", tmp_path) == str(refused.value)


def test_a_whole_clip_that_lost_frames_since_it_was_listed(tmp_path):
    path = write_clip(tmp_path, ".avi", 4)
    with pytest.raises(frame_io.FrameError, match=r"dog\.avi: ends before frame 7"):
        list(frame_io.clip_frames([f"{path}::{i}" for i in (2, 7)]))
    with pytest.raises(frame_io.FrameError, match="no such file"):
        frame_io.count_clip_frames(tmp_path / "cat.avi")
    with pytest.raises(frame_io.FrameError, match="is a folder"):
        frame_io.count_clip_frames(tmp_path)


def _made(path):
    path.mkdir()
    return path


def test_a_video_that_is_there_twice_is_told(tmp_path):
    fx.write_lasot(tmp_path)
    fx.write_lasot(tmp_path, names=("airplane-2",), flat=True)
    with pytest.raises(JaxtrackError, match="lasot: airplane-2 is there twice: delete one"):
        layouts.read_layout("lasot", tmp_path, "full")
    problems: list[JaxtrackError] = []
    found = layouts.read_layout("lasot", tmp_path, "full", on_problem=problems.append)
    assert [record.name for record in found] == ["airplane-1", "airplane-2"]
    assert len(problems) == 1


def test_numbers_of_stills_may_repeat(tmp_path):
    fx.write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    table = json.loads(path.read_text())
    for note in table["annotations"]:
        note["id"] = 1
    path.write_text(json.dumps(table))
    assert len(layouts.read_layout("coco", tmp_path)) > 1


def test_nothing_to_use_is_a_problem(tmp_path):
    fx.write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    table = json.loads(path.read_text())
    for note in table["annotations"]:
        note["bbox"] = [0.1, 0.1, 0.3, 0.3]  # shares of the image, each below two pixels
    path.write_text(json.dumps(table))
    report = check.check_source("coco", tmp_path)
    assert report.problems == [f"coco: no target that can be used in {tmp_path}"]


def test_a_video_in_a_folder_of_its_own_name_is_told(tmp_path):
    """Archives that hold one folder leave such ones where they are unpacked into one."""
    fx.write_otb(tmp_path / "otb", ("Boy",))
    fx.write_otb(tmp_path / "otb" / "Deer", ("Deer",))
    fx.write_lasot(tmp_path / "lasot")
    fx.write_lasot(tmp_path / "lasot" / "airplane" / "airplane-3", ("airplane-3",), flat=True)
    fx.write_vot(tmp_path / "vot")
    (tmp_path / "vot" / "list.txt").unlink()
    (tmp_path / "vot" / "bag").mkdir()
    shutil.copytree(tmp_path / "vot" / "ants1", tmp_path / "vot" / "bag" / "bag")
    for dataset, split, deep in (
        ("otb", None, "Deer/Deer"),
        ("lasot", "full", "airplane/airplane-3/airplane-3"),
        ("vot2018", None, "bag/bag"),
    ):
        root = tmp_path / dataset.removesuffix("2018")
        assert f"{root / deep} lies a folder too deep: move it one up" in message(
            dataset, root, split
        )
    alone = tmp_path / "alone"
    shutil.copytree(tmp_path / "lasot", alone / "a" / "b")
    assert f"it holds a alone: is {alone / 'a'} the folder to give?" in message("lasot", alone)
