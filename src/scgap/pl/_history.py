"""Training curves."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scgap._adata import Data, Modality
from scgap._model import get_model
from scgap.pl._style import BASELINE, CEILING, MODEL, finish, get_axes, ink, shade

PANELS = {
    "fitting_loss": "fitting loss\n(Sinkhorn divergence)",
    "monge_gap": "Monge gap\n(controls)",
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
    The dashed line marks the iteration whose weights were kept. Fitting loss and validation score are unbiased
    estimates of what is 0 for a perfect map: near 0 they scatter around it and may be negative. The fitting loss goes
    on falling, below 0 too, when the map learns its training cells by heart; which weights are kept is up to the
    validation score.

    The Monge gap compares the cost of the map with that of a plan, which is blurred by ``gap_epsilon`` and so a little
    above the least: the gap of an optimal map is not 0 but a little below, in the band down to ``-gap_epsilon``. Above
    0 the cells take longer ways than they need. A fit with ``n_iters=0`` has nothing to report.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> axes = scgap.pl.history(adata, show=False)
    """
    model = get_model(data, mod, key)
    table, blur = model.history, model.params["resolved"]["gap_epsilon"]
    axes = get_axes(ax, len(PANELS), width=3.2, height=2.6)
    for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
        axis.plot(table["iteration"], table[column], color=shade(axis, MODEL), lw=1.5)
        if len(table):
            axis.axvline(table["iteration"].iloc[int(table["valid"].argmin())], color=BASELINE, ls="--", lw=1)
        if column == "monge_gap":
            axis.axhspan(-blur, 0, color=shade(axis, CEILING), alpha=0.2, lw=0, zorder=0, label="an optimal map")
            axis.legend(fontsize="x-small", frameon=False, loc="lower right")
        axis.axhline(0, color=ink(axis), lw=0.8, zorder=1)
        axis.set(xlabel="iteration", title=title)
        axis.title.set_fontsize("medium")
    return finish(axes, given=ax is not None, show=show, return_fig=return_fig)
