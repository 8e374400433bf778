"""Train a tracker: ``python -m train.run PRESET``. The only training loop; it reads top to bottom.

The same command runs on a laptop's CPU, on one or N accelerators, and, started once per host with
``--coordinator``, on many hosts. Everything of a run lies in its ``--output`` folder: ``settings.json``,
``checkpoints/``, ``metrics.jsonl``, ``tensorboard/`` and at the end ``weights.safetensors`` with its card.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax

from jaxtrack import cli, trackers, weights
from jaxtrack.cli import Each, Metavar, Positional, Range
from jaxtrack.errors import JaxtrackError, UsageError, brief
from jaxtrack.io import paths
from jaxtrack.ops.precision import Choice, using
from jaxtrack.settings import listing
from jaxtrack.synthetic.realism import Realism, read_photos
from jaxtrack.weights import Card, load_into, save_weights

from . import checkpoints as saved
from . import optim, parallel, presets
from .checkpoints import Checkpoints, read_settings, write_settings
from .data import SYNTHETIC, Batches, Kept, Share, open_batches
from .logging import Meter, RunLog
from .presets import Preset
from .step import TrainState, init_state, make_draw, make_update
from .stopping import Stop, status_of
from .validation import MEASURES, Validation

# As `train` in a checkout, as `jaxtrack.train` once installed.
PROG = f"python -m {__package__}.run"
WEIGHTS = "weights.safetensors"
_PHOTO = 0.4  # share of photographs where they are asked for without one
_ABREAST = 64  # pairs that an accelerator draws at once: some gigabytes of its memory
Count = Annotated[int | None, Range(low=1, high=2**31 - 1)]


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a tracker.

    ``siamfc-tiny`` trains the small SiamFC on the synthetic world; add --steps 150 or --minutes 5 for a short
    try, --resume to go on after a stop, --data DIR to train on built datasets.

    Attributes:
        preset: which recipe; ``list`` names them all. ``package.module:PRESET``: one of your own.
        output: folder of the run (default: runs/PRESET).
        resume: go on with the run in the output folder, to the same bits as without a stop.
        from_step: with --resume: go on from this checkpoint instead of the newest; those after it go.
        init_from: start from these weights: a file (published or ours), the folder of a run, or a preset
            whose weights come with the package. Everything else starts anew.
        set: change a field of the preset, as ``optim.rate=1e-3``, ``task.world.noise=.05``, ``ema=.999``.
        fields: show every field that --set changes, with its value and what it may be, and end.
        steps: length of the run (default: the preset's); the whole schedule is squeezed into it.
        minutes: length of the run by the clock: its speed is measured after compilation, and the whole
            schedule is squeezed into the steps that fit.
        data: ``synthetic`` (default), or the folder of built datasets.
        synthetic: with --data: probability of a pair to be one of the synthetic world in its place.
        textures: folder of pictures that become textures in a share of the synthetic scenes
            (``task.world.real.photo``; .4 where the preset has none).
        recipe: with --data: insist on the datasets and ratios of the published recipe.
        batch_size: pairs per step over all devices (default: the preset's); the learning rate follows.
        accumulate: take the gradient of a step over so many parts of the batch, one after the other, in
            the memory of one.
        precision: digits of the network's products: highest (float32), high (TF32 on GPUs) or bfloat16;
            auto (default): highest on a CPU, high on accelerators. Parameters stay float32.
        seed: rules initial values, data and augmentation (default: 0).
        validate_every: every so many steps, measure loss and average overlap on held-out clips and keep the
            best checkpoint by it: synthetic ones; with --data, videos of a validation split in the folder,
            or some that are then not trained on.
        save_every: steps between checkpoints (default: the preset's).
        log_every: steps between lines of the log (default: the preset's).
        workers: processes that decode frames of built datasets.
        devices: use the first N devices of each process (default: all).
        coordinator: many processes: HOST:PORT of process 0, or ``auto`` under SLURM, Open MPI or Cloud TPU.
        processes: many processes: how many.
        process_id: many processes: which one this is, from 0.
        join_timeout: many processes: seconds in which all of them must have joined.
        debug: show the traceback of an error.
    """

    preset: Annotated[str, Positional]
    output: pathlib.Path | None = None
    resume: bool = False
    from_step: Count = None
    init_from: Annotated[str | None, Metavar("PATH|PRESET")] = None
    set: Annotated[tuple[str, ...], Each, Metavar("FIELD=VALUE")] = ()
    fields: bool = False
    steps: Count = None
    minutes: Annotated[float | None, Range(low=0.01, high=100_000)] = None
    data: Annotated[str | None, Metavar("DIR")] = None
    synthetic: Annotated[float | None, Range(low=0, high=0.99)] = None
    textures: pathlib.Path | None = None
    recipe: bool = False
    batch_size: Annotated[int | None, Range(low=1, high=65_536)] = None
    accumulate: Annotated[int | None, Range(low=1, high=65_536)] = None
    precision: Choice | None = None
    seed: Annotated[int | None, Range(low=0, high=2**32 - 1)] = None
    validate_every: Count = None
    save_every: Count = None
    log_every: Count = None
    workers: Annotated[int, Range(low=0, high=1024)] = 0
    devices: Annotated[int | None, Range(low=1, high=65_536)] = None
    coordinator: Annotated[str | None, Metavar("HOST:PORT")] = None
    processes: Annotated[int | None, Range(low=1, high=65_536)] = None
    process_id: Annotated[int | None, Range(low=0, high=65_535)] = None
    join_timeout: Annotated[int, Range(low=1, high=86_400)] = 60
    debug: bool = False


