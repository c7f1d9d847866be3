"""The optimal transport map between two Gaussian populations, and what is estimated for it from cells."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

MAX_FEATURES = 200  # above, covariances of a few hundred cells say little, and their roots take long
N_DIRECTIONS = 100
N_CELLS = 1_000  # from which the directions are found
TINY = 1e-10  # of the largest variance: directions with less are constant


class Gaussian(NamedTuple):
    """Mean and covariance of a population."""

    mean: np.ndarray
    """(n_features,)"""
    covariance: np.ndarray
    """(n_directions, n_directions) along an orthonormal basis (n_features, n_directions)."""


def make_basis(populations: Sequence[np.ndarray]) -> np.ndarray:
    """Orthonormal directions (n_features, n_directions): all features if they are few, else principal components.

    These are of at most N_CELLS cells, as many from each population (n_cells, n_features).
    """
    n_features = populations[0].shape[1]
    if n_features <= MAX_FEATURES:
        return np.eye(n_features, dtype=np.float32)
    each = -(-N_CELLS // len(populations))
    cells = _spread(np.concatenate([_spread(population, each) for population in populations]), N_CELLS)
    centred = cells - cells.mean(0, dtype=np.float64)
    products = centred @ centred.T
    n = len(cells)
    values, vectors = scipy.linalg.eigh(products, subset_by_index=[max(n - N_DIRECTIONS, 0), n - 1])
    varying = values > TINY * values[-1]
    return (centred.T @ (vectors[:, varying] / np.sqrt(values[varying]))).astype(np.float32)


def fit_gaussian(cells: np.ndarray, basis: np.ndarray, prior: Gaussian | None = None) -> Gaussian:
    """Mean and shrunk covariance of cells (n_cells, n_features).

    Controls keep their variances and lose correlation, for else their covariance could not be inverted where cells are
    fewer than features. Perturbed cells are shrunk towards their controls, the ``prior``: the fewer they are, the more
    their map is a mere shift.
    """
    points = (cells @ basis).astype(np.float64)
    points -= points.mean(0)
    covariance = points.T @ points / max(len(cells) - 1, 1)
    target = np.diag(covariance.diagonal()) if prior is None else prior.covariance
    return Gaussian(cells.mean(0, dtype=np.float64), _shrink(covariance, target, len(cells)))


def gaussian_map(source: Gaussian, target: Gaussian) -> np.ndarray:
    r"""The symmetric matrix (n_directions, n_directions) of the map ``m1 + A (x - m0)`` (Gelbrich 1990).

    .. math::
        A = S_0^{-1/2} (S_0^{1/2} S_1 S_0^{1/2})^{1/2} S_0^{-1/2}

    Along directions in which the source is constant, it is the identity.
    """
    values, vectors = np.linalg.eigh(source.covariance)
    varying = values > TINY * values.max(initial=0.0)
    roots, along, across = np.sqrt(values[varying]), vectors[:, varying], vectors[:, ~varying]
    middle = roots[:, None] * (along.T @ target.covariance @ along) * roots
    scaled = along / roots
    return scaled @ _root(middle) @ scaled.T + across @ across.T


def _shrink(covariance: np.ndarray, target: np.ndarray, n_cells: int) -> np.ndarray:
    """The covariance moved towards a target, by the share of their squared distance that is noise.

    As in Ledoit & Wolf (2004), with the noise that entries have in samples of Gaussian cells.
    """
    if n_cells < 2:
        return target
    variances = covariance.diagonal()
    distance = (covariance - target) ** 2
    noise = (covariance**2 + np.outer(variances, variances)) / (n_cells - 1)
    total = distance.sum()
    share = min(1.0, noise[distance > 0].sum() / total) if total > 0 else 0.0
    return share * target + (1.0 - share) * covariance


def _root(matrix: np.ndarray) -> np.ndarray:
    """The square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _spread(cells: np.ndarray, n: int) -> np.ndarray:
    """Up to n rows, evenly spaced."""
    return cells[np.linspace(0, len(cells) - 1, min(n, len(cells))).astype(int)]
