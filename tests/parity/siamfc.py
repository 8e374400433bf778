"""Parity of SiamFC with huanglianghua/siamfc-pytorch and rafellerc/Pytorch-SiamFC."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxtrack.models.alexnet import (
    ALEXNET_V1,
    ALEXNET_V2,
    ALEXNET_V3,
    BASELINE_EMBEDDING,
    AlexNet,
    SiamFC,
)
from jaxtrack.ops import crop, losses
from jaxtrack.ops.boxes import box_about
from jaxtrack.ops.correlation import cross_correlation, cross_correlation_pairs
from jaxtrack.ops.response import hann_window, scale_factors
from jaxtrack.trackers.siamfc import losses as own_losses
from jaxtrack.trackers.siamfc import tracker as siamfc
from jaxtrack.weights.names import NameTable, from_published
from tests.parity.case import Case, ParityError, Report, apply_edits, frames, sequence_frames

ARCHITECTURES = {"AlexNetV1": ALEXNET_V1, "AlexNetV2": ALEXNET_V2, "AlexNetV3": ALEXNET_V3}
# Our stages never make these: nothing that hangs on them is left out.
NOT_APPLICABLE: dict[str, dict[str, str]] = {}
_TABLE = NameTable()


def build(case: Case, recipe: dict[str, Any]) -> Any:
    """Rebuild one input as its recipe asks."""
    make = recipe["make"]
    if make == "randn":
        rng = np.random.RandomState(recipe["seed"])
        values = recipe["scale"] * rng.randn(*recipe["shape"]) + recipe["offset"]
        return values.astype(np.float32)
    if make == "literal":
        return np.asarray(recipe["value"], np.float64)
    if make == "boxes":
        if "seed" not in recipe:
            raise ParityError(f"boxes without a seed: {recipe}")
        add = np.asarray(recipe.get("add", [0, 0, 0, 0]), np.float64)
        return frames(*_frame_arguments(recipe))[1][recipe.get("row", 0)] + add
    if make in ("frames", "sequence"):
        return _images(case, recipe)
    raise ParityError(f"unknown input recipe {make!r}")


def _frame_arguments(recipe: dict[str, Any]) -> tuple[int, int, int, int]:
    return recipe["seed"], recipe["count"], recipe["height"], recipe["width"]


def _images(case: Case, recipe: dict[str, Any]) -> np.ndarray:
    source = recipe.get("source", "frames")
    if recipe["make"] == "sequence" or source not in ("frames", "weights.frames"):
        images = sequence_frames(recipe.get("name", source), case.folder)
    else:
        images = frames(*_frame_arguments(recipe))[0]
    images = apply_edits(images, recipe.get("edits", []))
    if "to" not in recipe:
        return images
    if recipe["to"] != "nchw_float32":
        raise ParityError(f"unknown conversion {recipe['to']!r}")
    values = images.astype(np.float32)
    return values / np.float32(recipe["divide"]) if recipe["divide"] != 1 else values


def inputs(case: Case) -> dict[str, Any]:
    """All inputs of a case; images stay NHWC, as our networks take them."""
    return {name: build(case, recipe) for name, recipe in case.meta["inputs"].items()}


def nchw(x: Any) -> np.ndarray:
    """NHWC to the packs' NCHW."""
    return np.moveaxis(np.asarray(x), -1, 1)


def variables_of(case: Case, config: siamfc.Config, state: dict[str, np.ndarray]) -> Any:
    """Published weights merged into our tree, strictly."""
    template = jax.eval_shape(lambda: siamfc.init_variables(config, jax.random.key(0)))
    return from_published(_TABLE, state, template)


