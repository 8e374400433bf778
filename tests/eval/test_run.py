"""The evaluation command: what it takes for what, what it keeps, what it refuses to score."""

import dataclasses
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval import run as eval_run
from eval import score as eval_score
from eval.files import datasets
from eval.files.results import read_results
from eval.metrics.protocols import get_benchmark
from eval.tracking import sequences as benchmarks
from eval.tracking.entry import Entry
from eval.tracking.sequences import load
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.synthetic import world
from tests.eval.layouts import write_results
from tests.eval.pages import page_data
from tests.eval.test_slots import FAKE, SEQUENCES, long_sequences


class FakeEntry(Entry):
    """An entry whose weights are a number."""

    def load(self):
        return jnp.float32(self.weights or 1)


@pytest.fixture
def fakes(monkeypatch):
    """Sequences from memory; ``fast`` and ``fast=2`` are trackers."""

    def parse(texts, changes=()):
        parts = [text.partition("=") for text in texts]
        return tuple(FakeEntry(name, name, FAKE, file or None) for name, _, file in parts)

    monkeypatch.setattr(eval_run, "parse_entries", parse)
    monkeypatch.setattr(eval_run, "load", lambda *a, **k: list(SEQUENCES))


def call(folder, *more):
    return eval_run.main(["--output", str(folder), "--no-report", *more])


def scores(folder, label="synthetic"):
    found = json.loads((folder / label / "scores.json").read_text())
    for row in found.values():
        row.pop("frames_per_second", None)
    return found


def test_a_continued_run_gives_the_same_scores_to_the_bit(tmp_path, fakes, capsys):
    rows = ["--tracker", "fast", "--peer", "static", "--chunk", "2"]
    assert call(tmp_path / "one", *rows) == 0
    folder = tmp_path / "one" / "synthetic" / "fast"
    before = scores(tmp_path / "one")
    (folder / "s2.txt").unlink()
    (folder / "made_from" / "s4.json").unlink()
    capsys.readouterr()
    assert call(tmp_path / "one", *rows) == 0
    printed = capsys.readouterr().out
    assert "note: fast: tracked again, its boxes are missing: s2" in printed
    assert "note: fast: tracked again, nothing says what they were made from: s4" in printed
    assert "note: static: 5 sequences kept" in printed
    assert scores(tmp_path / "one") == before


def _text(path):
    path.write_text("nonsense\n")


def _folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("role", ["boxes", "scores", "times"])
@pytest.mark.parametrize("spoil", [_text, _folder, lambda path: path.unlink()])
def test_damaged_results_are_made_again(role, spoil, tmp_path, fakes, capsys):
    call(tmp_path, "--peer", "static")
    before = scores(tmp_path)
    folder = tmp_path / "synthetic" / "static"
    files = eval_run.tracked_files(folder, "s1")
    spoil(files[role])
    capsys.readouterr()
    if spoil is _folder:  # what somebody else put there is not removed
        assert call(tmp_path, "--peer", "static") == 1
        assert str(files[role]) in capsys.readouterr().err
        files[role].rmdir()
    assert call(tmp_path, "--peer", "static") == 0
    assert scores(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {"boxes": s.boxes + 3}, "first box changed: s1"),
        (lambda s: {"source": "other"}, "data set changed: s1"),
        (lambda s: {"root": "elsewhere"}, "folder changed: s1"),
        (lambda s: {"frames": lambda: (255 - f for f in s.frames())}, "pictures changed: s1"),
    ],
)
def test_changed_inputs_are_tracked_again(change, words, tmp_path, fakes, capsys, monkeypatch):
    call(tmp_path, "--peer", "static")
    other = [dataclasses.replace(s, **change(s)) if s.name == "s1" else s for s in SEQUENCES]
    monkeypatch.setattr(eval_run, "load", lambda *a, **k: other)
    capsys.readouterr()
    assert call(tmp_path, "--peer", "static") == 0
    assert f"note: static: tracked again, {words}" in capsys.readouterr().out


