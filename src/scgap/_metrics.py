"""How far mapped cells are from the target population: one function a metric, on plain arrays (n_cells, n_features).

Arguments come as mapped, target. Each metric says what it cannot see: those of means alone rank a prediction that
collapsed on its mean first. Which is why there are many, and why tests hold each against counterfeits.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CHUNK = 1_024  # rows of a distance matrix that are worked on at once
CONSTANT = 1e-6  # spread, relative to the largest value, up to which a feature is constant
MOST_CORRELATED = 500  # features whose correlations are compared, for they are as many as pairs


class Distances(NamedTuple):
    """Euclidean distances between cells of two populations, float32."""

    between: np.ndarray
    """(n, m), mapped against target."""
    mapped: np.ndarray
    """(n, n)"""
    target: np.ndarray
    """(m, m)"""


def pairwise_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) float32 between the rows of x (n, d) and y (m, d)."""
    # By matrix products; in double precision and about the mean, so that near cells keep their digits.
    same, centre = x is y, y.mean(0)
    x, y = (np.asarray(cells, np.float64) - centre for cells in (x, y))
    squares_y = np.einsum("ij,ij->i", y, y)
    distances = np.empty((len(x), len(y)), np.float32)
    for start in range(0, len(x), CHUNK):
        rows = x[start : start + CHUNK]
        squares = np.einsum("ij,ij->i", rows, rows)[:, None] + squares_y - 2.0 * (rows @ y.T)
        distances[start : start + CHUNK] = np.sqrt(np.maximum(squares, 0.0))
    if same:
        np.fill_diagonal(distances, 0.0)
    return distances


def energy_distance(distances: Distances) -> float:
    """``2 E|x - y| - E|x - x'| - E|y - y'|`` with Euclidean norms (Székely & Rizzo 2013), unbiased.

    Pairs of a cell with itself are left out, so a perfect sampler scores 0 on average and may score below. It sees any
    difference of two distributions. With squared norms it would see nothing but the means.
    """
    return 2.0 * _mean(distances.between) - _mean_distinct(distances.mapped) - _mean_distinct(distances.target)


def mmd(distances: Distances, bandwidths: Sequence[float]) -> float:
    """Squared maximum mean discrepancy with kernels ``exp(-|x - y|^2 / 2 h^2)``, averaged over h (Gretton et al. 2012).

    Unbiased as the energy distance is. It sees any difference on the scale of its bandwidths.
    """
    return _mean_kernel(distances.mapped, bandwidths, distinct=True) + (
        _mean_kernel(distances.target, bandwidths, distinct=True)
        - 2.0 * _mean_kernel(distances.between, bandwidths, distinct=False)
    )


def wasserstein(mapped: np.ndarray, target: np.ndarray) -> float:
    """Wasserstein-1 distance of each feature, averaged over features. Blind to how features go together.

    Biased: it falls with the number of cells, and is not 0 for a perfect sampler.
    """
    if len(mapped) == len(target):
        return float(np.abs(np.sort(mapped, axis=0) - np.sort(target, axis=0)).mean())
    return float(np.mean([stats.wasserstein_distance(x, y) for x, y in zip(mapped.T, target.T, strict=True)]))


def mean_error(mapped: np.ndarray, target: np.ndarray) -> float:
    """Mean over features of the absolute difference of means. Blind to everything else."""
    return _moment_error(np.mean, mapped, target)


def std_error(mapped: np.ndarray, target: np.ndarray) -> float:
    """Mean over features of the absolute difference of standard deviations: sees collapse and inflation."""
    return _moment_error(np.std, mapped, target)


def skewness_error(mapped: np.ndarray, target: np.ndarray) -> float:
    """Mean over features of the absolute difference of skewness; constant features count as symmetric."""
    return _moment_error(skewness, mapped, target)


def kurtosis_error(mapped: np.ndarray, target: np.ndarray) -> float:
    """Mean over features of the absolute difference of excess kurtosis; 0 for constant features."""
    return _moment_error(kurtosis, mapped, target)


def correlation_error(mapped: np.ndarray, target: np.ndarray) -> float:
    """Mean over pairs of features of the absolute difference of correlations. Blind to means and spreads.

    Of the 500 features that vary most in the target. One that is constant there has no correlations to compare with and
    is left out; one that is constant in mapped cells alone counts as uncorrelated, so that collapse is seen. NaN where
    fewer than two vary.
    """
    varying = np.flatnonzero(varies(target))
    if len(varying) < 2:
        return float("nan")
    most = varying[np.argsort(-target[:, varying].var(0), kind="stable")[:MOST_CORRELATED]]
    return float(np.abs(correlations(mapped[:, most]) - correlations(target[:, most])).mean())


def variance_ratio(mapped: np.ndarray, target: np.ndarray) -> float:
    """Total variance of mapped cells in units of the target's: 0 is collapse, above 1 inflation."""
    return float(_double(mapped).var(0).sum() / _double(target).var(0).sum())


def zero_fraction_error(mapped: np.ndarray, target: np.ndarray) -> float:
    """Mean over features of the absolute difference of the shares of zeros, for expression."""
    return float(np.abs((mapped == 0).mean(0) - (target == 0).mean(0)).mean())


