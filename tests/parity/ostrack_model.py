"""OSTrack's network, training and optimiser cases."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrack.models.centre_head import CentreMaps
from jaxtrack.ops import elimination
from jaxtrack.trackers import ostrack
from jaxtrack.weights.names import from_published, to_published
from jaxtrack.weights.tables_ostrack import OSTRACK
from tests.parity.case import Case, ParityError, Report, frames
from train import optim
from train.step import init_state
from train.tasks import ostrack as task

# Backbones of the published code: width, depth, heads.
_BACKBONES = {
    "vit_base_patch16_224": (768, 12, 12),
    "vit_base_patch16_224_ce": (768, 12, 12),
    "vit_large_patch16_224": (1024, 24, 16),
    "vit_large_patch16_224_ce": (1024, 24, 16),
}
_PROSE = re.compile(r"(how|why|what|note|notes)$|.*_(how|why|what|note|notes)$")
# Top-level fields that every kind may have, and those that a network's cases add.
COMMON = {"reference", "kind", "seed", "schema", "config", "inputs", "outputs", "tolerance", "model"}
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
_ARCH = {"embed_dim", "depth", "num_heads", "ce_loc", "ce_keep_ratio", "drop_path_rate", "mlp_ratio"}
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


def tracker_config(case: Case) -> ostrack.Config:
    """Our config of a case's model."""
    published, model = case.config, case.meta["model"]
    known("config", published, _CONFIG)
    known("model", model, {"type", "yaml", "overrides", "arch"})
    for name in model.get("overrides", {}):
        if not _REPEATED.fullmatch(name):
            raise ParityError(f"unknown override {name}")
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


def _training_step(case: Case, config: ostrack.Config) -> tuple[Any, Any]:
    """The step's function ``(params, stats, probes) -> (total, aux)``, and its keep rate."""
    inputs = case.meta["inputs"]
    known(
        "inputs", inputs, {"pair", "template_boxes", "search_boxes", "epoch", "mode", "steps"}
    )
    known("loss", case.meta["loss"], {"giou_weight", "l1_weight", "focal_weight"})
    if inputs["mode"] not in ("train", "eval"):
        raise ParityError(f"unknown mode {inputs['mode']!r}")
    train = inputs["mode"] == "train"
    if train and config.drop_path_rate:
        raise ParityError("training with drop path is random: nothing to compare")
    templates, searches = pair_images(case, config)
    config, masks = with_mask(case, config, len(templates), "config")
    net = ostrack.network(config)
    boxes = jnp.asarray(inputs["search_boxes"], jnp.float32)
    weights = task.LossWeights(*(case.meta["loss"][f"{k}_weight"] for k in ("giou", "l1", "focal")))
    rate, counts = 1.0, None
    if config.ce_blocks:
        annealing = annealing_of(case)
        rate = task.keep_rate(annealing, case.config["ce_keep_ratio"][0], inputs["epoch"])
        table = task.keep_table(
            annealing,
            (case.config["ce_keep_ratio"][0],) * len(config.ce_blocks),
            config.search_grid**2,
        )
        counts = jnp.asarray(table[inputs["epoch"] - 1])

    def step(params: Any, stats: Any, probes: Any) -> Any:
        variables = {"params": params, "batch_stats": stats}

        def stages(net: Any) -> Any:
            tokens = net.embed_template(ostrack.normalise(templates))
            features = net.features(tokens, ostrack.normalise(searches), counts, masks, train)
            probed = features._replace(
                search=features.search + probes["search"],
                template=features.template + probes["template"],
            )
            maps = net.maps(probed.search, train)
            return features, jax.tree.map(jnp.add, maps, probes["maps"])

        (features, maps), moved = net.apply(
            variables, method=stages, mutable=["batch_stats"] if train else []
        )
        total, parts = task.box_losses(weights, maps, boxes)
        return total, (features, maps, parts, moved.get("batch_stats", stats))

    return step, rate


