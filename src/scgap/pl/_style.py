"""One look for all plots: Okabe & Ito's colours, which colour-blind readers tell apart."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

from scgap._messages import kind_of

MODEL, BASELINE, CEILING = "#0072B2", "#9A9A9A", "#009E73"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p")  # more than colours, so a pair of both stays unique


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


def text_colour(axis: Axes, colour: str) -> ColorType:
    """A colour, nearer to the ink: small texts need more contrast than points."""
    red, green, blue = (0.75 * a + 0.25 * b for a, b in zip(to_rgb(colour), to_rgb(ink(axis)), strict=True))
    return red, green, blue


def ink(axis: Axes) -> ColorType:
    """The colour of lines and texts that are seen on these axes, in light and in dark styles."""
    return axis.xaxis.label.get_color()


def settle(axes: np.ndarray) -> None:
    """Draw twice: only then is it known how large square panels are, and where in them a text would fall."""
    figure = axes[0].figure.canvas.figure  # the whole one, for axes may be in a part of it
    for _ in range(2):  # the first draw lays panels out as if they were not square
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
