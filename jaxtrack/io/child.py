"""Programs run as children that end with their parent."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

from jaxtrack.errors import JaxtrackError, brief, reason

_PATIENCE = 30.0  # seconds between asking a child to end and ending it: a training saves its state
_GLANCE = 0.2  # seconds between two looks at whether to stop
_TAIL = 1 << 20  # bytes kept of what a child prints
# Runs in the child before its program: Linux then sends it SIGTERM when its parent is gone, however it went.
_TIE = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
        status: exit status; negative: the signal that ended it.
        output: last mebibyte of its standard output, where it was captured.
        errors: likewise of its standard error.
        late: it was ended because its time was up, or we were told to stop.
    """

    status: int
    output: str
    errors: str
    late: bool


def run(
    words: Sequence[str],
    *,
    cwd: pathlib.Path | None = None,
    seconds: float | None = None,
    capture: bool = False,
    env: Mapping[str, str] | None = None,
    patience: float = _PATIENCE,
    stop: threading.Event | None = None,
) -> Ended:
    """Run a program and wait for it; it and its own children end with us, whatever ends us.

    Args:
        words: the program and its arguments.
        cwd: folder in which it runs; None: ours.
        seconds: after which it is ended; None: never.
        capture: keep what it prints in place of showing it.
        env: variables of its environment besides ours.
        patience: seconds between asking it to end and ending it.
        stop: once set, by another thread, the child is ended.

    Returns:
        How it ended.

    Raises:
        JaxtrackError: it cannot be started.
    """
    if not words or shutil.which(words[0]) is None:
        raise JaxtrackError(f"{brief(words[0] if words else '')!r}: no such program")
    tied = [sys.executable, "-c", _TIE, str(os.getpid()), *words]
    pipe = subprocess.PIPE if capture else None
    try:
        process = subprocess.Popen(
            tied if sys.platform == "linux" else list(words),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            env=None if env is None else {**os.environ, **env},
        )
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else brief(error)
        raise JaxtrackError(f"{brief(words[0])}: cannot be started ({why})") from error
    with (
        _Tail(process.stdout) as output,
        _Tail(process.stderr) as errors,
        _ended(process, patience),
    ):
        late = not _waited(process, seconds, stop)
        if late:
            _end(process, patience)
    return Ended(process.returncode, output.text(), errors.text(), late)


def _waited(
    process: subprocess.Popen[bytes], seconds: float | None, stop: threading.Event | None
) -> bool:
    """Wait for a child; return whether it ended by itself."""
    limit = float("inf") if seconds is None else time.monotonic() + seconds
    while stop is None or not stop.is_set():
        left = limit - time.monotonic()
        step = left if stop is None else min(left, _GLANCE)
        try:
            process.wait(None if step == float("inf") else max(step, 0.0))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= limit:
                return False
        else:
            return True
    return False


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes], patience: float) -> Iterator[None]:
    """Leave no child behind, whatever happens here."""
    try:
        yield
    finally:
        _end(process, patience)


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Ask a child to end, and end it when it does not; then its children, which share its group."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            process.terminate()
        limit = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


class _Tail:
    """The end of what a child prints; reading goes on, so that it never waits for us."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._stream, self._held = stream, b""
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        assert self._stream is not None
        with contextlib.suppress(OSError, ValueError):
            while data := self._stream.read1(1 << 16):  # type: ignore[attr-defined]
                self._held = (self._held + data)[-_TAIL:]

    def __enter__(self) -> _Tail:
        if self._stream is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._thread.join()  # the child and its group are gone: the stream ends
            self._stream.close()

    def text(self) -> str:
        return self._held.decode("utf-8", "backslashreplace")
