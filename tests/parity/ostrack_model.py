"""OSTrack's network from a case, and the forward cases."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack.trackers.ostrack import elimination
from jaxtrack.trackers.ostrack import tracker as ostrack
from jaxtrack.trackers.ostrack.head import CentreMaps
from jaxtrack.trackers.ostrack.names import OSTRACK
from jaxtrack.weights.names import from_published
from tests.parity.case import Case, ParityError, Report, frames

# Backbones of the published code: width, depth, heads.
_BACKBONES = {
    "vit_base_patch16_224": (768, 12, 12),
    "vit_base_patch16_224_ce": (768, 12, 12),
    "vit_large_patch16_224": (1024, 24, 16),
    "vit_large_patch16_224_ce": (1024, 24, 16),
}
_PROSE = re.compile(r"(how|why|what|note|notes)$|.*_(how|why|what|note|notes)$")
# Top-level fields that every kind may have, and those that a network's cases add.
COMMON = {
    "reference",
    "kind",
    "seed",
    "schema",
    "config",
    "inputs",
    "outputs",
    "tolerance",
    "model",
}
NETWORK = COMMON | {"mode", "store", "weight_adjust", "weight_scale", "weight_offset"}
_CONFIG = {
    "search_size",
    "template_size",
    "stride",
    "backbone",
    "ce_loc",
    "ce_keep_ratio",
    "ce_template_range",
    "cat_mode",
    "sep_seg",
    "head",
    "head_channels",
    "test_search_factor",
    "test_template_factor",
    "layer_norm_eps",
    "batch_norm_eps",
    "mlp_ratio",
    "qkv_bias",
    "activation",
    "ce_start_epoch",
    "ce_warm_epoch",
}
_ARCH = {
    "embed_dim",
    "depth",
    "num_heads",
    "ce_loc",
    "ce_keep_ratio",
    "drop_path_rate",
    "mlp_ratio",
}
# Overridden settings of the yaml that the json's other fields repeat as they stand.
_REPEATED = re.compile(
    r"MODEL\.(HEAD\.(NUM_CHANNELS|TYPE)|BACKBONE\.(TYPE|STRIDE|SEP_SEG|CAT_MODE|CE_LOC|CE_KEEP_RATIO"
    r"|CE_TEMPLATE_RANGE)|PRETRAIN_FILE)|(DATA|TEST)\..*(SIZE|FACTOR)|TRAIN\.(WEIGHT_DECAY|LR"
    r"|BACKBONE_MULTIPLIER|GRAD_CLIP_NORM|GIOU_WEIGHT|L1_WEIGHT|OPTIMIZER|CE_START_EPOCH|CE_WARM_EPOCH)"
)


def known(where: str, values: dict[str, Any], names: set[str]) -> None:
    """Refuse fields that nobody reads (prose may stand anywhere)."""
    unknown = sorted(key for key in set(values) - names if not _PROSE.match(key))
    if unknown:
        raise ParityError(f"unknown fields in {where}: {', '.join(unknown)}")


def expect(where: str, value: Any, wanted: Any) -> None:
    """Refuse a setting that our code has in one form only."""
    if value != wanted:
        raise ParityError(f"{where} is {value!r}; only {wanted!r} is built")


def known_model(model: dict[str, Any]) -> None:
    """Refuse an unknown model field, or an override that the json does not repeat elsewhere."""
    known("model", model, {"type", "yaml", "overrides", "arch"})
    for name in model.get("overrides", {}):
        if not _REPEATED.fullmatch(name):
            raise ParityError(f"unknown override {name}")


def tracker_config(case: Case) -> ostrack.Config:
    """Our config of a case's model."""
    published, model = case.config, case.meta["model"]
    known("config", published, _CONFIG)
    known_model(model)
    arch = model.get("arch", {})
    known("model.arch", arch, _ARCH)
    for name, wanted in (
        ("cat_mode", "direct"),
        ("sep_seg", False),
        ("head", "CENTER"),
        ("qkv_bias", True),
        ("activation", "gelu (erf)"),
    ):
        expect(f"config.{name}", published.get(name, wanted), wanted)
    if published["backbone"] not in _BACKBONES:
        raise ParityError(f"unknown backbone {published['backbone']!r}")
    width, depth, heads = _BACKBONES[published["backbone"]]
    shapes = dict(case.schema())
    return ostrack.Config(
        template_size=published["template_size"],
        search_size=published["search_size"],
        template_factor=published["test_template_factor"],
        search_factor=published["test_search_factor"],
        patch=published["stride"],
        width=arch.get("embed_dim", width),
        depth=arch.get("depth", depth),
        heads=arch.get("num_heads", heads),
        mlp_ratio=arch.get("mlp_ratio", published["mlp_ratio"]),
        ce_blocks=tuple(arch.get("ce_loc", published["ce_loc"])),
        ce_keep_ratios=tuple(arch.get("ce_keep_ratio", published["ce_keep_ratio"])),
        ce_template_range=published["ce_template_range"],
        head_channels=published["head_channels"],
        pretraining_grid=round((shapes["backbone.pos_embed"][1] - 1) ** 0.5),
        drop_path_rate=arch.get("drop_path_rate", 0.1),
        layer_norm_epsilon=published["layer_norm_eps"],
        batch_norm_epsilon=published["batch_norm_eps"],
    )


