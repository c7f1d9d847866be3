"""Conditions as text: ``"drug_1 1 uM + drug_2 10 nM, line_1, 24 h"``."""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Any

from scgap._conditions import Design, plain, write_members
from scgap._encoding import no_vector
from scgap._messages import listed
from scgap._model import TransportModel
from scgap._names import matching_names
from scgap._units import in_unit, measures_time, unit_of

type Members = list[tuple[str, str | None]]
"""Names with the doses behind them."""


def read_text(model: TransportModel, text: str, aliases: Mapping[str, str]) -> dict[str, Any]:
    """What a text says of each column: a label of the fit, or parts between commas in any order."""
    design, table = model.design, model.conditions
    known = [*model.encoding.perturbations, design.reference_key]
    if text in known:
        return {design.target_cols[0]: text}
    labels = list(table["condition_label"])
    if text in labels:
        return {column: plain(table[column].iloc[labels.index(text)]) for column in design.columns}
    names = [*known, *aliases, *(group for column in design.group_cols for group in known_groups(model, column))]
    query: dict[str, Any] = {}
    for part in _split(text, "[,;]", names):
        for column, value in _read_part(model, part, known, aliases).items():
            if column in query and query[column] != value:
                raise ValueError(
                    f"{text!r} contradicts itself: {column!r} is {query[column]!r} and {value!r}. Give one of them."
                )
            query[column] = value
    if not query:
        raise ValueError(f"{text!r} names no condition. Pass one of {listed(labels)}.")
    return query


def known_groups(model: TransportModel, column: str) -> list[str]:
    """Groups of the fit, trained on or not."""
    return list(dict.fromkeys([*model.encoding.groups[column], *model.conditions[column].astype(str)]))


def _split(text: str, separator: str, names: Collection[str]) -> list[str]:
    """Parts of a text; names that hold a separator themselves are not cut."""
    uncut = sorted((name for name in names if re.search(separator, name)), key=len, reverse=True)
    whole = rf"(?<!\w)({'|'.join(map(re.escape, uncut))})(?!\w)|" if uncut else "()(?!)|"
    cuts = [found.span() for found in re.finditer(whole + separator, text, re.IGNORECASE) if not found[1]]
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
    parts = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    return [part for part in parts if part]


def _read_part(model: TransportModel, part: str, known: Collection[str], aliases: Mapping[str, str]) -> dict[str, Any]:
    """The one thing that a part of a text can mean: a dose, a time, a group, or perturbations with their doses."""
    readings: list[dict[str, Any]] = []
    for column in model.design.group_cols:
        readings += [{column: group} for group in matching_names(part, known_groups(model, column), aliases)]
    try:
        readings += _quantities(model.design, part)
    except ValueError:  # a group may be called as a quantity, such as "24h", is written
        if not readings:
            raise
    sets, unknown = _member_sets(model.design, part, known, aliases)
    readings += [_written(model.design, part, members) for members in sets]
    if not readings:
        groups = [group for column in model.design.group_cols for group in known_groups(model, column)]
        hint = f" Groups of the fit are {listed(groups)}; any other one takes a mapping." if groups else ""
        raise KeyError(no_vector(model.encoding, unknown) + hint)
    if len(readings) > 1:
        raise ValueError(
            f"{part!r} may be any of {listed(', '.join(f'{c}={v}' for c, v in one.items()) for one in readings)}. "
            "Pass a mapping from columns to values."
        )
    return readings[0]


def _quantities(design: Design, part: str) -> Iterator[dict[str, Any]]:
    """A part as a dose, as a time, or, where it has no unit, as both."""
    bare = part.removeprefix("time ").strip()
    unit = unit_of(bare, design.dose_unit, design.time_unit)
    if unit is None:
        return
    if not design.dose_cols and not design.time_col:
        raise ValueError(f"{part!r} is a dose or time, and the map was fitted without. Leave it out.")
    is_time = bare != part or measures_time(unit) or (unit != "" and unit == design.time_unit)
    if design.time_col and (is_time or unit == "" or not design.dose_cols):
        yield {design.time_col: in_unit(bare, design.time_unit, design.time_col)}
    if design.dose_cols and (not is_time or not design.time_col):
        yield {design.dose_cols[0]: in_unit(bare, design.dose_unit, design.dose_cols[0])}


def _member_sets(
    design: Design, part: str, known: Collection[str], aliases: Mapping[str, str]
) -> tuple[list[Members], list[str]]:
    """The sets of perturbations that a part can mean, or, if there are none, the names that are unknown."""
    unknown = None
    for separator in [r"\s\+\s", *([re.escape(design.sep)] if design.sep else [])]:
        texts = _split(part, separator, [*known, *aliases])
        members = [_member(design, text, known, aliases) for text in texts]
        if texts and all(members):
            return [list(one) for one in product(*members)], []
        if len(texts) > 1 or unknown is None:
            unknown = [_cuts(design, text)[-1][0] for text, found in zip(texts, members, strict=True) if not found]
    return [], unknown or [part]


def _member(design: Design, text: str, known: Collection[str], aliases: Mapping[str, str]) -> Members:
    """The perturbations, with the dose behind it, that a text can mean."""
    if text in known:
        return [(text, None)]
    return [(one, dose) for name, dose in _cuts(design, text) for one in matching_names(name, known, aliases)]


def _cuts(design: Design, text: str) -> Members:
    """A text as a name, and as one with a dose behind it."""
    cuts = [(text[: space.start()], text[space.end() :]) for space in re.finditer(r"\s*[\s@:]\s*", text)]
    return [(text, None), *((name, dose) for name, dose in cuts if unit_of(dose, design.dose_unit) is not None)]


def _written(design: Design, part: str, members: Members) -> dict[str, Any]:
    """Perturbations in the columns of the fit, doses in its unit."""
    acting = [(name, dose) for name, dose in members if name != design.reference_key] or members[:1]
    doses = [dose for _, dose in acting if dose is not None]
    if doses and not design.dose_cols:
        name, dose = next((name, dose) for name, dose in acting if dose is not None)
        commas = f" If {dose!r} is a group, write a comma before it: {f'{name}, {dose}'!r}."
        raise ValueError(
            f"{part!r} gives a dose, and the map was fitted without dose_col. Leave the dose out."
            + (commas if design.group_cols else "")
        )
    if 0 < len(doses) < len(acting):
        raise ValueError(f"{part!r} gives a dose for some perturbations only. Give one for each, or none.")
    return write_members(
        design,
        [
            (name, dose if dose is None else in_unit(dose, design.dose_unit, design.dose_cols[0]))
            for name, dose in acting
        ],
    )
