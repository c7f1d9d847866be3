"""Questions to a fitted map: what a user wrote, and the full conditions that it can mean."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from scgap._conditions import Condition, Design, condition_label, has_label, parse_condition, records, split_label
from scgap._encoding import no_vector
from scgap._messages import kind_of, listed, not_found
from scgap._model import TABLE, TransportModel
from scgap._names import matching_names
from scgap._units import QUANTITY, in_unit, is_quantity, measures_time

type Query = str | Mapping[str, Any] | pd.Series
type Aliases = Mapping[str, str]


def read_query(model: TransportModel, condition: Query, aliases: Aliases | None = None) -> dict[str, Any]:
    """What a user asks for, as a mapping from design columns to plain values; columns that are left open are absent.

    Names are those of the fit, whatever their case, spaces and punctuation were; quantities are in the fit's units.
    """
    design, aliases = model.design, aliases or {}
    if isinstance(condition, str):
        query: dict[str, Any] = _read_text(model, condition, aliases)
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
    return {column: _canonical(model, column, value, aliases) for column, value in query.items() if not _is_open(value)}


def open_columns(design: Design, query: Mapping[str, Any]) -> list[str]:
    """Columns of the design that a query has to fill and does not; control needs its group alone."""
    groups = [column for column in design.group_cols if column not in query]
    if not has_label(design, query):
        others = (*design.dose_cols, design.time_col)
        return [*design.target_cols, *(column for column in others if column and column not in query), *groups]
    if _members_of(design, query).is_control:
        return groups
    columns = [column for column in (*design.dose_cols, design.time_col) if column and column not in query]
    if len(design.dose_cols) == len(design.target_cols):
        # The dose of a target column that holds no perturbation is not asked for.
        unused = {
            dose_col
            for column, dose_col in zip(design.target_cols, design.dose_cols, strict=True)
            if _members_of(design._replace(target_cols=(column,)), query).is_control
        }
        columns = [column for column in columns if column not in unused]
    return [*columns, *groups]


def meanings(model: TransportModel, query: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The full conditions that a query of `read_query` can mean: itself, if it leaves nothing open.

    Else those measured that agree with it; or, where none does, what it leaves open is filled with all that was
    measured there.
    """
    design = model.design
    if not open_columns(design, query):
        return [dict(query)]
    rows = [{column: _plain(row[column]) for column in design.columns} for row in records(model.conditions)]
    conditions = measured_conditions(model)
    if agreeing := [row for row, condition in zip(rows, conditions, strict=True) if _agrees(design, query, condition)]:
        return agreeing
    if not has_label(design, query):
        raise ValueError(
            f"No measured condition has {_written(query)}. Name a perturbation, or one of the conditions measured: "
            f"{listed(model.conditions['condition_label'])}."
        )
    return _fill(design, query, conditions)


