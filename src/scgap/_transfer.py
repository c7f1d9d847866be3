"""Condition-level validation: maps that leave conditions out, and what these say of conditions nobody measured."""

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
from scgap._train import MAX_VALIDATED, N_VALIDATED, Loss, Progress, Setup, TrainingData, fit

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the displacement: from the identity to all of it
ITERS_SHARE = 5  # unseen conditions are predicted best by short runs: a fifth of the updates
BATCH_SIZE = 256  # at most, as half the cells tell as well when to stop


class Transfer(NamedTuple):
    """Maps for unseen conditions, and how well others predicted those that they had left out."""

    maps: list[Weights]
    """That know all conditions, and differ in the random numbers they started from."""
    iteration: int
    """Updates of each."""
    left_out: np.ndarray
    """(n,) conditions that were left out."""
    errors: np.ndarray
    """(n, n_scales) energy distances to their cells, for each of SCALES; those of 0 are the identity's."""


class _Run(NamedTuple):
    """A fold's weights and errors (n_left_out, n_scales) at every report."""

    iterations: list[int]
    weights: list[Weights]
    errors: list[np.ndarray]


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
    on_fold: Callable[[], object],
) -> Transfer:
    """Train one map a fold without its conditions, and one on all conditions from each of ``starts``.

    Kept are the last weights, or earlier ones where those predict left-out conditions evidently better.
    """
    setup = setup._replace(batch_size=min(setup.batch_size, BATCH_SIZE))
    n_iters = -(-n_iters // ITERS_SHARE)
    settings = {"n_iters": n_iters, "learning_rate": learning_rate}
    nothing = np.zeros(0, int)
    runs, whole = [], []
    for left_out in folds:
        runs.append(_run(starts[0], data, setup, loss, left_out, {**settings, "key": key}))
        on_fold()
    for i, weights in enumerate(starts):
        whole.append(_run(weights, data, setup, loss, nothing, {**settings, "key": jax.random.fold_in(key, i)}))
        on_fold()
    longest = max(runs, key=lambda run: len(run.iterations))
    # A run that was stopped had nothing to gain: its last errors stand for later ones.
    curves = np.concatenate([_at_reports(run.errors, len(longest.iterations)) for run in runs], axis=1)
    best = evident_choice(curves[:, :, -1].T)
    maps = [run.weights[min(best, len(run.weights) - 1)] for run in whole]
    return Transfer(maps, longest.iterations[best], np.concatenate(folds), curves[best])


def evident_choice(errors: np.ndarray) -> int:
    """Which of several choices to make by errors (n, n_choices) of left-out conditions: the last, which is the default.

    Unless another is better by more than the standard error of the difference. With few conditions, of which one has
    most of the effect, the least mean is chance: the choices it made were worse than none.
    """
    gains = errors[:, -1:] - errors
    standard_error = gains.std(0, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    evident = np.where(gains.mean(0) > standard_error, gains.mean(0), 0.0)
    return int(evident.argmax()) if evident.any() else errors.shape[1] - 1


def _run(
    weights: Weights, data: TrainingData, setup: Setup, loss: Loss, left_out: np.ndarray, settings: dict[str, object]
) -> _Run:
    run = _Run([], [], [])
    # In units of MAX_VALIDATED, for few shapes.
    positions = data.n_conditions - len(left_out) + np.arange(len(left_out))
    which = jnp.asarray(np.pad(positions, (0, -len(positions) % MAX_VALIDATED)), jnp.int32)
    if len(left_out):
        data = _without(data, left_out)

    def on_report(progress: Progress) -> None:
        average = progress.state.average
        run.iterations.append(int(progress.state.iteration))
        run.weights.append(jax.tree.map(np.asarray, average))
        if len(left_out):
            errors = _errors(average, data.valid, data.conditions, which, len(left_out), setup=setup)
            run.errors.append(np.asarray(errors)[: len(left_out)])

    fit(weights, data, setup, loss, on_report=on_report, keep_interrupted=False, **settings)  # type: ignore[arg-type]
    return run


def _without(data: TrainingData, left_out: np.ndarray) -> TrainingData:
    """The same cells, with these of the trained conditions last, where they validate and do not train."""
    kept = np.setdiff1d(np.arange(data.n_conditions), left_out)
    order = np.concatenate([kept, left_out, np.arange(data.n_conditions, len(data.train.target_of))])
    train = data.train._replace(source_of=data.train.source_of[order], target_of=data.train.target_of[order])
    conditions = jax.tree.map(lambda array: array[order[: len(array)]], data.conditions)
    # A group without a trained condition is unseen: its place in the context has no trained weights.
    context = np.asarray(conditions.context)
    known = (context[: len(kept)] != 0).any(0)
    conditions = conditions._replace(context=jnp.asarray(context * known))
    return TrainingData(train, train, conditions, len(kept), np.arange(len(kept), data.n_conditions))


@partial(jax.jit, static_argnames="setup")
def _errors(
    weights: Weights, cells: Populations, conditions: ConditionArrays, which: jax.Array, n: int, *, setup: Setup
) -> jax.Array:
    """Energy distances (len(which), n_scales) of mapped to observed cells, of the first n of the conditions."""

    def set_errors(rank: jax.Array, errors: jax.Array) -> jax.Array:
        i = which[rank]
        condition = jax.tree.map(lambda array: array[i], conditions)
        source, source_weights = spread_cells(cells, cells.source_of[i], N_VALIDATED)
        target, target_weights = spread_cells(cells, cells.target_of[i], N_VALIDATED)
        displacement = transport(setup.network, weights, source, condition) - source
        distances = [
            energy_distance(source + scale * displacement, target, source_weights, target_weights) for scale in SCALES
        ]
        return errors.at[rank].set(jnp.stack(distances))

    return lax.fori_loop(0, n, set_errors, jnp.zeros((len(which), len(SCALES))))


def _at_reports(errors: list[np.ndarray], n: int) -> np.ndarray:
    """Errors (n, n_left_out, n_scales) at the first n reports, the last ones repeated."""
    return np.stack([errors[min(i, len(errors) - 1)] for i in range(n)])