def test_other_weights_are_tracked_again(tmp_path, fakes, capsys):
    call(tmp_path, "--tracker", "fast=1")
    kept = scores(tmp_path)
    call(tmp_path, "--tracker", "fast=2")
    said = capsys.readouterr().out
    changed = "tracker (settings, weights, code or --precision) changed"
    assert f"tracked again, {changed}: s0, s1, s2, s3, s4" in said
    assert scores(tmp_path) != kept
    call(tmp_path, "--tracker", "fast=1")
    assert scores(tmp_path) == kept


def test_a_broken_sequence_is_named_and_the_others_are_kept(tmp_path, fakes, capsys, monkeypatch):
    bad = dataclasses.replace(SEQUENCES[1], fault="s1: img/0003.jpg is damaged")
    some = [SEQUENCES[0], bad, *SEQUENCES[2:]]
    monkeypatch.setattr(eval_run, "load", lambda *a, **k: some)
    assert call(tmp_path, "--tracker", "fast", "--peer", "static") == 1
    said = capsys.readouterr()
    assert said.err.strip().endswith("s1: img/0003.jpg is damaged")
    shown = [line for line in said.out.splitlines() if "AUC" in line]
    assert len(shown) == 2
    assert all(line.strip().startswith("4 of 5 sequences, 1 broken: AUC 0.") for line in shown)
    assert said.out.count("no score: s1: img/0003.jpg is damaged") == 2
    assert not (tmp_path / "synthetic" / "scores.json").exists()
    monkeypatch.setattr(eval_run, "load", lambda *a, **k: list(SEQUENCES))
    assert call(tmp_path, "--tracker", "fast", "--peer", "static") == 0
    assert capsys.readouterr().out.count("4 sequences kept") == 2


def test_no_score_is_made_of_what_another_run_writes(tmp_path, fakes, capsys, monkeypatch):
    track, beside = eval_run.slots.run, []

    def meanwhile(*args, **kwargs):
        yield from track(*args, **kwargs)
        if not beside:  # another terminal, other settings, the same folder
            beside.append("begun")
            beside.append(call(tmp_path, "--tracker", "fast=2"))

    monkeypatch.setattr(eval_run.slots, "run", meanwhile)
    assert call(tmp_path, "--tracker", "fast=1") == 1
    said = capsys.readouterr()
    assert beside == ["begun", 0]
    assert "the results of s0 were changed while this ran (tracker (settings" in said.err
    assert said.out.count("AUC") == 1


def test_shards_together_are_the_whole(tmp_path, fakes, capsys):
    for shard in ("1/2", "2/2"):
        assert call(tmp_path / "parts", "--tracker", "fast", "--shard", shard) == 0
    assert not (tmp_path / "parts" / "synthetic" / "scores.json").exists()
    assert "AUC" not in capsys.readouterr().out
    assert call(tmp_path / "parts", "--tracker", "fast") == 0
    assert "5 sequences kept" in capsys.readouterr().out
    call(tmp_path / "whole", "--tracker", "fast")
    assert scores(tmp_path / "parts") == scores(tmp_path / "whole")


def test_outputs_of_several_hosts_are_merged(tmp_path, fakes, capsys, monkeypatch):
    rows = ["--tracker", "fast", "--peer", "static"]
    call(tmp_path / "whole", *rows)
    for host in ("1", "2"):
        there = [dataclasses.replace(s, root=f"/data{host}") for s in SEQUENCES]
        monkeypatch.setattr(eval_run, "load", lambda *a, there=there, **k: list(there))
        assert call(tmp_path / host, *rows, "--shard", f"{host}/2") == 0
    monkeypatch.setattr(eval_run, "load", lambda *a, **k: list(SEQUENCES))
    capsys.readouterr()
    assert call(tmp_path / "all", *rows, "--merge", str(tmp_path / "1"), str(tmp_path / "2")) == 0
    assert capsys.readouterr().out.count("5 sequences taken over") == 2
    assert scores(tmp_path / "all") == scores(tmp_path / "whole")
    assert call(tmp_path / "all", *rows) == 0
    assert capsys.readouterr().out.count("5 sequences kept") == 2
    assert call(tmp_path / "1", *rows, "--merge", str(tmp_path / "1")) == 2
    assert call(tmp_path / "x", *rows, "--merge", str(tmp_path / "none")) == 1


