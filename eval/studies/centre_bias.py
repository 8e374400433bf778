"""Does padding teach a network where the middle is? ``python -m eval.studies.centre_bias``.

Trains small padded networks whose training targets are at most 0, 16, 32 (64) pixels off the middle, then
shows each the same fresh pairs, their targets spread evenly over the search region, and draws the mean
response over positions. A network without a preference answers everywhere alike.

Reference:
    SiamRPN++, section 3.2 and figure 2 (its heat maps of the prior probability of a target).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

import jaxtrack
from jaxtrack import cli
from jaxtrack.errors import UsageError

from . import pairs, results
from .training import Training

TRACKER = "siamrpnpp-padded"
SIZE = 255  # side of the search crops, pixels
STRIDE = 8


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure the preference for the middle.

    Attributes:
        shifts: training shifts to compare, of 0, 16, 32 and 64 pixels.
        steps: training steps of each network; by default the presets' own.
        pairs: fresh pairs to measure on.
        reach: largest offset of their targets, pixels.
        runs: folder of the trainings; finished ones are used again.
        output: folder of the figure and the numbers.
        debug: show the traceback of errors.
    """

    shifts: tuple[Literal[0, 16, 32, 64], ...] = (0, 16, 32)
    steps: Annotated[int | None, cli.Range(low=1)] = None
    pairs: Annotated[int, cli.Range(low=1, high=100_000)] = 256
    reach: float = 72.0
    runs: Path = Path("runs/centre_bias")
    output: Path = Path("results/centre_bias")
    debug: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Bias:
    """What one network shows.

    Attributes:
        shift: of its training, pixels.
        mean_map: ``(s, s)`` mean foreground probability over positions.
        ratio: middle over ring, see `pairs.centre_ratio`.
        hit_near: share of targets in the inner half of the offsets whose box is found (overlap of one
            half).
        hit_far: the same for targets in the outer half.
    """

    shift: int
    mean_map: np.ndarray
    ratio: float
    hit_near: float
    hit_far: float


def measure(shift: int, variables: Any, fresh: pairs.Pairs, reach: float) -> Bias:
    """Measure one network on fresh pairs."""
    config = jaxtrack.get_tracker(TRACKER).config
    answers = pairs.answer(config, variables, fresh)
    mean_map = np.asarray(answers.maps).mean(0)
    boxes = np.asarray(fresh.boxes)
    offset = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - SIZE / 2).max(1)
    found = pairs.overlap(answers, fresh) > 0.5
    near = offset <= reach / 2
    cells = int(reach / STRIDE)
    ratio = pairs.centre_ratio(mean_map, cells // 3, cells)
    return Bias(shift, mean_map, ratio, float(found[near].mean()), float(found[~near].mean()))


def study(options: Options, cwd: Path | None = None) -> list[Bias]:
    """Train what is missing and measure every network on the same pairs.

    Args:
        options: what to compare.
        cwd: the checkout (default: here).
    """
    if not options.shifts:
        raise UsageError("--shifts: give at least one of 0, 16, 32 and 64")
    if not 1 <= options.reach <= (SIZE - 1) / 2:
        raise UsageError(f"--reach {options.reach:g}: give 1 to {(SIZE - 1) / 2:g} pixels")
    trainings = {shift: _training(shift, options) for shift in options.shifts}
    for training in trainings.values():
        training.check()
    fresh = pairs.draw_pairs(options.pairs, SIZE, options.reach)
    found = []
    for shift, training in trainings.items():
        variables = jaxtrack.load_weights(jaxtrack.get_tracker(TRACKER), training.weights(cwd))
        found.append(measure(shift, variables, fresh, options.reach))
    return found


def _training(shift: int, options: Options) -> Training:
    preset = f"{TRACKER}-shift{shift}"
    name = f"{preset}-{options.steps}steps" if options.steps else preset
    return Training(preset, options.runs / name, options.steps)


def draw(found: list[Bias]) -> Any:
    """Draw the heat maps side by side, each over its own mean, one colour scale; a matplotlib figure."""
    import matplotlib.pyplot as plt

    size = (3.0 * len(found) + 0.8, 3.2)
    figure, axes = plt.subplots(1, len(found), figsize=size, squeeze=False, layout="constrained")
    maps = [bias.mean_map / bias.mean_map.mean() for bias in found]
    top = max(float(m.max()) for m in maps)
    for axis, bias, values in zip(axes[0], found, maps):
        image = axis.imshow(values, vmin=0, vmax=top, cmap="viridis")
        axis.set_title(f"shift {bias.shift}: middle / ring {bias.ratio:.2f}", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(image, ax=axes[0].tolist(), shrink=0.8, label="mean response / its mean")
    return figure


def table(found: list[Bias]) -> str:
    """Return the figures as text."""
    lines = ["shift  middle/ring  found near the middle  found far from it"]
    lines += [
        f"{b.shift:5d}  {b.ratio:11.2f}  {b.hit_near:21.2f}  {b.hit_far:17.2f}" for b in found
    ]
    return "\n".join(lines)


def _run(options: Options) -> None:
    folder = results.begin(options.output, options.runs)
    found = study(options)
    text = table(found)
    print(text)
    rows = [{k: v for k, v in dataclasses.asdict(b).items() if k != "mean_map"} for b in found]
    results.write(folder, "centre_bias", rows, text, draw(found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.centre_bias", arguments)


if __name__ == "__main__":
    sys.exit(main())
