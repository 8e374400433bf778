"""Many settings in one program give what each gives alone; the table, the plot, and what is refused."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

from eval import search
from eval.metrics.annotation import Annotation
from eval.sweep import compiled as sweep
from eval.tracking import slots as runner
from eval.tracking.entry import Entry
from eval.tracking.sequences import Sequence
from jaxtrack import get_tracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.models.alexnet import AlexNetConfig
from jaxtrack.trackers.siamfc import tracker as siamfc
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.network import NetworkConfig

GRIDS = {
    "siamfc-tiny": ("window_influence=0.1,0.4", "scale_penalty=0.99,1.2", "scale_rate=0.3,0.7"),
    "siamrpnpp-tiny": ("window_influence=0.2,0.6", "penalty_k=0.02,0.3", "size_rate=0.2,0.6"),
}


def clip(name, length, size, seed):
    """A textured square that wanders over another texture."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 200, (size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
    ground = np.kron(ground, np.ones((8, 8, 1), np.uint8))[: size[0], : size[1]]
    target = np.kron(rng.integers(60, 256, (6, 5, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    frames, boxes = np.tile(ground[None], (length, 1, 1, 1)), np.zeros((length, 4))
    for t in range(length):
        x, y = 20 + 2 * t, 30 + t
        frames[t, y : y + 24, x : x + 20] = target
        boxes[t] = x, y, 20, 24
    annotation = Annotation(boxes, size=size[::-1])
    return Sequence(name, length, lambda: iter(frames), boxes, annotation, size)


CLIPS = [clip("a", 7, (96, 120), 0), clip("b", 5, (96, 120), 1)]  # one size: programs are shared


SMALL = {
    "siamfc-tiny": siamfc.Config(
        network=AlexNetConfig(channels=(4, 4, 4, 4, 4), groups=(1,) * 5, kernels=(7, 5, 3, 3, 3)),
        match_norm=True,
        input_divisor=255.0,
        exemplar_size=87,
        instance_size=119,
        response_up=4,
    ),
    "siamrpnpp-tiny": siamrpn.Config(
        network=NetworkConfig(
            backbone="alexnet",
            levels=(5,),
            channels=(4, 4, 4, 4, 4),
            kernels=(7, 3, 3, 3, 3),
            neck=(4,),
            neck_crop=0,
            neck_align=True,
            head=(4,),
            fusion="single",
        ),
        base_size=0,
        instance_size=191,
    ),
}


def random_values(tracker):
    """Variables without compiling their initialisation."""
    config, rng = tracker.config, np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: tracker.init_variables(config, key), jax.random.key(0))

    def value(path, leaf):
        if path[-1].key in ("var", "scale"):
            return np.ones(leaf.shape, np.float32)
        names = ".".join(str(part.key) for part in path)
        drawn = rng.standard_normal(leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        # SiamRPN++ sees 0..255, and its boxes are exponentials.
        factor = 0.01 if "layer1.0" in names else 1.0
        return (drawn * (0.05 if ".loc." in names else factor)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(value, shapes)


@pytest.fixture(scope="module")
def made():
    """Small trackers with random values: their trajectories part all the same."""
    found = {}
    for name, config in SMALL.items():
        tracker = dataclasses.replace(get_tracker(name), config=config)
        found[name] = tracker, random_values(tracker)
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "siamfc-tiny" else pytest.mark.slow) for n in GRIDS]
)
def test_every_setting_gets_what_it_gets_alone(name, made):
    tracker, variables = made[name]
    grid = search.parse_grid(GRIDS[name])
    assert len(grid.values) == 8
    found, looked = search.track_sequences(tracker, variables, CLIPS, grid, chunk=4, block=1)
    windows = 3 if name == "siamfc-tiny" else 1
    assert looked < 8 * windows * sum(s.length - 1 for s in CLIPS)  # some windows were shared
    for index in (0, 7):
        alone = dataclasses.replace(tracker, config=grid.config(tracker.config, index))
        for key, track in runner.run(alone, variables, CLIPS, chunk=4):
            np.testing.assert_allclose(found[key][index], track.boxes, atol=1e-3)
    boxes = found["a"]
    assert len(np.unique(boxes[:, -1].round(3), axis=0)) > 1  # the settings do differ


@pytest.mark.parametrize("block", [pytest.param(3, marks=pytest.mark.slow), 64])
def test_blocks_change_nothing(block, made):
    tracker, variables = made["siamrpnpp-tiny"]
    grid = search.parse_grid(GRIDS["siamrpnpp-tiny"])
    sequences = CLIPS[1:]
    one, _ = search.track_sequences(tracker, variables, sequences, grid, chunk=4, block=1)
    more, _ = search.track_sequences(tracker, variables, sequences, grid, chunk=4, block=block)
    np.testing.assert_allclose(more["b"], one["b"], atol=1e-3)


def test_fields_that_the_first_state_reads(made):
    tracker, variables = made["siamrpnpp-tiny"]
    grid = search.parse_grid(["context=0.3,0.5", "size_rate=0.2,0.4"])
    assert not sweep.shares(tracker, grid.names)
    assert sweep.shares(tracker, ("size_rate", "window_influence"))
    found, looked = search.track_sequences(tracker, variables, CLIPS[1:], grid, chunk=4)
    assert looked == 4 * 4
    alone = dataclasses.replace(tracker, config=grid.config(tracker.config, 0))
    ((_, track),) = runner.run(alone, variables, CLIPS[1:], chunk=4)
    np.testing.assert_allclose(found["b"][0], track.boxes, atol=1e-3)


def test_groups_of_equal_rows():
    rows = np.array([[1, 2], [3, 4], [1, 2], [1, 3], [3, 4]])
    group, members, count = sweep.groups(rows)
    np.testing.assert_array_equal(group, [0, 1, 0, 2, 1])
    np.testing.assert_array_equal(members[:3], [0, 1, 3])
    assert count == 3


def test_random_settings_stay_between_the_values():
    grid = search.parse_grid(["a=0.2,0.4,0.3", "b=1,2"], random=20, seed=3)
    assert grid.values.shape == (20, 2)
    assert (grid.values >= [0.2, 1]).all()
    assert (grid.values <= [0.4, 2]).all()
    np.testing.assert_array_equal(
        grid.values, search.parse_grid(["a=0.2,0.4,0.3", "b=1,2"], 20, 3).values
    )


def test_table_and_plot(made, tmp_path, monkeypatch, capsys):
    tracker, variables = made["siamrpnpp-tiny"]
    entry = Entry("siamrpnpp-tiny", "siamrpnpp-tiny", tracker)
    monkeypatch.setattr(search, "parse_entry", lambda text: entry)
    monkeypatch.setattr(Entry, "load", lambda entry: variables)
    monkeypatch.setattr(search.benchmarks, "load", lambda *a, **k: CLIPS[1:])
    options = search.Options(
        "siamrpnpp-tiny",
        GRIDS["siamrpnpp-tiny"],
        output=tmp_path,
        chunk=4,
        compare=2,
        frames=4,
    )
    rows = search.search(options)
    assert [row["auc"] for row in rows] == sorted((row["auc"] for row in rows), reverse=True)
    with (tmp_path / "search.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["auc"]) for row in table] == [row["auc"] for row in rows]
    stored = json.loads((tmp_path / "search.json").read_text())
    assert stored["cost"]["largest_difference"] < 1e-3
    assert stored["cost"]["cold"]["ratio"]["cpu"] > 0
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    best = f"best of 8: --set window_influence={rows[0]['window_influence']!r} --set penalty_k="
    assert best in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to search"),
        ({"set": ("window_influence",)}, "give FIELD=VALUE"),
        ({"set": ("window_influence=0.1,x",)}, "finite numbers"),
        ({"set": ("window_influence=nan",)}, "finite numbers"),
        ({"set": ("a=1", "a=2")}, "given twice"),
        ({"set": ("windw=1",)}, "windw: this field of siamfc-tiny is unknown; .*window_influence"),
        ({"set": ("scale_count=3",)}, "is no float"),
        ({"set": ("lost.below=.3",)}, r"lost\.below: .* lies in another field"),
        ({"set": ("input_divisor=1,2",)}, "built into the program; can be searched: .*scale_rate"),
        ({"set": ("scale_rate=1",), "random": 0}, "--random 0"),
        ({"set": ("scale_rate=1",), "compare": 2}, "--compare 2"),
        ({"set": ("scale_rate=1",), "tracker": "siamfcc"}, "nearest: siamfc"),
        (
            {"set": ("scale_rate=1",), "tracker": "siamfc-tiny=a", "weights": "b"},
            "--tracker siamfc-tiny=a and --weights b: two files of weights, a and b: give one",
        ),
        (
            {"set": ("a=" + ",".join(map(str, range(400))), "b=" + ",".join(map(str, range(400))))},
            "at most 100000",
        ),
        ({"set": ("scale_rate=1",), "benchmark": "otbb"}, "unknown benchmark"),
    ],
)
def test_mistakes_are_one_line(options, words):
    with pytest.raises(JaxtrackError, match=words) as error:
        search.search(search.Options(**{"tracker": "siamfc-tiny", **options}))
    assert "\n" not in str(error.value)


