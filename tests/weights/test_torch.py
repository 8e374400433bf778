"""The torch-free reader: both containers, all storages, and files that are damaged or hostile."""

from __future__ import annotations

import io
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.weights import read_torch, write_torch
from tests.weights.hostile import zip_checkpoint

BASE = np.arange(24, dtype=np.float32).reshape(4, 6)


def expected() -> dict[str, np.ndarray]:
    """What tests/golden/weights/make.py put into odd_*.pth."""
    return {
        "whole": BASE,
        "transposed": BASE.T,
        "window": BASE[1:3, 2:5],
        "row": BASE[2],
        "expanded": np.full(5, 7, np.float32),
        "channels_last": np.arange(16, dtype=np.float32).reshape(1, 2, 2, 4),
        "parameter": BASE[:1],
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.asarray(3.5, np.float32),
        "double": BASE.astype(np.float64),
        "half": BASE.astype(np.float16),
        "bfloat16": BASE,
        "int64": np.arange(5),
        "int32": np.arange(5, dtype=np.int32),
        "int16": np.arange(5, dtype=np.int16),
        "int8": np.arange(-2, 3, dtype=np.int8),
        "uint8": np.arange(5, dtype=np.uint8),
        "bool": np.asarray([True, False, True]),
        "complex64": (BASE[0] - 1j * BASE[0]).astype(np.complex64),
    }


@pytest.fixture
def files(golden_dir: pathlib.Path) -> pathlib.Path:
    return golden_dir / "weights"


def check_odd(read: dict[str, np.ndarray]) -> None:
    wanted = expected()
    assert list(read) == list(wanted)
    for name, value in wanted.items():
        assert read[name].shape == value.shape, name
        np.testing.assert_array_equal(read[name].astype(value.dtype), value, err_msg=name)
        assert str(read[name].dtype) == ("bfloat16" if name == "bfloat16" else str(value.dtype))


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_reads_every_storage_and_stride(files: pathlib.Path, container: str) -> None:
    check_odd(read_torch(files / f"odd_{container}.pth"))


def test_reads_types_without_a_storage_of_their_own(files: pathlib.Path) -> None:
    read = read_torch(files / "uint16_zip.pth")
    np.testing.assert_array_equal(read["wide"], np.arange(5, dtype=np.uint16), strict=True)


@pytest.mark.parametrize("name", ["ostrack_zip.pth", "ostrack_legacy.pth", "pysot.pth.tar"])
def test_reads_the_network_among_foreign_objects(files: pathlib.Path, name: str) -> None:
    read = read_torch(files / name)
    prefix = "module." if name.startswith("pysot") else ""
    assert list(read) == [
        f"{prefix}{entry}"
        for entry in (
            *("0.weight", "0.bias", "1.weight", "1.bias"),
            *("1.running_mean", "1.running_var", "1.num_batches_tracked"),
        )
    ]
    np.testing.assert_array_equal(read[f"{prefix}0.bias"], 100 + np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(
        read[f"{prefix}0.weight"], np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3)
    )


def test_key_chooses_the_entry(files: pathlib.Path) -> None:
    path = files / "ostrack_zip.pth"
    assert "0.weight" in read_torch(path, key="net")
    with pytest.raises(JaxtrackError, match=r"no state dict under 'model'; the file holds: epoch"):
        read_torch(path, key="model")
    with pytest.raises(JaxtrackError, match=r"'train' holds.*lib\.train\.admin\.stats\.Averag"):
        read_torch(path, key="stats")


def test_written_files_are_read_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.pth"
    state = {k: v for k, v in expected().items() if k not in ("bfloat16", "complex64")}
    write_torch(path, state)
    read = read_torch(path)
    assert list(read) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(read[name], value, err_msg=name, strict=True)
    with pytest.raises(ValueError, match="c is complex64"):
        write_torch(path, {"c": expected()["complex64"]})


def rewrite_zip(
    path: pathlib.Path, out: pathlib.Path, change: Callable[[str, bytes], bytes]
) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name.split("/", 1)[1], old.read(name)))


