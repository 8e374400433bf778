"""What `pip install` gives: the wheel alone, in an environment of its own, away from the checkout."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT

ROOMS = ("jaxtrack", "train", "eval")


def packages() -> set[str]:
    """Every package of the tree under the name that it has in the wheel."""
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    return {name if name.startswith("jaxtrack") else f"jaxtrack.{name}" for name in found}


def test_every_package_is_listed() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(told["packages"]) == packages()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of programs of an environment with the wheel, and with the libraries of this one."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"  # setuptools leaves its build folder in the tree
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *ROOMS, "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in listed.stdout.split("\n"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    import setuptools

    # An older setuptools cannot build: pip then fetches the one that pyproject.toml asks for.
    alone = ["--no-build-isolation"] if int(setuptools.__version__.split(".")[0]) >= 77 else []
    subprocess.run(
        [*pip, "wheel", "--no-deps", *alone, "--wheel-dir", place, source], check=True, cwd=place
    )
    (wheel,) = place.glob("*.whl")
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"jaxtrack"}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    python = place / "venv" / "bin" / "python"
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    # The libraries of this environment, but none of its links to a checkout.
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    subprocess.run(
        [*pip, "--python", python, "install", "--no-deps", "--no-index", "--ignore-installed", wheel],
        check=True,
        cwd=place,
    )  # fmt: skip
    return python.parent


# Imports every module of the installed package, and says which it could not.
_EVERY_MODULE = """
import importlib, pkgutil, jaxtrack

def faults(package):
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        try:
            module = importlib.import_module(found.name)
        except Exception as error:
            yield f"{found.name}: {error!r}"
        else:
            yield from faults(module) if found.ispkg else ()

print(*faults(jaxtrack), sep="\\n", end="")
"""


@pytest.mark.slow
def test_every_module_can_be_imported_after_an_install(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(
        [installed / "python", "-c", _EVERY_MODULE],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == ""


def clip(path: pathlib.Path, count: int = 6) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 64))
    for i in range(count):
        image = np.full((64, 96, 3), 40, np.uint8)
        image[20:40, 10 + i : 30 + i] = (0, 0, 255)
        writer.write(image)
    writer.release()


@pytest.mark.slow
def test_all_commands_work_after_an_install(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}

    def run(line: str, program: str = "jaxtrack") -> str:
        words = [word for word in line.split(" ") if word]
        done = subprocess.run(
            [installed / program, *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout + done.stderr

    place = run("-c import\tjaxtrack;print(jaxtrack.__file__)", "python")
    assert place.startswith(str(installed.parent))
    for name in ("train", "eval"):  # nobody's names are taken
        code = f"import\timportlib.util;print(importlib.util.find_spec('{name}'))"
        assert run(f"-c {code}", "python") == "None\n"
    clip(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text("".join(f"{10 + i},20,20,20\n" for i in range(6)))
    assert "siamfc-tiny*" in run("info")
    assert "siamfc" in run("zoo")
    run("track a.mp4 --box 10,20,20,20 --boxes found/out.txt")
    assert len((tmp_path / "found" / "out.txt").read_text().splitlines()) == 6
    assert "1 videos" in run("prepare custom --source . --check --workers 0")
    assert "siamfc-got10k" in run("train list")
    run("train siamfc-tiny --steps 1 --output trained")
    assert (tmp_path / "trained" / "weights.safetensors").is_file()
    some = "--benchmark synthetic --sequence 01_scale_variation"
    run(f"eval {some} --peer static --output results")
    assert list((tmp_path / "results").rglob("report-part.html"))
    assert "--allow-missing" in run("score --help")
    assert "jaxtrack submit" in run("submit --help")
    run(f"search --tracker siamfc-tiny --set window_influence=0.2,0.3 {some} --frames 3")
    assert "siamfc-tiny" in run("speed --tracker siamfc-tiny --rounds 1 --frames 1")
    run("export siamfc-tiny --torch tiny.pth")
    assert "siamfc-tiny" in run("track a.mp4 --box 10,20,20,20 --weights tiny.pth")
    if importlib.util.find_spec(
        "flatbuffers"
    ):  # an environment that was made before JAX's files needed it
        run("export siamfc-tiny --output exported")
        assert (tmp_path / "exported" / "load.py").is_file()
    assert "jaxtrack.eval.run" in run("-m jaxtrack.eval.run --help", "python")
    assert "jaxtrack.train.run" in run("-m jaxtrack.train.run --help", "python")
