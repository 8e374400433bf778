"""What several kinds of TADT's cases compare: ridge branch, ranking branch, selection."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxtrack.trackers.tadt import channels as tadt_choice
from jaxtrack.trackers.tadt import geometry
from jaxtrack.trackers.tadt import ranking as ranking_branch
from jaxtrack.trackers.tadt import ridge as ridge_branch
from jaxtrack.trackers.tadt import tracker as tadt
from jaxtrack.trackers.tadt.losses import ranking_derivative_published, ranking_loss, ranking_pairs
from tests.parity.case import Case, ParityError, Report
from tests.parity.tadt_recipe import chw, kernels_of, off_canvas, on_canvas, steps

train = jax.jit(ridge_branch.train_ridge, static_argnums=5)
choose = jax.jit(tadt_choice.choose_channels, static_argnums=0)
feature_gradient = jax.jit(ridge_branch.ridge_feature_gradient)
gaussian_label = jax.jit(ridge_branch.gaussian_label, static_argnums=0)
scaled_samples = jax.jit(ranking_branch.scaled_samples, static_argnums=(0, 1, 4))
rank_scores = jax.jit(ranking_branch.rank_scores)


@jax.jit
def pull_scores(maps: Any, weights: Any, samples: Any, derivative: Any) -> Any:
    """Pull the derivative of the ranking scores back to the features."""
    return jax.vjp(lambda x: ranking_branch.rank_scores(x, weights, samples), maps)[1](derivative)[
        0
    ]


def ridge(
    config: tadt.Config,
    features: np.ndarray,
    kernel: np.ndarray,
    patch_hw: Any,
    map_size: int,
    count: int | None = None,
) -> dict[str, Any]:
    """Train the ridge branch (some other number of steps, maybe) and gather what is recorded of it."""
    size = geometry.kernel_cells(jnp.asarray(patch_hw, jnp.int32))
    if tuple(int(n) for n in size) != kernel.shape[:2]:
        raise ParityError(f"kernel {kernel.shape[:2]}, the patch asks for {np.asarray(size)}")
    dtype = features.dtype
    sigma = config.label_sigma * jnp.asarray(patch_hw, dtype)
    label = gaussian_label(features.shape[0], map_size, sigma, config.label_alpha)
    start = on_canvas(kernel.astype(dtype), features.shape[0])
    assert isinstance(config.ridge, ridge_branch.Descent)
    descent = config.ridge._replace(steps=config.ridge.steps if count is None else count)
    maps, scalar = jnp.asarray(features), jnp.int32(map_size)
    trained = train(maps, label, start, size, scalar, descent)
    inside = (slice(map_size), slice(map_size))
    error = np.asarray(trained.prediction - label)[inside]

    def gradient(at: Any, bias: Any) -> np.ndarray:
        found = feature_gradient(maps, at, bias, label, size, scalar)
        return chw(found, map_size)

    return {
        "label": np.asarray(label)[inside],
        "losses": trained.losses,
        "weight": off_canvas(trained.kernel, size),
        "bias": np.asarray(trained.bias)[None],
        "pred_initial": np.asarray(trained.first_prediction)[inside],
        "pred_final": np.asarray(trained.prediction)[inside],
        "loss_final": [np.mean(np.square(error))],
        "importance": np.asarray(jnp.sum(trained.kernel, axis=(0, 1))),
        "grad_initial": functools.partial(gradient, start, jnp.zeros((), dtype)),
        "grad_final": functools.partial(gradient, trained.kernel, trained.bias),
    }


def ridge_arrays(
    case: Case,
    report: Report,
    config: tadt.Config,
    features: np.ndarray,
    kernel: np.ndarray,
    patch_hw: Any,
) -> None:
    """Every array of a small ridge case."""
    side = features.shape[0]
    found = ridge(config, features, kernel, patch_hw, side)
    exact = ridge(config, features.astype(np.float64), kernel, patch_hw, side)
    report.check("features_sum", features.sum((0, 1), dtype=np.float64))
    report.check("gauss_label", found["label"])
    report.check("init_weight", kernel.transpose(2, 0, 1)[None])
    report.check("losses", found["losses"])
    report.check("losses_f64", exact["losses"])
    for name in case.arrays:
        kind, _, count = name.partition("_step")
        if kind in ("weight", "bias") and count.isdigit():
            after = ridge(config, features, kernel, patch_hw, side, int(count))
            value = after["weight"].transpose(2, 0, 1)[None] if kind == "weight" else after["bias"]
            report.check(name, value)
    for name in ("pred_initial", "pred_final", "loss_final", "importance"):
        report.check(name, found[name])
    report.check("importance_f64", exact["importance"])
    check_order(report, "order", found["importance"], "importance")
    for when in ("initial", "final"):
        gradient = found[f"grad_{when}"]()
        report.check(f"input_grad_{when}", gradient)
        report.check(f"input_grad_gap_{when}", gradient.mean((1, 2)))


def ranking_arrays(features: np.ndarray, kernel: np.ndarray, map_size: int) -> dict[str, Any]:
    """Everything of the ranking branch, in the features' precision."""
    side = features.shape[0]
    canvas = max(side | 1, *kernel.shape[:2])
    size = jnp.asarray(kernel.shape[:2], jnp.int32)
    weights = on_canvas(kernel, canvas)
    maps = jnp.asarray(features)
    samples = scaled_samples(side, canvas, jnp.int32(map_size), size, maps.dtype)
    scores = rank_scores(maps, weights, samples)
    mask = ranking_pairs(samples.number, scores.shape[0])
    derivative, total = ranking_derivative_published(scores, mask)
    count = int(samples.number)
    pairs = sorted(np.argwhere(mask).tolist(), key=lambda p: (abs(p[0] - p[1]), p[1] > p[0], p[0]))
    sizes = np.asarray(samples.sizes)[:count]
    corner = (sizes[:, None] - np.asarray(size)[None, :]) // 2
    inner = ridge_branch.centred_mask((canvas, canvas), size, maps.dtype)
    rows = jnp.einsum("niy,i->ny", samples.weights, jnp.max(inner, axis=1))
    columns = jnp.einsum("njx,j->nx", samples.weights, jnp.max(inner, axis=0))
    return {
        "samples": samples,
        "sample_sizes": sizes,
        "sample_locs_y0x0y1x1": np.concatenate([corner, corner + np.asarray(size) - 1], axis=1),
        "sample_sum": np.asarray(jnp.einsum("ny,nx,yxc->nc", rows, columns, maps))[:count],
        "pairs": np.asarray(pairs, np.int32),
        "scores": np.asarray(scores)[:count],
        "loss": np.asarray(ranking_loss(scores, mask)),
        "grad_scores": np.asarray(derivative)[:count],
        "true_grad_scores": np.asarray(jax.jit(jax.grad(ranking_loss))(scores, mask))[:count],
        "grad_features": pull_scores(maps, weights, samples, derivative),
        "importance": np.asarray(total * jnp.sum(weights, axis=(0, 1))),
    }


