"""Work ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


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
        while thread.is_alive():  # make room until the thread has seen the flag
            try:
                ready.get(timeout=0.05)
            except queue.Empty:
                continue
        thread.join()
