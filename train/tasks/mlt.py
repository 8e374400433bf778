"""Training MLT: first the matching network, then the meta-learner on the gradients of its loss.

Stage 1 is SiamFC's task with MLT's network. Stage 2 draws, for each video, an anchor x and M' context patches
of the same target; M of them give the gradient delta, and the loss of the adapted network is taken over
all M'. Only the meta-learner learns; start stage 2 with ``--init-from`` the calibrated weights of stage 1.

Between the two lies a calibration: the gain and the bias behind the correlation (the tracker's
``match_norm``) learn on stage 2's patches. Stage 1 also sees pairs without the target, so that its network
is less sure than patches with it deserve; the meta-learner would earn its loss by making every response
larger, and learn little else (``eval/RESULTS.md``). No peak moves by it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack import trackers
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.losses import balanced_logistic, binary_cross_entropy
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.synthetic.realism import LIFELIKE
from jaxtrack.synthetic.world import PatchConfig, WorldConfig, make_patches
from jaxtrack.trackers.mlt import network as net
from jaxtrack.trackers.mlt import tracker as mlt
from jaxtrack.trackers.siamfc import tracker as siamfc
from jaxtrack.weights import load_into

from ..augment import AugmentConfig, augment
from ..optim import Group, OptimConfig, Schedule
from ..presets import Preset, same_patches
from ..step import Aux, Batch, Task, View, streams
from . import siamfc as matching


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the meta stage.

    Attributes:
        tracker: the tracker that is trained; gives M (``samples``).
        template: augmentation of the anchor.
        context: augmentation of the context patches. Small shifts stand for the errors of a tracker,
            whose patches are labelled as if the target sat at the centre.
        patch: how the synthetic world cuts its patches.
        world: the synthetic world.
        patches: M', context patches of each video over which the loss is taken (16 in the description).
        fewest: delta comes from a number of patches drawn between this and M: a tracker has one patch
            at its first frame. M: always M, as described.
        other_videos: weight of the loss on patches of another video of the batch, on which the adapted
            network must find nothing; 0: none, as described.
        learns: the parts of the variables that learn. ``("meta",)``: the matching network is fixed, as
            described. With names of its parts it learns too, through the adaptation (second order
            unless the tracker's ``first_order``).
    """

    tracker: mlt.Config
    template: AugmentConfig
    context: AugmentConfig
    patch: PatchConfig
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    patches: int = 16
    fewest: int = 8
    other_videos: float = 0.0
    learns: tuple[str, ...] = ("meta",)

    def __post_init__(self) -> None:
        """Refuse numbers of patches that contradict each other, by name."""
        m = self.tracker.samples
        if self.patches < m:
            raise JaxtrackError(
                f"MLT's meta stage: patches (M') is {self.patches}, but delta needs samples (M) = {m}"
                " of them; M' must be at least M"
            )
        if not 1 <= self.fewest <= m:
            raise JaxtrackError(
                f"MLT's meta stage: fewest is {self.fewest}; it lies between 1 and samples (M) = {m}"
            )


def init_variables(config: Config, key: Array) -> dict[str, Any]:
    """Return the tracker's own variables."""
    return mlt.init_variables(config.tracker, key)


def load(config: Config, path: pathlib.Path, key: Array) -> dict[str, Any]:
    """Return the matching network from a file (ours of stage 1, or SiamFC's), a meta-learner at random."""
    still = mlt.switched(config.tracker, meta_learner=False, attention=False, fine_tuning=False)
    shapes = jax.eval_shape(lambda k: mlt.init_variables(still, k), key)
    fixed = load_into(shapes, path, trackers.family("siamfc").tables)
    return {
        "params": {**init_variables(config, key)["params"], **fixed["params"]},
        "batch_stats": fixed["batch_stats"],
    }


