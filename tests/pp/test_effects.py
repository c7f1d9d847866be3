import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from scgap.pp import _effects

GROUPS = [("one",), ("two",)]


def exact(x, y):
    """Optimal transport between batches of one size, by assignment."""
    costs = cdist(x, y)
    return costs[linear_sum_assignment(costs)].mean()


@pytest.fixture
def drawn():
    """Points, populations and samples: three perturbations in two groups, larger than two batches and smaller."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 3)).astype(np.float32)
    points[50:] += 2.0
    rows = np.split(rng.permutation(200), [50, 100, 130])
    names = [("A", GROUPS[0]), ("A", GROUPS[1]), ("B", GROUPS[0]), ("C", GROUPS[1])]
    populations = dict(zip(names, rows, strict=True))
    return points, populations, _effects.draw_samples(points, populations, GROUPS, n_cells=20, seed=0)


def batch(samples, population, half):
    return np.asarray(samples.cells[population, half])[np.asarray(samples.weights[population]) > 0]


def test_batches_have_no_cell_in_common(drawn):
    points, populations, samples = drawn
    assert samples.perturbation.tolist() == ["A", "A", "B", "C"]
    assert samples.group.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(samples.weights.sum(1), 1.0, rtol=1e-6)
    for i, (rows, size) in enumerate(zip(populations.values(), (20, 20, 15, 20), strict=True)):
        cells = np.concatenate([batch(samples, i, half) for half in (0, 1)])
        assert len(np.unique(cells, axis=0)) == 2 * size
        assert {*map(tuple, cells)} <= {*map(tuple, points[rows])}


def test_the_kind_of_matrix_does_not_matter(drawn):
    points, populations, samples = drawn
    again = _effects.draw_samples(sparse.csr_matrix(points), populations, GROUPS, n_cells=20, seed=0)
    np.testing.assert_array_equal(again.cells, samples.cells)


def test_divergences_are_those_of_exact_transport(drawn):
    _, _, samples = drawn
    epsilon = 0.002
    own = _effects.self_costs(samples, epsilon)
    generator = np.random.default_rng(0)
    dealt = [samples._replace(cells=_effects.deal(samples, generator)) for _ in range(_effects.N_HALVINGS)]
    expected = [[exact(batch(again, i, 0), batch(again, i, 1)) for i in range(4)] for again in dealt]
    np.testing.assert_allclose(own, np.mean(expected, axis=0), rtol=0.03)
    for i in range(4):  # the same cells, dealt anew
        one, other = (np.concatenate([batch(which, i, 0), batch(which, i, 1)]) for which in (samples, dealt[0]))
        np.testing.assert_array_equal(np.unique(one, axis=0), np.unique(other, axis=0))
        assert (one != other).any()
    found = _effects.divergences(samples, own, samples, own, epsilon)
    assert found.index.tolist() == found.columns.tolist() == ["A", "B", "C"]
    # Batches of one size, which an assignment takes.
    cross = np.mean([exact(batch(samples, 1, half), batch(samples, 3, half)) for half in (0, 1)])
    np.testing.assert_allclose(found.loc["A", "C"], max(cross - own[[1, 3]].mean(), 0), atol=0.03)
    assert np.isnan(found.loc["B", "C"])  # no common group
    np.testing.assert_array_equal(np.isnan(found), [[True, False, False], [True] * 3, [True] * 3])


def test_groups_are_averaged():
    rng = np.random.default_rng(0)
    cells = jnp.asarray(rng.normal(size=(4, 2, 10, 2)) * 0.01, jnp.float32)
    cells = cells.at[2].add(jnp.array([1.0, 0.0])).at[3].add(jnp.array([0.0, 3.0]))
    samples = _effects.Samples(np.array(list("AABB"), object), np.array([0, 1, 0, 1]), cells, jnp.full((4, 10), 0.1))
    own = _effects.self_costs(samples, 0.1)
    assert _effects.divergences(samples, own, samples, own, 0.1).loc["A", "B"] == pytest.approx(2.0, abs=0.03)


def test_samples_of_one_distribution_are_near_zero():
    points = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    populations = {(f"p{i}", ()): np.arange(40 * i, 40 * (i + 1)) for i in range(15)}
    samples = _effects.draw_samples(points, populations, [()], n_cells=20, seed=0)
    epsilon = 0.05 * _effects.mean_cost_within(samples)
    assert _effects.mean_cost_within(samples) == pytest.approx(cdist(points, points).mean(), rel=0.02)
    own = _effects.self_costs(samples, epsilon)
    found = _effects.divergences(samples, own, samples, own, epsilon).to_numpy()
    assert np.nanmean(found) < 0.1 * own.mean()  # sampling costs this much, and would be taken for an effect
