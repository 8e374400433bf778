"""Checks that every metric makes on what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jaxtrack.errors import JaxtrackError, brief

from .annotation import Annotation

_SHOWN = 8


class IncompleteError(JaxtrackError):
    """Results that lack something, or hold what is no number.

    Attributes:
        plain: what is wrong and how to mend it, without the choice to score the results as they are: for
            commands that do not offer it.
    """

    def __init__(self, what: str, correction: str, choice: str) -> None:
        """Say it.

        Args:
            what: what is wrong, and where.
            correction: what mends it.
            choice: what ``--allow-missing`` of `eval.score` does instead.
        """
        super().__init__(f"{what}: {correction}, or {choice} with --allow-missing")
        self.plain = f"{what}: {correction}"


def listing(names: Iterable[str]) -> str:
    """Return the first names of a list as text.

    Args:
        names: any names.

    Returns:
        "a, b, c" or "a, b, ..., (12 in all)".
    """
    names = [brief(n, 60) for n in names]
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def match_names(
    results: Iterable[str],
    ground_truth: Mapping[str, Annotation],
    allow_missing: bool,
    notes: list[str],
) -> list[str]:
    """Return the sequences that can be scored: both sides have them, and their truth is known.

    Sequences whose ground truth is withheld (the given box alone) are never scored: that box is right by
    definition.

    Args:
        results: names with a result.
        ground_truth: sequence -> annotation.
        allow_missing: go on with what both sides have.
        notes: a line is added per kind of mismatch.

    Returns:
        The names, in the order of the ground truth.

    Raises:
        IncompleteError: sequences are missing or unknown and `allow_missing` is False.
        JaxtrackError: none is left. The truth of all of them is withheld.
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
        mending = "complete the results" if missing else "rename or remove them"
        raise IncompleteError("; ".join(found), mending, "score what is there")
    notes.extend(found)
    bare = [n for n in names if ground_truth[n].withheld]
    if len(bare) == len(names):
        raise JaxtrackError(
            "the ground truth is withheld, only first boxes are public: there is no score to compute here; "
            "python -m eval.submit writes the file for the evaluation server"
        )
    if bare:
        notes.append(
            f"left out, no ground truth after the first frame in {len(bare)} of {len(names)} sequences: "
            f"{listing(bare)}"
        )
    return [n for n in names if n not in set(bare)]
