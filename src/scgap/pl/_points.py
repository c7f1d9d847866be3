"""Moments of predicted and observed cells as points: one a feature, or one a pair of features."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from math import comb, isqrt

import numpy as np

from scgap._metrics import MOMENTS, correlations, varies
from scgap.pl._cells import Cells
from scgap.pl._panel import Errors, Points

MIN_EXPRESSED = 10  # cells; fewer say nothing of the shape of a distribution
MAX_PAIRS = 2_000  # more are a cloud, and slow to draw
N_HALVINGS = 5  # random halves that errors are averaged over, for of few cells they vary
TIE = 1e-3  # of the lowest error: a baseline this near to it is as good

type Statistic = Callable[[np.ndarray], np.ndarray]
"""From cells (n, n_vars) to a number for each feature, or for each pair in the order of combinations."""
type Baselines = Mapping[str, np.ndarray]
"""Name -> cells (n, n_vars), row by row from those that the prediction is from; the simplest first."""

STATISTICS: dict[str, Statistic] = {
    **{name: partial(statistic, axis=0) for name, statistic in MOMENTS.items()},
    "correlation": correlations,
}
MIN_HALF = 5  # cells of a half that has a shape, as in `scgap.tl.evaluate`: any three have the same kurtosis
NEED_SPREAD = ("skewness", "kurtosis", "correlation")  # moments that a constant feature has not


def make_points(moment: str, groups: Sequence[Cells], baselines: Sequence[Baselines], var_names: np.ndarray) -> Points:
    """The points of a moment in all groups, beside those of the baseline that comes nearest.

    Baselines have no say in which points there are: so all are measured on the same.
    """
    statistic, at_once = STATISTICS[moment], 2 if moment == "correlation" else 1
    kept = [_chosen(moment, cells, MAX_PAIRS // len(groups)) for cells in groups]
    groups = [_select(cells, mask) for cells, mask in zip(groups, kept, strict=True)]
    common = [name for name in baselines[0] if all(name in of_group for of_group in baselines)]
    simple = {name: [of[name][:, mask] for of, mask in zip(baselines, kept, strict=True)] for name in common}

    def points_of(parts: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([statistic(part) for part in parts])

    observed = points_of(cells.observed for cells in groups)
    of_baseline = {name: points_of(parts) for name, parts in simple.items()}
    best = nearest_baseline(of_baseline, observed)
    return Points(
        names=np.array([",\n".join(some) for mask in kept for some in combinations(var_names[mask], at_once)], object),
        predicted=points_of(cells.predicted for cells in groups),
        baseline=of_baseline[best],
        observed=observed,
        errors=_errors(statistic, groups, simple[best], MIN_HALF if moment in NEED_SPREAD else 1),
        n_all=len(groups) * comb(len(var_names), at_once),
        baseline_name=best,
    )


def nearest_baseline(points: Mapping[str, np.ndarray], observed: np.ndarray) -> str:
    """The first, and so the simplest, of the baselines (n_points,) that are as good as the best.

    By all cells, for each baseline has equally many: halves would leave more to chance.
    """
    errors = {name: np.abs(of_baseline - observed).sum() for name, of_baseline in points.items()}
    least = min(errors.values())
    return next(name for name, error in errors.items() if error <= (1.0 + TIE) * least)


def _chosen(moment: str, cells: Cells, n_pairs: int) -> np.ndarray:
    """Features (n_vars,) that have the moment."""
    if moment not in NEED_SPREAD:
        return np.ones(cells.observed.shape[1], bool)
    kept = _has_shape(cells)
    return _most_variable(cells, kept, n_pairs) if moment == "correlation" else kept


def _has_shape(cells: Cells) -> np.ndarray:
    """Features (n_vars,) whose shapes and correlations mean something in predicted, control and observed cells.

    Those of a constant feature are undefined, and those of a gene seen in few cells tell how many these are.
    """
    parts = cells.predicted, cells.source, cells.observed
    kept = np.all([varies(part) for part in parts], axis=0)
    if min(part.min() for part in parts) >= 0:
        kept &= np.all([np.count_nonzero(part, axis=0) >= MIN_EXPRESSED for part in parts], axis=0)
    return kept


def _most_variable(cells: Cells, kept: np.ndarray, n_pairs: int) -> np.ndarray:
    """Of the features kept (n_vars,), those that vary most in the observed cells and have so many pairs at most."""
    n_features = (1 + isqrt(1 + 8 * n_pairs)) // 2
    variance = np.where(kept, cells.observed.var(axis=0, dtype=np.float64), -1.0)
    first = np.zeros_like(kept)
    first[np.argsort(-variance, kind="stable")[:n_features]] = True
    return kept & first


def _select(cells: Cells, mask: np.ndarray) -> Cells:
    """The cells with some of their features."""
    return cells._replace(
        predicted=cells.predicted[:, mask], source=cells.source[:, mask], observed=cells.observed[:, mask]
    )


def _errors(statistic: Statistic, groups: Sequence[Cells], simple: Sequence[np.ndarray], least: int) -> Errors:
    """Mean errors of random halves, as in `scgap.tl.evaluate`: so the noise of all three is of equally many cells.

    Of the groups whose halves have at least so many cells; NaN where there is none.
    """
    pairs = zip(groups, simple, strict=True)
    errors = [_errors_of_points(statistic, *pair) for pair in pairs if _half(pair[0]) >= least]
    if not errors:
        return Errors(np.nan, np.nan, np.nan)
    of_points = np.concatenate(errors, axis=1)
    return Errors(*of_points.mean(axis=1).tolist()) if of_points.size else Errors(0.0, 0.0, 0.0)


def _errors_of_points(statistic: Statistic, cells: Cells, baseline: np.ndarray) -> np.ndarray:
    """Errors (3, n_points) of prediction, baseline and replicate in one group, the mean over random halves."""
    generator = np.random.default_rng(0)
    n = _half(cells)
    errors = []
    for _ in range(N_HALVINGS):
        # The baseline moves the same control cells as the map, so both are measured on the same rows.
        drawn = generator.permutation(len(cells.source))[: 2 * n].reshape(2, n)
        seen = generator.permutation(len(cells.observed))[: 2 * n].reshape(2, n)
        predicted, simple, observed = (
            np.stack([statistic(part[half]) for half in rows])
            for part, rows in ((cells.predicted, drawn), (baseline, drawn), (cells.observed, seen))
        )
        pairs = (predicted, observed), (simple, observed), (observed[:1], observed[1:])
        errors.append([np.abs(one - other).mean(axis=0) for one, other in pairs])
    return np.mean(errors, axis=0)


def _half(cells: Cells) -> int:
    """Cells of a half, of equally many on both sides."""
    return min(len(cells.source), len(cells.observed)) // 2
