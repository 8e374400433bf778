"""Augmentation on the device: a context patch in, a crop out. Vmapped inside the training step.

The host (or the synthetic world) only delivers a patch that is larger than the crop; shift, scale, flip,
grey, colour, blur and noise happen here, in float32 of 0..255. All geometry is along the axes, so that a crop
is two small matrix products (rows, then columns): quick on every platform, antialiased where asked, and
exact for whole-pixel shifts.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jaxtrack.errors import JaxtrackError
from jaxtrack.ranges import Count, NotNegative, Range, Share, check_ranges
from jaxtrack.synthetic.patches import PatchConfig

from .step import streams

_LUMA = (0.299, 0.587, 0.114)
_REACH = 16  # largest shrinking factor that antialiasing normalises for


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to one crop of a pair. Defaults: a plain centre crop.

    Attributes:
        size: side of the crop, pixels.
        shift: largest offset of the crop's centre from the patch's along each axis, crop pixels.
        whole_pixels: offsets are whole pixels.
        scale: amount of the random factor by which the content is magnified.
        scale_kind: ``uniform``: ``1 + U(-scale, scale)``; ``lognormal``: ``exp(scale * N(0, 1))``.
        scale_axes: width and height get factors of their own.
        bounded: the window is kept inside the patch (smaller scale and shift where it would leave it).
        antialias: average over the pixels that one pixel of a shrunken crop covers.
        flip: probability of mirroring left and right, per crop.
        pair_flip: the same, one draw for both crops of a pair.
        grey: probability of grey, per crop.
        pair_grey: the same, one draw for both crops of a pair.
        brightness: amount of the factor ``1 + U(-b, b)``, clipped to 0..255.
        contrast: amount of the factor ``1 + U(-c, c)`` around the crop's mean.
        offset: standard deviation of a normal offset of each channel, grey levels.
        offset_mix: three rows (R, G, B) of three: the offset is this matrix times three standard
            normals (colour variation along the axes of natural images); empty: off.
        blur: probability of a motion-like blur: a cross of one row and one column.
        blur_size: largest side of that kernel, pixels, odd; the smallest is 5.
        noise: standard deviation of white noise, grey levels.
    """

    size: Count
    shift: NotNegative = 0.0
    whole_pixels: bool = False
    scale: NotNegative = 0.0
    scale_kind: Literal["uniform", "lognormal"] = "uniform"
    scale_axes: bool = False
    bounded: bool = False
    antialias: bool = False
    flip: Share = 0.0
    pair_flip: Share = 0.0
    grey: Share = 0.0
    pair_grey: Share = 0.0
    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    offset: NotNegative = 0.0
    offset_mix: tuple[tuple[float, float, float], ...] = ()
    blur: Share = 0.0
    blur_size: Annotated[int, Range(low=5, odd=True)] = 45
    noise: NotNegative = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges, by name."""
        check_ranges(self)


def refuse_sizes(
    patch: PatchConfig, exemplar: int, template: int, search: int, search_name: str = "search.size"
) -> None:
    """Refuse crops that do not fit what they are cut from, or the tracker that they are for.

    Args:
        patch: how patches are cut.
        exemplar: side of the template that the tracker takes, pixels.
        template: side of the template's crop, pixels.
        search: side of the search patch's crop, pixels.
        search_name: name of its field.

    Raises:
        JaxtrackError: says which sizes, and what each has to be.
    """
    if template != exemplar:
        raise JaxtrackError(f"template.size is {template}, but the tracker takes {exemplar}")
    if search < template:
        raise JaxtrackError(f"{search_name} is {search}, below the template's {template}")
    refuse_patch("template.size", template, patch, "template")
    refuse_patch(search_name, search, patch, "search")


def refuse_patch(
    name: str, side: int, patch: PatchConfig, part: Literal["template", "search"]
) -> None:
    """Refuse a patch that is cut for crops of another side.

    Args:
        name: of the field that holds the crop's side.
        side: of the crop, pixels.
        patch: how patches are cut.
        part: which of them.

    Raises:
        JaxtrackError: says which sizes, and what each has to be.
    """
    spec = getattr(patch, part)
    if spec.nominal != side:
        raise JaxtrackError(
            f"{name} is {side} and patch.{part}.nominal {spec.nominal}: both are the side of the crop"
        )
    if spec.size < side:
        raise JaxtrackError(f"patch.{part}.size is {spec.size}, below {name} = {side}")


def augment(
    config: AugmentConfig,
    key: Array,
    pair_key: Array,
    patch: UInt8[Array, "p p 3"],
    box: Float[Array, "4"],
    further: Float[Array, "2"] | None = None,
) -> tuple[Float[Array, "s s 3"], Float[Array, "4"]]:
    """Cut and change one patch.

    Args:
        config: what to do (static).
        key: for what differs between the crops of a pair.
        pair_key: for what they share; the same key for both.
        patch: square uint8 RGB patch, the window's nominal place in its middle.
        box: ``x, y, w, h`` of the target in the patch, pixels, 0-based corner.
        further: ``(2,)`` x, y by which the window is moved beyond what is drawn, crop pixels; None: not.

    Returns:
        The crop, float32 in 0..255 (offsets and noise may leave that range), and the box in it.
    """
    keys = jax.random.split(key, 5)
    flip = _happens(keys[0], config.flip) ^ _happens(
        jax.random.fold_in(pair_key, 0), config.pair_flip
    )
    start, step = draw_window(config, keys[1], patch.shape[0])
    if further is not None:
        start = start + further * step
    crop, box = sample_window(patch, box, start, step, config.size, flip, config.antialias)
    grey = _happens(keys[2], config.grey) | _happens(
        jax.random.fold_in(pair_key, 1), config.pair_grey
    )
    if config.grey or config.pair_grey:
        crop = jnp.where(grey, to_grey(crop), crop)
    crop = change_colours(config, keys[3], crop)
    return change_detail(config, keys[4], crop), box


def augment_pairs(
    template: AugmentConfig, search: AugmentConfig, batch: dict[str, Array], keys: Array
) -> tuple[Array, Array, Array, Array]:
    """Augment a batch of pairs (see `train.step`), every crop with draws of its own.

    Args:
        template: for the templates (static).
        search: for the search patches (static).
        batch: ``template``, ``search``, ``template_box``, ``search_box``.
        keys: ``(n,)`` JAX random keys, one for each pair.

    Returns:
        Templates ``(n, s, s, 3)``, searches ``(n, r, r, 3)``, float32 0..255, and their boxes ``(n, 4)``.
    """
    key_z, key_x, key_pair = streams(keys, 3)
    cut = jax.vmap(augment, in_axes=(None, 0, 0, 0, 0))
    z, z_box = cut(template, key_z, key_pair, batch["template"], batch["template_box"])
    x, x_box = cut(search, key_x, key_pair, batch["search"], batch["search_box"])
    return z, x, z_box, x_box


def _happens(key: Array, rate: float) -> Array:
    return jax.random.uniform(key, ()) < rate if rate else jnp.zeros((), bool)


def draw_window(
    config: AugmentConfig, key: Array, patch_size: int
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Draw the window that becomes the crop.

    Args:
        config: shift and scale.
        key: a JAX random key.
        patch_size: side of the patch, pixels.

    Returns:
        ``start``: ``(2,)`` x, y of the window's corner in the patch (continuous coordinates), and
        ``step``: ``(2,)`` patch pixels per crop pixel.
    """
    key_scale, key_shift = jax.random.split(key)
    size = config.size
    if config.scale_kind == "uniform":
        factor = 1 + config.scale * jax.random.uniform(key_scale, (2,), minval=-1, maxval=1)
    else:
        factor = jnp.exp(config.scale * jax.random.normal(key_scale, (2,)))
    if not config.scale_axes:
        factor = factor[jnp.zeros(2, int)]
    step = 1 / factor
    if config.bounded:
        step = jnp.minimum(step, patch_size / size)
    shift = config.shift * jax.random.uniform(key_shift, (2,), minval=-1, maxval=1)
    if config.whole_pixels:
        # Equal odds for each of the 2 * shift + 1 offsets.
        reach = int(config.shift)
        shift = jax.random.randint(key_shift, (2,), -reach, reach + 1).astype(jnp.float32)
    start = (patch_size - size * step) / 2 + shift * step
    if config.bounded:
        start = jnp.clip(start, 0, patch_size - size * step)
    return start, step