def contexts(model: TransportModel, query: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`meanings` without the groups that the query leaves open: cells are moved in their own."""
    groups = set(model.design.group_cols) - set(query)
    shortened = [
        {column: value for column, value in full.items() if column not in groups} for full in meanings(model, query)
    ]
    return [full for i, full in enumerate(shortened) if full not in shortened[:i]]


def check_unambiguous(
    model: TransportModel, query: Mapping[str, Any], full: Sequence[Mapping[str, Any]], *, allowed: bool
) -> None:
    """Refuse a query that leaves more open than the group, unless that is ``allowed``."""
    open_ = [column for column in open_columns(model.design, query) if column not in model.design.group_cols]
    if open_ and not allowed:
        raise ValueError(
            f"condition leaves {listed(open_)} open. Measured conditions that it can mean: "
            f"{listed(label_of(model, one) for one in full)}. Give a value, measured or not, or pass "
            'on_ambiguous="expand" or "marginal".'
        )


def shares(model: TransportModel, full: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The shares (n_full,) of full conditions among the measured cells of them; equal ones, if there are none."""
    n_cells = np.array([count_cells(model, query) for query in full], float)
    return n_cells / n_cells.sum() if n_cells.any() else np.full(len(full), 1 / len(full))


def measured_conditions(model: TransportModel) -> list[Condition]:
    """The conditions of the model's table, in its order."""
    return [parse_condition(model.design, row) for row in records(model.conditions)]


def count_cells(model: TransportModel, query: Mapping[str, Any]) -> int:
    """Measured cells of a full condition, in all groups that it leaves open."""
    agreeing = [_agrees(model.design, query, condition) for condition in measured_conditions(model)]
    return int(model.conditions["n_cells"].to_numpy()[agreeing].sum())


def _agrees(design: Design, query: Mapping[str, Any], condition: Condition) -> bool:
    """Whether a measured condition has all that the query names."""
    group = dict(zip(design.group_cols, condition.group, strict=True))
    if any(str(query[column]) != value for column, value in group.items() if column in query):
        return False
    if design.time_col and design.time_col in query and float(query[design.time_col]) != condition.time:
        return False
    doses = [column for column in design.dose_cols if column in query]
    if not has_label(design, query):
        return all(dose == float(query[column]) for _, dose in condition.members for column in doses)
    known = design._replace(dose_cols=design.dose_cols if len(doses) == len(design.dose_cols) else (), time_col=None)
    asked = parse_condition(known, query).members
    members = condition.members if known.dose_cols else [(name, None) for name, _ in condition.members]
    return list(asked) == list(members)


def _fill(design: Design, query: Mapping[str, Any], conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """All ways to fill what the query leaves open with measured doses, times and groups."""
    names = [name for name, _ in _members_of(design, query).members]
    filled: list[dict[str, Any]] = [dict(query)]
    if names and any(column not in query for column in design.dose_cols):
        doses = [sorted(_doses_of(name, conditions)) for name in names]
        blank = dict.fromkeys(design.target_cols, design.reference_key)
        filled = [
            {**query, **blank, design.target_cols[0]: names, design.dose_cols[0]: list(some)}
            for some in product(*doses)
        ]
    if design.time_col and design.time_col not in query:
        times = sorted({condition.time for condition in conditions if condition.time is not None})
        filled = [{**row, design.time_col: time} for row in filled for time in times]
    groups = sorted({condition.group for condition in conditions})
    asked = [
        dict(zip(design.group_cols, group, strict=True))
        for group in groups
        if all(query.get(column, value) == value for column, value in zip(design.group_cols, group, strict=True))
    ]
    return [{**row, **group} for row in filled for group in asked or [{}]]


def _doses_of(name: str, conditions: Sequence[Condition]) -> set[float]:
    """Doses at which a perturbation was measured, or, if it never was, any perturbation."""
    doses = [member for condition in conditions for member in condition.members if member[1] is not None]
    return {dose for other, dose in doses if other == name} or {dose for _, dose in doses}  # type: ignore[misc]


def _canonical(model: TransportModel, column: str, value: Any, aliases: Aliases) -> Any:
    """A value in the words and the units of the fit."""
    design = model.design
    if column in design.target_cols:
        names = [_name_of(model, name, aliases) for name in split_label(value, design.sep)]
        if isinstance(value, list) or len(names) != 1:
            return names if isinstance(value, list) or design.sep is None else design.sep.join(names)
        return names[0]
    if column in design.group_cols:
        return _group_of(model, column, str(value), aliases)
    unit = design.time_unit if column == design.time_col else design.dose_unit
    return [in_unit(one, unit, column) for one in value] if isinstance(value, list) else in_unit(value, unit, column)


def _name_of(model: TransportModel, name: str, aliases: Aliases) -> str:
    known = [*model.encoding.perturbations, model.design.reference_key]
    matches = matching_names(name, known, aliases)
    if len(matches) > 1:
        raise ValueError(f"{name!r} may be any of {listed(matches)}. Write the one that is meant in full.")
    if not matches:
        raise KeyError(no_vector(model.encoding, [name]))
    return matches[0]


def _group_of(model: TransportModel, column: str, value: str, aliases: Aliases) -> str:
    """The group of the fit in another spelling; a group that the fit does not know stays as it is."""
    known = list(dict.fromkeys([*model.encoding.groups[column], *model.conditions[column].astype(str)]))
    matches = matching_names(value, known, aliases)
    return matches[0] if len(matches) == 1 else value


def _read_text(model: TransportModel, text: str, aliases: Aliases) -> dict[str, Any]:
    """A label of one perturbation or combination, or parts between commas: ``"A 1 uM + B 10 nM, line_1, 24 h"``."""
    design, table = model.design, model.conditions
    labels = list(table["condition_label"])
    known = [*model.encoding.perturbations, design.reference_key]
    if text in known:
        return {design.target_cols[0]: text}
    if text in labels:
        return {column: _plain(table[column].iloc[labels.index(text)]) for column in design.columns}
    if design.sep and all(matching_names(name, known, aliases) for name in split_label(text, design.sep)):
        return {design.target_cols[0]: text}
    if matching_names(text, known, aliases):
        return {design.target_cols[0]: text}
    query: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in re.split("[,;]", text))):
        for column, value in _read_part(model, part, known, aliases).items():
            if column in query and query[column] != value:
                raise ValueError(
                    f"{text!r} contradicts itself: {column!r} is {query[column]!r} and {value!r}. Give one of them."
                )
            query[column] = value
    if not query:
        raise ValueError(f"{text!r} names no condition. Pass one of {listed(labels)}.")
    return query


