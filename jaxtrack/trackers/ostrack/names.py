"""Name tables of OSTrack: its own checkpoints, and ViT pre-training files of MAE and timm."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.ops.response import resize_matrix
from jaxtrack.weights.names import NameTable, lay, merge, published_targets

# A backbone alone, names without prefix. MAE's file of the whole autoencoder has a decoder, timm's a
# classifier: neither has a place here.
PRETRAINING: dict[str, NameTable] = {
    "facebookresearch/mae": NameTable(ignore=(r"^(mask_token$|decoder_)",)),
    "huggingface/pytorch-image-models": NameTable(
        ignore=(r"^(head|head_dist|fc_norm|pre_logits)\.", r"^dist_token$"),
    ),
}

_POSITIONS = r"(^|[./])pos_embed_[zx]$"  # under the published names, and under ours


def resize_pos_embed(
    pos_embed: Float[np.ndarray, "1 n c"], grid: int, skip: int = 1
) -> Float[np.ndarray, "1 m c"]:
    """Resize a position embedding to another grid.

    Args:
        pos_embed: ``(1, skip + g * g, c)``, a square grid in row-major order.
        grid: side of the new grid.
        skip: leading entries that belong to no place (the class token).

    Returns:
        ``(1, grid * grid, c)`` float32: bicubic (a = -0.75), half-pixel centres, border repeated, no
        antialiasing, as in the published code.

    Raises:
        JaxtrackError: the entries do not form a square.
    """
    table = np.asarray(pos_embed)[:, skip:]
    side = math.isqrt(table.shape[1])
    if side * side != table.shape[1]:
        raise JaxtrackError(
            f"pos_embed has {table.shape[1]} places, which form no square grid; give a ViT checkpoint"
        )
    matrix = resize_matrix(side, grid, "cubic")
    square = table.reshape(1, side, side, -1).astype(np.float64)
    resized = np.einsum("yv,xu,bvuc->byxc", matrix, matrix, square, optimize=True)
    return resized.reshape(1, grid * grid, -1).astype(np.float32)


def fit_positions(
    state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Bring a tracker checkpoint's position embeddings to the grids of this network.

    Args:
        state_dict: ``{name: array}`` of a checkpoint trained at another crop size.
        shapes: ``{name: shape}`` wanted.

    Returns:
        The state dict with ``pos_embed_z`` and ``pos_embed_x`` interpolated where their grid differs
        (a line on stderr says so); an embedding of another width is left as it is, and will be refused.
    """
    state = dict(state_dict)
    for name, value in state_dict.items():
        if not re.search(_POSITIONS, name) or name not in shapes:
            continue
        have, want = np.shape(value), shapes[name]
        if len(have) == 3 and have[1] != want[1] and have[2] == want[2]:
            grid = math.isqrt(want[1])
            _say(name, math.isqrt(have[1]), grid)
            state[name] = resize_pos_embed(value, grid, skip=0)
    return state


# botaoye/OSTrack ``.pth.tar``, entry "net": our modules carry these very names.
OSTRACK = NameTable(adapt=fit_positions, adapts=(_POSITIONS,))

TABLES: dict[str, NameTable] = {"botaoye/OSTrack": OSTRACK}


def load_pretraining(backbone: Mapping[str, Any], state_dict: Mapping[str, np.ndarray]) -> Any:
    """Fill the transformer from a pre-training file of MAE or timm, strictly.

    Entries without a place (decoder, classifier) are listed on stderr; the template's and the search
    region's position embeddings are interpolated from the file's one.

    Args:
        backbone: ``variables["params"]["backbone"]``, arrays or shapes; says names, shapes and types.
        state_dict: ``{name: array}`` of the file, without prefix.

    Returns:
        The backbone's parameters.

    Raises:
        JaxtrackError: another network (another width, say); both lists of names are in the message.
    """
    variables = {"params": dict(backbone)}
    targets = published_targets(variables)
    found = lay(PRETRAINING, {name: np.shape(x) for name, x in state_dict.items()}, targets)
    state = {found.names[name]: value for name, value in state_dict.items()}
    if "pos_embed" in state:
        skip = 1 + ("dist_token" in state)
        places = math.isqrt(max(np.shape(state["pos_embed"])[1] - skip, 0))
        for name in ("pos_embed_z", "pos_embed_x"):
            grid = math.isqrt(targets[name].shape[1])
            _say(f"pos_embed to {name}", places, grid)
            state[name] = resize_pos_embed(state["pos_embed"], grid, skip)
        # What the published state dict keeps beside them, without use.
        for name in ("cls_token", "pos_embed"):
            if name not in targets:
                del state[name]
            elif name == "pos_embed" and state[name].shape != targets[name].shape:
                side = math.isqrt(targets[name].shape[1] - 1)
                grid_part = resize_pos_embed(state[name], side, skip)
                state[name] = np.concatenate([state[name][:, :1], grid_part], axis=1)
    found = lay(PRETRAINING, {name: np.shape(value) for name, value in state.items()}, targets)
    ignored = PRETRAINING[found.label].ignore
    unused = [name for name in state if any(re.search(p, name) for p in ignored)]
    if unused and not found.fit.faults:
        print(f"note: not used of the file: {brief(', '.join(unused), 2000)}", file=sys.stderr)
    return merge(found.fit, state, targets, variables)["params"]


def _say(what: str, have: int, want: int) -> None:
    if have != want:
        line = f"note: position embedding {what}: {have}x{have} grid interpolated to {want}x{want}"
        print(line, file=sys.stderr)
