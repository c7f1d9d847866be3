"""One prediction against the cells that were observed: what metrics share, and what each of them has to catch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from scgap import _metrics
from scgap._arrays import pad_rows, padded_size
from scgap._classifier import TwoSample, two_sample_test
from scgap._reference import Reference

# In units of the mean distance between training cells: the fit's own epsilons, one that sees little but the means, and
# bandwidths that cover the distances of near and far cells.
EPSILONS = (0.05, 0.5)
GAP_EPSILON = 0.02
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Target:
    """Observed cells (n, n_features), with what depends on them alone."""

    cells: np.ndarray
    reference: Reference

    @cached_property
    def distances(self) -> np.ndarray:
        """Distances (n, n) between its cells."""
        return _metrics.pairwise_distances(self.cells, self.cells)

    @cached_property
    def self_costs(self) -> np.ndarray:
        """Transport costs (n_epsilons,) between its halves."""
        return _transport_costs([_between_halves(self.distances)], self.reference.scale)[:, 0]


@dataclass(frozen=True)
class Comparison:
    """Mapped cells (n, n_features), made of as many source cells (None where these are not known), against a target."""

    mapped: np.ndarray
    target: Target
    source: np.ndarray | None

    @property
    def reference(self) -> Reference:
        """That of the target."""
        return self.target.reference

    def given(self, field: str) -> np.ndarray:
        """A field of the reference that is known to be there."""
        return np.asarray(getattr(self.reference, field))

    @cached_property
    def distances(self) -> _metrics.Distances:
        """Between all cells, computed once for all metrics."""
        return _metrics.Distances(
            _metrics.pairwise_distances(self.mapped, self.target.cells),
            _metrics.pairwise_distances(self.mapped, self.mapped),
            self.target.distances,
        )

    @cached_property
    def divergences(self) -> np.ndarray:
        """Debiased Sinkhorn divergence at each of EPSILONS: ``OT(m, y) - OT(m, m') / 2 - OT(y, y') / 2``.

        All terms are between halves: independent ones in the self terms, whose biases then cancel those of the cross
        terms. With self terms of one sample, predictions shrunk to their mean would rank before a replicate.
        """
        between, mapped, _ = self.distances
        half = len(mapped) // 2
        crosses = between[:half, :half], between[half : 2 * half, half : 2 * half]
        costs = _transport_costs([*crosses, _between_halves(mapped)], self.reference.scale)
        return costs[:, :2].mean(1) - 0.5 * costs[:, 2] - 0.5 * self.target.self_costs

    @cached_property
    def two_sample_test(self) -> TwoSample:
        """A classifier's attempt to tell the two apart."""
        directions = self.reference.directions
        cells = (self.mapped, self.target.cells)
        return two_sample_test(*(cells if directions is None else (part @ directions for part in cells)))

    def monge_gap(self) -> float:
        """How much farther the map moves its cells than the best assignment would: 0 for an optimal map."""
        from scgap._losses import COSTS, compiled_floor_free_monge_gap  # here, so that plots do not load JAX

        weights = _padded_weights(len(self.mapped), padded_size(len(self.mapped)))
        source, mapped = (np.asarray(cells, np.float64) for cells in (self.source, self.mapped))
        origin = source.mean(0)  # rows of padding lie there
        return float(
            compiled_floor_free_monge_gap(
                *(pad_rows((cells - origin).astype(np.float32)) for cells in (source, mapped)),
                weights,
                cost=COSTS["euclidean"],
                epsilon=np.float32(GAP_EPSILON * self.reference.scale),
            )
        )


type Loss = Callable[[Any], Any]
"""From values of a metric, one or an array, to as many numbers that are lower where the prediction is better."""


def as_it_is(values: Any) -> Any:
    """Loss of distances and errors."""
    return values


def shortfall(values: Any) -> Any:
    """Loss of shares and correlations, which are 1 at best."""
    return 1.0 - values


def off_one(values: Any) -> Any:
    """Loss of a ratio: a half is as far off as a double, and 0 infinitely far."""
    with np.errstate(divide="ignore"):
        return np.abs(np.log(values))


class Metric(NamedTuple):
    """How a comparison is measured."""

    compute: Callable[[Comparison], float]
    catches: frozenset[str]
    """Counterfeits that it ranks behind a perfect sampler, of COUNTERFEITS."""
    loss: Loss = as_it_is
    needs: str = ""
    """Field of the reference (or ``source``) without which it has no value."""
    min_cells: int = 2
    """On each side."""


# Predictions that look right to some metrics and are wrong.
COUNTERFEITS = {
    "collapse": "every cell at the true mean",
    "shrunk": "cells 20 % nearer to their mean",
    "inflated": "cells 25 % farther from their mean",
    "covariance": "each feature right, drawn independently of the others",
    "skew": "right means and covariances, without skewness",
    "shift": "the right shape in the wrong place",
    "swapped": "cells of another condition",
}

MISSING = {
    "perturbed": "no training cells of perturbed conditions",
    "weights": "no training cells to choose features on",
    "others": "no other condition of the group to be told from",
    "has_zeros": "the features have no zeros of expression",
    "source": "it is not known which control cell became which",
}


