import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scgap._mixture import draw_mixture


def numbered(*sizes):
    """Populations of one feature, a number for each cell: 1_000 times that of its population, and its own."""
    return [1_000.0 * i + np.arange(size, dtype=np.float32)[:, None] for i, size in enumerate(sizes)]


def drawn(sizes, shares, n_cells, seed=0):
    """How often each cell was drawn, population by population."""
    cells = draw_mixture(numbered(*sizes), shares, n_cells, np.random.default_rng(seed)).ravel().astype(int)
    assert len(cells) == n_cells
    return [np.bincount(cells[cells // 1_000 == i] % 1_000, minlength=size) for i, size in enumerate(sizes)]


sizes = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(sizes, st.data(), st.integers(0, 60), st.integers(0, 9))
def test_shares_are_kept_to_within_one_cell_and_twins_come_last(sizes, data, n_cells, seed):
    shares = data.draw(st.lists(st.floats(0.1, 10.0), min_size=len(sizes), max_size=len(sizes)))
    for counts, share in zip(drawn(sizes, shares, n_cells, seed), shares, strict=True):
        assert abs(counts.sum() - n_cells * share / sum(shares)) < 1 + 1e-9
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("sizes", "n_cells"), [((5, 50), 20), ((7, 7, 7, 7), 2), ((20,), 5), ((1, 3), 10)])
def test_every_cell_of_a_population_is_as_likely(sizes, n_cells):
    shares = np.arange(1.0, len(sizes) + 1)
    counts = [drawn(sizes, shares, n_cells, seed) for seed in range(2_000)]
    for i, size in enumerate(sizes):
        mean = np.mean([one[i] for one in counts], axis=0)
        expected = n_cells * shares[i] / shares.sum() / size
        error = np.std([one[i] for one in counts], axis=0) / np.sqrt(2_000) + 1e-9
        assert (np.abs(mean - expected) < 4.5 * error).all()


def test_the_order_of_cells_says_nothing_of_their_population():
    cells = draw_mixture(numbered(300, 300), [1.0, 1.0], 400, np.random.default_rng(0)).ravel()
    assert stats.ttest_ind(np.flatnonzero(cells < 1_000), np.flatnonzero(cells >= 1_000)).pvalue > 0.01
    assert (np.diff(cells[cells < 1_000]) < 0).sum() > 50


def test_few_cells_of_many_populations_are_not_always_from_the_same():
    chosen = {tuple(counts.sum() for counts in drawn([3] * 10, [1.0] * 10, 2, seed)) for seed in range(200)}
    assert len(chosen) > 40  # of the 45 pairs


def test_a_generator_decides_and_inputs_stay():
    populations = numbered(30, 40)
    one, again, other = (draw_mixture(populations, [1.0, 2.0], 25, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert one.dtype == np.float32
    for population, before in zip(populations, numbered(30, 40), strict=True):
        np.testing.assert_array_equal(population, before)
