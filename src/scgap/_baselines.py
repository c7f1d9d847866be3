"""What a prediction has to beat: closed forms on plain arrays (n_cells, n_features)."""

import numpy as np


def identity(source: np.ndarray) -> np.ndarray:
    """Control cells as they are."""
    return source


def mean_shift(source: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """All control cells moved by one vector (n_features,): right means, and the shape of the controls."""
    return source + shift


def halves(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of cells in random order: how well one predicts the other is the ceiling of every method."""
    return cells[: len(cells) // 2], cells[len(cells) // 2 :]
