"""Slots give what one video after the other gives; results, report and errors of an evaluation."""

import json
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval import run as eval_run
from eval import runner
from eval.annotations import Annotation
from eval.benchmarks import Sequence, load
from eval.metrics import evaluate_ope
from eval.report import to_csv, to_latex, write_report
from jaxtrack.errors import JaxtrackError
from jaxtrack.tracker import Prediction, Tracker


class State(NamedTuple):
    box: jax.Array
    colour: jax.Array
    frame_size: jax.Array


def _init(config, variables, frame, box, frame_size):
    x, y = box[:2].astype(jnp.int32)
    return State(box, frame[y, x, 0].astype(jnp.float32), frame_size)


def _track(config, variables, state, frame):
    """Moves by the colour of the first frame's corner pixel and by the frame's mean: no two videos agree."""
    seen = jnp.mean(frame[:20, :20].astype(jnp.float32)) / 255
    step = jnp.stack([seen, state.colour / 255, 0.0 * seen, 0.0 * seen])
    box = state.box + step * variables
    return state._replace(box=box), Prediction(box, seen)


FAKE = Tracker(0, lambda config, key: jnp.float32(1), _init, _track)


def sequence(name, length, size, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, *size, 3), np.uint8)
    boxes = np.tile([5.0, 6.0, 9.0, 8.0], (length, 1)) + np.arange(length)[:, None] * [
        0.4,
        0.6,
        0,
        0,
    ]
    annotation = Annotation(boxes, None, ("even" if seed % 2 == 0 else "odd",), size=size[::-1])
    return Sequence(name, length, lambda: iter(frames), boxes, annotation, size)


LENGTHS = (3, 17, 9, 2, 12)
SEQUENCES = [sequence(f"s{i}", n, (24 + 4 * i, 30), i) for i, n in enumerate(LENGTHS)]


def tracks(slots, chunk):
    return dict(runner.run(FAKE, jnp.float32(1), SEQUENCES, slots=slots, chunk=chunk))


@pytest.mark.parametrize(("slots", "chunk"), [(1, 4), (2, 4), (3, 1), (16, 5)])
def test_slots_change_nothing(slots, chunk):
    alone = {}
    for one in SEQUENCES:
        alone.update(runner.run(FAKE, jnp.float32(1), [one], slots=1, chunk=8))
    together = tracks(slots, chunk)
    assert sorted(together) == sorted(alone)
    for name, track in together.items():
        np.testing.assert_allclose(track.boxes, alone[name].boxes, atol=1e-5)
        assert len(track.boxes) == len(track.scores)
        assert np.isnan(track.scores[0])
        assert np.isfinite(track.scores[1:]).all()


def test_progress_counts_every_frame():
    counts = []
    list(runner.run(FAKE, jnp.float32(1), SEQUENCES, slots=2, progress=counts.append))
    assert sum(counts) == sum(LENGTHS)


def test_a_bad_first_box_is_named():
    bad = SEQUENCES[0]
    boxes = bad.boxes.copy()
    boxes[0, 2] = 0
    broken = Sequence("broken", bad.length, bad.frames, boxes, bad.annotation, bad.size)
    with pytest.raises(JaxtrackError, match="broken: the first box"):
        list(runner.run(FAKE, jnp.float32(1), [broken]))


def test_too_few_frames_are_named():
    short = SEQUENCES[1]
    cut = Sequence("cut", 30, short.frames, short.boxes, short.annotation, short.size)
    with pytest.raises(JaxtrackError, match="cut: 17 frames, but 30 boxes"):
        list(runner.run(FAKE, jnp.float32(1), [cut]))


def outcomes():
    found = []
    for name, speed in (("fast", 1.0), ("slow", 0.2)):
        done = dict(runner.run(FAKE, jnp.float32(speed), SEQUENCES, slots=2))
        boxes = {key: track.boxes.astype(np.float64) for key, track in done.items()}
        truth = {s.name: s.annotation for s in SEQUENCES}
        report = evaluate_ope(boxes, truth, None, "synthetic", name)
        found.append(eval_run.Outcome(name, done, report, 12.5))
    return found


def test_report_holds_what_was_measured(tmp_path):
    done = outcomes()
    path = write_report(tmp_path / "report.html", done, SEQUENCES)
    text = path.read_text()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    data = json.loads(re.search(r"const data = (.*);\n", text).group(1))
    for entry, outcome in zip(data["trackers"], done):
        assert entry["overall"]["auc"] == pytest.approx(outcome.report.overall()["auc"], abs=1e-4)
        assert sorted(entry["overlaps"]) == sorted(s.name for s in SEQUENCES)
    assert all(len(strip) >= 2 for strip in data["strips"].values())
    assert data["attributes"] == ["even", "odd"]
    assert "fast,(all)" in to_csv(done)
    assert to_latex(done).count("\\\\") == 3


def test_interrupted_runs_go_on_where_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(eval_run.benchmarks, "load", lambda *a, **k: SEQUENCES)
    options = eval_run.Options(peer=("static",), output=tmp_path)
    first = eval_run.evaluate(options)[0]
    folder = tmp_path / "synthetic" / "static"
    (folder / "s2.txt").unlink()
    called = []
    run_peer = eval_run.peers.run
    monkeypatch.setattr(
        eval_run.peers, "run", lambda name, s: called.append(s.name) or run_peer(name, s)
    )
    second = eval_run.evaluate(options)[0]
    assert called == ["s2"]
    assert second.report.overall() == pytest.approx(first.report.overall())


def test_results_of_other_weights_are_refused(tmp_path):
    eval_run._check_mark(tmp_path / "x", "one", False)
    with pytest.raises(JaxtrackError, match="other weights or settings"):
        eval_run._check_mark(tmp_path / "x", "two", False)
    eval_run._check_mark(tmp_path / "x", "two", True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to run"),
        ({"tracker": ("siamfc-tinny",)}, "nearest: siamfc-tiny"),
        ({"peer": ("mill",)}, "no peer 'mill'"),
        ({"peer": ("static",), "benchmark": "otbb"}, "unknown benchmark 'otbb'"),
        ({"peer": ("static",), "benchmark": "otb"}, "needs --root"),
    ],
)
def test_usage_errors_are_one_line(options, words, tmp_path):
    with pytest.raises(JaxtrackError, match=words) as error:
        eval_run.evaluate(eval_run.Options(output=tmp_path, **options))
    assert "\n" not in str(error.value)


@pytest.mark.shared
def test_a_folder_in_otb_layout(shared_dir):
    (skiing,) = load("otb", shared_dir / "sequences", names=("Skiing",))
    assert skiing.length == 81
    assert skiing.origin == 1
    frame = next(skiing.frames())
    assert frame.shape[:2] == skiing.size
    np.testing.assert_allclose(skiing.boxes[:, :2] + 1, skiing.annotation.boxes[:, :2])
    with pytest.raises(JaxtrackError, match="no sequence Skying"):
        load("otb", shared_dir / "sequences", names=("Skying",))
