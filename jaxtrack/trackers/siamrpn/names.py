"""Name tables of SiamRPN++: PySOT's model zoo and backbone files, torchvision's ImageNet networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from jaxtrack.weights.names import NameTable

# AlexNet's flat ``features.K`` (released trackers) as ``layerN.M`` (training configurations, and ours).
_ALEXNET = (
    (0, "1.0"),
    (1, "1.1"),
    (4, "2.0"),
    (5, "2.1"),
    (8, "3.0"),
    (9, "3.1"),
    (11, "4.0"),
    (12, "4.1"),
    (14, "5.0"),
    (15, "5.1"),
)


def _alexnet(prefix: str) -> tuple[tuple[str, str], ...]:
    start = re.escape(prefix)
    return tuple((rf"^{start}features\.{old}\.", rf"{prefix}layer{new}.") for old, new in _ALEXNET)


TABLES: dict[str, NameTable] = {
    # siamrpn_{r50_l234,mobilev2_l234,alex}_dwxcorr and their variants: our names are PySOT's, and AlexNet's
    # are written as its released trackers have them.
    "STVIR/pysot": NameTable(
        rename=_alexnet("backbone."),
        restore=tuple(
            (rf"^backbone\.layer{re.escape(new)}\.(?=\w+$)", f"backbone.features.{old}.")
            for old, new in _ALEXNET
        ),
    ),
    # pretrained_models/{resnet50.model,alexnet-bn.pth,mobilenet_v2.pth}: a backbone without prefix;
    # the classifier has no place here.
    "STVIR/pysot backbone": NameTable(
        rename=(
            *_alexnet(""),
            (r"^(?=(conv1|bn1|layer\d+)\.)", "backbone."),
        ),
        ignore=(r"^(fc|classifier|last_layer|layer8)\.",),
    ),
}


def torchvision_resnet50(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename torchvision's ``resnet50`` to our names, its 1x1 shortcuts widened where ours are 3x3.

    The strided and dilated stages here have 3x3 shortcuts; torchvision's weights become their centre tap
    (what PyTorch's network computes, up to one pixel of shift, is where fine-tuning starts).

    Args:
        state_dict: ``{name: array}``, kernels OIHW; the classifier is left out.

    Returns:
        ``{"backbone." + name: array}``, for `from_published` with an empty table.
    """
    state: dict[str, np.ndarray] = {}
    for name, value in state_dict.items():
        if name.startswith("fc."):
            continue
        if re.match(r"layer[234]\.0\.downsample\.0\.weight$", name) and value.shape[2:] == (1, 1):
            value = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1)))
        state[f"backbone.{name}"] = value
    return state


def torchvision_mobilenet_v2(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename torchvision's ``mobilenet_v2`` (width 1) to our names.

    Our first block has a 1x1 expansion even at factor 1; it becomes the identity, which changes nothing
    after a ReLU6.

    Args:
        state_dict: ``{name: array}``, kernels OIHW; the last convolution and the classifier are left out.

    Returns:
        ``{"backbone." + name: array}``, for `from_published` with an empty table.
    """
    blocks = {1: (1, 0)}
    for stage, count in zip(range(2, 8), (2, 3, 4, 3, 3, 1)):
        for i in range(count):
            blocks[len(blocks) + 1] = (stage, i)
    inner = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}
    first = {"0.0": "3", "0.1": "4", "1": "6", "2": "7"}
    state: dict[str, np.ndarray] = {}
    for name, value in state_dict.items():
        stem = re.match(r"features\.0\.([01])\.(\w+)$", name)
        block = re.match(r"features\.(\d+)\.conv\.(\d(?:\.\d)?)\.(\w+)$", name)
        if stem:
            state[f"backbone.layer0.{stem[1]}.{stem[2]}"] = value
        elif block and int(block[1]) in blocks:
            stage, i = blocks[int(block[1])]
            part = (first if stage == 1 else inner)[block[2]]
            state[f"backbone.layer{stage}.{i}.conv.{part}.{block[3]}"] = value
        elif not re.match(r"(features\.18|classifier)\.", name):
            state[name] = value  # foreign: the strict merge names it
    if "backbone.layer1.0.conv.3.weight" not in state:
        return state
    width = state["backbone.layer1.0.conv.3.weight"].shape[0]
    state["backbone.layer1.0.conv.0.weight"] = np.eye(width, dtype=np.float32)[:, :, None, None]
    state["backbone.layer1.0.conv.1.weight"] = np.full(width, np.sqrt(1 + 1e-5), np.float32)
    state["backbone.layer1.0.conv.1.bias"] = np.zeros(width, np.float32)
    state["backbone.layer1.0.conv.1.running_mean"] = np.zeros(width, np.float32)
    state["backbone.layer1.0.conv.1.running_var"] = np.ones(width, np.float32)
    return state


# What torchvision's networks expect of RGB images from 0 to 1: (image - mean) / deviation.
_IMAGENET_MEAN = np.asarray((0.485, 0.456, 0.406))
_IMAGENET_DEVIATION = np.asarray((0.229, 0.224, 0.225))
# First convolution and its normalisation, by our names.
_STEMS = (("layer0.0", "layer0.1"), ("conv1", "bn1"))


def take_raw_images(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fold torchvision's normalisation of images into the first layer, which then takes BGR from 0 to 255.

    The factors go into the kernel, the offset into the running mean behind it: the outputs are the same
    wherever no padding is seen.

    Args:
        state: ``{"backbone." + name: array}``, as `torchvision_mobilenet_v2` and `torchvision_resnet50`
            return it.
    """
    found = dict(state)
    for conv, norm in _STEMS:
        kernel, mean = f"backbone.{conv}.weight", f"backbone.{norm}.running_mean"
        if kernel not in found or mean not in found or np.ndim(found[kernel]) != 4:
            continue
        scaled = np.asarray(found[kernel], np.float64) / _IMAGENET_DEVIATION[None, :, None, None]
        offset = (scaled * _IMAGENET_MEAN[None, :, None, None]).sum((1, 2, 3))
        found[kernel] = (scaled[:, ::-1] / 255).astype(np.float32)
        found[mean] = (np.asarray(found[mean], np.float64) + offset).astype(np.float32)
    return found
