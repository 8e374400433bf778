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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxtrack import trackers
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.losses import balanced_logistic, binary_cross_entropy
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.ranges import Count, NotNegative, Share, check_ranges
from jaxtrack.synthetic.realism import LIFELIKE
from jaxtrack.synthetic.world import PatchConfig, WorldConfig, make_patches
from jaxtrack.trackers.mlt import network as net
from jaxtrack.trackers.mlt import tracker as mlt
from jaxtrack.trackers.mlt.pyramid import find_peak
from jaxtrack.trackers.siamfc import tracker as siamfc
from jaxtrack.weights import load_into

from ..augment import AugmentConfig, augment, refuse_sizes
from ..optim import Group, OptimConfig, Schedule
from ..presets import Preset
from ..step import Aux, Batch, Keep, Task, View, streams
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
        peak: weight of `peak_loss` beside the balanced logistic loss, which counts all cells, while a
            track is lost by one; 0: none, as described.
        followed: share of the context patches that are a tracker's own: the matching network looks from
            up to ``drift`` pixels away, and the patch is cut where it finds the target, wherever that is.
            Delta still takes the target to be in the middle, as a tracker has to; the loss takes its
            true place. 0: none, as described.
        drift: largest distance along each axis from which the matching network looks, pixels.
        pasted: share of the context patches into which the target of another video of the batch is
            pasted, beside the patch's own; 0: none, as described.
        given: which patches delta comes from: ``any``: drawn from all, as described; ``first``: the first
            ones in time (patches of stored videos come in order), so that the adapted network is judged
            on what the target will look like; ``likest``: those on which the matching network is surest,
            which in the synthetic world, whose views have no order, stand for the first ones.
        learns: the parts of the variables that learn. ``("meta",)``: the matching network is fixed, as
            described. With names of its parts it learns too, through the adaptation (second order
            unless the tracker's ``first_order``).
    """

    tracker: mlt.Config
    template: AugmentConfig
    context: AugmentConfig
    patch: PatchConfig
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    patches: Count = 16
    fewest: Count = 8
    other_videos: NotNegative = 0.0
    peak: NotNegative = 0.0
    followed: Share = 0.0
    drift: NotNegative = 32.0
    pasted: Share = 0.0
    given: Literal["any", "first", "likest"] = "any"
    learns: tuple[str, ...] = ("meta",)

    def __post_init__(self) -> None:
        """Refuse numbers of patches that contradict each other, by name."""
        check_ranges(self)
        exemplar, template = self.tracker.exemplar_size, self.template.size
        refuse_sizes(self.patch, exemplar, template, self.context.size, "context.size")
        m = self.tracker.samples
        if self.patches < m:
            raise JaxtrackError(
                f"MLT's meta stage: patches (M') is {self.patches}, but delta needs samples (M) = {m}"
                " of them; M' must be at least M"
            )
        if self.fewest > m:
            raise JaxtrackError(
                f"MLT's meta stage: fewest is {self.fewest}; it lies between 1 and samples (M) = {m}"
            )

    @property
    def needs_others(self) -> bool:
        """Whether a video takes something from another one of its batch."""
        return self.other_videos > 0 or self.pasted > 0


# The settings of what comes after the trunk.
_AFTER = ("fewest", "other_videos", "peak", "given", "learns")


class Video(NamedTuple):
    """One video of a batch, as the last layer takes it.

    Attributes:
        exemplar: trunk output of the anchor.
        patches: trunk outputs of the M' context patches.
        places: ``(p, 2)`` where the target is in each patch: row and column, pixels from the middle.
        others: trunk outputs of patches of another video.
    """

    exemplar: Float[Array, "h w c"]
    patches: Float[Array, "p a b c"]
    places: Float[Array, "p 2"]
    others: Float[Array, "q a b c"]


def init_variables(config: Config, key: Array) -> dict[str, Any]:
    """Return the tracker's own variables."""
    return mlt.init_variables(config.tracker, key)


def load(config: Config, path: pathlib.Path, key: Array) -> dict[str, Any]:
    """Return the matching network from a file, a meta-learner at random.

    Args:
        config: settings.
        path: ours of stage 1 or of a full tracker, whose own meta-learner is left; or SiamFC's.
        key: of the meta-learner.
    """
    still = mlt.switched(config.tracker, meta_learner=False, attention=False, fine_tuning=False)
    shapes = jax.eval_shape(lambda k: mlt.init_variables(still, k), key)
    tables = trackers.family("siamfc").tables
    fixed = load_into(shapes, path, tables, part=r"^(?!params/meta/)")
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
    """Cut augmented anchors ``(n, s, s, 3)`` and context patches ``(n, M', r, r, 3)``, 0..255.

    Patches that follow the target are not among them: they take a network (`follow`).
    """
    z, x, _ = _cut(config, batch, keys)
    return z, x


def _cut(
    config: Config, batch: Batch, keys: Array, further: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return anchors, context patches, and the targets' boxes in these ``(n, M', 4)``.

    Args:
        config: settings; with ``further`` the windows are drawn ``drift`` pixels wide.
        batch: raw.
        keys: ``(n,)``; the same keys draw the same windows.
        further: ``(n, M', 2)`` x, y by which the windows of the patches are moved then, crop pixels.
    """
    pair, key_template, key_context = streams(keys, 3)
    cut = jax.vmap(augment, in_axes=(None, 0, 0, 0, 0))
    z, _ = cut(config.template, key_template, pair, batch["template"], batch["template_box"])
    patches, boxes = batch["patches"], batch["patch_boxes"]
    if config.pasted:
        key_paste, key_context = streams(key_context, 2)
        patches = jax.vmap(paste, (None, 0, 0, 0, 0, 0))(
            config.pasted, key_paste, patches, boxes, *_of_another((patches, boxes))
        )
    context, moved = config.context, jnp.zeros((*boxes.shape[:2], 2))
    if further is not None:
        context, moved = dataclasses.replace(context, shift=config.drift), further
    many = jax.vmap(
        lambda k, p, i, b, f: augment(context, k, p, i, b, None if further is None else f),
        (0, None, 0, 0, 0),
    )
    context_keys = jnp.stack(streams(key_context, config.patches), axis=1)
    x, places = jax.vmap(many)(context_keys, pair, patches, boxes, moved)
    return jnp.clip(z, 0, 255), jnp.clip(x, 0, 255), places


def _of_another(tree: Any) -> Any:
    """Return arrays of videos with each video's values replaced by those of its neighbour in the batch."""
    return jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), tree)


