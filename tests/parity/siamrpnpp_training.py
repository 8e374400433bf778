"""Parity of SiamRPN++'s training parts: anchors, labels, losses, schedule, augmentation."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.ops.patch import context_side
from jaxtrack.ops.response import hann_window
from jaxtrack.trackers.siamrpn import anchors as anchor_ops
from jaxtrack.trackers.siamrpn import losses as losses_siamrpn
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.weights.names import published_targets
from tests.parity import siamrpnpp_config as configs
from tests.parity.case import Case, ParityError, Report, frames
from train import optim
from train.tasks.siamrpn import crops as augmentation
from train.tasks.siamrpn import recipe as recipes


def anchors(case: Case, report: Report) -> None:
    """Anchor grids and the cosine window."""
    known = {"stride", "ratios", "scales", "instance_size", "base_size", "score_size"}
    known |= {"train_center", "stride_out"}
    for i, given in enumerate(case.meta["inputs"]["sets"]):
        configs.only(given, known, "set")
        ratios, scales = tuple(given["ratios"]), tuple(given["scales"])
        config = siamrpn.Config(
            stride=given["stride"],
            ratios=ratios,
            scales=scales,
            instance_size=given["instance_size"],
            base_size=given["base_size"],
        )
        size = siamrpn.map_size(config, config.instance_size)
        if given["score_size"] != size:
            raise ParityError(f"score_size {given['score_size']}, but the map has {size}")
        step = given.get("stride_out", 1)
        base = anchor_ops.base_anchors(config.stride, ratios, scales)
        report.check(f"base.{i}", base)
        grid = siamrpn.tracking_anchors(config, config.instance_size)
        report.check(f"track.{i}", grid.reshape(-1, 4)[::step])
        window = np.tile(hann_window(size).reshape(-1), len(base))
        report.check(f"window.{i}", window[::step])
        train = anchor_ops.anchor_grid(base, config.stride, size, given["train_center"])
        centre = np.moveaxis(train, -1, 0)
        corner = np.concatenate([centre[:2] - centre[2:] / 2, centre[:2] + centre[2:] / 2])
        for name, value in (("train_center", centre), ("train_corner", corner)):
            if f"{name}.{i}" in case.arrays:
                recorded = case.arrays[f"{name}.{i}"]
                # A set that is thinned out may thin these too, flat over their grid.
                if value.shape != recorded.shape:
                    value = value.reshape(4, -1)[:, ::step].reshape(recorded.shape)
                report.check(f"{name}.{i}", value)


def training_anchors(config: dict[str, Any]) -> tuple[np.ndarray, int, int]:
    """Anchors in search pixels, the stride and the search side of a training configuration."""
    configs.check_sections(config)
    anchor, train = config["ANCHOR"], config["TRAIN"]
    base = anchor_ops.base_anchors(
        anchor["STRIDE"], tuple(anchor["RATIOS"]), tuple(anchor["SCALES"])
    )
    side = train.get("SEARCH_SIZE", 255)
    grid = anchor_ops.anchor_grid(base, anchor["STRIDE"], train["OUTPUT_SIZE"], side // 2)
    return grid, anchor["STRIDE"], side


def drawn_priority(
    candidates: anchor_ops.Candidates, counts: tuple[int, int], rng: np.random.RandomState
) -> np.ndarray:
    """The published draws as priorities: one shuffle per kind, only where there are too many."""
    priority = np.zeros((2, *candidates.positive.shape), np.float32)
    for i, (mask, count) in enumerate(zip(candidates, counts)):
        flat = np.flatnonzero(np.asarray(mask))
        order = np.arange(len(flat))
        if len(flat) > count:
            rng.shuffle(order)
        priority[i].reshape(-1)[flat[order]] = np.arange(len(flat))
    return priority


def targets_of(
    config: dict[str, Any], recipe: dict[str, Any]
) -> tuple[anchor_ops.AnchorTargets, anchor_ops.Candidates]:
    """Labels of one box with the published draws."""
    configs.only(recipe, {"corner", "neg", "np_seed", "role"}, "box")
    grid, stride, side = training_anchors(config)
    train = config["TRAIN"]
    limits = {"stride": stride, "search_size": side}
    limits.update(high=train["THR_HIGH"], low=train["THR_LOW"])
    box = jnp.asarray(np.asarray(recipe["corner"], np.float64))
    candidates, _, _ = anchor_ops.match(jnp.asarray(grid), box, recipe["neg"], **limits)
    positives, total = train["POS_NUM"], train["TOTAL_NUM"]
    negatives = train["NEG_NUM"] if recipe["neg"] else total - positives
    rng = np.random.RandomState(recipe["np_seed"])
    priority = drawn_priority(candidates, (positives, negatives), rng)
    targets = anchor_ops.assign(
        jnp.asarray(grid),
        box,
        recipe["neg"],
        jnp.asarray(priority),
        positives=positives,
        total=total,
        negatives_of_pair=train["NEG_NUM"],
        **limits,
    )
    return targets, candidates


def anchor_target(case: Case, report: Report) -> None:
    """Label assignment, box by box."""
    configs.only(case.meta["inputs"], {"boxes", "how", "coordinates"}, "inputs")
    for i, recipe in enumerate(case.meta["inputs"]["boxes"]):
        targets, _ = targets_of(case.config, recipe)
        overlaps = np.asarray(targets.overlaps)
        train = case.config["TRAIN"]
        labels = np.asarray(targets.labels)
        counts = [np.sum(labels == 1), np.sum(labels == 0)]
        counts += [np.sum(overlaps > train["THR_HIGH"]), np.sum(overlaps < train["THR_LOW"])]
        report.check(f"cls.{i}", labels)
        report.check(f"delta.{i}", np.moveaxis(np.asarray(targets.deltas), -1, 0))
        report.check(f"delta_weight.{i}", targets.weights)
        report.check(f"overlap.{i}", overlaps)
        report.check(f"count.{i}", np.asarray(counts))


def nchw(x: Any) -> np.ndarray:
    """NHWC to the packs' NCHW."""
    return np.moveaxis(np.asarray(x), -1, 1)


