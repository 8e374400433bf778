"""Our trackers inside other toolkits: got10k's experiments, TraX and the VOT toolkit."""

import importlib.util
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from eval import vot_tracker
from eval.tracking.adapters import FrameTracker, GOT10kTracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.images import write_image
from jaxtrack.weights import save_weights
from tests.conftest import ROOT

NAME = "siamfc-tiny"
BOX = np.array([40.0, 30.0, 20.0, 24.0], np.float32)


@pytest.fixture(scope="module")
def tiny():
    """A tiny tracker with random weights, and frames of a square that moves."""
    tracker = jaxtrack.get_tracker(NAME)
    variables = tracker.init_variables(tracker.config, jax.random.key(0))
    rng = np.random.default_rng(0)
    background = rng.integers(0, 80, (96, 120, 3), np.uint8)
    frames = []
    for i in range(4):
        frame = background.copy()
        frame[30 + i : 54 + i, 40 + 2 * i : 60 + 2 * i] = 220
        frames.append(frame)
    return tracker, variables, frames


def test_frame_by_frame_equals_the_verbs(tiny):
    tracker, variables, frames = tiny
    adapter = FrameTracker(tracker, variables)
    adapter.warm_up(96, 120)
    adapter.init(frames[0], BOX)
    padded = [np.pad(f, ((0, 32), (0, 8), (0, 0))) for f in frames]
    state = jaxtrack.init(tracker, variables, padded[0], BOX, jnp.array([96, 120], jnp.int32))
    for frame, canvas in zip(frames[1:], padded[1:]):
        box, score = adapter.update(frame)
        state, found = jaxtrack.track_frame(tracker, variables, state, canvas)
        np.testing.assert_array_equal(box, found.box)
        assert score == found.score


def test_got10k_counts_pixels_from_one(tiny, tmp_path):
    tracker, variables, frames = tiny
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for path, frame in zip(paths, frames):
        write_image(path, frame)
    plain = FrameTracker(tracker, variables)
    plain.init(frames[0], BOX)
    expected = np.array([BOX, *(plain.update(f)[0] for f in frames[1:])], np.float64)
    expected[:, :2] += 1
    adapter = GOT10kTracker("ours", tracker, variables)
    boxes, times = adapter.track(paths, expected[0])
    np.testing.assert_array_equal(boxes, expected)
    assert times.shape == (4,)
    assert (times > 0).all()
    assert adapter.is_deterministic


def test_what_is_wrong_is_said(tiny):
    tracker, variables, frames = tiny
    adapter = FrameTracker(tracker, variables)
    with pytest.raises(JaxtrackError, match="call init before update"):
        adapter.update(frames[0])
    for box, message in (
        ([1, 2, 0, 4], "positive size"),
        ([1, np.nan, 3, 4], "positive size"),
        ([1, 2, 3], "positive size"),
        ([500, 2, 3, 4], "lies outside the 120x96 frame"),
        ([-30, 2, 3, 4], "lies outside"),
    ):
        with pytest.raises(JaxtrackError, match=message):
            adapter.init(frames[0], np.array(box, np.float32))
    with pytest.raises(JaxtrackError, match="uint8 RGB"):
        adapter.init(frames[0].astype(float), BOX)
    adapter.init(frames[0], BOX)
    with pytest.raises(JaxtrackError, match="start again with init"):
        adapter.update(frames[0][:-1])


