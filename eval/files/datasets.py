"""Which data set a name on the command line means: its layout, its split, the rules that score it.

Every data set of `jaxtrack.data.layouts` that holds videos can be evaluated, and the synthetic benchmarks.
Where a data set has a test split, this is what a benchmark's name means; training videos are scored only
where ``--split`` asks for them, and then the results are named after that split.
"""

from __future__ import annotations

import dataclasses

from jaxtrack.data import layouts, splits
from jaxtrack.errors import JaxtrackError, UsageError, brief, nearest, unknown

from ..metrics.protocols import Benchmark, get_benchmark

# The fixed benchmarks of `jaxtrack.synthetic.world`; named here, for that module loads JAX.
SYNTHETIC = ("synthetic", "synthetic-hard")
_FOR_TRAINING = ("youtubebb",)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set to be evaluated.

    Attributes:
        benchmark: the rules.
        layout: its name in `jaxtrack.data.layouts`, or one of `SYNTHETIC`.
        split: its split.
        label: what its results are called: the layout, and the split where the layout has several.
    """

    benchmark: Benchmark
    layout: str
    split: str
    label: str

    @property
    def synthetic(self) -> bool:
        """Whether it is drawn and lies in no folder."""
        return self.layout in SYNTHETIC


def check_root(dataset: Dataset, root: object) -> None:
    """Refuse a data set without its folder, and a drawn one with a folder.

    Raises:
        UsageError: one of them.
    """
    if dataset.synthetic and root is not None:
        raise UsageError("--root: the synthetic benchmark has no folder; name a --benchmark")
    if not dataset.synthetic and root is None:
        raise UsageError(f"benchmark {dataset.layout!r} needs --root, the folder of its sequences")


def check_size(dataset: Dataset, count: int, path: object) -> None:
    """Refuse more sequences than a published split has: the score would be that of another one.

    Args:
        dataset: what is scored.
        count: how many sequences the ground truth has.
        path: of the ground truth, for the message.

    Raises:
        JaxtrackError: too many.
    """
    size = splits.size(dataset.layout, dataset.split)
    if size is not None and count > size:
        raise JaxtrackError(
            f"{path}: {count} sequences, but {dataset.label} has {size}: give the ground truth of that "
            "split, or name another --benchmark or --split"
        )


def incomplete(dataset: Dataset, count: int, broken: int = 0) -> tuple[str, ...]:
    """Say that not all of a published split is here, so that no score of a part passes for one of the whole.

    Args:
        dataset: what is evaluated.
        count: how many of its sequences are here and can be used.
        broken: how many problems others have.

    Returns:
        One line; nothing where all of them are here, or nobody has published how many there are.
    """
    size = splits.size(dataset.layout, dataset.split)
    if size is None or count >= size:
        return ()
    known = layouts.DATASETS.get(dataset.layout)
    alone = known is None or len(known.splits) == 1
    if alone:
        name = dataset.layout
    else:
        name = (
            dataset.split if dataset.split == dataset.label else f"{dataset.layout} {dataset.split}"
        )
    whole = " and whole" if broken else ""
    return (f"{count} of the {size} videos of {name} are here{whole}",)


def names() -> tuple[str, ...]:
    """Return the names that `find` knows, one spelling of each."""
    videos = (
        name
        for name, layout in layouts.DATASETS.items()
        if not layout.stills and name not in _FOR_TRAINING
    )
    return *SYNTHETIC, *videos


def find(name: str, split: str | None = None) -> Dataset:
    """Return the data set of a name ("OTB-100" and "otb100" are the same).

    Args:
        name: one of `names`, in any case, with or without hyphens, underscores and blanks; or
            ``package.module:LAYOUT``, whose videos are scored as the user's own ones are.
        split: one of its splits; None: the one that is scored, "test" where there is one.

    Returns:
        The data set.

    Raises:
        UsageError: an unknown name or split; the nearest one is offered.
    """
    plain = "".join(sign for sign in name.lower() if sign.isalnum())
    for drawn in SYNTHETIC:
        if plain == drawn.replace("-", ""):
            if split not in (None, drawn):
                raise UsageError(f"the synthetic benchmark has no split {brief(split)!r}")
            return Dataset(get_benchmark(drawn), drawn, drawn, drawn)
    try:
        layout = layouts.canonical(name)
    except JaxtrackError as error:
        if ":" in name:
            raise UsageError(str(error)) from error
        raise UsageError(str(unknown("benchmark", name, names()))) from error
    known = layouts.layout_of(layout)
    if known.stills or layout in _FOR_TRAINING:
        raise UsageError(f"{layout} is for training, no benchmark; {nearest(layout, names())}")
    scored = layouts.evaluation_split(layout)
    try:
        split = layouts.resolve(layout, split or scored)[1]
    except JaxtrackError as error:
        raise UsageError(str(error)) from error
    if split in layouts.DATASETS:
        return Dataset(get_benchmark(split), layout, split, split)
    # Where training videos lie in the same folder, the split is always named.
    trains = "train" in known.splits and split in ("train", "test", "val")
    named = trains or split != scored
    label = layouts.folder_name(layout)
    rules = get_benchmark("custom" if layouts.is_own(layout) else layout)
    return Dataset(rules, layout, split, f"{label}-{split}" if named else label)
