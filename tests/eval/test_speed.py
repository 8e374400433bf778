"""Figures of speed: peers, parts, a made benchmark, the suite, and mistakes in a call."""

import dataclasses
import json
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from eval import speed
from eval.timing import peers, suite, throughput
from eval.timing.tracker import Measured
from eval.tracking.entry import Entry
from jaxtrack.base import Prediction, Tracker
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.io import child


class State(NamedTuple):
    box: jax.Array


@dataclasses.dataclass(frozen=True)
class Config:
    step: float = 1.0


def _track(config, variables, state, frame):
    box = state.box + config.step * jnp.mean(frame[:4, :4].astype(jnp.float32)) / 255
    return State(box), Prediction(box, box[0])


PLAIN = Tracker(
    Config(), lambda config, key: {}, lambda config, variables, f, box, s: State(box), _track
)
ENTRY = Entry("plain", "outside:PLAIN", PLAIN)


def test_a_peer_tells_its_time():
    line = f"{sys.executable} -c \"print('x'); print('ms_per_frame 3.5')\""
    assert peers.peer_time(line) == 3.5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("echo nonsense", "printed no line"),
        ("echo ms_per_frame nan", "is no time"),
        ("echo ms_per_frame -3", "is no time"),
        ("echo ms_per_frame many", "is no time"),
        ("false", "status 1"),
        (f"{sys.executable} -c 'import sys; sys.exit(\"lost\")'", "status 1, lost"),
    ],
)
def test_a_peer_that_answers_nothing_is_named(line, words):
    with pytest.raises(JaxtrackError, match=words) as error:
        peers.peer_time(line)
    assert "\n" not in str(error.value)


def test_a_peer_that_never_answers_is_ended():
    with pytest.raises(JaxtrackError, match=r"no answer after 0\.5 s"):
        peers.peer_time("sleep 60", seconds=0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to measure"),
        (["--benchmark"], "nothing to measure"),
        (["--ops", "--suite"], "--suite and --ops"),
        (["--suite"], "needs --output"),
        (["--data", "d", "--output", "x.json"], "the figures of --data are printed only"),
        (["--suite", "--output", "x.json", "--presets", "nothing-so"], "no preset is called so"),
        (["--tracker", "siamfcc"], "nearest: siamfc"),
        (["--tracker", "siamfc", "--rounds", "0"], "--rounds"),
        (["--tracker", "siamfc", "--frames", "0"], "--frames"),
        (["--tracker", "siamfc", "--slots", "-1"], "--slots"),
        (["--tracker", "siamfc", "--set", "windo_influence=1"], "window_influence"),
        (["--tracker", "siamfc", "--peer", "echo 'x"], "No closing quotation"),
        (["--tracker", "siamfc", "--peer", ""], "empty command"),
        (["--tracker", "siamfc", "--peer", "no-such-program-here"], "no-such-program-here"),
        (["--suite", "--minutes", "0", "--output", "x.json"], "--minutes"),
    ],
)
def test_mistakes_in_a_call_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert speed.main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_made_benchmark_gives_all_rates(monkeypatch):
    monkeypatch.setattr(throughput, "SIZE", (48, 64))
    found = throughput.measure(ENTRY, throughput.Load(videos=3, length=5, slots=2, chunk=2))
    assert set(found) == {"decode", "tracking", "end_to_end", "share"}
    assert all(value > 0 for value in found.values())
    slower = min(found["decode"], found["tracking"])
    assert found["share"] == pytest.approx(found["end_to_end"] / slower)


def test_a_tracker_is_timed_alone_in_slots_and_with_targets():
    measured = Measured(ENTRY, 2)
    assert len(measured.frame_times()) == 2
    for seconds in (measured.clip_time(), measured.slots_time(2), measured.targets_time(2)):
        assert seconds > 0
    assert list(measured.parts(1)) == ["decode"]  # it cannot be taken apart


class Runs:
    """Processes of the suite, and how each ends."""

    def __init__(self, hang=(), fail=()):
        self.hang, self.fail, self.asked, self.seconds = hang, fail, [], []

    def __call__(self, words, seconds=None, capture=False, env=None, patience=None):
        text = " ".join(map(str, words[1:]))
        self.asked.append(text)
        self.seconds.append(seconds)
        if any(part in text for part in self.hang):
            return child.Ended(-15, "", "", True)
        if any(part in text for part in self.fail):
            return child.Ended(-11, "", "traceback\nSegmentation fault\n", False)
        output = "a device\n"
        if "tests.parity" in text:
            output = "x PASS\n12 passed, 0 failed\n"
        elif "train.speed list" in text:
            output = "siamfc-got10k\nsiamfc-tiny\nmlt-tiny-meta\n"
        elif "train.speed" in text:
            keys = ("batch", "ms_per_step", "pairs_per_second", "peak_gib", "compile_seconds")
            output = "note\n" + json.dumps({"recipe": words[3], **dict.fromkeys(keys, 2.0)}) + "\n"
        elif "--benchmark" in text:
            keys = ("decode", "tracking", "end_to_end", "share")
            self._write(words, dict.fromkeys(keys, 0.5))
        elif "eval.speed" in text:
            keys = ("ms_per_frame", "ms_per_frame_in_clip", "ms_init", "compile_init_s")
            row = dict.fromkeys((*keys, "compile_frame_s", "frames_per_second_2_slots"), 4.0)
            self._write(words, row)
        return child.Ended(0, output, "", False)

    @staticmethod
    def _write(words, row):
        name = words[words.index("--tracker") + 1]
        with open(words[words.index("--output") + 1], "w") as file:
            json.dump({"device": "d", name: row}, file)


