"""What a run says: a bar for the user, TensorBoard event files, one JSON line per log step."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxtrack.errors import JaxtrackError

METRICS = "metrics.jsonl"


class RunLog:
    """The log of one run.

    Args:
        output: the run's folder.
        first: steps already done.
        steps: length of the run.
        active: False in all processes but one: nothing is written.

    Raises:
        JaxtrackError: the folder cannot be written.
    """

    def __init__(self, output: pathlib.Path, first: int, steps: int, active: bool = True) -> None:
        self._active = active
        if not active:
            return
        # Not SummaryWriter: its background thread dies with a traceback when the disk is full.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tqdm import tqdm

        self._output = output
        with self._disk():
            truncate_after(output / METRICS, first)
            self._lines = (output / METRICS).open("a", encoding="utf-8")
            (output / "tensorboard").mkdir(exist_ok=True)
            self._events = EventsWriter(str(output / "tensorboard" / "events"))
            if first:  # TensorBoard forgets the steps that are done again
                restart = Event(step=first + 1, wall_time=time.time())
                restart.session_log.status = SessionLog.START
                self._events.write_event(restart)
        self._bar = tqdm(
            total=steps,
            initial=first,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
            mininterval=0.5,
        )
        self._mark = (time.monotonic(), first)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JaxtrackError(f"{self._output}: cannot be written ({error.strerror})") from error

    def tick(self) -> None:
        """One step is done."""
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
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        now = time.monotonic()
        then, before = self._mark
        speed = (step - before) / max(now - then, 1e-9)
        self._mark = (now, step)
        record: dict[str, Any] = {"step": step, **metrics, "steps_per_second": round(speed, 4)}
        with self._disk():
            self._lines.write(json.dumps(record) + "\n")
            self._lines.flush()
            for name, value in record.items():
                if name != "step":
                    event = Event(step=step, wall_time=time.time(), summary=scalar(name, value))
                    self._events.write_event(event)
            self._events.flush()
        self._bar.set_postfix_str(f"loss {metrics['loss']:.4f}", refresh=False)

    def say(self, line: str) -> None:
        """A line for the user, above the bar."""
        if self._active:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Flush everything."""
        if self._active:
            self._bar.close()
            with self._disk():
                self._lines.close()
                self._events.close()


def truncate_after(path: pathlib.Path, step: int) -> None:
    """Drop the lines of steps that a resumed run will do again, and a half-written last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if record["step"] > step:
            break
        kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


class Meter:
    """Collects the metrics of the steps, one step behind the device, and stops at a loss that is not finite.

    Args:
        last_good: names the last whole checkpoint, in words.
    """

    def __init__(self, last_good: Callable[[], str]) -> None:
        self._last_good = last_good
        self._pending: tuple[int, dict[str, Any], str] | None = None
        self._sums: dict[str, float] = {}
        self._count = 0
        self._save_sum, self._save_count = 0.0, 0

    def add(self, step: int, metrics: dict[str, Any], content: str) -> None:
        """Take the metrics of a step; looks at those of the step before, which the device has done.

        Args:
            step: its number, from 1.
            metrics: name -> ``()``, still on the device.
            content: names what was in the batch.

        Raises:
            JaxtrackError: the loss of the step before is not finite.
        """
        self._settle()
        self._pending = (step, metrics, content)

    def _settle(self) -> None:
        if self._pending is None:
            return
        step, metrics, content = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
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
        """Means since the last call, the latest step included."""
        self._settle()
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def read_since_save(self) -> float:
        """Mean loss since the last call, the latest step included."""
        self._settle()
        loss = self._save_sum / max(self._save_count, 1)
        self._save_sum, self._save_count = 0.0, 0
        return loss
