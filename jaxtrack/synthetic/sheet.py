"""Contact sheets of the synthetic world: what trackers are trained on, to look at.

python -m jaxtrack.synthetic.sheet --output sheet.png --set real.jpeg=0.5
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxtrack import cli
from jaxtrack.io.images import output_image, write_image
from jaxtrack.io.writer import beside, draw_boxes
from jaxtrack.settings import replaced
from jaxtrack.synthetic.world import Clip, Pair, PatchConfig, WorldConfig, make_clip, make_pair


def _boxed(
    image: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"], dim: bool = False
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a copy of an image with a box; grey where the target is absent."""
    return draw_boxes(image, box[None], colours=((128, 128, 128) if dim else (255, 208, 48),))


def clip_strip(clip: Clip) -> UInt8[np.ndarray, "h w 3"]:
    """Return a clip's frames in a row, with boxes."""
    images = [
        _boxed(np.asarray(frame), np.asarray(box), bool(absent))
        for frame, box, absent in zip(clip.frames, clip.boxes, clip.absent)
    ]
    return beside(images, 1)


def pair_picture(pair: Pair) -> UInt8[np.ndarray, "h w 3"]:
    """Template and search patch side by side, with boxes; grey in a negative pair."""
    template = _boxed(np.asarray(pair.template), np.asarray(pair.template_box))
    search = _boxed(np.asarray(pair.search), np.asarray(pair.search_box), bool(pair.negative))
    return beside([template, search], 1)


def sheet(
    world: WorldConfig, seed: int, clips: int = 5, frames: int = 7, pairs: int = 10
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a contact sheet: clips as rows of frames, then training pairs.

    Args:
        world: the world.
        seed: of the first key.
        clips: rows.
        frames: frames per row.
        pairs: training pairs below.

    Returns:
        The picture, RGB.
    """
    shown = jnp.linspace(0, world.length - 1, frames).round().astype(jnp.int32)
    draw = jax.jit(lambda key: make_clip(world, key, shown))
    keys = jax.random.split(jax.random.key(seed), clips + pairs)
    rows = [clip_strip(draw(key)) for key in keys[:clips]]
    patch = PatchConfig(negative_rate=0.1)
    cut = jax.jit(lambda some: jax.lax.map(lambda key: make_pair(world, patch, key), some))
    batch = jax.tree.map(np.asarray, cut(jnp.asarray(keys[clips:])))
    pictures = [
        pair_picture(jax.tree.map(lambda leaf, index=index: leaf[index], batch))
        for index in range(pairs)
    ]
    across = max(1, rows[0].shape[1] // pictures[0].shape[1]) if rows else 5
    rows += [beside(pictures[i : i + across], 1) for i in range(0, pairs, across)]
    return beside(rows, 0)


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw clips and training pairs of the synthetic world on one sheet.

    Attributes:
        output: the picture to write.
        seed: which clips and pairs.
        clips: rows of frames.
        frames: frames in a row.
        pairs: training pairs below.
        set: changes of the world, as ``noise=0.1`` or ``real.jpeg=0.5``.
        debug: show the traceback of an error.
    """

    output: pathlib.Path = pathlib.Path("sheet.png")
    seed: int = 0
    clips: Annotated[int, cli.Range(low=1, high=100)] = 5
    frames: Annotated[int, cli.Range(low=1, high=100)] = 7
    pairs: Annotated[int, cli.Range(low=1, high=1000)] = 10
    set: tuple[str, ...] = ()
    debug: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, _draw, "python -m jaxtrack.synthetic.sheet", arguments)


def _draw(options: Options) -> None:
    cli.use_compilation_cache()
    output = output_image(options.output)
    world = replaced(WorldConfig(), options.set)
    picture = sheet(world, options.seed, options.clips, options.frames, options.pairs)
    write_image(output, picture)
    print(f"wrote {options.output} ({picture.shape[1]} x {picture.shape[0]})")


if __name__ == "__main__":
    raise SystemExit(main())
