"""Fields changed from outside: types are checked, nearest names offered."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest

from jaxtrack.errors import UsageError
from jaxtrack.settings import described, replaced


@dataclasses.dataclass(frozen=True)
class Optim:
    rate: float = 0.1
    steps: int = 10
    decay: float | None = None
    kind: Literal["sgd", "adam"] = "sgd"
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Recipe:
    name: str = "x"
    optim: Optim = Optim()
    strides: tuple[int, ...] = (1, 2)
    span: tuple[float, float] = (0.0, 1.0)
    scales: tuple[tuple[int, int], ...] = ()
    stages: tuple[Optim, ...] = (Optim(), Optim(rate=1.0))
    label: str | None = None
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError("low must lie below high")


@pytest.mark.parametrize(
    ("texts", "path", "value"),
    [
        (["optim.rate=1e-3"], "optim.rate", 1e-3),
        (["optim.rate=2"], "optim.rate", 2.0),
        (["optim.steps=-0007", "optim.steps.x=1"][:0] or ["optim.steps=7"], "optim.steps", 7),
        (["optim.decay=.5"], "optim.decay", 0.5),
        (["optim.decay=none"], "optim.decay", None),
        (["optim.kind=adam"], "optim.kind", "adam"),
        (["optim.nesterov=true"], "optim.nesterov", True),
        (["strides=3,4,5"], "strides", (3, 4, 5)),
        (["strides=3"], "strides", (3,)),
        (["strides=()"], "strides", ()),
        (["span=(1, 2)"], "span", (1.0, 2.0)),
        (["scales=((1,2),(3,4))"], "scales", ((1, 2), (3, 4))),
        (["label=None"], "label", None),
        (["label=a=b"], "label", "a=b"),
        (["low=5", "high=6"], "low", 5.0),  # both at once: neither order is refused
        (["high=6", "low=5"], "low", 5.0),
    ],
)
def test_text_sets_a_field(texts: list[str], path: str, value: Any) -> None:
    changed = replaced(Recipe(), texts)
    found = described(changed)[path]
    assert found == value
    assert type(found) is type(value)
    assert isinstance(hash(changed), int)


def test_an_entry_of_a_tuple_is_reached() -> None:
    assert replaced(Recipe(), ["stages.1.rate=3"]).stages == (Optim(), Optim(rate=3.0))


def test_python_values_are_checked_too() -> None:
    changed = replaced(
        Recipe(), {"low": np.float32(0.5), "strides": [1, 2], "optim.steps": np.int32(3)}
    )
    assert (changed.low, changed.strides, changed.optim.steps) == (0.5, (1, 2), 3)
    assert type(changed.low) is float
    for bad in (
        {"low": "0.5"},
        {"low": True},
        {"low": np.zeros(2)},
        {"optim.steps": 2.5},
        {"name": 3},
    ):
        with pytest.raises(UsageError, match="is wanted"):
            replaced(Recipe(), bad)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.rat=1", "optim.rat=1: Optim has no field 'rat'; nearest: rate"),
        ("optmi.rate=1", "Recipe has no field 'optmi'; nearest: optim"),
        ("optim.rate=fast", "optim.rate=fast: a number is wanted"),
        ("optim.rate=nan", "a number is wanted"),
        ("optim.rate=0,5", "a number is wanted"),
        ("optim.steps=1.5", "a whole number"),
        ("optim.steps=99999999999999999999", "a whole number"),
        ("optim.steps=0", "optim.steps=0: steps must be 1 or more"),
        ("optim.kind=admm", "nearest: adam"),
        ("optim.nesterov=2", "true or false"),
        ("optim=3", "set one of them"),
        ("strides=a", "a whole number"),
        ("strides=1.5,2", "a whole number"),
        ("span=1,2,3", "2 values are wanted"),
        ("name.x=1", "nothing lies below a str"),
        ("stages.2.rate=1", "no number from 0 to 1"),
        ("low=3", "low must lie below high"),
        ("low", "give FIELD=VALUE"),
        ("=3", "give FIELD=VALUE"),
    ],
)
def test_mistakes_are_told(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        replaced(Recipe(), [text])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_path_twice() -> None:
    with pytest.raises(UsageError, match="low is set twice"):
        replaced(Recipe(), ["low=.1", "low=.2"])
    with pytest.raises(UsageError, match="one lies in the other"):
        replaced(Recipe(), ["optim=1", "optim.rate=.2"])
