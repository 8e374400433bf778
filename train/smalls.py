"""Train the ``-small`` trackers one after another within a given time: ``python -m train.smalls``.

Each training is a process of its own (`train.run`), in order of value, and is given its share of the time
that is left. On an accelerator the later ones are compiled while the first ones train. What is done stays
done: the same command again goes on where the last one was stopped. Weights and cards come to one folder,
each file under 16 MB, and are scored at the end.

    python -m train.smalls --output weights --runs /tmp/runs --minutes 12
    python -m train.smalls --output weights --steps 2 --batch-size 2 --sequence 01_scale_variation   # a try
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from jaxtrack import cli
from jaxtrack.data import layouts
from jaxtrack.errors import JaxtrackError, brief, unknown
from jaxtrack.io import child, paths
from jaxtrack.io.records import checksum, read_json, write_json
from jaxtrack.io.turns import accelerated, cores, side_by_side
from jaxtrack.weights import read_card, read_published, save_weights

from .run import WEIGHTS  # of a run that has ended

_EVALUATION = 0.15  # share of the time that is kept for the scores
_MARGIN = 0.1  # of it without scores: a run slows down while others are compiled
_LEAST = 0.5  # minutes: a training that is given less is not begun
_LARGE = 12_000_000  # bytes; weights above are stored in half precision
_FEW = 10_000  # values: smaller arrays stay as they are


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        preset: of `train.presets`.
        share: of the time, against the other stages.
        start: the stage whose weights it starts from; "": none, ``file``: the user's own.
        makes: tracker presets that its weights are for, each stored under its name.
    """

    preset: str
    share: float
    start: str = ""
    makes: tuple[str, ...] = ()


