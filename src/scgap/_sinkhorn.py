"""Entropic optimal transport on a cost matrix.

Potentials are normalised as in Feydy et al. (2019): ``P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon)``. OTT keeps the
weights inside its potentials (``f_ott = f + epsilon log a``); with uniform weights the two differ by a constant.

How the iterations differ from a textbook solver, and why:

* They run on scalings ``u, v`` of a kernel that already holds the potentials, so that a step costs two matrix-vector
  products instead of two log-sum-exps of the whole matrix. The scalings are absorbed into the potentials every
  ``CHECK_EVERY`` iterations, when the marginal error is looked at anyway.
* Where convergence is slow, updates are over-relaxed (Thibault et al. 2021): by the factor that is optimal for the
  rate at which the error falls, which is measured from block to block (Young's relation for over-relaxation). A block
  in which the error grows is followed by a plain one.
* A kernel entry smaller than float32 can hold is lost. That is harmless while no scaling is large, so a block of
  iterations whose scalings leave ``[1 / SAFE, SAFE]`` is thrown away and repeated in the log domain.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

CHECK_EVERY = 10  # iterations between two looks at the marginal error: OTT's `inner_iterations`
THRESHOLD = 1e-3  # L1 marginal error at which to stop: OTT's default
MAX_ITERS = 2_000  # OTT's default

# Lost kernel entries are below 1e-38; scaled by SAFE on both sides they stay below 1e-14, against marginals of 1e-4.
SAFE = 1e12

SLOWEST = 0.999  # rate of plain iterations that the over-relaxation allows for


class Coupling(NamedTuple):
    """Solution of an entropic transport problem between n and m points."""

    f: jax.Array
    """(n,) potential of the source."""
    g: jax.Array
    """(m,) potential of the target."""
    n_iters: jax.Array
    """Iterations that were run."""
    error: jax.Array
    """L1 distance between the coupling's column sums and the target weights."""