def revision() -> str:
    """Return the commit of this checkout; "unknown" outside one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # git is not installed
        return "unknown"
    return found.stdout.strip() or "unknown"


def settings_of(options: Options, preset: Preset) -> dict[str, Any]:
    """Return what a run's result depends on; kept with the run and compared when it is resumed."""

    def given(name: str, usual: Any) -> Any:
        value = getattr(options, name)
        return usual if value is None else value

    return {
        "preset": options.preset,
        "set": presets.changes(preset),
        "steps": given("steps", preset.steps),
        "minutes": given("minutes", 0),
        "batch_size": given("batch_size", preset.batch_size),
        "accumulate": given("accumulate", 1),
        "precision": given("precision", "auto"),
        "seed": given("seed", 0),
        "data": given("data", SYNTHETIC),
        "synthetic": given("synthetic", 0.0),
        "published_data": options.recipe,
        "init_from": given("init_from", ""),
        "validate_every": given("validate_every", 0),
        "devices": 0,  # not known before the devices are
        "seen": "",  # nor before the data are opened
        "commit": revision(),
        "recipe": presets.describe(preset),
    }


def check_output(options: Options, output: pathlib.Path, preset: Preset) -> dict[str, Any]:
    """Return the settings of this run: new ones in a free folder, or those of the run that is resumed.

    Raises:
        JaxtrackError: the folder is in use, or holds another run than the one asked for.
    """
    settings = settings_of(options, preset)
    if not options.resume:
        if options.from_step is not None:
            raise UsageError("--from-step goes with --resume")
        if not saved.is_free(output):
            raise JaxtrackError(
                f"{output} is not empty: --resume goes on with the run in it, --output names another"
            )
        return settings
    old = read_settings(output)
    if old is None:
        raise JaxtrackError(f"{output}: no run to resume (settings.json is not there)")
    if old["preset"] != options.preset:
        raise JaxtrackError(f"{output} holds a run of {old['preset']!r}, not {options.preset!r}")
    old = {"precision": "highest", "synthetic": 0.0, **old}  # as before they were choices
    for name in (
        "steps",
        "minutes",
        "batch_size",
        "accumulate",
        "precision",
        "seed",
        "synthetic",
        "validate_every",
    ):
        given = getattr(options, name)
        if given is not None and given != old[name]:
            _refuse(output, name, old[name], given)
    if options.recipe and not old["published_data"]:
        raise JaxtrackError(
            f"{output} was started without --recipe: leave the flag out, or start a new run"
        )
    place = output / saved.FOLDER
    if options.from_step is None and (output / WEIGHTS).exists() and not saved.steps_in(place):
        raise JaxtrackError(
            f"{output}: this run had ended, and its checkpoints are gone: name another --output to train"
            " again"
        )
    if options.from_step is not None and not saved.steps_in(place):
        raise JaxtrackError(
            f"{output}: no checkpoint is left, that of step {options.from_step} neither: without --from-step,"
            " --resume begins at the first step"
        )
    if options.init_from is not None and not _same(options.init_from, old["init_from"]):
        _refuse(output, "init_from", old["init_from"] or "random values", options.init_from)
    if options.data is not None and not _same(options.data, old["data"]):
        if SYNTHETIC in (options.data, old["data"]):
            _refuse(output, "data", old["data"], options.data)
        # The same data may have been moved; that they are the same is checked where they are opened.
        old = {**old, "data": options.data}
    if presets.changes(preset) not in ([], old["set"]):
        before, now = (" ".join(x) or "nothing" for x in (old["set"], presets.changes(preset)))
        _refuse(output, "set", before, now)
    if old["recipe"] != presets.describe(resumed(preset, old)):
        raise JaxtrackError(f"{output}: preset {options.preset!r} has changed since this run began")
    return old