FILE = "file"
STAGES = (
    Stage("siamfc-small", 3.0, makes=("siamfc-small", "tadt-small")),
    Stage("siamrpnpp-small-imagenet", 3.0, FILE, makes=("siamrpnpp-small-imagenet",)),
    Stage("siamrpnpp-small", 3.5, makes=("siamrpnpp-small",)),
    Stage("ostrack-small", 3.0, makes=("ostrack-small",)),
    Stage("mlt-small-matching", 1.5, "siamfc-small"),
    Stage("mlt-small-calibration", 0.5, "mlt-small-matching"),
    Stage("mlt-small-meta", 1.5, "mlt-small-calibration", makes=("mlt-small",)),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train the ``-small`` trackers within a given time, and score them.

    Attributes:
        output: folder of the weights, their cards and scores.
        runs: folder of the trainings themselves.
        minutes: for everything, the scores included; the trainings share it.
        only: these trainings, and those that they start from.
        textures: folder of pictures that become textures of the synthetic world.
        imagenet: torchvision's weights of MobileNetV2, a file of yours, from which siamrpnpp-small-imagenet
            starts; without it that training is left out.
        root: folder of a benchmark of real video to score on as well.
        benchmark: its name, in any spelling.
        slots: clips that are tracked side by side while scoring.
        sequence: score on these sequences of the synthetic benchmark only.
        steps: length of each training, in place of its share of the time.
        batch_size: pairs per step, in place of the recipes'.
        no_scores: train only; the same command without it scores later.
        debug: show the traceback of an error.
    """

    output: pathlib.Path = pathlib.Path("smalls")
    runs: pathlib.Path = pathlib.Path("runs") / "smalls"
    minutes: Annotated[float, cli.Range(low=0.1, high=100_000)] = 12.0
    only: tuple[str, ...] = ()
    textures: pathlib.Path | None = None
    imagenet: pathlib.Path | None = None
    root: pathlib.Path | None = None
    benchmark: str = "otb"
    slots: Annotated[int, cli.Range(low=1, high=4096)] = 40
    sequence: tuple[str, ...] = ()
    steps: Annotated[int | None, cli.Range(low=1, high=2**31 - 1)] = None
    batch_size: Annotated[int | None, cli.Range(low=1, high=65_536)] = None
    no_scores: bool = False
    debug: bool = False


def chosen(options: Options) -> list[Stage]:
    """Return the trainings of a call, in order; what one starts from is among them.

    Raises:
        UsageError: a name that is no training of this command.
    """
    known = {stage.preset: stage for stage in STAGES}
    wanted = set(options.only or known)
    for name in wanted - set(known):
        raise cli.UsageError(f"--only {name}: one of {', '.join(known)} is wanted")
    for stage in reversed(STAGES):  # a stage comes behind the one that it starts from
        if stage.preset in wanted and stage.start in known:
            wanted.add(stage.start)
    if options.imagenet is None:
        if any(known[name].start == FILE for name in options.only):
            raise cli.UsageError(
                "this training starts from torchvision's MobileNetV2: --imagenet FILE"
            )
        wanted -= {stage.preset for stage in STAGES if stage.start == FILE}
    return [stage for stage in STAGES if stage.preset in wanted]


class Clock:
    """The time that is left.

    Args:
        minutes: from now on.
    """

    def __init__(self, minutes: float) -> None:
        self._begun, self._minutes = time.monotonic(), minutes

    def left(self, share: float = 1.0) -> float:
        """Return the minutes left of a share of the whole."""
        return share * self._minutes - (time.monotonic() - self._begun) / 60


def smalls(options: Options) -> None:
    """Train, store and score.

    Raises:
        UsageError: no such training or benchmark.
        JaxtrackError: a training or the scoring failed; the others are done first.
    """
    _check_inputs(options)
    if options.root is not None:
        # The scores lie under the name that it has here; an unknown one is told before anything is trained.
        options = dataclasses.replace(options, benchmark=layouts.canonical(options.benchmark))
    stages, clock = chosen(options), Clock(options.minutes)
    output, runs = paths.output_folder(options.output), paths.output_folder(options.runs)
    _compare(runs, options)
    faults: list[str] = []
    training = 1 - (_MARGIN if options.no_scores else _EVALUATION)
    waiting = [s for s in stages if not (runs / s.preset / WEIGHTS).is_file()]
    with _compiled_ahead(waiting[1:], options, runs) as compiled:
        for number, stage in enumerate(stages):
            if stage not in waiting:
                _say(f"{stage.preset}: trained already")
            else:
                compiled(stage)
                rest = sum(later.share for later in stages[number:])
                minutes = clock.left(training) * stage.share / rest
                fault = _train(stage, minutes, clock, options, runs)
                if fault:
                    faults.append(fault)
                    _say(fault)
                    continue
            store(runs / stage.preset / WEIGHTS, stage, output)
    made = [name for stage in stages for name in stage.makes if _weights(output, name).is_file()]
    if made and not options.no_scores:
        faults += score(made, clock, options, output)
    for name in made:
        path = _weights(output, name)
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): {read_card(path).expected}")
    if faults:
        raise JaxtrackError("; ".join(faults))


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


def _weights(output: pathlib.Path, preset: str) -> pathlib.Path:
    return output / f"{preset}.safetensors"


def _check_inputs(options: Options) -> None:
    """Refuse folders that are not there, or hold nothing of use, before anything is trained."""
    from jaxtrack.synthetic.realism import read_photos
    from jaxtrack.synthetic.world import BENCHMARK

    if options.textures is not None:
        read_photos(str(paths.resolve(options.textures).absolute()))
    if options.root is not None and not paths.resolve(options.root).is_dir():
        raise JaxtrackError(f"--root {brief(options.root)}: no such folder")
    known = [clip.name for clip in BENCHMARK]
    for name in options.sequence:
        if name not in known:
            raise unknown("sequence", name, known)


def _compare(runs: pathlib.Path, options: Options) -> None:
    """Keep what the trainings were asked for; refuse to go on with other ones.

    Where none was begun, as after a mistake in the call, they may be asked for anew.
    """
    asked = {
        "textures": "" if options.textures is None else str(paths.resolve(options.textures)),
        "imagenet": "" if options.imagenet is None else checksum(paths.resolve(options.imagenet)),
        "steps": options.steps,
        "batch_size": options.batch_size,
    }
    note = runs / "asked.json"
    files = [runs / s.preset / name for s in STAGES for name in ("settings.json", WEIGHTS)]
    if note.is_file() and any(file.is_file() for file in files):
        before = read_json(note, "what trainings were asked for", dict)
        other = [f"--{key.replace('_', '-')}" for key in asked if before.get(key) != asked[key]]
        if other:
            raise JaxtrackError(
                f"{runs}: these trainings were begun with another {' and '.join(other)}; name other --runs"
            )
    else:
        runs.mkdir(parents=True, exist_ok=True)
        write_json(note, asked)


@contextlib.contextmanager
def _compiled_ahead(
    stages: Sequence[Stage], options: Options, runs: pathlib.Path
) -> Iterator[Callable[[Stage], None]]:
    """Compile trainings into the runs' cache, side by side; on an accelerator, whose processor is idle.

    What a step computes depends neither on the length of a run nor on the weights that it starts from, so
    that a run of one step leaves everything there that the training will ask for.

    Yields:
        Waits until a stage is compiled. Whatever goes wrong there will go wrong in the training, and is
        told by it.
    """
    if not accelerated():
        yield lambda stage: None
        return
    with (
        tempfile.TemporaryDirectory(prefix="jaxtrack-smalls-") as folder,
        concurrent.futures.ThreadPoolExecutor(max(1, cores() // 2)) as pool,
    ):
        stop = threading.Event()

        def compile_one(stage: Stage) -> None:
            place = pathlib.Path(folder) / stage.preset
            words = [*_command(stage, place), *_asked(stage, options), "--steps", "1"]
            if not stop.is_set():
                child.run(words, capture=True, env=_shared(runs), stop=stop)

        begun = {stage: pool.submit(compile_one, stage) for stage in stages}
        try:
            yield lambda stage: begun[stage].result() if stage in begun else None
        finally:
            stop.set()


def _shared(runs: pathlib.Path) -> dict[str, str]:
    return side_by_side(runs / "compiled")


def _command(stage: Stage, folder: pathlib.Path) -> list[str]:
    command = [sys.executable, "-m", cli.beside(__package__, "train.run"), stage.preset]
    return [*command, "--output", str(folder)]


def _asked(stage: Stage, options: Options) -> list[str]:
    """Return what a new training is asked for, but for its length and the weights of an earlier stage."""
    words = []
    if options.batch_size is not None:
        words += ["--batch-size", str(options.batch_size)]
    if options.textures is not None:
        words += ["--textures", str(options.textures)]
    if stage.start == FILE:
        words += ["--init-from", str(options.imagenet)]
    return words


def _train(stage: Stage, minutes: float, clock: Clock, options: Options, runs: pathlib.Path) -> str:
    """Train one stage, or go on with it; return what went wrong, "" for nothing."""
    name, folder = stage.preset, runs / stage.preset
    words = _command(stage, folder)
    if (folder / "settings.json").is_file():
        words += ["--resume"]
        _say(f"{name}: goes on")
    else:
        if options.steps is None and minutes < _LEAST:
            return f"{name}: not begun, no time is left"
        length = ["--minutes", f"{minutes:.3f}"]
        if options.steps is not None:
            length = ["--steps", str(options.steps)]
        words += [*_asked(stage, options), *length]
        if stage.start and stage.start != FILE:
            start = runs / stage.start / WEIGHTS
            if not start.is_file():
                return f"{name}: not begun, {stage.start} is not trained"
            words += ["--init-from", str(start)]
        _say(f"{name}: {' '.join(length[:1]).strip('-')} {length[1]}")
    limit = None if options.steps is not None else 60 * max(clock.left(), 0.1)
    ended = child.run(words, seconds=limit, env=_shared(runs))
    if ended.late:
        return f"{name}: the time is up; the same command goes on with it"
    return f"{name}: the training ended with status {ended.status}" if ended.status else ""


def store(trained: pathlib.Path, stage: Stage, output: pathlib.Path) -> None:
    """Write a training's weights for each tracker preset that they serve, with their cards.

    Args:
        trained: what `train.run` wrote.
        stage: the training.
        output: where to.
    """
    state, card = read_published(trained), read_card(trained)
    for preset in stage.makes:
        path = _weights(output, preset)
        own, command = state, card.command
        if preset.startswith("tadt"):  # whose network is the embedding alone
            own = {name: value for name, value in state.items() if "/backbone/" in name}
            command = f"{command}; its backbone"
        made = dataclasses.replace(card, preset=preset, command=command, expected={})
        if path.is_file() and (read_card(path).command, read_card(path).steps) == (
            command,
            card.steps,
        ):
            continue  # its card may hold scores already
        save_weights(path, _tree(_small_enough(own)), made)


def _small_enough(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return weights, the large arrays of large files in half precision.

    Running statistics and small arrays stay: they are few, and may be beyond its range.
    """
    if sum(value.nbytes for value in state.values()) <= _LARGE:
        return dict(state)

    def stored(name: str, value: np.ndarray) -> np.ndarray:
        large = value.size >= _FEW and name.startswith("params/")
        return value.astype(np.float16) if large and np.abs(value).max() < 6e4 else value

    return {name: stored(name, value) for name, value in state.items()}


def _tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return ``{"a/b": value}`` as ``{"a": {"b": value}}``."""
    tree: dict[str, Any] = {}
    for name, value in state.items():
        *above, last = name.split("/")
        place = tree
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return tree


def score(names: list[str], clock: Clock, options: Options, output: pathlib.Path) -> list[str]:
    """Score weights on the synthetic benchmark and on the user's, and write the scores into their cards.

    Args:
        names: presets whose weights lie in the output.
        clock: the time that is left; what is not tracked then is tracked by the next call.
        options: the call.
        output: folder of the weights.

    Returns:
        What went wrong.
    """
    runs: list[tuple[str, list[str]]] = [("synthetic", [])]
    if options.root is not None:
        runs += [(options.benchmark, ["--root", str(options.root)])]
    faults = []
    for benchmark, more in runs:
        words = [sys.executable, "-m", cli.beside(__package__, "eval.run")]
        words += ["--benchmark", benchmark, *more, "--output", str(output / "scores")]
        words += ["--slots", str(options.slots), "--no-report"]
        words += [word for name in names for word in ("--tracker", _row(output, name))]
        if benchmark == "synthetic":
            words += [word for name in options.sequence for word in ("--sequence", name)]
        _say(f"scores on {benchmark}")
        limit = None if options.steps is not None else 60 * max(clock.left(), 0.5)
        ended = child.run(words, seconds=limit)
        if ended.late:
            faults.append(f"scores on {benchmark}: the time is up; the same command goes on")
        elif ended.status:
            faults.append(f"scores on {benchmark} ended with status {ended.status}")
        elif not options.sequence:
            faults += _note_scores(benchmark, names, output)
    return faults


def _row(output: pathlib.Path, name: str) -> str:
    return f"{name}:{name}={_weights(output, name)}"


def _note_scores(benchmark: str, names: list[str], output: pathlib.Path) -> list[str]:
    """Write scores into the cards of weights; return what went wrong."""
    # A benchmark with several splits has the split in the name of its folder.
    folder = layouts.folder_name(benchmark)
    places = [output / "scores" / folder, *(output / "scores").glob(f"{folder}-*")]
    files = [place / "scores.json" for place in places if (place / "scores.json").is_file()]
    if not files:
        return [f"scores on {benchmark}: none were written in {output / 'scores'}"]
    found = read_json(files[0], "scores", dict)
    for name in names:
        path = _weights(output, name)
        card, rows = read_card(path), found.get(name, {})
        expected = {
            f"{benchmark} AUC": rows.get("auc"),
            f"{benchmark} precision": rows.get("precision_20px"),
        }
        known = {key: round(value, 3) for key, value in expected.items() if value is not None}
        card = dataclasses.replace(card, expected={**card.expected, **known})
        save_weights(path, _tree(read_published(path)), card)
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, smalls, f"python -m {__package__}.smalls", arguments)


if __name__ == "__main__":
    sys.exit(main())
