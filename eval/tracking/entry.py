"""The trackers that a command is given, parsed once for all commands.

A tracker is named in one of these ways, each with ``=FILE`` behind it for weights that are not its own
(``FILE`` is what `jaxtrack.load_weights` reads, ``FILE::key`` included):

=========================  =========================================================================
``PRESET``                 a preset with the weights that come with it
``NAME:PRESET``            the same as a row of its own name in tables and folders
``package.module:TRACKER`` a `jaxtrack.Tracker` of somebody else, found by import
=========================  =========================================================================

Changes of settings, ``path=value``, hold for all rows, ``ROW:path=value`` for the row of that name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePath

import jax
import numpy as np

from jaxtrack import settings, trackers
from jaxtrack.base import Tracker, Variables
from jaxtrack.errors import JaxtrackError, UsageError, brief
from jaxtrack.loading import variables_of
from jaxtrack.ops import precision

from . import code

_LONGEST_LABEL = 100  # bytes; a label is the name of a folder
# What a label takes over from a path, a key or a value; everything else becomes a hyphen.
_UNSAFE = re.compile(r"[^\w.,=+@-]+")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tracker of a command line.

    Attributes:
        label: name of its row, unique within a command, safe as the name of a folder.
        source: preset, or ``package.module:TRACKER``.
        tracker: the tracker, with the changes in its config.
        weights: file of its weights, as given; None: those that come with it.
        changes: ``path=value`` texts that were applied to its config.
        interpolate: whether weights for another size of crop are brought to this one's.
    """

    label: str
    source: str
    tracker: Tracker
    weights: str | None = None
    changes: tuple[str, ...] = ()
    interpolate: bool = False

    @property
    def preset(self) -> str | None:
        """The preset whose published scores this row may be compared with; None for all others."""
        return None if self.changes or ":" in self.source else self.source

    def load(self) -> Variables:
        """Load the learned values.

        Raises:
            JaxtrackError: as `jaxtrack.load_weights`; the row is named.
        """
        try:
            return variables_of(self.source, self.tracker, self.weights, self.interpolate)
        except JaxtrackError as error:
            how = "" if self.weights else f" ({self.source}=FILE)"
            raise JaxtrackError(f"--tracker {self.label}: {error}{how}") from error

    def fingerprint(self, variables: Variables) -> str:
        """Return what its results depend on, as hexadecimal text of fixed length.

        Args:
            variables: the learned values, of `load`.

        Returns:
            A digest of this library's code and the tracker's, its functions and config, and the learned
            values; the file they came from does not matter.
        """
        return fingerprint(self.tracker, variables)


def fingerprint(tracker: Tracker, variables: Variables) -> str:
    """Return a digest of code, functions, config and learned values of a tracker."""
    digest = hashlib.sha256()

    def add(text: str) -> None:
        digest.update(f"{len(text)}:{text}".encode())

    functions = tracker.init, tracker.track_frame
    add(code.of_functions(*functions, *settings.kinds(tracker.config)))
    for function in functions:
        add(f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}")
    add(repr(tracker.config))
    if precision.current() != "highest":
        add(precision.current())
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        value = np.asarray(leaf)
        add(f"{jax.tree_util.keystr(path)} {value.shape} {value.dtype}")
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def parse_entries(texts: Sequence[str], changes: Sequence[str] = ()) -> tuple[Entry, ...]:
    """Parse the trackers of a command line, with their changes of settings.

    Args:
        texts: one for each tracker, see the top of this page.
        changes: ``path=value`` or ``ROW:path=value``.

    Returns:
        The entries, in the order given.

    Raises:
        UsageError: an unknown preset, a module that is not there, a name that cannot be that of a folder,
            two rows of one name, a field that is unknown or a value that does not fit it.
    """
    named = [_parse(text) for text in texts]
    own: list[list[str]] = [[] for _ in named]
    for change in changes:
        path, equals, _ = change.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {brief(change)}: give PATH=VALUE")
        row, colon, _ = path.rpartition(":")
        if not colon:
            for held in own:
                held.append(change)
            continue
        meant = [i for i, (label, *_) in enumerate(named) if label == row]
        if not meant:
            rows = ", ".join(label for label, *_ in named)
            raise UsageError(f"--set {brief(change)}: no row {brief(row)!r}; rows: {rows}")
        for i in meant:
            own[i].append(change[len(row) + 1 :])
    entries = tuple(
        _entry(text, *parts, tuple(held)) for text, parts, held in zip(texts, named, own)
    )
    labels = [entry.label for entry in entries]
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise UsageError(
                f"two trackers are called {label!r}: name one of them, such as --tracker other:{texts[i]}"
            )
    return entries