def _read_part(model: TransportModel, part: str, known: Sequence[str], aliases: Aliases) -> dict[str, Any]:
    """One part of a text: a time, a dose, a group, or perturbations with their doses."""
    design = model.design
    bare = part.removeprefix("time ").strip()
    if is_quantity(bare):
        if design.time_col and (bare != part or measures_time(bare)):
            return {design.time_col: in_unit(bare, design.time_unit, design.time_col)}
        if design.dose_cols:
            return {design.dose_cols[0]: in_unit(bare, design.dose_unit, design.dose_cols[0])}
    for column in design.group_cols:
        groups = [*model.encoding.groups[column], *model.conditions[column].astype(str)]
        if len(found := dict.fromkeys(matching_names(part, groups, aliases))) == 1:
            return {column: next(iter(found))}
    members = [_read_member(member.strip(), known, aliases) for member in part.split(" + ")]
    names, doses = [name for name, _ in members], [dose for _, dose in members]
    if all(dose is None for dose in doses):
        return {design.target_cols[0]: names if len(names) > 1 else names[0]}
    if not design.dose_cols:
        raise ValueError(f"{part!r} gives a dose, and the map was fitted without dose_col. Leave the dose out.")
    if any(dose is None for dose in doses):
        raise ValueError(f"{part!r} gives a dose for some perturbations only. Give one for each, or none.")
    quantities = [in_unit(dose, design.dose_unit, design.dose_cols[0]) for dose in doses]
    one = len(names) == 1
    return {
        design.target_cols[0]: names[0] if one else names,
        design.dose_cols[0]: quantities[0] if one else quantities,
    }


def _read_member(text: str, known: Sequence[str], aliases: Aliases) -> tuple[str, str | None]:
    """A perturbation, and the dose behind it: the longest name that is known wins."""
    if not matching_names(text, known, aliases):
        for end in (found.start() for found in re.finditer(r"[\s@:]+", text)):
            name, dose = text[:end], text[end:].lstrip(" @:")
            if QUANTITY.fullmatch(dose) and is_quantity(dose) and matching_names(name, known, aliases):
                return name, dose
    return text, None


def _members_of(design: Design, query: Mapping[str, Any]) -> Condition:
    """The perturbations of a query, without their doses."""
    return parse_condition(design._replace(dose_cols=(), group_cols=(), time_col=None), query)


def _written(query: Mapping[str, Any]) -> str:
    return ", ".join(f"{column}={value!r}" for column, value in query.items())


def _is_open(value: Any) -> bool:
    return value is None


def label_of(model: TransportModel, query: Mapping[str, Any]) -> str:
    """A full condition to read, without the groups that are left open."""
    return condition_label(parse_condition(model.design, query))


def _plain(value: Any) -> Any:
    """JSON-able: NumPy scalars and arrays become Python values, missing values None."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if pd.isna(value) else value
