"""Training SiamRPN++: cross-entropy over chosen anchors and L1 on box deltas, spatial-aware sampling.

The presets are in `train.tasks.siamrpn`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxtrack.ranges import Count, NotNegative, Share, Whole, check_order, check_ranges
from jaxtrack.synthetic.world import PatchConfig, WorldConfig, make_pairs
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.anchors import (
    AnchorTargets,
    anchor_grid,
    assign,
    base_anchors,
    choose,
    random_priority,
)
from jaxtrack.trackers.siamrpn.heads import Kernels
from jaxtrack.trackers.siamrpn.losses import (
    anchor_deltas,
    anchor_logits,
    chosen_cross_entropy,
    weighted_l1,
)

from ...augment import refuse_sizes
from ...step import Aux, Batch, Gradient, Task, View, streams
from .crops import CropConfig, apply, draw


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the task; the defaults of labels and losses are PySOT's.

    Attributes:
        tracker: the tracker that is trained.
        template: what happens to the template's patch; its size is the exemplar's.
        search: what happens to the search patch; its ``shift`` is the spatial-aware sampling.
        patch: how the synthetic world cuts its patches; their sides with margin are odd, so that the
            target is on a pixel. ``max_shift`` there is spatial-aware sampling as well: the world
            draws the shifted view, which needs no larger patch.
        world: the synthetic world.
        grey: probability that a pair is grey.
        high: overlap above which an anchor is positive.
        low: overlap below which it is negative.
        positives: at most so many positives per image.
        total: at most ``total - positives`` negatives per image.
        negatives_of_pair: negatives of a negative pair.
        hardness: negatives are drawn in proportion to ``p ** hardness``, where p is the odds that
            the network takes them for the target; 0: uniformly, as published.
        other_pairs: weight of the class loss of each template on the next pair's search image, in
            which the target is nowhere; 0: off, as published.
        class_weight: of the class loss.
        box_weight: of the box loss.
        processes: published gradients are summed over so many processes, ours averaged: the loss is
            multiplied by it (before clipping and weight decay, which do not scale).
        drop_single: see `chosen_cross_entropy`.
        backbone_epoch: epoch from which the backbone trains; its batch normalisation uses running
            statistics before.
        dtype: in which the network computes; parameters stay float32.
    """

    tracker: siamrpn.Config
    template: CropConfig
    search: CropConfig
    patch: PatchConfig
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    grey: Share = 0.0
    high: Share = 0.6
    low: Share = 0.3
    positives: Whole = 16
    total: Whole = 64
    negatives_of_pair: Whole = 16
    hardness: NotNegative = 0.0
    other_pairs: NotNegative = 0.0
    class_weight: NotNegative = 1.0
    box_weight: NotNegative = 1.2
    processes: Count = 1
    drop_single: bool = True
    backbone_epoch: Whole = 0
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)
        refuse_sizes(self.patch, self.tracker.exemplar_size, self.template.size, self.search.size)
        check_order(self, "low", "high")
        check_order(self, "positives", "total")


def init_variables(config: Config, key: Array) -> dict[str, Any]:
    """Return the tracker's own variables."""
    return siamrpn.init_variables(config.tracker, key)


def sample(config: Config, keys: Array) -> Batch:
    """Draw a batch of synthetic pairs; see `train.step`."""
    return dict(make_pairs(config.world, config.patch, keys)._asdict())


def corners(box: Float[Array, "4"]) -> Float[Array, "4"]:
    """Return ``x, y, w, h`` of continuous corners as ``x1, y1, x2, y2`` in indices (0: a pixel's centre)."""
    return jnp.concatenate([box[:2], box[:2] + box[2:]]) - 0.5