def paste(
    share: float,
    key: Array,
    patches: UInt8[Array, "p s s 3"],
    boxes: Float[Array, "p 4"],
    others: UInt8[Array, "p s s 3"],
    other_boxes: Float[Array, "p 4"],
) -> UInt8[Array, "p s s 3"]:
    """Paste another target beside the patches' own, behind it where they overlap.

    Args:
        share: of the patches.
        key: which patches, and where: in any direction, 1 to 1.5 times the targets' mean side away.
        patches: whose targets keep every pixel of their boxes.
        boxes: ``x, y, w, h`` of these, pixels of the patch.
        others: patches that show the other target.
        other_boxes: of the other target.
    """

    def one(key: Array, patch: Array, box: Array, other: Array, other_box: Array) -> Array:
        side = jnp.arange(patch.shape[0], dtype=jnp.float32) + 0.5
        key_turn, key_away, key_flag = jax.random.split(key, 3)
        turn = jax.random.uniform(key_turn, (), maxval=2 * jnp.pi)
        mean_side = 0.5 * (jnp.sqrt(jnp.prod(box[2:])) + jnp.sqrt(jnp.prod(other_box[2:])))
        away = jax.random.uniform(key_away, (), minval=1.0, maxval=1.5) * mean_side
        middle = box[:2] + box[2:] / 2 + away * jnp.stack([jnp.cos(turn), jnp.sin(turn)])
        moved = jnp.round(middle - other_box[:2] - other_box[2:] / 2).astype(jnp.int32)
        corner = other_box[:2] + moved

        def inside(corner: Array, extent: Array) -> Array:
            x, y = ((side >= corner[i]) & (side <= corner[i] + extent[i]) for i in range(2))
            return y[:, None] & x[None, :]

        # Never round the patch's edge: what would come from beyond the other patch is left as it is.
        rows, columns = (jnp.arange(patch.shape[0]) - moved[i] for i in (1, 0))
        known = [(r >= 0) & (r < patch.shape[0]) for r in (rows, columns)]
        there = inside(corner, other_box[2:]) & known[0][:, None] & known[1][None, :]
        there = there & ~inside(box[:2], box[2:]) & (jax.random.uniform(key_flag, ()) < share)
        shown = jnp.roll(jnp.roll(other, moved[1], axis=0), moved[0], axis=1)
        return jnp.where(there[..., None], shown, patch)

    return jax.vmap(one)(jax.random.split(key, len(patches)), patches, boxes, others, other_boxes)


