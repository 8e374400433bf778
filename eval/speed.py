"""Where the time goes: ``python -m eval.speed --tracker siamfc``.

Frames per second end to end, and decoding, cropping, network and everything else apart; time to compile and
to the first box; the device named. Peers are measured in the same run, turn by turn: ``--peer COMMAND`` runs
a program of yours that prints a line ``ms_per_frame NUMBER``. ``--ops`` times the formulations of the
convolution and of the depth-wise correlation side by side. Timings are medians (and minima) over rounds;
run them on a quiet machine.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

import jaxtrack
from jaxtrack import cli
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import conv, correlation
from jaxtrack.ops.winograd import conv2d_winograd

FRAME_SIZE = (480, 640)  # height, width: common in the field's benchmarks
BOX = (280.0, 190.0, 84.0, 66.0)


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure trackers.

    Attributes:
        tracker: presets to measure (random weights: values do not change the time).
        peer: commands to measure in the same rounds; each prints a line "ms_per_frame NUMBER".
        rounds: how often each is measured, turn by turn.
        frames: tracked frames in each measurement.
        targets: targets tracked at once under vmap, besides the single one; 0: none.
        ops: time the formulations of convolution and depth-wise correlation instead.
        output: write the figures as json.
        debug: show the traceback of errors.
    """

    tracker: tuple[str, ...] = ()
    peer: tuple[str, ...] = ()
    rounds: int = 5
    frames: int = 10
    targets: int = 0
    ops: bool = False
    output: Path | None = None
    debug: bool = False


def clock(action: Callable[[], Any], rounds: int) -> list[float]:
    """Seconds of each call; the result is waited for."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(action())
        times.append(time.perf_counter() - started)
    return times


def clip(frames: int) -> np.ndarray:
    """A clip of smooth texture in motion: values do not matter, but a flat picture might flatter."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (FRAME_SIZE[0] // 8 + 8, FRAME_SIZE[1] // 8 + 8, 3), np.uint8)
    big = cv2.resize(texture, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    height, width = FRAME_SIZE
    return np.stack([big[t % 32 : t % 32 + height, t % 48 : t % 48 + width] for t in range(frames)])


class Measured:
    """A tracker ready to be timed."""

    def __init__(self, name: str, frames: int) -> None:
        """Compile everything; the times of that are kept."""
        self.name = name
        self.tracker = jaxtrack.get_tracker(name)
        config = self.tracker.config
        make = jax.jit(self.tracker.init_variables, static_argnums=0)
        self.variables = jax.block_until_ready(make(config, jax.random.key(0)))
        self.images = clip(frames + 1)
        self.box = np.asarray(BOX, np.float32)
        started = time.perf_counter()
        self.state = jax.block_until_ready(self._init())
        self.first_init = time.perf_counter() - started
        started = time.perf_counter()
        jax.block_until_ready(self._track(self.images[1]))
        self.first_frame = time.perf_counter() - started

    def _init(self) -> Any:
        return jaxtrack.init(self.tracker, self.variables, self.images[0], self.box)

    def _track(self, frame: np.ndarray) -> Any:
        return jaxtrack.track_frame(self.tracker, self.variables, self.state, frame)

    def frame_times(self) -> list[float]:
        """Seconds of each frame, one call and one wait a frame, as in live use."""
        return [clock(functools.partial(self._track, f), 1)[0] for f in self.images[1:]]

    def init_time(self) -> float:
        """Seconds of starting on a target, compiled."""
        return clock(self._init, 1)[0]

    def clip_time(self) -> float:
        """Seconds a frame of a whole clip in one program."""
        frames = self.images[1:]

        def run() -> Any:
            return jaxtrack.track_clip(self.tracker, self.variables, self.state, frames)

        run()
        return min(clock(run, 2)) / len(frames)

    def targets_time(self, count: int) -> float:
        """Seconds a frame for ``count`` targets at once."""
        from jaxtrack.streaming import init_targets, track_targets

        boxes = self.box + 4 * jnp.arange(count)[:, None] * jnp.asarray([1.0, 1, 0, 0])[None]
        size = jnp.asarray(FRAME_SIZE, jnp.int32)
        states = init_targets(self.tracker, self.variables, self.images[0], boxes, size)

        def run() -> Any:
            return track_targets(self.tracker, self.variables, states, self.images[1:3])

        jax.block_until_ready(run())
        return min(clock(run, 3)) / 2

    def parts(self) -> dict[str, float]:
        """Milliseconds of decoding a frame, of crops, and of the network, where the tracker has them."""
        done, data = cv2.imencode(".jpg", self.images[0])
        assert done
        decode = clock(lambda: cv2.imdecode(data, cv2.IMREAD_COLOR), 20)
        found = {"decode": 1e3 * statistics.median(decode)}
        for name, action in self._steps().items():
            jax.block_until_ready(action())
            found[name] = 1e3 * statistics.median(clock(action, 10))
        return found

    def _steps(self) -> dict[str, Callable[[], Any]]:
        """Return the steps of a frame as compiled calls, each on what those before it gave."""
        steps, config, values = self.tracker.steps, self.tracker.config, self.variables
        if steps is None:
            return {}
        parts: list[Any] = [jax.jit(step, static_argnums=0) for step in steps]
        state, frame = self.state, jnp.asarray(self.images[1])
        look = parts[0](config, state, frame)
        features = parts[1](config, values, state, look)
        maps = parts[2](config, values, state, features)
        decision = parts[3](config, values, state, look, maps)
        inputs = (
            (state, frame),
            (values, state, look),
            (values, state, features),
            (values, state, look, maps),
            (values, state, frame, decision),
        )
        return {
            name: functools.partial(part, config, *given)
            for name, part, given in zip(steps._fields, parts, inputs)
        }


def peer_time(line: str) -> float:
    """Run a peer's command and read its ``ms_per_frame``.

    Raises:
        JaxtrackError: it failed or printed no such line.
    """
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=False)
    for text in reversed(done.stdout.splitlines()):
        words = text.split()
        if len(words) == 2 and words[0] == "ms_per_frame":
            return float(words[1])
    reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
    raise JaxtrackError(f"peer `{line}` printed no line 'ms_per_frame NUMBER' ({reason})")