def losses(case: Case, report: Report) -> None:
    """Both losses with their gradients, and the edge counts of labels."""
    inputs = case.meta["inputs"]
    known = {"boxes", "how", "coordinates", "pred_seed", "cls_std", "loc_std", "pred_how"}
    configs.only(inputs, known, "inputs")
    made = [targets_of(case.config, recipe)[0] for recipe in inputs["boxes"]]
    labels = jnp.stack([target.labels for target in made])
    deltas = jnp.stack([target.deltas for target in made])
    weights = jnp.stack([target.weights for target in made])
    report.check("label_cls", labels)
    report.check("label_loc", np.moveaxis(np.asarray(deltas), -1, 1))
    report.check("label_loc_weight", weights)
    rng = np.random.RandomState(inputs["pred_seed"])
    count, a, size = len(made), labels.shape[1], labels.shape[2]
    cls = (inputs["cls_std"] * rng.randn(count, 2 * a, size, size)).astype(np.float32)
    loc = (inputs["loc_std"] * rng.randn(count, 4 * a, size, size)).astype(np.float32)
    cls, loc = np.moveaxis(cls, 1, -1), np.moveaxis(loc, 1, -1)

    def class_loss(x: Any, labels: Any) -> Any:
        logits = losses_siamrpn.anchor_logits(x)
        return losses_siamrpn.chosen_cross_entropy(logits, labels)

    def box_loss(x: Any) -> Any:
        return losses_siamrpn.weighted_l1(losses_siamrpn.anchor_deltas(x), deltas, weights)

    cls_loss, grad_cls = jax.value_and_grad(class_loss)(jnp.asarray(cls), labels)
    loc_loss, grad_loc = jax.value_and_grad(box_loss)(jnp.asarray(loc))
    train = case.config["TRAIN"]
    log_softmax = jax.nn.log_softmax(losses_siamrpn.anchor_logits(jnp.asarray(cls)), axis=-1)
    report.check("cls_loss", cls_loss)
    report.check("log_softmax.sub", np.asarray(log_softmax)[:, :, ::4, ::4])
    report.check("grad_cls", nchw(grad_cls))
    report.check("loc_loss", loc_loss)
    report.check("grad_loc", nchw(grad_loc))
    total = train["CLS_WEIGHT"] * cls_loss + train["LOC_WEIGHT"] * loc_loss
    report.check("total_loss", total)
    flat = np.asarray(labels).reshape(-1)
    for name in case.arrays:
        found = re.fullmatch(r"cls_loss\.pos(\d+)_neg(\d+)", name)
        if found:
            kept = np.full_like(flat, -1)
            for label, keep in ((1, int(found[1])), (0, int(found[2]))):
                kept[np.flatnonzero(flat == label)[:keep]] = label
            report.check(
                name, class_loss(jnp.asarray(cls), jnp.asarray(kept.reshape(labels.shape)))
            )


