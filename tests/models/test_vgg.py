"""VGG-16's trunk: published names, sizes, and a picture inside a canvas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.models.vgg import CHANNELS, NUMBERS, VGG16, VGGConfig
from jaxtrack.trackers.tadt.names import MATCONVNET_VGG16, TORCHVISION_VGG16
from jaxtrack.weights.names import from_published, published_targets, to_published

SHAPES = jax.eval_shape(lambda key: VGG16().init(key, jnp.zeros((1, 8, 8, 3))), jax.random.key(0))


def test_names_and_shapes_are_torchvisions():
    targets = published_targets(SHAPES)
    assert set(targets) == {
        f"features.{n}.{leaf}" for n in NUMBERS.values() for leaf in ("weight", "bias")
    }
    assert targets["features.0.weight"].shape == (64, 3, 3, 3)
    assert targets["features.21.weight"].shape == (512, 512, 3, 3)
    assert tuple(NUMBERS.values()) == (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)


def torchvision_state():
    rng = np.random.default_rng(0)
    state = {
        name: rng.standard_normal(target.shape, dtype=np.float32)
        for name, target in published_targets(SHAPES).items()
    }
    state["features.24.weight"] = np.zeros((512, 512, 3, 3), np.float32)
    state["classifier.6.bias"] = np.zeros(1000, np.float32)
    return state


def test_torchvision_and_matconvnet_fill_the_same_tree():
    state = torchvision_state()
    ours = from_published(TORCHVISION_VGG16, state, SHAPES)
    renamed = to_published(MATCONVNET_VGG16, ours)
    assert {f"conv.{k}.weight" for k in range(10)} <= set(renamed)
    renamed["conv.10.weight"] = np.zeros((512, 512, 3, 3), np.float32)  # conv5_1
    again = from_published(MATCONVNET_VGG16, renamed, SHAPES)
    jax.tree.map(np.testing.assert_array_equal, ours, again)
    del renamed["conv.3.bias"]
    with pytest.raises(JaxtrackError, match=r"features\.7\.bias"):
        from_published(MATCONVNET_VGG16, renamed, SHAPES)


def test_a_smaller_picture_in_a_canvas_gives_what_it_gives_alone():
    config = VGGConfig(until="conv2_2")
    network = VGG16(config)
    rng = np.random.default_rng(1)
    picture = jnp.asarray(rng.uniform(-128, 127, (1, 12, 12, 3)), jnp.float32)
    variables = jax.jit(network.init)(jax.random.key(0), picture)
    # A bias makes what lies beyond the picture differ from zero unless it is masked.
    variables = jax.tree.map(lambda leaf: leaf + 0.1 if leaf.ndim == 1 else leaf, variables)
    run = jax.jit(network.apply)
    alone = run(variables, picture)
    canvas = jnp.asarray(rng.uniform(-128, 127, (1, 20, 20, 3)), jnp.float32)
    canvas = canvas.at[:, :12, :12].set(picture)
    inside = run(variables, canvas, jnp.int32(12))
    for name, features in alone.items():
        side = features.shape[1]
        found = inside[name][:, :side, :side]
        np.testing.assert_allclose(found, features, rtol=1e-5, atol=1e-3, err_msg=name)
        if name == "conv2_2":
            assert float(jnp.abs(inside[name]).sum()) == pytest.approx(
                float(jnp.abs(found).sum()), rel=1e-6
            )


def test_it_stops_at_the_named_layer():
    names = list(
        jax.eval_shape(
            lambda key: VGG16(VGGConfig("conv3_1")).init_with_output(key, jnp.zeros((1, 8, 8, 3)))[
                0
            ],
            jax.random.key(0),
        )
    )
    assert {"conv3_1", "pool2"} <= set(names)
    assert "conv3_2" not in names
    assert CHANNELS["conv4_3"] == 512
