"""One look for all plots: Okabe & Ito's colours, which colour-blind readers tell apart, in light and in dark styles."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.typing import ColorType

from scgap._messages import kind_of

MODEL, BASELINE, CEILING, OBSERVED = "#0072B2", "#9A9A9A", "#009E73", "#E69F00"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p")  # more than colours, so a pair of both stays unique
MANY = 500  # points, above which they are small, and pixels in a vector file


def get_axes(ax: Axes | Sequence[Axes] | np.ndarray | None, n: int, *, width: float, height: float) -> np.ndarray:
    """The n axes to draw into: those given, or a row of new ones, ``width`` x ``height`` inches each."""
    if ax is None:
        ax = plt.subplots(1, n, figsize=(width * n, height), layout="constrained", squeeze=False)[1]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if others := [axis for axis in axes if not isinstance(axis, Axes)]:
        raise TypeError(f"ax holds {kind_of(others[0])}. Pass axes of matplotlib, or leave ax out.")
    if len(axes) != n:
        raise ValueError(f"ax holds {len(axes)} axes, and {n} are drawn. Pass as many, or leave ax out.")
    return axes


def class_colours(axis: Axes, names: Sequence[str], adata: AnnData, column: str | None) -> list[ColorType]:
    """A colour for each of the names: those that scanpy has stored for the column of obs that they come from, if any.

    Else those of the palette, or where it has too few, of scanpy's.
    """
    stored = _stored_colours(adata, column)
    if set(names) <= set(stored):
        return [stored[name] for name in names]
    if len(names) <= len(PALETTE):
        return [shade(axis, colour) for colour in PALETTE[: len(names)]]
    from scanpy.plotting import palettes  # here, for it takes seconds

    found = next((p for p in (palettes.default_20, palettes.default_28) if len(p) >= len(names)), palettes.default_102)
    return [shade(axis, found[i % len(found)]) for i in range(len(names))]


def _stored_colours(adata: AnnData, column: str | None) -> Mapping[str, str]:
    """Category -> colour in ``uns["<column>_colors"]``, where there is one for each category."""
    colours = adata.uns.get(f"{column}_colors")
    if colours is None or column not in adata.obs:
        return {}
    categories = pd.Series(adata.obs[column]).astype("category").cat.categories
    return dict(zip(map(str, categories), colours, strict=False)) if len(colours) >= len(categories) else {}


def shade(axis: Axes, colour: str) -> ColorType:
    """A colour as it is seen on these axes: on dark ones, nearer to white."""
    return text_colour(axis, colour) if sum(to_rgb(ink(axis))) > 1.5 else colour


def text_colour(axis: Axes, colour: str) -> ColorType:
    """A colour, nearer to the ink: small texts need more contrast than points."""
    red, green, blue = (0.75 * a + 0.25 * b for a, b in zip(to_rgb(colour), to_rgb(ink(axis)), strict=True))
    return red, green, blue


def ink(axis: Axes) -> ColorType:
    """The colour of lines and texts that are seen on these axes, in light and in dark styles."""
    return axis.xaxis.label.get_color()


def halo(axis: Axes) -> list[withStroke]:
    """A border in the colour of the ground, in which texts and arrows are seen over points."""
    return [withStroke(linewidth=2, foreground=axis.get_facecolor())]


def settle(axes: np.ndarray) -> None:
    """Draw until it is known how large square panels are, and where in them a text would fall."""
    figure = axes[0].figure.canvas.figure  # the whole one, for axes may be in a part of it
    for _ in range(3):  # the first lays panels out as if they were not square, and ticks change with their size
        figure.draw_without_rendering()


def finish(axes: np.ndarray, *, given: bool, show: bool | None, return_fig: bool) -> Figure | np.ndarray | Axes | None:
    """What a plot returns, as in scanpy: the figure, the axes, or nothing after showing it."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    if not given:
        settle(axes)  # saved on the first draw, labels of square panels would be cut off
    if return_fig:
        return axes[0].figure
    if show if show is not None else not given:
        plt.show()
        return None
    return axes if len(axes) > 1 else axes[0]
