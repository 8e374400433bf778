"""Training presets of SiamRPN++, and how they start from pre-trained backbones."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

import jax
from jaxtyping import Array

from jaxtrack.ops.patch import PatchSpec
from jaxtrack.synthetic.realism import LIFELIKE
from jaxtrack.synthetic.world import PatchConfig, WorldConfig
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.names import (
    TABLES,
    take_raw_images,
    torchvision_mobilenet_v2,
    torchvision_resnet50,
)
from jaxtrack.weights import from_published, is_own, load_into, read_published
from jaxtrack.weights.names import NameTable

from ...optim import Group, OptimConfig, Schedule
from ...presets import Preset
from . import recipe as recipes
from .crops import CropConfig
from .loss import Config, init_variables, task
from .recipe import Recipe


def _shape(state: dict[str, Any], name: str) -> tuple[int, ...]:
    return tuple(state[name].shape) if name in state else ()


def _stage(name: str) -> int:
    """Return the stage of MobileNetV2 that a parameter belongs to; 0 where its name tells none."""
    found = re.match(r"(?:backbone\.)?layer([1-7])\.", name)
    return int(found[1]) if found else 0


def load(config: Config, path: pathlib.Path, key: Array) -> dict[str, Any]:
    """Return the variables at the start from ``--init-from``: a pre-trained backbone, or the whole network.

    Args:
        config: the task.
        path: PySOT's or torchvision's ImageNet file of the backbone (neck and head stay random), a
            released tracker, or ours; of ours also a SiamFC whose five convolutions have these sizes.
        key: for what the file does not have.

    Raises:
        JaxtrackError: the file is unreadable, or its weights do not fit; both lists are in the message.
    """
    variables = jax.jit(lambda k: init_variables(config, k))(key)
    if path.is_dir():
        return load_into(variables, path, TABLES)
    state = read_published(path)
    if "params/backbone/conv1.0/kernel" in state and config.tracker.network.backbone == "alexnet":
        return start_from_siamfc(variables, path)
    if is_own(state):
        return load_into(variables, path, TABLES)
    if any("rpn_head." in name for name in state):
        return load_into(variables, path, {"STVIR/pysot": TABLES["STVIR/pysot"]})
    backbone = config.tracker.network.backbone
    table = TABLES["STVIR/pysot backbone"]
    if backbone == "resnet50" and _shape(state, "layer2.0.downsample.0.weight")[2:] == (1, 1):
        table, state = NameTable(), take_raw_images(torchvision_resnet50(state))
    elif backbone == "mobilenetv2" and "features.0.0.weight" in state:
        table, state = NameTable(), take_raw_images(torchvision_mobilenet_v2(state))
    if backbone == "mobilenetv2":
        last = max(config.tracker.network.levels)
        state = {name: value for name, value in state.items() if _stage(name) <= last}
    part = {kind: {"backbone": tree["backbone"]} for kind, tree in variables.items()}
    filled = from_published(table, state, part)
    return {kind: {**tree, **filled[kind]} for kind, tree in variables.items()}


def start_from_siamfc(variables: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Return a SiamFC's convolutions as the backbone of SiamRPN++; all else stays as it is.

    Args:
        variables: of a SiamRPN++ with an AlexNet.
        path: weights of ours of a SiamFC with the same widths and kernels.

    Raises:
        JaxtrackError: the file is unreadable, or its sizes are others; both lists are in the message.
    """
    # SiamFC takes RGB from 0 to 1 where SiamRPN++ takes BGR from 0 to 255, and has no norm after conv5.
    wanted = {
        kind: {
            "backbone": {
                name.replace("layer", "conv"): leaves
                for name, leaves in tree["backbone"].items()
                if name != "layer5.1"
            }
        }
        for kind, tree in variables.items()
    }
    found = load_into(wanted, path, part="/backbone/")
    first = found["params"]["backbone"]["conv1.0"]
    first["kernel"] = first["kernel"][:, :, ::-1] / 255.0
    started = {}
    for kind, tree in variables.items():
        layers = {n.replace("conv", "layer"): x for n, x in found[kind]["backbone"].items()}
        started[kind] = {**tree, "backbone": {**tree["backbone"], **layers}}
    return started


