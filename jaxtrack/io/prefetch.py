"""Work ahead in a thread."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()
_PATIENCE = 1.0  # seconds that a thread is waited for


def prefetch(items: Iterable[T], depth: int = 8) -> Iterator[T]:
    """Run an iterable in a thread, at most ``depth`` items ahead.

    The thread ends when the items end, when they raise (the error is raised here, after the items that
    came before it), or when the consumer stops early.

    Args:
        items: what is iterated over, in the thread alone.
        depth: items held ready; 0: no thread.

    Yields:
        The items in order.
    """
    if depth == 0:
        yield from items
        return
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                ready.put((item, None))
                if stopped.is_set():
                    break
            ready.put((_END, None))
        except BaseException as error:  # handed over to the consumer, who raises it
            ready.put((_END, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=work, name="jaxtrack-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        end = time.monotonic() + _PATIENCE
        # Make room until the thread has seen the flag. One that waits for a source that gives nothing is
        # left behind: it must not hold who wants to stop.
        while thread.is_alive() and time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.05)


def on_demand(items: Iterable[T]) -> Iterator[T]:
    """Run an iterable in a thread that makes an item only when it is asked for one.

    The caller waits as it would without a thread, but Ctrl-C ends the waiting at once, where a camera or a
    stream that gives nothing would hold the process until its next frame.

    Args:
        items: what is iterated over, in the thread alone.

    Yields:
        The items in order.
    """
    asked: queue.Queue[bool] = queue.Queue()
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def work() -> None:
        iterator = iter(items)
        try:
            while asked.get():
                ready.put((next(iterator, _END), None))
        except BaseException as error:  # handed over to the consumer, who raises it
            ready.put((_END, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=work, name="jaxtrack-source", daemon=True)
    thread.start()
    try:
        while True:
            asked.put(True)
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        asked.put(False)
        thread.join(_PATIENCE / 5)


def waited(make: Callable[[], T]) -> T:
    """Return what a function makes in a thread; Ctrl-C ends the waiting at once.

    Args:
        make: what may block for long, such as the opening of a stream.
    """
    return next(on_demand(make() for _ in range(1)))
