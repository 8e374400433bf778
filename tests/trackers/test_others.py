"""Trackers of others: imported by a text, declared by an installed package, and presets changed by field."""

import dataclasses
import importlib
import sys
import textwrap

import jax
import numpy as np
import pytest

import jaxtrack
from jaxtrack import JaxtrackError, trackers, weights
from jaxtrack.base import Family

TOY = '''
"""A tracker that drifts to the right."""
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtrack.base import Family, Prediction, Tracker


@dataclasses.dataclass(frozen=True)
class Config:
    speed: float = 2.0


class State(NamedTuple):
    box: jax.Array


def init_variables(config, key):
    return {"params": {"gain": jnp.ones(())}, "batch_stats": {}}


def init(config, variables, frame, box, frame_size):
    return State(box)


def track_frame(config, variables, state, frame):
    step = jnp.asarray([config.speed, 0, 0, 0]) * variables["params"]["gain"]
    return State(state.box + step), Prediction(state.box + step, jnp.ones(()))


TRACKER = Tracker(Config(), init_variables, init, track_frame)
FAMILY = Family("toy", {"toy-slow": Config(1.0), "toy-fast": Config(5.0)}, init_variables, init, track_frame)
NUMBER = 3
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A module of somebody else's, importable; gone after the test."""
    (tmp_path / "toy_of_others.py").write_text(textwrap.dedent(TOY))
    (tmp_path / "toy_broken.py").write_text("import toy_missing_thing\n")
    (tmp_path / "toy_raising.py").write_text("raise ValueError('first line\\nsecond')\n")
    monkeypatch.chdir(tmp_path)  # the working folder is enough
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("toy"):
            del sys.modules[name]
    trackers._FOUND.clear()
    trackers._installed.cache_clear()


def test_a_tracker_from_outside_tracks(toy):
    tracker = jaxtrack.get_tracker("toy_of_others:TRACKER")
    variables = tracker.init_variables(tracker.config, None)
    frames = np.zeros((4, 30, 40, 3), np.uint8)
    state = jaxtrack.init(tracker, variables, frames[0], [5, 6, 7, 8])
    _, found = jaxtrack.track_clip(tracker, variables, state, frames[1:])
    np.testing.assert_array_equal(found.box[-1], [11, 6, 7, 8])
    assert trackers.family_of(tracker).tables == {}
    assert str(toy) not in sys.path
    fast = jaxtrack.get_tracker("toy_of_others:FAMILY.toy-fast", speed=7)
    assert fast.config.speed == 7
    assert trackers.family_of(fast).name == "toy"
    assert trackers.presets_of(fast.replace(speed=5.0)) == ("toy-fast",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere_at_all:TRACKER", "no module nowhere_at_all"),
        ("toy_of_others:TRAKCER", "has no TRAKCER; nearest: TRACKER"),
        ("toy_of_others:NUMBER", "is int; a jaxtrack Tracker or Family"),
        ("toy_of_others:FAMILY", "FAMILY.PRESET; known: toy-slow, toy-fast"),
        ("toy_of_others:FAMILY.toy-slwo", "nearest: toy-slow"),
        ("toy_of_others:TRACKER.x", "has no presets"),
        ("toy_of_others:", "give package.module:TRACKER"),
        ("toy.of.others", "preset 'toy.of.others'; one of your own .* as package.module:TRACKER"),
        ("../toy:TRACKER", "give package.module:TRACKER"),
        ("toy_broken:TRACKER", "needs the module toy_missing_thing"),
        ("toy_raising:TRACKER", "failed .ValueError: first line"),
    ],
)
def test_mistakes_are_one_line(toy, text, message):
    with pytest.raises(JaxtrackError, match=message) as caught:
        jaxtrack.get_tracker(text)
    assert "\n" not in str(caught.value)


RETURNED = {
    "a State alone": lambda after, found: after,
    "a tuple behind the state": lambda after, found: (after, tuple(found)),
    "a State behind the state": lambda after, found: (found, after),
    r"a box that is float32 \(1, 4\)": lambda after, found: (
        after,
        found._replace(box=found.box[None]),
    ),
    "a box that is int32": lambda after, found: (
        after,
        found._replace(box=found.box.astype("int32")),
    ),
    r"a score that is float32 \(4,\)": lambda after, found: (
        after,
        found._replace(score=found.box),
    ),
    r"box float32 \(4,\) in its state and returned box int32": lambda after, found: (
        after._replace(box=after.box.astype("int32")),
        found,
    ),
    "returned none of it": lambda after, found: ((), found),
    "a dict of another tree": lambda after, found: ({"box": after.box}, found),
}


@pytest.mark.parametrize("message", RETURNED)
def test_what_a_tracker_returns_is_held_to_the_contract(toy, message):
    """By one frame as by a clip: an integer state was taken on by the former, and cut sizes every frame."""
    whole = jaxtrack.get_tracker("toy_of_others:TRACKER")

    def track_frame(config, variables, state, frame):
        return RETURNED[message](*whole.track_frame(config, variables, state, frame))

    tracker = dataclasses.replace(whole, track_frame=track_frame)
    variables = tracker.init_variables(tracker.config, None)
    frames = np.zeros((3, 30, 40, 3), np.uint8)
    state = jaxtrack.init(tracker, variables, frames[0], [5, 6, 7, 8])
    for verb, given in ((jaxtrack.track_frame, frames[1]), (jaxtrack.track_clip, frames[1:])):
        with pytest.raises(JaxtrackError, match=message) as caught:
            verb(tracker, variables, state, given)
        assert "\n" not in str(caught.value)
    with pytest.raises(JaxtrackError, match="this tracker's track_frame"):
        jaxtrack.track(tracker, variables, frames, [[5, 6, 7, 8], [9, 6, 7, 8]])


def test_a_config_that_cannot_key_a_program_is_refused(toy, monkeypatch):
    whole = jaxtrack.get_tracker("toy_of_others:TRACKER")
    thawed = dataclasses.make_dataclass("Thawed", [("speed", float, 1.0)])
    for config, message in (
        (thawed(), "type Thawed, cannot be hashed .* frozen dataclass"),
        ({"speed": 1.0}, "type dict, cannot be hashed"),
        (type(whole.config), r"is the class Config; give a value of it, Config\(\)"),
    ):
        tracker = dataclasses.replace(whole, config=config)
        monkeypatch.setattr(sys.modules["toy_of_others"], "TRACKER", tracker)
        calls = (
            lambda tracker=tracker: jaxtrack.load_weights(tracker, "none.npz"),
            lambda tracker=tracker: jaxtrack.init(tracker, {}, np.zeros((9, 9, 3)), [1, 1, 5, 5]),
            lambda: jaxtrack.get_tracker("toy_of_others:TRACKER"),
        )
        for call in calls:
            with pytest.raises(JaxtrackError, match=message) as caught:
                call()
            assert "\n" not in str(caught.value)


def test_an_installed_package_makes_its_presets_known(toy, monkeypatch):
    for name, entry in (("toy", "toy_of_others:FAMILY"), ("bad", "toy_missing_thing:X")):
        folder = toy / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[jaxtrack.trackers]\n{name} = {entry}\n")
    monkeypatch.syspath_prepend(str(toy))
    importlib.invalidate_caches()
    trackers._installed.cache_clear()
    with pytest.warns(UserWarning, match="'bad': the package bad declares it"):
        assert jaxtrack.get_tracker("toy-slow").config.speed == 1
    assert "toy-fast" in jaxtrack.tracker_names()
    assert isinstance(trackers.family_of("toy-fast"), Family)
    assert trackers.presets_of(jaxtrack.get_tracker("toy-slow")) == ("toy-slow",)
    with pytest.raises(JaxtrackError, match="package bad declares it"):
        jaxtrack.get_tracker("bad")
    with pytest.raises(JaxtrackError, match=r"nearest: .*toy-slow"):
        jaxtrack.get_tracker("toy-slwo")


def test_presets_are_changed_by_field():
    tracker = jaxtrack.get_tracker("siamfc", window_influence=0.3)
    assert tracker.config.window_influence == 0.3
    assert tracker == jaxtrack.get_tracker("siamfc").replace(window_influence=0.3)
    assert tracker.steps is not None
    assert tracker.replace(scale_count=np.int64(5)).config.scale_count == 5
    with pytest.raises(JaxtrackError, match="nearest: window_influence"):
        jaxtrack.get_tracker("siamfc", windw_influence=0.3)
    with pytest.raises(JaxtrackError, match="whole number"):
        tracker.replace(scale_count=2.5)
    with pytest.raises(JaxtrackError, match="number is wanted"):
        tracker.replace(window_influence="much")
    with pytest.raises(JaxtrackError, match="nearest: siamfc"):
        jaxtrack.get_tracker("siamfcc")
    assert trackers.presets_of(jaxtrack.get_tracker("mlt-tiny")) == ("mlt-tiny",)
    assert trackers.presets_of(tracker) == ()


def test_weights_come_with_a_tracker_whatever_else_its_preset_is_called(monkeypatch):
    for name in weights.shipped_names():
        tracker = jaxtrack.get_tracker(name)
        assert name in trackers.presets_of(tracker)
        one, other = jaxtrack.load_weights(tracker), jaxtrack.load_weights(name)
        assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other))), name
    twice = trackers.presets_of(jaxtrack.get_tracker("siamrpnpp-small"))
    assert len(twice) == 2
    monkeypatch.setattr(weights, "shipped_names", lambda: list(twice))
    with pytest.raises(JaxtrackError, match="with weights of its own each"):
        jaxtrack.load_weights(jaxtrack.get_tracker("siamrpnpp-small"))


@pytest.mark.parametrize("name", ["siamrpnpp-tiny", "ostrack-tiny"])
@pytest.mark.parametrize("value", [-0.5, 1.5])
def test_a_correction_is_a_share(name, value):
    with pytest.raises(JaxtrackError, match=rf"size_correction is {value}; from 0 to 1"):
        jaxtrack.get_tracker(name, size_correction=value)
