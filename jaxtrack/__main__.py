"""The command line: ``jaxtrack track``, ``jaxtrack info``, ``jaxtrack demo``."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxtrack import cli
from jaxtrack.cli import UsageError
from jaxtrack.errors import JaxtrackError
from jaxtrack.settings import explained, listing, replaced

if TYPE_CHECKING:
    import numpy as np

    from jaxtrack.io.video import FrameSource
    from jaxtrack.outputs import Outputs
    from jaxtrack.streaming import Piece

# As `jaxtrack.ops.precision.Choice`, which would load JAX before it is known what is asked for.
Precision = Literal["auto", "highest", "high", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Track:
    """Track one or more targets through a video, from their boxes in the first frame.

    Boxes are X,Y,W,H: left, top, width and height in pixels; the first pixel is 0. Examples:

      jaxtrack track clip.mp4 --box 120,80,64,48 --output tracked.mp4
      jaxtrack track frames/ --box 120,80,64,48 --box 30,30,20,20 --boxes out.txt
      jaxtrack track clip.mp4 --tracker siamfc --weights siamfc_alexnet_e50.pth --show
      jaxtrack track Basketball/ --first-box-from Basketball/ --heatmap --output a.mp4

    Attributes:
        source: a video file, a folder of images (or of a benchmark sequence), a glob in quotes, a camera's
            number, or the address of a stream.
        box: where a target is in the first frame; once for each target. With --show it can be drawn instead.
        first_box_from: take the box from a benchmark sequence's own annotation: its folder or text file.
        from_: number of the first frame, counted from 0; the box is that of this frame.
        to: number of the last frame.
        tracker: preset of the tracker; `jaxtrack info` lists them. PACKAGE.MODULE:TRACKER takes your own.
        set: change a setting of the tracker, FIELD=VALUE; several times for several.
        weights: published checkpoint (.pth, .pth.tar, .pt, .mat), .npz, .safetensors, or a training's
            checkpoint folder. Default: the weights that come with the preset.
        interpolate: resize position embeddings of weights that were trained for another size of crop.
        output: write the video with the boxes drawn into it (.mp4, .mov, .mkv, .avi, .webm).
        boxes: write one box per line, X,Y,W,H; with several targets TXT becomes TXT-1, TXT-2 and so on. A
            NAME.txt beside the clip NAME is taken for its annotation, and never replaced.
            Without --output, --boxes and --show, boxes and scores go to the standard output.
        scores: write each box's score behind it: X,Y,W,H,SCORE (nan for the given box).
        heatmap: draw the tracker's response over the frames of --output and --show.
        show: open a window that shows the tracking (and lets you draw the box); q stops it.
        precision: digits of the network's products: highest (float32), high (TF32 on GPUs) or bfloat16;
            auto: highest on a CPU, high on accelerators.
        chunk: frames per compiled call (default: 8); cameras, --show and --heatmap always go frame by frame.
        debug: show the traceback of an error.
    """

    source: Annotated[str, cli.Positional, cli.Metavar("SOURCE")]
    box: Annotated[tuple[str, ...], cli.Each, cli.Metavar("X,Y,W,H")] = ()
    first_box_from: pathlib.Path | None = None
    from_: Annotated[int, cli.Range(low=0)] = 0
    to: Annotated[int | None, cli.Range(low=0)] = None
    tracker: str = "siamfc-tiny"
    set: Annotated[tuple[str, ...], cli.Each, cli.Metavar("FIELD=VALUE")] = ()
    weights: Annotated[str | None, cli.Metavar("FILE")] = None
    interpolate: bool = False
    output: Annotated[pathlib.Path | None, cli.Metavar("VIDEO")] = None
    boxes: Annotated[pathlib.Path | None, cli.Metavar("TXT")] = None
    scores: bool = False
    heatmap: bool = False
    show: bool = False
    precision: Precision = "auto"
    chunk: Annotated[int | None, cli.Range(low=1, high=4096)] = None
    debug: bool = False


@dataclasses.dataclass(frozen=True)
class Info:
    """Show versions, devices, presets and the weights that come with them; or a tracker's fields.

    Attributes:
        tracker: preset, or package.module:TRACKER: show every field of it that --set changes, with its value,
            what it may be and what it means.
        debug: show the traceback of an error.
    """

    tracker: Annotated[str | None, cli.Positional] = None
    debug: bool = False


@dataclasses.dataclass(frozen=True)
class Demo:
    """Track a clip of the synthetic world and write it as a video: nothing has to be downloaded.

    Attributes:
        output: the video: the tracked box in red, the true one in blue.
        tracker: preset of a tracker that comes with weights.
        clip: which clip of the synthetic benchmark.
        debug: show the traceback of an error.
    """

    output: Annotated[pathlib.Path, cli.Metavar("VIDEO")] = pathlib.Path("jaxtrack-demo.mp4")
    tracker: str = "siamfc-tiny"
    clip: int = 0
    debug: bool = False


_ABOUT = (
    "Visual object tracking in JAX. Start with `jaxtrack demo`, then give your own video to "
    "`jaxtrack track`; each command explains itself with --help."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after the program's name; None: those of the process.

    Returns:
        Exit status: 0, 1 for a failure, 2 for a mistake in the call, 130 after Ctrl-C, 143 after SIGTERM.
    """
    table = {
        "track": _own(Track, track, "track targets through a video"),
        "info": _own(Info, info, "show versions, devices, presets and their weights"),
        "zoo": _other("zoo", "show published weights, and the scores to expect of them"),
        "demo": _own(Demo, demo, "track a synthetic clip: nothing has to be downloaded"),
        "train": _other("train.run", "train a tracker"),
        "prepare": _other("data.prepare", "build a dataset from the folder that its site delivers"),
        "eval": _other("eval.run", "evaluate trackers on a benchmark"),
        "score": _other("eval.score", "score raw results of any tracker"),
        "submit": _other("eval.submit", "write a submission for an evaluation server"),
        "search": _other("eval.search", "search a tracker's hyper-parameters"),
        "speed": _other("eval.speed", "measure where the time goes"),
        "export": _other(
            "export", "write a tracker as programs that need JAX alone, or for PyTorch"
        ),
    }
    return cli.commands(table, "jaxtrack", _ABOUT, arguments)