def load(case: Case, config: ostrack.Config) -> Any:
    """The case's weights in our tree, strictly merged by the library's name table."""
    template = jax.eval_shape(lambda: ostrack.init_variables(config, jax.random.key(0)))
    return from_published(OSTRACK, case.state_dict(), template)


def pair_images(case: Case, config: ostrack.Config) -> tuple[np.ndarray, np.ndarray]:
    """Template and search images, uint8 ``(b, s, s, 3)``."""
    pair = case.meta["inputs"]["pair"]
    known("inputs.pair", pair, {"pair_seeds", "search_size", "template_size"})
    expect("inputs.pair.search_size", pair["search_size"], config.search_size)
    expect("inputs.pair.template_size", pair["template_size"], config.template_size)
    size, small = pair["search_size"], pair["template_size"]
    offset = (size - small) // 2
    templates, searches = [], []
    for seed in pair["pair_seeds"]:
        images = frames(seed, 2, size, size)[0]
        templates.append(images[0][offset : offset + small, offset : offset + small])
        searches.append(images[1])
    return np.stack(templates), np.stack(searches)


def with_mask(case: Case, config: ostrack.Config, count: int, mask: str) -> tuple[Any, Any]:
    """Config with the rows that the case asks for, and the mask of each sample (b, z)."""
    if mask == "none":
        config = ostrack.Config(**{**vars(config), "ce_template_range": "ALL"})
    elif mask != "config":
        raise ParityError(f"unknown inputs.ce.mask {mask!r}")
    boxes = case.meta["inputs"].get("template_boxes")
    if config.ce_template_range == "GT_BOX" and boxes is None:
        raise ParityError("template range GT_BOX needs inputs.template_boxes")
    boxes = np.zeros((count, 4)) if boxes is None else np.asarray(boxes)
    masks = [ostrack.template_mask(config, jnp.asarray(b, jnp.float32)) for b in boxes]
    return config, jnp.stack(masks)


def nchw(x: Any) -> np.ndarray:
    """NHWC to the packs' NCHW."""
    return np.moveaxis(np.asarray(x), -1, 1)


def maps_nchw(maps: CentreMaps) -> dict[str, np.ndarray]:
    """The head's maps as recorded."""
    return {
        "score_map": np.asarray(maps.score)[:, None],
        "size_map": nchw(maps.size),
        "offset_map": nchw(maps.offset),
    }


def margin(score: Any) -> np.ndarray:
    """Largest minus second largest value of each map."""
    flat = np.sort(np.asarray(score).reshape(len(score), -1), axis=1)
    return flat[:, -1] - flat[:, -2]


def check_if(report: Report, name: str, ours: Any, **keywords: Any) -> None:
    """Compare where the case recorded the array."""
    if name in report.case.arrays:
        report.check(name, ours, **keywords)