def crop_pairs(
    config: Config, batch: Batch, keys: Array
) -> tuple[Float[Array, "n s s 3"], Float[Array, "n r r 3"], Float[Array, "n 4"]]:
    """Return augmented templates and search images (RGB, not clipped), and the boxes in the latter.

    Args:
        config: settings.
        batch: see `train.step`.
        keys: ``(n,)`` JAX random keys, one for each pair.
    """
    key_grey, key_template, key_search = streams(keys, 3)
    grey = jax.vmap(jax.random.uniform)(key_grey) < config.grey

    def cut(crop: CropConfig, keys: Array, patches: Array, boxes: Array) -> tuple[Array, Array]:
        drawn = jax.vmap(lambda k: draw(crop, k))(keys)
        made = jax.vmap(lambda d, g, patch, box: apply(crop.size, d, g, patch, corners(box)))
        return made(drawn, grey, patches, boxes)

    template, _ = cut(config.template, key_template, batch["template"], batch["template_box"])
    search, boxes = cut(config.search, key_search, batch["search"], batch["search_box"])
    return template, search, boxes


def outputs(
    config: Config,
    params: Any,
    batch_stats: Any,
    template: Float[Array, "n s s 3"],
    search: Float[Array, "n r r 3"],
    trains: bool = True,
) -> tuple[tuple[Array, Array], tuple[Kernels, list[Array]], Any]:
    """Apply the network to a training batch.

    Args:
        config: settings.
        params: parameters.
        batch_stats: running statistics.
        template: RGB crops, 0..255.
        search: RGB crops, 0..255.
        trains: the backbone trains; otherwise it rests on its running statistics, without a gradient.

    Returns:
        Class and box outputs; kernels and search features; the moved running statistics.
    """
    net = siamrpn.module(config.tracker)

    def run(stats: Any, *inputs: Any, method: str, train: bool = True) -> tuple[Any, Any]:
        variables = {"params": params, "batch_stats": stats}
        out, moved = net.apply(variables, *inputs, train, method=method, mutable=["batch_stats"])
        return out, {**stats, **moved.get("batch_stats", {})}

    def backbone(stats: Any, images: Array) -> tuple[Any, Any]:
        levels, moved = run(stats, images, method="backbone_levels", train=trains)
        return (levels, moved) if trains else (jax.lax.stop_gradient(levels), stats)

    # The branches are normalised apart, templates first, as published.
    features = []
    for images in (template, search):
        levels, batch_stats = backbone(batch_stats, images[..., ::-1].astype(config.dtype))
        adjusted, batch_stats = run(batch_stats, levels, method="adjust")
        features.append(adjusted)
    kernels, batch_stats = run(batch_stats, features[0], method="kernels")
    maps, batch_stats = run(batch_stats, kernels, features[1], method="predict")
    return maps, (kernels, features[1]), batch_stats


