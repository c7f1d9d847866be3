"""Questions to a fitted map: which condition is meant, which cells are moved, and the moving."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._adata import select_cells
from scgap._arrays import ConditionArrays
from scgap._conditions import Condition, has_label, parse_condition, read_conditions, records
from scgap._encoding import encode_conditions
from scgap._messages import kind_of, listed, not_found
from scgap._model import TABLE, TransportModel


def read_query(model: TransportModel, condition: str | Mapping[str, Any] | pd.Series) -> dict[str, Any]:
    """The condition a user asks for, as a mapping from design columns to plain values; groups may be left open."""
    design = model.design
    if isinstance(condition, str):
        query: dict[str, Any] = {design.target_cols[0]: condition}
    elif isinstance(condition, Mapping | pd.Series):
        query = {str(column): _plain(value) for column, value in condition.items()}
        if isinstance(condition, pd.Series):  # perhaps a row of the table of conditions
            query = {name: value for name, value in query.items() if name in design.columns or name not in TABLE}
    else:
        raise TypeError(
            f"condition is {kind_of(condition)}. Pass a label of {design.target_cols[0]!r}, or a mapping from "
            f"columns to values; columns: {listed(design.columns)}."
        )
    for column in query:
        if column not in design.columns:
            raise KeyError(not_found(column, "the columns of the fit", design.columns))
    if not has_label(design, query):
        raise ValueError(f"condition names no perturbation. Give a value for {listed(design.target_cols)}.")
    plain = design._replace(dose_cols=(), group_cols=(), time_col=None)
    asked = parse_condition(plain, query)
    if asked.is_control:
        return query
    open_columns = [column for column in (*design.dose_cols, design.time_col) if column and query.get(column) is None]
    if len(design.dose_cols) == len(design.target_cols):
        # The dose of a target column that holds no perturbation is not asked for.
        unused = {
            dose_col
            for column, dose_col in zip(design.target_cols, design.dose_cols, strict=True)
            if parse_condition(plain._replace(target_cols=(column,)), query).is_control
        }
        open_columns = [column for column in open_columns if column not in unused]
    if open_columns:
        raise ValueError(
            f"condition leaves {listed(open_columns)} open. Measured conditions that it can mean: "
            f"{listed(_matching(model, query, asked))}. Give a value, measured or not."
        )
    return query


def select_source(
    model: TransportModel, adata: AnnData, obs: pd.DataFrame, query: Mapping[str, Any], source: Any
) -> np.ndarray:
    """Boolean mask (n_obs,) of the cells to move: those given, or all controls, of the group that the query names."""
    design = model.design
    asked = {column: str(query[column]) for column in design.group_cols if column in query}
    in_group = np.ones(adata.n_obs, bool)
    for column, value in asked.items():
        in_group &= (obs[column].astype(str) == value).to_numpy()
    if source is not None:
        cells = select_cells(adata, source)
        if asked and not in_group[cells].all():
            raise ValueError(
                f"condition names the group {listed(asked.values())}, and {(cells & ~in_group).sum()} source cells "
                "are not of it. Cells are moved in their own group: leave it out of condition, or select cells of it."
            )
    else:
        conditions, of_cell, _ = read_conditions(design, obs, need_controls=False)
        control = [i for i, condition in enumerate(conditions) if condition.is_control]
        cells = np.isin(of_cell, control) & in_group
        if not cells.any():
            where = f" in the group {listed(asked.values())}" if asked else ""
            groups = sorted({", ".join(conditions[i].group) for i in control} - {""})
            raise ValueError(
                f"There are no control cells{where}: none has reference_key={design.reference_key!r} in "
                f"{listed(design.target_cols)}. Pass the cells to move as source="
                + (f", or one of the groups {listed(groups)}." if groups else ".")
            )
    for column, trained in model.encoding.groups.items():
        if new := sorted({str(group) for group in obs[column][cells].unique()} - set(trained)):
            warnings.warn(
                f"{column!r} {listed(new)} was not trained on: its cells are moved without its context. The map knows "
                f"the context of {listed(trained)}.",
                stacklevel=3,
            )
    return cells


def move_cells(model: TransportModel, points: np.ndarray, groups: pd.DataFrame, query: Mapping[str, Any]) -> np.ndarray:
    """Points (n_cells, n) moved to the queried condition, each in its own group (n_cells rows)."""
    from scgap._map import transport_cells  # here, so that plots do not load JAX

    design = model.design
    columns = list(design.group_cols)
    labels = groups[columns].astype(str)
    codes = labels.groupby(columns).ngroup().to_numpy() if columns else np.zeros(len(points), int)
    moved = np.empty_like(points)
    for code in np.unique(codes):
        rows = codes == code
        group = labels.iloc[np.flatnonzero(rows)[0]].to_dict() if columns else {}
        condition = parse_condition(design, {**query, **group})
        arrays = ConditionArrays(*(array[0] for array in encode_conditions(model.encoding, [condition])))
        moved[rows] = transport_cells(model.network, model.weights, points[rows], arrays)
    return moved


def _matching(model: TransportModel, query: Mapping[str, Any], asked: Condition) -> list[str]:
    """Labels of the measured conditions that agree with the query; ``asked`` holds its perturbations."""
    design, table = model.design, model.conditions
    conditions = [parse_condition(design, row) for row in records(table)]
    names = {name for name, _ in asked.members}

    def agrees(condition: Condition) -> bool:
        group = dict(zip(design.group_cols, condition.group, strict=True))
        return {name for name, _ in condition.members} == names and all(
            str(query[column]) == value for column, value in group.items() if column in query
        )

    return [
        str(label) for label, condition in zip(table["condition_label"], conditions, strict=True) if agrees(condition)
    ]


def _plain(value: Any) -> Any:
    """JSON-able: NumPy scalars and arrays become Python values, missing values None."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if pd.isna(value) else value
