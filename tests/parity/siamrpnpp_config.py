"""PySOT's configuration files as ours; anything unknown is an error."""

from __future__ import annotations

from typing import Any

from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.network import NetworkConfig
from tests.parity.case import ParityError

# Our AlexNet's stages under the names of the released trackers (one flat Sequential).
LEGACY_STAGES = {
    f"layer{block}.{part}": f"features.{index}"
    for index, (block, part) in enumerate(
        [(1, i) for i in range(4)]
        + [(2, i) for i in range(4)]
        + [(3, i) for i in range(3)]
        + [(4, i) for i in range(3)]
        + [(5, i) for i in range(2)]
    )
}

_SECTIONS = {
    "BACKBONE": {"TYPE", "KWARGS", "CHANNELS", "PRETRAINED"}
    | {"TRAIN_LAYERS", "TRAIN_EPOCH", "LAYERS_LR"},
    "ADJUST": {"ADJUST", "TYPE", "KWARGS", "ADJUST_CHANNEL"},
    "RPN": {"TYPE", "KWARGS", "WEIGHTED"},
    "MASK": {"MASK"},
    "REFINE": {"REFINE"},
    "ANCHOR": {"STRIDE", "RATIOS", "SCALES", "ANCHOR_NUM"},
    "TRACK": {"TYPE", "PENALTY_K", "WINDOW_INFLUENCE", "LR", "EXEMPLAR_SIZE", "INSTANCE_SIZE"}
    | {"BASE_SIZE", "CONTEXT_AMOUNT", "LOST_INSTANCE_SIZE", "CONFIDENCE_LOW", "CONFIDENCE_HIGH"}
    | {"MASK_THERSHOLD", "MASK_OUTPUT_SIZE"},
    "TRAIN": {"THR_HIGH", "THR_LOW", "NEG_NUM", "POS_NUM", "TOTAL_NUM", "EXEMPLAR_SIZE"}
    | {"SEARCH_SIZE", "BASE_SIZE", "OUTPUT_SIZE", "CLS_WEIGHT", "LOC_WEIGHT", "MASK_WEIGHT"}
    | {"EPOCH", "START_EPOCH", "BATCH_SIZE", "NUM_WORKERS", "MOMENTUM", "WEIGHT_DECAY"}
    | {"BASE_LR", "LR", "LR_WARMUP", "GRAD_CLIP", "RESUME", "PRETRAINED", "LOG_DIR"}
    | {"SNAPSHOT_DIR", "PRINT_FREQ", "LOG_GRADS"},
    "DATASET": {"NAMES", "TEMPLATE", "SEARCH", "NEG", "GRAY", "VIDEOS_PER_EPOCH"}
    | {"VID", "YOUTUBEBB", "COCO", "DET"},
}
_PLAIN = {"META_ARC", "CUDA"}


def only(fields: dict[str, Any], known: set[str], where: str) -> None:
    """Raise for fields that nobody reads.

    Raises:
        ParityError: names them.
    """
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ParityError(f"{where}: unknown fields {unknown}")


def check_sections(config: dict[str, Any]) -> None:
    """Every section and key is one that PySOT's files have."""
    only(config, set(_SECTIONS) | _PLAIN, "config")
    for section, known in _SECTIONS.items():
        if section in config:
            only(config[section], known, section)
    if config.get("MASK", {}).get("MASK") or config.get("REFINE", {}).get("REFINE"):
        raise ParityError("mask branches (SiamMask) are not SiamRPN++")


def _backbone(section: dict[str, Any]) -> dict[str, Any]:
    """Backbone fields of `NetworkConfig`."""
    kwargs = section.get("KWARGS", {})
    only(kwargs, {"used_layers", "width_mult"}, "BACKBONE.KWARGS")
    kind = section["TYPE"]
    levels = tuple(kwargs.get("used_layers", ()))
    if kind == "resnet50":
        return {"backbone": "resnet50", "levels": levels or (2, 3, 4)}
    width = float(kwargs.get("width_mult", 1.0))
    if kind == "mobilenetv2":
        return {"backbone": "mobilenetv2", "levels": levels or (3, 5, 7), "width": width}
    if kind in ("alexnet", "alexnetlegacy"):
        return {"backbone": "alexnet", "levels": (5,), "width": width}
    raise ParityError(f"unknown backbone {kind!r}")