def sample_window(
    patch: UInt8[Array, "p p 3"],
    box: Float[Array, "4"],
    start: Float[Array, "2"],
    step: Float[Array, "2"],
    size: int,
    flip: Array | bool = False,
    antialias: bool = False,
) -> tuple[Float[Array, "s s 3"], Float[Array, "4"]]:
    """Bilinear crop of an axis-aligned window; beyond the patch lies the patch's mean colour.

    Args:
        patch: square uint8 patch.
        box: ``x, y, w, h`` in it.
        start: x, y of the window's corner, continuous (pixel i spans ``[i, i + 1)``).
        step: x, y patch pixels per crop pixel.
        size: side of the crop.
        flip: mirror left and right.
        antialias: widen the bilinear kernel to ``step`` where that is above 1.

    Returns:
        The crop, float32, and the box in it.
    """
    pixels = patch.astype(jnp.float32)
    mean = jnp.mean(pixels, axis=(0, 1))
    index = jnp.arange(size, dtype=jnp.float32)
    columns = jnp.where(flip, size - 1 - index, index)
    wide = step if antialias else (None, None)
    across = bilinear_weights(start[0] + (columns + 0.5) * step[0] - 0.5, patch.shape[1], wide[0])
    down = bilinear_weights(start[1] + (index + 0.5) * step[1] - 0.5, patch.shape[0], wide[1])
    # The mean is taken off first: where weights do not reach the patch, zero is then the mean colour.
    centred = pixels - mean[None, None]
    rows = jnp.einsum("yv,vuc->yuc", down, centred, precision="highest")
    crop = jnp.einsum("xu,yuc->yxc", across, rows, precision="highest") + mean[None, None]
    corner, extent = (box[:2] - start) / step, box[2:] / step
    x = jnp.where(flip, size - corner[0] - extent[0], corner[0])
    return crop, jnp.stack([x, corner[1], extent[0], extent[1]])