def check_importance_f64(report: Report, name: str, exact: dict[str, Any]) -> None:
    """The float64 importance, which is the derivatives' sum times the kernel's."""
    report.check(name, exact["importance"])


def check_order(report: Report, name: str, importance: np.ndarray, like: str) -> None:
    """A falling order; near-equal neighbours may swap (within the tolerance of the importance)."""
    recorded = report.case.arrays[name]
    rule = report.tolerance(like)
    values = np.asarray(importance, np.float64)[recorded]
    slack = 2 * (rule.get("atol", 0) + rule.get("rtol", 0) * np.abs(values))
    rise = np.maximum.accumulate(values[::-1])[::-1] - values
    whole = sorted(recorded.tolist()) == list(range(len(values)))
    swaps = int(np.sum(np.argsort(-np.asarray(importance), kind="stable") != recorded))
    note = f"{swaps} places swapped between near-equal channels" if swaps else ""
    passed = whole and bool(np.all(rise <= slack))
    report.check_true(name, passed, float(rise.max()), "falling", note)


def check_kept(
    case: Case,
    report: Report,
    config: tadt.Config,
    maps: list[Any],
    heads: dict[str, np.ndarray],
    patch_hw: np.ndarray,
    map_size: int,
) -> np.ndarray:
    """Ridge and ranking importances, the selection and the balance.

    Returns:
        The recorded masks ``(layers, c)``, to be used for what follows.
    """
    layers = config.extractor.layers
    side = maps[0].shape[0]
    kernels = kernels_of(heads, layers, side)
    patch = jnp.asarray(patch_hw, jnp.int32)
    choice = choose(
        config, tuple(jnp.asarray(m) for m in maps), jnp.int32(map_size), patch, kernels
    )
    for i, layer in enumerate(layers):
        found = ridge(
            config, np.asarray(maps[i]), heads[f"reg_{layer}.conv.weight"], patch_hw, map_size
        )
        report.check(f"ridge_{layer}_losses", found["losses"])
        report.check(f"ridge_{layer}_importance", choice.ridge[i])
        check_order(report, f"ridge_{layer}_order", choice.ridge[i], f"ridge_{layer}_importance")
        if f"ridge_{layer}_weight_sub" in case.arrays:
            _ridge_rest(case, report, layer, found)
    kernel = heads[f"rank_{layers[0]}.conv.weight"]
    first = np.asarray(maps[0], np.float64)
    exact = ranking_arrays(first, kernel.astype(np.float64), map_size)
    report.check("rank_importance", choice.ranking)
    check_importance_f64(report, "rank_importance_f64", exact)
    certain = report.used("rank_mask_certain").astype(bool)
    mask = np.asarray(choice.ranking) > 0
    report.check(
        "rank_mask",
        mask.astype(np.int32),
        rows=certain,
        note=f"{int((~certain).sum())} channels of uncertain sign skipped",
    )
    admitted = np.where(certain, mask, report.case.arrays["rank_mask"].astype(bool))
    return check_selection(report, config, choice, admitted)


