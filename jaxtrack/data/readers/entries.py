"""What a layout's folder holds, found by listing and not read yet: so that one target can be read alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError

_SHOWN = 8


class MissingError(JaxtrackError):
    """Videos that a list names and the folder has not.

    Attributes:
        count: how many.
    """

    def __init__(self, dataset: str, listed_in: str, names: Sequence[str]) -> None:
        """Say which.

        Args:
            dataset: dataset name.
            listed_in: what lists them.
            names: the videos.
        """
        self.count = len(names)
        super().__init__(
            f"{dataset}: {self.count} of the videos of {listed_in} "
            f"{'is' if self.count == 1 else 'are'} not there: {_shown(names)}"
        )


@dataclasses.dataclass(frozen=True)
class Entry:
    """One target of a dataset, or a video whose targets are known only after reading it.

    Attributes:
        name: name of the target (or of the video, whose targets are then called ``NAME/...``).
        read: gives its record (or records); raises ``JaxtrackError`` where its files are broken.
        video: name of the video that it is a part of; "" if that is the name itself.
    """

    name: str
    read: Callable[[], Iterable[VideoRecord]]
    video: str = ""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a layout's listing found.

    Attributes:
        entries: targets in the dataset's order; those of one video follow each other.
        missing: names that the dataset's own list has and the folder has not.
        listed_in: what lists them, for the message.
        problems: what is wrong with the folder itself, one line each.
    """

    entries: Iterable[Entry]
    missing: tuple[str, ...] = ()
    listed_in: str = ""
    problems: tuple[str, ...] = ()


def read_entries(
    dataset: str,
    found: Found,
    names: Collection[str] | None,
    on_problem: Callable[[JaxtrackError], None] | None = None,
) -> Iterator[VideoRecord]:
    """Read the targets that were asked for, and only those.

    Args:
        dataset: dataset name, for messages.
        found: what the layout's listing found.
        names: names of targets or videos to keep, or None for all.
        on_problem: called for each target that cannot be read, which is then left out; None: the first
            one is raised.

    Yields:
        The records, in the dataset's order.

    Raises:
        JaxtrackError: a name that nothing has, or (without ``on_problem``) a target that cannot be read.
    """
    tell = on_problem or _raise
    if names is None:
        for problem in found.problems:
            tell(JaxtrackError(f"{dataset}: {problem}"))
        if found.missing:
            tell(MissingError(dataset, found.listed_in, found.missing))
    wanted = None if names is None else set(names)
    parents = {part for name in wanted or () for part in _prefixes(name)}
    seen: set[str] = set()
    for entry in found.entries:
        if wanted is not None and not ({entry.name, entry.video} & wanted or entry.name in parents):
            continue
        whole = wanted is None or bool({entry.name, entry.video} & wanted)
        seen |= {entry.name, entry.video}
        try:
            for record in entry.read():
                if whole or {record.name, record.video} & (wanted or set()):
                    seen |= {record.name, record.video}
                    yield record
        except JaxtrackError as error:
            tell(error)
    lost = sorted((wanted or set()) - seen)
    if lost:
        raise JaxtrackError(
            f"{dataset}: {len(lost)} of {len(wanted or ())} videos are missing: {_shown(lost)}"
        )


def _raise(error: JaxtrackError) -> None:
    raise error


def _prefixes(name: str) -> Iterator[str]:
    """Return ``a`` and ``a/b`` of ``a/b/c``."""
    parts = name.split("/")
    return ("/".join(parts[:i]) for i in range(1, len(parts)))


def _shown(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
