"""Raw result files: every published layout, any separator, and what is wrong with them."""

import json
import os
import zipfile

import numpy as np
import pytest

from eval.files.results import (
    Tracked,
    common_names,
    polygon_bounds,
    read_named,
    read_results,
    read_run,
    read_tracked,
    tracked_files,
    write_run,
    write_tracked,
)
from eval.files.truth import read_ground_truth
from eval.metrics.eao import FAILED, INITIALISED, REGION, SKIPPED, Run
from eval.metrics.protocols import get_benchmark
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.io.images import write_image
from tests.eval.layouts import write_results

BOXES = np.array([[10.5, 20.25, 30, 40], [11.1234, -0.5, 30.001, 41]])


@pytest.mark.parametrize("layout", ["pysot", "lasot", "got10k", "pytracking"])
def test_written_results_are_read_again(layout, tmp_path):
    write_results(tmp_path / "Ours", "Deer", BOXES, [0.1, 0.2], layout)
    write_results(tmp_path / "Ours", "Jogging-1", BOXES[:1], None, layout)
    (tracker,) = read_results(tmp_path / "Ours")
    assert tracker.name == "Ours"
    assert set(tracker.boxes) == {"Deer", "Jogging-1"}
    np.testing.assert_allclose(tracker.boxes["Deer"], BOXES, atol=5e-5)
    np.testing.assert_allclose(tracker.times["Deer"][0], [0.1, 0.2])


def test_ours_are_written_and_read_again(tmp_path):
    scores, times = np.array([np.nan, 0.25]), np.array([0.125, 0.5])
    for name, shift in (("B", 0), ("B_time", 5), ("B_score", 9)):
        write_tracked(tmp_path / "T", name, Tracked(BOXES + shift, scores, times))
    for name, shift in (("B", 0), ("B_time", 5), ("B_score", 9)):
        found = read_tracked(tmp_path / "T", name)
        np.testing.assert_allclose(found.boxes, BOXES + shift, atol=5e-5)
        np.testing.assert_array_equal(found.scores, scores)
        np.testing.assert_array_equal(found.times, times)
    (tracker,) = read_results(tmp_path / "T")
    assert sorted(tracker.boxes) == ["B", "B_score", "B_time"]
    np.testing.assert_array_equal(tracker.times["B_time"], [times])
    np.testing.assert_array_equal(tracker.confidences["B"], scores)
    tracked_files(tmp_path / "T", "B")["scores"].write_text("nan\n")
    with pytest.raises(JaxtrackError, match="2 boxes, 1 scores and 2 times"):
        read_tracked(tmp_path / "T", "B")
    for name in ("", "../B", ".B", "a/b", "a\0b"):
        with pytest.raises(JaxtrackError, match="cannot be the name of a file"):
            write_tracked(tmp_path / "T", name, Tracked(BOXES, scores, times))


def test_a_row_can_be_named(tmp_path):
    write_results(tmp_path / "all" / "A", "Deer", BOXES)
    write_results(tmp_path / "all" / "B", "Deer", BOXES)
    write_results(tmp_path / "a=b", "Deer", BOXES)
    assert [t.name for t in read_named(f"mine={tmp_path / 'all' / 'A'}")] == ["mine"]
    assert [t.name for t in read_named(str(tmp_path / "a=b"))] == ["a=b"]
    with pytest.raises(UsageError, match="here are 2: A, B"):
        read_named(f"mine={tmp_path / 'all'}")


def test_longterm_results(tmp_path):
    folder = tmp_path / "L" / "longterm" / "ballet"
    folder.mkdir(parents=True)
    (folder / "ballet_001.txt").write_text("1\n1,2,3,4\n5,6,7,8\n")
    (folder / "ballet_001_confidence.value").write_text("\n0.5\n0.25\n")
    (tracker,) = read_results(tmp_path / "L")
    np.testing.assert_array_equal(tracker.confidences["ballet"], [np.nan, 0.5, 0.25])
    np.testing.assert_array_equal(tracker.runs["ballet"][0].regions[2, :4], [5, 6, 7, 8])


