"""SiamRPN++: presets, geometry, modes of the tracker, name tables, training task."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import trackers
from jaxtrack.errors import JaxtrackError
from jaxtrack.trackers.siamrpn import names as tables_siamrpn
from jaxtrack.trackers.siamrpn import tracker as siamrpn
from jaxtrack.trackers.siamrpn.losses import anchor_deltas, anchor_logits, chosen_cross_entropy
from jaxtrack.trackers.siamrpn.network import NetworkConfig
from jaxtrack.trackers.siamrpn.proposals import change_penalty, clip_to_frame, window_pysot
from jaxtrack.weights.names import NameTable, from_published, published_targets, to_published

# A network that compiles in a moment.
SMALL = NetworkConfig(
    backbone="alexnet",
    levels=(5,),
    channels=(4, 4, 4, 4, 4),
    neck=(),
    head=(4,),
    fusion="single",
)


def shapes_of(config: siamrpn.Config):
    return jax.eval_shape(lambda: siamrpn.init_variables(config, jax.random.key(0)))


def test_presets_carry_the_published_settings():
    settings = {
        name: (c.penalty_k, c.window_influence, c.size_rate, c.instance_size, c.network.fusion)
        for name, c in siamrpn.PRESETS.items()
    }
    assert settings["siamrpnpp-r50"] == (0.05, 0.42, 0.38, 255, "weighted")
    assert settings["siamrpnpp-r50-otb"] == (0.24, 0.5, 0.25, 255, "average")
    assert settings["siamrpnpp-mobilev2"] == (0.04, 0.4, 0.5, 255, "average")
    assert settings["siamrpnpp-alex"] == (0.16, 0.4, 0.3, 287, "single")
    assert settings["siamrpnpp-alex-otb"] == settings["siamrpnpp-alex"]
    long_term = siamrpn.PRESETS["siamrpnpp-r50-lt"]
    assert (long_term.penalty_k, long_term.window_influence, long_term.size_rate) == (
        0.05,
        0.28,
        0.22,
    )
    assert (long_term.confidence_low, long_term.confidence_high) == (0.8, 0.998)
    assert long_term.network.head == (128, 256, 512)
    assert siamrpn.map_size(long_term, long_term.lost_instance_size) == 97


@pytest.mark.parametrize(
    ("name", "size"), [("siamrpnpp-r50", 25), ("siamrpnpp-alex", 21), ("siamrpnpp-tiny", 21)]
)
def test_the_network_fills_the_map(name, size):
    """The formula of the map's side agrees with the network itself."""
    config = siamrpn.PRESETS[name]
    assert siamrpn.map_size(config, config.instance_size) == size
    z = jax.ShapeDtypeStruct((1, 127, 127, 3), jnp.float32)
    x = jax.ShapeDtypeStruct((1, config.instance_size, config.instance_size, 3), jnp.float32)
    net = siamrpn.module(config)
    cls, loc = jax.eval_shape(lambda z, x: net.init_with_output(jax.random.key(0), z, x)[0], z, x)
    assert cls.shape == (1, size, size, 10)
    assert loc.shape == (1, size, size, 20)


def test_window_is_the_published_one():
    """Half-pixel positions with even and odd sides; exactly as many pixels as the side says."""
    for side in (60, 61):
        for centre in (80.0, 80.25, 80.5):
            window = window_pysot(jnp.asarray([centre, 20.5]), jnp.asarray(side, jnp.int32))
            assert int(window.left) == int(np.floor(centre - (side + 1) / 2 + 0.5))
            assert int(window.width) == side


def test_penalty_is_one_without_change_and_falls_with_it():
    size, scale = jnp.asarray([40.0, 30.0]), jnp.asarray(1.5)
    boxes = jnp.asarray([[0, 0, 60, 45], [0, 0, 120, 90], [0, 0, 45, 60], [9, 9, 30, 22.5]])
    penalty = np.asarray(change_penalty(boxes, size, scale, 0.1))
    np.testing.assert_allclose(penalty[0], 1, rtol=1e-6)
    np.testing.assert_allclose(penalty[1], np.exp(-0.1), rtol=1e-5)  # twice the scale
    np.testing.assert_allclose(penalty[2], np.exp(-0.1 * ((4 / 3) ** 2 - 1)), rtol=1e-5)
    np.testing.assert_allclose(penalty[3], penalty[1], rtol=1e-5)  # half is as bad as twice


