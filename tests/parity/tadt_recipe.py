"""Reading TADT's cases: configurations, clips, kernels, maps, all from the json; unknown fields fail."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.trackers.tadt import channels as tadt_choice
from jaxtrack.trackers.tadt import tracker as tadt
from jaxtrack.trackers.tadt.extractor import Extractor
from jaxtrack.trackers.tadt.names import TORCHVISION_VGG16
from jaxtrack.trackers.tadt.ridge import Descent
from jaxtrack.weights.names import from_published
from tests.parity import standin
from tests.parity.case import Case, ParityError, apply_edits, frames, sequence_frames

LABEL_LOSS = "mean squared error over the map"


def known(fields: dict[str, Any], allowed: set[str], where: str) -> dict[str, Any]:
    """The fields, after refusing those that nobody reads."""
    unknown = set(fields) - allowed
    if unknown:
        raise ParityError(f"unknown fields in {where}: {sorted(unknown)}")
    return fields


def config_of(case: Case) -> tadt.Config:
    """Our config, with the published code's rules and this case's settings."""
    names = {"max_size", "min_size", "search_factor", "scales", "scale_weights", "total_stride"}
    names |= {"layers", "pixel_offset", "channel_order", "ridge", "channels", "feature_pad"}
    given = known(case.config, names, "config")
    if given["channel_order"] != "RGB":
        raise ParityError(f"unknown channel order {given['channel_order']!r}")
    ridge = known(
        given["ridge"],
        {"optimiser", "lr", "momentum", "weight_decay", "steps", "loss", "label_alpha"}
        | {"label_sigma_factor"},
        "config.ridge",
    )
    if ridge["optimiser"] != "SGD" or ridge["loss"] != LABEL_LOSS:
        raise ParityError(f"unknown ridge optimiser or loss: {ridge}")
    layers = tuple(given["layers"])
    channels = known(
        given["channels"], {*layers, "total_minimum", "balance_top"}, "config.channels"
    )
    offset = float(given["pixel_offset"])
    extractor = Extractor(layers=layers, pixel_offset=(offset, offset, offset))
    if given["total_stride"] != extractor.stride:
        raise ParityError(f"total stride {given['total_stride']}, the network's is 4")
    descent = Descent(ridge["steps"], ridge["lr"], ridge["momentum"], ridge["weight_decay"])
    return dataclasses.replace(
        tadt.PRESETS["tadt-code"],
        extractor=extractor,
        max_size=given["max_size"],
        min_size=given["min_size"],
        search_factor=given["search_factor"],
        scales=tuple(given["scales"]),
        scale_weights=tuple(given["scale_weights"]),
        feature_pad=given["feature_pad"],
        ridge=descent,
        label_alpha=ridge["label_alpha"],
        label_sigma=ridge["label_sigma_factor"],
        caps=tuple(channels[layer] for layer in layers),
        minimum=channels["total_minimum"],
        balance_top=channels["balance_top"],
    )


def clip_of(case: Case, clip: dict[str, Any]) -> np.ndarray:
    """RGB frames of a clip recipe, edits applied."""
    known(clip, {"source", "seed", "count", "height", "width", "edits"}, "clip")
    if clip["source"] == "weights.frames":
        images = frames(clip["seed"], clip["count"], clip["height"], clip["width"])[0]
    else:
        images = sequence_frames(clip["source"], case.folder)
        if images.shape[1:3] != (
            clip.get("height", images.shape[1]),
            clip.get("width", images.shape[2]),
        ):
            raise ParityError(f"the sequence's frames are {images.shape[1:3]}, not as {clip} says")
    return apply_edits(images, clip.get("edits", []))


def variables_of(case: Case, config: tadt.Config) -> Any:
    """The case's VGG weights in our tree, by the name table."""
    seed = case.meta["recipe"].get("weight_seed", case.meta["seed"])
    template = jax.eval_shape(lambda: tadt.init_variables(config, jax.random.key(0)))
    return from_published(TORCHVISION_VGG16, case.state_dict(seed=seed), template)


def heads_of(case: Case) -> dict[str, np.ndarray]:
    """The branches' initial kernels ``{name: (kh, kw, c)}`` that the json lists."""
    seed = case.meta["recipe"]["weight_seed"]
    state = case.state_dict("head_schema", seed=seed)
    names = [name for name, _ in case.schema("head_schema")]
    scales = case.meta["head_init_scale"]
    if len(scales) != len(names):
        raise ParityError(f"{len(names)} heads, {len(scales)} head_init_scale")
    return {
        name: (state[name] * np.float32(scale))[0].transpose(1, 2, 0)
        for name, scale in zip(names, scales)
    }


def default_heads(
    layers: tuple[str, ...], channels: tuple[int, ...], kernel_hw: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """The same where the json lists none (traces): the published deviation over the stand-in's."""
    kh, kw = (int(n) for n in kernel_hw)
    heads = {}
    for place, (layer, count) in enumerate(zip(layers, channels)):
        wanted = 1 / (math.sqrt(count * (kh - 1) / 2 * (kw - 1) / 2) * 1e8)
        scale = wanted / math.sqrt(2 / (count * kh * kw))
        for branch in ("reg", "rank") if place == 0 else ("reg",):
            name = f"{branch}_{layer}.conv.weight"
            values = standin.fill(name, (1, count, kh, kw), seed) * np.float32(scale)
            heads[name] = values[0].transpose(1, 2, 0)
    return heads


def on_canvas(kernel: np.ndarray, side: int) -> jax.Array:
    """A kernel centred in an odd canvas (at least its own size)."""
    kh, kw, c = kernel.shape
    rows, columns = max(side | 1, kh), max(side | 1, kw)
    canvas = np.zeros((rows, columns, c), kernel.dtype)
    top, left = (rows - kh) // 2, (columns - kw) // 2
    canvas[top : top + kh, left : left + kw] = kernel
    return jnp.asarray(canvas)


def off_canvas(kernel: Any, size: Any) -> np.ndarray:
    """The centred block of a canvas."""
    values = np.asarray(kernel)
    top, left = ((values.shape[i] - int(size[i])) // 2 for i in (0, 1))
    return values[top : top + int(size[0]), left : left + int(size[1])]


def kernels_of(
    heads: dict[str, np.ndarray], layers: tuple[str, ...], side: int
) -> tadt_choice.Kernels:
    """Both branches' initial kernels on canvases; the ranking branch has the first layer's only."""
    wanted = {f"reg_{layer}.conv.weight" for layer in layers} | {f"rank_{layers[0]}.conv.weight"}
    if set(heads) != wanted:
        raise ParityError(f"heads {sorted(heads)}, wanted {sorted(wanted)}")
    return tadt_choice.Kernels(
        tuple(on_canvas(heads[f"reg_{layer}.conv.weight"], side) for layer in layers),
        (on_canvas(heads[f"rank_{layers[0]}.conv.weight"], side),),
    )


def steps(case: Case, name: str) -> list[int]:
    """The subsampling that the json's description of an array states, axis by axis (``[::8, ::7]``)."""
    text = case.meta["outputs"][name]
    groups = re.findall(r"\[((?:\s*::?\d*\s*,?)+)\]", text)
    parts = [part.strip() for group in groups for part in group.split(",")]
    if not parts:
        raise ParityError(f"{name}: no subsampling in {text!r}")
    return [int(part[2:]) if part.startswith("::") else 1 for part in parts]


def chw(features: Any, size: int | None = None) -> np.ndarray:
    """``(h, w, c)`` as the packs' ``(c, h, w)``, cut to the true map."""
    values = np.asarray(features)
    return values[:size, :size].transpose(2, 0, 1)
