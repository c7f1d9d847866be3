"""Predicted cells, and the observed ones that they are compared with."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData

from scgap._adata import Data, check_finite, get_layers, get_matrix, get_modality, get_obs, take_features, to_dense
from scgap._conditions import Condition, condition_label, parse_condition, read_conditions
from scgap._meanings import check_unambiguous, contexts
from scgap._messages import MAX_LISTED, listed, not_found, shown
from scgap._model import TransportModel, get_predictions
from scgap._query import Query, read_query
from scgap._representation import feature_order, read_matrix
from scgap._scoring import Observations


class Cells(NamedTuple):
    """Cells (n, n_vars) of one group."""

    predicted: np.ndarray
    source: np.ndarray
    """The control cells that they were predicted from, row by row."""
    observed: np.ndarray
    condition: Condition | None
    """What the observed cells are; None of a mixture."""


def read_cells(
    data: Data,
    mod: str | None,
    model: TransportModel,
    key: str,
    layer: str,
    condition: Query | None,
) -> tuple[Observations, list[Cells], str]:
    """All that was measured, the cells of each group that has some of the condition, and a title."""
    adata, design = get_modality(data, mod), model.design
    query, full = _asked(data, mod, model, key, layer, condition)
    split_col = model.params["split_col"]
    has_split = split_col in {*adata.obs, *data.obs}  # another object need not have it
    obs = get_obs(data, mod, [*design.columns, split_col if has_split else None])
    tested = (obs[split_col].astype(object) == "test").to_numpy() if has_split else np.ones(adata.n_obs, bool)
    conditions, of_cell, _ = read_conditions(design, obs, need_controls=False)
    order = feature_order(model.representation, adata, model.var_names)
    features = take_features(read_matrix(model.representation, adata), order)
    prediction = take_features(get_matrix(adata, layer), order)
    check_finite(prediction, f"adata.layers[{layer!r}]")
    transported = _transported(adata, layer)

    observations = Observations(
        conditions,
        of_cell,
        obs[split_col].astype(str).to_numpy() if has_split else np.full(adata.n_obs, "test"),
        features,
        bool(np.all(model.representation.nonnegative)),
    )
    groups, labels = [], set()
    named = [column for column in design.group_cols if query.get(column) is not None]
    for group in sorted({c.group for c in conditions}):
        values = dict(zip(design.group_cols, group, strict=True))
        if any(str(query[column]) != values[column] for column in named):
            continue
        asked = {parse_condition(design, {**one, **values}): None for one in full}  # a set in order
        in_group = np.isin(of_cell, [i for i, c in enumerate(conditions) if c.group == group])
        wanted = np.isin(of_cell, [i for i, c in enumerate(conditions) if c in asked])
        # Test cells of a mixture alone need not be in its shares: a condition may be held out whole.
        observed = wanted & tested if (wanted & tested).any() and len(asked) == 1 else wanted
        moved = transported & in_group
        moved = moved & tested if (moved & tested).any() else moved
        if observed.sum() > 1 and moved.sum() > 1:
            one = next(iter(asked)) if len(asked) == 1 else None
            before, after = to_dense(features[moved]), to_dense(prediction[moved])
            groups.append(Cells(after, before, to_dense(features[observed]), one))
            units = design.dose_unit, design.time_unit
            labels |= {
                condition_label(c._replace(group=tuple(values[column] for column in named)), *units) for c in asked
            }
    if not groups:
        raise ValueError(
            f"No measured cells to compare with {query!r}. Predict and compare a measured condition: "
            f"{listed(model.conditions['condition_label'])}."
        )
    names = sorted(labels)
    title = ", ".join(names[:MAX_LISTED]) + (f", … ({len(names)} in all)" if len(names) > MAX_LISTED else "")
    return observations, groups, title


def _stored_query(written: str, key: str, layer: str) -> Query:
    """The condition that `scgap.tl.predict` wrote down."""
    try:
        query = json.loads(written)
    except (RecursionError, ValueError):
        query = None
    if not isinstance(query, Mapping):
        raise ValueError(
            f"adata.uns[{key!r}]['predictions'][{layer!r}] is no condition, but {shown(written)}. Predict again: "
            "scgap.tl.predict(adata, condition)."
        )
    return query


def _transported(adata: AnnData, layer: str) -> np.ndarray:
    """Which cells (n_obs,) of a layer are predictions."""
    column = f"{layer}_transported"
    if column not in adata.obs or adata.obs[column].dtype != bool:
        raise KeyError(
            f"adata.obs[{column!r}], which tells predicted cells, is missing or not boolean. Predict again: "
            "scgap.tl.predict(adata, condition)."
        )
    return adata.obs[column].to_numpy()


def _asked(
    data: Data, mod: str | None, model: TransportModel, key: str, layer: str, condition: Query | None
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """The query to compare with, by default that of the prediction in the layer, and all that it can mean."""
    adata = get_modality(data, mod)
    if model.representation.kind == "obsm":
        raise ValueError(
            f"The map was fitted in {model.representation.use_rep!r}, which has no decoder: its predictions, in adata."
            "obsm, have no features whose moments could be drawn. Fit X, a layer or 'X_pca'."
        )
    if layer not in adata.layers:
        found = get_layers(adata)
        raise KeyError(not_found(layer, "adata.layers", found) + " Predict first: scgap.tl.predict(adata, condition).")
    predictions = get_predictions(adata.uns, key)
    if layer not in predictions:
        raise KeyError(
            f"adata.layers[{layer!r}] is not a prediction of the map in adata.uns[{key!r}], fitted anew or elsewhere. "
            "Predict again: scgap.tl.predict(adata, condition)."
        )
    predicted = read_query(model, _stored_query(predictions[layer], key, layer))
    query = predicted if condition is None else read_query(model, condition)
    full = contexts(model, query)
    if query != predicted:  # which may be a mixture
        check_unambiguous(model, query, full)
    return query, full
