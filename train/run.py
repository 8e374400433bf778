"""Train a tracker: ``python -m train.run PRESET``. The only training loop; it reads top to bottom.

The same command runs on a laptop's CPU, on one or N accelerators, and, started once per host with
``--coordinator``, on many hosts. Everything of a run lies in its ``--output`` folder: ``settings.json``,
``checkpoints/``, ``metrics.jsonl``, ``tensorboard/`` and at the end ``weights.safetensors`` with its card.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import jax

from jaxtrack import cli, trackers
from jaxtrack.errors import JaxtrackError
from jaxtrack.weights import Card, load_into, save_weights
from train import optim, parallel, presets
from train.checkpoints import Checkpoints, read_settings, write_settings
from train.data import SYNTHETIC, open_batches
from train.logging import Meter, RunLog
from train.presets import Preset
from train.step import TrainState, init_state, make_update


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a tracker.

    Examples: `siamfc-tiny` trains the small SiamFC on the synthetic world; add `--steps 150` for a short
    try, `--resume` to go on after a stop, `--data DIR` to train on built datasets.

    Attributes:
        preset: which recipe; `python -m train.run list` names them all.
        output: folder of the run (default: runs/PRESET).
        resume: go on with the run in the output folder, to the same bits as without a stop.
        init_from: start from these weights (published or ours); everything else starts anew.
        steps: length of the run (default: the preset's); the whole schedule is squeezed into it.
        data: `synthetic` (default), or the folder of built datasets.
        batch_size: pairs per step over all devices (default: the preset's); the learning rate follows.
        seed: rules initial values, data and augmentation (default: 0).
        save_every: steps between checkpoints (default: the preset's).
        log_every: steps between lines of the log (default: the preset's).
        workers: processes that decode frames of built datasets.
        devices: use the first N local devices (default: all).
        coordinator: many processes: HOST:PORT of process 0, or `auto` under SLURM, Open MPI or Cloud TPU.
        processes: many processes: how many.
        process_id: many processes: which one this is, from 0.
        debug: show the traceback of an error.
    """

    preset: Annotated[str, cli.Positional]
    output: pathlib.Path | None = None
    resume: bool = False
    init_from: pathlib.Path | None = None
    steps: int | None = None
    data: str | None = None
    batch_size: int | None = None
    seed: int | None = None
    save_every: int | None = None
    log_every: int | None = None
    workers: int = 0
    devices: int | None = None
    coordinator: str | None = None
    processes: int | None = None
    process_id: int | None = None
    debug: bool = False


def revision() -> str:
    """The commit of this checkout; "unknown" outside one."""
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
    """What a run's result depends on; kept with the run and compared when it is resumed."""
    return {
        "preset": options.preset,
        "steps": options.steps if options.steps is not None else preset.steps,
        "batch_size": options.batch_size if options.batch_size is not None else preset.batch_size,
        "seed": options.seed if options.seed is not None else 0,
        "data": options.data if options.data is not None else SYNTHETIC,
        "init_from": str(options.init_from) if options.init_from else "",
        "commit": revision(),
        "recipe": presets.describe(preset),
    }


def check_output(options: Options, output: pathlib.Path, preset: Preset) -> dict[str, Any]:
    """The settings of this run: new ones in an empty folder, or those of the run that is resumed.

    Raises:
        JaxtrackError: the folder is in use, or holds another run than the one asked for.
    """
    settings = settings_of(options, preset)
    if not options.resume:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise JaxtrackError(
                f"{output} is not empty: --resume goes on with the run in it, --output names another"
            )
        return settings
    old = read_settings(output)
    if old is None:
        raise JaxtrackError(f"{output}: no run to resume (settings.json is not there)")
    if old.get("preset") != options.preset:
        raise JaxtrackError(
            f"{output} holds a run of {old.get('preset')!r}, not {options.preset!r}"
        )
    for name in ("steps", "batch_size", "seed", "data", "init_from"):
        given = getattr(options, name)
        if given is not None and str(given) != str(old.get(name)):
            flag = name.replace("_", "-")
            raise JaxtrackError(
                f"{output} was started with --{flag} {old.get(name)}, not {given}: leave the flag out, or"
                " start a new run"
            )
    if old["recipe"] != settings["recipe"]:
        raise JaxtrackError(f"{output}: preset {options.preset!r} has changed since this run began")
    return old