def test_big_endian_archive(files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(files / "odd_zip.pth") as archive:
        structure = archive.read("odd_zip/data.pkl")
    sizes: dict[str, int] = {}
    width = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2}
    width |= {"Char": 1, "Byte": 1, "Bool": 1, "ComplexFloat": 4}

    class Sizes(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return name if name.endswith("Storage") else lambda *_: {}

        def persistent_load(self, pid: Any) -> None:
            sizes[pid[2]] = width[pid[1].removesuffix("Storage")]

    Sizes(io.BytesIO(structure)).load()

    def swap(name: str, data: bytes) -> bytes:
        if name == "byteorder":
            return b"big"
        if name.startswith("data/"):
            size = sizes[name.removeprefix("data/")]
            return np.frombuffer(data, np.uint8).reshape(-1, size)[:, ::-1].tobytes()
        return data

    rewrite_zip(files / "odd_zip.pth", tmp_path / "big.pth", swap)
    check_odd(read_torch(tmp_path / "big.pth"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module_zip.pth", r"object of class torch\.nn\.modules\.linear\.Linear, not a state_dict"),
        ("module_legacy.pth", "whole pickled module, not a state_dict"),
        ("script.pt", "TorchScript program"),
    ],
)
def test_refuses_whole_modules(files: pathlib.Path, name: str, message: str) -> None:
    with pytest.raises(JaxtrackError, match=message):
        read_torch(files / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "web page.*download failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"MATLAB 5.0 MAT-file", "MATLAB"),
        (b"hello", "not a PyTorch checkpoint"),
        (b"\0" * 257 + b"ustar\0", "tar format of PyTorch before"),
        (b"PK\x03\x04 cut off", "truncated or damaged"),
        (b"\x80\x02\x8a", "truncated or damaged"),
        (pickle.dumps({"a": 1}), "plain pickle"),
        (b"\x80\x02J\x01\x00\x00\x00.", "plain pickle"),
    ],
)
def test_foreign_files(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(JaxtrackError, match=message) as caught:
        read_torch(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_other_zip(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JaxtrackError, match="cannot be read"):
        read_torch(tmp_path / "nothing.pth")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(JaxtrackError, match=r"not one written by torch\.save"):
        read_torch(tmp_path / "other.pth")


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_truncated_anywhere(files: pathlib.Path, tmp_path: pathlib.Path, container: str) -> None:
    data = (files / f"odd_{container}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for size in (1, 10, 60, 200, 700, len(data) // 2, len(data) - 40, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(JaxtrackError, match=r"cut\.pth: (truncated or damaged|not a PyTorch)"):
            read_torch(path)


def tensor_pickle(shape: str, strides: str, offset: int = 0, count: int = 4) -> bytes:
    """A checkpoint's pickle with one tensor ``w``, written by hand (protocol 0 text)."""
    pid = f"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{count}\ntQ"
    text = f"(dVw\nctorch._utils\n_rebuild_tensor_v2\n({pid}I{offset}\n{shape}{strides}I00\n(dtRs."
    return text.encode()


def test_tensor_written_by_hand(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.pth"
    data = np.arange(4, dtype="<f4").tobytes()
    zip_checkpoint(path, tensor_pickle("(I2\nI2\nt", "(I2\nI1\nt"), {"0": data})
    np.testing.assert_array_equal(read_torch(path)["w"], np.arange(4.0).reshape(2, 2))


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "count"),
    [
        ("(I2\nI2\nt", "(I2\nI1\nt", 1, 4),  # runs over the end
        ("(I2\nI2\nt", "(I2\nI-1\nt", 2, 4),  # backwards
        ("(I2\nI2\nt", "(I2\nI1\nt", 0, 400),  # storage longer than its data
        ("(I1000000\nI1000000\nt", "(I0\nI0\nt", 0, 4),  # expands to a terabyte
        ("(I2\nI2\nt", "(I2\nt", 0, 4),
        ("(F2.0\nI2\nt", "(I2\nI1\nt", 0, 4),
        ("(I-2\nI2\nt", "(I2\nI1\nt", 0, 4),
    ],
)
def test_tensors_that_leave_their_storage(
    tmp_path: pathlib.Path, shape: str, strides: str, offset: int, count: int
) -> None:
    path = tmp_path / "net.pth"
    data = np.arange(4, dtype="<f4").tobytes()
    zip_checkpoint(path, tensor_pickle(shape, strides, offset, count), {"0": data})
    with pytest.raises(JaxtrackError, match="truncated or damaged"):
        read_torch(path)


class Run:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


HOSTILE = ["posix", "eval", "module", "text protocol", "instance", "beside"]


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_hostile_files_run_nothing(tmp_path: pathlib.Path, how: str, container: str) -> None:
    import os

    marker = tmp_path / "was_run"
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    structure = {
        "posix": lambda: pickle.dumps({"w": Run(os.system, command)}, protocol=2),
        "eval": lambda: pickle.dumps({"w": Run(eval, code)}, protocol=4),
        "module": lambda: (
            b"\x80\x02}X\x01\x00\x00\x00wcsubprocess\ncheck_call\nX\x02\x00\x00\x00ls\x85Rs."
        ),
        "text protocol": lambda: f"(dVw\ncos\nsystem\n(V{command}\ntRs.".encode(),
        "instance": lambda: f"(dVw\n(V{command}\nios\nsystem\ns.".encode(),
        "beside": lambda: pickle.dumps({"net": {}, "stats": Run(os.system, command)}, protocol=2),
    }[how]()
    path = tmp_path / "net.pth"
    if container == "zip":
        zip_checkpoint(path, structure)
    else:
        header = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
        path.write_bytes(header + pickle.dumps({}, 2) + structure + pickle.dumps([], 2))
    name = {"eval": "eval", "module": "subprocess.check_call"}.get(how, "system")
    with pytest.raises(
        JaxtrackError, match=f"asks to run .*{name}.*nothing of it was run"
    ) as caught:
        read_torch(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_unknown_class_among_the_weights_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.pth"
    zip_checkpoint(path, b"(dVnet\n(dVw\nceasydict\nEasyDict\n(tRss.")
    with pytest.raises(JaxtrackError, match=r"'w' holds an object of easydict\.EasyDict"):
        read_torch(path, key="net")
    with pytest.raises(JaxtrackError, match=r"no state dict; the file holds: net.*easydict"):
        read_torch(path)


@pytest.mark.parametrize(
    "structure",
    [
        b"(" * 10 + b".",
        b"0.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc",  # bytes of 2**63 - 1
        b"(dVa\n" + b"(" * 5000 + b"t" * 5000 + b"I1\ns.",
        b"(d" + b"(" * 100000 + b"t" * 100000 + b"I1\ns.",  # a very deep key
        b"g7\n.",
        b"]" + b"]" * 200000 + b"a" * 200000 + b".",
    ],
)
def test_malformed_structures(tmp_path: pathlib.Path, structure: bytes) -> None:
    path = tmp_path / "net.pth"
    zip_checkpoint(path, structure)
    with pytest.raises(JaxtrackError):
        read_torch(path)


@pytest.mark.parametrize("name", ["ostrack_legacy.pth", "odd_zip.pth"])
def test_random_damage_gives_an_error_or_arrays(
    files: pathlib.Path, tmp_path: pathlib.Path, name: str
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "net.pth"
    original = (files / name).read_bytes()

    def damage(data: bytes) -> bytes:
        spoilt = bytearray(data)
        for place in rng.integers(0, min(len(spoilt), 1500), rng.integers(1, 4)):
            spoilt[place] = rng.integers(0, 256)
        return bytes(spoilt)

    refused = 0
    for _ in range(150):
        if name.endswith("zip.pth"):
            rewrite_zip(files / name, path, lambda n, d: damage(d) if n == "data.pkl" else d)
        else:
            path.write_bytes(damage(original))
        try:
            read = read_torch(path)
        except JaxtrackError:
            refused += 1
        else:
            assert all(isinstance(value, np.ndarray) for value in read.values())
    assert refused > 20
