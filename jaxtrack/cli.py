"""What all commands share: their options, one line for a mistake, exit status, signals, cache.

A command is a frozen dataclass of options and a function of them:

    def main(arguments: Sequence[str] | None = None) -> int:
        return cli.command(Options, run, "python -m eval.run", arguments)

The dataclass's docstring is the help: its text above "Attributes:" describes the command, the entries below
describe the flags. See `parse` for how types become flags.
"""

from __future__ import annotations

import argparse
import contextlib
import contextvars
import dataclasses
import errno
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import textwrap
import threading
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from jaxtrack import __version__
from jaxtrack.errors import (
    JaxtrackError,
    UsageError,
    brief,
    is_broken_input,
    is_opencv,
    nearest,
    printable,
    reason,
    unknown,
)
from jaxtrack.io import paths
from jaxtrack.ranges import Range
from jaxtrack.settings import documentation

if TYPE_CHECKING:
    import jax

__all__ = [
    "FAILURE",
    "INTERRUPTED",
    "TERMINATED",
    "USAGE",
    "Command",
    "Each",
    "Metavar",
    "Positional",
    "Range",
    "Terminated",
    "UsageError",
    "command",
    "commands",
    "current_cache",
    "devices",
    "parse",
    "use_compilation_cache",
]

FAILURE, USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143

T = TypeVar("T")

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NEGATIVE = re.compile(r"-\.?[0-9]")
_LARGEST = 2**63 - 1
_PATIENCE = 30.0  # seconds that a main thread may stay deaf to a signal

# The words by which `commands` reached a command: its help shows them in place of its module's.
_called: contextvars.ContextVar[str] = contextvars.ContextVar("called", default="")


class Terminated(KeyboardInterrupt):
    """SIGTERM: what keeps its work at Ctrl-C keeps it here too; the exit status is 143."""


class Positional:
    """Mark of an argument without a flag: ``Annotated[str, Positional]``."""


class Each:
    """Mark of a flag that takes one value each time it is given: ``Annotated[tuple[str, ...], Each]``."""


@dataclasses.dataclass(frozen=True)
class Metavar:
    """What stands for the value in the help: ``Annotated[str, Metavar("X,Y,W,H")]``."""

    text: str


@dataclasses.dataclass(frozen=True)
class Command:
    """One of several commands of a program.

    Attributes:
        about: what it does, in one line.
        main: takes the words after the command's name, returns the exit status.
    """

    about: str
    main: Callable[[Sequence[str]], int]


def command(
    options: type[T],
    action: Callable[[T], object],
    prog: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a command from its words to its exit status.

    Args:
        options: frozen dataclass of what the command takes.
        action: the command's work.
        prog: how the command is called, for its help.
        arguments: the words after the program's name; None: those of the process.

    Returns:
        0; 1 for a failure, 2 for a mistake in the call, 130 after Ctrl-C, 143 after SIGTERM. Where the
        process's own command was interrupted, the process ends here: threads that wait for a camera or a
        compiler do not hold it.
    """
    name = _called.get() or _installed(prog, options)
    with _stop() as stop:
        status = _status(
            lambda: action(parse(options, arguments, name)), _wants_debug(arguments), stop
        )
    if arguments is None and status in (INTERRUPTED, TERMINATED):
        _leave(status)
    return status


def commands(
    table: Mapping[str, Command], prog: str, about: str, arguments: Sequence[str] | None = None
) -> int:
    """Run the command that the first word names.

    Args:
        table: name -> command.
        prog: the program's name.
        about: what the program is, for its help.
        arguments: the words after the program's name; None: those of the process.

    Returns:
        Exit status, as `command`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)

    def choose() -> None:
        width = max(map(len, table))
        listed = "\n".join(f"  {name:{width}}  {entry.about}" for name, entry in table.items())
        if words and words[0] in ("-h", "--help"):
            print(f"usage: {prog} COMMAND ...\n\n{textwrap.fill(about, 100)}\n\n{listed}")
        elif words and words[0] == "--version":
            print(f"{prog} {__version__}")
        elif not words:
            raise UsageError(f"no command: give one of {', '.join(table)} ({prog} --help)")
        elif words[0] not in table:
            raise UsageError(f"{unknown('command', words[0], table)} ({prog} --help)")

    if words and words[0] in table:
        called = _called.set(f"{prog} {words[0]}")
        try:
            status = table[words[0]].main(words[1:])
        finally:
            _called.reset(called)
        if arguments is None and status in (INTERRUPTED, TERMINATED):
            _leave(status)
        return status
    return _status(choose, debug=False, stop=None)


