"""Anchors: grids as published, encoding, choice and assignment."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.trackers.siamrpn.anchors import (
    anchor_grid,
    assign,
    base_anchors,
    choose,
    decode,
    encode,
    match,
    negative_pair_cells,
    random_priority,
)

RATIOS = (0.33, 0.5, 1, 2, 3)
LIMITS = {"stride": 8, "search_size": 255}


@jax.jit
def assigned(grid, box, negative, priority):
    return assign(grid, box, negative, priority, **LIMITS)


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    return anchor_grid(base_anchors(8, RATIOS, (8,)), 8, 25, 127)


def test_base_anchors_are_truncated_as_published():
    base = base_anchors(8, RATIOS, (8,))
    sizes = base[:, 2:] - base[:, :2]
    want = [[104, 32], [88, 40], [64, 64], [40, 80], [32, 96]]
    np.testing.assert_array_equal(sizes, want)
    np.testing.assert_array_equal(base[:, :2], -base[:, 2:])


def test_scales_run_inside_ratios():
    base = base_anchors(8, (1, 2), (4, 8))
    np.testing.assert_array_equal((base[:, 2] - base[:, 0]), [32, 64, 20, 40])


def test_training_grid_is_centred_on_the_search_image(grid):
    assert grid.shape == (5, 25, 25, 4)
    np.testing.assert_array_equal(grid[0, 12, 12, :2], [127, 127])
    np.testing.assert_array_equal(grid[2, 0, 24, :2], [31 + 24 * 8, 31])  # columns are x


@hypothesis.given(
    st.lists(st.floats(-200, 200), min_size=2, max_size=2),
    st.lists(st.floats(1, 300), min_size=2, max_size=2),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_decode_undoes_encode(centre, size):
    box = np.asarray([*centre, *size], np.float32)
    anchor = np.asarray([13.0, -7.0, 64.0, 40.0], np.float32)
    back = decode(encode(jnp.asarray(box), jnp.asarray(anchor)), jnp.asarray(anchor))
    np.testing.assert_allclose(back, box, rtol=1e-4, atol=1e-3)


def test_choose_takes_the_smallest_priorities():
    candidates = jnp.asarray([True, True, False, True, True])
    priority = jnp.asarray([0.5, 0.1, 0.0, 0.1, 0.9])
    np.testing.assert_array_equal(choose(candidates, priority, 2), [0, 1, 0, 1, 0])
    # Fewer candidates than asked for: all of them, and nothing else.
    np.testing.assert_array_equal(choose(candidates, priority, 5), candidates)


def test_negative_pair_cell_lies_right_below_a_centred_target():
    cells = np.asarray(negative_pair_cells(jnp.asarray([127.0, 127.0]), 8, 25, 255))
    rows, columns = np.nonzero(cells)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 16, 10, 16)


def test_negative_pair_cells_are_cut_at_the_border():
    cells = np.asarray(negative_pair_cells(jnp.asarray([226.0, 30.0]), 8, 25, 255))
    rows, columns = np.nonzero(cells)
    assert rows.min() == 0
    assert columns.max() == 24
    assert cells.sum() == (rows.max() + 1) * (25 - columns.min())


def test_assignment_counts_and_weights(grid):
    box = jnp.asarray([95.3, 90.1, 170.8, 158.6])
    priority = random_priority(jax.random.key(0), (5, 25, 25))
    targets = assigned(grid, box, False, priority)
    labels = np.asarray(targets.labels)
    overlaps = np.asarray(targets.overlaps)
    assert 0 < (labels == 1).sum() <= 16
    assert (labels == 0).sum() == 48
    assert overlaps[labels == 1].min() > 0.6
    assert overlaps[labels == 0].max() < 0.3
    np.testing.assert_allclose(np.asarray(targets.weights).sum(), 1, rtol=1e-5)
    # The targets decode to the box everywhere.
    decoded = np.asarray(decode(targets.deltas, jnp.asarray(grid)))
    np.testing.assert_allclose(decoded[..., 0], (95.3 + 170.8) / 2, rtol=1e-4)
    np.testing.assert_allclose(decoded[..., 3], 158.6 - 90.1, rtol=1e-4)


def test_negative_pair_has_no_positives(grid):
    box = jnp.asarray([95.3, 90.1, 170.8, 158.6])
    priority = random_priority(jax.random.key(1), (5, 25, 25))
    targets = assigned(grid, box, True, priority)
    labels = np.asarray(targets.labels)
    assert (labels == 1).sum() == 0
    assert (labels == 0).sum() == 16
    assert not np.any(targets.deltas)
    assert not np.any(targets.weights)


def test_random_choice_is_fair(grid):
    """Over many keys every candidate is chosen about equally often."""
    box = jnp.asarray([101.75, 78.2, 147.85, 159.4])
    candidates, _, _ = match(jnp.asarray(grid), box, False, **LIMITS)
    count = int(candidates.positive.sum())
    assert count > 16

    def chosen(key):
        priority = random_priority(key, (5, 25, 25))
        return assigned(grid, box, False, priority).labels == 1

    keys = jax.random.split(jax.random.key(2), 400)
    often = jax.jit(lambda keys: jnp.mean(jax.lax.map(chosen, keys), axis=0))(keys)
    rates = np.asarray(often)[np.asarray(candidates.positive)]
    np.testing.assert_allclose(rates, 16 / count, atol=0.15)


def test_batch_equals_one_by_one(grid):
    boxes = jnp.asarray([[95.3, 90.1, 170.8, 158.6], [188.0, 10.5, 250.0, 95.0]])
    negative = jnp.asarray([False, True])
    priority = jnp.stack([random_priority(jax.random.key(i), (5, 25, 25)) for i in range(2)])

    together = jax.jit(jax.vmap(assigned, in_axes=(None, 0, 0, 0)))(grid, boxes, negative, priority)
    for i in range(2):
        alone = assigned(grid, boxes[i], negative[i], priority[i])
        np.testing.assert_array_equal(together.labels[i], alone.labels)
        np.testing.assert_allclose(together.deltas[i], alone.deltas, rtol=1e-6)
