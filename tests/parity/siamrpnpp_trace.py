"""Parity of SiamRPN++'s tracker with STVIR/pysot: traces, frame by frame from recorded states."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.ops import crop
from jaxtrack.ops.response import hann_window
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.proposals import cut_pysot, whole_window
from tests.parity import siamrpnpp_config as configs
from tests.parity.case import Case, ParityError, Report
from tests.parity.siamrpnpp_inputs import check_packed, clip_images, nchw, variables_of

_start = jax.jit(siamrpn.start, static_argnums=0)
_cut, _embed, _respond, _decide, _update = (
    jax.jit(step, static_argnums=0) for step in siamrpn.STEPS
)


def tracker(case: Case, report: Report) -> None:
    """A trace, every frame from its recorded state."""
    config = configs.tracker_config(case.config)
    variables = variables_of(case, config)
    inputs = case.meta["inputs"]
    configs.only(inputs, {"clip", "init_box", "states_in", "how"}, "inputs")
    images = clip_images(case, inputs["clip"])
    x, y, w, h = (float(v) for v in inputs["init_box"])
    # PySOT's own init: the centre of the pixels, not of the area (see the tracker's docstring).
    centre = np.asarray([x + (w - 1) / 2, y + (h - 1) / 2])
    size = np.asarray([w, h])
    frame_size = np.asarray(images.shape[1:3], np.int32)
    state = _start(config, variables, images[0], centre, size, frame_size)
    _check_init(report, config, variables, state, images[0])
    modes = _check_states(case, report, inputs)
    rows: dict[str, list[Any]] = {}
    agree = []
    for i in range(len(case.arrays["state.center"])):
        state = state._replace(
            centre=jnp.asarray(case.arrays["state.center"][i]),
            size=jnp.asarray(case.arrays["state.size"][i]),
        )
        if modes is not None:
            state = state._replace(lost=jnp.asarray(bool(modes[i])))
        state, same = _check_frame(report, config, variables, state, images[i + 1], i, rows)
        agree.append(same)
    mask = np.asarray(agree)
    for name in ("s_z", "scale_z", "s_x", "s_x_round", "crop.sum"):
        _check_rows(report, name, rows, None)
    _check_best(report, rows)
    after = ("best_score", "best_penalty", "best_box_image", "lr", "unclipped", "clipped")
    for name in (*after, "next.center", "next.size", "bbox"):
        _check_rows(report, name, rows, mask)
    for name in _MODE_NEXT:
        if name in case.arrays:
            report.check(name, np.asarray(rows["next.lost"]), rows=mask)


# Names under which a long-term trace may hold its mode flag, before and after the frame.
_MODE_IN = ("state.lost", "state.longterm", "state.longterm_state", "state.mode", "longterm_state")
_MODE_NEXT = ("next.lost", "next.longterm", "next.longterm_state", "next.mode")


def _check_states(case: Case, report: Report, inputs: dict[str, Any]) -> np.ndarray | None:
    """The recorded input states (checked against ``states_in``); the mode flags, where there are."""
    arrays = case.arrays
    for i, given in enumerate(inputs.get("states_in", [])):
        configs.only(given, {"center", "size", "lost", "longterm", "longterm_state"}, "states_in")
        for key in ("center", "size"):
            if key in given and not np.array_equal(given[key], arrays[f"state.{key}"][i]):
                raise ParityError(f"states_in[{i}].{key} is not state.{key}")
    report.used("state.center")
    report.used("state.size")
    name = next((name for name in _MODE_IN if name in arrays), None)
    return None if name is None else report.used(name)


def _check_rows(
    report: Report, name: str, rows: dict[str, list[Any]], mask: np.ndarray | None
) -> None:
    if name in report.case.arrays:
        note = "" if mask is None or mask.all() else "rows of an accepted tie are skipped"
        report.check(name, np.asarray(rows[name]), rows=mask, note=note)


def _check_init(
    report: Report, config: siamrpn.Config, variables: Any, state: siamrpn.State, frame: np.ndarray
) -> None:
    """Template crop, fill colour, template features, window and anchors."""
    arrays = report.case.arrays
    side = crop.context_side(state.size, config.context)
    window = whole_window(state.centre, side)
    exemplar = cut_pysot(
        jnp.asarray(frame), window, config.exemplar_size, state.fill, state.frame_size
    )
    report.check("init.center", state.centre)
    report.check("init.size", state.size)
    report.check("init.s_z_round", crop.round_half_even(side))
    report.check("init.channel_average", np.asarray(state.fill)[::-1])
    report.check("init.z_crop", nchw(exemplar[..., ::-1])[None])
    levels = jax.jit(siamrpn.features_of, static_argnums=0)(config, variables, exemplar[None])
    for i, level in enumerate(levels):
        check_packed(report, f"init.zf{i}", nchw(level))
    sizes = {"": config.instance_size}
    if config.lost_instance_size:
        sizes.update({".lost": config.lost_instance_size, ".longterm": config.lost_instance_size})
    for suffix, size in sizes.items():
        if f"window{suffix}" in arrays:
            report.check(f"window{suffix}", hann_window(siamrpn.map_size(config, size)))
        if f"anchors{suffix}" in arrays:
            anchors = siamrpn.tracking_anchors(config, size)
            report.check(f"anchors{suffix}", anchors.reshape(-1, 4))


def _check_frame(
    report: Report,
    config: siamrpn.Config,
    variables: Any,
    state: siamrpn.State,
    frame: np.ndarray,
    i: int,
    rows: dict[str, list[Any]],
) -> tuple[siamrpn.State, bool]:
    """One tracked frame: maps are checked at once, scalars collected as rows."""
    lost = bool(config.lost_instance_size and state.lost)
    if lost:
        config = siamrpn.while_lost(config)
    look = _cut(config, state, frame)
    features = _embed(config, variables, state, look)
    maps = _respond(config, variables, state, features)
    decision = _decide(config, variables, state, look, maps)
    after = _update(config, variables, state, frame, decision)
    image = nchw(look.crops[0, ..., ::-1])
    recorded = {
        "crop": image,
        "cls": nchw(maps.cls[0]),
        "loc": nchw(maps.loc[0]),
        "score": decision.scores,
        "penalty": decision.penalty,
        "pscore": decision.penalised,
        "pred_bbox": np.asarray(decision.boxes).T,
    }
    for name, value in recorded.items():
        key, note = f"{name}.{i}", ""
        if key not in report.case.arrays:
            continue
        if name == "loc" and _decoded_in_place(report.case.arrays[key]):
            value = recorded["pred_bbox"].reshape(value.shape)
            note = "recorded after the reference had decoded it in place"
        # Crops are bit-equal to OpenCV's: the json says so in words.
        report.check(key, value, tolerance="exact" if name == "crop" else None, note=note)
    s_z = crop.context_side(state.size, config.context)
    s_x = s_z * (config.instance_size / config.exemplar_size)
    best = int(decision.best)
    order = np.argsort(-np.asarray(decision.penalised), kind="stable")
    shown = {
        "s_z": s_z,
        "scale_z": decision.scale,
        "s_x": s_x,
        "s_x_round": crop.round_half_even(s_x),
        "crop.sum": image.astype(np.int64).sum((1, 2)),
        "best_idx": best,
        "top5_idx": order[:5],
        "pscore": np.asarray(decision.penalised),
        "best_score": decision.score,
        "best_penalty": decision.penalty[best],
        "best_box_image": decision.offset,
        "lr": decision.rate,
        "unclipped": decision.unclipped,
        "clipped": decision.clipped,
        "next.center": after.centre,
        "next.size": after.size,
        "next.lost": after.lost,
        "bbox": decision.box,
    }
    for name, value in shown.items():
        rows.setdefault(name, []).append(np.asarray(value))
    return after, best == int(report.case.arrays["best_idx"][i])


def _decoded_in_place(loc: np.ndarray) -> bool:
    """Whether a ``loc`` map holds boxes: all widths and heights positive, as logarithms are not.

    For a batch of one the reference decodes into the network's own output, so a trace that keeps the
    array itself (not a copy) holds boxes.
    """
    return bool((loc[loc.shape[0] // 2 :] > 0).all())


def _check_best(report: Report, rows: dict[str, list[Any]]) -> None:
    """Choices by the packs' rule: exact, unless penalised scores tie within their tolerance."""
    arrays = report.case.arrays
    rule = report.tolerance("pscore.0")
    ours = np.asarray(rows["best_idx"])
    wanted = arrays["best_idx"]
    pscores = rows["pscore"]
    wrong = 0
    ties = 0
    for i, (mine, theirs) in enumerate(zip(ours, wanted)):
        if mine == theirs:
            continue
        top = float(pscores[i].max())
        slack = 2 * (rule.get("atol", 0) + rule.get("rtol", 0) * abs(top))
        tied = top - float(pscores[i][theirs]) <= slack
        ties, wrong = ties + tied, wrong + (not tied)
    text = "exact or tie"
    report.check_true("best_idx", wrong == 0, wrong, text, f"{ties} ties" if ties else "")
    if "top5_idx" in arrays:
        wrong = 0
        for scores, mine, theirs in zip(pscores, rows["top5_idx"], arrays["top5_idx"]):
            slack = 2 * (rule.get("atol", 0) + rule.get("rtol", 0) * float(scores.max()))
            wrong += int(np.sum(np.abs(scores[mine] - scores[theirs]) > slack))
        report.check_true("top5_idx", wrong == 0, wrong, text)
    if "top5_pscore" in arrays:
        best = [scores[mine] for scores, mine in zip(pscores, rows["top5_idx"])]
        report.check("top5_pscore", np.asarray(best))
