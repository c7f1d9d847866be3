"""Checks of numbers that users give."""

from numbers import Integral, Real
from typing import Any

import numpy as np


def whole_number(name: str, value: Any, least: int) -> int:
    """A plain number, for NumPy's have no place in JSON."""
    if not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name}={value!r}. Pass a whole number from {least} on.")
    return int(value)


def positive(name: str, value: Any, *, or_zero: bool = False) -> float:
    """A finite number above 0, or 0 if that leaves a term out."""
    if not isinstance(value, Real) or not (0 < float(value) < np.inf or (or_zero and value == 0)):
        raise ValueError(f"{name}={value!r}. Pass a positive number{', or 0 to leave it out' if or_zero else ''}.")
    return float(value)


def widths(hidden: Any) -> tuple[int, ...]:
    """Widths of hidden layers."""
    if isinstance(hidden, Integral) or not len(hidden):
        raise ValueError(f"hidden={hidden!r}. Pass the widths of at least one hidden layer, such as (128, 128).")
    return tuple(whole_number("hidden", width, 1) for width in hidden)
