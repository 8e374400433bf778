"""The measurement of the input pipeline runs, and does not mix frames of other sizes."""

from __future__ import annotations

import dataclasses

import pytest

from eval.timing import data
from jaxtrack.errors import JaxtrackError


def test_the_measurement_runs_on_small_frames(tmp_path, capsys):
    small = data.Pipeline(
        tmp_path, videos=2, length=4, width=96, height=72, batch=2, batches=1, workers=(0,)
    )
    data.run(small)
    out = capsys.readouterr().out
    assert out.count("pairs/s") == 2
    assert "build: 8 frames" in out
    for stage in ("read", "decode", "cut", "rest"):
        assert out.count(f"{stage} ") >= 2
    with pytest.raises(JaxtrackError, match="holds other frames"):
        data.run(dataclasses.replace(small, length=5))
