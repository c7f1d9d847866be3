"""What metrics measure with, from training cells wherever it is a choice, so that no prediction can move it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from scgap._conditions import Condition, Group
from scgap._metrics import pairwise_distances

MOST_PAIRED = 1_000  # cells whose distances make the scale
MANY_FEATURES = 100  # above which the classifier sees the main directions of the cells alone
N_DIRECTIONS = 30


class Reference(NamedTuple):
    """For the comparisons of one condition; None where there is nothing to take it from."""

    scale: float
    """Mean distance between training cells."""
    control: np.ndarray
    """(n_features,) mean of the observed controls of the group."""
    perturbed: np.ndarray | None
    """(n_features,) mean of the training conditions' means, of the group if it has any."""
    weights: np.ndarray | None
    """(n_features,) differential expression among training cells, summing to 1."""
    others: np.ndarray | None
    """(n_conditions, n_features) observed means of the other conditions of the group."""
    directions: np.ndarray | None
    """(n_features, n) main directions of the training cells, where features are many."""
    has_zeros: bool | None
    """True for expression, whose zeros are of its own kind."""


class References(NamedTuple):
    """What those of all conditions are made of."""

    scale: float
    directions: np.ndarray | None
    has_zeros: bool | None
    observed: Mapping[Condition, np.ndarray]
    """Means (n_features,) of the cells that are judged by, those of controls among them."""
    perturbed: Mapping[Group, np.ndarray]
    weights: Mapping[Condition, np.ndarray]
    average_weights: Mapping[Group, np.ndarray]
    """For conditions without training cells; under the group ``()`` those over all groups."""

    def of(self, condition: Condition) -> Reference:
        """The reference of one condition, whose controls were observed."""
        group = condition.group
        others = [
            mean
            for other, mean in self.observed.items()
            if other.group == group and not other.is_control and other != condition
        ]
        everywhere = self.average_weights.get(())
        return Reference(
            self.scale,
            self.observed[Condition((), group)],
            self.perturbed.get(group, self.perturbed.get(())),
            self.weights.get(condition, self.average_weights.get(group, everywhere)),
            np.array(others) if others else None,
            self.directions,
            self.has_zeros,
        )


def make_references(
    training: Mapping[Condition, np.ndarray],
    observed: Mapping[Condition, np.ndarray],
    controls: Sequence[np.ndarray],
    *,
    nonnegative: bool,
    generator: np.random.Generator,
) -> References:
    """From training cells (n, n_features) and observed means (n_features,) of every condition.

    ``controls`` are the observed control cells (n, n_features) of each group: they stand in for training cells where
    there are none.
    """
    if not (populations := list(training.values()) or controls):
        return References(1.0, None, None, observed, {}, {}, {})  # nothing to compare with, in any condition
    cells = np.concatenate(populations)
    some = cells[generator.permutation(len(cells))[:MOST_PAIRED]]
    distances = pairwise_distances(some, some)
    n = len(some)
    weights, perturbed = {}, defaultdict(list)
    for condition, population in training.items():
        control = training.get(Condition((), condition.group))
        if condition.is_control:
            continue
        for group in {condition.group, ()}:
            perturbed[group].append(population.mean(0, dtype=np.float64))
        if control is not None:
            weights[condition] = _expression_weights(population, control)
    by_group = defaultdict(list)
    for condition, weight in weights.items():
        for group in {condition.group, ()}:
            by_group[group].append(weight)
    return References(
        float(distances.mean(dtype=np.float64)) * n / max(n - 1, 1) or 1.0,
        _main_directions(some),
        True if nonnegative and any((cells == 0).any() for cells in controls) else None,
        observed,
        {group: np.mean(means, axis=0) for group, means in perturbed.items()},
        weights,
        {group: np.mean(several, axis=0) for group, several in by_group.items()},
    )


def _expression_weights(perturbed: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Squared Welch statistics (n_features,) as shares of their sum; equal where nothing differs."""
    difference = perturbed.mean(0, dtype=np.float64) - control.mean(0, dtype=np.float64)
    variance = perturbed.var(0, dtype=np.float64) / len(perturbed) + control.var(0, dtype=np.float64) / len(control)
    squares = difference**2 / (variance + 1e-9 * (variance.max() + 1e-30))
    total = squares.sum()
    return squares / total if total > 0 else np.full(len(squares), 1.0 / len(squares))


def _main_directions(cells: np.ndarray) -> np.ndarray | None:
    """Principal components (n_features, N_DIRECTIONS) of many features."""
    if cells.shape[1] <= MANY_FEATURES:
        return None
    _, _, directions = np.linalg.svd(cells - cells.mean(0), full_matrices=False)
    return np.ascontiguousarray(directions[:N_DIRECTIONS].T)
