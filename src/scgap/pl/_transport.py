"""Where a map carries cells: source, predicted and observed cells in a plane, with arrows between."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scgap._adata import Data, Modality, get_modality, to_dense
from scgap._checks import text, whole_number
from scgap._joint import one_object
from scgap._model import get_model
from scgap.pl._cells import find_groups, read_matrices
from scgap.pl._plane import Shown, principal_plane, stored_plane
from scgap.pl._style import BASELINE, MANY, MODEL, OBSERVED, finish, get_axes, halo, ink, shade

MOST_SHOWN = 1_000  # cells of each kind: more are one cloud
LEAST_CELLS = 3  # that an arrow stands for: the mean of fewer is that of a single cell


def transport(
    data: Data,
    condition: str | Mapping[str, Any] | None = None,
    *,
    basis: str | None = None,
    n_arrows: int = 30,
    key: str = "scgap",
    mod: Modality = None,
    layer: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | np.ndarray | Axes | None:
    """Plot where a map carries cells: source, predicted and observed cells in a plane, with arrows between.

    Each arrow is the mean way of the source cells of one square of a grid, so few do not hide what is below them.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``, after `scgap.tl.predict`.
    condition
        Observed condition to show; default the one that was predicted.
    basis
        Plane to draw in. Default: the first two principal components of source and observed cells, both counting alike,
        onto which the predicted cells are projected; they have no say in them. A key of ``obsm`` made by a PCA, such as
        ``"X_pca"``, or the embedding that the map was fitted in: its first two columns.
    n_arrows
        About how many arrows are drawn; 0 for none.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    layer
        Layer that holds the prediction (``key_added`` of `scgap.tl.predict`); default ``key``.
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
        No map or no prediction, or no such ``basis``.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        No group has predicted cells of the condition, or they cannot be placed in ``basis``. A UMAP or t-SNE is a
        drawing of the cells that it was made of and has no place for others: to see them in one, put them into one
        object, `scgap.tl.join_predictions`, and make it of all.

    Notes
    -----
    Where the fit held out cells, only these are shown, as in `scgap.pl.moments`. A condition need not have been
    measured: the components are then those of source and predicted cells. At most 1,000 cells of each kind are drawn,
    the same in every call, and arrows are of squares with at least three source cells. In few dimensions all
    distances look shorter than they are; what the arrows show is no test, see `scgap.tl.evaluate`.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> scgap.tl.predict(adata, {"perturbation": "drug_1", "dose_value": 100.0})
    >>> axes = scgap.pl.transport(adata, show=False)
    """
    n_arrows = whole_number("n_arrows", n_arrows, 0)
    basis = None if basis is None else text("basis", basis)
    data, mod = one_object(data, mod)
    model = get_model(data, mod, key)
    adata = get_modality(data, mod)
    name = key if layer is None else text("layer", layer)
    found = find_groups(data, mod, model, key, name, condition, measured=False)
    moved, observed = (_draw_some(masks) for masks in zip(*(group[:2] for group in found.groups), strict=True))
    measured, prediction = read_matrices(model, adata, name)
    rows = Shown(moved, moved, observed)
    cells = Shown(*map(to_dense, (measured[moved], prediction[moved], measured[observed])))
    points, names = principal_plane(cells) if basis is None else stored_plane(adata, model, basis, rows, cells)
    (axis,) = get_axes(ax, 1, width=5.6, height=3.8)
    _draw_cells(axis, points)
    _draw_arrows(axis, points, n_arrows)
    axis.set(xlabel=names[0], ylabel=names[1], title=found.title)
    axis.title.set_fontsize("medium")
    return finish(np.array([axis]), given=ax is not None, show=show, return_fig=return_fig)


def _draw_some(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of cells in any of the masks (n_obs,): all, or as many as are shown."""
    rows = np.flatnonzero(np.logical_or.reduce(masks))
    return np.sort(np.random.default_rng(0).permutation(rows)[:MOST_SHOWN])


def _draw_cells(axis: Axes, points: Shown) -> None:
    kinds = zip(Shown._fields, (BASELINE, MODEL, OBSERVED), points, strict=True)
    many = max(map(len, points)) > MANY
    look: dict[str, Any] = {"s": 6 if many else 12, "lw": 0, "alpha": 0.7, "rasterized": many}
    for name, colour, some in sorted(kinds, key=lambda kind: -len(kind[2])):  # the fewest on top
        if len(some):
            axis.scatter(*some.T, color=shade(axis, colour), label=name, **look)
    axis.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)


def _draw_arrows(axis: Axes, points: Shown, n_arrows: int) -> None:
    """An arrow for every square of a grid over the source cells, from their mean to that of what became of them."""
    square = _squares(points.source, n_arrows)
    means = [
        [part[square == i].mean(axis=0) for part in (points.source, points.predicted)] for i in range(square.max() + 1)
    ]
    if means:
        start, end = np.swapaxes(means, 0, 1)
        in_data: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axis.quiver(
            *start.T, *(end - start).T, **in_data, width=0.004, color=ink(axis), zorder=4, path_effects=halo(axis)
        )


def _squares(points: np.ndarray, most: int) -> np.ndarray:
    """The square (n,) that each point (n, 2) is in, -1 for one of few points; of the grid that has most squares.

    But no more than ``most``.
    """
    low, extent = points.min(axis=0), np.maximum(np.ptp(points, axis=0), np.finfo(float).tiny)
    best = np.full(len(points), -1)
    for n in range(1, most + 1):
        places = np.minimum((points - low) / extent * n, n - 1).astype(int)
        _, square, size = np.unique(places, axis=0, return_inverse=True, return_counts=True)
        kept = np.flatnonzero(size >= LEAST_CELLS)
        if len(kept) > most:
            break
        if len(kept) > best.max() + 1:
            number = np.full(len(size), -1)
            number[kept] = np.arange(len(kept))
            best = number[square.ravel()]
    return best