def test_the_suite_measures_all_parts(tmp_path):
    output, runs = tmp_path / "suite.json", Runs()
    figures = suite.Suite(4, output, ["tiny"], run=runs).run(["echo ms_per_frame 7"])
    assert figures["failures"] == {}
    assert json.loads(output.read_text()) == figures
    assert list(figures["parity"].values()) == ["12 passed, 0 failed"] * 4
    assert "siamfc-tiny" in figures["trackers"]
    assert "siamfc" not in figures["trackers"]
    assert set(figures["training"]) == {"siamfc-tiny", "mlt-tiny-meta"}
    assert figures["peers"] == {"echo ms_per_frame 7": 7.0}
    page = suite.table(figures)
    assert "| siamfc-tiny | 4.00 | 4.00 | 4 | 4.0 | 8.0 |" in page
    assert "| mlt-tiny-meta | 2.0 | 2.0 | 2 | 2.0 | 2.0 |" in page
    assert "50 % of the slower" in page
    assert "- peer `echo ms_per_frame 7`: 7.00 ms a frame" in page


def test_the_suite_names_what_fails_and_goes_on(tmp_path):
    output = tmp_path / "suite.json"
    runs = Runs(
        hang=["--tracker siamfc-tiny --slots 2 --brief"], fail=["describe_device", "mlt-tiny-meta"]
    )
    figures = suite.Suite(4, output, ["tiny"], run=runs).run(["false"])
    assert figures["failures"]["versions"] == "status -11: Segmentation fault"
    assert "not done after" in figures["failures"]["trackers: siamfc-tiny"]
    assert figures["failures"]["training: mlt-tiny-meta"] == "status -11: Segmentation fault"
    assert "status 1" in figures["failures"]["peer false"]
    assert "siamrpnpp-tiny" in figures["trackers"]
    assert "benchmark" in figures
    assert json.loads(output.read_text()) == figures
    assert suite.table(figures).count("- failed: ") == 4


def test_the_suite_ends_in_time(tmp_path):
    runs = Runs()
    made = suite.Suite(4, tmp_path / "suite.json", ["tiny"], run=runs)
    made.end = 0.0
    figures = made.run(["echo ms_per_frame 7"])
    assert not runs.asked
    assert figures["failures"]["benchmark"] == "no time was left"
    assert figures["failures"]["peer echo ms_per_frame 7"] == "no time was left"


def test_a_slow_preset_leaves_time_for_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "cores", lambda: 2)
    made = suite.Suite(4, tmp_path / "suite.json")
    given = []
    made.wave("trackers", list("abcdefghij"), lambda name, seconds: given.append(seconds), 300)
    assert given[0] == pytest.approx(90, abs=1)  # three times an even share
    assert given[-1] == pytest.approx(300, abs=1)  # all that is left
    given.clear()
    made.wave("trackers", list("abcdefghij"), lambda name, seconds: given.append(seconds), 60)
    assert given[0] == pytest.approx(45, abs=1)  # enough for a small one


def test_the_suite_outlives_mistakes_of_its_own(tmp_path):
    output = tmp_path / "suite.json"
    made = suite.Suite(4, output)

    def wrong(name, seconds):
        return [][1]

    with made.part("trackers"):
        made.wave("trackers", ["a", "b"], wrong, 100)
    with made.part("versions"):
        raise AttributeError("no version")
    failures = json.loads(output.read_text())["failures"]
    assert failures["trackers: a"].startswith("IndexError: ")
    assert failures["versions"] == "AttributeError: no version"


def test_the_suite_hands_on_the_digits(tmp_path):
    runs = Runs()
    suite.Suite(4, tmp_path / "suite.json", ["tiny"], "bfloat16", run=runs).run([])
    measuring = [text for text in runs.asked if "--tracker" in text or "--seconds" in text]
    assert measuring
    assert all("--precision bfloat16" in text for text in measuring)


def test_figures_that_were_not_taken_in_quiet_are_marked():
    row = dict.fromkeys(("batch", "ms_per_step", "pairs_per_second", "peak_gib"), 2.0)
    row |= {"compile_seconds": 2.0, "quiet": False}
    page = suite.table({"training": {"a": row, "b": row | {"quiet": True}}})
    assert r"| a \* | 2.0" in page
    assert "| b | 2.0" in page
    assert "while others compiled" in page


def test_published_presets_come_first():
    names = ["siamfc", "x-padded", "siamfc-5s", "ostrack-tiny", "siamrpnpp-r50"]
    found = suite.chosen(names, (), ("siamrpnpp-r50", "siamfc"))
    assert found == ["siamrpnpp-r50", "siamfc", "siamfc-5s"]
    assert suite.chosen(names, ("tiny", "5s"), ()) == ["siamfc-5s", "ostrack-tiny"]


def test_peers_are_checked_before_anything_is_timed():
    with pytest.raises(UsageError, match="No closing quotation"):
        peers.words_of("python -c 'x")
