"""Training: one compiled loop a report, in which neither cells nor losses leave the device."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from scgap._losses import (
    Cost,
    Scalar,
    cost_matrix,
    energy_distance,
    floor_free_monge_gap,
    monge_gap,
    sinkhorn_divergence,
    transport_cost,
)
from scgap._map import ConditionalMap, Weights, transport
from scgap._populations import ConditionArrays, Populations, sample_cells, sample_independent, spread_cells

N_REPORTS = 40  # a report costs one look at the validation cells and one host sync
PATIENCE = 12  # reports without a better validation score before training stops
MAX_VALIDATED = 64  # conditions looked at in a report, evenly spread over all
N_VALIDATED = 256  # cells of each of them
WARM_UP = 0.03  # fraction of the iterations
FINAL_RATE = 0.01  # of the learning rate, at the end of the cosine
AVERAGING = 0.02  # of the weights, each iteration: noise of single steps does not decide which weights are best
WEIGHT_DECAY = 1e-5  # the papers' value

# The rate is applied by hand, so that changing it or the number of iterations compiles nothing anew.
OPTIMIZER = optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam(), optax.add_decayed_weights(WEIGHT_DECAY))


class Loss(NamedTuple):
    """What training minimises; scalars are traced, so changing one compiles nothing anew."""

    epsilon: Scalar
    gap_epsilon: Scalar
    gap_weight: Scalar


class Report(NamedTuple):
    """One row of the history."""

    iteration: int
    fitting_loss: float
    """Sinkhorn divergence on training batches, averaged over the iterations since the last report."""
    monge_gap: float
    """Floor-free Monge gap on held-out control cells, averaged over conditions."""
    valid: float
    """Unbiased energy distance between mapped and observed held-out cells, averaged over conditions."""


class State(NamedTuple):
    """What an update changes."""

    weights: Weights
    average: Weights
    """Exponential moving average of the weights: what is validated and kept."""
    moments: Any
    """Of the optimiser."""
    iteration: jax.Array


class Progress(NamedTuple):
    """A run at a report: `fit` goes on from it exactly as if it had not been broken off."""

    state: State
    best: Weights
    history: list[Report]


def fit(
    network: ConditionalMap,
    weights: Weights,
    train: Populations,
    valid: Populations,
    conditions: ConditionArrays,
    n_conditions: int,
    validated: np.ndarray,
    *,
    cost: Cost,
    loss: Loss,
    n_iters: int,
    batch_size: int,
    conditions_per_step: int,
    learning_rate: float,
    learn_encoding: bool,
    seed: int,
    on_report: Callable[[Progress], None],
    resume: Callable[[Progress], Progress] = lambda fresh: fresh,
) -> tuple[Weights, list[Report]]:
    """Train on the first ``n_conditions`` and return the weights that score best on ``validated``, and the history.

    ``resume`` may replace a fresh run by one that was broken off.

    Raises
    ------
    FloatingPointError
        The loss is no longer finite.
    """
    key = jax.random.key(seed)
    target_terms = _target_terms(key, train, cost, loss.epsilon, batch_size)
    advance = partial(
        _advance,
        network=network,
        cost=cost,
        batch_size=batch_size,
        conditions_per_step=conditions_per_step,
        learn_encoding=learn_encoding,
        vectorised=jax.default_backend() != "cpu",  # a CPU's cache holds one problem, a GPU is filled by many
    )
    validate = partial(_validate, network=network, cost=cost)
    looked_at = jnp.asarray(_spread(validated, MAX_VALIDATED), jnp.int32)
    fresh = State(weights, weights, OPTIMIZER.init(_trainable(weights, learn_encoding)), jnp.int32(0))
    state, best, history = resume(Progress(fresh, weights, []))
    every = max(1, -(-n_iters // N_REPORTS))
    try:
        while int(state.iteration) < n_iters and not _is_stale(history):
            n_steps = min(every, n_iters - int(state.iteration))
            state, fitting_loss = advance(
                state, key, train, conditions, n_conditions, target_terms, loss, learning_rate, n_iters, n_steps
            )
            distance, gap = validate(state.average, valid, conditions, looked_at, loss.gap_epsilon)
            # Here the host waits for the device, and nowhere within a report.
            report = Report(int(state.iteration), float(fitting_loss), float(gap), float(distance))
            if not np.isfinite(report.fitting_loss + report.valid):
                raise FloatingPointError(_not_finite(report, history, loss))
            history = [*history, report]
            best = state.average if _reports_since_best(history) == 0 else best
            on_report(Progress(state, best, history))
    except KeyboardInterrupt:
        if not history:
            raise
        warnings.warn(
            f"Interrupted at iteration {int(state.iteration)} of {n_iters}: the best weights so far are kept.",
            stacklevel=3,
        )
    return best, history


@partial(
    jax.jit,
    static_argnames=("network", "cost", "batch_size", "conditions_per_step", "learn_encoding", "vectorised"),
)
def _advance(
    state: State,
    key: jax.Array,
    train: Populations,
    conditions: ConditionArrays,
    n_conditions: int,
    target_terms: jax.Array,
    loss: Loss,
    learning_rate: float,
    n_iters: int,
    n_steps: int,
    *,
    network: ConditionalMap,
    cost: Cost,
    batch_size: int,
    conditions_per_step: int,
    learn_encoding: bool,
    vectorised: bool,
) -> tuple[State, jax.Array]:
    """Run ``n_steps`` updates; return the new state and the mean fitting loss."""

    def condition_loss(trainable: Weights, weights: Weights, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        which, of_source, of_target = jax.random.split(key, 3)
        i = jax.random.randint(which, (), 0, n_conditions)
        condition = jax.tree.map(lambda array: array[i], conditions)
        sources = sample_independent(of_source, train, train.source_of[i], batch_size)
        target = sample_cells(of_target, train, train.target_of[i], batch_size)
        mapped, other_mapped = transport(network, weights | trainable, sources, condition)
        fitting_loss = sinkhorn_divergence(
            mapped, other_mapped, target, cost=cost, epsilon=loss.epsilon, target_term=target_terms[i]
        )
        gap = monge_gap(sources[0], mapped, cost=cost, epsilon=loss.gap_epsilon)
        return fitting_loss + loss.gap_weight * gap, fitting_loss

    def step(_: int, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, total = carry
        keys = jax.random.split(jax.random.fold_in(key, state.iteration), conditions_per_step)
        trainable = _trainable(state.weights, learn_encoding)
        grad = partial(jax.grad(condition_loss, has_aux=True), trainable, state.weights)
        grads, fitting_losses = jax.vmap(grad)(keys) if vectorised else lax.map(grad, keys)
        updates, moments = OPTIMIZER.update(jax.tree.map(lambda g: g.mean(0), grads), state.moments, trainable)
        rate = learning_rate * _schedule(state.iteration / n_iters)
        weights = state.weights | jax.tree.map(lambda w, update: w - rate * update, trainable, updates)
        average = jax.tree.map(lambda mean, w: mean + AVERAGING * (w - mean), state.average, weights)
        return State(weights, average, moments, state.iteration + 1), total + fitting_losses.mean()

    state, total = lax.fori_loop(0, n_steps, step, (state, jnp.float32(0.0)))
    return state, total / n_steps


@partial(jax.jit, static_argnames=("network", "cost"))
def _validate(
    weights: Weights,
    valid: Populations,
    conditions: ConditionArrays,
    which: jax.Array,
    gap_epsilon: Scalar,
    *,
    network: ConditionalMap,
    cost: Cost,
) -> tuple[jax.Array, jax.Array]:
    """Energy distance and Monge gap on held-out cells, averaged over the conditions ``which``."""

    def score(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        condition = jax.tree.map(lambda array: array[i], conditions)
        source, source_weights = spread_cells(valid, valid.source_of[i], N_VALIDATED)
        target, target_weights = spread_cells(valid, valid.target_of[i], N_VALIDATED)
        mapped = transport(network, weights, source, condition)
        gap = floor_free_monge_gap(source, mapped, source_weights, cost=cost, epsilon=gap_epsilon)
        return energy_distance(mapped, target, source_weights, target_weights), gap

    distances, gaps = lax.map(score, which)
    return distances.mean(), gaps.mean()


@partial(jax.jit, static_argnames=("cost", "batch_size"))
def _target_terms(key: jax.Array, train: Populations, cost: Cost, epsilon: Scalar, batch_size: int) -> jax.Array:
    """Half the entropic cost between independent batches of each condition's target cells (n_conditions,)."""

    def term(population: jax.Array) -> jax.Array:
        one, other = sample_independent(jax.random.fold_in(key, population), train, population, batch_size)
        return 0.5 * transport_cost(one, other, cost=cost, epsilon=epsilon)

    return lax.map(term, train.target_of)