def solve(
    cost: jax.Array,
    epsilon: float | jax.Array,
    a: jax.Array | None = None,
    b: jax.Array | None = None,
    *,
    threshold: float = THRESHOLD,
    max_iters: int = MAX_ITERS,
) -> Coupling:
    """Sinkhorn's algorithm for an (n, m) cost, weights ``a`` (n,) and ``b`` (m,), uniform by default."""
    a, b = _weights(cost, a, b)
    log_a, log_b = _log(a), _log(b)

    def row_update(g: jax.Array) -> jax.Array:
        return -epsilon * logsumexp((g[None, :] - cost) / epsilon + log_b[None, :], axis=1)

    def column_update(f: jax.Array) -> jax.Array:
        return -epsilon * logsumexp((f[:, None] - cost) / epsilon + log_a[:, None], axis=0)

    def scaled_block(f: jax.Array, g: jax.Array, relaxation: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        kernel = _kernel(cost, f, g, epsilon)

        def iterate(_: jax.Array, scalings: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            u, v = scalings
            v = v ** (1.0 - relaxation) / ((a * u) @ kernel) ** relaxation
            return u ** (1.0 - relaxation) / (kernel @ (b * v)) ** relaxation, v

        _, v = lax.fori_loop(0, CHECK_EVERY, iterate, (jnp.ones_like(f), jnp.ones_like(g)))
        u = 1.0 / (kernel @ (b * v))  # not relaxed, so that the plan's rows are exact
        error = jnp.sum(b * jnp.abs(v * ((a * u) @ kernel) - 1.0))
        # Rows and columns without weight are in no danger: nothing is carried through them.
        safe = _in_range(u, a) & _in_range(v, b)
        return _absorb(f, u, epsilon), _absorb(g, v, epsilon), jnp.where(safe, error, jnp.inf)

    def log_block(f: jax.Array, g: jax.Array, relaxation: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def iterate(_: int, potentials: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            f, g = potentials
            g = g + relaxation * (column_update(f) - g)
            return f + relaxation * (row_update(g) - f), g

        _, g = lax.fori_loop(0, CHECK_EVERY, iterate, (f, g))
        f = row_update(g)
        return f, g, jnp.sum(b * jnp.abs(jnp.exp((g - column_update(f)) / epsilon) - 1.0))

    f = jnp.min(jnp.where(b > 0, cost, jnp.inf), axis=1)
    return _run(f, jnp.zeros_like(b), scaled_block, log_block, threshold, max_iters)


def solve_symmetric(
    cost: jax.Array,
    epsilon: float | jax.Array,
    a: jax.Array | None = None,
    *,
    threshold: float = THRESHOLD,
    max_iters: int = MAX_ITERS,
) -> Coupling:
    """The same for a population against itself: a symmetric (n, n) cost, one potential, averaged updates.

    Halving each update's step makes the fixed-point map a contraction that needs a handful of iterations
    (Feydy et al. 2019, eq. 25).
    """
    a, _ = _weights(cost, a, a)
    log_a = _log(a)

    def update(f: jax.Array) -> jax.Array:
        return -epsilon * logsumexp((f[None, :] - cost) / epsilon + log_a[None, :], axis=1)

    def scaled_block(f: jax.Array, *_: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        kernel = _kernel(cost, f, f, epsilon)
        u = lax.fori_loop(0, CHECK_EVERY, lambda _, u: jnp.sqrt(u / (kernel @ (a * u))), jnp.ones_like(f))
        return normalise(_absorb(f, u, epsilon), u * (kernel @ (a * u)), _in_range(u, a))

    def log_block(f: jax.Array, *_: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        f = lax.fori_loop(0, CHECK_EVERY, lambda _, f: 0.5 * (f + update(f)), f)
        return normalise(f, jnp.exp((f - update(f)) / epsilon), True)

    def normalise(f: jax.Array, rows: jax.Array, safe: jax.Array | bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        # An averaged update leaves the plan's mass near one; the shift that makes it one maximises the dual.
        f = f - 0.5 * epsilon * jnp.log(jnp.dot(a, rows))
        return f, f, jnp.where(safe, jnp.sum(a * jnp.abs(rows - 1.0)), jnp.inf)

    f = jnp.zeros_like(a)
    return _run(f, f, scaled_block, log_block, threshold, max_iters)


@jax.custom_vjp
def transport_cost(cost: jax.Array, epsilon: float | jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Entropic cost ``<P, C> + epsilon KL(P | a b)`` of an (n, m) cost; its gradient in the cost is the plan P.

    By the envelope theorem nothing is differentiated through the iterations. OTT calls this value `reg_ot_cost`.
    Epsilon and weights are taken for constants: their gradient is not the true one but 0.
    """
    return _dual_value(solve(cost, epsilon, a, b), a, b)


def _transport_cost_fwd(
    cost: jax.Array, epsilon: float | jax.Array, a: jax.Array, b: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    coupling = solve(cost, epsilon, a, b)
    return _dual_value(coupling, a, b), (plan(cost, coupling, epsilon, a, b), a, b)


def _transport_cost_bwd(
    residuals: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, None, jax.Array, jax.Array]:
    coupling_matrix, a, b = residuals
    return cotangent * coupling_matrix, None, jnp.zeros_like(a), jnp.zeros_like(b)


transport_cost.defvjp(_transport_cost_fwd, _transport_cost_bwd)


@jax.custom_vjp
def self_transport_cost(cost: jax.Array, epsilon: float | jax.Array, a: jax.Array) -> jax.Array:
    """`transport_cost` of a population with itself, by the symmetric solver."""
    return 2.0 * jnp.dot(a, solve_symmetric(cost, epsilon, a).f)


def _self_transport_cost_fwd(
    cost: jax.Array, epsilon: float | jax.Array, a: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    coupling = solve_symmetric(cost, epsilon, a)
    return 2.0 * jnp.dot(a, coupling.f), (plan(cost, coupling, epsilon, a, a), a)


def _self_transport_cost_bwd(
    residuals: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, None, jax.Array]:
    coupling_matrix, a = residuals
    return cotangent * coupling_matrix, None, jnp.zeros_like(a)


self_transport_cost.defvjp(_self_transport_cost_fwd, _self_transport_cost_bwd)


def plan(
    cost: jax.Array,
    coupling: Coupling,
    epsilon: float | jax.Array,
    a: jax.Array | None = None,
    b: jax.Array | None = None,
) -> jax.Array:
    """The (n, m) transport plan P of a solution."""
    a, b = _weights(cost, a, b)
    # Weights go into the exponent: the kernel at points without weight may be infinite, and 0 * inf is not a number.
    log_weights = _log(a)[:, None] + _log(b)[None, :]
    return jnp.exp((coupling.f[:, None] + coupling.g[None, :] - cost) / epsilon + log_weights)


def uniform(n: int) -> jax.Array:
    """Uniform weights (n,)."""
    return jnp.full(n, 1.0 / n, jnp.float32)


def _run(f, g, scaled_block, log_block, threshold, max_iters):  # type: ignore[no-untyped-def]
    """Blocks of iterations until the marginal error is small; a block that left the safe range is repeated in logs."""

    def block(state):  # type: ignore[no-untyped-def]
        f, g, n_iters, last_error, relaxation = state
        # A loop of at most one turn and not a `cond`: under vmap a `cond` runs both branches for every problem, this
        # runs the log domain only if some problem needs it.
        (f, g, error), _ = lax.while_loop(
            lambda state: state[1],
            lambda _: (log_block(f, g, relaxation), jnp.bool_(False)),
            ((result := scaled_block(f, g, relaxation)), ~jnp.isfinite(result[2])),
        )
        return f, g, n_iters + CHECK_EVERY, error, _next_relaxation(relaxation, error / last_error)

    def unfinished(state):  # type: ignore[no-untyped-def]
        return (state[3] > threshold) & (state[2] < max_iters)

    start = (f, g, jnp.int32(0), jnp.float32(jnp.inf), jnp.float32(1.0))
    return Coupling(*lax.while_loop(unfinished, block, start)[:4])


def _next_relaxation(relaxation: jax.Array, ratio: jax.Array) -> jax.Array:
    """The optimal factor for the rate seen in a block, whose error fell by ``ratio`` under the present factor."""
    rate = jnp.clip(ratio ** (1.0 / CHECK_EVERY), jnp.maximum(relaxation - 1.0, 1e-6), 1.0)
    plain_rate = jnp.minimum((rate + relaxation - 1.0) ** 2 / (relaxation**2 * rate), SLOWEST)
    # The first block has no error to compare with (ratio 0), and starts plainly.
    return jnp.where((ratio > 0.0) & (ratio < 1.0), 2.0 / (1.0 + jnp.sqrt(1.0 - plain_rate)), 1.0)


def _dual_value(coupling: Coupling, a: jax.Array, b: jax.Array) -> jax.Array:
    # The last update was of f, so the plan's mass is one and the dual's mass term is zero.
    return jnp.dot(a, coupling.f) + jnp.dot(b, coupling.g)


def _kernel(cost: jax.Array, f: jax.Array, g: jax.Array, epsilon: float | jax.Array) -> jax.Array:
    return jnp.exp((f[:, None] + g[None, :] - cost) / epsilon)


def _absorb(potential: jax.Array, scaling: jax.Array, epsilon: float | jax.Array) -> jax.Array:
    # The clip only touches blocks that are repeated, and points without weight, whose potential must stay finite.
    return potential + epsilon * jnp.log(jnp.clip(scaling, 1 / SAFE, SAFE))


def _in_range(scaling: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.all((weight == 0) | ((scaling > 1 / SAFE) & (scaling < SAFE)))


def _log(weight: jax.Array) -> jax.Array:
    return jnp.where(weight > 0, jnp.log(jnp.where(weight > 0, weight, 1.0)), -jnp.inf)


def _weights(cost: jax.Array, a: jax.Array | None, b: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    return uniform(cost.shape[0]) if a is None else a, uniform(cost.shape[1]) if b is None else b
