"""A parity case, and the report that compares our arrays with the recorded ones.

A family's module has ``KINDS: dict[str, Callable[[Case, Report], None]]``. A function rebuilds weights and
inputs from ``case`` (the json says everything; nothing hangs on a case's name), runs our code, and calls
``report.check(name, ours)`` for each recorded array. An array that nobody checks fails the case, unless the
family's ``NOT_APPLICABLE`` table (``{kind: {pattern: reason}}``) says why our design never makes it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import pathlib
import re
from typing import Any

import numpy as np

from tests.parity import standin


class ParityError(Exception):
    """A case that cannot be run as its json asks (an unknown field, a missing file)."""


@dataclasses.dataclass
class Case:
    """One case: ``<name>.json`` and ``<name>.npz``.

    Attributes:
        name: file stem; used for printing only.
        meta: the json.
        arrays: the recorded arrays by name.
        folder: the pack's folder (schema files lie there).
    """

    name: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    folder: pathlib.Path

    @classmethod
    def load(cls, path: pathlib.Path) -> Case:
        """Read a case from its json file; a case may have no npz (then it records nothing)."""
        meta = json.loads(path.read_text())
        arrays = {}
        data = path.with_suffix(".npz")
        if data.is_file():
            with np.load(data, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
        return cls(path.stem, meta, arrays, path.parent)

    @property
    def config(self) -> dict[str, Any]:
        """The case's configuration."""
        return self.meta.get("config", {})

    def schema(self, key: str = "schema") -> list[tuple[str, tuple[int, ...]]]:
        """The reference's (name, shape) list, in the json or in the file that it names."""
        value = self.meta[key]
        if isinstance(value, str):
            value = json.loads((self.folder / value).read_text())
            if isinstance(value, dict):
                value = value["schema"]
        return [(name, tuple(shape)) for name, shape in value]

    def state_dict(self, key: str = "schema", seed: int | None = None) -> dict[str, np.ndarray]:
        """Stand-in weights by published name, with the json's scales, offsets and adjustments."""
        state = standin.state_dict(self.schema(key), self.meta["seed"] if seed is None else seed)
        for pattern, factor in self.meta.get("weight_scale", []):
            for name in state:
                if fnmatch.fnmatchcase(name, pattern):
                    state[name] = (state[name] * np.float32(factor)).astype(np.float32)
        for name, offset in self.meta.get("weight_offset", {}).items():
            state[name] = (state[name] + np.asarray(offset, np.float32)).astype(np.float32)
        for name, operation, value in self.meta.get("weight_adjust", []):
            if operation == "mul":
                state[name] = state[name] * np.float32(value)
            elif operation == "add":
                state[name] = state[name] + np.float32(value)
            else:
                raise ParityError(f"weight_adjust: unknown operation {operation!r}")
        return state


