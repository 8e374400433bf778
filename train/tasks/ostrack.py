"""Training OSTrack: pairs of crops, a jittered search window, an annealed keep ratio, three losses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxtrack.data.synthetic import PatchConfig, WorldConfig, make_pair
from jaxtrack.losses import ostrack as losses
from jaxtrack.models.centre_head import CentreMaps
from jaxtrack.ops import crop_ostrack, elimination
from jaxtrack.ops.boxes import cxcywh_to_xyxy, iou_xyxy, xywh_to_xyxy
from jaxtrack.trackers import ostrack
from train.augment import AugmentConfig, change_colours, change_detail, sample_window
from train.optim import Group, OptimConfig, Schedule
from train.step import Aux, Batch, Task


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the three losses.

    Attributes:
        giou: of the generalised IoU.
        l1: of the corners' mean absolute difference, in fractions of the crop.
        focal: of the score map's focal loss.
    """

    giou: float = 2.0
    l1: float = 5.0
    focal: float = 1.0


@dataclasses.dataclass(frozen=True)
class Annealing:
    """How the keep ratio falls from 1 to the configured one. Epochs count from 1.

    Attributes:
        start_epoch: last epoch that keeps all tokens.
        warm_epochs: length of the cosine between.
        epochs: length of the run.
    """

    start_epoch: int = 20
    warm_epochs: int = 80
    epochs: int = 300


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the task; the defaults are ``vitb_256_mae_*_ep300`` of botaoye/OSTrack.

    Attributes:
        tracker: the tracker that is trained.
        patch: how the synthetic world cuts its patches.
        world: the synthetic world.
        centre_jitter: the search window's centre moves by up to half of this times the square root of
            the jittered box's area, along each axis.
        scale_jitter: width and height of the box that the window is made around are multiplied by
            ``exp(N(0, 1) scale_jitter)``, each by its own draw.
        pair_flip: probability of mirroring both crops.
        flip: probability of mirroring one crop, drawn for each.
        grey: probability of grey, one draw for both crops.
        brightness: amount of the factor ``U(1 - b, 1 + b)``, drawn for each crop.
        colours: further changes of colour and detail of each crop; None: none, as published.
        weights: of the losses.
        annealing: of the keep ratio.
    """

    tracker: ostrack.Config
    patch: PatchConfig
    world: WorldConfig = WorldConfig()  # noqa: RUF009 (frozen)
    centre_jitter: float = 3.0
    scale_jitter: float = 0.25
    pair_flip: float = 0.5
    flip: float = 0.5
    grey: float = 0.05
    brightness: float = 0.2
    colours: AugmentConfig | None = None
    weights: LossWeights = LossWeights()
    annealing: Annealing = Annealing()


def keep_rate(annealing: Annealing, ratio: float, epoch: int) -> float:
    """The keep ratio of one epoch, the same for every stage.

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


def keep_table(annealing: Annealing, ratios: tuple[float, ...], tokens: int) -> np.ndarray:
    """Search tokens kept by each stage in each epoch, counted in double precision.

    Args:
        annealing: the schedule.
        ratios: configured keep ratios; training uses the first for all stages, as published.
        tokens: search tokens.

    Returns:
        ``(epochs, stages)`` int32; row 0 is epoch 1.
    """
    table = np.zeros((annealing.epochs, len(ratios)), np.int32)
    for row in range(annealing.epochs if ratios else 0):
        rate = keep_rate(annealing, ratios[0], row + 1)
        table[row] = elimination.keep_counts((rate,) * len(ratios), tokens)
    return table


def jitter_box(
    box: Float[Array, "4"],
    centre_factor: float,
    scale_factor: float,
    normal: Float[Array, "2"],
    uniform: Float[Array, "2"],
) -> Float[Array, "4"]:
    """The box that a training crop is made around.

    Args:
        box: ``x, y, w, h`` of the target.
        centre_factor: see `Config.centre_jitter`.
        scale_factor: see `Config.scale_jitter`.
        normal: draws for width and height.
        uniform: draws in [0, 1) for x and y.

    Returns:
        ``x, y, w, h``.

    Reference:
        botaoye/OSTrack, ``_get_jittered_box``.
    """
    size = box[2:] * jnp.exp(normal * scale_factor)
    reach = jnp.sqrt(jnp.prod(size)) * centre_factor
    centre = box[:2] + 0.5 * box[2:] + reach * (uniform - 0.5)
    return jnp.concatenate([centre - 0.5 * size, size])