def recipe_of(config: dict[str, Any]) -> recipes.Recipe:
    """A PySOT training configuration as our recipe."""
    configs.check_sections(config)
    train, backbone = config["TRAIN"], config["BACKBONE"]
    rates, warm = train["LR"], train.get("LR_WARMUP", {"EPOCH": 0})
    configs.only(rates, {"TYPE", "KWARGS"}, "LR")
    configs.only(warm, {"TYPE", "KWARGS", "EPOCH", "WARMUP"}, "LR_WARMUP")
    configs.only(rates["KWARGS"], {"start_lr", "end_lr"}, "LR.KWARGS")
    warmup = warm["EPOCH"] if warm.get("WARMUP", True) else 0
    if rates["TYPE"] != "log" or (warmup and warm["TYPE"] != "step"):
        raise ParityError("schedules other than log with a step warm-up are not known")
    start = rates["KWARGS"]["start_lr"]
    if warmup:
        configs.only(warm["KWARGS"], {"start_lr", "end_lr", "step"}, "LR_WARMUP.KWARGS")
        if warm["KWARGS"].get("step", 1) != 1 or warm["KWARGS"]["end_lr"] != start:
            raise ParityError("a warm-up that does not lead to the first rate epoch by epoch")
    if train.get("START_EPOCH", 0):
        raise ParityError("START_EPOCH other than 0")
    return recipes.Recipe(
        epochs=train["EPOCH"],
        warmup_epochs=warmup,
        warmup_lr=warm["KWARGS"]["start_lr"] if warmup else start,
        start_lr=start,
        end_lr=rates["KWARGS"]["end_lr"],
        base_lr=train.get("BASE_LR", 0.005),
        backbone_layers=tuple(backbone["TRAIN_LAYERS"]),
        backbone_epoch=backbone["TRAIN_EPOCH"],
        backbone_rate=backbone["LAYERS_LR"],
        momentum=train.get("MOMENTUM", 0.9),
        weight_decay=train.get("WEIGHT_DECAY", 1e-4),
        clip_norm=train.get("GRAD_CLIP", 10.0),
    )


def lr_schedule(case: Case, report: Report) -> None:
    """Rates per epoch and group, what trains when."""
    configs.only(case.meta["inputs"], {"configs", "how"}, "inputs")
    for i, given in enumerate(case.meta["inputs"]["configs"]):
        configs.only(given, {"name", "config"}, "configs")
        _check_schedule(report, given["config"], i)


