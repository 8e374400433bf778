"""Slots give what one video after the other gives; errors name their sequence."""

import dataclasses
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.metrics.annotation import Annotation
from eval.metrics.eao import FAILED, INITIALISED, REGION, SKIPPED
from eval.metrics.regions import region_overlap
from eval.tracking import baselines, restart
from eval.tracking import slots as runner
from eval.tracking.sequences import Sequence, load
from jaxtrack.base import Prediction, Tracker
from jaxtrack.errors import JaxtrackError, UsageError


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


@pytest.mark.parametrize(("slots", "devices"), [(1, 2), (4, 4), (5, 3), (5, 2)])
def test_devices_change_nothing(slots, devices):
    alone = tracks(1, 4)
    options = {"slots": slots, "chunk": 4, "devices": devices}
    together = dict(runner.run(FAKE, jnp.float32(1), SEQUENCES, **options))
    assert sorted(together) == sorted(alone)
    for name, track in together.items():
        np.testing.assert_allclose(track.boxes, alone[name].boxes, atol=1e-5)


def test_lanes_lie_on_all_devices():
    lanes = runner.TrackerLanes(FAKE, jnp.float32(1), (24, 30), 6, 2, devices=4)
    assert lanes.count == 8
    lanes.start(3, np.zeros((24, 30, 3), np.uint8), np.array([1.0, 2, 3, 4]))
    assert len(lanes._states.box.sharding.device_set) == 4
    boxes, scores = lanes.step(np.zeros((8, 2, 24, 30, 3), np.uint8))
    assert boxes.shape == (8, 2, 4)
    assert scores.shape == (8, 2)
    assert len(lanes._states.box.sharding.device_set) == 4


@pytest.mark.parametrize("devices", [0, 5])
def test_devices_that_are_not_there_are_told(devices):
    with pytest.raises(JaxtrackError, match=rf"--devices {devices}: 4 here \(cpu\)"):
        list(runner.run(FAKE, jnp.float32(1), SEQUENCES, devices=devices))


SPEED = jnp.float32(2)  # faster than the targets: the fake tracker loses them again and again


def supervised_alone(sequence):
    """Frame by frame, as the protocol says it."""
    frames, truth = list(sequence.frames()), restart.usable_truth(sequence.annotation)
    codes, boxes, state, wait = [], np.full((sequence.length, 4), np.nan), None, 0
    for i, frame in enumerate(frames):
        if wait:
            wait -= 1
            codes.append(SKIPPED)
        elif state is None:
            known = np.isfinite(truth[i, 0])
            codes.append(INITIALISED if known else SKIPPED)
            if known:
                box = jnp.asarray(sequence.boxes[i], jnp.float32)
                state = _init(0, SPEED, frame, box, jnp.asarray(frame.shape[:2]))
        else:
            state, found = _track(0, SPEED, state, frame)
            box = np.asarray(found.box, np.float64)[None]
            overlap = region_overlap(box, truth[i : i + 1], sequence.size[::-1])[0]
            if np.isnan(truth[i, 0]) or overlap > 0:
                codes.append(REGION)
                boxes[i] = box[0]
            else:
                codes.append(FAILED)
                state, wait = None, 4
    return np.array(codes), boxes


def long_sequences():
    made = [sequence(f"v{i}", n, (40 + 4 * i, 60), i) for i, n in enumerate((33, 41, 1, 25, 38))]
    absent = np.zeros(41, bool)
    absent[9:17] = True
    annotation = Annotation(made[1].boxes, absent, size=made[1].size[::-1])
    boxes = made[3].boxes.copy()
    boxes[12:15] = np.nan
    gaps = Annotation(boxes, size=made[3].size[::-1])
    made[1] = dataclasses.replace(made[1], annotation=annotation)
    made[3] = dataclasses.replace(made[3], annotation=gaps, boxes=boxes)
    return made


@pytest.mark.parametrize(
    ("slots", "chunk", "devices"), [(1, 8, 1), (2, 3, 1), (4, 1, 1), (3, 5, 2)]
)
def test_restarts_are_those_of_one_frame_after_the_other(slots, chunk, devices):
    sequences, counts = long_sequences(), []
    options = {"slots": slots, "chunk": chunk, "devices": devices}
    runs = dict(restart.run(FAKE, SPEED, sequences, progress=counts.append, **options))
    assert sorted(runs) == sorted(s.name for s in sequences)
    assert sum(counts) == sum(s.length for s in sequences)
    failures = 0
    for one in sequences:
        codes, boxes = supervised_alone(one)
        np.testing.assert_array_equal(runs[one.name].codes, codes)
        np.testing.assert_allclose(runs[one.name].regions, boxes, atol=1e-4)
        failures += len(runs[one.name].failures)
    assert failures >= 4


def test_which_protocols_restart():
    assert restart.plan_of("synthetic", None) is None
    assert restart.plan_of("vot2018", "lasot_matlab") is None
    assert restart.plan_of("otb", "vot2019").year.name == "vot2019"
    assert restart.plan_of("vot2016", None).protocols == ("pysot", "vot_toolkit")
    assert restart.plan_of("vot2016", "vot_toolkit").protocols == ("vot_toolkit",)


