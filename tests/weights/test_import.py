"""Import is as wide as the reader: any file name, any wrapper, any entry, any tracker."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import trackers
from jaxtrack.base import Tracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.loading import load_weights
from jaxtrack.weights import (
    Card,
    NameTable,
    load_into,
    read_card,
    read_published,
    save_weights,
    shipped_path,
    split_key,
    to_published,
    write_torch,
)
from tests.weights import hostile
from tests.weights.hostile import entries, storage, tensor, text

TREE = {"params": {"fc": {"kernel": jax.ShapeDtypeStruct((2, 2), np.float32)}}}
DATA = {str(i): np.full(4, i, "<f4").tobytes() for i in range(6)}


def weight(key: int, shape: tuple[int, ...] = (2, 2)) -> bytes:
    """A tensor whose four values are its storage's number."""
    return tensor(storage(text(str(key))), shape, (shape[-1], 1)[2 - len(shape) :])


def held(pairs: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in pairs.items()) + b"u"


def write(path: pathlib.Path, **values: bytes) -> pathlib.Path:
    hostile.zip_checkpoint(path, entries(**values), DATA)
    return path


def value(tree: Any) -> float:
    return float(tree["params"]["fc"]["kernel"][0, 0])


@pytest.mark.parametrize(
    "name", ["resnet50.model", "net.th", "epoch_20", "net.npz", "net.mat", "a.b.c"]
)
def test_any_name_serves(tmp_path: pathlib.Path, name: str) -> None:
    write(tmp_path / "net.pth", **{"fc.weight": weight(1)})
    shutil.copy(tmp_path / "net.pth", tmp_path / name)
    assert list(read_published(tmp_path / name)) == ["fc.weight"]
    for suffix in (".npz", ".safetensors"):
        made = tmp_path / f"made{suffix}"
        if suffix == ".npz":
            np.savez_compressed(made, w=np.ones(2))
        else:
            save_weights(made, {"params": {"w": np.ones(2)}})
        shutil.copy(made, tmp_path / name)
        (found,) = read_published(tmp_path / name).values()
        np.testing.assert_array_equal(found, [1, 1])


WRAPPERS = ["", "module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module."]
WRAPPERS += ["model.net.module._orig_mod.", "network."]


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_wrappers_in_front_of_names(tmp_path: pathlib.Path, prefix: str) -> None:
    path = write(tmp_path / "net.pth", **{f"{prefix}fc.weight": weight(3)})
    assert value(load_into(TREE, path)) == 3
    table = NameTable(rename=((r"^head\.", "fc."),), ignore=(r"^neck\.",))
    path = write(
        tmp_path / "net.pth", **{f"{prefix}head.weight": weight(4), f"{prefix}neck.x": weight(1)}
    )
    assert value(load_into(TREE, path, {"code": table})) == 4


def test_wrappers_of_a_part_and_names_that_are_no_wrappers(tmp_path: pathlib.Path) -> None:
    tree = {"params": {"net": {"fc": {"kernel": TREE["params"]["fc"]["kernel"]}}}}
    for name in (
        "net.fc.weight",
        "model.net.fc.weight",
        "net.module.fc.weight",
        "net._orig_mod.fc.weight",
    ):
        path = write(tmp_path / "net.pth", **{name: weight(2)})
        filled = load_into(tree, path)
        assert float(filled["params"]["net"]["fc"]["kernel"][0, 0]) == 2, name
    # Two names that only a wrapper tells apart are two names.
    path = write(tmp_path / "net.pth", **{"fc.weight": weight(2), "module.fc.weight": weight(3)})
    with pytest.raises(JaxtrackError, match=r"without a place here: module\.fc\.weight"):
        load_into(TREE, path)


def test_one_of_several_state_dicts(tmp_path: pathlib.Path) -> None:
    good, better = held({"fc.weight": weight(1)}), held({"module.fc.weight": weight(2)})
    other = held({"fc.weight": weight(3, (4,))})
    path = write(tmp_path / "net.pth", state_dict=other, ema=good, optimizer=other, epoch=b"K\x07")
    assert value(load_into(TREE, path)) == 1  # the only one that fits
    path = write(tmp_path / "net.pth", state_dict=good, ema=better, optimizer=other)
    with pytest.raises(
        JaxtrackError, match=r"net\.pth: state dicts under state_dict, ema: say which"
    ) as told:
        load_into(TREE, path)
    assert "FILE::state_dict" in str(told.value)
    assert value(load_into(TREE, f"{path}::ema")) == 2
    assert value(load_into(TREE, path, key="state_dict")) == 1
    path = write(tmp_path / "net.pth", ema=held({"net": good, "step": b"K\x07"}), raw=better)
    assert value(load_into(TREE, f"{path}::ema.net")) == 1
    with pytest.raises(JaxtrackError, match=r"say which"):
        load_into(TREE, path)
    path = write(tmp_path / "net.pth", net=other, model=other)
    with pytest.raises(
        JaxtrackError, match=r"(?s)net\.pth::net .*fc\.weight is \(4,\), \(2, 2\) wanted"
    ):
        load_into(TREE, path)


