"""Track with exported programs: ``python load.py FRAMES.npy X,Y,W,H`` prints a line for each frame.

The line is ``X,Y,W,H,SCORE``, as ``jaxtrack track --scores`` writes it (``nan`` for the given box).

``jaxtrack export`` lays a copy of this file beside the programs. It needs numpy and jax (and flatbuffers,
by which jax reads programs).
"""

import pathlib
import sys

import jax
import numpy as np
from jax import export

USAGE = (
    "usage: python load.py FRAMES.npy X,Y,W,H: uint8 RGB (t, h, w, 3), and a box in pixels from 0"
)
LARGEST_BOX = 10  # of the frame's longer side


def track(frames, box, folder=pathlib.Path(__file__).parent):  # type: ignore[no-untyped-def]
    """Return boxes ``(t, 4)``, x, y, w, h from 0, and scores of frames ``(t, h, w, 3)``, uint8 RGB.

    Raises:
        ValueError: frames of another kind or size, or a box that cannot start a tracker in the first one.
        OSError: a program or the weights are not there.
    """
    check_frames(frames)
    found = [(check_box(box, frames[0].shape), np.float32("nan"))]
    weights = jax.device_put(dict(np.load(folder / "weights.npz")))
    read = [(folder / f"{name}.bin").read_bytes() for name in ("init", "track_frame")]
    programs = [export.deserialize(data) for data in read]
    wanted = programs[0].in_avals[-3].shape  # the inputs: weights, frame, box, size
    if any(isinstance(n, int) and n != m for n, m in zip(wanted, frames[0].shape)):
        raise ValueError(f"frames are {frames[0].shape}, these programs were made for {wanted}")
    init, track_frame = (jax.jit(program.call) for program in programs)
    state = init(weights, frames[0], found[0][0], np.int32(frames[0].shape[:2]))
    for frame in frames[1:]:
        state, *prediction = track_frame(weights, state, frame)
        found.append(prediction)
    return [np.stack(part) for part in zip(*found)]


def check_frames(frames):  # type: ignore[no-untyped-def]
    """Refuse what is no clip of uint8 RGB frames of one size."""
    if getattr(frames, "ndim", 1) == 0 or len(frames) == 0:
        raise ValueError("there are no frames")
    for index, frame in enumerate(frames):
        shape, kind = np.shape(frame), getattr(frame, "dtype", type(frame).__name__)
        picture = len(shape) == 3 and shape[2] == 3 and 0 not in shape and kind == np.uint8
        if not picture or shape != np.shape(frames[0]):
            raise ValueError(
                f"frame {index} is {kind} {shape}; uint8 RGB (height, width, 3) of one size is wanted"
            )


def check_box(box, shape):  # type: ignore[no-untyped-def]
    """Return a box as float32; refuse one that cannot start a tracker in a frame of this shape."""
    with np.errstate(over="ignore"):
        box = np.asarray(box, np.float32)
    if box.shape != (4,):
        raise ValueError(f"the box has the shape {box.shape}; four numbers are wanted: x, y, w, h")
    shown = f"the box {','.join(f'{v:g}' for v in box)}"
    if not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise ValueError(f"{shown} is not finite or has no size; x, y, w, h in pixels is wanted")
    height, width = shape[:2]
    if (box[:2] + box[2:] <= 0).any() or box[0] >= width or box[1] >= height:
        raise ValueError(f"{shown} lies outside the {width}x{height} frame")
    if (box[2:] > LARGEST_BOX * max(height, width)).any():
        raise ValueError(f"{shown} is far larger than the {width}x{height} frame")
    return box


def read_frames(path):  # type: ignore[no-untyped-def]
    """Return the array of a ``.npy`` file."""
    try:
        frames = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: no array of numpy's (.npy), or not a whole one") from error
    if not isinstance(frames, np.ndarray):
        raise ValueError(f"{path}: one array (.npy) is wanted, not an archive of several")
    return frames


def read_box(text):  # type: ignore[no-untyped-def]
    """Return the numbers of a text, between commas or blanks."""
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(f"the box '{text}' is not four numbers: X,Y,W,H") from error


def main(words):  # type: ignore[no-untyped-def]
    """Track what the command line says; return the exit status."""
    if len(words) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        for box, score in zip(*track(read_frames(words[0]), read_box(words[1]))):
            print(",".join(f"{value:.4f}" for value in (*box, score)))
        sys.stdout.flush()
    except OSError as error:
        print(f"error: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
