"""Condition-level validation: maps that leave conditions out, and how well they predict these."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from scgap._losses import energy_distance
from scgap._map import Weights, transport
from scgap._populations import ConditionArrays, Populations, spread_cells
from scgap._train import MAX_VALIDATED, N_VALIDATED, Loss, Setup, TrainingData, fit

ITERS_SHARE = 5  # a fifth of the updates: unseen conditions gain little from more
BATCH_SIZE = 256  # at most, for the same reason


class Transfer(NamedTuple):
    """Maps for unseen conditions, and how well others predicted those that they had left out."""

    maps: list[Weights]
    """That know all conditions, and differ in the random numbers they started from."""
    left_out: np.ndarray
    """(n,) conditions that were left out."""
    errors: np.ndarray
    """(n, 2) energy distances to their cells: of control cells as they are, and of the prediction."""


def validate_conditions(
    starts: Sequence[Weights],
    folds: Sequence[np.ndarray],
    *,
    data: TrainingData,
    setup: Setup,
    loss: Loss,
    n_iters: int,
    learning_rate: float,
    key: jax.Array,
    on_map: Callable[[], object],
) -> Transfer:
    """Train a map without the conditions of each fold, and one on all conditions from each of ``starts``."""
    setup = setup._replace(batch_size=min(setup.batch_size, BATCH_SIZE))
    train = partial(
        fit,
        setup=setup,
        loss=loss,
        n_iters=-(-n_iters // ITERS_SHARE),
        learning_rate=learning_rate,
        on_report=lambda progress: None,
        keep_interrupted=False,
    )
    errors, maps = [], []
    for left_out in folds:
        weights, _ = train(starts[0], without := _without(data, left_out), key=key)
        which = np.arange(data.n_conditions - len(left_out), data.n_conditions)
        padded = np.pad(which, (0, -len(which) % MAX_VALIDATED))  # few shapes
        found = _errors(weights, without.train, without.conditions, jnp.asarray(padded), len(which), setup=setup)
        errors.append(np.asarray(found)[: len(which)])
        on_map()
    for i, start in enumerate(starts):
        maps.append(train(start, data, key=jax.random.fold_in(key, i))[0])
        on_map()
    return Transfer(maps, np.concatenate(folds), np.concatenate(errors))


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
    weights: Weights, cells: Populations, conditions: ConditionArrays, which: jax.Array, n: int, *, setup: Setup
) -> jax.Array:
    """Energy distances (len(which), 2) of source and mapped to observed cells, of the first n of the conditions."""

    def set_errors(rank: jax.Array, errors: jax.Array) -> jax.Array:
        i = which[rank]
        condition = jax.tree.map(lambda array: array[i], conditions)
        source, source_weights = spread_cells(cells, cells.source_of[i], N_VALIDATED)
        target, target_weights = spread_cells(cells, cells.target_of[i], N_VALIDATED)
        mapped = transport(setup.network, weights, source, condition)
        distances = [energy_distance(moved, target, source_weights, target_weights) for moved in (source, mapped)]
        return errors.at[rank].set(jnp.stack(distances))

    return lax.fori_loop(0, n, set_errors, jnp.zeros((len(which), 2)))
