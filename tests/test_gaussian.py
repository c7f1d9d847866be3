import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import costs
from scipy.linalg import sqrtm, subspace_angles
from sklearn.decomposition import PCA

from scgap._gaussian import MAX_FEATURES, N_CELLS, Gaussian, fit_gaussian, gaussian_map, make_basis


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def covariance(generator, n):
    root = generator.normal(size=(n, n))
    return root @ root.T / n


def test_the_map_against_the_formula_by_scipy(generator):
    first, second = (covariance(generator, 6) for _ in range(2))
    root = sqrtm(first)
    inverse = np.linalg.inv(root)
    expected = inverse @ sqrtm(root @ second @ root) @ inverse
    found = gaussian_map(Gaussian(np.zeros(6), first), Gaussian(np.zeros(6), second))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found @ first @ found, second, rtol=1e-8, atol=1e-8)  # pushes the one to the other


def test_the_cost_of_the_map_is_the_bures_distance_of_ott(generator):
    first, second = (covariance(generator, 5) for _ in range(2))
    matrix = gaussian_map(Gaussian(np.zeros(5), first), Gaussian(np.zeros(5), second))
    rest = matrix - np.eye(5)
    points = [jnp.concatenate([jnp.zeros(5), jnp.asarray(root, jnp.float32).ravel()]) for root in (first, second)]
    assert np.trace(rest @ first @ rest) == pytest.approx(float(costs.Bures(5)(*points)), rel=0.01)


def test_the_map_of_diagonal_covariances_stretches_each_feature():
    found = gaussian_map(Gaussian(np.zeros(2), np.diag([1.0, 4.0])), Gaussian(np.zeros(2), np.diag([9.0, 1.0])))
    np.testing.assert_allclose(found, np.diag([3.0, 0.5]), atol=1e-12)


@pytest.mark.parametrize("rank", [0, 2])
def test_where_the_source_is_constant_nothing_is_stretched(generator, rank):
    directions = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    first = directions[:, :rank] @ directions[:, :rank].T
    found = gaussian_map(Gaussian(np.zeros(5), first), Gaussian(np.zeros(5), covariance(generator, 5)))
    np.testing.assert_allclose(found @ directions[:, rank:], directions[:, rank:], atol=1e-10)


def test_shrinkage_comes_closer_to_the_truth(generator):
    # Nearly as close as the best share, found from many samples and a truth that only this test knows.
    n, n_cells = 8, 40
    truth = covariance(generator, n)
    prior = Gaussian(np.zeros(n), 0.6 * truth + 0.4 * covariance(generator, n))
    root = np.linalg.cholesky(truth)
    basis = np.eye(n)

    def samples():
        return (generator.normal(size=(n_cells, n)) @ root.T for _ in range(300))

    def error(covariances):
        return np.mean([((found - truth) ** 2).sum() for found in covariances])

    raw = [np.cov(cells.T) for cells in samples()]
    shares = np.linspace(0, 1, 101)
    best = min(error([share * prior.covariance + (1 - share) * found for found in raw]) for share in shares)
    found = error([fit_gaussian(cells, basis, prior).covariance for cells in samples()])
    assert best < 0.9 * error(raw)
    assert found < (best + error(raw)) / 2


def test_many_cells_are_hardly_shrunk(generator):
    cells = generator.normal(size=(20_000, 4)) @ generator.normal(size=(4, 4)) + 3.0
    for prior in (None, Gaussian(np.zeros(4), np.eye(4))):
        found = fit_gaussian(cells, np.eye(4), prior)
        np.testing.assert_allclose(found.mean, cells.mean(0))
        np.testing.assert_allclose(found.covariance, np.cov(cells.T), rtol=0.01, atol=0.01)


def test_one_cell_has_the_covariance_of_its_controls(generator):
    prior = Gaussian(np.zeros(3), covariance(generator, 3))
    found = fit_gaussian(np.ones((1, 3)), np.eye(3), prior)
    np.testing.assert_array_equal(found.mean, np.ones(3))
    np.testing.assert_array_equal(found.covariance, prior.covariance)
    np.testing.assert_array_equal(fit_gaussian(np.ones((1, 3)), np.eye(3)).covariance, np.zeros((3, 3)))


def test_fewer_controls_than_features_keep_their_variances_and_full_rank(generator):
    cells = generator.normal(size=(10, 30))
    found = fit_gaussian(cells, np.eye(30)).covariance
    np.testing.assert_allclose(found.diagonal(), cells.var(0, ddof=1))
    assert np.linalg.eigvalsh(found).min() > 0.01


def test_covariances_far_from_zero_lose_no_digits(generator):
    cells = generator.normal(size=(500, 3)).astype(np.float32) + np.float32(1_000.0)
    exact = np.cov(cells.astype(np.float64).T)
    np.testing.assert_allclose(fit_gaussian(cells, make_basis([cells])).covariance.diagonal(), exact.diagonal())


def test_few_features_are_directions_as_they_are(generator):
    np.testing.assert_array_equal(make_basis([generator.normal(size=(5, MAX_FEATURES))]), np.eye(MAX_FEATURES))


def test_many_features_have_principal_components(generator):
    n_features = MAX_FEATURES + 50
    scores = generator.normal(size=(400, 3)) * [9.0, 6.0, 3.0]
    cells = scores @ np.linalg.qr(generator.normal(size=(n_features, 3)))[0].T + 5.0
    noisy = (cells + 0.01 * generator.normal(size=cells.shape)).astype(np.float32)
    basis = make_basis([noisy[:300], noisy[300:]])
    assert basis.shape == (n_features, 100)
    np.testing.assert_allclose(basis.T @ basis, np.eye(100), atol=1e-4)
    spread = np.concatenate([noisy[:300], noisy[300:]])
    expected = PCA(3).fit(spread).components_
    assert subspace_angles(basis[:, -3:], expected.T).max() < 1e-3


def test_components_of_few_or_constant_or_very_many_populations(generator):
    n_features = MAX_FEATURES + 1
    few = make_basis([generator.normal(size=(3, n_features)), generator.normal(size=(1, n_features))])
    assert few.shape == (n_features, 3)
    assert make_basis([np.ones((5, n_features))]).shape == (n_features, 0)
    many = [generator.normal(size=(1, n_features)) for _ in range(N_CELLS + 200)]
    assert make_basis(many).shape == (n_features, 100)
