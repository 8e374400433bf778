"""The report: what was measured, marked, ranked, safe to open, and fit for a paper."""

import csv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from eval.files import datasets
from eval.metrics.ope import evaluate_ope
from eval.report import page, tables
from eval.report.page import style_of, write_report
from eval.report.published import comparison
from eval.report.scores import outcome_of, score_of
from eval.tracking import slots as runner
from jaxtrack import trackers, zoo
from jaxtrack.weights import shipped_path
from tests.eval.pages import page_data
from tests.eval.test_slots import FAKE, SEQUENCES

SYNTHETIC = datasets.find("synthetic")
# Each would run, or break the page, where a name is put into markup, script, style or a formula.
HOSTILE = (
    '"><img src=x onerror="window.hit=1">',
    "</script><script>window.hit=2</script>",
    "' onmouseover='window.hit=3",
    "{{ 7 * 7 }}${window.hit=4}",
    "$\\frac{",
    "_nolegend_ \u202e\x00\udcff",
)


def outcomes(names=("fast", "slow"), sequences=SEQUENCES):
    found = []
    for name, speed in zip(names, (1.0, 0.2, 0.5, 0.1, 0.0, 0.3)):
        done = dict(runner.run(FAKE, jnp.float32(speed), sequences, slots=2))
        boxes = {key: track.boxes.astype(np.float64) for key, track in done.items()}
        truth = {s.name: s.annotation for s in sequences}
        report = evaluate_ope(boxes, truth, None, "synthetic", name)
        score = score_of(report, report.protocol.name)
        found.append(outcome_of(report, score, boxes=boxes, frames_per_second=12.5))
    return found


@pytest.fixture(scope="module")
def done():
    return outcomes()


def test_report_holds_what_was_measured(tmp_path, done):
    path = write_report(tmp_path / "report.html", done, SYNTHETIC, SEQUENCES, ["python", "x y"])
    text = path.read_text()
    for address in ("http://", "https://"):
        assert address not in text.replace("http://www.w3.org/2000/svg", "")
    data = page_data(text)
    ranked = sorted(done, key=lambda o: -o.score.metrics["auc"])
    for entry, outcome in zip(data["trackers"], ranked):
        assert entry["name"] == outcome.name
        assert entry["overall"]["auc"] == pytest.approx(outcome.score.metrics["auc"], abs=1e-4)
        assert len(entry["overlaps"]) == len(SEQUENCES)
    assert all(len(strip) >= 2 for strip in data["strips"].values())
    assert data["attributes"] == ["even", "odd"]
    assert data["command"] == "python 'x y'"
    assert data["versions"]["opencv"]
    assert text.count('class="best"') >= len(data["headlines"])


def test_tables_and_curves_beside_the_page(tmp_path, done):
    write_report(tmp_path / "report.html", done, SYNTHETIC)
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) == 2 * (1 + len(SEQUENCES))
    assert rows[0]["sequence"] == "(all)"
    assert float(rows[0]["auc"]) >= float(rows[1 + len(SEQUENCES)]["auc"])
    latex = (tmp_path / "scores.tex").read_text()
    assert latex.count(r"\\") == 3
    assert r"\toprule" in latex
    assert r"\textbf{" in latex
    for name in ("success", "precision", "norm_precision"):
        ElementTree.parse(tmp_path / f"{name}.svg")
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_lines_differ_without_colour():
    styles = [style_of(i) for i in range(14)]
    assert len({s.dashes for s in styles[:7]}) == 7
    assert len(set(styles)) == 14


def hostile(tmp_path):
    """A page on which every name is hostile."""
    import dataclasses

    sequences = [dataclasses.replace(s, name=n) for s, n in zip(SEQUENCES, HOSTILE)]
    for s in sequences:
        note = dataclasses.replace(s.annotation, attributes=(f"attribute {s.name}",))
        sequences[sequences.index(s)] = dataclasses.replace(s, annotation=note)
    label = dataclasses.replace(SYNTHETIC, label=HOSTILE[1])
    made = outcomes(HOSTILE, sequences)
    path = tmp_path / 'a "b" <i>'
    return write_report(path / "report.html", made, label, sequences, ["x", *HOSTILE[:4]])


