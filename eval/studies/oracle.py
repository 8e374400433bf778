"""What limits MLT, its meta-learner or what it may answer: ``python -m eval.studies.oracle``.

A meta-learner answers one gradient with new kernels for the last layer and an attention over its channels.
Four answers are compared, on patches of a tracker's own (cut where the matching network believed the target
to be) and in tracking:

================= =======================================================================================
none              the matching network as it is
g                 the meta-learner's answer to the patches of the first frames
descent           the best answer to the same patches: gradient descent from the meta-learner's on
hindsight         the best answer to patches of the whole sequence, cut at the true boxes
================= =======================================================================================

Where *hindsight* gains much and *descent* does not, a few early patches say too little; where *descent* gains
and *g* does not, the meta-learner is the limit; where *hindsight* gains nothing, appended kernels are.
Frames that hindsight was fitted on are not among those that are judged.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtrack import base as verbs
from jaxtrack import cli
from jaxtrack.base import Tracker, Variables
from jaxtrack.data.record import usable_boxes
from jaxtrack.errors import UsageError
from jaxtrack.ops import crop
from jaxtrack.ops.boxes import iou_xyxy, middle_of, xywh_to_xyxy
from jaxtrack.ops.losses import balanced_logistic
from jaxtrack.ops.response import first_peak
from jaxtrack.trackers.mlt import network as net
from jaxtrack.trackers.mlt import tracker as mlt
from jaxtrack.trackers.mlt.adaptation import Adapted

from ..metrics.bootstrap import bootstrap
from ..tracking import sequences as benchmarks
from ..tracking import slots
from ..tracking.entry import parse_entry
from ..tracking.sequences import Sequence
from . import results
from .results import Kept

ANSWERS = ("none", "g", "descent", "hindsight")
HINDSIGHT = 8  # patches of the whole sequence


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare a meta-learner with the best that it could have answered.

    Attributes:
        tracker: a full preset of MLT, PRESET or PRESET=WEIGHTS_FILE.
        set: settings of it, PATH=VALUE.
        benchmark: synthetic, synthetic-hard, or a data set in its own layout: otb100, custom, ...
        root: the benchmark's folder (not for the synthetic ones).
        sequence: only these sequences.
        frames: frames of each sequence; 0: all.
        steps: of the gradient descent.
        rate: of the gradient descent (Adam's).
        every: a patch is taken from each so many frames.
        fewest: a row more, the meta-learner run only when the memory holds so many patches; 1: no such row.
        output: folder of the table, the figure and the numbers; sequences found there are not repeated.
        debug: show the traceback of errors.
    """

    tracker: str = "mlt-tiny"
    set: tuple[str, ...] = ()
    benchmark: str = "synthetic"
    root: Path | None = None
    sequence: tuple[str, ...] = ()
    frames: Annotated[int, cli.Range(low=0)] = 0
    steps: Annotated[int, cli.Range(low=1)] = 100
    rate: float = 1e-2
    every: Annotated[int, cli.Range(low=2)] = 10
    fewest: Annotated[int, cli.Range(low=1)] = 3
    output: Path = Path("results/oracle")
    debug: bool = False


class Seen(NamedTuple):
    """What the matching network came by on one sequence.

    Attributes:
        exemplar: trunk output of the exemplar.
        believed: ``(n, a, b, c)`` of patches about the tracker's own positions, every so many frames.
        true: ``(n, a, b, c)`` of patches about the true positions in the same frames.
        searched: ``(q, a, b, c)`` of search crops of other frames, as the tracker had cut them.
        offset: ``(q, 2)`` row and column of the target in their responses, cells from the middle.
        boxes: ``(t, 4)`` the tracker's boxes, the first given.
    """

    exemplar: Float[Array, "h w c"]
    believed: Float[np.ndarray, "n a b c"]
    true: Float[np.ndarray, "n a b c"]
    searched: Float[np.ndarray, "q a b c"]
    offset: Float[np.ndarray, "q 2"]
    boxes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Row:
    """One answer, over all sequences.

    Attributes:
        name: of the answer.
        loss: balanced logistic loss on search crops.
        found: share of search crops whose peak lies within a cell of the target.
        found_gain: 95 % interval of its difference to none, over sequences.
        auc: mean overlap of tracking.
        gain: its difference to none.
        gain_interval: 95 % interval over sequences.
    """

    name: str
    loss: float
    found: float
    found_gain: tuple[float, float]
    auc: float
    gain: float
    gain_interval: tuple[float, float]


