"""Move cells to a condition."""

import json
import warnings
from collections.abc import Container, Mapping, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._adata import Data, Modality, check_key, get_modality, get_obs, random_order, to_dense
from scgap._checks import whole_number
from scgap._conditions import group_texts
from scgap._joint import check_parts, modalities, one_object, put_back
from scgap._meanings import check_unambiguous, contexts, label_of, measured_cells, shares
from scgap._messages import not_found
from scgap._model import TransportModel, get_model, get_predictions, get_uns
from scgap._moving import Mover, make_mover, move_cells, select_source, warn_of_new_groups
from scgap._query import Query, read_query
from scgap._representation import decode, encode, feature_order, read_matrix

WAYS = ("error", "expand", "marginal")
CHUNK = 16_384  # cells decoded at once: enough to be fast, and little beside an atlas


def predict(
    data: Data,
    condition: Query,
    *,
    source: Sequence[str] | np.ndarray | pd.Series | None = None,
    on_ambiguous: Literal["error", "expand", "marginal"] = "error",
    aliases: Mapping[str, str] | None = None,
    seed: int = 0,
    key: str = "scgap",
    mod: Modality = None,
    key_added: str | None = None,
    copy: bool = False,
) -> Data | None:
    """Move source cells to a condition with a fitted map, cell by cell.

    Parameters
    ----------
    data
        The object that was fitted, or another one with ``uns[key]`` and the same features in any order. Of one whose
        ``X`` is in a file the whole layer is in memory, dense: pass some cells, ``adata[mask].to_memory()``, where that
        is too much, or call `scgap.tl.screen`.
    condition
        What is done to the cells: a label of the perturbation (``"drug_1"``, with ``sep`` also ``"A+B"``), a text of
        parts (``"drug_1 1 uM, line_1"``), or a mapping from the columns of the fit to values, ``{"perturbation":
        "drug_1", "dose_value": 100}``. A set of perturbations can be given as a list. Doses and times need not have
        been measured. Group columns may be left out: every cell is moved in its own group. If they are given, only
        cells of that group are moved. `scgap.tl.resolve` shows what a condition is taken for.
    source
        Cells to move, a boolean mask or a list of obs names. Default: all control cells.
    on_ambiguous
        Where ``condition`` leaves a perturbation, dose or time open: ``"error"`` lists what it can mean, ``"expand"``
        predicts each, in ``name_1``, ``name_2``, … instead of ``name``, and ``"marginal"`` gives the mixture of the
        populations: each cell is moved to one of the conditions, drawn in proportion to their measured cells in its
        group.
    aliases
        Other names of perturbations and groups: from alias to name.
    seed
        Of the draws of ``"marginal"``.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    key_added
        Name of the result; default ``key``.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields, with ``name = key_added or key``:

    layers[name] : float32 array (n_obs, n_vars)
        Source cells as they become under the condition; all other rows as observed. On the scale of the fitted layer.
    obs[f"{name}_transported"] : bool
        Which rows were moved.
    obsm[f"X_{name}"] : float32 array (n_obs, n)
        Instead of the layer where the fitted embedding has no decoder.
    obs[f"{name}_condition"] : categorical
        With ``on_ambiguous="marginal"``, the condition each cell was moved to.
    uns[key]["predictions"][name] : str
        The condition, JSON.
    uns[key]["expanded"][name] : int
        With ``on_ambiguous="expand"``, how many predictions there are of this name. The next one drops those of them
        that it does not write over.

    Raises
    ------
    KeyError
        No map under ``key``; an unknown column; a perturbation without a vector.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        A dose or time is left open; ``source`` selects nothing, or cells without a group; there are no controls to
        move; features are missing or unknown; the place to write to holds the fitted data, or anything that is not a
        prediction.

    Warns
    -----
    UserWarning
        The embedding has no decoder; a group was not trained on, and each of its cells is moved by a mean over trained
        groups, the eight nearest at most, weighted by the inverse squared distance to the mean of their controls.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> scgap.tl.predict(adata, {"perturbation": "drug_1", "dose_value": 50.0})
    >>> adata.layers["scgap"].shape == adata.shape
    True
    """
    whole, mods = data, mod
    data, mod = one_object(data, mod)
    adata = get_modality(data, mod)
    check_parts(whole, mods, copy=copy)
    model = get_model(data, mod, key)
    name = check_key(key if key_added is None else key_added)
    seed = whole_number("seed", seed, 0)
    if not isinstance(on_ambiguous, str) or on_ambiguous not in WAYS:
        raise ValueError(not_found(str(on_ambiguous), "the ways of on_ambiguous", WAYS))
    query = read_query(model, condition, aliases)
    queries = contexts(model, query)
    if on_ambiguous == "error":
        check_unambiguous(model, query, queries)
    is_mixture = on_ambiguous == "marginal"
    names = [name] if len(queries) == 1 or is_mixture else [f"{name}_{i + 1}" for i in range(len(queries))]
    earlier = get_predictions(adata.uns, key)
    for one in names:
        for part in modalities(whole, mods):
            _check_free(part, model, earlier, one)
    obs = get_obs(data, mod, model.design.group_cols)
    if source is None:
        hint = " It tells which cells are controls: add it, or pass the cells to move as source=."
        obs = get_obs(data, mod, model.design.columns, hint=hint)
    cells = select_source(model, adata, obs, query, source)
    warn_of_new_groups(model, obs[cells])
    if is_mixture:
        drawn = _draw(model, obs[list(model.design.group_cols)], queries, seed)
        predictions = {name: (query, np.where(cells, drawn, -1))}
    else:
        predictions = {one: (queries[i], np.where(cells, i, -1)) for i, one in enumerate(names)}
    mover = make_mover(model)
    moved = {one: _move(mover, adata, which, obs, queries) for one, (_, which) in predictions.items()}

    result = whole.copy() if copy else whole
    uns = get_uns(result, mods)
    adata = get_modality(result, mod) if data is whole else adata
    # Written anew, for another object may share the dictionary.
    uns[key] = {**uns[key], **_without_stale(uns[key], earlier, modalities(result, mods), model, name, names)}
    for one, (meant, which) in predictions.items():
        for part in modalities(result, mods):
            _forget_mixture(part, one)
        _write(adata, model, one, moved.pop(one), cells)
        if is_mixture:
            labels = pd.Index([label_of(model.design, full) for full in queries])
            adata.obs[f"{one}_condition"] = pd.Categorical.from_codes(which.astype(int), labels)
        uns[key]["predictions"][one] = json.dumps(meant)
    if data is not whole:
        columns = [f"{one}_transported" for one in predictions] + ([f"{name}_condition"] if is_mixture else [])
        put_back(result, mods, adata, list(predictions), columns, model.representation.layer)
    return result if copy else None