def parse_entry(text: str, changes: Sequence[str] = ()) -> Entry:
    """Parse one tracker; as `parse_entries`."""
    return parse_entries([text], changes)[0]


def with_weights(text: str, weights: str | PurePath | None) -> str:
    """Return a tracker as `parse_entry` takes it, where a command has an option for its weights.

    Args:
        text: the tracker, see the top of this page.
        weights: file of its weights; None: what the text says.

    Raises:
        UsageError: both name a file.
    """
    if weights is None:
        return text
    _, equals, file = text.partition("=")
    if equals:
        raise UsageError(
            f"--tracker {brief(text)} and --weights {brief(weights)}: two files of weights, {brief(file)} "
            f"and {brief(weights)}: give one of them"
        )
    return f"{text}={weights}"


def _parse(text: str) -> tuple[str, bool, str, str | None]:
    """Return label without changes, whether it was given by name, source and weights of an entry."""
    left, equals, file = text.partition("=")
    weights = file if equals else None
    parts = left.split(":")
    if not all(parts) or weights == "" or len(parts) > 3:
        raise UsageError(
            f"--tracker {brief(text)!r}: give PRESET, PRESET=FILE, NAME:PRESET=FILE or "
            "package.module:TRACKER=FILE"
        )
    if len(parts) == 3:
        name, source = parts[0], ":".join(parts[1:])
    elif len(parts) == 2 and parts[1] in trackers.names():
        name, source = parts
    else:
        name, source = "", left
    if name:
        _check_name(name, text)
        return name, True, source, weights
    return _label(source, weights), False, source, weights


def _entry(
    text: str,
    label: str,
    given: bool,
    source: str,
    weights: str | None,
    changes: tuple[str, ...],
) -> Entry:
    try:
        tracker = trackers.get(source)
    except JaxtrackError as error:
        raise UsageError(f"--tracker {brief(text)}: {error}") from error
    if changes:
        try:
            config = settings.replaced(tracker.config, changes)
        except JaxtrackError as error:
            raise UsageError(f"--set for {label}: {error}") from error
        tracker = dataclasses.replace(tracker, config=config)
        if not given:
            label = _safe(",".join([label, *changes]))
    return Entry(label, source, tracker, weights, changes)


def _label(source: str, weights: str | None) -> str:
    """Call a row by its preset and, with weights of one's own, by the file or the run's folder."""
    name = source.rpartition(":")[2]
    if weights is None:
        return _safe(name)
    file, _, key = weights.partition("::")
    path = PurePath(file)
    origin = path.parent.name if path.stem == "weights" else path.stem
    return _safe("-".join(part for part in (name, origin, key) if part))


def _safe(label: str) -> str:
    """Return a label as a folder can be called; a long one is cut and told apart by a digest."""
    safe = _UNSAFE.sub("-", label).strip(".-") or "tracker"
    if len(safe.encode()) <= _LONGEST_LABEL:
        return safe
    short = safe.encode()[: _LONGEST_LABEL - 9].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _check_name(name: str, text: str) -> None:
    if len(name.encode(errors="replace")) > _LONGEST_LABEL or not name.isprintable():
        raise UsageError(
            f"--tracker {brief(text)!r}: the name is longer than {_LONGEST_LABEL} bytes or not printable"
        )
    if name.startswith(".") or any(sign in name for sign in "/\\"):
        raise UsageError(
            f"--tracker {brief(text)!r}: the name becomes a folder; it must not hold / or \\ nor begin "
            "with a dot"
        )
