"""Read MatConvNet networks (``imagenet-vgg-verydeep-16.mat``) through SciPy."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxtrack.errors import JaxtrackError


class ConvLayer(NamedTuple):
    """One convolution of the file.

    Attributes:
        name: as the file calls it (``conv1_1``).
        kernel: ``(height, width, in, out)``, which is Flax's order too.
        bias: ``(out,)``.
    """

    name: str
    kernel: Float[np.ndarray, "h w i o"]
    bias: Float[np.ndarray, " o"]


def read_matconvnet(path: str | os.PathLike[str]) -> list[ConvLayer]:
    """The convolutions of a MatConvNet network, in the file's order.

    ``layers`` is a 1xN cell of structs; a layer's name, type and weights are its fields of these names
    (or its first three where the file leaves the names out), weights a cell of filters and biases.
    Fully connected layers are convolutions in MatConvNet and come last.

    Args:
        path: a ``.mat`` file (MATLAB 5 format, as MatConvNet's models are).

    Returns:
        The layers of type ``conv``, float32.

    Raises:
        JaxtrackError: missing, truncated, not a ``.mat`` file, or not a MatConvNet network.

    Reference:
        The layout that ZikunZhou/TADT-python reads.
    """
    path = pathlib.Path(path)
    layers = _load(path).get("layers")
    if layers is None or layers.dtype != object:
        raise JaxtrackError(f"{path}: no MatConvNet network (it has no cell array 'layers')")
    found = []
    for index, cell in enumerate(layers.ravel()):
        try:
            layer = _layer(cell)
        except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise JaxtrackError(
                f"{path}: layer {index} is not laid out as MatConvNet does ({error})"
            ) from error
        if layer is not None:
            found.append(layer)
    if not found:
        raise JaxtrackError(f"{path}: the network has no convolution")
    return found


def _load(path: pathlib.Path) -> dict[str, Any]:
    import scipy.io

    if not path.is_file():
        raise JaxtrackError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return scipy.io.loadmat(path, variable_names=["layers"])
    except NotImplementedError as error:
        raise JaxtrackError(
            f"{path}: saved in MATLAB's 7.3 format (HDF5); save it again with -v7"
        ) from error
    except Exception as error:  # SciPy's reader raises whatever a damaged file makes it trip over
        raise JaxtrackError(
            f"{path}: not a whole .mat file, get it again ({type(error).__name__}: {error})"
        ) from error


def _layer(cell: np.ndarray) -> ConvLayer | None:
    """A layer's struct, or None where it is no convolution."""
    struct = cell.ravel()[0]
    fields = struct.dtype.names
    keys = ("name", "type", "weights") if "weights" in fields else fields[:3]
    if "type" in fields and str(struct["type"].ravel()[0]) != "conv":
        return None
    name, kind, weights = (struct[key].ravel() for key in keys)
    if str(kind[0]) != "conv":
        return None
    if weights.dtype != object or weights.size != 2:
        raise ValueError("its weights are not a cell of filters and biases")
    kernel = np.asarray(weights[0], np.float32)
    bias = np.asarray(weights[1], np.float32).ravel()
    # MATLAB drops trailing axes of length one: a single filter is saved as height x width x in.
    kernel = kernel.reshape(*kernel.shape, *(1,) * (4 - kernel.ndim))
    if kernel.ndim != 4 or kernel.shape[3] != bias.size:
        raise ValueError(f"filters {kernel.shape} and {bias.size} biases")
    return ConvLayer(str(name[0]), kernel, bias)


def matconvnet_state_dict(layers: list[ConvLayer]) -> dict[str, np.ndarray]:
    """Layers as a state dict ``conv.<k>.weight`` (OIHW) and ``conv.<k>.bias``, k in the file's order.

    Published codes go by the order, not by the file's names, and so does the name table.
    """
    state: dict[str, np.ndarray] = {}
    for k, layer in enumerate(layers):
        state[f"conv.{k}.weight"] = layer.kernel.transpose(3, 2, 0, 1)
        state[f"conv.{k}.bias"] = layer.bias
    return state
