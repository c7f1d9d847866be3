"""Support: how far a queried condition lies from those a map was trained on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from math import log10
from typing import NamedTuple

from scgap._conditions import Condition, Group

# From easy to hard; of several that apply, the hardest is the tier. Not "seen" says which part training never saw.
TIERS = (
    "control",
    "seen",
    "unseen combination",  # every perturbation at its dose and time, and the group, but not together
    "interpolated dose",
    "interpolated time",
    "extrapolated dose",
    "extrapolated time",
    "unseen perturbation",  # with a vector
    "unseen group",
    "unresolvable",  # no vector for a perturbation, or a dose, time or group that is left open
)


class _Trained(NamedTuple):
    """What training saw."""

    conditions: frozenset[Condition]
    groups: frozenset[Group]
    doses: Mapping[str, frozenset[float | None]]
    """Perturbation -> its doses, in whatever combination, group and at whatever time."""
    times: Mapping[str, frozenset[float | None]]
    """The same of its times."""


def support_tiers(trained: Sequence[Condition], known: Iterable[str], queries: Iterable[Condition]) -> list[str]:
    """The tier of each query, one of TIERS; ``trained`` are the conditions with training cells, one or more.

    ``known`` are the perturbations with a vector.

    Doses and times are compared with those of the same perturbation as a member of any trained condition: between two
    of them is interpolated, beyond them extrapolated. A dose that was trained in another group or combination alone is
    no unseen dose: what the query asks for is another combination of parts that were seen.
    """
    seen = _summary(trained)
    known = frozenset(known)
    return [_tier(seen, known, _in_order(query)) for query in queries]


def nearest_conditions(conditions: Iterable[Condition], query: Condition, n: int) -> list[Condition]:
    """The n perturbed conditions nearest to a query, nearest first; of equally near ones, the earlier first.

    What counts first is the number of perturbations that one of the two has and the other has not; among equals, the
    distance of doses of shared perturbations, in powers of ten; then of times, as log10(1 + time); then in how many
    columns the groups differ.
    """
    perturbed = [condition for condition in conditions if not condition.is_control]
    return sorted(perturbed, key=lambda condition: _distance(condition, query))[:n]


def perturbations_of(condition: Condition) -> frozenset[str]:
    """Its perturbations, at whatever dose and time, in whatever group."""
    return frozenset(name for name, _ in condition.members)


def known_in_parts(trained: Set[frozenset[str]], names: frozenset[str]) -> bool:
    """Whether several perturbations were all trained alone, and no two or more of them without the others."""
    alone = len(names) > 1 and all(frozenset([name]) in trained for name in names)
    # A pair has no such part, and screens have thousands of pairs.
    return alone and (len(names) == 2 or not any(len(part) > 1 and part < names for part in trained))


def adds_up(trained: Set[frozenset[str]], names: frozenset[str]) -> bool:
    """Whether perturbations are `known_in_parts`, and were not trained together.

    What they do alone then predicts it better, added up, than the map of the set does (``benchmarks/MODEL.md``).
    """
    return names not in trained and known_in_parts(trained, names)


def _tier(seen: _Trained, known: frozenset[str], query: Condition) -> str:
    names = [name for name, _ in query.members]
    if query.is_control:
        return "control"
    if query in seen.conditions:
        return "seen"
    if not known.issuperset(names) or _leaves_open(seen, query):
        return "unresolvable"
    if query.group not in seen.groups:
        return "unseen group"
    if not seen.doses.keys() >= set(names):
        return "unseen perturbation"
    doses = [_position(dose, seen.doses[name]) for name, dose in query.members]
    times = [_position(query.time, seen.times[name]) for name in names]
    for position in ("extrapolated", "interpolated"):
        for what, positions in (("time", times), ("dose", doses)):
            if position in positions:
                return f"{position} {what}"
    return "unseen combination"


def _leaves_open(seen: _Trained, query: Condition) -> bool:
    """Whether a dose, a time or a group is given where training had none, or the other way round."""
    example = next(iter(seen.conditions))
    dose = example.members[0][1]
    return (
        any((other is None) != (dose is None) for _, other in query.members)
        or (query.time is None) != (example.time is None)
        or len(query.group) != len(example.group)
    )


def _position(value: float | None, trained: frozenset[float | None]) -> str:
    numbers = [number for number in trained if number is not None]
    if value is None or value in trained:
        return "trained"
    return "interpolated" if min(numbers) < value < max(numbers) else "extrapolated"


def _summary(trained: Sequence[Condition]) -> _Trained:
    perturbed = [_in_order(condition) for condition in trained if not condition.is_control]
    doses, times = defaultdict(set), defaultdict(set)
    for condition in perturbed:
        for name, dose in condition.members:
            doses[name].add(dose)
            times[name].add(condition.time)
    return _Trained(
        frozenset(perturbed),
        frozenset(condition.group for condition in perturbed),
        {name: frozenset(values) for name, values in doses.items()},
        {name: frozenset(values) for name, values in times.items()},
    )


def _in_order(condition: Condition) -> Condition:
    """Members by name, so that equal sets are equal."""
    return condition._replace(members=tuple(sorted(condition.members, key=lambda member: member[0])))


def _distance(one: Condition, other: Condition) -> tuple[float, ...]:
    """Distances in perturbations, doses, times and groups, compared in this order."""
    doses, wanted = dict(one.members), dict(other.members)
    pairs = [(doses[name], wanted[name]) for name in sorted(doses.keys() & wanted.keys())]
    dose = sum(abs(log10(a) - log10(b)) for a, b in pairs if a is not None and b is not None)
    time = abs(log10(1 + (one.time or 0.0)) - log10(1 + (other.time or 0.0)))
    groups = sum(a != b for a, b in zip(one.group, other.group, strict=True))
    return len(doses.keys() ^ wanted.keys()), dose, time, groups