def test_what_is_wrong_is_told_before_anything_is_tracked(monkeypatch):
    monkeypatch.setattr(search, "track_sequences", lambda *_, **__: pytest.fail("tracked"))
    given = {"tracker": "siamfc-tiny", "set": ("scale_rate=1",), "protocol": "otbb"}
    with pytest.raises(JaxtrackError, match="unknown protocol"):
        search.search(search.Options(**given))


@pytest.mark.parametrize(
    "words",
    [["--frames", "1"], ["--block", "0"], ["--chunk", "0"], ["--random", "0"], ["--compare", "-1"]],
)
def test_numbers_out_of_range_are_mistakes_in_the_call(words, capsys):
    assert search.main(["--tracker", "siamfc-tiny", "--set", "scale_rate=1", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_fields_of_a_network_of_compiled_parts(made):
    """What is built into a part is told; what rules windows and decision can be searched."""
    tracker = get_tracker("ostrack-tiny")
    assert sweep.why_not(tracker, "layer_norm_epsilon") is None
    assert sweep.why_not(tracker, "batch_norm_epsilon") == "is built into the program"
    assert sweep.why_not(tracker, "search_factor") is None


def test_values_without_a_meaning_are_refused(made):
    tracker = made["siamfc-tiny"][0]
    search.parse_grid(["window_influence=0.2,1.0", "scale_rate=0,1"]).check(tracker)
    for given in ("window_influence=0.2,-3,0.4", "window_influence=0.2,1.5"):
        with pytest.raises(JaxtrackError, match=r"window_influence is (-3|1\.5); from 0 to 1"):
            search.parse_grid([given]).check(tracker)


def test_a_field_without_effect_is_refused(made):
    with pytest.raises(JaxtrackError, match=r"confidence_low: .* is not read in tracking"):
        sweep.check_fields(made["siamrpnpp-tiny"][0], "small", ["confidence_low"])
