from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import costs
from ott.geometry.pointcloud import PointCloud
from ott.neural.methods.monge_gap import monge_gap_from_samples
from ott.tools.sinkhorn_divergence import sinkdiv, sinkhorn_divergence
from scipy.spatial.distance import cdist

from scgap import _losses

N, M, D = 24, 32, 5  # one shape for most cases, so that they share a compilation

EUCLIDEAN = _losses.COSTS["euclidean"]  # another instance is another cost, for which all is compiled anew

trained = pytest.mark.parametrize("cost", _losses.COSTS.values(), ids=_losses.COSTS)
all_costs = pytest.mark.parametrize(
    "cost",
    [*_losses.COSTS.values(), costs.PNormP(3.0), costs.PNormP(2.0), costs.SqPNorm(2.0), costs.EuclideanP(1.5)],
    ids=[*_losses.COSTS, "3-norm", "2-norm squared, halved", "half squared 2-norm", "power of the distance"],
)

monge_gap_and_gradient = jax.jit(jax.value_and_grad(_losses.monge_gap, argnums=1), static_argnames="cost")
floor_free_monge_gap = jax.jit(_losses.floor_free_monge_gap, static_argnames="cost")
energy_distance = jax.jit(_losses.energy_distance)


@pytest.fixture(scope="module")
def clouds():
    """Source, mapped, other mapped and target cells."""
    rng = np.random.default_rng(0)
    source, other = rng.normal(size=(2, N, D))
    mapped = source + 1.0 + 0.5 * rng.normal(size=(N, D))
    target = 1.0 + 1.5 * rng.normal(size=(M, D))
    return [jnp.asarray(cloud, jnp.float32) for cloud in (source, mapped, other + 1.0, target)]


def relative_error(actual, expected):
    return np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("far", [0.0, 1e4], ids=["near", "far"])
@all_costs
def test_costs_equal_ott_and_keep_their_digits_far_from_the_origin(clouds, cost, far):
    x, y = (cloud + jnp.float32(far) for cloud in (clouds[0], clouds[3]))
    # Coordinates are rounded far away; taking the distance off again rounds nothing.
    expected = jax.jit(cost.all_pairs)(x - far, y - far)
    np.testing.assert_allclose(_losses.cost_matrix(x, y, cost), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(_losses.paired_cost(x, y[:N], cost), np.diag(expected), rtol=1e-5, atol=1e-5)


@all_costs
def test_gradients_at_coinciding_points_are_zero(clouds, cost):
    x = clouds[0]
    of_pairs = jax.jit(jax.grad(lambda y: jnp.trace(_losses.cost_matrix(x, y, cost))))(x)
    np.testing.assert_allclose(of_pairs, 0.0, atol=2e-3)  # a rounded distance of 1e-3 has a direction
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda y: _losses.paired_cost(x, y, cost).sum()))(x), 0.0)


@all_costs
def test_what_is_not_a_number_stays_so(clouds, cost):
    x, y = clouds[0].at[1].set(jnp.nan), clouds[1]
    pairs = np.asarray(_losses.cost_matrix(x, y, cost))
    assert np.isnan(pairs[1]).all()
    assert np.isfinite(np.delete(pairs, 1, axis=0)).all()
    assert np.isnan(_losses.paired_cost(x, y, cost)[1])
    assert np.isnan(energy_distance(x, y, jnp.full(N, 1 / N), jnp.full(N, 1 / N)))


@trained
def test_sinkhorn_divergence_equals_ott(clouds, cost):
    _, mapped, _, target = clouds

    def ours(mapped):
        return _losses.sinkhorn_divergence(mapped, None, target, cost=cost, epsilon=1.0)

    def otts(mapped):
        divergence, output = sinkdiv(mapped, target, cost_fn=cost, epsilon=1.0, solve_kwargs={"threshold": 1e-5})
        # OTT's potentials hold the weights, so that a pair's sum is the cost less log(n m). Its `divergence` is wrong
        # in `value_and_grad`, where OTT 0.6 takes a point's Euclidean distance to itself as sqrt(d).
        pair, own, target_own = (f.mean() + g.mean() + jnp.log(len(f) * len(g)) for f, g in output.potentials)
        return divergence, pair - own / 2 - target_own / 2

    value, gradient = jax.jit(jax.value_and_grad(ours))(mapped)
    (_, expected), expected_gradient = jax.jit(jax.value_and_grad(otts, has_aux=True))(mapped)
    np.testing.assert_allclose(value, expected, rtol=2e-4)  # THRESHOLD leaves this much
    assert relative_error(gradient, expected_gradient) < 1e-3


