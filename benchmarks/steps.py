"""Training steps: scgap, OTT's losses, and the reference, on the same cells, network, epsilon and tolerance."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from anndata import AnnData
from ott.geometry import geometry, pointcloud
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn
from ott.tools.sinkhorn_divergence import sinkhorn_divergence
from report import interleaved, markdown, seconds
from rivals import Worker, write

from scgap import _losses, _sinkhorn, _train
from scgap._map import ConditionalMap, init_weights, transport
from scgap._populations import ConditionArrays, Populations, make_populations, sample_cells

HIDDEN = (64, 64, 64, 64)
EPSILON, GAP_EPSILON = 1.0, 0.01
COST = _losses.COSTS["euclidean"]
LOSS = _train.Loss(EPSILON, GAP_EPSILON, 1.0)
RATE = 1e-4  # the reference's


class Problem(NamedTuple):
    """Simulated cells under 9 drugs in 4 doses, as the core takes them, and as the rivals do."""

    cells: np.ndarray
    obs: pd.DataFrame
    populations: Populations
    conditions: ConditionArrays
    state: _train.State
    setup: _train.Setup


def make_problem(
    n_cells: int, d: int, batch_size: int, n_conditions: int = 36, hidden: tuple[int, ...] = HIDDEN
) -> Problem:
    """A third of the cells are controls; latent factors give them the correlations of an embedding."""
    rng = np.random.default_rng(0)
    of_cell = np.where(rng.random(n_cells) < 1 / 3, 0, rng.integers(1, n_conditions + 1, n_cells))
    loadings = rng.normal(size=(d, d)) * np.exp(-np.arange(d) / 10)[:, None]
    shifts = rng.normal(size=(n_conditions + 1, d)) * (np.arange(n_conditions + 1) > 0)[:, None]
    cells = ((rng.normal(size=(n_cells, d)) + 0.7 * shifts[of_cell]) @ loadings).astype(np.float32)
    populations = make_populations(cells, of_cell, [0] * n_conditions, range(1, n_conditions + 1))
    n_drugs = -(-n_conditions // 4)
    numbers = np.arange(len(populations.target_of)) % n_conditions
    conditions = ConditionArrays(
        np.stack([numbers // 4, *[np.zeros_like(numbers)] * 3], axis=1).astype(np.int32),
        np.stack([numbers % 4 - 1.5, *[np.zeros_like(numbers)] * 3], axis=1).astype(np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (len(numbers), 1)),
        np.zeros((len(numbers), 0), np.float32),
    )
    network = ConditionalMap(hidden)
    one = jax.tree.map(lambda array: array[0], conditions)
    weights = init_weights(network, 0, np.eye(n_drugs, dtype=np.float32), one, cells)
    setup = _train.Setup(network, COST, batch_size, 1, debias="independent", learn_encoding=False)
    state = _train.State(weights, weights, _train.OPTIMIZER.init({"network": weights["network"]}), jnp.int32(0))
    names = np.array(["control", *(f"drug{i // 4}" for i in range(n_conditions))])
    doses = np.array([0, *(10 ** (i % 4 + 1) for i in range(n_conditions))])
    obs = pd.DataFrame({"perturbation": names[of_cell], "dose": doses[of_cell]}, np.arange(n_cells).astype(str))
    return Problem(cells, obs, populations, jax.tree.map(jnp.asarray, conditions), state, setup)


def own_steps(problem: Problem, n_steps: int, debias: _train.Debias = "independent") -> tuple[_train.State, jax.Array]:
    """The product's loop, from the first step on."""
    n_conditions = problem.conditions.presence.shape[0]
    return _train._advance(
        problem.state,
        jax.random.key(0),
        problem.populations,
        problem.conditions,
        n_conditions,
        jnp.zeros(n_conditions),
        LOSS,
        RATE,
        10_000,
        n_steps,
        setup=problem.setup._replace(debias=debias),
    )


def ott_steps(problem: Problem, loss: Callable[..., jax.Array], n_steps: int) -> _train.State:
    """The same steps with another loss, one compiled step at a time, as OTT's own estimator runs them."""
    state = problem.state
    for i in range(n_steps):
        state = _ott_step(
            state, jax.random.key(i), problem.populations, problem.conditions, setup=problem.setup, loss=loss
        )
    return state


