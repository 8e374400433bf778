"""Where tracked frames go: a video, text files, a window, or the standard output."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from jaxtrack.errors import JaxtrackError, UsageError, naming, reason
from jaxtrack.io.atomic import Pending
from jaxtrack.io.boxes import format_box
from jaxtrack.io.paths import output_file, same
from jaxtrack.io.video import FrameSource
from jaxtrack.io.writer import CODECS, VideoWriter, draw_boxes
from jaxtrack.streaming import Piece

_WINDOW = "jaxtrack"
_KEYS_TO_STOP = (ord("q"), 27)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The outputs that are asked for; where none is, boxes and scores go to the standard output.

    Attributes:
        video: file for the frames with the boxes drawn into them.
        boxes: text file for the boxes; one for each target where there are several.
        scores: write the score behind each box of the text file.
        show: show the frames in a window.
    """

    video: pathlib.Path | None = None
    boxes: pathlib.Path | None = None
    scores: bool = False
    show: bool = False

    def checked(self, targets: int, inputs: Iterable[pathlib.Path]) -> Wanted:
        """Return the same outputs, resolved, if they can be written and harm no input.

        Args:
            targets: number of targets.
            inputs: files that must stay as they are.

        Raises:
            UsageError: an output that is an input, or both outputs in one file.
            JaxtrackError: an output that cannot be written.
        """
        inputs = list(inputs)
        if self.video is not None and self.video.suffix.lower() not in CODECS:
            known = ", ".join(CODECS)
            raise UsageError(
                f"--output {self.video}: unknown video format; known suffixes: {known}"
            )
        if self.scores and self.boxes is None:
            raise UsageError("--scores: give the file that they are written to, --boxes TXT")
        if self.video is not None:
            output_file(self.video, inputs)
        for path in self.texts(targets):
            output_file(path, inputs)
            if self.video is not None and same(path, self.video):
                raise UsageError(f"--boxes {path}: is the file of --output, too")
        return self

    def texts(self, targets: int) -> list[pathlib.Path]:
        """Return the text files of so many targets."""
        if self.boxes is None:
            return []
        if targets == 1:
            return [self.boxes]
        name = self.boxes
        return [name.with_name(f"{name.stem}-{i}{name.suffix}") for i in range(1, targets + 1)]


class _Text:
    """A text file of boxes that appears when it is finished, whatever ended it."""

    def __init__(self, path: pathlib.Path) -> None:
        self._file = Pending(path)
        self._text = self._file.temporary.open("w", encoding="utf-8")
        self._lines = 0

    def write(self, lines: list[str]) -> None:
        with naming(self._file.path, "cannot be written"):
            self._text.writelines(lines)
        self._lines += len(lines)

    def __enter__(self) -> _Text:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._text.close()
        except OSError as error:
            self._file.keep_if_alone()
            raise JaxtrackError(
                f"{self._file.path}: cannot be written ({reason(error)})"
            ) from error
        if self._lines:
            self._file.keep()
        else:
            self._file.drop()


class Outputs:
    """The outputs that were asked for; what has been taken is kept whatever happens next."""

    def __init__(
        self, source: FrameSource, targets: int, stack: contextlib.ExitStack, wanted: Wanted
    ) -> None:
        """Open the outputs.

        Args:
            source: whose frames will come.
            targets: number of targets.
            stack: closes the files.
            wanted: what is asked for.

        Raises:
            JaxtrackError: a file that cannot be written.
        """
        self.show, self.scores = wanted.show, wanted.scores
        self.start = source.start
        self.video: VideoWriter | None = None
        self.paths: list[pathlib.Path] = []
        if wanted.video is not None:
            self.video = stack.enter_context(VideoWriter(wanted.video, source.size, source.fps))
            self.paths.append(self.video.path)
        names = wanted.texts(targets)
        self.texts = [stack.enter_context(_Text(path)) for path in names]
        self.paths += names
        self.print = not (wanted.video or wanted.boxes or wanted.show)

    def take(self, piece: Piece, views: Sequence[np.ndarray] | None = None) -> bool:
        """Write a piece; False when the user has had enough.

        Args:
            piece: frames, and what was found in them.
            views: pictures to draw the boxes into, in place of the frames.
        """
        boxes, scores = piece.tracks
        for target, file in enumerate(self.texts):
            file.write([self._row(*row) for row in zip(boxes[target], scores[target])])
        for i, frame in enumerate(views if views is not None else piece.frames):
            labels = [
                _label(n, float(value), len(boxes)) for n, value in enumerate(scores[:, i], 1)
            ]
            if self.video is not None:
                self.video.write(frame, boxes[:, i], labels)
            if self.show and not _shown(draw_boxes(frame, boxes[:, i], labels)):
                return False
            if self.print:
                for n, (box, score) in enumerate(zip(boxes[:, i], scores[:, i]), 1):
                    number = self.start + piece.start + i
                    print(f"{number},{n},{format_box(box)},{score:.4f}")
        return True

    def _row(self, box: np.ndarray, score: float) -> str:
        return f"{format_box(box)},{score:.4f}\n" if self.scores else f"{format_box(box)}\n"

    def written(self) -> str:
        """Return what was written, for the last line."""
        return f"; wrote {', '.join(map(str, self.paths))}" if self.paths else ""


def _label(number: int, score: float, targets: int) -> str:
    name = f"{number}: " if targets > 1 else ""
    return f"{name}start" if np.isnan(score) else f"{name}{score:.2f}"


def _shown(frame: np.ndarray) -> bool:
    """Show a frame in the window; False after q, Escape or when the window is closed."""
    cv2.imshow(_WINDOW, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    stop = cv2.waitKey(1) & 0xFF in _KEYS_TO_STOP
    return not stop and cv2.getWindowProperty(_WINDOW, cv2.WND_PROP_VISIBLE) >= 1


def require_display() -> None:
    """Check that a window can be opened.

    Raises:
        JaxtrackError: no screen (Qt would end the process without a word to us).
    """
    linux = sys.platform.startswith("linux")
    if linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise JaxtrackError(
            "--show needs a screen, and none is there (DISPLAY is not set); use --output VIDEO"
        )


def ask_box(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "1 4"]:
    """Let the user draw a box into a frame.

    Returns:
        ``(1, 4)`` ``x, y, w, h`` in pixels.

    Raises:
        UsageError: nothing was drawn.
        JaxtrackError: this OpenCV has no windows.
    """
    try:
        x, y, w, h = cv2.selectROI(_WINDOW, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise JaxtrackError(f"--show: this OpenCV cannot open a window ({error.err})") from error
    if w == 0 or h == 0:
        raise UsageError("no box was drawn")
    return np.asarray([[x, y, w, h]], np.float32)
