"""Parity of OSTrack with botaoye/OSTrack: the units; networks and traces lie beside this module."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.ops.boxes import cxcywh_to_xyxy, iou_xyxy, xywh_to_xyxy
from jaxtrack.ops.crop import Window, take_pixels
from jaxtrack.trackers.ostrack import crop as crop_ostrack
from jaxtrack.trackers.ostrack import elimination, losses
from jaxtrack.trackers.ostrack import tracker as ostrack
from jaxtrack.trackers.ostrack.head import CentreMaps
from jaxtrack.trackers.ostrack.names import resize_pos_embed
from tests.parity.case import Case, ParityError, Report
from tests.parity.ostrack_model import COMMON, expect, forward, known, known_model, nchw
from tests.parity.ostrack_trace import clip_images, trace
from tests.parity.ostrack_train import optimise, train
from train import optim
from train.augment import to_grey
from train.tasks import ostrack as task
from train.tasks.ostrack import crops, recipe

NOT_APPLICABLE = {
    "train": {
        "bn:*.num_batches_tracked": "a counter that nothing reads: the momentum is constant",
    },
}
_GREY_LEVEL = {"rtol": 0, "atol": 1}

# As users call them, and without a compilation for each of their operations.
_heatmap = jax.jit(losses.gaussian_heatmap, static_argnums=(1, 2))
_radius = jax.jit(losses.gaussian_radius, static_argnums=1)
_crop = jax.jit(crop_ostrack.crop_ostrack, static_argnums=2)
_padding = jax.jit(crop_ostrack.padding_mask, static_argnums=1)
_to_crop = jax.jit(crop_ostrack.box_to_crop)
_to_image = jax.jit(crop_ostrack.box_to_image)
_clip = jax.jit(crop_ostrack.clip_box)
_jitter = jax.jit(crops.jitter_box)


def draws(source: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays drawn one after the other from one RandomState, float32."""
    known("inputs.random", source, {"seed", "draws"})
    rng = np.random.RandomState(source["seed"])
    values = {}
    for name, method, shape in source["draws"]:
        if method not in ("rand", "randn"):
            raise ParityError(f"unknown draw {method!r}")
        values[name] = getattr(rng, method)(*shape).astype(np.float32)
    return values


def nhwc(x: np.ndarray) -> jax.Array:
    """The packs' NCHW as ours."""
    return jnp.asarray(np.moveaxis(x, 1, -1))


def check_losses(case: Case, report: Report) -> None:
    """Heatmap, focal, giou, l1, total, and their gradients."""
    known("case", case.meta, COMMON)
    fields = {"giou_weight", "l1_weight", "focal_weight", "alpha", "beta", "min_overlap", "stride"}
    known("config", case.config, fields)
    inputs, cfg = case.meta["inputs"], case.config
    known("inputs", inputs, {"random", "n", "heatmap_boxes", "heatmap_search_sizes"})
    values = draws(inputs["random"])
    boxes = jnp.asarray(inputs["heatmap_boxes"], jnp.float32)
    for size in inputs["heatmap_search_sizes"]:
        side = size // cfg["stride"]
        heatmap = _heatmap(boxes, side, cfg["min_overlap"])
        report.check(f"heatmap_{size}", heatmap)
        radius = _radius((boxes * side)[:, 2:], cfg["min_overlap"])
        report.check(f"radius_{size}", radius)
    n = inputs["n"]
    score = jnp.asarray(np.float32(0.0001) + np.float32(0.9998) * values["score"])[:n, 0]
    size_map = nhwc(np.float32(0.0001) + np.float32(0.9998) * values["size"])[:n]
    offset = nhwc(values["offset"])[:n]
    side = inputs["heatmap_search_sizes"][0] // cfg["stride"]
    expect("side of the score draws", score.shape[-1], side)
    target = _heatmap(boxes[:n], side, cfg["min_overlap"])
    focal = jax.jit(functools.partial(losses.heatmap_focal, alpha=cfg["alpha"], beta=cfg["beta"]))
    report.check("focal_each", jax.jit(jax.vmap(focal))(score, target))
    report.check("focal_batch", focal(score, target))
    report.check("d_focal_score", jax.jit(jax.grad(focal))(score, target)[:, None])
    report.check("focal_no_positive", focal(score[:2], jnp.minimum(target[:2], 0.9)))
    _check_boxes(report, values)
    weights = task.LossWeights(cfg["giou_weight"], cfg["l1_weight"], cfg["focal_weight"])

    def total(maps: CentreMaps) -> Any:
        return task.box_losses(weights, maps, boxes[:n])

    maps = CentreMaps(score, size_map, offset)
    (value, parts), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(maps)
    predicted = jax.jit(ostrack.decode_boxes)(score, size_map, offset)
    report.check("actor_pred_boxes", predicted[:, None])
    five = [value, *(parts[name] for name in ("giou", "l1", "focal", "iou"))]
    report.check("actor_losses", np.asarray(five))
    report.check("d_actor_score", np.asarray(grads.score)[:, None])
    report.check("d_actor_size", nchw(grads.size))
    report.check("d_actor_offset", nchw(grads.offset))


