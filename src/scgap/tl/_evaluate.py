"""Judge a fitted map on held-out cells, beside what it has to beat."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from scgap._adata import Data, Modality, get_modality, get_obs, take_features, to_dense
from scgap._baselines import BASELINES, PERMUTED, TAKEN
from scgap._checks import chosen_names, text, whole_number
from scgap._comparison import METRICS
from scgap._conditions import condition_label, read_conditions
from scgap._encoding import descriptors_of
from scgap._joint import check_parts, one_object
from scgap._meanings import trained_conditions
from scgap._messages import listed, not_found
from scgap._model import TransportModel, get_model, get_uns, indexed
from scgap._moving import Mover, make_mover, move_cells
from scgap._representation import decode, encode, feature_order, read_matrix, reconstruct
from scgap._scoring import Observations, Prediction, score_conditions
from scgap._splits import SPLITS
from scgap._support import TIERS, support_tiers

NO_VECTOR = "no vector for a perturbation"
ADVICE = (
    "Hold out more cells with scgap.pp.split, pass another split=, or, for want of vectors, fit with encoding=, a "
    "table that holds a row for every perturbation."
)


def evaluate(
    data: Data,
    *,
    key: str = "scgap",
    split: str = "test",
    metrics: str | Sequence[str] | None = None,
    baselines: str | Sequence[str] | None = None,
    mod: Modality = None,
    n_cells: int = 2_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a map on the cells of one split, beside baselines and the ceiling that a replicate reaches.

    Predicted are the control cells of the split, in features of the fitted layer (not in the image of a
    representation); observed are the condition's cells of the split; both sides have equally many.

    Parameters
    ----------
    data
        The object that was fitted, or another one with ``uns[key]``, its own controls and the split's column; without
        training cells most baselines have no prediction.
    key
        Where the fitted map is in ``uns``.
    split
        Which cells to judge by: ``"test"``, ``"valid"`` or ``"train"`` of the column given to the fit as ``split_col``.
    metrics
        Which metrics to compute, see Notes; default all.
    baselines
        Which baselines to show, see Notes; default all. Leaving one out leaves its rows out and changes no number:
        scores are against the best of all.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    n_cells
        Most cells of a condition that are compared.
    seed
        Decides which cells are compared.

    Returns
    -------
    Table with one row for each condition, method and metric: ``condition``, ``split``, ``support`` (how far it is from
    what was trained on, see `scgap.tl.resolve`), ``method`` (``key``, the baselines, ``permuted_conditions``: the map
    asked for another condition of the group, and ``ceiling``: one half of the observed cells as prediction of the
    other), ``metric``, ``value``, ``n_cells`` (predicted cells, and as many observed ones, in one comparison: half of
    those used, for ``value`` is the mean over two halves), ``baseline`` (the best baseline's value), ``reconstruction``
    (what the fitted representation keeps of the ceiling's cells in place of these: how much of an error is its own; the
    ceiling where features are fitted as they are, NaN in an embedding without decoder), ``ceiling``, ``score =
    (baseline - value) / (baseline - ceiling)``, ``reason`` (why there is no value). Rows of the map have
    ``expected_error``, what `scgap.tl.screen` says of a condition without looking at its cells, and of several maps
    (``n_maps`` of the fit) ``spread``, how far they disagree on a cell on average, both in the fitted space. In scores
    0 is the best simple baseline and 1 a replicate. They are not clipped; they are NaN where the best of the baselines
    is, by chance or in fact, as good as a replicate and there is nothing to gain: `scgap.tl.summarize_scores` averages
    over conditions first. A replicate is as few cells as are compared: where these are few, it predicts a mean worse
    than many training cells do, and more cells have to be held out. Also stored as ``uns[key]["scores"]``.

    Raises
    ------
    KeyError
        No map under ``key``, an unknown metric or baseline, or no condition whose perturbations have a vector.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        The fit had no ``split_col``, no condition has enough cells in the split, ``data`` is a view, or ``key`` is
        called like a baseline.

    Warns
    -----
    UserWarning
        Conditions have no values for want of a vector or of cells, or there are no training cells for baselines.

    Notes
    -----
    Metrics. Of distributions: ``energy_distance``, ``mmd``, ``sinkhorn_divergence`` (at 5 % of the mean distance
    between cells) and ``smooth_sinkhorn_divergence`` (at 50 %), all unbiased, so that a perfect sampler scores 0 on
    average; ``classifier_auc`` and ``classifier_p_value`` of a two-sample test (0.5: a classifier cannot tell them
    apart). Feature by feature: ``wasserstein``, ``mean_error``, ``std_error``, ``skewness_error``, ``kurtosis_error``,
    ``zero_fraction_error``. Of pairs of features: ``correlation_error``, of the 500 that vary most in the observed
    cells; constant ones have no correlations. ``variance_ratio``: 1 is right. Of means,
    blind to collapsed predictions, for comparison with the literature: ``r2``, ``r2_delta`` and ``pearson_delta``
    (effects against control), ``r2_delta_perturbed`` and ``pearson_delta_perturbed`` (against the mean of training
    conditions), ``weighted_mse`` (by differential expression among training cells), ``centroid_accuracy`` (the share of
    other conditions of the group whose mean is farther from the prediction's). Of the map: ``monge_gap``, how much
    farther it moves its cells than needed. Of ``r2``, ``pearson``, accuracy and p-value higher is better.

    Of several modalities, features are compared in the units in which they were fitted, of which the training controls
    have a total variance of 1 in each modality.

    Baselines. ``identity``: control cells. ``training_cells``: cells of all training conditions. ``average_shift``:
    control moved by the mean effect of all training conditions. ``mean_shift``: by that of the condition itself, or, if
    it was not trained, of its group. ``additive``: by the sum of the effects of the parts of a combination.
    ``gaussian``: the optimal transport map between Gaussians of the same means and covariances. ``nearest``: cells of
    the nearest training conditions. ``ridge``: control moved by a ridge regression from the encoding to the effect.
    They know the training cells alone.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(750, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.pp.split(adata, dose_col="dose_value")
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", split_col="split", n_iters=10, progress=False)
    >>> table = scgap.tl.evaluate(adata, metrics=["energy_distance"], baselines=["identity", "gaussian"])
    >>> table["method"].unique().tolist()
    ['scgap', 'identity', 'gaussian', 'ceiling']
    """
    names = chosen_metrics(metrics)
    others = chosen_names(baselines, [*BASELINES, PERMUTED], "baselines")
    most_cells, seed = whole_number("n_cells", n_cells, 4), whole_number("seed", seed, 0)
    if text("key", key) in TAKEN:
        raise ValueError(
            f"key={key!r} is the name of a baseline, and rows of the two could not be told apart. Fit with another "
            "key_added."
        )
    whole, mods = data, mod
    data, mod = one_object(data, mod)
    check_parts(whole, mods, copy=False)
    model = get_model(data, mod, key)
    observations, obs, written = _read(data, mod, model, split)
    spreads: dict[int, float] = {}
    mover = make_mover(model)
    mapped = _make_method(mover, observations, obs, written, spreads)
    asked = _make_method(mover, observations, obs, written)  # for another condition, whose spread is not of this one

    def permuted(i: int, rows: np.ndarray, generator: np.random.Generator) -> Prediction:
        group = observations.conditions[i].group
        candidates = [
            j
            for j, c in enumerate(observations.conditions)
            if j != i and not c.is_control and c.group == group and _has_vector(model, c.members)
        ]
        return asked(int(generator.choice(candidates)), rows, generator) if candidates else "no other condition"

    table = score_conditions(
        observations,
        {key: mapped, PERMUTED: permuted},
        descriptors_of(model.encoding),
        split=split,
        metrics=names,
        most_cells=most_cells,
        reconstruct=None if model.representation.kind == "obsm" else partial(reconstruct, model.representation),
        seed=seed,
    )
    check_any(table, [key], split, ADVICE)
    if not (observations.split == "train").any():
        warnings.warn(
            "There are no training cells, so most baselines have no prediction, and scores are against the identity "
            "alone. Pass the object that was fitted.",
            stacklevel=2,
        )
    known = model.encoding.perturbations
    tiers = support_tiers(list(trained_conditions(model)), known, observations.conditions)
    result = with_support(table, observations, tiers)
    of_map = result["method"] == key
    result["expected_error"] = result["support"].astype(str).map(model.expected_error).where(of_map)
    if model.others:
        of_label = {condition_label(observations.conditions[i]): spread for i, spread in spreads.items()}
        result["spread"] = result["condition"].map(of_label).where(of_map)
    result = result[result["method"].isin([key, *others, "ceiling"])].reset_index(drop=True)
    # Written anew, for another object may share the dictionary.
    uns = get_uns(whole, mods)
    uns[key] = {**uns[key], "scores": indexed(result)}
    return result


