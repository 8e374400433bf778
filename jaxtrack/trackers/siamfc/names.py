"""Name tables of SiamFC: the names of two published codes."""

from __future__ import annotations

from jaxtrack.weights.names import NameTable

TABLES: dict[str, NameTable] = {
    # backbone.conv1.0.weight ...; the head has no parameters.
    "huanglianghua/siamfc-pytorch": NameTable(),
    # embedding_net.fully_conv.0.weight ..., match_batchnorm.weight ...
    "rafellerc/Pytorch-SiamFC": NameTable(),
}
