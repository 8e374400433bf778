"""One parser of the trackers on a command line."""

import dataclasses
import importlib
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.tracking import code
from eval.tracking.entry import fingerprint, parse_entries, parse_entry
from jaxtrack import get_tracker
from jaxtrack.base import Prediction, Tracker
from jaxtrack.cli import UsageError
from jaxtrack.errors import JaxtrackError
from jaxtrack.weights import save_weights


@pytest.mark.parametrize(
    ("text", "label", "source", "weights"),
    [
        ("siamfc", "siamfc", "siamfc", None),
        ("siamfc=a/b.pth", "siamfc-b", "siamfc", "a/b.pth"),
        ("siamfc=runs/mine/weights.safetensors", "siamfc-mine", "siamfc", "runs/mine/weights.safetensors"),
        ("siamfc=x.npz::model", "siamfc-x-model", "siamfc", "x.npz::model"),
        ("siamfc=we=ird.pth", "siamfc-we=ird", "siamfc", "we=ird.pth"),
        ("ours:siamfc", "ours", "siamfc", None),
        ("our best:siamfc=b.pth", "our best", "siamfc", "b.pth"),
    ],
)  # fmt: skip
def test_forms_of_an_entry(text, label, source, weights):
    entry = parse_entry(text)
    assert (entry.label, entry.source, entry.weights) == (label, source, weights)
    assert entry.tracker == get_tracker(source)
    assert entry.preset == "siamfc"


def test_changes_hold_for_all_rows_or_for_one():
    first, second = parse_entries(
        ["siamfc", "own:siamfc"], ["window_influence=.3", "own:scale_count=5"]
    )
    assert first.tracker.config.window_influence == second.tracker.config.window_influence == 0.3
    assert (first.tracker.config.scale_count, second.tracker.config.scale_count) == (3, 5)
    assert (first.label, second.label) == ("siamfc,window_influence=.3", "own")
    assert first.preset is None
    assert second.changes == ("window_influence=.3", "scale_count=5")


@pytest.mark.parametrize(
    ("texts", "changes", "words"),
    [
        (["siamfcc"], [], "nearest: siamfc"),
        (["siamfc="], [], "give PRESET, PRESET=FILE"),
        ([""], [], "give PRESET, PRESET=FILE"),
        ([":siamfc"], [], "give PRESET, PRESET=FILE"),
        (["a:b:c:d"], [], "give PRESET, PRESET=FILE"),
        (["../up:siamfc"], [], "becomes a folder"),
        ([".hidden:siamfc"], [], "becomes a folder"),
        (["a\0b:siamfc"], [], "not printable"),
        (["x" * 200 + ":siamfc"], [], "longer than 100 bytes"),
        (["siamfc", "siamfc"], [], "two trackers are called 'siamfc'"),
        (["a.b.pth:siamfcc"], [], "a.b.pth"),
        (["no_such_module_here:TRACKER"], [], "no_such_module_here"),
        (["siamfc"], ["window_influence"], "give PATH=VALUE"),
        (["siamfc"], ["windw_influence=1"], "window_influence"),
        (["siamfc"], ["window_influence=much"], "window_influence"),
        (["siamfc"], ["siamrpn:window_influence=1"], "no row 'siamrpn'; rows: siamfc"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(texts, changes, words):
    with pytest.raises(UsageError) as error:
        parse_entries(texts, changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@dataclasses.dataclass(frozen=True)
class Config:
    step: float = 1.0
    learned: bool = False


def _variables(config, key):
    return {"params": {"gain": jnp.ones(2)}} if config.learned else {}


def test_a_fingerprint_changes_with_the_code_of_a_tracker(tmp_path, monkeypatch):
    """What was tracked by other code, in any module of its package, is not kept."""
    package = tmp_path / "their_tracker"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "steps.py").write_text("STEP = 0\n")
    (package / "tracker.py").write_text(
        "from jaxtrack.base import Tracker\n"
        "from . import steps\n"
        "def init(*_): ...\n"
        "def track_frame(*_): ...\n"
        "TRACKER = Tracker((), lambda *_: {}, init, track_frame)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    record = parse_entry("their_tracker.tracker:TRACKER").tracker

    def now() -> str:
        code.of_package.cache_clear()
        return fingerprint(record, {})

    before = now()
    assert now() == before
    (package / "steps.py").write_text("STEP = 50\n")
    assert now() != before


def test_a_fingerprint_knows_the_code_of_this_library():
    ours = {"jaxtrack": "ops/crop.py", "eval.tracking": "slots.py"}
    for name, file in ours.items():
        module = importlib.import_module(name)
        assert (pathlib.Path(module.__path__[0]) / file).is_file()
        assert code.of_package(name) in code.of_functions()
        assert code.of_package(name) != code.of_package("no such package")


def _init(config, variables, frame, box, frame_size):
    return {"box": box}


def _track(config, variables, state, frame):
    box = state["box"] + config.step
    return {"box": box}, Prediction(box, jnp.float32(1))


@pytest.fixture
def outside(monkeypatch):
    """A module of somebody else that holds a tracker with nothing to learn, and one with."""
    module = types.ModuleType("somebody_elses")
    module.PLAIN = Tracker(Config(), _variables, _init, _track)
    module.LEARNED = Tracker(Config(learned=True), _variables, _init, _track)
    monkeypatch.setitem(sys.modules, "somebody_elses", module)
    return module


def test_a_tracker_of_others(outside, tmp_path):
    entry = parse_entry("somebody_elses:PLAIN", ["step=2"])
    assert entry.tracker.config == Config(step=2.0)
    assert entry.label == "PLAIN,step=2"
    assert entry.preset is None
    assert entry.load() == {}
    named = parse_entry("ours:somebody_elses:PLAIN")
    assert named.label == "ours"
    learned = parse_entry("somebody_elses:LEARNED")
    with pytest.raises(
        JaxtrackError, match=r"the file of its weights \(somebody_elses:LEARNED=FILE\)"
    ):
        learned.load()
    save_weights(tmp_path / "w.safetensors", {"params": {"gain": np.full(2, 3.0, np.float32)}})
    loaded = parse_entry(f"somebody_elses:LEARNED={tmp_path / 'w.safetensors'}").load()
    np.testing.assert_array_equal(loaded["params"]["gain"], [3, 3])


def test_a_change_that_the_weights_do_not_fit_is_told():
    entry = parse_entry("siamfc-tiny", ["window_influence=.2"])
    assert jax.tree.leaves(entry.load())
    entry = parse_entry("siamfc-tiny", ["network.channels=4,4,4,4,4"])
    with pytest.raises(JaxtrackError, match="--tracker siamfc-tiny"):
        entry.load()


def test_a_fingerprint_changes_with_what_results_depend_on(outside):
    values = {"params": {"gain": np.ones(2, np.float32)}}
    plain = fingerprint(outside.PLAIN, values)
    assert plain == fingerprint(outside.PLAIN, jax.tree.map(np.copy, values))
    others = [
        fingerprint(outside.LEARNED, values),
        fingerprint(outside.PLAIN, {"params": {"gain": np.full(2, 2, np.float32)}}),
        fingerprint(outside.PLAIN, {"params": {"bias": np.ones(2, np.float32)}}),
        fingerprint(dataclasses.replace(outside.PLAIN, track_frame=_init), values),
    ]
    assert len({plain, *others}) == 5