@functools.partial(jax.jit, static_argnums=0)
def _look(config: mlt.Config, variables: Variables, state: Any, frame: Array, box: Array) -> Array:
    """Return trunk outputs of crops about the state's position and about a box, ``(2, a, b, c)``."""
    centre, size = middle_of(box)
    one = jnp.ones((1,), state.size.dtype)
    places = (state, state._replace(centre=centre, size=size))
    crops = [mlt.look_at(config, s, frame, one, config.instance_size).crops for s in places]
    return mlt.trunk(config, variables, jnp.concatenate(crops))


def watch(still: Tracker, variables: Variables, sequence: Sequence, every: int) -> Seen:
    """Track with the matching network alone and keep what it saw.

    Args:
        still: the tracker with all switches off.
        variables: of the full one.
        sequence: what is tracked.
        every: patches are taken from frames 0, every, 2 every, ...; search crops from those half between.
    """
    config: Any = still.config
    cells = mlt.response_size(config)
    boxes, believed, true, searched, offsets = [sequence.boxes[0]], [], [], [], []
    state = None
    for index, frame in enumerate(slots.frames_of(sequence)):
        truth = np.asarray(sequence.boxes[index], np.float32)
        known = bool(np.isfinite(truth).all() and (truth[2:] > 0).all())
        if state is None:
            state = verbs.init(still, variables, frame, truth)
        else:
            if index % every == every // 2 and known:
                offset = _offset(config, state, truth)
                if np.abs(offset).max() <= (cells - 1) / 2:
                    searched.append(_look(config, variables, state, frame, truth)[0])
                    offsets.append(offset)
            state, found = verbs.track_frame(still, variables, state, frame)
            boxes.append(np.asarray(found.box, np.float64))
        if index % every == 0 and known:
            one, other = _look(config, variables, state, frame, truth)
            believed.append(one)
            true.append(other)
    side = config.network.feature_size(config.instance_size, 4)
    none = np.zeros((0, side, side, config.network.channels[3]), np.float32)
    assert state is not None
    return Seen(
        state.exemplar,
        np.stack(believed),
        np.stack(true),
        np.stack(searched) if searched else none,
        np.reshape(offsets, (-1, 2)),
        np.stack(boxes),
    )


def _offset(config: mlt.Config, state: Any, truth: np.ndarray) -> np.ndarray:
    """Return where the target lies in the response to a search crop, cells from the middle."""
    centre, _ = middle_of(jnp.asarray(truth))
    side = crop.context_side(state.size, config.context) / config.exemplar_size
    return np.asarray((centre - state.centre) / side / config.network.stride)


def _answer(
    config: mlt.Config, variables: Variables, exemplar: Array, patches: Array, steps: int
) -> Adapted:
    """Return the meta-learner's answer to patches, after some steps of descent."""
    config = dataclasses.replace(config, descent_steps=steps)
    task = mlt.problem(config, variables, exemplar, patches, jnp.ones(len(patches)))
    return mlt.adapt(config, variables, task, task.kernel)


_answered = jax.jit(_answer, static_argnums=(0, 4))


@functools.partial(jax.jit, static_argnums=0)
def _responses(
    config: mlt.Config, variables: Variables, layer: Adapted, exemplar: Array, searches: Array
) -> Array:
    module = mlt.module(config)
    return net.respond(
        net.last_layer(module, variables),
        net.head(module, variables),
        config.network.groups[4],
        (layer.template_kernel, layer.search_kernel),
        mlt.in_correlation(config, layer.attention),
        exemplar,
        searches,
    )


