"""What the SiamRPN++ parity cases share: images and weights by recipe, packed comparisons."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.names import TABLES
from jaxtrack.weights.names import from_published
from tests.parity import siamrpnpp_config as configs
from tests.parity.case import Case, Report, apply_edits, frames, sequence_frames


def nchw(x: Any) -> np.ndarray:
    """``(..., h, w, c)`` to the packs' ``(..., c, h, w)``."""
    return np.moveaxis(np.asarray(x), -1, -3)


def image(case: Case, recipe: dict[str, Any]) -> np.ndarray:
    """One RGB uint8 image of a recipe (the packs then reverse it to BGR)."""
    clip = {key: value for key, value in recipe.items() if key not in ("index", "how")}
    return clip_images(case, clip)[recipe["index"]]


def clip_images(case: Case, clip: dict[str, Any]) -> np.ndarray:
    """The RGB frames of a clip: drawn, or a real sequence, with whole frames replaced as asked."""
    configs.only(
        clip,
        {"frames", "source", "edits", "seed", "count", "height", "width", "first", "start", "how"},
        "clip",
    )
    source = clip.get("source", "weights.frames")
    if source in ("weights.frames", "frames"):
        sizes = ("seed", "count", "height", "width")
        recipe = clip.get("frames") or {k: clip[k] for k in sizes if k in clip}
        images = frames(**recipe)[0]
    else:
        images = sequence_frames(source, case.folder)
        first = clip.get("first", clip.get("start", 0))
        listed = clip.get("frames")
        if listed is not None:
            images = images[np.asarray(listed)]
        elif first or "count" in clip:
            images = images[first : first + clip.get("count", len(images))]
    return apply_edits(images, clip.get("edits", []))


def variables_of(case: Case, config: siamrpn.Config) -> Any:
    """Stand-in weights under their published names, merged strictly into our tree."""
    template = jax.eval_shape(lambda: siamrpn.init_variables(config, jax.random.key(0)))
    return from_published(TABLES["STVIR/pysot"], case.state_dict(), template)


def check_packed(report: Report, name: str, array: Any) -> None:
    """A map in whatever forms it was recorded: whole, sub-sampled, sums per channel."""
    values = np.asarray(array)
    arrays = report.case.arrays
    if name in arrays:
        report.check(name, values)
    if f"{name}.sub" in arrays:
        step = max(1, values.shape[1] // 32)
        report.check(f"{name}.sub", values[:, ::step, ::2, ::2])
    wide = values.astype(np.float64)
    if f"{name}.sum" in arrays:
        report.check(f"{name}.sum", wide.sum((0, 2, 3)))
    if f"{name}.abssum" in arrays:
        report.check(f"{name}.abssum", np.abs(wide).sum((0, 2, 3)))


def stages(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Kept intermediates by dotted name (``stage.`` taken away)."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found.update(stages(value, f"{prefix}{key}."))
        else:
            found[prefix + key.removeprefix("stage.")] = value[0]
    return found
