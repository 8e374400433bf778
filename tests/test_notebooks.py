"""The notebooks: stored with the outputs of one run, small, and each runs from its first cell to its last."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
LISTED = re.findall(r"\[[^]]*\]\(notebooks/(\w+)\.ipynb\)", README)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST_PICTURE = 100_000  # bytes
LONGEST_TEXT = 5_000  # letters of one cell's output
LONGEST_CELL = 30  # lines
PATH = re.compile(r"(?<![\w.~*)}])/(?:home|root|tmp|work|usr|opt|var|mnt|data|private|Users)/\w")
# A cell that shows something when it runs.
SHOWS = re.compile(r"^(?:print|display|shell|plt\.show)\(", re.MULTILINE)

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    found = json.loads(path.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def joined(text):
    return text if isinstance(text, str) else "".join(text)


def outputs(path):
    """Kind and content of everything that the cells show: text as text, pictures as base64 or SVG."""
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                yield output["name"], joined(output["text"])
            for kind, content in output.get("data", {}).items():
                yield kind, joined(content)


@every
def test_is_valid(path):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=4))


@every
def test_is_stored_with_the_outputs_of_one_run(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    silent = [joined(cell["source"]) for cell in code if not cell["outputs"]]
    assert not [source for source in silent if SHOWS.search(source)]
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds
    assert "error" not in kinds
    # Warnings and progress bars are no part of what is shown; the library's own notes may be.
    told = [line for kind, text in outputs(path) if kind == "stderr" for line in text.splitlines()]
    assert not [line for line in told if not line.startswith("note: ")]


@every
def test_outputs_are_small(path):
    for kind, content in outputs(path):
        if kind == "image/svg+xml":
            assert len(content.encode()) <= LARGEST_PICTURE
        elif kind.startswith("image/"):
            assert len(content) * 3 / 4 <= LARGEST_PICTURE
        else:
            assert len(content) <= LONGEST_TEXT


@every
def test_names_no_place_of_a_machine(path):
    texts = [content for kind, content in outputs(path) if kind in ("stdout", "text/plain")]
    texts += [joined(cell["source"]) for kind in ("code", "markdown") for cell in cells(path, kind)]
    assert not [found.group() for text in texts for found in PATH.finditer(text)]


@every
def test_reads_well(path):
    """It begins with what it shows and how long it takes; its cells can be seen at a glance."""
    first = joined(cells(path, "markdown")[0]["source"])
    assert first.startswith("# ")
    assert re.search(r"\b(?:seconds?|minutes?)\b", first)
    lengths = [len(joined(cell["source"]).splitlines()) for cell in cells(path, "code")]
    assert max(lengths) <= LONGEST_CELL


def test_the_readme_lists_each_once():
    assert sorted(LISTED) == [path.stem for path in NOTEBOOKS]


@pytest.mark.notebook
@every
def test_runs(path):
    # A process of its own: here the tests' four devices are set, and warnings are errors.
    words = ["-m", "pytest", "-q", "--nbmake", "--nbmake-timeout=600", str(path)]
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "MPLBACKEND")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:]