def test_got10k_repetitions(tmp_path):
    for k in (1, 2):
        write_results(tmp_path, "GOT-10k_Val_000001", BOXES + k, [0.1 * k] * 2, "got10k", k)
    (tracker,) = read_results(tmp_path)
    runs = tracker.repetitions["GOT-10k_Val_000001"]
    assert [r[0, 0] for r in runs] == [11.5, 12.5]
    np.testing.assert_allclose(tracker.times["GOT-10k_Val_000001"], [[0.1, 0.1], [0.2, 0.2]])


def test_supervised_runs(tmp_path):
    codes = np.array([INITIALISED, REGION, FAILED, SKIPPED, REGION], np.int8)
    regions = np.full((5, 8), np.nan)
    regions[1, :4] = [1, 2, 3, 4]
    regions[4] = np.arange(8) + 0.5
    path = write_run(tmp_path / "Ours", "ants1", Run(regions, codes))
    assert path == tmp_path / "Ours" / "baseline" / "ants1" / "ants1_001.txt"
    (tracker,) = read_results(tmp_path / "Ours")
    (run,) = tracker.runs["ants1"]
    np.testing.assert_array_equal(run.codes, codes)
    np.testing.assert_array_equal(run.regions, regions)
    path.write_text("1\n1,2,3,4\n3\n")
    with pytest.raises(
        JaxtrackError, match=r"ants1_001\.txt line 3: a box, a polygon or one of 0, 1, 2"
    ):
        read_run(path)


def test_all_fifteen_repetitions_or_the_first(tmp_path):
    run = Run(np.array([[np.nan] * 4, [1.0, 2, 3, 4]]), np.array([INITIALISED, REGION]))
    for k in range(1, 16):
        write_run(tmp_path, "ants1", run, k)
    assert len(read_results(tmp_path)[0].runs["ants1"]) == 15
    (tmp_path / "baseline" / "ants1" / "ants1_007.txt").unlink()
    assert len(read_results(tmp_path)[0].runs["ants1"]) == 1


def test_what_lies_beside_results_is_none(tmp_path):
    write_results(tmp_path / "A", "Deer", BOXES)
    (tmp_path / "A" / "Deer.txt").rename(tmp_path / "A" / "Deer.TXT")
    for name in ("README.txt", "log.txt", "License.txt", "._Deer.txt"):
        (tmp_path / "A" / name).write_text("by us\n")
    (tracker,) = read_results(tmp_path)
    assert set(tracker.boxes) == {"Deer"}
    write_results(tmp_path / "A", "log", BOXES)  # of a video of that name
    assert set(read_results(tmp_path)[0].boxes) == {"Deer", "log"}
    write_results(tmp_path / "A", "Deer", BOXES)
    with pytest.raises(JaxtrackError, match=r"Deer\.TXT and .*Deer\.txt are of one name"):
        read_results(tmp_path)


def test_trackers_below_a_tracker_are_told(tmp_path):
    tracker = Tracked(BOXES, np.zeros(2), np.zeros(2))
    write_tracked(tmp_path / "T", "Deer", tracker)  # has folders of times and scores
    assert read_results(tmp_path / "T")[0].notes == []
    write_results(tmp_path / "T" / "older", "Deer", BOXES)
    (found,) = read_results(tmp_path / "T")
    assert found.name == "T"
    assert found.notes[0].endswith("so that those in its folders are not read: older")


def test_folders_of_trackers_and_npz(tmp_path):
    write_results(tmp_path / "all" / "A", "Deer", BOXES)
    write_results(tmp_path / "all" / "B" / "default_000", "Deer", BOXES, layout="pytracking")
    assert [t.name for t in read_results(tmp_path / "all")] == ["A", "B/default_000"]
    np.savez(tmp_path / "r.npz", names=["Deer"], C_boxes=BOXES, C_lengths=[2])
    assert read_results(tmp_path / "r.npz")[0].boxes["Deer"].shape == (2, 4)
    np.savez(tmp_path / "bad.npz", names=["Deer"], C_boxes=BOXES, C_lengths=[3])
    with pytest.raises(JaxtrackError, match="lengths add up to 3, but there are 2 rows"):
        read_results(tmp_path / "bad.npz")
    (tmp_path / "empty").mkdir()
    for path, message in (("empty", "no result files under"), ("nowhere", "no results at")):
        with pytest.raises(JaxtrackError, match=message):
            read_results(tmp_path / path)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "r.npz").read_bytes()[:100])
    with pytest.raises(JaxtrackError, match=r"cut\.npz: not a whole"):
        read_results(tmp_path / "cut.npz")


