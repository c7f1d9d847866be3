"""Beside the map of a fit: others of the same conditions, and some that leave conditions out, to tell how they do."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from scgap._losses import energy_distance
from scgap._map import Weights, transport_parts
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


def fit_without(
    start: Weights,
    folds: Sequence[np.ndarray],
    combinations: Sequence[np.ndarray],
    *,
    data: TrainingData,
    setup: Setup,
    loss: Loss,
    n_iters: int,
    learning_rate: float,
    key: jax.Array,
) -> Iterator[tuple[Weights, float]]:
    """Train a map without the conditions of each fold, and choose its detail of sums.

    By the fold's trained ``combinations``, whose positions are among its trained conditions.
    """
    for left_out, judges in zip(folds, combinations, strict=True):
        kept = _without(data, left_out)
        n, n_reports = -(-n_iters // FOLDS_SHARE), -(-N_REPORTS // FOLDS_SHARE)  # too few to stop early
        weights, _ = _fit(
            start, kept, setup, loss, n_iters=n, learning_rate=learning_rate, key=key, n_reports=n_reports
        )
        yield weights, choose_detail(weights, judges, data=kept, setup=setup)


def transfer_errors(move: Callable[[np.ndarray], np.ndarray], cells: Populations, i: int) -> tuple[float, float]:
    """Energy distances of a condition's controls to its observed cells: as they are, and as they are moved."""
    source, source_weights, target, target_weights = _cells_of(cells, i)
    moved = move(np.asarray(source))
    before, after = (_distance(points, target, source_weights, target_weights) for points in (source, moved))
    return float(before), float(after)


def _without(data: TrainingData, left_out: np.ndarray) -> TrainingData:
    """The same cells, with these of the trained conditions last, where they neither train nor validate."""
    kept = np.setdiff1d(np.arange(data.n_conditions), left_out)
    order = np.concatenate([kept, left_out, np.arange(data.n_conditions, len(data.train.target_of))])
    train, valid = (
        part._replace(source_of=part.source_of[order], target_of=part.target_of[order])
        for part in (data.train, data.valid)
    )
    conditions = jax.tree.map(lambda array: array[order], data.conditions)
    # A group without a trained condition has no trained weights at its place in the context, also to validate with.
    context = np.asarray(conditions.context)
    is_trained = (context[: len(kept)] != 0).any(0)
    conditions = conditions._replace(context=jnp.asarray(context * is_trained))
    validated = np.flatnonzero(np.isin(order, data.validated) & ~np.isin(order, left_out))
    return TrainingData(train, valid, conditions, len(kept), validated)


@partial(jax.jit, static_argnames="setup")
def _sum_errors(
    weights: Weights, cells: Populations, conditions: ConditionArrays, which: jax.Array, n: int, *, setup: Setup
) -> jax.Array:
    """Energy distances (len(DETAILS),) of sums to observed cells, averaged over the first n of the conditions."""

    def add_errors(rank: jax.Array, total: jax.Array) -> jax.Array:
        source, source_weights, target, target_weights = _cells_of(cells, which[rank])
        condition = jax.tree.map(lambda array: array[which[rank]], conditions)

        def error(detail: jax.Array) -> jax.Array:
            moved = transport_parts(setup.network, weights, source, condition, detail)
            return energy_distance(moved, target, source_weights, target_weights)

        return total + lax.map(error, jnp.array(DETAILS))

    return lax.fori_loop(0, n, add_errors, jnp.zeros(len(DETAILS))) / n


@jax.jit
def _cells_of(cells: Populations, i: jax.Array | int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Controls and observed cells of a condition, each with their weights, as `spread_cells` gives them."""
    source, target = (spread_cells(cells, of[i], N_VALIDATED) for of in (cells.source_of, cells.target_of))
    return *source, *target


_distance = jax.jit(energy_distance)