def judged(config: mlt.Config, responses: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return loss and whether the target was found, of each response.

    Args:
        config: settings.
        responses: ``(q, m, m)`` logits.
        offset: ``(q, 2)`` where the target is, cells from the middle.

    Returns:
        ``(q, 2)``: the balanced logistic loss with positives about the target, and 1 or 0.
    """
    cells, found = responses.shape[-1], []
    reach = config.positive_radius / config.network.stride
    line = np.arange(cells) - (cells - 1) / 2
    for response, place in zip(responses, offset):
        down, across = np.abs(line - place[0]), np.abs(line - place[1])
        labels = (down[:, None] + across[None, :] <= reach).astype(np.float32)
        loss = balanced_logistic(jnp.asarray(response), jnp.asarray(labels))
        peak = np.asarray(first_peak(jnp.asarray(response))) - (cells - 1) / 2
        found.append([float(loss), float(np.abs(peak - place).max() <= 1)])
    return np.reshape(found, (-1, 2))


def layers(config: mlt.Config, variables: Variables, seen: Seen, steps: int) -> dict[str, Adapted]:
    """Return the last layer of every answer."""
    module = mlt.module(config)
    kernel = net.last_layer(module, variables).kernel
    early = jnp.asarray(seen.believed[: config.samples])
    # As many for every sequence: one program.
    spread = np.linspace(0, len(seen.true) - 1, HINDSIGHT).round().astype(int)
    whole = jnp.asarray(seen.true[spread])
    exemplar = seen.exemplar
    return {
        "none": Adapted(kernel, kernel, jnp.ones(kernel.shape[-1:])),
        "g": _answered(config, variables, exemplar, early, 0),
        "descent": _answered(config, variables, exemplar, early, steps),
        "hindsight": _answered(config, variables, exemplar, whole, steps),
    }


def tracked(still: Tracker, variables: Variables, sequence: Sequence, layer: Adapted) -> np.ndarray:
    """Track a sequence with one layer from the first frame to the last; boxes ``(t, 4)``."""
    config: Any = still.config
    boxes, state = [np.asarray(sequence.boxes[0])], None
    for frame in slots.frames_of(sequence):
        if state is None:
            state = verbs.init(still, variables, frame, np.asarray(sequence.boxes[0], np.float32))
            weight = mlt.in_correlation(config, layer.attention)
            state = mlt.with_layer(config, variables, state, layer.search_kernel, weight)
            continue
        state, found = verbs.track_frame(still, variables, state, frame)
        boxes.append(np.asarray(found.box, np.float64))
    return np.stack(boxes)


def mean_overlap(sequence: Sequence, boxes: np.ndarray) -> float:
    """Return the mean intersection over union of the frames after the first that have a box."""
    truth, boxes = sequence.boxes[1:], boxes[1:]
    known = usable_boxes(truth)
    values = iou_xyxy(xywh_to_xyxy(boxes[known]), xywh_to_xyxy(truth[known]))
    return float(np.mean(values)) if known.any() else float("nan")


class Answered(NamedTuple):
    """What one answer gave on one sequence.

    Attributes:
        patches: ``(q, 2)`` of `judged`, for each search crop.
        overlap: mean overlap of tracking.
    """

    patches: np.ndarray
    overlap: float


def answers(
    trackers: dict[str, Tracker], variables: Variables, sequence: Sequence, options: Options
) -> dict[str, Answered]:
    """Measure every answer on one sequence.

    Args:
        trackers: by answer; ``none`` with all switches off, every other as it tracks.
        variables: of the full tracker.
        sequence: what is tracked.
        options: steps of the descent, and how often a patch is taken.
    """
    still, config = trackers["none"], trackers["g"].config
    assert isinstance(config, mlt.Config)
    seen = watch(still, variables, sequence, options.every)
    config = dataclasses.replace(config, descent_rate=options.rate)
    made = layers(config, variables, seen, options.steps)
    patches = {}
    for name, layer in made.items():
        found = _responses(config, variables, layer, seen.exemplar, jnp.asarray(seen.searched))
        patches[name] = judged(config, np.asarray(found), seen.offset)
    hindsight = tracked(still, variables, sequence, made["hindsight"])
    boxes = {"none": seen.boxes, "hindsight": hindsight}
    for name, tracker in trackers.items():
        if name != "none":
            [(_, track)] = slots.run(tracker, variables, [sequence])
            boxes[name] = track.boxes
    # A tracker that only waits longer with g has no patches of its own.
    return {
        name: Answered(patches.get(name, patches["g"]), mean_overlap(sequence, boxes[name]))
        for name in boxes
    }


def measure(options: Options) -> list[Row]:
    """Measure every answer on every sequence that was not measured before."""
    from tqdm import tqdm

    entry = parse_entry(options.tracker, options.set)
    config = entry.tracker.config
    if not isinstance(config, mlt.Config) or not (config.meta_learner and config.attention):
        raise UsageError(f"--tracker {options.tracker}: not a full preset of MLT")
    variables = entry.load()
    sequences = benchmarks.load(options.benchmark, options.root, names=options.sequence)
    sequences = [benchmarks.shortened(s, options.frames) for s in sequences]
    config = dataclasses.replace(
        config, fewest_patches=1
    )  # as described; --fewest is a row of its own
    configs = {"none": mlt.switched(config, False, False, False), "g": config}
    descent: dict[str, Any] = {"descent_steps": options.steps, "descent_rate": options.rate}
    configs["descent"] = dataclasses.replace(config, **descent)
    if options.fewest > 1:
        waits = f"g from {options.fewest} patches on"
        configs[waits] = dataclasses.replace(config, fewest_patches=options.fewest)
    trackers = {k: dataclasses.replace(entry.tracker, config=c) for k, c in configs.items()}
    kept, made = Kept(options.output / "runs"), entry.fingerprint(variables)
    asked = {k: getattr(options, k) for k in ("steps", "rate", "every", "fewest")}
    found: list[dict[str, Answered]] = []
    for sequence in tqdm(sequences, unit=" sequences", leave=False):
        inputs = {"tracker": made, "sequence": sequence.name, **asked, **sequence.inputs()}
        one = kept.get(inputs)
        if one is None:
            measured = answers(trackers, variables, sequence, options)
            one = {
                k: {"patches": a.patches.tolist(), "overlap": a.overlap}
                for k, a in measured.items()
            }
            kept.put(inputs, one)
        found.append(
            {k: Answered(np.reshape(a["patches"], (-1, 2)), a["overlap"]) for k, a in one.items()}
        )
    return [row_of(name, found) for name in (*ANSWERS, *(k for k in configs if k not in ANSWERS))]


def row_of(name: str, found: list[dict[str, Answered]]) -> Row:
    """Return the figures of one answer over sequences, which all count alike."""

    def means(name: str) -> np.ndarray:
        parts = [one[name].patches for one in found]
        return np.array([part.mean(axis=0) if len(part) else [np.nan, np.nan] for part in parts])

    ours, none = means(name), means("none")
    overlaps = np.array([one[name].overlap for one in found])
    gain = overlaps - [one["none"].overlap for one in found]
    return Row(
        name=name,
        loss=float(np.nanmean(ours[:, 0])),
        found=float(np.nanmean(ours[:, 1])),
        found_gain=bootstrap(ours[:, 1] - none[:, 1]),
        auc=float(np.nanmean(overlaps)),
        gain=float(np.nanmean(gain)),
        gain_interval=bootstrap(gain),
    )


def table(rows: list[Row]) -> str:
    """Return rows as text."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'answer':{width}s}   loss  found  against none      overlap  against none"]
    lines += [
        f"{r.name:{width}s}  {r.loss:.3f}   {r.found:.3f}  [{r.found_gain[0]:+.3f}, {r.found_gain[1]:+.3f}]"
        f"    {r.auc:.3f}  {r.gain:+.3f} [{r.gain_interval[0]:+.3f}, {r.gain_interval[1]:+.3f}]"
        for r in rows
    ]
    return "\n".join(lines)


def draw(rows: list[Row]) -> Any:
    """Draw the gains in tracking with their intervals; a matplotlib figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 0.45 * len(rows) + 1), layout="constrained")
    for place, row in enumerate(rows):
        low, high = row.gain_interval
        axis.plot([low, high], [place, place], color="steelblue")
        axis.plot([row.gain], [place], "o", color="steelblue")
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axis.set_xlabel("mean overlap against none")
    return figure


def _run(options: Options) -> None:
    folder = results.begin(options.output, options.root)
    rows = measure(options)
    text = table(rows)
    print(text)
    results.write(folder, "oracle", rows, text, draw(rows))


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.oracle", arguments)


if __name__ == "__main__":
    sys.exit(main())
