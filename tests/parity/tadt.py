"""Parity of TADT with ZikunZhou/TADT-python: the parts. First frame and traces: `tadt_track`."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.models.vgg import VGG16, VGGConfig
from jaxtrack.trackers.tadt import geometry
from jaxtrack.trackers.tadt import matching as responses
from jaxtrack.trackers.tadt import ranking as ranking_branch
from jaxtrack.trackers.tadt import tracker as tadt
from jaxtrack.trackers.tadt.losses import ranking_pairs
from jaxtrack.trackers.tadt.names import MATCONVNET_VGG16
from jaxtrack.weights.mat import matconvnet_state_dict, read_matconvnet
from jaxtrack.weights.names import from_published
from tests.parity import tadt_recipe as recipe_of
from tests.parity.case import Case, ParityError, Report
from tests.parity.tadt_checks import (
    check_importance_f64,
    check_kept,
    check_order,
    ranking_arrays,
    ridge_arrays,
)
from tests.parity.tadt_recipe import chw, known
from tests.parity.tadt_track import init, scaled_image, template_block, trace

# Our stages make everything that is recorded.
NOT_APPLICABLE: dict[str, dict[str, str]] = {}
crop_window = jax.jit(geometry.crop_window, static_argnums=5)


def vgg(case: Case, report: Report) -> None:
    """The trunk, layer by layer."""
    config = recipe_of.config_of(case)
    recipe = known(
        case.meta["recipe"], {"clip", "frame", "crop_y0_y1_x0_x1", "weight_seed"}, "recipe"
    )
    y0, y1, x0, x1 = recipe["crop_y0_y1_x0_x1"]
    image = recipe_of.clip_of(case, recipe["clip"])[recipe["frame"], y0:y1, x0:x1]
    variables = recipe_of.variables_of(case, config)
    network = VGG16(VGGConfig())
    images = tadt.features_of.prepare(config.extractor, jnp.asarray(image))
    outputs = jax.jit(network.apply)(variables, images)
    for name, features in outputs.items():
        values = np.asarray(features[0], np.float64)
        report.check(f"{name}_shape", [values.shape[2], *values.shape[:2]])
        report.check(f"{name}_sum", values.sum((0, 1)))
        report.check(f"{name}_sumsq", np.square(values).sum((0, 1)))
        if f"{name}_sub" in case.arrays:
            c, h, w = recipe_of.steps(case, f"{name}_sub")
            report.check(f"{name}_sub", chw(values)[::c, ::h, ::w])


def mat_reader(case: Case, report: Report) -> None:
    """A MatConvNet file, read by order."""
    names = re.findall(r"[\w.-]+\.mat\b", case.meta["inputs"])
    if not names:
        raise ParityError(f"no .mat file is named in {case.meta['inputs']!r}")
    layers = read_matconvnet(case.folder / names[0])
    tree: dict[str, Any] = {}
    for name, shape in case.schema():
        module, leaf = name.rsplit(".", 1)
        axes = (shape[2], shape[3], shape[1], shape[0]) if len(shape) == 4 else shape
        leaf = "kernel" if leaf == "weight" else leaf
        tree.setdefault(module, {})[leaf] = jax.ShapeDtypeStruct(axes, jnp.float32)
    # The published reader fills the model's layers in order and leaves the file's other layers alone.
    state = matconvnet_state_dict(layers[: len(tree)])
    merged = from_published(MATCONVNET_VGG16, state, {"params": tree})["params"]
    for name, _ in case.schema():
        module, leaf = name.rsplit(".", 1)
        value = np.asarray(merged[module]["kernel" if leaf == "weight" else leaf])
        report.check(name, value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)


def geometry_rows(case: Case, report: Report) -> None:
    """The first frame's geometry of many images and boxes, all at once under vmap."""
    config = recipe_of.config_of(case)
    rows = known(case.meta["recipe"], {"rows"}, "recipe")["rows"]
    sizes = jnp.asarray([row[:2] for row in rows], jnp.int32)
    boxes = jax.vmap(geometry.zero_based)(jnp.asarray([row[2] for row in rows], jnp.float64))
    first = jax.jit(jax.vmap(lambda box, size: tadt.first_frame(config, box, size)))(boxes, sizes)
    kernels = geometry.kernel_cells(first.template_size)
    corner = jax.vmap(geometry.template_corner)(first.template_size, first.map_size)
    edges = []
    for window, scaled in zip(first.window, first.scaled_size):
        side = window[2].astype(jnp.int32)
        ends = jnp.asarray([0, side - 1])
        for axis in (0, 1):
            pixels = geometry.window_pixels(window[axis], side, ends)
            edges.append(jnp.clip(pixels, 0, scaled[1 - axis] - 1))
    count = jax.vmap(ranking_branch.sample_count)(first.map_size, kernels)
    largest = int(jnp.max(first.map_size))
    pairs = jax.vmap(lambda n: jnp.sum(ranking_pairs(n, largest)))(count)
    longest = jnp.max(kernels, axis=1)
    status = jnp.where(longest > first.map_size, 2, jnp.where(pairs == 0, 1, 0))
    smallest = jnp.where(count > 0, longest, 0)
    greatest = jnp.where(count > 0, longest + 2 * (count - 1), 0)
    report.check("rescale", first.rescale)
    report.check("scaled_image_wh", first.scaled_size[:, ::-1])
    report.check("target_location", first.target)
    report.check("search_size", first.input_side)
    report.check("srch_window_location", first.window)
    report.check("crop_first_last_xxyy", np.reshape(np.concatenate(edges), (-1, 4)))
    report.check("feature_size", first.map_size)
    report.check("patch_hw", first.template_size)
    report.check("patch_loc", np.concatenate([corner, corner + first.template_size - 1], axis=1))
    report.check("kernel_hw", kernels)
    report.check("label_sigma_hw", config.label_sigma * np.asarray(first.template_size))
    report.check("n_samples", count)
    report.check("n_pairs", pairs)
    report.check("rank_status", status)
    report.check("sample_size_first_last", np.stack([smallest, greatest], axis=1))