def test_what_stands_among_the_weights_of_a_file(tmp_path: pathlib.Path) -> None:
    """An averaged model's counter is no weight; anything else beside the tensors is told by its name."""
    averaged = write(
        tmp_path / "swa.pth", **{"n_averaged": b"K\x05", "module.fc.weight": weight(2)}
    )
    assert value(load_into(TREE, averaged)) == 2
    for extra, message in (
        (b"K\x07", "(?s)1 in the file, without a place .*: epoch$"),
        (b"N", r"entry 'epoch' holds an object of NoneType"),
    ):
        path = write(tmp_path / "net.pth", **{"fc.weight": weight(1), "epoch": extra})
        with pytest.raises(JaxtrackError, match=message):
            load_into(TREE, path)


def test_entries_that_are_not_there(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "net.pth", net=held({"fc.weight": weight(1)}), epoch=b"K\x07")
    with pytest.raises(
        JaxtrackError, match=r"no state dict under 'ema'; the file holds: net, epoch"
    ):
        read_published(f"{path}::ema")
    with pytest.raises(JaxtrackError, match="no state dict under 'epoch'"):
        read_published(f"{path}::epoch")
    with pytest.raises(JaxtrackError, match="one of them is empty"):
        read_published(f"{path}::")
    with pytest.raises(JaxtrackError, match="another entry than"):
        read_published(f"{path}::net", "ema")
    np.savez(tmp_path / "net.npz", w=np.ones(2))
    with pytest.raises(JaxtrackError, match="only be chosen in a PyTorch file"):
        read_published(f"{tmp_path / 'net.npz'}::w")
    with pytest.raises(JaxtrackError, match="a folder, in which no entry"):
        load_into(TREE, f"{tmp_path}::w")
    # A file whose name has two colons is that file.
    odd = write(tmp_path / "net::7.pth", net=held({"fc.weight": weight(1)}))
    assert split_key(odd) == (odd, None)
    assert value(load_into(TREE, odd)) == 1


@pytest.mark.parametrize(
    "path", [5, None, b"net.pth", ["net.pth"], "", "a\0b", "https://host/net.pth", "\udc80"]
)
def test_paths_that_are_none(path: Any) -> None:
    with pytest.raises(JaxtrackError) as told:
        read_published(path)
    assert "\n" not in str(told.value)


def test_special_files(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "loop"):
        with pytest.raises(JaxtrackError, match="neither a file nor a folder"):
            read_published(tmp_path / name)


# ------------------------------------------------------------------------------------- trackers of all kinds


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 2


def make(config: Config, key: Any) -> Any:
    return {"params": {"fc": {"kernel": jnp.zeros((config.size, config.size))}}}


def test_a_tracker_from_outside(tmp_path: pathlib.Path) -> None:
    mine = Tracker(Config(), make, make, make)  # type: ignore[arg-type]
    path = write(tmp_path / "net.pth", **{"module.fc.weight": weight(3)})
    assert value(load_weights(mine, path)) == 3
    save_weights(tmp_path / "net.safetensors", load_weights(mine, path))
    assert value(load_weights(mine, tmp_path / "net.safetensors")) == 3
    with pytest.raises(JaxtrackError, match="no preset: give the file"):
        load_weights(mine)
    with pytest.raises(JaxtrackError, match="of another shape"):
        load_weights(dataclasses.replace(mine, config=Config(3)), path)


def test_what_is_no_tracker(tmp_path: pathlib.Path) -> None:
    for wrong in (5, None, trackers, Config()):
        with pytest.raises(JaxtrackError, match="a tracker, or the name of a preset, is wanted"):
            load_weights(wrong)  # type: ignore[arg-type]
    with pytest.raises(JaxtrackError, match=r"unknown tracker preset 'siamfc-tyni'.*siamfc-tiny"):
        load_weights("siamfc-tyni", tmp_path / "net.pth")


def test_weights_of_another_preset_name_both_lists() -> None:
    path = pathlib.Path(load_weights.__code__.co_filename).parent / "weights" / "shipped"
    with pytest.raises(JaxtrackError) as told:
        load_weights("siamfc-tiny", path / "siamrpnpp-tiny.safetensors")
    message = str(told.value)
    assert len(message) < 6_000
    assert "without a place here" in message
    assert "wanted here, not in the file" in message


