"""OSTrack's training crops: jittered windows, mirrored and coloured, made on the device."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrack.ranges import NotNegative, Share, check_ranges
from jaxtrack.trackers.ostrack import crop as crop_ostrack

from ...augment import AugmentConfig, change_colours, change_detail, sample_window, to_grey


@dataclasses.dataclass(frozen=True)
class CropConfig:
    """Augmentation of a pair's crops; the defaults are those of the published 256 configurations.

    Attributes:
        centre_jitter: the search window's centre moves by up to half of this times the square root of
            the jittered box's area, along each axis.
        scale_jitter: width and height of the box that the window is made around are multiplied by
            ``exp(N(0, 1) scale_jitter)``, each by its own draw.
        pair_flip: probability of mirroring both crops.
        flip: probability of mirroring one crop, drawn for each.
        grey: probability of grey, one draw for both crops.
        brightness: amount of the factor ``U(1 - b, 1 + b)``, drawn for each crop.
        colours: further changes of colour and detail of each crop; None: none, as published.
    """

    centre_jitter: NotNegative = 3.0
    scale_jitter: NotNegative = 0.25
    pair_flip: Share = 0.5
    flip: Share = 0.5
    grey: Share = 0.05
    brightness: NotNegative = 0.2
    colours: AugmentConfig | None = None

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)


def jitter_box(
    box: Float[Array, "4"],
    centre_factor: float,
    scale_factor: float,
    normal: Float[Array, "2"],
    uniform: Float[Array, "2"],
) -> Float[Array, "4"]:
    """Return the box that a training crop is made around.

    Args:
        box: ``x, y, w, h`` of the target.
        centre_factor: see `CropConfig.centre_jitter`.
        scale_factor: see `CropConfig.scale_jitter`.
        normal: draws for width and height.
        uniform: draws in [0, 1) for x and y.

    Returns:
        ``x, y, w, h``.

    Reference:
        botaoye/OSTrack, ``_get_jittered_box``.
    """
    size = box[2:] * jnp.exp(normal * scale_factor)
    reach = jnp.sqrt(jnp.prod(size)) * centre_factor
    centre = box[:2] + 0.5 * box[2:] + reach * (uniform - 0.5)
    return jnp.concatenate([centre - 0.5 * size, size])


def flip_box(box: Float[Array, "4"], width: float) -> Float[Array, "4"]:
    """Return a box ``x, y, w, h`` after mirroring left and right: ``x -> width - x - w``."""
    return jnp.stack([width - box[0] - box[2], box[1], box[2], box[3]])


def brighten(image: Float[Array, "h w 3"], factor: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Multiply levels 0..255 by a factor and clamp."""
    return jnp.clip(image * factor, 0, 255)


def cut(
    config: CropConfig,
    size: int,
    factor: float,
    key: Array,
    pair_key: Array,
    patch: Array,
    box: Float[Array, "4"],
    search: bool,
) -> tuple[Float[Array, "s s 3"], Float[Array, "4"]]:
    """Return one training crop from a context patch.

    Args:
        config: settings.
        size: side of the crop, pixels.
        factor: side of the window over the square root of the target's area.
        key: for what differs between the crops of a pair.
        pair_key: for what they share.
        patch: uint8 RGB, the target near its middle.
        box: ``x, y, w, h`` in it.
        search: the search crop (jittered) or the template (not).

    Returns:
        Levels 0..255, float32, and the target's box as fractions of the crop.
    """
    keys = jax.random.split(key, 5)
    both = jax.random.uniform(jax.random.fold_in(pair_key, 0)) < config.pair_flip
    width = patch.shape[1]
    patch = jnp.where(both, patch[:, ::-1], patch)
    # A mirrored box lies one pixel off, as published (x -> W - 1 - x - w).
    box = jnp.where(both, flip_box(box, width - 1), box)
    around = box
    if search:
        normal = jax.random.normal(keys[0], (2,))
        uniform = jax.random.uniform(keys[1], (2,))
        around = jitter_box(box, config.centre_jitter, config.scale_jitter, normal, uniform)
    side = jnp.maximum(jnp.ceil(jnp.sqrt(around[2] * around[3]) * factor), 1.0)
    start = jnp.rint(around[:2] + 0.5 * around[2:] - 0.5 * side)
    step = jnp.broadcast_to(side / size, (2,))
    own = jax.random.uniform(keys[2]) < config.flip
    crop, _ = sample_window(patch, box, start, step, size, own)
    inside = crop_ostrack.box_to_crop(box, around, size / side, size) / size
    inside = jnp.where(own, flip_box(inside, 1.0), inside)
    if config.grey:
        grey = jax.random.uniform(jax.random.fold_in(pair_key, 1)) < config.grey
        crop = jnp.where(grey, to_grey(crop, whole=True), crop)
    if config.brightness:
        amount = config.brightness * jax.random.uniform(keys[3], (), minval=-1, maxval=1)
        crop = brighten(crop, 1 + amount)
    if config.colours is not None:
        key_colour, key_detail = jax.random.split(keys[4])
        crop = change_colours(config.colours, key_colour, crop)
        crop = jnp.clip(change_detail(config.colours, key_detail, crop), 0, 255)
    return crop, inside
