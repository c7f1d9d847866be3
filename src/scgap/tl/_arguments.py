"""Checks of the settings of a fit."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ott.geometry.costs import CostFn

from scgap._adata import Data, get_modality, get_obs
from scgap._losses import COSTS
from scgap._messages import kind_of, listed, nearest, not_found
from scgap._units import UNITS, unit_text

_seen: dict[tuple[type, str], CostFn] = {}


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
    name = f"{structure} {[np.asarray(parameter).tolist() for parameter in parameters if parameter is not cost]}"
    # A class of one's own need not tell JAX what it holds, nor that it is a tree, and may be defined anew.
    plain = {key: value for key, value in vars(cost).items() if isinstance(value, bool | int | float | str)}
    name = f"{type(cost).__name__} {name} {plain}"
    seen = _seen.setdefault((type(cost), name), cost)
    return name, seen if _have_the_same(vars(seen), vars(cost)) else cost


def _have_the_same(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    (values, structure), (other_values, other) = (jax.tree.flatten(dict(attributes)) for attributes in (some, others))
    return (structure,) == (other,) and all(map(np.array_equal, values, other_values))


def resolve_unit(data: Data, mod: str | None, argument: str, unit: str | None, of: object) -> str | None:
    """A unit, or the one unit that a column of obs holds; ``of`` are the columns of the numbers."""
    if unit is None:
        return None
    if not isinstance(unit, str):
        raise TypeError(f"{argument} is {kind_of(unit)}. Pass a unit such as 'nM', or the obs column that holds it.")
    if not of:
        raise ValueError(f"{argument}={unit!r} is the unit of nothing. Pass {argument[:4]}_col too, or leave it out.")
    columns = {*get_modality(data, mod).obs, *data.obs}
    if unit_text(unit) in UNITS:  # whatever a column is called, such as hours
        return unit_text(unit)
    if unit not in columns:
        if nearest(unit, columns):
            raise KeyError(not_found(unit, "adata.obs", sorted(columns)) + " Or pass a unit such as 'nM'.")
        return unit_text(unit)
    found = sorted({unit_text(str(one)) for one in get_obs(data, mod, [unit])[unit].dropna()} - {"", "nan", "None"})
    if len(found) != 1:
        raise ValueError(
            f"adata.obs[{unit!r}] holds the units {listed(found)}. Convert what it belongs to, so that there is one."
        )
    return found[0]