def resumed(preset: Preset, settings: dict[str, Any]) -> Preset:
    """Return the preset of a run that goes on: with the changes that it was started with."""
    return preset if presets.changes(preset) else presets.changed(preset, settings["set"])


def _refuse(output: pathlib.Path, name: str, old: Any, given: Any) -> None:
    flag = name.replace("_", "-")
    raise JaxtrackError(
        f"{output} was started with --{flag} {old}, not {brief(given)}: leave the flag out, or start a new"
        " run"
    )


def _same(one: str, other: str) -> bool:
    return one == other or (
        SYNTHETIC not in (one, other) and bool(other) and paths.same(one, other)
    )


def first_variables(settings: dict[str, Any], preset: Preset, key: Any) -> Any:
    """Return the network's variables at the start: random, or read from ``--init-from``."""
    task = preset.task
    given = settings["init_from"]
    if not given:
        if preset.init_from and parallel.is_main():
            where = f"{preset.init_from} (--init-from FILE)"
            print(
                f"note: the recipe starts from {where}; this run from random values",
                file=sys.stderr,
            )
        return jax.jit(lambda k: task.init_variables(task.config, k))(key)
    path = start_file(given)
    if preset.load is not None:
        return preset.load(task.config, path, key)
    return load_into(presets.shapes(task), path, trackers.family_of(preset.tracker).tables)


def start_file(given: str) -> pathlib.Path:
    """Return the file or folder that ``--init-from`` means: a path, or a preset's shipped weights.

    Raises:
        JaxtrackError: there is neither.
    """
    path = paths.resolve(given)
    if path.exists():
        return path
    if given in weights.shipped_names():
        return weights.shipped_path(given)
    known = ", ".join(weights.shipped_names())
    raise JaxtrackError(
        f"--init-from {brief(given)}: no such file or folder, and no preset whose weights come with the"
        f" package ({known})"
    )


def _start_of(settings: dict[str, Any]) -> pathlib.Path | None:
    """Return the weights that a run began with; None: random ones, or they are gone by now.

    A run that goes on does not need them; one that begins says so when it reads them.
    """
    with contextlib.suppress(JaxtrackError):
        return start_file(settings["init_from"]) if settings["init_from"] else None
    return None


