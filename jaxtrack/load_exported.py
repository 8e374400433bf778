"""Track with exported programs: ``python load.py FRAMES.npy X,Y,W,H`` prints boxes and scores.

``jaxtrack export`` lays a copy of this file beside the programs. It needs numpy and jax (and flatbuffers,
by which jax reads programs).
"""

import pathlib
import sys

import jax
import numpy as np
from jax import export


def track(frames, box, folder=pathlib.Path(__file__).parent):  # type: ignore[no-untyped-def]
    """Return boxes ``(t, 4)``, x, y, w, h from 0, and scores of frames ``(t, h, w, 3)``, uint8 RGB."""
    weights = jax.device_put(dict(np.load(folder / "weights.npz")))
    read = [(folder / f"{name}.bin").read_bytes() for name in ("init", "track_frame")]
    init, track_frame = (jax.jit(export.deserialize(data).call) for data in read)
    found = [(np.asarray(box, np.float32), np.float32("nan"))]
    state = init(weights, frames[0], found[0][0], np.int32(frames[0].shape[:2]))
    for frame in frames[1:]:
        state, *prediction = track_frame(weights, state, frame)
        found.append(prediction)
    return [np.stack(part) for part in zip(*found)]


if __name__ == "__main__":
    print(*track(np.load(sys.argv[1]), [float(x) for x in sys.argv[2].split(",")]), sep="\n")
