"""Trainings in processes of their own, kept with what they were asked for."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jaxtrack
from jaxtrack import cli
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.io import child
from jaxtrack.io.records import checksum, read_json, write_json


def python(*words: str, cwd: Path | None = None) -> None:
    """Run one of the project's own commands, its output on this screen; it ends with us.

    Args:
        words: what follows ``python``.
        cwd: the checkout (default: here).

    Raises:
        JaxtrackError: it failed.
    """
    print("$ python", *words, flush=True)
    status = child.run([sys.executable, *words], cwd=cwd).status
    if status:
        raise JaxtrackError(f"`python {' '.join(words)}` ended with status {status}")


def check_presets(*presets: str) -> None:
    """Refuse names of trainings that do not exist, before others are trained.

    Raises:
        UsageError: one of them is unknown.
    """
    for preset in dict.fromkeys(presets):
        words = ["-m", cli.beside(__package__, "train.run"), preset, "--fields"]
        ended = child.run([sys.executable, *words], capture=True)
        if ended.status:
            last = (ended.errors.strip().splitlines() or [f"{preset}: no training preset"])[-1]
            raise UsageError(last.removeprefix("error: "))


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that a study needs.

    Attributes:
        preset: of `train.presets`.
        folder: of the run.
        steps: length; None: the preset's.
        seed: of the run; None: the preset's.
        init_from: weights that it starts from; None: from nothing.
    """

    preset: str
    folder: Path
    steps: int | None = None
    seed: int | None = None
    init_from: Path | None = None

    @property
    def begun(self) -> bool:
        """Whether something lies in the folder."""
        return self.folder.is_dir() and any(self.folder.iterdir())

    def check(self) -> None:
        """Refuse a folder that this training cannot go on in, before others are trained.

        Raises:
            JaxtrackError: it holds a training of something else.
        """
        if self.begun:
            _compare(self.folder.absolute(), self._note, self._asked())

    @property
    def _note(self) -> Path:
        """Where it is kept what the training was asked for."""
        folder = self.folder.absolute()
        return folder.with_name(f"{folder.name}.asked.json")

    def _asked(self) -> dict[str, Any]:
        return {
            "jaxtrack": jaxtrack.__version__,
            "preset": self.preset,
            "steps": self.steps,
            "seed": self.seed,
            "init_from": checksum(self.init_from) if self.init_from else None,
        }

    def weights(self, cwd: Path | None = None) -> Path:
        """Return the file of its weights; what is missing is trained, what was begun is finished.

        Args:
            cwd: the checkout, where the training is started (default: here).

        Raises:
            JaxtrackError: the folder holds a training of something else, or the training failed.
        """
        folder = self.folder.absolute()
        weights = folder / "weights.safetensors"
        self.check()
        if self.begun and weights.is_file():
            return weights
        write_json(self._note, self._asked())
        words = ["-m", cli.beside(__package__, "train.run"), self.preset, "--output", str(folder)]
        words += ["--steps", str(self.steps)] if self.steps else []
        words += ["--seed", str(self.seed)] if self.seed is not None else []
        words += ["--init-from", str(self.init_from)] if self.init_from else []
        words += ["--resume"] if (folder / "settings.json").is_file() else []
        python(*words, cwd=cwd)
        return weights


def _compare(folder: Path, note: Path, asked: dict[str, Any]) -> None:
    """Refuse a training of something else."""
    if not note.is_file():
        raise JaxtrackError(
            f"{folder}: a training that this study did not begin; remove it or name another folder"
        )
    before = read_json(note, "what a study asked a training for", kind=dict)
    other = [key for key in asked if before.get(key) != asked[key]]
    if other:
        raise JaxtrackError(
            f"{folder}: a training with other {' and '.join(other)}; remove it or name another folder"
        )