@functools.lru_cache(maxsize=8)
def _frames(seed: int, count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return standin.frames(seed, count, height, width)


def frames(
    seed: int, count: int = 8, height: int = 240, width: int = 320
) -> tuple[np.ndarray, np.ndarray]:
    """The stand-in clip (RGB frames, 0-based xywh boxes); copies, so callers may write."""
    images, boxes = _frames(seed, count, height, width)
    return images.copy(), boxes.copy()


def apply_edits(images: np.ndarray, edits: list[dict[str, Any]]) -> np.ndarray:
    """Replace whole frames as a clip's ``edits`` ask.

    Args:
        images: ``(t, h, w, 3)`` RGB uint8.
        edits: each names its ``frame`` (or a list of them) and its kind: ``constant`` (with a ``bgr``
            colour) or ``other`` (with a ``frames`` recipe and an ``index`` into that clip).

    Returns:
        A new array.
    """
    images = images.copy()
    for edit in edits:
        names = [*edit, *(v for v in edit.values() if isinstance(v, str))]
        kind = next((k for k in ("constant", "other") if k in names), "")
        body = edit[kind] if isinstance(edit.get(kind), dict) else edit
        where = next((edit[k] for k in ("frame", "at", "target", "t") if k in edit), None)
        if not kind or where is None:
            raise ParityError(f"clip edit of an unknown form: {edit}")
        if kind == "constant":
            colour = body["bgr"] if "bgr" in body else body["constant"]
            replacement = np.broadcast_to(np.asarray(colour, np.uint8)[::-1], images.shape[1:])
        else:
            replacement = frames(**body["frames"])[0][body["index"]]
        images[where] = replacement
    return images


def sequence_frames(name: str, folder: pathlib.Path) -> np.ndarray:
    """A real sequence beside the packs (``../sequences/<name>/img/*.jpg``), decoded to RGB.

    Args:
        name: the sequence's folder, "Skiing" say.
        folder: the pack's folder (`Case.folder`).

    Returns:
        ``(t, h, w, 3)`` uint8.
    """
    import cv2

    roots = [folder.parent, *folder.resolve().parents, pathlib.Path.cwd().parent / "shared"]
    for root in roots:
        paths = sorted((root / "sequences" / name / "img").glob("*.jpg"))
        if paths:
            return np.stack([np.asarray(cv2.imread(str(path)))[..., ::-1] for path in paths])
    raise ParityError(f"no sequence {name!r} in a sequences folder beside {folder}")


@dataclasses.dataclass
class Row:
    """One compared array: what the runner prints."""

    case: str
    array: str
    error: float
    tolerance: str
    passed: bool
    note: str = ""


class Report:
    """Collects comparisons of one case."""

    def __init__(self, case: Case) -> None:
        """Start an empty report of ``case``."""
        self.case = case
        self.rows: list[Row] = []
        self._seen: set[str] = set()

    def tolerance(self, name: str) -> Any:
        """The json's tolerance of an array: its own entry, or the pattern with ``N`` for numbers."""
        table = self.case.meta["tolerance"]
        if name in table:
            return table[name]
        for pattern, value in table.items():
            regex = re.escape(pattern)
            regex = re.sub(r"(?<![A-Za-z])N(?![A-Za-z])", r"\\d+", regex)
            regex = re.sub(r"<[^<>]*>", r"[^.]+", regex.replace("\\<", "<").replace("\\>", ">"))
            if re.fullmatch(regex, name) or fnmatch.fnmatchcase(name, pattern):
                return value
        raise ParityError(f"no tolerance for array {name!r}")

    def check(
        self,
        name: str,
        ours: Any,
        *,
        recorded: np.ndarray | None = None,
        tolerance: Any = None,
        rows: Any = None,
        note: str = "",
    ) -> bool:
        """Compare our array with the recorded one of the same name.

        Args:
            name: the recorded array.
            ours: our value, of the same shape.
            recorded: replaces the recorded array (a part of it, say).
            tolerance: replaces the json's: ``"exact"`` or ``{"rtol", "atol"}`` (scalars or arrays that
                broadcast).
            rows: boolean mask or index of the leading axis that is compared; the pack's decision rules
                skip the others. State the rule in ``note``.
            note: printed after the line.

        Returns:
            Whether it passed.
        """
        self._seen.add(name)
        want = np.asarray(self.case.arrays[name] if recorded is None else recorded)
        got = np.asarray(ours)
        rule = self.tolerance(name) if tolerance is None else tolerance
        if isinstance(rule, str):
            if not rule.startswith("exact"):
                raise ParityError(f"{name}: tolerance in words, give it as numbers: {rule!r}")
            rtol: Any = 0
            atol: Any = 0
        else:
            rtol, atol = np.asarray(rule.get("rtol", 0)), np.asarray(rule.get("atol", 0))
        text = f"{np.max(rtol):g}*|r|+{np.max(atol):g}" if np.any(rtol) else f"{np.max(atol):g}"
        if got.shape != want.shape:
            note = f"shape {got.shape}, recorded {want.shape}"
            return self._add(name, float("inf"), text, False, note)
        if rows is not None:
            got, want = got[rows], want[rows]
        if got.size == 0:
            return self._add(name, 0.0, text, True, note)
        if want.dtype.kind in "US" or want.dtype == bool:
            wrong = int(np.sum(got != want))
            return self._add(name, float(wrong), "equal", wrong == 0, note)
        a, b = got.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.abs(a - b)
        # Equal infinities and not-a-numbers agree; anything else that is not finite fails.
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
        passed = bool(np.all(error <= atol + rtol * np.abs(np.where(np.isfinite(b), b, 0))))
        return self._add(name, float(error.max()), text, passed, note)

    def check_true(self, name: str, passed: bool, error: float, rule: str, note: str = "") -> bool:
        """Record a comparison by a decision rule of the pack (sets instead of orders, accepted ties).

        Args:
            name: the recorded array.
            passed: the rule's outcome.
            error: how far off, in the rule's unit.
            rule: the rule in a few words; printed in the place of the tolerance.
            note: printed after the line.
        """
        self._seen.add(name)
        return self._add(name, error, rule, passed, note)

    def used(self, name: str) -> np.ndarray:
        """A recorded array that is an input of the stage (a teacher-forced state): not a comparison."""
        self._seen.add(name)
        return self.case.arrays[name]

    def finish(self, not_applicable: dict[str, str]) -> list[Row]:
        """The rows, with a failure for every recorded array that was neither checked nor declared."""
        for name in sorted(set(self.case.arrays) - self._seen):
            reason = next(
                (
                    why
                    for pattern, why in not_applicable.items()
                    if fnmatch.fnmatchcase(name, pattern)
                ),
                None,
            )
            if reason is None:
                self._add(
                    name, float("inf"), "-", False, "recorded, but nothing was compared with it"
                )
            else:
                self.rows.append(Row(self.case.name, name, 0.0, "n/a", True, reason))
        return self.rows

    def _add(self, name: str, error: float, text: str, passed: bool, note: str) -> bool:
        self.rows.append(Row(self.case.name, name, error, text, passed, note))
        return passed
