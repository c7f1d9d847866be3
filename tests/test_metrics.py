import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import rbf_kernel

from scgap import _metrics
from scgap._metrics import (
    MOMENTS,
    Distances,
    centroid_accuracy,
    correlation_error,
    correlations,
    energy_distance,
    kurtosis,
    kurtosis_error,
    mean_error,
    mmd,
    pairwise_distances,
    pearson,
    r2,
    skewness,
    skewness_error,
    std_error,
    variance_ratio,
    varies,
    wasserstein,
    weighted_mse,
    zero_fraction_error,
)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def distances(x, y):
    return Distances(pairwise_distances(x, y), pairwise_distances(x, x), pairwise_distances(y, y))


def distance(a, b):
    return np.sqrt(((a - b) ** 2).sum())


def test_pairwise_distances_against_a_double_loop(generator, monkeypatch):
    x, y = generator.normal(1e4, 1.0, size=(7, 3)), generator.normal(1e4, 2.0, size=(5, 3))  # far from the origin
    expected = [[distance(a, b) for b in y] for a in x]
    np.testing.assert_allclose(pairwise_distances(x, y), expected, rtol=1e-6)
    monkeypatch.setattr(_metrics, "CHUNK", 2)  # rows at once must not matter
    np.testing.assert_allclose(pairwise_distances(x, y), expected, rtol=1e-6)
    assert (np.diag(pairwise_distances(x, x)) == 0).all()


