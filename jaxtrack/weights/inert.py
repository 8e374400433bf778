"""Read a pickle as data: nothing is imported, looked up or called.

A pickle is a program for a stack machine. This is such a machine whose instructions only build plain
containers: a global is no more than a name (`Name`), and "calling" a name means looking it up in a
table of our own functions. A name that is not in the table becomes an `Opaque`, an inert mark that
swallows whatever the file puts into it, so that a statistics object beside the weights does not stop
anyone from reading the weights. Names that have no business in a checkpoint at all (``os.system`` and
its kin) are refused wherever they stand.

A pickle may also be small and ask for much: a list that is copied ten thousand times, a number of a million
digits, a name of a megabyte used at every instruction. Every instruction and every copy is paid for from a
`Budget` that the file's size fixes, and names and numbers have a greatest length.
"""

from __future__ import annotations

import dataclasses
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast, runtime_checkable

from jaxtrack.errors import JaxtrackError, brief

# Modules whose only use in a pickle is to run something.
# fmt: off
EXECUTING_MODULES = frozenset((
    "os", "posix", "nt", "subprocess", "sys", "importlib", "runpy", "socket", "shutil",
    "ctypes", "pty", "code", "codeop", "commands", "pickle", "_pickle", "marshal", "webbrowser",
    "pip", "imp", "pdb", "timeit", "operator",
))
# fmt: on
# fmt: off
EXECUTING_BUILTINS = frozenset((
    "eval", "exec", "compile", "open", "getattr", "setattr", "delattr", "__import__", "input",
    "breakpoint", "globals", "vars", "apply", "execfile", "map", "filter",
))
# fmt: on
_MOST_STEPS = 2_000_000  # a published checkpoint takes some ten thousand instructions
_LONGEST_NAME = 1_000
_WIDEST_INTEGER = 256  # bits: generators' states, the widest numbers found beside weights, have 128
_RECONSTRUCTORS = ("copy_reg._reconstructor", "copyreg._reconstructor")
_BUILTIN_MODULES = ("builtins", "__builtin__")


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A global of the file: a name, never the thing that it names."""

    module: str
    name: str

    def __str__(self) -> str:
        """``module.name``."""
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Opaque:
    """Stands where the file holds an object of a class that is not admitted."""

    name: str


@runtime_checkable
class Stream(Protocol):
    """A binary file, or a memory map of one."""

    def read(self, n: int = ..., /) -> bytes:
        """Read bytes."""

    def readline(self) -> bytes:
        """Read a line."""

    def tell(self) -> int:
        """Return the place."""


class _Mark:
    """The pickle machine's mark on the stack."""


_MARK = _Mark()


class Damaged(ValueError):
    """The stream is not a whole, well-formed pickle."""


class Budget:
    """What the pickles of one file may still ask for.

    Args:
        size: of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self.steps = _MOST_STEPS
        # Whatever a call copies stood in the file first, mostly once.
        self.copies = 8 * size + (1 << 20)

    def step(self) -> None:
        """Pay for one instruction.

        Raises:
            ValueError: nothing is left.
        """
        self.steps -= 1
        if self.steps < 0:
            raise ValueError(f"more than {_MOST_STEPS} instructions")

    def copy(self, values: Any) -> None:
        """Pay for what a call may copy: the lengths of its arguments.

        Raises:
            ValueError: nothing is left.
        """
        self.copies -= sum(len(v) for v in values if isinstance(v, _SIZED))
        if self.copies < 0:
            raise ValueError("its parts are copied more often than a file of this size can need")


_SIZED = (str, bytes, bytearray, list, tuple, dict)
Rebuild = Callable[..., Any]


def _refuse_executing(name: Name) -> None:
    top = name.module.split(".", 1)[0]
    builtin = name.module in _BUILTIN_MODULES and name.name in EXECUTING_BUILTINS
    if top in EXECUTING_MODULES or builtin or any(p.startswith("__") for p in name.name.split(".")):
        raise JaxtrackError(
            f"the file asks to run {name}: this is not a checkpoint but a program; nothing of it was run"
        )


def load(
    stream: Stream,
    rebuild: Mapping[str, Rebuild],
    persistent: Callable[[Any], Any],
    budget: Budget,
) -> Any:
    """Read one pickle from a stream and leave the stream just behind it.

    Args:
        stream: binary file-like object with ``read``, ``readline`` and ``tell``.
        rebuild: the admitted names: ``"module.name" -> function(*args)`` of our own.
        persistent: gives the value for a persistent id (PyTorch's storages).
        budget: what the file may still ask for; shared by all pickles of a file.

    Returns:
        Plain Python containers, numbers and strings, what ``rebuild`` and ``persistent`` return,
        `Name` for a bare global and `Opaque` for an object of any other class. Sets come as lists.

    Raises:
        JaxtrackError: the pickle names something that only a program would need.
        Damaged: the stream is truncated, no pickle, or asks for more than its size can need.
    """
    machine = _Machine(rebuild, persistent, budget)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in a damaged string are no news
            for opcode, arg, _ in pickletools.genops(cast(Any, stream)):
                budget.step()
                if opcode.name == "STOP":
                    return machine.pop()
                machine.step(opcode.name, arg)
    except (ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as error:
        raise Damaged(f"broken pickle ({brief(error)})") from error
    raise Damaged("broken pickle (no end)")


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(
        self, rebuild: Mapping[str, Rebuild], persistent: Callable[[Any], Any], budget: Budget
    ) -> None:
        self.rebuild = rebuild
        self.persistent = persistent
        self.budget = budget
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("mark where a value is due")
        return value

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("mark where a value is due")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Return the values above the last mark, which goes too."""
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _MARK:
                values = self.stack[start + 1 :]
                del self.stack[start:]
                return values
        raise ValueError("no mark")

    def drop(self) -> None:
        self.stack.pop()

    def drop_mark(self) -> None:
        self.pop_mark()

    def step(self, name: str, arg: Any) -> None:
        """Carry out one instruction."""
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, arg)
        elif name in _LITERALS:
            if isinstance(arg, int) and arg.bit_length() > _WIDEST_INTEGER:
                raise ValueError(f"a number of {arg.bit_length()} bits")
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name not in _IGNORED:
            raise ValueError(f"instruction {name} has no place in a checkpoint")

    def call(self, function: Any, args: Any) -> None:
        """``function(*args)`` for an admitted name; an inert mark for any other."""
        if not isinstance(args, (tuple, list)):
            raise TypeError("arguments are not a tuple")
        if not isinstance(function, (Name, Opaque)):
            raise TypeError(f"a {type(function).__name__} is called")
        known = self.rebuild.get(str(function)) if isinstance(function, Name) else None
        if known is not None:
            self.budget.copy(args)
            self.stack.append(known(*args))
            return
        name = function.name if isinstance(function, Opaque) else str(function)
        if name in _RECONSTRUCTORS and args and isinstance(args[0], Name):
            name = str(args[0])  # the class meant, not the helper that would make it
        self.stack.append(Opaque(name))

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a global's name is not text")
        if len(module) + len(name) > _LONGEST_NAME:
            raise ValueError(f"a global's name of {len(module) + len(name)} characters")
        found = Name(module, name)
        if str(found) not in self.rebuild:
            _refuse_executing(found)
        self.stack.append(found)

    def put(self, index: int) -> None:
        self.memo[index] = self.top()


