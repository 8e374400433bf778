"""The recipes for accelerators, and the command that trains them within a given time."""

import dataclasses
import functools
import json
import math
import pathlib
import threading
import types

import cv2
import jax
import numpy as np
import pytest

import jaxtrack
from jaxtrack import trackers
from jaxtrack.base import variable_shapes
from jaxtrack.cli import UsageError
from jaxtrack.errors import JaxtrackError
from jaxtrack.synthetic.realism import read_photos
from jaxtrack.weights import Card, load_into, read_card, read_published, save_weights
from train import presets, run, smalls
from train.tasks import siamrpn as siamrpn_presets

SMALL = [name for name in presets.all_presets() if "-small" in name]


def size(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_every_family_has_a_small_preset_and_a_recipe():
    for family in trackers.FAMILIES:
        names = [name for name in trackers.family(family).presets if name.endswith("-small")]
        assert names, family
    assert {stage.preset for stage in smalls.STAGES} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_recipes_train_what_the_trackers_load(name):
    preset = presets.get(name)
    tracker = jaxtrack.get_tracker(preset.tracker)
    assert 16 <= preset.batch_size <= 256
    assert preset.steps >= 30_000 or name.endswith("calibration")
    assert preset.task.config.world.real.jpeg > 0
    ours, theirs = presets.shapes(preset.task), variable_shapes(tracker)
    assert jax.tree.map(lambda x: x.shape, ours) == jax.tree.map(lambda x: x.shape, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for stage in smalls.STAGES for name in stage.makes])
def test_small_trackers_track(name):
    """Traced, not run: weights come from an accelerator."""
    tracker = jaxtrack.get_tracker(name)
    variables = variable_shapes(tracker)
    frame = jax.ShapeDtypeStruct((240, 320, 3), np.uint8)
    box, size = jax.ShapeDtypeStruct((4,), np.float32), jax.ShapeDtypeStruct((2,), np.int32)
    start = functools.partial(tracker.init, tracker.config)
    state = jax.eval_shape(start, variables, frame, box, size)
    step = functools.partial(tracker.track_frame, tracker.config)
    after, found = jax.eval_shape(step, variables, state, frame)
    assert found.box.shape == (4,)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)


def test_sizes_stay_within_what_is_promised():
    values = {
        name: size(variable_shapes(jaxtrack.get_tracker(name)))
        for stage in smalls.STAGES
        for name in stage.makes
    }
    assert 4 * values["siamfc-small"] < 6e6
    assert 2 * values["siamrpnpp-small"] < 12e6
    assert all(2 * value < 16e6 for value in values.values())


def test_a_pretrained_start_needs_its_file():
    names = [stage.preset for stage in smalls.chosen(smalls.Options())]
    assert "siamrpnpp-small-imagenet" not in names
    assert names[0] == "siamfc-small"
    some = smalls.chosen(smalls.Options(only=("mlt-small-meta",)))
    assert [stage.preset for stage in some] == [
        "siamfc-small",
        "mlt-small-matching",
        "mlt-small-calibration",
        "mlt-small-meta",
    ]
    with pytest.raises(UsageError, match="--imagenet FILE"):
        smalls.chosen(smalls.Options(only=("siamrpnpp-small-imagenet",)))
    with pytest.raises(UsageError, match="siamfc-small"):
        smalls.chosen(smalls.Options(only=("siamfc-huge",)))


def test_large_files_are_stored_in_half_precision(tmp_path):
    rng = np.random.RandomState(0)
    kernel = rng.normal(size=(2000, 2000)).astype(np.float32)
    variables = {
        "params": {"a": {"kernel": kernel, "bias": kernel[0]}},
        "batch_stats": {"a": {"var": np.full(2000, 1e6, np.float32)}},
    }
    card = Card("toy", "synthetic", 3, "abc", {"x": 1.0}, "python")
    save_weights(tmp_path / "weights.safetensors", variables, card)
    stage = smalls.Stage("toy", 1.0, makes=("toy",))
    smalls.store(tmp_path / "weights.safetensors", stage, tmp_path / "out")
    path = tmp_path / "out" / "toy.safetensors"
    assert path.stat().st_size < 9e6
    kept = {name: value.dtype for name, value in read_published(path).items()}
    assert kept == {
        "params/a/kernel": np.float16,
        "params/a/bias": np.float32,
        "batch_stats/a/var": np.float32,
    }
    back = load_into(variables, path)
    np.testing.assert_allclose(back["params"]["a"]["kernel"], kernel, rtol=1e-3, atol=1e-6)