def test_fitting_loss_and_gap_of_otts_tutorial():
    # Half a moon to an s-curve, whose curved distances make for slower problems than Gaussian clouds.
    angle, height = np.random.default_rng(0).uniform(size=(2, 128))
    t = 3 * np.pi * (height - 0.5)
    source = np.stack([np.cos(np.pi * angle), np.sin(np.pi * angle) - 0.5], 1)
    target = np.stack([1.0 - 0.6 * np.sin(t), 0.6 * np.sign(t) * (np.cos(t) - 1.0) - 2.0], 1)
    source, target = (jnp.asarray(points, jnp.float32) for points in (source, target))
    cost = _losses.COSTS["sqeuclidean"]
    epsilon = 0.1 * _losses.cost_matrix(target, target, cost).mean()
    gap_epsilon = 0.01 * _losses.cost_matrix(source, target, cost).mean()

    def ours(mapped):
        fitting_loss = _losses.sinkhorn_divergence(mapped, None, target, cost=cost, epsilon=epsilon, target_term=0.0)
        return jnp.stack([fitting_loss, _losses.monge_gap(source, mapped, cost=cost, epsilon=gap_epsilon)])

    def otts(mapped):
        tight = {"threshold": 1e-5}
        fitting_loss, _ = sinkhorn_divergence(
            PointCloud, mapped, target, epsilon=epsilon, static_b=True, solve_kwargs=tight
        )
        return jnp.stack([fitting_loss, monge_gap_from_samples(source, mapped, epsilon=gap_epsilon, **tight)])

    mapped = source[:, ::-1] + jnp.array([0.9, -2.0])  # mirrored: far from optimal
    (values, gradients), (expected, expected_gradients) = (
        jax.jit(lambda mapped, losses=losses: (losses(mapped), jax.jacrev(losses)(mapped)))(mapped)
        for losses in (ours, otts)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-3)
    assert max(map(relative_error, gradients, expected_gradients)) < 1e-2  # THRESHOLD leaves this much


def test_sinkhorn_divergence_is_made_of_its_terms(clouds):
    _, mapped, other, target = clouds

    @jax.jit
    def divergence_and_terms(mapped, other, target):
        cross, own = (_losses.transport_cost(mapped, y, cost=EUCLIDEAN, epsilon=1.0) for y in (target, other))
        terms = {"cost": EUCLIDEAN, "epsilon": 1.0, "target_term": 3.0}
        return _losses.sinkhorn_divergence(mapped, other, target, **terms), cross - own / 2 - 3.0

    np.testing.assert_allclose(*divergence_and_terms(mapped, other, target), atol=1e-5)


def test_divergence_of_one_distribution_is_unbiased_with_an_independent_self_term():
    fit = partial(_losses.sinkhorn_divergence, cost=EUCLIDEAN, epsilon=0.1)

    def divergences(batches):
        mapped, other, target, other_target = batches
        target_term = _losses.transport_cost(target, other_target, cost=EUCLIDEAN, epsilon=0.1) / 2
        return fit(mapped, other, target, target_term=target_term), fit(mapped, None, target)

    batches = np.random.default_rng(0).normal(size=(48, 4, 64, 10)).astype(np.float32)
    independent, same = np.array(jax.jit(partial(jax.lax.map, divergences))(batches))
    # Mean and its standard error over the seeds.
    assert abs(independent.mean()) < 3 * independent.std() / np.sqrt(48) < 0.05
    assert same.mean() > 2.0


@trained
def test_monge_gap_equals_ott(clouds, cost):
    source, mapped, *_ = clouds

    def otts(mapped):
        return monge_gap_from_samples(source, mapped, cost_fn=cost, epsilon=1.0, threshold=1e-5)

    value, gradient = monge_gap_and_gradient(source, mapped, cost=cost, epsilon=jnp.float32(1.0))
    expected, expected_gradient = jax.jit(jax.value_and_grad(otts))(mapped)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert relative_error(gradient, expected_gradient) < 1e-2  # THRESHOLD leaves this much


@trained
def test_monge_gap_tells_an_optimal_map_from_a_half_turn(clouds, cost):
    source = clouds[0]
    epsilon = jnp.float32(0.02)
    floor = epsilon * np.log(N)
    # One for one, the plan's entropy is log n; it is more where other pairs cost about the same.
    gap, _ = monge_gap_and_gradient(source, source + 3.0, cost=cost, epsilon=epsilon)
    assert 0.99 * floor < gap < 1.3 * floor
    half_turn, _ = monge_gap_and_gradient(source, -source, cost=cost, epsilon=epsilon)
    assert half_turn > 0.3 * _losses.paired_cost(source, -source, cost).mean() > 10 * floor


