"""Metrics on one comparison, and the counterfeits that they have to catch."""

from dataclasses import replace

import numpy as np
import pytest
from ott.geometry import pointcloud
from ott.geometry.costs import Euclidean
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn

from scgap._classifier import two_sample_test
from scgap._comparison import COUNTERFEITS, EPSILONS, GAP_EPSILON, METRICS, Comparison, Target, measure
from scgap._conditions import Condition
from scgap._losses import COSTS, floor_free_monge_gap
from scgap._reference import MANY_FEATURES, N_DIRECTIONS, make_references

N, D = 600, 30
CONDITION = Condition((("A", None),))
OTHER = Condition((("B", None),))
SEEDS = range(5)


class World:
    """Skewed, correlated features: controls, a perturbed population and perfect samples of it."""

    def __init__(self, seed, n=N, d=D):
        self.generator = np.random.default_rng(seed)
        self.n, self.d = n, d
        self.mixing = self.generator.normal(size=(d, d)) / np.sqrt(d) + np.eye(d)
        self.shift = self.generator.normal(size=d)

    def control(self):
        return (self.generator.gamma(2.0, size=(self.n, self.d)) - 2.0) @ self.mixing

    def perturbed(self):
        return 1.2 * self.control() + self.shift

    def target(self):
        training = {Condition(()): self.control(), CONDITION: self.perturbed(), OTHER: self.control() - self.shift}
        observed = {condition: cells.mean(0) for condition, cells in training.items()}
        references = make_references(
            training, observed, [training[Condition(())]], nonnegative=False, generator=self.generator
        )
        return Target(self.perturbed(), references.of(CONDITION))

    def counterfeit(self, name):
        cells = self.perturbed()
        mean = cells.mean(0)
        match name:
            case "collapse":
                return np.tile(mean, (self.n, 1))
            case "shrunk":
                return mean + 0.8 * (cells - mean)
            case "inflated":
                return mean + 1.25 * (cells - mean)
            case "covariance":
                return self.generator.permuted(cells, axis=0)
            case "skew":
                return self.generator.multivariate_normal(mean, np.cov(cells, rowvar=False), size=self.n)
            case "swapped":
                return 1.2 * self.control() - self.shift
            case "shift":
                return cells + 0.5 * cells.std(0) * self.generator.choice([-1, 1], self.d)


@pytest.fixture(scope="module")
def losses():
    """Losses (n_metrics) of a perfect sampler and of every counterfeit, in several worlds."""
    found = {}
    for seed in SEEDS:
        world = World(seed)
        target, source = world.target(), world.control()
        for name in ("perfect", *COUNTERFEITS):
            cells = world.perturbed() if name == "perfect" else world.counterfeit(name)
            comparison = Comparison(cells, target, source)
            for metric in METRICS:
                value, _ = measure(metric, comparison)
                found[metric, name, seed] = METRICS[metric].loss(value)
    return found


@pytest.mark.parametrize(
    ("metric", "counterfeit"),
    [(metric, counterfeit) for metric in METRICS for counterfeit in sorted(METRICS[metric].catches)],
)
def test_counterfeits_are_caught(losses, metric, counterfeit):
    assert counterfeit in COUNTERFEITS
    for seed in SEEDS:
        assert losses[metric, "perfect", seed] < losses[metric, counterfeit, seed], seed


def test_every_counterfeit_is_caught_by_some_distribution_metric():
    of_distributions = [metric.catches for metric in METRICS.values() if not metric.catches <= {"shift", "swapped"}]
    assert len(of_distributions) >= 10
    for counterfeit in COUNTERFEITS:
        assert any(counterfeit in catches for catches in of_distributions), counterfeit


# The gap is of maps, and the worlds have no zeros.
@pytest.mark.parametrize("metric", sorted(METRICS.keys() - {"monge_gap", "zero_fraction_error"}))
def test_no_counterfeit_is_ahead_of_a_perfect_sampler(losses, metric):
    # By more than what perfect samplers differ by among themselves.
    perfect = np.array([losses[metric, "perfect", seed] for seed in SEEDS])
    for counterfeit in COUNTERFEITS:
        ahead = perfect - [losses[metric, counterfeit, seed] for seed in SEEDS]
        assert ahead.mean() <= 2.0 * perfect.std(ddof=1), counterfeit


def test_a_perfect_sampler_ranks_first_over_all_metrics(losses):
    judging = [metric for metric in METRICS if METRICS[metric].catches]
    for seed in SEEDS:
        # In units of the counterfeits' mean loss, so that no metric outweighs the others.
        total = {
            name: sum(
                losses[metric, name, seed] / np.mean([losses[metric, other, seed] for other in COUNTERFEITS])
                for metric in judging
            )
            for name in ("perfect", *COUNTERFEITS)
        }
        assert min(total, key=total.get) == "perfect", total


