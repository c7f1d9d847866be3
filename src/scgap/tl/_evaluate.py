"""Judge a fitted map on held-out cells, beside what it has to beat."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scgap._adata import Data, check_writable, get_modality, get_obs, to_dense
from scgap._baselines import halves, identity, learn, mean_shift
from scgap._conditions import condition_label, read_conditions
from scgap._meanings import trained_conditions
from scgap._messages import listed, not_found
from scgap._metrics import METRICS
from scgap._model import TransportModel, get_model, indexed
from scgap._moving import move_cells
from scgap._representation import decode, encode, feature_order, read_matrix
from scgap._splits import SPLITS

MIN_CELLS = 10  # observed cells, below which no metric means anything
BASELINES = ("identity", "mean_shift")
COLUMNS = ("condition", "split", "seen", "method", "metric", "value", "n_cells", "baseline", "ceiling", "score")


def evaluate(
    data: Data,
    *,
    key: str = "scgap",
    split: str = "test",
    metrics: Sequence[str] | None = None,
    baselines: Sequence[str] | None = None,
    mod: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a map on the cells of one split, beside baselines and the ceiling that a replicate reaches.

    Predicted are the control cells of the split, in features of the fitted layer (not in the image of a
    representation); observed are the condition's cells of the split; both sides have equally many.

    Parameters
    ----------
    data
        The object that was fitted, or another one with ``uns[key]``, its own controls and the split's column; without
        training cells there is no mean shift.
    key
        Where the fitted map is in ``uns``.
    split
        Which cells to judge by: ``"test"``, ``"valid"`` or ``"train"`` of the column given to the fit as ``split_col``.
    metrics
        Any of ``energy_distance``, ``mean_error``, ``std_error``, ``skewness_error``, ``kurtosis_error``; default all.
        Lower is better.
    baselines
        Any of ``identity`` (control cells) and ``mean_shift`` (control cells moved by the condition's mean effect on
        the training cells; for conditions without training cells, by the average effect; not below 0 where the map's
        predictions are not); default both. Leaving one
        out leaves its rows out and changes no number.
    mod
        Modality of a MuData.
    seed
        Decides which cells are compared.

    Returns
    -------
    Table with one row for each condition, method and metric: ``condition``, ``split``, ``seen`` (whether the condition
    had training cells), ``method`` (``key``, the baselines, ``ceiling``: one half of the observed cells as prediction
    of the other), ``metric``, ``value``, ``n_cells`` (predicted cells, and as many observed ones, in one comparison:
    half of those used, for ``value`` is the mean over two halves), ``baseline`` (the best baseline's value),
    ``ceiling``, and
    ``score = (baseline - value) / (baseline - ceiling)``: 0 is the best simple baseline, 1 a replicate. Scores are
    not clipped; they are NaN where the baseline is as good as a replicate and there is nothing to gain. Also stored as
    ``uns[key]["scores"]``.

    Raises
    ------
    KeyError
        No map under ``key``, an unknown metric or baseline, or no condition whose perturbations have a vector.
    ValueError
        The fit had no ``split_col``, no condition has 10 cells in the split, or ``data`` is a view.

    Warns
    -----
    UserWarning
        Conditions are left out for want of a vector, or the mean shift for want of training cells.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(750, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.pp.split(adata, dose_col="dose_value")
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", split_col="split", n_iters=10, progress=False)
    >>> table = scgap.tl.evaluate(adata, metrics=["energy_distance"])
    >>> table["method"].unique().tolist()
    ['scgap', 'identity', 'mean_shift', 'ceiling']
    """
    names = _chosen(metrics, list(METRICS), "metrics")
    others = _chosen(baselines, list(BASELINES), "baselines")
    if not names:
        raise ValueError(f"metrics is empty. Pass some of {listed(METRICS)}, or leave it out for all.")
    adata = get_modality(data, mod)
    check_writable(adata, copy=False)
    model = get_model(data, mod, key)
    split_col = model.params["split_col"]
    if split_col is None:
        raise ValueError(
            "The map was fitted without split_col, so no cells were held out to judge it by. "
            "Call scgap.pp.split(adata, ...) and fit with split_col='split'."
        )
    if split not in SPLITS:
        raise ValueError(not_found(str(split), "the splits", SPLITS))
    obs = get_obs(data, mod, [*model.design.columns, split_col])
    conditions, of_cell, written = read_conditions(model.design, obs)
    part = obs[split_col].astype(str).to_numpy()
    order = feature_order(model.representation, adata, model.var_names)
    cells = to_dense(read_matrix(model.representation, adata)[:, order])
    trained = trained_conditions(model)
    of_training = {condition: cells[(of_cell == i) & (part == "train")] for i, condition in enumerate(conditions)}
    training = learn(of_training, {}, nonnegative=model.representation.nonnegative)
    if not training.shifts:
        warnings.warn(
            "There are no training cells, so the mean shift is left out, and scores are against the identity alone. "
            "Pass the object that was fitted.",
            stacklevel=2,
        )

    tables, without_vector = [], []
    for i, condition in enumerate(conditions):
        control = next((j for j, c in enumerate(conditions) if c.is_control and c.group == condition.group), -1)
        observed, source = (np.flatnonzero((of_cell == j) & (part == split)) for j in (i, control))
        n_cells = 0 if control < 0 else min(len(observed), len(source)) // 2 * 2
        if condition.is_control or n_cells < MIN_CELLS:
            continue
        if not {name for name, _ in condition.members} <= set(model.encoding.perturbations):
            without_vector.append(condition_label(condition))
            continue
        # Each condition has a generator of its own, so that leaving one out changes no other number.
        generator = np.random.default_rng([seed, i])
        observed, source = (generator.permutation(rows)[:n_cells] for rows in (observed, source))
        query = {
            column: written.loc[i, column] for column in model.design.columns if column not in model.design.group_cols
        }
        predicted = {
            key: _mapped(model, cells[source], obs.iloc[source], query),
            "identity": identity(training, condition, cells[source], generator),
            "mean_shift": mean_shift(training, condition, cells[source], generator),
        }
        there = {method: found for method, found in predicted.items() if not isinstance(found, str)}
        scores = _score(there, cells[observed], names)
        tables.append(
            scores.assign(
                condition=condition_label(condition), split=split, seen=condition in trained, n_cells=n_cells // 2
            )
        )
    if without_vector:
        message = (
            f"No vector for a perturbation of {listed(without_vector)}, which cannot be predicted. "
            "Fit with encoding=, a table that holds a row for it too."
        )
        if not tables:
            raise KeyError(message)
        warnings.warn(f"{message} The other conditions are scored.", stacklevel=2)
    if not tables:
        raise ValueError(
            f"No condition has {MIN_CELLS} cells with split {split!r}, and as many controls to predict them from. "
            "Pass another split=, or hold out more cells with scgap.pp.split."
        )
    # Every baseline is computed, whichever are shown: what the scores are measured against must not depend on it.
    everything = pd.concat(tables, ignore_index=True)[list(COLUMNS)]
    result = everything[everything["method"].isin([key, *others, "ceiling"])].reset_index(drop=True)
    # Written anew, for another object may share the dictionary.
    adata.uns[key] = {**adata.uns[key], "scores": indexed(result)}
    return result