def _zip(path, change):
    """Write an npz of results whose single member is changed by ``change(info, data)``."""
    np.savez(path, names=["Deer"])
    with zipfile.ZipFile(path) as archive:
        (info,) = archive.infolist()
        data = archive.read(info)
    path.write_bytes(change(info, data, path.read_bytes()))


HOSTILE = {
    "no zip": lambda info, data, whole: b"names",
    "cut": lambda info, data, whole: whole[: len(whole) // 2],
    "encrypted": lambda info, data, whole: whole.replace(
        b"PK\x03\x04\x14\0\0\0", b"PK\x03\x04\x14\0\1\0"
    ).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"),
    "method": lambda info, data, whole: whole.replace(
        b"PK\x03\x04\x14\0\0\0\0\0", b"PK\x03\x04\x14\0\0\0\x63\0"
    ).replace(b"PK\x01\x02\x14\x03\x14\0\0\0\0\0", b"PK\x01\x02\x14\x03\x14\0\0\0\x63\0"),
    "header": lambda info, data, whole: whole.replace(b"'shape': (1,)", b"'shape': (9,)"),
    "bits": lambda info, data, whole: whole.replace(b"NUMPY", b"MUMPY"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    "read", [read_results, lambda p: read_ground_truth(p, get_benchmark("otb"))]
)
def test_damaged_arrays_are_named(kind, read, tmp_path):
    path = tmp_path / "r.npz"
    _zip(path, HOSTILE[kind])
    with pytest.raises(JaxtrackError, match=r"r\.npz") as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"names": [["Deer"]], "T_boxes": BOXES, "T_lengths": [2]},
        {"names": [1], "T_boxes": BOXES, "T_lengths": [2]},
        {"names": ["Deer", "Deer"], "T_boxes": BOXES, "T_lengths": [1, 1]},
        {"names": ["Deer"], "T_boxes": BOXES},
        {"names": ["Deer"], "T_boxes": BOXES, "T_lengths": [-2]},
        {"names": ["Deer"], "T_boxes": BOXES, "T_lengths": [2.0]},
        {"names": ["Deer"], "T_boxes": BOXES, "T_lengths": [1, 1]},
        {"names": ["Deer"], "T_boxes": BOXES[:, :3], "T_lengths": [2]},
        {"names": ["Deer"], "T_boxes": BOXES.astype(str), "T_lengths": [2]},
        {"names": ["Deer"], "T_boxes": BOXES, "T_lengths": [2], "T_code": [0.5, 1.0]},
        {"names": ["Deer"], "T_boxes": BOXES, "T_lengths": [2], "T_code": [1]},
        {"names": ["Deer"]},
        {"T_boxes": BOXES, "T_lengths": [2]},
    ],
)
def test_arrays_that_are_no_results(arrays, tmp_path):
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(JaxtrackError, match=r"r\.npz"):
        read_results(tmp_path / "r.npz")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "r.npz")
    for read in (read_results, lambda p: read_ground_truth(p, get_benchmark("otb"))):
        with pytest.raises(JaxtrackError, match="a file is wanted"):
            read(tmp_path / "r.npz")


def test_an_archive_that_claims_gigabytes_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "r.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("names.npy", b"")
    whole = (tmp_path / "r.npz").read_bytes()
    at = whole.index(b"PK\x01\x02") + 24  # the size that the directory states
    (tmp_path / "r.npz").write_bytes(whole[:at] + b"\xff\xff\xff\xf0" + whole[at + 4 :])
    with pytest.raises(JaxtrackError, match="it unpacks to 4043 MB"):
        read_results(tmp_path / "r.npz")


