"""Name tables and the strict merge, both ways."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import trackers, weights
from jaxtrack.errors import JaxtrackError
from jaxtrack.trackers.siamfc.names import TABLES
from jaxtrack.weights import NameTable, from_published, to_published
from jaxtrack.weights.names import published_targets

TREE = {
    "params": {
        "body": {
            "conv1.0": {"kernel": jnp.zeros((3, 2, 4, 5)), "bias": jnp.zeros(5)},
            "conv1.1": {"scale": jnp.zeros(5), "bias": jnp.zeros(5)},
        },
        "fc": {"kernel": jnp.zeros((5, 7))},
        "pos_embed": jnp.zeros((1, 6, 5)),
    },
    "batch_stats": {"body": {"conv1.1": {"mean": jnp.zeros(5), "var": jnp.ones(5)}}},
}
SHAPES = {
    "body.conv1.0.weight": (5, 4, 3, 2),
    "body.conv1.0.bias": (5,),
    "body.conv1.1.weight": (5,),
    "body.conv1.1.bias": (5,),
    "body.conv1.1.running_mean": (5,),
    "body.conv1.1.running_var": (5,),
    "fc.weight": (7, 5),
    "pos_embed": (1, 6, 5),
}


def published() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    values["body.conv1.1.running_var"] = abs(values["body.conv1.1.running_var"])
    return values | {"body.conv1.1.num_batches_tracked": np.asarray(7)}


def template() -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), TREE)


def test_leaf_rules() -> None:
    state = published()
    filled = from_published(NameTable(), state, template())
    jax.tree.map(lambda a, b: None, filled, TREE)  # raises where the trees differ
    params, stats = filled["params"], filled["batch_stats"]
    kernel = params["body"]["conv1.0"]["kernel"]
    assert kernel.dtype == jnp.float32
    weight = state["body.conv1.0.weight"]
    for o, i, h, w in ((0, 0, 0, 0), (4, 3, 2, 1), (1, 2, 0, 1)):
        assert kernel[h, w, i, o] == weight[o, i, h, w]
    np.testing.assert_array_equal(params["fc"]["kernel"], state["fc.weight"].T)
    np.testing.assert_array_equal(params["body"]["conv1.1"]["scale"], state["body.conv1.1.weight"])
    np.testing.assert_array_equal(params["pos_embed"], state["pos_embed"])
    np.testing.assert_array_equal(
        stats["body"]["conv1.1"]["mean"], state["body.conv1.1.running_mean"]
    )
    np.testing.assert_array_equal(
        stats["body"]["conv1.1"]["var"], state["body.conv1.1.running_var"]
    )


def test_published_convolution_computes_the_same() -> None:
    """A kernel that went through the leaf rule convolves as PyTorch's definition says."""
    state = published()
    kernel = from_published(NameTable(), state, template())["params"]["body"]["conv1.0"]["kernel"]
    x = np.random.default_rng(1).normal(size=(4, 3, 2)).astype(np.float32)  # CHW, one output pixel
    wanted = np.einsum("chw,ochw->o", x, state["body.conv1.0.weight"])
    made = jax.lax.conv_general_dilated(
        jnp.asarray(x.transpose(1, 2, 0)[None]),
        kernel,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    np.testing.assert_allclose(made.ravel(), wanted, rtol=1e-5, atol=1e-6)


def test_there_and_back() -> None:
    state = published()
    back = to_published(NameTable(), from_published(NameTable(), state, template()))
    assert set(back) == set(state)
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], value, err_msg=name, strict=True)


