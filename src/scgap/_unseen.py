"""What a fit learns about conditions without training cells, by leaving conditions out."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from scgap._conditions import Condition, condition_label
from scgap._model import UnseenMaps
from scgap._support import support_tiers
from scgap._transfer import SCALES, Transfer, evident_choice

FEW = 3  # left-out conditions of a tier, below which all tiers together choose how much to trust


def fit_unseen(
    trained: Sequence[Condition],
    known: Sequence[str],
    folds: Sequence[np.ndarray],
    validate: Callable[[Sequence[np.ndarray]], Transfer],
) -> UnseenMaps:
    """Run ``validate`` on the folds, and choose by tier of support how much of a displacement to trust.

    ``known`` are the perturbations with a vector.
    """
    transfer = validate(folds)
    tiers = np.concatenate([_tiers(trained, known, left_out) for left_out in folds])
    of_tier = {tier: transfer.errors[tiers == tier] for tier in sorted(set(tiers))}
    scales = {"": SCALES[evident_choice(transfer.errors)]}
    scales |= {tier: SCALES[evident_choice(errors)] for tier, errors in of_tier.items() if len(errors) >= FEW}
    chosen = [SCALES.index(scales.get(tier, scales[""])) for tier in tiers]
    table = pd.DataFrame(
        {
            "condition_label": [condition_label(trained[i]) for i in transfer.left_out],
            "support": tiers,
            "identity": transfer.errors[:, SCALES.index(0.0)],
            "error": transfer.errors[np.arange(len(chosen)), chosen],
        }
    )
    return UnseenMaps(transfer.maps, transfer.iteration, scales, table)


def _tiers(trained: Sequence[Condition], known: Sequence[str], left_out: np.ndarray) -> np.ndarray:
    """The support of left-out conditions without them."""
    kept = [condition for i, condition in enumerate(trained) if i not in set(left_out)]
    return np.array(support_tiers(kept, known, [trained[i] for i in left_out]))