def published(
    tracker: siamrpn.Config,
    recipe: Recipe,
    processes: int,
    negative: float,
    frozen_below: int,
    grey: float = 0.0,
) -> Config:
    """Return PySOT's training configuration of a tracker.

    Args:
        tracker: its tracking preset; the network is taken from it.
        recipe: the schedule.
        processes: of the published run.
        negative: share of negative pairs.
        frozen_below: first backbone stage that trains at all.
        grey: share of grey pairs.
    """
    network = dataclasses.replace(tracker.network, frozen_below=frozen_below)
    return Config(
        tracker=dataclasses.replace(tracker, network=network),
        template=CropConfig(size=127, shift=4, scale=0.05, colour=1.0),
        search=CropConfig(size=255, shift=64, scale=0.18, colour=1.0, blur=0.2),
        # Stored crops of 511 pixels, as published.
        patch=PatchConfig(
            template=PatchSpec(size=511, nominal=127, factor=1.0),
            search=PatchSpec(size=511, nominal=255, factor=255 / 127),
            negative_rate=negative,
        ),
        grey=grey,
        processes=processes,
        backbone_epoch=recipe.backbone_epoch,
    )


_PAIRS_PER_EPOCH = 600_000
_ABLATION_STEPS = 800


def _published_preset(
    name: str,
    config: Config,
    recipe: Recipe,
    batch_size: int,
    init_from: str,
    source: str,
    data: str = "siamrpn",
) -> Preset:
    """Return a published recipe: 600,000 pairs per epoch in batches of all processes."""
    per_epoch = _PAIRS_PER_EPOCH // batch_size
    return Preset(
        task=task(config),
        tracker=name,
        optim=recipes.optimizer(recipe),
        batch_size=batch_size,
        steps=per_epoch * recipe.epochs,
        epochs=recipe.epochs,
        save_every=per_epoch,
        data_recipe=data,
        source=source,
        init_from=init_from,
        load=load,
    )


def _from_third(name: str) -> siamrpn.Config:
    """Return a small tracker whose first two blocks stay as they were: they see edges and colours."""
    tracker = siamrpn.PRESETS[name]
    network = dataclasses.replace(tracker.network, frozen_below=3)
    return dataclasses.replace(tracker, network=network)


_TINY = Config(
    tracker=_from_third("siamrpnpp-tiny"),
    template=CropConfig(size=127, shift=2, scale=0.03, colour=1.0),
    search=CropConfig(size=207, shift=4, scale=0.1, colour=1.0, blur=0.05),
    patch=PatchConfig(
        template=PatchSpec(size=143, nominal=127, factor=1.0),
        search=PatchSpec(size=239, nominal=207, factor=207 / 127),
        max_shift=40.0,
        max_scale=0.25,
        negative_rate=0.1,
        # Boxes are regressed, so views may differ by more than a matching network bears.
        aspect_change=1.0,
        rotation=0.6,
        deformation=0.2,
        occlusion_rate=0.25,
    ),
    hardness=1.0,
    other_pairs=0.5,
    grey=0.1,
)


def _mobile(tracker: str, frozen_below: int) -> Config:
    """Return the task of a small tracker with MobileNetV2, for an accelerator."""
    config = siamrpn.PRESETS[tracker]
    network = dataclasses.replace(config.network, frozen_below=frozen_below)
    return dataclasses.replace(
        _TINY,
        tracker=dataclasses.replace(config, network=network),
        # A padded network knows where the middle is: targets lie all over the window. The crop sees to it,
        # not the world, for in patches of built datasets they lie in the middle.
        search=CropConfig(size=255, shift=64, scale=0.18, colour=1.0, blur=0.05),
        patch=dataclasses.replace(
            _TINY.patch,
            search=PatchSpec(size=431, nominal=255, factor=255 / 127),
            max_shift=0.0,
            max_scale=0.2,
            border_rate=0.4,
        ),
        world=WorldConfig(real=LIFELIKE),
    )


def _shifted(shift: int) -> Config:
    """Return the padded network with targets spread by up to ``shift`` pixels: spatial-aware sampling."""
    return dataclasses.replace(
        _TINY,
        tracker=siamrpn.PRESETS["siamrpnpp-padded"],
        template=CropConfig(size=127, colour=0.0),
        search=CropConfig(size=255, colour=0.0),
        patch=PatchConfig(
            template=PatchSpec(size=127, nominal=127, factor=1.0),
            search=PatchSpec(size=255, nominal=255, factor=255 / 127),
            max_shift=float(shift),
            max_scale=0.25,
            aspect_change=0.6,
        ),
        # What is compared is the sampling alone: labels as published, nothing else against the bias.
        hardness=0.0,
        other_pairs=0.0,
    )


def _small(config: Config, tracker: str, steps: int) -> Preset:
    """Return a short training on the synthetic world, from siamfc-tiny where blocks are frozen."""
    frozen = config.tracker.network.frozen_below > 0
    return Preset(
        task=task(config),
        tracker=tracker,
        optim=OptimConfig("adamw", 2e-3, Schedule("onecycle"), weight_decay=1e-4, clip_norm=10.0),
        batch_size=8,
        steps=steps,
        data_recipe="all",
        log_every=20,
        save_every=500,
        source="jaxtrack: the synthetic world",
        init_from="the weights of siamfc-tiny" if frozen else "",
        load=load,
    )


