"""Questions to a fitted map: from what a user wrote to the columns, names and units of the fit."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scgap._conditions import check_number, group_text, plain, split_label
from scgap._encoding import no_vector
from scgap._messages import kind_of, listed, not_found, shown
from scgap._model import RESOLVED, TransportModel
from scgap._names import matching_names
from scgap._text import known_groups, read_text
from scgap._units import in_unit

type Query = str | Mapping[str, Any] | pd.Series
type Aliases = Mapping[str, str]


def read_query(model: TransportModel, condition: Query, aliases: Aliases | None = None) -> dict[str, Any]:
    """What a user asks for, as a mapping from design columns to plain values; columns that are left open are absent.

    Names are those of the fit, whatever their case, spaces and punctuation were; quantities are in the fit's units.
    """
    design, aliases = model.design, _checked_aliases(aliases)
    if isinstance(condition, str):
        query: dict[str, Any] = read_text(model, condition, aliases)
    elif isinstance(condition, Mapping | pd.Series):
        query = {str(column): plain(value) for column, value in condition.items()}
        if isinstance(condition, pd.Series):  # perhaps a row of a table of conditions
            query = {name: value for name, value in query.items() if name in design.columns or name not in RESOLVED}
    else:
        raise TypeError(
            f"condition is {kind_of(condition)}. Pass a label of {design.target_cols[0]!r}, or a mapping from "
            f"columns to values; columns: {listed(design.columns)}."
        )
    for column in query:
        if column not in design.columns:
            raise KeyError(not_found(column, "the columns of the fit", design.columns))
    numbers = {*design.dose_cols, design.time_col}
    return {
        column: _canonical(model, column, value, aliases)
        for column, value in query.items()
        if value is not None and not (column in numbers and isinstance(value, str) and not value.strip())
    }


def _checked_aliases(aliases: Any) -> Aliases:
    if aliases is None:
        return {}
    if not isinstance(aliases, Mapping) or not all(isinstance(name, str) for pair in aliases.items() for name in pair):
        raise TypeError(
            f"aliases={shown(aliases)}. Pass a dictionary from other names to names of the fit, all strings."
        )
    return aliases


def _canonical(model: TransportModel, column: str, value: Any, aliases: Aliases) -> Any:
    """A value in the words and the units of the fit."""
    design = model.design
    if column in design.target_cols:
        names = [_name_of(model, name, aliases) for name in split_label(value, design)]
        if isinstance(value, list):
            return names
        return names[0] if len(names) == 1 else (design.sep or "").join(names)
    if column in design.group_cols:
        return _group_of(model, column, group_text(value), aliases)
    unit = design.time_unit if column == design.time_col else design.dose_unit
    value = in_unit(value, unit, column)
    if isinstance(value, str) and design.sep and column in design.dose_cols:
        value = value.split(design.sep) if design.sep in value else value
    if isinstance(value, list):
        return [check_number(in_unit(one, unit, column), column) for one in value]
    return check_number(value, column)


def _name_of(model: TransportModel, name: str, aliases: Aliases) -> str:
    """The perturbation that a name stands for, or the reference."""
    matches = matching_names(name, [*model.encoding.perturbations, model.design.reference_key], aliases)
    if len(matches) > 1:
        raise ValueError(f"{name!r} may be any of {listed(matches)}. Write the one that is meant in full.")
    if not matches:
        raise KeyError(no_vector(model.encoding, [aliases.get(name, name)]))
    return matches[0]


def _group_of(model: TransportModel, column: str, value: str, aliases: Aliases) -> str:
    """The group of the fit in another spelling; a group that the fit does not know stays as it is."""
    matches = matching_names(value, known_groups(model, column), aliases)
    return matches[0] if len(matches) == 1 else value
