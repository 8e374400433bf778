"""The margin of a peak against the formula written out, and the score that is made of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack import trackers
from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import confidence
from jaxtrack.ops.confidence import COLOURED, MARGIN, RESPONSE, Confidence


def written_out(response, radius, inside):
    """The formula, cell by cell."""
    cells = [(y, x) for y, x in np.ndindex(response.shape) if inside[y, x]]
    top = max(cells, key=lambda place: response[place])
    far = [response[y, x] for y, x in cells if max(abs(y - top[0]), abs(x - top[1])) > radius]
    return (response[top] - max(far)) / (response[top] - np.mean(far))


@pytest.mark.parametrize("radius", [0, 2, 3.5])
def test_the_margin_is_the_formula(radius):
    rng = np.random.default_rng(0)
    responses = rng.normal(size=(5, 9, 11)).astype(np.float32)
    inside = np.ones((9, 11), bool)
    inside[:, 8:] = False
    got = jax.vmap(lambda r: confidence.margin(r, radius, jnp.asarray(inside)))(responses)
    want = [written_out(r, radius, inside) for r in responses]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    again = jax.vmap(lambda r: confidence.margin(3 * r + 7, radius, jnp.asarray(inside)))(responses)
    np.testing.assert_allclose(again, want, atol=1e-5)


def test_a_second_peak_takes_the_margin_and_a_near_one_does_not():
    line = np.arange(17) - 8.0
    bump = np.exp(-(line[:, None] ** 2 + line[None, :] ** 2) / 8)
    alone = float(confidence.margin(jnp.asarray(bump), 5))
    assert alone > 0.9
    beside = np.maximum(bump, np.roll(bump, 3, axis=1))
    assert float(confidence.margin(jnp.asarray(beside), 5)) > 0.6
    other = np.maximum(bump, 0.8 * np.roll(bump, 7, axis=0))
    assert float(confidence.margin(jnp.asarray(other), 5)) < 0.25
    assert float(confidence.margin(jnp.ones((9, 9)), 2)) == 0
    assert float(confidence.margin(jnp.asarray(bump), 40)) == 0  # nothing is elsewhere


def test_the_score_is_a_running_mean():
    bump = jnp.zeros((9, 9)).at[4, 4].set(1.0)
    flat = jnp.ones((9, 9))
    mean, scores = jnp.ones(()), []
    for response in (bump, flat, flat, bump):
        score, mean = confidence.score(MARGIN, mean, jnp.float32(0.7), response, 6)
        scores.append(float(score))
    np.testing.assert_allclose(scores, [1, 0.9, 0.81, 0.829], atol=1e-6)
    own = jnp.float32(0.7)
    assert confidence.score(RESPONSE, jnp.ones(()), own, bump, 6) == (own, own)


def test_the_colours_part_is_in_the_score_and_not_in_the_running_mean():
    bump = jnp.zeros((9, 9)).at[4, 4].set(1.0)
    for rule, plain in ((COLOURED, 1), (dataclasses.replace(RESPONSE, colour=0.3), 0.7)):
        given = (rule, jnp.ones(()), jnp.float32(0.7), bump, 6)
        score, mean = confidence.score(*given, standing=jnp.float32(0.2))
        assert float(mean) == pytest.approx(plain)
        assert float(score) == pytest.approx(0.7 * plain + 0.3 * 0.2)
        assert float(confidence.score(*given)[0]) == pytest.approx(plain)


def test_published_presets_keep_their_scores_and_searches():
    for name in trackers.names():
        config = trackers.get(name).config
        if not hasattr(config, "confidence"):
            continue
        small = "-tiny" in name or "-small" in name
        assert small or config.confidence == RESPONSE, name
        assert small or not config.lost.on, name
    for name in ("siamfc-tiny", "siamrpnpp-tiny", "mlt-tiny", "tadt-tiny"):
        assert trackers.get(name).config.confidence.rule == "margin"


@pytest.mark.parametrize(
    ("fields", "words"), [({"rate": 0.0}, "rate is 0"), ({"radius": -1.0}, "radius")]
)
def test_numbers_without_a_meaning_are_refused_by_name(fields, words):
    with pytest.raises(JaxtrackError, match=words):
        Confidence("margin", **fields)
