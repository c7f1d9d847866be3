"""How far a condition is from those that were trained on, and which measured ones are nearest."""

import math
from collections.abc import Iterable, Sequence

from scgap._conditions import Condition, parse_condition, records
from scgap._model import TransportModel

# From the easiest to the hardest; the hardest that applies is a condition's tier.
TIERS = (
    "seen",
    "interpolated",
    "unseen combination",
    "extrapolated",
    "unseen perturbation",
    "unseen group",
    "unresolvable",
)
SEEN, INTERPOLATED, COMBINATION, EXTRAPOLATED, PERTURBATION, GROUP, UNRESOLVABLE = TIERS


def trained_conditions(model: TransportModel) -> set[Condition]:
    """The conditions that had training cells, in whatever object."""
    table = model.conditions[model.conditions["split"].astype(str) == "train"]
    return {parse_condition(model.design, row) for row in records(table)}


def supports(conditions: Sequence[Condition], trained: set[Condition], with_vector: Iterable[str]) -> list[str]:
    """The tier of each condition; ``with_vector`` are the perturbations that the map can be asked about.

    A dose is compared with those at which its perturbation was trained, in any combination and group, and a time with
    all trained times. A perturbation that was trained in other groups alone is an unseen combination, of perturbation
    and context.
    """
    known = set(with_vector)
    doses: dict[str, set[float]] = {}
    for condition in trained:
        for name, dose in condition.members:
            doses.setdefault(name, set()).update(() if dose is None else (dose,))
    times = {condition.time for condition in trained if condition.time is not None}
    groups = {condition.group for condition in trained}
    values = [set(column) for column in zip(*groups, strict=True)]
    sets = {(tuple(name for name, _ in condition.members), condition.group) for condition in trained}

    def tiers(condition: Condition) -> Iterable[str]:
        yield SEEN
        names = tuple(name for name, _ in condition.members)
        if any(value not in seen for value, seen in zip(condition.group, values, strict=False)):
            yield GROUP
        if condition in trained or condition.is_control:
            return
        if not known.issuperset(names):
            yield UNRESOLVABLE
        if not doses.keys() >= set(names):
            yield PERTURBATION
        if (names, condition.group) not in sets:
            yield COMBINATION
        for name, dose in condition.members:
            yield _between(dose, doses.get(name, set()))
        yield _between(condition.time, times)

    return [max(tiers(condition), key=TIERS.index) for condition in conditions]


def nearest_conditions(measured: Sequence[Condition], condition: Condition, n: int) -> list[Condition]:
    """The n nearest measured conditions: by perturbations in common, then group, then factors of dose and time."""

    def distance(other: Condition) -> tuple[float, float, float]:
        ours, theirs = dict(condition.members), dict(other.members)
        steps = [_steps(ours[name], theirs[name]) for name in ours.keys() & theirs.keys()]
        groups = sum(a != b for a, b in zip(condition.group, other.group, strict=False))
        return len(ours.keys() ^ theirs.keys()), groups, sum(steps) + _steps(condition.time, other.time)

    return sorted(measured, key=distance)[:n]


def _between(value: float | None, trained: set[float]) -> str:
    if value is None or value in trained or not trained:
        return SEEN
    return INTERPOLATED if min(trained) < value < max(trained) else EXTRAPOLATED


def _steps(one: float | None, other: float | None) -> float:
    """Powers of ten between two doses or times."""
    if one is None or other is None or one == other:
        return 0.0
    return abs(math.log10(one / other)) if one and other else math.inf