def set_items(target: Any, pairs: list[Any]) -> None:
    """Put ``[key, value, key, value, ...]`` into a dict (an inert mark swallows them)."""
    if isinstance(target, Opaque):
        return
    if not isinstance(target, dict) or len(pairs) % 2:
        raise TypeError(f"items for a {type(target).__name__}")
    for key, value in zip(pairs[::2], pairs[1::2]):
        target[key if _is_plain(key) else Opaque(f"key of type {type(key).__name__}")] = value


def _is_plain(key: Any) -> bool:
    """Say whether hashing a key is safe: tuples may be nested at will, wide numbers may all collide."""
    if isinstance(key, int):
        return key.bit_length() < 60
    return key is None or isinstance(key, (str, bytes, float))


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, Opaque):
        return
    if not isinstance(target, list):
        raise TypeError(f"an element for a {type(target).__name__}")
    target.extend(values)


def _build(machine: _Machine, _: Any) -> None:
    state = machine.pop()
    target = machine.top()
    # Attributes of containers (a state_dict's _metadata) and of inert marks do not matter.
    if hasattr(type(target), "set_state"):
        machine.budget.copy(state if isinstance(state, (tuple, list)) else ())
        target.set_state(state)
    elif not isinstance(target, (dict, list, Opaque)):
        raise TypeError(f"a state for a {type(target).__name__}")


def _call_class(machine: _Machine, _: Any) -> None:
    args = machine.pop()
    machine.call(machine.pop(), args)


def _call_class_keywords(machine: _Machine, _: Any) -> None:
    machine.pop()
    _call_class(machine, None)


def _call_above_mark(machine: _Machine, _: Any) -> None:
    function, *args = machine.pop_mark()
    machine.call(function, args)


def _call_named(machine: _Machine, arg: str) -> None:
    args = machine.pop_mark()
    _global(machine, arg)
    machine.call(machine.pop(), args)


def _global(machine: _Machine, arg: str) -> None:
    module, _, name = arg.partition(" ")
    machine.name(module, name)


def _stack_global(machine: _Machine, _: Any) -> None:
    name = machine.pop()
    machine.name(machine.pop(), name)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    _extend(machine.top(), [value])


def _appends(machine: _Machine, _: Any) -> None:
    values = machine.pop_mark()
    _extend(machine.top(), values)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    set_items(machine.top(), [key, value])


def _set_many(machine: _Machine, _: Any) -> None:
    pairs = machine.pop_mark()
    set_items(machine.top(), pairs)


def _dict(machine: _Machine, _: Any) -> None:
    made: dict[Any, Any] = {}
    set_items(made, machine.pop_mark())
    machine.stack.append(made)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def handler(machine: _Machine, _: Any) -> None:
        values = [machine.pop() for _ in range(count)][::-1]
        machine.stack.append(tuple(values))

    return handler


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda m, _: m.stack.append(_MARK),
    "POP": lambda m, _: m.drop(),
    "POP_MARK": lambda m, _: m.drop_mark(),
    "DUP": lambda m, _: m.stack.append(m.top()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_SET": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "FROZENSET": lambda m, _: m.stack.append(m.pop_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_many,
    "GET": lambda m, arg: m.stack.append(m.memo[arg]),
    "BINGET": lambda m, arg: m.stack.append(m.memo[arg]),
    "LONG_BINGET": lambda m, arg: m.stack.append(m.memo[arg]),
    "PUT": lambda m, arg: m.put(arg),
    "BINPUT": lambda m, arg: m.put(arg),
    "LONG_BINPUT": lambda m, arg: m.put(arg),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call_class,
    "NEWOBJ": _call_class,
    "NEWOBJ_EX": _call_class_keywords,
    "OBJ": _call_above_mark,
    "INST": _call_named,
    "BUILD": _build,
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.pop())),
}
# fmt: off
_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
))
# fmt: on
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_IGNORED = frozenset(("PROTO", "FRAME"))
