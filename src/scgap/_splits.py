"""Cells that train, validate and test."""

import numpy as np
import pandas as pd

from scgap._messages import listed

SPLITS = ("train", "valid", "test")
MIN_CELLS = 10  # training cells of a condition or of a group's controls, below which moments mean nothing
MIN_VALID = 2  # validation cells, below which there is no unbiased energy distance
VALID_FRACTION = 0.1  # of the cells that do not test
FEW_VALID = 5  # of a small condition, whose tenth would be too few


def n_valid_of(n_cells: int) -> int:
    """How many of a condition's cells validate: a tenth, or a few more, as long as enough are left to train on."""
    return max(0, min(max(round(VALID_FRACTION * n_cells), FEW_VALID), n_cells - MIN_CELLS))


def read_split(labels: pd.Series | None, of_cell: np.ndarray) -> np.ndarray:
    """``train``, ``valid``, ``test`` or ``""`` (no condition) for every cell (n_obs,); all ``train`` without labels."""
    split = (
        np.full(len(of_cell), "train", dtype=object) if labels is None else labels.astype(object).to_numpy(copy=True)
    )
    used = of_cell >= 0
    if unknown := sorted({str(label) for label in split[used]} - set(SPLITS)):
        raise ValueError(
            f"The split column {labels.name if labels is not None else ''!r} holds {listed(unknown)}. "
            "Its values are 'train', 'valid' and 'test'; scgap.pp.split makes such a column."
        )
    split[~used] = ""
    return split.astype(str)


def assign_split(labels: pd.Series | None, of_cell: np.ndarray, order: np.ndarray, seed: int) -> np.ndarray:
    """The split (n_obs,), in which a tenth of the training cells, drawn from ``order``, validates if no cells do."""
    split = read_split(labels, of_cell)
    if not (split == "valid").any():
        generator = np.random.default_rng(seed)
        for population in np.unique(of_cell[split == "train"]):
            cells = order[((of_cell == population) & (split == "train"))[order]]
            split[generator.permutation(cells)[: n_valid_of(len(cells))]] = "valid"
    return split