def test_losses_are_lower_where_a_prediction_is_better():
    losses = {name: metric.loss(np.array([0.25, 0.5, 1.0, 2.0])) for name, metric in METRICS.items()}
    ratio = losses.pop("variance_ratio")
    np.testing.assert_allclose(ratio, np.log([4.0, 2.0, 1.0, 2.0]))
    higher_is_better = {name for name, loss in losses.items() if (np.diff(loss) < 0).all()}
    assert higher_is_better == {name for name in METRICS if name.startswith(("r2", "pearson"))} | {
        "centroid_accuracy",
        "classifier_p_value",
    }
    for name in losses.keys() - higher_is_better:
        np.testing.assert_array_equal(losses[name], [0.25, 0.5, 1.0, 2.0])


def test_metrics_of_means_prefer_the_collapse(losses):
    # What they cannot see, as documented: the reason why there are others.
    blind = [metric for metric in METRICS if METRICS[metric].catches == {"shift", "swapped"}]
    assert {"r2", "pearson_delta"} <= set(blind)
    for metric in blind:
        gaps = [losses[metric, "collapse", seed] - losses[metric, "perfect", seed] for seed in SEEDS]
        caught = [losses[metric, "shift", seed] - losses[metric, "perfect", seed] for seed in SEEDS]
        assert max(np.abs(gaps)) < np.mean(caught), metric


def test_divergences_against_ott():
    world = World(0, n=60, d=5)
    target, cells = world.target(), world.perturbed()
    comparison = Comparison(cells, target, None)

    def cost(x, y, epsilon):
        geometry = pointcloud.PointCloud(
            x.astype(np.float32), y.astype(np.float32), cost_fn=Euclidean(), epsilon=epsilon
        )
        solver = sinkhorn.Sinkhorn(threshold=1e-5, max_iterations=20_000)
        # OTT's dual value lacks the entropy of the uniform weights, epsilon log n on each side.
        return float(solver(linear_problem.LinearProblem(geometry)).reg_ot_cost)

    (m1, m2), (y1, y2) = np.split(cells, 2), np.split(target.cells, 2)
    for i, fraction in enumerate(EPSILONS):
        epsilon = fraction * target.reference.scale
        expected = 0.5 * (cost(m1, y1, epsilon) + cost(m2, y2, epsilon) - cost(m1, m2, epsilon) - cost(y1, y2, epsilon))
        assert comparison.divergences[i] == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_divergences_are_zero_on_average_for_the_same_distribution():
    values = []
    for seed in range(60):
        world = World(seed, n=40, d=4)
        target = world.target()
        values.append(Comparison(world.perturbed(), target, None).divergences)
    values = np.array(values)
    assert (np.abs(values.mean(0)) < 3 * values.std(0) / np.sqrt(60)).all()
    assert (values.min(0) < 0).all()


def test_the_gap_of_any_number_of_cells_is_that_of_the_losses():
    world = World(1, n=53, d=4)
    target, source = world.target(), world.control().astype(np.float32)
    moved = source[::-1].copy()  # far from optimal
    epsilon = np.float32(GAP_EPSILON * target.reference.scale)
    assert abs(np.log(target.reference.scale)) > 0.5  # or a gap without it would be the same
    for mapped in (moved, world.perturbed().astype(np.float32)):
        expected = floor_free_monge_gap(source, mapped, cost=COSTS["euclidean"], epsilon=epsilon)
        value, reason = measure("monge_gap", Comparison(mapped, target, source))
        assert value == pytest.approx(float(expected), rel=1e-4)
        assert not reason
    value, _ = measure("monge_gap", Comparison(moved, target, source))
    near = Comparison(world.perturbed().astype(np.float32), target, source)
    far = Comparison(near.mapped + np.float32(1e4), target, source + np.float32(1e4))
    assert measure("monge_gap", far)[0] == pytest.approx(measure("monge_gap", near)[0], rel=0.01)
    assert measure("monge_gap", Comparison(source + 1.0, target, source))[0] == pytest.approx(0.0, abs=0.05)
    assert value > 1.0


@pytest.mark.parametrize("n", [2, 3, 5, 17, 64])
def test_any_number_of_cells_is_measured_or_refused_with_its_minimum(n):
    world = World(2, n=n, d=3)
    target, cells, source = world.target(), world.perturbed(), world.control()
    for name, metric in METRICS.items():
        value, reason = measure(name, Comparison(cells, target, source))
        assert np.isfinite(value) == (reason == "") == (n >= metric.min_cells and metric.needs != "has_zeros"), name
        if n < metric.min_cells:
            assert reason == f"{n} cells on each side; the metric needs {metric.min_cells}"


