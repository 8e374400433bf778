"""Exported trackers: programs give the boxes of the tracker without this library; checkpoints come back."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack import __main__ as main
from jaxtrack import export, load_exported, trackers, weights
from jaxtrack.base import Prediction, Tracker
from jaxtrack.errors import JaxtrackError
from tests.parity.standin import frames as draw

TINY = [name for name in trackers.names() if name.endswith("-tiny")]
QUICK = [
    pytest.param(name, marks=() if name == "siamfc-tiny" else pytest.mark.slow) for name in TINY
]


def alive(preset: str, frames: np.ndarray, box: Any) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of the tracker itself, with its shipped weights."""
    tracker, variables = jaxtrack.get_tracker(preset), jaxtrack.load_weights(preset)
    state = jaxtrack.init(tracker, variables, frames[0], box)
    found: list[Any] = [(np.float32(box), np.float32("nan"))]
    for frame in frames[1:]:
        state, prediction = jaxtrack.track_frame(tracker, variables, state, frame)
        found.append(prediction)
    boxes, scores = (np.stack(part) for part in zip(*found))
    return boxes, scores


@pytest.mark.parametrize("preset", QUICK)
def test_programs_give_the_boxes_of_the_tracker(preset: str, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("flatbuffers")
    place = tmp_path / "new" / "exported"
    assert main.main(["export", preset, "--output", str(place)]) == 0
    frames, truth = draw(seed=7, count=4, height=120, width=160)
    boxes, scores = load_exported.track(frames, truth[0], place)
    want = alive(preset, frames, truth[0])
    np.testing.assert_array_equal(boxes, want[0])
    np.testing.assert_array_equal(scores, want[1])
    card = json.loads((place / "card.json").read_text())
    assert (card["preset"], card["platforms"]) == (preset, ["cpu", "cuda"])
    assert card["settings"] == json.loads(
        json.dumps(jaxtrack.settings.described(jaxtrack.get_tracker(preset).config))
    )
    assert card["frame"] == "uint8 (height, width, 3)"
    files = {"init.bin", "track_frame.bin", "weights.npz", "load.py"}
    assert set(card["sums"]) == files
    assert {path.name for path in place.iterdir()} == files | {"card.json"}
    for name, value in card["sums"].items():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == value


def test_the_loader_needs_jax_and_numpy_alone() -> None:
    text = pathlib.Path(load_exported.__file__).read_text()
    nodes = list(ast.walk(ast.parse(text)))
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}
    assert names == {"pathlib", "sys", "jax", "numpy"}


CLIP = np.zeros((3, 40, 50, 3), np.uint8)
LOADED = {
    "float": (CLIP / 255, "9,9,9,9", "frame 0 is float64 (40, 50, 3); uint8 RGB"),
    "grey": (CLIP[..., 0], "9,9,9,9", "frame 0 is uint8 (40, 50); uint8 RGB"),
    "channels first": (CLIP.transpose(0, 3, 1, 2), "9,9,9,9", "frame 0 is uint8 (3, 40, 50)"),
    "one frame": (CLIP[0], "9,9,9,9", "frame 0 is uint8 (50, 3)"),
    "no frame": (CLIP[:0], "9,9,9,9", "there are no frames"),
    "a number": (np.uint8(3), "9,9,9,9", "there are no frames"),
    "three": (CLIP, "1,2,3", "the box has the shape (3,); four numbers are wanted"),
    "words": (CLIP, "1,2,x,4", "the box '1,2,x,4' is not four numbers"),
    "nan": (CLIP, "nan,1,2,3", "the box nan,1,2,3 is not finite"),
    "beyond float32": (CLIP, "1e300,1,2,3", "the box inf,1,2,3 is not finite"),
    "negative": (CLIP, "18,12,-4,4", "the box 18,12,-4,4 is not finite or has no size"),
    "outside": (CLIP, "60 1 5 5", "the box 60,1,5,5 lies outside the 50x40 frame"),
    "huge": (CLIP, "-1e9 0 1e30 5", "is far larger than the 50x40 frame"),
    "no programs": (CLIP, " 9 , 9,9 9", "weights.npz: No such file"),
}


