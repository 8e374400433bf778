"""Training SiamFC: logistic loss on the response map of a pair of crops."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.ops import precision
from jaxtrack.ops.correlation import cross_correlation_pairs
from jaxtrack.ops.losses import balanced_logistic, binary_cross_entropy, distance_labels
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.ranges import NotNegative, check_ranges
from jaxtrack.synthetic.realism import LIFELIKE
from jaxtrack.synthetic.world import PatchConfig, WorldConfig, make_pairs
from jaxtrack.trackers.siamfc import tracker as siamfc
from jaxtrack.trackers.siamfc.losses import focal, ghm_c, ghm_c_init, hard_negative_mining

from ..augment import AugmentConfig, augment_pairs, refuse_sizes
from ..optim import OptimConfig, Schedule
from ..presets import Preset
from ..step import Aux, Batch, Task, View


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the task.

    Attributes:
        tracker: the tracker that is trained.
        template: augmentation of the exemplar patch; its size is the exemplar's.
        search: augmentation of the search patch; its size rules the response's.
        patch: how the synthetic world cuts its patches.
        world: the synthetic world.
        positive_radius: cells within this distance of the centre are positive, search pixels.
        negative_radius: cells from this distance on are negative, search pixels; not above the
            positive radius: no neutral ring.
        other_pairs: weight of the loss on all other search patches of the device's batch, in which
            the target is nowhere; 0: each exemplar sees its own search patch only, as published.
        loss: of an exemplar on its own search patch: ``balanced`` (published), ``focal``, ``ghm``
            (gradient harmonised, by the densities of this batch alone) or ``ohem`` (hard negatives).
        dtype: in which the network computes; parameters stay float32.
    """

    tracker: siamfc.Config
    template: AugmentConfig
    search: AugmentConfig
    patch: PatchConfig
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    positive_radius: NotNegative = 16.0
    negative_radius: NotNegative = 0.0
    other_pairs: NotNegative = 0.0
    loss: Literal["balanced", "focal", "ghm", "ohem"] = "balanced"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)
        refuse_sizes(self.patch, self.tracker.exemplar_size, self.template.size, self.search.size)


def init_variables(config: Config, key: Array) -> dict[str, Any]:
    """Return the tracker's own variables."""
    return siamfc.init_variables(config.tracker, key)


def sample(config: Config, keys: Array) -> Batch:
    """Draw a batch of synthetic pairs; see `train.step`."""
    return dict(make_pairs(config.world, config.patch, keys)._asdict())


def responses(
    config: Config,
    params: Any,
    batch_stats: Any,
    template: Float[Array, "n s s 3"],
    search: Float[Array, "n r r 3"],
) -> tuple[Float[Array, "n n m m"], Any]:
    """Return the responses (logits) of each exemplar on each search crop, and the moved statistics.

    Args:
        config: settings.
        params: parameters.
        batch_stats: running statistics.
        template: crops of the exemplars, 0..255.
        search: search crops, 0..255.

    Returns:
        ``(exemplar, search, row, column)``; without ``other_pairs`` ``(n, 1, row, column)``: only the
        exemplar's own.
    """
    net = siamfc.module(config.tracker)
    stats = {"batch_stats": batch_stats}

    def apply(stats: Any, inputs: Array, method: str) -> tuple[Any, Any]:
        out, moved = net.apply(
            {"params": params, **stats}, inputs, True, method=method, mutable=["batch_stats"]
        )
        return out, {**stats, **moved}

    # The branches are normalised apart, exemplars first, as published.
    z, stats = apply(stats, _to_input(config, template), "embed")
    x, stats = apply(stats, _to_input(config, search), "embed")
    z, x = z[-1].astype(jnp.float32), x[-1].astype(jnp.float32)
    if config.other_pairs:
        # A product over channels and places, as one matrix product per place of the response.
        raw = all_correlations(z, x)
    else:
        raw = cross_correlation_pairs(z, x)[:, None]
    flat = raw.reshape(-1, *raw.shape[2:])
    out, stats = apply(stats, flat, "match")
    return out.reshape(*raw.shape[:2], *out.shape[1:]), stats["batch_stats"]


