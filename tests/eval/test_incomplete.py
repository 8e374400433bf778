"""A part of a benchmark, of its results or of its truth: what is said, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from eval import run as eval_run
from eval import score as eval_score
from eval import search
from eval.files import datasets
from eval.metrics.annotation import Annotation
from eval.metrics.eao import REGION, Run
from eval.metrics.names import IncompleteError
from eval.metrics.vot import evaluate_vot
from jaxtrack.data import layouts, splits
from tests import data_fixtures as fx
from tests.eval.layouts import write_results
from tests.eval.pages import page_data

# What there is of each: a writer, the option of its split, and what is said of it.
PARTS = {
    "lasot": (fx.write_lasot, (), "1 of the 280 videos of lasot test are here"),
    "lasot_ext": (fx.write_lasot, (), "2 of the 150 videos of lasot_ext are here"),
    "uav123": (fx.write_uav, (), "2 of the 123 videos of uav123 are here"),
    "nfs": (fx.write_nfs, (), "1 of the 100 videos of nfs fps30 are here"),
    "tc128": (fx.write_tc128, (), "1 of the 128 videos of tc128 are here"),
    "vot2018": (fx.write_vot, (), "2 of the 60 videos of vot2018 are here"),
    "trackingnet": (
        lambda root: fx.write_trackingnet(root, "TEST"),
        (),
        "1 of the 511 videos of trackingnet test are here",
    ),
    "GOT-10k": (
        lambda root: fx.write_got10k(root, "val"),
        ("--split", "val"),
        "3 of the 180 videos of got10k val are here",
    ),
}


def static(tmp_path, *more):
    """Track with a box that never moves."""
    return eval_run.main(["--peer", "static", "--output", str(tmp_path / "out"), *map(str, more)])


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_benchmark_is_told(name, tmp_path):
    writer, words, note = PARTS[name]
    writer(tmp_path)
    dataset = datasets.find(name, *words[1:])
    count = len(layouts.read_layout(dataset.layout, tmp_path, dataset.split))
    assert datasets.incomplete(dataset, count) == (note,)
    whole = splits.size(dataset.layout, dataset.split)
    assert datasets.incomplete(dataset, whole) == datasets.incomplete(dataset, whole + 1) == ()


def test_every_published_split_has_a_size_where_it_is_scored():
    assert splits.size("lasot", "test") == len(splits.lasot_test())
    own = {"custom", "otb", "vid"}  # whatever is there; "otb" is one of its three by name
    for name in set(datasets.names()) - set(datasets.SYNTHETIC):
        dataset = datasets.find(name)
        assert (splits.size(dataset.layout, dataset.split) is None) == (name in own)
    assert splits.size("otb", "otb50") == splits.size("otb50", "otb50") == 50


def test_a_score_of_a_part_says_so_wherever_it_goes(tmp_path, capsys, monkeypatch):
    root = tmp_path / "d"
    fx.write_lasot(root)
    note = "1 of the 280 videos of lasot test are here"
    data = ["--benchmark", "lasot", "--root", root]
    assert static(tmp_path, *data) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"note: {note}\n") == printed.count(note) == 1
    folder = tmp_path / "out" / "lasot-test"
    (row,) = page_data((folder / "report.html").read_text())["trackers"]
    assert row["notes"][0] == note
    written, page = tmp_path / "scores.json", tmp_path / "r.html"
    words = [str(folder / "static"), "--benchmark", "LaSOT", "--ground-truth", str(root)]
    assert eval_score.main([*words, "--json", str(written), "--report", str(page)]) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"note: {note}\n") == printed.count(note) == 1
    assert json.loads(written.read_text())["scores"][0]["notes"][0] == note
    assert page_data(page.read_text())["trackers"][0]["notes"][0] == note

    def still(tracker, variables, sequences, grid, **more):
        count = len(grid.values)
        return {s.name: np.tile(s.boxes[:1], (count, s.length, 1)) for s in sequences}, 1

    monkeypatch.setattr(search, "track_sequences", still)
    words = ["--tracker", "siamfc-tiny", "--set", "scale_rate=0.3,0.5", "--output", tmp_path / "s"]
    assert search.main([*map(str, [*words, *data])]) == 0
    assert f"note: {note}\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "s" / "search.json").read_text())["notes"] == [note]
    # Those that --sequence names are no part of anything.
    assert static(tmp_path, *data, "--sequence", "airplane-1") == 0
    assert search.main([*map(str, [*words, *data, "--sequence", "airplane-1"])]) == 0
    assert note not in capsys.readouterr().out


def test_the_split_that_was_read_is_the_one_that_is_told(tmp_path, capsys):
    fx.write_got10k(tmp_path / "d", "val")
    data = ["--benchmark", "got10k", "--root", tmp_path / "d", "--split", "val"]
    assert static(tmp_path, *data) == 0
    results = str(tmp_path / "out" / "got10k-val" / "static")
    capsys.readouterr()
    truth = str(tmp_path / "d")
    assert eval_score.main([results, "--benchmark", "got10k", "--ground-truth", truth]) == 0
    assert "note: 3 of the 180 videos of got10k val are here\n" in capsys.readouterr().out


def test_a_broken_video_is_not_counted_as_one_that_is_not_here(tmp_path, capsys):
    fx.write_lasot(tmp_path / "d", ("airplane-1", "airplane-9"))
    (tmp_path / "d" / "airplane" / "airplane-9" / "img" / "00000002.jpg").unlink()
    assert static(tmp_path, "--benchmark", "lasot", "--root", tmp_path / "d") == 1
    said = capsys.readouterr()
    assert "note: 1 of the 280 videos of lasot test are here and whole\n" in said.out
    assert "airplane-9" in said.err


def test_videos_that_are_missing_are_counted(tmp_path, capsys):
    fx.write_got10k(tmp_path / "d", "val", (1, 2, 3, 4))
    for number in (1, 3):
        shutil.rmtree(tmp_path / "d" / "val" / f"GOT-10k_Val_00000{number}")
    (tmp_path / "d" / "val" / "GOT-10k_Val_000004" / "00000002.jpg").unlink()
    data = ["--benchmark", "got10k", "--split", "val", "--root", tmp_path / "d"]
    assert static(tmp_path, *data) == 1
    said = capsys.readouterr()
    assert "2 of the videos of" in said.err
    assert "1 of 4 sequences, 1 broken, 2 missing: AO" in said.out


@pytest.fixture
def rival(tmp_path):
    """Three videos of OTB, and somebody's results of all of them."""
    fx.write_otb(tmp_path / "d", ("Skiing", "Boy", "Deer"))
    assert static(tmp_path, "--benchmark", "otb", "--root", tmp_path / "d", "--no-report") == 0
    shutil.copytree(tmp_path / "out" / "otb" / "static", tmp_path / "riv")
    return tmp_path / "riv"


