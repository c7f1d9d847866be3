from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap import _populations

SIZES = [1, 2, 3, 7, 100]  # of populations 0, 1, ...
N_LEFT_OUT = 5

sample_cells = jax.jit(_populations.sample_cells, static_argnames="n")
spread_cells = jax.jit(_populations.spread_cells, static_argnames="n")


@partial(jax.jit, static_argnames="n")
def sample_many_pairs(key, populations, population, n):
    """(1000, 2, n, n_features): many draws at once."""
    keys = jax.random.split(key, 1_000)
    return jax.vmap(_populations.sample_independent, (0, None, None, None))(keys, populations, population, n)


@pytest.fixture(scope="module")
def labels():
    """The population of each cell, in random order, and -1 for cells left out."""
    populations = np.repeat(np.arange(-1, len(SIZES)), [N_LEFT_OUT, *SIZES])
    return np.random.default_rng(0).permutation(populations)


@pytest.fixture(scope="module")
def cells(labels):
    """Each cell is its own number, and its population's."""
    return np.stack([np.arange(len(labels)), labels], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def populations(cells, labels):
    return _populations.make_populations(cells, labels, source_of=[0, 0, 1], target_of=[2, 3, 4])


def numbers(cells):
    return np.asarray(cells)[..., 0].astype(int)


def test_blocks_hold_the_rows_of_their_population(populations, cells, labels):
    np.testing.assert_array_equal(populations.size[: len(SIZES)], SIZES)
    for i, (start, size) in enumerate(zip(populations.start, populations.size, strict=True)):
        block = populations.cells[int(start) : int(start) + int(size)]
        np.testing.assert_array_equal(block, cells[labels == i])
    assert populations.cells.dtype == jnp.float32


def test_blocks_stand_in_the_order_that_is_given(populations, cells, labels):
    order = np.random.default_rng(1).permutation(len(cells))
    sources = {"source_of": [0, 0, 1], "target_of": [2, 3, 4]}
    # Rows that come in another order, and the order of these that leads back.
    back = _populations.make_populations(cells[order], labels[order], **sources, order=np.argsort(order))
    for one, other in zip(back, populations, strict=True):
        np.testing.assert_array_equal(one, other)


def test_conditions_keep_their_populations_through_the_padding(populations):
    np.testing.assert_array_equal(populations.source_of[:3], [0, 0, 1])
    np.testing.assert_array_equal(populations.target_of[:3], [2, 3, 4])


def test_a_population_without_cells_has_an_empty_block():
    populations = _populations.make_populations(np.ones((3, 2)), np.array([0, 2, 2]), [0], [3])
    np.testing.assert_array_equal(populations.size[:4], [1, 0, 2, 0])


@pytest.mark.parametrize("population", range(len(SIZES)))
def test_sample_cells_draws_all_cells_of_its_population_and_no_others(populations, labels, population):
    drawn = sample_cells(jax.random.key(0), populations, population, 5_000)
    assert drawn.shape == (5_000, 2)
    drawn, times = np.unique(numbers(drawn), return_counts=True)
    np.testing.assert_array_equal(drawn, np.flatnonzero(labels == population))
    expected = 5_000 / SIZES[population]
    assert np.all(np.abs(times - expected) < 6 * np.sqrt(expected))


def test_sample_cells_follows_its_key(populations):
    draws = [numbers(sample_cells(jax.random.key(seed), populations, 4, 50)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])


@pytest.mark.parametrize("population", range(1, len(SIZES)))
def test_independent_batches_share_no_cell_and_reach_all(populations, labels, population):
    drawn = numbers(sample_many_pairs(jax.random.key(0), populations, population, 16))
    assert all(set(one).isdisjoint(other) for one, other in drawn)
    for batch in range(2):
        reached, times = np.unique(drawn[:, batch], return_counts=True)
        np.testing.assert_array_equal(reached, np.flatnonzero(labels == population))
        # A batch's cells come from one half, so that the counts of a small population vary as 1,000 draws of a half do.
        assert np.all(np.abs(times / times.mean() - 1) < 0.3)


def test_independent_batches_of_a_single_cell_repeat_it(populations, labels):
    drawn = numbers(sample_many_pairs(jax.random.key(0), populations, 0, 16))
    assert set(drawn.ravel()) == set(np.flatnonzero(labels == 0))


@pytest.mark.parametrize("population", range(len(SIZES)))
def test_spread_cells_are_distinct_and_their_weights_sum_to_one(populations, labels, population):
    drawn, weights = spread_cells(populations, population, 16)
    taken = min(16, SIZES[population])
    assert set(numbers(drawn)) <= set(np.flatnonzero(labels == population))
    assert len(set(numbers(drawn[:taken]))) == taken
    np.testing.assert_allclose(weights, np.where(np.arange(16) < taken, 1 / taken, 0), rtol=1e-6)


def test_spread_cells_reach_over_the_whole_population(populations, labels):
    ranks = np.searchsorted(np.flatnonzero(labels == 4), numbers(spread_cells(populations, 4, 16)[0]))
    np.testing.assert_allclose(np.diff(ranks), 100 / 16, atol=1)
    assert ranks[0] == 0
    assert ranks[-1] >= 100 - 100 / 16 - 1


def test_spread_cells_of_an_atlas_do_not_overflow(populations):
    huge = populations._replace(start=jnp.zeros(1, jnp.int32), size=jnp.array([2_000_000_000]))
    # Rows beyond the cells at hand are clamped to the last, as long as they are not negative.
    drawn, _ = spread_cells(huge, 0, 2_048)
    assert len(set(numbers(drawn[1:]))) == 1


@given(st.integers(0, 10**9), st.integers(0, 10**6))
def test_padded_size_is_monotone_and_adds_at_most_a_quarter(n, more):
    padded = _populations.padded_size(n)
    assert n <= padded <= 1.25 * n
    assert padded <= _populations.padded_size(n + more)
    assert _populations.padded_size(padded) == padded


def test_padded_sizes_are_few():
    assert len({_populations.padded_size(n) for n in range(1, 1_000_001)}) < 80


def test_pad_rows_appends_zeros():
    array = np.ones((9, 2), np.float32)
    padded = _populations.pad_rows(array)
    assert padded.shape == (10, 2)
    np.testing.assert_array_equal(padded[:9], array)
    np.testing.assert_array_equal(padded[9:], 0)


def test_padding_changes_nothing(populations):
    more = populations._replace(
        cells=jnp.pad(populations.cells, [(0, 30), (0, 0)], constant_values=np.nan),
        start=jnp.pad(populations.start, (0, 3), constant_values=len(populations.cells)),
        size=jnp.pad(populations.size, (0, 3), constant_values=30),
    )
    key = jax.random.key(0)
    for population in range(len(SIZES)):
        np.testing.assert_array_equal(
            sample_cells(key, more, population, 50), sample_cells(key, populations, population, 50)
        )
        for got, expected in zip(*(spread_cells(p, population, 16) for p in (more, populations)), strict=True):
            np.testing.assert_array_equal(got, expected)