def test_missing_references_are_named():
    world = World(3, n=30, d=3)
    target = world.target()
    bare = replace(target, reference=target.reference._replace(perturbed=None, weights=None, others=None))
    comparison = Comparison(world.perturbed(), bare, None)
    for name, words in {
        "r2_delta_perturbed": "no training cells",
        "pearson_delta_perturbed": "no training cells",
        "weighted_mse": "no training cells",
        "centroid_accuracy": "no other condition",
        "monge_gap": "which control cell",
        "zero_fraction_error": "no zeros",
    }.items():
        value, reason = measure(name, comparison)
        assert np.isnan(value)
        assert words in reason


def test_metrics_of_means_are_measured_from_the_origin_that_they_name():
    world = World(6, n=50, d=6)
    target, cells = world.target(), world.counterfeit("swapped")
    reference, observed, predicted = target.reference, target.cells.mean(0), cells.mean(0)

    def r2(origin):
        effect = observed - origin
        return 1.0 - ((predicted - observed) ** 2).sum() / ((effect - effect.mean()) ** 2).sum()

    def pearson(origin):
        return np.corrcoef(predicted - origin, observed - origin)[0, 1]

    nearer = np.linalg.norm(reference.others - predicted, axis=1) > np.linalg.norm(observed - predicted)
    expected = {
        "r2": r2(0.0),
        "r2_delta": r2(reference.control),
        "r2_delta_perturbed": r2(reference.perturbed),
        "pearson_delta": pearson(reference.control),
        "pearson_delta_perturbed": pearson(reference.perturbed),
        "weighted_mse": reference.weights @ (predicted - observed) ** 2,
        "centroid_accuracy": nearer.mean(),
    }
    assert len({round(value, 3) for value in expected.values()}) == len(expected)
    for name, value in expected.items():
        assert measure(name, Comparison(cells, target, None)) == (pytest.approx(value), ""), name


def test_zeros_are_counted_where_there_are_any_by_nature():
    world = World(7, n=40, d=3)
    target = world.target()
    expression = replace(target, reference=target.reference._replace(has_zeros=True))
    cells = target.cells.copy()
    cells[:10, 0] = 0.0
    assert measure("zero_fraction_error", Comparison(cells, expression, None)) == (pytest.approx(0.25 / 3), "")


def test_the_classifier_sees_the_main_directions_of_many_features():
    world = World(8, n=60, d=MANY_FEATURES + 20)
    target, cells = world.target(), world.perturbed()
    assert target.reference.directions.shape == (MANY_FEATURES + 20, N_DIRECTIONS)
    expected = two_sample_test(cells @ target.reference.directions, target.cells @ target.reference.directions)
    comparison = Comparison(cells, target, None)
    assert measure("classifier_auc", comparison) == (pytest.approx(expected.auc), "")
    assert measure("classifier_p_value", comparison) == (pytest.approx(expected.p_value), "")


def test_undefined_values_have_a_reason():
    world = World(4, n=30, d=3)
    target = world.target()
    still = np.tile(target.reference.control, (30, 1))
    value, reason = measure("pearson_delta", Comparison(still, target, still))
    assert np.isnan(value)
    assert "undefined" in reason
    constant = Target(np.ones((30, 3)), target.reference)
    measured = {name: measure(name, Comparison(world.perturbed(), constant, world.control())) for name in METRICS}
    assert {name for name, (value, _) in measured.items() if np.isnan(value)} == {
        "variance_ratio",
        "correlation_error",
        "r2",
        "zero_fraction_error",
    }
    assert "undefined" in measured["variance_ratio"][1]
    assert "undefined" in measured["r2"][1]


def test_many_features_and_thousands_of_cells():
    world = World(5, n=5_000, d=40)
    target = world.target()
    names = ("energy_distance", "mmd", "wasserstein", "classifier_auc")
    perfect, other = (Comparison(cells, target, None) for cells in (world.perturbed(), world.counterfeit("covariance")))
    values = {name: (measure(name, perfect)[0], measure(name, other)[0]) for name in names}
    for name in ("energy_distance", "mmd"):
        assert abs(values[name][0]) < 0.1 * values[name][1]
    assert values["wasserstein"] == pytest.approx((0.06, 0.06), abs=0.02)
    assert 0.48 < values["classifier_auc"][0] < 0.52 < 0.8 < values["classifier_auc"][1]