def _reports_since_best(history: list[Report]) -> int:
    return len(history) - 1 - int(np.argmin([report.valid for report in history]))


def _is_stale(history: list[Report]) -> bool:
    return bool(history) and _reports_since_best(history) >= PATIENCE


def _trainable(weights: Weights, learn_encoding: bool) -> Weights:
    names = ("network", "encoding") if learn_encoding else ("network",)
    return {name: weights[name] for name in names}


def _spread(items: np.ndarray, n: int) -> np.ndarray:
    """At most n of the items, evenly spread."""
    return items[np.unique(np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int))]


def _schedule(progress: jax.Array) -> jax.Array:
    """Linear warm-up, then a cosine to FINAL_RATE."""
    cosine = FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.minimum(progress / WARM_UP, 1.0) * cosine


def _not_finite(report: Report, history: list[Report], loss: Loss) -> str:
    last = f"{history[-1].fitting_loss:.4g} at iteration {history[-1].iteration}" if history else "none"
    return (
        f"The fitting loss is {report.fitting_loss} at iteration {report.iteration} (last finite value: {last}; "
        f"epsilon={float(loss.epsilon):.4g}, gap_epsilon={float(loss.gap_epsilon):.4g}). "
        "Lower learning_rate, raise epsilon, or scale features that are larger than the others by orders of magnitude."
    )


def mean_cost(train: Populations, n_conditions: int, *, cost: Cost) -> float:
    """Mean cost between cells of one perturbed population, averaged over (at most 16) conditions."""
    costs = []
    for i in _spread(np.arange(n_conditions), 16):
        cells, weights = spread_cells(train, train.target_of[i], N_VALIDATED)
        costs.append(weights @ cost_matrix(cells, cells, cost) @ weights)
    return float(np.mean(costs))
