"""Predicted against observed moments, feature by feature."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scgap._adata import Data, get_layers, get_matrix, get_modality, get_obs, to_dense
from scgap._conditions import condition_label, parse_condition, read_conditions
from scgap._meanings import check_unambiguous, contexts
from scgap._messages import MAX_LISTED, listed, not_found
from scgap._metrics import MOMENTS
from scgap._model import TransportModel, get_model
from scgap._query import read_query
from scgap._representation import feature_order, read_matrix
from scgap.pl._panel import Points, draw_panel
from scgap.pl._style import finish, get_axes

MIN_EXPRESSED = 10  # cells; fewer say nothing of the shape of a distribution
CONSTANT = 1e-6  # spread, relative to the largest value, up to which a feature is constant, as in the metrics
SHAPES = ("skewness", "kurtosis")  # moments that a constant feature has not


class Cells(NamedTuple):
    """Cells (n, n_vars) of one group."""

    predicted: np.ndarray
    source: np.ndarray
    observed: np.ndarray


def moments(
    data: Data,
    condition: str | Mapping[str, Any] | None = None,
    *,
    key: str = "scgap",
    mod: str | None = None,
    moments: str | Sequence[str] = ("mean", "std", "skewness", "kurtosis"),
    layer: str | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | np.ndarray | Axes | None:
    """Plot predicted against observed moments, one panel a moment and one point a feature.

    A prediction that only shifts means looks right in the first panel and wrong in the others. Control cells, the
    simplest prediction, stand in grey behind. The band is how far two random halves of the observed cells fall from
    each other, the mean over features, which no prediction can beat on average. Corners give squared correlations.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``, after `scgap.tl.predict`.
    condition
        Observed condition to compare with; default the one that was predicted.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData.
    moments
        Panels to draw, one or several of ``mean``, ``std``, ``skewness``, ``kurtosis``.
    layer
        Layer that holds the prediction (``key_added`` of `scgap.tl.predict`); default ``key``.
    ax
        As many axes as moments; default new ones.
    show
        Whether to show the figure; by default shown when no axes were given.
    return_fig
        Whether to return the figure.

    Returns
    -------
    The figure with ``return_fig=True``, the axes with ``show=False``, else ``None``.

    Raises
    ------
    KeyError
        No map or no prediction, or an unknown moment.
    ValueError
        The condition was not measured, so there is nothing to compare with, or the fitted embedding has no decoder.

    Notes
    -----
    Where the fit held out cells, only these are compared; of a mixture (``on_ambiguous="marginal"``), all observed
    cells. With several groups each has points of its own; a
    ``condition`` that names a group shows that group alone.

    Skewness and kurtosis are of features that vary in observed, predicted and control cells and, where no value is
    negative, are above 0 in at least 10 of each. The x label tells how many of all points these are.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> scgap.tl.predict(adata, {"perturbation": "drug_1", "dose_value": 100.0})
    >>> axes = scgap.pl.moments(adata, show=False)
    """
    moments = [moments] if isinstance(moments, str) else list(moments)
    for moment in moments:
        if moment not in MOMENTS:
            raise KeyError(not_found(moment, "the moments", list(MOMENTS)))
    model = get_model(data, mod, key)
    groups, title = _read_cells(data, mod, model, key, layer or key, condition)
    axes = get_axes(ax, len(moments), width=3.0, height=3.3)
    for axis, moment in zip(axes, moments, strict=True):
        draw_panel(axis, moment, _make_points(moment, groups, model.var_names))
    axes[0].set_ylabel("predicted")
    if ax is None:
        axes[0].figure.suptitle(title, fontsize="medium")
    return finish(axes, given=ax is not None, show=show, return_fig=return_fig)


def _make_points(moment: str, groups: Sequence[Cells], var_names: np.ndarray) -> Points:
    statistic = MOMENTS[moment]
    kept = [_has_shape(cells) if moment in SHAPES else np.ones(len(var_names), bool) for cells in groups]
    groups = [Cells(*(part[:, mask] for part in cells)) for cells, mask in zip(groups, kept, strict=True)]
    predicted, source, observed = (
        np.concatenate([statistic(cells, axis=0) for cells in part]) for part in zip(*groups, strict=True)
    )
    names = np.concatenate([var_names[mask] for mask in kept])
    n_left_out = sum(int((~mask).sum()) for mask in kept)
    return Points(names, predicted, source, observed, _replicate_error(statistic, groups), n_left_out)


def _has_shape(cells: Cells) -> np.ndarray:
    """Features (n_vars,) whose third and fourth moments mean something in every part.

    Those of a constant feature are undefined, and those of a gene seen in few cells tell how many these are.
    """
    expressed = min(part.min() for part in cells) >= 0
    kept = np.ones(cells.observed.shape[1], bool)
    for part in cells:
        kept &= part.std(axis=0) > CONSTANT * np.abs(part).max(axis=0)
        if expressed:
            kept &= np.count_nonzero(part, axis=0) >= MIN_EXPRESSED
    return kept


def _read_cells(
    data: Data, mod: str | None, model: TransportModel, key: str, layer: str, condition: str | Mapping[str, Any] | None
) -> tuple[list[Cells], str]:
    adata, design = get_modality(data, mod), model.design
    if model.representation.kind == "obsm":
        raise ValueError(
            f"The map was fitted in {model.representation.use_rep!r}, which has no decoder: its predictions, in adata."
            "obsm, have no features whose moments could be drawn. Fit X, a layer or 'X_pca'."
        )
    if layer not in adata.layers:
        found = get_layers(adata)
        raise KeyError(not_found(layer, "adata.layers", found) + " Predict first: scgap.tl.predict(adata, condition).")
    predictions = adata.uns[key].get("predictions", {})
    if layer not in predictions:
        raise KeyError(
            f"adata.layers[{layer!r}] is not a prediction of the map in adata.uns[{key!r}], fitted anew or elsewhere. "
            "Predict again: scgap.tl.predict(adata, condition)."
        )
    predicted = read_query(model, json.loads(predictions[layer]))
    query = predicted if condition is None else read_query(model, condition)
    full = contexts(model, query)
    if query != predicted:  # which may be a mixture
        check_unambiguous(model, query, full)
    split_col = model.params["split_col"]
    has_split = split_col in {*adata.obs, *data.obs}  # another object need not have it
    obs = get_obs(data, mod, [*design.columns, split_col if has_split else None])
    tested = (obs[split_col] == "test").to_numpy() if has_split else np.ones(adata.n_obs, bool)
    conditions, of_cell, _ = read_conditions(design, obs, need_controls=False)
    order = feature_order(model.representation, adata, model.var_names)
    features = to_dense(read_matrix(model.representation, adata)[:, order])
    prediction = to_dense(get_matrix(adata, layer)[:, order])
    transported = np.asarray(adata.obs[f"{layer}_transported"], bool)

    groups, labels = [], set()
    named = [column for column in design.group_cols if query.get(column) is not None]
    for group in sorted({c.group for c in conditions}):
        values = dict(zip(design.group_cols, group, strict=True))
        if any(str(query[column]) != values[column] for column in named):
            continue
        asked = {parse_condition(design, {**one, **values}) for one in full}
        in_group = np.isin(of_cell, [i for i, c in enumerate(conditions) if c.group == group])
        wanted = np.isin(of_cell, [i for i, c in enumerate(conditions) if c in asked])
        # Test cells of a mixture alone need not be in its shares: a condition may be held out whole.
        observed = wanted & tested if (wanted & tested).any() and len(asked) == 1 else wanted
        moved = transported & in_group
        moved = moved & tested if (moved & tested).any() else moved
        if observed.sum() > 1 and moved.sum() > 1:
            groups.append(Cells(prediction[moved], features[moved], features[observed]))
            labels |= {condition_label(c._replace(group=tuple(values[column] for column in named))) for c in asked}
    if not groups:
        raise ValueError(
            f"No measured cells to compare with {query!r}. Predict and compare a measured condition: "
            f"{listed(model.conditions['condition_label'])}."
        )
    names = sorted(labels)
    return groups, ", ".join(names[:MAX_LISTED]) + (f", … ({len(names)} in all)" if len(names) > MAX_LISTED else "")


def _replicate_error(statistic: Any, groups: Sequence[Cells]) -> float:
    """Mean absolute difference of a moment between random halves of the observed cells."""
    generator = np.random.default_rng(0)
    errors = []
    for cells in groups:
        order = generator.permutation(len(cells.observed))
        one, other = (cells.observed[half] for half in np.array_split(order, 2))
        errors.append(np.abs(statistic(one, axis=0) - statistic(other, axis=0)))
    of_points = np.concatenate(errors)
    return float(of_points.mean()) if len(of_points) else 0.0
