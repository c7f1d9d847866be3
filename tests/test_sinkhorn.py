from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from scgap import _sinkhorn

N, M, D = 24, 32, 5  # one shape for most cases, so that they share a compilation
EPSILONS = [1e-3, 1e-2, 5e-2, 1.0, 100.0]  # times the mean cost
TIGHT = 1e-5  # about what float32 can resolve of a marginal

# jax moved it out of jax.experimental in 0.8.
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

# Limits are passed, and traced, so that changing them compiles nothing.
LIMITS = {"threshold": _sinkhorn.THRESHOLD, "max_iters": _sinkhorn.MAX_ITERS}
TIGHT_LIMITS = {"threshold": TIGHT, "max_iters": 10_000}

solve = jax.jit(_sinkhorn.solve)
solve_symmetric = jax.jit(_sinkhorn.solve_symmetric)
plan_of = jax.jit(_sinkhorn.plan)
transport_cost = jax.jit(jax.value_and_grad(_sinkhorn.transport_cost))
self_transport_cost = jax.jit(jax.value_and_grad(_sinkhorn.self_transport_cost))


def make_clouds(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), rng.normal(size=(M, D)) + 0.5
    if name == "far-apart clusters":  # of unequal masses: equal ones would leave the potentials' offset undetermined
        x[: N // 2] += 50.0
        y[: M // 4] += 50.0
    elif name == "duplicates":
        x, y = x[:3].repeat(N // 3, 0), y[:4].repeat(M // 4, 0)
    elif name == "same points":
        y = np.concatenate([x, x[: M - N]])
    elif name == "outlier":
        x[-1] = 1e4
    elif name == "zero-variance features":
        x[:, 2:] = y[:, 2:] = 3.0
    elif name == "one against one":
        x, y = x[:1], y[:1]
    elif name == "one against many":
        x = x[:1]
    return x, y


def make_weights(name, n, m):
    if name == "uniform":
        return np.full(n, 1 / n), np.full(m, 1 / m)
    rng = np.random.default_rng(1)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    if name == "zeros":
        a[: n // 3] = b[: m // 4] = 0.0
    return a / a.sum(), b / b.sum()


CASES = [
    ("gaussian", "uniform"),
    ("gaussian", "random"),
    ("gaussian", "zeros"),
    ("far-apart clusters", "uniform"),
    ("far-apart clusters", "zeros"),
    ("duplicates", "uniform"),
    ("same points", "uniform"),
    ("outlier", "uniform"),
    ("outlier", "random"),
    ("outlier", "zeros"),
    ("zero-variance features", "uniform"),
    ("one against one", "uniform"),
    ("one against many", "uniform"),
]


class Reference(NamedTuple):
    value: np.ndarray
    f: np.ndarray
    g: np.ndarray
    plan: np.ndarray
    converged: np.ndarray


@jax.jit
def _solve_with_ott(cost, epsilon, a, b):
    problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=cost, epsilon=epsilon), a=a, b=b)
    output = sinkhorn.Sinkhorn(lse_mode=True, threshold=1e-7, max_iterations=10_000)(problem)
    # OTT keeps the weights inside its potentials: those of points without weight are -inf.
    f, g = output.f - epsilon * jnp.log(a), output.g - epsilon * jnp.log(b)
    return output.reg_ot_cost, f, g, output.matrix, output.converged


def solve_with_ott(cost, epsilon, a, b):
    """OTT's solution in the log domain and in float64, so that what differs is ours."""
    with enable_x64(True):
        return Reference(*map(np.asarray, _solve_with_ott(*map(jnp.float64, (cost, epsilon, a, b)))))


def as_float32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def total_variation(p, q):
    return np.abs(np.asarray(p, np.float64) - q).sum()


@pytest.fixture(params=CASES, ids=lambda case: ", ".join(case), scope="module")
def case(request):
    x, y = make_clouds(request.param[0])
    return cdist(x, y), *make_weights(request.param[1], len(x), len(y))


@pytest.mark.parametrize("fraction", EPSILONS)
def test_agrees_with_ott(case, fraction):
    cost, a, b = case
    epsilon = fraction * cost.mean()
    expected = solve_with_ott(cost, epsilon, a, b)
    cost32, epsilon32, a32, b32 = as_float32(cost, epsilon, a, b)

    value, _ = transport_cost(cost32, epsilon32, a32, b32)
    np.testing.assert_allclose(value, expected.value, rtol=1e-4, atol=1e-5 * cost.mean())

    coupling = solve(cost32, epsilon32, a32, b32, **TIGHT_LIMITS)
    plan = plan_of(cost32, coupling, epsilon32, a32, b32)
    assert all(np.isfinite(array).all() for array in (*coupling, plan))
    # The plan's logarithm holds costs divided by epsilon, of which float32 resolves this much.
    resolution = np.finfo(np.float32).eps * cost.max() / epsilon
    assert total_variation(plan.sum(1), a) <= TIGHT + resolution
    assert total_variation(plan.sum(0), b) <= 2 * TIGHT + resolution
    if expected.converged:
        assert total_variation(plan, expected.plan) <= 5 * TIGHT + resolution
        f, g = (coupling.f - expected.f)[a > 0], (coupling.g - expected.g)[b > 0]
        np.testing.assert_allclose(f, f.mean(), atol=2e-3 * epsilon)
        np.testing.assert_allclose(g, -f.mean(), atol=2e-3 * epsilon)
    else:  # near-ties at the smallest epsilon: plain iterations crawl, and only the value is known
        assert fraction <= 1e-2


@pytest.mark.parametrize("spread", [20.0, 50.0, 80.0, 500.0])
def test_scalings_outside_the_range_of_float32(spread):
    # In the first block the scalings of the last columns are exp(spread), while nothing overflows yet at 50.
    cost = np.linspace(0.0, spread, M)[None, :]
    cost, epsilon, a, b = as_float32(cost, 1.0, *make_weights("uniform", 1, M))
    coupling = solve(cost, epsilon, a, b, **LIMITS)
    np.testing.assert_allclose(plan_of(cost, coupling, epsilon, a, b), b[None, :], rtol=1e-4)


def test_iterations_that_are_cut_short_come_further_than_plain_ones():
    # The potentials of the two clusters must part by hundreds of epsilon, and move by about one in an iteration.
    x, y = make_clouds("far-apart clusters")
    cost, (a, b) = cdist(x, y), make_weights("random", N, M)
    epsilon = 1e-3 * cost.mean()
    plain = solve_with_ott(cost, epsilon, a, b)  # five times as many iterations
    cost32, epsilon32, a32, b32 = as_float32(cost, epsilon, a, b)
    converged = solve(cost32, epsilon32, a32, b32, **TIGHT_LIMITS)
    assert converged.error <= TIGHT
    cut_short, _ = transport_cost(cost32, epsilon32, a32, b32)
    # The value is the dual's, which grows towards its optimum.
    assert not plain.converged
    assert plain.value < cut_short < a32 @ converged.f + b32 @ converged.g


@pytest.mark.parametrize("fraction", EPSILONS)
def test_outlier_beside_an_epsilon_of_the_other_cells(fraction):
    # Costs of 1e7 epsilon: float32 no longer resolves the marginals, but must not lose the value or become NaN.
    x, y = make_clouds("outlier")
    cost, (a, b) = cdist(x, y), make_weights("uniform", N, M)
    epsilon = fraction * np.median(cost)
    expected = solve_with_ott(cost, epsilon, a, b)
    value, gradient = transport_cost(*as_float32(cost, epsilon, a, b))
    np.testing.assert_allclose(value, expected.value, rtol=1e-4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("clouds", ["gaussian", "far-apart clusters", "zero-variance features"])
def test_small_epsilon_is_the_assignment(clouds):
    x, y = make_clouds(clouds)
    cost = cdist(x, y[:N])
    rows, columns = linear_sum_assignment(cost)
    exact = cost[rows, columns].mean()
    epsilon = 1e-3 * cost.mean()
    cost32, epsilon32, a = as_float32(cost, epsilon, np.full(N, 1 / N))
    coupling = solve(cost32, epsilon32, a, a, **LIMITS)
    value, plan = a @ coupling.f + a @ coupling.g, plan_of(cost32, coupling, epsilon32, a, a)
    # An assignment has the entropy log n, which is the most that the regularisation can cost or gain.
    slack = epsilon * np.log(N)
    assert exact * (1 - 1e-4) <= value <= exact + slack
    assert exact * (1 - 1e-3) <= np.sum(plan * cost) <= exact + slack


@pytest.mark.parametrize("fraction", EPSILONS)
@pytest.mark.parametrize("weights", ["uniform", "random", "zeros"])
@pytest.mark.parametrize("clouds", ["gaussian", "far-apart clusters", "duplicates"])
def test_symmetric_solver_equals_the_general_one(clouds, weights, fraction):
    x, _ = make_clouds(clouds)
    a, _ = make_weights(weights, N, N)
    cost = cdist(x, x)
    cost, epsilon, a = as_float32(cost, fraction * cost.mean(), a)
    general = solve(cost, epsilon, a, a, **TIGHT_LIMITS)
    symmetric = solve_symmetric(cost, epsilon, a, **LIMITS)
    assert symmetric.error <= _sinkhorn.THRESHOLD
    assert symmetric.n_iters <= 2 * _sinkhorn.CHECK_EVERY  # a handful of iterations, at any epsilon
    np.testing.assert_array_equal(symmetric.f, symmetric.g)
    np.testing.assert_allclose(plan_of(cost, symmetric, epsilon, a, a).sum(), 1.0, atol=1e-4)
    value, gradient = self_transport_cost(cost, epsilon, a)
    np.testing.assert_allclose(value, a @ general.f + a @ general.g, rtol=1e-4, atol=1e-6 * float(cost.mean()))
    assert total_variation(gradient, plan_of(cost, general, epsilon, a, a)) < 2 * _sinkhorn.THRESHOLD


def test_gradient_in_the_cost_is_the_plan():
    x, y = make_clouds("gaussian")
    cost, (a, b) = cdist(x, y), make_weights("random", N, M)
    epsilon = 0.05 * cost.mean()
    arguments = as_float32(cost, epsilon, a, b)
    _, gradient = transport_cost(*arguments)
    cost32, *others = arguments
    plan = plan_of(cost32, solve(*arguments, **LIMITS), *others)
    np.testing.assert_allclose(gradient, plan, rtol=1e-5, atol=1e-8)

    def by_danskin(cost):
        problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=cost, epsilon=others[0]), *others[1:])
        return sinkhorn.Sinkhorn(lse_mode=True, threshold=1e-5, use_danskin=True)(problem).reg_ot_cost

    np.testing.assert_allclose(gradient, jax.jit(jax.grad(by_danskin))(cost32), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("own", [False, True], ids=["two populations", "one population"])
def test_gradient_in_the_points_is_that_of_finite_differences(own):
    x, y = as_float32(*make_clouds("gaussian"))
    epsilon, a, b = as_float32(2.0, *make_weights("random", N, M))

    def cost_of(x):
        return jnp.sum((x[:, None] - (x if own else y)) ** 2, -1)

    def value_and_gradient(cost):
        if own:
            return self_transport_cost(cost, epsilon, a)
        return transport_cost(cost, epsilon, a, b)

    cost, pull_back = jax.vjp(cost_of, x)
    (gradient,) = pull_back(value_and_gradient(cost)[1])
    for seed in range(5):
        direction = jax.random.normal(jax.random.key(seed), x.shape)
        step = 0.01  # the value's seven digits leave four of the difference
        ahead, behind = (value_and_gradient(cost_of(x + s * direction))[0] for s in (step, -step))
        np.testing.assert_allclose(jnp.vdot(gradient, direction), (ahead - behind) / (2 * step), atol=2e-3)


def mapped_over(function):
    return lambda *arrays: jax.lax.map(lambda problem: function(*problem), arrays)


@pytest.mark.parametrize("batched", [jax.vmap, mapped_over], ids=["vmap", "lax.map"])
def test_problems_solved_together_are_solved_as_alone_and_weights_default_to_uniform_ones(batched):
    names = ["gaussian", "far-apart clusters", "duplicates", "outlier"]
    costs = [cdist(*make_clouds(name)) for name in names]
    costs, epsilons, a, b = as_float32(costs, [1e-2 * cost.mean() for cost in costs], *make_weights("uniform", N, M))
    together = jax.jit(batched(partial(_sinkhorn.solve, **TIGHT_LIMITS)))(costs, epsilons)
    plans = jax.jit(batched(_sinkhorn.plan))(costs, together, epsilons)
    assert len(set(together.n_iters.tolist())) > 1  # problems stop on their own
    for i in range(len(names)):
        alone = solve(costs[i], epsilons[i], a, b, **TIGHT_LIMITS)
        # Not bit for bit: matrix products are summed in another order, and the potentials' offset drifts with it.
        offset = together.f[i].mean() - alone.f.mean()
        resolution = 2e-3 * float(epsilons[i]) + 1e-6 * float(costs[i].max())
        np.testing.assert_allclose(together.f[i] - offset, alone.f, atol=resolution)
        np.testing.assert_allclose(together.g[i] + offset, alone.g, atol=resolution)
        expected = plan_of(costs[i], alone, epsilons[i], a, b)
        assert total_variation(plans[i], expected) <= 5 * TIGHT
        value = together.f[i].mean() + together.g[i].mean()
        np.testing.assert_allclose(value, a @ alone.f + b @ alone.g, rtol=1e-5, atol=1e-6 * float(costs[i].max()))


@pytest.mark.parametrize("fraction", EPSILONS)
def test_points_without_weight_change_nothing(fraction):
    x, y = make_clouds("gaussian")
    a, b = make_weights("zeros", N, M)

    def solutions(place):
        x[a == 0], y[b == 0] = place, -place
        a32, b32 = as_float32(a, b)
        for cost, weights in ((cdist(x, y), (a32, b32)), (cdist(x, x), (a32,))):
            of = self_transport_cost if len(weights) == 1 else transport_cost
            value, plan = of(*as_float32(cost, fraction), *weights)
            assert not np.any(plan[a == 0])
            assert not np.any(plan[:, weights[-1] == 0])
            yield value, plan

    for (near, near_plan), (far, far_plan) in zip(solutions(0.0), solutions(1e3), strict=True):
        np.testing.assert_allclose(near, far, rtol=1e-4)
        assert total_variation(near_plan, far_plan) < 4 * _sinkhorn.THRESHOLD


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_cost_that_is_not_finite_ends_the_iterations(bad):
    cost = cdist(*make_clouds("gaussian"))
    cost[3] = cost[:, 3] = bad
    cost32, epsilon, a, b = as_float32(cost, 0.1, *make_weights("uniform", N, M))
    assert solve(cost32, epsilon, a, b, **LIMITS).n_iters <= _sinkhorn.MAX_ITERS
    assert not np.isfinite(transport_cost(cost32, epsilon, a, b)[0])
    assert solve_symmetric(cost32[:, :N], epsilon, a, **LIMITS).n_iters <= _sinkhorn.MAX_ITERS


def test_max_iters_ends_the_iterations():
    cost = cdist(*make_clouds("gaussian"))
    arguments = as_float32(cost, 1e-3 * cost.mean(), *make_weights("uniform", N, M))
    coupling = solve(*arguments, threshold=0.0, max_iters=50)
    assert coupling.n_iters == 50
    assert coupling.error > 0
