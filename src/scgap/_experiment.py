"""The experiment behind a fit: which cells train and which validate, and which controls belong to a condition."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from scgap._arrays import ConditionArrays, pad_rows
from scgap._conditions import Condition, Design, Group, condition_label, group_text, label_text
from scgap._encoding import Encoding, encode_conditions
from scgap._groups import group_shares
from scgap._messages import listed
from scgap._populations import Populations, make_populations
from scgap._splits import MIN_CELLS, MIN_VALID, SPLITS
from scgap._train import N_MOVED


class Experiment(NamedTuple):
    """Conditions of a fit, trained ones first; populations are positions in ``conditions`` of `read_conditions`."""

    trained: list[Condition]
    only_valid: list[Condition]
    """Conditions without training cells that validation can look at."""
    source_of: list[int]
    target_of: list[int]
    validated: np.ndarray
    """Positions, among trained and only_valid, of the conditions with validation cells."""


def make_experiment(
    conditions: Sequence[Condition], of_cell: np.ndarray, split: np.ndarray, *, learned: bool
) -> Experiment:
    """Sort conditions into those that train and those that only validate, and find their controls.

    ``learned`` says that a perturbation without training cells has no vector, so that nothing can validate it.
    """
    n_train, n_valid = (np.bincount(of_cell[split == part], minlength=len(conditions)) for part in ("train", "valid"))
    control_of = {condition.group: i for i, condition in enumerate(conditions) if condition.is_control}
    perturbed = [i for i, condition in enumerate(conditions) if not condition.is_control]
    trained = [i for i in perturbed if n_train[i]]
    if not trained:
        raise ValueError(
            "No perturbed cells to train on: all cells are controls, unlabelled or held out. "
            "Check target_col, reference_key and split_col."
        )
    _check_sizes(conditions, trained, control_of, n_train)
    known = {name for i in trained for name, _ in conditions[i].members}

    def can_validate(i: int) -> bool:
        control = control_of.get(conditions[i].group)
        members = {name for name, _ in conditions[i].members}
        # Controls that train validate, too.
        return (
            n_valid[i] >= MIN_VALID
            and control is not None
            and n_valid[control] + n_train[control] >= MIN_VALID
            and (not learned or members <= known)
        )

    only_valid = [i for i in perturbed if not n_train[i] and can_validate(i)]
    used = [*trained, *only_valid]
    validated = np.array([j for j, i in enumerate(used) if can_validate(i)], dtype=int)
    if not len(validated):
        raise ValueError(
            f"No condition can validate: that takes {MIN_VALID} 'valid' cells of a perturbation that has training "
            "cells or a row in encoding=, and controls in its group. Mark cells of trained conditions as valid, "
            f"beside {MIN_CELLS} that train."
        )
    return Experiment(
        [conditions[i] for i in trained],
        [conditions[i] for i in only_valid],
        [control_of[conditions[i].group] for i in used],
        used,
        validated,
    )


def experiment_populations(
    experiment: Experiment, points: np.ndarray, of_cell: np.ndarray, split: np.ndarray, order: np.ndarray
) -> tuple[Populations, Populations]:
    """Training and validation cells on the device.

    Controls that train validate, too, up to N_MOVED of a group, evenly spread: what is judged is where they are moved,
    by perturbed cells that do not train. Few controls tell that so badly that training stopped at the wrong time
    (``benchmarks/MODEL.md``).
    """
    sources = (experiment.source_of, experiment.target_of)
    train = np.where(split == "train", of_cell, -1)
    valid = np.where(split == "valid", of_cell, -1)
    seen = np.maximum(train, valid)[order]
    for control in set(experiment.source_of):
        rows = order[seen == control]
        taken = np.linspace(0, len(rows), min(len(rows), N_MOVED), endpoint=False).astype(int)
        valid[rows] = -1
        valid[rows[taken]] = control
    return make_populations(points, train, *sources, order), make_populations(points, valid, *sources, order)


def control_means(experiment: Experiment, train: Populations) -> dict[Group, np.ndarray]:
    """Means (n_points,) float32 of the training controls of each trained group, in the order of their names."""
    sources = zip(experiment.trained, experiment.source_of, strict=False)  # trained conditions come first
    population_of = {condition.group: population for condition, population in sources}
    groups = sorted(population_of)
    return dict(zip(groups, _means(train, [population_of[group] for group in groups]), strict=True))


def experiment_arrays(
    experiment: Experiment, encoding: Encoding, means: Mapping[Group, np.ndarray], valid: Populations
) -> ConditionArrays:
    """The conditions as arrays, padded so that another number of them compiles nothing anew.

    Those that only validate, in a group that does not train, do so in the trained one whose controls are nearest: of
    the groups that stand in when cells are moved, the one that counts most. ``means`` are `control_means`.
    """
    sources = experiment.source_of[len(experiment.trained) :]
    only_valid = []
    for condition, mean in zip(experiment.only_valid, _means(valid, sources), strict=True):
        shares = group_shares(means, mean[None], condition.group)
        only_valid.append(condition._replace(group=max(shares, key=lambda group: shares[group][0])))
    arrays = encode_conditions(encoding, [*experiment.trained, *only_valid])
    return ConditionArrays(*(pad_rows(array) for array in arrays))


def _means(populations: Populations, which: Sequence[int]) -> np.ndarray:
    """Means (len(which), n_points) float32 of populations."""
    if not which:
        return np.zeros((0, populations.cells.shape[1]), np.float32)  # without a copy of the cells to the host
    cells, start, size = (np.asarray(array) for array in (populations.cells, populations.start, populations.size))
    return np.array([cells[start[i] : start[i] + size[i]].mean(0, dtype=float) for i in which], np.float32)


def condition_table(
    design: Design, conditions: Sequence[Condition], rows: pd.DataFrame, of_cell: np.ndarray, split: np.ndarray
) -> pd.DataFrame:
    """One row a perturbed condition: its label, the design's columns, where its cells went, and how many there are."""
    perturbed = [i for i, condition in enumerate(conditions) if not condition.is_control]
    table = rows.iloc[perturbed].copy()
    for column in design.target_cols:  # `fillna` refuses categories and whole numbers
        table[column] = table[column].astype(object).where(table[column].notna(), design.reference_key)
    for column in design.columns:
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        # Doses joined by a separator stay strings; a column without a perturbation may hold no dose.
        is_blank = table[column].isna() | table[column].map(lambda value: isinstance(value, str) and not value.strip())
        is_number = column in (*design.dose_cols, design.time_col)
        is_number = is_number and bool((numbers.notna() | is_blank).all())
        names = table[column].map(label_text if column in design.target_cols else group_text)
        table[column] = numbers if is_number else names
    table.insert(0, "condition_label", [condition_label(conditions[i]) for i in perturbed])
    parts = [set(split[of_cell == i]) for i in perturbed]
    table["split"] = [next(part for part in SPLITS if part in found) for found in parts]
    table["n_cells"] = np.bincount(of_cell[of_cell >= 0], minlength=len(conditions))[perturbed]
    return table


def _check_sizes(
    conditions: Sequence[Condition],
    trained: Sequence[int],
    control_of: dict[Group, int],
    n_train: np.ndarray,
) -> None:
    groups = {conditions[i].group for i in trained}
    if without := sorted(
        ", ".join(group) for group in groups if group not in control_of or not n_train[control_of[group]]
    ):
        raise ValueError(
            f"No control cells to train on in {listed(without)}: each group is matched with its own controls. "
            "Drop the group, or leave the column out of group_col."
        )
    populations = [*trained, *(control_of[group] for group in groups)]
    if small := [f"{condition_label(conditions[i])} ({n_train[i]})" for i in populations if n_train[i] < MIN_CELLS]:
        raise ValueError(
            f"Fewer than {MIN_CELLS} training cells in {listed(small)}. Drop these cells, hold the condition out as "
            "'test', or merge groups."
        )
