"""Zip files for the evaluation servers: written, checked, and refused with a reason."""

import os
import warnings
import zipfile

import numpy as np
import pytest

from eval import submit
from eval.files.results import TrackerResults
from eval.submit import LAYOUTS, check_zip, main, write_zip
from jaxtrack.data import layouts
from jaxtrack.errors import JaxtrackError
from tests import data_fixtures as fx
from tests.eval.layouts import write_results

BOXES = np.array([[10.0, 20, 30, 40], [11, 21, 30, 40]])


def got10k_results(count=180):
    names = [f"GOT-10k_Test_{i:06d}" for i in range(1, count + 1)]
    return TrackerResults(
        "ours",
        "here",
        repetitions={n: [BOXES] for n in names},
        times={n: [np.array([0.1, 0.2])] for n in names},
    )


def trackingnet_results(count=511):
    return TrackerResults("ours", "here", boxes={f"0-6LB4FqxoE_{i}": BOXES for i in range(count)})


@pytest.mark.parametrize(
    ("benchmark", "make", "member"),
    [
        ("got10k", got10k_results, "GOT-10k_Test_000007/GOT-10k_Test_000007_001.txt"),
        ("trackingnet", trackingnet_results, "0-6LB4FqxoE_7.txt"),
    ],
)
def test_whole_submissions(benchmark, make, member, tmp_path):
    path = tmp_path / "out" / "submit.zip"
    results = make()
    names = results.repetitions or results.boxes
    remarks = write_zip(
        path, results, benchmark, dict.fromkeys(names, 2), dict.fromkeys(names, BOXES[0])
    )
    assert remarks[0].startswith(f"{LAYOUTS[benchmark].sequences} sequences")
    with zipfile.ZipFile(path) as archive:
        assert (
            archive.read(member)
            == b"10.0000,20.0000,30.0000,40.0000\n11.0000,21.0000,30.0000,40.0000\n"
        )
        times = "GOT-10k_Test_000007/GOT-10k_Test_000007_time.txt"
        assert (times in archive.namelist()) == (benchmark == "got10k")
    assert check_zip(path, benchmark) == [remarks[0], check_zip(path, benchmark)[1]]
    assert [p.name for p in path.parent.iterdir()] == ["submit.zip"]


def test_incomplete_submissions_are_not_written(tmp_path):
    path = tmp_path / "a.zip"
    with pytest.raises(JaxtrackError, match="3 sequences where the test set has 180"):
        write_zip(path, got10k_results(3), "got10k")
    assert not list(tmp_path.iterdir())
    write_zip(path, got10k_results(3), "got10k", partial=True)
    results = got10k_results()
    del results.times["GOT-10k_Test_000005"]
    with pytest.raises(JaxtrackError, match="GOT-10k_Test_000005: no seconds per frame"):
        write_zip(path, results, "got10k")
    with pytest.raises(
        JaxtrackError, match=r"no server takes a zip file of .otb.; nearest: got10k"
    ):
        write_zip(path, results, "otb")
    lengths = {f"GOT-10k_Test_{i:06d}": 2 for i in range(1, 5)}
    with pytest.raises(JaxtrackError, match="no result for GOT-10k_Test_000004"):
        write_zip(path, got10k_results(3), "got10k", lengths)


def archive(path, members):
    with zipfile.ZipFile(path, "w") as target:
        for name, text in members.items():
            target.writestr(name, text)
    return path


GOOD = "10,20,30,40\n"


@pytest.mark.parametrize(
    ("member", "text", "message"),
    [
        ("submit/0-6LB4FqxoE_0.txt", GOOD, "not named as the server expects"),
        ("0-6LB4FqxoE_0.csv", GOOD, "not named as the server expects"),
        ("0-6LB4FqxoE_0.txt", "10 20 30 40\n", "not separated by commas"),
        ("0-6LB4FqxoE_0.txt", "10,20,30\n", "3 columns where x, y, w, h are expected"),
        ("0-6LB4FqxoE_0.txt", "", "not separated by commas"),
        ("0-6LB4FqxoE_0.txt", "1,2,nan,4\n", "line 1: not a finite box"),
        ("0-6LB4FqxoE_0.txt", "100,90,-4,5\n", "line 1: negative width or height"),
        ("0-6LB4FqxoE_0.txt", GOOD * 3, "3 rows for 1 frames"),
        ("0-6LB4FqxoE_0.txt", "90,20,30,40\n", "line 1: .* is not the given box"),
        ("0-6LB4FqxoE_9.txt", GOOD, "sequences that are not in the test set: 0-6LB4FqxoE_9"),
    ],
)
def test_what_a_server_would_stumble_over(member, text, message, tmp_path):
    path = archive(tmp_path / "a.zip", {member: text})
    first = {"0-6LB4FqxoE_0": np.array([10.0, 20, 30, 40])}
    with pytest.raises(JaxtrackError, match=message):
        check_zip(path, "trackingnet", {"0-6LB4FqxoE_0": 1}, first, partial=True)