def config_of(case: Case) -> siamfc.Config:
    """Our config from the json's; an unknown field is an error."""
    fields = {
        "out_scale": "out_scale",
        "exemplar_sz": "exemplar_size",
        "instance_sz": "instance_size",
        "context": "context",
        "scale_num": "scale_count",
        "scale_step": "scale_step",
        "scale_lr": "scale_rate",
        "scale_penalty": "scale_penalty",
        "window_influence": "window_influence",
        "response_up": "response_up",
    }
    # Training fields are read by the training cases; size and stride follow from the network.
    known = {"response_sz", "total_stride", "epoch_num", "batch_size", "num_workers", "initial_lr"}
    known |= {"ultimate_lr", "weight_decay", "momentum", "r_pos", "r_neg"}
    published = case.config.get("cfg", {})
    unknown = set(published) - set(fields) - known
    if unknown:
        raise ParityError(f"unknown settings: {sorted(unknown)}")
    name = case.config.get("arch", "AlexNetV1")
    if name not in ARCHITECTURES:
        raise ParityError(f"unknown architecture {name!r}")
    network = ARCHITECTURES[name]
    values = {ours: published[theirs] for theirs, ours in fields.items() if theirs in published}
    config = siamfc.Config(network=network, **values)
    if "out_scale" in case.config:
        config = dataclasses.replace(config, out_scale=case.config["out_scale"])
    if published.get("total_stride", network.stride) != network.stride:
        raise ParityError(f"total_stride {published['total_stride']} is not that of {name}")
    if published.get("response_sz", siamfc.response_size(config)) != siamfc.response_size(config):
        raise ParityError(f"response_sz {published['response_sz']} is not that of {name}")
    return config


def check_maps(report: Report, prefix: str, maps: np.ndarray, step: tuple[int, int] | None) -> None:
    """A map array in whatever forms it was recorded: full, sub-sampled, sums over the plane."""
    arrays = report.case.arrays
    if prefix in arrays:
        report.check(prefix, maps)
    if f"{prefix}_sub" in arrays:
        if step is None:
            raise ParityError(f"{prefix}_sub without its steps")
        report.check(f"{prefix}_sub", maps[..., :: step[0], :: step[1], :: step[1]])
    wide = maps.astype(np.float64)
    if f"{prefix}_sum" in arrays:
        report.check(f"{prefix}_sum", wide.sum((-2, -1)))
    if f"{prefix}_abssum" in arrays:
        report.check(f"{prefix}_abssum", np.abs(wide).sum((-2, -1)))


def hl_forward(case: Case, report: Report) -> None:
    """Every block of both branches, and the response."""
    config, given = config_of(case), inputs(case)
    variables = variables_of(case, config, case.state_dict())
    net = siamfc.module(config)
    last = {}
    for branch in ("z", "x"):
        blocks = jax.jit(lambda images: net.apply(variables, images, method="embed"))(given[branch])
        last[branch] = blocks[-1]
        for i, block in enumerate(blocks[:-1], 1):
            steps = case.config["subsample"].get(f"{branch}_conv{i}")
            check_maps(report, f"{branch}_conv{i}", nchw(block), steps)
        steps = case.config["subsample"].get(f"{branch}_feat")
        check_maps(report, f"{branch}_feat", nchw(blocks[-1]), steps)
    z, x = last["z"], last["x"]
    # Search image n goes with template n mod the number of templates.
    templates = z[np.arange(x.shape[0]) % z.shape[0]]
    raw = cross_correlation_pairs(templates, x)
    report.check("response", np.asarray(net.apply(variables, raw, method="match"))[:, None])
    if case.config.get("also_broadcast"):
        raw = cross_correlation(z[0], x)
        alone = np.asarray(net.apply(variables, raw, method="match"))
        report.check("response_z0", alone[:, None])


