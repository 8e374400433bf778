"""Compute once what no step of a training changes: ``python -m train.keep PRESET --output FOLDER``.

MLT's meta-learner learns on the outputs of a trunk that stays as it is, and most of a step is that trunk and
the drawing of its pictures. They can be kept, and trained on many times, by many seeds and recipes:

    python -m train.keep mlt-tiny-meta --init-from mlt-tiny --count 2000 --output kept
    python -m train.run mlt-tiny-meta --init-from mlt-tiny --data kept

A run on kept outputs has to begin with the same weights, and may change those fields alone on which the
outputs do not depend: everything else is refused by name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import IO, Annotated, Any

import jax
import numpy as np

from jaxtrack import cli
from jaxtrack.cli import Each, Metavar, Positional, Range
from jaxtrack.errors import UsageError, naming
from jaxtrack.io import paths
from jaxtrack.io.records import checksum, write_json

from . import data, presets, run
from .step import pair_keys, streams

_KEY = 0x4B455054  # what is kept is not what a run draws


@dataclasses.dataclass(frozen=True)
class Options:
    """Compute once what no step of a training changes, and keep it.

    Attributes:
        preset: which recipe.
        output: folder of what is kept.
        init_from: the weights that the training starts from: a file, the folder of a run, or a preset whose
            weights come with the package.
        count: pairs (of MLT's meta stage: videos) that are drawn.
        set: change a field of the preset, as ``task.pasted=.5``.
        textures: folder of pictures that become textures in a share of the synthetic scenes.
        batch_size: pairs that are drawn and computed together.
        seed: of what is drawn.
        debug: show the traceback of an error.
    """

    preset: Annotated[str, Positional]
    output: pathlib.Path
    init_from: Annotated[str, Metavar("PATH|PRESET")]
    count: Annotated[int, Range(low=1, high=10_000_000)] = 2000
    set: Annotated[tuple[str, ...], Each, Metavar("FIELD=VALUE")] = ()
    textures: pathlib.Path | None = None
    batch_size: Annotated[int, Range(low=1, high=65_536)] = 4
    seed: Annotated[int, Range(low=0, high=2**32 - 1)] = 0
    debug: bool = False


def keep(options: Options) -> pathlib.Path:
    """Compute and write; what was interrupted begins anew.

    Returns:
        The folder.

    Raises:
        UsageError: of this recipe nothing can be kept.
        JaxtrackError: no such weights, or a folder that is in use.
    """
    from tqdm import tqdm

    preset = presets.get(options.preset)
    if options.textures is not None:
        preset = run.with_textures(preset, options.textures)
    preset = presets.changed(preset, options.set)
    part = preset.task.keep
    if part is None:
        raise UsageError(
            f"{options.preset}: every part of its loss learns, so that nothing can be kept"
        )
    if options.count % options.batch_size:
        raise UsageError(
            f"--count {options.count}: give a multiple of --batch-size {options.batch_size}"
        )
    start = run.start_file(options.init_from)
    folder = paths.output_folder(options.output, inputs=[start])
    config = preset.task.config
    given: dict[str, Any] = {"init_from": options.init_from}
    variables = run.first_variables(given, preset, jax.random.key(options.seed))

    @jax.jit
    def compute(first: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(_KEY), options.seed)
        draw, lose = streams(pair_keys(key, first + jax.numpy.arange(options.batch_size)), 2)
        batch = preset.task.sample(config, draw)
        return part.compute(config, variables["params"], variables["batch_stats"], batch, lose)

    with naming(folder, "cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / data.KEPT).unlink(missing_ok=True)
    files: dict[str, IO[bytes]] = {}
    with (
        contextlib.ExitStack() as stack,
        tqdm(total=options.count, unit=" pairs", disable=None) as bar,
    ):
        for first in range(0, options.count, options.batch_size):
            found = jax.device_get(compute(np.int32(first)))
            with naming(folder, "cannot be written"):
                for name, rows in found.items():
                    if name not in files:
                        files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                        _write_head(files[name], (options.count, *rows.shape[1:]), rows.dtype)
                    files[name].write(np.ascontiguousarray(rows).tobytes())
            bar.update(options.batch_size)
    drawn = {"data": data.SYNTHETIC, "synthetic": 0.0, "init_from": ""}
    record = {
        "task": data.kept_settings(preset),
        "init_from": checksum(start),
        "count": options.count,
        "arrays": sorted(files),
        "seen": run.data_seen(drawn, preset, data.SYNTHETIC),
    }
    write_json(folder / data.KEPT, record)
    return folder


def _write_head(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Begin a ``.npy`` file whose rows follow one by one: a full disk is an error, as it is not for a map."""
    head = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(dtype)}
    np.lib.format.write_array_header_1_0(file, head)


def _run(options: Options) -> None:
    cli.use_compilation_cache()
    print(f"kept: {keep(options)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, f"python -m {__package__}.keep", arguments)


if __name__ == "__main__":
    sys.exit(main())
