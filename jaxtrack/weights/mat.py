"""Read MatConvNet networks (``imagenet-vgg-verydeep-16.mat``)."""

from __future__ import annotations

import mmap
import os
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxtrack.errors import JaxtrackError, brief
from jaxtrack.io.archives import unpacked_room
from jaxtrack.weights.guard import DAMAGE, reading
from jaxtrack.weights.matlab import Matrix, variables


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


def read_matconvnet(path: str | os.PathLike[str], wanted: int | None = None) -> list[ConvLayer]:
    """Return the convolutions of a MatConvNet network, in the file's order.

    A SimpleNN network is a struct whose field ``layers`` is a 1xN cell of structs. It is saved by its fields
    (``layers`` is a variable of the file, as in the published files) or as it is (the variable is
    ``net``, or has another name). A layer's name, type and weights are its fields of these names (or
    its first three where the file leaves the names out), weights a cell of filters and biases; in the
    oldest files these are the fields ``filters`` and ``biases``. Fully connected layers are
    convolutions in MatConvNet and come last.

    Args:
        path: a ``.mat`` file (MATLAB 5 format, as MatConvNet's models are).
        wanted: bytes of the weights that are to be filled, which bound what it may unpack to; None: only
            its own size does.

    Returns:
        The layers of type ``conv``, float32.

    Raises:
        JaxtrackError: missing, truncated, not a ``.mat`` file, or not a MatConvNet network.

    Reference:
        The layout that ZikunZhou/TADT-python reads.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise JaxtrackError(f"{brief(path, 400)}: no such file")
    with reading(path, "not a whole .mat file, get it again"):
        layers = _layers(_content(path), wanted)
        found = [layer for index, cell in enumerate(layers) if (layer := _named(index, cell))]
        if not found:
            raise JaxtrackError("the network has no convolution")
        return found


def _content(path: pathlib.Path) -> memoryview:
    """Return the file, mapped: its pages are read when they are used."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ValueError("it is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _layers(data: memoryview, wanted: int | None) -> list[Matrix]:
    found: list[str] = []
    try:
        for variable in variables(data, unpacked_room(len(data), wanted)):
            if variable.name == "layers" and variable.is_cell:
                return variable.cells()
            found.append(variable.name)
            if variable.is_struct and variable.size == 1:
                fields = variable.fields()
                if "layers" in fields and fields["layers"].is_cell:
                    return fields["layers"].cells()
                if "layers" in fields and fields["layers"].is_struct:
                    raise JaxtrackError(
                        f"{brief(variable.name, 60)} is a network of MatConvNet's DagNN kind; "
                        "only SimpleNN networks are read"
                    )
    except NotImplementedError as error:
        raise JaxtrackError(
            "saved in MATLAB's 7.3 format (HDF5); save it again with -v7"
        ) from error
    held = f"; it holds {brief(', '.join(found[:12]))}" if found else ""
    raise JaxtrackError(f"no MatConvNet network (it has no cell array 'layers'{held})")


def _named(index: int, cell: Matrix) -> ConvLayer | None:
    try:
        return _layer(cell)
    except DAMAGE as error:
        raise JaxtrackError(
            f"layer {index} is not laid out as MatConvNet does ({brief(error)})"
        ) from error


def _layer(cell: Matrix) -> ConvLayer | None:
    """Return a layer's struct, or None where it is no convolution."""
    fields = cell.fields()
    named = "weights" in fields or "filters" in fields
    if "type" in fields and fields["type"].text() != "conv":
        return None
    if not named:
        fields = dict(zip(("name", "type", "weights"), fields.values()))
    if fields["type"].text() != "conv":
        return None
    if "weights" in fields:
        pair = fields["weights"]
        if not pair.is_cell or pair.size != 2:
            raise ValueError("its weights are not a cell of filters and biases")
        filters, biases = pair.cells()
    else:
        filters, biases = fields["filters"], fields["biases"]
    kernel = np.asarray(filters.numbers(), np.float32)
    bias = np.asarray(biases.numbers(), np.float32).ravel()
    # MATLAB drops trailing axes of length one: a single filter is saved as height x width x in.
    kernel = kernel.reshape(*kernel.shape, *(1,) * (4 - kernel.ndim))
    if kernel.ndim != 4 or kernel.shape[3] != bias.size:
        raise ValueError(f"filters {kernel.shape} and {bias.size} biases")
    return ConvLayer(fields["name"].text() if "name" in fields else "", kernel, bias)


def matconvnet_state_dict(layers: list[ConvLayer]) -> dict[str, np.ndarray]:
    """Layers as a state dict ``conv.<k>.weight`` (OIHW) and ``conv.<k>.bias``, k in the file's order.

    Published codes go by the order, not by the file's names, and so does the name table.
    """
    state: dict[str, np.ndarray] = {}
    for k, layer in enumerate(layers):
        state[f"conv.{k}.weight"] = layer.kernel.transpose(3, 2, 0, 1)
        state[f"conv.{k}.bias"] = layer.bias
    return state
