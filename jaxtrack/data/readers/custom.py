"""A user's own videos: a folder of clips or frame folders, and one text file per target.

    my_data/
      dog.mp4           a video (mp4, avi, mov, mkv, webm, m4v, mpg, wmv) ...
      dog.txt           ... and the boxes of its target
      dog.2.txt         a second target of dog.mp4 (then .3, .4, ...)
      cat/0001.jpg      or a folder of images (jpg, png, bmp, webp, tif, ppm, pgm; natural order;
                        ``cat/img/0001.jpg`` works too)
      cat.txt           (``cat/groundtruth.txt`` works too)

Each text file has one line for each frame: ``x,y,w,h`` in pixels, the corner counted from 0, decimal points,
separated by commas, semicolons, tabs or blanks, without a header. A frame in which the target is not to be
seen has ``absent`` in its line (``nan,nan,nan,nan``, a zero size or ``-1,-1,-1,-1`` say the same).

Where only some frames are annotated (every tenth, say), each line begins with the frame: ``frame,x,y,w,h``.
For a clip, frames count from 0; for images whose names end in numbers it is the number in the name. The
other frames are then neither trained on nor scored.

A name may hold dots: ``cam.2.txt`` is the second target of ``cam`` unless there is a clip or folder
``cam.2``. All images of a video have one size. ``README``, ``LICENSE``, ``list``, ``classes`` and ``notes``
(``.txt``) are no annotations; any other text file without its video is a mistake that is told.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxtrack.data.readers import files, pairing
from jaxtrack.data.readers.entries import Entry, Found
from jaxtrack.data.record import VideoRecord, usable_boxes
from jaxtrack.errors import JaxtrackError
from jaxtrack.io import clips, text

CUSTOM_LAYOUT = "NAME.mp4 or NAME/*.jpg, and NAME.txt with one line x,y,w,h per frame (0-based)"
_NO_ANNOTATION = ("readme", "license", "list", "classes", "notes")
_FURTHER = re.compile(r"(.+)\.([0-9]+)")
_HEADER = re.compile(r"[A-Za-z_\"']")


def find_custom(root: Path, split: str, frames: bool = True) -> Found:
    """Find a user's own videos and their targets; the format is at the top of this module.

    Args:
        root: the folder.
        split: ``train`` or ``all``: the same.
        frames: whether images are looked for; False: the annotation alone.

    Returns:
        One entry per target; text files and folders that belong to nothing are ``problems``.
    """
    sources, problems = _sources(root)
    if not sources and not problems:
        raise files.wrong_layout("custom", root, CUSTOM_LAYOUT)
    targets: dict[str, list[tuple[str, Path]]] = {name: [] for name in sources}
    for path in files.named(root, ".txt"):
        further = _FURTHER.fullmatch(path.stem)
        if path.stem in sources:
            targets[path.stem].append((path.stem, path))
        elif further and further[1] in sources:
            targets[further[1]].append((path.stem, path))
        elif path.stem.lower() not in _NO_ANNOTATION:
            problems.append(
                f"{path} belongs to no video: there is no clip and no folder of images called {path.stem}"
            )
    entries = []
    for name in sorted(sources, key=files.natural_key):
        inner = sources[name] / "groundtruth.txt"
        if sources[name].is_dir() and inner.exists():
            if any(target == name for target, _ in targets[name]):
                problems.append(f"{name}: both {root / name}.txt and {inner} exist: delete one")
            else:
                targets[name].insert(0, (name, inner))
        if not targets[name]:
            entries.append(Entry(name, functools.partial(_no_target, root, name)))
        for target, path in sorted(targets[name], key=lambda t: files.natural_key(t[0])):
            read = functools.partial(read_target, target, name, sources[name], path, frames)
            entries.append(Entry(target, read, name))
    return Found(entries, problems=tuple(problems))


def _sources(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Name the clips and frame folders, and tell what looks like one and is none."""
    found: dict[str, Path] = {}
    problems = []
    for entry in files.entries(root):
        path = root / entry.name
        is_clip = path.suffix.lower() in clips.VIDEO_SUFFIXES
        if path.is_dir():
            name = entry.name
            if not clips.frames_of(path):
                if is_clip:
                    problems.append(f"{path} is a folder without images, not a video")
                elif _holds_targets(path):
                    problems.append(
                        f"{path} holds videos of its own, which are not read: give it as a folder by itself"
                    )
                continue
        elif is_clip and path.is_file():
            name = path.stem
        else:
            continue
        if name in found:
            problems.append(f"{name}: both {found[name]} and {path} exist: rename one")
        else:
            found[name] = path
    return found, problems


def _holds_targets(folder: Path) -> bool:
    """Say whether a clip or a folder of images with its text file lies in a folder."""
    stems = {path.stem for path in files.named(folder, ".txt")}
    return any(
        name in stems or (folder / name / "groundtruth.txt").exists()
        for entry in files.entries(folder)
        for name in (Path(entry.name).stem,)
        if (entry.is_dir() and clips.frames_of(folder / entry.name))
        or Path(entry.name).suffix.lower() in clips.VIDEO_SUFFIXES
    )


def _no_target(root: Path, name: str) -> Iterator[VideoRecord]:
    raise JaxtrackError(
        f"custom {name}: no {root / (name + '.txt')} with one line x,y,w,h per frame"
    )


