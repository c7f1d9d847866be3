"""Which conditions each fold of the condition-level validation leaves out."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scgap._conditions import Condition


def condition_folds(trained: Sequence[Condition], n_folds: int, *, has_encoding: bool, seed: int) -> list[np.ndarray]:
    """Positions of the trained conditions that each fold leaves out; folds without any are left out themselves.

    With an encoding, which can place them, half of what is left out are whole perturbations, with all their conditions,
    and half are single conditions; without one, all are single, and their perturbations stay in others.
    """
    generator = np.random.default_rng([seed, 2])
    n_parts = 2 * n_folds if has_encoding else n_folds
    names = generator.permutation(sorted({name for condition in trained for name, _ in condition.members}))
    order = generator.permutation(len(trained))
    folds = []
    for fold in range(n_folds):
        unseen = set(names[fold::n_parts]) if has_encoding and len(names) >= n_parts else set()
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