def crops(case: Case, report: Report) -> None:
    """Image rescaling and search crops."""
    config = recipe_of.config_of(case)
    recipe = known(case.meta["recipe"], {"crops"}, "recipe")
    for i, one in enumerate(recipe["crops"]):
        known(one, {"clip", "frame", "rescale", "window_xywh", "input_wh"}, "recipe.crops")
        frame = jnp.asarray(recipe_of.clip_of(case, one["clip"])[one["frame"]])
        size = jnp.asarray(frame.shape[:2], jnp.int32)
        rescale = jnp.asarray(one["rescale"], jnp.float64)
        scaled = scaled_image(frame, rescale)
        report.check(f"c{i}_scaled_shape", scaled.shape)
        report.check(f"c{i}_scaled_sum", scaled.sum((0, 1), dtype=np.float64))
        h, w = recipe_of.steps(case, f"c{i}_scaled_sub")
        report.check(f"c{i}_scaled_sub", scaled[::h, ::w])
        window = jnp.asarray(one["window_xywh"], jnp.float64)
        canvas = (one["input_wh"][1], one["input_wh"][0])
        found = crop_window(frame, size, rescale, window, jnp.asarray(canvas, jnp.int32), canvas)
        report.check(f"c{i}_crop", found)
        shifted = np.asarray(found, np.float64) + np.asarray(config.extractor.pixel_offset)
        report.check(f"c{i}_crop_sum", shifted.sum((0, 1)))


def _randn_features(recipe: dict[str, Any]) -> np.ndarray:
    known(recipe, {"seed", "shape", "scale"}, "recipe.features")
    values = np.random.RandomState(recipe["seed"]).randn(*recipe["shape"])
    positive = np.maximum(values, 0).astype(np.float32) * np.float32(recipe["scale"])
    return positive[0].transpose(1, 2, 0)


def ridge_small(case: Case, report: Report) -> None:
    """The ridge branch in full, with its float64 twins and true gradients."""
    config = recipe_of.config_of(case)
    recipe = known(
        case.meta["recipe"], {"features", "patch_hw", "weight_seed", "layer_index"}, "recipe"
    )
    features = _randn_features(recipe["features"])
    (kernel,) = recipe_of.heads_of(case).values()
    ridge_arrays(case, report, config, features, kernel, recipe["patch_hw"])


