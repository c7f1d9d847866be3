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
# Case is mended, but for "m", which may be molar as well as minutes.
SPELLINGS |= {unit.casefold(): unit for unit in UNITS if unit != "M"}
QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\W\d_][^\d]*)?\s*")


def unit_text(unit: str) -> str:
    """A unit in the spelling of UNITS where it is one of them: either sign of micro is u, and case is mended."""
    text = unit.strip().replace("µ", "u").replace("μ", "u")  # the micro sign, and the Greek letter
    return text if text in UNITS else SPELLINGS.get(text.casefold(), text)


def unit_of(text: str, *others: str | None) -> str | None:
    """The unit of a quantity, of UNITS or one of the ``others``: "" if it has none, None if the text is no quantity."""
    found = QUANTITY.fullmatch(text)
    unit = unit_text(found[2] or "") if found else None
    return unit if unit in {"", *UNITS, *others} else None


def measures_time(unit: str) -> bool:
    """Whether a unit is one of time."""
    return UNITS.get(unit, ("",))[0] == "time"


def in_unit(value: Any, unit: str | None, column: str) -> Any:
    """A quantity as a number in ``unit``; what is no string of a quantity is returned as it is."""
    found = QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    given = unit_text(found[2] or "")
    if given in ("", unit):
        return float(found[1])
    if unit is None:
        raise ValueError(
            f"{value!r} has a unit, and the fit does not know that of {column!r}. Give the number alone, or fit with "
            "the unit of the column, as dose_unit or time_unit."
        )
    (kind, factor), (fitted_kind, fitted_factor) = (UNITS.get(name, (name, 1.0)) for name in (given, unit))
    if kind != fitted_kind:
        same = [name for name, (of, _) in UNITS.items() if of == fitted_kind] or [unit]
        raise ValueError(
            f"{value!r} cannot be converted to {unit!r}, the unit of {column!r}. Give it in {listed(same)}."
        )
    return float(f"{float(found[1]) * factor / fitted_factor:.12g}")  # 1 uM is 1000 nM and not 1000.0000000000001
