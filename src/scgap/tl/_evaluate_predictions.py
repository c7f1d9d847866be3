"""Judge predictions of any tool, by the same code as scgap's own."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._adata import (
    Data,
    Matrix,
    check_finite,
    check_predicted,
    get_matrix,
    get_modality,
    get_obs,
    random_order,
    to_dense,
)
from scgap._baselines import BASELINES, TAKEN
from scgap._checks import chosen_names, whole_number
from scgap._conditions import Condition, Design, make_design, read_conditions
from scgap._descriptors import EncodingArgument, join_encodings
from scgap._messages import kind_of, listed
from scgap._scoring import Method, Observations, Prediction, score_conditions
from scgap._splits import read_split
from scgap._support import support_tiers
from scgap.tl._evaluate import check_any, chosen_metrics, with_support
from scgap.tl._predicted import predicted_conditions, read_cells, same_features

ADVICE = (
    "Pass at least 4 predicted cells of conditions that were observed, with perturbations, doses, times and groups as "
    "in observed.obs. With split_col only its 'test' cells, controls among them, are compared with: leave it out to "
    "compare with all."
)


def evaluate_predictions(
    observed: Data,
    predicted: AnnData | Mapping[str, AnnData],
    *,
    target_col: str | Sequence[str] = "perturbation",
    reference_key: str = "control",
    dose_col: str | Sequence[str] | None = None,
    group_col: str | Sequence[str] | None = None,
    time_col: str | None = None,
    sep: str | None = None,
    split_col: str | None = None,
    encoding: EncodingArgument = None,
    layer: str | None = None,
    mod: str | None = None,
    metrics: str | Sequence[str] | None = None,
    baselines: str | Sequence[str] | None = None,
    n_cells: int = 2_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predicted cells of any tool against observed ones, beside baselines and the ceiling.

    Controls always are those of ``observed``: control cells among the predictions are not looked at.

    Parameters
    ----------
    observed
        Measured cells, controls among them. With ``split_col`` its ``"test"`` cells are compared with, and baselines
        learn from its ``"train"`` cells.
    predicted
        Predicted cells in ``X`` with the same features, in any order, on the same scale, and with the same columns in
        obs; or several such objects by the name of their method.
    target_col, reference_key, dose_col, group_col, time_col, sep
        Which obs columns say what was done to a cell, as in `scgap.tl.fit_transport`.
    split_col
        Column of ``observed.obs``; without one all its cells are compared with, and of the baselines there is the
        identity alone.
    encoding
        Table of descriptors, or key of one in ``observed.uns``, for the baselines ``nearest`` and ``ridge``.
    layer
        Layer of ``observed`` with the measured features; default ``X``.
    mod
        Modality of a MuData.
    metrics, baselines, n_cells, seed
        As in `scgap.tl.evaluate`.

    Returns
    -------
    A table as of `scgap.tl.evaluate`; the method of a single object is called ``prediction``. Conditions that were
    predicted and not observed, or the other way round, have rows without values and a ``reason``.

    All methods of a condition, baselines and ceiling too, are compared by equally many cells: as many as the method
    with the fewest predicted cells of it has, if it has any. The ``n_cells`` of the table are half of these. So one
    method with few cells makes the values of all others noisier, leaves metrics out that need more cells, and with
    fewer than 4 leaves the condition out: predict as many cells as are observed, or judge such a method by itself.

    Raises
    ------
    KeyError
        A column is missing, or a metric or baseline unknown.
    TypeError
        Predictions are not AnnData, or names of methods no strings.
    ValueError
        Features differ or have names twice, values are not finite, no condition can be compared, or methods are called
        like baselines.

    Warns
    -----
    UserWarning
        Some conditions have no scores, or ``split_col`` holds no training cells for baselines.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(750, n_drugs=2, doses=[100.0], n_groups=1)
    >>> predicted = adata[adata.obs["perturbation"] != "control"].copy()
    >>> predicted.X *= 0.9
    >>> table = scgap.tl.evaluate_predictions(adata, {"shrunk": predicted}, dose_col="dose_value")
    >>> table.loc[table["method"] == "shrunk", "support"].isna().all()
    np.True_
    """
    names = chosen_metrics(metrics)
    others = chosen_names(baselines, list(BASELINES), "baselines")
    most_cells, seed = whole_number("n_cells", n_cells, 4), whole_number("seed", seed, 0)
    design = make_design(target_col, reference_key, dose_col, group_col, time_col, sep)
    parts = _by_method(predicted)
    adata = get_modality(observed, mod)
    obs = get_obs(observed, mod, [*design.columns, split_col])
    conditions, of_cell, _ = read_conditions(design, obs)
    split = read_split(obs[split_col], of_cell) if split_col else np.full(adata.n_obs, "test")
    features = get_matrix(adata, layer)
    least = check_finite(features, "observed.X" if layer is None else f"observed.layers[{layer!r}]")
    populations = {method: _read_populations(design, adata, *part) for method, part in parts.items()}
    everything = list(dict.fromkeys([*conditions, *chain.from_iterable(populations.values())]))
    observations = Observations(everything, of_cell, split, features, bool(least.min() >= 0), adata.obs_names)
    methods = {method: _make_method(observations, population) for method, population in populations.items()}
    table = join_encodings(encoding, adata.uns)
    scores = score_conditions(
        observations,
        methods,
        {} if table is None else dict(zip(table.index, table.to_numpy(), strict=True)),
        split="test",
        metrics=names,
        most_cells=most_cells,
        n_predicted=_fewest(observations, populations),
        seed=seed,
    )
    check_any(scores, list(methods), "test", ADVICE)
    if split_col and not (split == "train").any():
        warnings.warn(
            f"No cells are 'train' in {split_col!r}, so most baselines have no prediction, and scores are against the "
            "identity alone.",
            stacklevel=2,
        )
    trained = [c for i, c in enumerate(conditions) if not c.is_control and len(observations.rows(i, "train"))]
    known = {name for condition in everything for name, _ in condition.members}
    tiers = support_tiers(trained, known, everything) if trained else []
    result = with_support(scores, observations, tiers)
    return result[result["method"].isin([*methods, *others, "ceiling"])].reset_index(drop=True)