def load_trunk(config: matching.Config, path: pathlib.Path, key: Array) -> dict[str, Any]:
    """Return stage 1 from another network's blocks 1 to 4: ours of SiamFC, with the same widths and kernels.

    Raises:
        JaxtrackError: the file is unreadable, or its sizes are others; both lists are in the message.
    """
    variables = jax.jit(lambda k: siamfc.init_variables(config.tracker, k))(key)
    name = config.tracker.backbone_name
    blocks = re.compile(r"^conv[1-4]\.")
    shared = {
        kind: {name: {layer: x for layer, x in tree[name].items() if blocks.match(layer)}}
        for kind, tree in variables.items()
    }
    found = load_into(shared, path, part=rf"/{name}/conv[1-4]\.")
    return {
        kind: {**tree, name: {**tree[name], **found[kind][name]}}
        for kind, tree in variables.items()
    }


def sample(config: Config, keys: Array) -> Batch:
    """Draw a batch of synthetic videos, as anchors with M' context patches; see `train.step`."""
    drawn = jax.lax.map(lambda k: make_patches(config.world, config.patch, k, config.patches), keys)
    batch = dict(drawn._asdict())
    batch["patch_boxes"] = batch.pop("boxes")
    return batch


def crops(config: Config, batch: Batch, keys: Array) -> tuple[Array, Array]:
    """Cut augmented anchors ``(n, s, s, 3)`` and context patches ``(n, M', r, r, 3)``, 0..255."""
    pair, key_template, key_context = streams(keys, 3)
    cut = jax.vmap(augment, in_axes=(None, 0, 0, 0, 0))
    z, _ = cut(config.template, key_template, pair, batch["template"], batch["template_box"])
    patches = jax.vmap(lambda k, p, i, b: augment(config.context, k, p, i, b), (0, None, 0, 0))
    context_keys = jnp.stack(streams(key_context, config.patches), axis=1)
    x, _ = jax.vmap(patches)(context_keys, pair, batch["patches"], batch["patch_boxes"])
    return jnp.clip(z, 0, 255), jnp.clip(x, 0, 255)


