"""A classifier that tells two populations of cells apart, and the two-sample test made of it (Lopez-Paz & Oquab 2017).

It is a ridge logistic regression on a few principal components of all cells, their squares and products: it sees means,
spreads and covariances, and takes a millisecond or two. Its loss is one of the comp-sum family.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg, special, stats

N_COMPONENTS = 10
RIDGE = 0.1
CLIP = 4.0  # standard deviations, so that the square of a single doublet does not rule the fit
MAX_STEPS = 50
TOLERANCE = 1e-3
SMALLEST_STEP = 2.0**-10


class TwoSample(NamedTuple):
    """How well held-out cells of two populations are told apart."""

    auc: float
    """Probability that a cell of the other population scores higher than one of the first; .5 if they are alike."""
    p_value: float
    """One-sided, of an ``auc`` above .5."""
    scores_one: np.ndarray
    """(n,) held-out probabilities of being of the other population, both taken to be equally large."""
    scores_other: np.ndarray
    """(m,)"""


def comp_sum_loss(logits: np.ndarray, labels: np.ndarray, tau: float) -> np.ndarray:
    log_p = special.log_softmax(np.asarray(logits, np.float64), axis=1)
    return _loss(log_p[np.arange(len(log_p)), labels], tau)


def two_sample_test(one: np.ndarray, other: np.ndarray, *, tau: float = 1.0, seed: int | list = 0) -> TwoSample:
    features = quadratic_features(np.concatenate([one, other]))
    n = len(one)
    is_other = np.arange(len(features)) >= n
    fold = _folds(n, len(other), np.random.default_rng(seed))
    margins = np.empty(len(features))
    found = []
    for held_out in (fold, ~fold):
        margins[held_out] = features[held_out] @ fit_weights(features[~held_out], is_other[~held_out], tau)
        found.append(mann_whitney(margins[held_out & ~is_other], margins[held_out & is_other]))
    auc, z = np.mean(found, axis=0)
    scores = special.expit(margins)
    return TwoSample(float(auc), float(special.ndtr(-z)), scores[:n], scores[n:])


def quadratic_features(cells: np.ndarray, k: int = None, scale=True) -> np.ndarray:
    cells = _standardise(np.asarray(cells, np.float64)) if scale else np.asarray(cells, np.float64) - cells.mean(0)
    k = min(N_COMPONENTS if k is None else k, *cells.shape)
    if cells.shape[1] <= cells.shape[0]:
        d = cells.shape[1]
        _, axes = linalg.eigh(cells.T @ cells, subset_by_index=[d - k, d - 1], check_finite=False)
        points = cells @ axes
    else:
        d = len(cells)
        _, points = linalg.eigh(cells @ cells.T, subset_by_index=[d - k, d - 1], check_finite=False)
    points = np.clip(_standardise(points), -CLIP, CLIP)
    i, j = np.triu_indices(k)
    features = np.concatenate([points, points[:, i] * points[:, j]], axis=1)
    return np.concatenate([np.ones((len(cells), 1)), _standardise(features)], axis=1)


def fit_weights(features: np.ndarray, is_other: np.ndarray, tau: float) -> np.ndarray:
    sign = np.where(is_other, 1.0, -1.0)
    share = np.where(is_other, 0.5 / is_other.sum(), 0.5 / (~is_other).sum())
    signed = features * sign[:, None]
    penalty = np.full(features.shape[1], RIDGE)
    penalty[0] = 0.0
    weights = np.zeros(len(penalty))
    for current in dict.fromkeys([1.0, tau]):
        weights = _descend(signed, share, penalty, weights, current)
    return weights


def _descend(signed, share, penalty, weights, tau):
    margins = signed @ weights
    objective = _objective(margins, share, penalty, weights, tau)
    for _ in range(MAX_STEPS):
        slope, curvature = _derivatives(margins, tau)
        gradient = signed.T @ (share * slope) + penalty * weights
        hessian = (signed * (share * curvature)[:, None]).T @ signed
        hessian[np.diag_indices_from(hessian)] += penalty + 1e-10
        step = linalg.solve(hessian, -gradient, assume_a="pos", check_finite=False)
        decrease = -gradient @ step
        if decrease < TOLERANCE:
            break
        along, size = signed @ step, 1.0
        while True:
            new = _objective(margins + size * along, share, penalty, weights + size * step, tau)
            if new < objective or size < SMALLEST_STEP:
                break
            size /= 2
        margins, weights, objective = margins + size * along, weights + size * step, new
    return weights


def _objective(margins, share, penalty, weights, tau):
    return share @ _loss(-np.logaddexp(0.0, -margins), tau) + 0.5 * (penalty * weights) @ weights


def _loss(log_p, tau):
    return -log_p if tau == 1.0 else -np.expm1((tau - 1.0) * log_p) / (tau - 1.0)


def _derivatives(margins, tau):
    p = special.expit(margins)
    weight = p ** (tau - 1.0)
    return -weight * (1.0 - p), weight * p * (1.0 - p)


def mann_whitney(one, other):
    n, m = len(one), len(other)
    ranks = stats.rankdata(np.concatenate([one, other]))
    auc = (ranks[n:].sum() - m * (m + 1) / 2) / (n * m)
    # variance of ranks as they are, ties included
    spread = np.sqrt(ranks.var(ddof=1) * (n + m) / (n * m)) / (n + m)
    return auc, (auc - 0.5) * (n + m) / (spread * (n + m)) if spread > 0 else 0.0


def _folds(n, m, generator):
    return np.concatenate([generator.permutation(size) < size // 2 for size in (n, m)])


def _standardise(values):
    values = values - values.mean(0)
    spread = np.sqrt((values**2).mean(0))
    return values / np.where(spread > 0, spread, 1.0)
