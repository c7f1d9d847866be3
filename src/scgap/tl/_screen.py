"""Predict many conditions at once, as an AnnData."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from scgap._adata import Data, get_modality, get_obs, to_dense
from scgap._conditions import condition_label, parse_condition
from scgap._encoding import encode_conditions
from scgap._model import TransportModel, get_model
from scgap._moving import move_cells, select_source
from scgap._query import Query, contexts, read_query, trained_conditions
from scgap._representation import decode, encode, feature_order, read_matrix
from scgap._support import TIERS, support_tiers
from scgap.tl._arguments import whole_number


def screen(
    data: Data,
    conditions: Sequence[Query] | pd.DataFrame | None = None,
    *,
    source: Sequence[str] | np.ndarray | pd.Series | None = None,
    n_cells: int | None = None,
    decoded: bool = True,
    aliases: Mapping[str, str] | None = None,
    key: str = "scgap",
    mod: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> AnnData:
    """Predict many conditions from the same source cells: a virtual screen.

    Parameters
    ----------
    data
        The object that was fitted, or another one with ``uns[key]`` and the same features.
    conditions
        Queries as `scgap.tl.predict` takes them, or a table with one row each; what one leaves open is expanded to all
        that it can mean. Default: all measured conditions.
    source
        Cells to move, a boolean mask or a list of obs names. Default: all control cells.
    n_cells
        Source cells of each group, drawn at random. Default: all.
    decoded
        Whether ``X`` holds features. If not, it holds the points of the embedding, which take less memory:
        ``n_conditions x n_cells x n_components`` numbers of 4 bytes.
    aliases
        Other names of perturbations and groups: from alias to name.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData.
    seed
        Of the draw of ``n_cells``.
    progress
        Whether to show a progress bar.

    Returns
    -------
    AnnData with one row for each source cell under each condition of its group. ``obs`` holds the columns of the fit,
    ``condition_label``, ``source_cell`` (its name) and ``support`` (as in `scgap.tl.resolve`); ``X`` the prediction,
    float32; ``obsm["X_scgap"]`` the point of the embedding, where there is one.

    Raises
    ------
    KeyError, ValueError
        As `scgap.tl.predict`; no condition is of a group that source cells are of.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[10.0, 100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> screened = scgap.tl.screen(adata, [{"perturbation": "drug_1"}], n_cells=20, progress=False)
    >>> screened.obs["condition_label"].value_counts().to_dict()
    {'drug_1 10': 20, 'drug_1 100': 20}
    """
    adata = get_modality(data, mod)
    model = get_model(data, mod, key)
    n_cells = None if n_cells is None else whole_number("n_cells", n_cells, 1)
    queries = _queries(model, conditions, aliases)
    design = model.design
    obs = get_obs(data, mod, design.columns if source is None else design.group_cols)
    chosen = _draw(obs[list(design.group_cols)], select_source(model, adata, obs, {}, source), n_cells, seed)
    blocks = _blocks(design.group_cols, obs, chosen, queries)
    parsed = [parse_condition(design, full) for full, _ in blocks]
    encode_conditions(model.encoding, parsed)  # refuses what has no vector, before the work

    representation, matrix = model.representation, read_matrix(model.representation, adata)
    order = feature_order(representation, adata, model.var_names)
    cells = to_dense(matrix[chosen][:, order])
    points = encode(representation, cells)
    position = np.full(adata.n_obs, -1)
    position[chosen] = np.arange(len(chosen))
    stops = np.cumsum([0, *(len(rows) for _, rows in blocks)])
    latent = np.empty((stops[-1], points.shape[1]), np.float32)
    direct = representation.kind != "pca"
    features = latent if direct or not decoded else np.empty((stops[-1], cells.shape[1]), np.float32)
    bar = tqdm(blocks, desc="screen", disable=not progress)
    for (full, rows), start, stop in zip(bar, stops[:-1], stops[1:], strict=True):
        which = position[rows]
        latent[start:stop] = move_cells(model, points[which], obs.iloc[rows], full)
        if features is not latent or direct:
            features[start:stop] = decode(representation, cells[which], points[which], latent[start:stop])
    return _collect(model, adata, blocks, latent, features, named=decoded and representation.kind != "obsm")


def _queries(
    model: TransportModel, conditions: Sequence[Query] | pd.DataFrame | None, aliases: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """Full conditions but for the groups that they leave open, each once."""
    if conditions is None:
        conditions = model.conditions
    if isinstance(conditions, str | Mapping):
        raise TypeError("conditions is a single query. Pass a list of queries, or a table with one row each.")
    rows = [row for _, row in conditions.iterrows()] if isinstance(conditions, pd.DataFrame) else conditions
    full = [query for row in rows for query in contexts(model, read_query(model, row, aliases))]
    return [query for i, query in enumerate(full) if query not in full[:i]]


def _draw(groups: pd.DataFrame, cells: np.ndarray, n_cells: int | None, seed: int) -> np.ndarray:
    """Rows of at most ``n_cells`` of the chosen cells (n_obs,) of each group."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(cells))
    if n_cells is not None:
        columns = list(groups.columns)
        of_group = groups.iloc[rows].astype(str).groupby(columns).ngroup() if columns else np.zeros(len(rows))
        rank = pd.Series(np.asarray(of_group)).groupby(np.asarray(of_group)).cumcount().to_numpy()
        rows = rows[rank < n_cells]
    return np.sort(rows)


def _blocks(
    group_cols: Sequence[str], obs: pd.DataFrame, chosen: np.ndarray, queries: Sequence[Mapping[str, Any]]
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Each full condition with the rows of the source cells that are moved to it, those of its group."""
    columns = list(group_cols)
    groups = obs.iloc[chosen][columns].astype(str)
    indices = groups.groupby(columns).indices if columns else {(): np.arange(len(chosen))}
    blocks = []
    for query in queries:
        for key, which in indices.items():
            group = dict(zip(columns, key if isinstance(key, tuple) else (key,), strict=True))
            if all(query.get(column, value) == value for column, value in group.items()):
                blocks.append(({**query, **group}, chosen[which]))
    if not blocks:
        raise ValueError("No source cells are of a group that the conditions name. Pass other conditions or source.")
    return blocks


def _collect(
    model: TransportModel,
    adata: AnnData,
    blocks: Sequence[tuple[Mapping[str, Any], np.ndarray]],
    latent: np.ndarray,
    features: np.ndarray,
    *,
    named: bool,
) -> AnnData:
    """Predictions with their conditions, as an AnnData."""
    design = model.design
    conditions = [parse_condition(design, full) for full, _ in blocks]
    support = support_tiers(trained_conditions(model), model.encoding, conditions)
    sizes = [len(rows) for _, rows in blocks]
    table = pd.DataFrame([full for full, _ in blocks], columns=design.columns).map(_text)
    table.insert(0, "condition_label", [condition_label(condition) for condition in conditions])
    obs = table.astype({column: "category" for column in table if table[column].dtype == object})
    obs["support"] = pd.Categorical(support, TIERS, ordered=True)
    obs = obs.loc[obs.index.repeat(sizes)]
    rows = np.concatenate([rows for _, rows in blocks])
    obs["source_cell"] = pd.Categorical.from_codes(rows, adata.obs_names)
    obs.index = pd.RangeIndex(len(obs)).astype(str)
    result = AnnData(features, obs=obs)
    if named:
        result.var_names = [str(name) for name in model.var_names]
    if features is not latent:
        result.obsm["X_scgap"] = latent
    return result


def _text(value: Any) -> Any:
    """Lists of names or doses as text, which is what a column holds."""
    return " + ".join(map(str, value)) if isinstance(value, list) else value
