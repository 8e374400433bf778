"""Parity of TADT's first frame and tracked frames."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.ops import crop as crop_ops
from jaxtrack.trackers.tadt import channels as tadt_choice
from jaxtrack.trackers.tadt import extractor as features_of
from jaxtrack.trackers.tadt import geometry
from jaxtrack.trackers.tadt import matching as responses
from jaxtrack.trackers.tadt import tracker as tadt
from tests.parity import tadt_recipe as recipe_of
from tests.parity.case import Case, ParityError, Report
from tests.parity.tadt_checks import (
    check_importance_f64,
    check_kept,
    check_selection,
    choose,
    ranking_arrays,
)
from tests.parity.tadt_recipe import chw, known, off_canvas, steps

crop_search = jax.jit(tadt.crop_search, static_argnums=0)
extract = jax.jit(features_of.extract, static_argnums=0)
resize = jax.jit(crop_ops.resize_window, static_argnums=2)
cut, embed, respond, decide, _ = (jax.jit(step, static_argnums=0) for step in tadt.STEPS)


def scaled_image(frame: Any, rescale: Any) -> np.ndarray:
    """The whole scaled image, which tracking never makes, by the same gather."""
    size = jnp.asarray(frame.shape[:2], jnp.int32)
    height, width = (int(n) for n in geometry.scaled_image_size(size, jnp.asarray(rescale)))
    whole = crop_ops.Window(jnp.int32(0), jnp.int32(0), size[0], size[1])
    return np.asarray(resize(frame, whole, (height, width), size, None))


def scaled_image_sum(frame: Any, rescale: Any) -> np.ndarray:
    """Its sum per channel."""
    return scaled_image(frame, rescale).sum((0, 1), dtype=np.float64)


class Start:
    """The first frame, up to the features."""

    def __init__(self, case: Case, config: tadt.Config, images: np.ndarray) -> None:
        recipe = case.meta["recipe"]
        self.variables = recipe_of.variables_of(case, config)
        self.frame = jnp.asarray(images[recipe["frame0"]])
        self.size = jnp.asarray(self.frame.shape[:2], jnp.int32)
        box = geometry.zero_based(jnp.asarray(recipe["init_box_1based"], jnp.float64))
        self.first = tadt.first_frame(config, box, self.size)
        self.template_size = tadt.fitting_template(self.first)
        self.crop = crop_search(
            config,
            self.frame,
            self.size,
            self.first.rescale,
            self.first.window,
            self.first.input_side,
        )
        self.map_size = int(self.first.map_size)
        self.maps = extract(config.extractor, self.variables, self.crop, self.first.map_size)

    def true_crop(self) -> np.ndarray:
        """The crop without its canvas."""
        side = int(self.first.input_side)
        return np.asarray(self.crop)[:side, :side]

    def state(self, config: tadt.Config, recorded: np.ndarray, balance: Any) -> tadt.State:
        """The tracker's state for the recorded choice of channels."""
        masks = tuple(
            jnp.asarray(row[:count].astype(bool))
            for row, count in zip(recorded, config.extractor.channels)
        )
        ranking = jnp.zeros(config.extractor.channels[0])
        choice = tadt_choice.Choice(masks, (), ranking, jnp.asarray(balance, jnp.float32))
        return tadt.start_state(
            config, self.variables, self.first, self.template_size, self.maps, choice, self.size
        )


def exemplar(state: tadt.State) -> np.ndarray:
    """The template as recorded, ``(1, c, h, w)``: true size, taken places only."""
    taken = np.asarray(state.weights) != 0
    return template_block(state.template, state.template_size)[..., taken].transpose(2, 0, 1)[None]


def template_block(template: Any, size: Any) -> np.ndarray:
    """A template in its true size, lying as in the image."""
    high, wide = (int(n) for n in size)
    block = off_canvas(template, (max(high, wide), min(high, wide)))
    return block.swapaxes(0, 1) if wide > high else block


