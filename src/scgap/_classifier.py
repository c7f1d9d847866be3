"""A classifier that tells two populations of cells apart, and the two-sample test made of it.

It is a ridge logistic regression on principal components of all cells, with squares and products of the first of them:
it sees means, spreads and covariances, and takes milliseconds. Its loss is one of the comp-sum family.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import linalg, special

N_COMPONENTS = 50  # whose means are compared: a few would lose a shift of one feature, or cells that are PCs already
N_SQUARED = 10  # first of these, whose spreads and covariances are compared, too
CLIP = 4.0  # standard deviations, so that the square of one doublet does not rule the fit
# Per feature and cell. Of .03 to 3, it tells held-out cells of simulated populations apart best and gives them the most
# likely probabilities: 50 to 3000 cells, 3 to 100 features; shifts, spreads, correlations, half of the cells escaped.
RIDGE = 0.3
CONSTANT = 1e-10  # relative spread, below which numbers differ by rounding alone
STEEPEST = 0.25  # curvature of the cross-entropy in the margin, where it is 0
TOLERANCE = 1e-5  # twice the loss that the next step promises to save
MAX_STEPS = 1_000


class TwoSample(NamedTuple):
    """How well held-out cells of two populations are told apart."""

    auc: float
    """Chance that a cell of the other population scores above one of the first; .5 where they are alike."""
    p_value: float
    """One-sided, of an ``auc`` above .5."""
    scores_one: np.ndarray
    """(n,) held-out probabilities of belonging to the other population, were both equally large."""
    scores_other: np.ndarray
    """(m,)"""


def comp_sum_loss(logits: np.ndarray, labels: np.ndarray, tau: float) -> np.ndarray:
    r"""Comp-sum losses (Mao, Mohri & Zhong 2023) of logits (n, k) and whole-number labels (n,), one (n,) a cell.

    .. math::
        \Phi_\tau(u) = \frac{(1 + u)^{1 - \tau} - 1}{1 - \tau}, \qquad u = \sum_{y' \neq y} e^{h_{y'} - h_y}

    With the softmax's probability :math:`p = 1 / (1 + u)` of the label, ``tau=1`` is the cross-entropy
    :math:`-\log p`, ``tau=2`` the mean absolute error :math:`1 - p`, and those between are the generalised
    cross-entropy. From 1 on the loss of no margin overflows; above 1 it is bounded by ``1 / (tau - 1)``.
    """
    log_p = special.log_softmax(np.asarray(logits, np.float64), axis=1)
    return _loss(log_p[np.arange(len(log_p)), labels], tau)


def two_sample_test(
    one: np.ndarray, other: np.ndarray, *, tau: float = 1.0, seed: int | Sequence[int] = 0
) -> TwoSample:
    """Whether cells (n, d) and (m, d), two or more of each, are of the same distribution (Lopez-Paz & Oquab 2017).

    A classifier is trained on each half of the cells with the loss of ``tau``, 1 or above, and scores the other half.
    The components are of all cells, which tells nothing of their labels.

    Under the null each half's Mann-Whitney z is standard normal. The two are not independent: both measure how alike
    the differences found in the two halves are, so their correlation is .6 (one feature) to .9 (many). Their mean is
    therefore taken as standard normal as well, not times the square root of 2: at level .05 the test rejects .03 to
    .05.
    """
    n = len(one)
    features = quadratic_features(np.concatenate([one, other]))
    is_other = np.arange(len(features)) >= n
    first = _first_half(n, len(other), np.random.default_rng(seed))
    fits = [fit_weights(features[half], is_other[half], tau) for half in (~first, first)]
    margins = np.where(first, *(features @ weights for weights in fits))
    # Margins and not probabilities, which tie where they round to 1.
    compared = [mann_whitney(margins[half & ~is_other], margins[half & is_other]) for half in (first, ~first)]
    auc, z = np.mean(compared, axis=0)
    scores = special.expit(margins)
    return TwoSample(float(auc), float(special.ndtr(-z)), scores[:n], scores[n:])


def quadratic_features(cells: np.ndarray) -> np.ndarray:
    """Standardised components of cells (n, d), squares and products (n, p) of the first; a column of ones before."""
    points = _components(_standardise(np.array(cells, np.float64)))
    np.clip(points, -CLIP, CLIP, out=points)
    squared = points[:, :N_SQUARED]
    # A few columns at a time: index arrays would copy all of them twice, which takes longer than the products.
    products = [squared[:, i : i + 1] * squared[:, i:] for i in range(squared.shape[1])]
    features = np.concatenate([np.ones((len(points), 1)), points, *products], axis=1)
    _standardise(features[:, 1:])
    return features


def fit_weights(features: np.ndarray, is_other: np.ndarray, tau: float, ridge: float | None = None) -> np.ndarray:
    """Weights (p,) of the least mean loss of features (n, p), both populations counting half, under a ridge penalty.

    The first column is the intercept, without penalty. ``ridge=None`` is RIDGE times the other features per cell; of
    unequal populations, cells count as many as equal ones would need for the same precision. Above ``tau=1`` the loss
    is not convex: the descent goes on from the solution of ``tau=1``.
    """
    share = np.where(is_other, 0.5 / is_other.sum(), 0.5 / (~is_other).sum())
    penalty = np.full(features.shape[1], RIDGE * (features.shape[1] - 1) * (share @ share) if ridge is None else ridge)
    penalty[0] = 0.0
    # No margin of the cross-entropy has more curvature than 0: by that of 0, factorised once, every step leads down
    # (Böhning & Lindsay 1988). Above tau=1 the loss is concave in the cross-entropy, so a cross-entropy with every cell
    # weighted by its p**(tau - 1), at most 1, lies above it and touches it where the step starts: the same holds.
    curvature = (features.T * (STEEPEST * share)) @ features + np.diag(penalty)
    factor = linalg.cho_factor(curvature, overwrite_a=True, check_finite=False)
    sign = np.where(is_other, 1.0, -1.0)
    weights = np.zeros(len(penalty))
    for stage in dict.fromkeys((1.0, tau)):
        for _ in range(MAX_STEPS):
            gradient = (sign * share * _slope(sign * (features @ weights), stage)) @ features + penalty * weights
            step = linalg.cho_solve(factor, gradient, check_finite=False)
            weights = weights - step
            if gradient @ step < TOLERANCE:
                break
    return weights


def mann_whitney(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Chance that a score of ``other`` (m,) is above one of ``one`` (n,), ties half, and its z under the null."""
    n, m = len(one), len(other)
    scores = np.concatenate([one, other])
    ordered = np.sort(scores)
    # Twice the rank, where scores tie the mean one; from 0 on, and several times as fast as scipy's.
    ranks = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right") - 1
    auc = (ranks[n:].sum() / (2 * m) - (m - 1) / 2) / n
    spread = np.sqrt(ranks.var(ddof=1) / (4 * n * m * (n + m)))
    return float(auc), float((auc - 0.5) / spread) if spread > 0 else 0.0