def test_a_tracker_with_collections_of_its_own(tmp_path: pathlib.Path) -> None:
    tree = {"params": {"w": jnp.ones(2)}, "memory": {"m": jnp.ones(3)}}
    save_weights(tmp_path / "net.safetensors", tree)
    filled = load_into(tree, tmp_path / "net.safetensors")
    np.testing.assert_array_equal(filled["memory"]["m"], np.ones(3))
    path = write(tmp_path / "net.pth", **{"w": weight(1)})
    with pytest.raises(JaxtrackError, match="'memory' has no published counterpart"):
        load_into(tree, path)


# ---------------------------------------------------------------------------------------------- as a pair

CARD = Card("siamfc-tiny", "old", 1, "abc1234", {})


def both(path: pathlib.Path) -> tuple[float, str]:
    """Weights and card as they are read; they must be of one make."""
    filled = load_into({"params": {"w": jnp.zeros(4)}}, path)
    return float(filled["params"]["w"][0]), read_card(path).data


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_weights_and_card_are_a_pair_wherever_writing_ends(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"params": {"w": np.full(4, 1.0)}}, CARD)
    left = writes
    replace = os.replace

    def dying(*args: Any) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        replace(*args)

    new = dataclasses.replace(CARD, data="new")
    monkeypatch.setattr(os, "replace", dying)
    try:
        save_weights(path, {"params": {"w": np.full(4, 2.0)}}, new)
    except KeyboardInterrupt:
        assert writes < 3
    assert both(path) == ((1, "old") if writes < 2 else (2, "new"))
    # What comes next finds nothing in its way.
    monkeypatch.undo()
    save_weights(path, {"params": {"w": np.full(4, 3.0)}}, dataclasses.replace(CARD, data="last"))
    assert both(path) == (3, "last")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.json", "w.safetensors"]
    save_weights(path, {"params": {"w": np.full(4, 4.0)}})
    assert value_of(path) == 4


def value_of(path: pathlib.Path) -> float:
    return float(load_into({"params": {"w": jnp.zeros(4)}}, path)["params"]["w"][0])


def test_killed_saves_leave_a_pair_and_no_rubbish(tmp_path: pathlib.Path) -> None:
    """A process that does nothing but save is killed; what it leaves is old or new, and swept later."""
    path = tmp_path / "w.safetensors"
    program = textwrap.dedent("""
        import dataclasses, sys, numpy as np
        from jaxtrack.weights import Card, save_weights
        for i in range(100_000):
            card = Card("siamfc-tiny", str(i), 1, "abc1234", {})
            save_weights(sys.argv[1], {"params": {"w": np.full(20_000, i, np.float32)}}, card)
            print(i, flush=True)
    """)
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(5):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    template = {"params": {"w": jnp.zeros(20_000)}}
    made = float(load_into(template, path)["params"]["w"][0])
    assert read_card(path).data == f"{made:.0f}"
    save_weights(path, template, CARD)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.json", "w.safetensors"]


def test_published_names_there_and_back(tmp_path: pathlib.Path) -> None:
    filled = {"params": {"fc": {"kernel": np.arange(4, dtype=np.float32).reshape(2, 2)}}}
    write_torch(tmp_path / "net.th", to_published(NameTable(), filled))
    again = load_into(TREE, tmp_path / "net.th")
    np.testing.assert_array_equal(again["params"]["fc"]["kernel"], filled["params"]["fc"]["kernel"])


def test_weights_for_another_crop_are_resized_only_on_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = trackers.get("ostrack-tiny")
    larger = dataclasses.replace(tiny.config, template_size=96, search_size=192)  # type: ignore[type-var]
    tracker = dataclasses.replace(tiny, config=larger)
    with pytest.raises(JaxtrackError, match=r"another size of crop.*--interpolate"):
        load_weights(tracker, shipped_path("ostrack-tiny"))
    assert capsys.readouterr().err == ""
    backbone = load_weights(tracker, shipped_path("ostrack-tiny"), interpolate=True)["params"][
        "backbone"
    ]
    told = capsys.readouterr().err
    assert "interpolated" in told
    before = load_weights("ostrack-tiny")["params"]["backbone"]
    assert backbone["pos_embed_x"].shape[1] * 4 == before["pos_embed_x"].shape[1] * 9
    mean = [float(jnp.mean(tree["pos_embed_x"])) for tree in (backbone, before)]
    assert mean[0] == pytest.approx(mean[1], abs=1e-3)
