"""OSTrack's training and optimiser cases; elimination in its masked form."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrack.trackers.ostrack import tracker as ostrack
from jaxtrack.trackers.ostrack.head import CentreMaps
from jaxtrack.trackers.ostrack.losses import gaussian_heatmap
from jaxtrack.trackers.ostrack.names import OSTRACK
from jaxtrack.weights.names import to_published
from tests.parity.case import Case, ParityError, Report
from tests.parity.ostrack_model import (
    NETWORK,
    check_if,
    check_maps,
    check_stages,
    expect,
    known,
    load,
    maps_nchw,
    pair_images,
    tracker_config,
    with_mask,
)
from train import optim
from train.step import init_state
from train.tasks import ostrack as task
from train.tasks.ostrack import recipe


def _norm(tree: Any) -> jax.Array:
    """Euclidean norm of all leaves together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _training_step(case: Case, config: ostrack.Config) -> tuple[Any, Any]:
    """The step's function ``(params, stats, probes) -> (total, aux)``, and its keep rate."""
    inputs = case.meta["inputs"]
    known("inputs", inputs, {"pair", "template_boxes", "search_boxes", "epoch", "mode", "steps"})
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
        rate = recipe.keep_rate(annealing, case.config["ce_keep_ratio"][0], inputs["epoch"])
        table = recipe.keep_table(
            annealing,
            (case.config["ce_keep_ratio"][0],) * len(config.ce_blocks),
            config.search_grid**2,
            inputs["epoch"],
        )
        counts = jnp.asarray(table[inputs["epoch"] - 1])

    def step(params: Any, stats: Any, probes: Any) -> Any:
        variables = {"params": params, "batch_stats": stats}

        def stages(net: Any) -> Any:
            tokens = net.embed_template(ostrack.normalise(jnp.asarray(templates)))
            features = net.features(
                tokens, ostrack.normalise(jnp.asarray(searches)), counts, masks, train
            )
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


def annealing_of(case: Case) -> recipe.Annealing:
    """The keep ratio's schedule: from the json, or the published one of the case's yaml."""
    overrides = case.meta["model"].get("overrides", {})
    got10k = "got10k" in case.meta["model"]["yaml"]
    start = overrides.get("TRAIN.CE_START_EPOCH", case.config.get("ce_start_epoch", 20))
    warm = overrides.get(
        "TRAIN.CE_WARM_EPOCH", case.config.get("ce_warm_epoch", 50 if got10k else 80)
    )
    return recipe.Annealing(start, warm)


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
    heatmap = gaussian_heatmap(boxes, config.search_grid)
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
    report.check("grad_total_norm", np.asarray(_norm(grads)))
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
    return recipe.optimiser(
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
        return moved, total, parts, _norm(grads)

    before = to_published(OSTRACK, {"params": weights["params"]})
    losses, norms, steps, after = [], [], [], before
    for _ in range(inputs["steps"]):
        state, total, parts, norm = update(state)
        losses.append(_losses(total, parts))
        norms.append(norm)
        after = to_published(OSTRACK, {"params": state.params})
        steps.append(after)
    for number, name in itertools.product(
        range(1, inputs["steps"] + 1), case.meta["store"]["params"]
    ):
        _check_moved(report, number, name, steps)
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


def _check_moved(
    report: Report, number: int, parameter: str, steps: list[dict[str, np.ndarray]]
) -> None:
    """A share of the elements within the tolerance, the rest within a wider one.

    A recording that is bit for bit that of the last step was made of a view of the live parameter, which
    went on moving: it shows the last step, and is compared with ours of that step.
    """
    name, last = f"step{number}:{parameter}", f"step{len(steps)}:{parameter}"
    rule = dict(report.tolerance(name))
    share, rest = rule.pop("fraction_within", 1.0), rule.pop("atol_rest", None)
    known(f"tolerance of {name}", rule, {"rtol", "atol"})
    arrays, note = report.case.arrays, ""
    if number < len(steps) and np.array_equal(arrays[name], arrays[last]):
        rule, note = (
            dict(report.tolerance(last)),
            f"; recorded values are those of step {len(steps)}",
        )
        rest, number = rule.get("atol_rest"), len(steps)
    stride = report.case.meta["store"]["params"][parameter]
    ours, recorded = steps[number - 1][parameter].reshape(-1)[::stride], arrays[name]
    if rest is None or recorded.shape != ours.shape:
        report.check(name, ours, tolerance={k: rule[k] for k in ("rtol", "atol")}, note=note)
        return
    error = np.abs(ours.astype(np.float64) - recorded)
    within = np.mean(error <= rule["atol"] + rule["rtol"] * np.abs(recorded))
    wide = np.all(error <= rest + rule["rtol"] * np.abs(recorded))
    text = f"{rule['rtol']:g}*|r|+{rule['atol']:g}"
    note = f"{within:.3f} of them within, {share:g} wanted; the rest within {rest:g}{note}"
    report.check_true(name, bool(within >= share and wide), float(error.max()), text, note)
