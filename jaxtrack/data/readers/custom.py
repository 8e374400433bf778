"""A user's own videos: a folder of clips or frame folders, and one text file per target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data.readers import tools
from jaxtrack.data.record import VideoRecord
from jaxtrack.errors import JaxtrackError

CUSTOM_LAYOUT = "NAME.mp4 or NAME/*.jpg, and NAME.txt with one line x,y,w,h per frame (0-based)"


def read_custom(root: Path, split: str) -> Iterator[VideoRecord]:
    """Reads a folder of videos plus one text file per target.

        clips/
          dog.mp4         a video (mp4, avi, mov, mkv, webm) ...
          dog.txt         ... and its boxes: one line `x,y,w,h` per frame, 0-based, pixels
          cat/0001.jpg    or a folder of images
          cat.txt         (`cat/groundtruth.txt` works too)
          dog.2.txt       a second target of dog.mp4

    A line `nan,nan,nan,nan` (or zero size, or `absent`) says that the target is not visible.

    Args:
        root: the folder.
        split: only `train`.

    Yields:
        One record per target.
    """
    sources = _sources(root)
    if not sources:
        raise tools.wrong_layout("custom", root, CUSTOM_LAYOUT)
    for name in sorted(sources, key=tools.natural_key):
        targets = _targets(root, name)
        if not targets:
            raise JaxtrackError(
                f"custom {name}: no {root / (name + '.txt')} with one line x,y,w,h per frame"
            )
        source = sources[name]
        frames = tools.list_images(source) if source.is_dir() else _clip_frames(source)
        for target, path in targets:
            boxes = _boxes(path)
            tools.check_counts(f"custom {target}", frames, boxes, source, path)
            absent = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1))
            if absent.all():
                raise JaxtrackError(f"custom {target}: no usable box in {path}")
            yield VideoRecord(
                name=target, frames=tuple(frames), boxes=boxes, absent=absent, video=name
            )


def _sources(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        is_clip = path.is_file() and path.suffix.lower() in tools.VIDEO_SUFFIXES
        if is_clip or (path.is_dir() and tools.list_images(path)):
            name = path.stem if is_clip else path.name
            if name in found:
                raise JaxtrackError(
                    f"custom {name}: both {found[name]} and {path} exist: rename one"
                )
            found[name] = path
    return found


def _targets(root: Path, name: str) -> list[tuple[str, Path]]:
    inside = root / name / "groundtruth.txt"
    main = root / f"{name}.txt"
    found = [(name, p) for p in (main, inside) if p.exists()][:1]
    more = [p for p in root.glob("*.txt") if p.name.removeprefix(name + ".")[:-4].isdigit()]
    more = [p for p in more if p.name.startswith(name + ".")]
    return found + [(p.stem, p) for p in sorted(more, key=lambda p: tools.natural_key(p.name))]


def _boxes(path: Path) -> np.ndarray:
    lines = tools.read_text(path).splitlines()
    if not any(line.strip() for line in lines):
        raise JaxtrackError(f"{path} is empty: one line x,y,w,h per frame was expected")
    rows = []
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if line.strip().lower() == "absent":
            rows.append([np.nan] * 4)
            continue
        words = line.replace(",", " ").replace(";", " ").split()
        try:
            row = [float(w) for w in words]
        except ValueError:
            raise JaxtrackError(f"{path} line {number}: '{line.strip()}' is not x,y,w,h") from None
        if len(row) != 4:
            raise JaxtrackError(
                f"{path} line {number}: {len(row)} numbers where x,y,w,h were expected"
            )
        rows.append(row)
    return np.array(rows, dtype=np.float64)


def _clip_frames(clip: Path) -> list[str]:
    """References every frame of a clip. Counts by decoding: headers are wrong too often."""
    from jaxtrack.data.frames import count_clip_frames

    return [f"{clip}::{i}" for i in range(count_clip_frames(clip))]
