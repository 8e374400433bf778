"""Parity of SiamRPN++ with STVIR/pysot: network, correlation, crops; the table of kinds."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.ops import crop
from jaxtrack.ops.correlation import (
    depthwise_correlation,
    depthwise_correlation_grouped,
    up_channel_correlation,
)
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.heads import UpChannelHead
from jaxtrack.trackers.siamrpn.proposals import cut_pysot, whole_window
from jaxtrack.weights.names import NameTable, from_published
from tests.parity import siamrpnpp_config as configs
from tests.parity import siamrpnpp_trace as trace
from tests.parity import siamrpnpp_training as training
from tests.parity.case import Case, ParityError, Report
from tests.parity.siamrpnpp_inputs import check_packed, image, nchw, stages, variables_of

# Our stages never make these: nothing that hangs on them is left out.
NOT_APPLICABLE: dict[str, dict[str, str]] = {}


@functools.partial(jax.jit, static_argnums=0)
def _embed(config: siamrpn.Config, variables: Any, images: Any) -> Any:
    """Backbone levels, what the head gets, and every stage of the backbone."""
    net = siamrpn.module(config)
    levels, kept = net.apply(variables, images, method="backbone_levels", mutable=["intermediates"])
    return levels, net.apply(variables, levels, method="adjust"), kept["intermediates"]


@functools.partial(jax.jit, static_argnums=0)
def _predict(config: siamrpn.Config, variables: Any, templates: Any, searches: Any) -> Any:
    net = siamrpn.module(config)
    kernels = net.apply(variables, templates, method="kernels")
    outputs, kept = net.apply(
        variables, kernels, searches, method="predict", mutable=["intermediates"]
    )
    return outputs, kept["intermediates"]["rpn_head"]


def model(case: Case, report: Report) -> None:
    """A network on one template and one or more search images."""
    config = configs.tracker_config(case.config)
    variables = variables_of(case, config)
    pictures = {name: image(case, recipe) for name, recipe in case.meta["inputs"].items()}
    if "z" not in pictures or "x" not in pictures:
        raise ParityError(f"inputs z and x are needed, got {sorted(pictures)}")
    ready = {
        name: siamrpn.network_input(jnp.asarray(picture)[None])
        for name, picture in pictures.items()
    }
    z_levels, z_adjusted, _ = _embed(config, variables, ready.pop("z"))
    for i, level in enumerate(z_levels):
        check_packed(report, f"z_backbone{i}", nchw(level))
    for i, level in enumerate(z_adjusted):
        check_packed(report, f"z_neck{i}", nchw(level))
    for name, images in ready.items():
        prefix = "" if name == "x" else f"{name}."
        levels, adjusted, kept = _embed(config, variables, images)
        for stage, value in stages(kept["backbone"]).items():
            check_packed(report, f"{prefix}stage.{stage}", nchw(value))
            legacy = configs.LEGACY_STAGES.get(stage)
            if config.network.backbone == "alexnet" and legacy:
                check_packed(report, f"{prefix}stage.{legacy}", nchw(value))
        for i, level in enumerate(levels):
            check_packed(report, f"{prefix}x_backbone{i}", nchw(level))
        for i, level in enumerate(adjusted):
            check_packed(report, f"{prefix}x_neck{i}", nchw(level))
        (cls, loc), kept = _predict(config, variables, z_adjusted, adjusted)
        for stage, value in stages(kept).items():
            check_packed(report, f"{prefix}rpn_head.{stage}", nchw(value))
        check_packed(report, f"{prefix}cls", nchw(cls))
        check_packed(report, f"{prefix}loc", nchw(loc))
    for kind in ("cls_weight", "loc_weight"):
        if f"softmax.{kind}" in case.arrays:
            weight = variables["params"]["rpn_head"][kind]
            report.check(f"softmax.{kind}", jax.nn.softmax(weight))


def xcorr(case: Case, report: Report) -> None:
    """Correlations alone, and the up-channel head."""
    inputs = case.meta["inputs"]
    configs.only(inputs, {"depthwise", "fast", "upchannel"}, "inputs")
    for kind, function in (("depthwise", depthwise_correlation), ("fast", up_channel_correlation)):
        if kind not in inputs:
            continue
        configs.only(inputs[kind], {"seed", "pairs", "how"}, kind)
        rng = np.random.RandomState(inputs[kind]["seed"])
        for i, (shape_x, shape_z) in enumerate(inputs[kind]["pairs"]):
            x = np.moveaxis(rng.randn(*shape_x).astype(np.float32), 1, -1)
            z = np.moveaxis(rng.randn(*shape_z).astype(np.float32), 1, -1)
            report.check(f"{kind}.{i}", nchw(function(jnp.asarray(z), jnp.asarray(x))))
            if kind == "depthwise":
                grouped = depthwise_correlation_grouped(jnp.asarray(z), jnp.asarray(x))
                report.check(f"{kind}.{i}", nchw(grouped), note="as one grouped convolution")
    if "upchannel" in inputs:
        _up_channel(case, report, inputs["upchannel"])


def _up_channel(case: Case, report: Report, recipe: dict[str, Any]) -> None:
    configs.only(recipe, {"seed", "anchor_num", "feature_in", "z", "x", "how"}, "upchannel")
    rng = np.random.RandomState(recipe["seed"])
    z = jnp.asarray(np.moveaxis(rng.randn(*recipe["z"]).astype(np.float32), 1, -1))
    x = jnp.asarray(np.moveaxis(rng.randn(*recipe["x"]).astype(np.float32), 1, -1))
    state = case.state_dict()
    head = UpChannelHead(state["search_cls_conv.weight"].shape[0], recipe["anchor_num"])

    def run(module: UpChannelHead, z: Any, x: Any) -> Any:
        kernels = module.kernels(z)
        return kernels, module.predict(kernels, x)

    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), z, x, method=run))
    variables = from_published(NameTable(), state, {"params": shapes["params"]})
    (kernels, (cls, loc)), kept = head.apply(variables, z, x, method=run, mutable=["intermediates"])
    ours = stages(kept["intermediates"])
    report.check("upchannel.cls_kernel", nchw(kernels[0]))
    report.check("upchannel.cls_feature", nchw(ours["cls_feature"]))
    report.check("upchannel.loc_before_adjust", nchw(ours["loc_before_adjust"]))
    report.check("upchannel.cls", nchw(cls))
    report.check("upchannel.loc", nchw(loc))


@functools.partial(jax.jit, static_argnums=3)
def _cut(frame: Any, centre: Any, side: Any, size: int, fill: Any, frame_size: Any) -> Any:
    return cut_pysot(frame, whole_window(centre, side), size, fill, frame_size)


def subwindow(case: Case, report: Report) -> None:
    """Crops alone."""
    inputs = case.meta["inputs"]
    configs.only(inputs, {"image", "calls", "how"}, "inputs")
    frame = image(case, inputs["image"])
    frame_size = np.asarray(frame.shape[:2], np.int32)
    fill = crop.mean_colour(jnp.asarray(frame), jnp.asarray(frame_size))
    report.check("channel_average", np.asarray(fill)[::-1])
    for i, call in enumerate(inputs["calls"]):
        configs.only(call, {"pos", "original_sz", "model_sz"}, "call")
        centre = np.asarray(call["pos"], np.float64)
        side = np.float64(call["original_sz"])
        ours = _cut(frame, centre, side, int(call["model_sz"]), fill, frame_size)
        report.check(f"crop.{i}", nchw(ours[..., ::-1]), tolerance="exact")


def _known_fields(function: Any) -> Any:
    """Wrap a kind: fields of the json that nobody knows are an error."""
    known = {"reference", "kind", "what", "config_name", "seed", "schema", "config", "inputs"}
    known |= {"weight_rule", "weight_scale", "weight_offset", "weight_adjust", "keep", "packing"}
    known |= {"outputs", "tolerance"}

    @functools.wraps(function)
    def run(case: Case, report: Report) -> None:
        configs.only({k: v for k, v in case.meta.items() if not re.match("note", k)}, known, "case")
        function(case, report)

    return run


KINDS = {
    name: _known_fields(function)
    for name, function in {
        "model": model,
        "tracker": trace.tracker,
        "xcorr": xcorr,
        "subwindow": subwindow,
        "anchors": training.anchors,
        "anchor_target": training.anchor_target,
        "losses": training.losses,
        "lr_schedule": training.lr_schedule,
        "augment": training.augment,
    }.items()
}
