"""What is held out whole: named by a mapping or a table, or chosen by a strategy, one for each tier of support."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scgap._conditions import Condition, Design, exact, exact_records, group_text, plain, split_label
from scgap._messages import listed, not_found

COMBINATIONS = "unseen_combination"
# Which dose levels of a perturbation, in ascending order, may be held out, and how many levels that takes.
DOSES = {
    "unseen_dose": (slice(1, -1), 3),
    "unseen_dose_highest": (slice(-1, None), 2),
    "unseen_dose_lowest": (slice(0, 1), 2),
}
STRATEGIES = ("unseen_perturbation", *DOSES, COMBINATIONS, "unseen_group")

type Names = frozenset[str]


def unseen_conditions(
    strategy: str, conditions: Sequence[Condition], fraction: float, parts_seen: int | None, seed: int
) -> list[int]:
    """Positions of the conditions that one of STRATEGIES holds out whole; never controls."""
    if fraction == 0:
        raise ValueError(
            f"fraction=0 leaves holdout={strategy!r} nothing to hold out. Pass the fraction to hold out, above 0, or "
            "leave holdout out."
        )
    # Not the stream that splits cells, so that the cells of the other conditions stay where they are.
    generator = np.random.default_rng([seed, 1])
    perturbed = [(i, condition) for i, condition in enumerate(conditions) if not condition.is_control]
    if strategy == COMBINATIONS:
        sets = [_names(condition) for _, condition in perturbed]
        remaining = _sets_to_train_on(sets, fraction, parts_seen, generator)
        return [i for i, condition in perturbed if _names(condition) not in remaining]
    if strategy in DOSES:
        candidates = _dose_levels(strategy, conditions)
        most = len(candidates)  # other levels of these perturbations train
    else:
        candidates = _perturbations(conditions) if strategy == "unseen_perturbation" else _groups(conditions)
        most = len(candidates) - 1
    n = min(max(1, round(fraction * len(candidates))), most)
    chosen = {candidates[i] for i in generator.permutation(len(candidates))[:n]}
    # A name, a (name, dose) and a group are never equal.
    return [i for i, condition in perturbed if chosen & {condition.group, *_names(condition), *condition.members}]


def named_cells(
    design: Design, obs: pd.DataFrame, of_cell: np.ndarray, holdout: Mapping[str, Any] | pd.DataFrame | None
) -> np.ndarray:
    """Boolean (n_obs,): cells that a mapping, or any row of a table, names."""
    if isinstance(holdout, pd.DataFrame):
        named = exact_records(holdout)
        rows = [{name: value for name, value in row.items() if plain(value) is not None} for row in named]
    else:
        rows = [{str(name): values for name, values in (holdout or {}).items()}]
    mask = np.zeros(len(obs), bool)
    text_of = dict.fromkeys(design.group_cols, group_text) | dict.fromkeys(design.target_cols, partial(_joined, design))
    used = {column for row in rows for column in row}
    levels = {column: _levels(obs[column], text_of.get(column)) for column in used}
    for row in filter(None, rows):
        cells = np.logical_and.reduce([_holds(column, levels[column], values) for column, values in row.items()])
        if set(row) <= set(design.columns):
            # A condition may be written in several ways, B+A for A+B: none of its cells may train.
            cells = np.isin(of_cell, of_cell[cells & (of_cell >= 0)])
        mask |= cells
    return mask


def _joined(design: Design, label: Any) -> str:
    """The names in a label in an order of their own: B+A is A+B."""
    return (design.sep or "").join(sorted(split_label(label, design)))


class Levels(NamedTuple):
    """The distinct values of a column, read once: a table may ask for them row by row."""

    of_cell: np.ndarray
    """Position (n_obs,) of each cell's value."""
    text: pd.Series
    """What is alike is the same; missing where the value is."""
    numbers: pd.Series | None
    """None of names, of which 1 and 01 are two."""
    text_of: Callable[[Any], str]


def _levels(column: pd.Series, text_of_name: Callable[[Any], str] | None) -> Levels:
    codes, found = pd.factorize(exact(column), use_na_sentinel=False)
    values, text_of = pd.Series(found, dtype=object), text_of_name or group_text
    numbers = pd.to_numeric(values, errors="coerce") if text_of_name is None else None
    return Levels(codes, values.map(text_of).where(values.notna()), numbers, text_of)


def _holds(column: str, levels: Levels, values: Any) -> np.ndarray:
    """Boolean (n_obs,): cells that hold one of the values in a column."""
    chosen = np.zeros(len(levels.text), bool)
    for value in [values] if isinstance(values, str) or not np.iterable(values) else values:
        name = levels.text_of(value)
        same = (levels.text == name).to_numpy(bool)
        if levels.numbers is not None:
            # Doses are compared as numbers: the column may hold '10' and the call 10.0, or the other way round.
            same = same | (levels.numbers == pd.to_numeric(value, errors="coerce")).to_numpy(bool)
        if not same.any():
            raise KeyError(not_found(name or str(value), f"adata.obs[{column!r}]", sorted(set(levels.text.dropna()))))
        chosen |= same
    return chosen[levels.of_cell]


