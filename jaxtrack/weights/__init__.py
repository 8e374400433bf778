"""Weights: published files read without PyTorch, name tables, strict merge, our own files and cards.

Nothing here knows a model: the tree to be filled comes in as an argument.
"""

import importlib
from typing import Any

from jaxtrack.weights.cards import Card, read_card, shipped_names, shipped_path
from jaxtrack.weights.files import is_own, load_into, read_published, save_weights, split_key
from jaxtrack.weights.mat import ConvLayer, read_matconvnet
from jaxtrack.weights.names import NameTable, from_published, to_published
from jaxtrack.weights.torch_file import read_torch
from jaxtrack.weights.torch_write import write_torch

__all__ = [
    "Card",
    "ConvLayer",
    "NameTable",
    "from_published",
    "is_own",
    "load_into",
    "read_card",
    "read_matconvnet",
    "read_published",
    "read_torch",
    "save_weights",
    "shipped_names",
    "shipped_path",
    "split_key",
    "to_published",
    "write_torch",
]


def __getattr__(name: str) -> Any:
    """Keep ``tables_of`` importable from here: scripts from before each family had its name tables use it."""
    if name == "tables_of":
        trackers = importlib.import_module("jaxtrack.trackers")
        return lambda family: trackers.family(family).tables
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