def test_hostile_names_stay_text(tmp_path):
    path = hostile(tmp_path)
    text = path.read_text()
    script = text.index('<script type="application/json"')
    assert text.count("<script") == 2
    assert "<img" not in text.lower()
    assert "onmouseover='" not in text[:script]
    assert "49" not in text[: text.index("<h2>Curves")].split("</style>")[1].split("<tbody>")[0]
    data = page_data(text)
    assert {t["name"] for t in data["trackers"]} >= set(HOSTILE[:4])
    assert HOSTILE[0] in data["sequences"]
    for name in ("success", "precision"):
        ElementTree.parse(path.with_name(f"{name}.svg"))
    assert r"\$" in path.with_name("scores.tex").read_text()


def test_latex_takes_any_name():
    assert tables._escape("a_b&c%$#{}~^\\") == (
        r"a\_b\&c\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def row(sequences, preset="siamrpnpp-r50-otb", **metrics):
    """An outcome of which only the headline numbers matter."""
    import dataclasses

    (first, *_) = _ROWS or _ROWS.extend(outcomes(("one",))) or _ROWS
    score = dataclasses.replace(first.score, sequences=sequences, metrics=metrics)
    return dataclasses.replace(first, score=score, preset=preset)


_ROWS: list = []


def test_published_numbers_stand_beside_the_same_thing_alone():
    whole = row(100, auc=0.690, precision_20px=0.92)
    wanted = [
        "AUC published .696 (PySOT model zoo), difference -.006",
        "P published .914 (PySOT model zoo), difference +.006",
    ]
    assert comparison(whole, datasets.find("otb100")) == wanted
    assert comparison(whole, datasets.find("otb")) == wanted
    assert comparison(whole, datasets.find("otb", "otb50")) == []
    assert comparison(whole, datasets.find("uav123")) == []
    assert comparison(row(3, auc=0.69), datasets.find("otb")) == []
    assert comparison(row(100, "siamrpnpp-r50", auc=0.69), datasets.find("otb100")) == []
    assert comparison(row(100, None, auc=0.69), datasets.find("otb100")) == []
    lasot = row(280, "ostrack-256-ce", auc=0.7)
    assert len(comparison(lasot, datasets.find("lasot"))) == 1
    assert comparison(lasot, datasets.find("lasot", "train")) == []


def test_the_zoo_knows_presets_and_shipped_files():
    assert set(zoo.MODELS) <= set(trackers.names())
    for preset in trackers.names():
        model = zoo.find(preset)
        if model is not None and model.size is not None:
            assert model.size == shipped_path(preset).stat().st_size
            assert len(model.sha256) == 64
    assert all(0 < v < 1 for m in zoo.MODELS.values() for p in m.scores for v in p.numbers.values())


def test_the_zoo_is_shown(capsys):
    assert zoo.main(["siamfc", "siamfc-tiny"]) == 0
    shown = capsys.readouterr().out
    assert "siamfc_alexnet_e50.pth  (huanglianghua/siamfc-pytorch)" in shown
    assert "otb100: AUC .578, P .765 (README of huanglianghua/siamfc-pytorch)" in shown
    assert shown.count("sha256") == 1
    assert zoo.main(["siamfcc"]) == 2
    assert "nearest: siamfc" in capsys.readouterr().err
    assert zoo.main(["--markdown"]) == 0
    readme = Path(zoo.__file__).parents[1] / "README.md"
    assert capsys.readouterr().out in readme.read_text()


def test_opencv_of_any_package(monkeypatch):
    real = page.version

    def headless(name):
        if name.startswith("opencv"):
            raise page.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(page, "version", headless)
    assert page.versions()["opencv"]
