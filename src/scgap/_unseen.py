"""What a fit learns about conditions without training cells, by leaving conditions out."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from scgap._conditions import Condition, condition_label
from scgap._model import UnseenMaps
from scgap._support import support_tiers
from scgap._transfer import Transfer


def fit_unseen(
    trained: Sequence[Condition],
    known: Sequence[str],
    folds: Sequence[np.ndarray],
    validate: Callable[[Sequence[np.ndarray]], Transfer],
) -> UnseenMaps:
    """Run ``validate`` on the folds; ``known`` are the perturbations with a vector."""
    transfer = validate(folds)
    table = pd.DataFrame(
        {
            "condition_label": [condition_label(trained[i]) for i in transfer.left_out],
            "support": np.concatenate([_tiers(trained, known, left_out) for left_out in folds]),
            "identity": transfer.errors[:, 0],
            "error": transfer.errors[:, 1],
        }
    )
    return UnseenMaps(transfer.maps, table)


def _tiers(trained: Sequence[Condition], known: Sequence[str], left_out: np.ndarray) -> np.ndarray:
    """The support of left-out conditions without them."""
    kept = [condition for i, condition in enumerate(trained) if i not in set(left_out)]
    return np.array(support_tiers(kept, known, [trained[i] for i in left_out]))