def chosen_metrics(metrics: str | Sequence[str] | None) -> list[str]:
    """Names of metrics to compute, one at least."""
    names = chosen_names(metrics, list(METRICS), "metrics")
    if not names:
        raise ValueError(f"metrics is empty. Pass some of {listed(METRICS)}, or leave it out for all.")
    return names


def check_any(table: pd.DataFrame, methods: Sequence[str], split: str, advice: str) -> None:
    """Refuse a table without any value of one of the methods, and warn of conditions without one."""
    found = []
    for method in methods:
        first = table[table["method"] == method].drop_duplicates("condition").set_index("condition")
        if first.empty:
            raise ValueError(f"No perturbed cells with split {split!r}, so there is nothing to judge by. {advice}")
        reasons = first.loc[~first["judged"].astype(bool), "reason"]
        why = "; ".join(f"{reason}: {listed(group.index)}" for reason, group in reasons.groupby(reasons))
        if len(reasons) == len(first):
            error = KeyError if (reasons == NO_VECTOR).any() else ValueError
            raise error(f"No condition has scores of {method!r} ({why}). {advice}")
        if why:
            found.append(f"{len(reasons)} of {len(first)} conditions have no scores of {method!r} ({why}).")
    for message in found:  # once it is known that nothing is refused
        warnings.warn(message, stacklevel=3)


