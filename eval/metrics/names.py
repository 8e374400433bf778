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
        "a, b, c" or "a, b, ... (12 in all)".
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

    Sequences of which nothing but the given box is known are never scored: that box is right by definition.

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
    check_scorable({n: ground_truth[n] for n in names})
    bare = [n for n in names if not ground_truth[n].scorable]
    for kind, withheld in (("no ground truth", True), ("no box", False)):
        left = [n for n in bare if ground_truth[n].withheld == withheld]
        if left:
            notes.append(
                f"left out, {kind} after the first frame in {len(left)} of {len(names)} sequences: "
                f"{listing(left)}"
            )
    return [n for n in names if n not in set(bare)]


def all_withheld(ground_truth: Iterable[Annotation]) -> bool:
    """Return whether there is nothing to score because a benchmark keeps its truth to itself."""
    known = list(ground_truth)
    return any(a.withheld for a in known) and not any(a.scorable for a in known)


def check_scorable(ground_truth: Mapping[str, Annotation]) -> None:
    """Refuse ground truth that says nothing beyond the given boxes, which are right by definition.

    Args:
        ground_truth: sequence -> annotation.

    Raises:
        JaxtrackError: no sequence has a box after its first frame; says why.
    """
    if any(a.scorable for a in ground_truth.values()):
        return
    if all_withheld(ground_truth.values()):
        raise JaxtrackError(
            "the ground truth is withheld, only first boxes are public: there is no score to compute here; "
            "python -m eval.submit writes the file for the evaluation server"
        )
    why = "the video has one frame, whose box is given"
    if any(len(a) > 1 for a in ground_truth.values()):
        why = "no frame after the first, whose box is given, has a box"
    raise JaxtrackError(f"nothing to score in {listing(ground_truth)}: {why}")