@pytest.mark.parametrize(
    "entry",
    [
        {"gt_rect": 3},
        {"gt_rect": []},
        {"gt_rect": [[1, 2, 3]]},
        {"gt_rect": [["a", 2, 3, 4]]},
        {"gt_rect": [[1, 2, 3, {}]]},
        {"gt_rect": [[1, 2, 3, 1e999]]},
        {"gt_rect": [[1, 2, 3, 4]], "absent": [1, 0]},
        {"gt_rect": [[1, 2, 3, 4]], "absent": ["x"]},
        {"gt_rect": [[1, 2, 3, 4]], "attr": 3},
        {"gt_rect": [[1, 2, 3, 4]], "attr": [3]},
        {"gt_rect": [[1, 2, 3, 4]], "width": "x", "height": 2},
        {"gt_rect": [[1, 2, 3, 4]], "width": -1, "height": 2},
    ],
)
def test_data_set_files_that_are_none(entry, tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({"Deer": entry}))
    with pytest.raises(JaxtrackError, match=r"d\.json"):
        read_ground_truth(tmp_path / "d.json", get_benchmark("otb"))


def test_benchmarks_before_the_names(tmp_path):
    wanted = ["bike1", "bird1_1", "uav1_1"]
    assert common_names(["uav_bike1", "uav_bird1_1", "uav_uav1_1"], wanted) == {
        "uav_bike1": "bike1",
        "uav_bird1_1": "bird1_1",
        "uav_uav1_1": "uav1_1",
    }
    assert common_names(["nfs_bee", "tpl_Ball_ce1"], ["bee", "Ball_ce1"]) == {
        "nfs_bee": "bee",
        "tpl_Ball_ce1": "Ball_ce1",
    }
    assert common_names(["uav1_1"], ["1_1", "uav1_1"]) == {"uav1_1": "uav1_1"}


def test_runs_are_found_below_a_benchmark(tmp_path):
    write_results(tmp_path / "ostrack" / "vitb_256" / "lasot", "cat-1", BOXES)
    write_results(tmp_path / "ostrack" / "vitb_256" / "lasot", "._cat-1", BOXES)
    (tracker,) = read_results(tmp_path)
    assert tracker.name == "ostrack/vitb_256/lasot"
    assert list(tracker.boxes) == ["cat-1"]


def test_spellings_of_sequence_names():
    wanted = ["Jogging-1", "Jogging-2", "Human4-2", "Deer"]
    names = common_names(["jogging_1", "Jogging.2", "Human4", "Deer", "Zebra"], wanted)
    assert names == {
        "jogging_1": "Jogging-1",
        "Jogging.2": "Jogging-2",
        "Human4": "Human4-2",
        "Deer": "Deer",
    }
    assert common_names(["Jogging.1", "jogging_1"], wanted) == {"Jogging.1": "Jogging-1"}


def test_polygon_bounds():
    np.testing.assert_array_equal(
        polygon_bounds(np.array([[1.0, 2, 4, 3, 5, 9, 0, 8]])), [[0, 2, 5, 7]]
    )


def otb_folder(root):
    files = {
        "Deer/groundtruth_rect.txt": "1,2,3,4\n5,6,7,8\n",
        "Jogging/groundtruth_rect.1.txt": "1\t2\t3\t4\n",
        "Jogging/groundtruth_rect.2.txt": "1 2 3 4\n",
        "Human4/groundtruth_rect.1.txt": "",
        "Human4/groundtruth_rect.2.txt": "1,2,3,4\n",
        "Tiger1/groundtruth_rect.txt": "1,2,3,4\n" * 354,
    }
    write_all(root, files)
    return {"Deer": 2, "Jogging-1": 1, "Jogging-2": 1, "Human4-2": 1, "Tiger1": 349}


def lasot_folder(root):
    files = {
        "cat/cat-1/groundtruth.txt": "1,2,3,4\n" * 3,
        "cat/cat-1/full_occlusion.txt": "0,1,0\n",
        "cat/cat-1/out_of_view.txt": "0,0,1\n",
    }
    write_all(root, files)
    return {"cat-1": 3}


def lasot_toolkit_folder(root):
    flags = ",".join("01000000000000")
    files = {"cat-1.txt": "1,2,3,4\n" * 3, "absent/cat-1.txt": "0\n1\n1\n", "att/cat-1.txt": flags}
    write_all(root, files)
    return {"cat-1": 3}


def got10k_folder(root):
    files = {
        "GOT-10k_Val_000001/groundtruth.txt": "1,2,3,4\n" * 2,
        "GOT-10k_Val_000001/cover.label": "8\n0\n",
        "GOT-10k_Val_000001/meta_info.ini": "[METAINFO]\nresolution: (1920, 1080)\n",
    }
    write_all(root, files)
    return {"GOT-10k_Val_000001": 2}