def annealing_of(case: Case) -> task.Annealing:
    """The keep ratio's schedule: from the json, or the published one of the case's yaml."""
    overrides = case.meta["model"].get("overrides", {})
    got10k = "got10k" in case.meta["model"]["yaml"]
    start = overrides.get("TRAIN.CE_START_EPOCH", case.config.get("ce_start_epoch", 20))
    warm = overrides.get(
        "TRAIN.CE_WARM_EPOCH", case.config.get("ce_warm_epoch", 50 if got10k else 80)
    )
    epochs = max(100 if got10k else 300, case.meta["inputs"].get("epoch", 1))
    return task.Annealing(start, warm, epochs)


def _probes(case: Case, config: ostrack.Config) -> Any:
    """Zeros to be added to backbone output and maps; their gradients are those of the values."""
    count = len(case.meta["inputs"]["pair"]["pair_seeds"])
    side, f32 = config.search_grid, jnp.float32
    shape = (count, side, side)
    return {
        "search": jnp.zeros((count, side**2, config.width), f32),
        "template": jnp.zeros((count, config.template_grid**2, config.width), f32),
        "maps": CentreMaps(
            jnp.zeros(shape, f32), jnp.zeros((*shape, 2), f32), jnp.zeros((*shape, 2), f32)
        ),
    }


def _losses(total: Any, parts: Any) -> np.ndarray:
    return np.asarray([total, *(parts[name] for name in ("giou", "l1", "focal", "iou"))])


def train(case: Case, report: Report) -> None:
    """Losses and gradients, elimination in its masked form."""
    known("case", case.meta, NETWORK | {"loss", "outputs_order", "without_gradient"})
    known("store", case.meta["store"], {"params", "token_stride", "channel_stride", "bn"})
    config = tracker_config(case)
    weights = load(case, config)
    step, rate = _training_step(case, config)
    grad = jax.jit(jax.value_and_grad(step, argnums=(0, 2), has_aux=True))
    probes = _probes(case, config)
    (total, (features, maps, parts, stats)), (grads, probe_grads) = grad(
        weights["params"], weights["batch_stats"], probes
    )
    good = check_stages(report, features, config.ce_blocks)
    if not good.all():
        raise ParityError("tokens were eliminated otherwise at a tie: losses cannot be compared")
    boxes = jnp.asarray(case.meta["inputs"]["search_boxes"], jnp.float32)
    heatmap = task.losses.gaussian_heatmap(boxes, config.search_grid)
    report.check("heatmap", heatmap)
    check_if(report, "keep_rate", np.asarray(rate))
    check_maps(report, maps, good)
    report.check("losses", _losses(total, parts))
    for name, value in maps_nchw(probe_grads["maps"]).items():
        report.check(f"d_{name}", value)
    whole = np.concatenate([probe_grads["template"], probe_grads["search"]], axis=1)
    store = case.meta["store"]
    strided = whole[:, :: store["token_stride"], :: store["channel_stride"]]
    report.check("d_feat", strided)
    published = to_published(OSTRACK, {"params": grads})
    norms = {name: np.linalg.norm(value.astype(np.float64)) for name, value in published.items()}
    order = case.meta["outputs_order"]["grad_norms"]
    report.check("grad_norms", np.asarray([norms[name] for name in order]))
    report.check("grad_total_norm", np.asarray(optax.global_norm(grads)))
    for name in case.meta["without_gradient"]:
        report.check_true(f"without_gradient:{name}", norms[name] == 0, float(norms[name]), "zero")
    for name, stride in store["params"].items():
        report.check(f"grad:{name}", published[name].reshape(-1)[::stride])
    buffers = to_published(OSTRACK, {"batch_stats": stats})
    for name in store["bn"]:
        if not name.endswith("num_batches_tracked"):
            report.check(f"bn:{name}", buffers[name])


