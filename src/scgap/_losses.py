"""Losses of a map: the fitting loss (Sinkhorn divergence), the Monge gap, and the distance that validates.

Arguments always come as source, mapped, target. Every function takes point clouds on the device; weights default to
uniform ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ott.geometry import costs

from scgap import _sinkhorn

type Cost = costs.CostFn

COSTS = {"euclidean": costs.Euclidean(), "sqeuclidean": costs.SqEuclidean()}

type Scalar = float | jax.Array


def cost_matrix(x: jax.Array, y: jax.Array, cost: Cost) -> jax.Array:
    """(n, m) costs between all pairs of two point clouds (n, d) and (m, d), by one matrix product where that can be."""
    of_squares = _of_squared_distance(cost)
    if of_squares is not None:
        return of_squares(_squared_distances(x, y))
    return jnp.asarray(cost.all_pairs(x, y))


def paired_cost(x: jax.Array, y: jax.Array, cost: Cost) -> jax.Array:
    """(n,) costs between the rows of two point clouds (n, d)."""
    # OTT's squared distance is |x|^2 + |y|^2 - 2 x.y, which loses its digits away from the origin.
    of_squares = _of_squared_distance(cost)
    if of_squares is not None:
        return of_squares(jnp.sum((x - y) ** 2, axis=1))
    return jnp.asarray(jax.vmap(cost)(x, y))


def sinkhorn_divergence(
    mapped: jax.Array,
    other_mapped: jax.Array | None,
    target: jax.Array,
    *,
    cost: Cost,
    epsilon: Scalar,
    target_term: Scalar | None = None,
) -> jax.Array:
    """Sinkhorn divergence ``OT(m, y) - OT(m, m') / 2 - OT(y, y') / 2`` between mapped and target cells.

    ``other_mapped`` (n', d) is an independent batch of mapped cells: the self term is then biased as the cross term is,
    and the two biases cancel. With ``None`` the self term is taken on the batch itself, as in Genevay et al. (2018) and
    in the papers; its zero diagonal biases it low, and predictions shrink towards their mean (the smaller epsilon, the
    more). ``target_term``, ``OT(y, y') / 2``, does not depend on the map: pass it where it is known.
    """
    cross = transport_cost(mapped, target, cost=cost, epsilon=epsilon)
    if other_mapped is None:
        self_term = self_cost(mapped, cost=cost, epsilon=epsilon)
    else:
        self_term = transport_cost(mapped, other_mapped, cost=cost, epsilon=epsilon)
    if target_term is None:
        target_term = 0.5 * self_cost(target, cost=cost, epsilon=epsilon)
    return cross - 0.5 * self_term - target_term


def self_cost(x: jax.Array, *, cost: Cost, epsilon: Scalar) -> jax.Array:
    """Entropic transport cost of one batch (n, d) with itself, by the symmetric solver."""
    return _sinkhorn.self_transport_cost(cost_matrix(x, x, cost), epsilon, _sinkhorn.uniform(x.shape[0]))


def transport_cost(
    x: jax.Array,
    y: jax.Array,
    wx: jax.Array | None = None,
    wy: jax.Array | None = None,
    *,
    cost: Cost,
    epsilon: Scalar,
) -> jax.Array:
    """Entropic transport cost between two batches (n, d) and (m, d)."""
    wx = _sinkhorn.uniform(x.shape[0]) if wx is None else wx
    wy = _sinkhorn.uniform(y.shape[0]) if wy is None else wy
    return _sinkhorn.transport_cost(cost_matrix(x, y, cost), epsilon, wx, wy)


@jax.jit
def transport_costs(cost_matrices: jax.Array, epsilon: Scalar, weights: jax.Array) -> jax.Array:
    """Entropic transport costs (k,) of k problems (k, n, n) with the same weights (n,) on both sides."""
    return jax.lax.map(lambda matrix: _sinkhorn.transport_cost(matrix, epsilon, weights, weights), cost_matrices)


def monge_gap(source: jax.Array, mapped: jax.Array, *, cost: Cost, epsilon: Scalar) -> jax.Array:
    """Monge gap ``mean c(x, T(x)) - W_epsilon(x, T(x))`` of a map on a batch (Uscidda & Cuturi 2023, eq. 8).

    W is OTT's `ent_reg_cost`, ``<P, C> - epsilon H(P)``, so an optimal map scores about ``epsilon log n`` and not 0:
    right for training, where constants do not matter. `floor_free_monge_gap` is the one to report.
    """
    weights, pairs = _sinkhorn.uniform(source.shape[0]), cost_matrix(source, mapped, cost)
    w = _sinkhorn.transport_cost(pairs, epsilon, weights, weights) - 2.0 * epsilon * jnp.log(source.shape[0])
    # The matrix is wrong by a thousandth of a cell's norm where cells have hardly moved. Read from it, too, the paired
    # costs cancel there as they should; exact ones pull back to the identity all maps that small effects set out on.
    return jnp.mean(jnp.diagonal(pairs)) - w


def floor_free_monge_gap(
    source: jax.Array, mapped: jax.Array, weights: jax.Array | None = None, *, cost: Cost, epsilon: Scalar
) -> jax.Array:
    """Monge gap with W the bare transport cost ``<P, C>`` of the entropic plan: about 0 for an optimal map."""
    w = _sinkhorn.uniform(source.shape[0]) if weights is None else weights
    pairs = cost_matrix(source, mapped, cost)
    plan = _sinkhorn.plan(pairs, _sinkhorn.solve(pairs, epsilon, w, w), epsilon, w, w)
    return jnp.dot(w, paired_cost(source, mapped, cost)) - jnp.sum(plan * pairs)


compiled_floor_free_monge_gap = jax.jit(floor_free_monge_gap, static_argnames="cost")


def energy_distance(x: jax.Array, y: jax.Array, wx: jax.Array, wy: jax.Array) -> jax.Array:
    """Unbiased energy distance ``2 E|x - y| - E|x - x'| - E|y - y'|`` of weighted cells; weights are 0 or equal."""

    def within(x: jax.Array, w: jax.Array) -> jax.Array:
        # The zero diagonal is left out, so that E|x - x'| is over distinct cells.
        return jnp.sum(w[:, None] * w[None, :] * _distances(x, x)) / (1.0 - jnp.sum(w**2))

    return 2.0 * jnp.sum(wx[:, None] * wy[None, :] * _distances(x, y)) - within(x, wx) - within(y, wy)


def _distances(x: jax.Array, y: jax.Array) -> jax.Array:
    return _safe_sqrt(_squared_distances(x, y))


OF_SQUARES = (costs.SqEuclidean, costs.Euclidean, costs.EuclideanP, costs.PNormP, costs.SqPNorm)


def _of_squared_distance(cost: Cost) -> Callable[[jax.Array], jax.Array] | None:
    """The cost as a function of the squared Euclidean distance; None for costs that are no such function."""
    if type(cost) not in OF_SQUARES:  # what derives from one of these may be another function
        return None
    match cost:
        case costs.SqEuclidean():
            return lambda squares: squares
        case costs.Euclidean():
            return _safe_sqrt
        case costs.EuclideanP():
            return lambda squares: _safe_sqrt(squares) ** cost.p
        case costs.PNormP(p=2) | costs.SqPNorm(p=2):
            return lambda squares: 0.5 * squares
    return None


def _squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    # Centring first: |x|^2 + |y|^2 - 2 x.y loses its digits when the cloud lies far from the origin.
    centre = jax.lax.stop_gradient(jnp.mean(y, axis=0))
    x, y = x - centre, y - centre
    # At full precision: a GPU's shortened products are wrong by a thousandth of |x|^2, and near cells come out as one.
    products = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(jnp.sum(x**2, 1)[:, None] + jnp.sum(y**2, 1)[None, :] - 2.0 * products, 0.0)


def _safe_sqrt(squares: jax.Array) -> jax.Array:
    # The gradient of the root is infinite at 0, where the map starts as the identity; it is taken as 0 there.
    zero = squares <= 0  # and not `squares > 0`, which would take what is not a number for 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squares)))