def write_weights(
    path: pathlib.Path, settings: dict[str, Any], preset: Preset, state: TrainState, expected: Any
) -> None:
    """Write weights with their card, for ``jaxtrack track --weights``.

    Args:
        path: the ``.safetensors`` file.
        settings: of the run.
        preset: what was trained.
        state: its state; the moving average is written where one is kept.
        expected: the scores measured on held-out clips, by name.
    """
    card = Card(
        preset=preset.tracker,
        data=settings["seen"],
        steps=int(state.step),
        commit=settings["commit"],
        expected={name: round(float(value), 4) for name, value in expected.items()},
        command=command_of(settings, preset),
    )
    save_weights(path, jax.device_get(state.variables), card)


def command_of(settings: dict[str, Any], preset: Preset) -> str:
    """Return the command that does a run again: with everything of its settings that is not as usual.

    Args:
        settings: of the run. Minutes have become steps; what was drawn is the same on any number of devices.
        preset: what was trained.
    """
    words = [*PROG.split(), settings["preset"]]
    usual: dict[str, Any] = {
        "steps": preset.steps,
        "batch_size": preset.batch_size,
        "accumulate": 1,
        "precision": "auto",
        "seed": 0,
        "data": SYNTHETIC,
        "synthetic": 0.0,
        "init_from": "",
        "validate_every": 0,  # may hold out some of the data, and chooses the best weights
    }
    for name, value in usual.items():
        if settings[name] != value:
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    words += ["--recipe"] if settings["published_data"] else []
    for change in settings["set"]:
        words += ["--set", change]
    beyond = presets.beyond_texts(preset)
    said = f"  # with {', '.join(beyond)} of a program of its own" if beyond else ""
    return shlex.join(words) + said


def data_seen(settings: dict[str, Any], preset: Preset, seen: str) -> str:
    """Return in words what the weights of a run have seen: its data, and those of its start.

    Args:
        settings: of the run.
        preset: what was trained.
        seen: the data of its batches (`train.data.Batches`).
    """
    share, real = settings["synthetic"], world_of(preset)
    drawn = share or settings["data"] == SYNTHETIC
    if share:
        seen = f"{seen} for {1 - share:.2g} of the pairs, {SYNTHETIC} for {share:.2g}"
    if drawn and real is not None and real.photo:
        seen += f", with the pictures of {pathlib.Path(real.textures).name} as textures"
    if not settings["init_from"]:
        return seen
    try:
        before = _seen_by(start_file(settings["init_from"]))
    except JaxtrackError:  # weights of others, or gone by now
        before = preset.init_from or "data not known"
    name = pathlib.Path(settings["init_from"]).absolute().name
    return f"{seen}; started from {name} ({before})"


def _seen_by(path: pathlib.Path) -> str:
    """Return what the weights in a file, or in the folder of a run or of its checkpoints, have seen.

    Raises:
        JaxtrackError: nothing says so.
    """
    if path.is_dir():
        inside = path.absolute()  # OUTPUT, OUTPUT/checkpoints, .../STEP or .../STEP/state
        for output in (inside, *inside.parents[:3]):
            if (told := read_settings(output)) is not None:
                # A run of an older version says it in the card of what it wrote in the end.
                return told.get("seen") or weights.read_card(output / WEIGHTS).data
    return weights.read_card(path).data


def fitting_steps(
    minutes: float, started: float, step: Callable[..., Any], state: Any, batches: Batches
) -> int:
    """Return how many steps fit into the minutes, from the speed of some; they are not part of the run.

    Args:
        minutes: from ``started`` to the end.
        started: `time.monotonic` when the command began.
        step: ``(state, batch) -> (state, metrics)``, as in the run.
        state: a state that may be consumed.
        batches: goes back to its first batch.

    Raises:
        JaxtrackError: not even one step fits.
    """
    start, meter = batches.position(), Meter(lambda: "none was saved")

    def some(count: int) -> float:
        """Return the seconds of a step, as the loop does them."""
        nonlocal state
        began = time.monotonic()
        for number in range(1, count + 1):
            batch, content = batches.next()
            state, metrics = step(state, batch)
            meter.add(number, metrics, content)
        meter.read()
        return (time.monotonic() - began) / count

    compiling, rough = some(1), some(2)
    share = max(0.02 * 60 * minutes, 0.2)
    each = some(parallel.agreed(min(max(int(share / rough), 2), 200)))
    batches.seek(start)
    left = 0.97 * 60 * minutes - (time.monotonic() - started)
    steps = parallel.agreed(int(left / each))
    if steps < 1:
        raise JaxtrackError(
            f"--minutes {minutes:g}: compiling ({compiling:.0f} s) and measuring leave no room"
            f" for a step of {each:.2f} s"
        )
    if parallel.is_main():
        print(
            f"{1 / each:.2f} steps/s: {steps} steps fit into {minutes:g} minutes; the schedule is squeezed"
            " into them",
            file=sys.stderr,
        )
    return steps