def test_rename_ignore_and_restore() -> None:
    table = NameTable(
        rename=((r"^module\.", ""), (r"^net\.(\d+)\.fc\.", r"fc.")),
        ignore=(r"^head\.", r"\.mask$"),
        restore=((r"^fc\.", "net.0.fc."),),
    )
    state = {f"module.{name}": value for name, value in published().items()}
    state["module.net.0.fc.weight"] = state.pop("module.fc.weight")
    state |= {"head.weight": np.zeros(3), "body.mask": np.zeros(2)}
    filled = from_published(table, state, template())
    np.testing.assert_array_equal(
        filled["params"]["fc"]["kernel"], state["module.net.0.fc.weight"].T
    )
    assert "net.0.fc.weight" in to_published(table, filled)
    one_way = NameTable(rename=((r"^a\.", "body."),), restore=((r"^body\.", "b."),))
    with pytest.raises(ValueError, match="no way back for body"):
        to_published(one_way, filled)


def test_a_part_of_the_tree_can_be_filled() -> None:
    part = {"params": {"fc": template()["params"]["fc"]}}
    table = NameTable(ignore=("^body", "^pos_embed$"))
    assert set(from_published(table, published(), part)["params"]) == {"fc"}


def test_one_error_prints_both_lists() -> None:
    state = published()
    state["extra.weight"] = np.zeros(3, np.float32)
    state["fc.weight"] = np.zeros((7, 6), np.float32)
    del state["pos_embed"]
    with pytest.raises(JaxtrackError) as caught:
        from_published(NameTable(), state, template())
    lines = str(caught.value).splitlines()
    assert lines == [
        "the weights do not fit this network: 1 in the file, without a place here, "
        "1 wanted here, not in the file, 1 of another shape",
        "  in the file, without a place here: extra.weight",
        "  wanted here, not in the file: pos_embed",
        "  of another shape: fc.weight is (7, 6), (7, 5) wanted",
    ]


def test_long_lists_are_wrapped_and_cut() -> None:
    state = published() | {f"layer{i}.with.a.long.name.weight": np.zeros(1) for i in range(60)}
    with pytest.raises(JaxtrackError) as caught:
        from_published(NameTable(), state, template())
    lines = str(caught.value).splitlines()
    assert "60 in the file" in lines[0]
    assert all(len(line) <= 100 for line in lines)
    assert lines[-1].endswith("... and 36 more")


def test_two_sources_for_one_place() -> None:
    state = published()
    state["module.fc.weight"] = state["fc.weight"]
    with pytest.raises(JaxtrackError, match=r"filled twice: fc\.weight by fc\.weight and module"):
        from_published(NameTable(rename=((r"^module\.", ""),)), state, template())


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (1j, "complex128, not real")],
)
def test_values_that_are_no_weights(value: complex, message: str) -> None:
    state = published() | {"fc.weight": np.full((7, 5), value)}
    with pytest.raises(JaxtrackError, match=message):
        from_published(NameTable(), state, template())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, bool])
@pytest.mark.parametrize("name", ["fc.weight", "body.conv1.1.running_mean"])
def test_integers_are_no_weights(name: str, dtype: Any) -> None:
    """A quantised array has lost its scale; counters that no variable takes stay whole numbers."""
    state = published()
    from_published(NameTable(), state | {"body.conv1.1.num_batches_tracked": np.asarray(3)}, TREE)
    state[name] = np.ones_like(state[name], dtype)
    with pytest.raises(JaxtrackError, match=f"{name} is {np.dtype(dtype)}; floats are wanted"):
        from_published(NameTable(), state, template())


def test_floats_are_no_counters() -> None:
    tree = {"params": {"count": jnp.zeros(3, jnp.int32)}}
    filled = from_published(NameTable(), {"count": np.arange(3)}, tree)
    np.testing.assert_array_equal(
        filled["params"]["count"], np.arange(3, dtype=np.int32), strict=True
    )
    with pytest.raises(JaxtrackError, match="count is float64; int32 is wanted"):
        from_published(NameTable(), {"count": np.full(3, 0.5)}, tree)


def test_a_variance_is_not_below_0() -> None:
    state = published()
    state["body.conv1.1.running_var"][2] = -0.25
    with pytest.raises(JaxtrackError, match=r"running_var holds a variance below 0 \(-0\.25\)"):
        from_published(NameTable(), state, template())


