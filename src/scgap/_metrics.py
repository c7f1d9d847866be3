"""How far mapped cells are from the target population: one function a metric, on plain arrays (n_cells, n_features).

All are distances: 0 is a perfect prediction, lower is better. Arguments come as mapped, target.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist

CHUNK = 1_024  # rows of a distance matrix that are in memory at once


def energy_distance(mapped: np.ndarray, target: np.ndarray) -> float:
    """``2 E|x - y| - E|x - x'| - E|y - y'|`` with Euclidean norms (Székely & Rizzo 2013), unbiased.

    Pairs of a cell with itself are left out, so a perfect sampler scores 0 on average and may score below. It sees any
    difference of two distributions. With squared norms it would see nothing but the means.
    """
    return (
        2.0 * _mean_distance(mapped, target)
        - _mean_distance(mapped, mapped, distinct=True)
        - _mean_distance(target, target, distinct=True)
    )


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


def skewness(cells: np.ndarray, axis: int = 0) -> np.ndarray:
    """Skewness of each feature, 0 where it is constant."""
    return _defined(stats.skew, cells, axis)


def kurtosis(cells: np.ndarray, axis: int = 0) -> np.ndarray:
    """Excess kurtosis of each feature, 0 where it is constant."""
    return _defined(stats.kurtosis, cells, axis)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "energy_distance": energy_distance,
    "mean_error": mean_error,
    "std_error": std_error,
    "skewness_error": skewness_error,
    "kurtosis_error": kurtosis_error,
}

MOMENTS: dict[str, Callable[..., np.ndarray]] = {
    "mean": np.mean,
    "std": np.std,
    "skewness": skewness,
    "kurtosis": kurtosis,
}


def _moment_error(moment: Callable[..., np.ndarray], mapped: np.ndarray, target: np.ndarray) -> float:
    return float(np.abs(moment(_double(mapped), axis=0) - moment(_double(target), axis=0)).mean())


def _mean_distance(x: np.ndarray, y: np.ndarray, *, distinct: bool = False) -> float:
    total = sum(cdist(x[start : start + CHUNK], y).sum() for start in range(0, len(x), CHUNK))
    return float(total / (len(x) * (len(y) - distinct)))


def _defined(statistic: Callable[..., np.ndarray], cells: np.ndarray, axis: int) -> np.ndarray:
    # scipy warns of lost digits where a feature is (nearly) constant, and returns NaN.
    values = _double(cells)
    spread = np.std(values, axis=axis, keepdims=True)
    constant = spread <= 1e-6 * (np.abs(values).max(axis=axis, keepdims=True) + 1e-30)
    noise = np.linspace(-1.0, 1.0, values.shape[axis])[:, None]
    return np.where(constant.squeeze(axis), 0.0, statistic(np.where(constant, noise, values), axis=axis))


def _double(cells: np.ndarray) -> np.ndarray:
    return np.asarray(cells, np.float64)
