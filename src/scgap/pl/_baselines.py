"""What simple baselines make of a condition, for the plots."""

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from scgap._baselines import BASELINES, Training
from scgap._encoding import Encoding, descriptors_of
from scgap._scoring import Observations, read_training
from scgap.pl._cells import Cells

CONTROL = "control"  # what plots call the identity


def predict_simply(
    observations: Observations, encoding: Encoding, groups: Sequence[Cells]
) -> list[dict[str, np.ndarray]]:
    """Cells (n, n_vars) of each group by the baselines that can predict it, the simplest first.

    Of a mixture, and without training cells, there are only control cells.
    """
    training = read_training(observations, descriptors_of(encoding), seed=0)
    with threadpool_limits(1, "blas"):  # small matrices, many times
        return [_predict(training, cells) for cells in groups]


def _predict(training: Training, cells: Cells) -> dict[str, np.ndarray]:
    found = {CONTROL: cells.source}
    for name, baseline in BASELINES.items():
        if name == "identity" or cells.condition is None:
            continue
        predicted = baseline(training, cells.condition, cells.source, np.random.default_rng(0))
        if not isinstance(predicted, str):
            found[name] = predicted
    return found
