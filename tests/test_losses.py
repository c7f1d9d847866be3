from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import costs
from ott.neural.methods.monge_gap import monge_gap_from_samples
from ott.tools.sinkhorn_divergence import sinkdiv
from scipy.spatial.distance import cdist

from scgap import _losses

N, M, D = 24, 32, 5  # one shape for most cases, so that they share a compilation

EUCLIDEAN = _losses.COSTS["euclidean"]  # another instance is another cost, for which all is compiled anew

trained = pytest.mark.parametrize("cost", _losses.COSTS.values(), ids=_losses.COSTS)
all_costs = pytest.mark.parametrize(
    "cost", [*_losses.COSTS.values(), costs.PNormP(3.0)], ids=[*_losses.COSTS, "3-norm"]
)

monge_gap = jax.jit(_losses.monge_gap, static_argnames="cost")
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


def test_sinkhorn_divergence_is_made_of_its_terms(clouds):
    _, mapped, other, target = clouds

    @jax.jit
    def terms(mapped, other, target):
        cross, own = (_losses.transport_cost(mapped, y, cost=EUCLIDEAN, epsilon=1.0) for y in (target, other))
        target_term = _losses.self_cost(target, cost=EUCLIDEAN, epsilon=1.0) / 2
        known = divergence(mapped, other, target, target_term=3.0)
        return cross, own, target_term, known, divergence(mapped, other, target)

    divergence = partial(_losses.sinkhorn_divergence, cost=EUCLIDEAN, epsilon=1.0)
    cross, own, target_term, known, full = terms(mapped, other, target)
    np.testing.assert_allclose(known, cross - own / 2 - 3.0, atol=1e-5)
    np.testing.assert_allclose(full, cross - own / 2 - target_term, atol=1e-5)


def test_divergence_of_one_distribution_is_unbiased_with_an_independent_self_term():
    fit = partial(_losses.sinkhorn_divergence, cost=EUCLIDEAN, epsilon=0.1)

    def divergences(seed):
        mapped, other, target, other_target = jax.random.normal(jax.random.key(seed), (4, 64, 10))
        target_term = _losses.transport_cost(target, other_target, cost=EUCLIDEAN, epsilon=0.1) / 2
        return fit(mapped, other, target, target_term=target_term), fit(mapped, None, target)

    independent, same = np.array(jax.jit(partial(jax.lax.map, divergences))(jnp.arange(48)))
    # Mean and its standard error over the seeds.
    assert abs(independent.mean()) < 3 * independent.std() / np.sqrt(48) < 0.05
    assert same.mean() > 2.0


@trained
def test_monge_gap_equals_ott(clouds, cost):
    source, mapped, *_ = clouds

    def otts(mapped):
        return monge_gap_from_samples(source, mapped, cost_fn=cost, epsilon=1.0, threshold=1e-5)

    value, gradient = jax.jit(jax.value_and_grad(partial(_losses.monge_gap, source, cost=cost, epsilon=1.0)))(mapped)
    expected, expected_gradient = jax.jit(jax.value_and_grad(otts))(mapped)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert relative_error(gradient, expected_gradient) < 1e-2  # THRESHOLD leaves this much


@trained
def test_monge_gap_tells_an_optimal_map_from_a_half_turn(clouds, cost):
    source = clouds[0]
    epsilon = jnp.float32(0.02)
    floor = epsilon * np.log(N)
    # One for one, the plan's entropy is log n; it is more where other pairs cost about the same.
    assert 0.99 * floor < monge_gap(source, source + 3.0, cost=cost, epsilon=epsilon) < 1.3 * floor
    assert abs(floor_free_monge_gap(source, source + 3.0, cost=cost, epsilon=epsilon)) < 0.1 * floor
    displacement = _losses.paired_cost(source, -source, cost).mean()
    for gap in (monge_gap, floor_free_monge_gap):
        assert gap(source, -source, cost=cost, epsilon=epsilon) > 0.3 * displacement > 10 * floor


@pytest.mark.parametrize("garbage", [0.0, 50.0])
def test_cells_without_weight_change_nothing(clouds, garbage):
    source, mapped, _, target = (cloud.at[-4:].set(garbage) for cloud in clouds)
    source_weights, target_weights = (jnp.where(jnp.arange(n) < n - 4, 1 / (n - 4), 0.0) for n in (N, M))
    gap = floor_free_monge_gap(source, mapped, source_weights, cost=EUCLIDEAN, epsilon=jnp.float32(0.1))
    cut = floor_free_monge_gap(source[:-4], mapped[:-4], cost=EUCLIDEAN, epsilon=jnp.float32(0.1))
    np.testing.assert_allclose(gap, cut, atol=5e-3)  # THRESHOLD of a cost of 3
    distance = energy_distance(mapped, target, source_weights, target_weights)
    np.testing.assert_allclose(distance, exact_energy_distance(mapped[:-4], target[:-4]), rtol=1e-3, atol=1e-4)


def exact_energy_distance(x, y):
    """By scipy, in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    within = [cdist(cells, cells).sum() / (len(cells) * (len(cells) - 1)) for cells in (x, y)]
    return 2 * cdist(x, y).mean() - sum(within)


def test_energy_distance_equals_scipy(clouds):
    _, mapped, _, target = clouds
    distance = energy_distance(mapped, target, jnp.full(N, 1 / N), jnp.full(M, 1 / M))
    np.testing.assert_allclose(distance, exact_energy_distance(mapped, target), rtol=1e-4)


def test_energy_distance_of_one_distribution_is_zero_on_average():
    x, y = jax.random.normal(jax.random.key(0), (2, 200, N, D))
    weights = jnp.full(N, 1 / N)
    distances = np.asarray(jax.jit(jax.vmap(_losses.energy_distance, (0, 0, None, None)))(x, y, weights, weights))
    assert abs(distances.mean()) < 3 * distances.std() / np.sqrt(200) < 0.02
    assert distances.min() < 0
