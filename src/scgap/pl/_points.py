"""Moments of predicted and observed cells as points: one a feature, or one a pair of features."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from math import comb, isqrt
from typing import NamedTuple

import numpy as np

from scgap._metrics import MOMENTS
from scgap.pl._cells import Cells
from scgap.pl._panel import Errors, Points

MIN_EXPRESSED = 10  # cells; fewer say nothing of the shape of a distribution
CONSTANT = 1e-6  # spread, relative to the largest value, up to which a feature is constant, as in the metrics
MAX_PAIRS = 2_000  # more are a cloud, and slow to draw


def correlation(cells: np.ndarray) -> np.ndarray:
    """Correlations (n_pairs,) of features (n_cells, n_features), in the order of combinations; 0 of a constant one."""
    cells = np.asarray(cells, np.float64)
    constant = cells.std(axis=0) <= CONSTANT * np.abs(cells).max(axis=0)
    centred = np.where(constant, 0.0, cells - cells.mean(axis=0))
    units = centred / np.where(constant, 1.0, np.linalg.norm(centred, axis=0))
    return (units.T @ units)[np.triu_indices(cells.shape[1], 1)]


STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: partial(statistic, axis=0) for name, statistic in MOMENTS.items()},
    "correlation": correlation,
}
NEED_SPREAD = ("skewness", "kurtosis", "correlation")  # moments that a constant feature has not


class Parts(NamedTuple):
    """Cells (n, n_vars) of one group, with those of one baseline."""

    predicted: np.ndarray
    baseline: np.ndarray
    observed: np.ndarray


def make_points(moment: str, groups: Sequence[Cells], var_names: np.ndarray) -> Points:
    """The points of a moment in all groups, beside those of the baseline that comes nearest."""
    names = [name for name in groups[0].baselines if all(name in cells.baselines for cells in groups)]
    parts = {
        name: [Parts(cells.predicted, cells.baselines[name], cells.observed) for cells in groups] for name in names
    }
    points = [_points_beside(moment, parts[name], var_names, name) for name in names]
    return min(points, key=lambda found: found.errors.baseline)


def _points_beside(moment: str, groups: Sequence[Parts], var_names: np.ndarray, baseline: str) -> Points:
    """The points of a moment in all groups, beside those of the baseline of this name."""
    statistic, at_once = STATISTICS[moment], 2 if moment == "correlation" else 1
    kept = [_has_shape(cells) if moment in NEED_SPREAD else np.ones(len(var_names), bool) for cells in groups]
    if moment == "correlation":
        kept = [_most_variable(cells, mask, MAX_PAIRS // len(groups)) for cells, mask in zip(groups, kept, strict=True)]
    groups = [Parts(*(part[:, mask] for part in cells)) for cells, mask in zip(groups, kept, strict=True)]
    predicted, simple, observed = (
        np.concatenate([statistic(cells) for cells in part]) for part in zip(*groups, strict=True)
    )
    names = [", ".join(some) for mask in kept for some in combinations(var_names[mask], at_once)]
    return Points(
        names=np.array(names, object),
        predicted=predicted,
        baseline=simple,
        observed=observed,
        band=_replicate_error(statistic, groups),
        errors=_errors(statistic, groups),
        n_all=len(groups) * comb(len(var_names), at_once),
        baseline_name=baseline,
    )


def _has_shape(cells: Parts) -> np.ndarray:
    """Features (n_vars,) whose shapes and correlations mean something in every part.

    Those of a constant feature are undefined, and those of a gene seen in few cells tell how many these are.
    """
    expressed = min(part.min() for part in cells) >= 0
    kept = np.ones(cells.observed.shape[1], bool)
    for part in cells:
        kept &= part.std(axis=0) > CONSTANT * np.abs(part).max(axis=0)
        if expressed:
            kept &= np.count_nonzero(part, axis=0) >= MIN_EXPRESSED
    return kept


def _most_variable(cells: Parts, kept: np.ndarray, n_pairs: int) -> np.ndarray:
    """Of the features kept (n_vars,), those that vary most in the observed cells and have so many pairs at most."""
    n_features = (1 + isqrt(1 + 8 * n_pairs)) // 2
    variance = np.where(kept, cells.observed.var(axis=0, dtype=np.float64), -1.0)
    first = np.zeros_like(kept)
    first[np.argsort(-variance, kind="stable")[:n_features]] = True
    return kept & first


def _errors(statistic: Callable[[np.ndarray], np.ndarray], groups: Sequence[Parts]) -> Errors:
    """Errors of random halves, as in `scgap.tl.evaluate`: so the noise of all three is of equally many cells."""
    generator = np.random.default_rng(0)
    errors = []
    for cells in groups:
        n = min(len(part) for part in cells) // 2
        drawn = [part[generator.permutation(len(part))[: 2 * n]] for part in cells]
        predicted, simple, observed = (np.stack([statistic(part[:n]), statistic(part[n:])]) for part in drawn)
        pairs = (predicted, observed), (simple, observed), (observed[:1], observed[1:])
        errors.append([np.abs(one - other).mean(axis=0) for one, other in pairs])
    of_points = np.concatenate(errors, axis=1)
    return Errors(*of_points.mean(axis=1).tolist()) if of_points.size else Errors(0.0, 0.0, 0.0)


def _replicate_error(statistic: Callable[[np.ndarray], np.ndarray], groups: Sequence[Parts]) -> float:
    """Mean absolute difference of a moment between random halves of all observed cells."""
    generator = np.random.default_rng(0)
    errors = []
    for cells in groups:
        order = generator.permutation(len(cells.observed))
        one, other = (cells.observed[half] for half in np.array_split(order, 2))
        errors.append(np.abs(statistic(one) - statistic(other)))
    of_points = np.concatenate(errors)
    return float(of_points.mean()) if len(of_points) else 0.0
