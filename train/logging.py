"""What a run says: a bar for the user, one JSON line per log step, and TensorBoard event files."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxtrack.errors import JaxtrackError, naming
from jaxtrack.io.atomic import write_whole

from .step import STOP

METRICS = "metrics.jsonl"


class RunLog:
    """The log of one run.

    Args:
        output: the run's folder.
        first: steps already done.
        steps: length of the run.
        batch_size: pairs per step of the whole run.
        active: False in all processes but one: nothing is written.

    Raises:
        JaxtrackError: the folder cannot be written.
    """

    def __init__(
        self, output: pathlib.Path, first: int, steps: int, batch_size: int, active: bool = True
    ) -> None:
        self._active = active
        self._mark = (time.monotonic(), first)
        if not active:
            return
        from tqdm import tqdm

        self._output, self._batch_size = output, batch_size
        with self._disk():
            truncate_after(output / METRICS, first)
            # Every line in one write at the end of the file: whole, whoever else writes.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._lines = os.open(output / METRICS, flags, 0o644)
            self._events = _open_events(output / "tensorboard", first)
        self._bar = tqdm(
            total=steps,
            initial=first,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
            mininterval=0.5,
        )

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        with naming(self._output, "cannot be written"):
            yield

    def tick(self) -> None:
        """Count a step that is done."""
        if self._active:
            self._bar.update()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics of a step.

        Args:
            step: steps done.
            metrics: name -> value.
        """
        if not self._active:
            return
        now = time.monotonic()
        then, before = self._mark
        speed = (step - before) / max(now - then, 1e-9)
        self._mark = (now, step)
        record: dict[str, Any] = {
            "step": step,
            **metrics,
            "steps_per_second": round(speed, 4),
            "pairs_per_second": round(speed * self._batch_size, 2),
        }
        with self._disk():
            line = (json.dumps(record) + "\n").encode()
            if os.write(self._lines, line) < len(line):
                raise OSError(errno.ENOSPC, "the disk is full")
            if self._events is not None:
                _write_events(self._events, step, record)
        self._bar.set_postfix_str(f"loss {metrics['loss']:.4f}", refresh=False)

    def pause(self) -> None:
        """Leave out the time since the last line: a validation, which is no training."""
        self._paused = time.monotonic()

    def go_on(self) -> None:
        """End a pause."""
        then, step = self._mark
        self._mark = (then + time.monotonic() - self._paused, step)

    def close(self) -> None:
        """Flush everything."""
        if self._active:
            self._bar.close()
            with self._disk():
                os.close(self._lines)
                if self._events is not None:
                    self._events.close()


def _open_events(folder: pathlib.Path, first: int) -> Any:
    """Open TensorBoard's event file; None, with a line that says so, where tensorboardX is missing."""
    try:
        # Not SummaryWriter: its background thread dies with a traceback when the disk is full.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
    except ImportError:
        print(
            f"note: tensorboardX is not installed: no TensorBoard files; {METRICS} holds every figure",
            file=sys.stderr,
        )
        return None
    folder.mkdir(exist_ok=True)
    events = EventsWriter(str(folder / "events"))
    if first:  # TensorBoard forgets the steps that are done again
        restart = Event(step=first + 1, wall_time=time.time())
        restart.session_log.status = SessionLog.START
        events.write_event(restart)
    return events


def _write_events(events: Any, step: int, record: dict[str, Any]) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    for name, value in record.items():
        if name != "step":
            events.write_event(Event(step=step, wall_time=time.time(), summary=scalar(name, value)))
    events.flush()


def truncate_after(path: pathlib.Path, step: int) -> None:
    """Drop the lines of steps that a resumed run will do again, and a half-written last line.

    A damaged line among the others is left out too, and that is said; the lines after it stay.
    """
    if not path.is_file():
        return
    kept, damaged = [], []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            done = int(record["step"])
        except (ValueError, TypeError, KeyError, RecursionError):
            damaged.append(number)
            continue
        if done <= step:
            kept.append(line + b"\n")
    if [number for number in damaged if number < len(lines)]:
        where = ", ".join(map(str, damaged[:5]))
        print(f"note: {path}: damaged lines are left out: {where}", file=sys.stderr)
    write_whole(path, b"".join(kept))


class Meter:
    """Collects the metrics of the steps, one step behind the device, and stops at a loss that is not finite.

    Args:
        last_good: names the last whole checkpoint, in words.

    Attributes:
        told: the signal by which one of many processes has asked all to stop; 0: none did.
    """

    def __init__(self, last_good: Callable[[], str]) -> None:
        self._last_good = last_good
        self._pending: tuple[int, dict[str, Any], str] | None = None
        self._sums: dict[str, float] = {}
        self._count = 0
        self._save_sum, self._save_count = 0.0, 0
        self.told = 0

    def add(self, step: int, metrics: dict[str, Any], content: str) -> None:
        """Take the metrics of a step; looks at those of the step before, which the device has done.

        Args:
            step: its number, from 1.
            metrics: name -> ``()``, still on the device.
            content: names what was in the batch.

        Raises:
            JaxtrackError: the loss of the step before is not finite.
        """
        self.settle()
        self._pending = (step, metrics, content)

    def settle(self) -> None:
        """Wait for the latest step, and look at its metrics; see `add`."""
        if self._pending is None:
            return
        step, metrics, content = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if values.pop(STOP, 0.0):
            self.told = signal.SIGTERM
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(values.get(name, 0.0))]
        if bad:
            raise JaxtrackError(
                f"step {step}: {bad[0]} is {values[bad[0]]}; the batch was: {content}; {self._last_good()}"
            )
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._save_sum += values["loss"]
        self._save_count += 1

    def read(self) -> dict[str, float]:
        """Return the means since the last call, the latest step included."""
        self.settle()
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def read_since_save(self) -> float:
        """Return the mean loss since the last call, the latest step included."""
        self.settle()
        loss = self._save_sum / max(self._save_count, 1)
        self._save_sum, self._save_count = 0.0, 0
        return loss
