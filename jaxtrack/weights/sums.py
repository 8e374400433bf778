"""Checksums of trees of arrays: a flipped bit on a disk must not become a wrong weight in silence."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np


def sum_of_arrays(tree: Any) -> str:
    """Return the sha256 of all arrays of a tree, with their places, shapes and types.

    Args:
        tree: of arrays, on the host or on devices; mappings, sequences and records alike.
    """
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        name = ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        found.update(f"{name} {np.shape(leaf)} {array.dtype}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
