"""Does padding teach a network where the middle is? ``python -m eval.studies.centre_bias``.

Trains small padded networks whose training targets are at most 0, 16, 32 (64) pixels off the middle, then
shows each the same fresh pairs, their targets spread evenly over the search region, and draws the mean
response over positions. A network without a preference answers everywhere alike.

Reference:
    SiamRPN++, section 3.2 and figure 2 (its heat maps of the prior probability of a target).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxtrack
from eval.studies import pairs as pair_study
from jaxtrack import cli

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

    shifts: tuple[int, ...] = (0, 16, 32)
    steps: int | None = None
    pairs: int = 256
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
        ratio: middle over ring, see `pair_study.centre_ratio`.
        hit_near: share of targets in the inner half of the offsets whose box is found (overlap of one
            half).
        hit_far: the same for targets in the outer half.
    """

    shift: int
    mean_map: np.ndarray
    ratio: float
    hit_near: float
    hit_far: float


def measure(shift: int, variables: Any, pairs: pair_study.Pairs, reach: float) -> Bias:
    """One network on the fresh pairs."""
    config = jaxtrack.get_tracker(TRACKER).config
    answers = pair_study.answer(config, variables, pairs)
    mean_map = np.asarray(answers.maps).mean(0)
    boxes = np.asarray(pairs.boxes)
    offset = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - SIZE / 2).max(1)
    found = pair_study.overlap(answers, pairs) > 0.5
    near = offset <= reach / 2
    cells = int(reach / STRIDE)
    ratio = pair_study.centre_ratio(mean_map, cells // 3, cells)
    return Bias(shift, mean_map, ratio, float(found[near].mean()), float(found[~near].mean()))


def study(options: Options, cwd: Path | None = None) -> list[Bias]:
    """Train what is missing and measure every network on the same pairs.

    Args:
        options: what to compare.
        cwd: the checkout (default: here).
    """
    pairs = pair_study.draw_pairs(options.pairs, SIZE, options.reach)
    found = []
    for shift in options.shifts:
        preset = f"{TRACKER}-shift{shift}"
        variables = pair_study.trained(preset, TRACKER, options.runs, options.steps, cwd)
        found.append(measure(shift, variables, pairs, options.reach))
    return found


def draw(found: list[Bias]) -> Any:
    """The heat maps side by side, each over its own mean, one colour scale; a matplotlib figure."""
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
    """The figures as text."""
    lines = ["shift  middle/ring  found near the middle  found far from it"]
    lines += [
        f"{b.shift:5d}  {b.ratio:11.2f}  {b.hit_near:21.2f}  {b.hit_far:17.2f}" for b in found
    ]
    return "\n".join(lines)


def _run(options: Options) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    found = study(options)
    options.output.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(options.output / "centre_bias.png", dpi=120)
    figures = [{k: v for k, v in dataclasses.asdict(b).items() if k != "mean_map"} for b in found]
    (options.output / "centre_bias.json").write_text(json.dumps(figures, indent=1))
    print(table(found))
    print(f"figure: {options.output / 'centre_bias.png'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.centre_bias", arguments)


if __name__ == "__main__":
    sys.exit(main())