def _own(options: type[Any], action: Callable[[Any], None], about: str) -> cli.Command:
    name = f"jaxtrack {options.__name__.lower()}"
    return cli.Command(about, lambda words: cli.command(options, action, name, words))


def _other(module: str, about: str) -> cli.Command:
    """Return a command that a module of its own carries out."""
    return cli.Command(about, lambda words: _module(module).main(words))


def _module(name: str) -> Any:
    """Return a module of the package; in a checkout, `train` and `eval` lie beside it."""
    home = f"jaxtrack.{name}"
    try:
        found = importlib.util.find_spec(home) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        root = pathlib.Path(__file__).parents[1]
        if not (root / name.split(".")[0]).is_dir():
            raise JaxtrackError(f"{home} is not installed; install the package again")
        home = name
        sys.path.insert(0, str(root))
    return importlib.import_module(home)


def track(options: Track) -> None:
    """Carry out ``jaxtrack track``.

    Raises:
        UsageError: no box, one that cannot start a tracker in this video, or outputs that are inputs.
        JaxtrackError: source, preset, weights or outputs that cannot be used. What was tracked before
            is in the outputs.
    """
    from jaxtrack import streaming, trackers
    from jaxtrack.io.video import open_source
    from jaxtrack.loading import variables_of
    from jaxtrack.ops import precision
    from jaxtrack.outputs import Outputs, Wanted, ask_box, require_display

    boxes = _given_boxes(options)
    if options.to is not None and options.to < options.from_:
        raise UsageError(f"--to {options.to} lies before --from {options.from_}")
    if options.heatmap and options.output is None and not options.show:
        raise UsageError("--heatmap: give what it is drawn into, --output VIDEO or --show")
    if options.show:
        require_display()
    tracker = trackers.get(options.tracker)
    if options.set:
        config = replaced(tracker.config, options.set)
        tracker = dataclasses.replace(tracker, config=config)
    stop = None if options.to is None else options.to + 1
    source = open_source(options.source, options.from_, stop)
    wanted = Wanted(options.output, options.boxes, options.scores, options.show)
    wanted = wanted.checked(1 if boxes is None else len(boxes), _inputs(options, source))
    if boxes is None:
        boxes = ask_box(source.first)
    _check_boxes(boxes, source.size)
    cli.use_compilation_cache()
    place = cli.devices()[0]
    variables = variables_of(options.tracker, tracker, options.weights, options.interpolate)
    pieces: Iterator[tuple[Piece, list[np.ndarray] | None]]
    if options.heatmap:
        from jaxtrack import heatmap

        pieces = iter(heatmap.stream(tracker, variables, source, boxes))
    else:
        chunk = 1 if options.show or source.live else options.chunk or streaming.CHUNK
        plain = streaming.stream(tracker, variables, source, boxes, chunk=chunk)
        pieces = ((piece, None) for piece in plain)
    with contextlib.ExitStack() as stack:
        stack.enter_context(precision.using(options.precision))
        outputs = Outputs(source, len(boxes), stack, wanted)
        count, seconds, rate, ended = _drive(pieces, outputs, source.length)
    last = options.from_ + count - 1
    if ended and options.to is not None and last < options.to:
        print(f"note: the clip ends at frame {last}, before --to {options.to}", file=sys.stderr)
    speed = f", {rate:.1f} frames/s after the first call" if rate else ""
    print(
        f"{options.tracker} on {place.device_kind}: {count} frames, {len(boxes)} "
        f"target{'s' * (len(boxes) > 1)}, {seconds:.1f} s{speed}{outputs.written()}",
        file=sys.stderr,
    )


