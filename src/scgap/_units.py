"""Quantities with units: numbers, or strings such as ``"1 uM"``, in the unit of the fit."""

import re
from typing import Any

from scgap._messages import listed

# Unit -> what it measures, and how many of the base unit it is. Micro is written with "u".
PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12}
UNITS = {
    **{prefix + "M": ("molar", factor) for prefix, factor in PREFIXES.items()},
    **{prefix + "g/ml": ("mass", factor) for prefix, factor in PREFIXES.items()},
    **{"s": ("time", 1.0), "min": ("time", 60.0), "h": ("time", 3_600.0), "d": ("time", 86_400.0)},
}
SPELLINGS = {"hour": "h", "hours": "h", "hr": "h", "hrs": "h", "day": "d", "days": "d", "minutes": "min", "mins": "min"}
QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\W\d_][^\d]*)?\s*")


def unit_text(unit: str) -> str:
    """A unit in the spelling of UNITS where it is one of them: either sign of micro is u, and case is mended."""
    text = unit.strip().replace("µ", "u").replace("μ", "u")
    text = SPELLINGS.get(text.casefold(), text)
    return text if text in UNITS else {known.casefold(): known for known in UNITS}.get(text.casefold(), text)


def is_quantity(text: str) -> bool:
    """Whether a string is a number with a known unit, or without one."""
    found = QUANTITY.fullmatch(text)
    return found is not None and (found[2] is None or unit_text(found[2]) in UNITS)


def measures_time(text: str) -> bool:
    """Whether a quantity has a unit of time."""
    found = QUANTITY.fullmatch(text)
    return found is not None and found[2] is not None and UNITS.get(unit_text(found[2]), ("",))[0] == "time"


def in_unit(value: Any, unit: str | None, column: str) -> Any:
    """A quantity as a number in ``unit``; what is no string of a quantity is returned as it is."""
    found = QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    if found[2] is None:
        return float(found[1])
    given = unit_text(found[2])
    if unit is None:
        raise ValueError(
            f"{value!r} has a unit, and the fit does not know that of {column!r}. Give the number alone, or fit with "
            f"the unit of the column."
        )
    if given == unit:
        return float(found[1])
    (kind, factor), (fitted_kind, fitted_factor) = (UNITS.get(name, (name, 1.0)) for name in (given, unit))
    if kind != fitted_kind:
        same = [name for name, (of, _) in UNITS.items() if of == fitted_kind] or [unit]
        raise ValueError(
            f"{value!r} cannot be converted to {unit!r}, the unit of {column!r}. Give it in {listed(same)}."
        )
    return float(f"{float(found[1]) * factor / fitted_factor:.12g}")  # 1 uM is 1000 nM and not 1000.0000000000001