def _check_schedule(report: Report, config: dict[str, Any], i: int) -> None:
    recipe = recipe_of(config)
    network = configs.network_config(config)
    shapes = jax.eval_shape(
        lambda: siamrpn.init_variables(
            siamrpn.Config(network=network, base_size=config["TRAIN"].get("BASE_SIZE", 8)),
            jax.random.key(0),
        )
    )
    made = recipes.optimizer(recipe)
    epochs = np.arange(recipe.epochs)
    rate = jax.jit(functools.partial(optim.learning_rate, made, epochs=recipe.epochs))
    rates = np.asarray([rate(float(e)) for e in epochs], np.float64)
    report.check(f"lr_spaces.{i}", rates * (recipe.start_lr / recipe.base_lr))
    sizes = {
        path: int(np.prod(leaf.shape))
        for path, leaf in zip(
            jax.tree.leaves(optim.parameter_paths(shapes["params"])),
            jax.tree.leaves(shapes["params"]),
        )
    }
    columns = ["backbone", *(["neck"] if network.neck else []), "rpn_head"]
    factor = {"backbone": recipe.backbone_rate}
    report.check(f"group_lr.{i}", np.stack([rates * factor.get(c, 1) for c in columns], axis=1))
    groups = {path: optim.group_of(made, path) for path in sizes}
    trained = np.zeros((len(epochs), len(columns)), np.int64)
    for path, size in sizes.items():
        column = columns.index(path.split(".")[0])
        if groups[path].rate:
            trained[epochs >= groups[path].from_epoch, column] += size
    report.check(f"group_params.{i}", trained)
    names = set()
    for name, target in published_targets(shapes).items():
        path = ".".join(target.path[1:])
        if target.path[0] == "params" and path.startswith("backbone.") and groups[path].rate:
            names.add(name.removeprefix("backbone."))
    wanted = {str(name) for name in report.case.arrays[f"trainable_names.{i}"]}
    wrong = len(names ^ wanted)
    report.check_true(f"trainable_names.{i}", wrong == 0, wrong, "same set")
    norms = {name.removesuffix(".weight") for name in names if re.search(r"\.weight$", name)}
    stats = {
        name.removeprefix("backbone.").removesuffix(".running_mean")
        for name in published_targets(shapes)
        if name.startswith("backbone.") and name.endswith(".running_mean")
    }
    training = np.where(epochs >= recipe.backbone_epoch, len(norms & stats), 0)
    report.check(f"backbone_bn_training.{i}", training)


def centred_box(image_size: int, size: jax.Array) -> jax.Array:
    """The target's ``x1, y1, x2, y2`` in a stored crop, re-made from its annotated width and height."""
    half = size * (127 / context_side(size[0], size[1])) / 2
    return jnp.concatenate([image_size // 2 - half, image_size // 2 + half])


def augment(case: Case, report: Report) -> None:
    """Augmentation with the published draws, taken in the published order."""
    known = {"image", "shape", "np_seed", "size", "shift", "scale", "blur", "flip", "color", "gray"}
    configs.only(case.meta["inputs"], {"calls", "how"}, "inputs")
    for i, call in enumerate(case.meta["inputs"]["calls"]):
        configs.only(call, known, "call")
        configs.only(call["image"], {"frames", "index", "how"}, "image")
        picture = frames(**call["image"]["frames"])[0][call["image"]["index"]]
        shape = np.asarray(call["shape"], np.float64)
        extent = shape[2:] - shape[:2] if len(shape) == 4 else shape
        box = centred_box(picture.shape[0], jnp.asarray(extent))
        report.check(f"box_in.{i}", box)
        drawn, after = published_draw(call)
        out, out_box = augmentation.apply(
            call["size"], drawn, call["gray"], jnp.asarray(picture), box
        )
        pixels = np.asarray(out)[..., ::-1]
        report.check(f"box_out.{i}", out_box)
        report.check(f"image.{i}.sub", pixels[::4, ::4])
        report.check(f"image.{i}.mean", pixels.astype(np.float64).mean((0, 1)))
        report.check(f"rng_after.{i}", after)


def published_draw(call: dict[str, Any]) -> tuple[augmentation.Draw, float]:
    """NumPy's draws for one call, in the published order, and the draw after them."""
    rng = np.random.RandomState(call["np_seed"])

    def signed() -> float:
        return rng.random_sample() * 2 - 1

    scale, shift, normals = np.ones(2), np.zeros(2), np.zeros(3)
    if call["scale"]:
        scale = np.asarray([1 + signed() * call["scale"] for _ in range(2)])
    if call["shift"]:
        shift = np.asarray([signed() * call["shift"] for _ in range(2)])
    colour = call["color"] > rng.random_sample()
    if colour:
        normals = rng.randn(3, 1)[:, 0]
    blur = call["blur"] > rng.random_sample()
    size, mix = 5, 0.0
    if blur:
        size = int(rng.choice(np.arange(5, 46, 2)))
        mix = rng.random_sample()
    flip = bool(call["flip"]) and call["flip"] > rng.random_sample()
    drawn = augmentation.Draw(
        jnp.asarray(scale),
        jnp.asarray(shift),
        jnp.asarray(colour),
        jnp.asarray(normals),
        jnp.asarray(blur),
        jnp.asarray(size // 2, jnp.int32),
        jnp.asarray(mix),
        jnp.asarray(flip),
    )
    return drawn, rng.random_sample()