def test_progress_counts_every_frame():
    counts = []
    list(runner.run(FAKE, jnp.float32(1), SEQUENCES, slots=2, progress=counts.append))
    assert sum(counts) == sum(LENGTHS)


def readable(sequence):
    """The same sequence, its frames opened one by one."""
    frames = np.stack(list(sequence.frames()))
    return dataclasses.replace(sequence, read=frames.__getitem__)


@pytest.mark.parametrize("devices", [1, 2])
def test_frames_opened_one_by_one_change_nothing(devices):
    options = {"slots": 4, "chunk": 4, "devices": devices}
    some = [readable(s) if i % 2 else s for i, s in enumerate(SEQUENCES)]
    together = dict(runner.run(FAKE, jnp.float32(1), some, **options))
    for name, track in tracks(4, 4).items():
        np.testing.assert_array_equal(together[name].boxes, track.boxes)
        np.testing.assert_array_equal(together[name].scores, track.scores)
    sequences = long_sequences()
    runs = dict(restart.run(FAKE, SPEED, [readable(s) for s in sequences], **options))
    for name, run in restart.run(FAKE, SPEED, sequences, **options):
        np.testing.assert_array_equal(runs[name].codes, run.codes)


def test_small_videos_are_not_padded_to_the_largest():
    sizes = [(480, 640), (720, 1280), (240, 320), (640, 480), (230, 310), (720, 1280)]
    found = runner.grouped(sizes, lambda size: size)
    assert [(canvas, sorted(group)) for canvas, group in found] == [
        ((720, 1280), [(720, 1280), (720, 1280)]),
        ((640, 640), [(480, 640), (640, 480)]),
        ((256, 320), [(230, 310), (240, 320)]),
    ]
    large = sequence("large", 6, (120, 150), 7)
    counts = []
    found = dict(
        runner.run(FAKE, jnp.float32(1), [*SEQUENCES, large], slots=3, progress=counts.append)
    )
    assert sum(counts) == sum(LENGTHS) + 6
    assert len(found["large"].boxes) == 6
    for name, track in tracks(3, 8).items():
        np.testing.assert_allclose(found[name].boxes, track.boxes, atol=1e-5)


def broken(name, **changes):
    return dataclasses.replace(SEQUENCES[1], name=name, **changes)


def bad_box(box):
    boxes = SEQUENCES[1].boxes.copy()
    boxes[0] = box
    return boxes


def other_size():
    yield from list(SEQUENCES[1].frames())[:3]
    yield np.zeros((9, 9, 3), np.uint8)


def unreadable(index):
    if index == 5:
        raise JaxtrackError("img/0006.jpg: truncated image")
    return next(SEQUENCES[1].frames())