def test_clipping_keeps_the_box_in_the_frame():
    frame_size = jnp.asarray([100, 200], jnp.int32)
    clipped = clip_to_frame(jnp.asarray([-5.0, 120.0, 3.0, 500.0]), frame_size)
    np.testing.assert_array_equal(clipped, [0, 100, 10, 100])


def test_sizes_are_corrected_by_the_first_frame():
    """What the network makes of the first frame becomes, corrected, the box that was given."""
    config = siamrpn.Config(network=SMALL, base_size=0, instance_size=207, size_correction=1.0)
    # Small deltas: a size that is more than four times off is not corrected as a whole.
    drawn = siamrpn.init_variables(config, jax.random.key(0))
    variables = {**drawn, "params": jax.tree.map(lambda leaf: leaf * 0.2, drawn["params"])}
    frame = jax.random.randint(jax.random.key(1), (90, 120, 3), 0, 256).astype(jnp.uint8)
    size = jnp.asarray([90, 120], jnp.int32)

    @jax.jit
    def first(share):
        settings = dataclasses.replace(config, size_correction=share)
        state = siamrpn.init(settings, variables, frame, jnp.asarray([40.0, 30, 24, 32]), size)
        look = siamrpn.cut(config, state, frame)
        maps = siamrpn.respond(
            config, variables, state, siamrpn.embed(config, variables, state, look)
        )
        scores, _, window = siamrpn.read(config, maps)
        decision = siamrpn.decide(config, variables, state, look, maps)
        likeliest = jnp.argmax(scores * window)
        return state.correction, decision.boxes[likeliest, 2:] / decision.scale

    factors, found = first(1.0)
    np.testing.assert_allclose(found, [24, 32], rtol=1e-4)
    halfway, found = first(0.5)
    np.testing.assert_allclose(halfway**2, factors, rtol=1e-4)


def test_an_infinite_box_does_not_poison_the_state():
    config = siamrpn.Config(network=SMALL, base_size=0, instance_size=287)
    state = siamrpn.State(
        jnp.asarray([50.0, 40.0]),
        jnp.asarray([20.0, 30.0]),
        (),
        jnp.zeros(3),
        jnp.zeros((), bool),
        jnp.asarray([100, 120], jnp.int32),
        jnp.ones(()),
        jnp.zeros((), jnp.int32),
        jnp.ones(2),
        (),
    )
    maps = siamrpn.Maps(jnp.zeros((1, 21, 21, 10)), jnp.full((1, 21, 21, 20), 1e4))

    def step(state):
        decision = siamrpn.decide(config, {}, state, None, maps)
        return siamrpn.update(config, {}, state, None, decision), decision

    after, decision = jax.jit(step)(state)
    assert np.isfinite(np.asarray(decision.box)).all()
    assert np.isfinite(np.asarray(after.size)).all()


def test_logits_and_deltas_are_read_anchor_by_anchor():
    cls = jnp.arange(10.0)[None, None, None, :]
    np.testing.assert_array_equal(anchor_logits(cls)[0, 2, 0, 0], [2, 7])
    loc = jnp.arange(20.0)[None, None, None, :]
    np.testing.assert_array_equal(anchor_deltas(loc)[0, 2, 0, 0], [2, 7, 12, 17])


