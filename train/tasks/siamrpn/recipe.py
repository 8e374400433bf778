"""The optimisation recipe of SiamRPN++ as published, and as an optimiser of this project."""

from __future__ import annotations

import dataclasses

from ...optim import Group, OptimConfig, Schedule


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Rates by epoch and what trains when; the defaults are PySOT's 8-GPU ResNet-50 file.

    Attributes:
        epochs: length of the run.
        warmup_epochs: geometric warm-up from ``warmup_lr`` towards ``start_lr``.
        warmup_lr: nominal rate of the first epoch.
        start_lr: nominal rate of the first epoch after the warm-up.
        end_lr: nominal rate of the last epoch; log-spaced in between.
        base_lr: rate of neck and head in the epoch after the warm-up: every nominal rate is multiplied
            by ``base_lr / start_lr`` (which halves AlexNet's).
        backbone_layers: stages of the backbone that train at all; their batch normalisation then uses
            the batch.
        backbone_epoch: epoch from which they train; until then the backbone is frozen.
        backbone_rate: factor on their rate.
        momentum: of SGD.
        weight_decay: on every parameter.
        clip_norm: global gradient norm.

    Reference:
        STVIR/pysot, ``experiments/*/config.yaml``, ``lr_scheduler.py``, ``tools/train.py``; SiamRPN++,
        section 4.1.
    """

    epochs: int = 20
    warmup_epochs: int = 5
    warmup_lr: float = 0.001
    start_lr: float = 0.005
    end_lr: float = 0.0005
    base_lr: float = 0.005
    backbone_layers: tuple[str, ...] = ("layer2", "layer3", "layer4")
    backbone_epoch: int = 10
    backbone_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 10.0


def schedule(recipe: Recipe) -> Schedule:
    """Return the rates as they are set: nominal times ``base_lr / start_lr``."""
    share = recipe.base_lr / recipe.start_lr
    return Schedule(
        kind="geometric",
        final=recipe.end_lr * share,
        per_epoch=True,
        endpoint=True,
        warmup_epochs=recipe.warmup_epochs,
        warmup_start=recipe.warmup_lr * share,
        warmup_kind="geometric",
    )


def optimizer(recipe: Recipe) -> OptimConfig:
    """Return the recipe as an optimiser: frozen stem, backbone from its epoch on, momentum lost there."""
    groups: tuple[Group, ...] = (Group(r"^backbone\.", rate=0.0),)
    if recipe.backbone_layers:
        # A stage's modules are named "layer2.0", "layer2.1", ...
        stages = "|".join(recipe.backbone_layers)
        groups = (
            Group(rf"^backbone\.({stages})\.", recipe.backbone_rate, recipe.backbone_epoch),
            *groups,
        )
    return OptimConfig(
        name="sgd",
        rate=recipe.base_lr,
        schedule=schedule(recipe),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
        groups=groups,
        restart=True,
    )


# PySOT's training files. Rates are for the batches summed over processes, as published (28 x 8 images for
# ResNet-50 on 8 GPUs, 24 x 16 on 16; 128 x 16 for AlexNet).
R50_8GPU = Recipe()
R50_16GPU = Recipe()
R50_OTB_8GPU = Recipe(end_lr=0.0025, backbone_layers=("layer1", "layer2", "layer3", "layer4"))
MOBILE_8GPU = Recipe(backbone_layers=("layer3", "layer4", "layer5", "layer6", "layer7"))
ALEX_16GPU = Recipe(
    epochs=50,
    warmup_lr=0.005,
    start_lr=0.01,
    end_lr=0.0005,
    backbone_layers=("layer4", "layer5"),
    backbone_rate=1.0,
)
