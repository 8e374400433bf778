"""Checks that every metric makes on what it is given."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtrack.errors import JaxtrackError

_SHOWN = 8


def listing(names: Iterable[str]) -> str:
    """Return the first names of a list as text.

    Args:
        names: any names.

    Returns:
        "a, b, c" or "a, b, ..., (12 in all)".
    """
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def match_names(
    results: Iterable[str], ground_truth: Iterable[str], allow_missing: bool, notes: list[str]
) -> list[str]:
    """Return the sequences that both sides have; name those that only one side has.

    Args:
        results: names with a result.
        ground_truth: names with an annotation.
        allow_missing: go on with what both sides have.
        notes: a line is added per kind of mismatch.

    Returns:
        The names, in the order of the ground truth.

    Raises:
        JaxtrackError: sequences are missing or unknown and `allow_missing` is False, or none is left.
    """
    given, wanted = dict.fromkeys(results), dict.fromkeys(ground_truth)
    missing = [n for n in wanted if n not in given]
    unknown = [n for n in given if n not in wanted]
    found = []
    if missing:
        found.append(f"no result for {len(missing)} of {len(wanted)} sequences: {listing(missing)}")
    if unknown:
        found.append(
            f"no ground truth for {len(unknown)} of {len(given)} results: {listing(unknown)}"
        )
    names = [n for n in wanted if n in given]
    if not names:
        raise JaxtrackError(f"no sequence in common: {'; '.join(found) or 'both sides are empty'}")
    if found and not allow_missing:
        raise JaxtrackError(
            f"{'; '.join(found)}: complete the results, or score what is there with --allow-missing"
        )
    notes.extend(found)
    return names