FAULTS = {
    "a name": (
        lambda folder: (folder / "Deer.txt").rename(folder / "typo.txt"),
        "no result for 1 of 3 sequences: Deer; no ground truth for 1 of 3 results: typo: "
        "complete the results",
    ),
    "one more": (
        lambda folder: shutil.copy(folder / "Deer.txt", folder / "typo.txt"),
        "no ground truth for 1 of 4 results: typo: rename or remove them",
    ),
    "one less": (
        lambda folder: (folder / "Deer.txt").unlink(),
        "no result for 1 of 3 sequences: Deer: complete the results",
    ),
    "rows": (
        lambda folder: (folder / "Deer.txt").write_text("1,2,30,40\n" * 4),
        "Deer: 4 result rows for 5 frames: complete the file",
    ),
    "all names": (
        lambda folder: [p.rename(folder / f"x{p.name}") for p in folder.glob("*.txt")],
        "no sequence in common",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_results_of_others_are_refused_before_anything_is_tracked(fault, rival, tmp_path, capsys):
    spoil, words = FAULTS[fault]
    spoil(rival)
    data = ["--benchmark", "otb", "--root", tmp_path / "d", "--results", f"theirs={rival}"]
    capsys.readouterr()
    assert static(tmp_path / "new", *data) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: --results theirs: {words}")
    assert "--allow-missing" not in said.err  # which this command has not
    assert said.err.count("\n") == 1
    assert "AUC" not in said.out
    assert not (tmp_path / "new" / "out" / "otb" / "static").exists()
    # The command that has the choice refuses the same and offers it.
    truth = ["--benchmark", "otb", "--ground-truth", str(tmp_path / "d")]
    assert eval_score.main([str(rival), *truth]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert ("--allow-missing" in said) == (fault != "all names")


def test_of_results_of_others_the_part_that_is_asked_for_counts(rival, tmp_path, capsys):
    shutil.copy(rival / "Deer.txt", rival / "more.txt")
    (rival / "Skiing.txt").unlink()
    data = ["--benchmark", "otb", "--root", tmp_path / "d", "--results", f"theirs={rival}"]
    assert static(tmp_path, *data, "--sequence", "Deer", "Boy") == 0
    assert "theirs               AUC" in capsys.readouterr().out
    assert static(tmp_path, *data, "--sequence", "Deer", "Skiing") == 1
    assert "no result for 1 of 2 sequences: Skiing" in capsys.readouterr().err
    assert static(tmp_path, *data, "--shard", "1/2") == 0  # nothing is scored


@pytest.mark.parametrize("rows", [8, 12])
def test_runs_of_another_version_of_a_video(rows):
    truth = {"a": Annotation(np.tile([20.0, 20, 30, 30], (10, 1)), size=(100, 100))}
    run = Run(
        np.tile([20.0, 20, 30, 30], (rows, 1)), np.r_[1, np.full(rows - 1, REGION)].astype(np.int8)
    )
    with pytest.raises(IncompleteError, match="with --allow-missing") as error:
        evaluate_vot({"a": [run]}, truth, "vot_toolkit")
    assert error.value.plain.startswith(f"a: {rows} result rows for 10 frames, as of another ver")
    assert "--allow-missing" not in error.value.plain


def test_more_than_a_published_split_is_no_score_of_it(tmp_path, capsys):
    names = [f"v{i}" for i in range(60)]
    boxes = np.tile([1.0, 2, 3, 4], (2, 1))
    for name in names:
        write_results(tmp_path / "T", name, boxes)
    truth = tmp_path / "otb100_gt.npz"
    np.savez(truth, names=names, lengths=[2] * 60, boxes=np.tile(boxes, (60, 1)))
    words = [str(tmp_path / "T"), "--ground-truth", str(truth), "--benchmark"]
    assert eval_score.main([*words, "otb50"]) == 1
    assert "60 sequences, but otb50 has 50: give the ground truth" in capsys.readouterr().err
    for name, label in (("otb100", "otb100"), ("otb", "otb")):
        assert eval_score.main([*words, name]) == 0
        assert capsys.readouterr().out.splitlines()[0] == label
