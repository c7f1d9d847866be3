"""Predicted cells, and the observed ones that they are compared with."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData

from scgap._adata import (
    Data,
    Matrix,
    check_finite,
    get_layers,
    get_matrix,
    get_modality,
    get_obs,
    take_features,
    to_dense,
)
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


class Group(NamedTuple):
    """Which cells (n_obs,) of one group are compared."""

    moved: np.ndarray
    """Those that were predicted."""
    observed: np.ndarray
    condition: Condition | None
    """What the observed cells are; None of a mixture."""


class Found(NamedTuple):
    """What a question to a prediction is about."""

    conditions: list[Condition]
    """All that was measured, and which of these each cell (n_obs,) is."""
    of_cell: np.ndarray
    split: np.ndarray
    """(n_obs,) train, valid or test; all test where the object has no such column."""
    groups: list[Group]
    title: str


def read_cells(
    data: Data,
    mod: str | None,
    model: TransportModel,
    key: str,
    layer: str,
    condition: Query | None,
) -> tuple[Observations, list[Cells], str]:
    """All that was measured, the cells of each group that has some of the condition, and a title."""
    if model.representation.kind == "obsm":
        raise ValueError(
            f"The map was fitted in {model.representation.use_rep!r}, which has no decoder: its predictions, in adata."
            "obsm, have no features whose moments could be drawn. Fit X or a layer, or call sc.pp.pca and fit 'X_pca'."
        )
    found = find_groups(data, mod, model, key, layer, condition)
    features, prediction = read_matrices(model, get_modality(data, mod), layer)
    observations = Observations(
        found.conditions,
        found.of_cell,
        found.split,
        features,
        bool(np.all(model.representation.nonnegative)),
        get_modality(data, mod).obs_names,
    )
    groups = [
        Cells(
            to_dense(prediction[group.moved]),
            to_dense(features[group.moved]),
            to_dense(features[group.observed]),
            group.condition,
        )
        for group in found.groups
    ]
    return observations, groups, found.title


def read_matrices(model: TransportModel, adata: AnnData, layer: str) -> tuple[Matrix, Matrix]:
    """What the map was fitted on (n_obs, n), and what it made of it, features in the order of the fit."""
    order = feature_order(model.representation, adata, model.var_names)
    measured = read_matrix(model.representation, adata)
    is_layer = model.representation.kind != "obsm"
    predicted = get_matrix(adata, layer) if is_layer else np.asarray(adata.obsm[f"X_{layer}"], np.float32)
    check_finite(predicted, f"adata.layers[{layer!r}]" if is_layer else f"adata.obsm['X_{layer}']")
    return take_features(measured, order), take_features(predicted, order)


def find_groups(
    data: Data,
    mod: str | None,
    model: TransportModel,
    key: str,
    layer: str,
    condition: Query | None,
    *,
    measured: bool = True,
) -> Found:
    """The cells of each group that were predicted and, of the condition, observed; ``measured``: it has to be."""
    adata, design = get_modality(data, mod), model.design
    query, full = _asked(data, mod, model, key, layer, condition)
    split_col = model.params["split_col"]
    has_split = split_col in {*adata.obs, *data.obs}  # another object need not have it
    obs = get_obs(data, mod, [*design.columns, split_col if has_split else None])
    split = obs[split_col].astype(str).to_numpy() if has_split else np.full(adata.n_obs, "test")
    conditions, of_cell, _ = read_conditions(design, obs, need_controls=False)
    transported = _transported(adata, layer)
    groups, labels = [], set()
    named = [column for column in design.group_cols if query.get(column) is not None]
    for group in sorted({c.group for c in conditions}):
        values = dict(zip(design.group_cols, group, strict=True))
        if any(str(query[column]) != values[column] for column in named):
            continue
        asked = {parse_condition(design, {**one, **values}): None for one in full}  # a set in order
        moved = transported & np.isin(of_cell, [i for i, c in enumerate(conditions) if c.group == group])
        wanted = np.isin(of_cell, [i for i, c in enumerate(conditions) if c in asked])
        # Test cells of a mixture alone need not be in its shares: a condition may be held out whole.
        observed = _held_out(wanted, split) if len(asked) == 1 else wanted
        moved = _held_out(moved, split)
        if (observed.sum() > 1 or not measured) and moved.sum() > 1:
            groups.append(Group(moved, observed, next(iter(asked)) if len(asked) == 1 else None))
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
    return Found(conditions, of_cell, split, groups, title)


def _held_out(cells: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Those of the cells (n_obs,) that are test cells, or all where none is."""
    tested = cells & (split == "test")
    return tested if tested.any() else cells


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
    is_layer = model.representation.kind != "obsm"
    name, found = (layer, get_layers(adata)) if is_layer else (f"X_{layer}", list(adata.obsm))
    where = f"adata.{'layers' if is_layer else 'obsm'}"
    if name not in found:
        raise KeyError(not_found(name, where, found) + " Predict first: scgap.tl.predict(adata, condition).")
    predictions = get_predictions(adata.uns, key)
    if layer not in predictions:
        raise KeyError(
            f"{where}[{name!r}] is not a prediction of the map in adata.uns[{key!r}], fitted anew or elsewhere. "
            "Predict again: scgap.tl.predict(adata, condition)."
        )
    predicted = read_query(model, _stored_query(predictions[layer], key, layer))
    query = predicted if condition is None else read_query(model, condition)
    full = contexts(model, query)
    if query != predicted:  # which may be a mixture
        check_unambiguous(model, query, full)
    return query, full