def rank_small(case: Case, report: Report) -> None:
    """The ranking branch in full."""
    recipe_of.config_of(case)
    recipe = known(
        case.meta["recipe"], {"features", "patch_hw", "weight_seed", "init_gain"}, "recipe"
    )
    features = _randn_features(recipe["features"])
    (kernel,) = recipe_of.heads_of(case).values()
    report.check("features_sum", features.sum((0, 1), dtype=np.float64))
    report.check("init_weight", kernel.transpose(2, 0, 1)[None])
    size = np.asarray(geometry.kernel_cells(jnp.asarray(recipe["patch_hw"])))
    if tuple(size) != kernel.shape[:2]:
        raise ParityError(f"kernel {kernel.shape[:2]}, the patch asks for {tuple(size)}")
    found = ranking_arrays(features, kernel, features.shape[0])
    exact = ranking_arrays(
        features.astype(np.float64), kernel.astype(np.float64), features.shape[0]
    )
    for name in ("sample_sizes", "sample_locs_y0x0y1x1", "pairs", "scores", "grad_scores"):
        report.check(name, found[name])
    rows = [
        off_canvas_rows(
            ranking_branch.sample_rows(jnp.asarray(features), found["samples"], jnp.int32(i)), size
        )
        for i in kernel_rows(found["samples"], size)
    ]
    count = len(found["sample_sizes"])
    report.check("samples", np.stack(rows, axis=2)[:count].transpose(0, 3, 2, 1))
    report.check("loss", [found["loss"]])
    report.check("loss_f64", [exact["loss"]])
    report.check("grad_scores_f64", exact["grad_scores"])
    report.check("autograd_grad_scores", found["true_grad_scores"])
    report.check("grad_features", chw(found["grad_features"]))
    report.check("importance", found["importance"])
    check_importance_f64(report, "importance_f64", exact)
    report.check("mask", (exact["importance"] > 0).astype(np.int32))
    check_order(report, "order", exact["importance"], "importance_f64")


def kernel_rows(samples: Any, size: Any) -> range:
    """Canvas rows that the kernel occupies."""
    middle = samples.weights.shape[1] // 2
    return range(middle - int(size[0]) // 2, middle + int(size[0]) // 2 + 1)


def off_canvas_rows(rows: Any, size: Any) -> np.ndarray:
    """Kernel columns of sample rows ``(n, k, c)``."""
    values = np.asarray(rows)
    left = (values.shape[1] - int(size[1])) // 2
    return values[:, left : left + int(size[1])]


def _bump_features(recipe: dict[str, Any]) -> np.ndarray:
    known(
        recipe,
        {"seed", "channels", "map", "scale", "bump_base", "bump_spread", "bump_sigma"},
        "recipe.features",
    )
    side, count = recipe["map"], recipe["channels"]
    rng = np.random.RandomState(recipe["seed"])
    values = np.maximum(rng.randn(1, count, side, side), 0) * recipe["scale"]
    height = recipe["bump_base"] + recipe["bump_spread"] * rng.randn(count)
    line = np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * recipe["bump_sigma"] ** 2))
    bump = height[:, None, None] * line[None, :, None] * line[None, None, :]
    return np.maximum(values + bump[None], 0).astype(np.float32)[0].transpose(1, 2, 0)


def select(case: Case, report: Report) -> None:
    """Both branches, the selection and the balance on synthetic maps."""
    config = recipe_of.config_of(case)
    recipe = known(case.meta["recipe"], {"features", "patch_hw", "weight_seed"}, "recipe")
    maps = [_bump_features(one) for one in recipe["features"]]
    for layer, features in zip(config.extractor.layers, maps):
        report.check(f"{layer}_features_sum", features.sum((0, 1), dtype=np.float64))
    check_kept(
        case,
        report,
        config,
        maps,
        recipe_of.heads_of(case),
        np.asarray(recipe["patch_hw"]),
        maps[0].shape[0],
    )


