"""Judge predictions of any tool, by the same code as scgap's own."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._adata import Data, check_finite, get_matrix, get_modality, get_obs, to_dense
from scgap._baselines import BASELINES
from scgap._checks import whole_number
from scgap._comparison import METRICS
from scgap._conditions import Condition, Design, make_design, read_conditions
from scgap._descriptors import EncodingArgument, join_encodings
from scgap._messages import kind_of, listed
from scgap._scoring import Method, Observations, Prediction, score_conditions
from scgap._splits import read_split
from scgap._support import support_tiers
from scgap.tl._evaluate import check_any, chosen_names, with_support


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

    Raises
    ------
    KeyError
        A column is missing, or a metric or baseline unknown.
    ValueError
        Features differ, values are not finite, no condition can be compared, or methods are called like baselines.

    Warns
    -----
    UserWarning
        Some conditions have no scores.

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
    names = chosen_names(metrics, list(METRICS), "metrics")
    others = chosen_names(baselines, list(BASELINES), "baselines")
    most_cells = whole_number("n_cells", n_cells, 4)
    design = make_design(target_col, reference_key, dose_col, group_col, time_col, sep)
    parts = _by_method(predicted)
    adata = get_modality(observed, mod)
    obs = get_obs(observed, mod, [*design.columns, split_col])
    conditions, of_cell, _ = read_conditions(design, obs)
    split = read_split(obs[split_col], of_cell) if split_col else np.full(adata.n_obs, "test")
    features = get_matrix(adata, layer)
    check_finite(features, "adata.X" if layer is None else f"adata.layers[{layer!r}]")

    rows_of = {method: _read_predictions(design, part, method) for method, part in parts.items()}
    asked = {condition for rows in rows_of.values() for condition in rows}
    observations = Observations(
        [*conditions, *sorted(asked - set(conditions))], of_cell, split, features, bool(features.min() >= 0)
    )
    n_predicted = {
        i: min(len(rows[condition]) for rows in rows_of.values() if condition in rows)
        for i, condition in enumerate(observations.conditions)
        if condition in asked
    }
    methods = {
        method: _make_method(observations, _read_features(parts[method], adata.var_names, method), rows)
        for method, rows in rows_of.items()
    }
    table = join_encodings(encoding, adata.uns)
    descriptors = {} if table is None else dict(zip(table.index, table.to_numpy(), strict=True))
    trained = [c for i, c in enumerate(conditions) if not c.is_control and len(observations.rows(i, "train"))]
    scores = score_conditions(
        observations,
        methods,
        descriptors,
        split="test",
        metrics=names,
        most_cells=most_cells,
        n_predicted=n_predicted,
        seed=seed,
    )
    for method in methods:
        check_any(scores, method, "test")
    everything = {name for condition in observations.conditions for name, _ in condition.members}
    tiers = support_tiers(trained, everything, observations.conditions) if trained else []
    result = with_support(scores, observations, tiers)
    return result[result["method"].isin([*methods, *others, "ceiling"])].reset_index(drop=True)


def _by_method(predicted: AnnData | Mapping[str, AnnData]) -> dict[str, AnnData]:
    parts = dict(predicted) if isinstance(predicted, Mapping) else {"prediction": predicted}
    for name, part in parts.items():
        if not isinstance(part, AnnData):
            raise TypeError(
                f"The prediction {name!r} is {kind_of(part)}. Pass an AnnData of predicted cells, or a dictionary of "
                "such objects by method."
            )
    if taken := sorted(set(parts) & {*BASELINES, "ceiling"}):
        raise ValueError(f"{listed(taken)} are names of baselines. Call the methods otherwise.")
    if not parts:
        raise ValueError("predicted is empty. Pass at least one AnnData of predicted cells.")
    return parts


def _read_predictions(design: Design, part: AnnData, method: str) -> dict[Condition, np.ndarray]:
    """Rows of the predicted cells of each condition."""
    obs = get_obs(part, None, design.columns, hint=f" It has to be in the prediction {method!r}, too.")
    conditions, of_cell, _ = read_conditions(design, obs, need_controls=False)
    return {c: np.flatnonzero(of_cell == i) for i, c in enumerate(conditions) if not c.is_control}


def _read_features(part: AnnData, var_names: pd.Index, method: str) -> np.ndarray:
    """Predicted features (n, n_features) in the order of the observed ones."""
    missing, unknown = var_names.difference(part.var_names), part.var_names.difference(var_names)
    if len(missing) or len(unknown):
        raise ValueError(
            f"The prediction {method!r} lacks {len(missing)} of the {len(var_names)} observed features "
            f"({listed(missing)}) and has {len(unknown)} others ({listed(unknown)}). Both sides need the same "
            "features: select those they share."
        )
    matrix = get_matrix(part, None)
    check_finite(matrix, f"X of the prediction {method!r}")
    return to_dense(matrix)[:, part.var_names.get_indexer(var_names)]


def _make_method(observations: Observations, features: np.ndarray, rows: Mapping[Condition, np.ndarray]) -> Method:
    """Predicted cells as a method of `score_conditions`: drawn without replacement."""

    def drawn(i: int, source: np.ndarray, generator: np.random.Generator) -> Prediction:
        condition = observations.conditions[i]
        if condition not in rows:
            return "not predicted"
        return features[generator.permutation(rows[condition])[: len(source)]]

    return drawn
