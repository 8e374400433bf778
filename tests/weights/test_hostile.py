"""Files that mean harm, and files that came to harm: one bounded line, in bounded time and memory."""

from __future__ import annotations

import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
import scipy.io

from jaxtrack.errors import JaxtrackError
from jaxtrack.weights import (
    Card,
    load_into,
    read_card,
    read_matconvnet,
    read_published,
    read_torch,
    save_weights,
    write_torch,
)
from jaxtrack.weights.sums import sum_of_arrays
from tests.weights import hostile
from tests.weights.hostile import deep, doubled, entries, number, several, storage, tensor, text

FOUR = np.arange(4, dtype="<f4").tobytes()
CONTAINERS = ["zip", "legacy"]


def checkpoint(path: pathlib.Path, container: str, structure: bytes, data: bytes = FOUR) -> None:
    if container == "zip":
        hostile.zip_checkpoint(path, structure, {"0": data})
    else:
        hostile.legacy_checkpoint(path, structure, [("0", len(data) // 4, data)])


# ------------------------------------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_made_by_hand_here_is_sound(tmp_path: pathlib.Path, container: str) -> None:
    path = tmp_path / "net.pth"
    checkpoint(path, container, entries(w=tensor(shape=(2, 2), strides=(2, 1)), v=tensor()))
    read = read_torch(path)
    np.testing.assert_array_equal(read["w"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(read["v"], [0, 1, 2, 3])


@pytest.mark.parametrize("count", [5, 1_000, 62_914_560, 1 << 61, 1 << 63, 1 << 70])
@pytest.mark.parametrize("container", CONTAINERS)
def test_one_storage_told_twice_is_not_read_beyond_its_end(
    tmp_path: pathlib.Path, container: str, count: int
) -> None:
    path = tmp_path / "net.pth"
    more = tensor(storage(count=count), shape=(min(count, 1 << 40),))
    for structure in (entries(v=tensor(), w=more), entries(w=more, v=tensor()), entries(w=more)):
        checkpoint(path, container, structure)
        assert hostile.watch(read_torch, path)


BEYOND = {
    "end": {"offset": 1},
    "far": {"offset": (1 << 62) + 1},
    "overflow": {"shape": (1 << 33, 1 << 33), "strides": (1 << 31, 1 << 31)},
    "wraps to nothing": {"shape": (1 << 32, 1 << 32), "strides": (0, 0)},
    "overlapping": {"shape": (1 << 14, 1 << 14), "strides": (0, 0)},
    "backwards": {"shape": (2, 2), "strides": (-1, 1), "offset": 2},
    "negative": {"shape": (-4,)},
    "negative offset": {"offset": -1},
    "no numbers": {"shape": several(b"G@\x00\x00\x00\x00\x00\x00\x00")},
    "truth": {"shape": several(b"\x88")},
    "more axes than there are": {"shape": (1,) * 4000, "strides": (0,) * 4000},
    "a dictionary": {"shape": b"}"},
    "doubled": {"shape": doubled(40)},
    "nested": {"strides": deep(10_000)},
    "digits": {"shape": several(number(1 << 4_000_000))},
    "wide": {"shape": several(number(1 << 200))},
    "view": {"held": storage(view=several(b"N", number(2), number(3)))},
    "view before": {"held": storage(view=several(b"N", number(-2), number(3)))},
    "view of what": {"held": storage(view=doubled(40))},
    "key": {"held": storage(key=doubled(40))},
    "nested key": {"held": storage(key=deep(10_000))},
    "long key": {"held": storage(key=text("0" * 300_000))},
    "no key": {"held": storage(key=text("1"))},
    "type": {"held": storage(kind=doubled(40))},
    "nested type": {"held": storage(kind=deep(10_000))},
    "count": {"held": storage(count=doubled(40))},
    "not a storage": {"held": deep(3)},
}


@pytest.mark.parametrize("how", BEYOND)
@pytest.mark.parametrize("container", CONTAINERS)
def test_tensors_that_reach_beyond_the_file(
    tmp_path: pathlib.Path, container: str, how: str
) -> None:
    path = tmp_path / "net.pth"
    checkpoint(path, container, entries(w=tensor(**BEYOND[how])))  # type: ignore[arg-type]
    assert hostile.watch(read_torch, path)


def test_windows_hold_what_index_arithmetic_says(tmp_path: pathlib.Path) -> None:
    """Any offset, shape and strides: the values that they mean, or a refusal where one lies outside."""
    rng = np.random.default_rng(3)
    path = tmp_path / "net.pth"
    accepted = 0
    for _ in range(150):
        axes = int(rng.integers(0, 4))
        shape = tuple(int(n) for n in rng.integers(0, 4, axes))
        strides = tuple(int(n) for n in rng.integers(0, 7, axes))
        start, count, offset = (int(n) for n in rng.integers(0, (8, 12, 8)))
        view = several(b"N", number(start), number(count))
        held = storage(count=16, view=view if start + count <= 16 else b"")
        start, count = (start, count) if start + count <= 16 else (0, 16)
        checkpoint(path, "zip", entries(w=tensor(held, shape, strides, offset)), bytes(range(64)))
        places = offset + sum(
            (
                np.arange(n).reshape(-1, *(1,) * (axes - i - 1)) * s
                for i, (n, s) in enumerate(zip(shape, strides))
            ),
            start=np.zeros(shape, int),
        )
        if places.size and places.max() >= count:
            assert hostile.watch(read_torch, path, bounded=False)
            continue
        values = np.frombuffer(bytes(range(64)), "<f4")[start:]
        np.testing.assert_array_equal(
            read_torch(path)["w"], values[places] if places.size else places
        )
        accepted += 1
    assert 30 < accepted < 120


def retyped(kind: bytes) -> bytes:
    arguments = several(
        storage(), number(0), several(number(4)), several(number(1)), b"\x89", b"}", kind
    )
    return b"ctorch._utils\n_rebuild_tensor_v3\n" + arguments + b"R"


def array_of(code: bytes, shape: bytes = b"K\x01\x85", data: bytes = b"C\x04abcd") -> bytes:
    kind = b"cnumpy\ndtype\n" + code + b"\x89\x88\x87R"
    state = several(number(1), shape, kind, b"\x89", data)
    return b"cnumpy._core.multiarray\n_reconstruct\n)R" + state + b"b"


def subclasses(times: int) -> bytes:
    name = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    made = several(name, b"N", b")", b"N")
    for _ in range(times):
        made = b"(" + name + b"N" + made + b"Nt"
    return name + made + b"R"


STRUCTURES = {
    "type that widens": entries(w=retyped(b"ctorch\nfloat64\n")),
    "type doubled": entries(w=retyped(doubled(40))),
    "numpy objects": entries(w=array_of(text("O8"))),
    "numpy records": entries(w=array_of(text("f4,O"))),
    "numpy subarray": entries(w=array_of(text("(2)f4"))),
    "numpy dates": entries(w=array_of(text("M8[s]"))),
    "numpy doubled": entries(w=array_of(doubled(40))),
    "numpy shape": entries(w=array_of(text("u1"), several(number(1 << 40), number(1 << 40)))),
    "numpy negative": entries(w=array_of(text("u1"), several(number(-1)))),
    "numpy nested": entries(w=array_of(text("u1"), deep(10_000))),
    "numpy without type": b"\x80\x02}(" + text("w") + b"cnumpy._core.multiarray\n_reconstruct\n)R(KKKKtbu.",
    "subclass": entries(w=subclasses(3_000)),
    "subclass of doubled": entries(w=b"ctorch._tensor\n_rebuild_from_type_v2\n" + doubled(40) + b"R"),
    "nested": deep(30_000) + b".",
    "nested entry": entries(w=deep(30_000)),
    "nested lists": b"]" * 20_000 + b"a" * 19_999 + b".",
    "nested dictionaries": b"}" + b"K\x01}" * 30_000 + b"s" * 5_000 + b".",
    "colliding numbers": b"}(" + b"".join(number(i * ((1 << 61) - 1)) + b"N" for i in range(20_000)) + b"u.",
    "long names": b"(" + text("a" * 200_000) + b"q\x000" + text("b") + b"q\x010" + b"h\x00h\x01\x930" * 40_000
    + b".",
    "copies": b"](" + b"K\x01" * 50_000 + b"eq\x000" + b"ctorch\nSize\nh\x00\x85R" * 30_000 + b".",
    "copies in pairs": b"](" + b"K\x01" * 30_000 + b"eq\x000]q\x01(" + b"h\x00" * 30_000
    + b"e0" + b"ccollections\nOrderedDict\nh\x01\x85R.",
    "text as bytes": text("a" * 400_000) + b"q\x000" + b"c_codecs\nencode\nh\x00\x85R" * 5_000 + b".",
    "containers": b"}\x94" * 20_000 + b".",
    "arrays": b"(" + b"cnumpy._core.multiarray\n_reconstruct\nq\x000" + b"h\x00)R" * 10_000 + b"t.",
    "number as weights": entries(w=b"K\x05"),
    "wide number as weights": entries(w=number(1 << 200)),
    "number of a million digits": entries(w=number(1 << 4_000_000)),
    "text as weights": entries(w=text("a" * 500_000)),
    "doubled as weights": entries(w=doubled(40)),
    "doubled as name": b"\x80\x02}(" + doubled(40) + tensor() + b"u.",
    "number as name": b"\x80\x02}(" + number(1 << 4_000_000) + tensor() + b"u.",
    "bytes as name": b"\x80\x02}(C\xff" + b"\x1b" * 255 + tensor() + b"u.",
    "controls as name": entries(**{"\x1b[31m\n\u202e": doubled(3)}),
    "long name": entries(**{"n" * 300_000: tensor()}),
    "persistent id": b"\x80\x02" + doubled(40) + b"Q.",
    "persistent nested": b"\x80\x02" + deep(10_000) + b"Q.",
    "magic doubled": b"\x80\x02" + doubled(40) + b".",
    "class doubled": b"(" + doubled(40) + b"o.",
}  # fmt: skip


@pytest.mark.parametrize("how", STRUCTURES)
def test_structures_that_ask_for_much(tmp_path: pathlib.Path, how: str) -> None:
    path = tmp_path / "net.pth"
    template = {"params": {"w": jax.ShapeDtypeStruct((4, 4), np.float32)}}
    within = entries(net=STRUCTURES[how].removeprefix(b"\x80\x02")[:-1])
    for container, structure in (("zip", STRUCTURES[how]), ("legacy", within)):
        checkpoint(path, container, structure)
        assert hostile.watch(load_into, template, path)


@pytest.mark.parametrize("times", [2, 8, 9, 40])
@pytest.mark.parametrize("leaf", [b"N", tensor(), b"}"])
def test_shared_dictionaries_do_not_multiply(
    tmp_path: pathlib.Path, times: int, leaf: bytes
) -> None:
    """Three kilobytes: dictionaries of forty names that are all the next dictionary."""
    path = tmp_path / "net.pth"
    made = leaf + b"q\x00"
    for level in range(times):
        pairs = b"".join(text(f"n{i}") + b"h%c" % level for i in range(40))
        made += b"0}(" + pairs + b"u" + b"q%c" % (level + 1)
    checkpoint(path, "zip", b"\x80\x02" + b"}" + text("net") + made + b"s.")
    message = hostile.watch(read_torch, path)
    assert message is not None or (times == 2 and leaf == tensor())


def test_storages_that_lie_in_each_other(tmp_path: pathlib.Path) -> None:
    """A hundred names for one piece of the archive would make of one megabyte a hundred."""
    path = tmp_path / "net.pth"
    tensors = {f"w{i}": tensor(storage(text(str(i)), 60_000), shape=(60_000,)) for i in range(100)}
    hostile.zip_checkpoint(path, entries(**tensors), {"0": bytes(240_000)})
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.getinfo("net/data/0")
        for i in range(1, 100):
            twin = zipfile.ZipInfo(f"net/data/{i}")
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.file_size = twin.compress_size = first.file_size
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True  # type: ignore[attr-defined]
    assert hostile.watch(read_torch, path)


# --------------------------------------------------------------------------------------------------- MATLAB

KERNEL, BIAS = np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4), np.arange(4.0)[:, None]
LAYER = hostile.convolution(KERNEL, BIAS)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["layers", "net", "other name"])
def test_matconvnet_in_all_forms(tmp_path: pathlib.Path, form: str, packed: bool) -> None:
    path = tmp_path / "vgg.mat"
    beside = hostile.struct_of(note=hostile.characters("x"))
    variable = {
        "layers": hostile.cell_of(LAYER, LAYER, name="layers"),
        "net": hostile.struct_of("net", layers=hostile.cell_of(LAYER, LAYER), meta=beside),
        "other name": hostile.struct_of("model", meta=beside, layers=hostile.cell_of(LAYER, LAYER)),
    }[form]
    path.write_bytes(hostile.matlab(hostile.struct_of("meta", a=beside), variable, packed=packed))
    layers = read_matconvnet(path)
    assert [layer.name for layer in layers] == ["conv1", "conv1"]
    np.testing.assert_array_equal(layers[1].kernel, KERNEL)
    np.testing.assert_array_equal(layers[1].bias, BIAS.ravel())


@pytest.mark.parametrize("packed", [False, True])
def test_matconvnet_variable_net_as_scipy_writes_it(tmp_path: pathlib.Path, packed: bool) -> None:
    path = tmp_path / "vgg.mat"
    pair = np.empty((1, 2), object)
    pair[0, 0], pair[0, 1] = KERNEL, BIAS
    layers = np.empty((1, 2), object)
    layers[0, 0] = {"type": "relu", "name": "relu"}
    layers[0, 1] = {"type": "conv", "name": "conv9", "weights": pair, "stride": [1, 1]}
    net = {"meta": {"classes": "x"}, "layers": layers}
    scipy.io.savemat(path, {"net": net, "other": 1}, do_compression=packed)
    (layer,) = read_matconvnet(path)
    np.testing.assert_array_equal(layer.kernel, KERNEL)


def test_matconvnet_oldest_form_and_other_networks(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vgg.mat"
    old = hostile.struct_of(
        type=hostile.characters("conv"),
        filters=hostile.numbers(KERNEL),
        biases=hostile.numbers(BIAS.T),
    )
    path.write_bytes(hostile.matlab(hostile.cell_of(old, name="layers")))
    np.testing.assert_array_equal(read_matconvnet(path)[0].bias, BIAS.ravel())
    nodes = hostile.matrix(2, (1, 2), name="layers")
    path.write_bytes(hostile.matlab(hostile.struct_of("net", layers=nodes)))
    with pytest.raises(JaxtrackError, match="DagNN"):
        read_matconvnet(path)


def nested_cells(times: int) -> bytes:
    """Cells in cells, written from within without copying all at each level."""
    heads, size = [], 0
    for _ in range(times):
        head = hostile.matrix(1, (1, 1))[8:]
        size += len(head)
        heads.append(struct.pack("<2I", 14, size) + head)
        size += 8
    return b"".join(reversed(heads))


def layer_of(weights: bytes, kind: str = "conv") -> bytes:
    layer = hostile.struct_of(
        name=hostile.characters("a"), type=hostile.characters(kind), weights=weights
    )
    return hostile.cell_of(layer, name="layers")


huge = hostile.matrix(7, (1 << 30, 1 << 30, 1 << 30), hostile.element(7, bytes(64)))
MATLAB: dict[str, Callable[[], bytes]] = {
    "nested": lambda: hostile.cell_of(nested_cells(10_000), name="layers"),
    "nested weights": lambda: layer_of(nested_cells(10_000)),
    "nested type": lambda: layer_of(hostile.cell_of(), kind="x") + nested_cells(5_000),
    "many cells": lambda: hostile.matrix(1, (1 << 20, 1 << 10), name="layers"),
    "cells that are not there": lambda: hostile.matrix(1, (1, 9_000), name="layers"),
    "huge": lambda: layer_of(hostile.cell_of(huge, huge)),
    "negative": lambda: hostile.matrix(1, (-1, -9), name="layers"),
    "no axes": lambda: hostile.matrix(1, (), name="layers"),
    "many axes": lambda: hostile.matrix(1, (1,) * 5_000, name="layers"),
    "long text": lambda: layer_of(hostile.cell_of(), kind="x" * 200_000),
    "no names": lambda: hostile.cell_of(hostile.matrix(2, (1, 1)), name="layers"),
    "twins": lambda: hostile.cell_of(
        hostile.matrix(2, (1, 1), struct.pack("<2HI", 5, 4, 1), hostile.element(1, b"aa"), LAYER, LAYER),
        name="layers",
    ),
    "names of width nought": lambda: hostile.cell_of(
        hostile.matrix(2, (1, 1), struct.pack("<2HI", 5, 4, 0), hostile.element(1, b"")), name="layers"
    ),
    "complex": lambda: layer_of(
        hostile.cell_of(numbers_with_flags(0x0807), hostile.numbers(BIAS))
    ),
    "opaque": lambda: layer_of(hostile.cell_of(numbers_with_flags(17), hostile.numbers(BIAS))),
    "name of controls": lambda: hostile.struct_of("\x1b[2J\n" * 100, a=LAYER),
}  # fmt: skip


def numbers_with_flags(flags: int) -> bytes:
    data = bytearray(hostile.numbers(KERNEL))
    data[16:20] = struct.pack("<I", flags)
    return bytes(data)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("how", MATLAB)
def test_hostile_matlab_files(tmp_path: pathlib.Path, how: str, packed: bool) -> None:
    path = tmp_path / "vgg.mat"
    path.write_bytes(hostile.matlab(MATLAB[how](), packed=packed))
    message = hostile.watch(read_published, path)
    assert message is not None
    assert "\n" not in message


def test_packed_matlab_bombs(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vgg.mat"
    data = hostile.numbers(np.zeros((1000, 100, 100)))
    path.write_bytes(hostile.matlab(layer_of(hostile.cell_of(data, data)), packed=True))
    assert path.stat().st_size < 2_000_000
    message = hostile.watch(read_published, path)
    assert message is not None
    assert "unpacks to 80 MB" in message
    # One whose tag tells less than there is.
    content = bytearray(hostile.matlab(layer_of(hostile.cell_of())))
    content[132:136] = struct.pack("<I", 48)
    path.write_bytes(hostile.matlab(bytes(content[128:]) + bytes(30_000_000), packed=True))
    assert hostile.watch(read_published, path)


# ------------------------------------------------------------------------------------ .npz and .safetensors

SOUND = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"
NPZ = {
    "no array": hostile.archive(readme=b"hello"),
    "not in the format": hostile.archive(w_dot_npy=b"hello"),
    "empty": hostile.archive(w_dot_npy=b""),
    "values": hostile.archive(w_dot_npy=hostile.npy(SOUND.replace("2, 2", str(1 << 40)), FOUR)),
    "digits": hostile.archive(w_dot_npy=hostile.npy(SOUND.replace("2, 2", "9" * 5_000), FOUR)),
    "product": hostile.archive(
        w_dot_npy=hostile.npy(SOUND.replace("2, 2", ", ".join(["4294967296"] * 6)), FOUR)
    ),
    "negative": hostile.archive(w_dot_npy=hostile.npy(SOUND.replace("2, 2", "-2, -2"), FOUR)),
    "objects": hostile.archive(w_dot_npy=hostile.npy(SOUND.replace("<f4", "|O"), FOUR)),
    "records": hostile.archive(
        w_dot_npy=hostile.npy(SOUND.replace("'<f4'", "[('a', '<f4')]"), FOUR)
    ),
    "brackets": hostile.archive(w_dot_npy=hostile.npy("(" * 9_000, FOUR)),
    "signs": hostile.archive(w_dot_npy=hostile.npy("{'descr': " + "-" * 9_000 + "1}", FOUR)),
    "sums": hostile.archive(w_dot_npy=hostile.npy("+".join(["1"] * 4_000), FOUR)),
    "no version": hostile.archive(w_dot_npy=hostile.npy(SOUND, FOUR, version=9)),
    "more data": hostile.archive(w_dot_npy=hostile.npy(SOUND, FOUR + FOUR)),
    "less data": hostile.archive(w_dot_npy=hostile.npy(SOUND, FOUR[:3])),
    "zeros": hostile.archive(
        w_dot_npy=hostile.npy(
            SOUND.replace("2, 2", "40_000_000".replace("_", "")), bytes(160_000_000)
        )
    ),
}


@pytest.mark.parametrize("how", NPZ)
def test_hostile_npz_files(tmp_path: pathlib.Path, how: str) -> None:
    path = tmp_path / "net.npz"
    path.write_bytes(NPZ[how])
    message = hostile.watch(read_published, path)
    assert message is not None
    assert "net.npz: not a whole .npz file of arrays" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("place", "value"),
    [(8, 1), (8, 99), (8, 12), (8, 14), (6, 1), (6, 9), (4, 63), (22, 255), (14, 7)],
)
def test_npz_entries_of_unknown_kinds(tmp_path: pathlib.Path, place: int, value: int) -> None:
    """Compression that no one knows, encryption, sizes and checksums that are not those of the data."""
    path = tmp_path / "net.npz"
    content = bytearray(hostile.archive(w_dot_npy=hostile.npy(SOUND, FOUR)))
    content[place] = value  # the local header
    table = content.rindex(b"PK\x01\x02")
    content[table + 2 + place] = value  # the table of contents
    path.write_bytes(content)
    message = hostile.watch(read_published, path)
    assert message is None or ("net.npz" in message and "\n" not in message)
    if (place, value) != (4, 63):
        assert message is not None


def test_large_table_of_contents(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.npz"
    end = b"PK\5\6" + bytes(4) + struct.pack("<2H2I", 65_535, 65_535, 1 << 30, 0) + bytes(2)
    path.write_bytes(b"PK\1\2" * 100 + end)
    message = hostile.watch(read_published, path)
    assert message is not None
    assert "table of contents is far too large" in message


def safetensors_file(header: str, data: bytes = FOUR) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + data


ONE = '{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'
SAFETENSORS = {
    **{
        kind: safetensors_file(ONE.replace("F32", kind).replace("[4]", "[16]"))
        for kind in ("F8_E4M3", "F8_E5M2", "F8_E8M0", "X9", "")
    },
    "F4": safetensors_file(ONE.replace("F32", "F4").replace("[4]", "[32]")),
    "E8M0": safetensors_file(ONE.replace("F32", "E8M0").replace("[4]", "[16]")),
    "shape": safetensors_file(ONE.replace("[4]", "[4611686018427387904, 4]")),
    "negative": safetensors_file(ONE.replace("[4]", "[-4]")),
    "offsets": safetensors_file(ONE.replace("16]}", "18446744073709551615]}")),
    "backwards": safetensors_file(ONE.replace("[0, 16]", "[16, 0]")),
    "digits": safetensors_file(ONE.replace("[4]", f"[{'9' * 100_000}]")),
    "brackets": safetensors_file('{"w": ' + "[" * 200_000),
    "header": struct.pack("<Q", 1 << 62) + b"{" + FOUR,
    "long header": struct.pack("<Q", 9 << 20) + b"{" + FOUR,
    "list": safetensors_file("[]"),
    "name": safetensors_file(ONE.replace('"w"', '"' + "w" * 200_000 + '"').replace("F32", "F4")),
}


@pytest.mark.parametrize("how", SAFETENSORS)
def test_hostile_safetensors_files(tmp_path: pathlib.Path, how: str) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(SAFETENSORS[how])
    message = hostile.watch(read_published, path)
    assert message is not None
    assert "net.safetensors" in message
    assert "\n" not in message


# ------------------------------------------------------------------------------------------------ our cards


def test_damaged_cards(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.safetensors"
    tree = {"params": {"w": np.arange(4, dtype=np.float32)}}
    card = Card("siamfc-tiny", "the synthetic world", 100, "abc1234", {"synthetic AUC": 0.5})
    save_weights(path, tree, card)
    place = path.with_suffix(".json")
    whole = place.read_bytes()
    changed = [
        b"",
        b"[]",
        b"null",
        b"1" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        whole[: len(whole) // 2],
        whole.replace(b"100", b"1" * 5_000),
        whole.replace(b"100", b"true"),
        whole.replace(b"100", b"-1"),
        whole.replace(b"100", b"1e999"),
        whole.replace(b'"siamfc-tiny"', b"7"),
        whole.replace(b"0.5", b'"half"'),
        whole.replace(b'"preset"', b'"prset"'),
        whole.replace(b'"steps"', b'"preset"'),
        whole.replace(b"siamfc", b"\xff\xfe"),
        whole.replace(b'"sha256": "', b'"sha256": "0'),
        whole.replace(b'"sha256"', b'"replaces": [], "sha256"'),
    ]
    for content in changed:
        place.write_bytes(content)
        message = hostile.watch(load_into, tree, path)
        assert message is not None or b'"replaces": []' in content, content[:80]
        assert "\n" not in (message or "")


# -------------------------------------------------------------------------------------------------- chance


def originals(folder: pathlib.Path, golden: pathlib.Path) -> dict[str, bytes]:
    """Small whole files of every format."""
    rng = np.random.default_rng(0)
    state: dict[str, np.ndarray] = {
        "0.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "0.bias": np.ones(4),
    }
    write_torch(folder / "own.pth", state)
    np.savez_compressed(folder / "packed.npz", **state)  # type: ignore[arg-type]
    np.savez(folder / "plain.npz", **state)  # type: ignore[arg-type]
    safetensors.numpy.save_file(state, folder / "own.safetensors")
    net = hostile.struct_of("net", layers=hostile.cell_of(LAYER, LAYER))
    (folder / "plain.mat").write_bytes(hostile.matlab(net))
    (folder / "packed.mat").write_bytes(hostile.matlab(net, packed=True))
    (folder / "old.tar").write_bytes(b"sys_info".ljust(257, b"\0") + b"ustar" + bytes(300))
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("ostrack_legacy.pth", "odd_legacy.pth", "odd_zip.pth", "pysot.pth.tar"):
        made[name] = (golden / "weights" / name).read_bytes()
    return made


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One of the ways in which files come to harm."""
    spoilt = bytearray(data)
    size = len(spoilt)
    place = int(rng.integers(0, size))
    how = rng.integers(0, 7)
    if how == 0:
        return bytes(spoilt[:place])
    if how == 1:  # bits
        for at in rng.integers(0, size, rng.integers(1, 9)):
            spoilt[at] ^= 1 << rng.integers(0, 8)
    elif how == 2:  # bytes, where structure is likely
        for at in rng.integers(0, min(size, 1500), rng.integers(1, 5)):
            spoilt[at] = rng.integers(0, 256)
    elif how == 3:  # a piece of the file elsewhere in it
        start, length = rng.integers(0, size), rng.integers(1, 64)
        spoilt[place : place + length] = spoilt[start : start + length]
    elif how == 4:  # a piece lost or grown
        del spoilt[place : place + int(rng.integers(1, 64))]
    elif how == 5:
        spoilt[place:place] = rng.bytes(int(rng.integers(1, 64)))
    else:  # a length or a count that is extreme
        extreme = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, 1 << 63, (1 << 64) - 1)
        value = extreme[rng.integers(0, len(extreme))]
        width = int(rng.choice((2, 4, 8)))
        spoilt[place : place + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return bytes(spoilt)


ROUNDS = 45  # of all eleven files


def test_five_hundred_damaged_files(tmp_path: pathlib.Path, golden_dir: pathlib.Path) -> None:
    rng = np.random.default_rng(7)
    (tmp_path / "whole").mkdir()
    files = originals(tmp_path / "whole", golden_dir)
    template = {
        "params": {
            "0": {
                "kernel": jax.ShapeDtypeStruct((3, 3, 3, 4), np.float32),
                "bias": jax.ShapeDtypeStruct((4,), np.float32),
            }
        }
    }
    refused = tried = 0
    for name, data in files.items():
        path = tmp_path / name
        if name != "old.tar":
            path.write_bytes(data)
            read_published(path)
        for _ in range(ROUNDS):
            path.write_bytes(damaged(data, rng))
            message = hostile.watch(read_published, path)
            if message is not None:
                assert "\n" not in message
            hostile.watch(load_into, template, path, bounded=False)
            refused += message is not None
            tried += 1
    assert tried >= 400
    assert refused > tried / 2


def test_damaged_cards_by_chance(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(8)
    path = tmp_path / "net.safetensors"
    tree = {"params": {"w": np.arange(4, dtype=np.float32)}}
    save_weights(path, tree, Card("siamfc-tiny", "the world", 100, "abc1234", {"AUC": 0.5}))
    place = path.with_suffix(".json")
    whole = place.read_bytes()
    for _ in range(60):
        place.write_bytes(damaged(whole, rng))
        message = hostile.watch(read_card, path, bounded=False)
        assert "\n" not in (message or "")
    # A changed bit of the weights is always found.
    place.write_bytes(whole)
    content = path.read_bytes()
    for at in rng.integers(0, len(content), 40):
        spoilt = bytearray(content)
        spoilt[at] ^= 1 << rng.integers(0, 8)
        path.write_bytes(spoilt)
        assert hostile.watch(load_into, tree, path, bounded=False)


# -------------------------------------------------------------------------------------------- Orbax folders


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoint_folders(tmp_path: pathlib.Path) -> None:
    """Every file of a checkpoint in turn loses its end, a bit, or all: one line, or the same weights."""
    import orbax.checkpoint as ocp

    rng = np.random.default_rng(9)
    tree = {
        "params": {"w": rng.normal(size=(8, 8)).astype(np.float32), "b": np.ones(3, np.float32)}
    }
    sums = {"params": sum_of_arrays(tree["params"])}
    folder = tmp_path / "checkpoints"
    with ocp.CheckpointManager(folder) as manager:
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave({**tree, "step": np.asarray(5)}),
            record=ocp.args.JsonSave({"sums": sums}),
        )
        manager.save(5, args=args)
    refused = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        flipped = [bytearray(whole) for _ in range(3)]
        for spoilt in flipped:
            if spoilt:
                spoilt[rng.integers(0, len(spoilt))] ^= 1 << rng.integers(0, 8)
        for content in (whole[: len(whole) // 2], b"[" * 50_000, *map(bytes, flipped)):
            path.write_bytes(content)
            found: list[Any] = []
            message = hostile.watch(
                lambda: found.append(load_into(tree, folder)),  # noqa: B023
                bounded=False,
            )
            refused += message is not None
            assert message is None or ("\n" not in message and len(message) < 1_000)
            if message is None:
                for name, value in tree["params"].items():
                    np.testing.assert_array_equal(found[0]["params"][name], value)
        path.write_bytes(whole)
    assert refused > 5
    np.testing.assert_array_equal(load_into(tree, folder)["params"]["w"], tree["params"]["w"])


def test_checkpoint_of_a_far_larger_network_is_not_read(tmp_path: pathlib.Path) -> None:
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path) as manager:
        large = {"params": {"w": np.zeros((5_000, 5_000), np.float32)}}
        manager.save(5, args=ocp.args.Composite(state=ocp.args.PyTreeSave(large)))
    small = {"params": {"w": np.zeros(4, np.float32)}}
    message = hostile.watch(load_into, small, tmp_path)
    assert message is not None
    assert "2.5e+07 values, 4 wanted" in message
