"""What a query can mean: the full conditions that agree with it, and their measured cells."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from scgap._conditions import (
    Condition,
    Design,
    condition_label,
    has_label,
    parse_condition,
    plain,
    records,
    write_members,
)
from scgap._messages import listed
from scgap._model import TransportModel

type Row = Mapping[str, Any]
"""A query of `read_query`, or a full condition, from columns to values."""


def open_columns(design: Design, query: Row) -> list[str]:
    """Columns of the design that a query has to fill and does not; control needs its group alone."""
    groups = [column for column in design.group_cols if column not in query]
    others = [column for column in (*design.dose_cols, design.time_col) if column and column not in query]
    if not has_label(design, query):
        return [*design.target_cols, *others, *groups]
    if not asked_members(design, query):
        return groups
    if design.has_dose_each:
        # The dose of a target column that holds no perturbation is not asked for.
        for target_col, dose_col in zip(design.target_cols, design.dose_cols, strict=True):
            if dose_col in others and not asked_members(design._replace(target_cols=(target_col,)), query):
                others.remove(dose_col)
    return [*others, *groups]


def meanings(model: TransportModel, query: Row) -> list[dict[str, Any]]:
    """The full conditions that a query of `read_query` can mean: itself, if it leaves nothing open.

    Else those measured that agree with it; or, where none does, what it leaves open is filled with all that was
    measured there.
    """
    design = model.design
    if not open_columns(design, query):
        return [dict(query)]
    measured = list(measured_cells(model))
    agreeing = np.flatnonzero([_agrees(design, query, condition) for condition in measured])
    if len(agreeing):
        return [
            {column: plain(row[column]) for column in design.columns}
            for row in records(model.conditions.iloc[agreeing])
        ]
    if not has_label(design, query):
        asked = ", ".join(f"{column}={value!r}" for column, value in query.items())
        raise ValueError(
            f"No measured condition has {asked}. Name a perturbation, or what one of the conditions measured has: "
            f"{listed(model.conditions['condition_label'])}."
        )
    return _fill(design, query, measured)


def contexts(model: TransportModel, query: Row) -> list[dict[str, Any]]:
    """`meanings` without the groups that the query leaves open: cells are moved in their own."""
    design = model.design
    groups = {column for column in design.group_cols if column not in query}
    if groups.issuperset(open_columns(design, query)):
        return [dict(query)]
    found: dict[Condition, dict[str, Any]] = {}
    for full in meanings(model, query):
        row = {column: value for column, value in full.items() if column not in groups}
        found.setdefault(parse_condition(design, row), row)  # which may be written in several ways
    return list(found.values())


def check_unambiguous(model: TransportModel, query: Row, full: Sequence[Row]) -> None:
    """Refuse a query that leaves more open than the group."""
    open_ = [column for column in open_columns(model.design, query) if column not in model.design.group_cols]
    if open_:
        raise ValueError(
            f"condition leaves {listed(open_)} open. Measured conditions that it can mean: "
            f"{listed(label_of(model.design, one) for one in full)}. Give a value, measured or not, or pass "
            'on_ambiguous="expand" or "marginal".'
        )


def measured_cells(model: TransportModel) -> dict[Condition, int]:
    """The conditions of the model's table, in its order, with their measured cells."""
    parsed = [parse_condition(model.design, row) for row in records(model.conditions)]
    return dict(zip(parsed, model.conditions["n_cells"].tolist(), strict=True))


def trained_conditions(model: TransportModel) -> set[Condition]:
    """The conditions that had training cells, in whatever object."""
    table = model.conditions[model.conditions["split"].astype(str) == "train"]
    return {parse_condition(model.design, row) for row in records(table)}


def shares(design: Design, full: Sequence[Row], measured: Mapping[Condition, int], group: Row) -> np.ndarray:
    """The shares (n_full,) of conditions among their measured cells in a group.

    In a group where none was measured, those in all groups; equal ones, if there are none.
    """
    for values in (group, {}):
        n_cells = np.array([_count_cells(design, {**query, **values}, measured) for query in full], float)
        if n_cells.any():
            return n_cells / n_cells.sum()
    return np.full(len(full), 1 / len(full))