def test_half_precision_is_widened() -> None:
    state = {name: value.astype(np.float16) for name, value in published().items()}
    leaves = jax.tree.leaves(from_published(NameTable(), state, template()))
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


def test_unknown_collection_and_clashing_names() -> None:
    with pytest.raises(ValueError, match="'cache' has no published"):
        published_targets({"cache": {"a": jnp.zeros(2)}})
    clash = {"params": {"a": {"kernel": jnp.zeros((2, 2)), "weight": jnp.zeros(2)}}}
    with pytest.raises(ValueError, match=r"share the published name a\.weight"):
        published_targets(clash)


def abstract(preset: str) -> Any:
    tracker = trackers.get(preset)
    return jax.eval_shape(
        lambda key: tracker.init_variables(tracker.config, key), jax.random.key(0)
    )


def siamfc_names(layout: str) -> dict[str, tuple[int, ...]]:
    """Published names and shapes: huanglianghua's AlexNetV1, rafellerc's BaselineEmbeddingNet."""
    last = 256 if layout == "huanglianghua" else 32
    kernels = [
        (96, 3, 11, 11),
        (256, 48, 5, 5),
        (384, 256, 3, 3),
        (384, 192, 3, 3),
        (last, 192, 3, 3),
    ]
    if layout == "huanglianghua":
        names = [(f"backbone.conv{i}.0", f"backbone.conv{i}.1") for i in range(1, 6)]
    else:
        places = zip((0, 4, 8, 11, 14), (1, 5, 9, 12, 15))
        names = [
            (f"embedding_net.fully_conv.{c}", f"embedding_net.fully_conv.{n}") for c, n in places
        ]
    shapes: dict[str, tuple[int, ...]] = {}
    norms = [(norm, kernel[0]) for (_, norm), kernel in zip(names[:4], kernels)]
    norms += [("match_batchnorm", 1)] if layout == "rafellerc" else []
    for (conv, _), kernel in zip(names, kernels):
        shapes |= {f"{conv}.weight": kernel, f"{conv}.bias": kernel[:1]}
    for norm, size in norms:
        shapes |= {
            f"{norm}.{k}": (size,) for k in ("weight", "bias", "running_mean", "running_var")
        }
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes


@pytest.mark.parametrize(
    ("preset", "layout", "table"),
    [
        ("siamfc", "huanglianghua", "huanglianghua/siamfc-pytorch"),
        ("siamfc-baseline", "rafellerc", "rafellerc/Pytorch-SiamFC"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_siamfc_tables(preset: str, layout: str, table: str, prefix: str) -> None:
    shapes = siamfc_names(layout)
    state = {prefix + name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    filled = from_published(TABLES[table], state, abstract(preset))
    assert all(bool((leaf == 1).all()) for leaf in jax.tree.leaves(filled))
    back = to_published(TABLES[table], filled)
    assert {name: value.shape for name, value in back.items()} == shapes


@pytest.mark.shared
@pytest.mark.parametrize(
    ("schema", "layout"),
    [("hl_alexnetv1", "huanglianghua"), ("ra_siamese_baseline", "rafellerc")],
)
def test_published_schemas(shared_dir: pathlib.Path, schema: str, layout: str) -> None:
    text = (shared_dir / "parity" / "siamfc" / f"{schema}.schema.json").read_text()
    listed = {name: tuple(shape) for name, shape in json.loads(text)["schema"]}
    assert listed == siamfc_names(layout)


def test_name_tables_are_found_where_they_once_stood():
    """Scripts of users import them from there."""
    from jaxtrack.weights import tables_of

    assert tables_of("siamfc") == trackers.family("siamfc").tables
    with pytest.raises(AttributeError, match="has no attribute 'tables_off'"):
        _ = weights.tables_off
