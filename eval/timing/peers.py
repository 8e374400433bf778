"""Programs of others, timed by their own clock in the same run."""

from __future__ import annotations

import math
import shlex
import shutil

from jaxtrack.errors import JaxtrackError, UsageError, brief
from jaxtrack.io import child

_LIMIT = 600.0  # seconds


def words_of(line: str) -> list[str]:
    """Return the words of a peer's command.

    Raises:
        UsageError: an open quotation, no word, or a program that is not there.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"--peer {brief(line)}: {brief(error)}") from error
    if not words:
        raise UsageError("--peer: an empty command")
    if shutil.which(words[0]) is None:
        raise UsageError(f"--peer {brief(line)}: no program {brief(words[0])!r} is here")
    return words


def peer_time(line: str, seconds: float = _LIMIT) -> float:
    """Run a peer's command and read its ``ms_per_frame``.

    Args:
        line: the command.
        seconds: after which it is ended.

    Returns:
        Milliseconds a frame.

    Raises:
        JaxtrackError: it cannot be started, failed, took too long, or printed no such line.
    """
    ended = child.run(words_of(line), capture=True, seconds=seconds)
    if ended.late:
        raise JaxtrackError(f"peer `{brief(line)}`: no answer after {seconds:g} s")
    if ended.status == 0:
        for text in reversed(ended.output.splitlines()):
            words = text.split()
            if len(words) == 2 and words[0] == "ms_per_frame":
                value = _number(words[1])
                if math.isfinite(value) and value > 0:
                    return value
                raise JaxtrackError(
                    f"peer `{brief(line)}`: ms_per_frame {brief(words[1], 60)} is no time"
                )
    why = f"status {ended.status}, " if ended.status else ""
    said = [text for text in ended.errors.splitlines() if text.strip()] or ["no output"]
    raise JaxtrackError(
        f"peer `{brief(line)}` printed no line 'ms_per_frame NUMBER' ({why}{brief(said[-1], 120)})"
    )


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
