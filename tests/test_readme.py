"""What the README shows works as it stands there."""

import importlib
import re
import shlex

import cv2
import numpy as np
import pytest

from jaxtrack import cli
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [
    line.strip().split("  #")[0]
    for line in README.splitlines()
    if re.match(r"    (python -m|jaxtrack) ", line)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what the README speaks of: a clip, and a data set of one's own."""
    (tmp_path / "my_data").mkdir()
    for path in (tmp_path / "clip.mp4", tmp_path / "my_data" / "car.mp4"):
        video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (320, 240))
        for i in range(4):
            frame = np.full((240, 320, 3), 90, np.uint8)
            frame[80:128, 120 + i : 184 + i] = (30, 60, 200)
            video.write(frame)
        video.release()
    (tmp_path / "my_data" / "car.txt").write_text("120,80,64,48\n" * 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_something_to_test():
    assert len(PYTHON) >= 3
    assert len(SHELL) >= 15


@pytest.mark.parametrize("block", range(len(PYTHON)))
def test_python_blocks_run(block, folder, capsys):
    exec(compile(PYTHON[block], f"README.md, block {block}", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "print" not in PYTHON[block] or printed.strip()


@pytest.mark.parametrize("line", SHELL)
def test_commands_are_understood(line, monkeypatch):
    """The command exists and takes its flags; it is not carried out."""
    taken = []

    def only_parse(options, action, prog, arguments=None):
        taken.append(cli.parse(options, arguments, prog))
        return 0

    monkeypatch.setattr(cli, "command", only_parse)
    words = shlex.split(line)
    module, rest = ("jaxtrack.__main__", words[1:])
    if words[0] == "python":
        module, rest = words[2], words[3:]
    assert importlib.import_module(module).main(rest) == 0
    assert len(taken) == 1


def test_what_is_where_is_true():
    block = README.split("## What is where")[1].split("```")[0]
    named = re.findall(r"^    ((?:jaxtrack|train|eval|tests|notebooks)/\w*)", block, re.MULTILINE)
    assert len(named) >= 8
    assert not [name for name in named if not (ROOT / name).exists()]
    links = re.findall(r"\]\(([\w/.]+)\)", README)
    assert not [name for name in links if not (ROOT / name).exists()]
