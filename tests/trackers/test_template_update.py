"""Templates that follow the target in each family: what is remembered of a frame that was tracked."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrack
from jaxtrack.ops.template_update import TemplateUpdate
from tests.trackers.made import BOX

RULE = TemplateUpdate(rate=0.5, above=0.3, share=0.4)
SIZE = jnp.asarray([120, 160], jnp.int32)


def picture(seed):
    """A frame of coarse squares: the same crop at another place looks different."""
    coarse = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
    return jnp.asarray(coarse.repeat(8, axis=0).repeat(8, axis=1))


def following(name):
    tracker = jaxtrack.get_tracker(name)
    variables = jaxtrack.load_weights(tracker)
    config = dataclasses.replace(tracker.config, template_update=RULE)
    return dataclasses.replace(tracker, config=config), variables


def unmoved(state, score):
    """A decision of any family: the target is where it was."""
    place = {
        k: getattr(state, k) for k in ("centre", "size", "target", "window") if hasattr(state, k)
    }
    if hasattr(state, "box"):
        place |= {"clipped": state.box}
    if hasattr(state, "kernels"):
        place |= {"kept": jnp.concatenate([state.centre, state.size]), "lost": state.lost}
    known = {"confidence": score, "misses": state.misses, "colours": state.colours, "growth": 1.0}
    return types.SimpleNamespace(score=score, probability=score, **place, **known)


@pytest.mark.parametrize(
    "name",
    [
        "siamfc-tiny",
        "siamrpnpp-tiny",
        pytest.param("mlt-tiny", marks=pytest.mark.slow),
        pytest.param("tadt-tiny", marks=pytest.mark.slow),
        "ostrack-tiny",
    ],
)
def test_the_template_follows_what_was_tracked_well(name):
    tracker, variables = following(name)
    frame, other = picture(0), picture(1)
    before = jax.jit(lambda: tracker.init(tracker.config, variables, frame, BOX, SIZE))()

    @jax.jit
    def update(image, score):
        decision = unmoved(before, score)
        return tracker.steps.update(tracker.config, variables, before, image, decision)

    def gap(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs)

    first = before.appearance.first
    extent = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(first))
    # The same frame again: nothing new is seen.
    assert gap(update(frame, 1.0).appearance.mean, first) < 1e-4 * extent
    # A lost target: nothing is learned from another frame.
    assert gap(update(other, 0.2).appearance.mean, first) == 0
    after = update(other, 0.9)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert gap(after.appearance.mean, first) > 0.05 * extent
    assert gap(after.appearance.first, first) == 0
    now = jax.tree.map(lambda mean, old: 2 * mean - old, after.appearance.mean, first)
    wanted = jax.tree.map(lambda old, new: old + 0.4 * 0.5 * (new - old), first, now)
    used = next(getattr(after, n) for n in ("exemplar", "kernels", "template") if hasattr(after, n))
    assert gap(used, wanted) < 1e-5 * extent
