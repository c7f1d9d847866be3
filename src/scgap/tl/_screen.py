"""Predict many conditions at once, as an AnnData."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from scgap._adata import Data, Modality, check_unique, get_modality, get_obs, random_order, to_dense
from scgap._checks import whole_number
from scgap._conditions import (
    Condition,
    Design,
    condition_label,
    exact_records,
    group_texts,
    parse_condition,
    plain,
    records,
)
from scgap._encoding import encode_conditions
from scgap._joint import one_object
from scgap._meanings import contexts, trained_conditions
from scgap._messages import kind_of, listed
from scgap._model import TransportModel, get_model
from scgap._moving import make_mover, move_cells, select_source, warn_of_new_groups
from scgap._query import Query, read_query
from scgap._representation import decode, encode, feature_order, read_matrix
from scgap._support import TIERS, support_tiers

type Blocks = dict[Condition, tuple[dict[str, Any], np.ndarray]]
"""Full conditions as they are written, with the rows of the source cells that are moved to them."""


def screen(
    data: Data,
    conditions: Sequence[Query] | pd.DataFrame | None = None,
    *,
    source: Sequence[str] | np.ndarray | pd.Series | None = None,
    n_cells: int | None = None,
    decoded: bool = True,
    aliases: Mapping[str, str] | None = None,
    key: str = "scgap",
    mod: Modality = None,
    seed: int = 0,
    progress: bool = True,
) -> AnnData:
    """Predict many conditions from the same source cells: a virtual screen.

    Parameters
    ----------
    data
        The object that was fitted, or another one with ``uns[key]`` and the same features.
    conditions
        Queries as `scgap.tl.predict` takes them, or a table with one row each, such as that of `scgap.tl.resolve`; what
        one leaves open is expanded to all that it can mean, in all groups of the source cells. Default: all measured
        conditions of these groups.
    source
        Cells to move, a boolean mask or a list of obs names. Default: all control cells.
    n_cells
        Source cells of each group, drawn at random. Default: all.
    decoded
        Whether ``X`` holds features. If not, it holds the points of the embedding that was fitted, which take less
        memory: 4 bytes for each row and component.
    aliases
        Other names of perturbations and groups: from alias to name.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    seed
        Of the draw of ``n_cells``.
    progress
        Whether to show a progress bar.

    Returns
    -------
    AnnData with one row for each source cell under each condition of its group. ``obs`` holds the columns of the fit,
    ``condition_label``, ``source_cell`` (its name), ``support`` (as in `scgap.tl.resolve`) and ``expected_error``: the
    energy distance, in the fitted space, at which left-out conditions of the same support were predicted, or for seen
    ones the best validation score; NaN where fewer than three were left out, see ``condition_folds`` of
    `scgap.tl.fit_transport`. Of several maps, see ``n_maps`` there, also ``spread``: how far these, and groups that
    stand in for one that was not trained on, disagree on the cell, in the fitted space. ``X`` is the prediction,
    float32; ``obsm["X_scgap"]`` the points of the embedding that ``X`` was decoded from.

    Raises
    ------
    KeyError, TypeError, ValueError
        As `scgap.tl.predict`; a condition is of a group that no source cells are of.

    Warns
    -----
    UserWarning
        As `scgap.tl.predict`; by default, conditions without a vector are left out.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[10.0, 100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> screened = scgap.tl.screen(adata, [{"perturbation": "drug_1"}], n_cells=20, progress=False)
    >>> screened.obs["condition_label"].value_counts().to_dict()
    {'drug_1 10': 20, 'drug_1 100': 20}
    """
    data, mod = one_object(data, mod)
    adata = get_modality(data, mod)
    check_unique(adata.var_names, "adata")
    model = get_model(data, mod, key)
    design, representation = model.design, model.representation
    n_cells = None if n_cells is None else whole_number("n_cells", n_cells, 1)
    seed = whole_number("seed", seed, 0)
    queries = _measured(model) if conditions is None else _queries(model, conditions, aliases)
    obs = get_obs(data, mod, design.columns if source is None else design.group_cols)
    groups = group_texts(obs[list(design.group_cols)])
    chosen = _draw(groups, select_source(model, adata, obs, {}, source), n_cells, seed)
    blocks = _blocks(design, groups, chosen, queries, strict=conditions is not None)
    encode_conditions(model.encoding, list(blocks))  # refuses what has no vector, before the work
    warn_of_new_groups(model, groups.iloc[np.unique(np.concatenate([rows for _, rows in blocks.values()]))])
    if decoded and representation.kind == "obsm":
        warnings.warn(
            f"{representation.use_rep!r} has no decoder: X is in its space. Pass decoded=False if that is meant.",
            stacklevel=2,
        )

    matrix = read_matrix(representation, adata)
    cells = to_dense(matrix[chosen][:, feature_order(representation, adata, model.var_names)])
    points = encode(representation, cells)
    position = np.full(adata.n_obs, -1)
    position[chosen] = np.arange(len(chosen))
    stops = np.cumsum([0, *(len(rows) for _, rows in blocks.values())])
    latent, spread = np.empty((stops[-1], points.shape[1]), np.float32), np.empty(stops[-1], np.float32)
    mover = make_mover(model)
    has_two = decoded and representation.kind in ("pca", "autoencoder")  # else X is what the map moves
    X = np.empty((stops[-1], cells.shape[1]), np.float32) if has_two else latent
    bar = tqdm(blocks.values(), desc="screen", disable=not progress)
    for (full, rows), start, stop in zip(bar, stops[:-1], stops[1:], strict=True):
        which = position[rows]
        moved = move_cells(mover, points[which], groups.iloc[rows], full)
        latent[start:stop], spread[start:stop] = moved
        if has_two or representation.kind == "features":
            X[start:stop] = decode(representation, cells[which], points[which], latent[start:stop])
    result = AnnData(X, obs=_describe(model, adata, blocks))
    if model.others:
        result.obs["spread"] = spread
    if has_two or representation.kind == "features":
        result.var_names = [str(name) for name in model.var_names]
    if has_two:
        result.obsm["X_scgap"] = latent
    return result


def _measured(model: TransportModel) -> list[dict[str, Any]]:
    """All measured conditions that have vectors."""
    rows = [{column: plain(row[column]) for column in model.design.columns} for row in records(model.conditions)]
    known = set(model.encoding.perturbations)
    parsed = [parse_condition(model.design, row) for row in rows]
    without = [not known.issuperset(name for name, _ in condition.members) for condition in parsed]
    if any(without):
        labels = [condition_label(condition) for condition, lacks in zip(parsed, without, strict=True) if lacks]
        warnings.warn(
            f"No vector for a perturbation of {listed(labels)}: left out. Fit with encoding=, a table that holds a row "
            "for it too.",
            stacklevel=3,
        )
    return [row for row, lacks in zip(rows, without, strict=True) if not lacks]


def _queries(
    model: TransportModel, conditions: Sequence[Query] | pd.DataFrame, aliases: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """Full conditions but for the groups that they leave open."""
    if isinstance(conditions, str | Mapping | pd.Series):
        raise TypeError("conditions is a single query. Pass a list of queries, or a table with one row each.")
    if not isinstance(conditions, Iterable) or getattr(conditions, "ndim", 1) == 0:
        raise TypeError(f"conditions is {kind_of(conditions)}. Pass a list of queries, or a table with one row each.")
    if isinstance(conditions, pd.DataFrame):
        conditions = [pd.Series(row, dtype=object) for row in exact_records(conditions)]
    found = [full for query in conditions for full in contexts(model, read_query(model, query, aliases))]
    if not found:
        raise ValueError("conditions is empty. Pass queries, or leave it out for all measured conditions.")
    return found


def _draw(groups: pd.DataFrame, cells: np.ndarray, n_cells: int | None, seed: int) -> np.ndarray:
    """Rows, in order, of at most ``n_cells`` of the chosen cells (n_obs,) of each group (n_obs rows)."""
    order = random_order(groups.index)
    rows = np.random.default_rng(seed).permutation(order[cells[order]])
    if n_cells is not None:
        columns = list(groups.columns)
        if columns:
            rows = rows[groups.iloc[rows].groupby(columns).cumcount().to_numpy() < n_cells]
        rows = rows[:n_cells] if not columns else rows
    return np.sort(rows)


def _blocks(
    design: Design, groups: pd.DataFrame, chosen: np.ndarray, queries: Sequence[Mapping[str, Any]], *, strict: bool
) -> Blocks:
    """Each full condition, once, with the rows of the chosen source cells that are of its group.

    ``strict`` refuses conditions of groups that no source cells are of; else they are left out.
    """
    columns = list(design.group_cols)
    rows_of = groups.iloc[chosen].groupby(columns).indices if columns else {(): np.arange(len(chosen))}
    blocks: Blocks = {}
    for query in queries:
        found = False
        for values, which in rows_of.items():
            group = dict(zip(columns, values if isinstance(values, tuple) else (values,), strict=True))
            if all(query.get(column, value) == value for column, value in group.items()):
                full, found = {**query, **group}, True
                blocks.setdefault(parse_condition(design, full), (full, chosen[which]))
        if strict and not found:
            _refuse_group(columns, query, rows_of)
    if not blocks:
        raise ValueError("No source cells are of a group that was measured. Pass conditions, or other cells as source.")
    return blocks


def _refuse_group(columns: Sequence[str], query: Mapping[str, Any], rows_of: Iterable[Any]) -> None:
    asked = [str(query[column]) for column in columns if column in query]
    found = [", ".join(values) if isinstance(values, tuple) else values for values in rows_of]
    raise ValueError(
        f"conditions name the group {listed(asked)}, and no source cells are of it; those to move are of "
        f"{listed(found)}. Leave the group out, or pass cells of it as source."
    )


def _describe(model: TransportModel, adata: AnnData, blocks: Blocks) -> pd.DataFrame:
    """The condition, the source cell and the support of each row."""
    conditions, rows = list(blocks), np.concatenate([rows for _, rows in blocks.values()])
    table = pd.DataFrame([full for full, _ in blocks.values()], columns=model.design.columns)
    table.insert(0, "condition_label", [condition_label(condition) for condition in conditions])
    support = support_tiers(list(trained_conditions(model)), model.encoding.perturbations, conditions)
    obs = table.apply(_categories).assign(support=pd.Categorical(support, TIERS, ordered=True))
    obs["support"] = obs["support"].cat.remove_unused_categories()  # each would stand in a plot's legend
    obs["expected_error"] = [model.expected_error(tier) for tier in support]
    obs = obs.loc[obs.index.repeat([len(rows) for _, rows in blocks.values()])]
    obs["source_cell"] = pd.Categorical(adata.obs_names[rows])
    return obs.set_axis(pd.RangeIndex(len(obs)).astype(str))


def _categories(column: pd.Series) -> pd.Series:
    """Numbers as they are; all else as categories of text, which every AnnData writer takes."""
    if pd.api.types.is_numeric_dtype(column):
        return column
    text = [" + ".join(map(str, value)) if isinstance(value, list) else value for value in column]
    return pd.Series([None if pd.isna(value) else str(value) for value in text], column.index).astype("category")
