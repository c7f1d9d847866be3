"""Predicted dose-response curves beside what was measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

from scgap._adata import Data, Modality, check_predicted, get_matrix, get_modality, get_obs, take_features, to_dense
from scgap._checks import number, texts
from scgap._conditions import Design, condition_label, read_conditions
from scgap._joint import modalities, one_object
from scgap._messages import not_found
from scgap._model import TransportModel, get_model
from scgap.pl._style import BASELINE, PALETTE, class_colours, finish, get_axes, shade

STYLES = (("-", "o"), ("--", "s"), ("-.", "D"))  # of lines and points, once all colours are used
LEGEND, MOST_LINES = 1.2, 14  # inches of the figure, and how many lines are named in a column of these


def dose_response(
    data: Data,
    predicted: AnnData,
    *,
    features: str | Sequence[str],
    above: float | None = None,
    key: str = "scgap",
    mod: Modality = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | np.ndarray | Axes | None:
    """Plot predicted curves over the dose, and the measured means as points; a panel a feature.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``, with a fitted map and the measured cells.
    predicted
        What `scgap.tl.screen` gives for the doses of the curve, measured or not. Every perturbation in every group has
        a line of its own; combinations are left out.
    features
        Names of features, or one.
    above
        Plot the fraction of cells in which the feature is above this value, such as a gate of a subpopulation, instead
        of its mean.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    ax
        As many axes as features; default new ones.
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
        No map under ``key``, or no such feature.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        The fit has no doses, or ``predicted`` no single perturbations.

    Notes
    -----
    Of a fit with times there is a line for each. Bars are standard errors of the measured means. Dotted lines are the
    levels of the groups' controls. Lines that differ in the perturbation alone, or in the group alone, have the colours
    that scanpy stored for that column, ``uns["<column>_colors"]``.

    Examples
    --------
    >>> import numpy as np
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[10.0, 100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> doses = [{"perturbation": "drug_1", "dose_value": dose} for dose in np.geomspace(5, 200, 8)]
    >>> curve = scgap.tl.screen(adata, doses, n_cells=50, progress=False)
    >>> axes = scgap.pl.dose_response(adata, curve, features="feature_0", show=False)
    """
    whole, mods = data, mod
    data, mod = one_object(data, mod)
    coloured = modalities(whole, mods)[0]
    model = get_model(data, mod, key)
    adata, design = get_modality(data, mod), model.design
    if not design.dose_cols:
        raise ValueError("The map was fitted without doses, over which curves could be drawn. Fit with dose_col=.")
    check_predicted(predicted, "predicted")
    features = texts("features", features)
    if not features:
        raise ValueError("features is empty, and there is nothing to draw. Pass names of features, or one.")
    if above is not None:
        above = number("above", above, "a number, such as the gate of a subpopulation, or None for means")
    for feature in features:
        for names, where in ((adata.var_names, "adata.var_names"), (predicted.var_names, "predicted.var_names")):
            if feature not in names:
                raise KeyError(not_found(feature, where, list(names)))
    measured = _summary(model, get_obs(data, mod, design.columns), _values(model, adata, features), above)
    obs = get_obs(predicted, None, design.columns)
    written = obs[list(design.dose_cols)].astype(object)
    doses = written.apply(pd.to_numeric, errors="coerce")
    # The doses of a combination in one column are no number; of several columns those without a member hold none.
    single = (doses.notna() | written.isna()).all(axis=1).to_numpy()
    curves = _summary(model, obs[single], to_dense(predicted[single, features].X), above)
    if not (curves["perturbation"] != "").any():
        raise ValueError("predicted holds no single perturbation with a dose. Pass the result of scgap.tl.screen.")
    lines = curves[curves["perturbation"] != ""].groupby("label")
    n_columns = -(-(lines.ngroups + 1) // MOST_LINES)
    axes = get_axes(ax, len(features), width=3.4 + n_columns * LEGEND / len(features), height=2.8)
    of_lines, column = _names(design, lines)
    for i, (axis, feature) in enumerate(zip(axes, features, strict=True)):
        colours = class_colours(axis, of_lines, coloured, column)
        for j, (label, line) in enumerate(lines):
            points = measured[measured["label"] == label]
            _draw_line(axis, colours[j], STYLES[j // len(PALETTE) % len(STYLES)], line, points, i)
        drawn = {line["group"].iloc[0] for _, line in lines}
        controls = measured[(measured["perturbation"] == "") & measured["group"].isin(drawn)]
        for j, level in enumerate(controls[f"mean_{i}"]):
            axis.axhline(level, color=shade(axis, BASELINE), ls=":", lw=1, label="_" if j else "control")
        unit = f" ({design.dose_unit})" if design.dose_unit else ""
        axis.set(xscale="log", xlabel=f"dose{unit}", title=feature)
        axis.title.set_fontsize("medium")
    axes[0].set_ylabel("mean" if above is None else f"fraction above {above:g}")
    axes[-1].legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), ncols=n_columns)
    return finish(axes, given=ax is not None, show=show, return_fig=return_fig)


def _draw_line(
    axis: Axes,
    colour: ColorType,
    style: tuple[str, str],
    line: pd.DataFrame,
    points: pd.DataFrame,
    i: int,
) -> None:
    line = line.sort_values("dose")
    dashes, marker = style
    axis.plot(line["dose"], line[f"mean_{i}"], color=colour, ls=dashes, lw=1.5, label=line["label"].iloc[0])
    axis.errorbar(points["dose"], points[f"mean_{i}"], points[f"error_{i}"], color=colour, fmt=marker, ms=4, lw=1)


def _names(design: Design, lines: Any) -> tuple[list[str], str | None]:
    """What each line is, and the column of obs that tells it from the others; None where it takes several."""
    firsts = lines[["perturbation", "group"]].first()
    for name, columns in (("perturbation", design.target_cols), ("group", design.group_cols)):
        if firsts[name].is_unique and len(columns) == 1:
            return firsts[name].tolist(), columns[0]
    return firsts.index.tolist(), None


def _values(model: TransportModel, adata: AnnData, features: Sequence[str]) -> np.ndarray:
    """Measured features (n_obs, n_features), of the layer that was fitted."""
    matrix = get_matrix(adata, model.representation.layer)
    return to_dense(take_features(matrix, adata.var_names.get_indexer(pd.Index(features))))


def _summary(model: TransportModel, obs: pd.DataFrame, values: np.ndarray, above: float | None) -> pd.DataFrame:
    """Mean and standard error of each feature for controls and single perturbations, one row a condition.

    Columns: ``perturbation`` (empty for controls), ``label``, ``dose``, ``group``, ``mean_0``, ``error_0``, …
    """
    conditions, of_cell, _ = read_conditions(model.design, obs, need_controls=False)
    values = values if above is None else (values > above).astype(np.float32)
    rows = []
    for i, condition in enumerate(conditions):
        if len(condition.members) > 1:
            continue
        name, dose = condition.members[0] if condition.members else ("", np.nan)
        group = ", ".join(condition.group)
        row: dict[str, object] = {
            "perturbation": name,
            "group": group,
            "label": condition_label(condition._replace(members=((name, None),)), time_unit=model.design.time_unit),
            "dose": dose,
        }
        cells = values[of_cell == i]
        for j, (mean, error) in enumerate(zip(cells.mean(0), cells.std(0) / np.sqrt(len(cells)), strict=True)):
            row |= {f"mean_{j}": mean, f"error_{j}": error}
        rows.append(row)
    numbers = [f"{what}_{j}" for j in range(values.shape[1]) for what in ("mean", "error")]
    return pd.DataFrame(rows, columns=["perturbation", "group", "label", "dose", *numbers])
