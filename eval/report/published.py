"""Printed scores beside measured ones, where preset, benchmark and split agree, and nothing otherwise."""

from __future__ import annotations

from jaxtrack import zoo

from ..files.datasets import Dataset
from .scores import Outcome


def comparison(outcome: Outcome, dataset: Dataset) -> list[str]:
    """Return what is printed for a preset on a data set, each with its source and the difference to ours.

    Args:
        outcome: one tracker's scores.
        dataset: what it was evaluated on.

    Returns:
        Lines such as "AUC published .578 (source), difference -.003"; none where the tracker is no published
        preset, not all of the benchmark was evaluated, or VOT's by the rules of another toolkit.
    """
    rules = dataset.benchmark
    if rules.kind == "vot" and outcome.score.protocol != rules.protocol:
        return []
    model = zoo.find(outcome.preset) if outcome.preset is not None else None
    lines = []
    for entry in model.scores if model is not None else ():
        if not _same(entry, dataset, outcome.score.sequences):
            continue
        for metric, value in entry.numbers.items():
            ours = outcome.score.metrics.get(metric)
            if ours is None or ours != ours:
                continue
            name = zoo.numbers_text({metric: value}).rpartition(" ")
            gap = ours - value
            difference = f"{'+' if gap >= 0 else '-'}{zoo.fraction(abs(gap))}"
            lines.append(f"{name[0]} published {name[2]} ({entry.source}), difference {difference}")
    return lines


def _same(entry: zoo.Published, dataset: Dataset, sequences: int) -> bool:
    if sequences != entry.sequences:
        return False
    if dataset.layout == entry.layout:
        # OTB's "test" is whatever lies in the folder: here all of the published set.
        return dataset.split in (entry.split, "test")
    return dataset.split == entry.split and dataset.layout == entry.split