def match_small(case: Case, report: Report) -> None:
    """Template, scaled copies, correlation, upsampling, window, choice and update."""
    config = recipe_of.config_of(case)
    recipe = known(
        case.meta["recipe"],
        {"features", "mask_modulo", "balance", "target_wh", "template_window_xywh", "variants"},
        "recipe",
    )
    side = recipe["features"]["map"]
    canvas = side | 1  # canvases are odd
    kept = [
        np.arange(count) % modulo != 0
        for count, modulo in zip(recipe["features"]["channels"], recipe["mask_modulo"])
    ]

    def selected(prefix: str) -> jax.Array:
        parts = [
            report.used(f"{prefix}{i}")[0].transpose(1, 2, 0)[..., mask] * np.float32(balance)
            for i, (mask, balance) in enumerate(zip(kept, recipe["balance"]))
        ]
        maps = np.concatenate(parts, axis=-1)
        border = ((0, canvas - side), (0, canvas - side), (0, 0))
        return jnp.asarray(np.pad(maps, border))

    window = jnp.asarray(recipe["template_window_xywh"], jnp.float64)
    size = geometry.template_cells(jnp.asarray(recipe["target_wh"], jnp.float64), side, window[2:])
    corner = np.asarray(geometry.template_corner(size, side))
    report.check("patch_loc_y0x0y1x1", [*corner, *(corner + np.asarray(size) - 1)])
    map_size = jnp.int32(side)
    template = tadt.cut_template(selected("template_features"), map_size, size, int(min(size)) | 1)
    report.check("exemplar", template_block(template, size).transpose(2, 0, 1)[None])
    for i, variant in enumerate(recipe["variants"]):
        known(
            variant,
            {"zoom", "shift_yx", "noise_seed", "noise", "rescale", "target_location"}
            | {"window_xywh"},
            "recipe.variants",
        )
        _match_variant(report, config, f"v{i}_", variant, selected, template, size, map_size)


def _match_variant(
    report: Report,
    config: tadt.Config,
    prefix: str,
    variant: dict[str, Any],
    selected: Any,
    template: jax.Array,
    size: jax.Array,
    map_size: jax.Array,
) -> None:
    side = int(map_size)
    features = selected(f"{prefix}search")
    report.check(f"{prefix}selected", chw(features, side)[None])
    copies = responses.scaled_maps(features, map_size, len(config.scales), config.feature_pad)
    report.check(f"{prefix}scaled_features", np.stack([chw(copy, side) for copy in copies]))
    response, top = jax.jit(tadt.match, static_argnums=0)(
        config, template, size, features, map_size
    )
    kh, kw = (int(n) for n in size)
    valid = np.asarray(response)[:, :side, :side] * np.asarray(top)
    valid = valid[:, kh // 2 : side - kh // 2, kw // 2 : side - kw // 2]
    report.check(f"{prefix}raw_valid_response", valid)
    report.check(f"{prefix}response", np.asarray(response)[:, :side, :side])
    window = jnp.asarray(variant["window_xywh"], jnp.float64)
    if window[2] != window[3]:
        raise ParityError(f"a search window that is not square: {variant['window_xywh']}")
    points = window[2].astype(jnp.int32)
    index = jnp.arange(int(points))
    block = (response, map_size, points, index, index)
    report.check(f"{prefix}resized", responses.score_block(*block, window_weight=0.0))
    hann = responses.hann_line(index, points)
    report.check(f"{prefix}hann", hann[:, None] * hann[None, :])
    report.check(f"{prefix}scores", responses.score_block(*block, config.window_weight))
    peaks = responses.score_peaks(response, map_size, points, config.window_weight)
    weighted = peaks.value * jnp.asarray(config.scale_weights, jnp.float32)
    report.check(f"{prefix}scale_max", peaks.value)
    report.check(f"{prefix}scale_max_weighted", weighted)
    report.check(f"{prefix}scale_peak_yx", np.stack([peaks.row, peaks.column], axis=1))
    best = tadt.choose_scale(config, peaks)
    report.check(f"{prefix}scale_ind", [best])
    target, moved = tadt.move(
        config,
        jnp.asarray(variant["target_location"], jnp.float64),
        window,
        best,
        jnp.stack([peaks.column[best], peaks.row[best]]),
    )
    report.check(f"{prefix}new_target_location", target)
    report.check(f"{prefix}new_window_xywh", moved)
    rescale = jnp.asarray(variant["rescale"], jnp.float64)
    report.check(f"{prefix}bbox_0based", tadt.report_box(target, rescale))


KINDS = {
    "vgg": vgg,
    "mat_reader": mat_reader,
    "geometry": geometry_rows,
    "crops": crops,
    "ridge_small": ridge_small,
    "rank_small": rank_small,
    "select": select,
    "match_small": match_small,
    "init": init,
    "trace": trace,
}
