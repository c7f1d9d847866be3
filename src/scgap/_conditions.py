"""Conditions: from labels in obs to sets of perturbations with doses, in a context."""

import re
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scgap._checks import text, texts
from scgap._messages import kind_of, listed, nearest, not_found, shown
from scgap._names import spelling

# What control cells are usually called, in the spelling of `spelling`.
CONTROLS = ("control", "ctrl", "ctl", "ntc", "nontargeting", "negctrl", "dmso", "vehicle", "untreated", "unperturbed")


UNCUT = "\0"  # stands for a reference that holds the separator, where labels are cut


class Design(NamedTuple):
    """Which obs columns say what was done to a cell."""

    target_cols: tuple[str, ...]
    reference_key: str
    dose_cols: tuple[str, ...] = ()
    """None, one (the dose of every member, or doses joined by ``sep``), or one for each target column."""
    group_cols: tuple[str, ...] = ()
    time_col: str | None = None
    sep: str | None = None
    dose_unit: str | None = None
    time_unit: str | None = None

    @property
    def columns(self) -> list[str]:
        """All obs columns of the design."""
        time = (self.time_col,) if self.time_col else ()
        return list(dict.fromkeys([*self.target_cols, *self.dose_cols, *self.group_cols, *time]))

    @property
    def has_dose_each(self) -> bool:
        """Whether each target column has a dose column of its own."""
        return len(self.dose_cols) == len(self.target_cols)


type Group = tuple[str, ...]
"""A label of each group column; empty without such columns."""


class Condition(NamedTuple):
    """A set of perturbations with doses, in a context."""

    members: tuple[tuple[str, float | None], ...]
    """Sorted (perturbation, dose) pairs; empty for control; dose None where the design has no doses."""
    group: Group = ()
    time: float | None = None

    @property
    def is_control(self) -> bool:
        """Whether nothing was done to the cells."""
        return not self.members


def make_design(
    target_col: str | Sequence[str],
    reference_key: str,
    dose_col: str | Sequence[str] | None = None,
    group_col: str | Sequence[str] | None = None,
    time_col: str | None = None,
    sep: str | None = None,
) -> Design:
    """Check the column arguments of a public call and put them together."""
    if not isinstance(reference_key, str | Real | np.bool_):
        raise TypeError(f"reference_key is {kind_of(reference_key)}. Pass the one label that control cells have.")
    if sep is not None and not (isinstance(sep, str) and sep):
        raise ValueError(
            f"sep={shown(sep)}. Pass the text between the names of a combination, or None for labels as a whole."
        )
    columns_of = {"target_col": target_col, "dose_col": dose_col, "group_col": group_col}
    target_cols, dose_cols, group_cols = (
        () if value is None else tuple(texts(argument, value)) for argument, value in columns_of.items()
    )
    if time_col is not None:
        text("time_col", time_col)
    design = Design(target_cols, label_text(reference_key), dose_cols, group_cols, time_col, sep)
    for argument, columns in (("target_col", design.target_cols), ("group_col", design.group_cols)):
        if len(set(columns)) < len(columns):
            raise ValueError(f"{argument} names a column twice: {listed(columns)}. Pass each column once.")
    roles = [design.target_cols, set(design.dose_cols), design.group_cols, [time_col] if time_col else []]
    used = [column for role in roles for column in role]
    if twice := next((column for column in used if used.count(column) > 1), None):
        raise ValueError(
            f"{twice!r} is passed as two of target_col, dose_col, group_col and time_col, and each column says one "
            "thing. To match controls by a time or dose, too, copy the column as text, and pass the copy as group_col."
        )
    if not design.target_cols:
        raise ValueError("target_col is empty. Pass the obs column, or columns, that name the perturbation.")
    if len(design.dose_cols) > 1 and len(design.dose_cols) != len(design.target_cols):
        raise ValueError(
            f"dose_col names {len(design.dose_cols)} columns and target_col {len(design.target_cols)}. "
            "Pass one dose column for all, or one for each target column in the same order."
        )
    return design


