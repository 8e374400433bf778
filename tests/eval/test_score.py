"""The scoring command: tables and files, packs of expected values, and what it refuses."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from eval import score
from eval.conformance.pack import check_pack
from eval.files.results import write_run
from eval.score import main
from tests.eval.layouts import write_results
from tests.eval.pages import page_data
from tests.eval.test_vot import supervised

BOX = [10.0, 20.0, 30.0, 40.0]


@pytest.fixture
def otb(tmp_path):
    """Ground truth of three sequences and the results of two trackers."""
    truth = tmp_path / "otb"
    truth.mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(("Deer", "Jogging-1", "Skiing")):
        boxes = np.tile(BOX, (12, 1)) + i
        np.savetxt(truth / f"{name}.txt", boxes, fmt="%g", delimiter=",")
        write_results(tmp_path / "results" / "good", name, boxes)
        write_results(tmp_path / "results" / "noisy", name, boxes + rng.normal(0, 6, boxes.shape))
    return tmp_path


def arguments(folder, *more, results="results"):
    return [
        str(folder / results),
        "--benchmark",
        "otb",
        "--ground-truth",
        str(folder / "otb"),
        *more,
    ]


def test_table_and_files(otb, capsys):
    files = [str(otb / f"out.{kind}") for kind in ("json", "csv", "tex")]
    more = [
        "--json",
        files[0],
        "--csv",
        files[1],
        "--latex",
        files[2],
        "--sequences",
        "--protocol",
        "all",
    ]
    assert main(arguments(otb, *more)) == 0
    printed = capsys.readouterr().out
    assert "good     otb_matlab" in printed
    assert "0.9524" in printed
    assert "bootstrap" in printed
    content = json.loads((otb / "out.json").read_text())
    good = next(s for s in content["scores"] if (s["tracker"], s["protocol"]) == ("good", "pysot"))
    assert good["metrics"]["auc"] == pytest.approx(20 / 21)
    assert len(good["curves"]["success"]) == 21
    assert set(good["per_sequence"]) == {"Deer", "Jogging-1", "Skiing"}
    rows = list(csv.DictReader((otb / "out.csv").read_text().splitlines()))
    assert float(rows[0]["auc"]) == pytest.approx(20 / 21)
    assert float(rows[0]["auc_low"]) <= float(rows[0]["auc"])
    latex = (otb / "out.tex").read_text()
    assert r"\textbf{95.2}" in latex
    assert r"otb\_matlab" in latex


def test_other_spellings_are_taken_and_said(otb, capsys):
    results = otb / "results" / "good"
    (results / "Jogging-1.txt").rename(results / "jogging_1.txt")
    assert main(arguments(otb, results="results/good")) == 0
    assert "taken by another spelling: jogging_1 for Jogging-1" in capsys.readouterr().out


def test_missing_sequences_and_the_choice(otb, capsys):
    (otb / "results" / "good" / "Deer.txt").unlink()
    assert main(arguments(otb, results="results/good")) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no result for 1 of 3 sequences: Deer")
    assert error.count("\n") == 1
    assert main(arguments(otb, "--allow-missing", results="results/good")) == 0
    printed = capsys.readouterr().out
    assert "note: good (otb_matlab): no result for 1 of 3 sequences: Deer" in printed
    assert "0.9524" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10,20,30,40\n" * 5, "Deer: 5 result rows for 12 frames"),
        ("10,20,30\n" * 12, "3 columns where 4 or 8 are expected"),
        ("10,20,30,40\n" * 11 + "10,20,30\n", "line 12: 3 numbers"),
        ("10,20,30,forty\n" * 12, "line 1: 'forty' is not a number"),
        ("", "is empty"),
    ],
)
def test_bad_files_are_named(otb, capsys, text, message):
    (otb / "results" / "good" / "Deer.txt").write_text(text)
    assert main(arguments(otb, results="results/good")) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Deer" in error
    assert error.count("\n") == 1


def test_nan_rows_and_the_choice(otb, capsys):
    path = otb / "results" / "good" / "Deer.txt"
    path.write_text("10,20,30,40\n" * 11 + "nan,nan,nan,nan\n")
    more = ["--protocol", "pysot"]
    assert main(arguments(otb, *more, results="results/good")) == 1
    assert "Deer: 1 result rows are not finite (first: row 12)" in capsys.readouterr().err
    assert main(arguments(otb, *more, "--allow-missing", results="results/good")) == 0
    assert "counted as failures" in capsys.readouterr().out


def test_other_conventions_are_noticed(otb, capsys):
    for name in ("Deer", "Jogging-1", "Skiing"):
        boxes = np.loadtxt(otb / "otb" / f"{name}.txt", delimiter=",")
        boxes[:, :2] -= 1
        write_results(otb / "results" / "zero", name, boxes)
        boxes[0, 2:] += boxes[0, :2]
        write_results(otb / "results" / "corners", name, boxes)
    assert main(arguments(otb, results="results/zero")) == 0
    assert "seem to count pixels from 0" in capsys.readouterr().out
    assert main(arguments(otb, results="results/corners")) == 0
    assert "3 look like corners" in capsys.readouterr().out


def test_usage_errors(otb, capsys):
    assert main([]) == 2
    assert main([str(otb / "results")]) == 2
    assert main(arguments(otb, "--protocol", "pysott")) == 2
    assert "nearest: pysot" in capsys.readouterr().err
    assert main([*arguments(otb)[:2], "otter", *arguments(otb)[3:]]) == 2
    assert main(arguments(otb, results="nowhere")) == 1
    assert main(["--no-such-option"]) == 2


@pytest.mark.parametrize(
    ("text", "words"), [("={}", "no name before the sign ="), ("a=", "no folder behind the sign =")]
)
def test_half_a_name_is_a_mistake_in_the_call(text, words, otb, capsys):
    given = text.format(otb / "results" / "good")
    assert main([given, *arguments(otb)[1:]]) == 2
    assert f"{given}: {words}; give FOLDER or NAME=FOLDER" in capsys.readouterr().err


def test_got10k_and_vot(tmp_path, capsys):
    folder = tmp_path / "val" / "GOT-10k_Val_000001"
    folder.mkdir(parents=True)
    (folder / "groundtruth.txt").write_text("10,20,30,40\n" * 4)
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (100, 100)\n")
    write_results(tmp_path / "G", folder.name, np.tile(BOX, (4, 1)), [0.5] * 4, "got10k", 1)
    options = ["--benchmark", "got10k", "--ground-truth", str(tmp_path / "val")]
    assert main([str(tmp_path / "G"), *options]) == 0
    assert "1.0000" in capsys.readouterr().out
    folder = tmp_path / "vot" / "a"
    folder.mkdir(parents=True)
    (folder / "groundtruth.txt").write_text("20,20,30,30\n" * 40)
    (folder / "sequence").write_text("width=100\nheight=100\n")
    write_run(tmp_path / "V", "a", supervised([20]))
    options = [
        "--benchmark",
        "vot2018",
        "--ground-truth",
        str(tmp_path / "vot"),
        "--protocol",
        "all",
    ]
    assert main([str(tmp_path / "V"), *options]) == 0
    printed = capsys.readouterr().out
    assert "pysot" in printed
    assert "vot_toolkit" in printed
    assert main([str(tmp_path / "G"), *options]) == 1
    assert "no supervised runs" in capsys.readouterr().err


def test_results_that_count_from_zero(otb, capsys):
    for name in ("Deer", "Jogging-1", "Skiing"):
        boxes = np.loadtxt(otb / "otb" / f"{name}.txt", delimiter=",")
        write_results(otb / "results" / "zero", name, boxes - [1, 1, 0, 0])
    csvs = [otb / "one.csv", otb / "zero.csv"]
    more = ["--csv", str(csvs[1]), "--base", "0"]
    assert main(arguments(otb, "--csv", str(csvs[0]), results="results/good")) == 0
    assert main(arguments(otb, *more, results="results/zero")) == 0
    assert "moved by 1 pixel: these results count from 0" in capsys.readouterr().out
    one, zero = (path.read_text().replace("zero", "good") for path in csvs)
    assert one == zero
    assert main(arguments(otb, "--base", "2")) == 2


def test_report_of_results_alone(otb, capsys):
    rows = [f"ours={otb / 'results' / 'good'}", *arguments(otb)[1:]]
    path = otb / "out" / "report.html"
    assert main([*rows, str(otb / "results" / "noisy"), "--report", str(path)]) == 2
    rows = [f"ours={otb / 'results' / 'good'}", str(otb / "results" / "noisy"), *arguments(otb)[1:]]
    assert main([*rows, "--report", str(path)]) == 0
    data = page_data(path.read_text())
    assert [t["name"] for t in data["trackers"]] == ["ours", "noisy"]
    assert not data["timed"]
    assert (path.parent / "success.svg").exists()
    assert main([*rows, "--report", str(path), "--protocol", "all"]) == 2
    assert "--report shows one protocol" in capsys.readouterr().err
    truth = str(otb / "otb" / "Deer.txt")
    assert main([*rows, "--csv", truth]) == 2
    assert "would be overwritten" in capsys.readouterr().err


def test_a_broken_tracker_does_not_hide_the_others(otb, capsys):
    (otb / "results" / "noisy" / "Deer.txt").write_text("nonsense\n")
    assert main(arguments(otb)) == 1
    said = capsys.readouterr()
    assert "good     otb_matlab" in said.out
    assert "noisy" not in said.out
    assert said.err.count("error:") == 1
    assert "Deer.txt line 1: 'nonsense' is not a number" in said.err
    (otb / "results" / "noisy" / "Deer.txt").unlink()
    assert main(arguments(otb)) == 1
    said = capsys.readouterr()
    assert "good     otb_matlab" in said.out
    assert said.err.startswith("error: noisy: no result for 1 of 3 sequences: Deer")


def test_longterm_f1(tmp_path, capsys):
    truth, made = tmp_path / "lt" / "ballet", tmp_path / "L" / "longterm" / "ballet"
    for folder in (truth, made):
        folder.mkdir(parents=True)
    (truth / "groundtruth.txt").write_text("10,10,20,20\n" * 4 + "nan,nan,nan,nan\n" * 2)
    (truth / "sequence").write_text("width=100\nheight=80\n")
    cv2.imwrite(str(truth / "00000001.jpg"), np.zeros((80, 100, 3), np.uint8))
    (made / "ballet_001.txt").write_text("1\n" + "10,10,20,20\n" * 3 + "70,10,20,20\n" * 2)
    (made / "ballet_001_confidence.value").write_text("\n" + "0.9\n" * 3 + "0.1\n" * 2)
    rows = [str(tmp_path / "L"), "--benchmark", "vot2018lt", "--ground-truth", str(truth.parent)]
    path = tmp_path / "report.html"
    assert main([*rows, "--csv", str(tmp_path / "f1.csv"), "--report", str(path)]) == 0
    (row,) = csv.DictReader((tmp_path / "f1.csv").read_text().splitlines())
    # Three of four frames in view, and none where nothing is to be seen.
    assert float(row["precision"]) == pytest.approx(1)
    assert float(row["recall"]) == pytest.approx(3 / 4)
    assert float(row["f1"]) == pytest.approx(6 / 7)
    assert list(page_data(path.read_text())["plots"]) == ["recall"]
    assert main([*rows, "--protocol", "pysot"]) == 2


def test_other_kinds_have_pages_too(tmp_path):
    folder = tmp_path / "vot" / "a"
    folder.mkdir(parents=True)
    (folder / "groundtruth.txt").write_text("20,20,30,30\n" * 40)
    (folder / "sequence").write_text("width=100\nheight=100\n")
    write_run(tmp_path / "V", "a", supervised([20]))
    options = ["--benchmark", "vot2018", "--ground-truth", str(tmp_path / "vot")]
    assert main([str(tmp_path / "V"), *options, "--report", str(tmp_path / "r.html")]) == 0
    data = page_data((tmp_path / "r.html").read_text())
    assert data["trackers"][0]["overall"]["accuracy"] == 1
    assert len(data["trackers"][0]["overlaps"][0]) == 40


def test_no_score_where_the_truth_is_withheld(tmp_path, capsys):
    folder = tmp_path / "test" / "GOT-10k_Test_000001"
    folder.mkdir(parents=True)
    (folder / "groundtruth.txt").write_text("10,20,30,40\n")
    write_results(tmp_path / "G", folder.name, np.tile(BOX, (4, 1)), [0.5] * 4, "got10k", 1)
    options = ["--benchmark", "got10k", "--ground-truth", str(tmp_path / "test")]
    assert main([str(tmp_path / "G"), *options, "--allow-missing"]) == 1
    said = capsys.readouterr()
    assert "the ground truth is withheld" in said.err
    assert "eval.submit" in said.err
    assert not said.out


def test_golden_pack_passes(golden_dir, capsys):
    assert main(["--pack", str(golden_dir / "benchmarks")]) == 0
    printed = capsys.readouterr().out
    assert "FAIL" not in printed
    assert ", 0 failed" in printed
    assert "otb MDNet ostrack curves per sequence, norm_precision" in printed


@pytest.fixture
def pack(golden_dir, tmp_path):
    """A copy of the one-pass part of the golden pack, to be spoiled."""
    for path in (golden_dir / "benchmarks").glob("otb_*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def spoil(pack, change):
    path = pack / "otb_expected.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def failed(pack):
    return [str(line) for line in check_pack(pack).lines if not line.passed]


def test_one_wrong_value_fails(pack, capsys):
    def change(content):
        content["trackers"]["MDNet"]["pysot"]["per_sequence"]["Deer"][1] += 2e-6

    spoil(pack, change)
    assert failed(pack) == ["FAIL  otb MDNet pysot per_sequence: 24 values, largest error 2e-06"]
    assert main(["--pack", str(pack)]) == 1
    assert "1 failed" in capsys.readouterr().out


def test_one_wrong_curve_point_fails(pack):
    curves = dict(np.load(pack / "otb_curves.npz"))
    curves["pysot__MDNet__success"][2, 3] += 1 / 500
    np.savez(pack / "otb_curves.npz", **curves)
    assert len(failed(pack)) == 1


def test_what_is_not_understood_fails(pack):
    def change(content):
        content["trackers"]["MDNet"]["detectron"] = {"overall": {"auc": 0.5}}
        content["trackers"]["MDNet"]["pysot"]["overall"] = {"auc_2": 0.5}
        content["trackers"]["MDNet"]["got10k"]["per_sequence"]["Zebra"] = [0.1, 0.2]
        content["trackers"]["Other"] = {"pysot": {}}
        content["surprise"] = 1

    spoil(pack, change)
    np.savez(pack / "otb_notes.npz", a=[1])
    found = "\n".join(failed(pack))
    for text in (
        "detectron: unknown toolkit",
        "unknown entries: auc_2",
        "no result for Zebra",
        "otb Other: no result of this tracker",
        "otb surprise: unknown entry",
        "otb_notes.npz: unknown kind of file",
    ):
        assert text in found


def test_parts_of_a_pack(pack, tmp_path_factory):
    """Other names and fewer files: everything comes from the files themselves."""
    other = tmp_path_factory.mktemp("pack")
    for path in pack.iterdir():
        shutil.copy(path, other / path.name.replace("otb", "my_set"))
    assert not failed(other)
    (other / "my_set_curves.npz").unlink()
    assert not failed(other)
    (other / "my_set_expected.json").rename(other / "spare.txt")
    assert "no expected values" in " ".join(check_notes(other))
    (other / "spare.txt").rename(other / "my_set_expected.json")
    (other / "my_set_gt.npz").unlink()
    assert failed(other) == ["FAIL  my_set: no ground truth my_set_gt.npz: nothing can be checked"]
    assert main(["--pack", str(other / "none")]) == 1


def check_notes(folder):
    shutil.copy(folder / "my_set_gt.npz", folder / "twin_gt.npz")
    shutil.copy(folder / "my_set_results.npz", folder / "twin_results.npz")
    (folder / "region_x.json").write_text("{}")
    notes = check_pack(folder).notes
    for name in ("twin_gt.npz", "twin_results.npz", "region_x.json"):
        (folder / name).unlink()
    return notes


def test_nan_expectations_must_meet_nan(pack):
    def change(content):
        content["trackers"]["MDNet"]["pysot"]["per_sequence"]["Deer"][0] = None

    spoil(pack, change)
    assert "largest error inf" in failed(pack)[0]


@pytest.mark.shared
def test_published_pack(shared_dir, capsys):
    assert main(["--pack", str(shared_dir / "benchmarks")]) == 0
    assert ", 0 failed" in capsys.readouterr().out


def test_the_example_in_the_help_is_the_module(capsys):
    assert score.__doc__ is not None
    assert main(["--help"]) == 0
    assert "--allow-missing" in capsys.readouterr().out
