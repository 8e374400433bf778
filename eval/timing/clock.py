"""Clocks, the device's name, and a clip to time trackers on."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import cv2
import jax
import numpy as np

from jaxtrack.io.turns import cores

FRAME_SIZE = (480, 640)  # height, width: common in the field's benchmarks
BOX = (280.0, 190.0, 84.0, 66.0)


def clock(action: Callable[[], Any], rounds: int) -> list[float]:
    """Return the seconds of each call; the result is waited for."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(action())
        times.append(time.perf_counter() - started)
    return times


def clip(frames: int, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
    """Return a clip of smooth texture in motion: values do not matter, but a flat picture might flatter.

    Args:
        frames: how many.
        size: ``(height, width)``.
    """
    rng = np.random.default_rng(0)
    height, width = size
    texture = rng.integers(0, 256, (height // 8 + 8, width // 8 + 8, 3), np.uint8)
    big = cv2.resize(texture, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    return np.stack([big[t % 32 : t % 32 + height, t % 48 : t % 48 + width] for t in range(frames)])


def describe_device() -> str:
    """Return device, cores and versions in a line."""
    device = jax.devices()[0]
    kind = f"{device.platform} {device.device_kind}".strip()
    return f"{kind}, {cores()} cores, {platform.machine()}, jax {jax.__version__}"
