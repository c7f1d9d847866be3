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
RIDGE = 1.0  # at 0.1 to 3 held-out cells are told apart equally well; the larger, the closer to 5 % is the test
CONSTANT = 1e-10  # relative spread, below which numbers differ by rounding alone
TOLERANCE = 1e-5  # of the loss
MAX_STEPS = 100
MAX_HALVINGS = 10


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
    margins = np.empty(len(features))
    compared = []
    for held_out in (first, ~first):
        margins[held_out] = features[held_out] @ fit_weights(features[~held_out], is_other[~held_out], tau)
        # Margins and not probabilities, which tie where they round to 1.
        compared.append(mann_whitney(margins[held_out & ~is_other], margins[held_out & is_other]))
    auc, z = np.mean(compared, axis=0)
    scores = special.expit(margins)
    return TwoSample(float(auc), float(special.ndtr(-z)), scores[:n], scores[n:])


def quadratic_features(cells: np.ndarray) -> np.ndarray:
    """Standardised components of cells (n, d), squares and products (n, p) of the first; a column of ones before."""
    points = _standardise(_components(_standardise(np.asarray(cells, np.float64))))
    points = np.clip(points, -CLIP, CLIP)
    i, j = np.triu_indices(min(N_SQUARED, points.shape[1]))
    features = _standardise(np.concatenate([points, points[:, i] * points[:, j]], axis=1))
    return np.concatenate([np.ones((len(cells), 1)), features], axis=1)


def fit_weights(features: np.ndarray, is_other: np.ndarray, tau: float) -> np.ndarray:
    """Weights (p,) of the least mean loss of features (n, p), both populations counting half, under a ridge penalty.

    The first column is the intercept, without penalty. Above ``tau=1`` the loss is not convex: the descent goes on from
    the solution of ``tau=1``.
    """
    share = np.where(is_other, 0.5 / is_other.sum(), 0.5 / (~is_other).sum())
    signed = np.where(is_other, 1.0, -1.0)[:, None] * features
    weights = np.zeros(features.shape[1])
    for stage in dict.fromkeys((1.0, tau)):
        weights = _descend(signed, share, weights, stage)
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


def _descend(signed: np.ndarray, share: np.ndarray, weights: np.ndarray, tau: float) -> np.ndarray:
    """Damped Newton steps down the loss of features (n, p) times the sign of their label, weighted by share (n,).

    Above ``tau=1`` the loss is concave in the cross-entropy, so a cross-entropy with every cell weighted by its
    ``p**(tau - 1)`` lies above it and touches it where the weights were taken: its Newton steps lead down, too.
    """
    penalty = np.full(len(weights), RIDGE)
    penalty[0] = 0.0
    margins = signed @ weights
    value = _objective(margins, share, weights, tau)
    for _ in range(MAX_STEPS):
        slope, curvature = _derivatives(margins, tau)
        gradient = (share * slope) @ signed + penalty * weights
        hessian = (signed.T * (share * curvature)) @ signed + np.diag(penalty)
        step = -np.linalg.solve(hessian, gradient)
        along, before = signed @ step, value
        for _ in range(MAX_HALVINGS):
            value = _objective(margins + along, share, weights + step, tau)
            if value <= before:
                break
            step, along = step / 2, along / 2
        else:
            return weights
        weights, margins = weights + step, margins + along
        if before - value < TOLERANCE:
            break
    return weights


def _objective(margins: np.ndarray, share: np.ndarray, weights: np.ndarray, tau: float) -> float:
    """Mean loss of margins (n,) between the right label and the other, with the penalty."""
    return float(share @ _loss(special.log_expit(margins), tau) + 0.5 * RIDGE * weights[1:] @ weights[1:])


def _loss(log_p: np.ndarray, tau: float) -> np.ndarray:
    return -log_p if tau == 1.0 else -np.expm1((tau - 1.0) * log_p) / (tau - 1.0)


def _derivatives(margins: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Slope (n,) of the loss in the margin, and the curvature (n,) of the reweighted cross-entropy."""
    p = special.expit(margins)
    weight = p ** (tau - 1.0)
    return -weight * (1.0 - p), weight * p * (1.0 - p)


def _components(cells: np.ndarray) -> np.ndarray:
    """Coordinates (n, k) of centred cells (n, d) on their first principal components, the largest first."""
    is_long = len(cells) >= cells.shape[1]
    # Not symmetric to NumPy, whose routine for that waits on threads, for small matrices longer than it computes.
    gram = (cells / len(cells)).T @ cells if is_long else cells @ (cells / len(cells)).T
    size = len(gram)
    values, axes = linalg.eigh(gram, subset_by_index=[max(0, size - N_COMPONENTS), size - 1], check_finite=False)
    axes = axes[:, values > CONSTANT * values[-1]][:, ::-1]
    return cells @ axes if is_long else axes


def _first_half(n: int, m: int, generator: np.random.Generator) -> np.ndarray:
    """Mask (n + m,) of a random half of either population."""
    return np.concatenate([generator.permutation(size) < size // 2 for size in (n, m)])


def _standardise(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and spread 1; 0 where they are constant."""
    mean = values.mean(0)
    centred = values - mean
    spread = np.sqrt((centred**2).mean(0))
    return np.asarray(centred / np.where(spread > CONSTANT * np.abs(mean), spread, np.inf))
