"""Many processes watch each other: when one is lost, each of the others says which, and ends.

A process that dies takes its part of the next sum with it, and the others would wait in it until some library
gives up after a minute and aborts. A connection that breaks tells at once. Process 0 keeps one with each
other process; who leaves in order says so first.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from typing import Any

import jax
import numpy as np

_BYE, _LOST = b"b", b"l"
_PATIENCE = 60.0  # seconds in which all connect
_NAME = 128  # bytes in which the host's name is passed on


class Peers:
    """Watches the other processes while it is entered.

    Args:
        host: of process 0, as the others reach it; None: the name that process 0 has for itself.
    """

    def __init__(self, host: str | None) -> None:
        self._host = host
        self._over = False
        self._links: dict[int, socket.socket] = {}

    def __enter__(self) -> Peers:
        """Connect, and begin to watch."""
        if jax.process_count() == 1:
            return self
        server = socket.create_server(("", 0)) if jax.process_index() == 0 else None
        port = server.getsockname()[1] if server else 0
        host, port = _told(self._host or socket.gethostname(), port)
        if server is not None:
            server.settimeout(_PATIENCE)
            with server:
                for _ in range(jax.process_count() - 1):
                    link, _ = server.accept()
                    self._links[int.from_bytes(link.recv(4, socket.MSG_WAITALL), "big")] = link
        else:
            link = socket.create_connection((self._host or host, port), timeout=_PATIENCE)
            link.settimeout(None)
            link.sendall(jax.process_index().to_bytes(4, "big"))
            self._links[0] = link
        for number, link in self._links.items():
            threading.Thread(
                target=self._watch, args=(number, link), name=f"process {number}", daemon=True
            ).start()
        return self

    def __exit__(self, *error: Any) -> None:
        """Take leave: in order, or not."""
        self._over = True
        if error[0] is None or getattr(error[1], "in_order", False):
            self._tell(_BYE)
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_WR)

    def _tell(self, word: bytes, number: int = 0) -> None:
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.sendall(word + number.to_bytes(4, "big"))

    def _watch(self, number: int, link: socket.socket) -> None:
        word = b""
        with contextlib.suppress(OSError):
            word = link.recv(5, socket.MSG_WAITALL)
        if self._over or word[:1] == _BYE:
            return
        lost = int.from_bytes(word[1:], "big") if word[:1] == _LOST else number
        self._tell(_LOST, lost)
        line = f"error: process {lost} of this run was lost; when all have ended, --resume goes on"
        with contextlib.suppress(OSError, ValueError):
            print(f"\n{line} from the last checkpoint", file=sys.stderr, flush=True)
        # The main thread waits for the lost one inside a library: nothing but this ends it.
        os._exit(1)


def _told(host: str, port: int) -> tuple[str, int]:
    """Return host and port as process 0 has them."""
    from jax.experimental import multihost_utils

    name = np.zeros(_NAME, np.uint8)
    data = np.frombuffer(host.encode()[:_NAME], np.uint8)
    name[: len(data)] = data
    name, place = multihost_utils.broadcast_one_to_all((name, np.int32(port)))
    return bytes(np.asarray(name)).rstrip(b"\0").decode(), int(place)
