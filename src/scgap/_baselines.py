"""What a prediction has to beat: closed forms on plain arrays (n_cells, n_features), from training cells alone."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import NamedTuple

import numpy as np

from scgap._conditions import Condition, Group
from scgap._gaussian import Gaussian, fit_gaussian, gaussian_map, make_basis
from scgap._messages import listed
from scgap._mixture import draw_mixture
from scgap._ridge import MIN_CONDITIONS, Ridge, fit_ridge, predict_shift
from scgap._stand_ins import stand_ins

NO_CELLS = "no training cells of a perturbed condition"
NO_SHIFTS = "no training condition whose group has training controls"
NOTHING_NEAR = "no training condition to compare with"


class Training(NamedTuple):
    """What baselines know, and what follows from it."""

    cells: Mapping[Condition, np.ndarray]
    """Training cells (n_cells, n_features) of every condition that has any, controls included."""
    descriptors: Mapping[str, np.ndarray]
    """Perturbation -> (n_descriptors,), standardised; empty without an encoding."""
    nonnegative: bool
    """Whether predictions are clipped at 0."""
    controls: Mapping[Group, Gaussian]
    """Group -> its control population."""
    shifts: Mapping[Condition, np.ndarray]
    """Perturbed condition -> its mean less that of its group's controls (n_features,), where there are any."""
    average: np.ndarray
    """Mean (n_features,) of the shifts; zeros if there are none."""
    basis: np.ndarray
    """(n_features, n_directions) in which covariances are."""
    ridge: Ridge | None
    """None with too few conditions."""


type Prediction = np.ndarray | str
"""Predicted cells (n_cells, n_features), one for each source cell, or the reason why there are none."""
type Baseline = Callable[[Training, Condition, np.ndarray, np.random.Generator], Prediction]
"""Called with training, condition, control cells of its group (n_cells, n_features) and a generator."""


def learn(
    cells: Mapping[Condition, np.ndarray], descriptors: Mapping[str, np.ndarray], *, nonnegative: bool
) -> Training:
    """Put together what baselines need from training cells (n_cells, n_features) and descriptors (n_descriptors,)."""
    cells = {_in_order(condition): population for condition, population in cells.items() if len(population)}
    basis = make_basis(list(cells.values())) if cells else np.zeros((0, 0), np.float32)
    controls = {
        condition.group: fit_gaussian(population, basis)
        for condition, population in cells.items()
        if condition.is_control
    }
    shifts = {
        condition: population.mean(0, dtype=np.float64) - controls[condition.group].mean
        for condition, population in cells.items()
        if not condition.is_control and condition.group in controls
    }
    average = np.mean(list(shifts.values()), axis=0) if shifts else np.zeros(len(basis))
    vectors = _standardise(descriptors)
    return Training(cells, vectors, nonnegative, controls, shifts, average, basis, fit_ridge(shifts, vectors))