def _geometry(window: crop.Window, frame: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """(size, padding, corners) of a window in the pack's terms."""
    top, left, height, width = (np.asarray(v) for v in window)
    corners = np.stack([top, left, top + height, left + width], axis=-1)
    limit = np.array([0, 0, *frame.shape[:2]])
    outside = np.concatenate([-corners[..., :2], corners[..., 2:] - limit[2:]], axis=-1)
    return height, np.maximum(0, outside.max(-1)), corners


def hl_crop(case: Case, report: Report) -> None:
    """Exemplar and search crops of single boxes."""
    config, given = config_of(case), inputs(case)
    image, boxes = given["image"][0], given["boxes"]
    size_of_frame = jnp.asarray(image.shape[:2], jnp.int32)
    mean = np.asarray(crop.mean_colour(jnp.asarray(image), size_of_frame))
    report.check("avg_color", mean)
    report.check("scale_factors", scale_factors(config.scale_count, config.scale_step))
    out: dict[str, list[Any]] = {}
    for box in boxes:
        size = box[3:1:-1].astype(np.float32)
        centre = (box[1::-1] - 1 + (box[3:1:-1] - 1) / 2).astype(np.float32)
        z_side, x_side = siamfc.region_sides(config, jnp.asarray(size))
        z_windows = crop.windows_siamfc(jnp.asarray(centre), z_side[None])
        z_window = jax.tree.map(lambda leaf: leaf[0], z_windows)
        x_windows = crop.windows_siamfc(jnp.asarray(centre), x_side * siamfc.factors(config))
        row = {"center": centre, "target_sz": size, "z_sz": z_side, "x_sz": x_side}
        row["z_size"], row["z_npad"], row["z_corners"] = _geometry(z_window, image)
        row["x_size"], row["x_npad"], row["x_corners"] = _geometry(x_windows, image)
        canvas = (jnp.asarray(mean), size_of_frame)
        frame = jnp.asarray(image)
        row["z_crop"] = crop.cut_siamfc(frame, z_windows, config.exemplar_size, *canvas)[0]
        row["x_crop"] = crop.cut_siamfc(frame, x_windows, config.instance_size, *canvas)
        for key, value in row.items():
            out.setdefault(key, []).append(np.asarray(value))
    stacked = {key: np.stack(values) for key, values in out.items()}
    full = stacked["x_crop"]
    if "x_crop_sub" in case.arrays:
        step = case.config["x_crop_subsample"]
        report.check("x_crop_sub", full[:, :, ::step, ::step])
        report.check("x_crop_sum", full.astype(np.int64).sum((2, 3)))
        del stacked["x_crop"]
    for key, value in stacked.items():
        report.check(key, value)


def hl_crop_interp(case: Case, report: Report) -> None:
    """The crop function with the interpolations of the training transforms.

    Ours cuts the window; linear is our own resize, the others are OpenCV's (host-side transforms).
    """
    codes = {
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
        "nearest": cv2.INTER_NEAREST,
        "lanczos4": cv2.INTER_LANCZOS4,
    }
    image = inputs(case)["image"][0]
    frame_size = jnp.asarray(image.shape[:2], jnp.int32)
    fill = crop.round_half_even(crop.mean_colour(jnp.asarray(image), frame_size))
    for item in case.config["items"]:
        centre = jnp.asarray(np.asarray(item["center"], np.float32))
        window = crop.window_siamfc(centre, jnp.asarray(item["size"], jnp.float64))
        size, pad, corners = _geometry(window, image)
        report.check(f"{item['name']}_geom", np.asarray([size, pad, *corners]))
        out = item["out_size"]
        if item["interp"] == "linear":
            ours = crop.resize_window(jnp.asarray(image), window, (out, out), frame_size, fill)
        elif item["interp"] in codes:
            side = (int(size), int(size))
            patch = crop.resize_window(jnp.asarray(image), window, side, frame_size, fill)
            resized = cv2.resize(np.asarray(patch), (out, out), interpolation=codes[item["interp"]])
            ours = jnp.asarray(resized)
        else:
            raise ParityError(f"unknown interpolation {item['interp']!r}")
        report.check(item["name"], ours)


def hl_track(case: Case, report: Report) -> None:
    """Initialisation and teacher-forced updates, stage by stage."""
    config, given = config_of(case), inputs(case)
    images, box = given["images"], np.array(given["box"], np.float64)
    record = case.config.get("record", {})
    variables = variables_of(case, config, case.state_dict())
    report.check("box_init", box)
    frame_size = jnp.asarray(images.shape[1:3], jnp.int32)
    # The published tracker keeps centre and size in float32.
    box0 = jnp.asarray(box - np.array([1, 1, 0, 0]), jnp.float32)
    state = jax.jit(siamfc.init, static_argnums=0)(
        config, variables, jnp.asarray(images[0]), box0, frame_size
    )
    mean = crop.mean_colour(jnp.asarray(images[0]), frame_size)
    state = state._replace(fill=mean)
    report.check("center0", state.centre)
    report.check("target_sz0", state.size)
    report.check("z_sz0", state.exemplar_side)
    report.check("x_sz0", state.search_side)
    report.check("avg_color", mean)
    report.check("scale_factors", scale_factors(config.scale_count, config.scale_step))
    windows = crop.windows_siamfc(state.centre, state.exemplar_side[None])
    exemplar = crop.cut_siamfc(
        jnp.asarray(images[0]), windows, config.exemplar_size, state.fill, frame_size
    )
    report.check("z_crop", exemplar[0])
    size, pad, corners = _geometry(jax.tree.map(lambda leaf: leaf[0], windows), images[0])
    report.check("z_crop_geom", np.asarray([size, pad, *corners]))
    report.check("kernel", nchw(state.template[None]))
    side = siamfc.response_size(config) * config.response_up
    hann = hann_window(side)
    report.check("hann_window_sub", (hann / hann.sum())[::8, ::8])
    rows = [
        _track_row(case, report, config, variables, state, images[t + 1], t)
        for t in range(len(case.arrays["center_in"]))
    ]
    _check_trace(case, report, rows, record)


def _track_row(
    case: Case,
    report: Report,
    config: siamfc.Config,
    variables: Any,
    state: siamfc.State,
    image: np.ndarray,
    t: int,
) -> dict[str, Any]:
    """One teacher-forced update: everything that the pack records of it."""
    state = state._replace(
        centre=jnp.asarray(report.used("center_in")[t], jnp.float32),
        size=jnp.asarray(report.used("target_sz_in")[t], jnp.float32),
        exemplar_side=jnp.asarray(report.used("z_sz_in")[t], jnp.float64),
        search_side=jnp.asarray(report.used("x_sz_in")[t], jnp.float64),
    )
    frame = jnp.asarray(image)
    look = siamfc.cut(config, state, frame)
    features = _embed(config, variables, state, look)
    responses = siamfc.respond(config, variables, state, features)
    decision = siamfc.decide(config, variables, state, look, responses)
    after = siamfc.update(config, variables, state, frame, decision)
    row: dict[str, Any] = {"response": responses, "decision": decision, "state": after}
    row["crop_size"], row["crop_npad"], row["crop_corners"] = _geometry(look.windows, image)
    row["crops"], row["features"] = np.asarray(look.crops), nchw(features)
    return row


_embed = jax.jit(siamfc.embed, static_argnums=0)


def _check_trace(
    case: Case, report: Report, rows: list[dict[str, Any]], record: dict[str, Any]
) -> None:
    """Compare the rows; the decision rule of the pack's README accepts near ties."""
    arrays = case.arrays
    config = config_of(case)

    def stack(key: str) -> np.ndarray:
        return np.stack([np.asarray(row[key]) for row in rows])

    for key in ("crop_size", "crop_npad", "crop_corners", "response"):
        report.check(key, stack(key))
    crops = stack("crops")
    report.check("x_crop_sub", crops[:, :, ::5, ::5])
    report.check("x_crop_sum", crops.astype(np.int64).sum((2, 3)))
    for name in arrays:
        if name.startswith("x_crop_f"):
            report.check(name, crops[int(name.removeprefix("x_crop_f")) - 1])
    features = stack("features")
    report.check("x_feat_sub", features[:, :, :: record["feat_channel_stride"]])
    report.check("x_feat_sum", features.astype(np.float64).sum((-2, -1)))
    report.check("x_feat_abssum", np.abs(features.astype(np.float64)).sum((-2, -1)))
    up = np.stack([np.asarray(row["decision"].upsampled) for row in rows])
    report.check("up_sub", up[:, :, ::8, ::8])
    report.check("up_max", up.max((2, 3)))
    middle = config.scale_count // 2
    penalty = np.where(np.arange(config.scale_count) == middle, 1, config.scale_penalty)
    penalised = (up.max((2, 3)) * penalty.astype(np.float32)).astype(np.float64)
    report.check("pen_max", penalised)
    ordered = np.sort(penalised, axis=1)
    gap = (ordered[:, -1] - ordered[:, -2]) / np.abs(ordered[:, -1])
    report.check("scale_gap", gap)

    scales = np.array([int(row["decision"].which) for row in rows])
    chosen = np.take_along_axis(penalised, arrays["scale_id"][:, None], 1)[:, 0]
    loss = (penalised.max(1) - chosen) / np.abs(penalised.max(1))
    same_scale = scales == arrays["scale_id"]
    rule = "same or within 2e-5"
    report.check_true(
        "scale_id", bool(np.all(same_scale | (loss <= 2e-5))), float(loss.max()), rule
    )

    mixed = np.stack([np.asarray(row["decision"].response) for row in rows])
    locations = np.stack([np.asarray(row["decision"].peak) for row in rows])
    recorded = arrays["loc"]
    at = mixed[np.arange(len(rows)), recorded[:, 0], recorded[:, 1]]
    spread = mixed.max((1, 2)) - mixed.min((1, 2))
    loss = np.where(same_scale, (mixed.max((1, 2)) - at) / spread, 0)
    same = same_scale & np.all(locations == recorded, axis=1)
    report.check_true("loc", bool(np.all(same | (loss <= 5e-5))), float(loss.max()), "within 5e-5")
    _check_decided(report, rows, mixed, same_scale, same)


def _check_decided(
    report: Report,
    rows: list[dict[str, Any]],
    mixed: np.ndarray,
    same_scale: np.ndarray,
    same: np.ndarray,
) -> None:
    """What follows from the decisions, in the rows where they agree."""
    skipped = int(np.sum(~same))
    note = f"{skipped} rows with an accepted tie skipped" if skipped else ""
    normalised = np.stack([np.asarray(row["decision"].normalised) for row in rows])
    report.check("norm_sub", normalised[:, ::8, ::8], rows=same_scale, note=note)
    report.check("final_sub", mixed[:, ::8, ::8], rows=same_scale, note=note)
    report.check("final_max", mixed.max((1, 2)), rows=same_scale, note=note)
    order = np.sort(mixed.reshape(len(rows), -1), axis=1)[:, :-6:-1]
    report.check("final_top5_value", order, rows=same_scale, note=note)
    indices = report.used("final_top5_index")
    ours = np.argsort(-mixed.reshape(len(rows), -1), axis=1, kind="stable")[:, 0]
    first = np.where(same, ours == indices[:, 0], True)
    report.check_true(
        "final_top5_index",
        bool(first.all()),
        float((~first).sum()),
        "first equal",
        "ranks 2..5 may swap",
    )
    for name in report.case.arrays:
        for prefix, key in (("up_best_f", "upsampled"), ("final_f", "response")):
            if name.startswith(prefix):
                k = int(name.removeprefix(prefix)) - 1
                decision = rows[k]["decision"]
                value = np.asarray(getattr(decision, key))
                if key == "upsampled":
                    scale = int(decision.which)
                    middle = value.shape[0] // 2
                    factor = 1 if scale == middle else config_of(report.case).scale_penalty
                    value = value[scale] * np.float32(factor)
                if same_scale[k]:
                    report.check(name, value)
                else:
                    report.check_true(name, True, 0.0, "skipped", "another scale, an accepted tie")
    states = [row["state"] for row in rows]
    report.check(
        "disp_in_image", np.stack([row["decision"].shift for row in rows]), rows=same, note=note
    )
    report.check("center_out", np.stack([s.centre for s in states]), rows=same, note=note)
    report.check("target_sz_out", np.stack([s.size for s in states]), rows=same, note=note)
    report.check("z_sz_out", np.stack([s.exemplar_side for s in states]), rows=same, note=note)
    report.check("x_sz_out", np.stack([s.search_side for s in states]), rows=same, note=note)
    boxes = np.stack([np.asarray(box_about(s.centre, s.size)) for s in states]) + np.array(
        [1, 1, 0, 0]
    )
    report.check("box_out", boxes, rows=same, note=note)
    report.check(
        "loc", np.stack([np.asarray(row["decision"].peak) for row in rows]), rows=same, note=note
    )


def _hl_label(size: list[int], r_pos: float, r_neg: float, stride: int) -> np.ndarray:
    label = losses.distance_labels((size[2], size[3]), r_pos / stride, r_neg / stride)
    return np.broadcast_to(label, size)


def hl_labels(case: Case, report: Report) -> None:
    """Label maps with and without a neutral ring."""
    for item in case.config["items"]:
        label = _hl_label(item["size"], item["r_pos"], item["r_neg"], item["total_stride"])
        report.check(item["name"], label)


def hl_losses(case: Case, report: Report) -> None:
    """The four losses and their gradients."""
    given, label = inputs(case), case.config["label"]
    target = _hl_label(label["size"], label["r_pos"], label["r_neg"], label["total_stride"])
    report.check("target", target)
    labels = jnp.asarray(target)

    def ghm(momentum: float, warm: Any = None) -> Any:
        state = own_losses.ghm_c_init()
        if warm is not None:
            state = own_losses.ghm_c(jnp.asarray(warm), labels, state, momentum)[1]
        return lambda x: own_losses.ghm_c(x, labels, state, momentum)[0]

    for name in case.config["responses"]:
        x, second = jnp.asarray(given[name]), given.get(f"{name}_second")
        functions = {
            "balanced": (lambda v: losses.balanced_logistic(v, labels), x),
            "balanced_nw05": (lambda v: losses.balanced_logistic(v, labels, 0.5), x),
            "focal": (lambda v: own_losses.focal(v, labels), x),
            "ohnm": (lambda v: own_losses.hard_negative_mining(v, labels), x),
            "ghmc_m0": (ghm(0.0), x),
            "ghmc_call1": (ghm(0.5), x),
        }
        if second is not None:
            functions["ghmc_call2"] = (ghm(0.5, given[name]), jnp.asarray(second))
            state = own_losses.ghm_c(x, labels, own_losses.ghm_c_init(), 0.5)[1]
            state = own_losses.ghm_c(jnp.asarray(second), labels, state, 0.5)[1]
            report.check(f"{name}_ghmc_acc_sum", state.counts)
        for loss_name, (function, at) in functions.items():
            if loss_name in case.config.get("skip", []):
                continue
            value, gradient = jax.value_and_grad(function)(at)
            report.check(f"{name}_{loss_name}_loss", value)
            report.check(f"{name}_{loss_name}_grad", gradient)


def hl_train_step(case: Case, report: Report) -> None:
    """SGD steps in train mode: losses, gradients, parameters, running statistics."""
    config, given, settings = config_of(case), inputs(case), case.config["cfg"]
    if not case.config["loss"].startswith("BalancedLoss neg_weight 1"):
        raise ParityError(f"unknown loss {case.config['loss']!r}")
    variables = variables_of(case, config, case.state_dict())
    params, stats = variables["params"], variables["batch_stats"]
    net = siamfc.module(config)
    rate = settings["initial_lr"]
    optimiser = optax.chain(
        optax.add_decayed_weights(settings["weight_decay"]), optax.sgd(rate, settings["momentum"])
    )
    moments = optimiser.init(params)
    size, batch = case.arrays["response"].shape[-2:], case.config["batch"]
    stride = settings["total_stride"]
    label = losses.distance_labels(size, settings["r_pos"] / stride, settings["r_neg"] / stride)
    report.check("label", label[None, None])
    report.check("lr", [rate])

    def loss(params: Any, stats: Any, z: Any, x: Any) -> Any:
        responses, changed = net.apply(
            {"params": params, "batch_stats": stats}, z, x, True, mutable=["batch_stats"]
        )
        target = jnp.broadcast_to(jnp.asarray(label), responses.shape)
        value = losses.balanced_logistic(responses, target)
        return value, (changed["batch_stats"], responses)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    log: dict[str, list[Any]] = {}
    for i in range(case.config["steps"]):
        part = slice(i * batch, (i + 1) * batch)
        (value, (stats, responses)), grads = step(params, stats, given["z"][part], given["x"][part])
        log.setdefault("loss", []).append(float(value))
        log.setdefault("response", []).append(np.asarray(responses)[:, None])
        _log_leaves(log, "grad", grads, case.config["param_names"])
        updates, moments = optimiser.update(grads, moments, params)
        params = optax.apply_updates(params, updates)
        _log_leaves(log, "param", params, case.config["param_names"])
    report.check("loss", log["loss"])
    report.check("response", log["response"])
    names = case.config["param_names"]
    # A batch norm removes the biases of the convolutions before it: their gradient is rounding noise.
    noise = np.array([n.endswith(".0.bias") and n.replace(".0.", ".1.") in names for n in names])
    for key in ("grad_sum", "grad_abssum"):
        tolerance = report.tolerance(key)
        atol = np.where(noise, np.inf, tolerance["atol"])
        note = "biases before a batch norm have no gradient"
        report.check(key, log[key], tolerance={"rtol": tolerance["rtol"], "atol": atol}, note=note)
    atol = np.asarray(report.tolerance("grad_sample")["atol"])[..., None]
    report.check("grad_sample", log["grad_sample"], tolerance={"rtol": 0, "atol": atol})
    for key in ("param_sum", "param_abssum", "param_sample"):
        report.check(key, log[key])
    flat = flax.traverse_util.flatten_dict(stats, sep=".")
    for name in case.config["buffer_names"]:
        ours = name.replace("running_mean", "mean").replace("running_var", "var")
        report.check(f"buffer:{name}", flat[ours])
    # Two branches a step; ours keeps no counter, the count of forward passes is the figure.
    count = np.full(len(case.arrays["num_batches_tracked"]), 2 * case.config["steps"])
    report.check("num_batches_tracked", count)


def _log_leaves(log: dict[str, list[Any]], prefix: str, tree: Any, names: list[str]) -> None:
    """Sums and 64 samples of every leaf, in the published layout and order."""
    flat = flax.traverse_util.flatten_dict(tree, sep=".")
    sums, absolute, samples = [], [], []
    for name in names:
        stem, kind = name.rsplit(".", 1)
        leaf = next(
            np.asarray(flat[f"{stem}.{ours}"])
            for ours in (("kernel", "scale") if kind == "weight" else ("bias",))
            if f"{stem}.{ours}" in flat
        )
        if leaf.ndim == 4:
            leaf = leaf.transpose(3, 2, 0, 1)
        sums.append(leaf.astype(np.float64).sum())
        absolute.append(np.abs(leaf.astype(np.float64)).sum())
        samples.append(leaf.ravel()[np.linspace(0, leaf.size - 1, 64).astype(int)])
    for key, value in (("sum", sums), ("abssum", absolute), ("sample", samples)):
        log.setdefault(f"{prefix}_{key}", []).append(np.stack(value))


def threshold_labels(
    size: int, positive_threshold: float, negative_threshold: float, upscale_factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights of Pytorch-SiamFC: Euclidean radii in search pixels, a neutral ring.

    Args:
        size: side of the response map.
        positive_threshold: radius of positives, pixels of the search image.
        negative_threshold: radius beyond which cells are negatives.
        upscale_factor: search pixels per map cell.

    Returns:
        ``(size, size)`` float32 labels and weights (1 = counts, 0 = neutral).

    Reference:
        rafellerc/Pytorch-SiamFC, ``create_BCELogit_loss_label``.
    """
    centred = np.arange(size) - (size - 1) / 2
    squared = centred[:, None] ** 2 + centred[None, :] ** 2
    positive = squared <= (positive_threshold / upscale_factor) ** 2
    negative = squared > (negative_threshold / upscale_factor) ** 2
    return positive.astype(np.float32), (positive | negative).astype(np.float32)


def masked_logistic(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"], weights: Float[Array, "*n"]
) -> Float[Array, ""]:
    """The cross-entropy times a mask, mean over ALL elements, neutral ones counted.

    Reference:
        rafellerc/Pytorch-SiamFC, ``BCELogit_Loss``.
    """
    return jnp.mean(weights * losses.binary_cross_entropy(logits, labels))


def _ra_label(label: dict[str, Any]) -> np.ndarray:
    positive, weight = threshold_labels(
        label["label_size"], label["pos_thr"], label["neg_thr"], label["upscale_factor"]
    )
    return np.stack([positive, weight], axis=-1)


def ra_labels(case: Case, report: Report) -> None:
    """Two-channel labels."""
    for item in case.config["items"]:
        report.check(item["name"], _ra_label(item))


def ra_forward(case: Case, report: Report) -> None:
    """Features, raw correlation, match normalisation, upscale."""
    given, size = inputs(case), case.config["corr_map_size"]
    up = (size - 1) * case.config["stride"] + 1
    net = SiamFC(BASELINE_EMBEDDING, "embedding_net", 1.0, match_norm=True)
    template = jax.eval_shape(net.init, jax.random.key(0), given["z"][:1], given["x"][:1])
    variables = from_published(_TABLE, case.state_dict(), template)
    last = {}
    for branch in ("z", "x"):
        backbone = {key: value["embedding_net"] for key, value in variables.items()}
        blocks = jax.jit(AlexNet(BASELINE_EMBEDDING).apply)(backbone, given[branch])
        for index, block in zip((3, 7, 10, 13), blocks):
            name = f"{branch}_seq{index}"
            check_maps(report, name, nchw(block), case.config["subsample"].get(name))
        steps = case.config["subsample"].get(f"{branch}_feat")
        check_maps(report, f"{branch}_feat", nchw(blocks[-1]), steps)
        last[branch] = blocks[-1]
    raw = cross_correlation_pairs(last["z"], last["x"])
    report.check("corr_raw", raw[:, None])
    report.check("match", np.asarray(net.apply(variables, raw, method="match"))[:, None])
    if case.config.get("upscale_too"):
        net = net.clone(upscale_size=up)
        report.check("match_up", np.asarray(net.apply(variables, raw, method="match"))[:, None])


def ra_match(case: Case, report: Report) -> None:
    """The matching head on synthetic embeddings: both modes, loss, gradients, statistics."""
    given = inputs(case)
    z, x = (jnp.asarray(np.moveaxis(given[k], 1, -1)) for k in ("embed_ref", "embed_srch"))
    report.check("corr_raw", cross_correlation_pairs(z, x)[:, None])
    state = case.state_dict()
    params = {
        "match_batchnorm": {
            "scale": jnp.asarray(state["match_batchnorm.weight"]),
            "bias": jnp.asarray(state["match_batchnorm.bias"]),
        }
    }
    stats = {
        "match_batchnorm": {
            "mean": jnp.asarray(state["match_batchnorm.running_mean"]),
            "var": jnp.asarray(state["match_batchnorm.running_var"]),
        }
    }
    for variant in case.config["variants"]:
        up = (variant["corr_map_size"] - 1) * variant["stride"] + 1
        net = SiamFC(
            BASELINE_EMBEDDING, "embedding_net", 1.0, True, up if variant["upscale"] else None
        )
        label = _ra_label(variant["label"])
        for mode in case.config["modes"]:
            _ra_match_mode(report, variant, mode, net, params, stats, z, x, label)


def _ra_match_mode(
    report: Report,
    variant: dict[str, Any],
    mode: str,
    net: SiamFC,
    params: Any,
    stats: Any,
    z: Any,
    x: Any,
    label: np.ndarray,
) -> None:
    name, train = f"{variant['name']}_{mode}", mode == "train"

    def loss(params: Any, z: Any, x: Any) -> Any:
        raw = cross_correlation_pairs(z, x)
        maps, changed = net.apply(
            {"params": params, "batch_stats": stats},
            raw,
            train,
            method="match",
            mutable=["batch_stats"],
        )
        targets = jnp.broadcast_to(jnp.asarray(label), (*maps.shape, 2))
        value = masked_logistic(maps, targets[..., 0], targets[..., 1])
        return value, (maps, changed)

    (value, (maps, changed)), grads = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
        params, z, x
    )
    check_maps(report, name, np.asarray(maps)[:, None], (1, variant.get("stride_store", 1)))
    report.check(f"{name}_loss", value)
    bn = grads[0]["match_batchnorm"]
    report.check(f"{name}_grad_bn_weight", bn["scale"])
    report.check(f"{name}_grad_bn_bias", bn["bias"])
    report.check(f"{name}_grad_embed_ref_sub", nchw(grads[1])[:, ::8])
    report.check(f"{name}_grad_embed_srch_sub", nchw(grads[2])[:, ::8, ::4, ::4])
    if train:
        after = changed["batch_stats"]["match_batchnorm"]
        report.check(f"{name}_running_mean", after["mean"])
        report.check(f"{name}_running_var", after["var"])
        report.check(f"{name}_num_batches_tracked", 1)


def ra_loss(case: Case, report: Report) -> None:
    """The masked loss and its gradient."""
    given = inputs(case)
    for item in case.config["items"]:
        scores = jnp.asarray(given[item["scores"]])[:, 0]
        labels = np.stack([_ra_label(item["labels"][i]) for i in item["label_of_sample"]])
        name = item["name"]
        recorded = case.arrays[f"{name}_labels"]
        step = 1 if recorded.shape == labels.shape else 4
        report.check(f"{name}_labels", labels[:, ::step, ::step])

        def loss(v: Any, labels: np.ndarray = labels) -> Any:
            return masked_logistic(v, jnp.asarray(labels[..., 0]), jnp.asarray(labels[..., 1]))

        value, gradient = jax.value_and_grad(loss)(scores)
        report.check(f"{name}_loss", value)
        check_maps(
            report, f"{name}_grad", np.asarray(gradient)[:, None], (1, item.get("stride_store", 1))
        )


KINDS = {
    "hl_forward": hl_forward,
    "hl_crop": hl_crop,
    "hl_crop_interp": hl_crop_interp,
    "hl_track": hl_track,
    "hl_labels": hl_labels,
    "hl_losses": hl_losses,
    "hl_train_step": hl_train_step,
    "ra_forward": ra_forward,
    "ra_labels": ra_labels,
    "ra_match": ra_match,
    "ra_loss": ra_loss,
}
