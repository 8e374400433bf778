"""Trackers for other places: as programs that need JAX alone, and as PyTorch checkpoints.

    jaxtrack export siamfc-tiny --output exported
    jaxtrack export siamfc --weights mine.safetensors --torch mine.pth

A folder of programs holds ``init.bin`` and ``track_frame.bin`` (StableHLO by `jax.export`; each serves CPUs
and NVIDIA GPUs, wherever it was made), ``weights.npz``, ``card.json`` and ``load.py``, which tracks with
them. The programs take and give plain arrays, weights by name and the state as a tuple of its leaves:
whoever loads them needs no class of this library. The weights lie beside the programs and not in them: both
programs share them, and others of the same shapes can take their place.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from jaxtrack import __version__, cli, load_exported, settings, trackers, weights
from jaxtrack.base import Tracker, Variables, variable_shapes
from jaxtrack.errors import JaxtrackError, UsageError, brief, naming
from jaxtrack.io.atomic import sweep, temporary_beside, write_whole
from jaxtrack.io.paths import output_file, output_folder
from jaxtrack.io.records import checksum, write_json
from jaxtrack.loading import variables_of
from jaxtrack.ops import precision
from jaxtrack.weights import names
from jaxtrack.weights.names import NameTable

PLATFORMS = ("cpu", "cuda")
_TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin")
_SIZE = re.compile(r"([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})")


@dataclasses.dataclass(frozen=True)
class Options:
    """Write a tracker as programs that need JAX alone, or its weights as a PyTorch checkpoint.

    Frames are uint8 RGB, boxes X,Y,W,H with the first pixel as 0. For example:

      jaxtrack export siamfc-tiny --output exported
      python exported/load.py frames.npy 120,80,64,48
      jaxtrack export ostrack-256-ce --weights OSTrack_ep0300.pth.tar --output exported
      jaxtrack export siamfc --weights runs/siamfc/weights.safetensors --torch mine.pth

    Attributes:
        preset: the tracker; `jaxtrack info` lists them. PACKAGE.MODULE:TRACKER takes your own.
        weights: published checkpoint, .safetensors, or a training's checkpoint folder. Default: the weights
            that come with the preset.
        interpolate: resize position embeddings of weights that were trained for another size of crop.
        set: change a setting of the tracker, FIELD=VALUE; several times for several.
        output: a new folder for programs (StableHLO, for CPUs and NVIDIA GPUs), weights, card and load.py.
        torch: write the weights under published names to this file (.pth).
        size: width and height of the frames, WxH; by default the programs take frames of any size.
        precision: digits of the network's products: highest (float32), high (TF32 on GPUs) or bfloat16;
            auto: highest on CPUs, high on GPUs.
        debug: show the traceback of an error.
    """

    preset: Annotated[str, cli.Positional]
    weights: Annotated[str | None, cli.Metavar("FILE")] = None
    interpolate: bool = False
    set: Annotated[tuple[str, ...], cli.Each, cli.Metavar("FIELD=VALUE")] = ()
    output: Annotated[pathlib.Path | None, cli.Metavar("DIR")] = None
    torch: Annotated[pathlib.Path | None, cli.Metavar("FILE.pth")] = None
    size: Annotated[str | None, cli.Metavar("WxH")] = None
    precision: precision.Choice = "auto"
    debug: bool = False


@dataclasses.dataclass(frozen=True)
class Programs:
    """The two programs of a tracker.

    Attributes:
        init: ``(weights, frame, box, frame_size) -> state``.
        track_frame: ``(weights, state, frame) -> (state, box, score)``.
        state: names of the state's leaves, in their order.
    """

    init: jax_export.Exported
    track_frame: jax_export.Exported
    state: tuple[str, ...]


def programs(
    tracker: Tracker,
    size: tuple[int, int] | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> Programs:
    """Lower ``init`` and ``track_frame`` of a tracker for several platforms; nothing is compiled.

    Args:
        tracker: the tracker.
        size: ``(height, width)`` of the frames; None: any, left open in the programs.
        platforms: ``cpu``, ``cuda``, ``rocm``, ``tpu``.

    Returns:
        Programs of plain arrays. ``weights`` is ``{name: array}`` by our own names, ``frame`` is uint8 RGB
        ``(h, w, 3)``, ``box`` ``(4,)`` float32 ``x, y, w, h`` in pixels, 0-based corner, ``frame_size``
        ``(2,)`` int32 the true ``(height, width)``, ``state`` a tuple of arrays, ``score`` ``()`` float32.

    Raises:
        JaxtrackError: the tracker calls back to Python, or does what cannot be exported otherwise.
    """
    template = variable_shapes(tracker)
    places = {"/".join(path): path for path, _ in names.leaves(template)}
    form: list[Any] = []

    def grown(weights: Mapping[str, Any]) -> Variables:
        return names.plant({places[name]: value for name, value in weights.items()}, template)

    def init(weights: Mapping[str, Any], frame: Any, box: Any, frame_size: Any) -> tuple[Any, ...]:
        state = tracker.init(tracker.config, grown(weights), frame, box, frame_size)
        found, tree = jax.tree_util.tree_flatten_with_path(state)
        form[:] = tree, tuple(jax.tree_util.keystr(path).lstrip(".") for path, _ in found)
        return tuple(jnp.asarray(leaf) for _, leaf in found)

    def track_frame(
        weights: Mapping[str, Any], state: tuple[Any, ...], frame: Any
    ) -> tuple[tuple[Any, ...], Any, Any]:
        before = jax.tree.unflatten(form[0], state)
        after, found = tracker.track_frame(tracker.config, grown(weights), before, frame)
        return tuple(jax.tree.leaves(after)), found.box, found.score

    shape = size or jax_export.symbolic_shape("height, width")
    frame = jax.ShapeDtypeStruct((*shape, 3), jnp.uint8)
    given = {"/".join(path): leaf for path, leaf in names.leaves(template)}
    box, true = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    first = _exported(init, platforms, given, frame, box, true)
    state = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in first.out_avals)
    then = _exported(track_frame, platforms, given, state, frame)
    return Programs(first, then, form[1])


def _exported(
    function: Callable[..., Any], platforms: Sequence[str], *arguments: Any
) -> jax_export.Exported:
    name = function.__name__
    try:
        return jax_export.export(jax.jit(function), platforms=tuple(platforms))(*arguments)
    except jax.errors.InconclusiveDimensionOperation as error:
        raise JaxtrackError(
            f"{name} of this tracker depends on the size of the frames ({brief(error)}): give --size WxH"
        ) from error
    except (NotImplementedError, ValueError) as error:  # a call of Python, a foreign kernel
        raise JaxtrackError(
            f"{name} of this tracker cannot be exported ({brief(error)})"
        ) from error


def write_programs(
    folder: pathlib.Path,
    tracker: Tracker,
    variables: Variables,
    size: tuple[int, int] | None = None,
    about: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Write a tracker's programs, weights, card and loader into a new folder, whole or not at all.

    Args:
        folder: a folder that is empty or does not exist.
        tracker: the tracker.
        variables: its learned values.
        size: ``(height, width)`` of the frames; None: any.
        about: what the card says besides.

    Returns:
        The folder.

    Raises:
        JaxtrackError: the folder is in use or cannot be written, or as `programs`.
    """
    folder = output_folder(folder)
    with naming(folder):
        if folder.exists() and any(folder.iterdir()):
            raise JaxtrackError(f"{folder} is not empty: name another --output")
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise JaxtrackError(
            "JAX writes and reads its programs with flatbuffers: pip install flatbuffers"
        ) from error
    made = programs(tracker, size)
    flat = {"/".join(path): np.asarray(leaf) for path, leaf in names.leaves(variables)}
    with naming(folder, "cannot be written"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        part = temporary_beside(folder)
        part.mkdir()
        try:
            for name, program in (("init", made.init), ("track_frame", made.track_frame)):
                write_whole(part / f"{name}.bin", bytes(program.serialize()))
            with (part / "weights.npz").open("wb") as file:
                np.savez(file, **flat)  # type: ignore[arg-type]
            shutil.copyfile(load_exported.__file__, part / "load.py")
            sums = {path.name: checksum(path) for path in sorted(part.iterdir())}
            write_json(part / "card.json", _card(tracker, made, size, sums) | dict(about or {}))
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _card(
    tracker: Tracker, made: Programs, size: tuple[int, int] | None, sums: Mapping[str, str]
) -> dict[str, Any]:
    """Return what a folder of programs says of itself."""

    def shapes(leaves: Sequence[Any]) -> list[str]:
        return [f"{leaf.dtype} ({', '.join(map(str, leaf.shape))})" for leaf in leaves]

    frame = "RGB, rows and columns first, channels last, 0 to 255"
    return {
        "preset": " or ".join(trackers.presets_of(tracker)) or None,
        "settings": settings.described(tracker.config),
        "frames": frame if size is None else f"{frame}; {size[1]}x{size[0]} pixels",
        "boxes": "x, y, w, h: left, top, width, height in pixels; the first pixel is 0",
        "init": {
            "arguments": "weights {name: array}, frame, box, frame_size (height, width)",
            "results": "state",
        },
        "track_frame": {
            "arguments": "weights {name: array}, state, frame",
            "results": "state, box, score",
        },
        "frame": shapes(made.track_frame.in_avals[-1:])[0],
        "state": dict(zip(made.state, shapes(made.init.out_avals))),
        "platforms": list(made.init.platforms),
        "precision": precision.current(),
        "versions": {
            "jaxtrack": __version__,
            "jax": jax.__version__,
            "calling convention": made.init.calling_convention_version,
        },
        "sums": dict(sums),
    }


def write_published(path: pathlib.Path, tracker: Tracker, variables: Variables) -> None:
    """Write a tracker's weights as a PyTorch checkpoint under published names.

    Where a family has several tables, the first is that of the trackers' own checkpoints; where no code was
    published, our own names are joined by dots.

    Args:
        path: the ``.pth`` file.
        tracker: the tracker.
        variables: its learned values.

    Raises:
        JaxtrackError: variables that have no published counterpart, or the file cannot be written.
    """
    table = next(iter(trackers.family_of(tracker).tables.values()), NameTable())
    try:
        state = weights.to_published(table, jax.device_get(variables))
        weights.write_torch(path, state)
    except ValueError as error:
        raise JaxtrackError(f"{path}: {brief(error)}") from error


def _size_of(text: str | None) -> tuple[int, int] | None:
    """Return ``(height, width)`` of ``WxH``."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text)
    if not found:
        raise UsageError(f"--size {brief(text)}: give WxH, width and height in pixels, as 640x480")
    return int(found[2]), int(found[1])


def run(options: Options) -> None:
    """Carry out ``jaxtrack export``.

    Raises:
        UsageError: nothing to write, or an output that is an input.
        JaxtrackError: a preset, weights, settings or outputs that cannot be used.
    """
    if options.output is None and options.torch is None:
        raise UsageError("nothing to write: give --output DIR, --torch FILE.pth, or both")
    size = _size_of(options.size)
    if options.torch is not None and options.torch.suffix not in _TORCH_SUFFIXES:
        raise UsageError(f"--torch {options.torch}: give a file whose name ends in .pth")
    if options.torch is not None and options.torch == options.output:
        raise UsageError(f"--output {options.output}: is the file of --torch, too")
    tracker = trackers.get(options.preset)
    if options.set:
        tracker = dataclasses.replace(
            tracker, config=settings.replaced(tracker.config, options.set)
        )
    inputs = [weights.split_key(options.weights)[0]] if options.weights is not None else []
    torch = None if options.torch is None else output_file(options.torch, inputs)
    output = None if options.output is None else output_folder(options.output, inputs)
    variables = variables_of(options.preset, tracker, options.weights, options.interpolate)
    if torch is not None:
        write_published(torch, tracker, variables)
        known = "published names" if trackers.family_of(tracker).tables else "jaxtrack's own names"
        print(f"{options.preset}: wrote {torch} under {known}", file=sys.stderr)
    if output is not None:
        # On a CPU "high" is "highest": it is what "auto" means on either platform.
        chosen = "high" if options.precision == "auto" else options.precision
        about = {"preset": options.preset, "set": list(options.set), "weights": options.weights}
        with precision.using(chosen):
            write_programs(output, tracker, variables, size, about)
        print(
            f"{options.preset}: wrote {output}, programs for {' and '.join(PLATFORMS)}, frames of "
            f"{options.size or 'any size'}; python {output / 'load.py'} FRAMES.npy X,Y,W,H",
            file=sys.stderr,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, run, "jaxtrack export", arguments)


if __name__ == "__main__":
    sys.exit(main())
