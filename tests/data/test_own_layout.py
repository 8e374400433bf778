"""A layout of somebody else's is imported: checked, built, trained on and evaluated as CONTRIBUTING says."""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from eval import run
from eval.files import datasets
from jaxtrack.cli import UsageError
from jaxtrack.data import layouts, prepare
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.images import write_image
from tests.conftest import ROOT

LAYOUT = re.findall(
    r"## A layout of your own.*?```python\n(.*?)```",
    (ROOT / "CONTRIBUTING.md").read_text(),
    re.DOTALL,
)
OWN = "own_data:LAYOUT"


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The working folder: the module, and data in which every target is hidden at first."""
    (tmp_path / "own_data.py").write_text(f"{LAYOUT[0]}\nNUMBER = 3\nNONE = Layout(find, (), '')\n")
    for split, names in (("train", "ab"), ("test", "c")):
        for name in names:
            folder = tmp_path / "data" / split / name
            for i in range(4):
                write_image(folder / f"{i}.jpg", np.full((40, 60, 3), 30 * i, np.uint8))
            truth = {
                "boxes": [[10.0 + i, 8, 12, 9] for i in range(4)],
                "hidden": [True] + 3 * [False],
            }
            (folder / "truth.json").write_text(json.dumps(truth))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_data", None)


def test_a_layout_from_outside_is_built_and_evaluated(
    own: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = [OWN, "--source", "data", "--workers", "0"]
    assert prepare.main([*build, "--check"]) == 0
    for said in ("built: ", "already built: "):
        assert prepare.main([*build, "--output", "built"]) == 0
        assert f"{said}built/own_data.LAYOUT/train_frames" in capsys.readouterr().out
    assert prepare.main([OWN, "--output", "built", "--check"]) == 0
    source = FrameSource(own / "built" / "own_data.LAYOUT" / "train_frames")
    assert (source.name, source.num_videos, source.split) == ("own_data.LAYOUT", 2, "train")
    words = ["--peer", "static", "--benchmark", OWN, "--root", "data", "--output", "out"]
    assert run.main(words) == 0
    said_ = capsys.readouterr()
    # As of the user's own videos: from the first frame that shows the target.
    assert "own_data:LAYOUT, split test: 1 sequences, 3 frames" in said_.out
    assert (own / "out" / "own_data.LAYOUT-test" / "static" / "c.txt").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_data:NUMBER", r"is int; a jaxtrack\.data\.layouts\.Layout is wanted"),
        ("own_data:LAYOTU", "own_data has no LAYOTU; nearest: LAYOUT"),
        ("own_data:NONE", "the layout names no split"),
        ("own_nowhere:LAYOUT", "there is no module own_nowhere"),
        ("own_data:", "give package.module:LAYOUT"),
    ],
)
def test_mistakes_are_one_line(own: pathlib.Path, name: str, message: str) -> None:
    with pytest.raises(JaxtrackError, match=message):
        layouts.canonical(name)
    with pytest.raises(UsageError, match=message):
        datasets.find(name)


def test_splits_are_the_layouts_own(own: pathlib.Path) -> None:
    assert datasets.find(OWN).label == "own_data.LAYOUT-test"
    assert datasets.find(OWN, "train").label == "own_data.LAYOUT-train"
    with pytest.raises(
        UsageError, match="unknown split of own_data:LAYOUT 'val'; known: train, test"
    ):
        datasets.find(OWN, "val")
