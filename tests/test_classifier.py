import numpy as np
import optax
import pytest
from scipy import special, stats
from scipy.optimize import approx_fprime, minimize
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from scgap import _classifier
from scgap._classifier import comp_sum_loss, fit_weights, mann_whitney, quadratic_features, two_sample_test

TAUS = (1.0, 1.5, 2.0)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_tau_one_is_the_cross_entropy(generator):
    logits, labels = generator.normal(0.0, 5.0, (200, 4)), generator.integers(0, 4, 200)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(comp_sum_loss(logits, labels, 1.0), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.2, 1.7, 2.0, 3.0])
def test_the_family_as_it_is_written_in_the_paper(generator, tau):
    logits, labels = generator.normal(size=(50, 3)), generator.integers(0, 3, 50)
    own = logits[np.arange(50), labels]
    u = np.exp(logits - own[:, None]).sum(1) - 1.0
    expected = ((1 + u) ** (1 - tau) - 1) / (1 - tau)
    np.testing.assert_allclose(comp_sum_loss(logits, labels, tau), expected, rtol=1e-12)
    if tau == 2.0:
        np.testing.assert_allclose(expected, 1.0 - 1.0 / (1.0 + u))  # 1 - p


@pytest.mark.parametrize("tau", [1.0, 1.0 + 1e-9])
def test_tau_near_one_is_continuous(generator, tau):
    logits, labels = generator.normal(size=(50, 3)), generator.integers(0, 3, 50)
    np.testing.assert_allclose(comp_sum_loss(logits, labels, tau), comp_sum_loss(logits, labels, 1.0), rtol=1e-7)


def test_large_margins_are_safe():
    logits = np.array([[1e5, -1e5, 0.0], [-1e5, 1e5, 0.0]])
    for tau, loss in ((1.0, 2e5), (1.5, 2.0), (2.0, 1.0)):
        np.testing.assert_allclose(comp_sum_loss(logits, np.array([0, 0]), tau), [0.0, loss])


@pytest.mark.parametrize("tau", TAUS)
def test_slopes_against_numerical_ones(generator, tau):
    margins = generator.normal(0.0, 3.0, 40)

    def loss(values):
        return comp_sum_loss(np.stack([values, np.zeros(40)], axis=1), np.zeros(40, int), tau)

    step = 1e-5
    numerical = (loss(margins + step) - loss(margins - step)) / (2 * step)
    np.testing.assert_allclose(_classifier._slope(margins, tau), numerical, atol=1e-9)


@pytest.mark.parametrize("tau", TAUS)
def test_a_fit_ends_where_the_loss_is_flat(generator, monkeypatch, tau):
    monkeypatch.setattr(_classifier, "TOLERANCE", 1e-12)
    features, is_other = overlapping(generator, 40, 90)
    share = np.where(is_other, 0.5 / 90, 0.5 / 40)
    both = np.where(is_other, 1, 0)

    def objective(weights):
        logits = np.stack([np.zeros(130), features @ weights], axis=1)
        return share @ comp_sum_loss(logits, both, tau) + 0.025 * (weights[1:] ** 2).sum()

    weights = fit_weights(features, is_other, tau, ridge=0.05)
    np.testing.assert_allclose(approx_fprime(weights, objective, 1e-7), 0.0, atol=1e-5)
    # And not on a plateau of a loss that is not convex.
    assert objective(weights) <= minimize(objective, fit_weights(features, is_other, 1.0, ridge=0.05)).fun + 1e-6


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_tau_one_against_sklearn(generator, monkeypatch, ridge):
    monkeypatch.setattr(_classifier, "TOLERANCE", 1e-8)
    one, other = generator.gamma(2.0, size=(150, 6)), generator.gamma(2.5, size=(80, 6))
    features, is_other = quadratic_features(np.concatenate([one, other])), np.arange(230) >= 150
    weights = fit_weights(features, is_other, 1.0, ridge)
    share = np.where(is_other, 0.5 / 80, 0.5 / 150)
    model = LogisticRegression(C=1.0 / ridge, tol=1e-8, max_iter=1_000).fit(features[:, 1:], is_other, share)
    np.testing.assert_allclose(weights, [*model.intercept_, *model.coef_[0]], atol=2e-3)
    np.testing.assert_allclose(features @ weights, model.decision_function(features[:, 1:]), atol=5e-3)


@pytest.mark.parametrize(("n", "m", "cells"), [(80, 80, 160), (300, 60, 200)])
def test_the_penalty_grows_with_the_features_per_cell(generator, n, m, cells):
    features, is_other = overlapping(generator, n, m)
    # 300 and 60 cells tell means apart as precisely as 100 and 100: 4 / (1 / 300 + 1 / 60) = 200.
    expected = fit_weights(features, is_other, 1.0, ridge=_classifier.RIDGE * 3 / cells)
    np.testing.assert_allclose(fit_weights(features, is_other, 1.0), expected, rtol=1e-12)
    assert (np.abs(expected[1:]) > np.abs(fit_weights(features, is_other, 1.0, ridge=1.0)[1:])).all()


