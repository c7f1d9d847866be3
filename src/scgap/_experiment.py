"""The experiment behind a fit: which cells train and which validate, and which controls belong to a condition."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from scgap._conditions import Condition, Design, Encoding, condition_label, encode_conditions
from scgap._messages import listed
from scgap._populations import ConditionArrays, Populations, make_populations, pad_rows

MIN_CELLS = 10  # training cells of a condition or of a group's controls, below which moments mean nothing
VALID_FRACTION = 0.1  # of the training cells, held out where the split names no valid ones
SPLITS = ("train", "valid", "test")


class Experiment(NamedTuple):
    """Conditions of a fit, trained ones first; populations are positions in ``conditions`` of `read_conditions`."""

    trained: list[Condition]
    only_valid: list[Condition]
    """Conditions without training cells that validation can look at."""
    source_of: list[int]
    target_of: list[int]
    validated: np.ndarray
    """Positions, among trained and only_valid, of the conditions with validation cells."""


def assign_split(labels: pd.Series | None, of_cell: np.ndarray, seed: int) -> np.ndarray:
    """``train``, ``valid``, ``test`` or ``""`` (no condition) for every cell (n_obs,)."""
    split = (
        np.full(len(of_cell), "train", dtype=object) if labels is None else labels.astype(object).to_numpy(copy=True)
    )
    used = of_cell >= 0
    if unknown := sorted({str(label) for label in split[used]} - set(SPLITS)):
        raise ValueError(
            f"The split column {labels.name if labels is not None else ''!r} holds {listed(unknown)}. "
            "Its values are 'train', 'valid' and 'test'; scgap.pp.split makes such a column."
        )
    split[~used] = ""
    if not (split == "valid").any():
        generator = np.random.default_rng(seed)
        for population in np.unique(of_cell[split == "train"]):
            cells = np.flatnonzero((of_cell == population) & (split == "train"))
            n_valid = max(round(VALID_FRACTION * len(cells)), min(MIN_CELLS // 2, len(cells) // 2))
            split[generator.permutation(cells)[:n_valid]] = "valid"
    return split.astype(str)


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
    known = {name for i in trained for name, _ in conditions[i].members}
    only_valid = [
        i
        for i in perturbed
        if n_valid[i] and not n_train[i] and not (learned and {name for name, _ in conditions[i].members} - known)
    ]
    if not trained:
        raise ValueError(
            "No perturbed cells to train on: all cells are controls, unlabelled or held out. "
            "Check target_col, reference_key and split_col."
        )
    _check_sizes(conditions, trained, control_of, n_train, n_train + n_valid)
    used = [*trained, *only_valid]
    validated = np.array([j for j, i in enumerate(used) if n_valid[i]], dtype=int)
    if not len(validated):
        raise ValueError(
            "None of the conditions with 'valid' cells can be predicted: their perturbations have no training cells "
            "and no encoding. Pass encoding=, or mark cells of trained conditions as valid."
        )
    return Experiment(
        [conditions[i] for i in trained],
        [conditions[i] for i in only_valid],
        [control_of[conditions[i].group] for i in used],
        used,
        validated,
    )


def experiment_populations(
    experiment: Experiment, points: np.ndarray, of_cell: np.ndarray, split: np.ndarray
) -> tuple[Populations, Populations]:
    """Training and validation cells on the device; groups whose controls all train validate on these."""
    sources = (experiment.source_of, experiment.target_of)
    train = np.where(split == "train", of_cell, -1)
    valid = np.where(split == "valid", of_cell, -1)
    for control in set(experiment.source_of) - set(valid):
        valid = np.where(train == control, control, valid)
    return make_populations(points, train, *sources), make_populations(points, valid, *sources)


def experiment_arrays(experiment: Experiment, encoding: Encoding) -> ConditionArrays:
    """The conditions as arrays, padded so that another number of them compiles nothing anew."""
    arrays = encode_conditions(encoding, [*experiment.trained, *experiment.only_valid])
    return ConditionArrays(*(pad_rows(array) for array in arrays))


def condition_table(
    design: Design, conditions: Sequence[Condition], rows: pd.DataFrame, of_cell: np.ndarray, split: np.ndarray
) -> pd.DataFrame:
    """One row a perturbed condition: its label, the design's columns, where its cells went, and how many there are."""
    perturbed = [i for i, condition in enumerate(conditions) if not condition.is_control]
    table = rows.iloc[perturbed].fillna(dict.fromkeys(design.target_cols, design.reference_key))
    for column in design.columns:
        is_number = column in (*design.dose_cols, design.time_col)
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        # Doses joined by a separator stay strings.
        table[column] = numbers if is_number and numbers.notna().all() else table[column].astype(str)
    table.insert(0, "condition_label", [condition_label(conditions[i]) for i in perturbed])
    parts = [set(split[of_cell == i]) for i in perturbed]
    table["split"] = [next(part for part in SPLITS if part in found) for found in parts]
    table["n_cells"] = np.bincount(of_cell[of_cell >= 0], minlength=len(conditions))[perturbed]
    return table


def _check_sizes(
    conditions: Sequence[Condition],
    trained: Sequence[int],
    control_of: dict[tuple[str, ...], int],
    n_train: np.ndarray,
    n_cells: np.ndarray,
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
    if small := [f"{condition_label(conditions[i])} ({n_cells[i]})" for i in populations if n_cells[i] < MIN_CELLS]:
        raise ValueError(
            f"Fewer than {MIN_CELLS} training cells in {listed(small)}. Drop these cells, hold the condition out as "
            "'test', or merge groups."
        )