def test_energy_distance_against_a_double_loop(generator):
    x, y = generator.normal(size=(7, 3)), generator.normal(0.5, 2.0, size=(5, 3))
    between = np.mean([distance(a, b) for a in x for b in y])
    within_x = np.mean([distance(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    within_y = np.mean([distance(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    expected = 2 * between - within_x - within_y
    assert energy_distance(distances(x, y)) == pytest.approx(expected, rel=1e-5)


def test_energy_distance_against_scipy_in_one_dimension(generator):
    x, y = generator.normal(size=400), generator.normal(1.0, 1.5, size=400)
    # scipy's is the root of the biased one, which counts each cell's zero distance to itself.
    biased = stats.energy_distance(x, y) ** 2
    correction = sum(np.abs(z[:, None] - z).sum() * (1 / (400 * 399) - 1 / 400**2) for z in (x, y))
    assert energy_distance(distances(x[:, None], y[:, None])) == pytest.approx(biased - correction, rel=1e-5)


def test_mmd_against_the_kernels_of_scikit_learn(generator, monkeypatch):
    monkeypatch.setattr(_metrics, "CHUNK", 4)
    x, y = generator.normal(size=(9, 3)), generator.normal(0.5, 2.0, size=(6, 3))
    expected = []
    for h in (0.5, 2.0):
        xx, yy, xy = (rbf_kernel(a, b, gamma=0.5 / h**2) for a, b in ((x, x), (y, y), (x, y)))
        within = sum((k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy))
        expected.append(within - 2 * xy.mean())
    assert mmd(distances(x, y), [0.5, 2.0]) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("metric", [energy_distance, lambda d: mmd(d, [1.0, 3.0])])
def test_unbiased_distances_are_zero_on_average_for_the_same_distribution(generator, metric):
    scores = [metric(distances(*generator.normal(size=(2, 50, 4)))) for _ in range(200)]
    assert abs(np.mean(scores)) < 3 * np.std(scores) / np.sqrt(200)
    assert min(scores) < 0


@pytest.mark.parametrize("n_target", [40, 60])
def test_wasserstein_against_scipy_feature_by_feature(generator, n_target):
    x, y = generator.gamma(1.0, size=(40, 4)), generator.gamma(3.0, size=(n_target, 4))
    expected = np.mean([stats.wasserstein_distance(x[:, j], y[:, j]) for j in range(4)])
    assert wasserstein(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("error", "statistic"),
    [
        (mean_error, lambda column: sum(column) / len(column)),
        (std_error, lambda column: np.sqrt(sum((v - sum(column) / len(column)) ** 2 for v in column) / len(column))),
        (skewness_error, stats.skew),
        (kurtosis_error, stats.kurtosis),
    ],
)
def test_moment_errors_feature_by_feature(generator, error, statistic):
    predicted, observed = generator.gamma(1.0, size=(30, 4)), generator.gamma(3.0, size=(40, 4))
    expected = np.mean([abs(statistic(predicted[:, j]) - statistic(observed[:, j])) for j in range(4)])
    assert error(predicted, observed) == pytest.approx(expected, rel=1e-10)
    assert error(observed, observed) == 0.0


def test_moments_of_float32_lose_no_digits(generator):
    # Far from 0, where single precision would see other spreads.
    cells = (generator.gamma(1.0, size=(2_000, 3)) + 1_000.0).astype(np.float32)
    exact = cells.astype(np.float64)
    assert std_error(cells, exact) == 0.0
    np.testing.assert_array_equal(skewness(cells), skewness(exact))
    np.testing.assert_array_equal(kurtosis(cells), kurtosis(exact))
    np.testing.assert_array_equal(correlations(cells), correlations(exact))


@pytest.mark.parametrize("moment", [skewness, kurtosis])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_constant_features_have_no_shape(generator, moment, value):
    cells = generator.gamma(1.0, size=(50, 3))
    expected = moment(cells)
    cells[:, 1] = value
    found = moment(cells)  # and no warning of lost digits, which would be an error
    assert found[1] == 0.0
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


def test_correlations_against_numpy(generator, monkeypatch):
    x, y = (generator.normal(size=(50, 4)) @ generator.normal(size=(4, 4)) for _ in range(2))
    pairs = np.triu_indices(4, 1)
    one, other = (np.corrcoef(cells, rowvar=False) for cells in (x, y))
    np.testing.assert_allclose(correlations(x), one[pairs])
    assert correlation_error(x, y) == pytest.approx(np.abs(one - other)[pairs].mean())
    x[:, 1] = 3.0
    assert (correlations(x)[[0, 3, 4]] == 0).all()
    monkeypatch.setattr(_metrics, "MOST_CORRELATED", 2)  # those that vary most in the target
    most = np.argsort(-y.var(0))[:2]
    assert correlation_error(x, y) == pytest.approx(np.abs(correlations(x[:, most]) - correlations(y[:, most]))[0])


def test_correlations_of_features_that_are_constant_in_the_target_are_left_out(generator):
    x, y = (generator.normal(size=(50, 4)) @ generator.normal(size=(4, 4)) for _ in range(2))
    expected = correlation_error(x[:, [0, 1, 3]], y[:, [0, 1, 3]])
    y[:, 2] = 7.0
    assert correlation_error(x, y) == pytest.approx(expected)
    # In mapped cells a constant feature is collapse: as wrong as if it were uncorrelated.
    collapsed = np.full_like(x, 5.0)
    pairs = np.abs(correlations(y[:, [0, 1, 3]]))
    assert correlation_error(collapsed, y) == pytest.approx(pairs.mean())


@pytest.mark.parametrize("n_varying", [0, 1])
def test_without_two_varying_features_there_is_no_correlation_error(generator, n_varying):
    y = np.ones((50, 4))
    y[:, :n_varying] = generator.normal(size=(50, n_varying))
    assert np.isnan(correlation_error(generator.normal(size=(50, 4)), y))


def test_features_vary_by_more_than_rounding(generator):
    cells = np.full((50, 4), 0.1, np.float32)
    cells[:, 1] = generator.normal(1e3, 1e-5, 50)  # float32 keeps 4 digits behind the point
    cells[:, 2] = generator.normal(1e3, 1.0, 50)
    cells[:, 3] = 0.0
    assert varies(cells).tolist() == [False, False, True, False]


def test_variance_ratio_of_known_spreads(generator):
    y = generator.normal(size=(30, 4))
    assert variance_ratio(3.0 * y + 5.0, y) == pytest.approx(9.0)
    assert variance_ratio(np.ones_like(y), y) == 0.0


def test_zero_fraction_error_counts_zeros():
    mapped, target = np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[0.0, 0.0], [3.0, 0.0]])
    assert zero_fraction_error(mapped, target) == 0.75  # halves against one, none against all


def test_r2_against_scikit_learn(generator):
    x, y, origin = (
        generator.normal(size=(20, 6)),
        generator.normal(size=(30, 6)) + np.arange(6),
        generator.normal(size=6),
    )
    assert r2(x, y) == pytest.approx(r2_score(y.mean(0), x.mean(0)))
    assert r2(x, y, origin) == pytest.approx(r2_score(y.mean(0) - origin, x.mean(0) - origin))
    assert r2(y, y, origin) == 1.0


def test_pearson_against_scipy(generator):
    x, y, origin = generator.normal(size=(20, 6)), generator.normal(size=(30, 6)), generator.normal(size=6)
    assert pearson(x, y, origin) == pytest.approx(stats.pearsonr(x.mean(0) - origin, y.mean(0) - origin).statistic)
    assert pearson(3.0 * (y - origin) + origin, y, origin) == pytest.approx(1.0)  # blind to size


def test_weighted_mse_of_known_means():
    mapped, target = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[0.0, 4.0], [0.0, 4.0]])
    assert weighted_mse(mapped, target, np.array([0.75, 0.25])) == pytest.approx(0.75 * 4 + 0.25 * 1)


def test_centroid_accuracy_counts_farther_means():
    target, others = np.full((2, 1), 1.0), np.array([[0.0], [3.0], [4.0], [5.0]])
    assert centroid_accuracy(np.array([[0.9], [1.1]]), target, others) == 1.0
    assert centroid_accuracy(np.full((2, 1), 2.6), target, others) == 0.5  # of 3 and 4 nearer, 0 and 5 farther
    assert centroid_accuracy(np.full((2, 1), 2.0), target, others) == pytest.approx((2 + 1 + 0.5) / 4)  # 3 ties


def test_moments_are_known_by_the_names_of_their_errors():
    assert all(hasattr(_metrics, f"{name}_error") for name in MOMENTS)
