"""What all command lines share: one line for a user's mistake, exit status, compilation cache."""

from __future__ import annotations

import os
import pathlib
import sys
import traceback
from collections.abc import Callable

import jax

from jaxtrack.errors import JaxtrackError

FAILURE, USAGE, INTERRUPTED = 1, 2, 130


class UsageError(JaxtrackError):
    """A mistake in how a command was called; it exits with status 2."""


def run(action: Callable[[], None], debug: bool = False) -> int:
    """Run a command and turn what goes wrong into one line and an exit status.

    Args:
        action: the command's work.
        debug: let tracebacks through to the screen.

    Returns:
        0; 1 for a failure, 2 for a mistake in the call, 130 after Ctrl-C.
    """
    try:
        action()
        sys.stdout.flush()
    except JaxtrackError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else FAILURE
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; Python would complain again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    return 0


def devices() -> list[jax.Device]:
    """The devices that JAX will use.

    Raises:
        JaxtrackError: the platform that was asked for is not there.
    """
    try:
        return jax.devices()
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise JaxtrackError(
            f"no device to run on ({line}); JAX_PLATFORMS=cpu runs on the processor"
        ) from error


def cache_folder() -> pathlib.Path:
    """Where compiled programs are kept: the user's cache folder."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "jaxtrack" / "compiled"


def current_cache() -> pathlib.Path:
    """The cache folder in use: the user's setting for JAX, or ours."""
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return pathlib.Path(chosen) if chosen else cache_folder()


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, so that a second start is quick.

    A folder that the user has set for JAX (``JAX_COMPILATION_CACHE_DIR``) is respected. Where the
    cache folder cannot be made, this is said, and programs are compiled anew at each start.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"note: no compilation cache in {folder} ({error.strerror})", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
