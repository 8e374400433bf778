"""OSTrack's tracker traces: every frame from its recorded state, the network from the recorded crop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.base import Look
from jaxtrack.trackers.ostrack import crop as crop_ostrack
from jaxtrack.trackers.ostrack import tracker as ostrack
from tests.parity.case import Case, ParityError, Report, apply_edits, frames, sequence_frames
from tests.parity.ostrack_model import (
    NETWORK,
    check_stages,
    expect,
    known,
    load,
    margin,
    nchw,
    tracker_config,
)

_GREY_LEVEL = {"rtol": 0, "atol": 1}
_FRAMES = {"seed", "count", "height", "width"}


def clip_images(case: Case, recipe: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of a clip's recipe, and the boxes where it draws them.

    Args:
        case: for the place of the sequences.
        recipe: the arguments of ``weights.frames``, at the top or under ``frames``; or ``source``, a real
            sequence, with ``start`` and ``count``; and ``edits``.
    """
    known("the clip", recipe, {"frames", "source", "edits", "start"} | _FRAMES)
    source = recipe.get("source", "weights.frames")
    boxes = None
    if source in ("frames", "weights.frames"):
        body = recipe.get("frames", {k: recipe[k] for k in _FRAMES & set(recipe)})
        known("the clip's frames", body, _FRAMES)
        images, boxes = frames(**body)
    else:
        images = sequence_frames(source, case.folder)
        start = recipe.get("start", 0)
        images = images[start : start + recipe.get("count", len(images))]
    return apply_edits(images, recipe.get("edits", [])), boxes


def trace(case: Case, report: Report) -> None:
    """Initialise, then every stream frame by frame."""
    known("case", case.meta, NETWORK)
    inputs = case.meta["inputs"]
    known("inputs", inputs, {"frames", "clip", "edits", "init_box", "streams"})
    config = tracker_config(case)
    weights = load(case, config)
    recipe = inputs["clip"] if "clip" in inputs else inputs["frames"]
    if "edits" in inputs:
        recipe = {**recipe, "edits": inputs["edits"]}
    images, boxes = clip_images(case, recipe)
    box = inputs["init_box"]
    if box is None:
        if boxes is None:
            raise ParityError("init_box is null and the clip has no boxes")
        box = boxes[0]
    box = np.asarray(box, np.float64)
    state = _check_template(report, config, weights, images[0], box)
    for stream in inputs["streams"]:
        known("inputs.streams", stream, {"name", "state", "boxes", "crops", "states_in"})
        if stream["state"] not in ("own", "given"):
            raise ParityError(f"unknown stream state {stream['state']!r}")
        _check_stream(report, config, weights, images, stream, state)


def _check_template(
    report: Report, config: ostrack.Config, weights: Any, image: np.ndarray, box: np.ndarray
) -> ostrack.State:
    size, arrays = config.template_size, report.case.arrays
    frame_size = jnp.asarray(image.shape[:2], jnp.int32)
    report.check("init_box_f64", box)
    window = crop_ostrack.window_ostrack(jnp.asarray(box), config.template_factor)
    crop = crop_ostrack.crop_ostrack(jnp.asarray(image), window, size, frame_size)
    report.check("template_crop", crop, tolerance=_GREY_LEVEL)
    report.check("template_factor_f64", ostrack.scale_of(window, size))
    pad = np.asarray(crop_ostrack.padding_mask(window, size, frame_size))
    report.check("template_pad", np.packbits(pad))
    stored = jnp.asarray(arrays["template_crop"])
    state = ostrack.start(config, weights, stored, jnp.asarray(box), window, frame_size)
    if "template_mask" in arrays:
        mask = np.asarray(state.template_mask).astype(np.int8)
        report.check("template_mask", mask[None])
    picture = nchw(ostrack.normalise(stored)[None])
    report.check("template_input", picture[:, :, ::4, ::4])
    report.check("window", np.asarray(ostrack.hann_window(config.search_grid))[None, None])
    return state