def same_sets(recorded: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Per sample: number of tokens that only one of both sets holds."""
    sets = [set(np.asarray(row).tolist()) for row in recorded]
    ours = [set(np.flatnonzero(row).tolist()) for row in kept]
    return np.asarray([len(a ^ b) for a, b in zip(sets, ours)])


def cut_gap(score: np.ndarray, kept: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Relative gap between the last kept and the first removed token of each sample."""
    last = np.where(kept, score, np.inf).min(axis=1)
    first = np.where(removed, score, -np.inf).max(axis=1)
    return (last - first) / last


def check_stages(
    report: Report, features: Any, blocks: tuple[int, ...], prefix: str = "", length: int = 0
) -> np.ndarray:
    """Compare every elimination; returns the samples whose tokens are the recorded ones.

    A set may differ only where the recorded gap at the cut is below its own tolerance; the sample then
    went another way, and is left out of what follows.
    """
    arrays = report.case.arrays
    alive = np.ones(np.asarray(features.search).shape[:2], bool)
    good = np.ones(len(alive), bool)
    for block, kept, score in zip(blocks, features.kept, features.scores):
        name = f"{prefix}ce{block}"
        kept, score = np.asarray(kept), np.asarray(score)
        removed = alive & ~kept
        check_if(report, f"{name}_score", np.where(alive, score, np.nan), rows=good)
        gap_name = f"{name}_cut_gap"
        ties = np.zeros(len(good), bool)
        if gap_name in arrays:
            atol = report.tolerance(gap_name)["atol"]
            ties = np.abs(arrays[gap_name]) <= atol
        before = good.copy()
        for suffix, ours in (("keep", kept), ("removed", removed)):
            if f"{name}_{suffix}" not in arrays:
                continue
            wrong = same_sets(arrays[f"{name}_{suffix}"], ours)
            bad = before & ~ties & (wrong > 0)
            report.check_true(
                f"{name}_{suffix}", not bad.any(), float(wrong[before].max(initial=0)), "as a set"
            )
            good &= wrong == 0
        if gap_name in arrays:
            with np.errstate(invalid="ignore"):
                gaps = cut_gap(score, kept, removed)
            report.check(gap_name, gaps, rows=good)
        alive = kept
    return good


def check_tokens(report: Report, name: str, tokens: Any, first: int, rows: np.ndarray) -> None:
    """Compare ``<name>_z``, ``_x``, ``_sum``, ``_abs`` and ``_token_abs`` of (b, z + n, c)."""
    store = report.case.meta["store"]
    values = np.asarray(tokens, np.float64)
    stride, step = store["token_stride"], store["channel_stride"]
    check_if(report, f"{name}_z", values[:, :first][:, ::stride, ::step], rows=rows)
    check_if(report, f"{name}_x", values[:, first:][:, ::stride, ::step], rows=rows)
    check_if(report, f"{name}_sum", values.sum(axis=1), rows=rows)
    check_if(report, f"{name}_abs", np.abs(values).sum(axis=1), rows=rows)
    check_if(report, f"{name}_token_abs", np.abs(values).sum(axis=2), rows=rows)


def forward(case: Case, report: Report) -> None:
    """Every stage of the network in evaluation mode, tokens gathered as in tracking."""
    known("case", case.meta, NETWORK)
    known("inputs", case.meta["inputs"], {"pair", "ce", "template_boxes"})
    known(
        "store",
        case.meta["store"],
        {"token_stride", "channel_stride", "blocks", "head_channel", "head_spatial"},
    )
    config = tracker_config(case)
    weights = load(case, config)
    templates, searches = pair_images(case, config)
    counts = None
    masks = None
    if config.ce_blocks:
        ce = case.meta["inputs"]["ce"]
        known("inputs.ce", ce, {"mask", "keep_rate"})
        config, masks = with_mask(case, config, len(templates), ce["mask"])
        check_if(report, "template_mask", np.asarray(masks).astype(np.int8))
        if ce["keep_rate"] is not None:
            ratios = (ce["keep_rate"],) * len(config.ce_blocks)
            counts = elimination.keep_counts(ratios, config.search_grid**2)
    net = ostrack.network(config)

    def run(weights: Any, z: Any, x: Any) -> Any:
        def stages(net: Any) -> Any:
            tokens = net.embed_template(ostrack.normalise(z))
            features = net.features(tokens, ostrack.normalise(x), counts, masks)
            return tokens, features, net.maps(features.search)

        return net.apply(weights, method=stages, mutable=["intermediates"])

    (tokens, features, maps), inner = jax.jit(run)(weights, templates, searches)
    stages = jax.tree.map(np.asarray, inner["intermediates"])
    backbone, head = stages["backbone"], stages["box_head"]
    first, every = config.template_grid**2, np.ones(len(templates), bool)
    patches = np.concatenate([backbone["patches_z"][0], backbone["patches_x"][0]], axis=1)
    check_tokens(report, "patch_embed", patches, first, every)
    positions = weights["params"]["backbone"]
    embed_x = backbone["patches_x"][0] + np.asarray(positions["pos_embed_x"])
    embed = np.concatenate([np.asarray(tokens), embed_x], axis=1)
    check_tokens(report, "embed", embed, first, every)
    good = check_stages(report, features, config.ce_blocks)
    for i in case.meta["store"]["blocks"]:
        early = not config.ce_blocks or i < config.ce_blocks[0]
        block = backbone[f"block{i}"][0]
        check_tokens(report, f"block{i}", block, first, every if early else good)
    whole = np.concatenate([features.template, features.search], axis=1)
    check_tokens(report, "feat", whole, first, good)
    channel, spatial = case.meta["store"]["head_channel"], case.meta["store"]["head_spatial"]
    for branch in ("ctr", "offset", "size"):
        for stage in range(1, 5):
            value = nchw(head[f"{branch}{stage}"][0]).astype(np.float64)
            name = f"head_{branch}{stage}"
            check_if(report, name, value[:, ::channel, ::spatial, ::spatial], rows=good)
            check_if(report, f"{name}_sum", value.sum(axis=(2, 3)), rows=good)
        check_if(report, f"head_{branch}_logits", nchw(head[f"{branch}_logits"][0]), rows=good)
    check_maps(report, maps, good)


def check_maps(report: Report, maps: CentreMaps, good: np.ndarray) -> None:
    """Compare the maps, the boxes read at their maxima, and how safe these are."""
    for name, value in maps_nchw(maps).items():
        report.check(name, value, rows=good)
    boxes = np.asarray(ostrack.decode_boxes(maps.score, maps.size, maps.offset))
    safe = good
    if "score_margin" in report.case.arrays:
        report.check("score_margin", margin(maps.score), rows=good)
        atol = report.tolerance("score_margin")["atol"]
        safe = good & (report.case.arrays["score_margin"] > atol)
    report.check("pred_boxes", boxes[:, None], rows=safe)
