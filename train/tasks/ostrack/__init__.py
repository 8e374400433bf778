"""Training OSTrack: pairs of crops, a jittered search window, an annealed keep ratio, three losses."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtrack.ops.boxes import cxcywh_to_xyxy, iou_xyxy, xywh_to_xyxy
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.ranges import NotNegative, check_ranges
from jaxtrack.synthetic.realism import LIFELIKE
from jaxtrack.synthetic.world import PatchConfig, WorldConfig, make_pairs
from jaxtrack.trackers.ostrack import losses
from jaxtrack.trackers.ostrack import names as tables_ostrack
from jaxtrack.trackers.ostrack import tracker as ostrack
from jaxtrack.trackers.ostrack.head import CentreMaps
from jaxtrack.weights import is_own, load_into, read_published

from ...augment import AugmentConfig, refuse_patch
from ...optim import OptimConfig, Schedule
from ...presets import Preset
from ...step import Aux, Batch, Task, View, streams
from .crops import CropConfig, cut
from .recipe import Annealing, keep_table, optimiser


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the three losses.

    Attributes:
        giou: of the generalised IoU.
        l1: of the corners' mean absolute difference, in fractions of the crop.
        focal: of the score map's focal loss.
    """

    giou: NotNegative = 2.0
    l1: NotNegative = 5.0
    focal: NotNegative = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the task; the defaults are ``vitb_256_mae_*_ep300`` of botaoye/OSTrack.

    Attributes:
        tracker: the tracker that is trained.
        patch: how the synthetic world cuts its patches.
        world: the synthetic world.
        crop: augmentation of the crops.
        weights: of the losses.
        box_at_target: read the predicted box at the target's cell; False: at the maximum of the
            predicted score map, as published, which teaches size and offset little at first.
        annealing: of the keep ratio.
    """

    tracker: ostrack.Config
    patch: PatchConfig
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    crop: CropConfig = dataclasses.field(default_factory=CropConfig)
    weights: LossWeights = dataclasses.field(default_factory=LossWeights)
    box_at_target: bool = False
    annealing: Annealing = dataclasses.field(default_factory=Annealing)

    def __post_init__(self) -> None:
        """Refuse patches of other sizes than the tracker's, by name."""
        refuse_patch("tracker.template_size", self.tracker.template_size, self.patch, "template")
        refuse_patch("tracker.search_size", self.tracker.search_size, self.patch, "search")