def test_labels_that_can_be_told_apart_without_error_do_not_make_it_diverge():
    features = np.stack([np.ones(20), np.repeat([-1.0, 1.0], 10)], axis=1)
    is_other = np.repeat([False, True], 10)
    for tau in TAUS:
        weights = fit_weights(features, is_other, tau, ridge=1e-6)
        assert np.isfinite(weights).all()
        assert ((features @ weights > 0) == is_other).all()


def noisy_accuracy(tau, noise, seed, n=100, n_features=50, distance=5.0):
    """On clean cells, of a fit in which ``noise`` of the cells labelled as perturbed are controls."""
    rng = np.random.default_rng(seed)

    def cells(is_moved):
        values = rng.normal(size=(len(is_moved), n_features))
        values[:, 0] += distance * is_moved
        return np.column_stack([np.ones(len(values)), values])

    labels = np.repeat([False, True], n)
    truth = labels.copy()
    truth[n : n + round(noise * n)] = False
    # Half as many features as cells, under a light penalty: cross-entropy learns the wrong labels by heart.
    weights = fit_weights(cells(truth), labels, tau, ridge=0.01)
    test = np.repeat([False, True], 2_000)
    return ((cells(test) @ weights > 0) == test).mean()


def test_wrong_labels_matter_less_with_a_larger_tau():
    noisy, clean = (
        [np.mean([noisy_accuracy(tau, noise, seed) for seed in range(10)]) for tau in (1.0, 1.7, 2.0)]
        for noise in (0.3, 0.0)
    )
    assert noisy[1] > noisy[0] + 0.03
    assert noisy[2] > noisy[1] + 0.02
    assert np.ptp(clean) < 0.002
    assert min(clean) > 0.98


@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_mann_whitney_against_sklearn_and_scipy(generator, levels):
    one, other = generator.integers(0, levels, 30) / levels, generator.integers(0, levels, 47) / levels + 0.2
    auc, z = mann_whitney(one, other)
    assert auc == pytest.approx(roc_auc_score(np.repeat([0, 1], [30, 47]), np.concatenate([one, other])), abs=1e-12)
    options = {"alternative": "greater", "method": "asymptotic", "use_continuity": False}
    assert stats.norm.sf(z) == pytest.approx(stats.mannwhitneyu(other, one, **options).pvalue, rel=1e-9)


def test_mann_whitney_of_scores_that_all_tie():
    assert mann_whitney(np.zeros(5), np.zeros(7)) == (0.5, 0.0)


@pytest.mark.parametrize("shape", [(120, 12), (40, 90)])
def test_components_against_sklearn(generator, shape):
    cells = generator.normal(size=shape) @ generator.normal(size=(shape[1], shape[1]))
    scaled = (cells - cells.mean(0)) / cells.std(0)
    expected = PCA(min(39, shape[1])).fit_transform(scaled)
    expected /= expected.std(0)
    features = quadratic_features(cells)
    found = features[:, 1 : 1 + expected.shape[1]]
    overlap = np.abs((found * expected).mean(0))
    assert (overlap > 0.99).all()  # clipped, and their signs are arbitrary
    assert features.shape[1] == 1 + expected.shape[1] + 55
    np.testing.assert_allclose(features[:, 0], 1.0)
    np.testing.assert_allclose(features[:, 1:].mean(0), 0.0, atol=1e-10)


@pytest.mark.parametrize("tau", TAUS)
def test_scores_are_probabilities_of_held_out_cells(generator, tau):
    one, other = generator.normal(size=(300, 8)), generator.normal(size=(100, 8))
    other[:, 0] += 3.0
    found = two_sample_test(one, other, tau=tau)
    assert found.scores_one.shape == (300,)
    assert found.scores_other.shape == (100,)
    assert found.p_value < 1e-20
    # Balanced, though there are three times as many of the one.
    assert (found.scores_one > 0.5).mean() < 0.12
    assert (found.scores_other > 0.5).mean() > 0.8
    scores = np.concatenate([found.scores_one, found.scores_other])
    assert 0.0 <= scores.min() < scores.max() <= 1.0
    assert roc_auc_score(np.repeat([0, 1], [300, 100]), scores) == pytest.approx(found.auc, abs=0.01)


