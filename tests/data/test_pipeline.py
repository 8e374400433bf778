"""Order, position, shards, mixture, broken records, and two training steps."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.data import pipeline, recipes
from jaxtrack.data.pipeline import Dataset, make_iterator
from jaxtrack.data.sampling import PairConfig
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.patch import PatchSpec
from tests import data_fixtures as fx

CONFIG = PairConfig(PatchSpec(31, 31, 1.0), PatchSpec(63, 63, 63 / 31), negative=0.2)


def mixture(**weights) -> list[Dataset]:
    weights = weights or {"got10k": 2.0, "coco": 1.0, "otb": 1.0}
    return [Dataset(fx.built() / name, weight) for name, weight in weights.items()]


def batches(count, **options):
    iterator = make_iterator(CONFIG, mixture(), **{"batch_size": 6, "seed": 5, **options})
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def assert_same(one, two):
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])


def test_batches_have_the_promised_shapes():
    (batch,) = batches(1)
    shapes = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert shapes == {
        "template": ((6, 31, 31, 3), "uint8"),
        "search": ((6, 63, 63, 3), "uint8"),
        "template_box": ((6, 4), "float32"),
        "search_box": ((6, 4), "float32"),
        "negative": ((6,), "bool"),
    }


def test_order_does_not_depend_on_workers_or_threads():
    expected = batches(5, threads=1)
    for options in ({"threads": 3}, {"workers": 2, "threads": 1}):
        for one, two in zip(expected, batches(5, **options)):
            assert_same(one, two)
    assert not np.array_equal(expected[0]["search"], batches(1, seed=6)[0]["search"])


def test_resume_in_mid_epoch_goes_on_with_the_same_batches():
    expected = batches(6)
    first = make_iterator(CONFIG, mixture(), 6, seed=5)
    for _ in range(3):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    first.close()
    second = make_iterator(CONFIG, mixture(), 6, seed=5)
    next(second)
    second.set_state(state)
    for batch in expected[3:]:
        assert_same(batch, next(second))
    second.close()


def test_a_position_of_other_data_is_refused():
    state = make_iterator(CONFIG, mixture(), 6, seed=5).get_state()
    for options, expected in (
        ({"seed": 6}, "seed was 5 and is 6 now"),
        ({"batch_size": 7}, "batch was 6 and is 7 now"),
    ):
        other = make_iterator(CONFIG, mixture(), **{"batch_size": 6, "seed": 5, **options})
        with pytest.raises(JaxtrackError, match=expected):
            other.set_state(state)
    with pytest.raises(JaxtrackError, match="cannot resume the data: data was"):
        make_iterator(CONFIG, mixture(otb=1.0), 6, seed=5).set_state(state)
    # The same global batch on more hosts may go on.
    make_iterator(CONFIG, mixture(), 3, seed=5, shard_count=2).set_state(state)


def used(iterator, count):
    found = []
    for _ in range(count):
        next(iterator)
        found += iterator.describe()
    iterator.close()
    return found


def test_two_hosts_see_disjoint_shards_that_cover_everything():
    both = used(make_iterator(CONFIG, mixture(), 8, seed=5), 4)
    shards = [
        used(make_iterator(CONFIG, mixture(), 4, seed=5, shard_index=i, shard_count=2), 4)
        for i in range(2)
    ]
    assert [x for pair in zip(*shards) for x in pair] == both


def test_an_epoch_visits_every_video_once():
    setting = PairConfig(CONFIG.template, CONFIG.search)
    iterator = make_iterator(setting, mixture(got10k=1.0), 7, seed=1)
    orders = []
    for _ in range(3):
        videos = [line.split(",")[0] for line in used_once(iterator)]
        assert len(set(videos)) == 7
        orders.append(videos)
    iterator.close()
    assert orders[0] != orders[1]  # shuffled anew


def used_once(iterator):
    next(iterator)
    return iterator.describe()


def test_the_mixture_keeps_its_ratios():
    order = pipeline.Order([7, 2, 3], [2.0, 1.0, 1.0], seed=0)
    drawn = np.array([order[i] for i in range(2048)])
    numbers = drawn[:, 0]
    np.testing.assert_array_equal(np.bincount(numbers) / 2048, [0.5, 0.25, 0.25])
    # No regular beat that shards could fall into.
    assert np.bincount(numbers[::2])[0] / 1024 == pytest.approx(0.5, abs=0.06)
    # Across windows too, every epoch of a dataset is a permutation of its videos.
    for dataset, size in enumerate((7, 2, 3)):
        videos = drawn[numbers == dataset, 1]
        counts = np.bincount(videos, minlength=size)
        assert counts.max() - counts.min() <= 1
    uneven = pipeline.Order([5, 5], [1.0, 1e-4], seed=0)
    rare = sum(uneven[i][0] for i in range(0, 30 * 1024))
    assert rare == 3
    # Without a weight, every video of a dataset comes equally often.
    by_size = [Dataset(fx.built() / "got10k", None), Dataset(fx.built() / "otb", None)]
    lines = used(make_iterator(CONFIG, by_size, 20, seed=0), 2)
    assert sum(line.startswith("got10k") for line in lines) == pytest.approx(28, abs=9)


def test_bad_arguments():
    for arguments, expected in (
        ({"datasets": []}, "no dataset given"),
        ({"batch_size": 0}, "impossible pipeline"),
        ({"shard_index": 2, "shard_count": 2}, "shard 2 of 2"),
        ({"datasets": mixture(otb=-1.0)}, "must be positive"),
        ({"datasets": [Dataset("nowhere")]}, "no folder nowhere"),
        ({"datasets": [Dataset(fx.built())]}, "holds 3 built datasets"),
    ):
        with pytest.raises(JaxtrackError, match=expected):
            make_iterator(**{"config": CONFIG, "datasets": mixture(), "batch_size": 2, **arguments})


@pytest.fixture
def broken(tmp_path):
    """A build of which two of eighteen records do not decode (a disk that lost bits)."""
    from jaxtrack.data import frames as frame_io
    from jaxtrack.data.builders import parts

    fx.write_otb(tmp_path / "otb", ("Boy", "Car1", "Deer"), 6)
    real = parts._add

    def damaged(entries, users, boxes, encoded, pixels, rows, name):
        if name in ("Boy/img/0002.jpg", "Deer/img/0005.jpg"):
            encoded = encoded[:300]
        return real(entries, users, boxes, encoded, pixels, rows, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_add", damaged)
        fx.build("otb", tmp_path / "otb", tmp_path / "out")
    record = FrameSource(tmp_path / "out").record(1)
    with pytest.raises(frame_io.FrameError, match="truncated"):
        frame_io.decode(record["image"], "record 1")
    return tmp_path / "out"


def test_broken_records_are_replaced_counted_and_capped(broken):
    setting = PairConfig(CONFIG.template, CONFIG.search)
    iterator = make_iterator(setting, [Dataset(broken)], 8, seed=0, max_bad=1000)
    lines = []
    for _ in range(8):
        batch = next(iterator)
        assert batch["search"].any(axis=(1, 2, 3)).all()
        lines += iterator.describe()
    assert iterator.skipped > 0
    assert "otb: video Boy, frame 0" in " ".join(lines)
    assert "otb: video Boy, frame 1" not in " ".join(lines)
    assert iterator.get_state()["skipped"] == iterator.skipped
    iterator.close()

    capped = make_iterator(setting, [Dataset(broken)], 8, seed=0, max_bad=2)
    with pytest.raises(JaxtrackError, match=r"not be decoded so far \(at most 2\); last: otb: "):
        used(capped, 30)
    capped.close()
    from jaxtrack.data import check

    report = check.check_built(broken)
    assert len(report.problems) == 2
    assert "otb: video Boy, frame 1 (Boy/img/0002.jpg)" in report.problems[0]
    assert "truncated image" in report.problems[0]


def test_recipes_find_their_builds(tmp_path):
    template = PatchSpec(143, 127, 1.0, 0.5)
    search = PatchSpec(431, 255, 255 / 127, 0.5)
    assert search.scale == pytest.approx(431 / 127)
    published, every = recipes.RECIPES["siamrpn"], recipes.RECIPES["all"]
    with pytest.raises(JaxtrackError, match=r"needs vid \(train\).*prepare vid --split train"):
        recipes.find_datasets(published, tmp_path, template, search)
    with pytest.raises(JaxtrackError, match="no built dataset"):
        recipes.find_datasets(every, tmp_path, template, search)
    found = recipes.find_datasets(recipes.RECIPES["siamfc_got10k"], fx.built(), template, search)
    assert [str(d.path.relative_to(fx.built())) for d in found] == ["got10k/train_frames"]
    whole = recipes.find_datasets(every, fx.built(), template, search)
    iterator = make_iterator(recipes.pair_config(every, template, search), whole, 2, seed=1)
    assert next(iterator)["search"].shape == (2, 431, 431, 3)
    iterator.close()


def test_recipes_prefer_crops_that_are_large_enough(tmp_path):
    fx.write_got10k(tmp_path / "g", numbers=(1,))
    fx.build("got10k", tmp_path / "g", tmp_path / "out", crop=511)
    fx.build("got10k", tmp_path / "g", tmp_path / "out")
    recipe = recipes.RECIPES["ostrack_got10k"]
    fits, wide = PatchSpec(256, 256, 2.0, 0.5), PatchSpec(600, 256, 4.0, 0.0)
    assert "train_crop511" in str(
        recipes.find_datasets(recipe, tmp_path / "out", fits, fits)[0].path
    )
    assert "train_frames" in str(
        recipes.find_datasets(recipe, tmp_path / "out", fits, wide)[0].path
    )


def test_two_training_steps_from_files():
    """Files to gradients: a linear score of the search patch learns the template's mean colour."""
    iterator = make_iterator(CONFIG, mixture(), 8, seed=2)

    @jax.jit
    def step(weights, batch):
        def loss(weights):
            colour = jnp.mean(batch["template"] / 255.0, axis=(1, 2)) @ weights
            target = jnp.mean(batch["search"] / 255.0, axis=(1, 2))
            keep = jnp.where(batch["negative"], 0.0, 1.0)[:, None]
            return jnp.mean(keep * (colour - target) ** 2)

        value, gradient = jax.value_and_grad(loss)(weights)
        return weights - 0.5 * gradient, value

    weights, batch = jnp.zeros((3, 3)), next(iterator)
    weights, first = step(weights, batch)
    weights, _ = step(weights, next(iterator))
    assert float(step(weights, batch)[1]) < float(first)
    iterator.close()
