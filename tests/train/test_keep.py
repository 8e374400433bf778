"""What is kept of a loss gives that loss; a run goes through it in an order of its own."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.weights import read_card, save_weights
from tests.trackers.test_mlt import variables_of
from tests.train.test_mlt import KEYS, small
from train import data, keep, look, presets, run
from train.data import Share
from train.tasks import mlt as task


@pytest.fixture
def recipe(monkeypatch):
    """A meta stage of a small network, under a name."""
    meta = presets.get("mlt-tiny-meta")
    known = {
        **presets.all_presets(),
        "small-meta": dataclasses.replace(meta, task=task.task(small())),
    }
    monkeypatch.setattr(presets, "all_presets", lambda: known)
    return "small-meta"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_weights(path, jax.device_get(variables_of(small().tracker)))
    return path


def asked(recipe, start, output, **changes):
    given = {"count": 6, "batch_size": 2, **changes}
    return keep.Options(recipe, output, str(start), **given)


def opened(recipe, start, root, *changes, size=2, seed=0, number=0, count=1):
    preset = presets.changed(presets.get(recipe), changes)
    return data.open_batches(str(root), preset, Share(size, number, count), seed, init_from=start)


@pytest.mark.parametrize("changes", [{}, {"followed": 0.5, "pasted": 0.5, "other_videos": 0.3}])
def test_the_loss_is_the_same_of_what_was_kept(changes):
    config = small(**changes)
    variables = variables_of(config.tracker)
    parts = variables["params"], variables["batch_stats"]
    batch = task.sample(config, KEYS)
    kept = task.task(config).keep.compute(config, *parts, batch, KEYS)
    assert kept["patches"].dtype == np.float16
    loss = jax.jit(task.loss, static_argnums=0)
    raw, ours = loss(config, *parts, batch, KEYS)[0], loss(config, *parts, kept, KEYS)[0]
    np.testing.assert_allclose(ours, raw, rtol=2e-3)


def test_a_run_on_kept_outputs_goes_on_as_without_a_stop(recipe, start, tmp_path):
    keep.keep(asked(recipe, start, tmp_path / "kept"))
    words = {"init_from": str(start), "data": str(tmp_path / "kept"), "batch_size": 4, "steps": 4}
    whole = run.train(presets.get(recipe), output=tmp_path / "whole", **words)
    run.train(presets.get(recipe), output=tmp_path / "cut", save_every=2, **words)
    again = run.Options(recipe, tmp_path / "cut", resume=True, from_step=2)
    cut = run.train(again)
    assert int(cut.step) == 4
    seen = read_card(tmp_path / "cut" / "weights.safetensors").data
    assert seen.startswith("synthetic; started from start.safetensors (")
    for one, two in zip(jax.tree.leaves(whole.params), jax.tree.leaves(cut.params), strict=True):
        np.testing.assert_array_equal(one, two)
    fixed = jax.device_get(variables_of(small().tracker))["params"]
    for name in set(fixed) - {"meta"}:
        for one, two in zip(jax.tree.leaves(fixed[name]), jax.tree.leaves(whole.params[name])):
            np.testing.assert_array_equal(one, two)


def test_every_epoch_holds_all_that_was_kept_once_in_an_order_of_its_own(recipe, start, tmp_path):
    root = keep.keep(asked(recipe, start, tmp_path / "kept"))
    places = np.load(root / "places.npy")

    def rows(batch):
        return [int(np.flatnonzero((places == one).all(axis=(1, 2)))[0]) for one in batch["places"]]

    def orders(seed, **share):
        source = opened(recipe, start, root, seed=seed, **share)
        return [rows(source.next()[0]) for _ in range(6)]

    one = orders(0)
    assert sorted(np.concatenate(one[:3])) == sorted(np.concatenate(one[3:])) == list(range(6))
    assert one[:3] != one[3:]
    assert one != orders(1)
    # Two processes feed what one does, every other pair each.
    halves = [orders(0, size=1, number=i, count=2) for i in range(2)]
    assert [a + b for a, b in zip(*halves)] == one
    source = opened(recipe, start, root)
    source.seek(2)
    assert rows(source.next()[0]) == one[2]


def test_what_was_kept_otherwise_is_refused(recipe, start, tmp_path, capsys):
    root = keep.keep(asked(recipe, start, tmp_path / "kept", set=("task.pasted=.5",)))
    opened(recipe, start, root, "task.pasted=.5", "task.peak=.5", "task.given=likest")
    with pytest.raises(
        JaxtrackError, match=r"kept with other settings of small-meta: task\.pasted"
    ):
        opened(recipe, start, root)
    with pytest.raises(JaxtrackError, match=r"task\.world"):
        opened(recipe, start, root, "task.pasted=.5", "task.world.noise=.2")
    other = tmp_path / "other.safetensors"
    save_weights(other, jax.device_get(variables_of(small().tracker, seed=1)))
    for weights in (other, None):
        with pytest.raises(
            JaxtrackError, match="computed with other weights: give the --init-from"
        ):
            opened(recipe, weights, root, "task.pasted=.5")
    with pytest.raises(JaxtrackError, match="kept outputs, which siamfc-tiny does not train on"):
        opened("siamfc-tiny", start, root)
    words = {
        "data": str(root),
        "init_from": str(start),
        "synthetic": 0.5,
        "set": ("task.pasted=.5",),
    }
    with pytest.raises(JaxtrackError, match="--synthetic goes with built datasets"):
        run.train(run.Options(recipe, tmp_path / "run", **words))
    for words in (["--set", "task.pasted=.5"], ["--set", "task.pasted=.5", "--recipe"]):
        given = [recipe, "--data", str(root), "--output", str(tmp_path / "seen.png"), *words]
        assert look.main(given) == 2
        assert "kept outputs, which are no pictures" in capsys.readouterr().err
    rows = np.load(root / "places.npy")
    np.save(root / "places.npy", rows[:3])
    with pytest.raises(JaxtrackError, match="of different lengths; keep them anew"):
        opened(recipe, start, root, "task.pasted=.5")
    (root / "places.npy").write_bytes(b"x")
    with pytest.raises(JaxtrackError, match="kept outputs that are damaged"):
        opened(recipe, start, root, "task.pasted=.5")


def test_what_is_half_kept_is_none(recipe, start, tmp_path, monkeypatch):
    root = keep.keep(asked(recipe, start, tmp_path / "kept"))
    monkeypatch.setattr(keep, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        keep.keep(asked(recipe, start, root))
    assert not (root / data.KEPT).exists()
    with pytest.raises(JaxtrackError):
        opened(recipe, start, root)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("siamfc-tiny --init-from siamfc-tiny", "every part of its loss learns"),
        ("mlt-tiny-meta --init-from mlt-tinny", "no such file or folder, and no preset"),
        ("mlt-tiny-meta --init-from mlt-tiny --count 7", "--count 7: give a multiple"),
        ("mlt-tiny-meta", "--init-from"),
    ],
)
def test_mistakes_are_one_line(words, told, tmp_path, capsys):
    assert keep.main([*words.split(), "--output", str(tmp_path / "kept")]) != 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert told in line
    assert not list(pathlib.Path(tmp_path).rglob("*.npy"))