def design_from_dict(stored: Mapping[str, Any]) -> Design:
    """The design that was stored as JSON, which has lists for tuples."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Design(**fields)


def read_conditions(
    design: Design, obs: pd.DataFrame, *, need_controls: bool = True
) -> tuple[list[Condition], np.ndarray, pd.DataFrame]:
    """Read every cell's condition from the design's obs columns.

    Returns
    -------
    The distinct conditions, controls included; each cell's position in them (n_obs,), -1 without a group or a label (of
    several target columns those without one hold no perturbation, but one has to); and the obs rows
    (n_conditions, n_columns) in which the conditions are written.
    """
    columns = design.columns
    codes = obs[columns].astype(object).groupby(columns, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    _, first = np.unique(codes, return_index=True)
    written = obs[columns].iloc[first].apply(exact).reset_index(drop=True)
    labelled = np.array([has_label(design, row) for row in records(written)], dtype=bool)
    labelled &= written[list(design.group_cols)].notna().all(axis=1).to_numpy()
    rows = written[labelled].reset_index(drop=True)
    parsed = [parse_condition(design, row) for row in records(rows)]
    conditions = sorted(set(parsed), key=_sort_key)
    if need_controls:
        _check_reference(design, conditions, rows)
        _warn_of_controls(design, conditions)
    position = {condition: i for i, condition in enumerate(conditions)}
    condition_of_code = np.full(len(written), -1)
    condition_of_code[labelled] = [position[condition] for condition in parsed]
    spelling = [parsed.index(condition) for condition in conditions]
    return conditions, condition_of_code[codes], rows.iloc[spelling].reset_index(drop=True)


def has_label(design: Design, row: Mapping[str, Any]) -> bool:
    """Whether any target column holds a label: a blank is none, unless reference_key is blank."""
    labels = [row.get(column) for column in design.target_cols]
    return any(
        split_label(label, design) or (design.reference_key == "" and not _is_missing(label)) for label in labels
    )


def parse_condition(design: Design, row: Mapping[str, Any]) -> Condition:
    """The condition written in one row: a label a target column, or a list of labels with a list of doses."""
    labels: list[str] = []
    doses: list[float | None] = []
    for i, column in enumerate(design.target_cols):
        names = split_label(row.get(column, design.reference_key), design)
        labels += names
        if design.has_dose_each:
            doses += _doses(design, row, design.dose_cols[i], names)
    if design.dose_cols and not design.has_dose_each:
        doses = _doses(design, row, design.dose_cols[0], labels)
    group = tuple(group_text(row[column]) for column in design.group_cols if column in row)
    members: dict[str, float | None] = {}
    for name, dose in zip(labels, doses or [None] * len(labels), strict=True):
        if name == design.reference_key or dose == 0:
            continue
        # The same drug twice is one member at the sum of its doses.
        members[name] = dose if dose is None else dose + (members.get(name) or 0.0)
    if not members:
        return Condition((), group)
    time = None if design.time_col is None else check_number(row.get(design.time_col), design.time_col)
    return Condition(tuple(sorted(members.items())), group, time)


def write_members(design: Design, members: Sequence[tuple[str, float | None]]) -> dict[str, Any]:
    """Perturbations with their doses, where they have any, in the columns that `parse_condition` reads them from."""
    n = len(design.target_cols)
    parts = [*([member] for member in members[: n - 1]), members[n - 1 :], *[()] * n][:n]
    row: dict[str, Any] = {}
    for column, part in zip(design.target_cols, parts, strict=True):
        row[column] = _joined(design, [name for name, _ in part]) if part else design.reference_key
    doses = [dose for _, dose in members]
    if None in doses:
        return row
    if design.has_dose_each:
        for column, part in zip(design.dose_cols, parts, strict=True):
            row[column] = _joined(design, [dose for _, dose in part]) if part else None
    elif design.dose_cols:
        of_control = [0.0 for part in parts if not part]
        row[design.dose_cols[0]] = doses[0] if len(set(doses)) == 1 else _joined(design, [*doses, *of_control])
    return row


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as mappings."""
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def exact_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The same, of `exact` values."""
    return records(pd.DataFrame({column: exact(values) for column, values in table.items()}, table.index))


def split_label(label: Any, design: Design) -> list[str]:
    """The names in a label, or in a list of them; the reference is one, though the separator be in it."""
    if isinstance(label, list | tuple | np.ndarray):
        return [label_text(name) for name in label]
    if _is_missing(label):
        return []
    text, sep, reference = label_text(label), design.sep, design.reference_key
    if sep is None:
        return [text] if text else []
    if sep in reference:
        before, after = rf"(?:^|(?<={re.escape(sep)}))\s*", rf"(?=\s*(?:$|{re.escape(sep)}))"
        text = re.sub(before + re.escape(reference) + after, UNCUT, text)
    return [reference if part == UNCUT else part for part in map(str.strip, text.split(sep)) if part]


def plain(value: Any) -> Any:
    """JSON-able: NumPy scalars and arrays become Python values, missing values None."""
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.floating):
        value = float(str(value))  # 0.1 and not the float32 next to it
    elif isinstance(value, np.generic):
        value = value.item()
    return None if pd.isna(value) else value


def label_text(label: Any) -> str:
    """A label without space around it; whole numbers, which a missing label turns into floats, without their point."""
    return group_text(label).strip()


def group_text(label: Any) -> str:
    """The same of a group, with all space that it has."""
    is_whole = isinstance(label, float | np.floating) and float(label).is_integer()
    return str(int(label) if is_whole else label)


def group_texts(table: pd.DataFrame) -> pd.DataFrame:
    """`group_text` of all that a table (n_obs, n_columns) holds; what is missing stays so."""
    texts = {}
    for column, labels in table.items():
        codes, found = pd.factorize(exact(labels))
        texts[column] = np.array([*map(group_text, found), np.nan], dtype=object)[codes]
    return pd.DataFrame(texts, table.index, table.columns, dtype=object)


def condition_label(condition: Condition, dose_unit: str | None = None, time_unit: str | None = None) -> str:
    """A label to read: ``A 10 + B 100, line_1``; with units for titles, for labels are also what names a condition."""
    of_dose, of_time = (f" {unit}" if unit else "" for unit in (dose_unit, time_unit))
    members = (
        " + ".join(name if dose is None else f"{name} {_digits(dose)}{of_dose}" for name, dose in condition.members)
        or "control"
    )
    time = () if condition.time is None else (f"time {_digits(condition.time)}{of_time}",)
    return ", ".join([members, *condition.group, *time])


def _check_reference(design: Design, conditions: Sequence[Condition], rows: pd.DataFrame) -> None:
    labels = sorted(
        {name for column in design.target_cols for label in rows[column] for name in split_label(label, design)}
    )
    # Cells at dose 0 are controls whatever their label, but must not hide a reference_key that is misspelt.
    misspelt = design.reference_key not in labels and nearest(design.reference_key, labels) is not None
    if misspelt or not any(condition.is_control for condition in conditions):
        where = " or ".join(f"adata.obs[{column!r}]" for column in design.target_cols)
        if design.reference_key in labels:
            others = [name for name in labels if name != design.reference_key]
            raise ValueError(
                f"reference_key={design.reference_key!r} names no control cells: in {where} it stands beside others "
                f"everywhere, {listed(others)}. Cells that got nothing have it, or no label, in each of these columns."
            )
        raise ValueError(
            f"reference_key={design.reference_key!r} names no control cells: "
            + not_found(design.reference_key, where, labels)
        )


def _warn_of_controls(design: Design, conditions: Sequence[Condition]) -> None:
    """Say so where a member of combinations has a name that controls usually have, and is not the reference."""
    members = {name for condition in conditions if len(condition.members) > 1 for name, _ in condition.members}
    if found := sorted(name for name in members if spelling(name) in {*CONTROLS, spelling(design.reference_key)}):
        warnings.warn(
            f"{listed(found)} in combinations is taken for a perturbation: controls are reference_key="
            f"{design.reference_key!r} alone. If it stands for control there, too, call both alike.",
            skip_file_prefixes=(str(Path(__file__).parent),),
        )


def exact(column: pd.Series) -> pd.Series:
    """The column as objects, in which a dose of 0.1 is 0.1 and not the float32 next to it."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        values = np.array([*exact(column.cat.categories.to_series()), np.nan], dtype=object)
        return pd.Series(values[column.cat.codes], column.index, dtype=object)
    kind = getattr(column.dtype, "numpy_dtype", column.dtype)  # that of a nullable one
    if kind not in (np.float16, np.float32):
        return column.astype(object)
    found, codes = np.unique(column.to_numpy(kind, na_value=np.nan), return_inverse=True)
    return pd.Series(np.array([float(str(value)) for value in found], object)[codes], column.index, dtype=object)


