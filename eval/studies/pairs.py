"""What the experiments on SiamRPN++ share: short trainings, fresh synthetic pairs, responses on them."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxtrack
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.boxes import iou_xyxy, xywh_to_xyxy
from jaxtrack.synthetic.world import PatchConfig, WorldConfig, make_pair
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.anchors import decode
from jaxtrack.trackers.siamrpn.losses import anchor_deltas, anchor_logits


class Pairs(NamedTuple):
    """Fresh pairs: crops as the tracker sees them, and the target's box in the search crop.

    Attributes:
        templates: ``(n, 127, 127, 3)`` uint8.
        searches: ``(n, s, s, 3)`` uint8.
        boxes: ``(n, 4)`` ``x, y, w, h`` in the search crop.
    """

    templates: Array
    searches: Array
    boxes: Float[Array, "n 4"]


class Answers(NamedTuple):
    """A network's answers on pairs.

    Attributes:
        maps: ``(n, s, s)`` foreground probability, the largest over the anchors.
        boxes: ``(n, 4)`` ``x, y, w, h`` of the most probable anchor, in the search crop.
    """

    maps: Float[Array, "n s s"]
    boxes: Float[Array, "n 4"]


def trained(
    preset: str,
    tracker: str,
    folder: Path,
    steps: int | None,
    cwd: Path | None = None,
    init_from: Path | None = None,
) -> Any:
    """Weights of a short training; it is run where its folder does not have them yet.

    Args:
        preset: training preset.
        tracker: tracking preset that the weights are for.
        folder: of all runs.
        steps: length; None: the preset's.
        cwd: the checkout, where the training is started (default: here).
        init_from: weights that it starts from.

    Returns:
        The tracker's variables.

    Raises:
        JaxtrackError: the training failed.
    """
    length = f"-{steps}steps" if steps else ""
    output = (folder / f"{preset}{length}").absolute()
    weights = output / "weights.safetensors"
    if not weights.is_file():
        started = output.is_dir() and any(output.iterdir())
        given = ["--steps", str(steps)] if steps else []
        given += ["--init-from", str(init_from)] if init_from else []
        resume = ["--resume"] if started else []
        command = [sys.executable, "-m", "train.run", preset, "--output", str(output)]
        done = subprocess.run([*command, *given, *resume], check=False, cwd=cwd)
        if done.returncode:
            raise JaxtrackError(f"training {preset} failed with status {done.returncode}")
    return jaxtrack.load_weights(jaxtrack.get_tracker(tracker), weights)


def draw_pairs(count: int, size: int, shift: float, seed: int = 10_000) -> Pairs:
    """Pairs that no training has seen, targets spread uniformly by up to ``shift`` pixels.

    Args:
        count: how many.
        size: side of the search crops, pixels.
        shift: largest distance of the target's centre from the middle along each axis.
        seed: of the first pair.
    """
    patch = PatchConfig(
        template_size=127,
        template_margin=0,
        search_size=size,
        search_margin=0,
        search_factor=size / 127,
        max_shift=shift,
    )
    keys = jax.random.split(jax.random.key(seed), count)
    pairs = _draw(patch, keys)
    return Pairs(pairs.template, pairs.search, pairs.search_box)


@functools.partial(jax.jit, static_argnums=0)
def _draw(patch: PatchConfig, keys: Array) -> Any:
    return jax.lax.map(lambda key: make_pair(WorldConfig(), patch, key), keys)


@functools.partial(jax.jit, static_argnums=0)
def answer(config: siamrpn.Config, variables: Any, pairs: Pairs) -> Answers:
    """Run a network on pairs, one after the other."""
    size = pairs.searches.shape[1]
    anchors = jnp.asarray(siamrpn.tracking_anchors(config, size))

    def one(pair: Pairs) -> Answers:
        templates = siamrpn.template_features(config, variables, pair.templates)
        kernels = siamrpn.apply(config, variables, templates, method="kernels")
        images = siamrpn.network_input(pair.searches[None])
        searches = siamrpn.apply(config, variables, images, method="features")
        cls, loc = siamrpn.apply(config, variables, kernels, searches, method="predict")
        score = jax.nn.softmax(anchor_logits(cls)[0], axis=-1)[..., 1]
        boxes = decode(anchor_deltas(loc)[0], anchors).reshape(-1, 4)
        best = boxes[jnp.argmax(score)]
        corner = best[:2] - best[2:] / 2 + size / 2
        return Answers(jnp.max(score, axis=0), jnp.concatenate([corner, best[2:]]))

    return jax.lax.map(one, pairs)


def overlap(answers: Answers, pairs: Pairs) -> np.ndarray:
    """Intersection over union of the most probable box with the target, ``(n,)``."""
    return np.asarray(iou_xyxy(xywh_to_xyxy(answers.boxes), xywh_to_xyxy(pairs.boxes)))


def centre_ratio(mean_map: np.ndarray, inner: int, outer: int) -> float:
    """Mean response in the middle over the mean response in the ring around it.

    Args:
        mean_map: ``(s, s)`` mean over pairs whose targets are everywhere alike.
        inner: cells (along an axis, from the middle) that are the middle.
        outer: cells up to which the ring reaches.

    Returns:
        1 without a preference; above 1 where the middle is preferred.
    """
    steps = np.abs(np.arange(len(mean_map)) - len(mean_map) // 2)
    distance = np.maximum(steps[:, None], steps[None, :])
    ring = (distance > inner) & (distance <= outer)
    return float(mean_map[distance <= inner].mean() / mean_map[ring].mean())