class Program(NamedTuple):
    """What a run computes with, whatever its length.

    Attributes:
        optimizer: with its schedule.
        update: the compiled update.
        recipe: of the optimiser, for the run's batch.
    """

    optimizer: Any
    update: Any
    recipe: optim.OptimConfig


def _abreast(devices: list[Any]) -> int:
    """Return how many pairs of the synthetic world are drawn at once."""
    return 1 if devices[0].platform == "cpu" else _ABREAST


def build(preset: Preset, settings: dict[str, Any], devices: list[Any]) -> Program:
    """Build optimiser and update."""
    steps, epochs = settings["steps"], preset.epochs
    recipe = optim.scaled_rate(preset.optim, settings["batch_size"], preset.batch_size)
    try:
        optimizer = optim.make(recipe, presets.shapes(preset.task)["params"], steps, epochs)
    except ValueError as error:
        raise JaxtrackError(str(error)) from error
    update = make_update(preset.task, optimizer, steps, epochs, settings["accumulate"], preset.ema)
    share = settings["synthetic"]
    draw = None
    if share or settings["data"] == SYNTHETIC:
        draw = make_draw(preset.task, _abreast(devices), share)
    return Program(optimizer, parallel.compile_update(update, devices, draw), recipe)


def rate_of(program: Program, preset: Preset, steps: int) -> Callable[[int], float]:
    """Return ``rate(step)``, the learning rate of each step from 1, of a run of so many steps.

    Raises:
        JaxtrackError: more steps than can be counted.
    """
    try:
        rate = optim.rate_of_step(program.recipe, steps, preset.epochs)
        rate(1)
    except ValueError as error:
        raise JaxtrackError(str(error)) from error
    return rate


def train(what: Options | Preset | str, **options: Any) -> TrainState:
    """Run or resume a training.

    Args:
        what: options as on the command line; or a preset or its name, with the options by name:
            ``train(presets.changed(presets.get("siamfc-tiny"), ["optim.rate=1e-3"]), steps=9)``.
        **options: see `Options`.

    Returns:
        The state after the last step.

    Raises:
        JaxtrackError: the recipe, the folder, the data, the weights or the devices do not serve, a save
            failed, or the loss is not finite; one line each.
    """
    started = time.monotonic()
    if isinstance(what, Options):
        options_, preset = what, presets.get(what.preset)
    else:
        preset = presets.get(what) if isinstance(what, str) else what
        preset = dataclasses.replace(preset, name=preset.name or "custom")
        options_ = Options(preset=preset.name, **options)
    preset = as_asked(preset, options_)
    with contextlib.ExitStack() as stack:
        return _train(options_, preset, started, stack)


def as_asked(preset: Preset, options: Options) -> Preset:
    """Return a preset with the changes that the options ask for."""
    if options.textures is not None:  # first, for a share of photographs needs a folder
        preset = with_textures(preset, options.textures)
    return presets.changed(preset, options.set)


def with_textures(preset: Preset, folder: pathlib.Path) -> Preset:
    """Return a preset whose synthetic world takes textures from a folder of pictures.

    Raises:
        UsageError: the preset has no synthetic world.
        JaxtrackError: no such folder, or no picture in it.
    """
    real = world_of(preset)
    if real is None:
        raise UsageError(f"--textures: {preset.name} draws no synthetic world")
    place = str(paths.resolve(folder).absolute())
    read_photos(place)
    changes = [f"task.world.real.textures={place}"]
    if not real.photo:
        changes.append(f"task.world.real.photo={_PHOTO}")
    return presets.changed(preset, changes)


