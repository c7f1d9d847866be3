"""Predicted cells of any tool, by the side of the observed ones.

``name`` is what messages call the object, such as ``predicted`` or ``predicted['shrunk']``.
"""

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._adata import Matrix, check_finite, check_unique, get_matrix, get_obs
from scgap._conditions import Condition, Design, read_conditions
from scgap._messages import listed


def same_features(adata: AnnData, predicted: AnnData, name: str) -> np.ndarray:
    """Positions (n_features,) among the predicted features of the observed ones."""
    check_unique(adata.var_names, "observed")
    check_unique(predicted.var_names, name)
    missing, unknown = adata.var_names.difference(predicted.var_names), predicted.var_names.difference(adata.var_names)
    if len(missing) or len(unknown):
        raise ValueError(
            f"{name} lacks {len(missing)} of the {adata.n_vars} observed features ({listed(missing)}) and has "
            f"{len(unknown)} others ({listed(unknown)}). Both sides need the same features: select those they share."
        )
    return predicted.var_names.get_indexer(pd.Index(adata.var_names))


def predicted_conditions(design: Design, predicted: AnnData, name: str) -> tuple[list[Condition], np.ndarray]:
    """Its conditions, and each cell's position in them (n_obs,), -1 for none."""
    obs = get_obs(predicted, None, design.columns, hint=f" It has to be in {name}.obs, too.")
    conditions, of_cell, _ = read_conditions(design, obs, need_controls=False)
    return conditions, of_cell


def read_cells(adata: AnnData, layer: str | None, rows: np.ndarray | None, name: str) -> Matrix:
    """Features (n, n_features) of some cells, None for all; the values of the others are not looked at."""
    matrix = get_matrix(adata, layer)
    cells = matrix if rows is None else matrix[rows]
    check_finite(cells, f"{name}.X" if layer is None else f"{name}.layers[{layer!r}]")
    return cells
