"""Ridge regression from a condition to its mean shift."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from scgap._conditions import Condition, Group
from scgap._encoding import mean_and_spread
from scgap._messages import listed

MIN_CONDITIONS = 3
PENALTIES = np.logspace(-3, 6, 19)  # of standardised columns: from none to nothing but the average shift


class Ridge(NamedTuple):
    """A fitted regression, and how conditions become its rows."""

    vectors: Mapping[str, np.ndarray]
    """Perturbation -> (n_descriptors,)."""
    dose_scale: tuple[float, float]
    """Mean and standard deviation of the logarithms of the training doses."""
    groups: Sequence[Group]
    """Those that were trained on."""
    column_scale: tuple[np.ndarray, np.ndarray]
    """Mean and standard deviation (n_columns,) of the columns; infinite where a column is constant."""
    coefficients: np.ndarray
    """(n_columns, n_features)"""
    average: np.ndarray
    """(n_features,) mean shift of the training conditions."""


def fit_ridge(shifts: Mapping[Condition, np.ndarray], vectors: Mapping[str, np.ndarray]) -> Ridge | None:
    """Fit mean shifts (n_features,), of conditions whose perturbations have vectors; None if these are too few.

    Without any vectors (n_descriptors,) they are one-hot.
    """
    names = sorted({name for condition in shifts for name, _ in condition.members})
    vectors = vectors or dict(zip(names, np.eye(len(names)), strict=True))
    known = [condition for condition in shifts if all(name in vectors for name, _ in condition.members)]
    if len(known) < MIN_CONDITIONS:
        return None
    doses = np.log([dose for condition in known for _, dose in condition.members if dose is not None])
    dose_scale = mean_and_spread(doses)
    groups = sorted({condition.group for condition in known})
    rows = np.array([_row(condition, vectors, dose_scale, groups) for condition in known])
    targets = np.array([shifts[condition] for condition in known])
    spread = rows.std(0)
    column_scale = rows.mean(0), np.where(spread > 1e-9 * np.abs(rows).max(0), spread, np.inf)
    average = targets.mean(0)
    coefficients, _ = ridge_coefficients((rows - column_scale[0]) / column_scale[1], targets - average, PENALTIES)
    return Ridge(vectors, dose_scale, groups, column_scale, coefficients, average)


def predict_shift(ridge: Ridge, condition: Condition) -> np.ndarray | str:
    """The mean shift (n_features,), or why there is none."""
    unknown = [name for name, _ in condition.members if name not in ridge.vectors]
    if unknown:
        return f"no vector for {listed(unknown)}"
    row = _row(condition, ridge.vectors, ridge.dose_scale, ridge.groups)
    centre, spread = ridge.column_scale
    return ridge.average + (row - centre) / spread @ ridge.coefficients


def ridge_coefficients(rows: np.ndarray, targets: np.ndarray, penalties: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients (n_columns, n_features) and the penalty whose squared error is the least, each row left out once.

    Rows (n, n_columns) and targets (n, n_features) are centred, and are centred anew without the row left out. The
    errors follow from one decomposition: those of the fit to all rows over one minus the row's leverage.
    """
    left, singular, right = np.linalg.svd(rows, full_matrices=False)
    projected = left.T @ targets
    errors = []
    for penalty in penalties:
        kept = singular**2 / (singular**2 + penalty)
        leverage = 1.0 / len(rows) + left**2 @ kept
        residual = (targets - left @ (kept[:, None] * projected)) / (1.0 - leverage)[:, None]
        errors.append((residual**2).sum())
    best = float(penalties[np.argmin(errors)])
    return right.T @ ((singular / (singular**2 + best))[:, None] * projected), best


def _row(
    condition: Condition,
    vectors: Mapping[str, np.ndarray],
    dose_scale: tuple[float, float],
    groups: Sequence[Group],
) -> np.ndarray:
    """Summed vectors, alone and times the doses; mean dose, number of perturbations, group and time."""
    mean, spread = dose_scale
    doses = np.array([0.0 if dose is None else (np.log(dose) - mean) / spread for _, dose in condition.members])
    members = np.array([vectors[name] for name, _ in condition.members])
    numbers = [doses.mean(), len(doses), *(condition.group == group for group in groups)]
    return np.concatenate([members.sum(0), doses @ members, numbers, [np.log1p(condition.time or 0.0)]])