def test_what_is_not_taken_over_is_told_before_it_is_tracked(tmp_path, fakes, capsys):
    call(tmp_path / "1", "--tracker", "fast=2", "--shard", "1/2")
    call(tmp_path / "2", "--tracker", "fast", "--shard", "2/2")
    hosts = ["--merge", str(tmp_path / "1"), str(tmp_path / "2")]
    (tmp_path / "2" / "synthetic" / "fast" / "s1.txt").write_text("1,2,3,4\n")
    capsys.readouterr()
    assert call(tmp_path / "all", "--tracker", "fast", *hosts) == 0
    said = capsys.readouterr().out
    changed = "tracker (settings, weights, code or --precision) changed"
    assert f"note: fast: not taken over, {changed} ({tmp_path / '1'}): s0, s2, s4" in said
    assert f"note: fast: not taken over, its boxes were changed ({tmp_path / '2'}): s1" in said
    assert "note: fast: 1 sequences taken over" in said
    for wrong in (tmp_path / "1" / "synthetic", tmp_path):
        assert call(tmp_path / "x", "--tracker", "fast", "--merge", str(wrong)) == 1
        said = capsys.readouterr()
        assert f"--merge {wrong}: no results of synthetic there, no folder {wrong}" in said.err
    assert not (tmp_path / "x").exists()


def test_results_of_others_stand_beside_ours(tmp_path, fakes, capsys):
    call(tmp_path / "a", "--tracker", "fast")
    folder = tmp_path / "a" / "synthetic" / "fast"
    for s in SEQUENCES:
        boxes = np.loadtxt(folder / f"{s.name}.txt", delimiter=",", ndmin=2)
        write_results(tmp_path / "rival" / "p", s.name, boxes, layout="pytracking")
    rows = ["--peer", "static", "--results", f"theirs={tmp_path / 'rival'}"]
    assert call(tmp_path / "b", *rows) == 0
    assert scores(tmp_path / "b")["theirs"] == pytest.approx(scores(tmp_path / "a")["fast"])
    assert call(tmp_path / "b", *rows, "--results", f"static={tmp_path / 'rival'}") == 2
    assert "two rows are called 'static'" in capsys.readouterr().err


def test_supervised_runs_are_written_scored_and_taken_up_again(
    tmp_path, fakes, monkeypatch, capsys
):
    sequences = [s for s in long_sequences() if s.length > 20]
    monkeypatch.setattr(eval_run, "load", lambda *a, **k: list(sequences))
    options = ["--tracker", "fast", "--protocol", "vot2018", "--slots", "2", "--devices", "2"]
    assert call(tmp_path, *options) == 0
    folder = tmp_path / "synthetic-vot2018"
    before = json.loads((folder / "scores.json").read_text())
    (stored,) = read_results(folder / "fast")
    assert sorted(stored.runs) == sorted(s.name for s in sequences)
    failures = sum(len(run.failures) for (run,) in stored.runs.values())
    assert before["fast"]["pysot"]["lost"] == failures > 0
    for name in ("pysot", "vot_toolkit"):
        assert 0 < before["fast"][name]["accuracy"] < 1
        assert 0 < before["fast"][name]["eao"] < 1
    assert not list(folder.glob("*.html"))
    (folder / "fast" / "baseline" / "v1" / "v1_001.txt").unlink()
    (folder / "fast" / "baseline" / "v3" / "v3_001.txt").write_text("spoiled\n")
    capsys.readouterr()
    assert call(tmp_path, *options) == 0
    assert json.loads((folder / "scores.json").read_text()) == before
    printed = capsys.readouterr().out
    assert "tracked again, its boxes are missing: v1" in printed
    assert "tracked again, its boxes were changed: v3" in printed
    assert call(tmp_path, *options, "--peer", "static") == 2
    assert "only trackers can be restarted" in capsys.readouterr().err
    # With the rest kept, the pages of both toolkits' rules; then a broken sequence beside sound ones.
    assert eval_run.main(["--output", str(tmp_path), *options]) == 0
    printed = capsys.readouterr().out
    for name, protocol in (("report", "pysot"), ("report-vot_toolkit", "vot_toolkit")):
        assert f"report: {folder / name}.html" in printed
        shown = page_data((folder / f"{name}.html").read_text())
        assert shown["protocol"] == protocol
        (row,) = shown["trackers"]
        assert row["overall"]["eao"] == pytest.approx(before["fast"][protocol]["eao"], abs=1e-4)
        assert len(shown["strips"]) == len(sequences)
    assert (folder / "eao.svg").exists()
    assert (folder / "eao-vot_toolkit.svg").exists()
    bad = dataclasses.replace(sequences[0], fault="v0: img/0003.jpg is damaged")
    monkeypatch.setattr(eval_run, "load", lambda *a, **k: [bad, *sequences[1:]])
    assert call(tmp_path / "broken", *options) == 1
    said = capsys.readouterr()
    assert said.out.count(f"{len(sequences) - 1} of {len(sequences)} sequences, 1 broken") == 2
    assert said.out.count("accuracy 0.") == 2
    assert not (tmp_path / "broken" / "synthetic-vot2018" / "scores.json").exists()