def measure(options: Options) -> dict[str, Any]:
    """Measure all trackers and peers turn by turn.

    Returns:
        Figures by tracker and peer; milliseconds unless the key says otherwise.
    """
    ready = [Measured(name, options.frames) for name in options.tracker]
    frames: dict[str, list[float]] = {m.name: [] for m in ready}
    inits: dict[str, list[float]] = {m.name: [] for m in ready}
    peers: dict[str, list[float]] = {line: [] for line in options.peer}
    for _ in range(options.rounds):
        for measured in ready:
            frames[measured.name] += measured.frame_times()
            inits[measured.name].append(measured.init_time())
        for line in options.peer:
            peers[line].append(peer_time(line))
    figures: dict[str, Any] = {"device": describe_device()}
    for measured in ready:
        times = frames[measured.name]
        figures[measured.name] = {
            "ms_per_frame": 1e3 * statistics.median(times),
            "ms_per_frame_min": 1e3 * min(times),
            "ms_per_frame_in_clip": 1e3 * measured.clip_time(),
            "ms_init": 1e3 * statistics.median(inits[measured.name]),
            "compile_init_s": measured.first_init,
            "compile_frame_s": measured.first_frame,
            "parts_ms": measured.parts(),
        }
        if options.targets:
            seconds = measured.targets_time(options.targets)
            figures[measured.name][f"ms_per_frame_{options.targets}_targets"] = 1e3 * seconds
    for line, values in peers.items():
        figures[line] = {"ms_per_frame": statistics.median(values), "ms_per_frame_min": min(values)}
    return figures


def describe_device() -> str:
    """Device, cores and versions in a line."""
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = f"{device.platform} {device.device_kind}".strip()
    return f"{kind}, {cores} cores, {platform.machine()}, jax {jax.__version__}"


