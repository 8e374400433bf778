"""The input pipeline of trainings: building, and pairs per second from whole frames and from crops.

The folder keeps what was measured on, for other loaders: ``frames/`` (GOT-10k's layout), ``crops/``
(PySOT's layout: crop511 and train.json) and ``built/``. Numbers of a busy machine mean little; the CPU
time per pair is given beside the wall time for that reason.
"""

from __future__ import annotations

import dataclasses
import logging
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from jaxtrack.data import frames as frame_io
from jaxtrack.data import sampling as pairs
from jaxtrack.data.pipeline import Dataset, make_iterator
from jaxtrack.data.source import FrameSource
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.records import read_json, write_json
from jaxtrack.ops.patch import PatchSpec, context_side


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """What the input pipeline is measured on: frames made for the purpose.

    Attributes:
        folder: where frames, crops and builds go; what is there is used again.
        videos: number of videos.
        length: frames of each.
        width: width of a frame, pixels.
        height: height of a frame, pixels.
        batch: pairs in a batch.
        batches: batches that are timed, after one that is not.
        workers: numbers of worker processes to try.
    """

    folder: Path
    videos: int = 10
    length: int = 40
    width: int = 1280
    height: int = 720
    batch: int = 16
    batches: int = 12
    workers: tuple[int, ...] = (0, 1, 2)