def label_of(design: Design, query: Row) -> str:
    """A full condition to read, without the groups that are left open."""
    return condition_label(parse_condition(design, query))


def asked_members(design: Design, query: Row) -> dict[str, float | None]:
    """The perturbations that a query names, with their doses; None where it leaves one open."""
    design = design._replace(group_cols=(), time_col=None)
    if all(column in query for column in design.dose_cols):
        return dict(parse_condition(design, query).members)
    members: dict[str, float | None] = {}
    for i, target_col in enumerate(design.target_cols):
        dose_cols = tuple(column for column in design.dose_cols[i : i + 1] if design.has_dose_each and column in query)
        part = design._replace(target_cols=(target_col,), dose_cols=dose_cols)
        for name, dose in parse_condition(part, query).members:
            members[name] = None if name in members else dose
    return members


def _count_cells(design: Design, query: Row, measured: Mapping[Condition, int]) -> int:
    """Measured cells of a full condition, in all groups that it leaves open."""
    if all(column in query for column in design.group_cols):
        return measured.get(parse_condition(design, query), 0)
    return sum(n for condition, n in measured.items() if _agrees(design, query, condition))


def _agrees(design: Design, query: Row, condition: Condition) -> bool:
    """Whether a measured condition has all that the query names."""
    group = dict(zip(design.group_cols, condition.group, strict=True))
    if any(query[column] != value for column, value in group.items() if column in query):
        return False
    if design.time_col and design.time_col in query and query[design.time_col] != condition.time:
        return False
    members = dict(condition.members)
    if has_label(design, query):
        asked = asked_members(design, query)
        return asked.keys() == members.keys() and all(dose in (None, members[name]) for name, dose in asked.items())
    doses = [dose for dose in members.values() if dose is not None]
    given = [query[column] for column in design.dose_cols if column in query]
    if design.has_dose_each and len(design.dose_cols) > 1:
        return all(doses.count(dose) >= given.count(dose) for dose in given)
    return all(sorted(dose) == sorted(doses) if isinstance(dose, list) else {dose} == set(doses) for dose in given)


def _fill(design: Design, query: Row, measured: Sequence[Condition]) -> list[dict[str, Any]]:
    """All ways to fill what the query leaves open with measured doses, times and groups."""
    asked = asked_members(design, query)
    filled = [dict(query)]
    if design.dose_cols and None in asked.values():
        choices = [sorted(_doses_of(name, measured)) if dose is None else [dose] for name, dose in asked.items()]
        filled = [{**query, **write_members(design, list(zip(asked, some, strict=True)))} for some in product(*choices)]
    if asked and design.time_col and design.time_col not in query:
        times = sorted({condition.time for condition in measured if condition.time is not None})
        filled = [{**row, design.time_col: time} for row in filled for time in times]
    return [{**row, **group} for row in filled for group in _groups_of(design, query, measured)]


def _groups_of(design: Design, query: Row, measured: Sequence[Condition]) -> list[dict[str, str]]:
    """Measured groups that agree with the query; for a group never measured, all values of what it leaves open."""
    groups = [dict(zip(design.group_cols, group, strict=True)) for group in sorted({c.group for c in measured})]
    if agreeing := [group for group in groups if all(query.get(c, value) == value for c, value in group.items())]:
        return agreeing
    open_ = [column for column in design.group_cols if column not in query]
    values = [sorted({group[column] for group in groups}) for column in open_]
    return [dict(zip(open_, some, strict=True)) for some in product(*values)]


def _doses_of(name: str, measured: Sequence[Condition]) -> set[float]:
    """Doses at which a perturbation was measured, or, if it never was, any perturbation."""
    doses = [(other, dose) for condition in measured for other, dose in condition.members if dose is not None]
    return {dose for other, dose in doses if other == name} or {dose for _, dose in doses}