def _given_boxes(options: Track) -> np.ndarray | None:
    """Return the boxes of the command line, ``(n, 4)``; None: the user draws one."""
    import numpy as np

    from jaxtrack.data.readers.sequence import first_box
    from jaxtrack.io.boxes import parse_box

    if options.first_box_from is not None:
        if options.box:
            raise UsageError("--box and --first-box-from: give one of them")
        box, note = first_box(options.first_box_from, options.from_)
        print(f"first box {','.join(f'{x:g}' for x in box)} from {note}", file=sys.stderr)
        return box[None].astype(np.float32)
    if not options.box:
        if options.show:
            return None
        raise UsageError(
            "no target: give --box X,Y,W,H (once for each target), or --show to draw it"
        )
    try:
        return np.stack([parse_box(text) for text in options.box])
    except JaxtrackError as error:
        raise UsageError(f"--box: {error}") from error


def _inputs(options: Track, source: FrameSource) -> list[pathlib.Path]:
    """Return what no output may replace: frames, their annotations, weights."""
    from jaxtrack.data.readers.sequence import annotation_of

    found = list(source.files)
    for folder in {path.parent for path in source.files}:
        found += [*folder.glob("groundtruth*"), *folder.parent.glob("groundtruth*")]
    found += _annotations(source)
    if options.first_box_from is not None:
        found.append(annotation_of(options.first_box_from))
    if options.weights is not None:
        file = pathlib.Path(options.weights.partition("::")[0]).expanduser()
        found += [file, file.with_suffix(".json")]
    return found


def _annotations(source: FrameSource) -> list[pathlib.Path]:
    """Return what stands where the custom layout keeps a clip's annotation: ``NAME.txt``, ``NAME.2.txt``.

    Boxes of an earlier run cannot be told from ones that were corrected by hand: they stay as well.
    """
    from jaxtrack.io.clips import FRAME_FOLDERS, IMAGE_SUFFIXES

    named = set()
    for file in source.files:
        place = pathlib.Path(os.path.abspath(file))
        if place.suffix.lower() not in IMAGE_SUFFIXES:
            named.add((place.parent, place.stem))
            continue
        clip = place.parent
        named.add((clip.parent, clip.name))
        if clip.name in FRAME_FOLDERS:
            named.add((clip.parent.parent, clip.parent.name))
    return [
        path
        for folder, name in named
        for path in folder.glob("*.txt")
        if path.stem == name or re.fullmatch(re.escape(name) + r"\.[0-9]+", path.stem)
    ]


def _check_boxes(boxes: np.ndarray, size: tuple[int, int]) -> None:
    from jaxtrack.io.boxes import check_box

    for number, box in enumerate(boxes, 1):
        try:
            check_box(box, size, "box" if len(boxes) == 1 else f"box {number}")
        except JaxtrackError as error:
            raise UsageError(f"--box: {error}") from error