def test_monge_gap_does_not_pull_small_effects_back():
    """A common shift is optimal. Where it was less than the matrix resolves, exact paired costs alone had a slope."""
    rng = np.random.default_rng(0)
    source = jnp.asarray(rng.normal(size=(256, 14)), jnp.float32)
    direction = jnp.ones(14) / np.sqrt(14)

    def gap(size):
        return _losses.monge_gap(source, source + size * direction, cost=EUCLIDEAN, epsilon=0.1)

    for size in (1e-4, 1e-3, 1e-2, 0.1):
        assert abs(jax.grad(gap)(size)) < 0.05


def test_floor_free_monge_gap_has_no_floor(clouds):
    source = clouds[0]
    gap = partial(floor_free_monge_gap, source, cost=EUCLIDEAN, epsilon=jnp.float32(0.02))
    assert abs(gap(source + 3.0)) < 0.1 * 0.02 * np.log(N)
    distance = _losses.paired_cost(source, -source, EUCLIDEAN).mean()
    assert 0.3 * distance < gap(-source) < distance


@trained
@pytest.mark.parametrize("n_features", [2, 10, 50])
def test_floor_free_monge_gap_of_an_optimal_map_is_below_0_by_less_than_epsilon(n_features, cost):
    source = np.random.default_rng(0).normal(size=(512, n_features)).astype(np.float32)
    mapped = source + 1.0  # a translation, which is optimal for either cost
    epsilon = 0.02 * float(_losses.cost_matrix(source, mapped, cost).mean())  # as `tl.fit_transport` sets it
    assert -epsilon < floor_free_monge_gap(source, mapped, cost=cost, epsilon=epsilon) < 0


def test_transport_cost_of_weighted_cells(clouds):
    cost = partial(_losses.transport_cost, cost=EUCLIDEAN, epsilon=jnp.float32(1.0))
    _, mapped, _, target = clouds
    weights = [jnp.where(jnp.arange(n) < n - 4, 1 / (n - 4), 0.0) for n in (N, M)]
    padded = cost(mapped.at[-4:].set(9.0), target.at[-4:].set(-9.0), *weights)
    np.testing.assert_allclose(padded, cost(mapped[:-4], target[:-4]), rtol=1e-4)
    np.testing.assert_allclose(cost(mapped, target), cost(mapped, target, *map(jnp.full, (N, M), (1 / N, 1 / M))))


def test_cells_without_weight_change_nothing(clouds):
    weights = [jnp.where(jnp.arange(n) < n - 4, 1 / (n - 4), 0.0) for n in (N, M)]
    gaps = []
    for garbage in (0.0, 1.0, 50.0):
        source, mapped, _, target = (cloud.at[-4:].set(garbage) for cloud in clouds)
        mapped = mapped.at[-4:].set(-garbage)
        gaps.append(floor_free_monge_gap(source, mapped, weights[0], cost=EUCLIDEAN, epsilon=jnp.float32(0.1)))
        exact = exact_energy_distance(mapped[:-4], target[:-4])
        np.testing.assert_allclose(energy_distance(mapped, target, *weights), exact, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gaps, gaps[0], atol=5e-3)  # THRESHOLD of a cost of 3


def exact_energy_distance(x, y):
    """By scipy, in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    within = [cdist(cells, cells).sum() / (len(cells) * (len(cells) - 1)) for cells in (x, y)]
    return 2 * cdist(x, y).mean() - sum(within)


def test_energy_distance_equals_scipy(clouds):
    _, mapped, _, target = clouds
    distance = energy_distance(mapped, target, jnp.full(N, 1 / N), jnp.full(M, 1 / M))
    np.testing.assert_allclose(distance, exact_energy_distance(mapped, target), atol=2e-5)


def test_energy_distance_of_one_distribution_is_zero_on_average():
    x, y = np.random.default_rng(0).normal(size=(2, 200, N, D)).astype(np.float32)
    weights = jnp.full(N, 1 / N)
    distances = np.asarray(jax.jit(jax.vmap(_losses.energy_distance, (0, 0, None, None)))(x, y, weights, weights))
    assert abs(distances.mean()) < 3 * distances.std() / np.sqrt(200) < 0.02
    assert distances.min() < 0


class Fourth(costs.SqEuclidean):
    """A cost of one's own that derives from one of OTT's, and is another function."""

    def norm(self, x):
        return None

    def __call__(self, x, y):
        return jnp.sum((x - y) ** 4)


def test_what_derives_from_a_known_cost_is_not_taken_for_it(clouds):
    source, _, _, target = clouds
    every = cdist(source, target, lambda x, y: ((x - y) ** 4).sum())
    np.testing.assert_allclose(_losses.cost_matrix(source, target, Fourth()), every, rtol=1e-4)
    paired = _losses.paired_cost(source, target[:N], Fourth())
    np.testing.assert_allclose(paired, np.diag(every), rtol=1e-4)
