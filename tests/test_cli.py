"""What all commands share: options from words, one line for what goes wrong, exit status, signals."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Annotated, Any, Literal

import cv2
import jax
import numpy as np
import pytest

from jaxtrack import cli
from jaxtrack.errors import JaxtrackError, UsageError, brief, naming, unknown


@dataclasses.dataclass(frozen=True)
class Options:
    """Do a thing, 100 % sure.

    An example: --rate .5.

    Attributes:
        source: what it is done to.
        more: other things.
        name: a word.
        count: how often.
        rate: how fast,
            in a second line.
        kind: which.
        quick: leave something out.
        pairs: with company.
        box: one at a time.
        names: several.
        shifts: several numbers.
        size: two numbers.
        output: where to.
        debug: show the traceback.
    """

    source: Annotated[str, cli.Positional]
    more: Annotated[tuple[pathlib.Path, ...], cli.Positional] = ()
    name: str | None = None
    count: Annotated[int, cli.Range(low=1)] = 3
    rate: Annotated[float, cli.Range(0, 1)] = 0.5
    kind: Literal["red", "blue"] = "red"
    quick: bool = False
    pairs: bool = True
    box: Annotated[tuple[str, ...], cli.Each, cli.Metavar("X,Y,W,H")] = ()
    names: tuple[str, ...] = ()
    shifts: tuple[int, ...] = (0, 16)
    size: tuple[int, int] = (640, 480)
    output: pathlib.Path | None = None
    debug: bool = False


def parse(*words: str) -> Options:
    return cli.parse(Options, words, "thing")


def test_words_become_options() -> None:
    assert parse("a") == Options("a")
    words = (
        "a b c --name=x --count 4 --rate 1e-1 --kind blue --quick --no-pairs --box -1,2,3,4 "
        "--box 5,6,7,8 --names u v --names w --shifts -3 4 --size 10 20 --output ~"
    )
    assert parse(*words.split()) == Options(
        "a", (pathlib.Path("b"), pathlib.Path("c")), "x", 4, 0.1, "blue", True, False,
        ("-1,2,3,4", "5,6,7,8"), ("u", "v", "w"), (-3, 4), (10, 20), pathlib.Path.home(),
    )  # fmt: skip
    # A flag that takes one value each time leaves the argument behind it alone.
    assert parse("--box", "1,2,3,4", "a").source == "a"


def test_underscores_serve_in_flags() -> None:
    @dataclasses.dataclass(frozen=True)
    class Long:
        batch_size: int = 1

    for word in ("--batch-size", "--batch_size"):
        assert cli.parse(Long, [word, "7"], "x") == Long(7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "missing: SOURCE"),
        ("a --cuont 3", "unrecognised argument --cuont; nearest: --count"),
        ("a --count", "--count expected one argument"),
        ("a --count x", "--count x: a whole number is wanted"),
        ("a --count 0", "--count 0: give 1 or more"),
        ("a --count 3.5", "--count 3.5: a whole number"),
        ("a --count ３", "--count ３: a whole number"),
        ("a --count 1_000", "a whole number"),
        (f"a --count {2**63}", "too large a number (64 bits)"),
        (f"a --count {'9' * 5000}", "a whole number"),
        ("a --rate nan", "--rate nan: a finite number is wanted"),
        ("a --rate inf", "a finite number"),
        ("a --rate 1e999", "a finite number"),
        ("a --rate 1,5", "a finite number"),
        ("a --rate 1.5", "--rate 1.5: give from 0 to 1"),
        ("a --kind bleu", "--kind bleu is none of the choices; nearest: blue"),
        ("a --size 1", "--size expected 2 arguments"),
        ("a --quick=1", "--quick ignored explicit argument"),
        (
            "a --coun 3",
            "unrecognised argument --coun",
        ),  # no abbreviations: new flags would break them
        ("a --output s3://b/c", "a local path is wanted here"),
        ("a --output a\0b", "NUL"),
        ("a \udcff --output \ud800", "--output \\ud800: a path cannot hold a lone surrogate"),
    ],
)
def test_mistakes_in_the_call(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.command(Options, lambda options: None, "thing", words.split(" ") if words else []) == 2
    )
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert len(said) < 400


def test_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(Options, lambda options: None, "thing", ["--help"]) == 0
    said = capsys.readouterr().out
    for text in (
        "usage: thing",
        "100 % sure",
        "An example: --rate .5",
        "How fast, in a second line (default: 0.5).",
        "--box X,Y,W,H",
        "--no-pairs",
        "{red,blue}",
        "SOURCE",
        "(default: 640 480)",
    ):
        assert text in said
    assert "Attributes" not in said


def raising(error: BaseException) -> Callable[[Options], None]:
    def action(options: Options) -> None:
        raise error

    return action


def test_what_happens_becomes_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    def run(error: BaseException) -> int:
        return cli.command(Options, raising(error), "thing", ["a"])

    assert cli.command(Options, lambda options: None, "thing", ["a"]) == 0
    assert run(JaxtrackError("a")) == 1
    assert run(cli.UsageError("b")) == 2
    assert run(KeyboardInterrupt()) == 130
    assert run(KeyboardInterrupt("stopped; go on")) == 130
    assert run(cli.Terminated()) == 143
    said = capsys.readouterr().err
    assert said == "error: a\nerror: b\ninterrupted\nstopped; go on\nterminated\n"
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run(ZeroDivisionError())


def broken_array(folder: pathlib.Path) -> Exception:
    path = folder / "a.bin"
    try:
        cv2.resize(np.zeros((0, 2), np.uint8), (3, 3))
    except cv2.error as error:
        assert path.name
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: FileNotFoundError(2, "No such file or directory", "x.txt"),
            "x.txt: no such file",
        ),
        (lambda p: PermissionError(13, "Permission denied", "x.txt"), "x.txt: permission denied"),
        (
            lambda p: OSError(18, "Invalid cross-device link", "a", None, "b"),
            "a -> b: invalid cross",
        ),
        (lambda p: OSError(28, "No space left on device"), "no space left on device"),
        (lambda p: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "another encoding than UTF-8"),
        (lambda p: MemoryError(), "not enough memory"),
        (lambda p: RecursionError(), "nested too deeply"),
        (lambda p: OverflowError("too large"), "too large"),
        (lambda p: zipfile.BadZipFile("File is not a zip file"), "File is not a zip file"),
        (lambda p: json.JSONDecodeError("no value", "x", 0), "no value"),
        (lambda p: jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB"), "not enough memory"),
        (broken_array, "OpenCV"),
    ],
)
def test_errors_of_libraries_are_one_line(
    make: Callable[[pathlib.Path], Exception],
    message: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def action(options: Options) -> None:
        path = tmp_path / "under.work"
        assert path
        raise make(tmp_path)

    assert cli.command(Options, action, "thing", ["a"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message.lower() in said.lower()
    assert said.count("\n") == 1
    assert cli.command(Options, action, "thing", ["a", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_file_under_work_is_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(path: pathlib.Path) -> Any:
        return json.loads(path.read_text())

    (tmp_path / "x.json").write_text("{")
    action = lambda options: read(tmp_path / "x.json")  # noqa: E731
    assert cli.command(Options, action, "thing", ["a"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/x.json: Expecting property")


def test_foreign_text_is_shown_harmless() -> None:
    assert brief("a\nb\x1b[31m\udcff") == r"a\nb\x1b[31m\udcff"
    assert brief("x" * 500) == "x" * 197 + "..."
    assert brief(b"\xff\x00a") == r"\xff\x00a"
    assert len(brief("\n" * 500, 50)) <= 50
    assert str(unknown("colour", "rde", ["red", "blue"])) == "unknown colour 'rde'; nearest: red"
    assert (
        str(unknown("colour", "zzz", ["red", "blue"])) == "unknown colour 'zzz'; known: red, blue"
    )
    assert len(str(unknown("colour", "q" * 9999, [f"c{i}" for i in range(999)]))) < 600
    with pytest.raises(JaxtrackError, match=r"x\.zip: cannot be read \(nothing\)"), naming("x.zip"):
        raise zipfile.BadZipFile("nothing")
    assert issubclass(UsageError, JaxtrackError)


SCRIPT = """
import dataclasses, hashlib, sys, time, weakref
from jaxtrack import cli