def _installed(prog: str, options: type) -> str:
    """Return how a command is called where its module lies below the package, as a wheel has it."""
    inside = options.__module__.startswith("jaxtrack.") or (
        # `python -m` calls the module by another name.
        str(getattr(sys.modules.get(options.__module__), "__package__", "")).startswith("jaxtrack.")
    )
    return re.sub(r"-m (train|eval)\b", r"-m jaxtrack.\1", prog) if inside else prog


def beside(package: str | None, module: str) -> str:
    """Return the name of a module of ``train`` or ``eval`` where they lie: beside the package, or below it.

    Args:
        package: ``__package__`` of a module of these rooms.
        module: such as ``train.run``.
    """
    return f"jaxtrack.{module}" if package and package.startswith("jaxtrack.") else module


def _wants_debug(arguments: Sequence[str] | None) -> bool:
    return "--debug" in (sys.argv[1:] if arguments is None else arguments)


def _status(action: Callable[[], object], debug: bool, stop: _Stop | None) -> int:
    """Run an action; what goes wrong becomes one line and an exit status."""
    try:
        return _run(action, debug)
    except Exception:
        if stop is None or stop.number is None:
            raise  # a bug
        # A library has made an error of its own of the interruption.
        _trace(debug)
        _say("interrupted")
        return TERMINATED if stop.number == signal.SIGTERM else INTERRUPTED


def _run(action: Callable[[], object], debug: bool) -> int:
    # FFmpeg talks to the screen behind OpenCV's back; our errors say what went wrong.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files need not be printable
            stream.reconfigure(errors="backslashreplace")
    try:
        if sys.stdout is None:  # closed by the caller
            action()
        else:
            with contextlib.redirect_stdout(_Output(sys.stdout)):  # type: ignore[type-var]
                action()
                sys.stdout.flush()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else USAGE * bool(error.code)
    except KeyboardInterrupt as error:
        _trace(debug)
        terminated = isinstance(error, Terminated)
        _say(str(error) or ("terminated" if terminated else "interrupted"))
        return TERMINATED if terminated else INTERRUPTED
    except Exception as error:
        error = _without_device(error)
        known = isinstance(error, JaxtrackError) or is_broken_input(error) or _of_device(error)
        if not known:
            raise  # a bug
        _trace(debug)
        _say(f"error: {_line(error)}")
        return USAGE if isinstance(error, UsageError) else FAILURE
    return 0


def _without_device(error: Exception) -> Exception:
    """Return why there is no device, where that is what an error of JAX comes from; else the error."""
    if isinstance(error, (RuntimeError, AssertionError)) and "jax" in sys.modules:
        try:
            devices()
        except JaxtrackError as fault:
            return fault
    return error


def _trace(debug: bool) -> None:
    if debug:
        with contextlib.suppress(OSError):
            traceback.print_exc()


def _say(line: str) -> None:
    """Write a line to the standard error, which may be closed or full."""
    with contextlib.suppress(OSError, ValueError):
        # Our own further lines are indented; any other line break came with foreign text.
        lines = re.split(r"\n(?=  )", line)
        print("\n".join(map(printable, lines)), file=sys.stderr, flush=True)


