"""Predicted against observed moments, feature by feature."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scgap._adata import Data, Modality
from scgap._checks import chosen_names, text
from scgap._joint import one_object
from scgap._messages import listed
from scgap._model import get_model
from scgap.pl._baselines import predict_simply
from scgap.pl._cells import read_cells
from scgap.pl._panel import draw_panel, write_panel
from scgap.pl._points import STATISTICS, make_points
from scgap.pl._style import finish, get_axes, settle


def moments(
    data: Data,
    condition: str | Mapping[str, Any] | None = None,
    *,
    key: str = "scgap",
    mod: Modality = None,
    moments: str | Sequence[str] = ("mean", "std", "skewness", "kurtosis", "correlation"),
    layer: str | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | np.ndarray | Axes | None:
    """Plot predicted against observed moments, one panel a moment and one point a feature or pair.

    A prediction that only shifts means looks right in the first panel and wrong in the others. In grey behind stands
    the simple baseline (see `scgap.tl.evaluate`) whose points come nearest in this moment, the simplest of equally good
    ones: ``control``, the cells as they were, before others. Of mixtures, and where there are no training cells,
    there is only ``control``. The band is the error of a replicate. A corner gives the mean absolute errors of
    prediction, baseline and replicate, and the score, which is 0 for the baseline and 1 for a replicate.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``, after `scgap.tl.predict`.
    condition
        Observed condition to compare with; default the one that was predicted.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    moments
        Panels to draw, one or several of ``mean``, ``std``, ``skewness``, ``kurtosis``, ``correlation`` (of
        pairs of features).
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
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        The condition was not measured, so there is nothing to compare with, or the fitted embedding has no decoder.

    Notes
    -----
    Where the fit held out cells, only these are compared; of a mixture (``on_ambiguous="marginal"``), all observed
    cells. With several groups each has points of its own; a
    ``condition`` that names a group shows that group alone.

    Skewness, kurtosis and correlations are of features that vary in observed, predicted and control cells and, where no
    value is negative, are above 0 in at least 10 of each. Correlations are of at most 2,000 pairs: those of the
    features with the highest variance in the observed cells. The x label tells how many of all points are drawn. All
    baselines are measured on these points; a feature that is constant in a baseline counts 0 there.

    The replicate is one half of the observed cells as prediction of the other. All three errors are of random halves of
    equally many cells, as in `scgap.tl.evaluate`, so none is favoured by its noise; the points are of all cells. The
    score is ``(B - V) / (B - C)`` with the errors of baseline, prediction and replicate, not clipped. Where the
    baseline is no more than 5 % behind the replicate, it would be noise, and the corner says that there is nothing to
    gain. Of skewness, kurtosis and correlations there are no errors where a half has fewer than 5 cells.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> scgap.tl.predict(adata, {"perturbation": "drug_1", "dose_value": 100.0})
    >>> axes = scgap.pl.moments(adata, show=False)
    """
    moments = chosen_names(moments, list(STATISTICS), "moments")
    if not moments:
        raise ValueError(f"moments is empty, and there is nothing to draw. Pass some of {listed(STATISTICS)}.")
    data, mod = one_object(data, mod)
    model = get_model(data, mod, key)
    observations, groups, title = read_cells(
        data, mod, model, key, key if layer is None else text("layer", layer), condition
    )
    axes = get_axes(ax, len(moments), width=2.8, height=3.3)
    baselines = predict_simply(observations, model.encoding, groups)
    points = [make_points(moment, groups, baselines, model.var_names) for moment in moments]
    for axis, moment, of_moment in zip(axes, moments, points, strict=True):
        draw_panel(axis, moment, of_moment)
    axes[0].set_ylabel("predicted")
    if ax is None:
        axes[0].figure.suptitle(title, fontsize="medium")
    settle(axes)
    for axis, of_moment in zip(axes, points, strict=True):
        write_panel(axis, of_moment)
    return finish(axes, given=ax is not None, show=show, return_fig=return_fig)