def world_of(preset: Preset) -> Realism | None:
    """Return what makes a preset's world lifelike; None where it draws none."""
    return getattr(getattr(preset.task.config, "world", None), "real", None)


def _train(
    options: Options, preset: Preset, started: float, stack: contextlib.ExitStack
) -> TrainState:
    """Do what `train` says; the stack closes what was opened, last first."""
    output = paths.output_folder(
        options.output or pathlib.Path("runs") / options.preset.replace(":", ".")
    )
    try:
        str(output.absolute()).encode()
    except UnicodeEncodeError as error:
        raise JaxtrackError(
            f"{output}: checkpoints need a folder whose name is UTF-8 text; name another --output"
        ) from error
    if options.steps is not None and options.minutes is not None:
        raise UsageError("--steps and --minutes: give one of them")
    if options.synthetic and options.data in (None, SYNTHETIC) and not options.resume:
        raise UsageError("--synthetic: a share beside --data DIR; without it, all is synthetic")
    trackers.get(preset.tracker)  # the weights are for one that can be found
    check_output(options, output, preset)
    stack.enter_context(
        parallel.joined(
            options.coordinator, options.processes, options.process_id, options.join_timeout
        )
    )
    devices = parallel.local_devices(options.devices)
    parallel.check_alike(devices)
    if parallel.is_main():
        stack.enter_context(saved.held(output))
    settings = check_output(options, output, preset)
    stack.enter_context(using(settings["precision"]))
    if options.resume:
        preset = resumed(preset, settings)
    total = len(devices) * jax.process_count()
    if options.resume and settings["devices"] != total and parallel.is_main():
        print(
            f"note: this run was on {settings['devices']} devices and goes on on {total}: the pairs stay the"
            " same; what pairs of one device share (batch statistics, losses between pairs) changes",
            file=sys.stderr,
        )
    settings = {**settings, "devices": total}
    local_batch = parallel.local_batch_size(settings["batch_size"], devices, settings["accumulate"])

    # Data, optimiser, state.
    share, seed = Share(local_batch, jax.process_index(), jax.process_count()), settings["seed"]
    batches = open_batches(
        settings["data"],
        preset,
        share,
        seed,
        options.workers,
        settings["published_data"],
        validate=settings["validate_every"] > 0,
        init_from=_start_of(settings),
    )
    stack.callback(batches.close)
    if settings["synthetic"] and isinstance(batches, Kept):
        raise UsageError(
            f"--synthetic goes with built datasets; {settings['data']} holds kept outputs"
        )
    # One that goes on knew its start, which may be gone by now.
    seen = settings.get("seen") or data_seen(settings, preset, batches.seen)
    settings = {**settings, "seen": seen}
    key_init, key = jax.random.split(jax.random.key(seed))
    program = build(preset, settings, devices)

    def move(state: TrainState, batch: Any, steps: int, stop: int = 0) -> Any:
        return program.update(state, parallel.told(batch, steps, stop), key)

    validate = Validation(preset, batches.held) if settings["validate_every"] else None
    if not options.resume or not saved.steps_in(output / saved.FOLDER):
        variables = first_variables(settings, preset, key_init)
        fresh = init_state(variables, program.optimizer, preset.ema > 0)
        if settings["minutes"] and not options.resume:
            trial = parallel.place(jax.tree.map(lambda x: x.copy(), fresh), devices)
            one = functools.partial(move, steps=settings["steps"])
            fitting = fitting_steps(settings["minutes"], started, one, trial, batches)
            settings = {**settings, "steps": fitting}
    steps, rate = settings["steps"], rate_of(program, preset, settings["steps"])
    if parallel.is_main():
        if not options.resume:
            saved.clear(output)
        write_settings(output, settings)
    checkpoints = Checkpoints(output, validated=validate is not None)
    stack.callback(checkpoints.close)
    if checkpoints.latest is None:  # a new run, or one that was stopped before its first save
        state = parallel.place(fresh, devices)
    else:
        template = jax.eval_shape(
            lambda v: init_state(v, program.optimizer, preset.ema > 0),
            presets.shapes(preset.task),
        )
        state, record = checkpoints.restore(template, devices, options.from_step)
        batches.seek(record["position"])

    # Loop.
    save_every = options.save_every or preset.save_every
    log_every = options.log_every or preset.log_every
    first = int(state.step)
    log = RunLog(output, first, steps, settings["batch_size"], parallel.is_main())
    stack.callback(log.close)
    stop = stack.enter_context(Stop())
    meter = Meter(checkpoints.last_good)
    for step in range(first + 1, steps + 1):
        batch, content = batches.next()
        state, metrics = move(state, batch, steps, stop.asked)
        meter.add(step, metrics, content)
        log.tick()
        asked = stop.asked
        if jax.process_count() > 1:  # all stop at the same step
            asked = meter.told and (stop.asked or meter.told)
        scores: dict[str, float] = {}
        if validate is not None and (step % settings["validate_every"] == 0 or step == steps):
            meter.settle()  # what the device still does for this step is no validation
            log.pause()
            # All know the scores, for all write the checkpoint.
            scores = validate(state) if parallel.is_main() else dict.fromkeys(MEASURES, 0.0)
            scores = parallel.agreed(scores)
            log.go_on()
        if step % log_every == 0 or step == steps or scores:
            log.log(step, {**meter.read(), "learning_rate": rate(step), **scores})
        if step % save_every == 0 or step == steps or scores or asked:
            record = {"position": batches.position(), "settings": settings}
            found = {"loss": meter.read_since_save()}
            if "validation_ao" in scores:
                found["score"] = scores["validation_ao"]
            checkpoints.save(state, record, found)
        stop.underway = True
        if asked and step < steps:
            checkpoints.wait()
            raise interruption(asked, options, output, step)
    checkpoints.wait()
    finish(output, settings, preset, state, checkpoints)
    return state