def vot_folder(root):
    files = {
        "list.txt": "ants1\n",
        "ants1/groundtruth.txt": "1,2,3,2,3,4,1,4\n" * 3,
        "ants1/occlusion.tag": "0\n1\n",
        "ants1/sequence": "name=ants1\nwidth=640\nheight=480\n",
    }
    write_all(root, files)
    return {"ants1": 3}


def nfs_folder(root):
    write_all(root, {"ball/30/ball.txt": '0 10 20 40 60 0 0 0 0 "ball"\n' * 17})
    return {"ball": 3}


def tc128_folder(root):
    write_all(root, {"Ball_ce1/Ball_ce1_gt.txt": "1,2,3,4\n" * 3})
    return {"Ball_ce1": 3}


def uav_folder(root):
    files = {"anno/UAV123/bike1.txt": "1,2,3,4\nNaN,NaN,NaN,NaN\n"}
    write_all(root, files)
    return {"bike1": 2}


def write_all(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


FOLDERS = [
    ("otb", otb_folder),
    ("lasot", lasot_folder),
    ("lasot", lasot_toolkit_folder),
    ("got10k", got10k_folder),
    ("vot2018", vot_folder),
    ("nfs", nfs_folder),
    ("tc128", tc128_folder),
    ("uav123", uav_folder),
]


@pytest.mark.parametrize(("benchmark", "make"), FOLDERS)
def test_ground_truth_folders(benchmark, make, tmp_path):
    expected = make(tmp_path)
    truth = read_ground_truth(tmp_path, get_benchmark(benchmark))
    assert {n: len(a) for n, a in truth.items()} == expected
    first = next(iter(truth.values()))
    if benchmark == "nfs":
        np.testing.assert_array_equal(first.boxes[0], [10, 20, 30, 40])
    elif benchmark == "vot2018":
        np.testing.assert_array_equal(first.polygons[0], [1, 2, 3, 2, 3, 4, 1, 4])
        assert first.size == (640, 480)
        assert first.tags["occlusion"].tolist() == [False, True, False]
    else:
        np.testing.assert_array_equal(first.boxes[0], [1, 2, 3, 4])
    if benchmark == "lasot":
        assert first.absent.tolist() == [False, True, True]
    if make is lasot_toolkit_folder:
        assert first.attributes == ("Partial Occlusion",)
    if benchmark == "got10k":
        assert first.size == (1920, 1080)
        assert first.cover.tolist() == [8, 0]


@pytest.mark.parametrize("image", ["00000001.JPG", "00000001.png", "00000001.bmp"])
def test_the_size_of_any_image_is_that_of_the_ground_truth(image, tmp_path):
    video = tmp_path / "GOT-10k_Val_000001"
    write_all(tmp_path, {"GOT-10k_Val_000001/groundtruth.txt": "1,2,3,4\n" * 2})
    write_image((video / image).with_suffix(".png"), np.zeros((30, 40, 3), np.uint8))
    (video / image).with_suffix(".png").rename(video / image)
    (video / "._00000001.jpg").write_bytes(b"\0\5\26\7")
    truth = read_ground_truth(tmp_path, get_benchmark("got10k"))
    assert truth["GOT-10k_Val_000001"].size == (40, 30)


def test_ground_truth_files(tmp_path):
    otb = get_benchmark("otb")
    content = {"Deer": {"gt_rect": [[1, 2, 3, 4], [5, 6, 7, 8]], "attr": ["MB"], "absent": [1, 0]}}
    (tmp_path / "OTB100.json").write_text(json.dumps(content))
    truth = read_ground_truth(tmp_path / "OTB100.json", otb)
    assert truth["Deer"].attributes == ("MB",)
    assert truth["Deer"].absent.tolist() == [False, True]  # the file's flag means "present"
    (tmp_path / "x.json").write_text("[1]")
    np.savez(tmp_path / "x.npz", a=[1])
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("x.json", "not a data set file"),
        ("x.npz", "no arrays 'names'"),
        ("empty", "is empty"),
        ("none", "no ground truth at"),
    ):
        with pytest.raises(JaxtrackError, match=message):
            read_ground_truth(tmp_path / name, otb)
