"""Everything that a person with a card wants to know of it, in one command and a given time.

Each part is a process of its own: one that fails, hangs or takes too much memory is named, and the others go
on. Several compile side by side, and take turns with the device for what is timed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.metadata
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxtrack import trackers
from jaxtrack.errors import JaxtrackError, UsageError, brief, nearest
from jaxtrack.io import child
from jaxtrack.io.records import read_json, write_json
from jaxtrack.io.turns import accelerated, cores, side_by_side
from jaxtrack.ops import precision

from .peers import peer_time

# What most people want to know comes first: the time may not reach for all.
_FIRST = (
    "siamfc",
    "siamrpnpp-r50",
    "ostrack-256-ce",
    "mlt",
    "tadt-code",
    "siamrpnpp-alex",
    "ostrack-384-ce",
    "tadt",
)
_FIRST_RECIPES = ("siamrpnpp-r50", "ostrack-256-ce", "siamfc-got10k", "mlt-meta", "siamrpnpp-alex")
# Shares of the time that is left when a part begins.
_PARITY, _PRESETS, _RECIPES, _BENCHMARK = 0.2, 0.5, 0.7, 0.6
# "" in a checkout, "jaxtrack." where installed.
_HERE = (__package__ or "").removesuffix("eval.timing")
_LEAST = 10.0  # seconds; a part that has less is left out
_STAR = r"\*"
_LONGEST = 3.0  # times its even share of the time may one preset or recipe take,
_FAIR = 45.0  # or so many seconds, in which the small ones are compiled and timed
_PATIENCE = 2.0  # seconds; a process whose time is up has nothing to save
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "safetensors")

Run = Callable[..., child.Ended]


class Suite:
    """The parts, what they found, and the time that is left.

    Attributes:
        output: where the figures are written after each part.
        figures: what was found so far.
    """

    def __init__(
        self,
        minutes: float,
        output: Path,
        presets: Sequence[str] = (),
        digits: precision.Choice = "auto",
        run: Run = child.run,
    ) -> None:
        """Begin; the clock runs from here.

        Args:
            minutes: for all of it.
            output: where the figures are written after each part.
            presets: words of which a preset's or recipe's name holds one, such as "tiny"; empty: all that are
                published.
            digits: of the networks' products; parity is measured at the highest in any case.
            run: starts a process, as `jaxtrack.io.child.run`.
        """
        self.end = time.monotonic() + 60 * minutes
        self.output, self.words, self._run = output, tuple(presets), run
        self.figures: dict[str, Any] = {"precision": digits, "failures": {}}
        self._digits = ("--precision", digits)
        self._folder = Path()
        self._turn = ""

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def run(self, peers: Sequence[str]) -> dict[str, Any]:
        """Measure all parts in order.

        Args:
            peers: commands that print "ms_per_frame NUMBER".

        Returns:
            The figures by part; "failures": part -> what went wrong, in one line.

        Raises:
            UsageError: no preset is called so.
        """
        names = chosen(trackers.names(), self.words, _FIRST)
        if not names:
            offer = nearest(self.words[0], trackers.names())
            raise UsageError(f"--presets {brief(self.words[0])}: no preset is called so; {offer}")
        with tempfile.TemporaryDirectory(prefix="jaxtrack-suite-") as folder:
            self._folder, self._turn = Path(folder), str(Path(folder) / "turn")
            with self.part("versions"):
                self.figures["versions"] = self.versions()
            with self.part("parity"):
                self.figures["parity"] = self.parity(_PARITY * self.left())
            with self.part("trackers"):
                self.wave("trackers", names, self.tracker, _PRESETS * self.left())
            with self.part("training"):
                listed = self.python(
                    "-m", f"{_HERE}train.speed", "list", seconds=min(60, self.left())
                ).output.split()
                recipes = chosen(listed, self.words, _FIRST_RECIPES)
                self.wave("training", recipes, self.recipe, _RECIPES * self.left())
            with self.part("benchmark"):
                share = _BENCHMARK if peers else 1.0
                self.figures["benchmark"] = self.benchmark(names[0], share * self.left())
            for number, line in enumerate(peers):
                with self.part(f"peer {brief(line, 60)}"):
                    seconds = self.left() / (len(peers) - number)
                    self.figures.setdefault("peers", {})[line] = peer_time(line, enough(seconds))
        return self.figures

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Name what goes wrong in a part, and write the figures after it."""
        print(f"{name} ... ({max(self.left(), 0):.0f} s left)", file=sys.stderr, flush=True)
        try:
            yield
        except Exception as error:  # whatever it is, the other parts are wanted
            self.fail(name, error)
        write_json(self.output, self.figures)

    def fail(self, name: str, error: Exception) -> None:
        """Note a failure."""
        kind = "" if isinstance(error, JaxtrackError) else f"{type(error).__name__}: "
        self.figures["failures"][name] = why = kind + brief(error)
        print(f"failed: {name}: {why}", file=sys.stderr, flush=True)

    def python(self, *words: str, seconds: float) -> child.Ended:
        """Run one of the project's commands.

        Raises:
            JaxtrackError: its time was up, or it failed; its own last words are told.
        """
        ended = self._started([sys.executable, *words], enough(seconds), self._shared())
        if ended.late:
            raise JaxtrackError(f"not done after {seconds:.0f} s")
        if ended.status:
            said = [line for line in ended.errors.splitlines() if line.strip()] or ["no message"]
            raise JaxtrackError(f"status {ended.status}: {brief(said[-1])}")
        return ended

    def _started(self, words: list[str], seconds: float, env: dict[str, str]) -> child.Ended:
        return self._run(words, seconds=seconds, capture=True, env=env, patience=_PATIENCE)

    def _shared(self) -> dict[str, str]:
        return side_by_side(self._folder / "compiled")  # nothing of an earlier call is in there

    def versions(self) -> dict[str, str]:
        """Return the versions of what matters, the machine, and the device as JAX calls it."""
        import cv2

        import jaxtrack

        found = {"jaxtrack": jaxtrack.__version__, "python": platform.python_version()}
        for name in _PACKAGES:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
        found |= {"opencv": cv2.__version__, "cores": str(cores()), "machine": platform.machine()}
        code = f"from {__package__}.clock import describe_device; print(describe_device())"
        found["device"] = self.python("-c", code, seconds=min(120, self.left())).output.strip()
        return found

    def parity(self, seconds: float) -> dict[str, Any]:
        """Compare with the published codes' figures that come with the checkout, at full precision."""
        names = ("siamfc", "siamrpnpp", "ostrack", "tadt")
        packs = [Path("tests/golden") / name for name in names]
        missing = [str(pack) for pack in packs if not pack.is_dir()]
        if missing:
            raise JaxtrackError(f"{missing[0]} is not here: run it from a checkout")
        end = time.monotonic() + seconds
        with ThreadPool(max(1, cores() // 2)) as pool:
            runs = {p.name: pool.submit(self._pack, p, end) for p in packs}
        return {name: future.result() for name, future in runs.items()}

    def _pack(self, pack: Path, end: float) -> str:
        try:
            seconds = enough(end - time.monotonic())
        except JaxtrackError as error:
            return str(error)
        words = [sys.executable, "-m", "tests.parity", str(pack)]
        highest = {"JAX_DEFAULT_MATMUL_PRECISION": "highest", **self._shared()}
        ended = self._started(words, seconds, highest)
        if ended.late:
            return f"not done after {seconds:.0f} s"
        lines = [line for line in ended.output.splitlines() if line.strip()]
        return brief(lines[-1]) if lines else f"failed with status {ended.status}"

    def wave(
        self, part: str, names: Sequence[str], measure: Callable[[str, float], Any], seconds: float
    ) -> None:
        """Measure many things, several compiling side by side, as far as the time reaches.

        Args:
            part: where their figures go.
            names: in the order in which they are begun.
            measure: (name, seconds) -> figures.
            seconds: for all of them.
        """
        end = time.monotonic() + seconds
        found = self.figures.setdefault(part, {})
        together = max(1, cores() // 2)
        waiting = list(names)

        def one(name: str) -> Any:
            left = end - time.monotonic()
            # One that is slow must not use up the time of all that come after it.
            share = min(1.0, _LONGEST * together / len(waiting))
            waiting.remove(name)
            return measure(name, min(left, max(share * left, _FAIR)))

        with ThreadPool(together) as pool:
            runs = {pool.submit(one, name): name for name in names}
            for future in concurrent.futures.as_completed(runs):
                name = runs[future]
                try:
                    found[name] = future.result()
                except Exception as error:  # whatever it is, the others are wanted
                    self.fail(f"{part}: {name}", error)
                write_json(self.output, self.figures)

    def tracker(self, name: str, seconds: float) -> dict[str, Any]:
        """Measure a preset live, through a clip and in slots."""
        path = self._folder / f"{name}.json"
        words = [
            "-m",
            f"{_HERE}eval.speed",
            "--tracker",
            name,
            "--slots",
            str(slots_here()),
            "--brief",
        ]
        words += ["--rounds", "3", "--turn", self._turn, "--output", str(path), *self._digits]
        self.python(*words, seconds=seconds)
        return read_json(path, "figures of a tracker", kind=dict)[name]

    def recipe(self, name: str, seconds: float) -> dict[str, Any]:
        """Measure the training steps of a recipe."""
        words = ["-m", f"{_HERE}train.speed", name, "--seconds", "3", "--turn", self._turn]
        said = self.python(*words, *self._digits, seconds=seconds).output.splitlines()
        return json.loads(said[-1])

    def benchmark(self, name: str, seconds: float) -> dict[str, Any]:
        """Measure a whole benchmark, from files to boxes."""
        path = self._folder / "benchmark.json"
        count = slots_here()
        words = [
            "-m",
            f"{_HERE}eval.speed",
            "--benchmark",
            "--tracker",
            name,
            "--slots",
            str(count),
        ]
        words += ["--videos", str(count), "--length", "64", "--output", str(path)]
        self.python(*words, *self._digits, seconds=seconds)
        return read_json(path, "figures of a benchmark", kind=dict)[name] | {"tracker": name}


class ThreadPool(concurrent.futures.ThreadPoolExecutor):
    """Threads that wait for processes; an interruption does not wait for those that have not begun."""

    def __exit__(self, *error: Any) -> None:
        """Wait for what runs."""
        self.shutdown(wait=error[0] is None, cancel_futures=error[0] is not None)


def enough(seconds: float) -> float:
    """Return the seconds.

    Raises:
        JaxtrackError: they are too few to begin anything.
    """
    if seconds < _LEAST:
        raise JaxtrackError("no time was left")
    return seconds


def slots_here() -> int:
    """Return how many videos side by side are worth measuring: 64, on a processor alone a few."""
    return 64 if accelerated() else 2


def chosen(names: Sequence[str], words: Sequence[str], first: Sequence[str]) -> list[str]:
    """Return the names that hold one of the words; without words all published ones, the best known first."""
    if words:
        found = [name for name in names if any(word in name for word in words)]
        return sorted(found, key=lambda name: not name.endswith(tuple(words)))
    published = [name for name in names if "tiny" not in name and "padded" not in name]
    return [*(n for n in first if n in published), *(n for n in published if n not in first)]


def starred(name: str, row: dict[str, Any]) -> str:
    """Return a name, with a star where its figures were not taken in quiet."""
    return name if row.get("quiet", True) else f"{name} {_STAR}"


def table(figures: dict[str, Any]) -> str:
    """Return the figures as one page of Markdown."""
    versions = figures.get("versions", {})
    lines = [f"## {versions.get('device', 'device unknown')}", ""]
    told = {k: v for k, v in versions.items() if k != "device"}
    told["precision"] = figures.get("precision", "auto")
    lines += [", ".join(f"{key} {value}" for key, value in told.items()), ""]
    lines += [f"- parity, {name}: {line}" for name, line in figures.get("parity", {}).items()]
    found = figures.get("trackers", {})
    if found:
        lines += [
            "",
            "| tracker | live, ms a frame | clip, ms | slots, frames/s | init, ms | compile both, s |",
        ]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, row in found.items():
        slots = next((v for k, v in row.items() if k.startswith("frames_per_second_")), math.nan)
        compiled = row["compile_init_s"] + row["compile_frame_s"]
        lines.append(
            f"| {starred(name, row)} | {row['ms_per_frame']:.2f} | {row['ms_per_frame_in_clip']:.2f} "
            f"| {slots:.0f} | {row['ms_init']:.1f} | {compiled:.1f} |"
        )
    found = figures.get("training", {})
    if found:
        lines += ["", "| recipe | batch | ms a step | pairs/s | peak, GiB | compile, s |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {starred(name, row)} | {row['batch']} | {row['ms_per_step']:.1f} "
        f"| {row['pairs_per_second']:.0f} | {row['peak_gib']:.1f} | {row['compile_seconds']:.1f} |"
        for name, row in found.items()
    ]
    if any(_STAR in line for line in lines):
        lines += ["", f"{_STAR} timed while others compiled: they took too long to be waited for"]
    whole = figures.get("benchmark")
    if whole:
        reached = " frames/s, ".join(f"{kind} {whole[kind]:.0f}" for kind in ("decode", "tracking"))
        lines += [
            "",
            f"Whole benchmark ({whole['tracker']}, 720p JPEG): {reached} frames/s, end to end "
            f"{whole['end_to_end']:.0f} frames/s: {100 * whole['share']:.0f} % of the slower",
        ]
    lines += [
        f"- peer `{name}`: {value:.2f} ms a frame"
        for name, value in figures.get("peers", {}).items()
    ]
    lines += [f"- failed: {name}: {why}" for name, why in figures.get("failures", {}).items()]
    return "\n".join(lines)