def test_one_failure_stops_no_other_training(tmp_path, monkeypatch):
    """The second training fails; a training that starts from it is not begun; all else is."""
    begun = []

    def run(words, seconds=None, env=None):
        words = words[3:]
        if "--tracker" in words:
            rows = [word.partition(":")[0] for word in words if word.endswith(".safetensors")]
            place = tmp_path / "out" / "scores" / "synthetic"
            place.mkdir(parents=True, exist_ok=True)
            scores = {name: {"auc": 0.5, "precision_20px": 0.75} for name in rows}
            (place / "scores.json").write_text(json.dumps(scores))
            return types.SimpleNamespace(status=0, late=False)
        begun.append(words[0])
        if words[0] == "siamrpnpp-small":
            return types.SimpleNamespace(status=1, late=False)
        state = {"params": {"backbone": {"k": np.ones(3)}, "head": np.ones(2)}}
        card = Card(words[0], "synthetic", 2, "abc", {}, f"train {words[0]}")
        folder = tmp_path / "runs" / words[0]
        folder.mkdir(parents=True)
        save_weights(folder / "weights.safetensors", state, card)
        return types.SimpleNamespace(status=0, late=False)

    monkeypatch.setattr(smalls.child, "run", run)
    options = smalls.Options(tmp_path / "out", tmp_path / "runs", steps=2)
    with pytest.raises(JaxtrackError, match="siamrpnpp-small: the training ended with status 1"):
        smalls.smalls(options)
    stages = [stage.preset for stage in smalls.chosen(options)]
    assert begun == stages
    card = read_card(tmp_path / "out" / "siamfc-small.safetensors")
    assert card.expected == {"synthetic AUC": 0.5, "synthetic precision": 0.75}
    assert card.preset == "siamfc-small"
    kept = read_published(tmp_path / "out" / "tadt-small.safetensors")
    assert list(kept) == ["params/backbone/k"]

    begun.clear()
    with pytest.raises(JaxtrackError, match="status 1"):
        smalls.smalls(options)
    assert begun == ["siamrpnpp-small"]
    with pytest.raises(JaxtrackError, match="begun with another --steps"):
        smalls.smalls(dataclasses.replace(options, steps=3))


def scored(tmp_path, monkeypatch, **scores):
    """A trained siamfc-small, and an ``eval.run`` that leaves scores in folders of these names."""

    def run(words, seconds=None, env=None):
        benchmark = words[words.index("--benchmark") + 1]
        for place, auc in scores.items():
            if place.partition("-")[0] == benchmark:
                folder = tmp_path / "out" / "scores" / place
                folder.mkdir(parents=True, exist_ok=True)
                rows = {name: {"auc": auc} for name in ("siamfc-small", "tadt-small")}
                (folder / "scores.json").write_text(json.dumps(rows))
        return types.SimpleNamespace(status=0, late=False)

    folder = tmp_path / "runs" / "siamfc-small"
    folder.mkdir(parents=True)
    card = Card("siamfc-small", "synthetic", 2, "abc", {})
    state = {"params": {"backbone": {"k": np.ones(3)}}}
    save_weights(folder / "weights.safetensors", state, card)
    monkeypatch.setattr(smalls.child, "run", run)
    return smalls.Options(
        tmp_path / "out", tmp_path / "runs", only=("siamfc-small",), root=tmp_path
    )


@pytest.mark.parametrize(
    ("spelt", "folder", "name"),
    [("OTB-100", "otb100", "otb100"), ("LaSOT", "lasot-test", "lasot"), ("otb", "otb", "otb")],
)
def test_a_benchmark_of_any_spelling_is_noted(tmp_path, monkeypatch, spelt, folder, name):
    options = scored(tmp_path, monkeypatch, **{"synthetic": 0.25, folder: 0.5})
    smalls.smalls(dataclasses.replace(options, benchmark=spelt))
    card = read_card(tmp_path / "out" / "siamfc-small.safetensors")
    assert card.expected == {"synthetic AUC": 0.25, f"{name} AUC": 0.5}


