"""Programs for GPUs stay small: lowered on a CPU, every preset holds its count of operations."""

from __future__ import annotations

import jax
import pytest

from jaxtrack import trackers
from tests import lowering
from train import presets

FRAME, UPDATE, DRAW = 1500, 6000, 6000
# What is larger still, by the beginning of its name: two networks in one program, gradients while
# tracking; 53 convolutions at two sizes of image, with and without their gradients; a transformer.
LARGER = {"siamrpnpp-r50-lt": 3200, "siamfc-mlt": 1950, "siamfc-tiny-mlt": 1750, "mlt": 1750}
LARGER_UPDATES = {"siamrpnpp-r50": 10_500, "siamrpnpp-tiny": 6300, "ostrack": 7300}


def limit(preset: str, larger: dict[str, int], usual: int) -> int:
    """Return what a preset may have."""
    return next((most for name, most in larger.items() if preset.startswith(name)), usual)


@pytest.mark.parametrize("preset", ["siamfc", "siamrpnpp-r50", "ostrack-256-ce", "tadt", "mlt"])
def test_frames_are_small(preset: str) -> None:
    assert lowering.frame(preset).operations < limit(preset, LARGER, FRAME)


@pytest.mark.parametrize("preset", ["siamfc-tiny"])
def test_updates_are_small(preset: str) -> None:
    assert lowering.update(preset).operations < limit(preset, LARGER_UPDATES, UPDATE)


@pytest.mark.slow
@pytest.mark.parametrize("preset", trackers.names())
def test_every_frame_is_small(preset: str) -> None:
    assert lowering.frame(preset).operations < limit(preset, LARGER, FRAME)


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(presets.all_presets()))
def test_every_update_is_small(preset: str) -> None:
    assert lowering.update(preset).operations < limit(preset, LARGER_UPDATES, UPDATE)
    assert lowering.draw(preset).operations < DRAW


@pytest.mark.parametrize("preset", ["siamfc-tiny", "siamrpnpp-tiny", "mlt-tiny"])
def test_slots_make_no_grouped_convolutions(preset: str) -> None:
    """A kernel of each target's own, side by side under vmap, is a batch of matrix products."""
    alone, many = lowering.frame(preset), lowering.frame(preset, slots=8)
    name = "stablehlo.convolution"
    assert many.names.get(name, 0) == alone.names.get(name, 0)
    if (
        preset != "siamrpnpp-tiny"
    ):  # whose correlation is a sum of shifted products, channel by channel
        assert many.names["stablehlo.dot_general"] > 0


def test_the_platform_is_chosen_at_lowering() -> None:
    """One trace gives the program of either platform."""
    gpu, cpu = (lowering.frame("siamfc-tiny", platform=name) for name in ("cuda", "cpu"))
    assert jax.default_backend() == "cpu"
    convolution = "stablehlo.convolution"
    assert gpu.names[convolution] > cpu.names.get(convolution, 0)