def with_support(table: pd.DataFrame, observations: Observations, tiers: Sequence[str]) -> pd.DataFrame:
    """The table with a column of the tier of each row's condition, beside its split."""
    of_label = dict(zip(map(condition_label, observations.conditions), tiers, strict=False))  # none without training
    support = pd.Categorical(table["condition"].map(of_label), [tier for tier in TIERS if tier in set(tiers)])
    table = table.drop(columns="judged")
    table.insert(2, "support", pd.Series(support, table.index))
    return table


def _read(
    data: Data, mod: str | None, model: TransportModel, split: str
) -> tuple[Observations, pd.DataFrame, pd.DataFrame]:
    """The object's cells, its obs rows, and the obs rows in which conditions are written."""
    split_col = model.params["split_col"]
    if split_col is None:
        raise ValueError(
            "The map was fitted without split_col, so no cells were held out to judge it by. "
            "Call scgap.pp.split(adata, ...) and fit with split_col='split'."
        )
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(not_found(str(split), "the splits", SPLITS))
    adata = get_modality(data, mod)
    obs = get_obs(data, mod, [*model.design.columns, split_col])
    conditions, of_cell, written = read_conditions(model.design, obs)
    order = feature_order(model.representation, adata, model.var_names)
    features = take_features(read_matrix(model.representation, adata), order)
    units = _feature_units(model)
    features = features if units is None else to_dense(features) / units
    labels = obs[split_col].astype(str).to_numpy()
    nonnegative = bool(np.all(model.representation.nonnegative))
    return Observations(conditions, of_cell, labels, features, nonnegative, adata.obs_names), obs, written


def _make_method(
    mover: Mover,
    observations: Observations,
    obs: pd.DataFrame,
    written: pd.DataFrame,
    spreads: dict[int, float] | None = None,
) -> Any:
    """The map as a method of `score_conditions`, which notes the mean spread of each condition if it is asked to."""
    model = mover.model
    columns = [column for column in model.design.columns if column not in model.design.group_cols]
    in_units = _feature_units(model)
    units = np.ones(1, np.float32) if in_units is None else in_units

    def mapped(i: int, rows: np.ndarray, _: np.random.Generator) -> Prediction:
        if not _has_vector(model, observations.conditions[i].members):
            return NO_VECTOR
        cells = observations.cells(rows) * units
        points = encode(model.representation, cells)
        query = {column: written.loc[i, column] for column in columns}
        moved = move_cells(mover, points, obs.iloc[rows], query)
        if spreads is not None:
            spreads[i] = float(moved.spread.mean())
        return decode(model.representation, cells, points, moved.points) / units

    return mapped


def _feature_units(model: TransportModel) -> np.ndarray | None:
    """Of several modalities, the unit (n_vars,) of each feature's, in which none drowns the others."""
    units = model.params["units"]
    if not units:
        return None
    longest_first = sorted(units, key=len, reverse=True)  # for a modality may be called "rna:a"
    mods = [next(mod for mod in longest_first if name.startswith(f"{mod}:")) for name in model.var_names]
    return np.array([units[mod] for mod in mods], np.float32)


def _has_vector(model: TransportModel, members: Sequence[tuple[str, float | None]]) -> bool:
    return {name for name, _ in members} <= set(model.encoding.perturbations)
