"""What do fewer digits change: ``python -m eval.studies.precision``.

Trackers on the synthetic benchmark with the products of their networks in float32 (``highest``), in TF32
(``high``) and with networks in bfloat16: the figures by which the default on accelerators is chosen.
Formulations are those of accelerators. A CPU has no TF32: there the operands of its products are rounded
to TF32's ten bits before they are multiplied, which is what a GPU does.

Reference:
    NVIDIA, A100 Tensor Core GPU Architecture, 2020, for TF32: eight bits of exponent, ten of mantissa.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any, get_args
from unittest import mock

import jax
from jax import lax

from jaxtrack import cli
from jaxtrack.ops import precision
from jaxtrack.ops.mapping import by_platform_p

from ..tracking import sequences as benchmarks
from ..tracking.entry import parse_entry
from . import results
from .results import Kept
from .tadt import cut, score

TINY = ("siamfc-tiny", "siamrpnpp-tiny", "mlt-tiny", "tadt-tiny", "ostrack-tiny")
_TF32 = {"exponent_bits": 8, "mantissa_bits": 10}


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare precisions.

    Attributes:
        tracker: presets, or PRESET=FILE.
        digits: precisions; differences are to the first.
        clips: clips of the synthetic benchmark, spread over it; 0: all.
        frames: frames of each clip; 0: all.
        slots: clips side by side.
        output: folder of the table, the figure and the numbers; runs found there are not repeated.
        debug: show the traceback of errors.
    """

    tracker: tuple[str, ...] = TINY
    digits: tuple[precision.Precision, ...] = get_args(precision.Precision)
    clips: Annotated[int, cli.Range(low=0)] = 0
    frames: Annotated[int, cli.Range(low=0)] = 0
    slots: Annotated[int, cli.Range(low=1)] = 8
    output: Path = Path("results/precision")
    debug: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        tracker: its row's name.
        digits: of the products.
        auc: area under the success curve.
        precision: at 20 pixels.
    """

    tracker: str
    digits: str
    auc: float
    precision: float


@contextlib.contextmanager
def as_on_accelerators() -> Iterator[None]:
    """Compute here as accelerators do: their formulations, and products of TF32 where they have them."""
    if jax.default_backend() != "cpu":
        yield
        return

    def theirs(*leaves: Any, forms: Any, **_: Any) -> Any:
        return forms[1](*leaves)

    def rounding(primitive: Any) -> Any:
        bind = primitive.bind

        def rounded(left: Any, right: Any, **settings: Any) -> Any:
            if _is_high(settings["precision"]):
                left, right = (lax.reduce_precision(x, **_TF32) for x in (left, right))
            return bind(left, right, **settings)

        return mock.patch.object(primitive, "bind", rounded)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(by_platform_p, "bind", theirs))
        for primitive in (lax.dot_general_p, lax.conv_general_dilated_p):
            stack.enter_context(rounding(primitive))
        # Programs made before and after are others.
        jax.clear_caches()
        stack.callback(jax.clear_caches)
        yield


def _is_high(asked: Any) -> bool:
    """Return whether a product asks for TF32: alone, or for each of its operands."""
    return lax.Precision.HIGH in (asked if isinstance(asked, tuple) else (asked,))


def measure(options: Options) -> list[Row]:
    """Run every tracker with every precision; finished runs are read from ``output/runs``."""
    from tqdm import tqdm

    entries = [parse_entry(text) for text in options.tracker]
    sequences = cut(benchmarks.load("synthetic"), options.clips, options.frames)
    shown = {s.name: s.inputs() for s in sequences}
    kept = Kept(options.output / "runs")
    rows = []
    with as_on_accelerators():
        for entry in entries:
            variables = entry.load()
            for digits in tqdm(options.digits, desc=entry.label, unit=" precisions"):
                with precision.using(digits):
                    inputs = {
                        "tracker": entry.fingerprint(variables),
                        "digits": digits,
                        "sequences": shown,
                    }
                    found = kept.get(inputs)
                    if found is None:
                        found = list(score(entry.tracker, variables, sequences, options.slots))
                        kept.put(inputs, found)
                rows.append(Row(entry.label, digits, float(found[0]), float(found[1])))
    return rows


def table(rows: list[Row]) -> str:
    """Return rows as Markdown; differences of AUC are to the first precision of each tracker."""
    first: dict[str, float] = {}
    lines = [
        "| tracker | digits | AUC | difference | precision |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        base = first.setdefault(row.tracker, row.auc)
        lines.append(
            f"| {row.tracker} | {row.digits} | {row.auc:.4f} | {row.auc - base:+.4f} "
            f"| {row.precision:.4f} |"
        )
    return "\n".join(lines)


def draw(rows: list[Row]) -> Any:
    """Draw the area under the success curve of every tracker and precision; a matplotlib figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 0.3 * len(rows) + 1))
    names = [f"{row.tracker}, {row.digits}" for row in rows]
    axis.barh(names, [row.auc for row in rows], color="lightsteelblue")
    axis.invert_yaxis()
    axis.set_xlabel("area under the success curve")
    figure.tight_layout()
    return figure


def _run(options: Options) -> None:
    folder = results.begin(options.output)
    rows = measure(options)
    text = table(rows)
    print(text)
    results.write(folder, "precision", rows, text, draw(rows))


def main(arguments: Items[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.studies.precision", arguments)


if __name__ == "__main__":
    sys.exit(main())