_ALL = frozenset(COUNTERFEITS)
_NEARLY_ALL = _ALL - {"skew"}
_MEANS = frozenset({"shift", "swapped"})
_SPREADS = frozenset({"collapse", "shrunk", "inflated"})

METRICS: dict[str, Metric] = {
    "energy_distance": Metric(lambda c: _metrics.energy_distance(c.distances), _NEARLY_ALL),
    "mmd": Metric(lambda c: _metrics.mmd(c.distances, [h * c.reference.scale for h in BANDWIDTHS]), _NEARLY_ALL),
    "sinkhorn_divergence": Metric(lambda c: float(c.divergences[0]), _NEARLY_ALL, min_cells=10),
    "smooth_sinkhorn_divergence": Metric(lambda c: float(c.divergences[1]), _NEARLY_ALL, min_cells=10),
    "wasserstein": Metric(lambda c: _metrics.wasserstein(c.mapped, c.target.cells), _ALL - {"covariance"}),
    "mean_error": Metric(lambda c: _metrics.mean_error(c.mapped, c.target.cells), _MEANS),
    "std_error": Metric(lambda c: _metrics.std_error(c.mapped, c.target.cells), _SPREADS),
    "skewness_error": Metric(
        lambda c: _metrics.skewness_error(c.mapped, c.target.cells), frozenset({"collapse", "skew"}), min_cells=5
    ),
    "kurtosis_error": Metric(
        lambda c: _metrics.kurtosis_error(c.mapped, c.target.cells), frozenset({"skew"}), min_cells=5
    ),
    "correlation_error": Metric(
        lambda c: _metrics.correlation_error(c.mapped, c.target.cells),
        frozenset({"collapse", "covariance"}),
        min_cells=5,
    ),
    "variance_ratio": Metric(lambda c: _metrics.variance_ratio(c.mapped, c.target.cells), _SPREADS, off_one),
    "r2": Metric(lambda c: _metrics.r2(c.mapped, c.target.cells), _MEANS, shortfall),
    "r2_delta": Metric(lambda c: _metrics.r2(c.mapped, c.target.cells, c.reference.control), _MEANS, shortfall),
    "r2_delta_perturbed": Metric(
        lambda c: _metrics.r2(c.mapped, c.target.cells, c.given("perturbed")), _MEANS, shortfall, "perturbed"
    ),
    "pearson_delta": Metric(
        lambda c: _metrics.pearson(c.mapped, c.target.cells, c.reference.control), _MEANS, shortfall
    ),
    "pearson_delta_perturbed": Metric(
        lambda c: _metrics.pearson(c.mapped, c.target.cells, c.given("perturbed")), _MEANS, shortfall, "perturbed"
    ),
    "weighted_mse": Metric(
        lambda c: _metrics.weighted_mse(c.mapped, c.target.cells, c.given("weights")), _MEANS, needs="weights"
    ),
    "centroid_accuracy": Metric(
        lambda c: _metrics.centroid_accuracy(c.mapped, c.target.cells, c.given("others")),
        frozenset({"swapped"}),
        shortfall,
        "others",
    ),
    "zero_fraction_error": Metric(
        lambda c: _metrics.zero_fraction_error(c.mapped, c.target.cells), frozenset(), needs="has_zeros"
    ),
    "classifier_auc": Metric(lambda c: c.two_sample_test.auc, _NEARLY_ALL, min_cells=20),
    "classifier_p_value": Metric(lambda c: c.two_sample_test.p_value, _NEARLY_ALL, shortfall, min_cells=20),
    "monge_gap": Metric(Comparison.monge_gap, frozenset(), needs="source", min_cells=10),
}


def measure(name: str, comparison: Comparison) -> tuple[float, str]:
    """A metric's value, or NaN and the reason why it has none."""
    metric, n_cells = METRICS[name], len(comparison.mapped)
    if n_cells < metric.min_cells:
        return np.nan, f"{n_cells} cells on each side; the metric needs {metric.min_cells}"
    holder = comparison if metric.needs == "source" else comparison.reference
    if metric.needs and getattr(holder, metric.needs) is None:
        return np.nan, MISSING[metric.needs]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = metric.compute(comparison)
    return (value, "") if np.isfinite(value) else (np.nan, "undefined: no effect, or no spread, to compare with")


def _between_halves(distances: np.ndarray) -> np.ndarray:
    half = len(distances) // 2
    return distances[:half, half : 2 * half]


def _transport_costs(costs: list[np.ndarray], scale: float) -> np.ndarray:
    """Entropic transport costs (n_epsilons, n_problems) of equally large cost matrices."""
    from scgap._losses import transport_costs

    n = len(costs[0])
    size = padded_size(n)  # few shapes, few compilations
    padded = np.zeros((len(costs), size, size), np.float32)
    padded[:, :n, :n] = costs
    return np.array(
        [transport_costs(padded, np.float32(epsilon * scale), _padded_weights(n, size)) for epsilon in EPSILONS]
    )


def _padded_weights(n: int, size: int) -> np.ndarray:
    return np.where(np.arange(size) < n, np.float32(1.0 / n), np.float32(0.0))