def cut_margin(
    importance: Float[Array, "c"], kept: Bool[Array, "c"], admitted: Bool[Array, "c"] | None = None
) -> Float[Array, ""]:
    """Return by how much the last kept channel's importance exceeds the first dropped one's.

    A margin near rounding means a tie at the cut: another order of summation keeps other channels, and
    neither choice is wrong. So it is for targets that fill the frame, whose last channels have an importance
    near zero: margins of 2e-5 and less, where float32 is certain to 3e-6.

    Args:
        importance: of the channels of a layer.
        kept: its mask.
        admitted: channels that could be kept (the ranking branch's mask in the first layer); None: all.

    Returns:
        As a share of the greatest absolute importance; infinity where nothing was kept or dropped.
    """
    free = ~kept if admitted is None else ~kept & admitted
    last = jnp.min(jnp.where(kept, importance, jnp.inf))
    first = jnp.max(jnp.where(free, importance, -jnp.inf))
    return (last - first) / jnp.max(jnp.abs(importance))


def check_selection(
    report: Report, config: tadt.Config, choice: tadt_choice.Choice, admitted: np.ndarray
) -> np.ndarray:
    """Chosen channels and balance, with the recorded ranking mask where its sign is not certain."""
    layers = config.extractor.layers
    masks = tadt_choice.select_channels(
        choice.ridge, jnp.asarray(admitted), config.caps, config.minimum
    )
    recorded = report.case.arrays["feature_mask"].astype(bool)
    accepted, different, margins = True, 0, []
    for i, layer in enumerate(layers):
        ours, wanted = np.asarray(masks[i]), recorded[i][: len(masks[i])]
        values = np.asarray(choice.ridge[i], np.float64)
        rule = _importance_rule(report, layer)
        slack = 2 * (rule["atol"] + rule["rtol"] * np.abs(values))
        # A channel may change sides only when it lies on the border within the tolerance.
        borders = [
            0.0,
            *(
                np.sort(values)[::-1][
                    [min(config.caps[i], len(values)) - 1, max(wanted.sum() - 1, 0)]
                ]
            ),
        ]
        distance = np.min([np.abs(values - border) for border in borders], axis=0)
        swapped = ours != wanted
        good = bool(np.all(distance[swapped] <= slack[swapped]))
        accepted &= good
        different += int(swapped.sum())
        mask = jnp.asarray(admitted) if i == 0 else None
        margin = float(cut_margin(choice.ridge[i], masks[i], mask))
        margins.append(f"{layer} {margin:.1e}")
        if f"selected_{layer}" in report.case.arrays:
            kept = np.flatnonzero(wanted)
            same = np.array_equal(kept, report.case.arrays[f"selected_{layer}"])
            report.check_true(f"selected_{layer}", good and same, float(swapped.sum()), "equal set")
    note = f"margin of the last kept channel over the first dropped: {', '.join(margins)}"
    report.check_true("feature_mask", accepted, float(different), "equal set", note)
    report.check("balance_weights", choice.balance)
    if "counts" in report.case.arrays:
        first, last = (np.asarray(values) for values in choice.ridge)
        chosen = [int(np.sum(mask)) for mask in masks]
        counts = [(first > 0).sum(), admitted.sum(), chosen[0], (last > 0).sum(), chosen[1]]
        report.check("counts", counts)
    return recorded


def _importance_rule(report: Report, layer: str) -> dict[str, float]:
    """Tolerance of a layer's ridge importance; traces record none and allow no swap but of equals."""
    name = f"ridge_{layer}_importance"
    return report.tolerance(name) if name in report.case.arrays else {"rtol": 1e-4, "atol": 1e-9}


def _ridge_rest(case: Case, report: Report, layer: str, found: dict[str, Any]) -> None:
    """What the first-frame cases record of a ridge branch besides."""
    prefix = f"ridge_{layer}_"
    every = steps(case, f"{prefix}weight_sub")[0]
    report.check(f"{prefix}weight_sub", found["weight"].transpose(2, 0, 1)[::every])
    for name in ("bias", "pred_final", "loss_final"):
        report.check(f"{prefix}{name}", found[name])
    gradient = found["grad_final"]()
    report.check(f"{prefix}input_grad_gap", gradient.mean((1, 2)))
    every = steps(case, f"{prefix}input_grad_sub")[0]
    report.check(f"{prefix}input_grad_sub", gradient[::every])
    if "gauss_label" in case.arrays:
        report.check("gauss_label", found["label"])