def test_a_single_label_counts_as_none_only_where_asked():
    logits = jnp.asarray([[[[[0.3, -0.2], [0.1, 0.9]]]]])
    labels = jnp.asarray([[[[1, -1]]]], jnp.int8)
    assert float(chosen_cross_entropy(logits, labels)) == 0
    want = -0.5 * np.log(np.exp(-0.2) / (np.exp(0.3) + np.exp(-0.2)))
    got = float(chosen_cross_entropy(logits, labels, drop_single=False))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def spot_finder(config, variables, *inputs, method):
    """In the network's place: finds a red spot; its probability grows with how red a cell is."""
    if method == "features":
        return [inputs[0]]
    if method == "kernels":
        return ()
    image = inputs[1][0][0]
    size = siamrpn.map_size(config, image.shape[0])
    first = image.shape[0] // 2 - (size // 2) * 8
    rows = jnp.arange(size) * 8 + first
    redness = (image[..., 2] - image[..., 1])[rows][:, rows] / 255
    fg = jnp.full((size, size, 5), -9.0).at[:, :, 2].set(40 * redness - 20)
    cls = jnp.concatenate([jnp.zeros((size, size, 5)), fg], axis=-1)[None]
    return cls, jnp.zeros((1, size, size, 20))


def spot_clip(centres: list[tuple[int, int] | None]) -> np.ndarray:
    """Grey frames with a red disc; none where the target is away."""
    rows, columns = np.mgrid[:240, :320]
    frames = np.full((len(centres), 240, 320, 3), 90, np.uint8)
    for frame, centre in zip(frames, centres):
        if centre is not None:
            inside = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 <= 20**2
            frame[inside] = [255, 0, 0]
    return frames


def follow(config: siamrpn.Config, frames: np.ndarray, box: list[float]):
    frame_size = jnp.asarray([240, 320], jnp.int32)
    start = jax.jit(lambda frame, box: siamrpn.init(config, {}, frame, box, frame_size))
    state = start(frames[0], jnp.asarray(box))
    step = jax.jit(lambda state, frame: siamrpn.track_frame(config, {}, state, frame))
    states, predictions = [], []
    for frame in frames[1:]:
        state, prediction = step(state, jnp.asarray(frame))
        states.append(state)
        predictions.append(prediction)
    return states, predictions


def test_long_term_tracker_recovers_a_target_that_left(monkeypatch):
    """The disc vanishes and comes back far away: the enlarged search finds it, the short-term does not."""
    monkeypatch.setattr(siamrpn, "apply", spot_finder)
    path = [(60, 60), (64, 60), (68, 62)] + [None] * 4 + [(260, 190)] * 6
    frames = spot_clip(path)
    box = [40.0, 40.0, 40.0, 40.0]
    short = siamrpn.Config(base_size=0)
    long_term = dataclasses.replace(
        short, lost_instance_size=831, confidence_low=0.8, confidence_high=0.998
    )
    states, predictions = follow(long_term, frames, box)
    lost = [bool(state.lost) for state in states]
    # Lost while away; the frame that finds it again clears the flag (its score is above high).
    assert lost == [False, False, True, True, True, True] + [False] * 6
    frozen = np.asarray([state.centre for state in states[2:6]])
    np.testing.assert_array_equal(frozen, np.broadcast_to(frozen[0], frozen.shape))
    assert float(predictions[3].score) < 0.8
    x, y, w, h = np.asarray(predictions[-1].box)
    assert abs(x + w / 2 - 260) < 20
    assert abs(y + h / 2 - 190) < 20
    _, predictions = follow(short, frames, box)
    x, y, w, h = np.asarray(predictions[-1].box)
    assert abs(x + w / 2 - 260) + abs(y + h / 2 - 190) > 100


def test_target_leaving_the_view_leaves_the_tracker_at_the_border(monkeypatch):
    monkeypatch.setattr(siamrpn, "apply", spot_finder)
    frames = spot_clip([(300 + 8 * i, 120) for i in range(8)])
    _, predictions = follow(siamrpn.Config(base_size=0), frames, [280.0, 100.0, 40.0, 40.0])
    boxes = np.asarray([prediction.box for prediction in predictions])
    assert np.isfinite(boxes).all()
    assert (boxes[:, 0] + boxes[:, 2] / 2 <= 320).all()


