"""Ctrl-C and SIGTERM during a training: the step that runs is finished and saved, then the command ends.

The device works while Python waits, and a compilation can take minutes in which Python handles no signal.
So a thread of its own hears the signals: the first asks the loop to stop after its step; the second, or one
before the first step is done (there is nothing to save), ends the process at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from typing import Any

from jaxtrack import cli


class Stop:
    """Hears the signals while it is entered (in the main thread; elsewhere it hears nothing).

    Attributes:
        asked: the signal that asked the loop to stop; 0: none did.
        underway: whether a step was done, so that there is something to save.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.underway = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        """Begin to hear."""
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, lambda *_: None)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to whoever had them."""
        if not self._before:
            return
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        self._writer.close()  # ends the thread

    def _listen(self) -> None:
        while number := self._reader.recv(1):
            if number[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            if self.asked or not self.underway:
                self._leave(number[0])
            self.asked = number[0]
            _say("stopping after this step; once more stops at once")
        self._reader.close()

    def _leave(self, number: int) -> None:
        if not self.asked:
            _say("stopped in its first step; --resume goes on from where it began")
        for child in multiprocessing.active_children():
            child.terminate()
        # The main thread may be inside a compiler or a device: nothing but this ends it safely.
        os._exit(status_of(number))


def status_of(number: int) -> int:
    """Return the exit status after a signal."""
    return cli.TERMINATED if number == signal.SIGTERM else cli.INTERRUPTED


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"\n{line}", file=sys.stderr, flush=True)