@partial(jax.jit, static_argnames=("setup", "loss"))
def _ott_step(state, key, populations, conditions, *, setup, loss):
    which, of_source, of_target = jax.random.split(key, 3)
    i = jax.random.randint(which, (), 0, conditions.presence.shape[0])
    condition = jax.tree.map(lambda array: array[i], conditions)
    source = sample_cells(of_source, populations, populations.source_of[i], setup.batch_size)
    target = sample_cells(of_target, populations, populations.target_of[i], setup.batch_size)

    def of_network(network_weights):
        return loss(
            source, transport(setup.network, state.weights | {"network": network_weights}, source, condition), target
        )

    gradient = {"network": jax.grad(of_network)(state.weights["network"])}
    trainable = {"network": state.weights["network"]}
    updates, moments = _train.OPTIMIZER.update(gradient, state.moments, trainable)
    weights = state.weights | jax.tree.map(lambda w, update: w - RATE * update, trainable, updates)
    return state._replace(weights=weights, moments=moments, iteration=state.iteration + 1)


def on_point_clouds(source: jax.Array, mapped: jax.Array, target: jax.Array) -> jax.Array:
    """OTT's losses as its users and the reference call them."""
    fitting, _ = sinkhorn_divergence(pointcloud.PointCloud, mapped, target, cost_fn=COST, epsilon=EPSILON)
    geom = pointcloud.PointCloud(source, mapped, cost_fn=COST, epsilon=GAP_EPSILON)
    w = sinkhorn.Sinkhorn()(linear_problem.LinearProblem(geom)).ent_reg_cost
    return fitting + jnp.mean(_losses.paired_cost(source, mapped, COST)) - w


def on_geometries(source: jax.Array, mapped: jax.Array, target: jax.Array) -> jax.Array:
    """OTT's solver on cost matrices that are computed once."""

    def solution(x: jax.Array, y: jax.Array, epsilon: float) -> sinkhorn.SinkhornOutput:
        geom = geometry.Geometry(cost_matrix=_losses.cost_matrix(x, y, COST), epsilon=epsilon)
        return sinkhorn.Sinkhorn()(linear_problem.LinearProblem(geom))

    fitting = solution(mapped, target, EPSILON).reg_ot_cost - 0.5 * solution(mapped, mapped, EPSILON).reg_ot_cost
    gap = jnp.mean(_losses.paired_cost(source, mapped, COST)) - solution(source, mapped, GAP_EPSILON).ent_reg_cost
    return fitting + gap


def floor(problem: Problem, iterations: int) -> dict[str, Callable[[], float]]:
    """Clocks of the arithmetic that no step can do without, each in seconds of a whole step."""
    n = problem.setup.batch_size
    x, y = (jnp.asarray(problem.cells[i * n : (i + 1) * n]) for i in range(2))
    square, column = jax.random.uniform(jax.random.key(0), (n, n)), jnp.ones(n)
    condition = jax.tree.map(lambda array: array[0], problem.conditions)
    weights = problem.state.weights

    def moved(network_weights):
        return transport(
            problem.setup.network, weights | {"network": network_weights}, jnp.concatenate([x, y]), condition
        ).sum()

    def clock(run: Callable[..., jax.Array], *arguments: object, times: float) -> Callable[[], float]:
        compiled = jax.jit(run)
        jax.block_until_ready(compiled(*arguments))
        return lambda: times * seconds(lambda: [compiled(*arguments) for _ in range(10)]) / 10

    return {
        "cost matrices": clock(lambda x, y: x @ y.T, x, y, times=3),
        "exponentials": clock(jnp.exp, square, times=3),
        # Many in one call: a single product of this kind is over before a call has begun.
        "iterations": clock(
            lambda k, v: jax.lax.fori_loop(0, 100, lambda _, v: k @ (v @ k) / n**2, v),
            square,
            column,
            times=iterations / 100,
        ),
        "gradients": clock(lambda p, y: p @ y, square, y, times=4),
        "map": clock(jax.grad(moved), weights["network"], times=1),
    }


def marginals(problem: Problem, state: _train.State) -> dict[str, str]:
    """Iterations and marginal error of the cross, self and gap problems of one batch, by own solver and by OTT's."""
    n = problem.setup.batch_size
    i = 0
    condition = jax.tree.map(lambda array: array[i], problem.conditions)
    keys = jax.random.split(jax.random.key(1), 3)
    sources = [sample_cells(key, problem.populations, problem.populations.source_of[i], n) for key in keys[:2]]
    target = sample_cells(keys[2], problem.populations, problem.populations.target_of[i], n)
    mapped, other = (transport(problem.setup.network, state.weights, source, condition) for source in sources)
    problems = [(mapped, target, EPSILON), (mapped, other, EPSILON), (sources[0], mapped, GAP_EPSILON)]
    found: dict[str, list[str]] = {"scgap": [], "OTT": []}
    for x, y, epsilon in problems:
        cost = _losses.cost_matrix(x, y, COST)
        own = jax.jit(_sinkhorn.solve)(cost, epsilon)
        geom = geometry.Geometry(cost_matrix=cost, epsilon=epsilon)
        theirs = jax.jit(sinkhorn.Sinkhorn())(linear_problem.LinearProblem(geom))
        errors = np.asarray(theirs.errors)
        found["scgap"].append(f"{int(own.n_iters)} ({float(own.error):.0e})")
        found["OTT"].append(f"{int(theirs.n_iters)} ({errors[errors >= 0][-1]:.0e})")
    return {name: ", ".join(values) for name, values in found.items()}