def _mobile_preset(tracker: str, frozen_below: int, backbone: float, init_from: str) -> Preset:
    """Return a training for an accelerator.

    Args:
        tracker: what is trained.
        frozen_below: first stage of the backbone that trains at all.
        backbone: factor on the backbone's learning rate.
        init_from: the weights that it starts from, in words.
    """
    config = _mobile(tracker, frozen_below)
    slow = (Group(r"^backbone\.", rate=backbone),) if backbone != 1 else ()
    still = rf"^backbone\.layer[0-{frozen_below - 1}]\."
    frozen = (Group(still, rate=0.0),) if frozen_below else ()
    return Preset(
        task=task(config),
        tracker=tracker,
        optim=OptimConfig(
            "adamw",
            1e-3,
            Schedule("onecycle", rise=0.1),
            weight_decay=1e-3,
            clip_norm=10.0,
            groups=(*frozen, *slow),
        ),
        batch_size=64,
        steps=40_000,
        log_every=100,
        save_every=2000,
        data_recipe="all",
        source="jaxtrack: the synthetic world, for an accelerator",
        init_from=init_from,
        load=load,
        ema=0.999,
    )


PRESETS: dict[str, Preset] = {
    "siamrpnpp-r50": _published_preset(
        "siamrpnpp-r50",
        published(siamrpn.PRESETS["siamrpnpp-r50"], recipes.R50_8GPU, 8, 0.2, 2),
        recipes.R50_8GPU,
        28 * 8,
        "an ImageNet ResNet-50",
        "STVIR/pysot, siamrpn_r50_l234_dwxcorr_8gpu",
    ),
    "siamrpnpp-r50-16gpu": _published_preset(
        "siamrpnpp-r50",
        published(siamrpn.PRESETS["siamrpnpp-r50"], recipes.R50_16GPU, 16, 0.2, 2),
        recipes.R50_16GPU,
        24 * 16,
        "an ImageNet ResNet-50",
        "STVIR/pysot, siamrpn_r50_l234_dwxcorr_16gpu",
    ),
    "siamrpnpp-r50-otb": _published_preset(
        "siamrpnpp-r50-otb",
        published(siamrpn.PRESETS["siamrpnpp-r50-otb"], recipes.R50_OTB_8GPU, 8, 0.2, 1, grey=0.2),
        recipes.R50_OTB_8GPU,
        16 * 8,
        "an ImageNet ResNet-50",
        "STVIR/pysot, siamrpn_r50_l234_dwxcorr_otb_8gpu",
    ),
    # No training file of it is published: ResNet-50's, from the stage of stride 8 on.
    "siamrpnpp-mobilev2": _published_preset(
        "siamrpnpp-mobilev2",
        published(siamrpn.PRESETS["siamrpnpp-mobilev2"], recipes.MOBILE_8GPU, 8, 0.2, 3),
        recipes.MOBILE_8GPU,
        28 * 8,
        "an ImageNet MobileNetV2",
        "jaxtrack: STVIR/pysot's siamrpn_r50_l234_dwxcorr_8gpu with MobileNetV2",
    ),
    "siamrpnpp-alex": _published_preset(
        "siamrpnpp-alex",
        published(siamrpn.PRESETS["siamrpnpp-alex"], recipes.ALEX_16GPU, 16, 0.05, 4),
        recipes.ALEX_16GPU,
        128 * 16,
        "an ImageNet AlexNet with batch normalisation",
        "STVIR/pysot, siamrpn_alex_dwxcorr_16gpu",
        data="siamrpn_alex",
    ),
    "siamrpnpp-tiny": _small(_TINY, "siamrpnpp-tiny", 5000),
    "siamrpnpp-small": _mobile_preset("siamrpnpp-small", 0, 1.0, ""),
    "siamrpnpp-small-imagenet": _mobile_preset(
        "siamrpnpp-small-imagenet", 2, 0.1, "torchvision's MobileNetV2 (ImageNet)"
    ),
    **{
        name: _small(dataclasses.replace(_TINY, tracker=_from_third(name)), name, _ABLATION_STEPS)
        for name in ("siamrpnpp-tiny-1level", "siamrpnpp-tiny-2levels")
    },
    **{
        f"siamrpnpp-padded-shift{shift}": _small(
            _shifted(shift), "siamrpnpp-padded", _ABLATION_STEPS
        )
        for shift in (0, 16, 32, 64)
    },
}