def test_a_benchmark_that_is_none_or_gives_no_score_is_told(tmp_path, monkeypatch):
    """One before anything is trained; the other at the end, with all other scores noted."""
    options = scored(tmp_path, monkeypatch, synthetic=0.25)
    with pytest.raises(UsageError, match="unknown dataset 'otb1000'; nearest: otb100"):
        smalls.smalls(dataclasses.replace(options, benchmark="otb1000"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(JaxtrackError, match="scores on trackingnet: none were written in"):
        smalls.smalls(dataclasses.replace(options, benchmark="TrackingNet"))
    card = read_card(tmp_path / "out" / "siamfc-small.safetensors")
    assert card.expected == {"synthetic AUC": 0.25}


def test_later_trainings_are_compiled_while_the_first_one_runs(tmp_path, monkeypatch):
    """On an accelerator, each before it trains; without the weights of a stage that is not trained yet."""
    lock, begun, released = threading.Lock(), [], threading.Event()

    def run(words, seconds=None, env=None, capture=False, stop=None):
        assert env == {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "runs" / "compiled"),
        }
        name, ahead = words[3], stop is not None
        assert not (ahead and "--init-from" in words)
        with lock:
            begun.append((name, ahead))
        if ahead and name == "mlt-small-meta":
            released.set()
        if not ahead:
            assert released.wait(30), "the others are compiled meanwhile"
            card = Card(name, "synthetic", 2, "abc", {}, f"train {name}")
            folder = pathlib.Path(words[words.index("--output") + 1])
            folder.mkdir(parents=True)
            state = {"params": {"backbone": {"k": np.ones(3)}}}
            save_weights(folder / "weights.safetensors", state, card)
        return types.SimpleNamespace(status=0, late=False)

    monkeypatch.setattr(smalls.child, "run", run)
    monkeypatch.setattr(smalls, "accelerated", lambda: True)
    smalls.smalls(smalls.Options(tmp_path / "out", tmp_path / "runs", steps=2, no_scores=True))
    trained = [name for name, ahead in begun if not ahead]
    compiled = [name for name, ahead in begun if ahead]
    assert trained == [s.preset for s in smalls.STAGES if s.start != smalls.FILE]
    assert sorted(compiled) == sorted(trained[1:])
    for name in compiled:
        assert begun.index((name, True)) < begun.index((name, False))


def test_no_training_is_begun_without_time(tmp_path, monkeypatch):
    monkeypatch.setattr(smalls.child, "run", lambda *_, **__: 1 / 0)
    options = smalls.Options(tmp_path / "out", tmp_path / "runs", minutes=0.2)
    with pytest.raises(JaxtrackError, match="siamfc-small: not begun, no time is left"):
        smalls.smalls(options)


def test_a_mobilenet_of_torchvisions_sees_raw_images():
    """What torchvision computes of normalised RGB, the folded layer computes of BGR from 0 to 255."""
    from jaxtrack.trackers.siamrpn.names import take_raw_images

    rng = np.random.RandomState(0)
    kernel, mean = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    state = {"backbone.layer0.0.weight": kernel, "backbone.layer0.1.running_mean": mean}
    image = rng.uniform(0, 255, size=(3, 3, 3))  # channels first, RGB
    scaled = (image / 255 - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape(
        [0.229, 0.224, 0.225], (3, 1, 1)
    )
    want = np.einsum("oihw,ihw->o", kernel, scaled) - mean
    folded = take_raw_images(state)
    got = np.einsum("oihw,ihw->o", folded["backbone.layer0.0.weight"], image[::-1])
    np.testing.assert_allclose(got - folded["backbone.layer0.1.running_mean"], want, atol=1e-4)


def test_stages_beyond_those_that_are_used_have_no_place():
    assert siamrpn_presets._stage("backbone.layer6.0.conv.0.weight") == 6
    assert siamrpn_presets._stage("layer2.1.conv.3.weight") == 2
    assert siamrpn_presets._stage("rpn_head.rpn2.cls.head.0.weight") == 0


def test_textures_become_a_share_of_photographs(tmp_path):
    preset = presets.get("siamfc-tiny")
    with pytest.raises(JaxtrackError, match="no pictures"):
        run.with_textures(preset, tmp_path)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((40, 60, 3), 99, np.uint8))
    read_photos.cache_clear()
    real = run.world_of(run.with_textures(preset, tmp_path))
    assert real.textures == str(tmp_path)
    assert real.photo == 0.4
    given = presets.changed(
        preset, ["task.world.real.photo=0.1", f"task.world.real.textures={tmp_path}"]
    )
    assert run.world_of(run.with_textures(given, tmp_path)).photo == 0.1


def test_cards_say_what_weights_have_seen(tmp_path):
    preset = presets.get("siamfc-tiny")
    settings = {"data": "synthetic", "synthetic": 0.0, "init_from": ""}
    assert run.data_seen(settings, preset, "synthetic") == "synthetic"
    settings["init_from"] = "siamfc-tiny"
    assert "started from siamfc-tiny (synthetic" in run.data_seen(settings, preset, "synthetic")
    settings["init_from"] = str(tmp_path / "mobilenet.pth")
    told = run.data_seen(settings, presets.get("siamrpnpp-small-imagenet"), "synthetic")
    assert told == "synthetic; started from mobilenet.pth (torchvision's MobileNetV2 (ImageNet))"
    textured = presets.changed(
        preset, ["task.world.real.photo=0.1", "task.world.real.textures=some/photos"]
    )
    settings["init_from"] = ""
    assert "the pictures of photos as textures" in run.data_seen(settings, textured, "synthetic")
    settings["data"] = "/home/somebody/built"
    assert run.data_seen(settings, textured, "got10k (train, 7 videos)") == (
        "got10k (train, 7 videos)"
    )
    settings["synthetic"] = 0.25
    assert run.data_seen(settings, textured, "got10k (train, 7 videos)") == (
        "got10k (train, 7 videos) for 0.75 of the pairs, synthetic for 0.25, with the pictures of photos as"
        " textures"
    )


def test_a_share_of_photographs_can_be_set_beside_their_folder(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 40, 3), np.uint8))
    monkeypatch.setattr(run, "_train", lambda options, preset, *_: preset)
    changes = ("task.world.real.photo=0.2",)
    real = run.world_of(run.train("siamfc-tiny", textures=tmp_path, set=changes))
    assert (real.photo, real.textures) == (0.2, str(tmp_path))
