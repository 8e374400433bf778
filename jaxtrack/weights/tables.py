"""Name tables of the published codes, by tracker family.

``TABLES[family][source]`` is the `NameTable` that leads from the names of one published code (``source``)
to ours. To add one: name the Flax modules after the published parameters, so that the table stays nearly
empty; put what is left here (``rename`` for names, ``ignore`` for entries that the tracker has no use
for, ``restore`` where the way back needs rules); add a row to the table test with a few published names.
Where a family has several sources, the one whose names all fit is taken; a file that fits none is
refused.
"""

from __future__ import annotations

from jaxtrack.weights import tables_ostrack, tables_siamrpn, tables_tadt
from jaxtrack.weights.names import NameTable

# DataParallel and DistributedDataParallel put this in front of every name.
PARALLEL = (r"^module\.", "")

TABLES: dict[str, dict[str, NameTable]] = {
    "siamfc": {
        # backbone.conv1.0.weight ...; the head has no parameters.
        "huanglianghua/siamfc-pytorch": NameTable(rename=(PARALLEL,)),
        # embedding_net.fully_conv.0.weight ..., match_batchnorm.weight ...
        "rafellerc/Pytorch-SiamFC": NameTable(rename=(PARALLEL,)),
    },
    "siamrpn": tables_siamrpn.TABLES,
    "ostrack": {"botaoye/OSTrack": tables_ostrack.OSTRACK},
    "tadt": tables_tadt.TABLES,
}


def tables_of(family: str) -> dict[str, NameTable]:
    """The tables of a family; empty where no published code exists."""
    return TABLES.get(family, {})
