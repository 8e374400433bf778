"""One part of a training is one's own, all else the library's: as CONTRIBUTING says."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from eval.tracking import code
from eval.tracking.entry import fingerprint, parse_entry
from jaxtrack.errors import JaxtrackError
from tests.conftest import ROOT
from train import look, optim, parallel, presets, run
from train.step import Aux, init_state, make_update

PART = re.findall(
    r"## A part of your own.*?```python\n(.*?)```",
    (ROOT / "CONTRIBUTING.md").read_text(),
    re.DOTALL,
)


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The working folder with what CONTRIBUTING shows; narrower, for the clock's sake."""
    (tmp_path / "own_part.py").write_text(PART[0].replace("(16, 32, 32)", "(4, 4, 4)"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_part", None)
    code.of_package.cache_clear()


def test_a_backbone_a_loss_and_an_optimiser_of_ones_own(
    own: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained, looked at and tracked with; the card's command names them."""
    changes = ("--set", "optim.name=own_part:CORE", "--set", "optim.rate=3e-4")
    words = ("own_part:PRESET", *changes, "--steps", "1", "--batch-size", "2", "--output", "own")
    assert run.main([*words, "--devices", "1"]) == 0
    card = json.loads((own / "own" / "weights.json").read_text())
    assert card["preset"] == "own_part:TRACKER"
    assert card["command"] == (
        "python -m train.run own_part:PRESET --steps 1 --batch-size 2 --set optim.name=own_part:CORE"
        " --set optim.rate=0.0003"
    )
    tracker = jaxtrack.get_tracker("own_part:TRACKER")
    variables = jaxtrack.load_weights("own_part:TRACKER", own / "own" / "weights.safetensors")
    frame = np.zeros((60, 80, 3), np.uint8)
    state = jaxtrack.init(tracker, variables, frame, [20, 20, 16, 16])
    _, found = jaxtrack.track_frame(tracker, variables, state, frame)
    assert np.isfinite(found.box).all()
    assert look.main(["own_part:PRESET", "--pairs", "1"]) == 0
    capsys.readouterr()
    assert run.main(["own_part:PRESET", "--fields"]) == 0
    assert "task.tracker.network.widths=(4, 4, 4)" in capsys.readouterr().out


def test_results_know_the_code_of_a_network_of_ones_own(own: pathlib.Path) -> None:
    record = parse_entry("own_part:TRACKER").tracker
    before = fingerprint(record, {})
    path = own / "own_part.py"
    path.write_text(path.read_text().replace("nn.relu", "nn.silu"))
    code.of_package.cache_clear()
    assert fingerprint(record, {}) != before


def test_a_network_that_is_told_wrongly_is_refused(own: pathlib.Path) -> None:
    path = own / "own_part.py"
    path.write_text(path.read_text().replace("return side - 2", "return side - 1"))
    tracker = jaxtrack.get_tracker("own_part:TRACKER")
    told = (
        r"Settings makes features of \(11, 11\) cells of an image of \(127, 127\).* says \(12, 12\)"
    )
    with pytest.raises(JaxtrackError, match=told):
        tracker.init_variables(tracker.config, jax.random.key(0))
    with pytest.raises(JaxtrackError, match="a value of type Embedding is wanted"):
        jaxtrack.get_tracker("siamfc-tiny", network=3)


def test_siamrpn_is_trained_by_a_loss_of_ones_own() -> None:
    """Where the library has a cheaper gradient of its own loss, too."""

    def own(config: Any, params: Any, batch_stats: Any, batch: Any, keys: Any) -> Any:
        total = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
        return 0.5 * total, Aux(batch_stats, {})

    task = dataclasses.replace(presets.get("siamrpnpp-tiny").task, loss=own, gradient=None)
    variables = jax.jit(lambda key: task.init_variables(task.config, key))(jax.random.key(0))
    plain = optim.make(optim.OptimConfig("sgd", 0.5, momentum=0.0), variables["params"], 1, 1)
    devices = parallel.local_devices(1)
    update = parallel.compile_update(make_update(task, plain, 1, 1), devices)
    before = jax.device_get(variables["params"])
    state = parallel.place(init_state(variables, plain), devices)
    moved, _ = update(state, {"index": np.arange(2, dtype=np.int32)}, jax.random.key(1))
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(moved.params), strict=True):
        np.testing.assert_allclose(other, 0.5 * one, rtol=1e-6)
