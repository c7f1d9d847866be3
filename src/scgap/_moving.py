"""Moving cells to a condition: which cells, and each in its own group."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._adata import select_cells
from scgap._arrays import ConditionArrays
from scgap._conditions import Condition, Group, group_text, group_texts, parse_condition, read_conditions
from scgap._encoding import encode_conditions
from scgap._groups import group_shares
from scgap._meanings import trained_conditions
from scgap._messages import listed
from scgap._model import TransportModel
from scgap._support import adds_up, perturbations_of


def select_source(
    model: TransportModel, adata: AnnData, obs: pd.DataFrame, query: Mapping[str, Any], source: Any
) -> np.ndarray:
    """Boolean mask (n_obs,) of the cells to move: those given, or all controls, of the group that the query names."""
    design = model.design
    asked = {column: group_text(query[column]) for column in design.group_cols if column in query}
    labels = group_texts(obs[list(asked)])
    in_group = np.ones(adata.n_obs, bool)
    for column, value in asked.items():
        in_group &= (labels[column] == value).to_numpy()
    if source is not None:
        cells = select_cells(adata, source)
        if asked and not in_group[cells].all():
            raise ValueError(
                f"condition names the group {listed(asked.values())}, and {(cells & ~in_group).sum()} source cells "
                "are not of it. Cells are moved in their own group: leave it out of condition, or select cells of it."
            )
        for column in design.group_cols:
            if n_without := int(obs[column].isna().to_numpy()[cells].sum()):
                raise ValueError(
                    f"source selects {n_without} cells without a label in {column!r}. Cells are moved in their own "
                    "group: fill it in, or select cells that have one."
                )
    else:
        conditions, of_cell, _ = read_conditions(design, obs, need_controls=False)
        control = [i for i, condition in enumerate(conditions) if condition.is_control]
        cells = np.isin(of_cell, control) & in_group
        if not cells.any():
            where = f" in the group {listed(asked.values())}" if asked else ""
            groups = sorted({", ".join(conditions[i].group) for i in control} - {""})
            raise ValueError(
                f"There are no control cells{where}: none has reference_key={design.reference_key!r} in "
                f"{listed(design.target_cols)}. Pass the cells to move as source="
                + (f", or one of the groups {listed(groups)}." if groups else ".")
            )
    return cells


def warn_of_new_groups(model: TransportModel, groups: pd.DataFrame) -> None:
    """Say in which groups of the cells to move (n_cells rows) others stand in."""
    nearer = "each of its cells is moved by a mean over trained groups, those with nearer controls counting more"
    how = "its cells are moved without its context" if model.control_means is None else nearer
    labels = group_texts(groups[list(model.encoding.groups)])
    for column, trained in model.encoding.groups.items():
        if new := sorted(set(labels[column]) - set(trained)):
            message = f"{column!r} {listed(new)} was not trained on: {how}. Trained were {listed(trained)}."
            warnings.warn(message, stacklevel=3)


class Mover(NamedTuple):
    """What moves cells."""

    model: TransportModel
    """With its weights on the device, so that a GPU gets them once."""
    trained: frozenset[frozenset[str]]
    """The sets of perturbations that were trained on."""
    control_means: dict[Group, np.ndarray]
    """(n_points,) of the training controls of each trained group; empty where the model has none."""


class Moved(NamedTuple):
    """Cells moved to a condition."""

    points: np.ndarray
    """(n_cells, n)."""
    spread: np.ndarray
    """(n_cells,) root mean squared distance to their mean of what each map, and each group that stands in, predicts.

    NaN where there is one map."""


def make_mover(model: TransportModel, trained: Collection[Condition] | None = None) -> Mover:
    """A model ready to move cells, to however many conditions: the trained ones are read, and weights copied, once.

    ``trained`` are the conditions that its weights were trained on, where these are not all of those of its table.
    """
    import jax  # here, so that importing a function does not load it

    weights, others = jax.device_put((model.weights, model.others))
    of_table = trained_conditions(model)
    trained = of_table if trained is None else trained
    groups = sorted({condition.group for condition in of_table})
    means = {} if model.control_means is None else dict(zip(groups, model.control_means, strict=True))
    is_trained = {condition.group for condition in trained}
    return Mover(
        model._replace(weights=weights, others=others),
        frozenset(map(perturbations_of, trained)),
        {group: mean for group, mean in means.items() if group in is_trained},
    )


def move_cells(mover: Mover, points: np.ndarray, groups: pd.DataFrame, query: Mapping[str, Any]) -> Moved:
    """Points (n_cells, n) moved to the queried condition, each in its own group (n_cells rows)."""
    design = mover.model.design
    columns = list(design.group_cols)
    labels = group_texts(groups[columns])
    codes = labels.groupby(columns).ngroup().to_numpy() if columns else np.zeros(len(points), int)
    moved = Moved(np.empty_like(points), np.empty(len(points), np.float32))
    for code in np.unique(codes):
        rows = codes == code
        group = labels.iloc[np.flatnonzero(rows)[0]].to_dict() if columns else {}
        condition = parse_condition(design, {**query, **group})
        moved.points[rows], moved.spread[rows] = move_to(mover, points[rows], condition)
    return moved


def move_to(mover: Mover, points: np.ndarray, condition: Condition) -> Moved:
    """Points (n_cells, n), all of the condition's group, moved by the mean of all maps, and of groups that stand in."""
    from scgap._map import transport_cells  # here, so that importing a function does not load JAX

    model, shares = mover.model, group_shares(mover.control_means, points, condition.group)
    encoded = encode_conditions(model.encoding, [condition._replace(group=group) for group in shares])
    ways = [(ConditionArrays(*(array[i] for array in encoded)), share) for i, share in enumerate(shares.values())]
    detail = model.detail_of_sums if adds_up(mover.trained, perturbations_of(condition)) else None

    # Mean and squared distances to it, one prediction at a time (West 1979), so that no more than two are held.
    mean, squares, total = np.zeros_like(points), *np.zeros((2, len(points)), np.float32)
    for weights in (model.weights, *model.others):
        for arrays, share in ways:
            cells = slice(None) if share.all() else np.flatnonzero(share)
            difference = transport_cells(model.network, weights, points[cells], arrays, detail=detail)
            difference -= mean[cells]
            total[cells] += share[cells]
            part = share[cells] / total[cells]  # exactly 1 of the first
            squares[cells] += share[cells] * (1 - part) * np.einsum("ij,ij->i", difference, difference)
            difference *= part[:, None]
            mean[cells] += difference
    return Moved(mean, np.sqrt(squares / total) if model.others else np.full(len(points), np.nan, np.float32))