def finish(
    output: pathlib.Path,
    settings: dict[str, Any],
    preset: Preset,
    state: TrainState,
    checkpoints: Checkpoints,
) -> None:
    """Write the weights of the last step, and of the best one where held-out clips told which it is.

    All processes read, for they do so together; the first one writes.
    """
    steps = {WEIGHTS: int(state.step)}
    if settings["validate_every"] and checkpoints.best is not None:
        steps["weights-best.safetensors"] = checkpoints.best
    for name, step in steps.items():
        found = checkpoints.read(state, step)
        if not parallel.is_main():
            continue
        scores = {"validation AO": found.record["metrics"].get("score")}
        scores = {name: score for name, score in scores.items() if score is not None}
        write_weights(output / name, settings, preset, found.state, scores)
        print(f"trained: {output / name}", file=sys.stderr)


def interruption(number: int, options: Options, output: pathlib.Path, step: int) -> BaseException:
    """Return what to raise after a signal, when everything is saved: it says how to go on."""
    kind = cli.Terminated if status_of(number) == cli.TERMINATED else KeyboardInterrupt
    words = [*PROG.split(), options.preset, "--output", str(output), "--resume"]
    error = kind(f"stopped after step {step}, which is saved; to go on: {shlex.join(words)}")
    error.in_order = True  # type: ignore[attr-defined] # the other processes stop at the same step
    return error


def _run(options: Options) -> None:
    if options.preset == "list":
        for name, preset in presets.all_presets().items():
            print(
                f"{name:20} {preset.steps:7d} steps of {preset.batch_size} pairs  {preset.source}"
            )
        return
    if options.fields:
        print(listing(presets.explained(as_asked(presets.get(options.preset), options))))
        return
    try:
        train(options)
    except KeyboardInterrupt as error:
        text = str(error) or "stopped; --resume goes on from the last checkpoint"
        raise type(error)(text) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