@pytest.mark.parametrize("kind", LOADED)
def test_mistakes_of_the_loader_are_one_line(
    kind: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frames, box, message = LOADED[kind]
    np.save(tmp_path / "a.npy", frames)
    monkeypatch.setattr(load_exported.track, "__defaults__", (tmp_path,))
    assert load_exported.main([str(tmp_path / "a.npy"), box]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert message in said.err
    assert (said.err.count("\n"), said.out) == (1, "")


def test_files_that_the_loader_cannot_read(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "several.npz", a=CLIP)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.asarray([None]), allow_pickle=True)
    np.save(tmp_path / "cut.npy", CLIP)
    os.truncate(tmp_path / "cut.npy", 500)
    for name, message in (
        ("none.npy", "No such file"),
        (".", "Is a directory"),
        ("several.npz", "not an archive of several"),
        *((f"{name}.npy", "no array of numpy's") for name in ("text", "empty", "objects", "cut")),
    ):
        assert load_exported.main([str(tmp_path / name), "9,9,9,9"]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: {tmp_path / name}: ")
        assert message in said
        assert said.count("\n") == 1
    for words in ([], ["a.npy"], ["a.npy", "9", "9", "9", "9"]):
        assert load_exported.main(words) == 2
        assert capsys.readouterr().err.startswith("usage: python load.py FRAMES.npy X,Y,W,H")


@pytest.mark.slow
def test_the_loader_prints_every_frame(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many there are: numpy's own text of an array leaves out the middle of a long one."""
    found = np.arange(2000.0).reshape(500, 4), np.linspace(0, 1, 500)
    np.save(tmp_path / "frames.npy", np.zeros((2, 4, 4, 3), np.uint8))
    monkeypatch.setattr(load_exported, "track", lambda frames, box: found)
    assert load_exported.main([str(tmp_path / "frames.npy"), "0,0,2,2"]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(np.array(rows, float)[:, :4], found[0])
    assert rows[250] == ["1000.0000", "1001.0000", "1002.0000", "1003.0000", "0.5010"]


@pytest.mark.parametrize("preset", TINY)
def test_programs_take_frames_of_any_size(preset: str, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("flatbuffers")
    assert main.main(["export", preset, "--output", str(tmp_path / "a")]) == 0
    for height, width in ((90, 200), (201, 117)):
        frames, truth = draw(seed=7, count=3, height=height, width=width)
        boxes, _ = load_exported.track(frames, truth[0], tmp_path / "a")
        np.testing.assert_allclose(boxes, alive(preset, frames, truth[0])[0], atol=1e-3)


@pytest.mark.slow
def test_the_loader_runs_elsewhere(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("flatbuffers")
    frames, truth = draw(seed=7, count=3, height=120, width=160)
    np.save(tmp_path / "frames.npy", frames)
    place = tmp_path / "exported"
    words = ["siamfc-tiny", "--output", str(place), "--size", "160x120"]
    assert export.main([*words, "--set", "window_influence=0.3"]) == 0
    box = ",".join(f"{v:g}" for v in truth[0])
    # -S -I: nothing of the checkout can be imported, and a finder refuses the library by name.
    code = (
        "import runpy, sys; sys.modules['jaxtrack'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(place / "load.py"), "frames.npy", box]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    shown = np.array([line.split(",") for line in done.stdout.splitlines()], float)
    tracker = jaxtrack.get_tracker("siamfc-tiny", window_influence=0.3)
    variables = jaxtrack.load_weights("siamfc-tiny")
    found = jaxtrack.track(tracker, variables, frames, truth[0])
    np.testing.assert_allclose(shown[:, :4], found.boxes[0], atol=1e-4)
    np.testing.assert_allclose(shown[:, 4], found.scores[0], atol=1e-4)
    with pytest.raises(
        ValueError, match=r"frames are \(100, 160, 3\), these programs were made for"
    ):
        load_exported.track(frames[:, :100], truth[0], place)


KINDS = [
    "siamfc",
    "siamfc-v2",
    "siamfc-mlt",
    "siamrpnpp-r50",
    "siamrpnpp-r50-lt",
    "siamrpnpp-mobilev2",
]
KINDS += ["siamrpnpp-alex", "ostrack-256", "ostrack-256-ce", "tadt", "tadt-code", "tadt-matlab"]
KINDS += ["mlt", "mlt-mt", "mlt-mt-ft", "mlt-noattention"]


@pytest.mark.slow
@pytest.mark.parametrize("preset", KINDS)
def test_every_kind_of_preset_can_be_exported(preset: str) -> None:
    """For both platforms, for frames of any size, on a machine without a GPU."""
    made = export.programs(trackers.get(preset))
    assert made.track_frame.platforms == ("cpu", "cuda")
    assert len(made.track_frame.mlir_module_serialized) > 1000


@pytest.mark.parametrize("preset", TINY)
def test_checkpoints_under_published_names_come_back(
    preset: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.pth"
    assert main.main(["export", preset, "--torch", str(path)]) == 0
    assert f"wrote {path} under " in capsys.readouterr().err
    before, after = jaxtrack.load_weights(preset), jaxtrack.load_weights(preset, path)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    state = weights.read_torch(path)
    names = {"siamfc": "backbone.conv1.0.weight", "ostrack": "backbone.blocks.0.attn.qkv.weight"}
    names |= {"siamrpnpp": "backbone.features.0.weight"}
    wanted = names.get(preset.removesuffix("-tiny"))
    assert wanted is None or wanted in state


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Settings of a tracker that has none."""


def _callback(config: Any, variables: Any, state: Any, frame: Any) -> tuple[Any, Prediction]:
    box = jax.pure_callback(lambda box: box, state, state)
    return box, Prediction(box, jnp.ones(()))


def _fixed(config: Any, variables: Any, state: Any, frame: Any) -> tuple[Any, Prediction]:
    rows = frame.reshape(-1, 5) if frame.shape[0] > 50 else frame
    box = state + rows[0].sum() * 0.0
    return box, Prediction(box, jnp.ones(()))


def own(track_frame: Any) -> Tracker:
    return Tracker(
        Nothing(),
        lambda config, key: {"params": {}, "batch_stats": {}},
        lambda config, variables, frame, box, frame_size: box,
        track_frame,
    )


def test_what_cannot_be_exported_is_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JaxtrackError, match=r"^track_frame of this tracker cannot be exported"):
        export.programs(own(_callback))
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(JaxtrackError, match="pip install flatbuffers"):
        export.write_programs(tmp_path / "a", own(_fixed), {}, (100, 50))
    with pytest.raises(JaxtrackError, match=r"depends on the size of the frames.*--size WxH$"):
        export.programs(own(_fixed))
    assert export.programs(own(_fixed), (100, 50)).track_frame.in_avals[-1].shape == (100, 50, 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("siamfc-tiny", 2, "nothing to write: give --output DIR, --torch FILE.pth, or both"),
        ("siamfc-tinny --output a", 2, "nearest: siamfc-tiny"),
        ("siamfc --output a", 1, "no weights come with preset 'siamfc'"),
        ("siamfc-tiny --output full", 1, "full is not empty: name another --output"),
        ("siamfc-tiny --output file", 1, "file"),
        ("siamfc-tiny --output file/a", 1, "file/a: cannot be written"),
        ("siamfc-tiny --torch dir.pth", 1, "dir.pth: is a folder"),
        ("siamfc-tiny --torch w.pth --weights w.pth", 2, "w.pth: is also an input"),
        ("siamfc-tiny --torch x.txt", 2, "--torch x.txt: give a file whose name ends in .pth"),
        ("siamfc-tiny --torch x.pth --output x.pth", 2, "is the file of --torch, too"),
        ("siamfc-tiny --weights w.pth --output a", 1, "w.pth"),
        ("siamfc-tiny --output a --size 640", 2, "--size 640: give WxH"),
        ("siamfc-tiny --output a --size 0x9", 2, "--size 0x9: give WxH"),
        ("siamfc-tiny --output a --set windo=1", 2, "nearest: window_influence"),
        ("ostrack-tiny --output a --set search_size=192", 1, "--interpolate"),
    ],
)
def test_mistakes_are_one_line(
    words: str,
    status: int,
    message: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "dir.pth").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("")
    (tmp_path / "w.pth").write_bytes(b"no weights")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert main.main(["export", *words.split()]) == status
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
