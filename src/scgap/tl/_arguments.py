"""Checks of the settings of a fit."""

from numbers import Integral, Real
from typing import Any

import jax
import numpy as np
from ott.geometry.costs import CostFn

from scgap._checks import whole_number
from scgap._losses import COSTS
from scgap._messages import kind_of, listed, not_found

_seen: dict[str, CostFn] = {}


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


def resolve_cost(cost: str | CostFn) -> tuple[str, CostFn]:
    """A cost's name, which holds its parameters, and the cost.

    Costs compare by identity, and so would be compiled anew for every object: equal costs come back as one.
    """
    if isinstance(cost, str):
        if cost not in COSTS:
            raise ValueError(not_found(cost, "the named costs", list(COSTS)) + " Or pass a cost of ott.geometry.costs.")
        return cost, COSTS[cost]
    if not isinstance(cost, CostFn):
        raise TypeError(f"cost is {kind_of(cost)}. Pass one of {listed(COSTS)}, or a cost of ott.geometry.costs.")
    parameters, structure = jax.tree.flatten(cost)
    name = f"{structure} {[np.asarray(parameter).tolist() for parameter in parameters]}"
    return name, _seen.setdefault(name, cost)