def _write(adata: AnnData, model: TransportModel, name: str, prediction: np.ndarray, cells: np.ndarray) -> None:
    """Write a prediction, and which cells (n_obs,) were moved."""
    if model.representation.kind == "obsm":
        adata.obsm[f"X_{name}"] = prediction
        warnings.warn(
            f"{model.representation.use_rep!r} has no decoder: the prediction is in its space, adata.obsm['X_{name}'], "
            "and no layer was written.",
            stacklevel=3,
        )
    else:
        adata.layers[name] = prediction
    adata.obs[f"{name}_transported"] = cells


def _forget_mixture(adata: AnnData, name: str) -> None:
    """Drop the conditions of an earlier mixture, which are known by standing in just the rows that were moved."""
    moved, drawn = f"{name}_transported", f"{name}_condition"
    if moved in adata.obs and drawn in adata.obs and (adata.obs[drawn].notna() == adata.obs[moved]).all():
        adata.obs = get_obs(adata, None, [str(column) for column in adata.obs if column != drawn])


def _without_stale(
    stored: Mapping[str, Any],
    earlier: Mapping[str, str],
    parts: Sequence[AnnData],
    model: TransportModel,
    name: str,
    names: Sequence[str],
) -> dict[str, Any]:
    """Drop what a longer expansion of this name wrote and this one does not, and return the records without it."""
    lengths = dict(stored.get("expanded", {}))
    length = int(lengths.pop(name, 0))
    numbers = {one: one.removeprefix(f"{name}_") for one in earlier if one not in names}
    stale = [one for one, number in numbers.items() if number.isdecimal() and int(number) <= length]
    for adata, one in product(parts, stale):
        place, field = (adata.obsm, f"X_{one}") if model.representation.kind == "obsm" else (adata.layers, one)
        place.pop(field, None)
        adata.obs = get_obs(adata, None, [str(column) for column in adata.obs if column != f"{one}_transported"])
    lengths |= {name: len(names)} if len(names) > 1 else {}
    predictions = {one: condition for one, condition in earlier.items() if one not in stale}
    return {"predictions": predictions} | ({"expanded": lengths} if lengths or "expanded" in stored else {})


