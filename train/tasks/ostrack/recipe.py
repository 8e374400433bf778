"""OSTrack's published schedule of elimination, and its optimiser."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxtrack.ranges import Whole, check_ranges
from jaxtrack.trackers.ostrack import elimination

from ...optim import Group, OptimConfig, Schedule


@dataclasses.dataclass(frozen=True)
class Annealing:
    """How the keep ratio falls from 1 to the configured one. Epochs count from 1.

    Attributes:
        start_epoch: last epoch that keeps all tokens.
        warm_epochs: length of the cosine between.
    """

    start_epoch: Whole = 20
    warm_epochs: Whole = 80

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)

    @property
    def epochs(self) -> int:
        """Return after how many epochs, one at least, nothing changes any more, however long the run is."""
        return max(1, self.start_epoch + self.warm_epochs)


def keep_rate(annealing: Annealing, ratio: float, epoch: int) -> float:
    """Return the keep ratio of one epoch, the same for every stage.

    Args:
        annealing: the schedule.
        ratio: what it falls to.
        epoch: counted from 1.

    Reference:
        botaoye/OSTrack, ``adjust_keep_rate``; OSTrack, section 4.1.
    """
    done = epoch - annealing.start_epoch
    if done < 0:
        return 1.0
    if done >= annealing.warm_epochs:
        return ratio
    return ratio + (1 - ratio) * (1 + math.cos(math.pi * done / annealing.warm_epochs)) / 2


def keep_table(
    annealing: Annealing, ratios: tuple[float, ...], tokens: int, epochs: int
) -> np.ndarray:
    """Return the search tokens kept by each stage in each epoch, counted in double precision.

    Args:
        annealing: the schedule.
        ratios: configured keep ratios; training uses the first for all stages, as published.
        tokens: search tokens.
        epochs: how many rows; `Annealing.epochs` of them say all.

    Returns:
        ``(epochs, stages)`` int32; row 0 is epoch 1.
    """
    table = np.zeros((epochs, len(ratios)), np.int32)
    for row in range(epochs if ratios else 0):
        rate = keep_rate(annealing, ratios[0], row + 1)
        table[row] = elimination.keep_counts((rate,) * len(ratios), tokens)
    return table


def optimiser(
    learning_rate: float = 4e-4,
    backbone_rate: float = 0.1,
    weight_decay: float = 1e-4,
    clip_norm: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    drop_epoch: int = 240,
) -> OptimConfig:
    """Return AdamW of the published recipe.

    Args:
        learning_rate: of the head.
        backbone_rate: factor on it for everything whose name contains "backbone".
        weight_decay: on all parameters, biases and norms included.
        clip_norm: largest global gradient norm.
        betas: of Adam.
        epsilon: likewise.
        drop_epoch: the last epoch at the full rate; then a tenth.
    """
    return OptimConfig(
        "adamw",
        learning_rate,
        Schedule("step", milestones=(drop_epoch,), factor=0.1, per_epoch=True),
        betas=betas,
        epsilon=epsilon,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        # Left from pre-training, without gradient: neither moved nor decayed.
        groups=(
            Group(r"^backbone\.(cls_token|pos_embed)$", rate=0.0),
            Group("backbone", rate=backbone_rate),
        ),
    )