@pytest.mark.slow
def test_inside_the_real_got10k(tiny, tmp_path, capsys):
    """got10k's own experiment runs our tracker and scores it as we do."""
    pytest.importorskip("got10k", reason="pip install got10k six")
    from got10k.experiments import ExperimentGOT10k

    from eval.files.results import read_results
    from eval.files.truth import read_ground_truth
    from eval.metrics.got10k import evaluate_got10k
    from eval.metrics.protocols import get_benchmark

    tracker, variables, frames = tiny
    root = tmp_path / "data" / "val"
    folder = root / "GOT-10k_Val_000001"
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames, 1):
        write_image(folder / f"{i:08d}.jpg", frame)
    boxes = np.array([BOX + np.array([2 * i + 1, i + 1, 0, 0]) for i in range(4)])
    np.savetxt(folder / "groundtruth.txt", boxes, fmt="%.4f", delimiter=",")
    for name, value in (("absence", 0), ("cover", 8), ("cut_by_image", 0)):
        (folder / f"{name}.label").write_text(f"{value}\n" * 4)
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (120, 96)\n")
    (root / "list.txt").write_text("GOT-10k_Val_000001\n")
    results = tmp_path / "results"
    experiment = ExperimentGOT10k(
        str(tmp_path / "data"), "val", result_dir=str(results), report_dir=str(tmp_path / "report")
    )
    experiment.run(GOT10kTracker("ours", tracker, variables))
    theirs = experiment.report(["ours"], plot_curves=False)["ours"]["overall"]
    (ours,) = read_results(results / "GOT-10k" / "ours")
    truth = read_ground_truth(root, get_benchmark("got10k"))
    report = evaluate_got10k(ours.repetitions, truth, ours.times).overall()
    assert report["ao"] == pytest.approx(theirs["ao"], abs=1e-12)
    assert report["sr_0.50"] == pytest.approx(theirs["sr"], abs=1e-12)


class Region:
    """A region as the TraX module hands it over."""

    def __init__(self, kind, numbers):
        self.type, self.numbers = kind, numbers

    def bounds(self):
        return self.numbers

    def __iter__(self):
        return iter(zip(self.numbers[::2], self.numbers[1::2]))


def test_boxes_of_regions():
    np.testing.assert_array_equal(
        vot_tracker.box_of(Region("rectangle", [1, 2, 3, 4])), [1, 2, 3, 4]
    )
    polygon = Region("polygon", [1, 2, 4, 3, 5, 9, 0, 8])
    np.testing.assert_array_equal(vot_tracker.box_of(polygon), [0, 2, 5, 7])


def test_colour_images_only(tmp_path, tiny):
    write_image(tmp_path / "a.png", tiny[2][0])
    image = types.SimpleNamespace(path=lambda: str(tmp_path / "a.png"))
    assert vot_tracker.frame_of({"color": image}).shape == (96, 120, 3)
    with pytest.raises(JaxtrackError, match="sent depth images"):
        vot_tracker.frame_of({"depth": image})


def test_command_line_without_a_tracker(monkeypatch, capsys):
    monkeypatch.delenv(vot_tracker.TRACKER, raising=False)
    assert vot_tracker.main([]) == 2
    assert "name a tracker" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["trax", "traxpython"])
def test_inside_the_real_vot_toolkit(protocol, tmp_path):
    """`vot test` makes a sequence and tracks it; pip install vot-toolkit 'attributee<0.1.10'."""
    if importlib.util.find_spec("vot") is None or importlib.util.find_spec("trax") is None:
        pytest.skip("the VOT toolkit is not installed")
    tracker = jaxtrack.get_tracker(NAME)
    variables = tracker.init_variables(tracker.config, jax.random.key(0))
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, variables)
    served = f"command = {sys.executable} -m eval.vot_tracker --tracker {NAME} --weights {weights}"
    entry = {"trax": served, "traxpython": f"command = eval.vot_tracker\npaths = {ROOT}"}[protocol]
    registry = f"[ours]\nlabel = ours\nprotocol = {protocol}\n{entry}\n"
    (tmp_path / "trackers.ini").write_text(registry)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        vot_tracker.TRACKER: NAME,
        vot_tracker.WEIGHTS: str(weights),
    }
    found = subprocess.run(
        [sys.executable, "-m", "vot", "test", "ours"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=300,
    )
    said = found.stdout + found.stderr
    assert found.returncode == 0, said
    assert "Test concluded successfuly" in said
    assert said.count("confidence=") == 49


def test_weights_named_twice_are_refused(capsys, monkeypatch):
    monkeypatch.setenv(vot_tracker.WEIGHTS, "c")  # what the call names comes first
    for words, status in ((["--weights", "b"], 2), ([], 1)):
        assert vot_tracker.main(["--tracker", "siamfc-tiny=a", *words]) == status
        said = capsys.readouterr().err
        assert ("two files of weights, a and b" in said) == bool(words)