@pytest.fixture
def hours(monkeypatch):
    """A clock whose hands are moved by a test."""
    now = [0.0]
    monkeypatch.setattr(eval_run.time, "perf_counter", lambda: now[0])
    return now


def test_compilation_is_not_timed(hours):
    frames_of_another_size = eval_run._COMPILATION[1], 50.0
    with eval_run._Clock() as clock:
        assert np.isnan(clock.rate)
        hours[0] = 100.0  # the first call compiled
        clock.count(8)
        assert np.isnan(clock.rate)
        hours[0] = 102.0
        clock.count(8)
        assert clock.rate == 4
        jax.monitoring.record_event_duration_secs(*frames_of_another_size)
        hours[0] = 154.0
        clock.count(8)
        assert clock.rate == 4
    jax.monitoring.record_event_duration_secs(*frames_of_another_size)
    assert clock.rate == 4  # it listens no longer


@pytest.mark.parametrize(
    ("name", "split", "label", "found"),
    [
        ("lasot", None, "lasot-test", "test"),
        ("LaSOT", "train", "lasot-train", "train"),
        ("GOT-10k", None, "got10k-test", "test"),
        ("trackingnet", None, "trackingnet-test", "test"),
        ("OTB-100", None, "otb100", "otb100"),
        ("OTB2015", None, "otb100", "otb100"),
        ("otb", "otb50", "otb50", "otb50"),
        ("OTB", None, "otb", "test"),
        ("lasot_ext", None, "lasot_ext", "full"),
        ("uav20l", None, "uav20l", "uav20l"),
        ("NfS", "fps240", "nfs-fps240", "fps240"),
        ("vot-2018", None, "vot2018", "test"),
        ("custom", None, "custom", "all"),
        ("synthetic", None, "synthetic", "synthetic"),
        ("Synthetic_Hard", None, "synthetic-hard", "synthetic-hard"),
    ],
)
def test_which_data_a_name_means(name, split, label, found):
    dataset = datasets.find(name, split)
    assert (dataset.label, dataset.split) == (label, found)


def test_every_fixed_benchmark_of_the_world_can_be_named():
    assert tuple(world.BENCHMARKS) == datasets.SYNTHETIC
    found = {name: get_benchmark(name) for name in datasets.SYNTHETIC}
    assert [b.name for b in found.values()] == list(datasets.SYNTHETIC)
    assert all(datasets.find(name).benchmark is found[name] for name in found)
    with pytest.raises(UsageError, match="has no folder"):
        load("synthetic-hard", "somewhere")


def test_a_benchmark_is_drawn_from_its_own_world(monkeypatch):
    asked = []
    monkeypatch.setattr(world, "benchmark_clips", lambda name: asked.append(name) or iter(()))
    benchmarks._synthetic_clips.cache_clear()
    for name in datasets.SYNTHETIC:
        assert load(name) == []
    assert tuple(asked) == datasets.SYNTHETIC
    benchmarks._synthetic_clips.cache_clear()


def test_every_layout_of_videos_can_be_evaluated():
    for name in datasets.names():
        assert datasets.find(name).layout == name
        assert datasets.find(name.upper()).benchmark.kind in ("ope", "got10k", "vot")
    for name in ("otbb", ""):
        with pytest.raises(UsageError, match="unknown benchmark"):
            datasets.find(name)
    with pytest.raises(UsageError, match="coco is for training"):
        datasets.find("coco")
    with pytest.raises(UsageError, match="split"):
        datasets.find("lasot", "tset")


