"""Condition-level validation: which conditions each fold leaves out, and the table of what came of it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from scgap._conditions import Condition, condition_label
from scgap._support import known_in_parts, perturbations_of, support_tiers

MIN_PERTURBATIONS = 3  # of which one can be left out, and others are like it or not
MIN_SUMS = 3  # combinations that tell how to add up what their perturbations do alone


def condition_folds(trained: Sequence[Condition], n_folds: int, *, has_encoding: bool, seed: int) -> list[np.ndarray]:
    """Positions of the trained conditions that each fold leaves out; folds without any are left out themselves.

    With an encoding, which can place them, half of what is left out are whole perturbations, with all their conditions,
    and half are single conditions; without one, and of fewer than three perturbations, all are single, and their
    perturbations stay in others.
    """
    generator = np.random.default_rng([seed, 2])
    names = generator.permutation(sorted({name for condition in trained for name, _ in condition.members}))
    leave_names = has_encoding and len(names) >= MIN_PERTURBATIONS
    n_parts = 2 * n_folds if leave_names else n_folds
    order = generator.permutation(len(trained))
    folds = []
    for fold in range(n_folds):
        unseen = set(names[fold::n_parts]) if leave_names else set()
        out = {i for i, condition in enumerate(trained) if unseen.intersection(name for name, _ in condition.members)}
        kept = Counter(name for i in range(len(trained)) if i not in out for name, _ in trained[i].members)
        for i in order[fold::n_parts]:
            members = [name for name, _ in trained[i].members]
            if i not in out and all(kept[name] > 1 for name in members):
                out.add(int(i))
                kept.subtract(members)
        if out and len(out) < len(trained):
            folds.append(np.array(sorted(out)))
    return folds


def without(trained: Sequence[Condition], left_out: np.ndarray) -> list[Condition]:
    """Conditions that a fold trains on."""
    gone = set(left_out.tolist())
    return [condition for i, condition in enumerate(trained) if i not in gone]


def combinations_known_in_parts(trained: Sequence[Condition]) -> np.ndarray:
    """Positions of the trained combinations that would add up, had they not been trained.

    None, unless they are of MIN_SUMS sets of perturbations: several doses of one pair tell of this pair.
    """
    sets = {perturbations_of(condition) for condition in trained}
    known = {names for names in sets if known_in_parts(sets, names)}
    enough = len(known) >= MIN_SUMS
    return np.array([i for i, c in enumerate(trained) if enough and perturbations_of(c) in known], int)


def validation_table(
    trained: Sequence[Condition], known: Sequence[str], folds: Sequence[np.ndarray], errors: np.ndarray
) -> pd.DataFrame:
    """One row a left-out condition, with the support that it has where it was left out.

    ``known`` are the perturbations with a vector, ``errors`` (n, 2) those of `transfer_errors`, fold by fold.
    """
    tiers = [
        tier
        for left_out in folds
        for tier in support_tiers(without(trained, left_out), known, [trained[i] for i in left_out])
    ]
    labels = [condition_label(trained[i]) for left_out in folds for i in left_out]
    return pd.DataFrame({"condition_label": labels, "support": tiers, "identity": errors[:, 0], "error": errors[:, 1]})