def _mapped(model: TransportModel, cells: np.ndarray, groups: pd.DataFrame, query: dict[str, Any]) -> np.ndarray:
    """Cells (n_cells, n_features) as they become under the condition."""
    points = encode(model.representation, cells)
    return decode(model.representation, cells, points, move_cells(model, points, groups, query))


def _score(predicted: dict[str, np.ndarray], observed: np.ndarray, metrics: Sequence[str]) -> pd.DataFrame:
    """One row a method and metric; each half of a prediction against one half of the observed cells.

    Halves, because the ceiling is one half of the observed cells as prediction of the other: so every value is of the
    same number of cells, and none is favoured by its noise.
    """
    one, other = halves(observed)
    rows = []
    for metric in metrics:
        distance = METRICS[metric]
        values = {
            method: np.mean(
                [distance(half, against) for half, against in zip(halves(cells), (one, other), strict=True)]
            )
            for method, cells in predicted.items()
        }
        ceiling = distance(one, other)
        baseline = min(values[method] for method in BASELINES if method in values)
        rows += [
            {
                "method": method,
                "metric": metric,
                "value": value,
                "baseline": baseline,
                "ceiling": ceiling,
                "score": (baseline - value) / (baseline - ceiling) if baseline > ceiling else np.nan,
            }
            for method, value in {**values, "ceiling": ceiling}.items()
        ]
    return pd.DataFrame(rows)


def _chosen(names: Sequence[str] | None, known: Sequence[str], what: str) -> list[str]:
    chosen = list(known) if names is None else [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in known:
            raise KeyError(not_found(str(name), f"the {what}", known))
    return chosen