def follow(
    config: Config, variables: Any, exemplars: Float[Array, "n h w c"], batch: Batch, keys: Array
) -> tuple[Float[Array, "n p r r 3"], Float[Array, "n p 4"]]:
    """Cut context patches about the places where the matching network finds the target.

    Args:
        config: settings.
        variables: the matching network's.
        exemplars: trunk outputs of the anchors.
        batch: raw, as `crops` takes it.
        keys: those of `crops`: nothing but the windows' middles differs from its patches.

    Returns:
        The patches, and the targets' boxes in them.
    """
    tracker = config.tracker
    still = jnp.zeros((*batch["patch_boxes"].shape[:2], 2))
    _, looks, _ = _cut(config, batch, keys, still)
    trunks = mlt.trunk(tracker, variables, looks.reshape(-1, *looks.shape[2:]))
    trunks = trunks.reshape(*looks.shape[:2], *trunks.shape[1:])
    module, ones = mlt.module(tracker), jnp.ones(tracker.network.channels[4])
    layer, match = net.last_layer(module, variables), net.head(module, variables)

    def found(exemplar: Array, searches: Array) -> Array:
        kernels = (layer.kernel, layer.kernel)
        maps = net.respond(
            layer, match, tracker.network.groups[4], kernels, ones, exemplar, searches
        )
        rules = (np.ones(1), jnp.ones(1), tracker.window_influence, tracker.response_up)
        peaks = jax.lax.map(lambda one: find_peak(one[None], *rules).offset, maps)
        return peaks[:, ::-1] * tracker.network.stride * maps.shape[-1]

    _, x, boxes = _cut(config, batch, keys, jax.vmap(found)(exemplars, trunks))
    return x, boxes


def peak_loss(responses: Float[Array, "n m m"], labels: Float[Array, "n m m"]) -> Float[Array, ""]:
    """Return how little of the softmax over a response's cells lies on the target, as a logarithm.

    Args:
        responses: logits.
        labels: 1 on the target's cells.

    Returns:
        The mean of ``-log(share on the target)`` over the responses that hold a target.
    """
    flat = responses.reshape(len(responses), -1)
    on = labels.reshape(len(labels), -1) == 1
    there = jnp.any(on, axis=1)
    # A response without a target gets no weight, and nothing infinite, which would spoil the gradient.
    target = jax.nn.logsumexp(flat, axis=1, where=on | ~there[:, None])
    missed = jax.nn.logsumexp(flat, axis=1) - target
    return jnp.sum(jnp.where(there, missed, 0)) / jnp.maximum(jnp.sum(there), 1)


def labels_at(config: mlt.Config, places: Float[Array, "n 2"]) -> Float[Array, "n m m"]:
    """Return the labels of responses whose targets lie off the middle, by row and column in pixels."""
    cells = mlt.response_size(config)
    line = (jnp.arange(cells) - (cells - 1) / 2) * config.network.stride
    distance = jnp.abs(line[None, :, None] - places[:, :1, None])
    distance = distance + jnp.abs(line[None, None, :] - places[:, 1:, None])
    return (distance <= config.positive_radius).astype(jnp.float32)


