"""The parity runner: ``python -m tests.parity PACK [PACK ...] [--case NAME]``.

Prints one line per recorded array (case, array, largest error, tolerance, PASS or FAIL), then a count. Exit
status 1 when an array fails, is missing, or a kind or a field is unknown. Nothing is skipped in silence.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import sys
import traceback

import jax

from tests.parity.case import Case, ParityError, Report, Row

# The published code that a case was recorded from (its "reference") -> our module of that family.
FAMILIES = {
    "huanglianghua/siamfc-pytorch": "siamfc",
    "rafellerc/Pytorch-SiamFC": "siamfc",
    "STVIR/pysot": "siamrpnpp",
    "ZikunZhou/TADT-python": "tadt",
    "botaoye/OSTrack": "ostrack",
}


def run_case(path: pathlib.Path) -> list[Row]:
    """Run one case and return its rows; an unknown reference, kind or field is a failed row."""
    case = Case.load(path)
    report = Report(case)
    try:
        reference = case.meta["reference"].split(" at ")[0]
        if reference not in FAMILIES:
            raise ParityError(f"unknown reference {reference!r}")
        family = importlib.import_module(f"tests.parity.{FAMILIES[reference]}")
        kind = case.meta["kind"]
        if kind not in family.KINDS:
            raise ParityError(f"unknown kind {kind!r} of {reference}")
        family.KINDS[kind](case, report)
        return report.finish(family.NOT_APPLICABLE.get(kind, {}))
    except ParityError as error:
        return [*report.rows, Row(case.name, "-", float("inf"), "-", False, str(error))]
    except Exception as error:
        # A case that breaks must not hide the ones after it; the traceback goes to stderr.
        traceback.print_exc()
        note = f"{type(error).__name__}: {error}"
        return [*report.rows, Row(case.name, "-", float("inf"), "-", False, note)]


def find_cases(folder: pathlib.Path, name: str | None) -> list[pathlib.Path]:
    """The case files of a pack: every json but the schemas; ``name`` picks one."""
    if not folder.is_dir():
        raise ParityError(f"no such folder: {folder}")
    paths = []
    for path in sorted(folder.glob("*.json")):
        meta = json.loads(path.read_text())
        if isinstance(meta, dict) and "kind" in meta and (name is None or path.stem == name):
            paths.append(path)
        elif not path.name.endswith(".schema.json") and name is None:
            raise ParityError(f"{path}: neither a case (no 'kind') nor a *.schema.json")
    if not paths:
        raise ParityError(f"no case {name or ''} in {folder}")
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Run packs and print the lines; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("packs", nargs="+", type=pathlib.Path, help="folders of *.json + *.npz")
    parser.add_argument("--case", help="run this case only (its file's stem)")
    options = parser.parse_args(arguments)
    # The published codes keep their geometry in float64; networks are float32 explicitly.
    jax.config.update("jax_enable_x64", True)
    passed = failed = 0
    try:
        paths = [path for pack in options.packs for path in find_cases(pack, options.case)]
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in paths:
        for row in run_case(path):
            word = "PASS" if row.passed else "FAIL"
            note = f"  ({row.note})" if row.note else ""
            print(
                f"{row.case:28s} {row.array:32s} {row.error:12.4g}  {row.tolerance:18s} {word}{note}",
                flush=True,
            )
            passed, failed = passed + row.passed, failed + (not row.passed)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