def halves(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of cells in random order: how well one predicts the other is the ceiling of every method."""
    return cells[: len(cells) // 2], cells[len(cells) // 2 :]


def identity(
    training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator
) -> Prediction:
    """Control cells as they are."""
    return source


def _finished(predict: Baseline) -> Baseline:
    """The baseline for members in any order, in the type of the source and clipped where it has to be."""

    @wraps(predict)
    def baseline(
        training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator
    ) -> Prediction:
        cells = predict(training, _in_order(condition), source, generator)
        if isinstance(cells, str):
            return cells
        return (np.maximum(cells, 0.0) if training.nonnegative else cells).astype(source.dtype, copy=False)

    return baseline


@_finished
def training_cells(
    training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator
) -> Prediction:
    """Perturbed training cells of the group, else of all groups, every condition alike.

    Their mean is the "mean of the training perturbations" of Ahlmann-Eltze, Huber & Anders (2025).
    """
    perturbed = _perturbed(training)
    chosen = [other for other in perturbed if other.group == condition.group] or perturbed
    return _draw(training, dict.fromkeys(chosen, 1.0), len(source), generator) if chosen else NO_CELLS


@_finished
def average_shift(
    training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator
) -> Prediction:
    """Control cells moved by the average mean shift of all training conditions, whatever was asked for."""
    return source + training.average if training.shifts else NO_SHIFTS


@_finished
def mean_shift(
    training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator
) -> Prediction:
    """Control cells moved by the condition's own mean shift: right means, and the shape of the controls.

    Where it has none, by the average of its group's conditions, else of all.
    """
    if not training.shifts:
        return NO_SHIFTS
    if condition in training.shifts:
        return source + training.shifts[condition]
    of_group = [shift for other, shift in training.shifts.items() if other.group == condition.group]
    return source + (np.mean(of_group, axis=0) if of_group else training.average)


@_finished
def additive(
    training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator
) -> Prediction:
    """Control cells moved by the sum of the shifts that the parts of a combination have alone.

    At the same dose and time, in the same group if measured there, else on average over the others.
    """
    if len(condition.members) < 2:
        return "not a combination"
    parts = [_shift_anywhere(training, condition._replace(members=(member,))) for member in condition.members]
    missing = [name for (name, _), part in zip(condition.members, parts, strict=True) if part is None]
    if missing:
        return f"not measured alone: {listed(missing)}"
    return source + np.sum([part for part in parts if part is not None], axis=0)


@_finished
def gaussian(
    training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator
) -> Prediction:
    """Control cells moved by the optimal transport map between Gaussians: right means and covariances.

    Where the condition was not trained, by the average displacement over its stand-ins, each with the controls of its
    own group.
    """
    if condition in training.shifts:
        return source + _displacement(training, condition, source)
    shares = stand_ins(list(training.shifts), training.descriptors, condition)
    if not shares:
        return NOTHING_NEAR if training.shifts else NO_SHIFTS
    return source + sum(share * _displacement(training, other, source) for other, share in shares.items())


@_finished
def nearest(training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator) -> Prediction:
    """Measured cells of the stand-ins of a condition that was not trained."""
    if condition in training.cells:
        return "measured: the condition's own cells would be a replicate"
    perturbed = _perturbed(training)
    shares = stand_ins(perturbed, training.descriptors, condition)
    if not shares:
        return NOTHING_NEAR if perturbed else NO_CELLS
    return _draw(training, shares, len(source), generator)


@_finished
def ridge(training: Training, condition: Condition, source: np.ndarray, generator: np.random.Generator) -> Prediction:
    """Control cells moved by the shift that a ridge regression predicts from perturbations, doses, group and time."""
    if training.ridge is None:
        return f"fewer than {MIN_CONDITIONS} training conditions with a shift and a vector"
    shift = predict_shift(training.ridge, condition)
    return shift if isinstance(shift, str) else source + shift


BASELINES: dict[str, Baseline] = {
    "identity": identity,
    "training_cells": training_cells,
    "average_shift": average_shift,
    "mean_shift": mean_shift,
    "additive": additive,
    "gaussian": gaussian,
    "nearest": nearest,
    "ridge": ridge,
}
PERMUTED = "permuted_conditions"
TAKEN = frozenset({*BASELINES, PERMUTED, "ceiling"})  # names of methods that everything is held against


def _in_order(condition: Condition) -> Condition:
    """Members by name, so that equal sets are equal."""
    return condition._replace(members=tuple(sorted(condition.members)))


def _perturbed(training: Training) -> list[Condition]:
    return [condition for condition in training.cells if not condition.is_control]


def _shift_anywhere(training: Training, condition: Condition) -> np.ndarray | None:
    """The shift (n_features,) of a condition in its group, else its average over other groups, else None."""
    if condition in training.shifts:
        return training.shifts[condition]
    shifts = [shift for other, shift in training.shifts.items() if other._replace(group=condition.group) == condition]
    return np.mean(shifts, axis=0) if shifts else None


def _displacement(training: Training, condition: Condition, source: np.ndarray) -> np.ndarray:
    """How far the map from the group's controls to a trained condition moves cells (n_cells, n_features)."""
    controls, basis = training.controls[condition.group], training.basis
    matrix = gaussian_map(controls, fit_gaussian(training.cells[condition], basis, controls))
    # Across the basis there is the shift alone.
    stretch = (source - controls.mean) @ basis @ (matrix - np.eye(len(matrix))) @ basis.T
    return training.shifts[condition] + stretch


def _draw(training: Training, shares: Mapping[Condition, float], n: int, generator: np.random.Generator) -> np.ndarray:
    """Training cells (n, n_features) of conditions by their shares."""
    return draw_mixture([training.cells[condition] for condition in shares], list(shares.values()), n, generator)


def _standardise(descriptors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each descriptor with mean 0 and standard deviation 1 over all perturbations; constant ones are 0."""
    if not descriptors:
        return {}
    values = np.array(list(descriptors.values()), float)
    spread = values.std(0)
    varies = spread > 1e-9 * np.abs(values).max(0)
    scaled = (values - values.mean(0)) / np.where(varies, spread, np.inf)
    return dict(zip(descriptors, scaled, strict=True))
