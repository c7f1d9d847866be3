"""A map of the conditions, as the fitted map sees them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scgap._adata import Data, Modality
from scgap._checks import text
from scgap._conditions import label_text, parse_condition, plain, records
from scgap._joint import modalities
from scgap._meanings import trained_conditions
from scgap._messages import not_found
from scgap._model import TransportModel, get_model
from scgap._support import TIERS, support_tiers
from scgap.pl._labels import write_labels
from scgap.pl._plane import principal_axes
from scgap.pl._style import BASELINE, MARKERS, PALETTE, class_colours, finish, get_axes, ink, shade, text_colour

MAX_LABELLED = 30  # conditions whose labels still find room


def conditions(
    data: Data,
    *,
    color: str | Mapping[str, str] = "support",
    labels: bool | None = None,
    key: str = "scgap",
    mod: Modality = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | np.ndarray | Axes | None:
    """Plot the conditions of a fit by the embedding that the map has learned of them.

    Conditions that the map treats alike lie together. The axes are the first two principal components of the learned
    embeddings, which are 0 for control; the labels say how much of the variance each holds.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``, with a fitted map.
    color
        ``"support"`` (the tier of `scgap.tl.resolve`), a column of ``uns[key]["conditions"]`` (a perturbation,
        a dose on a log scale, a group, ``"split"``), or a mapping from perturbations to classes, such as pathways.
        A column of ``obs`` has the colours that scanpy stored for it, ``uns["<column>_colors"]``.
    labels
        Whether to write the conditions' labels, as many as find room without covering another or a point; default
        where there are at most 30.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    ax
        Axes to draw into; default new ones.
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
        No map under ``key``, or no such column.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        What is under ``key`` is not a map, or damaged; ``ax`` is not one of axes.

    Notes
    -----
    Conditions of perturbations that the map has no vector of are left out.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=3, doses=[10.0, 100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> axes = scgap.pl.conditions(adata, color="dose_value", show=False)
    """
    model = get_model(data, mod, key)
    shown = np.isfinite(model.embedding).all(axis=1)
    values, title = _values(model, color)
    values, names = values[shown], model.conditions["condition_label"][shown]
    points, shares = _principal_components(model.embedding[shown].astype(np.float64))
    (axis,) = get_axes(ax, 1, width=5.6, height=3.8)
    if pd.api.types.is_numeric_dtype(values):
        x, y = points.T
        is_dose = color in model.design.dose_cols
        has_one = (values > 0 if is_dose else values.notna()).to_numpy()  # a member that is not there has none
        if not has_one.all():
            axis.scatter(x[~has_one], y[~has_one], color=shade(axis, BASELINE), s=28)
        if has_one.any():
            norm = "log" if is_dose else None
            drawn = axis.scatter(x[has_one], y[has_one], c=values[has_one], cmap="viridis", norm=norm, s=28)
            axis.figure.colorbar(drawn, ax=axis, label=title)
    else:
        colours_of = color if isinstance(color, str) else None
        in_order = TIERS if color == "support" else sorted(values.unique())
        _draw_classes(axis, points, values, in_order, title, modalities(data, mod)[0], colours_of)
    grey = text_colour(axis, BASELINE)
    axis.plot(0, 0, "+", color=grey, ms=9)
    axis.set(**{f"{which}label": f"embedding PC{i + 1} ({shares[i]:.0%})" for i, which in enumerate("xy")})
    shows_names = labels if labels is not None else len(points) <= MAX_LABELLED
    written = ["control", *(names if shows_names else [""] * len(names))]
    write_labels(axis, np.vstack([[0, 0], points]), written, [grey, *[ink(axis)] * len(names)])
    return finish(np.array([axis]), given=ax is not None, show=show, return_fig=return_fig)


def _values(model: TransportModel, color: str | Mapping[str, str]) -> tuple[pd.Series, str]:
    """What the colours show of each row of the table, and its name."""
    table = model.conditions
    parsed = [parse_condition(model.design, row) for row in records(table)]
    if isinstance(color, Mapping):
        names = {label_text(name): label_text(value) for name, value in color.items() if plain(value) is not None}
        classes = [sorted({names.get(name, "unknown") for name, _ in condition.members}) for condition in parsed]
        return pd.Series([" + ".join(some) for some in classes], table.index), "class"
    if text("color", color) == "support":
        tiers = support_tiers(list(trained_conditions(model)), model.encoding.perturbations, parsed)
        return pd.Series(tiers, table.index, dtype=object), "support"
    if color not in table:
        raise KeyError(not_found(color, "the table of conditions", ["support", *table.columns]))
    values = table[color]
    return values if pd.api.types.is_numeric_dtype(values) else values.astype(str), color


def _principal_components(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n, 2) in which control, the embedding 0, is at the origin, and the shares of variance (2,)."""
    directions, shares = principal_axes(embedding - embedding.mean(0))
    return embedding @ directions, shares


def _draw_classes(
    axis: Axes,
    points: np.ndarray,
    values: pd.Series,
    in_order: Sequence[str],
    title: str,
    adata: AnnData,
    column: str | None,
) -> None:
    ordered = [value for value in in_order if (values == value).any()]
    for i, (value, colour) in enumerate(zip(ordered, class_colours(axis, ordered, adata, column), strict=True)):
        x, y = points[(values == value).to_numpy()].T
        marker = MARKERS[i // len(PALETTE) % len(MARKERS)]
        axis.scatter(x, y, color=colour, marker=marker, s=28, label=value)
    axis.legend(title=title, fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
