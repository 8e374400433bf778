"""The whole way of a benchmark, from JPEG files to boxes: decoder alone, device alone, and both."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from jaxtrack.io.images import read_image

from ..metrics.annotation import Annotation
from ..tracking import slots
from ..tracking.entry import Entry
from ..tracking.sequences import Frame, Sequence
from .clock import clip

SIZE = (720, 1280)  # height, width of the frames
_PICTURES = 32  # different ones; sequences share them, each is decoded anew


@dataclasses.dataclass(frozen=True)
class Load:
    """How much is tracked, and how.

    Attributes:
        videos: number of sequences.
        length: frames of each.
        slots: videos side by side.
        chunk: frames per compiled call.
        devices: devices that share the slots.
    """

    videos: int = 64
    length: int = 64
    slots: int = 64
    chunk: int = 8
    devices: int = 1


def make(folder: Path, load: Load) -> list[Sequence]:
    """Write JPEG files, and return sequences of them.

    Args:
        folder: where they go.
        load: how many.
    """
    paths = []
    for index, picture in enumerate(clip(min(_PICTURES, load.length), SIZE)):
        paths.append(folder / f"{index:04d}.jpg")
        # Grain as of a camera: smooth pictures decode too quickly.
        grain = np.random.default_rng(index).integers(-12, 12, picture.shape)
        noisy = np.clip(picture + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(paths[-1]), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
    height, width = SIZE
    boxes = np.tile([width * 0.4, height * 0.4, width * 0.1, height * 0.15], (load.length, 1))

    def read(first: int, index: int) -> Frame:
        return read_image(paths[(first + index) % len(paths)])

    def sequence(number: int) -> Sequence:
        one = functools.partial(read, number)
        note = Annotation(boxes, size=(width, height))
        frames = functools.partial(map, one, range(load.length))
        return Sequence(f"made-{number:03d}", load.length, frames, boxes, note, SIZE, read=one)

    return [sequence(number) for number in range(load.videos)]


def decode_rate(sequences: list[Sequence], load: Load) -> float:
    """Return frames a second that the pool of threads decodes into a chunk, nothing else being done."""
    rows = np.zeros((load.chunk, *SIZE, 3), np.uint8)
    count = 0
    with ThreadPoolExecutor(slots.decoders(), "jaxtrack-decode") as pool:
        waiting: list[Future[Frame]] = []
        started = time.perf_counter()
        for sequence in sequences:
            film = slots.Film(sequence, pool)
            for first in range(0, sequence.length, load.chunk):
                number = min(load.chunk, sequence.length - first)
                waiting += film.decode(first, number, rows)
                count += number
        for future in waiting:
            future.result()
        return count / (time.perf_counter() - started)


def track_rate(entry: Entry, variables: Any, load: Load, rounds: int = 4) -> float:
    """Return frames a second that the device tracks, its frames lying there already."""
    lanes = slots.TrackerLanes(entry.tracker, variables, SIZE, load.slots, load.chunk, load.devices)
    picture = clip(1, SIZE)[0]
    for where in range(lanes.count):
        lanes.start(where, picture, np.asarray([512.0, 288, 128, 108], np.float32))
    frames = np.tile(picture, (lanes.count, load.chunk, 1, 1, 1))
    sent: Any = frames if lanes.mesh is not None else jax.device_put(frames)
    jax.block_until_ready(lanes.step(sent))
    started = time.perf_counter()
    for _ in range(rounds):
        found = lanes.step(sent)
    jax.block_until_ready(found)
    return rounds * lanes.count * load.chunk / (time.perf_counter() - started)


def whole_rate(entry: Entry, variables: Any, sequences: list[Sequence], load: Load) -> float:
    """Return frames a second from files to boxes; programs are compiled before."""
    started = time.perf_counter()
    given = entry.tracker, variables, sequences
    sizes: Any = {"slots": load.slots, "chunk": load.chunk, "devices": load.devices}
    tracks = dict(slots.run(*given, **sizes))
    seconds = time.perf_counter() - started
    return sum(len(track.boxes) for track in tracks.values()) / seconds


def measure(entry: Entry, load: Load) -> dict[str, float]:
    """Measure a tracker on sequences made on the spot.

    Args:
        entry: the tracker; its values are random, which does not change the time.
        load: how much, and how.

    Returns:
        Frames a second "decode", "tracking" and "end_to_end", and "share": of the slower of the first two
        that is reached. On a processor alone both share its cores, and less can be had.
    """
    load = dataclasses.replace(load, slots=min(load.slots, load.videos))
    make_variables = jax.jit(entry.tracker.init_variables, static_argnums=0)
    variables = make_variables(entry.tracker.config, jax.random.key(0))
    with tempfile.TemporaryDirectory(prefix="jaxtrack-speed-") as folder:
        sequences = make(Path(folder), load)
        decode = decode_rate(sequences, load)
        tracking = track_rate(entry, variables, load)
        whole = whole_rate(entry, variables, sequences, load)
    share = whole / min(decode, tracking)
    return {"decode": decode, "tracking": tracking, "end_to_end": whole, "share": share}