def _check_boxes(report: Report, values: dict[str, np.ndarray]) -> None:
    f32 = np.float32
    d, g = values["pred"], values["gt"]
    extent = f32(0.05) + f32(0.6) * d[:, 2:]
    predicted = jnp.asarray(np.concatenate([d[:, :2], extent], axis=1))
    extent = f32(0.05) + f32(0.6) * g[:, 2:]
    truth = jnp.asarray(np.concatenate([f32(1.2) * g[:, :2] - f32(0.2), extent], axis=1))
    target = jnp.clip(xywh_to_xyxy(truth), 0, 1)
    corners = cxcywh_to_xyxy(predicted)
    report.check("pred_cxcywh", predicted)
    report.check("gt_xywh", truth)
    report.check("pred_xyxy", corners)
    report.check("gt_xyxy_clamped", target)
    report.check("giou_each", jax.jit(losses.generalized_iou)(corners, target))
    report.check("iou_each", jax.jit(iou_xyxy)(corners, target))

    @jax.jit
    def giou(boxes: Any) -> Any:
        return losses.giou_loss(cxcywh_to_xyxy(boxes), target)

    @jax.jit
    def l1(boxes: Any) -> Any:
        return losses.l1_loss(cxcywh_to_xyxy(boxes), target)

    report.check("giou_loss", giou(predicted))
    report.check("d_giou_pred", jax.jit(jax.grad(giou))(predicted))
    report.check("l1_loss", l1(predicted))
    report.check("d_l1_pred", jax.jit(jax.grad(l1))(predicted))


def check_decode(case: Case, report: Report) -> None:
    """Boxes from given maps, with and without the window."""
    known("case", case.meta, COMMON)
    known("config", case.config, {"feat_sz"})
    known("inputs", case.meta["inputs"], {"feat_sz", "random"})
    side = case.config["feat_sz"]
    expect("inputs.feat_sz", case.meta["inputs"]["feat_sz"], side)
    values = draws(case.meta["inputs"]["random"])
    score, size, offset = values["score"][:, 0], nhwc(values["size"]), nhwc(values["offset"])
    window = np.asarray(ostrack.hann_window(side))
    report.check("hann1d", np.sqrt(np.diag(window)))
    report.check("hann2d", window[None, None])
    for name, response in (("plain", score), ("hann", score * window)):
        report.check(f"boxes_{name}", ostrack.decode_boxes(jnp.asarray(response), size, offset))
        report.check(f"max_{name}", response.reshape(len(response), -1).max(1)[:, None])
        report.check(f"index_{name}", response.reshape(len(response), -1).argmax(1))