def training_anchors(config: Config) -> Any:
    """Return the anchors in search pixels, ``(a, s, s, 4)`` ``cx, cy, w, h``."""
    tracker = config.tracker
    base = base_anchors(tracker.stride, tracker.ratios, tracker.scales)
    size = siamrpn.map_size(tracker, config.search.size)
    return anchor_grid(base, tracker.stride, size, config.search.size // 2)


def label(
    config: Config,
    logits: Float[Array, "n a s s 2"],
    boxes: Float[Array, "n 4"],
    negative: Array,
    keys: Array,
) -> AnchorTargets:
    """Return the anchor targets of a batch, chosen on the device.

    Args:
        config: settings.
        logits: class logits; they rule the choice where ``hardness`` is not 0.
        boxes: ``x1, y1, x2, y2`` in search pixels.
        negative: ``(n,)`` negative pairs.
        keys: ``(n,)`` JAX random keys, one for each pair.
    """
    anchors = jnp.asarray(training_anchors(config))

    def one(logits: Array, box: Array, negative: Array, key: Array) -> AnchorTargets:
        priority = random_priority(key, (anchors.shape[0], anchors.shape[1], anchors.shape[2]))
        if config.hardness:
            # Gumbel's trick: the smallest of these is a draw in proportion to odds ** hardness.
            odds = jax.lax.stop_gradient(logits[..., 1] - logits[..., 0]).astype(jnp.float32)
            gumbel = -jnp.log(-jnp.log(priority[1] + 1e-12) + 1e-12)
            priority = priority.at[1].set(-(gumbel + config.hardness * odds))
        return assign(
            anchors,
            box,
            negative,
            priority,
            stride=config.tracker.stride,
            search_size=config.search.size,
            high=config.high,
            low=config.low,
            positives=config.positives,
            total=config.total,
            negatives_of_pair=config.negatives_of_pair,
        )

    return jax.vmap(one)(logits, boxes, negative, keys)


@partial(jax.jit, static_argnums=0)
def judge(
    config: Config, cls: Array, loc: Array, boxes: Array, negative: Array, keys: Array
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Class and box loss of the network's outputs, and what is logged.

    Args:
        config: settings.
        cls: ``(n, s, s, 2 a)`` class outputs.
        loc: ``(n, s, s, 4 a)`` box outputs.
        boxes: ``x1, y1, x2, y2`` in search pixels.
        negative: ``(n,)`` negative pairs.
        keys: ``(n,)`` JAX random keys.
    """
    logits = anchor_logits(cls).astype(jnp.float32)
    deltas = anchor_deltas(loc).astype(jnp.float32)
    targets = label(config, logits, boxes, negative, keys)
    class_loss = chosen_cross_entropy(logits, targets.labels, config.drop_single)
    box_loss = weighted_l1(deltas, targets.deltas, targets.weights)
    value = config.class_weight * class_loss + config.box_weight * box_loss
    probability = jax.nn.softmax(logits, axis=-1)[..., 1]
    positive = targets.labels == 1
    metrics = {
        "class_loss": class_loss,
        "box_loss": box_loss,
        "positive_score": jnp.sum(jnp.where(positive, probability, 0))
        / jnp.maximum(jnp.sum(positive), 1),
    }
    return value, metrics


def other_loss(
    config: Config, params: Any, stats: Any, parts: tuple[Kernels, list[Array]], keys: Array
) -> Float[Array, ""]:
    """Return the class loss of each template on the next pair's search image, its hardest cells negatives."""
    kernels, searches = parts
    kernels = jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), kernels)
    variables = {"params": params, "batch_stats": stats}
    (cls, _), _ = siamrpn.module(config.tracker).apply(
        variables, kernels, searches, True, method="predict", mutable=["batch_stats"]
    )
    logits = anchor_logits(cls).astype(jnp.float32)
    odds = jax.lax.stop_gradient(logits[..., 1] - logits[..., 0])
    noise = jax.vmap(lambda k: jax.random.gumbel(k, odds.shape[1:]))(keys)
    everywhere = jnp.ones(odds.shape[1:], bool)
    count = config.total - config.positives
    chosen = jax.vmap(lambda p: choose(everywhere, p, count))(-(odds * config.hardness + noise))
    labels = jnp.where(chosen, 0, -1)
    return 2 * chosen_cross_entropy(logits, labels, drop_single=False)


def loss(
    config: Config, params: Any, batch_stats: Any, batch: Batch, keys: Array
) -> tuple[Float[Array, ""], Aux]:
    """Return class and box loss of a batch; see `train.step`."""
    crops, others = cut(config, batch, keys)
    if not config.backbone_epoch:
        return _loss(config, params, batch_stats, crops, others, True)
    ways = [partial(_loss, config, trains=trains) for trains in (False, True)]
    begun = crops.epoch >= config.backbone_epoch
    return jax.lax.cond(begun, ways[1], ways[0], params, batch_stats, crops, others)


class Crops(NamedTuple):
    """A batch after augmentation.

    Attributes:
        template: RGB crops, 0..255, not clipped.
        search: likewise.
        boxes: ``x1, y1, x2, y2`` in search pixels.
        negative: negative pairs.
        epoch: epochs done.
    """

    template: Float[Array, "n s s 3"]
    search: Float[Array, "n r r 3"]
    boxes: Float[Array, "n 4"]
    negative: Bool[Array, "n"]
    epoch: Float[Array, ""]


