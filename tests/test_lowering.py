"""Programs for GPUs stay small: lowered on a CPU, every preset holds its count of operations."""

from __future__ import annotations

import jax
import pytest

from jaxtrack import trackers
from tests import lowering
from train import presets

FRAME, UPDATE, DRAW = 1500, 6000, 6000
LIFELIKE = 7000  # drawing of a world with all shares of what real video has
# What is larger still, by the beginning of its name: one network on windows of two sizes.
LARGER = {"siamrpnpp-r50-lt": 1950}


def most_of(preset: str) -> int:
    """Return what a preset's frame may have."""
    return next((most for name, most in LARGER.items() if preset.startswith(name)), FRAME)


@pytest.mark.parametrize(
    "preset",
    ["siamfc", "siamrpnpp-r50", "ostrack-256-ce", "tadt", "mlt", "mlt-small", "siamfc-tiny-mlt"],
)
def test_frames_are_small(preset: str) -> None:
    assert lowering.frame(preset).operations < most_of(preset)


@pytest.mark.parametrize("preset", ["siamfc-tiny"])
def test_updates_are_small(preset: str) -> None:
    assert lowering.update(preset).operations < UPDATE


@pytest.mark.slow
@pytest.mark.parametrize("preset", trackers.names())
def test_every_frame_is_small(preset: str) -> None:
    assert lowering.frame(preset).operations < most_of(preset)


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(presets.all_presets()))
def test_every_update_is_small(preset: str) -> None:
    assert lowering.update(preset).operations < UPDATE
    assert lowering.draw(preset).operations < (LIFELIKE if "-small" in preset else DRAW)


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(p, marks=pytest.mark.slow)
        for p in ("siamfc-tiny", "siamrpnpp-tiny", "tadt-tiny")
    ]
    + ["mlt-tiny"],
)
def test_slots_keep_to_forms_that_gpus_like(preset: str) -> None:
    """A kernel of each target's own, side by side under vmap, is a batch of matrix products."""
    alone, many = lowering.frame(preset), lowering.frame(preset, slots=8)
    # Convolutions with a group for each target or channel are slow; a network's own groups are few.
    assert len(many.groups) <= len(alone.groups)
    assert max(many.groups) == max(alone.groups) <= 2
    if preset != "siamrpnpp-tiny":  # which correlates channel by channel: sums of products of rows
        assert many.names["stablehlo.dot_general"] > 0
    assert many.doubles == alone.doubles == 0
    # Programs of one are smaller than they were (1.6 times): what is rare is there for all and for a few.
    assert many.operations < 1.7 * alone.operations


def test_the_platform_is_chosen_at_lowering() -> None:
    """One trace gives the program of either platform."""
    gpu, cpu = (lowering.frame("siamfc-tiny", platform=name) for name in ("cuda", "cpu"))
    assert jax.default_backend() == "cpu"
    convolution = "stablehlo.convolution"
    assert gpu.names[convolution] > cpu.names.get(convolution, 0)


@pytest.mark.parametrize(
    "preset",
    ["siamfc-tiny", "siamrpnpp-tiny", "ostrack-tiny", "tadt-tiny", "mlt-tiny", "siamfc-tiny-mlt"],
)
def test_products_of_float32_are_of_float32(preset: str) -> None:
    """Without a word about precision, no product is left to what GPUs do by default: three digits."""
    assert lowering.init(preset).loose == 0
    assert lowering.frame(preset).loose == 0
