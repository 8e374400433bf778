"""Fields of frozen dataclasses changed from outside: ``--set optim.rate=1e-3``.

A path names a field, a field of a field, or an entry of a tuple: ``optim.rate``, ``task.world.clutter``,
``stages.0.steps``. The value is checked against the type that the dataclass declares, then by the dataclass
itself (its ``__post_init__``).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import pathlib
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from jaxtrack.errors import JaxtrackError, UsageError, brief, nearest
from jaxtrack.ranges import check_ranges, ranges_of

T = TypeVar("T")

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NONE = ("none", "null")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf", re.ASCII)


class _UnfitError(Exception):
    """A value that a type does not take; says what is wanted."""


def replaced(value: T, changes: Iterable[str] | Mapping[str, Any]) -> T:
    """Return a dataclass with fields changed by dotted path.

    Args:
        value: frozen dataclass; it stays as it is.
        changes: ``"path=value"`` texts, or path -> value as Python holds it.

    Returns:
        A new value of the same class.

    Raises:
        UsageError: no such field (the nearest are offered), a value of another type, one path given twice, or
            a value that the dataclass refuses.
    """
    if isinstance(changes, Mapping):
        leaves = [_Leaf(path, given, textual=False) for path, given in changes.items()]
    else:
        leaves = [_Leaf(*_split(text), textual=True) for text in changes]
    tree: dict[str, Any] = {}
    for leaf in leaves:
        _place(tree, leaf)
    return _changed(value, tree) if tree else value


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One change: its path, the value given, and whether that is text."""

    path: str
    given: Any
    textual: bool

    @property
    def shown(self) -> str:
        return (
            f"{brief(self.path, 80)}={brief(self.given if self.textual else repr(self.given), 80)}"
        )


def _place(tree: dict[str, Any], leaf: _Leaf) -> None:
    """Put a change into the tree of all changes: they are made together, whatever their order."""
    *steps, last = leaf.path.split(".")
    for step in steps:
        tree = tree.setdefault(step, {})
        if isinstance(tree, _Leaf):
            raise UsageError(f"{tree.shown} and {leaf.shown}: one lies in the other")
    if last in tree:
        raise UsageError(f"{brief(leaf.path, 80)} is set twice")
    tree[last] = leaf


def _walk(value: Any, prefix: str) -> Iterator[tuple[str, type, str, Any]]:
    """Yield every field that lies in a record or in a record of its tuples: path, class, name and value."""
    for name in _names(type(value)):
        inner, path = getattr(value, name), f"{prefix}{name}"
        if _is_record(inner):
            yield from _walk(inner, f"{path}.")
        elif type(inner) is tuple and inner and all(map(_is_record, inner)):
            for i, entry in enumerate(inner):
                yield from _walk(entry, f"{path}.{i}.")
        else:
            yield path, type(value), name, inner


def described(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return every path of a dataclass that can be set, with its value.

    Args:
        value: dataclass or NamedTuple.
        prefix: put before each path.
    """
    return {path: inner for path, _, _, inner in _walk(value, prefix)}


def kinds(value: Any) -> Iterator[type]:
    """Yield the class of a dataclass or NamedTuple, and those of the ones that lie in it."""
    if _is_record(value):
        yield type(value)
        for name in _names(type(value)):
            yield from kinds(getattr(value, name))
    elif type(value) is tuple:
        for entry in value:
            yield from kinds(entry)


class Explained(NamedTuple):
    """What there is to know of one field that can be set.

    Attributes:
        path: as `replaced` takes it.
        value: the present one, as text that `replaced` reads.
        wanted: which values it takes, in words; "" where its type says all.
        meaning: what its class says of it.
    """

    path: str
    value: str
    wanted: str
    meaning: str


def explained(value: Any, prefix: str = "") -> Iterator[Explained]:
    """Yield every field of a dataclass that can be set, and those of its fields and of its tuples' entries.

    Args:
        value: dataclass or NamedTuple; functions in it are left out. Of all else there is nothing to set.
        prefix: put before each path.
    """
    if not _is_record(value):
        return
    for path, kind, name, inner in _walk(value, prefix):
        if callable(inner):
            continue
        declared = hints(kind)
        marked = dict(ranges_of(kind)) if declared else {}
        wanted = str(marked[name]) if name in marked else _choices(declared.get(name))
        yield Explained(path, as_text(inner), wanted, documentation(kind)[1].get(name, ""))


def _choices(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        names = [kind for kind in typing.get_args(hint) if typing.get_origin(kind) is Literal]
        # Names beside a text: that of somebody else's value, which is imported.
        return f"{_choices(names[0])}|package.module:NAME" if names else ""
    if typing.get_origin(hint) is Literal:
        return "|".join(map(str, typing.get_args(hint)))
    return "true|false" if hint is bool else ""


def listing(fields: Iterable[Explained], width: int = 100) -> str:
    """Return fields as lines to read: ``PATH=VALUE  (what it takes)``, and below it what it means."""
    lines = []
    for field in fields:
        wanted = f"  ({field.wanted})" if field.wanted else ""
        lines.append(f"{field.path}={field.value}{wanted}")
        meaning = field.meaning.replace("``", "").replace("`", "")
        lines += textwrap.wrap(meaning, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def as_text(value: Any) -> str:
    """Return a value as `replaced` reads it from text."""
    if isinstance(value, tuple):
        return repr(value)
    return "none" if value is None else str(value)


def documentation(kind: type) -> tuple[str, dict[str, str]]:
    """Return a dataclass's text above "Attributes:" and the text of each of its attributes."""
    lines = inspect.cleandoc(kind.__doc__ or "").splitlines()
    start = lines.index("Attributes:") if "Attributes:" in lines else len(lines)
    helps: dict[str, str] = {}
    names: list[str] = []
    for line in lines[start + 1 :]:
        entry = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            helps |= dict.fromkeys(names, entry[2])
        elif names and line.startswith("        "):
            helps |= {name: f"{helps[name]} {line.strip()}" for name in names}
        elif line.strip():
            names = []
    return "\n".join(lines[:start]).strip(), helps


def _split(text: str) -> tuple[str, str]:
    path, equals, given = text.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"{brief(text, 80)}: give FIELD=VALUE")
    return path.strip(), given.strip()