def flip_box(box: Float[Array, "4"], width: float) -> Float[Array, "4"]:
    """A box ``x, y, w, h`` after mirroring left and right: ``x -> width - x - w``."""
    return jnp.stack([width - box[0] - box[2], box[1], box[2], box[3]])


def to_grey(image: Array) -> Float[Array, "h w 3"]:
    """RGB as grey in three equal channels, by the luma of ITU-R BT.601, rounded to whole levels."""
    luma = image.astype(jnp.float32) @ jnp.asarray([0.299, 0.587, 0.114], jnp.float32)
    return jnp.broadcast_to(jnp.rint(luma)[..., None], image.shape)


def brighten(image: Float[Array, "h w 3"], factor: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Multiply levels 0..255 by a factor and clamp."""
    return jnp.clip(image * factor, 0, 255)


def cut(
    config: Config,
    key: Array,
    pair_key: Array,
    patch: Array,
    box: Float[Array, "4"],
    search: bool,
) -> tuple[Float[Array, "s s 3"], Float[Array, "4"]]:
    """One training crop from a context patch.

    Args:
        config: settings.
        key: for what differs between the crops of a pair.
        pair_key: for what they share.
        patch: uint8 RGB, the target near its middle.
        box: ``x, y, w, h`` in it.
        search: the search crop (jittered) or the template (not).

    Returns:
        Levels 0..255, float32, and the target's box as fractions of the crop.
    """
    tracker = config.tracker
    size = tracker.search_size if search else tracker.template_size
    factor = tracker.search_factor if search else tracker.template_factor
    keys = jax.random.split(key, 5)
    both = jax.random.uniform(jax.random.fold_in(pair_key, 0)) < config.pair_flip
    width = patch.shape[1]
    patch = jnp.where(both, patch[:, ::-1], patch)
    # A mirrored box lies one pixel off, as published (x -> W - 1 - x - w).
    box = jnp.where(both, flip_box(box, width - 1), box)
    around = box
    if search:
        normal = jax.random.normal(keys[0], (2,))
        uniform = jax.random.uniform(keys[1], (2,))
        around = jitter_box(box, config.centre_jitter, config.scale_jitter, normal, uniform)
    side = jnp.maximum(jnp.ceil(jnp.sqrt(around[2] * around[3]) * factor), 1.0)
    start = jnp.rint(around[:2] + 0.5 * around[2:] - 0.5 * side)
    step = jnp.broadcast_to(side / size, (2,))
    own = jax.random.uniform(keys[2]) < config.flip
    crop, _ = sample_window(patch, box, start, step, size, own)
    inside = crop_ostrack.box_to_crop(box, around, size / side, size) / size
    inside = jnp.where(own, flip_box(inside, 1.0), inside)
    if config.grey:
        grey = jax.random.uniform(jax.random.fold_in(pair_key, 1)) < config.grey
        crop = jnp.where(grey, to_grey(crop), crop)
    if config.brightness:
        amount = config.brightness * jax.random.uniform(keys[3], (), minval=-1, maxval=1)
        crop = brighten(crop, 1 + amount)
    if config.colours is not None:
        key_colour, key_detail = jax.random.split(keys[4])
        crop = change_colours(config.colours, key_colour, crop)
        crop = jnp.clip(change_detail(config.colours, key_detail, crop), 0, 255)
    return crop, inside


def box_losses(
    weights: LossWeights,
    maps: CentreMaps,
    boxes: Float[Array, "n 4"],
    negative: Bool[Array, "n"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The total loss of a batch, and its parts.

    Args:
        weights: of the parts.
        maps: the head's output.
        boxes: targets, ``x, y, w, h`` as fractions of the search crop.
        negative: pairs without the target: an empty score map is wanted, and no box.

    Returns:
        The total, and ``giou``, ``l1``, ``focal``, ``iou`` (mean over the pairs).

    Reference:
        OSTrack, section 3.4, equation 9. The box is read at the maximum of the predicted score map, so
        that size and offset learn from that one cell only.
    """
    heatmap = losses.gaussian_heatmap(boxes, maps.score.shape[-1])
    predicted = cxcywh_to_xyxy(ostrack.decode_boxes(maps.score, maps.size, maps.offset))
    target = jnp.clip(xywh_to_xyxy(boxes), 0, 1)
    if negative is not None:
        heatmap = jnp.where(negative[:, None, None], 0, heatmap)
        predicted = jnp.where(negative[:, None], target, predicted)
    parts = {
        "giou": losses.giou_loss(predicted, target),
        "l1": losses.l1_loss(predicted, target),
        "focal": losses.heatmap_focal(maps.score, heatmap),
        "iou": jnp.mean(iou_xyxy(predicted, target)),
    }
    total = weights.giou * parts["giou"] + weights.l1 * parts["l1"] + weights.focal * parts["focal"]
    return total, parts


def init_variables(config: Config, key: Array) -> dict[str, Any]:
    """The tracker's own variables."""
    return ostrack.init_variables(config.tracker, key)


def sample(config: Config, key: Array, batch_size: int) -> Batch:
    """A batch of synthetic pairs; see `train.step`."""
    keys = jax.random.split(key, batch_size)
    # One after the other: on a CPU that is faster than a batch, and an accelerator has little to gain.
    pairs = jax.lax.map(lambda k: make_pair(config.world, config.patch, k), keys)
    return dict(pairs._asdict())


def loss(
    config: Config, params: Any, batch_stats: Any, batch: Batch, key: Array
) -> tuple[Float[Array, ""], Aux]:
    """The loss of a batch of pairs; see `train.step`.

    Elimination runs in its masked form with counts from a table by epoch, so that the annealing compiles
    once.
    """
    tracker = config.tracker
    count = batch["template"].shape[0]
    key_z, key_x, key_pair, key_drop = jax.random.split(key, 4)
    pair_keys = jax.random.split(key_pair, count)
    cut_all = jax.vmap(cut, in_axes=(None, 0, 0, 0, 0, None))
    z, z_box = cut_all(
        config, jax.random.split(key_z, count), pair_keys, batch["template"], batch["template_box"], False
    )  # fmt: skip
    x, x_box = cut_all(
        config, jax.random.split(key_x, count), pair_keys, batch["search"], batch["search_box"], True
    )  # fmt: skip
    keep_counts = None
    if tracker.ce_blocks:
        tokens = tracker.search_grid**2
        table = keep_table(config.annealing, tracker.ce_keep_ratios, tokens)
        row = jnp.clip(jnp.floor(batch["epoch"]).astype(jnp.int32), 0, config.annealing.epochs - 1)
        keep_counts = jnp.asarray(table)[row]
    rows = None
    if tracker.ce_template_range == "GT_BOX":
        rows = jax.vmap(lambda box: ostrack.template_mask(tracker, box))(z_box)
    maps, moved = ostrack.network(tracker).apply(
        {"params": params, "batch_stats": batch_stats},
        ostrack.normalise(z),
        ostrack.normalise(x),
        keep_counts,
        rows,
        True,
        mutable=["batch_stats"],
        rngs={"drop_path": key_drop},
    )
    value, parts = box_losses(config.weights, maps, x_box, batch["negative"])
    if keep_counts is not None:
        parts["kept"] = keep_counts[-1].astype(jnp.float32)
    return value, Aux(moved["batch_stats"], parts)


def task(config: Config) -> Task:
    """The task record."""
    return Task(config, init_variables, sample, loss)


def optimiser(
    learning_rate: float = 4e-4,
    backbone_rate: float = 0.1,
    weight_decay: float = 1e-4,
    clip_norm: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    drop_epoch: int = 240,
) -> OptimConfig:
    """AdamW of the published recipe.

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