def cut(config: Config, batch: Batch, keys: Array) -> tuple[Crops, list[Array]]:
    """Return the augmented batch, and keys of the pairs for labels and for the losses of other pairs."""
    key_crop, *others = streams(keys, 3)
    template, search, boxes = crop_pairs(config, batch, key_crop)
    return Crops(template, search, boxes, batch["negative"], batch["epoch"]), others


def value_and_gradient(
    config: Config, params: Any, batch_stats: Any, batch: Batch, keys: Array
) -> tuple[tuple[Float[Array, ""], Aux], Any]:
    """Return the loss of a batch and its gradient, by epoch: the backbone trains from one on.

    To differentiate that choice would carry all that either way keeps for its gradient, filled with
    zeros where it is the other's.
    """
    crops, others = cut(config, batch, keys)

    def training(params: Any) -> tuple[tuple[Array, Aux], Any]:
        def of(params: Any) -> tuple[Array, Aux]:
            return _loss(config, params, batch_stats, crops, others, True)

        return jax.value_and_grad(of, has_aux=True)(params)

    def waiting(params: Any) -> tuple[tuple[Array, Aux], Any]:
        still = params["backbone"]

        def of(rest: Any) -> tuple[Array, Aux]:
            whole = {**rest, "backbone": still}
            return _loss(config, whole, batch_stats, crops, others, False)

        rest = {name: part for name, part in params.items() if name != "backbone"}
        out, grads = jax.value_and_grad(of, has_aux=True)(rest)
        zeros = {leaf.shape: jnp.zeros_like(leaf) for leaf in jax.tree.leaves(still)}
        return out, {**grads, "backbone": jax.tree.map(lambda leaf: zeros[leaf.shape], still)}

    if not config.backbone_epoch:
        return training(params)
    return jax.lax.cond(crops.epoch >= config.backbone_epoch, training, waiting, params)


def _loss(
    config: Config, params: Any, batch_stats: Any, crops: Crops, keys: list[Array], trains: bool
) -> tuple[Float[Array, ""], Aux]:
    key_label, key_other = keys
    (cls, loc), parts, moved = outputs(
        config, params, batch_stats, crops.template, crops.search, trains
    )
    value, metrics = judge(config, cls, loc, crops.boxes, crops.negative, key_label)
    if config.other_pairs:
        others = other_loss(config, params, batch_stats, parts, key_other)
        value = value + config.other_pairs * others
        metrics["other_loss"] = others
    return config.processes * value, Aux(moved, metrics)


def view(config: Config, batch: Batch, keys: Array) -> View:
    """Return the crops and labels of a batch, without what the network rules; see `train.step.View`.

    A cell is positive where an anchor of it was chosen as positive, negative where one was chosen as
    negative; the other cells do not count.
    """
    key_crop, key_label, _ = streams(keys, 3)
    template, search, boxes = crop_pairs(config, batch, key_crop)
    still = dataclasses.replace(config, hardness=0.0)
    grid = training_anchors(config).shape[:3]
    logits = jnp.zeros((len(boxes), *grid, 2))
    found = label(still, logits, boxes, batch["negative"], key_label).labels
    none = jnp.where(jnp.any(found == 0, axis=1), 0.0, jnp.nan)
    labels = jnp.where(jnp.any(found == 1, axis=1), 1.0, none)
    boxes = jnp.concatenate([boxes[:, :2] + 0.5, boxes[:, 2:] - boxes[:, :2]], axis=1)
    crops = jnp.clip(template, 0, 255), jnp.clip(search, 0, 255)
    return View(*crops, boxes, labels, config.tracker.stride)


def task(config: Config) -> Task:
    """Return the task record."""
    return Task(config, init_variables, sample, loss, view, Gradient(loss, value_and_gradient))
