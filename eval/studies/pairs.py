"""What the experiments on SiamRPN++ share: fresh synthetic pairs, and responses on them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtrack.ops.boxes import iou_xyxy, xywh_to_xyxy
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.synthetic.world import PatchConfig, WorldConfig, make_pairs
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


def draw_pairs(count: int, size: int, shift: float, seed: int = 10_000) -> Pairs:
    """Draw pairs that no training has seen, targets spread uniformly by up to ``shift`` pixels.

    Args:
        count: how many.
        size: side of the search crops, pixels.
        shift: largest distance of the target's centre from the middle along each axis.
        seed: of the first pair.
    """
    patch = PatchConfig(
        template=PatchSpec(size=127, nominal=127, factor=1.0),
        search=PatchSpec(size=size, nominal=size, factor=size / 127),
        max_shift=shift,
    )
    keys = jax.random.split(jax.random.key(seed), count)
    pairs = _draw(patch, keys)
    return Pairs(pairs.template, pairs.search, pairs.search_box)


@functools.partial(jax.jit, static_argnums=0)
def _draw(patch: PatchConfig, keys: Array) -> Any:
    return make_pairs(WorldConfig(), patch, keys)


@functools.partial(jax.jit, static_argnums=0)
def answer(config: siamrpn.Config, variables: Any, pairs: Pairs) -> Answers:
    """Run a network on pairs, one after the other."""
    size = pairs.searches.shape[1]
    anchors = jnp.asarray(siamrpn.tracking_anchors(config, size))

    def one(pair: Pairs) -> Answers:
        templates = siamrpn.features_of(config, variables, pair.templates[None])
        kernels = siamrpn.apply(config, variables, templates, method="kernels")
        searches = siamrpn.features_of(config, variables, pair.searches[None])
        cls, loc = siamrpn.apply(config, variables, kernels, searches, method="predict")
        score = jax.nn.softmax(anchor_logits(cls)[0], axis=-1)[..., 1]
        boxes = decode(anchor_deltas(loc)[0], anchors).reshape(-1, 4)
        best = boxes[jnp.argmax(score)]
        corner = best[:2] - best[2:] / 2 + size / 2
        return Answers(jnp.max(score, axis=0), jnp.concatenate([corner, best[2:]]))

    return jax.lax.map(one, pairs)


def overlap(answers: Answers, pairs: Pairs) -> np.ndarray:
    """Return the intersection over union of the most probable box with the target, ``(n,)``."""
    return np.asarray(iou_xyxy(xywh_to_xyxy(answers.boxes), xywh_to_xyxy(pairs.boxes)))


def centre_ratio(mean_map: np.ndarray, inner: int, outer: int) -> float:
    """Return the mean response in the middle over the mean response in the ring around it.

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
