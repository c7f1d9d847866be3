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
from scgap._train import MAX_VALIDATED, N_VALIDATED, Loss, Setup, TrainingData, fit

OTHERS_SHARE, FOLDS_SHARE = 2, 5  # other maps run half of the updates; without some conditions, a fifth tells enough


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
        n = -(-n_iters // OTHERS_SHARE)
        yield _fit(start, data, setup, loss, n, learning_rate, jax.random.fold_in(key, i))


def leave_out(
    start: Weights,
    folds: Sequence[np.ndarray],
    by_parts: Sequence[np.ndarray],
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
    says of each fold's conditions whether what their members do alone is added up.
    """
    errors = []
    for left_out, is_sum in zip(folds, by_parts, strict=True):
        without = _without(data, left_out)
        weights = _fit(start, without, setup, loss, -(-n_iters // FOLDS_SHARE), learning_rate, key)
        which = np.arange(data.n_conditions - len(left_out), data.n_conditions)
        padding = 0, -len(which) % MAX_VALIDATED  # few shapes
        positions, sums = jnp.asarray(np.pad(which, padding)), jnp.asarray(np.pad(is_sum, padding))
        found = _errors(weights, without.train, without.conditions, positions, sums, len(which), setup=setup)
        errors.append(np.asarray(found)[: len(which)])
        on_map()
    return np.concatenate(errors)


def _fit(
    start: Weights, data: TrainingData, setup: Setup, loss: Loss, n_iters: int, learning_rate: float, key: jax.Array
) -> Weights:
    """A map that nothing is reported of."""
    return fit(
        start,
        data,
        setup,
        loss,
        n_iters=n_iters,
        learning_rate=learning_rate,
        key=key,
        on_report=lambda progress: None,
        keep_interrupted=False,
    )[0]


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
    n: int,
    *,
    setup: Setup,
) -> jax.Array:
    """Energy distances (len(which), 2) of source and mapped to observed cells, of the first n of the conditions."""

    def set_errors(rank: jax.Array, errors: jax.Array) -> jax.Array:
        i = which[rank]
        condition = jax.tree.map(lambda array: array[i], conditions)
        source, source_weights = spread_cells(cells, cells.source_of[i], N_VALIDATED)
        target, target_weights = spread_cells(cells, cells.target_of[i], N_VALIDATED)
        move = (partial(way, setup.network, weights, source, condition) for way in (transport_parts, transport))
        mapped = lax.cond(by_parts[rank], *move)
        distances = [energy_distance(moved, target, source_weights, target_weights) for moved in (source, mapped)]
        return errors.at[rank].set(jnp.stack(distances))

    return lax.fori_loop(0, n, set_errors, jnp.zeros((len(which), 2)))