def bilinear_weights(
    position: Float[Array, "s"], count: int, step: Float[Array, ""] | None = None
) -> Float[Array, "s p"]:
    """Return what each of ``count`` pixels counts at each position; a crop is two such matrices' product.

    Args:
        position: in pixel indices (pixel 0's centre is 0), anywhere.
        count: pixels.
        step: pixels from one position to the next, for antialiasing: where it is above 1, the kernel is
            that much wider. None: plain bilinear weights.

    Returns:
        One row for each position, in its dtype; a row sums to less than 1 where pixels end.
    """
    width = None if step is None else jnp.maximum(step, 1.0)

    def hat(distance: Array) -> Array:
        distance = jnp.abs(distance)
        return jnp.maximum(0, 1 - (distance if width is None else distance / width))

    weights = hat(position[:, None] - jnp.arange(count, dtype=position.dtype)[None, :])
    if step is not None:  # normalised over the endless grid: what lies outside keeps its share
        reach = jnp.arange(-_REACH, _REACH + 1, dtype=position.dtype)
        fraction = position - jnp.floor(position)
        weights = weights / jnp.sum(hat(fraction[:, None] - reach[None, :]), axis=1, keepdims=True)
    return weights


def to_grey(image: Float[Array, "h w 3"], whole: bool = False) -> Float[Array, "h w 3"]:
    """Return RGB as grey in three equal channels, by the luma of ITU-R BT.601.

    Args:
        image: levels 0..255.
        whole: round to whole levels, as the published codes' images are.
    """
    luma = jnp.sum(image * jnp.asarray(_LUMA, image.dtype)[None, None], axis=-1)
    return jax.lax.broadcast_in_dim(jnp.round(luma) if whole else luma, image.shape, (0, 1))


