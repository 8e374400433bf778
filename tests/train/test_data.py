"""Training on built datasets: two steps of SiamFC, an exact resume of the data's position, errors by name."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from jaxtrack.data import pipeline, sampling, source
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import images
from jaxtrack.models.alexnet import AlexNetConfig
from jaxtrack.ops.patch import PatchSpec
from jaxtrack.synthetic.world import Clip, PatchConfig
from jaxtrack.trackers.siamfc import losses
from tests import data_fixtures, toy_training
from train import data, held, look, presets, run, validation
from train.augment import AugmentConfig
from train.presets import Preset
from train.step import Aux, Task, View, init_state
from train.tasks import siamfc

KEY = jax.random.split(jax.random.key(0), 1)
PATCHES = PatchConfig(PatchSpec(24, 20, 1.0), PatchSpec(48, 40, 2.0))


@dataclasses.dataclass(frozen=True)
class Config(toy_training.Config):
    """The toy's settings, and how its patches are cut."""

    patch: PatchConfig = PATCHES


def toy_pairs(**changes: Any) -> Preset:
    """The toy task, fed with a few pixels of each patch."""

    def loss(config: Any, params: Any, stats: Any, batch: Any, keys: jax.Array) -> Any:
        seen = batch["search"][:, 20, 20:25, 0] / 255.0
        rows = {"x": seen, "y": batch["template"][:, 10, 10] / 255.0}
        rows |= {name: batch[name] for name in ("step", "epoch")}
        value, aux = toy_training.loss(config, params, stats, rows, keys)
        return value, Aux(aux.batch_stats, {**aux.metrics, "first": jnp.sum(seen)})

    task = Task(Config(), toy_training.init_variables, toy_training.sample, loss)
    fields: dict[str, Any] = {"task": task, "data_recipe": "siamfc_got10k", **changes}
    return toy_training.preset(toy_training.Config(), **fields)


def call(monkeypatch: pytest.MonkeyPatch, preset: Preset, *arguments: object) -> int:
    monkeypatch.setattr(presets, "all_presets", lambda: {"here": preset})
    return run.main(["here", *[str(a) for a in arguments]])


def test_resume_goes_on_with_the_next_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    preset = toy_pairs(steps=6, save_every=2, log_every=1)
    options = ("--data", data_fixtures.built(), "--batch-size", 4)
    assert call(monkeypatch, preset, *options, "--output", tmp_path / "whole") == 0
    real = data.Built.next
    seen: list[Any] = []

    def stopping(self: data.Built) -> Any:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(real(self))
        return seen[-1]

    monkeypatch.setattr(data.Built, "next", stopping)
    assert call(monkeypatch, preset, *options, "--output", tmp_path / "cut") == 130
    monkeypatch.setattr(data.Built, "next", real)
    assert "GOT-10k_Train" in seen[0][1]
    assert call(monkeypatch, preset, "--resume", "--output", tmp_path / "cut") == 0
    whole, cut = (
        safetensors.numpy.load_file(tmp_path / n / "weights.safetensors") for n in ("whole", "cut")
    )
    for name, array in whole.items():
        np.testing.assert_array_equal(array, cut[name], err_msg=name)


def small_siamfc() -> Preset:
    """The published recipe of SiamFC with a network of four channels and small crops."""
    published = presets.get("siamfc-got10k")
    config = published.task.config
    assert isinstance(config, siamfc.Config)
    network = AlexNetConfig(channels=(4, 4, 4, 4, 4), groups=(1,) * 5)
    tracker = dataclasses.replace(
        config.tracker, network=network, exemplar_size=87, instance_size=103
    )
    small = dataclasses.replace(
        config,
        tracker=tracker,
        template=AugmentConfig(size=87, shift=2, whole_pixels=True),
        search=AugmentConfig(size=103, shift=2, whole_pixels=True),
        patch=PatchConfig(
            template=PatchSpec(size=95, nominal=87, factor=1.0),
            search=PatchSpec(size=111, nominal=103, factor=103 / 87),
        ),
    )
    return dataclasses.replace(published, task=siamfc.task(small), log_every=1)


def test_siamfc_trains_on_a_built_dataset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    preset = small_siamfc()
    options = ("--data", data_fixtures.built(), "--steps", 2, "--batch-size", 2, "--devices", 1)
    assert call(monkeypatch, preset, *options, "--output", tmp_path / "run") == 0
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]