@pytest.mark.parametrize(("n", "m"), [(1_000, 1_000), (3_000, 600)])
@pytest.mark.parametrize("tau", TAUS)
def test_scores_of_many_cells_are_frequencies(generator, n, m, tau):
    one, other = generator.normal(size=(n, 8)), generator.normal(size=(m, 8))
    other[:, 0] += 3.0
    found = two_sample_test(one, other, tau=tau)
    scores = np.concatenate([found.scores_one, found.scores_other])
    true = special.expit(3.0 * np.concatenate([one, other])[:, 0] - 4.5)  # from the two normal densities
    share, is_other = np.repeat([0.5 / n, 0.5 / m], [n, m]), np.arange(n + m) >= n
    assert share @ np.abs(scores - true) < 0.1
    for low in np.arange(5) / 5:
        some = (scores >= low) & (scores < low + 0.2)
        mean = np.average(scores[some], weights=share[some])
        assert np.average(is_other[some], weights=share[some]) == pytest.approx(mean, abs=0.2)


def test_no_cell_scores_itself(generator):
    # Noise of more features than cells is learnt by heart; held out, it says nothing.
    found = [two_sample_test(*generator.normal(size=(2, 20, 60)), seed=seed).auc for seed in range(100)]
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found) / 10


def test_the_seed_decides(generator):
    one, other = generator.normal(size=(2, 50, 5))
    first, again, third = (two_sample_test(one, other, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.scores_one, again.scores_one)
    assert first.auc == again.auc
    assert (first.scores_one != third.scores_one).any()


def test_units_and_constant_features_do_not_matter(generator):
    one, other = generator.normal(size=(2, 60, 5))
    other += 0.5
    units = 10.0 ** np.arange(-2, 3)
    expected = two_sample_test(one, other)
    more = [np.column_stack([cells * units + 7.0, np.full(60, 1e4 / 3)]) for cells in (one, other)]
    np.testing.assert_allclose(two_sample_test(*more).scores_other, expected.scores_other, rtol=1e-6)


def test_cells_that_are_all_the_same_are_alike():
    found = two_sample_test(np.ones((8, 3)), np.ones((9, 3)))
    assert found.auc == 0.5
    assert found.p_value == 0.5
    np.testing.assert_allclose(found.scores_other, 0.5)


def test_components_as_input_are_not_mixed_into_arbitrary_ones(generator):
    # Of standardised components none is larger than another: the means of all are compared.
    one, other = generator.normal(size=(2, 300, 50))
    other[:, 30] += 1.5
    assert two_sample_test(one, other).auc > 0.75


def counterfeits(rng, n, d):
    """A sampler of correlated cells, and samplers of what is not the same."""
    loadings = rng.normal(size=(d, 4))
    covariance = 0.5 * loadings @ loadings.T + np.eye(d)
    root = np.linalg.cholesky(covariance)

    def sample():
        return rng.normal(size=(n, d)) @ root.T

    return sample, {
        "collapse": lambda: np.repeat(sample().mean(0)[None], n, axis=0),
        "shrunk by 20 %": lambda: 0.8 * sample(),
        "inflated by 20 %": lambda: 1.2 * sample(),
        "wrong covariance": lambda: np.column_stack([rng.permutation(column) for column in sample().T]),
        "shift of one feature": lambda: sample() + np.where(np.arange(d) == 3, 1.0, 0.0),
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "name", ["collapse", "shrunk by 20 %", "inflated by 20 %", "wrong covariance", "shift of one feature"]
)
def test_counterfeits_are_found(name, seed):
    sample, others = counterfeits(np.random.default_rng(seed), 600, 30)
    assert two_sample_test(sample(), others[name](), seed=seed).p_value < 0.01


def rejected(n, m, d, tau, n_repetitions):
    """How often the test rejects at level .05, of skewed, correlated cells of one distribution."""
    rng = np.random.default_rng([n, m, d])
    mixing = 0.6 * np.eye(d) + rng.normal(size=(d, d)) / np.sqrt(d) / 2

    def sample(size):
        return np.exp(0.8 * rng.normal(size=(size, d)) @ mixing)

    found = [two_sample_test(sample(n), sample(m), tau=tau, seed=i).p_value for i in range(n_repetitions)]
    return np.mean(np.array(found) < 0.05)


def test_the_level_is_right_in_a_few_repetitions():
    assert 0.015 <= rejected(50, 50, 10, 1.0, 400) <= 0.085  # .05 within 3 standard errors


@pytest.mark.slow
@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize(("n", "m", "d"), [(100, 100, 50), (100, 100, 5), (300, 60, 30), (30, 30, 20), (50, 50, 100)])
def test_the_level_is_right(n, m, d, tau):
    assert 0.03 <= rejected(n, m, d, tau, 2_000) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize(("n", "d"), [(100, 1), (100, 2), (200, 3)])
def test_of_few_features_the_test_is_conservative(n, d, tau):
    assert 0.015 <= rejected(n, n, d, tau, 2_000) <= 0.045


def overlapping(rng, n, m):
    features = np.column_stack([np.ones(n + m), rng.normal(size=(n + m, 3))])
    is_other = np.arange(n + m) >= n
    features[is_other, 1] += 1.0
    return features, is_other