def picture(path, x):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((48, 64, 3), 40, np.uint8)
    image[10:20, x : x + 10] = (0, 0, 255)
    cv2.imwrite(str(path), image)


@pytest.fixture
def got10k(tmp_path):
    """A test set of GOT-10k: first boxes only."""
    for k in (1, 2):
        folder = tmp_path / "got" / "test" / f"GOT-10k_Test_{k:06d}"
        for i in range(1, 5):
            picture(folder / f"{i:08d}.jpg", 10 + i)
        (folder / "groundtruth.txt").write_text("12,11,10,10\n")
    return tmp_path / "got"


def test_no_score_where_the_truth_is_withheld(tmp_path, got10k, capsys):
    options = ["--benchmark", "got10k", "--root", str(got10k), "--peer", "static"]
    assert call(tmp_path / "out", *options) == 0
    printed = capsys.readouterr().out
    assert "got10k, split test: 2 sequences, 8 frames" in printed
    assert "no score: got10k publishes only the first boxes" in printed
    assert "python -m eval.submit" in printed
    assert "AUC" not in printed
    assert not (tmp_path / "out" / "got10k-test" / "scores.json").exists()
    (made,) = read_results(tmp_path / "out" / "got10k-test" / "static")
    assert {n: len(b) for n, b in made.boxes.items()} == {
        "GOT-10k_Test_000001": 4,
        "GOT-10k_Test_000002": 4,
    }
    assert (
        call(tmp_path / "out", *options[:4], "--tracker", "siamfc-tiny", "--protocol", "vot2018")
        == 1
    )
    assert "no restarts without ground truth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to run"),
        ({"tracker": ("siamfc-tinny",)}, "nearest: siamfc-tiny"),
        ({"peer": ("mill",)}, "unknown peer 'mill'"),
        ({"peer": ("static",), "benchmark": "otbb"}, "unknown benchmark 'otbb'"),
        ({"peer": ("static",), "benchmark": "otb"}, "needs --root"),
        ({"peer": ("static",), "root": "x"}, "the synthetic benchmark has no folder"),
        ({"peer": ("static",), "protocol": "pysott"}, "nearest: pysot"),
        ({"peer": ("static",), "set": ("a=1",)}, "name a --tracker"),
        ({"peer": ("static", "static")}, "two rows are called 'static'"),
    ],
)
def test_usage_errors_are_one_line(options, words, tmp_path):
    with pytest.raises(UsageError, match=words) as error:
        eval_run.evaluate(eval_run.Options(output=tmp_path / "out", **options))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/", "-1/2"])
def test_shards_that_are_none(shard, tmp_path, fakes):
    with pytest.raises(UsageError, match="give I/N"):
        eval_run.evaluate(eval_run.Options(peer=("static",), output=tmp_path, shard=shard))


def test_an_output_that_cannot_be_written(tmp_path, fakes, capsys):
    (tmp_path / "file").write_text("")
    assert call(tmp_path / "file", "--peer", "static") == 1
    assert "file" in capsys.readouterr().err
    with pytest.raises(JaxtrackError):
        eval_run.plan_of(eval_run.Options(peer=("static",), output=tmp_path / "file" / "x"))


@pytest.fixture
def otb(tmp_path):
    """Two videos of OTB; ``Cat`` lacks an image."""
    for name in ("Dog", "Cat"):
        for i in range(1, 5):
            if (name, i) != ("Cat", 3):
                picture(tmp_path / "otb" / name / "img" / f"{i:04d}.jpg", 10 + i)
        rows = "".join(f"{11 + i},11,10,10\n" for i in range(1, 5))
        (tmp_path / "otb" / name / "groundtruth_rect.txt").write_text(rows)
    return tmp_path / "otb"