def first_variables(settings: dict[str, Any], preset: Preset, key: Any) -> Any:
    """The network's variables at the start: random, or read from ``--init-from``."""
    task = preset.task
    path = settings["init_from"]
    if not path:
        if preset.init_from and parallel.is_main():
            where = f"{preset.init_from} (--init-from FILE)"
            print(
                f"note: the recipe starts from {where}; this run from random values",
                file=sys.stderr,
            )
        return jax.jit(lambda k: task.init_variables(task.config, k))(key)
    if preset.load is not None:
        return preset.load(task.config, pathlib.Path(path), key)
    return load_into(presets.shapes(task), path, trackers.family_of(preset.tracker).tables)


def write_weights(
    output: pathlib.Path, settings: dict[str, Any], preset: Preset, state: TrainState
) -> None:
    """Write ``weights.safetensors`` with its card, for ``jaxtrack track --weights``."""
    asked = "".join(
        f" --{name.replace('_', '-')} {settings[name]}"
        for name, usual in (
            ("steps", preset.steps),
            ("batch_size", preset.batch_size),
            ("seed", 0),
            ("data", SYNTHETIC),
            ("init_from", ""),
        )
        if settings[name] != usual
    )
    card = Card(
        preset=preset.tracker,
        data=settings["data"],
        steps=settings["steps"],
        commit=settings["commit"],
        expected={},
        command=f"python -m train.run {settings['preset']}{asked}",
    )
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    save_weights(output / "weights.safetensors", jax.device_get(variables), card)


def train(options: Options) -> TrainState:
    """Run or resume a training.

    Args:
        options: as on the command line.

    Returns:
        The state after the last step.

    Raises:
        JaxtrackError: the recipe, the folder, the data, the weights or the devices do not serve, a save
            failed, or the loss is not finite; one line each.
    """
    preset = presets.get(options.preset)
    parallel.initialize(options.coordinator, options.processes, options.process_id)
    devices = parallel.local_devices(options.devices)
    output = options.output or pathlib.Path("runs") / options.preset
    settings = check_output(options, output, preset)
    steps, batch_size = settings["steps"], settings["batch_size"]
    if steps < 1:
        raise JaxtrackError(f"--steps {steps}: at least 1")
    local_batch = parallel.local_batch_size(batch_size, devices)

    # Data, optimiser, state.
    shard, seed = (jax.process_index(), jax.process_count()), settings["seed"]
    batches = open_batches(settings["data"], preset, local_batch, seed, shard, options.workers)
    key_init, key = jax.random.split(jax.random.key(seed))
    recipe = optim.scaled_rate(preset.optim, batch_size, preset.batch_size)
    optimizer = optim.make(recipe, presets.shapes(preset.task)["params"], steps, preset.epochs)
    if not options.resume and parallel.is_main():
        write_settings(output, settings)
    checkpoints = Checkpoints(output)
    if checkpoints.latest is None:  # a new run, or one that was stopped before its first save
        state = init_state(first_variables(settings, preset, key_init), optimizer)
        state = parallel.place(state, devices)
    else:
        template = jax.eval_shape(lambda v: init_state(v, optimizer), presets.shapes(preset.task))
        state, record = checkpoints.restore(template, devices)
        batches.seek(record["position"])
    update = make_update(preset.task, optimizer, steps, preset.epochs)
    update = parallel.compile_update(update, devices)

    # Loop.
    save_every = options.save_every or preset.save_every
    log_every = options.log_every or preset.log_every
    first = int(state.step)
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        stack.callback(batches.close)
        log = RunLog(output, first, steps, parallel.is_main())
        stack.callback(log.close)
        meter = Meter(checkpoints.last_good)
        for step in range(first + 1, steps + 1):
            batch, content = batches.next()
            state, metrics = update(state, batch, key)
            meter.add(step, metrics, content)
            log.tick()
            if step % log_every == 0 or step == steps:
                log.log(step, meter.read())
            if step % save_every == 0 or step == steps:
                record = {"position": batches.position(), "settings": settings}
                checkpoints.save(state, record, meter.read_since_save())
        checkpoints.wait()
    if parallel.is_main():
        write_weights(output, settings, preset, state)
        print(f"trained: {output / 'weights.safetensors'}", file=sys.stderr)
    return state


def _run(options: Options) -> None:
    if options.preset == "list":
        for name, preset in presets.all_presets().items():
            print(
                f"{name:20} {preset.steps:7d} steps of {preset.batch_size} pairs  {preset.source}"
            )
        return
    try:
        train(options)
    except KeyboardInterrupt as error:
        raise type(error)("stopped; --resume goes on from the last checkpoint") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m train.run", arguments)


if __name__ == "__main__":
    sys.exit(main())