def _perturbations(conditions: Sequence[Condition]) -> list[Hashable]:
    names = sorted({name for condition in conditions for name in _names(condition)})
    if len(names) < 2:
        raise ValueError(
            "holdout='unseen_perturbation' trains on some perturbations and tests on others, and there are fewer than "
            f"two: {listed(names)}. Check target_col, or leave holdout out to test on cells alone."
        )
    return list(names)


def _groups(conditions: Sequence[Condition]) -> list[Hashable]:
    """Groups with perturbed cells, and with controls to predict them from."""
    controls = {condition.group for condition in conditions if condition.is_control}
    groups = sorted({condition.group for condition in conditions if not condition.is_control} & controls)
    if len(groups) < 2:
        found = listed(", ".join(group) for group in groups if group)
        raise ValueError(
            "holdout='unseen_group' trains on some groups and tests on others, and there are fewer than two with "
            f"perturbed and control cells: {found}. Pass the obs column of the groups as group_col."
        )
    return list(groups)


def _dose_levels(strategy: str, conditions: Sequence[Condition]) -> list[Hashable]:
    """The dose levels, as (perturbation, dose), that a strategy may hold out."""
    levels_of = defaultdict(set)
    for name, dose in chain.from_iterable(condition.members for condition in conditions):
        if dose is not None:
            levels_of[name].add(dose)
    if not levels_of:
        raise ValueError(
            f"holdout={strategy!r} holds out doses, and no perturbation has any. Pass their obs column as dose_col."
        )
    which, n_levels = DOSES[strategy]
    levels = {name: sorted(doses) for name, doses in sorted(levels_of.items()) if len(doses) >= n_levels}
    if not levels:
        most = max(sorted(levels_of), key=lambda name: len(levels_of[name]))
        doses = ", ".join(f"{dose:g}" for dose in sorted(levels_of[most]))
        raise ValueError(
            f"holdout={strategy!r} takes a perturbation with at least {n_levels} doses, and none has more than "
            f"{most!r}: {doses}. Check dose_col, or "
            + ("pass 'unseen_dose_highest', which takes two." if n_levels > 2 else "hold out something else.")
        )
    return [(name, dose) for name, doses in levels.items() for dose in doses[which]]


def _sets_to_train_on(
    sets: Collection[Names], fraction: float, parts_seen: int | None, generator: np.random.Generator
) -> set[Names]:
    """The sets of perturbations that remain once enough combinations are held out, taken one by one at random.

    A combination is passed over if holding it out would change how many parts of it, or of one held out before, are
    seen in training.
    """
    remaining, combinations = set(sets), _combinations(sets)
    held_out: dict[Names, int] = {}
    for i in generator.permutation(len(combinations)):
        names = combinations[i]
        left = sum(other in remaining for other in combinations)
        if len(combinations) - left >= max(1, round(fraction * len(combinations))):
            break
        parts = len(names) if parts_seen is None else parts_seen
        trial = _without(names, parts, remaining, generator)
        trial_held_out = {**held_out, names: parts}
        seen = frozenset().union(*trial)
        if trial and all(len(other & seen) == n for other, n in trial_held_out.items()):
            remaining, held_out = trial, trial_held_out
    if not held_out:
        many = "all" if parts_seen is None else f"just {parts_seen}"
        raise ValueError(
            f"holdout='unseen_combination', parts_seen={parts_seen}: none of the combinations "
            f"{listed('+'.join(sorted(names)) for names in combinations)} can be held out so that training sees {many} "
            "of its parts in other conditions. Pass another parts_seen, or a mapping as holdout."
        )
    return remaining


def _combinations(sets: Collection[Names]) -> list[Names]:
    combinations = sorted({names for names in sets if len(names) > 1}, key=sorted)
    if not combinations:
        raise ValueError(
            "holdout='unseen_combination' takes cells with several perturbations, and there are none. Pass several "
            "columns as target_col, or the separator of combined labels, such as '+', as sep; or, to hold out "
            "perturbations in some groups, a table of both as holdout."
        )
    return combinations


def _without(names: Names, parts_seen: int, remaining: Collection[Names], generator: np.random.Generator) -> set[Names]:
    """The sets that remain without one combination, and without those that hold parts of it not to be seen."""
    seen = sorted(names & frozenset().union(*remaining))
    n_unseen = max(0, len(seen) - parts_seen)
    unseen = frozenset(seen[i] for i in generator.permutation(len(seen))[:n_unseen])
    return {other for other in remaining if other != names and not other & unseen}


def _names(condition: Condition) -> Names:
    return frozenset(name for name, _ in condition.members)