def make_frames(folder: Path, args: Pipeline) -> None:
    """Write textured videos of a moving target in GOT-10k's layout, and their crops in PySOT's.

    Args:
        folder: gets ``frames`` and ``crops``.
        args: sizes and counts.
    """
    names = []
    regions: dict[str, Any] = {}
    for number in tqdm(range(args.videos), desc="writing frames", unit=" videos"):
        rng = np.random.default_rng(number)
        name = f"GOT-10k_Train_{number + 1:06d}"
        names.append(name)
        video, crops = folder / "frames" / "train" / name, folder / "crops" / "crop511" / name
        video.mkdir(parents=True)
        crops.mkdir(parents=True)
        ground = _texture(rng, args.width, args.height)
        w, h = (int(v) for v in rng.integers(args.height // 8, args.height // 3, 2))
        target = _texture(rng, w, h)
        regions[name] = {"00": {}}
        lines = []
        for t in range(args.length):
            x = 10 + int((args.width - w - 20) * (0.5 + 0.5 * np.sin(0.05 * t + number)))
            y = 10 + int((args.height - h - 20) * (0.5 + 0.5 * np.sin(0.08 * t)))
            frame = np.roll(ground, 3 * t, axis=1)
            frame[y : y + h, x : x + w] = target
            (video / f"{t + 1:08d}.jpg").write_bytes(frame_io.encode(frame))
            lines.append(f"{x + 1},{y + 1},{w},{h}\n")
            window = context_side(w, h) * 511 / 127
            pad = frame_io.mean_colour(frame)
            crop = frame_io.cut_patch(frame, (x + w / 2, y + h / 2), window, 511, pad)
            (crops / f"{t:06d}.00.x.jpg").write_bytes(frame_io.encode(crop))
            regions[name]["00"][f"{t:06d}"] = [x, y, x + w, y + h]
        (video / "groundtruth.txt").write_text("".join(lines))
    (folder / "frames" / "train" / "list.txt").write_text("\n".join(names) + "\n")
    write_json(folder / "crops" / "train.json", regions)


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draw noise of several octaves, about as hard to compress as a photograph."""
    image = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 9):
        coarse = rng.standard_normal((2**octave * 9 // 16 + 1, 2**octave, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 1.6**-octave
    image *= 50 / image.std()
    return np.clip(image + 128, 0, 255).astype(np.uint8)


def build(folder: Path, dataset: str, source: str) -> dict[str, Any]:
    """Build a dataset and measure it.

    Args:
        folder: holds ``source``; gets ``built``.
        dataset: dataset name.
        source: name of the source folder.

    Returns:
        ``seconds``, ``frames``, ``megabytes`` and ``peak_megabytes``: how much the process grew.
    """
    from jaxtrack.data import builders

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tqdm(desc=f"building {dataset}", unit=" frames") as bar:
        builder = builders.builder(dataset)(
            source=folder / source,
            data_dir=str(folder / "built"),
            progress=lambda done, total: bar.update(done - bar.n),
        )
        builder.download_and_prepare(download_dir=str(builder.stage))
    summary = FrameSource(builder.data_dir).summary
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "seconds": summary["seconds"],
        "frames": summary["frames"],
        "megabytes": summary["bytes"] / 1e6,
        "peak_megabytes": grown / 1e3,
    }


def pairs_per_second(path: Path, config: pairs.PairConfig, args: Pipeline, workers: int) -> str:
    """Time whole batches.

    Args:
        path: a built dataset.
        config: what a pair is.
        args: batch size and number.
        workers: processes.

    Returns:
        A line for the reader.
    """
    iterator = make_iterator(config, [Dataset(path)], args.batch, seed=1, workers=workers)
    next(iterator)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(args.batches):
        next(iterator)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    iterator.close()
    count = args.batch * args.batches
    own = f", {1000 * cpu / count:.1f} ms of CPU a pair" if not workers else ""
    return f"{workers} workers: {count / wall:7.1f} pairs/s{own}"


def stages(path: Path, config: pairs.PairConfig, count: int = 100) -> dict[str, float]:
    """Time the stages of a pair one by one, in one thread.

    Args:
        path: a built dataset.
        config: what a pair is.
        count: pairs.

    Returns:
        Milliseconds of CPU for a pair: ``read``, ``decode``, ``cut`` and ``rest`` (choosing, collecting).
    """
    cv2.setNumThreads(1)
    source = FrameSource(path)
    source.record(0)
    spent = dict.fromkeys(("read", "decode", "cut"), 0.0)

    def timed(name: str, function: Callable) -> Callable:
        def call(*values: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*values, **options)
            finally:
                spent[name] += time.thread_time() - start

        return call

    held = frame_io.decode, frame_io.cut_patch
    sampler = pairs.Sampler(config, [source], [config.max_gap], [config.filter])
    rng = np.random.default_rng(0)
    try:
        frame_io.decode, frame_io.cut_patch = timed("decode", held[0]), timed("cut", held[1])
        source.image = timed("read", source.image)  # type: ignore[method-assign]
        start = time.thread_time()
        for _ in range(count):
            sampler.sample(0, int(rng.integers(source.num_videos)), rng)
        total = time.thread_time() - start
    finally:
        frame_io.decode, frame_io.cut_patch = held
    spent["rest"] = total - sum(spent.values())
    return {name: 1000 * seconds / count for name, seconds in spent.items()}


def run(args: Pipeline) -> None:
    """Make what is missing, then measure and print.

    Args:
        args: sizes and counts.

    Raises:
        JaxtrackError: the folder holds frames of other sizes.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    args.folder.mkdir(parents=True, exist_ok=True)
    settings, note = [args.videos, args.length, args.width, args.height], args.folder / "made.json"
    if not note.exists():
        for name in ("frames", "crops", "built"):
            shutil.rmtree(args.folder / name, ignore_errors=True)
        make_frames(args.folder, args)
        write_json(note, settings)
    elif read_json(note, "the sizes of made frames") != settings:
        raise JaxtrackError(f"{args.folder} holds other frames: delete it or give another folder")
    template = PatchSpec(143, 127, 1.0, 0.5)
    search = PatchSpec(431, 255, 255 / 127, 0.5)
    config = pairs.PairConfig(template, search, negative=0.2)
    for dataset, source, flavour in (
        ("got10k", "frames", f"{args.width} x {args.height} frames"),
        ("youtubebb", "crops", "511 x 511 crops"),
    ):
        print(f"{flavour}:")
        shutil.rmtree(args.folder / "built" / dataset, ignore_errors=True)
        done = build(args.folder, dataset, source)
        print(
            "  build: {frames} frames in {seconds} s, {megabytes:.1f} MB, process grew by "
            "{peak_megabytes:.0f} MB".format(**done)
        )
        path = args.folder / "built" / dataset
        for workers in args.workers:
            print(f"  {pairs_per_second(path, config, args, workers)}")
        spent = stages(path, config)
        whole = sum(spent.values())
        shares = ", ".join(f"{k} {v:.2f} ms ({100 * v / whole:.0f} %)" for k, v in spent.items())
        print(f"  one pair: {whole:.2f} ms: {shares}")