def _by_method(predicted: AnnData | Mapping[str, AnnData]) -> dict[str, tuple[AnnData, str]]:
    """Method -> its predictions, and what messages call them."""
    parts = (
        {method: (part, f"predicted[{method!r}]") for method, part in predicted.items()}
        if isinstance(predicted, Mapping)
        else {"prediction": (predicted, "predicted")}
    )
    for part in parts.values():
        check_predicted(*part)
    if not parts:
        raise ValueError("predicted is empty. Pass at least one AnnData of predicted cells.")
    if others := [method for method in parts if not isinstance(method, str)]:
        raise TypeError(f"The method {others[0]!r} is {kind_of(others[0])}. Pass names of methods as strings.")
    if taken := sorted(set(parts) & TAKEN):
        raise ValueError(f"{listed(taken)} are names of baselines. Call the methods otherwise.")
    return parts


def _read_populations(design: Design, adata: AnnData, predicted: AnnData, name: str) -> dict[Condition, Matrix]:
    """Predicted cells (n, n_features) of each condition, features in the order of the observed ones."""
    features = same_features(adata, predicted, name)
    conditions, of_cell = predicted_conditions(design, predicted, name)
    perturbed = {i: condition for i, condition in enumerate(conditions) if not condition.is_control}
    order = random_order(predicted.obs_names)
    rows = order[np.isin(of_cell[order], list(perturbed))]
    cells = read_cells(predicted, None, rows, name)[:, features]
    return {condition: cells[of_cell[rows] == i] for i, condition in perturbed.items()}


def _fewest(observations: Observations, populations: Mapping[str, Mapping[Condition, Matrix]]) -> dict[int, int]:
    """Position of each condition that was predicted -> cells of the method that has the fewest of it."""
    sizes = {
        i: [cells[condition].shape[0] for cells in populations.values() if condition in cells]
        for i, condition in enumerate(observations.conditions)
    }
    return {i: min(several) for i, several in sizes.items() if several}


def _make_method(observations: Observations, populations: Mapping[Condition, Matrix]) -> Method:
    """Predicted cells as a method of `score_conditions`: drawn without replacement."""

    def drawn(i: int, source: np.ndarray, generator: np.random.Generator) -> Prediction:
        condition = observations.conditions[i]
        if condition not in populations:
            return "not predicted"
        cells = populations[condition]
        return to_dense(cells[generator.permutation(cells.shape[0])[: len(source)]])

    return drawn