def _to_input(config: Config, crops: Array) -> Array:
    return (crops / config.tracker.input_divisor).astype(config.dtype)


def all_correlations(
    z: Float[Array, "n h w c"], x: Float[Array, "k sh sw c"]
) -> Float[Array, "n k oh ow"]:
    """Correlate every template with every search map."""
    h, w = z.shape[1:3]
    oh, ow = x.shape[1] - h + 1, x.shape[2] - w + 1
    total = jnp.zeros((z.shape[0], x.shape[0], oh, ow), x.dtype)
    # Row by row of the template: the shifted search maps side by side, one matrix product.
    for i in range(h):
        rows = x[:, i : i + oh]
        shifted = jnp.concatenate([rows[:, :, j : j + ow] for j in range(w)], axis=-1)
        row = z[:, i].reshape(z.shape[0], -1)
        digits = precision.of(x.dtype)
        total = total + jnp.einsum("kyxc,nc->nkyx", shifted, row, precision=digits)
    return total


def loss(
    config: Config, params: Any, batch_stats: Any, batch: Batch, keys: Array
) -> tuple[Float[Array, ""], Aux]:
    """Return the loss of a batch; see `train.step`.

    In a negative pair every cell is negative. With ``other_pairs``, so is every cell of the responses on
    the other pairs' search crops.
    """
    template, search, _, _ = augment_pairs(config.template, config.search, batch, keys)
    template, search = jnp.clip(template, 0, 255), jnp.clip(search, 0, 255)
    maps, batch_stats = responses(config, params, batch_stats, template, search)
    count, others = maps.shape[:2]
    own = maps[jnp.arange(count), jnp.arange(count) if others > 1 else 0].astype(jnp.float32)
    labels = label_maps(config, own.shape[1:], batch["negative"])
    value = own_loss(config.loss, own, labels)
    middle = own[:, own.shape[1] // 2, own.shape[2] // 2]
    metrics = {"own_loss": value, "peak": jnp.mean(jax.nn.sigmoid(middle))}
    if others > 1:
        mask = 1 - jnp.eye(count)[:, :, None, None]
        cross = binary_cross_entropy(maps.astype(jnp.float32), jnp.zeros_like(maps))
        cross = jnp.sum(cross * mask) / (jnp.sum(mask) * maps.shape[2] * maps.shape[3])
        value = value + config.other_pairs * cross
        metrics["other_loss"] = cross
    return value, Aux(batch_stats, metrics)


def own_loss(
    name: str, logits: Float[Array, "n m m"], labels: Float[Array, "n m m"]
) -> Float[Array, ""]:
    """Return the loss of a name (see `Config.loss`) of responses on their own search patches."""
    if name == "focal":
        return focal(logits, labels)
    if name == "ghm":
        return ghm_c(logits, labels, ghm_c_init(), momentum=0.0)[0]
    if name == "ohem":
        return hard_negative_mining(logits, labels)
    return balanced_logistic(logits, labels)


def view(config: Config, batch: Batch, keys: Array) -> View:
    """Return the crops and labels of a batch; see `train.step.View`."""
    template, search, _, boxes = augment_pairs(config.template, config.search, batch, keys)
    template, search = jnp.clip(template, 0, 255), jnp.clip(search, 0, 255)
    shapes = jax.eval_shape(lambda: init_variables(config, jax.random.key(0)))
    maps, _ = jax.eval_shape(
        lambda v: responses(config, v["params"], v["batch_stats"], template, search), shapes
    )
    labels = label_maps(config, maps.shape[2:], batch["negative"])
    labels = jnp.where(labels == 0.5, jnp.nan, labels)
    return View(template, search, boxes, labels, config.tracker.network.stride)


def label_maps(config: Config, size: tuple[int, ...], negative: Array) -> Float[Array, "n m m"]:
    """Return the labels of a batch: the target's cells in the middle of the map; none in a negative pair.

    The label stays in the middle although the crop is shifted by up to some pixels, as published.
    """
    stride = config.tracker.network.stride
    labels = distance_labels(
        (size[0], size[1]), config.positive_radius / stride, config.negative_radius / stride
    )
    none = jnp.zeros_like(labels)
    return jnp.where(negative[:, None, None], none[None], jnp.asarray(labels)[None])


def task(config: Config) -> Task:
    """Return the task record."""
    return Task(config, init_variables, sample, loss, view)


_PUBLISHED = Config(
    tracker=siamfc.PRESETS["siamfc"],
    # Stretch by up to 5 %, a crop of 239 at offsets of up to 4 whole pixels; the exemplar is its middle 127.
    template=AugmentConfig(size=127, shift=4, whole_pixels=True, scale=0.05),
    search=AugmentConfig(size=239, shift=4, whole_pixels=True, scale=0.05),
    patch=PatchConfig(
        template=PatchSpec(size=143, nominal=127, factor=1.0),
        search=PatchSpec(size=263, nominal=239, factor=239 / 127),
    ),
)

_TINY = dataclasses.replace(
    _PUBLISHED,
    tracker=siamfc.PRESETS["siamfc-tiny"],
    template=AugmentConfig(size=127, shift=2, scale=0.03),
    # A response of 9x9 is enough, where the other pairs give negatives too.
    search=AugmentConfig(size=191, shift=4, scale=0.1),
    patch=PatchConfig(
        template=PatchSpec(size=139, nominal=127, factor=1.0),
        search=PatchSpec(size=215, nominal=191, factor=191 / 127),
    ),
    other_pairs=0.5,
)

# For an accelerator: the search image and the pairs' differences are those of tracking.
_SMALL = dataclasses.replace(
    _TINY,
    tracker=siamfc.PRESETS["siamfc-small"],
    search=AugmentConfig(size=255, shift=4, scale=0.1),
    patch=PatchConfig(
        template=PatchSpec(size=139, nominal=127, factor=1.0),
        search=PatchSpec(size=279, nominal=255, factor=255 / 127),
        border_rate=0.4,
    ),
    world=WorldConfig(real=LIFELIKE),
)

PRESETS: dict[str, Preset] = {
    "siamfc-got10k": Preset(
        task=task(_PUBLISHED),
        tracker="siamfc",
        optim=OptimConfig(
            "sgd",
            1e-2,
            Schedule("geometric", final=1e-5, per_epoch=True),
            momentum=0.9,
            weight_decay=5e-4,
        ),
        batch_size=8,
        steps=1166 * 50,  # one pair of each of GOT-10k's 9335 training videos per epoch
        epochs=50,
        data_recipe="siamfc_got10k",
        save_every=1166,
        source="huanglianghua/siamfc-pytorch, train.py",
    ),
    "siamfc-tiny": Preset(
        task=task(_TINY),
        tracker="siamfc-tiny",
        optim=OptimConfig("adamw", 2e-3, Schedule("onecycle"), weight_decay=1e-4),
        batch_size=8,
        steps=4500,
        log_every=20,
        data_recipe="all",
        save_every=250,
        source="jaxtrack: the synthetic world",
    ),
    "siamfc-small": Preset(
        task=task(_SMALL),
        tracker="siamfc-small",
        optim=OptimConfig(
            "adamw", 2e-3, Schedule("onecycle", rise=0.1), weight_decay=1e-3, clip_norm=5.0
        ),
        batch_size=64,
        steps=50_000,
        log_every=100,
        data_recipe="all",
        save_every=2000,
        source="jaxtrack: the synthetic world, for an accelerator",
        ema=0.999,
    ),
}