@pytest.mark.parametrize("box", [[-30.0, -20.0, 700.0, 500.0], [5.0, 5.0, 1.0, 1.0]])
def test_targets_larger_than_the_frame_and_tiny_ones(box, monkeypatch):
    """The search region is then larger than the frame, or a few pixels."""
    monkeypatch.setattr(siamrpn, "apply", spot_finder)
    frames = spot_clip([(160, 120)] * 3)
    states, predictions = follow(siamrpn.Config(base_size=0), frames, box)
    for prediction in predictions:
        assert np.isfinite(np.asarray(prediction.box)).all()
        assert (np.asarray(prediction.box)[2:] <= [320, 240]).all()
        assert (np.asarray(prediction.box)[2:] >= 10).all()
    assert states[-1].centre.dtype == jnp.float32


def test_an_unmoved_target_comes_back_unmoved(monkeypatch):
    def sure_of_the_middle(config, variables, *inputs, method):
        if method != "predict":
            return [inputs[0]] if method == "features" else ()
        size = siamrpn.map_size(config, inputs[1][0].shape[1])
        cls = jnp.zeros((1, size, size, 10)).at[0, size // 2, size // 2, 7].set(50.0)
        return cls, jnp.zeros((1, size, size, 20))

    monkeypatch.setattr(siamrpn, "apply", sure_of_the_middle)
    frames = spot_clip([(100, 100)] * 2)
    _, predictions = follow(siamrpn.Config(base_size=0), frames, [80.0, 70.0, 40.0, 40.0])
    x, y, w, h = np.asarray(predictions[0].box)
    np.testing.assert_allclose([x + w / 2, y + h / 2], [100, 90], atol=1e-4)


def fake_state(shapes) -> dict[str, np.ndarray]:
    return {
        name: np.ones(target.shape, np.float32)
        for name, target in published_targets(shapes).items()
    }


RELEASED = {"1.0": 0, "1.1": 1, "2.0": 4, "2.1": 5, "3.0": 8, "3.1": 9, "4.0": 11, "4.1": 12}
RELEASED |= {"5.0": 14, "5.1": 15}


def released(name: str) -> str:
    """Return the name of an AlexNet's array as the released trackers have it."""
    found = re.match(r"backbone\.layer(\d\.\d)\.(.*)$", name)
    return f"backbone.features.{RELEASED[found[1]]}.{found[2]}" if found else name


def test_released_alexnet_names_become_layer_names():
    config = siamrpn.Config(network=dataclasses.replace(SMALL, channels=(4, 5, 6, 7, 8)))
    shapes = shapes_of(config)
    state = {released(name): value for name, value in fake_state(shapes).items()}
    assert "backbone.features.14.weight" in state
    table = tables_siamrpn.TABLES["STVIR/pysot"]
    variables = from_published(table, state, shapes)
    assert variables["params"]["backbone"]["layer5.0"]["kernel"].shape == (3, 3, 7, 8)
    # Files of the training configuration use our names, with DataParallel's prefix or without.
    from_published(table, {f"module.{k}": v for k, v in fake_state(shapes).items()}, shapes)


def test_published_names_go_there_and_back():
    shapes = shapes_of(siamrpn.PRESETS["siamrpnpp-tiny"])
    table = tables_siamrpn.TABLES["STVIR/pysot"]
    state = to_published(table, from_published(table, fake_state(shapes), shapes))
    names = {released(name) for name in fake_state(shapes)}
    assert names == {name for name in state if not name.endswith("num_batches_tracked")}
    assert "neck.downsample2.downsample.0.weight" in names
    assert "rpn_head.rpn4.loc.head.3.bias" in names
    assert "rpn_head.cls_weight" in names


def test_weights_of_another_backbone_print_both_lists():
    state = fake_state(shapes_of(siamrpn.PRESETS["siamrpnpp-alex"]))
    with pytest.raises(JaxtrackError) as caught:
        from_published(
            tables_siamrpn.TABLES["STVIR/pysot"],
            state,
            shapes_of(siamrpn.PRESETS["siamrpnpp-mobilev2"]),
        )
    text = str(caught.value)
    assert re.search(r"in the file, without a place here: \w+\.", text)
    assert re.search(r"wanted here, not in the file: \w+\.", text)


def backbone_part(config: siamrpn.Config):
    shapes = shapes_of(config)
    return {kind: {"backbone": tree["backbone"]} for kind, tree in shapes.items()}


def test_torchvision_resnet50_widens_its_shortcuts():
    shapes = backbone_part(siamrpn.PRESETS["siamrpnpp-r50"])
    state = {}
    for name, target in published_targets(shapes).items():
        shape = target.shape
        if re.search(r"layer[234]\.0\.downsample\.0\.weight", name):
            shape = (*shape[:2], 1, 1)
        state[name.removeprefix("backbone.")] = np.full(shape, 2.0, np.float32)
    state["fc.weight"] = np.zeros((1000, 2048), np.float32)
    ours = from_published(NameTable(), tables_siamrpn.torchvision_resnet50(state), shapes)
    kernel = np.asarray(ours["params"]["backbone"]["layer2.0"]["downsample.0"]["kernel"])
    assert kernel.shape[:2] == (3, 3)
    assert (kernel[1, 1] == 2).all()
    assert kernel.sum() == 2 * kernel[1, 1].size


def torchvision_mobilenet_state(shapes) -> dict[str, np.ndarray]:
    """torchvision's names, by its own rules: block numbers run through, factor 1 has no expansion."""
    state = {}
    starts = {1: 1, 2: 2, 3: 4, 4: 7, 5: 11, 6: 14, 7: 17}
    wide = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
    plain = {"3": "0.0", "4": "0.1", "6": "1", "7": "2"}
    for name, target in published_targets(shapes).items():
        stem = re.match(r"backbone\.layer0\.(\d)\.(\w+)$", name)
        block = re.match(r"backbone\.layer(\d)\.(\d)\.conv\.(\d)\.(\w+)$", name)
        value = np.full(target.shape, 0.5, np.float32)
        if stem:
            state[f"features.0.{stem[1]}.{stem[2]}"] = value
            continue
        assert block is not None
        stage, i, part, leaf = int(block[1]), int(block[2]), block[3], block[4]
        parts = plain if stage == 1 else wide
        if part in parts:
            state[f"features.{starts[stage] + i}.conv.{parts[part]}.{leaf}"] = value
    return state


def test_torchvision_mobilenet_gets_an_identity_expansion():
    network = NetworkConfig(backbone="mobilenetv2", levels=(3, 5, 7), fusion="average")
    shapes = backbone_part(siamrpn.Config(network=network))
    state = torchvision_mobilenet_state(shapes)
    state["classifier.1.weight"] = np.zeros((1000, 1280), np.float32)
    ours = from_published(NameTable(), tables_siamrpn.torchvision_mobilenet_v2(state), shapes)
    block = ours["params"]["backbone"]["layer1.0"]
    stats = ours["batch_stats"]["backbone"]["layer1.0"]
    assert (np.asarray(block["conv.3"]["kernel"]) == 0.5).all()
    x = np.random.RandomState(0).uniform(0, 6, (7, 32)).astype(np.float32)
    y = x @ np.asarray(block["conv.0"]["kernel"])[0, 0]
    factor = np.asarray(block["conv.1"]["scale"]) / np.sqrt(
        np.asarray(stats["conv.1"]["var"]) + 1e-5
    )
    np.testing.assert_allclose(y * factor + np.asarray(block["conv.1"]["bias"]), x, rtol=1e-5)


def test_unknown_torchvision_names_are_told():
    with pytest.raises(JaxtrackError, match="stage9"):
        from_published(
            NameTable(),
            tables_siamrpn.torchvision_mobilenet_v2({"stage9.weight": np.zeros(3, np.float32)}),
            backbone_part(siamrpn.PRESETS["siamrpnpp-mobilev2"]),
        )


def test_presets_are_offered_by_name():
    assert trackers.get("siamrpnpp-alex").config == siamrpn.PRESETS["siamrpnpp-alex"]
    with pytest.raises(JaxtrackError, match="siamrpnpp-r50"):
        trackers.get("siamrpn-r50")
