"""How the synthetic world differs from real video, in figures.

    python -m jaxtrack.synthetic.statistics --root FOLDER --benchmark otb --set real.jpeg=0.3

prints one row for each statistic: its value on real tracks (any folder that a dataset layout reads), on the
plain world and on the world with the changes given. All are measured by the same functions on frames and
boxes alone.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxtrack import cli
from jaxtrack.ops.patch import context_side
from jaxtrack.settings import replaced
from jaxtrack.synthetic.world import BENCHMARK_WORLD, WorldConfig, make_clip

SIDE = 255  # pixels of a search window
GAPS = (20, 60)  # frames between the appearances that are compared
_FLAT = 3.0  # grey levels: a block whose deviation is below is nearly flat
_OUTSIDE = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """A target in a video: some of its frames, and all of its boxes.

    Attributes:
        frames: index -> uint8 RGB ``(h, w, 3)``; the first frame is among them.
        boxes: ``(n, 4)`` x, y, w, h in pixels, 0-based corner; NaN where the target is absent.
    """

    frames: dict[int, UInt8[np.ndarray, "h w 3"]]
    boxes: Float[np.ndarray, "n 4"]


@dataclasses.dataclass(frozen=True, eq=False)
class Crop:
    """A search window: what a Siamese tracker sees of a frame.

    Attributes:
        image: uint8 RGB ``(255, 255, 3)``, the frame's mean colour beyond its border.
        box: ``(4,)`` x, y, w, h of the target in it.
        outside: share of the window that lies outside the frame.
    """

    image: UInt8[np.ndarray, "s s 3"]
    box: Float[np.ndarray, "4"]
    outside: float


def cut(frame: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]) -> Crop:
    """Cut the search window around a box: SiamFC's side, the target in the middle."""
    height, width = frame.shape[:2]
    side = 255 / 127 * context_side(box[2], box[3])
    corner = box[:2] + 0.5 * box[2:] - 0.5 * side
    scale = SIDE / side
    matrix = np.asarray([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
    fill = [float(value) for value in frame.reshape(-1, 3).mean(0)]
    image = cv2.warpAffine(
        frame, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=fill
    )
    seen = np.prod(
        np.maximum(np.minimum(corner + side, (width, height)) - np.maximum(corner, 0), 0)
    )
    placed = np.concatenate([(box[:2] - corner) * scale, box[2:] * scale])
    return Crop(image, placed, float(1 - seen / side**2))


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def fill_of_box(crop: Crop) -> float:
    """Return the target's share of its box, by graph cut from the box (NaN where that finds nothing)."""
    mask = np.zeros(crop.image.shape[:2], np.uint8)
    x, y, w, h = crop.box.round().astype(int)
    if min(w, h) < 4 or min(x, y) < 1 or x + w >= SIDE or y + h >= SIDE:
        return float("nan")
    models = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        cv2.grabCut(crop.image, mask, (x, y, w, h), *models, 3, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # a window of one colour
        return float("nan")
    inside = mask[y : y + h, x : x + w]
    return float(np.isin(inside, (cv2.GC_FGD, cv2.GC_PR_FGD)).mean())


def flat_blocks(crop: Crop) -> float:
    """Return the share of blocks of 8 by 8 pixels that are nearly of one grey."""
    grey = _grey(crop.image)[:248, :248].reshape(31, 8, 31, 8)
    return float((grey.std((1, 3)) < _FLAT).mean())


def spectrum_slope(crop: Crop) -> float:
    """Return the slope of the logarithm of power over that of frequency; white noise has 0."""
    grey = _grey(crop.image)
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    power = np.abs(np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * window))) ** 2
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    radius = np.hypot(rows, columns).astype(int).reshape(-1)
    mean = np.bincount(radius, power.reshape(-1)) / np.maximum(np.bincount(radius), 1)
    span = np.arange(4, SIDE // 2 - 8)
    return float(np.polyfit(np.log(span), np.log(mean[span] + 1e-9), 1)[0])


def upright_edges(crop: Crop) -> float:
    """Return the share of the strongest tenth of edges that lie within 10 degrees of upright or level."""
    grey = cv2.GaussianBlur(_grey(crop.image), (0, 0), 1.0)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength = np.hypot(dx, dy)
    strong = strength >= max(np.quantile(strength, 0.9), 1.0)
    if not strong.any():
        return float("nan")
    turn = np.abs(np.degrees(np.arctan2(dy[strong], dx[strong]))) % 90
    return float((np.minimum(turn, 90 - turn) < 10).mean())


def saturation(crop: Crop) -> float:
    """Return the mean saturation, 0 to 1."""
    return float(cv2.cvtColor(crop.image, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255)


def motion(track: Track) -> np.ndarray:
    """Return how far the target moves from frame to frame, in its sizes."""
    centre = track.boxes[:, :2] + 0.5 * track.boxes[:, 2:]
    size = np.sqrt(np.maximum(track.boxes[:-1, 2] * track.boxes[:-1, 3], 1e-9))
    return np.linalg.norm(np.diff(centre, axis=0), axis=1) / size


def likeness(track: Track, gap: int) -> float:
    """Return the correlation of the target's first appearance with that some frames later."""
    if gap not in track.frames or not np.isfinite(track.boxes[[0, gap]]).all():
        return float("nan")
    seen = []
    for index in (0, gap):
        crop = cut(track.frames[index], track.boxes[index])
        x, y, w, h = crop.box.round().astype(int)
        inside = _grey(crop.image)[max(y, 0) : y + h, max(x, 0) : x + w]
        if min(inside.shape) < 4:
            return float("nan")
        small = cv2.resize(inside, (32, 32), interpolation=cv2.INTER_AREA)
        seen.append((small - small.mean()) / (small.std() + 1e-6))
    return float(np.mean(seen[0] * seen[1]))


def _over_crops(function: Callable[[Crop], float], reduce: Callable) -> Callable:
    return lambda tracks, crops: reduce(np.asarray([function(crop) for crop in crops], float))


def _quantile(share: float) -> Callable[[np.ndarray], float]:
    def found(values: np.ndarray) -> float:
        known = values[~np.isnan(values)]
        return float(np.quantile(known, share)) if known.size else float("nan")

    return found


_median = _quantile(0.5)


def _motions(tracks: list[Track]) -> np.ndarray:
    return np.concatenate([motion(track) for track in tracks])


def _likenesses(gap: int) -> Callable[[list[Track], list[Crop]], float]:
    return lambda tracks, crops: _median(np.asarray([likeness(track, gap) for track in tracks]))


# Name -> function of all tracks and of their search windows.
STATISTICS: dict[str, Callable[[list[Track], list[Crop]], float]] = {
    "search windows more than 10 % outside the frame": lambda tracks, crops: float(
        np.mean([crop.outside > _OUTSIDE for crop in crops])
    ),
    "target's share of its box, median": _over_crops(fill_of_box, _median),
    "aspect w/h, 5 % quantile": _over_crops(
        lambda crop: crop.box[2] / crop.box[3], _quantile(0.05)
    ),
    "nearly flat 8x8 blocks": _over_crops(flat_blocks, lambda values: float(np.mean(values))),
    "spectrum slope, median": _over_crops(spectrum_slope, _median),
    "strong edges near upright or level": _over_crops(upright_edges, _median),
    "saturation, 95 % quantile": _over_crops(saturation, _quantile(0.95)),
    "motion in target sizes, median": lambda tracks, crops: _median(_motions(tracks)),
    "motion in target sizes, 90 %": lambda tracks, crops: _quantile(0.9)(_motions(tracks)),
    **{f"correlation with the first frame after {gap} frames": _likenesses(gap) for gap in GAPS},
}


def measure(tracks: Iterable[Track]) -> dict[str, float]:
    """Measure all statistics of some tracks.

    Args:
        tracks: real or synthetic; their frames are held in memory.

    Returns:
        Name of the statistic -> value, NaN where no track shows it.
    """
    tracks = list(tracks)
    crops = [
        cut(frame, track.boxes[index])
        for track in tracks
        for index, frame in track.frames.items()
        if np.isfinite(track.boxes[index]).all() and (track.boxes[index, 2:] >= 2).all()
    ]
    with np.errstate(invalid="ignore", all="ignore"):
        return {name: function(tracks, crops) for name, function in STATISTICS.items()}


def _chosen(length: int, count: int) -> list[int]:
    """Return indices of frames: the first, those of the gaps, and others evenly."""
    spread = np.linspace(0, length - 1, count).round().astype(int)
    return sorted({0, *(gap for gap in GAPS if gap < length), *map(int, spread)})


def synthetic_tracks(world: WorldConfig, clips: int, frames: int, seed: int) -> Iterator[Track]:
    """Draw clips of a world.

    Args:
        world: the world.
        clips: how many.
        frames: frames of each that are looked at; motion is measured on those and their followers.
        seed: of the first clip.
    """
    indices = _chosen(world.length, frames)
    after = [min(index + 1, world.length - 1) for index in indices]
    shown = jnp.asarray([index for pair in zip(indices, after) for index in pair], jnp.int32)
    draw = jax.jit(lambda key: make_clip(world, key, shown))
    for number in range(clips):
        clip = jax.tree.map(np.asarray, draw(jax.random.key(seed + number)))
        boxes = np.full((world.length, 4), np.nan)
        boxes[np.asarray(shown)] = np.where(clip.absent[:, None], np.nan, clip.boxes)
        yield Track({i: clip.frames[2 * n] for n, i in enumerate(indices)}, boxes)


def real_tracks(root: pathlib.Path, benchmark: str, frames: int) -> Iterator[Track]:
    """Read the tracks of a benchmark's folder.

    Args:
        root: the folder.
        benchmark: its layout, see `jaxtrack.data.layouts.names`.
        frames: frames of each track that are looked at.
    """
    from jaxtrack.data import layouts
    from jaxtrack.data.frames import decode, read_bytes

    for record in layouts.iter_layout(benchmark, root):
        boxes = np.where(record.usable[:, None], record.boxes, np.nan)
        taken = {}
        for index in _chosen(len(record), frames):
            reference = record.frames[index]
            taken[index] = decode(read_bytes(reference), reference)
        yield Track(taken, boxes)


@dataclasses.dataclass(frozen=True)
class Options:
    """Print statistics of the synthetic world beside those of real tracks.

    Attributes:
        root: folder of real tracks; without it only the world is measured.
        benchmark: layout of that folder.
        clips: synthetic clips.
        frames: frames looked at in each clip and track.
        seed: of the first clip.
        set: changes of the world, as ``real.jpeg=0.3``.
        debug: show the traceback of an error.
    """

    root: pathlib.Path | None = None
    benchmark: str = "otb"
    clips: Annotated[int, cli.Range(low=1, high=1000)] = 40
    frames: Annotated[int, cli.Range(low=1, high=500)] = 8
    seed: int = 0
    set: tuple[str, ...] = ()
    debug: bool = False


def _run(options: Options) -> None:
    cli.use_compilation_cache()
    columns: dict[str, dict[str, float]] = {}
    if options.root is not None:
        columns["real"] = measure(real_tracks(options.root, options.benchmark, options.frames))
    worlds = {"plain": BENCHMARK_WORLD}
    if options.set:
        worlds["changed"] = replaced(BENCHMARK_WORLD, options.set)
    for name, world in worlds.items():
        drawn = synthetic_tracks(world, options.clips, options.frames, options.seed)
        columns[name] = measure(drawn)
    width = max(map(len, STATISTICS))
    print(f"{'':{width}}" + "".join(f"{name:>10}" for name in columns))
    for name in STATISTICS:
        cells = "".join(f"{column[name]:10.3f}" for column in columns.values())
        print(f"{name:{width}}{cells}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _run, "python -m jaxtrack.synthetic.statistics", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
