"""Checks of numbers that users give."""

from numbers import Integral
from typing import Any


def whole_number(name: str, value: Any, least: int) -> int:
    """A plain number, for NumPy's have no place in JSON."""
    if not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name}={value!r}. Pass a whole number from {least} on.")
    return int(value)