def total_iterations(described: str) -> int:
    return sum(int(part.split()[0]) for part in described.split(", "))


def tables(*, quick: bool, rivals: bool) -> list[str]:
    sizes = [(128, 11)] if quick else [(n, d) for n in (128, 512, 2_048) for d in (11, 50, 200)]
    measured = [measure(n, d, rivals=rivals) for n, d in sizes]
    steps, floors, solvers = zip(*measured, strict=True)
    return [
        markdown("Milliseconds a step", steps, STEPS_NOTE),
        markdown("The floor of the same step, from measured primitives, in milliseconds", floors, FLOOR_NOTE),
        markdown("Iterations (and marginal error) of the cross, self and gap problems after 100 steps", solvers),
    ]


def measure(n: int, d: int, *, rivals: bool) -> tuple[dict, dict, dict]:
    """Rows of the three tables for batches of n cells with d features."""
    print(f"steps: n={n}, d={d}", flush=True)
    problem = make_problem(20_000, d, n)
    trained, _ = own_steps(problem, 100)
    solved = marginals(problem, trained)
    few = max(2, 2_048 // n)
    clocks = {
        "scgap": lambda: seconds(lambda: own_steps(problem, 50)) / 50,
        "scgap, same batch": lambda: seconds(lambda: own_steps(problem, 50, "same")) / 50,
        "OTT Geometry": lambda: seconds(lambda: ott_steps(problem, on_geometries, 10)) / 10,
        "OTT PointCloud": lambda: seconds(lambda: ott_steps(problem, on_point_clouds, few)) / few,
    }
    if rivals:
        worker = cmonge(problem)
        clocks["cmonge step"] = lambda: worker.call("step", n_steps=few)["seconds"] / few
        clocks["cmonge loop"] = lambda: worker.call("train", n_steps=few)["seconds"] / few
    parts = floor(problem, total_iterations(solved["scgap"]))
    interleaved(clocks, 1)  # compiles
    measured = interleaved(clocks | parts, rounds=2 if n > 1_000 else 5)
    if rivals:
        worker.close()
    ms = {name: 1e3 * value for name, value in measured.items()}
    lowest = sum(ms[name] for name in parts)
    ratios = {f"{name} / scgap": ms[name] / ms["scgap"] for name in clocks if name != "scgap"}
    size = {"n": n, "d": d}
    return (
        {**size, **{name: ms[name] for name in clocks}, **ratios},
        {**size, **{name: ms[name] for name in parts}, "floor": lowest, "scgap / floor": ms["scgap"] / lowest},
        {**size, "mean cost": mean_cost(problem), **solved},
    )


def cmonge(problem: Problem) -> Worker:
    """The reference's trainer on the same cells."""
    folder = Path(tempfile.mkdtemp())
    write(folder, AnnData(problem.cells, problem.obs.assign(split="train")), {"dose_col": "dose"})
    worker = Worker("cmonge")
    worker.call(
        "load",
        folder=str(folder),
        batch_size=problem.setup.batch_size,
        hidden=list(HIDDEN),
        n_iters=10_000,
        epsilon=EPSILON,
        gap_epsilon=GAP_EPSILON,
        learning_rate=RATE,
    )
    return worker


def mean_cost(problem: Problem) -> float:
    x, y = problem.cells[:1_000], problem.cells[-1_000:]
    return float(_losses.cost_matrix(jnp.asarray(x), jnp.asarray(y), COST).mean())


STEPS_NOTE = """\
One condition a step, Euclidean cost, epsilon 1 and 0.01, tolerance 1e-3, four hidden layers of 64, the first steps of
training. scgap maps two batches of n cells (its self term is between independent ones); "same batch" is its form of the
papers' loss, which maps one, as the others do. The reference's step is its compiled step on batches made beforehand;
its loop adds its sampling and logging."""
FLOOR_NOTE = """\
Three cost matrices, three exponentials of n x n, two matrix-vector products an iteration, four products of a plan with
points, and the map's own forward and backward pass on 2n cells. Each is timed alone and writes its result to memory,
which a fused step need not: where the ratio is below 1, as with large batches, the sum is no floor."""