def read_target(
    target: str, video: str, source: Path, path: Path, frames: bool
) -> Iterator[VideoRecord]:
    """Read one target.

    Args:
        target: its name.
        video: name of its video.
        source: the clip, or the folder of images.
        path: the text file with its boxes.
        frames: whether images are looked for; those of a sparse annotation are anyway.
    """
    numbers, boxes, absent = read_boxes(path)
    what = f"custom {target}"
    images: tuple[str, ...] = ()
    if numbers is not None:
        listed = _frames(source)
        boxes, absent = _spread(what, listed, source, path, (numbers, boxes, absent))
        images = tuple(listed)
    elif frames:
        listed = _frames(source)
        if len(listed) == len(boxes):  # frames cut out at any distance have one row each
            images = tuple(listed)
        else:
            images = pairing.pair(what, listed, len(boxes), (source, path))
    record = VideoRecord(
        name=target,
        frames=images if frames else (),
        boxes=boxes,
        absent=absent,
        video=video,
        sparse=numbers is not None,
    )
    if not record.usable.any():
        raise JaxtrackError(f"{what}: no usable box in {path}")
    if record.boxes[record.usable].max() <= 1:
        raise JaxtrackError(f"{what}: the boxes of {path} lie between 0 and 1: pixels are wanted")
    yield record


def read_boxes(path: Path) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Read the boxes of one target.

    Args:
        path: the text file.

    Returns:
        Frame numbers ``(n,)`` of a sparse annotation or None, boxes ``(n, 4)`` (x, y, w, h) in pixels, and
        ``(n,)`` bool: the frames in which the target is absent.

    Raises:
        JaxtrackError: an empty file, a header, a blank line between others, something else than four (or
            five) numbers, a negative size; names the line.
    """
    lines = text.read_text(path).rstrip().splitlines()
    if not lines:
        raise JaxtrackError(f"{path} is empty: one line x,y,w,h per frame was expected")
    plain = []
    for number, line in enumerate(lines, 1):
        words = re.split(r"[,;\s]+", line.strip(",; \t"))
        if words[-1].lower() == "absent":
            # Behind a box, which then counts for nothing, or alone; the frame before it where lines have one.
            frame = words[:1] if len(words) in (2, 6) else words[:-5]
            line = " ".join([*frame, *["nan"] * 4])
        elif number == 1 and not _is_number(words[0]) and _HEADER.match(line.strip()):
            raise JaxtrackError(
                f"{path} line 1: {line.strip()[:60]!r} is a header: delete the line, boxes alone are read"
            )
        plain.append(line)
    table = text.parse_numbers("\n".join(plain).encode(), str(path), (4, 5))
    numbers = None
    if table.shape[1] == 5:
        numbers, table = table[:, 0], table[:, 1:]
        bad = np.flatnonzero(
            ~np.isfinite(numbers) | (numbers != np.round(numbers)) | (np.abs(numbers) > 1e15)
        )
        if not len(bad):
            bad = np.flatnonzero(np.diff(numbers) <= 0) + 1
        if len(bad):
            raise JaxtrackError(
                f"{path} line {bad[0] + 1}: lines of five numbers are frame,x,y,w,h with whole, rising "
                f"frames; {numbers[bad[0]]:g} is none"
            )
        numbers = numbers.astype(np.int64)
    with np.errstate(invalid="ignore"):
        flagged = (table == -1).all(axis=1)
        negative = np.flatnonzero((table[:, 2:] < 0).any(axis=1) & ~flagged)
        if len(negative):
            raise JaxtrackError(
                f"{path} line {negative[0] + 1}: the size {table[negative[0], 2]:g} x "
                f"{table[negative[0], 3]:g} is negative: boxes are x,y,w,h"
            )
        infinite = np.flatnonzero(np.isinf(table).any(axis=1))
        if len(infinite):
            raise JaxtrackError(f"{path} line {infinite[0] + 1}: an infinite number is no pixel")
        absent = ~usable_boxes(table)
    return numbers, table, absent


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _spread(
    what: str,
    listed: list[str],
    source: Path,
    path: Path,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Put the rows of a sparse annotation at their frames; the others get NaN and no flag."""
    numbers, boxes, absent = rows
    if not listed:
        raise JaxtrackError(f"{what}: no image files in {source}")
    of_frame = [files.frame_number(f) for f in listed] if source.is_dir() else []
    unique = len(set(of_frame)) == len(listed) and None not in of_frame
    places = {n: i for i, n in enumerate(of_frame if unique else range(len(listed)))}
    lost = [int(n) for n in numbers if int(n) not in places]
    if lost:
        keys = [k for k in places if k is not None]
        raise JaxtrackError(
            f"{what}: {path} has a box of frame {lost[0]}, but the frames of {source} are {min(keys)} to "
            f"{max(keys)}" + (" (the numbers in their names)" if unique else " (counted from 0)")
        )
    at = np.array([places[int(n)] for n in numbers])
    all_boxes = np.full((len(listed), 4), np.nan)
    all_absent = np.zeros(len(listed), dtype=bool)
    all_boxes[at], all_absent[at] = boxes, absent
    return all_boxes, all_absent


def _frames(source: Path) -> list[str]:
    return [str(p) for p in clips.frames_of(source)] if source.is_dir() else _clip_frames(source)


def _clip_frames(clip: Path) -> list[str]:
    """Return a reference to every frame of a clip. Counts by decoding: headers are wrong too often."""
    state = clip.stat()
    return [f"{clip}::{i}" for i in range(_count_frames(clip, state.st_mtime_ns, state.st_size))]


@functools.lru_cache(maxsize=256)
def _count_frames(clip: Path, changed: int, size: int) -> int:
    """Count the frames of a clip once for all of its targets."""
    del changed, size
    from jaxtrack.data.frames import count_clip_frames

    return count_clip_frames(clip)
