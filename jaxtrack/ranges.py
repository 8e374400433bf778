"""Which values a field may take, said where it is declared: ``window_influence: Share = 0.176``.

A command's options and the numbers of every config carry the same mark, `Range`; words have a `Literal` type.
A config checks itself by `check_ranges` when it is made, wherever its values come from.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from jaxtrack.errors import JaxtrackError, brief, nearest


@dataclasses.dataclass(frozen=True)
class Range:
    """Least and largest value of a number: ``Annotated[int, Range(low=1)]``.

    Attributes:
        low: least value; None: no bound.
        high: largest value; None: no bound.
        above: a bound from below that is not itself allowed; None: no bound.
        below: a bound from above that is not itself allowed; None: no bound. Infinity: the number is finite.
        odd: whether the number is odd.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    odd: bool = False

    def holds(self, value: float) -> bool:
        """Return whether a value may be taken; nan may not."""
        return (
            value == value
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (not self.odd or value % 2 == 1)
        )

    def __str__(self) -> str:
        """Return the range in words: ``from 0 to 1``, ``1 or more``, ``above 0``; not that it is finite."""
        low, high, above, below = (
            None if bound is None or math.isinf(bound) else _plain(bound)
            for bound in (self.low, self.high, self.above, self.below)
        )
        words = ["odd"] if self.odd else []
        if low is not None and high is not None:
            words.append(f"from {low} to {high}")
        elif low is not None:
            words.append(f"{low} or more")
        elif high is not None and above is None:
            words.append(f"{high} or less")
        if above is not None:
            words.append(f"above {above}" + (f", at most {high}" if high is not None else ""))
        if below is not None:
            words.append(f"below {below}")
        return ", ".join(words)


Share = Annotated[float, Range(low=0, high=1)]
PositiveShare = Annotated[float, Range(above=0, high=1)]
BelowOne = Annotated[float, Range(low=0, below=1)]
Positive = Annotated[float, Range(above=0, below=math.inf)]
NotNegative = Annotated[float, Range(low=0, below=math.inf)]
AtLeastOne = Annotated[float, Range(low=1, below=math.inf)]
Count = Annotated[int, Range(low=1)]
OddCount = Annotated[int, Range(low=1, odd=True)]
Whole = Annotated[int, Range(low=0)]


def check_ranges(record: Any, where: str = "") -> None:
    """Refuse a number outside its range, and a word that is none of its choices; for ``__post_init__``.

    Numbers that are known only when a program runs (traced, or arrays) pass: settings can be searched over
    and differentiated.

    Args:
        record: dataclass, or NamedTuple; a NamedTuple in a field of it is checked, too, since it cannot
            check itself.
        where: put before each name, such as ``template_update.``.

    Raises:
        JaxtrackError: names the field, its value, and its range or choices.
    """
    kind: Any = type(record)
    for name, choices in choices_of(kind):
        # Python does not hold anyone to a Literal, and an unknown word would be taken for some other one.
        value = getattr(record, name)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise JaxtrackError(
                f"{where}{name} is {brief(repr(value), 60)}; {nearest(value, choices)}"
            )
    for name, range_ in ranges_of(kind):
        value = getattr(record, name)
        for number in value if type(value) is tuple else (value,):
            if isinstance(number, numbers.Real) and not range_.holds(float(number)):
                finite = ", finite" if math.isinf(number) else ""
                raise JaxtrackError(f"{where}{name} is {_shown(value)}; {range_}{finite}")
    if dataclasses.is_dataclass(record):
        for field in dataclasses.fields(record):
            inner = getattr(record, field.name)
            if hasattr(inner, "_fields"):
                check_ranges(inner, f"{where}{field.name}.")


def exceeds(first: Any, second: Any) -> bool:
    """Return whether one setting is larger than another, both known before a program runs."""
    return all(isinstance(x, numbers.Real) for x in (first, second)) and first > second


def check_order(record: Any, first: str, second: str, where: str = "") -> None:
    """Refuse a config in which one number is larger than another that it may at most be.

    Args:
        record: the config.
        first: name of the field that is the smaller one, or equal.
        second: name of the other.
        where: put before the first name.

    Raises:
        JaxtrackError: names both fields and their values.
    """
    low, high = getattr(record, first), getattr(record, second)
    if exceeds(low, high):
        raise JaxtrackError(f"{where}{first} is {_shown(low)}, above {second} = {_shown(high)}")


@functools.cache
def ranges_of(kind: Any) -> tuple[tuple[str, Range], ...]:
    """Return the marked fields of a class. A tuple's mark, or its entries', holds for each entry."""
    hints = typing.get_type_hints(kind, include_extras=True)
    # Entries of one kind carry one mark: each is held to once.
    return tuple(
        (name, mark) for name, hint in hints.items() for mark in dict.fromkeys(_marks(hint))
    )


@functools.cache
def choices_of(kind: Any) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Return the fields of a class whose type is a Literal, and the choices of each."""
    hints = typing.get_type_hints(kind)
    return tuple(
        (name, typing.get_args(hint))
        for name, hint in hints.items()
        if typing.get_origin(hint) is Literal
    )


def _marks(hint: Any) -> Iterator[Range]:
    """Yield the ranges in a type."""
    if typing.get_origin(hint) is Annotated:
        yield from (mark for mark in hint.__metadata__ if isinstance(mark, Range))
    for inner in typing.get_args(hint):
        if typing.get_origin(inner) in (Annotated, tuple):
            yield from _marks(inner)


def _plain(number: float) -> str:
    """Return a number without exponent where it is whole."""
    return str(int(number)) if number == int(number) else f"{number:g}"


def _shown(value: Any) -> str:
    if type(value) is tuple:
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
