import numpy as np
import pytest
from scipy import stats

from scgap import _metrics
from scgap._metrics import (
    METRICS,
    MOMENTS,
    energy_distance,
    kurtosis,
    kurtosis_error,
    mean_error,
    skewness,
    skewness_error,
    std_error,
)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_energy_distance_against_a_double_loop(generator, monkeypatch):
    x, y = generator.normal(size=(7, 3)), generator.normal(0.5, 2.0, size=(5, 3))

    def distance(a, b):
        return np.sqrt(((a - b) ** 2).sum())

    between = np.mean([distance(a, b) for a in x for b in y])
    within_x = np.mean([distance(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    within_y = np.mean([distance(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    expected = 2 * between - within_x - within_y
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(_metrics, "CHUNK", 2)  # rows at once must not matter
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_energy_distance_against_scipy_in_one_dimension(generator):
    x, y = generator.normal(size=400), generator.normal(1.0, 1.5, size=400)
    # scipy's is the root of the biased one, which counts each cell's zero distance to itself.
    biased = stats.energy_distance(x, y) ** 2
    correction = sum(np.abs(z[:, None] - z).sum() * (1 / (400 * 399) - 1 / 400**2) for z in (x, y))
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(biased - correction, rel=1e-9)


def test_energy_distance_is_zero_on_average_for_the_same_distribution(generator):
    scores = [energy_distance(*generator.normal(size=(2, 50, 4))) for _ in range(200)]
    assert abs(np.mean(scores)) < 3 * np.std(scores) / np.sqrt(200)
    assert min(scores) < 0


@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_sampler_ranks_first(seed):
    # Skewed, with a rare state: what a mean or a shrunk prediction loses.
    generator = np.random.default_rng(seed)

    def sample():
        cells = generator.gamma(2.0, size=(600, 10))
        cells[:60] += 4.0
        return cells

    observed, perfect = sample(), sample()
    mean = perfect.mean(0)
    wrong = {
        "collapsed on the mean": np.tile(mean, (600, 1)),
        "shrunk by 20 %": mean + 0.8 * (perfect - mean),
        "inflated by 25 %": mean + 1.25 * (perfect - mean),
        "noise added": perfect + generator.normal(size=perfect.shape),
    }
    for metric in (energy_distance, std_error):
        assert all(metric(perfect, observed) < metric(cells, observed) for cells in wrong.values()), metric
    # The collapsed one has the right means: blind to everything else, as documented.
    assert mean_error(wrong["collapsed on the mean"], observed) == pytest.approx(mean_error(perfect, observed))
    assert energy_distance(perfect, observed) < 0.1 * energy_distance(wrong["collapsed on the mean"], observed)


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


@pytest.mark.parametrize("moment", [skewness, kurtosis])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_constant_features_have_no_shape(generator, moment, value):
    cells = generator.gamma(1.0, size=(50, 3))
    expected = moment(cells)
    cells[:, 1] = value
    found = moment(cells)  # and no warning of lost digits, which would be an error
    assert found[1] == 0.0
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("name", METRICS)
def test_all_are_distances(generator, name):
    x = generator.normal(size=(60, 3))
    y = x**2
    assert METRICS[name](x, y) > 0
    assert METRICS[name](x, y) == pytest.approx(METRICS[name](y, x))


def test_moments_are_known_by_the_names_of_their_errors():
    assert [f"{name}_error" for name in MOMENTS] == [name for name in METRICS if name != "energy_distance"]
