"""Weight files of all kinds, our own files, cards, and ``load_weights``."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from jaxtrack import trackers
from jaxtrack.base import Tracker
from jaxtrack.errors import JaxtrackError
from jaxtrack.io.records import checksum
from jaxtrack.loading import load_weights
from jaxtrack.weights import (
    Card,
    NameTable,
    cards,
    load_into,
    read_card,
    read_matconvnet,
    read_published,
    save_weights,
    shipped_names,
)

CARD = Card("siamfc-tiny", "the synthetic world", 100, "abc1234", {"synthetic AUC": 0.5})


def variables() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "params": {
            "0": {"kernel": normal(3, 3, 3, 4), "bias": normal(4)},
            "1": {"scale": normal(4), "bias": normal(4)},
        },
        "batch_stats": {"1": {"mean": normal(4), "var": abs(normal(4))}},
    }


def same(a: Any, b: Any) -> bool:
    alike = jax.tree.map(lambda x, y: bool((x == y).all()) and x.dtype == y.dtype, a, b)
    return all(jax.tree.leaves(alike))


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def test_own_files_there_and_back(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "net.safetensors"
    save_weights(path, variables(), CARD)
    assert same(load_into(abstract(variables()), path), variables())
    card = read_card(path)
    assert card.preset == "siamfc-tiny"
    assert card.sha256 == checksum(path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]


def test_changed_file_does_not_pass_its_card(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, variables(), CARD)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(JaxtrackError, match="not the one of its card"):
        load_into(abstract(variables()), path)
    cards.card_path(path).write_text("{}")
    with pytest.raises(JaxtrackError, match="not a model card"):
        load_into(abstract(variables()), path)


def test_failed_save_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, variables())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JaxtrackError, match=r"net\.safetensors: cannot be written \(No space left"):
        save_weights(path, jax.tree.map(lambda x: x + 1, variables()))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    with pytest.raises(JaxtrackError, match=r"saved as \.safetensors"):
        save_weights(tmp_path / "net.npz", variables())


def test_own_file_of_another_network(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, variables())
    other = variables()
    other["params"]["2"] = other["params"].pop("1")
    with pytest.raises(JaxtrackError, match="do not fit") as caught:
        load_into(abstract(other), path)
    assert "without a place here: params/1/bias, params/1/scale" in str(caught.value)
    assert "not in the file: params/2/bias, params/2/scale" in str(caught.value)


def test_one_array_too_many_is_told_by_its_name(tmp_path: pathlib.Path) -> None:
    tree = variables()
    save_weights(tmp_path / "a.safetensors", {**tree, "opt": {"step": jnp.zeros(3)}})
    with pytest.raises(JaxtrackError) as caught:
        load_into(abstract(tree), tmp_path / "a.safetensors")
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/a.safetensors: the weights do not fit this network: 1 in the file, without a place here",
        "  in the file, without a place here: opt/step",
    ]


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.npz", "a.mat", "a.weights"])
def test_a_pointer_of_git_is_told(tmp_path: pathlib.Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":  # with its card beside it, as a repository holds them
        save_weights(path, variables(), CARD)
    path.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n"
    )
    with pytest.raises(JaxtrackError, match=f"{name}: a Git LFS pointer.*: run git lfs pull") as e:
        load_into(abstract(variables()), path)
    assert "\n" not in str(e.value)


def published() -> dict[str, np.ndarray]:
    tree = variables()
    return {
        "0.weight": np.asarray(tree["params"]["0"]["kernel"]).transpose(3, 2, 0, 1),
        "0.bias": np.asarray(tree["params"]["0"]["bias"]),
        "1.weight": np.asarray(tree["params"]["1"]["scale"]),
        "1.bias": np.asarray(tree["params"]["1"]["bias"]),
        "1.running_mean": np.asarray(tree["batch_stats"]["1"]["mean"]),
        "1.running_var": np.asarray(tree["batch_stats"]["1"]["var"]),
    }


def test_published_npz_and_safetensors(tmp_path: pathlib.Path) -> None:
    import safetensors.numpy

    np.savez(tmp_path / "net.npz", **published())  # type: ignore[arg-type]
    whole = {name: np.asarray(value, order="C") for name, value in published().items()}
    safetensors.numpy.save_file(whole, tmp_path / "net.safetensors")
    for name in ("net.npz", "net.safetensors"):
        loaded = load_into(abstract(variables()), tmp_path / name, {"code": NameTable()})
        assert same(loaded, variables())


@pytest.mark.parametrize("name", ["ostrack_zip.pth", "ostrack_legacy.pth", "pysot.pth.tar"])
def test_published_torch_files(golden_dir: pathlib.Path, name: str) -> None:
    tables = {"code": NameTable(), "parallel": NameTable(rename=((r"^module\.", ""),))}
    loaded = load_into(abstract(variables()), golden_dir / "weights" / name, tables)
    weight = np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3)
    np.testing.assert_array_equal(loaded["params"]["0"]["kernel"], weight.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(loaded["batch_stats"]["1"]["mean"], 400 + np.arange(4.0))


def test_a_named_source_is_binding(golden_dir: pathlib.Path) -> None:
    path = golden_dir / "weights" / "pysot.pth.tar"
    tables = {"code": NameTable(rename=((r"^0\.", "first."),)), "same": NameTable()}
    with pytest.raises(JaxtrackError, match=r"pysot\.pth\.tar \(read as code\): .*do not fit"):
        load_into(abstract(variables()), path, tables, source="code")
    with pytest.raises(JaxtrackError, match="no name table 'other'; known: code, same"):
        load_into(abstract(variables()), path, tables, source="other")


@pytest.mark.parametrize("name", ["net.npz", "net.safetensors", "net.mat"])
def test_damaged_files_of_other_kinds(tmp_path: pathlib.Path, name: str) -> None:
    path = tmp_path / name
    if name == "net.npz":
        np.savez(path, a=np.arange(1000))
    elif name == "net.mat":
        scipy.io.savemat(path, {"layers": np.arange(1000.0)})
    else:
        save_weights(path, variables())
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"garbage" * 30, b""):
        path.write_bytes(data)
        with pytest.raises(JaxtrackError, match=f"{name}: not a whole") as caught:
            read_published(path)
        assert "\n" not in str(caught.value)


def test_pickled_npz_is_refused(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "net.npz", a=np.asarray([{}], dtype=object))
    with pytest.raises(JaxtrackError, match=r"net\.npz: not a whole \.npz file of arrays"):
        read_published(tmp_path / "net.npz")


def test_missing_and_unknown_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JaxtrackError, match="no such file"):
        read_published(tmp_path / "none.pth")
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(JaxtrackError, match=r"unknown kind of weight file '\.onnx'; known: \.pth"):
        read_published(tmp_path / "net.onnx")
    with pytest.raises(JaxtrackError, match="a folder without an Orbax"):
        read_published(tmp_path)


def test_orbax_folders(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    import orbax.checkpoint as ocp

    tree = variables()
    older = jax.tree.map(lambda x: x + 1, tree)
    with ocp.CheckpointManager(tmp_path / "run" / "checkpoints") as manager:
        for step, values in ((2, older), (10, tree)):
            state = {**values, "step": jnp.asarray(step), "opt_state": ({"mu": jnp.zeros(5)}, ())}
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave({"epoch": 1})
                ),
            )
    form = abstract(tree)
    caplog.clear()
    for folder in ("run", "run/checkpoints", "run/checkpoints/10", "run/checkpoints/10/state"):
        assert same(load_into(form, tmp_path / folder), tree), folder
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(
            f"note: {tmp_path}/run/checkpoints/10/state: no checksums lie beside"
        )
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert same(load_into(form, tmp_path / "run" / "checkpoints" / "2"), older)
    form["params"]["3"] = form["params"].pop("1")
    with pytest.raises(JaxtrackError, match="params/3/bias"):
        load_into(form, tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(JaxtrackError, match="with one array tree was looked for, none found"):
        load_into(form, tmp_path / "empty")


def test_the_average_of_a_run_is_read_where_one_is_kept(tmp_path: pathlib.Path) -> None:
    import orbax.checkpoint as ocp

    tree = variables()
    raw = jax.tree.map(lambda x: x + 1, tree)
    with ocp.CheckpointManager(tmp_path) as manager:
        for step, state in ((1, {**raw, "average": tree}), (2, {**raw, "average": ()})):
            manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(state)))
    assert same(load_into(abstract(tree), tmp_path / "1"), tree)
    assert same(load_into(abstract(tree), tmp_path / "2"), raw)


def test_damaged_orbax_folder(tmp_path: pathlib.Path) -> None:
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.Composite(state=ocp.args.PyTreeSave(variables())))
    metadata = tmp_path / "1" / "state" / "_METADATA"
    metadata.write_text(metadata.read_text()[:50])
    with pytest.raises(JaxtrackError, match="not a whole Orbax checkpoint") as caught:
        load_into(abstract(variables()), tmp_path)
    assert "\n" not in str(caught.value)


def matconvnet(path: pathlib.Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """A file in MatConvNet's layout: two convolutions with a ReLU between, one with one filter."""
    rng = np.random.default_rng(3)
    weights = [
        (rng.normal(size=(3, 3, i, o)).astype(np.float32), rng.normal(size=(o, 1)))
        for i, o in ((3, 4), (4, 1))
    ]
    kinds = ("conv", "relu", "conv")
    layers = np.empty((1, 3), object)
    for k, kind in enumerate(kinds):
        pair = np.empty((1, 2), object)
        pair[0, 0], pair[0, 1] = weights[k // 2]
        layers[0, k] = {"name": f"layer{k}", "type": kind} | (
            {"weights": pair} if kind == "conv" else {}
        )
    scipy.io.savemat(path, {"layers": layers, "meta": {"note": "x"}})
    return weights


def test_matconvnet(tmp_path: pathlib.Path) -> None:
    weights = matconvnet(tmp_path / "vgg.mat")
    layers = read_matconvnet(tmp_path / "vgg.mat")
    assert [layer.name for layer in layers] == ["layer0", "layer2"]
    for layer, (kernel, bias) in zip(layers, weights):
        np.testing.assert_array_equal(layer.kernel, kernel, strict=True)
        np.testing.assert_array_equal(layer.bias, bias.ravel().astype(np.float32))
    state = read_published(tmp_path / "vgg.mat")
    assert list(state) == ["conv.0.weight", "conv.0.bias", "conv.1.weight", "conv.1.bias"]
    np.testing.assert_array_equal(state["conv.0.weight"], weights[0][0].transpose(3, 2, 0, 1))


def test_other_mat_files(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "other.mat"
    scipy.io.savemat(path, {"a": 1.0})
    with pytest.raises(JaxtrackError, match="no MatConvNet network"):
        read_matconvnet(path)
    layers = np.empty((1, 1), object)
    layers[0, 0] = {"name": "a", "type": "conv", "weights": np.zeros((2, 2))}
    scipy.io.savemat(path, {"layers": layers})
    with pytest.raises(JaxtrackError, match="layer 0 is not laid out as MatConvNet does"):
        read_matconvnet(path)
    with pytest.raises(JaxtrackError, match="no such file"):
        read_matconvnet(tmp_path / "none.mat")


@pytest.mark.shared
def test_matconvnet_parity_file(shared_dir: pathlib.Path) -> None:
    folder = shared_dir / "parity" / "tadt"
    state = read_published(folder / "mini_matconvnet.mat")
    with np.load(folder / "mat_reader.npz") as recorded:
        places = {0: "features.0", 1: "features.2", 2: "features.5"}
        for k, name in places.items():
            for leaf in ("weight", "bias"):
                np.testing.assert_array_equal(state[f"conv.{k}.{leaf}"], recorded[f"{name}.{leaf}"])


def drawn() -> Any:
    """Fresh variables of siamfc-tiny, always the same."""
    tracker = trackers.get("siamfc-tiny")
    form = jax.eval_shape(
        lambda key: tracker.init_variables(tracker.config, key), jax.random.key(0)
    )
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1, x.shape), x.dtype), form)


