"""Training: one compiled loop a report, in which neither cells nor losses leave the device."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

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
    self_cost,
    sinkhorn_divergence,
    transport_cost,
)
from scgap._map import ConditionalMap, Weights, transport
from scgap._populations import ConditionArrays, Populations, sample_cells, sample_independent, spread_cells

N_REPORTS = 40  # a report costs one look at the validation cells and one host sync
PATIENCE = 12  # reports, and
PATIENT_ITERS = 500  # updates, without a better validation score before training stops: ten times what is averaged
MAX_VALIDATED = 64  # conditions looked at in a report, evenly spread over all
N_VALIDATED = 256  # cells of each of them, and
N_MOVED = 512  # controls that are moved to them: with 1,024 training stops in the same places
BASE_BATCH = 512  # cells for which the learning rate is given
GHOST_BATCH = 1_024  # cells at most in one transport problem
WARM_UP = 0.03  # fraction of the iterations
FINAL_RATE = 0.01  # of the learning rate, at the end of the cosine
AVERAGING = 0.02  # of the weights, each iteration: noise of single steps does not decide which weights are best
WEIGHT_DECAY = 1e-5  # the papers' value
SMALLEST = 1e-16  # gradient that Adam takes for one: it has the unit of the cost, and so that of the features
MOST_PROGRAMS = 32  # kept of each kind; with what else a fit of another shape compiles they take 40 MB each

# The rate is applied by hand, so that changing it or the number of iterations compiles nothing anew.
# Flat, for one operation on all weights is compiled, and run, faster than one on each of many small arrays.
OPTIMIZER = optax.flatten(
    optax.chain(
        optax.clip_by_global_norm(10.0), optax.scale_by_adam(eps=SMALLEST), optax.add_decayed_weights(WEIGHT_DECAY)
    )
)


type Debias = Literal["independent", "same"]


class TrainingData(NamedTuple):
    """Cells and conditions of a run."""

    train: Populations
    valid: Populations
    conditions: ConditionArrays
    n_conditions: int
    """The first so many conditions are trained on."""
    validated: np.ndarray
    """Indices of the conditions that have held-out cells."""


class Setup(NamedTuple):
    """What is compiled into the loop: another setup compiles anew."""

    network: ConditionalMap
    cost: Cost
    batch_size: int
    conditions_per_step: int
    debias: Debias
    learn_encoding: bool


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
    """Floor-free Monge gap on control cells, averaged over conditions."""
    valid: float
    """Unbiased energy distance between mapped controls and observed held-out cells, averaged over conditions."""


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


class Diverged(FloatingPointError):
    """A loss is not finite; with the best weights before, and the history to then."""

    def __init__(self, message: str, best: Weights, history: list[Report]) -> None:
        super().__init__(message)
        self.best, self.history = best, history


def fit(
    weights: Weights,
    data: TrainingData,
    setup: Setup,
    loss: Loss,
    *,
    n_iters: int,
    learning_rate: float,
    key: jax.Array,
    on_report: Callable[[Progress], None],
    resume: Callable[[Progress], Progress] = lambda fresh: fresh,
    keep_interrupted: bool = True,
    n_reports: int = N_REPORTS,
) -> tuple[Weights, list[Report]]:
    """Train, and return the weights that score best on held-out cells, and the history.

    The regime of Hoffer et al. (2017): whatever the batch size, the number of updates stays; the rate, given for
    BASE_BATCH cells, grows with the root of the batch size; a large batch is split into ghost batches, each with a
    transport problem of its own, so that time and memory grow with its size and not with its square.

    ``resume`` may replace a fresh run by one that was broken off. Ctrl-C ends the run with its best weights, unless
    ``keep_interrupted`` is False.

    Raises
    ------
    Diverged
        A loss is no longer finite.
    """
    if _target_terms._cache_size() >= MOST_PROGRAMS:  # type: ignore[attr-defined]  # JAX has no public count
        jax.clear_caches()  # by itself it keeps thousands of programs
    target_terms = _target_terms(key, data.train, loss.epsilon, setup=setup)
    learning_rate *= float(np.sqrt(setup.batch_size / BASE_BATCH))
    looked_at = spread_evenly(data.validated, MAX_VALIDATED)
    fresh = State(weights, weights, OPTIMIZER.init(_trainable(weights, setup)), jnp.int32(0))
    state, best, history = resume(Progress(fresh, weights, []))
    every = max(1, -(-n_iters // n_reports))
    try:
        while int(state.iteration) < n_iters and not _is_stale(history):
            n_steps = min(every, n_iters - int(state.iteration))
            state, fitting_loss = _advance(
                state,
                key,
                data.train,
                data.conditions,
                data.n_conditions,
                target_terms,
                loss,
                learning_rate,
                n_iters,
                n_steps,
                setup=setup,
            )
            distance, gap = _validate(
                state.average, data.valid, data.conditions, *looked_at, loss.gap_epsilon, setup=setup
            )
            # Here the host waits for the device, and nowhere within a report.
            report = Report(int(state.iteration), float(fitting_loss), float(gap), float(distance))
            if not np.isfinite(report.fitting_loss + report.valid):
                raise Diverged(_not_finite(report, history, loss), best, history)
            history = [*history, report]
            best = state.average if _reports_since_best(history) == 0 else best
            on_report(Progress(state, best, history))
    except KeyboardInterrupt:
        if not history or not keep_interrupted:
            raise
        warnings.warn(
            f"Interrupted at iteration {int(state.iteration)} of {n_iters}: the best weights so far are kept.",
            stacklevel=3,
        )
    return best, history


@partial(jax.jit, static_argnames="setup")
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
    setup: Setup,
) -> tuple[State, jax.Array]:
    """Run ``n_steps`` updates; return the new state and the mean fitting loss."""
    n_ghosts, n_cells = _ghost_batches(setup.batch_size)
    vectorised = jax.default_backend() != "cpu"  # a CPU's cache holds one problem, a GPU is filled by many

    def loss_of(
        trainable: Weights, weights: Weights, batch: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        i, key = batch
        of_source, of_target = jax.random.split(key)
        condition = jax.tree.map(lambda array: array[i], conditions)
        sources = _sample_batches(of_source, train, train.source_of[i], n_cells, setup.debias)
        target = sample_cells(of_target, train, train.target_of[i], n_cells)
        mapped = transport(setup.network, weights | trainable, sources, condition)
        other_mapped = mapped[1] if setup.debias == "independent" else None
        fitting_loss = sinkhorn_divergence(
            mapped[0], other_mapped, target, cost=setup.cost, epsilon=loss.epsilon, target_term=target_terms[i]
        )
        gap = monge_gap(sources[0], mapped[0], cost=setup.cost, epsilon=loss.gap_epsilon)
        return fitting_loss + loss.gap_weight * gap, fitting_loss

    def step(_: int, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, total = carry
        of_conditions, of_cells = jax.random.split(jax.random.fold_in(key, state.iteration))
        drawn = jnp.repeat(jax.random.randint(of_conditions, (setup.conditions_per_step,), 0, n_conditions), n_ghosts)
        batches = drawn, jax.random.split(of_cells, len(drawn))
        trainable = _trainable(state.weights, setup)
        grad = partial(jax.grad(loss_of, has_aux=True), trainable, state.weights)
        grads, fitting_losses = jax.vmap(grad)(batches) if vectorised else lax.map(grad, batches)
        updates, moments = OPTIMIZER.update(jax.tree.map(lambda g: g.mean(0), grads), state.moments, trainable)
        rate = learning_rate * _schedule((state.iteration + 1) / n_iters)
        weights = state.weights | jax.tree.map(lambda w, update: w - rate * update, trainable, updates)
        average = jax.tree.map(lambda mean, w: mean + AVERAGING * (w - mean), state.average, weights)
        return State(weights, average, moments, state.iteration + 1), total + fitting_losses.mean()

    state, total = lax.fori_loop(0, n_steps, step, (state, jnp.float32(0.0)))
    return state, total / n_steps


@partial(jax.jit, static_argnames="setup")
def _validate(
    weights: Weights,
    valid: Populations,
    conditions: ConditionArrays,
    which: jax.Array,
    n: int,
    gap_epsilon: Scalar,
    *,
    setup: Setup,
) -> jax.Array:
    """Energy distance to held-out cells and Monge gap, averaged over the first n of the conditions ``which``."""

    def add_scores(rank: jax.Array, total: jax.Array) -> jax.Array:
        i = which[rank]
        condition = jax.tree.map(lambda array: array[i], conditions)
        source, source_weights = spread_cells(valid, valid.source_of[i], N_MOVED)
        target, target_weights = spread_cells(valid, valid.target_of[i], N_VALIDATED)
        mapped = transport(setup.network, weights, source, condition)
        distance = energy_distance(mapped, target, source_weights, target_weights)
        # Of fewer cells: a transport problem costs more than the distance, and nothing is chosen by it.
        source, source_weights = spread_cells(valid, valid.source_of[i], N_VALIDATED)
        mapped = transport(setup.network, weights, source, condition)
        gap = floor_free_monge_gap(source, mapped, source_weights, cost=setup.cost, epsilon=gap_epsilon)
        return total + jnp.stack([distance, gap])

    return lax.fori_loop(0, n, add_scores, jnp.zeros(2)) / n


@partial(jax.jit, static_argnames="setup")
def _target_terms(key: jax.Array, train: Populations, epsilon: Scalar, *, setup: Setup) -> jax.Array:
    """Half the entropic self cost of each condition's target cells (n_conditions,), as the divergence takes its own."""
    _, n_cells = _ghost_batches(setup.batch_size)

    def term(i: jax.Array) -> jax.Array:
        # Counted from the other end than the iterations, which fold in theirs.
        own_key = jax.random.fold_in(key, jnp.uint32(2**32 - 1) - i.astype(jnp.uint32))
        batches = _sample_batches(own_key, train, train.target_of[i], n_cells, setup.debias)
        if setup.debias == "independent":
            return 0.5 * transport_cost(*batches, cost=setup.cost, epsilon=epsilon)
        return 0.5 * self_cost(batches[0], cost=setup.cost, epsilon=epsilon)

    return lax.map(term, jnp.arange(len(train.target_of)))


