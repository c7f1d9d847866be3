"""Training curves."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scgap._adata import Data, Modality
from scgap._model import get_model
from scgap.pl._style import BASELINE, MODEL, finish, get_axes

PANELS = {
    "fitting_loss": "fitting loss\n(Sinkhorn divergence)",
    "monge_gap": "Monge gap\n(held-out controls)",
    "valid": "validation\n(energy distance)",
}


def history(
    data: Data,
    *,
    key: str = "scgap",
    mod: Modality = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | np.ndarray | Axes | None:
    """Plot fitting loss, Monge gap and validation score of a fit against its iterations.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``, with a fitted map.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    ax
        Three axes to draw into; default new ones.
    show
        Whether to show the figure; by default shown when no axes were given, outside of ``return_fig``.
    return_fig
        Whether to return the figure.

    Returns
    -------
    The figure with ``return_fig=True``, the three axes with ``show=False``, else ``None``.

    Raises
    ------
    KeyError
        No map under ``key``.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        What is under ``key`` is not a map, or damaged; ``ax`` does not hold three axes.

    Notes
    -----
    The dashed line marks the iteration whose weights were kept. All three are estimates from batches that are unbiased,
    so near 0 they scatter around it and may be slightly negative. A fit with ``n_iters=0`` has nothing to report, and
    its panels are empty.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> axes = scgap.pl.history(adata, show=False)
    """
    table = get_model(data, mod, key).history
    axes = get_axes(ax, len(PANELS), width=3.2, height=2.6)
    for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
        axis.plot(table["iteration"], table[column], color=MODEL, lw=1.5)
        if len(table):
            axis.axvline(table["iteration"].iloc[int(table["valid"].argmin())], color=BASELINE, ls="--", lw=1)
        axis.set(xlabel="iteration", title=title)
        axis.title.set_fontsize("medium")
    return finish(axes, given=ax is not None, show=show, return_fig=return_fig)
