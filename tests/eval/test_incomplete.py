"""A part of a benchmark, of its results or of its truth: what is said, and what is refused."""

import json

import numpy as np
import pytest

from eval import run as eval_run
from eval import score as eval_score
from eval import search
from eval.files import datasets
from eval.report.page import page_data
from jaxtrack.data import layouts, splits
from tests import data_fixtures as fx

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