def r2(mapped: np.ndarray, target: np.ndarray, origin: np.ndarray | float = 0.0) -> float:
    """Coefficient of determination of the mean effect ``mean - origin`` over features: 1 is right. Blind to all else.

    ``origin`` (n_features,) is control's mean, or that of all perturbed cells; without one it is the R2 of the papers,
    which is near 1 for any prediction, for features differ more than conditions do.
    """
    expected, found = _effect(target, origin), _effect(mapped, origin)
    return float(1.0 - ((expected - found) ** 2).sum() / ((expected - expected.mean()) ** 2).sum())


def pearson(mapped: np.ndarray, target: np.ndarray, origin: np.ndarray) -> float:
    """Correlation over features of predicted and observed mean effect. Blind to its size, and to all but means.

    NaN where one of them has none: the correlation of rounding errors means nothing.
    """
    effects = np.array([_effect(mapped, origin), _effect(target, origin)])
    if (effects.std(1) <= CONSTANT * np.abs(origin).max()).any():
        return float("nan")
    return float(np.corrcoef(effects)[0, 1])


def weighted_mse(mapped: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    """Squared difference of means, features weighted by their differential expression (Mejia et al. 2025).

    Blind to all but means; ``weights`` (n_features,) sum to 1.
    """
    return float(weights @ (_double(mapped).mean(0) - _double(target).mean(0)) ** 2)


def centroid_accuracy(mapped: np.ndarray, target: np.ndarray, others: np.ndarray) -> float:
    """Share of other conditions whose mean is farther from the predicted mean than the right one is.

    ``others`` (n_conditions, n_features) are their means. 1 is right, 0.5 chance, as for one prediction for all
    conditions; ties count half. Blind to all but means.
    """
    predicted = _double(mapped).mean(0)
    own = np.linalg.norm(_double(target).mean(0) - predicted)
    distances = np.linalg.norm(others - predicted, axis=1)
    return float(np.mean((distances > own) + 0.5 * (distances == own)))


def skewness(cells: np.ndarray, axis: int = 0) -> np.ndarray:
    """Skewness of each feature, 0 where it is constant."""
    return _standardised_moment(cells, 3, axis)


def kurtosis(cells: np.ndarray, axis: int = 0) -> np.ndarray:
    """Excess kurtosis of each feature, 0 where it is constant."""
    moment = _standardised_moment(cells, 4, axis)
    return np.where(moment > 0, moment - 3.0, 0.0)


def correlations(cells: np.ndarray) -> np.ndarray:
    """Correlations (n_pairs,) of all pairs of features, 0 where one is constant."""
    standard = _standardise(cells, 0)
    return (standard.T @ standard / len(cells))[np.triu_indices(cells.shape[1], 1)]


def varies(cells: np.ndarray) -> np.ndarray:
    """Whether each feature (n_features,) has a spread beyond that of rounding."""
    values = _double(cells)
    return _is_spread(values.std(0), np.abs(values).max(0))


MOMENTS: dict[str, Callable[..., np.ndarray]] = {
    "mean": np.mean,
    "std": np.std,
    "skewness": skewness,
    "kurtosis": kurtosis,
}


def _moment_error(moment: Callable[..., np.ndarray], mapped: np.ndarray, target: np.ndarray) -> float:
    return float(np.abs(moment(_double(mapped), axis=0) - moment(_double(target), axis=0)).mean())


def _effect(cells: np.ndarray, origin: np.ndarray | float) -> np.ndarray:
    return _double(cells).mean(0) - origin


def _standardised_moment(cells: np.ndarray, power: int, axis: int) -> np.ndarray:
    standard = _standardise(cells, axis)
    squares = standard * standard
    return (squares * (standard if power == 3 else squares)).mean(axis)


def _standardise(cells: np.ndarray, axis: int) -> np.ndarray:
    """Features in units of their spread about their mean; zeros where they are constant."""
    values = _double(cells)
    largest = np.abs(values).max(axis, keepdims=True)
    values = values - values.mean(axis, keepdims=True)
    spread = np.sqrt((values * values).mean(axis, keepdims=True))
    spreads = _is_spread(spread, largest)
    return values * np.where(spreads, 1.0 / np.where(spreads, spread, 1.0), 0.0)


def _is_spread(spread: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Whether a standard deviation is more than rounding, given the largest absolute value."""
    return spread > CONSTANT * (largest + 1e-30)


def _mean_kernel(distances: np.ndarray, bandwidths: Sequence[float], *, distinct: bool) -> float:
    total = 0.0
    for start in range(0, len(distances), CHUNK):
        squares = distances[start : start + CHUNK] ** 2
        total += sum(float(np.exp(squares * np.float32(-0.5 / h**2)).sum(dtype=np.float64)) for h in bandwidths)
    total /= len(bandwidths)
    n, m = distances.shape
    return (total - n) / (n * (n - 1)) if distinct else total / (n * m)


def _mean(distances: np.ndarray) -> float:
    return float(distances.mean(dtype=np.float64))


def _mean_distinct(distances: np.ndarray) -> float:
    return _mean(distances) * len(distances) / (len(distances) - 1)


def _double(cells: np.ndarray) -> np.ndarray:
    return np.asarray(cells, np.float64)