def test_a_broken_video_of_a_benchmark_stops_no_other(tmp_path, otb, capsys):
    options = ["--benchmark", "otb", "--root", str(otb), "--peer", "static"]
    assert call(tmp_path / "out", *options) == 1
    said = capsys.readouterr()
    assert "Cat" in said.err
    assert said.err.count("error:") == 1
    assert "1 of 2 sequences, 1 broken: AUC" in said.out
    folder = tmp_path / "out" / "otb"
    assert (folder / "static" / "Dog.txt").exists()
    assert not (folder / "scores.json").exists()
    picture(otb / "Cat" / "img" / "0003.jpg", 13)
    assert call(tmp_path / "out", *options) == 0
    assert "static               AUC" in capsys.readouterr().out


def test_some_sequences_replace_no_scores_of_all(tmp_path, otb, capsys):
    picture(otb / "Cat" / "img" / "0003.jpg", 13)
    options = ["--benchmark", "otb", "--root", str(otb), "--peer", "static"]
    options += ["--output", str(tmp_path / "out")]
    assert eval_run.main(options) == 0
    folder = tmp_path / "out" / "otb"
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert {"scores.json", "scores.csv", "scores.tex", "report.html", "success.svg"} <= set(whole)
    capsys.readouterr()
    assert eval_run.main([*options, "--sequence", "Dog"]) == 0
    printed = capsys.readouterr().out
    assert "1 sequences kept" in printed
    assert f"have scores of their own: {folder / 'scores-part.json'}" in printed
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert {name: found[name] for name in whole} == whole
    more = {"scores-part.json", "scores-part.csv", "scores-part.tex", "report-part.html"}
    assert more | {"success-part.svg"} <= set(found) - set(whole)


def test_the_root_is_not_the_output(tmp_path, otb, capsys):
    options = ["--benchmark", "otb", "--root", str(otb), "--peer", "static", "--sequence", "Dog"]
    assert call(otb, *options) == 2
    assert "is also an input" in capsys.readouterr().err
    assert sorted(p.name for p in otb.iterdir()) == ["Cat", "Dog"]


def test_own_videos_are_scored_where_they_are_annotated(tmp_path, capsys):
    for i in range(1, 5):
        picture(tmp_path / "mine" / "car" / f"{i}.jpg", 10 + i)
    (tmp_path / "mine" / "car.txt").write_text("11,10,10,10\n12,10,10,10\nabsent\n14,10,10,10\n")
    options = ["--benchmark", "custom", "--root", str(tmp_path / "mine"), "--peer", "static"]
    assert call(tmp_path / "out", *options) == 0
    found = scores(tmp_path / "out", "custom")["static"]
    # Three annotated frames, each with an overlap of 10 - shift over 10 + shift.
    assert found["average_overlap"] == pytest.approx((1 + 9 / 11 + 7 / 13) / 3, abs=1e-6)


def test_got10k_is_scored_as_by_its_own_toolkit(tmp_path, capsys):
    """The first frame and hidden ones do not count, and eval.score says the same of the same files."""
    folder = tmp_path / "got" / "val" / "GOT-10k_Val_000001"
    for i in range(1, 5):
        picture(folder / f"{i:08d}.jpg", 10 + i)
    (folder / "groundtruth.txt").write_text("".join(f"{12 + 5 * i},11,10,10\n" for i in range(4)))
    (folder / "cover.label").write_text("8\n8\n0\n8\n")
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (64, 48)\n")
    root = str(tmp_path / "got")
    options = ["--benchmark", "got10k", "--split", "val", "--root", root, "--peer", "static"]
    assert call(tmp_path / "out", *options) == 0
    assert "AO 0.167" in capsys.readouterr().out  # 5 of 15 pixels, then none
    ours = scores(tmp_path / "out", "got10k-val")["static"]
    assert ours["ao"] == pytest.approx((1 / 3 + 0) / 2)
    results = str(tmp_path / "out" / "got10k-val" / "static")
    written = tmp_path / "scores.json"
    rows = [results, "--benchmark", "got10k", "--ground-truth", root, "--json", str(written)]
    assert eval_score.main(rows) == 0
    (theirs,) = json.loads(written.read_text())["scores"]
    assert {k: theirs["metrics"][k] for k in ("ao", "sr_0.50")} == {
        k: ours[k] for k in ("ao", "sr_0.50")
    }
    assert call(tmp_path / "out", *options, "--protocol", "pysot") == 0
    assert "AUC" in capsys.readouterr().out