def init(case: Case, report: Report) -> None:
    """The first frame end to end."""
    config = recipe_of.config_of(case)
    recipe = known(
        case.meta["recipe"], {"clip", "frame0", "init_box_1based", "weight_seed"}, "recipe"
    )
    start = Start(case, config, recipe_of.clip_of(case, recipe["clip"]))
    first, size = start.first, np.asarray(start.template_size)
    report.check("rescale", [first.rescale])
    report.check("scaled_image_wh", first.scaled_size[::-1])
    report.check("scaled_image_sum", scaled_image_sum(start.frame, first.rescale))
    report.check("target_location", first.target)
    report.check("srch_window_location", first.window)
    report.check("input_wh", [first.input_side, first.input_side])
    report.check("crop", start.true_crop())
    corner = np.asarray(geometry.template_corner(start.template_size, first.map_size))
    report.check("patch_loc_y0x0y1x1", [*corner, *(corner + size - 1)])
    report.check("patch_hw", size)
    for layer, features in zip(config.extractor.layers, start.maps):
        values = chw(features, start.map_size)
        report.check(f"{layer}_sum", values.sum((1, 2), dtype=np.float64))
        c, h, w = steps(case, f"{layer}_sub")
        report.check(f"{layer}_sub", values[::c, ::h, ::w])
    heads = recipe_of.heads_of(case)
    maps = [np.asarray(features) for features in start.maps]
    _ranking(case, report, config, maps[0], heads, start.map_size)
    recorded = check_kept(case, report, config, maps, heads, size, start.map_size)
    state = start.state(config, recorded, case.arrays["balance_weights"])
    report.check("exemplar", exemplar(state))


def _ranking(
    case: Case,
    report: Report,
    config: tadt.Config,
    features: np.ndarray,
    heads: dict[str, np.ndarray],
    map_size: int,
) -> None:
    kernel = heads[f"rank_{config.extractor.layers[0]}.conv.weight"]
    found = ranking_arrays(features, kernel, map_size)
    exact = ranking_arrays(features.astype(np.float64), kernel.astype(np.float64), map_size)
    for name in ("sample_sizes", "sample_locs_y0x0y1x1", "sample_sum", "pairs", "scores"):
        report.check(f"rank_{name}", found[name])
    report.check("rank_loss", [found["loss"]])
    report.check("rank_grad_scores", found["grad_scores"])
    every = steps(case, "rank_grad_features_sub")[0]
    report.check("rank_grad_features_sub", chw(found["grad_features"], map_size)[::every])
    report.check("rank_scores_f64", exact["scores"])
    report.check("rank_grad_scores_f64", exact["grad_scores"])
    check_importance_f64(report, "rank_importance_f64", exact)


def trace(case: Case, report: Report) -> None:
    """Tracked frames, each from the recorded state of its input."""
    config = recipe_of.config_of(case)
    recipe = known(
        case.meta["recipe"],
        {"clip", "frame0", "init_box_1based", "weight_seed", "frames", "states_in"},
        "recipe",
    )
    images = recipe_of.clip_of(case, recipe["clip"])
    start = Start(case, config, images)
    state = _first_state(case, report, config, start)
    rows: dict[str, list[Any]] = {}
    expected = {"in_target_location": start.first.target, "in_window_xywh": start.first.window}
    given = recipe.get("states_in", [None] * len(recipe["frames"]))
    if len(given) != len(recipe["frames"]):
        raise ParityError(f"{len(given)} states_in for {len(recipe['frames'])} frames")
    for i, (frame, said) in enumerate(zip(recipe["frames"], given)):
        if said is not None:
            known(said, {"target_location", "window_xywh"}, "states_in")
            expected = {
                "in_target_location": said["target_location"],
                "in_window_xywh": said["window_xywh"],
            }
        target, window = (
            jnp.asarray(case.arrays[name][i], jnp.float64)
            for name in ("in_target_location", "in_window_xywh")
        )
        found = _tracked(
            case,
            report,
            config,
            start.variables,
            state._replace(target=target, window=window),
            jnp.asarray(images[frame]),
            i,
        )
        for name, value in {"frame": frame, **expected, **found}.items():
            rows.setdefault(name, []).append(np.asarray(value))
        expected = {
            "in_target_location": found["out_target_location"],
            "in_window_xywh": found["out_window_xywh"],
        }
    for name, values in rows.items():
        report.check(name, np.stack(values))