def check_schedule(case: Case, report: Report) -> None:
    """Keep ratio, tokens left and learning rates, epoch by epoch."""
    known("case", case.meta, COMMON)
    known_model(case.meta["model"])
    cfg = case.config
    fields = {"ce_start_epoch", "ce_warm_epoch", "keep_ratio", "epochs", "lr", "search_size"}
    fields |= {"backbone_multiplier", "lr_drop_epoch", "stride"}
    known("config", cfg, fields)
    known("inputs", case.meta["inputs"], set())
    epochs = np.arange(1, cfg["epochs"] + 1)
    report.check("epochs", epochs)
    annealing = recipe.Annealing(cfg["ce_start_epoch"], cfg["ce_warm_epoch"])
    ratios = tuple(cfg["keep_ratio"])
    rates = [recipe.keep_rate(annealing, ratios[0], int(epoch)) for epoch in epochs]
    report.check("keep_rate_f64", np.asarray(rates))
    tokens = (cfg["search_size"] // cfg.get("stride", 16)) ** 2
    report.check("tokens_left", recipe.keep_table(annealing, ratios, tokens, cfg["epochs"]))
    settings = recipe.optimiser(
        cfg["lr"], cfg["backbone_multiplier"], drop_epoch=cfg["lr_drop_epoch"]
    )
    rate = jax.vmap(lambda epoch: optim.learning_rate(settings, epoch, cfg["epochs"]))
    head = np.asarray(rate(jnp.asarray(epochs - 1, jnp.float32)))
    groups = [optim.group_of(settings, name).rate for name in ("box_head.x", "backbone.x")]
    report.check("lr_f64", head[:, None] * np.asarray(groups))


def check_masks(case: Case, report: Report) -> None:
    """Template rows of every range."""
    known("case", case.meta, COMMON)
    known("config", case.config, {"stride"})
    known("inputs", case.meta["inputs"], {"masks"})
    for entry in case.meta["inputs"]["masks"]:
        known("inputs.masks", entry, {"template_size", "range", "boxes"})
        size, name = entry["template_size"], entry["range"]
        config = ostrack.Config(
            template_size=size, patch=case.config["stride"], ce_template_range=name
        )
        boxes = jnp.asarray(entry["boxes"], jnp.float32)
        masks = [ostrack.template_mask(config, box) for box in boxes]
        report.check(f"mask_{name}_{size}", np.stack(masks).astype(np.int8))


def check_eliminate(case: Case, report: Report) -> None:
    """The elimination step alone."""
    known("case", case.meta, COMMON)
    known("config", case.config, set())
    known("inputs", case.meta["inputs"], {"calls"})
    fields = {"seed", "batch", "heads", "lens_t", "lens_s", "channels", "keep_ratio", "mask"}
    for number, call in enumerate(case.meta["inputs"]["calls"]):
        known("inputs.calls", call, fields | {"global_index"})
        rng = np.random.RandomState(call["seed"])
        first, length = call["lens_t"], call["lens_t"] + call["lens_s"]
        logits = rng.randn(call["batch"], call["heads"], length, length).astype(np.float32)
        tokens = rng.randn(call["batch"], length, call["channels"]).astype(np.float32)
        attention = jax.nn.softmax(jnp.asarray(logits), axis=-1)
        mask = None if call["mask"] is None else jnp.asarray(call["mask"], jnp.float32)
        score = elimination.elimination_score(attention[:, :, :first], first, mask)
        (keep,) = elimination.keep_counts((call["keep_ratio"],), call["lens_s"])
        places = jnp.asarray(call["global_index"], jnp.int32)
        order = elimination.order_by_score(score)
        if keep == call["lens_s"]:
            order = jnp.broadcast_to(jnp.arange(keep), order.shape)  # nothing happens, no sorting
        kept = elimination.take_tokens(jnp.asarray(tokens[:, first:]), order[:, :keep])
        report.check(
            f"call{number}_tokens", np.concatenate([tokens[:, :first], np.asarray(kept)], axis=1)
        )
        chained = np.asarray(elimination.take_tokens(places, order))
        for name, ours in (("keep", chained[:, :keep]), ("removed", chained[:, keep:])):
            recorded = case.arrays[f"call{number}_{name}"]
            wrong = sum(len(set(a) ^ set(b)) for a, b in zip(recorded.tolist(), ours.tolist()))
            sound = wrong == 0 and recorded.shape == ours.shape
            report.check_true(f"call{number}_{name}", sound, float(wrong), "as a set")


def check_pos_embed(case: Case, report: Report) -> None:
    """Position embeddings from the pre-training grid."""
    known("case", case.meta, COMMON)
    known("config", case.config, {"patch", "pretraining_grid"})
    inputs = case.meta["inputs"]
    known("inputs", inputs, {"embed_dim", "random", "sizes"})
    table = draws(inputs["random"])["pos_embed"]
    rows, columns = case.config["pretraining_grid"]
    expect("entries of pos_embed", table.shape, (1, 1 + rows * columns, inputs["embed_dim"]))
    for template, search in inputs["sizes"]:
        for name, size in (("z", template), ("x", search)):
            grid = size // case.config["patch"]
            report.check(f"pos_embed_{name}_{size}", resize_pos_embed(table, grid))


def check_processing(case: Case, report: Report) -> None:
    """Crops, transforms, clipping, jitter, augmentation values."""
    known("case", case.meta, COMMON)
    known("config", case.config, {"mean", "std", "opencv"})
    expect("config.mean", tuple(case.config["mean"]), ostrack.MEAN)
    expect("config.std", tuple(case.config["std"]), ostrack.STD)
    inputs = case.meta["inputs"]
    fields = {"frames", "crops", "to_crop", "map_back", "clip", "jitter", "train_crops", "augment"}
    known("inputs", inputs, fields)
    clip = dict(inputs["frames"])
    use = clip.pop("use")
    image = clip_images(case, clip)[0][use]
    frame_size = jnp.asarray(image.shape[:2], jnp.int32)
    for number, entry in enumerate(inputs["crops"]):
        known("inputs.crops", entry, {"box", "factor", "size", "full"})
        _check_crop(report, f"crop{number}", image, entry)
    values = [
        _to_crop(jnp.asarray(box), jnp.asarray(around), jnp.asarray(scale), size)
        for box, around, scale, size in inputs["to_crop"]
    ]
    sizes = np.asarray([entry[3] for entry in inputs["to_crop"]])[:, None]
    report.check("to_crop", np.stack([values, np.stack(values) / sizes], axis=1))
    back = [
        _to_image(jnp.asarray(box), jnp.asarray(state), jnp.asarray(scale), size)
        for state, box, scale, size in inputs["map_back"]
    ]
    report.check("map_back_f64", np.stack(back))
    clipped = [
        _clip(jnp.asarray(box, float), jnp.asarray([height, width]), margin)
        for box, height, width, margin in inputs["clip"]
    ]
    report.check("clip_f64", np.stack(clipped))
    jittered = []
    for entry in inputs["jitter"]:
        known("inputs.jitter", entry, {"box", "center", "scale", "normal", "uniform"})
        box, normal, uniform = (jnp.asarray(entry[k]) for k in ("box", "normal", "uniform"))
        jittered.append(_jitter(box, entry["center"], entry["scale"], normal, uniform))
    report.check("jittered", np.stack(jittered))
    for number, entry in enumerate(inputs["train_crops"]):
        known("inputs.train_crops", entry, {"extract", "gt", "factor", "size"})
        around, box, size = jnp.asarray(entry["extract"]), jnp.asarray(entry["gt"]), entry["size"]
        window = crop_ostrack.window_ostrack(around, entry["factor"])
        crop = _crop(jnp.asarray(image), window, size, frame_size)
        pad = _padding(window, size, frame_size)
        scale = ostrack.scale_of(window, size)
        inside = _to_crop(box, around, scale, size) / size
        report.check(f"train{number}_crop", crop[::2, ::2], tolerance=_GREY_LEVEL)
        report.check(f"train{number}_box", inside)
        report.check(f"train{number}_pad", np.packbits(np.asarray(pad)))
    _check_augment(report, image, inputs["augment"])


def _check_crop(report: Report, name: str, image: np.ndarray, entry: dict[str, Any]) -> None:
    frame_size, size = jnp.asarray(image.shape[:2], jnp.int32), entry["size"]
    window = crop_ostrack.window_ostrack(jnp.asarray(entry["box"], float), entry["factor"])
    crop = np.asarray(_crop(jnp.asarray(image), window, size, frame_size))
    step = 1 if entry["full"] else 2
    report.check(name, crop[::step, ::step], tolerance=_GREY_LEVEL)
    total = crop.sum(axis=(0, 1), dtype=np.int64)
    report.check(f"{name}_sum", total, tolerance={"atol": 0.1 * size * size})
    report.check(f"{name}_factor_f64", ostrack.scale_of(window, size))
    mask = _padding(window, size, frame_size)
    report.check(f"{name}_pad", np.packbits(np.asarray(mask)))
    report.check(f"{name}_side", window.width)
    inside, raw = unresized(image, window)
    report.check(f"{name}_inside", inside)
    report.check(f"{name}_raw_sum", raw.sum(axis=(0, 1), dtype=np.int64))
    if f"{name}_normalised" in report.case.arrays:
        given = report.case.arrays[name] if entry["full"] else crop
        picture = nchw(ostrack.normalise(jnp.asarray(given))[None])
        report.check(f"{name}_normalised", picture[:, :, ::4, ::4])


def unresized(image: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Range of the window that holds pixels (x0, x1, y0, y1), and the padded window itself."""
    top, left, side = int(window.top), int(window.left), int(window.width)
    picture = crop_ostrack.picture_size(jnp.asarray(image.shape[:2], jnp.int32))
    rows, columns = top + jnp.arange(side), left + jnp.arange(side)
    raw = take_pixels(jnp.asarray(image), rows, columns, picture, jnp.zeros(3, jnp.int32))
    height, width = (int(n) for n in picture)
    edges = []
    for first, limit in ((left, width), (top, height)):
        low = min(max(0, -first), side)
        edges += [low, max(min(side, limit - first), low)]
    return np.asarray(edges), np.asarray(raw)


def _check_augment(report: Report, image: np.ndarray, entry: dict[str, Any]) -> None:
    known("inputs.augment", entry, {"box", "norm_box", "brightness"})
    box, inner = jnp.asarray(entry["box"]), jnp.asarray(entry["norm_box"])
    report.check("flip_image_box", crops.flip_box(box, image.shape[1] - 1))
    flipped = image[:, ::-1]
    report.check("flip_image_sum_first_col", flipped[:, 0].sum(axis=0, dtype=np.int64))
    report.check("flip_norm_box", crops.flip_box(inner, 1.0))
    corner = jnp.asarray(image[:16, :16])
    bright = crops.brighten(corner.astype(jnp.float32), jnp.float32(entry["brightness"]))
    report.check("jitter_bright", nchw(ostrack.normalise(bright)[None])[0])
    grey = to_grey(corner.astype(jnp.float32), whole=True)
    report.check("gray", grey, tolerance=_GREY_LEVEL)


KINDS = {
    "forward": forward,
    "train": train,
    "optim": optimise,
    "losses": check_losses,
    "decode": check_decode,
    "schedule": check_schedule,
    "masks": check_masks,
    "eliminate": check_eliminate,
    "pos_embed": check_pos_embed,
    "processing": check_processing,
    "trace": trace,
}