# Layers of the published networks that take most of the time: input, kernel, stride, groups, dilation.
_SHAPES = {
    "siamfc conv1, 3 scales": ((3, 255, 255, 3), (11, 11, 3, 96), 2, 1, 1),
    "siamfc conv2, 3 scales": ((3, 61, 61, 96), (5, 5, 48, 256), 1, 2, 1),
    "siamfc conv3, 3 scales": ((3, 28, 28, 256), (3, 3, 256, 384), 1, 1, 1),
    "siamfc conv4, 3 scales": ((3, 26, 26, 384), (3, 3, 192, 384), 1, 2, 1),
    "siamfc conv5, 3 scales": ((3, 24, 24, 384), (3, 3, 192, 256), 1, 2, 1),
    "mlt conv2": ((1, 61, 61, 128), (5, 5, 128, 256), 1, 1, 1),
    "resnet layer3": ((1, 33, 33, 256), (3, 3, 256, 256), 1, 1, 2),
    "vgg conv1_2": ((1, 180, 180, 64), (3, 3, 64, 64), 1, 1, 1),
    "vgg conv4": ((1, 45, 45, 512), (3, 3, 512, 512), 1, 1, 1),
}


# Depth-wise correlations: template, search map (SiamRPN++'s, and the one of a larger search region).
_CORRELATIONS = {
    "depth-wise 5x5": ((1, 5, 5, 256), (1, 29, 29, 256)),
    "depth-wise 5x5, lost target": ((1, 5, 5, 256), (1, 101, 101, 256)),
}


def measure_ops(rounds: int) -> dict[str, Any]:
    """Milliseconds of each formulation on the networks' heaviest layers and correlations."""
    figures: dict[str, Any] = {"device": describe_device()}
    for name, (shape, kernel_shape, stride, groups, dilation) in _SHAPES.items():
        partial: Any = functools.partial
        tapped = {"strides": (stride, stride), "dilation": (dilation, dilation)}
        forms = {"chosen": partial(conv.conv2d, groups=groups, **tapped)}
        forms["xla"] = partial(conv.conv2d_xla, groups=groups, **tapped)
        if groups == 1:
            forms["patches"] = partial(conv.conv2d_patches, **tapped)
            forms["rows"] = partial(conv.conv2d_rows, **tapped)
            if stride == dilation == 1:
                forms["winograd"] = conv2d_winograd
        figures[name] = _in_turns(forms, shape, kernel_shape, rounds)
    for name, (template, search) in _CORRELATIONS.items():
        forms = {
            "chosen": correlation.depthwise_correlation,
            "xla": correlation.depthwise_correlation_grouped,
        }
        figures[name] = _in_turns(forms, template, search, rounds)
    return figures


def _in_turns(
    forms: dict[str, Any], first: tuple[int, ...], second: tuple[int, ...], rounds: int
) -> dict[str, float]:
    """Least milliseconds of several functions of the same two arrays, measured in turns."""
    keys = jax.random.split(jax.random.key(0))
    x, y = jax.random.normal(keys[0], first), jax.random.normal(keys[1], second)
    compiled = {key: jax.jit(form) for key, form in forms.items()}
    for form in compiled.values():
        jax.block_until_ready(form(x, y))
    times: dict[str, list[float]] = {key: [] for key in compiled}
    for _ in range(rounds):
        for key, form in compiled.items():
            times[key] += clock(functools.partial(form, x, y), 1)
    return {key: 1e3 * min(values) for key, values in times.items()}


def _print(figures: dict[str, Any]) -> None:
    print(figures["device"])
    for name, values in figures.items():
        if isinstance(values, dict):
            parts = values.get("parts_ms", {})
            flat = {**{k: v for k, v in values.items() if k != "parts_ms"}}
            text = "  ".join(f"{key} {value:.2f}" for key, value in flat.items())
            print(f"{name}\n    {text}")
            if parts:
                print("    " + "  ".join(f"{key} {value:.2f} ms" for key, value in parts.items()))


def _run(options: Options) -> None:
    if not options.ops and not options.tracker:
        raise cli.UsageError("nothing to measure: name a --tracker, or use --ops")
    figures = measure_ops(options.rounds) if options.ops else measure(options)
    _print(figures)
    if options.output is not None:
        options.output.write_text(json.dumps(figures, indent=1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m eval.speed", arguments)


if __name__ == "__main__":
    sys.exit(main())