def test_archives_that_no_server_opens(tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "_MEMBER_AT_MOST", 1 << 16)
    monkeypatch.setattr(submit, "_TOTAL_AT_MOST", 1 << 17)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("0-6LB4FqxoE_0.txt", b"0" * (1 << 20))
    with pytest.raises(JaxtrackError, match="unpacks to 1,048,576 bytes"):
        check_zip(path, "trackingnet")
    archive(path, {f"0-6LB4FqxoE_{i}.txt": "1,2,3,4\n" * 4000 for i in range(6)})
    with pytest.raises(JaxtrackError, match="with those before it"):
        check_zip(path, "trackingnet")
    monkeypatch.setattr(submit, "_MEMBERS_AT_MOST", 3)
    archive(path, {f"0-6LB4FqxoE_{i}.txt": GOOD for i in range(6)})
    with pytest.raises(JaxtrackError, match="6 files, far more"):
        check_zip(path, "trackingnet")
    archive(path, {"0-6LB4FqxoE_0.txt": GOOD})
    whole = path.read_bytes()
    for old, new, words in (
        (b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1", "is encrypted"),
        (b"PK\x01\x02\x14\x03\x14\0\0\0\0", b"PK\x01\x02\x14\x03\x14\0\0\0\x63", "not a readable"),
        (b"10,20", b"11,20", "not a readable zip file"),
    ):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(JaxtrackError, match=words) as error:
            check_zip(path, "trackingnet")
        assert "\n" not in str(error.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w") as twice:
            for _ in range(2):
                twice.writestr("0-6LB4FqxoE_0.txt", GOOD)
    with pytest.raises(JaxtrackError, match="stands there twice"):
        check_zip(path, "trackingnet")
    os.mkfifo(tmp_path / "pipe.zip")
    for other, words in ((tmp_path, "not a file"), (tmp_path / "none.zip", "no such file")):
        with pytest.raises(JaxtrackError, match=words):
            check_zip(other, "trackingnet")
    with pytest.raises(JaxtrackError, match="not a file"):
        check_zip(tmp_path / "pipe.zip", "trackingnet")


def test_got10k_times(tmp_path):
    stem = "GOT-10k_Test_000001/GOT-10k_Test_000001"
    for times, message in (
        ({}, "_time.txt is missing"),
        ({f"{stem}_time.txt": "0.1\n0.2\n"}, r"shape \(2, 1\) where \(1, 1\) is expected"),
        ({f"{stem}_time.txt": "-1\n"}, "negative"),
    ):
        path = archive(tmp_path / "a.zip", {f"{stem}_001.txt": GOOD, **times})
        with pytest.raises(JaxtrackError, match=message):
            check_zip(path, "got10k", partial=True)
    damaged = tmp_path / "b.zip"
    damaged.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(JaxtrackError, match="not a readable zip file"):
        check_zip(damaged, "got10k")


def test_command_line(tmp_path, capsys):
    for name, boxes in trackingnet_results().boxes.items():
        write_results(tmp_path / "ours", name, boxes)
    target = tmp_path / "submit.zip"
    options = ["--benchmark", "trackingnet"]
    assert main([str(tmp_path / "ours"), *options, "--output", str(target)]) == 0
    assert "ready for the server" in capsys.readouterr().out
    assert main(["--check", str(target), *options]) == 0
    assert main(options) == 2
    assert main(["--check", str(target), "--benchmark", "otb"]) == 2
    results = tmp_path / "ours" / "0-6LB4FqxoE_1.txt"
    assert main([str(tmp_path / "ours"), *options, "--output", str(results)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    (tmp_path / "ours" / "0-6LB4FqxoE_0.txt").unlink()
    assert main([str(tmp_path / "ours"), *options, "--output", str(target)]) == 1
    assert "510 sequences where the test set has 511" in capsys.readouterr().err


def test_messages_name_the_file_that_is_wanted(tmp_path, capsys):
    for name, boxes in trackingnet_results(3).boxes.items():
        write_results(tmp_path / "ours", name, boxes)
    (tmp_path / "ours" / "0-6LB4FqxoE_0.txt").write_text("10,20,-30,40\n")
    target = tmp_path / "p.zip"
    for more in ([], ["--partial"]):  # too few sequences; then a size that is none
        words = [str(tmp_path / "ours"), "--benchmark", "trackingnet", "--output", str(target)]
        assert main([*words, *more]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {target}")
        assert ".part" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["ours"]


@pytest.mark.parametrize("name", ["GOT-10k", "got10k", "Got_10K", "got"])
def test_any_spelling_of_a_benchmark(name, tmp_path, capsys):
    assert LAYOUTS["got10k"] is submit._layout(name)
    assert main(["--check", str(tmp_path / "none.zip"), "--benchmark", name]) == 1
    assert "no such file" in capsys.readouterr().err
    for other in ("lasot", "GOT-11k"):
        assert main(["--check", str(tmp_path / "none.zip"), "--benchmark", other]) == 2
        assert f"no server takes a zip file of '{other}'" in capsys.readouterr().err


def test_rows_are_compared_with_the_images_of_the_test_set(tmp_path, capsys):
    fx.write_got10k(tmp_path / "d", "test", (1, 2), count=5)
    words = [
        "--partial",
        "--ground-truth",
        str(tmp_path / "d"),
        "--output",
        str(tmp_path / "a.zip"),
    ]
    truth = {
        r.name: r.boxes[0] + [1, 1, 0, 0]
        for r in layouts.read_layout("got10k", tmp_path / "d", "test")
    }
    for rows in (5, 4):
        for name, box in truth.items():
            write_results(tmp_path / "r", name, np.tile(box, (rows, 1)), [0.1] * rows, "got10k", 1)
        assert main([str(tmp_path / "r"), *words]) == (rows != 5)
        said = capsys.readouterr()
        assert "not checked" not in said.out
    assert "GOT-10k_Test_000001_001.txt: 4 rows for 5 frames" in said.err
    for image in (tmp_path / "d").rglob("*.jpg"):
        image.unlink()
    assert main([str(tmp_path / "r"), *words]) == 0
    assert "--ground-truth, the folder with the images, gives them" in capsys.readouterr().out
