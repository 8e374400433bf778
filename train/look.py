"""Look at what a preset trains on: ``python -m train.look PRESET`` writes a picture of a training batch.

Each row is a pair: the two patches as they come from the data, with the target's box, then the two crops
that the network sees after augmentation, with box and labels (green: the target; red: background that counts;
a cell without colour does not count).
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxtrack import cli
from jaxtrack.cli import Each, Metavar, Positional, Range
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.io.images import output_image, write_image
from jaxtrack.io.writer import beside, draw_boxes

from . import presets
from .data import SYNTHETIC, Share, is_kept, open_batches
from .presets import Preset
from .step import pair_keys, streams

_BOX = (255, 208, 48)
_POSITIVE, _NEGATIVE = np.asarray([0, 220, 0]), np.asarray([220, 0, 0])


@dataclasses.dataclass(frozen=True)
class Options:
    """Write a picture of what a preset trains on.

    Attributes:
        preset: which recipe; ``python -m train.run list`` names them all. ``package.module:PRESET``: one
            of your own.
        output: the picture, .png or .jpg.
        pairs: rows of the picture.
        seed: of the run whose first pairs are shown.
        set: change a field of the preset, as ``task.search.shift=8``.
        data: ``synthetic``, or the folder of built datasets.
        recipe: with --data: insist on the datasets and ratios of the published recipe.
        debug: show the traceback of an error.
    """

    preset: Annotated[str, Positional]
    output: pathlib.Path = pathlib.Path("batch.png")
    pairs: Annotated[int, Range(low=1, high=64)] = 6
    seed: Annotated[int, Range(low=0, high=2**32 - 1)] = 0
    set: Annotated[tuple[str, ...], Each, Metavar("FIELD=VALUE")] = ()
    data: Annotated[str, Metavar("DIR")] = SYNTHETIC
    recipe: bool = False
    debug: bool = False


def picture(preset: Preset, batch: dict[str, Any] | None, seed: int, pairs: int) -> np.ndarray:
    """Draw the first pairs of a run.

    Args:
        preset: what is trained.
        batch: as the input pipeline delivers it; None: drawn by the task.
        seed: of the run.
        pairs: how many.

    Returns:
        ``(h, w, 3)`` uint8.

    Raises:
        JaxtrackError: the task shows nothing.
    """
    task = preset.task
    if task.view is None:
        raise JaxtrackError(f"{preset.name}: this task has nothing to show")
    # As in the loop: the key of step 0, one key for each pair.
    _, key = jax.random.split(jax.random.key(seed))
    drawn, keys = streams(pair_keys(jax.random.fold_in(key, 0), jnp.arange(pairs)), 2)
    if batch is None:
        batch = jax.jit(lambda k: task.sample(task.config, k))(drawn)
    seen = jax.jit(task.view, static_argnums=0)(task.config, batch, keys)
    return rows_of(jax.device_get(batch), jax.device_get(seen))


def rows_of(batch: dict[str, Any], seen: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Draw each pair as a row: the batch and its `train.step.View`, on the host."""
    rows = []
    for i in range(len(seen.search)):
        raw = [draw_boxes(batch["template"][i], batch["template_box"][i][None], colours=(_BOX,))]
        if "patches" in batch:
            searches, boxes = batch["patches"][i][:1], batch["patch_boxes"][i][:1]
        else:
            searches, boxes = batch["search"][i][None], batch["search_box"][i][None]
        raw += [
            draw_boxes(image, box[None], colours=(_BOX,)) for image, box in zip(searches, boxes)
        ]
        template, search = (
            np.clip(np.rint(image), 0, 255).astype(np.uint8)
            for image in (seen.template[i], seen.search[i])
        )
        labelled = draw_boxes(
            tinted(search, seen.labels[i], seen.stride), seen.boxes[i][None], colours=(_BOX,)
        )
        rows.append(beside([*raw, template, labelled], axis=1))
    return beside(rows, axis=0)


def tinted(image: np.ndarray, labels: np.ndarray, stride: float) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a search image by the labels of the response's cells.

    Args:
        image: ``(r, r, 3)`` uint8.
        labels: ``(m, m)``, 0 to 1, nan for cells that do not count.
        stride: pixels per cell; the map lies in the middle of the image.
    """
    side, cells = image.shape[0], labels.shape[0]
    index = np.floor((np.arange(side) - side / 2) / stride + cells / 2).astype(int)
    inside = (index >= 0) & (index < cells)
    index = np.clip(index, 0, cells - 1)
    value = labels[index[:, None], index[None]]
    value = np.where(inside[:, None] & inside[None], value, np.nan)[..., None]
    colour = value * _POSITIVE + (1 - value) * _NEGATIVE
    mixed = 0.65 * image + 0.35 * np.nan_to_num(colour)
    return np.where(np.isnan(value), image, mixed).astype(np.uint8)


def _run(options: Options) -> None:
    preset = presets.changed(presets.get(options.preset), options.set)
    output = output_image(options.output)
    if is_kept(options.data):
        raise UsageError(f"--data {options.data}: kept outputs, which are no pictures")
    batches = open_batches(
        options.data, preset, Share(options.pairs), options.seed, 0, options.recipe
    )
    batch, _ = batches.next()
    batch.pop("index")
    batches.close()
    # What is drawn is drawn by the task: of it there is nothing but the index.
    write_image(output, picture(preset, batch or None, options.seed, options.pairs))
    print(f"written: {output}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, f"python -m {__package__}.look", arguments)


if __name__ == "__main__":
    sys.exit(main())
