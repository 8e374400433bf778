"""The command line: what it writes, what it says when something is wrong, and its exit status."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import __main__ as main
from jaxtrack import __version__, cli, loading, outputs, trackers
from jaxtrack.base import Prediction, Tracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import images, video, writer
from jaxtrack.io.text import read_numbers
from jaxtrack.settings import replaced
from jaxtrack.synthetic import world as synthetic
from jaxtrack.weights import save_weights


@dataclasses.dataclass(frozen=True)
class Speed:
    pixels: float


def drift(config: Speed, variables: Any, state: Any, frame: Any) -> tuple[Any, Prediction]:
    """A tracker that moves right by two pixels a frame and is always half sure."""
    state = state + jnp.asarray([config.pixels, 0, 0, 0])
    return state, Prediction(state, jnp.float32(0.5))


DRIFT = Tracker(
    Speed(2.0),
    lambda config, key: {"params": {}, "batch_stats": {}},
    lambda config, variables, frame, box, frame_size: jnp.asarray(box),
    drift,
)


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> None:
    """All presets are the drifting tracker; JAX's settings stay alone."""
    monkeypatch.setattr(trackers, "get", lambda name: DRIFT)
    monkeypatch.setattr(loading, "load_weights", lambda tracker, path=None, **more: {})
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Eleven frames of 64x48."""
    place = tmp_path / "frames"
    place.mkdir()
    for i in range(11):
        images.write_image(place / f"{i:03d}.png", np.full((48, 64, 3), 10 * i, np.uint8))
    return place


def path_of(start: tuple[float, ...], count: int) -> np.ndarray:
    return np.asarray(start) + 2 * np.arange(count)[:, None] * [1, 0, 0, 0]


@pytest.mark.usefixtures("drifting")
def test_track_writes_video_and_boxes(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, text = tmp_path / "out.mp4", tmp_path / "deep" / "boxes.txt"
    status = main.main(
        f"track {folder} --box 5,6,20,10 --output {out} --boxes {text} --chunk 4".split()
    )
    said = capsys.readouterr()
    assert status == 0
    assert said.out == ""
    assert "siamfc-tiny on cpu: 11 frames, 1 target" in said.err
    assert f"wrote {out}, {text}" in said.err
    np.testing.assert_array_equal(read_numbers(text), path_of((5, 6, 20, 10), 11))
    frames = list(video.open_source(out))
    assert len(frames) == 11
    # The box of frame 5 stands 10 pixels further right than in the first frame, in red.
    for index, left in ((0, 5), (5, 15)):
        column = frames[index][10, :, 0].astype(int) - frames[index][10, :, 2]
        assert column.argmax() in range(left - 2, left + 3)


@pytest.mark.usefixtures("drifting")
def test_track_several_targets(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "boxes.txt"
    assert main.main(f"track {folder} --box 5,6,20,10 --box 30,20,8,8 --boxes {text}".split()) == 0
    assert "2 targets" in capsys.readouterr().err
    for number, start in ((1, (5, 6, 20, 10)), (2, (30, 20, 8, 8))):
        rows = read_numbers(tmp_path / f"boxes-{number}.txt")
        np.testing.assert_array_equal(rows, path_of(start, 11))
    assert not text.exists()


@pytest.mark.usefixtures("drifting")
def test_track_prints_without_outputs(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["track", f"{folder}/00[0-2].png", "--box", "5,6,20,10"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0,1,5.0000,6.0000,20.0000,10.0000,nan",
        "1,1,7.0000,6.0000,20.0000,10.0000,0.5000",
        "2,1,9.0000,6.0000,20.0000,10.0000,0.5000",
    ]


@pytest.mark.usefixtures("drifting")
@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "no target: give --box X,Y,W,H"),
        (["1,2,3"], "--box: box '1,2,3' has 3 numbers; four are wanted"),
        (["1,2,x,4"], "'x' is not a number"),
        (["1,2,nan,4"], "not finite"),
        (["1,2,0,4"], "no size: width 0"),
        (["1,2,3,-4"], "no size: width 3 and height -4"),
        (["80,2,3,4"], "box (80, 2, 3, 4) has its centre outside the 64x48 frame"),
        (["5,6,20,10", "-30,2,3,4"], "box 2 (-30, 2, 3, 4) has its centre outside"),
        (["30,20,50,40"], "fits as two corners"),
    ],
)
def test_bad_boxes_are_usage_errors(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], boxes: list[str], message: str
) -> None:
    status = main.main(["track", str(folder), *(part for box in boxes for part in ("--box", box))])
    said = capsys.readouterr().err
    assert status == 2
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.usefixtures("drifting")
def test_bad_sources_fail_with_one_line(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "fake.mp4"
    fake.write_bytes(b"no video" * 99)
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "none.mp4", "none.mp4: no such file or folder"),
        (fake, "fake.mp4: cannot be opened as a video (truncated, or not a video)"),
        (tmp_path / "empty", "no images in this folder"),
    ):
        assert main.main(["track", str(source), "--box", "1,2,3,4"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert message in said
        assert said.count("\n") == 1


@pytest.mark.usefixtures("drifting")
def test_frames_before_a_bad_one_are_kept(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images.write_image(folder / "007.png", np.zeros((40, 64, 3), np.uint8))
    out, text = tmp_path / "out.mp4", tmp_path / "boxes.txt"
    status = main.main(f"track {folder} --box 5,6,20,10 --output {out} --boxes {text}".split())
    assert status == 1
    assert "007.png: 64x40, but the first frame 000.png is 64x48" in capsys.readouterr().err
    np.testing.assert_array_equal(read_numbers(text), path_of((5, 6, 20, 10), 7))
    assert video.open_source(out).length == 7


@pytest.mark.usefixtures("drifting")
def test_outputs_that_cannot_be_written(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    for option, status, message in (
        ("--output out.gif", 2, "unknown video format"),
        (f"--output {tmp_path}/file/out.mp4", 1, "out.mp4: cannot be written (Not a directory)"),
        (f"--boxes {tmp_path}/file/boxes.txt", 1, "boxes.txt: cannot be written (Not a directory)"),
        (f"--boxes {tmp_path}", 1, "is a folder, the name of a file is wanted"),
        ("--boxes /dev/full", 1, "/dev/full: is a device, pipe or socket"),
        ("--boxes /proc/x", 1, "/proc/x: cannot be written"),
        ("--boxes=", 2, "--boxes an empty path"),
        ("--scores", 2, "--scores: give the file"),
        ("--heatmap", 2, "--heatmap: give what it is drawn into"),
        ("--boxes a.mp4 --output ./a.mp4", 2, "is the file of --output, too"),
        ("--from 3 --to 2", 2, "--to 2 lies before --from 3"),
        ("--from -1", 2, "--from -1: give 0 or more"),
        ("--from 11", 1, "has frames 0 to 10, frame 11 is asked for"),
        ("--boxes s3://a/b.txt", 2, "a local path is wanted here"),
    ):
        assert main.main(f"track {folder} --box 5,6,20,10 {option}".split()) == status
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "frames"]
    assert main.main(f"track {folder} --box 5,6,20,10 --chunk 0".split()) == 2
    assert "--chunk 0: give from 1 to 4096" in capsys.readouterr().err


@pytest.mark.usefixtures("drifting")
def test_no_output_is_an_input(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under its own name, through a link, through a second name of the same file."""
    clip = tmp_path / "a.mp4"
    with writer.VideoWriter(clip, (48, 64)) as out:
        for _ in range(5):
            out.write(np.zeros((48, 64, 3), np.uint8))
    weights = tmp_path / "w.safetensors"
    for file in (weights, weights.with_suffix(".json"), folder / "groundtruth.txt"):
        file.write_text("kept")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    (tmp_path / "hard.mp4").hardlink_to(clip)
    (tmp_path / "up").symlink_to(".")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for name in ("a.mp4", "link.mp4", "hard.mp4", "up/a.mp4", "frames/../a.mp4"):
        for flag in ("--output", "--boxes"):
            call = ["track", str(clip), "--box", "5,6,20,10", flag, f"{tmp_path}/{name}"]
            assert main.main(call) == 2
            assert "is also an input" in capsys.readouterr().err
    call = ["track", clip.as_uri(), "--box", "5,6,20,10", "--output", str(clip)]
    assert main.main(call) == 1
    assert f"not an address (file://); give {clip}" in capsys.readouterr().err
    for name in ("w.safetensors", "w.json", "frames/003.png", "frames/groundtruth.txt"):
        words = f"track {folder} --box 5,6,20,10 --weights {weights} --boxes {tmp_path}/{name}"
        assert main.main(words.split()) == 2
        assert "is also an input" in capsys.readouterr().err
    # The text of the second of two targets is an output as well.
    (folder / "x-2.png").write_bytes((folder / "001.png").read_bytes())
    words = f"track {folder} --box 5,6,20,10 --box 5,6,20,10 --boxes {folder}/x.png"
    assert main.main(words.split()) == 2
    assert "x-2.png: is also an input" in capsys.readouterr().err
    assert all(p.read_bytes() == data for p, data in before.items())


