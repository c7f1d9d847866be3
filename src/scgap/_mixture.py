"""Cells drawn from a mixture of populations."""

from collections.abc import Sequence

import numpy as np


def draw_mixture(
    populations: Sequence[np.ndarray], shares: Sequence[float], n_cells: int, generator: np.random.Generator
) -> np.ndarray:
    """Cells (n_cells, n_features) in random order, of each population its share to within one cell.

    ``populations`` are one or more of (n, n_features), ``shares`` positive. No cell is drawn twice before all of its
    population were drawn once, for twins are at no distance from each other.
    """
    # In another order each time, so that none is left out for its neighbours.
    order = generator.permutation(len(shares))
    ends = np.cumsum(np.asarray(shares, float)[order])
    marks = (np.arange(n_cells) + generator.random()) / n_cells * ends[-1]
    of_cell = np.minimum(np.searchsorted(ends, marks, side="right"), len(ends) - 1)  # the last mark can be rounded up
    counts = np.bincount(of_cell, minlength=len(ends)).tolist()
    drawn = [_sample(populations[i], count, generator) for i, count in zip(order, counts, strict=True) if count]
    return generator.permutation(np.concatenate([populations[0][:0], *drawn]))


def _sample(cells: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    """Cells (n, n_features): all as often as they go into n, and a random choice for the rest."""
    if n == 1:  # a shortcut, for mixtures of many populations
        return cells[[generator.integers(len(cells))]]
    times, rest = divmod(n, len(cells))
    chosen = generator.choice(len(cells), rest, replace=False, shuffle=False)
    return cells[np.concatenate([np.tile(np.arange(len(cells)), times), chosen])]