def optimiser(case: Case) -> optim.OptimConfig:
    """The library's optimiser with the case's figures."""
    settings = case.meta["optimiser"]
    known(
        "optimiser",
        settings,
        {"type", "lr", "backbone_multiplier", "weight_decay", "betas", "eps", "grad_clip_norm"},
    )
    expect("optimiser.type", settings["type"], "AdamW")
    return task.optimiser(
        learning_rate=settings["lr"],
        backbone_rate=settings["backbone_multiplier"],
        weight_decay=settings["weight_decay"],
        clip_norm=settings["grad_clip_norm"],
        betas=tuple(settings["betas"]),
        epsilon=settings["eps"],
    )


def optimise(case: Case, report: Report) -> None:
    """Optimiser steps on one batch: groups, clipping, decay."""
    known("case", case.meta, NETWORK | {"loss", "outputs_order", "without_gradient", "optimiser"})
    known("store", case.meta["store"], {"params", "token_stride", "channel_stride", "bn"})
    config, inputs = tracker_config(case), case.meta["inputs"]
    weights = load(case, config)
    step, _ = _training_step(case, config)
    settings = optimiser(case)
    transform = optim.make(settings, weights["params"], steps=inputs["steps"], epochs=1)
    state, probes = init_state(weights, transform), _probes(case, config)

    @jax.jit
    def update(state: Any) -> Any:
        grad = jax.value_and_grad(step, has_aux=True)
        (total, (_, _, parts, stats)), grads = grad(state.params, state.batch_stats, probes)
        moves, memory = transform.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, moves)
        moved = state._replace(params=params, batch_stats=stats, opt_state=memory)
        return moved, total, parts, optax.global_norm(grads)

    before = to_published(OSTRACK, {"params": weights["params"]})
    losses, norms = [], []
    after = before
    for number in range(1, inputs["steps"] + 1):
        state, total, parts, norm = update(state)
        losses.append(_losses(total, parts))
        norms.append(norm)
        after = to_published(OSTRACK, {"params": state.params})
        for name, stride in case.meta["store"]["params"].items():
            _check_moved(report, f"step{number}:{name}", after[name].reshape(-1)[::stride])
    report.check("losses", np.stack(losses))
    report.check("grad_total_norm", np.asarray(norms))
    rate = float(optim.learning_rate(settings, 0.0, 1))
    groups = [optim.group_of(settings, name) for name in before]
    factors = sorted({group.rate for group in groups if group.rate}, reverse=True)
    report.check("lr", np.asarray([[rate * factor for factor in factors]] * inputs["steps"]))
    head = sum(group.rate == 1.0 for group in groups)
    report.check("group_sizes", np.asarray([head, len(groups) - head]))
    for name in case.meta["without_gradient"]:
        change = np.abs(after[name] - before[name]).max()
        report.check(f"unused_max_change:{name}", change, tolerance="exact")


def _check_moved(report: Report, name: str, ours: np.ndarray) -> None:
    """A share of the elements within the tolerance, the rest within a wider one."""
    rule = dict(report.tolerance(name))
    share, rest = rule.pop("fraction_within", 1.0), rule.pop("atol_rest", None)
    known(f"tolerance of {name}", rule, {"rtol", "atol"})
    recorded = report.case.arrays[name].astype(np.float64)
    if rest is None or recorded.shape != ours.shape:
        report.check(name, ours, tolerance=rule)
        return
    error = np.abs(ours - recorded)
    within = np.mean(error <= rule["atol"] + rule["rtol"] * np.abs(recorded))
    wide = np.all(error <= rest + rule["rtol"] * np.abs(recorded))
    text = f"{rule['rtol']:g}*|r|+{rule['atol']:g}"
    note = f"{within:.3f} of them within, {share:g} wanted; the rest within {rest:g}"
    report.check_true(name, bool(within >= share and wide), float(error.max()), text, note)
