"""Where tracked frames go: a video, text files, a window, or the standard output."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from typing import TextIO

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from jaxtrack.cli import UsageError
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.boxes import format_box
from jaxtrack.io.video import FrameSource
from jaxtrack.io.writer import VideoWriter, draw_boxes
from jaxtrack.streaming import Piece

_WINDOW = "jaxtrack"
_KEYS_TO_STOP = (ord("q"), 27)


class Outputs:
    """The outputs that were asked for; what has been taken is kept whatever happens next."""

    def __init__(
        self,
        source: FrameSource,
        targets: int,
        stack: contextlib.ExitStack,
        *,
        video: str | None,
        boxes: str | None,
        show: bool,
    ) -> None:
        """Open the outputs.

        Args:
            source: whose frames will come.
            targets: number of targets.
            stack: closes the files.
            video: file for the frames with the boxes drawn into them.
            boxes: text file for the boxes; one for each target where there are several.
            show: show the frames in a window.

        Raises:
            JaxtrackError: a file that cannot be written.
        """
        self.show = show
        self.video: VideoWriter | None = None
        self.texts: list[TextIO] = []
        self.paths: list[pathlib.Path] = []
        if video is not None:
            writer = VideoWriter(video, source.size, source.fps)
            self.video = stack.enter_context(writer)
            self.paths.append(writer.path)
        if boxes is not None:
            self._open_texts(pathlib.Path(boxes), targets, stack)
        self.print = not (video or boxes or show)

    def _open_texts(self, path: pathlib.Path, targets: int, stack: contextlib.ExitStack) -> None:
        names = [f"{path.stem}-{i}{path.suffix}" for i in range(1, targets + 1)]
        for name in names if targets > 1 else [path.name]:
            place = path.with_name(name)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                self.texts.append(stack.enter_context(place.open("w", encoding="utf-8")))
            except OSError as error:
                raise JaxtrackError(f"{place}: cannot be written ({error.strerror})") from error
            self.paths.append(place)

    def take(self, piece: Piece) -> bool:
        """Write a piece; False when the user has had enough."""
        boxes, scores = piece.tracks
        for target, file in enumerate(self.texts):
            file.writelines(f"{format_box(box)}\n" for box in boxes[target])
            file.flush()  # a run that is killed leaves what it had found
        for i, frame in enumerate(piece.frames):
            labels = [
                _label(n, float(value), len(boxes)) for n, value in enumerate(scores[:, i], 1)
            ]
            if self.video is not None:
                self.video.write(frame, boxes[:, i], labels)
            if self.show and not _shown(draw_boxes(frame, boxes[:, i], labels)):
                return False
            if self.print:
                for n, (box, score) in enumerate(zip(boxes[:, i], scores[:, i]), 1):
                    print(f"{piece.start + i},{n},{format_box(box)},{score:.4f}")
        return True

    def written(self) -> str:
        """What was written, for the last line."""
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