def _line(error: Exception) -> str:
    """Return an error as one line that names the file where that is known."""
    if isinstance(error, JaxtrackError):
        return str(error)
    if _of_device(error):
        return _device_line(error)
    if isinstance(error, OSError):
        if isinstance(error, _OutputError):
            closed = error.errno == errno.EPIPE
            why = "its reader has closed it" if closed else f"cannot be written ({reason(error)})"
            return f"standard output: {why}"
        names = [os.fsdecode(n) for n in (error.filename, error.filename2) if n is not None]
        return f"{' -> '.join(names)}: {reason(error)}" if names else reason(error)
    where = _file_under_work(error)
    text = reason(error)
    if not isinstance(error, (MemoryError, UnicodeError, RecursionError)) and not is_opencv(error):
        text = f"{text} ({type(error).__name__})"
    return f"{where}: {text}" if where else f"{text}; --debug shows where"


def _of_device(error: Exception) -> bool:
    """Return whether JAX's runtime raised this; where JAX is not loaded, it did not."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError)


def _device_line(error: Exception) -> str:
    text = brief(str(error).strip().splitlines()[0] if str(error).strip() else "no reason given")
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return f"the device has not enough memory ({text}); use less at once"
    return f"the device failed ({text})"


def _file_under_work(error: BaseException) -> str | None:
    """Return the path that the function which failed was working on, if one of ours tells it."""
    found = None
    step = error.__traceback__
    while step is not None:
        for name in ("path", "file", "folder"):
            value = step.tb_frame.f_locals.get(name)
            if isinstance(value, (str, pathlib.Path)):
                found = str(value)
        step = step.tb_next
    return found


class _OutputError(OSError):
    """The standard output takes no more."""


class _Output:
    """The standard output, whose errors say that they are its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._own_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._own_errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                # Python would complain again when it flushes at its exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise _OutputError(error.errno, error.strerror) from error


class _Stop:
    """Ctrl-C and SIGTERM as exceptions of the main thread, even where it does not look.

    Python raises such an exception when the main thread next runs Python code. What it leaves open is closed
    here: an exception that a callback of a library has swallowed is raised again; while a module is being
    imported, it waits (extension modules abort the process at an exception); and where the main thread sits
    in a library (a compilation, a camera), a second signal, or `_PATIENCE` after the first, ends the process.

    Attributes:
        number: the signal that came; None: none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._heard = 0
        self._over = False

    def __enter__(self) -> _Stop:
        self._before = {n: signal.signal(n, self._raise) for n in (signal.SIGINT, signal.SIGTERM)}
        self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="jaxtrack-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writing)  # ends the thread
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, number: int, frame: types.FrameType | None) -> None:
        self.number = number
        self._heard += 1
        if _importing(frame):
            self._later()
            return
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _swallowed(self, found: Any) -> None:
        """Raise an interruption again that came in a place where exceptions are ignored."""
        if not (found.exc_type and issubclass(found.exc_type, KeyboardInterrupt)):
            self._hook(found)
            return
        self._later()

    def _later(self) -> None:
        timer = threading.Timer(0.05, self._again)
        timer.daemon = True
        timer.start()

    def _again(self) -> None:
        if not self._over:
            os.kill(os.getpid(), self.number or signal.SIGINT)

    def _watch(self) -> None:
        came = 0
        while read := os.read(self._reading, 64):
            for number in read:
                if number not in self._before:
                    continue
                came += 1
                timer = threading.Timer(
                    _PATIENCE if came == 1 else 1.0, self._end_if_deaf, (came, number)
                )
                timer.daemon = True
                timer.start()
        os.close(self._reading)

    def _end_if_deaf(self, came: int, number: int) -> None:
        if self._heard < came and not self._over:
            self._end(number)

    def _end(self, number: int) -> None:
        _say("terminated" if number == signal.SIGTERM else "interrupted")
        _leave(TERMINATED if number == signal.SIGTERM else INTERRUPTED)


def _importing(frame: types.FrameType | None) -> bool:
    """Return whether a module is being imported where the main thread is."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _stop() -> contextlib.AbstractContextManager[_Stop | None]:
    """Return a `_Stop`, where this is the thread that gets signals."""
    if threading.current_thread() is threading.main_thread():
        return _Stop()
    return contextlib.nullcontext()


