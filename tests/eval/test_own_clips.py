"""Videos of one's own whose target is there in some frames only: what is scored of them, and what is said."""

import json

import numpy as np
import pytest

from eval import run as eval_run
from eval import score as eval_score
from eval import search
from tests import data_fixtures as fx
from tests.eval.layouts import write_results


def write(root, name, text, count=4):
    """A folder of frames from 1 on, in which a target moves, and its annotation.

    Args:
        text: lines; ``{3}`` stands for the box of the fourth frame.
    """
    frames, boxes = fx.clip(3, count)
    fx.write_frames(root / name, frames, "{:04d}.jpg")
    rows = [fx.table(row[None]).strip() for row in boxes]
    (root / f"{name}.txt").write_text(text.format(*rows))
    return boxes


def static(tmp_path, *more):
    """Track with a box that never moves."""
    words = ["--peer", "static", "--output", tmp_path / "out", "--benchmark", "custom"]
    return eval_run.main([str(w) for w in (*words, "--root", tmp_path / "d", *more)])


def scored(tmp_path, *more):
    """Score what `static` wrote."""
    words = [tmp_path / "out" / "custom" / "static", "--benchmark", "custom"]
    return eval_score.main([str(w) for w in (*words, "--ground-truth", tmp_path / "d", *more)])


NOTHING = {
    "one frame": ("{0}\n", 1, "the video has one frame, whose box is given"),
    "gone": (
        "{0}\n" + "absent\n" * 3,
        4,
        "no frame after the first, whose box is given, has a box",
    ),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_given_boxes_alone_are_not_called_withheld(kind, tmp_path, capsys):
    text, count, why = NOTHING[kind]
    write(tmp_path / "d", "car", text, count)
    said_of = f"error: nothing to score in car: {why}\n"
    for more in ([], ["--protocol", "pysot"]):
        assert static(tmp_path, *more) == 1
        said = capsys.readouterr()
        assert said.err == said_of
        assert "eval.submit" not in said.out
    assert not (tmp_path / "out").exists()  # nothing was tracked
    words = ["--tracker", "siamfc-tiny", "--benchmark", "custom", "--root", tmp_path / "d"]
    words = [str(w) for w in (*words, "--output", tmp_path / "s")]
    assert eval_run.main([*words, "--protocol", "vot2018"]) == 1
    assert capsys.readouterr().err == said_of
    assert search.main([*words, "--set", "scale_rate=0.3"]) == 1
    assert capsys.readouterr().err == said_of
    write_results(tmp_path / "out" / "custom" / "static", "car", np.ones((count, 4)))
    assert scored(tmp_path) == 1
    assert capsys.readouterr().err == said_of


def test_beside_others_they_are_left_out_and_named(tmp_path, capsys):
    write(tmp_path / "d", "car", "{0}\nabsent\nabsent\nabsent\n")
    write(tmp_path / "d", "dog", "{0}\n{1}\n{2}\n{3}\n")
    assert static(tmp_path) == 0
    note = "left out, no box after the first frame in 1 of 2 sequences: car"
    assert f"note: static: {note}\n" in capsys.readouterr().out
    assert scored(tmp_path) == 0
    assert f"note: static (annotated): {note}\n" in capsys.readouterr().out


def test_truth_of_other_files_is_withheld_where_a_row_is_all(tmp_path, capsys):
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "abc_0.txt").write_text("1,2,30,40\n")
    write_results(tmp_path / "t", "abc_0", np.ones((3, 4)))
    words = [str(tmp_path / "t"), "--benchmark", "trackingnet", "--ground-truth"]
    assert eval_score.main([*words, str(tmp_path / "gt")]) == 1
    assert "the ground truth is withheld" in capsys.readouterr().err
    (tmp_path / "gt.json").write_text(json.dumps({"abc_0": {"gt_rect": [[1, 2, 30, 40]]}}))
    assert eval_score.main([*words, str(tmp_path / "gt.json")]) == 1
    assert "the ground truth is withheld" in capsys.readouterr().err


LATE = {
    "absent": "absent\nabsent\n{2}\n{3}\n{4}\n",
    "sparse": "3,{2}\n4,{3}\n5,{4}\n",  # frames are numbered from 1
    "no size": "0,0,0,0\n-1,-1,-1,-1\n{2}\n{3}\n{4}\n",
}
NOTE = "evaluated from the first frame that shows the target (counted from 0): car from frame 2 on"


def metrics(tmp_path, results="static"):
    """The scores that `eval.score` writes."""
    path = tmp_path / "scores.json"
    results = tmp_path / "out" / "custom" / results
    words = [str(results), "--benchmark", "custom", "--ground-truth", str(tmp_path / "d")]
    assert eval_score.main([*words, "--json", str(path)]) == 0
    (score,) = json.loads(path.read_text())["scores"]
    return score["metrics"]