def box_losses(
    weights: LossWeights,
    maps: CentreMaps,
    boxes: Float[Array, "n 4"],
    negative: Bool[Array, "n"] | None = None,
    at_target: bool = False,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return the total loss of a batch, and its parts.

    Args:
        weights: of the parts.
        maps: the head's output.
        boxes: targets, ``x, y, w, h`` as fractions of the search crop.
        negative: pairs without the target: an empty score map is wanted, and no box.
        at_target: see `Config.box_at_target`.

    Returns:
        The total, and ``giou``, ``l1``, ``focal``, ``iou`` (mean over the pairs).

    Reference:
        OSTrack, section 3.4, equation 9. The box is read at the maximum of the predicted score map, so
        that size and offset learn from that one cell only.
    """
    heatmap = losses.gaussian_heatmap(boxes, maps.score.shape[-1])
    where = heatmap if at_target else maps.score
    predicted = cxcywh_to_xyxy(ostrack.decode_boxes(where, maps.size, maps.offset))
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
    """Return the tracker's own variables."""
    return ostrack.init_variables(config.tracker, key)


def sample(config: Config, keys: Array) -> Batch:
    """Draw a batch of synthetic pairs; see `train.step`."""
    return dict(make_pairs(config.world, config.patch, keys)._asdict())


def cut_pairs(
    config: Config, batch: Batch, keys: list[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Cut and augment the crops of a batch.

    Args:
        config: settings.
        batch: see `train.step`.
        keys: three ``(n,)`` keys: of the templates, of the searches, of what a pair shares.

    Returns:
        Templates and their boxes, searches and their boxes (``x, y, w, h`` as fractions of the crop).
    """
    tracker = config.tracker
    key_z, key_x, key_pair = keys
    pixels = jax.vmap(cut, in_axes=(None, None, None, 0, 0, 0, 0, None))
    template = pixels(
        config.crop,
        tracker.template_size,
        tracker.template_factor,
        key_z,
        key_pair,
        batch["template"],
        batch["template_box"],
        False,
    )
    search = pixels(
        config.crop,
        tracker.search_size,
        tracker.search_factor,
        key_x,
        key_pair,
        batch["search"],
        batch["search_box"],
        True,
    )
    return template, search


def kept_tokens(config: Config, epoch: Float[Array, ""]) -> Int[Array, "stages"]:
    """Return how many search tokens each stage of elimination keeps after so many epochs."""
    tracker, epochs = config.tracker, config.annealing.epochs
    tokens = tracker.search_grid**2
    table = keep_table(config.annealing, tracker.ce_keep_ratios, tokens, epochs)
    row = jnp.clip(jnp.floor(epoch).astype(jnp.int32), 0, epochs - 1)
    return jnp.asarray(table)[row]


def loss(
    config: Config, params: Any, batch_stats: Any, batch: Batch, keys: Array
) -> tuple[Float[Array, ""], Aux]:
    """Return the loss of a batch of pairs; see `train.step`.

    Elimination runs in its masked form with counts from a table by epoch, so that the annealing compiles
    once.
    """
    tracker = config.tracker
    *key_crops, key_drop = streams(keys, 4)
    (z, z_box), (x, x_box) = cut_pairs(config, batch, key_crops)
    keep_counts = kept_tokens(config, batch["epoch"]) if tracker.ce_blocks else None
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
        rngs={"drop_path": key_drop[0]},
    )
    value, parts = box_losses(config.weights, maps, x_box, batch["negative"], config.box_at_target)
    if keep_counts is not None:
        parts["kept"] = keep_counts[-1].astype(jnp.float32)
    return value, Aux(moved["batch_stats"], parts)


def view(config: Config, batch: Batch, keys: Array) -> View:
    """Return the crops and the score map that is wanted of a batch; see `train.step.View`."""
    tracker = config.tracker
    (z, _), (x, boxes) = cut_pairs(config, batch, streams(keys, 4)[:3])
    heatmap = losses.gaussian_heatmap(boxes, tracker.search_grid)
    heatmap = jnp.where(batch["negative"][:, None, None], 0, heatmap)
    size = tracker.search_size
    return View(z, x, boxes * size, heatmap, size / tracker.search_grid)


def task(config: Config) -> Task:
    """Return the task record."""
    return Task(config, init_variables, sample, loss, view)


def load(config: Config, path: pathlib.Path, key: Array) -> dict[str, Any]:
    """Return the variables at the start from ``--init-from``: a pre-trained ViT, or a whole tracker.

    Args:
        config: the task.
        path: MAE's or timm's file (the head stays random), or OSTrack's, or ours.
        key: for the head.
    """
    variables = jax.jit(lambda k: init_variables(config, k))(key)
    if not path.is_dir():
        state = read_published(path)
        if not is_own(state) and not any("box_head." in name for name in state):
            params = variables["params"]
            backbone = tables_ostrack.load_pretraining(params["backbone"], state)
            return {**variables, "params": {**params, "backbone": backbone}}
    # A training may start from another size of crop, in which weights must not be used; a line says so.
    return load_into(variables, path, tables_ostrack.TABLES, interpolate=True)


_PAIRS_PER_EPOCH = 60_000


class _Length(NamedTuple):
    """What goes by epochs in a published recipe: its length, the last one at the full rate, the annealing."""

    epochs: int
    drop: int
    annealing: Annealing


def _published(name: str, data: str, size: str, length: _Length, yaml: str) -> Preset:
    """Return a published recipe: 60,000 pairs per epoch in batches of 4 x 32."""
    tracker = ostrack.PRESETS[name]
    jitter = {"256": (3.0, 0.25), "384": (4.5, 0.5)}[size]
    # Room for the jitter: half of centre_jitter / search_factor of a window to every side, and more.
    patch = PatchConfig(
        template=PatchSpec(
            size=tracker.template_size + 16,
            nominal=tracker.template_size,
            factor=tracker.template_factor,
            context=0.0,
        ),
        search=PatchSpec(
            size=2 * tracker.search_size,
            nominal=tracker.search_size,
            factor=tracker.search_factor,
            context=0.0,
        ),
    )
    crop = CropConfig(centre_jitter=jitter[0], scale_jitter=jitter[1])
    config = Config(tracker=tracker, patch=patch, crop=crop, annealing=length.annealing)
    per_epoch = _PAIRS_PER_EPOCH // 128
    return Preset(
        task=task(config),
        tracker=name,
        optim=optimiser(drop_epoch=length.drop),
        batch_size=128,
        steps=per_epoch * length.epochs,
        epochs=length.epochs,
        data_recipe=data,
        source=f"botaoye/OSTrack, experiments/ostrack/{yaml}.yaml",
        save_every=per_epoch,
        init_from="MAE's ViT-B (mae_pretrain_vit_base.pth)",
        load=load,
    )


_FULL = _Length(300, 240, Annealing(20, 80))
_GOT10K = _Length(100, 80, Annealing(20, 50))

_TINY = Config(
    tracker=ostrack.PRESETS["ostrack-tiny"],
    patch=PatchConfig(
        template=PatchSpec(size=72, nominal=64, factor=2.0, context=0.0),
        search=PatchSpec(size=224, nominal=128, factor=4.0, context=0.0),
    ),
    crop=CropConfig(
        centre_jitter=2.4,
        scale_jitter=0.3,
        flip=0.0,
        colours=AugmentConfig(size=128, contrast=0.2, offset=8.0),
    ),
    box_at_target=True,
    annealing=Annealing(40, 40),
)

# For an accelerator: the frame ends within the window more often, as in real video.
_SMALL = dataclasses.replace(
    _TINY,
    tracker=ostrack.PRESETS["ostrack-small"],
    patch=dataclasses.replace(_TINY.patch, border_rate=0.4),
    world=WorldConfig(real=LIFELIKE),
)

PRESETS: dict[str, Preset] = {
    "ostrack-256": _published("ostrack-256", "ostrack", "256", _FULL, "vitb_256_mae_32x4_ep300"),
    "ostrack-256-ce": _published(
        "ostrack-256-ce", "ostrack", "256", _FULL, "vitb_256_mae_ce_32x4_ep300"
    ),
    "ostrack-384": _published("ostrack-384", "ostrack", "384", _FULL, "vitb_384_mae_32x4_ep300"),
    "ostrack-384-ce": _published(
        "ostrack-384-ce", "ostrack", "384", _FULL, "vitb_384_mae_ce_32x4_ep300"
    ),
    "ostrack-256-got10k": _published(
        "ostrack-256-got10k",
        "ostrack_got10k",
        "256",
        _GOT10K,
        "vitb_256_mae_ce_32x4_got10k_ep100",
    ),
    "ostrack-tiny": Preset(
        task=task(_TINY),
        tracker="ostrack-tiny",
        optim=OptimConfig(
            "adamw",
            1.5e-3,
            Schedule("onecycle", rise=0.15),
            betas=(0.9, 0.98),
            weight_decay=0.02,
            no_decay=r"(bias|scale|pos_embed_.)$",
            clip_norm=1.0,
        ),
        batch_size=8,
        steps=5000,
        epochs=100,
        data_recipe="all",
        log_every=20,
        save_every=500,
        source="jaxtrack: the synthetic world",
    ),
    "ostrack-small": Preset(
        task=task(_SMALL),
        tracker="ostrack-small",
        optim=OptimConfig(
            "adamw",
            1e-3,
            Schedule("onecycle", rise=0.1),
            betas=(0.9, 0.98),
            weight_decay=0.05,
            no_decay=r"(bias|scale|pos_embed_.)$",
            clip_norm=1.0,
        ),
        batch_size=128,
        steps=40_000,
        epochs=100,
        data_recipe="all",
        log_every=100,
        save_every=2000,
        source="jaxtrack: the synthetic world, for an accelerator",
        ema=0.999,
    ),
}