def _joined(design: Design, values: Sequence[Any]) -> Any:
    """Names or doses as one value: alone, joined by the separator, or as a list."""
    if len(values) == 1:
        return values[0]
    if design.sep is None:
        return list(values)
    return design.sep.join(value if isinstance(value, str) else _digits(value) for value in values)


def _digits(number: float) -> str:
    """The shortest digits that tell the number from all others."""
    return repr(float(number)).removesuffix(".0")


def _is_missing(label: Any) -> bool:
    return label is None or label is pd.NA or label != label


def _doses(design: Design, row: Mapping[str, Any], column: str, names: list[str]) -> list[float | None]:
    """One dose for each name; controls need none."""
    value = row.get(column)
    if isinstance(value, list | tuple | np.ndarray):
        parts = list(value)
    elif isinstance(value, str) and design.sep and design.sep in value:
        parts = value.split(design.sep)
    else:
        parts = [value] * len(names)
    if len(parts) != len(names):
        raise ValueError(
            f"{column!r} holds {len(parts)} doses, {value!r}, for {len(names)} perturbations, {listed(names)}. "
            "Give one dose for all, or one for each."
        )
    return [
        0.0 if name == design.reference_key else check_number(part, column)
        for name, part in zip(names, parts, strict=True)
    ]


def check_number(value: Any, column: str) -> float:
    """A dose or time as a number."""
    try:
        number = float("" if isinstance(value, bool | np.bool_) else value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{column!r} holds {value!r}, which is not a number. Doses and times are numbers, or strings of numbers "
            "such as '10': convert the column, units left out."
        ) from None
    if not 0 <= number < np.inf:
        raise ValueError(
            f"{column!r} holds {value!r}. Doses and times are finite and not negative, and every perturbed cell has "
            "one: correct the column, or drop these cells."
        )
    return number


def _sort_key(condition: Condition) -> tuple[Any, ...]:
    doses = [(name, dose or 0.0) for name, dose in condition.members]
    return condition.group, len(doses), doses, condition.time or 0.0