def _is_record(value: Any) -> bool:
    return _has_fields(type(value))


def _changed(value: Any, tree: dict[str, Any]) -> Any:
    """Return a dataclass, NamedTuple or tuple with what a tree of changes names replaced."""
    first = _leaves(tree)[0]
    if not _is_record(value):
        if isinstance(value, tuple):
            return _changed_tuple(value, tree)
        raise UsageError(f"{first.shown}: nothing lies below a {type(value).__name__}")
    kind = type(value)
    names = _names(kind)
    declared = hints(kind)
    after = {}
    for name, change in tree.items():
        if name not in names:
            raise UsageError(
                f"{_leaves({name: change})[0].shown}: {kind.__name__} has no field "
                f"{brief(repr(name), 80)}; {nearest(name, names)}"
            )
        before = getattr(value, name)
        if isinstance(change, _Leaf):
            after[name] = _value(change, declared.get(name, Any), before)
        else:
            after[name] = _changed(before, change)
    try:
        if not hasattr(value, "_fields"):
            return dataclasses.replace(value, **after)
        changed = value._replace(**after)
        check_ranges(changed)  # a NamedTuple cannot check itself
        return changed
    except JaxtrackError as error:
        raise UsageError(f"{_shown(tree)}: {error}") from error
    except (ValueError, TypeError, AssertionError, ArithmeticError) as error:
        raise UsageError(f"{_shown(tree)}: {brief(error) or 'refused'}") from error


def _changed_tuple(value: tuple[Any, ...], tree: dict[str, Any]) -> tuple[Any, ...]:
    items = list(value)
    for name, change in tree.items():
        shown = _shown({name: change})
        if not name.isdecimal() or not name.isascii() or not int(name) < len(items):
            raise UsageError(
                f"{shown}: {brief(name, 40)!r} is no number from 0 to {len(items) - 1}"
            )
        if isinstance(change, _Leaf):
            raise UsageError(f"{shown}: set the whole tuple, or a field of an entry")
        items[int(name)] = _changed(items[int(name)], change)
    return tuple(items)


def _leaves(tree: dict[str, Any]) -> list[_Leaf]:
    found = []
    for change in tree.values():
        found += [change] if isinstance(change, _Leaf) else _leaves(change)
    return found


def _shown(tree: dict[str, Any]) -> str:
    return brief(", ".join(leaf.shown for leaf in _leaves(tree)))


def _value(leaf: _Leaf, hint: Any, before: Any) -> Any:
    try:
        return _read(leaf.given, hint, before) if leaf.textual else _fit(leaf.given, hint)
    except _UnfitError as error:
        raise UsageError(f"{leaf.shown}: {error}") from None


def hints(kind: type) -> dict[str, Any]:
    """Return the type of each field of a class, without its range."""
    try:
        return typing.get_type_hints(kind)
    except Exception:  # a name that only type checkers see: the value's own type stands in
        return {}


