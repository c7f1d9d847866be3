"""Move cells to a condition."""

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._adata import Data, check_key, check_writable, get_modality, get_obs, to_dense
from scgap._model import TransportModel, get_model
from scgap._query import move_cells, read_query, select_source
from scgap._representation import decode, encode, feature_order, read_matrix

CHUNK = 16_384  # cells decoded at once: enough to be fast, and little beside an atlas


def predict(
    data: Data,
    condition: str | Mapping[str, Any] | pd.Series,
    *,
    source: Sequence[str] | np.ndarray | pd.Series | None = None,
    key: str = "scgap",
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> Data | None:
    """Move source cells to a condition with a fitted map, cell by cell.

    Parameters
    ----------
    data
        The object that was fitted, or another one with ``uns[key]`` and the same features in any order.
    condition
        What is done to the cells: a label of the perturbation (``"drug_1"``, with ``sep`` also ``"A+B"``), or a mapping
        from the columns of the fit to values, ``{"perturbation": "drug_1", "dose_value": 100}``. A set of perturbations
        can be given as a list. Doses and times need not have been measured. Group columns may be left out: every cell
        is moved in its own group. If they are given, only cells of that group are moved.
    source
        Cells to move, a boolean mask or a list of obs names. Default: all control cells.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData.
    key_added
        Name of the result; default ``key``.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields, with ``name = key_added or key``:

    layers[name] : float32 array (n_obs, n_vars)
        Source cells as they become under the condition; all other rows as observed. On the scale of the fitted layer.
    obs[f"{name}_transported"] : bool
        Which rows were moved.
    obsm[f"X_{name}"] : float32 array (n_obs, n)
        Instead of the layer where the fitted embedding has no decoder.
    uns[key]["predictions"][name] : str
        The condition, JSON.

    Raises
    ------
    KeyError
        No map under ``key``; an unknown column; a perturbation without a vector.
    ValueError
        A dose or time is left open; ``source`` selects nothing; there are no controls to move; features are missing or
        unknown; the place to write to holds the fitted data, or anything that is not a prediction.

    Warns
    -----
    UserWarning
        The embedding has no decoder; cells of a group that was not trained on are moved without its context.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> scgap.tl.predict(adata, {"perturbation": "drug_1", "dose_value": 50.0})
    >>> adata.layers["scgap"].shape == adata.shape
    True
    """
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    model = get_model(data, mod, key)
    name = check_key(key_added or key)
    _check_free(adata, model, key, name)
    query = read_query(model, condition)
    obs = get_obs(data, mod, model.design.group_cols)
    if source is None:
        hint = " It tells which cells are controls: add it, or pass the cells to move as source=."
        obs = get_obs(data, mod, model.design.columns, hint=hint)
    cells = select_source(model, adata, obs, query, source)
    prediction = _move(model, adata, cells, obs, query)

    result = data.copy() if copy else data
    adata = get_modality(result, mod)
    if model.representation.kind == "obsm":
        adata.obsm[f"X_{name}"] = prediction
        warnings.warn(
            f"{model.representation.use_rep!r} has no decoder: the prediction is in its space, adata.obsm['X_{name}'], "
            "and no layer was written.",
            stacklevel=2,
        )
    else:
        adata.layers[name] = prediction
    adata.obs[f"{name}_transported"] = cells
    # Written anew, for another object may share the dictionary.
    predictions = {**adata.uns[key].get("predictions", {}), name: json.dumps(query)}
    adata.uns[key] = {**adata.uns[key], "predictions": predictions}
    return result if copy else None


def _move(
    model: TransportModel, adata: AnnData, cells: np.ndarray, obs: pd.DataFrame, query: Mapping[str, Any]
) -> np.ndarray:
    """The fitted matrix with the chosen cells (n_obs,) moved; in chunks, so that only the result is of its size."""
    matrix, representation = read_matrix(model.representation, adata), model.representation
    order = feature_order(representation, adata, model.var_names)
    inverse = order if isinstance(order, slice) else np.argsort(order)
    result = np.empty(matrix.shape, np.float32)
    for start in range(0, len(result), CHUNK):
        rows = slice(start, start + CHUNK)
        features = matrix[rows][:, order]
        block = to_dense(features, out=result[rows])
        if cells[rows].any():
            # A slice is no copy: where all cells move, they are decoded in place.
            chosen = slice(None) if cells[rows].all() else np.flatnonzero(cells[rows])
            points = encode(representation, features[chosen])
            moved = move_cells(model, points, obs.iloc[rows].iloc[chosen], query)
            block[chosen] = decode(representation, block[chosen], points, moved)
        block[:] = block[:, inverse]
    return result


def _check_free(adata: AnnData, model: TransportModel, key: str, name: str) -> None:
    """Refuse to write over anything but predictions."""
    representation = model.representation
    place, field, fitted = (
        (adata.obsm, f"X_{name}", representation.use_rep)
        if representation.kind == "obsm"
        else (adata.layers, name, representation.layer)
    )
    where = f"adata.{'obsm' if representation.kind == 'obsm' else 'layers'}[{field!r}]"
    if field == fitted:
        raise ValueError(f"key_added={name!r} is the place, {where}, that the map was fitted on. Pass another name.")
    # The mark tells predictions of an earlier map, which uns[key] has forgotten.
    predicted = name in adata.uns[key].get("predictions", {}) or f"{name}_transported" in adata.obs
    if field in place and not predicted:
        raise ValueError(
            f"{where} exists and is not a prediction of scgap, which alone are written over. Pass another name as "
            "key_added, or delete it."
        )
