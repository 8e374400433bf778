"""Our trackers inside other people's toolkits: one frame in, one box out.

`FrameTracker` hides the state and the compiled canvas; `GOT10kTracker` is what got10k's experiments call.

    from got10k.experiments import ExperimentGOT10k
    tracker = GOT10kTracker("siamfc-tiny", jaxtrack.get_tracker(...), jaxtrack.load_weights(...))
    ExperimentGOT10k(root, subset="val").run(tracker)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxtrack import base as verbs
from jaxtrack.base import State, Tracker, Variables
from jaxtrack.checks import box_fault
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.images import read_image
from jaxtrack.streaming import pad_frame

CANVAS_STEP = 64


class FrameTracker:
    """A tracker that is handed frames one by one.

    Frames are padded to a canvas whose sides are multiples of `canvas_step`, so that videos of
    nearly the same size share one compiled program.

    Attributes:
        tracker: the tracker.
        variables: its learned values.
        canvas_step: pixels; 1 compiles for each frame size.
    """

    def __init__(
        self, tracker: Tracker, variables: Variables, canvas_step: int = CANVAS_STEP
    ) -> None:
        self.tracker = tracker
        self.variables = variables
        self.canvas_step = canvas_step
        self._state: State | None = None
        self._size: tuple[int, ...] = ()

    def warm_up(self, height: int, width: int) -> None:
        """Compile for a frame size before anybody waits for an answer.

        Args:
            height: of the frames, pixels.
            width: of the frames, pixels.
        """
        frame = np.zeros((height, width, 3), np.uint8)
        box = np.array([width / 4, height / 4, width / 8, height / 8], np.float32)
        kept = self._state, self._size
        self.init(frame, box)
        self.update(frame)
        self._state, self._size = kept

    def init(self, frame: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]) -> None:
        """Start tracking.

        Args:
            frame: uint8 RGB.
            box: (4,), (x, y, w, h), 0-based corner, pixels.

        Raises:
            JaxtrackError: the frame is no RGB image, or the box is empty, not finite, outside of it or far
                larger.
        """
        frame, box = _rgb(frame), np.asarray(box, np.float32).reshape(-1)
        height, width = frame.shape[:2]
        fault = box_fault(box, (height, width), "the first box")
        if fault is not None:
            raise JaxtrackError(fault)
        self._size = frame.shape
        self._state = verbs.init(
            self.tracker,
            self.variables,
            self._padded(frame),
            box,
            jnp.asarray((height, width), jnp.int32),
        )

    def update(self, frame: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "4"], float]:
        """Find the target in the next frame.

        Args:
            frame: uint8 RGB, of the first frame's size.

        Returns:
            The box (4,), (x, y, w, h), 0-based corner, pixels; and the tracker's score.

        Raises:
            JaxtrackError: nothing was initialised, or the frame has another size.
        """
        frame = _rgb(frame)
        if self._state is None:
            raise JaxtrackError("the tracker was not given a first frame: call init before update")
        if frame.shape != self._size:
            raise JaxtrackError(
                f"the frame has shape {frame.shape}, the first one {self._size}: start again with init"
            )
        self._state, found = verbs.track_frame(
            self.tracker, self.variables, self._state, self._padded(frame)
        )
        return np.asarray(found.box), float(found.score)

    def _padded(self, frame: np.ndarray) -> np.ndarray:
        step = self.canvas_step
        return pad_frame(
            frame, (-(-frame.shape[0] // step) * step, -(-frame.shape[1] // step) * step)
        )


def _rgb(image: Any) -> np.ndarray:
    """Frames as uint8 RGB arrays; PIL images and grey frames are converted."""
    if hasattr(image, "convert"):
        image = image.convert("RGB")
    frame = np.asarray(image)
    if frame.ndim == 2:
        frame = np.stack([frame] * 3, axis=-1)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise JaxtrackError(
            f"a frame of shape {frame.shape} and type {frame.dtype}: uint8 RGB (h, w, 3) is needed"
        )
    return frame


class GOT10kTracker:
    """A tracker as got10k's experiments call it (`name`, `is_deterministic`, `init`, `update`, `track`).

    Attributes:
        name: folder of the results.
        is_deterministic: one repetition is enough.
        origin: coordinate of the first pixel in the data set's annotation: 1 for GOT-10k, OTB, LaSOT,
            UAV123 and TC-128, 0 for others. It is taken off on the way in and added on the way out.
    """

    is_deterministic = True

    def __init__(
        self, name: str, tracker: Tracker, variables: Variables, origin: float = 1.0
    ) -> None:
        self.name = name
        self.origin = origin
        self._frames = FrameTracker(tracker, variables)

    def init(self, image: Any, box: Float[np.ndarray, "4"]) -> None:
        """Start tracking.

        Args:
            image: PIL image or uint8 RGB array.
            box: (4,), (x, y, w, h) in the data set's coordinates.
        """
        box = np.array(box, np.float64)
        box[:2] -= self.origin
        self._frames.init(_rgb(image), box)

    def update(self, image: Any) -> Float[np.ndarray, "4"]:
        """Find the target in the next frame.

        Args:
            image: PIL image or uint8 RGB array.

        Returns:
            float64 (4,), (x, y, w, h) in the data set's coordinates.
        """
        box = np.array(self._frames.update(_rgb(image))[0], np.float64)
        box[:2] += self.origin
        return box

    def track(
        self, img_files: Sequence[str], box: Float[np.ndarray, "4"], visualize: bool = False
    ) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "n"]]:
        """Track through a list of image files.

        Args:
            img_files: paths of the frames.
            box: (4,), the first frame's box in the data set's coordinates.
            visualize: show every frame with its box through got10k's own viewer.

        Returns:
            Boxes (n, 4) in the data set's coordinates and seconds (n,) per frame; decoding and
            compilation are not counted, as in got10k's own loop and ours.
        """
        boxes, times = np.zeros((len(img_files), 4)), np.zeros(len(img_files))
        boxes[0] = box
        for i, path in enumerate(img_files):
            frame = read_image(path)
            if i == 0:
                self._frames.warm_up(*frame.shape[:2])
            start = time.perf_counter()
            if i == 0:
                self.init(frame, boxes[0])
            else:
                boxes[i] = self.update(frame)
            times[i] = time.perf_counter() - start
            if visualize:
                from got10k.utils.viz import show_frame

                show_frame(frame, boxes[i])
        return boxes, times