def _check_stream(
    report: Report,
    config: ostrack.Config,
    weights: Any,
    images: np.ndarray,
    stream: dict[str, Any],
    start: ostrack.State,
) -> None:
    name, arrays, size = stream["name"], report.case.arrays, config.search_size
    frame_size = jnp.asarray(images.shape[1:3], jnp.int32)
    states = arrays[f"{name}_state_in_f64"]
    given = stream.get("boxes", stream.get("states_in"))
    if stream["state"] == "given":
        report.check(f"{name}_state_in_f64", np.asarray(given, np.float64))
        states = np.asarray(given, np.float64)
    else:
        report.used(f"{name}_state_in_f64")
    expect(f"frames of stream {name}", len(states), len(images) - 1)
    full = stream.get("crops") == "full"
    step = 1 if full else 4
    cut = jax.jit(ostrack.cut, static_argnums=0)
    track = jax.jit(ostrack.track_frame, static_argnums=0)

    @jax.jit
    def run(weights: Any, state: ostrack.State, look: Look) -> Any:
        features = ostrack.embed(config, weights, state, look, full=True)
        maps = ostrack.respond(config, weights, state, features)
        return features, maps, ostrack.decide(config, weights, state, look, maps)

    rows: list[dict[str, Any]] = []
    for t, box in enumerate(states):
        state = start._replace(box=jnp.asarray(box, jnp.float64))
        image = jnp.asarray(images[t + 1])
        look = cut(config, state, image)
        window = jax.tree.map(lambda side: side[0], look.windows)
        crop = np.asarray(look.crops[0])
        stored = arrays[f"{name}_crop"][t] if full else crop
        features, maps, decision = run(weights, state, look._replace(crops=stored[None]))
        after = decision.clipped
        moved, _ = track(config, weights, state, image)
        if np.array_equal(crop, stored):
            after = moved.box  # the tracker's own step, which must lead to the same box
        scale = ostrack.scale_of(window, size)
        norm = ostrack.decode_boxes(decision.response[None], maps.size, maps.offset)
        pixels = np.asarray(norm[0] * size / scale.astype(jnp.float32))
        pad = np.asarray(crop_ostrack.padding_mask(window, size, frame_size))
        tokens = np.concatenate([features.template[0], features.search[0]])
        rows.append(
            {
                "features": features,
                "crop": crop[::step, ::step],
                "crop_sum": crop.sum(axis=(0, 1), dtype=np.int64),
                "pad_fraction": pad.mean(),
                "resize_factor_f64": scale,
                "search_input": nchw(ostrack.normalise(jnp.asarray(stored))[None])[
                    0, :, ::16, ::16
                ],
                "score_map": np.asarray(maps.score),
                "size_map": nchw(maps.size)[0],
                "offset_map": nchw(maps.offset)[0],
                "feat_abs": np.abs(tokens.astype(np.float64)).sum(axis=1),
                "response": decision.response,
                "box_norm": norm[0],
                "box_crop_px_f64": pixels,
                "box_unclipped_f64": decision.unclipped,
                "state_out_f64": after,
            }
        )
    _compare_stream(report, config, name, rows)


def _compare_stream(
    report: Report, config: ostrack.Config, name: str, rows: list[dict[str, Any]]
) -> None:
    size = config.search_size
    features = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(r["features"] for r in rows))

    def stacked(key: str) -> np.ndarray:
        return np.stack([np.asarray(row[key]) for row in rows])

    report.check(f"{name}_crop", stacked("crop"), tolerance=_GREY_LEVEL)
    report.check(f"{name}_crop_sum", stacked("crop_sum"), tolerance={"atol": 0.1 * size * size})
    for key in ("pad_fraction", "resize_factor_f64", "search_input"):
        report.check(f"{name}_{key}", stacked(key))
    good = check_stages(report, features, config.ce_blocks, prefix=f"{name}_")
    for key in ("score_map", "size_map", "offset_map", "feat_abs", "response"):
        report.check(f"{name}_{key}", stacked(key), rows=good)
    response = stacked("response")
    report.check(f"{name}_response_margin", margin(response), rows=good)
    atol = report.tolerance(f"{name}_response_margin")["atol"]
    safe = good & (report.case.arrays[f"{name}_response_margin"] > atol)
    best = response.reshape(len(response), -1).argmax(axis=1)
    report.check(f"{name}_best_index", best, rows=safe)
    for key in ("box_norm", "box_crop_px_f64", "box_unclipped_f64", "state_out_f64"):
        report.check(f"{name}_{key}", stacked(key), rows=safe)
