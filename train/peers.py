"""Many processes find and watch each other: when one is lost, each of the others says which, and ends.

JAX's own meeting aborts the process when one does not come, and a process that dies takes its part of the
next sum with it, so that the others would wait in it until some library aborts a minute later. So the
processes meet here first, at the address where JAX will meet, and keep their connections: one that breaks
tells at once. Process 0 keeps one with each other process; who leaves in order says so first.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from typing import Any

import jax
import numpy as np

from jaxtrack.errors import JaxtrackError, reason

_BYE, _LOST, _GO = b"b", b"l", b"g"
_NAME = 128  # bytes in which the host's name is passed on

Links = dict[int, socket.socket]


def meet(host: str, port: int, processes: int, process_id: int, timeout: float) -> Links:
    """Wait until all processes are there.

    Args:
        host: of process 0.
        port: at which it is met; free again afterwards.
        processes: how many there are.
        process_id: this one's number.
        timeout: seconds.

    Returns:
        The connections: of process 0 with all others, of the others with process 0.

    Raises:
        JaxtrackError: somebody did not come.
    """
    end = time.monotonic() + timeout
    if process_id == 0:
        with _listening(port) as server:
            links = _gathered(server, processes, end)
        missing = [str(i) for i in range(1, processes) if i not in links]
        if missing:
            raise JaxtrackError(
                f"process {', '.join(missing[:8])} of {processes} did not join the run at port {port} within"
                f" {timeout:g} s (--join-timeout)"
            )
        for link in links.values():
            link.sendall(_GO)
        return links
    link = _reach(host, port, end, timeout)
    link.sendall(process_id.to_bytes(4, "big") + processes.to_bytes(4, "big"))
    link.settimeout(max(end - time.monotonic(), 1.0) + 5.0)
    word = b""
    with contextlib.suppress(OSError):
        word = link.recv(1)
    if word != _GO:
        raise JaxtrackError(
            f"process 0 at {host}:{port} did not take this process {process_id} of {processes} into its run:"
            " its line says why"
        )
    link.settimeout(None)
    return {0: link}


def _listening(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise JaxtrackError(
            f"--coordinator: process 0 cannot listen at port {port} ({reason(error)})"
        ) from error


def _gathered(server: socket.socket, processes: int, end: float) -> Links:
    """Take in the other processes until all are there or the time is over."""
    links: Links = {}
    while len(links) < processes - 1 and time.monotonic() < end:
        server.settimeout(max(end - time.monotonic(), 0.01))
        with contextlib.suppress(OSError):
            link, _ = server.accept()
            link.settimeout(5.0)
            word = link.recv(8, socket.MSG_WAITALL)
            number, wanted = int.from_bytes(word[:4], "big"), int.from_bytes(word[4:], "big")
            if len(word) < 8 or wanted != processes or not 0 < number < processes:
                link.close()  # not one of us
                continue
            link.settimeout(None)
            links[number] = link
    return links


def _reach(host: str, port: int, end: float, timeout: float) -> socket.socket:
    """Connect with process 0, which may come later."""
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(end - time.monotonic(), 0.1))
        except OSError as error:
            if time.monotonic() + 0.5 > end or isinstance(error, socket.gaierror):
                raise JaxtrackError(
                    f"could not join the run: nobody answers at {host}:{port} ({reason(error)}; tried for"
                    f" up to {timeout:g} s, --join-timeout)"
                ) from error
            time.sleep(0.5)


def met_by_jax() -> Links:
    """Connect processes that have met through JAX, where it knows the cluster and nobody gave an address."""
    first = jax.process_index() == 0
    server = socket.create_server(("", 0)) if first else None
    host, port = _told(socket.gethostname(), server.getsockname()[1] if server else 0)
    if server is None:
        return meet(host, port, jax.process_count(), jax.process_index(), 60.0)
    server.close()
    return meet(host, port, jax.process_count(), 0, 60.0)


class Peers:
    """Watches the other processes while it is entered.

    Args:
        links: connections with them, by number.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._over = False

    def __enter__(self) -> Peers:
        """Begin to watch."""
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
