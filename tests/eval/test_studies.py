"""Trainings of studies, results that they keep, and mistakes in their calls."""

import dataclasses
import json
import pathlib
import types
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from eval import demo
from eval.metrics.annotation import Annotation
from eval.studies import (
    centre_bias,
    forced,
    lost,
    mlt,
    oracle,
    precision,
    results,
    rpn,
    tadt,
    training,
)
from eval.studies.training import Training
from eval.tracking.entry import parse_entry
from eval.tracking.sequences import Sequence
from jaxtrack.base import Prediction, Tracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import child
from jaxtrack.ops import precision as digits_of
from tests.data_fixtures import clip, table, write_frames, write_otb

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def started(monkeypatch):
    """Trainings that are started; each leaves its weights."""
    calls = []

    def run(words, cwd=None):
        calls.append(list(words[2:]))
        folder = pathlib.Path(words[words.index("--output") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("settings.json", "weights.safetensors"):
            (folder / name).write_text("{}")
        return child.Ended(0, "", "", False)

    monkeypatch.setattr(training.child, "run", run)
    return calls


def test_a_training_is_kept_with_what_it_was_asked_for(tmp_path, started):
    first = tmp_path / "first.safetensors"
    first.write_bytes(b"one")
    asked = Training("siamfc-tiny", tmp_path / "run", 5, 3, first)
    assert asked.weights() == tmp_path / "run" / "weights.safetensors"
    assert asked.weights().is_file()
    assert len(started) == 1
    assert started[0][:2] == ["train.run", "siamfc-tiny"]
    assert "--resume" not in started[0]
    (tmp_path / "run" / "weights.safetensors").unlink()
    asked.weights()
    assert started[1][-1] == "--resume"
    for other, word in (
        (Training("siamfc-tiny", tmp_path / "run", 6, 3, first), "steps"),
        (Training("siamfc-tiny", tmp_path / "run", 5, 4, first), "seed"),
        (Training("mlt-tiny-meta", tmp_path / "run", 5, 3, first), "preset"),
    ):
        with pytest.raises(JaxtrackError, match=f"a training with other {word}"):
            other.weights()
    first.write_bytes(b"two")
    with pytest.raises(JaxtrackError, match="a training with other init_from"):
        asked.weights()
    assert len(started) == 2


def test_a_folder_of_something_else_is_left_alone(tmp_path, started):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(JaxtrackError, match="did not begin"):
        Training("siamfc-tiny", tmp_path / "run").weights()
    assert not started


@pytest.mark.parametrize("study", [centre_bias, rpn])
def test_a_folder_in_use_is_told_before_any_training(study, tmp_path, started, capsys, monkeypatch):
    monkeypatch.setattr(rpn, "correlation_rows", lambda *words: pytest.fail("measured"))
    monkeypatch.setattr(study.pairs, "draw_pairs", lambda *words: pytest.fail("drawn"))
    last = {centre_bias: "siamrpnpp-padded-shift32-5steps", rpn: "siamrpnpp-tiny-5steps"}[study]
    (tmp_path / "runs" / last).mkdir(parents=True)
    (tmp_path / "runs" / last / "thesis.txt").write_text("mine")
    words = ["--train" if study is rpn else "--steps", "5", "--runs", str(tmp_path / "runs")]
    assert study.main([*words, "--output", str(tmp_path / "out")]) == 1
    assert f"{last}: a training that this study did not begin" in capsys.readouterr().err
    assert not started


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--benchmark", "otb", "--root", "nope"], 1, "nope"),
        (["--benchmark", "otbb", "--root", "d"], 2, "unknown benchmark"),
        (["--benchmark", "otb"], 2, "needs --root"),
        (["--benchmark", "otb", "--root", "d", "--sequence", "Byo"], 1, "Byo"),
        (["--benchmark", "custom", "--root", "one"], 1, "nothing to score in car"),
        (["--benchmark", "otb", "--root", "odd"], 1, "Boy: the first box [0, 0, 0, 0] has no"),
    ],
)
def test_a_benchmark_is_opened_before_any_training(
    words, status, message, tmp_path, started, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_otb(tmp_path / "d", ("Boy",))
    write_otb(tmp_path / "odd", ("Boy", "Deer"))
    (tmp_path / "odd" / "Boy" / "groundtruth_rect.txt").write_text("1,1,0,0\n" * 5)
    frames, boxes = clip(1, 1)
    write_frames(tmp_path / "one" / "car", frames, "{}.jpg")
    (tmp_path / "one" / "car.txt").write_text(table(boxes))
    assert mlt.main(words) == status
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not started


def test_results_are_found_by_all_they_depend_on(tmp_path, capsys):
    kept = results.Kept(tmp_path / "runs")
    inputs = {"tracker": "a", "frames": {"s": 3}}
    assert kept.get(inputs) is None
    kept.put(inputs, [0.5, 0.25])
    assert kept.get(inputs) == [0.5, 0.25]
    assert kept.get({**inputs, "tracker": "b"}) is None
    (path,) = (tmp_path / "runs").glob("*.json")
    for damage in ("", "[1]", "{", json.dumps({"result": [1]})):
        path.write_text(damage)
        assert kept.get(inputs) is None
    assert "measured again" in capsys.readouterr().err


def test_a_demo_leaves_other_files_alone(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(demo, "python", lambda *words: ran.append(words))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(JaxtrackError, match="not an earlier demo"):
        demo.demo(tmp_path, 1, 1)
    (tmp_path / ".jaxtrack-demo").touch()
    demo.demo(tmp_path, 1, 1)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert [words[1] for words in ran] == ["train.run", "jaxtrack", "eval.run"]


@pytest.mark.parametrize(
    ("tracked", "missed", "area"),
    [
        ([0.9, 0.8], [0.7, 0.1], 1.0),
        ([0.2, 0.1], [0.3, 0.9], 0.0),
        ([0.5, 0.5], [0.5], 0.5),
        ([0.9, 0.4], [0.4, 0.6], 0.625),  # pairs won: 2 of the first, a tie of the second
        ([np.nan, 0.4], [0.1], 0.5),  # no number ranks below all
    ],
)
def test_the_area_is_the_share_of_pairs_in_order(tracked, missed, area):
    values = np.array([*tracked, *missed])
    overlap = np.array([0.8] * len(tracked) + [0.05] * len(missed))
    row = lost.row_of("made", [lost.Scored(overlap, values)], 0.5, 0.1)
    assert row.auroc == pytest.approx(area)
    assert (row.tracked, row.lost, row.neither) == (len(tracked), len(missed), 0)


def test_frames_of_all_sequences_are_pooled():
    rng = np.random.default_rng(0)
    parts = [lost.Scored(rng.uniform(size=n), rng.uniform(size=n)) for n in (30, 50, 20)]
    one = lost.Scored(*(np.concatenate(column) for column in zip(*parts)))
    apart, pooled = (lost.row_of("made", p, 0.6, 0.2) for p in (parts, [one]))
    assert apart.auroc == pytest.approx(pooled.auroc)
    assert apart.interval[0] < apart.auroc < apart.interval[1]
    assert apart.neither == ((one.overlap >= 0.2) & (one.overlap < 0.6)).sum()
    found = lost.row_of("never lost", [lost.Scored(np.ones(4), np.ones(4))], 0.6, 0.2)
    assert np.isnan(found.auroc)
    assert "nan" in lost.table([found])


def test_a_peak_is_judged_by_where_the_target_is():
    config = oracle.mlt.PRESETS["mlt-tiny"]
    response = np.full((17, 17), -4.0, np.float32)
    response[8:11, 9:12] = 4
    response[9, 10] = 5
    responses, places = np.stack([response] * 3), np.array([[1, 2], [2.4, 2], [-3, 2]])
    loss, found = oracle.judged(config, responses, places).T
    assert found.tolist() == [1, 0, 0]
    assert loss[0] < loss[1] < loss[2]


def test_answers_are_compared_by_sequence():
    better = oracle.Answered(np.array([[0.2, 1.0], [0.4, 0.0]]), 0.7)
    none = oracle.Answered(np.array([[0.5, 0.0], [0.5, 0.0]]), 0.6)
    nowhere = oracle.Answered(np.zeros((0, 2)), 0.5)  # the target was in none of the search crops
    row = oracle.row_of("g", [{"none": none, "g": better}, {"none": nowhere, "g": nowhere}])
    assert (row.loss, row.found) == pytest.approx((0.3, 0.5))
    assert (row.auc, row.gain) == pytest.approx((0.6, 0.05))
    assert row.found_gain == (0.5, 0.5)
    assert row.gain_interval == pytest.approx((0.0, 0.1))


def test_a_sequence_that_was_answered_is_not_asked_again(tmp_path, monkeypatch):
    truth = np.tile([2.0, 2, 4, 4], (3, 1))
    made = [
        Sequence(
            n, 3, lambda: iter([np.zeros((9, 9, 3), np.uint8)]), truth, Annotation(truth), (9, 9)
        )
        for n in ("one", "two")
    ]
    asked = []

    def answers(trackers, variables, sequence, options):
        asked.append(sequence.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {name: oracle.Answered(np.array([[0.5, 1.0]]), 0.5) for name in trackers} | {
            "hindsight": oracle.Answered(np.array([[0.25, 1.0]]), 0.75)
        }

    monkeypatch.setattr(oracle, "answers", answers)
    monkeypatch.setattr(oracle.benchmarks, "load", lambda *words, **names: made)
    options = oracle.Options(output=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        oracle.measure(options)
    rows = {row.name: row for row in oracle.measure(options)}
    assert asked == ["one", "two", "two"]
    assert rows["hindsight"].gain == pytest.approx(0.25)
    assert set(rows) == {*oracle.ANSWERS, "g from 3 patches on"}
    oracle.measure(dataclasses.replace(options, steps=7))
    assert asked[3:] == ["one", "two"]


def test_rows_of_mlt_are_asked_for_by_name():
    whole = list(mlt.rows_of(mlt.Options()))
    assert whole[0] == "mt"
    assert len(whole) == 8
    some = mlt.rows_of(mlt.Options(row=("mlt (full)",), fewest=(3,)))
    assert list(some) == ["mt", "mlt (full)", "mlt (full) from 3 patches on"]
    assert [t.config.fewest_patches for t in some.values()] == [1, 1, 3]
    assert not mlt.verdict([{"name": name} for name in some])
    with pytest.raises(JaxtrackError, match=r"--row full: one of mt, "):
        mlt.rows_of(mlt.Options(row=("full",)))


def test_mlt_is_scored_on_any_benchmark_and_tracked_once(tmp_path, monkeypatch):
    truth = np.tile([3.0, 3, 4, 4], (4, 1))
    note = Annotation(truth, size=(20, 20))
    frame = np.zeros((20, 20, 3), np.uint8)
    made = Sequence(
        "made", 4, lambda: iter([frame]), truth - [1, 1, 0, 0], note, (20, 20), origin=1
    )
    calls = []

    def run(tracker, variables, sequences, **options):
        calls.append([s.name for s in sequences])
        for s in sequences:
            yield s.name, mlt.slots.Track(s.boxes.astype(np.float32), np.ones(4, np.float32), 1.0)

    monkeypatch.setattr(mlt.slots, "run", run)
    entry = parse_entry("mlt-tiny")
    options = mlt.Options(benchmark="otb", output=tmp_path)
    for _ in range(2):
        report = mlt.score(entry, {}, [made], options)
        # The boxes are right where the benchmark counts from 1.
        assert report.overall()["average_overlap"] == pytest.approx(1.0)
    assert calls == [["made"], []]


def test_only_frames_with_a_truth_count():
    truth = np.array([[0, 0, 4, 4.0], [0, 0, 4, 4], [np.nan] * 4, [0, 0, 4, 4], [2, 0, 4, 4]])
    absent = np.array([False, False, False, True, False])
    note = Annotation(truth, absent)
    sequence = Sequence("made", 5, lambda: iter(()), truth, note, (10, 10))
    found = lost.scored(sequence, np.tile([0, 0, 4.0, 4], (4, 1)), np.arange(4.0))
    np.testing.assert_array_equal(found.score, [0, 3])
    np.testing.assert_allclose(found.overlap, [1, 1 / 3])


@pytest.mark.parametrize(
    ("study", "words", "message"),
    [
        (centre_bias, ["--pairs", "0"], "--pairs"),
        (centre_bias, ["--steps", "0"], "--steps"),
        (centre_bias, ["--shifts", "5"], "--shifts"),
        (centre_bias, ["--shifts"], "--shifts"),
        (centre_bias, ["--reach", "1000"], "--reach"),
        (centre_bias, ["--output", ""], "empty path"),
        (rpn, ["--rounds", "0"], "--rounds"),
        (rpn, ["--pairs", "-1"], "--pairs"),
        (rpn, ["--width", "99999999999999999999"], "--width"),
        (mlt, ["--seeds", "0"], "--seeds"),
        (mlt, ["--speed-rounds", "-1"], "--speed-rounds"),
        (mlt, ["--tracker", "siamfc-tiny"], "not a preset of MLT"),
        (mlt, ["--tracker", "mlt-tinny"], "nearest"),
        (mlt, ["--meta", "mlt-tiny-mta"], "unknown training preset 'mlt-tiny-mta'; nearest"),
        (tadt, ["--seeds", "0"], "--seeds"),
        (tadt, ["--frames", "-2"], "--frames"),
        (tadt, ["--variants", "non"], "unknown variant"),
        (tadt, ["--tracker", "siamfc-tiny"], "not a preset of TADT"),
        (lost, ["--tracked", "0.05"], "a frame would be both"),
        (lost, ["--tracker"], "at least one argument"),
        (lost, ["--tracker", "siamfc-tny"], "nearest"),
        (lost, ["--benchmark", "otb"], "--root"),
        (oracle, ["--tracker", "mlt-tiny-mt"], "not a full preset of MLT"),
        (oracle, ["--every", "1"], "--every"),
        (lost, ["--root", "."], "has no folder"),
        (lost, ["--frames", "-1"], "--frames"),
        (demo, ["--steps", "0"], "--steps"),
        (demo, ["--clips", "1000"], "--clips 1000: the benchmark has 40 clips"),
        (tadt, ["--tracker", "tadt-tiny=a", "--weights", "b"], "two files of weights, a and b"),
    ],
)
def test_mistakes_in_a_call_are_one_line(study, words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # one of them asks a child
    assert study.main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_differences_of_precision_are_to_the_first():
    rows = [precision.Row("a", "highest", 0.5, 0.7), precision.Row("a", "high", 0.499, 0.7)]
    assert "| a | high | 0.4990 | -0.0010 | 0.7000 |" in precision.table(rows)


@pytest.mark.slow  # forgets what was compiled
def test_products_are_rounded_as_on_a_gpu():
    fine, one = jnp.full((1, 1), 1 + 2**-12), jnp.ones((1, 1))
    with precision.as_on_accelerators():
        for digits, want in (("highest", 1 + 2**-12), ("high", 1.0)):
            with digits_of.using(digits):
                found = jnp.dot(fine, one, precision=digits_of.of(fine.dtype))
            assert float(found[0, 0]) == want


def test_a_forced_window_lies_on_the_true_box():
    class State(NamedTuple):
        centre: int
        size: int
        template: int

    assert forced.placed(State(1, 2, 3), State(4, 5, 6)) == State(4, 5, 3)
    with pytest.raises(JaxtrackError, match="no place"):
        forced.placed((1, 2), (3, 4))


def test_forced_frames_count_where_there_are_boxes():
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 10, 10], [np.nan] * 4], float)
    predicted = np.array([[np.nan] * 4, [0, 0, 10, 10], [20, 20, 10, 10], [0, 0, 10, 10]], float)
    assert forced.judged(predicted, truth) == {"found": 0.5, "overlap": 0.5, "frames": 2}
    row = forced.row_of("a", {"one": {"found": 0.5, "overlap": 0.5, "frames": 2}})
    assert (row.found, row.frames, row.sequences) == (0.5, 2, {"one": 0.5})
    with pytest.raises(JaxtrackError, match="nothing to measure"):
        forced.row_of("a", {"one": {"found": np.nan, "overlap": np.nan, "frames": 0}})


class Placed(NamedTuple):
    centre: Array
    size: Array
    template: Array


def test_forced_trackers_look_from_the_true_box_and_keep_what_they_learned():
    def init(config, variables, frame, box, frame_size):
        return Placed(box[:2], box[2:], jnp.mean(frame, dtype=jnp.float32))

    def track_frame(config, variables, state, frame):
        box = jnp.concatenate([state.centre, state.size.at[1].set(state.template)])
        return state, Prediction(box, state.template)

    boxes = np.array([[1, 1, 8, 8], [2, 2, 8, 8], [np.nan] * 4, [5, 5, 8, 8], [6, 6, 8, 8]], float)
    frames = [np.full((16, 16, 3), 10 * number, np.uint8) for number in range(1, 6)]
    clip = Sequence("made", 5, lambda: iter(frames), boxes, Annotation(boxes), (16, 16))
    entry = types.SimpleNamespace(tracker=Tracker(None, lambda *_: {}, init, track_frame))
    nothing = [np.nan] * 4
    want = [nothing, [1, 1, 8, 10], [2, 2, 8, 10], nothing, [5, 5, 8, 10]]
    np.testing.assert_array_equal(forced.answers(entry, {}, clip), want)