def _neck(section: dict[str, Any]) -> dict[str, Any]:
    if not section.get("ADJUST", False):
        return {"neck": ()}
    kind = section.get("TYPE", "AdjustAllLayer")
    if kind not in ("AdjustAllLayer", "AdjustLayer"):
        raise ParityError(f"unknown neck {kind!r}")
    kwargs = section.get("KWARGS", {})
    only(kwargs, {"in_channels", "out_channels", "center_size"}, "ADJUST.KWARGS")
    return {"neck": _widths(kwargs["out_channels"]), "neck_crop": kwargs.get("center_size", 7)}


def _widths(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _head(section: dict[str, Any], anchors: int) -> dict[str, Any]:
    kwargs = section.get("KWARGS", {})
    kind = section["TYPE"]
    if kwargs.get("anchor_num", anchors) != anchors:
        raise ParityError(f"anchor_num {kwargs['anchor_num']}, but {anchors} anchors are made")
    if kind == "MultiRPN":
        only(kwargs, {"anchor_num", "in_channels", "weighted"}, "RPN.KWARGS")
        fusion = "weighted" if kwargs.get("weighted", False) else "average"
        return {"head": _widths(kwargs["in_channels"]), "fusion": fusion}
    if kind == "DepthwiseRPN":
        only(kwargs, {"anchor_num", "in_channels", "out_channels"}, "RPN.KWARGS")
        return {"head": (kwargs.get("out_channels", 256),), "fusion": "single"}
    if kind == "UPChannelRPN":
        only(kwargs, {"anchor_num", "feature_in"}, "RPN.KWARGS")
        width = kwargs.get("feature_in", 256)
        return {"head": (width,), "fusion": "single", "correlation": "up"}
    raise ParityError(f"unknown head {kind!r}")


def network_config(config: dict[str, Any]) -> NetworkConfig:
    """Backbone, neck and head of a PySOT configuration."""
    check_sections(config)
    anchor = config.get("ANCHOR", {})
    count = len(anchor.get("RATIOS", range(5))) * len(anchor.get("SCALES", [8]))
    if anchor.get("ANCHOR_NUM", count) != count:
        raise ParityError(f"ANCHOR_NUM {anchor['ANCHOR_NUM']}, but {count} anchors are made")
    return NetworkConfig(
        **_backbone(config["BACKBONE"]),
        **_neck(config.get("ADJUST", {})),
        **_head(config["RPN"], count),
        anchors=count,
    )


def tracker_config(config: dict[str, Any]) -> siamrpn.Config:
    """A PySOT configuration as our tracker's (missing values: PySOT's defaults)."""
    network = network_config(config)
    anchor, track = config.get("ANCHOR", {}), config.get("TRACK", {})
    kind = track.get("TYPE", "SiamRPNTracker")
    if kind not in ("SiamRPNTracker", "SiamRPNLTTracker"):
        raise ParityError(f"unknown tracker {kind!r}")
    long_term = kind == "SiamRPNLTTracker"
    return siamrpn.Config(
        network=network,
        stride=anchor.get("STRIDE", 8),
        ratios=tuple(anchor.get("RATIOS", (0.33, 0.5, 1, 2, 3))),
        scales=tuple(anchor.get("SCALES", (8,))),
        exemplar_size=track.get("EXEMPLAR_SIZE", 127),
        instance_size=track.get("INSTANCE_SIZE", 255),
        base_size=track.get("BASE_SIZE", 8),
        context=track.get("CONTEXT_AMOUNT", 0.5),
        penalty_k=track.get("PENALTY_K", 0.04),
        window_influence=track.get("WINDOW_INFLUENCE", 0.44),
        size_rate=track.get("LR", 0.4),
        lost_instance_size=track.get("LOST_INSTANCE_SIZE", 831) if long_term else 0,
        confidence_low=track.get("CONFIDENCE_LOW", 0.85),
        confidence_high=track.get("CONFIDENCE_HIGH", 0.998),
    )