@pytest.mark.usefixtures("drifting")
def test_a_part_of_a_clip(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(f"track {folder} --box 5,6,20,10 --from 3 --to 5".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["3", "4", "5"]
    clip = tmp_path / "a.mp4"
    with writer.VideoWriter(clip, (48, 64)) as out:
        for i in range(9):
            out.write(np.full((48, 64, 3), 25 * i, np.uint8))
    source = video.open_source(clip, 4, 7)
    assert (source.length, source.start) == (3, 4)
    assert [round(float(frame.mean()) / 25) for frame in source] == [4, 5, 6]
    with pytest.raises(JaxtrackError, match="has frames 0 to 8, frame 30 is asked for"):
        video.open_source(clip, 30)


@pytest.mark.usefixtures("drifting")
def test_a_clip_that_ends_before_the_last_frame_asked_for(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "note: the clip ends at frame 10, before --to"
    for words, said in (("--to 100", True), ("--from 3 --to 11", True), ("--to 10", False)):
        assert main.main(f"track {folder} --box 5,6,20,10 {words}".split()) == 0
        assert (note in capsys.readouterr().err) == said, words


@pytest.mark.usefixtures("drifting")
def test_no_output_replaces_an_annotation_of_the_custom_layout(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "car.1.mp4"
    with writer.VideoWriter(clip, (48, 64)) as out:
        for _ in range(5):
            out.write(np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "img").symlink_to(folder)
    kept = {
        clip: ("car.1.txt", "car.1.2.txt"),
        folder: ("frames.txt", "frames.3.txt"),
        f"{folder}/*.png": ("frames.txt",),
        tmp_path / "cat": ("cat.txt", "cat.2.txt"),
    }
    for source, names in kept.items():
        for name in names:
            words = ["track", str(source), "--box", "5,6,20,10", "--boxes", str(tmp_path / name)]
            (tmp_path / name).write_text("1,2,3,4\n")
            assert main.main(words) == 2, name
            assert "is also an input" in capsys.readouterr().err
            assert (tmp_path / name).read_text() == "1,2,3,4\n"
            (tmp_path / name).unlink()
            assert main.main(words) == 0  # nothing was there
            (tmp_path / name).unlink()
    for name in ("car.txt", "car.1.x.txt", "car.1-2.txt", "other.txt"):  # results of earlier runs
        words = ["track", str(clip), "--box", "5,6,20,10", "--boxes", str(tmp_path / name)]
        assert main.main(words) == main.main(words) == 0


@pytest.mark.usefixtures("drifting")
def test_scores_stand_behind_the_boxes(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = tmp_path / "boxes.txt"
    assert main.main(f"track {folder} --box 5,6,20,10 --boxes {text} --scores --to 1".split()) == 0
    assert text.read_text() == (
        "5.0000,6.0000,20.0000,10.0000,nan\n7.0000,6.0000,20.0000,10.0000,0.5000\n"
    )


@pytest.mark.usefixtures("drifting")
def test_the_first_box_of_a_benchmark(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def first(*words: str) -> str:
        assert main.main(["track", str(folder), "--first-box-from", *words]) == 0
        return capsys.readouterr().out.splitlines()[0]

    rows = "".join(f"{i + 1},{i + 2},20,10\n" for i in range(11))
    (folder / "groundtruth_rect.txt").write_text(rows)  # OTB counts from 1
    assert first(str(folder)) == "0,1,0.0000,1.0000,20.0000,10.0000,nan"
    assert first(str(folder), "--from", "4") == "4,1,4.0000,5.0000,20.0000,10.0000,nan"
    (folder / "groundtruth_rect.txt").rename(folder / "groundtruth.txt")
    assert first(str(folder)) == "0,1,1.0000,2.0000,20.0000,10.0000,nan"
    assert first(str(folder / "groundtruth.txt")) == "0,1,1.0000,2.0000,20.0000,10.0000,nan"
    (folder / "absence.label").write_text("0\n" * 11)  # GOT-10k counts from 1
    assert first(str(folder)) == "0,1,0.0000,1.0000,20.0000,10.0000,nan"
    (folder / "groundtruth.txt").write_text("nan,nan,nan,nan\n" * 11)
    assert main.main(["track", str(folder), "--first-box-from", str(folder)]) == 1
    assert "line 1: the target is not there in frame 0" in capsys.readouterr().err
    assert main.main(["track", str(folder), "--first-box-from", str(tmp_path)]) == 1
    assert "no annotation (looked for" in capsys.readouterr().err


@pytest.mark.usefixtures("drifting")
def test_settings_from_outside(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "get", lambda name: dataclasses.replace(DRIFT, config=Speed(2.0)))
    assert main.main(f"track {folder} --box 5,6,20,10 --to 1 --set pixels=7".split()) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1,1,12.0000,")
    assert main.main(f"track {folder} --box 5,6,20,10 --set pixel=7".split()) == 2
    assert "Speed has no field 'pixel'; nearest: pixels" in capsys.readouterr().err


def test_a_tracker_of_somebody_else(
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    words = f"track {folder} --box 5,6,20,10 --to 1 --tracker tests.test_main:DRIFT"
    assert main.main(words.split()) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1,1,7.0000,")
    assert main.main(words.replace("DRIFT", "DRAFT").split()) == 1
    assert "tests.test_main has no DRAFT; nearest: DRIFT" in capsys.readouterr().err


def test_presets_and_weights_that_are_not_there(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    for options, status, message in (
        ("--tracker siamfc-tyni", 2, "unknown tracker preset 'siamfc-tyni'; nearest: siamfc-tiny"),
        ("--tracker siamfc", 1, "no weights come with preset 'siamfc'"),
        ("--weights none.pth", 1, "none.pth: no such file"),
    ):
        assert main.main(f"track {folder} --box 5,6,20,10 {options}".split()) == status
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_weights_of_another_network_print_both_lists(
    folder: pathlib.Path,
    golden_dir: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    path = golden_dir / "weights" / "ostrack_zip.pth"
    assert main.main(f"track {folder} --box 5,6,20,10 --weights {path}".split()) == 1
    said = capsys.readouterr().err
    assert "in the file, without a place here: 0.weight" in said
    assert "wanted here, not in the file: backbone.conv1" in said


@pytest.mark.parametrize(
    "words", [[], ["trak"], ["track"], ["track", "a", "--boxs", "x"], ["info", "x", "y"]]
)
def test_wrong_calls_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert "--help" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "taught"),
    [
        (["--help"], ["track", "info", "demo", "jaxtrack demo"]),
        (
            ["track", "--help"],
            ["--box 120,80,64,48 --output", "X,Y,W,H", "SOURCE", "--weights FILE"],
        ),
        (["demo", "--help"], ["nothing has to be downloaded"]),
        (["--version"], [f"jaxtrack {__version__}\n"]),
    ],
)
def test_help_teaches(
    words: list[str], taught: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == 0
    said = capsys.readouterr().out
    for text in taught:
        assert text in said


@pytest.mark.parametrize("name", ["train", "prepare", "eval", "score", "submit", "search", "speed"])
def test_commands_hand_over(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([name, "--no-such-flag", "x"]) == 2
    said = capsys.readouterr().err
    assert "--no-such-flag" in said
    assert f"(jaxtrack {name} --help)" in said
    assert said.count("\n") == 1


def test_the_face_of_the_package() -> None:
    import jaxtrack
    from jaxtrack.ops.precision import Choice

    assert main.Precision == Choice
    for name in jaxtrack.__all__:
        assert getattr(jaxtrack, name) is not None
    assert set(jaxtrack.__all__) <= set(dir(jaxtrack))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jaxtrack.nothing
    # A mistake in the call is told before JAX is loaded.
    code = "import sys; from jaxtrack.__main__ import main; main(['track']); print('jax' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(main.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["info"]) == 0
    said = capsys.readouterr().out
    for text in ("jaxtrack 0.", f"jax {jax.__version__}", "Devices:", "(cpu)", "siamfc-tiny"):
        assert text in said


def test_info_lists_what_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["info", "siamfc-tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("scale_count=3  (odd, 1 or more)")
    assert lines[place + 1] == "    scales searched at each frame (odd)."
    assert "template_update.share=0.3  (from 0 to 1)" in lines
    assert "confidence.rule=margin  (response|margin)" in lines
    assert "network.final_norm=False  (true|false)" in lines
    assert max(map(len, lines)) <= 100
    # What is listed can be given back.
    fields = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    config = trackers.get("siamfc-tiny").config
    assert replaced(config, fields) == config
    assert main.main(["info", "siamfc-tinny"]) == 2
    assert "siamfc-tiny" in capsys.readouterr().err


def test_debug_shows_the_traceback(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(f"track {tmp_path}/none.mp4 --box 1,2,3,4 --debug".split()) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.rstrip().endswith("no such file or folder")


@pytest.mark.usefixtures("drifting")
def test_show_needs_a_screen(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main.main(f"track {folder} --show".split()) == 1
    assert "--show needs a screen" in capsys.readouterr().err


class Window:
    """Stands for OpenCV's windows: the user draws a box and presses q at the sixth frame."""

    def __init__(self, drawn: tuple[int, ...]) -> None:
        self.drawn = drawn
        self.shown: list[np.ndarray] = []

    def select(self, name: str, image: np.ndarray) -> tuple[int, ...]:
        return self.drawn

    def show(self, name: str, image: np.ndarray) -> None:
        self.shown.append(image)

    def key(self, delay: int) -> int:
        return ord("q") if len(self.shown) == 6 else 255


@pytest.mark.usefixtures("drifting")
@pytest.mark.parametrize("drawn", [(5, 6, 20, 10), (0, 0, 0, 0)])
def test_show_lets_the_user_draw_and_stop(
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    drawn: tuple[int, ...],
) -> None:
    window = Window(drawn)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "selectROI", window.select)
    monkeypatch.setattr(cv2, "imshow", window.show)
    monkeypatch.setattr(cv2, "waitKey", window.key)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    text = tmp_path / "boxes.txt"
    status = main.main(f"track {folder} --show --boxes {text}".split())
    if drawn[2] == 0:
        assert status == 2
        assert "no box was drawn" in capsys.readouterr().err
        return
    assert status == 0
    assert len(window.shown) == 6
    np.testing.assert_array_equal(read_numbers(text), path_of(drawn, 6))


def test_interrupt_keeps_the_outputs(
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    drifting: None,
) -> None:
    take = outputs.Outputs.take

    def interrupted(self: outputs.Outputs, piece: Any, views: Any = None) -> bool:
        if piece.start > 4:
            raise KeyboardInterrupt
        return take(self, piece)

    monkeypatch.setattr(outputs.Outputs, "take", interrupted)
    out = tmp_path / "out.mp4"
    assert main.main(f"track {folder} --box 5,6,20,10 --output {out} --chunk 3".split()) == 130
    assert video.open_source(out).length == 7  # 1 + 3 + 3: the piece that starts at 7 came too late


@pytest.mark.usefixtures("drifting")
def test_demo(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = np.asarray([[4.0 + 2 * i, 10, 20, 20] for i in range(9)], np.float32)
    boxes[5, 0] += 20  # no overlap here: (0 + 7 * 1) / 8
    clip = synthetic.Clip(
        np.zeros((9, 48, 64, 3), np.uint8),  # type: ignore[arg-type]
        boxes,  # type: ignore[arg-type]
        np.zeros(9, bool),  # type: ignore[arg-type]
        np.zeros(3, bool),  # type: ignore[arg-type]
    )
    monkeypatch.setattr(synthetic, "benchmark_clips", lambda: iter([("01_plain", clip, ())]))
    out = tmp_path / "demo.mp4"
    assert main.main(["demo", "--output", str(out)]) == 0
    said = capsys.readouterr()
    assert f"9 frames, mean overlap with the truth 0.88; wrote {out}" in said.out
    assert video.open_source(out).length == 9
    assert main.main(["demo", "--clip", "1000"]) == 2
    assert "--clip 1000: the benchmark has clips 0 to" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_tracker_in_a_process_of_its_own(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """From the shell to the file: real preset, weights from a file, compilation cache filled."""
    tracker = trackers.get("siamfc-tiny")
    form = jax.eval_shape(
        lambda key: tracker.init_variables(tracker.config, key), jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: rng.uniform(0.5, 1, x.shape).astype(x.dtype), form)
    save_weights(tmp_path / "net.safetensors", drawn)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    words = f"track {folder} --box 5,6,20,10 --weights {tmp_path}/net.safetensors --boxes out.txt"
    done = subprocess.run(
        [sys.executable, "-m", "jaxtrack", *words.split()],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(pathlib.Path(main.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    rows = read_numbers(tmp_path / "out.txt")
    assert rows.shape == (11, 4)
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows[0], [5, 6, 20, 10])
    assert any((tmp_path / "cache" / "jaxtrack" / "compiled").iterdir())