def _drive(
    pieces: Iterator[tuple[Piece, list[np.ndarray] | None]], outputs: Outputs, length: int | None
) -> tuple[int, float, float, bool]:
    """Run a stream into its outputs.

    Returns:
        Frames done, seconds, frames per second after the first compiled call (0: there was no more), and
        whether the stream ended by itself.
    """
    from tqdm import tqdm

    count, after, start = 0, 0, time.perf_counter()
    warm, ended = start, True
    # disable=None: no bar where the standard error is not a terminal.
    with tqdm(total=length, unit=" frames", disable=None, dynamic_ncols=True) as bar:
        for piece, views in pieces:
            wanted = outputs.take(piece, views)
            bar.update(len(piece.frames))
            count += len(piece.frames)
            if piece.start <= 1:
                warm, after = time.perf_counter(), 0
            else:
                after += len(piece.frames)
            if not wanted:
                ended = False
                break
    end = time.perf_counter()
    return count, end - start, after / (end - warm) if after else 0.0, ended


def info(options: Info) -> None:
    """Carry out ``jaxtrack info``.

    Raises:
        UsageError: a tracker that is not known.
    """
    import importlib.metadata
    import platform

    import cv2

    from jaxtrack import __version__, trackers, weights

    if options.tracker is not None:
        print(listing(explained(trackers.get(options.tracker).config)))
        return
    print(f"jaxtrack {__version__}, Python {platform.python_version()} on {platform.platform()}")
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    for name in packages:
        try:
            print(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {name} not installed under this name")
    print(f"  OpenCV {cv2.__version__}")
    print("Devices:")
    for device in cli.devices():
        print(f"  {device} ({device.device_kind})")
    print(f"Compiled programs: {cli.current_cache()}")
    print("Presets (* comes with weights):")
    shipped = weights.shipped_names()
    for family in trackers.families():
        names = [f"{name}*" if name in shipped else name for name in family.presets]
        print(f"  {family.name}: {', '.join(names)}")
    for name in shipped:
        card = weights.read_card(weights.shipped_path(name))
        scores = ", ".join(f"{what} {value:g}" for what, value in card.expected.items())
        print(f"  {name}: {card.steps} steps on {card.data}; expected: {scores}")


def demo(options: Demo) -> None:
    """Carry out ``jaxtrack demo``.

    Raises:
        UsageError: no such clip.
        JaxtrackError: a preset without weights, or a video that cannot be written.
    """
    import itertools

    import jax.numpy as jnp
    import numpy as np

    from jaxtrack import streaming, trackers
    from jaxtrack.io.writer import COLOURS, VideoWriter, draw_boxes
    from jaxtrack.loading import load_weights
    from jaxtrack.ops.boxes import iou_xyxy, xywh_to_xyxy
    from jaxtrack.outputs import Wanted
    from jaxtrack.synthetic.world import BENCHMARK, benchmark_clips

    if not 0 <= options.clip < len(BENCHMARK):
        raise UsageError(
            f"--clip {options.clip}: the benchmark has clips 0 to {len(BENCHMARK) - 1}"
        )
    output = Wanted(video=options.output).checked(1, ()).video or options.output
    cli.use_compilation_cache()
    cli.devices()
    tracker = trackers.get(options.tracker)
    variables = load_weights(options.tracker)
    print(f"drawing clip {options.clip} of the synthetic world ...", file=sys.stderr)
    name, clip, effects = next(itertools.islice(benchmark_clips(), options.clip, None))
    frames, start = np.asarray(clip.frames), np.asarray(clip.boxes[0])
    with VideoWriter(output, (clip.frames.shape[1], clip.frames.shape[2])) as video:
        overlaps = []
        for piece in streaming.stream(tracker, variables, frames, start):
            truth = clip.boxes[piece.start : piece.start + len(piece.frames)]
            found = piece.tracks.boxes[0]
            for frame, mine, true in zip(piece.frames, found, truth):
                video.write(draw_boxes(frame, np.stack([true, mine]), colours=COLOURS[1::-1]))
            corners = (xywh_to_xyxy(jnp.asarray(x)) for x in (found, truth))
            overlaps.append(np.asarray(iou_xyxy(*corners)))
    overlap = np.concatenate(overlaps)[1:][~clip.absent[1:]]
    print(
        f"{options.tracker} on {name} ({', '.join(effects) or 'plain'}): {len(clip.frames)} frames, "
        f"mean overlap with the truth {overlap.mean():.2f}; wrote {options.output}"
    )


if __name__ == "__main__":
    sys.exit(main())