def test_a_share_of_the_pairs_is_synthetic(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said by the card, kept by a run that goes on, refused where everything is synthetic."""

    def sample(config: Any, keys: jax.Array) -> Any:
        boxes = {f"{part}_box": jnp.zeros((len(keys), 4)) for part in ("template", "search")}
        sides = {"template": 24, "search": 48}
        dark = {k: jnp.zeros((len(keys), n, n, 3), jnp.uint8) for k, n in sides.items()}
        return {**boxes, **dark, "negative": jnp.zeros(len(keys), bool)}

    preset, output = toy_pairs(log_every=1), tmp_path / "mixed"
    preset = dataclasses.replace(preset, task=dataclasses.replace(preset.task, sample=sample))
    built = ("--data", data_fixtures.built())
    mixed = (*built, "--steps", 2, "--batch-size", 8, "--save-every", 1, "--devices", 1)
    assert call(monkeypatch, preset, *mixed, "--synthetic", 0.5, "--output", output) == 0
    card = json.loads((output / "weights.json").read_text())
    assert card["data"] == "got10k (train, 7 videos) for 0.5 of the pairs, synthetic for 0.5"
    assert "--synthetic 0.5" in card["command"]
    assert call(monkeypatch, preset, *mixed, "--output", tmp_path / "built") == 0
    some, every = (
        [json.loads(x)["first"] for x in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (output, tmp_path / "built")
    )
    assert all(0 < one < other for one, other in zip(some, every, strict=True))
    shutil.rmtree(output / "checkpoints" / "2")
    before = (output / "weights.safetensors").read_bytes()
    where = ("--resume", "--output", output)
    assert call(monkeypatch, preset, *where, "--synthetic", 0.25) == 1
    assert "was started with --synthetic 0.5, not 0.25" in capsys.readouterr().err
    assert call(monkeypatch, preset, *where, "--devices", 1) == 0
    assert (output / "weights.safetensors").read_bytes() == before
    assert call(monkeypatch, preset, "--synthetic", 0.5, "--output", tmp_path / "x") == 2
    assert "--synthetic: a share beside --data DIR" in capsys.readouterr().err


def test_missing_datasets_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    where = ("--data", empty, "--output", tmp_path / "x")
    assert call(monkeypatch, toy_pairs(), *where, "--recipe") == 1
    assert "the recipe needs got10k (train)" in capsys.readouterr().err
    assert call(monkeypatch, toy_pairs(), *where) == 1
    assert "no built dataset" in capsys.readouterr().err
    none = toy_pairs(data_recipe="")
    assert call(monkeypatch, none, *where) == 1
    assert "trains on the synthetic world only" in capsys.readouterr().err
    assert call(monkeypatch, toy_pairs(data_recipe="all"), *where, "--recipe") == 2
    assert "this preset has no published datasets to insist on" in capsys.readouterr().err
    assert call(monkeypatch, toy_pairs(), *where, "--set", "data_recipe=siamfc_got10") == 2
    assert "unknown data recipe 'siamfc_got10'; nearest: siamfc_got10k" in capsys.readouterr().err
    task = dataclasses.replace(toy_pairs().task, config=toy_training.Config())
    assert call(monkeypatch, toy_pairs(task=task), *where) == 1
    assert "Config of this preset's task does not say how built data are cut" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "x").exists()


def test_what_a_folder_holds_serves_every_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = toy_pairs(steps=2, save_every=2, log_every=1, data_recipe="siamrpn")
    where = ("--data", data_fixtures.built(), "--batch-size", 4, "--output", tmp_path / "x")
    assert call(monkeypatch, preset, *where, "--recipe") == 1
    assert "the recipe needs vid (train)" in capsys.readouterr().err
    assert call(monkeypatch, preset, *where) == 0
    said = capsys.readouterr().err
    assert "recipe siamrpn is published for vid, youtubebb, coco, det; trained on what" in said
    assert "(--recipe insists on the published datasets)" in said
    settings = json.loads((tmp_path / "x" / "settings.json").read_text())
    assert (settings["data"], settings["published_data"]) == (str(data_fixtures.built()), False)


def test_every_preset_takes_built_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Each opens them, and gets the patches that its task cuts of the synthetic world."""
    opened: set[Any] = set()
    for name in presets.all_presets():
        preset = presets.get(name)
        cuts = data.patches_of(preset.task)
        if (preset.data_recipe, cuts) in opened:
            continue
        opened.add((preset.data_recipe, cuts))
        batches = data.open_batches(str(data_fixtures.built()), preset, data.Share(2))
        batch, _ = batches.next()
        batches.close()
        drawn = jax.eval_shape(functools.partial(preset.task.sample, preset.task.config), KEY)
        for part in drawn.keys() - {"negative"}:
            assert batch[part].shape[1:] == drawn[part].shape[1:], (name, part)
        # What only the synthetic world does is said.
        shift = preset.task.config.patch.max_shift  # type: ignore[attr-defined]
        said = f"task.patch.max_shift={shift:g} is of the synthetic world alone"
        assert (said in capsys.readouterr().err) == (shift > 0), name


def test_training_splits_are_preferred(tmp_path: pathlib.Path) -> None:
    """A validation split beside a training split is not trained on."""
    patch = PatchSpec(24, 24, 1.0)
    _, mixture, note = data.choose_datasets("all", data_fixtures.built(), patch, patch, False)
    splits = {source.FrameSource(d.path).split for d in mixture}
    assert splits
    assert all(split.startswith("train") for split in splits)
    assert note == ""


def chosen(root: pathlib.Path) -> list[tuple[str, int]]:
    """Folder and crop of what is trained on, sorted."""
    patch = PatchSpec(24, 24, 1.0)
    _, mixture, _ = data.choose_datasets("all", root, patch, patch, False)
    sources = [source.FrameSource(dataset.path) for dataset in mixture]
    return sorted((str(pathlib.Path(s.path).relative_to(root)), s.crop) for s in sources)


def test_builds_of_one_name_are_all_trained_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody's own videos are "custom"; two forms of one build are one, and the crops are read."""
    videos, output = tmp_path / "videos", tmp_path / "built"
    videos.mkdir()
    data_fixtures.write_custom(videos, with_clip=False)
    for place, crop in (("a", 0), ("b", 0), ("b", 128)):
        data_fixtures.build("custom", videos, output / place, crop=crop)
    names = [path for path, _ in chosen(output)]
    assert [name.split("/")[:2] for name in names] == [["a", "custom"], ["b", "custom"]]
    assert [crop for _, crop in chosen(output)] == [0, 128]
    assert [crop for _, crop in chosen(output / "b")] == [128]
    monkeypatch.chdir(output / "a" / "custom" / "train_frames" / "1.0.0")
    assert chosen(pathlib.Path()) == [(".", 0)]


@pytest.mark.parametrize("count", [1, 2])
def test_processes_share_the_pairs_of_one_batch(count: int) -> None:
    """Each process's pairs, put at their places, are the batch of one process."""
    whole, _ = data.open_batches(str(data_fixtures.built()), toy_pairs(), data.Share(4)).next()
    for number in range(count):
        share = data.Share(4 // count, number, count)
        part, _ = data.open_batches(str(data_fixtures.built()), toy_pairs(), share).next()
        for name in ("template", "search_box"):
            np.testing.assert_array_equal(part[name], whole[name][part["index"]])


def test_validation_keeps_the_best(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Loss and overlap of held-out clips in the log; the best checkpoint is kept, and its weights."""

    def clip(world: Any, key: jax.Array) -> Clip:
        boxes = jnp.asarray([[4.0, 4, 8, 8], [4, 4, 8, 8], [40, 4, 8, 8], [8, 4, 8, 8]])
        absent = jnp.asarray([False, False, True, False])
        return Clip(jnp.zeros((4, 30, 60, 3), jnp.uint8), boxes, absent, jnp.zeros(2, bool))

    monkeypatch.setattr(held, "make_clip", clip)
    monkeypatch.setattr(validation, "tracker_of", lambda preset: toy_training.STILL)
    preset = toy_training.preset(toy_training.Config(), steps=6, save_every=100, log_every=100)
    measured = validation.Validation(dataclasses.replace(preset, name="here"))
    variables = toy_training.init_variables(toy_training.Config(), jax.random.key(0))
    state = init_state(variables, optax.sgd(0.1))
    found = measured(state)
    # The frame without the target does not count: overlaps of 1 and 1 / 3.
    assert found["validation_ao"] == pytest.approx((1 + 1 / 3) / 2)
    assert 0 < found["validation_loss"] < 100
    assert measured(state) == found

    rising = iter([0.2, 0.6, 0.4])
    monkeypatch.setattr(validation.Validation, "_overlaps", lambda *_: [next(rising)])
    output = tmp_path / "run"
    assert call(monkeypatch, preset, "--validate-every", 2, "--output", output) == 0
    lines = [json.loads(x) for x in (output / "metrics.jsonl").read_text().splitlines()]
    assert [(x["step"], x["validation_ao"]) for x in lines] == [(2, 0.2), (4, 0.6), (6, 0.4)]
    best, last = (json.loads((output / f"weights{n}.json").read_text()) for n in ("-best", ""))
    assert (best["steps"], best["expected"]) == (4, {"validation AO": 0.6})
    assert (last["steps"], last["expected"]) == (6, {"validation AO": 0.4})
    one, other = (
        safetensors.numpy.load_file(output / f"weights{n}.safetensors") for n in ("-best", "")
    )
    assert np.abs(one["params/body/kernel"] - other["params/body/kernel"]).max() > 0


def videos_of(datasets: Any) -> dict[str, list[str]]:
    """Names of the videos of a mixture, by split."""
    found: dict[str, list[str]] = {}
    for dataset in datasets:
        opened = source.FrameSource(dataset.path)
        numbers = range(opened.num_videos) if dataset.videos is None else dataset.videos
        found.setdefault(opened.split, []).extend(opened.names["videos"][v] for v in numbers)
    return found


def test_videos_are_held_out_of_built_datasets(tmp_path: pathlib.Path) -> None:
    """A validation split where there is one; else some training videos, the same in every run."""
    pairs = sampling.PairConfig(PATCHES.template, PATCHES.search, negative=0.2)
    (train,) = [p for p in source.built_below(data_fixtures.built()) if "got10k/train_f" in str(p)]
    mixture = [pipeline.Dataset(train)]
    every = videos_of(mixture)["train"]
    alone = held.hold_out(mixture, train, pairs)
    left, apart = videos_of(alone.mixture)["train"], videos_of(alone.held._datasets)["train"]
    assert sorted(left + apart) == sorted(every)
    assert len(apart) == 1
    assert alone.note == f"held out for validation: 1 of 7 videos of got10k (train): {apart[0]}"
    assert alone.pairs == pairs
    assert alone.held._config.negative == 0  # of one target there are none
    assert videos_of(held.hold_out(mixture, train, pairs).held._datasets)["train"] == apart
    apart_too = tmp_path / "got10k" / "val_frames" / "1.0.0"
    shutil.copytree(train, apart_too)
    beside = held.hold_out(mixture, tmp_path, pairs)
    assert beside.mixture == mixture
    assert [dataset.path for dataset in beside.held._datasets] == [apart_too]
    assert set(videos_of(beside.held._datasets)["train"]) == set(every)

    # No pair of the training shows what is held out; those of the validation show nothing else.
    for datasets, config, names in (
        (alone.mixture, alone.pairs, left),
        (alone.held._datasets, alone.held._config, apart),
    ):
        iterator = pipeline.make_iterator(config, datasets, 16)
        next(iterator)
        said = " ".join(iterator.describe())
        assert {name for name in every if f"video {name}," in said} == set(names)
    (clip,) = alone.held.clips()
    count = len(clip.boxes)
    assert clip.seen.tolist() == [True] * (count - 1) + [False]  # absent in the last frame
    assert [frame.shape for frame in clip.frames()] == [(*clip.size, 3)] * count


def test_one_video_cannot_be_held_out() -> None:
    pairs = sampling.PairConfig(PATCHES.template, PATCHES.search)
    for path in source.built_below(data_fixtures.built()):
        opened = source.FrameSource(path)
        if opened.crop or opened.num_videos == opened.num_records:
            with pytest.raises(JaxtrackError, match="no video can be held out"):
                held.hold_out([pipeline.Dataset(path)], path, pairs)


def test_validation_on_built_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validation, "tracker_of", lambda preset: toy_training.STILL)
    (train,) = [p for p in source.built_below(data_fixtures.built()) if "got10k/train_f" in str(p)]
    preset = toy_pairs(steps=4, save_every=2, log_every=1)
    output = tmp_path / "run"
    options = ["--data", train, "--batch-size", 4, "--validate-every", 2, "--output", output]
    assert call(monkeypatch, preset, *options) == 0
    assert "held out for validation: 1 of 7 videos of got10k (train): GOT-10k" in (
        capsys.readouterr().err
    )
    lines = [json.loads(x) for x in (output / "metrics.jsonl").read_text().splitlines()]
    measured = [x for x in lines if "validation_ao" in x]
    assert [x["step"] for x in measured] == [2, 4]
    assert all(0 < x["validation_ao"] < 1 and 0 < x["validation_loss"] < 100 for x in measured)
    best = json.loads((output / "weights-best.json").read_text())
    assert best["data"] == "got10k (train, 6 of 7 videos)"
    assert best["expected"]["validation AO"] == pytest.approx(
        measured[0]["validation_ao"], abs=1e-4
    )
    # A clip that cannot be read is named and left out; when none is left, the run says so.
    monkeypatch.setattr(held._Frames, "__call__", lambda self: _damaged(self.name))
    assert call(monkeypatch, preset, *options[:-1], tmp_path / "broken") == 1
    said = capsys.readouterr().err
    assert "note: left out of the validation: got10k: GOT-10k_Train_00000" in said
    assert "frame 0 is damaged" in said.splitlines()[-1]


def _damaged(name: str) -> Any:
    raise JaxtrackError(f"got10k: {name}, frame 0 is damaged")


def test_a_training_batch_can_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def view(config: Any, batch: Any, keys: jax.Array) -> View:
        labels = jnp.full((len(keys), 5, 5), jnp.nan).at[:, 1].set(0.0).at[:, 2, 3].set(1.0)
        boxes = jnp.tile(jnp.asarray([[20.0, 20.0, 16.0, 12.0]]), (len(keys), 1))
        return View(batch["template"][:, :20, :20], batch["search"], boxes, labels, 4.0)

    preset = toy_pairs()
    preset = dataclasses.replace(preset, task=dataclasses.replace(preset.task, view=view))
    monkeypatch.setattr(presets, "all_presets", lambda: {"here": preset, "blind": toy_pairs()})
    where = ["--data", str(data_fixtures.built()), "--pairs", "2"]
    assert look.main(["here", "--output", str(tmp_path / "x.png"), *where]) == 0
    image = images.read_image(tmp_path / "x.png")
    assert image.shape == (2 * (48 + 4), 24 + 48 + 20 + 48 + 4 * 4, 3)
    assert look.main(["blind", "--output", str(tmp_path / "y.png"), *where]) == 1
    assert "this task has nothing to show" in capsys.readouterr().err
    assert look.main(["here", "--output", str(tmp_path), *where]) == 1
    assert "is a folder" in capsys.readouterr().err
    with monkeypatch.context() as patch:  # told before anything is drawn
        patch.setattr(look, "picture", None)
        assert look.main(["here", "--output", str(tmp_path / "x.gif"), *where]) == 1
    assert "unknown image format" in capsys.readouterr().err
    # The middle of the map is the middle of the image; cells that do not count keep their colour.
    labels = np.asarray(view(None, {"template": image[None], "search": image[None]}, KEY).labels)
    shown = look.tinted(np.zeros((48, 48, 3), np.uint8), labels[0], 4.0)
    green, red = shown[..., 1] > 0, shown[..., 0] > 0
    assert np.argwhere(green).min(0).tolist() == [22, 26]
    assert np.argwhere(green).max(0).tolist() == [25, 29]
    assert np.argwhere(red).min(0).tolist() == [18, 14]
    assert np.argwhere(red).max(0).tolist() == [21, 33]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["siamfc-tiny", "siamrpnpp-tiny", "ostrack-tiny"])
def test_labels_stand_where_the_boxes_are(name: str) -> None:
    preset = presets.changed(presets.get(name), [])
    task = preset.task
    assert task.view is not None
    keys = jax.random.split(jax.random.key(0), 4)
    batch = jax.jit(task.sample, static_argnums=0)(task.config, keys)
    seen = jax.device_get(jax.jit(task.view, static_argnums=0)(task.config, batch, keys))
    side, cells = seen.search.shape[1], seen.labels.shape[1]
    for labels, box, negative in zip(seen.labels, seen.boxes, batch["negative"]):
        if negative:
            continue
        rows, columns = np.nonzero(labels > 0.5)
        place = (np.asarray([columns.mean(), rows.mean()]) + 0.5 - cells / 2) * seen.stride
        assert np.abs(place + side / 2 - box[:2] - box[2:] / 2).max() < 1.1 * seen.stride


@pytest.mark.parametrize("name", ["focal", "ghm", "ohem"])
def test_siamfc_has_its_other_losses(name: str) -> None:
    changed = presets.changed(presets.get("siamfc-got10k"), [f"task.loss={name}"])
    assert dataclasses.asdict(changed.task.config)["loss"] == name  # type: ignore[call-overload]
    logits = jax.random.normal(jax.random.key(0), (2, 5, 5))
    labels = jnp.zeros((2, 5, 5)).at[:, 2, 2].set(1)
    wanted = {
        "focal": losses.focal(logits, labels),
        "ghm": losses.ghm_c(logits, labels, losses.ghm_c_init(), 0.0)[0],
        "ohem": losses.hard_negative_mining(logits, labels),
    }
    assert float(siamfc.own_loss(name, logits, labels)) == float(wanted[name])
    assert float(siamfc.own_loss("balanced", logits, labels)) != float(wanted[name])