@dataclasses.dataclass(frozen=True)
class Options:
    what: str = "print"

class Held:
    pass

def callback(reference):
    print("ready", flush=True)
    time.sleep(60)  # the interruption comes where exceptions are ignored

def run(options):
    if options.what == "swallow":
        held = Held()
        reference = weakref.ref(held, callback)
        del held
        time.sleep(60)
    if options.what == "import":
        print("ready", flush=True)
        with open("slow_module.py", "w") as file:
            file.write("import time; time.sleep(1); print('whole', flush=True)")
        sys.path.insert(0, "")
        import slow_module
        time.sleep(60)
    if options.what == "deaf":
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha512", b"x", b"y", 2**31 - 1)
    if options.what == "sleep":
        print("ready", flush=True)
        time.sleep(60)
    print("\\udcff" + "x" * 100_000)

sys.exit(cli.command(Options, run, "thing"))
"""


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(cli.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")],
)
def test_signals_end_a_command(number: int, status: int, line: str) -> None:
    process = start("--what", "sleep", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (status, line)


def test_an_interruption_that_a_callback_swallows_is_raised_again() -> None:
    process = start("--what", "swallow", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "interrupted\n")


def test_an_import_is_not_interrupted_in_the_middle(tmp_path: pathlib.Path) -> None:
    """Extension modules that are being imported abort the process at an exception."""
    process = start("--what", "import", stdout=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (130, "whole\n", "interrupted\n")


def test_a_second_signal_ends_a_process_that_does_not_listen() -> None:
    process = start("--what", "deaf", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (143, "terminated\n")


def test_output_that_nobody_takes_is_one_line() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start(stdout=writing)
    os.close(writing)
    assert process.communicate()[1] == "error: standard output: its reader has closed it\n"
    assert process.returncode == 1
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            process = start(stdout=full)
        said = process.communicate()[1]
        assert said == "error: standard output: cannot be written (No space left on device)\n"
        assert process.returncode == 1


def test_missing_device_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> list[Any]:
        raise RuntimeError("Unable to initialize backend 'cuda': no device\nmore lines")

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(JaxtrackError, match=r"no device to run on \(Unable .*no device\); JAX_PL"):
        cli.devices()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (AssertionError(), "no device to run on (JAX_PLATFORMS="),  # a plugin that is not installed
        (RuntimeError("Unable to initialize backend 'x'\nmore"), "no device to run on (Unable"),
    ],
)
def test_any_command_without_a_device_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Exception, told: str
) -> None:
    def action(options: Options) -> None:
        raise type(fault)("as JAX says it, in many lines\nof its own")

    def none() -> list[Any]:
        raise fault

    with pytest.raises(type(fault)):
        cli.command(Options, action, "thing", ["a"])  # there is a device: a bug
    monkeypatch.setattr(jax, "devices", none)
    assert cli.command(Options, action, "thing", ["a"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")
    assert "JAX_PLATFORMS=cpu runs on the processor" in line


def test_cache_folder_that_cannot_be_made_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        (tmp_path / "file").write_text("x")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        cli.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir is None  # type: ignore[attr-defined]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert "note: no compilation cache in" in capsys.readouterr().err