def _leave(status: int) -> typing.NoReturn:
    """End the process now, with its children."""
    for child in multiprocessing.active_children():
        child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UsageError`."""

    def error(self, message: str) -> typing.NoReturn:
        message = re.sub(r"^argument (\S+):", r"\1", message)
        message = message.replace("the following arguments are required:", "missing:")
        raise UsageError(f"{message} ({self.prog} --help)")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=100)


def parse(options: type[T], arguments: Sequence[str] | None, prog: str) -> T:
    """Make a dataclass of options from the words of a command line.

    A field ``batch_size`` is the flag ``--batch-size``, ``from_`` is ``--from``. Types: str, int, float,
    `pathlib.Path` (resolved by `jaxtrack.io.paths.resolve`), Literal, each of them ``| None``; bool is a flag
    without value (``--no-x`` for a field that is True by default); ``tuple[X, ...]`` may be given several
    times and takes several values each time; ``tuple[X, Y]`` takes so many values. Numbers are plain, finite
    and fit 64 bits.
    Marks in ``Annotated``: `Positional`, `Each`, `Range`, `Metavar`.

    Args:
        options: frozen dataclass; fields without default are required.
        arguments: the words after the program's name; None: those of the process.
        prog: how the command is called.

    Returns:
        An instance of ``options``.

    Raises:
        UsageError: a mistake in the words.
        SystemExit: help was asked for and printed.
    """
    about, helps = documentation(options)
    parser = _Parser(
        prog=prog, description=about, formatter_class=_Formatter, allow_abbrev=False, add_help=False
    )
    # A value may be a negative number or begin with one, as in --box -3,4,20,20.
    parser._negative_number_matcher = _NEGATIVE
    parser.add_argument("-h", "--help", action="help", help="Show this help.")
    hints = typing.get_type_hints(options, include_extras=True)
    fields = dataclasses.fields(options)  # type: ignore[arg-type]
    for field in fields:
        _add(parser, field, hints[field.name], helps.get(field.name, ""))
    words = [_dashed(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    known = {flag for action in parser._actions for flag in action.option_strings}
    # A flag that does not exist is told before what is missing: it may be what is missing, misspelt.
    strange = [word for word in words if word[:2] == "--" and word.split("=", 1)[0] not in known]
    if strange and strange != ["--"]:
        _refuse(parser, words, strange[0])
    found, left = parser.parse_known_args(words)
    if left:
        _refuse(parser, words, left[0])
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(found).items()}
    return options(**values)


def _refuse(parser: argparse.ArgumentParser, words: list[str], left: str) -> typing.NoReturn:
    """Refuse a word that has no place, and say what may have been meant."""
    flags = {s: a for a in parser._actions for s in a.option_strings if s.startswith("--")}
    if left.startswith("-"):
        hint = f"; {nearest(left.split('=', 1)[0], flags)}"
        parser.error(f"unrecognised argument {brief(left, 80)}{hint}")
    hint = ""
    before = [word for word in words[: words.index(left)] if word in flags]
    if before and flags[before[-1]].nargs is None and flags[before[-1]].metavar:
        hint = f"; {before[-1]} takes one value, {flags[before[-1]].metavar}"
    parser.error(f"unrecognised argument {brief(left, 80)}{hint}")


def _dashed(word: str) -> str:
    """Return a flag's word with hyphens for underscores; its value stays as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _add(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any, text: str) -> None:
    """Add the argument of one field."""
    marks: tuple[Any, ...] = ()
    if typing.get_origin(hint) is typing.Annotated:
        hint, *rest = typing.get_args(hint)
        marks = tuple(rest)
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    required = default is dataclasses.MISSING
    text = text[:1].upper() + text[1:]
    if not required and default not in (None, "", (), False) and hint is not bool:
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{text.rstrip('.')} (default: {shown})."
    flag = f"--{field.name.rstrip('_').replace('_', '-')}"
    keywords: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
    if hint is bool:
        action: Any = argparse.BooleanOptionalAction if default is True else "store_true"
        parser.add_argument(flag, action=action, dest=field.name, **keywords)
        return
    element, several = _unwrap(hint)
    keywords["type"] = _converter(element, next((m for m in marks if isinstance(m, Range)), None))
    named = next((m.text for m in marks if isinstance(m, Metavar)), None)
    choices = typing.get_args(element) if typing.get_origin(element) is Literal else None
    keywords["metavar"] = named or (f"{{{','.join(map(str, choices))}}}" if choices else None)
    if keywords["metavar"] is None:
        keywords["metavar"] = {int: "N", float: "X", pathlib.Path: "PATH"}.get(
            element, field.name.upper()
        )
    if Positional in marks:
        if several is not None:
            keywords["nargs"] = "*" if several == 0 else several
        elif not required:
            # Python 3.11 would make a value of SUPPRESS itself.
            keywords |= {"nargs": "?", "default": default}
        parser.add_argument(field.name, **keywords)
        return
    if several == 0:
        keywords |= {"action": "append"} if Each in marks else {"action": "extend", "nargs": "+"}
    elif several is not None:
        keywords["nargs"] = several
    parser.add_argument(flag, required=required, dest=field.name, **keywords)


def _unwrap(hint: Any) -> tuple[Any, int | None]:
    """Return the type of one value, and how many belong together (0: any number; None: it is one)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if len(kinds) != 1:
            raise TypeError(f"{hint}: an option has one type, or one type and None")
        hint = kinds[0]
    if typing.get_origin(hint) is tuple:
        kinds = list(typing.get_args(hint))
        return kinds[0], (0 if kinds[-1] is Ellipsis else len(kinds))
    return hint, None


def _converter(kind: Any, bounds: Range | None) -> Callable[[str], Any]:
    """Return the function that makes a value of a type from a word."""
    wanted = argparse.ArgumentTypeError

    def convert(word: str) -> Any:
        shown = brief(word, 80)
        if kind is int:
            if not _INTEGER.fullmatch(word):
                raise wanted(f"{shown}: a whole number is wanted")
            value: Any = int(word)
            if not -_LARGEST - 1 <= value <= _LARGEST:
                raise wanted(f"{shown}: too large a number (64 bits)")
        elif kind is float:
            value = float(word) if _DECIMAL.fullmatch(word) else float("nan")
            if not abs(value) < float("inf"):
                raise wanted(f"{shown}: a finite number is wanted")
        elif typing.get_origin(kind) is Literal:
            known = {str(choice): choice for choice in typing.get_args(kind)}
            if word not in known:
                raise wanted(f"{shown} is none of the choices; {nearest(word, known)}")
            return known[word]
        elif kind is pathlib.Path:
            try:
                return paths.resolve(word)
            except JaxtrackError as error:
                raise wanted(str(error)) from error
        elif kind is str:
            return word
        else:
            raise TypeError(f"{kind}: no option can have this type")
        if bounds is not None and not bounds.holds(value):
            raise wanted(f"{shown}: give {bounds}")
        return value

    return convert


def devices() -> list[jax.Device]:
    """Return the devices that JAX will use.

    Raises:
        JaxtrackError: the platform that was asked for is not there.
    """
    import jax

    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where a plugin is not installed
        first, *_ = str(error).splitlines() or [f"JAX_PLATFORMS={jax.config.jax_platforms}"]  # type: ignore[attr-defined]
        raise JaxtrackError(
            f"no device to run on ({brief(first)}); JAX_PLATFORMS=cpu runs on the processor"
        ) from error


def cache_folder() -> pathlib.Path:
    """Return where compiled programs are kept: the user's cache folder."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "jaxtrack" / "compiled"


def current_cache() -> pathlib.Path:
    """Return the cache folder in use: the user's setting for JAX, or ours."""
    import jax

    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return pathlib.Path(chosen) if chosen else cache_folder()


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, so that a second start is quick.

    A folder that the user has set for JAX (``JAX_COMPILATION_CACHE_DIR``) is respected. Where the
    cache folder cannot be made, this is said, and programs are compiled anew at each start.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    try:
        folder = cache_folder()
    except RuntimeError as error:  # no home
        print(f"note: no compilation cache ({brief(error)})", file=sys.stderr)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"note: no compilation cache in {folder} ({reason(error)})", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