def video_loss(
    config: Config,
    variables: Any,
    exemplar: Float[Array, "h w c"],
    patches: Float[Array, "p a b c"],
    others: Float[Array, "q a b c"],
    key: Array,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Adapt to M patches of one video, and judge the adapted network on all M'.

    Args:
        config: settings.
        variables: matching network and meta-learner.
        exemplar: trunk output of the anchor.
        patches: trunk outputs of the M' context patches.
        others: trunk outputs of patches of another video.
        key: choice of the M patches, and dropout.

    Returns:
        The loss, and what is logged: the loss before adapting among it.

    Reference:
        MLT, section 3.3 as described (z_delta is drawn from z_reg; the loss is taken over z_reg).
    """
    tracker = config.tracker
    key_order, key_count, key_dropout = jax.random.split(key, 3)
    order = jax.random.permutation(key_order, config.patches)[: tracker.samples]
    count = jax.random.randint(key_count, (), config.fewest, tracker.samples + 1)
    weights = (jnp.arange(tracker.samples) < count).astype(jnp.float32)
    task = mlt.problem(tracker, variables, exemplar, patches[order], weights)
    layer = mlt.adapt(tracker, variables, task, task.kernel, key_dropout)
    attention = mlt.in_correlation(tracker, layer.attention)
    module = mlt.module(tracker)

    def respond(kernel: Array, weight: Array, searches: Array) -> Array:
        base, match = net.last_layer(module, variables), net.head(module, variables)
        groups = tracker.network.groups[4]
        return net.respond(base, match, groups, (kernel, kernel), weight, exemplar, searches)

    def judge(responses: Array) -> Array:
        truth = jnp.broadcast_to(mlt.labels(tracker)[None], responses.shape)
        return balanced_logistic(responses, truth)

    value = judge(respond(layer.search_kernel, attention, patches))
    before = judge(respond(task.kernel, jnp.ones(task.kernel.shape[-1:]), patches))
    metrics = {"adapted_loss": value, "matching_loss": before}
    if config.other_videos:
        absent = respond(layer.search_kernel, attention, others)
        miss = jnp.mean(binary_cross_entropy(absent, jnp.zeros_like(absent)))
        metrics["other_loss"] = miss
        value = value + config.other_videos * miss
    return value, metrics


def loss(
    config: Config, params: Any, batch_stats: Any, batch: Batch, keys: Array
) -> tuple[Float[Array, ""], Aux]:
    """Return the mean of `video_loss` over the videos of a batch; see `train.step`."""
    key_crops, key_videos = streams(keys, 2)
    params = {k: v if k in config.learns else jax.lax.stop_gradient(v) for k, v in params.items()}
    variables = {"params": params, "batch_stats": batch_stats}
    z, x = crops(config, batch, key_crops)
    count = z.shape[0]
    exemplars = mlt.trunk(config.tracker, variables, z)
    flat = mlt.trunk(config.tracker, variables, x.reshape(-1, *x.shape[2:]))
    patches = flat.reshape(count, config.patches, *flat.shape[1:])
    others = jnp.roll(patches[:, : max(1, config.patches // 4)], 1, axis=0)
    if config.other_videos and count < 2:
        raise JaxtrackError("other_videos needs two videos per device at least: --batch-size")
    per_video = jax.vmap(lambda *video: video_loss(config, variables, *video))
    values, metrics = per_video(exemplars, patches, others, key_videos)
    return jnp.mean(values), Aux(batch_stats, jax.tree.map(jnp.mean, metrics))


def view(config: Config, batch: Batch, keys: Array) -> View:
    """Return the anchors, the first context patch of each, and its labels; see `train.step.View`.

    The label says that the target sits in the middle, wherever it is: a tracker's own patches do.
    """
    key_crops, _ = streams(keys, 2)
    z, x = crops(config, batch, key_crops)
    labels = mlt.labels(config.tracker)
    stride = config.tracker.network.stride
    side = config.tracker.positive_radius
    middle = config.context.size / 2 - side
    boxes = jnp.broadcast_to(jnp.asarray([middle, middle, 2 * side, 2 * side]), (len(z), 4))
    return View(z, x[:, 0], boxes, jnp.broadcast_to(labels, (len(z), *labels.shape)), stride)


def task(config: Config) -> Task:
    """Return the task record of the meta stage."""
    return Task(config, init_variables, sample, loss, view)


def _matching(tracker: mlt.Config, like: matching.Config) -> matching.Config:
    """Stage 1: SiamFC's task with this network; the crops, labels and augmentation of ``like``."""
    network = siamfc.Config(
        network=tracker.network,
        backbone_name=tracker.backbone_name,
        out_scale=tracker.out_scale,
        match_norm=tracker.match_norm,
        input_divisor=tracker.input_divisor,
    )
    return dataclasses.replace(like, tracker=network, positive_radius=tracker.positive_radius)


def _meta(tracker: str, small: bool) -> Config:
    config = mlt.PRESETS[tracker]
    return Config(
        tracker=config,
        template=AugmentConfig(size=config.exemplar_size, shift=2, scale=0.03),
        context=AugmentConfig(size=config.instance_size, shift=4, scale=0.05),
        patch=PatchConfig(
            template=PatchSpec(size=139, nominal=127, factor=1.0),
            search=PatchSpec(size=279, nominal=255, factor=255 / 127),
        ),
        patches=8 if small else 16,
        fewest=1 if small else 8,
    )


# Only the meta-learner learns, or in the calibration only the gain: nothing else has a rate.
_FIXED = (Group(r"^(?!meta\.)", rate=0.0),)
_GAIN = "match_batchnorm"
_ALL_BUT_GAIN = (Group(rf"^(?!{_GAIN}\.)", rate=0.0),)
_STAGE_1 = "the weights of stage 1, calibrated"
_OURS = "jaxtrack: the synthetic world"
_DESCRIBED = "MLT as described; what is not is this library's (see jaxtrack.trackers.mlt.config)"


def _meta_preset(tracker: str, small: bool, init_from: str = _STAGE_1) -> Preset:
    config = _meta(tracker, small)
    recipe = OptimConfig("adam", 1e-4, groups=_FIXED)
    if small:
        recipe = OptimConfig("adamw", 1e-3, Schedule("onecycle"), weight_decay=1e-4, groups=_FIXED)
    return Preset(
        task=task(config),
        tracker=tracker,
        optim=recipe,
        batch_size=4 if small else 8,
        steps=1000 if small else 50_000,
        data=same_patches("mlt", config.patch, config.patches),
        save_every=100 if small else 1000,
        source=_OURS if small else _DESCRIBED,
        init_from=init_from,
        load=load,
    )


def _calibration(tracker: str, small: bool) -> Preset:
    """Stage 2's patches and no meta-learner: only the gain and the bias of the response learn."""
    config = dataclasses.replace(_meta(tracker, small), learns=(_GAIN,))
    return dataclasses.replace(
        _meta_preset(tracker, small, init_from="the weights of stage 1"),
        task=task(config),
        optim=OptimConfig("adam", 2e-2, Schedule("onecycle"), groups=_ALL_BUT_GAIN),
        steps=200,
        source=_OURS,
    )


_TINY = _matching(mlt.PRESETS["mlt-tiny-mt"], matching.PRESETS["siamfc-tiny"].task.config)  # type: ignore[arg-type]
_FULL = _matching(mlt.PRESETS["mlt-mt"], matching.PRESETS["siamfc-got10k"].task.config)  # type: ignore[arg-type]

_SMALL = _matching(mlt.PRESETS["mlt-small-mt"], matching.PRESETS["siamfc-small"].task.config)  # type: ignore[arg-type]


def _for_accelerators(preset: Preset, batch_size: int, steps: int) -> Preset:
    """Return a small stage's recipe with larger batches, more steps and a more lifelike world."""
    config: Any = preset.task.config
    config = dataclasses.replace(
        config,
        world=dataclasses.replace(config.world, real=LIFELIKE),
        patch=dataclasses.replace(config.patch, border_rate=0.4),
    )
    return dataclasses.replace(
        preset,
        task=dataclasses.replace(preset.task, config=config),
        batch_size=batch_size,
        steps=steps,
        save_every=max(steps // 20, 100),
        source=f"{_OURS}, for an accelerator",
        data=same_patches("mlt", config.patch, config.patches),
    )


PRESETS: dict[str, Preset] = {
    "mlt-matching": Preset(
        task=matching.task(_FULL),
        tracker="mlt-mt",
        optim=OptimConfig("adam", 1e-4),
        batch_size=8,
        steps=95_000,
        data=same_patches("mlt", _FULL.patch),
        save_every=1000,
        source=_DESCRIBED,
    ),
    "mlt-calibration": _calibration("mlt-mt", small=False),
    "mlt-meta": _meta_preset("mlt", small=False),
    "mlt-meta-noattention": _meta_preset("mlt-noattention", small=False),
    "siamfc-mlt": _meta_preset("siamfc-mlt", small=False, init_from="SiamFC's published weights"),
    "mlt-tiny-matching": dataclasses.replace(
        matching.PRESETS["siamfc-tiny"],
        task=matching.task(_TINY),
        tracker="mlt-tiny-mt",
        steps=3000,
        init_from="the weights of siamfc-tiny",
        load=load_trunk,
    ),
    "mlt-tiny-calibration": _calibration("mlt-tiny-mt", small=True),
    "mlt-tiny-meta": _meta_preset("mlt-tiny", small=True),
    "mlt-tiny-meta-noattention": _meta_preset("mlt-tiny-noattention", small=True),
    "siamfc-tiny-mlt": _meta_preset(
        "siamfc-tiny-mlt", small=True, init_from="the weights of siamfc-tiny"
    ),
    "mlt-small-matching": dataclasses.replace(
        matching.PRESETS["siamfc-small"],
        task=matching.task(_SMALL),
        tracker="mlt-small-mt",
        steps=30_000,
        init_from="the weights of siamfc-small",
        load=load_trunk,
    ),
    "mlt-small-calibration": _for_accelerators(_calibration("mlt-small-mt", small=True), 16, 400),
    "mlt-small-meta": _for_accelerators(_meta_preset("mlt-small", small=True), 32, 30_000),
}
