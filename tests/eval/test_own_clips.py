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