def _draw(model: TransportModel, groups: pd.DataFrame, queries: Sequence[Mapping[str, Any]], seed: int) -> np.ndarray:
    """A query for each cell (n_obs,), drawn in proportion to the measured cells in its group (n_obs rows)."""
    measured, columns = measured_cells(model), list(groups.columns)
    uniform = np.empty(len(groups))
    uniform[random_order(groups.index)] = np.random.default_rng(seed).random(len(groups))
    labels = group_texts(groups)
    rows_of = labels.groupby(columns).indices if columns else {(): np.arange(len(groups))}
    drawn = np.zeros(len(groups), int)
    for group, rows in rows_of.items():
        values = dict(zip(columns, group if isinstance(group, tuple) else (group,), strict=True))
        below = np.cumsum(shares(model.design, queries, measured, values))
        drawn[rows] = np.searchsorted(below / below[-1], uniform[rows], side="right")
    return drawn


def _move(
    mover: Mover, adata: AnnData, which: np.ndarray, obs: pd.DataFrame, queries: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """The fitted matrix with cells moved, each to the query that ``which`` (n_obs,) names, -1 for none.

    In chunks, so that only the result is of its size.
    """
    representation = mover.model.representation
    matrix, order = read_matrix(representation, adata), feature_order(representation, adata, mover.model.var_names)
    inverse = order if isinstance(order, slice) else np.argsort(order)
    result = np.empty(matrix.shape, np.float32)
    for start in range(0, len(result), CHUNK):
        rows = slice(start, start + CHUNK)
        features = matrix[rows][:, order]
        block = to_dense(features, out=result[rows])
        for i in np.unique(which[rows][which[rows] >= 0]):
            # A slice is no copy: where all cells move, they are decoded in place.
            chosen = slice(None) if (which[rows] == i).all() else np.flatnonzero(which[rows] == i)
            points = encode(representation, features[chosen])
            moved = move_cells(mover, points, obs.iloc[rows].iloc[chosen], queries[i]).points
            block[chosen] = decode(representation, block[chosen], points, moved)
        block[:] = block[:, inverse]
    return result


def _check_free(adata: AnnData, model: TransportModel, predictions: Container[str], name: str) -> None:
    """Refuse to write over anything but predictions."""
    representation = model.representation
    place, field, fitted = (
        (adata.obsm, f"X_{name}", representation.use_rep)
        if representation.kind == "obsm"
        else (adata.layers, name, representation.layer)
    )
    where = f"adata.{'obsm' if representation.kind == 'obsm' else 'layers'}[{field!r}]"
    if field == fitted:
        raise ValueError(f"key_added={name!r} is the place, {where}, that the map was fitted on. Pass another name.")
    # The mark tells predictions of an earlier map, which uns[key] has forgotten.
    predicted = name in predictions or f"{name}_transported" in adata.obs
    if field in place and not predicted:
        raise ValueError(
            f"{where} exists and is not a prediction of scgap, which alone are written over. Pass another name as "
            "key_added, or delete it."
        )
