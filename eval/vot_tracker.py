"""A tracker for the VOT toolkit, over TraX or the toolkit's own Python protocol.

In the toolkit's `trackers.ini`:

    [jaxtrack]
    label = siamfc-tiny
    protocol = trax
    command = python -m eval.vot_tracker --tracker siamfc-tiny

or `protocol = traxpython`, `command = eval.vot_tracker` and `paths = FOLDER_OF_THE_CHECKOUT`; the
tracker is then named by the environment variable JAXTRACK_TRACKER, and a file of weights that are not the
shipped ones by JAXTRACK_WEIGHTS. Everything is compiled before the toolkit is answered: it waits for thirty
seconds only.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from jaxtrack import cli
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.io.images import read_image

from .tracking.adapters import FrameTracker
from .tracking.entry import parse_entry, with_weights

TRACKER, WEIGHTS = "JAXTRACK_TRACKER", "JAXTRACK_WEIGHTS"


@dataclasses.dataclass(frozen=True)
class Options:
    """Serve a tracker to the VOT toolkit.

    Attributes:
        tracker: preset of jaxtrack, PRESET=WEIGHTS_FILE, or package.module:TRACKER; by default the
            environment variable JAXTRACK_TRACKER.
        set: settings of the tracker, PATH=VALUE.
        weights: weights file; by default JAXTRACK_WEIGHTS, or else the shipped ones.
        size: width and height of the frames that are compiled for before the toolkit is answered.
        debug: show the traceback of errors.
    """

    tracker: str | None = None
    set: tuple[str, ...] = ()
    weights: str | None = None
    size: Annotated[tuple[int, int], cli.Range(low=1, high=16384)] = (640, 480)
    debug: bool = False


def box_of(region: Any) -> np.ndarray:
    """Return the upright box of a TraX region.

    Args:
        region: rectangle or polygon of the `trax` module.

    Returns:
        float32 (4,), (x, y, w, h), pixels.
    """
    if region.type == "rectangle":
        return np.array(region.bounds(), np.float32)
    points = np.array(list(region), np.float32).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([low, high - low])


def frame_of(images: Mapping[str, Any]) -> np.ndarray:
    """Read the colour image of a request.

    Args:
        images: channel -> TraX image.

    Returns:
        uint8 RGB (h, w, 3).

    Raises:
        JaxtrackError: there is no colour channel, or the file cannot be decoded.
    """
    if "color" not in images:
        raise JaxtrackError(f"the toolkit sent {', '.join(images)} images; colour ones are needed")
    return read_image(images["color"].path())


def serve(frames: FrameTracker) -> None:
    """Answer the toolkit until it hangs up.

    Args:
        frames: the tracker, warmed up.

    Raises:
        JaxtrackError: the `trax` module is missing, or a request cannot be answered.
    """
    try:
        import trax
    except ImportError as error:
        raise JaxtrackError("the TraX module is missing: pip install vot-trax") from error
    answer: list[tuple[Any, dict[str, float]]]
    with trax.Server([trax.Region.RECTANGLE], [trax.Image.PATH], ["color"]) as server:
        while True:
            request = server.wait()
            if request.type == "initialize":
                objects = list(request.objects)
                if len(objects) != 1:
                    raise JaxtrackError(f"the toolkit sent {len(objects)} objects; one is tracked")
                region, _ = objects[0]
                frames.init(frame_of(request.image), box_of(region))
                answer = [(region, {})]
            elif request.type == "frame":
                box, score = frames.update(frame_of(request.image))
                sent = trax.Rectangle.create(*(float(v) for v in box))
                answer = [(sent, {"confidence": score})]
            else:
                return
            server.status(answer)


def run(options: Options) -> None:
    """Load and compile the tracker, then serve it.

    Args:
        options: of the command line.

    Raises:
        JaxtrackError: no tracker was named, or as `serve`.
    """
    name = options.tracker or os.environ.get(TRACKER)
    if not name:
        raise UsageError(f"name a tracker: --tracker NAME, or set {TRACKER}")
    weights = options.weights
    if not weights and "=" not in name:
        weights = os.environ.get(WEIGHTS) or None
    entry = parse_entry(with_weights(name, weights), options.set)
    cli.use_compilation_cache()
    frames = FrameTracker(entry.tracker, entry.load())
    width, height = options.size
    frames.warm_up(height, width)
    serve(frames)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, run, "python -m eval.vot_tracker", arguments)


if __name__ == "__main__":
    sys.exit(main())
