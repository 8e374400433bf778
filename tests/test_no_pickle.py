"""Nothing of the project reads a pickle as a program, or runs text as one: read off the sources."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = [p for room in ("jaxtrack", "train", "eval") for p in sorted((ROOT / room).rglob("*.py"))]
# `pickletools` only lists the instructions of a pickle.
MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "shelve", "marshal",
    "pandas", "torch",
}  # fmt: skip
READERS = {"load_pickle", "read_pickle", "loadmat", "find_class", "persistent_load", "Unpickler"}
RUNNERS = {"eval", "exec", "compile", "__import__"}


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and words of all that could read a pickle or run text."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            yield from ((line, a.name) for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]} if not node.level else set()
            yield from ((line, name) for name in names & MODULES)
            yield from ((line, a.name) for a in node.names if a.name in MODULES | READERS)
        elif isinstance(node, ast.Attribute) and node.attr in MODULES | READERS:
            if ast.unparse(node) != "options.torch":  # the flag --torch
                yield line, node.attr
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in RUNNERS:
                yield line, function.id
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not allowed:
                    yield line, "allow_pickle"
                if keyword.arg == "weights_only":
                    yield line, "weights_only"


def test_no_source_reads_a_pickle() -> None:
    assert len(SOURCES) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}: {words}"
        for path in SOURCES
        for line, words in faults(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import pickle as harmless",
        "from pickle import load as harmless",
        "import torch.serialization",
        "def f():\n    from cloudpickle import loads",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.core.multiarray.pickle.load(file)",
        "scipy.io.loadmat(path)",
        "eval(text)",
        "torch.load(path, weights_only=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    assert list(faults(ast.parse(text)))
    assert not list(faults(ast.parse("import pickletools\nmodel.eval()\nnp.load(path)")))
