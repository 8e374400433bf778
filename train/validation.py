"""Validation inside a run: loss and average overlap on what is held out of it (`train.held`).

What is measured of a tracker is what its user will have: the moving average of the weights where one is kept.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrack import checks, streaming, trackers
from jaxtrack.base import Tracker, variable_shapes
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.boxes import iou_xyxy, xywh_to_xyxy

from . import presets
from .held import Clip, Drawn, Held
from .presets import Preset
from .step import Batch, TrainState

MEASURES = ("validation_loss", "validation_ao")


class Validation:
    """Measures a training state on held-out pairs and clips.

    Args:
        preset: what is trained.
        held: what is held out; None: of the synthetic world.

    Raises:
        JaxtrackError: the tracker does not take what is trained: told before anything is.
    """

    def __init__(self, preset: Preset, held: Held | None = None) -> None:
        self._held = held or Drawn()
        self._preset = preset
        self._tracker = tracker_of(preset)
        try:
            checks.variables(presets.shapes(preset.task), variable_shapes(self._tracker))
        except JaxtrackError as error:
            raise JaxtrackError(
                f"--validate-every tracks with {preset.tracker}, which {preset.name} does not train: {error}"
            ) from error
        self._batches: list[tuple[Batch, Any]] = []
        self._clips: list[Clip] | None = None
        self._loss = jax.jit(self._loss_of)

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Measure.

        Args:
            state: on the devices.

        Returns:
            ``validation_loss``, mean over the batches; ``validation_ao``, mean over the clips of the mean
            overlap of box and truth in all frames after the first in which the target is visible.

        Raises:
            JaxtrackError: no clip can be read. One that cannot is named and left out from then on.
        """
        variables = jax.device_get(state.variables)
        steps = np.asarray(jax.device_get(state.step))
        self._batches = self._batches or self._held.batches(self._preset.task)
        losses = [float(self._loss(variables, steps, *pairs)) for pairs in self._batches]
        overlaps = self._overlaps(variables)
        return dict(zip(MEASURES, (float(np.mean(x)) for x in (losses, overlaps)), strict=True))

    def _loss_of(self, variables: Any, step: Any, batch: Batch, keys: Any) -> Any:
        task = self._preset.task
        # Schedules of a loss are at their end: the same measure throughout the run.
        batch = {**batch, "step": step, "epoch": jnp.float32(self._preset.epochs)}
        value, _ = task.loss(
            task.config, variables["params"], variables["batch_stats"], batch, keys
        )
        return value

    def _overlaps(self, variables: Any) -> list[float]:
        """Return the mean overlap of each clip."""
        clips = list(self._held.clips()) if self._clips is None else self._clips
        found: list[float] = []
        good: list[Clip] = []
        # One canvas for all: one program.
        canvas = max(c.size[0] for c in clips), max(c.size[1] for c in clips)
        for clip in clips:
            try:
                found.append(self._overlap(variables, clip, canvas))
            except JaxtrackError as error:
                print(f"note: left out of the validation: {error}", file=sys.stderr)
                if clip is clips[-1] and not good:
                    raise
                continue
            good.append(clip)
        self._clips = good
        return found

    def _overlap(self, variables: Any, clip: Clip, canvas: tuple[int, int]) -> float:
        tracks = streaming.track(
            self._tracker, variables, clip.frames(), clip.boxes[0], canvas=canvas
        )
        found, truth = (xywh_to_xyxy(jnp.asarray(x)) for x in (tracks.boxes[0], clip.boxes))
        overlaps = iou_xyxy(found[1:], truth[1:])
        return float(np.asarray(overlaps)[clip.seen[1:]].mean())


def tracker_of(preset: Preset) -> Tracker:
    """Return the tracker that a preset trains, with what was changed in the task's tracker settings."""
    tracker = trackers.get(preset.tracker)
    settings = getattr(preset.task.config, "tracker", None)
    if type(settings) is type(tracker.config):
        return dataclasses.replace(tracker, config=settings)
    return tracker
