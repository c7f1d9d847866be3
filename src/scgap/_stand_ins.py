"""Stand-ins: the measured conditions that are nearest to one that was not, and how much each of them counts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scgap._conditions import Condition
from scgap._support import nearest_conditions

N_NEAREST = 3

type Shares = dict[Condition, float]
"""Condition -> its share, positive; they add up to 1. Empty where nothing is comparable."""


def stand_ins(trained: Sequence[Condition], vectors: Mapping[str, np.ndarray], condition: Condition) -> Shares:
    """Perturbed conditions that stand in for one that is not among them, by the first of these rules that finds any.

    1. The same perturbations, doses and time in other groups, alike.
    2. The same perturbations at the next lower and the next higher dose, else time, by closeness in logarithms: the
       shares of a linear interpolation. Beyond all that was measured, the nearest alone.
    3. The three sets of perturbations whose summed vectors (n_descriptors,) are nearest, by closeness, each at its
       nearest dose and time.
    4. Where there are no vectors, the three `nearest_conditions` that share a perturbation, alike.

    From rule 2 on, conditions of other groups count only where the own group has none.
    """
    elsewhere = [other for other in trained if other._replace(group=condition.group) == condition]
    if elsewhere:
        return _alike(elsewhere)
    same = _own_group_first([other for other in trained if _names(other) == _names(condition)], condition)
    if same:
        return _beside(same, condition)
    if vectors.keys() >= set(_names(condition)):
        return _by_vectors(_own_group_first(trained, condition), vectors, condition)
    sharing = [other for other in trained if set(_names(other)) & set(_names(condition))]
    return _alike(nearest_conditions(_own_group_first(sharing, condition), condition, N_NEAREST))


def _names(condition: Condition) -> tuple[str, ...]:
    return tuple(name for name, _ in condition.members)


def _log_doses(condition: Condition) -> np.ndarray:
    """(n_members,), zeros where there are no doses."""
    return np.array([0.0 if dose is None else np.log(dose) for _, dose in condition.members])


def _log_time(condition: Condition) -> np.ndarray:
    """(1,), zero where there are no times."""
    return np.log1p([condition.time or 0.0])


def _own_group_first(conditions: Sequence[Condition], condition: Condition) -> Sequence[Condition]:
    return [other for other in conditions if other.group == condition.group] or conditions


def _alike(conditions: Sequence[Condition]) -> Shares:
    return dict.fromkeys(conditions, 1.0 / max(len(conditions), 1))


def _closeness(distances: Sequence[float]) -> np.ndarray:
    """Shares (n,) inverse to distances (n,); those at no distance have all of it."""
    values = np.asarray(distances)
    weights = 1.0 / values if values.min() > 0 else np.asarray(values == 0, float)
    return weights / weights.sum()


def _beside(same: Sequence[Condition], condition: Condition) -> Shares:
    """Neighbours along the doses, else along the time, on both sides; else the nearest, in each of its groups."""
    at_its_time = [other for other in same if other.time == condition.time]
    at_its_doses = [other for other in same if other.members == condition.members]
    shares = _between(at_its_time, condition, _log_doses) or _between(at_its_doses, condition, _log_time)
    nearest = nearest_conditions(same, condition, 1)[0]
    return shares or _alike([other for other in same if other._replace(group=nearest.group) == nearest])


def _between(line: Sequence[Condition], condition: Condition, numbers: Callable[[Condition], np.ndarray]) -> Shares:
    """The nearest that are nowhere above and those that are nowhere below, by closeness; empty without either."""
    steps = [numbers(other) - numbers(condition) for other in line]
    gaps, sides = [], []
    for sign in (-1, 1):
        distances = [np.abs(step).sum() if (sign * step >= 0).all() else np.inf for step in steps]
        gaps.append(min(distances, default=np.inf))
        sides.append([other for other, distance in zip(line, distances, strict=True) if distance == gaps[-1]])
    if not np.isfinite(gaps).all():
        return {}
    shares = _closeness(gaps)
    return {other: float(share) / len(side) for side, share in zip(sides, shares, strict=True) for other in side}


def _by_vectors(pool: Sequence[Condition], vectors: Mapping[str, np.ndarray], condition: Condition) -> Shares:
    """Sets of perturbations by the distance of their summed vectors, each at the nearest mean dose, then time."""
    sets: dict[tuple[str, ...], list[Condition]] = {}
    for other in pool:
        if vectors.keys() >= set(_names(other)):
            sets.setdefault(_names(other), []).append(other)
    if not sets:
        return {}
    wanted = _sum(vectors, _names(condition))
    distance = {names: float(np.linalg.norm(_sum(vectors, names) - wanted)) for names in sets}
    chosen = sorted(sets, key=distance.__getitem__)[:N_NEAREST]
    shares: Shares = {}
    for names, share in zip(chosen, _closeness([distance[names] for names in chosen]), strict=True):
        gaps = [_gap(other, condition) for other in sets[names]]
        nearest = [other for other, gap in zip(sets[names], gaps, strict=True) if gap == min(gaps)]
        shares |= {other: float(share) / len(nearest) for other in nearest if share}
    return shares


def _sum(vectors: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    return np.sum([vectors[name] for name in names], axis=0)


def _gap(one: Condition, other: Condition) -> tuple[float, float]:
    """Distances in mean log dose and in log time, compared in this order."""
    dose = abs(_log_doses(one).mean() - _log_doses(other).mean())
    return float(dose), float(abs(_log_time(one) - _log_time(other))[0])
