"""What a fit trains beside its own map: further maps, whose mean predicts, and folds that leave conditions out."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from scgap._conditions import Condition
from scgap._folds import combinations_known_in_parts, validation_table, without
from scgap._map import Weights
from scgap._model import TransportModel
from scgap._moving import Mover, make_mover, move_to
from scgap._transfer import choose_detail, fit_others, fit_without, transfer_errors


def fit_further(
    model: TransportModel,
    trained: Sequence[Condition],
    starts: Sequence[Weights],
    folds: Sequence[np.ndarray],
    *,
    n_ran: int,
    run: Mapping[str, Any],
    progress: bool,
) -> TransportModel:
    """The model with other maps of all conditions, the detail of sums, and how well left-out conditions are predicted.

    Without what could not be trained. The model's own map ran ``n_ran`` updates from the first of ``starts``; ``run``
    is what it was trained on, as `scgap._train.fit` takes it.
    """
    own, *others = starts
    n_maps = len(others) + len(folds)
    try:
        sums = combinations_known_in_parts(trained)
        model = _with_detail(model, choose_detail(model.weights, sums, data=run["data"], setup=run["setup"]))
        with tqdm(total=n_maps, desc="further maps", disable=not (progress and n_maps)) as bar:
            for other in fit_others(others, **run):
                model = model._replace(others=[*model.others, other])
                bar.update()
            for table in _validation_tables(model, trained, own, folds, run, n_ran):
                model = model._replace(validation=pd.concat([model.validation, table], ignore_index=True))
                bar.update()
        return model
    except KeyboardInterrupt:
        reason = "Interrupted while further maps were trained"
    except FloatingPointError as error:
        reason = f"Training of a further map diverged ({error})"
    warnings.warn(f"{reason}: what was trained before is kept, and predicts without it.", stacklevel=3)
    return model


def _validation_tables(
    model: TransportModel,
    trained: Sequence[Condition],
    start: Weights,
    folds: Sequence[np.ndarray],
    run: Mapping[str, Any],
    n_ran: int,
) -> Iterator[pd.DataFrame]:
    """Fold by fold, errors of its left-out conditions, moved as predictions are by a map that never saw them."""
    kept = [without(trained, left_out) for left_out in folds]
    sums = [combinations_known_in_parts(conditions) for conditions in kept]
    maps = fit_without(start, folds, sums, **{**run, "n_iters": n_ran})
    for left_out, conditions, (weights, detail) in zip(folds, kept, maps, strict=True):
        mover = make_mover(_with_detail(model._replace(weights=weights, others=[]), detail), conditions)
        errors = [transfer_errors(partial(_move, mover, trained[i]), run["data"].train, i) for i in left_out]
        yield validation_table(trained, model.encoding.perturbations, [left_out], np.array(errors))


def _move(mover: Mover, condition: Condition, points: np.ndarray) -> np.ndarray:
    return move_to(mover, points, condition).points


def _with_detail(model: TransportModel, detail: float) -> TransportModel:
    """The model with another detail of sums."""
    return model._replace(params={**model.params, "resolved": {**model.params["resolved"], "detail_of_sums": detail}})