def video_loss(
    config: Config, variables: Any, video: Video, key: Array
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Adapt to M patches of one video, and judge the adapted network on all M'.

    Args:
        config: settings.
        variables: matching network and meta-learner.
        video: trunk outputs.
        key: choice of the M patches, and dropout.

    Returns:
        The loss, and what is logged: the loss before adapting among it.

    Reference:
        MLT, section 3.3 as described (z_delta is drawn from z_reg; the loss is taken over z_reg).
    """
    tracker = config.tracker
    module = mlt.module(tracker)
    exemplar, patches = video.exemplar, video.patches

    def respond(kernel: Array, weight: Array, searches: Array) -> Array:
        base, match = net.last_layer(module, variables), net.head(module, variables)
        groups = tracker.network.groups[4]
        return net.respond(base, match, groups, (kernel, kernel), weight, exemplar, searches)

    def judge(responses: Array) -> Array:
        if config.followed:
            truth = labels_at(tracker, video.places)
        else:
            truth = jnp.broadcast_to(mlt.labels(tracker)[None], responses.shape)
        value = balanced_logistic(responses, truth)
        return value + config.peak * peak_loss(responses, truth) if config.peak else value

    key_order, key_count, key_dropout = jax.random.split(key, 3)
    count = jax.random.randint(key_count, (), config.fewest, tracker.samples + 1)
    weights = (jnp.arange(tracker.samples) < count).astype(jnp.float32)
    kernel = net.last_layer(module, variables).kernel
    unadapted = respond(kernel, jnp.ones(kernel.shape[-1:]), patches)
    if config.given == "first":
        order = jnp.arange(tracker.samples)
    elif config.given == "likest":
        middle = unadapted.shape[-1] // 2
        order = jnp.argsort(-unadapted[:, middle, middle])[: tracker.samples]
    else:
        order = jax.random.permutation(key_order, config.patches)[: tracker.samples]
    task = mlt.problem(tracker, variables, exemplar, patches[order], weights)
    layer = mlt.adapt(tracker, variables, task, task.kernel, key_dropout)
    attention = mlt.in_correlation(tracker, layer.attention)
    value, before = judge(respond(layer.search_kernel, attention, patches)), judge(unadapted)
    metrics = {"adapted_loss": value, "matching_loss": before}
    if config.other_videos:
        absent = respond(layer.search_kernel, attention, video.others)
        miss = jnp.mean(binary_cross_entropy(absent, jnp.zeros_like(absent)))
        metrics["other_loss"] = miss
        value = value + config.other_videos * miss
    return value, metrics


def _refuse_alone(config: Config, count: int) -> None:
    if config.needs_others and count < 2:
        raise JaxtrackError(
            "other_videos and pasted need two videos per device at least: --batch-size"
        )


def embed(config: Config, variables: Any, batch: Batch, keys: Array) -> Batch:
    """Cut the patches of a batch and embed them, as far as no step of the meta-learner changes it.

    Args:
        config: settings.
        variables: the matching network's.
        batch: raw.
        keys: as `loss` has them.

    Returns:
        ``exemplar``, ``patches`` and ``places`` of `Video`, with a leading axis of videos.
    """
    _refuse_alone(config, len(keys))
    key_crops, _ = streams(keys, 2)
    count = len(batch["template"])
    z, x, boxes = _cut(config, batch, key_crops)
    exemplars = mlt.trunk(config.tracker, variables, z)
    if config.followed:
        own, own_boxes = jax.lax.stop_gradient(
            follow(config, variables, exemplars, batch, key_crops)
        )
        drawn = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 0), x.shape[1:2]))
        which = drawn(key_crops) < config.followed
        x = jnp.where(which[..., None, None, None], own, x)
        boxes = jnp.where(which[..., None], own_boxes, boxes)
    flat = mlt.trunk(config.tracker, variables, x.reshape(-1, *x.shape[2:]))
    patches = flat.reshape(count, config.patches, *flat.shape[1:])
    places = (boxes[..., :2] + boxes[..., 2:] / 2 - config.context.size / 2)[..., ::-1]
    return {"exemplar": exemplars, "patches": patches, "places": places}


def _kept(config: Config, params: Any, batch_stats: Any, batch: Batch, keys: Array) -> Batch:
    """Return what `embed` does, in half the bytes."""
    found = embed(config, {"params": params, "batch_stats": batch_stats}, batch, keys)
    half = {name: found[name].astype(jnp.float16) for name in ("exemplar", "patches")}
    return {**found, **half}


def loss(
    config: Config, params: Any, batch_stats: Any, batch: Batch, keys: Array
) -> tuple[Float[Array, ""], Aux]:
    """Return the mean of `video_loss` over the videos of a batch, raw or kept; see `train.step`."""
    _, key_videos = streams(keys, 2)
    params = {k: v if k in config.learns else jax.lax.stop_gradient(v) for k, v in params.items()}
    variables = {"params": params, "batch_stats": batch_stats}
    _refuse_alone(config, len(keys))
    found = batch if "exemplar" in batch else embed(config, variables, batch, keys)
    exemplars, patches, places = (
        found[name].astype(jnp.float32) for name in ("exemplar", "patches", "places")
    )
    others = _of_another(patches[:, : max(1, config.patches // 4)])
    videos = Video(exemplars, patches, places, others)
    per_video = jax.vmap(lambda video, key: video_loss(config, variables, video, key))
    values, metrics = per_video(videos, key_videos)
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
    keep = Keep(_kept, _AFTER) if config.learns == ("meta",) else None
    return Task(config, init_variables, sample, loss, view, keep=keep)


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
        data_recipe="mlt",
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
    )


PRESETS: dict[str, Preset] = {
    "mlt-matching": Preset(
        task=matching.task(_FULL),
        tracker="mlt-mt",
        optim=OptimConfig("adam", 1e-4),
        batch_size=8,
        steps=95_000,
        data_recipe="mlt",
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