def _read(text: str, hint: Any, before: Any) -> Any:
    """Return a value of a type, from text."""
    if (hint is Any or getattr(hint, "_is_protocol", False)) and before is not None:
        hint = type(before)
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _read(text, typing.get_args(hint)[0], before)
    if origin in (typing.Union, types.UnionType):
        return _first(typing.get_args(hint), lambda kind: _read(text, kind, before))
    if origin is tuple or hint is tuple:
        return _fit(_literal(text), hint)
    if hint is str:
        return text
    if hint is pathlib.Path:
        return pathlib.Path(text)
    if hint is bool:
        if text.lower() not in _WORDS:
            raise _UnfitError("true or false is wanted")
        return _WORDS[text.lower()]
    if hint is int:
        if not _INTEGER.fullmatch(text) or abs(int(text)) >= 2**63:
            raise _UnfitError("a whole number (of 64 bits) is wanted")
        return int(text)
    if hint is float:
        if not _DECIMAL.fullmatch(text):
            raise _UnfitError("a number is wanted")
        return _fit(float(text), float)
    if hint is type(None):
        if text.lower() not in _NONE:
            raise _UnfitError("none is wanted")
        return None
    if origin is Literal:
        choices = {str(choice).lower(): choice for choice in typing.get_args(hint)}
        if text.lower() not in choices:
            raise _UnfitError(f"one of its choices is wanted; {nearest(text, choices)}")
        return choices[text.lower()]
    if _has_fields(hint):
        raise _UnfitError(f"holds fields of its own: {', '.join(_names(hint))}; set one of them")
    raise _UnfitError("cannot be set from outside")


def _literal(text: str) -> Any:
    """Return a tuple from text such as ``1,2``, ``(1, 2)``, ``a,b`` or ``((1, 2), (3, 4))``."""
    if len(text) > 10_000:
        raise _UnfitError("too long")
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = tuple(word.strip() for word in text.strip("()[]").split(",") if word.strip())
    return found if isinstance(found, (tuple, list)) else (found,)


def _fit(value: Any, hint: Any) -> Any:
    """Return a Python value as a type has it."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin is typing.Annotated:
        return _fit(value, typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return _first(typing.get_args(hint), lambda kind: _fit(value, kind))
    if origin is tuple:
        return _fit_tuple(value, typing.get_args(hint))
    if origin is Literal:
        for choice in typing.get_args(hint):
            if type(choice) is type(value) and choice == value:
                return choice
        known = ", ".join(map(str, typing.get_args(hint)))
        raise _UnfitError(f"one of {known} is wanted")
    if hint is float:
        if not _is_number(value) or math.isnan(float(value)):
            raise _UnfitError("a number is wanted")
        return float(value)
    if hint is int:
        if not _is_number(value) or int(value) != value or abs(int(value)) >= 2**63:
            raise _UnfitError("a whole number (of 64 bits) is wanted")
        return int(value)
    if hint is type(None):
        if value is not None:
            raise _UnfitError("None is wanted")
        return None
    kind = origin or hint
    if isinstance(kind, type) and not isinstance(value, kind):
        raise _UnfitError(f"a value of type {kind.__name__} is wanted")
    return value


def is_exactly(setting: Any, value: float) -> bool:
    """Return whether a setting is a certain number, and none that is known only when a program runs.

    So a rule that a config switches off leaves no trace in a program, and can still be searched over.
    """
    return isinstance(setting, (int, float)) and setting == value


def _is_number(value: Any) -> bool:
    """Return whether a value is one real number, of Python or of an array library, but no bool."""
    if isinstance(value, (bool, str, bytes)) or value is None:
        return False
    if not isinstance(value, (int, float)) and getattr(value, "shape", None) != ():
        return False
    try:
        return str(getattr(value, "dtype", "")) != "bool" and float(value) == float(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _fit_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise _UnfitError("several values are wanted")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise _UnfitError(f"{len(kinds)} values are wanted")
    return tuple(
        _read(item, kind, None) if isinstance(item, str) and kind is not str else _fit(item, kind)
        for item, kind in zip(value, kinds)
    )


def _first(kinds: Iterable[Any], attempt: Any) -> Any:
    """Return what the first type of a union makes of a value; None is tried before words are."""
    wanted = []
    for kind in sorted(kinds, key=lambda kind: (kind is not type(None), kind is str)):
        try:
            return attempt(kind)
        except _UnfitError as error:
            wanted.append(str(error).removesuffix(" is wanted"))
    raise _UnfitError(f"{' or '.join(wanted)} is wanted")


def _has_fields(hint: Any) -> bool:
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"))


def _names(kind: Any) -> list[str]:
    """Return the fields of a dataclass or NamedTuple."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind) if field.init]
    return list(kind._fields)
