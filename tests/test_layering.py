"""The house's rules, read from the source: who imports whom, and what nobody does at import."""

import ast
import functools

import pytest

from tests.conftest import ROOT

# What a module may import: everything to its left, and the ground that all stand on.
ORDER = ["ops", "models", "trackers"]
GROUND = {"imports", "errors", "ranges", "settings", "checks", "base"}
# Rooms beside the row: what each may import of ours.
BESIDE = {
    "io": {"errors", "io"},
    "weights": {"errors", "ops", "io", "weights"},
    "synthetic": {"errors", "ranges", "ops", "io", "synthetic", "settings", "cli", "data"},
    "data": {"errors", "imports", "ranges", "ops", "io", "data", "cli"},
}
# Functions that read a flag, a variable, a clock or a device when called.
READS = {"environ", "getenv", "time", "perf_counter", "devices", "default_backend", "argv"}


def modules(folder):
    return sorted((ROOT / folder).rglob("*.py"))


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


@functools.cache
def imports(path):
    """Dotted names of what a module imports, inside functions, too."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*home, *(node.module.split(".") if node.module else ())])
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return found


def rooms(path):
    """The rooms of jaxtrack that a module imports."""
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "jaxtrack" and len(parts) > 1:
            yield parts[1]


@pytest.mark.parametrize("room", ORDER)
def test_rooms_import_to_their_left(room):
    allowed = set(ORDER[: ORDER.index(room) + 1]) | GROUND
    if room == "trackers":
        allowed |= {"weights"}  # for their name tables
    for path in modules(f"jaxtrack/{room}"):
        assert set(rooms(path)) <= allowed, path


@pytest.mark.parametrize("room", BESIDE)
def test_rooms_beside_know_no_model(room):
    for path in modules(f"jaxtrack/{room}"):
        assert set(rooms(path)) <= BESIDE[room], path


def test_the_interface_knows_no_tracker():
    assert set(rooms(ROOT / "jaxtrack/base.py")) <= GROUND
    for name in GROUND - {"base"}:
        assert set(rooms(ROOT / f"jaxtrack/{name}.py")) <= GROUND - {"base"}


def test_families_do_not_import_each_other():
    folders = [p for p in (ROOT / "jaxtrack/trackers").iterdir() if (p / "__init__.py").is_file()]
    families = {folder.name for folder in folders}
    for folder in folders:
        for path in modules(f"jaxtrack/trackers/{folder.name}"):
            named = {n.split(".")[2] for n in imports(path) if n.startswith("jaxtrack.trackers.")}
            assert not (named & families) - {folder.name}, path


def test_train_and_eval_do_not_import_each_other():
    for here, there in (("train", "eval"), ("eval", "train")):
        for path in modules(here):
            if path.name == "demo.py":
                continue  # the demo runs the training command in a process of its own
            assert there not in {name.split(".")[0] for name in imports(path)}, path
    for path in modules("jaxtrack"):
        assert not {"train", "eval", "tests"} & {name.split(".")[0] for name in imports(path)}, path


def absolute_imports(text):
    """The first part of every absolute import in a module, inside functions, too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_train_and_eval_import_their_own_relatively():
    """In a wheel they lie below `jaxtrack`: by an absolute name they are not there."""
    assert "train" in set(absolute_imports("def f():\n    from train.step import Task"))
    for path in [p for folder in ("train", "eval") for p in modules(folder)]:
        assert not {"train", "eval", "tests"} & set(absolute_imports(path.read_text())), path


def test_linen_is_imported_only_where_networks_are():
    for path in [p for folder in ("jaxtrack", "train", "eval") for p in modules(folder)]:
        inside = {ROOT / "jaxtrack/models", ROOT / "jaxtrack/trackers"} & set(path.parents)
        assert inside or "flax.linen" not in set(imports(path)), path


def test_only_parallel_says_pmap():
    for path in [p for folder in ("jaxtrack", "train", "eval") for p in modules(folder)]:
        calls = {node.attr for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
        assert "pmap" not in calls or path.name == "parallel.py", path


def test_tensorflow_is_never_imported():
    for path in [p for folder in ("jaxtrack", "train", "eval") for p in modules(folder)]:
        assert not {"tensorflow", "torch"} & {name.split(".")[0] for name in imports(path)}, path


def test_nothing_is_read_at_import():
    """No flag, environment variable, clock or device is touched before a function is called."""
    for path in modules("jaxtrack"):
        for node in parsed(path).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
                continue
            if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
                continue
            read = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)} & READS
            assert not read, (path, read)
