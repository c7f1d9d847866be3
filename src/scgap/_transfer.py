"""Beside the map of a fit: others of the same conditions, and some that leave conditions out, to tell how they do."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from scgap._losses import energy_distance
from scgap._map import Weights, transport, transport_parts
from scgap._populations import ConditionArrays, Populations, spread_cells
from scgap._train import MAX_VALIDATED, N_REPORTS, N_VALIDATED, Loss, Setup, TrainingData, fit, spread_evenly

OTHERS_SHARE, FOLDS_SHARE = 2, 5  # other maps run half of the updates; without some conditions, a fifth tells enough
DETAILS = (1.0, 0.75, 0.5, 0.25, 0.0)  # of what sets a cell apart, where effects are added up

_fit = partial(fit, on_report=lambda progress: None, keep_interrupted=False)  # a map that nothing is reported of


def fit_others(
    starts: Sequence[Weights],
    *,
    data: TrainingData,
    setup: Setup,
    loss: Loss,
    n_iters: int,
    learning_rate: float,
    key: jax.Array,
) -> Iterator[Weights]:
    """Train a map of all conditions from each of ``starts``, one after the other."""
    for i, start in enumerate(starts, start=1):
        n, own_key = -(-n_iters // OTHERS_SHARE), jax.random.fold_in(key, i)
        weights, _ = _fit(start, data, setup, loss, n_iters=n, learning_rate=learning_rate, key=own_key)
        yield weights


def choose_detail(weights: Weights, combinations: np.ndarray, *, data: TrainingData, setup: Setup) -> float:
    """The one of DETAILS with which sums of what perturbations do alone are nearest to what they did together.

    Judged by the trained combinations of these positions; all of the detail, where there are none.
    """
    if not len(combinations):
        return DETAILS[0]
    judged = spread_evenly(combinations, MAX_VALIDATED)
    errors = _sum_errors(weights, data.train, data.conditions, *judged, setup=setup)
    return DETAILS[int(np.argmin(errors))]


def leave_out(
    start: Weights,
    folds: Sequence[np.ndarray],
    by_parts: Sequence[np.ndarray],
    combinations: Sequence[np.ndarray],
    *,
    data: TrainingData,
    setup: Setup,
    loss: Loss,
    n_iters: int,
    learning_rate: float,
    key: jax.Array,
    on_map: Callable[[], object],
) -> np.ndarray:
    """Train a map without the conditions of each fold; return the errors (n_left_out, 2) of these, fold by fold.

    They are energy distances to the observed cells: of control cells as they are, and of the prediction. ``by_parts``
    says of each fold's conditions whether what their members do alone is added up, with the detail that is chosen by
    the fold's trained ``combinations``, whose positions are among its trained conditions.
    """
    errors = []
    for left_out, is_sum, judges in zip(folds, by_parts, combinations, strict=True):
        without = _without(data, left_out)
        n, n_reports = -(-n_iters // FOLDS_SHARE), -(-N_REPORTS // FOLDS_SHARE)  # too few to stop early
        weights, _ = _fit(
            start, without, setup, loss, n_iters=n, learning_rate=learning_rate, key=key, n_reports=n_reports
        )
        detail = choose_detail(weights, judges, data=without, setup=setup)
        which = np.arange(data.n_conditions - len(left_out), data.n_conditions)
        padding = 0, -len(which) % MAX_VALIDATED  # few shapes
        positions, sums = jnp.asarray(np.pad(which, padding)), jnp.asarray(np.pad(is_sum, padding))
        found = _errors(weights, without.train, without.conditions, positions, sums, detail, len(which), setup=setup)
        errors.append(np.asarray(found)[: len(which)])
        on_map()
    return np.concatenate(errors)


def _without(data: TrainingData, left_out: np.ndarray) -> TrainingData:
    """The same cells, with these of the trained conditions last, where they neither train nor validate."""
    kept = np.setdiff1d(np.arange(data.n_conditions), left_out)
    order = np.concatenate([kept, left_out, np.arange(data.n_conditions, len(data.train.target_of))])
    train, valid = (
        part._replace(source_of=part.source_of[order], target_of=part.target_of[order])
        for part in (data.train, data.valid)
    )
    conditions = jax.tree.map(lambda array: array[order], data.conditions)
    # A group without a trained condition is unseen: its place in the context has no trained weights.
    context = np.asarray(conditions.context)
    known = (context[: len(kept)] != 0).any(0)
    conditions = conditions._replace(context=jnp.asarray(context * known))
    validated = np.flatnonzero(np.isin(order, data.validated) & ~np.isin(order, left_out))
    return TrainingData(train, valid, conditions, len(kept), validated)


@partial(jax.jit, static_argnames="setup")
def _errors(
    weights: Weights,
    cells: Populations,
    conditions: ConditionArrays,
    which: jax.Array,
    by_parts: jax.Array,
    detail: float,
    n: int,
    *,
    setup: Setup,
) -> jax.Array:
    """Energy distances (len(which), 2) of source and mapped to observed cells, of the first n of the conditions."""

    def set_errors(rank: jax.Array, errors: jax.Array) -> jax.Array:
        condition, source, distance = _asked(cells, conditions, which[rank])
        move = partial(transport, setup.network, weights, source, condition)
        move_by_parts = partial(transport_parts, setup.network, weights, source, condition, detail)
        mapped = lax.cond(by_parts[rank], move_by_parts, move)
        return errors.at[rank].set(jnp.stack([distance(source), distance(mapped)]))

    return lax.fori_loop(0, n, set_errors, jnp.zeros((len(which), 2)))


@partial(jax.jit, static_argnames="setup")
def _sum_errors(
    weights: Weights, cells: Populations, conditions: ConditionArrays, which: jax.Array, n: int, *, setup: Setup
) -> jax.Array:
    """Energy distances (len(DETAILS),) of sums to observed cells, averaged over the first n of the conditions."""

    def add_errors(rank: jax.Array, total: jax.Array) -> jax.Array:
        condition, source, distance = _asked(cells, conditions, which[rank])
        add_up = partial(transport_parts, setup.network, weights, source, condition)
        return total + lax.map(lambda detail: distance(add_up(detail)), jnp.array(DETAILS))

    return lax.fori_loop(0, n, add_errors, jnp.zeros(len(DETAILS))) / n


def _asked(
    cells: Populations, conditions: ConditionArrays, i: jax.Array
) -> tuple[ConditionArrays, jax.Array, Callable[[jax.Array], jax.Array]]:
    """A condition, cells of its controls, and the energy distance of as many cells to what was observed."""
    source, source_weights = spread_cells(cells, cells.source_of[i], N_VALIDATED)
    target, target_weights = spread_cells(cells, cells.target_of[i], N_VALIDATED)

    def distance(moved: jax.Array) -> jax.Array:
        return energy_distance(moved, target, source_weights, target_weights)

    return jax.tree.map(lambda array: array[i], conditions), source, distance
