"""Collects compared groups of values: what agrees, what differs, what is not understood."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxtrack.errors import JaxtrackError

TOLERANCE = 1e-6  # one frame more or less moves a rate by 1 / length, a hundred times more
_MALFORMED = (KeyError, TypeError, AttributeError, ValueError, IndexError)


@dataclasses.dataclass(frozen=True)
class Line:
    """One compared group of values.

    Attributes:
        where: pack, tracker, toolkit and group.
        values: how many values were compared.
        error: the largest error.
        problem: why the group fails although no number is off, or "".
    """

    where: str
    values: int
    error: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the group agrees."""
        return not self.problem and self.error <= TOLERANCE

    def __str__(self) -> str:
        """Return the line as printed."""
        verdict = "PASS" if self.passed else "FAIL"
        if self.problem:
            return f"{verdict}  {self.where}: {self.problem}"
        noun = "value" if self.values == 1 else "values"
        return f"{verdict}  {self.where}: {self.values} {noun}, largest error {self.error:.2g}"


class Checker:
    """Collects compared groups."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.notes: list[str] = []

    def check(self, where: str, ours: Any, expected: Any, relative: bool = False) -> None:
        """Compare two arrays of the same shape; NaN must meet NaN.

        Args:
            where: name of the group.
            ours: our values.
            expected: the pack's values (None is NaN, "inf" is infinity).
            relative: measure the error relative to the expected value.
        """
        try:
            a, b = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
        except (TypeError, ValueError):
            return self.fail(where, "the expected entry is not a table of numbers")
        if a.shape != b.shape:
            return self.fail(where, f"shape {a.shape} where {b.shape} is expected")
        if not b.size:
            return self.fail(where, "no values")
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.where(same, 0.0, np.abs(a - b))
            if relative:
                error = error / np.maximum(np.abs(b), 1e-300)
        self.lines.append(
            Line(where, b.size, float(np.max(np.where(np.isnan(error), np.inf, error))))
        )
        return None

    def fail(self, where: str, problem: str) -> None:
        """Add a group that fails for another reason than a number."""
        self.lines.append(Line(where, 0, 0.0, problem))

    def note(self, text: str) -> None:
        """Add a remark about something that is no value to compare."""
        self.notes.append(text)

    @contextlib.contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Turn what a malformed entry raises into a group that fails, and go on with the next.

        Args:
            where: name of the group.

        Yields:
            Nothing.
        """
        try:
            yield
        except JaxtrackError as error:
            self.fail(where, str(error))
        except _MALFORMED as error:
            self.fail(where, f"unknown structure: {type(error).__name__}: {error}")

    def table(self, where: str, ours: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Compare named numbers as one group; names that we do not have fail.

        Args:
            where: name of the group.
            ours: name -> number.
            expected: name -> number.
        """
        if not isinstance(expected, Mapping):
            return self.fail(where, "the expected entry is not a table of names")
        unknown = [k for k in expected if k not in ours]
        if unknown:
            self.fail(where, f"unknown entries: {', '.join(map(str, unknown[:5]))}")
        known = [k for k in expected if k in ours]
        if known:
            self.check(where, [ours[k] for k in known], [expected[k] for k in known])
        return None


@dataclasses.dataclass(eq=False)
class Group:
    """The files of one benchmark in a pack, role -> content; "result_X" is the result of tracker X."""

    key: str
    files: dict[str, dict[str, Any]]

    def get(self, role: str) -> dict[str, Any] | None:
        """Return the content of a file by its role, or None."""
        return self.files.get(role)