def _loss(log_p: np.ndarray, tau: float) -> np.ndarray:
    return -log_p if tau == 1.0 else -np.expm1((tau - 1.0) * log_p) / (tau - 1.0)


def _slope(margins: np.ndarray, tau: float) -> np.ndarray:
    """Of the loss in the margins (n,) between the right label and the other."""
    wrong = special.expit(-margins)
    return -wrong if tau == 1.0 else -wrong * (1.0 - wrong) ** (tau - 1.0)


def _components(cells: np.ndarray) -> np.ndarray:
    """Coordinates (n, k) of centred cells (n, d) on their first principal components, in units of their spread."""
    is_long = len(cells) >= cells.shape[1]
    # Not symmetric to NumPy, whose routine for that waits on threads, for small matrices longer than it computes.
    gram = (cells / len(cells)).T @ cells if is_long else cells @ (cells / len(cells)).T
    # All of them: LAPACK's routine for some takes 3 times as long for 100.
    values, axes = linalg.eigh(gram, driver="evd", check_finite=False)
    first = slice(None, -N_COMPONENTS - 1, -1)  # the largest
    values, axes = values[first], axes[:, first]
    kept = values > CONSTANT * values[0]
    values, axes = values[kept], axes[:, kept]
    return cells @ (axes / np.sqrt(values)) if is_long else axes * np.sqrt(len(gram))


def _first_half(n: int, m: int, generator: np.random.Generator) -> np.ndarray:
    """Mask (n + m,) of a random half of either population."""
    return np.concatenate([generator.permutation(size) < size // 2 for size in (n, m)])


def _standardise(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and spread 1, in place; 0 where they are constant."""
    mean = values.mean(0)
    values -= mean
    spread = np.sqrt(np.einsum("ij,ij->j", values, values) / len(values))
    values /= np.where(spread > CONSTANT * np.abs(mean), spread, np.inf)
    return values