def change_colours(
    config: AugmentConfig, key: Array, crop: Float[Array, "s s 3"]
) -> Float[Array, "s s 3"]:
    """Brightness, contrast and channel offsets."""
    keys = jax.random.split(key, 4)
    if config.brightness:
        factor = 1 + config.brightness * jax.random.uniform(keys[0], (), minval=-1, maxval=1)
        crop = jnp.clip(crop * factor, 0, 255)
    if config.contrast:
        factor = 1 + config.contrast * jax.random.uniform(keys[1], (), minval=-1, maxval=1)
        mean = jnp.mean(crop)
        crop = mean + factor * (crop - mean)
    if config.offset:
        crop = crop + config.offset * jax.random.normal(keys[2], (3,))[None, None]
    if config.offset_mix:
        offset = jnp.asarray(config.offset_mix) @ jax.random.normal(keys[3], (3,))
        crop = crop + offset[None, None]
    return crop


def change_detail(
    config: AugmentConfig, key: Array, crop: Float[Array, "s s 3"]
) -> Float[Array, "s s 3"]:
    """Blur by a cross-shaped kernel, and white noise."""
    key_flag, key_size, key_mix, key_noise = jax.random.split(key, 4)
    if config.blur:
        # Odd sizes 5, 7, ... blur_size; a column of weight m / n and a row of weight (1 - m) / n.
        half = jax.random.randint(key_size, (), 2, config.blur_size // 2 + 1)
        mix = jax.random.uniform(key_mix, ())
        blurred = cross_blur(crop, half, mix)
        crop = jnp.where(_happens(key_flag, config.blur), blurred, crop)
    if config.noise:
        crop = crop + config.noise * jax.random.normal(key_noise, crop.shape)
    return crop


def cross_blur(
    image: Float[Array, "s s 3"],
    half: Int[Array, ""],
    mix: Float[Array, ""],
    precision: Literal["highest"] | None = None,
) -> Float[Array, "s s 3"]:
    """Return the mean over a column of pixels, mixed with the mean over a row of as many.

    Args:
        image: 0..255.
        half: column and row have ``2 half + 1`` pixels; borders are mirrored, the border pixel once.
        mix: weight of the column's mean; the row's has the rest.
        precision: of the products; None: the platform's own, which is enough for a change at random.
    """
    mean = _box_matrix(image.shape[0], half, image.dtype)
    down = jnp.einsum("yv,vxc->yxc", mean, image, precision=precision)
    across = jnp.einsum("xu,yuc->yxc", mean, image, precision=precision)
    mix = mix.astype(image.dtype)
    return mix * down + (1 - mix) * across


def _box_matrix(size: int, half: Int[Array, ""], dtype: Any) -> Float[Array, "s s"]:
    """Return the moving average over ``2 half + 1`` pixels, mirrored at the border (its pixel once)."""
    index = jnp.arange(size)
    # Entry (y, v): how many taps of output y fall on pixel v, directly or by either mirror.
    count = (jnp.abs(index[:, None] - index[None, :]) <= half).astype(dtype)
    for image in (-index, 2 * (size - 1) - index):
        near = jnp.abs(index[:, None] - image[None, :]) <= half
        # A border pixel is its own mirror image: counted once.
        count = count + (near & (image != index)[None, :])
    return count / (2 * half + 1).astype(dtype)
