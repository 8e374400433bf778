"""Validation inside a run: loss and average overlap on held-out clips of the synthetic world.

The clips and pairs are drawn from a key of their own, which no training and no benchmark uses, and are the
same in every run. What is measured of a tracker is what its user will have: the moving average of the weights
where one is kept.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxtrack
from jaxtrack import trackers
from jaxtrack.base import Tracker
from jaxtrack.ops.boxes import iou_xyxy, xywh_to_xyxy
from jaxtrack.synthetic.world import WorldConfig, make_clip

from .presets import Preset
from .step import TrainState, pair_keys, streams

_KEY = 0x48454C44  # of the held-out clips; a run's own seeds pass through `jax.random.split` first
_PAIRS, _CLIPS = 0, 1
_WORLD = WorldConfig(height=200, width=280, length=60, target_size=(26.0, 64.0))


@dataclasses.dataclass(frozen=True)
class Held:
    """What is held out.

    Attributes:
        batches: batches of pairs for the loss.
        batch_size: pairs of each.
        clips: clips that are tracked.
        world: the world of the clips.
    """

    batches: int = 4
    batch_size: int = 8
    clips: int = 8
    world: WorldConfig = _WORLD


class Validation:
    """Measures a training state on held-out pairs and clips.

    Args:
        preset: what is trained.
        held: what is held out.
    """

    def __init__(self, preset: Preset, held: Held | None = None) -> None:
        self._held = held or Held()
        self._preset = preset
        self._tracker = tracker_of(preset)
        self._clips: list[Any] = []
        self._loss = jax.jit(self._loss_of)

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Measure.

        Args:
            state: on the devices.

        Returns:
            ``validation_loss``, mean over the batches; ``validation_ao``, mean over the clips of the mean
            overlap of box and truth in all frames after the first in which the target is visible.
        """
        variables = jax.device_get(state.variables)
        steps = np.asarray(jax.device_get(state.step))
        keys = [jax.random.fold_in(_held_key(_PAIRS), i) for i in range(self._held.batches)]
        losses = [float(self._loss(variables, steps, key)) for key in keys]
        overlaps = [self._overlap(variables, clip) for clip in self._drawn()]
        return {
            "validation_loss": float(np.mean(losses)),
            "validation_ao": float(np.mean(overlaps)),
        }

    def _loss_of(self, variables: Any, step: Any, key: Any) -> Any:
        task = self._preset.task
        drawn, keys = streams(pair_keys(key, jnp.arange(self._held.batch_size)), 2)
        batch = task.sample(task.config, drawn)
        # Schedules of a loss are at their end: the same measure throughout the run.
        batch |= {"step": step, "epoch": jnp.float32(self._preset.epochs)}
        value, _ = task.loss(
            task.config, variables["params"], variables["batch_stats"], batch, keys
        )
        return value

    def _drawn(self) -> list[Any]:
        if not self._clips:
            draw = jax.jit(make_clip, static_argnums=0)
            for i in range(self._held.clips):
                clip = draw(self._held.world, jax.random.fold_in(_held_key(_CLIPS), i))
                self._clips.append(jax.tree.map(np.asarray, clip))
        return self._clips

    def _overlap(self, variables: Any, clip: Any) -> float:
        state = jaxtrack.init(self._tracker, variables, clip.frames[0], clip.boxes[0])
        _, tracks = jaxtrack.track_clip(self._tracker, variables, state, clip.frames[1:])
        overlaps = iou_xyxy(
            xywh_to_xyxy(jnp.asarray(tracks.box)), xywh_to_xyxy(jnp.asarray(clip.boxes[1:]))
        )
        return float(np.asarray(overlaps)[~np.asarray(clip.absent[1:])].mean())


def _held_key(part: int) -> Any:
    return jax.random.fold_in(jax.random.key(_KEY), part)


def tracker_of(preset: Preset) -> Tracker:
    """Return the tracker that a preset trains, with what was changed in the task's tracker settings."""
    tracker = trackers.get(preset.tracker)
    settings = getattr(preset.task.config, "tracker", None)
    if type(settings) is type(tracker.config):
        return dataclasses.replace(tracker, config=settings)
    return tracker