BROKEN = {
    "no size": (broken("b", boxes=bad_box([5, 6, 0, 8])), r"b: the first box \[5, 6, 0, 8\] has no"),
    "not finite": (broken("b", boxes=bad_box([np.nan, 6, 3, 8])), "b: the first box"),
    "outside": (broken("b", boxes=bad_box([500, 6, 3, 8])), "b: .* lies outside the 30x28 frame"),
    "huge": (broken("b", boxes=bad_box([0, 0, 1e30, 8])), "b: .* far larger"),
    "few frames": (broken("b", length=30), "b: 17 frames, but 30 boxes"),
    "other size": (broken("b", frames=other_size), "b: frame 3 is 9x9, the first 30x28"),
    "unreadable": (broken("b", read=unreadable), "b: img/0006.jpg: truncated image"),
    "fault": (broken("b", fault="b: no pictures"), "b: no pictures"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_sequence_is_named_and_stops_no_other(kind):
    bad, words = BROKEN[kind]
    found = []
    with pytest.raises(runner.BrokenSequencesError, match=words) as error:
        found.extend(runner.run(FAKE, jnp.float32(1), [bad, *SEQUENCES], slots=2, chunk=4))
    assert list(error.value.faults) == ["b"]
    assert "\n" not in str(error.value)
    alone = tracks(1, 4)
    assert sorted(name for name, _ in found) == sorted(alone)
    for name, track in found:
        np.testing.assert_allclose(track.boxes, alone[name].boxes, atol=1e-5)


def test_a_broken_sequence_stops_no_restarts():
    bad = dataclasses.replace(long_sequences()[0], name="b", read=unreadable, size=(28, 30))
    found = []
    with pytest.raises(runner.BrokenSequencesError, match=r"b: img/0006\.jpg"):
        found.extend(restart.run(FAKE, SPEED, [bad, *long_sequences()], slots=2, chunk=4))
    assert len(found) == len(long_sequences())


def test_a_broken_sequence_lays_no_frame_among_the_next_ones(monkeypatch):
    """Frames of it that are still being decoded when it is given up would be laid in the lane's rows."""
    monkeypatch.setattr(runner, "decoders", lambda: 16)
    frames, begun = list(long_sequences()[0].frames()), threading.Event()

    def read(index):
        if index == 3:
            begun.set()
            time.sleep(0.3)
        return frames[index]

    def slow(index):
        if index == 1:
            raise JaxtrackError("img/0002.jpg: truncated image")
        if index > 1:
            begun.wait(2)
        return np.full_like(frames[0], 200)

    sound = dataclasses.replace(long_sequences()[0], read=read)
    alone = dict(restart.run(FAKE, SPEED, [sound], slots=1, chunk=4))[sound.name]
    begun.clear()
    bad = dataclasses.replace(sound, name="b", read=slow)
    found = []
    with pytest.raises(runner.BrokenSequencesError, match=r"b: img/0002\.jpg"):
        found.extend(restart.run(FAKE, SPEED, [bad, sound], slots=1, chunk=4))
    [(name, run)] = found
    assert name == sound.name
    np.testing.assert_array_equal(run.regions, alone.regions)


def test_several_broken_sequences_are_one_line():
    bad = [dataclasses.replace(BROKEN["fault"][0], name=f"b{i}") for i in range(7)]
    with pytest.raises(runner.BrokenSequencesError, match=r"^7 sequences .*\(b0, .*, \.\.\.\)"):
        list(runner.run(FAKE, jnp.float32(1), bad))


def test_a_bug_is_not_taken_for_a_broken_sequence():
    def bug(index):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(runner.run(FAKE, jnp.float32(1), [broken("b", read=bug)]))


PEERS = [name for name in baselines.names() if name != "static"]


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(
    "box", [[-5, -5, 8, 8], [60, 40, 50, 50], [3, 3, 0.1, 0.1], [0, 0, 64, 48]]
)
def test_peers_end_on_odd_boxes(name, box):
    odd = sequence("odd", 3, (48, 64), 1)
    odd = dataclasses.replace(odd, boxes=np.tile(np.asarray(box, float), (3, 1)))
    found, faults = [], {}
    try:
        found.extend(
            baselines.track(baselines.parse(name), [odd, sequence("sound", 3, (48, 64), 2)])
        )
    except runner.BrokenSequencesError as error:  # OpenCV's own refusal of what fills the frame
        faults = error.faults
    assert {*dict(found), *faults} == {"odd", "sound"}
    assert "sound" in dict(found)
    assert not any("\n" in fault for fault in faults.values())
    assert all(np.isfinite(track.boxes).all() for _, track in found)


@pytest.mark.parametrize("name", baselines.names())
@pytest.mark.parametrize("kind", ["not finite", "outside", "huge", "no size", "few frames"])
def test_peers_name_what_is_broken(name, kind):
    if kind == "few frames" and name == "static":
        pytest.skip("a box that never moves sees no frames")
    with pytest.raises(runner.BrokenSequencesError, match=r"^b: "):
        list(baselines.track(baselines.parse(name), [BROKEN[kind][0]]))


def test_peers_that_this_build_lacks_are_named_with_the_one_that_has_them(monkeypatch):
    monkeypatch.setattr(baselines, "_class_of", lambda name: None)
    for text in ("kcf", "csrt", "nano=a,b"):
        with pytest.raises(UsageError, match=f"--peer {text}: .*pip install opencv-contrib-python"):
            baselines.parse(text)
    with pytest.raises(UsageError, match="unknown peer 'goturn'"):
        baselines.parse("goturn")


def test_peers_whose_networks_are_files_need_them(tmp_path):
    with pytest.raises(UsageError, match="give nano=BACKBONE,NECKHEAD"):
        baselines.parse("nano")
    with pytest.raises(UsageError, match=r"give mil$"):
        baselines.parse("mil=some.onnx")
    with pytest.raises(UsageError, match="mil"):
        baselines.parse("mill")
    file = tmp_path / "net.onnx"
    with pytest.raises(JaxtrackError, match=r"net\.onnx: no such file"):
        baselines.parse(f"vit={file}")
    file.write_bytes(b"no network")
    peer = baselines.parse(f"vit={file}")
    assert peer.fingerprint() != dataclasses.replace(peer, files=()).fingerprint()
    with pytest.raises(JaxtrackError, match=r"OpenCV cannot use .*net\.onnx") as told:
        list(baselines.track(peer, []))
    assert "\n" not in str(told.value)


@pytest.mark.shared
def test_a_folder_in_otb_layout(shared_dir):
    (skiing,) = load("otb", shared_dir / "sequences", names=("Skiing",))
    assert skiing.length == 81
    assert skiing.origin == 1
    frame = next(skiing.frames())
    assert frame.shape[:2] == skiing.size
    np.testing.assert_allclose(skiing.boxes[:, :2] + 1, skiing.annotation.boxes[:, :2])
    with pytest.raises(JaxtrackError, match="Skying"):
        load("otb", shared_dir / "sequences", names=("Skying",))
