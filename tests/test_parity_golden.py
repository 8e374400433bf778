"""Parity on the committed selection of figures, so that a fresh clone checks it without the packs."""

import pathlib

import jax
import pytest

from tests.conftest import ROOT
from tests.parity.__main__ import find_cases, run_case

FOLDERS = sorted(
    {path.parent for path in (ROOT / "tests" / "golden").glob("*/*.schema.json")}
    | {
        path.parent
        for path in (ROOT / "tests" / "golden").glob("*/*.json")
        if path.parent.name in ("siamfc", "siamrpnpp", "ostrack", "tadt")
    }
)
CASES = [path for folder in FOLDERS for path in find_cases(folder, None)]


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_golden(path: pathlib.Path):
    # The published codes keep their geometry in float64, and their numpy broadcasts ranks.
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        rows = run_case(path)
    failed = [f"{r.array}: {r.error:.3g} > {r.tolerance} {r.note}" for r in rows if not r.passed]
    assert rows
    assert not failed, "\n".join(failed)