@pytest.fixture
def shelf(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder of shipped weights with those of siamfc-tiny, freshly drawn."""
    monkeypatch.setattr(cards, "SHIPPED", tmp_path)
    save_weights(tmp_path / "siamfc-tiny.safetensors", drawn(), CARD)
    return tmp_path


def test_load_weights_by_name_tracker_and_path(shelf: pathlib.Path) -> None:
    tracker = trackers.get("siamfc-tiny")
    by_name = load_weights("siamfc-tiny")
    assert same(by_name, drawn())
    assert same(by_name, load_weights(tracker))
    assert same(by_name, load_weights("siamfc-tiny", shelf / "siamfc-tiny.safetensors"))
    assert shipped_names() == ["siamfc-tiny"]


def test_load_weights_tells_what_is_missing(shelf: pathlib.Path) -> None:
    with pytest.raises(JaxtrackError, match=r"no weights come with preset 'siamfc'.*siamfc-tiny"):
        load_weights("siamfc")
    with pytest.raises(JaxtrackError, match="unknown tracker preset 'siamfc-tyni'"):
        load_weights("siamfc-tyni")
    tracker = trackers.get("siamfc-tiny")
    import dataclasses

    assert dataclasses.is_dataclass(tracker.config)
    own = dataclasses.replace(tracker.config, scale_count=5)  # type: ignore[type-var]
    custom = Tracker(own, tracker.init_variables, tracker.init, tracker.track_frame)  # type: ignore[arg-type]
    with pytest.raises(JaxtrackError, match="no preset: give the file"):
        load_weights(custom)
    assert same(
        load_weights(custom, shelf / "siamfc-tiny.safetensors"), load_weights("siamfc-tiny")
    )
    with pytest.raises(JaxtrackError, match="of another shape"):
        load_weights("siamfc", shelf / "siamfc-tiny.safetensors")


def test_card_of_another_preset(shelf: pathlib.Path) -> None:
    place = shelf / "siamfc-tiny.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"preset": "siamfc"}))
    with pytest.raises(JaxtrackError, match="the card is that of preset 'siamfc'"):
        load_weights("siamfc-tiny")
    place.unlink()
    with pytest.raises(JaxtrackError, match="no model card beside it"):
        load_weights("siamfc-tiny")


def test_every_shipped_file_fits_its_preset() -> None:
    for name in shipped_names():
        loaded = load_weights(name)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(loaded))