@pytest.mark.parametrize("kind", LATE)
def test_a_target_that_enters_late_is_evaluated_from_there(kind, tmp_path, capsys, monkeypatch):
    boxes = write(tmp_path / "d", "car", LATE[kind], 5)
    assert static(tmp_path) == 0
    said = capsys.readouterr()
    assert "custom, split all: 1 sequences, 3 frames" in said.out
    assert said.out.count(f"note: {NOTE}\n") == said.out.count(NOTE) == 1
    written = tmp_path / "out" / "custom" / "static" / "car.txt"
    np.testing.assert_allclose(np.loadtxt(written, delimiter=","), boxes[[2, 2, 2]])
    rows = json.loads((tmp_path / "out" / "custom" / "scores.json").read_text())
    found = metrics(tmp_path)
    assert {k: rows["static"][k] for k in found} == pytest.approx(found)
    assert f"note: {NOTE}\n" in capsys.readouterr().out
    # Others have a row for each frame of the video; the frames that count are the same.
    whole = np.concatenate([np.ones((2, 4)), boxes[[2, 2, 2]]])
    write_results(tmp_path / "out" / "custom" / "theirs", "car", whole)
    assert metrics(tmp_path, "theirs") == pytest.approx(found)
    theirs = tmp_path / "out" / "custom" / "theirs"
    assert static(tmp_path, "--results", theirs) == 0
    rows = json.loads((tmp_path / "out" / "custom" / "scores.json").read_text())
    assert {k: rows["theirs"][k] for k in found} == pytest.approx(found)

    started = []

    def still(tracker, variables, sequences, grid, **more):
        started.extend(next(iter(s.frames())) for s in sequences)
        return {s.name: np.tile(s.boxes[:1], (1, s.length, 1)) for s in sequences}, 1

    monkeypatch.setattr(search, "track_sequences", still)
    words = ["--tracker", "siamfc-tiny", "--set", "scale_rate=0.3", "--benchmark", "custom"]
    words += ["--root", tmp_path / "d", "--output", tmp_path / "s"]
    assert search.main([*map(str, words)]) == 0
    assert f"note: {NOTE}\n" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "s" / "search.json").read_text())["rows"]
    assert row["auc"] == pytest.approx(found["auc"])
    frames, _ = fx.clip(3, 5)
    # The third picture, but for what jpeg loses.
    assert [np.abs(started[0] - frame.astype(float)).mean() < 4 for frame in frames][1:4] == [
        False,
        True,
        False,
    ]


def test_a_late_target_of_a_clip_is_restarted_from_there(tmp_path):
    fx.write_custom(tmp_path / "d")
    frames = 4
    _, boxes = fx.clip(10, frames)
    (tmp_path / "d" / "dog.txt").write_text(
        "".join(f"{i},{fx.table(boxes[i : i + 1])}" for i in (1, 2, 3))
    )
    out = tmp_path / "out"
    words = ["--tracker", "siamfc-tiny", "--benchmark", "custom", "--root", tmp_path / "d"]
    words += ["--protocol", "vot2018", "--sequence", "dog", "--output", out, "--no-report"]
    assert eval_run.main([*map(str, words)]) == 0
    run = out / "custom-vot2018" / "siamfc-tiny" / "baseline" / "dog" / "dog_001.txt"
    lines = run.read_text().splitlines()
    assert (len(lines), lines[0]) == (3, "1")


def test_an_absent_target_counts_alike_however_its_line_says_so(tmp_path):
    found = []
    for line in ("absent", "nan,nan,nan,nan", "0,0,0,0", "-1,-1,-1,-1", "5,5,0,9"):
        write(tmp_path / "d", "car", "{0}\n{1}\n" + line + "\n{3}\n")
        assert static(tmp_path, "--again", "--no-report") == 0
        found.append(metrics(tmp_path))
    assert all(one == pytest.approx(found[0]) for one in found)


def test_columns_that_look_like_corners_are_told(tmp_path, capsys):
    edge = f"{fx.WIDTH - 4},{fx.HEIGHT - 4}"
    write(tmp_path / "d", "car", f"5,6,{edge}\n" * 4)
    assert static(tmp_path) == 0
    said = capsys.readouterr().out
    assert "note: 4 of 4 boxes reach out of their frames: are the columns x,y,w,h" in said
    write(tmp_path / "d", "car", "{0}\n{1}\n{2}\n{3}\n")
    assert static(tmp_path, "--again") == 0
    assert "reach out" not in capsys.readouterr().out
