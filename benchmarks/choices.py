"""What decided two choices of the core: where iterations start, and how several conditions a step are run."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from report import interleaved, markdown, seconds
from steps import COST, EPSILON, GAP_EPSILON, Problem, make_problem

from scgap import _losses, _sinkhorn
from scgap._populations import sample_cells

D = 50


def tables(*, quick: bool, rivals: bool) -> list[str]:
    del rivals
    sizes = (128,) if quick else (128, 512, 2_048)
    counts = (1, 4) if quick else (1, 4, 16)
    return [
        markdown("Warm starts: iterations and milliseconds to 1e-3", map(warm_start, sizes), WARM_NOTE),
        markdown("Several conditions a step: milliseconds a condition", map(several, counts), SEVERAL_NOTE),
    ]


def warm_start(n: int) -> dict:
    """The cross problem of a batch, from a cold start and from the potential of another batch of the same condition."""
    problem = make_problem(20_000, D, n)
    x, y, new_x, new_y = batches(problem, n, 4)
    old = jax.jit(_sinkhorn.solve)(_losses.cost_matrix(x, y, COST), EPSILON)
    pairs = _losses.cost_matrix(new_x, new_y, COST)

    def warm(old_f: jax.Array, x: jax.Array, new_y: jax.Array, pairs: jax.Array) -> _sinkhorn.Coupling:
        # The old source potential carried over to the new target cells, and taken from their cost: what the solver
        # finds comes on top of it.
        between = _losses.cost_matrix(x, new_y, COST)
        g = -EPSILON * logsumexp((old_f[:, None] - between) / EPSILON, axis=0)
        return _sinkhorn.solve(pairs - g[None, :], EPSILON)

    cold, warm = jax.jit(_sinkhorn.solve), jax.jit(warm)
    runs = {"cold": lambda: cold(pairs, EPSILON), "warm": lambda: warm(old.f, x, new_y, pairs)}
    iterations = {f"{name}, iterations": int(run().n_iters) for name, run in runs.items()}
    ms = interleaved({f"{name}, ms": lambda run=run: 1e3 * seconds(run) for name, run in runs.items()}, 9)
    return {"n": n, "d": D, **iterations, **ms}


def several(count: int, n: int = 512) -> dict:
    """Gradients of the fitting loss and the gap for several conditions, one after the other and vectorised."""
    problem = make_problem(20_000, D, n)
    points = jnp.stack(batches(problem, n, 4 * count)).reshape(count, 4, n, D)

    def loss(shift: jax.Array, cells: jax.Array) -> jax.Array:
        source, other, target, _ = cells
        fitting = _losses.sinkhorn_divergence(
            source + shift, other + shift, target, cost=COST, epsilon=EPSILON, target_term=0.0
        )
        return fitting + _losses.monge_gap(source, source + shift, cost=COST, epsilon=GAP_EPSILON)

    grad = partial(jax.grad(loss), jnp.full(D, 0.1))
    ways = {"lax.map": jax.jit(lambda p: lax.map(grad, p)), "vmap": jax.jit(jax.vmap(grad))}
    clocks = {name: lambda way=way: 1e3 * seconds(lambda: way(points)) / count for name, way in ways.items()}
    interleaved(clocks, 1)  # compiles
    return {"conditions": count, "n": n, "d": D, **interleaved(clocks, 9)}


def batches(problem: Problem, n: int, count: int) -> list[jax.Array]:
    """Batches of one condition: control and perturbed cells in turns."""
    populations = problem.populations
    of = [populations.source_of[0], populations.target_of[0]]
    return [sample_cells(jax.random.key(i), populations, of[i % 2], n) for i in range(count)]


WARM_NOTE = "A warm start pays for carrying the potential over: a cost matrix and a log-sum-exp, in its time."
SEVERAL_NOTE = "Losses and their gradients without the map."