def _first_state(case: Case, report: Report, config: tadt.Config, start: Start) -> tadt.State:
    """Check the first frame's results that a trace repeats; the state to go on from."""
    size = start.template_size
    heads = recipe_of.default_heads(
        config.extractor.layers,
        config.extractor.channels,
        np.asarray(geometry.kernel_cells(size)),
        case.meta["recipe"]["weight_seed"],
    )
    kernels = recipe_of.kernels_of(heads, config.extractor.layers, config.map_canvas)
    choice = choose(config, start.maps, start.first.map_size, size, kernels)
    recorded = case.arrays["feature_mask"][0][: config.extractor.channels[0]].astype(bool)
    ranking = np.asarray(choice.ranking)
    # Only about two digits of this importance hold in float32: signs of tiny ones are the recorded ones.
    tiny = np.abs(ranking) <= 0.02 * np.median(np.abs(ranking))
    ridge_positive = np.asarray(choice.ridge[0]) > 0
    admitted = np.where(tiny & ridge_positive, recorded, ranking > 0)
    check_selection(report, config, choice, admitted)
    state = start.state(config, case.arrays["feature_mask"], choice.balance)
    report.check("exemplar", exemplar(state))
    report.check("rescale", [start.first.rescale])
    report.check("input_wh", [start.first.input_side, start.first.input_side])
    return state


def _tracked(
    case: Case,
    report: Report,
    config: tadt.Config,
    variables: Any,
    state: tadt.State,
    frame: jax.Array,
    row: int,
) -> dict[str, Any]:
    """One frame: the stages one by one, and the tracker's own answer."""
    frame_index = case.arrays["frame"][row]
    side, map_size = int(state.input_side), int(state.input_side) // config.stride
    look = cut(config, state, frame)
    true_crop = np.asarray(look.crops[0])[:side, :side]
    if row == 0:
        report.check("first_crop", true_crop)
    h, w = steps(case, "crop_sub")
    found: dict[str, Any] = {
        "scaled_image_sum": scaled_image_sum(frame, state.rescale),
        "crop_sum": true_crop.sum((0, 1), dtype=np.float64),
        "crop_sub": true_crop[::h, ::w],
    }
    cells = state.input_side // config.stride
    maps = extract(config.extractor, variables, look.crops[0], cells)
    for layer, features in zip(config.extractor.layers, maps):
        found[f"{layer}_sum"] = chw(features, map_size).sum((1, 2), dtype=np.float64)
    features = embed(config, variables, state, look)
    taken = np.asarray(state.weights) != 0
    selected = chw(np.asarray(features)[0][..., taken], map_size)
    c, h, w = steps(case, "selected_sub")
    found["selected_sum"] = selected.sum((1, 2), dtype=np.float64)
    found["selected_sub"] = selected[::c, ::h, ::w]
    said = respond(config, variables, state, features)
    response = said.response
    found["response_max"] = said.top
    found["response"] = np.asarray(response)[:, :map_size, :map_size]
    points = state.window[2].astype(jnp.int32)
    index = jnp.arange(int(points))
    smooth = responses.score_block(response, cells, points, index, index, 0.0)
    hann = responses.hann_line(index, points)
    scores = responses.score_block(response, cells, points, index, index, config.window_weight)
    name = f"f{frame_index:02d}_scores_sub"
    h, w = steps(case, name)
    report.check(name, scores[:, ::h, ::w])
    found["resized_sum"] = np.asarray(smooth).sum((1, 2), dtype=np.float64)
    found["hann_sum"] = np.asarray(hann, np.float64).sum() ** 2
    two = np.sort(np.asarray(scores).reshape(len(scores), -1), axis=1)[:, -2:]
    found["peak_gap"] = two[:, 1] - two[:, 0]
    decision = decide(config, variables, state, look, said)
    found.update(_decision(case, config, state, decision, row))
    return found


def _decision(
    case: Case, config: tadt.Config, state: tadt.State, decision: tadt.Decision, row: int
) -> dict[str, Any]:
    """Peaks, chosen scale, and the new target, window and box.

    Where the recorded peak is not safe (`peak_gap` under 1e-4) and ours is its neighbour, the update is
    computed from the recorded peak, as the pack's README allows.
    """
    peaks, best = decision.peaks, decision.scale
    target, window, box = decision.target, decision.window, decision.box
    recorded = case.arrays["peak_xy"][row]
    gap = case.arrays["peak_gap"][row][int(best)]
    if not np.array_equal(decision.peak_xy, recorded) and gap < 1e-4:
        target, window = tadt.move(config, state.target, state.window, best, jnp.asarray(recorded))
        box = tadt.report_box(target, state.rescale)
    return {
        "scale_max": peaks.value,
        "scale_max_weighted": peaks.value * jnp.asarray(config.scale_weights, jnp.float32),
        "scale_peak_yx": np.stack([peaks.row, peaks.column], axis=1),
        "scale_ind": best,
        "peak_xy": decision.peak_xy,
        "out_target_location": target,
        "out_window_xywh": window,
        "bbox_0based": box,
    }