@partial(jax.jit, static_argnames="cost")
def _mean_cost(train: Populations, which: jax.Array, n: int, *, cost: Cost) -> jax.Array:
    def add_cost(rank: jax.Array, total: jax.Array) -> jax.Array:
        cells, weights = spread_cells(train, train.target_of[which[rank]], N_VALIDATED)
        return total + weights @ cost_matrix(cells, cells, cost) @ weights

    return lax.fori_loop(0, n, add_cost, jnp.float32(0.0)) / n


def _sample_batches(key: jax.Array, train: Populations, population: jax.Array, n: int, debias: Debias) -> jax.Array:
    """The batch and, unless its self term is taken on itself, an independent one: (2 or 1, n, n_features)."""
    if debias == "independent":
        return sample_independent(key, train, population, n)
    return sample_cells(key, train, population, n)[None]


def _ghost_batches(batch_size: int) -> tuple[int, int]:
    """Into how many ghost batches a batch is split, and the cells in each."""
    n_ghosts = -(-batch_size // GHOST_BATCH)
    return n_ghosts, -(-batch_size // n_ghosts)


def _reports_since_best(history: list[Report]) -> int:
    return len(history) - 1 - int(np.argmin([report.valid for report in history]))


def _is_stale(history: list[Report]) -> bool:
    since = _reports_since_best(history) if history else 0
    return since >= PATIENCE and history[-1].iteration - history[-1 - since].iteration >= PATIENT_ITERS


def is_complete(history: list[Report], n_iters: int) -> bool:
    """Whether a run has come to its end, early or not, and was not interrupted."""
    return not history or history[-1].iteration >= n_iters or _is_stale(history)


def _trainable(weights: Weights, setup: Setup) -> Weights:
    names = ("network", "encoding") if setup.learn_encoding else ("network",)
    return {name: weights[name] for name in names}


def spread_evenly(items: np.ndarray, most: int) -> tuple[jax.Array, int]:
    """At most ``most`` of the items, evenly spread, padded to that length; and how many they are."""
    n = min(most, len(items))
    taken = items[np.linspace(0, len(items) - 1, n).round().astype(int)]
    return jnp.asarray(np.pad(taken, (0, most - n)), jnp.int32), n


def _schedule(progress: jax.Array) -> jax.Array:
    """Linear warm-up, then a cosine to FINAL_RATE."""
    cosine = FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.minimum(progress / WARM_UP, 1.0) * cosine


def _not_finite(report: Report, history: list[Report], loss: Loss) -> str:
    last = f"{history[-1].fitting_loss:.4g} at iteration {history[-1].iteration}" if history else "none"
    return (
        f"At iteration {report.iteration} the fitting loss is {report.fitting_loss:.4g} and the validation score "
        f"{report.valid:.4g} (last finite loss: {last}; epsilon={float(loss.epsilon):.4g}, "
        f"gap_epsilon={float(loss.gap_epsilon):.4g}). "
        "Lower learning_rate, raise epsilon, or scale features that are larger than the others by orders of magnitude."
    )


def mean_cost(train: Populations, n_conditions: int, *, cost: Cost) -> float:
    """Mean cost between cells of one perturbed population, averaged over (at most 16) conditions."""
    return float(_mean_cost(train, *spread_evenly(np.arange(n_conditions), 16), cost=cost))
